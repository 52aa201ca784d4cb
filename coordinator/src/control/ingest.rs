//! Drives messages into the database: batch, store, acknowledge, tell.
//!
//! A batch is what came while the former one was committed, so a quiet fleet
//! waits for nothing and a busy one shares its syncs. A message is settled only
//! after its commit; while the database refuses, nothing is settled and the
//! broker holds the rest back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub use homeostat_common::errors::chain;
use homeostat_common::ids::NodeId;
use homeostat_common::wire::Envelope;
use tokio::sync::{mpsc, watch};

use super::admit::{Admitted, Reason, Refused, admit};
use super::sagas::Ask;
use super::{Hub, now_ms};
use crate::fleet::view::Change;
use crate::io::db::{DbError, Forgotten, Stored};
use crate::io::mqtt::{Arrived, Settled, Up};

/// Most messages of one transaction: long enough to share a sync, short enough
/// that none waits for more than some 50 ms of inserts.
const BATCH_MAX: usize = 512;

/// First pause after the database refused.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest pause: a full disk takes a person, but not another minute after that.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// At most one line in the log per reason and this long.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The task that stores.
#[derive(Debug)]
pub struct Ingest {
    hub: Arc<Hub>,
    settled: mpsc::Sender<Settled>,
    answers: mpsc::Sender<Ask>,
    stop: watch::Receiver<bool>,
    logged: BTreeMap<Reason, (Instant, u64)>,
}

