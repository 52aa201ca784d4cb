//! The world: a topology, its state, the faults at work and the plans under way.
//!
//! [`World::order`] takes plans as a node or the initiator of a plan across nodes would,
//! [`World::tick`] moves everything on by one step of time, `clone` forks it: what follows
//! in both meets the same chance. What users meet is told by [`World::level`]; the state
//! itself is no policy's to see.
//!
//! ```
//! use homeostat_sim::fault::Incident;
//! use homeostat_sim::topology::Topology;
//! use homeostat_sim::world::{Order, Progress, World};
//!
//! let topology = Topology::reference();
//! let mut world = World::new(&topology, &Incident::none(), 7).unwrap();
//! let plan = "restart(infer-1, grace=1s)".parse().unwrap();
//! let no = world.order(&Order::Node("edge-1".parse().unwrap(), plan)).unwrap();
//! while world.progress(no) == Some(Progress::Underway) {
//!     world.tick();
//! }
//! assert!(world.level().err < 0.02);
//! ```

mod act;
mod happened;
mod level;
pub(crate) mod mark;
mod refresh;
pub(crate) mod state;
mod tick;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::act::{
    Failure, Impossible, ORDERS_KEPT, ORDERS_MAX, Order, OrderError, OrderNo, Progress, Spent,
};
pub use self::happened::Happened;
pub use self::level::{Level, Target};
pub use self::state::{Flow, Phase, Power};

use self::act::Acts;
use self::state::State;
use self::tick::{Due, Step};
use crate::chance::{Chance, Stream};
use crate::fault::{Engine, Incident};
use crate::text::TextError;
use crate::topology::{NodeNo, ReplicaNo, RouteNo, Topology};

/// What may differ between runs besides topology, incident and seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Length of a step of time, in seconds.
    pub dt: f64,
    /// Share of the uses of primitives that change something which fail without a word.
    pub silent: f64,
}

impl Default for Settings {
    /// A second, and 3 of 100.
    fn default() -> Self {
        Self {
            dt: 1.0,
            silent: 0.03,
        }
    }
}

/// A fleet at one moment.
#[derive(Debug, Clone)]
pub struct World {
    topology: Arc<Topology>,
    pub(crate) state: State,
    pub(crate) engine: Engine,
    acts: Acts,
    settings: Settings,
    step: Step,
    demand: Chance,
    starts: Chance,
}

impl World {
    /// A fleet that is well, with an incident before it.
    ///
    /// # Errors
    /// [`TextError`] when the incident does not fit the topology.
    pub fn new(topology: &Topology, incident: &Incident, seed: u64) -> Result<Self, TextError> {
        Self::with(
            &Arc::new(topology.clone()),
            incident,
            seed,
            Settings::default(),
        )
    }

    /// The same with other settings; the topology is shared.
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn with(
        topology: &Arc<Topology>,
        incident: &Incident,
        seed: u64,
        settings: Settings,
    ) -> Result<Self, TextError> {
        /// Longer steps would skip what happens in them, shorter ones would never end.
        const DT: core::ops::RangeInclusive<f64> = 0.001..=10.0;
        let settings = Settings {
            dt: settings.dt.clamp(*DT.start(), *DT.end()),
            ..settings
        };
        let engine = Engine::new(topology, incident, seed)?;
        Ok(Self {
            state: State::new(topology),
            topology: Arc::clone(topology),
            engine,
            acts: Acts::new(seed),
            settings,
            step: Step::new(settings.dt, topology.habits()),
            demand: Chance::new(seed, Stream::Demand),
            starts: Chance::new(seed, Stream::Start),
        })
    }

    /// The same world before another incident of a seed, which begins at `onset`; for a
    /// world in which nothing has gone wrong yet.
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn before(&self, incident: &Incident, seed: u64, onset: f64) -> Result<Self, TextError> {
        Ok(Self {
            engine: Engine::at(&self.topology, incident, seed, onset)?,
            ..self.clone()
        })
    }

