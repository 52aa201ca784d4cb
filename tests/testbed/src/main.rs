//! A service of the testbed as a program of its own; see [`homeostat_testbed::service`].

use std::process::ExitCode;

use homeostat_testbed::{SERVICE_ARG, service_main};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    args.next_if(|arg| arg == SERVICE_ARG);
    service_main(args)
}
