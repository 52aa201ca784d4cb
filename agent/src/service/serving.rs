//! What a model server's own page of metrics says about the model: whether its inputs and its
//! confidence are still distributed as they were, how fast it answers and how often it fails.
//!
//! In go histograms and counters as Prometheus writes them, cumulative since the server
//! started. Out come readings, and what has shifted: the population stability index of the
//! last answers against the first ones of this configuration. No label is needed, so this
//! finds a model that silently meets another world; it cannot tell whether that world is
//! wrong or the model still right there. Blind to what was there from the beginning, to what
//! comes and goes faster than a window, to inputs that shift together and keep each
//! distribution, and as yet to a change across a restart of the agent, which learns anew.

use std::collections::BTreeMap;

use homeostat_common::ids::ModelVersion;
use homeostat_common::observation::Reading;
use homeostat_common::units::{Micros, Millis};
use homeostat_detect::drift::{Verdict, compare};

use crate::config::Serving;

/// Most histograms of one page: the inputs of a small model.
pub const SERIES_MAX: usize = 32;

/// Most bins of one; servers have ten or so. More are no histogram for this purpose.
pub const BINS_MAX: usize = 32;

/// Looks in a row that must find a shift before anybody is told, each with new answers.
const LOOKS: u8 = 2;

/// Below this a shift is over: half of what begins it, so that nothing flutters.
const OVER: f32 = 0.12;

/// Answers of the last looks that quantiles and shares are taken of.
const RECENT: f64 = 200.0;

/// A histogram as it stands on a page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Its labels besides `le`.
    pub series: String,
    /// Upper bound of each bin and how many were not above it, in the order of the bounds.
    pub bins: Vec<(f64, f64)>,
}

/// What a page says about the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// Of the inputs, by series.
    pub inputs: Vec<Histogram>,
    /// Of the largest output of each answer.
    pub confidence: Option<Histogram>,
    /// Of the seconds that answers took.
    pub latency: Option<Histogram>,
    /// Answers since the server started.
    pub requests: Option<f64>,
    /// Those of them that were errors.
    pub errors: Option<f64>,
}

/// Counts of one histogram: since the last look, in the reference, in the window.
#[derive(Debug, Clone, PartialEq, Default)]
struct Counted {
    last: Vec<(f64, f64)>,
    reference: Vec<f32>,
    /// Two halves of the window, of which the younger one fills.
    old: Vec<f32>,
    young: Vec<f32>,
    shifted: u8,
    verdict: Option<Verdict>,
    /// When there were new answers last.
    at: Micros,
    told: bool,
}

impl Counted {
    /// The new answers by bin, since the last page. A server that began anew counts from 0;
    /// one with other bins is another histogram.
    #[allow(clippy::cast_possible_truncation)] // counts of one look
    fn news(&mut self, page: &Histogram) -> Option<Vec<f32>> {
        let bounds = |bins: &[(f64, f64)]| bins.iter().map(|bin| bin.0).collect::<Vec<_>>();
        let first = self.last.is_empty();
        if !first && bounds(&self.last) != bounds(&page.bins) {
            *self = Self::default();
        }
        let before = std::mem::replace(&mut self.last, page.bins.clone());
        if before.is_empty() {
            // What was counted before this is of unknown age.
            return None;
        }
        let anew = before
            .iter()
            .zip(&page.bins)
            .any(|(old, new)| new.1 < old.1);
        let mut below = 0.0;
        let mut news = Vec::with_capacity(page.bins.len());
        for (at, (_, count)) in page.bins.iter().enumerate() {
            let old = before.get(at).filter(|_| !anew).map_or(0.0, |bin| bin.1);
            let upto = (count - old).max(below);
            news.push((upto - below) as f32);
            below = upto;
        }
        Some(news)
    }

    fn push(&mut self, now: Micros, page: &Histogram, learn: f32, window: f32) {
        let Some(news) = self.news(page) else {
            return;
        };
        let sum = |counts: &[f32]| counts.iter().sum::<f32>();
        if sum(&news) <= 0.0 {
            return;
        }
        self.at = now;
        let add = |to: &mut Vec<f32>| {
            to.resize(news.len(), 0.0);
            for (to, new) in to.iter_mut().zip(&news) {
                *to += new;
            }
        };
        if sum(&self.reference) < learn {
            add(&mut self.reference);
            return;
        }
        if sum(&self.young) >= window / 2.0 {
            self.old = std::mem::take(&mut self.young);
        }
        add(&mut self.young);
        self.old.resize(news.len(), 0.0);
        let now: Vec<f32> = self
            .old
            .iter()
            .zip(&self.young)
            .map(|(a, b)| a + b)
            .collect();
        self.verdict = compare(&self.reference, &now);
        let Some(verdict) = self.verdict else {
            return;
        };
        self.shifted = match verdict.shifted() {
            true => self.shifted.saturating_add(1),
            false => 0,
        };
        self.told = self.shifted >= LOOKS || (self.told && verdict.psi > OVER);
    }

