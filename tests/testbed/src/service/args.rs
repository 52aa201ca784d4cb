//! Which service, where, with what around it: as a value, and as the arguments that say so.
//!
//! Each option belongs to one field of [`Kind`] or [`ServiceSpec`]; what a kind does not know is
//! refused, so that a mistyped topology does not start.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;

use super::SERVICE_ARG;

/// Which service, where, and with what hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub kind: Kind,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Unix socket that takes faults; without it the service cannot be told to misbehave.
    pub control: Option<PathBuf>,
    /// Ask the kernel to kill the service when the *thread* that started it ends.
    pub die_with_parent: bool,
}

/// What a service does. Addresses are those it calls, a forwarder's where replicas stand behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers `GET /` and `GET /healthz`.
    Web,
    /// The same, and counts in the background.
    Worker,
    /// The same, and inference from an ONNX file that is reloaded when it changes, for better
    /// or worse.
    Infer { model: PathBuf },
    /// Inference from `slot/current/model.onnx`, which is replaced only by what can be loaded.
    InferSlot { slot: PathBuf },
    /// Takes requests and sees them through the others.
    Gateway {
        preprocess: SocketAddr,
        infer: SocketAddr,
        postprocess: SocketAddr,
    },
    /// Normalises a row as its configuration says.
    Preprocess {
        config: PathBuf,
        cache: Option<SocketAddr>,
    },
    /// Remembers rows.
    Cache,
    /// Makes the answer, has it stored, and told to whom it may concern.
    Postprocess {
        store: SocketAddr,
        publisher: Option<SocketAddr>,
    },
    /// Sends answers to an MQTT broker.
    Publisher { broker: SocketAddr },
    /// Appends answers to a file in `dir`, which must not hold more than `quota` bytes.
    Store { dir: PathBuf, quota: u64 },
    /// A replica of a simulated service, as its specification says.
    Unit { spec: PathBuf },
}

/// The names of all kinds, in the order of the list above.
const NAMES: &str =
    "web, worker, infer, gateway, preprocess, cache, postprocess, publisher, store or unit";

