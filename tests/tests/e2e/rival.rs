//! A second healer on the same node, with processes of its own: it kills a service of ours and
//! serves the port itself. The agent has to stop, say why, and come back when it is gone.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_eval::stage::Node;
use homeostat_testbed::inject;

use crate::rig::{PROGRAM, eager, life, log, rest, scene, until};

/// The other healer: for as long as it lives, the port is served by a process of its own.
struct Rival(Child);

impl Rival {
    /// Kills whoever serves and starts its own, as often as it takes.
    fn take(node: &Node, name: &str) -> Result<Self> {
        let mut spec = node.spec(name)?;
        spec.control = None;
        for _ in 0..50 {
            if let Some(life) = node.life(name) {
                // It may have ended meanwhile, by itself.
                let _ = inject::kill9(life.pid);
            }
            let mut own = Command::new(PROGRAM)
                .args(spec.args())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            rest(Duration::from_millis(150));
            if own.try_wait()?.is_none() {
                return Ok(Self(own));
            }
        }
        anyhow::bail!("the other healer never got the port")
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn count(node: &Node, words: &str) -> usize {
    log(node).matches(words).count()
}

#[test]
fn a_second_healer_that_serves_the_port_itself_is_left_alone_until_it_is_gone() {
    scene(|dir| {
        let mut settings = eager(&["web", "worker"], "");
        let pace = "restart = { burst = 3, within = \"30s\", backoff_min = \"200ms\" }";
        settings.sections = settings
            .sections
            .lines()
            .map(|line| match line {
                line if line.starts_with("restart =") => pace,
                line if line.starts_with("contest =") => {
                    "contest = { count = 2, within = \"30m\", hold = \"6s\" }"
                }
                line => line,
            })
            .collect::<Vec<_>>()
            .join("\n");
        let mut node = Node::start(dir, &settings, None, None)?;
        let (ours, worker) = (life(&node, "web")?, life(&node, "worker")?);
        let rival = Rival::take(&node, "web")?;
        until("the alarm", || {
            (count(&node, "alarm web-contested raised") > 0).then_some(())
        })?;
        let text = log(&node);
        let told = text.lines().find(|line| line.contains("web-contested"));
        let told = told.context("the alarm is in the log")?;
        ensure!(told.contains("was not started here"), "{told}");
        // Two turns and no more: nothing is started while the other one holds the port.
        let starts = count(&node, "web is starting");
        rest(Duration::from_secs(2));
        ensure!(count(&node, "web is starting") == starts, "it goes on");
        ensure!(
            life(&node, "worker")? == worker,
            "the other service was touched"
        );
        let other = rival.0.id();
        drop(rival);
        let back = until("our web", || {
            node.life("web").filter(|life| life.pid != other)
        })?;
        ensure!(back.pid != ours.pid, "{back:?}");
        until("the end of the alarm", || {
            (count(&node, "alarm web-contested cleared") > 0).then_some(())
        })?;
        node.check()
    });
}
