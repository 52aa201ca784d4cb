//! Alarms of other systems: taken in, counted, and told to the nodes that they are about.
//!
//! In: words from Alertmanager (over HTTP) and from devices (over MQTT), in any number. Out:
//! alarms in the database, which list, page and incidents show; what each node is to know,
//! retained on its topic `ext`, so that its own observation has it within the second; and the
//! alarm `intake-full` when there is no room. People are not called for any of them: whoever
//! raised an alarm calls people for it, and two who do so confuse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use homeostat_common::ids::{NodeId, SiteId};
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::topic::NodeTopics;
use homeostat_notify::intake::{Heard, Source};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::ingest::chain;
use super::{Hub, now_ms};
use crate::io::alertmanager::{self, Labels};
use crate::io::db::DbError;
use crate::io::db::outside::{CRITICAL_FROM, STANDING_MAX, Said, Taken, Word};
use crate::io::devices::{self, FromBroker, Retained};

/// The source of what devices say.
const MQTT: &str = "mqtt";

/// The alarm of alarms for which there is no room.
const FULL: &str = "intake-full";

/// What Alertmanager has not repeated for so long is over, or Alertmanager has forgotten it:
/// it repeats every four hours unless told otherwise.
const UNHEARD_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often that is looked for, and what nodes are to know is said again: a node's broker
/// may have lost it.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Bodies of Alertmanager that are read at once.
const READING_MAX: usize = 2;

/// Words of one transaction.
const BATCH_MAX: usize = 512;

/// Pause after the database refused.
const RETRY: Duration = Duration::from_secs(1);

/// At most one line in the log about refused messages in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What the API and the task share.
#[derive(Debug)]
pub struct Outside {
    /// Which labels name what.
    pub labels: Labels,
    /// Who has it may tell of alarms.
    pub token: String,
    /// Places to read a body.
    pub reading: Semaphore,
    changed: Notify,
    left_out: AtomicU64,
}

impl Outside {
    /// Nothing was said yet.
    #[must_use]
    pub fn new(labels: Labels, token: String) -> Self {
        Self {
            labels,
            token,
            reading: Semaphore::new(READING_MAX),
            changed: Notify::new(),
            left_out: AtomicU64::new(0),
        }
    }
}

/// Takes what `source` says.
///
/// # Errors
/// [`DbError`]; then nothing of it was taken.
pub async fn take(
    hub: &Hub,
    source: &'static str,
    words: &[Word],
    now_ms: u64,
) -> Result<Taken, DbError> {
    let taken = hub.db.take_outside(source, words, now_ms).await?;
    hub.metrics.outside(source, &taken);
    if taken.left_out > 0 {
        let before = hub.outside.left_out.fetch_add(taken.left_out, Relaxed);
        let text = format!(
            "{} alarms of other systems were left out, repetitions counted: {} stand; up to \
             {CRITICAL_FROM} are kept, and {STANDING_MAX} with critical ones",
            before + taken.left_out,
            taken.standing
        );
        full(hub, Some(&text)).await?;
    } else if taken.resolved > 0 && taken.standing < CRITICAL_FROM {
        hub.outside.left_out.store(0, Relaxed);
        full(hub, None).await?;
    }
    // A repetition may have other words, or be the first that names a node.
    if taken.raised + taken.repeated + taken.resolved + taken.left_out > 0 {
        hub.outside.changed.notify_one();
        hub.show_alarms();
    }
    Ok(taken)
}

async fn full(hub: &Hub, text: Option<&str>) -> Result<(), DbError> {
    hub.db
        .set_alarm(FULL, Severity::Warning, text, now_ms())
        .await?;
    hub.alarms.notify_one();
    Ok(())
}

/// The task that hears devices and tells nodes.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    sources: Arc<[Source]>,
    out: mpsc::Sender<Retained>,
    /// What nodes were told on this connection.
    told: BTreeMap<(SiteId, NodeId), Vec<u8>>,
    connected: bool,
    refused: u64,
    logged: Option<Instant>,
}

impl Listener {
    /// Hears from `sources`; what nodes are to know goes to `out`.
    #[must_use]
    pub fn new(hub: Arc<Hub>, sources: Arc<[Source]>, out: mpsc::Sender<Retained>) -> Self {
        Self {
            hub,
            sources,
            out,
            told: BTreeMap::new(),
            connected: false,
            refused: 0,
            logged: None,
        }
    }

