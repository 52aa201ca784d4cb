//! What must hold of any world.

use std::sync::Arc;

use super::*;
use crate::fault::Incident;

fn world(name: &str, seed: u64, dt: f64) -> World {
    let topology = Arc::new(Topology::named(name).unwrap());
    let settings = Settings { dt, silent: 0.0 };
    World::with(&topology, &Incident::none(), seed, settings).unwrap()
}

fn reference(seed: u64) -> World {
    world("reference", seed, 1.0)
}

fn order(world: &mut World, node: &str, plan: &str) -> OrderNo {
    let order = Order::Node(node.parse().unwrap(), plan.parse().unwrap());
    world.order(&order).unwrap()
}

/// Ticks until a plan has ended, at most so many seconds.
fn end(world: &mut World, no: OrderNo, within: f64) -> Progress {
    let until = world.now() + within;
    while world.now() < until {
        world.tick();
        match world.progress(no) {
            Some(Progress::Underway) => {}
            Some(ended) => return ended,
            None => panic!("the order is not known"),
        }
    }
    panic!("not ended within {within} s");
}

fn run(world: &mut World, seconds: f64) {
    let until = world.now() + seconds;
    while world.now() < until {
        world.tick();
    }
}

/// Ends a storm of retries: most are refused for a while.
fn calm(world: &mut World) {
    let no = order(
        world,
        "edge-1",
        "limit-rate(gateway, to=20/s) ; wait(40s) ; unlimit-rate(gateway)",
    );
    assert_eq!(end(world, no, 60.0), Progress::Done);
    run(world, 20.0);
}

fn replica(world: &World, name: &str) -> ReplicaNo {
    world.topology().replica_no(&name.parse().unwrap()).unwrap()
}

/// Who gets no answer from one does not ask the next, where calls are made in turn.
#[test]
fn calls_behind_one_that_failed_are_not_made_where_they_are_in_turn() {
    let asked_of_the_store = |in_turn: &str| {
        let text = include_str!("../../topologies/testbed.toml");
        let text = text.replace("in_turn = true", in_turn);
        let topology = Topology::read("testbed.toml", &text).unwrap();
        let incident = include_str!("../../faults/testbed/hang.toml");
        let incident = Incident::read("hang.toml", incident).unwrap();
        let mut world = World::new(&topology, &incident, 3).unwrap();
        let store = topology.route_no(&"store".parse().unwrap()).unwrap();
        let until = world.onset() + 10.0;
        run(&mut world, until);
        let before = world.flow(store).arrived;
        run(&mut world, 10.0);
        world.flow(store).arrived - before
    };
    let (turn, all) = (asked_of_the_store("in_turn = true"), asked_of_the_store(""));
    assert!(turn < 0.9 * all, "{turn} {all}");
}

