//! Effects of actions from observation, beside acting.
//!
//! On exact models of discrete values with hidden causes: what the expression makes of the
//! observed distribution, against the distribution under the action. The baseline takes
//! seeing for doing, P(y | x).

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use homeostat_causal::estimate::{Table, evaluate};
use homeostat_causal::graph::{Admg, Set};
use homeostat_causal::hedge::Hedge;
use homeostat_causal::identify::{Effect, Refusal, identify};
use homeostat_causal::truth::{Model, random_graph, random_question};

use super::twins;
use crate::result::{Report, Row};
use crate::stats::{Estimate, share};

pub(super) const SETTINGS: &str =
    "effects: 4 to 7 vertices, causes 0.5, hidden 0.15 to 0.4, 2 models";

/// Numbers that are the same but for rounding.
const ERROR_MAX: f64 = 1e-9;

/// Random models for each random graph.
const MODELS: usize = 2;

/// A graph with whether `P(y | do(x))` follows from observation.
struct Known {
    name: &'static str,
    text: &'static str,
    follows: bool,
}

const fn known_graph(name: &'static str, text: &'static str, follows: bool) -> Known {
    Known {
        name,
        text,
        follows,
    }
}

const KNOWN: [Known; 9] = [
    known_graph("back-door", "z -> x, z -> y, x -> y", true),
    known_graph("front-door", "x -> m, m -> y, x <-> y", true),
    known_graph("M-bias", "a -> x, a -> m, b -> m, b -> y, x -> y", true),
    known_graph("napkin", "w -> z, z -> x, x -> y, w <-> x, w <-> y", true),
    known_graph(
        "front-door with covariate",
        "w -> x, w -> m, w -> y, x -> m, m -> y, x <-> y",
        true,
    ),
    known_graph(
        "two pairs",
        "a -> x, x -> b, b -> y, a <-> b, x <-> y",
        true,
    ),
    known_graph("bow", "x -> y, x <-> y", false),
    known_graph("instrument", "z -> x, x -> y, x <-> y", false),
    known_graph("confounded mediator", "x -> m, m -> y, x <-> m", false),
];

/// The graphs that every textbook has.
pub(super) fn known(models: usize, seed: u64, report: &mut Report) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let (mut wrong, mut checked) = (Vec::new(), Checked::default());
    for Known {
        name,
        text,
        follows,
    } in KNOWN
    {
        let graph: Admg = text.parse()?;
        let [x, y] = [graph.set(["x"])?, graph.set(["y"])?];
        match identify(&graph, y, x) {
            Ok(effect) => {
                if !follows || conditions_on_collider(&graph, name, &effect) {
                    wrong.push(name);
                }
                checked.compare(&graph, &effect, models, &mut rng)?;
            }
            Err(Refusal::NotIdentifiable { hedge, .. }) => {
                if follows || unproven(&graph, &hedge, y, x).is_some() {
                    wrong.push(name);
                }
            }
            Err(other) => bail!("{name}: {other}"),
        }
    }
    if !wrong.is_empty() {
        eprintln!("wrong: {}", wrong.join(", "));
    }
    let count = Estimate::exact(wrong.len() as f64, KNOWN.len());
    let what = "known graphs: identifiable or not, wrong";
    let row = Row::new("causal.effects.known.wrong", what, "graphs", count);
    report.rows.push(row.goal(0.0));
    checked.rows("known", "known graphs", report);
    Ok(())
}

/// Where two causes meet there is nothing to adjust for, and doing so would mislead.
fn conditions_on_collider(graph: &Admg, name: &str, effect: &Effect) -> bool {
    let met = graph.set(["m"]).unwrap_or_default();
    name == "M-bias" && !(effect.best().observed() & met).is_empty()
}

/// Random graphs and questions.
pub(super) fn random(graphs: usize, seed: u64, report: &mut Report) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let mut checked = Checked::default();
    let (mut refused, mut bad, mut took) = (0, Vec::new(), Vec::with_capacity(graphs));
    let mut answered = 0;
    for number in 0..graphs {
        let count = rng.usize(4..=7);
        let hidden = 0.15 + 0.25 * rng.f64();
        let graph = random_graph(count, 0.5, hidden, &mut rng);
        let (y, x) = random_question(&graph, 2, &mut rng).context("too few vertices")?;
        let begun = Instant::now();
        let found = identify(&graph, y, x);
        took.push(begun.elapsed().as_secs_f64() * 1e6);
        match found {
            Ok(effect) => {
                answered += 1;
                checked.compare(&graph, &effect, MODELS, &mut rng)?;
            }
            Err(Refusal::NotIdentifiable { hedge, .. }) => {
                refused += 1;
                if let Some(why) = unproven(&graph, &hedge, y, x) {
                    bad.push(format!("graph {number}, {graph}: {why}"));
                }
            }
            Err(other) => bail!("graph {number}: {other}"),
        }
    }
    bad.iter().for_each(|line| eprintln!("{line}"));
    let what = "random graphs: share identifiable";
    let row = Row::new(
        "causal.effects.random.answered",
        what,
        "ratio",
        share(answered, graphs),
    );
    report.rows.push(row.higher());
    let what = "random graphs: refusals without a hedge and two models that differ";
    let count = Estimate::exact(bad.len() as f64, refused);
    let row = Row::new("causal.effects.random.unproven", what, "graphs", count);
    report.rows.push(row.goal(0.0));
    checked.rows("random", "random graphs", report);
    if let Some(median) = Estimate::quantile(&took, 0.5, seed) {
        let what = "random graphs: time to an answer";
        report
            .rows
            .push(Row::new("causal.effects.random.us", what, "us", median));
    }
    Ok(())
}

