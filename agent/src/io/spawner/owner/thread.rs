//! The thread that speaks with the owners, and the spawner's end of it.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc as reports;
use std::time::Duration;

use homeostat_common::ids::{Instance, ServiceId, Token};
use homeostat_common::units::Bytes;
use rustix::process::Pid;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::systemd::Systemd;
use super::{Found, Handle, OwnerError, engine};
use crate::config::{Process, SERVICES_MAX};
use crate::io::spawner::protocol::{Exit, ProcessAct, StopSignal};

/// Orders on their way: a start, an end, a limit, two signals and acts of each
/// service.
const ORDERS_MAX: usize = 8 * SERVICES_MAX;
/// Orders carried out at once; more wait in the channel.
const TASKS_MAX: usize = ORDERS_MAX;

/// What is to be done about one service.
#[derive(Debug)]
pub(in crate::io::spawner) enum Order {
    /// Say what runs; answered by `Found`.
    Find(Process),
    /// Have it run within this time; answered by `Started`.
    Start(Process, Duration),
    /// Say how the life of that process ended, in whose group the kernel has killed for
    /// memory or not; answered by `Ended`.
    End(Handle, Instance, Pid, bool),
    /// Limit its memory; answered by `Limited`.
    Limit(Handle, Instance, Bytes),
    /// Do that to it; answered by `Acted`.
    Act(Handle, Token, ProcessAct),
    /// Not answered: it shows in what becomes of the process.
    Signal(Handle, StopSignal),
}

/// What became of an order.
#[derive(Debug)]
pub(in crate::io::spawner) enum Report {
    Found(Result<Option<Found>, OwnerError>),
    Started(Result<Found, OwnerError>),
    Ended(Instance, Exit),
    Limited(Instance, Result<(), OwnerError>),
    Acted(Token, Result<(), OwnerError>),
}

/// The spawner's end.
#[derive(Debug)]
pub(in crate::io::spawner) struct Owners {
    orders: mpsc::Sender<(ServiceId, Order)>,
    reports: reports::Receiver<(ServiceId, Report)>,
    /// Becomes readable when there are reports.
    pub(in crate::io::spawner) wake: UnixStream,
}

impl Owners {
    /// Starts the thread; it ends with the process.
    pub(in crate::io::spawner) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (wake, waking) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waking.set_nonblocking(true)?;
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (reporting, reports) = reports::channel();
        let reporting = Reporting { reporting, waking };
        std::thread::Builder::new()
            .name("owners".into())
            .spawn(move || runtime.block_on(serve(ordered, Arc::new(reporting))))?;
        Ok(Self {
            orders,
            reports,
            wake,
        })
    }

    /// Gives an order; never waits.
    pub(in crate::io::spawner) fn order(
        &self,
        service: &ServiceId,
        order: Order,
    ) -> Result<(), OwnerError> {
        let sent = self.orders.try_send((service.clone(), order));
        sent.map_err(|_| OwnerError::Busy)
    }

    /// The next report, if there is one.
    pub(in crate::io::spawner) fn report(&mut self) -> Option<(ServiceId, Report)> {
        let mut bytes = [0; 64];
        while matches!((&self.wake).read(&mut bytes), Ok(n) if n > 0) {}
        self.reports.try_recv().ok()
    }

    /// The next report, if there is one within `limit`.
    pub(in crate::io::spawner) fn report_within(
        &mut self,
        limit: Duration,
    ) -> Option<(ServiceId, Report)> {
        self.reports.recv_timeout(limit).ok()
    }
}

#[derive(Debug)]
struct Reporting {
    reporting: reports::Sender<(ServiceId, Report)>,
    waking: UnixStream,
}

impl Reporting {
    fn tell(&self, service: ServiceId, report: Report) {
        // The spawner is ending when nobody listens; a full socket wakes as well.
        let _ = self.reporting.send((service, report));
        let _ = (&self.waking).write(&[0]);
    }
}

async fn serve(mut orders: mpsc::Receiver<(ServiceId, Order)>, reporting: Arc<Reporting>) {
    let owners = Arc::new((Systemd::default(), engine::Shares::default()));
    let room = Arc::new(Semaphore::new(TASKS_MAX));
    // Whoever holds the lock of a service works on it; the others wait in turn.
    let mut turns: BTreeMap<ServiceId, Arc<Mutex<()>>> = BTreeMap::new();
    while let Some((service, order)) = orders.recv().await {
        let Ok(place) = room.clone().acquire_owned().await else {
            // The semaphore is never closed.
            return pending().await;
        };
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        let turn = match order {
            Order::Signal(..) => Arc::default(),
            _ => turns.entry(service.clone()).or_default().clone(),
        };
        let (owners, reporting) = (owners.clone(), reporting.clone());
        // Tasks of this runtime begin in the order in which they are made.
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            if let Some(report) = carry_out(&owners, &service, order).await {
                reporting.tell(service, report);
            }
            drop(place);
        });
    }
}

async fn carry_out(
    (systemd, shares): &(Systemd, engine::Shares),
    service: &ServiceId,
    order: Order,
) -> Option<Report> {
    Some(match order {
        Order::Find(process) => Report::Found(match &process {
            Process::Command(_) => return None,
            Process::Unit(unit) => systemd.find(unit).await,
            Process::Container(container) => engine::find(container).await,
        }),
        Order::Start(process, limit) => {
            let (name, start) = match &process {
                Process::Command(_) => return None,
                Process::Unit(unit) => {
                    let start = systemd.start(unit, limit);
                    (&unit.name, tokio::time::timeout(limit, start).await)
                }
                Process::Container(container) => {
                    let start = engine::start(container, limit, shares);
                    (&container.name, tokio::time::timeout(limit, start).await)
                }
            };
            let late = |_| OwnerError::Late {
                name: name.clone(),
                limit,
            };
            Report::Started(start.map_err(late).flatten())
        }
        Order::End(handle, instance, pid, counted) => {
            let exit = match &handle {
                Handle::Unit(unit) => systemd.end(unit, pid).await,
                Handle::Container { engine, id } => engine::end(engine, id, pid).await,
            };
            // Not every engine gets to know it: some of Podman's look in the wrong folder.
            Report::Ended(instance, exit.or_for_memory(counted))
        }
        Order::Limit(handle, instance, max) => {
            let limited = match &handle {
                Handle::Unit(unit) => systemd.limit(unit, max).await,
                Handle::Container { engine, id } => engine::limit(engine, id, max).await,
            };
            Report::Limited(instance, limited)
        }
        Order::Act(handle, token, act) => {
            let done = match &handle {
                Handle::Unit(unit) => systemd.act(unit, act).await,
                Handle::Container { engine, id } => engine::act(engine, id, act, shares).await,
            };
            Report::Acted(token, done)
        }
        Order::Signal(handle, signal) => {
            let sent = match &handle {
                Handle::Unit(unit) => systemd.signal(unit, signal).await,
                Handle::Container { engine, id } => engine::signal(engine, id, signal).await,
            };
            if let Err(error) = sent {
                let error = crate::io::keeper::chain(&error);
                tracing::warn!(%service, error, "cannot signal {handle}");
            }
            return None;
        }
    })
}
