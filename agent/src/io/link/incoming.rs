//! What may arrive, and what is made of it.
//!
//! In goes any message of any size from a broker that is not trusted, out comes
//! a [`Verdict`]. Orders of plans across nodes are believed only with the signature
//! of somebody whom the configuration trusts. Nothing here can fail: what is not understood is counted by
//! topic class and reason, and the next message is judged on its own.

use std::collections::VecDeque;

use homeostat_common::ids::{NodeId, SiteId, StreamId};
use homeostat_common::saga::{Answer, Order};
use homeostat_common::wire::projection::{Command, CoordinatorStatus, Outside};
use homeostat_common::wire::seal::{Refusal, Trusted};
use homeostat_common::wire::topic::{COORDINATOR_STATUS, NodeTopics, ROOT, Writer, address, find};
use homeostat_common::wire::{Down, RECORD_MAX};
use homeostat_notify::intake::{Heard, Misheard, Source};

use super::ignored::{Class, Reason};

/// Largest command or status: both are one line of JSON.
pub(super) const JSON_MAX: usize = 4096;
/// Largest list of other systems' alarms: as many as it has, with some hundred bytes each.
pub(super) const OUTSIDE_BYTES_MAX: usize = 32 * 1024;
/// Largest correlation data that is kept until the answer.
pub(super) const CORRELATION_MAX: usize = 256;
/// Longest response topic.
pub(super) const RESPONSE_TOPIC_MAX: usize = 256;
/// Longest id of a command.
pub(super) const ID_MAX: usize = 64;
/// Commands remembered to answer each once: at least a minute of them, which is
/// how long a broker may keep one.
pub(super) const SEEN_MAX: usize = 256;

/// What can be asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandKind {
    /// Are you there?
    Ping,
    /// What do you know?
    Snapshot,
}

/// A command that the loop must answer, by [`super::LinkHandle::reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// What is asked.
    pub kind: CommandKind,
    /// The asker's name for it.
    pub id: String,
    /// Where the answer goes: under this node's `res/`.
    pub response_topic: String,
    /// To be sent back with the answer.
    pub correlation: Option<Vec<u8>>,
}

/// A message as it arrived.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Message<'m> {
    pub(super) topic: &'m [u8],
    pub(super) payload: &'m [u8],
    pub(super) retained: bool,
    pub(super) response_topic: Option<&'m str>,
    pub(super) correlation: Option<&'m [u8]>,
}

/// What a message means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Ack(u64),
    Coordinator {
        online: bool,
        live: bool,
    },
    Command(CommandRequest),
    /// To be said to the asker.
    Refuse {
        topic: String,
        correlation: Option<Vec<u8>>,
        text: String,
        why: Reason,
    },
    Order(Box<Order>),
    OrderRefused(String, Refusal),
    Answer(NodeId, Box<Answer>),
    Outside(Outside),
    Heard(String, Heard),
    Ignore(Class, Reason),
}

/// Judges messages for one node.
#[derive(Debug)]
pub(super) struct Inbox {
    topics: NodeTopics,
    down: String,
    own: String,
    all: String,
    replies: String,
    orders: String,
    site: SiteId,
    node: NodeId,
    trusted: Trusted,
    seen: VecDeque<(CommandKind, String)>,
    outside: String,
    intake: Vec<Source>,
}

impl Inbox {
    pub(super) fn new(site: &SiteId, node: &NodeId, stream: StreamId, trusted: Trusted) -> Self {
        let topics = NodeTopics::new(site, node);
        Self {
            down: topics.down(stream),
            own: format!("{ROOT}/{site}/{node}/cmd/"),
            all: format!("{ROOT}/{site}/_all/cmd/"),
            replies: format!("{ROOT}/{site}/{node}/res/"),
            orders: format!("{ROOT}/{site}/{node}/ord/"),
            outside: topics.outside(),
            intake: Vec::new(),
            site: site.clone(),
            node: node.clone(),
            trusted,
            topics,
            seen: VecDeque::new(),
        }
    }

