//! One hidden state that may be the true one: an incident of the grammar in a world of its
//! own, with what would be seen of it on average.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::signs::{LINES_LOOKS, Signs};
use crate::fault::Incident;
use crate::observe::{Expected, lines};
use crate::text::TextError;
use crate::topology::Topology;
use crate::world::{Order, OrderNo, Progress, Settings, World};

/// What speaks against a particle whose order ended otherwise than the real one did, in
/// logarithms of a likelihood.
const OTHERWISE: f64 = 3.0;
/// And where one was refused that was taken.
const REFUSED: f64 = 6.0;
/// What speaks against one that has the order still under way, each time it is asked.
const SLOWER: f64 = 0.5;
/// Looks before the last that still count: smoothed gauges have forgotten the others.
const LOOKED: usize = 10;

/// An order and how it ended, as far as that is known.
#[derive(Debug, Clone)]
pub(super) struct Deed {
    pub(super) at: f64,
    pub(super) order: Order,
    /// When that was seen, and whether it was done.
    pub(super) ended: Option<(f64, bool)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Particle {
    pub(super) incident: Arc<Incident>,
    pub(super) onset: f64,
    pub(super) world: World,
    pub(super) signs: Signs,
    gauges: [Vec<f64>; 2],
    counted: Vec<[u32; 3]>,
    written: VecDeque<Vec<f64>>,
    under_way: Option<OrderNo>,
    /// What speaks against it besides what is seen now.
    pub(super) against: f64,
    /// How likely what is seen is in it, less that.
    pub(super) likely: f64,
}

impl Particle {
    /// One in which nothing goes wrong, from the beginning on.
    pub(super) fn quiet(topology: &Arc<Topology>, seed: u64) -> Result<Self, TextError> {
        let settings = Settings {
            silent: 0.0,
            ..Settings::default()
        };
        let none = Incident::none();
        Ok(Self {
            world: World::with(topology, &none, seed, settings)?,
            incident: Arc::new(none),
            onset: f64::INFINITY,
            signs: Signs::default(),
            gauges: [const { Vec::new() }; 2],
            counted: Vec::new(),
            written: VecDeque::new(),
            under_way: None,
            against: 0.0,
            likely: f64::NEG_INFINITY,
        })
    }

    /// This one, in which nothing has gone wrong yet, before an incident.
    pub(super) fn before(
        &self,
        incident: Arc<Incident>,
        seed: u64,
        onset: f64,
        against: f64,
    ) -> Result<Self, TextError> {
        Ok(Self {
            world: self.world.before(&incident, seed, onset)?,
            incident,
            onset,
            against,
            ..self.clone()
        })
    }

    /// Moves it on to a look of the healer.
    pub(super) fn look(&mut self, at: f64) {
        let before = self.world.now();
        while self.world.now() < at {
            self.world.tick();
        }
        let expected = Expected::of(&self.world, &mut self.gauges);
        self.signs.expect(self.world.topology(), at, &expected);
        if self.written.len() == LINES_LOOKS {
            self.written.pop_front();
        }
        let written = lines(&self.world, at - before, &mut self.counted);
        self.written.push_back(written);
    }

    /// How many lines were to be expected in the last while, by replica and template.
    pub(super) fn lines(&self) -> Vec<f64> {
        let mut sum = vec![0.0; self.written.back().map_or(0, Vec::len)];
        for look in &self.written {
            for (sum, one) in sum.iter_mut().zip(look) {
                *sum += one;
            }
        }
        sum
    }

    /// The healer orders something.
    pub(super) fn order(&mut self, order: &Order) {
        match self.world.order(order) {
            Ok(no) => self.under_way = Some(no),
            Err(_) => self.against += REFUSED,
        }
    }

    /// It was done or not; here it should be the same.
    pub(super) fn ended(&mut self, done: bool) {
        let Some(no) = self.under_way.take() else {
            return;
        };
        self.against += match self.world.progress(no) {
            Some(Progress::Done) if done => 0.0,
            Some(Progress::Failed { .. }) if !done => 0.0,
            Some(Progress::Underway) => SLOWER,
            _ => OTHERWISE,
        };
    }

    /// Lives through all that was seen and done since.
    pub(super) fn live(&mut self, looks: &[f64], deeds: &[Deed]) {
        let begun = self.world.now();
        let seen_from = looks.len().saturating_sub(LOOKED);
        for (number, at) in looks.iter().enumerate().filter(|(_, at)| **at > begun) {
            if number >= seen_from {
                self.look(*at);
            }
            while self.world.now() < *at {
                self.world.tick();
            }
            for deed in deeds {
                if let Some((_, done)) = deed.ended.filter(|(ended, _)| ended == at) {
                    self.ended(done);
                }
                if deed.at == *at {
                    self.order(&deed.order);
                }
            }
        }
    }
}
