//! Three nodes with replicas behind routes, while one of them heals: what the
//! API and the page are tested with, and looked at.

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::hlc::Hlc;
use homeostat_common::ids::{IncidentId, Instance, PlanId, RouteId, ServiceId};
use homeostat_common::outcome::Outcome;
use homeostat_common::units::Millis;
use homeostat_common::wire::Body;
use homeostat_common::wire::body::{
    Alarm, BackendState, Considered, Decided, IncidentClosed, IncidentOpened, Note, Phase, Refusal,
    RouteChange, ServiceChange, ServiceState, Severity, Source, Step,
};

use super::{Node, boot};

const SLOW: &str = "isolate(infer, infer-1, drain=2s) ; (restart(infer-1, grace=2s) | \
                    scale-out(infer, infer-2)) ; release(infer, infer-1)";

/// A node and the number of its last record.
pub struct Teller {
    pub node: Node,
    pub seq: u64,
    /// Whether its forwarder says nothing any more.
    frozen: bool,
}

impl Teller {
    pub fn connect(broker: u16, name: &str, ahead: i64) -> Self {
        let mut node = Node::connect(broker, name);
        node.ahead = ahead;
        node.status(true);
        node.send(&boot(&node, 1));
        Self {
            node,
            seq: 1,
            frozen: false,
        }
    }

    /// Sends a record that follows from the one before, and waits until it is
    /// stored, so that arrival has an order.
    pub fn tell(&mut self, body: Body) {
        self.tell_of(body, 0);
        self.node.wait_for(self.seq);
    }

    /// The same about something that was so long ago, and without waiting.
    pub fn tell_of(&mut self, body: Body, ago_ms: u64) {
        self.seq += 1;
        let mut envelope = self.node.envelope(self.seq, body);
        envelope.hlc = Hlc::new(envelope.hlc.unix_ms() - ago_ms, 0);
        if matches!(
            envelope.body,
            Body::Decided(_) | Body::Step(_) | Body::IncidentClosed(_)
        ) {
            let mut cause = envelope.reference();
            cause.seq -= 1;
            envelope.causes.push(cause);
        }
        self.node.send(&envelope);
    }

    pub fn service(&mut self, name: &str, state: ServiceState) {
        self.tell(Body::ServiceChange(ServiceChange {
            service: id(name),
            state,
            instance: (state != ServiceState::Standby).then_some(Instance(1)),
            exit: None,
        }));
    }

    /// Backends: name, address, weight, configured, healthy.
    pub fn route(
        &mut self,
        name: &str,
        listen: &str,
        callers: &[&str],
        backends: &[(&str, &str, u16, u16, bool)],
    ) {
        self.tell(Body::RouteChange(RouteChange {
            route: RouteId::new(name).unwrap(),
            listen: listen.into(),
            callers: callers.iter().map(|name| id(name)).collect(),
            reached: !self.frozen,
            backends: backends
                .iter()
                .map(
                    |(name, address, weight, configured, healthy)| BackendState {
                        backend: id(name),
                        address: (*address).into(),
                        weight: *weight,
                        configured: *configured,
                        healthy: *healthy,
                    },
                )
                .collect(),
        }));
    }

    fn alarm(&mut self, name: &str, service: Option<&str>, severity: Severity, text: &str) {
        self.tell(Body::Alarm(Alarm {
            alarm: name.into(),
            service: service.map(id),
            severity,
            raised: true,
            text: text.into(),
        }));
    }

    pub fn opened(
        &mut self,
        number: u64,
        service: &str,
        what: (Symptom, Fault),
        evidence: &[&str],
    ) {
        self.tell(Body::IncidentOpened(IncidentOpened {
            incident: IncidentId(number),
            service: id(service),
            symptom: what.0,
            fault: what.1,
            confidence: 0.93,
            detected_after: Millis(1_840),
            evidence: evidence.iter().map(|line| (*line).to_owned()).collect(),
            connected: true,
        }));
    }

    /// `refused`: plan, rule, reason; the last option is the chosen one.
    pub fn decided(
        &mut self,
        number: u64,
        refused: &[(&str, &str, &str)],
        chosen: Option<&str>,
        health: f32,
    ) {
        let refused = refused.iter().map(|(plan, rule, reason)| Considered {
            plan: (*plan).into(),
            source: Source::Playbook,
            refusal: Some(Refusal {
                rule: (*rule).into(),
                reason: (*reason).into(),
            }),
        });
        let chosen = chosen.map(|plan| Considered {
            plan: plan.into(),
            source: Source::Playbook,
            refusal: None,
        });
        self.tell(Body::Decided(Decided {
            incident: IncidentId(number),
            plan: chosen.is_some().then_some(PlanId(number)),
            predicted: if chosen.is_some() { 1.0 } else { health },
            considered: refused.chain(chosen).collect(),
            cost: 1.72,
            balance: 88.4,
            health,
        }));
    }

    pub fn step(
        &mut self,
        number: u64,
        step: u8,
        primitive: &str,
        phase: Phase,
        health: (f32, f32),
    ) {
        self.tell(Body::Step(Step {
            incident: IncidentId(number),
            plan: PlanId(number),
            step,
            primitive: primitive.into(),
            phase,
            predicted: health.0,
            health: health.1,
        }));
    }

    pub fn closed(&mut self, number: u64, outcome: Outcome, summary: &str) {
        self.tell(Body::IncidentClosed(IncidentClosed {
            incident: IncidentId(number),
            outcome,
            lasted: Millis(3_210),
            cost: 0.61,
            summary: summary.into(),
        }));
    }
}

