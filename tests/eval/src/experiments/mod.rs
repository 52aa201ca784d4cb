//! The experiments. Each takes its own arguments and returns a [`crate::result::Report`];
//! an error means that it could not be measured, not that a goal was missed.

pub mod agent_cost;
pub mod causal;
pub mod cost;
pub mod detect;
pub mod drift;
pub mod flash;
pub mod foresee;
pub mod forward;
pub mod gate;
pub mod journal_kill;
pub mod ledger;
pub mod mttr;
pub mod outbox;
pub mod overhead;
pub mod plot;
pub mod policies;
pub mod power_cut;
pub mod quiet;
pub mod quiet_day;
pub mod rca;
mod rca_node;
pub mod saga;
pub mod sim;
mod spread;
pub mod switch;
pub mod testbed;
pub mod tune;
mod what_if;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_testbed::{Healed, Moment, Prober};

use crate::stage::{Life, Node, Settings, interrupt};

/// What `homeostat-eval list` prints: command, what it measures, how long it takes.
pub const LIST: [[&str; 3]; 24] = [
    [
        "mttr",
        "time from fault to the first right answer, Homeostat beside a plain supervisor",
        "17 faults, 10 to 200 trials each: 25 min",
    ],
    [
        "quiet",
        "restarts of healthy services on a loaded machine, then real hangs under that load",
        "--minutes, 10 if not given",
    ],
    [
        "quiet-day",
        "false alarms of metrics on days without a fault, and what is seen of faults",
        "3 days of 16 simulated nodes, 260 incidents; --recording FILE: 1 min",
    ],
    [
        "agent-cost",
        "the loop's share of a core, at rest and probing beside a bare client in C",
        "--seconds, 60 if not given, twice",
    ],
    [
        "overhead",
        "processor, memory, disk and network of agent and coordinator; shares of a Raspberry Pi 4",
        "--seconds, --incidents, --count: 7 min",
    ],
    [
        "detect",
        "detectors on public recordings, by published protocols; --set and --data",
        "seconds to 15 minutes a set",
    ],
    [
        "rca",
        "which component is the root of an alarm, on recordings of real systems; --set and --data",
        "seconds to a minute a set",
    ],
    [
        "cost",
        "nanoseconds and bytes a sample of every detector and of the full bank, beside a moving mean",
        "--batches: seconds",
    ],
    [
        "causal",
        "effects of actions, what would have been and proposed links, beside truth and tigramite",
        "--graphs, --recordings, --plays; --python: 10 min, 1 min without",
    ],
    [
        "drift",
        "a model that silently meets another world: time until somebody is told, and false alarms",
        "--runs, --quiet: 15 min",
    ],
    [
        "flash",
        "sectors that the agent at rest writes to the card that holds its data; needs root",
        "--seconds, 3,600 if not given",
    ],
    [
        "outbox",
        "records lost or doubled while the broker is killed again and again",
        "50 kills of each broker: 6 min",
    ],
    [
        "journal-kill",
        "what is left unhealed or untold when the agent is killed in the middle of healing",
        "100 kills: 4 min",
    ],
    [
        "power-cut",
        "what a power cut takes of journal, outbox, slots and sled, at any of their recorded writes",
        "5,000 images, and 1,000 of sled: 10 min",
    ],
    [
        "saga",
        "a plan across three nodes with somebody killed at each write and message; needs strace",
        "some 200 kills: 40 min",
    ],
    [
        "switch",
        "requests failed, answers mixed and bad models served while the model is switched",
        "1,000 switches, 100 bad candidates: 2 min",
    ],
    [
        "forward",
        "what the forwarder costs in throughput, latency and memory, and its return from a kill",
        "--seconds for each side of each of 4 cases, 10 if not given: 2 min",
    ],
    [
        "gate",
        "plans that pass the gate and break a rule, judged by a checker of its own",
        "1,000,000 plans: --n",
    ],
    [
        "ledger",
        "what is spent of beta in random histories of plans, restarts and clocks",
        "100,000 histories: --n",
    ],
    [
        "foresee",
        "leaks ended before the limit, false alarms on healthy days, requests lost",
        "9 kinds of 100 healthy days and 40 leaks, and 15 min of real leaks: 20 min",
    ],
    [
        "policies",
        "what policies recover in simulated fleets, and at what cost, beside an oracle",
        "--seeds of each incident, 20 if not given: 1 h on 2 cores",
    ],
    [
        "tune",
        "weights of trial and error, by an evolution strategy on the training incidents",
        "--generations, 60 if not given: 15 min on 2 cores",
    ],
    [
        "sim",
        "the fleet simulator: ticks a second, and whether what it computes is right",
        "200 runs, 1,000,000 ticks: 2 min",
    ],
    [
        "testbed",
        "real processes beside the simulator: the same topology, faults and plans in both",
        "55 s a run, 21 runs a round, 5 rounds if --n is not given: 100 min",
    ],
];

/// Shown while a long experiment runs; on stderr, so that the table can be piped.
fn progress(text: &str) {
    eprintln!("{text}");
}

/// Probes of 100 ms, 50 ms and two misses, and nothing that holds the agent back: each fault
/// of an experiment is to be healed as if it were the first.
fn eager(services: &[&'static str]) -> Settings {
    Settings {
        sections: crate::stage::eager("200ms", "2s"),
        service: "memory_limit = \"256MiB\"\nstop_grace = \"500ms\"".to_owned(),
        probe: "period = \"100ms\"\ntimeout = \"50ms\"\nmisses = 2".to_owned(),
        services: services.to_vec(),
    }
}

/// Waits for the end of an incident in slices, so that Ctrl-C is noticed. `None` after `cap`.
fn healed(prober: &Prober, since: Moment, cap: Duration) -> Result<Option<Healed>> {
    let end = Instant::now() + cap;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let slice = left.min(Duration::from_millis(200));
        if let Ok(healed) = prober.wait_healed(since, slice) {
            return Ok(Some(healed));
        }
        interrupt::check()?;
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Waits until a service answers.
fn life(node: &Node, name: &str) -> Result<Life> {
    let answers = || node.life(name);
    interrupt::until(name, Duration::from_secs(30), answers)
        .with_context(|| crate::stage::log_tail(node.dir(), "agent"))
}

/// Waits until a service answers as another life than `old`.
fn next_life(node: &Node, name: &str, old: &Life, cap: Duration) -> Result<Option<Life>> {
    let other = || node.life(name).filter(|life| life.instance != old.instance);
    match interrupt::until(name, cap, other) {
        Ok(life) => Ok(Some(life)),
        Err(error) if error.is::<interrupt::Interrupted>() => Err(error),
        Err(_) => Ok(None),
    }
}

/// Milliseconds with their fraction.
fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
