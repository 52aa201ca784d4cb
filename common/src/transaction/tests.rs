use super::*;
use proptest::prelude::*;
use std::string::ToString;

/// Runs a plan against a world where each step works or fails, and where
/// the program may die after any number of journal writes.
struct World {
    journal: Vec<Record>,
    /// Per step: how often it took effect minus how often it was undone.
    effect: Vec<i32>,
    trace: Vec<String>,
}

impl World {
    fn new(steps: usize) -> Self {
        Self {
            journal: Vec::new(),
            effect: vec![0; steps],
            trace: Vec::new(),
        }
    }

    /// Returns the ending, or `None` when it died on the way.
    fn run(
        &mut self,
        transaction: &mut Transaction,
        fails: &[bool],
        undo_fails: bool,
        mut writes_left: usize,
    ) -> Option<Ending> {
        for _ in 0..200 {
            for action in transaction.advance(Micros(0)) {
                self.trace.push(std::format!("{action:?}"));
                match action {
                    Action::Journal { record, wait } => {
                        if writes_left == 0 {
                            return None;
                        }
                        writes_left -= 1;
                        self.journal.push(record);
                        if wait {
                            transaction.durable();
                        }
                    }
                    Action::Run(step) | Action::Undo(step) => {
                        let undo = matches!(action, Action::Undo(_));
                        let fail = if undo {
                            undo_fails
                        } else {
                            fails[usize::from(step)]
                        };
                        let repeatable =
                            transaction.step(step).unwrap().reversal() != Reversal::Compensated;
                        if undo {
                            self.effect[usize::from(step)] = 0;
                        } else if !fail {
                            let effect = &mut self.effect[usize::from(step)];
                            assert!(repeatable || *effect == 0, "step {step} done twice");
                            *effect = 1;
                        }
                        let result = if fail { Err("no".to_string()) } else { Ok(()) };
                        if let Some(record) = transaction.report(step, result) {
                            if writes_left == 0 {
                                return None;
                            }
                            writes_left -= 1;
                            self.journal.push(record);
                        }
                    }
                    Action::End(ending) => return Some(ending),
                }
            }
        }
        panic!("never ends: {:#?}", self.trace);
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    prop::sample::select(vec![
        "restart(a, grace=1s)",
        "rollback-model(a, to=0011223344556677) ; restart(a, grace=1s)",
        "rollback-model(a, to=0011223344556677) | rollback-model(b, to=0011223344556677)",
        "(rollback-model(a, to=0011223344556677) ; restart(a, grace=1s)) | (restart(b, grace=1s) ; probe(b, within=1s))",
        "wait(1s) ; (rollback-model(a, to=0011223344556677) | restart(b, grace=1s)) ; restart(c, grace=1s) ; rollback-model(d, to=0011223344556677)",
    ])
    .prop_map(|text| text.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever fails, and wherever the program dies (twice): in the end all
    /// steps took effect, or no compensated step did, or it is flagged.
    #[test]
    fn no_plan_stays_halfway(
        plan in plans(),
        fails in prop::collection::vec(prop::bool::weighted(0.2), 8),
        undo_fails in prop::bool::weighted(0.1),
        deaths in prop::collection::vec(0usize..12, 0..3),
    ) {
        let limit = |_: &Primitive| Millis(1000);
        let steps: Vec<Primitive> = plan.steps().cloned().collect();
        let mut world = World::new(steps.len());
        let careful = Transaction::wants_care(&plan);
        let mut transaction = Transaction::new(plan.clone(), careful, limit);
        let mut ending = None;
        for writes in deaths.into_iter().chain([usize::MAX]) {
            ending = world.run(&mut transaction, &fails, undo_fails, writes);
            if ending.is_some() {
                break;
            }
            transaction = Transaction::resume(plan.clone(), &world.journal, limit);
        }
        match ending.unwrap() {
            Ending::Done => prop_assert!(world.effect.iter().all(|effect| *effect == 1)),
            Ending::Undone => {
                for (effect, step) in world.effect.iter().zip(&steps) {
                    prop_assert!(*effect == 0 || step.reversal() != Reversal::Compensated);
                }
            }
            Ending::Stuck => prop_assert!(undo_fails),
        }
        // Resuming what has ended does nothing more.
        let mut again = Transaction::resume(plan, &world.journal, limit);
        if matches!(world.journal.last(), Some(Record::Ended(_))) {
            let ended = matches!(again.advance(Micros(0))[..], [Action::End(_)]);
            prop_assert!(ended);
        }
    }
}

#[test]
fn a_step_past_its_deadline_fails_and_everything_is_undone_in_reverse() {
    let plan: Plan = "rollback-model(a, to=0011223344556677) ; rollback-model(b, to=0011223344556677) ; restart(b, grace=1s)"
        .parse()
        .unwrap();
    let mut transaction = Transaction::new(plan, false, |_| Millis(500));
    let mut undone = Vec::new();
    let mut now = Micros(0);
    let ending = loop {
        let mut ended = None;
        for action in transaction.advance(now) {
            match action {
                Action::Journal { wait, .. } if wait => transaction.durable(),
                Action::Journal { .. } => {}
                Action::Run(2) => now = now + Millis(500),
                Action::Run(step) => drop(transaction.report(step, Ok(()))),
                Action::Undo(step) => {
                    undone.push(step);
                    transaction.report(step, Ok(()));
                }
                Action::End(ending) => ended = Some(ending),
            }
        }
        if let Some(ending) = ended {
            break ending;
        }
    };
    assert_eq!((ending, undone), (Ending::Undone, vec![1, 0]));
    assert_eq!(transaction.failure(), Some((2, "not done within 500ms")));
}

#[test]
fn after_a_failure_the_rest_is_revised_and_survives_a_restart() {
    let plan: Plan = "isolate(r, a, drain=1s) ; restart(a, grace=1s) ; release(r, a)"
        .parse()
        .unwrap();
    let rest: Plan = "isolate(r, a, drain=1s) ; restart(a, grace=0ms) ; release(r, a)"
        .parse()
        .unwrap();
    let limit = |_: &Primitive| Millis(1000);
    let mut transaction = Transaction::new(plan.clone(), true, limit);
    let mut journal = Vec::new();
    let mut ran = Vec::new();
    let mut first = true;
    let mut go = |transaction: &mut Transaction, journal: &mut Vec<Record>| {
        for _ in 0..50 {
            if transaction.has_stumbled() && first {
                first = false;
                journal.push(transaction.revise(rest.clone(), limit).unwrap());
                return None;
            }
            for action in transaction.advance(Micros(0)) {
                match action {
                    Action::Journal { record, wait } => {
                        journal.push(record);
                        if wait {
                            transaction.durable();
                        }
                    }
                    Action::Run(step) => {
                        ran.push(transaction.step(step).unwrap().to_string());
                        let fails =
                            transaction.step(step).unwrap().to_string() == "restart(a, grace=1s)";
                        let result = if fails { Err("no".to_string()) } else { Ok(()) };
                        journal.extend(transaction.report(step, result));
                    }
                    Action::Undo(_) => panic!("nothing is to be undone"),
                    Action::End(ending) => return Some(ending),
                }
            }
        }
        panic!("never ends");
    };
    assert_eq!(go(&mut transaction, &mut journal), None);
    // The program dies right after the record of the revision.
    let mut transaction = Transaction::resume(plan.clone(), &journal, limit);
    assert_eq!(transaction.plan(), &rest);
    assert_eq!(go(&mut transaction, &mut journal), Some(Ending::Done));
    assert_eq!(
        ran,
        [
            "isolate(r, a, drain=1s)",
            "restart(a, grace=1s)",
            "restart(a, grace=0ms)",
            "release(r, a)"
        ]
    );
    let ended = Transaction::resume(plan, &journal, limit);
    assert!(ended.is_carried_out());
}

#[test]
fn a_plan_that_began_otherwise_takes_nobodys_place() {
    let plan: Plan = "isolate(r, a, drain=1s) ; restart(a, grace=1s)"
        .parse()
        .unwrap();
    let limit = |_: &Primitive| Millis(1000);
    let records = [Record::Intent(0), Record::Done(0), Record::Intent(1)];
    let mut transaction = Transaction::resume(plan, &records, limit);
    let step = |transaction: &mut Transaction, result: Result<(), String>| {
        for action in transaction.advance(Micros(0)) {
            if matches!(action, Action::Journal { wait: true, .. }) {
                transaction.durable();
            }
        }
        transaction.advance(Micros(0));
        transaction.report(1, result);
    };
    step(&mut transaction, Err("no".to_string()));
    assert!(transaction.has_stumbled());
    for other in [
        "restart(a, grace=0ms)",
        "isolate(r, a, drain=2s) ; restart(a, grace=0ms)",
        "isolate(r, a, drain=1s)",
        "isolate(r, a, drain=1s) ; restart(a, grace=1s)",
        "isolate(r, a, drain=1s) | restart(b, grace=0ms)",
    ] {
        let other: Plan = other.parse().unwrap();
        assert_eq!(transaction.revise(other.clone(), limit), None, "{other}");
    }
    let other = "isolate(r, a, drain=1s) ; restart(a, grace=0ms)"
        .parse()
        .unwrap();
    assert!(transaction.revise(other, limit).is_some());
}

#[test]
fn a_halted_plan_finishes_what_runs_and_takes_the_rest_back() {
    let plan: Plan = "rollback-model(a, to=0011223344556677) ; restart(a, grace=1s)"
        .parse()
        .unwrap();
    // Halted before it begins, while its first step runs, while its last one does.
    for (halt_at, done, ending) in [
        (None, vec![], Ending::Undone),
        (Some(0), vec![0], Ending::Undone),
        (Some(1), vec![0, 1], Ending::Done),
    ] {
        let mut transaction = Transaction::new(plan.clone(), true, |_| Millis(500));
        if halt_at.is_none() {
            transaction.halt();
        }
        let (mut ran, mut undone) = (Vec::new(), Vec::new());
        let ended = loop {
            let mut ended = None;
            for action in transaction.advance(Micros(0)) {
                match action {
                    Action::Journal { wait, .. } if wait => transaction.durable(),
                    Action::Journal { .. } => {}
                    Action::Run(step) => {
                        ran.push(step);
                        if halt_at == Some(step) {
                            transaction.halt();
                            let waits = transaction.advance(Micros(0));
                            assert_eq!(waits, [], "a step that runs is waited for");
                        }
                        transaction.report(step, Ok(()));
                    }
                    Action::Undo(step) => {
                        undone.push(step);
                        transaction.report(step, Ok(()));
                    }
                    Action::End(ending) => ended = Some(ending),
                }
            }
            if let Some(ended) = ended {
                break ended;
            }
        };
        assert_eq!((ran, ended), (done, ending), "{halt_at:?}");
        let back = halt_at == Some(0);
        assert_eq!(undone, if back { vec![0] } else { vec![] }, "{halt_at:?}");
    }
}
