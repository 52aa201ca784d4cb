//! What must be true of a disk after a power cut: opened with the agent's own code, it holds
//! a beginning of what was ordered, at least as long as what was said to be safe.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use homeostat_agent::config::Config;
use homeostat_agent::control::{Class, HealRecord, Saved};
use homeostat_agent::io::keeper::{self, HELD_MAX, KIND_HEAL, KIND_SAVED};
use homeostat_agent::io::slots::{GOOD_MAX, Slot};
use homeostat_agent::io::store::Finding;
use homeostat_agent::io::store::outbox::{self, EventSeq, Item, Outbox};
use homeostat_common::hlc;
use homeostat_common::ids::{BootId, ModelVersion};

use super::marks::{Mark, Slotted};
use super::writer;

/// Events that one question brings.
const BATCH_BYTES: usize = 256 << 10;

/// What a store was found to hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// Class and number by place.
    pub(super) events: BTreeMap<u64, (outbox::Class, u64)>,
    heal: Vec<u64>,
    saved: Option<u64>,
    acked: u64,
    next: u64,
    dropped: BTreeMap<outbox::Class, u64>,
}

/// What was ordered and promised up to some point of a trace.
#[derive(Clone, Debug, Default)]
pub(super) struct Issued {
    /// What was there before the trace began.
    base: Held,
    orders: Vec<Order>,
    /// Aggregates that wait for company, which have no place yet.
    waiting: Vec<u64>,
    /// So many of the orders are safe.
    promised: usize,
    /// So many were given when the last sync was asked for.
    asked: usize,
    /// Place of the next event.
    next: u64,
    /// The number in each event that was handed out, by its place.
    left: BTreeMap<u64, Option<u64>>,
    /// Versions that are good, newest first.
    good: BTreeMap<Slotted, Vec<ModelVersion>>,
    pub(super) learnt: u32,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Event(u64, outbox::Class, u64),
    Heal(u64),
    Saved(u64),
    Quiet,
    Acked(u64),
}

impl Issued {
    /// The disk of a power cut, at the next start.
    pub(super) fn after(self, held: Held) -> Self {
        Self {
            base: held,
            orders: Vec::new(),
            waiting: Vec::new(),
            promised: 0,
            asked: 0,
            ..self
        }
    }

    pub(super) fn hear(&mut self, mark: Mark) {
        match mark {
            Mark::Opened(last) => {
                self.next = last + 1;
                // A killed process takes those along.
                self.waiting.clear();
                // Opening makes all last that it has read.
                self.promised = self.orders.len();
            }
            Mark::Event(class, number) => {
                if class == Class::Telemetry {
                    self.waiting.push(number);
                    if self.waiting.len() >= HELD_MAX {
                        self.release();
                    }
                } else {
                    self.release();
                    self.order(class, number);
                }
            }
            Mark::Closing => self.release(),
            Mark::Heal(number) => self.orders.push(Order::Heal(number)),
            Mark::Saved(number) => self.orders.push(Order::Saved(number)),
            Mark::Quiet => self.orders.push(Order::Quiet),
            Mark::Acked(seq) => self.orders.push(Order::Acked(seq)),
            Mark::Sync => self.asked = self.orders.len(),
            Mark::Synced => self.promised = self.promised.max(self.asked),
            Mark::Left(seq, number) => {
                self.left.insert(seq, number);
                let its = |order: &Order| matches!(order, Order::Event(at, ..) if *at == seq);
                if let Some(place) = self.orders.iter().rposition(its) {
                    self.promised = self.promised.max(place + 1);
                }
            }
            Mark::Learnt(count) => self.learnt = count,
            Mark::Good(slot, version) => {
                let good = self.good.entry(slot).or_default();
                good.retain(|one| *one != version);
                good.insert(0, version);
            }
        }
    }

    fn release(&mut self) {
        for number in std::mem::take(&mut self.waiting) {
            self.order(Class::Telemetry, number);
        }
    }

    fn order(&mut self, class: Class, number: u64) {
        self.orders
            .push(Order::Event(self.next, class_of(class), number));
        self.next += 1;
    }

