//! Breaks things for real, and says when.
//!
//! Each function returns the moment *before* the fault took effect, so that a time to repair
//! counted from it is never flattered. Nothing here chooses targets: a caller passes the pid,
//! socket or path of a service it owns.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use homeostat_models::manifest::MANIFEST_FILE;
use homeostat_models::{mlp::Rng, onnx, vibration};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::clock::Moment;

/// How long a service may take to confirm a fault.
const CONTROL_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest answer is an error that quotes the command.
const CONTROL_BYTES_MAX: u64 = 256;
/// A file system is filled in steps of this size, then of one page.
const FILL_STEP: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    #[error("{0} is not the pid of a service")]
    NoService(u32),
    #[error("cannot limit process {pid}")]
    Limit { pid: u32, source: io::Error },
    #[error("cannot signal process {pid}")]
    Signal { pid: u32, source: io::Error },
    #[error("cannot send {command:?} to {}", path.display())]
    Control {
        path: PathBuf,
        command: String,
        source: io::Error,
    },
    #[error("{} answered {answer:?} to {command:?}", path.display())]
    Refused {
        path: PathBuf,
        command: String,
        answer: String,
    },
    #[error("cannot corrupt {}", path.display())]
    Corrupt { path: PathBuf, source: io::Error },
    #[error("{} holds no weights to flip", path.display())]
    NoWeights { path: PathBuf },
    #[error("cannot fill {}", path.display())]
    Fill { path: PathBuf, source: io::Error },
    #[error("cannot change what is in {}", path.display())]
    Slot { path: PathBuf, source: io::Error },
    #[error("cannot start a process that burns a core")]
    Hog(#[source] io::Error),
}

/// Kills with SIGKILL.
///
/// # Errors
/// `NoService` for 0 and 1, `Signal` when the process is gone or not ours.
pub fn kill9(pid: u32) -> Result<Moment, InjectError> {
    signal(pid, Signal::KILL)
}

/// Stops with SIGSTOP: alive, but not running. A parent may see this through SIGCHLD.
///
/// # Errors
/// As for [`kill9`].
pub fn stop(pid: u32) -> Result<Moment, InjectError> {
    signal(pid, Signal::STOP)
}

/// Lets a stopped process run on.
///
/// # Errors
/// As for [`kill9`].
pub fn resume(pid: u32) -> Result<Moment, InjectError> {
    signal(pid, Signal::CONT)
}

/// Tells a service any fault that it knows, in its own words (`service/faults.rs`).
///
/// # Errors
/// `Control` when its control socket does not answer, `Refused` when it does not know it.
pub fn order(control: &Path, fault: &str) -> Result<Moment, InjectError> {
    command(control, fault)
}

/// Deadlocks the service for ever: its port stays open, nothing is answered.
///
/// # Errors
/// `Control` when its control socket does not answer.
pub fn block(control: &Path) -> Result<Moment, InjectError> {
    command(control, "block")
}

/// Makes the service leak this much a second, up to 1 GiB.
///
/// # Errors
/// As for [`block`].
pub fn leak(control: &Path, bytes_per_second: u64) -> Result<Moment, InjectError> {
    command(control, &format!("leak {bytes_per_second}"))
}

/// Frees what leaked and leaks no more.
///
/// # Errors
/// As for [`block`].
pub fn unleak(control: &Path) -> Result<Moment, InjectError> {
    command(control, "unleak")
}

/// Makes the service open so many descriptors a second and keep them, until there are none
/// left to be had.
///
/// # Errors
/// As for [`block`].
pub fn open(control: &Path, per_second: u64) -> Result<Moment, InjectError> {
    command(control, &format!("open {per_second}"))
}

