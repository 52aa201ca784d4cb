//! Reads the kernel's texts. Whatever stands there, nothing panics: what is not as
//! it should be is `None`.

use std::str::FromStr;

/// Ticks of all cores, or of one, since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTicks {
    pub(super) busy: u64,
    pub(super) iowait: u64,
    pub(super) steal: u64,
    pub(super) all: u64,
}

impl CpuTicks {
    /// What has grown since; `None` if time stood still or went backwards.
    pub(super) fn since(self, before: Self) -> Option<Self> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        // Idle and waiting time may step back by a tick on some kernels.
        Some(Self {
            busy: self.busy.saturating_sub(before.busy),
            iowait: self.iowait.saturating_sub(before.iowait),
            steal: self.steal.saturating_sub(before.steal),
            all,
        })
    }

    /// A part of all ticks.
    pub(super) fn share(&self, part: u64) -> f64 {
        (part as f64 / self.all as f64).clamp(0.0, 1.0)
    }
}

/// Of the numbers that follow the name on a line of `stat`.
pub(super) fn cpu_ticks(numbers: &str) -> Option<CpuTicks> {
    let mut fields = numbers.split_ascii_whitespace();
    // user nice system idle iowait irq softirq steal; guest time is within user.
    let mut ticks = [0_u64; 8];
    for tick in &mut ticks {
        *tick = fields.next()?.parse().ok()?;
    }
    let all = ticks.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n))?;
    let [_, _, _, idle, iowait, _, _, steal] = ticks;
    Some(CpuTicks {
        busy: all - idle - iowait,
        iowait,
        steal,
        all,
    })
}

/// Number and ticks of one core, of its line in `stat`.
pub(super) fn core_ticks(line: &str) -> Option<(usize, CpuTicks)> {
    let (number, numbers) = line.strip_prefix("cpu")?.split_once(' ')?;
    Some((value(number)?, cpu_ticks(numbers)?))
}

/// Microseconds of the `some` line of a pressure file, and of the `full` line if it has one.
pub(super) fn pressure_totals(text: &str) -> Option<(u64, Option<u64>)> {
    let total = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        value::<u64>(line.split_once("total=")?.1)
    };
    Some((total("some ")?, total("full ")))
}

/// Bytes of a `NAME:   123 kB` line.
pub(super) fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value(line.trim().strip_suffix(" kB")?)?;
    kib.checked_mul(1024)
}

/// The lines of `net/dev`: name and sixteen counters of each interface. `None` if the two
/// headings are not there, and for a line that is none.
pub(super) fn net_dev(text: &str) -> Option<impl Iterator<Item = Option<(&str, [u64; 16])>>> {
    text.lines().nth(1)?.contains("bytes").then_some(())?;
    Some(text.lines().skip(2).map(|line| {
        let (name, counts) = line.split_once(':')?;
        Some((name.trim(), numbers(counts)?))
    }))
}

/// Signal and noise of each interface of `net/wireless`, in dBm. A driver that has another
/// scale tells positive numbers, one that stores a byte tells them 256 too high, and one that
/// knows no noise tells -256.
pub(super) fn wireless(text: &str) -> impl Iterator<Item = (&str, Option<f64>, Option<f64>)> {
    text.lines().skip(2).filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let mut fields = rest.split_ascii_whitespace().skip(2);
        let mut dbm = || {
            let level: f64 = value(fields.next()?.trim_end_matches('.'))?;
            let level = if level > 63.0 { level - 256.0 } else { level };
            (-120.0..0.0).contains(&level).then_some(level)
        };
        let signal = dbm();
        Some((name.trim(), signal, dbm()))
    })
}

/// Segments sent and sent again, of `net/snmp`: a line of names, and one of numbers.
pub(super) fn tcp_segments(text: &str) -> Option<[u64; 2]> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let of = |wanted: &str| {
        let place = names
            .split_ascii_whitespace()
            .position(|name| name == wanted)?;
        value(numbers.split_ascii_whitespace().nth(place)?)
    };
    Some([of("OutSegs")?, of("RetransSegs")?])
}

/// Sockets of `net/sockstat`.
pub(super) fn sockets(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("sockets: used "))?;
    value(line)
}

