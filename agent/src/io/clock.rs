//! Time: the monotonic clock that drives everything, and the wall clock that is
//! only for display.
//!
//! [`now`] counts through suspend, unlike `std::time::Instant`. [`Wall`] says how far
//! its answer can be believed: a board without a battery starts in 1970, and a
//! clock that was right yesterday may be set back. Neither sets any clock.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeostat_common::ids::BootId;
use homeostat_common::units::Micros;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// No machine that runs this has a clock before 2025-01-01.
const UNIX_MS_MIN: i64 = 1_735_689_600_000;

/// tokio's timers stand still in suspend. A sleep is therefore cut into spans of
/// this length at most, which bounds how late it ends after a resume.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Longest text of a floor: the digits of an `i64`, and a newline.
const FLOOR_TEXT_MAX: u64 = 24;

/// The node's monotonic clock, which counts through suspend.
#[must_use]
pub fn now() -> Micros {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(tv_sec).unwrap_or(0);
    let micros = u64::try_from(tv_nsec / 1000).unwrap_or(0);
    Micros(secs.saturating_mul(1_000_000).saturating_add(micros))
}

/// Sleeps until the clock of [`now`] shows `until`, at once if it already does.
pub async fn sleep_until(until: Micros) {
    loop {
        let left = Duration::from_micros(until - now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(SLEEP_MAX)).await;
    }
}

/// How far wall time can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockQuality {
    /// Not before any time seen earlier on this node.
    Plausible,
    /// Before a time this node has seen: it was set back.
    Behind,
    /// Before this program was written. The time given is the last one known plus
    /// the time the node has been up since, which is too early but in order.
    NeverSet,
}

