//! The simulated disk: one log of appended entries, of which a crash keeps all
//! that was synced and some of what came after.

use homeostat_agent::control::{HealRecord, Resumed, Saved};
use homeostat_agent::learn::Experience;
use homeostat_common::wire::body::Body;

/// One appended entry. Healing, state and events share the log, so a crash
/// keeps them in the order in which the loop gave them out.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Heal(HealRecord),
    State(Box<(Saved, Experience)>),
    Quiet,
    Event(Box<Body>),
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Disk {
    entries: Vec<Entry>,
    synced: usize,
    /// Full: takes nothing and syncs nothing; what is appended waits in memory.
    pub(super) full: bool,
    waiting: Vec<Entry>,
}

impl Disk {
    pub(super) fn append(&mut self, entry: Entry) {
        if self.full {
            self.waiting.push(entry);
        } else {
            self.entries.push(entry);
        }
    }

    /// Where the log ends now; a sync that began here reaches this far.
    pub(super) fn end(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn synced(&mut self, end: usize) {
        self.synced = self.synced.max(end.min(self.entries.len()));
    }

    /// There is room again: what waited is written.
    pub(super) fn recover(&mut self) {
        self.full = false;
        self.entries.append(&mut self.waiting);
    }

    /// The writer dies: of what was not synced, a random part survives.
    pub(super) fn crash(&mut self, rng: &mut fastrand::Rng) {
        self.waiting.clear();
        let kept = rng.usize(self.synced..=self.entries.len());
        self.entries.truncate(kept);
        self.synced = kept;
    }

    /// The writer dies, and the kernel keeps all that it was given.
    pub(super) fn crash_gently(&mut self) {
        self.waiting.clear();
        self.synced = self.entries.len();
    }

    /// What a restarted agent finds.
    pub(super) fn resumed(&self) -> Resumed {
        let mut resumed = Resumed::default();
        for entry in &self.entries {
            match entry {
                Entry::Heal(record) => resumed.records.push(record.clone()),
                Entry::State(state) => {
                    resumed.saved = Some(state.0.clone());
                    resumed.experience = state.1.clone();
                }
                Entry::Quiet => resumed.records.clear(),
                Entry::Event(_) => {}
            }
        }
        resumed
    }

    /// Every record about healing that is kept.
    pub(super) fn records(&self) -> impl Iterator<Item = &HealRecord> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Heal(record) => Some(record),
            Entry::State(_) | Entry::Quiet | Entry::Event(_) => None,
        })
    }

    /// Every event that is kept, in order.
    pub(super) fn events(&self) -> impl Iterator<Item = &Body> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Event(body) => Some(&**body),
            Entry::Heal(_) | Entry::State(_) | Entry::Quiet => None,
        })
    }
}
