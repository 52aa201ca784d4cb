//! What would have been otherwise: would it have healed by itself, would this action mend it?
//!
//! In: how incidents like this one went that are on record. Out: an estimate with its interval
//! and what it rests on, or that it is not known.
//!
//! **By itself.** An incident that is acted upon after a second says that it had not healed by
//! itself after a second, and no more. So times until it was well again are taken as survival
//! times that end, unfinished, with the first step of a plan (Kaplan and Meier 1958). Counting
//! only those that nothing was done about would take the quick ones for all: nothing is done
//! about them *because* they were over.
//!
//! **By an action.** The share of those that were well within the time from its first step, of
//! all times that this plan was run. An incident for which several plans were run counts for
//! each of them: all but the last have failed, each has the time from its own first step, and
//! which was run after others is on record. What was done before decides what is done next, and
//! says how it goes; so first plans are compared alone, and later ones only where these are too
//! few, which the answer says.
//!
//! Both are effects of doing only if nothing else decides both what is done and how it goes.
//! What a healer decides by is on record: the fault, the symptom, and the service with its
//! limits. Likes are those that agree in all of them, which is the back-door adjustment for
//! this very incident (Pearl 2009, 3.3). Where these are too few, the service is given up: it
//! is a hidden cause of both then, `homeostat-causal` finds the effect not identifiable, and the
//! answer says so beside the share. What is on no record (a person at the machine) is adjusted
//! for nowhere.

use std::str::FromStr as _;

use homeostat_causal::graph::Admg;
use homeostat_causal::identify::identify;

use crate::fleet::diagnosis::{Estimate, WhatIf};

/// How long "would it have healed by itself" waits: the pause after which a node that found no
/// plan calls a person.
pub const WITHIN_MS: u64 = 60_000;

/// Fewer likes than these say nothing: with five, an interval is still half of all there is.
const LIKES_MIN: f64 = 5.0;

/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_964;

/// How an incident went.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Its node.
    pub node: String,
    /// Its service.
    pub service: Option<String>,
    /// What was seen.
    pub symptom: Option<String>,
    /// The plans that were begun, in order; of a great many the last.
    pub tried: Vec<Tried>,
    /// From the first sign to the first step of any plan.
    pub acted_after_ms: Option<u64>,
    /// How it ended; `None` while it is open.
    pub outcome: Option<String>,
    /// From the first sign to its end, or until now.
    pub lasted_ms: u64,
}

/// A plan that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Printed.
    pub plan: String,
    /// From the first sign to its first step.
    pub after_ms: u64,
    /// Nothing was done before.
    pub first: bool,
}

/// The incident that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Its node.
    pub node: &'a str,
    /// Its service.
    pub service: Option<&'a str>,
    /// What was seen.
    pub symptom: Option<&'a str>,
}

/// Who counts as alike.
struct Likeness {
    own: bool,
    /// Plans that were run first, alone.
    first: bool,
    words: &'static str,
    /// What decides what is done and how it goes, and what is hidden when these are compared.
    graph: &'static str,
    adjusted: &'static [&'static str],
    given_up: &'static [&'static str],
}

/// The narrowest first.
const LIKENESS: [Likeness; 4] = [
    Likeness {
        own: true,
        first: true,
        words: "incidents of this service with this fault and symptom",
        graph: "service -> fault, service -> symptom, fault -> symptom, \
                fault -> act, symptom -> act, service -> act, \
                fault -> well, symptom -> well, service -> well, act -> well",
        adjusted: &["fault", "symptom", "service"],
        given_up: &[],
    },
    Likeness {
        own: true,
        first: false,
        words: "incidents of this service with this fault and symptom, after other plans too",
        graph: "service -> fault, service -> symptom, fault -> symptom, \
                fault -> act, symptom -> act, service -> act, \
                fault -> well, symptom -> well, service -> well, act -> well, act <-> well",
        adjusted: &["fault", "symptom", "service"],
        given_up: &["what was done before"],
    },
    Likeness {
        own: false,
        first: true,
        words: "incidents of any service with this fault and symptom",
        graph: "fault -> symptom, fault -> act, symptom -> act, \
                fault -> well, symptom -> well, act -> well, \
                act <-> well, fault <-> act, fault <-> well, symptom <-> act, symptom <-> well",
        adjusted: &["fault", "symptom"],
        given_up: &["service"],
    },
    Likeness {
        own: false,
        first: false,
        words: "incidents of any service with this fault and symptom, after other plans too",
        graph: "fault -> symptom, fault -> act, symptom -> act, \
                fault -> well, symptom -> well, act -> well, \
                act <-> well, fault <-> act, fault <-> well, symptom <-> act, symptom <-> well",
        adjusted: &["fault", "symptom"],
        given_up: &["service", "what was done before"],
    },
];

