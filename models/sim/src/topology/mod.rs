//! What a fleet is made of: nodes at sites, links between them, routes with replicas, who
//! calls whom.
//!
//! In goes a TOML text ([`Topology::read`]) or a seed and a size ([`Topology::generate`]);
//! out comes a topology that was checked: every name means something, calls have no
//! cycles, numbers are finite and within bounds. All things have a number, their place in
//! the text, and the state of the world is kept in the same order.
//!
//! What changes while a world runs is not here.

use homeostat_common::ids::{
    ConfigVersion, InterfaceId, ModelVersion, NodeId, RouteId, ServiceId, SiteId, WebhookId,
};
use homeostat_common::net::SourceNet;

mod generate;
mod names;
mod raw;
mod read;
mod shipped;

pub use generate::{GenerateError, SIZE_MIN, SizeError};
pub use names::Unknown;
pub use read::TEXT_MAX;

/// Nodes of one topology; an episode of more than this is a fleet of fleets.
pub const NODES_MAX: usize = 256;
/// Routes of one topology.
pub const ROUTES_MAX: usize = 256;
/// Replicas of one topology.
pub const REPLICAS_MAX: usize = 1024;
/// Replicas of one route; bounds the recursion of the queue.
pub const BACKENDS_MAX: usize = 64;
/// Uplinks of one node.
pub const UPLINKS_MAX: usize = 4;
/// Calls of one route.
pub const CALLS_MAX: usize = 16;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u16);

        impl $name {
            /// Its place, which bounds of this module keep below 2^16.
            #[allow(clippy::cast_possible_truncation)]
            pub(crate) fn new(at: usize) -> Self {
                debug_assert!(at <= usize::from(u16::MAX));
                Self(at as u16)
            }

            /// Its place in the topology and in the state.
            #[must_use]
            pub fn at(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

number! {
    /// The number of a site.
    SiteNo
}
number! {
    /// The number of a node.
    NodeNo
}
number! {
    /// The number of a route.
    RouteNo
}
number! {
    /// The number of a replica.
    ReplicaNo
}
number! {
    /// The number of a link: first the uplinks of all nodes, then the local network of
    /// each site.
    LinkNo
}

/// Nodes that share a local network.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its name.
    pub name: SiteId,
    /// Its local network.
    pub lan: LinkNo,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: NodeId,
    /// Where it stands.
    pub site: SiteNo,
    /// Processors.
    pub cores: f64,
    /// Memory in MB.
    pub memory_mb: f64,
    /// What the system itself holds of it, in MB.
    pub system_mb: f64,
    /// Disk in MB.
    pub disk_mb: f64,
    /// What the system itself holds of it, in MB.
    pub disk_used_mb: f64,
    /// Files that the disk can hold.
    pub inodes: f64,
    /// Degrees Celsius around it.
    pub ambient_c: f64,
    /// Kelvin per watt from processor to air, with the fan running.
    pub rth: f64,
    /// The same with the fan standing still.
    pub rth_dead: f64,
    /// Watt-hours of its battery; `None` on mains.
    pub battery_wh: Option<f64>,
    /// First and last of its uplinks; the first is the usual one.
    pub uplinks: Vec<LinkNo>,
    /// Replicas on it.
    pub replicas: Vec<ReplicaNo>,
}

/// Whose a link is.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkOf {
    /// An uplink of a node.
    Uplink(NodeNo, InterfaceId),
    /// The local network of a site.
    Lan(SiteNo),
}

/// A link.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// `edge-1/eth0` or `plant/lan`.
    pub name: String,
    /// Whose.
    pub of: LinkOf,
    /// One way, in milliseconds.
    pub delay_ms: f64,
    /// Share of packets lost.
    pub loss: f64,
}

/// What a service offers to have done to it; see `common::primitive::Grant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offer {
    /// Old data may be deleted.
    Prune,
    /// It names lock files.
    Locks,
    /// It names state that can be copied.
    Snapshot,
    /// It can forget its cache.
    FlushCache,
    /// It can open its connections anew.
    ResetPool,
    /// It can do less.
    Degrade,
    /// The file system of its data may be mounted anew.
    Remount,
}

/// A call of one route by another.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Who is called.
    pub to: RouteNo,
    /// Calls per request.
    pub share: f64,
    /// Only what this cache does not have is asked for.
    pub behind: Option<RouteNo>,
    /// The caller waits for the answer and needs it.
    pub needed: bool,
}

/// A logical service: what callers reach, with its backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: RouteId,
    /// The node on which its steps are carried out.
    pub at: NodeNo,
    /// Requests per second from outside; 0 for all but entries.
    pub demand: f64,
    /// Requests per second that one replica can do.
    pub rate: f64,
    /// Cores that one replica keeps busy at that rate.
    pub cores: f64,
    /// Memory of one replica in MB.
    pub memory_mb: f64,
    /// Median time that a replica needs to come up, in seconds.
    pub start_s: f64,
    /// Kilobytes of one request with its answer.
    pub kb: f64,
    /// Whether its answers come from a model.
    pub model: bool,
    /// Whether it keeps state that a new replica must have.
    pub stateful: bool,
    /// Whether it must be able to write to its disk.
    pub writes: bool,
    /// Share of what it is asked that it has, when warm; 0 for all but caches.
    pub hit: f64,
    /// Somebody else's: no replicas, never saturated, this many milliseconds away.
    pub outside_ms: Option<f64>,
    /// What it offers.
    pub offers: Vec<Offer>,
    /// Whom it calls.
    pub calls: Vec<Call>,
    /// Its backends.
    pub replicas: Vec<ReplicaNo>,
}

