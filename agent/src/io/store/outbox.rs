//! Events until the coordinator has them, and the loop's own records, in one journal.
//!
//! In: events of a [`Class`], records of up to 16 kinds whose payload the loop owns, and the
//! receiver's cumulative acknowledgements. Out: events in order, gaps where some were
//! dropped, and after a restart everything that was still of use.
//!
//! Disk use is bounded whatever happens. Over quota the lowest class loses its oldest event
//! first, a heal event goes last; each drop is counted, and since events are numbered
//! without holes, the receiver is told every hole as a [`Gap`] before what follows it. When
//! files fill up, the one with most dead bytes is rewritten without them.
//!
//! ```text
//! push -> live --acked-----> dead --rewrite--> gone
//!           |                 ^
//!           +---over quota----+  (counted, seen by the receiver as a gap)
//! ```
//!
//! It sends nothing, and does not decide when to sync: [`Outbox::sync`] once makes all
//! pushes before it durable. Acknowledgements become durable with the next sync; if they are
//! lost, events are sent again and the receiver, which knows their numbers, skips them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;

use super::error::{Error, Finding, Result};
use super::frame::frame_len;
use super::journal::{Journal, JournalSeq, Recovered, StreamId};

use state::{Event, Index, State, Stored};

mod event;
mod room;
mod state;

pub use event::{Class, Config, Dropped, EventSeq, Gap, Item};

/// Events kept at once; bounds the index in memory to about 1 MiB.
pub const EVENTS_MAX: usize = 16_384;
/// Records of the loop kept at once, for the same reason.
pub const RECORDS_MAX: usize = 8192;
/// Kinds of records the loop may use, numbered from 0.
pub const KINDS_MAX: u8 = 16;
/// Items of one batch, so that tiny events do not make a huge one.
pub const BATCH_MAX: usize = 256;
/// Gaps listed at once; later ones show when the receiver has passed these.
pub const GAPS_MAX: usize = 64;
/// Rewriting for less than one block of the file system frees nothing.
const GAIN_MIN: u64 = 4096;
/// Numbers given to events that were dropped at once, before that is put on disk: after a
/// crash so many are skipped, lest one be given out again.
const UNWRITTEN_MAX: u64 = 256;
/// Class and number before each event.
const EVENT_HEAD: usize = 9;
const KIND_EVENT: u8 = 0xF0;
const KIND_STATE: u8 = 0xF1;
const RECORD: u8 = 0;
const CHECKPOINT: u8 = 1;

#[derive(Debug)]
pub struct Outbox {
    journal: Journal,
    config: Config,
    events: BTreeMap<u64, Event>,
    /// Numbers by class, oldest first; may name events that are gone.
    by_class: [VecDeque<u64>; 6],
    events_bytes: u64,
    kinds: BTreeMap<u8, Vec<Stored>>,
    state: State,
    /// Where the newest copy of `state` is.
    state_at: Option<Stored>,
    /// `state` differs from the copy on disk.
    dirty: bool,
    /// This run has put its first number on disk. Until then none is given out: another
    /// crash would skip to the same number, or after an orderly end not skip at all.
    settled: bool,
    /// First numbers of files that could not be rewritten: not tried again in this run.
    avoid: BTreeSet<u64>,
    /// Numbers given to dropped events since the last state on disk.
    unwritten: u64,
}

impl Outbox {
    /// # Errors
    /// As [`Journal::open`]; damage is a finding.
    pub fn open(path: &Path, config: Config) -> Result<(Outbox, Recovered)> {
        config.check()?;
        let (journal, recovered) = Journal::open(path, config.limits)?;
        let mut outbox = Outbox {
            journal,
            config,
            events: BTreeMap::new(),
            by_class: Default::default(),
            events_bytes: 0,
            kinds: BTreeMap::new(),
            state: State {
                next: 1,
                ..State::default()
            },
            state_at: None,
            dirty: false,
            settled: false,
            avoid: BTreeSet::new(),
            unwritten: 0,
        };
        outbox.load()?;
        // An event leaves only once it is on the disk, so the number of one that never got
        // there was never seen and may be given out again.
        let lost = recovered.unaccounted.saturating_sub(recovered.unsynced);
        if lost > 0 {
            let skip = lost.saturating_add(UNWRITTEN_MAX);
            outbox.state.next = outbox.state.next.saturating_add(skip);
        }
        if recovered.findings.contains(&Finding::NewStream) {
            // Its receiver never saw a number of this stream, so it misses none.
            outbox.state.acked = outbox.state.next - 1;
        }
        Ok((outbox, recovered))
    }

