//! The real gate beside the checker, over random worlds and plans.
//!
//! In: a seed and how many; out: a [`Tally`] of who said what. This is the only
//! place where the two meet: a world becomes the gate's facts here.

use std::collections::BTreeMap;

use fastrand::Rng;
use homeostat_common::budget::{Budget, Policy, Saved, Shares};
use homeostat_common::gate::{
    self, BackendFacts, Contested, Criticality, Facts, Mode, Purpose, RouteFacts, Rule,
    ServiceFacts, Window,
};
use homeostat_common::ids::{
    ConfigVersion, InterfaceId, ModelVersion, PlanId, RouteId, ServiceId, WebhookId,
};
use homeostat_common::net::SourceNet;
use homeostat_common::plan::Plan;
use homeostat_common::primitive::{Grant, Resource};
use homeostat_common::units::{Micros, Millis, PerSecond, Ratio};

use crate::draw;
use crate::rules::{Verdict, judge};
use crate::world::{Asked, Autonomy, CLASSES, Service, World};

/// The moment of every decision: late enough that what is over can be before it.
const NOW: Micros = Micros(10_000_000_000);

/// Costs so close to what is left differ by rounding alone.
const ROUNDING: f64 = 1e-6;

/// Most cases that are kept as text.
const EXAMPLES_MAX: usize = 5;

/// Who said what.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Plans that were judged by both.
    pub judged: u64,
    /// Texts that are no plan: branches side by side touch the same.
    pub no_plan: u64,
    /// Plans that the gate let through.
    pub passed: u64,
    /// Plans that the gate let through although they break a rule.
    pub violations: u64,
    /// Plans that the gate refused although the checker finds nothing.
    pub false_refusals: u64,
    /// Refusals whose rule is not one that the checker finds broken.
    pub other_rule: u64,
    /// Plans that passed at a cost that is not what the checker comes to.
    pub other_cost: u64,
    /// By rule of the gate: how often it decided.
    pub decided: BTreeMap<String, u64>,
    /// By rule of the gate: how often it decided alone, nothing else being wrong.
    pub alone: BTreeMap<String, u64>,
    /// False refusals by rule.
    pub refused_for: BTreeMap<String, u64>,
    /// Some of the violations and what else does not agree, for people.
    pub examples: Vec<String>,
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It passes, at this cost.
    Passed(f64),
    /// Refused by this rule, with its words.
    Refused(String, String),
}

/// Judges `n` plans.
#[must_use]
pub fn run(seed: u64, n: u64) -> Tally {
    run_with(seed, n, ask)
}

/// As [`run`], of another gate than the real one.
pub fn run_with(seed: u64, n: u64, mut ask: impl FnMut(&World, Asked, Plan) -> Answer) -> Tally {
    let mut rng = Rng::with_seed(seed);
    let mut tally = Tally::default();
    while tally.judged < n {
        let mut world = draw::world(&mut rng);
        let asked = draw::asked(&mut rng);
        // Several plans for one world: making it takes longest.
        for _ in 0..8 {
            let text = draw::plan(&mut rng, &world);
            let Ok(plan) = text.parse::<Plan>() else {
                tally.no_plan += 1;
                continue;
            };
            // What is judged is what the plan says of itself.
            let printed = plan.to_string();
            world.approved = draw::approved(&mut rng, &world, &printed);
            let answer = ask(&world, asked, plan);
            match judge(&world, asked, &printed) {
                Ok(verdict) => tally.add(&world, asked, &printed, &answer, &verdict),
                Err(why) => tally.note(format!("{printed}: {why}")),
            }
            if tally.judged == n {
                break;
            }
        }
    }
    tally
}

impl Tally {
    /// Both together.
    pub fn join(&mut self, other: Self) {
        self.judged += other.judged;
        self.no_plan += other.no_plan;
        self.passed += other.passed;
        self.violations += other.violations;
        self.false_refusals += other.false_refusals;
        self.other_rule += other.other_rule;
        self.other_cost += other.other_cost;
        for (own, other) in [
            (&mut self.decided, other.decided),
            (&mut self.alone, other.alone),
            (&mut self.refused_for, other.refused_for),
        ] {
            for (rule, count) in other {
                *own.entry(rule).or_default() += count;
            }
        }
        for example in other.examples {
            self.note(example);
        }
    }

