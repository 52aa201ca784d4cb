//! Worlds and plans at random.
//!
//! In: a seed; out: a node with services and routes, what is asked for, and a
//! printed plan about them. Most of what is drawn is in order and each kind of
//! trouble is rare, so that no rule hides the ones behind it: each is the one that
//! decides in some part of the cases, and a good part of the plans pass.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::world::{
    Asked, Autonomy, Backend, CLASSES, CONTESTABLE, OFFERS, Purse, Route, Service, World,
};

/// Discounted seconds of full outage that make up the capacity of a budget.
const HORIZON_S: f64 = 600.0;

/// Shares of capacity that the budget of a class may be; as ten-thousandths.
const BETAS: [(u32, u32); CLASSES.len()] = [(1500, 3000), (1500, 3000), (1500, 1500)];

/// Names of versions: whatever is in a slot has 16 hex digits.
pub(crate) const VERSIONS: [&str; 3] = ["00000000000000a1", "00000000000000b2", "00000000000000c3"];

/// Ranges of addresses, some within others.
const NETS: [&str; 4] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.168.0.0/24"];

/// Whether something that happens once in `n` times happens.
fn once(rng: &mut Rng, n: u32) -> bool {
    rng.u32(0..n) == 0
}

fn pick<'l, T>(rng: &mut Rng, list: &'l [T]) -> &'l T {
    &list[rng.usize(0..list.len())]
}

/// A time until which something holds: mostly none, or over.
fn until(rng: &mut Rng) -> Option<i64> {
    match rng.u32(0..40) {
        0 | 1 => Some(rng.i64(1..3600)),
        2..6 => Some(-rng.i64(0..3600)),
        _ => None,
    }
}

/// Mostly all of it.
fn autonomy(rng: &mut Rng) -> Autonomy {
    match rng.u32(0..90) {
        0 | 1 => Autonomy::Observe,
        2 | 3 => Autonomy::Recommend,
        4..7 => Autonomy::Ask,
        _ => Autonomy::Act,
    }
}

/// Primitives that a service may have an autonomy of its own for.
const GUARDED: [&str; 6] = [
    "restart",
    "freeze",
    "isolate",
    "reroute",
    "rollback-model",
    "prune-data",
];

fn own_autonomy(rng: &mut Rng) -> BTreeMap<&'static str, Autonomy> {
    const ALL: [Autonomy; 5] = [
        Autonomy::Observe,
        Autonomy::Recommend,
        Autonomy::Ask,
        Autonomy::Act,
        Autonomy::Act,
    ];
    if !once(rng, 12) {
        return BTreeMap::new();
    }
    (0..rng.u32(1..3))
        .map(|_| (*pick(rng, &GUARDED), *pick(rng, &ALL)))
        .collect()
}

fn contested(rng: &mut Rng) -> BTreeMap<&'static str, i64> {
    if !once(rng, 20) {
        return BTreeMap::new();
    }
    // One in three is over.
    (0..rng.u32(1..3))
        .map(|_| (*pick(rng, &CONTESTABLE), rng.i64(-900..1800)))
        .collect()
}

fn versions(rng: &mut Rng) -> BTreeSet<String> {
    let there = VERSIONS.iter().filter(|_| !once(rng, 4));
    there.map(|version| (*version).to_owned()).collect()
}

fn service(rng: &mut Rng) -> Service {
    let dead = once(rng, 6);
    let offered = |rng: &mut Rng| OFFERS.into_iter().filter(|_| !once(rng, 4)).collect();
    let offers: BTreeSet<&'static str> = if rng.bool() {
        offered(rng)
    } else {
        BTreeSet::new()
    };
    let at_rest = offers.contains("standby") && once(rng, 6);
    let frozen = once(rng, 60);
    Service {
        autonomy: autonomy(rng),
        own_autonomy: own_autonomy(rng),
        maintenance: until(rng),
        contested: contested(rng),
        protected: once(rng, 40),
        class: rng.usize(0..CLASSES.len()),
        dead,
        answering: !dead && !at_rest && !once(rng, 3),
        at_rest,
        fresh: !once(rng, 20),
        frozen,
        under_repair: once(rng, 30),
        held: until(rng),
        quarantined: until(rng),
        backing_off: (dead && rng.bool()).then(|| rng.i64(-200..400)),
        start_ms: *pick(rng, &[500, 10_000, 10_000, 30_000, 60_000]),
        models: versions(rng),
        configs: versions(rng),
        blockable: NETS.into_iter().filter(|_| rng.bool()).collect(),
        offers,
        failed_quarters: *pick(rng, &[0, 0, 0, 1, 2, 4]),
    }
}

