//! The `homeostat` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    homeostat_coordinator::main_from(std::env::args_os())
}
