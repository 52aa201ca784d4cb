//! When did several sensors change together, to whatever side?
//!
//! The mean of the last 8 rows against that of the 20 before (a moving two-sample Hotelling T2;
//! Hotelling 1931), with the covariance such differences had in a healthy span. Differences
//! leave out what wanders slowly, so a drifting temperature neither alarms nor hides others.
//! A change is told once: again only after the windows agreed for a moment, and not sooner than
//! 20 rows later.
//!
//! In: rows of `K` sensors at a steady pace. Out: the rows at which something changed, and the
//! share of each sensor. It is a hint for a timeline, not an alarm: noise alone is told as a
//! change about once in 500 rows. State `4 K^2 + 120 K + 40` bytes, 1.2 KiB for 8 sensors; a
//! row costs `K^2 + 60 K` additions and multiplications (0.5 us for 8 sensors on x86-64).
//! Blind to changes slower than its 28 rows, to what leaves the mean in place, and to the
//! second of two changes within 20 rows. Says nothing of good and bad: an end is a change, too.

use crate::joint::{Ellipse, Frame, Scatter, passed_by_few, shares};

/// Rows that are compared with those before them.
const NOW: usize = 8;

/// Rows before those.
const BEFORE: usize = 20;

/// Rows in both windows.
const ROWS: usize = NOW + BEFORE;

/// The squared difference that is a change, in units of what 1 % of the healthy rows pass. This
/// and the windows were chosen in sight of the SKAB recordings.
const ALERT: f32 = 1.5;

/// Share of it below which the windows agree again.
const AGREE: f32 = 0.8;

/// Rows after a change in which none is told.
const QUIET: u16 = 20;

/// Fewest rows to learn from, so that the windows fill more than twice.
pub const LEARN_MIN: usize = 64;

/// Watches `K` sensors for changes.
///
/// ```
/// # use homeostat_detect::change::Change;
/// let usual = |i: u16| [f32::from(i * 37 % 16), f32::from(i * 11 % 7)];
/// let healthy: Vec<_> = (0..200).map(usual).collect();
/// let mut change = Change::learn(&healthy).unwrap();
/// assert!((0..100).all(|i| change.observe(&usual(i)).is_none()));
/// let told: Vec<_> = (0..60)
///     .filter_map(|i| change.observe(&[usual(i)[0], 9.0 + usual(i)[1]]))
///     .collect();
/// assert!(told.len() == 1 && told[0][1] > 0.9);
/// ```
#[derive(Debug, Clone)]
pub struct Change<const K: usize> {
    frame: Frame<K>,
    ellipse: Ellipse<K>,
    limit: f32,
    windows: Windows<K>,
    /// The windows still differ since the last change.
    differ: bool,
    quiet: u16,
}

impl<const K: usize> Change<K> {
    /// Learns the usual differences from rows of a healthy span, in their order. `None` for
    /// fewer than [`LEARN_MIN`].
    #[must_use]
    pub fn learn(rows: &[[f32; K]]) -> Option<Self> {
        if rows.len() < LEARN_MIN {
            return None;
        }
        let frame = Frame::of(rows);
        let mut scatter = Scatter::new();
        for_each_difference(&frame, rows, |off| scatter.add(off));
        let ellipse = scatter.ellipse(&[0.0; K], &[0.0; K]);
        let rare = passed_by_few(|look| {
            for_each_difference(&frame, rows, |off| look(ellipse.distance(off).0));
        });
        Some(Self {
            frame,
            ellipse,
            limit: (ALERT * rare).max(f32::MIN_POSITIVE),
            windows: Windows::new(),
            differ: false,
            quiet: 0,
        })
    }

    /// Takes a row; answers the share of each sensor if something changed. Values that are no
    /// numbers are left out of the means.
    pub fn observe(&mut self, row: &[f32; K]) -> Option<[f32; K]> {
        self.quiet = self.quiet.saturating_sub(1);
        let off = self.windows.push(self.frame.place(row))?;
        let (distance, parts) = self.ellipse.distance(&off);
        let distance = distance / self.limit;
        if self.differ {
            self.differ = distance >= AGREE;
            return None;
        }
        if distance <= 1.0 || self.quiet > 0 {
            return None;
        }
        self.differ = true;
        self.quiet = QUIET;
        Some(shares(parts))
    }
}

