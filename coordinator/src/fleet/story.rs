//! What was decided and done about an incident, read from its events: the
//! evidence, the options with their refusals, the steps of the plan with the
//! health that was predicted and met.
//!
//! Bodies are read leniently, because they come from agents of any version:
//! what a record does not say is absent here.

use std::str::FromStr;

use homeostat_common::plan::{Branch, Plan};
use serde::Deserialize;
use serde_json::Value;

use super::view::{Decision, Event, PlanOption, PlanStep, Shape, StepCost};

/// Most steps of one decision that are shown; a plan has at most 8.
const STEPS_MAX: usize = 32;

#[derive(Debug, Deserialize)]
struct Decided {
    plan: Option<u64>,
    #[serde(default)]
    considered: Vec<PlanOption>,
    cost: Option<f64>,
    balance: Option<f64>,
    health: Option<f64>,
    predicted: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Step {
    plan: u64,
    step: u8,
    primitive: String,
    phase: Value,
    predicted: Option<f64>,
    health: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Charge {
    plan: u64,
    pub(super) steps: Vec<StepCost>,
}

/// The evidence and the decisions of the incident with this number in the
/// fleet, from its events in causal order.
#[must_use]
pub fn story(incident: u64, events: &[Event]) -> (Vec<String>, Vec<Decision>) {
    let mut evidence = Vec::new();
    let mut decisions: Vec<(Option<u64>, Decision)> = Vec::new();
    let own = events
        .iter()
        .filter(|event| event.incident == Some(incident) && !event.meanwhile);
    for event in own {
        match event.kind.as_str() {
            "incident-opened" => {
                let told = event.body.get("evidence").and_then(Value::as_array);
                let told = told.into_iter().flatten().filter_map(Value::as_str);
                evidence = told.map(str::to_owned).collect();
            }
            "decided" => {
                if let Ok(body) = Decided::deserialize(&event.body) {
                    decisions.push((body.plan, decision(event, body)));
                }
            }
            "step" => {
                let Ok(body) = Step::deserialize(&event.body) else {
                    continue;
                };
                // The rest of a plan that a restart cut short runs on under its
                // number, without a new decision.
                let mut latest = decisions.iter_mut().rev();
                if let Some((_, decision)) = latest.find(|(plan, _)| *plan == Some(body.plan)) {
                    step(decision, event, body);
                }
            }
            "charge" => {
                let Ok(body) = Charge::deserialize(&event.body) else {
                    continue;
                };
                let mut latest = decisions.iter_mut().rev();
                if let Some((_, decision)) = latest.find(|(plan, _)| *plan == Some(body.plan)) {
                    for (step, cost) in decision.steps.iter_mut().zip(body.steps) {
                        step.cost = Some(cost);
                    }
                }
            }
            _ => {}
        }
    }
    let decisions = decisions.into_iter().map(|(_, decision)| decision);
    (evidence, decisions.collect())
}

fn decision(event: &Event, body: Decided) -> Decision {
    let chosen = body
        .considered
        .iter()
        .rev()
        .find(|option| option.refusal.is_none())
        .filter(|_| body.plan.is_some());
    let printed = chosen.map(|option| option.plan.clone());
    let plan = printed
        .as_deref()
        .and_then(|text| Plan::from_str(text).ok());
    let steps = plan.iter().flat_map(Plan::steps);
    Decision {
        at_ms: event.at_ms,
        seq: event.seq,
        shape: plan.as_ref().map(|plan| shape(plan.root(), &mut 0)),
        steps: (0..=u8::MAX)
            .zip(steps)
            .map(|(place, primitive)| waiting(place, primitive.to_string()))
            .collect(),
        plan: printed,
        options: body.considered,
        cost: body.cost,
        balance: body.balance,
        health: body.health,
        predicted: body.predicted,
    }
}

fn waiting(step: u8, primitive: String) -> PlanStep {
    PlanStep {
        step,
        primitive,
        phase: "waiting".into(),
        why: None,
        predicted: None,
        before: None,
        health: None,
        started_ms: None,
        ended_ms: None,
        cost: None,
    }
}

fn shape(branch: &Branch, next: &mut u8) -> Shape {
    match branch {
        Branch::Step(_) => {
            let step = Shape::Step(*next);
            *next = next.saturating_add(1);
            step
        }
        Branch::Series(parts) => {
            Shape::InTurn(parts.iter().map(|part| shape(part, next)).collect())
        }
        Branch::Parallel(parts) => {
            Shape::SideBySide(parts.iter().map(|part| shape(part, next)).collect())
        }
    }
}

fn step(decision: &mut Decision, event: &Event, body: Step) {
    let known = decision
        .steps
        .iter()
        .position(|step| step.step == body.step);
    if known.is_none() {
        if decision.steps.len() >= STEPS_MAX {
            return;
        }
        decision.steps.push(waiting(body.step, body.primitive));
        decision.steps.sort_by_key(|step| step.step);
    }
    let mut steps = decision.steps.iter_mut();
    let Some(step) = steps.find(|step| step.step == body.step) else {
        return;
    };
    let (phase, why) = match body.phase {
        Value::String(phase) => (phase, None),
        Value::Object(phase) => {
            let (name, why) = phase.into_iter().next().unwrap_or_default();
            (name, why.as_str().map(str::to_owned))
        }
        _ => return,
    };
    step.predicted = body.predicted.or(step.predicted);
    step.health = body.health.or(step.health);
    if phase == "started" {
        step.before = body.health;
        step.started_ms = Some(event.at_ms);
        step.ended_ms = None;
    } else {
        step.ended_ms = Some(event.at_ms);
    }
    step.why = why.or(step.why.take()).filter(|_| phase != "done");
    step.phase = phase;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(seq: u64, kind: &str, body: Value) -> Event {
        Event {
            node: "a".into(),
            stream: "s".into(),
            seq,
            kind: kind.into(),
            hlc_ms: seq * 10,
            at_ms: seq * 10,
            incident: Some(7),
            body,
            ..Event::default()
        }
    }

    const PLAN: &str = "drain(infer, infer-1, drain=1s) ; (restart(infer-1, grace=2s) | probe(infer-2, within=1s))";

    #[test]
    fn steps_stand_in_their_plan_with_predicted_and_measured_health() {
        let told = |seq, step, phase: Value, health| {
            let body = json!({"incident": 3, "plan": 5, "step": step, "primitive": "x",
                "phase": phase, "predicted": 0.75, "health": health});
            event(seq, "step", body)
        };
        let plan = PLAN.replace("drain(infer, infer-1, drain=1s)", "wait(1s)");
        let mut strange = told(9, 0, json!("done"), 0.1);
        strange.incident = Some(8);
        let events = [
            event(1, "incident-opened", json!({"evidence": ["it is slow", 4]})),
            event(
                2,
                "decided",
                json!({"plan": 5, "cost": 0.5, "considered": [
                    {"plan": "wait(1s)", "source": "playbook", "refusal": {"rule": "hold", "reason": "r"}},
                    {"plan": plan, "source": "playbook", "refusal": null}]}),
            ),
            told(3, 0, json!("started"), 0.5),
            told(4, 0, json!("done"), 0.7),
            told(5, 1, json!("started"), 0.7),
            told(6, 1, json!({"failed": "deadline"}), 0.6),
            told(7, 1, json!("undone"), 0.5),
            event(
                10,
                "charge",
                json!({"plan": 5, "steps": [{
                    "predicted": {"resource": 0.02, "disruption": 4.5, "risk": 1.0},
                    "spent": {"resource": 0.02, "disruption": 0.25, "risk": 0.0}}]}),
            ),
            event(11, "charge", json!({"plan": 6, "steps": "?"})),
            strange,
        ];
        let (evidence, decisions) = story(7, &events);
        assert_eq!(evidence, ["it is slow"]);
        let one = &decisions[0];
        assert_eq!(
            serde_json::to_value(&one.shape).unwrap(),
            json!({"in_turn": [{"step": 0}, {"side_by_side": [{"step": 1}, {"step": 2}]}]})
        );
        let steps: Vec<_> = one
            .steps
            .iter()
            .map(|s| {
                (
                    s.phase.as_str(),
                    s.predicted,
                    s.before,
                    s.health,
                    s.why.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            steps,
            [
                ("done", Some(0.75), Some(0.5), Some(0.7), None),
                ("undone", Some(0.75), Some(0.7), Some(0.5), Some("deadline")),
                ("waiting", None, None, None, None),
            ]
        );
        assert_eq!(
            (one.steps[1].started_ms, one.steps[1].ended_ms),
            (Some(50), Some(70))
        );
        assert_eq!(one.options[0].refusal.as_ref().unwrap().rule, "hold");
        let cost = one.steps[0].cost.unwrap();
        assert_eq!(
            (cost.predicted.disruption, cost.spent.disruption),
            (4.5, 0.25)
        );
        assert_eq!(one.steps[1].cost, None);
        assert_eq!(one.health, None, "an older agent does not say");
    }

    #[test]
    fn a_plan_in_an_unknown_language_still_shows_its_steps() {
        let events = [
            event(
                1,
                "decided",
                json!({"plan": 5, "considered": [{"plan": "teleport(x)", "source": "new", "refusal": null}]}),
            ),
            event(
                2,
                "step",
                json!({"plan": 5, "step": 0, "primitive": "teleport(x)", "phase": "started"}),
            ),
            event(3, "decided", json!({"plan": 6, "considered": "?"})),
            event(
                4,
                "step",
                json!({"plan": 6, "step": 0, "primitive": "x", "phase": "done"}),
            ),
        ];
        let (_, decisions) = story(7, &events);
        assert_eq!(decisions.len(), 1);
        assert_eq!(decisions[0].shape, None);
        assert_eq!(decisions[0].steps[0].phase, "started");
    }
}
