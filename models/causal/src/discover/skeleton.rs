//! Which variables are linked at all: the past of each by itself (PC1), then links within a
//! step given that past (MCI).

use super::partial::{Node, Tested, Tests};
use super::{DiscoverError, Found, Graph, Mark, Settings};

/// What may cause each variable from the past, the strongest first.
pub(super) type Past = Vec<Vec<Node>>;

/// Tests each lagged cause given ever more of the strongest others.
pub(super) fn past(
    tests: &mut Tests,
    count: usize,
    settings: &Settings,
) -> Result<Past, DiscoverError> {
    let mut all = Vec::with_capacity(count);
    for to in 0..count {
        let nodes =
            (0..count).flat_map(|one| (1..=settings.lags).map(move |lag| Node::new(one, lag)));
        let mut causes: Vec<(Node, f64)> = nodes.map(|node| (node, f64::INFINITY)).collect();
        let mut size = 0;
        while size < causes.len() {
            let mut kept = Vec::with_capacity(causes.len());
            for (cause, weakest) in &causes {
                let others = causes.iter().filter(|(other, _)| other != cause);
                let known: Vec<Node> = others.take(size).map(|(other, _)| *other).collect();
                let tested = tests.test(*cause, Node::new(to, 0), &known)?;
                if tests.dependent(tested) {
                    kept.push((*cause, weakest.min(tested.value.abs())));
                }
            }
            kept.sort_by(|(_, one), (_, other)| other.total_cmp(one));
            causes = kept;
            size += 1;
        }
        all.push(causes.into_iter().map(|(cause, _)| cause).collect());
    }
    Ok(all)
}

/// The test of a link: given some of the same step, the past of its effect, and the past of
/// its cause.
pub(super) fn momentary(
    tests: &mut Tests,
    past: &Past,
    from: Node,
    to: usize,
    beside: &[usize],
    settings: &Settings,
) -> Result<Tested, DiscoverError> {
    let most = settings.past_max.unwrap_or(usize::MAX);
    let mut known: Vec<Node> = beside.iter().map(|one| Node::new(*one, 0)).collect();
    let of_effect = past[to].iter().take(most).copied();
    let of_cause = past[from.variable]
        .iter()
        .take(most)
        .map(|node| node.earlier(from.lag));
    for node in of_effect.chain(of_cause) {
        if node != from && !known.contains(&node) {
            known.push(node);
        }
    }
    tests.test(from, Node::new(to, 0), &known)
}

/// Tests what is left of the past and all links within a step, given ever more of the same
/// step.
pub(super) fn within(
    tests: &mut Tests,
    past: &Past,
    settings: &Settings,
) -> Result<Found, DiscoverError> {
    let count = past.len();
    let mut graph = Graph::new(count, settings.lags);
    for (to, causes) in past.iter().enumerate() {
        causes
            .iter()
            .for_each(|cause| graph.set(*cause, to, Mark::Along));
        (0..to).for_each(|from| graph.set(Node::new(from, 0), to, Mark::Open));
    }
    let untested = Tested { value: 0.0, p: 0.0 };
    let mut closest = vec![untested; graph.marks.len()];
    let mut weakest = vec![f64::INFINITY; graph.marks.len()];
    let most = settings.conditions_max.unwrap_or(count);
    for size in 0..=most {
        // As they are now: what is removed on the way still serves as condition.
        let mut beside: Vec<Vec<usize>> = Vec::with_capacity(count);
        for to in 0..count {
            let mut all: Vec<usize> = graph.beside(to).map(|(from, _)| from).collect();
            if size > 0 {
                let weight = |from: &usize| weakest[graph.place(Node::new(*from, 0), to)];
                all.sort_by(|one, other| weight(other).total_cmp(&weight(one)));
            }
            beside.push(all);
        }
        let mut left = false;
        for from in 0..count {
            for to in 0..count {
                for lag in 0..=settings.lags {
                    let from = Node::new(from, lag);
                    let place = graph.place(from, to);
                    let others: Vec<usize> = beside[to]
                        .iter()
                        .copied()
                        .filter(|one| lag > 0 || *one != from.variable)
                        .collect();
                    if graph.marks[place] == Mark::None || others.len() < size {
                        continue;
                    }
                    left = true;
                    let mut chosen = Combinations::new(others.len(), size);
                    while let Some(places) = chosen.next() {
                        let known: Vec<usize> = places.iter().map(|at| others[*at]).collect();
                        let tested = momentary(tests, past, from, to, &known, settings)?;
                        weakest[place] = weakest[place].min(tested.value.abs());
                        if tested.p >= closest[place].p {
                            closest[place] = tested;
                        }
                        if !tests.dependent(tested) {
                            graph.set(from, to, Mark::None);
                            break;
                        }
                    }
                }
            }
        }
        if !left {
            break;
        }
    }
    Ok(Found { graph, closest })
}

/// All choices of some of many, in lexicographic order.
struct Combinations {
    many: usize,
    now: Vec<usize>,
    begun: bool,
}

impl Combinations {
    fn new(many: usize, some: usize) -> Self {
        Self {
            many,
            now: (0..some).collect(),
            begun: false,
        }
    }

    fn next(&mut self) -> Option<&[usize]> {
        let some = self.now.len();
        if !self.begun {
            self.begun = true;
            return (some <= self.many).then_some(&self.now);
        }
        let place = (0..some)
            .rev()
            .find(|at| self.now[*at] < self.many - some + at)?;
        self.now[place] += 1;
        for at in place + 1..some {
            self.now[at] = self.now[at - 1] + 1;
        }
        Some(&self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_comes_once() {
        let all = |many, some| {
            let mut choices = Combinations::new(many, some);
            let mut found = Vec::new();
            while let Some(choice) = choices.next() {
                found.push(choice.to_vec());
            }
            found
        };
        assert_eq!(all(3, 2), [[0, 1], [0, 2], [1, 2]]);
        assert_eq!(all(2, 0), [[]; 1] as [[usize; 0]; 1]);
        assert!(all(1, 2).is_empty());
        assert_eq!(all(6, 3).len(), 20);
    }
}