/// Pages read from and written to swap, and kills for memory if the kernel counts them, of
/// `vmstat`.
pub(super) fn vmstat(text: &str) -> Option<([u64; 2], Option<u64>)> {
    let swapped = [field(text, "pswpin")?, field(text, "pswpout")?];
    Some((swapped, field(text, "oom_kill")))
}

/// The first numbers of a line.
pub(super) fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let mut fields = text.split_ascii_whitespace();
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = value(fields.next()?)?;
    }
    Some(numbers)
}

/// A file that holds one number which only grows.
pub(super) fn count(text: &str) -> Option<u64> {
    value(text)
}

/// A file that holds one whole number, perhaps a negative one.
pub(super) fn whole(text: &str) -> Option<f64> {
    let number: i64 = value(text)?;
    Some(number as f64)
}

/// A file that holds 0 or 1.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.trim() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// What the firmware of a Raspberry Pi says, in hexadecimal, with or without its name.
pub(super) fn throttled_bits(text: &str) -> Option<u32> {
    let text = text.trim();
    let text = text.strip_prefix("throttled=").unwrap_or(text);
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// Bytes that a process had read from and written to disks, of `PID/io`; what was written to
/// a file that was deleted before it reached the disk is taken off.
pub(super) fn disk_bytes(text: &str) -> Option<[u64; 2]> {
    let of = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| value::<u64>(line.strip_prefix(name)?))
    };
    let taken_back = of("cancelled_write_bytes:").unwrap_or(0);
    Some([
        of("read_bytes:")?,
        of("write_bytes:")?.saturating_sub(taken_back),
    ])
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

/// The number behind a name, on a line of its own.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| value(line.strip_prefix(name)?.strip_prefix(' ')?))
}

/// Bytes of `memory.stat` of a group that belong to no file: `total_rss` in version 1, which
/// counts groups below it too, `anon` in version 2.
pub(super) fn group_anonymous(text: &str) -> Option<u64> {
    field(text, "total_rss").or_else(|| field(text, "anon"))
}

/// Microseconds of `cpu.stat` of a group: used, and held back by its limit. Version 1 counts
/// the second in nanoseconds, and the first elsewhere.
pub(super) fn group_cpu(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let held = field(text, "throttled_usec");
    let held = held.or_else(|| field(text, "throttled_time").map(|ns| ns / 1000));
    let used = field(text, "usage_usec");
    (held.is_some() || used.is_some()).then_some((used, held))
}

/// A limit of a group; the inner `None` where there is none.
pub(super) fn limit(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "max" => Some(None),
        number => Some(Some(value(number)?)),
    }
}

