//! Compares what was seen from outside with what the coordinator holds: lines of the table, and
//! the checks at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use homeostat_coordinator::fleet::view::{Event, Incident, IncidentState};
use homeostat_coordinator::fleet::words;
use homeostat_eval::audit::{Audit, disorder};
use homeostat_eval::stage::{Api, interrupt};
use homeostat_testbed::Moment;
use homeostat_testbed::load;

use crate::faults::{Expected, Fault};
use crate::memory::Memory;
use crate::story::Seen;

/// How long the coordinator may take to have everything once the broker is back. A node pauses
/// before it connects again, longer the longer the broker was away.
const ARRIVE_MAX: Duration = Duration::from_secs(45);

/// A request planned this long before a fault was under way when it came.
const UNDER_WAY_US: u64 = 50_000;

/// What the coordinator holds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) incidents: Vec<Incident>,
    /// What each was opened for, in words, by its number in the fleet.
    evidence: BTreeMap<u64, Vec<String>>,
    events: Vec<Event>,
    /// Of each node.
    audits: BTreeMap<String, Audit>,
    disorder: Vec<String>,
}

/// A fault with what became of it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) seen: &'a Seen,
    pub(crate) expected: Expected,
    pub(crate) incident: Option<&'a Incident>,
    /// What was said about it, where no incident is to follow: the start of the agent after its
    /// own death, or the reason why nothing was done.
    pub(crate) said: Option<&'a Event>,
    /// Requests that were late or failed until the next fault.
    pub(crate) lost: usize,
    /// The node's clock is wrong by this much.
    offset_ms: i64,
}

/// One thing that must hold.
#[derive(Debug)]
pub(crate) struct Check {
    /// Part of its id in the JSON form.
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) holds: bool,
}

/// What is judged besides the coordinator's records.
pub(crate) struct Outside<'a> {
    pub(crate) load: &'a load::Report,
    /// Of all that is not a service.
    pub(crate) memory: Option<Memory>,
    pub(crate) broker_dead: Duration,
    /// The node whose clock is wrong, and by how many milliseconds.
    pub(crate) clock: (&'static str, i64),
    /// When this program began, by this machine's wall clock in milliseconds.
    pub(crate) begun_ms: u64,
}

impl Outside<'_> {
    /// Seconds into the run of a stamp of a node's clock.
    fn seconds(&self, node: &str, stamp_ms: u64) -> f64 {
        let offset_ms = if node == self.clock.0 {
            self.clock.1
        } else {
            0
        };
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        (ms(stamp_ms) - offset_ms - ms(self.begun_ms)) as f64 / 1000.0
    }
}

/// What happened so long before an incident that nobody caused may have to do with it.
const BEFORE_S: f64 = 3.0;

/// What agents, spawners, forwarders, broker, coordinator and this program may take together.
const MEMORY_MAX_MIB: f64 = 120.0;

/// Requests that are lost without a healer: `demo --without-healer`, seed 1.
pub(crate) const LOST_WITHOUT_HEALER: u64 = 4309;

