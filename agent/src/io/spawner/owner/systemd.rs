//! Units, by systemd's D-Bus interface.
//!
//! A unit is asked to end as its process would be: by its own `KillSignal=`, sent to
//! the main process. A stop job is not used, because systemd would take with it what
//! `Requires=` the unit and not bring that back; after a death by itself, or by a
//! signal, it does not. `ExecStop=` and the rest of the group are systemd's to see to.
//!
//! A start begins with `ResetFailedUnit`, which also forgets how often the unit was
//! started lately: how often is too often is decided by the loop, and a start limit
//! of systemd's would end the healing unseen. For the same reason `Restart=` has to
//! be `no`. It cannot be overridden from here: `SetUnitProperties` refuses it, and a
//! drop-in in `/run` would change somebody's unit behind his back.
//!
//! A share of the processors is a runtime property of the unit and would outlive the
//! process; the next start puts back what was there. A spawner that was killed in
//! between has forgotten it: then the share stays until it is taken back.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use homeostat_common::units::Bytes;
use rustix::process::{Pid, Signal};
use tokio::sync::Mutex;
use zbus::{
    Connection, DBusError as _, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant, fdo,
};

use super::{Found, Handle, OwnerError, SETTLED_MAX, all_cores, noticed, pauses};
use crate::config::Unit;
use crate::io::spawner::protocol::{Exit, ProcessAct, StopSignal};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

const CPU_SHARE: &str = "CPUQuotaPerSecUSec";

/// Systemd answers within a millisecond unless the machine is stuck.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long what a dead main process left behind may take to end by itself before a
/// start kills it: it may hold the ports that the next life needs.
const REST_TIME: Duration = Duration::from_millis(200);
/// `CLD_EXITED`, `CLD_KILLED` and `CLD_DUMPED`, in `ExecMainCode`.
const EXITED: i32 = 1;
const KILLED: [i32; 2] = [2, 3];

/// The way to systemd; connects when it is first needed, and again when it is lost.
#[derive(Debug, Default)]
pub(super) struct Systemd {
    connection: Mutex<Option<Connection>>,
    /// What units that got a share of the processors here had before.
    shares: Mutex<BTreeMap<String, u64>>,
}

/// What matters of a unit at one moment.
#[derive(Debug)]
struct Seen {
    active: String,
    main: Option<Pid>,
    job: bool,
    result: String,
}

impl Systemd {
    /// What runs, if anything does.
    pub(super) async fn find(&self, unit: &Unit) -> Result<Option<Found>, OwnerError> {
        let path = self.load(unit).await?;
        let seen = self.look(&unit.name, &path).await?;
        self.take(&unit.name, &path, &seen).await
    }

    /// Has it run, and says what runs then; the caller limits how long that takes.
    pub(super) async fn start(&self, unit: &Unit, limit: Duration) -> Result<Found, OwnerError> {
        let name = unit.name.as_str();
        let path = self.load(unit).await?;
        let mut shares = self.shares.lock().await;
        if let Some(share) = shares.get(name).copied() {
            self.set(name, CPU_SHARE, share).await?;
            shares.remove(name);
        }
        drop(shares);
        let mut ordered = false;
        let mut killed = false;
        let mut bare = false;
        let mut waited = Duration::ZERO;
        for pause in pauses(limit) {
            let seen = self.look(name, &path).await?;
            let taken = self.take(name, &path, &seen).await;
            if let Some(found) = noticed(taken, waited)? {
                return Ok(found);
            }
            let ended = matches!(seen.active.as_str(), "failed" | "inactive") && !seen.job;
            if ended && ordered {
                return Err(self.ended(name, &path, &seen).await);
            }
            if !ordered && matches!(seen.active.as_str(), "failed" | "inactive") {
                // Systemd has it restarted by itself, if it was told to.
                self.reset(name).await?;
                self.call(
                    name,
                    "start",
                    MANAGER_PATH,
                    MANAGER,
                    "StartUnit",
                    &(name, "replace"),
                )
                .await?;
                ordered = true;
                continue;
            }
            // Once may be an end between two answers.
            if seen.active == "active" && seen.main.is_none() && std::mem::replace(&mut bare, true)
            {
                let kind = self.get(name, &path, SERVICE, "Type").await?;
                let name = name.to_owned();
                return Err(OwnerError::NoProcess { name, kind });
            }
            if seen.active == "deactivating" && !killed && waited >= REST_TIME {
                killed = true;
                self.kill(name, "all", Signal::KILL.as_raw()).await?;
            }
            waited += pause;
            tokio::time::sleep(pause).await;
        }
        let name = name.to_owned();
        Err(OwnerError::Late { name, limit })
    }

