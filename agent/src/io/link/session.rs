//! The connection: joins rumqttc, the window, the queues and the clock.
//!
//! Traps of rumqttc 0.25.1 that shape this file:
//! - `EventLoop::poll` must not be dropped half-way (a PUBACK or a publish
//!   would be lost inside it), so one future drives it for the whole life of a
//!   connection and hands events over a channel.
//! - It stops reading, pinging and timing out while a write is stuck, so a
//!   frozen broker is noticed here, by [`Session::silent_at`].
//! - After an error it yields on the next poll what arrived before it; those
//!   events are taken out by hand.
//! - It sends again by itself what an earlier connection left behind, and
//!   forgets it when the broker has no session. Each connection gets an event
//!   loop of its own, and delivery is counted here.
//! - A packet above the limit, or one it cannot read, ends the connection before
//!   it is acknowledged; with a persistent session it comes again for ever. After
//!   [`POISON_MAX`] such ends the next connection starts clean and asks for no
//!   retained messages.
//! - A keep-alive below 5 s panics, and one of 0 from the broker means a ping
//!   per poll.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use homeostat_common::wire::RECORD_MAX;
use homeostat_common::wire::projection::{Reply, Status};
use homeostat_common::wire::topic::{COORDINATOR_STATUS, NodeTopics};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    DisconnectReasonCode, Filter, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing};
use tokio::sync::mpsc;
use tokio::time::{Instant as TokioInstant, sleep_until};
use tracing::{debug, info, warn};

use super::backlog::{Backlog, Record};
use super::backoff::Backoff;
use super::incoming::{Class, CommandRequest, Inbox, Message, Reason, Verdict};
use super::outgoing::{Answer, Delivery, KeptRef, Projection};
use super::uplink::{AckVerdict, Uplink};
use super::{KEEP_ALIVE_MIN, LinkConfig, LinkEvent, LinkHandle, PACKET_MAX, Shared};

/// The broker keeps the session for this long: a node that was off over a long
/// weekend still gets what was sent to it.
const SESSION_EXPIRY_S: u32 = 7 * 86_400;
/// The last will waits this long, which hides short interruptions.
const WILL_DELAY_S: u32 = 15;
/// QoS 1 messages under way in each direction; without a limit the library
/// reserves 65,536 slots, 14 MB.
const INFLIGHT_MAX: u16 = 16;
/// Messages handed to the library and not yet written: few, because what comes
/// later may be more urgent.
const REQUESTS_MAX: usize = 16;
/// Events that the library may be ahead.
const EVENTS_MAX: usize = 32;
/// For the TCP connection and the CONNACK, and again for the SUBACK.
const ANSWER_TIMEOUT_S: u64 = 10;
/// For the last words.
const GOODBYE: Duration = Duration::from_secs(1);
/// Connections that end with a packet that cannot be read before the session is
/// given up; one or two may be line noise.
const POISON_MAX: u32 = 3;
/// Times in a row that another client takes this node's name before it is held
/// back for [`TAKEN_OVER_HOLD`].
const TAKEN_OVER_MAX: u32 = 3;
/// Two devices with one identity must not kick each other out for ever.
const TAKEN_OVER_HOLD: Duration = Duration::from_secs(60);
/// Commands that wait for the loop; more are refused.
const COMMANDS_MAX: usize = 16;
/// Header, topic and properties of an event on `up/{stream}`.
const OVERHEAD_MAX: usize = 512;

/// The link; made by [`Link::new`], lives in [`Link::run`].
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    topics: NodeTopics,
    shared: std::sync::Arc<Shared>,
    backlog: Backlog,
    news: News,
    uplink: Uplink,
    inbox: Inbox,
    backoff: Backoff,
    births: u64,
    poisoned: u32,
    taken_over: u32,
}

/// Events on their way to the loop: the newest of each state, every command.
#[derive(Debug)]
struct News {
    events: mpsc::Sender<LinkEvent>,
    connection: Option<LinkEvent>,
    coordinator: Option<bool>,
    acked: Option<u64>,
    commands: VecDeque<CommandRequest>,
}

impl News {
    fn pop(&mut self) -> Option<LinkEvent> {
        if let Some(event) = self.connection.take() {
            return Some(event);
        }
        if let Some(online) = self.coordinator.take() {
            return Some(LinkEvent::CoordinatorOnline(online));
        }
        if let Some(through) = self.acked.take() {
            return Some(LinkEvent::Acked { through });
        }
        self.commands.pop_front().map(LinkEvent::Command)
    }

