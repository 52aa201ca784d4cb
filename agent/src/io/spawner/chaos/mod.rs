//! Faults on purpose, as the spawner puts them into a service and ends them.
//!
//! In: a wish that the loop has judged. What the loop may get wrong is judged once more: only
//! services that opted in with `chaos = true`, never one that is protected, one fault at a
//! time, none for longer than [`SPAN_MAX`]. Out: one fault, a record of how it is undone that
//! is on the disk before it is done, and its end: when its time is over, when its process is
//! gone and nothing else is left of it, when the loop asks, and when the spawner dies: by the
//! kernel, by a guard, or at the next start. Loops may come and go meanwhile.
//!
//! Nothing is healed here: a service that was killed is started by the loop, or not at all.

mod files;
mod guard;
mod hold;
mod load;
mod record;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use homeostat_common::ids::{BootId, ServiceId};
use homeostat_common::units::{Bytes, Millis};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use self::guard::Guard;
pub use self::load::{HELPER_ARG, helper_main};
use self::load::{Load, Running};
use self::record::{Place, Record, Undo};
use super::process::Live;
use super::slots::Slot;
use crate::chaos::{Injection, SPAN_MAX};
use crate::config::{Data, Service};
use crate::io::data;

/// The name that a file which fills a folder has in place of a pattern's `*`.
const BALLAST: &str = "homeostat-chaos";

/// A fault that is in force.
#[derive(Debug)]
struct Active {
    record: Record,
    until: Instant,
    /// Whoever takes memory or processors; ended with this.
    load: Option<Running>,
    /// Ends it if the spawner cannot; there where something is to be undone.
    guard: Option<Guard>,
}

/// All faults on purpose of this spawner: one, or none.
#[derive(Debug)]
pub(super) struct Chaos {
    /// Names the spawner in the marks of its services.
    spawner: String,
    data_dir: PathBuf,
    place: Result<Place, String>,
    boot: BootId,
    active: Option<Active>,
}

/// What is in force, for the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) service: ServiceId,
    pub(super) injection: Injection,
    pub(super) left: Millis,
}

/// Memory that the group of a service has left, and the way into it.
pub(super) struct Room<'g> {
    pub(super) free: Option<u64>,
    pub(super) join: &'g dyn Fn(u32) -> io::Result<()>,
}

impl Chaos {
    /// Ends what a former spawner did not.
    pub(super) fn open(data_dir: &Path, boot: BootId, spawner: &str) -> Self {
        let place = Place::open(data_dir).map_err(|error| error.to_string());
        if let Ok(place) = &place
            && let Some(record) = place.read()
        {
            let (service, injection) = (&record.service, record.injection);
            tracing::warn!(%service, %injection, "ends a fault on purpose of a former spawner");
            // What fails is tried again before the next fault, and by the next spawner.
            let _ = settle(place, &record, boot, spawner);
        }
        Self {
            spawner: spawner.to_owned(),
            data_dir: data_dir.to_owned(),
            place,
            boot,
            active: None,
        }
    }

