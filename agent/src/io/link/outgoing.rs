//! What waits to be published besides the events: replies, retained
//! projections, live projections.
//!
//! All of it is for people and tools, so all of it may be lost except that a
//! retained value must become the newest one sooner or later: an alarm that was
//! cleared must not stay because the connection broke. So the newest value of
//! each retained topic is kept, sent until the broker has acknowledged it, and
//! sent again when the broker has lost its session (and with it, most likely,
//! what it retained). Live projections are for who looks now: without a
//! connection they are dropped.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use homeostat_common::wire::topic;

/// Live projections that wait for the network: a burst of a healing is some 20.
pub const LIVE_MAX: usize = 256;
/// Bytes of them.
pub const LIVE_BYTES_MAX: usize = 256 * 1024;
/// Retained topics: 64 services with a health and some twenty alarms each, which are all
/// cleared at the start, and plans at work.
pub const RETAINED_MAX: usize = 1536;
/// Bytes of them.
pub const RETAINED_BYTES_MAX: usize = 512 * 1024;
/// Replies that wait: commands come from people and are rare.
pub const REPLIES_MAX: usize = 32;
/// Largest payload of one projection, as for an event.
pub const PAYLOAD_MAX: usize = homeostat_common::wire::RECORD_MAX;

/// How hard MQTT tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Quality of service 0.
    AtMostOnce,
    /// Quality of service 1.
    AtLeastOnce,
}

/// One message for people and tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// Full topic.
    pub topic: String,
    /// JSON, or empty to clear a retained topic.
    pub payload: Vec<u8>,
    /// How hard MQTT tries.
    pub qos: Delivery,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// After this many seconds nobody should get it any more.
    pub expiry_s: Option<u32>,
}

impl Projection {
    /// As the topic table says; `None` for a topic that no node writes.
    #[must_use]
    pub fn new(topic: String, payload: Vec<u8>) -> Option<Self> {
        let row = topic::find(&topic).filter(|row| row.writer == topic::Writer::Node)?;
        Some(Self {
            qos: if row.qos == 0 {
                Delivery::AtMostOnce
            } else {
                Delivery::AtLeastOnce
            },
            retain: row.retained,
            expiry_s: row.expiry_s,
            topic,
            payload,
        })
    }

    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }

    /// Goes first when space runs out.
    fn is_droppable(&self) -> bool {
        self.qos == Delivery::AtMostOnce || self.topic.contains("/tel/")
    }
}

/// An answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) projection: Projection,
    pub(super) correlation: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Kept {
    projection: Projection,
    at: Instant,
    version: u64,
    sent: bool,
}

/// Names one value of a retained topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptRef {
    topic: String,
    version: u64,
}

/// The queues.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    connected: bool,
    live: VecDeque<Projection>,
    live_bytes: usize,
    retained: BTreeMap<String, Kept>,
    retained_bytes: usize,
    versions: u64,
    replies: VecDeque<Answer>,
    pub(super) dropped: u64,
}

impl Shelf {
    pub(super) fn put(&mut self, projection: Projection, now: Instant) {
        if projection.payload.len() > PAYLOAD_MAX {
            self.dropped += 1;
        } else if projection.retain {
            self.keep(projection, now);
        } else if self.connected {
            self.live_bytes += projection.bytes();
            self.live.push_back(projection);
            while self.live.len() > LIVE_MAX || self.live_bytes > LIVE_BYTES_MAX {
                self.drop_live();
            }
        }
    }

    fn drop_live(&mut self) {
        let first = self.live.iter().position(Projection::is_droppable);
        if let Some(gone) = self.live.remove(first.unwrap_or(0)) {
            self.live_bytes -= gone.bytes();
            self.dropped += 1;
        }
    }

    fn keep(&mut self, projection: Projection, now: Instant) {
        if let Some(former) = self.retained.remove(&projection.topic) {
            self.retained_bytes -= former.projection.bytes();
        }
        // What expires by itself, such as a health, yields to what does not.
        while self.retained.len() >= RETAINED_MAX
            || self.retained_bytes + projection.bytes() > RETAINED_BYTES_MAX
        {
            self.dropped += 1;
            let oldest = self
                .retained
                .iter()
                .filter(|(_, kept)| kept.projection.expiry_s.is_some())
                .min_by_key(|(_, kept)| kept.version)
                .map(|(topic, _)| topic.clone());
            match oldest {
                Some(topic) => self.forget(&topic),
                None => return,
            }
        }
        self.versions += 1;
        self.retained_bytes += projection.bytes();
        self.retained.insert(
            projection.topic.clone(),
            Kept {
                projection,
                at: now,
                version: self.versions,
                sent: false,
            },
        );
    }