    fn is_empty(&self) -> bool {
        self.connection.is_none()
            && self.coordinator.is_none()
            && self.acked.is_none()
            && self.commands.is_empty()
    }

    /// Hands one event over; `false` when nobody listens any more.
    async fn hand_over(&mut self) -> bool {
        if self.is_empty() {
            self.events.closed().await;
            return false;
        }
        let Ok(permit) = self.events.clone().reserve_owned().await else {
            return false;
        };
        if let Some(event) = self.pop() {
            permit.send(event);
        }
        true
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Subscribing,
    Ready,
    Leaving,
}

/// What a message that was handed to the library is about.
#[derive(Debug)]
enum Tag {
    Own,
    Up,
    Reply(Answer),
    Retained(KeptRef),
}

/// One connection, from the first SYN to its end.
#[derive(Debug)]
struct Session {
    client: AsyncClient,
    stage: Stage,
    session_present: bool,
    packet_max: usize,
    queued: VecDeque<Tag>,
    flight: BTreeMap<u16, Tag>,
    turn: u8,
    fetching: Option<u64>,
    ready_at: Option<Instant>,
    silence_max: Duration,
    silent_at: Instant,
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The loop wants it.
    Stopped,
    /// The library, or the network below it.
    Failed(Box<ConnectionError>),
    /// The broker lets this node not subscribe.
    SubscriptionRefused(Vec<SubscribeReasonCode>),
    /// Nothing came for too long.
    Silent(Stage),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => write!(f, "stopped"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::SubscriptionRefused(codes) => {
                write!(f, "the broker refused a subscription: {codes:?}")
            }
            Self::Silent(stage) => write!(f, "the broker fell silent while {stage:?}"),
        }
    }
}

impl End {
    /// A packet that the library cannot take, and that will come again.
    fn is_poison(&self) -> bool {
        use rumqttc::v5::mqttbytes::Error;
        let Self::Failed(error) = self else {
            return false;
        };
        match error.as_ref() {
            ConnectionError::MqttState(StateError::Deserialization(Error::Io(_))) => false,
            ConnectionError::MqttState(
                StateError::Deserialization(_)
                | StateError::IncomingPacketTooLarge { .. }
                | StateError::WrongPacket,
            ) => true,
            _ => false,
        }
    }

    fn is_taken_over(&self) -> bool {
        let Self::Failed(error) = self else {
            return false;
        };
        matches!(
            error.as_ref(),
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code: DisconnectReasonCode::SessionTakenOver,
                ..
            })
        )
    }
}

impl Link {
    /// A link that does nothing until it runs.
    #[must_use]
    pub fn new(
        config: LinkConfig,
        backlog: Backlog,
        events: mpsc::Sender<LinkEvent>,
    ) -> (LinkHandle, Self) {
        let shared = std::sync::Arc::new(Shared::default());
        let Status { node, stream, .. } = &config.status;
        let site = &config.meta.site;
        let link = Self {
            topics: NodeTopics::new(site, node),
            inbox: Inbox::new(site, node, *stream),
            uplink: Uplink::new(config.acked, config.last, config.patience),
            backoff: Backoff::new(config.reconnect_min, config.reconnect_max, config.seed),
            shared: std::sync::Arc::clone(&shared),
            backlog,
            news: News {
                events,
                connection: None,
                coordinator: None,
                acked: None,
                commands: VecDeque::new(),
            },
            births: 0,
            poisoned: 0,
            taken_over: 0,
            config,
        };
        (LinkHandle(shared), link)
    }

    /// Connects, and connects again, until it is told to stop or nobody receives
    /// its events.
    pub async fn run(mut self) {
        let mut delay = self.backoff.first();
        while self.wait(delay).await {
            let clean = self.poisoned >= POISON_MAX;
            self.count(|counters| {
                counters.attempts += 1;
                counters.clean_starts += u64::from(clean);
            });
            let (end, ready_at) = self.connection(clean).await;
            if matches!(end, End::Stopped) {
                return;
            }
            delay = self.after(&end, ready_at, clean);
        }
    }