    /// What is in force.
    pub(super) fn view(&self) -> Option<View> {
        let active = self.active.as_ref()?;
        let left = active.until.saturating_duration_since(Instant::now());
        Some(View {
            service: active.record.service.clone(),
            injection: active.record.injection,
            left: Millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// How long until something has to be ended.
    pub(super) fn due(&self) -> Option<Duration> {
        let active = self.active.as_ref()?;
        Some(active.until.saturating_duration_since(Instant::now()))
    }

    /// Puts a fault into a service.
    pub(super) fn begin(
        &mut self,
        slot: &Slot,
        injection: Injection,
        span: Millis,
        room: &Room<'_>,
    ) -> Result<(), String> {
        if let Some(view) = self.view() {
            return Err(format!(
                "{} of {} is in force",
                view.injection, view.service
            ));
        }
        if span > SPAN_MAX {
            return Err(format!("no fault lasts longer than {SPAN_MAX}"));
        }
        let spec = slot.spec.as_ref().ok_or("it is not configured any more")?;
        if !spec.chaos || spec.protected {
            return Err("it has not opted in with chaos = true, or is protected".into());
        }
        let live = slot.live.as_ref().ok_or("it does not run")?;
        let place = self.place.as_ref().map_err(|error| {
            format!("there is no safe place for the record of how it is undone: {error}")
        })?;
        // Its record is about to be written over.
        if let Some(former) = place.read() {
            settle(place, &former, self.boot, &self.spawner).map_err(|error| {
                let (service, injection) = (&former.service, former.injection);
                format!("{injection} of {service} cannot be undone: {error}")
            })?;
        }
        let failed = |error: io::Error| format!("{injection}: {error}");
        let record = Record {
            boot: self.boot,
            service: spec.id.clone(),
            instance: live.instance,
            pid: live.pid(),
            start: live.start,
            injection,
            undo: plan(spec, live, injection).map_err(failed)?,
        };
        let mut guard = None;
        if record.undo != Undo::Nothing {
            place.write(&record).map_err(failed)?;
            let started = Guard::start(&self.data_dir, &self.spawner, span);
            guard = Some(started.map_err(|error| {
                place.clear();
                failed(error)
            })?);
        }
        match inflict(spec, live, &record, span, room, &self.spawner) {
            Ok(load) => {
                tracing::warn!(service = %spec.id, %injection, %span, "a fault on purpose begins");
                self.active = injection.lasts().then(|| Active {
                    record,
                    until: Instant::now() + Duration::from_millis(span.0),
                    load,
                    guard,
                });
                Ok(())
            }
            Err(error) => {
                // Whatever was done of it.
                let _ = settle(place, &record, self.boot, &self.spawner);
                if let Some(guard) = guard {
                    guard.dismiss();
                }
                Err(failed(error))
            }
        }
    }

    /// Why the fault that is in force is to be ended, if it is. `lives`: whether the life that
    /// it was put into still runs.
    pub(super) fn over(&self, lives: impl Fn(&ServiceId) -> bool) -> Option<&'static str> {
        let active = self.active.as_ref()?;
        // Of a stopped process, a limit or a load nothing is left for the next life.
        let bound = !matches!(active.record.undo, Undo::Delete(..) | Undo::Restore(_));
        if Instant::now() >= active.until {
            Some("its time is over")
        } else if bound && !lives(&active.record.service) {
            Some("the process that it was put into is gone")
        } else {
            None
        }
    }

    /// Whether the fault was put into the life that runs.
    pub(super) fn concerns(&self, live: &Live) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| active.record.instance == live.instance)
    }

    /// Ends what is in force.
    pub(super) fn end(&mut self, why: &str) -> Option<(View, String)> {
        let view = self.view()?;
        let place = self.place.as_ref().ok()?;
        let active = self.active.take()?;
        drop(active.load);
        let left = match settle(place, &active.record, self.boot, &self.spawner) {
            Ok(true) => "it was undone".to_owned(),
            Ok(false) => "there was nothing to undo".to_owned(),
            Err(error) => format!("it could not be undone: {error}"),
        };
        if let Some(guard) = active.guard {
            guard.dismiss();
        }
        let (service, injection) = (&view.service, view.injection);
        tracing::warn!(%service, %injection, why, left, "a fault on purpose has ended");
        Some((view, format!("{why}; {left}")))
    }
}

