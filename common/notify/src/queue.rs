//! The queue of each webhook.
//!
//! In go messages for webhooks of the configuration, by name; out come deliveries,
//! and reports of what became of them. Each webhook has a thread and a bounded
//! queue of its own, so that one that hangs delays no other one and never the caller.
//! A message is sent until somebody took it, with growing pauses; the same message
//! keeps its idempotency key. One that is not taken lets the others pass: order is kept
//! only among messages about the same, and what is urgent comes first. The queue itself
//! is not on the disk: whoever holds the alarms repeats one that nobody has
//! acknowledged, also after a restart, under the same key.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use homeostat_common::errors::chain;
use homeostat_common::ids::{Token, WebhookId};
use tracing::{info, warn};

use crate::post::{PostError, post};
use crate::sign::{SecretError, secret, signature};
use crate::{Told, Webhook};

/// Messages that wait for one receiver; the oldest goes when there are more. Some
/// hundred bytes each.
pub const QUEUE_MAX: usize = 128;

/// After so many failures in a row people are told by the other ways.
const TROUBLE_AFTER: u32 = 3;

/// How messages are sent again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The first pause; it doubles,
    pub first: Duration,
    /// up to this.
    pub most: Duration,
    /// Older messages are given up: whoever comes back after that long looks at
    /// what stands, which is repeated.
    pub give_up: Duration,
    /// The same for messages that somebody waits for; the last try may still take
    /// as long as an exchange.
    pub call: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(300),
            give_up: Duration::from_secs(86_400),
            call: Duration::from_secs(5),
        }
    }
}

/// A message on its way.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it is about: the header `Homeostat-Event`.
    pub event: &'static str,
    /// Names it, however often it is sent.
    pub key: String,
    /// JSON.
    pub body: Vec<u8>,
    /// What it is about: such messages arrive in their order.
    pub about: Option<String>,
    /// It takes the place of those about the same that do so and still wait.
    pub replaces: bool,
    /// It waits for no older message about something else.
    pub urgent: bool,
    /// Who called, and wants to know what became of it.
    pub ticket: Option<Token>,
}

/// What became of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Messages to this webhook do not arrive (`Some`), or do again.
    Trouble(WebhookId, Option<String>),
    /// A message that somebody waits for was taken, or given up.
    Called {
        /// As given.
        ticket: Token,
        /// Why not.
        result: Result<(), String>,
    },
}

/// Takes a report, from any of the threads and without waiting; whether it could.
pub type Reports = Arc<dyn Fn(Report) -> bool + Send + Sync>;

/// A message cannot be sent at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such webhook.
    #[error("there is no webhook {0} in the configuration")]
    Unknown(WebhookId),
}

/// All webhooks of a node.
#[derive(Debug, Default)]
pub struct Webhooks {
    pub(crate) hooks: Vec<Arc<Hook>>,
}

impl Webhooks {
    /// Starts a thread for each of them. `program` is the name and version that
    /// receivers see.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        configured: &[Webhook],
        patience: Patience,
        program: &'static str,
        reports: &Reports,
    ) -> std::io::Result<Self> {
        let mut hooks = Vec::new();
        for webhook in configured {
            let hook = Arc::new(Hook {
                webhook: webhook.clone(),
                program,
                queue: Mutex::new(Queue::default()),
                changed: Condvar::new(),
            });
            let (own, reports) = (Arc::clone(&hook), Arc::clone(reports));
            std::thread::Builder::new()
                .name(format!("hook-{}", webhook.name))
                .spawn(move || own.serve(patience, &reports))?;
            hooks.push(hook);
        }
        Ok(Self { hooks })
    }

    /// Sends a message to everyone who wants to know of this, but `besides`.
    pub fn tell(&self, told: Told, message: &Message, besides: Option<&WebhookId>) {
        let wants = |hook: &&Arc<Hook>| {
            hook.webhook.events.contains(&told) && Some(&hook.webhook.name) != besides
        };
        for hook in self.hooks.iter().filter(wants) {
            hook.push(message.clone());
        }
    }

    /// Whether anybody wants to know of this.
    #[must_use]
    pub fn wanted(&self, told: Told) -> bool {
        let mut hooks = self.hooks.iter();
        hooks.any(|hook| hook.webhook.events.contains(&told))
    }

    /// Sends a message to one webhook, whatever that wants to know of. With a
    /// ticket, a [`Report::Called`] says what became of it.
    ///
    /// # Errors
    /// [`CallError`] when there is no such webhook.
    pub fn call(&self, name: &WebhookId, message: Message) -> Result<(), CallError> {
        let hook = self.hooks.iter().find(|hook| hook.webhook.name == *name);
        let hook = hook.ok_or_else(|| CallError::Unknown(name.clone()))?;
        hook.push(message);
        Ok(())
    }
}

