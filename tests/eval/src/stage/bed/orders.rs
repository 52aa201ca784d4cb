//! Plans that a person orders on the nodes of a bed: the command line of the agent.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Bed;
use crate::stage::interrupt;
use crate::stage::role::{Role, program};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How an order ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Whether it was carried out.
    pub well: bool,
    pub took: Duration,
    /// What the agent said.
    pub said: String,
}

impl Bed {
    /// Orders a plan on a node and follows it to its end, for no longer than this.
    ///
    /// # Errors
    /// When the agent cannot be asked.
    pub fn order(&self, node: &str, plan: &str, most: Duration) -> Result<Done> {
        let begun = Instant::now();
        let config = self.node(node)?.config().to_owned();
        let said = tempfile::tempfile().context("cannot make a file")?;
        let again = said.try_clone().context("cannot share a file")?;
        let mut child = Command::new(program().context("cannot find the own program")?)
            .arg(Role::Agent.arg())
            .arg(std::process::id().to_string())
            .args(["do", plan, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(said.try_clone().context("cannot share a file")?)
            .stderr(again)
            .spawn()
            .context("cannot ask the agent")?;
        let well = loop {
            if let Some(status) = child.try_wait().context("cannot wait for the order")? {
                break status.success();
            }
            if begun.elapsed() >= most || interrupt::check().is_err() {
                let _ = child.kill();
                let _ = child.wait();
                interrupt::check()?;
                break false;
            }
            std::thread::sleep(LOOK);
        };
        let took = begun.elapsed();
        use std::io::{Read as _, Seek as _};
        let (mut file, mut text) = (said, String::new());
        file.rewind().context("cannot read what was said")?;
        file.take(16_384)
            .read_to_string(&mut text)
            .context("cannot read what was said")?;
        Ok(Done {
            well,
            took,
            said: text,
        })
    }
}
