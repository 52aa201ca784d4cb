//! Which anomalies are one incident, so that an operator is called once for each cause.
//!
//! In go, look by look, the anomalies that stand, the graph, who is suspected how much, and the
//! recoveries under way; out comes what is to be told ([`Change`]): an incident opens, gets
//! another cause, ends. Anomalies belong together when one of the two components depends on the
//! other, however far down, or both stand on the same node. Two causes can have consequences in
//! common, so one such heap becomes several incidents when several of its components are
//! suspected on their own for long enough.
//!
//! What a recovery brings with it is no incident: while `a` restarts, whoever depends on `a` may
//! stumble, and for a while after. What still stands then is.
//!
//! Memory is bounded: [`INCIDENTS_MAX`] incidents, each with a component once. No clock, no IO;
//! it knows neither metrics nor thresholds of them.
//!
//! ```
//! use core::time::Duration;
//! use homeostat_causes::Graph;
//! use homeostat_causes::group::{Anomaly, Change, Groups, Look, SETTINGS};
//!
//! let mut graph = Graph::default();
//! let (front, store) = (graph.add("front").unwrap(), graph.add("store").unwrap());
//! graph.calls(front, store, None).unwrap();
//! let mut groups = Groups::new(SETTINGS);
//! let slow = [front, store].map(|component| Anomaly {
//!     component,
//!     onset: Duration::from_secs(60),
//!     level: 0.8,
//!     node: None,
//! });
//! let opened = groups.see(&graph, &Look {
//!     now: Duration::from_secs(80),
//!     anomalies: &slow,
//!     suspects: &[(store, 0.9)],
//!     recoveries: &[],
//! });
//! assert!(matches!(opened[..], [Change::Opens { cause, .. }] if cause == store));
//! ```

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::graph::{Component, Graph};

/// Incidents that are open at once; what comes beyond waits until one ends. An operator who is
/// called about more than these is told nothing more by another one.
pub const INCIDENTS_MAX: usize = 64;

/// Everything that is fixed beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// An anomaly of this level or more is one.
    pub level: f32,
    /// It must have stood for so long before an incident opens.
    pub stands: Duration,
    /// From this confidence on a suspect is a cause of its own.
    pub own: f32,
    /// So many looks in a row.
    pub looks: u32,
    /// Anomalies that concern nobody who is suspected at least so much are chance.
    pub faint: f32,
    /// After its last anomaly an incident stays open for so long.
    pub quiet: Duration,
    /// After a recovery has ended its consequences may last for so long.
    pub after: Duration,
}

/// Fixed on training incidents of the simulator.
pub const SETTINGS: Settings = Settings {
    level: 0.3,
    stands: Duration::from_secs(10),
    own: 0.8,
    looks: 2,
    faint: 0.15,
    quiet: Duration::from_secs(120),
    after: Duration::from_secs(30),
};

/// Something about a component that is not as usual, and has not ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anomaly {
    /// Where.
    pub component: Component,
    /// Since when.
    pub onset: Duration,
    /// How strong, in `0.0..=1.0`.
    pub level: f32,
    /// The node that it runs on, where the graph does not say.
    pub node: Option<Component>,
}

/// Something is being done about a component.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recovery {
    /// About which.
    pub component: Component,
    /// Since when.
    pub from: Duration,
    /// Until when; `None` while it is under way.
    pub until: Option<Duration>,
}

/// What is known at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// On the clock of the anomalies; it may stand still and does not go back.
    pub now: Duration,
    /// Those that have not ended.
    pub anomalies: &'a [Anomaly],
    /// How likely each component is a cause; who is not named is not suspected.
    pub suspects: &'a [(Component, f32)],
    /// Those under way, and those that ended within [`Settings::after`].
    pub recoveries: &'a [Recovery],
}

