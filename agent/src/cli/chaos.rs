//! `homeostat-agent chaos FAULT SERVICE`: a fault on purpose.
//!
//! Says what would be done; with `--yes` asks the running agent for it. The agent judges and
//! the spawner does it and ends it, whatever becomes of this command.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use homeostat_common::ids::ServiceId;
use homeostat_common::units::Millis;

use super::request;
use crate::chaos::{Injection, Wish, forbidden};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "\
Faults: kill, block, sigstop, leak, oom, data-full, corrupt-model, bad-config, descriptors, hog; \
or `end` for the end of the one that is in force. `leak`, `oom` and `hog` are done by processes \
beside the service in its group, which it has if it has a memory_limit.

Refused: without `chaos = true` in the service's configuration, for a protected service, while an \
incident is open or another fault in force, and whenever the agent could not \
restart the service by itself: because its mode is not `act`, it holds back, or has too little left.")]
pub(super) struct ChaosArgs {
    /// Which fault, or `end`.
    fault: String,
    /// Into which service.
    service: Option<ServiceId>,
    /// For how long at most, from 1s to 5m.
    #[arg(long = "for", value_name = "SPAN", default_value = "30s", value_parser = span)]
    span: Millis,
    /// Do it.
    #[arg(long)]
    yes: bool,
    /// The configuration file.
    #[arg(long, default_value = "/etc/homeostat/agent.toml")]
    pub(super) config: PathBuf,
}

fn span(text: &str) -> Result<Millis, String> {
    Millis::parse(text).map_err(|error| error.to_string())
}

pub(super) fn run(config: &Config, args: &ChaosArgs) -> anyhow::Result<()> {
    let question = if args.fault == "end" {
        "mend".to_owned()
    } else {
        let injection: Injection = args.fault.parse()?;
        let service = args.service.as_ref().context("into which service?")?;
        let known = config
            .service(service)
            .with_context(|| format!("there is no service {service}"))?;
        if !args.yes {
            let limit = if injection.lasts() {
                format!(", for {} at most", args.span)
            } else {
                String::new()
            };
            println!("{injection} of {service}{limit}: {}", injection.what());
            match forbidden(config.limits.mode, known) {
                Err(why) => println!("it would be refused: {why}"),
                Ok(()) => println!("the running agent would be asked, which may refuse it"),
            }
            bail!("nothing was done; say --yes to do it");
        }
        Wish::question(service, injection, args.span)
    };
    let answer = request::ask(config, &question)?;
    let answer: Result<String, String> =
        serde_json::from_str(&answer).context("cannot read the agent's answer")?;
    match answer {
        Ok(done) => println!("{done}"),
        Err(why) => bail!("refused: {why}"),
    }
    Ok(())
}
