//! Whether the threads of a silent process block by themselves, or are kept from
//! running.
//!
//! In goes `PID/task`, out comes how long the most delayed thread waited for a core
//! between two looks, and whether one has not run at all although it wanted to: it
//! was ready, or waited for a disk, at both looks and between them never got a core.
//! A deadlocked thread sleeps, so it is neither. The kernel adds a wait to its counters
//! only when it is over, so one that lasts shows in the state alone. A look costs some
//! 8 us for each thread, so it is for processes that have missed a probe. Judges
//! nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use homeostat_common::units::{Micros, Millis, Ratio};

use super::source::SPAN_MIN;
use super::{parse, share};

/// Threads that are looked at, the oldest first: in a process with more, those that
/// take requests are among them as a rule, and 64 cost half a millisecond.
const THREADS_MAX: usize = 64;

/// A look longer ago than this says nothing about the present silence.
const AGE_MAX: Millis = Millis::secs(2);

/// A thread that waits for less is in a queue like all others on a busy node.
const STARVED_MIN: Millis = Millis(50);

/// What two looks say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// Share of time in which the most delayed thread was ready and did not run.
    pub(super) run_delay: Ratio,
    /// A thread has wanted to run for [`STARVED_MIN`], and has not.
    pub(super) starved: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Ready, or in an uninterruptible wait, without a core in between since then.
    wants_since: Option<Micros>,
    schedule: parse::Schedule,
}

/// Remembers the last look.
#[derive(Debug)]
pub(super) struct Threads {
    folder: PathBuf,
    last: Option<(Micros, BTreeMap<u32, Seen>)>,
    told: Option<Look>,
}

impl Threads {
    /// Of the process whose folder below `/proc` this is.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.join("task"),
            last: None,
            told: None,
        }
    }

    /// Looks; `None` for the first time in a while. Asked again at once, it says the
    /// same again.
    pub(super) fn look(&mut self, now: Micros) -> Option<Look> {
        let fresh = |at: Micros| now.since(at) < SPAN_MIN;
        if !self.last.as_ref().is_some_and(|(at, _)| fresh(*at)) {
            self.told = self.compare(now);
        }
        self.told
    }

    fn compare(&mut self, now: Micros) -> Option<Look> {
        let last = self.last.take();
        let last = last.filter(|(at, _)| now.since(*at) <= AGE_MAX);
        let mut seen = self.read(now);
        for (id, former) in last.iter().flat_map(|(_, former)| former) {
            if let Some(seen) = seen.get_mut(id)
                && seen.schedule.turns == former.schedule.turns
                // One that never left its core got no new turn either.
                && seen.schedule.ran_ns == former.schedule.ran_ns
                && seen.wants_since.is_some()
            {
                seen.wants_since = former.wants_since.or(seen.wants_since);
            }
        }
        self.last = Some((now, seen));
        let (at, former) = last?;
        let (_, seen) = self.last.as_ref()?;
        let span_ns = (now.0.checked_sub(at.0).filter(|span| *span > 0)? * 1000) as f64;
        let mut look = Look {
            run_delay: Ratio::ZERO,
            starved: false,
        };
        for (id, seen) in seen {
            let Some(former) = former.get(id) else {
                continue;
            };
            let (new, old) = (seen.schedule.waited_ns, former.schedule.waited_ns);
            let waited = new.saturating_sub(old);
            let delay = share(waited as f64 / span_ns);
            if delay.get() > look.run_delay.get() {
                look.run_delay = delay;
            }
        }
        look.starved = seen.values().any(|seen| {
            let since = seen.wants_since;
            since.is_some_and(|since| now.since(since) >= STARVED_MIN)
        });
        Some(look)
    }

    fn read(&self, now: Micros) -> BTreeMap<u32, Seen> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return BTreeMap::new();
        };
        entries
            .flatten()
            .take(THREADS_MAX)
            .filter_map(|entry| {
                let id = entry.file_name().to_str()?.parse().ok()?;
                let read = |name| fs::read_to_string(entry.path().join(name)).ok();
                let schedule = parse::schedule(&read("schedstat")?)?;
                let state = parse::stat(&read("stat")?)?.state;
                let seen = Seen {
                    wants_since: matches!(state, 'R' | 'D').then_some(now),
                    schedule,
                };
                Some((id, seen))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(proc: &Path, id: u32, state: char, waited_ns: u64, turns: u64) {
        running(proc, id, state, 5, waited_ns, turns);
    }

    fn running(proc: &Path, id: u32, state: char, ran_ns: u64, waited_ns: u64, turns: u64) {
        let folder = proc.join("7/task").join(id.to_string());
        fs::create_dir_all(&folder).unwrap();
        let stat = format!("{id} (x) {state} 1 7 7 0 -1 0 0 0 0 0 50 50 0 0 20 0 4 0 99 0 0 0");
        fs::write(folder.join("stat"), stat).unwrap();
        let text = format!("{ran_ns} {waited_ns} {turns}\n");
        fs::write(folder.join("schedstat"), text).unwrap();
    }

    #[test]
    fn a_thread_that_wants_to_run_and_never_does_is_told_from_one_that_sleeps() {
        let dir = tempfile::tempdir().unwrap();
        let mut threads = Threads::new(&dir.path().join("7"));
        // Main sleeps, as in a deadlock; a worker waits for its core at each look.
        thread(dir.path(), 7, 'S', 0, 4);
        thread(dir.path(), 8, 'R', 0, 9);
        assert_eq!(threads.look(Micros(0)), None, "one look measures nothing");
        let look = threads.look(Micros(100_000)).unwrap();
        assert!(look.starved && look.run_delay == Ratio::ZERO, "{look:?}");
        assert_eq!(
            threads.look(Micros(101_000)),
            Some(look),
            "too soon for news"
        );
        // It got a turn, after half of the time.
        thread(dir.path(), 8, 'R', 50_000_000, 10);
        let look = threads.look(Micros(200_000)).unwrap();
        assert!(!look.starved);
        assert!((look.run_delay.get() - 0.5).abs() < 0.01, "{look:?}");
        // Stuck in a disk.
        thread(dir.path(), 8, 'D', 50_000_000, 11);
        assert!(!threads.look(Micros(300_000)).unwrap().starved);
        assert!(!threads.look(Micros(340_000)).unwrap().starved, "too short");
        assert!(threads.look(Micros(400_000)).unwrap().starved);
        thread(dir.path(), 8, 'S', 50_000_000, 11);
        assert!(!threads.look(Micros(500_000)).unwrap().starved);
        let old = threads.look(Micros(5_000_000));
        assert_eq!(old, None, "the last look is of another time");
    }

    #[test]
    fn a_thread_that_never_leaves_its_core_is_not_starved() {
        let dir = tempfile::tempdir().unwrap();
        let mut threads = Threads::new(&dir.path().join("7"));
        for ms in [0, 100, 200] {
            running(dir.path(), 7, 'R', ms * 1_000_000, 0, 9);
            let look = threads.look(Micros(ms * 1000));
            assert!(!look.is_some_and(|look| look.starved), "{ms} {look:?}");
        }
    }

    #[test]
    fn a_process_that_is_gone_or_makes_no_sense_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut threads = Threads::new(&dir.path().join("7"));
        assert_eq!(threads.look(Micros(0)), None);
        thread(dir.path(), 7, 'R', 0, 1);
        fs::write(dir.path().join("7/task/7/schedstat"), b"\xff").unwrap();
        let look = threads.look(Micros(100_000));
        assert_eq!(look.map(|look| look.starved), Some(false));
    }
}
