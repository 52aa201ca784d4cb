//! All series on one grid of time, with the alarm's place in it.
//!
//! In: signals whose samples come at their own times. Out: columns of cells, one row for each
//! period in which anything was sampled, empty cells as no number, and the first row of the
//! fault. Clocks that disagree by hours are moved onto each other and named.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use crate::diagnose::{Alarm, place};
use crate::evidence::Doubt;
use crate::graph::Component;
use crate::robust::{median, quantile};
use crate::settings::Settings;
use crate::signals::{KEEP_MAX, Kind, Series, Signals};

/// Milliseconds between clocks that no delay of a sample explains: an hour.
const CLOCK: i64 = 3_600_000;

/// Later times are taken for this one, so that sums and products of them do not overflow.
const TIME_MAX: i64 = i64::MAX / 16;

/// Samples without a gap, which tell a clock that is behind from a component that is silent.
const STEADY: usize = 8;

#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) component: usize,
    pub(crate) kind: Kind,
    /// Place among the series of the signals.
    pub(crate) series: usize,
    pub(crate) values: Vec<f32>,
    /// Not a number if not known.
    pub(crate) volumes: Vec<f32>,
}

#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// Milliseconds at which each row begins.
    pub(crate) begins: Vec<i64>,
    /// The first row of the fault; those before it are reference.
    pub(crate) split: usize,
    pub(crate) columns: Vec<Column>,
}

/// The periods in which anything was sampled, the newest [`KEEP_MAX`], in order.
#[derive(Default)]
struct Bins {
    all: Vec<i64>,
    merged: Vec<i64>,
}

impl Bins {
    /// Takes in those of one series, which are in order. Most are known already, as series are
    /// sampled together.
    fn merge(&mut self, bins: impl Iterator<Item = i64>) {
        self.merged.clear();
        let mut known = self.all.iter().copied().peekable();
        for bin in bins {
            while let Some(before) = known.next_if(|known| *known <= bin) {
                self.merged.push(before);
            }
            if self.merged.last() != Some(&bin) {
                self.merged.push(bin);
            }
        }
        self.merged.extend(known);
        let old = self.merged.len().saturating_sub(KEEP_MAX);
        self.merged.drain(..old);
        core::mem::swap(&mut self.all, &mut self.merged);
    }
}

impl Frame {
    /// `None` if there is no sample at all.
    #[allow(clippy::cast_possible_truncation)] // a period, capped
    pub(crate) fn build(
        signals: &Signals,
        components: usize,
        alarm: &Alarm,
        settings: &Settings,
        doubts: &mut Vec<Doubt>,
    ) -> Option<Self> {
        let alarmed = alarm.component.map(Component::index);
        let known = |one: &&Series| one.component < components && !one.samples.is_empty();
        let own = |one: &&Series| Some(one.component) == alarmed;
        let series = || signals.series.iter().filter(known);
        let period = median(series().filter(own).filter_map(spacing))
            .or_else(|| median(series().filter_map(spacing)))
            .map_or(1, |period| (period as i64).clamp(1, TIME_MAX));
        let shifts = shifts(signals, components, period, doubts);
        let newest = series()
            .filter_map(|one| Some(signed(one.samples.back()?.at) - shifts[one.component]))
            .max()?;
        let oldest = series()
            .filter_map(|one| Some(signed(one.samples.front()?.at) - shifts[one.component]))
            .min()?;
        // An alarm that is later than all samples means the newest ones. One before all of them
        // comes from another clock.
        let last = newest - period + 1;
        let mut at = signed(u64::try_from(alarm.at.as_millis()).unwrap_or(u64::MAX));
        if at > newest {
            at = last;
        } else if at <= oldest && newest > oldest {
            doubts.push(Doubt::AlarmOutside);
            at = last;
        }
        let bin = |time: i64| (time - at).div_euclid(period);
        let mut bins = Bins::default();
        for one in series() {
            let shift = shifts[one.component];
            bins.merge(one.samples.iter().map(|one| bin(signed(one.at) - shift)));
        }
        let bins = bins.all;
        let mut frame = Self {
            begins: bins.iter().map(|bin| at + bin * period).collect(),
            split: bins.partition_point(|bin| *bin < 0),
            columns: Vec::new(),
        };
        for (place, one) in signals.series.iter().enumerate() {
            if one.component >= components || one.samples.is_empty() {
                continue;
            }
            let mut column = Column {
                component: one.component,
                kind: one.kind,
                series: place,
                values: vec![f32::NAN; bins.len()],
                volumes: vec![f32::NAN; bins.len()],
            };
            // Samples are in order, so the rows are passed once.
            let (mut row, mut count) = (0, 0.0_f32);
            for sample in &one.samples {
                let time = signed(sample.at) - shifts[one.component];
                while frame.begins.get(row + 1).is_some_and(|next| *next <= time) {
                    (row, count) = (row + 1, 0.0);
                }
                // Older than all that is kept.
                if frame.begins.get(row).is_none_or(|begins| time < *begins) {
                    continue;
                }
                let mean = &mut column.values[row];
                *mean = if count == 0.0 {
                    sample.value
                } else {
                    *mean + (sample.value - *mean) / (count + 1.0)
                };
                let volume = &mut column.volumes[row];
                *volume = if volume.is_nan() {
                    sample.volume
                } else {
                    *volume + sample.volume
                };
                count += 1.0;
            }
            frame.columns.push(column);
        }
        frame.begin_earlier(alarm, settings);
        Some(frame)
    }

