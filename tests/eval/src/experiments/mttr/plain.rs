//! Faults of one service that needs nothing but a new life: kills, blocked loops, SIGSTOP,
//! and what it takes and does not give back, memory and descriptors.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use homeostat_testbed::supervisor::Liveness;
use homeostat_testbed::{
    Cage, Expect, Kind, Moment, Port, Prober, ServiceSpec, Supervisor, SupervisorPolicy, inject,
    ports,
};

use super::super::{eager, healed, ms, progress};
use super::rows::{self, Measured, Named};
use crate::result::Row;
use crate::stage::{Node, Settings, interrupt};
use crate::stats::{Estimate, share};

const PERIOD: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_millis(25);
const MISSES: u32 = 2;
/// Bytes a second: the limit of 256 MiB is 9 s away.
pub(super) const LEAK_RATE: u64 = 30_000_000;
/// Bytes a second: the limit is there before anybody can look twice.
const BURST_RATE: u64 = 1_500_000_000;
/// What a service may take: that of the node's configuration.
const MEMORY: u64 = 256 << 20;
/// Descriptors a second, and how many there may be: they last for 6 s.
pub(super) const OPEN_RATE: u64 = 40;
pub(super) const OPEN_MAX: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Kill,
    Block,
    Sigstop,
    Leak,
    Oom,
    Descriptors,
}

impl Plain {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Block => "block",
            Self::Sigstop => "sigstop",
            Self::Leak => "leak",
            Self::Oom => "oom",
            Self::Descriptors => "descriptors",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Block => "blocked loop",
            Self::Sigstop => "SIGSTOP",
            Self::Leak => "leak of 30 MB/s",
            Self::Oom => "out of memory in its group",
            Self::Descriptors => "leak of 40 descriptors/s",
        }
    }

    /// A trial that takes longer counts with this.
    fn cap(self) -> Duration {
        match self {
            Self::Kill | Self::Block | Self::Sigstop | Self::Oom => Duration::from_secs(5),
            Self::Leak | Self::Descriptors => Duration::from_secs(20),
        }
    }

    /// Healthy time before a trial: long enough that the healer knows the service, with a
    /// random share, so that faults fall everywhere between two probes.
    fn rest(self, rng: &mut fastrand::Rng) -> Duration {
        let fixed = match self {
            Self::Kill | Self::Block | Self::Sigstop | Self::Oom => 300,
            // Growth is not judged in the first 3 s of a life.
            Self::Leak | Self::Descriptors => 3500,
        };
        Duration::from_millis(fixed) + PERIOD.mul_f64(rng.f64())
    }

    /// Goals in milliseconds for median and p95.
    fn goals(self) -> [Option<f64>; 2] {
        match self {
            Self::Kill => [Some(2.0), Some(10.0)],
            Self::Block | Self::Sigstop => [None, Some(130.0)],
            Self::Leak | Self::Oom | Self::Descriptors => [None, None],
        }
    }

    fn inject(self, subject: &Subject) -> Result<Moment> {
        let control = subject.spec.control.clone().unwrap_or_default();
        Ok(match self {
            Self::Kill => inject::kill9(subject.pid()?)?,
            Self::Block => inject::block(&control)?,
            Self::Sigstop => inject::stop(subject.pid()?)?,
            Self::Leak => inject::leak(&control, LEAK_RATE)?,
            Self::Oom => inject::leak(&control, BURST_RATE)?,
            Self::Descriptors => inject::open(&control, OPEN_RATE)?,
        })
    }

    /// Whether a plain supervisor has to ask, as its service does not die of it.
    fn asks(self) -> bool {
        matches!(self, Self::Block | Self::Sigstop | Self::Descriptors)
    }

    /// Whether the kernel is to end it at a limit.
    fn caged(self) -> bool {
        matches!(self, Self::Leak | Self::Oom)
    }
}

/// A service and whoever heals it.
#[derive(Debug)]
struct Subject {
    measured: Measured,
    spec: ServiceSpec,
    prober: Prober,
    /// Trials beyond this are left out: a cap is as long as ever.
    trials_max: u32,
    // Ended in this order.
    _supervisor: Option<(Supervisor, Port)>,
    cage: Option<Cage>,
}

