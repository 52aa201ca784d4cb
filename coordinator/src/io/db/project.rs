//! The effect of a record: what the tables of incidents, services, alarms and
//! streams say after it.
//!
//! Records may arrive in any order, so every statement here commutes: where two
//! records speak of the same field, the sequence number decides, never the
//! arrival.

use homeostat_common::observation::Metric;
use homeostat_common::outcome::Outcome;
use homeostat_common::wire::body::{
    Boot, ClockQuality, Decided, Gap, IncidentClosed, IncidentOpened, Phase, RouteChange,
    ServiceChange, ServiceState, Severity, Source, Step, StepCost, Telemetry, Topology,
};
use homeostat_common::wire::{Body, Envelope};
use sqlx::SqliteConnection;

use super::{alarm, budget, int, uint};

/// What else follows from a record.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) incident: Option<u64>,
    pub(super) closed: Option<(Outcome, u64)>,
    pub(super) charged: Vec<StepCost>,
}

/// The incident that a body names.
pub(super) fn incident_number(body: &Body) -> Option<i64> {
    let incident = match body {
        Body::IncidentOpened(body) => body.incident,
        Body::Decided(body) => body.incident,
        Body::Step(body) => body.incident,
        Body::IncidentClosed(body) => body.incident,
        Body::Charge(body) => body.incident,
        Body::Diagnosed(body) => body.incident,
        Body::Joined(body) => body.incident,
        Body::Control(body) => return body.incident.map(|incident| int(incident.0)),
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
        | Body::Unknown { .. } => return None,
    };
    Some(int(incident.0))
}

/// The body as it is shown, without the name of its kind around it.
pub(super) fn body_json(body: &Body) -> Result<String, sqlx::Error> {
    let value = serde_json::to_value(body).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let inner = match value {
        serde_json::Value::Object(map) => map.into_iter().next().map(|(_, inner)| inner),
        _ => None,
    };
    Ok(inner.unwrap_or_default().to_string())
}

pub(super) fn service_state(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Starting => "starting",
        ServiceState::Healthy => "healthy",
        ServiceState::Unhealthy => "unhealthy",
        ServiceState::Down => "down",
        ServiceState::Standby => "standby",
        ServiceState::Paused => "paused",
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Reflex => "reflex",
        Source::Playbook => "playbook",
        Source::Resumed => "resumed",
        Source::Operator => "operator",
    }
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn clock(clock: ClockQuality) -> &'static str {
    match clock {
        ClockQuality::Plausible => "plausible",
        ClockQuality::BehindFloor => "behind_floor",
        ClockQuality::NeverSet => "never_set",
    }
}

pub(super) async fn apply(
    db: &mut SqliteConnection,
    stream: i64,
    envelope: &Envelope,
) -> Result<Effect, sqlx::Error> {
    let mut effect = Effect::default();
    if let Some(number) = incident_number(&envelope.body) {
        effect.incident = Some(enter(db, stream, number, envelope).await?);
    }
    let at = At {
        stream,
        seq: int(envelope.seq),
        ms: int(envelope.hlc.unix_ms()),
    };
    match &envelope.body {
        Body::IncidentOpened(body) => opened(db, at, body).await?,
        Body::Decided(body) => decided(db, at, body).await?,
        Body::Step(body) => step(db, at, body).await?,
        Body::IncidentClosed(body) => {
            if closed(db, at, body).await? {
                effect.closed = Some((body.outcome, body.lasted.0));
            }
        }
        Body::ServiceChange(body) => service(db, at, body).await?,
        Body::Alarm(body) => alarm::told(db, at, body, severity(body.severity)).await?,
        Body::Gap(body) => gap(db, at, body).await?,
        Body::Boot(body) => {
            boot(db, at, body).await?;
            alarm::started(db, at).await?;
        }
        Body::Telemetry(body) => telemetry(db, at, body).await?,
        Body::RouteChange(body) => route(db, at, body).await?,
        Body::Topology(body) => topology(db, at, body).await?,
        Body::Budgets(body) => {
            for one in &body.classes {
                budget::told(db, at, one).await?;
            }
        }
        Body::Charge(body) => {
            budget::told(db, at, &body.budget).await?;
            effect.charged.clone_from(&body.steps);
        }
        Body::Observation(_)
        | Body::Note(_)
        | Body::Control(_)
        | Body::State(_)
        | Body::Diagnosed(_)
        | Body::Joined(_)
        | Body::Unknown { .. } => {}
    }
    Ok(effect)
}

#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) stream: i64,
    pub(super) seq: i64,
    pub(super) ms: i64,
}

