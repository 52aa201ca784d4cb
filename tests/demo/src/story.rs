//! Breaks one thing after the other, at the times of the table, and watches each until it is
//! healed.
//!
//! Truth is the injector's clock, the outside probers and the kernel's list of processes; nothing
//! here asks an agent. With and without a healer the same is done at the same times.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use homeostat_eval::stage::{Cloud, Fleet, Life, Node, interrupt, log_tail};
use homeostat_models::{sha256_hex, vibration};
use homeostat_testbed::inject::{self, Corruption, Hog};
use homeostat_testbed::{Expect, Moment, Prober};

use crate::faults::{Fault, STORY, Scene};
use crate::show::Show;

/// A fault that takes longer is not healed.
const CAP: Duration = Duration::from_secs(10);
const LEAK_RATE: u64 = 30_000_000;
/// Far above its peers, and below what a probe waits.
const SLOW_BY: Duration = Duration::from_millis(80);
/// What an init system needs to start a process again; here the demo plays that part.
const RESTART_DELAY: Duration = Duration::from_millis(100);
/// Time in which a careless agent or spawner would have restarted what it did not start itself.
const UNTOUCHED_AFTER: Duration = Duration::from_millis(1500);
/// How long a stranger burns, and metrics stand still: twice what it takes to be sure.
const STRANGER_TIME: Duration = Duration::from_secs(6);
const FROZEN_TIME: Duration = Duration::from_secs(4);
/// How often open faults are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Pauses vary by this much, by the seed.
const JITTER_MS: u64 = 200;

/// What was seen of one fault from outside.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) scene: Scene,
    pub(crate) connected: bool,
    pub(crate) at: Moment,
    /// By this machine's wall clock, in milliseconds.
    pub(crate) injected_ms: u64,
    /// From the fault to the last right answer that ended an outage; `None` if that never came,
    /// and where nothing is to be healed.
    pub(crate) healed: Option<Duration>,
    /// Of what must touch nobody: whether all lives concerned are those from before.
    pub(crate) untouched: Option<bool>,
    /// The process that must be left alone.
    pub(crate) stranger: Option<u32>,
}

impl Seen {
    pub(crate) fn well(&self) -> bool {
        self.healed.is_some() || self.untouched == Some(true)
    }
}

/// A fault that is not over.
struct Open {
    /// Its place among what was seen.
    place: usize,
    watch: Watch,
}

enum Watch {
    /// Until a right answer ends the outage.
    Healed {
        prober: Prober,
        /// The life that must not be the one that answers.
        old: Option<Life>,
        last: Option<Moment>,
    },
    /// Until then, and all of these lives must still be there.
    Untouched { until: Instant, before: Vec<Life> },
    /// The same, for as long as the process burns.
    Burning {
        until: Instant,
        before: Vec<Life>,
        hog: Hog,
    },
}

/// What is ready before a fault, so that its moment is that of the fault alone.
struct Ready {
    scene: Scene,
    life: Option<Life>,
    prober: Option<Prober>,
}

pub(crate) struct Story<'a> {
    pub(crate) fleet: &'a mut Fleet,
    pub(crate) cloud: &'a mut Cloud,
    pub(crate) show: &'a mut Show,
    pub(crate) rng: fastrand::Rng,
    /// Without one nothing is waited for.
    pub(crate) healer: bool,
    pub(crate) bad_model: vibration::Built,
    pub(crate) seen: Vec<Seen>,
    open: Vec<Open>,
    connected: bool,
}

impl<'a> Story<'a> {
    pub(crate) fn new(
        fleet: &'a mut Fleet,
        cloud: &'a mut Cloud,
        show: &'a mut Show,
        seed: u64,
        healer: bool,
    ) -> Self {
        Self {
            fleet,
            cloud,
            show,
            rng: fastrand::Rng::with_seed(seed),
            healer,
            // The same shape, trained on mixed-up labels.
            bad_model: vibration::variant("2.0.0-by-hand", seed, 1),
            seen: Vec::new(),
            open: Vec::new(),
            connected: true,
        }
    }

