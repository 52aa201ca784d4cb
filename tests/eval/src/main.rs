//! `homeostat-eval`: every measurement that the docs quote, as a command.
//!
//! The exit code says whether measuring worked, not whether goals were met.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use homeostat_eval::experiments::{
    self, agent_cost, causal, cost, detect, drift, flash, foresee, forward, gate, journal_kill,
    ledger, mttr, outbox, overhead, policies, power_cut, quiet, quiet_day, rca, saga, sim, switch,
    testbed, tune,
};
use homeostat_eval::result::{Report, columns};
use homeostat_eval::stage::{interrupt, role};

/// Measures Homeostat with real processes and real faults.
#[derive(Debug, Parser)]
#[command(name = "homeostat-eval", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Write the results here as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seed of pauses, phases and the bootstrap.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the experiments: command, what it measures, how long it takes.
    List,
    /// Time to recover from a fault, beside a plain supervisor.
    Mttr(mttr::Args),
    /// Restarts of healthy services on a loaded machine.
    Quiet(quiet::Args),
    /// False alarms of metrics on days without a fault.
    QuietDay(quiet_day::Args),
    /// What the loop costs, at rest and probing.
    AgentCost(agent_cost::Args),
    /// Detectors on public recordings.
    Detect(detect::Args),
    /// Which component is the root of an alarm, on recordings of real systems.
    Rca(rca::Args),
    /// What a sample costs each detector.
    Cost(cost::Args),
    /// Effects of actions, what would have been, and proposed links, beside truth.
    Causal(causal::Args),
    /// A model that silently meets another world: time until somebody is told.
    Drift(drift::Args),
    /// What the agent writes to its flash card at rest.
    Flash(flash::Args),
    /// What agent and coordinator cost, at rest and for an incident.
    Overhead(overhead::Args),
    /// Records lost or doubled by a broker that is killed.
    Outbox(outbox::Args),
    /// Healing with an agent that is killed in the middle of it.
    JournalKill(journal_kill::Args),
    /// Power cuts, played back from a recorded trace of real writes.
    PowerCut(power_cut::Args),
    /// A plan across three nodes with somebody killed at each write and message.
    Saga(saga::Args),
    /// Model switches under load, and bad candidates.
    Switch(switch::Args),
    /// What the forwarder costs, beside no forwarder.
    Forward(forward::Args),
    /// Plans that pass the gate and break a rule, judged by a checker of its own.
    Gate(gate::Args),
    /// What is spent of beta in random histories.
    Ledger(ledger::Args),
    /// Faults ended before they show, and what it costs when foresight is wrong.
    Foresee(foresee::Args),
    /// Speed of the fleet simulator, and whether what it computes is right.
    Sim(sim::Args),
    /// Policies that heal simulated fleets, beside an oracle and no policy at all.
    Policies(policies::Args),
    /// Real processes beside the simulator: is it like them?
    Testbed(testbed::Args),
    /// Weights of trial and error, by an evolution strategy on the training incidents.
    Tune(tune::Args),
}

fn main() -> ExitCode {
    if let Some(code) = role::dispatch() {
        return code;
    }
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("interrupted; everything that was started has ended");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            eprintln!("homeostat-eval: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    // What only reads and computes looks for no signal, and owns nothing that must end in order.
    let alone = matches!(
        cli.command,
        Command::List | Command::Detect(_) | Command::Rca(_) | Command::Cost(_)
    );
    interrupt::listen(alone)?;
    if let Some(file) = &cli.json {
        Report::writable(file)?;
    }
    let report: Report = match &cli.command {
        Command::List => {
            let head = ["command", "what it measures", "how long it takes"];
            let rows = [head].into_iter().chain(experiments::LIST);
            let rows: Vec<Vec<String>> = rows.map(|row| row.map(str::to_owned).to_vec()).collect();
            print!("{}", columns(&rows));
            return Ok(());
        }
        Command::Mttr(args) => mttr::run(args, cli.seed)?,
        Command::Quiet(args) => quiet::run(args, cli.seed)?,
        Command::QuietDay(args) => quiet_day::run(args, cli.seed)?,
        Command::AgentCost(args) => agent_cost::run(args)?,
        Command::Detect(args) => detect::run(args, cli.seed)?,
        Command::Rca(args) => rca::run(args, cli.seed)?,
        Command::Cost(args) => cost::run(args, cli.seed)?,
        Command::Causal(args) => causal::run(args, cli.seed)?,
        Command::Drift(args) => drift::run(args, cli.seed)?,
        Command::Flash(args) => flash::run(args)?,
        Command::Overhead(args) => overhead::run(args)?,
        Command::Outbox(args) => outbox::run(args, cli.seed)?,
        Command::JournalKill(args) => journal_kill::run(args, cli.seed)?,
        Command::PowerCut(args) => power_cut::run(args, cli.seed)?,
        Command::Saga(args) => saga::run(args, cli.seed)?,
        Command::Switch(args) => switch::run(args, cli.seed)?,
        Command::Forward(args) => forward::run(args, cli.seed)?,
        Command::Gate(args) => gate::run(args, cli.seed)?,
        Command::Ledger(args) => ledger::run(args, cli.seed)?,
        Command::Foresee(args) => foresee::run(args, cli.seed)?,
        Command::Policies(args) => policies::run(args, cli.seed)?,
        Command::Tune(args) => tune::run(args, cli.seed)?,
        Command::Sim(args) => sim::run(args, cli.seed)?,
        Command::Testbed(args) => testbed::run(args, cli.seed)?,
    };
    print!("{}", report.table());
    if let Some(file) = &cli.json {
        report.write(file)?;
    }
    Ok(())
}