/// A node.
#[must_use]
pub fn world(rng: &mut Rng) -> World {
    // Now and then so many services that more than one may be away at once.
    let count = if once(rng, 5) {
        rng.usize(20..31)
    } else {
        rng.usize(1..9)
    };
    let services: BTreeMap<String, Service> = (0..count)
        .map(|place| (format!("s{place}"), service(rng)))
        .collect();
    let names: Vec<&String> = services.keys().collect();
    let mut routes = BTreeMap::new();
    for place in 0..rng.usize(0..4) {
        let mut backends = BTreeMap::new();
        for _ in 0..rng.usize(1..5) {
            let name = if once(rng, 4) {
                format!("e{}", rng.u8(0..3))
            } else {
                (*pick(rng, &names)).clone()
            };
            let backend = Backend {
                weight: if once(rng, 5) { 0 } else { 100 },
                healthy: !once(rng, 5),
            };
            backends.insert(name, backend);
        }
        let route = Route {
            backends,
            rate_min: (!once(rng, 3)).then(|| *pick(rng, &[1, 10, 100])),
            blockable: NETS.into_iter().filter(|_| rng.bool()).collect(),
        };
        routes.insert(format!("r{place}"), route);
    }
    let weight = |service: &Service| CLASSES[service.class].1;
    let whole: f64 = services.values().map(weight).sum();
    let purses = std::array::from_fn(|class| {
        let own = services.values().filter(|service| service.class == class);
        let share = own.map(weight).sum::<f64>() / whole;
        let (least, most) = BETAS[class];
        let beta = share * HORIZON_S * f64::from(rng.u32(least..=most)) / 10_000.0;
        let left = if once(rng, 5) {
            rng.f64().powi(3)
        } else {
            1.0 - 0.3 * rng.f64()
        };
        Purse {
            beta,
            balance: beta * left.max(0.01),
        }
    });
    World {
        autonomy: autonomy(rng),
        stopped: once(rng, 40),
        maintenance: if once(rng, 3) { until(rng) } else { None },
        approved: None,
        services,
        routes,
        uplinks: ["eth0", "wwan0"]
            .into_iter()
            .filter(|_| !once(rng, 3))
            .collect(),
        webhooks: ["pager"].into_iter().filter(|_| !once(rng, 3)).collect(),
        spawner: !once(rng, 30),
        forwarder: !once(rng, 12),
        purses,
    }
}

/// What a plan is asked for.
#[must_use]
pub fn asked(rng: &mut Rng) -> Asked {
    match rng.u32(0..6) {
        0 => Asked::Revive,
        1 => Asked::ByHand,
        2 if once(rng, 12) => Asked::Foresee(rng.u8(0..50)),
        2 => Asked::Foresee(rng.u8(50..=100)),
        _ if once(rng, 12) => Asked::Heal(rng.u8(0..50)),
        _ => Asked::Heal(rng.u8(50..=100)),
    }
}

/// What a person has approved, when this plan comes up: nothing, mostly this one,
/// or another one.
#[must_use]
pub fn approved(rng: &mut Rng, world: &World, printed: &str) -> Option<String> {
    match rng.u32(0..6) {
        0..2 => Some(printed.to_owned()),
        2 => Some(plan(rng, world)),
        _ => None,
    }
}

/// A plan for this node, printed. Whether it is one, is not looked at: branches
/// side by side may touch the same.
#[must_use]
pub fn plan(rng: &mut Rng, world: &World) -> String {
    let steps = match rng.u32(0..10) {
        0..4 => 1,
        4..9 => rng.usize(2..5),
        _ => rng.usize(5..9),
    };
    // Most plans are about one service or one route.
    let theme = Theme {
        service: some_service(rng, world),
        route: some_route(rng, world),
    };
    part(rng, world, &theme, steps, false)
}

struct Theme {
    service: String,
    route: String,
}

fn some_service(rng: &mut Rng, world: &World) -> String {
    if once(rng, 80) {
        return "nobody".into();
    }
    let names: Vec<&String> = world.services.keys().collect();
    (*pick(rng, &names)).clone()
}

fn some_route(rng: &mut Rng, world: &World) -> String {
    let names: Vec<&String> = world.routes.keys().collect();
    if names.is_empty() || once(rng, 80) {
        return "nowhere".into();
    }
    (*pick(rng, &names)).clone()
}

fn some_backend(rng: &mut Rng, world: &World, theme: &Theme) -> String {
    let route = world.routes.get(&theme.route);
    let known: Vec<&String> = route
        .iter()
        .flat_map(|route| route.backends.keys())
        .collect();
    if known.is_empty() || once(rng, 40) {
        return some_service(rng, world);
    }
    if known.contains(&&theme.service) && rng.bool() {
        return theme.service.clone();
    }
    (*pick(rng, &known)).clone()
}

