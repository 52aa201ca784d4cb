//! The state of all things, by number, in the order of the topology.
//!
//! Crate-private to the last field: a policy cannot name what it must not see. What may be
//! looked at is marked *measured*; [`crate::observe`] makes of it what a healer sees.
//! Faults lay burdens on things ([`crate::fault`]); what grows under a burden (a leak, a
//! full disk, a clock) is integrated into the fields here by the tick.

use crate::fault::burden::{LinkBurden, NodeBurden, ReplicaBurden, RouteBurden};
use crate::queue::Time;
use crate::topology::{
    LinkNo, Node, NodeNo, Offer, RETRIES_MAX, Replica, ReplicaNo, Route, RouteNo, Topology, Version,
};

/// What a replica's process does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// It answers.
    Running,
    /// It will, in so many seconds of an idle node.
    Starting {
        /// Seconds.
        left: f64,
    },
    /// There is none, and there should be.
    Dead,
    /// It holds its port and answers nothing.
    Hung,
    /// It was stopped without being ended; holds its port too.
    Frozen,
    /// There is none, and none is wanted.
    Standby,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting { .. } => "starting",
            Self::Dead => "dead",
            Self::Hung => "hung",
            Self::Frozen => "frozen",
            Self::Standby => "standby",
        }
    }
}

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Power {
    /// It does.
    On,
    /// It will, in so many seconds.
    Booting {
        /// Seconds.
        left: f64,
    },
    /// Its battery is empty.
    Empty,
}

/// Where the requests of one route went, ever. `arrived` is the sum of all the others and
/// of what waits: the tick keeps it so to 1e-9.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flow {
    /// Asked for, retries included.
    pub arrived: f64,
    /// Answered, rightly or wrongly, and passed on.
    pub passed: f64,
    /// Answered with an error of its own.
    pub failed: f64,
    /// Refused by a limit or a full queue.
    pub refused: f64,
    /// Lost with a process, or never answered.
    pub lost: f64,
}

/// A replica.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaState {
    /// What faults lay on it.
    pub(crate) burden: ReplicaBurden,
    /// *Measured.*
    pub(crate) phase: Phase,
    /// *Measured.* Share that its route gives it; 0 when isolated.
    pub(crate) weight: f64,
    /// *Measured.* Share of the node's processors that it may use.
    pub(crate) cpu_limit: f64,
    /// *Measured.* It does less.
    pub(crate) degraded: bool,
    /// Packets to it are dropped for strangers.
    pub(crate) port_blocked: bool,
    /// Memory beyond the usual, in MB, of this life.
    pub(crate) leaked_mb: f64,
    /// *Measured.* Descriptors.
    pub(crate) fds: f64,
    /// *Measured.* Threads.
    pub(crate) threads: f64,
    /// *Measured.* Data on the disk, in MB.
    pub(crate) data_mb: f64,
    /// How warm its cache is, 0 to 1.
    pub(crate) warm: f64,
    /// What stands in its model's slot; whether it is bad says its burden.
    pub(crate) model: Version,
    /// What stands in its configuration's slot.
    pub(crate) config: Version,
    /// When its state was last copied, in seconds.
    pub(crate) copied: Option<f64>,
    /// *Measured.* Starts, deaths, and deaths for lack of memory, ever.
    pub(crate) starts: u32,
    pub(crate) deaths: u32,
    pub(crate) oom_kills: u32,

    /// *Measured.* Requests that wait.
    pub(crate) queue: f64,
    /// *Measured.* Requests per second that came.
    pub(crate) arrival: f64,
    /// *Measured.* Requests per second that it answered.
    pub(crate) served: f64,
    /// Requests per second that it could do.
    pub(crate) mu: f64,
    /// *Measured.* Share of its time that it works, 0 to 1.
    pub(crate) util: f64,
    /// *Measured.* Time to its own answer, in seconds, without those it calls.
    pub(crate) own: Time,

    /// What follows from phases, weights, burdens and paths.
    pub(crate) fixed: ReplicaFixed,
}

/// What stays the same between two changes of phases, weights, burdens and paths; computed
/// by `refresh`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplicaFixed {
    /// Share of the route's requests.
    pub(crate) share: f64,
    /// Requests per second when alone on a cool node.
    pub(crate) nominal: f64,
    /// Cores that it keeps busy at that rate.
    pub(crate) cores: f64,
    /// Share of its answers that are errors.
    pub(crate) err: f64,
    /// Quality of its answers.
    pub(crate) quality: f64,
    /// It leaks something.
    pub(crate) leaks: bool,
}

