//! What a process has used so far, as the kernel counts it.

use std::fs;

use anyhow::{Context as _, Result};

const NANOS: f64 = 1e9;

/// Seconds and bytes; memory is of now, the rest since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::experiments) struct Usage {
    pub(super) rss: f64,
    pub(super) pss: f64,
    pub(super) anonymous: f64,
    /// User and system time of all threads that live, to the nanosecond.
    pub(in crate::experiments) cpu: f64,
    /// The part of the kernel's own work in it, by its clock ticks: a guide, not a measure.
    pub(super) system_share: f64,
    pub(super) written: f64,
}

impl Usage {
    pub(in crate::experiments) fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let number = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse::<f64>().ok())
                .with_context(|| format!("no {key} of process {pid}"))
        };
        let (memory, io, stat) = (read("smaps_rollup")?, read("io")?, read("stat")?);
        // After the name in brackets, user and system time are fields 12 and 13.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let mut ticks = fields.split_whitespace().skip(11);
        let mut tick = || ticks.next().and_then(|field| field.parse::<f64>().ok());
        let (user, system) = (tick().unwrap_or(0.0), tick().unwrap_or(0.0));
        let mut cpu = 0.0;
        let threads = format!("/proc/{pid}/task");
        for thread in fs::read_dir(&threads).with_context(|| format!("cannot read {threads}"))? {
            // One may have ended since it was listed.
            let text = thread.map(|thread| fs::read_to_string(thread.path().join("schedstat")));
            let ran = text.ok().and_then(Result::ok).unwrap_or_default();
            let ran = ran.split_whitespace().next();
            cpu += ran.and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / NANOS;
        }
        Ok(Self {
            rss: number(&memory, "Rss:")? * 1024.0,
            pss: number(&memory, "Pss:")? * 1024.0,
            anonymous: number(&memory, "Anonymous:")? * 1024.0,
            cpu,
            system_share: system / (user + system).max(1.0),
            written: number(&io, "write_bytes:")?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_own_use_can_be_read_and_grows() {
        let before = Usage::of(std::process::id()).unwrap();
        let end = Instant::now() + Duration::from_millis(50);
        let ballast = vec![1_u8; 4 << 20];
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.cpu > before.cpu, "{before:?} {after:?}");
        assert!(
            after.anonymous >= before.anonymous + 3e6,
            "{before:?} {after:?}"
        );
        assert!(after.pss <= after.rss && after.anonymous <= after.rss);
        drop(ballast);
    }
}
