//! Chance as a function of what it is for.
//!
//! In go a seed, a stream (what the number is for), a tick and an index; out comes a
//! number. Nothing is drawn from a sequence, so forked states and no-op twins meet the
//! same noise whatever happened in them before.

/// What a number is for. Numbers are part of every recorded trace and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Noise of the demand.
    Demand = 1,
    /// How long a replica takes to come up.
    Start = 2,
    /// How long a step takes.
    Step = 3,
    /// Whether a step fails without a word.
    Silent = 4,
    /// What faults do.
    Fault = 5,
    /// What an observer gets wrong.
    Observe = 6,
    /// Topologies that are made up.
    Topology = 7,
    /// Incidents that are made up.
    Incident = 8,
    /// What a policy leaves to chance.
    Policy = 9,
    /// Candidates of a tuner.
    Tune = 10,
}

/// Chance for one stream of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    key: u64,
}

/// Odd, from the golden ratio, as in `SplitMix64` (Steele, Lea and Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Another odd number, so that tick and index do not lie on one line.
const INDEX: u64 = 0xd1b5_4a32_d192_ed03;

impl Chance {
    /// The chance of one stream.
    #[must_use]
    pub fn new(seed: u64, stream: Stream) -> Self {
        let stream = mix((stream as u64).wrapping_mul(INDEX));
        Self {
            key: mix(mix(seed.wrapping_add(STEP)) ^ stream),
        }
    }

    /// 64 bits.
    #[must_use]
    pub fn bits(self, tick: u64, index: u64) -> u64 {
        let at = mix(self.key.wrapping_add(tick.wrapping_mul(STEP)));
        mix(at.wrapping_add(index.wrapping_mul(INDEX)))
    }

    /// Evenly in `0.0..1.0`.
    #[must_use]
    pub fn uniform(self, tick: u64, index: u64) -> f64 {
        (self.bits(tick, index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A whole number below `bound`, which is at least 1; off from even by `bound` in 2^64.
    #[must_use]
    pub fn below(self, bound: u32, tick: u64, index: u64) -> u32 {
        let wide = u128::from(self.bits(tick, index)) * u128::from(bound.max(1));
        u32::try_from(wide >> 64).unwrap_or(0)
    }

    /// Normal, with mean 0 and deviation 1.
    #[must_use]
    pub fn normal(self, tick: u64, index: u64) -> f64 {
        // In the middle of its 2^-53, so that it is neither 0 nor 1.
        quantile(self.uniform(tick, index) + 0.5 / (1u64 << 53) as f64)
    }

    /// Exponential with this mean.
    #[must_use]
    pub fn exponential(self, mean: f64, tick: u64, index: u64) -> f64 {
        -mean * libm::log(1.0 - self.uniform(tick, index))
    }

    /// Log-normal with this median.
    #[must_use]
    pub fn lognormal(self, median: f64, sigma: f64, tick: u64, index: u64) -> f64 {
        median * libm::exp(sigma * self.normal(tick, index))
    }
}

/// The finalizer of `SplitMix64` (Stafford's thirteenth).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The quantile of the normal distribution (Acklam 2003), off by less than 1.2e-9 of
/// itself; 95 of 100 numbers need no logarithm.
fn quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
    ];
    const TAIL: f64 = 0.024_25;
    let tail = |p: f64| {
        let q = (-2.0 * libm::log(p)).sqrt();
        let up = ((((C[0] * q + C[1]) * q + C[2]) * q + C[3]) * q + C[4]) * q + C[5];
        up / ((((D[0] * q + D[1]) * q + D[2]) * q + D[3]) * q + 1.0)
    };
    if p < TAIL {
        tail(p)
    } else if p > 1.0 - TAIL {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        let up = ((((A[0] * r + A[1]) * r + A[2]) * r + A[3]) * r + A[4]) * r + A[5];
        up * q / (((((B[0] * r + B[1]) * r + B[2]) * r + B[3]) * r + B[4]) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_on_every_machine() {
        let chance = Chance::new(7, Stream::Demand);
        let bits: Vec<u64> = (0..3).map(|tick| chance.bits(tick, 1)).collect();
        assert_eq!(bits, GOLDEN_BITS);
        let normal = chance.normal(2, 3).to_bits();
        let start = Chance::new(7, Stream::Start).lognormal(6.0, 0.35, 9, 0);
        let wait = chance.exponential(10.0, 5, 5).to_bits();
        assert_eq!([normal, start.to_bits(), wait], GOLDEN_SHAPED);
    }

    const GOLDEN_BITS: [u64; 3] = [
        17_399_285_708_984_948_476,
        10_370_655_425_750_538_725,
        8_842_792_413_757_659_233,
    ];
    const GOLDEN_SHAPED: [u64; 3] = [
        13_825_961_205_431_738_883,
        4_616_881_197_930_018_409,
        4_621_754_523_764_100_769,
    ];

    /// Mean and variance of n numbers.
    fn moments(n: u64, number: impl Fn(u64) -> f64) -> (f64, f64) {
        let mean = (0..n).map(&number).sum::<f64>() / n as f64;
        let square = (0..n).map(|at| (number(at) - mean).powi(2)).sum::<f64>();
        (mean, square / n as f64)
    }

    #[test]
    fn shapes_have_their_moments() {
        // Deviations of the means at this n are below 0.0032; four of them are allowed.
        let n = 100_000;
        for stream in [Stream::Demand, Stream::Observe] {
            let chance = Chance::new(1, stream);
            let (mean, variance) = moments(n, |tick| chance.uniform(tick, 0));
            assert!((mean - 0.5).abs() < 0.004 && (variance - 1.0 / 12.0).abs() < 0.002);
            let (mean, variance) = moments(n, |index| chance.normal(4, index));
            assert!(mean.abs() < 0.013 && (variance - 1.0).abs() < 0.02);
            let (mean, variance) = moments(n, |tick| chance.exponential(2.0, tick, tick));
            assert!((mean - 2.0).abs() < 0.026 && (variance - 4.0).abs() < 0.2);
        }
    }

    #[test]
    fn neighbours_know_nothing_of_each_other() {
        let n = 100_000;
        let here = Chance::new(3, Stream::Demand);
        let there = Chance::new(4, Stream::Demand);
        let pairs: [&dyn Fn(u64) -> f64; 4] = [
            &|at| here.normal(at, 0) * here.normal(at + 1, 0),
            &|at| here.normal(at, 0) * here.normal(at, 1),
            &|at| here.normal(at, 0) * there.normal(at, 0),
            &|at| here.normal(at, 0) * Chance::new(3, Stream::Start).normal(at, 0),
        ];
        for (which, pair) in pairs.iter().enumerate() {
            let (mean, _) = moments(n, pair);
            assert!(mean.abs() < 0.013, "{which}: {mean}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, expected) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (0.999, 3.090_232_306_167_813),
            (1e-6, -4.753_424_308_822_899),
        ] {
            assert!((quantile(p) - expected).abs() < 1e-8, "{p}");
        }
    }

    #[test]
    fn a_whole_number_stays_below_its_bound() {
        let chance = Chance::new(1, Stream::Topology);
        let mut seen = [0u32; 5];
        for tick in 0..1000 {
            seen[chance.below(5, tick, 0) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (150..250).contains(count)));
        assert_eq!(chance.below(0, 0, 0), 0);
    }
}
