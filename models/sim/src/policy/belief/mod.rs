//! Plans by belief: over the hidden states that are consistent with what is seen.
//!
//! In goes what a healer may see, and the grammar of faults; out come orders. It keeps
//! particles: incidents of the grammar, each in a world of its own that meets the same
//! orders, looked at in the same way, and weighs them by how likely what is really seen is
//! in them. It takes the plan that is worth most on average over them, and waits for
//! another look where they disagree. The teacher of a planner, because nothing that it does
//! gives away more than what can be known.
//!
//! ```text
//! quiet --what is seen fits no quiet world--> guess: single faults, then more of them,
//!   ^                                         |  then couplings, the likeliest kept
//!   |                                         v
//!   +--all roots gone in the likeliest--- weigh, plan, order <--each look
//! ```
//!
//! What it costs is bounded: [`SINGLES_KEPT`], [`KEPT`], [`GUESSES_MAX`] and [`PLANS_MAX`].
//! It takes incidents to begin with what is seen first, all faults to be there from then
//! on (but by their couplings), and what cannot be seen it draws.

mod guess;
mod known;
mod likely;
mod particle;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::guess::{Clues, against, candidates, coupled, incident, kind, singles, variants};
use self::likely::likely;
use self::particle::{Deed, Particle};
use super::ahead::{HELD_S, after, cost, outlook};
use super::oracle::{Effort, Oracle};
use super::plain::suffers;
use super::signs::Signs;
use super::{How, Moves, Policy, View};
use crate::chance::{Chance, Stream};
use crate::fault::{Fault, Incident, Step};
use crate::observe::Template;
use crate::topology::Topology;
use crate::world::{Failure, Order, Target, World};

/// Nothing goes wrong before this, in seconds.
const CALM_S: f64 = 55.0;
/// How long before it was noticed an incident may have begun, in seconds: most are seen at
/// once, some grow.
const BEGAN_S: [f64; 3] = [4.0, 14.0, 30.0];
/// Looks at which the quiet world is kept, for incidents that begin there.
const PAST: usize = 8;
/// How much less likely a quiet world has to be than it was, to be none.
const NOTICED: f64 = 14.0;
/// And how much less to act upon while users are served: chance alone moves it by some
/// twenty.
const ALARMED: f64 = 60.0;
/// After that so many seconds are waited: a rare line is written every seven.
const THINK_S: f64 = 15.0;
/// And so many more while particles disagree on what to do.
const DOUBT_S: f64 = 30.0;
/// Single faults that are looked at more closely.
const SINGLES_KEPT: usize = 24;
/// Of these at one place: what is plainest must not crowd out what else is wrong.
const SINGLES_PLACE: usize = 2;
/// Of these what is added to what is thought of already.
const PARTS: usize = 16;
/// Incidents that are gone on from.
const BEST: usize = 6;
/// Times that something is added to them.
const ROUNDS: usize = 3;
/// Particles that live.
const KEPT: usize = 24;
/// Guesses of one episode: each is about a thousand short lives.
const GUESSES_MAX: u32 = 4;
/// Between two of them, in seconds.
const GUESS_S: f64 = 45.0;
/// Plans that are looked for in one episode, each as the oracle would.
const PLANS_MAX: u32 = 24;
/// Particles in which a plan is looked for, and in which each is tried.
const PLANNED: usize = 3;
const TRIED: usize = 8;
/// Between two searches for plans, in seconds, while nothing was worth doing; twice as long
/// each time,
const REST_S: f64 = 15.0;
/// up to this.
const REST_MAX_S: f64 = 120.0;
/// No particle is quite right: likelihoods count by this root.
const TEMPER: f64 = 3.0;
/// What is ordered and not done without a word, as a share.
const SILENT: f64 = 0.03;
/// A plan looks so far, and no further than this is it looked at.
const EFFORT: Effort = Effort {
    depth: 4,
    beam: 8,
    settle: 50.0,
    hold: 50.0,
};
const NEAR_S: f64 = 60.0;
/// How much better than nothing a plan has to be.
const WORTH: f64 = 0.03;
/// With this share of the belief a plan needs no more looks.
const SURE: f64 = 0.6;

