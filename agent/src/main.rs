//! The program on a node.

use std::process::ExitCode;

fn main() -> ExitCode {
    homeostat_agent::cli::main_from(std::env::args_os())
}
