//! What nodes measure, as Prometheus text: the last five minutes that each has told of.
//!
//! In: the aggregates of each node. Out: a gauge for each series with its mean and its worst
//! (of what only grows a counter). A node that has not told for a while has none, as it has no
//! value any more; a metric that this version does not know is left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, Nature, Part};
use serde::Deserialize;

/// Three times the period in which nodes tell: what came before that says nothing of now.
pub const OLD_MS: u64 = 900_000;

/// Most series of one node, the first by metric, service and part: a node with ten services
/// and some disks and links has two hundred.
const SERIES_MAX: usize = 256;

/// What is read of a node's telemetry; the rest is no reading.
#[derive(Debug, Clone, Deserialize)]
pub struct Told {
    series: Vec<Series>,
}

#[derive(Debug, Clone, Deserialize)]
struct Series {
    metric: u8,
    service: Option<ServiceId>,
    part: Option<Part>,
    // What is no number has no form in JSON.
    mean: Option<f64>,
    max: Option<f64>,
}

/// The families of what nodes told, each node by its name.
#[must_use]
pub fn text(nodes: &[(String, Told)]) -> String {
    let mut families: BTreeMap<Metric, Vec<String>> = BTreeMap::new();
    let mut left_out = 0;
    for (node, told) in nodes {
        // Ordered, and each once, whatever the node says.
        let known = told.series.iter().filter_map(|one| {
            let metric = Metric::from_number(one.metric)?;
            let key = (metric, one.service.as_ref(), one.part.as_ref());
            Some((key, (one.mean?, one.max?)))
        });
        let known: BTreeMap<_, _> = known.collect();
        left_out += known.len().saturating_sub(SERIES_MAX);
        for ((metric, service, part), (mean, max)) in known.into_iter().take(SERIES_MAX) {
            // Names and parts need no escaping.
            let mut labels = format!("node=\"{node}\"");
            if let Some(service) = service {
                let _ = write!(labels, ",service=\"{service}\"");
            }
            if let Some(part) = part {
                let _ = write!(labels, ",part=\"{part}\"");
            }
            let lines = families.entry(metric).or_default();
            match metric.nature() {
                Nature::Total => lines.push(format!("{{{labels}}} {max}")),
                Nature::Level | Nature::Occasional => {
                    for (of, value) in [("mean", mean), ("max", max)] {
                        lines.push(format!("{{{labels},of=\"{of}\"}} {value}"));
                    }
                }
            }
        }
    }
    let mut to = String::new();
    for (metric, lines) in families {
        let (end, kind) = match metric.nature() {
            Nature::Total => ("_total", "counter"),
            Nature::Level | Nature::Occasional => ("", "gauge"),
        };
        let name = format!("homeostat_node_{}{end}", metric.name());
        let unit = metric.unit();
        let _ = writeln!(
            to,
            "# HELP {name} In {unit}, of five minutes of a node.\n# TYPE {name} {kind}"
        );
        for line in lines {
            let _ = writeln!(to, "{name}{line}");
        }
    }
    let name = "homeostat_readings_left_out";
    let _ = writeln!(
        to,
        "# HELP {name} Readings beyond {SERIES_MAX} of a node.\n# TYPE {name} gauge\n\
         {name} {left_out}"
    );
    to
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(series: &serde_json::Value) -> Told {
        Told::deserialize(json!({"span": 300_000, "series": series})).unwrap()
    }

    #[test]
    fn readings_stand_by_node_service_and_part_each_once() {
        let number = |metric: Metric| metric as u8;
        let one = told(&json!([
            {"metric": number(Metric::CpuBusy), "service": null, "part": null, "mean": 0.25, "max": 0.5},
            {"metric": number(Metric::CpuBusy), "service": null, "part": null, "mean": 0.25, "max": 0.5},
            {"metric": number(Metric::Threads), "service": "web", "part": null, "mean": 3.5, "max": 4.0},
            {"metric": number(Metric::DiskFree), "service": null, "part": "/var", "mean": null, "max": 1.0},
            {"metric": number(Metric::Energy), "service": null, "part": null, "mean": 5.0, "max": 7.0},
            {"metric": 255, "service": null, "part": null, "mean": 1.0, "max": 1.0},
        ]));
        let other = told(&json!([
            {"metric": number(Metric::NetReceived), "service": null, "part": "eth0", "mean": 1.0, "max": 2.0},
        ]));
        let text = text(&[("edge-1".into(), one), ("edge-2".into(), other)]);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let mut sorted = lines.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            [
                "homeostat_node_cpu_busy{node=\"edge-1\",of=\"max\"} 0.5",
                "homeostat_node_cpu_busy{node=\"edge-1\",of=\"mean\"} 0.25",
                "homeostat_node_energy_total{node=\"edge-1\"} 7",
                "homeostat_node_net_received{node=\"edge-2\",part=\"eth0\",of=\"max\"} 2",
                "homeostat_node_net_received{node=\"edge-2\",part=\"eth0\",of=\"mean\"} 1",
                "homeostat_node_threads{node=\"edge-1\",service=\"web\",of=\"max\"} 4",
                "homeostat_node_threads{node=\"edge-1\",service=\"web\",of=\"mean\"} 3.5",
                "homeostat_readings_left_out 0",
            ]
        );
        assert!(text.contains("# HELP homeostat_node_threads In count, of five minutes"));
        assert!(text.contains("# TYPE homeostat_node_energy_total counter"));
    }

    #[test]
    fn a_node_has_a_bounded_number_of_them() {
        let many: Vec<_> = (0..300)
            .map(|n| {
                json!({"metric": Metric::Threads as u8, "service": format!("s-{n}"), "part": null,
                    "mean": 1.0, "max": 1.0})
            })
            .collect();
        let nodes = ["a", "b"].map(|node| (node.to_owned(), told(&json!(many))));
        let text = text(&nodes);
        assert_eq!(text.matches("of=\"mean\"").count(), 2 * SERIES_MAX);
        assert!(text.ends_with("homeostat_readings_left_out 88\n"), "{text}");
    }
}
