//! What others tell over MQTT: alarms of devices, and last wills.
//!
//! In: the configured topics ([`Source`]) and any message at all. Out: a [`Heard`], or why it
//! is none. Two forms are understood: JSON about one alarm, and the presence of a device,
//! whose absence is the alarm. Fields that nobody knows are fine, because devices tell more
//! than is asked for. Keeps nothing: which alarms stand is for who asks.

use std::fmt;
use std::str::FromStr;

use homeostat_common::ids::ServiceId;
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::bounded;
use serde::Deserialize;

/// Most topics that are listened to. A node's link hands its subscriptions to a queue of
/// sixteen requests.
pub const SOURCES_MAX: usize = 6;

/// Largest message: an alarm is a sentence with some names.
pub const PAYLOAD_MAX: usize = 4096;

/// Longest topic, and longest filter.
pub const TOPIC_MAX: usize = 256;

/// Longest name of an alarm: it becomes a level of a topic and part of a path.
pub const NAME_MAX: usize = 96;

/// Longest text that is kept.
pub const TEXT_MAX: usize = 240;

/// A topic filter of MQTT, with `+` for one level and `#` for all that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

/// Why a text is no topic filter for alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Empty, too long, or with characters that no topic has.
    #[error("expected a topic of 1 to {TOPIC_MAX} bytes, with + for one level and # at the end")]
    Form,
    /// Under `hs/` are the records and alarms of the fleet itself.
    #[error("hs/ is Homeostat's own: what nodes tell arrives without this")]
    Own,
}

impl Filter {
    /// As MQTT writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels of `topic` that wildcards stand for; `None` if it does not match.
    #[must_use]
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Vec<&'t str>> {
        let mut wanted = self.0.split('/');
        let mut found = topic.split('/');
        let mut caught = Vec::new();
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return Some(caught),
                (Some("#"), None) => return Some(caught),
                (Some("#"), Some(first)) => {
                    caught.push(first);
                    caught.extend(found);
                    return Some(caught);
                }
                (Some("+"), Some(level)) => caught.push(level),
                (Some(level), Some(other)) if level == other => {}
                _ => return None,
            }
        }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let last = text.split('/').count().saturating_sub(1);
        let level = |(at, level): (usize, &str)| match level {
            "+" => true,
            "#" => at == last,
            other => !other.contains(['+', '#']),
        };
        let fits = (1..=TOPIC_MAX).contains(&text.len())
            && !text.starts_with('$')
            && !text.chars().any(char::is_control)
            && text.split('/').enumerate().all(level);
        match text.split('/').next() {
            _ if !fits => Err(FilterError::Form),
            // A filter that begins with a wildcard would hear our own alarms as others'.
            Some("hs" | "+" | "#") => Err(FilterError::Own),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the messages on a topic are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// JSON: `{"alarm", "node", "service", "severity", "text", "state"}`, of which only
    /// `state` must be there: `raised` or `cleared`, with some words of other systems for
    /// the same.
    #[default]
    Alarm,
    /// `online` or `offline`, bare or as JSON (`{"state": "offline"}`,
    /// `{"online": false}`): birth and last will of a device.
    Presence,
}

/// Where alarms of others are heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `topic`, required.
    pub topic: Filter,
    /// `form`, default `alarm`.
    pub form: Form,
    /// `severity`, default `warning`: of what does not say its own.
    pub severity: Severity,
    /// `service`, default none: whom it concerns if that is not said.
    pub service: Option<ServiceId>,
}

/// A word about one alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its name: the levels that wildcards stood for, and what the device calls it.
    pub alarm: String,
    /// The node it is about, as it was said.
    pub node: Option<String>,
    /// The service it is about, as it was said.
    pub service: Option<String>,
    /// How urgent.
    pub severity: Severity,
    /// What is said, and on which topic.
    pub text: String,
    /// `false` when it is over.
    pub raised: bool,
}

/// What a message means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An alarm, or its end.
    Word(Word),
    /// The retained message was deleted: whatever the topic told is over.
    Gone,
}

/// Why a message means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misheard {
    /// It could be anything.
    #[error("{0} bytes, where an alarm has at most {PAYLOAD_MAX}")]
    TooLarge(usize),
    /// Not what the form says.
    #[error("{0}")]
    Malformed(String),
}

#[derive(Deserialize)]
struct AlarmJson {
    alarm: Option<String>,
    node: Option<String>,
    service: Option<String>,
    severity: Option<String>,
    text: Option<String>,
    state: State,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    #[serde(alias = "firing", alias = "active", alias = "on", alias = "alarm")]
    Raised,
    #[serde(
        alias = "resolved",
        alias = "inactive",
        alias = "off",
        alias = "ok",
        alias = "normal"
    )]
    Cleared,
}

