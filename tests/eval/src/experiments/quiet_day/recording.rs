//! Recordings of real nodes.
//!
//! A CSV file with a head; the first column is the time in seconds since boot, each other one
//! a metric of the node. A cell that is empty, or is no number, is a reading that did not
//! come. What a line has too little is missing, what it has too much is left out; a line
//! whose time cannot be read is counted and left out. Metrics are in any unit: what is usual
//! is learnt.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_agent::detect::usual::Concern;
use homeostat_common::units::Micros;

use super::watcher::{Key, Raised, Watcher};
use crate::stage::interrupt;

/// Longest line that makes sense: some thousand columns.
const LINE_MAX: usize = 64 * 1024;

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
    let reader = BufReader::new(File::open(file).with_context(name)?);
    let mut lines = reader.split(b'\n');
    let head = lines.next().with_context(name)?.with_context(name)?;
    let head = String::from_utf8_lossy(&head).trim().to_owned();
    let columns: Vec<String> = head.split(',').skip(1).map(str::to_owned).collect();
    ensure!(
        !columns.is_empty(),
        "{} has no columns of metrics",
        file.display()
    );
    let mut watcher: Watcher<String> = Watcher::new();
    let (mut first, mut last, mut strange) = (None, 0.0_f64, 0);
    for (number, line) in lines.enumerate() {
        if number % 1000 == 0 {
            interrupt::pause(Duration::ZERO)?;
        }
        let line = line.with_context(name)?;
        let text = String::from_utf8_lossy(line.get(..LINE_MAX).unwrap_or(&line)).into_owned();
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
}
