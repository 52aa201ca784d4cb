//! PetShop: metrics of a microservice application on a public cloud (Hardt et al. 2024).
//!
//! Graph, target, the normal rows where there are any, and the rows of the issue go in; the
//! five rows of an issue are two before the alarm and three since. Settings and the confidence
//! were fixed on the issues in `train` and the first half of the normal period; three settings
//! were changed after looks at the results on the others. Cold start has no normal rows: the
//! two rows before the alarm are all the reference.

mod set;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use homeostat_causes::{Diagnosis, Grade, SETTINGS, Settings, diagnose_with};

use super::baselines::{self, Ranked};
use super::score::{Calibration, Hits, rows};
use super::wide::{Table, Topology};
use super::{Case, Doubts, Metric, calibrate, warnings};
use crate::result::{Report, Row};
use crate::stats::{Estimate, share};
use set::{Issue, Set, read};

/// Rows of an issue before the alarm.
const BEFORE: usize = 2;
/// Rows of an issue.
const ISSUE: usize = 5;

/// A case from ranges of tables, one after the other.
fn case(
    topology: &Topology,
    parts: &[(&Table, std::ops::Range<usize>)],
    alarm: usize,
    target: &str,
    metric: Metric,
) -> Result<Case> {
    let names = topology.names.clone();
    let place = names.iter().position(|name| name == target);
    let column = |metric: &str| -> Vec<Vec<f32>> {
        let of = |name: &String| {
            let key = (name.clone(), metric.to_owned());
            let cells = parts.iter().flat_map(|(table, range)| {
                let column = table.columns.get(&key);
                range.clone().map(move |row| {
                    column
                        .and_then(|column| column.get(row))
                        .copied()
                        .unwrap_or(f32::NAN)
                })
            });
            cells.collect()
        };
        names.iter().map(of).collect()
    };
    let mut errors = column("availability");
    for cell in errors.iter_mut().flatten() {
        *cell = 1.0 - *cell / 100.0;
    }
    let view = |name: &String| name.ends_with("_remote") || name.ends_with("_client");
    Ok(Case {
        proxy: names.iter().map(view).collect(),
        calls: topology.calls.clone(),
        target: place.with_context(|| format!("the graph has no {target}"))?,
        metric,
        alarm,
        latency: column("latency"),
        errors,
        requests: column("requests"),
        names,
    })
}

/// How the issues are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// With the normal rows.
    Full,
    /// Without.
    Cold,
    /// With, and the first row of the fault passes for normal.
    FullLate,
    /// Without, and so.
    ColdLate,
    /// With, and nothing after the first row since the alarm.
    FullFirst,
    /// Without, and so.
    ColdFirst,
}

impl View {
    const ALL: [Self; 6] = [
        Self::Full,
        Self::Cold,
        Self::FullLate,
        Self::ColdLate,
        Self::FullFirst,
        Self::ColdFirst,
    ];

    fn full(self) -> bool {
        matches!(self, Self::Full | Self::FullLate | Self::FullFirst)
    }

    fn id(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Cold => "cold",
            Self::FullLate => "full.late",
            Self::ColdLate => "cold.late",
            Self::FullFirst => "full.first",
            Self::ColdFirst => "cold.first",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Full => "with history",
            Self::Cold => "cold start",
            Self::FullLate => "with history, alarm one row late",
            Self::ColdLate => "cold start, alarm one row late",
            Self::FullFirst => "with history, only the first row of the fault",
            Self::ColdFirst => "cold start, only the first row of the fault",
        }
    }

    fn case(self, topology: &Topology, normal: &Table, issue: &Issue) -> Result<Case> {
        let (alarm, end) = match self {
            Self::Full | Self::Cold => (BEFORE, ISSUE),
            Self::FullLate | Self::ColdLate => (BEFORE + 1, ISSUE),
            Self::FullFirst | Self::ColdFirst => (BEFORE, BEFORE + 1),
        };
        let mut parts = vec![(&issue.table, 0..end)];
        let mut before = 0;
        if self.full() {
            parts.insert(0, (normal, 0..normal.rows));
            before = normal.rows;
        }
        case(
            topology,
            &parts,
            before + alarm,
            &issue.target,
            issue.metric,
        )
    }
}

fn told(diagnosis: &Diagnosis) -> Ranked {
    let suspects = diagnosis.suspects.iter();
    suspects.map(|one| usize::from(one.component.0)).collect()
}

