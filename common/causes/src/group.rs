//! Which anomalies are one incident, so that an operator is called once for each cause.
//!
//! In go, look by look, the anomalies that stand, the graph, who is suspected how much, and the
//! recoveries under way; out comes what is to be told ([`Change`]): an incident opens, gets
//! another cause, ends. A suspicion is smoothed over time, as log odds, and who stays above a
//! bound has an incident of its own; one that is directly beside the cause of an open incident
//! (a service and its instance, an instance and its host) must be surer, since it may show the
//! same from its side. Where nobody is sure, everything that stands is one incident about the
//! likeliest. Where nobody judges at all, what depends on one component is one.
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
    /// Log odds forget over so long.
    pub memory: Duration,
    /// From this smoothed confidence on a suspect is a cause of its own.
    pub own: f32,
    /// The same for one that is directly beside the cause of an open incident.
    pub beside: f32,
    /// Before anybody is that sure, one that is suspected so much is named at once.
    pub likely: f32,
    /// Without such a one the likeliest is named when something has stood for so long, and if
    /// nobody is suspected at all, the one on which most depends.
    pub blind: Duration,
    /// After its last anomaly an incident stays open for so long.
    pub quiet: Duration,
    /// After a recovery has ended its consequences may last for so long.
    pub after: Duration,
}

/// Fixed on five folds of the training incidents of the simulator.
pub const SETTINGS: Settings = Settings {
    level: 0.3,
    stands: Duration::from_secs(10),
    memory: Duration::from_secs(30),
    own: 0.6,
    beside: 0.85,
    likely: 0.5,
    blind: Duration::from_secs(30),
    quiet: Duration::from_secs(120),
    after: Duration::from_secs(30),
};

/// Log odds of one that was never suspected: one in twenty.
const UNSUSPECTED: f32 = -3.0;

/// Nobody is surer than this either way: a hundredth, as log odds.
const SUREST: f32 = 4.6;

/// Something about a component that is not as usual, and has not ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anomaly {
    /// Where.
    pub component: Component,
    /// Since when.
    pub onset: Duration,
    /// How strong, in `0.0..=1.0`.
    pub level: f32,
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

/// The incidents that are open.
#[derive(Debug, Clone)]
pub struct Groups {
    settings: Settings,
    open: Vec<Incident>,
    next: u64,
    /// Smoothed log odds of those that were suspected lately.
    odds: BTreeMap<Component, f32>,
    looked: Option<Duration>,
    /// Since when something stands.
    restless: Option<Duration>,
}

