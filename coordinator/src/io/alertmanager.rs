//! What Alertmanager posts: its webhook of version 4.
//!
//! In: the body of a request, and which labels name a node and a service. Out: words about
//! alarms, or what is wrong with the body and where. Fields that nobody knows are fine. An
//! alert is told apart by its fingerprint, which Alertmanager makes of its labels: groups and
//! receivers repeat it, and two Alertmanagers of a pair tell it alike.

use std::collections::BTreeMap;

use homeostat_common::wire::body::Severity;
use homeostat_common::wire::bounded;
use homeostat_notify::intake::{NAME_MAX, line, name, severity};
use serde::Deserialize;
use serde_json::Value;

use super::db::outside::{Said, Word};

/// The source of these alarms.
pub const SOURCE: &str = "alertmanager";

/// Largest body: some thousand alerts. Alertmanager's `max_alerts` keeps it smaller.
pub const BODY_MAX: usize = 4 * 1024 * 1024;

/// The version of the form that is read here.
const VERSION: &str = "4";

/// Longest value of a label that is looked up.
const VALUE_MAX: usize = 128;

/// Which labels name what, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// `node`, default `node`, `instance`: a value such as `edge-1`, `edge-1:9100` or
    /// `edge-1.plant.example:9100`.
    pub node: Vec<String>,
    /// `service`, default `service`, `job`.
    pub service: Vec<String>,
    /// `severity`, default `severity`.
    pub severity: Vec<String>,
}

impl Default for Labels {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            node: words(&["node", "instance"]),
            service: words(&["service", "job"]),
            severity: words(&["severity"]),
        }
    }
}

/// What is wrong with a body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is no JSON.
    #[error("no JSON: {0}")]
    Json(String),
    /// Another form than the one that is read here.
    #[error("version: expected \"{VERSION}\", found {0}")]
    Version(String),
    /// No list of alerts.
    #[error("alerts: expected a list")]
    Alerts,
    /// One of the alerts.
    #[error("alerts[{place}]: {why}")]
    Alert {
        /// From 0.
        place: usize,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Deserialize)]
struct Alert {
    status: Status,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(rename = "startsAt")]
    starts_at: Option<String>,
    fingerprint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

/// Reads a body.
///
/// # Errors
/// [`PayloadError`] for the first thing that is wrong; then nothing of it is taken.
pub fn read(body: &[u8], labels: &Labels) -> Result<Vec<Word>, PayloadError> {
    let mut root: BTreeMap<String, Value> =
        serde_json::from_slice(body).map_err(|error| PayloadError::Json(error.to_string()))?;
    match root.get("version") {
        Some(Value::String(version)) if version == VERSION => {}
        Some(other) => return Err(PayloadError::Version(bounded(&other.to_string(), 32))),
        None => return Err(PayloadError::Version("none".into())),
    }
    let Some(Value::Array(alerts)) = root.remove("alerts") else {
        return Err(PayloadError::Alerts);
    };
    alerts
        .into_iter()
        .enumerate()
        .map(|(place, alert)| {
            let wrong = |why| PayloadError::Alert { place, why };
            let alert = Alert::deserialize(alert).map_err(|error| wrong(error.to_string()))?;
            alert.word(labels).map_err(wrong)
        })
        .collect()
}

impl Alert {
    fn word(self, labels: &Labels) -> Result<Word, String> {
        if self.labels.is_empty() {
            return Err("labels: there are none".into());
        }
        if let Some(at) = self.starts_at.as_deref().filter(|at| !is_time(at)) {
            let at = bounded(at, 40);
            return Err(format!(
                "startsAt: expected a time as in RFC 3339, not {at:?}"
            ));
        }
        let values = |names: &[String]| -> Vec<String> {
            let found = names.iter().filter_map(|name| self.labels.get(name));
            found.map(|value| bounded(value, VALUE_MAX)).collect()
        };
        let grave = values(&labels.severity);
        let called = self.labels.get("alertname").map_or("alert", String::as_str);
        Ok(Word::Alarm(Said {
            key: self.key(),
            name: name(called),
            nodes: values(&labels.node)
                .iter()
                .flat_map(|it| hosts(it))
                .collect(),
            services: values(&labels.service),
            severity: grave
                .first()
                .and_then(|word| severity(word))
                .unwrap_or(Severity::Warning),
            text: line(&self.text()),
            raised: self.status == Status::Firing,
            since: self.starts_at,
        }))
    }

    fn key(&self) -> String {
        match self.fingerprint.as_deref().map(str::trim) {
            Some(mark) if !mark.is_empty() => bounded(mark, NAME_MAX),
            _ => fingerprint(&self.labels),
        }
    }

