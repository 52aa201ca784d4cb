//! What a diagnosis asks: incidents around one, with what their nodes say of the causes; who
//! needs whom; what routes served meanwhile; and how incidents like it went.
//!
//! Every answer is bounded, and nothing is written: groups and causes follow from records.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use homeostat_common::suspect::Edge;
use homeostat_common::wire::body::{Diagnosed, ON_PURPOSE};
use serde::Deserialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::read::{LIST_MAX, event_sql};
use super::{Db, DbError, int, uint};
use crate::diagnose::causes::Case;
use crate::diagnose::past::{Past, Tried};
use crate::fleet::purpose::{OnPurpose, on_purpose};
use crate::fleet::view::Event;

/// Incidents before and after one, by arrival, that may belong to it. What a node held back
/// while hundreds of others arrived is not found.
const NEAR: u64 = 64;

/// Most incidents that are open at a time and looked at.
const OPEN_MAX: i64 = 128;

/// Incidents with the same fault that tell how such a one goes; the newest.
const PAST_MAX: i64 = 2_000;

/// Records of plans that are read of one incident, the last: eight plans of a step or two, with
/// what they were revised to. One that needs more is tried again and again.
const RECORDS_MAX: i64 = 32;

/// Aggregates of one node around an incident: an hour before, and twenty hours of it.
const SPANS_MAX: i64 = 256;

/// Most lines of what was seen that are kept of one incident, however often it is told.
const EVIDENCE_MAX: usize = 32;

/// Nodes whose routes are looked at for one incident.
const NODES_MAX: usize = 32;

/// Aggregates of a node that are read at once: a day of them.
const AGGREGATES_PAGE: i64 = 288;

/// Notes of faults on purpose that are read: each node has one in force at most.
const ON_PURPOSE_MAX: i64 = 256;

/// The longest span of an aggregate: that of a node that was held up.
const SPAN_MS: u64 = 15 * 60_000;