/// Sets how many descriptors a running process may have open, as an operator would have set
/// it before its start. What is open beyond that stays open.
///
/// # Errors
/// `NoService` as for [`kill9`], `Limit` when the kernel refuses.
pub fn limit_descriptors(pid: u32, most: u64) -> Result<(), InjectError> {
    let limit = Rlimit {
        current: Some(most),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    match prlimit(Some(process(pid)?), Resource::Nofile, limit) {
        Ok(_) => Ok(()),
        Err(errno) => Err(InjectError::Limit {
            pid,
            source: errno.into(),
        }),
    }
}

/// Makes the service burn one core.
///
/// # Errors
/// As for [`block`].
pub fn spin(control: &Path) -> Result<Moment, InjectError> {
    command(control, "spin")
}

/// Ends [`spin`].
///
/// # Errors
/// As for [`block`].
pub fn unspin(control: &Path) -> Result<Moment, InjectError> {
    command(control, "unspin")
}

/// Makes the service burn this many cores.
///
/// # Errors
/// As for [`block`].
pub fn hog(control: &Path, threads: u32) -> Result<Moment, InjectError> {
    command(control, &format!("hog {threads}"))
}

/// Makes each answer of the service take so much longer, its probes included; zero ends it.
///
/// # Errors
/// As for [`block`].
pub fn slow(control: &Path, by: Duration) -> Result<Moment, InjectError> {
    command(control, &format!("slow {}", by.as_millis()))
}

/// Freezes the service's metrics with a queue of 900, while it goes on answering rightly.
///
/// # Errors
/// As for [`block`].
pub fn freeze_metrics(control: &Path) -> Result<Moment, InjectError> {
    command(control, "freeze")
}

/// Ends [`freeze_metrics`].
///
/// # Errors
/// As for [`block`].
pub fn unfreeze_metrics(control: &Path) -> Result<Moment, InjectError> {
    command(control, "unfreeze")
}

/// Makes a `store` leave junk (`*.old`) in its directory until its quota is used up.
///
/// # Errors
/// As for [`block`]; `Refused` by what is no store.
pub fn fill_quota(control: &Path) -> Result<Moment, InjectError> {
    command(control, "fill")
}

/// Puts a model into a slot by hand: of the same shape, trained on mixed-up labels, with a
/// manifest that agrees with it in everything. Returns its version too.
///
/// # Errors
/// `Slot` when the slot cannot be written.
pub fn bad_model(slot: &Path, seed: u64) -> Result<(Moment, String), InjectError> {
    install_model(slot, &vibration::variant("2.0.0-by-hand", seed, 1))
}

/// Puts a model and its manifest into `slot/versions` and makes `slot/current` point to it, as
/// a careful person would: the link is swapped in one step.
///
/// # Errors
/// `Slot` when the slot cannot be written.
pub fn install_model(
    slot: &Path,
    built: &vibration::Built,
) -> Result<(Moment, String), InjectError> {
    let failed = |source| InjectError::Slot {
        path: slot.to_owned(),
        source,
    };
    let version: String = built.manifest.sha256.chars().take(16).collect();
    let dir = slot.join("versions").join(&version);
    let text = built.manifest.to_toml().map_err(io::Error::other);
    fs::create_dir_all(&dir).map_err(failed)?;
    fs::write(dir.join("model.onnx"), &built.onnx).map_err(failed)?;
    fs::write(dir.join(MANIFEST_FILE), text.map_err(failed)?).map_err(failed)?;
    let at = point_to(slot, &version).map_err(failed)?;
    Ok((at, version))
}

/// Makes `slot/current` point to a version, in one step.
fn point_to(slot: &Path, version: &str) -> io::Result<Moment> {
    let new = slot.join(".current.by-hand");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(Path::new("versions").join(version), &new)?;
    let at = Moment::now();
    fs::rename(&new, slot.join("current"))?;
    Ok(at)
}

/// Writes nonsense over a configuration, in place and by hand, and kills the service that
/// would read it, so that its next start fails.
///
/// # Errors
/// `Slot` when the file cannot be written, or as for [`kill9`].
pub fn bad_config(file: &Path, pid: u32) -> Result<Moment, InjectError> {
    let at = Moment::now();
    fs::write(file, "scale = \"fast\"\noffset = 0.0\n").map_err(|source| InjectError::Slot {
        path: file.to_owned(),
        source,
    })?;
    kill9(pid)?;
    Ok(at)
}

/// A process that burns cores and belongs to nobody who supervises; dropping it ends it.
#[derive(Debug)]
pub struct Hog {
    /// When it began.
    pub at: Moment,
    children: Vec<Child>,
}

impl Hog {
    /// Starts one process per core to burn, each a shell in an endless loop that ends by
    /// itself when this process is gone.
    ///
    /// # Errors
    /// `Hog` when there is no shell or no process to be had.
    pub fn start(cores: usize) -> Result<Self, InjectError> {
        let mut hog = Self {
            at: Moment::now(),
            children: Vec::with_capacity(cores),
        };
        // The shell's parent is looked at each 100,000 rounds, some 50 ms.
        let script =
            "while kill -0 $PPID; do n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done; done";
        for _ in 0..cores {
            let child = Command::new("/bin/sh")
                .args(["-c", script])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(InjectError::Hog)?;
            hog.children.push(child);
        }
        Ok(hog)
    }

    /// The processes, so that a test can see that nobody else ended them.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ways in which a model file goes bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// Flips the sign of every number in the first weight matrix: the file loads, and the
    /// answers are wrong.
    Weights,
    /// Cuts the file in half, as a full disk or a lost connection does.
    Truncate,
    /// Overwrites all of it with noise of the same length.
    Garbage,
}

/// Damages a model file in place.
///
/// # Errors
/// `NoWeights` when `Weights` finds none to flip, `Corrupt` when the file cannot be changed.
pub fn corrupt_model(path: &Path, corruption: Corruption) -> Result<Moment, InjectError> {
    let failed = |source| InjectError::Corrupt {
        path: path.to_owned(),
        source,
    };
    let mut bytes = fs::read(path).map_err(failed)?;
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    match corruption {
        Corruption::Weights => {
            let no_weights = || InjectError::NoWeights {
                path: path.to_owned(),
            };
            let range = onnx::first_weights(&bytes).ok_or_else(no_weights)?;
            let offset = range.start as u64;
            let weights = bytes.get_mut(range).ok_or_else(no_weights)?;
            // The last byte of a little-endian f32 holds its sign.
            weights
                .iter_mut()
                .skip(3)
                .step_by(4)
                .for_each(|byte| *byte ^= 0x80);
            let at = Moment::now();
            file.write_all_at(weights, offset).map_err(failed)?;
            Ok(at)
        }
        Corruption::Truncate => {
            let at = Moment::now();
            file.set_len(bytes.len() as u64 / 2).map_err(failed)?;
            Ok(at)
        }
        Corruption::Garbage => {
            let mut rng = Rng::seeded(bytes.len() as u64);
            bytes
                .iter_mut()
                .for_each(|byte| *byte = rng.next_u64().to_le_bytes()[0]);
            let at = Moment::now();
            file.write_all_at(&bytes, 0).map_err(failed)?;
            Ok(at)
        }
    }
}

/// Ballast in a directory; dropping it frees the space.
#[derive(Debug)]
pub struct Filled {
    /// When the filling began.
    pub at: Moment,
    pub bytes: u64,
    /// True if the file system refused more; false if the limit came first.
    pub full: bool,
    ballast: tempfile::NamedTempFile,
}

impl Filled {
    #[must_use]
    pub fn path(&self) -> &Path {
        self.ballast.path()
    }
}

/// Writes a file into `dir` until its file system is full or `limit` bytes are written.
///
/// The limit is there because the directory may lie on the machine's only disk.
///
/// # Errors
/// `Fill` for every failure but a full disk.
pub fn fill_dir(dir: &Path, limit: u64) -> Result<Filled, InjectError> {
    let failed = |source| InjectError::Fill {
        path: dir.to_owned(),
        source,
    };
    let at = Moment::now();
    let mut ballast = tempfile::Builder::new()
        .prefix("ballast")
        .tempfile_in(dir)
        .map_err(failed)?;
    // Not zeros: a file system that compresses would keep its space.
    let mut rng = Rng::seeded(limit);
    let block: Vec<u8> = (0..FILL_STEP / 8)
        .flat_map(|_| rng.next_u64().to_le_bytes())
        .collect();
    let mut bytes = 0;
    for step in [FILL_STEP, 4096, 1] {
        while bytes < limit {
            let step = step.min(usize::try_from(limit - bytes).unwrap_or(step));
            match write_whole(ballast.as_file_mut(), block.get(..step).unwrap_or(&block)) {
                Ok(()) => bytes += step as u64,
                Err(error) if is_full(&error) => break,
                Err(source) => return Err(failed(source)),
            }
        }
    }
    Ok(Filled {
        at,
        bytes,
        full: bytes < limit,
        ballast,
    })
}

/// Writes all of `block` or nothing of it.
fn write_whole(file: &mut File, block: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    let written = file.write_all(block).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(before)?;
        io::Seek::seek(file, io::SeekFrom::Start(before))?;
    }
    written
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn process(pid: u32) -> Result<Pid, InjectError> {
    let target = i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 1)
        .and_then(Pid::from_raw);
    target.ok_or(InjectError::NoService(pid))
}

