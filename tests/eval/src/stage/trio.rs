//! Three equal nodes and their coordinator, for plans across nodes.
//!
//! ```text
//!  edge-1, edge-2, edge-3, each:   web > web-1, web-2, (web-3)
//! ```
//!
//! `web >` is a route of the node's forwarder, `(web-3)` a standby.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_agent::io::forward;
use homeostat_agent::io::secret::signer;
use homeostat_common::wire::seal::hex;
use homeostat_coordinator::fleet::plans::FleetPlanView;
use homeostat_coordinator::io::secret;
use homeostat_testbed::{Kind, Port, ServiceSpec, ports};

use super::cloud::{BrokerKind, Cloud};
use super::eager;
use super::fleet::quoted;
use super::interrupt;
use super::node::{Layout, Node, Served};
use super::role::{FORWARD_ARG, program};

/// Their names.
pub const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
const SERVICES: [&str; 3] = ["web-1", "web-2", "web-3"];

/// A replica leaves its route, and what it did is done by a new one elsewhere and by its
/// peer on a third node.
pub const PLAN: &str = "edge-1: isolate(web, web-1, drain=200ms) ; \
                        (edge-2: scale-out(web, web-3) | edge-3: reroute(web, from=web-1, to=web-2, share=40%))";

/// Takes [`PLAN`] back.
pub const BACK: &str = "(edge-2: scale-in(web, web-3, drain=200ms) | edge-3: reroute(web, from=web-1, to=web-2, share=0%)) ; \
                        edge-1: release(web, web-1)";

/// How long coordinator and nodes take to find each other.
const MET_MAX: Duration = Duration::from_secs(30);

/// Keys and sections behind `[mqtt] broker`.
#[must_use]
pub fn sections() -> String {
    eager("100ms", "500ms")
}

/// Where a node stands with regard to its step of [`PLAN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// As before.
    Before,
    /// As the plan wants it.
    After,
    /// Neither.
    Between,
}

/// What runs.
#[derive(Debug)]
pub struct Trio {
    // Ended in this order: the nodes tell the broker that they leave.
    nodes: Vec<Node>,
    cloud: Cloud,
    token: String,
    // Nobody else may have them.
    _listen: Vec<Port>,
}

impl Trio {
    /// Starts all, and returns once the coordinator sees each node and each service answers.
    ///
    /// # Errors
    /// When something does not start, here and below when it does not answer.
    pub fn start(dir: &Path, kind: BrokerKind) -> Result<Self> {
        let cloud = Cloud::start(dir, kind)?;
        let key = cloud.api().orders_key()?;
        // Each may lead the others, too.
        let mut trusted = format!(
            "{}\n\n[orders.trusted]\n{} = \"{}\"",
            sections(),
            key.name,
            key.key
        );
        for id in NODES {
            let data = dir.join(id).join("data");
            fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
            let key = signer(&data).context("cannot make a key")?.key();
            let _ = write!(trusted, "\n{id} = \"{}\"", hex(&key));
        }
        let mut nodes = Vec::new();
        let listen = ports(NODES.len())?;
        for (id, port) in NODES.into_iter().zip(&listen) {
            let layout = layout(id, dir, &trusted, cloud.broker_address(), port.number())?;
            nodes.push(Node::prepare(layout, None)?);
        }
        for node in &mut nodes {
            node.start_spawner()?;
            node.start_agent()?;
        }
        for node in &mut nodes {
            node.wait_up()?;
        }
        let token = secret::read(&cloud.dir().join("data"), secret::OPERATOR_TOKEN)?;
        let trio = Self {
            token: hex(&token),
            nodes,
            cloud,
            _listen: listen,
        };
        trio.met()?;
        Ok(trio)
    }

    /// Waits until the coordinator sees all nodes, and each knows its routes.
    pub fn met(&self) -> Result<()> {
        let api = self.cloud.api();
        interrupt::until("all nodes to be online", MET_MAX, || {
            (api.fleet().ok()?.summary.online == 3).then_some(())
        })?;
        // An agent that has not heard of its forwarder refuses to change what that does.
        interrupt::until("the routes of all nodes", MET_MAX, || {
            let told = api.text("/api/v1/routes").ok()?;
            let known = told.matches("\"backend\":\"web-2\"").count() == NODES.len();
            let mut nodes = self.nodes.iter();
            (known && nodes.all(|node| weights(node).is_ok())).then_some(())
        })
    }

    #[must_use]
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    pub fn cloud_mut(&mut self) -> &mut Cloud {
        &mut self.cloud
    }

    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node_mut(&mut self, place: usize) -> Result<&mut Node> {
        self.nodes.get_mut(place).context("there are three nodes")
    }

    /// Asks for a plan.
    pub fn begin(&self, plan: &str) -> Result<u64> {
        self.cloud.api().begin(&self.token, plan)
    }