/// How it will be undone, before anything is done.
fn plan(spec: &Service, live: &Live, injection: Injection) -> io::Result<Undo> {
    let missing = |what: &str| io::Error::other(format!("it has no {what}"));
    Ok(match injection {
        Injection::Kill | Injection::Block | Injection::Leak | Injection::Oom | Injection::Hog => {
            Undo::Nothing
        }
        Injection::Sigstop => Undo::Resume,
        Injection::Descriptors => {
            let limit = prlimit_of(live.pid)?;
            Undo::Limit(limit.current, limit.maximum)
        }
        Injection::DataFull => {
            let data = spec
                .data
                .as_ref()
                .ok_or_else(|| missing("[service.data]"))?;
            Undo::Delete(data.path.clone(), ballast(data)?)
        }
        Injection::CorruptModel => {
            let model = spec.model.as_ref().ok_or_else(|| missing("model"))?;
            Undo::Restore(files::damage(&model.slot, "model.onnx")?)
        }
        Injection::BadConfig => {
            let config = spec
                .config
                .as_ref()
                .ok_or_else(|| missing("configuration"))?;
            Undo::Restore(files::damage(&config.slot, &config.file)?)
        }
    })
}

/// A name that pruning may delete.
fn ballast(data: &Data) -> io::Result<String> {
    let pattern = data.prune.iter().find(|pattern| pattern.folder.is_none());
    let pattern = pattern.ok_or_else(|| io::Error::other("nothing in its folder may be pruned"))?;
    Ok(pattern.name.replace('*', BALLAST))
}

fn inflict(
    spec: &Service,
    live: &Live,
    record: &Record,
    span: Millis,
    room: &Room<'_>,
    spawner: &str,
) -> io::Result<Option<Running>> {
    let signalled = |sent: bool| match sent {
        true => Ok(None),
        false => Err(io::Error::other("the process is gone")),
    };
    match record.injection {
        Injection::Kill => signalled(live.send(Signal::KILL, spawner)),
        Injection::Sigstop => signalled(live.send(Signal::STOP, spawner)),
        Injection::Block => {
            let mut load = Running::start(Load::Hold(live.pid()), span)?;
            load.begin()?;
            load.confirmed()?;
            Ok(Some(load))
        }
        Injection::Leak => {
            // The kernel is not to end it: a leak is to be seen before that.
            let free = free(room)?;
            let mut load = Running::start(Load::Leak(free - free / 16), span)?;
            for pid in load.pids() {
                (room.join)(pid)?;
            }
            load.begin()?;
            Ok(Some(load))
        }
        Injection::Oom => {
            let free = free(room)?;
            // All there is and a little more; the service is the one to be killed for it, as
            // the kernel is told at its start.
            let mut load = Running::start(Load::Bytes(free + (free / 16).max(1 << 20)), span)?;
            for pid in load.pids() {
                (room.join)(pid)?;
            }
            load.begin()?;
            Ok(Some(load))
        }
        Injection::Hog => {
            let mut load = Running::start(Load::Cores, span)?;
            // In its group it is one of its workers; without one it is a stranger.
            if room.free.is_some() {
                for pid in load.pids() {
                    (room.join)(pid)?;
                }
            }
            load.begin()?;
            Ok(Some(load))
        }
        Injection::Descriptors => {
            let folder = format!("/proc/{}/fd", live.pid());
            let open = std::fs::read_dir(folder)?.count() as u64;
            let was = prlimit_of(live.pid)?;
            let limit = Rlimit {
                current: Some(open),
                maximum: was.maximum,
            };
            prlimit(Some(live.pid), Resource::Nofile, limit)?;
            Ok(None)
        }
        Injection::DataFull => {
            let (Some(data), Undo::Delete(path, name)) = (&spec.data, &record.undo) else {
                return Err(io::Error::other("it has no [service.data]"));
            };
            let used = data::measure(data).map_err(io::Error::other)?;
            let Bytes(quota) = data.quota;
            files::fill(path, name, quota.saturating_sub(used.0).max(1))?;
            Ok(None)
        }
        Injection::CorruptModel | Injection::BadConfig => {
            let Undo::Restore(damage) = &record.undo else {
                return Err(io::Error::other("it has no slot"));
            };
            files::inflict(damage)?;
            if !watches(spec, record.injection) {
                // What it has read it would go on with; the next life reads this.
                live.send(Signal::KILL, spawner);
            }
            Ok(None)
        }
    }
}

