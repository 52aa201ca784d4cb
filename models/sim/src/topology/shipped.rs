//! The topologies that come with the simulator.

use super::Topology;
use crate::text::TextError;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../topologies/", $name, ".toml")))),*]
    };
}

const FILES: [(&str, &str); 6] = files!["reference", "kiosk", "plant", "fleet", "retail", "city"];

impl Topology {
    /// The names of the topologies that come with the simulator, and their texts.
    #[must_use]
    pub fn shipped() -> &'static [(&'static str, &'static str)] {
        &FILES
    }

    /// One of them, by its name.
    ///
    /// # Errors
    /// [`TextError`] when there is none of that name.
    pub fn named(name: &str) -> Result<Self, TextError> {
        match FILES.iter().find(|(own, _)| *own == name) {
            Some((name, text)) => Self::read(&format!("{name}.toml"), text),
            None => Err(TextError {
                file: name.to_owned(),
                line: 1,
                reason: "no topology of that name comes with the simulator".to_owned(),
            }),
        }
    }

    /// The reference: four edge nodes and a cloud node.
    ///
    /// # Panics
    /// Never: a test reads every file that is shipped.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn reference() -> Self {
        Self::named("reference").expect("the shipped file is read by a test")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_topology_reads() {
        let sizes = Topology::shipped().iter().map(|(name, _)| {
            let topology = Topology::named(name).unwrap();
            assert_eq!(topology.name(), *name);
            topology.nodes().len()
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [5, 3, 8, 16, 30, 60]);
        assert!(Topology::named("moon").is_err());
    }
}