    /// Compares what was found with what was ordered. Returns whether all of it is there, also
    /// what nobody said was safe.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub(super) fn judge(&self, held: &Held) -> Result<bool> {
        let prefix = (self.promised..=self.orders.len()).find(|count| {
            let (heal, saved) = self.records_after(*count);
            heal == held.heal && saved == held.saved
        });
        ensure!(
            prefix.is_some(),
            "records {:?} and state {:?} are those after no prefix of the orders, {} of which \
             were safe and leave {:?}",
            held.heal,
            held.saved,
            self.promised,
            self.records_after(self.promised),
        );
        let mut ordered: BTreeMap<u64, (outbox::Class, u64)> = self.base.events.clone();
        let mut safe: BTreeSet<u64> = ordered.keys().copied().collect();
        let mut acked = self.base.acked;
        for (place, order) in self.orders.iter().enumerate() {
            match *order {
                Order::Event(at, class, number) => {
                    ordered.insert(at, (class, number));
                    if place < self.promised {
                        safe.insert(at);
                    }
                }
                Order::Acked(seq) => acked = acked.max(seq),
                Order::Heal(_) | Order::Saved(_) | Order::Quiet => {}
            }
        }
        for (at, event) in &held.events {
            let found = ordered.get(at);
            ensure!(
                found == Some(event),
                "event {at} is {event:?}, ordered was {found:?}"
            );
        }
        ensure!(
            held.acked <= acked,
            "acknowledged to {}, said was {acked}",
            held.acked
        );
        let missing: Vec<(u64, outbox::Class)> = safe
            .iter()
            .filter(|at| **at > held.acked && !held.events.contains_key(at))
            .filter_map(|at| Some((*at, ordered.get(at)?.0)))
            .collect();
        for (at, class) in &missing {
            // The oldest of the lowest class goes first.
            let passed = held
                .events
                .range(..at)
                .find(|(_, (other, _))| other <= class);
            ensure!(
                passed.is_none(),
                "event {at} ({class:?}) is gone before {passed:?}"
            );
        }
        for class in outbox::Class::ALL {
            let gone = missing.iter().filter(|(_, other)| *other == class).count() as u64;
            let counted = held.dropped.get(&class).copied().unwrap_or(0);
            ensure!(
                gone <= counted,
                "{gone} events of {class:?} are gone, {counted} were counted"
            );
        }
        if let Some(last) = self.left.keys().next_back() {
            ensure!(
                held.next > *last,
                "{last} has left and would be given out again"
            );
        }
        for (at, number) in &self.left {
            if let Some((_, found)) = held.events.get(at) {
                ensure!(
                    number == &Some(*found),
                    "{at} left with {number:?} and is {found}"
                );
            }
        }
        let newest = ordered.keys().next_back().copied().unwrap_or(0);
        let all = self.records_after(self.orders.len());
        Ok(held.next > newest && (&all.0, all.1) == (&held.heal, held.saved))
    }

    fn records_after(&self, count: usize) -> (Vec<u64>, Option<u64>) {
        let (mut heal, mut saved) = (self.base.heal.clone(), self.base.saved);
        for order in self.orders.iter().take(count) {
            match order {
                Order::Heal(number) => heal.push(*number),
                Order::Saved(number) => saved = Some(*number),
                Order::Quiet => heal.clear(),
                Order::Event(..) | Order::Acked(_) => {}
            }
        }
        (heal, saved)
    }

    /// Looks at the slots: a version whose name is there is whole, what was said to be kept
    /// is there, and the newest of it can be put in place.
    ///
    /// # Errors
    /// What is not so.
    pub(super) fn judge_slots(&self, config: &Config) -> Result<()> {
        for service in &config.services {
            for name in homeostat_agent::io::slots::Name::ALL {
                let slot = Slot::of(service, name, &config.node.data_dir).context("a slot")?;
                let own = config.node.data_dir.join("slots").join(service.id.as_str());
                let named = named(&own.join(name.to_string()))?;
                let promised = self.good.get(&Slotted(name)).cloned().unwrap_or_default();
                let found = match slot.check() {
                    Ok(found) => found,
                    Err(_) if named.is_empty() && promised.is_empty() => continue,
                    Err(error) => {
                        return Err(error).context(format!("{name}: cannot be looked at"));
                    }
                };
                for version in named.iter().take(GOOD_MAX) {
                    ensure!(
                        found.good.contains(version),
                        "{name}: {version} is named, not whole"
                    );
                }
                // The oldest may be gone for one that was just being kept.
                for version in promised.iter().take(GOOD_MAX - 1) {
                    ensure!(
                        found.good.contains(version),
                        "{name}: {version} is lost: {found:?}"
                    );
                }
                let Some(newest) = found.good.first() else {
                    continue;
                };
                slot.switch(*newest)
                    .with_context(|| format!("{name}: cannot be mended"))?;
                slot.settle()
                    .with_context(|| format!("{name}: cannot be settled"))?;
                let mended = slot.check()?;
                ensure!(
                    mended.present == Some(*newest),
                    "{name}: not in place: {mended:?}"
                );
            }
        }
        Ok(())
    }
}

