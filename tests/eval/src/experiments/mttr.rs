//! Time to recover, from the fault to the first right answer of a new instance, as an outside
//! prober sees it; Homeostat beside a plain supervisor in the same run.
//!
//! Trials of all subjects alternate, so that a busy minute of the machine hits them alike.
//! What did not heal within the cap counts with the cap.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use homeostat_testbed::supervisor::Liveness;
use homeostat_testbed::{
    Expect, Kind, Moment, Port, Prober, ServiceSpec, Supervisor, SupervisorPolicy, inject, ports,
};

use super::{eager, healed, ms, progress};
use crate::result::{Report, Row};
use crate::stage::{Node, Settings, interrupt};
use crate::stats::{Estimate, P99_SAMPLES_MIN, share};

const PERIOD: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(50);
const MISSES: u32 = 2;
/// Bytes a second: the limit of 256 MiB is 9 s away.
const LEAK_RATE: u64 = 30_000_000;

/// Which faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    Kill,
    Block,
    Leak,
    All,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[arg(long, value_enum, default_value = "all")]
    pub fault: Which,
    /// Trials of each fault; if not given 200 kills, 50 blocks, 10 leaks.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub n: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Block,
    Leak,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Block => "block",
            Self::Leak => "leak",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Block => "blocked loop",
            Self::Leak => "leak of 30 MB/s",
        }
    }

    fn trials(self, asked: Option<u32>) -> u32 {
        asked.unwrap_or(match self {
            Self::Kill => 200,
            Self::Block => 50,
            Self::Leak => 10,
        })
    }

    /// A trial that takes longer counts with this.
    fn cap(self) -> Duration {
        match self {
            Self::Kill | Self::Block => Duration::from_secs(5),
            Self::Leak => Duration::from_secs(20),
        }
    }

    /// Healthy time before a trial: long enough that the healer knows the service, with a
    /// random share, so that faults fall everywhere between two probes.
    fn rest(self, rng: &mut fastrand::Rng) -> Duration {
        let fixed = match self {
            Self::Kill | Self::Block => 300,
            // Growth is not judged in the first 3 s of a life.
            Self::Leak => 3500,
        };
        Duration::from_millis(fixed) + PERIOD.mul_f64(rng.f64())
    }

    /// Goals in milliseconds for median and p95.
    fn goals(self) -> [Option<f64>; 2] {
        match self {
            Self::Kill => [Some(5.0), Some(30.0)],
            Self::Block => [None, Some(300.0)],
            Self::Leak => [None, None],
        }
    }

    fn inject(self, subject: &Subject) -> Result<Moment> {
        Ok(match self {
            Self::Kill => inject::kill9(subject.pid()?)?,
            Self::Block => inject::block(&subject.spec.control.clone().unwrap_or_default())?,
            Self::Leak => {
                inject::leak(&subject.spec.control.clone().unwrap_or_default(), LEAK_RATE)?
            }
        })
    }
}

/// A service and whoever heals it.
#[derive(Debug)]
struct Subject {
    name: String,
    spec: ServiceSpec,
    prober: Prober,
    /// Trials beyond this are left out: a cap is as long as ever.
    trials_max: u32,
    times: Vec<f64>,
    unhealed: usize,
    _supervisor: Option<(Supervisor, Port)>,
}

