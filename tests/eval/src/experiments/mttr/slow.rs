//! One of two replicas behind a route answers later than it did.
//!
//! A load goes through the route all the time. The fault is over at the beginning of the first
//! 5 s in which the load's p95 is below twice what it was before, and no earlier than the slow
//! process was replaced by another.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use homeostat_testbed::load::Histogram;
use homeostat_testbed::{Answers, Expect, Kind, Load, LoadSpec, Moment, Port, Prober, inject};

use super::super::{ms, progress};
use super::rows::{self, Measured, Named};
use super::stand::{Run, policy};
use super::state;
use crate::result::Row;
use crate::stage::{MODEL_VERSION, NODE, Node, Parts, Route, interrupt, log_tail};
use crate::stats::Estimate;

const WINDOW: Duration = Duration::from_secs(5);
/// How often the load is looked at: the resolution of the result.
const LOOK: Duration = Duration::from_millis(250);
/// Requests a second: 200 in a window, of which ten are beyond its p95.
const RATE: f64 = 40.0;
const SLOW_BY: Duration = Duration::from_millis(80);
/// Before each fault, after the window in which the one before was found healed.
const REST: Duration = Duration::from_millis(2000);
const CAP: Duration = Duration::from_secs(20);
const UP_MAX: Duration = Duration::from_secs(30);
const LATE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(2);

const NAMED: Named = Named {
    id: "slow_replica",
    what: "slow replica",
    cap: CAP,
    goals: [None, Some(10_000.0)],
};

struct Side {
    measured: Measured,
    lost: Vec<f64>,
    /// States of the load's histogram, each [`LOOK`], as far back as a window.
    looks: VecDeque<(Moment, Histogram)>,
    // Ended in this order.
    load: Load,
    slow: Prober,
    run: Run,
    _route: Port,
}

pub(super) fn measure(n: u32, seed: u64) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("hs-mttr").tempdir()?;
    progress(&format!(
        "{}: {n} trials, {} ms more",
        NAMED.what,
        SLOW_BY.as_millis()
    ));
    let mut ours = Side::start("Homeostat", &dir.path().join("ours"), true, seed)?;
    let mut twin = None;
    let mut rng = fastrand::Rng::with_seed(seed);
    for trial in 1..=n {
        if !ours.trial(&mut rng)? {
            progress(&format!("  {}: trial {trial} was not healed", NAMED.what));
            let fresh = Side::start("", &dir.path().join(format!("ours-{trial}")), true, seed)?;
            ours = Side {
                measured: ours.measured,
                lost: ours.lost,
                ..fresh
            };
        }
        if twin.is_none() {
            // Once is enough where nothing reads times.
            let mut side =
                Side::start("supervisor, 100 ms", &dir.path().join("twin"), false, seed)?;
            side.trial(&mut rng)?;
            twin = Some((side.measured, side.lost));
        }
        if trial % 10 == 0 && trial < n {
            progress(&format!("  {}: {trial} of {n}", NAMED.what));
        }
    }
    let (twin, twin_lost) = twin.context("the baseline was measured")?;
    let mut rows = rows::rows(NAMED, &ours.measured, &twin, seed);
    if let Some(lost) = Estimate::quantile(&ours.lost, 0.5, seed) {
        let what = format!("{}: requests lost in a trial, median", NAMED.what);
        let row = Row::new("mttr.slow_replica.lost", &what, "requests", lost);
        rows.push(row.against(twin_lost.first().copied(), &twin.name));
    }
    Ok(rows)
}

impl Side {
    fn start(name: &str, dir: &Path, ours: bool, seed: u64) -> Result<Self> {
        let route = state::port()?;
        let (parts, entry) = parts(dir, &route)?;
        if !ours {
            let policy = policy(parts.services.first().map(|part| &part.port));
            progress(&format!("  {}: baseline: {policy}", NAMED.what));
        }
        let run = Run::start(dir, &state::settings(), parts, ours)?;
        let slow = run.node.prober("infer-1", Expect::NewInstance)?;
        slow.wait_up(UP_MAX)?;
        let golden = Node::goldens()?;
        let spec = LoadSpec {
            target: entry,
            rate: RATE,
            seed,
            late: LATE,
            deadline: DEADLINE,
            rows: golden.vectors.iter().map(|it| it.input.clone()).collect(),
        };
        let answers = Answers::default();
        answers.insert(MODEL_VERSION, golden);
        Ok(Self {
            measured: Measured::new(name),
            lost: Vec::new(),
            looks: VecDeque::new(),
            load: Load::start(spec, answers)?,
            slow,
            run,
            _route: route,
        })
    }

