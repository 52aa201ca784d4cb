//! What is usual for each metric, and what is not so now.
//!
//! In go the readings of each sample, one at a time, with how far their sensor is
//! trusted; out come [`Oddity`]s: metrics whose bank of detectors
//! ([`homeostat_detect::bank`]) has found something rare that has lasted. One bank for
//! each metric, all with the same settings. Learning rests while the caller says so, as
//! during an incident, which must not become the usual.
//!
//! Decides nothing, and nothing is done because of it: an oddity is told to people, is
//! evidence beside a finding, and has the node looked at more often. What is usual is held
//! in memory and learnt anew after a restart of the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use homeostat_common::observation::{Metric, MetricReading, Nature};
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_detect::bank::{Bank, Member, Verdict};

/// A metric is still odd while it is this share as far away as when its bank found it odd:
/// the bank itself gets used to it within a few samples ...
const AWAY_SHARE: f64 = 0.5;

/// ... by a mean over so many samples, so that noise neither ends an oddity nor makes one.
const NEAR_SAMPLES: f64 = 3.0;

/// An oddity is over once its metric has been back for so long: what goes to and fro is
/// one oddity and not many.
const CALM: Millis = Millis::secs(60);

/// What has lasted so long is how things are now.
const LASTS_MAX: Millis = Millis::secs(3600);

/// Samples that are odd that an oddity takes, however far apart they are: one reading alone
/// may be a mistake of its sensor.
const SAMPLES_MIN: u16 = 3;

/// What a metric usually is is a mean over so many samples, a third of an hour at one a
/// second.
const MEAN_SAMPLES: f64 = 1200.0;

/// A mean that has to begin anew counts as one over so many.
const ANEW_SAMPLES: f64 = 30.0;

/// A sensor that is trusted less than this tells nothing that could be usual.
const TRUST_MIN: f32 = 0.5;

/// A difference below this share of what is usual concerns nobody, however rare it is.
const SHARE_LEAST: f64 = 0.05;

/// A sample speaks for no longer than this: nothing is learnt while nobody looks.
const GAP_MAX: Millis = Millis::secs(60);

/// A metric that was not looked at for so long gives its place to another: its part is gone.
const GONE: Millis = Millis::secs(3600);

/// Which differences from what is usual concern anybody.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Concern {
    /// At least so much, in the metric's unit.
    pub least: f64,
    /// Only what is more than usual: nobody minds an answer that comes sooner.
    pub above: bool,
}

impl Concern {
    /// All but what is tiny beside what is usual.
    pub const ANY: Self = Self {
        least: 0.0,
        above: false,
    };

    /// Of a metric, by its unit.
    #[must_use]
    pub fn of(metric: Metric) -> Self {
        let (least, above) = match metric.unit() {
            "ratio" => (0.02, false),
            "cores" => (0.02, false),
            "celsius" => (2.0, true),
            "dbm" => (3.0, false),
            "watts" => (0.2, false),
            "ms" => (1.0, true),
            "count" => (2.0, false),
            "bytes" => (1e6, false),
            "bytes_per_second" => (1e4, false),
            _ => (0.0, false),
        };
        Self { least, above }
    }

    fn of_away(self, away: f64, usual: f64) -> bool {
        let enough = away.abs() >= self.least && away.abs() >= SHARE_LEAST * usual.abs();
        enough && (away > 0.0 || !self.above)
    }
}

/// When something is an oddity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Score from which on a sample is odd, in `0..=1`.
    pub threshold: f32,
    /// So long it has to last.
    pub persist: Millis,
    /// Metrics that are watched; what comes after them is not.
    pub metrics: usize,
}

/// Whether a reading is one that has a usual: sums only grow, a flag says by itself what is
/// wrong, and some metrics are known only while something happens.
#[must_use]
pub fn has_usual(reading: &MetricReading) -> bool {
    let known = reading.reading.fresh().is_some();
    // The largest of a hundred answers stays the same for as long as it is one of them.
    if reading.metric == Metric::LatencyP99 {
        return false;
    }
    match reading.metric.nature() {
        Nature::Total => false,
        Nature::Occasional => known,
        Nature::Level => reading.metric.unit() != "flag",
    }
}

