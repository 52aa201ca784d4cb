//! The thread that owns the store: journal, outbox and sled.
//!
//! In: what the loop wants kept, and the link's questions. Out: what is on the
//! disk by now, and what went wrong. All writes that came in together share one
//! sync. When the disk refuses, healing goes on without a record: the loop is
//! told, what can be kept in memory is kept, and the disk is tried again.

mod explain;
mod opening;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use homeostat_common::errors::chain;
use homeostat_common::hlc;
use homeostat_common::ids::{BootId, IncidentId, NodeId, SiteId, StreamId};
use homeostat_common::wire::body::{Body, ClockQuality, Gap};
use homeostat_common::wire::{Envelope, EventRef};
use homeostat_templates::Record;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

pub use self::explain::{NO_HISTORY, explain};
pub use self::opening::{journal_limits, open};
pub use self::waiting::HELD_MAX;
use self::waiting::Waiting;
use crate::control::{Class, Event, HealRecord, Resumed, Saved};
use crate::io::clock::{self, Wall};
use crate::io::link::{Fetch, LinkHandle};
use crate::io::logs::Changes;
use crate::io::store::kv::{Kv, Tree};
use crate::io::store::outbox::{self, EventSeq, Item, Outbox};
use crate::io::store::{self, Error};
use crate::learn::Experience;
use crate::words::{incident_of, words};

/// The records of [`Order::Journal`]. Kinds are never reused.
pub const KIND_HEAL: u8 = 1;
/// The checkpoint of what [`Order::Remember`] keeps.
pub const KIND_SAVED: u8 = 2;

/// Orders waiting for the disk; the loop makes a few per event, and a disk that
/// hangs must not take the memory.
const ORDERS_MAX: usize = 1024;

/// The disk is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

/// Wall time is put on the disk this often. It is a hint for a board that starts in 1970, and
/// each time costs a flash card some ten blocks.
const CLOCK_PERIOD: Duration = Duration::from_secs(3600);

/// Events whose place in the stream is remembered for the causes of others.
const MARKS_MAX: usize = 1024;

/// What is said of a journal that has never opened, when nothing better is known.
const NOT_OPEN: &str = "the journal is not open";

/// A journal that came back while the agent runs under another name.
const ANOTHER_STREAM: &str =
    "the journal opens again, as a new stream: restart the agent to take it up";

/// How long sled may take to open on trial.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// Something to keep, or to look up.
#[derive(Debug)]
pub enum Order {
    /// An event for the outbox.
    Event {
        /// Names it for the causes of later ones.
        mark: u64,
        /// Its value.
        class: Class,
        /// What led to it.
        causes: Vec<u64>,
        /// What it says.
        body: Box<Body>,
    },
    /// A record of the plan journal.
    Journal(HealRecord),
    /// Answer with [`Event::Synced`] once everything so far is on the disk.
    Sync(u64),
    /// The records of the plan journal so far are not needed any more.
    Quiet,
    /// State that holds across restarts.
    Remember(Box<Saved>),
    /// What was learnt.
    Learn(Experience),
    /// What changed about log templates.
    Templates(Changes),
    /// The coordinator has everything up to here.
    Acked(u64),
    /// In words: one incident, or the last ones.
    Explain(Option<IncidentId>, oneshot::Sender<String>),
    /// Write everything and end.
    Close,
}

/// What survives in the checkpoint of [`KIND_SAVED`].
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    saved: Saved,
    hlc: hlc::Hlc,
}

/// What the store's thread found when it opened the store.
#[derive(Debug)]
pub struct Opened {
    /// Names this node's events.
    pub stream: StreamId,
    /// The last event that the coordinator has acknowledged.
    pub acked: u64,
    /// The newest event.
    pub last: u64,
    /// For the loop.
    pub resumed: Resumed,
    /// Log templates.
    pub templates: Vec<Record>,
    /// What had to be set aside or repaired.
    pub findings: Vec<String>,
    /// Whether wall time can be believed.
    pub clock: ClockQuality,
}

/// The loop's end of the store. Never blocks; a full queue is a trouble that is
/// reported and counted.
#[derive(Debug, Clone)]
pub struct Keeper {
    orders: mpsc::Sender<Order>,
    backlog: Arc<AtomicU64>,
}

impl Keeper {
    /// Hands over an order. `false` when the disk is so far behind that there
    /// is no room for it.
    pub fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Events that nobody has acknowledged yet.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }
}

