//! How well lines were grouped (Zhu et al., ICSE-SEIP 2019; Khan et al., ICSE 2022).

use std::collections::BTreeMap;

/// The score of one pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Lines whose group is exactly the lines of one true event.
    pub right: usize,
    /// F1 over groups.
    pub fga: f64,
    pub groups: usize,
    pub truths: usize,
}

/// Compares groups with the truth, line by line.
pub fn score<G: Ord>(groups: &[G], truth: &[String]) -> Score {
    let mut found: BTreeMap<&G, Vec<usize>> = BTreeMap::new();
    let mut sizes: BTreeMap<&String, usize> = BTreeMap::new();
    for (at, (group, event)) in groups.iter().zip(truth).enumerate() {
        found.entry(group).or_default().push(at);
        *sizes.entry(event).or_default() += 1;
    }
    let exact = found.values().filter(|lines| {
        let mut events = lines.iter().filter_map(|at| truth.get(*at));
        let first = events.next();
        events.all(|event| Some(event) == first)
            && first.and_then(|event| sizes.get(event)) == Some(&lines.len())
    });
    let exact: Vec<usize> = exact.map(Vec::len).collect();
    let total = (found.len() + sizes.len()) as f64;
    Score {
        right: exact.iter().sum(),
        fga: if total > 0.0 {
            2.0 * exact.len() as f64 / total
        } else {
            0.0
        },
        groups: found.len(),
        truths: sizes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_only_if_it_is_exactly_an_event() {
        let truth = ["a", "a", "b", "b", "c"].map(str::to_owned);
        let right = score(&[1, 1, 2, 2, 3], &truth);
        assert_eq!((right.right, right.fga, right.groups), (5, 1.0, 3));
        let split = score(&[1, 1, 2, 4, 3], &truth);
        assert_eq!((split.right, split.groups), (3, 4));
        assert!((split.fga - 2.0 * 2.0 / 7.0).abs() < 1e-12);
        let merged = score(&[1, 1, 2, 2, 2], &truth);
        assert_eq!((merged.right, merged.groups), (2, 2));
        assert_eq!(score::<u8>(&[], &[]).right, 0);
    }
}
