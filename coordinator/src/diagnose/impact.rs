//! What an incident has cost the users: requests that failed or were slow, users, and how
//! much of what was promised to them is used up.
//!
//! In: what nodes told of the routes that the incident reaches (means over five minutes, and
//! what was seen as it was opened), and the promises of the configuration. Out: estimates that
//! say what they rest on. What no node told is absent and never 0.
//!
//! A mean over five minutes is no list of requests. So whole spans are counted that the
//! incident overlaps, less what is usual there; what fell into the same spans and has another
//! cause is counted too. How many requests were slow is an estimate: half or a twentieth of them
//! where the median or the 95th percentile of the slowest backend, in the mean of the span,
//! passes the limit. Where no span before says what is usual, all that failed is counted, and
//! what was slow not at all. One look as the incident was opened says what was then, and is not
//! taken for the rest.
//!
//! A forwarder counts connections and reads no answers: one that says 503 has not failed. Where
//! health checks had wrong answers, how many came meanwhile is told, and nobody knows how many
//! of them were answered wrongly.

use homeostat_common::anomaly::Symptom;
use homeostat_common::ids::{NodeId, RouteId};
use homeostat_common::observation::Metric;
use homeostat_common::units::Millis;
use serde::Deserialize;
use serde_json::Value;

use crate::fleet::diagnosis::{Basis, Burn, Impact, RouteImpact};

/// Spans before the incident that say what is usual: an hour of them.
const USUAL_SPANS: usize = 12;

/// What a route has promised to who calls it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Promise {
    /// This share of requests is answered.
    Answered(f64),
    /// This share of requests is answered within this time.
    Within(Millis, f64),
}

/// An objective of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The route.
    pub route: RouteId,
    /// Its node; all that have the route, if absent.
    pub node: Option<NodeId>,
    /// What it promises; at least one.
    pub promises: Vec<Promise>,
    /// Over which time.
    pub window: Millis,
    /// How many users it has.
    pub users: Option<u32>,
}

/// What a node told of a route for a span of time; a look has no length.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSpan {
    /// The node.
    pub node: String,
    /// The route.
    pub route: String,
    /// Its begin, by the coordinator's clock.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
    /// Share of new connections that failed; `None` while nobody asked.
    pub failed: Option<f64>,
    /// The largest such share of one report within it.
    pub failed_max: Option<f64>,
    /// Median time to the first byte, in milliseconds.
    pub p50: Option<f64>,
    /// What nineteen of twenty took no longer than.
    pub p95: Option<f64>,
    /// Requests answered a second, by all backends.
    pub rate: Option<f64>,
}

/// A route that an incident reaches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reached {
    /// Its node.
    pub node: String,
    /// Its name.
    pub route: String,
    /// No other route that is reached leads to it: here users come in.
    pub entry: bool,
}

#[derive(Debug, Deserialize)]
struct Told {
    span: u64,
    #[serde(default)]
    series: Vec<Series>,
}

#[derive(Debug, Deserialize)]
struct Series {
    metric: u8,
    part: Option<String>,
    mean: Option<f64>,
    max: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    #[serde(default)]
    metrics: Vec<Read>,
}

#[derive(Debug, Deserialize)]
struct Read {
    metric: String,
    part: Option<String>,
    reading: Value,
}

/// What a `telemetry` record that ends at `at_ms` says of routes.
#[must_use]
pub fn spans(node: &str, at_ms: u64, body: &Value) -> Vec<RouteSpan> {
    let Ok(told) = Told::deserialize(body) else {
        return Vec::new();
    };
    let readings = told.series.into_iter().filter_map(|one| {
        let metric = Metric::from_number(one.metric)?;
        let mean = one.mean?;
        Some((metric, one.part?, (mean, one.max.unwrap_or(mean))))
    });
    gathered(node, (at_ms.saturating_sub(told.span), at_ms), readings)
}

