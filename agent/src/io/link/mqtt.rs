//! What there is to know about rumqttc 0.25.1: how to set it up, drive it, hand
//! messages to it, and read why it gave up.
//!
//! Its traps, each of which shapes this file or `session`:
//! - `EventLoop::poll` must not be dropped half-way (a PUBACK or a publish
//!   would be lost inside it), so [`library`] drives it for the whole life of a
//!   connection and hands events over a channel.
//! - It stops reading, pinging and timing out while a write is stuck, so a
//!   frozen broker is noticed by [`Session::silent_at`].
//! - After an error it yields on the next poll what arrived before it; those
//!   events are taken out by hand.
//! - It sends again by itself what an earlier connection left behind, and
//!   forgets it when the broker has no session. Each connection gets an event
//!   loop of its own, and delivery is counted by `session`.
//! - A packet above the limit, or one it cannot read, ends the connection before
//!   it is acknowledged; with a persistent session it comes again for ever. A
//!   few such ends ([`End::is_poison`]) lead to a clean start.
//! - A keep-alive below 5 s panics, and one of 0 from the broker means a ping
//!   per poll.
//! - It joins host and port by a colon, also for an IPv6 address.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use homeostat_common::wire::topic::COORDINATOR_STATUS;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::v5::{
    DisconnectReasonCode, Filter, LastWill, LastWillProperties, PublishProperties,
    RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use tokio::sync::mpsc;

use super::outgoing::{Answer, Delivery, KeptRef, Projection};
use super::{KEEP_ALIVE_MIN, LinkConfig, PACKET_MAX};

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
pub(super) const REQUESTS_MAX: usize = 16;
/// For the TCP connection and the CONNACK, and again for the SUBACK.
pub(super) const ANSWER_TIMEOUT_S: u64 = 10;
/// Header, topic and properties of an event on `up/{stream}`.
pub(super) const OVERHEAD_MAX: usize = 512;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    Subscribing,
    Ready,
    Leaving,
}

/// What a message that was handed to the library is about.
#[derive(Debug)]
pub(super) enum Tag {
    Own,
    Up,
    Reply(Answer),
    Retained(KeptRef),
}

/// One connection, from the first SYN to its end.
#[derive(Debug)]
pub(super) struct Session {
    client: AsyncClient,
    pub(super) stage: Stage,
    /// Answers to subscriptions that have yet to come.
    pub(super) subacks: u8,
    /// How many those were.
    pub(super) asked: u8,
    pub(super) session_present: bool,
    pub(super) packet_max: usize,
    pub(super) queued: VecDeque<Tag>,
    pub(super) flight: BTreeMap<u16, (Tag, Instant)>,
    pub(super) turn: u8,
    pub(super) fetching: Option<u64>,
    pub(super) ready_at: Option<Instant>,
    pub(super) silence_max: Duration,
    pub(super) silent_at: Instant,
}