    /// The fleet's topology.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Seconds since the start.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.state.now
    }

    /// What runs differ in.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Has a plan begin with the next tick.
    ///
    /// # Errors
    /// [`OrderError`] when it cannot be carried out at all, or not now.
    pub fn order(&mut self, order: &Order) -> Result<OrderNo, OrderError> {
        self.acts.order(&self.topology, order)
    }

    /// How far an order has come; `None` when it was never taken, or is forgotten.
    #[must_use]
    pub fn progress(&self, no: OrderNo) -> Option<Progress> {
        self.acts.progress(no)
    }

    /// Nothing that was ordered is under way, and no errand of the operator is.
    pub(crate) fn idle(&self) -> bool {
        self.acts.idle()
    }

    /// What healing has cost so far.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.acts.spent()
    }

    /// Where the requests of a route went.
    #[must_use]
    pub fn flow(&self, route: RouteNo) -> Flow {
        self.state.routes[route.at()].flow
    }

    /// Share of a route's answers that no caller waits for any longer.
    #[must_use]
    pub fn late(&self, route: RouteNo) -> f64 {
        self.state.routes[route.at()].late
    }

    /// Requests that wait with the replicas of a route.
    #[must_use]
    pub fn waiting(&self, route: RouteNo) -> f64 {
        let replicas = &self.topology.routes[route.at()].replicas;
        replicas
            .iter()
            .map(|no| self.state.replicas[no.at()].queue)
            .sum()
    }

    /// What a replica's process does.
    #[must_use]
    pub fn phase(&self, replica: ReplicaNo) -> Phase {
        self.state.replicas[replica.at()].phase
    }

    /// What the process of each replica does, in the order of the topology.
    pub fn phases(&self) -> impl Iterator<Item = Phase> {
        self.state.replicas.iter().map(|replica| replica.phase)
    }

    /// Seconds of training that were lost, ever.
    #[must_use]
    pub fn training_lost(&self) -> f64 {
        self.state.training.lost_s
    }

    /// Roots of the incident that are still there, of those that have shown up. For the
    /// one who measures, not for a policy.
    #[must_use]
    pub fn roots_left(&self) -> usize {
        self.engine.roots_left()
    }

    /// Whether a fault, by its place in the incident, has its root in the world. For the one
    /// who measures, not for a policy.
    #[must_use]
    pub fn rooted(&self, fault: usize) -> bool {
        self.engine.rooted(fault)
    }

    /// When the incident begins, in seconds. For the one who measures, not for a policy.
    #[must_use]
    pub fn onset(&self) -> f64 {
        self.engine.onset()
    }

    /// One step of time.
    pub fn tick(&mut self) {
        let topology = &*self.topology;
        let state = &mut self.state;
        state.tick += 1;
        state.now = state.tick as f64 * self.step.dt;
        if !self.acts.idle() {
            self.acts
                .advance(topology, state, &mut self.engine, &self.settings);
        }
        self.engine.tick(topology, state);
        if state.stale {
            refresh::refresh(topology, state);
        }
        let due = tick::step(topology, state, &self.step, self.demand);
        if due != Due::default() {
            self.settle(due);
        }
    }

    /// What a step left to be done.
    #[cold]
    fn settle(&mut self, due: Due) {
        let topology = &*self.topology;
        let (state, engine) = (&mut self.state, &mut self.engine);
        if due.started {
            for at in 0..state.replicas.len() {
                if matches!(state.replicas[at].phase, Phase::Starting { left } if left <= 0.0) {
                    state.replicas[at].phase = Phase::Running;
                    state.stale = true;
                    engine.happened(topology, state, Happened::Started(ReplicaNo::new(at)));
                }
            }
        }
        if due.booted {
            for at in 0..state.nodes.len() {
                if !matches!(state.nodes[at].power, Power::Booting { left } if left <= 0.0) {
                    continue;
                }
                state.nodes[at].power = Power::On;
                engine.happened(topology, state, Happened::Booted(NodeNo::new(at)));
                for replica in &topology.nodes[at].replicas {
                    if matches!(state.replicas[replica.at()].phase, Phase::Dead) {
                        act::start(topology, state, self.starts, *replica);
                    }
                }
            }
        }
        if due.starved {
            for (at, node) in topology.nodes.iter().enumerate() {
                starve(topology, state, engine, NodeNo::new(at), node.memory_mb);
            }
        }
    }

    /// A number that two worlds share only if they are in the same state, to the last bit
    /// of each of its numbers (FNV-1a over their bits).
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.state.digest()
    }
}

/// Kills the largest process of a node whose memory is more than full; one a step.
fn starve(topology: &Topology, state: &mut State, engine: &mut Engine, no: NodeNo, has_mb: f64) {
    if state.nodes[no.at()].memory_mb <= has_mb {
        return;
    }
    let size = |replica: &ReplicaNo| {
        let own = &state.replicas[replica.at()];
        let route = topology.replicas[replica.at()].route;
        topology.routes[route.at()].memory_mb + own.leaked_mb + own.burden.ballast_mb
    };
    let living = topology.nodes[no.at()].replicas.iter();
    let living = living.filter(|replica| state.replicas[replica.at()].lives());
    let largest = living.max_by(|a, b| size(a).total_cmp(&size(b))).copied();
    if let Some(replica) = largest {
        state.kill(topology, replica);
        state.replicas[replica.at()].oom_kills += 1;
        engine.happened(topology, state, Happened::Died(replica));
    }
}
