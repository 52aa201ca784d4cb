//! What the API asks.
//!
//! Every answer is bounded. Services and alarms are those of a node's present
//! stream: what a former store said no longer holds.

use std::collections::BTreeMap;

use homeostat_common::ids::StreamId;
use homeostat_common::wire::topic::COORDINATOR;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Db, DbError, int, uint};
use crate::fleet::metrics::Gauges;
use crate::fleet::readings::Told;
use crate::fleet::traffic::resolve;
use crate::fleet::view::{
    Alarm, Budget, Event, Incident, IncidentState, Node, Presence, Reference, Route, Service,
};

/// Most nodes, services or alarms in one answer: what a page can show.
pub(super) const LIST_MAX: i64 = 1000;

/// Most events of one incident that are shown. A plan of 8 steps with its
/// evidence has some 40.
const TIMELINE_MAX: usize = 500;

/// Newest records of a node that tell its clock: some of them came at once even
/// from a node that sends its backlog, and a fleet of them is read quickly.
const CLOCK_SEQ: u64 = 64;

/// How far causes are followed back from an incident's own events.
const BACK_MAX: usize = 2;

/// Which incidents.
#[derive(Debug, Clone, Default)]
pub struct IncidentQuery {
    /// Only those that are not over, or only those that are.
    pub open: Option<bool>,
    /// Only of this node.
    pub node: Option<String>,
    /// Only of this service.
    pub service: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<String>,
    /// Only with a smaller number.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only those that arrived after this one.
    pub after: u64,
    /// Only of this node.
    pub node: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// At most so many.
    pub limit: u32,
}

macro_rules! incident_sql {
    ($rest:literal) => {
        concat!(
            "SELECT incident.*, node.name AS node_name, node.site AS node_site,
               node.stream IS NOT incident.stream AS former,
               (SELECT MIN(received_ms - hlc_ms) FROM event
                WHERE event.stream = incident.stream AND event.seq BETWEEN
                  incident.opened_seq - 200 AND incident.opened_seq + 200) AS shift
             FROM incident JOIN stream ON stream.id = incident.stream
             JOIN node ON node.id = stream.node ",
            $rest
        )
    };
}

macro_rules! event_sql {
    ($rest:literal) => {
        concat!(
            "SELECT event.*, stream.uid, node.name AS node_name,
               (SELECT told.id FROM incident AS told WHERE told.stream = event.stream
                AND told.number = event.incident) AS incident_id,
               (SELECT json_group_array(json_array(lower(hex(uid)), seq)) FROM cause
                WHERE effect = event.id) AS causes
             FROM event JOIN stream ON stream.id = event.stream
             JOIN node ON node.id = stream.node ",
            $rest
        )
    };
}

pub(super) use event_sql;