fn free(room: &Room<'_>) -> io::Result<u64> {
    let missing = || io::Error::other("it has no memory_limit that the kernel keeps");
    room.free.ok_or_else(missing)
}

fn watches(spec: &Service, injection: Injection) -> bool {
    use crate::config::Reload;
    let reload = match injection {
        Injection::CorruptModel => spec.model.as_ref().map(|slot| slot.reload),
        _ => spec.config.as_ref().map(|slot| slot.reload),
    };
    reload == Some(Reload::Watch)
}

/// Undoes what a record says, which stays as long as that fails. Whether there was
/// something to undo.
fn settle(place: &Place, record: &Record, boot: BootId, spawner: &str) -> io::Result<bool> {
    let undone = undo(record, boot, spawner);
    match &undone {
        Ok(_) => place.clear(),
        Err(error) => {
            let (service, injection) = (&record.service, record.injection);
            tracing::error!(%service, %injection, %error, "cannot undo a fault on purpose");
        }
    }
    undone
}

fn undo(record: &Record, boot: BootId, spawner: &str) -> io::Result<bool> {
    // Of another boot no process is left.
    let live = || {
        let found = Live::adopt(record.instance, record.pid, record.start, None);
        found.filter(|_| record.boot == boot)
    };
    match &record.undo {
        Undo::Nothing => Ok(false),
        Undo::Resume => Ok(live().is_some_and(|live| live.send(Signal::CONT, spawner))),
        Undo::Limit(soft, hard) => live().map_or(Ok(false), |live| {
            let limit = Rlimit {
                current: *soft,
                maximum: *hard,
            };
            prlimit(Some(live.pid), Resource::Nofile, limit)?;
            Ok(true)
        }),
        Undo::Delete(path, name) => files::empty(path, name),
        Undo::Restore(damage) => files::repair(damage),
    }
}

/// The limits of descriptors of a process, which are not changed by this.
fn prlimit_of(pid: Pid) -> io::Result<Rlimit> {
    let file = format!("/proc/{}/limits", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut words = line.unwrap_or_default().split_whitespace();
    let mut limit = || match words.next() {
        Some("unlimited") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(io::Error::other),
        None => Err(io::Error::other("the kernel names no limit of descriptors")),
    };
    Ok(Rlimit {
        current: limit()?,
        maximum: limit()?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use homeostat_common::ids::Instance;

    use super::*;

    #[test]
    fn what_cannot_be_undone_stays_on_record_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let slot = dir.path().join("slot");
        let file = slot.join("versions/01/model.onnx");
        fs::create_dir_all(slot.join("versions/01")).unwrap();
        fs::write(&file, [7; 100]).unwrap();
        std::os::unix::fs::symlink("versions/01", slot.join("current")).unwrap();
        let damage = files::damage(&slot, "model.onnx").unwrap();
        let boot = BootId([3; 16]);
        let record = Record {
            boot,
            service: ServiceId::new("web").unwrap(),
            instance: Instance(1),
            pid: 1,
            start: 0,
            injection: Injection::CorruptModel,
            undo: Undo::Restore(damage.clone()),
        };
        let place = Place::open(dir.path()).unwrap();
        place.write(&record).unwrap();
        files::inflict(&damage).unwrap();
        // Somebody makes a copy by a link, and nothing with two names is written to.
        let copy = dir.path().join("copy");
        fs::hard_link(&file, &copy).unwrap();
        assert!(settle(&place, &record, boot, "run").is_err());
        assert_eq!(place.read(), Some(record.clone()));
        // The next spawner fails as well, and the one after that does not.
        drop(Chaos::open(dir.path(), boot, "run"));
        assert_eq!(place.read(), Some(record));
        fs::remove_file(&copy).unwrap();
        drop(Chaos::open(dir.path(), boot, "run"));
        assert_eq!(place.read(), None);
        assert_eq!(fs::read(&file).unwrap(), [7; 100]);
    }
}
