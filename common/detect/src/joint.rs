//! Several sensors at once: is this combination of values unusual, and which sensor says so?
//!
//! Mahalanobis distance (1936) of an exponential running mean (as in MEWMA; Lowry et al. 1992)
//! from the place the sensors had in a healthy span, with shrunk covariances. To this come
//! three things that a node in the field needs:
//!
//! - *Sensors that wander.* A temperature drifts on after the healthy span ends; its spread in
//!   that span says little of where it may go. How much of a sensor's variance lies in the means
//!   of eighths of the span tells wandering from noise, and the odds of it, cubed, widen its
//!   spread: a steady sensor keeps its weight, one that wanders throughout loses nearly all.
//! - *A baseline that follows.* While all is calm the level is tracked slowly (a local-level
//!   Kalman filter). After an incident it is taken as uncertain and learnt again, because
//!   machines seldom come back to exactly where they were.
//! - *An end that suits the size.* An incident is over when the distance falls to a share of its
//!   own peak, not only to that of the healthy span, and has stayed there for some samples.
//!
//! In: rows of `K` sensors at a steady pace. Out: a score, whether an incident stands, and the
//! share of each sensor. It does not know time or row numbers, only the order of rows.
//!
//! State `4 K^2 + 16 K + 56` bytes: 440 for 8 sensors, 1.3 KiB for 16. A row costs
//! `K^2 + 10 K` multiplications (0.1 us for 8 sensors, 0.22 for 16, on x86-64); learning takes
//! `22 + 2 K` passes over its rows.
//! Blind to faults that leave all running means in place (a lost period, more noise on one
//! sensor), to those on sensors that wander, to a drift slower than the baseline follows, and
//! to whatever was already wrong in the healthy span.

mod ellipse;

pub(crate) use ellipse::{Ellipse, Frame, Scatter, invert, passed_by_few, shares};

/// Everything that is fixed beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Weight of a new row in the running mean.
    pub pace: f32,
    /// How much the odds of wandering, cubed, widen a sensor.
    pub wander: f32,
    /// The distance that alerts, in units of what 1 % of the healthy rows pass.
    pub alert: f32,
    /// Below this share of it an incident may be over.
    pub calm: f32,
    /// Below this share of its own peak, too.
    pub relief: f32,
    /// Rows it must stay there.
    pub hold: u16,
    /// Rows in which the baseline follows a change, while calm.
    pub follow: f32,
    /// Variance of one row, in units of the squared distance that alerts: how fast an uncertain
    /// baseline is learnt again.
    pub noise: f32,
}

/// The one configuration. It was chosen in sight of the 34 labelled SKAB recordings.
pub const SETTINGS: Settings = Settings {
    pace: 0.125,
    wander: 0.3,
    alert: 3.5,
    calm: 0.5,
    relief: 0.1,
    hold: 20,
    follow: 1000.0,
    noise: 15.0,
};

/// Fewest rows to learn from: eight parts of eight.
pub const LEARN_MIN: usize = 64;

/// Parts of the healthy span whose means are compared.
const PARTS: usize = 8;

/// The odds of wandering are taken of at most this share.
const WANDER_MAX: f32 = 0.98;

/// What several sensors say together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict<const K: usize> {
    /// `0..=1`, 0.5 at the distance that alerts.
    pub score: f32,
    /// An incident stands.
    pub alert: bool,
    /// Share of the sensors that were not known in the last rows: 1 knows nothing.
    pub uncertainty: f32,
    /// How much of the distance each sensor makes up; they sum to 1, or are all 0.
    pub shares: [f32; K],
}

impl<const K: usize> Verdict<K> {
    /// The sensor that says most, with its share.
    #[must_use]
    pub fn strongest(&self) -> Option<(usize, f32)> {
        let most = self.shares.iter().copied().enumerate();
        most.max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, share)| *share > 0.0)
    }
}

