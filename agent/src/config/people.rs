//! `[people]`, `[[webhook]]`, `[[maintenance]]` and the autonomy of single
//! primitives: what a person controls, and how a person is reached.
//!
//! Does not look at the machine: whether a secret can be read, or a receiver
//! answers, is found out where it is used.

use homeostat_common::gate::Mode;
use homeostat_common::ids::{ServiceId, WebhookId};
use homeostat_common::primitive::NAMES;
use homeostat_common::units::Millis;
use homeostat_notify::{Told, Url, Webhook};
use toml::de::DeValue;

use std::collections::BTreeMap;

use super::fields::{Fields, Wanted, choice, list, parsed, span, text};
use super::problems::Problems;
use super::sections::{absolute, either};
use super::{Config, LIST_MAX};

/// Most recurring windows.
pub const RECURRING_MAX: usize = 32;

/// Longest reason that a person gives: it is shown in alarms and kept in the
/// journal.
pub const WHY_MAX: usize = 200;

/// Longest window or silence: what is meant for longer belongs into the
/// configuration.
pub const WINDOW_MAX: Millis = Millis::secs(30 * 86_400);

/// The words for how far the agent goes by itself.
pub(super) const MODES: [(&str, Mode); 4] = [
    ("observe", Mode::Observe),
    ("recommend", Mode::Recommend),
    ("ask", Mode::Ask),
    ("act", Mode::Act),
];

/// How people are asked and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct People {
    /// `approval`, default 30 min: so long a plan waits for a person; then it is
    /// stale, since what it was made for may be over.
    pub approval: Millis,
    /// `repeat_min`, default 5 min: an alarm that nobody has acknowledged is
    /// repeated after this, then after twice that, and so on,
    pub repeat_min: Millis,
    /// `repeat_max`, default 4 h: up to this.
    pub repeat_max: Millis,
}

impl Default for People {
    fn default() -> Self {
        Self {
            approval: Millis::secs(1800),
            repeat_min: Millis::secs(300),
            repeat_max: Millis::secs(4 * 3600),
        }
    }
}

/// A window that comes again and again, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurring {
    /// `service`, default the node.
    pub service: Option<ServiceId>,
    /// `days`, default all; the first is Monday.
    pub days: [bool; 7],
    /// `at`, required, in minutes of the day.
    pub at: u16,
    /// `for`, required, at most a day.
    pub span: Millis,
    /// `why`, default `as configured`.
    pub why: String,
}

impl Recurring {
    /// Number of the day on which the window began that is open at `unix_ms`,
    /// and how much of it is left.
    #[must_use]
    pub fn open(&self, unix_ms: u64) -> Option<(u64, Millis)> {
        const DAY: u64 = 86_400_000;
        // It may have begun yesterday.
        [0, 1].into_iter().find_map(|back| {
            let day = (unix_ms / DAY).checked_sub(back)?;
            // 1 January 1970 was a Thursday.
            let weekday = usize::try_from((day + 3) % 7).ok()?;
            let begin = day * DAY + u64::from(self.at) * 60_000;
            let end = begin + self.span.0;
            (self.days.get(weekday) == Some(&true) && (begin..end).contains(&unix_ms))
                .then(|| (day, Millis(end - unix_ms)))
        })
    }
}

/// What stands under `autonomy`: a mode for each primitive that is named.
pub(super) fn autonomy(mut at: Fields<'_, '_>) -> BTreeMap<&'static str, Mode> {
    let modes = NAMES
        .iter()
        .filter_map(|name| Some((*name, at.optional(name, choice(&MODES))?)))
        .collect();
    at.finish();
    modes
}

pub(super) fn people(mut at: Fields<'_, '_>) -> People {
    let usual = People::default();
    let minutes = || span(Millis::secs(1)..=Millis::secs(7 * 86_400));
    let people = People {
        approval: at.or("approval", usual.approval, minutes()),
        repeat_min: at.or("repeat_min", usual.repeat_min, minutes()),
        repeat_max: at.or("repeat_max", usual.repeat_max, minutes()),
    };
    if people.repeat_max < people.repeat_min {
        at.wrong(
            either(&at, "repeat_max", "repeat_min"),
            format!(
                "repeat_max ({}) must not be below repeat_min ({})",
                people.repeat_max, people.repeat_min
            ),
        );
    }
    at.finish();
    people
}

pub(super) fn webhook(mut at: Fields<'_, '_>) -> Option<Webhook> {
    let name = at.required("name", parsed(WebhookId::new));
    let url = at.required("url", parsed(str::parse::<Url>));
    let secret_file = at.required("secret_file", absolute);
    let events = at.or("events", vec![Told::Alarm], |value| {
        let known = [("alarm", Told::Alarm), ("incident", Told::Incident)];
        list(LIST_MAX, |item| choice(&known)(item))(value)
    });
    at.finish();
    Some(Webhook {
        name: name?,
        url: url?,
        secret_file: secret_file?,
        events,
    })
}