    fn load(&mut self) -> Result<()> {
        let everything = JournalSeq(0)..JournalSeq(u64::MAX);
        let mut newest = None;
        self.journal.read(everything.clone(), |r| {
            if let (KIND_STATE, Some(state)) = (r.kind, State::decode(r.payload)) {
                newest = Some((state, Stored::new(r.seq, r.payload.len())));
            }
            Ok::<_, Error>(())
        })?;
        if let Some((state, at)) = newest {
            self.state = state;
            self.state_at = Some(at);
        }
        // The index is bounded as it grows: what is over quota goes at once.
        let (mut loaded, mut kinds, mut highest) = (Index::default(), BTreeMap::new(), 0);
        let (state, config) = (self.state, self.config);
        self.journal.read(everything, |r| {
            let at = Stored::new(r.seq, r.payload.len());
            match (r.kind, r.payload.split_first()) {
                (KIND_EVENT, _) => {
                    if let Some((class, seq, _)) = decode_event(r.payload) {
                        highest = highest.max(seq);
                        let evicted_to = state.classes[class as usize].evicted_to;
                        if seq > state.acked && seq > evicted_to {
                            loaded.push((seq, Event { at, class }), &config);
                        }
                    }
                }
                (kind, Some((&tag, _))) if kind < KINDS_MAX => {
                    let stored: &mut Vec<Stored> = kinds.entry(kind).or_default();
                    if tag == CHECKPOINT {
                        stored.clear();
                    }
                    stored.push(at);
                }
                _ => {}
            }
            Ok::<_, Error>(())
        })?;
        self.kinds = kinds;
        self.state.next = self.state.next.max(highest.saturating_add(1));
        for (seq, event) in loaded.events {
            self.insert(seq, event);
        }
        for (class, over) in self.state.classes.iter_mut().zip(loaded.over) {
            class.evicted_to = class.evicted_to.max(over.evicted_to);
            class.dropped.events += over.dropped.events;
            class.dropped.bytes += over.dropped.bytes;
            self.dirty |= over.dropped.events > 0;
        }
        Ok(())
    }

    pub fn stream(&self) -> StreamId {
        self.journal.stream()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.journal.disk_bytes()
    }

    /// Events waiting for an acknowledgement.
    pub fn pending(&self) -> usize {
        self.events.len()
    }

    /// What was dropped so far; after a crash, as of the last sync.
    pub fn dropped(&self, class: Class) -> Dropped {
        self.state.classes[class as usize].dropped
    }

    /// The number that the next event gets.
    pub fn next_event(&self) -> EventSeq {
        EventSeq(self.state.next)
    }

    pub fn acked_to(&self) -> EventSeq {
        EventSeq(self.state.acked)
    }

    /// Largest event record that fits.
    pub fn event_max(&self) -> usize {
        self.journal.payload_max() - EVENT_HEAD
    }

    /// Takes an event. When even dropping everything of its class and below makes no room,
    /// it is itself dropped, counted, and its number becomes a gap.
    ///
    /// # Errors
    /// The event was not taken and has no number; all others are safe.
    pub fn push(&mut self, class: Class, record: &[u8]) -> Result<EventSeq> {
        let max = self.event_max();
        if record.len() > max {
            return Err(Error::TooLarge {
                len: record.len(),
                max,
            });
        }
        self.settle_numbers()?;
        let seq = self.state.next;
        let bytes = frame_len(EVENT_HEAD + record.len());
        while self.is_over(bytes) {
            if !self.evict(class) {
                self.settle_unwritten()?;
                self.state.next += 1;
                self.unwritten += 1;
                self.count_drop(class, 0, bytes);
                return Ok(EventSeq(seq));
            }
        }
        let mut payload = Vec::with_capacity(EVENT_HEAD + record.len());
        payload.push(class as u8);
        payload.extend_from_slice(&seq.to_le_bytes());
        payload.extend_from_slice(record);
        let at = self.write(KIND_EVENT, &payload)?;
        self.state.next += 1;
        self.insert(seq, Event { at, class });
        Ok(EventSeq(seq))
    }

