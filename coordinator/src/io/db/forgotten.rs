//! What a node no longer has, and this database never will.
//!
//! A node forgets what a coordinator has acknowledged. When that was another
//! database (this one is new, or restored from an older copy), the records in
//! between never come: they are entered as gaps, so the run goes on behind them.
//! A coordinator acknowledges only what it has committed, so with the same
//! database there is never anything to enter.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use homeostat_common::ids::{NodeId, StreamId};
use sqlx::SqliteConnection;

use super::ingest::{Stored, Stream, find_stream, follow};
use super::{int, uint};

/// A node's word that everything up to here was acknowledged and is gone there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// The node.
    pub node: NodeId,
    /// The stream that it speaks of.
    pub stream: StreamId,
    /// Last event that is gone.
    pub through: u64,
}

/// Enters what is missing up to there. Nothing happens when the stream is not
/// known yet (the word is given again with its first record), when it is not
/// the node's present one, or when nothing is missing.
pub(super) async fn apply(
    db: &mut SqliteConnection,
    word: &Forgotten,
    streams: &mut BTreeMap<StreamId, Stream>,
    stored: &mut Stored,
) -> Result<(), sqlx::Error> {
    let stream = match streams.entry(word.stream) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => match find_stream(db, word.stream).await? {
            // One that is complete up to there needs no further look.
            Some(stream) if stream.acked < int(word.through) && stream.node == word.node => {
                entry.insert(stream)
            }
            _ => return Ok(()),
        },
    };
    let through = int(word.through);
    if stream.acked >= through || stream.node != word.node {
        return Ok(());
    }
    let present: bool = sqlx::query_scalar("SELECT stream IS ?2 FROM node WHERE id = ?1")
        .bind(stream.owner)
        .bind(stream.id)
        .fetch_one(&mut *db)
        .await?;
    if !present {
        return Ok(());
    }
    loop {
        stream.follow = true;
        follow(db, stream).await?;
        if stream.acked >= through {
            return Ok(());
        }
        // The hole ends before the next record or gap that is stored.
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(seq) FROM (
               SELECT MIN(seq) AS seq FROM event WHERE stream = ?1 AND seq > ?2
               UNION ALL SELECT MIN(first) FROM gap WHERE stream = ?1 AND first > ?2)",
        )
        .bind(stream.id)
        .bind(stream.acked)
        .fetch_one(&mut *db)
        .await?;
        let first = stream.acked + 1;
        let last = next
            .map_or(through, |next| through.min(next - 1))
            .max(first);
        sqlx::query("INSERT OR IGNORE INTO gap(stream, first, last, heal) VALUES (?1, ?2, ?3, 0)")
            .bind(stream.id)
            .bind(first)
            .bind(last)
            .execute(&mut *db)
            .await?;
        stored.lost += uint(last - stream.acked);
        stream.acked = last;
    }
}