    /// Another model answers: what is usual has to be learnt anew.
    fn forget(&mut self) {
        let last = std::mem::take(&mut self.last);
        *self = Self {
            last,
            ..Self::default()
        };
    }

    /// How far it is from the reference, and by answers until when.
    fn psi(&self) -> Option<(f64, Micros)> {
        self.verdict
            .map(|verdict| (f64::from(verdict.psi), self.at))
    }

    fn words(&self, what: &str) -> Option<String> {
        let verdict = self.verdict.filter(|_| self.told)?;
        let upper = self
            .last
            .get(verdict.bin)
            .map_or(f64::INFINITY, |bin| bin.0);
        let lower = verdict.bin.checked_sub(1).and_then(|at| self.last.get(at));
        let lower = lower.map_or("below".to_owned(), |bin| format!("{} to", bin.0));
        Some(format!(
            "{what} shifted (PSI {:.2} over the last {:.0}, more than usual {lower} {upper})",
            verdict.psi, verdict.samples
        ))
    }
}

/// The last answers of a histogram or a counter, with ever less weight of the older ones.
#[derive(Debug, Clone, PartialEq, Default)]
struct Recent {
    counted: Counted,
    counts: Vec<f64>,
    /// When there were new ones last.
    at: Micros,
}

impl Recent {
    fn push(&mut self, now: Micros, page: &Histogram) {
        let Some(news) = self.counted.news(page) else {
            return;
        };
        self.counts.resize(news.len(), 0.0);
        let new: f64 = news.iter().map(|count| f64::from(*count)).sum();
        if new > 0.0 {
            self.at = now;
        }
        let keep = (-new / RECENT).exp();
        for (count, new) in self.counts.iter_mut().zip(news) {
            *count = *count * keep + f64::from(new);
        }
    }

    /// A quantile, by a straight line within its bin, as Prometheus does.
    fn quantile(&self, share: f64) -> Option<f64> {
        let sum: f64 = self.counts.iter().sum();
        if sum < 1.0 {
            return None;
        }
        let mut below = 0.0;
        let mut lower = 0.0;
        for ((upper, _), count) in self.counted.last.iter().zip(&self.counts) {
            if below + count >= share * sum && *count > 0.0 {
                let part = (share * sum - below) / count;
                // Nothing is known of the last bin but where it begins.
                let upper = if upper.is_finite() { *upper } else { lower };
                return Some(lower + (upper - lower) * part.clamp(0.0, 1.0));
            }
            below += count;
            lower = if upper.is_finite() { *upper } else { lower };
        }
        None
    }

    /// The mean, each bin by its middle.
    fn mean(&self) -> Option<f64> {
        let sum: f64 = self.counts.iter().sum();
        let mut lower = 0.0;
        let mut total = 0.0;
        for ((upper, _), count) in self.counted.last.iter().zip(&self.counts) {
            let upper = if upper.is_finite() { *upper } else { lower };
            total += count * f64::midpoint(lower, upper);
            lower = upper;
        }
        (sum >= 1.0).then(|| total / sum)
    }
}

/// What a model server says, look after look.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServingWatch {
    inputs: BTreeMap<String, Counted>,
    confidence: Counted,
    sure: Recent,
    latency: Recent,
    /// Answers and errors at the last look, and when that was.
    totals: Option<(f64, f64, Micros)>,
    /// Answers a second, and the share of errors among them.
    rate: Option<(f64, Option<f64>)>,
    version: Option<ModelVersion>,
}

/// What is read of it now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Served {
    /// Median, 95th and 99th percentile of the time that answers take, in milliseconds.
    pub latency_ms: [Reading<f64>; 3],
    /// Errors, of the answers since the last look.
    pub errors: Reading<f64>,
    /// Answers a second.
    pub rate: Reading<f64>,
    /// Mean largest output.
    pub confidence: Reading<f64>,
    /// What nineteen of twenty answers are surer than.
    pub confidence_low: Reading<f64>,
    /// How far the confidence is from the reference (PSI).
    pub confidence_shift: Reading<f64>,
    /// How far the inputs are: the largest of all.
    pub input_shift: Reading<f64>,
}

