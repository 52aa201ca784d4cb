//! Real beside simulated, in numbers.

use std::sync::Arc;

use super::faults::Fault;
use super::told;
use super::trace::{FIGURES, Figures, Trace};
use crate::result::Row;
use crate::stats::{Estimate, clustered, share};

/// Times below this are as good as none: users are asked about spans of 2 s.
const TIME_MIN_S: f64 = 2.0;
/// Changes beyond this are all of one rank.
const FAR: f64 = 50.0;

/// A run of the bed and what the simulator says to it.
pub(super) struct Pair {
    fault: Arc<Fault>,
    plan: usize,
    real: Trace,
    /// The median run.
    simulated: Trace,
    /// Times, real and simulated, that both have.
    times: Vec<(&'static str, f64, f64)>,
    /// Times that one side has and the other has not.
    alone: usize,
    works: (bool, bool),
}

impl Pair {
    pub(super) fn new(fault: &Arc<Fault>, plan: usize, real: &Trace, twins: &[Trace]) -> Self {
        let median = |of: &dyn Fn(&Trace) -> f64| {
            let mut all: Vec<f64> = twins.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(0.0)
        };
        let figures = |of: &dyn Fn(&Trace) -> Figures| {
            Figures(std::array::from_fn(|at| median(&|it| of(it).0[at])))
        };
        let (before, during) = (figures(&|it| it.before), figures(&|it| it.during));
        let (mut times, mut alone) = (Vec::new(), 0);
        for (what, of) in [
            ("shows", Trace::shows_s as fn(&Trace) -> Option<f64>),
            ("heals", Trace::heals_s),
        ] {
            let mut all: Vec<f64> = twins.iter().filter_map(of).collect();
            all.sort_by(f64::total_cmp);
            // As many as not must have it.
            match (of(real), 2 * all.len() > twins.len()) {
                (Some(theirs), true) => times.push((what, theirs, all[all.len() / 2])),
                (None, false) => {}
                (Some(_), false) | (None, true) => alone += 1,
            }
        }
        let works = 2 * twins.iter().filter(|it| it.works).count() > twins.len();
        let mut simulated = twins[twins.len() / 2].clone();
        (simulated.before, simulated.during, simulated.works) = (before, during, works);
        Self {
            fault: Arc::clone(fault),
            plan,
            real: real.clone(),
            simulated,
            times,
            alone,
            works: (real.works, works),
        }
    }

    /// For people: what differs.
    pub(super) fn told(&self) -> String {
        let mut text = told(&self.fault, self.plan, "sim", &self.simulated);
        for (what, theirs, ours) in &self.times {
            if apart(*theirs, *ours) > 2.0 {
                text.push_str(&format!(
                    "\n       {what}: real {theirs:.1} s, simulated {ours:.1} s"
                ));
            }
        }
        if self.works.0 != self.works.1 {
            text.push_str("\n       they differ on whether the plan works");
        }
        text
    }
}

fn sign(change: f64) -> i8 {
    match change {
        up if up >= 1.0 => 1,
        down if down <= -1.0 => -1,
        _ => 0,
    }
}

/// How many times longer one is than the other.
fn apart(one: f64, other: f64) -> f64 {
    let (one, other) = (one.max(TIME_MIN_S), other.max(TIME_MIN_S));
    (one / other).max(other / one)
}

/// The gates, on faults that were not fitted; and the same on those that were, for comparison.
pub(super) fn rows(pairs: &[Pair], seed: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (set, fit) in [("others", false), ("fitted", true)] {
        let groups = grouped(pairs, fit);
        if groups.is_empty() {
            continue;
        }
        rows.extend(of_set(set, &groups, !fit, seed));
    }
    rows
}

/// All pairs of one fault.
struct Group<'p> {
    pairs: Vec<&'p Pair>,
    /// Changes of the figures, real and simulated, by the means over all runs: what is before
    /// a fault is the same whatever comes, so it is the mean over the runs of all faults.
    changes: Vec<(f64, f64)>,
}