impl Ingest {
    /// Settles what it stores over `settled`, and waits while that is full. Answers
    /// about plans across nodes go to `answers`.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        settled: mpsc::Sender<Settled>,
        answers: mpsc::Sender<Ask>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            hub,
            settled,
            answers,
            stop,
            logged: BTreeMap::new(),
        }
    }

    /// Runs until the sender is gone or `stop` is set.
    pub async fn run(mut self, mut up: mpsc::Receiver<Up>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                count = up.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
                _ = self.stop.changed() => return,
            }
            self.take(batch.drain(..)).await;
        }
    }

    async fn take(&mut self, batch: impl Iterator<Item = Up>) {
        let mut messages: Vec<Arrived> = Vec::new();
        let mut records: Vec<Envelope> = Vec::new();
        let mut refused: Vec<Refused> = Vec::new();
        let mut change = Change::default();
        let mut senders: BTreeSet<NodeId> = BTreeSet::new();
        for up in batch {
            match up {
                Up::Connected { session } => {
                    self.hub.with_presence(|presence| presence.connected());
                    change.presence = true;
                    if !session {
                        self.acknowledge_again().await;
                    }
                }
                Up::Disconnected => {
                    self.hub.with_presence(|presence| presence.disconnected());
                    change.presence = true;
                }
                Up::Arrived(message) => {
                    let publish = &message.publish;
                    match admit(&publish.topic, &publish.payload) {
                        Ok(Admitted::Record(envelope)) => {
                            senders.insert(envelope.node.clone());
                            records.push(*envelope);
                        }
                        Ok(Admitted::Presence { site, status, node }) => {
                            senders.insert(node.clone());
                            change.presence |= self.hub.with_presence(|presence| {
                                presence.heard(site, node, status.as_deref(), now_ms())
                            });
                        }
                        // One that finds no room is lost: it comes again.
                        Ok(Admitted::Answer(node, answer)) => {
                            let _ = self.answers.try_send(Ask::Answer(node, *answer));
                        }
                        Err(objection) => refused.push(objection),
                    }
                    messages.push(*message);
                }
            }
        }
        let since = messages.first().map(|message| message.at);
        let mut stored = Stored::default();
        let forgotten = self.forgotten(&senders);
        if !records.is_empty() || !refused.is_empty() || !forgotten.is_empty() {
            let Some(done) = self.store(&records, &refused, &forgotten).await else {
                return;
            };
            stored = done;
        }
        let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
        if stored.new + stored.duplicates > 0 {
            self.hub.metrics.stored(
                stored.new,
                stored.duplicates,
                u64::try_from(waited.as_micros()).unwrap_or(u64::MAX),
            );
        }
        for refused in &stored.refused {
            self.hub.metrics.refused(refused.reason);
            self.log(refused);
        }
        if stored.lost > 0 {
            tracing::warn!(
                events = stored.lost,
                "another database acknowledged events that never come here; counted as lost"
            );
        }
        for (outcome, lasted) in &stored.closed {
            self.hub.metrics.closed(*outcome, *lasted);
        }
        for step in &stored.charged {
            self.hub.metrics.charged(step);
        }
        // Ends with the connection's task only.
        let done = Settled {
            messages,
            acks: stored.acks,
            orders: Vec::new(),
        };
        let _ = self.settled.send(done).await;
        change.cursor = stored.cursor;
        change.incidents = stored.incidents;
        if change.presence || change.cursor > 0 {
            // Nobody may be watching.
            let _ = self.hub.changes.send(change);
        }
    }

    /// Stores until the database takes it. `None`: told to stop before that.
    async fn store(
        &mut self,
        records: &[Envelope],
        refused: &[Refused],
        forgotten: &[Forgotten],
    ) -> Option<Stored> {
        let all: Vec<&Envelope> = records.iter().collect();
        let mut pause = RETRY_MIN;
        loop {
            let error = match self.hub.db.store(&all, refused, forgotten, now_ms()).await {
                Ok(stored) => {
                    self.hub.storing.store(true, Relaxed);
                    return Some(stored);
                }
                Err(error) if error.blames_the_record() => {
                    match self.one_by_one(&all, refused, forgotten).await {
                        Ok(stored) => return Some(stored),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.hub.storing.store(false, Relaxed);
            self.hub.metrics.store_failed();
            tracing::error!(error = chain(&error), "records wait for the database");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                _ = self.stop.changed() => return None,
            }
        }
    }

    /// Finds the record that the database refuses, and stores the others.
    async fn one_by_one(
        &self,
        records: &[&Envelope],
        refused: &[Refused],
        forgotten: &[Forgotten],
    ) -> Result<Stored, DbError> {
        let mut sum = self.hub.db.store(&[], refused, &[], now_ms()).await?;
        for record in records {
            let one = match self.hub.db.store(&[record], &[], &[], now_ms()).await {
                Err(error) if error.blames_the_record() => {
                    let topic = format!("{}/{}/up/{}", record.site, record.node, record.stream);
                    let objection =
                        Refused::new(Reason::Storage, topic.as_bytes(), &[], &chain(&error));
                    self.hub.db.store(&[], &[objection], &[], now_ms()).await?
                }
                other => other?,
            };
            sum.acks.extend(one.acks);
            sum.new += one.new;
            sum.duplicates += one.duplicates;
            sum.refused.extend(one.refused);
            sum.cursor = sum.cursor.max(one.cursor);
            sum.incidents.extend(one.incidents);
            sum.closed.extend(one.closed);
        }
        let last = self.hub.db.store(&[], &[], forgotten, now_ms()).await?;
        sum.acks.extend(last.acks);
        sum.lost = last.lost;
        Ok(sum)
    }

    /// What these nodes say of events that are gone there. Looked up with every
    /// batch, because the status may come before the stream's first record.
    fn forgotten(&self, senders: &BTreeSet<NodeId>) -> Vec<Forgotten> {
        self.hub.with_presence(|presence| {
            senders
                .iter()
                .filter_map(|node| {
                    let seen = presence.seen(node).filter(|seen| seen.acked > 0)?;
                    Some(Forgotten {
                        node: node.clone(),
                        stream: seen.stream,
                        through: seen.acked,
                    })
                })
                .collect()
        })
    }

    /// The broker forgot our session, and with it acknowledgements that were on
    /// their way.
    async fn acknowledge_again(&self) {
        match self.hub.db.acknowledged().await {
            Ok(acks) => {
                let done = Settled {
                    acks,
                    ..Settled::default()
                };
                let _ = self.settled.send(done).await;
            }
            Err(error) => tracing::error!(error = chain(&error), "cannot acknowledge again"),
        }
    }

    fn log(&mut self, refused: &Refused) {
        let now = Instant::now();
        if let Some((last, more)) = self.logged.get_mut(&refused.reason)
            && now.duration_since(*last) < LOG_EVERY
        {
            *more += 1;
            return;
        }
        let before = self.logged.insert(refused.reason, (now, 0));
        tracing::warn!(
            reason = refused.reason.name(),
            topic = refused.topic,
            detail = refused.detail,
            size = refused.size,
            unlogged = before.map_or(0, |(_, more)| more),
            "refused a message"
        );
    }
}
