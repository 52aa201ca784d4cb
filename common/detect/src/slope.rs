//! Growth without end: memory, file descriptors, threads, disk, queue depth.
//!
//! Robust slope by repeated medians (Siegel 1982; half of the samples may lie),
//! its significance by Mann (1945) and Kendall (1975) with correction for ties,
//! and a straight line to the limit. A window that still holds the quiet past
//! would hide a leak that has just begun, so the newest 6, 11, 20 and 32 samples
//! are tried in turn: a fast leak shows in the shortest, a slow one in the longest.
//!
//! Growth is called a leak only when it is all of: significant; monotone; larger
//! than any service grows by honest work ([`Policy::rise_min`]); going on through
//! all of the span, in its older half (or it is a step between two levels) and in
//! its newer one (or it is coming to rest); above every level that this life has
//! already come back from by itself (the peaks of a garbage collector); and
//! dangerous, by forecast or by rate.
//!
//! State 1 KiB. A sample costs 0.13 us while nothing grows and 35 us when
//! all four windows are fitted and looked at in parts (x86-64, some 2,800 slopes). [`Policy::bucket`]
//! keeps the least value of each span: the same detector then sees hours, and
//! below the saw teeth of a collector faster than that.
//!
//! Blind to: growth below `rise_min`; growth slower than the window resolves
//! (run a second one with a larger bucket); growth up to a former peak, so a leak
//! behind a start-up spike is called late; growth that becomes faster by half
//! within the shortest span, until it does so no more. One honest burst larger
//! than `rise_min` is nobody's leak if it is over within four sampling periods;
//! one that is as steady for longer than that, and than `span_min`, cannot be told
//! from a leak while it lasts.

use core::time::Duration;

use heapless::Deque;

use crate::median;

/// Samples kept: 8 s at 4 Hz. More would cost its square in time.
pub const WINDOW: usize = 32;

/// Newest samples fitted, in this order. Six is the fewest whose perfect order
/// is significant (one in 720); each further one is less than twice the last.
const SPANS: [usize; 4] = [6, 11, 20, WINDOW];

/// The older and the newer half must grow at this share of what the older half, the middle and
/// the whole do; of a leak all are alike. In the newer half a cache that fills with a time
/// constant of the shortest span has 0.55. In the older half a burst of four sampling periods has
/// at most 0.75, whenever it began.
const LASTING: f32 = 0.8;

/// What counts as a leak. Values are in the caller's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The value that must not be reached, if there is one.
    pub limit: Option<f32>,
    /// A forecast to hit `limit` sooner than this is a leak.
    pub horizon: Duration,
    /// Growth per second that is a leak whatever the limit.
    pub rate_max: f32,
    /// Less growth than this within the window is never a leak.
    pub rise_min: f32,
    /// Growth shorter than this is never a leak.
    pub span_min: Duration,
    /// After a start, for this long, nothing is judged.
    pub warm_up: Duration,
    /// Keep the least value of each such span; zero keeps every sample.
    pub bucket: Duration,
    /// Least Kendall's tau, the excess of rising pairs over falling ones: 1 is monotone.
    pub tau_min: f32,
    /// Least Mann-Kendall z; 2.5 is one chance in 160 per window.
    pub z_min: f32,
}

impl Default for Policy {
    /// For resident memory in bytes at 4 Hz: a leak is 16 MB/s, or the limit
    /// within a minute, after at least 32 MB and 1.2 s of growth.
    fn default() -> Self {
        Self {
            limit: None,
            horizon: Duration::from_secs(60),
            rate_max: 16e6,
            rise_min: 32e6,
            span_min: Duration::from_millis(1200),
            warm_up: Duration::from_secs(3),
            bucket: Duration::ZERO,
            tau_min: 0.7,
            z_min: 2.5,
        }
    }
}

