//! Reads the kernel's texts. Whatever stands there, nothing panics: what is not as
//! it should be is `None`.

use std::str::FromStr;

/// Ticks of all cores since boot, from the first line of `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTicks {
    pub(super) busy: u64,
    pub(super) all: u64,
}

pub(super) fn cpu_ticks(text: &str) -> Option<CpuTicks> {
    let mut fields = text
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    // user nice system idle iowait irq softirq steal; guest time is within user.
    let mut ticks = [0_u64; 8];
    for tick in &mut ticks {
        *tick = fields.next()?.parse().ok()?;
    }
    let all = ticks.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n))?;
    let [_, _, _, idle, iowait, ..] = ticks;
    Some(CpuTicks {
        busy: all - idle - iowait,
        all,
    })
}

/// Microseconds of the `some` line of a pressure file.
pub(super) fn pressure_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    value(line.split_once("total=")?.1)
}

/// Bytes of a `NAME:   123 kB` line.
pub(super) fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value(line.trim().strip_suffix(" kB")?)?;
    kib.checked_mul(1024)
}

/// Bytes received and sent by all interfaces but loopback.
pub(super) fn net_dev(text: &str) -> Option<(u64, u64)> {
    let (mut received, mut sent) = (0_u64, 0_u64);
    let interfaces = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    for (name, counts) in interfaces {
        if name.trim() == "lo" {
            continue;
        }
        let mut counts = counts.split_whitespace();
        received = received.wrapping_add(value(counts.next()?)?);
        sent = sent.wrapping_add(value(counts.nth(7)?)?);
    }
    // Two lines of headings are always there.
    text.lines()
        .nth(1)?
        .contains("bytes")
        .then_some((received, sent))
}

/// What the agent wants of `PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) ticks: u64,
    pub(super) threads: u64,
    pub(super) started: u64,
}

pub(super) fn stat(text: &str) -> Option<Stat> {
    // The name is in brackets and may hold anything, brackets too.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let user: u64 = value(fields.nth(10)?)?;
    let system: u64 = value(fields.next()?)?;
    let threads = value(fields.nth(4)?)?;
    let started = value(fields.nth(1)?)?;
    Some(Stat {
        state,
        ticks: user.checked_add(system)?,
        threads,
        started,
    })
}

/// Resident and shared pages of `PID/statm`.
pub(super) fn statm(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_whitespace().skip(1);
    Some((value(fields.next()?)?, value(fields.next()?)?))
}

/// Bytes of `memory.stat` of a group that belong to no file: `total_rss` in version 1, which
/// counts groups below it too, `anon` in version 2.
pub(super) fn group_anonymous(text: &str) -> Option<u64> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| value(line.strip_prefix(name)?.strip_prefix(' ')?))
    };
    field("total_rss").or_else(|| field("anon"))
}

/// The soft limit of open files of `PID/limits`; the inner `None` where there is none.
pub(super) fn open_files(text: &str) -> Option<Option<u64>> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => Some(Some(value(number)?)),
    }
}

/// Nanoseconds ready but not running, of `PID/schedstat`.
pub(super) fn run_delay(text: &str) -> Option<u64> {
    value(text.split_whitespace().nth(1)?)
}

/// What the scheduler says of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Nanoseconds on a core.
    pub(super) ran_ns: u64,
    /// Nanoseconds ready but not running, of waits that are over.
    pub(super) waited_ns: u64,
    /// How often it got a core.
    pub(super) turns: u64,
}

/// Of `PID/task/TID/schedstat`.
pub(super) fn schedule(text: &str) -> Option<Schedule> {
    let mut fields = text.split_whitespace();
    Some(Schedule {
        ran_ns: value(fields.next()?)?,
        waited_ns: value(fields.next()?)?,
        turns: value(fields.next()?)?,
    })
}

/// The first of the load averages.
pub(super) fn load(text: &str) -> Option<f32> {
    let load: f32 = value(text.split_whitespace().next()?)?;
    (load.is_finite() && load >= 0.0).then_some(load)
}

fn value<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b (c) S 1 42 42 0 -1 4194304 99 0 0 0 7 5 0 0 20 0 3 0 136433 \
                        3133440 382 18446744073709551615 1 1 0 0";

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        assert_eq!(
            stat(STAT),
            Some(Stat {
                state: 'S',
                ticks: 12,
                threads: 3,
                started: 136_433,
            })
        );
    }

    #[test]
    fn the_texts_of_a_kernel() {
        let ticks = cpu_ticks("cpu  10 0 5 80 4 0 1 0 0 0\ncpu0 1 2\n").unwrap();
        assert_eq!((ticks.busy, ticks.all), (16, 100));
        let psi =
            "some avg10=0.09 avg60=6.39 avg300=23.25 total=214399095\nfull avg10=0.00 total=7\n";
        assert_eq!(pressure_total(psi), Some(214_399_095));
        let memory = "MemTotal:       24731708 kB\nMemAvailable:   24279524 kB\n";
        assert_eq!(meminfo(memory, "MemAvailable"), Some(24_279_524 * 1024));
        assert_eq!(meminfo(memory, "Mem"), None);
        let net = "Inter-| Receive | Transmit\n face |bytes packets|bytes\n\
                   lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n\
                   eth0:100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n\
                   wlan0: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n";
        assert_eq!(net_dev(net), Some((107, 208)));
        assert_eq!(statm("765 410 382 5 0 123 0\n"), Some((410, 382)));
        assert_eq!(run_delay("5 77 1\n"), Some(77));
        let schedule = schedule("5 77 3\n").unwrap();
        assert_eq!((schedule.waited_ns, schedule.turns), (77, 3));
        assert_eq!(
            group_anonymous("rss 1\ntotal_rss 9\ntotal_rss_huge 3\n"),
            Some(9)
        );
        assert_eq!(
            group_anonymous("anon 4096\nanon_thp 1\nfile 2\n"),
            Some(4096)
        );
        assert_eq!(group_anonymous("cache 1\n"), None);
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max processes   96  96  processes\n\
                      Max open files  1024  524288  files\n";
        assert_eq!(open_files(limits), Some(Some(1024)));
        assert_eq!(
            open_files("Max open files unlimited unlimited files"),
            Some(None)
        );
        assert_eq!(open_files("Max open files -3 9 files"), None);
        assert_eq!(load("0.74 1.78 1.30 1/91 26079\n"), Some(0.74));
    }

    #[test]
    fn texts_cut_anywhere_or_mangled_are_survived() {
        let mut rng = fastrand::Rng::with_seed(1);
        for text in [
            STAT,
            "cpu  10 0 5 80 4 0 1 0 0 0\n",
            "some total=99",
            "1 2 3",
        ] {
            for _ in 0..2000 {
                let mut bytes = text.as_bytes()[..rng.usize(..=text.len())].to_vec();
                if let Some(byte) = bytes.first_mut().filter(|_| rng.bool()) {
                    *byte = rng.u8(..);
                }
                let at = rng.usize(..=bytes.len());
                bytes.splice(at..at, *b"99999999999999999999");
                let text = String::from_utf8_lossy(&bytes);
                let _ = (
                    cpu_ticks(&text),
                    pressure_total(&text),
                    meminfo(&text, "cpu"),
                );
                let _ = (
                    net_dev(&text),
                    stat(&text),
                    statm(&text),
                    run_delay(&text),
                    load(&text),
                );
            }
        }
        assert_eq!(cpu_ticks("cpu  1 2 3 4 5 6 7"), None);
        assert_eq!(load("nan"), None);
    }
}
