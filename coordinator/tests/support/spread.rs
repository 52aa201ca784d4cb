//! A slow disk of one node that another node's users feel, while a third node has a trouble of
//! its own; clocks are an hour off in both directions. With a history of such incidents.

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::ids::{IncidentId, PlanId, RouteId, ServiceId};
use homeostat_common::observation::{Metric, Part};
use homeostat_common::outcome::Outcome;
use homeostat_common::suspect::{Component, Edge, Grade, Suspect, TellApart};
use homeostat_common::units::{Millis, Ratio, narrow};
use homeostat_common::wire::Body;
use homeostat_common::wire::body::{
    Aggregate, Considered, Decided, Diagnosed, IncidentClosed, IncidentOpened, Phase, ServiceState,
    Source, Step, Telemetry, Topology,
};

use super::fleet::{Teller, id};

const HOUR: i64 = 3_600_000;
const MINUTE: u64 = 60_000;
pub const RESTART: &str = "restart(infer-1, grace=0ms)";

/// How long ago the trouble began.
pub const BEGAN: u64 = 6 * MINUTE;

/// The nodes, for who wants to go on telling.
pub struct Spread {
    pub west: Teller,
    pub east: Teller,
    pub north: Teller,
}

fn part(name: &str) -> Part {
    Part::new(name).unwrap()
}

fn service(name: &str) -> Component {
    Component::Service(id(name))
}

fn suspect(component: Component, confidence: f32, evidence: &[&str]) -> Suspect {
    Suspect {
        component,
        confidence: Ratio::saturating(confidence),
        share: Ratio::saturating(confidence),
        began: Some(Millis::secs(4)),
        evidence: evidence.iter().map(|line| (*line).to_owned()).collect(),
        explained_by: None,
    }
}

fn needs(all: &[(Component, Component)]) -> Vec<Edge> {
    let edge = |(from, needs): &(Component, Component)| Edge {
        from: from.clone(),
        needs: needs.clone(),
    };
    all.iter().map(edge).collect()
}

fn opened(number: u64, service: &str, symptom: Symptom, fault: Fault) -> Body {
    Body::IncidentOpened(IncidentOpened {
        incident: IncidentId(number),
        service: id(service),
        symptom,
        fault,
        confidence: 0.8,
        detected_after: Millis(1_000),
        evidence: vec![format!("{service} answers late")],
        connected: true,
    })
}

fn diagnosed(
    number: u64,
    alarmed: &str,
    suspects: Vec<Suspect>,
    edges: Vec<Edge>,
    tell_apart: Option<TellApart>,
) -> Body {
    Body::Diagnosed(Diagnosed {
        incident: IncidentId(number),
        alarmed: service(alarmed),
        suspects,
        edges,
        tell_apart,
        grade: Grade::Full,
        affected: Vec::new(),
        spared: None,
    })
}

/// What a route did in five minutes: the share that failed, and requests a second.
fn served(route: &str, backend: &str, failed: f32, rate: f32) -> Body {
    let row = |metric: Metric, service: Option<ServiceId>, value: f32| Aggregate {
        metric: metric as u8,
        service,
        part: Some(part(route)),
        mean: value,
        max: value,
    };
    Body::Telemetry(Telemetry {
        span: Millis(5 * MINUTE),
        series: vec![
            row(Metric::FailureShare, None, failed),
            row(Metric::FirstByteP50, None, 20.0 + 1000.0 * failed),
            row(Metric::FirstByteP95, None, 60.0 + 2000.0 * failed),
            row(Metric::RequestRate, Some(id(backend)), rate),
        ],
    })
}

fn decided(number: u64, service: &str, plan: &str, run: bool) -> Body {
    let _ = service;
    Body::Decided(Decided {
        incident: IncidentId(number),
        plan: run.then_some(PlanId(number)),
        considered: vec![Considered {
            plan: plan.into(),
            source: Source::Playbook,
            refusal: (!run).then(|| homeostat_common::wire::body::Refusal {
                rule: "hold".into(),
                reason: "healed 20s ago, hold is 60s".into(),
            }),
        }],
        cost: 0.5,
        balance: 80.0,
        health: 0.6,
        predicted: 1.0,
    })
}

/// One that is over: how long ago it was opened, how long it lasted, whether a plan ran.
fn over(teller: &mut Teller, number: u64, ago: u64, lasted: u64, acted: bool) {
    teller.tell_of(
        opened(number, "infer-1", Symptom::Slow, Fault::SlowReplica),
        ago,
    );
    teller.tell_of(decided(number, "infer-1", RESTART, acted), ago - 10);
    if acted {
        let step = Step {
            incident: IncidentId(number),
            plan: PlanId(number),
            step: 0,
            primitive: RESTART.into(),
            phase: Phase::Started,
            predicted: 1.0,
            health: 0.6,
        };
        teller.tell_of(Body::Step(step), ago - 20);
    }
    let outcome = if acted {
        Outcome::Healed
    } else {
        Outcome::Refused
    };
    teller.tell_of(
        Body::IncidentClosed(IncidentClosed {
            incident: IncidentId(number),
            outcome,
            lasted: Millis(1_000 + lasted),
            cost: 0.1,
            summary: "infer-1 answers again".into(),
        }),
        ago.saturating_sub(lasted),
    );
}

