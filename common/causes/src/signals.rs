//! What is known of each component: series with a sliding, bounded history.
//!
//! In: samples as they come, also late ones. Out: nothing by itself; [`diagnose`] reads it.
//! A value that is no number is a missing one, and so is a cell that was never pushed.
//!
//! [`diagnose`]: crate::diagnose()

use alloc::{borrow::ToOwned as _, collections::VecDeque, string::String, vec, vec::Vec};
use core::time::Duration;

use crate::events::Events;
use crate::graph::{Component, Refusal};

/// Series that are kept: sixteen for each of 512 components.
pub const SERIES_MAX: usize = 8192;

/// Samples of a series that may be asked for at most: a week of ten minutes.
pub const KEEP_MAX: usize = 1024;

/// A value beyond this is nonsense, and dropped: sums of products stay finite.
pub const VALUE_MAX: f32 = 1e12;

/// Share of lost values from which on a median may be anything (its breakdown point).
pub(crate) const LOST: f32 = 0.5;

/// What a series says of its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Time of an answer, of any unit; the volume is the number of answers. Callers wait for
    /// their callees, so they show it too.
    Latency,
    /// Share of answers that failed, in `0..=1`; an availability is one less it. Handed up to
    /// callers as well.
    Errors,
    /// How good answers are, higher is better: accuracy, confidence. Handed up to callers.
    Quality,
    /// How much of something limited is used: processor, memory, disk, queue, temperature. The
    /// component's own; the volume, where given, explains what comes of load.
    Resource,
    /// Whether it is not there: 1 without a process, a carrier or a report, 0 with. Its own, like
    /// a resource.
    Absence,
    /// How many lines of trouble it logs, at warning or above. Its own, like a resource.
    Complaints,
    /// How much is asked of it. Says nothing by itself, much beside the others.
    Volume,
}

/// Where a kind is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Node, process, container.
    Infrastructure,
    /// Requests and their answers.
    Application,
    /// What a model answers.
    Model,
}

impl Kind {
    /// How many there are.
    pub(crate) const COUNT: usize = 7;

    /// Each at its place.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Latency,
        Self::Errors,
        Self::Quality,
        Self::Resource,
        Self::Absence,
        Self::Complaints,
        Self::Volume,
    ];

    /// The kinds that callees hand up to their callers.
    pub(crate) const HANDED_UP: [Self; 3] = [Self::Latency, Self::Errors, Self::Quality];

    /// Where it is measured.
    #[must_use]
    pub fn level(self) -> Level {
        match self {
            Self::Latency | Self::Errors | Self::Volume => Level::Application,
            Self::Quality => Level::Model,
            Self::Resource | Self::Absence | Self::Complaints => Level::Infrastructure,
        }
    }
}

/// A series, by its place in [`Signals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u16);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Milliseconds; half of what a `Duration` takes.
    pub(crate) at: u64,
    pub(crate) value: f32,
    /// Not a number if not known.
    pub(crate) volume: f32,
}

#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) component: usize,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) least: f32,
    pub(crate) samples: VecDeque<Sample>,
    /// Values that were pushed, and those of them that were none; both fade once there were as
    /// many as are kept.
    pushed: f32,
    lost: f32,
}

impl Series {
    /// The share of the values that were missing or nonsense, in `0.0..=1.0`.
    pub(crate) fn lost(&self) -> f32 {
        self.lost / self.pushed.max(1.0)
    }
}

/// The signals of all components, and the order of their events.
///
/// At most 16 B a sample: 0.6 MB for 50 components with six series of 128 samples.
#[derive(Debug, Clone)]
pub struct Signals {
    keep: usize,
    pub(crate) one_clock: bool,
    pub(crate) series: Vec<Series>,
    /// What follows what in logs and traces.
    pub events: Events,
}

impl Signals {
    /// Keeps the newest `keep` samples of each series, within `2..=1024`.
    #[must_use]
    pub fn keeping(keep: usize) -> Self {
        Self {
            keep: keep.clamp(2, KEEP_MAX),
            one_clock: false,
            series: Vec::new(),
            events: Events::default(),
        }
    }

    /// All times are of one clock: a component whose samples are old is silent, whatever else
    /// might have been made of it.
    #[must_use]
    pub fn of_one_clock(self) -> Self {
        Self {
            one_clock: true,
            ..self
        }
    }

    /// The series of a component, a kind and a name (`p95`, `memory`), which is added if it is
    /// new. Of several with a kind that is handed up, the first one counts.
    ///
    /// # Errors
    /// [`Refusal::Full`] beyond [`SERIES_MAX`].
    pub fn series(&mut self, of: Component, kind: Kind, name: &str) -> Result<SeriesId, Refusal> {
        let same =
            |one: &Series| one.component == of.index() && one.kind == kind && one.name == name;
        let place = match self.series.iter().position(same) {
            Some(place) => place,
            None if self.series.len() >= SERIES_MAX => return Err(Refusal::Full),
            None => {
                self.series.push(Series {
                    component: of.index(),
                    kind,
                    name: name.to_owned(),
                    least: 0.0,
                    samples: VecDeque::new(),
                    pushed: 0.0,
                    lost: 0.0,
                });
                self.series.len() - 1
            }
        };
        u16::try_from(place)
            .map(SeriesId)
            .map_err(|_| Refusal::Full)
    }