/// See the module.
#[derive(Debug)]
pub struct Belief {
    chance: Chance,
    drawn: u64,
    topology: Option<Arc<Topology>>,
    signs: Signs,
    /// The world in which nothing goes wrong, and how likely it was while nothing did.
    quiet: Option<(Particle, f64)>,
    /// As it was at the looks before something was noticed, the oldest first.
    past: VecDeque<Particle>,
    noticed: Option<f64>,
    /// How much less likely the quiet world is than it was.
    strange: f64,
    looks: Vec<f64>,
    deeds: Vec<Deed>,
    particles: Vec<Particle>,
    /// When it was guessed last, and how well the best guess explained it.
    guessed: Option<(f64, f64)>,
    guesses: u32,
    plans: u32,
    rest: f64,
    rest_until: f64,
    /// Steps that were refused because what they need is held.
    held: Vec<Step>,
    /// What is left of the last plan.
    plan: Vec<Order>,
}

impl Belief {
    /// One with chance of its own: its worlds are never those of the episode.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed, Stream::Policy),
            drawn: 0,
            topology: None,
            signs: Signs::default(),
            quiet: None,
            past: VecDeque::new(),
            noticed: None,
            strange: 0.0,
            looks: Vec::new(),
            deeds: Vec::new(),
            particles: Vec::new(),
            guessed: None,
            guesses: 0,
            plans: 0,
            rest: 0.0,
            rest_until: 0.0,
            held: Vec::new(),
            plan: Vec::new(),
        }
    }

    /// Moves the world in which nothing goes wrong on, and says how likely it is.
    fn quiet(&mut self, view: &View<'_>) -> Option<f64> {
        let at = view.seen.at;
        let topology = self
            .topology
            .get_or_insert_with(|| Arc::new(view.topology.clone()));
        if self.quiet.is_none() {
            let quiet = Particle::quiet(topology, self.chance.bits(0, 1)).ok()?;
            self.quiet = Some((quiet, f64::NEG_INFINITY));
        }
        let (quiet, usual) = self.quiet.as_mut()?;
        quiet.look(at);
        if self.noticed.is_none() {
            if self.past.len() == PAST {
                self.past.pop_front();
            }
            self.past.push_back(quiet.clone());
        }
        if at <= CALM_S {
            return None;
        }
        let now = likely(&self.signs, quiet);
        *usual = usual.max(now);
        Some(now - *usual)
    }

    /// What an incident that began then would have come to by now.
    fn lived(&self, incident: Incident, onset: f64) -> Option<Particle> {
        let from = self.past.iter().rev().find(|one| one.world.now() <= onset);
        let from = from.or(self.past.front())?;
        let seed = self.chance.bits(1, 0);
        let before = against(&incident);
        let particle = from.before(Arc::new(incident), seed, onset, before);
        let mut particle = particle.ok()?;
        particle.live(&self.looks, &self.deeds);
        particle.likely = likely(&self.signs, &particle) - particle.against;
        Some(particle)
    }

    /// Incidents that explain what is seen, the likeliest first.
    fn guess(&mut self, now: f64) {
        let Some(topology) = self.topology.clone() else {
            return;
        };
        let noticed = self.noticed.unwrap_or(now);
        let of = |own: &Self, faults: Vec<Fault>, onset: f64| {
            own.lived(incident(&topology, faults), onset)
        };
        let all = singles(&topology);
        let mut one: Vec<Particle> = all
            .into_iter()
            .filter_map(|fault| of(self, vec![fault], noticed - BEGAN_S[0]))
            .collect();
        best(&mut one, usize::MAX);
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        one.retain(|particle| {
            let place = particle.incident.faults[0].locus.name.clone();
            let count = places.entry(place).or_insert(0);
            *count += 1;
            *count <= SINGLES_PLACE
        });
        one.truncate(SINGLES_KEPT);
        let close: Vec<Particle> = one
            .iter()
            .flat_map(|particle| variants(&particle.incident.faults[0]))
            .filter_map(|fault| of(self, vec![fault], noticed - BEGAN_S[0]))
            .collect();
        // Of each fault the likeliest of its variants.
        let mut parts: Vec<Particle> = close;
        likeliest_of_each(&mut parts);
        let earlier: Vec<Particle> = parts
            .iter()
            .flat_map(|particle| {
                let faults = &particle.incident.faults;
                let began = BEGAN_S.into_iter().skip(1);
                began.filter_map(|before| of(self, faults.clone(), noticed - before))
            })
            .collect();
        parts.extend(earlier);
        likeliest_of_each(&mut parts);
        parts.truncate(PARTS);
        let written: Vec<Template> = Template::ALL
            .iter()
            .copied()
            .filter(|template| {
                let least = if self.signs.usual(*template) { 4 } else { 1 };
                self.signs.lines_all(*template) >= least
            })
            .collect();
        let mut all = parts.clone();
        let mut from = parts.clone();
        from.truncate(BEST);
        for _ in 0..ROUNDS {
            let mut more = Vec::new();
            for particle in &from {
                let faults = &particle.incident.faults;
                for part in &parts {
                    let fault = &part.incident.faults[0];
                    let same = |other: &Fault| {
                        other.locus == fault.locus && other.mechanism == fault.mechanism
                    };
                    if faults.iter().any(same) {
                        continue;
                    }
                    let both = faults.iter().cloned().chain([fault.clone()]);
                    more.extend(of(self, both.collect(), particle.onset));
                }
                let mut drawn = self.drawn;
                let next = coupled(
                    &topology,
                    &particle.incident,
                    Clues {
                        written: &written,
                        held: &self.held,
                    },
                    self.chance,
                    &mut drawn,
                );
                self.drawn = drawn;
                more.extend(
                    next.into_iter()
                        .filter_map(|one| self.lived(one, particle.onset)),
                );
            }
            best(&mut more, KEPT);
            from = more.iter().take(BEST).cloned().collect();
            all.extend(more);
        }
        // Of each kind the likeliest: strengths alone want no other plan.
        best(&mut all, usize::MAX);
        let mut kinds = BTreeSet::new();
        all.retain(|particle| kinds.insert(kind(&particle.incident)));
        all.truncate(KEPT);
        self.guesses += 1;
        self.guessed = Some((now, all.first().map_or(0.0, |best| best.likely)));
        self.particles = all;
        self.plan.clear();
    }

    /// The likeliest, each with its share of the belief.
    fn shares(&self) -> Vec<(f64, &Particle)> {
        let best = self.particles.first().map_or(0.0, |best| best.likely);
        let weigh = |particle: &Particle| libm::exp((particle.likely - best) / TEMPER);
        let all: Vec<_> = self
            .particles
            .iter()
            .take(TRIED)
            .map(|particle| (weigh(particle), particle))
            .collect();
        let sum: f64 = all.iter().map(|(share, _)| share).sum();
        all.into_iter()
            .map(|(share, particle)| (share / sum.max(1e-12), particle))
            .collect()
    }

    /// The plan that is worth most on average, with its share of success; empty if none is
    /// worth more than nothing.
    fn choose(&mut self, moves: &Moves, left: f64) -> (Vec<Order>, f64) {
        let shares = self.shares();
        let mut plans: Vec<Vec<Order>> = vec![Vec::new()];
        let mut looked = 0;
        for (share, particle) in shares.iter().take(PLANNED) {
            if *share < 0.05 {
                break;
            }
            let idle = settled(&particle.world);
            let near = candidates(particle, moves);
            let plan = Oracle::plan_of(&idle, &near, left, EFFORT).orders;
            looked += 1;
            if !plan.is_empty() && !plans.contains(&plan) {
                plans.push(plan);
            }
        }
        let mut scored: Vec<(f64, f64, Vec<Order>)> = Vec::new();
        for plan in plans {
            let (mut worth, mut ends) = (0.0, 0.0);
            for (share, particle) in &shares {
                let (own, served) = value(&settled(&particle.world), &plan, left);
                worth += share * own;
                ends += share * f64::from(u8::from(served));
            }
            scored.push((worth, ends, plan));
        }
        self.plans += looked;
        let nothing = scored.first().map_or(0.0, |(worth, _, _)| *worth);
        let best = scored
            .into_iter()
            .reduce(|best, one| if one.0 > best.0 { one } else { best });
        match best {
            Some((worth, ends, plan)) if worth > nothing + WORTH => (plan, ends),
            _ => (Vec::new(), 0.0),
        }
    }
}

