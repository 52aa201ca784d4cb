//! Which event goes out next: a window over the outbox that moves only with
//! the coordinator's own acknowledgement.
//!
//! A PUBACK moves nothing, because no broker keeps what it acknowledged through
//! its own crash. Silence leads to sending again from the acknowledged point,
//! ever more slowly; so does a coordinator that comes back. The receiver applies
//! each (stream, seq) once, so sending twice costs bytes and nothing else.
//!
//! Decides only; the session owns clock, store and network.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::backlog::Record;

/// Unacknowledged records on their way. At 64 the window is no limit on a link
/// of 50 ms and 1,000 events a second.
pub const WINDOW_RECORDS: usize = 64;
/// Unacknowledged bytes on their way: what a resend costs at most, and four
/// times the largest envelope.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Records while the coordinator is known to be away: one, as a probe in case
/// the status lies.
const WINDOW_QUIET: usize = 1;
/// A coordinator whose status flaps gets no more than one resend in this time.
const REWIND_MIN: Duration = Duration::from_secs(1);
/// Silences in a row, with a coordinator that is not known to be away, after
/// which the broker's session itself is suspected: mosquitto 2.0.11 loses an
/// in-flight slot with each message above the receiver's packet limit, until
/// nothing arrives any more.
const SILENCES_MAX: u32 = 3;
/// Doublings of the wait for an acknowledgement: 10 s become 5 min.
const DOUBLINGS_MAX: u32 = 5;

/// How long to wait for acknowledgements.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// While the coordinator is online or unknown; doubled with each silence.
    pub ack: Duration,
    /// While it is offline.
    pub quiet: Duration,
}

impl Default for Patience {
    /// 10 s; 60 s while the coordinator is offline.
    fn default() -> Self {
        Self {
            ack: Duration::from_secs(10),
            quiet: Duration::from_secs(60),
        }
    }
}

/// What an acknowledgement meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckVerdict {
    /// Everything up to here may be forgotten.
    Advanced(u64),
    /// Known already.
    Old,
    /// Covers events that were never sent: refused.
    Beyond,
}

/// A question for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Answers of an earlier round are dropped.
    pub round: u64,
    /// Events behind this one.
    pub after: u64,
    /// At most this much.
    pub max_bytes: usize,
}

/// The window.
#[derive(Debug)]
pub struct Uplink {
    patience: Patience,
    acked: u64,
    /// Last event that may have left the node, in this or an earlier life.
    known: u64,
    /// Last event handed out in this round.
    sent: u64,
    connected: bool,
    round: u64,
    flight: VecDeque<(u64, usize)>,
    flight_bytes: usize,
    ready: VecDeque<Record>,
    asking: bool,
    more: bool,
    coordinator: Option<bool>,
    silences: u32,
    due: Option<Instant>,
    rewound: Option<Instant>,
    resends: u64,
}

impl Uplink {
    /// `acked`: what the coordinator has confirmed; `last`: newest stored event.
    #[must_use]
    pub fn new(acked: u64, last: u64, patience: Patience) -> Self {
        Self {
            patience,
            acked,
            known: last.max(acked),
            sent: acked,
            connected: false,
            round: 0,
            flight: VecDeque::new(),
            flight_bytes: 0,
            ready: VecDeque::new(),
            asking: false,
            more: true,
            coordinator: None,
            silences: 0,
            due: None,
            rewound: None,
            resends: 0,
        }
    }

    /// A connection is usable: begin behind the acknowledged point.
    pub fn connected(&mut self) {
        self.rewind();
        self.connected = true;
    }

    /// The connection is gone; nothing of it counts any more.
    pub fn disconnected(&mut self) {
        self.rewind();
        self.connected = false;
        self.coordinator = None;
        self.due = None;
    }

    /// The store has new events.
    pub fn notify(&mut self) {
        self.more = true;
    }

    /// The question to ask now, if any; call [`Uplink::fetched`] with the answer.
    pub fn ask(&mut self) -> Option<Want> {
        let open = self.connected
            && self.more
            && !self.asking
            && self.ready.is_empty()
            && self.flight.len() < self.records_max()
            && self.flight_bytes < WINDOW_BYTES;
        if !open {
            return None;
        }
        self.asking = true;
        // A notice that arrives while the answer is under way sets it again.
        self.more = false;
        Some(Want {
            round: self.round,
            after: self.sent,
            max_bytes: WINDOW_BYTES - self.flight_bytes,
        })
    }

    /// The store's answer to a question.
    pub fn fetched(&mut self, round: u64, records: Vec<Record>) {
        if round != self.round {
            return;
        }
        self.asking = false;
        self.more |= !records.is_empty();
        let mut last = self.sent;
        for record in records {
            if record.0 > last {
                last = record.0;
                self.ready.push_back(record);
            }
        }
    }

