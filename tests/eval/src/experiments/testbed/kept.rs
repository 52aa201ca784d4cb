//! Runs of the bed in a file, a line of JSON each: to be compared again without being run again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use homeostat_models::sha256_hex;
use serde::{Deserialize, Serialize};

use super::Run;
use super::faults::Fault;
use super::trace::Trace;

/// Largest file that is read: some 5,000 runs.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    fault: String,
    plan: String,
    /// Of the settings of the bed: runs of another bed are no repetitions.
    settings: String,
    trace: Trace,
}

/// Adds a run of a bed with these settings.
pub(super) fn add(file: &Path, run: &Run, settings: &str) -> Result<()> {
    let plan = run.fault.plans.get(run.plan);
    let line = Line {
        fault: run.fault.name.clone(),
        plan: plan.map_or(String::new(), |plan| plan.name.clone()),
        settings: sha256_hex(settings.as_bytes()),
        trace: run.trace.clone(),
    };
    let told = || format!("cannot write {}", file.display());
    let mut open = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .with_context(told)?;
    writeln!(open, "{}", serde_json::to_string(&line)?).with_context(told)
}

/// The runs of these faults; of a bed with these settings only, where they are told.
///
/// # Errors
/// When the file does not read, or a run in it is another bed's.
pub(super) fn read(file: &Path, faults: &[Arc<Fault>], settings: Option<&str>) -> Result<Vec<Run>> {
    let told = || format!("cannot read {}", file.display());
    let bytes = fs::metadata(file).with_context(told)?.len();
    ensure!(bytes <= BYTES_MAX, "{} is too large", file.display());
    let text = fs::read_to_string(file).with_context(told)?;
    let wanted = settings.map(|text| sha256_hex(text.as_bytes()));
    let mut runs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let place = || format!("{}, line {}", file.display(), at + 1);
        let line: Line = serde_json::from_str(line).with_context(place)?;
        if wanted.as_ref().is_some_and(|it| *it != line.settings) {
            bail!("{}: a run of a bed with other settings", place());
        }
        let Some(fault) = faults.iter().find(|fault| fault.name == line.fault) else {
            continue;
        };
        let plan = fault.plans.iter().position(|plan| plan.name == line.plan);
        runs.push(Run {
            fault: Arc::clone(fault),
            plan: plan.with_context(place)?,
            trace: line.trace,
        });
    }
    Ok(runs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::faults::shipped;
    use super::super::trace::Figures;
    use super::*;

    #[test]
    fn runs_come_back_as_they_were_and_nonsense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("runs");
        let trace = Trace {
            before: Figures([1.5; 12]),
            during: Figures([2.5; 12]),
            fares: Vec::new(),
            course: Vec::new(),
            plan_s: 8.0,
            carried_out: true,
            works: false,
        };
        let all = shipped().unwrap();
        for fault in all.iter().take(2).map(Arc::clone) {
            let trace = trace.clone();
            add(
                &file,
                &Run {
                    fault,
                    plan: 0,
                    trace,
                },
                "a bed",
            )
            .unwrap();
        }
        let back = read(&file, &all, None).unwrap();
        let first = back.first().unwrap();
        assert_eq!((back.len(), &*first.fault.name), (2, &*all[0].name));
        assert_eq!(first.trace.during, trace.during);
        assert_eq!(read(&file, &all[1..], Some("a bed")).unwrap().len(), 1);
        let error = read(&file, &all, Some("another")).err().unwrap();
        assert!(format!("{error:#}").contains("other settings"), "{error:#}");
        fs::write(&file, "{}\n").unwrap();
        let error = read(&file, &all, None).err().unwrap();
        assert!(format!("{error:#}").contains("line 1"), "{error:#}");
    }
}
