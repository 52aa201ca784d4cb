//! Broker, coordinator, spawner, agent and services in one program, so that the end-to-end
//! tests need no other package's binaries: a test's own `main` is not its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    homeostat_eval::stage::role::dispatch().unwrap_or_else(|| {
        eprintln!("plays the parts of the end-to-end tests; run `cargo test -p homeostat-tests`");
        ExitCode::FAILURE
    })
}