/// Watches `K` sensors.
///
/// ```
/// # use homeostat_detect::joint::Joint;
/// // The second sensor follows the first.
/// let usual = |i: u16| {
///     let load = f32::from(i * 37 % 16);
///     [load, 20.0 + load + f32::from(i % 3)]
/// };
/// let healthy: Vec<_> = (0..200).map(usual).collect();
/// let mut joint = Joint::learn(&healthy).unwrap();
/// assert!(healthy.iter().all(|row| !joint.observe(row).alert));
/// // Both values are usual, but not together.
/// let found = (0..50).find_map(|_| Some(joint.observe(&[2.0, 33.0])).filter(|v| v.alert));
/// assert!(found.unwrap().shares[1] > 0.3);
/// ```
#[derive(Debug, Clone)]
pub struct Joint<const K: usize> {
    settings: Settings,
    frame: Frame<K>,
    ellipse: Ellipse<K>,
    /// The squared distance that alerts.
    limit: f32,
    smooth: [f32; K],
    known: f32,
    /// The baseline, and how uncertain it is in units of the limit.
    level: [f32; K],
    doubt: f32,
    /// Peak of the incident that stands, and rows until it may end.
    incident: Option<(f32, u16)>,
}

impl<const K: usize> Joint<K> {
    /// Learns the usual place of the sensors from rows of a healthy span, in their order.
    /// `None` for fewer than [`LEARN_MIN`] rows.
    #[must_use]
    pub fn learn(rows: &[[f32; K]]) -> Option<Self> {
        Self::learn_with(rows, &SETTINGS)
    }

    /// [`Self::learn`] with settings of one's own, to compare them.
    #[must_use]
    pub fn learn_with(rows: &[[f32; K]], settings: &Settings) -> Option<Self> {
        let settings = *settings;
        if rows.len() < LEARN_MIN {
            return None;
        }
        let frame = Frame::of(rows);
        let (mut scatter, mut center, mut n) = (Scatter::new(), [0.0; K], 0.0);
        for_each_mean(&frame, rows, settings.pace, |mean| {
            n += 1.0;
            for (center, mean) in center.iter_mut().zip(mean) {
                *center += (mean - *center) / n;
            }
            scatter.add(mean);
        });
        let ellipse = scatter.ellipse(&center, &wandering(&frame, rows, settings.wander));
        let rare = passed_by_few(|look| {
            for_each_mean(&frame, rows, settings.pace, |mean| {
                look(ellipse.distance(mean).0);
            });
        });
        let rows = rows.len() as f32;
        Some(Self {
            settings,
            frame,
            ellipse,
            limit: (settings.alert * rare).max(f32::MIN_POSITIVE),
            smooth: [0.0; K],
            known: 1.0,
            level: [0.0; K],
            doubt: settings.noise / rows,
            incident: None,
        })
    }

    /// Takes a row; a value that is no number counts as usual and makes the verdict less sure.
    pub fn observe(&mut self, row: &[f32; K]) -> Verdict<K> {
        let mut placed = self.frame.place(row);
        let missing = fill(&mut placed, &self.level);
        self.known += self.settings.pace * (1.0 - missing - self.known);
        follow(&mut self.smooth, &placed, self.settings.pace);
        let mut off = self.smooth;
        for (off, level) in off.iter_mut().zip(&self.level) {
            *off -= level;
        }
        let (distance, parts) = self.ellipse.distance(&off);
        let distance = distance / self.limit;
        let certain = distance / (1.0 + self.doubt);
        self.incident = match self.incident {
            None => (certain > 1.0).then_some((distance, self.settings.hold)),
            Some((peak, left)) => self.go_on(peak.max(distance), left, distance),
        };
        if self.incident.is_none() {
            self.learn_level();
        }
        Verdict {
            score: certain / (1.0 + certain),
            alert: self.incident.is_some(),
            uncertainty: (1.0 - self.known).max(0.0),
            shares: shares(parts),
        }
    }

    /// What becomes of an incident.
    fn go_on(&mut self, peak: f32, left: u16, distance: f32) -> Option<(f32, u16)> {
        let calm = self.settings.calm * (1.0 + self.doubt);
        if distance >= calm.max(self.settings.relief * peak) {
            return Some((peak, self.settings.hold));
        }
        if left > 1 {
            return Some((peak, left - 1));
        }
        self.doubt = self.doubt.max(distance);
        None
    }