/// Keeps the likeliest, the likeliest first.
fn best(particles: &mut Vec<Particle>, count: usize) {
    particles.sort_by(|a, b| b.likely.total_cmp(&a.likely));
    particles.truncate(count);
}

/// Of each fault alone the likeliest, the likeliest first.
fn likeliest_of_each(parts: &mut Vec<Particle>) {
    best(parts, usize::MAX);
    let mut known = BTreeSet::new();
    parts.retain(|particle| {
        let fault = &particle.incident.faults[0];
        known.insert((fault.mechanism, fault.locus.clone()))
    });
}

/// A world after what it has under way.
fn settled(world: &World) -> World {
    let mut fork = world.clone();
    for _ in 0..60 {
        if fork.idle() {
            break;
        }
        fork.tick();
    }
    fork
}

/// What a plan is worth in one world, and whether it ends the incident there. A step that
/// fails ends it; what was done until then stays.
fn value(world: &World, plan: &[Order], left: f64) -> (f64, bool) {
    let mut now = world.clone();
    for order in plan {
        match after(&now, order) {
            Some(then) => now = then,
            None => break,
        }
    }
    let cost = cost(world, &now, plan);
    if cost > left {
        return (0.0, false);
    }
    let end = outlook(&now, &Target::default(), NEAR_S, HELD_S);
    let served = end.served.is_some();
    let worth = if served {
        let seconds = end.served.unwrap_or(0.0) - world.now();
        1.0 - 0.001 * seconds - 0.05 * end.roots.min(2) as f64
    } else {
        0.3 * end.later
    };
    (worth - 0.002 * cost, served)
}

