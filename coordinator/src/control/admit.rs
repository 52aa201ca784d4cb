//! Decides what a message from the broker is: a record to store, a word about
//! presence, or something to refuse with a reason.
//!
//! In: topic and payload, as hostile as they come. Out: [`Admitted`] or
//! [`Refused`]. Looks at nothing else; whether a record is new, and whether its
//! stream belongs to the node, only the database can tell.

use homeostat_common::ids::{NodeId, SiteId};
use homeostat_common::saga::Answer;
use homeostat_common::wire::body::{ClassBudget, Gap, StepCost};
use homeostat_common::wire::projection::Status;
use homeostat_common::wire::{Body, Envelope, RECORD_MAX, WireError, bounded, topic};

/// How much of a refused message's topic and reason is kept: enough to find
/// its sender, little enough for a storm of them.
pub const KEPT_TEXT_MAX: usize = 256;

/// How many of a refused message's first bytes are kept.
pub const KEPT_BYTES_MAX: usize = 64;

/// Largest number that the database can hold; a node that counts one event per
/// microsecond gets there in 290,000 years.
pub const NUMBER_MAX: u64 = i64::MAX as u64;

/// Something to act on.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted {
    /// To be stored once.
    Record(Box<Envelope>),
    /// What a node says of its part of a plan across nodes.
    Answer(NodeId, Box<Answer>),
    /// A node came or went.
    Presence {
        /// Where the topic says it stands.
        site: SiteId,
        /// `None` when its retained status was deleted.
        status: Option<Box<Status>>,
        /// Who.
        node: NodeId,
    },
}

/// Why a message is not taken; the label of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A topic that is not subscribed to, or with names that are none.
    Topic,
    /// Larger than a record may be.
    TooLarge,
    /// Written by a newer program.
    Version,
    /// Not what the schema says.
    Malformed,
    /// Topic and content name different senders.
    Sender,
    /// A number that cannot be, or a gap that names what it may not.
    Range,
    /// The stream belongs to another node.
    Owner,
    /// The fleet has as many nodes as it may have.
    Full,
    /// The database refuses this record and no other.
    Storage,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Topic,
        Self::TooLarge,
        Self::Version,
        Self::Malformed,
        Self::Sender,
        Self::Range,
        Self::Owner,
        Self::Full,
        Self::Storage,
    ];

    /// Its name in `/metrics`, the log and the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::TooLarge => "too-large",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Sender => "sender",
            Self::Range => "range",
            Self::Owner => "owner",
            Self::Full => "full",
            Self::Storage => "storage",
        }
    }
}

/// What is kept of a message that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The kind of objection.
    pub reason: Reason,
    /// Where it came from.
    pub topic: String,
    /// The objection.
    pub detail: String,
    /// Its size.
    pub size: usize,
    /// Its beginning.
    pub head: Vec<u8>,
}

impl Refused {
    /// Keeps a bounded part of the message.
    #[must_use]
    pub fn new(reason: Reason, topic: &[u8], payload: &[u8], detail: &str) -> Self {
        Self {
            reason,
            topic: bounded(&String::from_utf8_lossy(topic), KEPT_TEXT_MAX),
            detail: bounded(detail, KEPT_TEXT_MAX),
            size: payload.len(),
            head: payload.iter().take(KEPT_BYTES_MAX).copied().collect(),
        }
    }
}

/// Judges one message.
///
/// # Errors
/// [`Refused`] says why it cannot be taken; the next one is judged afresh.
pub fn admit(topic: &[u8], payload: &[u8]) -> Result<Admitted, Refused> {
    let refuse = |reason, detail: &str| Refused::new(reason, topic, payload, detail);
    let text =
        std::str::from_utf8(topic).map_err(|_| refuse(Reason::Topic, "the topic is not UTF-8"))?;
    let (site, node) =
        topic::address(text).ok_or_else(|| refuse(Reason::Topic, "no site and node in it"))?;
    if payload.len() > RECORD_MAX {
        return Err(refuse(
            Reason::TooLarge,
            &WireError::TooLarge(payload.len()).to_string(),
        ));
    }
    let mut rest = text.split('/').skip(4);
    match (rest.next(), rest.next(), rest.next()) {
        (Some("status"), None, None) => {
            presence(site, node, payload).map_err(|(reason, detail)| refuse(reason, &detail))
        }
        (Some("ans"), Some(topic::COORDINATOR), None) => {
            let answer = Answer::decode(payload)
                .map_err(|error| refuse(reason(&error), &error.to_string()))?;
            if answer.saga.by.as_str() != topic::COORDINATOR {
                let detail = format!("an answer to {}", answer.saga.by);
                return Err(refuse(Reason::Sender, &detail));
            }
            Ok(Admitted::Answer(node, Box::new(answer)))
        }
        (Some("up"), Some(stream), None) => {
            let envelope = Envelope::decode(payload)
                .map_err(|error| refuse(reason(&error), &error.to_string()))?;
            if envelope.site != site
                || envelope.node != node
                || envelope.stream.to_string() != stream
            {
                return Err(refuse(
                    Reason::Sender,
                    &format!(
                        "the envelope says {}/{}, stream {}",
                        envelope.site, envelope.node, envelope.stream
                    ),
                ));
            }
            in_range(&envelope).map_err(|detail| refuse(Reason::Range, &detail))?;
            Ok(Admitted::Record(Box::new(envelope)))
        }
        _ => Err(refuse(
            Reason::Topic,
            "neither up/{stream} nor status nor an answer",
        )),
    }
}

