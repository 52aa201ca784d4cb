//! Plays a plan on the routes of a world: who gets traffic when a step begins, and
//! whether a route is left with nobody to count on.

use std::collections::{BTreeMap, BTreeSet};

use crate::primitives::{Meant, Takes};
use crate::world::{Backend, Route, World};

/// The routes as a plan has changed them so far.
struct Stage<'w> {
    world: &'w World,
    routes: BTreeMap<String, Route>,
    frozen: BTreeSet<String>,
}

/// Plays the plan on the routes. Returns for each step whether its service gets
/// traffic as it begins, and whether a route is left empty on the way.
pub(crate) fn play(world: &World, steps: &[Meant<'_>]) -> (Vec<bool>, bool) {
    let mut stage = Stage {
        world,
        routes: world.routes.clone(),
        frozen: BTreeSet::new(),
    };
    let mut emptied = false;
    let mut used = Vec::with_capacity(steps.len());
    for one in steps {
        let own = one.named().next();
        // What runs beside it may be under way, or have been, at any time.
        let beside: Vec<&Meant<'_>> = steps.iter().filter(|other| one.beside(other)).collect();
        let gets = own.is_some_and(|own| stage.gets_traffic(own));
        used.push(gets);
        if let Some(own) = own.filter(|_| one.does.takes != Takes::No && gets) {
            // Who is taken away for a while leaves a route empty if the others that
            // could serve were sent away by this plan, or will be back in a moment.
            for (name, before) in &world.routes {
                let now = &stage.routes[name];
                if now
                    .backends
                    .get(own)
                    .is_none_or(|backend| backend.weight == 0)
                {
                    continue;
                }
                let serving = stage.serving(name, now, own, &beside);
                let untouched = before
                    .backends
                    .iter()
                    .any(|(peer, backend)| peer != own && serves(world, peer, *backend));
                let repaired = now.backends.keys().any(|peer| {
                    peer != own && world.services.get(peer).is_some_and(|it| it.under_repair)
                });
                emptied |= !serving && (untouched || repaired);
            }
        }
        if let Some(own) = own {
            if one.does.takes == Takes::Until {
                stage.frozen.insert(own.to_owned());
            } else if one.unfreezes() {
                stage.frozen.remove(own);
            }
        }
        let Some(name) = one.route().filter(|name| world.routes.contains_key(*name)) else {
            continue;
        };
        let spared = one.spares();
        if let Some(route) = stage.routes.get_mut(name) {
            for backend in one.named() {
                if let Some(known) = route.backends.get_mut(backend) {
                    // What weight exactly does not matter here.
                    known.weight = u16::from(spared != Some(backend));
                }
            }
        }
        let route = &stage.routes[name];
        if let Some(spared) = spared {
            emptied |= !stage.serving(name, route, spared, &beside);
        }
    }
    (used, emptied)
}

impl Stage<'_> {
    /// Of a backend, whether a route sends it something; whoever is none gets its
    /// work another way.
    fn gets_traffic(&self, own: &str) -> bool {
        let mut behind = self
            .routes
            .values()
            .filter_map(|route| route.backends.get(own))
            .peekable();
        behind.peek().is_none() || behind.any(|backend| backend.weight > 0)
    }

    /// Whether a backend besides this one serves, whatever runs beside.
    fn serving(&self, name: &str, route: &Route, own: &str, beside: &[&Meant<'_>]) -> bool {
        route.backends.iter().any(|(peer, backend)| {
            let taken = beside.iter().any(|other| {
                let process =
                    other.does.takes != Takes::No && other.named().next() == Some(peer.as_str());
                let traffic = other.route() == Some(name) && other.spares() == Some(peer.as_str());
                process || traffic
            });
            peer != own
                && !taken
                && !self.frozen.contains(peer)
                && serves(self.world, peer, *backend)
        })
    }
}

/// Whether a backend serves, as far as is known: what the forwarder says of one on
/// this node may be older than what the node knows.
fn serves(world: &World, name: &str, backend: Backend) -> bool {
    let here = world.services.get(name);
    backend.healthy
        && backend.weight > 0
        && here.is_none_or(|one| one.answering && !one.under_repair && !one.at_rest)
}