/// What an `observation` record says of routes.
#[must_use]
pub fn look(node: &str, at_ms: u64, body: &Value) -> Vec<RouteSpan> {
    let Ok(seen) = Seen::deserialize(body) else {
        return Vec::new();
    };
    let readings = seen.metrics.into_iter().filter_map(|one| {
        let metric = Metric::from_name(&one.metric)?;
        let fresh = one.reading.get("fresh")?.as_f64()?;
        Some((metric, one.part?, (fresh, fresh)))
    });
    gathered(node, (at_ms, at_ms), readings)
}

fn gathered(
    node: &str,
    (from_ms, to_ms): (u64, u64),
    readings: impl Iterator<Item = (Metric, String, (f64, f64))>,
) -> Vec<RouteSpan> {
    let mut routes: Vec<RouteSpan> = Vec::new();
    for (metric, route, (value, max)) in readings {
        if !value.is_finite() || !max.is_finite() {
            continue;
        }
        if !matches!(
            metric,
            Metric::FailureShare
                | Metric::FirstByteP50
                | Metric::FirstByteP95
                | Metric::RequestRate
        ) {
            continue;
        }
        let known = routes.iter().position(|one| one.route == route);
        let place = known.unwrap_or_else(|| {
            routes.push(RouteSpan {
                node: node.to_owned(),
                route,
                from_ms,
                to_ms,
                failed: None,
                failed_max: None,
                p50: None,
                p95: None,
                rate: None,
            });
            routes.len() - 1
        });
        let one = &mut routes[place];
        match metric {
            Metric::FailureShare => {
                one.failed = Some(value.clamp(0.0, 1.0));
                one.failed_max = Some(max.clamp(0.0, 1.0));
            }
            Metric::FirstByteP50 => one.p50 = Some(value),
            Metric::FirstByteP95 => one.p95 = Some(value),
            // One reading for each backend.
            _ => one.rate = Some(one.rate.unwrap_or(0.0) + value.max(0.0)),
        }
    }
    routes
}

/// The impact of an incident that lasted from `from_ms` until `to_ms`.
///
/// `told`: spans of the routes in `reached`, from an hour before to after it; `looks`: what was
/// seen as it was opened; `symptom`: what the incident is about.
#[must_use]
pub fn impact(
    (from_ms, to_ms): (u64, u64),
    symptom: Option<&str>,
    reached: &[Reached],
    (told, looks): (&[RouteSpan], &[RouteSpan]),
    objectives: &[Objective],
) -> Impact {
    let routes = reached.iter().filter_map(|route| {
        let of = |spans: &[RouteSpan]| -> Vec<RouteSpan> {
            let own = |one: &&RouteSpan| one.node == route.node && one.route == route.route;
            spans.iter().filter(own).cloned().collect()
        };
        let objective = objectives.iter().find(|one| {
            one.route.as_str() == route.route
                && one
                    .node
                    .as_ref()
                    .is_none_or(|node| node.as_str() == route.node)
        });
        of_route((from_ms, to_ms), route, &of(told), &of(looks), objective)
    });
    let routes: Vec<RouteImpact> = routes.collect();
    let entries = || routes.iter().filter(|route| route.entry);
    let sum = |of: fn(&RouteImpact) -> Option<f64>| {
        let known: Vec<f64> = entries().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().sum())
    };
    // Users of one entry may be those of another: the largest is surely affected.
    let most = |of: fn(&RouteImpact) -> Option<u64>| entries().filter_map(of).max();
    let told = entries().count();
    let unknown = reached.iter().filter(|route| route.entry).count() - told;
    let wrong = symptom == Some(Symptom::WrongAnswers.to_string().as_str());
    let failed = sum(|route| route.failed);
    let seen = entries().filter_map(|route| route.worst_failed);
    Impact {
        users: most(|route| route.users),
        users_worst: most(|route| route.users_worst),
        failed,
        usual_unknown: entries()
            .any(|route| route.failed.is_some() && route.usual_failed.is_none()),
        slow: sum(|route| route.slow),
        asked_while_wrong: sum(|route| route.meanwhile).filter(|_| wrong),
        seen_failed: match failed {
            None => seen.max_by(f64::total_cmp),
            Some(_) => None,
        },
        unknown: unknown as u64,
        routes,
    }
}

