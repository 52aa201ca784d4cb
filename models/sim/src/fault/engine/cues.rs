//! What faults have written into logs: the lines of their mechanisms, and those that
//! give their couplings away.
//!
//! Nothing here is noise; that, and the lines of services that are well, are added by
//! [`crate::observe`].

use std::collections::BTreeMap;

use super::super::grammar::{CUE_RATE_MIN, Coupling, Incident, Visibility};
use super::super::scope::Target;
use super::{Engine, Stage};
use crate::observe::{
    CLEAR_RATE, COUPLING_RATE, GREY_RATE, Template, of_break, of_hold, of_mechanism,
};
use crate::text::TextError;
use crate::topology::{ReplicaNo, RouteNo, Topology};
use crate::world::World;

/// Lines of one template that one replica writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Writes {
    /// Who.
    pub(crate) replica: ReplicaNo,
    /// What.
    pub(crate) template: Template,
    /// How often, per second.
    pub(crate) rate: f64,
}

impl Engine {
    /// All that is written now because of faults, in the order of the incident.
    pub(crate) fn cues(&self, topology: &Topology) -> Vec<Writes> {
        let mut cues = Vec::new();
        for fault in 0..self.runs.len() {
            self.cues_of(topology, fault, &mut cues);
        }
        cues
    }

    fn cues_of(&self, topology: &Topology, fault: usize, cues: &mut Vec<Writes>) {
        let run = &self.runs[fault];
        let what = &self.script.faults[fault];
        if run.stage == Stage::Waiting {
            return;
        }
        let rooted = run.rooted() || run.returning;
        let hurting = run.parts.iter().filter(|part| part.hurts && !run.resting);
        let hidden = self.hidden(fault);
        // The mechanism speaks where it hurts.
        for part in hurting.filter(|_| !hidden) {
            let own = of_mechanism(what.mechanism, what.locus.place);
            let faint = own.get(..1).unwrap_or(own);
            // Whose files they are writes of them; else whoever is there.
            let writers = match part.owner {
                Some(owner) => vec![owner],
                None => writers(topology, part.target),
            };
            match &what.visibility {
                Visibility::Clear => write(cues, &writers, own, CLEAR_RATE),
                Visibility::Grey => write(cues, &writers, faint, GREY_RATE),
                Visibility::Misleading(like) => {
                    write(
                        cues,
                        &writers,
                        of_mechanism(*like, what.locus.place),
                        CLEAR_RATE,
                    );
                    write(cues, &writers, faint, GREY_RATE);
                }
                Visibility::Latent => {}
            }
        }
        if !rooted {
            return;
        }
        // Couplings give themselves away at the first thing that the fault is at.
        let first = run
            .parts
            .iter()
            .find(|part| part.root)
            .or(run.parts.first());
        let place = first.map(|part| match part.owner {
            Some(owner) => vec![owner],
            None => writers(topology, part.target),
        });
        let place = place.unwrap_or_default();
        for (coupling, fragile) in what.couplings.iter().zip(&self.script.fragile[fault]) {
            let template = match coupling {
                Coupling::Breaks { on, .. } => of_break(*on),
                Coupling::Holds { step, .. } => of_hold(*step),
                Coupling::Heals { .. } => Template::FixPending,
                Coupling::MovesLoad { .. } => {
                    let fragile: Vec<_> = fragile.iter().copied().collect();
                    write(cues, &fragile, &[Template::ReserveLow], COUPLING_RATE);
                    continue;
                }
                // These show by what they do.
                Coupling::ReInfects | Coupling::Returns { .. } | Coupling::Hides { .. } => continue,
            };
            write(cues, &place, &[template], COUPLING_RATE);
        }
        for (cue, by) in what.cues.iter().zip(&self.script.writers[fault]) {
            let by = by.map(|replica| vec![replica]);
            write(
                cues,
                by.as_ref().unwrap_or(&place),
                &[cue.template],
                cue.rate,
            );
        }
    }
}

/// Adds lines; the rate is that of all writers together.
fn write(cues: &mut Vec<Writes>, writers: &[ReplicaNo], templates: &[Template], rate: f64) {
    for template in templates {
        for replica in writers {
            cues.push(Writes {
                replica: *replica,
                template: *template,
                rate: rate / writers.len() as f64,
            });
        }
    }
}

/// In whose logs it is that something is wrong with a thing.
fn writers(topology: &Topology, target: Target) -> Vec<ReplicaNo> {
    let first = |route: RouteNo| topology.routes()[route.at()].replicas.first().copied();
    match target {
        Target::Replica(replica) => vec![replica],
        // A service itself, or, where it is somebody else's, those who call it.
        Target::Route(route) => match first(route) {
            Some(replica) => vec![replica],
            None => {
                let callers = topology.routes().iter();
                let calls =
                    callers.filter(|caller| caller.calls.iter().any(|call| call.to == route));
                calls
                    .filter_map(|caller| caller.replicas.first().copied())
                    .collect()
            }
        },
        // What the kernel of a node says stands in the logs of all on it.
        Target::Node(node) | Target::Link(node, _) => topology.nodes()[node.at()]
            .replicas
            .iter()
            .take(1)
            .copied()
            .collect(),
    }
}

/// When it is asked what an incident has written, in seconds after it began: before that
/// nobody could tell it from its twin.
const TOLD_S: f64 = 30.0;

/// Whether two incidents of a topology differ, half a minute after they began, by a line
/// that is written often enough to be seen in time.
pub(crate) fn told_apart(one: &Incident, other: &Incident, topology: &Topology) -> bool {
    let (Ok(one), Ok(other)) = (written(one, topology), written(other, topology)) else {
        return false;
    };
    let more = |from: &Written, than: &Written| {
        from.iter().any(|(key, rate)| {
            // Against nothing, or against clearly less.
            let there = than.get(key).copied().unwrap_or(0.0);
            rate - there >= CUE_RATE_MIN && there <= 0.5 * rate
        })
    };
    more(&one, &other) || more(&other, &one)
}

/// Lines per second, by who writes which.
type Written = BTreeMap<(usize, Template), f64>;

fn written(incident: &Incident, topology: &Topology) -> Result<Written, TextError> {
    let mut world = World::new(topology, incident, 1)?;
    while world.now() < world.onset() + TOLD_S {
        world.tick();
    }
    let mut rates = Written::new();
    for cue in world.engine.cues(topology) {
        *rates.entry((cue.replica.at(), cue.template)).or_insert(0.0) += cue.rate;
    }
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_differ_by_a_line_that_is_seen_in_time() {
        for (name, text) in Incident::train().iter().chain(Incident::development()) {
            let one = Incident::read(name, text).unwrap();
            let Some(twin) = &one.twin else { continue };
            let topology = Topology::named(&one.topology).unwrap();
            let twin = Incident::named(twin).unwrap();
            assert!(told_apart(&one, &twin, &topology), "{name}");
            assert!(!told_apart(&one, &one, &topology), "{name}");
        }
    }

    #[test]
    fn a_fault_is_silent_before_it_begins_and_speaks_afterwards() {
        let incident = Incident::named("deadlock").unwrap();
        let topology = Topology::reference();
        let mut world = World::new(&topology, &incident, 1).unwrap();
        world.tick();
        assert!(world.engine.cues(&topology).is_empty());
        let holder = topology.replica_no(&"infer-1".parse().unwrap()).unwrap();
        let told = written(&incident, &topology).unwrap();
        assert!(told.contains_key(&(holder.at(), Template::LockWait)));
    }
}