    /// The column of a component and a kind: the first series that was made for it.
    pub(crate) fn column(&self, component: usize, kind: Kind) -> Option<&Column> {
        let mut columns = self.columns.iter();
        columns.find(|one| one.component == component && one.kind == kind)
    }

    /// When a row began.
    pub(crate) fn begins(&self, row: usize) -> Option<Duration> {
        let at = u64::try_from(*self.begins.get(row)?).unwrap_or(0);
        Some(Duration::from_millis(at))
    }

    /// Alarms come late: rows before it that are more like those after it than like the
    /// reference belong to the fault. At least one row stays reference.
    fn begin_earlier(&mut self, alarm: &Alarm, settings: &Settings) {
        let Some((component, kind)) = alarm.component.zip(alarm.kind) else {
            return;
        };
        let Some(column) = self.column(component.index(), kind) else {
            return;
        };
        let least = self.split.saturating_sub(settings.late).max(1);
        let mut split = self.split;
        let q = settings.baseline[usize::from(split < settings.full)];
        let q = if kind == Kind::Quality { 1.0 - q } else { q };
        while split > least {
            let (before, after) = column.values.split_at(split);
            // Without the row in question; of the few others one may belong to the fault too.
            let usual = quantile(before[..split - 1].iter().copied(), q);
            let (Some(usual), Some(fault)) = (usual, median(after.iter().copied())) else {
                break;
            };
            let value = before[split - 1];
            let like = (value - usual) * (fault - usual) > 0.0
                && (value - fault).abs() < (value - usual).abs();
            if !like {
                break;
            }
            split -= 1;
        }
        self.split = split;
    }
}

#[allow(clippy::cast_possible_wrap, clippy::cast_sign_loss)] // capped, positive
fn signed(at: u64) -> i64 {
    at.min(TIME_MAX as u64) as i64
}

/// Milliseconds between samples, the median.
fn spacing(series: &Series) -> Option<f32> {
    let samples = &series.samples;
    let steps = samples.iter().zip(samples.iter().skip(1));
    let steps = steps
        .map(|(a, b)| (b.at - a.at) as f32)
        .filter(|step| *step > 0.0);
    median(steps)
}

/// How far the clock of each component is ahead of the others', where that is hours.
fn shifts(signals: &Signals, components: usize, period: i64, doubts: &mut Vec<Doubt>) -> Vec<i64> {
    let mut newest: Vec<Option<i64>> = vec![None; components];
    let mut steady = vec![false; components];
    for one in &signals.series {
        let (Some(place), Some(last)) = (newest.get_mut(one.component), one.samples.back()) else {
            continue;
        };
        *place = (*place).max(Some(signed(last.at)));
        let tail = one.samples.len().saturating_sub(STEADY);
        let tail = one.samples.iter().skip(tail);
        let gaps = tail.clone().zip(tail.clone().skip(1));
        let gap = gaps.map(|(a, b)| b.at - a.at).max();
        steady[one.component] |=
            tail.count() == STEADY && gap.is_some_and(|gap| signed(gap) / 2 <= period);
    }
    let mut all: Vec<i64> = newest.iter().flatten().copied().collect();
    all.sort_unstable();
    let mut shifts = vec![0; components];
    if signals.one_clock {
        return shifts;
    }
    let Some(now) = all.get(all.len() / 2).copied() else {
        return shifts;
    };
    for (component, newest) in newest.iter().enumerate() {
        let Some(newest) = newest else { continue };
        let ahead = newest - now;
        if ahead > CLOCK || (ahead < -CLOCK && steady[component]) {
            shifts[component] = ahead;
            doubts.push(Doubt::Clock {
                component: place(component),
                ahead_s: ahead / 1000,
            });
        }
    }
    shifts
}
