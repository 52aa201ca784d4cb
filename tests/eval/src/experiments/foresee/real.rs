//! Two replicas behind a route whose program leaks, and clients that take no for an answer.
//!
//! Three nodes side by side: an agent, the same agent that only tells of what it foresees, and
//! a plain supervisor. The memory limit is kept by this experiment for all three alike: who
//! takes more than [`KILL`] is killed, as the kernel would do it, because control groups are
//! not to be had everywhere. Each life leaks from its first answer on; one replica faster than
//! the other, so that their ends fall apart.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use homeostat_testbed::{Kind, Port, inject};

use super::super::mttr::{Run, port, settings};
use super::super::progress;
use crate::result::Row;
use crate::stage::{Life, Node, Parts, Route, Settings, interrupt};
use crate::stats::share;

/// Replicas, with what each leaks in a second. Too slow for the detector of leaks, which wants
/// 32 MB within 8 s.
const REPLICAS: [(&str, u64); 2] = [("web-1", 1_500_000), ("web-2", 1_200_000)];

/// Bytes that are the end; the agent's limit is 2 MiB above, so that nobody comes first.
const KILL: u64 = 254 << 20;

/// How often each replica is looked at: 30 kB at its rate.
const LOOK: Duration = Duration::from_millis(20);

/// How long an answer takes, so that some are always under way. Below what a replica may be
/// slower than its peers.
const TAKES: Duration = Duration::from_millis(15);

/// Clients, each of which asks again this long after an answer.
const CLIENTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(5);

const UP_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Foresight,
    Reactive,
    Supervisor,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Foresight => "foresight",
            Self::Reactive => "reactive",
            Self::Supervisor => "supervisor",
        }
    }

    fn settings(self) -> Settings {
        let mut settings = settings();
        let act = self == Self::Foresight;
        settings.sections += &format!("\n[foresee]\nact = {act}");
        settings
    }
}

/// What was fixed before the run.
pub(super) fn text() -> String {
    format!(
        "{}\n# {REPLICAS:?} bytes/s, killed at {KILL}, answers in {TAKES:?}, {CLIENTS} clients, \
         pause {PAUSE:?}",
        Side::Foresight.settings().text()
    )
}

/// What came of one side.
#[derive(Debug, Default)]
struct Outcome {
    asked: usize,
    lost: usize,
    /// Lives that took more than they may.
    breaches: usize,
    /// Lives that ended otherwise.
    spared: usize,
}

pub(super) fn measure(seconds: u32, _seed: u64) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("hs-foresee").tempdir()?;
    let span = Duration::from_secs(seconds.into());
    progress(&format!("real leaks: {seconds} s on each of three nodes"));
    let sides = [Side::Foresight, Side::Reactive, Side::Supervisor];
    // A thread owns the processes that it starts: they end with it.
    let results = thread::scope(|scope| {
        let running: Vec<_> = sides
            .into_iter()
            .map(|side| {
                let dir = dir.path().join(side.name());
                scope.spawn(move || one(side, &dir, span))
            })
            .collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended.collect::<Vec<_>>()
    });
    let mut outcomes = Vec::new();
    for result in results {
        outcomes.push(result.map_err(|_| anyhow!("a measurement panicked"))??);
    }
    let [ours, reactive, supervisor] = &outcomes[..] else {
        return Err(anyhow!("three sides were measured"));
    };
    let per_million = |outcome: &Outcome| share(outcome.lost, outcome.asked).scaled(1e6);
    let lives = ours.breaches + ours.spared;
    let lost = Row::new(
        "foresee.real.lost",
        &format!("real leaks: requests lost, of {}", ours.asked),
        "of 10^6",
        per_million(ours),
    );
    let by_hand = |id: &str, name: &str, outcome: &Outcome| {
        Row::new(
            id,
            &format!(
                "{name}: requests lost, of {}; {} lives over the limit",
                outcome.asked, outcome.breaches
            ),
            "of 10^6",
            per_million(outcome),
        )
    };
    let mut rows = vec![
        lost.against(
            Some(per_million(reactive).value),
            "the same agent that only tells",
        ),
        by_hand(
            "foresee.real.lost_reactive",
            "the same agent that only tells",
            reactive,
        ),
        by_hand(
            "foresee.real.lost_supervisor",
            "a supervisor, 100 ms",
            supervisor,
        ),
    ];
    // A short run sees none.
    if lives > 0 {
        let what = format!(
            "real leaks: lives ended before the limit, {} were not",
            ours.breaches
        );
        let cleared = share(ours.spared, lives);
        let without = share(reactive.spared, reactive.breaches + reactive.spared).value;
        let row = Row::new("foresee.real.cleared", &what, "share", cleared).higher();
        rows.push(row.against(
            Some(without).filter(|share| share.is_finite()),
            "the same agent that only tells",
        ));
    }
    Ok(rows)
}