    /// Waits until a plan has ended.
    pub fn ended(&self, id: u64, limit: Duration) -> Result<FleetPlanView> {
        let api = self.cloud.api();
        interrupt::until("the plan to end", limit, || {
            api.plan(id).ok().filter(|plan| plan.ended_ms.is_some())
        })
    }

    /// Has a plan run to its end.
    pub fn run(&self, plan: &str, limit: Duration) -> Result<FleetPlanView> {
        self.ended(self.begin(plan)?, limit)
    }

    /// Where a node stands, by what its forwarder does and what answers.
    pub fn stand(&self, place: usize) -> Result<Stand> {
        let node = self.nodes.get(place).context("there are three nodes")?;
        let weights = weights(node)?;
        let runs = node.life("web-3").is_some();
        Ok(match (place, &weights[..], runs) {
            (_, [100, 100, 0], false) => Stand::Before,
            (0, [0, 100, 0], false) => Stand::After,
            (1, [100, 100, more], true) if *more > 0 => Stand::After,
            (2, [60, 140, 0], false) => Stand::After,
            _ => Stand::Between,
        })
    }

    /// All three.
    pub fn stands(&self) -> Result<Vec<Stand>> {
        (0..NODES.len()).map(|place| self.stand(place)).collect()
    }

    /// The most processes of one service that live at once.
    pub fn most_lives(&self) -> Result<usize> {
        let mut most = 0;
        for node in &self.nodes {
            for service in SERVICES {
                most = most.max(lives(&node.control(service)?));
            }
        }
        Ok(most)
    }

    /// Takes [`PLAN`] back where it stands, by hand on each node.
    pub fn reset(&self) -> Result<()> {
        let id = self.begin(BACK)?;
        let plan = self.ended(id, Duration::from_secs(60))?;
        ensure!(plan.phase == "done", "the plan back is {plan:?}");
        Ok(())
    }
}

/// Weights of the route, in the order of the services.
pub fn weights(node: &Node) -> Result<Vec<u16>> {
    let routes = forward::show::routes(&node.dir().join("run"))?;
    let route = routes.first().context("the node has a route")?;
    Ok(route.backends.iter().map(|it| it.weight).collect())
}

/// Processes that were started with this control socket.
fn lives(control: &Path) -> usize {
    let mark = control.as_os_str().as_encoded_bytes();
    let Ok(all) = fs::read_dir("/proc") else {
        return 0;
    };
    all.flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| line.split(|byte| *byte == 0).any(|word| word == mark))
        .count()
}

fn layout(
    id: &'static str,
    dir: &Path,
    sections: &str,
    broker: SocketAddrV4,
    listen: u16,
) -> Result<Layout> {
    let dir = dir.join(id);
    let own = quoted(program().context("cannot find the own program")?)?;
    let mut text = format!(
        "[node]\nid = \"{id}\"\ndata_dir = {}\nrun_dir = {}\n\n[mqtt]\nbroker = \
         \"mqtt://{broker}\"\n{sections}\n\n[forwarder]\ncommand = [{own}, \"{FORWARD_ARG}\", \
         \"--config\", {}]\n",
        quoted(dir.join("data"))?,
        quoted(dir.join("run"))?,
        quoted(dir.join("agent.toml"))?,
    );
    let mut served = Vec::new();
    for (name, port) in SERVICES.into_iter().zip(ports(SERVICES.len())?) {
        let spec = ServiceSpec {
            kind: Kind::Web,
            port: port.number(),
            control: Some(dir.join("run").join(format!("{name}.control"))),
            // They have to outlive the spawner.
            die_with_parent: false,
        };
        let mut command = vec![own.clone()];
        for arg in spec.args() {
            command.push(quoted(arg)?);
        }
        let standby = name == "web-3";
        let _ = writeln!(
            text,
            "\n[[service]]\nid = \"{name}\"\ncommand = [{}]\nports = [{}]\nstop_grace = \
             \"500ms\"\nstart_timeout = \"2s\"\n{}[[service.probe]]\nkind = \"http\"\n\
             period = \"100ms\"\ntimeout = \"80ms\"\nmisses = 3",
            command.join(", "),
            spec.port,
            if standby { "standby = true\n" } else { "" },
        );
        served.push(Served {
            name,
            spec,
            port,
            standby,
        });
    }
    let _ = writeln!(
        text,
        "\n[[forward]]\nid = \"web\"\nlisten = {}\n[forward.check]\nkind = \"tcp\"\n\
         period = \"100ms\"\ntimeout = \"100ms\"\nrises = 1",
        listen
    );
    for name in SERVICES {
        let weight = if name == "web-3" { "weight = 0\n" } else { "" };
        let _ = writeln!(text, "[[forward.backend]]\nservice = \"{name}\"\n{weight}");
    }
    Ok(Layout {
        id,
        dir,
        served,
        text,
        service_config: "",
    })
}
