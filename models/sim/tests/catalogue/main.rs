//! What the catalogue of incidents promises: each hurts, its repair ends it, twins look
//! alike but for a cue and take each other's repair ill, and nothing that development
//! needs is without practice in training.

#![allow(clippy::unwrap_used)]

mod repairs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use homeostat_sim::certify::{Certificate, Depth, Kept};
use homeostat_sim::fault::{Coupling, Incident, distance, novelty};
use homeostat_sim::topology::{Topology, Version};
use homeostat_sim::world::{Order, Progress, Settings, Target, World};

use self::repairs::{Repair, names, repair};

/// Seeds of each check; a repair has to hold on all.
const SEEDS: [u64; 3] = [1, 2, 3];
/// When healing begins, in seconds after the incident.
const BEGINS_S: f64 = 40.0;
/// When an incident is judged, in seconds after it began.
const JUDGED_S: f64 = 600.0;
/// How long users must have been served when it is judged.
const SERVED_S: f64 = 120.0;

/// When it is clear that what is left after the roots are gone is a storm of retries.
const STORM_S: f64 = 30.0;
/// Share of the usual demand that is let in to break one.
const BREAKER: f64 = 0.55;

/// How one episode went.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Outcome {
    /// Seconds after the beginning in which users were not served.
    hurt_s: f64,
    /// Seconds for which they were when it was judged.
    served_s: f64,
    roots: usize,
    /// Orders that failed, or were not taken.
    failed: usize,
}

impl Outcome {
    fn recovered(&self) -> bool {
        self.served_s >= SERVED_S
    }
}

fn topologies() -> BTreeMap<String, Arc<Topology>> {
    let all = Topology::shipped().iter();
    let read = |(name, _): &(&str, &str)| Arc::new(Topology::named(name).unwrap());
    all.map(|file| (file.0.to_owned(), read(file))).collect()
}

fn all() -> Vec<Incident> {
    let files = Incident::train().iter().chain(Incident::development());
    files
        .map(|(name, text)| Incident::read(name, text).unwrap())
        .collect()
}

/// Runs an incident; with orders, one after the other.
fn episode(topology: &Arc<Topology>, incident: &Incident, seed: u64, orders: &[&str]) -> Outcome {
    let settings = Settings {
        silent: 0.0,
        ..Settings::default()
    };
    let mut world = World::with(topology, incident, seed, settings).unwrap();
    let target = Target::default();
    let healed = !orders.is_empty();
    let mut orders = orders.iter();
    let (mut idle_s, mut broken) = (0.0, false);
    let mut under = None;
    let mut outcome = Outcome {
        hurt_s: 0.0,
        served_s: 0.0,
        roots: 0,
        failed: 0,
    };
    let onset = world.onset();
    while world.now() < onset + JUDGED_S {
        world.tick();
        if world.now() < onset {
            continue;
        }
        if world.level().meets(&target) {
            outcome.served_s += 1.0;
        } else {
            outcome.served_s = 0.0;
            outcome.hurt_s += 1.0;
        }
        if let Some(no) = under
            && world.progress(no) != Some(Progress::Underway)
        {
            outcome.failed += usize::from(world.progress(no) != Some(Progress::Done));
            under = None;
        }
        if healed && under.is_none() && orders.as_slice().is_empty() {
            idle_s += 1.0;
        }
        let storm = world.roots_left() == 0 && outcome.served_s == 0.0;
        if storm && idle_s > STORM_S && !broken {
            broken = true;
            for breaker in breakers(topology) {
                under = world.order(&order_of(topology, &breaker)).ok();
            }
        }
        if under.is_none()
            && world.now() > onset + BEGINS_S
            && let Some(order) = orders.next()
        {
            let taken = world.order(&order_of(topology, order));
            outcome.failed += usize::from(taken.is_err());
            under = taken.ok();
        }
    }
    outcome.roots = world.roots_left();
    outcome
}

