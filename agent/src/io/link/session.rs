//! The connection: joins the client library, the window, the queues and the
//! clock.
//!
//! A connection is a [`Session`] that lives from the first packet to its end and
//! takes all it knows with it, so nothing of an old one reaches a new one. What
//! was handed over and not acknowledged by the broker goes back to its queue.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use homeostat_common::wire::RECORD_MAX;
use homeostat_common::wire::projection::{Reply, Status};
use homeostat_common::wire::topic::NodeTopics;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, SubscribeReasonCode};
use rumqttc::v5::{ConnectionError, Event, EventLoop};
use tokio::sync::mpsc;
use tokio::time::{Instant as TokioInstant, sleep_until};
use tracing::{debug, info, warn};

use super::backlog::{Backlog, Record};
use super::backoff::Backoff;
use super::ignored::{Class, Reason};
use super::incoming::{Inbox, Message, Verdict, reason_of};
use super::mqtt::{End, OVERHEAD_MAX, REQUESTS_MAX, Session, Stage, Tag, library};
use super::news::News;
use super::outgoing::{Answer, Delivery, Projection};
use super::uplink::{AckVerdict, Uplink};
use super::{Counters, LinkConfig, LinkEvent, LinkHandle, Shared};

/// Events that the library may be ahead.
const EVENTS_MAX: usize = 32;
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

/// The link; made by [`Link::new`], lives in [`Link::run`].
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    topics: NodeTopics,
    shared: Arc<Shared>,
    backlog: Backlog,
    news: News,
    uplink: Uplink,
    inbox: Inbox,
    backoff: Backoff,
    births: u64,
    /// The status is to be said again.
    restate: bool,
    poisoned: u32,
    taken_over: u32,
}