/// What the detector says of the latest sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Within [`Policy::warm_up`], or too few samples.
    Learning,
    /// No growth that matters.
    Steady,
    /// Grows for certain, but not (yet) dangerously.
    Growing {
        /// Units per second.
        rate: f32,
    },
    /// Grows dangerously.
    Leak {
        /// Units per second.
        rate: f32,
        /// Until [`Policy::limit`]; `None` where there is no limit.
        eta: Option<Duration>,
    },
}

/// A fitted line and what speaks for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Repeated-median slope, units per second.
    pub rate: f32,
    /// Kendall's tau, `-1..=1`.
    pub tau: f32,
    /// Mann-Kendall z with continuity correction; 0 when all values are equal.
    pub z: f32,
    /// Time from first to last sample.
    pub span: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    value: f32,
}

/// Watches one value of one life of a service; [`reset`](Slope::reset) it with the service.
///
/// ```
/// # use homeostat_detect::slope::{Policy, Slope, Verdict};
/// # use core::time::Duration;
/// let mut memory = Slope::new(Policy { limit: Some(512e6), ..Policy::default() });
/// let mut called = None;
/// for tick in 0..60_u32 {
///     let leaked = 30e6 / 4.0 * (tick as f32 - 40.0).max(0.0); // from tick 40 on, at 4 Hz
///     let verdict = memory.push(Duration::from_millis(250) * tick, 80e6 + leaked);
///     if matches!(verdict, Verdict::Leak { .. }) {
///         called.get_or_insert(tick);
///     }
/// }
/// assert!(called.is_some_and(|tick| tick <= 46), "{called:?}"); // 1.5 s
/// ```
#[derive(Debug, Clone)]
pub struct Slope {
    policy: Policy,
    window: Deque<Sample, WINDOW>,
    started: Option<Duration>,
    /// Highest value that has left the window.
    peak: f32,
    /// The bucket being filled: its start, and the least value so far.
    filling: Option<(Duration, Sample)>,
    verdict: Verdict,
}