impl Kind {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Worker => "worker",
            Self::Infer { .. } | Self::InferSlot { .. } => "infer",
            Self::Gateway { .. } => "gateway",
            Self::Preprocess { .. } => "preprocess",
            Self::Cache => "cache",
            Self::Postprocess { .. } => "postprocess",
            Self::Publisher { .. } => "publisher",
            Self::Store { .. } => "store",
            Self::Unit { .. } => "unit",
        }
    }

    fn options(&self) -> Vec<(&'static str, OsString)> {
        let at = |address: &SocketAddr| OsString::from(address.to_string());
        match self {
            Self::Web | Self::Worker | Self::Cache => Vec::new(),
            Self::Infer { model } => vec![("--model", model.into())],
            Self::InferSlot { slot } => vec![("--slot", slot.into())],
            Self::Gateway {
                preprocess,
                infer,
                postprocess,
            } => vec![
                ("--preprocess", at(preprocess)),
                ("--infer", at(infer)),
                ("--postprocess", at(postprocess)),
            ],
            Self::Preprocess { config, cache } => {
                let mut options = vec![("--config", config.into())];
                options.extend(cache.as_ref().map(|cache| ("--cache", at(cache))));
                options
            }
            Self::Postprocess { store, publisher } => {
                let mut options = vec![("--store", at(store))];
                options.extend(publisher.as_ref().map(|it| ("--publisher", at(it))));
                options
            }
            Self::Publisher { broker } => vec![("--broker", at(broker))],
            Self::Store { dir, quota } => {
                vec![("--dir", dir.into()), ("--quota", quota.to_string().into())]
            }
            Self::Unit { spec } => vec![("--spec", spec.into())],
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    #[error("the first argument must be {NAMES}, not {0:?}")]
    Kind(OsString),
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    #[error("{option} needs a value, {value:?} is none")]
    Value {
        option: &'static str,
        value: OsString,
    },
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// The options that were given, each taken once.
struct Given(Vec<(String, OsString)>);

impl Given {
    fn take(&mut self, option: &'static str) -> Option<OsString> {
        let place = self.0.iter().position(|(name, _)| name == option)?;
        Some(self.0.remove(place).1)
    }

    fn path(&mut self, option: &'static str) -> Result<PathBuf, ArgsError> {
        let value = self.take(option).ok_or(ArgsError::Missing(option))?;
        Ok(value.into())
    }

    fn parse<T: std::str::FromStr>(
        &mut self,
        option: &'static str,
    ) -> Result<Option<T>, ArgsError> {
        let Some(value) = self.take(option) else {
            return Ok(None);
        };
        let parsed = value.to_str().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or(ArgsError::Value { option, value })
    }

    fn required<T: std::str::FromStr>(&mut self, option: &'static str) -> Result<T, ArgsError> {
        self.parse(option)?.ok_or(ArgsError::Missing(option))
    }
}

impl ServiceSpec {
    /// The arguments that start this service, [`SERVICE_ARG`] first.
    #[must_use]
    pub fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![SERVICE_ARG.into(), self.kind.name().into()];
        args.extend(["--port".into(), self.port.to_string().into()]);
        for (option, value) in self.kind.options() {
            args.extend([option.into(), value]);
        }
        if let Some(path) = &self.control {
            args.extend(["--control".into(), path.into()]);
        }
        if self.die_with_parent {
            args.push("--die-with-parent".into());
        }
        args
    }

    /// What [`ServiceSpec::args`] made, less [`SERVICE_ARG`].
    ///
    /// # Errors
    /// [`ArgsError`] names the argument.
    pub fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, ArgsError> {
        let name = args.next().unwrap_or_default();
        let mut die_with_parent = false;
        let mut given = Given(Vec::new());
        while let Some(option) = args.next() {
            match option.to_str() {
                Some("--die-with-parent") => die_with_parent = true,
                Some(known) if OPTIONS.contains(&known) => {
                    let value = args.next().ok_or_else(|| missing_value(known))?;
                    given.0.push((known.to_owned(), value));
                }
                _ => return Err(ArgsError::Unknown(option)),
            }
        }
        let kind = kind(&name, &mut given)?;
        let port = given.required("--port")?;
        let control = given.take("--control").map(PathBuf::from);
        match given.0.first() {
            // Known, but not to this kind.
            Some((option, _)) => Err(ArgsError::Unknown(option.into())),
            None => Ok(Self {
                kind,
                port,
                control,
                die_with_parent,
            }),
        }
    }
}

/// All that take a value.
const OPTIONS: [&str; 15] = [
    "--port",
    "--control",
    "--model",
    "--slot",
    "--preprocess",
    "--infer",
    "--postprocess",
    "--config",
    "--cache",
    "--store",
    "--publisher",
    "--broker",
    "--dir",
    "--quota",
    "--spec",
];

fn missing_value(option: &str) -> ArgsError {
    let known = OPTIONS.iter().find(|known| **known == option);
    ArgsError::Missing(known.copied().unwrap_or("a value"))
}

fn kind(name: &OsStr, given: &mut Given) -> Result<Kind, ArgsError> {
    Ok(match name.to_str() {
        Some("web") => Kind::Web,
        Some("worker") => Kind::Worker,
        Some("infer") => match given.take("--slot") {
            Some(slot) => Kind::InferSlot { slot: slot.into() },
            None => Kind::Infer {
                model: given
                    .path("--model")
                    .map_err(|_| ArgsError::Missing("--model or --slot"))?,
            },
        },
        Some("gateway") => Kind::Gateway {
            preprocess: given.required("--preprocess")?,
            infer: given.required("--infer")?,
            postprocess: given.required("--postprocess")?,
        },
        Some("preprocess") => Kind::Preprocess {
            config: given.path("--config")?,
            cache: given.parse("--cache")?,
        },
        Some("cache") => Kind::Cache,
        Some("postprocess") => Kind::Postprocess {
            store: given.required("--store")?,
            publisher: given.parse("--publisher")?,
        },
        Some("publisher") => Kind::Publisher {
            broker: given.required("--broker")?,
        },
        Some("store") => Kind::Store {
            dir: given.path("--dir")?,
            quota: given.required("--quota")?,
        },
        Some("unit") => Kind::Unit {
            spec: given.path("--spec")?,
        },
        _ => return Err(ArgsError::Kind(name.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_its_arguments() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for kind in [
            Kind::Web,
            Kind::Worker,
            Kind::Infer {
                model: "/a b/m.onnx".into(),
            },
            Kind::InferSlot { slot: "/s".into() },
            Kind::Gateway {
                preprocess: at(1),
                infer: at(2),
                postprocess: at(3),
            },
            Kind::Preprocess {
                config: "/c".into(),
                cache: Some(at(4)),
            },
            Kind::Cache,
            Kind::Postprocess {
                store: at(5),
                publisher: None,
            },
            Kind::Publisher { broker: at(6) },
            Kind::Store {
                dir: "/d".into(),
                quota: 7,
            },
            Kind::Unit { spec: "/u".into() },
        ] {
            for control in [None, Some("/run/x.sock".into())] {
                let spec = ServiceSpec {
                    kind: kind.clone(),
                    port: 8080,
                    control,
                    die_with_parent: true,
                };
                let args = spec.args();
                assert_eq!(args[0], SERVICE_ARG);
                assert_eq!(ServiceSpec::parse(args.into_iter().skip(1)).unwrap(), spec);
            }
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let error = |line: &str| {
            let args = line.split_whitespace().map(OsString::from);
            ServiceSpec::parse(args).unwrap_err().to_string()
        };
        assert_eq!(
            error(""),
            format!("the first argument must be {NAMES}, not \"\"")
        );
        assert_eq!(error("web"), "--port is missing");
        assert_eq!(error("web --port x"), "--port needs a value, \"x\" is none");
        assert_eq!(
            error("web --port 70000"),
            "--port needs a value, \"70000\" is none"
        );
        assert_eq!(error("infer --port 1"), "--model or --slot is missing");
        assert_eq!(error("web --colour red"), "unknown option \"--colour\"");
        assert_eq!(error("web --port 1 --slot x"), "unknown option \"--slot\"");
        assert_eq!(error("web --control"), "--control is missing");
        assert_eq!(
            error("publisher --port 1 --broker here"),
            "--broker needs a value, \"here\" is none"
        );
    }
}