fn one(side: Side, dir: &Path, span: Duration) -> Result<Outcome> {
    let listen = port()?;
    let mut services = Vec::new();
    for (name, _) in REPLICAS {
        services.push(super::super::mttr::part(name, Kind::Web, port()?));
    }
    let parts = Parts {
        node: side.name(),
        services,
        routes: vec![Route {
            id: "web",
            listen: listen.address(),
            keys: super::super::mttr::route_keys().to_owned(),
            to: REPLICAS.map(|(name, _)| name).to_vec(),
        }],
        service_config: "",
    };
    let mut run = Run::start(dir, &side.settings(), parts, side != Side::Supervisor)?;
    for (name, _) in REPLICAS {
        interrupt::until(name, UP_MAX, || run.node.life(name))?;
    }
    interrupt::until("route", UP_MAX, || Node::life_at(listen.address()))?;
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::start(&listen)).collect();
    let mut outcome = Outcome::default();
    let mut lives: [Option<Life>; REPLICAS.len()] = Default::default();
    let mut killed: [bool; REPLICAS.len()] = Default::default();
    let end = Instant::now() + span;
    let mut asked = Instant::now();
    while Instant::now() < end {
        interrupt::pause(LOOK)?;
        let ask = asked.elapsed() >= 5 * LOOK;
        if ask {
            asked = Instant::now();
        }
        for (((name, rate), known), killed) in REPLICAS.into_iter().zip(&mut lives).zip(&mut killed)
        {
            if ask
                && let Some(now) = run.node.life(name)
                && known.as_ref() != Some(&now)
            {
                if known.is_some() && !*killed {
                    outcome.spared += 1;
                }
                *killed = false;
                let control = run.node.control(name)?;
                inject::slow(&control, TAKES)?;
                inject::leak(&control, rate)?;
                *known = Some(now);
            }
            if let Some(life) = known
                && !*killed
                && resident(life.pid).is_some_and(|bytes| bytes >= KILL)
            {
                inject::kill9(life.pid)?;
                *killed = true;
                outcome.breaches += 1;
            }
        }
        run.check()?;
    }
    for client in clients {
        let (asked, lost) = client.stop();
        outcome.asked += asked;
        outcome.lost += lost;
    }
    progress(&format!("  {}: {outcome:?}", side.name()));
    Ok(outcome)
}

/// Resident bytes of a process.
fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Asks again and again, and never twice for the same.
struct Client {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    lost: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Client {
    fn start(route: &Port) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (asked, lost) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let address: SocketAddrV4 = route.address();
        let (end, all, bad) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&lost));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                all.fetch_add(1, Ordering::Relaxed);
                if Node::life_at(address).is_none() {
                    bad.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(PAUSE);
            }
        });
        Self {
            stop,
            asked,
            lost,
            thread,
        }
    }

    /// How many requests there were, and how many were lost.
    fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let count = |of: &AtomicU32| usize::try_from(of.load(Ordering::Relaxed)).unwrap_or(0);
        (count(&self.asked), count(&self.lost))
    }
}
