//! Breaks one thing after the other, and waits each time until it is healed.
//!
//! Truth is the injector's clock and the outside prober; nothing here asks the agent.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use homeostat_eval::stage::{Cloud, Life, Node, interrupt, log_tail};
use homeostat_testbed::inject::{self, Corruption};
use homeostat_testbed::{Expect, Moment, Prober};

use crate::faults::{Fault, Scene};
use crate::show::Show;

/// The hold that the agent is configured with, so that a demo need not wait a minute between
/// two healings of a service.
pub(crate) const HOLD: Duration = Duration::from_secs(2);
/// Beyond the hold: the agent has probed the new life and closed the incident.
const SETTLE: Duration = Duration::from_millis(300);
/// A fault that takes longer is not healed.
const CAP: Duration = Duration::from_secs(20);
/// A leak is judged once a life is this old.
const LEAK_AGE: Duration = Duration::from_secs(4);
const LEAK_RATE: u64 = 30_000_000;
/// What an init system needs to start the agent again; here the demo plays that part.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// What was seen of one fault from outside.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) scene: Scene,
    /// By this machine's wall clock, in milliseconds.
    pub(crate) injected_ms: u64,
    /// From the fault to the last right answer that ended an outage; `None` if that never
    /// came, and for the agent, whom no user asks.
    pub(crate) healed: Option<Duration>,
    /// Of the agent's own death: whether each service is the same process as before.
    pub(crate) untouched: Option<bool>,
}

pub(crate) struct Story<'a> {
    pub(crate) node: &'a mut Node,
    pub(crate) show: &'a mut Show,
    pub(crate) rng: fastrand::Rng,
    pub(crate) probers: Probers,
    pub(crate) seen: Vec<Seen>,
    /// No service is older than this.
    pub(crate) born: Instant,
}

/// One per service, each asking what users of it ask.
pub(crate) struct Probers {
    web: Prober,
    worker: Prober,
    infer: Prober,
}

impl Probers {
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let probers = Self {
            web: node.prober("web", Expect::NewInstance)?,
            worker: node.prober("worker", Expect::NewInstance)?,
            infer: node.prober("infer", Node::golden()?)?,
        };
        for name in ["web", "worker", "infer"] {
            probers.of(name).wait_up(CAP).context("a service")?;
        }
        Ok(probers)
    }

    fn of(&self, name: &str) -> &Prober {
        match name {
            "web" => &self.web,
            "worker" => &self.worker,
            _ => &self.infer,
        }
    }
}

impl Story<'_> {
    /// Injects one fault and follows it to its end.
    pub(crate) fn play(&mut self, scene: Scene) -> Result<()> {
        self.node.check()?;
        let phase = Duration::from_millis(self.rng.u64(..150));
        self.rest(phase)?;
        if let Fault::Leak(_) = scene.fault {
            let age = self.born.elapsed();
            self.rest(LEAK_AGE.saturating_sub(age))?;
        }
        self.show.wait(scene.what);
        let seen = match scene.service() {
            None => self.kill_agent(scene)?,
            Some(name) => self.break_service(scene, name)?,
        };
        let outcome = match (seen.healed, seen.untouched) {
            (Some(time), _) => format!("right answers again after {:.1} ms", ms(time)),
            (None, Some(true)) => "all services untouched".to_owned(),
            (None, Some(false)) => "A SERVICE WAS TOUCHED".to_owned(),
            (None, None) => format!("NOT HEALED within {} s", CAP.as_secs()),
        };
        self.show.line(&format!("{:<36} {outcome}", scene.what));
        let healed = seen.healed.is_some() || seen.untouched == Some(true);
        self.seen.push(seen);
        if !healed {
            let tail = log_tail(self.node.dir(), "agent");
            self.show
                .text(&format!("the end of the agent's log:\n{tail}"));
        }
        // So that no healing waits for the hold of the one before.
        self.show.wait("hold");
        let hold = match scene.fault {
            // A process that died is started again at once, whatever was before, and the
            // agent's own restart holds nothing.
            Fault::Kill(_) | Fault::Agent => SETTLE,
            Fault::Block(_) | Fault::Leak(_) | Fault::Corrupt => HOLD + SETTLE,
        };
        self.rest(hold)
    }

    fn break_service(&mut self, scene: Scene, name: &'static str) -> Result<Seen> {
        let life = self.life(name)?;
        let prober = self.probers.of(name);
        prober.arm();
        // The fast rate is to be in force before the fault is.
        interrupt::pause(Duration::from_millis(6))?;
        let injected_ms = wall_ms();
        let at = match scene.fault {
            Fault::Kill(_) => inject::kill9(life.pid)?,
            Fault::Block(_) => inject::block(&self.node.control(name)?)?,
            Fault::Leak(_) => inject::leak(&self.node.control(name)?, LEAK_RATE)?,
            Fault::Corrupt => inject::corrupt_model(&self.node.model(), Corruption::Weights)?,
            Fault::Agent => bail!("the agent is no service"),
        };
        let healed = self.healed(name, scene.fault, &life, at)?;
        Ok(Seen {
            scene,
            injected_ms,
            healed: healed.map(|healed| healed - at),
            untouched: None,
        })
    }

    /// The right answer that ended the last outage of this fault. A model that is put back
    /// answers rightly before its service is restarted, so for that one the restart counts.
    fn healed(&self, name: &str, fault: Fault, old: &Life, at: Moment) -> Result<Option<Moment>> {
        let prober = self.probers.of(name);
        let end = Instant::now() + CAP;
        let mut last = None;
        while Instant::now() < end {
            interrupt::check()?;
            let since = last.unwrap_or(at);
            if let Ok(healed) = prober.wait_healed(since, Duration::from_millis(100)) {
                last = Some(healed.healed_at);
                if fault != Fault::Corrupt || healed.new_instance != old.instance {
                    break;
                }
            }
        }
        let right = fault != Fault::Corrupt || self.node.model_intact();
        let other = self.life(name)?.instance != old.instance;
        Ok(last.filter(|_| right && other))
    }

    fn kill_agent(&mut self, scene: Scene) -> Result<Seen> {
        let before = self.node.lives();
        let injected_ms = wall_ms();
        self.node.kill_agent()?;
        interrupt::pause(RESTART_DELAY)?;
        self.node.start_agent()?;
        // Long enough for a careless agent to have restarted what it did not start itself.
        interrupt::pause(Duration::from_millis(1500))?;
        self.node.check()?;
        let after = self.node.lives();
        Ok(Seen {
            scene,
            injected_ms,
            healed: None,
            untouched: Some(before == after && before.iter().all(Option::is_some)),
        })
    }

    fn life(&self, name: &str) -> Result<Life> {
        let answers = || self.node.life(name);
        let life = interrupt::until(name, CAP, answers);
        life.with_context(|| log_tail(self.node.dir(), "agent"))
    }

    fn rest(&self, time: Duration) -> Result<()> {
        Ok(interrupt::pause(time)?)
    }
}

/// Waits until the coordinator shows the node online with all services healthy.
pub(crate) fn wait_healthy(cloud: &Cloud, services: usize) -> Result<()> {
    let api = cloud.api();
    let healthy = || {
        let fleet = api.fleet().ok()?;
        let node = fleet.nodes.first()?;
        let well = node
            .services
            .iter()
            .filter(|service| service.state == "healthy");
        (well.count() == services).then_some(())
    };
    interrupt::until("the coordinator to see all services healthy", CAP, healthy)
}

pub(crate) fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
