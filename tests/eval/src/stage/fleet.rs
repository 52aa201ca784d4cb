//! Three nodes that serve one request together, on one machine and over loopback.
//!
//! ```text
//!  edge-1   entry > gateway ---> preprocess > preprocess-1, preprocess-2 --> cache > cache-1
//!                     |
//!                     +--------> infer >--------+
//!                     +--------> postprocess >--|--+
//!  edge-2   infer > infer-1, infer-2, (infer-3) <  |
//!  edge-3   postprocess > postprocess-1 <----------+
//!                            +--> store > store-1
//!                            +--> publisher > publisher-1 --> broker
//! ```
//!
//! `NAME >` is a route of the node's forwarder, `(infer-3)` a standby. A call to another node goes
//! through the forwarders of both, as it would between machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use homeostat_models::sha256_hex;
use homeostat_testbed::{Kind, MODEL_NAME, Port, SERVICE_ARG, ServiceSpec, ports};

use super::node::{Layout, Node, Served};
use super::role::{FORWARD_ARG, program};

/// What `store-1` may keep.
const STORE_QUOTA: u64 = 4 << 20;
/// What the preprocessors read.
pub(super) const PREPROCESS: &str = "# x -> (x + offset) * scale\nscale = 1.0\noffset = 0.0\n";
/// The name of that file in its slot.
pub(super) const PREPROCESS_FILE: &str = "preprocess.toml";

/// How the nodes of a fleet are set. No paths and no ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetSettings {
    /// Keys of `[mqtt]`, and sections after it.
    pub sections: String,
    /// Keys of each service.
    pub service: String,
    /// Keys of each probe but those below.
    pub probe: String,
    /// Keys of the probes that compare the answers of models.
    pub golden: String,
    /// Keys of each route that leads to one service, which is waited for while it restarts.
    pub single: String,
    /// Keys of each route to replicas.
    pub replicated: String,
    /// Keys of `[forward.check]`.
    pub check: String,
    /// The node whose clock is wrong, and by how much.
    pub clock: (&'static str, &'static str),
}

impl FleetSettings {
    /// Everything, as text to be printed and hashed.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            sections,
            service,
            probe,
            golden,
            single,
            replicated,
            check,
            clock: (node, offset),
        } = self;
        format!(
            "{sections}\n# services\n{service}\n# probes\n{probe}\n# of models\n{golden}\n# routes to one\n{single}\n\
             # routes to replicas\n{replicated}\n# checks\n{check}\n# {node}: clock {offset}"
        )
    }
}

/// Three nodes that run.
#[derive(Debug)]
pub struct Fleet {
    nodes: Vec<Node>,
    routes: BTreeMap<&'static str, Port>,
}

/// A service before it has a port: what it is, and what its block says beyond the common keys.
struct Planned {
    node: &'static str,
    name: &'static str,
    kind: Kind,
    keys: String,
    tables: String,
}

/// A route of a node: its name there, the name under which its port is kept, and its backends.
struct Route {
    node: &'static str,
    id: &'static str,
    port: &'static str,
    to: To,
}

enum To {
    /// Services of the same node.
    Services(&'static [&'static str]),
    /// The route of another node, by the name of its port, with the name of that node.
    Node(&'static str, &'static str),
}

const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

const ROUTES: [Route; 9] = [
    route("edge-1", "entry", "entry", To::Services(&["gateway"])),
    route(
        "edge-1",
        "preprocess",
        "preprocess",
        To::Services(&["preprocess-1", "preprocess-2"]),
    ),
    route("edge-1", "cache", "cache", To::Services(&["cache-1"])),
    route("edge-1", "infer", "to-infer", To::Node("infer", "edge-2")),
    route(
        "edge-1",
        "postprocess",
        "to-postprocess",
        To::Node("postprocess", "edge-3"),
    ),
    route(
        "edge-2",
        "infer",
        "infer",
        To::Services(&["infer-1", "infer-2", "infer-3"]),
    ),
    route(
        "edge-3",
        "postprocess",
        "postprocess",
        To::Services(&["postprocess-1"]),
    ),
    route("edge-3", "store", "store", To::Services(&["store-1"])),
    route(
        "edge-3",
        "publisher",
        "publisher",
        To::Services(&["publisher-1"]),
    ),
];

