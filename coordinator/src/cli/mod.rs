//! The command line: `serve`, `broker`, what an operator asks, and the simulator.
//!
//! Exit status: 0 done, 1 failed or not found, 2 wrong usage.

mod alarm;
mod ask;
mod causes;
mod classify;
mod client;
mod discover;
mod explain;
mod plan;
mod show;
mod sim;
mod table;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use homeostat_common::units::Ratio;

use crate::control::ingest::chain;
use crate::control::serve;
use crate::io::broker;
use crate::io::config::Config;
use crate::io::http::loopback_only;

/// The agent's program, beside this one or in the path.
const AGENT: &str = "homeostat-agent";

/// Wrong usage, as for most commands.
const USAGE: u8 = 2;

/// Sees and explains what the nodes of a fleet do to heal themselves.
#[derive(Debug, Parser)]
#[command(name = "homeostat", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the coordinator: take in records, answer the API, show the page.
    Serve(Serve),
    /// Run an MQTT 5 broker for a demo or a small fleet. Keeps nothing on disk.
    Broker(Broker),
    /// Nodes and their services.
    Fleet {
        #[command(subcommand)]
        what: FleetCommand,
    },
    /// Incidents and what was done about them.
    Incident {
        #[command(subcommand)]
        what: IncidentCommand,
    },
    /// What needs a person.
    Alarm {
        #[command(subcommand)]
        what: AlarmCommand,
    },
    /// Plans across nodes: all done, or all taken back, or a person is called.
    Plan {
        #[command(subcommand)]
        what: PlanCommand,
    },
    /// Put a fault into a service of this node on purpose; `homeostat chaos --help` says more.
    #[command(disable_help_flag = true)]
    Chaos {
        /// What `homeostat-agent chaos` takes: a fault, a service, --for, --yes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// The class of a failure from event counts, as of log templates.
    Classify {
        #[command(subcommand)]
        what: classify::ClassifyCommand,
    },
    /// Causes and effects in a fleet, from what is on record.
    Causes {
        #[command(subcommand)]
        what: discover::CausesCommand,
    },
    /// A simulated fleet: incidents, policies that heal, and how hard incidents are.
    Sim {
        #[command(subcommand)]
        what: sim::SimCommand,
    },
    /// The topics on the broker.
    Mqtt {
        #[command(subcommand)]
        what: MqttCommand,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// The broker. With --embedded-broker: where that one listens; port 0 takes
    /// any free port.
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    broker: String,
    /// Where API and page listen; port 0 takes any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Where the database is.
    #[arg(long, value_name = "DIR", default_value = "homeostat-data")]
    data: PathBuf,
    /// Run a broker in this process too.
    #[arg(long)]
    embedded_broker: bool,
    /// Whom to call when a plan across nodes needs a person: `[[webhook]]` and `[people]`, with
    /// the keys that they have in an agent's file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Forget records after so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    keep_days: u32,
}

#[derive(Debug, Args)]
struct Broker {
    /// Where to listen; port 0 takes any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    /// Listen beyond loopback although anybody there may then read and write
    /// everything.
    #[arg(long)]
    i_know: bool,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// List nodes with presence, backlog, services and routes.
    Ls(Ask),
    /// List routes: who calls, and who is behind with what weight.
    Routes(Ask),
}

#[derive(Debug, Subcommand)]
enum IncidentCommand {
    /// List incidents, newest first.
    Ls {
        #[command(flatten)]
        ask: Ask,
        /// Only those that are not over.
        #[arg(long)]
        open: bool,
        /// Only of this node.
        #[arg(long)]
        node: Option<homeostat_common::ids::NodeId>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Say why something is in trouble: from there down to what is behind it, over nodes and
    /// levels.
    Why {
        /// The service; or a route, backend, dependency, disk, link or node.
        name: String,
        /// Only of this node.
        #[arg(long)]
        node: Option<homeostat_common::ids::NodeId>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show one incident: what was seen, considered, refused and done; who may be behind it,
    /// as a graph; what belongs to it, whom it reached, and what would have been otherwise.
    Show {
        /// Its number in the fleet.
        number: u64,
        /// With what happened on other nodes in the same while and has nothing to do with it.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
enum AlarmCommand {
    /// List the alarms that stand, of the nodes and of the coordinator.
    Ls(Ask),
    /// Say that somebody deals with an alarm of the coordinator: people are not reminded of
    /// it any more. A node's is acknowledged there, with `homeostat-agent ack`.
    Ack {
        /// Its name.
        name: String,
        /// Who deals with it; otherwise the name that the user has logged in with.
        #[arg(long)]
        by: Option<String>,
        /// The coordinator's data folder, which holds the operator's token.
        #[arg(long, value_name = "DIR", default_value = "homeostat-data")]
        data: PathBuf,
        #[command(flatten)]
        ask: Ask,
    },
}

#[derive(Debug, Subcommand)]
enum PlanCommand {
    /// Have a plan run, such as
    /// `n1: isolate(infer, infer-1, drain=1s) ; (n2: scale-out(infer, infer-3) | n3: wait(1s))`.
    Run {
        /// Its text, with # for comments; - reads it from stdin.
        file: PathBuf,
        /// The coordinator's data folder, which holds the operator's token.
        #[arg(long, value_name = "DIR", default_value = "homeostat-data")]
        data: PathBuf,
        /// How sure the diagnosis behind it is, 0 to 1; without one it is your own wish.
        #[arg(long, value_parser = share)]
        confidence: Option<Ratio>,
        /// Wait for its end; exit status 0 only if all is done.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// List plans, or show one: how far each step on each node is, and why.
    Show {
        /// Its number.
        id: Option<u64>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Stop a plan: it is taken back. One for which a person was called since its end lasts
    /// is given up: no node is waited for any more.
    Stop {
        /// Its number.
        id: u64,
        /// Who stops it; otherwise the name that the user has logged in with.
        #[arg(long)]
        by: Option<String>,
        /// The coordinator's data folder, which holds the operator's token.
        #[arg(long, value_name = "DIR", default_value = "homeostat-data")]
        data: PathBuf,
        #[command(flatten)]
        ask: Ask,
    },
    /// What nodes have to trust to take orders from this coordinator.
    Key(Ask),
}

#[derive(Debug, Subcommand)]
enum MqttCommand {
    /// Say who writes a topic, when, and what is in it; without one, all of
    /// them.
    Explain {
        /// A topic such as hs/v1/plant-7/edge-1/status.
        topic: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Ask {
    /// The coordinator.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,
}

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// The user asked for something that cannot be.
    Usage(String),
    /// It was tried.
    Failed(String),
}

/// Runs the program with `args`, the first of which is its name.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way as well, and go to stdout.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let done = match cli.command {
        Command::Serve(args) => serve_command(args),
        Command::Broker(args) => broker_command(&args),
        Command::Fleet {
            what: FleetCommand::Ls(ask),
        } => ask::fleet(&ask.url, ask.json).map_err(failed),
        Command::Fleet {
            what: FleetCommand::Routes(ask),
        } => ask::routes(&ask.url, ask.json).map_err(failed),
        Command::Incident {
            what:
                IncidentCommand::Ls {
                    ask,
                    open,
                    node,
                    limit,
                },
        } => ask::incidents(&ask.url, ask.json, open, node.as_ref(), limit).map_err(failed),
        Command::Incident {
            what: IncidentCommand::Why { name, node, ask },
        } => {
            let node = node.as_ref().map(homeostat_common::ids::NodeId::as_str);
            causes::why(&ask.url, ask.json, &name, node).map_err(failed)
        }
        Command::Incident {
            what: IncidentCommand::Show { number, all, ask },
        } => show::incident(&ask.url, ask.json, number, all).map_err(failed),
        Command::Alarm {
            what: AlarmCommand::Ls(ask),
        } => alarm::list(&ask).map_err(failed),
        Command::Alarm {
            what:
                AlarmCommand::Ack {
                    name,
                    by,
                    data,
                    ask,
                },
        } => alarm::acknowledge(&ask, &name, by.as_deref(), &data),
        Command::Plan {
            what:
                PlanCommand::Run {
                    file,
                    data,
                    confidence,
                    wait,
                    ask,
                },
        } => plan::run(&ask, &file, &data, confidence, wait),
        Command::Plan {
            what: PlanCommand::Show { id, ask },
        } => plan::show(&ask, id).map_err(failed),
        Command::Plan {
            what: PlanCommand::Stop { id, by, data, ask },
        } => plan::stop(&ask, id, by.as_deref(), &data),
        Command::Plan {
            what: PlanCommand::Key(ask),
        } => plan::key(&ask).map_err(failed),
        Command::Classify { what } => classify::classify(&what),
        Command::Causes { what } => discover::causes(&what),
        Command::Sim { what } => sim::sim(&what),
        Command::Chaos { words } => Err(Failure::Failed(chaos(words))),
        Command::Mqtt {
            what: MqttCommand::Explain { topic },
        } => explain::explain(topic.as_deref()).map_err(Failure::Failed),
    };
    match done {
        Ok(text) => {
            use std::io::Write as _;
            // A closed pipe (`| head`) is no failure worth words.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Failure::Usage(text)) => {
            eprintln!("homeostat: {text}");
            ExitCode::from(USAGE)
        }
        Err(Failure::Failed(text)) => {
            eprintln!("homeostat: {text}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // As map_err wants it.
fn failed(error: client::AskError) -> Failure {
    Failure::Failed(chain(&error))
}

fn start_log() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};
    // rumqttd calls every client that leaves an error; what matters of it shows
    // at our end of the connection.
    let wanted = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("rumqttd", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_filter(wanted);
    // A second one, as in a program that starts two, changes nothing.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))
}

/// Becomes the agent's program, which knows the services of this node; why it could not.
fn chaos(words: Vec<OsString>) -> String {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(AGENT)));
    let beside = beside.filter(|program| program.is_file());
    let program = beside.unwrap_or_else(|| AGENT.into());
    let error = std::process::Command::new(&program)
        .arg("chaos")
        .args(words)
        .exec();
    format!(
        "cannot run {}, which puts faults into the services of its own node: {error}",
        program.display()
    )
}

fn serve_command(args: Serve) -> Result<String, Failure> {
    let http = loopback_only("the API", args.http).map_err(Failure::Usage)?;
    let (host, port) = broker_address(&args.broker).map_err(Failure::Usage)?;
    let embedded = if args.embedded_broker {
        let listen = format!("{host}:{port}").parse().map_err(|_| {
            Failure::Usage(format!(
                "--embedded-broker needs a numeric address in --broker, not {host}"
            ))
        })?;
        Some(loopback_only("the embedded broker", listen).map_err(Failure::Usage)?)
    } else if port == 0 {
        return Err(Failure::Usage(
            "--broker with port 0 makes sense only with --embedded-broker".into(),
        ));
    } else {
        None
    };
    let config = match &args.config {
        Some(file) => Config::load(file).map_err(|error| Failure::Usage(chain(&error)))?,
        None => Config::default(),
    };
    start_log();
    runtime()?
        .block_on(serve::run(serve::Options {
            broker: (host, port),
            embedded,
            http,
            data: args.data,
            keep_days: args.keep_days,
            config,
        }))
        .map(|()| String::new())
        .map_err(|error| Failure::Failed(chain(&error)))
}

fn broker_command(args: &Broker) -> Result<String, Failure> {
    if !args.i_know {
        loopback_only("the broker", args.listen)
            .map_err(|why| Failure::Usage(format!("{why}; or say --i-know")))?;
    }
    start_log();
    let run = async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listen = args.listen;
        let started = tokio::task::spawn_blocking(move || broker::start(listen)).await;
        match started.map_err(std::io::Error::other)? {
            Ok(address) => println!("listening mqtt://{address}"),
            Err(error) => return Ok(Err(error)),
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(Ok(()))
    };
    match runtime()?.block_on(run) {
        Ok(Ok(())) => Ok(String::new()),
        Ok(Err(error)) => Err(Failure::Failed(chain(&error))),
        Err::<_, std::io::Error>(error) => Err(Failure::Failed(format!("cannot start: {error}"))),
    }
}

/// Host and port of `mqtt://host[:port]`.
fn broker_address(url: &str) -> Result<(String, u16), String> {
    if url.starts_with("mqtts://") {
        return Err(format!("--broker {url}: TLS is not supported yet"));
    }
    let rest = url
        .strip_prefix("mqtt://")
        .ok_or_else(|| format!("--broker {url}: expected mqtt://host:port"))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (
            host,
            port.parse()
                .map_err(|_| format!("--broker {url}: {port:?} is no port"))?,
        ),
        _ => (rest, 1883),
    };
    if host.is_empty() || host.contains(['@', '/', '?', '#']) {
        return Err(format!("--broker {url}: expected mqtt://host:port"));
    }
    Ok((host.to_owned(), port))
}

/// JSON knows no NaN: it has to be refused here.
fn share(text: &str) -> Result<Ratio, String> {
    let share: f32 = text.parse().map_err(|_| "expected a number".to_owned())?;
    Ratio::new(share).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_broker_is_an_mqtt_url() {
        let ok = |url, host: &str, port| {
            assert_eq!(broker_address(url), Ok((host.to_owned(), port)), "{url}");
        };
        ok("mqtt://127.0.0.1:1884", "127.0.0.1", 1884);
        ok("mqtt://broker.example/", "broker.example", 1883);
        ok("mqtt://[::1]:7", "[::1]", 7);
        ok("mqtt://[::1]", "[::1]", 1883);
        for wrong in [
            "",
            "127.0.0.1:1883",
            "mqtt://",
            "mqtt://a:b",
            "mqtts://a:1",
            "mqtt://u@h:1",
        ] {
            assert!(broker_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_usage_exits_with_2_and_opens_nothing() {
        let run = |args: &[&str]| main_from(args.iter().map(OsString::from));
        let usage = format!("{:?}", ExitCode::from(2));
        for args in [
            &["homeostat"][..],
            &["homeostat", "serve", "--http", "0.0.0.0:0"],
            &[
                "homeostat",
                "serve",
                "--broker",
                "mqtt://0.0.0.0:0",
                "--embedded-broker",
            ],
            &["homeostat", "broker", "--listen", "0.0.0.0:0"],
            &["homeostat", "incident", "ls", "--node", "Not A Name"],
            &["homeostat", "causes", "discover", "--alpha", "1"],
            &["homeostat", "sim", "run", "no-such-incident"],
            &["homeostat", "sim", "run", "--policy", "luck"],
            &["homeostat", "sim", "run", "crash-infer", "--budget", "nan"],
            &["homeostat", "sim", "explain", "7"],
            &["homeostat", "plan", "run", "-", "--confidence", "NaN"],
            &["homeostat", "plan", "run", "-", "--confidence", "inf"],
            &["homeostat", "plan", "run", "-", "--confidence", "2"],
        ] {
            assert_eq!(format!("{:?}", run(args)), usage, "{args:?}");
        }
    }
}
