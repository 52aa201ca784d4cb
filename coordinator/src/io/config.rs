//! The file of `homeostat serve --config`: whom the coordinator calls and how often, which
//! alarms of other systems it hears, which model knows failure classes, and what routes have
//! promised their users.
//!
//! In: TOML with the keys that the agent's file has for the same. Out: what it says,
//! checked, or the first thing that is wrong with it, with file, line and key. All else
//! about the coordinator is on the command line.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use homeostat_common::ids::{NodeId, RouteId, ServiceId, WebhookId};
use homeostat_common::units::{Millis, SpanError};
use homeostat_common::wire::body::Severity;
use homeostat_notify::intake::{Filter, Form, SOURCES_MAX, Source};
use homeostat_notify::sign::{self, SecretError};
use homeostat_notify::{Told, Url, WEBHOOKS_MAX, Webhook};
use serde::{Deserialize, Deserializer, de};

use super::alertmanager::Labels;
use crate::control::alarms::People;
use crate::diagnose::impact::{Objective, Promise};

/// Largest file that is read: some hundred bytes say all there is to say.
const FILE_MAX: u64 = 64 * 1024;

/// Shortest and longest pause between reminders, as for the agent.
const REPEAT_MIN: Millis = Millis::secs(1);
const REPEAT_MAX: Millis = Millis::secs(7 * 86_400);

/// Shortest and longest time over which a promise is kept: below an hour one aggregate of five
/// minutes is a tenth of it, and after ninety days records are forgotten.
const SLO_WINDOW_MIN: Millis = Millis::secs(3600);
const SLO_WINDOW_MAX: Millis = Millis::secs(90 * 86_400);

/// Most `[[slo]]`: each is looked through for each incident that is shown.
const SLOS_MAX: usize = 64;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `[people]`.
    pub people: People,
    /// `[[webhook]]`.
    pub webhooks: Vec<Webhook>,
    /// `[alertmanager]`.
    pub labels: Labels,
    /// `[[intake]]`: what devices say over MQTT.
    pub intake: Vec<Source>,
    /// `[classify] model`: what knows failure classes.
    pub model: Option<PathBuf>,
    /// `[[slo]]`: what routes have promised their users.
    pub slo: Vec<Objective>,
}

/// Why it is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("{}:{line}: {found}: {why}", file.display())]
    Line {
        /// Which.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        found: String,
        /// What is wrong with that.
        why: String,
    },
    /// What it says does not go together.
    #[error("{}: {key}: {why}", file.display())]
    Key {
        /// Which.
        file: PathBuf,
        /// Which key.
        key: String,
        /// What is wrong with that.
        why: String,
    },
    /// A webhook could sign nothing.
    #[error("{}: {key}", file.display())]
    Secret {
        /// Which file.
        file: PathBuf,
        /// Which key.
        key: String,
        /// Why not.
        #[source]
        source: SecretError,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    #[serde(default)]
    people: PeopleTable,
    #[serde(default)]
    webhook: Vec<WebhookTable>,
    #[serde(default)]
    alertmanager: LabelsTable,
    #[serde(default)]
    intake: Vec<IntakeTable>,
    classify: Option<ClassifyTable>,
    #[serde(default)]
    slo: Vec<SloTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SloTable {
    route: RouteId,
    node: Option<NodeId>,
    availability: Option<f64>,
    #[serde(default, deserialize_with = "limit")]
    latency: Option<Millis>,
    latency_share: Option<f64>,
    #[serde(default = "month", deserialize_with = "window")]
    window: Millis,
    users: Option<u32>,
}

/// What most promises are kept over.
fn month() -> Millis {
    Millis::secs(30 * 86_400)
}

fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Millis>, D::Error> {
    match Millis::parse(&String::deserialize(from)?) {
        Ok(span) if span > Millis(0) => Ok(Some(span)),
        _ => Err(de::Error::custom("expected a span such as \"300ms\"")),
    }
}

fn window<'de, D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
    match Millis::parse(&String::deserialize(from)?) {
        Ok(span) if (SLO_WINDOW_MIN..=SLO_WINDOW_MAX).contains(&span) => Ok(span),
        _ => Err(de::Error::custom(format!(
            "expected a span from \"{SLO_WINDOW_MIN}\" to \"{SLO_WINDOW_MAX}\", such as \"30d\""
        ))),
    }
}