    fn forget(&mut self, topic: &str) {
        if let Some(gone) = self.retained.remove(topic) {
            self.retained_bytes -= gone.projection.bytes();
        }
    }

    /// `session`: the broker still knows this node, so what it acknowledged
    /// before is still there.
    pub(super) fn connected(&mut self, session: bool) {
        self.connected = true;
        if !session {
            for kept in self.retained.values_mut() {
                kept.sent = false;
            }
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.live.clear();
        self.live_bytes = 0;
    }

    pub(super) fn next_live(&mut self) -> Option<Projection> {
        let next = self.live.pop_front()?;
        self.live_bytes -= next.bytes();
        Some(next)
    }

    /// The next retained value to send, with what is left of its life.
    pub(super) fn next_retained(&mut self, now: Instant) -> Option<(KeptRef, Projection)> {
        loop {
            let (topic, kept) = self.retained.iter_mut().find(|(_, kept)| !kept.sent)?;
            let age = now.saturating_duration_since(kept.at);
            let left = kept
                .projection
                .expiry_s
                .map(|expiry| Duration::from_secs(u64::from(expiry)).saturating_sub(age));
            if left.is_some_and(|left| left.is_zero()) {
                let topic = topic.clone();
                self.forget(&topic);
                continue;
            }
            kept.sent = true;
            let mut projection = kept.projection.clone();
            projection.expiry_s =
                left.map(|left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1));
            let reference = KeptRef {
                topic: topic.clone(),
                version: kept.version,
            };
            return Some((reference, projection));
        }
    }

    /// The broker has it, or not: then it is sent again, unless there is a newer
    /// value. A cleared topic is forgotten with its acknowledgement.
    pub(super) fn settle(&mut self, reference: &KeptRef, delivered: bool) {
        let Some(kept) = self.retained.get_mut(&reference.topic) else {
            return;
        };
        if kept.version != reference.version {
            return;
        }
        kept.sent = delivered;
        if delivered && kept.projection.payload.is_empty() {
            self.forget(&reference.topic);
        }
    }

