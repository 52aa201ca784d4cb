//! The steps of one plan that are under way together, whoever leads the plan.
//!
//! In: steps that begin, and what comes in from outside about any of them. Out: which of
//! them ended and how, and what to ask for next. What an end means for the plan is for its
//! state machine.

use homeostat_common::ids::{Instance, RouteId, ServiceId, Token};
use homeostat_common::units::Micros;

use super::{Order, Progress, StepRun, View};

/// Steps under way, at most as many as a plan has.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    steps: Vec<StepRun>,
    /// Answers to deeds that came in.
    acted: Vec<(Token, Result<(), String>)>,
    /// Steps whose backend has no connections left.
    drained: Vec<u8>,
    wake: Option<Micros>,
}

impl Runs {
    /// Takes a step that has begun.
    pub fn begin(&mut self, run: StepRun) {
        self.steps.push(run);
    }

    /// A step is no longer waited for.
    pub fn end(&mut self, step: u8) {
        self.steps.retain(|run| run.token.step != step);
    }

    /// Forgets what came in: another plan follows.
    pub fn forget_answers(&mut self) {
        self.acted.clear();
        self.drained.clear();
    }

    /// Those under way.
    pub fn iter(&self) -> impl Iterator<Item = &StepRun> {
        self.steps.iter()
    }

    /// When one wants to be looked at again.
    #[must_use]
    pub fn wake(&self) -> Option<Micros> {
        self.wake
    }

    /// A deed is done, or cannot be. The answer to one that nobody waits for any more,
    /// because its step ran out of time, says nothing about another.
    pub fn acted(&mut self, token: Token, result: &Result<(), String>) {
        if self.steps.iter().any(|run| run.token == token) {
            self.acted.push((token, result.clone()));
        }
    }

    /// A backend has no connections left.
    pub fn drained(
        &mut self,
        route: &RouteId,
        backend: &ServiceId,
        view: View<'_>,
        orders: &mut Vec<Order>,
    ) {
        for run in &mut self.steps {
            if run.drained(route, backend, view, orders) == Some(Progress::Done) {
                self.drained.push(run.token.step);
            }
        }
    }

    /// A start of `service` was refused. Those that cannot go on are ended and returned.
    pub fn refused(
        &mut self,
        service: &ServiceId,
        live: Option<Instance>,
        why: &str,
        orders: &mut Vec<Order>,
    ) -> Vec<(u8, String)> {
        let mut failed = Vec::new();
        for run in &mut self.steps {
            if run.service() == Some(service)
                && let Progress::Failed(why) = run.refused(live, why, orders)
            {
                failed.push((run.token.step, why));
            }
        }
        for (step, _) in &failed {
            self.end(*step);
        }
        failed
    }

    /// Moves all of them on. Those that have ended are returned, in the order in which they
    /// began.
    pub fn advance(
        &mut self,
        view: View<'_>,
        orders: &mut Vec<Order>,
    ) -> Vec<(u8, Result<(), String>)> {
        let (acted, drained) = (&mut self.acted, &mut self.drained);
        let mut ended = Vec::new();
        let mut wake: Option<Micros> = None;
        self.steps.retain_mut(|run| {
            let token = run.token;
            let answer = acted.iter().position(|(of, _)| *of == token);
            let idle = drained.iter().position(|step| *step == token.step);
            let progress = match (answer, idle) {
                (Some(at), _) => run.acted(acted.remove(at).1, orders),
                (None, Some(at)) => {
                    drained.remove(at);
                    Progress::Done
                }
                (None, None) => run.advance(view, orders),
            };
            let result = match progress {
                Progress::Busy(until) => {
                    wake = wake.into_iter().chain(until).min();
                    return true;
                }
                Progress::Done => Ok(()),
                Progress::Failed(why) => Err(why),
            };
            ended.push((token.step, result));
            false
        });
        self.wake = wake;
        ended
    }
}
