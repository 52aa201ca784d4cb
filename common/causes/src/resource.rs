//! What a component uses of limited things, beyond what its load explains.
//!
//! Nobody hands this up: it is the component's own. What comes of load is learnt in the
//! reference (Theil-Sen of the value over its volume), the rest is compared with how far it ever
//! was from its median.

use alloc::vec::Vec;

use crate::frame::{Column, Frame};
use crate::robust::{deviation, median, quantile, slope};
use crate::settings::Settings;
use crate::signals::{Kind, Series};

/// The series of a component that is furthest beyond what is usual.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    pub(crate) series: usize,
    pub(crate) baseline: f32,
    pub(crate) now: f32,
    /// How many times what is usual it moved; of those within it only that they are at most 1.
    pub(crate) times: f32,
}

/// The strongest resource of each component.
pub(crate) fn resources(
    components: usize,
    frame: &Frame,
    signals: &[Series],
    settings: &Settings,
) -> Vec<Option<Resource>> {
    let mut all: Vec<Option<Resource>> = Vec::new();
    all.resize(components, None);
    for column in &frame.columns {
        let own = [Kind::Resource, Kind::Absence, Kind::Complaints];
        if !own.contains(&column.kind) {
            continue;
        }
        let wanders = signals
            .get(column.series)
            .map_or(0.0, |series| series.least);
        if let Some(found) = resource(column, frame.split, wanders, settings) {
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

fn resource(column: &Column, split: usize, wanders: f32, settings: &Settings) -> Option<Resource> {
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
    let rest: Vec<f32> = if per_load > 0.0 {
        let load = |volume: &f32| if volume.is_finite() { *volume } else { 0.0 };
        let rows = column.values.iter().zip(&column.volumes);
        rows.map(|(value, volume)| value - per_load * load(volume))
            .collect()
    } else {
        column.values.clone()
    };
    let (before, after) = rest.split_at(split);
    let middle = median(before.iter().copied())?;
    let moved = median(after.iter().copied())? - middle;
    let baseline = median(column.values[..split].iter().copied())?;
    // Most stay within what every reading wanders by, and need no look at their own past.
    let mut usual = settings.noise * (FLOOR * baseline.abs()).max(least(column.kind)) + wanders;
    if moved > usual {
        usual = usual.max(settings.noise * deviation(before, middle)?);
        let quiet = &before[..split.saturating_sub(settings.late)];
        if quiet.len() >= settings.full {
            usual = usual.max(quantile(quiet.iter().copied(), settings.usual)? - middle);
        }
    }
    Some(Resource {
        series: column.series,
        baseline,
        now: median(column.values[split..].iter().copied())?,
        times: times(moved, usual),
    })
}

/// Noise of what usually stands at nothing.
fn least(kind: Kind) -> f32 {
    match kind {
        // A look in fifty that finds nobody.
        Kind::Absence => 0.02,
        Kind::Complaints => 2.0,
        _ => 0.0,
    }
}

/// Most times of what is usual that are told: a resource that stood still at nothing shows no
/// noise to compare with, and without this end it would outweigh all other evidence.
const TIMES_MAX: f32 = 5000.0;

/// How many times what is usual a resource moved up; 0 if that is no number.
fn times(moved: f32, usual: f32) -> f32 {
    if moved > 0.0 {
        (moved / usual).min(TIMES_MAX)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::settings::SETTINGS;

    /// Three rows of a fault after as many as are full history.
    fn beyond(before: f32, after: f32, wanders: f32) -> f32 {
        let mut values = vec![before; SETTINGS.full];
        values.resize(SETTINGS.full + 3, after);
        let column = Column {
            component: 0,
            kind: Kind::Resource,
            series: 0,
            volumes: vec![f32::NAN; values.len()],
            values,
        };
        resource(&column, SETTINGS.full, wanders, &SETTINGS)
            .unwrap()
            .times
    }

    #[test]
    fn what_stood_at_nothing_is_told_without_end_of_times() {
        for (before, after) in [(0.0, 0.4), (0.0, 1e12), (1e-30, 0.4), (0.0, 1e-30)] {
            let times = beyond(before, after, 0.0);
            assert!((2.0..1e4).contains(&times), "{before} -> {after}: {times}");
        }
        assert_eq!([beyond(0.0, 0.0, 0.0), beyond(0.4, 0.0, 0.0)], [0.0; 2]);
        // Where it is known what it wanders by, that is what it is compared with.
        assert!((beyond(0.0, 0.4, 0.2) - 2.0).abs() < 1e-6);
    }
}
