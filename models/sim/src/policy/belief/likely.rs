//! How likely what is seen is in a hidden state.
//!
//! In go the signs of the real fleet and a particle, out comes the logarithm of a
//! likelihood, up to a constant: counts of log lines by Poisson around what the particle
//! writes, gauges by how far they are from the particle's in units of what noise and chance
//! move them. No single reading counts for more than a bound: no particle is quite right.

use super::super::signs::{Gauge, Signs};
use super::particle::Particle;
use crate::observe::Template;
use crate::topology::{LinkNo, ReplicaNo, RouteNo};

/// Lines of any template that nobody expected, in the last while.
const STRAY: f64 = 0.05;
/// Most that one template of one replica speaks against a particle.
const LINE_MOST: f64 = 8.0;
/// Most that one gauge does.
const GAUGE_MOST: f64 = 6.0;
/// Most that a process or a node does that is gone in one and there in the other.
const GONE: f64 = 8.0;

pub(super) fn likely(real: &Signs, particle: &Particle) -> f64 {
    lines(real, particle) + replicas(real, particle) + nodes(real, particle) + paths(real, particle)
}

fn lines(real: &Signs, particle: &Particle) -> f64 {
    let expected = particle.lines();
    let mut sum = 0.0;
    for (at, own) in expected.chunks_exact(Template::ALL.len()).enumerate() {
        let no = ReplicaNo::new(at);
        for (template, mean) in Template::ALL.iter().zip(own) {
            let mean = mean + STRAY;
            let count = f64::from(real.lines(no, *template));
            // Beside the best mean for this count.
            let against = if count > 0.0 {
                count * libm::log(count / mean) - (count - mean)
            } else {
                mean
            };
            sum -= against.min(LINE_MOST);
        }
    }
    sum
}

/// A difference in units of what chance moves it.
fn apart(difference: f64, usual: f64) -> f64 {
    let units = difference / usual;
    -(0.5 * units * units).min(GAUGE_MOST)
}

fn by_share(real: &Gauge, here: &Gauge, usual: f64) -> f64 {
    apart(
        real.above() - here.above(),
        usual * (1.0 + real.above().abs()),
    )
}

fn by_value(real: &Gauge, here: &Gauge, other: f64, usual: f64) -> f64 {
    apart(real.or(other) - here.or(other), usual)
}

fn replicas(real: &Signs, particle: &Particle) -> f64 {
    let here = &particle.signs;
    let mut sum = 0.0;
    for at in 0..real.replicas.len().min(here.replicas.len()) {
        let no = ReplicaNo::new(at);
        let (one, other) = (&real.replicas[at], &here.replicas[at]);
        if (one.down > 0) != (other.down > 0) {
            sum -= GONE;
            continue;
        }
        sum += by_value(&one.right, &other.right, 1.0, 0.06);
        sum += by_share(&one.p95_ms, &other.p95_ms, 0.3);
        sum += by_share(&one.cores, &other.cores, 0.25);
        sum += by_share(&one.memory, &other.memory, 0.12);
        sum += by_share(&one.fds, &other.fds, 0.3);
        sum += by_share(&one.threads, &other.threads, 0.3);
        sum += apart(real.model_loss(no) - here.model_loss(no), 0.02);
        sum += by_value(&one.strange, &other.strange, 0.0, 0.04);
    }
    sum
}

fn nodes(real: &Signs, particle: &Particle) -> f64 {
    let here = &particle.signs;
    let mut sum = 0.0;
    for at in 0..real.nodes.len().min(here.nodes.len()) {
        let (one, other) = (&real.nodes[at], &here.nodes[at]);
        let silent = (one.silent > 1) != (other.silent > 1);
        let frozen = (one.frozen > 1) != (other.frozen > 1);
        if silent || frozen {
            sum -= GONE;
            continue;
        }
        sum += by_value(&one.busy, &other.busy, 0.5, 0.1);
        sum += by_value(&one.waits_cpu, &other.waits_cpu, 0.02, 0.08);
        sum += by_value(&one.waits_disk, &other.waits_disk, 0.02, 0.08);
        sum += by_share(&one.memory_free, &other.memory_free, 0.12);
        sum += by_share(&one.disk_free, &other.disk_free, 0.1);
        sum += by_share(&one.inodes_free, &other.inodes_free, 0.1);
        sum += by_value(&one.celsius, &other.celsius, 50.0, 3.0);
        // All wrong clocks are alike; how wrong they are is nobody's to know.
        let skew = |ahead: f64| (ahead / 20.0).clamp(-1.0, 1.0);
        sum += apart(skew(one.ahead.or(0.0)) - skew(other.ahead.or(0.0)), 0.3);
        sum += by_value(&one.age, &other.age, 2.0, 3.0);
    }
    sum
}

fn paths(real: &Signs, particle: &Particle) -> f64 {
    let here = &particle.signs;
    let mut sum = 0.0;
    for at in 0..real.links.len().min(here.links.len()) {
        let (one, other) = (real.link(LinkNo::new(at)), here.link(LinkNo::new(at)));
        if (one.down > 0) != (other.down > 0) {
            sum -= GONE;
            continue;
        }
        sum += by_value(&one.loss, &other.loss, 0.0, 0.03);
        sum += by_share(&one.rtt_ms, &other.rtt_ms, 0.4);
    }
    for at in 0..real.routes.len().min(here.routes.len()) {
        let no = RouteNo::new(at);
        let (one, other) = (&real.routes[no.at()], &here.routes[no.at()]);
        sum += by_value(&one.err, &other.err, 0.0, 0.08);
        let shown = |gauge: &Gauge| libm::log(gauge.or(50.0).max(1.0));
        sum += apart(shown(&one.p95_ms) - shown(&other.p95_ms), 0.5);
        sum += by_share(&one.arrival, &other.arrival, 0.15);
        sum += by_value(&one.hit, &other.hit, 0.0, 0.1);
    }
    sum
}
