//! Incidents out of the grammar, for a topology and a seed.
//!
//! In go a seed and a topology, out comes an incident, and in about half of the cases its
//! twin. First roots are drawn, each at something that there is; then traps, from what the
//! roots allow: a trap is never about a step that nobody would think of, but about the
//! remedy of one of the roots or about what usually protects. A twin has the same roots and
//! the trap the other way round: what protected brings harm, and the remedy alone does not.
//!
//! Whether a drawn incident has a repair, and how long that is, is not known here.

use super::draw::Draw;
use super::grammar::{
    Cause, Coupling, Fault, Incident, Lines, Locus, Mechanism, Place, Step, Trigger, Visibility,
};
use super::mechanism::{places, remedies};
use super::scope::{At, Subject, Target, covers, locate, targets};
use crate::chance::{Chance, Stream};
use crate::observe::of_break;
use crate::topology::{LinkOf, Topology};

/// How many times a draw is repeated that leads nowhere; one in three does.
const DRAWS_MAX: u64 = 64;

/// What usually makes a later step harmless.
const PROTECTIVE: [Step; 6] = [
    Step::Snapshot,
    Step::PauseRollout,
    Step::ScaleOut,
    Step::LimitRate,
    Step::Degrade,
    Step::Isolate,
];

impl Incident {
    /// Draws an incident, and its twin if it has one. All of them pass
    /// [`Incident::check`].
    #[must_use]
    pub fn generate(seed: u64, topology: &Topology) -> Vec<Self> {
        let mut draw = Draw::new(Chance::new(seed, Stream::Incident));
        for _ in 0..DRAWS_MAX {
            let name = format!("drawn-{seed:016x}");
            let Some(drawn) = incident(&mut draw, topology, name) else {
                continue;
            };
            // What is drawn for a topology without replicas or links can be impossible.
            if drawn.iter().all(|one| one.check(topology).is_ok()) {
                return drawn;
            }
        }
        Vec::new()
    }
}

fn incident(draw: &mut Draw, topology: &Topology, name: String) -> Option<Vec<Incident>> {
    let roots = match draw.uniform() {
        u if u < 0.35 => 1,
        u if u < 0.8 => 2,
        _ => 3,
    };
    let mut incident = Incident {
        name,
        topology: topology.name().to_owned(),
        ..Incident::default()
    };
    for number in 0..roots {
        let fault = root(draw, topology, number)?;
        if incident
            .faults
            .iter()
            .any(|other| other.locus == fault.locus)
        {
            return None;
        }
        incident.faults.push(fault);
    }
    incident.contain = incident.faults.iter().any(|fault| {
        fault.trigger.lasts.is_none() && remedies(fault.mechanism, fault.locus.place).is_empty()
    });
    for number in 0..roots {
        if draw.often(0.4) {
            between(draw, &mut incident, number, topology);
        }
    }
    let mut all = Vec::new();
    if draw.often(0.6) && trap(draw, &mut incident, topology, &mut all).is_none() {
        return None;
    }
    all.insert(0, incident);
    for one in &mut all {
        one.about = about(one);
    }
    Some(all)
}

/// A fault at something that there is.
fn root(draw: &mut Draw, topology: &Topology, number: usize) -> Option<Fault> {
    let mechanism = *draw.one(Mechanism::ALL)?;
    if mechanism == Mechanism::Push {
        // Nothing by itself: it is what makes another one come back.
        return None;
    }
    let places: Vec<Place> = places(mechanism).collect();
    let place = *draw.one(&places)?;
    let name = draw.one(&names(topology, place))?.clone();
    let passes = matches!(mechanism, Mechanism::Surge);
    let comes_and_goes = matches!(
        mechanism,
        Mechanism::Disconnect | Mechanism::Delay | Mechanism::Lose | Mechanism::Spin
    );
    let trigger = match draw.uniform() {
        _ if passes => Trigger {
            cause: Cause::AtOnce,
            lasts: Some(draw.round(60.0, 420.0, 30.0)),
        },
        u if u < 0.2 && comes_and_goes => Trigger {
            cause: Cause::Every(draw.round(40.0, 120.0, 10.0)),
            lasts: Some(draw.round(10.0, 30.0, 5.0)),
        },
        u if u > 0.85 && number > 0 => Trigger {
            cause: Cause::After(draw.round(5.0, 60.0, 5.0)),
            lasts: None,
        },
        _ => Trigger::AT_ONCE,
    };
    let visibility = match draw.uniform() {
        u if u < 0.6 => Visibility::Clear,
        u if u < 0.85 => Visibility::Grey,
        _ => match *draw.one(Mechanism::ALL)? {
            like if like == mechanism => Visibility::Clear,
            like => Visibility::Misleading(like),
        },
    };
    Some(Fault {
        id: format!("root-{}", number + 1),
        mechanism,
        locus: Locus { place, name },
        trigger,
        strength: draw.round(0.3, 0.9, 0.05),
        couplings: Vec::new(),
        visibility,
        cues: Vec::new(),
        lines: Lines::default(),
    })
}

