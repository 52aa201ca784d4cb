//! Incidents of the grammar that may be what is seen.
//!
//! In goes a topology, and what is written in logs; out come faults and couplings that the
//! grammar allows, from simple to compound: whoever has a likelihood can climb from one
//! to the next. What cannot be seen (what would have protected from a harm) is drawn.

use std::collections::BTreeSet;

use super::known::as_known;
use super::particle::Particle;
use crate::chance::Chance;
use crate::fault::{
    Cause, Coupling, Cure, Fault, Incident, Lines, Locus, Mechanism, Place, Step, Trigger,
    Visibility, names, places, remedies,
};
use crate::observe::{Template, of_break, of_hold};
use crate::policy::{Kind, Move, Moves};
use crate::topology::Topology;

/// What speaks against one more fault: there are rarely many.
pub(super) const FAULT: f64 = 4.0;
/// And against one more coupling.
pub(super) const COUPLING: f64 = 0.7;
/// Strengths that are told apart.
pub(super) const STRENGTHS: [f64; 4] = [0.6, 0.3, 0.45, 0.85];

/// Each mechanism at each place of a topology.
pub(super) fn singles(topology: &Topology) -> Vec<Fault> {
    let mut all = Vec::new();
    for mechanism in Mechanism::ALL {
        for place in places(*mechanism) {
            for name in names(topology, place) {
                all.push(fault(*mechanism, place, name));
            }
        }
    }
    all
}

fn fault(mechanism: Mechanism, place: Place, name: String) -> Fault {
    let lasts = (mechanism == Mechanism::Surge).then_some(300.0);
    Fault {
        id: String::new(),
        mechanism,
        locus: Locus { place, name },
        trigger: Trigger {
            cause: Cause::AtOnce,
            lasts,
        },
        strength: STRENGTHS[0],
        couplings: Vec::new(),
        visibility: Visibility::Clear,
        cues: Vec::new(),
        lines: Lines::default(),
    }
}

/// An incident of these faults.
pub(super) fn incident(topology: &Topology, faults: Vec<Fault>) -> Incident {
    let mut incident = Incident {
        name: "believed".to_owned(),
        topology: topology.name().to_owned(),
        faults,
        ..Incident::default()
    };
    for (number, fault) in incident.faults.iter_mut().enumerate() {
        if fault.id != HARM {
            fault.id = format!("root-{number}");
        }
    }
    incident
}

/// What speaks against an incident before anything is seen.
pub(super) fn against(incident: &Incident) -> f64 {
    let roots = incident.faults.iter().filter(|fault| fault.id != HARM);
    roots
        .map(|fault| FAULT + COUPLING * fault.couplings.len() as f64)
        .sum()
}

/// The same fault as it may be otherwise: stronger or weaker, or less clear.
pub(super) fn variants(fault: &Fault) -> Vec<Fault> {
    let mut all = Vec::new();
    for strength in STRENGTHS {
        for visibility in [Visibility::Clear, Visibility::Grey, Visibility::Latent] {
            all.push(Fault {
                strength,
                visibility,
                ..fault.clone()
            });
        }
    }
    all
}

/// What a wrong step brings.
pub(super) const HARM: &str = "harm";

/// What tells incidents apart that want other plans: what is wrong, where, and its traps.
pub(super) fn kind(incident: &Incident) -> String {
    let mut all: Vec<String> = incident
        .faults
        .iter()
        .map(|fault| {
            let bound: Vec<String> = fault.couplings.iter().map(Coupling::to_string).collect();
            format!("{} {} {bound:?}", fault.mechanism, fault.locus)
        })
        .collect();
    all.sort_unstable();
    all.join(";")
}

/// What was learned besides gauges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clues<'c> {
    /// Templates that are written.
    pub(super) written: &'c [Template],
    /// Steps that were refused because what they need is held.
    pub(super) held: &'c [Step],
}

/// Incidents with one more coupling, of those that a line that is written gives away, or a
/// step that was refused.
pub(super) fn coupled(
    topology: &Topology,
    from: &Incident,
    clues: Clues<'_>,
    chance: Chance,
    drawn: &mut u64,
) -> Vec<Incident> {
    let mut all = Vec::new();
    for (at, fault) in from.faults.iter().enumerate() {
        if fault.id == HARM || fault.couplings.len() >= 2 {
            continue;
        }
        for coupling in couplings(topology, from, at, clues, chance, drawn) {
            let mut incident = from.clone();
            if coupling.other() == Some(HARM) && incident.faults.iter().all(|f| f.id != HARM) {
                incident.faults.push(harm(topology, fault));
            }
            incident.faults[at].couplings.push(coupling);
            all.push(incident);
        }
        for one in as_known(from, at, clues.written) {
            let mut incident = from.clone();
            let harms = one.couplings.iter().any(|one| one.other() == Some(HARM));
            if harms && incident.faults.iter().all(|f| f.id != HARM) {
                incident.faults.push(harm(topology, fault));
            }
            incident.faults[at] = one;
            all.push(incident);
        }
    }
    all
}