impl Slope {
    /// A detector that has seen nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            window: Deque::new(),
            started: None,
            peak: f32::NEG_INFINITY,
            filling: None,
            verdict: Verdict::Learning,
        }
    }

    /// Forgets everything: the service was started anew.
    pub fn reset(&mut self) {
        *self = Self::new(self.policy);
    }

    /// Takes a sample. One that is not a number, or not later than the last, is
    /// ignored and leaves the verdict as it was.
    pub fn push(&mut self, at: Duration, value: f32) -> Verdict {
        let newest = self.window.back().map(|sample| sample.at);
        if !value.is_finite() || newest.is_some_and(|newest| at <= newest) {
            return self.verdict;
        }
        let started = *self.started.get_or_insert(at);
        let Some(sample) = self.fill_bucket(Sample { at, value }) else {
            return self.verdict;
        };
        if at.saturating_sub(started) < self.policy.warm_up {
            // Not judged, but a peak it comes back from is remembered.
            self.peak = self.peak.max(sample.value);
            return self.verdict;
        }
        if self.window.is_full() {
            let oldest = self.window.pop_front();
            self.peak = oldest.map_or(self.peak, |oldest| self.peak.max(oldest.value));
        }
        // Cannot fail: there is room now.
        let _ = self.window.push_back(sample);
        self.verdict = self.judge();
        self.verdict
    }

    /// The fit of the newest samples, the longest span available.
    #[must_use]
    pub fn trend(&self) -> Option<Trend> {
        let (at, values) = self.columns();
        let len = self.window.len();
        Trend::of(at.get(..len)?, values.get(..len)?)
    }

    /// Time until the value reaches `limit` if it goes on at the rate of the
    /// present verdict. Zero when it is already there, `None` when it does not grow.
    #[must_use]
    pub fn time_to(&self, limit: f32) -> Option<Duration> {
        let rate = match self.verdict {
            Verdict::Learning | Verdict::Steady => return None,
            Verdict::Growing { rate } | Verdict::Leak { rate, .. } => rate,
        };
        self.forecast(rate, limit)
    }

    fn forecast(&self, rate: f32, limit: f32) -> Option<Duration> {
        let newest = self.window.back()?.value;
        Duration::try_from_secs_f32((limit - newest).max(0.0) / rate).ok()
    }

    /// The finished bucket's least sample, if `sample` begins a new one.
    fn fill_bucket(&mut self, sample: Sample) -> Option<Sample> {
        if self.policy.bucket.is_zero() {
            return Some(sample);
        }
        match &mut self.filling {
            Some((start, least)) if sample.at.saturating_sub(*start) < self.policy.bucket => {
                if sample.value < least.value {
                    *least = sample;
                }
                None
            }
            filling => filling.replace((sample.at, sample)).map(|(_, least)| least),
        }
    }

    /// Times in seconds before the newest, and values; only the first `len` count.
    fn columns(&self) -> ([f32; WINDOW], [f32; WINDOW]) {
        let (mut at, mut values) = ([0.0; WINDOW], [0.0; WINDOW]);
        let newest = self.window.back().map_or(Duration::ZERO, |s| s.at);
        for ((at, value), sample) in at.iter_mut().zip(&mut values).zip(&self.window) {
            *at = -newest.saturating_sub(sample.at).as_secs_f32();
            *value = sample.value;
        }
        (at, values)
    }

    fn judge(&self) -> Verdict {
        let len = self.window.len();
        if len < SPANS[0] {
            return Verdict::Learning;
        }
        let (at, values) = self.columns();
        let mut growing = Verdict::Steady;
        for span in SPANS.into_iter().filter(|span| *span <= len) {
            let (Some(at), Some((before, values))) = (
                at.get(len - span..len),
                values
                    .get(..len)
                    .and_then(|v| v.split_at_checked(len - span)),
            ) else {
                continue;
            };
            let peak = before.iter().copied().fold(self.peak, f32::max);
            match self.judge_span(at, values, peak) {
                leak @ Verdict::Leak { .. } => return leak,
                Verdict::Growing { rate } => growing = Verdict::Growing { rate },
                Verdict::Learning | Verdict::Steady => {}
            }
        }
        growing
    }

    fn judge_span(&self, at: &[f32], values: &[f32], peak: f32) -> Verdict {
        let (Some(first), Some(last)) = (values.first(), values.last()) else {
            return Verdict::Steady;
        };
        // Cheap and usual: nothing has grown by half of what would matter, or not
        // by that much above a former peak (no two teeth are equally high).
        if last - first < self.policy.rise_min / 2.0 || last - peak < self.policy.rise_min / 2.0 {
            return Verdict::Steady;
        }
        let Some(trend) = Trend::of(at, values) else {
            return Verdict::Steady;
        };
        let Trend { rate, tau, z, span } = trend;
        let certain = tau >= self.policy.tau_min && z >= self.policy.z_min && rate > 0.0;
        let large = rate * span.as_secs_f32() >= self.policy.rise_min;
        if !(certain && large && lasts(at, values, rate)) {
            return Verdict::Steady;
        }
        let eta = self
            .policy
            .limit
            .and_then(|limit| self.forecast(rate, limit));
        let dangerous =
            rate >= self.policy.rate_max || eta.is_some_and(|eta| eta < self.policy.horizon);
        if dangerous && span >= self.policy.span_min {
            Verdict::Leak { rate, eta }
        } else {
            Verdict::Growing { rate }
        }
    }
}

impl Trend {
    fn of(at: &[f32], values: &[f32]) -> Option<Self> {
        let rate = repeated_median(at, values)?;
        let (tau, z) = mann_kendall(values)?;
        let span = Duration::try_from_secs_f32(at.last()? - at.first()?).ok()?;
        Some(Self { rate, tau, z, span })
    }
}

/// Whether growth at this rate goes on through all of its span: what settles (a cache that
/// fills) slows down first, and a burst has a quiet past.
fn lasts(at: &[f32], values: &[f32], rate: f32) -> bool {
    let len = at.len();
    let part = |from: usize, to: usize| repeated_median(at.get(from..to)?, values.get(from..to)?);
    let early = part(0, len / 2);
    let middle = part(len / 4, len - len / 4);
    let late = part(len / 2, len);
    match (early, middle, late) {
        (Some(early), Some(middle), Some(late)) => {
            early.min(late) >= LASTING * rate.max(middle).max(early)
        }
        _ => false,
    }
}