fn grouped(pairs: &[Pair], fit: bool) -> Vec<Group<'_>> {
    let of = |pairs: &[&Pair], figures: &dyn Fn(&Pair) -> Figures| {
        let n = pairs.len().max(1) as f64;
        let mean = |at: usize| pairs.iter().map(|it| figures(it).0[at]).sum::<f64>() / n;
        Figures(std::array::from_fn(mean))
    };
    let every: Vec<&Pair> = pairs.iter().collect();
    let before = of(&every, &|it| it.real.before);
    let calm = of(&every, &|it| it.simulated.before);
    let mut groups: Vec<Vec<&Pair>> = Vec::new();
    for pair in pairs.iter().filter(|pair| pair.fault.fit == fit) {
        let name = &pair.fault.name;
        match groups.iter_mut().find(|group| group[0].fault.name == *name) {
            Some(group) => group.push(pair),
            None => groups.push(vec![pair]),
        }
    }
    groups
        .into_iter()
        .map(|pairs| {
            let theirs = of(&pairs, &|it| it.real.during).since(&before);
            let ours = of(&pairs, &|it| it.simulated.during).since(&calm);
            Group {
                changes: theirs.into_iter().zip(ours).collect(),
                pairs,
            }
        })
        .collect()
}

/// For people: where the two sides differ on a change.
pub(super) fn differs(pairs: &[Pair]) -> String {
    let mut text = String::new();
    for fit in [true, false] {
        for group in grouped(pairs, fit) {
            for ((theirs, ours), (name, ..)) in group.changes.iter().zip(FIGURES) {
                if sign(*theirs) != sign(*ours) {
                    let fault = &group.pairs[0].fault.name;
                    text.push_str(&format!(
                        "  {fault}: {name}: real {theirs:+.1}, simulated {ours:+.1}\n"
                    ));
                }
            }
        }
    }
    text
}

fn of_set(set: &str, groups: &[Group<'_>], judged: bool, seed: u64) -> Vec<Row> {
    let row = |id: &str, what: &str, unit, estimate: Option<Estimate>| {
        let id = format!("testbed.{set}.{id}");
        let what = format!("{set}: {what}");
        Row::new(
            &id,
            &what,
            unit,
            estimate.unwrap_or(Estimate::exact(f64::NAN, 0)),
        )
    };
    let goal = |row: Row, goal: f64| if judged { row.goal(goal) } else { row };
    let changes = |only: &dyn Fn(&(f64, f64)) -> bool| -> Vec<Vec<(f64, f64)>> {
        let of = |group: &Group<'_>| group.changes.iter().copied().filter(only).collect();
        groups.iter().map(of).collect()
    };
    let moved = |(one, other): &(f64, f64)| sign(*one) != 0 || sign(*other) != 0;
    let agree = |drawn: &[&(f64, f64)]| {
        let same = drawn
            .iter()
            .filter(|(one, other)| sign(*one) == sign(*other));
        same.count() as f64 / drawn.len().max(1) as f64
    };
    let times: Vec<Vec<f64>> = groups
        .iter()
        .map(|group| {
            let times = group.pairs.iter().flat_map(|pair| &pair.times);
            times
                .map(|(_, theirs, ours)| apart(*theirs, *ours))
                .collect()
        })
        .collect();
    let alone: usize = groups
        .iter()
        .flat_map(|group| &group.pairs)
        .map(|pair| pair.alone)
        .sum();
    let works: Vec<Vec<(bool, bool)>> = groups
        .iter()
        .map(|group| group.pairs.iter().map(|pair| pair.works).collect())
        .collect();
    let every: Vec<(bool, bool)> = works.iter().flatten().copied().collect();
    let same = every.iter().filter(|(one, other)| one == other).count();
    let within = |drawn: &[&f64]| {
        drawn.iter().filter(|it| ***it <= 2.0).count() as f64 / drawn.len().max(1) as f64
    };
    vec![
        goal(
            row(
                "sign",
                "signs of changes that agree, of 12 figures of each fault",
                "ratio",
                clustered(&changes(&|_| true), agree, seed),
            )
            .higher(),
            0.9,
        ),
        row(
            "sign_moved",
            "the same where either side changed",
            "ratio",
            clustered(&changes(&moved), agree, seed),
        )
        .higher(),
        goal(
            row(
                "spearman",
                "rank correlation of the changes, where either side changed",
                "",
                clustered(&changes(&moved), spearman, seed),
            )
            .higher(),
            0.8,
        ),
        goal(
            row(
                "times",
                "times to show and to heal that are within 2x",
                "ratio",
                clustered(&times, within, seed),
            )
            .higher(),
            0.9,
        ),
        row(
            "times_alone",
            "times that one side has and the other has not, of all that either has",
            "ratio",
            Some(share(alone, alone + times.concat().len())),
        ),
        row(
            "times_apart",
            "how many times apart they are, median",
            "x",
            Estimate::quantile(&times.concat(), 0.5, seed),
        ),
        goal(
            row(
                "kappa",
                "agreement on which plans work, beyond chance",
                "kappa",
                clustered(&works, kappa, seed),
            )
            .higher(),
            0.7,
        ),
        row(
            "plans",
            "plans on which both say the same",
            "ratio",
            Some(share(same, every.len())),
        )
        .higher(),
    ]
}

/// Spearman's rank correlation, ties at their mean rank.
fn spearman(drawn: &[&(f64, f64)]) -> f64 {
    let ranks = |of: &dyn Fn(&(f64, f64)) -> f64| {
        let values: Vec<f64> = drawn.iter().map(|it| of(it).clamp(-FAR, FAR)).collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|one, other| values[*one].total_cmp(&values[*other]));
        let mut ranks = vec![0.0; values.len()];
        let mut first = 0;
        while first < order.len() {
            let value = values[order[first]];
            let ties = order[first..].iter().take_while(|at| values[**at] == value);
            let end = first + ties.count();
            let rank = (first + end - 1) as f64 / 2.0;
            order[first..end].iter().for_each(|at| ranks[*at] = rank);
            first = end;
        }
        ranks
    };
    let (ones, others) = (ranks(&|it| it.0), ranks(&|it| it.1));
    let mean = (drawn.len() as f64 - 1.0) / 2.0;
    let (mut both, mut one_2, mut other_2) = (0.0, 0.0, 0.0);
    for (one, other) in ones.iter().zip(&others) {
        both += (one - mean) * (other - mean);
        one_2 += (one - mean) * (one - mean);
        other_2 += (other - mean) * (other - mean);
    }
    both / (one_2 * other_2).sqrt()
}

