//! All univariate detectors of one metric, fused into one calibrated score.
//!
//! In go samples of one metric as they come, out comes a [`Verdict`]: how rare the present
//! is for this metric, how little the bank knows, and which member says so. One
//! configuration, [`SETTINGS`], serves every metric: units, sizes, rates and times of day
//! are learnt. What to do about a verdict is the caller's.
//!
//! Each member turns the sample into a statistic without a unit and asks how rare that is
//! against the largest values it ever took, one for each event ([`tail`]). So what was seen
//! before is usual, however wild, and rarities compare between members and metrics. The
//! score is that of the rarest.
//!
//! | member | statistic | source | blind to |
//! | --- | --- | --- | --- |
//! | [`Member::High`], [`Member::Low`] | distance from the level, in spreads | Hampel 1974, with a clipped mean | what happens within the usual range |
//! | [`Member::Jump`] | smallest residual of three forecasts: the last value, a fast mean, the time of day | Holt 1957 | slow change |
//! | [`Member::Shift`] | means of some 30 and some 100 samples, from the level | EWMA chart, Roberts 1959 | shifts below a spread / 5 |
//! | [`Member::Spread`] | mean size of the residual | Sweet 1986 | a change of level alone |
//! | [`Member::Season`] | short and longer mean of the residual from the time of day | [`season`] | the first two days |
//! | [`Member::Frozen`] | length of a run of equal values | stuck-at test, Sharma et al. 2010 | values that always stand still |
//! | [`Member::Missing`] | silence, in usual gaps | Chen et al. 2002 | |
//!
//! State 0.4 KiB with 48 slots of the day. All windows count samples, except the day. A slow
//! ramp sets one small record after the other and stays below a threshold: that is
//! [`crate::slope`]'s.

mod season;
mod tail;
#[cfg(test)]
mod tests;

use core::time::Duration;

use season::Season;
use tail::{Tail, code};

/// Everything that was fixed before any data was seen. Windows are in samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Memory of level and spread.
    pub slow: f32,
    /// Memory of the fast mean among the forecasts.
    pub fast: f32,
    /// Deviations count at most as this many spreads when level and spread are learnt.
    pub clip: f32,
    /// The two windows of [`Member::Shift`].
    pub shift: [f32; 2],
    /// Window of [`Member::Spread`].
    pub spread: f32,
    /// The two windows of [`Member::Season`].
    pub season: [f32; 2],
    /// Weight of a visit in the profile of the day.
    pub visit: f32,
    /// Samples within which peaks belong to one event.
    pub event: u8,
    /// Doublings a day by which remembered peaks shrink.
    pub fade: f32,
    /// Least mean excess of a tail, in doublings.
    pub floor: f32,
    /// Changes below this share of the level are too small to matter.
    pub grain: f32,
    /// Statistics matter from about this size on, in spreads.
    pub least: f32,
    /// Decades of rarity at a score of one half.
    pub half: f32,
    /// Samples after an alert in which another is no news.
    pub hold: u16,
}

/// The one configuration.
pub const SETTINGS: Settings = Settings {
    slow: 2000.0,
    fast: 5.0,
    clip: 2.0,
    shift: [40.0, 96.0],
    spread: 24.0,
    season: [10.0, 40.0],
    visit: 0.5,
    event: 4,
    fade: 0.0087,
    floor: 0.173,
    grain: 1e-3,
    least: 0.5,
    half: 5.0,
    hold: 85,
};

/// From this score on, a verdict is an alert.
pub const ALERT: f32 = 0.5;

/// From this score on, a metric that somebody looks at alone deserves a look.
pub const NOTICE: f32 = 0.15;

/// Samples in which everything is taken at face value, and from which on is scored.
const SETTLE: u16 = 20;

/// Samples after which the bank is half sure.
const HALF_SURE: f32 = 100.0;

/// Values beyond this are no measurements, and their squares no numbers.
const VALUE_MAX: f32 = 1e30;

/// Samples in a row that are not newer than the newest, after which the clock must have
/// been set back for good.
const LATE_MAX: u8 = 8;

/// Runs of equal values matter from about this length on.
const RUN: f32 = 8.0;

/// Silences matter from about this many usual gaps on.
const SILENCE: f32 = 2.0;

/// Least mean excess, in doublings, for runs and silences: their lengths come in few sizes.
const FLOOR_OF_TIMES: f32 = 0.7;

/// Distances count up to this many spreads.
const FAR_MAX: f32 = 1e9;

/// Statistics that are averaged count up to this size, so that one outlier does not fill a
/// whole window.
const STEADY_MAX: f32 = 8.0;