impl Policy for Belief {
    fn name(&self) -> &'static str {
        "belief"
    }

    fn see(&mut self, view: &View<'_>) {
        let now = view.seen.at;
        self.signs.see(view.topology, view.seen);
        self.looks.push(now);
        let quiet = self.quiet(view);
        self.strange = quiet.unwrap_or(0.0);
        if self.noticed.is_none() && quiet.is_some_and(|less| less < -NOTICED) {
            self.noticed = Some(now);
        }
        for ended in view.ended {
            let done = ended.how == How::Done;
            let taken = !matches!(ended.how, How::Refused(_) | How::TooDear);
            if !done {
                self.plan.clear();
            }
            if let How::Failed(Failure::Held(_)) = ended.how {
                // What was thought of did not hold it.
                let all = view.moves.all().iter();
                let step = all.filter(|one| one.order == ended.order);
                self.held.extend(step.filter_map(|one| one.kind.step()));
                self.guessed = None;
            }
            let Some(deed) = self.deeds.last_mut().filter(|deed| deed.ended.is_none()) else {
                continue;
            };
            if taken {
                deed.ended = Some((now, done));
                // Where it was told of, it happens after this look.
            } else {
                self.deeds.pop();
            }
        }
        for particle in &mut self.particles {
            particle.look(now);
        }
        if let Some(deed) = self.deeds.last()
            && let Some((at, done)) = deed.ended
            && at == now
        {
            for particle in &mut self.particles {
                particle.ended(done);
            }
        }
        for particle in &mut self.particles {
            particle.likely = likely(&self.signs, particle) - particle.against;
        }
        best(&mut self.particles, KEPT);
    }

    fn why(&self) -> String {
        let Some((share, best)) = self.shares().into_iter().next() else {
            return String::new();
        };
        let faults = best.incident.faults.iter();
        let faults: Vec<String> = faults
            .map(|fault| format!("{} at {}", fault.mechanism, fault.locus))
            .collect();
        format!("{:.0} % {}", 100.0 * share, faults.join(", "))
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Order> {
        let now = view.seen.at;
        let Some(noticed) = self.noticed else {
            return Vec::new();
        };
        let suffers = suffers(&self.signs, view.topology);
        let alarmed = suffers || self.strange < -ALARMED;
        if !alarmed || now < noticed + THINK_S || now < self.rest_until {
            return Vec::new();
        }
        if let Some(order) = self.next() {
            return self.carry_out(order, now);
        }
        let explained = self.particles.first().map(|best| best.likely);
        let again = match (self.guessed, explained) {
            (Some((at, then)), Some(now_likely)) => {
                now - at > GUESS_S && (suffers || now_likely < then - NOTICED)
            }
            _ => true,
        };
        if again && self.guesses < GUESSES_MAX {
            self.guess(now);
        }
        let gone: f64 = self
            .shares()
            .iter()
            .filter(|(_, particle)| particle.world.roots_left() == 0)
            .map(|(share, _)| share)
            .sum();
        if (gone > 0.8 && !suffers) || self.plans >= PLANS_MAX {
            return Vec::new();
        }
        let (plan, ends) = self.choose(view.moves, view.left);
        // Where they disagree another look may tell.
        if plan.is_empty() || (ends < SURE && now < noticed + DOUBT_S) {
            if plan.is_empty() {
                self.rest = (2.0 * self.rest).clamp(REST_S, REST_MAX_S);
                self.rest_until = now + self.rest;
            } else {
                // What was guessed from little is guessed again.
                self.guessed = None;
            }
            return Vec::new();
        }
        self.rest = 0.0;
        self.plan = plan;
        match self.next() {
            Some(order) => self.carry_out(order, now),
            None => Vec::new(),
        }
    }
}

