//! A two-layer perceptron and its training, in plain `f32`.
//!
//! Goes in: labelled rows and a seed. Comes out: weights. Only additions, multiplications,
//! divisions and square roots are used, all exactly rounded by IEEE 754, in a fixed order,
//! and `exp` is our own: the C library's differs between machines, this gives the same bits.
//! Made for models of a thousand weights: no batching across threads, no GPU.

use crate::onnx::Dense;

/// SplitMix64: small, seeded, and good enough for noise and shuffles.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0.0..1.0`, 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / 16_777_216.0
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..bound`. The bias of the remainder is below `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next_u64() % bound.max(1) as u64).unwrap_or(0)
    }

    /// Mean 0, variance 1: the sum of twelve uniforms less six, which needs no logarithm.
    /// Its tails end at 6.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

/// A row of features and the class it belongs to.
#[derive(Clone, Debug)]
pub struct Sample<const IN: usize> {
    pub features: [f32; IN],
    pub class: usize,
}

/// How [`Mlp::train`] goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub epochs: u16,
    /// Step size of the first epoch; it falls linearly to a tenth of this.
    pub rate: f32,
    pub momentum: f32,
}

/// `IN -> Relu(HID) -> Softmax(OUT)`.
#[derive(Clone, Debug)]
pub struct Mlp<const IN: usize, const HID: usize, const OUT: usize> {
    w1: [[f32; IN]; HID],
    b1: [f32; HID],
    w2: [[f32; HID]; OUT],
    b2: [f32; OUT],
}

impl<const IN: usize, const HID: usize, const OUT: usize> Mlp<IN, HID, OUT> {
    /// Stochastic gradient descent with momentum on the cross-entropy, one sample a step.
    #[must_use]
    pub fn train(samples: &[Sample<IN>], schedule: &Schedule) -> Self {
        let mut rng = Rng::seeded(schedule.seed);
        let mut model = Self::random(&mut rng);
        let mut speed = Self::zero();
        let mut order: Vec<usize> = (0..samples.len()).collect();
        for epoch in 0..schedule.epochs {
            for last in (1..order.len()).rev() {
                order.swap(last, rng.below(last + 1));
            }
            let done = f32::from(epoch) / f32::from(schedule.epochs);
            let rate = schedule.rate * (1.0 - 0.9 * done);
            for sample in order.iter().filter_map(|&index| samples.get(index)) {
                model.step(&mut speed, sample, rate, schedule.momentum);
            }
        }
        model
    }

    /// Class probabilities, shape `[OUT]`.
    #[must_use]
    pub fn infer(&self, features: &[f32; IN]) -> [f32; OUT] {
        self.forward(features).1
    }

    #[must_use]
    pub fn layers(&self) -> [Dense; 2] {
        [
            Dense {
                inputs: IN,
                weights: self.w1.concat(),
                bias: self.b1.to_vec(),
            },
            Dense {
                inputs: HID,
                weights: self.w2.concat(),
                bias: self.b2.to_vec(),
            },
        ]
    }

    fn zero() -> Self {
        Self {
            w1: [[0.0; IN]; HID],
            b1: [0.0; HID],
            w2: [[0.0; HID]; OUT],
            b2: [0.0; OUT],
        }
    }

    /// He initialisation: variance `2 / inputs` keeps the signal's size through a Relu.
    fn random(rng: &mut Rng) -> Self {
        let mut model = Self::zero();
        let (wide, narrow) = ((2.0 / IN as f32).sqrt(), (2.0 / HID as f32).sqrt());
        model
            .w1
            .iter_mut()
            .flatten()
            .for_each(|weight| *weight = wide * rng.normal());
        model
            .w2
            .iter_mut()
            .flatten()
            .for_each(|weight| *weight = narrow * rng.normal());
        model
    }

