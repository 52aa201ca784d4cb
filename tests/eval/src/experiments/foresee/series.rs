//! Values of a resource over a day, healthy and leaking, made by seed.
//!
//! The limit is 1. A healthy series never reaches it: at most [`HIGHEST`]. A leak is a
//! healthy series to which a constant rate is added from some moment on. The kinds are what
//! services do that a straight line is easily seen in.

use std::f64::consts::TAU;

/// No healthy value is above this.
pub(super) const HIGHEST: f64 = 0.97;

/// Seconds of a series.
pub(super) const DAY: u32 = 86_400;

/// What a healthy service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A level, and noise that is independent from sample to sample.
    Noise,
    /// Noise that wanders and comes back, over a minute to three hours.
    Wander,
    /// A random walk between two walls.
    Walk,
    /// A collector's teeth, of a second to two hours.
    Teeth,
    /// Fills up to a level ever more slowly, over half a minute to two hours.
    WarmUp,
    /// Grows with the logarithm of time.
    Cache,
    /// From one level to another at once, each hour or so.
    Steps,
    /// Rises for a while, and falls back.
    Bursts,
    /// A rhythm of a day.
    Daily,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Noise,
        Self::Wander,
        Self::Walk,
        Self::Teeth,
        Self::WarmUp,
        Self::Cache,
        Self::Steps,
        Self::Bursts,
        Self::Daily,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Wander => "wander",
            Self::Walk => "walk",
            Self::Teeth => "teeth",
            Self::WarmUp => "warm-up",
            Self::Cache => "cache",
            Self::Steps => "steps",
            Self::Bursts => "bursts",
            Self::Daily => "daily",
        }
    }
}

/// A source of one random number after the other.
#[derive(Debug)]
struct Chance(fastrand::Rng);

impl Chance {
    fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.f64()
    }

    /// Each order of magnitude alike.
    fn scale(&mut self, low: f64, high: f64) -> f64 {
        self.within(low.ln(), high.ln()).exp()
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.0.f64()).sum::<f64>() - 6.0
    }
}

/// One series: values for one second after the other.
#[derive(Debug)]
pub(super) struct Series {
    kind: Kind,
    chance: Chance,
    second: f64,
    /// Level, size and time of what it does, drawn once.
    base: f64,
    size: f64,
    span: f64,
    noise: f64,
    /// Where it is now, and where it goes.
    state: f64,
    goal: f64,
    until: f64,
}

impl Series {
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        let place = Kind::ALL.iter().position(|one| *one == kind).unwrap_or(0) as u64;
        let mut chance = Chance(fastrand::Rng::with_seed(seed * 64 + place));
        let base = chance.within(0.1, 0.5);
        let peak = chance.within(base + 0.1, HIGHEST - 0.02);
        let span = match kind {
            Kind::Noise | Kind::Steps => 3600.0,
            Kind::Wander => chance.scale(60.0, 3.0 * 3600.0),
            Kind::Walk => f64::from(DAY),
            Kind::Teeth => chance.scale(1.0, 2.0 * 3600.0),
            Kind::WarmUp => chance.scale(30.0, 2.0 * 3600.0),
            Kind::Cache => chance.scale(60.0, 3600.0),
            Kind::Bursts => chance.scale(10.0, 300.0),
            Kind::Daily => f64::from(DAY),
        };
        let noise = match kind {
            Kind::Noise => chance.scale(0.001, 0.03),
            _ => chance.scale(0.0005, 0.005),
        };
        Self {
            kind,
            second: 0.0,
            base,
            size: peak - base,
            span,
            noise,
            state: 0.0,
            goal: 1.0,
            until: 0.0,
            chance,
        }
    }

    /// The value of the next second.
    pub(super) fn next(&mut self) -> f64 {
        let t = self.second;
        self.second += 1.0;
        let shape = match self.kind {
            Kind::Noise => 0.5,
            Kind::Wander => {
                // Ornstein and Uhlenbeck's: a standard deviation of a quarter of the size.
                let keep = (-1.0 / self.span).exp();
                self.state =
                    self.state * keep + 0.25 * (1.0 - keep * keep).sqrt() * self.chance.normal();
                0.5 + self.state
            }
            Kind::Walk => {
                self.state += self.chance.normal() / self.span.sqrt();
                let folded = (self.state + 0.5).rem_euclid(2.0);
                folded.min(2.0 - folded)
            }
            Kind::Teeth => {
                if t >= self.until {
                    self.state = self.until;
                    self.goal = self.chance.within(0.8, 1.0);
                    self.until = t + self.span * self.goal;
                }
                (t - self.state) / self.span
            }
            Kind::WarmUp => 1.0 - (-t / self.span).exp(),
            Kind::Cache => (1.0 + t / self.span).ln() / (1.0 + f64::from(DAY) / self.span).ln(),
            Kind::Steps => {
                if t >= self.until {
                    self.state = self.chance.within(0.0, 1.0);
                    self.until = t - self.span * self.chance.within(1e-9, 1.0).ln();
                }
                self.state
            }
            Kind::Bursts => {
                if t >= self.until {
                    // The next one: where it begins, and how high it goes.
                    self.until = t + self.chance.within(3.0, 20.0) * self.span;
                    self.goal = self.chance.within(0.2, 1.0);
                }
                let left = self.until - t;
                if left < self.span {
                    self.state += self.goal / self.span;
                } else {
                    self.state *= (-1.0 / 20.0_f64).exp();
                }
                self.state.min(1.0)
            }
            Kind::Daily => 0.5 - 0.5 * (TAU * t / self.span + self.base * 10.0).cos(),
        };
        let value = self.base + self.size * shape + self.noise * self.chance.normal();
        value.clamp(0.0, HIGHEST)
    }
}

/// A series that leaks: at what rate, and from which second on.
#[derive(Debug)]
pub(super) struct Leak {
    series: Series,
    pub(super) rate: f64,
    pub(super) from: u32,
    second: u32,
}

impl Leak {
    /// The limit is 5 minutes to 8 hours away from the highest value when it begins.
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        let mut chance = Chance(fastrand::Rng::with_seed(seed ^ 0x4c45_414b));
        let mut series = Series::new(kind, seed);
        // Room to leak into.
        series.base = series.base.min(0.3);
        series.size = series.size.min(0.3);
        let room = 1.0 - series.base - series.size;
        let takes = chance.scale(300.0, 8.0 * 3600.0);
        Self {
            series,
            rate: room / takes,
            from: chance.0.u32(600..6 * 3600),
            second: 0,
        }
    }

    pub(super) fn next(&mut self) -> f64 {
        let leaking = f64::from(self.second.saturating_sub(self.from));
        self.second += 1;
        self.series.next() + self.rate * leaking
    }
}