/// Waits until everything about these faults has arrived, or it takes too long.
pub(crate) fn gather(api: Api, seen: &[Seen], outside: &Outside<'_>) -> Result<Held> {
    let arrived = || {
        let held = hold(api).ok()?;
        let over = held
            .incidents
            .iter()
            .all(|incident| incident.state == IncidentState::Closed);
        let whole = held.audits.values().all(|audit| audit.holes == 0);
        let all = lines(&held, seen, outside).ok()?.iter().all(Line::recorded);
        (over && whole && all).then_some(held)
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
    let mut evidence = BTreeMap::new();
    for incident in &incidents {
        let detail = api.incident(incident.id)?;
        wrong.extend(disorder(&detail));
        evidence.insert(incident.id, detail.evidence);
    }
    let mut by_node: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for event in &events {
        by_node
            .entry(event.node.clone())
            .or_default()
            .push(event.clone());
    }
    Ok(Held {
        audits: by_node
            .into_iter()
            .map(|(node, events)| (node, Audit::of(&events)))
            .collect(),
        events,
        incidents,
        evidence,
        disorder: wrong,
    })
}

/// Fits incidents to faults: of each service, in the order in which its node numbered them.
pub(crate) fn lines<'a>(
    held: &'a Held,
    seen: &'a [Seen],
    outside: &Outside<'_>,
) -> Result<Vec<Line<'a>>> {
    let mut incidents: Vec<&Incident> = held.incidents.iter().collect();
    incidents.sort_by_key(|incident| incident.number);
    let ends = ends(seen, outside.load);
    seen.iter()
        .zip(ends)
        .map(|(seen, end)| {
            let scene = seen.scene;
            let expected = scene.expected()?;
            let offset_ms = if scene.node == outside.clock.0 {
                outside.clock.1
            } else {
                0
            };
            let own = |incident: &&Incident| {
                expected.recorded()
                    && incident.node == scene.node
                    && incident.service.as_deref() == Some(scene.service)
                    && is_after(incident.opened_ms, seen, offset_ms)
            };
            let incident = incidents.iter().position(own);
            let said = held
                .events
                .iter()
                .find(|event| says(event, &expected, seen, offset_ms));
            Ok(Line {
                seen,
                expected,
                incident: incident.map(|at| incidents.remove(at)),
                said,
                lost: end.map_or(0, |end| lost(outside.load, seen.at, end)),
                offset_ms,
            })
        })
        .collect()
}

/// Until when requests are counted for each fault: the next one, or the end. Of those that came
/// at once only the first counts them.
fn ends(seen: &[Seen], load: &load::Report) -> Vec<Option<Moment>> {
    let last = load.begun + Duration::from_secs(load.seconds.len() as u64 + 1);
    let mut ends = Vec::with_capacity(seen.len());
    for (place, one) in seen.iter().enumerate() {
        let next = seen
            .iter()
            .skip(place + 1)
            .find(|next| next.scene.after > 0)
            .map_or(last, |next| next.at);
        ends.push((one.scene.after > 0).then_some(next));
    }
    ends
}

fn lost(load: &load::Report, from: Moment, to: Moment) -> usize {
    let less = |at: Moment| Moment::from_micros(at.as_micros().saturating_sub(UNDER_WAY_US));
    load.lost_within(less(from), less(to))
}

/// Whether a node's stamp is not from before a fault.
fn is_after(stamp_ms: u64, seen: &Seen, offset_ms: i64) -> bool {
    let true_ms = i64::try_from(stamp_ms).unwrap_or(i64::MAX) - offset_ms;
    // Stamps are whole milliseconds.
    true_ms + 1 >= i64::try_from(seen.injected_ms).unwrap_or(i64::MAX)
}

/// Whether an event is the word on a fault that no incident follows.
fn says(event: &Event, expected: &Expected, seen: &Seen, offset_ms: i64) -> bool {
    if event.node != seen.scene.node || !is_after(event.hlc_ms, seen, offset_ms) {
        return false;
    }
    let text = event.body.get("text").and_then(|text| text.as_str());
    match expected {
        Expected::Untouched => event.kind == "boot",
        Expected::Told(words) => text.is_some_and(|text| {
            let named = seen
                .stranger
                .is_none_or(|pid| text.contains(&format!("process {pid} ")));
            text.contains(words) && named
        }),
        Expected::Plan(..) | Expected::Refused(_) | Expected::Stage => false,
    }
}