impl Belief {
    fn next(&mut self) -> Option<Order> {
        (!self.plan.is_empty()).then(|| self.plan.remove(0))
    }

    /// Has it happen in all particles as well; in copies of the likeliest it fails without a
    /// word.
    fn carry_out(&mut self, order: Order, now: f64) -> Vec<Order> {
        let silent = self.particles.iter().take(TRIED).cloned().map(|mut copy| {
            let price = -libm::log(SILENT);
            copy.against += price;
            copy.likely -= price;
            copy
        });
        let silent: Vec<Particle> = silent.collect();
        for particle in &mut self.particles {
            particle.order(&order);
        }
        self.particles.extend(silent);
        self.deeds.push(Deed {
            at: now,
            order: order.clone(),
            ended: None,
        });
        vec![order]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episode::{Episode, Rules};
    use crate::policy::Healer;

    fn heal(name: &str, seed: u64) -> crate::episode::Outcome {
        let topology = Arc::new(Topology::reference());
        let incident = Incident::named(name).unwrap();
        let mut episode = Episode::new(&topology, &incident, seed, Rules::default()).unwrap();
        episode.run(&mut Healer::Sees(Box::new(Belief::new(seed))))
    }

    #[test]
    fn it_finds_out_what_is_wrong_by_what_is_seen() {
        for name in ["clock-skew", "slow-replica"] {
            let outcome = heal(name, 3);
            assert!(outcome.recovered, "{name}: {outcome:?}");
        }
        assert_eq!(heal("clock-skew", 3), heal("clock-skew", 3));
    }
}
