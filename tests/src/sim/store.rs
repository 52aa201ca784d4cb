//! The agent's real store below a simulated node: what the loop wants kept goes to real files,
//! by the thread that does it in production, and what a boot finds is read from them.
//!
//! A loss of power is a copy of the folder as it stands, which the next boot opens; what the
//! medium itself may lose is another experiment's business. The wall clock is the machine's,
//! moved by an offset that may differ in each boot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use homeostat_agent::config::Config;
use homeostat_agent::control::{Class, Event, Resumed};
use homeostat_agent::io::keeper::{self, Keeper, Order};
use homeostat_agent::io::link::{self, Backlog};
use homeostat_common::hlc::Hlc;
use homeostat_common::ids::{BootId, IncidentId};
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::Envelope;
use homeostat_common::wire::body::Body;
use tokio::sync::{mpsc, oneshot};

use super::{Fault, Sim};

/// Orders between two waits for the store: fewer than its queue holds.
const BATCH: u32 = 200;
/// Longest wait for the store, in real time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Asked for at once.
const FETCH_BYTES: usize = 256 << 10;
/// How often the node is looked at.
const LOOK: Millis = Millis::secs(600);
/// A service that does not work for so long was not restored: the longest back-off and the
/// start of everything anew, several times.
const RESTORED_MAX: Millis = Millis::secs(3600);

/// The store of one boot.
pub(super) struct Store {
    folder: PathBuf,
    boots: u32,
    keeper: Keeper,
    told: mpsc::Receiver<Event>,
    backlog: Backlog,
    thread: Option<JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
    ordered: u32,
    /// Events given to it, by class.
    given: BTreeMap<u8, u64>,
    /// What it found at its start, for people.
    findings: Vec<String>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// What a long time without the network has left.
#[derive(Debug)]
pub struct Offline {
    /// Events that the loop gave out.
    pub given: u64,
    /// Aggregates among them.
    pub aggregates: u64,
    /// Of all those that are there, ...
    pub kept: u64,
    /// ... and those that gaps name.
    pub gaps: u64,
    /// Numbers at which an event stands behind a later one on the clock.
    pub disorder: u64,
    /// Events about healing that are gone although one of a lower class is older.
    pub unruly: u64,
    /// Most bytes on the disk at any look.
    pub most_bytes: u64,
    /// Longest time in which a service did not work.
    pub longest_down: Millis,
    /// Boots.
    pub boots: u32,
    /// What boots found wrong with the store.
    pub findings: Vec<String>,
    /// Plans that ended.
    pub plans: usize,
}

impl Store {
    fn open(folder: &Path, boots: u32, config: &Config, boot: BootId) -> (Self, Resumed) {
        let folder = folder.join(boots.to_string());
        let mut config = config.clone();
        config.node.data_dir.clone_from(&folder);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        // Nothing is ever torn here, so no child has to try sled first.
        let (opened, thread) = keeper::open(&config, boot, |_| Ok(true)).expect("a store");
        let (events, told) = mpsc::channel(1024);
        let (backlog, fetches) = link::backlog();
        let (keeper, thread) = thread.start(events, fetches, None).expect("a thread");
        let this = Self {
            folder,
            boots,
            keeper,
            told,
            backlog,
            thread: Some(thread),
            runtime,
            ordered: 0,
            given: BTreeMap::new(),
            findings: opened.findings,
        };
        (this, opened.resumed)
    }

    pub(super) fn order(&mut self, order: Order) {
        if let Order::Event { class, .. } = &order {
            *self.given.entry(*class as u8).or_default() += 1;
        }
        assert!(self.keeper.order(order), "the store's queue is full");
        self.ordered += 1;
        if self.ordered.is_multiple_of(BATCH) {
            self.idle();
        }
    }

    /// Waits until everything so far was taken.
    fn idle(&mut self) {
        let (reply, answer) = oneshot::channel();
        let asked = self
            .keeper
            .order(Order::Explain(Some(IncidentId(0)), reply));
        assert!(asked, "the store's queue is full");
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, answer).await });
        assert!(answered.is_ok(), "the store does not answer");
        while let Ok(event) = self.told.try_recv() {
            assert!(!matches!(event, Event::StoreTrouble(Some(_))), "{event:?}");
        }
    }

    /// The power fails: what the kernel has is what the next boot finds.
    fn cut(mut self, config: &Config, boot: BootId) -> (Self, Resumed) {
        self.idle();
        let next = self.folder.with_file_name((self.boots + 1).to_string());
        copy(&self.folder, &next);
        let base = self.folder.parent().expect("a folder of ours").to_owned();
        let (given, findings, former) = (
            self.given.clone(),
            self.findings.clone(),
            self.folder.clone(),
        );
        let boots = self.boots + 1;
        self.end();
        fs::remove_dir_all(former).expect("a folder of ours");
        let (mut store, resumed) = Self::open(&base, boots, config, boot);
        store.given = given;
        store.findings = [findings, store.findings].concat();
        (store, resumed)
    }

    fn end(&mut self) {
        self.keeper.order(Order::Close);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the store's thread ends");
        }
    }

    fn bytes(&self) -> u64 {
        used(&self.folder)
    }

    /// Everything as the coordinator would get it.
    fn drain(&mut self) -> Vec<Envelope> {
        let mut out: Vec<Envelope> = Vec::new();
        loop {
            let after = out.last().map_or(0, |last| last.seq);
            let batch = self.runtime.block_on(self.backlog.next(after, FETCH_BYTES));
            let batch = batch.expect("the store runs");
            if batch.is_empty() {
                return out;
            }
            let each = batch
                .iter()
                .map(|(_, bytes)| Envelope::decode(bytes).expect("an envelope"));
            out.extend(each);
        }
    }
}

