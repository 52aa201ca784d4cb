use super::*;

/// A queue that load fills and a restart empties: the same noise with and without.
struct Twin {
    graph: Admg,
    lagged: Vec<Lagged>,
    settings: Settings,
}

const LOAD: usize = 0;
const RESTART: usize = 1;
const QUEUE: usize = 2;

impl Twin {
    fn new() -> Self {
        let graph: Admg = "load, restart, load -> queue, restart -> queue"
            .parse()
            .unwrap();
        let lag = |from, to| Lagged { from, to, lag: 1 };
        let shapes = vec![(QUEUE, Shape::Switched { by: RESTART })];
        Self {
            graph,
            lagged: vec![lag(LOAD, LOAD), lag(QUEUE, QUEUE)],
            settings: Settings {
                shapes,
                ..Settings::default()
            },
        }
    }

    /// What happens with these restarts; `burst`: extra work at a step.
    fn world(
        seed: u64,
        steps: usize,
        burst: Option<usize>,
        restart: impl Fn(usize) -> bool,
    ) -> Series {
        let mut rng = Rng::with_seed(seed);
        let mut noise = move || (0..6).map(|_| rng.f64() - 0.5).sum::<f64>();
        let mut columns = vec![vec![0.0; steps]; 3];
        let (mut load, mut queue) = (1.0, 2.0);
        for step in 0..steps {
            load = 0.3 + 0.7 * load + 0.1 * noise();
            let own = 0.2 * noise() + if burst == Some(step) { 20.0 } else { 0.0 };
            let on = restart(step);
            queue = if on {
                0.5 + own
            } else {
                0.95 * queue + load + own
            };
            columns[LOAD][step] = load;
            columns[RESTART][step] = f64::from(u8::from(on));
            columns[QUEUE][step] = queue;
        }
        Series::new(&["load", "restart", "queue"], columns).unwrap()
    }

    fn fitted(&self) -> Scm {
        let history = Self::world(1, 300, None, |step| step % 40 == 7);
        Scm::fit(&self.graph, &self.lagged, &history, &self.settings).unwrap()
    }
}

#[test]
fn what_would_have_been_is_what_was_in_the_twin() {
    let scm = Twin::new().fitted();
    let (mut inside, mut all) = (0, 0);
    for seed in 10..30 {
        let acted = Twin::world(seed, 30, Some(5), |step| step == 10);
        let idle = Twin::world(seed, 30, Some(5), |_| false);
        let none = Action {
            variable: RESTART,
            from: 0,
            until: 30,
            value: 0.0,
        };
        let course = scm.replay(&acted, &[none], 0).unwrap();
        for step in 10..30 {
            let truth = idle.columns()[QUEUE][step];
            let said = course.at(QUEUE, step).unwrap();
            assert!(
                (said.value - truth).abs() < 1.5,
                "{seed} {step}: {said:?} {truth}"
            );
            inside += usize::from((said.low..=said.high).contains(&truth));
            all += 1;
        }
        // It would not have been well by itself, and was with the restart.
        assert_eq!(course.below(QUEUE, 15.0, 11).verdict, Verdict::No);
        let restart = Action {
            value: 1.0,
            from: 10,
            until: 10,
            ..none
        };
        let course = scm.replay(&idle, &[restart], 0).unwrap();
        assert_eq!(course.below(QUEUE, 15.0, 25).verdict, Verdict::Yes);
    }
    assert!(inside * 10 >= all * 8, "{inside} of {all}");
}

#[test]
fn without_an_action_it_is_what_was_observed() {
    let scm = Twin::new().fitted();
    let seen = Twin::world(3, 20, None, |_| false);
    let course = scm.replay(&seen, &[], 5).unwrap();
    assert_eq!(course.steps(), 25);
    for step in 0..20 {
        let said = course.at(QUEUE, step).unwrap();
        let truth = seen.columns()[QUEUE][step];
        assert!((said.low - truth).abs() < 1e-9 && (said.high - truth).abs() < 1e-9);
    }
    let ahead = course.at(QUEUE, 24).unwrap();
    assert!(ahead.high - ahead.low > 0.1, "{ahead:?}");
    assert!(
        course
            .text(QUEUE, 1e6)
            .ends_with("at step 24: below 1000000 (p = 1.00)")
    );
    assert_eq!(course.at(QUEUE, 25), None);
}

