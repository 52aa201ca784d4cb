//! Who runs a service's process, and by which name.
//!
//! In: `command`, `unit` or `container` of a `[[service]]`, exactly one of them.
//! Out: a [`Process`]. Names are taken as they are written; whether systemd or the
//! engine knows them is found out where they are used.

use std::path::PathBuf;

use toml::de::DeValue;

use super::fields::{Fields, Wanted, flag, text};
use super::sections::{absolute, command};

/// Where Docker listens, and Podman where it stands in for it.
const DOCKER: &str = "/var/run/docker.sock";
/// Longest name of a unit (`UNIT_NAME_MAX`), and more than engines take.
const NAME_MAX: usize = 255;

/// Who runs the process of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// `command`: the spawner, as its parent. The program, by absolute path, and
    /// its arguments.
    Command(Vec<String>),
    /// `unit`: systemd.
    Unit(Unit),
    /// `container`: an engine that speaks Docker's API.
    Container(Container),
}

/// A service unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `unit`, such as `camera.service`.
    pub name: String,
    /// `restart_by_systemd`, default false: then a unit with a `Restart=` of its
    /// own is refused, because two healers undo each other's pauses.
    pub restarts: bool,
}

/// A container that exists already, whether it runs or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// `container`: its name, or its id.
    pub name: String,
    /// `engine`, default Docker's socket: where the engine listens.
    pub engine: PathBuf,
    /// `restart_by_engine`, default false: then a container with a restart policy
    /// of its own is refused.
    pub restarts: bool,
}

/// Reads the keys of all kinds; `None` when something is wrong, and reported.
pub(super) fn process(at: &mut Fields<'_, '_>) -> Option<Process> {
    let kinds = ["command", "unit", "container"];
    let named: Vec<&str> = kinds.into_iter().filter(|kind| at.has(kind)).collect();
    let command = at.optional("command", command);
    let unit = at.optional("unit", unit_name);
    let container = at.optional("container", container_name);
    let engine = at.optional("engine", engine);
    let by_systemd = at.optional("restart_by_systemd", flag);
    let by_engine = at.optional("restart_by_engine", flag);
    let [kind] = named[..] else {
        match named.last() {
            None => at.missing("command", "is required, or unit, or container"),
            Some(last) => at.wrong(last, "only one of command, unit and container fits"),
        }
        return None;
    };
    for (key, of) in [
        ("engine", "container"),
        ("restart_by_engine", "container"),
        ("restart_by_systemd", "unit"),
    ] {
        if at.has(key) && of != kind {
            at.wrong(
                key,
                format!("is for a service that is a {of}, not a {kind}"),
            );
        }
    }
    let unit = unit.map(|name| {
        Process::Unit(Unit {
            name,
            restarts: by_systemd.unwrap_or(false),
        })
    });
    let container = container.map(|name| {
        Process::Container(Container {
            name,
            engine: engine.unwrap_or_else(|| DOCKER.into()),
            restarts: by_engine.unwrap_or(false),
        })
    });
    command.map(Process::Command).or(unit).or(container)
}

/// Reports keys that say how a process is started, where somebody else does.
pub(super) fn only_commands(at: &Fields<'_, '_>, process: Option<&Process>) {
    let kind = match process {
        None | Some(Process::Command(_)) => return,
        Some(Process::Unit(_)) => "unit",
        Some(Process::Container(_)) => "container",
    };
    for key in ["env", "cwd", "user", "log", "log_max"] {
        if at.has(key) {
            at.wrong(key, format!("is for a command; a {kind} says so itself"));
        }
    }
}

fn unit_name(value: &DeValue<'_>) -> Result<String, Wanted> {
    let name = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = name.strip_suffix(".service").unwrap_or_default();
    if !stem.is_empty() && name.len() <= NAME_MAX && name.chars().all(fits) {
        Ok(name)
    } else {
        Err("expected the whole name of a service unit, such as \"camera.service\"".into())
    }
}

fn container_name(value: &DeValue<'_>) -> Result<String, Wanted> {
    let name = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && name.len() <= NAME_MAX && name.chars().all(fits) {
        Ok(name)
    } else {
        Err("expected the name or id of a container: a-z, A-Z, 0-9, '_', '.', '-'".into())
    }
}

fn engine(value: &DeValue<'_>) -> Result<PathBuf, Wanted> {
    let wanted = "expected \"unix://\" and the absolute path of a socket without spaces";
    let address = text(value)?;
    let path = address.strip_prefix("unix://").ok_or(wanted)?;
    if path.contains(char::is_whitespace) {
        return Err(wanted.into());
    }
    absolute(&DeValue::String(path.into())).map_err(|_| wanted.into())
}
