//! Execute: how one primitive is carried out, as a small state machine.
//!
//! In: what the spawner, the forwarder, the probes and the clock say. Out: what
//! to ask of them next ([`Order`]), and at the end done or failed. The order of
//! the steps, the journal and the compensations are the transaction's
//! (`homeostat_common::transaction`).

use std::collections::BTreeMap;

use homeostat_common::ids::{Instance, ModelVersion, RouteId, ServiceId};
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Micros, Millis, Percent};

use crate::route::Routed;
use crate::service::{Slot, SlotName, Version, Watched};

/// Something to be done outside the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Start a process in the service's slot.
    Start(ServiceId),
    /// Ask a life to end.
    Stop(ServiceId, Instance),
    /// End a life.
    Kill(ServiceId, Instance),
    /// Put a version in place, remembering what stands there.
    SwitchSlot(ServiceId, SlotName, Version),
    /// Put back what stood there before.
    RestoreSlot(ServiceId, SlotName),
    /// Delete old data until so much of the quota is left in use.
    Prune(ServiceId, Percent),
    /// Give a backend this weight.
    SetWeight(RouteId, ServiceId, u16),
    /// Give it none, and end what it still has after this time.
    Drain(RouteId, ServiceId, Millis),
    /// Whether a standby is meant to run from now on.
    Want(ServiceId, bool),
    /// Answers from now on count, those before do not.
    Reprove(ServiceId),
}

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
    /// A file operation runs; its result comes from outside.
    File,
    /// Waits until this time.
    Waiting(Micros),
    /// Waits for right answers.
    Watching,
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
    /// Place in the plan.
    pub step: u8,
    primitive: Primitive,
    phase: Phase,
    /// It is the compensation that runs.
    undoing: bool,
}

impl StepRun {
    /// Begins a primitive.
    pub fn begin(step: u8, primitive: &Primitive, view: View<'_>, orders: &mut Vec<Order>) -> Self {
        let service = primitive.service().and_then(|id| view.services.get(id));
        let phase = match primitive {
            Primitive::Restart { grace, .. } => match service {
                Some(watched) => stop(watched, *grace, view.now, orders).unwrap_or_else(|| {
                    orders.push(Order::Start(watched.policy.id.clone()));
                    Phase::Starting
                }),
                None => Phase::Starting,
            },
            Primitive::RollbackModel { service, to } | Primitive::SwitchModel { service, to } => {
                orders.push(Order::SwitchSlot(service.clone(), SlotName::Model, *to));
                Phase::File
            }
            Primitive::RollbackConfig { service, to } | Primitive::SwitchConfig { service, to } => {
                // Both kinds are named by the start of a hash.
                let to = ModelVersion(to.0);
                orders.push(Order::SwitchSlot(service.clone(), SlotName::Config, to));
                Phase::File
            }
            Primitive::PruneData { service, to } => {
                orders.push(Order::Prune(service.clone(), *to));
                Phase::File
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
            Primitive::ScaleOut { service: id, .. } => {
                orders.push(Order::Want(id.clone(), true));
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
                orders.push(Order::Drain(route.clone(), service.clone(), *drain));
                Phase::Draining
            }
        };
        Self {
            step,
            primitive: primitive.clone(),
            phase,
            undoing: false,
        }
    }

    /// Begins the compensation of a primitive.
    pub fn undo(step: u8, primitive: &Primitive, view: View<'_>, orders: &mut Vec<Order>) -> Self {
        let phase = match primitive {
            Primitive::RollbackModel { service, .. } | Primitive::SwitchModel { service, .. } => {
                orders.push(Order::RestoreSlot(service.clone(), SlotName::Model));
                Phase::File
            }
            Primitive::RollbackConfig { service, .. } | Primitive::SwitchConfig { service, .. } => {
                orders.push(Order::RestoreSlot(service.clone(), SlotName::Config));
                Phase::File
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
            | Primitive::PruneData { .. } => Phase::Waiting(view.now),
        };
        Self {
            step,
            primitive: primitive.clone(),
            phase,
            undoing: true,
        }
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

    /// Whether it waits for the result of a file operation.
    #[must_use]
    pub fn awaits_file(&self) -> bool {
        self.phase == Phase::File
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
        let stops = matches!(self.primitive, Primitive::ScaleIn { .. }) && !self.undoing
            || matches!(self.primitive, Primitive::ScaleOut { .. }) && self.undoing;
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
            Phase::File | Phase::Draining => return Progress::Busy(None),
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
                let scaled = match (&self.primitive, self.undoing) {
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

/// Orders weights for backends of a route.
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
