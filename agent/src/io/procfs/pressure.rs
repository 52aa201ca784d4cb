//! How long tasks stood still for want of a resource (PSI), for the node or for a group.
//!
//! [`Pressure::sample`] gives shares between two samples. [`Pressure::glance`] may come in
//! between, ten times a second and oftener than anything else is looked at, and keeps the
//! worst share between two glances: a stall of 100 ms is lost in the mean of a second. A
//! glance reads three open files and does nothing else.

use std::path::Path;

use homeostat_common::units::Micros;

use super::source::{Rate, Source};
use super::{Texts, parse};

/// Processors, IO and memory, in this order.
pub(super) const RESOURCES: [&str; 3] = ["cpu", "io", "memory"];

/// One of them.
#[derive(Debug)]
struct Resource {
    source: Source,
    some: Rate,
    full: Rate,
    glance: Rate,
    peak: Option<f64>,
}

/// What one sample says of a resource, each a share of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Shares {
    /// Some task waited.
    pub(super) some: Option<f64>,
    /// All tasks waited.
    pub(super) full: Option<f64>,
    /// The worst of `some` between two glances since the last sample.
    pub(super) peak: Option<f64>,
}

/// All three.
#[derive(Debug)]
pub(super) struct Pressure(Vec<Resource>);

impl Pressure {
    /// Of the files of these names.
    pub(super) fn new<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let resources = paths.into_iter().map(|path| Resource {
            source: Source::new(path),
            some: Rate::default(),
            full: Rate::default(),
            glance: Rate::default(),
            peak: None,
        });
        Self(resources.collect())
    }

    /// A quick look in between.
    pub(super) fn glance(&mut self, now: Micros, texts: &mut Texts) {
        for one in &mut self.0 {
            let totals = texts.parse(&mut one.source, parse::pressure_totals);
            if let Some(share) = share(&mut one.glance, now, totals.map(|(some, _)| some)) {
                one.peak = Some(one.peak.map_or(share, |peak| peak.max(share)));
            }
        }
    }

    /// In the order of the files.
    pub(super) fn sample(&mut self, now: Micros, texts: &mut Texts) -> [Shares; 3] {
        let mut all = [Shares::default(); 3];
        for (shares, one) in all.iter_mut().zip(&mut self.0) {
            let totals = texts.parse(&mut one.source, parse::pressure_totals);
            let full = totals.and_then(|(_, full)| full);
            *shares = Shares {
                some: share(&mut one.some, now, totals.map(|(some, _)| some)),
                full: share(&mut one.full, now, full),
                peak: one.peak.take(),
            };
        }
        all
    }
}

fn share(rate: &mut Rate, now: Micros, micros: Option<u64>) -> Option<f64> {
    let waited = rate.per_second(now, micros)?;
    Some((waited / 1e6).clamp(0.0, 1.0))
}