/// Every primitive does something, or is refused for a reason that is seen.
const PLANS: [(&str, &str); 37] = [
    ("edge-1", "restart(infer-1, grace=2s)"),
    ("edge-1", "rollback-model(infer-1, to=MODEL)"),
    ("edge-1", "probe(infer-1, within=9s)"),
    ("edge-1", "wait(3s)"),
    ("edge-1", "switch-model(infer-1, to=MODEL)"),
    ("edge-1", "switch-config(infer-1, to=CONFIG)"),
    ("edge-1", "rollback-config(infer-1, to=CONFIG)"),
    ("edge-1", "prune-data(infer-1, to=10%)"),
    ("edge-1", "isolate(infer, infer-1, drain=2s)"),
    ("edge-1", "release(infer, infer-1)"),
    (
        "edge-1",
        "reroute(infer, from=infer-1, to=infer-2, share=50%)",
    ),
    ("edge-1", "scale-out(infer, infer-4)"),
    ("edge-1", "scale-in(infer, infer-4, drain=2s)"),
    ("edge-1", "freeze(infer-1)"),
    ("edge-1", "thaw(infer-1)"),
    ("edge-1", "limit-cpu(infer-1, to=25%)"),
    ("edge-1", "unlimit-cpu(infer-1)"),
    ("edge-1", "limit-rate(gateway, to=40/s)"),
    ("edge-1", "unlimit-rate(gateway)"),
    ("edge-1", "block-source(gateway, from=203.0.113.0/24)"),
    ("edge-1", "unblock-source(gateway, from=203.0.113.0/24)"),
    ("edge-4", "prewarm(infer-4)"),
    ("edge-1", "clear-locks(infer-1)"),
    ("edge-4", "snapshot(broker-1)"),
    ("edge-4", "restore-snapshot(broker-1)"),
    ("edge-3", "flush-cache(cache-1)"),
    ("edge-1", "reset-pool(gateway-1)"),
    ("edge-1", "degrade(infer-1)"),
    ("edge-1", "undegrade(infer-1)"),
    ("edge-1", "sync-clock(infer-1)"),
    ("edge-1", "switch-uplink(infer-1, to=lte0)"),
    ("edge-1", "release-uplink(infer-1)"),
    ("edge-1", "block-port(infer-1, from=203.0.113.0/24)"),
    ("edge-1", "unblock-port(infer-1, from=203.0.113.0/24)"),
    ("edge-1", "remount-writable(infer-1)"),
    ("edge-4", "call-webhook(broker-1, to=failover-broker)"),
    ("edge-1", "escalate(infer-1)"),
];

fn with_versions(topology: &Topology, text: &str) -> String {
    let no = topology.replica_no(&"infer-1".parse().unwrap()).unwrap();
    let model = topology.model(no, crate::topology::Version::Older);
    let config = topology.config(no, crate::topology::Version::Older);
    text.replace("MODEL", &model.to_string())
        .replace("CONFIG", &config.to_string())
}

#[test]
fn every_primitive_is_carried_out_and_leaves_the_fleet_alive() {
    let mut names = std::collections::BTreeSet::new();
    let mut world = reference(1);
    run(&mut world, 30.0);
    for (node, plan) in PLANS {
        let plan = with_versions(world.topology(), plan);
        names.insert(plan.split('(').next().unwrap().to_owned());
        let no = order(&mut world, node, &plan);
        assert_eq!(end(&mut world, no, 60.0), Progress::Done, "{plan}");
    }
    assert_eq!(names.len(), homeostat_common::primitive::NAMES.len());
    calm(&mut world);
    let level = world.level();
    assert!(level.meets(&Target::default()), "{level:?}");
}

#[test]
fn a_seed_gives_the_same_trace_and_another_seed_another() {
    let trace = |seed| {
        let mut world = reference(seed);
        let mut digests = Vec::new();
        for at in 0..600 {
            if at == 100 {
                order(
                    &mut world,
                    "edge-1",
                    "restart(infer-1, grace=1s) ; wait(5s)",
                );
            }
            world.tick();
            digests.push(world.digest());
        }
        digests
    };
    let golden = trace(7);
    assert_eq!(trace(7), golden);
    assert_ne!(trace(8).last(), golden.last());
    // The same on every machine, optimised or not.
    assert_eq!(golden.last(), Some(&GOLDEN));
}

const GOLDEN: u64 = 14_466_761_134_095_945_739;

#[test]
fn a_fork_meets_the_same_chance() {
    let mut world = reference(3);
    run(&mut world, 50.0);
    let mut twin = world.clone();
    order(&mut twin, "edge-1", "restart(infer-1, grace=1s)");
    let mut other = world.clone();
    run(&mut world, 200.0);
    run(&mut other, 200.0);
    run(&mut twin, 200.0);
    assert_eq!(world.digest(), other.digest());
    assert_eq!(world.state.noise.to_bits(), twin.state.noise.to_bits());
    assert_ne!(world.digest(), twin.digest());
}

