//! Faults that a service really has once it is told so on its control socket.
//!
//! One command a connection, a line of text. The answer is `ok` once the fault is in force, or
//! `error: ...`.
//!
//! | command | fault | ended by |
//! |---|---|---|
//! | `block` | a deadlock: nothing is answered any more | |
//! | `leak BYTES_PER_SECOND` | memory grows | `unleak` |
//! | `open PER_SECOND` | descriptors are opened and kept, until there are no more | |
//! | `spin`, `hog THREADS` | cores are burnt | `unspin` |
//! | `slow MS` | each answer takes so much longer | `slow 0` |
//! | `freeze` | metrics stand still at a bad value, answers stay right | `unfreeze` |
//! | `fill` | junk (`*.old`) up to the quota of what keeps data | deleting it |
//!
//! Of a unit only:
//!
//! | command | fault | ended by |
//! |---|---|---|
//! | `pace PERCENT` | each piece of its work takes so much of the usual time | `pace 100` |
//! | `burn PERMILLE` | so much of a processor is burnt, in pieces | |
//! | `lock PERMILLE MB` | it holds its lock for ever, burns and holds memory, and is blocked | |
//! | `ahead SECONDS` | its clock is ahead | `ahead 0` |
//! | `poison` | what it remembers is wrong | forgetting it |

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::stats::spoiled;
use super::{log, store, unit};

/// The longest command is `leak` with 20 digits.
const COMMAND_BYTES_MAX: u64 = 64;
/// Bounds what a client that says nothing can hold up.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(1);
/// A leak stops here: a forgotten test must not take the machine with it.
const LEAK_BYTES_MAX: usize = 1 << 30;
/// Blocks of this size come from `mmap`, so that freeing them gives the memory back.
const LEAK_BLOCK_BYTES: usize = 256 * 1024;
/// Leaked in one step at most, so that an absurd rate does not keep the lock for long; with
/// the period below this bounds the rate to some 1.6 GB a second.
const LEAK_STEP_BYTES_MAX: usize = 64 * LEAK_BLOCK_BYTES;
/// More threads than this hog no machine any better.
const HOGS_MAX: u32 = 64;
/// A fault, not a way to hang: that is `block`.
const SLOW_MS_MAX: u64 = 60_000;
/// A forgotten test must not take the system's table of files with it.
const OPEN_MAX: usize = 65_536;
/// More in one step would keep the process from its work for long.
const OPEN_STEP_MAX: f64 = 256.0;
/// Slower than this a unit is not slow but blocked.
const PACE_MAX: u64 = 100_000;
/// A processor and a half.
const BURN_MAX: u64 = 1500;
/// More memory than any unit has.
const HELD_MB_MAX: u64 = 1024;
const LEAK_PERIOD: Duration = Duration::from_millis(10);

/// The state of all faults; none at first.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Held for reading by whoever works; a deadlock is a writer that never lets go.
    running: RwLock<()>,
    leak_rate: AtomicU64,
    leaked: Mutex<Vec<Vec<u8>>>,
    leaking: AtomicBool,
    open_rate: AtomicU64,
    opening: AtomicBool,
    spinning: AtomicBool,
    slow_ms: AtomicU64,
    freezing: AtomicBool,
    /// The page that is shown while metrics are frozen; made at the first scrape.
    frozen: Mutex<Option<String>>,
    /// What may be filled, and how far.
    fills: OnceLock<(PathBuf, u64)>,
    /// Percent of the usual time beyond the usual.
    slower: AtomicU64,
    ahead_s: AtomicU64,
    poisoned: AtomicU64,
    lock: OnceLock<PathBuf>,
}

impl Faults {
    /// Waits for ever once the service is blocked.
    pub(super) fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.running.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes longer over an answer, when told so.
    pub(super) fn linger(&self) {
        let slow_ms = self.slow_ms.load(Ordering::Relaxed);
        if slow_ms > 0 {
            thread::sleep(Duration::from_millis(slow_ms));
        }
    }

