//! Recordings of real nodes.
//!
//! A CSV file with a head; the first column is the time in seconds since boot, each other one
//! a metric of the node. A cell that is empty, or is no number, is a reading that did not
//! come. What a line has too little is missing, what it has too much is left out; a line
//! whose time cannot be read is counted and left out. Metrics are in any unit: what is usual
//! is learnt.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_agent::detect::usual::Concern;
use homeostat_common::units::Micros;

use super::watcher::{Key, Raised, Watcher};
use crate::stage::interrupt;

/// Bytes of a line that are read: some thousand columns.
const LINE_MAX: u64 = 64 * 1024;

impl Key for String {
    type Scope = ();

    fn scope(&self) -> Self::Scope {}

    fn concern(&self) -> Concern {
        Concern::ANY
    }

    fn words(&self) -> String {
        self.clone()
    }
}

/// What came of a recording.
pub(super) struct Replayed {
    pub(super) hours: f64,
    pub(super) metrics: usize,
    pub(super) ours: Vec<Raised>,
    pub(super) plain: usize,
    /// Lines whose time could not be read.
    pub(super) strange: usize,
}

/// Plays a recording to the agent's detectors.
///
/// # Errors
/// When it cannot be read, or is none.
pub(super) fn replay(file: &Path) -> Result<Replayed> {
    let name = || format!("cannot read {}", file.display());
    let mut reader = BufReader::new(File::open(file).with_context(name)?);
    let head = line(&mut reader).with_context(name)?.with_context(name)?;
    let columns: Vec<String> = head.trim().split(',').skip(1).map(str::to_owned).collect();
    ensure!(
        !columns.is_empty(),
        "{} has no columns of metrics",
        file.display()
    );
    let mut watcher: Watcher<String> = Watcher::new();
    let (mut first, mut last, mut strange) = (None, 0.0_f64, 0);
    let mut number = 0_u64;
    while let Some(text) = line(&mut reader).with_context(name)? {
        if number.is_multiple_of(1000) {
            interrupt::pause(Duration::ZERO)?;
        }
        number += 1;
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let mut cells = text.split(',');
        let at = cells.next().and_then(|cell| cell.parse::<f64>().ok());
        let Some(at) = at.filter(|at| (0.0..1e12).contains(at)) else {
            strange += 1;
            continue;
        };
        first.get_or_insert(at);
        last = last.max(at);
        // In range, as was just seen.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let now = Micros((at * 1e6) as u64);
        for column in &columns {
            let cell = cells.next().and_then(|cell| cell.parse::<f64>().ok());
            watcher.observe(now, column, cell.filter(|value| value.is_finite()));
        }
        watcher.tell(now);
    }
    let hours = (last - first.unwrap_or(last)) / 3600.0;
    Ok(Replayed {
        hours,
        metrics: watcher.metrics(),
        plain: watcher.others.len(),
        ours: watcher.ours,
        strange,
    })
}

/// The beginning of the next line, [`LINE_MAX`] bytes at most; `None` at the end.
fn line(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = reader.take(LINE_MAX).read_until(b'\n', &mut line)?;
    if read as u64 == LINE_MAX && line.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
    }
    Ok((read > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn a_recording_with_holes_is_played_and_what_lasts_is_found() {
        let mut text = "boot_s,quiet,steps,absent\n".to_owned();
        for second in 0..4000_u32 {
            let noise = f64::from(second * 97 % 251) / 251.0;
            let step = if second > 3000 { 90.0 } else { 10.0 };
            let _ = writeln!(text, "{second}.5,{},{},", 5.0 + noise, step + noise);
            match second {
                700 => text.push_str("not a time,1,2,3\n"),
                800 => text.push_str("800.6,nan,inf\n"),
                900 => text.push_str("12.0,1e300,,,,,,\n\u{0}\n"),
                _ => {}
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.csv");
        std::fs::write(&file, text).unwrap();
        let replayed = replay(&file).unwrap();
        assert_eq!((replayed.metrics, replayed.strange), (2, 2));
        assert!((replayed.hours - 3999.0 / 3600.0).abs() < 1e-6);
        assert_eq!(replayed.ours.len(), 1, "{:?}", replayed.ours);
        assert_eq!(replayed.ours[0].metric, "steps");
        assert!((3000.0..3030.0).contains(&replayed.ours[0].at_s));
        assert!(replay(&dir.path().join("none.csv")).is_err());
    }

    #[test]
    fn of_a_line_without_an_end_only_the_beginning_is_read() {
        let long = "7,".repeat(100_000);
        let text = format!("a,b\n{long}\n9,1\nlast");
        let mut reader = BufReader::new(text.as_bytes());
        let mut next = || {
            line(&mut reader)
                .unwrap()
                .map(|line| line.trim().to_owned())
        };
        assert_eq!(next().as_deref(), Some("a,b"));
        assert_eq!(next().unwrap(), long[..64 * 1024]);
        assert_eq!(next().as_deref(), Some("9,1"));
        assert_eq!(next().as_deref(), Some("last"));
        assert_eq!(next(), None);
    }
}
