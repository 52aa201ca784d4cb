//! One incident with one healer: what it came to, and what happened in turn.
//!
//! In go a topology, an incident, a seed, [`Rules`] and a healer; out come an [`Outcome`]
//! and a trace for people. Beside the world runs its twin of the same seed in which nobody
//! heals: it says whether this was an incident at all, and what the healer made better or
//! worse. The clock of recovery begins with the fault, detection included, and stops at
//! the cap, never before it.
//!
//! ```
//! use std::sync::Arc;
//! use homeostat_sim::episode::{Episode, Rules};
//! use homeostat_sim::fault::Incident;
//! use homeostat_sim::policy::Baseline;
//! use homeostat_sim::topology::Topology;
//!
//! let topology = Arc::new(Topology::reference());
//! let incident = Incident::named("crash-infer").unwrap();
//! let mut healer = Baseline::Supervisor.healer(1);
//! let mut episode = Episode::new(&topology, &incident, 7, Rules::default()).unwrap();
//! let outcome = episode.run(&mut healer);
//! assert!(outcome.recovered && outcome.roots_left == 0);
//! ```

mod look;
mod outcome;
mod trace;

use std::sync::Arc;

pub use self::look::Look;
pub use self::outcome::Outcome;
pub use self::trace::{Entry, TRACE_MAX, Trace};

use self::outcome::Side;
use crate::fault::Incident;
use crate::observe::{Observer, Seen};
use crate::policy::{Ended, Healer, How, Moves, View, Written};
use crate::text::TextError;
use crate::topology::Topology;
use crate::world::{Level, Order, OrderNo, Progress, Settings, Target, World};

/// What an episode is measured by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// From when on users count as served.
    pub target: Target,
    /// For so many seconds they must be, to count as recovered.
    pub hold_s: f64,
    /// And after that for so many more, without a relapse.
    pub relapse_s: f64,
    /// Recovery is counted up to so many seconds from the beginning of the incident.
    pub cap_s: f64,
    /// A miss of the target counts from so many seconds on: nobody who looks now and then
    /// would see a shorter one.
    pub blip_s: f64,
    /// Between two looks of the healer, in seconds.
    pub look_s: f64,
    /// What healing may spend ([`Episode::spent`]); without one it may spend anything.
    pub budget: Option<f64>,
    /// Of the world.
    pub world: Settings,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            target: Target::default(),
            hold_s: 10.0,
            relapse_s: 120.0,
            cap_s: 600.0,
            blip_s: 3.0,
            look_s: 5.0,
            budget: None,
            world: Settings::default(),
        }
    }
}

/// What each step that changes something costs besides what it takes from users, in
/// shares of a route times seconds: attention and risk, so that trying everything is not
/// free.
pub const STEP_TOLL: f64 = 0.5;

/// What an order costs before it has taken anything from anybody.
#[must_use]
pub fn toll(order: &Order) -> f64 {
    let writes = match order {
        Order::Node(_, plan) => plan.steps().filter(|step| step.writes()).count(),
        Order::Fleet(plan) => plan.steps().filter(|leaf| leaf.primitive.writes()).count(),
    };
    STEP_TOLL * writes as f64
}

/// One incident with one healer, under way.
#[derive(Debug, Clone)]
pub struct Episode {
    world: World,
    twin: World,
    rules: Rules,
    moves: Arc<Moves>,
    observer: Observer,
    incident: String,
    seed: u64,
    onset: f64,
    next_look: f64,
    queue: std::vec::IntoIter<Order>,
    under_way: Option<(OrderNo, Order)>,
    ended: Vec<Ended>,
    tolls: f64,
    orders: u32,
    refused: u32,
    ours: Side,
    theirs: Side,
    harm: f64,
    benefit: f64,
    trace: Trace,
    looks: u32,
    watched: bool,
    look: Option<Look>,
}

impl Episode {
    /// One that has not begun.
    ///
    /// # Errors
    /// [`TextError`] when the incident does not fit the topology.
    pub fn new(
        topology: &Arc<Topology>,
        incident: &Incident,
        seed: u64,
        rules: Rules,
    ) -> Result<Self, TextError> {
        let world = World::with(topology, incident, seed, rules.world)?;
        let onset = world.engine.onset();
        Ok(Self {
            twin: world.clone(),
            trace: Trace::new(&world),
            moves: Arc::new(Moves::new(topology)),
            observer: Observer::new(seed),
            incident: incident.name.clone(),
            seed,
            onset,
            next_look: rules.look_s,
            queue: Vec::new().into_iter(),
            under_way: None,
            ended: Vec::new(),
            tolls: 0.0,
            orders: 0,
            refused: 0,
            ours: Side::default(),
            theirs: Side::default(),
            harm: 0.0,
            benefit: 0.0,
            looks: 0,
            watched: false,
            look: None,
            world,
            rules,
        })
    }

