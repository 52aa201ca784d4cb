//! How many incidents an operator is called about, for each thing that went wrong.
//!
//! An episode is watched look by look, nobody heals; from the first alarm on what has moved goes
//! into [`homeostat_causes::group`] with the suspects of the moment. Right is an episode in
//! which each root has exactly one incident that names it at the end, and there is no other. And
//! a fleet that is well, in which one replica is restarted: right is no incident.
#![allow(clippy::cast_possible_truncation)] // shares, and numbers of parts and templates

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use homeostat_causes::group::{Anomaly, Change, Groups, IncidentNo, Look, Recovery, Settings};
use homeostat_causes::{Component, Refusal};
use homeostat_sim::fault::Incident;
use homeostat_sim::observe::Observer;
use homeostat_sim::policy::{Kind as Does, Moves, Whom};
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{OrderNo, Progress, World};

use super::core::{Known, Scene, component, graph};
use super::parts::Parts;
use super::signs::Signs;
use super::truth::{Root, Roots};
use super::watch::{Alarm, LOOK_S, QUIET_S, Recorder};
use super::weigh::Weights;

/// After the first alarm an episode goes on for so long, in seconds.
const AFTER_S: f64 = 120.0;
/// Without an alarm it ends so long after the onset.
const CAP_S: f64 = 300.0;
/// Looks without an alarm after which there is none any longer.
const CALM: u32 = 6;

/// What became of one episode.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    pub name: String,
    pub roots: Vec<Root>,
    /// Incidents that were opened, ever.
    pub opened: usize,
    /// The causes that they named at the end.
    pub causes: Vec<usize>,
}

impl Counted {
    /// Each root has exactly one incident, and there is no other.
    #[must_use]
    pub fn right(&self) -> bool {
        let once = |root: &Root| self.causes.iter().filter(|cause| root.is(**cause)).count() == 1;
        self.opened == self.roots.len() && self.roots.iter().all(once)
    }

    /// As many incidents as roots, whatever they name.
    #[must_use]
    pub fn as_many(&self) -> bool {
        self.opened == self.roots.len()
    }
}

/// What goes into the groups at one look.
#[derive(Debug, Clone)]
struct Moment {
    now: Duration,
    anomalies: Vec<Anomaly>,
    suspects: Vec<(Component, f32)>,
    recoveries: Vec<Recovery>,
}

/// An episode, look by look.
#[derive(Debug, Clone)]
pub struct Watched {
    name: String,
    parts: Arc<Parts>,
    pub roots: Vec<Root>,
    pub alarmed: bool,
    looks: Vec<Moment>,
}

impl Watched {
    /// The incidents that somebody is told of.
    ///
    /// # Errors
    /// When the fleet is larger than the core takes.
    pub fn counted(&self, settings: Settings) -> Result<Counted, Refusal> {
        let graph = graph(&self.parts, true)?;
        let mut groups = Groups::new(settings);
        let mut opened: Vec<(IncidentNo, usize)> = Vec::new();
        for look in &self.looks {
            let changes = groups.see(
                &graph,
                &Look {
                    now: look.now,
                    anomalies: &look.anomalies,
                    suspects: &look.suspects,
                    recoveries: &look.recoveries,
                },
            );
            for change in changes {
                match change {
                    Change::Opens { incident, cause } => {
                        opened.push((incident, usize::from(cause.0)));
                    }
                    Change::Blames { incident, cause } => {
                        let mut of = opened.iter_mut().filter(|(no, _)| *no == incident);
                        of.by_ref()
                            .for_each(|(_, named)| *named = usize::from(cause.0));
                    }
                    Change::Ends { .. } => {}
                }
            }
        }
        Ok(Counted {
            name: self.name.clone(),
            roots: self.roots.clone(),
            opened: opened.len(),
            causes: opened.iter().map(|(_, cause)| *cause).collect(),
        })
    }
}

/// Watches an incident.
///
/// # Errors
/// When the incident does not fit the topology.
pub fn watched(
    topology: &Arc<Topology>,
    parts: &Arc<Parts>,
    incident: &Incident,
    seed: u64,
    weights: &Weights,
) -> Result<Watched> {
    let mut world = World::new(topology, incident, seed)?;
    let mut roots = Roots::new(incident, topology, parts);
    let mut shift = Shift::new(topology, parts, seed);
    let mut alarmed_at = None;
    loop {
        let until = alarmed_at.map_or(world.onset() + CAP_S, |at: f64| at + AFTER_S);
        if world.now() >= until {
            break;
        }
        world.tick();
        roots.note(&world);
        if shift.due(&world) {
            let alarmed = shift.look(&world, weights, Vec::new());
            if alarmed && world.now() >= world.onset() {
                alarmed_at.get_or_insert(world.now());
            }
        }
    }
    Ok(Watched {
        name: incident.name.clone(),
        parts: Arc::clone(parts),
        roots: roots.so_far(),
        alarmed: alarmed_at.is_some(),
        looks: shift.looks,
    })
}