fn for_each_difference<const K: usize>(
    frame: &Frame<K>,
    rows: &[[f32; K]],
    mut with: impl FnMut(&[f32; K]),
) {
    let mut windows = Windows::new();
    for row in rows {
        if let Some(off) = windows.push(frame.place(row)) {
            with(&off);
        }
    }
}

/// The last rows, in a ring.
#[derive(Debug, Clone)]
struct Windows<const K: usize> {
    rows: [[f32; K]; ROWS],
    next: usize,
    full: bool,
}

impl<const K: usize> Windows<K> {
    fn new() -> Self {
        Self {
            rows: [[0.0; K]; ROWS],
            next: 0,
            full: false,
        }
    }

    /// Mean of the newer window less that of the older; `None` until both are full.
    fn push(&mut self, placed: [f32; K]) -> Option<[f32; K]> {
        if let Some(row) = self.rows.get_mut(self.next) {
            *row = placed;
        }
        self.next += 1;
        if self.next >= ROWS {
            self.next = 0;
            self.full = true;
        }
        if !self.full {
            return None;
        }
        // Anew each time: sums that are carried on would gather rounding.
        let (newest, oldest) = self.rows.split_at_checked(self.next)?;
        let (mut before, mut now) = ([Mean::default(); K], [Mean::default(); K]);
        for (row, age) in oldest.iter().chain(newest).zip(0_usize..) {
            let means = if age < BEFORE { &mut before } else { &mut now };
            for (mean, value) in means.iter_mut().zip(row) {
                mean.add(*value);
            }
        }
        let mut off = [0.0; K];
        for (off, (before, now)) in off.iter_mut().zip(before.iter().zip(&now)) {
            // A sensor that came less than half of the time says nothing.
            if 2.0 * before.n >= BEFORE as f32 && 2.0 * now.n >= NOW as f32 {
                *off = now.sum / now.n - before.sum / before.n;
            }
        }
        Some(off)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    n: f32,
    sum: f32,
}

impl Mean {
    fn add(&mut self, value: f32) {
        if !value.is_nan() {
            self.n += 1.0;
            self.sum += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn noise(rng: &mut fastrand::Rng) -> f32 {
        (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0
    }

    fn rows(n: usize, seed: u64, level: impl Fn(usize) -> f32) -> Vec<[f32; 2]> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut row = |at: usize| [noise(&mut rng), level(at) + noise(&mut rng)];
        (0..n).map(&mut row).collect()
    }

    fn told(change: &mut Change<2>, rows: &[[f32; 2]]) -> Vec<usize> {
        let told = rows.iter().enumerate();
        told.filter_map(|(at, row)| change.observe(row).map(|_| at))
            .collect()
    }

    #[test]
    fn begin_and_end_are_told_once_each_and_soon() {
        let mut change = Change::learn(&rows(400, 1, |_| 0.0)).unwrap();
        let level = |at| if (100..200).contains(&at) { 4.0 } else { 0.0 };
        let told = told(&mut change, &rows(300, 2, level));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!((100..110).contains(&told[0]), "{told:?}");
        assert!((200..210).contains(&told[1]), "{told:?}");
    }

    #[test]
    fn noise_and_a_slow_climb_are_no_change() {
        let climb = |at| at as f32 / 200.0;
        let mut change = Change::learn(&rows(400, 1, climb)).unwrap();
        let told = told(&mut change, &rows(5000, 3, climb));
        assert!(told.len() <= 20, "{told:?}");
    }

    #[test]
    fn values_that_do_not_come_are_no_change() {
        let mut change = Change::learn(&rows(400, 1, |_| 5.0)).unwrap();
        assert_eq!(told(&mut change, &rows(50, 2, |_| 5.0)), [0; 0]);
        assert_eq!(told(&mut change, &[[f32::NAN; 2]; 100]), [0; 0]);
        assert!(Change::learn(&rows(LEARN_MIN - 1, 1, |_| 0.0)).is_none());
    }

    #[test]
    fn state_is_as_documented() {
        assert!(size_of::<Change<8>>() <= 4 * 64 + 120 * 8 + 40);
    }

    proptest! {
        #[test]
        fn any_rows_are_taken(
            usual in prop::collection::vec(prop::array::uniform2(any::<f32>()), 64..100),
            rows in prop::collection::vec(prop::array::uniform2(any::<f32>()), 0..100),
        ) {
            let mut change = Change::learn(&usual).unwrap();
            for row in &rows {
                if let Some(shares) = change.observe(row) {
                    prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
                }
            }
        }
    }
}
