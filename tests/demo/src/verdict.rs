//! Compares what was seen from outside with what the coordinator holds: the table and the
//! checks at the end.

use std::time::Duration;

use anyhow::{Result, bail};
use homeostat_coordinator::fleet::view::{Event, Incident, IncidentState};
use homeostat_eval::audit::{Audit, disorder};
use homeostat_eval::result::{Report, Row, columns};
use homeostat_eval::stage::{Api, interrupt};
use homeostat_eval::stats::Estimate;

use crate::story::{Seen, ms};

/// How long the coordinator may take to have everything once the broker is back. It pauses
/// before it connects again, longer the longer the broker was away.
const ARRIVE_MAX: Duration = Duration::from_secs(60);

/// What must become of the services when the agent dies.
const KEPT: &str = "(services go on)";

/// What the coordinator holds.
#[derive(Debug)]
pub(crate) struct Held {
    incidents: Vec<Incident>,
    boots: Vec<Event>,
    audit: Audit,
    disorder: Vec<String>,
}

/// A fault with what became of it.
#[derive(Debug)]
struct Line<'a> {
    seen: &'a Seen,
    expected: Option<(String, &'static str)>,
    incident: Option<&'a Incident>,
    /// The start of the agent that followed its own death.
    boot: Option<&'a Event>,
}

/// One thing that must hold.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) holds: bool,
}

/// Waits until everything about these faults has arrived, or it takes too long.
pub(crate) fn gather(api: Api, seen: &[Seen]) -> Result<Held> {
    let incidents = seen
        .iter()
        .filter(|seen| seen.scene.service().is_some())
        .count();
    // The first start, and one after each death.
    let boots = 1 + seen.len() - incidents;
    let arrived = || {
        let held = hold(api).ok()?;
        let over = held
            .incidents
            .iter()
            .all(|incident| incident.state == IncidentState::Closed);
        let all = held.incidents.len() >= incidents && held.boots.len() >= boots;
        (over && all && held.audit.holes == 0).then_some(held)
    };
    match interrupt::until("the last record", ARRIVE_MAX, arrived) {
        Err(error) if error.is::<interrupt::Interrupted>() => Err(error),
        // What did not arrive shows in the table.
        Err(_) => hold(api),
        Ok(held) => Ok(held),
    }
}

fn hold(api: Api) -> Result<Held> {
    let incidents = api.incidents()?;
    let events = api.events()?;
    let mut wrong = Vec::new();
    for incident in &incidents {
        wrong.extend(disorder(&api.incident(incident.id)?));
    }
    Ok(Held {
        audit: Audit::of(&events),
        boots: events
            .into_iter()
            .filter(|event| event.kind == "boot")
            .collect(),
        incidents,
        disorder: wrong,
    })
}

/// Fits incidents to faults: of each service, in the order in which its node numbered them.
fn lines<'a>(held: &'a Held, seen: &'a [Seen]) -> Result<Vec<Line<'a>>> {
    let mut incidents: Vec<&Incident> = held.incidents.iter().collect();
    incidents.sort_by_key(|incident| incident.number);
    let mut boots = held.boots.iter().skip(1);
    seen.iter()
        .map(|seen| {
            let service = seen.scene.service();
            let own =
                |incident: &&Incident| service.is_some() && incident.service.as_deref() == service;
            let incident = incidents.iter().position(own);
            Ok(Line {
                seen,
                expected: seen.scene.expected()?,
                incident: incident.map(|at| incidents.remove(at)),
                boot: if service.is_none() {
                    boots.next()
                } else {
                    None
                },
            })
        })
        .collect()
}

impl Line<'_> {
    /// From the fault to the agent's record of it, by the agent's clock less its known error.
    fn detected_ms(&self, offset_ms: i64) -> Option<f64> {
        let stamp = match (self.incident, self.boot) {
            (Some(incident), _) => incident.opened_ms,
            (None, Some(boot)) => boot.hlc_ms,
            (None, None) => return None,
        };
        let true_ms = i64::try_from(stamp).ok()? - offset_ms;
        let after = true_ms - i64::try_from(self.seen.injected_ms).ok()?;
        Some(after as f64)
    }

    fn right_plan(&self) -> bool {
        match (&self.expected, self.incident) {
            (Some((plan, source)), Some(incident)) => {
                incident.plan.as_deref() == Some(plan)
                    && incident.source.as_deref() == Some(*source)
                    && incident.outcome.as_deref() == Some("healed")
                    && incident.connected == Some(self.seen.scene.connected)
            }
            (Some(_), None) => false,
            // The agent's own death is no incident. That it took everything over shows from
            // outside: nothing was restarted, and it heals what comes next.
            (None, _) => self.boot.is_some() && self.seen.untouched == Some(true),
        }
    }

    fn healed(&self) -> bool {
        self.seen.healed.is_some() || self.seen.untouched == Some(true)
    }
}

