//! Joins what the database holds with what the diagnosis makes of it: who is behind an
//! incident, what belongs to it, whom it reached, and what would have been otherwise.
//!
//! Nothing of it is stored, and each answer asks the database a bounded number of bounded
//! questions.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Hub, now_ms};
use crate::diagnose::causes::{Case, Heard, borders, causes};
use crate::diagnose::graph::{Graph, Told};
use crate::diagnose::groups::{coincident, groups};
use crate::diagnose::impact::{Reached, impact, look, spans};
use crate::diagnose::past::{About, what_if};
use crate::diagnose::ranking::rank;
use crate::diagnose::readings::{Reading, readings};
use crate::diagnose::why::{add_on_purpose, answers, lately, named, speaking};
use crate::fleet::diagnosis::{Causes, Coincident, Group, Impact, Kind, Place, WhatIf, Why};
use crate::fleet::view::{Decision, Event, Incident};
use crate::io::db::{Db, DbError};

/// How long before an incident says what is usual: as many aggregates as the ranking wants to
/// have seen (24), and some that may be missing.
const USUAL_MS: u64 = 3 * 3_600_000;

/// So much of an incident says who is behind it. Of a longer one the time before would no
/// longer be among what is kept of each series.
const FAULT_MS: u64 = 3_600_000;

/// Most components behind which measurements are asked for one answer.
const BORDERS_MAX: usize = 4;

/// Most incidents whose borders are looked behind to say why a service is in trouble.
const WHY_MAX: usize = 8;

/// Incidents that are grouped at once lie no further apart than this.
const TOGETHER: u64 = 63;

/// Most times that incidents of a list are grouped; of more the older ones are shown without.
const LOOKS_MAX: usize = 16;

/// Most plans that are asked about.
const ACTIONS_MAX: usize = 4;

/// What is known of an incident beside what its node did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explained {
    /// Who may be behind it.
    pub causes: Option<Causes>,
    /// What has the same cause.
    pub group: Option<Group>,
    /// What began in the same while and has another cause.
    pub coincident: Vec<Coincident>,
    /// Whom it reached.
    pub impact: Option<Impact>,
    /// What would have been otherwise.
    pub what_if: Vec<WhatIf>,
}

impl Hub {
    /// Explains an incident; `timeline` and `decisions` are its own.
    ///
    /// # Errors
    /// [`DbError::Statement`], as for all that follow.
    pub async fn explain(
        &self,
        incident: &Incident,
        timeline: &[Event],
        decisions: &[Decision],
    ) -> Result<Explained, DbError> {
        let cases = self.db.cases_near(incident.id..=incident.id).await?;
        let what_if = self.otherwise(incident, decisions).await?;
        let Some(case) = cases.iter().find(|case| case.incident == incident.id) else {
            return Ok(Explained {
                what_if,
                ..Explained::default()
            });
        };
        let graph = graph(&self.db, &cases).await?;
        let all: Vec<&Case> = cases.iter().collect();
        let heard = heard(&self.db, case, &all, &graph).await?;
        let causes = causes(case, &all, &graph, &heard);
        let own = |group: &Group| group.members.iter().any(|one| one.incident == incident.id);
        let group = groups(&cases, &graph).into_iter().find(own);
        let coincident = coincident(case, &causes, &cases, (group.as_ref(), &graph));
        let impact = self
            .reach(case, incident, &causes, &graph, timeline)
            .await?;
        Ok(Explained {
            causes: Some(causes),
            group,
            coincident,
            impact: Some(impact),
            what_if,
        })
    }

    /// The groups of these incidents, by incident: the same whatever else is asked for.
    pub async fn grouped(&self, ids: &[u64]) -> Result<BTreeMap<u64, u64>, DbError> {
        let mut left: BTreeSet<u64> = ids.iter().copied().collect();
        let mut found = BTreeMap::new();
        // The newest first: they are what is looked at.
        for _ in 0..LOOKS_MAX {
            let Some(last) = left.pop_last() else {
                break;
            };
            let together = left.split_off(&last.saturating_sub(TOGETHER));
            let first = together.first().copied().unwrap_or(last);
            let cases = self.db.cases_near(first..=last).await?;
            let graph = graph(&self.db, &cases).await?;
            for group in groups(&cases, &graph) {
                let members = group.members.iter().map(|member| member.incident);
                let asked = members.filter(|one| (first..=last).contains(one));
                found.extend(asked.map(|one| (one, group.id)));
            }
        }
        Ok(found)
    }

