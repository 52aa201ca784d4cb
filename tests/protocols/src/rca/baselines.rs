//! What others do, in short. All of them know the graph, the alarmed metric and the proxies.

use super::Case;

/// Ranks of nodes, best first; none if nothing was found.
pub(crate) type Ranked = Vec<usize>;

/// Deviations from which on a node is anomalous.
const ANOMALOUS: f64 = 5.0;

/// The probability of starting over at the alarmed node.
const RESTART: f64 = 0.15;

/// Name in ids and in words, and how it ranks.
pub(crate) type Baseline = (&'static str, &'static str, fn(&Case) -> Ranked);

pub(crate) const ALL: [Baseline; 4] = [
    ("robust_z", "robust z", robust_z),
    ("traversal", "traversal", traversal),
    ("walk", "random walk with restart", walk),
    ("circa", "CIRCA-style", circa),
];

fn median(values: impl Iterator<Item = f32>) -> Option<f64> {
    let mut all: Vec<f64> = values
        .filter(|one| one.is_finite())
        .map(f64::from)
        .collect();
    all.sort_unstable_by(f64::total_cmp);
    let last = all.len().checked_sub(1)?;
    Some((all[last / 2] + all[last.div_ceil(2)]) / 2.0)
}

/// How far the fault is from the reference, by median and MAD; the largest of its rows.
fn deviation(values: &[f32], alarm: usize) -> f64 {
    let (before, after) = values.split_at(alarm);
    let Some(middle) = median(before.iter().copied()) else {
        return 0.0;
    };
    #[allow(clippy::cast_possible_truncation)]
    let spread = median(before.iter().map(|one| (one - middle as f32).abs())).unwrap_or(0.0);
    // A tenth of a percent: availability often has no spread at all.
    let sigma = (1.4826 * spread).max(0.001 * middle.abs()).max(0.001);
    let steps = after.iter().filter(|one| one.is_finite());
    steps
        .map(|one| (f64::from(*one) - middle).abs() / sigma)
        .fold(0.0, f64::max)
}

fn deviations(case: &Case) -> Vec<f64> {
    let nodes = 0..case.names.len();
    nodes
        .map(|node| deviation(case.values(node), case.alarm))
        .collect()
}

fn ranked(case: &Case, scores: &[f64]) -> Ranked {
    let nodes = 0..case.names.len();
    let mut all: Vec<usize> = nodes
        .filter(|node| !case.proxy[*node] && scores[*node] > 0.0)
        .collect();
    all.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    all
}

fn robust_z(case: &Case) -> Ranked {
    ranked(case, &deviations(case))
}

/// From the alarm along anomalous callees; who has none itself is a root.
fn traversal(case: &Case) -> Ranked {
    let scores = deviations(case);
    let anomalous = |node: usize| scores[node] >= ANOMALOUS;
    let mut roots = vec![0.0; scores.len()];
    let mut seen = vec![false; scores.len()];
    let mut open = vec![case.target];
    while let Some(node) = open.pop() {
        if std::mem::replace(&mut seen[node], true) || !anomalous(node) {
            continue;
        }
        let callees = case.calls[node].iter().copied();
        let ill: Vec<usize> = callees.filter(|callee| anomalous(*callee)).collect();
        if ill.is_empty() {
            roots[node] = scores[node];
        }
        open.extend(ill);
    }
    ranked(case, &roots)
}

/// A walk from the alarm towards anomalous callees (as in MicroRCA, Wu et al. 2020).
fn walk(case: &Case) -> Ranked {
    let weights: Vec<f64> = deviations(case).iter().map(|one| one.ln_1p()).collect();
    let mut at = vec![0.0; weights.len()];
    at[case.target] = 1.0;
    for _ in 0..100 {
        let mut next = vec![0.0; at.len()];
        next[case.target] = RESTART;
        for (node, share) in at.iter().enumerate() {
            // To callees, or to stay.
            let steps = || case.calls[node].iter().copied().chain([node]);
            let all: f64 = steps().map(|step| weights[step]).sum();
            if all <= 0.0 {
                next[case.target] += (1.0 - RESTART) * share;
                continue;
            }
            for step in steps() {
                next[step] += (1.0 - RESTART) * share * weights[step] / all;
            }
        }
        at = next;
    }
    ranked(case, &at)
}

