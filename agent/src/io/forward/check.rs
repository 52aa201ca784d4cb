//! Active checks: a connection, or a GET, to each backend from time to time.
//!
//! Runs in the forwarder's own loop, one check of a backend at a time. Goes to the backend
//! directly and takes no connection's place. As much HTTP as a status line needs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use homeostat_common::units::Micros;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::dialing::{Dialled, NotDialled, connect, is_itself};
use super::server::{Server, check_word};
use super::table::Key;
use super::timers::Due;
use crate::config::{Check, CheckKind};
use crate::io::clock;

/// `HTTP/1.1 200`: all that is read of an answer.
const STATUS_LINE: usize = 12;

#[derive(Debug, Default)]
pub(super) struct Checks(BTreeMap<Key, State>);

#[derive(Debug)]
enum State {
    /// Nobody is asked until then. Whatever was set for an answer that came earlier says nothing
    /// any more: taken for the next check's beginning, it would make two of each one.
    Idle { until: Micros },
    Asking {
        socket: OwnedFd,
        until: Micros,
        sent: bool,
        got: Vec<u8>,
    },
}

impl Server {
    /// Begins the checks of backends that have none, and forgets those of backends that are
    /// gone.
    pub(super) fn begin_checks(&mut self) {
        let now = clock::now();
        let wanted: Vec<Key> = self
            .table
            .routes
            .iter()
            .filter(|route| route.policy.check.is_some())
            .flat_map(|route| {
                let backends = route.backends.iter();
                backends.map(|it| Key {
                    route: route.uid,
                    backend: it.uid,
                })
            })
            .collect();
        self.checks.0.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.checks.0.entry(key) {
                entry.insert(State::Idle { until: now });
                self.timers.set(now, Due::Check(key));
            }
        }
    }

    fn check_of(&mut self, key: Key) -> Option<Check> {
        self.table.route(key.route)?.policy.check.clone()
    }

    pub(super) fn check_due(&mut self, key: Key, now: Micros) {
        let Some(state) = self.checks.0.get(&key) else {
            return;
        };
        match state {
            State::Idle { until } if now >= *until => self.ask(key, now),
            State::Asking { until, .. } if now >= *until => self.verdict(key, false, now),
            // The timer of an earlier question.
            State::Idle { .. } | State::Asking { .. } => {}
        }
    }

    fn ask(&mut self, key: Key, now: Micros) {
        let Some(check) = self.check_of(key) else {
            return;
        };
        let Some(backend) = self.table.backend_of(key) else {
            return;
        };
        let address = backend.policy.address;
        let socket = match connect(address) {
            Ok(Dialled::Accepted(socket) | Dialled::Pending(socket)) => socket,
            Err(NotDialled::Backend(_)) => return self.verdict(key, false, now),
            // Says nothing about the backend.
            Err(NotDialled::Local(_)) => return self.rest(key, now + check.period),
        };
        if self
            .watch(&socket, check_word(key), EventFlags::OUT)
            .is_err()
        {
            return self.rest(key, now + check.period);
        }
        let until = now + check.timeout;
        let state = State::Asking {
            socket,
            until,
            sent: false,
            got: Vec::new(),
        };
        self.checks.0.insert(key, state);
        self.timers.set(until, Due::Check(key));
    }

    pub(super) fn check_ready(&mut self, key: Key, flags: EventFlags) {
        let Some(check) = self.check_of(key) else {
            return;
        };
        let address = self.table.backend_of(key).map(|it| it.policy.address);
        let Some(State::Asking {
            socket, sent, got, ..
        }) = self.checks.0.get_mut(&key)
        else {
            return;
        };
        let now = clock::now();
        let Some(address) = address else { return };
        if !*sent {
            let accepted = rustix::net::sockopt::socket_error(&*socket) == Ok(Ok(()));
            if !accepted || flags.contains(EventFlags::ERR) || is_itself(socket, address) {
                return self.verdict(key, false, now);
            }
            let CheckKind::Http { path } = &check.kind else {
                return self.verdict(key, true, now);
            };
            let question =
                format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            // A question of less than a page fits into an empty socket, or it is broken.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            if send(&*socket, question.as_bytes(), flags) != Ok(question.len()) {
                return self.verdict(key, false, now);
            }
            *sent = true;
            let data = EventData::new_u64(check_word(key));
            let _ = epoll::modify(&self.epoll, &*socket, data, EventFlags::IN);
            return;
        }
        let mut bytes = [0; STATUS_LINE];
        let good = match recv(&*socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((read, _)) if read > 0 => {
                got.extend_from_slice(bytes.get(..read).unwrap_or_default());
                if got.len() < STATUS_LINE {
                    return;
                }
                is_good(got)
            }
            Err(Errno::AGAIN | Errno::INTR) => return,
            _ => false,
        };
        self.verdict(key, good, now);
    }

    fn verdict(&mut self, key: Key, good: bool, now: Micros) {
        let Some(check) = self.check_of(key) else {
            return;
        };
        self.rest(key, now + check.period);
        if let Some(backend) = self.table.backend_of(key) {
            backend.checked(now, good, check.misses, check.rises);
        }
    }

    fn rest(&mut self, key: Key, until: Micros) {
        self.checks.0.insert(key, State::Idle { until });
        self.timers.set(until, Due::Check(key));
    }
}

/// Whether an answer begins with a status from 200 to 399.
fn is_good(answer: &[u8]) -> bool {
    let status = answer
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(1..3));
    matches!(status, Some(b" 2" | b" 3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_that_says_so_is_good() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK", true),
            ("HTTP/1.0 304", true),
            ("HTTP/1.1 503", false),
            ("HTTP/1.1 404", false),
            ("SSH-2.0-OpenSSH", false),
            ("HTTP/1.", false),
        ] {
            assert_eq!(is_good(answer.as_bytes()), good, "{answer}");
        }
    }
}
