//! Whether users are served soon after a plan, and stay so.
//!
//! In goes a world in which nothing more is done; out comes since when they are. Most plans
//! fail, and most of these visibly: where errors, or bad answers, have stood still for a
//! while and nothing is under way that could change them, it is given up early.

use crate::policy::ahead::{HELD_S, Watch};
use crate::world::{Phase, Power, Target, World};

/// Users have to be served this long after a plan: a flushed cache is cold for 100 s.
const SETTLE_S: f64 = 120.0;
/// Two spans of this length, in seconds, are compared.
const SPAN_S: f64 = 10.0;
/// How many times the most errors that users take are too many to be noise.
const FAR: f64 = 2.5;
/// What stands still falls by less, as a share.
const STILL: f64 = 0.03;
/// Share of the requests that are there again from which on it may be a storm.
const STORM: f64 = 0.02;
/// A cache that is warmer will not be much warmer.
const WARM: f64 = 0.9;

/// Since when users are served.
pub(super) fn ends(world: &World) -> Option<f64> {
    let target = Target::default();
    let mut fork = world.clone();
    let begin = fork.now();
    let mut watch = Watch::default();
    let mut before = Span::default();
    let mut span = Span::default();
    let mut next = begin + SPAN_S;
    loop {
        fork.tick();
        let now = fork.now();
        let level = fork.level();
        watch.note(&level, &target, now);
        if now < begin + SETTLE_S {
            span.note(&fork, level.err, level.quality);
            if now >= next {
                next += SPAN_S;
                let stuck = span.no_better_than(&before, &target);
                if stuck && nothing_pends(&fork, begin + SETTLE_S) {
                    return None;
                }
                before = std::mem::take(&mut span);
            }
            continue;
        }
        let since = watch.since.unwrap_or(begin);
        let relapsed = since > begin + SETTLE_S;
        let held = now - since >= HELD_S;
        if held || relapsed || !watch.met {
            return (held && watch.met && !relapsed).then_some(since);
        }
    }
}

/// The same world without those who come again and without what waits: what a storm of
/// retries is made of, which can outlive its cause. None where nobody comes again.
pub(super) fn calmed(world: &World) -> Option<World> {
    let storms = world.state.routes.iter().any(|route| route.retries > STORM);
    storms.then(|| {
        let mut calm = world.clone();
        for route in &mut calm.state.routes {
            route.again.fill(0.0);
            route.retries = 0.0;
        }
        for replica in &mut calm.state.replicas {
            replica.queue = 0.0;
        }
        calm
    })
}

/// The best of some seconds.
#[derive(Debug, Clone, Copy)]
struct Span {
    err: f64,
    quality: f64,
    waiting: f64,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            err: f64::INFINITY,
            quality: 0.0,
            waiting: f64::INFINITY,
        }
    }
}

impl Span {
    fn note(&mut self, world: &World, err: f64, quality: f64) {
        let routes = world.state.routes.iter();
        let waiting: f64 = routes.map(|route| route.queue).sum();
        self.err = self.err.min(err);
        self.quality = self.quality.max(quality);
        self.waiting = self.waiting.min(waiting);
    }

    /// It is far from good, and was no worse in the span before.
    fn no_better_than(&self, before: &Self, target: &Target) -> bool {
        let known = before.err.is_finite();
        let still = self.waiting >= (1.0 - STILL) * before.waiting;
        let errors = self.err >= FAR * target.err && self.err >= (1.0 - STILL) * before.err;
        // Noise does not touch quality.
        let bad = self.quality < target.quality - 1e-3 && self.quality <= before.quality;
        known && still && (errors || bad)
    }
}

/// Nothing is under way that changes by itself what users meet.
fn nothing_pends(world: &World, until: f64) -> bool {
    let state = &world.state;
    let starts = |phase: &Phase| matches!(phase, Phase::Starting { .. });
    let replicas = state.replicas.iter().zip(world.topology().replicas());
    let mut changing = replicas.map(|(own, known)| {
        let keeps = world.topology().routes()[known.route.at()].hit > 0.0;
        starts(&own.phase) || keeps && own.phase == Phase::Running && own.warm < WARM
    });
    let nodes = || state.nodes.iter();
    let boots = nodes().any(|node| matches!(node.power, Power::Booting { .. }));
    let cools = nodes().any(|node| node.freq < 1.0);
    !boots && !cools && !changing.any(|is| is) && !world.engine.pends(until)
}
