//! What is asked of a route, as readings: how much, how fast it is answered, and what of it
//! fails. In go the forwarder's reports; judges nothing.

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, MetricReading, Part, Reading};
use homeostat_common::units::{Micros, Millis};

use super::{LATENCY_WINDOW, Routed};
use crate::control::RouteSample;

/// What the share of failures reaches back, at least.
const FAILURE_WINDOW: Millis = Millis::secs(10);

/// What is kept of the reports.
#[derive(Debug, Clone, Default)]
pub(super) struct Demand {
    /// New connections and failures since the forwarder's start, and when.
    counted: Option<(u64, u64, Micros)>,
    /// Share of them that failed, and when that was known.
    failed: Option<(f64, Micros)>,
    /// The last window had connections.
    asked: bool,
    waiting: u32,
}

impl Demand {
    pub(super) fn absorb(&mut self, now: Micros, report: &RouteSample) {
        self.waiting = report.waiting;
        // One that found no backend is a connection as well, and a failure.
        let sum = |of: fn(&super::BackendSample) -> u64| {
            let each = report.backends.iter().map(|(_, backend)| of(backend));
            each.fold(report.refused, u64::saturating_add)
        };
        let (total, failures) = (sum(|one| one.total), sum(|one| one.failures));
        match self.counted {
            Some((last, failed, at)) if total >= last && failures >= failed => {
                if now.since(at) < FAILURE_WINDOW {
                    return;
                }
                let (new, bad) = (total - last, failures - failed);
                self.asked = new > 0 || bad > 0;
                if self.asked {
                    // A backend that was tried and failed is no connection of its own.
                    let share = bad as f64 / new.max(bad) as f64;
                    self.failed = Some((share, now));
                }
            }
            // The first report, or another forwarder.
            _ => self.asked = false,
        }
        self.counted = Some((total, failures, now));
    }
}

/// The route's part of `M_t`. `known`: when the forwarder was last heard, and whether that is
/// of now.
pub(crate) fn readings(
    route: &Routed,
    now: Micros,
    known: Option<(Micros, bool)>,
) -> Vec<MetricReading> {
    let Some(part) = Part::new(route.id.as_str()) else {
        return Vec::new();
    };
    let aged = |value: Option<f64>| match (value, known) {
        (Some(value), Some((_, true))) => Reading::Fresh(value),
        (Some(last), Some((at, false))) => Reading::Stale {
            last,
            age: now.since(at),
        },
        _ => Reading::Missing,
    };
    let backends = || route.backends.values().map(|backend| &backend.sample);
    let slowest = |of: fn((u32, u32)) -> u32| {
        let times = backends().filter_map(|sample| sample.first_byte_us.map(of));
        aged(times.max().map(|us| f64::from(us) / 1000.0))
    };
    let open: u64 = backends().map(|sample| u64::from(sample.active)).sum();
    let open = open + u64::from(route.demand.waiting);
    let failed = match route.demand.failed {
        Some((share, _)) if route.demand.asked => aged(Some(share)),
        Some((last, at)) => Reading::Stale {
            last,
            age: now.since(at),
        },
        None => Reading::Missing,
    };
    let whole = [
        (Metric::FailureShare, failed),
        (Metric::FirstByteP50, slowest(|(median, _)| median)),
        (Metric::FirstByteP95, slowest(|(_, p95)| p95)),
        (Metric::Connections, aged(Some(open as f64))),
    ]
    .map(|(metric, reading)| MetricReading::part(metric, part.clone(), reading));
    let rate = |(id, backend): (&ServiceId, &super::Backend)| MetricReading {
        service: Some(id.clone()),
        ..MetricReading::part(
            Metric::RequestRate,
            part.clone(),
            aged(Some(
                f64::from(backend.sample.answered) / LATENCY_WINDOW.as_secs_f64(),
            )),
        )
    };
    whole
        .into_iter()
        .chain(route.backends.iter().map(rate))
        .collect()
}

#[cfg(test)]
mod tests {
    use homeostat_common::ids::RouteId;

    use super::super::BackendSample;
    use super::*;

    fn report(total: u64, failures: u64, refused: u64) -> RouteSample {
        let sample = BackendSample {
            total,
            failures,
            active: 3,
            answered: 50,
            first_byte_us: Some((2_000, 9_000)),
            ..BackendSample::default()
        };
        RouteSample {
            route: RouteId::new("infer").unwrap(),
            waiting: 2,
            refused,
            backends: vec![(ServiceId::new("infer-1").unwrap(), sample)],
        }
    }

    #[test]
    fn failures_are_a_share_of_the_last_seconds_and_old_when_nobody_asks() {
        let mut demand = Demand::default();
        let at = |second: u64| Micros(second * 1_000_000);
        demand.absorb(at(0), &report(1000, 500, 0));
        assert_eq!(demand.failed, None);
        demand.absorb(at(5), &report(1050, 500, 0));
        assert_eq!(demand.failed, None, "too soon");
        demand.absorb(at(10), &report(1090, 505, 5));
        // 95 connections, 5 of which found nobody, and 5 failed on the way.
        assert_eq!(demand.failed, Some((10.0 / 95.0, at(10))));
        demand.absorb(at(20), &report(1090, 505, 5));
        assert!(!demand.asked && demand.failed.is_some());
        // A forwarder that was started anew.
        demand.absorb(at(30), &report(7, 7, 0));
        assert!(!demand.asked);
        demand.absorb(at(40), &report(17, 27, 0));
        assert_eq!(demand.failed, Some((1.0, at(40))));
    }
}
