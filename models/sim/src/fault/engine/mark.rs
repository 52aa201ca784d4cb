//! A number that two sets of faults share only if they will do the same.
//!
//! For searches over plans, which need not look twice at one state. Steps that were seen
//! count only where a fault asks for them.

use super::super::grammar::Coupling;
use super::super::mechanism::{Cure, remedies};
use super::{Engine, Stage, bit};
use crate::world::mark::Mark;

impl Engine {
    /// Adds what matters of the faults.
    pub(crate) fn mark(&self, mark: &mut Mark) {
        for (run, fault) in self.runs.iter().zip(&self.script.faults) {
            let asked = fault.couplings.iter().filter_map(|coupling| match coupling {
                Coupling::Breaks { unless, .. } => *unless,
                Coupling::Heals { unless, .. } => Some(*unless),
                Coupling::ReInfects
                | Coupling::Returns { .. }
                | Coupling::MovesLoad { .. }
                | Coupling::Holds { .. }
                | Coupling::Hides { .. } => None,
            });
            let shields = remedies(fault.mechanism, fault.locus.place).iter();
            let shields = shields.filter(|remedy| remedy.effect == Cure::Shields);
            let matters = asked.chain(shields.map(|remedy| remedy.step));
            let matters = matters.fold(0, |bits, step| bits | bit(step));
            let stage = match run.stage {
                Stage::Waiting => 0,
                Stage::Present => 1,
                Stage::Gone => 2,
            };
            mark.whole(stage);
            mark.whole(run.seen & matters);
            mark.flags([run.resting, run.returning, false, false]);
            for part in &run.parts {
                mark.flags([part.root, part.hurts, part.held, part.infected]);
            }
            for (tried, until) in &run.tries {
                mark.whole(u64::from(*tried));
                mark.number(*until);
            }
        }
        // Timers stand in any order.
        let timers = self.timers.iter().map(|timer| {
            let mut one = Mark::default();
            one.number(timer.at);
            one.whole(timer.fault as u64);
            one.whole(timer.due as u64);
            one.value()
        });
        mark.whole(timers.fold(0, u64::wrapping_add));
    }
}
