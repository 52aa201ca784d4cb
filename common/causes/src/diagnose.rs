//! From graph and signals to ranked suspects.
//!
//! Each kind of signal ranks by itself: what is handed up by own excess, resources and the
//! order of events by how far they are beyond what is usual for the component. A kind weighs as
//! much as its strongest finding is unusual, so that one that shows nothing decides nothing.
//! Who is not what the alarm depends on is no suspect, however much it changed: that is
//! coincidence.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use crate::confidence;
use crate::events::Change;
use crate::evidence::{Doubt, Evidence, Probe};
use crate::frame::Frame;
use crate::graph::{Call, Component, Graph};
use crate::own::{Account, Node, account};
use crate::resource::{Resource, resources};
use crate::settings::{SETTINGS, Settings};
use crate::signals::{Kind, LOST, Signals};
use crate::weigh::{self, WEIGHTS, Weighable, Weighing};
use crate::weighed::Reasons;

/// What is to be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// When it was raised, on the clock of the samples.
    pub at: Duration,
    /// About which component; `None` if only the time is known.
    pub component: Option<Component>,
    /// About which kind of signal; `None` if that is not known.
    pub kind: Option<Kind>,
    /// Until when all is known to have been well; `None` means until the alarm.
    pub well_until: Option<Duration>,
}

impl Alarm {
    /// An alarm about a signal of a component.
    #[must_use]
    pub fn of(component: Component, kind: Kind, at: Duration) -> Self {
        Self {
            at,
            component: Some(component),
            kind: Some(kind),
            well_until: None,
        }
    }

    /// Something is wrong since `at`.
    #[must_use]
    pub fn at(at: Duration) -> Self {
        Self {
            at,
            component: None,
            kind: None,
            well_until: None,
        }
    }
}

/// How much history there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// What is usual was seen.
    Full,
    /// What is usual is a guess from a few samples.
    Cold,
}

/// One component and how likely it is the root.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// Who.
    pub component: Component,
    /// Its part of all that is unexplained, in `0.0..=1.0`; all suspects sum to 1.
    pub share: f32,
    /// Probability that it is a root, calibrated.
    pub confidence: f32,
    /// When it began.
    pub onset: Option<Duration>,
    /// Why.
    pub evidence: Vec<Evidence>,
}

/// A component that shows a fault which is another one's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Explained {
    /// Who.
    pub component: Component,
    /// By whom.
    pub by: Component,
    /// Which part of what it shows.
    pub share: f32,
}

/// What an alarm comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// Most likely first; none if nothing is beyond what is usual.
    pub suspects: Vec<Suspect>,
    /// How many of the first suspects are roots, each by itself.
    pub roots: usize,
    /// Who only suffers.
    pub explained_away: Vec<Explained>,
    /// Who changed too, but nothing alarmed depends on it.
    pub coincident: Vec<Component>,
    /// How many times what is usual the strongest finding is; below 1 is nothing.
    pub times: f32,
    /// What tells the first two suspects apart.
    pub probe: Option<Probe>,
    /// How much history there was.
    pub grade: Grade,
    /// What makes it less sure.
    pub doubts: Vec<Doubt>,
}

impl Diagnosis {
    /// Lowers the confidence as one of its own doubts does, once: for what is wrong with the
    /// input and only the caller can know.
    pub fn doubt(&mut self) {
        if !self.doubts.iter().any(Doubt::of_all) {
            for suspect in &mut self.suspects {
                suspect.confidence = confidence::lowered(suspect.confidence);
            }
        }
    }
}

/// Explains an alarm with [`SETTINGS`].
#[must_use]
pub fn diagnose(graph: &Graph, signals: &Signals, alarm: &Alarm) -> Diagnosis {
    diagnose_with(graph, signals, alarm, &SETTINGS)
}

/// Explains an alarm.
#[must_use]
pub fn diagnose_with(
    graph: &Graph,
    signals: &Signals,
    alarm: &Alarm,
    settings: &Settings,
) -> Diagnosis {
    let mut doubts = Vec::new();
    let (scene, alarm, grade) = Scene::of(graph, signals, alarm, settings, &mut doubts);
    scene.judge(&alarm, grade, settings, doubts)
}

/// What speaks for each component of a known role.
pub(crate) fn weighable(graph: &Graph, signals: &Signals, alarm: &Alarm) -> Vec<Weighable> {
    let (scene, alarm, grade) = Scene::of(graph, signals, alarm, &SETTINGS, &mut Vec::new());
    let findings = scene.findings(&alarm, SETTINGS.confirms(grade));
    scene.weighing(&alarm, &scene.shares(&findings)).all
}