/// The number of an incident; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentNo(pub u64);

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new one.
    Opens {
        /// Which.
        incident: IncidentNo,
        /// What is behind it.
        cause: Component,
    },
    /// It is somebody else after all.
    Blames {
        /// Which.
        incident: IncidentNo,
        /// What is behind it now.
        cause: Component,
    },
    /// Nothing of it is left.
    Ends {
        /// Which.
        incident: IncidentNo,
    },
}

/// One incident that is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Its number.
    pub no: IncidentNo,
    /// What is behind it.
    pub cause: Component,
    /// The first sign of it.
    pub onset: Duration,
    /// Who shows it, with the level; each once.
    pub members: BTreeMap<Component, f32>,
    seen: Duration,
}

/// One that is suspected on its own.
#[derive(Debug, Clone, Copy)]
struct Suspected {
    confidence: f32,
    /// For so many looks in a row.
    looks: u32,
}

/// The incidents that are open.
#[derive(Debug, Clone)]
pub struct Groups {
    settings: Settings,
    open: Vec<Incident>,
    next: u64,
    /// Those that are suspected on their own.
    suspected: BTreeMap<Component, Suspected>,
}

impl Groups {
    /// None yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: Vec::new(),
            next: 0,
            suspected: BTreeMap::new(),
        }
    }

    /// Those that are open, the oldest first.
    #[must_use]
    pub fn open(&self) -> &[Incident] {
        &self.open
    }

    /// Takes in what is known now.
    pub fn see(&mut self, graph: &Graph, look: &Look<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        let heaps = self.heaps(graph, look);
        self.note_suspects(graph, look);
        if !heaps.is_empty() {
            let calls = graph.condensed();
            let kin = |a: Component, b: Component| {
                let calls = |from: Component, to: Component| {
                    let mut of = calls.get(from.index()).into_iter().flatten();
                    of.any(|call| call.callee == to.index())
                };
                calls(a, b) || calls(b, a)
            };
            for heap in heaps {
                self.place(graph, look, &heap, &kin, &mut changes);
            }
        }
        let (now, quiet) = (look.now, self.settings.quiet);
        self.open.retain(|incident| {
            let stays = now.saturating_sub(incident.seen) <= quiet;
            if !stays {
                changes.push(Change::Ends {
                    incident: incident.no,
                });
            }
            stays
        });
        changes
    }

    /// Anomalies that count, in heaps of those that belong together.
    fn heaps(&self, graph: &Graph, look: &Look<'_>) -> Vec<Vec<Anomaly>> {
        let counts = |one: &&Anomaly| {
            one.component.index() < graph.len()
                && one.level >= self.settings.level
                && look.now.saturating_sub(one.onset) >= self.settings.stands
                && !self.excused(graph, look, one)
        };
        let anomalies: Vec<Anomaly> = look.anomalies.iter().filter(counts).copied().collect();
        let reach: Vec<Vec<bool>> = anomalies
            .iter()
            .map(|one| {
                let mut reach = graph.reach(one.component.index());
                if let Some(node) = one.node.and_then(|node| reach.get_mut(node.index())) {
                    *node = true;
                }
                reach
            })
            .collect();
        let mut heap: Vec<usize> = (0..anomalies.len()).collect();
        for a in 0..anomalies.len() {
            for b in 0..a {
                let (ca, cb) = (anomalies[a].component, anomalies[b].component);
                let node = anomalies[a].node.is_some() && anomalies[a].node == anomalies[b].node;
                if node || reach[a][cb.index()] || reach[b][ca.index()] {
                    let (from, to) = (heap[a], heap[b]);
                    let of = heap.iter_mut().filter(|own| **own == from);
                    of.for_each(|own| *own = to);
                }
            }
        }
        let mut heaps: BTreeMap<usize, Vec<Anomaly>> = BTreeMap::new();
        for (one, own) in anomalies.into_iter().zip(heap) {
            heaps.entry(own).or_default().push(one);
        }
        heaps.into_values().collect()
    }

    /// Whether an anomaly is what a recovery brings with it: of the component, or of one that
    /// depends on it.
    fn excused(&self, graph: &Graph, look: &Look<'_>, one: &Anomaly) -> bool {
        let known = |incident: &Incident| incident.members.contains_key(&one.component);
        if self.open.iter().any(known) {
            // It was there before anybody did anything, so it is still that.
            return false;
        }
        look.recoveries.iter().any(|recovery| {
            let until = recovery.until.map(|until| until + self.settings.after);
            let during = one.onset >= recovery.from && until.is_none_or(|until| one.onset <= until);
            let lasts = until.is_none_or(|until| look.now <= until);
            let depends = graph.reach(one.component.index());
            during && lasts && holds(&depends, recovery.component)
        })
    }

    fn note_suspects(&mut self, graph: &Graph, look: &Look<'_>) {
        let before = core::mem::take(&mut self.suspected);
        for (component, confidence) in look.suspects {
            if *confidence >= self.settings.own && component.index() < graph.len() {
                let looks = before.get(component).map_or(0, |one| one.looks);
                let now = Suspected {
                    confidence: *confidence,
                    looks: looks.saturating_add(1),
                };
                self.suspected.insert(*component, now);
            }
        }
    }

    /// Gives a heap to the incidents that it is of, and opens those that it is of and that are
    /// not open.
    fn place(
        &mut self,
        graph: &Graph,
        look: &Look<'_>,
        heap: &[Anomaly],
        kin: &impl Fn(Component, Component) -> bool,
        changes: &mut Vec<Change>,
    ) {
        let reach: Vec<Vec<bool>> = heap
            .iter()
            .map(|one| graph.reach(one.component.index()))
            .collect();
        // A cause shows something itself, or somebody who depends on it does.
        let concerns = |cause: Component| reach.iter().any(|reach| holds(reach, cause));
        let sure = |of: &Component| self.suspected.get(of).map_or(0.0, |one| one.confidence);
        let mut causes: Vec<Component> = self
            .suspected
            .iter()
            .filter(|(cause, one)| one.looks >= self.settings.looks && concerns(**cause))
            .map(|(cause, _)| *cause)
            .collect();
        causes.sort_by(|a, b| sure(b).total_cmp(&sure(a)));
        // Of two that depend on each other directly one is enough: a node and what runs on it,
        // a service and its replica are seldom wrong at the same time for reasons of their own.
        let mut first: Vec<Component> = Vec::new();
        causes.retain(|cause| {
            let alone = !first.iter().any(|other| kin(*cause, *other));
            if alone {
                first.push(*cause);
            }
            alone
        });
        let shows = |incident: &Incident| {
            let mut members = heap.iter();
            members.any(|one| incident.members.contains_key(&one.component))
        };
        let mine: Vec<usize> = (0..self.open.len())
            .filter(|at| concerns(self.open[*at].cause) || shows(&self.open[*at]))
            .collect();
        if mine.is_empty() && causes.is_empty() {
            if look.suspects.is_empty() {
                causes.extend(deepest(heap, &reach));
            } else {
                causes.extend(likeliest(look, self.settings.faint, concerns));
            }
        }
        causes.retain(|cause| !mine.iter().any(|at| self.open[*at].cause == *cause));
        let mut blamed = Vec::new();
        for at in &mine {
            let own = self.open[*at].cause;
            // Somebody close to it is likelier by now, or nobody suspects it any longer.
            let close = causes.iter().position(|cause| kin(*cause, own));
            let nobody = (!self.suspected.contains_key(&own) && !causes.is_empty()).then_some(0);
            let Some(place) = close.or(nobody) else {
                continue;
            };
            let cause = causes.remove(place);
            causes.retain(|other| !kin(*other, own));
            if sure(&cause) > sure(&own) {
                blamed.push((*at, cause));
            }
        }
        for at in &mine {
            self.open[*at].seen = look.now;
        }
        for (at, cause) in blamed {
            self.open[at].cause = cause;
            changes.push(Change::Blames {
                incident: self.open[at].no,
                cause,
            });
        }
        let onset = heap.iter().map(|one| one.onset).min();
        let mut own = mine;
        for cause in causes {
            if self.open.len() >= INCIDENTS_MAX {
                break;
            }
            let no = IncidentNo(self.next);
            self.next += 1;
            changes.push(Change::Opens {
                incident: no,
                cause,
            });
            own.push(self.open.len());
            self.open.push(Incident {
                no,
                cause,
                onset: onset.unwrap_or(look.now),
                members: BTreeMap::new(),
                seen: look.now,
            });
        }
        // Each anomaly belongs to the incidents whose cause it depends on, else to the first.
        for (one, reach) in heap.iter().zip(&reach) {
            let fits = |at: &&usize| holds(reach, self.open[**at].cause);
            let of: Vec<usize> = own.iter().filter(fits).copied().collect();
            let of = if of.is_empty() {
                own.iter().copied().take(1).collect()
            } else {
                of
            };
            for at in of {
                self.open[at].members.insert(one.component, one.level);
            }
        }
    }
}