fn rank(case: &Case, ranked: &[usize], truth: &str) -> Option<usize> {
    ranked.iter().position(|node| case.names[*node] == truth)
}

/// Runs the protocol on the folder `petshop` below `data`.
///
/// # Errors
/// When a file is missing or cannot be understood.
pub fn run(data: &Path, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut set = read(data)?;
    let mut report = Report::new("rca.petshop", &format!("{SETTINGS:?}"));
    let mut notes = std::mem::take(&mut set.notes);
    let (mut took, mut doubts) = (Vec::new(), Doubts::default());
    for view in View::ALL {
        view_rows(&mut report, &set, view, &mut took, &mut doubts)?;
    }
    notes.extend(doubts.notes());
    report.notes = warnings(notes);
    quiet(&mut report, &set)?;
    if let Some(p95) = Estimate::quantile(&took, 0.95, seed) {
        let components = set.topologies.first().map_or(0, |one| one.names.len());
        let rows = set.normal.rows + ISSUE;
        let what =
            format!("time of a diagnosis of the {components} components with {rows} rows, p95");
        report
            .rows
            .push(Row::new("rca.petshop.time", &what, "ms", p95).goal(10.0));
    }
    report.finish(begun.elapsed());
    Ok(report)
}

/// What the training issues look like, in words: settings are chosen by this and by nothing
/// else of the issues.
///
/// # Errors
/// As [`run`].
pub fn explain(data: &Path) -> Result<String> {
    use std::fmt::Write as _;
    let set = read(data)?;
    let warnings = warnings(set.notes.clone());
    let mut text: String = warnings.iter().map(|one| format!("{one}\n")).collect();
    let mut samples = Vec::new();
    for view in View::ALL {
        for (place, issue) in set.issues.iter().enumerate() {
            if !issue.train || (view.full() && issue.scenario != 0) {
                continue;
            }
            let case = view.case(&set.topologies[issue.scenario], &set.normal, issue)?;
            let (graph, diagnosis) = case.diagnose()?;
            let rank = rank(&case, &told(&diagnosis), &issue.truth);
            writeln!(
                text,
                "{} {place} {}: rank {rank:?}",
                view.id(),
                issue.metric.name()
            )?;
            let cold = f64::from(u8::from(diagnosis.grade == Grade::Cold));
            samples.extend(diagnosis.suspects.iter().zip(0..).map(|(one, at)| {
                let share = f64::from(one.share.clamp(0.01, 0.99));
                let times = f64::from(diagnosis.times.clamp(1.0, 20.0)).ln();
                (
                    vec![(share / (1.0 - share)).ln(), times, cold],
                    rank == Some(at),
                )
            }));
            for suspect in diagnosis.suspects.iter().take(3) {
                let name = graph.name(suspect.component);
                writeln!(
                    text,
                    "  {name}: {:.2} {:.2}",
                    suspect.share, suspect.confidence
                )?;
                for evidence in &suspect.evidence {
                    writeln!(text, "    {}", evidence.words(&graph))?;
                }
            }
            for one in &diagnosis.explained_away {
                let (of, by) = (graph.name(one.component), graph.name(one.by));
                writeln!(text, "  {of} by {by}: {:.2}", one.share)?;
            }
            if let Some(probe) = &diagnosis.probe {
                writeln!(text, "  probe: {}", probe.words(&graph))?;
            }
        }
    }
    let fit = calibrate::fit(&samples);
    writeln!(
        text,
        "confidence from {} suspects (constant, share, times, cold): {fit:.2?}",
        samples.len()
    )?;
    sweep(&set, &mut text)?;
    let half = set.normal.rows / 2;
    for (metric, full, share) in quiet_shares(&set, half / 2, half)? {
        writeln!(
            text,
            "left alone, first half, {} {full}: {share:?}",
            metric.name()
        )?;
    }
    Ok(text)
}