/// Longest gap that counts as a usual one, in milliseconds: twelve days.
const GAP_MAX: f32 = 1e9;

/// Seconds before the time of day is judged: the first day is learnt, the second shows how
/// far a day may be from the other.
const SEASON_MIN: u32 = 2 * 86_400;

/// Milliseconds of a day.
const DAY_MILLIS: f32 = 86_400_000.0;

/// No silence makes the bank forget more than this, in doublings: clocks jump.
const FADE_MAX: f32 = 1.0;

/// Slots of the day on a small device; a multiple would fit a larger one.
pub const SLOTS: usize = 48;

/// One detector of the bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Above everything usual.
    High,
    /// Below everything usual.
    Low,
    /// Not what any forecast led to expect.
    Jump,
    /// A mean over many samples moved.
    Shift,
    /// It fluctuates more than it did.
    Spread,
    /// Not what this time of the day usually brings.
    Season,
    /// It stands still although it never did for so long.
    Frozen,
    /// Samples stopped, or are no numbers.
    Missing,
}

impl Member {
    /// All members.
    pub const ALL: [Self; 8] = [
        Self::High,
        Self::Low,
        Self::Jump,
        Self::Shift,
        Self::Spread,
        Self::Season,
        Self::Frozen,
        Self::Missing,
    ];

    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
            Self::Jump => "jump",
            Self::Shift => "shift",
            Self::Spread => "spread",
            Self::Season => "season",
            Self::Frozen => "frozen",
            Self::Missing => "missing",
        }
    }

    /// What it says, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::High => "higher than ever",
            Self::Low => "lower than ever",
            Self::Jump => "not what its past led to expect",
            Self::Shift => "moved to another level",
            Self::Spread => "fluctuates more than ever",
            Self::Season => "unusual for this time of the day",
            Self::Frozen => "stands still for longer than ever",
            Self::Missing => "silent for longer than ever",
        }
    }
}

/// What the bank says of the present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Rarity in `0.0..=1.0`. 0: nothing that was not seen before. At [`ALERT`] the rarest
    /// member is [`Settings::half`] decades beyond what happened eight times so far: a
    /// fault-free metric gets there about once in 10^4 times as long as it was watched.
    pub score: f32,
    /// The score, but 0 while an alert that was already told still holds.
    pub news: f32,
    /// How little the bank knows, `0.0..=1.0`: few samples, silence, garbage.
    pub uncertainty: f32,
    /// The member with the largest say.
    pub strongest: Member,
}

/// The time of a sample.
#[derive(Debug, Clone, Copy)]
struct Now {
    millis: u64,
    second: u32,
}

impl Now {
    #[allow(clippy::cast_possible_truncation)] // it may wrap after a century
    fn of(at: Duration) -> Self {
        let millis = at.as_secs().saturating_mul(1000);
        Self {
            millis: millis.saturating_add(at.subsec_millis().into()),
            second: at.as_secs() as u32,
        }
    }
}

/// The larger one; `b` if either is no number. A comparison, where `f32::max` is a call on
/// a Cortex-M.
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller one; `b` if either is no number.
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Tails of the bank, one for each statistic.
const TAILS: usize = 10;

/// The detectors of one metric.
///
/// ```
/// # use core::time::Duration;
/// # use homeostat_detect::bank::{ALERT, Bank, Member};
/// let mut bank: Bank = Bank::new();
/// for second in 0..600_u16 {
///     let value = 20.0 + f32::from(second * 7 % 11);
///     bank.observe(Duration::from_secs(second.into()), Some(value));
/// }
/// let verdict = bank.observe(Duration::from_secs(600), Some(500.0));
/// assert!(verdict.news >= ALERT && verdict.strongest == Member::High);
/// ```
#[derive(Debug, Clone)]
pub struct Bank<const SLOTS_OF_DAY: usize = SLOTS> {
    tails: [Tail; TAILS],
    season: Season<SLOTS_OF_DAY>,
    /// Of the last sample, since boot.
    millis: u64,
    level: f32,
    spread: f32,
    last: f32,
    fast: f32,
    /// Usual size of the residual, and of the distance from the time of day.
    residual: f32,
    offset: f32,
    /// Means of the statistics over their windows.
    shift: [f32; 2],
    noise: f32,
    seasonal: [f32; 2],
    /// Mean gap between samples, in milliseconds.
    gap: f32,
    /// Share of recent samples that were no use.
    garbage: f32,
    /// Steps of [`tail`] by which the tails are still to shrink.
    faded: f32,
    /// Steps of the present turn.
    steps: u16,
    /// The tail that shrinks next.
    turn: u8,
    /// Second of the first sample.
    began: u32,
    seen: u16,
    run: u16,
    held: u16,
    late: u8,
    learning: bool,
}

