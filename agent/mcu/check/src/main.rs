//! Runs the firmware in an emulator and measures it.
//!
//! In: a firmware file and the emulator's arguments for its board. Out: a table against the
//! goals, and an exit status. The emulated board and the same code on this machine (its twin)
//! get the same bytes, and must answer with the same bytes: scores are compared bit by bit,
//! with garbage on the line as well. Then it is restarted, crashed and stalled on purpose.
//!
//! Instructions are counted by the board's own clock ticks around each sample, in an emulator
//! where each instruction takes the same time, against a loop of known length. On a real
//! board the same figures are processor cycles.

mod elf;
mod emulator;
mod stream;
mod twin;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use homeostat_serial::message::{Cause, Fault, Health, Reply, Request};

use crate::emulator::Emulator;
use crate::stream::{JUMP, ROUNDS, Random};
use crate::twin::Pair;

/// Goals, in bytes and instructions for a sample.
const FLASH_MAX: u32 = 48 * 1024;
const MEMORY_MAX: u32 = 12 * 1024;
const INSTRUCTIONS_MAX: f64 = 3000.0;

/// Runs the firmware in an emulator and measures it.
#[derive(Debug, Parser)]
#[command(name = "homeostat-mcu-check")]
struct Args {
    /// The board, for the table.
    #[arg(long)]
    board: String,
    /// The firmware.
    #[arg(long, value_name = "FILE")]
    elf: PathBuf,
    /// The emulator's arguments for the board; without them only sizes are looked at.
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    qemu: Option<String>,
    /// This core has no goal for instructions: floats are computed in software.
    #[arg(long)]
    soft_float: bool,
}

fn main() -> ExitCode {
    match check(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all goals hold.
fn check(args: &Args) -> Result<bool> {
    let named = || format!("firmware {}", args.elf.display());
    let file = std::fs::read(&args.elf).with_context(named)?;
    let sizes = elf::sizes(&file).with_context(named)?;
    let panics = elf::symbols(&file).with_context(named)?;
    let panics = panics.iter().filter(|name| name.contains("panicking"));
    let mut table = Table::new(&args.board);
    table.row("flash", "bytes", sizes.flash.into(), Some(FLASH_MAX.into()));
    let panics = u32::try_from(panics.count()).unwrap_or(u32::MAX);
    table.row("panicking code", "functions", panics.into(), Some(0.0));
    let Some(machine) = &args.qemu else {
        table.row(
            "memory without stack",
            "bytes",
            sizes.memory.into(),
            Some(MEMORY_MAX.into()),
        );
        println!("skip: {} in an emulator: nothing emulates it", args.board);
        return Ok(table.holds);
    };
    let run = run(machine, args)?;
    let health = run.health;
    table.row("memory without stack", "bytes", sizes.memory.into(), None);
    table.row("stack, at most", "bytes", health.stack_used.into(), None);
    let memory = sizes.memory + health.stack_used;
    table.row("memory", "bytes", memory.into(), Some(MEMORY_MAX.into()));
    let unit = 2000.0 / f64::from(health.ticks_2000.max(1));
    #[allow(clippy::cast_precision_loss)] // far below 2^53
    let mean = health.ticks as f64 / f64::from(health.scored.max(1)) * unit;
    let most = f64::from(health.ticks_max) * unit;
    let goal = (!args.soft_float).then_some(INSTRUCTIONS_MAX);
    table.row("a sample, mean", "instructions", mean, None);
    table.row("a sample, longest", "instructions", most, goal);
    table.row("samples", "", health.scored.into(), None);
    table.row(
        "answers unlike this machine's",
        "frames",
        run.unlike.into(),
        Some(0.0),
    );
    table.row("bytes lost", "", health.overruns.into(), Some(0.0));
    Ok(table.holds)
}

/// What a run showed.
struct Run {
    health: Health,
    unlike: u32,
}

fn run(machine: &str, args: &Args) -> Result<Run> {
    let mut pair = Pair::new(Emulator::start(machine, &args.elf)?);
    pair.started(Cause::Power)?;
    let mut random = Random::new(7);
    let mut garbage = Random::new(11);
    for request in stream::setups() {
        pair.ask(request)?;
    }
    let mut bad = 0;
    for round in 0..ROUNDS {
        for request in stream::round(round, &mut random) {
            if garbage.next().is_multiple_of(50) {
                bad += 1;
                pair.noise(&mut garbage)?;
            }
            pair.ask(request)?;
        }
    }
    let alarms = pair.alarms();
    println!("{}: alarms (channel, begins, s): {alarms:?}", args.board);
    let jump = alarms.iter().any(|(channel, stands, at)| {
        (*channel, *stands) == (JUMP.0, true) && (1000 + JUMP.1..1002 + JUMP.1).contains(at)
    });
    ensure!(jump, "the jump of channel {} is no alarm", JUMP.0);
    let Reply::Health(health) = pair.ask_apart(Request::Health)? else {
        anyhow::bail!("no health when asked for it");
    };
    ensure!(
        health.bad >= bad / 2 && health.frames > ROUNDS,
        "garbage was sent {bad} times: {health:?}"
    );

    // The ways to end, and back; after each it has forgotten, is set up, and takes samples.
    for (fault, cause) in [
        (Fault::Reset, Cause::Asked),
        (Fault::Crash, Cause::Crash),
        (Fault::Stall, Cause::Outside),
    ] {
        if fault == Fault::Stall && !pair.has_watchdog(machine) {
            println!(
                "skip: {}: watchdog: the emulator has none for this machine",
                args.board
            );
            continue;
        }
        pair.end(fault)?;
        pair.started(cause)
            .with_context(|| format!("after {fault:?}"))?;
        for request in stream::setups() {
            pair.ask(request)?;
        }
        for round in 0..20 {
            for request in stream::round(round, &mut random) {
                pair.ask(request)?;
            }
        }
    }
    Ok(Run {
        health,
        unlike: pair.unlike(),
    })
}

/// Rows as they come, and whether all goals hold so far.
#[derive(Debug)]
struct Table {
    holds: bool,
}

impl Table {
    fn new(board: &str) -> Self {
        println!(
            "{board:<32}{:>10}  {:<14}{:>8}  holds",
            "ours", "unit", "goal"
        );
        Self { holds: true }
    }

    fn row(&mut self, what: &str, unit: &str, ours: f64, goal: Option<f64>) {
        let holds = goal.is_none_or(|goal| ours <= goal);
        self.holds &= holds;
        let goal = goal.map(|goal| format!("<= {goal}")).unwrap_or_default();
        let word = match (goal.is_empty(), holds) {
            (true, _) => "",
            (false, true) => "yes",
            (false, false) => "NO",
        };
        println!("  {what:<30}{ours:>10.0}  {unit:<14}{goal:>8}  {word}");
    }
}
