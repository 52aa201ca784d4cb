//! One backend: whether connections should go there, and what it did with them.
//!
//! In go what happened to connections and checks, out come its health and whether it may be
//! picked. Pure: no sockets, no clock.
//!
//! ```text
//!            3 failures in a row                     `until` is over
//!  Fine --------------------------> Out, slow pause ------------------> one trial
//!    |       connection refused     Out, quick pause ---------------->  connection
//!    |  ^                                    ^                              |
//!    |  +------ the trial went well ---------|------------------------------+
//!    +-- a trial failed: twice the pause ----+------------------------------+
//! ```
//!
//! A refused connection says that no process listens, which ends as soon as one does, so it is
//! tried again within milliseconds; a trial costs the connection that makes it some 20 us,
//! as it goes on to the next backend. A trial after a timeout costs the whole timeout.

use homeostat_common::units::{Micros, Millis};

use super::latency::Latency;
use super::protocol::Health;
use crate::config;

/// Failures in a row that take a backend out; a single one may be the client's doing.
const FAILURES_MAX: u8 = 3;
/// First and longest pause of a backend that fails slowly.
const SLOW: (Millis, Millis) = (Millis(1000), Millis(30_000));
/// First and longest pause of a backend that refuses.
const QUICK: (Millis, Millis) = (Millis(5), Millis(1000));
/// A backend that was back for this long starts with the first pause again.
const STABLE: Millis = Millis(10_000);

/// What went wrong with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody listens.
    Refused,
    /// Not accepted in time, or unreachable.
    Unreachable,
    /// Ended before the first byte of an answer.
    Reset,
    /// Nothing within `first_byte`.
    Silent,
}

impl Failure {
    /// Whether an accepted connection proves that it is over.
    fn of_connecting(self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "connections are not accepted in time",
            Self::Reset => "connections end before an answer",
            Self::Silent => "no first byte of an answer in time",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passive {
    Fine {
        failures: u8,
        last: Option<Failure>,
    },
    Out {
        until: Micros,
        cause: Failure,
        /// A connection was picked as a trial and has not come back.
        trial: bool,
    },
}

/// State of the active check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Checked {
    failed: bool,
    /// Results in a row that say the opposite.
    against: u8,
}

#[derive(Debug)]
pub(super) struct Backend {
    /// Unique in this process.
    pub(super) uid: u32,
    pub(super) policy: config::Backend,
    /// The one in force.
    pub(super) weight: u16,
    /// Of the smooth weighted round robin.
    pub(super) turn: i32,
    passive: Passive,
    pause: Millis,
    back_since: Micros,
    checked: Checked,
    /// What was last told to the clients.
    told: Health,
    pub(super) active: u32,
    pub(super) total: u64,
    pub(super) failures: u64,
    pub(super) latency: Latency,
}

impl Backend {
    pub(super) fn new(uid: u32, policy: config::Backend) -> Self {
        Self {
            uid,
            weight: policy.weight,
            policy,
            turn: 0,
            passive: Passive::Fine {
                failures: 0,
                last: None,
            },
            pause: Millis(0),
            back_since: Micros(0),
            checked: Checked::default(),
            told: Health::Healthy,
            active: 0,
            total: 0,
            failures: 0,
            latency: Latency::default(),
        }
    }

    pub(super) fn health(&self) -> Health {
        match self.passive {
            _ if self.checked.failed => Health::CheckFailed,
            Passive::Fine { .. } => Health::Healthy,
            Passive::Out { .. } => Health::Ejected,
        }
    }

    /// The health and why, if it is another than was told last.
    pub(super) fn news(&mut self) -> Option<(Health, String)> {
        let health = self.health();
        if health == self.told {
            return None;
        }
        self.told = health;
        let why = match (health, self.passive) {
            (Health::CheckFailed, _) => "its check fails".to_owned(),
            (_, Passive::Out { cause, .. }) => cause.text().to_owned(),
            (_, Passive::Fine { .. }) => "it answers".to_owned(),
        };
        Some((health, why))
    }

