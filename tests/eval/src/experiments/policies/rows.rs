//! What episodes of policies come to, as rows.
//!
//! In go cases with their episodes, out come rows `policies.<who>.<stratum>.<what>`. Shares
//! are of episodes in which users would have noticed; incidents that are marked as beyond
//! repair are left out of them.

use std::collections::BTreeMap;

use homeostat_sim::episode::{Outcome, Rules};

use super::{Case, Length, Who};
use crate::result::{Report, Row};
use crate::stats::{self, Estimate};

/// From this distance on from all training incidents, one counts as new.
const NEW: f64 = 0.5;
/// Up to this one it is as good as known.
const KNOWN: f64 = 0.2;
/// Seconds by which it is asked who has recovered.
const BY: [u32; 7] = [60, 120, 180, 240, 300, 420, 600];
/// On hard incidents, of the oracle's share: rules that try must be below this for the
/// incidents to be hard,
const RULES_AT_MOST: f64 = 0.6;
/// an expert who knows all about them above this, or they cannot be told by what is seen;
const EXPERT_AT_LEAST: f64 = 0.8;
/// and the oracle itself recovers this share.
const ORACLE_AT_LEAST: f64 = 0.95;

/// An outcome and the oracle's of the same episode.
type Pair<'c> = (&'c Outcome, &'c Outcome);

/// For each incident, a policy's outcomes in episodes in which users would have noticed.
fn pairs<'c>(cases: &[&'c Case], place: usize) -> Vec<Vec<Pair<'c>>> {
    let of = |case: &&'c Case| -> Vec<Pair<'c>> {
        let runs = case.runs.iter().filter(|(oracle, _)| oracle.was_incident);
        // Behind the last of the others comes the oracle itself.
        runs.map(|(oracle, others)| (others.get(place).unwrap_or(oracle), oracle))
            .collect()
    };
    cases
        .iter()
        .map(of)
        .filter(|pairs| !pairs.is_empty())
        .collect()
}

pub(super) fn rows(report: &mut Report, cases: &[Case], policies: &[Who], seed: u64) {
    let repairable: Vec<&Case> = cases.iter().filter(|case| !case.incident.contain).collect();
    let strata = strata(&repairable);
    for (key, about, cases) in &strata {
        let n = cases.len();
        let id = format!("policies.stratum.{key}");
        report.rows.push(Row::new(
            &id,
            &format!("incidents {about}"),
            "incidents",
            Estimate::exact(n as f64, n),
        ));
    }
    for place in 0..=policies.len() {
        let policy = policies.get(place).map_or("oracle", |policy| policy.name());
        let all = pairs(&repairable, place);
        recovered(report, policy, "", "", &all, seed);
        of_oracle(report, policy, "", "", &all, seed);
        figures(report, policy, &all, seed);
        curve(report, policy, &all, seed);
        for (key, about, cases) in &strata {
            let pairs = pairs(cases, place);
            recovered(
                report,
                policy,
                &format!("{key}."),
                &format!(", {about}"),
                &pairs,
                seed,
            );
            if key == HARD {
                of_oracle(report, policy, "hard.", ", hard", &pairs, seed);
                let hard: Vec<_> = pairs
                    .iter()
                    .flatten()
                    .map(|(ours, _)| ours.seconds)
                    .collect();
                let mean = stats::clustered(&[hard], |all: &[&f64]| mean(all), seed);
                if let Some(mean) = mean {
                    let id = format!("policies.{}.hard.capped", policy.replace('-', "_"));
                    let what = format!("{policy}: time to recover, mean, capped, hard");
                    report.rows.push(Row::new(&id, &what, "s", mean));
                }
            }
        }
    }
}

/// The stratum of incidents that no plan of two steps ends, even if nobody came again.
const HARD: &str = "hard";

type Stratum<'c> = (String, String, Vec<&'c Case>);

