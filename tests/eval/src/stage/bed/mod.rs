//! A topology of the simulator as real processes: nodes with agent, spawner and forwarder, a
//! process for each replica, proxies for the uplinks, somebody else's service, and a control
//! group for what each node's services may have.
//!
//! What it is made of is the topology itself; what is not in it is a constant here. A
//! processor of the topology is a [`PROCESSOR`]th of a real one. Agents only observe: what is
//! done is what the caller orders, through the same gate and transaction as ever.
//!
//! A route's forwarder runs on the node that the topology says, and everybody calls it there.
//! Links are played where a call leaves a site: before a backend of another site, with the
//! delays of both uplinks, and before the service outside.

pub mod cages;
mod errands;
mod orders;
mod parts;
mod watch;

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_sim::topology::{Replica, ReplicaNo, Topology};
use homeostat_testbed::proxy::{Link, Proxy};
use homeostat_testbed::{Kind, Port, ServiceSpec, UnitSpec, inject, ports};

pub use orders::Done;
pub use parts::configured;
pub use watch::{Counts, Look, Watch};

use self::cages::Cages;
use self::errands::Errands;
use super::node::Node;
use super::{interrupt, role};

/// Of so many processors of the topology one is real.
pub const PROCESSOR: f64 = 20.0;
/// Most processes of services: each is also some 10 MB and some threads.
const REPLICAS_MAX: usize = 40;
/// Most calls a second that a small machine makes besides what is measured; each costs it
/// some 2 ms.
const CALLS_MAX: f64 = 250.0;
/// Most memory of all services.
const MEMORY_MAX_MB: f64 = 4096.0;
/// What may be kept where a topology's disk is: the same bytes for each.
const QUOTA: u64 = 1 << 20;
/// How long a process of no node may take until it answers.
const READY_MAX: Duration = Duration::from_secs(10);

/// What runs.
#[derive(Debug)]
pub struct Bed {
    topology: Topology,
    // Ended in this order.
    errands: Errands,
    outside: Vec<(String, Loner)>,
    nodes: Vec<Node>,
    links: Vec<(String, Proxy)>,
    cages: Cages,
    addresses: BTreeMap<String, SocketAddrV4>,
    // Nobody else may have them.
    _ports: Ports,
    dir: PathBuf,
}

/// Ports by the names of replicas, routes and links.
type Ports = BTreeMap<String, Port>;

/// A unit that no agent cares for.
#[derive(Debug)]
struct Loner {
    child: Child,
    control: PathBuf,
}

impl Drop for Loner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that is fixed, as text to be hashed.
#[must_use]
pub fn settings() -> String {
    parts::settings()
}

