//! Execute: how one primitive is carried out, as a small state machine.
//!
//! In: what the spawner, the forwarder, the probes and the clock say. Out: what
//! to ask of them next ([`Order`]), and at the end done or failed. The order of
//! the steps, the journal and the compensations are the transaction's
//! (`homeostat_common::transaction`).

mod order;
mod runs;

use std::collections::BTreeMap;

use homeostat_common::ids::{Instance, ModelVersion, RouteId, ServiceId, Token};
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Micros, Millis};

pub use self::order::{Act, Order};
pub use self::runs::Runs;
use crate::config::Hook;
use crate::route::Routed;
use crate::service::{Slot, SlotName, Watched};

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not finished; call again at this time at the latest.
    Busy(Option<Micros>),
    /// The effect is there.
    Done,
    /// It cannot be reached.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// TERM was sent; KILL follows at this time.
    Stopping { kill_at: Micros },
    /// KILL was sent.
    Killing,
    /// A start was asked for.
    Starting,
    /// It runs and has to show that it works.
    Proving(Instance),
    /// A deed was asked for; its answer comes from outside.
    Acting(Act),
    /// Waits until this time.
    Waiting(Micros),
    /// Waits for right answers.
    Watching,
    /// There is no process to do it to.
    Absent,
    /// Waits until the forwarder has ended a backend's last connection.
    Draining,
    /// Waits until the forwarder says that these weights are in force.
    Weighing {
        /// Which.
        weights: Vec<(ServiceId, u16)>,
        /// When they were asked for: what was reported before says nothing.
        since: Micros,
    },
}

/// What a step can see of the node.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// The services.
    pub services: &'v BTreeMap<ServiceId, Watched>,
    /// The routes.
    pub routes: &'v BTreeMap<RouteId, Routed>,
    /// When the forwarder reported last; `None` while it is not reached.
    pub routed: Option<Micros>,
    /// The moment.
    pub now: Micros,
}

/// One primitive, or its compensation, on its way.
#[derive(Debug, Clone)]
pub struct StepRun {
    /// Names it, and its deeds.
    pub token: Token,
    primitive: Primitive,
    phase: Phase,
}