/// Restarts a replica of a fleet that is well; with `told`, the recovery is known. `None` for a
/// replica that cannot be restarted.
///
/// # Errors
/// When the order is not taken.
pub fn restarted(
    topology: &Arc<Topology>,
    parts: &Arc<Parts>,
    replica: usize,
    seed: u64,
    weights: &Weights,
    told: bool,
) -> Result<Option<Watched>> {
    /// When the restart is ordered, in seconds.
    const AT_S: f64 = 90.0;
    let moves = Moves::new(topology);
    let mine = |whom: Whom| matches!(whom, Whom::Replica(no) if no.at() == replica);
    let Some(restart) = moves.of(Does::Restart).find(|one| mine(one.whom)) else {
        return Ok(None);
    };
    let mut world = World::new(topology, &Incident::none(), seed)?;
    let mut shift = Shift::new(topology, parts, seed);
    let mut recovery: Option<(Recovery, OrderNo)> = None;
    while world.now() < AT_S + AFTER_S {
        world.tick();
        let now = Duration::from_secs_f64(world.now());
        if world.now() >= AT_S && recovery.is_none() {
            let no = world.order(&restart.order)?;
            let begun = Recovery {
                component: component(parts.replica(replica)),
                from: now,
                until: None,
            };
            recovery = Some((begun, no));
        }
        if let Some((recovery, no)) = &mut recovery
            && recovery.until.is_none()
            && world.progress(*no) != Some(Progress::Underway)
        {
            recovery.until = Some(now);
        }
        if shift.due(&world) {
            let known = recovery
                .iter()
                .filter(|_| told)
                .map(|(recovery, _)| *recovery);
            shift.look(&world, weights, known.collect());
        }
    }
    Ok(Some(Watched {
        name: topology.replicas()[replica].name.to_string(),
        parts: Arc::clone(parts),
        roots: Vec::new(),
        alarmed: false,
        looks: shift.looks,
    }))
}

/// Less than this is neither an anomaly nor suspected, whatever the settings.
const LEAST: f32 = 0.05;

/// Somebody who looks.
struct Shift<'a> {
    parts: &'a Parts,
    observer: Observer,
    recorder: Recorder<'a>,
    next: f64,
    /// The last one, which is what a diagnosis is asked about.
    alarm: Option<Alarm>,
    /// Looks since the last alarm.
    calm: u32,
    looks: Vec<Moment>,
}

impl<'a> Shift<'a> {
    fn new(topology: &'a Topology, parts: &'a Parts, seed: u64) -> Self {
        Self {
            parts,
            observer: Observer::new(seed),
            recorder: Recorder::new(topology, parts, QUIET_S),
            next: LOOK_S,
            alarm: None,
            calm: CALM,
            looks: Vec::new(),
        }
    }

    fn due(&mut self, world: &World) -> bool {
        let due = world.now() >= self.next;
        if due {
            self.next += LOOK_S;
        }
        due
    }

    /// Whether there is an alarm now.
    fn look(&mut self, world: &World, weights: &Weights, recoveries: Vec<Recovery>) -> bool {
        let alarm = self.recorder.see(&self.observer.look(world));
        let alarmed = alarm.is_some();
        self.alarm = alarm.or(self.alarm);
        self.calm = if alarmed {
            0
        } else {
            self.calm.saturating_add(1)
        };
        let mut look = Moment {
            now: Duration::from_secs_f64(world.now()),
            anomalies: Vec::new(),
            suspects: Vec::new(),
            recoveries,
        };
        // What moves without anybody being hurt is no incident.
        if self.calm < CALM {
            let told = &self.recorder.told;
            let signs = Signs::of(told, self.parts);
            for part in 0..self.parts.len() {
                let level = signs.strongest(part) as f32;
                if level > LEAST {
                    let since = signs.since(part).unwrap_or(told.times.len() - 1);
                    look.anomalies.push(Anomaly {
                        component: component(part),
                        onset: Duration::from_secs_f64(told.times[since]),
                        level,
                    });
                }
            }
            // Who called is one that is for sure.
            if let Some(alarm) = alarm {
                let since = signs
                    .since(alarm.part)
                    .unwrap_or(alarm.look.saturating_sub(2));
                look.anomalies.push(Anomaly {
                    component: component(alarm.part),
                    onset: Duration::from_secs_f64(told.times[since]),
                    level: 1.0,
                });
            }
            let scene = match self.alarm {
                Some(alarm) => Scene::of(told, alarm, self.parts, Known::ALL),
                None => Scene::at(told, told.times.len() - 1, self.parts, Known::ALL),
            };
            let evidence = scene.map_or_else(|_| Vec::new(), |scene| scene.weighable());
            let suspects = evidence
                .iter()
                .map(|one| (one.component, weights.probability(one)));
            look.suspects = suspects.filter(|(_, sure)| *sure > LEAST).collect();
        }
        self.looks.push(look);
        alarmed
    }
}
