//! The command line: reads it and plays the role it names.

mod chaos;
mod mcu;
mod people;
mod request;
mod slot;

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use homeostat_common::ids::IncidentId;

use crate::config::Config;
use crate::io::forward::server::ForwardError;
use crate::io::spawner::{chaos as spawner_chaos, commands, owner, server};
use crate::io::store::kv::{Kv, KvLimits, trial_main};
use crate::io::{forward, keeper, shell};
use crate::selftest;

/// How long a running agent may take to answer `explain`.
const EXPLAIN_TIME: Duration = Duration::from_secs(5);

/// Heals one node, with or without the cloud.
#[derive(Debug, Parser)]
#[command(name = "homeostat-agent", version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Watch the services and heal them.
    Run {
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
    },
    /// Own the services: start, watch and end them as the loop asks.
    Spawn {
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
        /// End all services at SIGTERM; without it they go on.
        #[arg(long)]
        stop_services_on_exit: bool,
    },
    /// Forward connections to replicated services; serves until it is told to end.
    Forward {
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
    },
    /// Show where the forwarder sends connections, and how its backends do.
    Routes {
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration file, and the units and containers it names, and print
    /// what is wrong with them.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Try every part of this program on this machine, in a temporary folder.
    Selftest,
    /// Say why something was done, or was not done.
    Explain {
        /// The incident's number, or a plan across nodes such as coordinator-1795349616896 or
        /// p38; without it the incidents are listed.
        incident: Option<String>,
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
    },
    /// Show what the running agent has measured last, absent and silent sources too.
    Readings {
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have the running agent and its spawner read the configuration file again.
    Reload {
        /// The configuration file, which the agent was started with.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
    },
    /// Print the key that other nodes need to take orders from this one.
    Key {
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
    },
    /// Ask the running agent for a plan, such as "restart(web, grace=2s)", and
    /// follow it; steps that name nodes are led from here, such as
    /// "edge-1: restart(web, grace=2s) ; edge-2: restart(web, grace=2s)".
    Do {
        /// The plan, as `explain` prints plans.
        plan: String,
        /// Print only the incident's and the plan's number, and do not wait.
        #[arg(long)]
        quiet: bool,
        /// The configuration file.
        #[arg(long, default_value = "/etc/homeostat/agent.toml")]
        config: PathBuf,
    },
    /// Send metrics from a CSV file to a microcontroller that runs the detectors, and print
    /// its alarms.
    Mcu(mcu::McuArgs),
    /// Put a fault into a service on purpose, for a while.
    Chaos(chaos::ChaosArgs),
    /// Take memory or processors; for the spawner alone.
    #[command(hide = true, name = "chaos-helper")]
    ChaosHelper {
        /// Parent, what to take, and for how long.
        words: Vec<String>,
    },
    /// Show the slots of models and configurations, and give them candidates.
    #[command(subcommand)]
    Slot(slot::SlotCommand),
    #[command(flatten)]
    People(people::PeopleCommand),
    /// Open a key-value store on trial.
    #[command(hide = true, name = "kv-trial")]
    KvTrial {
        /// Its folder.
        path: PathBuf,
    },
}

/// The configuration is wrong, as opposed to anything else (1).
const EXIT_CONFIG: u8 = 2;

/// Runs the program. `arguments` start with the program's name, as in
/// [`std::env::args_os`].
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let role = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.role,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CONFIG));
        }
    };
    match role {
        Role::Run { config: file } => with_config(&file, |config| {
            log_to_stderr();
            Ok(shell::run(config, &file)?)
        }),
        Role::Spawn {
            config,
            stop_services_on_exit,
        } => {
            log_to_stderr();
            let options = server::Options {
                config,
                stop_services_on_exit,
            };
            match server::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error @ server::SpawnerError::Config(_)) => fail(&error.into(), EXIT_CONFIG),
                Err(error) => fail(&error.into(), 1),
            }
        }
        Role::Forward { config } => {
            log_to_stderr();
            match forward::server::run(&forward::server::Options { config }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error @ ForwardError::Config(_)) => fail(&error.into(), EXIT_CONFIG),
                Err(error) => fail(&error.into(), 1),
            }
        }
        Role::Routes { config, json } => with_config(&config, |config| {
            let routes = forward::show::routes(&config.node.run_dir)?;
            if json {
                println!("{}", forward::show::json(&routes));
            } else {
                print!("{}", forward::show::table(&routes));
            }
            Ok(())
        }),
        Role::Check { file } => check(&file),
        Role::Selftest => match selftest::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Role::Explain { incident, config } => {
            with_config(&config, |config| explain(config, incident.as_deref()))
        }
        Role::Readings { config, json } => {
            with_config(&config, |config| request::readings(config, json))
        }
        Role::Reload { config } => with_config(&config, request::reload),
        Role::Key { config } => with_config(&config, request::key),
        Role::Do {
            plan,
            quiet,
            config,
        } => with_config(&config, |config| request::run(config, &plan, quiet)),
        Role::Mcu(args) => match mcu::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Role::Chaos(args) => with_config(&args.config, |config| chaos::run(config, &args)),
        Role::ChaosHelper { words } => spawner_chaos::helper_main(&words),
        Role::Slot(command) => with_config(command.config(), |config| command.run(config)),
        Role::People(command) => with_config(command.config(), |config| command.run(config)),
        Role::KvTrial { path } => trial_main(&path),
    }
}