/// Whether the effect of acting on being well follows from such records, and by what.
fn identified(graph: &str) -> (bool, String) {
    let found = Admg::from_str(graph).and_then(|graph| {
        let (act, well) = (graph.set(["act"])?, graph.set(["well"])?);
        Ok(match identify(&graph, well, act) {
            Ok(effect) => {
                let criterion = effect.criterion().map(|criterion| criterion.text(&graph));
                (true, criterion.unwrap_or_else(|| effect.text(&graph)))
            }
            Err(refusal) => (false, refusal.to_string()),
        })
    });
    found.unwrap_or_else(|error| (false, error.to_string()))
}

/// Answers both questions for an incident; `past` are others with its fault, `actions` printed
/// plans.
#[must_use]
pub fn what_if(about: About<'_>, past: &[Past], actions: &[String]) -> Vec<WhatIf> {
    let mut answers = vec![answer(about, past, None)];
    for action in actions {
        answers.push(answer(about, past, Some(action)));
    }
    answers
}

fn answer(about: About<'_>, past: &[Past], action: Option<&str>) -> WhatIf {
    let question = match action {
        None => "Would it have healed by itself?".to_owned(),
        Some(action) => format!("Would {action} mend it?"),
    };
    let mut last = 0.0;
    // What was done before is no matter where nothing is.
    let asked = |one: &&Likeness| action.is_some() || one.first;
    for likeness in LIKENESS.iter().filter(asked) {
        let likes = past.iter().filter(|one| alike(about, one, likeness.own));
        let found = match action {
            None => by_itself(likes),
            Some(action) => by_action(likes, &recipe(action, about.service), likeness.first),
        };
        last = found.likes;
        if found.likes >= LIKES_MIN
            && let Some(estimate) = found.estimate
        {
            let (identified, by) = identified(likeness.graph);
            let names = |all: &[&str]| all.iter().map(ToString::to_string).collect();
            return WhatIf {
                question,
                identified,
                by: Some(by),
                action: action.map(str::to_owned),
                within_ms: WITHIN_MS,
                estimate: Some(estimate),
                likes: round(found.likes),
                rests_on: format!("{} {}", found.words, likeness.words),
                adjusted_for: names(likeness.adjusted),
                not_adjusted_for: names(likeness.given_up),
            };
        }
    }
    let lack = match action {
        None => "were left alone for that long",
        Some(_) => "were treated like this",
    };
    WhatIf {
        question,
        action: action.map(str::to_owned),
        within_ms: WITHIN_MS,
        estimate: None,
        identified: false,
        by: None,
        likes: round(last),
        rests_on: format!(
            "not known: {} incidents like it {lack}, {LIKES_MIN} are needed",
            round(last)
        ),
        adjusted_for: Vec::new(),
        not_adjusted_for: Vec::new(),
    }
}

fn alike(about: About<'_>, one: &Past, own: bool) -> bool {
    one.symptom.as_deref() == about.symptom
        && (!own || (one.node == about.node && one.service.as_deref() == about.service))
}

/// A plan without the name of the service that it is for, so that equal deeds on two services
/// read the same.
fn recipe(plan: &str, service: Option<&str>) -> String {
    let Some(service) = service.filter(|service| !service.is_empty()) else {
        return plan.to_owned();
    };
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut out = String::with_capacity(plan.len());
    let mut rest = plan;
    while let Some(at) = rest.find(service) {
        let (before, after) = (&rest[..at], &rest[at + service.len()..]);
        out.push_str(before);
        let whole = !before.ends_with(part) && !after.starts_with(part);
        out.push_str(if whole { "it" } else { service });
        rest = after;
    }
    out + rest
}

struct Found {
    estimate: Option<Estimate>,
    /// How many it rests on.
    likes: f64,
    words: String,
}