/// Versions of the pristine copies in a folder, newest first.
fn named(folder: &Path) -> Result<Vec<ModelVersion>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found: Vec<(u64, ModelVersion)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((number, version)) = name.split_once('-')
            && let (Ok(number), Ok(version)) = (number.parse(), version.parse())
        {
            found.push((number, version));
        }
    }
    found.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(found.into_iter().map(|(_, version)| version).collect())
}

/// Opens a store with the agent's code, and once more after it was used.
///
/// # Errors
/// When it does not open, or reports more than a torn tail.
pub(super) fn open_twice(config: &Config) -> Result<Held> {
    let path = config.node.data_dir.join("journal");
    let limits = keeper::journal_limits(&config.store);
    let (mut outbox, recovered) = Outbox::open(&path, limits).context("it does not open")?;
    only_torn(&recovered.findings)?;
    let held = read(&mut outbox)?;
    let seq = outbox.push(outbox::Class::Heal, b"after the power cut")?;
    outbox.sync()?;
    drop(outbox);
    let (mut outbox, recovered) = Outbox::open(&path, limits).context("it does not open again")?;
    ensure!(
        recovered.findings.is_empty(),
        "found again: {:?}",
        recovered.findings
    );
    let next = outbox.next_unacked(EventSeq(seq.0 - 1), 1)?;
    let kept = matches!(next.first(), Some(Item::Event { seq: at, .. }) if *at == seq);
    ensure!(kept, "what was pushed after it is {next:?}");
    Ok(held)
}

fn only_torn(findings: &[Finding]) -> Result<()> {
    let torn = |finding: &&Finding| !matches!(finding, Finding::TornTail { .. });
    let worse: Vec<String> = findings
        .iter()
        .filter(torn)
        .map(ToString::to_string)
        .collect();
    ensure!(worse.is_empty(), "damage is reported: {worse:?}");
    Ok(())
}

fn read(outbox: &mut Outbox) -> Result<Held> {
    let mut held = Held {
        acked: outbox.acked_to().0,
        next: outbox.next_event().0,
        ..Held::default()
    };
    for class in outbox::Class::ALL {
        held.dropped.insert(class, outbox.dropped(class).events);
    }
    let mut wrong = None;
    outbox.records(
        KIND_HEAL,
        |_, checkpoint, bytes| match postcard::from_bytes(bytes) {
            _ if checkpoint => {}
            Ok(HealRecord::Opened { incident, .. } | HealRecord::Closed(incident)) => {
                held.heal.push(incident.0);
            }
            other => wrong = Some(format!("{other:?}")),
        },
    )?;
    outbox.records(KIND_SAVED, |_, _, bytes| {
        match postcard::from_bytes::<(Saved, hlc::Hlc)>(bytes) {
            Ok((saved, _)) => held.saved = Some(saved.at.0),
            Err(error) => wrong = Some(error.to_string()),
        }
    })?;
    ensure!(wrong.is_none(), "a record is {wrong:?}");
    let mut after = held.acked;
    loop {
        let batch = outbox.next_unacked(EventSeq(after), BATCH_BYTES)?;
        if batch.is_empty() {
            break;
        }
        for item in batch {
            let first = match &item {
                Item::Event { seq, .. } => seq.0,
                Item::Gap(gap) => gap.first.0,
            };
            ensure!(first == after + 1, "a hole after {after} that no gap tells");
            match item {
                Item::Event { seq, class, record } => {
                    let number = writer::number_of(&record).context("an event of nobody")?;
                    held.events.insert(seq.0, (class, number));
                    after = seq.0;
                }
                Item::Gap(gap) => after = gap.last.0,
            }
        }
    }
    Ok(held)
}

/// Opens everything as the agent does at its start, sled on trial in a child.
///
/// # Errors
/// When it cannot, or works no more afterwards.
pub(super) fn open_all(config: &Config) -> Result<Opened> {
    let (opened, thread) = keeper::open(config, BootId([9; 16]), keeper::trial)?;
    drop(thread);
    let no = |text: &&String| text.starts_with("no history") || text.starts_with("no journal");
    let refused = opened.findings.iter().find(no);
    ensure!(refused.is_none(), "{refused:?}");
    Ok(Opened {
        set_aside: opened.findings.iter().any(|text| text.starts_with("live:")),
        learnt: writer::learnt(&opened.resumed.experience),
    })
}

/// What the agent found at its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) set_aside: bool,
    pub(super) learnt: u32,
}

fn class_of(class: Class) -> outbox::Class {
    match class {
        Class::Telemetry => outbox::Class::Aggregate,
        Class::State => outbox::Class::Outcome,
        Class::Heal => outbox::Class::Heal,
    }
}
