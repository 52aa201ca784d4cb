//! Readies an incident for a topology: names become numbers, or an error with a line.

use std::sync::Arc;

use super::super::grammar::{Cause, Coupling, FAULTS_MAX, Fault, Incident, Place};
use super::super::scope::{At, locate, node_named, replica_named, route_named, targets};
use super::{Due, Engine, Gauge, Part, Run, Script, Stage, Timer, Watch};
use crate::chance::{Chance, Stream};
use crate::text::TextError;
use crate::topology::{ReplicaNo, Topology};

/// Nothing goes wrong before this, in seconds: what is well has to be seen first.
const QUIET_S: f64 = 60.0;
/// How much later the seed may move the beginning.
const QUIET_SPREAD_S: f64 = 30.0;
/// How far the seed moves a strength to either side, as a share of it.
const STRENGTH_SPREAD: f64 = 0.15;
/// Strengths on either side of this mean different things, so no seed moves one across.
const DIVIDE: f64 = 0.5;

/// Names of one incident, in one topology.
#[derive(Clone, Copy)]
struct Names<'i> {
    incident: &'i Incident,
    topology: &'i Topology,
}

impl Names<'_> {
    fn nothing(&self, line: usize, name: &str) -> TextError {
        let topology = self.topology.name();
        let reason = format!("{name:?} names nothing in topology {topology}");
        self.incident.refuse(line, reason)
    }

    fn replica(&self, name: &str, line: usize) -> Result<ReplicaNo, TextError> {
        replica_named(self.topology, name).ok_or_else(|| self.nothing(line, name))
    }

    fn fault(&self, id: &str) -> Option<usize> {
        self.incident.faults.iter().position(|fault| fault.id == id)
    }
}

impl Engine {
    /// Checks an incident against a topology, and readies it.
    ///
    /// # Errors
    /// [`TextError`] at the line that names nothing.
    pub fn new(topology: &Topology, incident: &Incident, seed: u64) -> Result<Self, TextError> {
        let chance = Chance::new(seed, Stream::Fault);
        let onset = QUIET_S + QUIET_SPREAD_S * chance.uniform(0, 0);
        Self::at(topology, incident, seed, onset)
    }

    /// The same for an incident that begins at a given time.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub(crate) fn at(
        topology: &Topology,
        incident: &Incident,
        seed: u64,
        onset: f64,
    ) -> Result<Self, TextError> {
        if incident.faults.len() > FAULTS_MAX {
            return Err(incident.refuse(0, format_args!("more than {FAULTS_MAX} faults")));
        }
        let names = Names { incident, topology };
        let chance = Chance::new(seed, Stream::Fault);
        let mut script = Script {
            faults: incident.faults.clone(),
            onset,
            ..Script::default()
        };
        let mut runs = Vec::new();
        let mut timers = Vec::new();
        let mut watches = Vec::new();
        for (number, fault) in incident.faults.iter().enumerate() {
            let at = locate(incident, fault, topology)?;
            runs.push(run(topology, fault, at));
            script.at.push(at);
            let noise = chance.uniform(0, number as u64 + 1);
            script.strength.push(moved(fault.strength, noise));
            trigger(names, number, fault, &mut script, &mut timers, &mut watches)?;
            couplings(names, number, fault, &mut script, &mut watches)?;
            let line = fault.lines.cues;
            let by = fault.cues.iter().map(|cue| cue.by.as_deref());
            let by = by.map(|by| by.map(|name| names.replica(name, line)).transpose());
            script.writers.push(by.collect::<Result<_, _>>()?);
        }
        let next = timers.iter().map(|timer: &Timer| timer.at);
        Ok(Self {
            next: next.fold(f64::INFINITY, f64::min),
            script: Arc::new(script),
            runs,
            timers,
            watches,
            dirty: false,
        })
    }
}

fn run(topology: &Topology, fault: &Fault, at: At) -> Run {
    let owner = match (fault.locus.place, at) {
        (Place::File, At::Replica(replica)) => Some(replica),
        _ => None,
    };
    let part = |target| Part {
        target,
        owner,
        root: false,
        hurts: false,
        held: false,
        infected: false,
        catches_at: f64::INFINITY,
    };
    Run {
        stage: Stage::Waiting,
        parts: targets(topology, fault, at).into_iter().map(part).collect(),
        seen: 0,
        resting: false,
        returning: false,
        tries: vec![(0, 0.0); fault.couplings.len()],
    }
}

/// A strength as this seed has it.
fn moved(strength: f64, noise: f64) -> f64 {
    let moved = strength * (1.0 + STRENGTH_SPREAD * (2.0 * noise - 1.0));
    if strength >= DIVIDE {
        moved.clamp(DIVIDE, 1.0)
    } else {
        moved.clamp(0.0, DIVIDE - 0.001)
    }
}

fn trigger(
    names: Names<'_>,
    number: usize,
    fault: &Fault,
    script: &mut Script,
    timers: &mut Vec<Timer>,
    watches: &mut Vec<Watch>,
) -> Result<(), TextError> {
    let line = fault.lines.trigger;
    let mut begin = |at| {
        timers.push(Timer {
            at,
            fault: number,
            due: Due::Begin,
        });
    };
    let mut watch = |gauge, above| {
        watches.push(Watch {
            gauge,
            above,
            fault: number,
            fragile: false,
            since: None,
        });
    };
    let mut route = None;
    let mut after = None;
    match &fault.trigger.cause {
        Cause::AtOnce | Cause::Every(_) => begin(script.onset),
        Cause::After(secs) => begin(script.onset + secs),
        Cause::Load { replica, above } => {
            watch(Gauge::Load(names.replica(replica, line)?), *above);
        }
        Cause::Heat { node, above } => {
            let found = node_named(names.topology, node);
            let node = found.ok_or_else(|| names.nothing(line, node))?;
            watch(Gauge::Heat(node), *above);
        }
        Cause::Start(name) | Cause::Death(name) => {
            let found = route_named(names.topology, name);
            route = Some(found.ok_or_else(|| names.nothing(line, name))?);
        }
        Cause::Cleared(id) => after = names.fault(id),
        Cause::Coupled => {}
    }
    script.route.push(route);
    script.after.push(after);
    Ok(())
}

fn couplings(
    names: Names<'_>,
    number: usize,
    fault: &Fault,
    script: &mut Script,
    watches: &mut Vec<Watch>,
) -> Result<(), TextError> {
    let mut fragile = Vec::new();
    let mut others = Vec::new();
    for coupling in &fault.couplings {
        others.push(coupling.other().and_then(|id| names.fault(id)));
        let mut onto = None;
        if let Coupling::MovesLoad { onto: name, above } = coupling {
            let replica = names.replica(name, fault.lines.coupling)?;
            watches.push(Watch {
                gauge: Gauge::Load(replica),
                above: *above,
                fault: number,
                fragile: true,
                since: None,
            });
            onto = Some(replica);
        }
        fragile.push(onto);
    }
    script.fragile.push(fragile);
    script.other.push(others);
    Ok(())
}