    /// Why what goes by that name is in trouble: in the order of [`answers`]. In words, why
    /// nothing does.
    pub async fn why(
        &self,
        name: &str,
        node: Option<&str>,
    ) -> Result<Result<Vec<Why>, String>, DbError> {
        let newest = self.db.newest_incident().await?;
        let cases = self.db.cases_near(newest..=newest).await?;
        let cases = lately(cases, now_ms());
        let graph = graph(&self.db, &cases).await?;
        let nodes = self.db.sites().await?;
        let nodes: Vec<String> = nodes.into_iter().map(|(node, _)| node).collect();
        let places = match named(&graph, name, node, &nodes) {
            Ok(places) => places,
            Err(nowhere) => return Ok(Err(nowhere)),
        };
        let all: Vec<&Case> = cases.iter().collect();
        // First those that will answer; who is suspected alone may be so in any of the newest.
        let mut asked = speaking(&places, &cases, &graph);
        asked.extend(cases.iter().rev());
        let mut known: BTreeMap<u64, Heard> = BTreeMap::new();
        for case in asked {
            if known.len() == WHY_MAX {
                break;
            }
            if let Entry::Vacant(of) = known.entry(case.incident) {
                of.insert(heard(&self.db, case, &all, &graph).await?);
            }
        }
        let faults = self.db.on_purpose().await?;
        // Hundreds of incidents may be open, of many nodes each.
        let answers = move || {
            let mut found = answers(&places, &cases, &graph, &known);
            for one in &mut found {
                add_on_purpose(one, &faults, &cases, now_ms());
            }
            found
        };
        match tokio::task::spawn_blocking(answers)
            .await
            .map_err(|error| error.try_into_panic())
        {
            Ok(found) => Ok(Ok(found)),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // Never begun: the program ends.
            Err(Err(_)) => Ok(Ok(Vec::new())),
        }
    }

    async fn reach(
        &self,
        case: &Case,
        incident: &Incident,
        causes: &Causes,
        graph: &Graph,
        timeline: &[Event],
    ) -> Result<Impact, DbError> {
        let reached = reached(causes, graph);
        let nodes: BTreeSet<String> = reached.iter().map(|route| route.node.clone()).collect();
        let nodes: Vec<String> = nodes.into_iter().collect();
        let to_ms = case.to_ms.min(now_ms()).max(case.from_ms);
        let from_ms = case.from_ms.saturating_sub(USUAL_MS);
        // What is usual has a limit of its own: of a long incident it is not crowded out.
        let mut told = self.db.measured(&nodes, from_ms, case.from_ms).await?;
        let known: BTreeSet<u64> = told.iter().map(|one| one.cursor).collect();
        let during = self.db.measured(&nodes, case.from_ms, to_ms).await?;
        told.extend(
            during
                .into_iter()
                .filter(|one| !known.contains(&one.cursor)),
        );
        let told: Vec<_> = told
            .iter()
            .flat_map(|one| spans(&one.node, one.at_ms, &one.body))
            .collect();
        let seen = timeline.iter().filter(|event| event.kind == "observation");
        let looks: Vec<_> = seen
            .flat_map(|one| look(&one.node, one.at_ms, &one.body))
            .collect();
        let during = (case.from_ms, to_ms);
        let symptom = incident.symptom.as_deref();
        let told = (&told[..], &looks[..]);
        Ok(impact(during, symptom, &reached, told, &self.objectives))
    }

    async fn otherwise(
        &self,
        incident: &Incident,
        decisions: &[Decision],
    ) -> Result<Vec<WhatIf>, DbError> {
        let Some(fault) = &incident.fault else {
            return Ok(Vec::new());
        };
        let mut actions: Vec<String> = Vec::new();
        let considered = decisions
            .iter()
            .rev()
            .flat_map(|one| one.options.iter().rev());
        for option in considered {
            if actions.len() < ACTIONS_MAX && !actions.contains(&option.plan) {
                actions.push(option.plan.clone());
            }
        }
        let past = self.db.past(fault, incident.id, now_ms()).await?;
        let about = About {
            node: &incident.node,
            service: incident.service.as_deref(),
            symptom: incident.symptom.as_deref(),
        };
        Ok(what_if(about, &past, &actions))
    }
}

/// Who needs whom, by configuration and by what these incidents tell.
///
/// # Errors
/// [`DbError::Statement`].
pub async fn graph(db: &Db, cases: &[Case]) -> Result<Graph, DbError> {
    let (sites, topologies) = (db.sites().await?, db.topologies().await?);
    let (services, routes) = (db.services(None).await?, db.routes(None).await?);
    let configured = topologies
        .iter()
        .flat_map(|(node, edges)| edges.iter().map(move |edge| (node.as_str(), edge)));
    let told = cases.iter().flat_map(|case| {
        let edges = case.diagnosed.iter().flat_map(|(told, _)| &told.edges);
        edges.map(|edge| (case.node.as_str(), edge))
    });
    Ok(Graph::of(&Told {
        sites: sites
            .iter()
            .map(|(node, site)| (node.as_str(), site.as_str()))
            .collect(),
        services: &services,
        routes: &routes,
        edges: configured.chain(told).collect(),
    }))
}

