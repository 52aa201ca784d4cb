//! What clients lose while a service takes something and does not give it back.
//!
//! Three sides, asked alike: two replicas behind a route that Homeostat looks after; the one
//! service of a plain supervisor; and the two replicas and the forwarder run by plain
//! supervisors, which shows what of the difference is the forwarder's. A leak of memory ends
//! at the same limit on all sides, where the kernel kills the process; descriptors end at the
//! same number, from which on the service cannot accept.

use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_testbed::{Cage, Expect, Kind, Moment, Port, Prober, inject};

use super::super::{healed, progress};
use super::plain::{LEAK_RATE, OPEN_MAX, OPEN_RATE};
use super::stand::{Run, policy};
use super::state;
use crate::result::Row;
use crate::stage::{NODE, Node, Parts, Route, interrupt};
use crate::stats::Estimate;

/// Together they ask 200 times a second.
const CLIENTS: u32 = 20;
const CLIENT_PERIOD: Duration = Duration::from_millis(100);
/// Growth is not judged in the first 3 s of a life.
const REST: Duration = Duration::from_millis(3500);
const CAP: Duration = Duration::from_secs(20);
/// After the end of a fault: requests on their way come to theirs.
const AFTER: Duration = Duration::from_millis(1000);
const UP_MAX: Duration = Duration::from_secs(30);
/// Of what a plain supervisor loses.
const GOAL: f64 = 0.01;
const MEMORY: u64 = 256 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    Leak,
    Descriptors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    Homeostat,
    Supervisor,
    SupervisorAndForwarder,
}

impl Clients {
    fn id(self) -> &'static str {
        match self {
            Self::Leak => "leak_load",
            Self::Descriptors => "descriptors_load",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Leak => "leak of 30 MB/s under load",
            Self::Descriptors => "leak of 40 descriptors/s under load",
        }
    }
}

impl Guard {
    fn name(self) -> &'static str {
        match self {
            Self::Homeostat => "Homeostat",
            Self::Supervisor => "supervisor, one service",
            Self::SupervisorAndForwarder => "supervisor, 2 replicas, same forwarder",
        }
    }

    fn routed(self) -> bool {
        self != Self::Supervisor
    }
}

struct Side {
    guard: Guard,
    fault: Clients,
    /// Requests that were lost in each trial, and all that were sent.
    lost: Vec<f64>,
    sent: u64,
    unhealed: usize,
    // Ended in this order.
    load: Load,
    prober: Prober,
    run: Run,
    cage: Option<Cage>,
    _route: Port,
}

pub(super) fn measure(fault: Clients, n: u32, seed: u64) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("hs-mttr").tempdir()?;
    progress(&format!("{}: {n} trials", fault.what()));
    let mut sides = Vec::new();
    for guard in [
        Guard::Homeostat,
        Guard::Supervisor,
        Guard::SupervisorAndForwarder,
    ] {
        let folder = dir.path().join(format!("{guard:?}"));
        match Side::start(fault, guard, &folder)? {
            Some(side) => sides.push(side),
            None => progress(&format!(
                "  skip: {}: no limit of memory can be set here",
                guard.name()
            )),
        }
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    for trial in 1..=n {
        for side in &mut sides {
            side.trial(&mut rng)?;
        }
        if trial % 10 == 0 && trial < n {
            progress(&format!("  {}: {trial} of {n}", fault.what()));
        }
    }
    Ok(rows(fault, &sides, seed))
}

fn rows(fault: Clients, sides: &[Side], seed: u64) -> Vec<Row> {
    let (id, what) = (fault.id(), fault.what());
    let Some((ours, others)) = sides.split_first() else {
        return Vec::new();
    };
    let total = |side: &Side| side.lost.iter().sum::<f64>();
    let mut rows = Vec::new();
    for (other, key) in others.iter().zip(["supervisor", "forwarder"]) {
        let row_what = format!("{what}: requests lost in a trial, median");
        if let (Some(lost), Some(theirs)) = (
            Estimate::quantile(&ours.lost, 0.5, seed),
            Estimate::quantile(&other.lost, 0.5, seed),
        ) {
            let name = format!(
                "{}, {} of {} in all, {} unhealed",
                other.guard.name(),
                total(other),
                other.sent,
                other.unhealed
            );
            let row = Row::new(
                &format!("mttr.{id}.lost_{key}"),
                &row_what,
                "requests",
                lost,
            );
            rows.push(row.against(Some(theirs.value), &name));
        }
        if other.guard == Guard::Supervisor && total(other) > 0.0 {
            let row_what = format!(
                "{what}: all requests lost ({} of {}) over the supervisor's",
                total(ours),
                ours.sent
            );
            let ratio = Estimate::exact(total(ours) / total(other), ours.lost.len());
            let row = Row::new(&format!("mttr.{id}.lost_ratio"), &row_what, "ratio", ratio);
            rows.push(row.against(Some(1.0), other.guard.name()).goal(GOAL));
        }
    }
    let healed = crate::stats::share(ours.lost.len() - ours.unhealed, ours.lost.len());
    let row_what = format!("{what}: healed within {} s", CAP.as_secs());
    let row = Row::new(&format!("mttr.{id}.recovered"), &row_what, "share", healed);
    rows.push(row.higher().goal(1.0));
    rows
}

