//! What the diagnosis of a node costs: fifty services that need each other, five series each,
//! a full history, one of them slow and all above it with it.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};
use homeostat_agent::diagnose::causal::{BYTES_MAX, Causal};
use homeostat_causes::Kind;
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, Series};
use homeostat_common::suspect::{Component, Edge};
use homeostat_common::units::Micros;

use crate::result::{Report, Row};
use crate::stats::{Estimate, share};

const SERVICES: usize = 50;
/// Seconds of readings: more than the history holds.
const LEARNT: u64 = 520;
/// Diagnoses that warm up.
const WARM: usize = 20;
/// Milliseconds by which the one at fault is slower.
const SLOWER: f64 = 30.0;

/// What of a service is measured, its usual value, and how far it wanders.
const METRICS: [(Metric, f64, f64); 5] = [
    (Metric::LatencyP95, 8.0, 1.0),
    (Metric::Availability, 1.0, 0.0),
    (Metric::CpuUsed, 0.1, 0.01),
    (Metric::MemoryResident, 5e7, 1e5),
    (Metric::RunDelay, 0.01, 0.002),
];

/// Diagnoses `rounds` times, each time with some service at fault.
///
/// # Errors
/// When nothing was measured.
pub(super) fn run(rounds: usize, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::new("rca.node", &format!("{SERVICES} {LEARNT} {SLOWER}"));
    let mut node = Node::new(seed)?;
    let learnt = node.learnt();
    let bytes = learnt.bytes();
    let (mut took, mut right) = (Vec::new(), 0);
    for round in 0..rounds + WARM {
        let root = node.rng.usize(..SERVICES);
        let mut slow = vec![false; SERVICES];
        let mut above = Some(root);
        while let Some(of) = above {
            slow[of] = true;
            // The one that needs it; nobody needs the first.
            above = of.checked_sub(1).map(|of| of / 2);
        }
        let mut causal = learnt.clone();
        let now = Micros(LEARNT * 1_000_000);
        let row = node.row(&slow);
        causal.look(now, node.series.iter().zip(row));
        let asked = Instant::now();
        let verdict = causal.diagnose(&node.components[0], Kind::Latency, now, now);
        let spent = asked.elapsed();
        if round >= WARM {
            let first = black_box(&verdict).suspects.first();
            right += usize::from(first.is_some_and(|one| one.component == node.components[root]));
            took.push(spent.as_secs_f64() * 1e3);
        }
    }
    for (id, quantile) in [("p50", 0.5), ("p95", 0.95)] {
        let time = Estimate::quantile(&took, quantile, seed).context("no round")?;
        let what = format!("a diagnosis of {SERVICES} services in the agent, {id}");
        let row = Row::new(&format!("rca.node.time.{id}"), &what, "ms", time);
        report.rows.push(row.goal(2.0));
    }
    let what = "the slow one of them comes first";
    let row = Row::new("rca.node.top1", what, "ratio", share(right, rounds));
    report.rows.push(row.higher());
    let what = format!("history and graph; they end at {BYTES_MAX}");
    let bytes = Estimate::exact(bytes as f64, SERVICES);
    let row = Row::new("rca.node.bytes", &what, "bytes", bytes);
    report.rows.push(row.goal(1e6));
    report.finish(begun.elapsed());
    Ok(report)
}

struct Node {
    components: Vec<Component>,
    /// The metrics of each service, one service after the other.
    series: Vec<Series>,
    rng: fastrand::Rng,
}

impl Node {
    fn new(seed: u64) -> Result<Self> {
        let name = |of: usize| Ok(ServiceId::new(&format!("s{of}"))?);
        let names: Vec<ServiceId> = (0..SERVICES).map(name).collect::<Result<_>>()?;
        let series = names.iter().flat_map(|name| {
            METRICS.map(|(metric, _, _)| Series {
                metric,
                service: Some(name.clone()),
                part: None,
            })
        });
        Ok(Self {
            series: series.collect(),
            components: names.into_iter().map(Component::Service).collect(),
            rng: fastrand::Rng::with_seed(seed),
        })
    }

    /// A model that has seen the node do well; services need each other as a tree.
    fn learnt(&mut self) -> Causal {
        let edges = self.components.iter().enumerate().flat_map(|(of, from)| {
            let others = self.components.iter().skip(2 * of + 1).take(2);
            let needs = others.chain([&Component::Node]);
            needs.map(|needs| Edge {
                from: from.clone(),
                needs: needs.clone(),
            })
        });
        let mut causal = Causal::new(edges);
        for second in 0..LEARNT {
            let row = self.row(&[]);
            causal.observe(Micros(second * 1_000_000), self.series.iter().zip(row));
        }
        causal
    }

    fn row(&mut self, slow: &[bool]) -> Vec<f64> {
        let rng = &mut self.rng;
        let value = |(at, series): (usize, &Series)| {
            let (_, usual, wanders) = METRICS[at % METRICS.len()];
            let ill = slow.get(at / METRICS.len()) == Some(&true);
            let more = match series.metric {
                Metric::LatencyP95 if ill => SLOWER,
                _ => 0.0,
            };
            usual + wanders * (rng.f64() - 0.5) + more
        };
        self.series.iter().enumerate().map(value).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_service_at_fault_comes_first() {
        let report = run(10, 1).unwrap();
        let value = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap().ours;
        assert!(value("rca.node.top1") > 0.999);
        assert!(value("rca.node.bytes") < 1e6);
    }
}
