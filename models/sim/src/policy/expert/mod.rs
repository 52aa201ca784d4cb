//! An expert's rule base: causes by what gives them away, repairs, and traps.
//!
//! Two sorts of productions. A *cause* looks for one thing that can be wrong and says where
//! and what mends it; a *guard* knows one way in which a repair goes wrong and changes it:
//! a step before, a step instead, or a wait. Any cause meets any guard, so combinations
//! that nobody wrote down are covered as well. Each production has a name and can be left
//! out ([`Expert::without`]), to ask what a base is worth that does not know an incident.
//!
//! It carries out one repair at a time, looks again, and goes on to the next cause when
//! what it did does not show within a while. It knows nothing but what is seen, and its
//! numbers are those of the simulator's sensors and not of its faults.

mod about;
mod case;
mod causes;
mod guards;
mod machines;
mod order;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use self::case::{Case, Repair};
use super::beside::beside;
use super::signs::Signs;
use super::{How, Policy, View};
use crate::world::Order;

/// One production.
#[derive(Debug, Clone, Copy)]
pub struct Production {
    /// Its name.
    pub name: &'static str,
    /// What it knows, in a line.
    pub about: &'static str,
    rule: Rule,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    /// What can be wrong, and what mends it.
    Cause(fn(&Case<'_>, &mut Vec<Repair>)),
    /// How a repair can go wrong.
    Guard(fn(&Case<'_>, &mut Repair)),
}

/// All productions: causes, the most urgent first, and guards in the order in which they
/// change a repair.
pub const PRODUCTIONS: &[Production] = &productions();

const COUNT: usize = causes::ALL.len() + guards::ALL.len();

const fn productions() -> [Production; COUNT] {
    let mut all = [causes::ALL[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] = if at < causes::ALL.len() {
            causes::ALL[at]
        } else {
            guards::ALL[at - causes::ALL.len()]
        };
        at += 1;
    }
    all
}

/// How long a repair has to show, in seconds, before the same is done again.
/// Log lines of before are forgotten by then.
const SHOWS_S: f64 = 42.0;
/// And after it has failed for a reason that is seen.
const AGAIN_S: f64 = 5.0;
/// How often the same is done in vain, until other causes come first.
const TRIES: u32 = 2;
/// And until it is given up.
const TRIES_MAX: u32 = 6;
/// A cause has to be seen for so long, in seconds, before anything is done: what makes its
/// repair a trap is written about every seven.
const THINK_S: f64 = 20.0;
/// Steps of which old lines are still there when they are done,
const SLOW: [super::Kind; 6] = [
    super::Kind::RotateCredential,
    super::Kind::FailoverBroker,
    super::Kind::RollbackBinary,
    super::Kind::Retrain,
    super::Kind::RestoreSnapshot,
    super::Kind::PauseRollout,
];
/// for so long, in seconds.
const FADES_S: f64 = 60.0;

/// For how long a step that was done is not done again, in seconds.
fn fades(kind: super::Kind) -> f64 {
    let once = SLOW.contains(&kind)
        || matches!(
            kind,
            super::Kind::RollbackConfig
                | super::Kind::SyncClock
                | super::Kind::Snapshot
                | super::Kind::Isolate
                | super::Kind::KillStranger
                | super::Kind::BlockSource
        );
    if once { FADES_S } else { 0.0 }
}

/// Steps that take nobody out of service, so that several of one kind run side by side.
const SIDE_BY_SIDE: [super::Kind; 6] = [
    super::Kind::Degrade,
    super::Kind::ResetPool,
    super::Kind::ScaleOut,
    super::Kind::SyncClock,
    super::Kind::SwitchUplink,
    super::Kind::Snapshot,
];
/// A cause that was not seen for so long, in seconds, is a new one when it is again.
const FORGET_S: f64 = 60.0;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Expert {
    signs: Signs,
    without: BTreeSet<&'static str>,
    /// What was done about what: how often, and until when it has to show.
    done: BTreeMap<String, (u32, f64)>,
    /// Causes that are seen: since when, and when last.
    seen: BTreeMap<String, (f64, f64)>,
    marks: Marks,
    under_way: Option<String>,
    why: String,
}

/// What the expert remembers of its own deeds.
#[derive(Debug, Clone, Default)]
pub(in crate::policy::expert) struct Marks {
    /// Steps done, each with when it last was.
    steps: BTreeMap<(super::Kind, super::Whom), f64>,
    /// Those that failed.
    failed: BTreeMap<(super::Kind, super::Whom), f64>,
    /// The steps of each order that is under way or to come.
    pending: Vec<Vec<(super::Kind, super::Whom)>>,
}

impl Expert {
    /// One that does not know some productions.
    #[must_use]
    pub fn without(names: &[&str]) -> Self {
        let all = PRODUCTIONS.iter().map(|production| production.name);
        Self {
            without: all.filter(|name| names.contains(name)).collect(),
            ..Self::default()
        }
    }

    fn repair(&mut self, view: &View<'_>) -> Option<Repair> {
        let case = Case {
            topology: view.topology,
            signs: &self.signs,
            now: view.seen.at,
            done: &self.marks.steps,
            failed: &self.marks.failed,
        };
        let without = &self.without;
        let known = PRODUCTIONS
            .iter()
            .filter(|production| !without.contains(production.name));
        let mut repairs = Vec::new();
        for production in known.clone() {
            if let Rule::Cause(find) = production.rule {
                let from = repairs.len();
                find(&case, &mut repairs);
                for repair in &mut repairs[from..] {
                    repair.of = production.name;
                }
            }
        }
        let now = case.now;
        for repair in &repairs {
            let (since, last) = self.seen.entry(repair.key()).or_insert((now, now));
            if now - *last > FORGET_S {
                *since = now;
            }
            *last = now;
        }
        let seen = &self.seen;
        repairs.retain(|repair| {
            seen.get(&repair.key())
                .is_some_and(|(since, _)| now - since >= THINK_S)
        });
        // What takes a while to show is not done again meanwhile.
        repairs.retain(|repair| {
            let mut slow = repair.steps.iter().filter(|step| SLOW.contains(&step.0));
            !slow.any(|step| case.did(step.0, step.1, FADES_S))
        });
        let tries = |repair: &Repair| self.done.get(&repair.key()).copied().unwrap_or((0, 0.0));
        repairs.retain(|repair| case.now >= tries(repair).1 && tries(repair).0 < TRIES_MAX);
        // What was done in vain comes after what was not.
        repairs.sort_by_key(|repair| tries(repair).0 / TRIES);
        repairs.into_iter().find_map(|mut repair| {
            for production in known.clone() {
                if let Rule::Guard(change) = production.rule {
                    let before = repair.steps.clone();
                    change(&case, &mut repair);
                    if repair.steps != before {
                        repair.changed_by.push(production.name);
                    }
                }
            }
            repair
                .steps
                .retain(|step| !case.did(step.0, step.1, fades(step.0)));
            (!repair.steps.is_empty()).then_some(repair)
        })
    }
}

impl Policy for Expert {
    fn name(&self) -> &'static str {
        "expert"
    }

    fn see(&mut self, view: &View<'_>) {
        self.signs.see(view.topology, view.seen);
        for ended in view.ended {
            let step = (!self.marks.pending.is_empty()).then(|| self.marks.pending.remove(0));
            let into = if ended.how == How::Done {
                &mut self.marks.steps
            } else {
                &mut self.marks.failed
            };
            for step in step.into_iter().flatten() {
                into.insert(step, view.seen.at);
            }
            if ended.how != How::Done {
                self.marks.pending.clear();
            }
            if let Some(key) = &self.under_way
                && let Some((_, until)) = self.done.get_mut(key)
            {
                // It has to show from its end on; what failed may be tried sooner.
                let done = ended.how == How::Done;
                *until = view.seen.at + if done { SHOWS_S } else { AGAIN_S };
            }
        }
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        let Some(repair) = self.repair(view) else {
            return Vec::new();
        };
        self.why = repair.why(view.topology);
        let key = repair.key();
        let tried = self.done.get(&key).map_or(0, |(tried, _)| *tried);
        self.done
            .insert(key.clone(), (tried + 1, view.seen.at + SHOWS_S));
        self.under_way = Some(key);
        self.marks.pending.clear();
        let mut orders: Vec<Order> = Vec::new();
        for step in &repair.steps {
            let Some(one) = view.moves.find(step.0, step.1) else {
                continue;
            };
            if let (Some(last), Some(steps)) = (orders.last_mut(), self.marks.pending.last_mut())
                && SIDE_BY_SIDE.contains(&step.0)
                && steps.iter().all(|other| other.0 == step.0)
                && let Some(both) = beside(last, &one.order)
            {
                *last = both;
                steps.push(*step);
                continue;
            }
            self.marks.pending.push(vec![*step]);
            orders.push(one.order.clone());
        }
        orders
    }

    fn why(&self) -> String {
        self.why.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_more_than_forty_productions_each_with_a_name_of_its_own() {
        let names: BTreeSet<_> = PRODUCTIONS
            .iter()
            .map(|production| production.name)
            .collect();
        assert_eq!(names.len(), PRODUCTIONS.len());
        assert!(names.len() >= 40, "{}", names.len());
        assert_eq!(Expert::without(&["hang", "no such thing"]).without.len(), 1);
    }
}
