//! Extremely randomised trees (Geurts, Ernst and Wehenkel, Machine Learning 63, 2006).
//!
//! In: rows of features with a class each, and a seed. Out: the mean over all trees of the
//! shares of the classes in the leaf that a row falls into. Every tree sees all rows; chance
//! chooses features and thresholds. That beat bagged trees, boosted trees, nearest
//! neighbours and logistic regression on the training parts of the recordings that this was
//! developed on, and mixing in any of those gained nothing.
//!
//! It knows nothing of events, and is sure of itself far away from all it has seen: whether
//! a row is like the training rows at all is what [`crate::usual`] says.

use serde::{Deserialize, Serialize};

/// Trees of a forest. Twice as many change the third digit of nothing.
pub const TREES: usize = 200;

/// One of so many features is tried at a node, which is more than the square root of their
/// number that is usual: many features are sparse, and say nothing at most nodes.
pub(crate) const TRIED_OF: usize = 4;

/// Deepest tree: beyond it rows are so alike that the split would be of one against one.
pub(crate) const DEPTH_MAX: usize = 64;

/// Marks a leaf in the place of a feature.
const LEAF: u32 = u32::MAX;

/// A node. `low` is the child of rows at or below the threshold and `high` the other; both
/// come later in the tree's list than the node itself. In a leaf, `low` is the place of its
/// shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Node {
    feature: u32,
    threshold: f32,
    low: u32,
    high: u32,
}

/// A tree: its nodes from the root, and the shares of the classes in its leaves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Tree {
    nodes: Vec<Node>,
    shares: Vec<f32>,
}

/// What a [`Forest`] that was read from outside may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForestError {
    /// No trees, or more than are ever made.
    #[error("a forest of {0} trees; 1 to {TREES} are possible")]
    Trees(usize),
    /// A node whose children, feature or threshold cannot be.
    #[error("tree {tree} is broken at node {node}")]
    Node {
        /// Which tree.
        tree: usize,
        /// Which of its nodes.
        node: usize,
    },
    /// Shares that are none.
    #[error("tree {0} has leaves whose shares are no shares")]
    Shares(usize),
}

/// The trees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forest {
    classes: usize,
    trees: Vec<Tree>,
}

impl Forest {
    /// Grows trees from `rows` (all of the same length) of the classes `of`, which count
    /// from 0 and are below `classes`. Equal input and seed give equal trees.
    #[must_use]
    pub fn grow(rows: &[Vec<f32>], of: &[usize], classes: usize, seed: u64) -> Self {
        // Most runs of a recording are the same as others: one row stands for all of them.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let compare = |one: usize, other: usize| {
            let of = of[one].cmp(&of[other]);
            of.then_with(|| crate::usual::order(&rows[one], &rows[other]))
        };
        order.sort_by(|one, other| compare(*one, *other));
        let mut different: Vec<usize> = Vec::new();
        let mut weights: Vec<u32> = Vec::new();
        for row in order {
            match (different.last(), weights.last_mut()) {
                (Some(last), Some(weight)) if compare(*last, row).is_eq() => *weight += 1,
                _ => {
                    different.push(row);
                    weights.push(1);
                }
            }
        }
        let of: Vec<usize> = different.iter().map(|row| of[*row]).collect();
        // By feature, because a split looks at one feature of many rows.
        let features = rows.first().map_or(0, Vec::len);
        let columns: Vec<Vec<f32>> = (0..features)
            .map(|feature| different.iter().map(|row| rows[*row][feature]).collect())
            .collect();
        let trees = (0..TREES as u64)
            .map(|tree| {
                let mut grower = Grower {
                    columns: &columns,
                    of: &of,
                    weights: &weights,
                    classes,
                    rng: fastrand::Rng::with_seed(seed ^ tree.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                    order: (0..features).collect(),
                    tree: Tree::default(),
                };
                let mut all: Vec<usize> = (0..different.len()).collect();
                grower.grow(&mut all, features, 0);
                grower.tree
            })
            .collect();
        Self { classes, trees }
    }

    /// The mean share of each class; adds up to 1.
    #[must_use]
    pub fn shares(&self, row: &[f32]) -> Vec<f32> {
        let mut sum = vec![0.0; self.classes];
        for tree in &self.trees {
            let mut at = 0;
            loop {
                let node = tree.nodes[at];
                if node.feature == LEAF {
                    let shares = &tree.shares[node.low as usize..];
                    for (sum, share) in sum.iter_mut().zip(shares) {
                        *sum += share;
                    }
                    break;
                }
                at = if row[node.feature as usize] <= node.threshold {
                    node.low
                } else {
                    node.high
                } as usize;
            }
        }
        let count = self.trees.len() as f32;
        sum.iter_mut().for_each(|sum| *sum /= count);
        sum
    }

