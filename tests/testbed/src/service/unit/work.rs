//! The work itself: processor time, sleep, memory, and the lock at which units can hang.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use homeostat_models::mlp::Rng;
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};

use super::super::faults::Faults;
use super::UnitSpec;

/// Work alternates between burning and sleeping at this pace: longer than what a kernel oversleeps,
/// shorter than what anybody measures.
const SLICE_S: f64 = 0.020;
/// A page.
const PAGE: usize = 4096;
/// How the text of a lock begins: with a number alone it would name a process.
const COSTS: &str = "costs ";
const MB: f64 = 1_048_576.0;

/// Draws from what all of this process draws from, seeded by the kernel.
pub(super) fn chance<T>(draw: impl FnOnce(&mut Rng) -> T) -> T {
    static RNG: OnceLock<Mutex<Rng>> = OnceLock::new();
    use std::hash::{BuildHasher, Hasher, RandomState};
    let rng = RNG.get_or_init(|| {
        let seed = RandomState::new().build_hasher().finish();
        Mutex::new(Rng::seeded(seed))
    });
    draw(&mut rng.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The one place at which the work is done, and who waits for it.
pub(super) struct Work {
    mean_s: f64,
    duty: f64,
    waiting_max: usize,
    queue: Mutex<Queue>,
    freed: Condvar,
    next: AtomicU64,
}

#[derive(Default)]
struct Queue {
    busy: bool,
    waits: VecDeque<u64>,
}

impl Work {
    pub(super) fn new(spec: &UnitSpec) -> Self {
        // Bounded where the specification is read.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let waiting_max = (spec.queue_s * spec.rate + spec.queue) as usize;
        Self {
            mean_s: 1.0 / spec.rate,
            duty: spec.duty,
            waiting_max,
            queue: Mutex::default(),
            freed: Condvar::new(),
            next: AtomicU64::new(0),
        }
    }

    /// Waits for its turn and does one piece of work, which takes so many times longer than
    /// it should; false at once when too many wait.
    pub(super) fn do_one(&self, pace: f64) -> bool {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waits.len() >= self.waiting_max {
            return false;
        }
        queue.waits.push_back(ticket);
        while queue.busy || queue.waits.front() != Some(&ticket) {
            queue = self
                .freed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.waits.pop_front();
        queue.busy = true;
        drop(queue);
        let draw = f64::from(chance(|rng| rng.unit()));
        work(-(1.0 - draw).ln() * self.mean_s * pace, self.duty);
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .busy = false;
        self.freed.notify_all();
        true
    }

    pub(super) fn waiting(&self) -> usize {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waits.len()
    }
}

/// Burns a share of the seconds and sleeps the rest; what it oversleeps once it sleeps less the next
/// time. On a processor that others take as well only the burning takes longer.
fn work(seconds: f64, duty: f64) {
    let (mut to_burn, mut to_sleep) = (seconds * duty, seconds * (1.0 - duty));
    while to_burn > 0.0 || to_sleep > 0.0 {
        let burn = to_burn.min(SLICE_S * duty);
        if burn > 0.0 {
            let begun = burnt();
            while burnt().saturating_sub(begun).as_secs_f64() < burn {
                for _ in 0..200 {
                    std::hint::spin_loop();
                }
            }
        }
        to_burn -= SLICE_S * duty;
        let sleep = to_sleep.min(SLICE_S * (1.0 - duty));
        if sleep > 0.0 {
            let begun = Instant::now();
            thread::sleep(Duration::from_secs_f64(sleep));
            to_sleep -= begun.elapsed().as_secs_f64();
        }
    }
}

/// Processor time of this thread.
fn burnt() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Burns so many processors for ever, in threads of at most one tenth each.
fn burn(processors: f64) {
    const EACH: f64 = 0.1;
    // Bounded by the command that asks for it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let threads = (processors / EACH).ceil().clamp(1.0, 16.0) as u32;
    let duty = (processors / f64::from(threads)).clamp(0.0, 1.0);
    for _ in 0..threads {
        thread::spawn(move || {
            loop {
                work(1.0, duty);
            }
        });
    }
}

/// Makes the process hold so many MB that it never gives back.
pub(super) fn fill(mb: f64) {
    let holds = resident_mb();
    // Bounded where the numbers are read.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = ((mb - holds).max(0.0) * MB) as usize;
    let mut ballast: Vec<u8> = vec![0; bytes];
    for page in ballast.iter_mut().step_by(PAGE) {
        // Written, so that the kernel has to have it.
        *page = 1;
    }
    std::mem::forget(ballast);
}

fn resident_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    pages.unwrap_or(0.0) * PAGE as f64 / MB
}

/// Spins with so many processors, and holds memory, for the rest of this life.
pub(in super::super) fn spin(processors: f64, mb: f64) {
    burn(processors);
    if mb > 0.0 {
        fill(resident_mb() + mb);
    }
}

/// Takes the lock, does what is to be done under it, and gives it back. Who finds it taken waits
/// for ever with all that it has, and burns for it: what a spin lock does whose holder is gone.
pub(super) fn take(lock: &Path, faults: &Faults) {
    let new = OpenOptions::new().write(true).create_new(true).open(lock);
    match new {
        Ok(_) => drop(std::fs::remove_file(lock)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let text = super::super::bounded(lock, 64).unwrap_or_default();
            let words = text.strip_prefix(COSTS).unwrap_or_default().split(' ');
            let mut words = words.map(|word| word.parse().unwrap_or(0));
            let (permille, mb) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
            faults.deadlock(permille, mb);
        }
        Err(_) => {}
    }
}

/// Makes this process the one that holds the lock and never lets go: the file stays when
/// it dies, and until then nobody may take it away. It tells what waiting for it costs.
pub(in super::super) fn hold(lock: &Path, permille: u64, mb: u64) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(lock)?;
    write!(file, "{COSTS}{permille} {mb}")?;
    flock(&file, FlockOperation::LockExclusive)?;
    std::mem::forget(file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_time_and_burns_its_share() {
        let (begun, before) = (Instant::now(), burnt());
        work(0.2, 0.1);
        let (took, burnt) = (begun.elapsed(), burnt() - before);
        assert!(took >= Duration::from_millis(195), "{took:?}");
        assert!(burnt >= Duration::from_millis(19), "{burnt:?}");
    }

    #[test]
    fn one_is_worked_on_and_too_many_are_refused_at_once() {
        let spec = UnitSpec {
            duty: 0.05,
            queue_s: 0.0,
            queue: 2.0,
            ..UnitSpec::bare("a", 100.0)
        };
        let work = Work::new(&spec);
        let done: Vec<bool> = thread::scope(|scope| {
            let all: Vec<_> = (0..12).map(|_| scope.spawn(|| work.do_one(20.0))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let done = done.into_iter().filter(|done| *done).count();
        // One in work, two that wait, and who came once the first was done.
        assert!((3..12).contains(&done), "{done}");
        assert_eq!(work.waiting(), 0);
    }
}