impl StepRun {
    /// Begins a primitive.
    pub fn begin(
        token: Token,
        primitive: &Primitive,
        view: View<'_>,
        orders: &mut Vec<Order>,
    ) -> Self {
        let service = primitive.service().and_then(|id| view.services.get(id));
        let live = service.and_then(Watched::instance);
        let phase = match primitive {
            Primitive::Restart { grace, .. } => match service {
                Some(watched) => stop(watched, *grace, view.now, orders).unwrap_or_else(|| {
                    orders.push(Order::Start(watched.policy.id.clone()));
                    Phase::Starting
                }),
                None => Phase::Starting,
            },
            Primitive::RollbackModel { service, to } | Primitive::SwitchModel { service, to } => {
                act(Act::SwitchSlot(service.clone(), SlotName::Model, *to))
            }
            Primitive::RollbackConfig { service, to } | Primitive::SwitchConfig { service, to } => {
                // Both kinds are named by the start of a hash.
                let to = ModelVersion(to.0);
                act(Act::SwitchSlot(service.clone(), SlotName::Config, to))
            }
            Primitive::PruneData { service, to } => act(Act::Prune(service.clone(), *to)),
            Primitive::ClearLocks { service } => act(Act::ClearLocks(service.clone())),
            Primitive::Snapshot { service } => act(Act::Snapshot(service.clone())),
            Primitive::RestoreSnapshot { service } => act(Act::RestoreSnapshot(service.clone())),
            Primitive::Freeze { service } => {
                on_life(live, |life| act(Act::Freeze(service.clone(), life, true)))
            }
            Primitive::Thaw { service } => {
                on_life(live, |life| act(Act::Freeze(service.clone(), life, false)))
            }
            Primitive::LimitCpu { service, to } => on_life(live, |life| {
                act(Act::LimitCpu(service.clone(), life, Some(*to)))
            }),
            Primitive::UnlimitCpu { service } => {
                on_life(live, |life| act(Act::LimitCpu(service.clone(), life, None)))
            }
            Primitive::LimitRate { route, to } => act(Act::LimitRate(route.clone(), Some(*to))),
            Primitive::UnlimitRate { route } => act(Act::LimitRate(route.clone(), None)),
            Primitive::BlockSource { route, from } => act(Act::Block(route.clone(), *from, true)),
            Primitive::UnblockSource { route, from } => {
                act(Act::Block(route.clone(), *from, false))
            }
            Primitive::FlushCache { service } => hook(service, Hook::FlushCache),
            Primitive::ResetPool { service } => hook(service, Hook::ResetPool),
            Primitive::Degrade { service } => hook(service, Hook::Degrade),
            Primitive::Undegrade { service } => hook(service, Hook::Undegrade),
            Primitive::SyncClock { .. } => act(Act::SyncClock),
            Primitive::SwitchUplink { to, .. } => act(Act::Uplink(Some(to.clone()))),
            Primitive::ReleaseUplink { .. } => act(Act::Uplink(None)),
            Primitive::BlockPort { service, from } => act(Act::Ports(service.clone(), *from, true)),
            Primitive::UnblockPort { service, from } => {
                act(Act::Ports(service.clone(), *from, false))
            }
            Primitive::RemountWritable { service } => act(Act::Remount(service.clone())),
            Primitive::CallWebhook { service, to } => {
                act(Act::Webhook(service.clone(), to.clone()))
            }
            Primitive::Escalate { service } => {
                orders.push(Order::Call(service.clone()));
                Phase::Waiting(view.now)
            }
            Primitive::Wait { span } => Phase::Waiting(view.now + *span),
            Primitive::Probe { service, .. } => {
                orders.push(Order::Reprove(service.clone()));
                Phase::Watching
            }
            Primitive::Isolate {
                route,
                backend,
                drain,
            } => {
                orders.push(Order::Drain(route.clone(), backend.clone(), *drain));
                Phase::Draining
            }
            Primitive::Release { route, backend } => {
                weigh(view, route, configured(view, route, [backend]), orders)
            }
            Primitive::Reroute {
                route,
                from,
                to,
                share,
            } => {
                let known = view.routes.get(route);
                let weights = known.map(|route| route.rerouted(from, to, *share));
                weigh(view, route, weights.unwrap_or_default(), orders)
            }
            Primitive::ScaleOut { service: id, .. } | Primitive::Prewarm { service: id } => {
                orders.push(match primitive {
                    Primitive::Prewarm { .. } => Order::Warm(id.clone(), true),
                    _ => Order::Want(id.clone(), true),
                });
                match service.map(|watched| watched.slot) {
                    Some(Slot::Up { instance, .. }) => Phase::Proving(instance),
                    _ => {
                        orders.push(Order::Start(id.clone()));
                        Phase::Starting
                    }
                }
            }
            Primitive::ScaleIn {
                route,
                service,
                drain,
            } => {
                orders.push(Order::Want(service.clone(), false));
                orders.push(Order::Warm(service.clone(), false));
                orders.push(Order::Drain(route.clone(), service.clone(), *drain));
                Phase::Draining
            }
        };
        Self::starting(token, primitive, phase, orders)
    }

    fn starting(
        token: Token,
        primitive: &Primitive,
        phase: Phase,
        orders: &mut Vec<Order>,
    ) -> Self {
        if let Phase::Acting(act) = &phase {
            orders.push(Order::Act(token, act.clone()));
        }
        Self {
            token,
            primitive: primitive.clone(),
            phase,
        }
    }