    /// The same moment once more, for `horizon` seconds from now on: what it comes to
    /// counts from here, and beside it runs what becomes of it when nothing more is done.
    /// Looks and their numbers go on.
    #[must_use]
    pub fn fork(&self, horizon: f64) -> Self {
        let rules = Rules {
            cap_s: (horizon - self.rules.hold_s).max(0.0),
            relapse_s: 0.0,
            budget: None,
            ..self.rules
        };
        Self {
            twin: self.world.clone(),
            trace: Trace::new(&self.world),
            onset: self.world.now(),
            tolls: -self.world.spent().disruption,
            orders: 0,
            refused: 0,
            ours: Side::default(),
            theirs: Side::default(),
            harm: 0.0,
            benefit: 0.0,
            look: None,
            rules,
            ..self.clone()
        }
    }

    /// Has every look kept until it is taken, for who records or shows the episode.
    pub fn watch(&mut self) {
        self.watched = true;
    }

    /// The last look since this was asked before.
    pub fn take_look(&mut self) -> Option<Look> {
        self.look.take()
    }

    /// Orders taken so far.
    #[must_use]
    pub fn orders(&self) -> u32 {
        self.orders
    }

    /// How many looks there were.
    #[must_use]
    pub fn looks(&self) -> u32 {
        self.looks
    }

    /// Whether the healer looks with the next step of time.
    #[must_use]
    pub fn looks_next(&self) -> bool {
        self.world.now() < self.end() && self.world.now() >= self.next_look
    }

    /// Whether it does, and has nothing under way.
    #[must_use]
    pub fn decides_next(&self) -> bool {
        let idle = match &self.under_way {
            None => true,
            // What fails takes what was to follow with it.
            Some((no, _)) => match self.world.progress(*no) {
                Some(Progress::Underway) => false,
                Some(Progress::Done) => self.queue.as_slice().is_empty(),
                Some(Progress::Failed { .. }) | None => true,
            },
        };
        let queued = self.under_way.is_none() && !self.queue.as_slice().is_empty();
        self.looks_next() && idle && !queued
    }

    /// The twin of the same seed in which nobody heals.
    #[must_use]
    pub fn twin(&self) -> &World {
        &self.twin
    }

    /// By what it is measured.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What is ordered and under way.
    #[must_use]
    pub fn under_way(&self) -> Option<&Order> {
        self.under_way.as_ref().map(|(_, order)| order)
    }

    /// When the incident begins, in seconds.
    #[must_use]
    pub fn onset(&self) -> f64 {
        self.onset
    }

    /// When the episode is over, in seconds.
    #[must_use]
    pub fn end(&self) -> f64 {
        self.onset + self.rules.cap_s + self.rules.hold_s + self.rules.relapse_s
    }

    /// The world.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What healing has spent: what it took from users, in shares of routes times seconds,
    /// and [`STEP_TOLL`] for each step that changes something.
    #[must_use]
    pub fn spent(&self) -> f64 {
        self.world.spent().disruption + self.tolls
    }

