//! Diagnose: from a symptom to the fault behind it.
//!
//! In: a finding and what is known of the service's slots. Out: a [`Diagnosis`],
//! or a wish to look closer first ([`Step::CheckSlot`]). [`diagnose`] looks at one
//! service; who else may be behind it says [`causal`], over the graph of [`topology`], by what
//! metrics mean there ([`meaning`]).

pub mod causal;
pub mod meaning;
pub mod topology;

use std::collections::BTreeMap;

use homeostat_common::anomaly::{Diagnosis, Fault, Symptom};
use homeostat_common::ids::ServiceId;
use homeostat_common::units::Ratio;

use crate::detect::Finding;
use crate::service::{SlotFile, SlotName, SlotWatch};

/// What diagnosis needs next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// This slot must be looked at first.
    CheckSlot(SlotName),
    /// This is it.
    Known(Diagnosis),
}

/// Finds the fault behind a symptom. `suspect`: it died without having worked, or
/// again, so starting is no cure.
#[must_use]
pub fn diagnose(
    service: &ServiceId,
    finding: &Finding,
    slots: &BTreeMap<SlotName, SlotWatch>,
    suspect: bool,
) -> Step {
    let mut evidence = vec![finding.evidence.clone()];
    // What most often is behind it comes first.
    let order: &[SlotName] = match finding.symptom {
        Symptom::WrongAnswers => &[SlotName::Model, SlotName::Config],
        Symptom::NotStarting => &[SlotName::Config, SlotName::Model],
        // A death after it had worked is answered at once; only a service that
        // dies as it starts is worth the time to look at what it reads.
        Symptom::Dead if suspect => &[SlotName::Config, SlotName::Model],
        Symptom::Dead
        | Symptom::Hung
        | Symptom::Leaking
        | Symptom::LeakingDescriptors
        | Symptom::Slow
        | Symptom::Hogging
        | Symptom::DataFull
        | Symptom::Saturated
        | Symptom::Requested
        | Symptom::Foreseen => &[],
    };
    for name in order {
        let Some(slot) = slots.get(name) else {
            continue;
        };
        let blamed = match slot.file {
            SlotFile::Unchecked | SlotFile::Checking(_) => return Step::CheckSlot(*name),
            SlotFile::Good => None,
            SlotFile::Other | SlotFile::Unanswered => Some(match name {
                SlotName::Config => Fault::BadConfig,
                SlotName::Model if slot.found.named == slot.found.present => Fault::BadModel,
                SlotName::Model => Fault::ModelCorrupt,
            }),
        };
        evidence.push(slot.words(*name));
        if let Some(fault) = blamed {
            // Two independent signs agree: what it does, and what it reads.
            let sure = slot.file == SlotFile::Other && slot.back().is_some();
            return Step::Known(Diagnosis {
                service: service.clone(),
                fault,
                confidence: if sure {
                    Ratio::saturating(0.99)
                } else {
                    finding.score
                },
                evidence,
            });
        }
    }
    let fault = match finding.symptom {
        Symptom::Dead => Fault::Crash,
        Symptom::Hung => Fault::Hang,
        Symptom::WrongAnswers => Fault::WrongAnswers,
        Symptom::Leaking => Fault::MemoryLeak,
        Symptom::LeakingDescriptors => Fault::DescriptorLeak,
        Symptom::NotStarting => Fault::StartFailure,
        Symptom::Slow => Fault::SlowReplica,
        Symptom::Hogging => Fault::CpuHog,
        Symptom::DataFull => Fault::DataFull,
        Symptom::Saturated => Fault::Saturation,
        Symptom::Requested | Symptom::Foreseen => finding.cause.unwrap_or(Fault::Request),
    };
    Step::Known(Diagnosis {
        service: service.clone(),
        fault,
        confidence: finding.score,
        evidence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{SlotFound, Version};
    use homeostat_common::ids::ModelVersion;
    use homeostat_common::units::Micros;

    const GOOD: Version = ModelVersion([1; 8]);
    const BAD: Version = ModelVersion([2; 8]);

    fn slot(present: Option<Version>, named: Option<Version>) -> SlotWatch {
        let mut slot = SlotWatch {
            file: SlotFile::Unchecked,
            found: SlotFound::default(),
            keep_at: None,
            candidate: None,
        };
        slot.checked(SlotFound {
            present,
            named,
            good: vec![GOOD],
            staged: None,
        });
        slot
    }

    fn said(symptom: Symptom, slots: &[(SlotName, SlotWatch)], suspect: bool) -> String {
        let finding = Finding {
            symptom,
            cause: None,
            since: Micros(0),
            score: Ratio::saturating(0.9),
            evidence: "seen".into(),
        };
        let slots = slots.iter().cloned().collect();
        match diagnose(&ServiceId::new("infer").unwrap(), &finding, &slots, suspect) {
            Step::CheckSlot(name) => format!("look at {name}"),
            Step::Known(diagnosis) => diagnosis.fault.to_string(),
        }
    }

    #[test]
    fn wrong_answers_are_blamed_on_a_slot_only_after_a_look_at_it() {
        let said = |slots: &[(SlotName, SlotWatch)]| said(Symptom::WrongAnswers, slots, false);
        let good = slot(Some(GOOD), Some(GOOD));
        let mut doubted = good.clone();
        doubted.doubt();
        assert_eq!(said(&[]), "wrong-answers");
        assert_eq!(said(&[(SlotName::Model, doubted)]), "look at model");
        assert_eq!(said(&[(SlotName::Model, good.clone())]), "wrong-answers");
        let damaged = slot(Some(BAD), Some(GOOD));
        assert_eq!(said(&[(SlotName::Model, damaged)]), "model-corrupt");
        let replaced = slot(Some(BAD), Some(BAD));
        assert_eq!(said(&[(SlotName::Model, replaced.clone())]), "bad-model");
        let both = [(SlotName::Model, good), (SlotName::Config, replaced)];
        assert_eq!(said(&both), "bad-config");
    }

    #[test]
    fn only_a_service_that_dies_as_it_starts_may_be_dying_of_what_it_reads() {
        let unread = slot(None, Some(GOOD));
        let mut doubted = slot(Some(GOOD), Some(GOOD));
        doubted.doubt();
        let config = |slot: &SlotWatch| [(SlotName::Config, slot.clone())];
        assert_eq!(said(Symptom::Dead, &config(&doubted), false), "crash");
        assert_eq!(
            said(Symptom::Dead, &config(&doubted), true),
            "look at config"
        );
        assert_eq!(said(Symptom::Dead, &config(&unread), true), "bad-config");
        assert_eq!(said(Symptom::Hung, &config(&unread), true), "hang");
    }
}
