use super::*;
use crate::estimate::{estimate, evaluate};
use crate::truth::{Model, random_graph, random_question};

fn ask(text: &str) -> String {
    let graph: Admg = text.parse().unwrap();
    let set = |name| graph.set([name]).unwrap();
    match identify(&graph, set("y"), set("x")) {
        Ok(effect) => effect.text(&graph),
        Err(refusal) => refusal.to_string(),
    }
}

fn by_id(text: &str) -> String {
    let graph: Admg = text.parse().unwrap();
    let set = |name| graph.set([name]).unwrap();
    let effect = identify(&graph, set("y"), set("x")).unwrap();
    effect.expression.text(&graph)
}

#[test]
fn known_graphs_have_known_answers() {
    let back_door = "z -> x, z -> y, x -> y";
    assert_eq!(
        ask(back_door),
        "P(y | do(x)) = sum[z] P(y | z, x) P(z) (back-door given {z})"
    );
    let front_door = "x -> m, m -> y, x <-> y";
    assert_eq!(
        ask(front_door),
        "P(y | do(x)) = sum[m] P(m | x) sum[x'] P(y | x', m) P(x') (front-door through {m})"
    );
    assert_eq!(
        by_id(front_door),
        "sum[m] P(m | x) sum[x'] P(x') P(y | x', m)"
    );
    // Two causes meet in m, which is not adjusted for: that would open what is closed.
    let m = "a -> x, a -> m, b -> m, b -> y, x -> y";
    assert_eq!(
        ask(m),
        "P(y | do(x)) = P(y | x) (nothing to adjust for: no back-door is open)"
    );
    assert_eq!(ask("x <- y"), "P(y | do(x)) = P(y)");
    assert_eq!(
        ask("w -> z, z -> x, x -> y, w <-> x, w <-> y"),
        "P(y | do(x)) = [sum[w] P(w) P(x | w, z) P(y | w, z, x)] / [sum[w] P(w) P(x | w, z)], whatever z"
    );
    assert_eq!(
        ask("w -> x, w -> m, w -> y, x -> m, m -> y, x <-> y"),
        "P(y | do(x)) = sum[w, m] P(m | w, x) P(w) sum[x'] P(y | w, x', m) P(x' | w) (front-door through {m} given {w})"
    );
}

#[test]
fn what_does_not_follow_is_refused_with_the_reason() {
    assert_eq!(
        ask("x -> y, x <-> y"),
        "not identifiable: hidden common causes (x <-> y) tie {x} to {y}, so that acting cannot be told from coinciding"
    );
    for text in [
        "z -> x, x -> y, x <-> y",
        "x -> m, m -> y, x <-> m",
        "x -> m, m -> y, x <-> y, m <-> y",
        "x -> z, z -> y, x <-> y, z <-> x",
    ] {
        assert!(
            ask(text).starts_with("not identifiable"),
            "{text}: {}",
            ask(text)
        );
    }
}

#[test]
fn questions_without_sense_are_refused() {
    let graph: Admg = "x -> y".parse().unwrap();
    let (x, y) = (Set::one(0), Set::one(1));
    assert_eq!(identify(&graph, Set::EMPTY, x), Err(Refusal::Nothing));
    assert_eq!(identify(&graph, x, x), Err(Refusal::Overlap("x".into())));
    assert_eq!(identify(&graph, y, Set::one(5)), Err(Refusal::Unknown(2)));
    let seen = identify(&graph, y, Set::EMPTY).unwrap();
    assert_eq!(seen.text(&graph), "P(y) = P(y)");
}

/// Every answer on random graphs is compared with acting on a random model, every refusal
/// with the definition of a hedge.
#[test]
fn answers_are_those_of_acting_and_refusals_are_proven() {
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut answered, mut refused, mut named) = (0, 0, 0);
    for round in 0..200 {
        let count = rng.usize(3..=6);
        let graph = random_graph(count, 0.5, 0.25, &mut rng);
        let (y, x) = random_question(&graph, 2, &mut rng).unwrap();
        let effect = match identify(&graph, y, x) {
            Ok(effect) => effect,
            Err(Refusal::NotIdentifiable { hedge, .. }) => {
                assert_eq!(hedge.flaw(&graph, y, x), None, "round {round}: {graph}");
                refused += 1;
                continue;
            }
            Err(other) => panic!("round {round}: {other}"),
        };
        answered += 1;
        named += usize::from(effect.criterion.is_some());
        let Ok(model) = Model::random(&graph, &vec![2; count], &mut rng) else {
            continue;
        };
        let setting: Vec<(usize, usize)> = x.iter().map(|one| (one, rng.usize(..2))).collect();
        let (seen, acted) = (model.acted(&[]).unwrap(), model.acted(&setting).unwrap());
        for expression in [&effect.expression, &effect.best()] {
            let found = evaluate(&graph, &effect, expression, &seen, &setting).unwrap();
            for place in 0..found.cells.len() {
                let values = y.iter().enumerate();
                let at: Vec<(usize, usize)> = values
                    .map(|(nth, one)| (one, place >> (y.len() - 1 - nth) & 1))
                    .collect();
                let truth = acted.probability(&at);
                let off = (found.cells[place] - truth).abs();
                assert!(off < 1e-9, "round {round}: {graph}: off by {off}");
            }
        }
    }
    assert!(
        answered > 100 && refused > 20 && named > 50,
        "{answered} {refused} {named}"
    );
}

#[test]
fn what_is_observed_besides_is_taken_in() {
    let mut rng = fastrand::Rng::with_seed(12);
    let mut answered = 0;
    for round in 0..200 {
        let count = rng.usize(3..=5);
        let graph = random_graph(count, 0.5, 0.2, &mut rng);
        let mut all: Vec<usize> = (0..count).collect();
        rng.shuffle(&mut all);
        let [y, x, z] = [all[0], all[1], all[2]];
        let sets = [y, x, z].map(Set::one);
        let Ok(effect) = identify_given(&graph, sets[0], sets[1], sets[2]) else {
            continue;
        };
        let Ok(model) = Model::random(&graph, &vec![2; count], &mut rng) else {
            continue;
        };
        answered += 1;
        let (seen, acted) = (model.acted(&[]).unwrap(), model.acted(&[(x, 1)]).unwrap());
        let found = estimate(&graph, &effect, &seen, &[(x, 1), (z, 0)]).unwrap();
        let truth = acted.probability(&[(y, 1), (z, 0)]) / acted.probability(&[(z, 0)]);
        let off = (found.probability(&[1]) - truth).abs();
        assert!(off < 1e-9, "round {round}: {graph}: off by {off}");
    }
    assert!(answered > 100, "{answered}");
}