/// What measurements say of those behind which no node looked for this incident.
async fn heard(db: &Db, case: &Case, others: &[&Case], graph: &Graph) -> Result<Heard, DbError> {
    let mut heard = Heard::new();
    for border in borders(case, others, graph).into_iter().take(BORDERS_MAX) {
        let nodes: BTreeSet<String> = graph
            .reach(&border)
            .into_keys()
            .filter(|place| place.kind != Kind::Dependency)
            .map(|place| place.at)
            .collect();
        let nodes: Vec<String> = nodes.into_iter().collect();
        let long = case.from_ms.saturating_add(FAULT_MS);
        let to_ms = case.to_ms.min(now_ms()).min(long).max(case.from_ms);
        let from_ms = case.from_ms.saturating_sub(USUAL_MS);
        let told = db.measured(&nodes, from_ms, to_ms).await?;
        let all = said(&told, to_ms, graph);
        heard.extend(rank(&border, graph, &all, case.from_ms).map(|found| (border, found)));
    }
    Ok(heard)
}

/// What aggregates say whose span began before a time. What was measured after an incident is
/// of another state, and would make the answer another one with each time of asking.
fn said(told: &[Event], to_ms: u64, graph: &Graph) -> Vec<Reading> {
    let began = |one: &Event| {
        let span = one.body.get("span").and_then(Value::as_u64);
        one.at_ms.saturating_sub(span.unwrap_or(0))
    };
    told.iter()
        .filter(|one| began(one) < to_ms)
        .flat_map(|one| readings(&one.node, one.at_ms, &one.body, graph))
        .collect()
}

/// The routes that carry the trouble: those that need what is alarmed, and those by which it
/// got there. Users come in where no other one of them leads.
fn reached(causes: &Causes, graph: &Graph) -> Vec<Reached> {
    let mut places = graph.reached_by(&causes.alarmed);
    places.extend(causes.chain.iter().map(|one| one.place.clone()));
    let routes: BTreeSet<Place> = places
        .into_iter()
        .filter(|place| place.kind == Kind::Route)
        .collect();
    let behind: BTreeSet<Place> = routes
        .iter()
        .flat_map(|route| graph.reach(route).into_iter().filter(|(_, away)| *away > 0))
        .map(|(place, _)| place)
        .collect();
    let reached = routes.iter().map(|route| Reached {
        node: route.at.clone(),
        route: route.name.clone(),
        // Two that lead to each other are both entries, for want of a better one.
        entry: !behind.contains(route)
            || graph.reach(route).keys().any(|place| {
                place != route && routes.contains(place) && graph.reach(place).contains_key(route)
            }),
    });
    reached.collect()
}

#[cfg(test)]
mod tests {
    use homeostat_common::observation::{Metric, Part};
    use homeostat_common::suspect::{Component, Edge};
    use serde_json::json;

    use super::*;

    const STEP: u64 = 300_000;

    /// Five minutes of the east that end at a time.
    fn told(at_ms: u64, busy: f64, latency: f64) -> Event {
        let body = json!({"span": STEP, "series": [
            {"metric": Metric::DiskBusy as u8, "service": null, "part": "sda", "mean": busy},
            {"metric": Metric::LatencyP50 as u8, "service": "infer-1", "part": null, "mean": latency},
        ]});
        serde_json::from_value(json!({
            "cursor": 1, "node": "east", "stream": "", "seq": 1, "kind": "telemetry",
            "hlc_ms": at_ms, "hlc_count": 0, "received_ms": at_ms, "at_ms": at_ms,
            "incident": null, "meanwhile": false, "causes": [], "body": body,
        }))
        .unwrap()
    }

    #[test]
    fn who_was_behind_it_is_the_same_after_it_is_well_again() {
        let service =
            || Component::Service(homeostat_common::ids::ServiceId::new("infer-1").unwrap());
        let disk = Edge {
            from: service(),
            needs: Component::Part(Part::new("sda").unwrap()),
        };
        let graph = Graph::of(&Told {
            sites: [("east", "plant")].into_iter().collect(),
            services: &[],
            routes: &[],
            edges: vec![("east", &disk)],
        });
        let border = graph.place("east", &service());
        // Thirty quiet spans, two of trouble, and three in which it is well again.
        let all: Vec<Event> = (1..=35_u64)
            .map(|step| {
                let noise = (step * 7 % 5) as f64;
                let ill = if (31..=32).contains(&step) { 1.0 } else { 0.0 };
                told(
                    step * STEP,
                    0.1 + 0.01 * noise + 0.8 * ill,
                    20.0 + noise + 300.0 * ill,
                )
            })
            .collect();
        let (from_ms, to_ms) = (30 * STEP, 32 * STEP);
        let asked = |told: &[Event]| rank(&border, &graph, &said(told, to_ms, &graph), from_ms);
        let at_its_end = asked(&all[..32]).expect("the disk is busy");
        assert_eq!(at_its_end.suspects[0].place.to_string(), "sda of east");
        assert_eq!(asked(&all), Some(at_its_end));
    }
}
