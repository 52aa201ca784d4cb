//! Which rules a plan breaks: the table in ARCHITECTURE.md ("The gate"), written
//! anew.
//!
//! In: a world, what the plan is for, the printed plan; out: every rule that it
//! breaks, not only the first. The plan is played through step by step on a copy of
//! the routes; what runs beside a step may be under way at any time.

use std::collections::BTreeSet;

use crate::primitives::{DISK_S, Meant, Takes, meant};
use crate::routes::play;
use crate::text;
use crate::world::{Asked, Autonomy, Service, World};

/// Seconds that what a failure breaks stays broken.
const RISK_SPAN_S: f64 = 10.0;
/// Share of beta that nobody may take.
const SEED: f64 = 0.01;
/// Below, only looking is allowed; in hundredths.
const SURE: u8 = 50;

/// What nothing brings back.
const LOST: [&str; 3] = ["prune-data", "clear-locks", "flush-cache"];

fn ms(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// What is looked at.
pub(crate) struct Case<'c> {
    world: &'c World,
    asked: Asked,
    printed: &'c str,
    steps: Vec<Meant<'c>>,
    /// For each step: whether its service gets traffic as it begins.
    used: Vec<bool>,
    /// Whether some step leaves a route without a backend.
    emptied: bool,
}

/// A rule breaks where this says so.
pub(crate) type Breaks = fn(&Case<'_>) -> bool;

/// Every rule, in the order of the table.
pub(crate) const RULES: &[(&str, Breaks)] = &[
    ("unknown-service", |case| {
        let own = case.steps.iter().filter(|one| !one.on_routes());
        own.flat_map(Meant::named)
            .any(|name| !case.world.services.contains_key(name))
    }),
    ("unknown-route", |case| {
        case.steps.iter().any(|one| {
            one.route().is_some_and(|route| {
                let known = case.world.routes.get(route);
                known.is_none_or(|known| one.named().any(|name| !known.backends.contains_key(name)))
            })
        })
    }),
    ("stopped", |case| {
        case.asked != Asked::ByHand && case.world.stopped && case.writes()
    }),
    ("maintenance", |case| {
        let works = |left: Option<i64>| left.is_some_and(|left| left > 0);
        case.asked != Asked::ByHand
            && (case.changed().any(|service| works(service.maintenance))
                || case.writes() && works(case.world.maintenance))
    }),
    ("observe-only", |case| {
        case.least() == Some(Autonomy::Observe)
    }),
    ("protected", |case| {
        case.changed().any(|service| service.protected)
    }),
    ("spawner-lost", |case| !case.world.spawner && case.writes()),
    ("forwarder-lost", |case| {
        !case.world.forwarder && case.steps.iter().any(Meant::on_routes)
    }),
    ("under-repair", |case| {
        case.changed().any(|service| service.under_repair)
    }),
    ("hold", |case| case.waits(|service| service.held)),
    ("quarantine", |case| {
        case.waits(|service| service.quarantined)
    }),
    ("back-off", |case| {
        case.asked == Asked::Revive
            && case
                .changed()
                .any(|service| service.dead && service.backing_off.is_some_and(|left| left > 0))
    }),
    ("contested", |case| {
        case.asked != Asked::ByHand
            && case.writing().any(|one| {
                let named = one.named().filter_map(|name| case.world.services.get(name));
                let mut contested = named.flat_map(|service| &service.contested);
                contested.any(|(what, left)| *left > 0 && one.does.changes.contains(what))
            })
    }),
    ("stale-telemetry", |case| {
        case.asked != Asked::ByHand
            && case.changed().any(|service| {
                let old = !service.fresh && !service.dead && !service.at_rest;
                (service.frozen && !case.revives(service)) || old
            })
    }),
    ("low-confidence", |case| {
        matches!(case.asked, Asked::Heal(sure) | Asked::Foresee(sure) if sure < SURE) && {
            let targets: BTreeSet<_> = case
                .writing()
                .map(|one| one.named().next().or(one.route()))
                .collect();
            targets.len() > 1 || case.writing().any(|one| !one.does.undone)
        }
    }),
    ("no-breach", |case| {
        let lost = |one: &Meant<'_>| {
            let given = one.does.name == "prune-data"
                && one.named().any(|name| {
                    let service = case.world.services.get(name);
                    service.is_some_and(|service| service.offers.contains("early"))
                });
            LOST.contains(&one.does.name) && !given
        };
        matches!(case.asked, Asked::Foresee(_))
            && (case.steps.iter().any(lost)
                || case.taking().any(|(_, _, service)| service.answering))
    }),
    ("unverified-version", |case| {
        case.steps.iter().any(|one| {
            let service = one
                .named()
                .next()
                .and_then(|name| case.world.services.get(name));
            let there = |kept: fn(&Service) -> &BTreeSet<String>| {
                service.is_none_or(|service| {
                    one.step
                        .named("to")
                        .is_some_and(|to| kept(service).contains(to))
                })
            };
            match one.does.name {
                "rollback-model" | "switch-model" => !there(|service| &service.models),
                "rollback-config" | "switch-config" => !there(|service| &service.configs),
                _ => false,
            }
        })
    }),
    ("not-allowed", |case| {
        case.asked != Asked::ByHand && case.left_frozen()
            || case.steps.iter().any(|one| case.not_offered(one))
    }),
    ("last-backend", |case| case.emptied),
    ("blast-radius", |case| {
        let world = case.world;
        let taken: BTreeSet<&str> = case
            .taking()
            .filter(|(_, _, service)| service.answering)
            .filter_map(|(_, one, _)| one.named().next())
            .collect();
        let repaired = world.services.iter().filter(|(name, service)| {
            service.answering && service.under_repair && !taken.contains(name.as_str())
        });
        let most = (world.services.len() / 10).max(1);
        !taken.is_empty() && taken.len() + repaired.count() > most
    }),
    ("budget", |case| {
        let cost = case.cost();
        let purse = case.world.purses[case.class()];
        cost > 0.0 && cost + SEED * purse.beta > purse.balance
    }),
    ("recommend-only", |case| {
        case.least() == Some(Autonomy::Recommend)
    }),
    ("needs-approval", |case| {
        case.least() == Some(Autonomy::Ask) && case.world.approved.as_deref() != Some(case.printed)
    }),
];