impl Db {
    /// Every node that ever sent a record; presence is left unknown.
    ///
    /// # Errors
    /// [`DbError::Statement`], as for all that follow.
    pub async fn nodes(&self) -> Result<Vec<Node>, DbError> {
        let doing = "read the nodes";
        let rows = sqlx::query(
            "SELECT node.name, node.site, node.seen_ms, stream.uid, stream.acked, stream.top,
               stream.version, stream.clock, stream.booted_ms, stream.backlog,
               (SELECT MAX(hlc_ms - received_ms) FROM event WHERE event.stream = stream.id
                AND event.seq > stream.top - ?2) AS ahead,
               stream.top - stream.acked - (SELECT COUNT(*) FROM event
                 WHERE event.stream = stream.id AND event.seq > stream.acked) AS missing,
               (SELECT COALESCE(SUM(last - first + 1), 0) FROM gap
                WHERE gap.stream = stream.id) AS lost
             FROM node LEFT JOIN stream ON stream.id = node.stream
             ORDER BY node.site, node.name LIMIT ?1",
        )
        .bind(LIST_MAX)
        .bind(int(CLOCK_SEQ))
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut routes: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        for route in self.routes(None).await? {
            routes.entry(route.node.clone()).or_default().push(route);
        }
        let mut budgets: BTreeMap<String, Vec<Budget>> = BTreeMap::new();
        for budget in self.budgets().await? {
            budgets.entry(budget.node.clone()).or_default().push(budget);
        }
        let mut services: BTreeMap<String, Vec<Service>> = BTreeMap::new();
        for service in self.services(None).await? {
            services
                .entry(service.node.clone())
                .or_default()
                .push(service);
        }
        rows.iter()
            .map(|row| {
                let node: String = row.try_get("name")?;
                Ok(Node {
                    site: row.try_get("site")?,
                    presence: Presence::Unknown,
                    presence_since_ms: None,
                    seen_ms: Some(number(row, "seen_ms")?),
                    version: row.try_get("version")?,
                    clock: row.try_get("clock")?,
                    clock_ahead_ms: row.try_get("ahead")?,
                    booted_ms: maybe(row, "booted_ms")?,
                    stream: Some(hex(row.try_get("uid")?)),
                    acked: number(row, "acked")?,
                    top: number(row, "top")?,
                    missing: number(row, "missing")?,
                    lost: number(row, "lost")?,
                    backlog: maybe(row, "backlog")?,
                    services: services.remove(&node).unwrap_or_default(),
                    routes: routes.remove(&node).unwrap_or_default(),
                    budgets: budgets.remove(&node).unwrap_or_default(),
                    node,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(DbError::on(doing))
    }

    /// What each node has measured, by the newest telemetry that came since `from_ms`.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn readings(&self, from_ms: u64) -> Result<Vec<(String, Told)>, DbError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT node.name, event.body FROM node JOIN stream ON stream.id = node.stream
             JOIN event ON event.stream = stream.id AND event.seq = stream.backlog_seq
             WHERE event.kind = 'telemetry' AND event.received_ms >= ?1
             ORDER BY node.site, node.name LIMIT ?2",
        )
        .bind(int(from_ms))
        .bind(LIST_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on("read what nodes measure"))?;
        // One of another version says nothing that is understood.
        let told = |(node, body): (String, String)| Some((node, serde_json::from_str(&body).ok()?));
        Ok(rows.into_iter().filter_map(told).collect())
    }

    /// The services, of one node or of all.
    pub async fn services(&self, node: Option<&str>) -> Result<Vec<Service>, DbError> {
        sqlx::query_as(
            "SELECT node.name AS node, service.name AS service, state, since_ms, instance, exit
             FROM node JOIN service ON service.stream = node.stream
             WHERE ?1 IS NULL OR node.name = ?1 ORDER BY node.site, node.name, service.name
             LIMIT ?2",
        )
        .bind(node)
        .bind(LIST_MAX * 8)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on("read the services"))
    }

    /// The routes, of one node or of all, and where they lead.
    pub async fn routes(&self, node: Option<&str>) -> Result<Vec<Route>, DbError> {
        let doing = "read the routes";
        let rows = sqlx::query(
            "SELECT node.name AS node, route.name AS route, listen, reached, callers, backends,
               since_ms
             FROM node JOIN route ON route.stream = node.stream
             ORDER BY node.site, node.name, route.name LIMIT ?1",
        )
        .bind(LIST_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut routes = rows
            .iter()
            .map(|row| {
                Ok(Route {
                    node: row.try_get("node")?,
                    route: row.try_get("route")?,
                    listen: row.try_get("listen")?,
                    callers: serde_json::from_str(row.try_get("callers")?).map_err(broken)?,
                    reached: row.try_get("reached")?,
                    since_ms: number(row, "since_ms")?,
                    backends: serde_json::from_str(row.try_get("backends")?).map_err(broken)?,
                })
            })
            .collect::<Result<Vec<_>, sqlx::Error>>()
            .map_err(DbError::on(doing))?;
        resolve(&mut routes, &self.services(None).await?);
        routes.retain(|route| node.is_none_or(|node| node == route.node));
        Ok(routes)
    }

    /// The alarms; those that are raised and critical first.
    pub async fn alarms(&self, raised: Option<bool>) -> Result<Vec<Alarm>, DbError> {
        sqlx::query_as(
            "SELECT * FROM (
               SELECT node.name AS node, alarm.name AS alarm, service, severity, raised, since_ms,
                 text, NULL AS acked, NULL AS source
               FROM node JOIN alarm ON alarm.stream = node.stream
               UNION ALL
               SELECT ?3, name, NULL, severity, raised, since_ms, text, acked, NULL FROM own_alarm
               UNION ALL
               SELECT COALESCE(node, ?3), name, service, severity, raised, since_ms, text, NULL,
                 source FROM outside_alarm)
             WHERE ?1 IS NULL OR raised = ?1
             ORDER BY raised DESC, CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1
               ELSE 2 END, since_ms DESC, node, alarm LIMIT ?2",
        )
        .bind(raised)
        .bind(LIST_MAX)
        .bind(COORDINATOR)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on("read the alarms"))
    }

