//! What has moved at each component, and how far: kinds of signals up and down, topics of lines.
//!
//! In: a frame of all series, and counted log lines. Out: strengths in `0..=1`, and since which
//! row. It says nothing of who is behind it.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use crate::diagnose::Alarm;
use crate::frame::{Column, Frame};
use crate::graph::{Graph, Role};
use crate::robust::{level, median};
use crate::signals::{Kind, Signals};
use crate::topic::TOPICS;

/// Deviations below this many spreads are no sign; at so many more the strength is a half.
const DEAD_ZONE: f32 = 3.0;
const HALF: f32 = 8.0;
/// Least spread: of a level, of shares, of what is counted, of anything else in its unit.
const SPREAD_OF_LEVEL: f32 = 0.03;
const SPREAD_OF_SHARE: f32 = 0.06;
const SPREAD_OF_COUNT: f32 = 2.0;
const SPREAD_MIN: f32 = 0.2;
/// Further than this is no further.
const FAR_MAX: f32 = 1e6;
/// Rows at the end over which the present is taken.
const PRESENT: usize = 3;
/// A series has changed for good after so many rows beyond the dead zone.
const STANDS: usize = 2;

/// What may have moved: each kind up and down, and each topic that is logged.
pub(crate) const SAID: usize = 2 * Kind::COUNT;
pub(crate) const CODES: usize = SAID + TOPICS;

/// How strongly each code shows, in `0..=1`.
pub(crate) type Moved = [f32; CODES];

/// What has moved, by component.
#[derive(Default)]
pub(crate) struct Signs {
    pub(crate) moved: Vec<Moved>,
    /// The first row at which something of it stood beyond the dead zone.
    pub(crate) since: Vec<Option<usize>>,
    /// Every series that moved.
    pub(crate) moves: Vec<Move>,
}

/// A series that moved.
pub(crate) struct Move {
    pub(crate) component: usize,
    pub(crate) code: usize,
    /// Place among the series of the signals.
    pub(crate) series: usize,
    pub(crate) usual: f32,
    pub(crate) now: f32,
    /// In spreads, above 0.
    pub(crate) far: f32,
}

impl Signs {
    pub(crate) fn of(graph: &Graph, signals: &Signals, frame: &Frame, alarm: &Alarm) -> Self {
        let mut signs = Self {
            moved: vec![[0.0; CODES]; graph.len()],
            since: vec![None; graph.len()],
            moves: Vec::new(),
        };
        let well = alarm.well_until.map_or(frame.split, |until| {
            let until = i64::try_from(until.as_millis()).unwrap_or(i64::MAX);
            frame.begins.partition_point(|begins| *begins <= until)
        });
        let well = well.min(frame.split);
        let usual = |column: &Column| level(&column.values[..well]);
        let usual: Vec<Option<(f32, f32)>> = frame.columns.iter().map(usual).collect();
        // A few rows say little of how far one series wanders: none is steadier than the middle
        // one of its name.
        let name = |column: &Column| (column.kind, signals.series[column.series].name.as_str());
        let mut spreads: BTreeMap<(Kind, &str), Vec<f32>> = BTreeMap::new();
        for (column, usual) in frame.columns.iter().zip(&usual) {
            if let Some((_, spread)) = usual {
                spreads.entry(name(column)).or_default().push(*spread);
            }
        }
        let middle: BTreeMap<(Kind, &str), f32> = spreads
            .into_iter()
            .filter_map(|(name, spreads)| Some((name, median(spreads.into_iter())?)))
            .collect();
        for (column, usual) in frame.columns.iter().zip(&usual) {
            let Some((level, spread)) = *usual else {
                continue;
            };
            let least = match column.kind {
                Kind::Errors | Kind::Quality | Kind::Absence => SPREAD_OF_SHARE,
                Kind::Complaints => SPREAD_OF_COUNT,
                Kind::Latency | Kind::Resource | Kind::Volume => SPREAD_MIN,
            };
            let spread = spread
                .max(middle.get(&name(column)).copied().unwrap_or(0.0))
                .max(SPREAD_OF_LEVEL * level.abs())
                .max(least);
            let far = |value: f32| ((value - level) / spread).clamp(-FAR_MAX, FAR_MAX);
            if let Some((far, since)) = sign(&column.values, well, far) {
                let moved = &mut signs.moved[column.component];
                let code = 2 * column.kind as usize + usize::from(far > 0.0);
                let more = far.abs() - DEAD_ZONE;
                let strength = more / (more + HALF);
                signs.moves.push(Move {
                    component: column.component,
                    code,
                    series: column.series,
                    usual: level,
                    now: level + far * spread,
                    far: far.abs(),
                });
                moved[code] = moved[code].max(strength);
                let known = &mut signs.since[column.component];
                *known = Some(known.map_or(since, |known| known.min(since)));
            }
        }
        let writers = (0..graph.len())
            .filter(|of| graph.role_of(*of) == Some(Role::Instance))
            .count();
        for (of, topics) in signals.events.novel(writers) {
            if let Some(moved) = signs.moved.get_mut(of) {
                moved[SAID..].copy_from_slice(&topics);
            }
        }
        signs
    }
}

/// How far from its usual a series is now, in spreads, and since which row.
fn sign(values: &[f32], well: usize, far: impl Fn(f32) -> f32) -> Option<(f32, usize)> {
    let now = median(
        values[values.len().saturating_sub(PRESENT)..]
            .iter()
            .copied(),
    );
    let far_now = far(now?);
    if far_now.abs() <= DEAD_ZONE {
        return None;
    }
    let up = far_now > 0.0;
    let beyond = |value: f32| {
        let far = far(value);
        far.abs() > DEAD_ZONE && (far > 0.0) == up
    };
    let (mut since, mut stood) = (values.len() - 1, 0);
    for (row, value) in values.iter().enumerate().skip(well) {
        if value.is_nan() {
            continue;
        }
        stood = if beyond(*value) { stood + 1 } else { 0 };
        if stood == STANDS {
            since = row + 1 - STANDS;
            break;
        }
    }
    Some((far_now, since))
}