#[test]
fn without_faults_every_shipped_topology_serves_its_users() {
    for (name, _) in Topology::shipped() {
        for seed in 0..4 {
            let mut world = world(name, seed, 1.0);
            for _ in 0..1800 {
                world.tick();
                let level = world.level();
                assert!(level.meets(&Target::default()), "{name} {seed}: {level:?}");
            }
        }
    }
}

#[test]
fn topologies_that_are_made_up_serve_their_users() {
    for seed in 0..10 {
        let topology = Topology::generate(seed, 3 + 4 * usize::try_from(seed).unwrap()).unwrap();
        let mut world = World::new(&topology, &Incident::none(), seed).unwrap();
        for _ in 0..1800 {
            world.tick();
            let level = world.level();
            assert!(level.meets(&Target::default()), "{seed}: {level:?}");
        }
    }
}

/// Whatever is done to it, each request that came was answered, refused, lost, or waits.
#[test]
fn requests_are_conserved() {
    for seed in 0..20 {
        let mut world = reference(seed);
        let chance = Chance::new(seed, Stream::Incident);
        let mut orders = 0;
        for at in 0..900 {
            let what = chance.below(60, at, 0);
            let victim = chance.below(u32::from(no_of(world.state.replicas.len())), at, 1);
            let victim = ReplicaNo::new(victim as usize);
            match what {
                0 => world.state.kill(&Arc::clone(&world.topology), victim),
                1 => world.state.hang(victim),
                2 => {
                    let (node, plan) = PLANS[chance.below(37, at, 2) as usize];
                    let plan = with_versions(world.topology(), plan);
                    let order = Order::Node(node.parse().unwrap(), plan.parse().unwrap());
                    orders += u32::from(world.order(&order).is_ok());
                }
                3 => {
                    world.state.routes[0].burden.surge = 1.0 + chance.uniform(at, 3) * 3.0;
                }
                _ => {}
            }
            world.tick();
            for route in (0..world.state.routes.len()).map(RouteNo::new) {
                let flow = world.flow(route);
                let gone = flow.passed + flow.failed + flow.refused + flow.lost;
                let off = flow.arrived - gone - world.waiting(route);
                assert!(
                    off.abs() <= 1e-9 * flow.arrived.max(1.0),
                    "{seed} {at} {route:?}: {off}"
                );
            }
        }
        assert!(orders > 5);
    }
}

fn no_of(count: usize) -> u16 {
    u16::try_from(count).unwrap()
}

/// What one route passes on is what the next one is asked, less what the links lose.
#[test]
fn what_is_passed_on_arrives() {
    let mut world = reference(5);
    run(&mut world, 300.0);
    let flow = |name: &str| {
        let no = world.topology().route_no(&name.parse().unwrap()).unwrap();
        (world.flow(no), world.state.routes[no.at()].hit)
    };
    let (gateway, _) = flow("gateway");
    let (preprocess, _) = flow("preprocess");
    assert!((gateway.passed / preprocess.arrived - 1.0).abs() < 1e-9);
    let (infer, _) = flow("infer");
    let (_, hit) = flow("cache");
    assert!(
        (infer.arrived / preprocess.passed - (1.0 - hit)).abs() < 0.01,
        "{hit}"
    );
}