impl Subject {
    fn supervised(
        fault: Fault,
        delay: Duration,
        name: &str,
        dir: &std::path::Path,
    ) -> Result<Self> {
        let port = ports(1)?
            .into_iter()
            .next()
            .context("a port was asked for")?;
        let liveness = (fault == Fault::Block).then(|| Liveness {
            address: port.address().into(),
            period: PERIOD,
            timeout: TIMEOUT,
            misses: MISSES,
        });
        let policy = SupervisorPolicy { delay, liveness };
        let spec = ServiceSpec {
            kind: Kind::Web,
            port: port.number(),
            control: Some(dir.join(format!("{}-{}.control", fault.name(), delay.as_millis()))),
            die_with_parent: true,
        };
        let program = std::env::current_exe().context("cannot find the own program")?;
        let supervisor = Supervisor::start(program, spec.args(), policy)?;
        let prober = Prober::start(port.address(), Expect::NewInstance)?;
        progress(&format!("  baseline {name:?}: {policy}"));
        Ok(Self {
            name: name.to_owned(),
            spec,
            prober,
            // Nothing but a limit of the kernel would end a leak there.
            trials_max: if fault == Fault::Leak { 1 } else { u32::MAX },
            times: Vec::new(),
            unhealed: 0,
            _supervisor: Some((supervisor, port)),
        })
    }

    fn pid(&self) -> Result<u32> {
        let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, self.spec.port);
        let life = || Node::life_at(address);
        Ok(interrupt::until(&self.name, Duration::from_secs(30), life)?.pid)
    }

    fn trial(&mut self, fault: Fault, rng: &mut fastrand::Rng) -> Result<()> {
        let pid = self.pid()?;
        interrupt::pause(fault.rest(rng))?;
        self.prober.arm();
        // The fast rate is to be in force before the fault is.
        interrupt::pause(Duration::from_millis(6))?;
        let at = fault.inject(self)?;
        match healed(&self.prober, at, fault.cap())? {
            Some(healed) => self.times.push(ms(healed.healed_at - at)),
            None => {
                self.times.push(ms(fault.cap()));
                self.unhealed += 1;
                let _ = inject::kill9(pid);
            }
        }
        Ok(())
    }

    fn quantile(&self, q: f64, seed: u64) -> Option<Estimate> {
        Estimate::quantile(&self.times, q, seed)
    }
}

/// The settings of the node, which are printed and hashed.
fn settings() -> Settings {
    eager(&["web"])
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let settings = settings();
    let faults: Vec<Fault> = match args.fault {
        Which::Kill => vec![Fault::Kill],
        Which::Block => vec![Fault::Block],
        Which::Leak => vec![Fault::Leak],
        Which::All => vec![Fault::Kill, Fault::Block, Fault::Leak],
    };
    let text = format!("{}\n# {args:?}, leak {LEAK_RATE} bytes/s", settings.text());
    let mut report = Report::new("mttr", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    for fault in faults {
        let rows = measure(fault, fault.trials(args.n), &settings, seed)?;
        report.rows.extend(rows);
    }
    report.finish(begun.elapsed());
    Ok(report)
}

fn measure(fault: Fault, n: u32, settings: &Settings, seed: u64) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("hs-mttr").tempdir()?;
    progress(&format!("{}: {n} trials", fault.what()));
    let mut node = Node::start(dir.path(), settings, None, None)?;
    let mut subjects = vec![Subject {
        name: "Homeostat".to_owned(),
        spec: node.spec("web")?,
        prober: node.prober("web", Expect::NewInstance)?,
        trials_max: u32::MAX,
        times: Vec::new(),
        unhealed: 0,
        _supervisor: None,
    }];
    let delayed = "supervisor, 100 ms";
    subjects.push(Subject::supervised(
        fault,
        Duration::from_millis(100),
        delayed,
        dir.path(),
    )?);
    let at_once = "supervisor, 0 ms";
    if fault != Fault::Leak {
        subjects.push(Subject::supervised(
            fault,
            Duration::ZERO,
            at_once,
            dir.path(),
        )?);
    }
    for subject in &subjects {
        subject.prober.wait_up(Duration::from_secs(30))?;
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    for trial in 0..n {
        for subject in &mut subjects {
            if trial < subject.trials_max {
                subject.trial(fault, &mut rng)?;
            }
        }
        node.check()?;
        if (trial + 1) % 50 == 0 && trial + 1 < n {
            progress(&format!("  {} of {n}", trial + 1));
        }
    }
    Ok(rows(fault, &subjects, &respawn(dir.path())?, seed))
}

/// How long a service takes from exec to its first answer, in milliseconds.
fn respawn(dir: &std::path::Path) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for round in 0..10 {
        let port = ports(1)?
            .into_iter()
            .next()
            .context("a port was asked for")?;
        let spec = ServiceSpec {
            kind: Kind::Web,
            port: port.number(),
            control: Some(dir.join(format!("respawn-{round}.control"))),
            die_with_parent: true,
        };
        let program: PathBuf = std::env::current_exe().context("cannot find the own program")?;
        let prober = Prober::start(port.address(), Expect::NewInstance)?;
        prober.arm();
        interrupt::pause(Duration::from_millis(6))?;
        let start = Moment::now();
        let policy = SupervisorPolicy {
            delay: Duration::ZERO,
            liveness: None,
        };
        let supervisor = Supervisor::start(program, spec.args(), policy)?;
        times.push(ms(prober.wait_up(Duration::from_secs(10))?.at - start));
        supervisor.stop();
    }
    Ok(times)
}

