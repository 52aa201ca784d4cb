//! Faults of what a service stands on: its model, its configuration, its data folder, its
//! share of the processor, the forwarder before it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use homeostat_models::vibration::{Built, variant};
use homeostat_testbed::inject::{self, Corruption};
use homeostat_testbed::supervisor::Liveness;
use homeostat_testbed::{Expect, Kind, Moment, Port, Prober, SERVICE_ARG, ports};

use super::super::eager;
use super::rows::Named;
use crate::stage::{Fleet, NODE, Node, Part, Parts, Route, Settings, infer_tables, role};

const PERIOD: Duration = Duration::from_millis(100);
/// Longer than a slow replica takes: it is slow, it does not hang.
const TIMEOUT: Duration = Duration::from_millis(200);
const MISSES: u32 = 2;
/// What the data folder may hold.
const QUOTA_MIB: u64 = 4;
const PREPROCESS: &str = "scale = 1.0\noffset = 0.0\n";
/// Seed of the model that is right in form and wrong in all it says.
const BAD_SEED: u64 = 77;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    CorruptModel,
    BadModel,
    BadConfig,
    Hog,
    DataFull,
    TwoAtOnce,
    ForwarderKill,
}

/// The settings of all nodes here, which are printed and hashed.
pub(in super::super) fn settings() -> Settings {
    let mut settings = eager(&[]);
    settings.sections = settings.sections.replace(
        "backoff_min = \"1ms\"",
        "backoff_min = \"1ms\", stable = \"1s\"",
    );
    settings.service += "\nstart_timeout = \"5s\"";
    settings.probe = format!(
        "period = \"{}ms\"\ntimeout = \"{}ms\"\nmisses = {MISSES}",
        PERIOD.as_millis(),
        TIMEOUT.as_millis()
    );
    settings
}

/// All that was fixed before the run.
pub(super) fn text() -> String {
    format!(
        "{}\n# reload = \"watch\"; cpu_limit = 0.5; data quota {QUOTA_MIB} MiB, prune *.old; queue_depth \
         at most 64 for 1s, frozen after 5 pages\n# routes: {}",
        settings().text(),
        route_keys().replace('\n', "; ")
    )
}

/// The keys of every route.
pub(in super::super) fn route_keys() -> &'static str {
    "patience = \"500ms\"\n[forward.check]\nkind = \"http\"\npath = \"/healthz\"\nperiod = \
     \"100ms\"\ntimeout = \"150ms\"\nrises = 1"
}

/// What the plain supervisor looks at: the same as the agent, and no more.
pub(super) fn liveness(port: &Port) -> Liveness {
    Liveness {
        address: port.address().into(),
        period: PERIOD,
        timeout: TIMEOUT,
        misses: MISSES,
    }
}

/// A service without tables of its own.
pub(in super::super) fn part(name: &'static str, kind: Kind, port: Port) -> Part {
    Part {
        name,
        kind,
        port,
        keys: String::new(),
        tables: String::new(),
    }
}

/// A service of the model in a slot of its own.
pub(super) fn infer(home: &Path, name: &'static str, port: Port) -> Result<Part> {
    let slot = home.join("slots").join(name);
    Ok(Part {
        tables: infer_tables(&slot)?,
        ..part(name, Kind::InferSlot { slot }, port)
    })
}

/// A port.
pub(in super::super) fn port() -> Result<Port> {
    let port = ports(1)?.into_iter().next();
    port.context("a port was asked for")
}

impl State {
    pub(super) fn named(self) -> Named {
        let (id, what, cap, goals) = match self {
            Self::CorruptModel => ("corrupt_model", "corrupt model", 10, [None, Some(1000.0)]),
            Self::BadModel => ("bad_model", "bad model", 10, [None, Some(1000.0)]),
            Self::BadConfig => ("bad_config", "bad configuration", 10, [None, Some(3000.0)]),
            Self::Hog => ("hog", "spinning process", 15, [None, Some(6000.0)]),
            Self::DataFull => ("data_full", "data folder full", 10, [None, Some(1000.0)]),
            Self::TwoAtOnce => (
                "two_at_once",
                "kill and corrupt model",
                10,
                [None, Some(2000.0)],
            ),
            Self::ForwarderKill => (
                "forwarder_kill",
                "kill -9 of the forwarder",
                5,
                [None, Some(200.0)],
            ),
        };
        Named {
            id,
            what,
            cap: Duration::from_secs(cap),
            goals,
        }
    }

