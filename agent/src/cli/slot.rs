//! `homeostat-agent slot`: shows slots, and gives them candidates.
//!
//! A running agent is asked over its control socket, so that one process changes
//! a slot; without one the same code runs here, under the slot's lock. Never
//! switches a slot under a running service: that is a plan, and passes the gate.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use homeostat_common::ids::ServiceId;

use super::request;
use crate::config::{self, Config};
use crate::io::keeper::chain;
use crate::io::shell::control_path;
use crate::io::shell::question::{ANSWER_TIME, SlotQuestion, Wish};
use crate::io::slots::{Candidate, Name, Slot, Version};

/// What is wanted of a slot.
#[derive(Debug, Subcommand)]
pub(super) enum SlotCommand {
    /// Show the versions in the slots: in place, good, staged.
    Ls {
        /// Only those of this service.
        service: Option<ServiceId>,
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
    },
    /// Put the first version into a slot.
    Install(Gift),
    /// Verify a candidate and copy it beside the version in place; prints its
    /// version.
    Stage(Gift),
}

#[derive(Debug, Args)]
pub(super) struct Gift {
    /// Whose slot.
    service: ServiceId,
    /// Which slot: model or config.
    slot: Name,
    /// The model, or the configuration file.
    file: PathBuf,
    /// The model's manifest; default manifest.toml beside it.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, default_value = "/etc/homeostat/agent.toml")]
    config: PathBuf,
}

impl SlotCommand {
    pub(super) fn config(&self) -> &PathBuf {
        match self {
            Self::Ls { config, .. } => config,
            Self::Install(gift) | Self::Stage(gift) => &gift.config,
        }
    }

    pub(super) fn run(&self, config: &Config) -> anyhow::Result<()> {
        match self {
            Self::Ls { service, .. } => list(config, service.as_ref()),
            Self::Install(gift) => give(config, gift, Wish::Install),
            Self::Stage(gift) => give(config, gift, Wish::Stage),
        }
    }
}

fn list(config: &Config, only: Option<&ServiceId>) -> anyhow::Result<()> {
    if let Some(id) = only {
        known(config, id)?;
    }
    let services = config.services.iter();
    for service in services.filter(|service| only.is_none_or(|id| *id == service.id)) {
        for name in Name::ALL {
            if let Some(slot) = Slot::of(service, name, &config.node.data_dir) {
                print!("{}", described(&service.id, &slot));
            }
        }
    }
    Ok(())
}

/// A line for each version.
fn described(service: &ServiceId, slot: &Slot) -> String {
    let start = format!("{service}  {}", slot.name());
    let found = match slot.check() {
        Ok(found) => found,
        Err(error) => return format!("{start}  {}\n", chain(&error)),
    };
    let mut versions: Vec<Version> = found.present.into_iter().collect();
    versions.extend(found.good.iter().chain(&found.staged));
    let mut text = String::new();
    if found.present.is_none() {
        text.push_str(&format!("{start}  nothing readable in place\n"));
    }
    for (at, version) in versions.iter().enumerate() {
        if versions.iter().take(at).any(|shown| shown == version) {
            continue;
        }
        let mut states = Vec::new();
        if found.present == Some(*version) {
            states.push("in place".to_owned());
            if let Some(named) = found.named.filter(|named| named != version) {
                states.push(format!("changed there, was {named}"));
            }
        }
        if found.good.contains(version) {
            states.push("good".into());
        }
        if found.staged == Some(*version) {
            states.push("staged".into());
        }
        text.push_str(&format!("{start}  {version}  {}\n", states.join(", ")));
    }
    text
}

fn give(config: &Config, gift: &Gift, wish: Wish) -> anyhow::Result<()> {
    let slot = Slot::of(
        known(config, &gift.service)?,
        gift.slot,
        &config.node.data_dir,
    )
    .with_context(|| format!("{} has no [service.{}]", gift.service, gift.slot))?;
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
    };
    let candidate = Candidate {
        file: absolute(&gift.file)?,
        manifest: gift.manifest.as_ref().map(absolute).transpose()?,
    };
    let version = match UnixStream::connect(control_path(&config.node.run_dir)) {
        Ok(agent) => ask(
            agent,
            &SlotQuestion {
                wish,
                service: gift.service.clone(),
                slot: gift.slot,
                candidate,
            },
        )?,
        Err(_) => {
            as_the_agent(config)?;
            match wish {
                Wish::Stage => slot.stage(&candidate)?,
                Wish::Install => slot.install(&candidate)?,
            }
        }
    };
    println!("{version}");
    Ok(())
}

/// What root makes here, the agent could not change.
fn as_the_agent(config: &Config) -> anyhow::Result<()> {
    if let Some(user) = &config.node.agent_user
        && user != "root"
        && rustix::process::geteuid().is_root()
    {
        bail!("no agent runs: run this as {user}, to whom the slots belong (runuser -u {user} --)");
    }
    Ok(())
}

fn ask(agent: UnixStream, question: &SlotQuestion) -> anyhow::Result<Version> {
    // The agent gives up first, and says why.
    let limit = ANSWER_TIME + Duration::from_secs(2);
    let answer = request::answer(agent, &serde_json::to_vec(question)?, limit)
        .context("the agent does not answer")?;
    ensure!(!answer.is_empty(), "the agent does not answer");
    let answer: Result<Version, String> =
        serde_json::from_str(&answer).context("the agent answers something else")?;
    answer.map_err(|why| anyhow::anyhow!("the agent: {why}"))
}

fn known<'c>(config: &'c Config, id: &ServiceId) -> anyhow::Result<&'c config::Service> {
    config
        .service(id)
        .with_context(|| format!("there is no service {id}"))
}
