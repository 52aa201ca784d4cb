//! Faults that a service really has once it is told so on its control socket.
//!
//! One command a connection, a line of text: `block`, `leak BYTES_PER_SECOND`, `unleak`,
//! `spin`, `unspin`. The answer is `ok` once the fault is in force, or `error: ...`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{Kind, log};

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
const LEAK_PERIOD: Duration = Duration::from_millis(10);

/// The state of all faults; none at first.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Held for reading by whoever works; a deadlock is a writer that never lets go.
    running: RwLock<()>,
    leak_rate: AtomicU64,
    leaked: Mutex<Vec<Vec<u8>>>,
    leaking: AtomicBool,
    spinning: AtomicBool,
}

impl Faults {
    /// Waits for ever once the service is blocked.
    pub(super) fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.running.read().unwrap_or_else(PoisonError::into_inner)
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

    fn spin(self: &Arc<Self>) {
        if !self.spinning.swap(true, Ordering::Relaxed) {
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
            (Some("leak"), Some(rate), None) => {
                self.leak(rate.parse().map_err(|error| format!("{rate:?}: {error}"))?);
            }
            (Some("unleak"), None, None) => self.unleak(),
            (Some("spin"), None, None) => self.spin(),
            (Some("unspin"), None, None) => self.spinning.store(false, Ordering::Relaxed),
            _ => return Err(format!("unknown command {command:?}")),
        }
        Ok(())
    }
}

/// Takes commands on a thread of its own, so that a blocked service still hears `unleak`.
pub(super) fn listen(path: PathBuf, faults: Arc<Faults>, kind: Kind) {
    thread::spawn(move || {
        // Left behind by the instance that was killed.
        let _ = std::fs::remove_file(&path);
        let listener = match UnixListener::bind(&path) {
            Ok(listener) => listener,
            Err(error) => {
                let path = path.display();
                return log(
                    &kind,
                    format_args!("WARN no control socket {path}: {error}"),
                );
            }
        };
        for stream in listener.incoming() {
            match stream.and_then(|stream| serve(&stream, &faults)) {
                Ok(command) => log(&kind, format_args!("WARN fault {command}")),
                Err(error) => log(&kind, format_args!("WARN control socket: {error}")),
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