impl ServingWatch {
    /// Takes a page in. `version`: the model that answers, as far as that is known.
    pub fn push(
        &mut self,
        now: Micros,
        policy: &Serving,
        page: &Page,
        version: Option<ModelVersion>,
    ) {
        if version.is_some() && self.version.is_some() && version != self.version {
            self.confidence.forget();
        }
        self.version = version.or(self.version);
        let (learn, window) = (policy.learn as f32, policy.window as f32);
        for histogram in &page.inputs {
            if self.inputs.len() >= SERIES_MAX && !self.inputs.contains_key(&histogram.series) {
                continue;
            }
            let counted = self.inputs.entry(histogram.series.clone()).or_default();
            counted.push(now, histogram, learn, window);
        }
        if let Some(histogram) = &page.confidence {
            self.confidence.push(now, histogram, learn, window);
            self.sure.push(now, histogram);
        }
        if let Some(histogram) = &page.latency {
            self.latency.push(now, histogram);
        }
        self.count(now, page);
    }

    fn count(&mut self, now: Micros, page: &Page) {
        let Some(requests) = page.requests.filter(|count| count.is_finite()) else {
            self.totals = None;
            self.rate = None;
            return;
        };
        let errors = page.errors.filter(|count| count.is_finite());
        let before = self.totals.replace((requests, errors.unwrap_or(0.0), now));
        let Some((old, failed, at)) = before else {
            return;
        };
        let (new, span) = (requests - old, now.since(at).as_secs_f64());
        // A server that began anew has counted an unknown part of this span.
        if new < 0.0 || span <= 0.0 {
            self.rate = None;
            return;
        }
        let share = errors
            .filter(|_| new > 0.0)
            .map(|errors| ((errors - failed) / new).clamp(0.0, 1.0));
        self.rate = Some((new / span, share));
    }

    /// What is read of it now; what nothing has moved for longer than `stale` is old.
    #[must_use]
    pub fn served(&self, now: Micros, stale: Millis) -> Served {
        let aged = |value: Option<(f64, Micros)>| match value {
            Some((value, at)) if now.since(at) <= stale => Reading::Fresh(value),
            Some((last, at)) => Reading::Stale {
                last,
                age: now.since(at),
            },
            None => Reading::Missing,
        };
        let of = |recent: &Recent, value: Option<f64>| aged(value.map(|it| (it, recent.at)));
        let ms = |share| {
            let seconds = self.latency.quantile(share);
            of(&self.latency, seconds.map(|seconds| seconds * 1000.0))
        };
        let counted = self.rate.zip(self.totals);
        let counted = counted.map(|((rate, errors), (.., at))| (rate, errors, at));
        let shifts = self.inputs.values().filter_map(Counted::psi);
        Served {
            latency_ms: [ms(0.5), ms(0.95), ms(0.99)],
            errors: aged(counted.and_then(|(_, errors, at)| Some((errors?, at)))),
            rate: aged(counted.map(|(rate, _, at)| (rate, at))),
            confidence: of(&self.sure, self.sure.mean()),
            confidence_low: of(&self.sure, self.sure.quantile(0.05)),
            confidence_shift: aged(self.confidence.psi()),
            input_shift: aged(shifts.max_by(|a, b| a.0.total_cmp(&b.0))),
        }
    }