impl Link {
    /// A link that does nothing until it runs.
    #[must_use]
    pub fn new(
        config: LinkConfig,
        backlog: Backlog,
        events: mpsc::Sender<LinkEvent>,
    ) -> (LinkHandle, Self) {
        let shared = Arc::new(Shared::default());
        let Status { node, stream, .. } = &config.status;
        let site = &config.meta.site;
        let link = Self {
            topics: NodeTopics::new(site, node),
            inbox: Inbox::new(site, node, *stream, config.trusted.clone())
                .hearing(config.intake.clone()),
            uplink: Uplink::new(config.acked, config.last, config.patience),
            backoff: Backoff::new(config.reconnect_min, config.reconnect_max, config.seed),
            shared: Arc::clone(&shared),
            backlog,
            news: News::new(events),
            births: 0,
            restate: false,
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
            _ if matches!(end, End::Unanswered) => POISON_MAX,
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
        let will = self.status(false);
        let (mut session, event_loop) = Session::new(&self.config, &will, clean);
        let end = self.drive(&mut session, event_loop, clean).await;
        self.uplink.disconnected();
        let mut state = self.shared.lock();
        state.shelf.disconnected();
        let unsettled = session
            .flight
            .into_values()
            .map(|(tag, _)| tag)
            .chain(session.queued);
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
                    // Who does not answer may have another database, and wait for
                    // what is gone here.
                    self.restate |= self.uplink.due().is_some_and(|due| due <= now);
                    let suspect = self.uplink.tick(now);
                    let resends = self.uplink.resends();
                    self.count(|counters| counters.resends = resends);
                    if suspect {
                        return End::Unanswered;
                    }
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
                let topics = self.topics.subscriptions(self.config.status.stream);
                let sources = self.config.intake.iter();
                let told = sources.map(|source| source.topic.to_string());
                let told: Vec<String> = told.chain([self.topics.outside()]).collect();
                session.subscribe(topics, &told, clean);
                session.asked = session.subacks;
            }
            Event::Incoming(Packet::SubAck(suback)) if session.stage == Stage::Subscribing => {
                let is_refused =
                    |code: &SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                let refused = suback.return_codes.iter().any(is_refused);
                let first = session.subacks == session.asked;
                session.subacks = session.subacks.saturating_sub(1);
                if refused && first {
                    return Some(End::SubscriptionRefused(suback.return_codes));
                }
                if refused {
                    warn!(codes = ?suback.return_codes, "the broker does not let others' alarms be heard");
                }
                if session.subacks == 0 {
                    self.ready(session);
                }
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
                let (tag, sent) = session.flight.remove(&ack.pkid)?;
                self.count(|counters| {
                    counters.acknowledged += 1;
                    counters.round_trip = sent.elapsed();
                });
                // A refused one would be refused again.
                if let Tag::Retained(reference) = tag {
                    self.shared.lock().shelf.settle(&reference, true);
                }
            }
            Event::Outgoing(Outgoing::Publish(id)) => match session.queued.pop_front() {
                Some(Tag::Retained(reference)) if id == 0 => {
                    self.shared.lock().shelf.settle(&reference, true);
                }
                Some(tag) if id != 0 => {
                    session.flight.insert(id, (tag, Instant::now()));
                }
                _ => {}
            },
            _ => {}
        }
        None
    }

    fn ready(&mut self, session: &mut Session) {
        session.stage = Stage::Ready;
        session.ready_at = Some(Instant::now());
        session.silent_at = Instant::now() + session.silence_max;
        self.births += 1;
        self.restate = false;
        let births = self.births;
        info!(births, session = session.session_present, "link ready");
        self.hand(session, self.status(true), None, Tag::Own);
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

    fn status(&self, online: bool) -> Projection {
        let status = Status {
            online,
            birth: self.births,
            acked: self.uplink.acked(),
            ..self.config.status.clone()
        };
        Projection {
            topic: self.topics.status(),
            // Plain strings and numbers, which cannot fail.
            payload: serde_json::to_vec(&status).unwrap_or_default(),
            qos: Delivery::AtLeastOnce,
            retain: true,
            expiry_s: None,
        }
    }

    /// Begins to say goodbye; `false` when there is nobody to say it to.
    fn leave(&self, session: &mut Session) -> bool {
        if session.stage != Stage::Ready {
            return session.stage == Stage::Leaving;
        }
        self.hand(session, self.status(false), None, Tag::Own);
        session.stage = Stage::Leaving;
        session.silent_at = Instant::now() + GOODBYE;
        session.disconnect()
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
            Verdict::Command(request) => {
                if let Err(request) = self.news.command(request) {
                    self.inbox.unsee(&request);
                    ignored = Some((Class::Command, Reason::Busy));
                    let text = "too many commands at once".into();
                    self.refuse(request.response_topic, request.correlation, text);
                }
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
            Verdict::Order(order) => {
                if !self.news.order(LinkEvent::Order(order)) {
                    ignored = Some((Class::Order, Reason::Busy));
                }
            }
            Verdict::OrderRefused(by, refusal) => {
                ignored = Some((Class::Order, reason_of(&refusal)));
                // One whose words find no room is counted all the same.
                self.news.order(LinkEvent::OrderRefused(by, refusal));
            }
            Verdict::Answer(node, answer) => {
                if !self.news.order(LinkEvent::Answer(node, answer)) {
                    ignored = Some((Class::Answer, Reason::Busy));
                }
            }
            Verdict::Outside(outside) => self.news.outside = Some(outside),
            Verdict::Heard(topic, heard) => {
                if !self.news.heard(topic, heard) {
                    ignored = Some((Class::Device, Reason::Busy));
                }
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
            self.shared.lock().shelf.refuse(Answer {
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
            if std::mem::take(&mut self.restate) {
                self.hand(session, self.status(true), None, Tag::Own);
                continue;
            }
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
        if !session.publish(projection, correlation, tag) {
            self.count(|counters| counters.unsendable += 1);
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.shared.lock().counters);
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

/// Waits for the answer of a question, and for ever without one.
async fn some<F: Future>(question: Option<F>) -> Option<F::Output> {
    match question {
        Some(question) => Some(question.await),
        None => std::future::pending().await,
    }
}

/// Wall time as it is, for what other machines have to judge.
pub(in crate::io) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
