use super::*;

/// Autoregressive, with the links that a test adds.
fn system(seed: u64, steps: usize, links: &[(usize, usize, usize, f64)], count: usize) -> Series {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut columns = vec![vec![0.0; steps]; count];
    for step in 0..steps {
        for to in 0..count {
            // Near enough to Gaussian.
            let noise: f64 = (0..6).map(|_| rng.f64() - 0.5).sum();
            let before = if step > 0 { columns[to][step - 1] } else { 0.0 };
            columns[to][step] = noise + 0.5 * before;
        }
        // Links within a step go from smaller to larger.
        for to in 0..count {
            for (from, _, lag, weight) in links.iter().filter(|link| link.1 == to) {
                if step >= *lag {
                    columns[to][step] += weight * columns[*from][step - lag];
                }
            }
        }
    }
    let names: Vec<String> = (0..count).map(|at| format!("v{at}")).collect();
    Series::new(&names, columns).unwrap()
}

fn found(series: &Series, settings: &Settings) -> Vec<(usize, usize, usize, Direction)> {
    let found = pcmci_plus(series, settings).unwrap();
    let links = found.links.iter().filter(|link| link.from != link.to);
    links
        .map(|link| (link.from, link.to, link.lag, link.direction))
        .collect()
}

#[test]
fn links_of_the_past_and_where_causes_meet_are_found() {
    let links = [(0, 1, 2, 0.6), (1, 3, 0, 0.7), (2, 3, 0, 0.7)];
    let series = system(1, 1000, &links, 4);
    let settings = Settings {
        lags: 3,
        alpha: 0.001,
        ..Settings::default()
    };
    for colliders in [Colliders::Majority, Colliders::Conservative] {
        let settings = Settings {
            colliders,
            ..settings.clone()
        };
        let known = Direction::Known;
        assert_eq!(
            found(&series, &settings),
            [(0, 1, 2, known), (1, 3, 0, known), (2, 3, 0, known)]
        );
    }
    assert_eq!(
        pcmci_plus(&series, &settings),
        pcmci_plus(&series, &settings)
    );
}

#[test]
fn missing_rows_change_little_and_links_stay() {
    let links = [(0, 1, 1, 0.7)];
    let whole = system(2, 800, &links, 3);
    let mut columns = whole.columns().to_vec();
    let mut rng = fastrand::Rng::with_seed(3);
    for column in &mut columns {
        column
            .iter_mut()
            .filter(|_| rng.f64() < 0.02)
            .for_each(|value| *value = f64::NAN);
    }
    let holes = Series::new(whole.names(), columns).unwrap();
    let settings = Settings {
        lags: 2,
        alpha: 0.001,
        ..Settings::default()
    };
    assert_eq!(found(&whole, &settings), [(0, 1, 1, Direction::Known)]);
    assert_eq!(found(&holes, &settings), [(0, 1, 1, Direction::Known)]);
}

#[test]
fn topology_has_the_last_word() {
    let series = system(
        1,
        1000,
        &[(0, 1, 1, 0.7), (1, 2, 1, 0.7), (0, 3, 2, 0.7)],
        4,
    );
    let settings = Settings {
        lags: 2,
        alpha: 0.001,
        ..Settings::default()
    };
    let found = pcmci_plus(&series, &settings).unwrap();
    let topology: Admg = "v0 -> v1, v2 -> v1".parse().unwrap();
    let advice: Vec<Advice> = found
        .beside(&topology)
        .iter()
        .map(|(_, advice)| *advice)
        .collect();
    assert_eq!(advice, [Advice::Known, Advice::Reversed, Advice::Unknown]);
    assert!(
        found.text().contains("v0 (1 ago) -> v1: +0."),
        "{}",
        found.text()
    );
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let series = system(1, 100, &[], 2);
    let said = |series: &Series, settings: &Settings| {
        pcmci_plus(series, settings).unwrap_err().to_string()
    };
    let usual = Settings::default();
    let no_lags = Settings {
        lags: 0,
        ..usual.clone()
    };
    assert_eq!(said(&series, &no_lags), "lags = 0: at least 1");
    let alpha = Settings {
        alpha: f64::NAN,
        ..usual.clone()
    };
    assert_eq!(said(&series, &alpha), "alpha = NaN: between 0 and 1");
    let far = Settings {
        lags: 36,
        ..usual.clone()
    };
    assert_eq!(
        said(&series, &far),
        "28 rows remain after the lags; a search needs 30 and more"
    );
    let few = Settings {
        tests_max: 5,
        ..usual.clone()
    };
    assert_eq!(said(&series, &few), "gave up after 5 tests");
    let huge = Settings {
        lags: usize::MAX,
        ..usual.clone()
    };
    assert!(said(&series, &huge).contains("are possible"));
    let flat = Series::new(
        &["a", "b"],
        vec![vec![1.0; 100], series.columns()[0].clone()],
    )
    .unwrap();
    assert_eq!(said(&flat, &usual), "a never changes; leave it out");
    assert!(pcmci_plus(&flat.varying(), &usual).is_err());
    let gone = vec![f64::NAN; 100];
    let gone = Series::new(&["a", "b"], vec![gone, series.columns()[0].clone()]).unwrap();
    assert!(said(&gone, &usual).starts_with("0 rows"));
}