/// Kaplan and Meier's share that is well by [`WITHIN_MS`], with an interval after Dorey and
/// Korn (1987): Wilson's, for as many trials as have the variance of Greenwood.
fn by_itself<'a>(past: impl Iterator<Item = &'a Past>) -> Found {
    let mut times: Vec<(u64, bool)> = past.filter_map(untouched).collect();
    // At the same time, those that heal before those that are lost sight of.
    times.sort_by_key(|(after, healed)| (*after, !healed));
    let (mut left, mut ill, mut greenwood, mut healed) = (times.len() as f64, 1.0, 0.0, 0.0);
    // The share that is surely well if all who are left heal: those who were lost sight of
    // before say nothing of them.
    let mut surely = 1.0_f64;
    for (_, well) in times.iter().take_while(|(after, _)| *after <= WITHIN_MS) {
        if *well {
            surely = surely.min(1.0 - ill * (1.0 - wilson(1.0, left).low));
            ill *= 1.0 - 1.0 / left;
            greenwood += 1.0 / (left * (left - 1.0).max(1.0));
            healed += 1.0;
        }
        left -= 1.0;
    }
    // Those that were watched until the end of that time.
    let likes = healed + left;
    // Nobody was, and some were lost sight of before: what they would have done is not known.
    let known = left > 0.0 || ill == 0.0;
    let share = 1.0 - ill;
    let variance = ill * ill * greenwood;
    let trials = if share > 0.0 && share < 1.0 && variance > 0.0 {
        (share * ill / variance).min(times.len() as f64)
    } else {
        likes
    };
    let mut estimate = wilson(share, trials);
    if ill == 0.0 {
        estimate.low = surely;
    }
    Found {
        estimate: (known && trials > 0.0).then_some(estimate),
        likes,
        words: format!(
            "{} healed by themselves and {} were left alone and ill for longer, of {}",
            round(healed),
            round(left),
            times.len()
        ),
    }
}

/// How long it was watched with nothing done, and whether it was well then.
fn untouched(one: &Past) -> Option<(u64, bool)> {
    match (one.acted_after_ms, one.outcome.as_deref()) {
        (Some(after), _) => Some((after.min(one.lasted_ms), false)),
        (None, Some("recovered" | "refused")) => Some((one.lasted_ms, true)),
        (None, None) => Some((one.lasted_ms, false)),
        // A person was called: what they did, and when, is not on record.
        (None, Some(_)) => None,
    }
}

/// The share of times that a plan was run after which it was well in time. Times of one
/// incident depend on each other, so its interval is that of as many trials as incidents.
fn by_action<'a>(past: impl Iterator<Item = &'a Past>, wanted: &str, first: bool) -> Found {
    let (mut mended, mut runs, mut incidents) = (0.0, 0.0, 0.0);
    for one in past {
        let of = one.service.as_deref();
        let ends: Vec<bool> = one
            .tried
            .iter()
            .enumerate()
            .filter(|(_, tried)| (tried.first || !first) && recipe(&tried.plan, of) == wanted)
            .filter_map(|(at, _)| mends(one, at))
            .collect();
        if !ends.is_empty() {
            incidents += 1.0;
        }
        runs += ends.len() as f64;
        mended += ends.iter().filter(|well| **well).count() as f64;
    }
    let times = match round(runs) == round(incidents) {
        true => String::new(),
        false => format!(" times in {}", round(incidents)),
    };
    Found {
        estimate: (runs > 0.0).then(|| wilson(mended / runs, incidents)),
        likes: incidents,
        words: format!(
            "it mended {} in time, of {}{times}",
            round(mended),
            round(runs)
        ),
    }
}

/// Whether it was well in time after a plan; `None` while that is open.
fn mends(one: &Past, at: usize) -> Option<bool> {
    let took = one.lasted_ms.saturating_sub(one.tried.get(at)?.after_ms);
    if at + 1 < one.tried.len() {
        // Something else had to be done.
        return Some(false);
    }
    match one.outcome.as_deref() {
        Some(outcome) => Some(outcome == "healed" && took <= WITHIN_MS),
        None => (took > WITHIN_MS).then_some(false),
    }
}

/// Wilson's interval (1927) of a share among `trials`.
fn wilson(share: f64, trials: f64) -> Estimate {
    let z2 = Z * Z;
    let middle = share + z2 / (2.0 * trials);
    let half = Z * (share * (1.0 - share) / trials + z2 / (4.0 * trials * trials)).sqrt();
    let scale = 1.0 + z2 / trials;
    Estimate {
        share,
        low: ((middle - half) / scale).clamp(0.0, share),
        high: ((middle + half) / scale).clamp(share, 1.0),
    }
}