/// The incident's row, whichever of its records comes first.
async fn enter(
    db: &mut SqliteConnection,
    stream: i64,
    number: i64,
    envelope: &Envelope,
) -> Result<u64, sqlx::Error> {
    // Not an upsert: that would use up a number each time, and people read them.
    let known: Option<i64> = sqlx::query_scalar(
        "UPDATE incident SET first_ms = MIN(first_ms, ?3) WHERE stream = ?1 AND number = ?2
         RETURNING id",
    )
    .bind(stream)
    .bind(number)
    .bind(int(envelope.hlc.unix_ms()))
    .fetch_optional(&mut *db)
    .await?;
    let id =
        match known {
            Some(id) => id,
            None => sqlx::query_scalar(
                "INSERT INTO incident(stream, number, first_ms) VALUES (?1, ?2, ?3) RETURNING id",
            )
            .bind(stream)
            .bind(number)
            .bind(int(envelope.hlc.unix_ms()))
            .fetch_one(&mut *db)
            .await?,
        };
    Ok(uint(id))
}

async fn opened(
    db: &mut SqliteConnection,
    at: At,
    body: &IncidentOpened,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE incident SET opened_seq = ?3, opened_ms = ?4, service = ?5,
           detected_after_ms = ?6, connected = ?7
         WHERE stream = ?1 AND number = ?2 AND (opened_seq IS NULL OR opened_seq > ?3)",
    )
    .bind(at.stream)
    .bind(int(body.incident.0))
    .bind(at.seq)
    .bind(at.ms)
    .bind(body.service.as_str())
    .bind(int(body.detected_after.0))
    .bind(body.connected)
    .execute(&mut *db)
    .await?;
    // A closer look is told under the same number: the first says when, the last what.
    sqlx::query(
        "UPDATE incident SET fault_seq = ?3, symptom = ?4, fault = ?5, confidence = ?6
         WHERE stream = ?1 AND number = ?2 AND (fault_seq IS NULL OR fault_seq < ?3)",
    )
    .bind(at.stream)
    .bind(int(body.incident.0))
    .bind(at.seq)
    .bind(body.symptom.to_string())
    .bind(body.fault.to_string())
    .bind(body.confidence)
    .execute(db)
    .await?;
    Ok(())
}

async fn decided(db: &mut SqliteConnection, at: At, body: &Decided) -> Result<(), sqlx::Error> {
    let chosen = body
        .considered
        .iter()
        .rev()
        .find(|option| option.refusal.is_none())
        .filter(|_| body.plan.is_some());
    let refusals = body
        .considered
        .iter()
        .filter_map(|option| option.refusal.as_ref());
    let why = refusals
        .clone()
        .next_back()
        .filter(|_| chosen.is_none())
        .map(|refusal| format!("{}: {}", refusal.rule, refusal.reason));
    sqlx::query(
        "UPDATE incident SET decided_seq = ?3, refusals = ?4, why = ?5, cost = ?6, balance = ?7,
           health = ?8, predicted = ?9
         WHERE stream = ?1 AND number = ?2 AND (decided_seq IS NULL OR decided_seq < ?3)",
    )
    .bind(at.stream)
    .bind(int(body.incident.0))
    .bind(at.seq)
    .bind(int(refusals.count() as u64))
    .bind(why)
    .bind(body.cost)
    .bind(body.balance)
    .bind(body.health)
    .bind(body.predicted)
    .execute(&mut *db)
    .await?;
    // That nothing more may be done takes nothing back of what was.
    if let Some(chosen) = chosen {
        sqlx::query(
            "UPDATE incident SET plan_seq = ?3, plan = ?4, source = ?5
             WHERE stream = ?1 AND number = ?2 AND (plan_seq IS NULL OR plan_seq < ?3)",
        )
        .bind(at.stream)
        .bind(int(body.incident.0))
        .bind(at.seq)
        .bind(chosen.plan.as_str())
        .bind(source(chosen.source))
        .execute(db)
        .await?;
    }
    Ok(())
}

async fn step(db: &mut SqliteConnection, at: At, body: &Step) -> Result<(), sqlx::Error> {
    let phase = match &body.phase {
        Phase::Started => "started".to_owned(),
        Phase::Done => "done".to_owned(),
        Phase::Failed(why) => format!("failed: {why}"),
        Phase::Undone => "undone".to_owned(),
    };
    sqlx::query(
        "UPDATE incident SET step_seq = ?3, step = ?4, phase = ?5, step_health = ?6,
           step_predicted = ?7
         WHERE stream = ?1 AND number = ?2 AND (step_seq IS NULL OR step_seq < ?3)",
    )
    .bind(at.stream)
    .bind(int(body.incident.0))
    .bind(at.seq)
    .bind(&body.primitive)
    .bind(phase)
    .bind(body.health)
    .bind(body.predicted)
    .execute(db)
    .await?;
    Ok(())
}

