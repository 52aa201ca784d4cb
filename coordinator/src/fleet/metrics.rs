//! Counters and their Prometheus text.
//!
//! Counters start at 0 with the process, as Prometheus expects; what can be
//! asked from the database at the time of the scrape is a [`Gauges`].

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use homeostat_common::outcome::Outcome;
use homeostat_common::wire::body::StepCost;

use super::view::Budget;
use crate::control::admit::Reason;
use crate::io::db::outside::Taken;

/// Upper bounds in milliseconds: from a reflex restart to a person's coffee.
const HEALED_BOUNDS_MS: [u64; 12] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000, 120_000, 600_000,
];

/// Upper bounds in microseconds of receiving to having stored.
const STORE_BOUNDS_US: [u64; 9] = [
    500, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000, 1_000_000, 10_000_000,
];

/// What of the costs of healing is told, and of what.
type Part = fn(&StepCost) -> f32;
const COSTS: [(&str, &str, Part); 6] = [
    ("predicted", "resource", |step| step.predicted.resource),
    ("predicted", "disruption", |step| step.predicted.disruption),
    ("predicted", "risk", |step| step.predicted.risk),
    ("spent", "resource", |step| step.spent.resource),
    ("spent", "disruption", |step| step.spent.disruption),
    ("spent", "risk", |step| step.spent.risk),
];

/// What became of the words of other systems.
type OfTaken = fn(&Taken) -> u64;
const SAID: [(&str, &str, OfTaken); 8] = [
    ("alertmanager", "raised", |taken| taken.raised),
    ("alertmanager", "repeated", |taken| taken.repeated),
    ("alertmanager", "resolved", |taken| taken.resolved),
    ("alertmanager", "left_out", |taken| taken.left_out),
    ("mqtt", "raised", |taken| taken.raised),
    ("mqtt", "repeated", |taken| taken.repeated),
    ("mqtt", "resolved", |taken| taken.resolved),
    ("mqtt", "left_out", |taken| taken.left_out),
];

