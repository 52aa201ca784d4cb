//! What will happen at a time: the entries of a simulation's queue.

use homeostat_common::units::Micros;

/// One thing that will happen; of equal times the one that was put in first comes
/// first.
#[derive(Debug, Clone)]
pub(crate) struct Entry<W> {
    pub(crate) at: Micros,
    pub(crate) order: u64,
    pub(crate) what: W,
}

impl<W> PartialEq for Entry<W> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl<W> Eq for Entry<W> {}
impl<W> PartialOrd for Entry<W> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<W> Ord for Entry<W> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