    /// By how much the values of a resource wander for no reason, in their unit; 0 unless it is
    /// told here, so that what usually stands at nothing has no noise to compare with.
    pub fn wanders(&mut self, series: SeriesId, least: f32) {
        if let Some(series) = self.series.get_mut(usize::from(series.0))
            && (0.0..=VALUE_MAX).contains(&least)
        {
            series.least = least;
        }
    }

    /// Takes a sample. `at` counts from any moment that is the same for all; `volume` is how
    /// many requests the value stands for, `f32::NAN` if that is not known. A value that is no
    /// number, or beyond [`VALUE_MAX`], is dropped, and so is a series that was never made.
    /// Returns whether it was kept.
    pub fn push(&mut self, series: SeriesId, at: Duration, value: f32, volume: f32) -> bool {
        let Some(series) = self.series.get_mut(usize::from(series.0)) else {
            return false;
        };
        let sample = Sample {
            at: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            value,
            volume: if (0.0..=VALUE_MAX).contains(&volume) {
                volume
            } else {
                f32::NAN
            },
        };
        if series.pushed >= self.keep as f32 {
            let fade = 1.0 - 1.0 / self.keep as f32;
            series.pushed *= fade;
            series.lost *= fade;
        }
        series.pushed += 1.0;
        if value.is_nan() || value.abs() > VALUE_MAX {
            series.lost += 1.0;
            return false;
        }
        let later = series
            .samples
            .iter()
            .rev()
            .take_while(|old| old.at > sample.at);
        let mut place = series.samples.len() - later.count();
        if series.samples.len() >= self.keep {
            // Older than all that is kept.
            if place == 0 {
                return false;
            }
            series.samples.pop_front();
            place -= 1;
        }
        series.samples.insert(place, sample);
        true
    }

    /// Takes the newest sample of a series back.
    pub fn pop(&mut self, series: SeriesId) {
        if let Some(series) = self.series.get_mut(usize::from(series.0)) {
            series.samples.pop_back();
        }
    }

    /// The share of values that each component lost, of the series that lost least; 0 where
    /// nothing was pushed.
    pub(crate) fn lost(&self, components: usize) -> Vec<f32> {
        let mut lost: Vec<Option<f32>> = vec![None; components];
        for one in self.series.iter().filter(|one| one.pushed > 0.0) {
            if let Some(least) = lost.get_mut(one.component) {
                *least = Some(least.map_or(one.lost(), |least| least.min(one.lost())));
            }
        }
        lost.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Forgets all samples of a component, which is known from now on only.
    pub fn forget(&mut self, of: Component) {
        let mine = self.series.iter_mut();
        for series in mine.filter(|series| series.component == of.index()) {
            series.samples.clear();
            (series.pushed, series.lost) = (0.0, 0.0);
        }
        self.events.forget(of);
    }

    /// Bytes on the heap, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let series = self.series.iter().map(|series| {
            size_of::<Series>()
                + series.name.capacity()
                + series.samples.capacity() * size_of::<Sample>()
        });
        series.sum::<usize>() + self.events.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_samples_find_their_place_and_old_ones_go() {
        let mut signals = Signals::keeping(3);
        let id = signals.series(Component(0), Kind::Resource, "cpu").unwrap();
        for second in [5, 1, 3, 9, 7] {
            signals.push(id, Duration::from_secs(second), 1.0, f32::INFINITY);
        }
        signals.push(id, Duration::from_secs(10), f32::NAN, 1.0);
        signals.push(SeriesId(4), Duration::ZERO, 1.0, 1.0);
        let times: Vec<u64> = signals.series[0].samples.iter().map(|one| one.at).collect();
        assert_eq!(times, [5000, 7000, 9000]);
        assert!(signals.series[0].samples[0].volume.is_nan());
        assert_eq!(signals.series(Component(0), Kind::Resource, "cpu"), Ok(id));
    }

    #[test]
    fn what_was_lost_is_told_and_fades() {
        let mut signals = Signals::keeping(8);
        let id = signals.series(Component(0), Kind::Latency, "p95").unwrap();
        let mut push = |value: f32, times: u64| {
            for at in 0..times {
                signals.push(id, Duration::from_secs(at), value, 1.0);
            }
            signals.series[0].lost()
        };
        assert_eq!(push(f32::NAN, 2), 1.0);
        assert_eq!(push(1.0, 2), 0.5);
        assert!(push(f32::INFINITY, 30) > 0.9);
        assert!(push(1.0, 30) < 0.1);
    }

    #[test]
    fn fifty_components_fit_a_megabyte() {
        let mut signals = Signals::keeping(128);
        for component in 0..50 {
            for name in ["a", "b", "c", "d", "e", "f"] {
                let id = signals
                    .series(Component(component), Kind::Resource, name)
                    .unwrap();
                for second in 0..200 {
                    signals.push(id, Duration::from_secs(second), 1.0, 1.0);
                }
            }
        }
        assert!(signals.bytes() < 1_000_000, "{}", signals.bytes());
    }
}