impl SloTable {
    /// What it promises, or the key that is wrong and why.
    fn checked(self) -> Result<Objective, (&'static str, String)> {
        let share = |key, value: f64| {
            if value > 0.0 && value < 1.0 {
                Ok(value)
            } else {
                let why = format!("expected a share above 0 and below 1, not {value}");
                Err((key, why))
            }
        };
        let availability = self.availability.map(|value| share("availability", value));
        let latency = match (self.latency, self.latency_share) {
            (None, Some(_)) => return Err(("latency_share", "there is no latency".into())),
            (None, None) => None,
            // Those that nodes tell.
            (Some(limit), of) => match of.unwrap_or(0.95) {
                of if [0.5, 0.95].contains(&of) => Some((limit, of)),
                of => return Err(("latency_share", format!("expected 0.5 or 0.95, not {of}"))),
            },
        };
        let availability = availability.transpose()?;
        if availability.is_none() && latency.is_none() {
            let why = "expected availability, latency, or both".to_owned();
            return Err(("availability", why));
        }
        Ok(Objective {
            route: self.route,
            node: self.node,
            promises: availability
                .map(Promise::Answered)
                .into_iter()
                .chain(latency.map(|(limit, of)| Promise::Within(limit, of)))
                .collect(),
            window: self.window,
            users: self.users,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassifyTable {
    model: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PeopleTable {
    #[serde(deserialize_with = "pause")]
    repeat_min: Millis,
    #[serde(deserialize_with = "pause")]
    repeat_max: Millis,
}

impl Default for PeopleTable {
    fn default() -> Self {
        let People {
            repeat_min,
            repeat_max,
        } = People::default();
        Self {
            repeat_min,
            repeat_max,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookTable {
    name: WebhookId,
    #[serde(deserialize_with = "parsed")]
    url: Url,
    secret_file: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelsTable {
    node: Option<Vec<String>>,
    service: Option<Vec<String>>,
    severity: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntakeTable {
    #[serde(deserialize_with = "parsed")]
    topic: Filter,
    #[serde(default)]
    form: Form,
    #[serde(default = "warning")]
    severity: Severity,
    service: Option<ServiceId>,
}

fn warning() -> Severity {
    Severity::Warning
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr>(from: D) -> Result<T, D::Error>
where
    T::Err: std::fmt::Display,
{
    String::deserialize(from)?
        .parse()
        .map_err(de::Error::custom)
}

fn pause<'de, D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
    let span: Result<Millis, SpanError> = Millis::parse(&String::deserialize(from)?);
    match span {
        Ok(span) if (REPEAT_MIN..=REPEAT_MAX).contains(&span) => Ok(span),
        _ => Err(de::Error::custom(format!(
            "expected a span from \"{REPEAT_MIN}\" to \"{REPEAT_MAX}\", such as \"30s\" or \"5m\""
        ))),
    }
}

impl Config {
    /// Reads and checks the file, and whether each webhook has its secret.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let mut text = String::new();
        File::open(file)
            .and_then(|source| source.take(FILE_MAX + 1).read_to_string(&mut text))
            .and_then(|read| match read as u64 {
                0..=FILE_MAX => Ok(()),
                _ => Err(std::io::ErrorKind::FileTooLarge.into()),
            })
            .map_err(|source| ConfigError::Read {
                file: file.to_owned(),
                source,
            })?;
        let root: Root = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count();
            ConfigError::Line {
                file: file.to_owned(),
                line: line + 1,
                found: text.lines().nth(line).unwrap_or_default().trim().to_owned(),
                why: error.message().to_owned(),
            }
        })?;
        root.checked(file)
    }
}

impl Root {
    fn checked(self, file: &Path) -> Result<Config, ConfigError> {
        let wrong = |key: String, why: String| ConfigError::Key {
            file: file.to_owned(),
            key,
            why,
        };
        let PeopleTable {
            repeat_min,
            repeat_max,
        } = self.people;
        if repeat_max < repeat_min {
            let why = format!("{repeat_max} is below repeat_min ({repeat_min})");
            return Err(wrong("people.repeat_max".into(), why));
        }
        if self.webhook.len() > WEBHOOKS_MAX {
            let why = format!(
                "expected at most {WEBHOOKS_MAX}, found {}",
                self.webhook.len()
            );
            return Err(wrong("webhook".into(), why));
        }
        let mut webhooks: Vec<Webhook> = Vec::new();
        for (n, one) in self.webhook.into_iter().enumerate() {
            let key = |key: &str| format!("webhook[{n}].{key}");
            if let Some(first) = webhooks.iter().position(|hook| hook.name == one.name) {
                let why = format!("{} is already the name of webhook[{first}]", one.name);
                return Err(wrong(key("name"), why));
            }
            // The same wherever the coordinator is started.
            if !one.secret_file.is_absolute() {
                let why = format!("expected an absolute path, not {:?}", one.secret_file);
                return Err(wrong(key("secret_file"), why));
            }
            sign::secret(&one.secret_file).map_err(|source| ConfigError::Secret {
                file: file.to_owned(),
                key: key("secret_file"),
                source,
            })?;
            webhooks.push(Webhook {
                name: one.name,
                url: one.url,
                secret_file: one.secret_file,
                events: vec![Told::Alarm],
            });
        }
        if self.intake.len() > SOURCES_MAX {
            let found = self.intake.len();
            let why = format!("expected at most {SOURCES_MAX}, found {found}");
            return Err(wrong("intake".into(), why));
        }
        let intake = self.intake.into_iter().map(|one| Source {
            topic: one.topic,
            form: one.form,
            severity: one.severity,
            service: one.service,
        });
        let usual = Labels::default();
        let labels = Labels {
            node: self.alertmanager.node.unwrap_or(usual.node),
            service: self.alertmanager.service.unwrap_or(usual.service),
            severity: self.alertmanager.severity.unwrap_or(usual.severity),
        };
        // The same wherever the coordinator is started.
        let model = self.classify.map(|classify| classify.model);
        if let Some(model) = model.as_ref().filter(|model| !model.is_absolute()) {
            let why = format!("expected an absolute path, not {model:?}");
            return Err(wrong("classify.model".into(), why));
        }
        if self.slo.len() > SLOS_MAX {
            let why = format!("expected at most {SLOS_MAX}, found {}", self.slo.len());
            return Err(wrong("slo".into(), why));
        }
        let slo = self.slo.into_iter().enumerate().map(|(n, one)| {
            one.checked()
                .map_err(|(key, why)| wrong(format!("slo[{n}].{key}"), why))
        });
        let slo = slo.collect::<Result<Vec<_>, _>>()?;
        Ok(Config {
            slo,
            model,
            labels,
            intake: intake.collect(),
            people: People {
                repeat_min,
                repeat_max,
            },
            webhooks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ingest::chain;

    /// Reads `text`, in which `SECRET` is a file with one; the folder's name is `DIR` in
    /// what is wrong.
    fn read(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("secret"), "0123456789abcdef\n").unwrap();
        std::fs::write(dir.path().join("short"), "0123456\n").unwrap();
        let file = dir.path().join("serve.toml");
        std::fs::write(&file, text.replace("DIR", folder)).unwrap();
        Config::load(&file).map_err(|error| chain(&error).replace(folder, "DIR"))
    }

    fn hook(more: &str) -> String {
        format!(
            "[[webhook]]\nname = \"pager\"\nurl = \"http://127.0.0.1:9/a\"\n\
             secret_file = \"DIR/secret\"\n{more}"
        )
    }

    #[test]
    fn it_says_whom_to_call_and_how_often() {
        assert_eq!(read("").unwrap(), Config::default());
        let config = read(&hook("[people]\nrepeat_min = \"30s\"\n")).unwrap();
        assert_eq!(config.people.repeat_min, Millis::secs(30));
        assert_eq!(config.people.repeat_max, Millis::secs(4 * 3600));
        let [one] = &config.webhooks[..] else {
            panic!("one webhook")
        };
        assert_eq!((one.name.as_str(), one.url.port), ("pager", 9));
        assert_eq!(one.events, [Told::Alarm]);
    }

    #[test]
    fn it_says_which_alarms_of_others_are_heard() {
        let config = read(
            "[alertmanager]\nnode = [\"host\"]\n[[intake]]\ntopic = \"plant/+/alarm\"\n\
             [[intake]]\ntopic = \"devices/+/status\"\nform = \"presence\"\n\
             severity = \"critical\"\nservice = \"camera\"\n",
        )
        .unwrap();
        assert_eq!(config.labels.node, ["host"]);
        assert_eq!(config.labels.service, ["service", "job"]);
        let [press, devices] = &config.intake[..] else {
            panic!("two topics")
        };
        assert_eq!(
            (press.form, press.severity),
            (Form::Alarm, Severity::Warning)
        );
        assert_eq!(devices.form, Form::Presence);
        assert_eq!(devices.severity, Severity::Critical);
        let own = read("[[intake]]\ntopic = \"hs/v1/+/+/alarm/+\"\n").unwrap_err();
        assert!(
            own.contains("DIR/serve.toml:2: ") && own.contains("Homeostat's own"),
            "{own}"
        );
    }

    #[test]
    fn it_says_what_routes_have_promised() {
        let config = read(
            "[[slo]]\nroute = \"web\"\navailability = 0.999\nlatency = \"300ms\"\nusers = 40\n\
             [[slo]]\nroute = \"web\"\nnode = \"edge-1\"\nlatency = \"1s\"\nlatency_share = 0.5\n\
             window = \"7d\"\n",
        );
        let slo = config.unwrap().slo;
        assert_eq!(
            slo[0].promises,
            [Promise::Answered(0.999), Promise::Within(Millis(300), 0.95)]
        );
        assert_eq!(
            (slo[0].window, slo[0].users),
            (Millis::secs(30 * 86_400), Some(40))
        );
        assert_eq!(slo[1].promises, [Promise::Within(Millis(1000), 0.5)]);
        assert_eq!(slo[1].window, Millis::secs(7 * 86_400));
        assert_eq!(slo[1].node.as_ref().map(NodeId::as_str), Some("edge-1"));
    }

    #[test]
    fn what_is_wrong_is_said_with_file_line_and_key() {
        let usual = hook("");
        let wrong = |text: &str| read(text).unwrap_err();
        for (text, says) in [
            (
                hook("events = [\"alarm\"]\n"),
                "DIR/serve.toml:5: events = [\"alarm\"]: unknown field `events`, expected one of \
                 `name`, `url`, `secret_file`",
            ),
            (
                usual.replace("http:", "https:"),
                "DIR/serve.toml:3: url = \"https://127.0.0.1:9/a\": expected http://: there is no TLS",
            ),
            (
                usual.replace(":9/", ":x/"),
                "DIR/serve.toml:3: url = \"http://127.0.0.1:x/a\": expected http://HOST[:PORT][/PATH]",
            ),
            (
                usual.replace("url", "# url"),
                "DIR/serve.toml:1: [[webhook]]: missing field `url`",
            ),
            (
                usual.replace("\"pager\"", "\"No Name\""),
                "DIR/serve.toml:2: name = \"No Name\": ",
            ),
            (
                usual.replace("DIR/secret", "secret"),
                "DIR/serve.toml: webhook[0].secret_file: expected an absolute path, not \"secret\"",
            ),
            (
                usual.replace("DIR/secret", "DIR/nowhere"),
                "DIR/serve.toml: webhook[0].secret_file: cannot read its secret DIR/nowhere: No such",
            ),
            (
                usual.replace("DIR/secret", "DIR/short"),
                "DIR/serve.toml: webhook[0].secret_file: its secret DIR/short has 7 bytes; 16 to",
            ),
            (
                hook(&usual),
                "DIR/serve.toml: webhook[1].name: pager is already the name of webhook[0]",
            ),
            (
                "[people]\nrepeat_min = \"1ms\"\n".into(),
                "DIR/serve.toml:2: repeat_min = \"1ms\": expected a span from \"1s\" to",
            ),
            (
                "[people]\nrepeat_min = \"5h\"\n".into(),
                "DIR/serve.toml: people.repeat_max: 4h is below repeat_min (5h)",
            ),
            (
                "[classify]\nmodel = \"m\"\n".into(),
                "DIR/serve.toml: classify.model: expected an absolute path, not \"m\"",
            ),
            (
                "[[slo]]\nroute = \"web\"\n".into(),
                "DIR/serve.toml: slo[0].availability: expected availability, latency, or both",
            ),
            (
                "[[slo]]\nroute = \"web\"\navailability = 1.0\n".into(),
                "DIR/serve.toml: slo[0].availability: expected a share above 0 and below 1, not 1",
            ),
            (
                "[[slo]]\nroute = \"web\"\navailability = nan\n".into(),
                "DIR/serve.toml: slo[0].availability: expected a share above 0 and below 1, not NaN",
            ),
            (
                "[[slo]]\nroute = \"web\"\nlatency = \"1s\"\nlatency_share = 0.99\n".into(),
                "DIR/serve.toml: slo[0].latency_share: expected 0.5 or 0.95, not 0.99",
            ),
            (
                "[[slo]]\nroute = \"web\"\navailability = 0.9\nwindow = \"1m\"\n".into(),
                "DIR/serve.toml:4: window = \"1m\": expected a span from \"1h\" to \"90d\"",
            ),
            ("[[webhook]\n".into(), "DIR/serve.toml:1: [[webhook]: "),
        ] {
            let error = wrong(&text);
            assert!(error.starts_with(says), "{error}\nis not\n{says}");
        }
        let five: String = (0..5)
            .map(|n| usual.replace("pager", &format!("pager-{n}")))
            .collect();
        assert!(wrong(&five).contains("webhook: expected at most 4, found 5"));
        let nowhere = Config::load(Path::new("/nowhere/serve.toml")).unwrap_err();
        assert!(chain(&nowhere).starts_with("cannot read the configuration /nowhere/serve.toml: "));
    }
}
