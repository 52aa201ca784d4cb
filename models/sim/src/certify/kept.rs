//! Certificates of the shipped incidents, as they were certified.
//!
//! Beside the files of each set lies `certificates.tsv`: name, topology, least number of
//! steps, the same with storms of retries broken for nothing, whether their order matters, and
//! a plan that ends it, between tabs. Here they are
//! looked up, so that nobody has to search for minutes to know what is known. Tests certify
//! some of them again, and carry out every plan.

/// What is known of a shipped incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub incident: &'static str,
    /// Where.
    pub topology: &'static str,
    /// Least number of steps: `0`, `1`, `2` or `>2`.
    pub length: &'static str,
    /// The same if storms of retries that a plan leaves behind were broken for nothing.
    pub apart: &'static str,
    /// A plan works, and the same steps in another order do not.
    pub order_matters: bool,
    /// A plan that ends it, where one is known: `NODE: STEP ; STEP ; NODE: STEP`.
    pub plan: Option<&'static str>,
}

const FILES: [&str; 2] = [
    include_str!("../../faults/train/certificates.tsv"),
    include_str!("../../faults/development/certificates.tsv"),
];

impl Kept {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        FILES
            .into_iter()
            .flat_map(str::lines)
            .filter_map(Self::read)
    }

    /// That of an incident.
    #[must_use]
    pub fn of(incident: &str) -> Option<Self> {
        Self::all().find(|one| one.incident == incident)
    }

    /// It has a plan, and none of up to two steps.
    #[must_use]
    pub fn hard(&self) -> bool {
        self.length == ">2" && self.plan.is_some()
    }

    fn read(line: &'static str) -> Option<Self> {
        let mut parts = line.split('\t');
        Some(Self {
            incident: parts.next()?,
            topology: parts.next()?,
            length: parts.next()?,
            apart: parts.next()?,
            order_matters: parts.next()? == "order",
            plan: parts.next().filter(|plan| *plan != "-"),
        })
    }
}