/// A metric that is not as usual.
#[derive(Debug, Clone, PartialEq)]
pub struct Oddity<'u, K> {
    /// Which.
    pub key: &'u K,
    /// Since when.
    pub since: Micros,
    /// How odd it is now, in `0..=1`.
    pub score: f32,
    /// How little its bank knows, in `0..=1`.
    pub uncertainty: f32,
    /// Which detector speaks.
    pub member: Member,
    /// The last value; of one that has ended, the first.
    pub value: f64,
    /// What it was before, on average, and for how long that was learnt.
    pub usual: (f64, Millis),
    /// When it ended, if it has.
    pub ended: Option<Micros>,
}

/// Something that its bank found odd, and that has yet to last or does.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    since: Micros,
    member: Member,
    /// What it usually was then, and how far it was from that.
    usual: (f64, Millis),
    away: f64,
    odd: u16,
    back: u16,
    /// Since when it is back.
    calm: Option<Micros>,
    /// It has lasted.
    stands: bool,
}

#[derive(Debug, Clone)]
struct Watch {
    bank: Bank,
    /// The last verdict; its score is lowered by what the sensor is not trusted.
    verdict: Option<Verdict>,
    concern: Concern,
    value: f64,
    /// Means of the last few samples, and of many.
    near: f64,
    mean: f64,
    samples: f64,
    learnt: Millis,
    seen: Option<Micros>,
    suspect: Option<Suspect>,
    /// The one before, and when it ended.
    former: Option<(Suspect, Micros)>,
}

impl Watch {
    fn new(concern: Concern) -> Self {
        Self {
            bank: Bank::new(),
            verdict: None,
            concern,
            value: f64::NAN,
            near: f64::NAN,
            mean: 0.0,
            samples: 0.0,
            learnt: Millis(0),
            seen: None,
            suspect: None,
            former: None,
        }
    }

    fn observe(
        &mut self,
        now: Micros,
        value: Option<f64>,
        trust: f32,
        learning: bool,
        policy: &Policy,
    ) {
        // A double sample, or one of a clock that went back, is none.
        let gap = match self.seen {
            Some(seen) if seen >= now => return,
            Some(seen) => now.since(seen),
            None => Millis(0),
        };
        self.seen = Some(now);
        // What has yet to last must not become the usual meanwhile.
        let unsure = self.suspect.is_some_and(|suspect| !suspect.stands);
        self.bank.learning(learning && !unsure);
        let trusted = value.filter(|value| value.is_finite() && trust >= TRUST_MIN);
        // Bytes and counts fit into single precision as far as a share of them matters.
        #[allow(clippy::cast_possible_truncation)]
        let sample = trusted.map(|value| value as f32);
        let mut verdict = self.bank.observe(Duration::from_micros(now.0), sample);
        verdict.score *= trust.clamp(0.0, 1.0);
        self.verdict = Some(verdict);
        let still = trusted.is_some_and(|value| value == self.value);
        if let Some(value) = trusted {
            self.value = value;
            // A suspicion begins with the sample that raised it.
            if self.near.is_nan() || self.suspect.is_none() {
                self.near = value;
            } else {
                self.near += (value - self.near) / NEAR_SAMPLES;
            }
        }
        self.judge(now, trusted.is_none(), still, verdict, policy);
        if let Some(value) = trusted.filter(|_| learning && self.suspect.is_none()) {
            self.samples = (self.samples + 1.0).min(MEAN_SAMPLES);
            self.mean += (value - self.mean) / self.samples;
            let gap = gap.0.min(GAP_MAX.0);
            self.learnt = Millis(self.learnt.0.saturating_add(gap));
        }
    }

    fn is_odd(&self, policy: &Policy) -> bool {
        let odd = |verdict: Verdict| verdict.score >= policy.threshold;
        self.verdict.is_some_and(odd) && self.concerns()
    }

