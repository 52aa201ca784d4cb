//! Stores records: each (node, stream, seq) once, in one transaction with its
//! effects.
//!
//! In: a batch of admitted records in order of arrival. Out: what became of
//! them, and how far each stream may be acknowledged. Nothing of it is in memory
//! between two batches, so a crash at any point leaves either all of a batch or
//! nothing.

use std::collections::BTreeMap;

use homeostat_common::ids::{NodeId, SiteId, StreamId};
use homeostat_common::outcome::Outcome;
use homeostat_common::wire::body::StepCost;
use homeostat_common::wire::{Body, Envelope};
use sqlx::{Row, SqliteConnection};

use super::{Db, DbError, Forgotten, forgotten, int, project, uint};
use crate::control::admit::{Reason, Refused};

/// Most nodes of one coordinator. Bounds what a storm of invented names can
/// make the database hold.
const NODES_MAX: i64 = 100_000;

/// Rows read at once while the unbroken run is followed.
const RUN_ROWS: usize = 1024;

/// Refused messages that are kept for people to look at.
const REJECTED_KEPT: i64 = 1000;

/// How far a stream is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledge {
    /// Where its node stands.
    pub site: SiteId,
    /// Its node.
    pub node: NodeId,
    /// Which.
    pub stream: StreamId,
    /// End of the unbroken run.
    pub through: u64,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    /// How far each stream of the batch is stored; for duplicates too, since
    /// their sender missed the last word.
    pub acks: Vec<Acknowledge>,
    /// Records that were new.
    pub new: u64,
    /// Records that were stored before.
    pub duplicates: u64,
    /// Records that the database knows better than to take.
    pub refused: Vec<Refused>,
    /// Number of the last event stored.
    pub cursor: u64,
    /// Fleet-wide numbers of incidents that changed.
    pub incidents: Vec<u64>,
    /// Incidents that were closed, and how long they lasted.
    pub closed: Vec<(Outcome, u64)>,
    /// Steps that were paid for.
    pub charged: Vec<StepCost>,
    /// Events that another database may hold, and this one never will.
    pub lost: u64,
}

pub(super) struct Stream {
    pub(super) id: i64,
    site: SiteId,
    pub(super) node: NodeId,
    pub(super) owner: i64,
    pub(super) acked: i64,
    top: i64,
    /// Whether more than the next record came in, so that the run must be
    /// followed in the database.
    pub(super) follow: bool,
}

impl Db {
    /// Stores a batch in one transaction and syncs it. `forgotten` is what the
    /// nodes of the batch, or others, say that they no longer have.
    ///
    /// # Errors
    /// [`DbError::Statement`]; nothing of the batch is stored then.
    pub async fn store(
        &self,
        batch: &[&Envelope],
        refused: &[Refused],
        forgotten: &[Forgotten],
        now_ms: u64,
    ) -> Result<Stored, DbError> {
        let mut stored = Stored::default();
        let mut streams: BTreeMap<StreamId, Stream> = BTreeMap::new();
        let mut transaction = self
            .write
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(DbError::on("begin to store records"))?;
        let db = &mut *transaction;
        for envelope in batch {
            store_one(db, envelope, now_ms, &mut streams, &mut stored)
                .await
                .map_err(DbError::on("store a record"))?;
        }
        for word in forgotten {
            forgotten::apply(db, word, &mut streams, &mut stored)
                .await
                .map_err(DbError::on("store what a node has forgotten"))?;
        }
        for stream in streams.values_mut() {
            finish(db, stream, now_ms)
                .await
                .map_err(DbError::on("store how far a stream is complete"))?;
        }
        stored.refused.extend_from_slice(refused);
        keep_refused(db, &stored.refused, now_ms)
            .await
            .map_err(DbError::on("store what was refused"))?;
        transaction
            .commit()
            .await
            .map_err(DbError::on("commit records"))?;
        stored.acks = streams
            .into_iter()
            .map(|(uid, stream)| Acknowledge {
                site: stream.site,
                node: stream.node,
                stream: uid,
                through: uint(stream.acked),
            })
            .collect();
        stored.incidents.sort_unstable();
        stored.incidents.dedup();
        Ok(stored)
    }