fn signal(pid: u32, signal: Signal) -> Result<Moment, InjectError> {
    let target = process(pid)?;
    let at = Moment::now();
    kill_process(target, signal).map_err(|errno| InjectError::Signal {
        pid,
        source: errno.into(),
    })?;
    Ok(at)
}

fn command(control: &Path, command: &str) -> Result<Moment, InjectError> {
    let (at, answer) = send(control, command).map_err(|source| InjectError::Control {
        path: control.to_owned(),
        command: command.to_owned(),
        source,
    })?;
    match answer.trim() {
        "ok" => Ok(at),
        answer => Err(InjectError::Refused {
            path: control.to_owned(),
            command: command.to_owned(),
            answer: answer.to_owned(),
        }),
    }
}

fn send(control: &Path, command: &str) -> io::Result<(Moment, String)> {
    let mut stream = connect(control)?;
    let at = Moment::now();
    stream.set_read_timeout(Some(CONTROL_TIME_MAX))?;
    stream.set_write_timeout(Some(CONTROL_TIME_MAX))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(CONTROL_BYTES_MAX).read_to_string(&mut answer)?;
    Ok((at, answer))
}

/// A service that was just started anew leaves the socket of its former life in
/// place until it listens on its own.
fn connect(control: &Path) -> io::Result<UnixStream> {
    let begun = std::time::Instant::now();
    loop {
        match UnixStream::connect(control) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && begun.elapsed() < CONTROL_TIME_MAX =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_and_the_own_group_are_never_signalled() {
        for pid in [0, 1, u32::MAX] {
            assert!(
                matches!(kill9(pid), Err(InjectError::NoService(_))),
                "{pid}"
            );
        }
    }

    #[test]
    fn a_socket_that_nobody_serves_is_an_error_with_its_path() {
        let error = block(Path::new("/nowhere/control")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot send \"block\" to /nowhere/control"
        );
    }

    #[test]
    fn only_a_file_with_weights_can_have_them_flipped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"no model").unwrap();
        let error = corrupt_model(file.path(), Corruption::Weights).unwrap_err();
        assert!(matches!(error, InjectError::NoWeights { .. }), "{error}");
        assert_eq!(fs::read(file.path()).unwrap(), b"no model");
    }

    #[test]
    fn filling_stops_at_its_limit_and_gives_the_space_back() {
        let dir = tempfile::tempdir().unwrap();
        let limit = 3 * FILL_STEP as u64 + 17;
        let filled = fill_dir(dir.path(), limit).unwrap();
        assert_eq!((filled.bytes, filled.full), (limit, false));
        assert_eq!(fs::metadata(filled.path()).unwrap().len(), limit);
        drop(filled);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