impl Bed {
    /// Starts all of it in a folder, and returns once each service answers.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(topology: &Topology, dir: &Path, seed: u64) -> Result<Self> {
        let wanted: Vec<(f64, f64)> = topology
            .nodes()
            .iter()
            .map(|node| (node.cores / PROCESSOR, node.memory_mb - node.system_mb))
            .collect();
        let mut kept = reserve(topology)?;
        let address = |(name, port): (&String, &Port)| (name.clone(), port.address());
        let addresses = kept.iter().map(address).collect();
        let credentials = dir.to_owned();
        let mut bed = Self {
            topology: topology.clone(),
            errands: Errands::start(topology, dir, move |route| credential(&credentials, route))?,
            outside: Vec::new(),
            nodes: Vec::new(),
            links: Vec::new(),
            cages: Cages::new(&wanted, dir)?,
            addresses,
            _ports: Ports::new(),
            dir: dir.to_owned(),
        };
        bed.start_outside()?;
        bed.start_links(seed)?;
        for node in 0..bed.topology.nodes().len() {
            let layout = parts::layout(&bed, node, &mut kept)?;
            bed.nodes.push(Node::prepare(layout, None)?);
        }
        bed._ports = kept;
        for node in &mut bed.nodes {
            node.start_spawner()?;
            node.start_agent()?;
        }
        for node in &mut bed.nodes {
            node.wait_up()?;
        }
        bed.wait_routes()?;
        Ok(bed)
    }

    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Whether nodes have no more than they should of this machine.
    #[must_use]
    pub fn caged(&self) -> bool {
        self.cages.hold()
    }

    /// Where users go.
    ///
    /// # Errors
    /// When the topology has no entry.
    pub fn entry(&self) -> Result<SocketAddrV4> {
        let mut routes = self.topology.routes().iter();
        let entry = routes.find(|route| route.demand > 0.0);
        self.port(entry.context("the topology has an entry")?.name.as_str())
    }

    /// The socket of a replica that takes faults.
    ///
    /// # Errors
    /// When there is no such replica, here and below.
    pub fn control(&self, replica: &str) -> Result<PathBuf> {
        self.home(replica)?.control(replica)
    }

    /// The process of a replica, as it says.
    pub fn pid(&self, replica: &str) -> Result<u32> {
        let life = self.home(replica)?.life(replica);
        Ok(life
            .with_context(|| format!("{replica} does not answer"))?
            .pid)
    }

    /// The folder of its slot.
    pub fn slot(&self, replica: &str) -> Result<PathBuf> {
        Ok(self.home(replica)?.slot(replica))
    }

    /// The folder of the credential that the replicas of a route share.
    #[must_use]
    pub fn credential(&self, route: &str) -> PathBuf {
        credential(&self.dir, route)
    }

    /// All replicas of a route, but for standbys.
    #[must_use]
    pub fn replicas(&self, route: &str) -> Vec<&str> {
        let all = self.topology.replicas().iter();
        let of = all.filter(|it| self.route_of(it) == route && !it.standby);
        of.map(|replica| replica.name.as_str()).collect()
    }

    /// All replicas on a node, but for standbys.
    #[must_use]
    pub fn on_node(&self, node: &str) -> Vec<&str> {
        let all = self.topology.replicas().iter();
        let on = all.filter(|it| self.node_of(it) == node && !it.standby);
        on.map(|replica| replica.name.as_str()).collect()
    }

    /// Changes an uplink for all that goes over it: `change` gets what it was.
    ///
    /// # Errors
    /// When nothing goes over a link of that name.
    pub fn set_link(&self, name: &str, change: impl Fn(Link) -> Link) -> Result<()> {
        let mut found = false;
        for (_, proxy) in self.links.iter().filter(|(own, _)| own == name) {
            proxy.set(change(proxy.link()));
            found = true;
        }
        anyhow::ensure!(found, "nothing goes over {name}");
        Ok(())
    }

    /// Ends somebody else's service.
    pub fn end_outside(&mut self, route: &str) {
        self.outside.retain(|(name, _)| name != route);
    }

    /// Starts a stranger on a node that burns so many processors of the topology.
    ///
    /// # Errors
    /// When it does not start.
    pub fn hog(&mut self, node: &str, cores: f64) -> Result<()> {
        let mut nodes = self.topology.nodes().iter();
        let at = nodes.position(|it| it.name.as_str() == node);
        let at = at.with_context(|| format!("there is no node {node}"))?;
        let spec = UnitSpec {
            groups: self.cages.doors(at),
            ..UnitSpec::bare("stranger", 1.0)
        };
        let port = ports(1)?;
        let number = port.first().context("one was asked for")?.number();
        let stranger = self.loner("stranger", number, &spec)?;
        let permille = (1000.0 * cores / PROCESSOR).round();
        inject::order(&stranger.control, &format!("burn {permille}"))?;
        self.errands.came(node, stranger);
        Ok(())
    }

    fn start_outside(&mut self) -> Result<()> {
        let outside: Vec<(String, f64)> = self
            .topology
            .routes()
            .iter()
            .filter_map(|route| Some((route.name.to_string(), route.outside_ms?)))
            .collect();
        for (name, ms) in outside {
            let spec = UnitSpec::bare(&name, 1000.0 / ms.max(1.0));
            let started = self.loner(&name, self.port(&name)?.port(), &spec)?;
            self.outside.push((name, started));
        }
        Ok(())
    }

    /// A unit of no node; the kernel ends it with this thread.
    fn loner(&self, name: &str, port: u16, spec: &UnitSpec) -> Result<Loner> {
        let folder = self.dir.join("loners");
        let file = parts::write_spec(&folder, spec)?;
        let control = folder.join(format!("{name}.control"));
        let service = ServiceSpec {
            kind: Kind::Unit { spec: file },
            port,
            control: Some(control.clone()),
            die_with_parent: true,
        };
        let child = Command::new(role::program().context("cannot find the own program")?)
            .args(service.args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let loner = Loner { child, control };
        interrupt::until(name, READY_MAX, || loner.control.exists().then_some(()))?;
        Ok(loner)
    }

    /// The proxies: before each backend of another site than its route, and for each node from
    /// which somebody calls what is outside.
    fn start_links(&mut self, seed: u64) -> Result<()> {
        for (place, (name, port, behind, delay_ms)) in self.crossings()?.into_iter().enumerate() {
            let link = Link::after(Duration::from_secs_f64(delay_ms / 1000.0));
            let number = self.port(&port)?.port();
            let proxy = Proxy::start(number, behind, link, seed ^ place as u64)
                .with_context(|| format!("cannot start the proxy of {name}"))?;
            self.links.push((name, proxy));
        }
        Ok(())
    }

    /// Each as the link's name, its port's name, what is behind it, and its delay.
    fn crossings(&self) -> Result<Vec<(String, String, SocketAddr, f64)>> {
        let topology = &self.topology;
        let uplink = |node: usize| {
            let link = topology.nodes()[node].uplinks.first();
            let link = link.context("a node has an uplink")?;
            let link = &topology.links()[link.at()];
            Ok::<_, anyhow::Error>((link.name.clone(), link.delay_ms))
        };
        let mut all = Vec::new();
        for replica in topology.replicas() {
            let at = topology.routes()[replica.route.at()].at;
            let here = &topology.nodes()[replica.node.at()];
            if here.site != topology.nodes()[at.at()].site {
                let (name, there_ms) = uplink(replica.node.at())?;
                let (_, here_ms) = uplink(at.at())?;
                let behind = self.port(replica.name.as_str())?.into();
                all.push((name, far(replica), behind, here_ms + there_ms));
            }
        }
        for (route, node) in outside_calls(topology) {
            let (name, delay_ms) = uplink(node)?;
            let behind = self.port(&route)?.into();
            all.push((name, out(&route, node), behind, delay_ms));
        }
        Ok(all)
    }

    /// Waits until each agent has heard of its forwarder: it refuses to change what that does
    /// before.
    fn wait_routes(&self) -> Result<()> {
        for node in &self.nodes {
            let has = (self.topology.routes().iter()).any(|route| {
                let at = &self.topology.nodes()[route.at.at()];
                route.outside_ms.is_none() && at.name.as_str() == node.id()
            });
            if has {
                let run = node.dir().join("run");
                interrupt::until("the routes", READY_MAX, || {
                    homeostat_agent::io::forward::show::routes(&run).ok()
                })?;
            }
        }
        Ok(())
    }

    fn port(&self, name: &str) -> Result<SocketAddrV4> {
        let address = self.addresses.get(name);
        address
            .copied()
            .with_context(|| format!("no port for {name}"))
    }

    fn home(&self, replica: &str) -> Result<&Node> {
        let mut all = self.topology.replicas().iter();
        let known = all.find(|it| it.name.as_str() == replica);
        let known = known.with_context(|| format!("there is no replica {replica}"))?;
        self.node(self.node_of(known))
    }

    fn node(&self, id: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.id() == id);
        found.with_context(|| format!("there is no node {id}"))
    }

    fn node_of(&self, replica: &Replica) -> &str {
        self.topology.nodes()[replica.node.at()].name.as_str()
    }

    fn route_of(&self, replica: &Replica) -> &str {
        self.topology.routes()[replica.route.at()].name.as_str()
    }

    fn replica(&self, no: ReplicaNo) -> &Replica {
        &self.topology.replicas()[no.at()]
    }
}