#[test]
fn what_was_not_measured_widens_the_interval() {
    let scm = Twin::new().fitted();
    let seen = Twin::world(3, 20, None, |_| false);
    let mut columns = seen.columns().to_vec();
    columns[LOAD][12..16].fill(f64::NAN);
    columns[QUEUE][12..16].fill(f64::NAN);
    let holes = Series::new(seen.names(), columns).unwrap();
    let course = scm.replay(&holes, &[], 0).unwrap();
    let width = |step| {
        course
            .at(QUEUE, step)
            .map(|one| one.high - one.low)
            .unwrap()
    };
    assert!(width(11) < 1e-9 && width(15) > 0.1 && width(17) < 1e-9);
}

#[test]
fn mechanisms_may_be_given_and_curves_fitted() {
    #[derive(Debug)]
    struct Wait;
    impl Mechanism for Wait {
        fn expected(&self, causes: &[f64]) -> f64 {
            1.0 / (1.0 - causes.first().copied().unwrap_or(0.0).min(0.99))
        }
    }
    let graph: Admg = "load -> wait".parse().unwrap();
    let mean = Linear {
        intercept: 0.5,
        weights: Vec::new(),
    };
    let noise = vec![vec![0.0, 0.1], vec![0.0, -0.1]];
    let scm = Scm::given(&graph, &[], vec![Arc::new(mean), Arc::new(Wait)], noise, 1).unwrap();
    let seen = Series::new(&["load", "wait"], vec![vec![0.9], vec![10.5]]).unwrap();
    let halved = Action {
        variable: 0,
        from: 0,
        until: 0,
        value: 0.5,
    };
    let said = scm.replay(&seen, &[halved], 0).unwrap().at(1, 0).unwrap();
    assert!((said.value - 2.5).abs() < 1e-9, "{said:?}");

    let mut rng = Rng::with_seed(4);
    let load: Vec<f64> = (0..500).map(|_| 0.95 * rng.f64()).collect();
    let wait = load
        .iter()
        .map(|load| Wait.expected(&[*load]) + 0.2 * (rng.f64() - 0.5));
    let history = Series::new(&["load", "wait"], vec![load.clone(), wait.collect()]).unwrap();
    let fitted = |shape| {
        let settings = Settings {
            shapes: vec![(1, shape)],
            ..Settings::default()
        };
        let scm = Scm::fit(&graph, &[], &history, &settings).unwrap();
        scm.replay(&seen, &[halved], 0)
            .unwrap()
            .at(1, 0)
            .unwrap()
            .value
    };
    assert!(
        (fitted(Shape::Monotone) - 2.5).abs() < 0.5,
        "{}",
        fitted(Shape::Monotone)
    );
    assert!((fitted(Shape::Linear) - 2.5).abs() > 1.0);
}

#[test]
fn what_cannot_be_fitted_or_played_is_refused() {
    let Twin {
        graph,
        lagged,
        settings,
    } = Twin::new();
    let history = Twin::world(1, 100, None, |step| step % 20 == 7);
    let fit = |graph: &Admg, lagged: &[Lagged], history: &Series, settings: &Settings| {
        Scm::fit(graph, lagged, history, settings)
            .unwrap_err()
            .to_string()
    };
    let tied: Admg = "a -> b, b -> c, a <-> c".parse().unwrap();
    assert_eq!(
        fit(&tied, &[], &history, &settings),
        "c shares a hidden cause with a, which it depends on"
    );
    let other: Admg = "load -> weather".parse().unwrap();
    let plain = Settings::default();
    assert_eq!(
        fit(&other, &[], &history, &plain),
        "the series has no column \"weather\""
    );
    let far = [Lagged {
        from: 0,
        to: 0,
        lag: 65,
    }];
    assert!(fit(&graph, &far, &history, &settings).starts_with("lags from 1 to 64"));
    let short = Twin::world(1, 4, None, |_| false);
    assert_eq!(fit(&graph, &lagged, &short, &settings), "cannot fit load");
    let never = Twin::world(1, 100, None, |_| false);
    assert_eq!(fit(&graph, &lagged, &never, &settings), "cannot fit queue");
    let scm = Scm::fit(&graph, &lagged, &history, &settings).unwrap();
    let far = Action {
        variable: 9,
        from: 0,
        until: 0,
        value: 0.0,
    };
    assert!(scm.replay(&history, &[far], 0).is_err());
    let endless = Action {
        variable: 1,
        value: f64::NAN,
        ..far
    };
    assert!(scm.replay(&history, &[endless], 0).is_err());
    assert_eq!(
        scm.replay(&history, &[], usize::MAX),
        Err(ScmError::TooLarge)
    );
}
