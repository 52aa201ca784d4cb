//! Topologies that are made up.
//!
//! In go a seed and a number of nodes; out comes the text of a topology, which reads as
//! any other does. Services are placed first and nodes are as large as what they carry
//! needs: what is made up is well as long as nothing goes wrong.

use core::fmt::{self, Write};

use super::{Errand, NODES_MAX, Topology};
use crate::chance::{Chance, Stream};
use crate::text::TextError;

/// Least nodes of a topology that is made up.
pub const SIZE_MIN: usize = 3;
/// Peak of the demand over its mean: its swing, and three deviations of its noise.
const PEAK: f64 = 1.4;
/// How busy a replica may be at the peak, with one of its siblings missing.
const BUSY: f64 = 0.75;
/// Share of a node's cores that is asked for at the peak.
const CORES: f64 = 0.6;
/// Share of its memory that is taken, standbys running.
const MEMORY: f64 = 0.8;
/// Memory of a node's own system in MB.
const SYSTEM_MB: f64 = 500.0;

/// A number of nodes that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a topology is made up of {SIZE_MIN} to {NODES_MAX} nodes, not {0}")]
pub struct SizeError(usize);

/// A stage of a line of services.
#[derive(Debug, Clone, Copy)]
struct Stage {
    name: &'static str,
    rate: (f64, f64),
    cores: f64,
    memory_mb: f64,
    start_s: f64,
    rest: &'static str,
}

const GATEWAY: Stage = Stage {
    name: "gate",
    rate: (150.0, 260.0),
    cores: 0.8,
    memory_mb: 150.0,
    start_s: 2.5,
    rest: "offers = [\"reset-pool\", \"locks\"]",
};
const PREPARE: Stage = Stage {
    name: "prep",
    rate: (80.0, 140.0),
    cores: 1.4,
    memory_mb: 280.0,
    start_s: 4.0,
    rest: "offers = [\"reset-pool\", \"locks\", \"degrade\", \"prune\"]",
};
const CACHE: Stage = Stage {
    name: "cache",
    rate: (400.0, 700.0),
    cores: 0.6,
    memory_mb: 600.0,
    start_s: 3.0,
    rest: "hit = 0.35\noffers = [\"flush-cache\", \"locks\"]",
};
const INFER: Stage = Stage {
    name: "infer",
    rate: (30.0, 60.0),
    cores: 2.2,
    memory_mb: 800.0,
    start_s: 7.0,
    rest: "model = true\nkb = 60\noffers = [\"degrade\", \"locks\", \"prune\", \"remount\"]",
};
const BROKER: Stage = Stage {
    name: "broker",
    rate: (350.0, 600.0),
    cores: 0.5,
    memory_mb: 200.0,
    start_s: 3.0,
    rest: "stateful = true\nwrites = true\noffers = [\"locks\", \"snapshot\", \"prune\", \"remount\"]",
};
const STORE: Stage = Stage {
    name: "store",
    rate: (120.0, 200.0),
    cores: 1.2,
    memory_mb: 700.0,
    start_s: 6.0,
    rest: "stateful = true\nwrites = true\noffers = [\"locks\", \"snapshot\", \"prune\", \"remount\"]",
};

/// A node that is being filled.
#[derive(Debug, Clone, Copy)]
struct Slot {
    site: usize,
    cores: f64,
    memory_mb: f64,
}

impl Topology {
    /// A topology that is made up; the same for the same seed and size.
    ///
    /// # Errors
    /// [`SizeError`] for a number of nodes that cannot be had.
    pub fn generate(seed: u64, nodes: usize) -> Result<Self, GenerateError> {
        let text = Self::generate_text(seed, nodes)?;
        Ok(Self::read(&format!("generated-{seed}-{nodes}"), &text)?)
    }

