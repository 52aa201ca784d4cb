//! What would have been: for moments of incidents, the truth by forks of the world.
//!
//! At the time of a diagnosis the world is forked: in one copy nothing is done ("would it have
//! healed by itself?"), in others one action each ("would this have mended it?"): steps of one
//! kind at one unit, one after the other (a restart of a service is one of each of its
//! replicas). Healed means that users are served without a break for the last [`HELD_S`] seconds
//! of [`HORIZON_S`]. All forks meet the same chance, so they differ by the action alone. Asked
//! are all kinds of steps at a root, and as many at units that have nothing to do with it.
//!
//! An estimator gets what was seen until the fork ([`Moment::episode`], without its roots) and
//! the action; [`score`] says how good its probabilities are.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use homeostat_sim::fault::Incident;
use homeostat_sim::policy::{Kind as Does, Moves, Whom};
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{Order, Progress, Settings, Target, World};

use super::parts::Parts;
use super::truth::Root;
use super::watch::{Episode, Watch, watch};

/// From the fork on, in seconds: longer than any one step with its errand takes.
pub const HORIZON_S: f64 = 240.0;
/// The end of it in which users must be served.
pub const HELD_S: f64 = 20.0;

/// A question with its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The kind of step and the part; none for "nothing is done".
    pub action: Option<(Does, usize)>,
    /// It is about a root.
    pub aimed: bool,
    /// Users are served at the end.
    pub healed: bool,
}

/// A moment of an incident, with all that was asked about it; the first label is that of doing
/// nothing.
#[derive(Debug, Clone)]
pub struct Moment {
    pub episode: Episode,
    pub labels: Vec<Label>,
}

/// Asks about the moment of the diagnosis of an incident; `None` if nobody would have been called, or users are served at that time.
///
/// # Errors
/// When the incident does not fit the topology.
pub fn ask(
    topology: &Arc<Topology>,
    parts: &Arc<Parts>,
    incident: &Incident,
    seed: u64,
    how: Watch,
) -> Result<Option<Moment>> {
    let episode = watch(topology, parts, incident, seed, how)?;
    if episode.alarm.is_none() {
        return Ok(None);
    }
    let until = episode
        .told
        .times
        .last()
        .copied()
        .context("an alarm is at a look")?;
    // A failure without a word would make the answer one of chance.
    let settings = Settings {
        silent: 0.0,
        ..Settings::default()
    };
    let mut world = match how.quiet_s {
        None => World::with(topology, incident, seed, settings)?,
        Some(quiet) => World::with(topology, &Incident::none(), seed, settings)?
            .before(incident, seed, quiet)?,
    };
    while world.now() < until {
        world.tick();
    }
    if world.level().meets(&Target::default()) {
        return Ok(None);
    }
    let mut labels = vec![Label {
        action: None,
        aimed: false,
        healed: served(world.clone(), until + HORIZON_S),
    }];
    let moves = Moves::new(topology);
    let mut rng = fastrand::Rng::with_seed(seed);
    let units = |part: usize| unit(part, &moves, topology, parts);
    let mut asked: Vec<(Action, bool)> = Vec::new();
    for root in &episode.roots {
        asked.extend(units(root.part).into_iter().map(|action| (action, true)));
    }
    let aimed = asked.len();
    for _ in 0..OTHERS_TRIED {
        let part = rng.usize(..parts.len());
        let near = |root: &Root| root.is(part) || parts.needs(part).contains(&root.part);
        if asked.len() >= 2 * aimed || episode.roots.iter().any(near) {
            continue;
        }
        if let Some(action) = rng.choice(units(part)) {
            asked.push((action, false));
        }
    }
    for (action, aimed) in asked {
        if let Some(healed) = mends(world.clone(), &action) {
            let Action { kind, part, .. } = action;
            let label = Label {
                action: Some((kind, part)),
                aimed,
                healed,
            };
            labels.push(label);
        }
    }
    Ok(Some(Moment { episode, labels }))
}

/// Draws of units that have nothing to do with a root.
const OTHERS_TRIED: usize = 400;

/// Steps of one kind at one unit.
#[derive(Debug, Clone)]
struct Action {
    kind: Does,
    part: usize,
    orders: Vec<Order>,
}

