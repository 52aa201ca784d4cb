//! How rare is this value of a statistic, judged by the largest it ever took?
//!
//! The [`PEAKS`] largest values are kept, one for each episode: values close in time belong
//! to one event and must not count as several. Beyond the least of them the statistic is
//! taken as Pareto (peaks over threshold, Pickands 1975, on a logarithmic scale; Hill 1975
//! for its one parameter), which holds for the heavy tails of loads and latencies and is
//! merely cautious for lighter ones. That the parameter itself comes from few peaks is part
//! of the rarity: it is the predictive one, not the fitted one.
//!
//! What was seen is usual: a second event as large as the first is no longer rare.
//!
//! In go statistics as [`code`]s, out come decades. State 20 B. A value that is no peak
//! costs two comparisons, a peak some 30. Blind to everything that is not at the edge of
//! what was seen, and to a slow trend that sets one small record after the other.

/// Peaks kept: enough for a tail, few enough that the least of them is far out.
pub(super) const PEAKS: usize = 8;

/// `PEAKS` as a number.
const KEPT: f32 = 8.0;

/// Steps of a [`code`] in a doubling: 0.03 % of the value.
pub(super) const STEPS: f32 = 2048.0;

/// A statistic `x >= 0` on a logarithmic scale, in 16 bits: nothing below `least`
/// matters. Rises with `x`; 1 for what is no number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
pub(super) fn code(x: f32, least: f32) -> u16 {
    let x = if x > 0.0 { x } else { 0.0 };
    let steps = (log2(x + least) + 6.0) * STEPS;
    if steps > 1.0 { steps as u16 } else { 1 }
}

/// The logarithm to base 2 to 0.001, for a positive normal number: continuous and rising,
/// and a fifth of the cost of the exact one.
#[allow(clippy::cast_possible_truncation)] // the sign is 0
pub(super) fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = f32::from((bits >> 23) as u8) - 127.0;
    let t = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000) - 1.0;
    exponent + t * (1.420_865 + t * (-0.577_251 + t * 0.156_386))
}

/// The largest values of one statistic.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    /// Codes, the largest first; 0 is none.
    peaks: [u16; PEAKS],
    /// The peak of the latest episode.
    episode: u16,
    /// Samples since it.
    quiet: u8,
}

impl Tail {
    pub(super) const fn new() -> Self {
        Self {
            peaks: [0; PEAKS],
            episode: 0,
            quiet: u8::MAX,
        }
    }

    /// Decades of rarity beyond what was expected [`PEAKS`] times in as long as was seen
    /// so far; 0 for all that is no peak, or while there are too few peaks.
    ///
    /// `floor`: least mean excess in doublings, so that equal peaks do not make the next
    /// one infinitely rare.
    pub(super) fn rarity(&self, x: u16, floor: f32) -> f32 {
        let least = self.least();
        if least == 0 || x <= least {
            return 0.0;
        }
        let excess = |peak: u16| f32::from(peak - least);
        let mean = self.peaks.iter().map(|peak| excess(*peak)).sum::<f32>() / (KEPT - 1.0);
        let floor = floor * STEPS;
        let beyond = excess(x) / if mean > floor { mean } else { floor };
        let tail = KEPT * log2(1.0 + beyond / KEPT);
        // As large ones were seen: no rarer than their count says.
        let above = self.peaks.iter().take_while(|peak| **peak >= x).count();
        let rank = match above {
            0 => f32::MAX,
            1 => 2.0,
            2 | 3 => 1.0,
            _ => 0.5,
        };
        (if tail < rank { tail } else { rank }) * core::f32::consts::LOG10_2
    }

    /// Takes a value into what is usual. Values up to `gap` samples after a peak belong to
    /// its episode.
    pub(super) fn learn(&mut self, x: u16, gap: u8) {
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet <= gap {
            if x > self.episode {
                let mut found = false;
                let mut ahead = 0;
                // Takes the episode's former peak out, which is there: everything behind
                // it moves up.
                for place in self.peaks.iter_mut().rev() {
                    if !found {
                        found = *place == self.episode;
                        core::mem::swap(place, &mut ahead);
                    }
                }
                self.enter(x);
            }
        } else if x > self.least() {
            self.enter(x);
        }
    }