fn unproven(graph: &Admg, hedge: &Hedge, y: Set, x: Set) -> Option<&'static str> {
    hedge
        .flaw(graph, y, x)
        .or_else(|| twins::flaw(graph, hedge, y, x))
}

/// Answers beside acting.
#[derive(Default)]
struct Checked {
    /// The largest difference of each comparison.
    errors: Vec<f64>,
    /// That of taking seeing for doing.
    naive: Vec<f64>,
    /// By a criterion that has a name, of all that were compared.
    named: usize,
    effects: usize,
    /// Models that would have been too large.
    skipped: usize,
}

impl Checked {
    fn compare(
        &mut self,
        graph: &Admg,
        effect: &Effect,
        models: usize,
        rng: &mut Rng,
    ) -> Result<()> {
        self.effects += 1;
        self.named += usize::from(effect.criterion().is_some());
        for _ in 0..models {
            let values: Vec<usize> = (0..graph.len()).map(|_| rng.usize(2..=3)).collect();
            let Ok(model) = Model::random(graph, &values, rng) else {
                self.skipped += 1;
                continue;
            };
            let setting: Vec<(usize, usize)> = effect
                .x
                .iter()
                .map(|one| (one, rng.usize(..values[one])))
                .collect();
            let (seen, acted) = (model.acted(&[])?, model.acted(&setting)?);
            let truth = |at: &[(usize, usize)]| acted.probability(at);
            for expression in [&effect.expression, &effect.best()] {
                let found = evaluate(graph, effect, expression, &seen, &setting)?;
                let error = largest(&found.of, &found.values, |at, place| {
                    (found.cells[place] - truth(at)).abs()
                });
                self.errors.push(error);
            }
            let y: Vec<usize> = effect.y.iter().collect();
            let counts: Vec<usize> = y.iter().map(|one| values[*one]).collect();
            self.naive.push(largest(&y, &counts, |at, _| {
                (naive(&seen, at, &setting) - truth(at)).abs()
            }));
        }
        Ok(())
    }

    fn rows(&self, id: &str, what: &str, report: &mut Report) {
        let worst = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
        let error = Estimate::exact(worst(&self.errors), self.errors.len());
        let row = Row::new(
            &format!("causal.effects.{id}.error"),
            &format!("{what}: largest error of a probability"),
            "1e-9",
            error.scaled(1e9),
        );
        let naive = 1e9 * worst(&self.naive);
        report.rows.push(
            row.against(Some(naive), "seeing taken for doing")
                .goal(1e9 * ERROR_MAX),
        );
        let named = share(self.named, self.effects);
        let by = format!("{what}: by back-door or front-door");
        let row = Row::new(&format!("causal.effects.{id}.named"), &by, "ratio", named);
        report.rows.push(row.higher());
        if self.skipped > 0 {
            eprintln!(
                "{what}: {} models were too large to go through",
                self.skipped
            );
        }
    }
}

fn naive(seen: &Table, y: &[(usize, usize)], x: &[(usize, usize)]) -> f64 {
    let both: Vec<(usize, usize)> = y.iter().chain(x).copied().collect();
    seen.probability(&both) / seen.probability(x)
}

/// The largest of something over all values of some vertices, the last varying fastest.
fn largest(of: &[usize], values: &[usize], each: impl Fn(&[(usize, usize)], usize) -> f64) -> f64 {
    let count: usize = values.iter().product();
    let mut worst: f64 = 0.0;
    for place in 0..count {
        let mut rest = place;
        let mut at: Vec<(usize, usize)> = Vec::with_capacity(of.len());
        for (vertex, values) in of.iter().zip(values).rev() {
            at.push((*vertex, rest % values));
            rest /= values;
        }
        let found = each(&at, place);
        // A missing number is the worst error there is.
        worst = if found.is_nan() {
            f64::INFINITY
        } else {
            worst.max(found)
        };
    }
    worst
}