/// Incidents by least number of steps, and by how new they are.
fn strata<'c>(cases: &[&'c Case]) -> Vec<Stratum<'c>> {
    let mut strata: BTreeMap<String, (String, Vec<&'c Case>)> = BTreeMap::new();
    let mut add = |key: String, about: String, case: &'c Case| {
        let stratum = strata.entry(key).or_insert_with(|| (about, Vec::new()));
        stratum.1.push(case);
    };
    for case in cases {
        if let Some(Length {
            least,
            apart,
            searched,
        }) = case.length
        {
            match least {
                Some(least) => add(
                    format!("steps_{least}"),
                    format!("of least length {least}"),
                    case,
                ),
                None => add(
                    format!("steps_over_{searched}"),
                    format!("of least length over {searched}"),
                    case,
                ),
            }
            if least.is_none_or(|least| least > 2) && searched >= 2 {
                let (key, about) = if apart.is_none_or(|apart| apart > 2) {
                    (HARD, "hard: of least length over 2, storms apart")
                } else {
                    ("storms", "of least length over 2 for a storm alone")
                };
                add(key.to_owned(), about.to_owned(), case);
            }
        }
        let novelty = match case.novelty {
            known if known <= KNOWN => "low",
            new if new >= NEW => "high",
            _ => "mid",
        };
        let about = format!("of {novelty} novelty, by distance from training");
        add(format!("novelty_{novelty}"), about, case);
    }
    strata
        .into_iter()
        .map(|(key, (about, cases))| (key, about, cases))
        .collect()
}

fn mean(all: &[&f64]) -> f64 {
    all.iter().copied().sum::<f64>() / all.len() as f64
}

