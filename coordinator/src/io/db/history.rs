//! What happened across nodes: where events stand in the coordinator's time,
//! what other nodes did in the same while, the fleet's timeline, and what was
//! seen and left alone.
//!
//! A node's clock may be an hour off, or never set. What the coordinator has
//! beside stamps is arrival: a record cannot arrive before it was made. So the
//! least difference between arrival and stamp, over the records around an event,
//! is the offset of that node's clock, too large by the quickest record's delay.
//! Records that waited on a node for the network do not spoil that as long as
//! one nearby did not wait.
//!
//! What this cannot know: the order of events closer together than records of
//! two nodes differ in delay; and where events stand around a step of a node's
//! clock. A clock that is set forward moves the stamps before it too far back;
//! one that is set back leaves the stamps standing until it has caught up,
//! because they never fall. Order within the node stays that of its sequence.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::read::{event, event_sql};
use super::{Db, DbError, int, uint};
use crate::fleet::view::{Event, Incident, IncidentState, LeftAlone, LeftAloneWhy};

/// Records on both sides of an event that tell its node's clock: with one
/// aggregate each 5 minutes some of them come from hours with a connection.
const AROUND_SEQ: u64 = 200;

/// How long before and after an incident another node's events belong to the
/// same while: longer than the timeouts by which one node notices another.
const AROUND_MS: u64 = 30_000;

/// How late another node's records may arrive and still be looked at.
const LATE_MS: u64 = 24 * 3_600_000;

/// Most records of other nodes that are looked at for one incident.
const ELSEWHERE_READ: i64 = 500;

/// Most of them that are shown.
const ELSEWHERE_MAX: usize = 100;

/// Newest events that are searched for what was left alone.
const LEFT_READ: i64 = 500;

/// Most things left alone in one answer.
const LEFT_MAX: usize = 50;

impl Db {
    /// The events in these rows, in their order, each with its `at_ms`.
    pub(super) async fn placed(
        &self,
        rows: &[SqliteRow],
        doing: &'static str,
    ) -> Result<Vec<Event>, DbError> {
        let mut events = rows
            .iter()
            .map(event)
            .collect::<Result<Vec<_>, _>>()
            .map_err(DbError::on(doing))?;
        self.place(&mut events).await?;
        Ok(events)
    }

    /// Sets `at_ms`: the stamp on the coordinator's clock.
    async fn place(&self, events: &mut [Event]) -> Result<(), DbError> {
        let doing = "read when records arrived";
        let mut spans: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for event in events.iter() {
            let span = spans.entry(&event.stream).or_insert((event.seq, event.seq));
            *span = (span.0.min(event.seq), span.1.max(event.seq));
        }
        let asked: Vec<(&str, u64, u64)> = spans
            .into_iter()
            .map(|(stream, (first, last))| {
                let first = first.saturating_sub(AROUND_SEQ);
                (stream, first, last.saturating_add(AROUND_SEQ))
            })
            .collect();
        let rows = sqlx::query(
            "SELECT asked.value ->> 0 AS uid,
               (SELECT MIN(received_ms - hlc_ms) FROM event WHERE event.stream = stream.id
                AND seq BETWEEN asked.value ->> 1 AND asked.value ->> 2) AS shift
             FROM json_each(?1) AS asked JOIN stream ON stream.uid = unhex(asked.value ->> 0)",
        )
        .bind(serde_json::to_string(&asked).unwrap_or_default())
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut shifts: BTreeMap<String, i64> = BTreeMap::new();
        for row in &rows {
            let shift: Option<i64> = row.try_get("shift").map_err(DbError::on(doing))?;
            shifts.insert(
                row.try_get("uid").map_err(DbError::on(doing))?,
                shift.unwrap_or(0),
            );
        }
        for event in events {
            let shift = shifts.get(&event.stream).copied().unwrap_or(0);
            event.at_ms = uint(int(event.hlc_ms).saturating_add(shift));
        }
        Ok(())
    }

    /// What other nodes told of healing while an incident lasted and shortly
    /// before and after, without what `own` already has.
    pub(super) async fn meanwhile(
        &self,
        stream: i64,
        incident: &Incident,
        own: &[Event],
    ) -> Result<Vec<Event>, DbError> {
        let doing = "read what other nodes did";
        let named = || {
            own.iter()
                .filter(|event| event.incident == Some(incident.id))
        };
        let Some(from) = named().map(|event| event.at_ms).min() else {
            return Ok(Vec::new());
        };
        let from = from.saturating_sub(AROUND_MS);
        let through = match incident.state {
            IncidentState::Open => u64::MAX,
            IncidentState::Closed | IncidentState::Abandoned => named()
                .map(|event| event.at_ms)
                .max()
                .map_or(u64::MAX, |last| last.saturating_add(AROUND_MS)),
        };
        let rows = sqlx::query(event_sql!(
            "WHERE kind IN ('incident-opened', 'incident-closed', 'alarm', 'route')
               AND event.stream <> ?1 AND received_ms BETWEEN ?2 AND ?3
             ORDER BY received_ms, event.id LIMIT ?4"
        ))
        .bind(stream)
        .bind(int(from))
        .bind(int(through.saturating_add(LATE_MS)))
        .bind(ELSEWHERE_READ)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut events = self.placed(&rows, doing).await?;
        let known: std::collections::BTreeSet<u64> = own.iter().map(|event| event.cursor).collect();
        events.retain(|event| {
            (from..=through).contains(&event.at_ms) && !known.contains(&event.cursor)
        });
        events.truncate(ELSEWHERE_MAX);
        for event in &mut events {
            event.meanwhile = true;
        }
        Ok(events)
    }