    /// A page of incidents, newest first.
    pub async fn incidents(&self, query: &IncidentQuery) -> Result<Vec<Incident>, DbError> {
        let doing = "read the incidents";
        let rows = sqlx::query(incident_sql!(
            "WHERE (?1 IS NULL OR (?1 = (closed_seq IS NULL AND node.stream IS incident.stream)))
               AND (?2 IS NULL OR node.name = ?2) AND (?3 IS NULL OR service = ?3)
               AND (?4 IS NULL OR outcome = ?4) AND (?5 IS NULL OR incident.id < ?5)
             ORDER BY incident.id DESC LIMIT ?6"
        ))
        .bind(query.open)
        .bind(&query.node)
        .bind(&query.service)
        .bind(&query.outcome)
        .bind(query.before.map(int))
        .bind(i64::from(query.limit))
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        rows.iter()
            .map(incident)
            .collect::<Result<_, _>>()
            .map_err(DbError::on(doing))
    }

    /// One incident and everything that belongs to it, in no special order;
    /// `None` if there is no such incident, `true` if it was cut for length.
    pub async fn incident(&self, id: u64) -> Result<Option<(Incident, Vec<Event>, bool)>, DbError> {
        let doing = "read an incident";
        let row = sqlx::query(incident_sql!("WHERE incident.id = ?1"))
            .bind(int(id))
            .fetch_optional(&self.read)
            .await
            .map_err(DbError::on(doing))?;
        let Some(row) = row else { return Ok(None) };
        let found = incident(&row).map_err(DbError::on(doing))?;
        let stream: i64 = row.get("stream");
        let own: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM event WHERE stream = ?1 AND incident = ?2 ORDER BY seq LIMIT ?3",
        )
        .bind(stream)
        .bind(int(found.number))
        .bind(int(TIMELINE_MAX as u64))
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut ids = own.clone();
        // What followed from it, but is no part of another incident.
        ids.extend(
            sqlx::query_scalar::<_, i64>(
                "SELECT DISTINCT effect.id FROM event JOIN stream ON stream.id = event.stream
                 JOIN cause ON cause.uid = stream.uid AND cause.seq = event.seq
                 JOIN event AS effect ON effect.id = cause.effect
                 WHERE event.id IN (SELECT value FROM json_each(?1)) AND effect.incident IS NULL
                 ORDER BY effect.id LIMIT ?2",
            )
            .bind(json(&own))
            .bind(int(TIMELINE_MAX as u64))
            .fetch_all(&self.read)
            .await
            .map_err(DbError::on(doing))?,
        );
        // What led to it.
        let mut last = own;
        for _ in 0..BACK_MAX {
            last = sqlx::query_scalar(
                "SELECT DISTINCT event.id FROM cause JOIN stream ON stream.uid = cause.uid
                 JOIN event ON event.stream = stream.id AND event.seq = cause.seq
                 WHERE cause.effect IN (SELECT value FROM json_each(?1))
                 ORDER BY event.id LIMIT ?2",
            )
            .bind(json(&last))
            .bind(int(TIMELINE_MAX as u64))
            .fetch_all(&self.read)
            .await
            .map_err(DbError::on(doing))?;
            ids.extend(&last);
        }
        let mut seen = std::collections::BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
        let cut = ids.len() > TIMELINE_MAX;
        ids.truncate(TIMELINE_MAX);
        let rows = sqlx::query(event_sql!(
            "WHERE event.id IN (SELECT value FROM json_each(?1))"
        ))
        .bind(json(&ids))
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let mut events = self.placed(&rows, doing).await?;
        let elsewhere = self.meanwhile(stream, &found, &events).await?;
        events.extend(elsewhere);
        Ok(Some((found, events, cut)))
    }

    /// Events in order of arrival.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<Event>, DbError> {
        let doing = "read events";
        let rows = sqlx::query(event_sql!(
            "WHERE event.id > ?1 AND (?2 IS NULL OR node.name = ?2) AND (?3 IS NULL OR kind = ?3)
             ORDER BY event.id LIMIT ?4"
        ))
        .bind(int(query.after))
        .bind(&query.node)
        .bind(&query.kind)
        .bind(i64::from(query.limit))
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        self.placed(&rows, doing).await
    }

    /// Number of the last event stored.
    pub async fn cursor(&self) -> Result<u64, DbError> {
        sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM event")
            .fetch_one(&self.read)
            .await
            .map(uint)
            .map_err(DbError::on("read the last event's number"))
    }

    /// What `/metrics` and the summary ask; presence is left out.
    pub async fn gauges(&self) -> Result<Gauges, DbError> {
        let doing = "count";
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM node) AS nodes,
               (SELECT COUNT(*) FROM incident JOIN stream ON stream.id = incident.stream
                JOIN node ON node.stream = stream.id WHERE closed_seq IS NULL) AS open,
               (SELECT COUNT(*) FROM node JOIN alarm ON alarm.stream = node.stream
                WHERE raised) + (SELECT COUNT(*) FROM own_alarm WHERE raised)
                 + (SELECT COUNT(*) FROM outside_alarm WHERE raised) AS alarms,
               (SELECT COUNT(*) FROM saga WHERE ended_ms IS NULL) AS plans,
               (SELECT COUNT(*) FROM saga WHERE flag IS NOT NULL
                AND (ended_ms IS NULL OR phase = 'stuck')) AS flagged,
               (SELECT COALESCE(MAX(top - acked), 0) FROM node
                JOIN stream ON stream.id = node.stream) AS lag,
               (SELECT COALESCE(SUM(last - first + 1), 0) FROM gap) AS lost",
        )
        .fetch_one(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        let read = || {
            Ok(Gauges {
                nodes: number(&row, "nodes")?,
                online: 0,
                open_incidents: number(&row, "open")?,
                alarms: number(&row, "alarms")?,
                plans: number(&row, "plans")?,
                flagged: number(&row, "flagged")?,
                ack_lag: number(&row, "lag")?,
                lost: number(&row, "lost")?,
                broker: false,
            })
        };
        read().map_err(DbError::on(doing))
    }
}

