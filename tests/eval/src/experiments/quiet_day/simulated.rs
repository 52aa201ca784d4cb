//! Days of simulated nodes, with and without incidents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use homeostat_agent::detect::usual::{Concern, has_usual};
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{MetricReading, Series};
use homeostat_common::units::Micros;
use homeostat_sim::fault::Incident;
use homeostat_sim::observe::Observer;
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{Settings, World};

use super::watcher::{Key, Raised, Watcher};
use crate::stage::interrupt;

/// Hours without a fault before an incident.
const BEFORE_S: u32 = 2 * 3600;
/// How long an alarm of it is waited for.
const WITHIN_S: u32 = 300;

impl Key for Series {
    type Scope = Option<ServiceId>;

    fn scope(&self) -> Self::Scope {
        self.service.clone()
    }

    fn concern(&self) -> Concern {
        Concern::of(self.metric)
    }

    fn words(&self) -> String {
        match &self.service {
            Some(service) => format!("{} of {service}", self.metric.name()),
            None => self.metric.name().to_owned(),
        }
    }
}

/// A node on one day.
pub(super) struct OfNode {
    pub(super) name: String,
    pub(super) ours: Vec<Raised>,
    pub(super) plain: usize,
    pub(super) metrics: usize,
}

/// All nodes of a topology on one day.
pub(super) struct Day {
    pub(super) hours: f64,
    pub(super) nodes: Vec<OfNode>,
}

/// A fleet, who looks at it, and what its agents make of that.
#[derive(Clone)]
struct Fleet {
    world: World,
    observer: Observer,
    watchers: Vec<Watcher<Series>>,
}

impl Fleet {
    fn new(topology: &str, swing: f64, seed: u64) -> Result<Self> {
        let shipped = Topology::shipped().iter();
        let (_, text) = shipped
            .clone()
            .find(|(name, _)| *name == topology)
            .with_context(|| format!("the simulator has no topology {topology}"))?;
        let text = format!("{text}\n[habits]\ndaily = {swing:?}\n");
        let topology = Arc::new(Topology::read(&format!("{topology}.toml"), &text)?);
        let world = World::with(&topology, &Incident::none(), seed, Settings::default())?;
        Ok(Self {
            observer: Observer::new(seed),
            watchers: topology.nodes().iter().map(|_| Watcher::new()).collect(),
            world,
        })
    }

    fn step(&mut self) {
        self.world.tick();
        let seen = self.observer.look(&self.world);
        for (watcher, seen) in self.watchers.iter_mut().zip(&seen.nodes) {
            // One that cannot be reached still sees itself; its coordinator does not.
            let Some(seen) = seen else {
                continue;
            };
            for reading in &seen.metrics {
                take(watcher, seen.to, reading);
            }
            watcher.tell(seen.to);
        }
    }
}

fn take(watcher: &mut Watcher<Series>, now: Micros, reading: &MetricReading) {
    if has_usual(reading) {
        watcher.observe(now, &reading.series(), reading.reading.fresh());
    }
}

/// One day without a fault.
pub(super) fn day(topology: &str, swing: f64, hours: f64, seed: u64) -> Result<Day> {
    let mut fleet = Fleet::new(topology, swing, seed)?;
    // Between a second and some days.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let seconds = (hours.clamp(0.001, 240.0) * 3600.0) as u32;
    for second in 0..seconds {
        if second % 600 == 0 {
            interrupt::pause(Duration::ZERO)?;
        }
        fleet.step();
    }
    let names = fleet.world.topology().nodes().iter();
    let nodes = names.zip(fleet.watchers).map(|(node, watcher)| OfNode {
        name: node.name.to_string(),
        plain: watcher.others.len(),
        metrics: watcher.metrics(),
        ours: watcher.ours,
    });
    Ok(Day {
        hours: f64::from(seconds) / 3600.0,
        nodes: nodes.collect(),
    })
}

/// Seconds to the first alarm of any node, ours and the plain one.
pub(super) type First = [Option<f64>; 2];

/// What was seen of incidents.
#[derive(Default)]
pub(super) struct Seen {
    /// From the onset of each incident, for each seed.
    pub(super) incidents: BTreeMap<String, Vec<First>>,
    /// In the same time without one, for each seed.
    pub(super) calm: Vec<First>,
}

/// The incidents to train on that fit the reference.
pub(super) fn incidents(swing: f64, seeds: u64, seed: u64) -> Result<Seen> {
    let mut all = Seen::default();
    for seed in seed..seed + seeds {
        let mut before = Fleet::new("reference", swing, seed)?;
        for _ in 0..BEFORE_S {
            before.step();
        }
        interrupt::pause(Duration::ZERO)?;
        all.calm.push(first_alarms(before.clone()));
        for (name, text) in Incident::train() {
            let incident = Incident::read(&format!("{name}.toml"), text)?;
            if incident.topology != "reference" {
                continue;
            }
            interrupt::pause(Duration::ZERO)?;
            let world = before
                .world
                .before(&incident, seed, f64::from(BEFORE_S) + 1.0)?;
            let fleet = Fleet {
                world,
                ..before.clone()
            };
            let [ours, plain] = first_alarms(fleet);
            super::progress(&format!("  {name}, seed {seed}: {ours:?}, plain {plain:?}"));
            let of = all.incidents.entry(incident.name).or_default();
            of.push([ours, plain]);
        }
    }
    Ok(all)
}

/// Goes on, and returns after how many seconds the first alarms came.
fn first_alarms(mut fleet: Fleet) -> First {
    let counts = |fleet: &Fleet| {
        let sum = |of: fn(&Watcher<Series>) -> usize| fleet.watchers.iter().map(of).sum::<usize>();
        [sum(|one| one.ours.len()), sum(|one| one.others.len())]
    };
    let before = counts(&fleet);
    let mut first = [None; 2];
    for second in 0..WITHIN_S {
        fleet.step();
        for ((first, now), before) in first.iter_mut().zip(counts(&fleet)).zip(before) {
            if now > before {
                first.get_or_insert(f64::from(second));
            }
        }
    }
    first
}