/// `true` for the first end that is stored.
async fn closed(
    db: &mut SqliteConnection,
    at: At,
    body: &IncidentClosed,
) -> Result<bool, sqlx::Error> {
    let open: bool = sqlx::query_scalar(
        "SELECT closed_seq IS NULL FROM incident WHERE stream = ?1 AND number = ?2",
    )
    .bind(at.stream)
    .bind(int(body.incident.0))
    .fetch_one(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE incident SET closed_seq = ?3, closed_ms = ?4, outcome = ?5, lasted_ms = ?6,
           spent = ?7, summary = ?8
         WHERE stream = ?1 AND number = ?2 AND (closed_seq IS NULL OR closed_seq > ?3)",
    )
    .bind(at.stream)
    .bind(int(body.incident.0))
    .bind(at.seq)
    .bind(at.ms)
    .bind(body.outcome.to_string())
    .bind(int(body.lasted.0))
    .bind(body.cost)
    .bind(&body.summary)
    .execute(db)
    .await?;
    Ok(open)
}

async fn service(
    db: &mut SqliteConnection,
    at: At,
    body: &ServiceChange,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO service(stream, name, seq, state, instance, exit, since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET seq = excluded.seq, state = excluded.state,
           instance = excluded.instance, exit = excluded.exit,
           since_ms = excluded.since_ms
         WHERE excluded.seq > seq",
    )
    .bind(at.stream)
    .bind(body.service.as_str())
    .bind(at.seq)
    .bind(service_state(body.state))
    .bind(body.instance.map(|instance| int(instance.0)))
    .bind(body.exit.map(|exit| exit.to_string()))
    .bind(at.ms)
    .execute(db)
    .await?;
    Ok(())
}

/// The whole route as it is now: the newest word replaces the one before.
async fn route(db: &mut SqliteConnection, at: At, body: &RouteChange) -> Result<(), sqlx::Error> {
    let broken = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    sqlx::query(
        "INSERT INTO route(stream, name, seq, listen, reached, callers, backends, since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET seq = excluded.seq, listen = excluded.listen,
           reached = excluded.reached, callers = excluded.callers,
           backends = excluded.backends, since_ms = excluded.since_ms
         WHERE excluded.seq > seq",
    )
    .bind(at.stream)
    .bind(body.route.as_str())
    .bind(at.seq)
    .bind(&body.listen)
    .bind(body.reached)
    .bind(serde_json::to_string(&body.callers).map_err(broken)?)
    .bind(serde_json::to_string(&body.backends).map_err(broken)?)
    .bind(at.ms)
    .execute(db)
    .await?;
    Ok(())
}

/// The whole of it: the newest word replaces the one before.
async fn topology(db: &mut SqliteConnection, at: At, body: &Topology) -> Result<(), sqlx::Error> {
    let edges = serde_json::to_string(&body.edges);
    sqlx::query(
        "INSERT INTO topology(stream, seq, edges, left_out) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET seq = excluded.seq, edges = excluded.edges,
           left_out = excluded.left_out
         WHERE excluded.seq > seq",
    )
    .bind(at.stream)
    .bind(at.seq)
    .bind(edges.map_err(|error| sqlx::Error::Encode(error.into()))?)
    .bind(int(u64::from(body.left_out)))
    .execute(db)
    .await?;
    Ok(())
}

async fn gap(db: &mut SqliteConnection, at: At, body: &Gap) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR IGNORE INTO gap(stream, first, last, heal) VALUES (?1, ?2, ?3, ?4)")
        .bind(at.stream)
        .bind(int(body.from))
        .bind(int(body.through))
        .bind(int(body.heal))
        .execute(db)
        .await?;
    Ok(())
}

async fn boot(db: &mut SqliteConnection, at: At, body: &Boot) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE stream SET boot_seq = ?2, booted_ms = ?3, version = ?4, clock = ?5
         WHERE id = ?1 AND boot_seq < ?2",
    )
    .bind(at.stream)
    .bind(at.seq)
    .bind(at.ms)
    .bind(&body.version)
    .bind(clock(body.clock))
    .execute(db)
    .await?;
    Ok(())
}

/// What the node itself says is waiting there.
/// Remembers which telemetry is the newest, and how many records wait by it.
async fn telemetry(db: &mut SqliteConnection, at: At, body: &Telemetry) -> Result<(), sqlx::Error> {
    let backlog = body.series.iter().find(|series| {
        series.service.is_none() && Metric::from_number(series.metric) == Some(Metric::Backlog)
    });
    sqlx::query(
        "UPDATE stream SET backlog_seq = ?2, backlog = CAST(?3 AS INTEGER)
         WHERE id = ?1 AND backlog_seq < ?2",
    )
    .bind(at.stream)
    .bind(at.seq)
    .bind(backlog.map(|series| f64::from(series.max)))
    .execute(db)
    .await?;
    Ok(())
}