/// `None` if nothing was told of it in that time.
fn of_route(
    (from_ms, to_ms): (u64, u64),
    route: &Reached,
    told: &[RouteSpan],
    looks: &[RouteSpan],
    objective: Option<&Objective>,
) -> Option<RouteImpact> {
    let mut before: Vec<&RouteSpan> = told.iter().filter(|one| one.to_ms <= from_ms).collect();
    before.sort_by_key(|one| std::cmp::Reverse(one.to_ms));
    let usual_of = |of: &dyn Fn(&RouteSpan) -> Option<f64>| {
        let values = before.iter().filter_map(|span| of(span));
        median(values.take(USUAL_SPANS).collect())
    };
    let usual_failed = usual_of(&|one| one.failed);
    let usual_rate = usual_of(&|one| one.rate);
    let usual_slow = usual_of(&|one| timed(one).then(|| slow(one, objective)));
    let mut during: Vec<RouteSpan> = told
        .iter()
        .filter(|one| one.from_ms < to_ms && one.to_ms > from_ms)
        .cloned()
        .collect();
    let mut basis = Basis::Means;
    if during.is_empty() {
        basis = Basis::Look;
        let look = looks
            .iter()
            .filter(|one| one.failed.is_some() || one.p95.is_some());
        let look = look.min_by_key(|one| one.from_ms)?;
        during = vec![look.clone()];
    }
    let usual = usual_failed.unwrap_or(0.0);
    let mut one = RouteImpact {
        node: route.node.clone(),
        route: route.route.clone(),
        entry: route.entry,
        basis,
        from_ms: during
            .iter()
            .map(|one| one.from_ms)
            .min()
            .unwrap_or(from_ms),
        to_ms: during.iter().map(|one| one.to_ms).max().unwrap_or(to_ms),
        asked: None,
        failed: None,
        slow: None,
        meanwhile: None,
        usual_failed,
        worst_failed: None,
        users: None,
        users_worst: None,
        burns: Vec::new(),
    };
    // Of the worst span in the mean, and of its worst report.
    let (mut mean_bad, mut worst_bad) = (0.0_f64, 0.0_f64);
    for span in &during {
        let failed = span.failed.unwrap_or(0.0);
        let worst = larger(span.failed, span.failed_max);
        one.worst_failed = larger(one.worst_failed, worst);
        let slower = usual_slow.map(|usual| (slow(span, objective) - usual).max(0.0));
        mean_bad = mean_bad.max(failed - usual).max(slower.unwrap_or(0.0));
        worst_bad = worst_bad.max(worst.unwrap_or(0.0) - usual).max(mean_bad);
        let Some(asked) = asked(span, usual_rate).filter(|_| basis == Basis::Means) else {
            continue;
        };
        add(&mut one.asked, asked);
        add(&mut one.failed, (failed - usual).max(0.0) * asked);
        let overlap = span
            .to_ms
            .min(to_ms)
            .saturating_sub(span.from_ms.max(from_ms));
        let part = overlap as f64 / (span.to_ms - span.from_ms).max(1) as f64;
        add(&mut one.meanwhile, part * asked);
        let promised = objective.is_some_and(|one| limits(one).next().is_some());
        if let Some(slower) = slower.filter(|_| promised) {
            add(&mut one.slow, slower * asked);
        }
    }
    if let Some(objective) = objective.filter(|_| basis == Basis::Means) {
        let of = |share: f64| {
            // A share of a count: it fits.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            objective
                .users
                .map(|users| (f64::from(users) * share).ceil() as u64)
        };
        (one.users, one.users_worst) = (of(mean_bad), of(worst_bad));
        let burns = objective.promises.iter();
        one.burns = burns
            .map(|promise| {
                let usual = match promise {
                    Promise::Answered(_) => Some(usual),
                    Promise::Within(limit, _) => {
                        usual_of(&|one| timed(one).then(|| slower(one, *limit)))
                    }
                };
                burn(*promise, objective, usual.unwrap_or(0.0), &during)
            })
            .collect();
    }
    Some(one)
}