pub(super) fn recurring(mut at: Fields<'_, '_>) -> Option<Recurring> {
    const DAYS: [(&str, usize); 7] = [
        ("mon", 0),
        ("tue", 1),
        ("wed", 2),
        ("thu", 3),
        ("fri", 4),
        ("sat", 5),
        ("sun", 6),
    ];
    let service = at.optional("service", parsed(ServiceId::new));
    let days = at.or("days", [true; 7], |value| {
        let mut days = [false; 7];
        for day in list(DAYS.len(), |item| choice(&DAYS)(item))(value)? {
            if let Some(day) = days.get_mut(day) {
                *day = true;
            }
        }
        Ok(days)
    });
    let begin = at.required("at", |value| {
        let text = text(value)?;
        let (hours, minutes) = text.split_once(':').unwrap_or_default();
        let number = |text: &str, end: u16| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            number.filter(|number: &u16| *number < end)
        };
        number(hours, 24)
            .zip(number(minutes, 60))
            .map(|(hours, minutes)| hours * 60 + minutes)
            .ok_or_else(|| "expected a time of day in UTC, such as \"02:30\"".into())
    });
    // Not a whole day and more: each day has one beginning.
    let span = at.required("for", span(Millis::secs(60)..=Millis::secs(86_400)));
    let why = at.or("why", "as configured".into(), why);
    at.finish();
    Some(Recurring {
        service,
        days,
        at: begin?,
        span: span?,
        why,
    })
}

fn why(value: &DeValue<'_>) -> Result<String, Wanted> {
    let text = text(value)?;
    let plain = !text.trim().is_empty() && !text.chars().any(char::is_control);
    if !plain || text.len() > WHY_MAX {
        return Err(format!(
            "expected a text of 1 to {WHY_MAX} bytes in one line"
        ));
    }
    Ok(text)
}

/// Names of webhooks are unique, and recurring windows are of services that
/// exist.
pub(super) fn across(config: &Config, problems: &mut Problems<'_>) {
    for (n, hook) in config.webhooks.iter().enumerate() {
        let former = config.webhooks.iter().position(|one| one.name == hook.name);
        if let Some(first) = former.filter(|first| *first < n) {
            problems.at(
                &format!("webhook[{n}].name"),
                format!("is already the name of webhook[{first}]"),
            );
        }
    }
    for (n, window) in config.recurring.iter().enumerate() {
        if let Some(id) = &window.service
            && config.service(id).is_none()
        {
            problems.at(
                &format!("maintenance[{n}].service"),
                format!("there is no service {id}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parse(more: &str) -> Result<Config, String> {
        let text = format!("[node]\nid = \"n\"\n{more}");
        Config::parse(&text, Path::new("a.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn each_rung_of_the_ladder_can_be_asked_for_by_service_and_by_primitive() {
        let config = parse(
            "[limits]\nmode = \"recommend\"\n[[service]]\nid = \"a\"\ncommand = [\"/a\"]\n\
             [[service]]\nid = \"b\"\ncommand = [\"/b\"]\nmode = \"ask\"\n[service.autonomy]\n\
             restart = \"act\"\nprune-data = \"observe\"\n",
        )
        .unwrap();
        let [a, b] = &config.services[..] else {
            panic!("two services")
        };
        assert_eq!((a.mode, a.modes.len()), (Mode::Recommend, 0));
        assert_eq!(b.mode, Mode::Ask);
        assert_eq!(b.modes.get("restart"), Some(&Mode::Act));
        assert_eq!(b.modes.get("prune-data"), Some(&Mode::Observe));
        let wrong = parse(
            "[[service]]\nid = \"b\"\ncommand = [\"/b\"]\n[service.autonomy]\nreboot = \"act\"\n",
        );
        assert!(wrong.unwrap_err().contains("reboot: unknown key"));
    }

    #[test]
    fn a_webhook_needs_a_name_a_url_and_a_secret() {
        let hook = |url: &str| {
            parse(&format!(
                "[[webhook]]\nname = \"pager\"\nurl = \"{url}\"\nsecret_file = \"/s\"\nevents = \
                 [\"alarm\", \"incident\"]\n"
            ))
        };
        let config = hook("http://[::1]:8080/a?b=c").unwrap();
        let url = &config.webhooks[0].url;
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("::1", 8080, "/a?b=c")
        );
        assert_eq!(config.webhooks[0].events, [Told::Alarm, Told::Incident]);
        for (url, says) in [
            ("https://pager/x", "there is no TLS here"),
            ("http://a/\\r\\nX: y", "expected http://HOST"),
        ] {
            assert!(hook(url).unwrap_err().contains(says), "{url}");
        }
    }

    #[test]
    fn a_recurring_window_is_open_on_its_days_and_over_midnight() {
        let config = parse(
            "[[maintenance]]\ndays = [\"sun\"]\nat = \"23:00\"\nfor = \"2h\"\nwhy = \"updates\"\n",
        )
        .unwrap();
        let window = &config.recurring[0];
        // Sunday 22 November 2026, 00:00 UTC.
        let sunday = 1_795_305_600_000;
        let day = sunday / 86_400_000;
        let hour = 3_600_000;
        assert_eq!(window.open(sunday + 23 * hour - 1), None);
        assert_eq!(
            window.open(sunday + 23 * hour),
            Some((day, Millis::secs(7200)))
        );
        assert_eq!(
            window.open(sunday + 24 * hour + hour / 2),
            Some((day, Millis::secs(1800)))
        );
        assert_eq!(window.open(sunday + 25 * hour), None);
        assert_eq!(window.open(sunday - hour / 2), None, "that was Saturday");
        let wrong = parse(
            "[[maintenance]]\nservice = \"x\"\nat = \"24:00\"\nfor = \"2d\"\n\
             [[maintenance]]\nservice = \"x\"\nat = \"2:00\"\nfor = \"2h\"\n",
        );
        let wrong = wrong.unwrap_err();
        assert_eq!(
            wrong.matches("expected a time of day").count(),
            2,
            "{wrong}"
        );
        let nobody = parse("[[maintenance]]\nservice = \"x\"\nat = \"02:00\"\nfor = \"2h\"\n");
        assert!(nobody.unwrap_err().contains("there is no service x"));
    }
}
