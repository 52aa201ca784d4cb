//! Time to the first byte of an answer, over the last few seconds.
//!
//! In go microseconds, out come percentiles. A histogram with 16 steps per octave (an error
//! of 3 % at most) for each second, of which the last five count: 8 KiB for a backend that
//! was ever asked, however many requests it answers. Knows no clock; `now` comes in.

use homeostat_common::units::Micros;

/// Seconds that count, the present one among them.
const SLICES: usize = 5;
const SLICE_US: u64 = 1_000_000;
/// Steps per octave.
const STEPS_LOG2: u32 = 4;
const STEPS: usize = 1 << STEPS_LOG2;
/// Octaves above the first, which is exact; the last one ends at 67 s.
const OCTAVES: usize = 22;
const CELLS: usize = STEPS * (OCTAVES + 1);

#[derive(Debug, Default)]
pub(super) struct Latency {
    slices: Option<Box<[[u32; CELLS]; SLICES]>>,
    /// The second that the newest slice is about.
    second: u64,
}

/// What the window says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Summary {
    pub(super) answered: u64,
    /// p50, p95, p99 in microseconds; 0 when nothing was answered.
    pub(super) percentiles: [u32; 3],
}

impl Latency {
    pub(super) fn push(&mut self, now: Micros, took_us: u64) {
        self.turn(now);
        let slices = self
            .slices
            .get_or_insert_with(|| Box::new([[0; CELLS]; SLICES]));
        let slice = usize::try_from(self.second % SLICES as u64).unwrap_or(0);
        let cell = slices
            .get_mut(slice)
            .and_then(|it| it.get_mut(place(took_us)));
        if let Some(cell) = cell {
            *cell = cell.saturating_add(1);
        }
    }

    pub(super) fn summary(&mut self, now: Micros) -> Summary {
        self.turn(now);
        let Some(slices) = &self.slices else {
            return Summary::default();
        };
        let mut cells = [0_u64; CELLS];
        for slice in slices.iter() {
            for (sum, count) in cells.iter_mut().zip(slice) {
                *sum += u64::from(*count);
            }
        }
        let answered: u64 = cells.iter().sum();
        let at = |percent: u64| {
            let wanted = (answered * percent).div_ceil(100);
            let mut seen = 0;
            let found = cells.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.map_or(0, middle)
        };
        Summary {
            answered,
            percentiles: match answered {
                0 => [0; 3],
                _ => [at(50), at(95), at(99)],
            },
        }
    }

    /// Empties the slices of the seconds that have begun since.
    fn turn(&mut self, now: Micros) {
        let second = now.0 / SLICE_US;
        let passed = second.saturating_sub(self.second).min(SLICES as u64);
        if let Some(slices) = &mut self.slices {
            for back in 0..passed {
                let slice = usize::try_from((second - back) % SLICES as u64).unwrap_or(0);
                if let Some(slice) = slices.get_mut(slice) {
                    slice.fill(0);
                }
            }
        }
        self.second = self.second.max(second);
    }
}

fn place(us: u64) -> usize {
    let us = usize::try_from(us).unwrap_or(usize::MAX);
    if us < STEPS {
        return us;
    }
    let octave = us.ilog2() - STEPS_LOG2;
    let step = (us >> octave) - STEPS;
    let place = (octave as usize + 1) * STEPS + step;
    place.min(CELLS - 1)
}

/// The middle of what falls into a cell.
fn middle(place: usize) -> u32 {
    let (octave, step) = (place / STEPS, place % STEPS);
    let us = match octave.checked_sub(1) {
        None => step,
        Some(octave) => ((STEPS + step) << octave) + (1 << octave) / 2,
    };
    u32::try_from(us).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_three_percent_at_any_size() {
        for scale in [1_u64, 30, 1000, 50_000] {
            let mut latency = Latency::default();
            (1..=1000).for_each(|n| latency.push(Micros(7), n * scale));
            let summary = latency.summary(Micros(8));
            assert_eq!(summary.answered, 1000);
            for (found, percent) in summary.percentiles.into_iter().zip([50, 95, 99]) {
                let wanted = (percent * 10 * scale) as f64;
                let error = (f64::from(found) - wanted).abs() / wanted;
                assert!(error <= 0.033, "{found} for {wanted}");
            }
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut latency = Latency::default();
        latency.push(Micros(500_000), 10);
        latency.push(Micros(3_500_000), 20);
        let mut answered = |second: u64| latency.summary(Micros(second * SLICE_US)).answered;
        assert_eq!(
            [answered(4), answered(5), answered(7), answered(8)],
            [2, 1, 1, 0]
        );
        latency.push(Micros(u64::MAX), u64::MAX);
        assert_eq!(latency.summary(Micros(u64::MAX)).answered, 1);
        assert_eq!(latency.summary(Micros(0)).answered, 1, "a clock set back");
    }
}