    fn forward(&self, features: &[f32; IN]) -> ([f32; HID], [f32; OUT]) {
        let mut hidden = self.b1;
        for (sum, row) in hidden.iter_mut().zip(&self.w1) {
            *sum = (*sum + dot(row, features)).max(0.0);
        }
        let mut scores = self.b2;
        for (sum, row) in scores.iter_mut().zip(&self.w2) {
            *sum += dot(row, &hidden);
        }
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores
            .iter_mut()
            .for_each(|score| *score = exp(*score - top));
        let total: f32 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= total);
        (hidden, scores)
    }

    fn step(&mut self, speed: &mut Self, sample: &Sample<IN>, rate: f32, momentum: f32) {
        let (hidden, mut error) = self.forward(&sample.features);
        // d cross-entropy / d score = probability - truth
        if let Some(truth) = error.get_mut(sample.class) {
            *truth -= 1.0;
        }
        let mut back = [0.0; HID];
        for (row, error) in self.w2.iter().zip(&error) {
            for (sum, weight) in back.iter_mut().zip(row) {
                *sum += weight * error;
            }
        }
        for (error, hidden) in back.iter_mut().zip(&hidden) {
            if *hidden <= 0.0 {
                *error = 0.0;
            }
        }
        let push = |weight: &mut f32, speed: &mut f32, gradient: f32| {
            *speed = momentum * *speed - rate * gradient;
            *weight += *speed;
        };
        for (o, error) in error.iter().enumerate() {
            for (h, value) in hidden.iter().enumerate() {
                push(&mut self.w2[o][h], &mut speed.w2[o][h], error * value);
            }
            push(&mut self.b2[o], &mut speed.b2[o], *error);
        }
        for (h, error) in back.iter().enumerate() {
            for (i, value) in sample.features.iter().enumerate() {
                push(&mut self.w1[h][i], &mut speed.w1[h][i], error * value);
            }
            push(&mut self.b1[h], &mut speed.b1[h], *error);
        }
    }
}

/// Index of the largest number; the first of equals, 0 for none.
#[must_use]
pub fn argmax(numbers: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &number) in numbers.iter().enumerate() {
        if number > best.1 {
            best = (index, number);
        }
    }
    best.0
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `e^x` for `x <= 0`, within 2e-7 relative: `2^(whole + rest)`, a Taylor series for the rest.
fn exp(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let power = x * std::f32::consts::LOG2_E;
    let whole = power.floor();
    let rest = (power - whole) * std::f32::consts::LN_2;
    let terms = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let series = terms.iter().fold(0.0, |sum, term| sum * rest + term);
    // x >= -87 keeps `whole` in -126..=0, so the exponent stays that of a normal number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let exponent = (whole + 127.0) as u32;
    series * f32::from_bits(exponent << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_follows_the_library_closely() {
        for step in 0..8700_u16 {
            let x = -f32::from(step) / 100.0;
            let (own, library) = (exp(x), x.exp());
            // The rounding of x * log2(e) grows with x.
            assert!(
                (own - library).abs() <= 1e-5 * library,
                "exp({x}): {own} {library}"
            );
        }
        assert_eq!(exp(-1000.0), 0.0);
    }

    #[test]
    fn exclusive_or_is_learnt_which_no_linear_model_can() {
        let corners = [
            ([0.0, 0.0], 0),
            ([0.0, 1.0], 1),
            ([1.0, 0.0], 1),
            ([1.0, 1.0], 0),
        ];
        let samples = corners.map(|(features, class)| Sample { features, class });
        let schedule = Schedule {
            seed: 3,
            epochs: 600,
            rate: 0.1,
            momentum: 0.5,
        };
        let model: Mlp<2, 8, 2> = Mlp::train(&samples, &schedule);
        for sample in &samples {
            let answer = model.infer(&sample.features);
            assert!(
                answer[sample.class] > 0.9,
                "{:?} -> {answer:?}",
                sample.features
            );
        }
    }

    #[test]
    fn noise_has_mean_zero_and_variance_one() {
        let mut rng = Rng::seeded(1);
        let draws: Vec<f32> = (0..20_000).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f32>() / 20_000.0;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04,
            "{mean} {variance}"
        );
    }
}