    /// The next record to publish, if the window has room.
    pub fn pop(&mut self, now: Instant) -> Option<Record> {
        let bytes = self.ready.front().map(|(_, envelope)| envelope.len())?;
        let fits = self.flight_bytes + bytes <= WINDOW_BYTES || self.flight.is_empty();
        if !self.connected || !fits || self.flight.len() >= self.records_max() {
            return None;
        }
        let (seq, envelope) = self.ready.pop_front()?;
        if self.flight.is_empty() {
            self.due = Some(now + self.wait());
        }
        self.flight.push_back((seq, bytes));
        self.flight_bytes += bytes;
        self.sent = seq;
        self.known = self.known.max(seq);
        Some((seq, envelope))
    }

    /// The coordinator says that everything through `through` is stored.
    pub fn ack(&mut self, through: u64, now: Instant) -> AckVerdict {
        if through <= self.acked {
            return AckVerdict::Old;
        }
        if through > self.known {
            return AckVerdict::Beyond;
        }
        self.acked = through;
        self.sent = self.sent.max(through);
        while let Some((_, bytes)) = self.flight.pop_front_if(|(seq, _)| *seq <= through) {
            self.flight_bytes -= bytes;
        }
        while self
            .ready
            .pop_front_if(|(seq, _)| *seq <= through)
            .is_some()
        {}
        self.silences = 0;
        self.due = (!self.flight.is_empty()).then(|| now + self.wait());
        AckVerdict::Advanced(through)
    }

    /// The coordinator's status; `live` when it was published just now, which
    /// means that it has connected (again) and may miss what was sent before.
    pub fn coordinator(&mut self, online: bool, live: bool, now: Instant) {
        let back = online && (live || self.coordinator == Some(false));
        self.coordinator = Some(online);
        if back {
            self.silences = 0;
            let earliest = self.rewound.map_or(now, |at| at + REWIND_MIN);
            self.due = Some(earliest.max(now));
        }
    }