impl Line<'_> {
    /// From the fault to the agent's record of it, by the node's clock less its known error.
    pub(crate) fn detected_ms(&self) -> Option<f64> {
        let stamp = match (self.incident, self.said) {
            (Some(incident), _) => incident.opened_ms,
            (None, Some(event)) => event.hlc_ms,
            (None, None) => return None,
        };
        let true_ms = i64::try_from(stamp).ok()? - self.offset_ms;
        Some((true_ms - i64::try_from(self.seen.injected_ms).ok()?) as f64)
    }

    /// Whether all that must be recorded of it is.
    fn recorded(&self) -> bool {
        match self.expected {
            Expected::Plan(..) | Expected::Refused(_) => self.incident.is_some(),
            Expected::Told(_) => self.said.is_some(),
            Expected::Untouched => self.said.is_some() || self.seen.scene.fault == Fault::Spawner,
            Expected::Stage => true,
        }
    }

    /// What is other than stated; `None` if all is as it must be.
    pub(crate) fn wrong(&self) -> Option<String> {
        let seen = self.seen;
        let idle = matches!(self.expected, Expected::Told(_) | Expected::Refused(_));
        if idle && seen.untouched != Some(true) {
            return Some("something was touched".to_owned());
        }
        match (&self.expected, self.incident) {
            (Expected::Refused(_), None) | (Expected::Plan(..), None) => {
                Some("no record of it".to_owned())
            }
            (Expected::Plan(plan, source), Some(incident)) => {
                let other = |what: &str, found: &Option<String>, wanted: &str| {
                    let found = found.as_deref().unwrap_or("none");
                    (found != wanted).then(|| format!("{what} {found}, not {wanted}"))
                };
                other("plan", &incident.plan, plan)
                    .or_else(|| other("source", &incident.source, source))
                    .or_else(|| other("outcome", &incident.outcome, "healed"))
                    .or_else(|| {
                        (incident.connected != Some(seen.connected))
                            .then(|| "recorded as if the broker were in another state".to_owned())
                    })
                    .or_else(|| seen.healed.is_none().then(|| "not healed".to_owned()))
            }
            (Expected::Untouched, _) if seen.untouched != Some(true) => {
                Some("a service was touched".to_owned())
            }
            // The agent's own death is no incident; the spawner's is noticed, no more.
            (Expected::Untouched, _) => None,
            (Expected::Refused(rule), Some(incident)) => {
                let why = incident.why.as_deref().unwrap_or_default();
                (incident.plan.is_some() || !why.contains(rule))
                    .then(|| format!("not refused by {rule}: {why}"))
            }
            (Expected::Told(_), _) if self.said.is_none() => Some("nobody said why".to_owned()),
            (Expected::Told(_), _) | (Expected::Stage, _) => None,
        }
    }
}