    /// Whether it healed.
    fn trial(&mut self, rng: &mut fastrand::Rng) -> Result<bool> {
        let rested = Instant::now() + REST + Duration::from_millis(rng.u64(..100));
        let latest = Instant::now() + UP_MAX;
        let before = loop {
            self.look()?;
            match self.p95() {
                Some(before) if Instant::now() >= rested => break before,
                None if Instant::now() >= latest => {
                    let tail = log_tail(self.run.node.dir(), "agent");
                    bail!("no request is answered before the fault:\n{tail}");
                }
                _ => {}
            }
        };
        let lost = self.load.so_far().lost();
        let at = inject::slow(&self.run.node.control("infer-1")?, SLOW_BY)?;
        let end = Instant::now() + CAP + WINDOW;
        let healed = loop {
            self.look()?;
            let begin = self.looks.front().map(|(moment, _)| *moment);
            let replaced = self.slow.healed_since(at).map(|healed| healed.healed_at);
            if let (Some(begin), Some(replaced), Some(now)) = (begin, replaced, self.p95())
                && begin >= at
                && now < 2 * before
            {
                break Some(begin.max(replaced) - at).filter(|took| *took <= CAP);
            }
            if Instant::now() >= end {
                break None;
            }
        };
        self.measured.add(healed.map(ms), CAP);
        let lost = self.load.so_far().lost() - lost;
        self.lost
            .push(f64::from(u32::try_from(lost).unwrap_or(u32::MAX)));
        self.run.check()?;
        Ok(healed.is_some())
    }

    fn look(&mut self) -> Result<()> {
        interrupt::pause(LOOK)?;
        let now = Moment::now();
        self.looks.push_back((now, self.load.so_far().latency));
        // The first is the last that is at least a window old.
        while self.looks.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.looks.pop_front();
        }
        Ok(())
    }

    /// Of the newest window.
    fn p95(&self) -> Option<Duration> {
        let ((from, old), (to, new)) = (self.looks.front()?, self.looks.back()?);
        (*to - *from >= WINDOW).then(|| new.since(old).percentile(95.0))?
    }
}

/// A gateway with all that it calls, two replicas of the model behind a route among them.
fn parts(dir: &Path, route: &Port) -> Result<(Parts, std::net::SocketAddr)> {
    let home = Node::home(dir);
    let (preprocess, postprocess, store) = (state::port()?, state::port()?, state::port()?);
    let gateway = state::port()?;
    let entry = gateway.address().into();
    let config = home.join("service.toml");
    let services = vec![
        state::part(
            "preprocess",
            Kind::Preprocess {
                config,
                cache: None,
            },
            preprocess,
        ),
        state::infer(&home, "infer-1", state::port()?)?,
        state::infer(&home, "infer-2", state::port()?)?,
        state::part(
            "store",
            Kind::Store {
                dir: home.join("answers"),
                quota: 1 << 30,
            },
            store,
        ),
    ];
    let address = |name: &str| {
        let part = services.iter().find(|part| part.name == name);
        part.map(|part| part.port.address().into())
            .context("a part")
    };
    let kind = Kind::Postprocess {
        store: address("store")?,
        publisher: None,
    };
    let calls = Kind::Gateway {
        preprocess: address("preprocess")?,
        infer: route.address().into(),
        postprocess: postprocess.address().into(),
    };
    let mut services = services;
    services.push(state::part("postprocess", kind, postprocess));
    services.push(state::part("gateway", calls, gateway));
    let routes = vec![Route {
        id: "infer",
        listen: route.address(),
        keys: format!("first_byte = \"200ms\"\n{}", state::route_keys()),
        to: vec!["infer-1", "infer-2"],
    }];
    Ok((
        Parts {
            node: NODE,
            services,
            routes,
            service_config: "scale = 1.0\noffset = 0.0\n",
        },
        entry,
    ))
}