    /// Runs until `stop` is set.
    pub async fn run(
        mut self,
        mut heard: mpsc::Receiver<FromBroker>,
        mut stop: watch::Receiver<bool>,
    ) {
        let hub = Arc::clone(&self.hub);
        let mut every = tokio::time::interval(LOOK_EVERY);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                count = heard.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 { return }
                    let messages = std::mem::take(&mut batch);
                    if !self.hear(messages, &mut stop).await { return }
                }
                () = hub.outside.changed.notified() => self.tell_nodes().await,
                _ = every.tick() => {
                    self.end_unheard().await;
                    self.told.clear();
                    self.tell_nodes().await;
                }
                _ = stop.changed() => return,
            }
        }
    }

    /// `false` when told to stop.
    async fn hear(&mut self, messages: Vec<FromBroker>, stop: &mut watch::Receiver<bool>) -> bool {
        let mut words = Vec::new();
        for message in messages {
            match message {
                FromBroker::Connected => {
                    self.connected = true;
                    self.told.clear();
                    self.hub.outside.changed.notify_one();
                }
                FromBroker::Disconnected => self.connected = false,
                FromBroker::Message { topic, payload } => self.word(&topic, &payload, &mut words),
            }
        }
        while !words.is_empty() {
            match take(&self.hub, MQTT, &words, now_ms()).await {
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(
                        error = chain(&error),
                        "alarms of devices wait for the database"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stop.changed() => return false,
            }
        }
        true
    }

    fn word(&mut self, topic: &str, payload: &[u8], words: &mut Vec<Word>) {
        let mut heard = self
            .sources
            .iter()
            .filter_map(|source| source.hear(topic, payload));
        match heard.next() {
            Some(Ok(Heard::Gone)) => words.push(Word::Gone(format!("{topic} "))),
            Some(Ok(Heard::Word(word))) => words.push(Word::Alarm(Said {
                key: format!("{topic} {}", word.alarm),
                name: word.alarm,
                nodes: word.node.into_iter().collect(),
                services: word.service.into_iter().collect(),
                severity: word.severity,
                text: word.text,
                raised: word.raised,
                since: None,
            })),
            Some(Err(error)) => {
                self.hub.metrics.misheard();
                self.refused += 1;
                if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                    self.logged = Some(Instant::now());
                    let refused = self.refused;
                    tracing::warn!(topic, error = %error, refused, "a message is no alarm");
                }
            }
            // The broker sent what was not asked for.
            None => {}
        }
    }

    async fn end_unheard(&self) {
        let now = now_ms();
        let ago = u64::try_from(UNHEARD_MAX.as_millis()).unwrap_or(u64::MAX);
        let ended = self
            .hub
            .db
            .end_unheard(alertmanager::SOURCE, now.saturating_sub(ago), now);
        match ended.await {
            Ok(0) => {}
            Ok(ended) => {
                tracing::info!(
                    ended,
                    "alerts that Alertmanager did not repeat for a day are over"
                );
                self.hub.show_alarms();
            }
            Err(error) => tracing::error!(error = chain(&error), "cannot end old alarms"),
        }
    }

    /// Tells each node what has changed for it.
    async fn tell_nodes(&mut self) {
        if !self.connected {
            return;
        }
        let nodes = match self.hub.db.outside_of_nodes().await {
            Ok(nodes) => nodes,
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot tell nodes of others' alarms");
                return;
            }
        };
        for (who, outside) in nodes {
            let payload = match outside.alarms.is_empty() {
                true => Vec::new(),
                false => serde_json::to_vec(&outside).unwrap_or_default(),
            };
            if self.told.get(&who) == Some(&payload) {
                continue;
            }
            let topic = NodeTopics::new(&who.0, &who.1).outside();
            let retained = Retained {
                topic,
                payload: payload.clone(),
            };
            // One that finds no room is told at the next look.
            if self.out.try_send(retained).is_ok() {
                self.told.insert(who, payload);
            }
        }
    }
}

/// Room for what nodes are told.
pub const TELL_MAX: usize = devices::SEND_MAX;