const fn route(node: &'static str, id: &'static str, port: &'static str, to: To) -> Route {
    Route { node, id, port, to }
}

impl Fleet {
    /// Starts three nodes, and returns once each service answers.
    ///
    /// `broker`: where nodes and `publisher-1` send what they have to say.
    ///
    /// # Errors
    /// When something cannot be started, or the services do not come up.
    pub fn start(dir: &Path, settings: &FleetSettings, broker: SocketAddrV4) -> Result<Self> {
        let kept = ports(ROUTES.len())?;
        let routes: BTreeMap<&str, Port> = ROUTES.iter().map(|it| it.port).zip(kept).collect();
        let mut nodes = Vec::with_capacity(NODES.len());
        for id in NODES {
            let layout = layout(id, dir, settings, &routes, broker)?;
            nodes.push(Node::prepare(layout, None)?);
        }
        for node in &mut nodes {
            node.start_spawner()?;
            node.start_agent()?;
        }
        for node in &mut nodes {
            node.wait_up()?;
        }
        Ok(Self { nodes, routes })
    }

    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All of them, to be started and stopped.
    pub fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut()
    }

    /// One of them.
    ///
    /// # Errors
    /// When there is no such node, here and below.
    pub fn node(&self, id: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.id() == id);
        found.with_context(|| format!("there is no node {id}"))
    }

    pub fn node_mut(&mut self, id: &str) -> Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.id() == id);
        found.with_context(|| format!("there is no node {id}"))
    }

    /// The version of the preprocessors' configuration, as plans name it.
    #[must_use]
    pub fn config_version() -> String {
        sha256_hex(PREPROCESS.as_bytes()).chars().take(16).collect()
    }

    /// Where the configuration of a preprocessor stands, in the folder of its slot.
    #[must_use]
    pub fn config_file(slot: &Path) -> PathBuf {
        slot.join("current").join(PREPROCESS_FILE)
    }

    /// Where clients send their requests.
    ///
    /// # Errors
    /// When the fleet has no entry.
    pub fn entry(&self) -> Result<SocketAddrV4> {
        self.first_route("edge-1")
    }

    /// The first route of a node.
    ///
    /// # Errors
    /// When it has none.
    pub fn first_route(&self, node: &str) -> Result<SocketAddrV4> {
        let route = ROUTES.iter().find(|route| route.node == node);
        let port = route.and_then(|route| self.routes.get(route.port));
        let port = port.with_context(|| format!("{node} has no route"))?;
        Ok(port.address())
    }
}

/// What a node consists of: its folder, ports and configuration.
fn layout(
    id: &'static str,
    dir: &Path,
    settings: &FleetSettings,
    routes: &BTreeMap<&str, Port>,
    broker: SocketAddrV4,
) -> Result<Layout> {
    let dir = dir.join(id);
    let planned: Vec<Planned> = services(&dir, routes, broker)?
        .into_iter()
        .filter(|service| service.node == id)
        .collect();
    let offset = (settings.clock.0 == id).then_some(settings.clock.1);
    let mut text = head(id, &dir, &settings.sections, offset, broker)?;
    let mut served = Vec::with_capacity(planned.len());
    for (service, port) in planned.iter().zip(ports(planned.len())?) {
        let spec = ServiceSpec {
            kind: service.kind.clone(),
            port: port.number(),
            control: Some(dir.join("run").join(format!("{}.control", service.name))),
            // They have to outlive the spawner.
            die_with_parent: false,
        };
        let mut command = vec![quoted(program().context("cannot find the own program")?)?];
        for arg in spec.args() {
            command.push(quoted(arg)?);
        }
        let _ = writeln!(
            text,
            "\n[[service]]\nid = \"{}\"\ncommand = [{}]\nports = [{}]\n{}\n{}\n{}",
            service.name,
            command.join(", "),
            spec.port,
            settings.service,
            service.keys,
            service
                .tables
                .replace("GOLDEN", &settings.golden)
                .replace("PROBE", &settings.probe),
        );
        served.push(Served {
            name: service.name,
            spec,
            port,
            standby: service.keys.contains("standby"),
        });
    }
    for route in ROUTES.iter().filter(|route| route.node == id) {
        text.push_str(&forward(route, settings, routes)?);
    }
    Ok(Layout {
        id,
        dir,
        served,
        text,
        service_config: PREPROCESS,
    })
}