    /// What the receiver should get after `after`, in order, about `max_bytes` of it but at
    /// least one item if there is any. Syncs first: what was seen outside must not be
    /// unknown here after a power cut.
    pub fn next_unacked(&mut self, after: EventSeq, max_bytes: usize) -> Result<Vec<Item>> {
        self.sync()?;
        let from = after.0.max(self.state.acked).saturating_add(1);
        let mut wanted: Vec<(u64, Event)> = Vec::new();
        let mut bytes = 0;
        let mut complete = true;
        for (&seq, &event) in self.events.range(from..) {
            bytes += event.at.bytes as usize;
            if !wanted.is_empty() && (bytes > max_bytes || wanted.len() >= BATCH_MAX) {
                complete = false;
                break;
            }
            wanted.push((seq, event));
        }
        let mut records = self.fetch(&wanted)?;
        let mut items = Vec::new();
        let mut expected = from;
        for (seq, event) in wanted {
            // Gone bad since it was written: from now on part of a gap.
            let Some(record) = records.remove(&event.at.seq) else {
                self.lose(seq);
                continue;
            };
            items.extend(gap(expected, seq));
            items.push(Item::Event {
                seq: EventSeq(seq),
                class: event.class,
                record,
            });
            expected = seq + 1;
        }
        if complete {
            items.extend(gap(expected, self.state.next));
        }
        Ok(items)
    }

