//! Trial and error: tries what its weights say, waits, and tries less what did not help.
//!
//! It knows which steps there are and, roughly, which words in a log and which gauges speak
//! for which of them; nothing of causes, orders or traps. All its numbers are
//! [`Weights`], so that they can be tuned on training seeds.

use std::collections::BTreeMap;

use super::plain::{illness, suffers};
use super::signs::Signs;
use super::{How, Kind, Move, Policy, View, Whom};
use crate::observe::Template;
use crate::topology::NodeNo;
use crate::world::Order;

/// The numbers of trial and error.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// What speaks for a kind of step by itself, by the order of [`Kind::ALL`].
    pub bias: [f64; Kind::ALL.len()],
    /// What an ill replica speaks for a step about it.
    pub ill_replica: f64,
    /// What the worst replica of a route or node speaks for a step about that.
    pub ill_around: f64,
    /// What a dead or mute replica speaks for its restart.
    pub dead: f64,
    /// What lines in the log speak for the steps that belong to them, each by its root.
    pub line: f64,
    /// Most that lines speak for.
    pub lines_most: f64,
    /// What an overloaded node speaks for steps about it.
    pub busy: f64,
    /// What a bad link speaks for the other one.
    pub link: f64,
    /// What a wrong clock speaks for setting it.
    pub clock: f64,
    /// What a full disk speaks for deleting.
    pub full: f64,
    /// What a doubtful model speaks for steps about it.
    pub model: f64,
    /// What a step that did not help loses.
    pub tried: f64,
    /// What one that was refused or failed loses.
    pub failed: f64,
    /// What a step is worth that is forgiven so each minute.
    pub forgiven: f64,
    /// Below this nothing is done.
    pub least: f64,
    /// Seconds to wait after a step before the next.
    pub patience_s: f64,
}

/// How many numbers that are.
pub const WEIGHTS: usize = Kind::ALL.len() + 15;

impl Weights {
    /// All of them in a row, for a tuner.
    #[must_use]
    pub fn to_array(&self) -> [f64; WEIGHTS] {
        let mut all = [0.0; WEIGHTS];
        let (bias, rest) = all.split_at_mut(self.bias.len());
        bias.copy_from_slice(&self.bias);
        rest.copy_from_slice(&[
            self.ill_replica,
            self.ill_around,
            self.dead,
            self.line,
            self.lines_most,
            self.busy,
            self.link,
            self.clock,
            self.full,
            self.model,
            self.tried,
            self.failed,
            self.forgiven,
            self.least,
            self.patience_s,
        ]);
        all
    }

    /// From a row.
    #[must_use]
    pub fn from_array(all: &[f64; WEIGHTS]) -> Self {
        let mut bias = [0.0; Kind::ALL.len()];
        let (first, rest) = all.split_at(bias.len());
        bias.copy_from_slice(first);
        let mut rest = rest.iter().copied();
        let mut next = || rest.next().unwrap_or(0.0);
        Self {
            bias,
            ill_replica: next(),
            ill_around: next(),
            dead: next(),
            line: next(),
            lines_most: next(),
            busy: next(),
            link: next(),
            clock: next(),
            full: next(),
            model: next(),
            tried: next(),
            failed: next(),
            forgiven: next(),
            least: next(),
            patience_s: next(),
        }
    }
}

