//! Events and measured values in words: what the log and `explain` print.

use homeostat_common::anomaly::Symptom;
use homeostat_common::ids::IncidentId;
use homeostat_common::observation::{Metric, Series};
use homeostat_common::suspect::Grade;
use homeostat_common::units::Bytes;
use homeostat_common::wire::body::{Body, Charge, CostParts, Diagnosed, Phase, Source, StepCost};

/// How the summary of an incident begins that was a person's wish and went well.
pub const ASKED_DONE: &str = "what was asked for was done";

/// The incident that an event is about.
#[must_use]
pub fn incident_of(body: &Body) -> Option<IncidentId> {
    match body {
        Body::IncidentOpened(event) => Some(event.incident),
        Body::Decided(event) => Some(event.incident),
        Body::Step(event) => Some(event.incident),
        Body::IncidentClosed(event) => Some(event.incident),
        Body::Control(event) => event.incident,
        Body::Charge(event) => Some(event.incident),
        Body::Diagnosed(event) => Some(event.incident),
        Body::Joined(event) => Some(event.incident),
        Body::Boot(_)
        | Body::ServiceChange(_)
        | Body::Alarm(_)
        | Body::Gap(_)
        | Body::Telemetry(_)
        | Body::Observation(_)
        | Body::Note(_)
        | Body::State(_)
        | Body::RouteChange(_)
        | Body::Budgets(_)
        | Body::Topology(_)
        | Body::Unknown { .. } => None,
    }
}

/// One event, in one or a few lines; `None` for those that only machines read.
#[must_use]
pub fn words(body: &Body) -> Option<String> {
    Some(match body {
        Body::Boot(boot) => {
            let mut text = format!(
                "agent {} started, {} services taken over",
                boot.version, boot.adopted
            );
            for finding in &boot.findings {
                text.push_str("\n  store: ");
                text.push_str(finding);
            }
            text
        }
        Body::ServiceChange(change) => {
            let mut text = format!("{} is {}", change.service, snake(&change.state));
            if let Some(instance) = change.instance {
                text.push_str(&format!(" ({instance})"));
            }
            if let Some(exit) = change.exit {
                text.push_str(&format!(", ended by {exit}"));
            }
            text
        }
        Body::IncidentOpened(opened) => {
            let seen = match opened.symptom {
                Symptom::Foreseen => format!("trouble with {} is foreseen", opened.service),
                symptom => format!("{} is {symptom}", opened.service),
            };
            let mut text = format!(
                "incident {}: {seen}; believed to be {} (confidence {:.2})",
                opened.incident, opened.fault, opened.confidence
            );
            for evidence in &opened.evidence {
                text.push_str("\n  because ");
                text.push_str(evidence);
            }
            text
        }
        Body::Decided(decided) => {
            let mut text = match decided.plan {
                Some(plan) => format!(
                    "incident {}: plan {plan} reserves {:.2} capacity-seconds, {:.2} remain; \
                     the node's health is {:.2}, and {:.2} if it works",
                    decided.incident,
                    decided.cost,
                    decided.balance,
                    decided.health,
                    decided.predicted
                ),
                None => format!(
                    "incident {}: nothing is done; the node's health is {:.2}",
                    decided.incident, decided.health
                ),
            };
            for considered in &decided.considered {
                let source = match considered.source {
                    Source::Reflex => "reflex",
                    Source::Playbook => "playbook",
                    Source::Resumed => "resumed",
                    Source::Operator => "operator",
                };
                text.push_str(&match &considered.refusal {
                    None => format!("\n  chosen ({source}): {}", considered.plan),
                    Some(refusal) => format!(
                        "\n  refused ({source}): {} - rule {}: {}",
                        considered.plan, refusal.rule, refusal.reason
                    ),
                });
            }
            text
        }
        Body::Step(step) => {
            let phase = match &step.phase {
                Phase::Started => "begun".into(),
                Phase::Done => "done".into(),
                Phase::Failed(why) => format!("failed: {why}"),
                Phase::Undone => "taken back".into(),
            };
            format!(
                "incident {}: {} {} {phase}; health {:.2}, predicted {:.2}",
                step.incident, step.plan, step.primitive, step.health, step.predicted
            )
        }
        Body::IncidentClosed(closed) => {
            let outcome = closed.outcome.to_string();
            let asked = closed.summary.starts_with(ASKED_DONE);
            format!(
                "incident {}: {} after {}, cost {:.2} capacity-seconds: {}",
                closed.incident,
                // Nothing was ill.
                if asked { "done" } else { &outcome },
                closed.lasted,
                closed.cost,
                closed.summary
            )
        }
        Body::Charge(charge) => charged(charge),
        Body::Diagnosed(diagnosed) => suspected(diagnosed),
        Body::Joined(joined) => format!(
            "incident {}: {} is {} as well, which is put down to it: {}",
            joined.incident, joined.service, joined.symptom, joined.because
        ),
        Body::Alarm(alarm) => format!(
            "alarm {} {}: {}",
            alarm.alarm,
            if alarm.raised { "raised" } else { "cleared" },
            alarm.text
        ),
        Body::Gap(gap) => format!("events {} to {} were dropped", gap.from, gap.through),
        Body::Note(note) => note.text.clone(),
        Body::Control(control) => {
            let incident = control
                .incident
                .map_or(String::new(), |incident| format!("incident {incident}: "));
            let by = match control.by.as_str() {
                "" => String::new(),
                by => format!(", by {by}"),
            };
            format!("{incident}{}{by}", control.text)
        }
        Body::RouteChange(route) => {
            let mut text = format!("route {} ({})", route.route, route.listen);
            if !route.reached {
                text.push_str(", the forwarder does not answer");
            }
            for backend in &route.backends {
                text.push_str(&format!(
                    "\n  {} ({}): weight {} of {}{}",
                    backend.backend,
                    backend.address,
                    backend.weight,
                    backend.configured,
                    if backend.healthy { "" } else { ", unfit" }
                ));
            }
            text
        }
        Body::Telemetry(_)
        | Body::Observation(_)
        | Body::State(_)
        | Body::Budgets(_)
        | Body::Topology(_)
        | Body::Unknown { .. } => return None,
    })
}