    /// Healthy time before a trial, less a random share.
    pub(super) fn rest(self) -> Duration {
        Duration::from_millis(match self {
            Self::ForwarderKill => 500,
            // The folder is measured each second.
            Self::DataFull => 1100,
            // Longer than `stable`.
            _ => 1300,
        })
    }

    pub(super) fn parts(self, dir: &Path) -> Result<Parts> {
        let home = Node::home(dir);
        let mut parts = Parts {
            node: NODE,
            services: Vec::new(),
            routes: Vec::new(),
            service_config: PREPROCESS,
        };
        parts.services = match self {
            Self::CorruptModel | Self::BadModel => vec![infer(&home, "infer", port()?)?],
            Self::TwoAtOnce => vec![
                infer(&home, "infer", port()?)?,
                part("web", Kind::Web, port()?),
            ],
            Self::Hog => vec![Part {
                keys: "cpu_limit = 0.5".to_owned(),
                ..part("web", Kind::Web, port()?)
            }],
            Self::ForwarderKill => vec![part("web", Kind::Web, port()?)],
            Self::BadConfig => {
                let slot = home.join("slots/preprocess");
                let kind = Kind::Preprocess {
                    config: Fleet::config_file(&slot),
                    cache: None,
                };
                let program = serde_json::to_string(&role::program()?)?;
                let tables = format!(
                    "[service.config]\nslot = {}\nfile = \"preprocess.toml\"\nformat = \
                     \"toml\"\ncheck = [{program}, \"{SERVICE_ARG}\", \"preprocess\", \"--check\"]",
                    serde_json::to_string(&slot)?
                );
                vec![Part {
                    tables,
                    ..part("preprocess", kind, port()?)
                }]
            }
            Self::DataFull => {
                let kept = home.join("answers");
                let tables = format!(
                    "[service.data]\npath = {}\nquota = \"{QUOTA_MIB}MiB\"\nprune = [\"*.old\"]",
                    serde_json::to_string(&kept)?
                );
                let kind = Kind::Store {
                    dir: kept,
                    quota: QUOTA_MIB << 20,
                };
                vec![Part {
                    tables,
                    ..part("store", kind, port()?)
                }]
            }
        };
        Ok(parts)
    }

    /// The service that a route leads to.
    pub(super) fn routed(self, listen: &Port) -> Option<Route> {
        (self == Self::ForwarderKill).then(|| Route {
            id: "route",
            listen: listen.address(),
            keys: route_keys().to_owned(),
            to: vec!["web"],
        })
    }

    /// Outside probers: all of them have to be content again.
    pub(super) fn probers(self, node: &Node, route: &Port) -> Result<Vec<Prober>> {
        Ok(match self {
            Self::CorruptModel | Self::BadModel => vec![node.prober("infer", Node::golden()?)?],
            Self::TwoAtOnce => vec![
                node.prober("infer", Node::golden()?)?,
                node.prober("web", Expect::NewInstance)?,
            ],
            Self::BadConfig => vec![node.prober("preprocess", Expect::NewInstance)?],
            Self::Hog => vec![node.prober("web", Expect::NewInstance)?],
            Self::DataFull => vec![node.prober("store", Expect::Healthy)?],
            Self::ForwarderKill => vec![Prober::start(route.address(), Expect::Healthy)?],
        })
    }

    /// Breaks it.
    pub(super) fn strike(self, node: &Node, bad: &Built) -> Result<Moment> {
        let pid = |name: &str| {
            let life = node.life(name);
            Ok::<_, anyhow::Error>(life.with_context(|| format!("{name} is silent"))?.pid)
        };
        let model = node.slot("infer").join("current/model.onnx");
        Ok(match self {
            Self::CorruptModel => inject::corrupt_model(&model, Corruption::Weights)?,
            Self::BadModel => inject::install_model(&node.slot("infer"), bad)?.0,
            Self::BadConfig => {
                let file = Fleet::config_file(&node.slot("preprocess"));
                inject::bad_config(&file, pid("preprocess")?)?
            }
            Self::Hog => inject::spin(&node.control("web")?)?,
            Self::DataFull => inject::fill_quota(&node.control("store")?)?,
            Self::TwoAtOnce => {
                let at = inject::kill9(pid("web")?)?;
                inject::corrupt_model(&model, Corruption::Weights)?;
                at
            }
            Self::ForwarderKill => inject::kill9(node.forwarder().context("no forwarder runs")?)?,
        })
    }
}

/// The model that [`State::BadModel`] puts in place.
pub(super) fn bad_model() -> Built {
    variant("2.0.0-by-hand", BAD_SEED, 1)
}