#[test]
fn halving_the_step_changes_no_statistic() {
    // A plan and an overload, with the same seed and other noise at each step.
    let figures = |seed: u64, dt: f64| {
        let mut world = world("reference", seed, dt);
        let (mut err, mut p95, mut health, mut ticks) = (0.0, 0.0, 0.0, 0.0);
        run(&mut world, 60.0);
        world.state.nodes[0].burden.hog = 5.0;
        world.state.stale = true;
        let victim = replica(&world, "infer-2");
        world.state.kill(&Arc::clone(&world.topology), victim);
        run(&mut world, 60.0);
        order(&mut world, "edge-2", "restart(infer-2, grace=1s)");
        while world.now() < 300.0 {
            world.tick();
            let level = world.level();
            err += level.err;
            p95 += level.p95_ms;
            health += level.health();
            ticks += 1.0;
        }
        [
            err / ticks,
            p95 / ticks,
            health / ticks,
            world.state.nodes[0].temp,
        ]
    };
    const SEEDS: u64 = 60;
    let all = |dt| (0..SEEDS).map(|seed| figures(seed, dt)).collect::<Vec<_>>();
    let (whole, half) = (all(1.0), all(0.5));
    for figure in 0..4 {
        let moments = |runs: &[[f64; 4]]| {
            let n = runs.len() as f64;
            let mean = runs.iter().map(|run| run[figure]).sum::<f64>() / n;
            let square = runs
                .iter()
                .map(|run| (run[figure] - mean).powi(2))
                .sum::<f64>();
            (mean, square / (n - 1.0) / n)
        };
        let ((one, a), (other, b)) = (moments(&whole), moments(&half));
        // 2.6 deviations of the difference: an interval of 99 %.
        let within = 2.6 * (a + b).sqrt();
        assert!(
            (one - other).abs() <= within,
            "{figure}: {one} {other} within {within}"
        );
        assert!(a > 0.0, "{figure} says nothing");
    }
}

#[test]
fn a_plan_runs_its_branches_side_by_side_and_in_turn() {
    let mut world = reference(1);
    let side = order(
        &mut world,
        "edge-1",
        "(wait(4s) | wait(4s) | wait(4s)) ; wait(2s)",
    );
    let began = world.now();
    assert_eq!(end(&mut world, side, 20.0), Progress::Done);
    assert!(
        (6.0..=8.0).contains(&(world.now() - began)),
        "{}",
        world.now() - began
    );
}

