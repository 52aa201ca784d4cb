//! What the gate asks of plans that move traffic.

use super::*;

#[test]
fn a_route_keeps_a_backend_and_a_restart_behind_it_is_free() {
    let lost = Facts {
        forwarder: false,
        ..facts(|_| {})
    };
    let observed = Facts {
        mode: Mode::Observe,
        ..facts(|_| {})
    };
    let mut alone = facts(|_| {});
    for route in alone.routes.values_mut() {
        for (id, backend) in &mut route.backends {
            backend.healthy = id.as_str() != "edge-2";
        }
    }
    let isolate = "isolate(model, infer, drain=1s)";
    for (plan, purpose, facts, says) in [
        (
            "isolate(model, infer, drain=1s) ; restart(infer, grace=2s) ; release(model, infer)",
            SURE,
            &facts(|_| {}),
            "0.06 capacity-seconds (resource 0.06, disruption 0.00, risk 0.00)",
        ),
        (
            "release(model, infer) ; restart(infer, grace=2s)",
            SURE,
            &facts(|_| {}),
            "4.71 capacity-seconds (resource 0.04, disruption 4.67, risk 0.00)",
        ),
        (
            isolate,
            SURE,
            &lost,
            "rule forwarder-lost: the forwarder cannot be reached",
        ),
        (
            "isolate(model, edge-2, drain=1s)",
            SURE,
            &observed,
            "rule observe-only: routes are only observed; set mode = \"act\" to change them",
        ),
        (
            "isolate(model, edge-2, drain=1s)",
            Purpose::Operate,
            &observed,
            "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)",
        ),
        (
            "isolate(model, web, drain=1s)",
            SURE,
            &facts(|_| {}),
            "rule unknown-route: web is no backend of route model",
        ),
        (
            "release(elsewhere, web)",
            SURE,
            &facts(|_| {}),
            "rule unknown-route: there is no route elsewhere here",
        ),
        (
            isolate,
            Purpose::Operate,
            &alone,
            "rule last-backend: without infer, route model has no healthy backend",
        ),
        (
            "isolate(model, infer, drain=1s) ; isolate(model, edge-2, drain=1s)",
            SURE,
            &facts(|_| {}),
            "rule last-backend: without edge-2, route model has no healthy backend",
        ),
        (
            "isolate(model, infer, drain=1s) ; release(model, infer) ; isolate(model, edge-2, drain=1s)",
            SURE,
            &facts(|_| {}),
            "0.06 capacity-seconds (resource 0.06, disruption 0.00, risk 0.00)",
        ),
        (
            "reroute(model, from=infer, to=edge-2, share=100%)",
            SURE,
            &alone,
            "rule last-backend: without infer, route model has no healthy backend",
        ),
        (
            "isolate(model, edge-2, drain=1s)",
            SURE,
            &facts_of_others(|infer| infer.leased = Some(PlanId(7))),
            "rule last-backend: without edge-2, route model has no healthy backend",
        ),
        (
            "isolate(model, edge-2, drain=1s)",
            SURE,
            &facts_of_others(|infer| infer.answering = false),
            "rule last-backend: without edge-2, route model has no healthy backend",
        ),
        (
            "scale-out(model, edge-2)",
            Purpose::Operate,
            &facts(|_| {}),
            "rule not-allowed: edge-2 is no standby replica of this node",
        ),
        (
            "scale-out(model, infer)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: infer is no standby replica of this node",
        ),
        (
            "isolate(model, edge-2, drain=1s) ; restart(infer, grace=1s)",
            SURE,
            &facts(|_| {}),
            "rule last-backend: while infer is away, route model has no healthy backend: this plan takes the others from it",
        ),
        (
            "restart(infer, grace=1s) | isolate(model, edge-2, drain=1s)",
            SURE,
            &facts(|_| {}),
            "rule last-backend: while infer is away, route model has no healthy backend: this plan takes the others from it",
        ),
        (
            "limit-rate(model, to=19/s)",
            Purpose::Operate,
            &facts(|_| {}),
            "rule not-allowed: route model may not be limited below 20/s",
        ),
        (
            "limit-rate(model, to=20/s)",
            SURE,
            &facts(|_| {}),
            "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)",
        ),
        (
            "block-source(model, from=0.0.0.0/0)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: 0.0.0.0/0 is not among the addresses that route model may block",
        ),
        (
            "block-source(model, from=10.7.0.0/16)",
            SURE,
            &facts(|_| {}),
            "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)",
        ),
        (
            "block-port(web, from=10.0.0.0/8)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: 10.0.0.0/8 is not among the addresses that web may block",
        ),
        (
            "block-port(web, from=192.168.7.0/24)",
            SURE,
            &facts(|_| {}),
            "0.02 capacity-seconds (resource 0.02, disruption 0.00, risk 0.00)",
        ),
        (
            "switch-uplink(web, to=eth9)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: eth9 is no uplink of this node",
        ),
        (
            "call-webhook(web, to=nobody)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: there is no webhook nobody",
        ),
        (
            "sync-clock(web)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: web is on a node without time servers",
        ),
        (
            "flush-cache(web)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: web offers no hook flush-cache",
        ),
        (
            "freeze(web) ; wait(1s)",
            SURE,
            &facts(|_| {}),
            "rule not-allowed: web would be left frozen",
        ),
        (
            "prune-data(web, to=50%)",
            Purpose::Operate,
            &facts(|_| {}),
            "rule not-allowed: web names no files that may be deleted",
        ),
    ] {
        assert_eq!(answer(plan, purpose, facts), says, "{plan}");
    }
}