/// Bytes that a group read and wrote, of all disks: `8:0 rbytes=1 wbytes=2 ..` in version 2,
/// a line for each kind in version 1. A group that has done neither has an empty file.
pub(super) fn group_io(text: &str) -> Option<[u64; 2]> {
    let mut sums = [0_u64; 2];
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(1).peekable();
        let add = |sum: &mut u64, number: Option<&str>| {
            *sum = sum.saturating_add(value(number?)?);
            Some(())
        };
        let [read, written] = &mut sums;
        match words.peek() {
            Some(&"Read") => add(read, words.nth(1))?,
            Some(&"Write") => add(written, words.nth(1))?,
            Some(word) if word.contains('=') => {
                for word in words {
                    match word.split_once('=')? {
                        ("rbytes", number) => add(read, Some(number))?,
                        ("wbytes", number) => add(written, Some(number))?,
                        _ => {}
                    }
                }
            }
            // `Sync`, `Total` and so on.
            _ => {}
        }
    }
    Some(sums)
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
        let ticks = cpu_ticks(" 10 0 5 80 4 0 0 1 0 0").unwrap();
        assert_eq!((ticks.busy, ticks.iowait, ticks.steal), (16, 4, 1));
        let earlier = CpuTicks {
            iowait: 9,
            all: 90,
            ..ticks
        };
        let grown = ticks.since(earlier).unwrap();
        assert_eq!(
            (grown.iowait, grown.all),
            (0, 10),
            "waiting time steps back at times"
        );
        assert_eq!(ticks.since(ticks), None);
        assert_eq!(core_ticks("cpu12 10 0 5 80 4 0 0 1").unwrap(), (12, ticks));
        assert_eq!(core_ticks("intr 1 2"), None);
        let psi =
            "some avg10=0.09 avg60=6.39 avg300=23.25 total=214399095\nfull avg10=0.00 total=7\n";
        assert_eq!(pressure_totals(psi), Some((214_399_095, Some(7))));
        let memory = "MemTotal:       24731708 kB\nMemAvailable:   24279524 kB\n";
        assert_eq!(meminfo(memory, "MemAvailable"), Some(24_279_524 * 1024));
        assert_eq!(meminfo(memory, "Mem"), None);
        let net = "Inter-| Receive | Transmit\n face |bytes packets|bytes\n\
                   lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n\
                   eth0:100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n\
                   wlan0: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n";
        let lines: Vec<_> = net_dev(net).unwrap().map(|line| line.unwrap().0).collect();
        assert_eq!(lines, ["lo", "eth0", "wlan0"]);
        assert!(net_dev("eth0: 1 2\n").is_none());
        let air =
            "a\nb\n wlan0: 0000   54.  -56.  -256 0\n wlan1: 0 70. 200. 161. 0\n wlan2: 0 5 9 9\n";
        let levels: Vec<_> = wireless(air).collect();
        let expected = [
            ("wlan0", Some(-56.0), None),
            ("wlan1", Some(-56.0), Some(-95.0)),
            ("wlan2", None, None),
        ];
        assert_eq!(levels, expected);
        let snmp = "Tcp: A OutSegs B RetransSegs\nTcp: -1 10 0 3\n";
        assert_eq!(tcp_segments(snmp), Some([10, 3]));
        assert_eq!(tcp_segments("Tcp: OutSegs\nTcp: 1\n"), None);
        let events = "pswpin 1\npswpout 2\n";
        assert_eq!(vmstat(events), Some(([1, 2], None)));
        assert_eq!(
            vmstat("pswpin 1\npswpout 2\noom_kill 5\n"),
            Some(([1, 2], Some(5)))
        );
        for (text, bits) in [("50005\n", 0x50005), ("throttled=0x2\n", 2), ("0x0", 0)] {
            assert_eq!(throttled_bits(text), Some(bits));
        }
        assert_eq!(throttled_bits("never"), None);
        assert_eq!(flag("2\n"), None);
        let io = "read_bytes: 5\nwrite_bytes: 9\ncancelled_write_bytes: 4\n";
        assert_eq!(disk_bytes(io), Some([5, 5]));
        let second = "8:0 rbytes=1 wbytes=2 rios=9\n259:0 rbytes=10 wbytes=20\n";
        let first = "8:0 Read 11\n8:0 Write 22\n8:0 Sync 9\nTotal 33\n";
        assert_eq!(
            (group_io(second), group_io(first)),
            (Some([11, 22]), Some([11, 22]))
        );
        assert_eq!(
            (group_io(""), group_io("8:0 rbytes=x")),
            (Some([0, 0]), None)
        );
        assert_eq!(
            group_cpu("usage_usec 7\nthrottled_usec 3\n"),
            Some((Some(7), Some(3)))
        );
        assert_eq!(
            group_cpu("nr_throttled 1\nthrottled_time 3000\n"),
            Some((None, Some(3)))
        );
        assert_eq!(
            (limit("max\n"), limit("9\n"), limit("-1\n")),
            (Some(None), Some(Some(9)), None)
        );
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
                    pressure_totals(&text),
                    meminfo(&text, "cpu"),
                );
                let _ = (
                    net_dev(&text).map(Iterator::count),
                    wireless(&text).count(),
                    tcp_segments(&text),
                    vmstat(&text),
                    group_io(&text),
                    throttled_bits(&text),
                    stat(&text),
                    statm(&text),
                    run_delay(&text),
                    load(&text),
                );
            }
        }
        assert_eq!(cpu_ticks("1 2 3 4 5 6 7"), None);
        assert_eq!(load("nan"), None);
    }
}