/// Requests in a span: what was answered and what failed, or as many as usual where all
/// failed; `None` if nobody told.
fn asked(span: &RouteSpan, usual_rate: Option<f64>) -> Option<f64> {
    let failed = span.failed.unwrap_or(0.0);
    let answered = span
        .rate
        .map(|rate| rate / (1.0 - failed))
        .filter(|rate| rate.is_finite());
    let rate = if failed > 0.0 {
        larger(answered, usual_rate)
    } else {
        answered
    };
    rate.map(|rate| rate * seconds(span))
}

/// How much of what a promise leaves free was used, and how fast.
fn burn(promise: Promise, objective: &Objective, usual: f64, during: &[RouteSpan]) -> Burn {
    let (text, target) = match promise {
        Promise::Answered(share) => (format!("{} % answered", percent(share)), share),
        Promise::Within(limit, share) => (format!("{} % within {limit}", percent(share)), share),
    };
    let free = 1.0 - target;
    let bad = |span: &RouteSpan| match promise {
        Promise::Answered(_) => span.failed.unwrap_or(0.0),
        Promise::Within(limit, _) => slower(span, limit),
    };
    let worst = during.iter().map(bad).fold(0.0, f64::max);
    let spent: f64 = during
        .iter()
        .map(|span| (bad(span) - usual).max(0.0) * seconds(span))
        .sum();
    Burn {
        objective: text,
        window_ms: objective.window.0,
        rate: worst / free,
        spent: spent / (free * objective.window.as_secs_f64()),
        estimate: matches!(promise, Promise::Within(..)),
    }
}

/// About what share of requests took longer than any limit.
fn slow(span: &RouteSpan, objective: Option<&Objective>) -> f64 {
    let limits = objective.into_iter().flat_map(limits);
    limits.map(|limit| slower(span, limit)).fold(0.0, f64::max)
}

fn limits(objective: &Objective) -> impl Iterator<Item = Millis> {
    objective
        .promises
        .iter()
        .filter_map(|promise| match promise {
            Promise::Within(limit, _) => Some(*limit),
            Promise::Answered(_) => None,
        })
}

/// Whether it says how long answers took.
fn timed(span: &RouteSpan) -> bool {
    span.p50.is_some() || span.p95.is_some()
}

/// If the median passes a limit, about half of the requests did.
fn slower(span: &RouteSpan, limit: Millis) -> f64 {
    let over = |time: Option<f64>| time.is_some_and(|ms| ms > limit.0 as f64);
    match (over(span.p50), over(span.p95)) {
        (true, _) => 0.5,
        (false, true) => 0.05,
        (false, false) => 0.0,
    }
}

fn seconds(span: &RouteSpan) -> f64 {
    span.to_ms.saturating_sub(span.from_ms) as f64 / 1000.0
}

fn percent(share: f64) -> f64 {
    (share * 1e7).round() / 1e5
}