/// The checks. `lines` is one line for each fault.
pub(crate) fn checks(held: &Held, lines: &[Line<'_>], outside: &Outside<'_>) -> Result<Vec<Check>> {
    if lines.is_empty() {
        bail!("nothing was broken");
    }
    let check = |id, what: String, holds| Check { id, what, holds };
    let of = |pick: &dyn Fn(&&Line<'_>) -> bool| lines.iter().filter(pick).collect::<Vec<_>>();
    let planned = of(&|line| matches!(line.expected, Expected::Plan(..)));
    let untouched = of(&|line| line.expected == Expected::Untouched);
    let told = of(&|line| matches!(line.expected, Expected::Told(_) | Expected::Refused(_)));
    let right = |lines: &[&Line<'_>]| lines.iter().filter(|line| line.wrong().is_none()).count();
    let whole = |id, what: &str, lines: &[&Line<'_>]| {
        check(
            id,
            format!("{} of {} {what}", right(lines), lines.len()),
            right(lines) == lines.len(),
        )
    };
    let stored: usize = held.audits.values().map(|audit| audit.stored).sum();
    let lost: u64 = held
        .audits
        .values()
        .map(|audit| audit.holes + audit.dropped)
        .sum();
    let doubled: u64 = held.audits.values().map(|audit| audit.doubled).sum();
    let load = outside.load;
    let mut checks = vec![
        whole(
            "healed",
            "faults healed, by the plan, source and outcome stated",
            &planned,
        ),
        whole(
            "untouched",
            "deaths of agents and spawners that no service noticed",
            &untouched,
        ),
        whole(
            "told",
            "strangers and frozen numbers told, and nothing touched",
            &told,
        ),
        invented(held, lines, outside),
        check(
            "records",
            format!(
                "{stored} records of {} nodes stored after {:.0} s without a broker: {lost} lost, \
                 {doubled} doubled",
                held.audits.len(),
                outside.broker_dead.as_secs_f64()
            ),
            held.audits.len() == 3 && held.audits.values().all(Audit::whole),
        ),
        check(
            "order",
            match held.disorder.first() {
                None => format!(
                    "opened, decided, stepped, closed: in causal order, though {} is {} min off",
                    outside.clock.0,
                    (outside.clock.1 / 60_000).abs()
                ),
                Some(first) => format!("causal order: {first}"),
            },
            held.disorder.is_empty(),
        ),
        check(
            "lost",
            format!(
                "{} of {} requests lost; {LOST_WITHOUT_HEALER} were without a healer, and 1 % of those may be",
                load.lost(),
                load.sent()
            ),
            load.lost() * 100 <= LOST_WITHOUT_HEALER,
        ),
    ];
    if let Some(memory) = outside.memory {
        checks.push(check(
            "memory",
            format!(
                "{:.0} MiB for agents, spawners, forwarders, broker, coordinator and load ({:.0} MiB \
                 with shared pages counted in each)",
                memory.proportional, memory.resident
            ),
            // Code that nobody optimised is several times as large.
            memory.proportional < MEMORY_MAX_MIB || cfg!(debug_assertions),
        ));
    }
    Ok(checks)
}

/// No incident but those of the faults.
fn invented(held: &Held, lines: &[Line<'_>], outside: &Outside<'_>) -> Check {
    let expected = lines.iter().filter(|line| line.expected.recorded()).count();
    let unknown = |incident: &&Incident| {
        let own = |line: &Line<'_>| line.incident.is_some_and(|own| own.id == incident.id);
        !lines.iter().any(own)
    };
    let more: Vec<String> = held
        .incidents
        .iter()
        .filter(unknown)
        .map(|incident| uncaused(incident, held, lines, outside))
        .collect();
    Check {
        id: "incidents",
        what: format!(
            "{} incidents for {} faults{}{}",
            held.incidents.len(),
            expected,
            if more.is_empty() {
                ""
            } else {
                "; nobody caused "
            },
            more.join(", ")
        ),
        holds: held.incidents.len() == expected && more.is_empty(),
    }
}

/// All that helps to see why there is an incident that nobody caused: when, on what evidence,
/// what was done, and what else happened shortly before.
fn uncaused(incident: &Incident, held: &Held, lines: &[Line<'_>], outside: &Outside<'_>) -> String {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let at = outside.seconds(&incident.node, incident.opened_ms);
    let shortly = |then: f64| (at - BEFORE_S..=at).contains(&then);
    let mut before: Vec<(f64, String)> = Vec::new();
    for line in lines {
        let scene = line.seen.scene;
        let then = outside.seconds("", line.seen.injected_ms);
        if shortly(then) {
            before.push((then, format!("{}: {}", scene.place(), scene.what)));
        }
    }
    for event in &held.events {
        let then = outside.seconds(&event.node, event.hlc_ms);
        let says = words::in_a_line(event);
        let own = event.node == incident.node && event.incident != Some(incident.id);
        if own && shortly(then) && !says.is_empty() {
            before.push((then, format!("{} {says}", event.kind)));
        }
    }
    before.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut text = format!(
        "{} {} {} ({}) at {at:.3} s, plan {}",
        incident.node,
        of(&incident.service),
        of(&incident.symptom),
        of(&incident.outcome),
        incident.plan.as_deref().unwrap_or("none"),
    );
    for line in held.evidence.get(&incident.id).into_iter().flatten() {
        let _ = write!(text, "\n        evidence  {line}");
    }
    for (then, what) in before {
        let _ = write!(text, "\n        {:5.0} ms  {what}", (then - at) * 1000.0);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::faults::{STORY, Scene};
    use serde_json::json;

    fn scene(id: &str) -> Scene {
        *STORY.iter().find(|scene| scene.id == id).unwrap()
    }

    fn seen(id: &str, injected_ms: u64) -> Seen {
        Seen {
            scene: scene(id),
            connected: true,
            at: Moment::from_micros(injected_ms * 1000),
            injected_ms,
            healed: Some(Duration::from_millis(20)),
            untouched: None,
            stranger: None,
        }
    }

    fn incident(number: u64, opened_ms: u64, plan: &str) -> Incident {
        serde_json::from_value(json!({
            "id": number, "number": number, "node": "edge-2", "site": "local", "state": "closed",
            "opened_ms": opened_ms, "service": "infer-2", "connected": true, "plan": plan,
            "source": "reflex", "refusals": 0, "outcome": "healed",
        }))
        .unwrap()
    }

    /// The lines and what is wrong with them, for `infer-2` blocked at 10 s, an hour ahead of
    /// its node's clock.
    fn judged(incidents: Vec<Incident>) -> (Vec<Option<String>>, Check) {
        let load = load();
        let outside = Outside {
            load: &load,
            memory: None,
            broker_dead: Duration::ZERO,
            clock: ("edge-2", -3_600_000),
            begun_ms: 3_990_000,
        };
        let evidence = BTreeMap::from([(1, vec!["it answered nothing".to_owned()])]);
        let held = Held {
            incidents,
            evidence,
            events: vec![note(390_000 - 500), note(390_000 - 3500)],
            audits: BTreeMap::new(),
            disorder: Vec::new(),
        };
        let seen = [seen("block", 4_000_000)];
        let lines = lines(&held, &seen, &outside).unwrap();
        let wrong = lines.iter().map(Line::wrong).collect();
        (wrong, invented(&held, &lines, &outside))
    }

    fn note(hlc_ms: u64) -> Event {
        serde_json::from_value(json!({
            "cursor": 1, "node": "edge-2", "stream": "s", "seq": 1, "kind": "note",
            "hlc_ms": hlc_ms, "hlc_count": 0, "received_ms": 0, "at_ms": 0, "meanwhile": false,
            "causes": [], "body": { "text": "a stranger burns" },
        }))
        .unwrap()
    }

    fn load() -> load::Report {
        let port = homeostat_testbed::ports(1).unwrap().remove(0);
        let spec = homeostat_testbed::LoadSpec {
            target: port.address().into(),
            rate: 1.0,
            seed: 1,
            late: Duration::from_secs(1),
            deadline: Duration::from_secs(1),
            rows: vec![vec![0.0]],
        };
        let load = homeostat_testbed::Load::start(spec, homeostat_testbed::Answers::default());
        load.unwrap().stop()
    }

    #[test]
    fn the_incident_after_a_fault_is_its_own_and_one_before_is_invented() {
        let plan = "restart(infer-2, grace=0ms)";
        let (before, after) = (incident(1, 390_000, plan), incident(2, 400_300, plan));
        let (wrong, check) = judged(vec![after.clone()]);
        assert_eq!(wrong, [None]);
        assert!(check.holds);
        let (wrong, check) = judged(vec![before.clone(), after]);
        assert_eq!(wrong, [None]);
        assert!(!check.holds);
        assert_eq!(
            check.what,
            "2 incidents for 1 faults; nobody caused edge-2 infer-2  (healed) at 0.000 s, \
             plan restart(infer-2, grace=0ms)\n        \
             evidence  it answered nothing\n         \
             -500 ms  note a stranger burns"
        );
        let (wrong, check) = judged(vec![before]);
        assert_eq!(wrong, [Some("no record of it".to_owned())]);
        assert!(!check.holds);
    }

    #[test]
    fn another_plan_than_stated_is_named() {
        let (wrong, _) = judged(vec![incident(1, 400_300, "restart(infer-2, grace=500ms)")]);
        assert_eq!(
            wrong,
            [Some(
                "plan restart(infer-2, grace=500ms), not restart(infer-2, grace=0ms)".to_owned()
            )]
        );
    }
}