/// What can be done at a unit.
fn unit(part: usize, moves: &Moves, topology: &Topology, parts: &Parts) -> Vec<Action> {
    let of = |whom: Whom| match whom {
        Whom::Replica(no) => {
            let own = &topology.replicas()[no.at()];
            parts.replica(no.at()) == part || (!own.standby && parts.route(own.route.at()) == part)
        }
        Whom::Route(no) => {
            let replicas = &topology.routes()[no.at()].replicas;
            parts.route(no.at()) == part || replicas.iter().any(|no| parts.replica(no.at()) == part)
        }
        Whom::Node(no) => {
            let links = &topology.nodes()[no.at()].uplinks;
            parts.node(no.at()) == part || links.iter().any(|link| parts.link(link.at()) == part)
        }
        Whom::All => false,
    };
    let mut actions: Vec<Action> = Vec::new();
    for one in moves.all() {
        if one.kind == Does::Wait || !of(one.whom) {
            continue;
        }
        match actions.iter_mut().find(|action| action.kind == one.kind) {
            Some(action) => action.orders.push(one.order.clone()),
            None => actions.push(Action {
                kind: one.kind,
                part,
                orders: vec![one.order.clone()],
            }),
        }
    }
    actions
}

/// Whether users are served after an action; `None` if none of its steps can be ordered.
fn mends(mut world: World, action: &Action) -> Option<bool> {
    let end = world.now() + HORIZON_S;
    let mut taken = false;
    for order in &action.orders {
        let Ok(no) = world.order(order) else { continue };
        taken = true;
        while world.progress(no) == Some(Progress::Underway) && world.now() < end {
            world.tick();
        }
    }
    taken.then(|| served(world, end))
}

/// Whether users are served at the end of a time.
fn served(mut world: World, end: f64) -> bool {
    let mut served = true;
    while world.now() < end {
        world.tick();
        if world.now() > end - HELD_S {
            served &= world.level().meets(&Target::default());
        }
    }
    served && world.level().meets(&Target::default())
}
/// How good probabilities are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Mean square of what they are off (Brier 1950); 0 is best.
    pub brier: f64,
    /// Share of pairs of a yes and a no that they order rightly; ties count half. Not a number
    /// where all answers are the same.
    pub auc: f64,
    pub n: usize,
}

/// Scores probabilities against answers.
#[must_use]
pub fn score(of: &[(f64, bool)]) -> Score {
    let n = of.len();
    let off = of
        .iter()
        .map(|(p, yes)| (p - f64::from(u8::from(*yes))).powi(2));
    let brier = off.sum::<f64>() / n as f64;
    let mut sorted: Vec<(f64, bool)> = of.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut pairs) = (0.0, 0.0);
    for ties in sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let yes = ties.iter().filter(|(_, yes)| *yes).count() as f64;
        let no = ties.len() as f64 - yes;
        pairs += yes * (below + no / 2.0);
        below += no;
    }
    let yes = n as f64 - below;
    Score {
        brier,
        auc: pairs / (below * yes),
        n,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rca_sim::Fleets;
    use crate::rca_sim::cases::plain;
    use homeostat_sim::fault::Split;

    #[test]
    fn some_actions_mend_what_nothing_does_not_and_answers_stay_the_same() {
        let mut fleets = Fleets::default();
        let (mut mended, mut asked) = (0, 0);
        for incident in plain(Split::Train, 24).unwrap() {
            let (topology, parts) = fleets.named(&incident.topology).unwrap();
            let moment = || ask(&topology, &parts, &incident, 5, Watch::default()).unwrap();
            let Some(Moment { labels, .. }) = moment() else {
                continue;
            };
            assert!(labels[0].action.is_none());
            if asked == 0 {
                assert_eq!(moment().unwrap().labels, labels);
            }
            asked += 1;
            let by_action = labels.iter().any(|label| label.aimed && label.healed);
            mended += usize::from(!labels[0].healed && by_action);
        }
        assert!(asked > 5 && mended > 0, "{mended} of {asked}");
    }

    #[test]
    fn brier_and_auc_by_hand() {
        let scored = score(&[(0.9, true), (0.8, false), (0.2, false), (0.4, true)]);
        assert!((scored.brier - (0.01 + 0.64 + 0.04 + 0.36) / 4.0).abs() < 1e-12);
        assert!((scored.auc - 0.75).abs() < 1e-12);
        assert!((score(&[(0.5, true), (0.5, false)]).auc - 0.5).abs() < 1e-12);
        assert!(score(&[(0.5, true)]).auc.is_nan());
    }
}