    /// One step of the Kalman filter of a level that walks at random.
    ///
    /// It follows the running mean: after an incident the gain is high, and a single row would
    /// set the level by its noise.
    fn learn_level(&mut self) {
        let noise = self.settings.noise;
        self.doubt += noise / (self.settings.follow * self.settings.follow);
        let gain = self.doubt / (self.doubt + noise);
        for (level, smooth) in self.level.iter_mut().zip(&self.smooth) {
            *level += gain * (smooth - *level);
        }
        self.doubt *= 1.0 - gain;
    }
}

/// Puts `usual` in the place of values that are missing; answers their share.
fn fill<const K: usize>(placed: &mut [f32; K], usual: &[f32; K]) -> f32 {
    let mut missing = 0.0;
    for (value, usual) in placed.iter_mut().zip(usual) {
        if value.is_nan() {
            *value = *usual;
            missing += 1.0;
        }
    }
    missing / (K as f32).max(1.0)
}

fn follow<const K: usize>(smooth: &mut [f32; K], placed: &[f32; K], pace: f32) {
    for (smooth, placed) in smooth.iter_mut().zip(placed) {
        *smooth += pace * (placed - *smooth);
    }
}

/// Calls `with` for the running mean of each row, but for the first ones, which still hang
/// on where the mean began.
fn for_each_mean<const K: usize>(
    frame: &Frame<K>,
    rows: &[[f32; K]],
    pace: f32,
    mut with: impl FnMut(&[f32; K]),
) {
    let mut smooth = [0.0; K];
    for (row, at) in rows
        .iter()
        .zip((1_u16..).chain(core::iter::repeat(u16::MAX)))
    {
        let mut placed = frame.place(row);
        fill(&mut placed, &[0.0; K]);
        follow(&mut smooth, &placed, pace);
        if pace * f32::from(at) >= 2.0 {
            with(&smooth);
        }
    }
}

/// How much wider the place of each sensor is because it wanders.
fn wandering<const K: usize>(frame: &Frame<K>, rows: &[[f32; K]], wander: f32) -> [f32; K] {
    let mut wider = [0.0; K];
    let size = (rows.len() / PARTS).max(1);
    for (sensor, wider) in wider.iter_mut().enumerate() {
        // Of single rows, and of the means of parts.
        let (mut rows_seen, mut parts_seen) = (Spread::default(), Spread::default());
        for part in rows.chunks_exact(size).take(PARTS) {
            let mut within = Spread::default();
            for row in part {
                let placed = frame.place(row).get(sensor).copied();
                let value = placed.filter(|value| !value.is_nan()).unwrap_or(0.0);
                within.add(value);
                rows_seen.add(value);
            }
            parts_seen.add(within.mean);
        }
        let (all, parts) = (rows_seen.variance(), parts_seen.variance());
        if all > 0.0 {
            let share = (parts / all).clamp(0.0, WANDER_MAX);
            let odds = share / (1.0 - share);
            *wider = wander * odds * odds * odds * all;
        }
    }
    wider
}

/// Mean and variance of values as they come (Welford 1962).
#[derive(Debug, Default)]
struct Spread {
    n: f32,
    mean: f32,
    squares: f32,
}

impl Spread {
    fn add(&mut self, value: f32) {
        self.n += 1.0;
        let off = value - self.mean;
        self.mean += off / self.n;
        self.squares += off * (value - self.mean);
    }

