//! Shows how an incident goes, with and without orders.
//!
//! ```text
//! cargo run -p homeostat-sim --example incident -- deadlock \
//!     'edge-1: restart(infer-1, grace=0ms) ; clear-locks(infer-1)'
//! ```
//!
//! Orders are given 40 s after the incident began, each after the one before it has ended.
//! `to=good` stands for the version that worked.

use std::collections::VecDeque;
use std::error::Error;

use homeostat_sim::fault::Incident;
use homeostat_sim::observe::Observer;
use homeostat_sim::topology::{Topology, Version};
use homeostat_sim::world::{Order, Progress, Settings, World};

const SEED: u64 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().ok_or("which incident?")?;
    let mut orders: VecDeque<String> = args.collect();
    let incident = Incident::named(&name)?;
    let topology = Topology::named(&incident.topology)?;
    let settings = Settings {
        silent: 0.0,
        ..Settings::default()
    };
    let mut world = World::with(&topology.clone().into(), &incident, SEED, settings)?;
    let mut observer = Observer::new(SEED);
    println!("{}: {}", incident.name, incident.about);
    let mut under = None;
    while world.now() < 600.0 {
        world.tick();
        if let Some(no) = under {
            match world.progress(no) {
                Some(Progress::Underway) => {}
                ended => {
                    println!("{:5.0}s  {ended:?}", world.now());
                    under = None;
                }
            }
        }
        if under.is_none()
            && world.now() > world.onset() + 40.0
            && let Some(order) = orders.pop_front()
        {
            println!("{:5.0}s  {order}", world.now());
            under = Some(world.order(&read(&topology, &order)?)?);
        }
        if world.now() % 10.0 < 0.5 {
            let level = world.level();
            println!(
                "{:5.0}s  err {:.3}  p95 {:6.0} ms  quality {:.3}  shed {:.2}  roots {}  health {:.3}",
                world.now(),
                level.err,
                level.p95_ms,
                level.quality,
                level.shed,
                world.roots_left(),
                level.health(),
            );
            let seen = observer.look(&world);
            if world.now() % 60.0 < 0.5 {
                for observation in seen.nodes.into_iter().flatten() {
                    for line in observation.logs.iter().filter(|line| line.count > 2) {
                        println!("        {:4}x {}: {}", line.count, line.service, line.text);
                    }
                    for alarm in observation.alarms {
                        println!("        alarm {}", alarm.alarm);
                    }
                }
            }
        }
    }
    Ok(())
}

/// `NODE: PLAN`, with `to=good` for the version that worked.
fn read(topology: &Topology, text: &str) -> Result<Order, Box<dyn Error>> {
    let mut text = text.to_owned();
    for (at, replica) in topology.replicas().iter().enumerate() {
        let no = topology.replica_no(&replica.name)?;
        debug_assert_eq!(no.at(), at);
        for (call, version) in [
            (
                "rollback-model",
                topology.model(no, Version::Good).to_string(),
            ),
            (
                "rollback-config",
                topology.config(no, Version::Good).to_string(),
            ),
        ] {
            let from = format!("{call}({}, to=good)", replica.name);
            text = text.replace(&from, &format!("{call}({}, to={version})", replica.name));
        }
    }
    if let Ok(plan) = text.parse() {
        return Ok(Order::Fleet(plan));
    }
    let (node, plan) = text.split_once(": ").ok_or("NODE: PLAN")?;
    Ok(Order::Node(node.parse()?, plan.parse()?))
}