/// A call of a route, by its place among all calls; computed by `refresh`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) to: RouteNo,
    pub(crate) behind: Option<RouteNo>,
    /// Without a right answer the caller has none either.
    pub(crate) needed: bool,
    /// The caller waits for the answer.
    pub(crate) waited: bool,
    /// Calls per request.
    pub(crate) share: f64,
    /// There and back, in milliseconds, and the variance of that in ms^2.
    pub(crate) delay_ms: f64,
    pub(crate) variance: f64,
    /// Share that what is sent again on the way has too late.
    pub(crate) err: f64,
    /// Calls per second that the links let through.
    pub(crate) cap: f64,
    /// Share that they did not let through, in this tick.
    pub(crate) cut: f64,
}

/// A route.
#[derive(Debug, Clone)]
pub(crate) struct RouteState {
    /// What faults lay on it.
    pub(crate) burden: RouteBurden,
    /// Requests per second that it admits.
    pub(crate) limit: f64,
    /// Requests of strangers are refused.
    pub(crate) blocked: bool,
    /// Requests that are there for the second time, the third and so on, each as a share of
    /// those that were there first.
    pub(crate) again: [f64; RETRIES_MAX],
    /// Their sum.
    pub(crate) retries: f64,
    /// Quality lost because the world moved on.
    pub(crate) drifted: f64,
    /// Where its requests went.
    pub(crate) flow: Flow,

    /// *Measured.* Requests per second that came.
    pub(crate) arrival: f64,
    /// *Measured.* Requests per second that were passed on.
    pub(crate) passed: f64,
    /// *Measured.* Share refused by its limit.
    pub(crate) shed: f64,
    /// *Measured.* Requests that wait.
    pub(crate) queue: f64,
    /// Share of what it was asked that failed here: errors, refusals, losses.
    pub(crate) own_err: f64,
    /// Share of its own answers that nobody waits for any longer.
    pub(crate) late: f64,
    /// *Measured.* The same with those it calls: what its callers meet.
    pub(crate) err: f64,
    /// *Measured.* Mean time to its answer with those it calls, in milliseconds.
    pub(crate) latency_ms: f64,
    /// Variance of that, in ms^2.
    pub(crate) variance: f64,
    /// *Measured* for entries. 95th percentile of it.
    pub(crate) p95_ms: f64,
    /// Of its answers: of its model's, or of what it keeps. Never measured.
    pub(crate) quality: f64,
    /// Share of what it is asked that it has, if it is a cache.
    pub(crate) hit: f64,
    /// *Measured.* Time to its own answer, in seconds.
    pub(crate) own: Time,
    /// What follows from phases, weights, burdens and paths.
    pub(crate) fixed: RouteFixed,
}

/// As [`ReplicaFixed`], of a route.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RouteFixed {
    /// Backends that run and get requests.
    pub(crate) running: u32,
    /// Share of the requests that go to them.
    pub(crate) running_share: f64,
    /// Nobody holds a port.
    pub(crate) nobody: bool,
    /// Quality of the answers without drift.
    pub(crate) quality: f64,
    /// Share of what it is asked that is corrupt, by its own input or by its callers'.
    pub(crate) corrupt: f64,
    /// Place of its first call among all calls.
    pub(crate) first_edge: usize,
    /// One behind the last.
    pub(crate) end_edge: usize,
    /// Place of its first replica; they follow one another.
    pub(crate) first: usize,
    /// One behind the last.
    pub(crate) end: usize,
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct NodeState {
    /// What faults lay on it.
    pub(crate) burden: NodeBurden,
    /// *Measured* by others.
    pub(crate) power: Power,
    /// *Measured.* Degrees Celsius.
    pub(crate) temp: f64,
    /// Share of the full clock: 1, 0.6 or 0.4 by heat, times that of a weak supply.
    pub(crate) freq: f64,
    /// Cores asked for by the work of this tick so far.
    pub(crate) demand: f64,
    /// *Measured.* Cores asked for in the last tick; more than there are when overloaded.
    pub(crate) load: f64,
    /// *Measured.* Share of its cores that was busy.
    pub(crate) util: f64,
    /// *Measured.* Memory in use, in MB; can be more than there is for a moment.
    pub(crate) memory_mb: f64,
    /// Factor on all rates from clock, contention and thrashing.
    pub(crate) pace: f64,
    /// *Measured.* Disk in use, in MB.
    pub(crate) disk_mb: f64,
    /// What of it is nobody's data.
    pub(crate) litter_mb: f64,
    /// *Measured.* Files.
    pub(crate) inodes: f64,
    /// MB ever written to its flash.
    pub(crate) wear_mb: f64,
    /// Nothing can be written: full, out of inodes or read-only.
    pub(crate) stuck_disk: bool,
    /// Watt-hours left, if it has a battery.
    pub(crate) battery_wh: f64,
    /// Seconds that its clock is ahead.
    pub(crate) clock_s: f64,
    /// *Measured.* Where what leaves it goes.
    pub(crate) uplink: LinkNo,
    /// Cores asked for besides the work; computed by `refresh`.
    pub(crate) base_demand: f64,
    /// Data of its services, in MB; computed by `refresh`.
    pub(crate) data_mb: f64,
}