/// What the settings could be, each with what it gives on the training issues where nobody needs
/// to be confirmed, and how far normal windows of the first half go beyond the usual.
fn sweep(set: &Set, text: &mut String) -> Result<()> {
    use std::fmt::Write as _;
    let half = set.normal.rows / 2;
    let cold = |floor: f32, request: f32, baseline: f32| Settings {
        floor: [SETTINGS.floor[0], floor],
        request: [SETTINGS.request[0], request],
        baseline: [SETTINGS.baseline[0], baseline],
        confirm: [0.0; 2],
        ..SETTINGS
    };
    let full = |usual: f32| Settings {
        usual,
        confirm: [0.0; 2],
        ..SETTINGS
    };
    let mut tried = vec![(true, full(0.9)), (true, full(0.95)), (true, full(0.98))];
    for baseline in [0.0, 0.5] {
        for (floor, request) in [(0.2, 0.0), (0.1, 1.0), (0.1, 2.0), (0.05, 2.0), (0.05, 4.0)] {
            tried.push((false, cold(floor, request, baseline)));
        }
    }
    for (full, settings) in tried {
        {
            let value = [
                settings.usual,
                settings.floor[1],
                settings.request[1],
                settings.baseline[1],
            ];
            for metric in [Metric::Latency, Metric::Availability] {
                let mut normal = Vec::new();
                let target = set.issues.first().map_or("", |issue| issue.target.as_str());
                for at in half / 2..half - ISSUE + 1 {
                    let begin = if full { 0 } else { at };
                    let parts = [(&set.normal, begin..at + ISSUE)];
                    let case = case(
                        &set.topologies[0],
                        &parts,
                        at - begin + BEFORE,
                        target,
                        metric,
                    )?;
                    let (graph, signals, alarm) = case.signals()?;
                    normal.push(diagnose_with(&graph, &signals, &alarm, &settings).times);
                }
                normal.sort_unstable_by(f32::total_cmp);
                let last = normal.len() - 1;
                let at = |share: usize| normal[last * share / 100];
                write!(
                    text,
                    "{full} {value:?} {}: 95 % {:.2}, 98 % {:.2};",
                    metric.name(),
                    at(95),
                    at(98)
                )?;
                for view in View::ALL.into_iter().filter(|view| view.full() == full) {
                    write!(text, " {}", view.id())?;
                    for issue in set
                        .issues
                        .iter()
                        .filter(|issue| issue.train && issue.metric == metric)
                    {
                        if full && issue.scenario != 0 {
                            continue;
                        }
                        let case =
                            view.case(&set.topologies[issue.scenario], &set.normal, issue)?;
                        let (graph, signals, alarm) = case.signals()?;
                        let found = diagnose_with(&graph, &signals, &alarm, &settings);
                        let rank = rank(&case, &told(&found), &issue.truth);
                        let rank = rank.map_or("-".to_owned(), |rank| (rank + 1).to_string());
                        write!(text, " {rank}:{:.1}", found.times)?;
                    }
                }
                writeln!(text)?;
            }
        }
    }
    Ok(())
}

