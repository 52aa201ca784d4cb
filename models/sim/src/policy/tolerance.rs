//! Traditional fault tolerance: what is built in today without any plan.
//!
//! A supervisor for what is dead; a circuit breaker that takes a replica out of its route
//! when it is much worse than its siblings, and lets it in again after a while (half open);
//! standbys that start when a route has fewer replicas than it should; a bulkhead at the
//! entry that admits what the fleet can do while it is saturated; a second uplink when the
//! first is down; checkpoints are the training job's own. No diagnosis, no repair.

use std::collections::BTreeMap;

use super::plain::{Supervisor, restart};
use super::signs::Signs;
use super::{Kind, Policy, View, Whom};
use crate::topology::{LinkNo, NodeNo, ReplicaNo, RouteNo};
use crate::world::Order;

/// A breaker opens at this share of errors,
const OPENS_ERR: f64 = 0.25;
/// or when it is so many times slower than the quickest sibling,
const OPENS_SLOW: f64 = 3.0;
/// and lets through again after so many seconds, doubled each time.
const HALF_OPEN_S: f64 = 30.0;
/// Above this, an entry is saturated.
const SATURATED_MS: f64 = 900.0;
/// The bulkhead stays so long.
const BULKHEAD_S: f64 = 90.0;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Tolerance {
    signs: Signs,
    supervisor: Supervisor,
    /// Open breakers: until when, and for how long next time.
    open: BTreeMap<ReplicaNo, (f64, f64)>,
    /// How long the next opening lasts.
    pauses: BTreeMap<ReplicaNo, f64>,
    started: Vec<ReplicaNo>,
    switched: Vec<NodeNo>,
    limited: BTreeMap<RouteNo, f64>,
}

impl Tolerance {
    /// A replica whose breaker should open: one that has a sibling that is well.
    fn opens(&self, view: &View<'_>) -> Option<ReplicaNo> {
        for route in view.topology.routes() {
            let live = |no: &&ReplicaNo| {
                let sign = &self.signs.replicas[no.at()];
                self.signs.there(**no) && sign.mute < 2 && !self.open.contains_key(no)
            };
            let live: Vec<ReplicaNo> = route.replicas.iter().filter(live).copied().collect();
            let best = live
                .iter()
                .map(|no| self.signs.replicas[no.at()].p95_ms.or(f64::MAX));
            let best = best.fold(f64::MAX, f64::min).max(20.0);
            let hung =
                route.replicas.iter().copied().find(|no| {
                    self.signs.replicas[no.at()].mute >= 1 && !self.open.contains_key(no)
                });
            if let Some(hung) = hung.filter(|_| !live.is_empty()) {
                return Some(hung);
            }
            if live.len() < 2 {
                continue;
            }
            let bad = live.into_iter().find(|no| {
                let sign = &self.signs.replicas[no.at()];
                1.0 - sign.right.or(1.0) > OPENS_ERR || sign.p95_ms.or(0.0) > OPENS_SLOW * best
            });
            if bad.is_some() {
                return bad;
            }
        }
        None
    }
}

impl Policy for Tolerance {
    fn name(&self) -> &'static str {
        "tolerance"
    }

    fn see(&mut self, view: &View<'_>) {
        self.signs.see(view.topology, view.seen);
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        let now = view.seen.at;
        let take = |kind, whom| {
            view.moves
                .find(kind, whom)
                .map(|one| vec![one.order.clone()])
        };
        for at in 0..view.topology.nodes().len() {
            let no = NodeNo::new(at);
            let usual: LinkNo = view.topology.nodes()[at].uplinks[0];
            if self.signs.link(usual).down >= 1
                && !self.switched.contains(&no)
                && let Some(orders) = take(Kind::SwitchUplink, Whom::Node(no))
            {
                self.switched.push(no);
                return orders;
            }
        }
        let dead = self.supervisor.dead(&self.signs, view);
        if dead.is_some() {
            return restart(view, dead);
        }
        if let Some(no) = self.opens(view) {
            let pause = *self.pauses.get(&no).unwrap_or(&HALF_OPEN_S);
            self.pauses.insert(no, 2.0 * pause);
            self.open.insert(no, (now + pause, pause));
            if let Some(orders) = take(Kind::Isolate, Whom::Replica(no)) {
                return orders;
            }
        }
        let closes = self
            .open
            .iter()
            .find(|(_, (until, _))| now >= *until)
            .map(|(no, _)| *no);
        if let Some(no) = closes {
            self.open.remove(&no);
            if let Some(orders) = take(Kind::Release, Whom::Replica(no)) {
                return orders;
            }
        }
        for route in view.topology.routes() {
            let lacking = route.replicas.iter().any(|no| {
                let own = &view.topology.replicas()[no.at()];
                let sign = &self.signs.replicas[no.at()];
                !own.standby && (sign.down > 1 || sign.mute > 1 || self.open.contains_key(no))
            });
            let spare =
                route.replicas.iter().copied().find(|no| {
                    view.topology.replicas()[no.at()].standby && !self.started.contains(no)
                });
            if let (true, Some(no)) = (lacking, spare) {
                self.started.push(no);
                if let Some(orders) = take(Kind::ScaleOut, Whom::Replica(no)) {
                    return orders;
                }
            }
        }
        for (at, route) in view.topology.routes().iter().enumerate() {
            let no = RouteNo::new(at);
            if route.demand <= 0.0 {
                continue;
            }
            let saturated = self.signs.routes[at].p95_ms.or(0.0) > SATURATED_MS;
            match self.limited.get(&no) {
                None if saturated => {
                    self.limited.insert(no, now + BULKHEAD_S);
                    return take(Kind::LimitRate, Whom::Route(no)).unwrap_or_default();
                }
                Some(until) if now >= *until => {
                    self.limited.remove(&no);
                    return take(Kind::UnlimitRate, Whom::Route(no)).unwrap_or_default();
                }
                _ => {}
            }
        }
        Vec::new()
    }
}
