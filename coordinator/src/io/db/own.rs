//! Alarms that are the coordinator's own.
//!
//! They change in the transaction of what they are about, so that no crash falls in
//! between. When people are told of them is for `control/alarms`.

use homeostat_common::wire::body::Severity;
use sqlx::SqliteConnection;

use super::project::severity;
use super::read::LIST_MAX;
use super::{Db, DbError, int};

/// The alarm of a plan across nodes is this and its number.
const OF_SAGA: &str = "saga-";

/// One that stands, or whose end people were not told of yet.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OwnAlarm {
    /// Which occurrence.
    #[sqlx(try_from = "i64")]
    pub number: u64,
    /// Its name.
    pub name: String,
    /// `critical`, `warning` or `notice`.
    pub severity: String,
    /// What to know, and what to do.
    pub text: String,
    /// `false` when it is over.
    pub raised: bool,
    /// Who deals with it.
    pub acked: Option<String>,
    /// How often people were reminded.
    #[sqlx(try_from = "i64")]
    pub repeats: u32,
    /// The last word that they were told.
    pub told: Option<Word>,
}

/// What people were told of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "lowercase")]
pub enum Word {
    /// That it stands.
    Raised,
    /// That somebody deals with it.
    Acknowledged,
}

/// What became of a wish to acknowledge an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// It is not repeated any more, and ends with what it is about.
    Stands,
    /// Nothing else could have ended it.
    Over,
    /// It is a node's.
    OfNode,
    /// It is another system's.
    OfOther,
    /// There is none of that name.
    Unknown,
}

pub(super) fn of_saga(number: u64) -> String {
    format!("{OF_SAGA}{number}")
}

/// Raises an alarm, or changes the words of one that stands. With `worse` it is raised
/// anew if somebody deals with what it was before.
pub(super) async fn raise(
    db: &mut SqliteConnection,
    (name, grave): (&str, Severity),
    text: &str,
    worse: bool,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    let known = sqlx::query(
        "UPDATE own_alarm SET text = ?2 WHERE name = ?1 AND raised AND NOT (?3 AND acked NOTNULL)",
    )
    .bind(name)
    .bind(text)
    .bind(worse)
    .execute(&mut *db)
    .await?;
    if known.rows_affected() > 0 {
        return Ok(());
    }
    // REPLACE gives it a number of its own.
    sqlx::query("REPLACE INTO own_alarm(name, severity, text, since_ms) VALUES (?1, ?2, ?3, ?4)")
        .bind(name)
        .bind(severity(grave))
        .bind(text)
        .bind(int(now_ms))
        .execute(db)
        .await
        .map(|_| ())
}

/// What it was about is over.
pub(super) async fn clear(db: &mut SqliteConnection, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE own_alarm SET raised = 0 WHERE name = ?1")
        .bind(name)
        .execute(db)
        .await
        .map(|_| ())
}

impl Db {
    /// Raises an alarm, or changes the words of one that stands (`Some`); or clears it.
    ///
    /// # Errors
    /// [`DbError::Statement`]; then nothing has changed.
    pub async fn set_alarm(
        &self,
        name: &str,
        grave: Severity,
        text: Option<&str>,
        now_ms: u64,
    ) -> Result<(), DbError> {
        let on = || DbError::on("change an alarm");
        let mut change = self.write.begin().await.map_err(on())?;
        match text {
            Some(text) => raise(&mut change, (name, grave), text, false, now_ms).await,
            None => clear(&mut change, name).await,
        }
        .map_err(on())?;
        change.commit().await.map_err(on())
    }

    /// All of them, the oldest first.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn own_alarms(&self) -> Result<Vec<OwnAlarm>, DbError> {
        // Not a reader: what was committed before must be seen.
        sqlx::query_as("SELECT * FROM own_alarm ORDER BY number LIMIT ?1")
            .bind(LIST_MAX)
            .fetch_all(&self.write)
            .await
            .map_err(DbError::on("read the alarms"))
    }

    /// Keeps what people were told last, and how often they were reminded.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn alarm_told(&self, number: u64, told: Word, repeats: u32) -> Result<(), DbError> {
        sqlx::query("UPDATE own_alarm SET told = ?2, repeats = ?3 WHERE number = ?1")
            .bind(int(number))
            .bind(told)
            .bind(repeats)
            .execute(&self.write)
            .await
            .map(|_| ())
            .map_err(DbError::on("keep what people were told"))
    }

    /// Forgets one that is over, once people were told.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn forget_alarm(&self, number: u64) -> Result<(), DbError> {
        sqlx::query("DELETE FROM own_alarm WHERE number = ?1 AND NOT raised")
            .bind(int(number))
            .execute(&self.write)
            .await
            .map(|_| ())
            .map_err(DbError::on("forget an alarm"))
    }

    /// A person deals with an alarm. That of a plan which has ended has no condition
    /// that could end: it is over with that.
    ///
    /// # Errors
    /// [`DbError::Statement`]; then nothing has changed.
    pub async fn acknowledge(&self, name: &str, by: &str) -> Result<Acked, DbError> {
        let on = || DbError::on("acknowledge an alarm");
        let mut change = self.write.begin().await.map_err(on())?;
        let stands: Option<bool> = sqlx::query_scalar(
            "UPDATE own_alarm SET acked = ?2, raised = name NOT LIKE ?3 || '%' OR EXISTS(
               SELECT 1 FROM saga WHERE ?3 || number = name AND ended_ms IS NULL)
             WHERE name = ?1 AND raised RETURNING raised",
        )
        .bind(name)
        .bind(by)
        .bind(OF_SAGA)
        .fetch_optional(&mut *change)
        .await
        .map_err(on())?;
        let of_node: bool =
            sqlx::query_scalar("SELECT EXISTS(SELECT 1 FROM alarm WHERE name = ?1 AND raised)")
                .bind(name)
                .fetch_one(&mut *change)
                .await
                .map_err(on())?;
        let of_other: bool = sqlx::query_scalar(
            "SELECT EXISTS(SELECT 1 FROM outside_alarm WHERE name = ?1 AND raised)",
        )
        .bind(name)
        .fetch_one(&mut *change)
        .await
        .map_err(on())?;
        change.commit().await.map_err(on())?;
        Ok(match stands {
            Some(true) => Acked::Stands,
            Some(false) => Acked::Over,
            None if of_node => Acked::OfNode,
            None if of_other => Acked::OfOther,
            None => Acked::Unknown,
        })
    }
}