#[test]
fn a_route_is_not_emptied_by_steps_that_are_harmless_alone() {
    let here = facts(|_| {});
    let emptied = "rule last-backend: without edge-2, route model has no healthy backend";
    let away = "rule last-backend: while infer is away, route model has no healthy backend: this \
                plan takes the others from it";
    let isolate = "isolate(model, edge-2, drain=1s)";
    for (plan, says) in [
        (std::format!("{isolate} ; restart(infer, grace=2s)"), away),
        // In this order the restart is over before.
        (
            std::format!("restart(infer, grace=2s) ; {isolate}"),
            "4.71 capacity-seconds (resource 0.04, disruption 4.67, risk 0.00)",
        ),
        (std::format!("restart(infer, grace=2s) | {isolate}"), away),
        (
            std::format!("{isolate} | restart(infer, grace=2s)"),
            emptied,
        ),
        (
            std::format!("{isolate} | (wait(1s) ; restart(infer, grace=2s))"),
            emptied,
        ),
        (
            std::format!("freeze(infer) ; {isolate} ; thaw(infer)"),
            emptied,
        ),
        (
            std::format!("freeze(infer) ; thaw(infer) ; {isolate}"),
            "8.73 capacity-seconds (resource 0.06, disruption 8.67, risk 0.00)",
        ),
        (
            std::format!("{isolate} ; release(model, edge-2) ; freeze(infer) ; thaw(infer)"),
            "8.75 capacity-seconds (resource 0.08, disruption 8.67, risk 0.00)",
        ),
    ] {
        assert_eq!(answer(&plan, SURE, &here), says, "{plan}");
    }
    // Alone behind its route, an ill one may be restarted all the same.
    let mut alone = facts(|_| {});
    for route in alone.routes.values_mut() {
        route.backends.retain(|id, _| id.as_str() == "infer");
    }
    let restart = "restart(infer, grace=2s)";
    assert!(answer(restart, SURE, &alone).starts_with("4.69 "));
    // One that the plan itself has put in its place counts.
    let mut resting = facts(|_| {});
    for route in resting.routes.values_mut() {
        for (id, backend) in &mut route.backends {
            backend.weight = if id.as_str() == "edge-2" { 0 } else { 100 };
        }
    }
    let swap = "release(model, edge-2) ; isolate(model, infer, drain=1s)";
    assert!(answer(swap, SURE, &resting).starts_with("0.04 "));
}

#[test]
fn what_moves_traffic_changes_both_ends() {
    let reroute = "reroute(model, from=infer, to=web, share=50%)";
    let with = |change: fn(&mut ServiceFacts)| {
        let mut facts = facts(change);
        let web = ServiceId::new("web").unwrap();
        let known = BackendFacts {
            weight: 10,
            healthy: true,
        };
        for route in facts.routes.values_mut() {
            route.backends.insert(web.clone(), known);
        }
        answer(reroute, SURE, &facts)
    };
    assert!(with(|_| {}).starts_with("0.02 "));
    assert_eq!(
        with(|web| web.protected = true),
        "rule protected: web is protected"
    );
    assert_eq!(
        with(|web| web.leased = Some(PlanId(9))),
        "rule under-repair: plan p9 works on web"
    );
}