    /// Whether the last verdict is about something that concerns anybody.
    fn concerns(&self) -> bool {
        let of_value = |member| !matches!(member, Member::Missing | Member::Frozen);
        let about = self.verdict.map(|verdict| verdict.strongest);
        let away = self.value - self.mean;
        !about.is_some_and(of_value) || self.concern.of_away(away, self.mean)
    }

    fn judge(
        &mut self,
        now: Micros,
        missing: bool,
        still: bool,
        verdict: Verdict,
        policy: &Policy,
    ) {
        let odd = self.is_odd(policy);
        let Some(suspect) = &mut self.suspect else {
            if odd {
                self.suspect = Some(Suspect {
                    since: now,
                    member: verdict.strongest,
                    usual: (self.mean, self.learnt),
                    away: self.value - self.mean,
                    odd: 1,
                    back: 0,
                    calm: None,
                    stands: policy.persist == Millis(0),
                });
            }
            return;
        };
        let away = (self.near - suspect.usual.0) / suspect.away;
        let lasts = odd
            || match suspect.member {
                Member::Missing => missing,
                Member::Frozen => still,
                _ => !missing && away >= AWAY_SHARE,
            };
        if lasts {
            suspect.odd = suspect.odd.saturating_add(1);
            suspect.calm = None;
        } else {
            suspect.back = suspect.back.saturating_add(1);
        }
        let lasted = now.since(suspect.since);
        if !suspect.stands {
            let mostly = suspect.odd >= SAMPLES_MIN && suspect.odd / 2 >= suspect.back;
            if suspect.back > suspect.odd {
                self.suspect = None;
            } else if lasted >= policy.persist && mostly {
                suspect.stands = true;
            } else if lasted >= Millis(policy.persist.0.saturating_mul(4)) {
                self.suspect = None;
            }
            return;
        }
        let calm = if lasts {
            None
        } else {
            Some(*suspect.calm.get_or_insert(now))
        };
        let over = calm.is_some_and(|since| now.since(since) >= CALM);
        if over || lasted >= LASTS_MAX {
            self.former = self.suspect.take().map(|suspect| (suspect, now));
        }
        if lasted >= LASTS_MAX && !over {
            self.mean = self.near;
            self.samples = ANEW_SAMPLES;
        }
    }

    fn standing(&self) -> Option<Suspect> {
        self.suspect.filter(|suspect| suspect.stands)
    }
}

/// What is usual for each metric, by what names it.
#[derive(Debug, Clone)]
pub struct Usual<K> {
    policy: Policy,
    watches: BTreeMap<K, Watch>,
    /// Metrics that found no room.
    unwatched: usize,
}

