//! One fault, one node that heals, and its twin: the same services in folders of the same
//! kind, run by a plain supervisor.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_models::vibration::Built;
use homeostat_testbed::{Moment, Port, Prober, Supervisor, SupervisorPolicy};

use super::super::{ms, progress};
use super::rows::{self, Measured};
use super::state::{self, State};
use crate::result::Row;
use crate::stage::{Node, Parts, Settings, interrupt, role};
use crate::stats::Estimate;

/// What is right for this long has healed; a request that came to grief by chance just before
/// the fault showed is no healing.
const STEADY: Duration = Duration::from_millis(500);
/// How long a side may take to come up.
const UP_MAX: Duration = Duration::from_secs(30);
/// Between requests of a client that does not try again.
const DRIP: Duration = Duration::from_millis(20);
/// A side that has not healed so often never does.
const NEVER: usize = 3;

/// How the plain supervisor restarts.
pub(super) fn policy(port: Option<&Port>) -> SupervisorPolicy {
    SupervisorPolicy {
        liveness: port.map(state::liveness),
        ..SupervisorPolicy::default()
    }
}

/// The services of a node, and whoever runs them.
#[derive(Debug)]
pub(in super::super) struct Run {
    // Ended in this order.
    _supervisors: Vec<Supervisor>,
    pub(in super::super) node: Node,
}

impl Run {
    pub(in super::super) fn start(
        dir: &Path,
        settings: &Settings,
        parts: Parts,
        ours: bool,
    ) -> Result<Self> {
        let policies: Vec<(&str, SupervisorPolicy)> = parts
            .services
            .iter()
            .map(|part| (part.name, policy(Some(&part.port))))
            .collect();
        let routed = !parts.routes.is_empty();
        let mut node = Node::lay_out(dir, settings, parts)?;
        let mut supervisors = Vec::new();
        if ours {
            node.launch()?;
        } else {
            let program = role::program().context("cannot find the own program")?;
            for (name, policy) in policies {
                let args = node.spec(name)?.args();
                supervisors.push(Supervisor::start(&program, args, policy)?);
            }
            if routed {
                let args = node.forwarder_args();
                supervisors.push(Supervisor::start(&program, args, policy(None))?);
            }
        }
        Ok(Self {
            _supervisors: supervisors,
            node,
        })
    }

    /// Whether all that should run still does.
    pub(in super::super) fn check(&mut self) -> Result<()> {
        self.node.check()
    }
}

/// One side of a measurement.
struct Side {
    fault: State,
    ours: bool,
    measured: Measured,
    /// Requests that a client without patience lost, of each trial.
    lost: Vec<f64>,
    // Ended in this order.
    probers: Vec<Prober>,
    run: Run,
    route: Port,
}

/// Times of `fault` on both sides.
pub(super) fn measure(fault: State, n: u32, seed: u64) -> Result<Vec<Row>> {
    let named = fault.named();
    let dir = tempfile::Builder::new().prefix("hs-mttr").tempdir()?;
    progress(&format!("{}: {n} trials", named.what));
    let bad = state::bad_model();
    let never = NEVER.min(n.div_ceil(20) as usize);
    let policy = policy(Some(&state::port()?));
    progress(&format!("  {}: baseline: {policy}", named.what));
    let mut sides = [
        Side::start(fault, true, &dir.path().join("ours-0"))?,
        Side::start(fault, false, &dir.path().join("twin-0"))?,
    ];
    let mut rng = fastrand::Rng::with_seed(seed);
    for trial in 1..=n {
        for side in &mut sides {
            if !side.ours && side.measured.never_heals(never) {
                continue;
            }
            let healed = side.trial(&bad, &mut rng)?;
            let done = trial == n || (!side.ours && side.measured.never_heals(never));
            if !healed && !done {
                // What is broken for good would spoil the next trial.
                let name = if side.ours { "ours" } else { "twin" };
                side.renew(&dir.path().join(format!("{name}-{trial}")))?;
            }
        }
        if trial % 10 == 0 && trial < n {
            progress(&format!("  {}: {trial} of {n}", named.what));
        }
    }
    let [ours, twin] = &sides;
    let mut rows = rows::rows(named, &ours.measured, &twin.measured, seed);
    if fault == State::ForwarderKill {
        let median = |side: &Side| Estimate::quantile(&side.lost, 0.5, seed);
        if let Some(lost) = median(ours) {
            let what = format!(
                "{}: requests lost of one each {} ms, median",
                named.what,
                DRIP.as_millis()
            );
            let row = Row::new("mttr.forwarder_kill.lost", &what, "requests", lost);
            let twin_lost = median(twin).map(|lost| lost.value);
            rows.push(row.against(twin_lost, &twin.measured.name));
        }
    }
    Ok(rows)
}