/// A link.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkState {
    /// What faults lay on it.
    pub(crate) burden: LinkBurden,
}

/// The training job.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TrainingState {
    /// Seconds of work done.
    pub(crate) done_s: f64,
    /// Of these in the last checkpoint.
    pub(crate) saved_s: f64,
    /// Seconds of work that were lost, ever.
    pub(crate) lost_s: f64,
    /// A worker vanished: somebody has to restore the checkpoint.
    pub(crate) broken: bool,
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Seconds since the start.
    pub(crate) now: f64,
    /// Ticks since the start.
    pub(crate) tick: u64,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) replicas: Vec<ReplicaState>,
    pub(crate) routes: Vec<RouteState>,
    pub(crate) links: Vec<LinkState>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) training: TrainingState,
    /// Nothing new is rolled out.
    pub(crate) rollout_paused: bool,
    /// Slow, common noise of the demand.
    pub(crate) noise: f64,
    /// Something changed on which shares, paths or nominal rates depend. Whoever changes a
    /// phase, a weight or a burden sets it; the next tick computes them anew.
    pub(crate) stale: bool,
}

impl State {
    /// All is well, and nothing has happened yet.
    pub(crate) fn new(topology: &Topology) -> Self {
        let mut edges = Vec::new();
        let routes = topology.routes.iter().map(|route| {
            let first_edge = edges.len();
            edges.extend(route.calls.iter().map(|call| Edge {
                to: call.to,
                behind: call.behind,
                needed: call.needed,
                waited: call.needed || topology.routes[call.to.at()].hit > 0.0,
                share: call.share,
                delay_ms: 0.0,
                variance: 0.0,
                err: 0.0,
                cap: f64::INFINITY,
                cut: 0.0,
            }));
            let first = route.replicas.first().map_or(0, |replica| replica.at());
            RouteState::new(RouteFixed {
                first_edge,
                end_edge: edges.len(),
                first,
                end: first + route.replicas.len(),
                ..RouteFixed::default()
            })
        });
        Self {
            now: 0.0,
            tick: 0,
            routes: routes.collect(),
            nodes: topology.nodes.iter().map(NodeState::new).collect(),
            replicas: (topology.replicas.iter())
                .map(|replica| ReplicaState::new(replica, &topology.routes[replica.route.at()]))
                .collect(),
            links: vec![LinkState::default(); topology.links.len()],
            edges,
            training: TrainingState::default(),
            rollout_paused: false,
            noise: 0.0,
            stale: true,
        }
    }

    /// Whether a node runs and nothing keeps it from running.
    pub(crate) fn up(&self, node: NodeNo) -> bool {
        self.nodes[node.at()].up()
    }

    /// Ends a process. What waited in it is lost.
    pub(crate) fn kill(&mut self, topology: &Topology, replica: ReplicaNo) {
        let state = &mut self.replicas[replica.at()];
        if state.lives() {
            state.deaths += 1;
            state.phase = Phase::Dead;
            self.drop_process(topology, replica);
        }
    }

    /// Has a process block; one that does not run yet cannot.
    pub(crate) fn hang(&mut self, replica: ReplicaNo) {
        let state = &mut self.replicas[replica.at()];
        if matches!(state.phase, Phase::Running) {
            state.phase = Phase::Hung;
            self.stale = true;
        }
    }

    /// A node starts anew, after so many seconds; then all that ran or was dead is started.
    pub(crate) fn reboot(&mut self, topology: &Topology, node: NodeNo, seconds: f64) {
        for replica in &topology.nodes[node.at()].replicas {
            self.kill(topology, *replica);
        }
        self.nodes[node.at()].power = Power::Booting { left: seconds };
        self.stale = true;
    }

    /// Forgets what belonged to a process.
    pub(crate) fn drop_process(&mut self, topology: &Topology, replica: ReplicaNo) {
        let state = &mut self.replicas[replica.at()];
        let route = topology.replicas[replica.at()].route;
        self.routes[route.at()].flow.lost += state.queue;
        state.queue = 0.0;
        state.leaked_mb = 0.0;
        state.fds = FDS;
        state.threads = THREADS;
        state.warm = 0.0;
        state.cpu_limit = 1.0;
        state.degraded = false;
        self.stale = true;
    }
}

/// When the copies of the night were made, in seconds.
const NIGHT_S: f64 = -36_000.0;
/// Descriptors of a fresh process.
pub(crate) const FDS: f64 = 40.0;
/// Descriptors that a process may have.
pub(crate) const FDS_MAX: f64 = 1024.0;
/// Threads of a fresh process.
pub(crate) const THREADS: f64 = 8.0;
/// Threads that a process may have.
pub(crate) const THREADS_MAX: f64 = 512.0;
/// Files on a fresh node.
pub(crate) const INODES: f64 = 200_000.0;