/// Everything that was computed before somebody is suspected.
pub(crate) struct Scene<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) signals: &'a Signals,
    pub(crate) calls: Vec<Vec<Call>>,
    pub(crate) frame: Frame,
    reach: Vec<bool>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) resources: Vec<Option<Resource>>,
    pub(crate) changes: Vec<Option<Change>>,
    /// Share of its values that each component lost.
    lost: Vec<f32>,
}

/// A component on its way to become a suspect.
struct Ranked {
    of: usize,
    share: f32,
    /// Log odds that it is a root.
    odds: f32,
}

/// What one kind of evidence says of all components.
struct Finding {
    /// Parts of what is unexplained; they sum to 1.
    shares: Vec<f32>,
    /// How many times the usual the strongest is.
    times: f32,
}

impl Finding {
    fn of(parts: &[f32], times: f32) -> Option<Self> {
        let all: f32 = parts.iter().sum();
        (all > 0.0 && all.is_finite()).then(|| Self {
            shares: parts.iter().map(|part| part / all).collect(),
            times,
        })
    }

    fn weight(&self) -> f32 {
        libm::logf(self.times.max(1.0))
    }
}

impl<'a> Scene<'a> {
    fn of(
        graph: &'a Graph,
        signals: &'a Signals,
        alarm: &Alarm,
        settings: &Settings,
        doubts: &mut Vec<Doubt>,
    ) -> (Self, Alarm, Grade) {
        let mut alarm = *alarm;
        if alarm.component.is_some_and(|of| of.index() >= graph.len()) {
            alarm.component = None;
            doubts.push(Doubt::UnknownTarget);
        }
        let frame = Frame::build(signals, graph.len(), &alarm, settings, doubts);
        let frame = frame.unwrap_or_default();
        let rows = frame.split;
        let grade = if rows >= settings.full {
            Grade::Full
        } else {
            doubts.push(Doubt::Cold { rows });
            Grade::Cold
        };
        let target = alarm.component.map(Component::index);
        if let (Some(of), Some(kind)) = (target, alarm.kind)
            && frame.column(of, kind).is_none()
        {
            doubts.push(Doubt::NoTargetSignal);
        }
        let reach = target.map_or_else(|| vec![true; graph.len()], |of| graph.reach(of));
        let calls = graph.condensed();
        let cyclic = calls
            .iter()
            .position(|calls| calls.iter().any(|call| call.cyclic));
        if let Some(component) = cyclic.filter(|of| reach[*of]) {
            doubts.push(Doubt::Cycle {
                component: place(component),
            });
        }
        let scene = Self {
            graph,
            signals,
            accounts: Kind::HANDED_UP
                .into_iter()
                .filter_map(|kind| account(graph, &calls, &frame, kind, settings))
                .collect(),
            resources: resources(graph.len(), &frame, &signals.series, settings),
            changes: (0..graph.len())
                .map(|of| signals.events.change(of))
                .collect(),
            calls,
            lost: signals.lost(graph.len()),
            frame,
            reach,
        };
        (scene, alarm, grade)
    }

    /// What speaks for each component, given its part of what is unexplained.
    fn weighing(&self, alarm: &Alarm, shares: &[f32]) -> Weighing {
        weigh::of_frame(self.graph, self.signals, &self.frame, alarm, shares)
    }

