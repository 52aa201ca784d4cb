//! What the golden files hold, and what tests send.

use super::*;
use crate::ids::NodeId;
use crate::observation::{AlarmReading, Level, LogCount, Metric, MetricReading, Part, Reading};
use crate::units::{Micros, Ratio};
use alloc::vec;

/// One body of each kind, for golden files and tests.
pub(in crate::wire) fn samples() -> Vec<Body> {
    let web = ServiceId::new("web").unwrap();
    let incident = IncidentId(12);
    vec![
        Body::Boot(Boot {
            version: "0.1.0".into(),
            kernel: BootId([9; 16]),
            clock: ClockQuality::BehindFloor,
            adopted: 3,
            findings: vec!["journal: cut a torn tail of 17 bytes".into()],
        }),
        Body::ServiceChange(ServiceChange {
            service: web.clone(),
            state: ServiceState::Down,
            instance: Some(Instance(4)),
            exit: Some(Exit::Signal(9)),
        }),
        Body::IncidentOpened(IncidentOpened {
            incident,
            service: web.clone(),
            symptom: Symptom::Dead,
            fault: Fault::Crash,
            confidence: 0.99,
            detected_after: Millis(0),
            evidence: vec!["process ended by signal 9".into()],
            connected: false,
        }),
        Body::Decided(Decided {
            incident,
            plan: Some(PlanId(5)),
            considered: vec![
                Considered {
                    plan: "probe(web, within=1s)".into(),
                    source: Source::Playbook,
                    refusal: Some(Refusal {
                        rule: "hold".into(),
                        reason: "web was healed 3s ago".into(),
                    }),
                },
                Considered {
                    plan: "restart(web, grace=0ms)".into(),
                    source: Source::Reflex,
                    refusal: None,
                },
            ],
            cost: 0.5,
            balance: 89.5,
            health: 0.75,
            predicted: 1.0,
        }),
        Body::Step(Step {
            incident,
            plan: PlanId(5),
            step: 0,
            primitive: "restart(web, grace=0ms)".into(),
            phase: Phase::Failed("deadline of 14s passed".into()),
            predicted: 1.0,
            health: 0.75,
        }),
        Body::IncidentClosed(IncidentClosed {
            incident,
            outcome: Outcome::Healed,
            lasted: Millis(4),
            cost: 0.01,
            summary: "web answers again".into(),
        }),
        Body::Alarm(Alarm {
            alarm: "web-quarantine".into(),
            service: Some(web.clone()),
            severity: Severity::Critical,
            raised: true,
            text: "healed 3 times within 30m; look at it".into(),
        }),
        Body::Gap(Gap {
            from: 17,
            through: 40,
            heal: 0,
        }),
        Body::Telemetry(Telemetry {
            span: Millis::secs(300),
            series: vec![Aggregate {
                metric: Metric::MemoryResident as u8,
                service: Some(web.clone()),
                part: None,
                mean: 1e6,
                max: 2e6,
            }],
        }),
        Body::Observation(Observation {
            node: NodeId::new("edge-1").unwrap(),
            from: Micros(1_000_000),
            to: Micros(2_000_000),
            logs: vec![LogCount {
                service: Some(web.clone()),
                template: 0x1234,
                text: "served <*> in <*> ms".into(),
                level: Level::Info,
                count: 3,
            }],
            metrics: vec![
                MetricReading::node(Metric::CpuPressure, Reading::Missing),
                MetricReading::part(
                    Metric::NetReceived,
                    Part::new("eth0").unwrap(),
                    Reading::Fresh(12.5),
                ),
                MetricReading {
                    metric: Metric::MemoryResident,
                    service: Some(web.clone()),
                    part: None,
                    reading: Reading::Fresh(4096.0),
                },
                MetricReading {
                    metric: Metric::LatencyP95,
                    service: Some(web.clone()),
                    part: None,
                    reading: Reading::Stale {
                        last: 0.5,
                        age: Millis::secs(3),
                    },
                },
            ],
            alarms: vec![AlarmReading {
                alarm: "web-dead".into(),
                service: Some(web.clone()),
                text: "process ended by signal 9".into(),
            }],
        }),
        Body::Note(Note {
            service: Some(web),
            text: "verdict on web waits: the node is under CPU pressure".into(),
        }),
        Body::State(crate::state::sample()),
        Body::RouteChange(RouteChange {
            route: RouteId::new("infer").unwrap(),
            listen: "127.0.0.1:9000".into(),
            callers: vec![ServiceId::new("gateway").unwrap()],
            reached: true,
            backends: vec![
                BackendState {
                    backend: ServiceId::new("infer-1").unwrap(),
                    address: "127.0.0.1:9001".into(),
                    weight: 0,
                    configured: 100,
                    healthy: false,
                },
                BackendState {
                    backend: ServiceId::new("edge-2").unwrap(),
                    address: "10.0.0.2:9000".into(),
                    weight: 200,
                    configured: 100,
                    healthy: true,
                },
            ],
        }),
        Body::Budgets(Budgets {
            classes: vec![ClassBudget {
                class: Criticality::Mission,
                beta: 45.0,
                balance: 30.5,
                reserved: 14.0,
                overruns: 1,
            }],
        }),
        Body::Charge(Charge {
            incident,
            plan: PlanId(5),
            steps: vec![StepCost {
                predicted: CostParts {
                    resource: 0.02,
                    disruption: 4.5,
                    risk: 1.25,
                },
                spent: CostParts {
                    resource: 0.02,
                    disruption: 0.125,
                    risk: 0.0,
                },
            }],
            budget: ClassBudget {
                class: Criticality::Business,
                beta: 30.0,
                balance: 29.75,
                reserved: 0.0,
                overruns: 0,
            },
        }),
        Body::Control(Control {
            what: ControlKind::Approved,
            incident: Some(incident),
            service: Some(ServiceId::new("web").unwrap()),
            by: "anna (uid 1000)".into(),
            text: "restart(web, grace=0ms) may run".into(),
        }),
        Body::Diagnosed(diagnosed(incident)),
        Body::Joined(Joined {
            incident,
            service: ServiceId::new("gateway").unwrap(),
            symptom: Symptom::Hung,
            because: "it needs web, which is being mended".into(),
        }),
        Body::Topology(Topology {
            edges: vec![
                Edge {
                    from: Component::Service(ServiceId::new("gateway").unwrap()),
                    needs: Component::Route(RouteId::new("infer").unwrap()),
                },
                Edge {
                    from: Component::Route(RouteId::new("infer").unwrap()),
                    needs: Component::Backend(ServiceId::new("edge-2").unwrap()),
                },
                Edge {
                    from: Component::Model(ServiceId::new("infer-1").unwrap()),
                    needs: Component::Service(ServiceId::new("infer-1").unwrap()),
                },
            ],
            left_out: 2,
        }),
    ]
}