/// Reads `file`, and asks systemd and engines about what it names of theirs.
fn check(file: &Path) -> ExitCode {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return fail(&error.into(), EXIT_CONFIG),
    };
    let (wrong, unknown) = owner::check(&config);
    for text in unknown {
        eprintln!("{}: not checked: {text}", file.display());
    }
    for text in &wrong {
        eprintln!("{}: {text}", file.display());
    }
    if !wrong.is_empty() {
        return ExitCode::from(EXIT_CONFIG);
    }
    let doubts = commands::doubts(&config);
    for text in &doubts {
        eprintln!("{}: as things are on this machine: {text}", file.display());
    }
    let services = config.services.len();
    let found = match doubts.len() {
        0 => "fine".to_owned(),
        1 => "1 of them in doubt here".to_owned(),
        many => format!("{many} doubts about them here"),
    };
    println!("{}: {services} services, {found}", file.display());
    ExitCode::SUCCESS
}

fn with_config(file: &Path, run: impl FnOnce(&Config) -> anyhow::Result<()>) -> ExitCode {
    match Config::load(file) {
        Ok(config) => match run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&error.into(), EXIT_CONFIG),
    }
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}

/// Asks the running agent; when none runs, reads its store.
fn explain(config: &Config, incident: Option<&str>) -> anyhow::Result<()> {
    let question = incident.unwrap_or_default();
    let text = match UnixStream::connect(shell::control_path(&config.node.run_dir)) {
        Ok(agent) => {
            request::answer(agent, question.as_bytes(), EXPLAIN_TIME).context("the agent")?
        }
        Err(_) => {
            let path = config.node.data_dir.join("kv");
            anyhow::ensure!(
                path.exists(),
                "no agent runs in {} and {} does not exist",
                config.node.run_dir.display(),
                path.display()
            );
            let number = incident.map(str::parse).transpose();
            let number = number
                .map_err(|_| anyhow::anyhow!("only a running agent tells of plans across nodes"))?;
            let kv = Kv::open_intact(&path, KvLimits::default(), keeper::trial)?;
            let kv = kv.with_context(|| {
                format!(
                    "the history in {} is damaged; the agent begins a new one at its next start",
                    path.display()
                )
            })?;
            keeper::explain(Some(&kv), number.map(IncidentId))
        }
    };
    print!("{text}");
    Ok(())
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::from(code)
}