impl<K: Ord + Clone> Usual<K> {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            watches: BTreeMap::new(),
            unwatched: 0,
        }
    }

    /// Another policy; what was learnt stays.
    pub fn renew(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes a reading in: `None` for one that should have come and did not. A metric that
    /// has never had a value is absent, and not watched. `trust` is what its sensor is
    /// worth; `learning` is off while something is known to be wrong.
    pub fn observe(
        &mut self,
        now: Micros,
        (key, concern): (&K, Concern),
        value: Option<f64>,
        trust: Ratio,
        learning: bool,
    ) {
        let policy = self.policy;
        if !self.watches.contains_key(key) {
            if value.is_none() {
                return;
            }
            if self.watches.len() >= policy.metrics && !self.make_room(now) {
                self.unwatched = self.unwatched.saturating_add(1);
                return;
            }
        }
        let watch = self
            .watches
            .entry(key.clone())
            .or_insert_with(|| Watch::new(concern));
        watch.observe(now, value, trust.get(), learning, &policy);
    }

    /// Whether there was a metric that gave its place.
    fn make_room(&mut self, now: Micros) -> bool {
        let gone = |watch: &Watch| watch.seen.is_none_or(|at| now.since(at) >= GONE);
        let mut all = self.watches.iter();
        let gone = all.find(|(_, watch)| gone(watch));
        let gone = gone.map(|(key, _)| key.clone());
        gone.is_some_and(|key| self.watches.remove(&key).is_some())
    }

    /// What was learnt of these says nothing any more, as of a process that has ended.
    pub fn forget(&mut self, concerns: impl Fn(&K) -> bool) {
        self.watches.retain(|key, _| !concerns(key));
    }

    /// What is not as usual now, the oddest first.
    #[must_use]
    pub fn odd(&self) -> Vec<Oddity<'_, K>> {
        let standing = self.watches.iter();
        let mut odd: Vec<_> = standing
            .filter_map(|(key, watch)| Some(told(key, watch, watch.standing()?, None)))
            .collect();
        odd.sort_by(|a, b| b.score.total_cmp(&a.score));
        odd
    }

    /// What is not as usual, or was not at any time since then, the first sign first.
    #[must_use]
    pub fn odd_since(&self, then: Micros) -> Vec<Oddity<'_, K>> {
        let all = self.watches.iter();
        let mut odd: Vec<_> = all
            .filter_map(|(key, watch)| match (watch.standing(), watch.former) {
                (Some(stands), _) => Some(told(key, watch, stands, None)),
                (None, Some((former, ended))) if ended >= then => {
                    Some(told(key, watch, former, Some(ended)))
                }
                _ => None,
            })
            .collect();
        odd.sort_by_key(|one| one.since);
        odd
    }

    /// How near the nearest metric is to the threshold, in `0..=1`; one whose oddity has
    /// stood for `known` does not count any more.
    #[must_use]
    pub fn risk(&self, now: Micros, known: Millis) -> f32 {
        let all = self.watches.values();
        let near = all.filter(|watch| {
            let suspect = watch.standing();
            suspect.is_none_or(|one| now.since(one.since) < known)
        });
        let threshold = self.policy.threshold.max(f32::MIN_POSITIVE);
        let score = |watch: &Watch| match watch.suspect {
            Some(_) => 1.0,
            None if !watch.concerns() => 0.0,
            None => watch.verdict.map_or(0.0, |verdict| verdict.score) / threshold,
        };
        near.map(score).fold(0.0, f32::max).min(1.0)
    }

    /// Metrics that are watched, and how many readings found no room among them.
    #[must_use]
    pub fn watched(&self) -> (usize, usize) {
        (self.watches.len(), self.unwatched)
    }
}