/// What breaks a storm of retries, at each entry. Any outage can start one, so it belongs to no
/// repair.
fn breakers(topology: &Topology) -> Vec<String> {
    let entries = topology.routes().iter().filter(|route| route.demand > 0.0);
    let breaker = entries.map(|route| {
        let (node, name) = (&topology.nodes()[route.at.at()].name, &route.name);
        let rate = (BREAKER * route.demand).max(1.0);
        format!("{node}: limit-rate({name}, to={rate:.0}/s) ; wait(45s) ; unlimit-rate({name})")
    });
    breaker.collect()
}

/// What ends an incident: by hand, or what it was certified with.
fn known(name: &str) -> Option<Known> {
    let certified = |plan: &str| {
        let mut orders: Vec<String> = Vec::new();
        for step in plan.split(" ; ") {
            match orders.last_mut() {
                Some(last) if !step.contains(": ") => *last = format!("{last} ; {step}"),
                _ => orders.push(step.to_owned()),
            }
        }
        Known::Certified(orders)
    };
    let by_hand = repair(name).map(Known::ByHand);
    by_hand.or_else(|| Kept::of(name)?.plan.map(certified))
}

/// What ends an incident.
#[derive(Debug, Clone)]
enum Known {
    ByHand(Repair),
    Certified(Vec<String>),
}

impl Known {
    fn orders(&self) -> Vec<&str> {
        let orders = match self {
            Self::ByHand(repair) => repair.orders(),
            Self::Certified(orders) => orders,
        };
        orders.iter().map(String::as_str).collect()
    }
}