    /// How much each feature moved the share of `class` on the way of `row` through the
    /// trees (Saabas 2014): the difference that the split on that feature made, where a
    /// node's own share is the mean of its leaves.
    #[must_use]
    pub fn spoke(&self, row: &[f32], class: usize, features: usize) -> Vec<f32> {
        let mut moved = vec![0.0; features];
        for tree in &self.trees {
            let means = self.means(tree, class);
            let mut at = 0;
            while tree.nodes[at].feature != LEAF {
                let node = tree.nodes[at];
                let feature = node.feature as usize;
                let next = if row[feature] <= node.threshold {
                    node.low
                } else {
                    node.high
                } as usize;
                moved[feature] += (means[next] - means[at]) / self.trees.len() as f32;
                at = next;
            }
        }
        moved
    }

    /// The share of `class` at every node, as the mean of its two children.
    fn means(&self, tree: &Tree, class: usize) -> Vec<f32> {
        let mut means = vec![0.0; tree.nodes.len()];
        for (at, node) in tree.nodes.iter().enumerate().rev() {
            means[at] = if node.feature == LEAF {
                tree.shares[node.low as usize + class]
            } else {
                (means[node.low as usize] + means[node.high as usize]) / 2.0
            };
        }
        means
    }

    /// Whether every path through it ends, within bounds: after this, no row of `features`
    /// finite numbers can make it fail.
    ///
    /// # Errors
    /// [`ForestError`] says what is broken.
    pub fn check(&self, features: usize, classes: usize) -> Result<(), ForestError> {
        if self.trees.is_empty() || self.trees.len() > TREES || self.classes != classes {
            return Err(ForestError::Trees(self.trees.len()));
        }
        for (tree, own) in self.trees.iter().enumerate() {
            let count = own.nodes.len();
            if count == 0 {
                return Err(ForestError::Node { tree, node: 0 });
            }
            for (node, one) in own.nodes.iter().enumerate() {
                let (low, high) = (one.low as usize, one.high as usize);
                let sound = if one.feature == LEAF {
                    low.saturating_add(classes) <= own.shares.len()
                } else {
                    (one.feature as usize) < features
                        && one.threshold.is_finite()
                        && (node + 1..count).contains(&low)
                        && (node + 1..count).contains(&high)
                };
                if !sound {
                    return Err(ForestError::Node { tree, node });
                }
            }
            if !own.shares.iter().all(|share| (0.0..=1.0).contains(share)) {
                return Err(ForestError::Shares(tree));
            }
        }
        Ok(())
    }
}

struct Grower<'a> {
    columns: &'a [Vec<f32>],
    of: &'a [usize],
    /// Runs that each row stands for.
    weights: &'a [u32],
    classes: usize,
    rng: fastrand::Rng,
    /// The features; those that may vary within the present node come first.
    order: Vec<usize>,
    tree: Tree,
}

impl Grower<'_> {
    /// Adds the node of these rows and all below it; answers its place. Only the first
    /// `varying` features may vary here.
    #[allow(clippy::cast_possible_truncation)] // a tree has fewer nodes than twice its rows
    fn grow(&mut self, rows: &mut [usize], mut varying: usize, depth: usize) -> u32 {
        let place = self.tree.nodes.len();
        let mut counts = vec![0_u32; self.classes];
        for &row in rows.iter() {
            counts[self.of[row]] += self.weights[row];
        }
        let pure = counts.iter().filter(|count| **count > 0).count() < 2;
        let split = if pure || depth >= DEPTH_MAX {
            None
        } else {
            self.split(rows, &counts, &mut varying)
        };
        let Some((feature, threshold)) = split else {
            let low = self.tree.shares.len() as u32;
            let total = counts.iter().sum::<u32>().max(1) as f32;
            let shares = counts.iter().map(|count| *count as f32 / total);
            self.tree.shares.extend(shares);
            self.tree.nodes.push(Node {
                feature: LEAF,
                threshold: 0.0,
                low,
                high: 0,
            });
            return place as u32;
        };
        self.tree.nodes.push(Node {
            feature: feature as u32,
            threshold,
            low: 0,
            high: 0,
        });
        let column = &self.columns[feature];
        let mut border = 0;
        for at in 0..rows.len() {
            if column[rows[at]] <= threshold {
                rows.swap(border, at);
                border += 1;
            }
        }
        let (below, above) = rows.split_at_mut(border);
        let low = self.grow(below, varying, depth + 1);
        let high = self.grow(above, varying, depth + 1);
        let node = &mut self.tree.nodes[place];
        (node.low, node.high) = (low, high);
        place as u32
    }

    /// The best of the tried splits by Gini impurity; `None` if all features are constant.
    /// Those that it finds to be constant leave the first `varying`.
    fn split(
        &mut self,
        rows: &[usize],
        counts: &[u32],
        varying: &mut usize,
    ) -> Option<(usize, f32)> {
        let wanted = (self.columns.len() / TRIED_OF).max(1);
        let (mut tried, mut best) = (0, None);
        let mut low_counts = vec![0_u32; self.classes];
        let of = rows.iter().map(|row| (self.of[*row], self.weights[*row]));
        let classes: Vec<(usize, u32)> = of.collect();
        let mut values: Vec<f32> = Vec::with_capacity(rows.len());
        while tried < wanted.min(*varying) {
            let chosen = self.rng.usize(tried..*varying);
            let feature = self.order[chosen];
            let column = &self.columns[feature];
            let (mut low, mut high) = (f32::MAX, f32::MIN);
            values.clear();
            values.extend(rows.iter().map(|row| {
                let value = column[*row];
                low = if value < low { value } else { low };
                high = if value > high { value } else { high };
                value
            }));
            if low >= high {
                *varying -= 1;
                self.order.swap(chosen, *varying);
                continue;
            }
            self.order.swap(chosen, tried);
            tried += 1;
            // Below `high`, so that both sides keep a row.
            let drawn = low + self.rng.f32() * (high - low);
            let threshold = if drawn < high { drawn } else { low };
            low_counts.fill(0);
            for (value, (class, weight)) in values.iter().zip(&classes) {
                low_counts[*class] += weight * u32::from(*value <= threshold);
            }
            let purity = purity(&low_counts, counts);
            if best.is_none_or(|(best, _, _)| purity > best) {
                best = Some((purity, feature, threshold));
            }
        }
        best.map(|(_, feature, threshold)| (feature, threshold))
    }
}