fn quality_of(quality: clock::ClockQuality) -> ClockQuality {
    match quality {
        clock::ClockQuality::Plausible => ClockQuality::Plausible,
        clock::ClockQuality::Behind => ClockQuality::BehindFloor,
        clock::ClockQuality::NeverSet => ClockQuality::NeverSet,
    }
}

/// Everything that the store's thread owns.
#[derive(Debug)]
pub struct Thread {
    site: SiteId,
    node: NodeId,
    boot: BootId,
    stream: StreamId,
    path: PathBuf,
    limits: outbox::Config,
    outbox: Option<Outbox>,
    kv: Option<Kv>,
    wall: Wall,
    hlc: hlc::Clock,
    /// Mark and place of recent events.
    marks: VecDeque<(u64, EventRef)>,
    /// Events that the disk refused.
    unwritten: VecDeque<Waiting>,
    /// Aggregates that wait for company.
    held: Vec<Waiting>,
    dropped: u64,
    /// Why the disk is not used now.
    trouble: Option<String>,
    /// What the loop was told last.
    told: Option<String>,
    ticket: Option<u64>,
    /// Something new is there for the link.
    written: bool,
}

impl Thread {
    /// Starts the thread; it ends at [`Order::Close`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        mut self,
        events: mpsc::Sender<Event>,
        mut fetches: mpsc::Receiver<Fetch>,
        link: Option<LinkHandle>,
    ) -> std::io::Result<(Keeper, std::thread::JoinHandle<()>)> {
        let (orders, mut queue) = mpsc::channel(ORDERS_MAX);
        let backlog = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&backlog);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                runtime.block_on(async {
                    let mut clock = tokio::time::interval(CLOCK_PERIOD);
                    let mut retry = tokio::time::interval(RETRY);
                    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                    loop {
                        self.tell_trouble(&events);
                        let troubled = self.trouble.is_some() || self.told.is_some();
                        tokio::select! {
                            order = queue.recv() => {
                                let Some(order) = order else { break };
                                let mut open = self.take(order);
                                // Whatever else is waiting shares the sync.
                                while open {
                                    match queue.try_recv() {
                                        Ok(order) => open = self.take(order),
                                        Err(_) => break,
                                    }
                                }
                                self.settle(&events);
                                if !open { break }
                            }
                            Some(fetch) = fetches.recv() => self.answer(fetch),
                            _ = retry.tick(), if troubled => self.try_again(),
                            _ = clock.tick() => {
                                if let Err(error) = self.wall.persist() {
                                    warn!("clock: {}", chain(&error));
                                }
                            }
                        }
                        let pending = self.outbox.as_ref().map_or(0, Outbox::pending);
                        count.store(pending as u64, Ordering::Relaxed);
                        if std::mem::take(&mut self.written)
                            && let Some(link) = &link
                        {
                            link.notify_backlog();
                        }
                    }
                    self.close();
                });
            })?;
        Ok((Keeper { orders, backlog }, thread))
    }

    /// `false` at the end.
    fn take(&mut self, order: Order) -> bool {
        match order {
            Order::Event {
                mark,
                class,
                causes,
                body,
            } => {
                self.tell(&body);
                self.accept(mark, class, causes, *body);
            }
            Order::Journal(record) => {
                let written = postcard::to_allocvec(&record)
                    .map_err(|error| error.to_string())
                    .and_then(|bytes| self.append(|outbox| outbox.append(KIND_HEAL, &bytes)));
                self.note_trouble(written.err());
            }
            Order::Sync(ticket) => self.ticket = Some(ticket),
            Order::Quiet => {
                let written = self.append(|outbox| outbox.checkpoint(KIND_HEAL, &[]));
                self.note_trouble(written.err());
            }
            Order::Remember(saved) => {
                let checkpoint = Checkpoint {
                    saved: *saved,
                    hlc: self.hlc.high_water(),
                };
                let written = postcard::to_allocvec(&checkpoint)
                    .map_err(|error| error.to_string())
                    .and_then(|bytes| self.append(|outbox| outbox.checkpoint(KIND_SAVED, &bytes)));
                self.note_trouble(written.err());
            }
            Order::Learn(experience) => self.learn(&experience),
            Order::Templates(changes) => self.templates(&changes),
            Order::Acked(through) => {
                if let Some(outbox) = &mut self.outbox {
                    outbox.acked(EventSeq(through));
                }
            }
            Order::Explain(incident, reply) => {
                let _ = reply.send(explain(self.kv.as_ref(), incident));
            }
            Order::Close => return false,
        }
        true
    }

    fn append<T>(
        &mut self,
        write: impl FnOnce(&mut Outbox) -> Result<T, Error>,
    ) -> Result<T, String> {
        match &mut self.outbox {
            Some(outbox) => write(outbox).map_err(|error| chain(&error)),
            None => Err(NOT_OPEN.into()),
        }
    }

    /// Writes an event; `false` if it has to be tried again.
    fn push(&mut self, event: &Waiting) -> bool {
        let Some(outbox) = &mut self.outbox else {
            self.note_trouble(Some(NOT_OPEN.into()));
            return false;
        };
        let seq = outbox.next_event().0;
        let envelope = Envelope {
            site: self.site.clone(),
            node: self.node.clone(),
            stream: self.stream,
            seq,
            boot: self.boot,
            hlc: event.told,
            causes: event
                .causes
                .iter()
                .filter_map(|cause| {
                    let found = self.marks.iter().find(|(mark, _)| mark == cause);
                    found.map(|(_, reference)| *reference)
                })
                .collect(),
            body: event.body.clone(),
        };
        let max = outbox.event_max();
        let bytes = match envelope.encode().map_err(|error| chain(&error)) {
            Ok(bytes) if bytes.len() <= max => bytes,
            // No disk will ever take it, and what waits behind it must not wait for ever.
            refused => {
                let why = refused.err();
                let why = why.unwrap_or_else(|| format!("larger than {max} bytes"));
                warn!("store: an event cannot be kept and is lost: {why}");
                return true;
            }
        };
        let written = outbox.push(class_of(event.class), &bytes);
        match written.map_err(|error| chain(&error)) {
            Ok(given) => {
                debug_assert_eq!(given.0, seq);
                if self.marks.len() == MARKS_MAX {
                    self.marks.pop_front();
                }
                self.marks.push_back((event.mark, envelope.reference()));
                self.written = true;
                self.file(&envelope);
                true
            }
            Err(why) => {
                self.note_trouble(Some(why));
                false
            }
        }
    }

    /// Files an event under its incident, for `explain`.
    fn file(&mut self, envelope: &Envelope) {
        let (Some(kv), Some(incident)) = (&mut self.kv, incident_of(&envelope.body)) else {
            return;
        };
        let mut key = incident.0.to_be_bytes().to_vec();
        key.extend_from_slice(&envelope.seq.to_be_bytes());
        let Ok(value) = postcard::to_allocvec(&(envelope.hlc, &envelope.body)) else {
            return;
        };
        let filed = kv.put(Tree::History, &key, &value).and_then(|()| {
            // sled keeps back what is new for half a second, and an end that is
            // lost is not told again: a killed agent would leave the incident
            // open in `explain` for ever.
            match &envelope.body {
                Body::IncidentClosed(_) => kv.flush(),
                _ => Ok(()),
            }
        });
        if let Err(error) = filed {
            warn!("history: {}", chain(&error));
        }
    }

    fn learn(&mut self, experience: &Experience) {
        let (Some(kv), Ok(bytes)) = (&mut self.kv, postcard::to_allocvec(experience)) else {
            return;
        };
        let kept = kv
            .put(Tree::Playbook, b"experience", &bytes)
            .and_then(|()| kv.flush());
        if let Err(error) = kept {
            warn!("playbook: {}", chain(&error));
        }
    }

    fn templates(&mut self, changes: &Changes) {
        let Some(kv) = &mut self.kv else { return };
        let put = changes.put.iter().try_for_each(|record| {
            let Ok(bytes) = postcard::to_allocvec(record) else {
                return Ok(());
            };
            kv.put(Tree::Templates, &record.id.to_be_bytes(), &bytes)
        });
        let mut gone = changes.gone.iter();
        let kept = put.and_then(|()| {
            gone.try_for_each(|id| kv.remove(Tree::Templates, &id.to_be_bytes()).map(drop))
        });
        if let Err(error) = kept {
            warn!("templates: {}", chain(&error));
        }
    }

    fn tell(&self, body: &Body) {
        if let Some(text) = words(body) {
            for line in text.lines() {
                info!("{line}");
            }
        }
    }

    /// The first reason stays until the disk has had another try: what follows
    /// from it says less.
    fn note_trouble(&mut self, trouble: Option<String>) {
        if self.trouble.is_none() && trouble.is_some() {
            self.trouble = trouble;
        }
    }

    /// After a batch: syncs if somebody waits.
    fn settle(&mut self, events: &mpsc::Sender<Event>) {
        if let Some(ticket) = self.ticket.take() {
            let synced = self.append(Outbox::sync);
            self.note_trouble(synced.err());
            // Without a disk a plan goes on all the same, and says so.
            let _ = events.try_send(Event::Synced(ticket));
        }
    }

    /// Tells the loop once of trouble that begins, changes or ends. A loop that
    /// has no room for it now is told at the next retry.
    fn tell_trouble(&mut self, events: &mpsc::Sender<Event>) {
        if self.trouble == self.told {
            return;
        }
        let said = events.try_send(Event::StoreTrouble(self.trouble.clone()));
        if said.is_ok() {
            match &self.trouble {
                Some(trouble) => warn!("store: {trouble}"),
                None => info!("store: the disk takes records again"),
            }
            self.told.clone_from(&self.trouble);
        }
    }

    /// Gives the disk another try.
    fn try_again(&mut self) {
        let Some(former) = self.trouble.take() else {
            return;
        };
        if self.outbox.is_none() {
            match Outbox::open(&self.path, self.limits) {
                Ok((outbox, _)) if StreamId(outbox.stream().0) == self.stream => {
                    self.outbox = Some(outbox);
                }
                // Another stream than the one that was announced: taken up at
                // the next start, when everything begins with it.
                Ok(_) => self.trouble = Some(ANOTHER_STREAM.into()),
                Err(error) => self.trouble = Some(not_opened(&error)),
            }
            if self.trouble.is_some() {
                return;
            }
        }
        while let Some(event) = self.unwritten.pop_front() {
            if !self.push(&event) {
                self.unwritten.push_front(event);
                // What the push noted, else as before.
                self.note_trouble(Some(former));
                return;
            }
        }
        let works = self.append(Outbox::sync);
        self.note_trouble(works.err());
        if self.trouble.is_none() && self.dropped > 0 {
            let count = std::mem::take(&mut self.dropped);
            warn!("store: {count} events were lost meanwhile");
        }
    }

    /// Answers the link. Numbers that hold no event are named by a gap, which
    /// takes the place of the last of them.
    fn answer(&mut self, fetch: Fetch) {
        let mut records = Vec::new();
        let items =
            self.append(|outbox| outbox.next_unacked(EventSeq(fetch.after), fetch.max_bytes));
        match items {
            Ok(items) => {
                for item in items {
                    match item {
                        Item::Event { seq, record, .. } => records.push((seq.0, record)),
                        Item::Gap(gap) => records.extend(self.gap(gap)),
                    }
                }
            }
            Err(why) => self.note_trouble(Some(why)),
        }
        let _ = fetch.reply.send(records);
    }

    fn gap(&mut self, gap: outbox::Gap) -> Option<(u64, Vec<u8>)> {
        let (unix_ms, _) = self.wall.unix_ms();
        let heal = self
            .outbox
            .as_ref()
            .map_or(0, |outbox| outbox.dropped(outbox::Class::Heal).events);
        let envelope = Envelope {
            site: self.site.clone(),
            node: self.node.clone(),
            stream: self.stream,
            seq: gap.last.0,
            boot: self.boot,
            hlc: self.hlc.tick(unix_ms),
            causes: Vec::new(),
            body: Body::Gap(Gap {
                from: gap.first.0,
                through: gap.last.0,
                heal,
            }),
        };
        Some((gap.last.0, envelope.encode().ok()?))
    }

    fn close(mut self) {
        self.release();
        if let Err(error) = self.wall.persist() {
            warn!("clock: {}", chain(&error));
        }
        if let Some(kv) = &self.kv
            && let Err(error) = kv.flush()
        {
            warn!("history: {}", chain(&error));
        }
        if let Some(outbox) = self.outbox.take()
            && let Err(error) = outbox.close()
        {
            warn!("journal: {}", chain(&error));
        }
    }
}

fn not_opened(error: &Error) -> String {
    format!("the journal could not be opened: {}", chain(error))
}

fn class_of(class: Class) -> outbox::Class {
    match class {
        Class::Telemetry => outbox::Class::Aggregate,
        Class::State => outbox::Class::Outcome,
        Class::Heal => outbox::Class::Heal,
    }
}

/// Opens sled on trial in a child: `program kv-trial PATH`.
///
/// # Errors
/// When the child cannot be started.
pub fn trial(path: &Path) -> std::io::Result<bool> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(TRIAL_ARGS).arg(path);
    store::kv::trial_in_child(command, TRIAL_MAX)
}

/// The hidden arguments that make this program try to open a store. A program
/// that plays several roles passes them on to the agent's main.
pub const TRIAL_ARGS: [&str; 1] = ["kv-trial"];