impl Sim {
    /// Keeps what the loop wants kept in real files below `folder`.
    #[must_use]
    pub fn on_disk(mut self, folder: &Path) -> Self {
        let (store, _) = Store::open(folder, 0, &self.config, self.boot);
        self.store = Some(store);
        self
    }

    /// What a start of the agent finds.
    pub(super) fn resumed(&mut self) -> Resumed {
        match self.store.take() {
            None => self.disk.resumed(),
            Some(store) => {
                let (store, resumed) = store.cut(&self.config, self.boot);
                self.store = Some(store);
                resumed
            }
        }
    }

    /// From now on wall time is wrong by so much.
    pub(super) fn set_clock(&mut self, wrong: i64) {
        self.config.clock.offset_ms = wrong;
    }

    /// So many days without the network, then everything is asked for.
    ///
    /// # Panics
    /// When a promise is broken; the seed and the story are in the message.
    #[must_use]
    pub fn offline(mut self, span: Millis) -> Offline {
        let mut down: BTreeMap<String, Micros> = BTreeMap::new();
        let (mut longest_down, mut most_bytes) = (Millis(0), 0);
        let mut until = Millis(0);
        while until < span {
            until = Millis(until.0 + LOOK.0);
            self.go(until);
            self.judge();
            for id in self.world.places.keys() {
                let name = id.to_string();
                if self.world.sound(id, self.now) {
                    down.remove(&name);
                    continue;
                }
                let lasted = self.now.since(*down.entry(name).or_insert(self.now));
                longest_down = longest_down.max(lasted);
                assert!(
                    lasted < RESTORED_MAX,
                    "seed {}: {id} stays down\n{}",
                    self.seed,
                    self.trace
                );
            }
            most_bytes = most_bytes.max(self.store.as_ref().map_or(0, Store::bytes));
        }
        let mut store = self.store.take().expect("a node on a disk");
        store.idle();
        let events = store.drain();
        let report = report(&events, &store);
        store.end();
        Offline {
            longest_down,
            most_bytes,
            boots: store.boots,
            findings: store.findings.clone(),
            plans: self.audit.ended_plans(),
            ..report
        }
    }

    /// A day's end: power off, and on again with another idea of the time.
    #[must_use]
    pub fn cold_boot(self, at: Millis, back: Millis, wrong: i64) -> Self {
        self.at(at, Fault::Clock(wrong))
            .at(Millis(at.0 + 1), Fault::Reboot(back))
    }

    /// Gives the real store an order, if there is one.
    pub(super) fn keep(&mut self, order: Order) {
        if let Some(store) = &mut self.store {
            store.order(order);
        }
    }
}

fn report(events: &[Envelope], store: &Store) -> Offline {
    let (mut kept, mut gaps, mut disorder, mut unruly) = (0, 0, 0, 0);
    let mut stamp = Hlc::default();
    let mut older_of_lower = false;
    for event in events {
        match &event.body {
            Body::Gap(gap) => {
                gaps += gap.through - gap.from + 1;
                unruly += u64::from(gap.heal > 0 && older_of_lower);
            }
            body => {
                kept += 1;
                older_of_lower |= matches!(body, Body::Telemetry(_));
                disorder += u64::from(event.hlc <= stamp);
                stamp = event.hlc;
            }
        }
    }
    Offline {
        given: store.given.values().sum(),
        aggregates: store
            .given
            .get(&(Class::Telemetry as u8))
            .copied()
            .unwrap_or(0),
        kept,
        gaps,
        disorder,
        unruly,
        most_bytes: 0,
        longest_down: Millis(0),
        boots: 0,
        findings: Vec::new(),
        plans: 0,
    }
}

fn used(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(if meta.is_dir() {
                used(&entry.path())
            } else {
                meta.len()
            })
        })
        .sum()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder of ours");
    for entry in fs::read_dir(from).expect("a folder of ours").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file of ours");
        }
    }
}

/// The order to keep an event.
pub(super) fn event(mark: u64, class: Class, causes: Vec<u64>, body: Body) -> Order {
    Order::Event {
        mark,
        class,
        causes,
        body: Box::new(body),
    }
}