impl Groups {
    /// None yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: Vec::new(),
            next: 0,
            odds: BTreeMap::new(),
            looked: None,
            restless: None,
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
        self.smooth(graph, look);
        let counts = |one: &&Anomaly| {
            one.component.index() < graph.len()
                && one.level >= self.settings.level
                && look.now.saturating_sub(one.onset) >= self.settings.stands
                && !self.excused(graph, look, one)
        };
        let standing: Vec<Anomaly> = look.anomalies.iter().filter(counts).copied().collect();
        if standing.is_empty() {
            self.restless = None;
        } else {
            let since = *self.restless.get_or_insert(look.now);
            let scene = Scene::of(graph, &standing);
            self.place(look, since, &scene, &mut changes);
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

    /// Moves log odds towards those of this look; whoever is not named is not suspected.
    fn smooth(&mut self, graph: &Graph, look: &Look<'_>) {
        let since = self.looked.replace(look.now);
        let passed = since.map_or(Duration::ZERO, |since| look.now.saturating_sub(since));
        let memory = self.settings.memory.as_secs_f32().max(f32::MIN_POSITIVE);
        let kept = libm::expf(-passed.as_secs_f32() / memory);
        let mut now: BTreeMap<Component, f32> = BTreeMap::new();
        for (component, confidence) in look.suspects {
            if component.index() < graph.len() && !confidence.is_nan() {
                now.insert(*component, odds(*confidence));
            }
        }
        let before = core::mem::take(&mut self.odds);
        for component in before.keys() {
            now.entry(*component).or_insert(-SUREST);
        }
        for (component, odds) in now {
            let old = before.get(&component).copied().unwrap_or(UNSUSPECTED);
            let smoothed = odds + (old - odds) * kept;
            // Less than one that was never suspected is forgotten, which bounds the memory.
            if odds > -SUREST || smoothed > UNSUSPECTED {
                self.odds.insert(component, smoothed);
            }
        }
    }

    fn sure(&self, of: Component, bound: f32) -> bool {
        self.odds.get(&of).is_some_and(|own| *own >= odds(bound))
    }

    /// Gives what stands to the incidents that it is of, and opens those that are missing.
    fn place(
        &mut self,
        look: &Look<'_>,
        since: Duration,
        scene: &Scene<'_>,
        changes: &mut Vec<Change>,
    ) {
        for incident in &mut self.open {
            let known = |one: &Anomaly| incident.members.contains_key(&one.component);
            if scene.concerns(incident.cause) || scene.standing.iter().any(known) {
                incident.seen = look.now;
            }
        }
        let sure = self.odds.iter();
        let sure =
            sure.filter(|(cause, own)| **own >= odds(self.settings.own) && scene.concerns(**cause));
        let mut causes: Vec<(Component, f32)> = sure.map(|(cause, own)| (*cause, *own)).collect();
        causes.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (cause, _) in causes {
            self.settle(look, scene, cause, changes);
        }
        let long = look.now.saturating_sub(since) >= self.settings.blind;
        if self.open.is_empty() {
            let least = if long { 0.0 } else { self.settings.likely };
            if let Some(cause) = likeliest(look, least, scene) {
                self.opens(look, scene, cause, changes);
            }
        }
        if long && look.suspects.is_empty() {
            while let Some(cause) = self.deepest_left(scene) {
                if self.open.len() >= INCIDENTS_MAX {
                    break;
                }
                self.opens(look, scene, cause, changes);
            }
        }
        // Each anomaly belongs to the incidents whose cause it depends on, else to the first.
        for (one, reach) in scene.standing.iter().zip(&scene.reach) {
            let mut own = false;
            for incident in &mut self.open {
                if holds(reach, incident.cause) {
                    incident.members.insert(one.component, one.level);
                    own = true;
                }
            }
            if let Some(first) = self.open.first_mut().filter(|_| !own) {
                first.members.insert(one.component, one.level);
            }
        }
    }

    /// One that is sure gets the incident that is its own.
    fn settle(
        &mut self,
        look: &Look<'_>,
        scene: &Scene<'_>,
        cause: Component,
        changes: &mut Vec<Change>,
    ) {
        if self.open.iter().any(|one| one.cause == cause) {
            return;
        }
        let own = self.settings.own;
        let beside = |one: &&Incident| scene.beside(one.cause, cause);
        let close = self.open.iter().any(|one| beside(&one));
        let bound = if close { self.settings.beside } else { own };
        // Who has an incident and is no longer suspected loses it, those beside it first.
        let lost = |one: &Incident| !self.sure(one.cause, own);
        let near = self.open.iter().position(|one| lost(one) && beside(&one));
        let any = self
            .open
            .iter()
            .position(lost)
            .filter(|_| self.sure(cause, bound));
        if let Some(at) = near.or(any) {
            self.open[at].cause = cause;
            changes.push(Change::Blames {
                incident: self.open[at].no,
                cause,
            });
        } else if self.sure(cause, bound) {
            self.opens(look, scene, cause, changes);
        }
    }

    fn opens(
        &mut self,
        look: &Look<'_>,
        scene: &Scene<'_>,
        cause: Component,
        changes: &mut Vec<Change>,
    ) {
        if self.open.len() >= INCIDENTS_MAX {
            return;
        }
        let no = IncidentNo(self.next);
        self.next += 1;
        changes.push(Change::Opens {
            incident: no,
            cause,
        });
        let depend = scene.standing.iter().zip(&scene.reach);
        let depend = depend.filter(|(_, reach)| holds(reach, cause));
        let onset = depend.map(|(one, _)| one.onset).min();
        self.open.push(Incident {
            no,
            cause,
            onset: onset.unwrap_or(look.now),
            members: BTreeMap::new(),
            seen: look.now,
        });
    }

    /// Of what no incident has to do with: the one on which most of the rest depends.
    fn deepest_left(&self, scene: &Scene<'_>) -> Option<Component> {
        let left = scene
            .standing
            .iter()
            .zip(&scene.reach)
            .filter(|(one, reach)| {
                let mut open = self.open.iter();
                !open.any(|incident| {
                    holds(reach, incident.cause) || incident.members.contains_key(&one.component)
                })
            });
        let left: Vec<(&Anomaly, &Vec<bool>)> = left.collect();
        let below = |one: &Anomaly| -> f32 {
            let depend = left.iter().filter(|(_, reach)| holds(reach, one.component));
            depend.map(|(other, _)| other.level).sum()
        };
        let deepest = left.iter().max_by(|a, b| below(a.0).total_cmp(&below(b.0)));
        deepest.map(|(one, _)| one.component)
    }
}

/// What stands, and who depends on whom.
struct Scene<'a> {
    standing: &'a [Anomaly],
    /// By anomaly: what it depends on, itself among it.
    reach: Vec<Vec<bool>>,
    needs: Vec<Vec<usize>>,
}

