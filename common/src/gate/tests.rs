mod controls;
mod routes;

use super::*;
use crate::budget::{Policy, Shares};
use std::string::ToString;
use std::vec;
use std::vec::Vec;

fn healthy() -> ServiceFacts {
    ServiceFacts {
        mode: Mode::Act,
        modes: BTreeMap::new(),
        maintenance: None,
        protected: false,
        criticality: Criticality::Business,
        dead: false,
        answering: true,
        health: Ratio::ONE,
        at_rest: false,
        fresh: true,
        frozen: None,
        leased: None,
        held_until: None,
        quarantined_until: None,
        contested: Vec::new(),
        backoff_until: None,
        start_timeout: Millis::secs(10),
        models: Vec::new(),
        configs: Vec::new(),
        grants: BTreeSet::new(),
        blockable: vec!["192.168.0.0/16".parse().unwrap()],
        failure_share: Ratio::ZERO,
    }
}

fn contested(resource: Resource) -> Contested {
    Contested {
        resource,
        until: Micros(6_000_000),
        seen: "a sign".into(),
    }
}

fn facts(change: impl FnOnce(&mut ServiceFacts)) -> Facts {
    let mut web = healthy();
    change(&mut web);
    let services = [("web", web), ("worker", healthy()), ("infer", healthy())];
    let backend = |id: &str, weight| {
        let known = BackendFacts {
            weight,
            healthy: true,
        };
        (ServiceId::new(id).unwrap(), known)
    };
    let route = RouteFacts {
        backends: [backend("infer", 100), backend("edge-2", 50)].into(),
        rate_min: PerSecond::new(20).ok(),
        blockable: vec!["10.0.0.0/8".parse().unwrap()],
    };
    Facts {
        now: Micros(1_000_000),
        mode: Mode::Act,
        stopped: None,
        maintenance: None,
        approved: None,
        routes: [(RouteId::new("model").unwrap(), route)].into(),
        forwarder: true,
        uplinks: [InterfaceId::new("wwan0").unwrap()].into(),
        webhooks: [WebhookId::new("pager").unwrap()].into(),
        services: services
            .into_iter()
            .map(|(id, facts)| (ServiceId::new(id).unwrap(), facts))
            .collect(),
        spawner: true,
    }
}

fn facts_of_others(change: impl FnOnce(&mut ServiceFacts)) -> Facts {
    let mut facts = facts(|_| {});
    if let Some(infer) = facts.services.get_mut(&ServiceId::new("infer").unwrap()) {
        change(infer);
    }
    facts
}

fn budget() -> Budget {
    let shares = Shares::of([Criticality::Business; 3]);
    Budget::new(Policy::default(), shares, Micros(0))
}

const SURE: Purpose = Purpose::Heal(Ratio::ONE);

fn answer(plan: &str, purpose: Purpose, facts: &Facts) -> String {
    match verify(plan.parse().unwrap(), purpose, facts, &mut budget()) {
        Ok(verified) => verified.cost().to_string(),
        Err(rejection) => rejection.to_string(),
    }
}

