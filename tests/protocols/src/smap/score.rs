//! VUS-PR (Paparrizos et al. 2022) and the composite F1 (Garg et al. 2022).

/// Widths over which label edges are softened.
const WIDTHS: [usize; 6] = [0, 20, 40, 60, 80, 100];

/// Area under the precision-recall curve, labels softened by `sqrt(1 - k / L)` over `L / 2` rows
/// at both edges, averaged over the widths `L`. The positives that recall counts are the mean
/// of the hard and the soft labels, as in the source; recall ends at 1. Rows of equal score
/// are taken together.
pub(super) fn vus_pr(scores: &[f32], anomaly: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let hard = anomaly.iter().filter(|label| **label).count() as f64;
    let areas = WIDTHS.iter().map(|width| {
        let soft = soften(anomaly, *width);
        let positives = f64::midpoint(soft.iter().sum::<f64>(), hard);
        let (mut hits, mut flagged, mut recall, mut area) = (0.0, 0.0, 0.0, 0.0);
        for equal in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
            hits += equal.iter().map(|at| soft[*at]).sum::<f64>();
            flagged += equal.len() as f64;
            let next = (hits / positives).min(1.0);
            area += (next - recall) * hits / flagged;
            recall = next;
        }
        area
    });
    areas.sum::<f64>() / WIDTHS.len() as f64
}

fn soften(anomaly: &[bool], width: usize) -> Vec<f64> {
    let mut soft: Vec<f64> = anomaly
        .iter()
        .map(|label| f64::from(u8::from(*label)))
        .collect();
    for (start, end) in intervals(anomaly) {
        for k in 1..=width / 2 {
            let value = (1.0 - k as f64 / width as f64).sqrt();
            for at in [start.checked_sub(k), Some(end - 1 + k)]
                .into_iter()
                .flatten()
            {
                if let Some(soft) = soft.get_mut(at) {
                    *soft = soft.max(value);
                }
            }
        }
    }
    soft
}

/// Runs of `true`, the end not included.
fn intervals(flags: &[bool]) -> Vec<(usize, usize)> {
    let mut intervals = Vec::new();
    let mut at = 0;
    for run in flags.chunk_by(|a, b| a == b) {
        if run[0] {
            intervals.push((at, at + run.len()));
        }
        at += run.len();
    }
    intervals
}

/// What alarms found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    hits: usize,
    false_alarms: usize,
    misses: usize,
    found: usize,
    intervals: usize,
}

impl Found {
    pub(super) fn of(alarms: &[bool], anomaly: &[bool]) -> Self {
        let mut sum = Self::default();
        for pair in alarms.iter().zip(anomaly) {
            match pair {
                (true, true) => sum.hits += 1,
                (true, false) => sum.false_alarms += 1,
                (false, true) => sum.misses += 1,
                (false, false) => {}
            }
        }
        for (start, end) in intervals(anomaly) {
            sum.intervals += 1;
            sum.found += usize::from(alarms[start..end].contains(&true));
        }
        sum
    }

    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| Self {
            hits: sum.hits + one.hits,
            false_alarms: sum.false_alarms + one.false_alarms,
            misses: sum.misses + one.misses,
            found: sum.found + one.found,
            intervals: sum.intervals + one.intervals,
        })
    }

    /// 0 without alarms.
    pub(super) fn precision(&self) -> f64 {
        self.hits as f64 / (self.hits + self.false_alarms).max(1) as f64
    }

    /// Share of the intervals with an alarm.
    pub(super) fn recall(&self) -> f64 {
        self.found as f64 / self.intervals.max(1) as f64
    }

    pub(super) fn fc1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        2.0 * precision * recall / (precision + recall).max(f64::MIN_POSITIVE)
    }

    pub(super) fn f1(&self) -> f64 {
        let hits = 2.0 * self.hits as f64;
        hits / (hits + (self.false_alarms + self.misses) as f64).max(1.0)
    }

    pub(super) fn words(&self) -> String {
        format!(
            "{} of {} intervals found, {} rows alarmed inside and {} outside",
            self.found, self.intervals, self.hits, self.false_alarms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(from: usize, to: usize, n: usize) -> Vec<bool> {
        (0..n).map(|at| (from..to).contains(&at)).collect()
    }

    #[test]
    fn a_perfect_score_has_most_and_a_constant_one_the_share_of_anomalies() {
        let anomaly = labels(400, 500, 1000);
        let score = |f: fn(&bool) -> f32| anomaly.iter().map(f).collect::<Vec<f32>>();
        let perfect = vus_pr(&score(|label| f32::from(u8::from(*label))), &anomaly);
        let constant = vus_pr(&score(|_| 0.5), &anomaly);
        let wrong = vus_pr(&score(|label| -f32::from(u8::from(*label))), &anomaly);
        assert!(perfect > 0.8 && perfect <= 1.0, "{perfect}");
        assert!((0.1..0.16).contains(&constant), "{constant}");
        assert!(wrong < constant, "{wrong}");
    }

    #[test]
    fn edges_soften_to_both_sides_and_stop_at_the_ends() {
        let soft = soften(&labels(2, 4, 30), 20);
        assert_eq!(soft[2..4], [1.0, 1.0]);
        assert!((soft[4] - 0.95_f64.sqrt()).abs() < 1e-12);
        assert!((soft[13] - 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(soft[14], 0.0);
        assert!((soft[0] - 0.9_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn composite_f1_joins_rows_and_intervals() {
        let mut anomaly = labels(10, 20, 100);
        anomaly[50..60].fill(true);
        let found = Found::of(&labels(15, 25, 100), &anomaly);
        assert_eq!(
            (found.precision(), found.recall(), found.fc1()),
            (0.5, 0.5, 0.5)
        );
        assert!((found.f1() - 10.0 / 30.0).abs() < 1e-12);
        assert_eq!(Found::of(&[false; 100], &anomaly).fc1(), 0.0);
    }
}
