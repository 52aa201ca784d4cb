//! Messages between loop and spawner: one datagram each, a version byte and
//! then postcard.
//!
//! Both ends come from one installation, but a new loop may meet an old spawner
//! that was left running through an upgrade; the version byte makes that a
//! clear refusal. Pidfds travel beside a message, in the order in which the
//! message names live instances.

use homeostat_common::ids::{BootId, Instance, InterfaceId, ServiceId, Token};
use homeostat_common::net::SourceNet;
use homeostat_common::units::{Millis, Percent};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::chaos::Injection;
use crate::io::local::datagram;
pub use crate::io::local::datagram::{DecodeError, MESSAGE_MAX};
use crate::io::local::sockets::BESIDE_MAX;

/// Version of everything in this file.
pub const VERSION: u8 = 1;
/// Most slots: all services of the file, and as many that a reload dropped
/// while they were running. Each live one has a descriptor beside the message.
pub const SLOTS_MAX: usize = BESIDE_MAX;

/// What the loop asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on a connection; answered by [`Message::Welcome`].
    Hello,
    /// Start a service that does not run; answered by `Started` or `Refused`.
    Start {
        /// Which.
        service: ServiceId,
    },
    /// Signal an instance and its process group; answered by `Signalled` or
    /// `NotSignalled`.
    Signal {
        /// Which.
        service: ServiceId,
        /// The life that is meant; a later one is not touched.
        instance: Instance,
        /// With what.
        signal: StopSignal,
    },
    /// Read the configuration file again; answered by `Reloaded` or
    /// `NotReloaded`.
    Reload,
    /// Do something to a life; answered by `Acted`. Each sets a state, so that
    /// asking twice does it once.
    Act {
        /// Comes back with the answer.
        token: Token,
        /// Whose life.
        service: ServiceId,
        /// The life that is meant; a later one is not touched.
        instance: Instance,
        /// What.
        act: ProcessAct,
    },
    /// Do something to the node; answered by `Acted`. Each sets a state, so that
    /// asking twice does it once.
    ActOnNode {
        /// Comes back with the answer.
        token: Token,
        /// What.
        act: NodeAct,
    },
    /// Put a fault into a service on purpose; answered by `Broken` or `NotBroken`.
    Break {
        /// Which.
        service: ServiceId,
        /// What.
        injection: Injection,
        /// For how long at most.
        span: Millis,
    },
    /// End the fault that is in force; answered by `Mended`, or `NotBroken` when there
    /// is none.
    Mend,
}

/// What can be done to the node, as far as the configuration file allows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeAct {
    /// Set the clock by the configured servers.
    SyncClock,
    /// Choose one of the configured uplinks, or leave the choice to the node.
    Uplink(Option<InterfaceId>),
    /// Drop packets to the ports of a service, or let them through.
    Ports {
        /// Which.
        service: ServiceId,
        /// From where.
        from: SourceNet,
        /// Whether they are dropped.
        blocked: bool,
    },
    /// Mount the file system of a service's data for writing.
    Remount {
        /// Which.
        service: ServiceId,
    },
}

/// What can be done to a life besides ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessAct {
    /// Stop it without ending it.
    Freeze,
    /// Let it go on.
    Thaw,
    /// Leave it this share of all processors; `None` for all it can get.
    LimitCpu(Option<Percent>),
}

/// The two signals there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopSignal {
    /// SIGTERM: please end.
    Term,
    /// SIGKILL.
    Kill,
}

