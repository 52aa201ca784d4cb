//! Forgets what is older than the operator wants to keep.
//!
//! An event is forgotten only below its stream's acknowledged run, so that a
//! late duplicate is still known as one, and never while its incident is open.

use super::{Db, DbError, int};

/// Rows deleted in one transaction, so that ingest never waits long.
const ROWS_AT_ONCE: i64 = 2000;

impl Db {
    /// Deletes what was received before `cutoff_ms`; how many events that were.
    ///
    /// # Errors
    /// [`DbError::Statement`]; what was deleted until then stays deleted.
    pub async fn forget(&self, cutoff_ms: u64) -> Result<u64, DbError> {
        let doing = "delete what is too old";
        let mut events = 0;
        loop {
            let deleted = sqlx::query(
                "DELETE FROM event WHERE id IN (
                   SELECT event.id FROM event JOIN stream ON stream.id = event.stream
                   LEFT JOIN incident ON incident.stream = event.stream
                     AND incident.number = event.incident
                   WHERE event.received_ms < ?1 AND event.seq <= stream.acked
                     AND (incident.id IS NULL OR incident.closed_seq IS NOT NULL)
                   LIMIT ?2)",
            )
            .bind(int(cutoff_ms))
            .bind(ROWS_AT_ONCE)
            .execute(&self.write)
            .await
            .map_err(DbError::on(doing))?
            .rows_affected();
            events += deleted;
            if deleted == 0 {
                break;
            }
        }
        // An incident goes with its last event; a gap that is passed says
        // nothing that `acked` does not.
        for statement in [
            "DELETE FROM incident WHERE closed_seq IS NOT NULL AND NOT EXISTS (
               SELECT 1 FROM event WHERE event.stream = incident.stream
                 AND event.incident = incident.number)",
            "DELETE FROM alarm WHERE NOT raised AND NOT EXISTS (
               SELECT 1 FROM event WHERE event.stream = alarm.stream AND event.seq = alarm.seq)",
        ] {
            sqlx::query(statement)
                .execute(&self.write)
                .await
                .map_err(DbError::on(doing))?;
        }
        sqlx::query("DELETE FROM outside_alarm WHERE NOT raised AND ended_ms < ?1")
            .bind(int(cutoff_ms))
            .execute(&self.write)
            .await
            .map_err(DbError::on(doing))?;
        self.forget_sagas(cutoff_ms).await?;
        Ok(events)
    }
}
