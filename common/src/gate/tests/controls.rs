//! How far people let a plan go.

use super::*;

fn window(why: &str, until: u64) -> Option<Window> {
    let why = why.into();
    let until = Micros(until);
    Some(Window { why, until })
}

#[test]
fn a_plan_goes_no_further_than_its_most_guarded_step() {
    let ladder = |web: Mode, restart: Option<Mode>, isolate: Option<Mode>| {
        facts(|one| {
            one.mode = web;
            let of = |name, mode: Option<Mode>| mode.map(|mode| (name, mode));
            one.modes = of("restart", restart)
                .into_iter()
                .chain(of("prune-data", isolate))
                .collect();
            one.grants.insert(Grant::Prune);
        })
    };
    let restart = "restart(web, grace=2s)";
    let both = "prune-data(web, to=50%) ; restart(web, grace=2s)";
    let recommended = "rule recommend-only: restart(web, grace=2s) is allowed by every other rule, \
                       and only recommended: homeostat-agent do 'restart(web, grace=2s)' runs it";
    let asked = "rule needs-approval: restart(web, grace=2s) is allowed by every other rule, and \
                 waits for a person to approve it";
    for (plan, facts, says) in [
        (restart, ladder(Mode::Recommend, None, None), recommended),
        (restart, ladder(Mode::Ask, None, None), asked),
        (restart, ladder(Mode::Observe, Some(Mode::Ask), None), asked),
        (
            restart,
            ladder(Mode::Observe, Some(Mode::Act), None),
            "4.69 ",
        ),
        (restart, ladder(Mode::Act, None, Some(Mode::Ask)), "4.69 "),
        (
            both,
            ladder(Mode::Act, None, Some(Mode::Ask)),
            "rule needs-approval: prune-data(web, to=50%) is",
        ),
        (
            both,
            ladder(Mode::Act, Some(Mode::Observe), Some(Mode::Ask)),
            "rule observe-only: restart of web is only observed; set restart = \"act\" in",
        ),
        (
            "probe(web, within=1s)",
            ladder(Mode::Observe, None, None),
            "0.00 ",
        ),
    ] {
        for purpose in [SURE, Purpose::Revive] {
            let said = answer(plan, purpose, &facts);
            assert!(said.starts_with(says), "{plan}: {said}");
        }
        let said = answer(plan, Purpose::Operate, &facts);
        assert!(said.contains("capacity-seconds ("), "{plan}: {said}");
    }
    // Every other rule comes first: what is asked for would run.
    let mut held = ladder(Mode::Ask, None, None);
    held.spawner = false;
    assert!(answer(restart, SURE, &held).starts_with("rule spawner-lost"));
}

#[test]
fn an_approval_is_for_one_plan_and_sets_nothing_aside_before() {
    let mut facts = facts(|web| web.mode = Mode::Ask);
    let mut budget = budget();
    let before = budget.clone();
    let plan: Plan = "restart(web, grace=2s)".parse().unwrap();
    assert!(verify(plan.clone(), SURE, &facts, &mut budget).is_err());
    assert_eq!(budget, before);
    facts.approved = Some(plan);
    assert!(answer("restart(web, grace=2s)", SURE, &facts).starts_with("4.69 "));
    let other = answer("restart(web, grace=3s)", SURE, &facts);
    assert!(other.starts_with("rule needs-approval"), "{other}");
    // It lifts no other rule.
    facts.stopped = Some("they flap".into());
    let stopped = answer("restart(web, grace=2s)", SURE, &facts);
    assert!(stopped.starts_with("rule stopped: healing is stopped on this node: they flap"));
}

#[test]
fn a_stop_and_maintenance_hold_back_the_healer_and_no_person() {
    let restart = "restart(web, grace=2s)";
    let mut stopped = facts(|web| (web.dead, web.answering) = (true, false));
    stopped.stopped = Some("look first".into());
    let own = facts(|web| web.maintenance = window("new disk", 61_000_000));
    let over = facts(|web| web.maintenance = window("new disk", 1_000_000));
    let mut whole = facts(|web| web.maintenance = window("new disk", 2_000_000));
    whole.maintenance = window("moving house", 31_000_000);
    for (facts, says) in [
        (&stopped, "rule stopped: "),
        (&own, "rule maintenance: web is in maintenance: new disk"),
        (&over, "4.69 "),
        (
            &whole,
            "rule maintenance: the node is in maintenance: moving house",
        ),
    ] {
        for purpose in [SURE, Purpose::Revive] {
            let said = answer(restart, purpose, facts);
            assert!(said.starts_with(says), "{said}");
            assert!(answer("probe(web, within=1s)", purpose, facts).starts_with("0.00 "));
        }
        assert!(answer(restart, Purpose::Operate, facts).contains("capacity-seconds ("));
    }
    assert!(answer("restart(worker, grace=2s)", SURE, &own).starts_with("4.6"));
    // Ends are told, so that nobody has to ask again and again.
    let rejected = verify(restart.parse().unwrap(), SURE, &own, &mut budget()).unwrap_err();
    assert_eq!(rejected.until, Some(Micros(61_000_000)));
}