    /// When [`Uplink::tick`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.connected)
    }

    /// Sends again from the acknowledged point when that is due. `true`, once in
    /// a row of silences, when the session should be given up.
    #[must_use]
    pub fn tick(&mut self, now: Instant) -> bool {
        if self.due().is_none_or(|due| due > now) {
            return false;
        }
        let before = self.silences;
        if !self.flight.is_empty() {
            self.resends += 1;
            self.silences = self.silences.saturating_add(1);
        }
        self.rewound = Some(now);
        self.rewind();
        let reached = before < SILENCES_MAX && self.silences == SILENCES_MAX;
        reached && self.coordinator != Some(false)
    }

    /// Last acknowledged event.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// How often silence led to sending again.
    #[must_use]
    pub fn resends(&self) -> u64 {
        self.resends
    }

    fn rewind(&mut self) {
        self.round += 1;
        self.sent = self.acked;
        self.flight.clear();
        self.flight_bytes = 0;
        self.ready.clear();
        self.asking = false;
        self.more = true;
        self.due = None;
    }

    fn records_max(&self) -> usize {
        if self.coordinator == Some(false) {
            WINDOW_QUIET
        } else {
            WINDOW_RECORDS
        }
    }

    fn wait(&self) -> Duration {
        if self.coordinator == Some(false) {
            self.patience.quiet
        } else {
            let doublings = self.silences.min(DOUBLINGS_MAX);
            self.patience.ack.saturating_mul(1 << doublings)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience::default()
    }

    fn records(seqs: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Record> {
        seqs.map(|seq| (seq, vec![0; bytes])).collect()
    }

    fn drain(uplink: &mut Uplink, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| uplink.pop(now).map(|(seq, _)| seq)).collect()
    }

    /// A connected window that was handed `1..=count`.
    fn filled(count: u64, bytes: usize, now: Instant) -> (Uplink, Vec<u64>) {
        let mut uplink = Uplink::new(0, 0, patience());
        uplink.connected();
        let want = uplink.ask().unwrap();
        uplink.fetched(want.round, records(1..=count, bytes));
        let sent = drain(&mut uplink, now);
        (uplink, sent)
    }

    #[test]
    fn the_window_is_bounded_in_records_and_in_bytes_and_opens_with_acks() {
        let now = Instant::now();
        let (mut uplink, sent) = filled(200, 10, now);
        assert_eq!(sent, (1..=64).collect::<Vec<_>>());
        assert_eq!(uplink.ask(), None);
        assert_eq!(uplink.ack(10, now), AckVerdict::Advanced(10));
        assert_eq!(drain(&mut uplink, now), (65..=74).collect::<Vec<_>>());

        let (_, sent) = filled(20, WINDOW_BYTES / 4, now);
        assert_eq!(sent, [1, 2, 3, 4]);
        let (_, sent) = filled(2, WINDOW_BYTES + 1, now);
        assert_eq!(sent, [1], "one record passes whatever its size");
    }

    #[test]
    fn a_late_ack_of_an_earlier_life_counts_and_one_for_the_future_does_not() {
        let now = Instant::now();
        let mut uplink = Uplink::new(100, 150, patience());
        uplink.connected();
        assert_eq!(uplink.ack(151, now), AckVerdict::Beyond);
        assert_eq!(uplink.ack(150, now), AckVerdict::Advanced(150));
        assert_eq!(uplink.ack(120, now), AckVerdict::Old);
        assert_eq!(uplink.ack(u64::MAX, now), AckVerdict::Beyond);
        assert_eq!(uplink.ask().unwrap().after, 150);
    }

    #[test]
    fn silence_leads_to_sending_again_ever_more_slowly() {
        let start = Instant::now();
        let (mut uplink, _) = filled(3, 10, start);
        let mut now = start;
        let (mut waits, mut suspected) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            let due = uplink.due().unwrap();
            assert!(!uplink.tick(due - Duration::from_millis(1)));
            assert_eq!(uplink.pop(now), None);
            suspected.push(uplink.tick(due));
            let want = uplink.ask().unwrap();
            assert_eq!(want.after, 0);
            uplink.fetched(want.round, records(1..=3, 10));
            assert_eq!(drain(&mut uplink, due), [1, 2, 3]);
            waits.push((due - now).as_secs());
            now = due;
        }
        let once = suspected.iter().filter(|suspected| **suspected).count();
        assert!(once == 1 && suspected[2], "{suspected:?}");
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 320, 320]);
        uplink.ack(1, now);
        assert_eq!(uplink.due(), Some(now + Duration::from_secs(10)));
    }

    #[test]
    fn an_answer_of_an_earlier_round_is_dropped() {
        let mut uplink = Uplink::new(0, 0, patience());
        uplink.connected();
        let old = uplink.ask().unwrap();
        uplink.disconnected();
        uplink.connected();
        let new = uplink.ask().unwrap();
        uplink.fetched(old.round, records(5..=9, 1));
        assert_eq!(uplink.pop(Instant::now()), None);
        uplink.fetched(new.round, records(1..=2, 1));
        assert_eq!(drain(&mut uplink, Instant::now()), [1, 2]);
    }

    #[test]
    fn a_notice_during_the_question_is_not_lost() {
        let mut uplink = Uplink::new(0, 0, patience());
        uplink.connected();
        let want = uplink.ask().unwrap();
        uplink.notify();
        uplink.fetched(want.round, Vec::new());
        let want = uplink.ask().unwrap();
        uplink.fetched(want.round, Vec::new());
        assert_eq!(uplink.ask(), None);
    }

    #[test]
    fn a_store_that_repeats_itself_or_goes_back_sends_nothing_twice() {
        let mut uplink = Uplink::new(0, 0, patience());
        uplink.connected();
        let want = uplink.ask().unwrap();
        let answer = [3, 3, 1, 5].map(|seq| (seq, vec![1])).into();
        uplink.fetched(want.round, answer);
        assert_eq!(drain(&mut uplink, Instant::now()), [3, 5]);
    }

    #[test]
    fn an_absent_coordinator_gets_one_probe_and_all_of_it_on_return() {
        let start = Instant::now();
        let (mut uplink, _) = filled(20, 10, start);
        uplink.coordinator(false, true, start);
        let due = uplink.due().unwrap();
        assert!(!uplink.tick(due));
        let want = uplink.ask().unwrap();
        uplink.fetched(want.round, records(1..=20, 10));
        assert_eq!(drain(&mut uplink, due), [1]);
        assert_eq!(uplink.due(), Some(due + Duration::from_secs(60)));

        let back = due + Duration::from_secs(5);
        uplink.coordinator(true, true, back);
        assert_eq!(uplink.due(), Some(back));
        assert!(!uplink.tick(back));
        let want = uplink.ask().unwrap();
        uplink.fetched(want.round, records(1..=20, 10));
        assert_eq!(drain(&mut uplink, back).len(), 20);

        // Its status flaps: one resend a second, however often it says so.
        for _ in 0..1000 {
            uplink.coordinator(true, true, back);
        }
        assert_eq!(uplink.due(), Some(back + REWIND_MIN));
    }
}