impl<'a> Scene<'a> {
    fn of(graph: &Graph, standing: &'a [Anomaly]) -> Self {
        let reach = standing.iter();
        let needs = graph.condensed().into_iter();
        Self {
            standing,
            reach: reach
                .map(|one| graph.reach(one.component.index()))
                .collect(),
            needs: needs
                .map(|calls| calls.into_iter().map(|call| call.callee).collect())
                .collect(),
        }
    }

    fn needs(&self, from: Component, to: Component) -> bool {
        let needs = self.needs.get(from.index());
        needs.is_some_and(|needs| needs.contains(&to.index()))
    }

    fn beside(&self, a: Component, b: Component) -> bool {
        self.needs(a, b) || self.needs(b, a)
    }

    /// A cause shows something itself, or somebody who depends on it does, or what it directly
    /// needs: a service whose model is bad shows it at its instances.
    fn concerns(&self, cause: Component) -> bool {
        self.reach.iter().any(|reach| holds(reach, cause))
            || self
                .standing
                .iter()
                .any(|one| self.needs(cause, one.component))
    }
}

/// Log odds of a confidence that is none too sure.
fn odds(confidence: f32) -> f32 {
    let odds = libm::logf(confidence.max(0.0) / (1.0 - confidence.min(1.0)).max(0.0));
    odds.clamp(-SUREST, SUREST)
}

/// Whether a component is among those that are reached; one that the graph does not have is not.
fn holds(reach: &[bool], component: Component) -> bool {
    reach.get(component.index()) == Some(&true)
}

