//! Joins what the database holds with what the diagnosis makes of it: who is behind an
//! incident, what belongs to it, whom it reached, and what would have been otherwise.
//!
//! Nothing of it is stored, and each answer asks the database a bounded number of bounded
//! questions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Hub, now_ms};
use crate::diagnose::causes::{Case, Heard, borders, causes};
use crate::diagnose::graph::{Graph, Told};
use crate::diagnose::groups::groups;
use crate::diagnose::impact::{Reached, impact, look, spans};
use crate::diagnose::past::{About, what_if};
use crate::diagnose::ranking::rank;
use crate::diagnose::readings::readings;
use crate::diagnose::why::{add_on_purpose, named, why};
use crate::fleet::diagnosis::{Causes, Group, Impact, Kind, Place, Role, WhatIf, Why};
use crate::fleet::view::{Decision, Event, Incident};
use crate::io::db::{Db, DbError};

/// How long before an incident says what is usual: as many aggregates as the ranking wants to
/// have seen (24), and some that may be missing.
const USUAL_MS: u64 = 3 * 3_600_000;

/// Most components behind which measurements are asked for one answer.
const BORDERS_MAX: usize = 4;

/// Most incidents whose borders are looked behind to say why a service is in trouble.
const WHY_MAX: usize = 8;

/// Most plans that are asked about.
const ACTIONS_MAX: usize = 4;

/// What is known of an incident beside what its node did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explained {
    /// Who may be behind it.
    pub causes: Option<Causes>,
    /// What has the same cause.
    pub group: Option<Group>,
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
        let cases = self.db.cases_near(incident.id).await?;
        let what_if = self.otherwise(incident, decisions).await?;
        let Some(case) = cases.iter().find(|case| case.incident == incident.id) else {
            return Ok(Explained {
                what_if,
                ..Explained::default()
            });
        };
        let graph = graph(&self.db, &cases).await?;
        let all: Vec<&Case> = cases.iter().collect();
        let heard = heard(&self.db, &[case], &all, &graph).await?;
        let causes = causes(case, &all, &graph, &heard);
        let own = |group: &Group| group.members.iter().any(|one| one.incident == incident.id);
        let group = groups(&cases, &graph).into_iter().find(own);
        let impact = self.reach(case, &causes, &graph, timeline).await?;
        Ok(Explained {
            causes: Some(causes),
            group,
            impact: Some(impact),
            what_if,
        })
    }

    /// The groups of these incidents, by incident.
    pub async fn grouped(&self, ids: &[u64]) -> Result<BTreeMap<u64, u64>, DbError> {
        let cases = self.db.cases(ids).await?;
        let graph = graph(&self.db, &cases).await?;
        let mut found = BTreeMap::new();
        for group in groups(&cases, &graph) {
            found.extend(
                group
                    .members
                    .iter()
                    .map(|member| (member.incident, group.id)),
            );
        }
        Ok(found)
    }

    /// Why what goes by that name is in trouble: the one that is comes first, one with an
    /// incident of its own before those that need something with one. In words, why nothing
    /// does.
    pub async fn why(
        &self,
        name: &str,
        node: Option<&str>,
    ) -> Result<Result<Vec<Why>, String>, DbError> {
        let cases = self.db.cases_near(self.db.newest_incident().await?).await?;
        let graph = graph(&self.db, &cases).await?;
        let nodes = self.db.sites().await?;
        let nodes: Vec<String> = nodes.into_iter().map(|(node, _)| node).collect();
        let places = match named(&graph, name, node, &nodes) {
            Ok(places) => places,
            Err(nowhere) => return Ok(Err(nowhere)),
        };
        let all: Vec<&Case> = cases.iter().collect();
        let newest: Vec<&Case> = cases.iter().rev().take(WHY_MAX).collect();
        let heard = heard(&self.db, &newest, &all, &graph).await?;
        let mut found: Vec<Why> = places
            .iter()
            .map(|place| why(place, &cases, &graph, &heard))
            .collect();
        let faults = self.db.on_purpose().await?;
        let now = now_ms();
        for one in &mut found {
            add_on_purpose(one, &faults, &cases, now);
        }
        found.sort_by_key(|one| {
            let own = one.incident.and(one.chain.first());
            let own = own.is_some_and(|of| of.role != Role::Between);
            (!one.open, !own, std::cmp::Reverse(one.incident))
        });
        Ok(Ok(found))
    }

    async fn reach(
        &self,
        case: &Case,
        causes: &Causes,
        graph: &Graph,
        timeline: &[Event],
    ) -> Result<Impact, DbError> {
        let reached = reached(causes, graph);
        let nodes: BTreeSet<String> = reached.iter().map(|route| route.node.clone()).collect();
        let nodes: Vec<String> = nodes.into_iter().collect();
        let to_ms = case.to_ms.min(now_ms()).max(case.from_ms);
        let from_ms = case.from_ms.saturating_sub(USUAL_MS);
        let told = self.db.measured(&nodes, from_ms, to_ms).await?;
        let told: Vec<_> = told
            .iter()
            .flat_map(|one| spans(&one.node, one.at_ms, &one.body))
            .collect();
        let seen = timeline.iter().filter(|event| event.kind == "observation");
        let looks: Vec<_> = seen
            .flat_map(|one| look(&one.node, one.at_ms, &one.body))
            .collect();
        let during = (case.from_ms, to_ms);
        Ok(impact(during, &reached, &told, &looks, &self.objectives))
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

/// What measurements say of those behind which no node looked for these incidents.
async fn heard(
    db: &Db,
    cases: &[&Case],
    others: &[&Case],
    graph: &Graph,
) -> Result<Heard, DbError> {
    let mut heard = Heard::new();
    let mut asked = 0;
    for case in cases {
        for border in borders(case, others, graph) {
            if asked == BORDERS_MAX {
                return Ok(heard);
            }
            if heard.contains_key(&border) {
                continue;
            }
            asked += 1;
            let nodes: BTreeSet<String> = graph
                .reach(&border)
                .into_keys()
                .filter(|place| place.kind != Kind::Dependency)
                .map(|place| place.at)
                .collect();
            let nodes: Vec<String> = nodes.into_iter().collect();
            let to_ms = case.to_ms.min(now_ms()).max(case.from_ms);
            let from_ms = case.from_ms.saturating_sub(USUAL_MS);
            let told = db.measured(&nodes, from_ms, to_ms).await?;
            let all: Vec<_> = told
                .iter()
                .flat_map(|one| readings(&one.node, one.at_ms, &one.body, graph))
                .collect();
            heard.extend(rank(&border, graph, &all, case.from_ms).map(|found| (border, found)));
        }
    }
    Ok(heard)
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