fn diagnosed(incident: IncidentId) -> Diagnosed {
    let web = Component::Service(ServiceId::new("web").unwrap());
    let disk = Component::Part(Part::new("mmcblk0").unwrap());
    let broker = Component::Dependency(Part::new("broker").unwrap());
    let edge = |needs: &Component| Edge {
        from: web.clone(),
        needs: needs.clone(),
    };
    Diagnosed {
        incident,
        alarmed: web.clone(),
        suspects: vec![
            Suspect {
                component: disk.clone(),
                confidence: Ratio::saturating(0.75),
                share: Ratio::saturating(0.5),
                began: Some(Millis::secs(40)),
                evidence: vec!["disk_busy of mmcblk0 is 99 %, 12 % is usual".into()],
                explained_by: None,
            },
            Suspect {
                component: web.clone(),
                confidence: Ratio::saturating(0.125),
                share: Ratio::ZERO,
                began: None,
                evidence: vec![],
                explained_by: Some(disk.clone()),
            },
        ],
        edges: vec![edge(&Component::Node), edge(&disk), edge(&broker)],
        tell_apart: Some(TellApart {
            between: (disk, broker.clone()),
            look_at: broker,
            text: "its time to connect while the disk is busy".into(),
        }),
        grade: Grade::Full,
        affected: vec![ServiceId::new("gateway").unwrap()],
        spared: Some("mmcblk0 of the node is the likelier cause".into()),
    }
}
