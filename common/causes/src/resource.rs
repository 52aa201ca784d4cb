//! What a component uses of limited things, beyond what its load explains.
//!
//! Nobody hands this up: it is the component's own. What comes of load is learnt in the
//! reference (Theil-Sen of the value over its volume), the rest is compared with how far it ever
//! was from its median.

use alloc::vec::Vec;

use crate::diagnose::Settings;
use crate::frame::{Column, Frame};
use crate::robust::{level, median, quantile, slope};
use crate::signals::Kind;

/// The series of a component that is furthest beyond what is usual.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    pub(crate) series: usize,
    pub(crate) baseline: f32,
    pub(crate) now: f32,
    pub(crate) times: f32,
}

/// The strongest resource of each component.
pub(crate) fn resources(
    components: usize,
    frame: &Frame,
    settings: &Settings,
) -> Vec<Option<Resource>> {
    let mut all: Vec<Option<Resource>> = Vec::new();
    all.resize(components, None);
    for column in &frame.columns {
        let own = [Kind::Resource, Kind::Absence, Kind::Complaints];
        if !own.contains(&column.kind) {
            continue;
        }
        if let Some(found) = resource(column, frame.split, settings) {
            let best = &mut all[column.component];
            if best.is_none_or(|best| found.times > best.times) {
                *best = Some(found);
            }
        }
    }
    all
}

/// Noise that every reading has, as a share of it: the last digit that is told.
const FLOOR: f32 = 0.02;

/// Rows from which the part of the load is learnt.
const LOAD_MIN: usize = 16;

fn resource(column: &Column, split: usize, settings: &Settings) -> Option<Resource> {
    let pairs: Vec<(f32, f32)> = column
        .volumes
        .iter()
        .zip(&column.values)
        .take(split)
        .map(|(volume, value)| (*volume, *value))
        .filter(|(volume, value)| volume.is_finite() && value.is_finite())
        .collect();
    let per_load = slope(&pairs)
        .filter(|_| pairs.len() >= LOAD_MIN)
        .unwrap_or(0.0)
        .max(0.0);
    let rest = |row: usize| {
        let volume = column.volumes[row];
        let load = if volume.is_finite() { volume } else { 0.0 };
        column.values[row] - per_load * load
    };
    let (middle, sigma) = level((0..split).map(rest))?;
    let baseline = median(column.values[..split].iter().copied())?;
    let quiet = split.saturating_sub(settings.late);
    let furthest = if quiet >= settings.full {
        quantile((0..quiet).map(rest), settings.usual)? - middle
    } else {
        0.0
    };
    let usual = furthest
        .max(settings.noise * sigma)
        .max(settings.noise * FLOOR * baseline.abs())
        .max(f32::MIN_POSITIVE);
    let moved = median((split..column.values.len()).map(rest))? - middle;
    Some(Resource {
        series: column.series,
        baseline,
        now: median(column.values[split..].iter().copied())?,
        times: (moved / usual).max(0.0),
    })
}
