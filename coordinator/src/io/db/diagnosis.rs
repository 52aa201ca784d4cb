//! What a diagnosis asks: incidents around one, with what their nodes say of the causes; who
//! needs whom; what routes served meanwhile; and how incidents like it went.
//!
//! Every answer is bounded, and nothing is written: groups and causes follow from records.

use std::collections::BTreeMap;

use homeostat_common::suspect::Edge;
use homeostat_common::wire::body::{Diagnosed, ON_PURPOSE};
use serde::Deserialize;
use serde_json::Value;
use sqlx::Row;

use super::read::{LIST_MAX, event_sql};
use super::{Db, DbError, int, uint};
use crate::diagnose::causes::Case;
use crate::diagnose::past::Past;
use crate::fleet::purpose::{OnPurpose, on_purpose};
use crate::fleet::view::Event;

/// Incidents before and after one, by arrival, that may belong to it. What a node held back
/// while hundreds of others arrived is not found.
const NEAR: u64 = 64;

/// Most incidents that are open at a time and looked at.
const OPEN_MAX: i64 = 128;

/// Incidents with the same fault that tell how such a one goes; the newest.
const PAST_MAX: i64 = 2_000;

/// Aggregates of one node around an incident: an hour before, and twenty hours of it.
const SPANS_MAX: i64 = 256;

/// Nodes whose routes are looked at for one incident.
const NODES_MAX: usize = 32;

/// Aggregates whose clock is told by the same records: a day of them.
const PLACED_AT_ONCE: usize = 288;

/// Notes of faults on purpose that are read: each node has one in force at most.
const ON_PURPOSE_MAX: i64 = 256;

/// The longest span of an aggregate: that of a node that was held up.
const SPAN_MS: u64 = 15 * 60_000;

impl Db {
    /// Incidents that arrived around this one, and all that are open.
    ///
    /// # Errors
    /// [`DbError::Statement`], as for all that follow.
    pub async fn cases_near(&self, id: u64) -> Result<Vec<Case>, DbError> {
        let ids: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM incident WHERE id BETWEEN ?1 AND ?2
             UNION
             SELECT * FROM (SELECT incident.id FROM incident
               JOIN node ON node.stream = incident.stream
               WHERE closed_seq IS NULL ORDER BY incident.id DESC LIMIT ?3)",
        )
        .bind(int(id.saturating_sub(NEAR)))
        .bind(int(id.saturating_add(NEAR)))
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
                // Told again by an agent that found it open.
                ("incident-opened", None) => {
                    cases.extend(opened(event).map(|case| (incident, case)));
                }
                ("diagnosed", Some(case)) => {
                    if let Ok(told) = Diagnosed::deserialize(&event.body) {
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
            let ahead: Option<i64> = sqlx::query_scalar(
                "SELECT MAX(hlc_ms - received_ms) FROM event JOIN node ON node.stream = event.stream
                 WHERE node.name = ?1 AND kind = 'telemetry' AND received_ms BETWEEN ?2 AND ?3",
            )
            .bind(node)
            .bind(int(from_ms))
            .bind(int(to_ms.saturating_add(SPAN_MS)))
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

    /// What nodes told in aggregates between two times of arrival: node, end of the span by the
    /// coordinator's clock, body. The newest of each node, at most `most`.
    pub async fn aggregates(
        &self,
        node: &str,
        (from_ms, to_ms): (u64, u64),
        most: u32,
    ) -> Result<Vec<Event>, DbError> {
        let doing = "read aggregates";
        let rows = sqlx::query(event_sql!(
            "WHERE node.name = ?1 AND event.kind = 'telemetry'
               AND event.received_ms BETWEEN ?2 AND ?3 ORDER BY event.id DESC LIMIT ?4"
        ))
        .bind(node)
        .bind(int(from_ms))
        .bind(int(to_ms))
        .bind(i64::from(most))
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut events = Vec::with_capacity(rows.len());
        // A clock is told by the records around, not by those of last month.
        for near in rows.chunks(PLACED_AT_ONCE) {
            events.extend(self.placed(near, doing).await?);
        }
        Ok(events)
    }

    /// How incidents with this fault went, without one of them.
    pub async fn past(&self, fault: &str, except: u64, now_ms: u64) -> Result<Vec<Past>, DbError> {
        let doing = "read how such incidents went";
        let rows = sqlx::query(
            "SELECT node.name, service, symptom, plan, outcome, lasted_ms, detected_after_ms,
               opened_ms, incident.stream AS stream,
               (SELECT MIN(hlc_ms) FROM event WHERE event.stream = incident.stream
                AND event.incident = incident.number AND kind = 'step') AS step_ms,
               (SELECT MAX(hlc_ms - received_ms) FROM event WHERE event.stream = incident.stream
                AND event.seq BETWEEN incident.opened_seq AND incident.opened_seq + 8) AS ahead_ms
             FROM incident JOIN stream ON stream.id = incident.stream
             JOIN node ON node.id = stream.node
             WHERE fault = ?1 AND incident.id <> ?2 AND opened_ms IS NOT NULL
               AND (closed_seq IS NOT NULL OR node.stream = incident.stream)
             ORDER BY incident.id DESC LIMIT ?3",
        )
        .bind(fault)
        .bind(int(except))
        .bind(PAST_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<Past, sqlx::Error> {
            let opened: i64 = row.try_get("opened_ms")?;
            let before: Option<i64> = row.try_get("detected_after_ms")?;
            let first = opened.saturating_sub(before.unwrap_or(0));
            let step: Option<i64> = row.try_get("step_ms")?;
            let lasted: Option<i64> = row.try_get("lasted_ms")?;
            let ahead: Option<i64> = row.try_get("ahead_ms")?;
            let now = int(now_ms).saturating_add(ahead.unwrap_or(0));
            Ok(Past {
                node: row.try_get("name")?,
                service: row.try_get("service")?,
                symptom: row.try_get("symptom")?,
                plan: row.try_get("plan")?,
                acted_after_ms: step.map(|step| uint(step.saturating_sub(first))),
                outcome: row.try_get("outcome")?,
                lasted_ms: uint(lasted.unwrap_or_else(|| now.saturating_sub(first))),
            })
        };
        rows.iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map_err(DbError::on(doing))
    }
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