/// Whether a topology can be a bed on a small machine.
///
/// # Errors
/// Why it cannot.
pub fn holds(topology: &Topology) -> Result<()> {
    let habits = topology.habits();
    ensure!(
        habits.in_turn,
        "the services of a bed call in turn, those of {} do not",
        topology.name()
    );
    let entries = topology.routes().iter().filter(|route| route.demand > 0.0);
    ensure!(entries.count() == 1, "users of a bed have one entry");
    let replicas = topology.replicas().len();
    ensure!(
        replicas <= REPLICAS_MAX,
        "{replicas} replicas are more than {REPLICAS_MAX}"
    );
    let memory = topology.replicas().iter();
    let memory_mb: f64 = memory
        .map(|replica| topology.routes()[replica.route.at()].memory_mb)
        .sum();
    ensure!(
        memory_mb <= MEMORY_MAX_MB,
        "its services hold {memory_mb:.0} MB, more than {MEMORY_MAX_MB} MB"
    );
    let calls = calls(topology);
    ensure!(
        calls <= CALLS_MAX,
        "{calls:.0} calls a second are more than {CALLS_MAX}"
    );
    Ok(())
}

/// Calls a second of all, when nothing is wrong and nothing is remembered.
fn calls(topology: &Topology) -> f64 {
    let mut arrive: Vec<f64> = topology.routes().iter().map(|route| route.demand).collect();
    // Callers come before those whom they call after as many rounds as there are routes.
    for _ in 0..arrive.len() {
        let mut next: Vec<f64> = topology.routes().iter().map(|route| route.demand).collect();
        for (route, came) in topology.routes().iter().zip(&arrive) {
            for call in &route.calls {
                next[call.to.at()] += came * call.share;
            }
        }
        arrive = next;
    }
    arrive.iter().sum()
}

