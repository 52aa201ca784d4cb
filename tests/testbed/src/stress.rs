//! Loads the machine, so that healing can be measured where it is hard.
//!
//! Threads of this process: spinning ones take the cores, writing ones make the disk sync.
//! They compete with everything at normal priority. Where stress-ng is installed,
//! [`stress_ng`] runs it for loads that others know by name.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Written before each sync; a file holds 16 of them and starts over.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCKS_IN_FILE: u64 = 16;
/// Spinning threads look at the clock this often.
const SPIN_ROUND: u32 = 10_000;

/// How hard, where and how long.
#[derive(Clone, Debug)]
pub struct StressSpec {
    pub spinners: usize,
    pub writers: usize,
    /// Writers put their files here and remove them.
    pub dir: PathBuf,
    pub time: Duration,
}

impl StressSpec {
    /// Two spinning threads a core and two writers.
    #[must_use]
    pub fn all_cores(dir: impl Into<PathBuf>, time: Duration) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            spinners: 2 * cores,
            writers: 2,
            dir: dir.into(),
            time,
        }
    }
}

/// A load that ends after its time, or when dropped.
#[derive(Debug)]
pub struct Stress {
    stop: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stress {
    /// Starts the load.
    ///
    /// # Errors
    /// When a writer's file cannot be made.
    pub fn start(spec: &StressSpec) -> io::Result<Self> {
        let files: Vec<File> = (0..spec.writers)
            .map(|_| tempfile::tempfile_in(&spec.dir))
            .collect::<Result<_, _>>()?;
        let (stop, syncs) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let end = Instant::now() + spec.time;
        let mut threads = Vec::with_capacity(spec.spinners + spec.writers);
        for _ in 0..spec.spinners {
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || spin(&stop, end)));
        }
        for file in files {
            let (stop, syncs) = (Arc::clone(&stop), Arc::clone(&syncs));
            threads.push(thread::spawn(move || {
                write_and_sync(file, &stop, &syncs, end)
            }));
        }
        Ok(Self {
            stop,
            syncs,
            threads,
        })
    }

    /// Syncs that reached the disk so far: zero means that it was not loaded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Ends the load now and returns the number of syncs.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.syncs()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        self.end();
    }
}

fn spin(stop: &AtomicBool, end: Instant) {
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        for _ in 0..SPIN_ROUND {
            std::hint::spin_loop();
        }
    }
}

fn write_and_sync(mut file: File, stop: &AtomicBool, syncs: &AtomicU64, end: Instant) {
    let block = vec![0x5a; BLOCK_BYTES];
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        let at = SeekFrom::Start(round % BLOCKS_IN_FILE * BLOCK_BYTES as u64);
        let synced = file
            .seek(at)
            .and_then(|_| file.write_all(&block))
            .and_then(|()| file.sync_data());
        match synced {
            Ok(()) => _ = syncs.fetch_add(1, Ordering::Relaxed),
            // A full disk is loaded enough.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        round += 1;
    }
}

/// A running stress-ng, killed when dropped.
#[derive(Debug)]
pub struct StressNg(Child);

impl Drop for StressNg {
    fn drop(&mut self) {
        // SIGTERM lets it end its own children; the kernel does so after SIGKILL only late.
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// Starts stress-ng with these stressors, for example `["--cpu", "4", "--hdd", "2"]`, in
/// `dir`. `Ok(None)` where it is not installed.
///
/// # Errors
/// When it is there and cannot be started.
pub fn stress_ng(stressors: &[&str], dir: &Path, time: Duration) -> io::Result<Option<StressNg>> {
    let mut command = Command::new("stress-ng");
    command
        .args(stressors)
        .args(["--quiet", "--temp-path"])
        .arg(dir);
    command.args(["--timeout", &format!("{}s", time.as_secs().max(1))]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => Ok(Some(StressNg(child))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::time::{ClockId, clock_gettime};

    #[test]
    fn it_takes_the_cores_and_the_disk_until_it_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let spec = StressSpec::all_cores(dir.path(), Duration::from_secs(60));
        let (cpu, start) = (cpu_time(), Instant::now());
        let stress = Stress::start(&spec).unwrap();
        // How soon depends on who else wants the cores.
        while cpu_time() - cpu < Duration::from_millis(50) || stress.syncs() == 0 {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
        stress.stop();
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn it_ends_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let spec = StressSpec::all_cores(dir.path(), Duration::from_millis(20));
        let mut stress = Stress::start(&spec).unwrap();
        for thread in stress.threads.drain(..) {
            thread.join().unwrap();
        }
    }

    #[test]
    fn stress_ng_ends_with_its_guard_where_it_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let stress = stress_ng(&["--cpu", "1"], dir.path(), Duration::from_secs(60)).unwrap();
        let Some(mut stress) = stress else {
            return println!("skipped: stress-ng is not installed");
        };
        thread::sleep(Duration::from_millis(50));
        assert!(
            stress.0.try_wait().unwrap().is_none(),
            "it must run until told to end"
        );
        drop(stress);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    fn cpu_time() -> Duration {
        Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
    }
}