impl Session {
    /// A connection that `library` has yet to open, with this last will.
    pub(super) fn new(config: &LinkConfig, will: &Projection, clean: bool) -> (Self, EventLoop) {
        let options = options(config, will, clean);
        let silence_max = options.keep_alive() * 2 + Duration::from_secs(ANSWER_TIMEOUT_S);
        let (client, event_loop) = AsyncClient::new(options, REQUESTS_MAX);
        let session = Self {
            client,
            stage: Stage::Open,
            subacks: 0,
            asked: 0,
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
        (session, event_loop)
    }

    /// After a clean start nothing retained is asked for: it may be what could
    /// not be read. Not every broker heeds that, so the one topic that has
    /// retained messages is left out as well; a coordinator of unknown state is
    /// treated as online. So is `told`, what others say of alarms, which is asked for
    /// apart: a broker that refuses it must not keep the node from its coordinator.
    pub(super) fn subscribe(&mut self, topics: [String; 6], told: &[String], clean: bool) {
        let wanted = topics
            .into_iter()
            .filter(|topic| !clean || topic != COORDINATOR_STATUS);
        let filters = wanted.map(|topic| {
            let mut filter = Filter::new(topic, QoS::AtLeastOnce);
            if clean {
                filter.retain_forward_rule = RetainForwardRule::Never;
            }
            filter
        });
        // Fails only when the library's queue is full; it is empty now, and
        // without a SUBACK the connection ends.
        let _ = self.client.try_subscribe_many(filters);
        self.subacks = 1;
        let told_filters = || {
            let filter = |topic: &String| Filter::new(topic.clone(), QoS::AtLeastOnce);
            told.iter().map(filter)
        };
        if !clean && self.session_present {
            // rumqttd sends what it retains only to a subscription that is new to the
            // session, and ends one only after it was asked for on this connection.
            let _ = self.client.try_subscribe_many(told_filters());
            self.subacks += 1;
            for topic in told {
                let _ = self.client.try_unsubscribe(topic.clone());
            }
        }
        if !clean {
            let _ = self.client.try_subscribe_many(told_filters());
            self.subacks += 1;
        }
        self.stage = Stage::Subscribing;
        self.silent_at = Instant::now() + Duration::from_secs(ANSWER_TIMEOUT_S);
    }

    /// `false` for what cannot be sent: above the broker's limit, or on a topic
    /// that is none.
    #[must_use]
    pub(super) fn publish(
        &mut self,
        projection: Projection,
        correlation: Option<Vec<u8>>,
        tag: Tag,
    ) -> bool {
        let Projection {
            topic,
            payload,
            qos,
            retain,
            expiry_s,
        } = projection;
        if topic.len() + payload.len() + OVERHEAD_MAX > self.packet_max {
            return false;
        }
        let properties = PublishProperties {
            message_expiry_interval: expiry_s,
            correlation_data: correlation.map(Into::into),
            ..PublishProperties::default()
        };
        let handed =
            self.client
                .try_publish_with_properties(topic, level(qos), retain, payload, properties);
        // A full queue cannot be the reason: `queued` counts it.
        if handed.is_ok() {
            self.queued.push_back(tag);
        }
        handed.is_ok()
    }

    pub(super) fn disconnect(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }
}

fn level(qos: Delivery) -> QoS {
    match qos {
        Delivery::AtMostOnce => QoS::AtMostOnce,
        Delivery::AtLeastOnce => QoS::AtLeastOnce,
    }
}

fn options(config: &LinkConfig, will: &Projection, clean: bool) -> MqttOptions {
    let host = match config.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => config.host.clone(),
    };
    let mut options = MqttOptions::new(config.status.node.as_str(), host, config.port);
    let delayed = LastWillProperties {
        delay_interval: Some(WILL_DELAY_S),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    let will = LastWill::new(
        will.topic.as_str(),
        will.payload.as_slice(),
        level(will.qos),
        will.retain,
        Some(delayed),
    );
    let mut network = NetworkOptions::new();
    // Without it a QoS 1 exchange waits for delayed acknowledgements of TCP: 22
    // messages a second instead of 10,000.
    network.set_tcp_nodelay(true);
    options
        .set_keep_alive(config.keep_alive.max(KEEP_ALIVE_MIN))
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

/// Drives the library until its connection ends.
pub(super) async fn library(
    mut event_loop: EventLoop,
    events: mpsc::Sender<Event>,
) -> ConnectionError {
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

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The loop wants it.
    Stopped,
    /// The library, or the network below it.
    Failed(Box<ConnectionError>),
    /// The broker lets this node not subscribe.
    SubscriptionRefused(Vec<SubscribeReasonCode>),
    /// Events went out again and again, and no acknowledgement came.
    Unanswered,
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
            Self::Unanswered => write!(f, "no acknowledgement came; the session is suspected"),
            Self::Silent(stage) => write!(f, "the broker fell silent while {stage:?}"),
        }
    }
}

impl End {
    /// A packet that the library cannot take, and that will come again.
    pub(super) fn is_poison(&self) -> bool {
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

    pub(super) fn is_taken_over(&self) -> bool {
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