/// Whether anything goes over an uplink: calls to a backend of another site than its route,
/// and to what is outside.
#[must_use]
pub fn crosses(topology: &Topology, link: &str) -> bool {
    let first = |node: usize| {
        let link = topology.nodes()[node].uplinks.first();
        link.map(|link| topology.links()[link.at()].name.as_str())
    };
    let far = topology.replicas().iter().filter(|replica| {
        let at = topology.routes()[replica.route.at()].at;
        topology.nodes()[replica.node.at()].site != topology.nodes()[at.at()].site
    });
    let outside = outside_calls(topology).into_iter().map(|(_, node)| node);
    far.map(|replica| replica.node.at())
        .chain(outside)
        .any(|node| first(node) == Some(link))
}

fn credential(dir: &Path, route: &str) -> PathBuf {
    dir.join("credentials").join(route)
}

/// The name of the port before a backend of another site.
fn far(replica: &Replica) -> String {
    format!("to {}", replica.name)
}

/// The name of the port at which a node calls what is outside.
fn out(route: &str, node: usize) -> String {
    format!("{route} from {node}")
}

/// What is outside, with each node from which it is called.
fn outside_calls(topology: &Topology) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    for replica in topology.replicas() {
        for call in &topology.routes()[replica.route.at()].calls {
            let to = &topology.routes()[call.to.at()];
            let one = (to.name.to_string(), replica.node.at());
            if to.outside_ms.is_some() && !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

fn reserve(topology: &Topology) -> Result<Ports> {
    let mut names: Vec<String> = Vec::new();
    names.extend(topology.replicas().iter().map(|it| it.name.to_string()));
    names.extend(topology.routes().iter().map(|it| it.name.to_string()));
    names.extend(topology.replicas().iter().map(far));
    names.extend(
        outside_calls(topology)
            .iter()
            .map(|(route, node)| out(route, *node)),
    );
    let kept = ports(names.len())?;
    Ok(names.into_iter().zip(kept).collect())
}