    fn add(&mut self, world: &World, asked: Asked, plan: &str, answer: &Answer, verdict: &Verdict) {
        self.judged += 1;
        let close = verdict.margin.abs() < ROUNDING;
        match answer {
            Answer::Passed(cost) => {
                self.passed += 1;
                let broken = verdict
                    .broken
                    .iter()
                    .any(|rule| *rule != "budget" || !close);
                if broken {
                    self.violations += 1;
                    let broken = verdict.broken.join(", ");
                    self.note(format!(
                        "passes, and breaks {broken}: {plan}\n{asked:?} {world:#?}"
                    ));
                } else if (cost - verdict.cost).abs() > ROUNDING {
                    self.other_cost += 1;
                    let other = verdict.cost;
                    self.note(format!(
                        "costs {cost} or {other}: {plan}\n{asked:?} {world:#?}"
                    ));
                }
            }
            Answer::Refused(rule, reason) => {
                *self.decided.entry(rule.clone()).or_default() += 1;
                match verdict.broken[..] {
                    [] if rule == "budget" && close => {}
                    [] => {
                        self.false_refusals += 1;
                        *self.refused_for.entry(rule.clone()).or_default() += 1;
                    }
                    [only] if only == rule => {
                        *self.alone.entry(rule.clone()).or_default() += 1;
                    }
                    [first, ..] if first == rule => {}
                    _ => {
                        self.other_rule += 1;
                        let broken = verdict.broken.join(", ");
                        self.note(format!(
                            "refused by {rule} ({reason}), not by {broken}: {plan}"
                        ));
                    }
                }
            }
        }
    }

    fn note(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }
}

/// Asks the real gate.
///
/// # Panics
/// When a world has names that are none: those that are drawn are.
pub fn ask(world: &World, asked: Asked, plan: Plan) -> Answer {
    let purpose = match asked {
        Asked::Revive => Purpose::Revive,
        Asked::Heal(sure) => Purpose::Heal(Ratio::saturating(f32::from(sure) / 100.0)),
        Asked::Foresee(sure) => Purpose::Foresee(Ratio::saturating(f32::from(sure) / 100.0)),
        Asked::ByHand => Purpose::Operate,
    };
    match gate::verify(plan, purpose, &facts(world), &mut budget(world)) {
        Ok(verified) => Answer::Passed(verified.cost().total()),
        Err(refused) => Answer::Refused(refused.rule.to_string(), refused.reason),
    }
}

/// The names of the gate's rules, in its order.
#[must_use]
pub fn rules() -> Vec<String> {
    Rule::ALL.iter().map(ToString::to_string).collect()
}

fn budget(world: &World) -> Budget {
    let services = world.services.values();
    let shares = Shares::of(services.map(|service| Criticality::ALL[service.class]));
    let classes = world.purses.map(|purse| (purse.beta, purse.balance));
    // The form that a budget is kept in: no other way leads to any given balance.
    let bytes = postcard::to_allocvec(&(classes, None::<f64>)).expect("numbers can be written");
    let saved: Saved = postcard::from_bytes(&bytes).expect("it has this form");
    Budget::resume(Policy::default(), shares, &saved, NOW)
}

fn facts(world: &World) -> Facts {
    let services = world.services.iter();
    let routes = world.routes.iter().map(|(name, known)| {
        let backends = known.backends.iter().map(|(name, backend)| {
            let facts = BackendFacts {
                weight: backend.weight,
                healthy: backend.healthy,
            };
            (ServiceId::new(name).expect("a name"), facts)
        });
        let facts = RouteFacts {
            backends: backends.collect(),
            rate_min: known
                .rate_min
                .map(|rate| PerSecond::new(rate).expect("a rate")),
            blockable: nets(&known.blockable),
        };
        (RouteId::new(name).expect("a name"), facts)
    });
    Facts {
        now: NOW,
        mode: mode(world.autonomy),
        stopped: world.stopped.then(|| "they flap".to_owned()),
        maintenance: window(world.maintenance),
        // What another plan was approved as need not be one.
        approved: world.approved.as_ref().and_then(|plan| plan.parse().ok()),
        services: services
            .map(|(name, known)| (ServiceId::new(name).expect("a name"), service(known)))
            .collect(),
        routes: routes.collect(),
        uplinks: world
            .uplinks
            .iter()
            .map(|name| InterfaceId::new(name).expect("a name"))
            .collect(),
        webhooks: world
            .webhooks
            .iter()
            .map(|name| WebhookId::new(name).expect("a name"))
            .collect(),
        spawner: world.spawner,
        forwarder: world.forwarder,
    }
}