    /// Begins the compensation of a primitive.
    pub fn undo(
        token: Token,
        primitive: &Primitive,
        view: View<'_>,
        orders: &mut Vec<Order>,
    ) -> Self {
        let service = primitive.service().and_then(|id| view.services.get(id));
        let live = service.and_then(Watched::instance);
        let phase = match primitive {
            Primitive::RollbackModel { service, .. } | Primitive::SwitchModel { service, .. } => {
                act(Act::RestoreSlot(service.clone(), SlotName::Model))
            }
            Primitive::RollbackConfig { service, .. } | Primitive::SwitchConfig { service, .. } => {
                act(Act::RestoreSlot(service.clone(), SlotName::Config))
            }
            Primitive::RestoreSnapshot { service } => act(Act::TakeBackSnapshot(service.clone())),
            // What held for a life that is gone is gone with it.
            Primitive::Freeze { service } => live.map_or(Phase::Waiting(view.now), |life| {
                act(Act::Freeze(service.clone(), life, false))
            }),
            Primitive::LimitCpu { service, .. } => live.map_or(Phase::Waiting(view.now), |life| {
                act(Act::LimitCpu(service.clone(), life, None))
            }),
            Primitive::LimitRate { route, .. } => act(Act::LimitRate(route.clone(), None)),
            Primitive::BlockSource { route, from } => act(Act::Block(route.clone(), *from, false)),
            Primitive::Degrade { service } => hook(service, Hook::Undegrade),
            Primitive::SwitchUplink { .. } => act(Act::Uplink(None)),
            Primitive::BlockPort { service, from } => {
                act(Act::Ports(service.clone(), *from, false))
            }
            Primitive::Prewarm { service: id } => {
                orders.push(Order::Warm(id.clone(), false));
                service
                    .and_then(|watched| stop(watched, watched.policy.stop_grace, view.now, orders))
                    .unwrap_or(Phase::Waiting(view.now))
            }
            Primitive::Isolate { route, backend, .. } => {
                weigh(view, route, configured(view, route, [backend]), orders)
            }
            Primitive::Reroute {
                route, from, to, ..
            } => weigh(view, route, configured(view, route, [from, to]), orders),
            // The opposite primitive takes it back; a standby that is not
            // needed is cut off at once.
            Primitive::ScaleOut { route, service } => {
                orders.push(Order::Want(service.clone(), false));
                orders.push(Order::Drain(route.clone(), service.clone(), Millis(0)));
                Phase::Draining
            }
            Primitive::ScaleIn { service, .. } => {
                orders.push(Order::Want(service.clone(), true));
                match view.services.get(service).map(|watched| watched.slot) {
                    Some(Slot::Up { instance, .. }) => Phase::Proving(instance),
                    _ => {
                        orders.push(Order::Start(service.clone()));
                        Phase::Starting
                    }
                }
            }
            // Repeatable primitives have nothing to take back, and nothing
            // brings back what was deleted.
            Primitive::Restart { .. }
            | Primitive::Probe { .. }
            | Primitive::Wait { .. }
            | Primitive::Release { .. }
            | Primitive::PruneData { .. }
            | Primitive::Thaw { .. }
            | Primitive::UnlimitCpu { .. }
            | Primitive::UnlimitRate { .. }
            | Primitive::UnblockSource { .. }
            | Primitive::ClearLocks { .. }
            | Primitive::Snapshot { .. }
            | Primitive::FlushCache { .. }
            | Primitive::ResetPool { .. }
            | Primitive::Undegrade { .. }
            | Primitive::SyncClock { .. }
            | Primitive::ReleaseUplink { .. }
            | Primitive::UnblockPort { .. }
            | Primitive::RemountWritable { .. }
            | Primitive::CallWebhook { .. }
            | Primitive::Escalate { .. } => Phase::Waiting(view.now),
        };
        Self::starting(token, primitive, phase, orders)
    }

