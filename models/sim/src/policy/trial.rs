//! Trial and error: tries what its weights say, waits, and tries less what did not help.
//!
//! It knows which steps there are and, roughly, which words in a log and which gauges speak
//! for which of them and which against; nothing of causes, orders or traps. All its numbers
//! are [`Weights`], and those that come with it were tuned on the training set.

use std::collections::BTreeMap;

use super::hints::{hints, warnings};
use super::plain::{illness, suffers};
use super::signs::Signs;
use super::{How, Kind, Move, Policy, View, Weights, Whom};
use crate::observe::Template;
use crate::topology::NodeNo;
use crate::world::Order;

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
        let lines = |templates: &[Template]| -> f64 {
            let lines = templates.iter();
            let lines: u32 = lines
                .map(|template| self.lines(view, one.whom, *template))
                .sum();
            f64::from(lines).sqrt()
        };
        score += (weights.line * lines(hints(one.kind))).min(weights.lines_most);
        score -= weights.warning * lines(warnings(one.kind));
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
                let bad = usual.down > 0 || usual.loss.or(0.0) > 0.04 || usual.rtt_ms.above() > 1.5;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::RouteNo;

    #[test]
    fn what_did_not_help_is_held_against_it_for_a_while() {
        let mut trial = Trial::new(Weights::by_hand());
        let what = (Kind::Restart, Whom::Route(RouteNo::new(0)));
        trial.lose(what, 1.0, 0.0);
        trial.lose(what, 1.0, 0.0);
        assert_eq!(trial.held_against(what, 0.0), 2.0);
        assert!(trial.held_against(what, 60.0) < 2.0);
        assert_eq!(trial.held_against(what, 6000.0), 0.0);
    }
}
