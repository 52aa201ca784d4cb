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
//! **By an action.** The share of those that were well within the time, of all on which this
//! plan was run.
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
    /// The plan that was chosen last.
    pub plan: Option<String>,
    /// From the first sign to the first step of any plan.
    pub acted_after_ms: Option<u64>,
    /// How it ended; `None` while it is open.
    pub outcome: Option<String>,
    /// From the first sign to its end, or until now.
    pub lasted_ms: u64,
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
    words: &'static str,
    /// What decides what is done and how it goes, and what is hidden when these are compared.
    graph: &'static str,
    adjusted: &'static [&'static str],
    given_up: &'static [&'static str],
}

/// The narrowest first.
const LIKENESS: [Likeness; 2] = [
    Likeness {
        own: true,
        words: "incidents of this service with this fault and symptom",
        graph: "service -> fault, service -> symptom, fault -> symptom, \
                fault -> act, symptom -> act, service -> act, \
                fault -> well, symptom -> well, service -> well, act -> well",
        adjusted: &["fault", "symptom", "service"],
        given_up: &[],
    },
    Likeness {
        own: false,
        words: "incidents of any service with this fault and symptom",
        graph: "fault -> symptom, fault -> act, symptom -> act, \
                fault -> well, symptom -> well, act -> well, \
                act <-> well, fault <-> act, fault <-> well, symptom <-> act, symptom <-> well",
        adjusted: &["fault", "symptom"],
        given_up: &["service"],
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
    for likeness in &LIKENESS {
        let likes = || past.iter().filter(|one| alike(about, one, likeness.own));
        let found = match action {
            None => by_itself(likes()),
            Some(action) => {
                let wanted = recipe(action, about.service);
                by_action(likes().filter(|one| {
                    one.acted_after_ms.is_some()
                        && one
                            .plan
                            .as_deref()
                            .map(|plan| recipe(plan, one.service.as_deref()))
                            == Some(wanted.clone())
                }))
            }
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
    for (_, well) in times.iter().take_while(|(after, _)| *after <= WITHIN_MS) {
        if *well {
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
    Found {
        estimate: (known && trials > 0.0).then(|| wilson(share, trials)),
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

/// The share of those acted upon that were well in time.
fn by_action<'a>(past: impl Iterator<Item = &'a Past>) -> Found {
    let (mut mended, mut all) = (0.0, 0.0);
    for one in past {
        let well = one.outcome.as_deref() == Some("healed") && one.lasted_ms <= WITHIN_MS;
        // An open one may still be mended in time.
        if well || one.outcome.is_some() || one.lasted_ms > WITHIN_MS {
            all += 1.0;
            mended += f64::from(u8::from(well));
        }
    }
    Found {
        estimate: (all > 0.0).then(|| wilson(mended / all, all)),
        likes: all,
        words: format!("it mended {} in time, of {}", round(mended), round(all)),
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

    fn past(acted: Option<u64>, outcome: Option<&str>, lasted_ms: u64) -> Past {
        Past {
            node: "a".into(),
            service: Some("web".into()),
            symptom: Some("hung".into()),
            plan: acted.map(|_| "restart(web, grace=0ms)".into()),
            acted_after_ms: acted,
            outcome: outcome.map(str::to_owned),
            lasted_ms,
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
            plan: Some("restart(api, grace=0ms)".into()),
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