    /// The same, hearing what devices say there.
    pub(super) fn hearing(self, intake: Vec<Source>) -> Self {
        Self { intake, ..self }
    }

    /// `unix_ms`: wall time, for deadlines.
    pub(super) fn judge(&mut self, message: &Message<'_>, unix_ms: u64) -> Verdict {
        let Ok(topic) = std::str::from_utf8(message.topic) else {
            return Verdict::Ignore(Class::Other, Reason::Malformed);
        };
        if topic == self.down {
            return down(message.payload);
        }
        if topic == COORDINATOR_STATUS {
            return status(message);
        }
        if topic == self.outside {
            return outside(message.payload);
        }
        if let Some(verdict) = self.device(topic, message.payload) {
            return verdict;
        }
        if let Some(by) = topic.strip_prefix(&self.orders) {
            return self.order(by, message, unix_ms);
        }
        if let Some(node) = self.answering(topic) {
            return match Answer::decode(message.payload) {
                Ok(answer) if answer.saga.by == self.node => {
                    Verdict::Answer(node, Box::new(answer))
                }
                Ok(_) | Err(_) => Verdict::Ignore(Class::Answer, Reason::Malformed),
            };
        }
        let rest = topic
            .strip_prefix(&self.own)
            .or_else(|| topic.strip_prefix(&self.all));
        match rest.and_then(|rest| rest.split_once('/')) {
            Some((kind, id)) => {
                let (kind, id) = (kind.to_owned(), id.to_owned());
                self.command(&kind, id, message, unix_ms)
            }
            None => Verdict::Ignore(Class::Other, Reason::Malformed),
        }
    }

    /// What a device says; `None` if nobody listens to that topic.
    fn device(&self, topic: &str, payload: &[u8]) -> Option<Verdict> {
        let mut sources = self.intake.iter();
        let heard = sources.find_map(|source| source.hear(topic, payload))?;
        Some(match heard {
            Ok(heard) => Verdict::Heard(topic.to_owned(), heard),
            Err(Misheard::TooLarge(_)) => Verdict::Ignore(Class::Device, Reason::Oversize),
            Err(Misheard::Malformed(why)) => {
                tracing::debug!(topic, why, "a message is no alarm");
                Verdict::Ignore(Class::Device, Reason::Malformed)
            }
        })
    }

    fn order(&self, by: &str, message: &Message<'_>, unix_ms: u64) -> Verdict {
        if message.retained {
            return Verdict::Ignore(Class::Order, Reason::Retained);
        }
        let Ok(by) = NodeId::new(by) else {
            return Verdict::Ignore(Class::Order, Reason::Malformed);
        };
        match self
            .trusted
            .judge(&self.site, &self.node, &by, message.payload, unix_ms)
        {
            Ok(order) => Verdict::Order(Box::new(order)),
            Err(refusal) => Verdict::OrderRefused(by.to_string(), refusal),
        }
    }

    /// The node whose answer to this one the topic carries.
    fn answering(&self, topic: &str) -> Option<NodeId> {
        let (_, node) = address(topic)?;
        let own = NodeTopics::new(&self.site, &node).answers(&self.node);
        (own == topic).then_some(node)
    }