impl Case<'_> {
    fn writes(&self) -> bool {
        self.writing().next().is_some()
    }

    /// The steps that change something.
    fn writing(&self) -> impl Iterator<Item = &Meant<'_>> {
        self.steps.iter().filter(|one| one.writes())
    }

    /// How far the agent goes by itself with the step that it may do least with;
    /// whoever asks by hand is no agent.
    fn least(&self) -> Option<Autonomy> {
        let world = self.world;
        let allowed = self.writing().flat_map(|one| {
            let name = one.does.name;
            let mut named = one.named().peekable();
            let whole = named.peek().is_none().then_some(world.autonomy);
            let each = named.map(move |service| {
                world
                    .services
                    .get(service)
                    .map_or(world.autonomy, |service| {
                        let own = service.own_autonomy.get(name);
                        own.copied().unwrap_or(service.autonomy)
                    })
            });
            whole.into_iter().chain(each)
        });
        allowed.min().filter(|_| self.asked != Asked::ByHand)
    }

    /// The services of this node that something changes.
    fn changed(&self) -> impl Iterator<Item = &Service> {
        let world = self.world;
        self.writing()
            .flat_map(Meant::named)
            .filter_map(move |name| world.services.get(name))
    }

    /// What is dead on the kernel's word, and is to live.
    fn revives(&self, service: &Service) -> bool {
        self.asked == Asked::Revive && service.dead
    }

    /// A healing must wait for the end of this.
    fn waits(&self, until: fn(&Service) -> Option<i64>) -> bool {
        self.asked != Asked::ByHand
            && self.changed().any(|service| {
                !self.revives(service) && until(service).is_some_and(|left| left > 0)
            })
    }

    /// The steps that take a service of this node away from somebody.
    fn taking(&self) -> impl Iterator<Item = (usize, &Meant<'_>, &Service)> {
        let world = self.world;
        let steps = self.steps.iter().enumerate().zip(&self.used);
        steps
            .filter(|((_, one), used)| **used && one.does.takes != Takes::No)
            .filter_map(move |((place, one), _)| {
                Some((place, one, world.services.get(one.named().next()?)?))
            })
    }

    /// The configuration does not offer what the step needs.
    fn not_offered(&self, one: &Meant<'_>) -> bool {
        let service = one
            .named()
            .next()
            .and_then(|name| self.world.services.get(name));
        if let Some(needs) = one.does.needs
            && !service.is_some_and(|service| service.offers.contains(needs))
        {
            return true;
        }
        let from = one.step.named("from").and_then(net);
        let blockable = |nets: &[&str]| {
            let mut nets = nets.iter().filter_map(|wide| net(wide));
            from.is_some_and(|from| nets.any(|wide| covers(wide, from)))
        };
        let to = one.step.named("to").unwrap_or_default();
        match one.does.name {
            "block-port" => {
                return service.is_some_and(|service| !blockable(&service.blockable));
            }
            "switch-uplink" => return !self.world.uplinks.contains(&to),
            "call-webhook" => return !self.world.webhooks.contains(&to),
            _ => {}
        }
        let Some(route) = one.route().and_then(|name| self.world.routes.get(name)) else {
            return false;
        };
        match one.does.name {
            "limit-rate" => {
                let to: Option<u32> = to.strip_suffix("/s").and_then(|to| to.parse().ok());
                to.zip(route.rate_min).is_none_or(|(to, min)| to < min)
            }
            "block-source" => !blockable(&route.blockable),
            _ => false,
        }
    }

    /// Something is frozen in the end.
    fn left_frozen(&self) -> bool {
        self.steps
            .iter()
            .enumerate()
            .any(|(place, one)| one.does.takes == Takes::Until && self.freed(place).is_none())
    }

    /// The step that lets go on what this one freezes.
    fn freed(&self, place: usize) -> Option<usize> {
        let own = self.steps[place].named().next();
        let mut later = self.steps.iter().enumerate().skip(place + 1);
        let found = later.find(|(_, one)| one.unfreezes() && one.named().next() == own);
        found.map(|(place, _)| place)
    }

    /// How long a step may take.
    fn limit_s(&self, place: usize) -> f64 {
        let one = &self.steps[place];
        let service = one
            .named()
            .next()
            .and_then(|name| self.world.services.get(name));
        (one.does.limit_s)(
            one.step,
            service.map_or(0.0, |service| ms(service.start_ms)),
        )
    }

    /// How long what it takes away stays away at most: of what is frozen, until it
    /// goes on, or until all in between has been taken back.
    fn away_s(&self, place: usize) -> f64 {
        let own = self.limit_s(place);
        if self.steps[place].does.takes == Takes::Once {
            return own;
        }
        let last = self.freed(place).unwrap_or(self.steps.len() - 1);
        let between = (place + 1..=last).map(|other| {
            let step = self.limit_s(other) + DISK_S;
            step * if self.steps[other].does.undone {
                2.0
            } else {
                1.0
            }
        });
        own + own + DISK_S + between.sum::<f64>()
    }

    /// Upper bound of what the plan costs.
    fn cost(&self) -> f64 {
        let mut sum = 0.0;
        for one in self.writing() {
            sum += one.does.work;
            let here = one
                .named()
                .next()
                .and_then(|name| self.world.services.get(name));
            if let Some(service) = here.filter(|service| service.answering) {
                let failed = f64::from(service.failed_quarters) / 4.0;
                sum += self.world.share(service) * RISK_SPAN_S * failed;
            }
        }
        for (place, _, service) in self.taking().filter(|(_, _, service)| service.answering) {
            sum += self.world.share(service) * self.away_s(place);
        }
        sum
    }

    /// Whose budget it is charged to: the most critical service that it changes,
    /// or, where it changes none, the least critical that there is.
    fn class(&self) -> usize {
        let here = self.world.services.values().map(|service| service.class);
        let changed = self.changed().map(|service| service.class).max();
        changed.or(here.min()).unwrap_or(0)
    }
}

