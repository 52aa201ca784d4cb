//! Runs of the bed in a file, a line of JSON each: to be compared again without being run again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use homeostat_models::sha256_hex;
use homeostat_sim::topology::Topology;
use serde::{Deserialize, Serialize};

use super::faults::Fault;
use super::trace::Trace;
use super::{Run, real};
use crate::stage::bed;

/// Largest file that is read: some 5,000 runs.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    fault: String,
    plan: String,
    /// Of all that the run follows from but chance: runs of another bed, or of another fault of
    /// that name, are no repetitions.
    settings: String,
    trace: Trace,
}

/// What a run of a fault follows from, hashed; on this topology, if the fault has none of its own.
fn settings(fault: &Fault, topology: &Topology) -> String {
    let text = fault.topology.as_deref().unwrap_or(topology).text();
    let Fault {
        incident,
        watch_s,
        after_s,
        plans,
        ..
    } = fault;
    let (bed, real) = (bed::settings(), real::settings());
    let all = format!("{bed}\n{real}\n{text}\n{incident:?}\n{watch_s} {after_s} {plans:?}");
    sha256_hex(all.as_bytes())
}

/// Adds a run of a bed with this topology.
pub(super) fn add(file: &Path, run: &Run, topology: &Topology) -> Result<()> {
    let plan = run.fault.plans.get(run.plan);
    let line = Line {
        fault: run.fault.name.clone(),
        plan: plan.map_or(String::new(), |plan| plan.name.clone()),
        settings: settings(&run.fault, topology),
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

/// The runs of these faults; where a topology is told only those that are repetitions on it.
///
/// # Errors
/// When the file does not read, or a run in it is another bed's.
pub(super) fn read(
    file: &Path,
    faults: &[Arc<Fault>],
    again: Option<&Topology>,
) -> Result<Vec<Run>> {
    let told = || format!("cannot read {}", file.display());
    let bytes = fs::metadata(file).with_context(told)?.len();
    ensure!(bytes <= BYTES_MAX, "{} is too large", file.display());
    let text = fs::read_to_string(file).with_context(told)?;
    let mut runs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let place = || format!("{}, line {}", file.display(), at + 1);
        let line: Line = serde_json::from_str(line).with_context(place)?;
        let Some(fault) = faults.iter().find(|fault| fault.name == line.fault) else {
            continue;
        };
        if again.is_some_and(|topology| settings(fault, topology) != line.settings) {
            bail!("{}: a run of a bed with other settings", place());
        }
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
    use super::super::TOPOLOGY;
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
        let topology = Topology::read("testbed.toml", TOPOLOGY).unwrap();
        let slower = TOPOLOGY.replacen("rate = 55", "rate = 54", 1);
        let other = Topology::read("testbed.toml", &slower).unwrap();
        for fault in all.iter().take(2).map(Arc::clone) {
            let trace = trace.clone();
            add(
                &file,
                &Run {
                    fault,
                    plan: 0,
                    trace,
                },
                &topology,
            )
            .unwrap();
        }
        let back = read(&file, &all, None).unwrap();
        let first = back.first().unwrap();
        assert_eq!((back.len(), &*first.fault.name), (2, &*all[0].name));
        assert_eq!(first.trace.during, trace.during);
        assert_eq!(read(&file, &all[1..], Some(&topology)).unwrap().len(), 1);
        let error = read(&file, &all, Some(&other)).err().unwrap();
        assert!(format!("{error:#}").contains("other settings"), "{error:#}");
        fs::write(&file, "{}\n").unwrap();
        let error = read(&file, &all, None).err().unwrap();
        assert!(format!("{error:#}").contains("line 1"), "{error:#}");
    }
}
