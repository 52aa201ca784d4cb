//! When people are told of the coordinator's own alarms: at once, again and again until
//! somebody acknowledges it, and once more when it is over.
//!
//! In: the alarms as they are in the database, and what people were told in this life.
//! Out: the next notice of each. What stands unacknowledged is told again in each life,
//! under the key that it had last: a receiver that has it already knows it by that.
//! Sends nothing and keeps no clock.

use std::time::{Duration, Instant};

use homeostat_common::units::Millis;
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::notice::{News, Notice, pause};

use crate::io::db::own::{OwnAlarm, Word};

/// How people are reminded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct People {
    /// `repeat_min`, default 5 min: an alarm that nobody has acknowledged is
    /// repeated after this, then after twice that, and so on,
    pub repeat_min: Millis,
    /// `repeat_max`, default 4 h: up to this.
    pub repeat_max: Millis,
}

impl Default for People {
    fn default() -> Self {
        Self {
            repeat_min: Millis::secs(300),
            repeat_max: Millis::secs(4 * 3600),
        }
    }
}

/// What people were told of an alarm in this life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The last word.
    pub word: Word,
    /// How often they were reminded.
    pub repeats: u32,
    /// When they are reminded next.
    pub next: Instant,
}

/// What to do about an alarm now.
#[derive(Debug, Clone, PartialEq)]
pub enum Due {
    /// Nothing before this; nothing at all without a time.
    Nothing(Option<Instant>),
    /// To tell people, and to keep that they were told.
    Tell(Notice, Told),
    /// It is over: to tell those who had heard of it, and to forget it.
    End(Option<Notice>),
}

/// What to do about an alarm, of which people were told `here` in this life.
#[must_use]
pub fn due(alarm: &OwnAlarm, here: Option<Told>, people: &People, now: Instant) -> Due {
    let told = here.map(|told| told.word).or(alarm.told);
    let repeats = here.map_or(alarm.repeats, |told| told.repeats);
    let tell = |news, word, repeats| {
        let span = pause(people.repeat_min, people.repeat_max, repeats);
        let told = Told {
            word,
            repeats,
            next: now + Duration::from_millis(span.0),
        };
        Due::Tell(notice(alarm, news, repeats), told)
    };
    match (alarm.raised, &alarm.acked, told) {
        // Whoever was called hears that somebody else deals with it.
        (_, Some(_), Some(Word::Raised)) => tell(News::Acknowledged, Word::Acknowledged, repeats),
        (false, _, None) => Due::End(None),
        (false, _, Some(_)) => Due::End(Some(notice(alarm, News::Cleared, repeats))),
        (true, Some(_), _) => Due::Nothing(None),
        (true, None, _) => match here {
            None => tell(News::Raised, Word::Raised, repeats),
            Some(told) if now < told.next => Due::Nothing(Some(told.next)),
            Some(_) => tell(News::Repeated, Word::Raised, repeats.saturating_add(1)),
        },
    }
}

fn notice(alarm: &OwnAlarm, news: News, repeat: u32) -> Notice {
    Notice {
        news,
        alarm: alarm.name.clone(),
        number: alarm.number,
        repeat,
        service: None,
        severity: match alarm.severity.as_str() {
            "critical" => Severity::Critical,
            "warning" => Severity::Warning,
            _ => Severity::Notice,
        },
        text: alarm.text.clone(),
        by: alarm.acked.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEOPLE: People = People {
        repeat_min: Millis(1000),
        repeat_max: Millis(3000),
    };

    fn alarm() -> OwnAlarm {
        OwnAlarm {
            number: 4,
            name: "saga-7".into(),
            severity: "critical".into(),
            text: "look".into(),
            raised: true,
            acked: None,
            repeats: 0,
            told: None,
        }
    }

    /// All that is told now, with the count of repetitions.
    fn tell(alarm: &OwnAlarm, here: &mut Option<Told>, now: Instant) -> Vec<(News, u32)> {
        let mut said = Vec::new();
        loop {
            match due(alarm, *here, &PEOPLE, now) {
                Due::Nothing(_) => return said,
                Due::Tell(notice, told) => {
                    said.push((notice.news, notice.repeat));
                    *here = Some(told);
                }
                Due::End(notice) => {
                    said.extend(notice.map(|notice| (notice.news, notice.repeat)));
                    return said;
                }
            }
        }
    }

    #[test]
    fn it_is_repeated_ever_more_slowly_until_somebody_has_heard_it() {
        let begun = Instant::now();
        let mut alarm = alarm();
        let mut here = None;
        let mut told = Vec::new();
        for second in 0..12 {
            let now = begun + Duration::from_secs(second);
            for (news, repeat) in tell(&alarm, &mut here, now) {
                told.push((second, news, repeat));
            }
        }
        assert_eq!(
            told,
            [
                (0, News::Raised, 0),
                (1, News::Repeated, 1),
                (3, News::Repeated, 2),
                (6, News::Repeated, 3),
                (9, News::Repeated, 4),
            ]
        );
        alarm.acked = Some("anna".into());
        let later = begun + Duration::from_secs(99);
        let acknowledged = [(News::Acknowledged, 4)];
        assert_eq!(tell(&alarm, &mut here, later), acknowledged);
        assert_eq!(tell(&alarm, &mut here, later), []);
        alarm.raised = false;
        assert_eq!(tell(&alarm, &mut here, later), [(News::Cleared, 4)]);
    }

    #[test]
    fn another_life_tells_it_under_the_same_number_and_nothing_that_was_heard() {
        let now = Instant::now();
        let stands = OwnAlarm {
            repeats: 3,
            told: Some(Word::Raised),
            ..alarm()
        };
        assert_eq!(tell(&stands, &mut None, now), [(News::Raised, 3)]);
        let acked = OwnAlarm {
            acked: Some("anna".into()),
            ..stands.clone()
        };
        assert_eq!(tell(&acked, &mut None, now), [(News::Acknowledged, 3)]);
        let heard = OwnAlarm {
            told: Some(Word::Acknowledged),
            ..acked.clone()
        };
        assert_eq!(tell(&heard, &mut None, now), []);
        // Both at once, as for a plan that has ended.
        let over = OwnAlarm {
            raised: false,
            ..acked
        };
        let both = [(News::Acknowledged, 3), (News::Cleared, 3)];
        assert_eq!(tell(&over, &mut None, now), both);
        let unheard = OwnAlarm {
            raised: false,
            ..alarm()
        };
        assert_eq!(tell(&unheard, &mut None, now), []);
    }
}