    /// Plays all scenes; how long the broker was dead.
    pub(crate) fn play(&mut self) -> Result<Duration> {
        let mut due = Instant::now();
        let mut broker_died = None;
        let mut was_dead = Duration::ZERO;
        // Scenes at the same time belong together.
        for group in STORY.chunk_by(|_, next| next.after == 0) {
            let after = group.first().map_or(0, |scene| scene.after);
            due += Duration::from_millis(after + self.rng.u64(..JITTER_MS));
            self.watch_until(due)?;
            // Beyond its time only in a run that goes badly.
            self.watch_over()?;
            match group {
                [
                    Scene {
                        fault: Fault::BrokerDies,
                        ..
                    },
                ] => {
                    self.cloud.kill_broker()?;
                    self.connected = false;
                    broker_died = Some(Instant::now());
                    self.show
                        .text("\nThe broker is killed; each node is alone:");
                }
                [
                    Scene {
                        fault: Fault::BrokerReturns,
                        ..
                    },
                ] => {
                    self.cloud.start_broker()?;
                    was_dead = broker_died.map_or(Duration::ZERO, |at| at.elapsed());
                }
                group => self.break_all(group)?,
            }
        }
        self.watch_over()?;
        Ok(was_dead)
    }

    fn break_all(&mut self, group: &[Scene]) -> Result<()> {
        let mut ready = Vec::with_capacity(group.len());
        for scene in group {
            self.show
                .wait(&format!("{:<20} {}", scene.place(), scene.what));
            ready.push((*scene, self.prepare(*scene)));
        }
        for (scene, ready) in ready {
            let injected_ms = wall_ms();
            let place = self.seen.len();
            let (at, watch) = match ready.and_then(|ready| self.inject(ready)) {
                Err(error) if error.is::<interrupt::Interrupted>() => return Err(error),
                // What was broken before and not healed cannot be broken again.
                Err(error) => {
                    if self.healer {
                        self.show.line(&format!("cannot break it: {error:#}"));
                    }
                    (Moment::now(), None)
                }
                Ok(begun) => begun,
            };
            self.seen.push(Seen {
                scene,
                connected: self.connected,
                at,
                injected_ms,
                healed: None,
                untouched: None,
                stranger: match &watch {
                    Some(Watch::Burning { hog, .. }) => hog.pids().first().copied(),
                    _ => None,
                },
            });
            match watch {
                Some(watch) if self.healer || matches!(watch, Watch::Burning { .. }) => {
                    self.open.push(Open { place, watch });
                }
                _ => self
                    .show
                    .line(&format!("{:<20} {}", scene.place(), scene.what)),
            }
        }
        Ok(())
    }

    fn prepare(&self, scene: Scene) -> Result<Ready> {
        let expect = match scene.fault {
            Fault::Kill
            | Fault::Block
            | Fault::Leak
            | Fault::Hog
            | Fault::Slow
            | Fault::BadConfig => Some(Expect::NewInstance),
            Fault::CorruptModel | Fault::BadModel => Some(Node::golden()?),
            Fault::FillData | Fault::Forwarder => Some(Expect::Healthy),
            Fault::Stranger
            | Fault::FreezeMetrics
            | Fault::Agent
            | Fault::Spawner
            | Fault::BrokerDies
            | Fault::BrokerReturns => None,
        };
        let node = self.fleet.node(scene.node)?;
        let is_service = !matches!(scene.service, "" | "forwarder");
        let life = match (is_service, self.healer) {
            (true, true) => Some(self.life(node, scene.service)?),
            (true, false) => node.life(scene.service),
            (false, _) => None,
        };
        let prober = match expect.filter(|_| self.healer) {
            Some(expect) => {
                let address = match scene.fault {
                    Fault::Forwarder => self.fleet.first_route(scene.node)?,
                    _ => node.address(scene.service)?,
                };
                let prober = Prober::start(address, expect)?;
                prober.wait_up(CAP).context("a service")?;
                if immediate(scene.fault) {
                    prober.arm();
                }
                Some(prober)
            }
            None => None,
        };
        // The fast rate is to be in force before the fault is.
        interrupt::pause(Duration::from_millis(6))?;
        Ok(Ready {
            scene,
            life,
            prober,
        })
    }

