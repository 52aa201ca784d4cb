use homeostat_sim::fault::Incident;
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{Target, World};
fn main() {
    let topology = Topology::reference();
    for (name, _) in Incident::train().iter().chain(Incident::development()) {
        let incident = Incident::named(name).unwrap();
        let mut line = format!("{name:32}");
        for seed in 0..3 {
            let Ok(mut world) = World::new(&topology, &incident, seed) else {
                line += " unfit";
                continue;
            };
            let (mut bad, mut first, mut last) = (0, 0, 0);
            let mut worst: (f64, f64, f64) = (0.0, 0.0, 1.0);
            for at in 0..600 {
                world.tick();
                let l = world.level();
                if !l.meets(&Target::default()) {
                    bad += 1;
                    last = at;
                    if first == 0 {
                        first = at;
                    }
                }
                worst = (
                    worst.0.max(l.err),
                    worst.1.max(l.p95_ms),
                    worst.2.min(l.quality),
                );
            }
            line += &format!(
                " | {bad:3} {first:3}-{last:3} err {:.2} p95 {:6.0} q {:.2}",
                worst.0, worst.1, worst.2
            );
        }
        println!("{line}");
    }
}