impl Side {
    /// `None` where nothing would end the leak.
    fn start(fault: Clients, guard: Guard, dir: &Path) -> Result<Option<Self>> {
        let route = state::port()?;
        let mut services = vec![state::part("web-1", Kind::Web, state::port()?)];
        let mut routes = Vec::new();
        let mut entry = services.first().map(|part| part.port.address());
        if guard.routed() {
            services.push(state::part("web-2", Kind::Web, state::port()?));
            routes.push(Route {
                id: "web",
                listen: route.address(),
                keys: state::route_keys().to_owned(),
                to: vec!["web-1", "web-2"],
            });
            entry = Some(route.address());
        }
        let ours = guard == Guard::Homeostat;
        let caged = !ours && fault == Clients::Leak;
        let Ok(cage) = caged.then(|| Cage::new(MEMORY)).transpose() else {
            return Ok(None);
        };
        if !ours {
            let policy = policy(services.first().map(|part| &part.port));
            progress(&format!(
                "  {}: baseline {:?}: {policy}{}",
                fault.what(),
                guard.name(),
                if caged {
                    ", killed by the kernel at 256 MiB"
                } else {
                    ""
                }
            ));
        }
        let parts = Parts {
            node: NODE,
            services,
            routes,
            service_config: "",
        };
        let run = Run::start(dir, &state::settings(), parts, ours)?;
        let prober = run.node.prober("web-1", Expect::NewInstance)?;
        prober.wait_up(UP_MAX)?;
        let entry = entry.context("a service has an address")?;
        interrupt::until("the route", UP_MAX, || Node::life_at(entry))?;
        Ok(Some(Self {
            guard,
            fault,
            lost: Vec::new(),
            sent: 0,
            unhealed: 0,
            load: Load::start(entry),
            prober,
            run,
            cage,
            _route: route,
        }))
    }

    fn trial(&mut self, rng: &mut fastrand::Rng) -> Result<()> {
        let answers = || self.run.node.life("web-1");
        let pid = interrupt::until("web-1", UP_MAX, answers)?.pid;
        if let Some(cage) = &self.cage {
            cage.hold(pid).context("cannot limit a service")?;
        }
        if self.fault == Clients::Descriptors {
            inject::limit_descriptors(pid, OPEN_MAX)?;
        }
        self.load.count(true);
        interrupt::pause(REST + Duration::from_millis(rng.u64(..100)))?;
        let (sent, lost) = self.load.so_far();
        let control = self.run.node.control("web-1")?;
        let at: Moment = match self.fault {
            Clients::Leak => inject::leak(&control, LEAK_RATE)?,
            Clients::Descriptors => inject::open(&control, OPEN_RATE)?,
        };
        let healed = healed(&self.prober, at, CAP)?;
        interrupt::pause(AFTER)?;
        self.load.count(false);
        let (sent_then, lost_then) = self.load.so_far();
        self.sent += sent_then - sent;
        self.lost.push((lost_then - lost) as f64);
        if healed.is_none() {
            self.unhealed += 1;
            inject::kill9(pid)?;
        }
        self.run.check()
    }
}

/// Clients that ask at their own pace, whatever comes back.
struct Load {
    stop: Arc<AtomicBool>,
    counting: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(entry: SocketAddrV4) -> Self {
        let (stop, counting) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let counts = Arc::<[AtomicU64; 2]>::default();
        let begun = Instant::now();
        let clients = (0..CLIENTS).map(|number| {
            let (stop, counting) = (Arc::clone(&stop), Arc::clone(&counting));
            let counts = Arc::clone(&counts);
            let first = begun + CLIENT_PERIOD * number / CLIENTS;
            thread::spawn(move || client(entry, first, &stop, &counting, &counts))
        });
        let threads = clients.collect();
        Self {
            stop,
            counting,
            counts,
            threads,
        }
    }

    /// Whether to ask at all: one side at a time is under load.
    fn count(&self, on: bool) {
        self.counting.store(on, Ordering::Relaxed);
    }

    /// Requests that were sent, and those that were lost.
    fn so_far(&self) -> (u64, u64) {
        let [sent, lost] = &*self.counts;
        (sent.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn client(
    entry: SocketAddrV4,
    first: Instant,
    stop: &AtomicBool,
    counting: &AtomicBool,
    [sent, lost]: &[AtomicU64; 2],
) {
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += CLIENT_PERIOD;
        if !counting.load(Ordering::Relaxed) {
            continue;
        }
        let answered = Node::life_at(entry).is_some();
        sent.fetch_add(1, Ordering::Relaxed);
        lost.fetch_add(u64::from(!answered), Ordering::Relaxed);
        // Whoever would have asked while this one hung would have hung as well; if it was
        // only this machine that was late, they ask now.
        let now = Instant::now();
        while !answered && next < now {
            next += CLIENT_PERIOD;
            sent.fetch_add(1, Ordering::Relaxed);
            lost.fetch_add(1, Ordering::Relaxed);
        }
        next = next.max(now);
    }
}