/// Names of all things of a kind.
pub(crate) fn names(topology: &Topology, place: Place) -> Vec<String> {
    let routes = topology.routes().iter();
    match place {
        Place::Replica | Place::File => {
            let replicas = topology
                .replicas()
                .iter()
                .filter(|replica| !replica.standby);
            replicas.map(|replica| replica.name.to_string()).collect()
        }
        Place::Service => {
            let ours = routes.filter(|route| route.outside_ms.is_none());
            ours.map(|route| route.name.to_string()).collect()
        }
        Place::Model => routes
            .filter(|r| r.model)
            .map(|r| r.name.to_string())
            .collect(),
        Place::Broker => {
            let ours = routes.filter(|route| route.outside_ms.is_none() && route.stateful);
            ours.map(|route| route.name.to_string()).collect()
        }
        Place::Outside => {
            let others = routes.filter(|route| route.outside_ms.is_some());
            others.map(|route| route.name.to_string()).collect()
        }
        Place::Node | Place::Agent => topology
            .nodes()
            .iter()
            .map(|node| node.name.to_string())
            .collect(),
        Place::Link => {
            let uplinks = topology
                .links()
                .iter()
                .filter(|l| matches!(l.of, LinkOf::Uplink(..)));
            uplinks.map(|link| link.name.clone()).collect()
        }
        Place::Site => topology
            .sites()
            .iter()
            .map(|site| site.name.to_string())
            .collect(),
    }
}

/// Couples a root with another one, where the two allow it.
fn between(draw: &mut Draw, incident: &mut Incident, number: usize, topology: &Topology) {
    let fault = &incident.faults[number];
    let mut can = Vec::new();
    let curable = !remedies(fault.mechanism, fault.locus.place).is_empty();
    let at = locate(incident, fault, topology);
    for other in incident.faults.iter().filter(|other| other.id != fault.id) {
        let theirs = remedies(other.mechanism, other.locus.place);
        if curable && !theirs.is_empty() {
            can.push(Coupling::Returns {
                unless: other.id.clone(),
                after: draw.round(10.0, 30.0, 5.0),
            });
        }
        let hides_both_ways = other.couplings.iter().any(|c| c.other() == Some(&fault.id));
        if !hides_both_ways && !theirs.is_empty() {
            can.push(Coupling::Hides {
                behind: other.id.clone(),
            });
        }
        let subjects = locate(incident, other, topology).map(|place| {
            targets(topology, other, place)
                .into_iter()
                .map(subject)
                .collect::<Vec<_>>()
        });
        if let (Ok(at), Ok(subjects)) = (&at, subjects)
            && subjects
                .iter()
                .any(|subject| covers(topology, *at, *subject))
        {
            // The repair of one needs what the other holds.
            can.extend(
                theirs
                    .iter()
                    .filter(|_| curable)
                    .map(|remedy| Coupling::Holds {
                        step: remedy.step,
                        tries: 1,
                        lockout: 180.0,
                    }),
            );
        }
    }
    if fault.mechanism.infects() && fault.locus.place == Place::Replica {
        can.push(Coupling::ReInfects);
    }
    if let Some(coupling) = draw.one(&can) {
        let coupling = coupling.clone();
        incident.faults[number].couplings.push(coupling);
    }
}

fn subject(target: Target) -> Subject {
    match target {
        Target::Replica(replica) => Subject::Replica(replica),
        Target::Route(route) => Subject::Route(route),
        Target::Node(node) | Target::Link(node, _) => Subject::Node(node),
    }
}

/// Gives the first root a trap, and puts its twin into `twins`.
fn trap(
    draw: &mut Draw,
    incident: &mut Incident,
    topology: &Topology,
    twins: &mut Vec<Incident>,
) -> Option<()> {
    let fault = &incident.faults[0];
    let remedies = remedies(fault.mechanism, fault.locus.place);
    let remedy = draw.one(remedies)?.step;
    let usable: Vec<Step> = PROTECTIVE
        .into_iter()
        .filter(|step| *step != remedy && of_break(*step) != of_break(remedy))
        .collect();
    let protects = *draw.one(&usable)?;
    let at = locate(incident, fault, topology).ok()?;
    let mut couplings = Vec::new();
    let mut reversed = Vec::new();
    let fragile = neighbour(draw, topology, at);
    match (draw.uniform(), fragile) {
        (u, Some(onto)) if u < 0.3 => {
            // The load that moves kills the next, unless there is more capacity first.
            couplings.push(Coupling::MovesLoad {
                onto,
                above: draw.round(0.7, 0.9, 0.05),
            });
            reversed.push(breaks(Step::ScaleOut, None));
            reversed.push(breaks(Step::Prewarm, None));
        }
        (u, _) if u < 0.45 => {
            couplings.push(Coupling::Heals {
                after: draw.round(50.0, 90.0, 10.0),
                unless: remedy,
            });
            couplings.push(breaks(remedy, None));
            reversed.push(breaks(protects, None));
        }
        (u, _) if u < 0.6 => {
            let push = Fault {
                id: "push".to_owned(),
                mechanism: Mechanism::Push,
                locus: pushed(topology, at)?,
                trigger: Trigger::AT_ONCE,
                strength: 0.5,
                couplings: Vec::new(),
                visibility: Visibility::Grey,
                cues: Vec::new(),
                lines: Lines::default(),
            };
            couplings.push(Coupling::Returns {
                unless: push.id.clone(),
                after: draw.round(10.0, 30.0, 5.0),
            });
            reversed.push(breaks(Step::PauseRollout, None));
            let mut twin = with(incident, &reversed);
            twin.faults.push(harm(draw, topology)?);
            twins.push(twin);
            *incident = with(incident, &couplings);
            incident.faults.push(push);
            name_twins(incident, twins);
            return Some(());
        }
        _ => {
            couplings.push(breaks(remedy, Some(protects)));
            reversed.push(breaks(protects, None));
        }
    }
    let harm = harm(draw, topology)?;
    let mut twin = with(incident, &reversed);
    twin.faults.push(harm.clone());
    twins.push(twin);
    let broken = couplings.iter().any(|one| one.other() == Some(&harm.id));
    *incident = with(incident, &couplings);
    if broken {
        incident.faults.push(harm);
    }
    name_twins(incident, twins);
    Some(())
}

