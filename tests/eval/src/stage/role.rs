//! One program, every part: its hidden first argument says which part it is to be.
//!
//! `__broker`, `__coordinator`, `__spawn`, `__agent` and `__forwarder` are followed by their
//! parent's pid and then by the arguments of the real command; `__web` by pid and the kind of
//! server; `__run` by pid and any other program; `__service`, `__forward` and `__store` by their own
//! arguments, since others start them. A part asks the kernel to end it with its
//! parent, so that nothing outlives a demo that was killed with SIGKILL.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use homeostat_agent::io::keeper::TRIAL_ARGS;
use homeostat_agent::io::spawner::chaos::HELPER_ARG;
use homeostat_testbed::{SERVICE_ARG, service_main};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::bed::cages::{GUARD_ARG, guard_main};
use crate::experiments::power_cut::{self, WRITER_ARG};

/// The forwarder: what follows is what `homeostat-agent forward` takes.
pub const FORWARD_ARG: &str = "__forward";

/// In the place of a parent's pid: whoever the parent is. For a part that another program has
/// replaced itself by.
pub const OWN_PARENT: &str = "any";

/// What a process of the stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Broker,
    Coordinator,
    Spawner,
    Agent,
    Forwarder,
    /// What an experiment sends its requests to; see [`crate::experiments::forward`].
    Web,
    /// Another program, named by the first of its arguments.
    Other,
}

impl Role {
    #[must_use]
    pub fn arg(self) -> &'static str {
        match self {
            Self::Broker => "__broker",
            Self::Coordinator => "__coordinator",
            Self::Spawner => "__spawn",
            Self::Agent => "__agent",
            Self::Forwarder => "__forwarder",
            Self::Web => "__web",
            Self::Other => "__run",
        }
    }

    fn of(arg: &OsStr) -> Option<Self> {
        [
            Self::Broker,
            Self::Coordinator,
            Self::Spawner,
            Self::Agent,
            Self::Forwarder,
            Self::Web,
            Self::Other,
        ]
        .into_iter()
        .find(|role| role.arg() == arg)
    }

    /// What ends it when its parent is gone. The spawner has services to end first.
    fn death_signal(self) -> Signal {
        match self {
            Self::Spawner => Signal::TERM,
            Self::Broker
            | Self::Coordinator
            | Self::Agent
            | Self::Forwarder
            | Self::Web
            | Self::Other => Signal::KILL,
        }
    }
}

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Makes another program play the parts, for callers whose own `main` cannot [`dispatch`],
/// such as a test. The first call decides.
pub fn set_program(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// The program that plays the parts.
///
/// # Errors
/// When the own program cannot be found.
pub fn program() -> io::Result<PathBuf> {
    match PROGRAM.get() {
        Some(program) => Ok(program.clone()),
        None => std::env::current_exe(),
    }
}

/// Plays the part that the arguments ask for; `None` for the program itself. To be called
/// first in `main`, before any thread is started.
#[must_use]
pub fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let first = args.next()?;
    if first == SERVICE_ARG {
        return Some(service_main(args));
    }
    if first == FORWARD_ARG {
        let args = std::iter::once("forward".into()).chain(args);
        return Some(homeostat_agent::cli::main_from(named(
            "homeostat-agent",
            args,
        )));
    }
    if first == GUARD_ARG {
        return Some(guard_main(args));
    }
    if first == WRITER_ARG {
        return Some(power_cut::writer_main(args));
    }
    // The agent tries its store in a child, and the spawner has loads for faults on purpose:
    // this program once more.
    let mut hidden = TRIAL_ARGS.iter().chain([&HELPER_ARG]);
    if hidden.any(|word| first == *word) {
        return Some(homeostat_agent::cli::main_from(std::env::args_os()));
    }
    let role = Role::of(&first)?;
    let parent = args.next();
    let alive = |parent: &OsString| {
        let own = getppid().map(|pid| pid.as_raw_nonzero().to_string());
        parent == OWN_PARENT || own.as_deref().map(OsStr::new) == Some(parent)
    };
    // Whoever stands between has been told already.
    if parent.as_deref() != Some(OsStr::new(OWN_PARENT))
        && let Err(error) = set_parent_process_death_signal(Some(role.death_signal()))
    {
        eprintln!("{}: would outlive its parent: {error}", role.arg());
        return Some(ExitCode::FAILURE);
    }
    // The parent may have died before the kernel was told.
    if !parent.as_ref().is_some_and(alive) {
        eprintln!(
            "{}: the parent named by the second argument is gone",
            role.arg()
        );
        return Some(ExitCode::FAILURE);
    }
    Some(match role {
        Role::Broker | Role::Coordinator => {
            homeostat_coordinator::main_from(named("homeostat", args))
        }
        Role::Web => crate::experiments::forward::web_main(args),
        Role::Spawner | Role::Agent | Role::Forwarder => {
            homeostat_agent::cli::main_from(named("homeostat-agent", args))
        }
        Role::Other => {
            let program = args.next().unwrap_or_default();
            let error = Command::new(&program).args(args).exec();
            eprintln!("cannot run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    })
}

fn named(program: &str, args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    std::iter::once(program.into()).chain(args)
}