/// The table, the checks, and whether all of them hold.
pub(crate) fn judge(
    held: &Held,
    seen: &[Seen],
    offset_ms: i64,
    report: &mut Report,
) -> Result<(String, Vec<Check>)> {
    if seen.is_empty() {
        bail!("nothing was broken");
    }
    let lines = lines(held, seen)?;
    let mut cells = vec![
        [
            "fault",
            "cloud",
            "detected*",
            "healed",
            "source",
            "outcome",
            "expected plan",
            "actual plan",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for line in &lines {
        cells.extend(cells_of(line, offset_ms));
        report.rows.extend(rows_of(line, offset_ms));
    }
    let faults = lines.iter().filter(|line| line.expected.is_some()).count();
    let audit = &held.audit;
    let check = |what: String, holds| Check { what, holds };
    let healed = lines.iter().filter(|line| line.healed()).count();
    let planned = lines.iter().filter(|line| line.right_plan()).count();
    let checks = vec![
        check(
            format!(
                "{healed} of {} faults healed, seen from outside",
                lines.len()
            ),
            healed == lines.len(),
        ),
        check(
            format!(
                "{planned} of {} plans, sources and outcomes as stated",
                lines.len()
            ),
            planned == lines.len(),
        ),
        check(
            format!(
                "{} incidents for {faults} faults: none missed, none invented",
                held.incidents.len()
            ),
            held.incidents.len() == faults,
        ),
        check(
            format!(
                "{} records stored: {} lost, {} doubled, {} stream",
                audit.stored,
                audit.holes + audit.dropped,
                audit.doubled,
                audit.streams
            ),
            audit.whole() && audit.stored > 0,
        ),
        check(
            match held.disorder.first() {
                None => {
                    "opened, decided, stepped, closed: in causal order for each incident".to_owned()
                }
                Some(first) => format!("causal order: {first}"),
            },
            held.disorder.is_empty(),
        ),
    ];
    let row = |id: &str, what: &str, value: f64, n| {
        Row::new(id, what, "count", Estimate::exact(value, n))
    };
    report.rows.extend([
        row(
            "demo.unhealed",
            "faults not healed",
            (lines.len() - healed) as f64,
            lines.len(),
        )
        .goal(0.0),
        row(
            "demo.other_plan",
            "faults with another plan than stated",
            (lines.len() - planned) as f64,
            lines.len(),
        )
        .goal(0.0),
        row(
            "demo.incidents",
            "incidents beyond or below the faults",
            held.incidents.len().abs_diff(faults) as f64,
            faults,
        )
        .goal(0.0),
        row(
            "demo.lost",
            "records lost",
            (audit.holes + audit.dropped) as f64,
            audit.stored,
        )
        .goal(0.0),
        row(
            "demo.doubled",
            "records stored twice",
            audit.doubled as f64,
            audit.stored,
        )
        .goal(0.0),
        row(
            "demo.disorder",
            "incidents out of order",
            held.disorder.len() as f64,
            held.incidents.len(),
        )
        .goal(0.0),
    ]);
    Ok((columns(&cells), checks))
}

/// A row, and one more for each further step of a long plan.
fn cells_of(line: &Line<'_>, offset_ms: i64) -> Vec<Vec<String>> {
    let detected = line
        .detected_ms(offset_ms)
        .map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    let healed = match (line.seen.healed, line.seen.untouched) {
        (Some(time), _) => format!("{:.1} ms", ms(time)),
        (None, Some(true)) => "untouched".to_owned(),
        (None, Some(false)) => "TOUCHED".to_owned(),
        (None, None) => "NOT HEALED".to_owned(),
    };
    let absent = || "-".to_owned();
    let (actual, source, outcome) = match (line.incident, line.boot) {
        (Some(incident), _) => (
            incident.plan.clone().or_else(|| incident.why.clone()),
            incident.source.clone(),
            incident.outcome.clone(),
        ),
        (None, Some(_)) if line.seen.untouched == Some(true) => (Some(KEPT.to_owned()), None, None),
        (None, Some(_)) => (Some("a service was restarted".to_owned()), None, None),
        (None, None) => (Some("NO RECORD".to_owned()), None, None),
    };
    let expected = match &line.expected {
        Some((plan, _)) => plan.clone(),
        None => KEPT.to_owned(),
    };
    let actual = actual.unwrap_or_else(absent);
    let actual = match (actual == expected, line.right_plan()) {
        (true, true) => "the same".to_owned(),
        (true, false) => "the same, BUT NOT ITS SOURCE OR OUTCOME".to_owned(),
        (false, _) => actual + "  <- OTHER THAN STATED",
    };
    let mut steps = expected.split(" ; ").map(str::to_owned);
    let mut rows = vec![vec![
        line.seen.scene.what.to_owned(),
        if line.seen.scene.connected {
            "yes"
        } else {
            "no"
        }
        .to_owned(),
        detected,
        healed,
        source.unwrap_or_else(absent),
        outcome.unwrap_or_else(absent),
        steps.next().unwrap_or_default(),
        actual,
    ]];
    for step in steps {
        let mut row = vec![String::new(); 6];
        row.push(format!("; {step}"));
        rows.push(row);
    }
    rows
}

fn rows_of(line: &Line<'_>, offset_ms: i64) -> Vec<Row> {
    let scene = line.seen.scene;
    let row = |key: &str, what: &str, value| {
        let id = format!("demo.{}.{key}", scene.id);
        Row::new(
            &id,
            &format!("{}: {what}", scene.what),
            "ms",
            Estimate::exact(value, 1),
        )
    };
    let detected = line.detected_ms(offset_ms);
    let healed = line.seen.healed.map(ms);
    healed
        .map(|value| row("healed_ms", "healed", value))
        .into_iter()
        .chain(
            detected.map(|value| row("detected_ms", "detected, by the agent's own record", value)),
        )
        .collect()
}