    /// Whether a connection may go there; an ejected one takes a trial when its time is over.
    pub(super) fn open(&self, now: Micros) -> bool {
        let passive = match self.passive {
            Passive::Fine { .. } => true,
            Passive::Out { until, .. } => now >= until,
        };
        self.weight > 0 && passive && !self.checked.failed
    }

    /// It was picked. No second trial begins before this one can have failed.
    pub(super) fn picked(&mut self, now: Micros, connect_timeout: Millis) {
        if let Passive::Out { until, trial, .. } = &mut self.passive {
            *until = now + self.pause.max(connect_timeout);
            *trial = true;
        }
    }

    /// A connection was accepted.
    pub(super) fn connected(&mut self, now: Micros) {
        self.active += 1;
        self.total += 1;
        match self.passive {
            Passive::Fine {
                last: Some(last), ..
            } if last.of_connecting() => self.fine(),
            Passive::Out { cause, .. } if cause.of_connecting() => {
                self.back_since = now;
                self.fine();
            }
            Passive::Fine { .. } | Passive::Out { .. } => {}
        }
    }

    /// The first byte of an answer came.
    pub(super) fn answered(&mut self, now: Micros, took_us: u64) {
        self.latency.push(now, took_us);
        if let Passive::Out { .. } = self.passive {
            self.back_since = now;
        }
        self.fine();
    }

    pub(super) fn failed(&mut self, now: Micros, failure: Failure) {
        self.failures += 1;
        let failures = match self.passive {
            Passive::Fine { failures, .. } => failures.saturating_add(1),
            // It was on its way when the backend was taken out: nothing new.
            Passive::Out { trial: false, .. } => return,
            Passive::Out { .. } => FAILURES_MAX,
        };
        if failures < FAILURES_MAX && failure != Failure::Refused {
            let last = Some(failure);
            self.passive = Passive::Fine { failures, last };
            return;
        }
        let (first, longest) = match failure {
            Failure::Refused => QUICK,
            Failure::Unreachable | Failure::Reset | Failure::Silent => SLOW,
        };
        let again = matches!(self.passive, Passive::Out { .. })
            || (self.pause.0 > 0 && now.since(self.back_since) < STABLE);
        let pause = if again { self.pause.0 * 2 } else { first.0 };
        self.pause = Millis(pause.clamp(first.0, longest.0));
        self.passive = Passive::Out {
            until: now + self.pause,
            cause: failure,
            trial: false,
        };
    }

    /// A result of the active check; `needed` in a row change the verdict.
    pub(super) fn checked(&mut self, now: Micros, good: bool, misses: u8, rises: u8) {
        // Whom nobody asks gets no trial; an answered check is as good as one.
        if good
            && !self.checked.failed
            && matches!(self.passive, Passive::Out { until, .. } if now >= until)
        {
            self.back_since = now;
            self.fine();
        }
        if good != self.checked.failed {
            self.checked.against = 0;
            return;
        }
        self.checked.against = self.checked.against.saturating_add(1);
        let needed = if good { rises } else { misses };
        if self.checked.against >= needed {
            self.checked = Checked {
                failed: !good,
                against: 0,
            };
            // It has answered, as often as was asked of it.
            if good {
                self.fine();
            }
        }
    }

    /// There is no check any more.
    pub(super) fn unchecked(&mut self) {
        self.checked = Checked::default();
    }