fn part(rng: &mut Rng, world: &World, theme: &Theme, steps: usize, inner: bool) -> String {
    if steps == 1 {
        return step(rng, world, theme);
    }
    // Of parts side by side each has a theme of its own.
    let beside = once(rng, 3);
    let first = rng.usize(1..steps);
    let own = Theme {
        service: some_service(rng, world),
        route: some_route(rng, world),
    };
    let left = part(rng, world, theme, first, true);
    let right = part(
        rng,
        world,
        if beside { &own } else { theme },
        steps - first,
        true,
    );
    let text = format!("{left} {} {right}", if beside { '|' } else { ';' });
    if inner { format!("({text})") } else { text }
}

fn span(rng: &mut Rng) -> &'static str {
    const SPANS: [&str; 7] = ["0ms", "500ms", "2s", "2s", "5s", "30s", "2m"];
    SPANS[rng.usize(0..SPANS.len())]
}

/// Primitives that take no more than a service.
const SIMPLE: [&str; 12] = [
    "unlimit-cpu",
    "prewarm",
    "clear-locks",
    "snapshot",
    "restore-snapshot",
    "flush-cache",
    "reset-pool",
    "degrade",
    "undegrade",
    "sync-clock",
    "release-uplink",
    "remount-writable",
];

/// One primitive: a new one is an arm more.
fn step(rng: &mut Rng, world: &World, theme: &Theme) -> String {
    let Theme { service, route } = theme;
    let service = if once(rng, 6) {
        some_service(rng, world)
    } else {
        service.clone()
    };
    let version = pick(rng, &VERSIONS);
    let span = span(rng);
    let percent = pick(rng, &["0%", "50%", "100%", "100%"]);
    // Routes are what some rules are about: draw them as often as services.
    let on_route = rng.bool() && !world.routes.is_empty();
    if !on_route {
        return match rng.u32(0..28) {
            0..7 => format!("restart({service}, grace={span})"),
            7 => format!("rollback-model({service}, to={version})"),
            8 => format!("switch-model({service}, to={version})"),
            9 => format!("rollback-config({service}, to={version})"),
            10 => format!("switch-config({service}, to={version})"),
            11 => format!("prune-data({service}, to={percent})"),
            12 => format!("limit-cpu({service}, to={})", pick(rng, &["1%", "50%", "100%"])),
            13..15 => format!("freeze({service})"),
            15..18 => format!("thaw({service})"),
            18 => format!("probe({service}, within={span})"),
            19 => format!("wait({span})"),
            20 => format!("escalate({service})"),
            21 => format!(
                "switch-uplink({service}, to={})",
                pick(rng, &["eth0", "wwan0"])
            ),
            22 => format!("block-port({service}, from={})", pick(rng, &NETS)),
            23 => format!("unblock-port({service}, from={})", pick(rng, &NETS)),
            24 => format!("call-webhook({service}, to=pager)"),
            _ => {
                let name = pick(rng, &SIMPLE);
                format!("{name}({service})")
            }
        };
    }
    let backend = some_backend(rng, world, theme);
    match rng.u32(0..13) {
        0..4 => format!("isolate({route}, {backend}, drain={span})"),
        4..6 => format!("release({route}, {backend})"),
        6 => {
            let to = some_backend(rng, world, theme);
            if to == backend {
                format!("release({route}, {backend})")
            } else {
                format!("reroute({route}, from={backend}, to={to}, share={percent})")
            }
        }
        7 => format!("scale-out({route}, {backend})"),
        8 => format!("scale-in({route}, {backend}, drain={span})"),
        9 => format!("limit-rate({route}, to={}/s)", pick(rng, &[1, 9, 10, 1000])),
        10 => format!("unlimit-rate({route})"),
        11 => format!("block-source({route}, from={})", pick(rng, &NETS)),
        _ => format!("unblock-source({route}, from={})", pick(rng, &NETS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_can_be_drawn_again_and_read() {
        let draw = |seed| {
            let mut rng = Rng::with_seed(seed);
            let world = world(&mut rng);
            let plan = plan(&mut rng, &world);
            (world, asked(&mut rng), plan)
        };
        for seed in 0..500 {
            let (world, asked, plan) = draw(seed);
            assert_eq!(draw(seed), (world.clone(), asked, plan.clone()));
            crate::rules::judge(&world, asked, &plan).expect("it names what is known");
        }
    }
}
