//! One hidden state that may be the true one: an incident of the grammar in a world of its
//! own, looked at as the healer looks at the real one.

use std::collections::VecDeque;

use super::super::signs::{LINES_LOOKS, Signs};
use crate::fault::Incident;
use crate::observe::{Observer, rates};
use crate::world::{Order, OrderNo, Progress, World};

/// What speaks against a particle whose order ended otherwise than the real one did, in
/// logarithms of a likelihood.
const OTHERWISE: f64 = 3.0;
/// And where one was refused that was taken.
const REFUSED: f64 = 6.0;
/// What speaks against one that has the order still under way, each time it is asked.
const SLOWER: f64 = 0.5;

/// What has not gone wrong yet, with what was seen of it: where particles begin.
#[derive(Debug, Clone)]
pub(super) struct Calm {
    pub(super) world: World,
    pub(super) observer: Observer,
    pub(super) signs: Signs,
}

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
    pub(super) incident: Incident,
    pub(super) world: World,
    observer: Observer,
    pub(super) signs: Signs,
    written: VecDeque<Vec<f64>>,
    under_way: Option<OrderNo>,
    /// What speaks against it besides what is seen now.
    pub(super) against: f64,
    /// How likely what is seen is in it, less that.
    pub(super) likely: f64,
}

impl Particle {
    pub(super) fn new(calm: &Calm, incident: Incident, seed: u64, against: f64) -> Option<Self> {
        let world = calm.world.before(&incident, seed).ok()?;
        Some(Self {
            incident,
            world,
            observer: calm.observer.clone(),
            signs: calm.signs.clone(),
            written: VecDeque::new(),
            under_way: None,
            against,
            likely: 0.0,
        })
    }

    /// Moves it on to a look of the healer.
    pub(super) fn look(&mut self, at: f64) {
        let before = self.world.now();
        while self.world.now() < at {
            self.world.tick();
        }
        let seen = self.observer.look(&self.world);
        self.signs.see(self.world.topology(), &seen);
        let elapsed = at - before;
        let written = rates(&self.world).into_iter().map(|rate| rate * elapsed);
        if self.written.len() == LINES_LOOKS {
            self.written.pop_front();
        }
        self.written.push_back(written.collect());
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

    /// Lives through all that was seen and done since the calm.
    pub(super) fn live(&mut self, looks: &[f64], deeds: &[Deed]) {
        let begun = self.world.now();
        for at in looks.iter().filter(|at| **at > begun) {
            self.look(*at);
            for deed in deeds {
                if deed.ended.is_some_and(|(ended, _)| ended == *at) {
                    self.ended(deed.ended.is_some_and(|(_, done)| done));
                }
                if deed.at == *at {
                    self.order(&deed.order);
                }
            }
        }
    }
}