    fn fine(&mut self) {
        self.passive = Passive::Fine {
            failures: 0,
            last: None,
        };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use homeostat_common::ids::ServiceId;

    pub(in super::super) fn policy(id: &str, weight: u16) -> config::Backend {
        config::Backend {
            id: ServiceId::new(id).unwrap(),
            service: None,
            address: "127.0.0.1:1".parse().unwrap(),
            weight,
        }
    }

    fn at(ms: u64) -> Micros {
        Micros(ms * 1000)
    }

    #[test]
    fn a_refused_backend_is_out_at_once_and_back_with_the_first_connection() {
        let mut backend = Backend::new(1, policy("a", 1));
        backend.failed(at(0), Failure::Refused);
        assert_eq!(backend.news().unwrap().0, Health::Ejected);
        assert!(!backend.open(at(4)) && backend.open(at(5)));
        backend.picked(at(5), Millis(50));
        assert!(!backend.open(at(6)), "one trial at a time");
        backend.failed(at(5), Failure::Refused);
        assert!(
            !backend.open(at(14)) && backend.open(at(15)),
            "twice the pause"
        );
        backend.connected(at(15));
        assert_eq!(backend.news(), Some((Health::Healthy, "it answers".into())));
        // It flaps: the pause goes on growing, up to its limit.
        for _ in 0..20 {
            backend.failed(at(20), Failure::Refused);
            backend.failed(at(20), Failure::Reset);
            backend.picked(at(20), Millis(5));
        }
        backend.failed(at(20), Failure::Refused);
        assert!(!backend.open(at(1019)) && backend.open(at(1020)));
    }

    #[test]
    fn three_silences_in_a_row_eject_and_only_an_answer_brings_back() {
        let mut backend = Backend::new(1, policy("a", 1));
        for round in 0..2 {
            backend.failed(at(round), Failure::Silent);
            backend.connected(at(round));
        }
        backend.answered(at(3), 100);
        for round in 4..7 {
            assert!(backend.open(at(round)));
            backend.failed(at(round), Failure::Silent);
        }
        assert!(!backend.open(at(1005)) && backend.open(at(1006)));
        backend.connected(at(1006));
        assert_eq!(backend.health(), Health::Ejected, "it accepted before, too");
        backend.answered(at(1010), 100);
        assert_eq!(backend.health(), Health::Healthy);
        // Long stable, so it starts with the first pause.
        (0..3).for_each(|_| backend.failed(at(20_000), Failure::Reset));
        assert!(backend.open(at(21_000)));
        assert_eq!((backend.failures, backend.total), (8, 3));
    }

    #[test]
    fn checks_need_as_many_results_in_a_row_as_configured() {
        let mut backend = Backend::new(1, policy("a", 1));
        let mut after = |results: &[bool]| {
            results
                .iter()
                .for_each(|good| backend.checked(at(0), *good, 2, 3));
            backend.health()
        };
        assert_eq!(after(&[false, true, false]), Health::Healthy);
        assert_eq!(after(&[false]), Health::CheckFailed);
        assert_eq!(after(&[true, true, false, true, true]), Health::CheckFailed);
        assert_eq!(after(&[true]), Health::Healthy);
        (0..3).for_each(|_| backend.failed(at(0), Failure::Silent));
        let mut after = |results: &[bool]| {
            results
                .iter()
                .for_each(|good| backend.checked(at(0), *good, 2, 3));
            backend.health()
        };
        assert_eq!(after(&[false, false, true, true]), Health::CheckFailed);
        assert_eq!(
            after(&[true]),
            Health::Healthy,
            "what answers its check is fine"
        );
    }

    #[test]
    fn what_was_on_its_way_when_a_backend_was_taken_out_does_not_keep_it_out() {
        let mut backend = Backend::new(1, policy("a", 1));
        (0..12).for_each(|_| backend.failed(at(0), Failure::Silent));
        assert!(!backend.open(at(999)) && backend.open(at(1000)));
        backend.picked(at(1000), Millis(50));
        backend.failed(at(1100), Failure::Silent);
        assert!(!backend.open(at(3099)) && backend.open(at(3100)));
    }

    #[test]
    fn a_backend_that_nobody_asks_comes_back_by_its_check() {
        let mut backend = Backend::new(1, policy("a", 1));
        backend.failed(at(0), Failure::Refused);
        backend.checked(at(4), true, 2, 3);
        assert_eq!(backend.health(), Health::Ejected);
        backend.checked(at(5), true, 2, 3);
        assert_eq!(backend.health(), Health::Healthy);
    }

    #[test]
    fn a_standby_gets_nothing() {
        assert!(!Backend::new(1, policy("a", 0)).open(at(0)));
    }
}