fn head(
    id: &str,
    dir: &Path,
    sections: &str,
    offset: Option<&str>,
    broker: SocketAddrV4,
) -> Result<String> {
    let clock = offset.map(|offset| format!("[clock]\noffset = \"{offset}\"\n"));
    Ok(format!(
        "[node]\nid = \"{id}\"\ndata_dir = {}\nrun_dir = {}\n\n[mqtt]\nbroker = \
         \"mqtt://{broker}\"\n{sections}\n\n{}\n[forwarder]\ncommand = [{}, \"{FORWARD_ARG}\", \
         \"--config\", {}]\n",
        quoted(dir.join("data"))?,
        quoted(dir.join("run"))?,
        clock.unwrap_or_default(),
        quoted(program().context("cannot find the own program")?)?,
        quoted(dir.join("agent.toml"))?,
    ))
}

/// All services, with the addresses that each of them calls.
fn services(
    dir: &Path,
    routes: &BTreeMap<&str, Port>,
    broker: SocketAddrV4,
) -> Result<Vec<Planned>> {
    let at = |port: &str| -> Result<SocketAddr> {
        let port = routes
            .get(port)
            .with_context(|| format!("no port {port}"))?;
        Ok(port.address().into())
    };
    let slot = |name: &str| dir.join("slots").join(name);
    let http = "[[service.probe]]\nkind = \"http\"\npath = \"/healthz\"\nPROBE";
    let plain = |node, name, kind, keys: &str| Planned {
        node,
        name,
        kind,
        keys: keys.to_owned(),
        tables: http.to_owned(),
    };
    let mut all = vec![plain(
        "edge-1",
        "gateway",
        Kind::Gateway {
            preprocess: at("preprocess")?,
            infer: at("to-infer")?,
            postprocess: at("to-postprocess")?,
        },
        "calls = [\"preprocess\", \"infer\", \"postprocess\"]",
    )];
    for name in ["preprocess-1", "preprocess-2"] {
        let kind = Kind::Preprocess {
            config: Fleet::config_file(&slot(name)),
            cache: Some(at("cache")?),
        };
        let program = quoted(program().context("cannot find the own program")?)?;
        let mut service = plain("edge-1", name, kind, "calls = [\"cache\"]");
        service.tables = format!(
            "[service.config]\nslot = {}\nfile = \"{PREPROCESS_FILE}\"\nformat = \"toml\"\n\
             check = [{program}, \"{SERVICE_ARG}\", \"preprocess\", \"--check\"]\n{http}",
            quoted(slot(name))?
        );
        all.push(service);
    }
    all.push(plain("edge-1", "cache-1", Kind::Cache, ""));
    for name in ["infer-1", "infer-2", "infer-3"] {
        all.push(Planned {
            node: "edge-2",
            name,
            kind: Kind::InferSlot { slot: slot(name) },
            keys: if name == "infer-3" {
                "standby = true"
            } else {
                ""
            }
            .to_owned(),
            tables: infer_tables(&slot(name))?,
        });
    }
    all.push(plain(
        "edge-3",
        "postprocess-1",
        Kind::Postprocess {
            store: at("store")?,
            publisher: Some(at("publisher")?),
        },
        "calls = [\"store\", \"publisher\"]",
    ));
    let kept = dir.join("answers");
    let mut store = plain(
        "edge-3",
        "store-1",
        Kind::Store {
            dir: kept.clone(),
            quota: STORE_QUOTA,
        },
        "",
    );
    store.tables = format!(
        "[service.data]\npath = {}\nquota = \"{}MiB\"\nprune = [\"*.old\"]\n{http}",
        quoted(kept)?,
        STORE_QUOTA >> 20
    );
    all.push(store);
    let broker = broker.into();
    all.push(plain(
        "edge-3",
        "publisher-1",
        Kind::Publisher { broker },
        "",
    ));
    Ok(all)
}