    fn judge(
        &self,
        alarm: &Alarm,
        grade: Grade,
        settings: &Settings,
        mut doubts: Vec<Doubt>,
    ) -> Diagnosis {
        let blind = (0..self.graph.len()).filter(|of| self.candidate(*of) && self.blind(*of));
        let blind = blind.count();
        if blind > 0 {
            doubts.push(Doubt::Unseen { components: blind });
        }
        let lossy = (0..self.graph.len()).filter(|of| self.candidate(*of) && self.lossy(*of));
        let worst = lossy.max_by(|a, b| self.lost[*a].total_cmp(&self.lost[*b]));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in 0..=100
        doubts.extend(worst.map(|of| Doubt::Lost {
            component: place(of),
            percent: (self.lost[of] * 100.0) as u8,
        }));
        let confirm = settings.confirms(grade);
        let findings = self.findings(alarm, confirm);
        let mut diagnosis = Diagnosis {
            suspects: Vec::new(),
            roots: 0,
            explained_away: Vec::new(),
            coincident: self.coincident(confirm),
            times: findings.iter().map(|one| one.times).fold(0.0, f32::max),
            probe: None,
            grade,
            doubts,
        };
        let doubtful = diagnosis.doubts.iter().any(Doubt::of_all);
        let shares = self.shares(&findings);
        let weighing = self.weighing(alarm, &shares);
        let (mut ranked, root): (Vec<Ranked>, f32) = if weighing.all.is_empty() {
            let ranked = shares.iter().enumerate().map(|(of, share)| Ranked {
                of,
                share: *share,
                odds: confidence::odds(*share, diagnosis.times),
            });
            let some = ranked.filter(|one| one.share > 0.0);
            (
                some.collect(),
                confidence::odds(settings.root, diagnosis.times),
            )
        } else {
            let ranked = weighing.all.iter().map(|one| Ranked {
                of: one.component.index(),
                share: shares[one.component.index()],
                odds: one.odds(&WEIGHTS),
            });
            // Who is a root more likely than not is one of its own.
            (ranked.collect(), 0.0)
        };
        let surest = |a: &Ranked, b: &Ranked| {
            let share = b.share.total_cmp(&a.share);
            b.odds.total_cmp(&a.odds).then(share).then(a.of.cmp(&b.of))
        };
        ranked.sort_by(surest);
        ranked.truncate(settings.suspects);
        let reasons = Reasons::of(self.graph, self.signals, &self.frame, &weighing);
        diagnosis.suspects = ranked
            .iter()
            .map(|one| Suspect {
                component: place(one.of),
                share: one.share,
                confidence: confidence::of(one.odds, doubtful || self.hides(one.of)),
                onset: self.onset(one.of).and_then(|row| self.frame.begins(row)),
                evidence: self.evidence(one.of, alarm, reasons.told(one.of)),
            })
            .collect();
        diagnosis.roots = ranked
            .iter()
            .take_while(|one| one.odds >= root)
            .count()
            .clamp(ranked.len().min(1), ranked.len());
        let ranked: Vec<(usize, f32)> = ranked.iter().map(|one| (one.of, one.share)).collect();
        diagnosis.explained_away = self.explained(&ranked[..diagnosis.roots]);
        diagnosis.probe = self.probe(&diagnosis.suspects);
        diagnosis
    }

    /// The part of each component of all that is unexplained; all 0 where nothing is.
    fn shares(&self, findings: &[Finding]) -> Vec<f32> {
        let weight: f32 = findings.iter().map(Finding::weight).sum();
        let share = |of: usize| {
            let parts = findings.iter().map(|one| one.weight() * one.shares[of]);
            if weight > 0.0 {
                parts.sum::<f32>() / weight
            } else {
                0.0
            }
        };
        (0..self.graph.len()).map(share).collect()
    }

    pub(crate) fn candidate(&self, of: usize) -> bool {
        self.reach[of] && !self.graph.is_proxy(of)
    }

    /// Nothing is known of it at all.
    fn blind(&self, of: usize) -> bool {
        let handed = self.accounts.iter().all(|one| one.nodes[of].is_none());
        handed && self.resources[of].is_none() && self.changes[of].is_none()
    }

    /// Most of what it showed was lost.
    fn lossy(&self, of: usize) -> bool {
        self.lost[of] >= LOST
    }

    /// What it shows is hardly known, or may be the fault of a callee that is not known.
    fn hides(&self, of: usize) -> bool {
        let mut callees = self.calls[of].iter().map(|call| call.callee);
        let unknown = |of| self.candidate(of) && (self.blind(of) || self.lossy(of));
        self.lossy(of) || callees.any(unknown)
    }

    /// What each kind of evidence says. Of those that are handed up only the alarmed one counts,
    /// if it was recorded where the alarm is.
    fn findings(&self, alarm: &Alarm, confirm: f32) -> Vec<Finding> {
        let handed = |account: &Account| {
            let nodes = account.nodes.iter().enumerate();
            let mine = |(of, _): &(usize, &Option<_>)| self.candidate(*of);
            let times = nodes
                .clone()
                .filter(mine)
                .filter_map(|(_, node)| node.as_ref());
            let times = times.map(Node::times).fold(0.0, f32::max);
            let beyond = nodes.clone().map(|(of, node)| match node {
                Some(node) if self.candidate(of) => node.beyond(),
                Some(_) | None => 0.0,
            });
            let mut parts: Vec<f32> = beyond.collect();
            for of in 0..parts.len() {
                if let Some((host, share)) = self.host(of) {
                    parts[host] += parts[of] * share;
                    parts[of] *= 1.0 - share;
                }
            }
            let finding = Finding::of(&parts, times)?;
            // Somebody is always odd, as a few requests that failed; who is no cause of the
            // alarm does not show where it was raised.
            let alarmed = alarm.component.filter(|_| Some(account.kind) == alarm.kind);
            let alarmed = alarmed.and_then(|of| account.nodes[of.index()].as_ref());
            let reaching = nodes.filter(mine).filter_map(|(_, node)| {
                let node = node.as_ref()?;
                Some(alarmed.map_or_else(|| node.times(), |alarmed| node.reaching(alarmed)))
            });
            (reaching.fold(0.0, f32::max) >= confirm).then_some(finding)
        };
        let alarmed = self
            .accounts
            .iter()
            .filter(|one| Some(one.kind) == alarm.kind);
        let mut findings: Vec<Finding> = alarmed.clone().filter_map(handed).collect();
        let told = alarm.component.zip(alarmed.clone().next());
        let told = told.is_some_and(|(of, account)| account.nodes[of.index()].is_some());
        let behind = self.behind(if told { &findings } else { &[] });
        if !told {
            let others = self
                .accounts
                .iter()
                .filter(|one| Some(one.kind) != alarm.kind);
            findings.extend(others.filter_map(handed));
        }
        let mut own = self.resource_finding(&behind);
        own.extend(self.event_finding());
        own.retain(|one| one.times >= confirm);
        findings.extend(own);
        findings
    }