/// A replica: a service on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    /// Its name, unique in the topology.
    pub name: ServiceId,
    /// Where it runs.
    pub node: NodeNo,
    /// Whose backend it is.
    pub route: RouteNo,
    /// Started as it is needed.
    pub standby: bool,
    /// Its share by configuration.
    pub weight: f64,
    /// Data that it keeps on the disk, in MB.
    pub data_mb: f64,
    /// What it may keep, in MB.
    pub quota_mb: f64,
}

/// What the operator can be asked to do, that a node cannot do by itself. The service of
/// the call says about what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errand {
    /// The service's node starts anew; more than half of the others must be up.
    Reboot,
    /// The route's credential is replaced.
    RotateCredential,
    /// Another replica of the route leads; one must be there.
    FailoverBroker,
    /// The route's model is trained again, on the input that there is.
    Retrain,
    /// The route's program of before.
    RollbackBinary,
    /// Nothing new is rolled out.
    PauseRollout,
    /// What burns the node's processors and is no service is ended.
    KillStranger,
    /// The training job goes on from its last checkpoint.
    RestoreCheckpoint,
}

impl Errand {
    /// Every errand.
    pub const ALL: [Self; 8] = [
        Self::Reboot,
        Self::RotateCredential,
        Self::FailoverBroker,
        Self::Retrain,
        Self::RollbackBinary,
        Self::PauseRollout,
        Self::KillStranger,
        Self::RestoreCheckpoint,
    ];

    /// Its name, as it is written in a topology.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::RotateCredential => "rotate-credential",
            Self::FailoverBroker => "failover-broker",
            Self::Retrain => "retrain",
            Self::RollbackBinary => "rollback-binary",
            Self::PauseRollout => "pause-rollout",
            Self::KillStranger => "kill-stranger",
            Self::RestoreCheckpoint => "restore-checkpoint",
        }
    }
}

/// A webhook of the operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Its name.
    pub name: WebhookId,
    /// What happens.
    pub does: Errand,
    /// How long it takes.
    pub seconds: f64,
}

/// Retries of one request that can be told apart.
pub const RETRIES_MAX: usize = 4;

/// How those behave who are not in the topology: users, and whoever carries out plans.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Habits {
    /// Retries of a request that always fails, up to [`RETRIES_MAX`].
    pub retries: f64,
    /// How long they follow errors after, in seconds.
    pub retry_s: f64,
    /// Users give up what takes longer, in milliseconds.
    pub patience_ms: f64,
    /// So do services that call others.
    pub timeout_ms: f64,
    /// How long deeds of plans take, as a factor on the usual. Starts have times of their own.
    pub deeds: f64,
    /// How long a cache takes to become warm, in seconds: by how many different things are
    /// asked for again and again.
    pub warm_s: f64,
    /// Share of the calls that carry a signature, which is of the moment: a clock that is off has
    /// them refused.
    pub signed: f64,
    /// How much slower a node becomes as its memory fills up, for each of it that is full
    /// beyond 0.88 of it; 0 where nothing is swapped out.
    pub thrash: f64,
    /// How far demand swings around its mean within a day, as a share of it; most of it comes
    /// six hours after the start.
    pub daily: f64,
    /// Services make one call after the other, and none behind one that failed; without it
    /// all of them, whatever comes back.
    pub in_turn: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            retries: 3.0,
            retry_s: 4.0,
            patience_ms: 1500.0,
            timeout_ms: 1500.0,
            deeds: 1.0,
            warm_s: 40.0,
            signed: 0.6,
            thrash: 12.0,
            daily: 0.0,
            in_turn: false,
        }
    }
}

/// A distributed training job.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Nodes with a worker; all must be up and connected for a step.
    pub workers: Vec<NodeNo>,
    /// Cores that each worker takes.
    pub cores: f64,
    /// Memory that each takes, in MB.
    pub memory_mb: f64,
    /// Seconds of progress between checkpoints.
    pub checkpoint_s: f64,
}

/// A fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    pub(crate) name: String,
    /// What it was read from.
    pub(crate) text: String,
    pub(crate) sites: Vec<Site>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
    pub(crate) routes: Vec<Route>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) training: Option<Training>,
    pub(crate) habits: Habits,
    /// From where requests come that nobody wants.
    pub(crate) strangers: SourceNet,
    /// Routes so that callers come before those they call.
    pub(crate) order: Vec<RouteNo>,
}

/// One of the versions of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The one before the last that worked.
    Older,
    /// The last that worked; in place at the start.
    Good,
    /// A candidate that waits.
    Staged,
}

impl Version {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::Older, Self::Good, Self::Staged];
}

impl Topology {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text that it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Sites, by number.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Nodes, by number.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Links, by number.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Routes, by number.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Replicas, by number.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// What the operator can be asked for.
    #[must_use]
    pub fn webhooks(&self) -> &[Webhook] {
        &self.webhooks
    }

    /// How users behave, and how long deeds take.
    #[must_use]
    pub fn habits(&self) -> &Habits {
        &self.habits
    }

    /// The training job, if there is one.
    #[must_use]
    pub fn training(&self) -> Option<&Training> {
        self.training.as_ref()
    }

    /// From where requests come that nobody wants.
    #[must_use]
    pub fn strangers(&self) -> SourceNet {
        self.strangers
    }

    /// The name of a version of a replica's model, for plans.
    #[must_use]
    pub fn model(&self, replica: ReplicaNo, version: Version) -> ModelVersion {
        ModelVersion(self.version(replica, 0, version))
    }

    /// The name of a version of its configuration.
    #[must_use]
    pub fn config(&self, replica: ReplicaNo, version: Version) -> ConfigVersion {
        ConfigVersion(self.version(replica, 1, version))
    }
}