    /// What the end of a connection means for the next one.
    fn after(&mut self, end: &End, ready_at: Option<Instant>, clean: bool) -> Duration {
        self.poisoned = match (end.is_poison(), clean) {
            (true, false) => self.poisoned + 1,
            // Once: a broker that sends it again gets three more ordinary tries.
            (true, true) | (false, _) => u32::from(end.is_poison()),
        };
        self.taken_over = match end.is_taken_over() {
            true => self.taken_over.saturating_add(1),
            false => 0,
        };
        if end.is_taken_over() {
            self.count(|counters| counters.taken_over += 1);
        }
        let mut delay = match ready_at {
            Some(at) => self.backoff.lost(at.elapsed()),
            None => self.backoff.failed(),
        };
        if self.taken_over >= TAKEN_OVER_MAX {
            delay += TAKEN_OVER_HOLD;
        }
        if ready_at.is_some() {
            info!(reason = %end, ?delay, "link lost");
            self.news.coordinator = None;
            self.news.connection = Some(LinkEvent::Disconnected {
                reason: end.to_string(),
            });
        } else {
            debug!(reason = %end, ?delay, "no link");
        }
        delay
    }

    /// `false` when it is time to stop.
    async fn wait(&mut self, delay: Duration) -> bool {
        let until = TokioInstant::now() + delay;
        loop {
            if self.shared.lock().stop {
                return false;
            }
            tokio::select! {
                () = sleep_until(until) => return true,
                () = self.shared.changed.notified() => {}
                listening = self.news.hand_over() => if !listening {
                    return false;
                },
            }
        }
    }

    async fn connection(&mut self, clean: bool) -> (End, Option<Instant>) {
        let options = self.options(clean);
        let silence_max = options.keep_alive() * 2 + Duration::from_secs(ANSWER_TIMEOUT_S);
        let (client, event_loop) = AsyncClient::new(options, REQUESTS_MAX);
        let mut session = Session {
            client,
            stage: Stage::Open,
            session_present: false,
            packet_max: usize::MAX,
            queued: VecDeque::new(),
            flight: BTreeMap::new(),
            turn: 0,
            fetching: None,
            ready_at: None,
            silence_max,
            // The library's own limit for the CONNACK comes first.
            silent_at: Instant::now() + Duration::from_secs(2 * ANSWER_TIMEOUT_S),
        };
        let end = self.drive(&mut session, event_loop, clean).await;
        self.uplink.disconnected();
        let mut state = self.shared.lock();
        state.shelf.disconnected();
        let unsettled = session.flight.into_values().chain(session.queued);
        for tag in unsettled.collect::<Vec<_>>().into_iter().rev() {
            match tag {
                Tag::Own | Tag::Up => {}
                Tag::Reply(answer) => state.shelf.reply_again(answer),
                Tag::Retained(reference) => state.shelf.settle(&reference, false),
            }
        }
        (end, session.ready_at)
    }

    async fn drive(&mut self, session: &mut Session, event_loop: EventLoop, clean: bool) -> End {
        let backlog = self.backlog.clone();
        let (events, mut incoming) = mpsc::channel(EVENTS_MAX);
        let mut library = pin!(library(event_loop, events));
        let mut answer = pin!(None);
        loop {
            self.pump(session);
            if session.stage == Stage::Ready
                && session.fetching.is_none()
                && let Some(want) = self.uplink.ask()
            {
                session.fetching = Some(want.round);
                answer.set(Some(backlog.next(want.after, want.max_bytes)));
            }
            let tick = self
                .uplink
                .due()
                .map_or(session.silent_at, |due| due.min(session.silent_at));
            let step = tokio::select! {
                error = &mut library => Step::Ended(error),
                Some(event) = incoming.recv() => Step::Event(event),
                Some(records) = some(answer.as_mut().as_pin_mut()) => Step::Records(records),
                () = self.shared.changed.notified() => Step::Woken,
                listening = self.news.hand_over() => Step::Listening(listening),
                () = sleep_until(tick.into()) => Step::Tick,
            };
            match step {
                Step::Ended(error) => {
                    // What came before the error, and was acknowledged perhaps.
                    while let Ok(event) = incoming.try_recv() {
                        self.on_event(session, event, clean);
                    }
                    return match session.stage {
                        Stage::Leaving => End::Stopped,
                        _ => End::Failed(Box::new(error)),
                    };
                }
                Step::Event(event) => {
                    // While a SUBACK or the end is due, other traffic buys no time.
                    if session.stage == Stage::Ready {
                        session.silent_at = Instant::now() + session.silence_max;
                    }
                    if let Some(end) = self.on_event(session, event, clean) {
                        return end;
                    }
                }
                Step::Records(records) => {
                    answer.set(None);
                    if let (Some(round), Some(records)) = (session.fetching.take(), records) {
                        self.uplink.fetched(round, records);
                    }
                }
                Step::Woken => {
                    let mut state = self.shared.lock();
                    if std::mem::take(&mut state.notified) {
                        self.uplink.notify();
                    }
                    let stop = state.stop;
                    drop(state);
                    if stop && !self.leave(session) {
                        return End::Stopped;
                    }
                }
                Step::Listening(true) => {}
                Step::Listening(false) => return End::Stopped,
                Step::Tick => {
                    let now = Instant::now();
                    if now >= session.silent_at {
                        return match session.stage {
                            Stage::Leaving => End::Stopped,
                            stage => End::Silent(stage),
                        };
                    }
                    self.uplink.tick(now);
                    let resends = self.uplink.resends();
                    self.count(|counters| counters.resends = resends);
                }
            }
        }
    }