fn told<'u, K>(
    key: &'u K,
    watch: &'u Watch,
    told: Suspect,
    ended: Option<Micros>,
) -> Oddity<'u, K> {
    let verdict = watch.verdict;
    Oddity {
        key,
        since: told.since,
        score: verdict.map_or(0.0, |verdict| verdict.score),
        uncertainty: verdict.map_or(1.0, |verdict| verdict.uncertainty),
        member: told.member,
        // What came after its end is no part of it.
        value: match ended {
            Some(_) => told.usual.0 + told.away,
            None => watch.value,
        },
        usual: told.usual,
        ended,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        threshold: homeostat_detect::bank::NOTICE,
        persist: Millis::secs(5),
        metrics: 4,
    };

    /// Noise that repeats itself only after 251 samples.
    fn noise(second: u64) -> f64 {
        (second * 97 % 251) as f64 / 251.0
    }

    /// Tells `a` once in each of these seconds, while nothing is wrong.
    fn tell(
        usual: &mut Usual<&'static str>,
        seconds: impl IntoIterator<Item = u64>,
        value: impl Fn(u64) -> f64,
    ) {
        for second in seconds {
            let value = Some(value(second));
            usual.observe(at(second), (&"a", Concern::ANY), value, Ratio::ONE, true);
        }
    }

    fn well(second: u64) -> f64 {
        20.0 + noise(second)
    }

    fn learnt(seconds: u64) -> Usual<&'static str> {
        let mut usual = Usual::new(POLICY);
        tell(&mut usual, 1..=seconds, well);
        usual
    }

    fn at(second: u64) -> Micros {
        Micros(second * 1_000_000)
    }

    #[test]
    fn what_lasts_is_odd_and_a_single_reading_is_not() {
        let mut usual = learnt(900);
        assert!(usual.odd().is_empty());
        tell(&mut usual, [901], |_| 400.0);
        for second in 902..960 {
            tell(&mut usual, [second], well);
            assert!(usual.odd().is_empty(), "{second}");
        }
        tell(&mut usual, 960..975, |second| 880.0 + well(second));
        let odd = usual.odd();
        assert_eq!(odd.len(), 1);
        assert_eq!(odd[0].since, at(960));
        assert!((odd[0].usual.0 - 20.5).abs() < 1.5, "{:?}", odd[0].usual);
        assert!(odd[0].value > 899.0);
    }

    #[test]
    fn what_is_over_is_remembered_as_evidence() {
        let mut usual = learnt(900);
        for second in 901..1200 {
            let value = if second < 915 { 400.0 } else { well(second) };
            usual.observe(
                at(second),
                (&"a", Concern::ANY),
                Some(value),
                Ratio::ONE,
                false,
            );
            if second == 914 {
                assert_eq!(usual.odd().len(), 1);
            }
        }
        assert!(usual.odd().is_empty());
        let former = usual.odd_since(at(900));
        assert_eq!(former.len(), 1);
        assert!(former[0].ended.is_some());
        assert!(usual.odd_since(at(1199)).is_empty());
    }

    #[test]
    fn a_sensor_that_is_not_trusted_makes_nothing_odd() {
        let mut usual = learnt(900);
        let half = Ratio::saturating(0.3);
        for second in 901..990 {
            let wild = if second % 2 == 0 { 1e12 } else { -4.0 };
            usual.observe(at(second), (&"a", Concern::ANY), Some(wild), half, true);
            assert!(usual.odd().is_empty(), "{second}");
        }
    }

    #[test]
    fn nothing_is_learnt_while_nobody_looks() {
        let mut usual = learnt(900);
        tell(&mut usual, [8000], well);
        tell(&mut usual, 8001..8030, |_| 900.0);
        let learnt = usual.odd()[0].usual.1;
        assert!(
            (Millis::secs(890)..Millis::secs(1000)).contains(&learnt),
            "{learnt}"
        );
    }

    #[test]
    fn whatever_comes_in_it_holds_and_has_a_bound() {
        let mut usual = learnt(300);
        let one = |usual: &mut Usual<&'static str>, second, key: &'static str| {
            usual.observe(
                at(second),
                (&key, Concern::ANY),
                Some(1.0),
                Ratio::ONE,
                true,
            );
        };
        for key in ["b", "c", "d", "e", "f"] {
            one(&mut usual, 300, key);
        }
        assert_eq!(usual.watched(), (4, 2));
        // What is gone gives its place to another.
        tell(&mut usual, 301..3900, well);
        one(&mut usual, 3899, "e");
        assert_eq!(usual.watched(), (4, 3));
        one(&mut usual, 3900, "e");
        one(&mut usual, 3900, "f");
        assert_eq!(usual.watched(), (4, 3));
        // Doubled, late, not a number, endless, and a clock that jumps.
        for (second, value) in [
            (3899, 1.0),
            (200, 1.0),
            (3901, f64::NAN),
            (3902, f64::INFINITY),
            (400_000, 1e300),
            (400_001, -0.0),
        ] {
            tell(&mut usual, [second], |_| value);
        }
        assert!((0.0..=1.0).contains(&usual.risk(at(400_002), Millis::secs(300))));
    }

    #[test]
    fn what_never_came_is_absent_and_not_missing() {
        let mut usual: Usual<&str> = Usual::new(POLICY);
        for second in 1..500 {
            usual.observe(at(second), (&"gone", Concern::ANY), None, Ratio::ONE, true);
        }
        assert_eq!(usual.watched(), (0, 0));
    }
}