    /// What a person should know: the words that rules usually have, or else the labels.
    fn text(&self) -> String {
        let words = ["summary", "description", "message"];
        let mut said = words.iter().filter_map(|word| self.annotations.get(*word));
        match said.find(|text| !text.trim().is_empty()) {
            Some(text) => text.clone(),
            None => {
                let rest = self.labels.iter().filter(|(name, _)| *name != "alertname");
                let pairs: Vec<String> = rest
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                pairs.join(" ")
            }
        }
    }
}

/// As Alertmanager makes it (FNV-1a of names and values, each with a byte behind it that no
/// text has), so that it is the same whoever makes it, in every version of this program.
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let words = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = words.flat_map(|word| word.bytes().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The names that a value may hold: itself, without a port, and without a domain.
fn hosts(value: &str) -> Vec<String> {
    let bare = match value.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => value,
    };
    let mut names = vec![value.to_owned()];
    for name in [bare, bare.split('.').next().unwrap_or_default()] {
        if !name.is_empty() && names.iter().all(|known| known != name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Whether it looks like a time of RFC 3339; the database reads it.
fn is_time(text: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:dd";
    text.len() <= 40
        && text.len() > form.len()
        && text.bytes().zip(form).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Alertmanager 0.25 sends it.
    const BODY: &str = r#"{"receiver":"homeostat","status":"firing","alerts":[{"status":"firing",
        "labels":{"alertname":"HighLatency","instance":"edge-1.plant.example:9100","job":"infer",
        "severity":"page"},"annotations":{"summary":"p99 is 2 s"},
        "startsAt":"2026-11-22T20:00:00.123456789Z","endsAt":"0001-01-01T00:00:00Z",
        "generatorURL":"http://p/graph","fingerprint":"c7c31e8d3e1d4d3b"}],"groupLabels":{},
        "commonLabels":{},"commonAnnotations":{},"externalURL":"http://a","version":"4",
        "groupKey":"{}:{}","truncatedAlerts":0}"#;

    fn said(body: &str) -> Said {
        match read(body.as_bytes(), &Labels::default()).unwrap().remove(0) {
            Word::Alarm(said) => said,
            other @ Word::Gone(_) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_alert_is_named_by_its_labels_and_told_apart_by_its_fingerprint() {
        let one = said(BODY);
        assert_eq!(one.name, "HighLatency");
        assert_eq!(one.key, "c7c31e8d3e1d4d3b");
        assert_eq!(
            one.nodes,
            [
                "edge-1.plant.example:9100",
                "edge-1.plant.example",
                "edge-1"
            ]
        );
        assert_eq!(one.services, ["infer"]);
        assert_eq!((one.severity, one.raised), (Severity::Critical, true));
        assert_eq!(one.text, "p99 is 2 s");
        let bare = BODY
            .replace(r#","fingerprint":"c7c31e8d3e1d4d3b""#, "")
            .replace(r#""summary":"p99 is 2 s""#, "")
            .replace(r#""severity":"page""#, r#""severity":"odd""#)
            .replace(r#"[{"status":"firing""#, r#"[{"status":"resolved""#);
        let other = said(&bare);
        assert_eq!(other.key.len(), 16, "made of its labels: {}", other.key);
        assert_eq!(
            other.text,
            "instance=edge-1.plant.example:9100 job=infer severity=odd"
        );
        assert_eq!((other.severity, other.raised), (Severity::Warning, false));
    }

    #[test]
    fn a_fingerprint_is_that_of_alertmanager() {
        // From the tests of its library, prometheus/common.
        let labels = [("name", "garland, briggs"), ("fear", "love is not enough")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let made = fingerprint(&labels.into());
        assert_eq!(
            u64::from_str_radix(&made, 16),
            Ok(5_799_056_148_416_392_346)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (from, to, says) in [
            (
                r#""version":"4""#,
                r#""version":"5""#,
                "version: expected \"4\", found \"5\"",
            ),
            (
                r#""version":"4","#,
                "",
                "version: expected \"4\", found none",
            ),
            (r#""alerts":["#, r#""alertz":["#, "alerts: expected a list"),
            (
                r#"[{"status":"firing","#,
                "[{",
                "alerts[0]: missing field `status`",
            ),
            (
                r#"[{"status":"firing","#,
                r#"[{"status":"on","#,
                "alerts[0]: unknown variant `on`",
            ),
            (
                r#""job":"infer""#,
                r#""job":7"#,
                "alerts[0]: invalid type: integer `7`",
            ),
            (
                "2026-11-22T20:00:00.123456789Z",
                "today",
                "alerts[0]: startsAt: expected",
            ),
            (
                r#"{"receiver""#,
                r#"{receiver""#,
                "no JSON: key must be a string at line 1",
            ),
        ] {
            let body = BODY.replacen(from, to, 1);
            assert_ne!(body, BODY, "{from}");
            let error = read(body.as_bytes(), &Labels::default()).unwrap_err();
            assert!(
                error.to_string().starts_with(says),
                "{error}\nis not\n{says}"
            );
        }
    }
}