    /// Breaks it, and says how its end is seen; `None` where there is none to be seen.
    fn inject(&mut self, ready: Ready) -> Result<(Moment, Option<Watch>)> {
        let Ready {
            scene,
            life,
            prober,
        } = ready;
        let service = scene.service;
        let node = self.fleet.node(scene.node)?;
        let control = || node.control(service);
        let pid = || life.as_ref().map_or(0, |life| life.pid);
        let untouched = |before, time| Watch::Untouched {
            until: Instant::now() + time,
            before,
        };
        let at = match scene.fault {
            Fault::Kill => inject::kill9(pid())?,
            Fault::Block => inject::block(&control()?)?,
            Fault::Leak => inject::leak(&control()?, LEAK_RATE)?,
            Fault::Hog => inject::spin(&control()?)?,
            Fault::Slow => inject::slow(&control()?, SLOW_BY)?,
            Fault::FillData => inject::fill_quota(&control()?)?,
            Fault::CorruptModel => {
                let file = node.slot(service).join("current/model.onnx");
                inject::corrupt_model(&file, Corruption::Weights)?
            }
            Fault::BadModel => inject::install_model(&node.slot(service), &self.bad_model)?.0,
            Fault::BadConfig => {
                inject::bad_config(&Fleet::config_file(&node.slot(service)), pid())?
            }
            Fault::Forwarder => inject::kill9(node.forwarder().context("no forwarder runs")?)?,
            Fault::FreezeMetrics => {
                let at = inject::freeze_metrics(&control()?)?;
                return Ok((at, Some(untouched(lives(node), FROZEN_TIME))));
            }
            Fault::Stranger => {
                let hog = Hog::start(1)?;
                let watch = Watch::Burning {
                    until: Instant::now() + STRANGER_TIME,
                    before: lives(node),
                    hog,
                };
                return Ok((Moment::now(), Some(watch)));
            }
            Fault::Agent | Fault::Spawner => {
                let before = lives(node);
                let healer = self.healer;
                let node = self.fleet.node_mut(scene.node)?;
                let at = if scene.fault == Fault::Spawner {
                    node.bounce_spawner(RESTART_DELAY)?
                } else if healer {
                    let at = node.kill_agent()?;
                    interrupt::pause(RESTART_DELAY)?;
                    node.start_agent()?;
                    at
                } else {
                    Moment::now()
                };
                return Ok((at, Some(untouched(before, UNTOUCHED_AFTER))));
            }
            Fault::BrokerDies | Fault::BrokerReturns => bail!("the broker is no node's"),
        };
        let watch = prober.map(|prober| Watch::Healed {
            prober,
            old: life,
            last: None,
        });
        Ok((at, watch))
    }

    fn watch_until(&mut self, due: Instant) -> Result<()> {
        loop {
            self.look()?;
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            interrupt::pause(left.min(LOOK))?;
        }
    }

    /// Gives what is not over some more time, and then up.
    fn watch_over(&mut self) -> Result<()> {
        let end = Instant::now() + CAP;
        while !self.open.is_empty() && Instant::now() < end {
            self.watch_until(Instant::now() + LOOK)?;
        }
        for open in std::mem::take(&mut self.open) {
            self.tell(open.place);
        }
        Ok(())
    }

    /// Looks at each open fault once.
    fn look(&mut self) -> Result<()> {
        let mut place = 0;
        while let Some(open) = self.open.get_mut(place) {
            let Some(seen) = self.seen.get_mut(open.place) else {
                place += 1;
                continue;
            };
            let node = self.fleet.node(seen.scene.node)?;
            if !open.watch.over(seen, node)? {
                place += 1;
                continue;
            }
            let done = self.open.remove(place);
            self.tell(done.place);
        }
        Ok(())
    }

    fn tell(&mut self, place: usize) {
        let Some(seen) = self.seen.get(place) else {
            return;
        };
        let outcome = match (seen.healed, seen.untouched) {
            (Some(time), _) => format!("healed after {:.0} ms", ms(time)),
            (None, Some(true)) => "nobody was touched".to_owned(),
            (None, Some(false)) => "A SERVICE WAS TOUCHED".to_owned(),
            (None, None) => "NOT HEALED".to_owned(),
        };
        let scene = seen.scene;
        self.show.line(&format!(
            "{:<20} {:<36} {outcome}",
            scene.place(),
            scene.what
        ));
        if self.healer
            && !seen.well()
            && let Ok(node) = self.fleet.node(scene.node)
        {
            let tail = log_tail(node.dir(), "agent");
            self.show
                .text(&format!("the end of the agent's log:\n{tail}"));
        }
    }