    /// How well users are served, here and in the twin.
    #[must_use]
    pub fn levels(&self) -> (Level, Level) {
        (self.world.level(), self.twin.level())
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Runs it to its end.
    pub fn run(&mut self, healer: &mut Healer) -> Outcome {
        while self.tick(healer) {}
        self.outcome(healer.name())
    }

    /// One step of time; false when it is over.
    pub fn tick(&mut self, healer: &mut Healer) -> bool {
        if self.world.now() >= self.end() {
            return false;
        }
        self.follow();
        if self.world.now() >= self.next_look {
            self.next_look += self.rules.look_s;
            self.look(healer);
        }
        self.begin_next();
        self.world.tick();
        self.twin.tick();
        let now = self.world.now();
        let (ours, theirs) = self.levels();
        if now >= self.onset {
            let dt = self.world.settings().dt;
            let better = ours.health() - theirs.health();
            self.benefit += better.max(0.0) * dt;
            self.harm += (-better).max(0.0) * dt;
            self.ours.note(&ours, &self.rules, now, dt);
            self.theirs.note(&theirs, &self.rules, now, dt);
        }
        self.trace
            .note_world(&self.world, self.onset, self.ours.missing());
        true
    }

    /// What it came to, so far.
    #[must_use]
    pub fn outcome(&self, policy: &str) -> Outcome {
        let rules = &self.rules;
        let last = self.ours.last_miss();
        let recovered =
            last.is_none_or(|at| at - self.onset <= rules.cap_s) && self.world.now() >= self.end();
        let seconds = last.map_or(0.0, |at| at - self.onset).min(rules.cap_s);
        let roots_left = self.world.roots_left();
        Outcome {
            incident: self.incident.clone(),
            topology: self.world.topology().name().to_owned(),
            policy: policy.to_owned(),
            seed: self.seed,
            onset: self.onset,
            was_incident: self.theirs.last_miss().is_some(),
            breached: last.is_some(),
            recovered,
            seconds: if recovered { seconds } else { rules.cap_s },
            roots_left: u32::try_from(roots_left).unwrap_or(u32::MAX),
            lost: self.ours.lost,
            lost_twin: self.theirs.lost,
            harm: self.harm,
            benefit: self.benefit,
            spent: self.spent(),
            disruption: self.world.spent().disruption,
            work: self.world.spent().work,
            orders: self.orders,
            refused: self.refused,
        }
    }

    /// Takes note of an order that has ended.
    fn follow(&mut self) {
        let Some((no, order)) = self.under_way.take() else {
            return;
        };
        let how = match self.world.progress(no) {
            Some(Progress::Underway) => {
                self.under_way = Some((no, order));
                return;
            }
            Some(Progress::Done) => How::Done,
            Some(Progress::Failed { step, why }) => {
                self.trace.ended(
                    self.world.now(),
                    no,
                    format_args!("step {} fails: {}", step + 1, trace::why(why)),
                );
                self.close(order, How::Failed(why));
                return;
            }
            // Orders are followed one at a time, so none is forgotten.
            None => How::Refused("forgotten".to_owned()),
        };
        self.trace.ended(self.world.now(), no, format_args!("done"));
        self.close(order, how);
    }

    fn close(&mut self, order: Order, how: How) {
        if how != How::Done {
            self.queue = Vec::new().into_iter();
        }
        self.ended.push(Ended { order, how });
    }

    fn look(&mut self, healer: &mut Healer) {
        let idle = self.under_way.is_none() && self.queue.as_slice().is_empty();
        let left = self
            .rules
            .budget
            .map_or(f64::INFINITY, |budget| budget - self.spent());
        let no = self.looks;
        self.looks += 1;
        let looks = match &*healer {
            Healer::Sees(_) => true,
            Healer::Knows(oracle) => oracle.looks(),
        };
        // Who looks sees even while busy.
        let seen: Option<Seen> = looks.then(|| self.observer.look(&self.world));
        let view = seen.as_ref().map(|seen| View {
            topology: self.world.topology(),
            moves: &self.moves,
            seen,
            ended: &self.ended,
            left,
        });
        let orders = match (&mut *healer, view) {
            (Healer::Sees(policy), Some(view)) => {
                policy.see(&view);
                if idle {
                    policy.decide(&view)
                } else {
                    Vec::new()
                }
            }
            (Healer::Knows(oracle), view) => {
                if let Some(view) = view {
                    oracle.see(&view);
                }
                if idle {
                    oracle.decide(&self.world, &self.moves, left)
                } else {
                    Vec::new()
                }
            }
            (Healer::Sees(_), None) => Vec::new(),
        };
        let ended = std::mem::take(&mut self.ended);
        if self.watched {
            let decided = idle && !orders.is_empty();
            self.look = Some(Look {
                no,
                seen: seen.unwrap_or_else(|| self.observer.look(&self.world)),
                ended,
                left,
                spent: self.spent(),
                idle,
                orders: orders.clone(),
                propensity: if idle { healer.propensity() } else { 1.0 },
                why: if decided { healer.why() } else { String::new() },
            });
        }
        if idle {
            self.queue = orders.into_iter();
        }
    }

    fn begin_next(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let Some(order) = self.queue.next() else {
            return;
        };
        let now = self.world.now();
        let toll = toll(&order);
        let dear = self
            .rules
            .budget
            .is_some_and(|budget| self.spent() + toll > budget);
        let how = if dear {
            How::TooDear
        } else {
            match self.world.order(&order) {
                Ok(no) => {
                    self.tolls += toll;
                    self.orders += 1;
                    self.trace.ordered(now, no, &order);
                    self.under_way = Some((no, order));
                    return;
                }
                Err(why) => How::Refused(why.to_string()),
            }
        };
        self.refused += 1;
        let why = match &how {
            How::Refused(why) => why.as_str(),
            _ => "the budget is used up",
        };
        self.trace
            .say(now, format_args!("refused  {}: {why}", Written(&order)));
        self.close(order, how);
    }
}

#[cfg(test)]
mod tests;
