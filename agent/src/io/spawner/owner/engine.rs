//! Containers, by the API that Docker and Podman share.
//!
//! A container is made by whoever installs the node and only run from here: found,
//! started, signalled, looked at. It is asked for by its name, and by its id once it
//! is known, so that one of the same name that was made meanwhile gets no signal
//! meant for another.
//!
//! A share of the processors ends with the life in Podman and stays in Docker, so
//! the next start puts back what was there; a spawner that was killed in between has
//! forgotten that.
//!
//! Does not create, pull or remove anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use homeostat_common::units::Bytes;
use rustix::process::Pid;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::http::{Answer, HttpError, ask};
use super::{Found, Handle, OwnerError, SETTLED_MAX, all_cores, noticed, pauses};
use crate::config::Container;
use crate::io::spawner::protocol::{Exit, ProcessAct, StopSignal};

/// What an engine adds to the number of the signal that ended a container.
const BY_SIGNAL: i64 = 128;
/// Over how long a share of the processors is kept; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// Largest number of a signal.
const SIGNAL_MAX: i64 = 64;

/// What an engine tells of a container; whatever is absent is as in one at rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inspected {
    id: String,
    state: State,
    host_config: HostConfig,
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct State {
    running: bool,
    paused: bool,
    pid: i32,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    started_at: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostConfig {
    restart_policy: RestartPolicy,
    cpu_period: u64,
    cpu_quota: i64,
}

/// How much of each period of one core a container may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    period: u64,
    quota: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RestartPolicy {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    /// A name, or a number as text or not.
    stop_signal: serde_json::Value,
}

/// What an engine says when it will not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Complaint {
    message: String,
}

/// What runs, if anything does.
pub(super) async fn find(container: &Container) -> Result<Option<Found>, OwnerError> {
    let (engine, name) = (&container.engine, &container.name);
    let seen = inspect(engine, name).await?;
    accept(container, &seen)?;
    let Some(pid) = running(&seen) else {
        return Ok(None);
    };
    let handle = Handle::Container {
        engine: engine.clone(),
        id: seen.id.clone(),
    };
    let Some(found) = Found::open(pid, handle, name)? else {
        return Ok(None);
    };
    // As long as the engine calls it running it has not been reaped, so the pid
    // was its own when the pidfd was opened.
    let again = inspect(engine, &seen.id).await?;
    let same = running(&again) == Some(pid) && again.state.started_at == seen.state.started_at;
    Ok(same.then_some(found))
}

/// What has to be put back, by the id of the container.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<BTreeMap<String, Share>>);

/// Has it run, and says what runs then; the caller limits how long that takes.
pub(super) async fn start(
    container: &Container,
    limit: Duration,
    shares: &Shares,
) -> Result<Found, OwnerError> {
    let (engine, name) = (&container.engine, &container.name);
    let mut ordered = false;
    let mut waited = Duration::ZERO;
    for pause in pauses(limit) {
        if let Some(found) = noticed(find(container).await, waited)? {
            return Ok(found);
        }
        let seen = inspect(engine, name).await?;
        if running(&seen).is_some() {
            // It has ended, and the engine has not noticed yet.
            waited += pause;
            tokio::time::sleep(pause).await;
        } else if ordered {
            return Err(OwnerError::Ended {
                name: format!("container {name}"),
                how: format!("exit status {}", seen.state.exit_code),
            });
        } else {
            let mut shares = shares.0.lock().await;
            if let Some(share) = shares.get(&seen.id).copied() {
                put_share(engine, &seen.id, share).await?;
                shares.remove(&seen.id);
            }
            drop(shares);
            let path = format!("/containers/{}/start", seen.id);
            let answer = ask(engine, "POST", &path, b"").await?;
            // 304: it runs by now.
            accepted(name, answer, &[204, 304])?;
            ordered = true;
        }
    }
    let name = format!("container {name}");
    Err(OwnerError::Late { name, limit })
}

/// Sends the signal that the container wants to be asked with, or SIGKILL.
pub(super) async fn signal(engine: &Path, id: &str, signal: StopSignal) -> Result<(), OwnerError> {
    let seen = inspect(engine, id).await?;
    if seen.state.paused {
        // Engines signal nothing that is paused.
        let answer = ask(engine, "POST", &format!("/containers/{id}/unpause"), b"").await?;
        accepted(id, answer, &[204])?;
    }
    let signal = match signal {
        StopSignal::Kill => "SIGKILL".to_owned(),
        StopSignal::Term => stop_signal(&seen.config.stop_signal),
    };
    let path = format!("/containers/{id}/kill?signal={signal}");
    let answer = ask(engine, "POST", &path, b"").await?;
    // 409: it has ended by now.
    accepted(id, answer, &[204, 409])?;
    Ok(())
}