/// Cohen's kappa (1960) of two yes or no.
fn kappa(drawn: &[&(bool, bool)]) -> f64 {
    let n = drawn.len() as f64;
    let part =
        |of: &dyn Fn(&(bool, bool)) -> bool| drawn.iter().filter(|it| of(it)).count() as f64 / n;
    let same = part(&|it| it.0 == it.1);
    let (one, other) = (part(&|it| it.0), part(&|it| it.1));
    let chance = one * other + (1.0 - one) * (1.0 - other);
    if chance >= 1.0 {
        // All say the same, and always.
        return 1.0;
    }
    (same - chance) / (1.0 - chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_with_ties_correlate_as_in_the_book() {
        let all = [(1.0, 10.0), (2.0, 9.0), (3.0, 8.0)];
        let all: Vec<&(f64, f64)> = all.iter().collect();
        assert!((spearman(&all) + 1.0).abs() < 1e-12);
        // Ranks 1 2.5 2.5 4 beside 1 2 3 4: 4.5 / sqrt(4.5 * 5).
        let all = [(1.0, 1.0), (2.0, 2.0), (2.0, 3.0), (9.0, 4.0)];
        let all: Vec<&(f64, f64)> = all.iter().collect();
        assert!((spearman(&all) - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn kappa_takes_off_what_chance_gives() {
        // 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.4.
        let mut all = vec![(true, true); 20];
        all.extend([(true, false); 5]);
        all.extend([(false, true); 10]);
        all.extend([(false, false); 15]);
        let all: Vec<&(bool, bool)> = all.iter().collect();
        assert!((kappa(&all) - 0.4).abs() < 1e-12);
        assert_eq!(kappa(&[&(true, true)]), 1.0);
    }

    #[test]
    fn a_change_below_one_has_no_sign_and_short_times_are_alike() {
        assert_eq!(
            [sign(0.9), sign(-0.9), sign(1.0), sign(-3.0)],
            [0, 0, 1, -1]
        );
        assert_eq!(apart(0.2, 1.9), 1.0);
        assert_eq!(apart(8.0, 2.0), 4.0);
    }
}