impl Drop for Webhooks {
    /// The threads end by themselves, after what they are sending: nobody waits.
    fn drop(&mut self) {
        for hook in &self.hooks {
            hook.lock().closed = true;
            hook.changed.notify_all();
        }
    }
}

/// A message that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) message: Message,
    /// Tells it from the others; later ones have larger ones.
    place: u64,
    since: Instant,
    /// It is not tried before this,
    due: Instant,
    /// which is so long after it failed last.
    pause: Duration,
    /// How often it failed.
    failures: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The oldest first. What is being sent stays here until it was taken.
    pub(crate) waiting: VecDeque<Waiting>,
    /// What is being sent.
    pub(crate) sending: Option<u64>,
    places: u64,
    /// Messages that had to go, and who waited for them.
    dropped: u64,
    unheard: Vec<Token>,
    closed: bool,
}

impl Queue {
    /// The message to be sent next, or when there is one.
    fn choose(&self, now: Instant) -> Result<&Waiting, Option<Instant>> {
        let first_about = |place: usize, one: &Waiting| {
            let mut before = self.waiting.iter().take(place);
            one.message.about.is_none()
                || before.all(|other| other.message.about != one.message.about)
        };
        let next = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(place, one)| first_about(*place, one))
            // Nobody is urgent who is not due.
            .min_by_key(|(_, one)| match one.due <= now {
                true => (0, !one.message.urgent, one.due),
                false => (1, false, one.due),
            });
        match next {
            Some((_, one)) if one.due <= now => Ok(one),
            Some((_, one)) => Err(Some(one.due)),
            None => Err(None),
        }
    }

    fn make_room(&mut self) {
        let sending = self.sending;
        let free = |one: &Waiting| Some(one.place) != sending;
        let mut all = self.waiting.iter();
        let usual = all.position(|one| free(one) && !one.message.urgent);
        let place = usual.or_else(|| self.waiting.iter().position(free));
        if let Some(gone) = place.and_then(|place| self.waiting.remove(place)) {
            self.dropped += 1;
            if self.unheard.len() < QUEUE_MAX {
                self.unheard.extend(gone.message.ticket);
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Hook {
    webhook: Webhook,
    program: &'static str,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Post(#[from] PostError),
}

impl Hook {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole between any two of its statements.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, message: Message) {
        let now = Instant::now();
        let mut queue = self.lock();
        if message.replaces {
            queue
                .waiting
                .retain(|older| !older.message.replaces || older.message.about != message.about);
        }
        if queue.waiting.len() >= QUEUE_MAX {
            queue.make_room();
        }
        queue.places += 1;
        let place = queue.places;
        queue.waiting.push_back(Waiting {
            message,
            place,
            since: now,
            due: now,
            pause: Duration::ZERO,
            failures: 0,
        });
        drop(queue);
        self.changed.notify_one();
    }

    /// The next message, its place and since when it waits; `None` at the end.
    fn next(&self, reports: &Reports) -> Option<(Message, u64, Instant)> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            let name = &self.webhook.name;
            if std::mem::take(&mut queue.dropped) > 0 {
                warn!("webhook {name}: messages are lost, {QUEUE_MAX} wait already");
            }
            for ticket in std::mem::take(&mut queue.unheard) {
                let result = Err("too many messages wait".to_owned());
                reports(Report::Called { ticket, result });
            }
            let now = Instant::now();
            let until = match queue.choose(now) {
                Ok(next) => {
                    let next = (next.message.clone(), next.place, next.since);
                    queue.sending = Some(next.1);
                    return Some(next);
                }
                Err(until) => until,
            };
            // Nobody looks back at a message that never ends.
            let span = until.map_or(Duration::MAX, |until| until - now);
            let waited = self.changed.wait_timeout(queue, span);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// It was taken or is given up; whether it was still wanted.
    fn settle(&self, place: u64) -> bool {
        let mut queue = self.lock();
        queue.sending = None;
        let before = queue.waiting.len();
        queue.waiting.retain(|one| one.place != place);
        queue.waiting.len() < before
    }

    /// It was not taken: the others go first. How often that happened to it.
    fn put_back(&self, place: u64, patience: Patience) -> u32 {
        let mut queue = self.lock();
        queue.sending = None;
        // A newer one may have taken its place.
        let Some(one) = queue.waiting.iter_mut().find(|one| one.place == place) else {
            return 0;
        };
        one.failures = one.failures.saturating_add(1);
        one.pause = (one.pause * 2).clamp(patience.first, patience.most);
        // Apart from each other, whoever failed together.
        let share = 0.5 + fastrand::f64() / 2.0;
        one.due = Instant::now() + one.pause.mul_f64(share);
        if one.message.ticket.is_some() {
            one.due = one.due.min(one.since + patience.call);
        }
        one.failures
    }

    /// Whether a message waits that was refused again and again.
    fn is_stuck(&self) -> bool {
        let queue = self.lock();
        let mut waiting = queue.waiting.iter();
        waiting.any(|one| one.failures >= TROUBLE_AFTER)
    }

    fn serve(&self, patience: Patience, reports: &Reports) {
        let name = &self.webhook.name;
        let mut failures = 0u32;
        let mut told = false;
        while let Some((message, place, since)) = self.next(reports) {
            let most = match message.ticket {
                Some(_) => patience.call,
                None => patience.give_up,
            };
            // Its step is over: done now, it would be done behind everybody's back.
            if let Some(ticket) = message.ticket.filter(|_| since.elapsed() >= most) {
                self.settle(place);
                let result = Err("not taken in time, or kept waiting by others".to_owned());
                reports(Report::Called { ticket, result });
                continue;
            }
            let result = match self.send(&message) {
                Ok(()) => Ok(()),
                Err(error) => {
                    let why = chain(&error);
                    failures = failures.saturating_add(1);
                    let is_final = matches!(&error, SendError::Post(error) if error.is_final());
                    let over = is_final || since.elapsed() >= most;
                    let own = if over {
                        0
                    } else {
                        self.put_back(place, patience)
                    };
                    if !told && (failures.max(own) >= TROUBLE_AFTER || is_final) {
                        warn!("webhook {name}: {why}");
                        let trouble = Report::Trouble(name.clone(), Some(why.clone()));
                        told = reports(trouble);
                    }
                    if !over {
                        continue;
                    }
                    Err(why)
                }
            };
            self.settle(place);
            if result.is_ok() {
                failures = 0;
                if told && !self.is_stuck() {
                    info!("webhook {name}: messages arrive again");
                    told = !reports(Report::Trouble(name.clone(), None));
                }
            }
            if let Some(ticket) = message.ticket {
                reports(Report::Called { ticket, result });
            }
        }
    }

    fn send(&self, message: &Message) -> Result<(), SendError> {
        let secret = secret(&self.webhook.secret_file)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let timestamp = now.map_or(0, |since| since.as_secs());
        let headers = [
            ("Content-Type", "application/json".to_owned()),
            ("User-Agent", self.program.to_owned()),
            ("Homeostat-Event", message.event.to_owned()),
            ("Homeostat-Timestamp", timestamp.to_string()),
            (
                "Homeostat-Signature",
                signature(&secret, timestamp, &message.body),
            ),
            ("Idempotency-Key", message.key.clone()),
        ];
        Ok(post(&self.webhook.url, &headers, &message.body)?)
    }
}