fn breaks(on: Step, unless: Option<Step>) -> Coupling {
    Coupling::Breaks {
        on,
        unless,
        then: "harm".to_owned(),
    }
}

fn with(incident: &Incident, couplings: &[Coupling]) -> Incident {
    let mut incident = incident.clone();
    incident.faults[0].couplings.extend_from_slice(couplings);
    incident
}

fn name_twins(incident: &mut Incident, twins: &mut [Incident]) {
    for twin in twins {
        twin.name = format!("{}-twin", incident.name);
        twin.twin = Some(incident.name.clone());
        incident.twin = Some(twin.name.clone());
    }
}

/// What a wrong step brings, and what lasts.
fn harm(draw: &mut Draw, topology: &Topology) -> Option<Fault> {
    let (mechanism, place, held) = *draw.one(&[
        (
            Mechanism::CorruptStore,
            Place::Replica,
            Step::RestoreSnapshot,
        ),
        (Mechanism::DenyWrite, Place::File, Step::Remount),
        (Mechanism::LeakDisk, Place::File, Step::Prune),
        (
            Mechanism::DenyCredential,
            Place::Service,
            Step::RotateCredential,
        ),
    ])?;
    // Where it is felt: among what keeps state, if anything does.
    let stateful = |name: &String| {
        let mut routes = topology
            .routes()
            .iter()
            .filter(|route| route.stateful || route.writes);
        routes.any(|route| {
            let own = route
                .replicas
                .iter()
                .map(|r| topology.replicas()[r.at()].name.as_str());
            route.name.as_str() == name || own.into_iter().any(|own| own == name)
        })
    };
    let all = names(topology, place);
    let felt: Vec<_> = all.iter().filter(|name| stateful(name)).cloned().collect();
    let name = draw
        .one(if felt.is_empty() { &all } else { &felt })?
        .clone();
    Some(Fault {
        id: "harm".to_owned(),
        mechanism,
        locus: Locus { place, name },
        trigger: Trigger {
            cause: Cause::Coupled,
            lasts: None,
        },
        strength: 0.8,
        couplings: vec![Coupling::Holds {
            step: held,
            tries: 0,
            lockout: 900.0,
        }],
        visibility: Visibility::Grey,
        cues: Vec::new(),
        lines: Lines::default(),
    })
}

/// A replica that would get what another one loses.
fn neighbour(draw: &mut Draw, topology: &Topology, at: At) -> Option<String> {
    let At::Replica(here) = at else { return None };
    let route = &topology.routes()[topology.replicas()[here.at()].route.at()];
    let others: Vec<_> = route
        .replicas
        .iter()
        .filter(|other| **other != here && !topology.replicas()[other.at()].standby)
        .map(|other| topology.replicas()[other.at()].name.to_string())
        .collect();
    draw.one(&others).cloned()
}

/// Where the roll-out is that puts back what a fault at a place put there.
fn pushed(topology: &Topology, at: At) -> Option<Locus> {
    let route = match at {
        At::Replica(replica) => topology.replicas()[replica.at()].route,
        At::Route(route) => route,
        At::Outside(_) | At::Node(_) | At::Link(..) | At::Site(_) => return None,
    };
    Some(Locus {
        place: Place::Service,
        name: topology.routes()[route.at()].name.to_string(),
    })
}

fn about(incident: &Incident) -> String {
    let roots: Vec<_> = incident
        .faults
        .iter()
        .filter(|fault| fault.trigger.cause != Cause::Coupled)
        .map(|fault| format!("{} at {} ({})", fault.mechanism, fault.locus, fault.trigger))
        .collect();
    format!("Drawn from the grammar: {}.", roots.join(", "))
}