    fn variance(&self) -> f32 {
        self.squares / (self.n - 1.0).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn normal(rng: &mut fastrand::Rng) -> f32 {
        (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0
    }

    /// Load, a temperature that climbs all the time, and flow.
    fn plant(rows: usize, seed: u64) -> Vec<[f32; 3]> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let row = |at: usize| {
            let climb = 40.0 + at as f32 / 100.0 + 0.05 * normal(&mut rng);
            [
                5.0 + normal(&mut rng),
                climb,
                120.0 + 2.0 * normal(&mut rng),
            ]
        };
        (0..rows).map(row).collect()
    }

    /// A plant that learnt from 400 rows, and the 1600 after them.
    fn learnt() -> (Joint<3>, Vec<[f32; 3]>) {
        let mut rows = plant(2000, 7);
        let rest = rows.split_off(400);
        (Joint::learn(&rows).unwrap(), rest)
    }

    #[test]
    fn a_sensor_that_goes_on_wandering_is_no_incident_and_one_that_leaps_is() {
        let (mut joint, rest) = learnt();
        for row in &rest[..600] {
            assert!(!joint.observe(row).alert);
        }
        let seen = rest[600..].iter().enumerate().map(|(at, row)| {
            let fault = if at < 200 { 12.0 } else { 0.0 };
            joint.observe(&[row[0], row[1], row[2] - fault])
        });
        let seen: Vec<_> = seen.collect();
        let first = seen.iter().position(|verdict| verdict.alert).unwrap();
        assert!(first < 15, "{first}");
        assert_eq!(seen[first + 5].strongest().unwrap().0, 2);
        assert!(seen[first + 5].shares[2] > 0.8, "{:?}", seen[first + 5]);
        let last = seen.iter().rposition(|verdict| verdict.alert).unwrap();
        assert!((200..260).contains(&last), "{last}");
    }

    #[test]
    fn a_level_that_does_not_quite_come_back_ends_the_incident_and_is_learnt() {
        let (mut joint, rest) = learnt();
        let fault = |at: usize| match at {
            0..300 => 0.0,
            300..500 => 40.0,
            _ => 6.0,
        };
        let alerts: Vec<bool> = (rest.iter().enumerate())
            .map(|(at, row)| joint.observe(&[row[0], row[1], row[2] - fault(at)]).alert)
            .collect();
        assert!(alerts[320..500].iter().all(|alert| *alert));
        assert!(!alerts[600..].iter().any(|alert| *alert));
        // What it learnt is the new level: the old one is now as far as the new one was.
        assert!(joint.level[2] < -1.5, "{:?}", joint.level);
    }

    #[test]
    fn missing_values_make_it_unsure_and_never_alarm() {
        let (mut joint, rest) = learnt();
        let all: Vec<_> = rest[..200].iter().map(|row| joint.observe(row)).collect();
        assert!(all.iter().all(|verdict| verdict.uncertainty < 0.01));
        for row in &rest[200..300] {
            let verdict = joint.observe(&[f32::NAN, row[1], f32::INFINITY]);
            assert!(!verdict.alert, "{verdict:?}");
        }
        let verdict = joint.observe(&[f32::NAN; 3]);
        assert!(verdict.uncertainty > 0.65, "{verdict:?}");
    }

    #[test]
    fn too_few_rows_are_not_learnt_from() {
        assert!(Joint::learn(&plant(LEARN_MIN - 1, 1)).is_none());
        assert!(Joint::learn(&plant(LEARN_MIN, 1)).is_some());
    }

    #[test]
    fn state_is_as_documented() {
        assert_eq!(size_of::<Joint<8>>(), 440);
        assert!(size_of::<Joint<16>>() <= 1400);
    }

    proptest! {
        #[test]
        fn any_rows_give_a_score_in_range(
            usual in prop::collection::vec(prop::array::uniform3(any::<f32>()), 64..100),
            rows in prop::collection::vec(prop::array::uniform3(any::<f32>()), 0..100),
        ) {
            let mut joint = Joint::learn(&usual).unwrap();
            for row in usual.iter().chain(&rows) {
                let verdict = joint.observe(row);
                prop_assert!((0.0..=1.0).contains(&verdict.score), "{:?}", verdict);
                prop_assert!((0.0..=1.0).contains(&verdict.uncertainty));
                let sum: f32 = verdict.shares.iter().sum();
                prop_assert!(sum == 0.0 || (sum - 1.0).abs() < 1e-3, "{:?}", verdict);
            }
        }
    }
}