fn reason(error: &WireError) -> Reason {
    match error {
        WireError::TooLarge(_) => Reason::TooLarge,
        WireError::Version(_) => Reason::Version,
        WireError::Malformed(_) | WireError::Trailing(_) | WireError::Causes(_) => {
            Reason::Malformed
        }
    }
}

fn presence(site: SiteId, node: NodeId, payload: &[u8]) -> Result<Admitted, (Reason, String)> {
    if payload.is_empty() {
        return Ok(Admitted::Presence {
            site,
            status: None,
            node,
        });
    }
    let status: Status = serde_json::from_slice(payload)
        .map_err(|error| (Reason::Malformed, format!("status: {error}")))?;
    if status.node != node {
        return Err((
            Reason::Sender,
            format!("the status says node {}", status.node),
        ));
    }
    if status.acked > NUMBER_MAX {
        return Err((
            Reason::Range,
            format!("acknowledged {} is above {NUMBER_MAX}", status.acked),
        ));
    }
    Ok(Admitted::Presence {
        site,
        status: Some(Box::new(Status {
            version: bounded(&status.version, KEPT_TEXT_MAX),
            ..status
        })),
        node,
    })
}

fn in_range(envelope: &Envelope) -> Result<(), String> {
    let number = |what: &str, value: u64| {
        if (1..=NUMBER_MAX).contains(&value) {
            Ok(())
        } else {
            Err(format!("{what} {value} is not in 1..={NUMBER_MAX}"))
        }
    };
    number("sequence number", envelope.seq)?;
    envelope
        .causes
        .iter()
        .try_for_each(|cause| number("sequence number of a cause", cause.seq))?;
    match &envelope.body {
        Body::IncidentOpened(body) => number("incident", body.incident.0),
        Body::Decided(body) => number("incident", body.incident.0),
        Body::Step(body) => number("incident", body.incident.0),
        Body::IncidentClosed(body) => number("incident", body.incident.0),
        Body::Charge(body) => {
            number("incident", body.incident.0)?;
            costs(&body.steps)?;
            standing(&body.budget)
        }
        Body::Diagnosed(body) => number("incident", body.incident.0),
        Body::Joined(body) => number("incident", body.incident.0),
        Body::Budgets(body) => body.classes.iter().try_for_each(standing),
        Body::Control(body) => body
            .incident
            .map_or(Ok(()), |incident| number("incident", incident.0)),
        Body::Gap(Gap { from, through, .. }) => {
            number("gap from", *from)?;
            number("gap through", *through)?;
            // A gap may stand at a number of its own or at one of those it
            // names, but what comes first cannot be lost already.
            if from > through || *from > envelope.seq {
                return Err(format!(
                    "a gap from {from} through {through} in event {}",
                    envelope.seq
                ));
            }
            Ok(())
        }
        Body::Boot(_)
        | Body::ServiceChange(_)
        | Body::Alarm(_)
        | Body::Telemetry(_)
        | Body::Observation(_)
        | Body::Note(_)
        | Body::State(_)
        | Body::RouteChange(_)
        | Body::Topology(_)
        | Body::Unknown { .. } => Ok(()),
    }
}

/// SQLite keeps a number that is none as NULL, and no answer could name it.
fn finite(what: &str, value: f32) -> Result<(), String> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(format!("{what} is {value}"))
    }
}

fn standing(budget: &ClassBudget) -> Result<(), String> {
    finite("beta", budget.beta)?;
    finite("a balance", budget.balance)?;
    finite("what is reserved", budget.reserved)
}