/// The residual of a linear regression on the callees, as robust z; who has an anomalous caller
/// is helped (Li et al. 2022, descendant adjustment).
fn circa(case: &Case) -> Ranked {
    let nodes = case.names.len();
    let own: Vec<f64> = (0..nodes)
        .map(|node| {
            let mine = case.values(node);
            let callees = case.calls[node].iter().copied();
            let known = callees.filter(|of| {
                let seen = case.values(*of)[..case.alarm].iter();
                2 * seen.filter(|one| one.is_finite()).count() > case.alarm
            });
            let callees: Vec<&[f32]> = known.map(|of| case.values(of)).collect();
            deviation(&residual(mine, &callees, case.alarm), case.alarm)
        })
        .collect();
    let mut scores = own.clone();
    for node in 0..nodes {
        let callers = (0..nodes).filter(|caller| case.calls[*caller].contains(&node));
        if own[node] >= 3.0 {
            scores[node] += callers.map(|caller| own[caller]).fold(0.0, f64::max);
        }
    }
    ranked(case, &scores)
}

/// What of `mine` a regression on `others`, learnt before the alarm, leaves over.
#[allow(clippy::cast_possible_truncation)] // back to single precision
fn residual(mine: &[f32], others: &[&[f32]], alarm: usize) -> Vec<f32> {
    let means: Vec<f64> = others
        .iter()
        .map(|one| median(one[..alarm].iter().copied()).unwrap_or(0.0))
        .collect();
    let row = |at: usize| -> Vec<f64> {
        let values = others.iter().zip(&means).map(|(one, mean)| {
            let value = f64::from(one[at]);
            if value.is_finite() { value - mean } else { 0.0 }
        });
        std::iter::once(1.0).chain(values).collect()
    };
    let size = others.len() + 1;
    let mut matrix = vec![vec![0.0; size + 1]; size];
    for (at, value) in mine.iter().enumerate().take(alarm) {
        if !value.is_finite() {
            continue;
        }
        let row = row(at);
        for (line, left) in matrix.iter_mut().zip(&row) {
            for (cell, right) in line.iter_mut().zip(&row) {
                *cell += left * right;
            }
            line[size] += left * f64::from(*value);
        }
    }
    let weights = solve(matrix);
    mine.iter()
        .enumerate()
        .map(|(at, value)| {
            let told: f64 = row(at).iter().zip(&weights).map(|(x, w)| x * w).sum();
            (f64::from(*value) - told) as f32
        })
        .collect()
}

/// Gauss-Jordan with a little ridge; the last column is the right side.
fn solve(mut matrix: Vec<Vec<f64>>) -> Vec<f64> {
    let size = matrix.len();
    for at in 0..size {
        matrix[at][at] += 1e-6;
    }
    for at in 0..size {
        let pivot = (at..size).max_by(|a, b| matrix[*a][at].abs().total_cmp(&matrix[*b][at].abs()));
        matrix.swap(at, pivot.unwrap_or(at));
        let lead = matrix[at].clone();
        for (line, cells) in matrix.iter_mut().enumerate() {
            let factor = cells[at] / lead[at];
            if line != at && factor != 0.0 {
                for (cell, lead) in cells.iter_mut().zip(&lead) {
                    *cell -= factor * lead;
                }
            }
        }
    }
    (0..size)
        .map(|at| matrix[at][size] / matrix[at][at])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regression_explains_what_follows_its_callee() {
        let callee: Vec<f32> = (0..40_u8).map(|at| f32::from(at % 7)).collect();
        let caller: Vec<f32> = callee.iter().map(|one| 3.0 + 2.0 * one).collect();
        let rest = residual(&caller, &[&callee], 30);
        assert!(rest.iter().all(|one| one.abs() < 1e-3), "{rest:?}");
    }
}