    /// The newest event that is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn newest(&self) -> Result<Option<Vec<u8>>> {
        let newest = self.events.last_key_value();
        let wanted: Vec<(u64, Event)> = newest
            .map(|(seq, event)| (*seq, *event))
            .into_iter()
            .collect();
        Ok(self.fetch(&wanted)?.into_values().next())
    }

    /// The receiver has everything up to and including `up_to`; it cannot have more than
    /// there was.
    pub fn acked(&mut self, up_to: EventSeq) {
        let up_to = up_to.0.min(self.state.next.saturating_sub(1));
        if up_to <= self.state.acked {
            return;
        }
        self.state.acked = up_to;
        self.dirty = true;
        while let Some(first) = self.events.first_entry().filter(|e| *e.key() <= up_to) {
            self.events_bytes -= u64::from(first.get().at.bytes);
            first.remove();
        }
        for queue in &mut self.by_class {
            while queue.front().is_some_and(|&seq| seq <= up_to) {
                queue.pop_front();
            }
        }
    }

    /// Numbers after the last acknowledged one that hold no event, the first few of them.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut out = Vec::new();
        let mut expected = self.state.acked + 1;
        let ends = self.events.keys().copied().chain([self.state.next]);
        for seq in ends {
            if let Some(Item::Gap(gap)) = gap(expected, seq) {
                out.push(gap);
                if out.len() == GAPS_MAX {
                    break;
                }
            }
            expected = seq + 1;
        }
        out
    }

    /// Adds a record of the loop, kept until the next checkpoint of its kind.
    ///
    /// # Errors
    /// [`Error::Quota`] asks for a checkpoint.
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<JournalSeq> {
        let (count, used) = self.record_use();
        let would = used + u64::from(frame_len(payload.len() + 1));
        if would > self.config.records_bytes || count >= RECORDS_MAX {
            return Err(Error::Quota {
                used: would,
                max: self.config.records_bytes,
            });
        }
        self.record(kind, RECORD, payload)
    }

    /// Stands for all records of its kind so far.
    pub fn checkpoint(&mut self, kind: u8, payload: &[u8]) -> Result<JournalSeq> {
        self.record(kind, CHECKPOINT, payload)
    }

    fn record(&mut self, kind: u8, tag: u8, payload: &[u8]) -> Result<JournalSeq> {
        if kind >= KINDS_MAX {
            return Err(Error::ReservedKind(kind));
        }
        let mut tagged = Vec::with_capacity(payload.len() + 1);
        tagged.push(tag);
        tagged.extend_from_slice(payload);
        let at = self.write(kind, &tagged)?;
        let stored = self.kinds.entry(kind).or_default();
        if tag == CHECKPOINT {
            stored.clear();
        }
        stored.push(at);
        Ok(JournalSeq(at.seq))
    }

    /// Reads the newest checkpoint of a kind, if there is one, and the records after it.
    /// `each` gets whether it is the checkpoint.
    pub fn records(&self, kind: u8, mut each: impl FnMut(JournalSeq, bool, &[u8])) -> Result<()> {
        let Some(stored) = self.kinds.get(&kind) else {
            return Ok(());
        };
        self.journal.read(span(stored.iter()), |r| {
            if let (true, Some((&tag, payload))) = (r.kind == kind, r.payload.split_first()) {
                each(r.seq, tag == CHECKPOINT, payload);
            }
            Ok(())
        })
    }

    /// Waits until all that was pushed, appended and acknowledged is on the medium.
    pub fn sync(&mut self) -> Result<()> {
        // The state can wait: without it events are only sent or dropped again.
        let _ = self.write_state();
        self.journal.sync()
    }

    /// Syncs and marks an orderly end: the next start leaves no gap.
    pub fn close(mut self) -> Result<()> {
        self.write_state()?;
        self.journal.close()
    }

    fn settle_numbers(&mut self) -> Result<()> {
        if !self.settled {
            self.dirty = true;
            self.write_state()?;
            self.journal.sync()?;
            self.settled = true;
        }
        Ok(())
    }

    fn settle_unwritten(&mut self) -> Result<()> {
        if self.unwritten >= UNWRITTEN_MAX {
            self.write_state()?;
            self.journal.sync()?;
            self.unwritten = 0;
        }
        Ok(())
    }

    fn write_state(&mut self) -> Result<()> {
        if self.dirty {
            let at = self.write(KIND_STATE, &self.state.encode())?;
            self.state_at = Some(at);
            self.dirty = false;
        }
        Ok(())
    }

    fn write(&mut self, kind: u8, payload: &[u8]) -> Result<Stored> {
        self.make_room();
        let written = match self.journal.append(kind, payload) {
            Err(e) if e.is_full() && self.rewrite_best(GAIN_MIN) => {
                self.journal.append(kind, payload)
            }
            other => other,
        };
        written.map(|seq| Stored::new(seq, payload.len()))
    }

    fn record_use(&self) -> (usize, u64) {
        let all = || self.kinds.values().flatten();
        (all().count(), all().map(|s| u64::from(s.bytes)).sum())
    }

    fn is_over(&self, more: u32) -> bool {
        self.events_bytes + u64::from(more) > self.config.events_bytes
            || self.events.len() >= EVENTS_MAX
    }

    /// Drops the oldest event of the lowest class up to `class`.
    fn evict(&mut self, class: Class) -> bool {
        for candidate in Class::ALL.into_iter().filter(|c| *c <= class) {
            while let Some(seq) = self.by_class[candidate as usize].pop_front() {
                if let Some(event) = self.events.remove(&seq) {
                    self.events_bytes -= u64::from(event.at.bytes);
                    self.count_drop(candidate, seq, event.at.bytes);
                    return true;
                }
            }
        }
        false
    }

    fn lose(&mut self, seq: u64) {
        if let Some(event) = self.events.remove(&seq) {
            self.events_bytes -= u64::from(event.at.bytes);
            self.count_drop(event.class, 0, event.at.bytes);
        }
    }

    fn count_drop(&mut self, class: Class, evicted_to: u64, bytes: u32) {
        let state = &mut self.state.classes[class as usize];
        state.evicted_to = state.evicted_to.max(evicted_to);
        state.dropped.events += 1;
        state.dropped.bytes += u64::from(bytes);
        self.dirty = true;
    }

    fn insert(&mut self, seq: u64, event: Event) {
        self.events_bytes += u64::from(event.at.bytes);
        self.by_class[event.class as usize].push_back(seq);
        self.events.insert(seq, event);
    }

    /// The records of `wanted` by place. One that cannot be read is left out.
    fn fetch(&self, wanted: &[(u64, Event)]) -> Result<BTreeMap<u64, Vec<u8>>> {
        let places: BTreeMap<u64, u64> = wanted.iter().map(|(seq, e)| (e.at.seq, *seq)).collect();
        let mut out = BTreeMap::new();
        let mut take = |range: Range<JournalSeq>| {
            self.journal.read(range, |r| {
                if let (Some(&seq), KIND_EVENT) = (places.get(&r.seq.0), r.kind)
                    && let Some((_, stored, record)) = decode_event(r.payload)
                    && stored == seq
                {
                    out.insert(r.seq.0, record.to_vec());
                }
                Ok::<_, Error>(())
            })
        };
        if take(span(wanted.iter().map(|(_, e)| &e.at))).is_err() {
            // One bad file must not stop those behind it.
            for (_, event) in wanted {
                let _ = take(span([event.at].iter()));
            }
        }
        Ok(out)
    }
}

fn gap(expected: u64, next: u64) -> Option<Item> {
    let last = next.checked_sub(1).filter(|last| *last >= expected)?;
    Some(Item::Gap(Gap {
        first: EventSeq(expected),
        last: EventSeq(last),
    }))
}

fn span<'a>(stored: impl Iterator<Item = &'a Stored> + Clone) -> Range<JournalSeq> {
    let first = stored.clone().map(|s| s.seq).min().unwrap_or(0);
    JournalSeq(first)..JournalSeq(stored.map(|s| s.seq + 1).max().unwrap_or(0))
}

fn decode_event(payload: &[u8]) -> Option<(Class, u64, &[u8])> {
    let (&class, rest) = payload.split_first()?;
    let (seq, record) = rest.split_first_chunk()?;
    Some((Class::decode(class)?, u64::from_le_bytes(*seq), record))
}

#[cfg(test)]
mod tests;