/// Known answers that do not depend on the version in place, and the gauge of the queue.
///
/// # Errors
/// When the slot has no name in UTF-8.
pub fn infer_tables(slot: &Path) -> Result<String> {
    let golden = Node::goldens()?;
    let mut goldens = Vec::with_capacity(golden.vectors.len());
    for vector in &golden.vectors {
        goldens.push(format!(
            "{{ inputs = {}, outputs = {}, tolerance = {:?} }}",
            serde_json::to_string(&vector.input)?,
            serde_json::to_string(&vector.output)?,
            golden.tolerance
        ));
    }
    Ok(format!(
        "[service.model]\nslot = {}\nreload = \"watch\"\n\
         [[service.probe]]\nkind = \"inference\"\nprotocol = \"v2\"\nmodel = \"{MODEL_NAME}\"\n\
         input = \"features\"\noutput = \"probabilities\"\ngoldens = [\n{}\n]\nGOLDEN\n\
         [[service.probe]]\nkind = \"metrics\"\nfrozen = 5\n\
         gauge = [{{ name = \"queue_depth\", max = 64, for = \"1s\" }}]\nPROBE",
        quoted(slot)?,
        goldens.join(",\n")
    ))
}

fn forward(
    route: &Route,
    settings: &FleetSettings,
    ports: &BTreeMap<&str, Port>,
) -> Result<String> {
    let number = |port: &str| -> Result<u16> {
        let port = ports.get(port).with_context(|| format!("no port {port}"))?;
        Ok(port.number())
    };
    let (keys, backends) = match &route.to {
        To::Services(names) => {
            let keys = if names.len() == 1 {
                &settings.single
            } else {
                &settings.replicated
            };
            let backend = |name: &&str| {
                // A standby gets nothing until a plan gives it a weight.
                let weight = if *name == "infer-3" {
                    "weight = 0\n"
                } else {
                    ""
                };
                format!("[[forward.backend]]\nservice = \"{name}\"\n{weight}")
            };
            (keys, names.iter().map(backend).collect::<String>())
        }
        To::Node(port, node) => {
            let address = format!("127.0.0.1:{}", number(port)?);
            let backend =
                format!("[[forward.backend]]\nid = \"{node}\"\naddress = \"{address}\"\n");
            (&settings.single, backend)
        }
    };
    Ok(format!(
        "\n[[forward]]\nid = \"{}\"\nlisten = {}\n{keys}\n[forward.check]\n{}\n{backends}",
        route.id,
        number(route.port)?,
        settings.check
    ))
}

/// JSON's strings are TOML's basic strings.
pub(super) fn quoted(text: impl AsRef<std::ffi::OsStr>) -> Result<String> {
    let text = text.as_ref();
    let text = text
        .to_str()
        .with_context(|| format!("{} is not UTF-8", text.display()))?;
    serde_json::to_string(text).context("cannot quote a string")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use homeostat_agent::config::Config;

    #[test]
    fn each_node_reads_its_configuration_and_calls_lead_somewhere() {
        let settings = FleetSettings {
            sections: String::new(),
            service: String::new(),
            probe: String::new(),
            golden: String::new(),
            single: String::new(),
            replicated: String::new(),
            check: String::new(),
            clock: ("edge-2", "-1h"),
        };
        let routes: BTreeMap<&str, Port> = ROUTES
            .iter()
            .map(|route| route.port)
            .zip(ports(ROUTES.len()).unwrap())
            .collect();
        let broker = "127.0.0.1:1883".parse().unwrap();
        let configs = NODES.map(|id| {
            let layout = layout(id, Path::new("/d"), &settings, &routes, broker).unwrap();
            Config::parse(&layout.text, Path::new("/d/agent.toml"))
                .unwrap_or_else(|error| panic!("{error}\n{}", layout.text))
        });
        let services = configs.iter().map(|config| config.services.len());
        // One more than its own: the forwarder.
        assert_eq!(services.collect::<Vec<_>>(), [5, 4, 4]);
        let listens: Vec<SocketAddr> = configs
            .iter()
            .flat_map(|config| config.forwards.iter().map(|forward| forward.listen))
            .collect();
        let away = configs.iter().flat_map(|config| {
            let backends = config.forwards.iter().flat_map(|it| &it.backends);
            backends.filter(|backend| backend.service.is_none())
        });
        let away: Vec<SocketAddr> = away.map(|backend| backend.address).collect();
        assert_eq!(away.len(), 2);
        assert!(away.iter().all(|address| listens.contains(address)));
        assert_eq!(configs[1].clock.offset_ms, -3_600_000);
    }
}