/// Whether a component is among those that are reached; one that the graph does not have is not.
fn holds(reach: &[bool], component: Component) -> bool {
    reach.get(component.index()) == Some(&true)
}

/// The likeliest of those that concern a heap.
fn likeliest(
    look: &Look<'_>,
    faint: f32,
    concerns: impl Fn(Component) -> bool,
) -> Option<Component> {
    let known =
        |(component, confidence): &&(Component, f32)| *confidence >= faint && concerns(*component);
    let suspects = look.suspects.iter().filter(known);
    suspects
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(component, _)| *component)
}

/// Where nobody is suspected: the one on which most of the others depend, by their levels.
fn deepest(heap: &[Anomaly], reach: &[Vec<bool>]) -> Option<Component> {
    let below = |one: &Anomaly| -> f32 {
        let depend = heap
            .iter()
            .zip(reach)
            .filter(|(_, reach)| reach[one.component.index()]);
        depend.map(|(other, _)| other.level).sum()
    };
    let deepest = heap.iter().max_by(|a, b| below(a).total_cmp(&below(b)));
    deepest.map(|one| one.component)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const TESTED: Settings = Settings {
        level: 0.5,
        own: 0.8,
        looks: 3,
        faint: 0.3,
        ..SETTINGS
    };

    /// front calls mid, mid calls store; other is alone. All but other run on host.
    fn graph() -> (Graph, [Component; 5]) {
        let mut graph = Graph::default();
        let all = ["front", "mid", "store", "other", "host"].map(|name| graph.add(name).unwrap());
        let [front, mid, store, _, host] = all;
        for (caller, callee) in [(front, mid), (mid, store), (front, host), (store, host)] {
            graph.calls(caller, callee, None).unwrap();
        }
        (graph, all)
    }

    fn anomaly(component: Component, onset: u64) -> Anomaly {
        Anomaly {
            component,
            onset: Duration::from_secs(onset),
            level: 0.9,
            node: None,
        }
    }

    fn look<'a>(
        now: u64,
        anomalies: &'a [Anomaly],
        suspects: &'a [(Component, f32)],
        recoveries: &'a [Recovery],
    ) -> Look<'a> {
        Look {
            now: Duration::from_secs(now),
            anomalies,
            suspects,
            recoveries,
        }
    }

    #[test]
    fn what_depends_on_each_other_is_one_and_what_does_not_is_two() {
        let (graph, [front, mid, store, other, _]) = graph();
        let mut groups = Groups::new(TESTED);
        let all = [front, mid, store, other].map(|of| anomaly(of, 60));
        let changes = groups.see(&graph, &look(75, &all, &[], &[]));
        let causes: Vec<Component> = changes
            .iter()
            .map(|change| match change {
                Change::Opens { cause, .. } => *cause,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(causes, [store, other]);
        assert_eq!(groups.see(&graph, &look(80, &all, &[], &[])), []);
        assert_eq!(groups.open()[0].members.len(), 3);
        let ended = groups.see(&graph, &look(300, &[], &[], &[]));
        assert_eq!(ended.len(), 2);
        assert!(groups.open().is_empty());
    }

    #[test]
    fn a_second_cause_that_is_sure_opens_its_own_and_a_wrong_one_is_replaced() {
        let (graph, [front, mid, store, _, _]) = graph();
        let mut groups = Groups::new(TESTED);
        let all = [front, mid, store].map(|of| anomaly(of, 60));
        let sure = [(store, 0.9), (front, 0.9)];
        let first = groups.see(&graph, &look(75, &all, &sure, &[]));
        assert!(
            matches!(first[..], [Change::Opens { cause, .. }] if cause == store || cause == front)
        );
        assert_eq!(groups.see(&graph, &look(80, &all, &sure, &[])), []);
        let third = groups.see(&graph, &look(85, &all, &sure, &[]));
        assert!(matches!(third[..], [Change::Opens { .. }]));
        assert_eq!(groups.see(&graph, &look(90, &all, &sure, &[])), []);

        let mut groups = Groups::new(TESTED);
        groups.see(&graph, &look(75, &all, &[(mid, 0.4)], &[]));
        let sure = [(store, 0.9)];
        groups.see(&graph, &look(80, &all, &sure, &[]));
        groups.see(&graph, &look(85, &all, &sure, &[]));
        let blamed = groups.see(&graph, &look(90, &all, &sure, &[]));
        assert!(matches!(blamed[..], [Change::Blames { cause, .. }] if cause == store));
        assert_eq!(groups.open().len(), 1);
    }

    #[test]
    fn what_a_recovery_brings_with_it_is_no_incident_until_it_outlasts_it() {
        let (graph, [front, mid, store, other, _]) = graph();
        let mut groups = Groups::new(TESTED);
        let mut restart = [Recovery {
            component: store,
            from: Duration::from_secs(50),
            until: None,
        }];
        let all = vec![anomaly(front, 60), anomaly(mid, 55)];
        assert_eq!(groups.see(&graph, &look(80, &all, &[], &restart)), []);
        restart[0].until = Some(Duration::from_secs(70));
        assert_eq!(groups.see(&graph, &look(95, &all, &[], &restart)), []);
        // What has nothing to do with it is one all the same.
        let alone = [anomaly(other, 60)];
        assert_eq!(
            groups.see(&graph, &look(80, &alone, &[], &restart)).len(),
            1
        );
        assert_eq!(groups.see(&graph, &look(101, &all, &[], &restart)).len(), 1);
        // What began before was not brought by it.
        let before = [anomaly(front, 40)];
        let mut groups = Groups::new(TESTED);
        assert_eq!(
            groups.see(&graph, &look(80, &before, &[], &restart)).len(),
            1
        );
    }

    #[test]
    fn nonsense_is_no_trouble_and_memory_is_bounded() {
        let mut graph = Graph::default();
        let all: Vec<Component> = (0..500)
            .map(|at| graph.add(&std::format!("{at}")).unwrap())
            .collect();
        let mut groups = Groups::new(TESTED);
        let mut anomalies: Vec<Anomaly> = all.iter().map(|of| anomaly(*of, 0)).collect();
        anomalies.push(anomaly(Component(9999), 0));
        anomalies[0].level = f32::NAN;
        anomalies[1].node = Some(Component(7777));
        let suspects = [(Component(8888), 1.0), (all[3], f32::NAN)];
        for now in 20..30 {
            groups.see(&graph, &look(now, &anomalies, &suspects, &[]));
        }
        assert!(groups.open().len() <= 1);
        groups.see(&graph, &look(30, &anomalies, &[], &[]));
        assert_eq!(groups.open().len(), INCIDENTS_MAX);
    }
}