/// Moves that can make a difference to a particle: at its faults what mends them or what
/// their couplings ask for, and near them what changes who carries the load.
pub(super) fn candidates<'m>(particle: &Particle, moves: &'m Moves) -> Vec<&'m Move> {
    let mut steps: BTreeSet<Step> = BTreeSet::new();
    for fault in &particle.incident.faults {
        let cures = remedies(fault.mechanism, fault.locus.place);
        steps.extend(cures.iter().map(|cure| cure.step));
        if cures.iter().any(|cure| cure.effect == Cure::EndsForFresh) {
            steps.extend([Step::Restart, Step::ResetPool]);
        }
        for coupling in &fault.couplings {
            if let Coupling::Breaks {
                unless: Some(step), ..
            } = coupling
            {
                steps.insert(*step);
            }
        }
    }
    let world = &particle.world;
    let topology = world.topology();
    let near = world.engine.near(topology);
    let wanted = |one: &&Move| {
        let asked = one.kind.step().is_some_and(|step| steps.contains(&step));
        let load = LOAD.contains(&one.kind) && near.covers(topology, one.whom);
        load || asked && world.engine.is_at(topology, one.whom)
    };
    moves.all().iter().filter(wanted).collect()
}

/// What changes who carries the load, starts what does not run, or lets time pass.
const LOAD: [Kind; 7] = [
    Kind::Restart,
    Kind::Isolate,
    Kind::ScaleOut,
    Kind::Degrade,
    Kind::LimitRate,
    Kind::UnlimitRate,
    Kind::Wait,
];

fn couplings(
    topology: &Topology,
    incident: &Incident,
    at: usize,
    Clues { written, held }: Clues<'_>,
    chance: Chance,
    drawn: &mut u64,
) -> Vec<Coupling> {
    let fault = &incident.faults[at];
    let cure = remedies(fault.mechanism, fault.locus.place);
    let mut all = Vec::new();
    let mut uniform = || {
        *drawn += 1;
        chance.uniform(*drawn, 7)
    };
    // What would mend the others: an order between two things that are wrong.
    let others: Vec<Step> = incident
        .faults
        .iter()
        .enumerate()
        .filter(|(place, other)| *place != at && other.id != HARM)
        .flat_map(|(_, other)| remedies(other.mechanism, other.locus.place))
        .map(|one| one.step)
        .collect();
    for step in Step::ALL {
        let remedy = cure.iter().any(|one| one.step == *step);
        let theirs = others.contains(step);
        let thought_of = remedy || theirs || PROTECTIVE.contains(step);
        if thought_of && written.contains(&of_break(*step)) {
            // Most harms of a remedy have a step that would have protected from them.
            let other = others.iter().copied().find(|other| other != step);
            let unless = if uniform() < 0.5 { other } else { None };
            let unless = unless.or_else(|| protects(*step).filter(|_| uniform() < 0.7));
            all.push(Coupling::Breaks {
                on: *step,
                unless,
                then: HARM.to_owned(),
            });
        }
        let refused = held.contains(step) || written.contains(&of_hold(*step));
        if theirs && !remedy && refused {
            all.push(Coupling::Holds {
                step: *step,
                tries: 0,
                lockout: 900.0,
            });
        }
        if remedy && written.contains(&Template::FixPending) {
            all.push(Coupling::Heals {
                after: 70.0,
                unless: *step,
            });
        }
    }
    let others = incident.faults.iter().enumerate();
    for (_, other) in others.filter(|(place, other)| *place != at && other.id != HARM) {
        if !cure.is_empty() && !remedies(other.mechanism, other.locus.place).is_empty() {
            all.push(Coupling::Returns {
                unless: other.id.clone(),
                after: 20.0,
            });
        }
    }
    if fault.mechanism.infects() && fault.locus.place == Place::Replica {
        all.push(Coupling::ReInfects);
    }
    if written.contains(&Template::ReserveLow) && fault.locus.place == Place::Replica {
        let own = topology
            .replicas()
            .iter()
            .find(|own| own.name.as_str() == fault.locus.name);
        let siblings = own.map(|own| &topology.routes()[own.route.at()].replicas);
        for no in siblings.into_iter().flatten() {
            let name = topology.replicas()[no.at()].name.to_string();
            if name != fault.locus.name && !topology.replicas()[no.at()].standby {
                all.push(Coupling::MovesLoad {
                    onto: name,
                    above: 0.8,
                });
            }
        }
    }
    all.retain(|one| !fault.couplings.contains(one));
    all
}

/// What usually makes a later step harmless.
const PROTECTIVE: [Step; 6] = [
    Step::Snapshot,
    Step::PauseRollout,
    Step::ScaleOut,
    Step::LimitRate,
    Step::Degrade,
    Step::Isolate,
];

/// What is most likely to protect from the harm of a step.
fn protects(step: Step) -> Option<Step> {
    match step {
        Step::Restart | Step::Reboot | Step::Remount | Step::Freeze => Some(Step::Snapshot),
        Step::PutConfig | Step::PutModel | Step::PutBinary => Some(Step::PauseRollout),
        Step::Isolate | Step::Flush | Step::ResetPool | Step::Reroute => Some(Step::ScaleOut),
        Step::Prune => Some(Step::PutConfig),
        Step::RotateCredential => Some(Step::SyncClock),
        Step::FailoverBroker => Some(Step::RotateCredential),
        _ => None,
    }
}

/// The harm of a wrong step: what is stored is damaged, for good.
fn harm(topology: &Topology, near: &Fault) -> Fault {
    let stateful = topology.routes().iter().find(|route| route.stateful);
    let replica = stateful
        .and_then(|route| route.replicas.first())
        .map(|no| topology.replicas()[no.at()].name.to_string());
    Fault {
        id: HARM.to_owned(),
        trigger: Trigger {
            cause: Cause::Coupled,
            lasts: None,
        },
        couplings: vec![Coupling::Holds {
            step: Step::RestoreSnapshot,
            tries: 0,
            lockout: 900.0,
        }],
        strength: 0.8,
        visibility: Visibility::Grey,
        ..fault(
            Mechanism::CorruptStore,
            Place::Replica,
            replica.unwrap_or_else(|| near.locus.name.clone()),
        )
    }
}