    /// The part of what was `handed` up to the alarm that each component may be behind: what is
    /// unexplained at itself and at those that need it. All of it where nothing was.
    fn behind(&self, handed: &[Finding]) -> Vec<f32> {
        if handed.is_empty() {
            return vec![1.0; self.graph.len()];
        }
        let mut behind = vec![0.0; self.graph.len()];
        let shares = self.shares(handed).into_iter().enumerate();
        for (of, share) in shares.filter(|(_, share)| *share > 0.0) {
            let reach = self.graph.reach(of).into_iter();
            for (sum, _) in behind.iter_mut().zip(reach).filter(|(_, needed)| *needed) {
                *sum += share;
            }
        }
        behind
    }

    /// What a component runs on, if that has no signal that is handed up but a resource beyond
    /// the usual, and how much of the component's own excess is that one's: by how unusual the
    /// resources of both are.
    pub(crate) fn host(&self, of: usize) -> Option<(usize, f32)> {
        let unusual = |of: usize| {
            let resource = self.resources[of].as_ref();
            resource.map_or(0.0, |one| libm::logf(one.times.max(1.0)))
        };
        let silent = |of: &usize| self.accounts.iter().all(|one| one.nodes[*of].is_none());
        let callees = self.calls[of].iter().map(|call| call.callee);
        let host = callees
            .filter(|host| self.candidate(*host) && silent(host))
            .max_by(|a, b| unusual(*a).total_cmp(&unusual(*b)))?;
        let theirs = unusual(host);
        (theirs > 0.0).then(|| (host, theirs / (theirs + unusual(of))))
    }

    /// A resource counts as far as its component may be `behind` what was handed up: a disk that
    /// is busy while a dependency elsewhere refuses is no cause of that.
    fn resource_finding(&self, behind: &[f32]) -> Vec<Finding> {
        let times = |of: usize| {
            let resource = self.resources[of].as_ref().filter(|_| self.candidate(of));
            resource.map_or(0.0, |one| libm::powf(one.times.max(1.0), behind[of]))
        };
        let all: Vec<f32> = (0..self.graph.len()).map(times).collect();
        let strongest = all.iter().copied().fold(0.0, f32::max);
        let parts = all.iter().map(|times| libm::logf(times.max(1.0)));
        let parts: Vec<f32> = parts.collect();
        Finding::of(&parts, strongest).into_iter().collect()
    }

    fn event_finding(&self) -> Vec<Finding> {
        let beyond = |of: usize| {
            let change = self
                .signals
                .events
                .change(of)
                .filter(|_| self.candidate(of));
            change.map_or((0.0, 0.0), |one| (one.beyond(), one.times()))
        };
        let all: Vec<(f32, f32)> = (0..self.graph.len()).map(beyond).collect();
        let strongest = all.iter().map(|one| one.1).fold(0.0, f32::max);
        let parts: Vec<f32> = all.iter().map(|one| one.0).collect();
        Finding::of(&parts, strongest).into_iter().collect()
    }

    /// Who is beyond the usual although nothing alarmed depends on it.
    fn coincident(&self, confirm: f32) -> Vec<Component> {
        let changed = |of: &usize| {
            let nodes = self
                .accounts
                .iter()
                .filter_map(|one| one.nodes[*of].as_ref());
            let handed = nodes.map(Node::times).fold(0.0, f32::max);
            let own = self.resources[*of].as_ref().map_or(0.0, |one| one.times);
            !self.reach[*of] && !self.graph.is_proxy(*of) && handed.max(own) >= confirm
        };
        (0..self.graph.len()).filter(changed).map(place).collect()
    }

    pub(crate) fn onset(&self, of: usize) -> Option<usize> {
        let nodes = self
            .accounts
            .iter()
            .filter_map(|one| one.nodes[of].as_ref());
        nodes.filter_map(|node| node.onset).min()
    }
}

#[allow(clippy::cast_possible_truncation)] // graphs have at most `COMPONENTS_MAX`
pub(crate) fn place(component: usize) -> Component {
    Component(component as u16)
}
