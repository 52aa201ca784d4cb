//! The log lines of one look: counted templates, by node.
//!
//! Three sources: what services that are well write all day, what the state of the world
//! makes anybody write (a caller that times out does not know why), and what faults make
//! their places write.

use homeostat_common::observation::LogCount;

use super::look::Noise;
use super::{DISTRACTORS, Template};
use crate::fault::{Engine, Writes};
use crate::topology::{ReplicaNo, Topology};
use crate::world::Phase;
use crate::world::state::State;

/// More lines of one template than this are one number to whoever reads them.
const COUNT_MAX: u32 = 10_000;
/// Above this mean a count is drawn from the normal distribution: off by less than one
/// in a hundred there.
const NORMAL_FROM: f64 = 40.0;
/// How often a caller writes that a call went wrong, per second, when all do.
const COMPLAINTS: f64 = 2.0;

/// What was written in `elapsed` seconds, by the number of the node.
pub(super) fn written(
    topology: &Topology,
    state: &State,
    faults: &Engine,
    counted: &[[u32; 3]],
    elapsed: f64,
    noise: &mut Noise,
) -> Vec<Vec<LogCount>> {
    let rates = rates(topology, state, faults);
    let mut logs: Vec<Vec<LogCount>> = vec![Vec::new(); topology.nodes().len()];
    for (at, own) in rates.chunks_exact(Template::ALL.len()).enumerate() {
        for (template, rate) in Template::ALL.iter().zip(own) {
            let count = poisson(rate * elapsed, noise);
            note(topology, &mut logs, ReplicaNo::new(at), *template, count);
        }
    }
    let before = |at: usize| counted.get(at).copied().unwrap_or_default();
    for (at, now) in state.replicas.iter().enumerate() {
        let [starts, deaths, kills] = before(at);
        let replica = ReplicaNo::new(at);
        let since = [
            (Template::Started, now.starts.saturating_sub(starts)),
            (Template::ExitCode, now.deaths.saturating_sub(deaths)),
            (Template::OomKilled, now.oom_kills.saturating_sub(kills)),
        ];
        for (template, count) in since {
            note(topology, &mut logs, replica, template, count);
        }
    }
    logs
}

/// How often each template is written now, per second, by replica and then template; but
/// for lines that count what happened.
pub(super) fn rates(topology: &Topology, state: &State, faults: &Engine) -> Vec<f64> {
    let of_one = Template::ALL.len();
    let mut rates = vec![0.0; state.replicas.len() * of_one];
    let mut add = |replica: ReplicaNo, template: Template, rate: f64| {
        rates[replica.at() * of_one + template as usize] += rate;
    };
    for at in 0..state.replicas.len() {
        let replica = ReplicaNo::new(at);
        if state.replicas[at].phase == Phase::Running {
            for (template, rate) in DISTRACTORS {
                add(replica, *template, *rate);
            }
            symptoms(topology, state, replica, &mut add);
        }
    }
    for Writes {
        replica,
        template,
        rate,
    } in faults.cues(topology)
    {
        add(witness(topology, state, replica), template, rate);
    }
    rates
}

/// Who writes what a replica has to say: itself, or, when it has no process, a sibling
/// that misses it.
fn witness(topology: &Topology, state: &State, replica: ReplicaNo) -> ReplicaNo {
    let runs = |r: &ReplicaNo| state.replicas[r.at()].phase == Phase::Running;
    let silent = matches!(
        state.replicas[replica.at()].phase,
        Phase::Dead | Phase::Standby
    );
    if !silent {
        return replica;
    }
    let route = topology.replicas()[replica.at()].route;
    let siblings = &topology.routes()[route.at()].replicas;
    siblings.iter().copied().find(runs).unwrap_or(replica)
}

/// What the state of the world makes a replica write, whatever the cause.
fn symptoms(
    topology: &Topology,
    state: &State,
    replica: ReplicaNo,
    add: &mut impl FnMut(ReplicaNo, Template, f64),
) {
    let own = &topology.replicas()[replica.at()];
    let now = &state.replicas[replica.at()];
    let node = &state.nodes[own.node.at()];
    let route = &topology.routes()[own.route.at()];
    for call in &route.calls {
        let called = &state.routes[call.to.at()];
        let wrong = called.err.clamp(0.0, 1.0);
        if wrong > 0.01 {
            let refused = called.fixed.nobody;
            let template = if refused {
                Template::Refused
            } else {
                Template::Timeout
            };
            add(replica, template, COMPLAINTS * wrong);
            add(replica, Template::RetryBudget, 0.3 * COMPLAINTS * wrong);
        } else if called.latency_ms > 300.0 {
            add(replica, Template::Timeout, 0.2);
        }
    }
    let memory = &topology.nodes()[own.node.at()].memory_mb;
    if node.memory_mb > 0.88 * memory {
        add(replica, Template::GcPause, 0.4);
        add(replica, Template::AllocSlow, 0.2);
    }
    if now.leaked_mb > 0.5 * route.memory_mb {
        add(replica, Template::GcPause, 0.3);
        add(replica, Template::HeapGrowth, 0.1);
    }
    if node.load > topology.nodes()[own.node.at()].cores {
        add(replica, Template::RunQueue, 0.2);
    }
    if node.freq < 0.99 {
        add(replica, Template::Throttled, 0.1);
    }
    if node.stuck_disk && (route.writes || own.data_mb > 0.0) {
        let template = if node.burden.readonly {
            Template::ReadOnly
        } else {
            Template::NoSpace
        };
        add(replica, template, 0.5);
    }
    if now.queue > 50.0 {
        add(replica, Template::QueueFull, 0.3);
    }
}

fn note(
    topology: &Topology,
    logs: &mut [Vec<LogCount>],
    replica: ReplicaNo,
    template: Template,
    count: u32,
) {
    if count == 0 {
        return;
    }
    let own = &topology.replicas()[replica.at()];
    let Some(log) = logs.get_mut(own.node.at()) else {
        return;
    };
    let same = |line: &&mut LogCount| {
        line.template == template.id() && line.service.as_ref() == Some(&own.name)
    };
    if let Some(line) = log.iter_mut().find(same) {
        line.count = line.count.saturating_add(count).min(COUNT_MAX);
        return;
    }
    log.push(LogCount {
        service: Some(own.name.clone()),
        template: template.id(),
        text: template.text().to_owned(),
        level: template.level(),
        count: count.min(COUNT_MAX),
    });
}

/// A count of rare things with this mean.
fn poisson(mean: f64, noise: &mut Noise) -> u32 {
    if mean <= 0.0 {
        return 0;
    }
    if mean > NORMAL_FROM {
        let drawn = (mean + mean.sqrt() * noise.normal() + 0.5).clamp(0.0, f64::from(COUNT_MAX));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = drawn as u32;
        return count;
    }
    // By inversion: one draw, and at most as many steps as lines.
    let mut left = noise.uniform();
    if left <= 1.0 - mean {
        // The share of no lines at all is larger than this.
        return 0;
    }
    let mut share = libm::exp(-mean);
    let mut count = 0;
    while left > share && count < COUNT_MAX {
        left -= share;
        count += 1;
        share *= mean / f64::from(count);
        if share < 1e-300 {
            break;
        }
    }
    count
}
