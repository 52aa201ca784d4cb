//! One alarm with everything that may be known at the time, as plain columns.

use std::time::Duration;

use anyhow::{Context as _, Result};
use homeostat_causes::{Alarm, Component, Diagnosis, Graph, KEEP_MAX, Kind, Signals};

/// The alarmed metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Latency,
    Availability,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Availability => "availability",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Latency => Kind::Latency,
            Self::Availability => Kind::Errors,
        }
    }
}

/// Nodes by place; cells that are empty are no number.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) names: Vec<String>,
    pub(crate) calls: Vec<Vec<usize>>,
    pub(crate) proxy: Vec<bool>,
    pub(crate) target: usize,
    pub(crate) metric: Metric,
    /// The first row since the alarm.
    pub(crate) alarm: usize,
    pub(crate) latency: Vec<Vec<f32>>,
    /// Share of failed answers.
    pub(crate) errors: Vec<Vec<f32>>,
    pub(crate) requests: Vec<Vec<f32>>,
}

/// Seconds of a row.
const ROW: u64 = 300;

impl Case {
    /// The rows of the alarmed metric.
    pub(crate) fn values(&self, node: usize) -> &[f32] {
        match self.metric {
            Metric::Latency => &self.latency[node],
            Metric::Availability => &self.errors[node],
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.latency.first().map_or(0, Vec::len)
    }

    /// Graph, signals and alarm, as a product would hold them.
    pub(crate) fn signals(&self) -> Result<(Graph, Signals, Alarm)> {
        let mut graph = Graph::default();
        let mut signals = Signals::keeping(KEEP_MAX);
        let nodes: Vec<Component> = self
            .names
            .iter()
            .map(|name| {
                graph
                    .add(name)
                    .with_context(|| format!("cannot add {name}"))
            })
            .collect::<Result<_>>()?;
        let at = |row: usize| Duration::from_secs(row as u64 * ROW);
        for (place, node) in nodes.iter().enumerate() {
            if self.proxy[place] {
                graph.proxy(*node)?;
            }
            for callee in &self.calls[place] {
                graph.calls(*node, nodes[*callee], None)?;
            }
            for (kind, columns) in [(Kind::Latency, &self.latency), (Kind::Errors, &self.errors)] {
                let series = signals.series(*node, kind, "average")?;
                for (row, value) in columns[place].iter().enumerate() {
                    signals.push(series, at(row), *value, self.requests[place][row]);
                }
            }
        }
        let alarm = Alarm::of(nodes[self.target], self.metric.kind(), at(self.alarm));
        Ok((graph, signals, alarm))
    }

    /// Our diagnosis.
    pub(crate) fn diagnose(&self) -> Result<(Graph, Diagnosis)> {
        let (graph, signals, alarm) = self.signals()?;
        let diagnosis = homeostat_causes::diagnose(&graph, &signals, &alarm);
        Ok((graph, diagnosis))
    }
}