    /// Shrinks all peaks by so many steps of a [`code`].
    pub(super) fn fade(&mut self, steps: u16) {
        for peak in &mut self.peaks {
            // 0 is no peak.
            *peak = peak.saturating_sub(steps).max(u16::from(*peak > 0));
        }
        self.episode = self.episode.saturating_sub(steps).max(1);
    }

    fn enter(&mut self, x: u16) {
        self.episode = x;
        self.quiet = 0;
        let mut moving = x;
        for place in &mut self.peaks {
            if moving > *place {
                core::mem::swap(place, &mut moving);
            }
        }
    }

    fn least(&self) -> u16 {
        let [.., least] = self.peaks;
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: f32 = 0.15;

    fn taught(values: impl IntoIterator<Item = f32>, gap: u8) -> Tail {
        let mut tail = Tail::new();
        for value in values {
            tail.learn(code(value, 0.05), gap);
        }
        tail
    }

    #[test]
    fn the_logarithm_is_close_and_never_falls() {
        let mut last = f32::NEG_INFINITY;
        for i in 0..200_000_u32 {
            let x = 1e-6 * libm::powf(1.0003, i as f32 * 0.5);
            let ours = log2(x);
            assert!(ours >= last, "{x}");
            assert!((ours - libm::log2f(x)).abs() < 0.0015, "{x}");
            last = ours;
        }
        assert_eq!(code(f32::NAN, 0.05), code(0.0, 0.05));
        assert_eq!(code(f32::INFINITY, 0.05), u16::MAX);
    }

    #[test]
    fn a_second_event_as_large_as_the_first_is_no_longer_rare() {
        let mut tail = taught((0..400_u16).map(|i| f32::from(i * 37 % 97)), 4);
        let spike = code(1e4, 0.05);
        let first = tail.rarity(spike, FLOOR);
        tail.learn(spike, 4);
        let second = tail.rarity(spike, FLOOR);
        assert!(first > 4.0 && second < 0.7, "{first} {second}");
    }

    #[test]
    fn an_episode_counts_once_with_its_peak() {
        let tail = taught([1.0, 5.0, 9.0, 8.0, 9.5, 7.0], 10);
        assert_eq!(tail.peaks, [code(9.5, 0.05), 0, 0, 0, 0, 0, 0, 0]);
        let tail = taught([5.0, 9.0, 1.0, 1.0, 1.0, 7.0, 8.0], 2);
        let [first, second, third, ..] = tail.peaks;
        assert_eq!(
            [first, second, third],
            [code(9.0, 0.05), code(8.0, 0.05), 0]
        );
    }

    #[test]
    fn new_extremes_of_independent_values_are_as_rare_as_stated() {
        // Pareto tails of three weights: the share of the records whose rarity passes r
        // decades, in time that doubles what was seen, is at most about PEAKS / 10^r.
        for weight in [0.3_f32, 1.0, 2.0] {
            let mut rng = fastrand::Rng::with_seed(4);
            let (mut runs, mut passed) = (0.0, 0.0);
            for _ in 0..400 {
                let mut tail = Tail::new();
                let mut draw = || libm::powf(1.0 - rng.f32(), -weight);
                for _ in 0..500 {
                    tail.learn(code(draw(), 0.05), 0);
                }
                runs += 1.0;
                for _ in 0..500 {
                    let x = code(draw(), 0.05);
                    passed += f32::from(tail.rarity(x, 0.01) >= 2.0);
                    tail.learn(x, 0);
                }
            }
            let rate = passed / runs;
            std::println!("weight {weight}: {rate:.4} alerts in each doubling");
            assert!(rate < 1.5 * KEPT / 100.0, "{rate}");
        }
    }
}
