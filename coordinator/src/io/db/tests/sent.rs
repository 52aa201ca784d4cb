//! What nodes send in these tests.

use super::*;

pub(crate) fn envelope(node: &str, seq: u64, body: Body) -> Envelope {
    let mut stream = [0; 16];
    stream[..node.len()].copy_from_slice(node.as_bytes());
    Envelope {
        site: SiteId::new("plant-7").unwrap(),
        node: NodeId::new(node).unwrap(),
        stream: StreamId(stream),
        seq,
        boot: BootId([1; 16]),
        hlc: Hlc::new(1_790_000_000_000 + seq, 0),
        causes: Vec::new(),
        body,
    }
}

pub(crate) fn note(node: &str, seq: u64) -> Envelope {
    let body = Body::Note(Note {
        service: None,
        text: format!("event {seq}"),
    });
    envelope(node, seq, body)
}

/// One life of an incident on a node: 9 records from `first` on.
pub(super) fn story(node: &str, first: u64) -> Vec<Envelope> {
    let web = ServiceId::new("web").unwrap();
    let incident = IncidentId(first + 1);
    let change = |state| {
        Body::ServiceChange(ServiceChange {
            service: web.clone(),
            state,
            instance: None,
            exit: None,
        })
    };
    let step = |phase| {
        Body::Step(Step {
            incident,
            plan: PlanId(1),
            step: 0,
            primitive: "restart(web, grace=0ms)".into(),
            phase,
            predicted: 1.0,
            health: 0.5,
        })
    };
    let alarm = |raised| {
        Body::Alarm(Alarm {
            alarm: "web-dead".into(),
            service: Some(web.clone()),
            severity: Severity::Critical,
            raised,
            text: "web is dead".into(),
        })
    };
    let bodies = vec![
        change(ServiceState::Down),
        Body::IncidentOpened(IncidentOpened {
            incident,
            service: web.clone(),
            symptom: Symptom::Dead,
            fault: Fault::Crash,
            confidence: 0.99,
            detected_after: Millis(2),
            evidence: vec!["process ended by signal 9".into()],
            connected: false,
        }),
        alarm(true),
        Body::Decided(Decided {
            incident,
            plan: Some(PlanId(1)),
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
            health: 0.5,
            predicted: 1.0,
        }),
        step(Phase::Started),
        step(Phase::Done),
        change(ServiceState::Healthy),
        Body::IncidentClosed(IncidentClosed {
            incident,
            outcome: Outcome::Healed,
            lasted: Millis(7),
            cost: 0.01,
            summary: "web answers again".into(),
        }),
        alarm(false),
    ];
    let mut story: Vec<_> = (first..)
        .zip(bodies)
        .map(|(seq, body)| envelope(node, seq, body))
        .collect();
    for index in 1..story.len() {
        let cause = story[index - 1].reference();
        story[index].causes.push(cause);
    }
    story
}

pub(super) fn ring(node: &str, seq: u64, raised: bool) -> Envelope {
    let body = Body::Alarm(Alarm {
        alarm: "web-quarantine".into(),
        service: None,
        severity: Severity::Critical,
        raised,
        text: format!("said in {seq}"),
    });
    envelope(node, seq, body)
}

pub(super) fn start(node: &str, seq: u64) -> Envelope {
    let body = Body::Boot(Boot {
        version: "1".into(),
        kernel: BootId([1; 16]),
        clock: ClockQuality::Plausible,
        adopted: 0,
        findings: Vec::new(),
    });
    envelope(node, seq, body)
}

/// A route with one backend whose weight says from which record it is.
pub(super) fn route(node: &str, seq: u64, name: &str) -> Envelope {
    let service = |name| ServiceId::new(name).unwrap();
    let body = Body::RouteChange(RouteChange {
        route: RouteId::new(name).unwrap(),
        listen: "10.0.0.1:9000".into(),
        callers: vec![service("gateway")],
        reached: seq.is_multiple_of(2),
        backends: vec![BackendState {
            backend: service("web"),
            address: "127.0.0.1:9001".into(),
            weight: u16::try_from(seq).unwrap(),
            configured: 100,
            healthy: true,
        }],
    });
    envelope(node, seq, body)
}

fn left(class: Criticality, seq: u64) -> ClassBudget {
    ClassBudget {
        class,
        beta: 45.0,
        balance: 20.0 + narrow(seq as f64),
        reserved: 0.5,
        overruns: seq,
    }
}

pub(super) fn budgets(node: &str, seq: u64, classes: [Criticality; 2]) -> Envelope {
    let classes = classes.map(|class| left(class, seq)).into();
    envelope(node, seq, Body::Budgets(Budgets { classes }))
}

pub(super) fn charge(node: &str, seq: u64, class: Criticality) -> Envelope {
    let body = Charge {
        incident: IncidentId(2),
        plan: PlanId(3),
        steps: vec![StepCost {
            predicted: CostParts::default(),
            spent: CostParts::default(),
        }],
        budget: left(class, seq),
    };
    envelope(node, seq, Body::Charge(body))
}