impl Subject {
    fn supervised(
        fault: Plain,
        delay: Duration,
        name: &str,
        dir: &std::path::Path,
    ) -> Result<Self> {
        let port = ports(1)?
            .into_iter()
            .next()
            .context("a port was asked for")?;
        let liveness = fault.asks().then(|| Liveness {
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
        let cage = fault.caged().then(|| Cage::new(MEMORY)).transpose();
        let limit = match &cage {
            Ok(None) => String::new(),
            Ok(Some(_)) => format!(", killed by the kernel at {} MiB", MEMORY >> 20),
            Err(error) => format!(", no limit of memory ({error})"),
        };
        let cage = cage.unwrap_or_default();
        progress(&format!("  baseline {name:?}: {policy}{limit}"));
        Ok(Self {
            measured: Measured::new(name),
            spec,
            prober,
            // Nothing but a limit of the kernel would end a leak there.
            trials_max: if fault.caged() && cage.is_none() {
                1
            } else {
                u32::MAX
            },
            cage,
            _supervisor: Some((supervisor, port)),
        })
    }

    fn pid(&self) -> Result<u32> {
        let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, self.spec.port);
        let life = || Node::life_at(address);
        Ok(interrupt::until(&self.measured.name, Duration::from_secs(30), life)?.pid)
    }

    fn trial(&mut self, fault: Plain, rng: &mut fastrand::Rng) -> Result<()> {
        let pid = self.pid()?;
        if let Some(cage) = &self.cage {
            cage.hold(pid).context("cannot limit a service")?;
        }
        if fault == Plain::Descriptors {
            inject::limit_descriptors(pid, OPEN_MAX)?;
        }
        interrupt::pause(fault.rest(rng))?;
        self.prober.arm();
        // The fast rate is to be in force before the fault is.
        interrupt::pause(Duration::from_millis(6))?;
        let at = fault.inject(self)?;
        let healed = healed(&self.prober, at, fault.cap())?;
        if healed.is_none() {
            let _ = inject::kill9(pid);
        }
        let took = healed.map(|healed| ms(healed.healed_at - at));
        self.measured.add(took, fault.cap());
        Ok(())
    }
}

/// The settings of the node, which are printed and hashed.
pub(super) fn settings() -> Settings {
    Settings {
        probe: format!(
            "period = \"{}ms\"\ntimeout = \"{}ms\"\nmisses = {MISSES}",
            PERIOD.as_millis(),
            TIMEOUT.as_millis()
        ),
        ..eager(&["web"])
    }
}

pub(super) fn measure(fault: Plain, n: u32, seed: u64) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("hs-mttr").tempdir()?;
    progress(&format!("{}: {n} trials", fault.what()));
    let mut node = Node::start(dir.path(), &settings(), None, None)?;
    let mut subjects = vec![Subject {
        measured: Measured::new("Homeostat"),
        spec: node.spec("web")?,
        prober: node.prober("web", Expect::NewInstance)?,
        trials_max: u32::MAX,
        _supervisor: None,
        cage: None,
    }];
    let delayed = "supervisor, 100 ms";
    subjects.push(Subject::supervised(
        fault,
        Duration::from_millis(100),
        delayed,
        dir.path(),
    )?);
    let at_once = "supervisor, 0 ms";
    if !matches!(fault, Plain::Leak | Plain::Descriptors) {
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
            progress(&format!("  {}: {} of {n}", fault.what(), trial + 1));
        }
    }
    let mut rows = all_rows(fault, &subjects, &respawn(dir.path())?, seed);
    if fault == Plain::Kill {
        // The node of the trials is gone by then.
        drop((subjects, node));
        rows.extend(super::noticed::measure(dir.path(), n, seed)?);
        return Ok(rows);
    }
    if fault == Plain::Oom {
        let (told, all) = told_why(&node)?;
        let what = format!("{}: incidents that say so", fault.what());
        let row = Row::new("mttr.oom.attributed", &what, "share", share(told, all));
        rows.push(row.higher().goal(1.0));
    }
    Ok(rows)
}

/// Of how many incidents the agent says that the kernel killed for memory, and of how many not.
fn told_why(node: &Node) -> Result<(usize, usize)> {
    let socket = node.dir().join("run/agent.sock");
    let explain = |question: &str| -> Result<String> {
        let mut agent = UnixStream::connect(&socket).context("the agent does not answer")?;
        agent.set_read_timeout(Some(Duration::from_secs(10)))?;
        agent.write_all(question.as_bytes())?;
        agent.shutdown(std::net::Shutdown::Write)?;
        let mut text = String::new();
        agent.read_to_string(&mut text)?;
        Ok(text)
    };
    let (mut told, mut all) = (0, 0);
    let list = explain("")?;
    let opened = list.lines().filter(|line| line.contains("believed to be"));
    for line in opened {
        let number = line
            .split_once("  incident ")
            .and_then(|(_, rest)| rest.split_once(':'));
        let Some((number, _)) = number else { continue };
        all += 1;
        told += usize::from(explain(number)?.contains("by the kernel for memory"));
    }
    Ok((told, all))
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

fn all_rows(fault: Plain, subjects: &[Subject], respawn: &[f64], seed: u64) -> Vec<Row> {
    let mut sides = subjects.iter().map(|subject| &subject.measured);
    let (Some(ours), Some(baseline), at_once) = (sides.next(), sides.next(), sides.next()) else {
        return Vec::new();
    };
    let name = fault.name();
    let named = Named {
        id: name,
        what: fault.what(),
        cap: fault.cap(),
        goals: fault.goals(),
    };
    let mut rows = rows::rows(named, ours, baseline, seed);
    let median = ours.quantile(0.5, seed);
    let at_once = at_once.and_then(|other| other.quantile(0.5, seed));
    if let (Some(median), Some(at_once)) = (median, at_once) {
        let id = format!("mttr.{name}.over_at_once");
        let what = format!("{}: median over that of a restart at once", fault.what());
        let row = Row::new(&id, &what, "ratio", median.scaled(1.0 / at_once.value));
        rows.push(row.against(Some(1.0), &format!("{:.1} ms", at_once.value)));
    }
    let respawn = Estimate::quantile(respawn, 0.5, seed).map_or(0.0, |respawn| respawn.value);
    if let (Plain::Block, Some(median)) = (fault, median) {
        let floor = ms(PERIOD) * f64::from(MISSES - 1) + ms(TIMEOUT) + ms(PERIOD) / 2.0 + respawn;
        let id = "mttr.block.over_floor";
        let what = "blocked loop: median over (K-1)P + T + P/2 + respawn";
        let row = Row::new(id, what, "ratio", median.scaled(1.0 / floor));
        rows.push(row.against(Some(1.0), &format!("{floor:.0} ms, respawn {respawn:.1}")));
    }
    rows
}