#[test]
fn each_rule_refuses_what_it_is_for_and_says_so() {
    let restart = "restart(web, grace=2s)";
    let later = Some(Micros(6_000_000));
    let cases: Vec<(&str, Purpose, Facts, &str)> = std::vec![
        (
            restart,
            SURE,
            facts(|_| {}),
            "4.69 capacity-seconds (resource 0.02, disruption 4.67, risk 0.00)"
        ),
        (
            restart,
            SURE,
            facts(|web| web.answering = false),
            "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)"
        ),
        (
            "restart(db, grace=2s)",
            SURE,
            facts(|_| {}),
            "rule unknown-service: there is no service db here"
        ),
        (
            restart,
            SURE,
            facts(|web| web.mode = Mode::Observe),
            "rule observe-only: web is only observed; set mode = \"act\" to heal it"
        ),
        (
            restart,
            SURE,
            facts(|web| web.protected = true),
            "rule protected: web is protected"
        ),
        (
            restart,
            SURE,
            facts(|web| web.leased = Some(PlanId(3))),
            "rule under-repair: plan p3 works on web"
        ),
        (
            restart,
            SURE,
            facts(|web| web.held_until = later),
            "rule hold: web was healed a short while ago; held for 5s more"
        ),
        (
            restart,
            SURE,
            facts(|web| web.quarantined_until = later),
            "rule quarantine: web was healed too often; quarantined for 5s more"
        ),
        (
            restart,
            SURE,
            facts(|web| web.contested = Vec::from([contested(Resource::Process)])),
            "rule contested: somebody else changes web: a sign; left to them for 5s more"
        ),
        (
            restart,
            SURE,
            facts(|web| web.fresh = false),
            "rule stale-telemetry: nothing recent is known about web"
        ),
        (
            restart,
            SURE,
            facts(|web| web.frozen = Some("its metrics do not move".into())),
            "rule stale-telemetry: its metrics do not move"
        ),
        (
            restart,
            Purpose::Heal(Ratio::ZERO),
            facts(|_| {}),
            "rule low-confidence: confidence 0.000 is below 0.5: only looking, and what can be taken back, on one target"
        ),
        (
            "limit-cpu(web, to=50%) ; limit-cpu(infer, to=50%)",
            Purpose::Heal(Ratio::ZERO),
            facts(|_| {}),
            "rule low-confidence: confidence 0.000 is below 0.5: only looking, and what can be taken back, on one target",
        ),
        (
            "limit-cpu(web, to=50%)",
            Purpose::Heal(Ratio::ZERO),
            facts(|_| {}),
            "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)",
        ),
        (
            "probe(web, within=1s)",
            Purpose::Heal(Ratio::ZERO),
            facts(|_| {}),
            "0.00 capacity-seconds (resource 0.00, disruption 0.00, risk 0.00)"
        ),
        (
            "rollback-model(web, to=0000000000000000)",
            SURE,
            facts(|_| {}),
            "rule unverified-version: no whole copy of model 0000000000000000 is here"
        ),
        (
            "restart(web, grace=1s) | restart(worker, grace=1s)",
            SURE,
            facts(|_| {}),
            "rule blast-radius: 2 of 3 services would be away at once, 1 may"
        ),
        (
            "restart(worker, grace=1s)",
            SURE,
            facts(|web| web.leased = Some(PlanId(3))),
            "rule blast-radius: 2 of 3 services would be away at once, 1 may"
        ),
        (
            "restart(web, grace=10m)",
            SURE,
            facts(|_| {}),
            "rule budget: costs up to 204.02 capacity-seconds, and of beta 90.00 only 90.00 are left"
        ),
        (
            restart,
            Purpose::Revive,
            facts(|web| (web.dead, web.answering, web.backoff_until) = (true, false, later)),
            "rule back-off: web keeps dying; next start in 5s"
        ),
    ];
    for (plan, purpose, facts, says) in cases {
        assert_eq!(answer(plan, purpose, &facts), says, "{plan}");
    }
}

#[test]
fn what_is_frozen_costs_until_it_is_thawed_and_the_silent_cost_nothing() {
    let silent = facts(|web| (web.answering, web.failure_share) = (false, Ratio::ONE));
    let risky = facts(|web| web.failure_share = Ratio::ONE);
    for (plan, facts, says) in [
        // A third of: 2 s and its own undoing with the disk, 9; the wait 11 and
        // the thaw 12, each with the disk, 5.
        (
            "freeze(web) ; wait(10s) ; thaw(web)",
            &facts(|_| {}),
            "14.04 capacity-seconds (resource 0.04, disruption 14.00, risk 0.00)",
        ),
        (
            "freeze(web) ; limit-cpu(worker, to=50%) ; probe(web, within=1s) ; restart(web, grace=2s)",
            &facts(|_| {}),
            // 9, 7 twice, 6, 19.
            "20.73 capacity-seconds (resource 0.06, disruption 20.67, risk 0.00)",
        ),
        (
            "restart(web, grace=2s)",
            &silent,
            "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)",
        ),
        (
            "restart(web, grace=2s)",
            &risky,
            "8.02 capacity-seconds (resource 0.02, disruption 4.67, risk 3.33)",
        ),
    ] {
        assert_eq!(answer(plan, Purpose::Operate, facts), says, "{plan}");
    }
}

