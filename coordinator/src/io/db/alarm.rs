//! Which alarms stand, and since when.
//!
//! An alarm stands since its first raise, however often it is repeated, until
//! its own record clears it or the agent starts: what still holds then is raised
//! again. Records arrive in any order; one that is late finds every event behind
//! itself still stored, because only the acknowledged run is ever forgotten.

use homeostat_common::wire::body::Alarm;
use sqlx::SqliteConnection;

use super::project::At;

/// An alarm's record.
pub(super) async fn told(
    db: &mut SqliteConnection,
    at: At,
    body: &Alarm,
    severity: &str,
) -> Result<(), sqlx::Error> {
    let known: Option<(i64, bool, i64)> =
        sqlx::query_as("SELECT seq, raised, since_seq FROM alarm WHERE stream = ?1 AND name = ?2")
            .bind(at.stream)
            .bind(&body.alarm)
            .fetch_optional(&mut *db)
            .await?;
    let stands = known.is_some_and(|(_, raised, _)| raised);
    match known {
        Some((seq, _, since)) if seq > at.seq => {
            if stands {
                late(db, at, body, since).await?;
            }
            return Ok(());
        }
        _ => {}
    }
    let boot: Option<(i64, i64)> = sqlx::query_as(
        "SELECT seq, hlc_ms FROM event WHERE stream = ?1 AND seq > ?2 AND kind = 'boot'
         ORDER BY seq LIMIT 1",
    )
    .bind(at.stream)
    .bind(at.seq)
    .fetch_optional(&mut *db)
    .await?;
    let (raised, since) = match boot {
        Some(boot) if body.raised => (false, Some(boot)),
        None if body.raised && stands => (true, None),
        _ => (body.raised, Some((at.seq, at.ms))),
    };
    let (since_seq, since_ms) = since.unwrap_or((at.seq, at.ms));
    sqlx::query(
        "INSERT INTO alarm(stream, name, seq, service, severity, raised, since_seq, since_ms, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT DO UPDATE SET seq = excluded.seq, service = excluded.service,
           severity = excluded.severity, raised = excluded.raised, text = excluded.text,
           since_seq = CASE WHEN ?10 THEN since_seq ELSE excluded.since_seq END,
           since_ms = CASE WHEN ?10 THEN since_ms ELSE excluded.since_ms END",
    )
    .bind(at.stream)
    .bind(&body.alarm)
    .bind(at.seq)
    .bind(body.service.as_ref().map(|service| service.as_str()))
    .bind(severity)
    .bind(raised)
    .bind(since_seq)
    .bind(since_ms)
    .bind(&body.text)
    .bind(since.is_none())
    .execute(db)
    .await?;
    Ok(())
}

/// A record older than the last one of an alarm that stands since `since`.
async fn late(
    db: &mut SqliteConnection,
    at: At,
    body: &Alarm,
    since: i64,
) -> Result<(), sqlx::Error> {
    if !body.raised {
        return if at.seq > since {
            stands_after(db, at.stream, &body.alarm, at.seq).await
        } else {
            Ok(())
        };
    }
    sqlx::query(
        "UPDATE alarm SET since_seq = ?3, since_ms = ?4
         WHERE stream = ?1 AND name = ?2 AND since_seq > ?3 AND NOT EXISTS (
           SELECT 1 FROM event
           WHERE event.stream = ?1 AND event.seq > ?3 AND event.seq < ?5
             AND (kind = 'boot' OR (kind = 'alarm' AND body ->> '$.alarm' = ?2
               AND NOT body ->> '$.raised')))",
    )
    .bind(at.stream)
    .bind(&body.alarm)
    .bind(at.seq)
    .bind(at.ms)
    .bind(since)
    .execute(db)
    .await?;
    Ok(())
}

/// The agent started: nothing that was raised before stands.
pub(super) async fn started(db: &mut SqliteConnection, at: At) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE alarm SET raised = 0, since_seq = ?2, since_ms = ?3
         WHERE stream = ?1 AND seq < ?2 AND (raised OR since_seq > ?2)",
    )
    .bind(at.stream)
    .bind(at.seq)
    .bind(at.ms)
    .execute(&mut *db)
    .await?;
    let over: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM alarm WHERE stream = ?1 AND raised AND since_seq < ?2 AND seq > ?2",
    )
    .bind(at.stream)
    .bind(at.seq)
    .fetch_all(&mut *db)
    .await?;
    for name in over {
        stands_after(db, at.stream, &name, at.seq).await?;
    }
    Ok(())
}

/// What cleared it came late: it stands since the first raise behind that.
async fn stands_after(
    db: &mut SqliteConnection,
    stream: i64,
    name: &str,
    cleared: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE alarm SET since_seq = first.seq, since_ms = first.hlc_ms
         FROM (SELECT seq, hlc_ms FROM event
               WHERE stream = ?1 AND seq > ?3 AND kind = 'alarm'
                 AND body ->> '$.alarm' = ?2 AND body ->> '$.raised'
               ORDER BY seq LIMIT 1) AS first
         WHERE alarm.stream = ?1 AND alarm.name = ?2",
    )
    .bind(stream)
    .bind(name)
    .bind(cleared)
    .execute(db)
    .await?;
    Ok(())
}