    fn life(&self, node: &Node, name: &str) -> Result<Life> {
        interrupt::until(name, CAP, || node.life(name))
    }
}

impl Watch {
    /// Whether it is over, with what was seen of it.
    fn over(&mut self, seen: &mut Seen, node: &Node) -> Result<bool> {
        match self {
            Self::Healed { prober, old, last } => {
                let slow = !immediate(seen.scene.fault);
                // Each look at a prober arms it; what takes seconds is asked at its slow rate.
                let patience = if slow { Duration::ZERO } else { LOOK };
                if let Ok(healed) = prober.wait_healed(last.unwrap_or(seen.at), patience) {
                    *last = Some(healed.healed_at);
                }
                let Some(at) = *last else {
                    return Ok(false);
                };
                let name = seen.scene.service;
                let over = match seen.scene.fault {
                    Fault::CorruptModel | Fault::BadModel => intact(node, name),
                    Fault::FillData | Fault::Forwarder => true,
                    _ => node
                        .life(name)
                        .is_some_and(|life| Some(&life) != old.as_ref()),
                };
                if over {
                    seen.healed = Some(at - seen.at);
                }
                Ok(over)
            }
            Self::Untouched { until, before } => {
                if Instant::now() < *until {
                    return Ok(false);
                }
                seen.untouched = Some(lives(node) == *before);
                if seen.scene.fault == Fault::FreezeMetrics {
                    inject::unfreeze_metrics(&node.control(seen.scene.service)?)?;
                }
                Ok(true)
            }
            Self::Burning { until, before, hog } => {
                if Instant::now() < *until {
                    return Ok(false);
                }
                let lives_on = hog.pids().iter().all(|pid| running(*pid));
                seen.untouched = Some(lives_on && lives(node) == *before);
                Ok(true)
            }
        }
    }
}

/// Whether its healing is a matter of milliseconds, for a prober that is worth a core.
fn immediate(fault: Fault) -> bool {
    !matches!(fault, Fault::Leak | Fault::Hog | Fault::Slow)
}

/// The services of a node that answer, forwarder included.
fn lives(node: &Node) -> Vec<Life> {
    let mut lives: Vec<Life> = node.lives().into_iter().flatten().collect();
    lives.extend(node.forwarder().map(|pid| Life {
        instance: "forwarder".to_owned(),
        pid,
    }));
    lives
}

/// Whether a process is there and no zombie.
fn running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Whether the model in place is the shipped one.
fn intact(node: &Node, name: &str) -> bool {
    let file = node.slot(name).join("current/model.onnx");
    std::fs::read(file)
        .is_ok_and(|bytes| sha256_hex(&bytes).starts_with(homeostat_eval::stage::MODEL_VERSION))
}

/// Waits until the coordinator shows all nodes with all services well.
pub(crate) fn wait_healthy(cloud: &Cloud, fleet: &Fleet) -> Result<()> {
    let api = cloud.api();
    let healthy = || {
        let known = api.fleet().ok()?;
        let well = |node: &Node| {
            let seen = known.nodes.iter().find(|seen| seen.node == node.id())?;
            let well = seen
                .services
                .iter()
                .filter(|service| matches!(service.state.as_str(), "healthy" | "standby"));
            // One more than its own: the forwarder.
            (well.count() == node.names().len() + 1).then_some(())
        };
        fleet
            .nodes()
            .iter()
            .all(|node| well(node).is_some())
            .then_some(())
    };
    let waited = interrupt::until("the coordinator to see all services healthy", CAP, healthy);
    waited.with_context(|| {
        let tail = |node: &Node| format!("--- {}\n{}", node.id(), log_tail(node.dir(), "agent"));
        fleet.nodes().iter().map(tail).collect::<String>()
    })
}

pub(crate) fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
