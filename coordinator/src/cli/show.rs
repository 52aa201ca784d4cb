//! `incident show`: what was seen, considered, refused, done and spent.

use std::fmt::Write as _;

use super::ask::outcome;
use super::causes;
use super::classify::lines;
use super::client::{AskError, decode, get};
use super::table::{duration, or_dash, plain, table, utc};
use crate::fleet::view::{CostParts, Decision, Incident, IncidentDetail, Relation, StepCost};
use crate::fleet::words::in_a_line;

/// `incident show`
/// `all`: with what happened on other nodes and has nothing to do with it.
pub(super) fn incident(url: &str, json: bool, number: u64, all: bool) -> Result<String, AskError> {
    let text = get(url, &format!("/api/v1/incidents/{number}"))?;
    if json {
        return Ok(text + "\n");
    }
    let detail: IncidentDetail = decode(url, &text)?;
    let incident = &detail.incident;
    let mut rows: Vec<(&str, String)> = vec![
        (
            "incident",
            format!("{}, {} on its node", incident.id, incident.number),
        ),
        ("node", format!("{} at {}", incident.node, incident.site)),
        ("service", or_dash(incident.service.as_ref())),
        (
            "fault",
            format!(
                "{} ({}), confidence {}",
                or_dash(incident.fault.as_ref()),
                or_dash(incident.symptom.as_ref()),
                or_dash(incident.confidence.map(|c| format!("{c:.2}")))
            ),
        ),
        ("opened", opened(incident)),
        (
            "detected",
            format!(
                "{} after the first sign",
                or_dash(incident.detected_after_ms.map(duration))
            ),
        ),
        (
            "cloud",
            match incident.connected {
                Some(true) => "connected",
                Some(false) => "offline",
                None => "-",
            }
            .into(),
        ),
        ("plan", or_dash(incident.plan.as_ref())),
        ("source", or_dash(incident.source.as_ref())),
    ];
    if let Some(why) = &incident.why {
        rows.push(("nothing done", why.clone()));
    }
    rows.push(("outcome", outcome(incident).into()));
    rows.push((
        "cost",
        format!(
            "{} predicted, {} spent, of a budget of {} capacity-seconds",
            or_dash(incident.cost.map(|cost| format!("{cost:.2}"))),
            or_dash(incident.spent.map(|cost| format!("{cost:.2}"))),
            or_dash(incident.balance.map(|left| format!("{left:.1}")))
        ),
    ));
    if let Some(lasted) = incident.lasted_ms {
        rows.push(("lasted", duration(lasted)));
    }
    if let Some(summary) = &incident.summary {
        rows.push(("summary", summary.clone()));
    }
    if let Some(class) = &detail.class {
        rows.extend(lines(class));
    }
    for line in &detail.evidence {
        rows.push(("evidence", line.clone()));
    }
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<13}{}", plain(&value));
    }
    out.extend(detail.causes.as_ref().map(causes::causes));
    out.extend(
        detail
            .group
            .as_ref()
            .map(|group| causes::group(group, incident.id)),
    );
    out.push_str(&causes::coincident(&detail.coincident));
    out.extend(detail.impact.as_ref().map(causes::impact));
    out.push_str(&causes::what_if(&detail.what_if));
    for decision in &detail.decisions {
        out.push('\n');
        out.push_str(&decided(decision));
    }
    out.push_str(
        "\ntimeline, causes first; < led to it, > followed, ? not known, ~ another node in the \
         same while\n",
    );
    let shown = detail.timeline.iter().filter(|event| all || !event.aside);
    for event in shown {
        let _ = writeln!(
            out,
            "{} {}{} {:<12} {:>6}  {:<16}  {}",
            utc(event.at_ms),
            if event.meanwhile { '~' } else { ' ' },
            match event.relation {
                Some(Relation::Before) => '<',
                Some(Relation::After) => '>',
                Some(Relation::Concurrent) => '?',
                Some(Relation::Same) | None => ' ',
            },
            event.node,
            event.seq,
            event.kind,
            plain(&in_a_line(event))
        );
    }
    let aside = detail.timeline.iter().filter(|event| event.aside).count();
    if aside > 0 && !all {
        let _ = writeln!(
            out,
            "({aside} events of other nodes in the same while, about nobody who has to do with \
             it; --all shows them)"
        );
    }
    if detail.contradictions > 0 {
        let _ = writeln!(
            out,
            "({} named causes contradict the order and were left out)",
            detail.contradictions
        );
    }
    if detail.truncated {
        out.push_str("(cut for length)\n");
    }
    Ok(out)
}

/// A clock that is off by less than this misleads nobody.
const CLOCK_OFF_MS: u64 = 10_000;

/// When it was opened, by the coordinator's clock, which all other times are of; where its node's
/// is off, by that too.
fn opened(incident: &Incident) -> String {
    let (by_node, here) = (incident.opened_ms, incident.opened_at_ms);
    match here.abs_diff(by_node) > CLOCK_OFF_MS {
        true => format!(
            "{}; its node's clock, which is off, said {}",
            utc(here),
            utc(by_node)
        ),
        false => utc(here),
    }
}

/// A decision with its options, and the steps of its plan.
fn decided(decision: &Decision) -> String {
    let what = match &decision.plan {
        Some(plan) => plan.as_str(),
        None => "nothing is done",
    };
    let mut out = format!(
        "decided      {}\nhealth       {} then, {} predicted\n",
        plain(what),
        share(decision.health),
        share(decision.predicted)
    );
    for option in &decision.options {
        let line = match &option.refusal {
            Some(refusal) => format!(
                "refused {} ({}): {}: {}",
                option.plan, option.source, refusal.rule, refusal.reason
            ),
            None => format!("allowed {} ({})", option.plan, option.source),
        };
        let _ = writeln!(out, "option       {}", plain(&line));
    }
    if !decision.steps.is_empty() {
        let rows = decision.steps.iter().map(|step| {
            let took = step.started_ms.zip(step.ended_ms);
            vec![
                step.step.to_string(),
                step.primitive.clone(),
                step.phase.clone(),
                share(step.before),
                share(step.predicted),
                share(step.health),
                or_dash(took.map(|(from, to)| duration(to.saturating_sub(from)))),
                or_dash(step.cost.map(cost)),
                step.why.clone().unwrap_or_default(),
            ]
        });
        let header = [
            "STEP",
            "DOES",
            "STATE",
            "BEFORE",
            "PREDICTED",
            "HEALTH",
            "TOOK",
            "COST OF PREDICTED",
            "",
        ];
        out.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    }
    out
}

/// What a step cost of what it was to cost at most, in capacity-seconds:
/// resource, disruption, risk.
fn cost(cost: StepCost) -> String {
    let parts =
        |one: CostParts| format!("{:.2}+{:.2}+{:.2}", one.resource, one.disruption, one.risk);
    format!("{} of {}", parts(cost.spent), parts(cost.predicted))
}

/// A share as people write it.
fn share(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{:.0} %", value * 100.0)))
}
