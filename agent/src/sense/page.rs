//! The readings of a moment as text: for Prometheus, and for people.
//!
//! A reading that is not fresh has no value there. It says instead that it is absent or how
//! old it is, so that a source that is missing never looks like one that says 0.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use homeostat_common::observation::{Metric, MetricReading, Nature, Reading};

/// Which of them, as Prometheus has it.
fn labels(reading: &MetricReading) -> String {
    let mut all = Vec::new();
    if let Some(service) = &reading.service {
        all.push(format!("service=\"{service}\""));
    }
    if let Some(part) = &reading.part {
        all.push(format!("part=\"{part}\""));
    }
    all.join(",")
}

/// For Prometheus: a family for each metric, and two for what has no value.
#[must_use]
pub fn prometheus(readings: &[MetricReading]) -> String {
    let mut families: BTreeMap<Metric, Vec<&MetricReading>> = BTreeMap::new();
    for reading in readings {
        families.entry(reading.metric).or_default().push(reading);
    }
    let mut to = String::new();
    let (mut absent, mut stale) = (String::new(), String::new());
    for (metric, readings) in &families {
        let (name, unit) = (metric.name(), metric.unit());
        let kind = match metric.nature() {
            Nature::Level | Nature::Occasional => "gauge",
            Nature::Total => "counter",
        };
        let name = match metric.nature() {
            Nature::Total => format!("homeostat_{name}_total"),
            Nature::Level | Nature::Occasional => format!("homeostat_{name}"),
        };
        let _ = writeln!(to, "# HELP {name} In {unit}.\n# TYPE {name} {kind}");
        for reading in readings {
            let labels = labels(reading);
            let comma = if labels.is_empty() { "" } else { "," };
            let of = format!("metric=\"{}\"{comma}{labels}", metric.name());
            let _ = match reading.reading {
                Reading::Fresh(value) if labels.is_empty() => writeln!(to, "{name} {value}"),
                Reading::Fresh(value) => writeln!(to, "{name}{{{labels}}} {value}"),
                Reading::Stale { age, .. } => {
                    writeln!(
                        stale,
                        "homeostat_stale_seconds{{{of}}} {}",
                        age.as_secs_f64()
                    )
                }
                Reading::Missing => writeln!(absent, "homeostat_absent{{{of}}} 1"),
            };
        }
    }
    to.push_str("# HELP homeostat_stale_seconds Age of what fell silent.\n");
    to.push_str("# TYPE homeostat_stale_seconds gauge\n");
    to.push_str(&stale);
    to.push_str("# HELP homeostat_absent 1 for what has no source here.\n");
    to.push_str("# TYPE homeostat_absent gauge\n");
    to.push_str(&absent);
    to
}

/// For people: a line for each reading.
#[must_use]
pub fn table(readings: &[MetricReading]) -> String {
    let rows: Vec<[String; 3]> = readings
        .iter()
        .map(|reading| {
            let service = reading.service.as_ref().map(ToString::to_string);
            let part = reading.part.as_ref().map(ToString::to_string);
            let of: Vec<String> = service.into_iter().chain(part).collect();
            let unit = reading.metric.unit();
            let value = match reading.reading {
                Reading::Fresh(value) => format!("{} {unit}", short(value)),
                Reading::Stale { last, age } => {
                    format!("- (was {} {unit} {age} ago)", short(last))
                }
                Reading::Missing => "absent".to_owned(),
            };
            [reading.metric.name().to_owned(), of.join(" "), value]
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    rows.iter()
        .fold(String::new(), |mut to, [metric, of, value]| {
            let _ = writeln!(to, "{metric:first$}  {of:second$}  {value}");
            to
        })
}

/// Whole numbers whole, others with four digits behind the point.
fn short(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
mod tests {
    use homeostat_common::ids::ServiceId;
    use homeostat_common::observation::Part;
    use homeostat_common::units::Millis;

    use super::*;

    fn readings() -> Vec<MetricReading> {
        let eth0 = Part::new("eth0").unwrap();
        let stale = Reading::Stale {
            last: 61.5,
            age: Millis(2500),
        };
        let web = ServiceId::new("web").unwrap();
        vec![
            MetricReading::node(Metric::CpuBusy, Reading::Fresh(0.25)),
            MetricReading::part(Metric::NetSent, eth0, Reading::Fresh(12.0)),
            MetricReading::service(Metric::Threads, web.clone(), Reading::Fresh(4.0)),
            MetricReading::service(Metric::CpuUsed, web, Reading::Missing),
            MetricReading::node(Metric::Temperature, stale),
            MetricReading::node(Metric::Energy, Reading::Fresh(7.0)),
        ]
    }

    #[test]
    fn what_is_not_fresh_has_no_value_and_says_why() {
        expect_test::expect![[r#"
            # HELP homeostat_cpu_busy In ratio.
            # TYPE homeostat_cpu_busy gauge
            homeostat_cpu_busy 0.25
            # HELP homeostat_cpu_used In cores.
            # TYPE homeostat_cpu_used gauge
            # HELP homeostat_threads In count.
            # TYPE homeostat_threads gauge
            homeostat_threads{service="web"} 4
            # HELP homeostat_temperature In celsius.
            # TYPE homeostat_temperature gauge
            # HELP homeostat_net_sent In bytes_per_second.
            # TYPE homeostat_net_sent gauge
            homeostat_net_sent{part="eth0"} 12
            # HELP homeostat_energy_total In joules.
            # TYPE homeostat_energy_total counter
            homeostat_energy_total 7
            # HELP homeostat_stale_seconds Age of what fell silent.
            # TYPE homeostat_stale_seconds gauge
            homeostat_stale_seconds{metric="temperature"} 2.5
            # HELP homeostat_absent 1 for what has no source here.
            # TYPE homeostat_absent gauge
            homeostat_absent{metric="cpu_used",service="web"} 1
        "#]]
        .assert_eq(&prometheus(&readings()));
    }

    #[test]
    fn people_get_a_line_for_each() {
        expect_test::expect![[r#"
            cpu_busy           0.2500 ratio
            net_sent     eth0  12 bytes_per_second
            threads      web   4 count
            cpu_used     web   absent
            temperature        - (was 61.5000 celsius 2500ms ago)
            energy             7 joules
        "#]]
        .assert_eq(&table(&readings()));
    }
}
