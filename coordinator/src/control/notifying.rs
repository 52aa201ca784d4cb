//! Calls people for what the coordinator itself has to tell: signed webhooks.
//!
//! In: the alarms of the database whenever one changed, the time, and what became of
//! messages. Out: messages for every webhook of the configuration, and an alarm of its
//! own for one that takes none. The queues of the webhooks have threads of their own, so
//! nothing here waits for a receiver, and nothing waits for this task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homeostat_common::ids::WebhookId;
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::notice::Notice;
use homeostat_common::wire::topic::COORDINATOR;
use homeostat_notify::notice::{Origin, about, of_webhook};
use homeostat_notify::{Patience, Report, Reports, Told as Kind, Webhook, Webhooks};
use tokio::sync::{mpsc, watch};

use super::alarms::{Due, People, Told, due};
use super::ingest::chain;
use super::{Hub, now_ms};
use crate::io::db::DbError;
use crate::io::db::own::OwnAlarm;

/// What webhooks see of who sends.
const PROGRAM: &str = concat!("homeostat/", env!("CARGO_PKG_VERSION"));

/// Reports that wait: each webhook has one on the way, seldom two.
const REPORTS_MAX: usize = 64;

/// Pause after the database refused.
const RETRY: Duration = Duration::from_secs(5);

/// The task.
#[derive(Debug)]
pub struct Notifier {
    hub: Arc<Hub>,
    webhooks: Webhooks,
    /// Whether there is any.
    heard: bool,
    reports: mpsc::Receiver<Report>,
    people: People,
    /// Names this database's alarms.
    stream: String,
    /// By the number of the alarm.
    told: BTreeMap<u64, Told>,
    /// Whose end was told, and which the database has yet to forget.
    over: BTreeSet<u64>,
    /// Webhooks that take nothing, or do again, which the database does not know yet.
    trouble: BTreeMap<WebhookId, Option<String>>,
}

/// Why nobody can be called.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The system gives no thread.
    #[error("cannot start the threads of the webhooks")]
    Threads(#[source] std::io::Error),
}

impl Notifier {
    /// Starts the queues of the webhooks.
    ///
    /// # Errors
    /// [`NotifierError`].
    pub async fn open(
        hub: Arc<Hub>,
        configured: &[Webhook],
        people: People,
    ) -> Result<Self, NotifierError> {
        let minted = format!("{:016x}", fastrand::u64(..));
        let stream = hub.db.setting("alarms", &minted).await?;
        // What a former life found out about receivers has to be found out again.
        for alarm in hub.db.own_alarms().await? {
            if about(&alarm.name).is_some() {
                let (name, grave) = (&alarm.name, Severity::Warning);
                hub.db.set_alarm(name, grave, None, now_ms()).await?;
            }
        }
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let report: Reports = Arc::new(move |report| sender.try_send(report).is_ok());
        let webhooks = Webhooks::start(configured, Patience::default(), PROGRAM, &report)
            .map_err(NotifierError::Threads)?;
        Ok(Self {
            hub,
            webhooks,
            heard: !configured.is_empty(),
            reports,
            people,
            stream,
            told: BTreeMap::new(),
            over: BTreeSet::new(),
            trouble: BTreeMap::new(),
        })
    }

    /// Runs until `stop` is set.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let hub = Arc::clone(&self.hub);
        loop {
            let wake = match self.look().await {
                Ok(wake) => wake,
                Err(error) => {
                    tracing::error!(error = chain(&error), "cannot tell people of alarms");
                    Some(Instant::now() + RETRY)
                }
            };
            tokio::select! {
                () = hub.alarms.notified() => {}
                Some(report) = self.reports.recv() => self.absorb(report),
                () = sleep_until(wake) => {}
                _ = stop.changed() => return,
            }
        }
    }

    fn absorb(&mut self, report: Report) {
        match report {
            Report::Trouble(name, why) => {
                self.trouble.insert(name, why);
            }
            // Nobody here waits for a message.
            Report::Called { .. } => {}
        }
    }

    /// Tells what is due; when to look again.
    async fn look(&mut self) -> Result<Option<Instant>, DbError> {
        while let Some((name, why)) = self.trouble.first_key_value() {
            let text = why
                .as_ref()
                .map(|why| format!("notices do not reach {name}: {why}"));
            let alarm = of_webhook(name);
            self.hub
                .db
                .set_alarm(&alarm, Severity::Warning, text.as_deref(), now_ms())
                .await?;
            self.trouble.pop_first();
            self.hub.show_alarms();
        }
        let alarms = self.hub.db.own_alarms().await?;
        self.told
            .retain(|number, _| alarms.iter().any(|alarm| alarm.number == *number));
        let mut wake: Option<Instant> = None;
        for alarm in &alarms {
            let next = self.attend(alarm).await?;
            wake = [wake, next].into_iter().flatten().min();
        }
        Ok(wake)
    }

    async fn attend(&mut self, alarm: &OwnAlarm) -> Result<Option<Instant>, DbError> {
        loop {
            let here = self.told.get(&alarm.number).copied();
            match due(alarm, here, &self.people, Instant::now()) {
                Due::Nothing(next) => return Ok(next),
                // Whoever is configured later is the first to hear of it.
                Due::Tell(..) if !self.heard => return Ok(None),
                Due::Tell(notice, told) => {
                    // In the queue first: what is told twice has one key, what is
                    // never told nobody hears.
                    self.tell(&notice);
                    self.told.insert(alarm.number, told);
                    let Told { word, repeats, .. } = told;
                    if (Some(word), repeats) != (alarm.told, alarm.repeats) {
                        let db = &self.hub.db;
                        db.alarm_told(alarm.number, word, repeats).await?;
                    }
                }
                Due::End(notice) => {
                    if let Some(notice) = notice.filter(|_| self.over.insert(alarm.number)) {
                        self.tell(&notice);
                    }
                    self.hub.db.forget_alarm(alarm.number).await?;
                    self.over.remove(&alarm.number);
                    self.told.remove(&alarm.number);
                    self.hub.show_alarms();
                    return Ok(None);
                }
            }
        }
    }

    fn tell(&self, notice: &Notice) {
        tracing::info!(alarm = notice.alarm, news = ?notice.news, repeat = notice.repeat, "tells people");
        let origin = Origin {
            // It stands for all of them.
            site: "",
            node: COORDINATOR,
            stream: &self.stream,
            at_ms: now_ms(),
        };
        if let Some(message) = origin.alarm(notice) {
            let besides = about(&notice.alarm);
            self.webhooks.tell(Kind::Alarm, &message, besides.as_ref());
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
