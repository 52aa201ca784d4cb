//! Alarms of other systems, as they stand and as they were.
//!
//! In: what a source said, in the order in which it said it. Out: what that changed. A word
//! that was said before changes nothing but its text; the number that stand is bounded, with
//! a part of the room for critical ones alone, so that a flood of warnings hides none of
//! them. Whom an alarm is about follows from names that are known here.

use std::collections::BTreeMap;

use homeostat_common::ids::{NodeId, ServiceId, SiteId};
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::projection::{OUTSIDE_MAX, Outside, OutsideAlarm};
use sqlx::{Row as _, SqliteConnection};

use super::project::severity;
use super::{Db, DbError, int, uint};

/// Most alarms of others that stand. Some hundred bytes each; a person reads a hundredth.
pub const STANDING_MAX: u64 = 10_000;

/// From here on only critical ones find room.
pub const CRITICAL_FROM: u64 = 9_000;

/// Most that are kept once they are over.
const ENDED_MAX: i64 = 10_000;

/// Most that are shown beside an incident.
const BESIDE_MAX: i64 = 16;

/// What a source says about one alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What the source tells it apart by.
    pub key: String,
    /// What the source calls it.
    pub name: String,
    /// Names that may be a node's, the likeliest first.
    pub nodes: Vec<String>,
    /// Names that may be a service's.
    pub services: Vec<String>,
    /// How urgent.
    pub severity: Severity,
    /// What a person should know.
    pub text: String,
    /// `false` when it is over.
    pub raised: bool,
    /// Since when, as RFC 3339, if the source says so.
    pub since: Option<String>,
}

/// A word of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// About one alarm.
    Alarm(Said),
    /// All alarms whose key begins so are over.
    Gone(String),
}

/// What words have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Alarms that stand since now.
    pub raised: u64,
    /// Those that stood already.
    pub repeated: u64,
    /// Those that are over now.
    pub resolved: u64,
    /// Those for which there was no room.
    pub left_out: u64,
    /// How many stand now.
    pub standing: u64,
}

/// What is known of names, asked once in a batch.
#[derive(Default)]
struct Names {
    nodes: BTreeMap<String, Option<i64>>,
    services: BTreeMap<(i64, String), bool>,
}

impl Names {
    /// The first of `names` that is a node's, and its stream.
    async fn node(
        &mut self,
        db: &mut SqliteConnection,
        names: &[String],
    ) -> Result<Option<(String, i64)>, sqlx::Error> {
        for name in names {
            let known = match self.nodes.get(name) {
                Some(known) => *known,
                None => {
                    let found: Option<i64> =
                        sqlx::query_scalar("SELECT COALESCE(stream, -1) FROM node WHERE name = ?1")
                            .bind(name)
                            .fetch_optional(&mut *db)
                            .await?;
                    self.nodes.insert(name.clone(), found);
                    found
                }
            };
            if let Some(stream) = known {
                return Ok(Some((name.clone(), stream)));
            }
        }
        Ok(None)
    }