fn add(sum: &mut Option<f64>, more: f64) {
    *sum = Some(sum.unwrap_or(0.0) + more);
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (one, other) => one.or(other),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MINUTE: u64 = 60_000;

    /// Five minutes that end at `minute`.
    fn span(minute: u64, failed: Option<f64>, p50: f64, rate: f64) -> RouteSpan {
        RouteSpan {
            node: "a".into(),
            route: "web".into(),
            from_ms: (minute - 5) * MINUTE,
            to_ms: minute * MINUTE,
            failed,
            failed_max: failed.map(|share| (1.5 * share).min(1.0)),
            p50: Some(p50),
            p95: Some(2.0 * p50),
            rate: Some(rate),
        }
    }

    fn web(entry: bool) -> Reached {
        Reached {
            node: "a".into(),
            route: "web".into(),
            entry,
        }
    }

    fn objective(promises: &[Promise], users: Option<u32>) -> Objective {
        Objective {
            route: RouteId::new("web").unwrap(),
            node: None,
            promises: promises.to_vec(),
            window: Millis::secs(30 * 86_400),
            users,
        }
    }

    fn near(found: Option<f64>, wanted: f64) {
        let found = found.unwrap();
        assert!(
            (found - wanted).abs() < 1e-6 * wanted.abs().max(1.0),
            "{found} is not {wanted}"
        );
    }

    #[test]
    fn what_failed_beyond_the_usual_is_counted_in_the_spans_that_overlap() {
        let told = [
            span(5, Some(0.01), 10.0, 9.9),
            span(10, Some(0.01), 10.0, 9.9),
            span(15, Some(0.21), 10.0, 7.9),
            span(20, None, 10.0, 10.0),
            span(25, Some(0.5), 10.0, 5.0),
        ];
        let slo = [objective(&[Promise::Answered(0.999)], Some(200))];
        let found = impact(
            (12 * MINUTE, 16 * MINUTE),
            None,
            &[web(true)],
            (&told, &[]),
            &slo,
        );
        let [route] = &found.routes[..] else {
            panic!("{found:?}")
        };
        assert_eq!((route.from_ms, route.to_ms), (10 * MINUTE, 20 * MINUTE));
        // 300 s of 10/s, a fifth of them failed beyond the hundredth that always does.
        near(route.asked, 3000.0 + 3000.0);
        near(found.failed, 600.0);
        assert_eq!((found.users, route.slow), (Some(40), None));
        // 31.5 % at the worst time, less what is usual.
        assert_eq!(found.users_worst, Some(61));
        near(Some(route.burns[0].rate), 210.0);
        near(
            Some(route.burns[0].spent),
            0.2 * 300.0 / (0.001 * 2_592_000.0),
        );
        assert_eq!(route.burns[0].objective, "99.9 % answered");
    }

    #[test]
    fn where_all_failed_as_many_asked_as_usual() {
        let told = [
            span(5, Some(0.0), 10.0, 4.0),
            span(10, Some(1.0), 10.0, 0.0),
        ];
        let found = impact(
            (6 * MINUTE, 7 * MINUTE),
            None,
            &[web(true)],
            (&told, &[]),
            &[],
        );
        near(found.failed, 1200.0);
        assert_eq!(found.users, None, "nobody said how many there are");
        assert!(found.routes[0].burns.is_empty());
        let blind = impact(
            (6 * MINUTE, 7 * MINUTE),
            None,
            &[web(true)],
            (&told[1..], &[]),
            &[],
        );
        assert_eq!(blind.failed, None, "nothing says how many asked");
    }

    #[test]
    fn how_many_were_slow_follows_from_the_percentiles() {
        let told = [
            span(5, None, 100.0, 10.0),
            span(10, None, 400.0, 10.0),
            span(15, None, 200.0, 10.0),
        ];
        let slo = [objective(&[Promise::Within(Millis(300), 0.95)], None)];
        let during = (6 * MINUTE, 14 * MINUTE);
        let found = impact(during, None, &[web(true)], (&told, &[]), &slo);
        near(found.slow, 0.5 * 3000.0 + 0.05 * 3000.0);
        assert!(found.routes[0].burns[0].estimate);
        near(Some(found.routes[0].burns[0].rate), 10.0);
    }

    #[test]
    fn what_always_is_slow_is_not_charged_to_the_incident() {
        let slo = [objective(&[Promise::Within(Millis(300), 0.95)], Some(100))];
        let during = (11 * MINUTE, 14 * MINUTE);
        let of = |told: &[RouteSpan]| impact(during, None, &[web(true)], (told, &[]), &slo);
        // One in twenty is too slow at all times, and no more now.
        let usual = [5, 10, 15].map(|minute| span(minute, None, 200.0, 10.0));
        let found = of(&usual);
        near(found.slow, 0.0);
        assert_eq!(found.users, Some(0));
        near(Some(found.routes[0].burns[0].spent), 0.0);
        // Half of them now.
        let now = [
            usual[0].clone(),
            usual[1].clone(),
            span(15, None, 400.0, 10.0),
        ];
        near(of(&now).slow, 0.45 * 3000.0);
        // Nothing says what is usual.
        assert_eq!(of(&now[2..]).slow, None);
        assert_eq!(of(&now[2..]).users, Some(0), "nor who is affected by it");
    }

    #[test]
    fn where_the_usual_is_not_known_all_that_failed_counts() {
        let told = [
            span(5, Some(0.01), 10.0, 9.9),
            span(10, Some(0.01), 10.0, 9.9),
        ];
        let during = (6 * MINUTE, 9 * MINUTE);
        let known = impact(during, None, &[web(true)], (&told, &[]), &[]);
        near(known.failed, 0.0);
        assert!(!known.usual_unknown);
        let blind = impact(during, None, &[web(true)], (&told[1..], &[]), &[]);
        near(blind.failed, 30.0);
        assert!(blind.usual_unknown && blind.routes[0].usual_failed.is_none());
    }

    #[test]
    fn wrong_answers_are_no_failures_to_a_forwarder() {
        let told = [5, 10].map(|minute| span(minute, Some(0.0), 10.0, 10.0));
        let during = (6 * MINUTE, 9 * MINUTE);
        let of = |symptom| impact(during, Some(symptom), &[web(true)], (&told, &[]), &[]);
        let found = of("wrong-answers");
        near(found.failed, 0.0);
        near(found.asked_while_wrong, 1800.0);
        assert_eq!(of("slow").asked_while_wrong, None);
    }

    #[test]
    fn a_look_says_nothing_of_what_came_after_and_nothing_is_made_up() {
        let look = RouteSpan {
            from_ms: MINUTE,
            to_ms: MINUTE,
            failed_max: Some(0.5),
            ..span(5, Some(0.5), 10.0, 5.0)
        };
        let reached = [
            web(true),
            Reached {
                route: "other".into(),
                ..web(true)
            },
        ];
        let slo = [objective(&[Promise::Answered(0.999)], Some(200))];
        let during = (MINUTE, 2 * MINUTE);
        let found = impact(during, None, &reached, (&[], &[look]), &slo);
        assert_eq!(found.routes[0].basis, Basis::Look);
        assert_eq!((found.failed, found.seen_failed), (None, Some(0.5)));
        assert_eq!((found.users, found.routes[0].asked), (None, None));
        assert!(found.routes[0].burns.is_empty());
        assert_eq!(found.unknown, 1);
        let none = impact(during, None, &reached, (&[], &[]), &slo);
        assert_eq!((none.failed, none.unknown, none.routes.len()), (None, 2, 0));
        assert_eq!(none.seen_failed, None);
    }

    #[test]
    fn what_is_counted_twice_on_its_way_counts_once() {
        let told = [span(5, Some(0.5), 10.0, 5.0)];
        let found = impact((MINUTE, 2 * MINUTE), None, &[web(false)], (&told, &[]), &[]);
        assert_eq!(found.failed, None);
        near(found.routes[0].failed, 1500.0);
    }

    #[test]
    fn records_are_read_as_they_are_sent_and_strange_ones_are_left_out() {
        let body = json!({"span": 300_000, "series": [
            {"metric": 121, "service": null, "part": "web", "mean": 0.25, "max": 1.0},
            {"metric": 120, "service": "web-1", "part": "web", "mean": 3.0, "max": 4.0},
            {"metric": 120, "service": "web-2", "part": "web", "mean": 2.0, "max": 4.0},
            {"metric": 123, "service": null, "part": "web", "mean": null, "max": null},
            {"metric": 0, "service": null, "part": null, "mean": 0.5, "max": 0.5},
            {"metric": 255, "service": null, "part": "web", "mean": 0.5, "max": 0.5}
        ]});
        let found = spans("a", 400_000, &body);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].failed, found[0].rate, found[0].p95),
            (Some(0.25), Some(5.0), None)
        );
        assert_eq!((found[0].from_ms, found[0].to_ms), (100_000, 400_000));
        assert!(spans("a", 1, &json!({"span": "?"})).is_empty());
        let seen = json!({"metrics": [
            {"metric": "failure_share", "service": null, "part": "web", "reading": {"fresh": 0.5}},
            {"metric": "request_rate", "service": "w", "part": "web", "reading": {"stale": {"last": 1.0, "age": 2}}},
            {"metric": "first_byte_p50", "service": null, "part": "web", "reading": "missing"}
        ]});
        let found = look("a", 7, &seen);
        assert_eq!(
            (found[0].failed, found[0].rate, found[0].p50),
            (Some(0.5), None, None)
        );
    }
}