    /// Sends the signal that the unit wants to be asked with to its main process, or
    /// SIGKILL to all of it.
    pub(super) async fn signal(&self, name: &str, signal: StopSignal) -> Result<(), OwnerError> {
        match signal {
            StopSignal::Kill => {
                let kill = Signal::KILL.as_raw();
                self.kill(name, "all", kill).await
            }
            StopSignal::Term => {
                let path = self.path(name).await?;
                let signal: i32 = self.get(name, &path, SERVICE, "KillSignal").await?;
                self.kill(name, "main", signal).await?;
                // A frozen process would not hear of it; one that has ended by now
                // needs nothing more.
                let _ = self.kill(name, "all", Signal::CONT.as_raw()).await;
                Ok(())
            }
        }
    }

    /// Freezes it by signals, as services of the spawner are: `FreezeUnit` needs
    /// version 2 of control groups.
    pub(super) async fn act(&self, name: &str, act: ProcessAct) -> Result<(), OwnerError> {
        match act {
            ProcessAct::Freeze => self.kill(name, "all", Signal::STOP.as_raw()).await,
            ProcessAct::Thaw => self.kill(name, "all", Signal::CONT.as_raw()).await,
            ProcessAct::LimitCpu(share) => {
                let path = self.path(name).await?;
                let mut shares = self.shares.lock().await;
                let present: u64 = self.get(name, &path, SERVICE, CPU_SHARE).await?;
                let former = *shares.entry(name.to_owned()).or_insert(present);
                // Of each second of one core.
                let quota = share.map_or(former, |share| share.of(all_cores(1_000_000)));
                self.set(name, CPU_SHARE, quota).await?;
                // Not before: what is asked for again must still be known.
                if share.is_none() {
                    shares.remove(name);
                }
                Ok(())
            }
        }
    }

    /// How the life ended that `pid` was the main process of.
    pub(super) async fn end(&self, name: &str, pid: Pid) -> Exit {
        self.how_it_ended(name, pid).await.unwrap_or_else(|error| {
            let error = crate::io::keeper::chain(&error);
            tracing::warn!(error, "cannot find out how {name} ended");
            Exit::Unknown
        })
    }

    /// Sets its memory limit until the next boot.
    pub(super) async fn limit(&self, name: &str, max: Bytes) -> Result<(), OwnerError> {
        self.set(name, "MemoryMax", max.0).await
    }

    async fn set(&self, name: &str, property: &str, value: u64) -> Result<(), OwnerError> {
        let values = [(property, Variant::from(value))];
        let body = (name, true, &values[..]);
        self.call(
            name,
            "limit",
            MANAGER_PATH,
            MANAGER,
            "SetUnitProperties",
            &body,
        )
        .await?;
        Ok(())
    }

    async fn how_it_ended(&self, name: &str, pid: Pid) -> Result<Exit, OwnerError> {
        let path = self.path(name).await?;
        for pause in pauses(SETTLED_MAX) {
            let seen = self.look(name, &path).await?;
            if seen.main == Some(pid) {
                // It hears of it later than we do.
                tokio::time::sleep(pause).await;
                continue;
            }
            let last: u32 = self.get(name, &path, SERVICE, "ExecMainPID").await?;
            if i64::from(last) != i64::from(pid.as_raw_nonzero().get()) {
                break;
            }
            if seen.result == "oom-kill" {
                return Ok(Exit::OutOfMemory);
            }
            let code: i32 = self.get(name, &path, SERVICE, "ExecMainCode").await?;
            let status: i32 = self.get(name, &path, SERVICE, "ExecMainStatus").await?;
            return Ok(match code {
                EXITED => Exit::Code(status),
                code if KILLED.contains(&code) => Exit::Signal(status),
                _ => Exit::Unknown,
            });
        }
        Ok(Exit::Unknown)
    }