pub fn id(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

/// The nodes, for who wants to go on telling.
pub struct Three {
    pub west: Teller,
    pub east: Teller,
    pub north: Teller,
}

/// West heals a slow replica while traffic goes to the east, the clock of the
/// north is an hour ahead, and several things are left alone. `text` stands
/// where a node chooses the words.
pub fn three(broker: u16, text: &str) -> Three {
    let mut west = Teller::connect(broker, "west", 0);
    let mut east = Teller::connect(broker, "east", 0);
    let mut north = Teller::connect(broker, "north", 3_600_000);
    let up = ServiceState::Healthy;
    for (teller, services) in [
        (&mut west, &["gateway", "infer-1", "store"][..]),
        (&mut east, &["gateway", "infer-1", "infer-2", "camera"]),
        (&mut north, &["gateway", "infer-1", "store"]),
    ] {
        for service in services {
            teller.service(service, up);
        }
    }
    west.service("infer-2", ServiceState::Standby);

    let (at_west, at_east, at_north) = ("10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000");
    let infer = |first: u16, second: u16, far: u16, fit: bool| {
        [
            ("infer-1", "127.0.0.1:9001", first, 100, fit),
            ("infer-2", "127.0.0.1:9002", second, 100, second > 0),
            ("east", at_east, far, 50, true),
        ]
    };
    west.route("infer", at_west, &["gateway"], &infer(100, 0, 50, true));
    west.route(
        "store",
        "127.0.0.1:9100",
        &["infer-1", "infer-2"],
        &[("store", "127.0.0.1:9101", 100, 100, true)],
    );
    east.route(
        "infer",
        at_east,
        &["gateway"],
        &[
            ("infer-1", "127.0.0.1:9001", 100, 100, true),
            ("infer-2", "127.0.0.1:9002", 100, 100, true),
            ("west", at_west, 20, 20, true),
        ],
    );
    east.route(
        "store",
        "127.0.0.1:9100",
        &["infer-1", "infer-2"],
        &[("north", "10.0.0.3:9100", 100, 100, true)],
    );
    north.route(
        "infer",
        at_north,
        &["gateway"],
        &[
            ("infer-1", "127.0.0.1:9001", 100, 100, true),
            ("east", at_east, 50, 50, true),
            ("west", at_west, 50, 50, true),
        ],
    );
    north.route(
        "store",
        "10.0.0.3:9100",
        &["infer-1"],
        &[("store", "127.0.0.1:9101", 100, 100, true)],
    );

    // Something that is over.
    north.opened(
        1,
        "store",
        (Symptom::Dead, Fault::Crash),
        &["process ended by signal 9"],
    );
    north.decided(1, &[], Some("restart(store, grace=0ms)"), 0.7);
    north.step(
        1,
        0,
        "restart(store, grace=0ms)",
        Phase::Started,
        (1.0, 0.7),
    );
    north.step(1, 0, "restart(store, grace=0ms)", Phase::Done, (1.0, 1.0));
    north.closed(1, Outcome::Healed, "store answers again");

    // Something that nobody may touch, and things that are no service's.
    east.opened(
        1,
        "camera",
        (Symptom::Hung, Fault::Hang),
        &[
            "4 of 4 probes unanswered",
            "the process waits in the kernel",
        ],
    );
    east.decided(
        1,
        &[(
            "restart(camera, grace=0ms)",
            "observe-only",
            "camera is only watched: mode = \"observe\"",
        )],
        None,
        0.8,
    );
    east.alarm(
        "stranger-cpu",
        None,
        Severity::Warning,
        "process 4711 (backup) uses 92 % of a core and is no service of this node",
    );
    north.alarm(
        "forwarder-frozen",
        None,
        Severity::Warning,
        "the forwarder's report stands still for 12 s; its numbers count for nothing",
    );
    north.frozen = true;
    west.tell(Body::Note(Note {
        service: Some(id("store")),
        text: format!("waiting: store answers late while the disk is under pressure{text}"),
    }));

    // A slow replica is taken out and mended, while others do its work.
    west.service("infer-1", ServiceState::Unhealthy);
    west.opened(
        1,
        "infer-1",
        (Symptom::Slow, Fault::SlowReplica),
        &[
            "p95 812 ms, its peers behind infer have 41 ms, for 3 windows",
            "no pressure on the node: cpu 4 %, io 0 %",
        ],
    );
    west.decided(
        1,
        &[(
            "restart(infer-1, grace=2s)",
            "blast-radius",
            "1 of 2 serving replicas would be away, 0 may",
        )],
        Some(SLOW),
        0.5,
    );
    let isolate = "isolate(infer, infer-1, drain=2s)";
    west.step(1, 0, isolate, Phase::Started, (0.7, 0.5));
    west.route("infer", at_west, &["gateway"], &infer(0, 0, 200, false));
    west.step(1, 0, isolate, Phase::Done, (0.7, 0.75));
    north.route(
        "infer",
        at_north,
        &["gateway"],
        &[
            ("infer-1", "127.0.0.1:9001", 100, 100, true),
            ("east", at_east, 50, 50, true),
            ("west", at_west, 50, 50, false),
        ],
    );
    west.step(
        1,
        1,
        "restart(infer-1, grace=2s)",
        Phase::Started,
        (0.85, 0.75),
    );
    west.step(
        1,
        2,
        "scale-out(infer, infer-2)",
        Phase::Started,
        (0.9, 0.75),
    );
    west.step(1, 2, "scale-out(infer, infer-2)", Phase::Done, (0.9, 0.88));
    Three { west, east, north }
}