/// Tells it all. `text` stands where a node chooses the words.
pub fn spread(broker: u16, text: &str) -> Spread {
    let mut west = Teller::connect(broker, "west", -HOUR);
    let mut east = Teller::connect(broker, "east", HOUR);
    let mut north = Teller::connect(broker, "north", 0);
    let up = ServiceState::Healthy;
    for (teller, services) in [
        (&mut west, &["gateway"][..]),
        (&mut east, &["gateway", "infer-1"]),
        (&mut north, &["camera"]),
    ] {
        for service in services {
            teller.service(service, up);
        }
    }
    west.route(
        "infer",
        "10.0.0.1:9000",
        &["gateway"],
        &[("east", "10.0.0.2:9000", 100, 100, true)],
    );
    east.route(
        "infer",
        "10.0.0.2:9000",
        &["gateway"],
        &[("infer-1", "127.0.0.1:9001", 100, 100, true)],
    );
    let disk = || Component::Part(part("mmcblk0"));
    let on_disk = [
        (service("infer-1"), Component::Node),
        (service("infer-1"), disk()),
        (Component::Model(id("infer-1")), service("infer-1")),
    ];
    east.tell(Body::Topology(Topology {
        edges: needs(&on_disk),
        left_out: 0,
    }));

    // Ten slow spells that were mended, and ten that nobody mended: three passed within a
    // minute.
    for number in 1..=10 {
        over(&mut east, number, (60 - number) * 10 * MINUTE, 900, true);
    }
    for number in 11..=20 {
        let lasted = if number <= 13 { 20_000 } else { 3 * MINUTE };
        over(
            &mut east,
            number,
            (60 - number) * 10 * MINUTE,
            lasted,
            false,
        );
    }
    for window in (2..12).rev() {
        west.tell_of(served("infer", "east", 0.0, 10.0), window * 5 * MINUTE);
    }

    // The disk stalls: first its own node notices, then the other one.
    east.tell_of(
        opened(21, "infer-1", Symptom::Slow, Fault::SlowReplica),
        BEGAN - 3_000,
    );
    let mut behind = suspect(service("infer-1"), 0.125, &[]);
    behind.explained_by = Some(disk());
    east.tell_of(
        diagnosed(
            21,
            "infer-1",
            vec![
                suspect(
                    disk(),
                    0.75,
                    &[&format!(
                        "disk_busy of mmcblk0 is 99 %, 12 % is usual{text}"
                    )],
                ),
                behind,
                // Odd at the same time, and on the same node, which shows nothing.
                suspect(service("recorder"), 0.05, &["it writes more than usual"]),
            ],
            needs(&[
                on_disk[0].clone(),
                on_disk[1].clone(),
                (service("recorder"), Component::Node),
            ]),
            Some(TellApart {
                between: (disk(), service("infer-1")),
                look_at: disk(),
                text: "its time to answer while infer-1 rests".into(),
            }),
        ),
        BEGAN - 4_000,
    );
    east.tell_of(decided(21, "infer-1", RESTART, false), BEGAN - 5_000);
    west.tell_of(
        opened(1, "gateway", Symptom::Slow, Fault::Saturation),
        BEGAN - 2_000,
    );
    let calls = [
        (
            service("gateway"),
            Component::Route(RouteId::new("infer").unwrap()),
        ),
        (
            Component::Route(RouteId::new("infer").unwrap()),
            Component::Backend(id("east")),
        ),
    ];
    let border = || Component::Backend(id("east"));
    west.tell_of(
        diagnosed(
            1,
            "gateway",
            vec![
                suspect(border(), 0.8, &["its answers take 1.2 s, 40 ms are usual"]),
                suspect(service("gateway"), 0.1, &[]),
            ],
            needs(&calls),
            None,
        ),
        BEGAN - 5_000,
    );
    // Something else at the same time.
    north.tell_of(
        opened(1, "camera", Symptom::Dead, Fault::Crash),
        BEGAN - 2_500,
    );
    north.tell_of(
        diagnosed(
            1,
            "camera",
            vec![suspect(service("camera"), 0.9, &["it ended by signal 11"])],
            Vec::new(),
            None,
        ),
        BEGAN - 3_500,
    );
    west.tell(served("infer", "east", narrow(0.3), 7.0));
    for teller in [&mut east, &mut north] {
        teller.node.wait_for(teller.seq);
    }
    Spread { west, east, north }
}