fn view_rows(
    report: &mut Report,
    set: &Set,
    view: View,
    took: &mut Vec<f64>,
    doubts: &mut Doubts,
) -> Result<()> {
    let mut ours = [Hits::default(); 5];
    let mut others = [Hits::default(); baselines::ALL.len()];
    let mut always = Hits::default();
    let mut chance = [0.0; 2];
    let mut sure = Calibration::default();
    for issue in &set.issues {
        if view.full() && issue.scenario != 0 {
            continue;
        }
        let case = view.case(&set.topologies[issue.scenario], &set.normal, issue)?;
        let (graph, signals, alarm) = case.signals()?;
        let start = Instant::now();
        let mut diagnosis = homeostat_causes::diagnose(&graph, &signals, &alarm);
        if view == View::Full {
            took.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        if issue.doubtful {
            diagnosis.doubt();
        }
        doubts.add(&issue.name, &graph, &diagnosis);
        let ranked = told(&diagnosis);
        let rank_ours = rank(&case, &ranked, &issue.truth);
        let groups = [
            true,
            issue.train,
            !issue.train,
            issue.metric == Metric::Latency,
            issue.metric == Metric::Availability,
        ];
        for (hits, _) in ours.iter_mut().zip(groups).filter(|(_, mine)| *mine) {
            hits.count(rank_ours);
        }
        let free = Settings {
            confirm: [0.0; 2],
            ..SETTINGS
        };
        let free = diagnose_with(&graph, &signals, &alarm, &free);
        always.count(rank(&case, &told(&free), &issue.truth));
        if !issue.train {
            let suspects = diagnosis.suspects.iter().zip(0..);
            sure.0.extend(
                suspects.map(|(one, place)| (f64::from(one.confidence), rank_ours == Some(place))),
            );
        }
        for ((_, _, baseline), hits) in baselines::ALL.iter().zip(&mut others) {
            hits.count(rank(&case, &baseline(&case), &issue.truth));
        }
        let nodes = case.proxy.iter().filter(|proxy| !**proxy).count().max(1) as f64;
        chance[0] += 1.0 / nodes;
        chance[1] += 3.0 / nodes;
    }
    let n = ours[0].n;
    ensure!(n > 0, "no issue can be ranked {}", view.words());
    let goals = match view {
        View::Full => [Some(0.95), Some(1.0)],
        View::Cold => [Some(0.93), Some(0.98)],
        _ => [None, None],
    };
    let best = |of: usize| {
        others
            .iter()
            .map(|hits| hits.share(of).value)
            .fold(0.0, f64::max)
    };
    let id = format!("rca.petshop.{}", view.id());
    let words = ["all", "train", "test", "latency", "availability"];
    for (group, hits) in words.iter().zip(&ours) {
        let goal = |of: usize| goals[of].filter(|_| *group == "all");
        let beside: Vec<_> = (0..2)
            .map(|of| match (*group == "all", view) {
                (true, View::Full) => (Some([0.65, 0.77][of]), "reference traversal", goal(of)),
                (true, _) => (Some(best(of)), "best baseline", goal(of)),
                (false, _) => (Some(chance[of] / n as f64), "chance", None),
            })
            .collect();
        let what = format!("{}, {group}", view.words());
        rows(report, &format!("{id}.{group}"), &what, hits, 2, &beside);
    }
    let beside = [0, 1].map(|of| (Some(best(of)), "best baseline", None));
    let what = format!("{}, all, nothing withheld", view.words());
    rows(report, &format!("{id}.always"), &what, &always, 2, &beside);
    for ((name, what, _), hits) in baselines::ALL.iter().zip(&others) {
        let beside = [0, 1].map(|of| (Some(chance[of] / n as f64), "chance", None));
        let what = format!("{}, baseline {what}", view.words());
        rows(report, &format!("{id}.{name}"), &what, hits, 2, &beside);
    }
    for (name, what, value) in [
        (
            "brier",
            "squared error of the confidence of suspects, test",
            sure.brier(),
        ),
        (
            "calibration",
            "calibration error of the confidence of suspects, test",
            sure.error(),
        ),
    ] {
        let what = format!("{}, {what}", view.words());
        let estimate = Estimate::exact(value, sure.0.len());
        report
            .rows
            .push(Row::new(&format!("{id}.{name}"), &what, "ratio", estimate));
    }
    Ok(())
}

/// How many windows of normal rows were left alone, by ours and by traversal, and of how many.
type Quiet = (Metric, bool, [usize; 3]);

fn quiet_shares(set: &Set, from: usize, to: usize) -> Result<Vec<Quiet>> {
    let Some(topology) = set.topologies.first() else {
        return Ok(Vec::new());
    };
    let target = set.issues.first().map_or("", |issue| issue.target.as_str());
    let mut all = Vec::new();
    for metric in [Metric::Latency, Metric::Availability] {
        for full in [true, false] {
            let mut counts = [0; 3];
            for at in from..to.saturating_sub(ISSUE - 1) {
                let begin = if full { 0 } else { at };
                let parts = [(&set.normal, begin..at + ISSUE)];
                let case = case(topology, &parts, at - begin + BEFORE, target, metric)?;
                let (_, diagnosis) = case.diagnose()?;
                counts[0] += usize::from(diagnosis.suspects.is_empty());
                counts[1] += usize::from(baselines::ALL[1].2(&case).is_empty());
                counts[2] += 1;
            }
            all.push((metric, full, counts));
        }
    }
    Ok(all)
}

/// Windows of the second half of the normal period; overlapping, so the interval is too narrow.
fn quiet(report: &mut Report, set: &Set) -> Result<()> {
    let half = set.normal.rows / 2;
    for (metric, full, [ours, traversal, n]) in quiet_shares(set, half, set.normal.rows)? {
        let grade = if full { "full" } else { "cold" };
        let id = format!("rca.petshop.quiet.{grade}.{}", metric.name());
        let what = format!("normal windows left alone, {grade}, {}", metric.name());
        let traversal = traversal as f64 / n.max(1) as f64;
        let row = Row::new(&id, &what, "ratio", share(ours, n)).higher();
        report
            .rows
            .push(row.against(Some(traversal), "traversal").goal(0.95));
    }
    Ok(())
}