/// Siegel's slope: the median over all points of the median slope through each.
fn repeated_median(at: &[f32], values: &[f32]) -> Option<f32> {
    let mut outer: heapless::Vec<f32, WINDOW> = heapless::Vec::new();
    for (i, (x, y)) in at.iter().zip(values).enumerate() {
        let mut inner: heapless::Vec<f32, WINDOW> = at
            .iter()
            .zip(values)
            .enumerate()
            .filter(|(j, (other, _))| *j != i && *other != x)
            .map(|(_, (other, value))| (value - y) / (other - x))
            .take(WINDOW)
            .collect();
        outer.push(median(&mut inner)?).ok()?;
    }
    median(&mut outer)
}

/// Kendall's tau against time and the Mann-Kendall z, ties corrected.
fn mann_kendall(values: &[f32]) -> Option<(f32, f32)> {
    let count = |n: usize| u16::try_from(n).ok().map(f32::from);
    let n = count(values.len())?;
    let mut s = 0_i16;
    let mut ties = 0.0;
    for (i, value) in values.iter().enumerate() {
        let earlier = values.get(..i)?;
        for other in earlier {
            s += i16::from(value > other) - i16::from(value < other);
        }
        // Each group of t equal values is counted at its last member.
        let same = |other: &&f32| *other == value;
        if !values.get(i + 1..)?.iter().any(|other| other == value) {
            let t = 1.0 + count(earlier.iter().filter(same).count())?;
            ties += t * (t - 1.0) * (2.0 * t + 5.0);
        }
    }
    let s = f32::from(s);
    let variance = (n * (n - 1.0) * (2.0 * n + 5.0) - ties) / 18.0;
    let z = if variance > 0.0 {
        (s - s.signum() * f32::from(s != 0.0)) / libm::sqrtf(variance)
    } else {
        0.0
    };
    Some((s / (n * (n - 1.0) / 2.0), z))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);
    const MB: f32 = 1e6;

    /// Feeds `value(seconds)` at 4 Hz; the time of the first leak verdict.
    fn first_leak(policy: Policy, secs: f32, value: impl FnMut(f32) -> f32) -> Option<f32> {
        first(policy, secs, value, |v| matches!(v, Verdict::Leak { .. }))
    }

    fn first(
        policy: Policy,
        secs: f32,
        mut value: impl FnMut(f32) -> f32,
        wanted: impl Fn(Verdict) -> bool,
    ) -> Option<f32> {
        let mut slope = Slope::new(policy);
        (0_u32..)
            .map(|tick| TICK * tick)
            .take_while(|at| at.as_secs_f32() < secs)
            .find(|at| wanted(slope.push(*at, value(at.as_secs_f32()))))
            .map(|at| at.as_secs_f32())
    }

    fn half_gigabyte() -> Policy {
        Policy {
            limit: Some(512.0 * MB),
            ..Policy::default()
        }
    }

    #[test]
    fn a_leak_of_30_mb_per_second_is_called_within_two_seconds_at_any_phase_and_noise() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (onset, noise) = (10.0 + rng.f32(), 2.0 * MB * rng.f32());
            let called = first_leak(half_gigabyte(), 30.0, |t| {
                120.0 * MB + 30.0 * MB * (t - onset).max(0.0) + noise * (rng.f32() - 0.5)
            });
            let delay = called.expect("called") - onset;
            // Noise may start the rise a sample early, never more than that.
            assert!((0.7..=2.0).contains(&delay), "seed {seed}: {delay} s");
        }
    }

    #[test]
    fn growth_at_start_that_stops_is_not_a_leak() {
        for (size, over) in [
            (20.0, 0.1),
            (20.0, 1.0),
            (20.0, 2.0),
            (20.0, 8.0),
            (300.0, 2.5),
        ] {
            let start = |t: f32| 50.0 * MB + size * MB * (t / over).min(1.0);
            assert_eq!(first_leak(half_gigabyte(), 60.0, start), None, "{size} MB");
        }
        // The same 20 MB long after the start: a model loaded on demand.
        for over in [0.3, 1.0, 2.0, 5.0] {
            let late = |t: f32| 50.0 * MB + 20.0 * MB * ((t - 20.0) / over).clamp(0.0, 1.0);
            assert_eq!(first_leak(half_gigabyte(), 60.0, late), None, "{over} s");
        }
        // A cache that fills ever slower, after warm-up.
        let cache = |t: f32| 50.0 * MB + 60.0 * MB * (1.0 - libm::expf(-(t - 3.0).max(0.0) / 0.7));
        assert_eq!(first_leak(half_gigabyte(), 60.0, cache), None);
    }

    /// Feeds `value(seconds)` once a second from `phase` on; the time of the first leak verdict.
    fn first_leak_at_1_hz(phase: f32, secs: f32, value: impl Fn(f32) -> f32) -> Option<f32> {
        let mut slope = Slope::new(half_gigabyte());
        (0_u16..)
            .map(|second| phase + f32::from(second))
            .take_while(|at| *at < secs)
            .find(|at| {
                let verdict = slope.push(Duration::from_secs_f32(*at), value(*at));
                matches!(verdict, Verdict::Leak { .. })
            })
    }

    #[test]
    fn at_one_sample_a_second_a_quick_warm_up_is_not_a_leak_and_a_quick_leak_is() {
        for tenth in 0..10_u8 {
            let phase = f32::from(tenth) / 10.0;
            // Real memory is never the same twice: it creeps.
            let creeps = |t: f32| 80.0 * MB + 0.05 * MB * t;
            for over in [0.2, 1.0, 2.0, 3.0, 4.0] {
                let load = |t: f32| creeps(t) + 120.0 * MB * ((t - 60.0) / over).clamp(0.0, 1.0);
                let called = first_leak_at_1_hz(phase, 200.0, load);
                assert_eq!(called, None, "120 MB in {over} s, phase {phase}");
            }
            for constant in [0.5, 1.0, 2.0, 3.0, 5.0] {
                let fill = |t: f32| {
                    let filled = 1.0 - libm::expf(-(t - 60.0).max(0.0) / constant);
                    creeps(t) + 120.0 * MB * filled
                };
                let called = first_leak_at_1_hz(phase, 200.0, fill);
                assert_eq!(called, None, "120 MB by {constant} s, phase {phase}");
            }
            let leak = |t: f32| creeps(t) + 30.0 * MB * (t - 60.0).max(0.0);
            let called = first_leak_at_1_hz(phase, 200.0, leak).expect("called");
            assert!(
                called - 60.0 <= 7.0 && leak(called) < 300.0 * MB,
                "{called}"
            );
        }
    }

    #[test]
    fn the_saw_teeth_of_a_collector_are_not_a_leak_but_one_on_top_of_them_is() {
        for period in [0.9, 2.0, 3.0, 7.3, 30.0] {
            let teeth = move |t: f32| 80.0 * MB + 60.0 * MB * ((t / period) % 1.0);
            let policy = Policy {
                // A collector's first tooth is honest growth to everyone.
                warm_up: Duration::from_secs_f32(1.1 * period).max(Duration::from_secs(3)),
                ..half_gigabyte()
            };
            assert_eq!(first_leak(policy, 120.0, teeth), None, "period {period}");
        }
        let leaking = |t: f32| 80.0 * MB + 20.0 * MB * (t % 1.0) + 30.0 * MB * (t - 10.0).max(0.0);
        let policy = Policy {
            tau_min: 0.5,
            ..half_gigabyte()
        };
        let called = first_leak(policy, 30.0, leaking).expect("called");
        assert!(called < 14.0, "{called}");
    }

    #[test]
    fn a_slow_leak_shows_in_the_minima_of_buckets() {
        let policy = Policy {
            bucket: Duration::from_secs(10),
            limit: Some(512.0 * MB),
            horizon: Duration::from_secs(1200),
            ..Policy::default()
        };
        let leaking = |t: f32| 80.0 * MB + 40.0 * MB * ((t / 4.0) % 1.0) + 0.4 * MB * t;
        let called = first_leak(policy, 1200.0, leaking).expect("called");
        assert!((80.0..250.0).contains(&called), "{called}");
        let steady = |t: f32| 80.0 * MB + 40.0 * MB * ((t / 4.0) % 1.0);
        assert_eq!(first_leak(policy, 3600.0, steady), None);
    }

    #[test]
    fn harmless_growth_is_told_apart_and_the_forecast_is_right() {
        let policy = Policy {
            horizon: Duration::from_secs(10),
            ..half_gigabyte()
        };
        let mut slope = Slope::new(policy);
        for tick in 0..60_u8 {
            slope.push(TICK * tick.into(), 50.0 * MB + 2.0 * MB * f32::from(tick));
        }
        let Verdict::Growing { rate } = slope.push(TICK * 60, 170.0 * MB) else {
            panic!("{:?}", slope.verdict);
        };
        assert!((rate / MB - 8.0).abs() < 0.01, "{rate}");
        let eta = slope.time_to(512.0 * MB).expect("grows").as_secs_f32();
        assert!((eta - 342.0 / 8.0).abs() < 0.1, "{eta}");
        assert_eq!(slope.time_to(100.0 * MB), Some(Duration::ZERO));
        slope.reset();
        assert_eq!(slope.time_to(512.0 * MB), None);
        assert_eq!(slope.trend(), None);
    }

    #[test]
    fn noise_alone_is_never_a_leak() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let noise = |_| 200.0 * MB + 60.0 * MB * rng.f32();
            assert_eq!(first_leak(half_gigabyte(), 250.0, noise), None, "{seed}");
        }
    }

    #[test]
    fn a_third_of_wild_samples_does_not_move_the_slope() {
        let mut rng = fastrand::Rng::with_seed(7);
        let at: [f32; WINDOW] = core::array::from_fn(|i| i as f32 - 31.0);
        let values = at.map(|x| {
            if rng.f32() < 0.33 {
                1000.0 * rng.f32()
            } else {
                5.0 * x
            }
        });
        let rate = repeated_median(&at, &values).expect("points");
        assert!((rate - 5.0).abs() < 1.5, "{rate}");
    }

    #[test]
    fn mann_kendall_agrees_with_a_worked_example() {
        // Gilbert 1987, section 16.4 style: S = 10 of 10 pairs, variance 50/3.
        let (tau, z) = mann_kendall(&[1.0, 2.0, 3.0, 4.0, 5.0]).expect("values");
        assert!((tau - 1.0).abs() < 1e-6 && (z - 9.0 / libm::sqrtf(50.0 / 3.0)).abs() < 1e-5);
        // Two pairs of ties: S = 4, variance (4*3*13 - 2*2*1*9) / 18.
        let (_, z) = mann_kendall(&[1.0, 1.0, 2.0, 2.0]).expect("values");
        assert!((z - 3.0 / libm::sqrtf(120.0 / 18.0)).abs() < 1e-5, "{z}");
        assert_eq!(mann_kendall(&[4.0; 6]).expect("values"), (0.0, 0.0));
    }

    #[test]
    fn whatever_is_pushed_nothing_panics_and_time_never_runs_backwards() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut slope = Slope::new(half_gigabyte());
        for _ in 0..20_000 {
            let value = match rng.u8(..6) {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::MAX,
                3 => -f32::MAX,
                _ => f32::from_bits(rng.u32(..)),
            };
            slope.push(Duration::from_micros(rng.u64(..1 << 40)), value);
            assert!(
                slope
                    .window
                    .iter()
                    .zip(slope.window.iter().skip(1))
                    .all(|(a, b)| a.at < b.at)
            );
            let _ = (slope.trend(), slope.time_to(value));
            if rng.u8(..) == 0 {
                slope.reset();
            }
        }
    }
}