#[test]
fn the_most_critical_service_that_is_changed_pays() {
    let mut facts = facts(|web| web.criticality = Criticality::Mission);
    if let Some(infer) = facts.services.get_mut(&ServiceId::new("infer").unwrap()) {
        infer.criticality = Criticality::BestEffort;
    }
    let charged = |plan: &str| class(&plan.parse().unwrap(), &facts);
    for (plan, expected) in [
        ("restart(infer, grace=2s)", Criticality::BestEffort),
        (
            "restart(infer, grace=2s) ; restart(web, grace=2s)",
            Criticality::Mission,
        ),
        // To look at it changes nothing.
        (
            "restart(worker, grace=2s) ; probe(web, within=1s)",
            Criticality::Business,
        ),
        ("isolate(model, edge-2, drain=1s)", Criticality::BestEffort),
        (
            "reroute(model, from=edge-2, to=worker, share=50%)",
            Criticality::Business,
        ),
    ] {
        assert_eq!(charged(plan), expected, "{plan}");
    }
    let shares = Shares::of([Criticality::Mission, Criticality::BestEffort]);
    let mut budget = Budget::new(Policy::default(), shares, facts.now);
    let plan: Plan = "restart(infer, grace=2s)".parse().unwrap();
    let held = verify(plan, SURE, &facts, &mut budget).unwrap();
    assert_eq!(held.into_parts().2.class(), Criticality::BestEffort);
    assert_eq!(budget.standing(Criticality::Mission).reserved, 0.0);
    assert!(budget.standing(Criticality::BestEffort).reserved > 2.0);
}

#[test]
fn what_restrains_the_healer_does_not_restrain_a_person() {
    let later = Some(Micros(6_000_000));
    let restart = "restart(web, grace=2s)";
    let held = facts(|web| {
        (web.mode, web.held_until, web.quarantined_until, web.fresh) =
            (Mode::Observe, later, later, false);
    });
    assert!(answer(restart, Purpose::Operate, &held).starts_with("4.69 "));
    let kept = facts(|web| web.protected = true);
    assert_eq!(
        answer(restart, Purpose::Operate, &kept),
        "rule protected: web is protected"
    );
}

#[test]
fn health_is_weighed_and_a_plan_promises_what_it_mends() {
    let facts = facts(|web| {
        web.health = Ratio::ZERO;
        web.criticality = Criticality::Mission;
    });
    let plan: Plan = "isolate(model, infer, drain=1s) ; restart(web, grace=2s)"
        .parse()
        .unwrap();
    let shown = |ratio: Ratio| ratio.to_string();
    assert_eq!(shown(health(&facts)), "0.571");
    assert_eq!(shown(prospect(&plan, 0, &facts)), "0.571");
    assert_eq!(shown(prospect(&plan, 1, &facts)), "1.000");
    // Who is frozen serves nobody until it is let go on.
    let plan: Plan = "freeze(worker) ; thaw(worker)".parse().unwrap();
    assert_eq!(shown(prospect(&plan, 0, &facts)), "0.286");
    assert_eq!(shown(prospect(&plan, 1, &facts)), "0.571");
}

