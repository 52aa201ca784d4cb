use std::time::Instant;
use homeostat_sim::fault::Incident;
use homeostat_sim::topology::Topology;
use homeostat_sim::world::World;
fn main() {
    let only = std::env::args().nth(1);
    for (name, _) in Topology::shipped() {
        if only.as_ref().is_some_and(|only| only != name) { continue; }
        let topology = Topology::named(name).unwrap();
        let mut world = World::new(&topology, &Incident::none(), 7).unwrap();
        let n = if topology.nodes().len() > 10 { 100_000 } else { 500_000 };
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let begun = Instant::now();
            for _ in 0..n { world.tick(); }
            best = best.min(begun.elapsed().as_secs_f64() / n as f64);
        }
        println!("{name:10} {:3} nodes {:3} replicas {:8.0} ns  {:9.0} ticks/s", topology.nodes().len(), topology.replicas().len(), best * 1e9, 1.0 / best);
    }
}
