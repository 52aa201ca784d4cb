use super::*;
use crate::ids::{ConfigVersion, InterfaceId, ModelVersion, WebhookId};
use crate::net::SourceNet;
use crate::primitive::NAMES;
use crate::units::{Millis, PerSecond, Percent};
use alloc::string::ToString;
use proptest::prelude::*;

fn any_step() -> impl Strategy<Value = Primitive> {
    let service = || "[a-z]{1,6}".prop_map(|name| ServiceId::new(&name).unwrap());
    let route = "[a-z]{1,6}".prop_map(|name| RouteId::new(&name).unwrap());
    let share = (0..=100u8).prop_map(|share| Percent::new(share).unwrap());
    let parts = (
        service(),
        service(),
        route,
        0u64..100_000,
        any::<[u8; 8]>(),
        share,
    );
    (parts, 0..NAMES.len()).prop_map(|((service, other, route, ms, version, share), kind)| {
        let span = Millis(ms);
        let (model, config) = (ModelVersion(version), ConfigVersion(version));
        match kind {
            0 => Primitive::Restart {
                service,
                grace: span,
            },
            1 => Primitive::RollbackModel { service, to: model },
            2 => Primitive::Probe {
                service,
                within: span,
            },
            3 => Primitive::Wait { span },
            4 => Primitive::SwitchModel { service, to: model },
            5 => Primitive::SwitchConfig {
                service,
                to: config,
            },
            6 => Primitive::RollbackConfig {
                service,
                to: config,
            },
            7 => Primitive::PruneData { service, to: share },
            8 => Primitive::Isolate {
                route,
                backend: service,
                drain: span,
            },
            9 => Primitive::Release {
                route,
                backend: service,
            },
            10 => Primitive::Reroute {
                route,
                from: service,
                // Never the same.
                to: ServiceId::new(&alloc::format!("{other}-2")).unwrap(),
                share,
            },
            11 => Primitive::ScaleOut { route, service },
            12 => Primitive::ScaleIn {
                route,
                service,
                drain: span,
            },
            13 => Primitive::Freeze { service },
            14 => Primitive::Thaw { service },
            15 => Primitive::LimitCpu {
                service,
                to: Percent::new(share.get().max(1)).unwrap(),
            },
            16 => Primitive::UnlimitCpu { service },
            17 => Primitive::LimitRate {
                route,
                to: PerSecond::new(u32::from(version[0]) + 1).unwrap(),
            },
            18 => Primitive::UnlimitRate { route },
            19 => Primitive::BlockSource {
                route,
                from: net(version),
            },
            20 => Primitive::UnblockSource {
                route,
                from: net(version),
            },
            21 => Primitive::Prewarm { service },
            22 => Primitive::ClearLocks { service },
            23 => Primitive::Snapshot { service },
            24 => Primitive::RestoreSnapshot { service },
            25 => Primitive::FlushCache { service },
            26 => Primitive::ResetPool { service },
            27 => Primitive::Degrade { service },
            28 => Primitive::Undegrade { service },
            29 => Primitive::SyncClock { service },
            30 => Primitive::SwitchUplink {
                service,
                to: InterfaceId::new("wwan0").unwrap(),
            },
            31 => Primitive::ReleaseUplink { service },
            32 => Primitive::BlockPort {
                service,
                from: net(version),
            },
            33 => Primitive::UnblockPort {
                service,
                from: net(version),
            },
            34 => Primitive::RemountWritable { service },
            35 => Primitive::CallWebhook {
                service,
                to: WebhookId::new("pager").unwrap(),
            },
            _ => Primitive::Escalate { service },
        }
    })
}

/// A range that some bytes name, of either version.
fn net(bytes: [u8; 8]) -> SourceNet {
    let [a, b, c, d, ..] = bytes;
    if a % 2 == 0 {
        SourceNet::new([a, b, c, d].into(), 32).unwrap()
    } else {
        let words = bytes.map(u16::from);
        SourceNet::new(words.into(), 128).unwrap()
    }
}

fn any_branch() -> impl Strategy<Value = Branch> {
    let step = any_step().prop_map(Branch::Step);
    step.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Branch::Series),
            prop::collection::vec(inner, 1..4).prop_map(Branch::Parallel),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(branch in any_branch()) {
        if let Ok(plan) = Plan::new(branch) {
            prop_assert_eq!(plan.to_string().parse::<Plan>(), Ok(plan.clone()));
            let bytes = postcard::to_allocvec(&plan).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Plan>(&bytes).unwrap(), plan);
        }
    }

    #[test]
    fn each_primitive_has_its_own_name(step in any_step()) {
        prop_assert!(NAMES.contains(&step.name()));
        prop_assert!(step.to_string().starts_with(&(step.name().to_string() + "(")));
    }

    #[test]
    fn parsing_anything_never_panics(text in "[a-z0-9(;|),= -]{0,80}|.{0,40}") {
        let _ = text.parse::<Plan>();
    }
}

#[test]
fn a_wrong_plan_says_where_and_what() {
    for (text, says) in [
        ("", "at character 0: expected a primitive or '('"),
        (
            "reboot(web)",
            "at character 0: unknown primitive \"reboot\"; there are restart, rollback-model, probe, wait, switch-model, switch-config, rollback-config, prune-data, isolate, release, reroute, scale-out, scale-in, freeze, thaw, limit-cpu, unlimit-cpu, limit-rate, unlimit-rate, block-source, unblock-source, prewarm, clear-locks, snapshot, restore-snapshot, flush-cache, reset-pool, degrade, undegrade, sync-clock, switch-uplink, release-uplink, block-port, unblock-port, remount-writable, call-webhook, escalate",
        ),
        ("restart(web)", "at character 11: expected ','"),
        (
            "restart(Web, grace=1s)",
            "at character 8: service: a name may hold a-z, 0-9 and '-', not 'W'",
        ),
        (
            "restart(, grace=1s)",
            "at character 8: service: a name must not be empty",
        ),
        (
            "restart(web, grace=1)",
            "at character 19: grace: expected a whole number with a unit, such as 250ms, 2s, 5m, 1h or 2d",
        ),
        (
            "wait(1s) ; wait(1s) | wait(1s)",
            "at character 20: expected parentheses where ';' and '|' meet",
        ),
        (
            "wait(1s) wait(1s)",
            "at character 9: expected ';', '|' or the end of the plan",
        ),
        (
            "probe(web, within=1s) | restart(web, grace=1s)",
            "two parallel branches touch service web",
        ),
        (
            "isolate(infer, infer-1, drain=1s) | isolate(infer, infer-2, drain=1s)",
            "two parallel branches change route infer",
        ),
        (
            "reroute(infer, from=infer-1, to=edge-2, share=130%)",
            "at character 46: share: expected a share from 0% to 100%",
        ),
        ("((((((((((wait(1s)))))))))))", "groups nest at most 8 deep"),
    ] {
        assert_eq!(
            text.parse::<Plan>().unwrap_err().to_string(),
            says,
            "{text}"
        );
    }
    for (text, says) in [
        ("wait(1s) ; limit-cpu(web, to=0%)", "only freeze says so"),
        (
            "reroute(infer, from=infer-1, to=infer-1, share=50%)",
            "from one backend to another one",
        ),
    ] {
        let refused = text.parse::<Plan>().unwrap_err().to_string();
        assert!(refused.ends_with(says), "{refused}");
    }
    let long = ["wait(1s)"; 9].join(" ; ");
    assert_eq!(long.parse::<Plan>(), Err(PlanError::TooLong(9)));
    assert_eq!(Plan::new(Branch::Series(vec![])), Err(PlanError::Empty));
}