/// What a plan breaks, and what it would cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The rules that it breaks, in the order of the table.
    pub broken: Vec<&'static str>,
    /// In capacity-seconds.
    pub cost: f64,
    /// How far the cost is from what is left: a rounding apart, neither answer is
    /// wrong.
    pub margin: f64,
}

/// Judges a printed plan.
///
/// # Errors
/// Where it cannot be read, or names a primitive that is not known here.
pub fn judge(world: &World, asked: Asked, printed: &str) -> Result<Verdict, String> {
    let plan = text::read(printed).map_err(|rest| format!("cannot read on at {rest:?}"))?;
    let steps = meant(&plan)?;
    let (used, emptied) = play(world, &steps);
    let case = Case {
        world,
        asked,
        printed,
        steps,
        used,
        emptied,
    };
    let broken = RULES.iter().filter(|(_, breaks)| breaks(&case));
    let purse = world.purses[case.class()];
    Ok(Verdict {
        broken: broken.map(|(name, _)| *name).collect(),
        cost: case.cost(),
        margin: purse.balance - SEED * purse.beta - case.cost(),
    })
}

/// A range of version 4 addresses: the address as a number, and the prefix.
fn net(text: &str) -> Option<(u32, u32)> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let mut number = 0;
    for part in address.split('.') {
        number = (number << 8) | u32::from(part.parse::<u8>().ok()?);
    }
    Some((number, prefix.parse().ok()?))
}

fn covers(wide: (u32, u32), narrow: (u32, u32)) -> bool {
    let behind = 32 - wide.1;
    wide.1 <= narrow.1 && (wide.0 ^ narrow.0).checked_shr(behind).unwrap_or(0) == 0
}