    /// Its main process, if that lives.
    async fn take(
        &self,
        name: &str,
        path: &OwnedObjectPath,
        seen: &Seen,
    ) -> Result<Option<Found>, OwnerError> {
        let runs = matches!(seen.active.as_str(), "active" | "activating" | "reloading");
        let Some(pid) = seen.main.filter(|_| runs) else {
            return Ok(None);
        };
        let handle = Handle::Unit(name.to_owned());
        let Some(found) = Found::open(pid, handle, name)? else {
            return Ok(None);
        };
        // As long as systemd calls it the main process it has not reaped it, so the
        // pid was its own when the pidfd was opened.
        let again = self.look(name, path).await?;
        Ok((again.main == Some(pid)).then_some(found))
    }

    /// The unit's object, if the unit can be run and nobody else heals it.
    async fn load(&self, unit: &Unit) -> Result<OwnedObjectPath, OwnerError> {
        let name = unit.name.as_str();
        let path = self.path(name).await?;
        let state: String = self.get(name, &path, UNIT, "LoadState").await?;
        let how = match state.as_str() {
            "loaded" => None,
            "not-found" => Some("has no".to_owned()),
            "masked" => Some("was told by somebody never to start (masked)".to_owned()),
            other => Some(format!("cannot load ({other})")),
        };
        if let Some(how) = how {
            let unit = name.to_owned();
            return Err(OwnerError::NoUnit { unit, how });
        }
        let kind: String = self.get(name, &path, SERVICE, "Type").await?;
        if kind == "oneshot" {
            let name = name.to_owned();
            return Err(OwnerError::NoProcess { name, kind });
        }
        let policy: String = self.get(name, &path, SERVICE, "Restart").await?;
        if policy != "no" && !unit.restarts {
            return Err(OwnerError::Restarts {
                name: format!("unit {name}"),
                policy: format!("Restart={policy}"),
                key: "restart_by_systemd",
            });
        }
        // Else systemd forgets how it ended as soon as it has; for as long as this
        // connection lasts. Systemd before 234 cannot, and forgets.
        let _ = self
            .call(name, "keep", MANAGER_PATH, MANAGER, "RefUnit", &(name,))
            .await;
        Ok(path)
    }

    async fn path(&self, name: &str) -> Result<OwnedObjectPath, OwnerError> {
        let reply = self
            .call(name, "load", MANAGER_PATH, MANAGER, "LoadUnit", &(name,))
            .await?;
        let path = reply.body().deserialize::<OwnedObjectPath>();
        path.map_err(|source| unit_error("load", name, source))
    }

    /// One property after the other, in the order that a start sets them: a state
    /// read after the last job is what the job has led to, and a process read after
    /// that is its process.
    async fn look(&self, name: &str, path: &OwnedObjectPath) -> Result<Seen, OwnerError> {
        let (job, _): (u32, OwnedObjectPath) = self.get(name, path, UNIT, "Job").await?;
        let active = self.get(name, path, UNIT, "ActiveState").await?;
        let main: u32 = self.get(name, path, SERVICE, "MainPID").await?;
        let result = self.get(name, path, SERVICE, "Result").await?;
        let main = i32::try_from(main).ok().filter(|pid| *pid > 0);
        Ok(Seen {
            active,
            main: main.and_then(Pid::from_raw),
            job: job != 0,
            result,
        })
    }

    async fn ended(&self, name: &str, path: &OwnedObjectPath, seen: &Seen) -> OwnerError {
        let status = self.get::<i32>(name, path, SERVICE, "ExecMainStatus").await;
        let status = status.map_or(String::new(), |status| format!(", status {status}"));
        OwnerError::Ended {
            name: format!("unit {name}"),
            how: format!("{}{status}", seen.result),
        }
    }