#[derive(Deserialize)]
struct PresenceJson {
    online: Option<bool>,
    #[serde(alias = "status")]
    state: Option<Presence>,
    text: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    #[serde(alias = "Online", alias = "ONLINE")]
    Online,
    #[serde(alias = "Offline", alias = "OFFLINE")]
    Offline,
}

/// How urgent, by the words that such systems use; `None` for another word.
#[must_use]
pub fn severity(word: &str) -> Option<Severity> {
    match word.to_ascii_lowercase().as_str() {
        "critical" | "page" | "emergency" | "fatal" | "major" | "error" => Some(Severity::Critical),
        "warning" | "warn" | "minor" => Some(Severity::Warning),
        "notice" | "info" | "none" | "informational" => Some(Severity::Notice),
        _ => None,
    }
}

/// A name as topics, paths and command lines take it.
#[must_use]
pub fn name(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let kept: String = text
        .chars()
        .take(NAME_MAX)
        .map(|c| if fits(c) { c } else { '-' })
        .collect();
    if kept.is_empty() {
        "alarm".into()
    } else {
        kept
    }
}

/// A line of text as it is kept: bounded, without what moves a terminal's cursor.
#[must_use]
pub fn line(text: &str) -> String {
    let plain: String = text
        .chars()
        .take(TEXT_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    bounded(plain.trim(), TEXT_MAX)
}

impl Source {
    /// What a message on `topic` says; `None` if the topic is another source's.
    ///
    /// # Errors
    /// [`Misheard`].
    pub fn hear(&self, topic: &str, payload: &[u8]) -> Option<Result<Heard, Misheard>> {
        let caught = self.topic.captures(topic)?;
        if payload.is_empty() {
            return Some(Ok(Heard::Gone));
        }
        if payload.len() > PAYLOAD_MAX {
            return Some(Err(Misheard::TooLarge(payload.len())));
        }
        let device = caught.join("-");
        let word = match self.form {
            Form::Alarm => self.alarm(&device, topic, payload),
            Form::Presence => self.presence(&device, topic, payload),
        };
        Some(word.map(Heard::Word))
    }

    fn alarm(&self, device: &str, topic: &str, payload: &[u8]) -> Result<Word, Misheard> {
        let said: AlarmJson = read(payload)?;
        let called = said.alarm.as_deref().unwrap_or_default();
        let both = [device, called].into_iter().filter(|part| !part.is_empty());
        let grave = match said.severity.as_deref() {
            Some(word) => severity(word).ok_or_else(|| {
                let word = bounded(word, 32);
                Misheard::Malformed(format!(
                    "severity: expected critical, warning or notice, not {word:?}"
                ))
            })?,
            None => self.severity,
        };
        Ok(Word {
            alarm: name(&both.collect::<Vec<_>>().join("-")),
            node: said.node.map(|node| bounded(&node, NAME_MAX)),
            service: self.service(said.service),
            severity: grave,
            text: told(said.text.as_deref().unwrap_or("raised"), topic),
            raised: matches!(said.state, State::Raised),
        })
    }

    fn presence(&self, device: &str, topic: &str, payload: &[u8]) -> Result<Word, Misheard> {
        let bare = std::str::from_utf8(payload).unwrap_or_default().trim();
        let (online, text) = match bare.trim_matches('"') {
            word if word.eq_ignore_ascii_case("online") => (true, None),
            word if word.eq_ignore_ascii_case("offline") => (false, None),
            _ => {
                let said: PresenceJson = read(payload)?;
                let state = said.state.map(|state| state == Presence::Online);
                let online = said.online.or(state).ok_or_else(|| {
                    Misheard::Malformed("expected \"online\" or \"state\" in it".into())
                })?;
                (online, said.text)
            }
        };
        let last = topic.rsplit('/').next().unwrap_or_default();
        let device = if device.is_empty() { last } else { device };
        let text = text.unwrap_or_else(|| format!("{device} is offline"));
        Ok(Word {
            alarm: name(&format!("{}-offline", bounded(device, NAME_MAX - 8))),
            node: None,
            service: self.service(None),
            severity: self.severity,
            text: told(&text, topic),
            raised: !online,
        })
    }

    fn service(&self, said: Option<String>) -> Option<String> {
        said.map(|service| bounded(&service, NAME_MAX))
            .or_else(|| self.service.as_ref().map(ToString::to_string))
    }
}

fn read<'p, T: Deserialize<'p>>(payload: &'p [u8]) -> Result<T, Misheard> {
    serde_json::from_slice(payload).map_err(|error| Misheard::Malformed(error.to_string()))
}

fn told(text: &str, topic: &str) -> String {
    line(&format!("{} (MQTT {topic})", bounded(text, TEXT_MAX - 40)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(topic: &str, form: Form) -> Source {
        Source {
            topic: topic.parse().unwrap(),
            form,
            severity: Severity::Warning,
            service: None,
        }
    }

    fn word(source: &Source, topic: &str, payload: &str) -> Word {
        match source.hear(topic, payload.as_bytes()) {
            Some(Ok(Heard::Word(word))) => word,
            other => panic!("{topic} {payload}: {other:?}"),
        }
    }

    #[test]
    fn a_filter_matches_as_mqtt_says_and_leaves_our_own_topics_alone() {
        let captures =
            |filter: &str, topic: &'static str| filter.parse::<Filter>().unwrap().captures(topic);
        assert_eq!(captures("a/+/c", "a/b/c"), Some(vec!["b"]));
        assert_eq!(captures("a/+/c", "a/b/c/d"), None);
        assert_eq!(captures("a/+", "a"), None);
        assert_eq!(captures("a/#", "a/b/c"), Some(vec!["b", "c"]));
        assert_eq!(captures("a/#", "a"), Some(vec![]));
        assert_eq!(captures("a", "a"), Some(vec![]));
        for (text, why) in [
            ("", FilterError::Form),
            ("a/#/b", FilterError::Form),
            ("a/b+", FilterError::Form),
            ("$SYS/x", FilterError::Form),
            ("a\0", FilterError::Form),
            ("hs/v1/s/n/alarm/+", FilterError::Own),
            ("#", FilterError::Own),
            ("+/alarm", FilterError::Own),
        ] {
            assert_eq!(text.parse::<Filter>(), Err(why), "{text}");
        }
    }

    #[test]
    fn an_alarm_says_what_it_wants_to_and_names_its_topic() {
        let press = source("plant/+/alarm", Form::Alarm);
        let hot = word(
            &press,
            "plant/press-3/alarm",
            r#"{"alarm":"over heat","state":"firing","severity":"page","text":"92 C\u001b[2J","node":"n1","more":[1]}"#,
        );
        assert_eq!(hot.alarm, "press-3-over-heat");
        assert_eq!((hot.severity, hot.raised), (Severity::Critical, true));
        assert_eq!(hot.text, "92 C [2J (MQTT plant/press-3/alarm)");
        assert_eq!(hot.node.as_deref(), Some("n1"));
        let over = word(&press, "plant/press-3/alarm", r#"{"state":"cleared"}"#);
        assert_eq!((over.alarm.as_str(), over.raised), ("press-3", false));
        assert_eq!(press.hear("plant/x/y", b"{}"), None);
        assert_eq!(press.hear("plant/x/alarm", b""), Some(Ok(Heard::Gone)));
    }

    #[test]
    fn a_last_will_is_an_alarm_until_the_birth() {
        let devices = source("devices/+/status", Form::Presence);
        for (payload, online) in [
            ("offline", false),
            ("\"Offline\"", false),
            (r#"{"state":"offline"}"#, false),
            (r#"{"online":true,"version":3}"#, true),
            ("ONLINE\n", true),
        ] {
            let said = word(&devices, "devices/cam/status", payload);
            assert_eq!(said.raised, !online, "{payload}");
            assert_eq!(said.alarm, "cam-offline");
        }
        assert_eq!(
            word(&devices, "devices/cam/status", "offline").text,
            "cam is offline (MQTT devices/cam/status)"
        );
    }

    #[test]
    fn what_is_none_is_refused_with_what_is_wrong() {
        let press = source("a", Form::Alarm);
        let why = |payload: &[u8]| match press.hear("a", payload) {
            Some(Err(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(why(b"{}").contains("missing field `state`"));
        assert!(why(br#"{"state":"maybe"}"#).contains("unknown variant `maybe`"));
        assert!(why(br#"{"state":"raised","severity":"red"}"#).contains("not \"red\""));
        assert!(why(b"\xff\xfe").contains("expected value"));
        assert!(why(&[b' '; PAYLOAD_MAX + 1]).contains("4097 bytes"));
        let presence = source("a", Form::Presence);
        assert!(matches!(
            presence.hear("a", b"{\"x\":1}"),
            Some(Err(Misheard::Malformed(_)))
        ));
        let long = format!(
            r#"{{"state":"raised","alarm":"{}","text":"{}"}}"#,
            "ä".repeat(900),
            "ß".repeat(900)
        );
        let kept = word(&press, "a", &long);
        assert!(kept.alarm.len() <= NAME_MAX && kept.text.len() <= TEXT_MAX);
    }
}
