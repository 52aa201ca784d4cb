//! The same run in the simulator.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use homeostat_sim::topology::{Topology, Version};
use homeostat_sim::world::{Flow, Order, Progress, Settings, World};

use super::faults::{Fault, Plan};
use super::trace::{Fare, Figures, NOBODY, SERVICES, Seen, Times, Trace};

/// A step of time: what is compared are seconds.
const DT: f64 = 0.25;
/// Longest wait for the end of an order.
const ORDER_MAX_S: f64 = 60.0;
/// The best quality that the simulator knows; answers that are right are of this one.
const QUALITY: f64 = 0.92;

/// One step of time.
struct Tick {
    at_s: f64,
    fare: Fare,
    tries: f64,
    waiting: f64,
    flows: Vec<Flow>,
    /// Answers within that nobody waited for, of all services ever: callers count them as lost.
    late: f64,
}

/// Runs a fault and a plan against it.
///
/// # Errors
/// When the incident does not fit the topology, or the plan does not read.
pub(super) fn run(
    topology: &Arc<Topology>,
    fault: &Fault,
    plan: &Plan,
    seed: u64,
) -> Result<Trace> {
    let settings = Settings {
        dt: DT,
        silent: 0.0,
    };
    let mut world = World::with(topology, &fault.incident, seed, settings)?;
    let onset_s = world.onset();
    let mut ticks = Vec::new();
    while world.now() < onset_s + fault.watch_s {
        step(&mut world, &mut ticks);
    }
    let plan_s = world.now();
    let mut carried_out = true;
    for (node, text) in &plan.orders {
        let text = named(topology, text)?;
        let plan = text.parse().with_context(|| format!("{text:?}"))?;
        let order = Order::Node(node.parse().context("a node")?, plan);
        let begun = world.now();
        let ended = match world.order(&order) {
            Ok(no) => loop {
                step(&mut world, &mut ticks);
                match world.progress(no) {
                    Some(Progress::Underway) if world.now() < begun + ORDER_MAX_S => {}
                    other => break other,
                }
            },
            Err(_) => None,
        };
        if ended != Some(Progress::Done) {
            carried_out = false;
            break;
        }
    }
    let end_s = world.now() + fault.after_s;
    while world.now() < end_s {
        step(&mut world, &mut ticks);
    }
    let seen = Ticks { ticks, topology };
    let times = Times {
        onset_s,
        plan_s,
        end_s,
    };
    Ok(seen.trace(times, carried_out))
}

/// A plan with the versions as this topology names them.
fn named(topology: &Topology, text: &str) -> Result<String> {
    let mut text = text.to_owned();
    for replica in topology.replicas() {
        if text.contains(replica.name.as_str()) && text.contains("to=") {
            let no = topology.replica_no(&replica.name)?;
            text = text
                .replace("MODEL", &topology.model(no, Version::Good).to_string())
                .replace("CONFIG", &topology.config(no, Version::Good).to_string());
        }
    }
    Ok(text)
}

fn step(world: &mut World, ticks: &mut Vec<Tick>) {
    world.tick();
    let level = world.level();
    let patience_ms = world.topology().habits().patience_ms;
    let routes = world.topology().routes();
    let numbers: Vec<_> = routes
        .iter()
        .filter_map(|route| world.topology().route_no(&route.name).ok())
        .collect();
    let entry = routes.iter().position(|route| route.demand > 0.0);
    let flows: Vec<Flow> = numbers.iter().map(|no| world.flow(*no)).collect();
    let before = ticks.last().and_then(|tick| tick.flows.get(entry?));
    let came = entry
        .and_then(|entry| flows.get(entry))
        .map_or(0.0, |flow| flow.arrived)
        - before.map_or(0.0, |flow| flow.arrived);
    let passed = |at: usize| {
        let before = ticks.last().and_then(|tick| tick.flows.get(at));
        flows[at].passed - before.map_or(0.0, |flow| flow.passed)
    };
    let within = (0..flows.len()).filter(|at| Some(*at) != entry);
    let late: f64 = within.map(|at| passed(at) * world.late(numbers[at])).sum();
    let late = late + ticks.last().map_or(0.0, |tick| tick.late);
    ticks.push(Tick {
        at_s: world.now(),
        fare: Fare {
            at_s: world.now(),
            errors: level.err,
            p95_ms: if level.err < NOBODY {
                level.p95_ms.min(patience_ms)
            } else {
                patience_ms
            },
            right: level.quality / QUALITY,
            shed: level.shed,
        },
        tries: came / DT,
        waiting: numbers.iter().map(|no| world.waiting(*no)).sum(),
        flows,
        late,
    });
}

struct Ticks<'s> {
    ticks: Vec<Tick>,
    topology: &'s Topology,
}

impl Ticks<'_> {
    fn within(&self, from_s: f64, to_s: f64) -> &[Tick] {
        let first = self.ticks.partition_point(|tick| tick.at_s <= from_s);
        let end = self.ticks.partition_point(|tick| tick.at_s <= to_s);
        &self.ticks[first..end.max(first)]
    }

    fn mean(&self, from_s: f64, to_s: f64, of: impl Fn(&Tick) -> f64) -> f64 {
        let ticks = self.within(from_s, to_s);
        ticks.iter().map(of).sum::<f64>() / ticks.len().max(1) as f64
    }
}

impl Seen for Ticks<'_> {
    fn fare(&self, from_s: f64, to_s: f64, onset_s: f64) -> Fare {
        Fare {
            at_s: to_s - onset_s,
            errors: self.mean(from_s, to_s, |tick| tick.fare.errors),
            p95_ms: self.mean(from_s, to_s, |tick| tick.fare.p95_ms),
            right: self.mean(from_s, to_s, |tick| tick.fare.right),
            shed: self.mean(from_s, to_s, |tick| tick.fare.shed),
        }
    }

    fn figures(&self, from_s: f64, to_s: f64) -> Figures {
        let fare = self.fare(from_s, to_s, 0.0);
        let tries = self.mean(from_s, to_s, |tick| tick.tries);
        let mut figures = [0.0; 12];
        let right = self.mean(from_s, to_s, |tick| {
            tick.tries * (1.0 - tick.fare.errors) * (1.0 - tick.fare.shed) * tick.fare.right
        });
        figures[..5].copy_from_slice(&[fare.errors, fare.p95_ms, right, tries, fare.right]);
        let within = self.within(from_s, to_s);
        if let (Some(first), Some(last)) = (within.first(), within.last()) {
            let seconds = (last.at_s - first.at_s).max(DT);
            let rate = |service: &str, of: &dyn Fn(&Flow) -> f64| -> f64 {
                let routes = self.topology.routes().iter().enumerate();
                let meant = routes
                    .filter(|(_, route)| service.is_empty() || route.name.as_str() == service);
                let sums = meant.map(|(at, _)| of(&last.flows[at]) - of(&first.flows[at]));
                sums.sum::<f64>() / seconds
            };
            for (place, name) in SERVICES.iter().enumerate() {
                figures[5 + place] = rate(name, &|flow| flow.passed);
            }
            figures[10] = rate("", &|flow| flow.failed + flow.refused + flow.lost)
                + (last.late - first.late) / seconds;
        }
        figures[11] = self.mean(from_s, to_s, |tick| tick.waiting);
        Figures(figures)
    }
}
