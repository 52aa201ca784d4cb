//! Messages between the forwarder and its clients: one datagram each, a version byte and then
//! postcard, as between loop and spawner.

use std::net::SocketAddr;

use homeostat_common::ids::{RouteId, ServiceId, Token};
use homeostat_common::net::SourceNet;
use homeostat_common::units::{Micros, Millis, PerSecond};
use serde::{Deserialize, Serialize};

use crate::io::local::datagram;
pub use crate::io::local::datagram::DecodeError;

/// Version of everything in this file.
pub const VERSION: u8 = 1;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on a connection; answered by [`Message::Welcome`].
    Hello,
    /// Change a weight until it is changed again; answered by `WeightSet` or `Refused`.
    SetWeight {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// 0 to [`crate::config::WEIGHT_MAX`].
        weight: u16,
    },
    /// Weight 0, and end what still runs after a time; answered by `Drained` in the end, or
    /// by `Refused` at once.
    Drain {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// Connections that are left then are reset.
        within: Millis,
    },
    /// Change which connections a route admits, until it is changed again;
    /// answered by `Acted`.
    Admit {
        /// Comes back with the answer.
        token: Token,
        /// Which route.
        route: RouteId,
        /// What changes.
        change: Admit,
    },
    /// Answered by one `Report` for each route.
    Report,
    /// Read the configuration again; answered by `Reloaded` or `NotReloaded`.
    Reload,
}

/// A change of what a route admits. Each sets a state, so that asking twice does
/// it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admit {
    /// So many new connections; `None` for all.
    Rate(Option<PerSecond>),
    /// None from these addresses.
    Block(SourceNet),
    /// Those from these addresses again.
    Unblock(SourceNet),
}

/// What the forwarder answers and tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// All routes there are.
    Welcome {
        /// In the order of the configuration.
        routes: Vec<RouteView>,
    },
    /// The weight is in force.
    WeightSet {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// The weight.
        weight: u16,
    },
    /// The backend has no connections any more, or has got a weight again.
    Drained {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// Connections that had to be reset.
        closed_by_force: u32,
        /// Whether it got a weight again, or was drained anew, before it was empty.
        cancelled: bool,
    },
    /// What became of an `Admit`.
    Acted {
        /// As it was asked.
        token: Token,
        /// Why it was not done; `None` when it was.
        failed: Option<String>,
    },
    /// A request could not be carried out.
    Refused {
        /// Why.
        why: String,
    },
    /// One route; `left` more of the same stamp follow.
    Report {
        /// When.
        stamp: Stamp,
        /// How many follow.
        left: u8,
        /// None when there are no routes at all.
        route: Option<RouteReport>,
    },
    /// A backend changed; unasked.
    Health {
        /// Which route.
        route: RouteId,
        /// Which backend of it.
        backend: ServiceId,
        /// What it is now.
        health: Health,
        /// Why.
        why: String,
    },
    /// The new configuration is in force.
    Reloaded,
    /// The new configuration cannot be used; the former one stays in force.
    NotReloaded {
        /// What is wrong.
        why: String,
    },
    /// The request could not be read.
    Malformed,
    /// The peer speaks another version; then the connection ends.
    Unsupported {
        /// What the forwarder speaks.
        speaks: u8,
    },
}

/// Which report this is. A reader whose number or time stands still looks at frozen telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Counts reports of this process, from 1.
    pub seq: u64,
    /// CLOCK_BOOTTIME.
    pub at: Micros,
}

/// A route by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// Its name.
    pub route: RouteId,
    /// Names of its backends.
    pub backends: Vec<ServiceId>,
}

/// A route as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Its name.
    pub route: RouteId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Connections that wait for a backend.
    pub waiting: u32,
    /// Connections closed because no backend accepted within `patience`.
    pub refused: u64,
    /// New connections that are admitted; `None` for all.
    pub rate: Option<PerSecond>,
    /// Ranges of addresses that are refused.
    pub blocked: u8,
    /// Connections that were not admitted.
    pub turned_away: u64,
    /// In the order of the configuration.
    pub backends: Vec<BackendReport>,
}