    /// What has shifted, in words, the farthest input first; empty if nothing has.
    #[must_use]
    pub fn shifted(&self) -> Vec<String> {
        let mut inputs: Vec<(f32, String)> = self
            .inputs
            .iter()
            .filter_map(|(series, counted)| {
                let what = match series.as_str() {
                    "" => "the inputs have".to_owned(),
                    series => format!("the input {series} has"),
                };
                Some((counted.verdict?.psi, counted.words(&what)?))
            })
            .collect();
        inputs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let words = inputs.into_iter().map(|(_, words)| words);
        words
            .chain(self.confidence.words("its confidence has"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Millis = Millis::secs(3);

    const BOUNDS: [f64; 5] = [0.2, 0.4, 0.6, 0.8, f64::INFINITY];

    fn policy() -> Serving {
        Serving {
            inputs: Some("x".into()),
            confidence: Some("c".into()),
            latency: None,
            requests: None,
            errors: None,
            learn: 1000,
            window: 400,
        }
    }

    /// A server that counts what it is asked.
    struct Server {
        rng: fastrand::Rng,
        counts: [f64; 5],
        now: Micros,
    }

    impl Server {
        fn new(seed: u64) -> Self {
            Self {
                rng: fastrand::Rng::with_seed(seed),
                counts: [0.0; 5],
                now: Micros(0),
            }
        }

        /// `answers` more, with inputs in `0..1` raised to `power`.
        fn page(&mut self, answers: usize, power: f64) -> Page {
            self.now = self.now + Millis(1000);
            for _ in 0..answers {
                let value = self.rng.f64().powf(power);
                for (count, bound) in self.counts.iter_mut().zip(BOUNDS) {
                    *count += f64::from(u8::from(value <= bound));
                }
            }
            let histogram = Histogram {
                series: "feature=1".into(),
                bins: BOUNDS.into_iter().zip(self.counts).collect(),
            };
            Page {
                inputs: vec![histogram.clone()],
                confidence: Some(histogram),
                requests: Some(self.counts[4]),
                errors: Some(0.0),
                latency: None,
            }
        }
    }

    #[test]
    fn a_shift_is_found_within_a_window_and_is_over_when_it_is_over() {
        let (mut server, mut watch) = (Server::new(1), ServingWatch::default());
        for _ in 0..200 {
            let page = server.page(20, 1.0);
            watch.push(server.now, &policy(), &page, None);
            assert!(watch.shifted().is_empty(), "{:?}", watch.shifted());
        }
        let served = watch.served(server.now, STALE);
        assert!(served.input_shift.fresh().unwrap() < 0.1);
        assert_eq!(served.rate, Reading::Fresh(20.0));
        let mut looks = 0;
        while watch.shifted().is_empty() {
            looks += 1;
            assert!(looks <= 20, "{watch:?}");
            let page = server.page(20, 2.5);
            watch.push(server.now, &policy(), &page, None);
        }
        let words = watch.shifted().join("; ");
        assert!(
            words.starts_with("the input feature=1 has shifted (PSI 0."),
            "{words}"
        );
        assert!(words.contains("more than usual below 0.2"), "{words}");
        for _ in 0..60 {
            let page = server.page(20, 1.0);
            watch.push(server.now, &policy(), &page, None);
        }
        assert!(watch.shifted().is_empty());
    }

    #[test]
    fn a_server_that_begins_anew_or_counts_otherwise_is_no_shift() {
        let (mut server, mut watch) = (Server::new(2), ServingWatch::default());
        for round in 0..100 {
            if round == 60 {
                server.counts = [0.0; 5];
            }
            let mut page = server.page(30, 1.0);
            if round >= 80 {
                // Other bins.
                page.inputs[0].bins.remove(1);
            }
            watch.push(server.now, &policy(), &page, None);
            assert!(watch.shifted().is_empty(), "{round}: {:?}", watch.shifted());
        }
        let served = watch.served(server.now, STALE);
        assert_eq!(served.rate, Reading::Fresh(30.0));
    }

    #[test]
    fn another_model_may_be_as_sure_as_it_likes() {
        let (mut server, mut watch) = (Server::new(3), ServingWatch::default());
        let version = |digit: &str| digit.repeat(16).parse::<ModelVersion>().ok();
        for round in 0..120 {
            let (power, model) = if round < 60 { (1.0, "a") } else { (3.0, "b") };
            let mut page = server.page(40, power);
            page.inputs.clear();
            watch.push(server.now, &policy(), &page, version(model));
            assert!(watch.shifted().is_empty(), "{round}: {:?}", watch.shifted());
        }
        let page = server.page(40, 0.2);
        watch.push(server.now, &policy(), &page, version("b"));
        let served = watch.served(server.now, STALE);
        assert!(served.confidence.fresh().is_some());
    }

    #[test]
    fn what_nobody_asks_or_tells_any_more_grows_old() {
        let (mut server, mut watch) = (Server::new(4), ServingWatch::default());
        for _ in 0..200 {
            let page = server.page(20, 1.0);
            watch.push(server.now, &policy(), &page, None);
        }
        // Nobody asks: its page says so.
        for _ in 0..10 {
            let page = server.page(0, 1.0);
            watch.push(server.now, &policy(), &page, None);
        }
        let served = watch.served(server.now, STALE);
        assert_eq!(served.rate, Reading::Fresh(0.0));
        assert_eq!(served.errors, Reading::Missing);
        for of_answers in [
            served.confidence,
            served.confidence_low,
            served.confidence_shift,
            served.input_shift,
        ] {
            let old = matches!(of_answers, Reading::Stale { age, .. } if age == Millis::secs(10));
            assert!(old, "{of_answers:?}");
        }
        // Its page does not come any more.
        let rate = watch.served(server.now + Millis::secs(60), STALE).rate;
        let age = Millis::secs(60);
        assert_eq!(rate, Reading::Stale { last: 0.0, age });
    }

    #[test]
    fn nonsense_is_survived() {
        let mut watch = ServingWatch::default();
        for count in [f64::NAN, f64::INFINITY, -1.0, 1e300, 0.0] {
            for bound in [f64::NAN, f64::NEG_INFINITY, 0.0, f64::INFINITY] {
                let histogram = Histogram {
                    series: String::new(),
                    bins: vec![(bound, count), (bound, count * 2.0), (f64::INFINITY, count)],
                };
                let page = Page {
                    inputs: vec![histogram.clone(); 50],
                    confidence: Some(histogram.clone()),
                    latency: Some(histogram),
                    requests: Some(count),
                    errors: Some(-count),
                };
                watch.push(Micros(7), &policy(), &page, None);
                let _ = (watch.served(Micros(7), STALE), watch.shifted());
            }
        }
    }
}