/// Pauses it, lets it go on, or leaves it a share of the processors.
pub(super) async fn act(
    engine: &Path,
    id: &str,
    act: ProcessAct,
    shares: &Shares,
) -> Result<(), OwnerError> {
    let seen = inspect(engine, id).await?;
    let word = match act {
        ProcessAct::Freeze if seen.state.paused => return Ok(()),
        ProcessAct::Thaw if !seen.state.paused => return Ok(()),
        ProcessAct::Freeze => "pause",
        ProcessAct::Thaw => "unpause",
        ProcessAct::LimitCpu(part) => {
            let mut shares = shares.0.lock().await;
            let present = || Share::of(&seen.host_config);
            let former = *shares.entry(id.to_owned()).or_insert_with(present);
            let share = part.map_or(former, |part| Share {
                period: CPU_PERIOD_US,
                quota: part.of(all_cores(CPU_PERIOD_US)),
            });
            put_share(engine, id, share).await?;
            // Not before: what is asked for again must still be known.
            if part.is_none() {
                shares.remove(id);
            }
            return Ok(());
        }
    };
    let answer = ask(engine, "POST", &format!("/containers/{id}/{word}"), b"").await?;
    accepted(id, answer, &[204])?;
    Ok(())
}

impl Share {
    fn of(config: &HostConfig) -> Self {
        match u64::try_from(config.cpu_quota) {
            Ok(quota) if quota > 0 => Self {
                period: config.cpu_period.max(1),
                quota,
            },
            // No number means "no limit" to all engines, and all cores are none.
            _ => Self {
                period: CPU_PERIOD_US,
                quota: all_cores(CPU_PERIOD_US),
            },
        }
    }
}

async fn put_share(engine: &Path, id: &str, share: Share) -> Result<(), OwnerError> {
    let Share { period, quota } = share;
    let docker = format!("{{\"CpuPeriod\":{period},\"CpuQuota\":{quota}}}");
    let podman = format!("{{\"cpu\":{{\"period\":{period},\"quota\":{quota}}}}}");
    update(engine, id, &docker, &podman).await
}

/// How the life ended that `pid` was of.
pub(super) async fn end(engine: &Path, id: &str, pid: Pid) -> Exit {
    for pause in pauses(SETTLED_MAX) {
        match inspect(engine, id).await {
            // The engine hears of it later than we do.
            Ok(seen) if running(&seen) == Some(pid) => tokio::time::sleep(pause).await,
            Ok(seen) if running(&seen).is_none() => return exit(&seen.state),
            // Somebody has started it again; or it is gone.
            Ok(_) | Err(_) => return Exit::Unknown,
        }
    }
    Exit::Unknown
}

/// Sets the memory limit of this life.
pub(super) async fn limit(engine: &Path, id: &str, max: Bytes) -> Result<(), OwnerError> {
    // Swap counts in: what is written out still is memory that it took. Podman adds
    // that where the kernel counts swap, and refuses it where it does not.
    let docker = format!("{{\"Memory\":{0},\"MemorySwap\":{0}}}", max.0);
    let podman = format!("{{\"memory\":{{\"limit\":{}}}}}", max.0);
    update(engine, id, &docker, &podman).await
}

/// Changes the limits of a container: as Docker does it, or in the words of Podman
/// before it knew those.
async fn update(engine: &Path, id: &str, docker: &str, podman: &str) -> Result<(), OwnerError> {
    let path = format!("/containers/{id}/update");
    let answer = ask(engine, "POST", &path, docker.as_bytes()).await?;
    if answer.status == 404 {
        let path = format!("/v4.0.0/libpod{path}");
        let answer = ask(engine, "POST", &path, podman.as_bytes()).await?;
        accepted(id, answer, &[200, 201])?;
    } else {
        accepted(id, answer, &[200])?;
    }
    Ok(())
}

async fn inspect(engine: &Path, name: &str) -> Result<Inspected, OwnerError> {
    let path = format!("/containers/{name}/json");
    let answer = ask(engine, "GET", &path, b"").await?;
    if answer.status == 404 {
        return Err(OwnerError::NoContainer {
            name: name.to_owned(),
            engine: engine.to_owned(),
        });
    }
    let body = accepted(name, answer, &[200])?;
    let seen: Inspected = serde_json::from_slice(&body).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric();
    if seen.id.is_empty() || !seen.id.chars().all(plain) {
        return Err(OwnerError::Http(HttpError::Answer {
            question: format!("GET {path}"),
            what: "no description of a container",
        }));
    }
    Ok(seen)
}

