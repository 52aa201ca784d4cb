//! How soon a death is noticed: from `kill -9` to the moment at which the loop's own connection
//! to the spawner says so, alone and apart from the healing that follows.
//!
//! A real spawner owns the service; its process is told to this program as to the loop, over
//! the same socket, with the same pidfd, in the same kind of runtime. The kill comes from
//! another thread while that one sleeps. Beside it a bare `poll` of a pidfd in the same run:
//! no program can know earlier.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use homeostat_agent::io::spawner::client::{Client, Event};
use homeostat_common::ids::{Instance, ServiceId};
use homeostat_common::units::Millis;
use homeostat_testbed::{Moment, inject};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::ms;
use super::plain::settings;
use crate::result::Row;
use crate::stage::{Node, interrupt};
use crate::stats::{Estimate, P99_SAMPLES_MIN};

/// Milliseconds.
const GOAL: f64 = 1.0;
/// Whoever waits has gone to sleep by then.
const ASLEEP: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn measure(dir: &Path, n: u32, seed: u64) -> Result<Vec<Row>> {
    let mut node = Node::start(&dir.join("noticed"), &settings(), None, None)?;
    // This program takes the loop's place.
    node.stop_agent();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let web = ServiceId::new("web").context("the service has a name")?;
    let run_dir = node.dir().join("run");
    let (client, slots) = runtime
        .block_on(Client::connect_within(&run_dir, Millis::secs(10)))
        .context("cannot reach the spawner")?;
    let life = slots.iter().find(|slot| slot.service == web);
    let life = life
        .and_then(|slot| slot.live)
        .context("web does not run")?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut watch = Watch { client, web, life };
    for trial in 0..n {
        let pause = ASLEEP + Duration::from_micros(rng.u64(..5000));
        let took = runtime.block_on(watch.trial(pause));
        ours.push(ms(took.with_context(|| format!("trial {trial}"))?));
        bare.push(ms(poll_alone(pause)?));
        interrupt::check()?;
    }
    drop(watch);
    node.check()?;
    Ok(rows(&ours, &bare, seed))
}

fn rows(ours: &[f64], bare: &[f64], seed: u64) -> Vec<Row> {
    let mut quantiles = vec![("median", 0.5, true), ("p95", 0.95, true)];
    if ours.len() >= P99_SAMPLES_MIN {
        quantiles.push(("p99", 0.99, false));
    }
    quantiles.push(("worst", 1.0, false));
    let each = quantiles.into_iter().filter_map(|(label, q, goal)| {
        let own = Estimate::quantile(ours, q, seed)?;
        let other = Estimate::quantile(bare, q, seed).map(|other| other.value);
        let id = format!("mttr.kill.noticed_{label}_ms");
        let what = format!("kill -9: until the loop knows, {label}");
        let row = Row::new(&id, &what, "ms", own).against(other, "poll of a pidfd and no more");
        Some(if goal { row.goal(GOAL) } else { row })
    });
    each.collect()
}

struct Watch {
    client: Client,
    web: ServiceId,
    life: (Instance, u32),
}

impl Watch {
    async fn trial(&mut self, pause: Duration) -> Result<Duration> {
        let (instance, pid) = self.life;
        let killed = kill_after(pause, pid);
        let (mut died, mut next) = (None, None);
        while next.is_none() {
            let event = tokio::time::timeout(PATIENCE, self.client.next()).await;
            let now = Moment::now();
            match event.context("the spawner says nothing")?? {
                Event::Died { instance: gone, .. } if gone == instance => died = Some(now),
                // The spawner says how it died, which comes later; it has to be buried before
                // the next one can come.
                Event::Exited { instance: gone, .. } if gone == instance => {
                    self.client.start(&self.web).await?;
                }
                Event::Started { instance, pid, .. } => next = Some((instance, pid)),
                _ => {}
            }
        }
        self.life = next.context("it was started")?;
        let at = killed.recv().context("nobody was killed")??;
        Ok(died.context("nobody died")?.since(at))
    }
}

fn kill_after(pause: Duration, pid: u32) -> mpsc::Receiver<Result<Moment>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        thread::sleep(pause);
        let _ = sender.send(inject::kill9(pid).map_err(anyhow::Error::from));
    });
    receiver
}

/// The same of a child of this program, without any agent.
fn poll_alone(pause: Duration) -> Result<Duration> {
    let mut child = Command::new("/bin/sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .context("cannot run /bin/sleep")?;
    let pidfd: OwnedFd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let killed = kill_after(pause, child.id());
    rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None)?;
    let died = Moment::now();
    child.wait().context("cannot bury it")?;
    Ok(died.since(killed.recv().context("nobody was killed")??))
}