/// A backend as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Its name.
    pub backend: ServiceId,
    /// The weight of the configuration.
    pub configured: u16,
    /// The weight in force.
    pub weight: u16,
    /// Whether connections go there.
    pub health: Health,
    /// Open connections.
    pub active: u32,
    /// Connections since this process began.
    pub total: u64,
    /// Failures since then.
    pub failures: u64,
    /// Requests answered in the last 5 s: a request is what a client sends until the backend
    /// sends something.
    pub answered: u64,
    /// p50, p95 and p99 of the time to the first byte of those answers, in microseconds; 0 when there were none.
    pub first_byte_us: [u32; 3],
    /// Requests that wait for their first byte now.
    pub unanswered: u32,
    /// How long the oldest of them has waited, in microseconds.
    pub oldest_us: u64,
}

/// Whether connections go to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// They do, if it has a weight.
    Healthy,
    /// Real connections failed.
    Ejected,
    /// Its check failed.
    CheckFailed,
}

impl Health {
    /// As people read it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Ejected => "ejected",
            Self::CheckFailed => "checking-failed",
        }
    }
}

/// A datagram for `body`, a [`Request`] or a [`Message`].
///
/// # Errors
/// Postcard's, which for these types and lengths does not happen.
pub fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, postcard::Error> {
    datagram::encode(VERSION, body)
}

/// The [`Request`] or [`Message`] in a datagram.
///
/// # Errors
/// [`DecodeError`] when the version or anything else is not as expected.
pub fn decode<'d, T: Deserialize<'d>>(datagram: &'d [u8]) -> Result<T, DecodeError> {
    datagram::decode(VERSION, datagram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BACKENDS_MAX, FORWARDS_MAX};
    use crate::io::local::datagram::{MESSAGE_MAX, REASON_MAX, reason};

    #[test]
    fn the_largest_messages_fit_into_a_datagram() {
        let name = |n: usize| ServiceId::new(&format!("{n:032}")).unwrap();
        let route = |n: usize| RouteId::new(&format!("{n:032}")).unwrap();
        let view = |n| RouteView {
            route: route(n),
            backends: (0..BACKENDS_MAX).map(name).collect(),
        };
        let backend = |n| BackendReport {
            backend: name(n),
            configured: u16::MAX,
            weight: u16::MAX,
            health: Health::CheckFailed,
            active: u32::MAX,
            total: u64::MAX,
            failures: u64::MAX,
            answered: u64::MAX,
            first_byte_us: [u32::MAX; 3],
            unanswered: u32::MAX,
            oldest_us: u64::MAX,
        };
        let messages = [
            Message::Welcome {
                routes: (0..FORWARDS_MAX).map(view).collect(),
            },
            Message::Report {
                stamp: Stamp {
                    seq: u64::MAX,
                    at: Micros(u64::MAX),
                },
                left: u8::MAX,
                route: Some(RouteReport {
                    route: route(0),
                    listen: "[ffff::1]:65535".parse().unwrap(),
                    waiting: u32::MAX,
                    refused: u64::MAX,
                    rate: PerSecond::new(PerSecond::MAX).ok(),
                    blocked: u8::MAX,
                    turned_away: u64::MAX,
                    backends: (0..BACKENDS_MAX).map(backend).collect(),
                }),
            },
            Message::NotReloaded {
                why: reason("\u{20ac}".repeat(REASON_MAX)),
            },
        ];
        for message in messages {
            let datagram = encode(&message).unwrap();
            assert!(datagram.len() <= MESSAGE_MAX, "{}", datagram.len());
            assert_eq!(decode::<Message>(&datagram), Ok(message));
        }
    }

    #[test]
    fn what_is_not_exactly_one_message_is_refused() {
        let other = |theirs| DecodeError::Version {
            theirs,
            ours: VERSION,
        };
        assert_eq!(decode::<Request>(&[]), Err(other(None)));
        assert_eq!(decode::<Request>(&[9]), Err(other(Some(9))));
        let mut datagram = encode(&Request::Report).unwrap();
        datagram.push(0);
        assert_eq!(decode::<Request>(&datagram), Err(DecodeError::Rest(1)));
    }
}