fn mode(autonomy: Autonomy) -> Mode {
    match autonomy {
        Autonomy::Observe => Mode::Observe,
        Autonomy::Recommend => Mode::Recommend,
        Autonomy::Ask => Mode::Ask,
        Autonomy::Act => Mode::Act,
    }
}

/// So many seconds from now.
fn moment(left: i64) -> Micros {
    Micros(NOW.0.saturating_add_signed(left * 1_000_000))
}

fn window(left: Option<i64>) -> Option<Window> {
    let why = "a new disk".to_owned();
    left.map(|left| Window {
        why,
        until: moment(left),
    })
}

fn contested((what, left): (&&str, &i64)) -> Contested {
    Contested {
        resource: match *what {
            "process" => Resource::Process,
            "model" => Resource::Model,
            "config" => Resource::Config,
            "weights" => Resource::Weights,
            other => panic!("nobody contests {other}"),
        },
        until: moment(*left),
        seen: "it changed by itself".to_owned(),
    }
}

fn service(known: &Service) -> ServiceFacts {
    let until = |left: Option<i64>| left.map(moment);
    let answering = known.answering;
    let own = known.own_autonomy.iter();
    ServiceFacts {
        mode: mode(known.autonomy),
        modes: own.map(|(name, one)| (*name, mode(*one))).collect(),
        maintenance: window(known.maintenance),
        contested: known.contested.iter().map(contested).collect(),
        protected: known.protected,
        criticality: Criticality::ALL[known.class],
        dead: known.dead,
        answering,
        health: if answering { Ratio::ONE } else { Ratio::ZERO },
        at_rest: known.at_rest,
        fresh: known.fresh,
        frozen: known.frozen.then(|| "its metrics do not move".to_owned()),
        leased: known.under_repair.then_some(PlanId(7)),
        held_until: until(known.held),
        quarantined_until: until(known.quarantined),
        backoff_until: until(known.backing_off),
        start_timeout: Millis(known.start_ms),
        models: known
            .models
            .iter()
            .map(|text| text.parse::<ModelVersion>().expect("a version"))
            .collect(),
        configs: known
            .configs
            .iter()
            .map(|text| text.parse::<ConfigVersion>().expect("a version"))
            .collect(),
        blockable: nets(&known.blockable),
        grants: known.offers.iter().map(|offer| grant(offer)).collect(),
        failure_share: Ratio::saturating(f32::from(known.failed_quarters) / 4.0),
    }
}

fn nets(texts: &[&str]) -> Vec<SourceNet> {
    let nets = texts.iter().map(|net| net.parse());
    nets.map(|net| net.expect("addresses")).collect()
}

fn grant(offer: &str) -> Grant {
    match offer {
        "prune" => Grant::Prune,
        "early" => Grant::Early,
        "standby" => Grant::Standby,
        "locks" => Grant::Locks,
        "snapshot" => Grant::Snapshot,
        "flush-cache" => Grant::FlushCache,
        "reset-pool" => Grant::ResetPool,
        "degrade" => Grant::Degrade,
        "clock" => Grant::Clock,
        "remount" => Grant::Remount,
        _ => panic!("{offer} is no offer"),
    }
}