    /// The metrics that are shown for `live`.
    pub(super) fn shown(&self, live: String) -> String {
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.freezing.load(Ordering::Relaxed) {
            *frozen = None;
            return live;
        }
        frozen.get_or_insert_with(|| spoiled(&live)).clone()
    }

    /// Lets `fill` fill this directory up to `quota`.
    pub(super) fn may_fill(&self, dir: PathBuf, quota: u64) {
        // Set once at start; a second call would change nothing.
        let _ = self.fills.set((dir, quota));
    }

    /// How many times longer than usual a unit's work takes.
    pub(super) fn pace(&self) -> f64 {
        1.0 + self.slower.load(Ordering::Relaxed) as f64 / 100.0
    }

    /// How far a unit's clock is ahead.
    pub(super) fn ahead_s(&self) -> f64 {
        self.ahead_s.load(Ordering::Relaxed) as f64
    }

    /// How often what a unit remembers was made wrong.
    pub(super) fn poisoned(&self) -> u64 {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// Lets `lock` hold this lock.
    pub(super) fn may_lock(&self, lock: Option<PathBuf>) {
        if let Some(lock) = lock {
            // As for `may_fill`.
            let _ = self.lock.set(lock);
        }
    }

    /// Waits for ever, with all that it holds.
    pub(super) fn deadlock(&self, permille: u64, mb: u64) {
        unit::spin(
            permille.min(BURN_MAX) as f64 / 1000.0,
            mb.min(HELD_MB_MAX) as f64,
        );
        self.block();
    }

    fn hold_lock(&self, permille: u64, mb: u64) -> Result<(), String> {
        let lock = self.lock.get().ok_or("this service has no lock")?;
        let held = unit::hold(lock, permille, mb);
        held.map_err(|error| format!("{}: {error}", lock.display()))?;
        self.deadlock(permille, mb);
        Ok(())
    }

    fn fill(&self) -> Result<(), String> {
        let (dir, quota) = self.fills.get().ok_or("this service keeps no data")?;
        store::fill(dir, *quota).map_err(|error| format!("{}: {error}", dir.display()))
    }

    fn block(&self) {
        // Never unlocked, as by a thread that waits for itself.
        mem::forget(self.running.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn leak(self: &Arc<Self>, rate: u64) {
        self.leak_rate.store(rate, Ordering::Relaxed);
        if !self.leaking.swap(true, Ordering::Relaxed) {
            let faults = Arc::clone(self);
            thread::spawn(move || faults.leak_loop());
        }
    }

    fn leak_loop(&self) {
        let (mut last, mut owed) = (Instant::now(), 0.0);
        loop {
            thread::sleep(LEAK_PERIOD);
            let now = Instant::now();
            owed += self.leak_rate.load(Ordering::Relaxed) as f64 * (now - last).as_secs_f64();
            owed = owed.min(LEAK_STEP_BYTES_MAX as f64);
            last = now;
            let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
            while owed >= LEAK_BLOCK_BYTES as f64 {
                owed -= LEAK_BLOCK_BYTES as f64;
                if leaked.len() < LEAK_BYTES_MAX / LEAK_BLOCK_BYTES {
                    // Not zero, so that each page is really written.
                    leaked.push(vec![0xa5; LEAK_BLOCK_BYTES]);
                }
            }
        }
    }

    fn unleak(&self) {
        self.leak_rate.store(0, Ordering::Relaxed);
        let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        *leaked = Vec::new();
    }

    fn open(self: &Arc<Self>, rate: u64) {
        self.open_rate.store(rate, Ordering::Relaxed);
        if !self.opening.swap(true, Ordering::Relaxed) {
            let faults = Arc::clone(self);
            thread::spawn(move || faults.open_loop());
        }
    }

    /// Whether descriptors leak.
    pub(super) fn opens(&self) -> bool {
        self.open_rate.load(Ordering::Relaxed) > 0
    }

    /// What somebody else closes meanwhile is taken as well.
    fn open_loop(&self) {
        let (mut last, mut owed) = (Instant::now(), 0.0);
        let mut kept: Vec<File> = Vec::new();
        loop {
            thread::sleep(LEAK_PERIOD);
            let now = Instant::now();
            owed += self.open_rate.load(Ordering::Relaxed) as f64 * (now - last).as_secs_f64();
            owed = owed.min(OPEN_STEP_MAX);
            last = now;
            while owed >= 1.0 && kept.len() < OPEN_MAX {
                owed -= 1.0;
                match File::open("/dev/null") {
                    Ok(file) => kept.push(file),
                    Err(_) => break,
                }
            }
        }
    }

    fn hog(self: &Arc<Self>, threads: u32) {
        if self.spinning.swap(true, Ordering::Relaxed) {
            return;
        }
        for _ in 0..threads.min(HOGS_MAX) {
            let faults = Arc::clone(self);
            thread::spawn(move || {
                while faults.spinning.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
    }

    fn obey(self: &Arc<Self>, command: &str) -> Result<(), String> {
        let mut words = command.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("block"), None, None) => self.block(),
            (Some("leak"), Some(rate), None) => self.leak(number(rate)?),
            (Some("unleak"), None, None) => self.unleak(),
            (Some("open"), Some(rate), None) => self.open(number(rate)?),
            (Some("spin"), None, None) => self.hog(1),
            (Some("hog"), Some(threads), None) => self.hog(number(threads)?),
            (Some("slow"), Some(ms), None) => {
                let ms = number::<u64>(ms)?.min(SLOW_MS_MAX);
                self.slow_ms.store(ms, Ordering::Relaxed);
            }
            (Some("freeze"), None, None) => self.freezing.store(true, Ordering::Relaxed),
            (Some("unfreeze"), None, None) => self.freezing.store(false, Ordering::Relaxed),
            (Some("fill"), None, None) => self.fill()?,
            (Some("pace"), Some(percent), None) => {
                let more = number::<u64>(percent)?.clamp(100, PACE_MAX) - 100;
                self.slower.store(more, Ordering::Relaxed);
            }
            (Some("burn"), Some(permille), None) => {
                unit::spin(number::<u64>(permille)?.min(BURN_MAX) as f64 / 1000.0, 0.0);
            }
            (Some("lock"), Some(permille), Some(mb)) => {
                self.hold_lock(number(permille)?, number(mb)?)?;
            }
            (Some("ahead"), Some(seconds), None) => {
                self.ahead_s.store(number(seconds)?, Ordering::Relaxed);
            }
            (Some("poison"), None, None) => {
                self.poisoned.fetch_add(1, Ordering::Relaxed);
            }
            (Some("unspin"), None, None) => self.spinning.store(false, Ordering::Relaxed),
            _ => return Err(format!("unknown command {command:?}")),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(word: &str) -> Result<T, String> {
    word.parse().map_err(|error| format!("{word:?}: {error}"))
}

/// Takes commands on a thread of its own, so that a blocked service still hears `unleak`.
pub(super) fn listen(path: PathBuf, faults: Arc<Faults>, name: &'static str) {
    thread::spawn(move || {
        // Left behind by the instance that was killed.
        let _ = std::fs::remove_file(&path);
        let listener = match UnixListener::bind(&path) {
            Ok(listener) => listener,
            Err(error) => {
                let path = path.display();
                return log(name, format_args!("WARN no control socket {path}: {error}"));
            }
        };
        for stream in listener.incoming() {
            match stream.and_then(|stream| serve(&stream, &faults)) {
                Ok(command) => log(name, format_args!("WARN fault {command}")),
                Err(error) => log(name, format_args!("WARN control socket: {error}")),
            }
        }
    });
}

fn serve(stream: &UnixStream, faults: &Arc<Faults>) -> io::Result<String> {
    stream.set_read_timeout(Some(COMMAND_TIME_MAX))?;
    stream.set_write_timeout(Some(COMMAND_TIME_MAX))?;
    let mut command = String::new();
    BufReader::new(stream.take(COMMAND_BYTES_MAX)).read_line(&mut command)?;
    let mut stream = stream;
    match faults.obey(command.trim()) {
        Ok(()) => stream.write_all(b"ok\n")?,
        Err(reason) => stream.write_all(format!("error: {reason}\n").as_bytes())?,
    }
    Ok(command.trim().to_owned())
}
