//! What a metric means to the causal model of a node, and how its evidence reads in the units of
//! that node.
//!
//! In go series and findings; out come which component a series is of, what kind of signal it is
//! there, and reasons in words. Times are in milliseconds, shares in `0..=1`.

use homeostat_causes::{Evidence, Graph, Kind};
use homeostat_common::anomaly::Symptom;
use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::observation::{Metric, Series};
use homeostat_common::suspect::{Component, REASON_MAX};
use homeostat_common::wire::bounded;

use crate::words::amount;

/// Answers are quick enough when they differ by less than this, in milliseconds; without it
/// one that takes no time at all has no noise to compare with.
const QUICK: f64 = 1.0;

/// What of a component a series is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Meaning {
    pub(super) kind: Kind,
    /// Less is worse: it is taken from this.
    from: Option<f64>,
    /// Added, so that what is tiny beside it counts for nothing.
    offset: f64,
}

impl Meaning {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            from: None,
            offset: 0.0,
        }
    }

    pub(super) fn value(self, value: f64) -> f64 {
        self.from.map_or(value, |from| from - value) + self.offset
    }
}

/// The kind of signal that a symptom is seen by.
#[must_use]
pub fn kind_of(symptom: Symptom) -> Kind {
    match symptom {
        Symptom::Dead | Symptom::Hung | Symptom::NotStarting | Symptom::WrongAnswers => {
            Kind::Errors
        }
        Symptom::Slow | Symptom::Saturated | Symptom::Requested => Kind::Latency,
        Symptom::Leaking
        | Symptom::LeakingDescriptors
        | Symptom::Hogging
        | Symptom::DataFull
        | Symptom::Foreseen => Kind::Resource,
    }
}

/// Whether trouble is seen by a metric.
#[must_use]
pub fn matters(metric: Metric) -> bool {
    of_metric(metric).is_some()
}

/// Of which component a series is, and what it means; `known`: of which a service that is none
/// of this node is a backend elsewhere.
pub(super) fn meaning(series: &Series, known: &[Component]) -> Option<(Component, Meaning)> {
    let meaning = of_metric(series.metric)?;
    let component = match (&series.service, &series.part, series.metric) {
        (Some(service), _, metric) if of_model(metric) => Component::Model(service.clone()),
        (Some(service), _, _) => of_service(service, known),
        (None, Some(part), Metric::Availability)
        | (None, Some(part), Metric::ConnectLatency | Metric::ThirdPartyTrouble) => {
            Component::Dependency(part.clone())
        }
        (None, Some(part), Metric::FailureShare | Metric::FirstByteP95) => {
            Component::Route(RouteId::new(part.as_str()).ok()?)
        }
        // Of the slowest backend, which says less than what one of twenty takes.
        (None, Some(_), Metric::FirstByteP50) => return None,
        (None, Some(part), _) => Component::Part(part.clone()),
        (None, None, _) => Component::Node,
    };
    Some((component, meaning))
}

fn of_service(service: &ServiceId, known: &[Component]) -> Component {
    let backend = Component::Backend(service.clone());
    if known.contains(&backend) {
        backend
    } else {
        Component::Service(service.clone())
    }
}

fn of_model(metric: Metric) -> bool {
    matches!(
        metric,
        Metric::ServedErrors
            | Metric::Confidence
            | Metric::ConfidenceShift
            | Metric::InputShift
            | Metric::GoldenError
            | Metric::Disagreement
    )
}

/// What a metric means; `None` for those that no trouble is seen by.
fn of_metric(metric: Metric) -> Option<Meaning> {
    let plain = Meaning::new;
    let late = |offset| Meaning {
        offset,
        ..plain(Kind::Latency)
    };
    let below = |from: f64, meaning: Meaning| Meaning {
        from: Some(from),
        ..meaning
    };
    Some(match metric {
        Metric::LatencyP95
        | Metric::FirstByteP50
        | Metric::FirstByteP95
        | Metric::ConnectLatency => late(QUICK),
        Metric::Availability => below(1.0, plain(Kind::Errors)),
        Metric::FailureShare | Metric::ServedErrors => plain(Kind::Errors),
        Metric::Confidence => plain(Kind::Quality),
        Metric::CpuFrequencyCap | Metric::NetCarrier => below(1.0, plain(Kind::Resource)),
        Metric::OwnLag
        | Metric::DiskAwait
        | Metric::CpuPressure
        | Metric::IoPressure
        | Metric::MemoryPressure
        | Metric::CpuBusy
        | Metric::CpuSteal
        | Metric::CpuThrottled
        | Metric::RunDelay
        | Metric::GroupMemoryUsed
        | Metric::DescriptorsUsed
        | Metric::DiskBusy
        | Metric::NetLoad
        | Metric::GoldenError
        | Metric::Disagreement
        | Metric::CpuUsed
        | Metric::MemoryResident
        | Metric::Temperature
        | Metric::SwapOut
        | Metric::ConfidenceShift
        | Metric::InputShift
        | Metric::NetErrors
        | Metric::NetDrops
        | Metric::ThirdPartyTrouble => plain(Kind::Resource),
        _ => return None,
    })
}

/// A reason in words, with the units of this node.
pub(super) fn reason(evidence: &Evidence, graph: &Graph) -> String {
    let text = match evidence {
        Evidence::OwnExcess {
            kind,
            baseline,
            now,
            times,
            ..
        } => {
            // All times are in milliseconds, all the others are shares.
            let (what, metric, offset) = match kind {
                Kind::Latency => ("its answers take", Metric::LatencyP95, QUICK),
                Kind::Errors => ("of its answers fail", Metric::FailureShare, 0.0),
                Kind::Quality => ("its answers are sure by", Metric::Confidence, 0.0),
                Kind::Resource | Kind::Absence | Kind::Complaints | Kind::Volume => {
                    ("it uses", Metric::CpuBusy, 0.0)
                }
            };
            let shown = |value: f32| amount(metric, (f64::from(value) - offset).max(0.0));
            let (now, usual) = (shown(*now), shown(*baseline));
            match kind {
                Kind::Errors => format!(
                    "{now} {what}, {usual} is usual: {times:.0} times what those that it \
                     needs and chance explain"
                ),
                _ => format!(
                    "{what} {now}, {usual} is usual: {times:.0} times what those that it \
                     needs and chance explain"
                ),
            }
        }
        Evidence::Resource {
            name,
            baseline,
            now,
            times,
        } => match Metric::from_name(name) {
            Some(metric) => {
                let meaning = of_metric(metric);
                let shown = |value: f32| {
                    let value = f64::from(value);
                    let from = meaning.and_then(|one| one.from);
                    amount(metric, from.map_or(value, |from| from - value).max(0.0))
                };
                let (now, usual) = (shown(*now), shown(*baseline));
                format!("{name} is {now}, {usual} is usual: {times:.1} times as far as ever")
            }
            None => evidence.words(graph).to_string(),
        },
        Evidence::Mechanism { .. }
        | Evidence::NewCallee { .. }
        | Evidence::First { .. }
        | Evidence::Explains { .. }
        | Evidence::Weighed(_) => evidence.words(graph).to_string(),
    };
    bounded(&text, REASON_MAX)
}