    /// The service it works on.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        self.primitive.service()
    }

    /// Whether it does nothing but let time pass or look.
    #[must_use]
    pub fn only_waits(&self) -> bool {
        matches!(
            self.primitive,
            Primitive::Wait { .. } | Primitive::Probe { .. }
        )
    }

    /// Its deed is done, or cannot be.
    pub fn acted(&mut self, result: Result<(), String>, orders: &mut Vec<Order>) -> Progress {
        let Phase::Acting(act) = &self.phase else {
            return Progress::Busy(None);
        };
        if let Err(why) = result {
            return Progress::Failed(why);
        }
        if let Act::Freeze(service, life, on) = act {
            orders.push(Order::Pause(service.clone(), on.then_some(*life)));
            if matches!(self.primitive, Primitive::Thaw { .. }) {
                orders.push(Order::Reprove(service.clone()));
                self.phase = Phase::Watching;
                return Progress::Busy(None);
            }
        }
        Progress::Done
    }

    /// A start that this step asked for was refused. A life that already is
    /// there has to go first; anything else is a failure.
    pub fn refused(
        &mut self,
        live: Option<Instance>,
        why: &str,
        orders: &mut Vec<Order>,
    ) -> Progress {
        match (&self.phase, live, self.primitive.service()) {
            (Phase::Starting, Some(instance), Some(id)) => {
                orders.push(Order::Kill(id.clone(), instance));
                self.phase = Phase::Killing;
                Progress::Busy(None)
            }
            (Phase::Starting, None, _) => Progress::Failed(format!("not started: {why}")),
            _ => Progress::Busy(None),
        }
    }

    /// The forwarder has ended the last connection of a backend.
    pub fn drained(
        &mut self,
        route: &RouteId,
        backend: &ServiceId,
        view: View<'_>,
        orders: &mut Vec<Order>,
    ) -> Option<Progress> {
        let meant = self.phase == Phase::Draining
            && self.primitive.route() == Some(route)
            && self.primitive.service() == Some(backend);
        if !meant {
            return None;
        }
        // A replica that nobody needs any more goes once nobody is on it.
        let stops = matches!(self.primitive, Primitive::ScaleIn { .. }) && !self.token.undo
            || matches!(self.primitive, Primitive::ScaleOut { .. }) && self.token.undo;
        let watched = view.services.get(backend).filter(|_| stops);
        let phase =
            watched.and_then(|watched| stop(watched, watched.policy.stop_grace, view.now, orders));
        Some(match phase {
            Some(phase) => {
                self.phase = phase;
                Progress::Busy(None)
            }
            None => Progress::Done,
        })
    }

    /// What has to be asked for again after the spawner was lost.
    pub fn repeat(&self, service: &Watched, orders: &mut Vec<Order>) {
        let id = &service.policy.id;
        match (&self.phase, service.slot) {
            (Phase::Stopping { .. }, Slot::Up { instance, .. }) => {
                orders.push(Order::Stop(id.clone(), instance));
            }
            (Phase::Killing, Slot::Up { instance, .. }) => {
                orders.push(Order::Kill(id.clone(), instance));
            }
            (Phase::Starting, Slot::Down { .. }) => orders.push(Order::Start(id.clone())),
            (
                Phase::Acting(
                    act @ (Act::Freeze(..)
                    | Act::LimitCpu(..)
                    | Act::SyncClock
                    | Act::Uplink(_)
                    | Act::Ports(..)
                    | Act::Remount(_)),
                ),
                _,
            ) => {
                orders.push(Order::Act(self.token, act.clone()));
            }
            _ => {}
        }
    }

    /// What has to be asked for again after the forwarder was lost.
    pub fn repeat_route(&self, orders: &mut Vec<Order>) {
        let Some(route) = self.primitive.route() else {
            return;
        };
        match (&self.phase, &self.primitive) {
            (Phase::Weighing { weights, .. }, _) => {
                for (backend, weight) in weights {
                    orders.push(Order::SetWeight(route.clone(), backend.clone(), *weight));
                }
            }
            (Phase::Acting(act), _) => orders.push(Order::Act(self.token, act.clone())),
            // With the forwarder its connections went: nothing is left to wait for.
            (Phase::Draining, primitive) => {
                for backend in primitive.backends() {
                    orders.push(Order::Drain(route.clone(), backend.clone(), Millis(0)));
                }
            }
            _ => {}
        }
    }

    /// Moves on with what is known now.
    pub fn advance(&mut self, view: View<'_>, orders: &mut Vec<Order>) -> Progress {
        let now = view.now;
        match &self.phase {
            Phase::Waiting(until) if now >= *until => return Progress::Done,
            Phase::Waiting(until) => return Progress::Busy(Some(*until)),
            Phase::Acting(_) | Phase::Draining => return Progress::Busy(None),
            Phase::Weighing { weights, since } => {
                let route = self.primitive.route().and_then(|id| view.routes.get(id));
                let Some(route) = route else {
                    return Progress::Failed("the route is gone from the configuration".into());
                };
                let in_force = weights.iter().all(|(backend, weight)| {
                    let known = route.backends.get(backend);
                    known.is_some_and(|known| known.sample.weight == *weight)
                });
                let told = view.routed.is_some_and(|at| at > *since);
                return if in_force && told {
                    Progress::Done
                } else {
                    Progress::Busy(None)
                };
            }
            Phase::Absent => return Progress::Failed("it has no process".into()),
            Phase::Stopping { .. }
            | Phase::Killing
            | Phase::Starting
            | Phase::Proving(_)
            | Phase::Watching => {}
        }
        let Some(watched) = self.service().and_then(|id| view.services.get(id)) else {
            return Progress::Failed("the service is gone from the configuration".into());
        };
        let id = &watched.policy.id;
        match (&self.phase, watched.slot) {
            (Phase::Stopping { .. } | Phase::Killing, Slot::Down { .. }) => {
                if !matches!(self.primitive, Primitive::Restart { .. }) {
                    return Progress::Done;
                }
                orders.push(Order::Start(id.clone()));
                self.phase = Phase::Starting;
                Progress::Busy(None)
            }
            (Phase::Stopping { kill_at }, Slot::Up { instance, .. }) if now >= *kill_at => {
                orders.push(Order::Kill(id.clone(), instance));
                self.phase = Phase::Killing;
                Progress::Busy(None)
            }
            (Phase::Stopping { kill_at }, _) => Progress::Busy(Some(*kill_at)),
            (Phase::Starting, Slot::Up { instance, .. }) => {
                self.phase = Phase::Proving(instance);
                self.prove(watched, instance, view, orders)
            }
            (Phase::Proving(instance), _) => {
                let instance = *instance;
                self.prove(watched, instance, view, orders)
            }
            (Phase::Watching, _) if watched.reproven(now) => Progress::Done,
            _ => Progress::Busy(None),
        }
    }

    fn prove(
        &mut self,
        watched: &Watched,
        instance: Instance,
        view: View<'_>,
        orders: &mut Vec<Order>,
    ) -> Progress {
        match watched.slot {
            Slot::Up {
                instance: present,
                since,
            } if present == instance => {
                if !watched.proven(view.now) {
                    let settled = since + crate::service::SETTLE;
                    return Progress::Busy(Some(settled).filter(|at| *at > view.now));
                }
                let scaled = match (&self.primitive, self.token.undo) {
                    (Primitive::ScaleOut { route, service }, false)
                    | (Primitive::ScaleIn { route, service, .. }, true) => Some((route, service)),
                    _ => None,
                };
                let Some((route, service)) = scaled else {
                    return Progress::Done;
                };
                let weight = view.routes.get(route).map_or(0, Routed::scaled_out);
                orders.push(Order::SetWeight(route.clone(), service.clone(), weight));
                self.phase = Phase::Weighing {
                    weights: vec![(service.clone(), weight)],
                    since: view.now,
                };
                Progress::Busy(None)
            }
            _ => Progress::Failed("the fresh process ended before it answered".into()),
        }
    }
}