    /// The newest events about healing that arrived before `before`, in no
    /// special order.
    ///
    /// # Errors
    /// [`DbError::Statement`], as for all that follow.
    pub async fn timeline(&self, before: Option<u64>, limit: u32) -> Result<Vec<Event>, DbError> {
        let doing = "read the timeline";
        let rows = sqlx::query(event_sql!(
            "WHERE kind IN ('boot', 'incident-opened', 'decided', 'step', 'incident-closed',
               'alarm', 'route', 'note', 'gap', 'control') AND event.id < ?1
             ORDER BY event.id DESC LIMIT ?2"
        ))
        .bind(before.map_or(i64::MAX, int))
        .bind(i64::from(limit))
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        self.placed(&rows, doing).await
    }

    /// What was seen and not acted upon, newest first, among the newest events
    /// about healing.
    pub async fn left_alone(&self) -> Result<Vec<LeftAlone>, DbError> {
        let doing = "read what was left alone";
        let rows = sqlx::query(
            "SELECT told.*, stream.uid, node.name AS node_name, '[]' AS causes,
               opened.id AS incident_id, opened.service AS opened_service,
               CASE told.kind
                 WHEN 'decided' THEN opened.closed_seq IS NULL AND opened.decided_seq = told.seq
                   AND node.stream IS told.stream
                 WHEN 'alarm' THEN EXISTS (SELECT 1 FROM alarm WHERE alarm.stream = told.stream
                   AND node.stream IS told.stream
                   AND alarm.name = told.body ->> '$.alarm' AND alarm.raised)
                 ELSE 0 END AS stands
             FROM (SELECT * FROM event
                   WHERE kind IN ('boot', 'incident-opened', 'decided', 'step',
                     'incident-closed', 'alarm', 'route', 'note', 'gap', 'control')
                     AND (kind = 'note' OR (kind = 'decided' AND body ->> '$.plan' IS NULL)
                       OR (kind = 'alarm' AND body ->> '$.raised'
                         AND (body ->> '$.alarm' = 'stranger-cpu'
                           OR body ->> '$.alarm' LIKE '%-frozen'
                           OR body ->> '$.alarm' LIKE '%-confidence')))
                   ORDER BY id DESC LIMIT ?1) AS told
             JOIN stream ON stream.id = told.stream JOIN node ON node.id = stream.node
             LEFT JOIN incident AS opened ON opened.stream = told.stream
               AND opened.number = told.incident
             ORDER BY told.id DESC",
        )
        .bind(LEFT_READ)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut events = Vec::new();
        let mut found: Vec<LeftAlone> = Vec::new();
        for row in &rows {
            let read = || -> Result<(Event, LeftAlone), sqlx::Error> {
                let event = event(row)?;
                let mut one = left_alone(&event);
                one.stands = row.try_get("stands")?;
                if one.service.is_none() {
                    one.service = row.try_get("opened_service")?;
                }
                Ok((event, one))
            };
            let (event, one) = read().map_err(DbError::on(doing))?;
            let known = found.iter_mut().find(|known| same(known, &one));
            if let Some(known) = known {
                known.times += 1;
                known.stands |= one.stands;
            } else if found.len() < LEFT_MAX {
                found.push(one);
                events.push(event);
            }
        }
        self.place(&mut events).await?;
        for (one, event) in found.iter_mut().zip(&events) {
            one.at_ms = event.at_ms;
        }
        Ok(found)
    }
}

fn same(a: &LeftAlone, b: &LeftAlone) -> bool {
    (a.node == b.node && a.service == b.service && a.why == b.why && a.name == b.name)
        && a.incident == b.incident
        && (a.why != LeftAloneWhy::Note || a.text == b.text)
}

fn left_alone(event: &Event) -> LeftAlone {
    let text = |value: &Value, field: &str| {
        let text = value.get(field).and_then(Value::as_str);
        text.map(str::to_owned)
    };
    let body = &event.body;
    let mut one = LeftAlone {
        cursor: event.cursor,
        node: event.node.clone(),
        at_ms: event.at_ms,
        service: text(body, "service"),
        why: LeftAloneWhy::Note,
        name: None,
        text: text(body, "text").unwrap_or_default(),
        plan: None,
        incident: event.incident,
        stands: false,
        times: 1,
    };
    match event.kind.as_str() {
        "decided" => {
            let considered = body.get("considered").and_then(Value::as_array);
            let last = considered.and_then(|all| all.last());
            let refusal = last.and_then(|last| last.get("refusal"));
            one.why = LeftAloneWhy::Refused;
            one.plan = last.and_then(|last| text(last, "plan"));
            one.name = refusal.and_then(|refusal| text(refusal, "rule"));
            one.text = refusal
                .and_then(|refusal| text(refusal, "reason"))
                .unwrap_or_else(|| "there was no plan left to try".into());
        }
        "alarm" => {
            one.why = LeftAloneWhy::Alarm;
            one.name = text(body, "alarm");
        }
        _ => {}
    }
    one
}
