//! Faults: none yet.

pub(crate) mod burden;

use crate::topology::Topology;
use crate::world::{Happened, state::State};

/// What goes wrong in one episode.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Incident {
    /// Its name.
    pub name: String,
}

impl Incident {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}

/// Why an effect does not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal;

/// The faults of one episode, at work.
#[derive(Debug, Clone)]
pub struct Engine;

impl Engine {
    pub(crate) fn new(_: &Topology, _: &Incident, _: u64) -> Result<Self, crate::text::TextError> {
        Ok(Self)
    }

    pub(crate) fn tick(&mut self, _: &Topology, _: &mut State) {}

    pub(crate) fn happened(&mut self, _: &Topology, _: &mut State, _: Happened) {}

    pub(crate) fn refuses(&mut self, _: &Topology, _: &State, _: Happened) -> Option<Refusal> {
        None
    }

    /// Roots that are still there.
    #[must_use]
    pub fn roots_left(&self) -> usize {
        0
    }
}
