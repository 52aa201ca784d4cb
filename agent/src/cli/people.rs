//! What a person orders of a running agent: approvals, maintenance, silences, the
//! stop, acknowledgements; `status`, which shows them all, and `why`.
//!
//! Needs the rights to the control socket and nothing else. The kernel says which
//! user asks; `--by` adds a name.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use homeostat_common::ids::{IncidentId, ServiceId};
use homeostat_common::units::Millis;
use std::path::{Path, PathBuf};

use super::request::ask;
use crate::config::Config;
use crate::control::{Command, Scope, Switch};
use crate::io::shell::question::Order;

/// Whom it is said to, and by whom.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Who does this; the user's number is recorded as well.
    #[arg(long)]
    by: Option<String>,
    /// The configuration file.
    #[arg(long, default_value = "/etc/homeostat/agent.toml")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum PeopleCommand {
    /// Show what is switched, what waits for a person, and which alarms stand.
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Say why a service is slow, silent or wrong: from what is seen of it down through what
    /// it needs to what is likeliest behind it.
    Why {
        /// The service.
        service: ServiceId,
        #[command(flatten)]
        common: Common,
    },
    /// Let the plan that waits in an incident run; the gate is asked again.
    Approve {
        /// The incident's number.
        incident: u64,
        /// Only if it is this plan that waits.
        #[arg(long)]
        plan: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Do not let the plan that waits run, nor one of its kind in this incident.
    Refuse {
        /// The incident's number.
        incident: u64,
        /// Why not.
        #[arg(long, default_value = "no reason given")]
        why: String,
        #[command(flatten)]
        common: Common,
    },
    /// Heal nothing here for a while; people are told all the same.
    Maintenance {
        #[command(flatten)]
        window: Window,
    },
    /// Notify nobody of these alarms for a while; healing goes on.
    Silence {
        #[command(flatten)]
        window: Window,
    },
    /// Stop all healing on this node, at once and until it is resumed.
    StopHealing {
        /// Why.
        #[arg(long)]
        why: String,
        #[command(flatten)]
        common: Common,
    },
    /// Heal again.
    ResumeHealing {
        #[command(flatten)]
        common: Common,
    },
    /// Say that somebody deals with an alarm: it is not repeated any more.
    Ack {
        /// Its name, as `status` shows it.
        alarm: String,
        #[command(flatten)]
        common: Common,
    },
}

/// `NAME for 2h --why TEXT`, `--node for 2h --why TEXT`, or the same with `--end`
/// instead of a span.
#[derive(Debug, Args)]
pub(super) struct Window {
    /// A service, or for a silence an alarm as well; then `for` and a span such as
    /// 30m, 2h or 1d.
    #[arg(value_name = "NAME for SPAN", num_args = 0..=3)]
    words: Vec<String>,
    /// The whole node.
    #[arg(long)]
    node: bool,
    /// Why.
    #[arg(long)]
    why: Option<String>,
    /// End it now.
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    common: Common,
}

impl Window {
    fn command(&self, switch: Switch) -> anyhow::Result<Command> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let (scope, rest) = match (self.node, &words[..]) {
            (true, rest) => (Scope::Node, rest),
            // The agent knows whether it is a service or an alarm.
            (false, [name, rest @ ..]) => match ServiceId::new(name) {
                Ok(id) if switch == Switch::Maintenance => (Scope::Service(id), rest),
                Ok(_) => (Scope::Alarm((*name).to_owned()), rest),
                Err(error) => bail!("{name}: {error}"),
            },
            (false, []) => bail!("expected a name, or --node; homeostat-agent status lists all"),
        };
        match (rest, self.end) {
            ([], true) => Ok(Command::End { switch, scope }),
            (["for", span], false) => Ok(Command::Begin {
                switch,
                scope,
                span: Millis::parse(span)
                    .ok()
                    .with_context(|| format!("{span}: expected a span such as 30m, 2h or 1d"))?,
                why: self.why.clone().context("expected --why TEXT")?,
            }),
            _ => bail!("expected `for` and a span, such as `for 2h`, or --end"),
        }
    }
}

impl PeopleCommand {
    pub(super) fn config(&self) -> &Path {
        &self.common().config
    }

    fn common(&self) -> &Common {
        match self {
            Self::Status { common }
            | Self::Why { common, .. }
            | Self::Approve { common, .. }
            | Self::Refuse { common, .. }
            | Self::StopHealing { common, .. }
            | Self::ResumeHealing { common }
            | Self::Ack { common, .. } => common,
            Self::Maintenance { window } | Self::Silence { window } => &window.common,
        }
    }

    fn command(&self) -> anyhow::Result<Command> {
        Ok(match self {
            Self::Status { .. } => Command::Status,
            Self::Why { service, .. } => Command::Why {
                service: service.clone(),
            },
            Self::Approve { incident, plan, .. } => Command::Approve {
                incident: IncidentId(*incident),
                plan: match plan {
                    Some(plan) => Some(plan.parse().context("not a plan")?),
                    None => None,
                },
            },
            Self::Refuse { incident, why, .. } => Command::Refuse {
                incident: IncidentId(*incident),
                why: why.clone(),
            },
            Self::Maintenance { window } => window.command(Switch::Maintenance)?,
            Self::Silence { window } => window.command(Switch::Silence)?,
            Self::StopHealing { why, .. } => Command::Stop { why: why.clone() },
            Self::ResumeHealing { .. } => Command::Resume,
            Self::Ack { alarm, .. } => Command::Ack {
                alarm: alarm.clone(),
            },
        })
    }

    pub(super) fn run(&self, config: &Config) -> anyhow::Result<()> {
        let order = Order {
            by: self.common().by.clone(),
            command: self.command()?,
        };
        let order = serde_json::to_string(&order).context("the order cannot be written")?;
        let answer: Result<String, String> =
            serde_json::from_str(&ask(config, &format!("order {order}"))?)
                .context("the agent's answer cannot be read")?;
        match answer {
            Ok(text) => println!("{}", text.trim_end()),
            Err(why) => bail!("not done: {why}"),
        }
        Ok(())
    }
}