/// `NODE: PLAN`; `to=good` is the version that worked.
fn order_of(topology: &Topology, text: &str) -> Order {
    let mut text = text.to_owned();
    for replica in topology.replicas() {
        let no = topology.replica_no(&replica.name).unwrap();
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
    let (node, plan) = text.split_once(": ").unwrap();
    let plan = plan
        .parse()
        .unwrap_or_else(|error| panic!("{plan}: {error}"));
    Order::Node(node.parse().unwrap(), plan)
}

#[test]
fn every_file_reads_and_fits_its_topology_and_is_called_what_it_is_called() {
    let topologies = topologies();
    for (name, text) in Incident::train().iter().chain(Incident::development()) {
        let incident = Incident::read(name, text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(incident.name, *name);
        let topology = &topologies[&incident.topology];
        incident
            .check(topology)
            .unwrap_or_else(|error| panic!("{error}"));
        let printed = incident.to_string();
        let again = Incident::read(name, &printed).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.to_string(), printed);
    }
}

#[test]
fn every_file_of_the_folders_is_in_the_catalogue() {
    for (folder, known) in [
        ("train", Incident::train()),
        ("development", Incident::development()),
    ] {
        let path = format!("{}/faults/{folder}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(path).unwrap();
        let names = files.map(|file| file.unwrap().path());
        let incidents = names.filter(|path| path.extension().is_some_and(|end| end == "toml"));
        assert_eq!(incidents.count(), known.len(), "{folder}");
    }
}

#[test]
fn every_repair_is_of_one_incident() {
    let known: BTreeSet<String> = all().into_iter().map(|incident| incident.name).collect();
    let mut seen = BTreeSet::new();
    for name in names() {
        assert!(known.contains(name) && seen.insert(name), "{name}");
    }
}

#[test]
fn there_are_enough_and_half_are_compound() {
    assert!(Incident::train().len() >= 200 && Incident::development().len() >= 80);
    for set in [Incident::train(), Incident::development()] {
        let read = set
            .iter()
            .map(|(name, text)| Incident::read(name, text).unwrap());
        let compound = read.filter(|incident| {
            incident.faults.len() > 1 || !incident.faults[0].couplings.is_empty()
        });
        let compound = compound.count();
        assert!(2 * compound >= set.len(), "{compound} of {}", set.len());
    }
}

#[test]
fn every_incident_hurts_and_its_repair_ends_it() {
    let topologies = topologies();
    let mut wrong = Vec::new();
    for incident in all() {
        let topology = &topologies[&incident.topology];
        let (mut hurt, mut eased) = (0.0, 0.0);
        for seed in SEEDS {
            let left = episode(topology, &incident, seed, &[]);
            let Some(repair) = known(&incident.name) else {
                wrong.push(format!("{}: no repair is known", incident.name));
                break;
            };
            let mended = episode(topology, &incident, seed, &repair.orders());
            hurt += left.hurt_s;
            eased += mended.hurt_s;
            let name = &incident.name;
            if left.hurt_s < 20.0 {
                wrong.push(format!("{name} {seed}: does not hurt: {left:?}"));
            }
            match repair {
                // Without a plan: it stays, whatever is done.
                // The shortest plan may live with a root.
                Known::Certified(_) => {
                    if left.recovered() || !mended.recovered() {
                        wrong.push(format!("{name} {seed}: {left:?} is not mended: {mended:?}"));
                    }
                }
                Known::ByHand(Repair::Contain(_)) => {
                    if !incident.contain || mended.roots == 0 {
                        wrong.push(format!("{name} {seed}: is not to be contained: {mended:?}"));
                    }
                }
                Known::ByHand(Repair::Eases(_)) => {
                    if !mended.recovered() {
                        wrong.push(format!("{name} {seed}: {left:?} does not pass: {mended:?}"));
                    }
                }
                Known::ByHand(Repair::Ends(_)) => {
                    if left.recovered() {
                        wrong.push(format!("{name} {seed}: ends by itself: {left:?}"));
                    }
                    if !mended.recovered() || mended.roots > 0 || mended.failed > 0 {
                        wrong.push(format!("{name} {seed}: is not mended: {mended:?}"));
                    }
                }
            }
        }
        // It passes, and what is done makes it shorter.
        if matches!(repair(&incident.name), Some(Repair::Eases(_))) && eased > 0.8 * hurt {
            let name = &incident.name;
            wrong.push(format!("{name}: {hurt} s are not eased: {eased} s"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_incident_is_certified_and_half_are_hard() {
    let mut wrong = Vec::new();
    let mut places = BTreeMap::new();
    for (set, least) in [(Incident::train(), 100), (Incident::development(), 40)] {
        let (mut hard, mut ordered) = (0, 0);
        for (name, text) in set {
            let incident = Incident::read(name, text).unwrap();
            let Some(kept) = Kept::of(name) else {
                wrong.push(format!("{name} has no certificate"));
                continue;
            };
            if kept.topology != incident.topology {
                wrong.push(format!("{name} was certified in {}", kept.topology));
            }
            if kept.hard() {
                hard += 1;
                ordered += usize::from(kept.order_matters);
                *places.entry(kept.topology).or_insert(0) += 1;
            }
        }
        assert!(
            hard >= least && 2 * hard >= set.len(),
            "{hard} of {}",
            set.len()
        );
        assert!(2 * ordered >= hard, "{ordered} of {hard}");
    }
    assert_eq!(Kept::all().count(), all().len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(places.len(), Topology::shipped().len(), "{places:?}");
}

#[test]
fn some_incidents_are_certified_again() {
    /// Each that many incidents of the smallest fleet, and of those of the largest.
    const EVERY: usize = 9;
    let topologies = topologies();
    let mut wrong = Vec::new();
    let mut count = 0;
    let small = all().into_iter().filter(|one| one.topology == "kiosk");
    for incident in small.step_by(EVERY) {
        let kept = Kept::of(&incident.name).unwrap();
        let depth = Depth {
            steps: 2,
            ..Depth::default()
        };
        let topology = &topologies[&incident.topology];
        let again = Certificate::of(topology, &incident, depth).unwrap();
        count += 1;
        let now = (again.length(), again.length_apart());
        if (now.0.as_str(), now.1.as_str()) != (kept.length, kept.apart) {
            wrong.push(format!("{}: {now:?} now", incident.name));
        }
    }
    assert!(count >= 4, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn twins_take_each_others_repair_ill() {
    let topologies = topologies();
    let incidents = all();
    let mut wrong = Vec::new();
    let mut pairs = 0;
    for incident in &incidents {
        let Some(twin) = &incident.twin else { continue };
        let Some(twin) = incidents.iter().find(|one| one.name == *twin) else {
            wrong.push(format!("{}: its twin is not there", incident.name));
            continue;
        };
        pairs += 1;
        assert_eq!(twin.twin.as_ref(), Some(&incident.name), "{}", twin.name);
        let Some(theirs) = known(&twin.name) else {
            continue;
        };
        for seed in SEEDS {
            let topology = &topologies[&incident.topology];
            let outcome = episode(topology, incident, seed, &theirs.orders());
            if outcome.recovered() && outcome.roots == 0 {
                let name = &incident.name;
                wrong.push(format!(
                    "{name} {seed}: the repair of {} does, too",
                    twin.name
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(pairs >= 30, "{pairs}");
}

/// What an incident asks of a healer, by production.
fn productions(incident: &Incident) -> Vec<String> {
    let mut all = Vec::new();
    for fault in &incident.faults {
        all.push(fault.mechanism.to_string());
        for coupling in &fault.couplings {
            all.push(match coupling {
                Coupling::Holds { step, .. } => format!("holds {step}"),
                Coupling::Breaks { on, .. } => format!("breaks on {on}"),
                Coupling::Heals { unless, .. } => format!("heals unless {unless}"),
                other => other.kind().to_owned(),
            });
        }
    }
    all.sort();
    all.dedup();
    all
}

#[test]
fn what_development_is_made_of_is_met_twice_in_training() {
    let read = |set: &[(&str, &str)]| -> Vec<Incident> {
        let files = set.iter();
        files
            .map(|(name, text)| Incident::read(name, text).unwrap())
            .collect()
    };
    let train = read(Incident::train());
    let mut wrong = Vec::new();
    for incident in read(Incident::development()) {
        for production in productions(&incident) {
            let met = train
                .iter()
                .filter(|other| productions(other).contains(&production));
            let met = met.count();
            if met < 2 {
                wrong.push(format!(
                    "{}: {production} is met {met} times",
                    incident.name
                ));
            }
        }
        let far = novelty(&incident, &train);
        if far == 0.0 {
            wrong.push(format!("{}: is in training, too", incident.name));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn incidents_are_apart_from_one_another() {
    let all = all();
    let mut same = Vec::new();
    for (place, one) in all.iter().enumerate() {
        for other in &all[place + 1..] {
            // The same in another fleet is another one.
            let here = one.topology == other.topology;
            if here && one.faults.len() > 1 && distance(one, other) == 0.0 {
                same.push(format!("{} and {}", one.name, other.name));
            }
        }
    }
    assert!(same.is_empty(), "{same:?}");
}

#[test]
fn drawn_incidents_fit_any_topology_and_read_back() {
    let mut traps = 0;
    let mut drawn = 0;
    for topology in topologies().values() {
        for seed in 0..200 {
            for incident in Incident::generate(seed, topology) {
                drawn += 1;
                incident
                    .check(topology)
                    .unwrap_or_else(|error| panic!("{error}\n{incident}"));
                let again = Incident::read("drawn", &incident.to_string());
                let again = again.unwrap_or_else(|error| panic!("{error}\n{incident}"));
                assert_eq!(again.to_string(), incident.to_string());
                traps += usize::from(incident.twin.is_some());
                let again = Incident::generate(seed, topology);
                assert!(again.contains(&incident));
            }
        }
    }
    assert!(drawn > 1000 && traps > 400, "{drawn} {traps}");
}
