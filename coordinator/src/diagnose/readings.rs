//! What aggregates say of components: each reading with the component that it is about.
//!
//! In: `telemetry` records. Out: readings of the metrics that say how well a component does,
//! each put where a diagnosis looks for it: a time to answer, a share that failed, a resource,
//! or the quality of a model.

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, Part};
use homeostat_common::suspect::Component;
use serde::Deserialize;
use serde_json::Value;

use super::graph::Graph;
use crate::fleet::diagnosis::Place;

/// What a reading says of its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// How long it takes to answer.
    Latency,
    /// The share that it fails.
    Errors,
    /// What it uses, or lacks.
    Resource,
    /// How far a model is from what it was.
    Quality,
}

/// A mean over a span of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The component.
    pub place: Place,
    /// What it says.
    pub sign: Sign,
    /// The metric.
    pub metric: Metric,
    /// End of the span, by the coordinator's clock.
    pub at_ms: u64,
    /// The mean; larger is worse.
    pub value: f64,
    /// Requests a second that it is the mean of; 1 where nobody counts them.
    pub volume: f64,
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default)]
    series: Vec<Series>,
}

#[derive(Debug, Deserialize)]
struct Series {
    metric: u8,
    service: Option<ServiceId>,
    part: Option<Part>,
    mean: Option<f64>,
}

/// The readings of a record; none, if it is not understood.
#[must_use]
pub fn readings(node: &str, at_ms: u64, body: &Value, graph: &Graph) -> Vec<Reading> {
    let Ok(told) = Told::deserialize(body) else {
        return Vec::new();
    };
    let rate = |part: &Option<Part>| {
        let of = told
            .series
            .iter()
            .filter(|one| one.metric == Metric::RequestRate as u8);
        let rates = of
            .filter(|one| one.part == *part)
            .filter_map(|one| one.mean);
        let sum: f64 = rates.filter(|rate| rate.is_finite()).sum();
        if sum > 0.0 { sum } else { 1.0 }
    };
    let read = |one: &Series| {
        let metric = Metric::from_number(one.metric)?;
        let mean = one.mean.filter(|mean| mean.is_finite())?;
        let (sign, value) = sign(metric, mean)?;
        let component = component(metric, one.service.as_ref(), one.part.as_ref())?;
        let volume = match component {
            Component::Route(_) => rate(&one.part),
            _ => 1.0,
        };
        Some(Reading {
            place: graph.place(node, &component),
            sign,
            metric,
            at_ms,
            value,
            volume,
        })
    };
    told.series.iter().filter_map(read).collect()
}

/// What a metric says, and its value so that larger is worse; `None` for those that say
/// nothing about how well something does.
fn sign(metric: Metric, mean: f64) -> Option<(Sign, f64)> {
    let found = match metric {
        Metric::LatencyP50 | Metric::FirstByteP50 | Metric::ConnectLatency => Sign::Latency,
        Metric::Availability => return Some((Sign::Errors, 1.0 - mean)),
        Metric::FailureShare | Metric::ServedErrors => Sign::Errors,
        Metric::CpuPressure
        | Metric::IoPressure
        | Metric::MemoryPressure
        | Metric::CpuSteal
        | Metric::Temperature
        | Metric::DiskBusy
        | Metric::DiskAwait
        | Metric::NetErrors
        | Metric::NetDrops
        | Metric::TcpRetransmits
        | Metric::CpuUsed
        | Metric::MemoryResident
        | Metric::RunDelay
        | Metric::CpuThrottled => Sign::Resource,
        Metric::ConfidenceShift
        | Metric::InputShift
        | Metric::GoldenError
        | Metric::Disagreement => Sign::Quality,
        _ => return None,
    };
    Some((found, mean))
}

fn component(
    metric: Metric,
    service: Option<&ServiceId>,
    part: Option<&Part>,
) -> Option<Component> {
    let route = |part: &Part| {
        let route = homeostat_common::ids::RouteId::new(part.as_str()).ok()?;
        Some(Component::Route(route))
    };
    match (metric, service, part) {
        (Metric::FailureShare | Metric::FirstByteP50, None, Some(part)) => route(part),
        (Metric::Availability | Metric::ConnectLatency, None, Some(part)) => {
            Some(Component::Dependency(part.clone()))
        }
        (
            Metric::ConfidenceShift
            | Metric::InputShift
            | Metric::GoldenError
            | Metric::Disagreement
            | Metric::ServedErrors,
            Some(service),
            _,
        ) => Some(Component::Model(service.clone())),
        (_, Some(service), None) => Some(Component::Service(service.clone())),
        (_, None, Some(part)) => Some(Component::Part(part.clone())),
        (_, None, None) => Some(Component::Node),
        (_, Some(_), Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::graph::tests::two;
    use super::*;

    #[test]
    fn each_reading_is_put_where_a_diagnosis_looks_for_it() {
        let row = |metric: Metric, service: Option<&str>, part: Option<&str>, mean: f64| json!({"metric": metric as u8, "service": service, "part": part, "mean": mean, "max": mean});
        let body = json!({"span": 300_000, "series": [
            row(Metric::FirstByteP50, None, Some("infer"), 40.0),
            row(Metric::RequestRate, Some("infer-1"), Some("infer"), 3.0),
            row(Metric::RequestRate, Some("infer-2"), Some("infer"), 4.0),
            row(Metric::Availability, Some("infer-1"), None, 0.75),
            row(Metric::Availability, None, Some("broker"), 1.0),
            row(Metric::DiskBusy, None, Some("sda"), 0.5),
            row(Metric::IoPressure, None, None, 0.25),
            row(Metric::InputShift, Some("infer-1"), None, 0.3),
            row(Metric::Uptime, None, None, 9.0),
            json!({"metric": 2, "service": null, "part": null, "mean": null, "max": null}),
            json!({"metric": 254, "service": null, "part": null, "mean": 1.0, "max": 1.0})
        ]});
        let found = readings("east", 5, &body, &two());
        let lines: Vec<String> = found
            .iter()
            .map(|one| format!("{} {:?} {} x{}", one.place, one.sign, one.value, one.volume))
            .collect();
        assert_eq!(
            lines,
            [
                "route infer on east Latency 40 x7",
                "infer-1 on east Errors 0.25 x1",
                "dependency broker of plant Errors 0 x1",
                "sda of east Resource 0.5 x1",
                "node east Resource 0.25 x1",
                "the model of infer-1 on east Quality 0.3 x1"
            ]
        );
        assert!(readings("east", 5, &json!([1]), &two()).is_empty());
    }
}
