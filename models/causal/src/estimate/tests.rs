use super::*;
use crate::identify::identify;
use crate::truth::Model;

const CONFOUNDED: &str = "z -> x, z -> y, x -> y";

fn effect(graph: &Admg) -> Effect {
    let set = |name| graph.set([name]).unwrap();
    identify(graph, set("y"), set("x")).unwrap()
}

#[test]
fn the_effect_is_that_of_acting_and_not_of_seeing() {
    let graph: Admg = CONFOUNDED.parse().unwrap();
    let model = Model::random(&graph, &[2, 2, 3], &mut fastrand::Rng::with_seed(4)).unwrap();
    let (seen, acted) = (model.acted(&[]).unwrap(), model.acted(&[(1, 1)]).unwrap());
    let found = estimate(&graph, &effect(&graph), &seen, &[(1, 1)]).unwrap();
    for value in 0..3 {
        let truth = acted.probability(&[(2, value)]);
        let naive = seen.probability(&[(1, 1), (2, value)]) / seen.probability(&[(1, 1)]);
        assert!((found.probability(&[value]) - truth).abs() < 1e-12);
        assert!((naive - truth).abs() > 1e-3, "not confounded");
    }
}

#[test]
fn counts_come_close_to_the_truth() {
    let graph: Admg = CONFOUNDED.parse().unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    let row = |rng: &mut fastrand::Rng| {
        let z = usize::from(rng.f64() < 0.5);
        let x = usize::from(rng.f64() < 0.2 + 0.6 * z as f64);
        let y = usize::from(rng.f64() < 0.1 + 0.2 * x as f64 + 0.5 * z as f64);
        [z, x, y]
    };
    let rows: Vec<[usize; 3]> = (0..20_000).map(|_| row(&mut rng)).collect();
    let table = Table::count(&[2, 2, 2], &rows, 0.0).unwrap();
    let found = estimate(&graph, &effect(&graph), &table, &[(1, 1)]).unwrap();
    assert!((found.probability(&[1]) - 0.55).abs() < 0.02, "{found:?}");
}

#[test]
fn what_was_never_seen_is_named() {
    let graph: Admg = CONFOUNDED.parse().unwrap();
    let rows = [[0, 0, 0], [0, 1, 1], [1, 0, 1]];
    let table = Table::count(&[2, 2, 2], &rows, 0.0).unwrap();
    let asked = effect(&graph);
    let found = estimate(&graph, &asked, &table, &[(1, 1)]);
    assert_eq!(found, Err(EstimateError::NeverSeen("z = 1, x = 1".into())));
    assert!(estimate(&graph, &asked, &table, &[(1, 0)]).is_ok());
    let smoothed = Table::count(&[2, 2, 2], &rows, 0.5).unwrap();
    assert!(estimate(&graph, &asked, &smoothed, &[(1, 1)]).is_ok());
    // A stratum that does not exist at all is not needed.
    let table = Table::count(&[2, 2, 2], &rows[..2], 0.0).unwrap();
    assert_eq!(
        estimate(&graph, &asked, &table, &[(1, 1)]).unwrap().cells,
        [0.0, 1.0]
    );
}

#[test]
fn what_may_have_any_value_takes_one_that_was_seen() {
    let graph: Admg = "w -> z, z -> x, x -> y, w <-> x, w <-> y".parse().unwrap();
    let model = Model::random(&graph, &[2, 3, 2, 2], &mut fastrand::Rng::with_seed(8)).unwrap();
    let asked = effect(&graph);
    assert_eq!(asked.any, graph.set(["z"]).unwrap());
    let truth = model.acted(&[(2, 1)]).unwrap().probability(&[(3, 1)]);
    let found = estimate(&graph, &asked, &model.acted(&[]).unwrap(), &[(2, 1)]).unwrap();
    assert!((found.probability(&[1]) - truth).abs() < 1e-12);
}

#[test]
fn tables_and_settings_that_do_not_fit_are_refused() {
    let said = |found: Result<Table, EstimateError>| found.unwrap_err().to_string();
    assert!(said(Table::new(&[2], vec![0.5, 0.6])).contains("1.1"));
    assert!(said(Table::new(&[2], vec![f64::NAN, 1.0])).starts_with("not probabilities"));
    assert!(said(Table::new(&[2], vec![1.0])).starts_with("1 probabilities for 2"));
    assert!(said(Table::new(&[1 << 12, 1 << 12], vec![])).starts_with("more than"));
    assert!(said(Table::count(&[2, 2], &[[0, 2]], 0.0)).starts_with("row 0"));
    assert!(said(Table::count(&[2], &Vec::<[usize; 1]>::new(), 0.0)).contains("no rows"));
    let graph: Admg = CONFOUNDED.parse().unwrap();
    let even = Table::new(&[2, 2, 2], vec![0.125; 8]).unwrap();
    let asked = effect(&graph);
    let said = |setting: &[(usize, usize)]| {
        let found = estimate(&graph, &asked, &even, setting);
        found.unwrap_err().to_string()
    };
    assert_eq!(said(&[]), "one value each is needed for x");
    assert_eq!(said(&[(1, 2)]), "x = 2: it has 2 values, from 0");
    let small = Table::new(&[2], vec![0.5, 0.5]).unwrap();
    assert!(estimate(&graph, &asked, &small, &[(1, 1)]).is_err());
}
