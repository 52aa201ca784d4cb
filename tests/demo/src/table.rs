//! The table at the end, and the same as rows of the JSON form.

use homeostat_eval::result::{Row, columns};
use homeostat_eval::stats::Estimate;

use crate::faults::Expected;
use crate::story::ms;
use crate::verdict::{Check, Line};

const HEAD: [&str; 9] = [
    "fault", "where", "cloud", "detected", "healed", "lost", "source", "outcome", "plan",
];

/// All faults, a row each, and one more for each further step of a plan.
pub(crate) fn table(lines: &[Line<'_>]) -> String {
    let mut cells = vec![HEAD.map(str::to_owned).to_vec()];
    for line in lines {
        cells.extend(rows(line));
    }
    columns(&cells)
}

fn rows(line: &Line<'_>) -> Vec<Vec<String>> {
    let seen = line.seen;
    let absent = || "-".to_owned();
    let healed = match (seen.healed, seen.untouched) {
        (Some(time), _) => format!("{:.0} ms", ms(time)),
        (None, Some(true)) => "untouched".to_owned(),
        (None, Some(false)) => "TOUCHED".to_owned(),
        (None, None) => "NOT HEALED".to_owned(),
    };
    let plan = match &line.expected {
        Expected::Plan(plan, _) => plan.clone(),
        Expected::Told(_) => line
            .said
            .and_then(|event| event.body.get("alarm")?.as_str())
            .map_or("(none, and told why)".to_owned(), |alarm| {
                format!("(none; alarm {alarm})")
            }),
        Expected::Refused(rule) => format!("(none; rule {rule})"),
        Expected::Untouched | Expected::Stage => "(services go on)".to_owned(),
    };
    let mut steps = plan.split(" ; ").map(str::to_owned);
    let field = |pick: fn(&homeostat_coordinator::fleet::view::Incident) -> &Option<String>| {
        line.incident
            .and_then(|incident| pick(incident).clone())
            .unwrap_or_else(absent)
    };
    let mut rows = vec![vec![
        seen.scene.what.to_owned(),
        seen.scene.place(),
        if seen.connected { "yes" } else { "no" }.to_owned(),
        line.detected_ms()
            .map_or_else(absent, |ms| format!("{ms:.0} ms")),
        healed,
        if seen.scene.after > 0 {
            line.lost.to_string()
        } else {
            String::new()
        },
        field(|incident| &incident.source),
        field(|incident| &incident.outcome),
        steps.next().unwrap_or_default(),
    ]];
    let mut further = |text: String| {
        let mut row = vec![String::new(); HEAD.len() - 1];
        row.push(text);
        rows.push(row);
    };
    for step in steps {
        further(format!("; {step}"));
    }
    if let Some(wrong) = line.wrong() {
        further(format!("^ OTHER THAN STATED: {wrong}"));
    }
    rows
}

/// What of a fault is a number.
pub(crate) fn numbers(line: &Line<'_>) -> Vec<Row> {
    let scene = line.seen.scene;
    let row = |key: &str, what: &str, unit, value: Option<f64>| {
        let id = format!("demo.{}.{key}", scene.id);
        let what = format!("{} {}: {what}", scene.place(), scene.what);
        Some(Row::new(&id, &what, unit, Estimate::exact(value?, 1)))
    };
    [
        row("healed_ms", "healed", "ms", line.seen.healed.map(ms)),
        row(
            "detected_ms",
            "detected, by the agent's own record",
            "ms",
            line.detected_ms(),
        ),
        row(
            "lost",
            "requests lost until the next fault",
            "count",
            (scene.after > 0).then_some(line.lost as f64),
        ),
        row(
            "wrong",
            "other than stated",
            "count",
            Some(f64::from(u8::from(line.wrong().is_some()))),
        )
        .map(|row| row.goal(0.0)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether a check held, as a number.
pub(crate) fn held(check: &Check) -> Row {
    let id = format!("demo.check.{}", check.id);
    let failed = f64::from(u8::from(!check.holds));
    Row::new(&id, &check.what, "failed", Estimate::exact(failed, 1)).goal(0.0)
}
