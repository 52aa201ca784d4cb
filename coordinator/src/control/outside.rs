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
    settle(hub, &taken).await?;
    Ok(taken)
}

/// What follows from a change: whether there is room, who is told, what the page shows.
async fn settle(hub: &Hub, taken: &Taken) -> Result<(), DbError> {
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
    Ok(())
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
    /// Somebody found no room in `out`.
    behind: bool,
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
            behind: false,
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
        let out = self.out.clone();
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
                Ok(room) = out.reserve_many(out.max_capacity()), if self.connected && self.behind => {
                    drop(room);
                    self.tell_nodes().await;
                }
                _ = every.tick() => {
                    self.end_unheard().await;
                    // Nobody is told twice before everybody is told once.
                    if !self.behind {
                        self.told.clear();
                    }
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
                    self.behind = false;
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
            Some(Ok(Heard::Gone)) => words.push(Word::Gone(key(topic, ""))),
            Some(Ok(Heard::Word(word))) => words.push(Word::Alarm(Said {
                key: key(topic, &word.alarm),
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
        let ended = async {
            let taken = ended.await?;
            settle(&self.hub, &taken).await.map(|()| taken.resolved)
        };
        match ended.await {
            Ok(0) => {}
            Ok(ended) => tracing::info!(
                ended,
                "alerts that Alertmanager did not repeat for a day are over"
            ),
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
        let mut words: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|(who, outside)| match outside.alarms.is_empty() {
                true => (who, Vec::new()),
                false => (who, serde_json::to_vec(&outside).unwrap_or_default()),
            })
            .collect();
        // The last alarm about a node may be about another one by now.
        for who in self.told.keys() {
            words.entry(who.clone()).or_default();
        }
        self.behind = false;
        for (who, payload) in words {
            if self.told.get(&who) == Some(&payload) {
                continue;
            }
            let retained = Retained {
                topic: NodeTopics::new(&who.0, &who.1).outside(),
                payload: payload.clone(),
            };
            // One that finds no room is told when there is some.
            if self.out.try_send(retained).is_err() {
                self.behind = true;
                return;
            }
            self.told.insert(who, payload);
        }
    }
}

/// What an alarm of a device is told apart by; without a name, how those of the topic begin.
/// No topic has a `#` in it, so none begins like another one.
fn key(topic: &str, alarm: &str) -> String {
    format!("{topic}#{alarm}")
}

/// Room for what nodes are told.
pub const TELL_MAX: usize = devices::SEND_MAX;

#[cfg(test)]
mod tests {
    use homeostat_common::wire::seal::Signer;

    use super::*;
    use crate::io::db::Db;
    use crate::io::db::tests::sent::note;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    async fn hub(folder: &std::path::Path, nodes: &[&str]) -> Arc<Hub> {
        let db = Db::open(folder).await.unwrap();
        let records: Vec<_> = nodes.iter().map(|node| note(node, 1)).collect();
        let batch: Vec<_> = records.iter().collect();
        db.store(&batch, &[], &[], 1).await.unwrap();
        let (asks, _) = mpsc::channel(1);
        let key = Signer::new(&[7; 32]).key();
        let outside = Outside::new(Labels::default(), String::new());
        Arc::new(Hub::new(
            db,
            asks,
            key,
            String::new(),
            outside,
            None,
            Vec::new(),
        ))
    }

    fn about(node: &str, key: &str) -> Word {
        Word::Alarm(Said {
            key: key.into(),
            name: "hot".into(),
            nodes: vec![node.into()],
            services: Vec::new(),
            severity: Severity::Warning,
            text: "92 C".into(),
            raised: true,
            since: None,
        })
    }

    /// A listener with room for `room` words; what it tells, and how it hears.
    fn listener(
        hub: &Arc<Hub>,
        room: usize,
    ) -> (Listener, mpsc::Receiver<Retained>, watch::Sender<bool>) {
        let (out, told) = mpsc::channel(room);
        let (stop, _) = watch::channel(false);
        (Listener::new(hub.clone(), Arc::new([]), out), told, stop)
    }

    async fn next(told: &mut mpsc::Receiver<Retained>) -> (String, bool) {
        let word = tokio::time::timeout(Duration::from_secs(10), told.recv());
        let Retained { topic, payload } = word.await.expect("told within 10 s").unwrap();
        (topic, payload.is_empty())
    }

    #[test]
    fn every_node_is_told_however_little_room_there_is() {
        let folder = tempfile::tempdir().unwrap();
        wait(async {
            let nodes = ["a", "b", "c", "d", "e"];
            let hub = hub(folder.path(), &nodes).await;
            let words = nodes.map(|node| about(node, node));
            take(&hub, MQTT, &words, 1).await.unwrap();
            let (listener, mut told, stop) = listener(&hub, 2);
            let (heard, from_broker) = mpsc::channel(1);
            let task = tokio::spawn(listener.run(from_broker, stop.subscribe()));
            heard.send(FromBroker::Connected).await.unwrap();
            for node in nodes {
                let (topic, over) = next(&mut told).await;
                assert_eq!((topic, over), (format!("hs/v1/plant-7/{node}/ext"), false));
            }
            drop(heard);
            task.await.unwrap();
        });
    }

    #[test]
    fn a_node_that_an_alarm_is_not_about_any_more_is_told() {
        let folder = tempfile::tempdir().unwrap();
        wait(async {
            let hub = hub(folder.path(), &["a", "b"]).await;
            let (mut listener, mut told, _stop) = listener(&hub, 8);
            listener.connected = true;
            take(&hub, MQTT, &[about("a", "1")], 1).await.unwrap();
            listener.tell_nodes().await;
            take(&hub, MQTT, &[about("b", "1")], 2).await.unwrap();
            listener.tell_nodes().await;
            let topic = |node: &str| format!("hs/v1/plant-7/{node}/ext");
            assert_eq!(next(&mut told).await, (topic("a"), false));
            assert_eq!(next(&mut told).await, (topic("a"), true));
            assert_eq!(next(&mut told).await, (topic("b"), false));
        });
    }

    #[test]
    fn when_alarms_end_unheard_there_is_room_again() {
        let folder = tempfile::tempdir().unwrap();
        wait(async {
            let hub = hub(folder.path(), &[]).await;
            let flood: Vec<Word> = (0..=CRITICAL_FROM)
                .map(|n| about("-", &n.to_string()))
                .collect();
            take(&hub, alertmanager::SOURCE, &flood, 1).await.unwrap();
            let full = || async {
                let alarms = hub.db.own_alarms().await.unwrap();
                alarms
                    .iter()
                    .any(|alarm| alarm.name == FULL && alarm.raised)
            };
            assert!(full().await);
            let (listener, _told, _stop) = listener(&hub, 1);
            listener.end_unheard().await;
            assert!(!full().await);
        });
    }

    #[test]
    fn what_a_topic_told_is_over_with_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        wait(async {
            let hub = hub(folder.path(), &[]).await;
            let filter = "plant/#".parse().unwrap();
            let source = Source {
                topic: filter,
                form: homeostat_notify::intake::Form::Alarm,
                severity: Severity::Warning,
                service: None,
            };
            let (out, _told) = mpsc::channel(1);
            let mut listener = Listener::new(hub.clone(), Arc::new([source]), out);
            let mut words = Vec::new();
            let raised = br#"{"alarm": "hot", "state": "raised"}"#;
            for topic in ["plant/press", "plant/press 2"] {
                listener.word(topic, raised, &mut words);
            }
            listener.word("plant/press", b"", &mut words);
            let taken = take(&hub, MQTT, &words, 1).await.unwrap();
            assert_eq!((taken.raised, taken.resolved, taken.standing), (2, 1, 1));
        });
    }
}