    /// A refusal may be one of thousands: half of the room, so that a flood of
    /// nonsense pushes no real answer out.
    pub(super) fn refuse(&mut self, answer: Answer) {
        if self.replies.len() < REPLIES_MAX / 2 {
            self.replies.push_back(answer);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn reply(&mut self, answer: Answer) {
        if self.replies.len() >= REPLIES_MAX {
            self.replies.pop_front();
            self.dropped += 1;
        }
        self.replies.push_back(answer);
    }

    /// A reply that was handed out and not acknowledged.
    pub(super) fn reply_again(&mut self, answer: Answer) {
        if self.replies.len() < REPLIES_MAX {
            self.replies.push_front(answer);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn next_reply(&mut self) -> Option<Answer> {
        self.replies.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(topic: &str, qos: Delivery) -> Projection {
        Projection {
            topic: topic.into(),
            payload: b"{}".to_vec(),
            qos,
            retain: false,
            expiry_s: None,
        }
    }

    fn retained(topic: &str, payload: &str, expiry_s: Option<u32>) -> Projection {
        Projection {
            topic: topic.into(),
            payload: payload.into(),
            qos: Delivery::AtLeastOnce,
            retain: true,
            expiry_s,
        }
    }

    #[test]
    fn the_table_says_how_a_topic_is_published() {
        let alarm = Projection::new("hs/v1/s/n/alarm/web-dead".into(), Vec::new()).unwrap();
        assert!(alarm.retain && alarm.qos == Delivery::AtLeastOnce);
        assert_eq!(Projection::new("hs/v1/s/n/cmd/ping/1".into(), vec![]), None);
        assert_eq!(Projection::new("elsewhere".into(), vec![]), None);
    }

    #[test]
    fn a_full_live_queue_drops_telemetry_first_then_the_oldest_and_counts() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        shelf.put(live("gone", Delivery::AtLeastOnce), now);
        shelf.connected(true);
        shelf.put(live("evt/0", Delivery::AtLeastOnce), now);
        shelf.put(live("log/0", Delivery::AtMostOnce), now);
        shelf.put(live("n/tel/0", Delivery::AtLeastOnce), now);
        for at in 3..=LIVE_MAX + 2 {
            shelf.put(live(&format!("evt/{at}"), Delivery::AtLeastOnce), now);
        }
        assert_eq!(shelf.dropped, 3);
        let order: Vec<String> = std::iter::from_fn(|| shelf.next_live())
            .map(|projection| projection.topic)
            .collect();
        assert_eq!(order.len(), LIVE_MAX);
        assert_eq!(order.first().map(String::as_str), Some("evt/3"));

        let mut big = live("evt/big", Delivery::AtLeastOnce);
        big.payload = vec![0; PAYLOAD_MAX];
        for _ in 0..10 {
            shelf.put(big.clone(), now);
        }
        assert!(shelf.live_bytes <= LIVE_BYTES_MAX);
        big.payload.push(0);
        let before = shelf.live.len();
        shelf.put(big, now);
        assert_eq!(shelf.live.len(), before);
    }

    #[test]
    fn only_the_newest_retained_value_goes_out_and_until_it_is_acknowledged() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        shelf.put(retained("alarm/a", "raised", None), now);
        let (first, _) = shelf.next_retained(now).unwrap();
        shelf.put(retained("alarm/a", "", None), now);
        shelf.settle(&first, true);
        let (second, sent) = shelf.next_retained(now).unwrap();
        assert!(sent.payload.is_empty());
        shelf.settle(&second, false);
        let (third, _) = shelf.next_retained(now).unwrap();
        assert_eq!(second, third);
        shelf.settle(&third, true);
        assert!(shelf.next_retained(now).is_none());
        assert!(shelf.retained.is_empty());
    }

    #[test]
    fn a_broker_that_forgot_the_session_gets_what_still_holds() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        shelf.put(retained("alarm/a", "raised", None), now);
        shelf.put(retained("svc/web/health", "fine", Some(30)), now);
        while let Some((reference, _)) = shelf.next_retained(now) {
            shelf.settle(&reference, true);
        }
        shelf.connected(true);
        assert!(shelf.next_retained(now).is_none());
        shelf.connected(false);
        let later = now + Duration::from_secs(20);
        shelf.next_retained(later).unwrap();
        let (_, health) = shelf.next_retained(later).unwrap();
        assert_eq!(health.expiry_s, Some(10));
        shelf.connected(false);
        let later = now + Duration::from_secs(31);
        assert!(shelf.next_retained(later).is_some());
        assert!(shelf.next_retained(later).is_none(), "health is stale");
    }

    #[test]
    fn retained_topics_are_bounded_and_alarms_stay() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        shelf.put(retained("alarm/a", "raised", None), now);
        for at in 0..2 * RETAINED_MAX {
            shelf.put(retained(&format!("svc/{at}"), "fine", Some(30)), now);
        }
        assert_eq!(shelf.retained.len(), RETAINED_MAX);
        assert!(shelf.retained.contains_key("alarm/a"));
        assert!(shelf.dropped > 0);
        let bytes: usize = shelf.retained.values().map(|k| k.projection.bytes()).sum();
        assert_eq!(bytes, shelf.retained_bytes);
    }

    #[test]
    fn replies_are_bounded_and_refusals_push_none_out() {
        let mut shelf = Shelf::default();
        let answer = Answer {
            projection: live("res/ping/1", Delivery::AtLeastOnce),
            correlation: None,
        };
        for _ in 0..REPLIES_MAX + 5 {
            shelf.reply(answer.clone());
        }
        shelf.reply_again(answer.clone());
        assert_eq!((shelf.replies.len(), shelf.dropped), (REPLIES_MAX, 6));

        let mut shelf = Shelf::default();
        shelf.reply(answer.clone());
        let mut refusal = answer.clone();
        refusal.projection.topic = "res/reboot/1".into();
        for _ in 0..1000 {
            shelf.refuse(refusal.clone());
        }
        assert_eq!(shelf.next_reply(), Some(answer));
        assert_eq!(shelf.replies.len(), REPLIES_MAX / 2 - 1);
    }
}