impl Flow {
    pub(crate) fn add(&mut self, more: &Self) {
        self.arrived += more.arrived;
        self.passed += more.passed;
        self.failed += more.failed;
        self.refused += more.refused;
        self.lost += more.lost;
    }
}

impl ReplicaState {
    /// Whether it has used up what a process may have of something.
    pub(crate) fn exhausted(&self) -> bool {
        self.fds >= FDS_MAX || self.threads >= THREADS_MAX
    }

    /// Whether there is a process.
    pub(crate) fn lives(&self) -> bool {
        match self.phase {
            Phase::Running | Phase::Starting { .. } | Phase::Hung | Phase::Frozen => true,
            Phase::Dead | Phase::Standby => false,
        }
    }

    fn new(replica: &Replica, route: &Route) -> Self {
        Self {
            burden: ReplicaBurden::NONE,
            phase: if replica.standby {
                Phase::Standby
            } else {
                Phase::Running
            },
            weight: if replica.standby { 0.0 } else { replica.weight },
            cpu_limit: 1.0,
            degraded: false,
            port_blocked: false,
            leaked_mb: 0.0,
            fds: FDS,
            threads: THREADS,
            data_mb: replica.data_mb,
            warm: 1.0,
            model: Version::Good,
            config: Version::Good,
            copied: route.offers.contains(&Offer::Snapshot).then_some(NIGHT_S),
            starts: u32::from(!replica.standby),
            deaths: 0,
            oom_kills: 0,
            queue: 0.0,
            arrival: 0.0,
            served: 0.0,
            mu: 0.0,
            util: 0.0,
            own: Time::default(),
            fixed: ReplicaFixed::default(),
        }
    }
}

impl RouteState {
    fn new(fixed: RouteFixed) -> Self {
        Self {
            burden: RouteBurden::NONE,
            limit: f64::INFINITY,
            blocked: false,
            again: [0.0; RETRIES_MAX],
            retries: 0.0,
            drifted: 0.0,
            flow: Flow::default(),
            arrival: 0.0,
            passed: 0.0,
            shed: 0.0,
            queue: 0.0,
            own_err: 0.0,
            late: 0.0,
            err: 0.0,
            latency_ms: 0.0,
            variance: 0.0,
            p95_ms: 0.0,
            quality: 1.0,
            hit: 0.0,
            own: Time::default(),
            fixed,
        }
    }
}

impl NodeState {
    /// Whether it runs and nothing keeps it from running.
    #[inline]
    pub(crate) fn up(&self) -> bool {
        matches!(self.power, Power::On) && !self.burden.off
    }

    fn new(node: &Node) -> Self {
        Self {
            burden: NodeBurden::NONE,
            power: Power::On,
            temp: node.ambient_c + node.rth * IDLE_W,
            freq: 1.0,
            demand: 0.0,
            load: 0.0,
            util: 0.0,
            memory_mb: 0.0,
            pace: 1.0,
            disk_mb: 0.0,
            litter_mb: 0.0,
            inodes: INODES,
            wear_mb: 0.0,
            stuck_disk: false,
            battery_wh: node.battery_wh.unwrap_or(0.0),
            clock_s: 0.0,
            uplink: node.uplinks[0],
            base_demand: 0.0,
            data_mb: 0.0,
        }
    }
}

/// What a node draws at rest, in watts.
pub(crate) const IDLE_W: f64 = 3.0;

impl State {
    /// See [`super::World::digest`].
    pub(crate) fn digest(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |numbers: &[f64]| {
            for byte in numbers
                .iter()
                .flat_map(|number| number.to_bits().to_le_bytes())
            {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(&[self.now, self.noise]);
        for node in &self.nodes {
            add(&[
                node.temp,
                node.pace,
                node.memory_mb,
                node.disk_mb,
                node.clock_s,
                node.wear_mb,
            ]);
        }
        for replica in &self.replicas {
            let phase = match replica.phase {
                Phase::Running => -1.0,
                Phase::Dead => -2.0,
                Phase::Hung => -3.0,
                Phase::Frozen => -4.0,
                Phase::Standby => -5.0,
                Phase::Starting { left } => left,
            };
            add(&[
                phase,
                replica.weight,
                replica.queue,
                replica.own.mean,
                replica.leaked_mb,
            ]);
        }
        for route in &self.routes {
            let flow = &route.flow;
            add(&[
                route.err,
                route.latency_ms,
                route.p95_ms,
                route.quality,
                route.retries,
            ]);
            add(&[
                flow.arrived,
                flow.passed,
                flow.failed,
                flow.refused,
                flow.lost,
            ]);
        }
        hash
    }
}