#[test]
fn a_dead_process_is_revived_whatever_holds_the_living() {
    let facts = facts(|web| {
        web.dead = true;
        web.answering = false;
        web.fresh = false;
        web.held_until = Some(Micros(u64::MAX));
        web.quarantined_until = Some(Micros(u64::MAX));
    });
    let plan = "restart(web, grace=0ms)";
    assert!(answer(plan, Purpose::Revive, &facts).contains("capacity-seconds (resource"));
    // The same words do not help a service that lives.
    assert!(answer("restart(worker, grace=0ms)", Purpose::Revive, &facts).starts_with("4.02 "));
    let lost = Facts {
        spawner: false,
        ..facts
    };
    assert_eq!(
        answer(plan, Purpose::Revive, &lost),
        "rule spawner-lost: the spawner cannot be reached"
    );
}

#[test]
fn a_refused_plan_costs_nothing() {
    let mut budget = budget();
    let before = budget.clone();
    let refused = verify(
        "restart(web, grace=2s)".parse().unwrap(),
        SURE,
        &facts(|web| web.protected = true),
        &mut budget,
    );
    assert!(refused.is_err());
    assert_eq!(budget, before);
}

#[test]
fn while_nothing_is_broken_nothing_is_broken_or_lost_by_a_plan() {
    let early = Purpose::Foresee(Ratio::ONE);
    let drained =
        "isolate(model, infer, drain=1s) ; restart(infer, grace=2s) ; release(model, infer)";
    let mut alone = facts(|_| {});
    for route in alone.routes.values_mut() {
        for (id, backend) in &mut route.backends {
            backend.healthy = id.as_str() != "edge-2";
        }
    }
    let prunes = |grants: &[Grant]| facts(|web| web.grants = grants.iter().copied().collect());
    let held = facts_of_others(|infer| infer.held_until = Some(Micros(6_000_000)));
    let gone = facts_of_others(|infer| infer.answering = false);
    for (plan, facts, says) in [
        (drained, &facts(|_| {}), "0.06 capacity-seconds"),
        // Somebody has to be left.
        (drained, &alone, "rule last-backend:"),
        (drained, &held, "rule hold:"),
        (
            "restart(infer, grace=2s)",
            &facts(|_| {}),
            "rule no-breach: nothing is broken yet, and restart(infer, grace=2s) would interrupt",
        ),
        // Nobody is interrupted who answers nobody.
        ("restart(infer, grace=2s)", &gone, "0.02 capacity-seconds"),
        (
            "release(model, infer) ; restart(infer, grace=2s)",
            &facts(|_| {}),
            "rule no-breach:",
        ),
        (
            "isolate(model, infer, drain=1s) ; release(model, infer) ; freeze(infer) ; thaw(infer)",
            &facts(|_| {}),
            "rule no-breach:",
        ),
        (
            "limit-cpu(web, to=50%) ; wait(1m) ; unlimit-cpu(web)",
            &facts(|_| {}),
            "0.04 capacity-seconds",
        ),
        (
            "prune-data(web, to=70%)",
            &prunes(&[Grant::Prune]),
            "rule no-breach: nothing is broken yet, and nothing brings back what \
             prune-data(web, to=70%) takes",
        ),
        (
            "prune-data(web, to=70%)",
            &prunes(&[Grant::Prune, Grant::Early]),
            "0.20 capacity-seconds",
        ),
        // That leave is for data, and for nothing else.
        (
            "flush-cache(web)",
            &prunes(&[Grant::FlushCache, Grant::Early]),
            "rule no-breach:",
        ),
    ] {
        let said = answer(plan, early, facts);
        assert!(said.starts_with(says), "{plan}: {said}");
    }
    let mut stopped = facts(|_| {});
    stopped.stopped = Some("enough".into());
    assert!(answer(drained, early, &stopped).starts_with("rule stopped:"));
    let doubtful = Purpose::Foresee(Ratio::saturating(0.3));
    assert!(answer(drained, doubtful, &facts(|_| {})).starts_with("rule low-confidence:"));
    // What is broken may be broken further for its own good.
    assert!(answer("restart(infer, grace=2s)", SURE, &facts(|_| {})).starts_with("4.69 "));
}