fn costs(steps: &[StepCost]) -> Result<(), String> {
    steps
        .iter()
        .flat_map(|step| [step.predicted, step.spent])
        .flat_map(|cost| [cost.resource, cost.disruption, cost.risk])
        .try_for_each(|part| finite("a cost", part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::gate::Criticality;
    use homeostat_common::hlc::Hlc;
    use homeostat_common::ids::{BootId, IncidentId, PlanId, StreamId};
    use homeostat_common::wire::body::{Budgets, Charge, CostParts, Note};
    use proptest::prelude::*;

    fn note(seq: u64) -> Envelope {
        Envelope {
            site: SiteId::new("plant-7").unwrap(),
            node: NodeId::new("edge-1").unwrap(),
            stream: StreamId([7; 16]),
            seq,
            boot: BootId([1; 16]),
            hlc: Hlc::new(5, 0),
            causes: Vec::new(),
            body: Body::Note(Note {
                service: None,
                text: "x".into(),
            }),
        }
    }

    const TOPIC: &str = "hs/v1/plant-7/edge-1/up/07070707070707070707070707070707";

    fn refusal(topic: &str, payload: &[u8]) -> Reason {
        admit(topic.as_bytes(), payload).unwrap_err().reason
    }

    #[test]
    fn a_record_is_taken_only_under_its_own_topic() {
        let bytes = note(1).encode().unwrap();
        assert!(matches!(
            admit(TOPIC.as_bytes(), &bytes),
            Ok(Admitted::Record(_))
        ));
        for other in [
            TOPIC.replace("plant-7", "plant-8"),
            TOPIC.replace("edge-1", "edge-2"),
            TOPIC.replace("/0707", "/0807"),
        ] {
            assert_eq!(refusal(&other, &bytes), Reason::Sender, "{other}");
        }
        assert_eq!(refusal("hs/v1/A/b/up/c", &bytes), Reason::Topic);
        assert_eq!(
            refusal("hs/v1/plant-7/edge-1/evt/boot", &bytes),
            Reason::Topic
        );
    }

    #[test]
    fn each_defect_is_refused_by_its_own_name() {
        assert_eq!(refusal(TOPIC, &[9, 1, 2]), Reason::Version);
        assert_eq!(refusal(TOPIC, &[1, 2]), Reason::Malformed);
        assert_eq!(refusal(TOPIC, &vec![1; RECORD_MAX + 1]), Reason::TooLarge);
        assert_eq!(refusal(TOPIC, &note(0).encode().unwrap()), Reason::Range);
        assert_eq!(
            refusal(TOPIC, &note(u64::MAX).encode().unwrap()),
            Reason::Range
        );
        for (from, through) in [(0, 3), (4, 3), (10, 12), (3, u64::MAX)] {
            let mut gap = note(9);
            gap.body = Body::Gap(Gap {
                from,
                through,
                heal: 0,
            });
            assert_eq!(
                refusal(TOPIC, &gap.encode().unwrap()),
                Reason::Range,
                "{from}..={through}"
            );
        }
        for body in numbers_that_are_none() {
            let mut record = note(9);
            record.body = body;
            assert_eq!(refusal(TOPIC, &record.encode().unwrap()), Reason::Range);
        }
        let kept = Refused::new(Reason::Malformed, &[b'x'; 999], &[7; 999], &"y".repeat(999));
        assert_eq!(
            (kept.topic.len(), kept.detail.len(), kept.head.len()),
            (KEPT_TEXT_MAX, KEPT_TEXT_MAX, KEPT_BYTES_MAX)
        );
    }

    fn numbers_that_are_none() -> [Body; 3] {
        let budget = ClassBudget {
            class: Criticality::Mission,
            beta: 45.0,
            balance: 30.0,
            reserved: 0.0,
            overruns: 0,
        };
        let charge = |spent, balance| {
            Body::Charge(Charge {
                incident: IncidentId(3),
                plan: PlanId(4),
                steps: vec![StepCost {
                    predicted: CostParts::default(),
                    spent: CostParts {
                        risk: spent,
                        ..CostParts::default()
                    },
                }],
                budget: ClassBudget { balance, ..budget },
            })
        };
        let beta = f32::NAN;
        let classes = vec![budget, ClassBudget { beta, ..budget }];
        [
            charge(f32::INFINITY, 1.0),
            charge(1.0, f32::NAN),
            Body::Budgets(Budgets { classes }),
        ]
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(topic in ".{0,60}", payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = admit(topic.as_bytes(), &payload);
            let _ = admit(TOPIC.as_bytes(), &payload);
            let _ = admit(b"hs/v1/plant-7/edge-1/status", &payload);
        }
    }
}