    /// How far the present stream of every node is stored. A broker that lost
    /// our session lost our acknowledgements with it.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn acknowledged(&self) -> Result<Vec<Acknowledge>, DbError> {
        let rows = sqlx::query(
            "SELECT node.site, node.name, stream.uid, stream.acked FROM node
             JOIN stream ON stream.id = node.stream WHERE stream.acked > 0",
        )
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on("read how far streams are stored"))?;
        Ok(rows
            .iter()
            .filter_map(|row| {
                Some(Acknowledge {
                    site: SiteId::new(row.get(0)).ok()?,
                    node: NodeId::new(row.get(1)).ok()?,
                    stream: StreamId(row.get::<&[u8], _>(2).try_into().ok()?),
                    through: uint(row.get(3)),
                })
            })
            .collect())
    }
}

async fn store_one(
    db: &mut SqliteConnection,
    envelope: &Envelope,
    now_ms: u64,
    streams: &mut BTreeMap<StreamId, Stream>,
    stored: &mut Stored,
) -> Result<(), sqlx::Error> {
    let refuse = |reason, detail: &str| {
        let topic = format!("{}/{}/up/{}", envelope.site, envelope.node, envelope.stream);
        Refused::new(reason, topic.as_bytes(), &[], detail)
    };
    let stream = match streams.entry(envelope.stream) {
        std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::btree_map::Entry::Vacant(entry) => {
            match open_stream(db, envelope, now_ms).await? {
                Some(stream) => entry.insert(stream),
                None => {
                    stored.refused.push(refuse(
                        Reason::Full,
                        &format!("the fleet has {NODES_MAX} nodes already"),
                    ));
                    return Ok(());
                }
            }
        }
    };
    if stream.node != envelope.node {
        stored.refused.push(refuse(
            Reason::Owner,
            &format!("the stream belongs to node {}", stream.node),
        ));
        return Ok(());
    }
    if stream.site != envelope.site {
        // A node may be moved; its name stays unique in the fleet.
        sqlx::query("UPDATE node SET site = ?2 WHERE id = ?1")
            .bind(stream.owner)
            .bind(envelope.site.as_str())
            .execute(&mut *db)
            .await?;
        stream.site = envelope.site.clone();
    }
    let seq = int(envelope.seq);
    if seq <= stream.acked {
        stored.duplicates += 1;
        return Ok(());
    }
    let row = sqlx::query(
        "INSERT INTO event(stream, seq, kind, boot, hlc_ms, hlc_count, received_ms, incident, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(stream.id)
    .bind(seq)
    .bind(envelope.body.kind_name())
    .bind(envelope.boot.0.as_slice())
    .bind(int(envelope.hlc.unix_ms()))
    .bind(i64::from(envelope.hlc.counter()))
    .bind(int(now_ms))
    .bind(project::incident_number(&envelope.body))
    .bind(project::body_json(&envelope.body)?)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else {
        stored.duplicates += 1;
        return Ok(());
    };
    let id: i64 = row.get(0);
    stored.new += 1;
    stored.cursor = uint(id);
    for cause in &envelope.causes {
        sqlx::query("INSERT OR IGNORE INTO cause(effect, uid, seq) VALUES (?1, ?2, ?3)")
            .bind(id)
            .bind(cause.stream.0.as_slice())
            .bind(int(cause.seq))
            .execute(&mut *db)
            .await?;
    }
    let effect = project::apply(db, stream.id, envelope).await?;
    stored.incidents.extend(effect.incident);
    stored.closed.extend(effect.closed);
    stored.charged.extend(effect.charged);
    stream.top = stream.top.max(seq);
    if seq == stream.acked + 1 {
        stream.acked = seq;
    }
    // Something lies behind a hole that this record or gap may just have closed.
    stream.follow |= stream.top > stream.acked || matches!(envelope.body, Body::Gap(_));
    Ok(())
}

/// Finds a stream that is known.
pub(super) async fn find_stream(
    db: &mut SqliteConnection,
    uid: StreamId,
) -> Result<Option<Stream>, sqlx::Error> {
    let found = sqlx::query(
        "SELECT stream.id, node.site, node.name, node.id, stream.acked, stream.top
         FROM stream JOIN node ON node.id = stream.node WHERE stream.uid = ?1",
    )
    .bind(uid.0.as_slice())
    .fetch_optional(&mut *db)
    .await?;
    if let Some(row) = found {
        let name = |column| -> Result<&str, sqlx::Error> { row.try_get(column) };
        let broken = |error| sqlx::Error::Decode(Box::new(error));
        let (acked, top) = (row.get(4), row.get(5));
        return Ok(Some(Stream {
            id: row.get(0),
            site: SiteId::new(name(1)?).map_err(broken)?,
            node: NodeId::new(name(2)?).map_err(broken)?,
            owner: row.get(3),
            acked,
            top,
            follow: top > acked,
        }));
    }
    Ok(None)
}

/// Finds the stream, or enters it and its node. `None`: there are too many.
async fn open_stream(
    db: &mut SqliteConnection,
    envelope: &Envelope,
    now_ms: u64,
) -> Result<Option<Stream>, sqlx::Error> {
    if let Some(found) = find_stream(db, envelope.stream).await? {
        return Ok(Some(found));
    }
    let nodes: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM node")
        .fetch_one(&mut *db)
        .await?;
    let owner: Option<i64> = sqlx::query_scalar("SELECT id FROM node WHERE name = ?1")
        .bind(envelope.node.as_str())
        .fetch_optional(&mut *db)
        .await?;
    let owner = match owner {
        Some(owner) => owner,
        None if nodes >= NODES_MAX => return Ok(None),
        None => {
            sqlx::query_scalar(
                "INSERT INTO node(name, site, first_ms, seen_ms) VALUES (?1, ?2, ?3, ?3)
                 RETURNING id",
            )
            .bind(envelope.node.as_str())
            .bind(envelope.site.as_str())
            .bind(int(now_ms))
            .fetch_one(&mut *db)
            .await?
        }
    };
    let id: i64 = sqlx::query_scalar("INSERT INTO stream(uid, node) VALUES (?1, ?2) RETURNING id")
        .bind(envelope.stream.0.as_slice())
        .bind(owner)
        .fetch_one(&mut *db)
        .await?;
    sqlx::query("UPDATE node SET stream = ?2, site = ?3 WHERE id = ?1")
        .bind(owner)
        .bind(id)
        .bind(envelope.site.as_str())
        .execute(&mut *db)
        .await?;
    Ok(Some(Stream {
        id,
        site: envelope.site.clone(),
        node: envelope.node.clone(),
        owner,
        acked: 0,
        top: 0,
        follow: false,
    }))
}

/// Follows the unbroken run through records and gaps.
pub(super) async fn follow(
    db: &mut SqliteConnection,
    stream: &mut Stream,
) -> Result<(), sqlx::Error> {
    while stream.follow {
        let before = stream.acked;
        let gap: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(last) FROM gap WHERE stream = ?1 AND first <= ?2 + 1 AND last > ?2",
        )
        .bind(stream.id)
        .bind(stream.acked)
        .fetch_one(&mut *db)
        .await?;
        stream.acked = gap.unwrap_or(stream.acked);
        let run: Vec<i64> = sqlx::query_scalar(
            "SELECT seq FROM event WHERE stream = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )
        .bind(stream.id)
        .bind(stream.acked)
        .bind(int(RUN_ROWS as u64))
        .fetch_all(&mut *db)
        .await?;
        for seq in run {
            if seq != stream.acked + 1 {
                break;
            }
            stream.acked = seq;
        }
        stream.follow = stream.acked > before;
    }
    Ok(())
}

/// Follows the unbroken run, and writes its end down.
async fn finish(
    db: &mut SqliteConnection,
    stream: &mut Stream,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    follow(db, stream).await?;
    sqlx::query("UPDATE stream SET acked = ?2, top = MAX(top, ?3) WHERE id = ?1")
        .bind(stream.id)
        .bind(stream.acked)
        .bind(stream.top)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE node SET seen_ms = MAX(seen_ms, ?2) WHERE id = ?1")
        .bind(stream.owner)
        .bind(int(now_ms))
        .execute(&mut *db)
        .await?;
    Ok(())
}

async fn keep_refused(
    db: &mut SqliteConnection,
    refused: &[Refused],
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    for refused in refused {
        sqlx::query(
            "INSERT INTO rejected(at_ms, reason, topic, detail, size, head)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(int(now_ms))
        .bind(refused.reason.name())
        .bind(&refused.topic)
        .bind(&refused.detail)
        .bind(int(refused.size as u64))
        .bind(&refused.head)
        .execute(&mut *db)
        .await?;
    }
    if !refused.is_empty() {
        sqlx::query("DELETE FROM rejected WHERE id <= (SELECT MAX(id) FROM rejected) - ?1")
            .bind(REJECTED_KEPT)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}
