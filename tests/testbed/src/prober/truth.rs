//! From single answers to incidents, without any IO.
//!
//! ```text
//!   (never up) --good--> Up(instance) --bad--> Down(since)
//!                        Up(instance) <--good-- Down(since)     Healed, or a blip
//!                        Up(a) --good of b--> Up(b)             Healed, no failure seen
//! ```

use std::time::Duration;

use crate::clock::Moment;

/// The end of one incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healed {
    /// When the first request that failed was sent; it may have been under way when the fault
    /// struck, so this can lie up to a round trip before it. `None` if the instance changed between
    /// two right answers, so that no failure was seen.
    pub down_at: Option<Moment>,
    /// When the answer that ended the incident was read to its end.
    pub healed_at: Moment,
    pub old_instance: String,
    pub new_instance: String,
}

impl Healed {
    /// How long users saw failures; zero if they saw none.
    #[must_use]
    pub fn outage(&self) -> Duration {
        self.down_at
            .map_or(Duration::ZERO, |down_at| self.healed_at - down_at)
    }
}

#[derive(Debug)]
pub(super) struct Truth {
    /// A right answer of the old instance ends nothing.
    new_instance_only: bool,
    instance: Option<String>,
    /// The one before: answers of it that were on their way count for nothing.
    retired: Option<String>,
    /// When the latest request that got a right answer was sent.
    good_started: Option<Moment>,
    down_since: Option<Moment>,
}

impl Truth {
    pub(super) fn new(new_instance_only: bool) -> Self {
        Self {
            new_instance_only,
            instance: None,
            retired: None,
            good_started: None,
            down_since: None,
        }
    }

    pub(super) fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    pub(super) fn down_since(&self) -> Option<Moment> {
        self.down_since
    }

    /// A request sent at `started` got a right answer at `at`.
    pub(super) fn good(&mut self, started: Moment, at: Moment, instance: &str) -> Option<Healed> {
        if self.retired.as_deref() == Some(instance) {
            return None;
        }
        let Some(old) = self.instance.clone() else {
            self.instance = Some(instance.to_owned());
            self.good_started = Some(started);
            return None;
        };
        let new = old != instance;
        let asked_before = self.down_since.is_some_and(|since| started < since);
        if !new && asked_before {
            // Late news of the time before it failed.
            return None;
        }
        self.good_started = self.good_started.max(Some(started));
        let down_at = self.down_since.take();
        let ends = new || (down_at.is_some() && !self.new_instance_only);
        if !ends {
            return None;
        }
        if new {
            self.retired = self.instance.replace(instance.to_owned());
        }
        let new_instance = instance.to_owned();
        Some(Healed {
            down_at,
            healed_at: at,
            old_instance: old,
            new_instance,
        })
    }

    /// A request sent at `started` failed.
    pub(super) fn bad(&mut self, started: Moment) {
        // Never up, so nothing to lose; or a later request was answered meanwhile.
        if self.instance.is_none() || self.good_started > Some(started) {
            return;
        }
        // A request that hung is known to have failed only after later ones were refused.
        let since = self.down_since.map_or(started, |since| since.min(started));
        self.down_since = Some(since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_lasts_from_the_first_failure_to_the_new_instance() {
        let mut truth = up(true);
        truth.bad(at(20));
        truth.bad(at(30));
        let healed = truth.good(at(40), at(41), "b").unwrap();
        assert_eq!((healed.down_at, healed.healed_at), (Some(at(20)), at(41)));
        assert_eq!((&*healed.old_instance, &*healed.new_instance), ("a", "b"));
        assert_eq!(healed.outage(), Duration::from_micros(21));
        assert_eq!(truth.down_since(), None);
    }

    #[test]
    fn nothing_is_down_that_was_never_up() {
        let mut truth = Truth::new(true);
        truth.bad(at(1));
        assert_eq!(truth.down_since(), None);
        assert_eq!(truth.good(at(2), at(3), "a"), None);
    }

    #[test]
    fn the_old_instance_heals_only_where_that_is_enough() {
        for (new_instance_only, expected) in [(true, None), (false, Some(at(31)))] {
            let mut truth = up(new_instance_only);
            truth.bad(at(20));
            let healed = truth.good(at(30), at(31), "a");
            assert_eq!(healed.map(|healed| healed.healed_at), expected);
            assert_eq!(truth.down_since(), None);
        }
    }

    #[test]
    fn a_restart_between_two_answers_is_seen_without_an_outage() {
        let healed = up(true).good(at(20), at(21), "b").unwrap();
        assert_eq!((healed.down_at, healed.outage()), (None, Duration::ZERO));
    }

    #[test]
    fn late_news_changes_nothing() {
        // An answer to a question from before the failure does not end it.
        let mut truth = up(false);
        truth.bad(at(20));
        assert_eq!(truth.good(at(19), at(25), "a"), None);
        assert_eq!(truth.down_since(), Some(at(20)));
        // The dead instance's last words come after the new one's first.
        truth.good(at(30), at(31), "b").unwrap();
        assert_eq!(truth.good(at(19), at(32), "a"), None);
        assert_eq!(truth.instance(), Some("b"));
        // A failure that a later success has overtaken is not an incident.
        truth.bad(at(29));
        assert_eq!(truth.down_since(), None);
    }

    #[test]
    fn a_request_that_hung_dates_the_incident_back() {
        let mut truth = up(true);
        truth.bad(at(30));
        truth.bad(at(20));
        assert_eq!(truth.down_since(), Some(at(20)));
    }

    fn up(new_instance_only: bool) -> Truth {
        let mut truth = Truth::new(new_instance_only);
        assert_eq!(truth.good(at(10), at(11), "a"), None);
        truth
    }

    fn at(micros: u64) -> Moment {
        Moment::from_micros(micros)
    }
}