fn broken(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column)
        .map(|value| uint(value.unwrap_or(0)))
}

fn maybe(row: &SqliteRow, column: &str) -> Result<Option<u64>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column)
        .map(|value| value.map(uint))
}

fn json(ids: &[i64]) -> String {
    serde_json::to_string(ids).unwrap_or_default()
}

fn hex(uid: &[u8]) -> String {
    uid.try_into()
        .map(|uid| StreamId(uid).to_string())
        .unwrap_or_default()
}

fn incident(row: &SqliteRow) -> Result<Incident, sqlx::Error> {
    let closed = row.try_get::<Option<i64>, _>("closed_seq")?.is_some();
    let state = match (closed, row.try_get("former")?) {
        (true, _) => IncidentState::Closed,
        (false, false) => IncidentState::Open,
        (false, true) => IncidentState::Abandoned,
    };
    let first_ms = number(row, "first_ms")?;
    let opened_ms = maybe(row, "opened_ms")?.unwrap_or(first_ms);
    let shift: Option<i64> = row.try_get("shift")?;
    Ok(Incident {
        id: number(row, "id")?,
        number: number(row, "number")?,
        node: row.try_get("node_name")?,
        site: row.try_get("node_site")?,
        state,
        opened_ms,
        opened_at_ms: uint(int(opened_ms).saturating_add(shift.unwrap_or(0))),
        closed_ms: maybe(row, "closed_ms")?,
        service: row.try_get("service")?,
        symptom: row.try_get("symptom")?,
        fault: row.try_get("fault")?,
        confidence: row.try_get("confidence")?,
        detected_after_ms: maybe(row, "detected_after_ms")?,
        connected: row.try_get("connected")?,
        plan: row.try_get("plan")?,
        source: row.try_get("source")?,
        refusals: number(row, "refusals")?,
        why: row.try_get("why")?,
        cost: row.try_get("cost")?,
        balance: row.try_get("balance")?,
        health: row.try_get("health")?,
        predicted: row.try_get("predicted")?,
        step: row.try_get("step")?,
        phase: row.try_get("phase")?,
        step_health: row.try_get("step_health")?,
        step_predicted: row.try_get("step_predicted")?,
        outcome: row.try_get("outcome")?,
        lasted_ms: maybe(row, "lasted_ms")?,
        spent: row.try_get("spent")?,
        summary: row.try_get("summary")?,
        group: None,
    })
}

pub(super) fn event(row: &SqliteRow) -> Result<Event, sqlx::Error> {
    let causes: Vec<(String, u64)> =
        serde_json::from_str(row.try_get("causes")?).map_err(broken)?;
    Ok(Event {
        cursor: number(row, "id")?,
        node: row.try_get("node_name")?,
        stream: hex(row.try_get("uid")?),
        seq: number(row, "seq")?,
        kind: row.try_get("kind")?,
        hlc_ms: number(row, "hlc_ms")?,
        hlc_count: number(row, "hlc_count")?,
        received_ms: number(row, "received_ms")?,
        at_ms: number(row, "hlc_ms")?,
        incident: maybe(row, "incident_id")?,
        meanwhile: false,
        aside: false,
        causes: causes
            .into_iter()
            .map(|(stream, seq)| Reference { stream, seq })
            .collect(),
        body: serde_json::from_str(row.try_get("body")?).map_err(broken)?,
        relation: None,
    })
}