impl Side {
    fn start(fault: State, ours: bool, dir: &Path) -> Result<Self> {
        let route = state::port()?;
        let mut parts = fault.parts(dir)?;
        parts.routes.extend(fault.routed(&route));
        let run = Run::start(dir, &state::settings(), parts, ours)?;
        let probers = fault.probers(&run.node, &route)?;
        for prober in &probers {
            prober.wait_up(UP_MAX)?;
        }
        let name = if ours {
            "Homeostat"
        } else {
            "supervisor, 100 ms"
        };
        Ok(Self {
            fault,
            ours,
            measured: Measured::new(name),
            lost: Vec::new(),
            probers,
            run,
            route,
        })
    }

    /// All processes and folders anew.
    fn renew(&mut self, dir: &Path) -> Result<()> {
        let fresh = Self::start(self.fault, self.ours, dir)?;
        let old = std::mem::replace(self, fresh);
        self.measured = old.measured;
        self.lost = old.lost;
        Ok(())
    }

    /// Whether it healed.
    fn trial(&mut self, bad: &Built, rng: &mut fastrand::Rng) -> Result<bool> {
        let cap = self.fault.named().cap;
        let well = || self.probers.iter().all(is_well).then_some(());
        interrupt::until(self.fault.named().what, UP_MAX, well)?;
        interrupt::pause(self.fault.rest() + Duration::from_millis(rng.u64(..100)))?;
        let drip = (self.fault == State::ForwarderKill).then(|| Drip::start(&self.route));
        if drip.is_some() {
            // Milliseconds count, so the fast rate is to be in force before.
            self.probers.iter().for_each(Prober::arm);
            interrupt::pause(2 * DRIP)?;
        }
        let at = self.fault.strike(&self.run.node, bad)?;
        let healed = healed(&self.probers, at, cap)?;
        self.probers.iter().for_each(Prober::disarm);
        if let Some(drip) = drip {
            self.lost.push(f64::from(drip.stop()));
        }
        self.measured.add(healed.map(|healed| ms(healed - at)), cap);
        self.run.check()?;
        Ok(healed.is_some())
    }
}

fn is_well(prober: &Prober) -> bool {
    let seen = prober.seen();
    seen.first_up.is_some() && seen.down_since.is_none()
}

/// When the last of `probers` had what it expects, and all went on having it.
fn healed(probers: &[Prober], at: Moment, cap: Duration) -> Result<Option<Moment>> {
    let end = Instant::now() + cap + STEADY;
    loop {
        let each: Option<Vec<Moment>> = probers.iter().map(|it| last_healed(it, at)).collect();
        let last = each.and_then(|each| each.into_iter().max());
        if let Some(last) = last
            && probers.iter().all(is_well)
            && Moment::now() - last >= STEADY
        {
            return Ok((last - at <= cap).then_some(last));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        interrupt::pause(Duration::from_millis(5))?;
    }
}

/// The end of the last incident after `at`.
fn last_healed(prober: &Prober, at: Moment) -> Option<Moment> {
    let mut last = None;
    while let Some(healed) = prober.healed_since(last.unwrap_or(at)) {
        last = Some(healed.healed_at);
    }
    last
}

/// A client that asks again and again, and takes no for an answer.
struct Drip {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Drip {
    fn start(route: &Port) -> Self {
        let (stop, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let (end, count, address) = (Arc::clone(&stop), Arc::clone(&lost), route.address());
        let thread = thread::spawn(move || {
            let mut next = Instant::now();
            while !end.load(Ordering::Relaxed) {
                if Node::life_at(address).is_none() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                next += DRIP;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { stop, lost, thread }
    }

    /// How many requests were lost.
    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.lost.load(Ordering::Relaxed)
    }
}