/// What a wall clock can go wrong with.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The floor could not be read; a floor that is absent is no error.
    #[error("cannot read the clock floor {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The floor could not be written.
    #[error("cannot write the clock floor {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no boot id, or not one.
    #[error("cannot read the boot id from {}", path.display())]
    BootId {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The wall clock, with a configured offset and a floor kept on disk.
#[derive(Debug)]
pub struct Wall {
    path: PathBuf,
    offset_ms: i64,
    /// The latest time a former run saw, 0 if none.
    floor: i64,
    /// Latest time seen in this run.
    seen: i64,
    opened: Micros,
}

impl Wall {
    /// Opens the clock with the floor kept in `path`. A floor that cannot be
    /// understood counts as none: it is a hint, and must not stop a node.
    ///
    /// # Errors
    /// [`ClockError::Read`] when the file is there and cannot be read.
    pub fn open(path: &Path, offset_ms: i64) -> Result<Self, ClockError> {
        let mut text = String::new();
        let read = File::open(path)
            .and_then(|file| file.take(FLOOR_TEXT_MAX).read_to_string(&mut text))
            .map(|_| text.trim().parse().unwrap_or(0));
        let floor = match read {
            Ok(floor) => floor,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                ) =>
            {
                0
            }
            Err(source) => {
                return Err(ClockError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let mut wall = Self::fresh(path, offset_ms);
        wall.floor = floor;
        Ok(wall)
    }

    /// A clock that knows of no former run.
    #[must_use]
    pub fn fresh(path: &Path, offset_ms: i64) -> Self {
        Self {
            path: path.to_owned(),
            offset_ms,
            floor: 0,
            seen: 0,
            opened: now(),
        }
    }

    /// Milliseconds since 1970, and how far to believe them.
    pub fn unix_ms(&mut self) -> (u64, ClockQuality) {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
        let clock = tv_sec
            .saturating_mul(1000)
            .saturating_add(tv_nsec / 1_000_000);
        self.judge(clock.saturating_add(self.offset_ms), now())
    }

    fn judge(&mut self, clock: i64, now: Micros) -> (u64, ClockQuality) {
        let latest = self.floor.max(self.seen);
        let (unix_ms, quality) = if clock < UNIX_MS_MIN {
            let up = i64::try_from(now.since(self.opened).0).unwrap_or(i64::MAX);
            (self.floor.saturating_add(up), ClockQuality::NeverSet)
        } else if clock < latest {
            (clock, ClockQuality::Behind)
        } else {
            self.seen = clock;
            (clock, ClockQuality::Plausible)
        };
        (u64::try_from(unix_ms).unwrap_or(0), quality)
    }

    /// Writes the latest plausible time as the floor of the next run: to a new file,
    /// synced, then renamed, so that a power cut leaves one or the other. Call it
    /// now and then, and at the end.
    ///
    /// # Errors
    /// [`ClockError::Write`]; the former floor is then still in place.
    pub fn persist(&self) -> Result<(), ClockError> {
        if self.seen <= self.floor {
            return Ok(());
        }
        let write = || {
            let fresh = self.path.with_extension("new");
            let mut file = File::create(&fresh)?;
            writeln!(file, "{}", self.seen)?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)?;
            let folder = self.path.parent().unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| ClockError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// The id of this boot of the kernel, below `proc` (usually `/proc`).
///
/// # Errors
/// [`ClockError::BootId`] when it is absent or not one.
pub fn boot_id(proc: &Path) -> Result<BootId, ClockError> {
    let path = proc.join("sys/kernel/random/boot_id");
    let read = || {
        let mut text = String::new();
        File::open(&path)?.take(64).read_to_string(&mut text)?;
        text.retain(|c| !matches!(c, '-' | '\n'));
        text.parse().map_err(io::Error::other)
    };
    read().map_err(|source| ClockError::BootId {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::units::Millis;

    const NOON: i64 = 1_800_000_000_000;

    fn wall(folder: &Path) -> Wall {
        Wall::open(&folder.join("clock"), 0).unwrap()
    }

    #[test]
    fn the_floor_outlives_the_process_and_shows_a_clock_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = wall(folder.path());
        assert_eq!(first.judge(NOON, now()).1, ClockQuality::Plausible);
        assert_eq!(first.judge(NOON - 1, now()).1, ClockQuality::Behind);
        first.persist().unwrap();

        let mut second = wall(folder.path());
        let start = second.opened;
        let (ms, quality) = second.judge(NOON - 3_600_000, start);
        assert_eq!((ms, quality), (1_799_996_400_000, ClockQuality::Behind));
        assert_eq!(second.judge(NOON, start).1, ClockQuality::Plausible);
        // In 1970 the floor and the time since are the best guess.
        let (ms, quality) = second.judge(5_000, start + Millis::secs(7));
        assert_eq!((ms, quality), (1_800_000_007_000, ClockQuality::NeverSet));
        assert_eq!(second.judge(-5, start).1, ClockQuality::NeverSet);
    }

    #[test]
    fn garbage_in_the_floor_counts_as_no_floor() {
        let folder = tempfile::tempdir().unwrap();
        for garbage in [
            &b"noon"[..],
            b"\xff\xfe",
            b"",
            b"99999999999999999999999999999999",
        ] {
            fs::write(folder.path().join("clock"), garbage).unwrap();
            let mut wall = wall(folder.path());
            assert_eq!(wall.judge(NOON, now()).1, ClockQuality::Plausible);
            wall.persist().unwrap();
        }
        assert!(matches!(
            Wall::open(folder.path(), 0),
            Err(ClockError::Read { .. })
        ));
    }

    #[test]
    fn the_offset_shifts_the_real_clock() {
        let folder = tempfile::tempdir().unwrap();
        let plain = wall(folder.path()).unix_ms().0;
        let offset = -3_600_000;
        let mut shifted = Wall::open(&folder.path().join("clock"), offset).unwrap();
        let behind = plain - shifted.unix_ms().0;
        assert!((3_595_000..=3_600_000).contains(&behind), "{behind}");
    }

    #[test]
    fn the_boot_id_of_this_machine_reads() {
        let id = boot_id(Path::new("/proc")).unwrap();
        assert_eq!(boot_id(Path::new("/proc")).unwrap(), id);
        assert!(boot_id(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn sleeping_ends_at_the_time_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let until = now() + Millis(5);
        runtime.block_on(sleep_until(until));
        assert!(now() >= until);
        runtime.block_on(sleep_until(Micros(0)));
    }
}
