use super::*;
use crate::policy::Baseline;

fn run(incident: &str, policy: Baseline, seed: u64, rules: Rules) -> (Outcome, Trace) {
    let topology = Arc::new(Topology::reference());
    let incident = match incident {
        "" => Incident::none(),
        name => Incident::named(name).unwrap(),
    };
    let mut episode = Episode::new(&topology, &incident, seed, rules).unwrap();
    let outcome = episode.run(&mut policy.healer(seed));
    (outcome, episode.trace().clone())
}

#[test]
fn where_nothing_goes_wrong_nobody_does_anything() {
    for policy in Baseline::ALL {
        let (outcome, trace) = run("", *policy, 3, Rules::default());
        assert!(!outcome.was_incident && outcome.recovered && !outcome.breached);
        assert_eq!(outcome.seconds, 0.0);
        if *policy != Baseline::Tolerance {
            assert_eq!(outcome.orders, 0, "{policy:?}\n{trace}");
        }
    }
}

#[test]
fn a_hang_is_not_recovered_by_nothing_and_is_by_a_supervisor() {
    let (nothing, _) = run("hang-postprocess", Baseline::NoOp, 5, Rules::default());
    let (healed, trace) = run("hang-postprocess", Baseline::Supervisor, 5, Rules::default());
    assert_eq!(nothing.lost, nothing.lost_twin);
    assert_eq!(
        (nothing.harm, nothing.benefit, nothing.spent),
        (0.0, 0.0, 0.0)
    );
    assert!(healed.resolved(), "{trace}");
    assert!(healed.spent >= STEP_TOLL);
    assert_eq!(nothing.roots_left, 1);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let one = run("deadlock", Baseline::Expert, 11, Rules::default());
    assert_eq!(one, run("deadlock", Baseline::Expert, 11, Rules::default()));
    assert_ne!(one, run("deadlock", Baseline::Expert, 12, Rules::default()));
}

#[test]
fn a_budget_is_kept() {
    let rules = Rules {
        budget: Some(0.0),
        ..Rules::default()
    };
    let (outcome, trace) = run("crash-infer", Baseline::Supervisor, 5, rules);
    assert_eq!((outcome.orders, outcome.spent), (0, 0.0));
    assert!(outcome.refused > 0);
    assert!(trace.to_string().contains("the budget is used up"));
}