    fn command(&mut self, kind: &str, id: String, message: &Message<'_>, unix_ms: u64) -> Verdict {
        let ignore = |reason| Verdict::Ignore(Class::Command, reason);
        if message.retained {
            return ignore(Reason::Retained);
        }
        if !is_word(kind) || !is_word(&id) {
            return ignore(Reason::Malformed);
        }
        let correlation = message.correlation;
        if correlation.is_some_and(|bytes| bytes.len() > CORRELATION_MAX) {
            return ignore(Reason::Oversize);
        }
        let correlation = correlation.map(<[u8]>::to_vec);
        let usual = self.topics.reply(kind, &id);
        let refuse = |text: String, why| Verdict::Refuse {
            topic: usual.clone(),
            correlation: correlation.clone(),
            text,
            why,
        };
        let response_topic = match message.response_topic {
            None => usual.clone(),
            Some(asked) if self.is_own_reply(asked) => asked.to_owned(),
            Some(_) => {
                let text = format!("the response topic must be under {}", self.replies);
                return refuse(text, Reason::ForeignTopic);
            }
        };
        let kind = match kind {
            "ping" => CommandKind::Ping,
            "snapshot" => CommandKind::Snapshot,
            _ => {
                let text = "unknown kind; there are ping and snapshot".into();
                return refuse(text, Reason::UnknownKind);
            }
        };
        if message.payload.len() > JSON_MAX {
            let text = format!("a command has at most {JSON_MAX} bytes");
            return refuse(text, Reason::Oversize);
        }
        let deadline = match parse(message.payload) {
            Ok(command) => command.deadline_ms,
            Err(error) => return refuse(format!("malformed: {error}"), Reason::Malformed),
        };
        if let Some(late) = deadline
            .and_then(|at| unix_ms.checked_sub(at))
            .filter(|by| *by > 0)
        {
            return refuse(
                format!("the deadline passed {late} ms ago by this node's clock"),
                Reason::Expired,
            );
        }
        if self.seen.iter().any(|(k, i)| *k == kind && *i == id) {
            return ignore(Reason::Duplicate);
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back((kind, id.clone()));
        Verdict::Command(CommandRequest {
            kind,
            id,
            response_topic,
            correlation,
        })
    }

    /// The loop could not take it; the same command may come again.
    pub(super) fn unsee(&mut self, request: &CommandRequest) {
        self.seen
            .retain(|(kind, id)| *kind != request.kind || *id != request.id);
    }

    fn is_own_reply(&self, topic: &str) -> bool {
        topic.len() <= RESPONSE_TOPIC_MAX
            && topic.starts_with(&self.replies)
            && !topic.contains(['+', '#', '\0'])
            && find(topic).is_some_and(|row| row.writer == Writer::Node)
    }
}

fn down(payload: &[u8]) -> Verdict {
    if payload.len() > RECORD_MAX {
        return Verdict::Ignore(Class::Down, Reason::Oversize);
    }
    match Down::decode(payload) {
        Ok(Down::Ack { through }) => Verdict::Ack(through),
        Err(_) => Verdict::Ignore(Class::Down, Reason::Malformed),
    }
}

fn status(message: &Message<'_>) -> Verdict {
    let class = Class::CoordinatorStatus;
    if message.payload.len() > JSON_MAX {
        return Verdict::Ignore(class, Reason::Oversize);
    }
    match serde_json::from_slice::<CoordinatorStatus>(message.payload) {
        Ok(status) => Verdict::Coordinator {
            online: status.online,
            live: !message.retained,
        },
        Err(_) => Verdict::Ignore(class, Reason::Malformed),
    }
}

/// An empty payload says that there is none any more.
fn outside(payload: &[u8]) -> Verdict {
    if payload.is_empty() {
        return Verdict::Outside(Outside::default());
    }
    if payload.len() > OUTSIDE_BYTES_MAX {
        return Verdict::Ignore(Class::Outside, Reason::Oversize);
    }
    match serde_json::from_slice(payload) {
        Ok(outside) => Verdict::Outside(outside),
        Err(_) => Verdict::Ignore(Class::Outside, Reason::Malformed),
    }
}

/// An empty payload is a command without a deadline: `mosquitto_pub -n`.
fn parse(payload: &[u8]) -> Result<Command, serde_json::Error> {
    if payload.is_empty() {
        return Ok(Command { deadline_ms: None });
    }
    serde_json::from_slice(payload)
}

/// Under which reason a refused order is counted.
pub(super) fn reason_of(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::Unsigned(_) => Reason::Unsigned,
        Refusal::Untrusted(_) | Refusal::Key(_) | Refusal::Name(_) => Reason::Untrusted,
        Refusal::Signature => Reason::Signature,
        Refusal::Expired(_) | Refusal::Clock(_) => Reason::Expired,
        Refusal::Body(_) => Reason::Malformed,
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=ID_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::link::Ignored;
    use homeostat_common::saga::{Fence, SagaId, Want};
    use homeostat_common::wire::seal::Signer;

    const NOW: u64 = 1_790_000_000_000;

    fn inbox() -> Inbox {
        let (site, node) = (SiteId::new("s").unwrap(), NodeId::new("n").unwrap());
        let mut trusted = Trusted::default();
        let key = Signer::new(&[1; 32]).key();
        trusted.trust(NodeId::new("boss").unwrap(), &key).unwrap();
        Inbox::new(&site, &node, StreamId([1; 16]), trusted)
    }

    fn message<'m>(topic: &'m str, payload: &'m str) -> Message<'m> {
        Message {
            topic: topic.as_bytes(),
            payload: payload.as_bytes(),
            ..Message::default()
        }
    }

    fn why(verdict: &Verdict) -> Option<Reason> {
        match verdict {
            Verdict::Refuse { why, .. } | Verdict::Ignore(_, why) => Some(*why),
            _ => None,
        }
    }

    #[test]
    fn a_command_to_the_node_or_to_all_is_taken_once() {
        let mut inbox = inbox();
        for (topic, payload) in [
            ("hs/v1/s/n/cmd/ping/a1", ""),
            (
                "hs/v1/s/_all/cmd/snapshot/a1",
                "{\"deadline_ms\":1790000000000}",
            ),
        ] {
            let first = inbox.judge(&message(topic, payload), NOW);
            let Verdict::Command(request) = &first else {
                panic!("{first:?}");
            };
            assert!(request.response_topic.starts_with("hs/v1/s/n/res/"));
            let again = inbox.judge(&message(topic, payload), NOW);
            assert_eq!(why(&again), Some(Reason::Duplicate));
            inbox.unsee(request);
            assert_eq!(inbox.judge(&message(topic, payload), NOW), first);
        }
        for at in 0..2 * SEEN_MAX {
            inbox.judge(&message(&format!("hs/v1/s/n/cmd/ping/{at}"), ""), NOW);
        }
        assert_eq!(inbox.seen.len(), SEEN_MAX);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_a_reason() {
        let mut inbox = inbox();
        let long = "x".repeat(JSON_MAX + 1);
        for (topic, payload, reason) in [
            ("hs/v1/s/n/cmd/reboot/1", "", Reason::UnknownKind),
            (
                "hs/v1/s/n/cmd/ping/1",
                "{\"deadline_ms\":1}",
                Reason::Expired,
            ),
            ("hs/v1/s/n/cmd/ping/1", "{\"other\":1}", Reason::Malformed),
            ("hs/v1/s/n/cmd/ping/1", "\u{0}\u{1}", Reason::Malformed),
            ("hs/v1/s/n/cmd/ping/1", &long, Reason::Oversize),
        ] {
            let verdict = inbox.judge(&message(topic, payload), NOW);
            assert!(matches!(verdict, Verdict::Refuse { .. }), "{verdict:?}");
            assert_eq!(why(&verdict), Some(reason), "{topic} {payload}");
        }
    }

    #[test]
    fn an_answer_goes_nowhere_but_under_the_nodes_own_replies() {
        let mut inbox = inbox();
        let topic = "hs/v1/s/n/cmd/ping/1";
        for asked in [
            "hs/v1/s/other/res/ping/1",
            "hs/v1/s/n/status",
            "hs/v1/s/n/res/",
            "hs/v1/s/n/res/+/1",
            "hs/v1/s/n/res/a/b/c",
            "$SYS/broker",
            "",
        ] {
            let mut message = message(topic, "");
            message.response_topic = Some(asked);
            let verdict = inbox.judge(&message, NOW);
            assert_eq!(why(&verdict), Some(Reason::ForeignTopic), "{asked}");
        }
        let mut message = message(topic, "");
        message.response_topic = Some("hs/v1/s/n/res/mine/7");
        message.correlation = Some(b"k");
        let Verdict::Command(request) = inbox.judge(&message, NOW) else {
            panic!("refused");
        };
        assert_eq!(request.response_topic, "hs/v1/s/n/res/mine/7");
        assert_eq!(request.correlation.as_deref(), Some(&b"k"[..]));
    }

    #[test]
    fn what_is_not_a_message_is_counted_by_class_and_reason() {
        let mut inbox = inbox();
        let big = "x".repeat(RECORD_MAX + 1);
        let dn = format!("hs/v1/s/n/dn/{}", StreamId([1; 16]));
        let mut retained = message("hs/v1/s/n/cmd/ping/1", "");
        retained.retained = true;
        let cases = [
            (message(&dn, "x"), Class::Down, Reason::Malformed),
            (message(&dn, &big), Class::Down, Reason::Oversize),
            (
                message(COORDINATOR_STATUS, "[]"),
                Class::CoordinatorStatus,
                Reason::Malformed,
            ),
            (
                message(COORDINATOR_STATUS, &big),
                Class::CoordinatorStatus,
                Reason::Oversize,
            ),
            (
                message("hs/v1/s/n/cmd/ping/ä", ""),
                Class::Command,
                Reason::Malformed,
            ),
            (
                message("hs/v1/s/other/cmd/ping/1", ""),
                Class::Other,
                Reason::Malformed,
            ),
            (retained, Class::Command, Reason::Retained),
        ];
        let mut ignored = Ignored::default();
        for (message, class, reason) in cases {
            let verdict = inbox.judge(&message, NOW);
            assert_eq!(verdict, Verdict::Ignore(class, reason));
            ignored.add(class, reason);
            assert_eq!(ignored.count(class, reason), 1);
        }
        assert_eq!(ignored.total(), 7);
        let ack = Down::Ack { through: 9 }.encode().unwrap();
        let good = Message {
            topic: dn.as_bytes(),
            payload: &ack,
            ..Message::default()
        };
        assert_eq!(inbox.judge(&good, NOW), Verdict::Ack(9));
    }

    #[test]
    fn every_reason_and_class_has_its_own_counter() {
        let mut ignored = Ignored::default();
        ignored.add(Class::Other, Reason::Busy);
        assert_eq!(ignored.count(Class::Other, Reason::Busy), 1);
    }

    #[test]
    fn an_order_is_taken_from_its_topic_with_its_signature_only() {
        let mut inbox = inbox();
        let (site, node) = (SiteId::new("s").unwrap(), NodeId::new("n").unwrap());
        let by = NodeId::new("boss").unwrap();
        let order = Order {
            saga: SagaId {
                by: by.clone(),
                number: 1,
            },
            fence: Fence {
                epoch: 1,
                counter: 1,
            },
            want: Want::Vote,
        };
        let signed = |seed| {
            Signer::new(&[seed; 32])
                .seal(&site, &node, &order, NOW)
                .unwrap()
        };
        let topics = NodeTopics::new(&site, &node);
        let mut judge = |topic: &str, payload: &[u8], retained| {
            let message = Message {
                topic: topic.as_bytes(),
                payload,
                retained,
                ..Message::default()
            };
            inbox.judge(&message, NOW)
        };
        let topic = topics.orders(&by);
        assert_eq!(
            judge(&topic, &signed(1), false),
            Verdict::Order(Box::new(order.clone()))
        );
        assert_eq!(
            judge(&topic, &signed(1), true),
            Verdict::Ignore(Class::Order, Reason::Retained)
        );
        let refused = |verdict| match verdict {
            Verdict::OrderRefused(_, refusal) => reason_of(&refusal),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(judge(&topic, &signed(2), false)), Reason::Untrusted);
        assert_eq!(refused(judge(&topic, b"plain", false)), Reason::Unsigned);
        let stranger = topics.orders(&NodeId::new("who").unwrap());
        assert_eq!(
            refused(judge(&stranger, &signed(1), false)),
            Reason::Untrusted
        );
    }
}
