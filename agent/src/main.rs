//! The program on a node: reads its command line and plays the role it names.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use homeostat_agent::config::Config;
use homeostat_agent::io::spawner::server;

/// Heals one node, with or without the cloud.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Check a configuration file and print what is wrong with it.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Own the services: start, watch and end them as the loop asks.
    Spawn {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// End all services at SIGTERM; without it they go on.
        #[arg(long)]
        stop_services_on_exit: bool,
    },
}

/// The configuration is wrong, as opposed to anything else (1).
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().role {
        Role::Check { file } => match Config::load(&file) {
            Ok(config) => {
                println!(
                    "{}: {} services, fine",
                    file.display(),
                    config.services.len()
                );
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.into(), EXIT_CONFIG),
        },
        Role::Spawn {
            config,
            stop_services_on_exit,
        } => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .init();
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
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::from(code)
}