    fn on_event(&mut self, session: &mut Session, event: Event, clean: bool) -> Option<End> {
        match event {
            Event::Incoming(Packet::ConnAck(connack)) => {
                session.session_present = connack.session_present;
                let limit = connack.properties.and_then(|all| all.max_packet_size);
                if let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) {
                    session.packet_max = limit;
                    if limit < RECORD_MAX + OVERHEAD_MAX {
                        warn!(
                            limit,
                            "the broker's packet limit is below the largest event"
                        );
                    }
                }
                self.subscribe(session, clean);
            }
            Event::Incoming(Packet::SubAck(suback)) if session.stage == Stage::Subscribing => {
                let is_refused =
                    |code: &SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                if suback.return_codes.iter().any(is_refused) {
                    return Some(End::SubscriptionRefused(suback.return_codes));
                }
                self.ready(session);
            }
            Event::Incoming(Packet::Publish(publish)) => self.receive(&publish),
            Event::Incoming(Packet::PubAck(ack)) => {
                let fine = matches!(
                    ack.reason,
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers
                );
                if !fine {
                    debug!(reason = ?ack.reason, "the broker refused a message");
                    self.count(|counters| counters.refused_by_broker += 1);
                }
                // A refused one would be refused again.
                if let Some(Tag::Retained(reference)) = session.flight.remove(&ack.pkid) {
                    self.shared.lock().shelf.settle(&reference, true);
                }
            }
            Event::Outgoing(Outgoing::Publish(id)) => match session.queued.pop_front() {
                Some(Tag::Retained(reference)) if id == 0 => {
                    self.shared.lock().shelf.settle(&reference, true);
                }
                Some(tag) if id != 0 => {
                    session.flight.insert(id, tag);
                }
                _ => {}
            },
            _ => {}
        }
        None
    }

    fn subscribe(&self, session: &mut Session, clean: bool) {
        let mut filters: Vec<Filter> = self
            .topics
            .subscriptions(self.config.status.stream)
            .into_iter()
            .map(|path| Filter::new(path, QoS::AtLeastOnce))
            .collect();
        if clean {
            // What cannot be read may be a retained message. Not every broker
            // heeds the rule, so the one topic with such messages is left out
            // as well: a coordinator of unknown state is treated as online.
            filters.retain(|filter| filter.path != COORDINATOR_STATUS);
            for filter in &mut filters {
                filter.retain_forward_rule = RetainForwardRule::Never;
            }
        }
        // Fails only when the library's queue is full; it is empty now, and
        // without a SUBACK the connection ends.
        let _ = session.client.try_subscribe_many(filters);
        session.stage = Stage::Subscribing;
        session.silent_at = Instant::now() + Duration::from_secs(ANSWER_TIMEOUT_S);
    }

    fn ready(&mut self, session: &mut Session) {
        session.stage = Stage::Ready;
        session.ready_at = Some(Instant::now());
        session.silent_at = Instant::now() + session.silence_max;
        self.births += 1;
        let births = self.births;
        info!(births, session = session.session_present, "link ready");
        self.publish_status(session, true);
        if let Ok(meta) = serde_json::to_vec(&self.config.meta)
            && let Some(meta) = Projection::new(self.topics.meta(), meta)
        {
            self.hand(session, meta, None, Tag::Own);
        }
        self.uplink.connected();
        self.shared.lock().shelf.connected(session.session_present);
        self.count(|counters| counters.births = births);
        self.news.connection = Some(LinkEvent::Connected {
            birth: births,
            session: session.session_present,
        });
    }

    fn publish_status(&self, session: &mut Session, online: bool) {
        let status = Projection::new(self.topics.status(), self.status(online));
        if let Some(status) = status {
            self.hand(session, status, None, Tag::Own);
        }
    }

    fn status(&self, online: bool) -> Vec<u8> {
        let status = Status {
            online,
            birth: self.births,
            ..self.config.status.clone()
        };
        // Plain strings and numbers; an empty status would be a cleared one.
        serde_json::to_vec(&status).unwrap_or_default()
    }

    /// Begins to say goodbye; `false` when there is nobody to say it to.
    fn leave(&self, session: &mut Session) -> bool {
        if session.stage != Stage::Ready {
            return session.stage == Stage::Leaving;
        }
        self.publish_status(session, false);
        session.stage = Stage::Leaving;
        session.silent_at = Instant::now() + GOODBYE;
        session.client.try_disconnect().is_ok()
    }

    fn receive(&mut self, publish: &Publish) {
        let now = Instant::now();
        let properties = publish.properties.as_ref();
        let message = Message {
            topic: &publish.topic,
            payload: &publish.payload,
            retained: publish.retain,
            response_topic: properties.and_then(|all| all.response_topic.as_deref()),
            correlation: properties.and_then(|all| all.correlation_data.as_deref()),
        };
        let verdict = self.inbox.judge(&message, unix_ms());
        let mut ignored = None;
        match verdict {
            Verdict::Ack(through) => match self.uplink.ack(through, now) {
                AckVerdict::Advanced(through) => self.news.acked = Some(through),
                AckVerdict::Old => {}
                AckVerdict::Beyond => ignored = Some((Class::Down, Reason::Beyond)),
            },
            Verdict::Coordinator { online, live } => {
                self.uplink.coordinator(online, live, now);
                self.news.coordinator = Some(online);
            }
            Verdict::Command(request) if self.news.commands.len() < COMMANDS_MAX => {
                self.news.commands.push_back(request);
            }
            Verdict::Command(request) => {
                self.inbox.unsee(&request);
                ignored = Some((Class::Command, Reason::Busy));
                let text = "too many commands at once".into();
                self.refuse(request.response_topic, request.correlation, text);
            }
            Verdict::Refuse {
                topic,
                correlation,
                text,
                why,
            } => {
                ignored = Some((Class::Command, why));
                self.refuse(topic, correlation, text);
            }
            Verdict::Ignore(class, why) => ignored = Some((class, why)),
        }
        self.count(|counters| {
            counters.received += 1;
            if let Some((class, why)) = ignored {
                counters.ignored.add(class, why);
            }
        });
    }

    fn refuse(&self, topic: String, correlation: Option<Vec<u8>>, reason: String) {
        info!(topic, reason, "command refused");
        let payload = serde_json::to_vec(&Reply::<()>::Refused { reason }).unwrap_or_default();
        if let Some(projection) = Projection::new(topic, payload) {
            self.shared.lock().shelf.reply(Answer {
                projection,
                correlation,
            });
        }
    }

    /// Hands over as much as the library's queue takes: replies first, then
    /// retained, live and events in turn, so that none of them starves.
    fn pump(&mut self, session: &mut Session) {
        if session.stage != Stage::Ready {
            return;
        }
        let now = Instant::now();
        while session.queued.len() < REQUESTS_MAX {
            let reply = self.shared.lock().shelf.next_reply();
            if let Some(answer) = reply {
                let projection = answer.projection.clone();
                let correlation = answer.correlation.clone();
                self.hand(session, projection, correlation, Tag::Reply(answer));
                continue;
            }
            if !(0..3).any(|_| self.hand_next(session, now)) {
                return;
            }
        }
    }

    /// One from the queue whose turn it is; `false` when that one is empty.
    fn hand_next(&mut self, session: &mut Session, now: Instant) -> bool {
        session.turn = (session.turn + 1) % 3;
        match session.turn {
            0 => {
                let next = self.shared.lock().shelf.next_retained(now);
                next.is_some_and(|(reference, projection)| {
                    self.hand(session, projection, None, Tag::Retained(reference));
                    true
                })
            }
            1 => {
                let next = self.shared.lock().shelf.next_live();
                next.is_some_and(|projection| {
                    self.hand(session, projection, None, Tag::Own);
                    true
                })
            }
            _ => self.uplink.pop(now).is_some_and(|(_, envelope)| {
                self.count(|counters| counters.sent += 1);
                let topic = self.topics.up(self.config.status.stream);
                let event = Projection {
                    topic,
                    payload: envelope,
                    qos: Delivery::AtLeastOnce,
                    retain: false,
                    expiry_s: None,
                };
                self.hand(session, event, None, Tag::Up);
                true
            }),
        }
    }

    fn hand(
        &self,
        session: &mut Session,
        projection: Projection,
        correlation: Option<Vec<u8>>,
        tag: Tag,
    ) {
        let size = projection.topic.len() + projection.payload.len() + OVERHEAD_MAX;
        if size > session.packet_max {
            self.count(|counters| counters.unsendable += 1);
            return;
        }
        let properties = PublishProperties {
            message_expiry_interval: projection.expiry_s,
            correlation_data: correlation.map(Into::into),
            ..PublishProperties::default()
        };
        let qos = match projection.qos {
            Delivery::AtMostOnce => QoS::AtMostOnce,
            Delivery::AtLeastOnce => QoS::AtLeastOnce,
        };
        let Projection {
            topic,
            payload,
            retain,
            ..
        } = projection;
        let handed = session
            .client
            .try_publish_with_properties(topic, qos, retain, payload, properties);
        match handed {
            Ok(()) => session.queued.push_back(tag),
            // A full queue cannot be (`queued` counts it), so it is the topic.
            Err(_) => self.count(|counters| counters.unsendable += 1),
        }
    }

    fn count(&self, change: impl FnOnce(&mut super::Counters)) {
        change(&mut self.shared.lock().counters);
    }

    fn options(&self, clean: bool) -> MqttOptions {
        let Status { node, .. } = &self.config.status;
        // The library joins host and port by a colon.
        let host = match self.config.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.config.host.clone(),
        };
        let mut options = MqttOptions::new(node.as_str(), host, self.config.port);
        let mut will = LastWill::new(
            self.topics.status(),
            self.status(false),
            QoS::AtLeastOnce,
            true,
            None,
        );
        will.properties = Some(LastWillProperties {
            delay_interval: Some(WILL_DELAY_S),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        });
        let mut network = NetworkOptions::new();
        // Without it a QoS 1 exchange waits for delayed acknowledgements of TCP:
        // 22 messages a second instead of 10,000.
        network.set_tcp_nodelay(true);
        options
            .set_keep_alive(self.config.keep_alive.max(KEEP_ALIVE_MIN))
            .set_clean_start(clean)
            .set_last_will(will)
            .set_connection_timeout(ANSWER_TIMEOUT_S)
            .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
            .set_receive_maximum(Some(INFLIGHT_MAX))
            .set_max_packet_size(Some(PACKET_MAX))
            .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
            .set_network_options(network);
        options
    }
}

/// What one turn of a connection is about.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
#[derive(Debug)]
enum Step {
    Ended(ConnectionError),
    Event(Event),
    Records(Option<Vec<Record>>),
    Woken,
    Listening(bool),
    Tick,
}

/// Drives the library until its connection ends.
async fn library(mut event_loop: EventLoop, events: mpsc::Sender<Event>) -> ConnectionError {
    loop {
        match event_loop.poll().await {
            Ok(event) => {
                if event_loop.options.keep_alive() < KEEP_ALIVE_MIN {
                    event_loop.options.set_keep_alive(KEEP_ALIVE_MIN);
                }
                if events.send(event).await.is_err() {
                    return ConnectionError::RequestsDone;
                }
            }
            Err(error) => {
                for event in std::mem::take(&mut event_loop.state.events) {
                    if events.send(event).await.is_err() {
                        break;
                    }
                }
                return error;
            }
        }
    }
}

/// Waits for the answer of a question, and for ever without one.
async fn some<F: Future>(question: Option<F>) -> Option<F::Output> {
    match question {
        Some(question) => Some(question.await),
        None => std::future::pending().await,
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