impl Default for Weights {
    /// Set by hand, not tuned.
    fn default() -> Self {
        let mut bias = [-0.6; Kind::ALL.len()];
        for (kind, own) in [
            (Kind::Restart, 0.2),
            (Kind::ScaleOut, -0.1),
            (Kind::RollbackConfig, -0.2),
            (Kind::RollbackModel, -0.1),
            (Kind::SwitchUplink, 0.0),
            (Kind::SyncClock, 0.0),
            (Kind::KillStranger, -0.2),
            (Kind::Retrain, -0.5),
            (Kind::Reboot, -0.8),
            (Kind::Isolate, -0.5),
            // Nothing is mended by these.
            (Kind::Freeze, -3.0),
            (Kind::Thaw, -3.0),
            (Kind::ScaleIn, -3.0),
            (Kind::UnblockSource, -3.0),
            (Kind::UnblockPort, -3.0),
            (Kind::UnlimitCpu, -3.0),
            (Kind::Undegrade, -3.0),
            (Kind::ReleaseUplink, -3.0),
            (Kind::Snapshot, -2.0),
            (Kind::Wait, -3.0),
            (Kind::LimitRate, -1.5),
        ] {
            bias[kind as usize] = own;
        }
        Self {
            bias,
            ill_replica: 0.5,
            ill_around: 0.15,
            dead: 1.5,
            line: 0.35,
            lines_most: 1.8,
            busy: 0.8,
            link: 2.0,
            clock: 2.0,
            full: 1.5,
            model: 6.0,
            tried: 1.1,
            failed: 0.6,
            forgiven: 0.25,
            least: 0.3,
            patience_s: 10.0,
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Trial {
    weights: Weights,
    signs: Signs,
    /// What each step has lost, and when it lost it.
    lost: BTreeMap<(Kind, Whom), (f64, f64)>,
    last: Option<(Kind, Whom)>,
    rest_until: f64,
}

impl Trial {
    /// One with these numbers.
    #[must_use]
    pub fn new(weights: Weights) -> Self {
        Self {
            weights,
            signs: Signs::default(),
            lost: BTreeMap::new(),
            last: None,
            rest_until: 0.0,
        }
    }

    fn lose(&mut self, what: (Kind, Whom), how_much: f64, now: f64) {
        let before = self.held_against(what, now);
        self.lost.insert(what, (before + how_much, now));
    }

    fn held_against(&self, what: (Kind, Whom), now: f64) -> f64 {
        self.lost.get(&what).map_or(0.0, |(lost, at)| {
            (lost - self.weights.forgiven * (now - at) / 60.0).max(0.0)
        })
    }

    fn score(&self, view: &View<'_>, one: &Move, now: f64) -> f64 {
        let weights = &self.weights;
        let mut score = weights.bias[one.kind as usize];
        score += self.symptoms(view, one);
        let lines: u32 = hints(one.kind)
            .iter()
            .map(|template| self.lines(view, one.whom, *template))
            .sum();
        score += (weights.line * f64::from(lines).sqrt()).min(weights.lines_most);
        score - self.held_against((one.kind, one.whom), now)
    }

    fn lines(&self, view: &View<'_>, whom: Whom, template: Template) -> u32 {
        match whom {
            Whom::Replica(no) => self.signs.lines(no, template),
            Whom::Route(no) => self.signs.lines_route(view.topology, no, template),
            Whom::Node(no) => self.signs.lines_node(view.topology, no, template),
            Whom::All => self.signs.lines_all(template),
        }
    }

    fn symptoms(&self, view: &View<'_>, one: &Move) -> f64 {
        let (weights, signs) = (&self.weights, &self.signs);
        let topology = view.topology;
        match one.whom {
            Whom::Replica(no) => {
                let sign = &signs.replicas[no.at()];
                let own = illness(signs, no);
                let dead = one.kind == Kind::Restart && (sign.down > 0 || sign.mute > 1);
                let full =
                    one.kind == Kind::PruneData && self.full(topology.replicas()[no.at()].node);
                let model = match one.kind {
                    Kind::RollbackModel => signs.model_loss(no),
                    _ => 0.0,
                };
                weights.ill_replica * own
                    + if dead { weights.dead } else { 0.0 }
                    + if full { weights.full } else { 0.0 }
                    + weights.model * model
            }
            Whom::Route(no) => {
                let route = &topology.routes()[no.at()];
                let worst = route.replicas.iter().map(|no| illness(signs, *no));
                let worst = worst.fold(0.0, f64::max);
                let model = route.replicas.iter().map(|no| signs.model_loss(*no));
                let model = match one.kind {
                    Kind::Retrain => model.fold(0.0, f64::max),
                    _ => 0.0,
                };
                weights.ill_around * worst
                    + weights.model * model
                    + 2.0 * self.weights.ill_around * signs.routes[no.at()].err.or(0.0)
            }
            Whom::Node(no) => {
                let sign = &signs.nodes[no.at()];
                let busy = sign.waits_cpu.or(0.0)
                    + sign.waits_disk.or(0.0)
                    + if sign.memory_free.above() < -0.4 {
                        0.7
                    } else {
                        0.0
                    };
                let usual = signs.link(topology.nodes()[no.at()].uplinks[0]);
                let bad = usual.down > 0
                    || usual.loss.or(0.0) > 0.04
                    || usual.rtt_ms.above() > 1.5;
                match one.kind {
                    Kind::SyncClock if sign.ahead.or(0.0).abs() > 20.0 => weights.clock,
                    Kind::SwitchUplink if bad => weights.link,
                    Kind::Reboot if sign.silent > 2 => weights.dead,
                    Kind::Reboot | Kind::KillStranger => weights.busy * busy,
                    _ => 0.0,
                }
            }
            Whom::All => 0.0,
        }
    }

    fn full(&self, node: NodeNo) -> bool {
        let sign = &self.signs.nodes[node.at()];
        sign.disk_free.above() < -0.8 || sign.inodes_free.above() < -0.5
    }
}

impl Policy for Trial {
    fn name(&self) -> &'static str {
        "trial"
    }

    fn see(&mut self, view: &View<'_>) {
        self.signs.see(view.topology, view.seen);
        let now = view.seen.at;
        for ended in view.ended {
            if let Some(last) = self.last.take() {
                // What was done and did not end it is less likely to.
                let how_much = match ended.how {
                    How::Done => self.weights.tried,
                    How::Failed(_) | How::Refused(_) | How::TooDear => self.weights.failed,
                };
                self.lose(last, how_much, now);
                self.rest_until = now + self.weights.patience_s;
            }
        }
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        let now = view.seen.at;
        let ill = suffers(&self.signs, view.topology)
            || self
                .signs
                .replicas
                .iter()
                .any(|sign| sign.down > 0 || sign.mute > 1);
        if !ill || now < self.rest_until {
            return Vec::new();
        }
        let scored = view
            .moves
            .all()
            .iter()
            .map(|one| (self.score(view, one, now), one));
        let best = scored.reduce(|best, one| if one.0 > best.0 { one } else { best });
        let Some((score, one)) = best else {
            return Vec::new();
        };
        if score < self.weights.least {
            return Vec::new();
        }
        self.last = Some((one.kind, one.whom));
        self.signs.forget_lines();
        vec![one.order.clone()]
    }
}

/// The words that speak for a kind of step.
fn hints(kind: Kind) -> &'static [Template] {
    use Template as T;
    match kind {
        Kind::Restart => &[T::Watchdog, T::TooManyFiles, T::ThreadSpawn, T::HeapGrowth],
        Kind::RollbackModel => &[T::ModelHash, T::ModelLoaded],
        Kind::RollbackConfig => &[T::ConfigParse, T::ShortLived],
        Kind::PruneData => &[T::NoSpace, T::NearlyFull],
        Kind::Isolate => &[T::QueueFull],
        Kind::ScaleOut => &[T::QueueFull, T::ReserveLow],
        Kind::LimitRate => &[T::QuotaReached],
        Kind::BlockSource => &[T::DuplicateKey, T::InputRange],
        Kind::ClearLocks => &[T::LockWait, T::LockStale],
        Kind::Snapshot => &[T::Unflushed],
        Kind::RestoreSnapshot | Kind::RestoreCheckpoint => &[T::Checksum],
        Kind::FlushCache => &[T::CacheMismatch],
        Kind::Degrade => &[T::Throttled, T::UnderVoltage],
        Kind::SyncClock => &[T::ClockAhead],
        Kind::SwitchUplink => &[T::LinkDown, T::LinkRetransmit, T::LinkSlow],
        Kind::Remount => &[T::ReadOnly],
        Kind::Reboot => &[T::AgentLate, T::SlowSync],
        Kind::RotateCredential | Kind::ResetPool => &[T::AuthExpired, T::AuthRefused],
        Kind::FailoverBroker => &[T::LeaderUnknown],
        Kind::Retrain => &[T::LowConfidence],
        Kind::RollbackBinary => &[T::GcPause],
        Kind::PauseRollout => &[T::ArtefactApplied, T::OtherActor],
        Kind::KillStranger => &[T::StrangerBusy],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::RouteNo;

    #[test]
    fn weights_go_to_a_row_and_back() {
        let weights = Weights::default();
        assert_eq!(Weights::from_array(&weights.to_array()), weights);
        let row: Vec<f64> = (0..WEIGHTS).map(|at| at as f64).collect();
        let row: [f64; WEIGHTS] = row.try_into().unwrap();
        assert_eq!(Weights::from_array(&row).to_array(), row);
    }

    #[test]
    fn what_did_not_help_is_held_against_it_for_a_while() {
        let mut trial = Trial::new(Weights::default());
        let what = (Kind::Restart, Whom::Route(RouteNo::new(0)));
        trial.lose(what, 1.0, 0.0);
        trial.lose(what, 1.0, 0.0);
        assert_eq!(trial.held_against(what, 0.0), 2.0);
        assert!(trial.held_against(what, 60.0) < 2.0);
        assert_eq!(trial.held_against(what, 6000.0), 0.0);
    }
}