fn rows(fault: Fault, subjects: &[Subject], respawn: &[f64], seed: u64) -> Vec<Row> {
    let Some((ours, others)) = subjects.split_first() else {
        return Vec::new();
    };
    let name = fault.name();
    let n = ours.times.len();
    let baseline = others.first();
    let mut rows = Vec::new();
    let mut quantiles = vec![
        ("median", 0.5, fault.goals()[0]),
        ("p95", 0.95, fault.goals()[1]),
    ];
    if n >= P99_SAMPLES_MIN {
        quantiles.push(("p99", 0.99, None));
    }
    quantiles.push(("worst", 1.0, None));
    for (label, q, goal) in quantiles {
        let Some(estimate) = ours.quantile(q, seed) else {
            continue;
        };
        let id = format!("mttr.{name}.{label}_ms");
        let what = format!("{}: {label}", fault.what());
        let mut row = Row::new(&id, &what, "ms", estimate);
        if let Some(baseline) = baseline {
            let value = baseline.quantile(q, seed).map(|estimate| estimate.value);
            row = row.against(
                value,
                &format!("{}, n {}", baseline.name, baseline.times.len()),
            );
        }
        rows.push(goal.map_or(row.clone(), |goal| row.goal(goal)));
    }
    let id = format!("mttr.{name}.recovered");
    let what = format!(
        "{}: healed within {} s",
        fault.what(),
        fault.cap().as_secs()
    );
    let mut row = Row::new(&id, &what, "share", share(n - ours.unhealed, n)).higher();
    if let Some(baseline) = baseline {
        let tried = baseline.times.len();
        let value = share(tried - baseline.unhealed, tried).value;
        row = row.against(Some(value), &format!("{}, n {tried}", baseline.name));
    }
    rows.push(row.goal(1.0));
    let median = ours.quantile(0.5, seed);
    let at_once = others.get(1).and_then(|other| other.quantile(0.5, seed));
    if let (Some(median), Some(at_once)) = (median, at_once) {
        let id = format!("mttr.{name}.over_at_once");
        let what = format!("{}: median over that of a restart at once", fault.what());
        let row = Row::new(&id, &what, "ratio", median.scaled(1.0 / at_once.value));
        rows.push(row.against(Some(1.0), &format!("{:.1} ms", at_once.value)));
    }
    let respawn = Estimate::quantile(respawn, 0.5, seed).map_or(0.0, |respawn| respawn.value);
    if let (Fault::Block, Some(median)) = (fault, median) {
        let floor = ms(PERIOD) * f64::from(MISSES - 1) + ms(TIMEOUT) + ms(PERIOD) / 2.0 + respawn;
        let id = "mttr.block.over_floor";
        let what = "blocked loop: median over (K-1)P + T + P/2 + respawn";
        let row = Row::new(id, what, "ratio", median.scaled(1.0 / floor));
        rows.push(row.against(Some(1.0), &format!("{floor:.0} ms, respawn {respawn:.1}")));
    }
    rows
}