impl<const SLOTS_OF_DAY: usize> Default for Bank<SLOTS_OF_DAY> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SLOTS_OF_DAY: usize> Bank<SLOTS_OF_DAY> {
    /// A bank that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tails: [const { Tail::new() }; TAILS],
            season: Season::new(),
            millis: 0,
            level: 0.0,
            spread: 0.0,
            last: 0.0,
            fast: 0.0,
            residual: 0.0,
            offset: 0.0,
            shift: [0.0; 2],
            noise: 0.0,
            seasonal: [0.0; 2],
            gap: 0.0,
            garbage: 0.0,
            faded: 0.0,
            steps: 0,
            turn: 0,
            began: 0,
            seen: 0,
            run: 0,
            held: 0,
            late: 0,
            learning: true,
        }
    }

    /// Whether samples become part of what is usual; off during an incident, so that the
    /// incident does not. On at first.
    pub fn learning(&mut self, on: bool) {
        self.learning = on;
    }

    /// Takes a sample. `None`, NaN, infinities and values beyond 1e30 are samples that did
    /// not come, and so is one that is not newer than the last.
    ///
    /// `at` is a time since boot; the time of day is taken from it, whatever its origin.
    pub fn observe(&mut self, at: Duration, value: Option<f32>) -> Verdict {
        self.observe_by(&SETTINGS, at, value)
    }

    /// [`Self::observe`] by other settings, to compare them.
    pub fn observe_by(&mut self, settings: &Settings, at: Duration, value: Option<f32>) -> Verdict {
        self.held = self.held.saturating_sub(1);
        let now = Now::of(at);
        let value = value.filter(|value| value.abs() <= VALUE_MAX);
        let late = self.seen > 0 && now.millis <= self.millis;
        self.late = if late { self.late.saturating_add(1) } else { 0 };
        if self.late >= LATE_MAX {
            self.millis = now.millis;
            self.late = 0;
            // Another time of day from here on: the profile is learnt anew before it counts.
            self.began = now.second;
        }
        self.garbage *= 1.0 - 1.0 / 16.0;
        match value {
            Some(value) if !late => self.take(settings, now, value),
            _ => {
                self.garbage += 1.0 / 16.0;
                self.miss(settings, now.millis)
            }
        }
    }

    /// Judges silence.
    fn miss(&mut self, settings: &Settings, millis: u64) -> Verdict {
        let silence = self.silence(millis);
        let [.., silences] = &self.tails;
        let rarity = silences.rarity(silence, FLOOR_OF_TIMES);
        self.verdict(settings, rarity, Member::Missing)
    }

    /// Time since the last sample, in usual gaps.
    fn silence(&self, millis: u64) -> u16 {
        let since = millis.saturating_sub(self.millis) as f32;
        code(since / (larger(self.gap, 1.0) * SILENCE), 1.0)
    }

    fn take(&mut self, settings: &Settings, now: Now, value: f32) -> Verdict {
        let since = now.millis.saturating_sub(self.millis) as f32;
        let silence = self.silence(now.millis);
        self.millis = now.millis;
        if self.seen == 0 {
            (self.level, self.last, self.fast) = (value, value, value);
            self.began = now.second;
        }
        let settling = self.seen < SETTLE;
        let pace = larger(1.0 / (f32::from(self.seen) + 1.0), 1.0 / settings.slow);
        if self.seen > 0 {
            self.wait(since, pace, settling);
        }
        let error = value - self.level;
        let grain = settings.grain * self.level.abs() + f32::MIN_POSITIVE;
        let distance = self.season.residual(now.second, value);
        let residual = smaller((value - self.last).abs(), (value - self.fast).abs());
        let residual = distance.map_or(residual, |distance| smaller(residual, distance.abs()));
        let asked = self.ask(settings, value, error, residual, distance, grain);
        let (mut rarity, mut strongest) = (0.0, Member::High);
        if !settling {
            let old = now.second.saturating_sub(self.began) >= SEASON_MIN;
            let [.., silences] = &mut self.tails;
            let rare = silences.rarity(silence, FLOOR_OF_TIMES);
            if rare > rarity {
                (rarity, strongest) = (rare, Member::Missing);
            }
            if self.learning {
                silences.learn(silence, settings.event);
            }
            for (tail, (x, member)) in self.tails.iter_mut().zip(asked) {
                let floor = match member {
                    Member::Frozen => FLOOR_OF_TIMES,
                    _ => settings.floor,
                };
                if member == Member::Season && distance.is_none() {
                    continue;
                }
                let rare = tail.rarity(x, floor);
                if rare > rarity && (member != Member::Season || old) {
                    (rarity, strongest) = (rare, member);
                }
                if self.learning {
                    tail.learn(x, settings.event);
                }
            }
        }
        if self.learning {
            let limit = |usual: f32| if settling { f32::MAX } else { usual };
            let size = smaller(
                error.abs(),
                limit(settings.clip * larger(self.spread, grain)),
            );
            // Sizes of residuals may grow from next to nothing, but not at once.
            let least = 0.01 * self.spread;
            let usual = limit(4.0 * larger(self.residual, least));
            self.residual += pace * (smaller(residual, usual) - self.residual);
            if let Some(distance) = distance {
                let usual = limit(4.0 * larger(self.offset, least));
                self.offset += pace * (smaller(distance.abs(), usual) - self.offset);
            } else if self.offset == 0.0 {
                self.offset = self.spread;
            }
            self.level += pace * if error < 0.0 { -size } else { size };
            self.spread += pace * (size - self.spread);
            if !settling {
                self.season
                    .learn(now.second, value, self.level, self.spread, settings.visit);
            }
            self.fade(settings.fade * since / DAY_MILLIS);
        }
        self.seen = self.seen.saturating_add(1);
        self.fast += (value - self.fast) / settings.fast;
        self.last = value;
        self.verdict(settings, rarity, strongest)
    }

    /// Takes a gap between two samples into the usual one.
    fn wait(&mut self, since: f32, pace: f32, settling: bool) {
        // A gap longer than usual leaves the bank less sure.
        let lost = smaller(since / (64.0 * larger(self.gap, 1.0)), 1.0);
        if !settling && lost > 0.1 {
            self.garbage += (1.0 - self.garbage) * lost;
        }
        self.gap += larger(pace, 1.0 / 256.0) * (smaller(since, GAP_MAX) - self.gap);
    }

    /// Moves all windows by one sample and makes the statistics of it.
    fn ask(
        &mut self,
        settings: &Settings,
        value: f32,
        error: f32,
        residual: f32,
        distance: Option<f32>,
        grain: f32,
    ) -> [(u16, Member); TAILS - 1] {
        let z = (error / larger(self.spread, grain)).clamp(-FAR_MAX, FAR_MAX);
        let jump = smaller(residual / larger(self.residual, 0.1 * grain), FAR_MAX);
        let seasonal = distance.map_or(0.0, |distance| {
            (distance / larger(self.offset, grain)).clamp(-STEADY_MAX, STEADY_MAX)
        });
        for (mean, window) in self.shift.iter_mut().zip(settings.shift) {
            *mean += (z - *mean) / window;
        }
        for (mean, window) in self.seasonal.iter_mut().zip(settings.season) {
            *mean += (seasonal - *mean) / window;
        }
        self.noise += (smaller(jump, STEADY_MAX) - self.noise) / settings.spread;
        self.run = if value == self.last {
            self.run.saturating_add(1)
        } else {
            0
        };
        let least = settings.least;
        let [shift, longer] = self.shift;
        let [season, longer_season] = self.seasonal;
        [
            (code(z, least), Member::High),
            (code(-z, least), Member::Low),
            (code(jump, least), Member::Jump),
            (code(shift.abs(), least), Member::Shift),
            (code(longer.abs(), least), Member::Shift),
            (code(self.noise, least), Member::Spread),
            (code(season.abs(), least), Member::Season),
            (code(longer_season.abs(), least), Member::Season),
            (code(f32::from(self.run) / RUN, 1.0), Member::Frozen),
        ]
    }

    /// Shrinks what is remembered, one tail a sample, so that no sample costs much more than
    /// another.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
    fn fade(&mut self, doublings: f32) {
        self.faded += smaller(doublings, FADE_MAX) * tail::STEPS;
        if self.turn == 0 {
            self.steps = self.faded as u16;
            self.faded -= f32::from(self.steps);
        }
        if self.steps > 0
            && let Some(tail) = self.tails.get_mut(usize::from(self.turn))
        {
            tail.fade(self.steps);
        }
        self.turn += 1;
        if usize::from(self.turn) >= TAILS {
            self.turn = 0;
        }
    }

    fn verdict(&mut self, settings: &Settings, rarity: f32, strongest: Member) -> Verdict {
        let score = rarity / (rarity + settings.half);
        let mut news = score;
        if score >= ALERT {
            if self.held > 0 {
                news = 0.0;
            } else {
                self.held = settings.hold;
            }
        }
        let seen = f32::from(self.seen);
        let sure = larger(1.0 - self.garbage, 0.0) * seen / (seen + HALF_SURE);
        Verdict {
            score,
            news,
            uncertainty: 1.0 - sure,
            strongest,
        }
    }
}