#[test]
fn a_step_that_fails_has_those_before_it_taken_back() {
    let mut world = reference(1);
    let infer = replica(&world, "infer-1");
    let no = order(
        &mut world,
        "edge-1",
        "isolate(infer, infer-1, drain=1s) ; limit-cpu(infer-1, to=10%) ; \
         probe(infer-1, within=4s) ; scale-out(infer, infer-4)",
    );
    // The probe fails: a hung service answers nobody.
    world.state.hang(infer);
    assert_eq!(
        end(&mut world, no, 60.0),
        Progress::Failed {
            step: 2,
            why: Failure::Late
        }
    );
    assert_eq!(world.state.replicas[infer.at()].weight, 1.0);
    assert_eq!(world.state.replicas[infer.at()].cpu_limit, 1.0);
    assert_eq!(world.phase(replica(&world, "infer-4")), Phase::Standby);
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_a_reason() {
    let mut world = reference(1);
    let mut refused = |node: &str, plan: &str| {
        let plan = plan.parse().unwrap();
        let order = Order::Node(node.parse().unwrap(), plan);
        world.order(&order).unwrap_err().to_string()
    };
    for (node, plan, reason) in [
        (
            "edge-9",
            "wait(1s)",
            "step 0: topology reference has no node edge-9",
        ),
        (
            "edge-2",
            "wait(1s) ; restart(infer-1, grace=1s)",
            "step 1: service infer-1 is not on node edge-2",
        ),
        (
            "edge-2",
            "isolate(infer, infer-1, drain=1s)",
            "step 0: route infer is not on node edge-2",
        ),
        (
            "edge-1",
            "isolate(infer, gateway-1, drain=1s)",
            "step 0: gateway-1 is no backend of route infer",
        ),
        (
            "edge-1",
            "flush-cache(infer-1)",
            "step 0: service infer-1 offers no FlushCache",
        ),
        (
            "edge-1",
            "scale-out(infer, infer-1)",
            "step 0: service infer-1 is no standby",
        ),
        (
            "edge-1",
            "rollback-model(gateway-1, to=0011223344556677)",
            "step 0: service gateway-1 has no model",
        ),
        (
            "edge-1",
            "rollback-model(infer-1, to=0011223344556677)",
            "step 0: service infer-1 has no version 0011223344556677",
        ),
        (
            "edge-1",
            "call-webhook(infer-1, to=pray)",
            "step 0: topology reference has no webhook pray",
        ),
    ] {
        assert_eq!(refused(node, plan), reason);
    }
    order(&mut world, "edge-1", "restart(infer-1, grace=1s)");
    let again = Order::Node(
        "edge-1".parse().unwrap(),
        "freeze(infer-1)".parse().unwrap(),
    );
    assert!(matches!(
        world.order(&again),
        Err(OrderError::Contested { step: 0, .. })
    ));
}

#[test]
fn a_plan_across_nodes_needs_a_way_to_each_and_a_node_of_its_own_does_not() {
    let mut world = reference(1);
    let eth0 = world.topology().link_no("edge-2/eth0").unwrap();
    world.state.links[eth0.at()].burden.down = true;
    world.state.stale = true;
    let fleet = "edge-1: wait(1s) ; edge-2: restart(infer-2, grace=1s)";
    let no = world.order(&Order::Fleet(fleet.parse().unwrap())).unwrap();
    let why = Failure::NoAnswer;
    assert_eq!(end(&mut world, no, 20.0), Progress::Failed { step: 1, why });
    let no = order(
        &mut world,
        "edge-2",
        "switch-uplink(infer-2, to=lte0) ; restart(infer-2, grace=1s)",
    );
    assert_eq!(end(&mut world, no, 60.0), Progress::Done);
    let no = world.order(&Order::Fleet(fleet.parse().unwrap())).unwrap();
    assert_eq!(end(&mut world, no, 60.0), Progress::Done);
}

#[test]
fn preconditions_are_looked_at_when_the_time_has_come() {
    let mut world = reference(1);
    // A new store would be empty.
    let no = order(&mut world, "cloud-1", "scale-out(store, store-3)");
    let why = Failure::NoState;
    assert_eq!(end(&mut world, no, 30.0), Progress::Failed { step: 0, why });
    let no = order(
        &mut world,
        "cloud-1",
        "snapshot(store-2) ; scale-out(store, store-3)",
    );
    assert_eq!(end(&mut world, no, 60.0), Progress::Done);
    // Nobody else could lead.
    let other = replica(&world, "broker-2");
    world.state.kill(&Arc::clone(&world.topology), other);
    let no = order(
        &mut world,
        "edge-4",
        "call-webhook(broker-1, to=failover-broker)",
    );
    let why = Failure::NoOther;
    assert_eq!(end(&mut world, no, 30.0), Progress::Failed { step: 0, why });
    // Two of the other four are down.
    for node in [1, 2] {
        world
            .state
            .reboot(&Arc::clone(&world.topology), NodeNo::new(node), 300.0);
    }
    let no = order(&mut world, "edge-1", "call-webhook(infer-1, to=reboot)");
    let why = Failure::NoQuorum;
    assert_eq!(end(&mut world, no, 30.0), Progress::Failed { step: 0, why });
}

#[test]
fn a_node_that_reboots_is_away_and_has_all_its_services_back() {
    let mut world = reference(1);
    let no = order(&mut world, "edge-3", "call-webhook(infer-3, to=reboot)");
    assert_eq!(end(&mut world, no, 10.0), Progress::Done);
    assert!(!world.state.up(NodeNo::new(2)));
    run(&mut world, 20.0);
    assert!(!world.state.up(NodeNo::new(2)));
    run(&mut world, 60.0);
    assert_eq!(world.phase(replica(&world, "infer-3")), Phase::Running);
    calm(&mut world);
    assert!(world.level().meets(&Target::default()));
    assert!(world.spent().disruption > 45.0);
}

#[test]
fn a_node_whose_memory_is_more_than_full_loses_its_largest_process() {
    let mut world = reference(1);
    let infer = replica(&world, "infer-1");
    world.state.replicas[infer.at()].burden.leak_mb = 40.0;
    world.state.stale = true;
    run(&mut world, 90.0);
    let state = &world.state.replicas[infer.at()];
    assert_eq!((state.oom_kills, state.phase), (1, Phase::Dead));
    assert!(world.state.nodes[0].memory_mb < 2000.0);
}

#[test]
fn heat_throttles_and_lets_go_only_when_it_is_cool() {
    let mut world = reference(1);
    world.state.nodes[0].burden.fan_dead = true;
    world.state.nodes[0].burden.hog = 4.0;
    world.state.stale = true;
    let mut seen = Vec::new();
    for _ in 0..900 {
        world.tick();
        let freq = world.state.nodes[0].freq;
        if seen.last() != Some(&freq) {
            seen.push(freq);
        }
    }
    assert!(seen.starts_with(&[1.0, 0.6]), "{seen:?}");
    world.state.nodes[0].burden.fan_dead = false;
    run(&mut world, 300.0);
    assert_eq!(world.state.nodes[0].freq, 1.0);
}

#[test]
fn one_slow_replica_is_slow_for_its_share_and_isolating_it_helps() {
    let mut world = reference(1);
    let infer = replica(&world, "infer-1");
    world.state.replicas[infer.at()].burden.slow = 20.0;
    world.state.stale = true;
    run(&mut world, 60.0);
    assert!(!world.level().meets(&Target::default()));
    let plan = "scale-out(infer, infer-4) ; isolate(infer, infer-1, drain=2s)";
    let no = order(&mut world, "edge-1", plan);
    assert_eq!(end(&mut world, no, 60.0), Progress::Done);
    calm(&mut world);
    assert!(
        world.level().meets(&Target::default()),
        "{:?}",
        world.level()
    );
}

#[test]
fn an_overload_feeds_itself_and_a_limit_ends_it() {
    let mut world = reference(1);
    for at in [replica(&world, "infer-1"), replica(&world, "infer-2")] {
        world.state.kill(&Arc::clone(&world.topology), at);
    }
    world.state.routes[0].burden.surge = 1.5;
    run(&mut world, 60.0);
    // Whoever is not answered asks again.
    assert!(world.state.routes[0].retries > 0.5);
    let no = order(&mut world, "edge-1", "limit-rate(gateway, to=30/s)");
    assert_eq!(end(&mut world, no, 10.0), Progress::Done);
    run(&mut world, 60.0);
    let level = world.level();
    assert!(level.err < 0.02 && level.shed > 0.3, "{level:?}");
}

#[test]
fn a_silent_failure_is_told_as_done_and_does_nothing() {
    let topology = Arc::new(Topology::reference());
    let settings = Settings {
        silent: 1.0,
        ..Settings::default()
    };
    let mut world = World::with(&topology, &Incident::none(), 1, settings).unwrap();
    let infer = replica(&world, "infer-1");
    let no = order(&mut world, "edge-1", "isolate(infer, infer-1, drain=1s)");
    assert_eq!(end(&mut world, no, 10.0), Progress::Done);
    assert_eq!(world.state.replicas[infer.at()].weight, 1.0);
}

#[test]
fn no_more_plans_are_taken_than_are_bounded() {
    let mut world = reference(1);
    let wait = || Order::Node("edge-1".parse().unwrap(), "wait(1h)".parse().unwrap());
    for _ in 0..ORDERS_MAX {
        world.order(&wait()).unwrap();
    }
    assert_eq!(world.order(&wait()), Err(OrderError::TooMany));
    let mut world = reference(1);
    let first = order(&mut world, "edge-1", "wait(1s)");
    for _ in 0..ORDERS_KEPT {
        let no = order(&mut world, "edge-1", "wait(1s)");
        end(&mut world, no, 5.0);
    }
    run(&mut world, 5.0);
    assert_eq!(world.progress(first), None);
}