    async fn reset(&self, name: &str) -> Result<(), OwnerError> {
        let reset = self
            .call(
                name,
                "reset",
                MANAGER_PATH,
                MANAGER,
                "ResetFailedUnit",
                &(name,),
            )
            .await;
        match reset {
            // Nothing is known of it, so nothing is held against it either.
            Err(OwnerError::Unit { error, .. }) if is_unknown(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    async fn kill(&self, name: &str, whom: &str, signal: i32) -> Result<(), OwnerError> {
        let body = (name, whom, signal);
        self.call(name, "signal", MANAGER_PATH, MANAGER, "KillUnit", &body)
            .await?;
        Ok(())
    }

    async fn get<T>(
        &self,
        name: &str,
        path: &OwnedObjectPath,
        interface: &str,
        property: &str,
    ) -> Result<T, OwnerError>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let body = (interface, property);
        let reply = self
            .call(name, "tell of", path.as_str(), PROPERTIES, "Get", &body)
            .await?;
        let value = reply.body().deserialize::<OwnedVariant>();
        let value = value.map_err(|source| unit_error("tell of", name, source))?;
        T::try_from(value).map_err(|error| unit_error("tell of", name, error.into()))
    }

    async fn call<B>(
        &self,
        name: &str,
        what: &'static str,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, OwnerError>
    where
        B: serde::Serialize + DynamicType,
    {
        // A signal is not sent twice: it could reach the next life.
        let mut again = method != "KillUnit";
        let mut waits = pauses(SETTLED_MAX);
        loop {
            let (connection, fresh) = self.connection().await?;
            let called = connection.call_method(Some(SYSTEMD), path, Some(interface), method, body);
            let (reply, late) = match tokio::time::timeout(ANSWER_TIME, called).await {
                Ok(reply) => (reply, false),
                Err(_) => (Err(late()), true),
            };
            let error = match reply {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match lost(&error) {
                Lost::Nobody => return Err(unit_error(what, name, error)),
                // On a new bus it takes systemd a moment to be there.
                Lost::Systemd => match waits.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(OwnerError::Bus(Box::new(error))),
                },
                Lost::Bus => {
                    // By another connection, then.
                    *self.connection.lock().await = None;
                    if fresh || late || !std::mem::take(&mut again) {
                        return Err(OwnerError::Bus(Box::new(error)));
                    }
                }
            }
        }
    }

    /// The way to the bus, and whether it was made just now.
    async fn connection(&self) -> Result<(Connection, bool), OwnerError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok((connection.clone(), false));
        }
        let connecting = tokio::time::timeout(ANSWER_TIME, Connection::system()).await;
        let fresh = connecting.unwrap_or_else(|_| Err(late()));
        let fresh = fresh.map_err(|error| OwnerError::Bus(Box::new(error)))?;
        *connection = Some(fresh.clone());
        Ok((fresh, true))
    }
}

fn unit_error(what: &'static str, unit: &str, error: zbus::Error) -> OwnerError {
    OwnerError::Unit {
        what,
        unit: unit.to_owned(),
        error: Box::new(error),
    }
}

fn late() -> zbus::Error {
    let text = format!("no answer within {} s", ANSWER_TIME.as_secs());
    zbus::Error::InputOutput(io::Error::new(io::ErrorKind::TimedOut, text).into())
}

fn is_unknown(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.ends_with(".NoSuchUnit"))
}

/// Who is not there, by an error.
enum Lost {
    /// It is systemd's own answer.
    Nobody,
    Bus,
    /// There is a bus, and systemd is not on it.
    Systemd,
}

fn lost(error: &zbus::Error) -> Lost {
    let error = match error {
        zbus::Error::MethodError(..) => return Lost::Nobody,
        zbus::Error::FDO(error) => error,
        _ => return Lost::Bus,
    };
    match &**error {
        fdo::Error::NameHasNoOwner(_) | fdo::Error::ServiceUnknown(_) => Lost::Systemd,
        fdo::Error::Disconnected(_)
        | fdo::Error::NoReply(_)
        | fdo::Error::NoServer(_)
        | fdo::Error::TimedOut(_)
        | fdo::Error::Timeout(_) => Lost::Bus,
        // A bus that does not find it tries to start it, in several ways that fail.
        error if error.name().contains(".Spawn.") => Lost::Systemd,
        _ => Lost::Nobody,
    }
}