impl Db {
    /// Incidents that arrived around these, and all that are open.
    ///
    /// # Errors
    /// [`DbError::Statement`], as for all that follow.
    pub async fn cases_near(&self, ids: RangeInclusive<u64>) -> Result<Vec<Case>, DbError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM incident WHERE id BETWEEN ?1 AND ?2
             UNION
             SELECT * FROM (SELECT incident.id FROM incident
               JOIN node ON node.stream = incident.stream
               WHERE closed_seq IS NULL ORDER BY incident.id DESC LIMIT ?3)",
        )
        .bind(int(ids.start().saturating_sub(NEAR)))
        .bind(int(ids.end().saturating_add(NEAR)))
        .bind(OPEN_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on("find incidents around one"))?;
        self.cases(&ids.into_iter().map(uint).collect::<Vec<_>>())
            .await
    }

    /// Faults that people put into services, the newest, each with its end if that was told.
    pub async fn on_purpose(&self) -> Result<Vec<OnPurpose>, DbError> {
        let doing = "read which faults were put in on purpose";
        let rows = sqlx::query(event_sql!(
            "WHERE event.kind = 'note' AND event.body ->> '$.text' LIKE ?1 || '%'
             ORDER BY event.id DESC LIMIT ?2"
        ))
        .bind(ON_PURPOSE)
        .bind(ON_PURPOSE_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        Ok(on_purpose(&self.placed(&rows, doing).await?))
    }

    /// Number of the newest incident.
    pub async fn newest_incident(&self) -> Result<u64, DbError> {
        sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM incident")
            .fetch_one(&self.read)
            .await
            .map(uint)
            .map_err(DbError::on("read the last incident's number"))
    }

    /// These incidents, by first sign; those whose opening has not arrived are left out.
    pub async fn cases(&self, ids: &[u64]) -> Result<Vec<Case>, DbError> {
        let doing = "read incidents with their suspects";
        let rows = sqlx::query(event_sql!(
            "WHERE event.kind IN ('incident-opened', 'diagnosed', 'incident-closed')
               AND (event.stream, event.incident) IN (SELECT incident.stream, incident.number
                 FROM incident WHERE incident.id IN (SELECT value FROM json_each(?1)))
             ORDER BY event.stream, event.seq"
        ))
        .bind(serde_json::to_string(ids).unwrap_or_default())
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let events = self.placed(&rows, doing).await?;
        let mut cases: BTreeMap<u64, Case> = BTreeMap::new();
        for event in &events {
            let Some(incident) = event.incident else {
                continue;
            };
            match (event.kind.as_str(), cases.get_mut(&incident)) {
                ("incident-opened", None) => {
                    cases.extend(opened(event).map(|case| (incident, case)));
                }
                // Told again: a closer look, or an agent that found it open. It began before.
                ("incident-opened", Some(case)) => {
                    if let Some(again) = opened(event) {
                        case.fault = again.fault;
                        case.confidence = again.confidence;
                        case.evidence.extend(again.evidence);
                        case.evidence.truncate(EVIDENCE_MAX);
                    }
                }
                ("diagnosed", Some(case)) => {
                    let Ok(told) = Diagnosed::deserialize(&event.body) else {
                        continue;
                    };
                    // That nobody shows it any more does not take back who did.
                    let names = |told: &Diagnosed| !told.suspects.is_empty();
                    if names(&told) || !case.diagnosed.as_ref().is_some_and(|one| names(&one.0)) {
                        case.diagnosed = Some((told, event.at_ms));
                    }
                }
                ("incident-closed", Some(case)) => case.to_ms = event.at_ms,
                _ => {}
            }
        }
        let abandoned: Vec<i64> = sqlx::query_scalar(
            "SELECT incident.id FROM incident JOIN stream ON stream.id = incident.stream
             JOIN node ON node.id = stream.node
             WHERE incident.id IN (SELECT value FROM json_each(?1)) AND closed_seq IS NULL
               AND node.stream IS NOT incident.stream",
        )
        .bind(serde_json::to_string(ids).unwrap_or_default())
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        for id in abandoned {
            // No end will come; the last that was told of it has to do.
            if let Some(case) = cases.get_mut(&uint(id)) {
                case.to_ms = case
                    .diagnosed
                    .as_ref()
                    .map_or(case.from_ms, |(_, at_ms)| *at_ms);
            }
        }
        let mut cases: Vec<Case> = cases.into_values().collect();
        cases.sort_by_key(|case| (case.from_ms, case.incident));
        Ok(cases)
    }

    /// Who needs whom on each node, by its configuration.
    pub async fn topologies(&self) -> Result<Vec<(String, Vec<Edge>)>, DbError> {
        let rows = sqlx::query(
            "SELECT node.name, edges FROM node JOIN topology ON topology.stream = node.stream
             ORDER BY node.name LIMIT ?1",
        )
        .bind(LIST_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on("read who needs whom"))?;
        let read = rows.iter().filter_map(|row| {
            let edges = serde_json::from_str(row.try_get("edges").ok()?).ok()?;
            Some((row.try_get("name").ok()?, edges))
        });
        Ok(read.collect())
    }

    /// Nodes and their sites.
    pub async fn sites(&self) -> Result<Vec<(String, String)>, DbError> {
        sqlx::query_as("SELECT name, site FROM node ORDER BY name LIMIT ?1")
            .bind(LIST_MAX)
            .fetch_all(&self.read)
            .await
            .map_err(DbError::on("read the sites"))
    }

    /// What these nodes told in aggregates between two times by the coordinator's clock.
    pub async fn measured(
        &self,
        nodes: &[String],
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<Event>, DbError> {
        let doing = "read what nodes measured";
        let mut events = Vec::new();
        for node in nodes.iter().take(NODES_MAX) {
            // A record cannot have arrived before it was made; by its own clock it may have.
            // What was measured while cut off arrives later, and before what is told at once.
            let ahead: Option<i64> = sqlx::query_scalar(
                "SELECT MAX(ahead) FROM (SELECT hlc_ms - received_ms AS ahead FROM event
                   WHERE event.stream = (SELECT stream FROM node WHERE name = ?1)
                     AND kind = 'telemetry' AND received_ms >= ?2
                   ORDER BY hlc_ms LIMIT ?3)",
            )
            .bind(node)
            .bind(int(from_ms))
            .bind(SPANS_MAX)
            .fetch_one(&self.read)
            .await
            .map_err(DbError::on(doing))?;
            let Some(ahead) = ahead else { continue };
            let own = |ms: u64| int(ms).saturating_add(ahead);
            let rows = sqlx::query(event_sql!(
                "WHERE event.stream = (SELECT stream FROM node WHERE name = ?1)
                   AND event.kind = 'telemetry'
                   AND event.hlc_ms BETWEEN ?2 AND ?3 ORDER BY event.hlc_ms DESC LIMIT ?4"
            ))
            .bind(node)
            .bind(own(from_ms))
            .bind(own(to_ms.saturating_add(SPAN_MS)))
            .bind(SPANS_MAX)
            .fetch_all(&self.read)
            .await
            .map_err(DbError::on(doing))?;
            events.extend(self.placed(&rows, doing).await?);
        }
        Ok(events)
    }

    /// What a node told in aggregates that arrived after a time: those before a cursor, the
    /// newest first, a page at a time.
    pub async fn aggregates(
        &self,
        node: &str,
        from_ms: u64,
        before: u64,
    ) -> Result<Vec<Event>, DbError> {
        let doing = "read aggregates";
        let rows = sqlx::query(event_sql!(
            "WHERE node.name = ?1 AND event.kind = 'telemetry'
               AND event.received_ms >= ?2 AND event.id < ?3 ORDER BY event.id DESC LIMIT ?4"
        ))
        .bind(node)
        .bind(int(from_ms))
        .bind(int(before))
        .bind(AGGREGATES_PAGE)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        // A clock is told by the records around, not by those of last month.
        self.placed(&rows, doing).await
    }

    /// How incidents with this fault went, without one of them.
    pub async fn past(&self, fault: &str, except: u64, now_ms: u64) -> Result<Vec<Past>, DbError> {
        let doing = "read how such incidents went";
        let rows = sqlx::query(
            "SELECT incident.id AS id, node.name, service, symptom, outcome, lasted_ms,
               detected_after_ms, opened_ms,
               (SELECT MIN(hlc_ms) FROM event WHERE event.stream = incident.stream
                AND event.incident = incident.number AND kind = 'step') AS step_ms,
               (SELECT MAX(hlc_ms - received_ms) FROM event WHERE event.stream = incident.stream
                AND event.seq BETWEEN incident.opened_seq AND incident.opened_seq + 8) AS ahead_ms
             FROM incident JOIN stream ON stream.id = incident.stream
             JOIN node ON node.id = stream.node
             WHERE fault = ?1 AND incident.id <> ?2 AND opened_ms IS NOT NULL
               AND (closed_seq IS NOT NULL OR node.stream = incident.stream)
               -- What came first is forgotten first, and with it what was done.
               AND EXISTS (SELECT 1 FROM event WHERE event.stream = incident.stream
                 AND event.seq = incident.opened_seq)
             ORDER BY incident.id DESC LIMIT ?3",
        )
        .bind(fault)
        .bind(int(except))
        .bind(PAST_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let ids: Result<Vec<i64>, _> = rows.iter().map(|row| row.try_get("id")).collect();
        let mut ran = self.ran(&ids.map_err(DbError::on(doing))?).await?;
        let mut read = |row: &SqliteRow| -> Result<Past, sqlx::Error> {
            let opened: i64 = row.try_get("opened_ms")?;
            let before: Option<i64> = row.try_get("detected_after_ms")?;
            let first = opened.saturating_sub(before.unwrap_or(0));
            let step: Option<i64> = row.try_get("step_ms")?;
            let lasted: Option<i64> = row.try_get("lasted_ms")?;
            let ahead: Option<i64> = row.try_get("ahead_ms")?;
            let now = int(now_ms).saturating_add(ahead.unwrap_or(0));
            let after = |at: i64| uint(at.saturating_sub(first));
            let ran = ran.remove(&row.try_get("id")?).unwrap_or_default();
            let tried = ran.plans.into_iter().enumerate().map(|(nth, one)| Tried {
                plan: one.text,
                after_ms: after(one.at_ms),
                first: ran.whole && nth == 0,
            });
            Ok(Past {
                node: row.try_get("name")?,
                service: row.try_get("service")?,
                symptom: row.try_get("symptom")?,
                tried: tried.collect(),
                acted_after_ms: step.map(after),
                outcome: row.try_get("outcome")?,
                lasted_ms: uint(lasted.unwrap_or_else(|| now.saturating_sub(first))),
            })
        };
        rows.iter()
            .map(&mut read)
            .collect::<Result<_, _>>()
            .map_err(DbError::on(doing))
    }

    /// The plans that were begun for these incidents, by number of the incident.
    async fn ran(&self, incidents: &[i64]) -> Result<BTreeMap<i64, Ran>, DbError> {
        let doing = "read which plans were run";
        // A plan that is revised, or goes on after a restart, keeps its number.
        let rows = sqlx::query(
            "SELECT id, kind, hlc_ms, number, source, text, records FROM (
               SELECT incident.id AS id, event.seq AS seq, kind, hlc_ms,
                 CAST(body ->> '$.plan' AS TEXT) AS number,
                 (SELECT one.value ->> '$.source' FROM json_each(body, '$.considered') AS one
                  WHERE kind = 'decided' AND one.value ->> '$.refusal' IS NULL
                  ORDER BY one.key DESC LIMIT 1) AS source,
                 (SELECT one.value ->> '$.plan' FROM json_each(body, '$.considered') AS one
                  WHERE kind = 'decided' AND one.value ->> '$.refusal' IS NULL
                  ORDER BY one.key DESC LIMIT 1) AS text,
                 ROW_NUMBER() OVER (PARTITION BY incident.id ORDER BY event.seq DESC) AS back,
                 COUNT(*) OVER (PARTITION BY incident.id) AS records
               FROM incident JOIN event ON event.stream = incident.stream
                 AND event.incident = incident.number
               WHERE incident.id IN (SELECT value FROM json_each(?1))
                 AND ((kind = 'decided' AND body ->> '$.plan' IS NOT NULL)
                   OR (kind = 'step' AND body ->> '$.phase' = 'started')))
             WHERE back <= ?2 ORDER BY id, seq",
        )
        .bind(serde_json::to_string(incidents).unwrap_or_default())
        .bind(RECORDS_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut all: BTreeMap<i64, Ran> = BTreeMap::new();
        for row in &rows {
            let mut read = || -> Result<(), sqlx::Error> {
                let of = all.entry(row.try_get("id")?).or_default();
                of.whole = row.try_get::<i64, _>("records")? <= RECORDS_MAX;
                let number: String = row.try_get("number")?;
                let at_ms: i64 = row.try_get("hlc_ms")?;
                let resumed = row.try_get::<Option<&str>, _>("source")? == Some("resumed");
                match row.try_get("kind")? {
                    "decided" => {
                        let text: Option<String> = row.try_get("text")?;
                        if let Some(text) = text.filter(|_| !resumed) {
                            of.plans.push(RanPlan {
                                number,
                                text,
                                at_ms,
                                stepped: false,
                            });
                        }
                    }
                    _ => {
                        if let Some(plan) = of.plans.last_mut()
                            && plan.number == number
                            && !plan.stepped
                        {
                            (plan.at_ms, plan.stepped) = (at_ms, true);
                        }
                    }
                }
                Ok(())
            };
            read().map_err(DbError::on(doing))?;
        }
        Ok(all)
    }
}

/// The plans of one incident.
#[derive(Debug, Default)]
struct Ran {
    plans: Vec<RanPlan>,
    /// Whether these are all.
    whole: bool,
}

#[derive(Debug)]
struct RanPlan {
    /// Of its run, on its node.
    number: String,
    text: String,
    /// When its first step was begun; while none is on record, when it was decided.
    at_ms: i64,
    stepped: bool,
}

fn opened(event: &Event) -> Option<Case> {
    let text = |field: &str| event.body.get(field).and_then(Value::as_str);
    let number = |field: &str| event.body.get(field).and_then(Value::as_u64);
    let evidence = event.body.get("evidence").and_then(Value::as_array);
    let evidence = evidence.into_iter().flatten().filter_map(Value::as_str);
    Some(Case {
        incident: event.incident?,
        node: event.node.clone(),
        service: text("service")?.to_owned(),
        fault: text("fault").map(str::to_owned),
        from_ms: event
            .at_ms
            .saturating_sub(number("detected_after").unwrap_or(0)),
        to_ms: u64::MAX,
        confidence: event
            .body
            .get("confidence")
            .and_then(Value::as_f64)
            .unwrap_or(0.0),
        evidence: evidence.map(str::to_owned).collect(),
        diagnosed: None,
    })
}