/// What the spawner answers and tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// All there is; with one pidfd for each slot that has a present instance.
    Welcome {
        /// Instances are unique within a boot.
        boot: BootId,
        /// One for each service, in order of their ids.
        slots: Vec<SlotView>,
    },
    /// Runs; with its pidfd.
    Started {
        /// Which.
        service: ServiceId,
        /// This life of it.
        instance: Instance,
        /// Its process, for display and for reading `/proc`.
        pid: u32,
    },
    /// A start was refused.
    Refused {
        /// Which.
        service: ServiceId,
        /// Why.
        why: Refusal,
    },
    /// The signal was sent.
    Signalled {
        /// Which.
        service: ServiceId,
        /// The life that got it.
        instance: Instance,
    },
    /// The signal was not sent: that instance is not the present one.
    NotSignalled {
        /// Which.
        service: ServiceId,
        /// The life that was meant.
        instance: Instance,
    },
    /// What became of an `Act`.
    Acted {
        /// As it was asked.
        token: Token,
        /// Why it was not done; `None` when it was.
        failed: Option<String>,
    },
    /// The new configuration is in force for the next starts.
    Reloaded,
    /// The new configuration is wrong; the former one stays in force.
    NotReloaded {
        /// What is wrong with it.
        why: String,
    },
    /// An instance is gone; unasked.
    Exited {
        /// Which.
        service: ServiceId,
        /// The life that ended.
        instance: Instance,
        /// How.
        status: Exit,
    },
    /// What became of a service's `memory_limit`; unasked, after each start of
    /// a service that has one.
    MemoryLimit {
        /// Which.
        service: ServiceId,
        /// The life it is about.
        instance: Instance,
        /// Why the limit is not enforced; `None` when it is.
        not_enforced: Option<String>,
    },
    /// The request could not be read.
    Malformed,
    /// The connection is refused: a loop is connected already.
    Busy {
        /// Its process.
        pid: u32,
    },
    /// The peer speaks another version; then the connection ends.
    Unsupported {
        /// What the spawner speaks.
        speaks: u8,
    },
    /// A fault on purpose is in force; also unasked, after each `Welcome`.
    Broken {
        /// Where.
        service: ServiceId,
        /// What.
        injection: Injection,
        /// For how long at most from now on.
        left: Millis,
    },
    /// No fault was put into anything, or none is in force.
    NotBroken {
        /// Why.
        why: String,
    },
    /// A fault on purpose is over; unasked.
    Mended {
        /// Why, and what was left to undo.
        why: String,
    },
}

/// Why a service was not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It runs.
    Occupied {
        /// The present life.
        instance: Instance,
    },
    /// The configuration does not name it.
    Unknown,
    /// The operating system would not.
    Spawn {
        /// What it said.
        text: String,
    },
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was started by a former spawner: only a parent is told how.
    Unknown,
    /// The kernel killed it for memory: its own limit, or the machine's.
    OutOfMemory,
}

impl Exit {
    /// This end, or the kernel's doing for want of memory where it may have been that and
    /// something says so.
    pub(super) fn or_for_memory(self, told: bool) -> Self {
        match self {
            Self::Signal(signal) if told && signal == Signal::KILL.as_raw() => Self::OutOfMemory,
            // Its parent was told; that it was killed is as likely as not.
            Self::Unknown if told => Self::OutOfMemory,
            Self::Code(_) | Self::Signal(_) | Self::Unknown | Self::OutOfMemory => self,
        }
    }
}

/// One service as the spawner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Which.
    pub service: ServiceId,
    /// The present life and its process.
    pub live: Option<(Instance, u32)>,
    /// The last life that ended while this spawner ran.
    pub last_exit: Option<(Instance, Exit)>,
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
    use crate::io::local::datagram::{REASON_MAX, reason};

    #[test]
    fn only_a_kill_can_have_been_for_memory() {
        for (status, told, ended) in [
            (Exit::Signal(9), true, Exit::OutOfMemory),
            (Exit::Unknown, true, Exit::OutOfMemory),
            (Exit::Signal(9), false, Exit::Signal(9)),
            (Exit::OutOfMemory, false, Exit::OutOfMemory),
            // Another of the group was killed, and it ended by itself.
            (Exit::Code(1), true, Exit::Code(1)),
            (Exit::Signal(11), true, Exit::Signal(11)),
        ] {
            assert_eq!(status.or_for_memory(told), ended);
        }
    }

    #[test]
    fn the_largest_messages_fit_into_a_datagram() {
        let slot = |n: usize| SlotView {
            service: ServiceId::new(&format!("{n:032}")).unwrap(),
            live: Some((Instance(u64::MAX), u32::MAX)),
            last_exit: Some((Instance(u64::MAX), Exit::Code(i32::MIN))),
        };
        let welcome = Message::Welcome {
            boot: BootId([7; 16]),
            slots: (0..SLOTS_MAX).map(slot).collect(),
        };
        let failed = Message::NotReloaded {
            why: reason("\u{20ac}".repeat(REASON_MAX)),
        };
        for message in [welcome, failed] {
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
        assert_eq!(decode::<Request>(&[9, 0]), Err(other(Some(9))));
        let mut datagram = encode(&Request::Reload).unwrap();
        datagram.push(0);
        assert_eq!(decode::<Request>(&datagram), Err(DecodeError::Rest(1)));
        // A name that is not valid does not become one on the way.
        let forged = encode(&(1_u8, "../../etc")).unwrap();
        assert!(matches!(
            decode::<Request>(&forged),
            Err(DecodeError::Body(_))
        ));
    }
}
