//! `cargo xtask`: builds, tests and packages the workspace.
//!
//! In: the sources and what is installed on this machine. Out: an exit status
//! that can be trusted, the time of each stage, and `dist/TARGET/` with what a
//! node installs. Anything that could not be checked here is printed as
//! `skip: WHAT: WHY`; a skip is never silent and never counts as a failure.
//!
//! It holds no product logic and depends on no product crate, so that it
//! compiles in seconds on a machine where nothing else does yet.

mod dist;
mod mcu;
mod run;
mod stages;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::dist::Target;
use crate::stages::Stage;

/// Builds, tests and packages Homeostat.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs what the tests need, then runs every test, on this machine and emulated.
    Test {
        /// Run this stage alone.
        #[arg(long, value_name = "NAME", value_enum)]
        only: Option<Stage>,
    },
    /// Builds the agent as it lands on nodes, checks its size, and starts it once.
    Dist {
        /// A target triple; may be repeated. Default: all of them.
        #[arg(long = "target", value_name = "T", value_enum)]
        targets: Vec<Target>,
    },
    /// Prints the sizes of what `dist` built, against their limits.
    Size,
    /// Builds the firmware for each board, checks its size, and measures it emulated.
    Mcu {
        /// A board of firmware-configs/mcu; may be repeated. Default: all of them.
        #[arg(long = "board", value_name = "NAME")]
        boards: Vec<String>,
    },
    /// Builds the firmware and programs a board. Exit status 2: no such board; 3: no probe.
    Flash {
        /// A microcontroller, through a debug probe.
        #[arg(long, required = true)]
        mcu: bool,
        /// A board of firmware-configs/mcu.
        #[arg(long, value_name = "NAME")]
        board: String,
        /// Which probe: VID:PID or VID:PID:SERIAL. Needed only if several are connected.
        #[arg(long, value_name = "SEL")]
        probe: Option<String>,
    },
    /// What a merge must pass: format, lints, dependency policy, `test`.
    Ci,
}

fn main() -> ExitCode {
    match perform(Args::parse().task) {
        Ok(status) => status,
        Err(error) => {
            // The chain alone: where this tool was when another one failed helps nobody.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    std::env::set_current_dir(run::workspace_root())?;
    match task {
        Task::Test { only } => stages::test(only),
        Task::Dist { targets } if targets.is_empty() => dist::dist(Target::ALL),
        Task::Dist { targets } => dist::dist(&targets),
        Task::Size => dist::size(Target::ALL),
        Task::Mcu { boards } => mcu::check_boards(&boards),
        Task::Flash { board, probe, .. } => return mcu::flash(&board, probe.as_deref()),
        Task::Ci => stages::ci(),
    }?;
    Ok(ExitCode::SUCCESS)
}