    /// Its text.
    ///
    /// # Errors
    /// [`SizeError`] for a number of nodes that cannot be had.
    pub fn generate_text(seed: u64, nodes: usize) -> Result<String, SizeError> {
        if !(SIZE_MIN..=NODES_MAX).contains(&nodes) {
            return Err(SizeError(nodes));
        }
        let mut maker = Maker::new(seed, nodes);
        let lines = (nodes / 6).max(1);
        for line in 0..lines {
            maker.line(line);
        }
        Ok(maker.text(seed, nodes))
    }
}

/// Why no topology was made up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// A number of nodes that cannot be had.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// What was made up does not read.
    #[error("what was made up does not read")]
    Read(#[from] TextError),
}

struct Maker {
    chance: Chance,
    drawn: u64,
    /// Edge sites; the cloud is the one behind the last.
    sites: usize,
    nodes: Vec<Slot>,
    routes: String,
}

impl Maker {
    fn new(seed: u64, count: usize) -> Self {
        let chance = Chance::new(seed, Stream::Topology);
        let cloud = (count / 10).max(1);
        let edge = count - cloud;
        let sites = (edge / 7).max(1);
        let nodes = (0..count).map(|at| Slot {
            site: if at < edge { at * sites / edge } else { sites },
            cores: 0.0,
            memory_mb: SYSTEM_MB,
        });
        Self {
            chance,
            drawn: 0,
            sites,
            nodes: nodes.collect(),
            routes: String::new(),
        }
    }

    fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        self.drawn += 1;
        // Whole numbers read better.
        (low + (high - low) * self.chance.uniform(self.drawn, 0)).round()
    }

    /// A line of services of one site, from a gateway to a store in the cloud.
    fn line(&mut self, line: usize) {
        let home = line % self.sites;
        let cloud = self.sites;
        let demand = self.between((24.0, 64.0));
        let cached = self.between((0.0, 1.0)) > 0.0;
        let brokered = self.between((0.0, 1.0)) > 0.0;
        let (c, i) = (format!("cache-{line}"), format!("infer-{line}"));
        let (p, s, b) = (
            format!("prep-{line}"),
            format!("store-{line}"),
            format!("broker-{line}"),
        );
        let mut prepare = String::new();
        if cached {
            let _ = write!(prepare, "{{ to = \"{c}\", needed = false }}, ");
            let _ = write!(prepare, "{{ to = \"{i}\", behind = \"{c}\" }}");
        } else {
            let _ = write!(prepare, "{{ to = \"{i}\" }}");
        }
        if brokered {
            let _ = write!(prepare, ", {{ to = \"{b}\" }}");
        }
        self.route(
            line,
            &GATEWAY,
            home,
            demand,
            Some(demand),
            &format!("{{ to = \"{p}\" }}"),
        );
        self.route(line, &PREPARE, home, demand, None, &prepare);
        if cached {
            self.route(line, &CACHE, home, demand, None, "");
        }
        // Sized for a cache that is cold.
        self.route(
            line,
            &INFER,
            home,
            demand,
            None,
            &format!("{{ to = \"{s}\" }}"),
        );
        if brokered {
            self.route(line, &BROKER, home, demand, None, "");
        }
        self.route(line, &STORE, cloud, demand, None, "");
    }

    fn route(
        &mut self,
        line: usize,
        stage: &Stage,
        site: usize,
        load: f64,
        demand: Option<f64>,
        calls: &str,
    ) {
        let rate = self.between(stage.rate);
        let peak = load * PEAK;
        let mut count = 1_u32;
        // With one missing.
        while peak > BUSY * rate * f64::from(count) {
            count += 1;
        }
        let count = if stage.name == CACHE.name {
            1
        } else {
            count + 1
        };
        let share = peak / rate / f64::from(count);
        let mut replicas = String::new();
        let mut at = Vec::new();
        for number in 1..=count + 1 {
            let standby = number > count;
            let node = self.emptiest(site, &at);
            at.push(node);
            self.nodes[node].memory_mb += stage.memory_mb;
            if !standby {
                self.nodes[node].cores += stage.cores * share;
            }
            let standby = if standby { ", standby = true" } else { "" };
            let name = format!("{}-{line}-{number}", stage.name);
            let node = node + 1;
            let _ = writeln!(
                replicas,
                "  {{ name = \"{name}\", node = \"node-{node}\"{standby} }},"
            );
        }
        let text = &mut self.routes;
        let _ = writeln!(text, "\n[[route]]\nname = \"{}-{line}\"", stage.name);
        let _ = writeln!(text, "at = \"node-{}\"\nrate = {rate}", at[0] + 1);
        if let Some(demand) = demand {
            let _ = writeln!(text, "demand = {demand}");
        }
        let _ = writeln!(
            text,
            "cores = {:?}\nmemory_mb = {:?}",
            stage.cores, stage.memory_mb
        );
        let _ = writeln!(text, "start_s = {:?}\n{}", stage.start_s, stage.rest);
        if !calls.is_empty() {
            let _ = writeln!(text, "calls = [{calls}]");
        }
        let _ = writeln!(text, "replicas = [\n{replicas}]");
    }

    /// The node of a site that carries least, others before those that have one already.
    fn emptiest(&self, site: usize, taken: &[usize]) -> usize {
        let own = (0..self.nodes.len()).filter(|at| self.nodes[*at].site == site);
        let least = own.min_by(|a, b| {
            let key = |at: &usize| (taken.contains(at), self.nodes[*at].memory_mb);
            let ((ta, ma), (tb, mb)) = (key(a), key(b));
            ta.cmp(&tb).then(ma.total_cmp(&mb))
        });
        // Each site has a node: there are at least as many as sites.
        least.unwrap_or(0)
    }

    fn text(&self, seed: u64, nodes: usize) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "# Made up from seed {seed}.\nname = \"generated-{nodes}\""
        );
        for site in 0..=self.sites {
            let _ = writeln!(text, "\n[[site]]\nname = \"{}\"", Site(site, self.sites));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let cores = size(node.cores / CORES, 2.0);
            let memory = size(node.memory_mb / MEMORY / 950.0, 2.0) * 950.0;
            let _ = writeln!(text, "\n[[node]]\nname = \"node-{}\"", at + 1);
            let _ = writeln!(text, "site = \"{}\"", Site(node.site, self.sites));
            let _ = writeln!(text, "cores = {cores}\nmemory_mb = {memory}");
            let _ = writeln!(text, "system_mb = {SYSTEM_MB}");
            let uplinks = if node.site == self.sites {
                let _ = writeln!(text, "ambient_c = 22\nrth = 1\nrth_dead = 2");
                "{ name = \"eth0\", delay_ms = 4 }"
            } else {
                "{ name = \"eth0\", delay_ms = 8 }, { name = \"lte0\", delay_ms = 30, loss = 0.002 }"
            };
            let _ = writeln!(text, "uplinks = [{uplinks}]");
        }
        text.push_str(&self.routes);
        for errand in Errand::ALL {
            let name = errand.name();
            let _ = writeln!(text, "\n[[webhook]]\nname = \"{name}\"\ndoes = \"{name}\"");
        }
        text
    }
}

/// The smallest doubling of `least` that is enough.
fn size(needed: f64, least: f64) -> f64 {
    let mut size = least;
    while size < needed {
        size *= 2.0;
    }
    size
}

struct Site(usize, usize);

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 {
            f.write_str("cloud")
        } else {
            write!(f, "site-{}", self.0 + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_reads_and_has_its_size() {
        for seed in 0..20 {
            for nodes in [3, 4, 8, 16, 30, 60, 256] {
                let topology = Topology::generate(seed, nodes).unwrap();
                assert_eq!(topology.nodes().len(), nodes);
                assert_eq!(Topology::generate(seed, nodes).unwrap(), topology);
            }
        }
        let texts = (0..20).map(|seed| Topology::generate_text(seed, 9).unwrap());
        let mut texts: Vec<String> = texts.collect();
        texts.dedup();
        assert_eq!(texts.len(), 20);
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for nodes in [0, 2, 257, 1_000_000] {
            let error = Topology::generate(1, nodes).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("a topology is made up of 3 to 256 nodes, not {nodes}")
            );
        }
    }
}