/// The likeliest of those that concern what stands.
fn likeliest(look: &Look<'_>, least: f32, scene: &Scene<'_>) -> Option<Component> {
    let known = |(component, confidence): &&(Component, f32)| {
        *confidence >= least && scene.concerns(*component)
    };
    let suspects = look.suspects.iter().filter(known);
    suspects
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(component, _)| *component)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTED: Settings = Settings {
        level: 0.5,
        own: 0.8,
        beside: 0.9,
        likely: 0.3,
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

    fn opened(changes: &[Change]) -> Vec<Component> {
        let opened = changes.iter().filter_map(|change| match change {
            Change::Opens { cause, .. } => Some(*cause),
            Change::Blames { .. } | Change::Ends { .. } => None,
        });
        opened.collect()
    }

    /// Looks every five seconds up to `until` that all say the same.
    fn watch(
        groups: &mut Groups,
        graph: &Graph,
        (from, until): (u64, u64),
        anomalies: &[Anomaly],
        suspects: &[(Component, f32)],
    ) -> Vec<Change> {
        let looks = (from..=until).step_by(5);
        looks
            .flat_map(|now| groups.see(graph, &look(now, anomalies, suspects, &[])))
            .collect()
    }

    #[test]
    fn where_nobody_judges_what_depends_on_one_is_one_and_what_does_not_is_two() {
        let (graph, [front, mid, store, other, _]) = graph();
        let mut groups = Groups::new(TESTED);
        let all = [front, mid, store, other].map(|of| anomaly(of, 60));
        assert_eq!(watch(&mut groups, &graph, (75, 100), &all, &[]), []);
        let changes = groups.see(&graph, &look(105, &all, &[], &[]));
        assert_eq!(opened(&changes), [store, other]);
        assert_eq!(groups.see(&graph, &look(110, &all, &[], &[])), []);
        assert_eq!(groups.open()[0].members.len(), 3);
        let ended = groups.see(&graph, &look(300, &[], &[], &[]));
        assert_eq!(ended.len(), 2);
        assert!(groups.open().is_empty());
    }

    #[test]
    fn two_that_stay_sure_are_two_and_one_that_is_sure_for_a_moment_is_none() {
        let (graph, [front, mid, store, _, _]) = graph();
        let all = [front, mid, store].map(|of| anomaly(of, 60));
        let both = [(store, 0.99), (front, 0.98)];
        let mut groups = Groups::new(TESTED);
        let first = groups.see(&graph, &look(75, &all, &both, &[]));
        assert_eq!(opened(&first), [store]);
        let more = watch(&mut groups, &graph, (80, 140), &all, &both);
        assert_eq!(opened(&more), [front]);

        let mut groups = Groups::new(TESTED);
        watch(&mut groups, &graph, (75, 100), &all, &both[..1]);
        assert_eq!(watch(&mut groups, &graph, (105, 110), &all, &both), []);
        let calm = watch(&mut groups, &graph, (115, 200), &all, &both[..1]);
        assert_eq!(calm, []);
    }

    #[test]
    fn who_is_beside_a_cause_must_be_surer() {
        let (graph, [front, mid, store, _, _]) = graph();
        let all = [front, mid, store].map(|of| anomaly(of, 60));
        for (sure, count) in [(0.87, 1), (0.97, 2)] {
            let mut groups = Groups::new(TESTED);
            let suspects = [(store, 0.99), (mid, sure)];
            let all = watch(&mut groups, &graph, (75, 200), &all, &suspects);
            assert_eq!(opened(&all).len(), count, "{sure}");
        }
    }

    #[test]
    fn a_wrong_cause_is_replaced_by_who_is_sure() {
        let (graph, [front, mid, store, _, _]) = graph();
        let all = [front, mid, store].map(|of| anomaly(of, 60));
        let mut groups = Groups::new(TESTED);
        let first = groups.see(&graph, &look(75, &all, &[(front, 0.4)], &[]));
        assert_eq!(opened(&first), [front]);
        let blamed = watch(&mut groups, &graph, (80, 140), &all, &[(store, 0.97)]);
        assert!(matches!(blamed[..], [Change::Blames { cause, .. }] if cause == store));
        assert_eq!(groups.open().len(), 1);
    }

    #[test]
    fn what_is_shown_by_what_a_cause_needs_concerns_it() {
        let (graph, [front, mid, _, _, _]) = graph();
        let shown = [anomaly(mid, 60)];
        let mut groups = Groups::new(TESTED);
        let first = groups.see(&graph, &look(75, &shown, &[(front, 0.9)], &[]));
        assert_eq!(opened(&first), [front]);
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
        let all = [anomaly(front, 60), anomaly(mid, 55)];
        let mut see = |now: u64, all: &[Anomaly], restart: &[Recovery]| {
            opened(&groups.see(&graph, &look(now, all, &[(store, 0.9)], restart)))
        };
        assert_eq!(see(80, &all, &restart), []);
        restart[0].until = Some(Duration::from_secs(70));
        assert_eq!(see(95, &all, &restart), []);
        assert_eq!(see(101, &all, &restart), [store]);
        // What has nothing to do with it is one all the same.
        let mut groups = Groups::new(TESTED);
        let alone = [anomaly(other, 60)];
        let suspects = [(other, 0.9)];
        let look_alone = look(80, &alone, &suspects, &restart);
        assert_eq!(opened(&groups.see(&graph, &look_alone)), [other]);
        // What began before was not brought by it.
        let mut groups = Groups::new(TESTED);
        let before = [anomaly(front, 40)];
        let suspects = [(store, 0.9)];
        let look_before = look(80, &before, &suspects, &restart);
        assert_eq!(opened(&groups.see(&graph, &look_before)), [store]);
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
        let suspects = [
            (Component(8888), 1.0),
            (all[3], f32::NAN),
            (all[4], f32::INFINITY),
            (all[5], -1.0),
        ];
        for now in 20..30 {
            groups.see(&graph, &look(now, &anomalies, &suspects, &[]));
        }
        assert!(groups.open().len() <= 1);
        assert!(groups.odds.len() <= graph.len());
        let mut groups = Groups::new(TESTED);
        watch(&mut groups, &graph, (30, 80), &anomalies, &[]);
        assert_eq!(groups.open().len(), INCIDENTS_MAX);
    }
}
