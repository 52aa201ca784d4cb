//! `plan`: plans across nodes, asked for and looked at.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use homeostat_common::saga::{FleetPlan, FleetPlanError};
use homeostat_common::units::Ratio;

use super::alarm::{signed, token};
use super::client::{AskError, decode, get, post};
use super::table::{or_dash, plain, table, utc};
use super::{Ask, Failure, failed};
use crate::fleet::plans::{
    FleetPlanBegun, FleetPlanStopped, FleetPlanView, FleetPlanWish, OrdersKey, StepIs,
};

/// Longest text of a plan: eight steps, with room for comments.
const TEXT_MAX: u64 = 16 * 1024;

/// How often a plan that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long one is waited for: by then it has ended or a person is called for it.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// `plan run`
pub(super) fn run(
    ask: &Ask,
    file: &Path,
    data: &Path,
    confidence: Option<Ratio>,
    wait: bool,
) -> Result<String, Failure> {
    let usage = |text: String| Failure::Usage(format!("{}: {text}", file.display()));
    let text = read(file).map_err(|error| usage(error.to_string()))?;
    let plan: FleetPlan = uncommented(&text)
        .parse()
        .map_err(|error: FleetPlanError| usage(error.to_string()))?;
    plan.timely().map_err(|error| usage(error.to_string()))?;
    let token = token(data)?;
    let wish = FleetPlanWish {
        plan: plan.to_string(),
        confidence: confidence.map(Ratio::get),
    };
    let body = serde_json::to_string(&wish).unwrap_or_default();
    let answer = post(&ask.url, "/api/v1/plans", &token, &body).map_err(failed)?;
    let begun: FleetPlanBegun = decode(&ask.url, &answer).map_err(failed)?;
    if !wait {
        return Ok(match ask.json {
            true => answer + "\n",
            false => format!("plan {} begins; homeostat plan show {0}\n", begun.id),
        });
    }
    let until = Instant::now() + WAIT_MAX;
    loop {
        let (text, view) = look(ask, begun.id).map_err(failed)?;
        if view.ended_ms.is_some() || Instant::now() >= until {
            let told = if ask.json { text + "\n" } else { story(&view) };
            return match view.phase.as_str() {
                "done" => Ok(told),
                _ => Err(Failure::Failed(told)),
            };
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// `plan stop`
pub(super) fn stop(ask: &Ask, id: u64, by: Option<&str>, data: &Path) -> Result<String, Failure> {
    let token = token(data)?;
    let body = serde_json::to_string(&signed(by)).unwrap_or_default();
    let path = format!("/api/v1/plans/{id}/stop");
    let answer = post(&ask.url, &path, &token, &body).map_err(failed)?;
    if ask.json {
        return Ok(answer + "\n");
    }
    let FleetPlanStopped { given_up } = decode(&ask.url, &answer).map_err(failed)?;
    Ok(match given_up {
        true => format!(
            "plan {id} is given up: each node takes back alone what it was not told to keep\n"
        ),
        false => format!("plan {id} is taken back; homeostat plan show {id}\n"),
    })
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let mut source: Box<dyn std::io::Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file)?),
    };
    source.by_ref().take(TEXT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Without what stands behind a `#`.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once('#') {
        Some((line, _)) => line,
        None => line,
    });
    lines.collect::<Vec<_>>().join(" ")
}

fn look(ask: &Ask, id: u64) -> Result<(String, FleetPlanView), AskError> {
    let text = get(&ask.url, &format!("/api/v1/plans/{id}"))?;
    let view = decode(&ask.url, &text)?;
    Ok((text, view))
}

/// `plan show`
pub(super) fn show(ask: &Ask, id: Option<u64>) -> Result<String, AskError> {
    if let Some(id) = id {
        let (text, view) = look(ask, id)?;
        return Ok(if ask.json { text + "\n" } else { story(&view) });
    }
    let text = get(&ask.url, "/api/v1/plans")?;
    if ask.json {
        return Ok(text + "\n");
    }
    let plans: Vec<FleetPlanView> = decode(&ask.url, &text)?;
    let rows: Vec<Vec<String>> = plans
        .iter()
        .map(|plan| {
            vec![
                plan.id.to_string(),
                utc(plan.begun_ms),
                plan.phase.clone(),
                if plan.flag.is_some() { "yes" } else { "" }.into(),
                plan.plan.clone(),
            ]
        })
        .collect();
    Ok(table(&["PLAN", "BEGUN", "STATE", "PERSON", "TEXT"], &rows))
}

fn story(plan: &FleetPlanView) -> String {
    let facts = [
        ("plan", plan.id.to_string()),
        ("text", plan.plan.clone()),
        ("state", plan.phase.clone()),
        (
            "asked by",
            match plan.confidence {
                Some(confidence) => format!("a diagnosis of confidence {confidence:.2}"),
                None => "a person".into(),
            },
        ),
        ("begun", utc(plan.begun_ms)),
        ("ended", or_dash(plan.ended_ms.map(utc))),
        ("taken back", or_dash(plan.why.as_ref())),
        ("person called", or_dash(plan.flag.as_ref())),
    ];
    let mut text = String::new();
    for (name, value) in facts {
        let _ = writeln!(text, "{name:<13} {}", plain(&value));
    }
    text.push('\n');
    let rows: Vec<Vec<String>> = plan
        .steps
        .iter()
        .map(|step| {
            vec![
                step.node.clone(),
                match step.state {
                    // Nothing is waited for any more.
                    StepIs::Waiting if plan.ended_ms.is_some() => "not begun".into(),
                    other => state(other).into(),
                },
                step.primitive.clone(),
            ]
        })
        .collect();
    text.push_str(&table(&["NODE", "STATE", "STEP"], &rows));
    text.push('\n');
    for decision in &plan.decisions {
        let _ = writeln!(text, "{}  {}", utc(decision.at_ms), plain(&decision.what));
    }
    text
}

fn state(state: StepIs) -> &'static str {
    match state {
        StepIs::Waiting => "waiting",
        StepIs::Running => "running",
        StepIs::Done => "done",
        StepIs::Failed => "failed",
        StepIs::Undoing => "undoing",
        StepIs::Undone => "undone",
        StepIs::Stuck => "stuck",
    }
}

/// `plan key`
pub(super) fn key(ask: &Ask) -> Result<String, AskError> {
    let text = get(&ask.url, "/api/v1/orders-key")?;
    if ask.json {
        return Ok(text + "\n");
    }
    let key: OrdersKey = decode(&ask.url, &text)?;
    Ok(format!(
        "# In each node's agent.toml:\n[orders.trusted]\n{} = \"{}\"\n",
        key.name, key.key
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_comments_and_lines() {
        let text = "# moves the load\nn1: wait(1s) ; # then\n (n2: wait(1s) | n3: wait(1s))\n";
        let plan: FleetPlan = uncommented(text).parse().unwrap();
        assert_eq!(plan.steps().count(), 3);
    }
}