/// The classes are the same on both sides, in the same order.
#[must_use]
pub fn classes_agree() -> bool {
    let ours = CLASSES.iter();
    ours.zip(Criticality::ALL)
        .all(|((name, weight), class)| *name == class.name() && *weight == class.weight())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Backend, Route};

    fn each(seen: &mut World, change: impl FnMut(&mut Service)) {
        seen.services.values_mut().for_each(change);
    }

    /// Whatever has this autonomy has all of it.
    fn freer(seen: &mut World, from: Autonomy) {
        let free = |one: &mut Autonomy| {
            if *one == from {
                *one = Autonomy::Act;
            }
        };
        free(&mut seen.autonomy);
        each(seen, |one| {
            free(&mut one.autonomy);
            one.own_autonomy.values_mut().for_each(free);
        });
    }

    /// The world as a gate without this rule would see it: nothing in it gives the
    /// rule a reason.
    fn blind(rule: &str, world: &World, asked: Asked) -> (World, Asked) {
        let mut seen = world.clone();
        let any = || world.services.values().next().expect("a service").clone();
        let whole = Backend {
            weight: 100,
            healthy: true,
        };
        match rule {
            "unknown-service" => drop(seen.services.insert("nobody".into(), any())),
            "unknown-route" => {
                seen.routes.insert("nowhere".into(), Route::default());
                let none = Backend {
                    weight: 0,
                    healthy: false,
                };
                for route in seen.routes.values_mut() {
                    for name in world.services.keys().cloned().chain(["nobody".into()]) {
                        route.backends.entry(name).or_insert(none);
                    }
                }
            }
            "stopped" => seen.stopped = false,
            "maintenance" => {
                seen.maintenance = None;
                each(&mut seen, |one| one.maintenance = None);
            }
            "observe-only" => freer(&mut seen, Autonomy::Observe),
            "recommend-only" => freer(&mut seen, Autonomy::Recommend),
            "needs-approval" => freer(&mut seen, Autonomy::Ask),
            "contested" => each(&mut seen, |one| one.contested.clear()),
            "protected" => each(&mut seen, |one| one.protected = false),
            "spawner-lost" => seen.spawner = true,
            "forwarder-lost" => seen.forwarder = true,
            "under-repair" => each(&mut seen, |one| one.under_repair = false),
            "hold" => each(&mut seen, |one| one.held = None),
            "quarantine" => each(&mut seen, |one| one.quarantined = None),
            "back-off" => each(&mut seen, |one| one.backing_off = None),
            "stale-telemetry" => each(&mut seen, |one| (one.fresh, one.frozen) = (true, false)),
            "low-confidence" => {
                return match asked {
                    Asked::Heal(_) => (seen, Asked::Heal(100)),
                    Asked::Foresee(_) => (seen, Asked::Foresee(100)),
                    other => (seen, other),
                };
            }
            "no-breach" => {
                if let Asked::Foresee(sure) = asked {
                    return (seen, Asked::Heal(sure));
                }
            }
            "unverified-version" => each(&mut seen, |one| {
                let all = || draw::VERSIONS.map(str::to_owned).into();
                (one.models, one.configs) = (all(), all());
            }),
            "not-allowed" => {
                each(&mut seen, |one| one.offers = crate::world::OFFERS.into());
                each(&mut seen, |one| one.blockable = vec!["0.0.0.0/0"]);
                seen.uplinks = vec!["eth0", "wwan0"];
                seen.webhooks = vec!["pager"];
                for route in seen.routes.values_mut() {
                    (route.rate_min, route.blockable) = (Some(1), vec!["0.0.0.0/0"]);
                }
            }
            "last-backend" => {
                for route in seen.routes.values_mut() {
                    route.backends.insert("e9".into(), whole);
                }
            }
            "blast-radius" => {
                for place in 0..300 {
                    seen.services.insert(format!("x{place}"), any());
                }
            }
            "budget" => seen
                .purses
                .iter_mut()
                .for_each(|purse| purse.balance = purse.beta),
            _ => panic!("no way to be blind to {rule}"),
        }
        (seen, asked)
    }

    #[test]
    fn a_gate_that_is_blind_to_a_rule_is_found_out() {
        for rule in rules() {
            let missed = (0..16).any(|seed| {
                let tally = run_with(seed, 500, |world, asked, plan| {
                    let (world, asked) = blind(&rule, world, asked);
                    ask(&world, asked, plan)
                });
                tally.violations > 0
            });
            assert!(missed, "nobody misses {rule}");
        }
    }

    #[test]
    fn nothing_that_breaks_a_rule_passes_the_gate() {
        assert!(classes_agree());
        let tally = run(1, 20_000);
        for example in &tally.examples {
            println!("{example}\n");
        }
        assert_eq!(
            (
                tally.violations,
                tally.false_refusals,
                tally.other_rule,
                tally.other_cost
            ),
            (0, 0, 0, 0),
            "{tally:#?}"
        );
        // It proves something only where every rule has had its say, and not as
        // the first of many alone.
        for rule in rules() {
            let count = |of: &BTreeMap<String, u64>| of.get(&rule).copied().unwrap_or(0);
            assert!(count(&tally.decided) >= 40, "{rule}: {tally:#?}");
            assert!(count(&tally.alone) >= 20, "{rule}: {tally:#?}");
        }
        assert!(tally.passed * 10 >= tally.judged, "{tally:#?}");
        let ours: Vec<&str> = crate::rules::RULES.iter().map(|rule| rule.0).collect();
        assert_eq!(rules(), ours, "both know the same rules");
    }
}