/// What a plan has cost of what was set aside for it, whole and by step.
fn charged(charge: &Charge) -> String {
    let total = |cost: &CostParts| cost.resource + cost.disruption + cost.risk;
    let spent: f32 = charge.steps.iter().map(|step| total(&step.spent)).sum();
    let predicted: f32 = charge.steps.iter().map(|step| total(&step.predicted)).sum();
    let mut text = format!(
        "incident {}: {} has cost {spent:.2} of {predicted:.2} capacity-seconds; of the {:.2} for \
         {} services {:.2} remain",
        charge.incident,
        charge.plan,
        charge.budget.beta,
        charge.budget.class.name(),
        charge.budget.balance
    );
    for (place, StepCost { predicted, spent }) in charge.steps.iter().enumerate() {
        text.push_str(&format!(
            "\n  step {}: resource {:.2} of {:.2}, disruption {:.2} of {:.2}, risk {:.2} of {:.2}",
            place + 1,
            spent.resource,
            predicted.resource,
            spent.disruption,
            predicted.disruption,
            spent.risk,
            predicted.risk
        ));
    }
    text
}

/// Who is suspected, with the reasons; who is not any more, and because of whom.
fn suspected(diagnosed: &Diagnosed) -> String {
    let mut text = format!("incident {}: ", diagnosed.incident);
    text.push_str(match diagnosed.suspects.first() {
        Some(_) => "suspects, the likeliest first",
        None => "nobody is suspected",
    });
    text.push_str(match diagnosed.grade {
        Grade::Full => "",
        Grade::Short => " (little is known of what is usual)",
        Grade::Blank => " (nothing is known of what is usual)",
    });
    for suspect in &diagnosed.suspects {
        let name = &suspect.component;
        text.push_str(&match &suspect.explained_by {
            Some(by) => format!("\n  not {name}: its trouble comes from {by}"),
            None => format!(
                "\n  {name} ({}): confidence {}, {} of the excess",
                name.layer(),
                suspect.confidence,
                suspect.share
            ),
        });
        if let Some(began) = suspect.began {
            text.push_str(&format!(", began about {began} before"));
        }
        for reason in &suspect.evidence {
            text.push_str("\n    because ");
            text.push_str(reason);
        }
    }
    if let Some(apart) = &diagnosed.tell_apart {
        let (first, second) = &apart.between;
        text.push_str(&format!(
            "\n  to tell {first} from {second}, look at {}: {}",
            apart.look_at, apart.text
        ));
    }
    if let Some(why) = &diagnosed.spared {
        text.push_str(&format!(
            "\n  nothing is done to {}: {why}",
            diagnosed.alarmed
        ));
    }
    text
}

fn snake(state: &homeostat_common::wire::body::ServiceState) -> &'static str {
    use homeostat_common::wire::body::ServiceState;
    match state {
        ServiceState::Starting => "starting",
        ServiceState::Healthy => "healthy",
        ServiceState::Unhealthy => "unhealthy",
        ServiceState::Down => "down",
        ServiceState::Standby => "standby",
        ServiceState::Paused => "paused",
    }
}

/// A metric with whom it is of.
#[must_use]
pub fn series_name(series: &Series) -> String {
    let mut text = series.metric.name().to_owned();
    if let Some(part) = &series.part {
        text.push_str(&format!(" of {part}"));
    }
    if let Some(service) = &series.service {
        text.push_str(&format!(" of {service}"));
    }
    text
}

/// A value with its unit.
#[must_use]
pub fn amount(metric: Metric, value: f64) -> String {
    // A float that is cut to an integer saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = || Bytes(value.max(0.0) as u64);
    match metric.unit() {
        "bytes" => bytes().to_string(),
        "bytes_per_second" => format!("{}/s", bytes()),
        "ratio" => format!("{:.1} %", value * 100.0),
        "count" => format!("{value:.0}"),
        unit => format!("{value:.2} {}", unit.replace('_', " ")),
    }
}