/// Grows as the Gini impurity of the two sides, weighted by their rows, falls.
fn purity(low: &[u32], all: &[u32]) -> f64 {
    let (mut below, mut above) = ((0.0, 0.0), (0.0, 0.0));
    for (low, all) in low.iter().zip(all) {
        let (one, other) = (f64::from(*low), f64::from(all - low));
        below = (below.0 + one, below.1 + one * one);
        above = (above.0 + other, above.1 + other * other);
    }
    let side = |(count, squares): (f64, f64)| if count > 0.0 { squares / count } else { 0.0 };
    side(below) + side(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes apart in the first of three features.
    fn sample(seed: u64) -> (Vec<Vec<f32>>, Vec<usize>) {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..60)
            .map(|at| {
                let class = at % 2;
                let row = vec![class as f32 * 2.0 + rng.f32(), rng.f32(), 1.0];
                (row, class)
            })
            .unzip()
    }

    #[test]
    fn it_learns_what_tells_classes_apart_and_says_which_feature_did() {
        let (rows, of) = sample(1);
        let forest = Forest::grow(&rows, &of, 2, 7);
        assert_eq!(forest.check(3, 2), Ok(()));
        let (others, truth) = sample(2);
        for (row, class) in others.iter().zip(truth) {
            let shares = forest.shares(row);
            assert!(shares[class] > 0.5, "{shares:?}");
            assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            let spoke = forest.spoke(row, class, 3);
            assert!(spoke[0] > spoke[1] && spoke[2] == 0.0, "{spoke:?}");
        }
        assert_eq!(forest, Forest::grow(&rows, &of, 2, 7));
        assert_ne!(forest, Forest::grow(&rows, &of, 2, 8));
    }

    #[test]
    fn rows_that_cannot_be_told_apart_share_a_leaf() {
        let forest = Forest::grow(&vec![vec![1.0]; 4], &[0, 1, 0, 0], 2, 1);
        assert_eq!(forest.shares(&[5.0]), [0.75, 0.25]);
    }

    #[test]
    fn a_broken_forest_is_told_from_a_sound_one() {
        let (rows, of) = sample(1);
        let sound = Forest::grow(&rows, &of, 2, 7);
        let broken = |change: fn(&mut Node)| {
            let mut forest = sound.clone();
            change(&mut forest.trees[3].nodes[0]);
            forest.check(3, 2)
        };
        let found = Err(ForestError::Node { tree: 3, node: 0 });
        assert_eq!(broken(|node| node.low = 0), found, "a circle");
        assert_eq!(broken(|node| node.high = 1 << 30), found);
        assert_eq!(broken(|node| node.feature = 3), found);
        assert_eq!(broken(|node| node.threshold = f32::NAN), found);
        assert_eq!(broken(|node| node.feature = LEAF), Ok(()));
        let mut forest = sound.clone();
        forest.trees[1].shares[0] = 2.0;
        assert_eq!(forest.check(3, 2), Err(ForestError::Shares(1)));
        forest.trees.clear();
        assert_eq!(forest.check(3, 2), Err(ForestError::Trees(0)));
    }
}
