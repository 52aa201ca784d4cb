//! What one diagnosis costs a node: processor time and memory, with fifty components.
//!
//! `cargo bench -p homeostat-agent --bench causes`. Time of this thread alone; memory is how much
//! the largest resident set of this process has grown, history and diagnosis together.

use std::hint::black_box;

use homeostat_agent::diagnose::causal::Causal;
use homeostat_agent::diagnose::meaning::kind_of;
use homeostat_common::anomaly::Symptom;
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, Series};
use homeostat_common::suspect::{Component, Edge};
use homeostat_common::units::Micros;
use rustix::time::{ClockId, clock_gettime};

/// Services; with the node there is one component more.
const SERVICES: usize = 49;

/// Each has its time to answer, its availability, and three resources.
const METRICS: [Metric; 5] = [
    Metric::LatencyP95,
    Metric::Availability,
    Metric::CpuUsed,
    Metric::MemoryResident,
    Metric::RunDelay,
];

/// A history that is full.
const SECONDS: u64 = 600;

const DIAGNOSES: usize = 1000;

fn micros() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// A number of `/proc/self/status`, in KiB.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn service(n: usize) -> ServiceId {
    ServiceId::new(&format!("service-{n}")).expect("letters and digits")
}

/// Each service needs the two after it, and the node.
fn edges() -> impl Iterator<Item = Edge> {
    (0..SERVICES).flat_map(|n| {
        let from = Component::Service(service(n));
        let next = [2 * n + 1, 2 * n + 2]
            .into_iter()
            .filter(|next| *next < SERVICES);
        let next = next.map(|next| Component::Service(service(next)));
        next.chain([Component::Node]).map(move |needs| Edge {
            from: from.clone(),
            needs,
        })
    })
}

fn row(second: u64, series: &[(Series, usize)]) -> Vec<f64> {
    let noise = |at: usize| ((second * 97 + at as u64 * 31) % 251) as f64 / 251.0;
    let values = series.iter().enumerate().map(|(at, (series, n))| {
        // The last of a branch is slow in the end, and all above it.
        let branch = [0, 1, 3, 7, 15, 31].contains(n);
        let slow = if second >= SECONDS && branch {
            40.0
        } else {
            0.0
        };
        match series.metric {
            Metric::LatencyP95 => 5.0 + noise(at) + slow,
            Metric::Availability => 1.0,
            Metric::MemoryResident => 40e6 + 1e5 * noise(at),
            _ => 0.1 + 0.02 * noise(at),
        }
    });
    values.collect()
}

fn main() {
    let before = status("VmRSS:");
    let mut causal = Causal::new(edges());
    let series: Vec<(Series, usize)> = (0..SERVICES)
        .flat_map(|n| {
            METRICS.map(|metric| {
                let service = Some(service(n));
                let part = None;
                (
                    Series {
                        metric,
                        service,
                        part,
                    },
                    n,
                )
            })
        })
        .collect();
    let start = micros();
    for second in 0..SECONDS {
        let values = row(second, &series);
        let row = series.iter().map(|(series, _)| series).zip(values);
        causal.observe(Micros(second * 1_000_000), row);
    }
    let observed = (micros() - start) / SECONDS as f64;
    let (alarmed, kind) = (Component::Service(service(0)), kind_of(Symptom::Slow));
    let now = Micros(SECONDS * 1_000_000);
    let values = row(SECONDS, &series);
    let mut found = None;
    let mut times: Vec<f64> = (0..DIAGNOSES)
        .map(|_| {
            let start = micros();
            found = Some(black_box(causal.diagnose(&alarmed, kind, now, now)));
            if found
                .as_ref()
                .is_some_and(|verdict| verdict.suspects.is_empty())
            {
                // The first one: the trouble is not there yet.
                let row = series.iter().map(|(series, _)| series).zip(values.clone());
                causal.look(now, row);
            }
            micros() - start
        })
        .skip(1)
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or(0.0)
    };
    let grown = status("VmHWM:")
        .zip(before)
        .map(|(peak, before)| peak.saturating_sub(before));
    let first = found.and_then(|verdict| verdict.suspects.into_iter().next());
    println!(
        "{} components, {} series: a sample {observed:.0} us; a diagnosis {:.0} us (median), {:.0} us \
         (p99) of {}; history {} KiB, with the largest diagnosis {:?} KiB; suspected: {}",
        SERVICES + 1,
        series.len(),
        at(50),
        at(99),
        times.len(),
        causal.bytes() / 1024,
        grown,
        first.map_or_else(|| "nobody".to_owned(), |one| one.component.to_string()),
    );
}