/// A count.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It is one.
fn round(count: f64) -> u64 {
    count.round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About {
        node: "a",
        service: Some("web"),
        symptom: Some("hung"),
    };

    const RESTART: &str = "restart(web, grace=0ms)";

    fn past(acted: Option<u64>, outcome: Option<&str>, lasted_ms: u64) -> Past {
        Past {
            node: "a".into(),
            service: Some("web".into()),
            symptom: Some("hung".into()),
            tried: acted
                .map(|after| tried(RESTART, after, true))
                .into_iter()
                .collect(),
            acted_after_ms: acted,
            outcome: outcome.map(str::to_owned),
            lasted_ms,
        }
    }

    fn tried(plan: &str, after_ms: u64, first: bool) -> Tried {
        Tried {
            plan: plan.into(),
            after_ms,
            first,
        }
    }

    /// Hangs that end by themselves: a fifth within the time, and a healer that acts after
    /// half a second on most of them.
    fn world(seed: u64, count: usize, acted: f64) -> Vec<Past> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let one = |_| {
            let by_itself = if chance.f64() < 0.2 {
                chance.u64(0..WITHIN_MS)
            } else {
                10 * WITHIN_MS
            };
            if chance.f64() < acted && by_itself > 500 {
                past(Some(500), Some("healed"), 900)
            } else {
                past(None, Some("refused"), by_itself)
            }
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn those_that_were_acted_upon_do_not_spoil_what_heals_by_itself() {
        let mut covered = 0;
        for seed in 0..100 {
            let [itself, _] = &what_if(ABOUT, &world(seed, 400, 0.8), &["x()".into()])[..] else {
                panic!("two answers")
            };
            let estimate = itself.estimate.as_ref().unwrap();
            covered += u32::from(estimate.low <= 0.2 && 0.2 <= estimate.high);
            assert!(itself.not_adjusted_for.is_empty() && itself.identified);
            assert_eq!(
                itself.by.as_deref(),
                Some("back-door given {service, fault, symptom}")
            );
        }
        assert!((88..=100).contains(&covered), "covered {covered} of 100");
    }

    #[test]
    fn the_last_one_alone_says_little_of_those_that_were_acted_upon_before() {
        // Four heal at once, ninety-five are acted upon, and one is left alone and heals.
        let mut all: Vec<Past> = (0..4).map(|_| past(None, Some("recovered"), 300)).collect();
        all.extend((0..95).map(|_| past(Some(500), Some("healed"), 2_000)));
        all.push(past(None, Some("recovered"), 30_000));
        let found = by_itself(all.iter()).estimate.unwrap();
        assert!((found.share - 1.0).abs() < 1e-9, "{found:?}");
        assert!((0.1..0.4).contains(&found.low), "{found:?}");
        // With nobody acted upon it is as of so many trials.
        let all: Vec<Past> = (1..=20)
            .map(|nth| past(None, Some("recovered"), nth * 1_000))
            .collect();
        let found = by_itself(all.iter()).estimate.unwrap();
        assert!(
            (found.low - wilson(1.0, 20.0).low).abs() < 1e-9,
            "{found:?}"
        );
    }

    #[test]
    fn the_naive_share_would_be_wrong() {
        // Of those that nothing was done about, most were over before anything could be.
        let mut all: Vec<Past> = (0..20)
            .map(|_| past(None, Some("recovered"), 300))
            .collect();
        all.extend((0..80).map(|_| past(Some(500), Some("healed"), 900)));
        all.extend((0..10).map(|_| past(None, Some("refused"), 5 * WITHIN_MS)));
        let found = &what_if(ABOUT, &all, &[])[0];
        let estimate = found.estimate.as_ref().unwrap();
        assert!((estimate.share - 20.0 / 110.0).abs() < 1e-9, "{estimate:?}");
        assert_eq!(found.likes, 30);
    }

    #[test]
    fn too_little_is_not_known() {
        let few = vec![past(Some(500), Some("healed"), 900); 50];
        let [itself, mend, other] = &what_if(
            ABOUT,
            &few,
            &[
                "restart(web, grace=0ms)".into(),
                "restart(web, grace=2s)".into(),
            ],
        )[..] else {
            panic!("three answers")
        };
        assert_eq!(itself.estimate, None, "all were acted upon at once");
        assert!(
            itself.rests_on.starts_with("not known: 0 incidents"),
            "{}",
            itself.rests_on
        );
        let estimate = mend.estimate.as_ref().unwrap();
        assert!(estimate.share > 0.999 && estimate.low > 0.9 && estimate.high > 0.999);
        assert_eq!((other.estimate.as_ref(), other.likes), (None, 0));
        assert!(what_if(ABOUT, &[], &[])[0].estimate.is_none());
    }

    #[test]
    fn likes_of_other_services_answer_only_when_there_are_too_few_and_say_so() {
        let far = |outcome, lasted| Past {
            service: Some("api".into()),
            tried: vec![tried("restart(api, grace=0ms)", 100, true)],
            ..past(Some(100), Some(outcome), lasted)
        };
        let mut all = vec![far("healed", 400); 6];
        all.extend(vec![far("escalated", 400); 4]);
        all.push(past(Some(100), Some("healed"), 400));
        let action = ["restart(web, grace=0ms)".to_owned()];
        let found = &what_if(ABOUT, &all, &action)[1];
        assert_eq!(
            (found.likes, &found.not_adjusted_for[..]),
            (11, &["service".to_owned()][..])
        );
        all.extend(vec![past(Some(100), Some("undone"), 400); 9]);
        let found = &what_if(ABOUT, &all, &action)[1];
        assert_eq!(found.likes, 10);
        assert!((found.estimate.as_ref().unwrap().share - 0.1).abs() < 1e-9);
        // Another symptom is another matter.
        let other = About {
            symptom: Some("dead"),
            ..ABOUT
        };
        assert_eq!(what_if(other, &all, &action)[1].estimate, None);
    }

    #[test]
    fn each_plan_of_an_incident_answers_for_itself() {
        const OTHER: &str = "prune(web, keep=1)";
        let both = [RESTART.to_owned(), OTHER.to_owned()];
        // The restart does nothing for 50 s, then the other plan mends it within 30.
        let two = Past {
            tried: vec![tried(RESTART, 1_000, true), tried(OTHER, 51_000, false)],
            ..past(Some(1_000), Some("healed"), 81_000)
        };
        // The same, but after the restart nothing more may be done.
        let held = past(Some(1_000), Some("escalated"), 600_000);
        let all = [vec![two.clone(); 6], vec![held; 2]].concat();
        let [itself, restart, other] = &what_if(ABOUT, &all, &both)[..] else {
            panic!("three answers")
        };
        assert_eq!(restart.likes, 8);
        assert!(restart.estimate.as_ref().unwrap().share < 1e-9 && restart.identified);
        assert!(restart.estimate.as_ref().unwrap().high < 0.5);
        assert_eq!(other.likes, 6);
        assert!(other.estimate.as_ref().unwrap().share > 0.999);
        assert!(!other.identified);
        assert_eq!(other.not_adjusted_for, ["what was done before"]);
        // Nothing is known of what is left alone for longer than a second.
        assert!(itself.estimate.is_none());
        // Where it was run first often enough, that alone counts.
        let alone = Past {
            tried: vec![tried(OTHER, 1_000, true)],
            ..past(Some(1_000), Some("undone"), 100_000)
        };
        let all = [all, vec![alone; 5]].concat();
        let other = &what_if(ABOUT, &all, &both)[2];
        assert_eq!((other.likes, other.identified), (5, true));
        assert!(other.estimate.as_ref().unwrap().share < 1e-9);
        // The same plan three times in each is no more certain than once in each.
        let thrice = Past {
            tried: (0..3)
                .map(|nth| tried(RESTART, 1_000 + nth, nth == 0))
                .collect(),
            ..two
        };
        let found = by_action([thrice].iter(), &recipe(RESTART, Some("web")), false);
        assert_eq!(found.likes.to_bits(), 1.0_f64.to_bits());
        assert_eq!(found.words, "it mended 0 in time, of 3 times in 1");
    }

    #[test]
    fn a_plan_that_runs_has_not_failed_yet() {
        let open = |lasted| past(Some(1_000), None, lasted);
        assert_eq!(mends(&open(30_000), 0), None);
        assert_eq!(mends(&open(1_001 + WITHIN_MS), 0), Some(false));
        let late = past(Some(70_000), Some("healed"), 75_000);
        assert_eq!(mends(&late, 0), Some(true), "its time begins with its step");
    }

    #[test]
    fn a_plan_reads_the_same_for_whatever_service_it_is() {
        let plan = "isolate(infer, infer-1, drain=2s) ; restart(infer-1, grace=2s)";
        assert_eq!(
            recipe(plan, Some("infer-1")),
            "isolate(infer, it, drain=2s) ; restart(it, grace=2s)"
        );
        assert_eq!(recipe("restart(a-web)", Some("web")), "restart(a-web)");
        assert_eq!(recipe("x", None), "x");
    }

    #[test]
    fn intervals_stay_within_what_can_be() {
        for (share, trials) in [(0.0, 5.0), (1.0, 5.0), (0.5, 1.0)] {
            let found = wilson(share, trials);
            assert!(found.low >= 0.0 && found.low <= share);
            assert!(found.high <= 1.0 && found.high >= share);
            assert!(found.high - found.low > 0.1);
        }
    }
}