/// Counts of values up to each bound.
#[derive(Debug)]
struct Histogram<const N: usize> {
    bounds: [u64; N],
    counts: [AtomicU64; N],
    count: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [u64; N]) -> Self {
        Self {
            bounds,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    fn record(&self, value: u64) {
        let under = self.bounds.iter().zip(&self.counts);
        for (_, count) in under.filter(|(bound, _)| value <= **bound) {
            count.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// `per_second` turns the recorded unit into seconds.
    #[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years.
    fn write(&self, to: &mut String, name: &str, help: &str, per_second: f64) {
        let _ = writeln!(to, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            let _ = writeln!(
                to,
                "{name}_bucket{{le=\"{}\"}} {}",
                *bound as f64 / per_second,
                count.load(Relaxed)
            );
        }
        let count = self.count.load(Relaxed);
        let _ = writeln!(
            to,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {}\n{name}_count {count}",
            self.sum.load(Relaxed) as f64 / per_second
        );
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    ingested: AtomicU64,
    duplicates: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    closed: [AtomicU64; Outcome::ALL.len()],
    /// In millionths of a capacity-second, as [`COSTS`] names them.
    costs: [AtomicU64; COSTS.len()],
    healed: Histogram<{ HEALED_BOUNDS_MS.len() }>,
    store: Histogram<{ STORE_BOUNDS_US.len() }>,
    batches: AtomicU64,
    store_failures: AtomicU64,
    acknowledgements: AtomicU64,
    connections: AtomicU64,
    /// Words of other systems, as [`SAID`] names them.
    outside: [AtomicU64; SAID.len()],
    misheard: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            ingested: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            rejected: std::array::from_fn(|_| AtomicU64::new(0)),
            closed: std::array::from_fn(|_| AtomicU64::new(0)),
            costs: std::array::from_fn(|_| AtomicU64::new(0)),
            healed: Histogram::new(HEALED_BOUNDS_MS),
            store: Histogram::new(STORE_BOUNDS_US),
            batches: AtomicU64::new(0),
            store_failures: AtomicU64::new(0),
            acknowledgements: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            outside: std::array::from_fn(|_| AtomicU64::new(0)),
            misheard: AtomicU64::new(0),
        }
    }
}

/// What is asked from the database when somebody scrapes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Nodes that are known.
    pub nodes: u64,
    /// Nodes that are connected.
    pub online: u64,
    /// Incidents that are not over.
    pub open_incidents: u64,
    /// Alarms that are raised.
    pub alarms: u64,
    /// Plans across nodes that have not ended.
    pub plans: u64,
    /// Those, and those that got stuck, that a person was called for.
    pub flagged: u64,
    /// Events that are stored but cannot be acknowledged: something before
    /// them is missing. The largest of all streams.
    pub ack_lag: u64,
    /// Events that nodes reported as lost.
    pub lost: u64,
    /// Whether the broker is reached.
    pub broker: bool,
}

impl Metrics {
    /// A batch was stored, `waited_us` after its oldest message came.
    pub fn stored(&self, new: u64, duplicates: u64, waited_us: u64) {
        self.ingested.fetch_add(new, Relaxed);
        self.duplicates.fetch_add(duplicates, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        self.store.record(waited_us);
    }

    /// A message was refused.
    pub fn refused(&self, reason: Reason) {
        let all = Reason::ALL.iter().zip(&self.rejected);
        for (_, count) in all.filter(|(each, _)| **each == reason) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// An incident is over.
    pub fn closed(&self, outcome: Outcome, lasted_ms: u64) {
        let all = Outcome::ALL.iter().zip(&self.closed);
        for (_, count) in all.filter(|(each, _)| **each == outcome) {
            count.fetch_add(1, Relaxed);
        }
        if outcome == Outcome::Healed {
            self.healed.record(lasted_ms);
        }
    }

    /// A step was paid for.
    pub fn charged(&self, step: &StepCost) {
        for ((_, _, part), sum) in COSTS.iter().zip(&self.costs) {
            // A cost that is below nothing counts for nothing.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            sum.fetch_add((f64::from(part(step)) * 1e6) as u64, Relaxed);
        }
    }

    /// The database did not take a batch.
    pub fn store_failed(&self) {
        self.store_failures.fetch_add(1, Relaxed);
    }

    /// A cumulative acknowledgement was handed to the broker's connection.
    pub fn acknowledged(&self) {
        self.acknowledgements.fetch_add(1, Relaxed);
    }

    /// Another system has told of alarms.
    pub fn outside(&self, source: &str, taken: &Taken) {
        let all = SAID.iter().zip(&self.outside);
        for ((_, _, part), count) in all.filter(|((from, _, _), _)| *from == source) {
            count.fetch_add(part(taken), Relaxed);
        }
    }

    /// A device's message was no alarm.
    pub fn misheard(&self) {
        self.misheard.fetch_add(1, Relaxed);
    }

    /// The broker accepted a connection.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// The Prometheus text.
    #[must_use]
    pub fn text(&self, gauges: &Gauges, budgets: &[Budget]) -> String {
        let mut to = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
            let name = format!("homeostat_{name}");
            let _ = writeln!(to, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(to, "{name}{labels} {value}");
            }
        };
        let one = |value: u64| [(String::new(), value)];
        let counter = |count: &AtomicU64| [(String::new(), count.load(Relaxed))];
        family(
            "records_ingested_total",
            "counter",
            "Records stored.",
            &counter(&self.ingested),
        );
        family(
            "records_duplicate_total",
            "counter",
            "Records that were stored before.",
            &counter(&self.duplicates),
        );
        let rejected: Vec<_> = Reason::ALL
            .iter()
            .zip(&self.rejected)
            .map(|(reason, count)| {
                (
                    format!("{{reason=\"{}\"}}", reason.name()),
                    count.load(Relaxed),
                )
            })
            .collect();
        family(
            "messages_rejected_total",
            "counter",
            "Messages that were not taken.",
            &rejected,
        );
        let closed: Vec<_> = Outcome::ALL
            .iter()
            .zip(&self.closed)
            .map(|(outcome, count)| (format!("{{outcome=\"{outcome}\"}}"), count.load(Relaxed)))
            .collect();
        family(
            "incidents_closed_total",
            "counter",
            "Incidents that ended, by outcome.",
            &closed,
        );
        family(
            "store_batches_total",
            "counter",
            "Transactions with records.",
            &counter(&self.batches),
        );
        family(
            "store_failures_total",
            "counter",
            "Transactions that failed and were tried again.",
            &counter(&self.store_failures),
        );
        family(
            "acknowledgements_total",
            "counter",
            "Cumulative acknowledgements sent.",
            &counter(&self.acknowledgements),
        );
        family(
            "broker_connections_total",
            "counter",
            "Connections that the broker accepted.",
            &counter(&self.connections),
        );
        let outside: Vec<_> = SAID
            .iter()
            .zip(&self.outside)
            .map(|((source, what, _), count)| {
                let labels = format!("{{source=\"{source}\",what=\"{what}\"}}");
                (labels, count.load(Relaxed))
            })
            .collect();
        family(
            "outside_alarms_total",
            "counter",
            "Words of other systems about alarms, by what became of them.",
            &outside,
        );
        family(
            "outside_rejected_total",
            "counter",
            "Messages of devices that are no alarms.",
            &counter(&self.misheard),
        );
        family(
            "broker_connected",
            "gauge",
            "1 while the broker is reached.",
            &one(u64::from(gauges.broker)),
        );
        family(
            "nodes",
            "gauge",
            "Nodes that are known.",
            &one(gauges.nodes),
        );
        family(
            "nodes_online",
            "gauge",
            "Nodes that are connected.",
            &one(gauges.online),
        );
        family(
            "incidents_open",
            "gauge",
            "Incidents that are not over.",
            &one(gauges.open_incidents),
        );
        family(
            "alarms_raised",
            "gauge",
            "Alarms that are raised.",
            &one(gauges.alarms),
        );
        family(
            "plans_open",
            "gauge",
            "Plans across nodes that have not ended.",
            &one(gauges.plans),
        );
        family(
            "plans_flagged",
            "gauge",
            "Plans across nodes that a person was called for: open, or stuck.",
            &one(gauges.flagged),
        );
        family(
            "ack_lag_records",
            "gauge",
            "Most records of one stream that wait behind a missing one.",
            &one(gauges.ack_lag),
        );
        family(
            "records_lost",
            "gauge",
            "Records that nodes dropped and reported.",
            &one(gauges.lost),
        );
        write_budgets(&mut to, budgets);
        self.write_costs(&mut to);
        self.healed.write(
            &mut to,
            "homeostat_incident_healed_seconds",
            "First sign to healed.",
            1e3,
        );
        self.store.write(
            &mut to,
            "homeostat_store_seconds",
            "Oldest message of a batch to its commit.",
            1e6,
        );
        to
    }
}

impl Metrics {
    #[allow(clippy::cast_precision_loss)] // 2^53 millionths are three centuries of outage.
    fn write_costs(&self, to: &mut String) {
        let name = "homeostat_healing_cost_capacity_seconds_total";
        let help = "What plans were to cost at most, and what they have cost.";
        let _ = writeln!(to, "# HELP {name} {help}\n# TYPE {name} counter");
        for ((of, part, _), sum) in COSTS.iter().zip(&self.costs) {
            let sum = sum.load(Relaxed) as f64 / 1e6;
            let _ = writeln!(to, "{name}{{of=\"{of}\",part=\"{part}\"}} {sum}");
        }
    }
}

/// A gauge for each node and class. Names need no escaping: they hold a-z, 0-9
/// and '-'.
fn write_budgets(to: &mut String, budgets: &[Budget]) {
    type Field = fn(&Budget) -> f64;
    let families: [(&str, &str, Field); 4] = [
        ("beta", "What healing may cost at most.", |one| one.beta),
        ("balance", "What a new plan may cost.", |one| one.balance),
        ("reserved", "What is set aside for plans that run.", |one| {
            one.reserved
        }),
        (
            "overruns",
            "Plans that cost more than was set aside, since the agent started.",
            // Counts stay far below 2^53.
            #[allow(clippy::cast_precision_loss)]
            |one| one.overruns as f64,
        ),
    ];
    for (name, help, field) in families {
        let unit = if name == "overruns" {
            ""
        } else {
            "_capacity_seconds"
        };
        let name = format!("homeostat_budget_{name}{unit}");
        let _ = writeln!(to, "# HELP {name} {help}\n# TYPE {name} gauge");
        for one in budgets {
            let (node, class) = (&one.node, &one.class);
            let _ = writeln!(
                to,
                "{name}{{node=\"{node}\",class=\"{class}\"}} {}",
                field(one)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::wire::body::CostParts;

    #[test]
    fn what_was_counted_stands_in_the_text() {
        let metrics = Metrics::default();
        metrics.stored(3, 1, 700);
        metrics.refused(Reason::Sender);
        metrics.closed(Outcome::Healed, 40);
        metrics.closed(Outcome::Refused, 9_000);
        metrics.charged(&StepCost {
            predicted: CostParts {
                resource: 0.25,
                disruption: 4.5,
                risk: 1.0,
            },
            spent: CostParts {
                disruption: 0.125,
                ..CostParts::default()
            },
        });
        let gauges = Gauges {
            nodes: 2,
            ..Gauges::default()
        };
        let budget = Budget {
            node: "edge-1".into(),
            class: "mission".into(),
            beta: 45.0,
            balance: 30.5,
            reserved: 14.0,
            overruns: 1,
            since_ms: 0,
        };
        let text = metrics.text(&gauges, &[budget]);
        for line in [
            "homeostat_records_ingested_total 3",
            "homeostat_records_duplicate_total 1",
            "homeostat_messages_rejected_total{reason=\"sender\"} 1",
            "homeostat_incidents_closed_total{outcome=\"refused\"} 1",
            "homeostat_incident_healed_seconds_bucket{le=\"0.025\"} 0",
            "homeostat_incident_healed_seconds_bucket{le=\"0.05\"} 1",
            "homeostat_incident_healed_seconds_count 1",
            "homeostat_store_seconds_sum 0.0007",
            "homeostat_nodes 2",
            "homeostat_budget_balance_capacity_seconds{node=\"edge-1\",class=\"mission\"} 30.5",
            "homeostat_healing_cost_capacity_seconds_total{of=\"predicted\",part=\"disruption\"} 4.5",
            "homeostat_healing_cost_capacity_seconds_total{of=\"spent\",part=\"disruption\"} 0.125",
            "homeostat_healing_cost_capacity_seconds_total{of=\"spent\",part=\"risk\"} 0",
            "homeostat_budget_overruns{node=\"edge-1\",class=\"mission\"} 1",
        ] {
            assert!(text.lines().any(|each| each == line), "{line}\n{text}");
        }
    }
}