    async fn service(
        &mut self,
        db: &mut SqliteConnection,
        stream: i64,
        names: &[String],
    ) -> Result<Option<String>, sqlx::Error> {
        for name in names {
            let key = (stream, name.clone());
            let known = match self.services.get(&key) {
                Some(known) => *known,
                None => {
                    let found = sqlx::query_scalar(
                        "SELECT EXISTS(SELECT 1 FROM service WHERE stream = ?1 AND name = ?2)",
                    )
                    .bind(stream)
                    .bind(name)
                    .fetch_one(&mut *db)
                    .await?;
                    self.services.insert(key, found);
                    found
                }
            };
            if known {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }
}

impl Db {
    /// Takes what `source` says, in one transaction.
    ///
    /// # Errors
    /// [`DbError::Statement`]; then nothing has changed.
    pub async fn take_outside(
        &self,
        source: &str,
        words: &[Word],
        now_ms: u64,
    ) -> Result<Taken, DbError> {
        let on = || DbError::on("take alarms of another system");
        let mut change = self
            .write
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(on())?;
        let taken = take(&mut change, source, words, now_ms)
            .await
            .map_err(on())?;
        change.commit().await.map_err(on())?;
        Ok(taken)
    }

    /// Ends what `source` has not repeated since `cutoff_ms`; what that changed.
    ///
    /// # Errors
    /// [`DbError::Statement`]; then nothing has changed.
    pub async fn end_unheard(
        &self,
        source: &str,
        cutoff_ms: u64,
        now_ms: u64,
    ) -> Result<Taken, DbError> {
        let on = || DbError::on("end alarms that nobody repeats");
        let mut change = self
            .write
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(on())?;
        let ended = sqlx::query(
            "UPDATE outside_alarm SET raised = 0, ended_ms = ?3
             WHERE source = ?1 AND raised AND heard_ms < ?2",
        )
        .bind(source)
        .bind(int(cutoff_ms))
        .bind(int(now_ms))
        .execute(&mut *change)
        .await
        .map_err(on())?;
        let mut taken = Taken {
            resolved: ended.rows_affected(),
            ..Taken::default()
        };
        if taken.resolved > 0 {
            forget(&mut change).await.map_err(on())?;
        }
        taken.standing = standing(&mut change).await.map_err(on())?;
        change.commit().await.map_err(on())?;
        Ok(taken)
    }

    /// What each node is to know of other systems' alarms about it; nothing, for a node of
    /// which all are over.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn outside_of_nodes(&self) -> Result<BTreeMap<(SiteId, NodeId), Outside>, DbError> {
        let doing = "read the alarms of other systems";
        let rows = sqlx::query(
            "SELECT node.site, node.name, outside_alarm.raised, source, outside_alarm.name,
               service, severity, text FROM outside_alarm JOIN node ON node.name = node
             ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END,
               number",
        )
        .fetch_all(&self.write)
        .await
        .map_err(DbError::on(doing))?;
        let mut nodes: BTreeMap<(SiteId, NodeId), Outside> = BTreeMap::new();
        for row in rows {
            let (Ok(site), Ok(node)) = (SiteId::new(row.get(0)), NodeId::new(row.get(1))) else {
                continue;
            };
            let outside = nodes.entry((site, node)).or_default();
            if !row.get::<bool, _>(2) {
                continue;
            }
            if outside.alarms.len() >= OUTSIDE_MAX {
                outside.left_out = outside.left_out.saturating_add(1);
                continue;
            }
            let (source, name): (&str, &str) = (row.get(3), row.get(4));
            let called = format!("{source}:{name}");
            // Names are unique on a node; of others' alarms several may have one.
            let same = |one: &&OutsideAlarm| {
                one.alarm == called || one.alarm.starts_with(&format!("{called}#"))
            };
            let before = outside.alarms.iter().filter(same).count();
            outside.alarms.push(OutsideAlarm {
                alarm: match before {
                    0 => called,
                    _ => format!("{called}#{}", before + 1),
                },
                service: row
                    .get::<Option<&str>, _>(5)
                    .and_then(|name| ServiceId::new(name).ok()),
                severity: match row.get(6) {
                    "critical" => Severity::Critical,
                    "warning" => Severity::Warning,
                    _ => Severity::Notice,
                },
                text: row.get(7),
            });
        }
        Ok(nodes)
    }

    /// What other systems said about a node, or this service of it, between two times; in
    /// words, the gravest first.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn outside_beside(
        &self,
        node: &str,
        service: Option<&str>,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<String>, DbError> {
        sqlx::query_scalar(
            "SELECT source || ': ' || name || ' (' || severity || '): ' || text
             FROM outside_alarm WHERE node = ?1 AND (service IS NULL OR service = ?2)
               AND since_ms <= ?4 AND (ended_ms IS NULL OR ended_ms >= ?3)
             ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END,
               number LIMIT ?5",
        )
        .bind(node)
        .bind(service)
        .bind(int(from_ms))
        .bind(int(to_ms))
        .bind(BESIDE_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on("read what other systems said"))
    }
}

async fn standing(db: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM outside_alarm WHERE raised")
        .fetch_one(db)
        .await
        .map(uint)
}

async fn take(
    db: &mut SqliteConnection,
    source: &str,
    words: &[Word],
    now_ms: u64,
) -> Result<Taken, sqlx::Error> {
    let before = standing(db).await?;
    let mut taken = Taken::default();
    let mut names = Names::default();
    for word in words {
        let said = match word {
            Word::Alarm(said) if said.raised => said,
            Word::Alarm(Said { key, .. }) => {
                taken.resolved += end(db, source, key, false, now_ms).await?;
                continue;
            }
            Word::Gone(prefix) => {
                taken.resolved += end(db, source, prefix, true, now_ms).await?;
                continue;
            }
        };
        let node = names.node(db, &said.nodes).await?;
        let service = match &node {
            Some((_, stream)) => names.service(db, *stream, &said.services).await?,
            None => None,
        };
        let node = node.map(|(name, _)| name);
        let known = sqlx::query(
            "UPDATE outside_alarm SET name = ?3, node = ?4, service = ?5, severity = ?6,
               text = ?7, heard_ms = ?8 WHERE source = ?1 AND key = ?2 AND raised",
        )
        .bind(source)
        .bind(&said.key)
        .bind(&said.name)
        .bind(&node)
        .bind(&service)
        .bind(severity(said.severity))
        .bind(&said.text)
        .bind(int(now_ms))
        .execute(&mut *db)
        .await?;
        if known.rows_affected() > 0 {
            taken.repeated += 1;
            continue;
        }
        let room = match said.severity {
            Severity::Critical => STANDING_MAX,
            Severity::Warning | Severity::Notice => CRITICAL_FROM,
        };
        if (before + taken.raised).saturating_sub(taken.resolved) >= room {
            taken.left_out += 1;
            continue;
        }
        // A time to come, or none at all, is now; one before 1970 is no time that is told.
        sqlx::query(
            "INSERT INTO outside_alarm(source, key, name, node, service, severity, text,
               since_ms, heard_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,
               MAX(0, MIN(?8, COALESCE(CAST(unixepoch(?9, 'subsec') * 1000 AS INTEGER), ?8))), ?8)",
        )
        .bind(source)
        .bind(&said.key)
        .bind(&said.name)
        .bind(node)
        .bind(service)
        .bind(severity(said.severity))
        .bind(&said.text)
        .bind(int(now_ms))
        .bind(&said.since)
        .execute(&mut *db)
        .await?;
        taken.raised += 1;
    }
    taken.standing = (before + taken.raised).saturating_sub(taken.resolved);
    if taken.resolved > 0 {
        forget(db).await?;
    }
    Ok(taken)
}

/// Of those that are over the newest stay.
async fn forget(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM outside_alarm WHERE NOT raised AND number IN (
           SELECT number FROM outside_alarm WHERE NOT raised
           ORDER BY ended_ms DESC LIMIT -1 OFFSET ?1)",
    )
    .bind(ENDED_MAX)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends one alarm, or with `all` each whose key begins so; how many.
async fn end(
    db: &mut SqliteConnection,
    source: &str,
    key: &str,
    all: bool,
    now_ms: u64,
) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "UPDATE outside_alarm SET raised = 0, ended_ms = ?4 WHERE source = ?1 AND raised
           AND CASE WHEN ?3 THEN substr(key, 1, length(?2)) = ?2 ELSE key = ?2 END",
    )
    .bind(source)
    .bind(key)
    .bind(all)
    .bind(int(now_ms))
    .execute(db)
    .await
    .map(|done| done.rows_affected())
}