fn accept(container: &Container, seen: &Inspected) -> Result<(), OwnerError> {
    let policy = seen.host_config.restart_policy.name.as_str();
    if container.restarts || matches!(policy, "" | "no") {
        return Ok(());
    }
    Err(OwnerError::Restarts {
        name: format!("container {}", container.name),
        policy: format!("restart policy {policy:?}"),
        key: "restart_by_engine",
    })
}

fn running(seen: &Inspected) -> Option<Pid> {
    let runs = seen.state.running && seen.state.pid > 0;
    runs.then(|| Pid::from_raw(seen.state.pid))?
}

fn exit(state: &State) -> Exit {
    let signal = state.exit_code - BY_SIGNAL;
    match i32::try_from(signal) {
        _ if state.oom_killed => Exit::OutOfMemory,
        Ok(signal) if (1..=SIGNAL_MAX).contains(&i64::from(signal)) => Exit::Signal(signal),
        _ => i32::try_from(state.exit_code).map_or(Exit::Unknown, Exit::Code),
    }
}

/// The signal as it goes into a path.
fn stop_signal(said: &serde_json::Value) -> String {
    let text = match said {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    // SIGRTMIN+3 and the like: systemd inside a container wants that.
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '-';
    if text.is_empty() || text == "0" || !text.chars().all(fits) {
        return "SIGTERM".into();
    }
    text.replace('+', "%2B")
}

/// The body of an answer with one of the `wanted` statuses.
fn accepted(name: &str, answer: Answer, wanted: &[u16]) -> Result<Vec<u8>, OwnerError> {
    if wanted.contains(&answer.status) {
        return Ok(answer.body);
    }
    let complaint: Complaint = serde_json::from_slice(&answer.body).unwrap_or_default();
    Err(OwnerError::Refused {
        name: format!("container {name}"),
        text: format!("status {}: {}", answer.status, complaint.message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_from_what_the_engine_says() {
        let state = |exit_code, oom_killed| State {
            exit_code,
            oom_killed,
            ..State::default()
        };
        assert_eq!(exit(&state(3, false)), Exit::Code(3));
        assert_eq!(exit(&state(137, false)), Exit::Signal(9));
        assert_eq!(exit(&state(137, true)), Exit::OutOfMemory);
        // No signal has such a number.
        assert_eq!(exit(&state(255, false)), Exit::Code(255));
    }

    #[test]
    fn the_share_that_is_put_back_is_the_one_it_had() {
        let said = |quota| {
            let text = format!(r#"{{"CpuPeriod":50000,"CpuQuota":{quota}}}"#);
            Share::of(&serde_json::from_str(&text).unwrap())
        };
        let had = Share {
            period: 50_000,
            quota: 7_000,
        };
        assert_eq!(said(7_000), had);
        let all = Share {
            period: CPU_PERIOD_US,
            quota: all_cores(CPU_PERIOD_US),
        };
        assert_eq!([said(0), said(-1)], [all, all]);
    }

    #[test]
    fn a_stop_signal_is_taken_in_all_its_forms_and_nothing_else() {
        for (said, sent) in [
            (r#""SIGQUIT""#, "SIGQUIT"),
            (r#""15""#, "15"),
            ("15", "15"),
            (r#""SIGRTMIN+3""#, "SIGRTMIN%2B3"),
            ("null", "SIGTERM"),
            ("0", "SIGTERM"),
            (r#""9&force=1""#, "SIGTERM"),
        ] {
            let said = serde_json::from_str(said).unwrap();
            assert_eq!(stop_signal(&said), sent);
        }
    }

    #[test]
    fn a_restart_policy_is_refused_unless_the_file_admits_it() {
        let mut container = Container {
            name: "web".into(),
            engine: "/e".into(),
            restarts: false,
        };
        let said = |policy: &str| -> Inspected {
            let text =
                format!(r#"{{"Id":"a1","HostConfig":{{"RestartPolicy":{{"Name":"{policy}"}}}}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        assert!(accept(&container, &said("no")).is_ok());
        assert!(accept(&container, &said("")).is_ok());
        let error = accept(&container, &said("always")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "container web has restart policy \"always\", and two healers would undo each other's \
             pauses: take it away there, or set restart_by_engine = true here"
        );
        container.restarts = true;
        assert!(accept(&container, &said("always")).is_ok());
    }
}
