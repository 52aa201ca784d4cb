//! Execute: how one primitive is carried out, as a small state machine.
//!
//! In: what the spawner, the probes and the clock say. Out: what to ask of them
//! next ([`Order`]), and at the end done or failed. The order of the steps, the
//! journal and the compensations are the transaction's
//! (`homeostat_common::transaction`).

use homeostat_common::ids::{Instance, ModelVersion, ServiceId};
use homeostat_common::primitive::Primitive;
use homeostat_common::units::Micros;

use crate::service::{Slot, Watched};

/// Something to be done outside the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Start a process in the service's slot.
    Start(ServiceId),
    /// Ask a life to end.
    Stop(ServiceId, Instance),
    /// End a life.
    Kill(ServiceId, Instance),
    /// Put the verified model in place, keeping what stands there.
    RollbackModel(ServiceId, ModelVersion),
    /// Put back what stood there before.
    RestoreModel(ServiceId),
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
}

/// One primitive, or its compensation, on its way.
#[derive(Debug, Clone)]
pub struct StepRun {
    /// Place in the plan.
    pub step: u8,
    primitive: Primitive,
    phase: Phase,
}

impl StepRun {
    /// Begins a primitive.
    pub fn begin(
        step: u8,
        primitive: &Primitive,
        service: Option<&Watched>,
        now: Micros,
        orders: &mut Vec<Order>,
    ) -> Self {
        let phase = match (primitive, service) {
            (Primitive::Restart { service: id, grace }, Some(watched)) => match watched.slot {
                Slot::Up { instance, .. } if grace.0 > 0 => {
                    orders.push(Order::Stop(id.clone(), instance));
                    Phase::Stopping {
                        kill_at: now + *grace,
                    }
                }
                Slot::Up { instance, .. } => {
                    orders.push(Order::Kill(id.clone(), instance));
                    Phase::Killing
                }
                Slot::Unknown | Slot::Down { .. } | Slot::Starting { .. } => {
                    orders.push(Order::Start(id.clone()));
                    Phase::Starting
                }
            },
            (Primitive::RollbackModel { service, to }, _) => {
                orders.push(Order::RollbackModel(service.clone(), *to));
                Phase::File
            }
            (Primitive::Wait { span }, _) => Phase::Waiting(now + *span),
            (Primitive::Probe { .. } | Primitive::Restart { .. }, _) => Phase::Watching,
        };
        Self {
            step,
            primitive: primitive.clone(),
            phase,
        }
    }

    /// Begins the compensation of a primitive.
    pub fn undo(step: u8, primitive: &Primitive, now: Micros, orders: &mut Vec<Order>) -> Self {
        let phase = match primitive {
            Primitive::RollbackModel { service, .. } => {
                orders.push(Order::RestoreModel(service.clone()));
                Phase::File
            }
            // Repeatable primitives have nothing to take back.
            Primitive::Restart { .. } | Primitive::Probe { .. } | Primitive::Wait { .. } => {
                Phase::Waiting(now)
            }
        };
        Self {
            step,
            primitive: primitive.clone(),
            phase,
        }
    }

    /// The service it works on.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        self.primitive.service()
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

    /// Moves on with what is known now.
    pub fn advance(
        &mut self,
        service: Option<&Watched>,
        now: Micros,
        orders: &mut Vec<Order>,
    ) -> Progress {
        let Some(watched) = service else {
            return match self.phase {
                Phase::Waiting(until) if now >= until => Progress::Done,
                Phase::Waiting(until) => Progress::Busy(Some(until)),
                Phase::File => Progress::Busy(None),
                _ => Progress::Failed("the service is gone from the configuration".into()),
            };
        };
        let id = &watched.policy.id;
        match (&self.phase, watched.slot) {
            (Phase::Stopping { .. } | Phase::Killing, Slot::Down { .. }) => {
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
                self.prove(watched, instance, now)
            }
            (Phase::Proving(instance), _) => {
                let instance = *instance;
                self.prove(watched, instance, now)
            }
            (Phase::Waiting(until), _) if now >= *until => Progress::Done,
            (Phase::Waiting(until), _) => Progress::Busy(Some(*until)),
            (Phase::Watching, _) if watched.answering(now) => Progress::Done,
            (Phase::Killing | Phase::Starting | Phase::File | Phase::Watching, _) => {
                Progress::Busy(None)
            }
        }
    }

    fn prove(&self, watched: &Watched, instance: Instance, now: Micros) -> Progress {
        match watched.slot {
            Slot::Up {
                instance: present,
                since,
            } if present == instance => {
                if watched.proven(now) {
                    Progress::Done
                } else {
                    Progress::Busy(Some(since + crate::service::SETTLE).filter(|at| *at > now))
                }
            }
            _ => Progress::Failed("the fresh process ended before it answered".into()),
        }
    }
}