/// What share of the oracle's recoveries a policy has.
fn of_oracle(
    report: &mut Report,
    policy: &str,
    key: &str,
    about: &str,
    pairs: &[Vec<Pair<'_>>],
    seed: u64,
) {
    let count = |all: &[&Pair<'_>], which: fn(&Pair<'_>) -> bool| {
        all.iter().filter(|pair| which(pair)).count() as f64
    };
    let share = |all: &[&Pair<'_>]| {
        let oracle = count(all, |(_, oracle)| oracle.recovered);
        count(all, |(ours, _)| ours.recovered) / oracle.max(1.0)
    };
    let Some(ours) = stats::clustered(pairs, share, seed) else {
        return;
    };
    let id = format!("policies.{}.{key}of_oracle", policy.replace('-', "_"));
    let what = format!("{policy}: recovered, of what the oracle recovers{about}");
    let row = Row::new(&id, &what, "ratio", ours).against(Some(1.0), "oracle");
    report.rows.push(match (policy, key) {
        ("trial" | "expert-left-out", "hard.") => row.goal(RULES_AT_MOST),
        ("expert", "hard.") => row.higher().goal(EXPERT_AT_LEAST),
        _ => row.higher(),
    });
}

/// Who has recovered by when.
fn curve(report: &mut Report, policy: &str, pairs: &[Vec<Pair<'_>>], seed: u64) {
    for by in BY
        .into_iter()
        .filter(|by| f64::from(*by) <= Rules::default().cap_s)
    {
        let share = |all: &[&Pair<'_>]| {
            let healed = |one: &Outcome| one.recovered && one.seconds <= f64::from(by);
            all.iter().filter(|(ours, _)| healed(ours)).count() as f64 / all.len() as f64
        };
        if let Some(ours) = stats::clustered(pairs, share, seed) {
            let id = format!("policies.{}.by_{by}s.recovered", policy.replace('-', "_"));
            let what = format!("{policy}: recovered within {by} s");
            report
                .rows
                .push(Row::new(&id, &what, "ratio", ours).higher());
        }
    }
}

fn recovered(
    report: &mut Report,
    policy: &str,
    key: &str,
    about: &str,
    pairs: &[Vec<Pair<'_>>],
    seed: u64,
) {
    let share = |which: fn(&Pair<'_>) -> bool| {
        move |all: &[&Pair<'_>]| {
            all.iter().filter(|pair| which(pair)).count() as f64 / all.len() as f64
        }
    };
    let ours = stats::clustered(pairs, share(|(ours, _)| ours.recovered), seed);
    let oracle = stats::clustered(pairs, share(|(_, oracle)| oracle.recovered), seed);
    let Some(ours) = ours else {
        return;
    };
    let id = format!("policies.{}.{key}recovered", policy.replace('-', "_"));
    let what = format!("{policy}: recovered{about}");
    let row = Row::new(&id, &what, "ratio", ours).higher();
    let row = row.against(oracle.map(|oracle| oracle.value), "oracle");
    report.rows.push(if policy == "oracle" && key.is_empty() {
        row.goal(ORACLE_AT_LEAST)
    } else {
        row
    });
}

/// What else there is to know of a policy.
fn figures(report: &mut Report, policy: &str, pairs: &[Vec<Pair<'_>>], seed: u64) {
    let name = policy.replace('-', "_");
    let mut add =
        |id: &str, what: &str, unit, ours: Option<Estimate>, reference: Option<f64>, by: &str| {
            if let Some(ours) = ours {
                let row = Row::new(
                    &format!("policies.{name}.{id}"),
                    &format!("{policy}: {what}"),
                    unit,
                    ours,
                );
                report.rows.push(row.against(reference, by));
            }
        };
    let all: Vec<&Pair<'_>> = pairs.iter().flatten().collect();
    let mean = |value: fn(&Pair<'_>) -> f64| {
        stats::clustered(
            pairs,
            move |all: &[&Pair<'_>]| {
                all.iter().map(|pair| value(pair)).sum::<f64>() / all.len() as f64
            },
            seed,
        )
    };
    let oracle = |value: fn(&Pair<'_>) -> f64| mean(value).map(|estimate| estimate.value);
    let times = |oracle: bool| -> Vec<f64> {
        let outcomes = all.iter().map(|pair| if oracle { pair.1 } else { pair.0 });
        outcomes
            .filter(|one| one.recovered)
            .map(|one| one.seconds)
            .collect()
    };
    let theirs = Estimate::quantile(&times(true), 0.5, seed);
    add(
        "median",
        "time to recover, median of the recovered",
        "s",
        Estimate::quantile(&times(false), 0.5, seed),
        theirs.map(|one| one.value),
        "oracle",
    );
    add(
        "capped",
        "time to recover, mean, capped",
        "s",
        mean(|(ours, _)| ours.seconds),
        oracle(|(_, oracle)| oracle.seconds),
        "oracle",
    );
    add(
        "resolved",
        "recovered with no root left",
        "ratio",
        mean(|(ours, _)| f64::from(u8::from(ours.resolved()))),
        oracle(|(_, oracle)| f64::from(u8::from(oracle.resolved()))),
        "oracle",
    );
    add(
        "prevented",
        "ended before users noticed",
        "ratio",
        mean(|(ours, _)| f64::from(u8::from(ours.prevented()))),
        oracle(|(_, oracle)| f64::from(u8::from(oracle.prevented()))),
        "oracle",
    );
    add(
        "lost",
        "requests lost, of those that a fleet alone loses",
        "ratio",
        stats::clustered(
            pairs,
            |all: &[&Pair<'_>]| {
                let alone: f64 = all.iter().map(|(ours, _)| ours.lost_twin).sum();
                all.iter().map(|(ours, _)| ours.lost).sum::<f64>() / alone.max(1.0)
            },
            seed,
        ),
        Some(1.0),
        "no-op",
    );
    add(
        "lost_requests",
        "requests lost in an episode, mean",
        "requests",
        mean(|(ours, _)| ours.lost),
        mean(|(ours, _)| ours.lost_twin).map(|estimate| estimate.value),
        "no-op",
    );
    add(
        "benefit",
        "health won by healing, times seconds",
        "s",
        mean(|(ours, _)| ours.benefit),
        Some(0.0),
        "no-op",
    );
    add(
        "harm",
        "health lost to healing, times seconds",
        "s",
        mean(|(ours, _)| ours.harm),
        Some(0.0),
        "no-op",
    );
    add(
        "spent",
        "spent, shares of a route times seconds",
        "s",
        mean(|(ours, _)| ours.spent),
        oracle(|(_, oracle)| oracle.spent),
        "oracle",
    );
    add(
        "orders",
        "orders",
        "orders",
        mean(|(ours, _)| f64::from(ours.orders)),
        oracle(|(_, oracle)| f64::from(oracle.orders)),
        "oracle",
    );
}