/// Ends the present life, if there is one.
fn stop(watched: &Watched, grace: Millis, now: Micros, orders: &mut Vec<Order>) -> Option<Phase> {
    let Slot::Up { instance, .. } = watched.slot else {
        return None;
    };
    let id = watched.policy.id.clone();
    Some(if grace.0 > 0 {
        orders.push(Order::Stop(id, instance));
        Phase::Stopping {
            kill_at: now + grace,
        }
    } else {
        orders.push(Order::Kill(id, instance));
        Phase::Killing
    })
}

fn act(act: Act) -> Phase {
    Phase::Acting(act)
}

fn hook(service: &ServiceId, hook: Hook) -> Phase {
    Phase::Acting(Act::Hook(service.clone(), hook))
}

/// A deed on the present life.
fn on_life(live: Option<Instance>, deed: impl FnOnce(Instance) -> Phase) -> Phase {
    live.map_or(Phase::Absent, deed)
}

/// Asks for weights, and waits until a report that came after says them.
fn weigh(
    view: View<'_>,
    route: &RouteId,
    weights: Vec<(ServiceId, u16)>,
    orders: &mut Vec<Order>,
) -> Phase {
    for (backend, weight) in &weights {
        orders.push(Order::SetWeight(route.clone(), backend.clone(), *weight));
    }
    Phase::Weighing {
        weights,
        since: view.now,
    }
}

fn configured<const N: usize>(
    view: View<'_>,
    route: &RouteId,
    backends: [&ServiceId; N],
) -> Vec<(ServiceId, u16)> {
    let weight = |id: &ServiceId| {
        let Some(route) = view.routes.get(route) else {
            return 0;
        };
        // A standby that was called for has the weight it was given then.
        match view.services.get(id) {
            Some(one) if one.policy.standby && one.scaled_out => route.scaled_out(),
            _ => route
                .backends
                .get(id)
                .map_or(0, |backend| backend.configured),
        }
    };
    backends.map(|id| (id.clone(), weight(id))).into()
}
