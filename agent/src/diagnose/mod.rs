//! Diagnose: from a symptom to the fault behind it.
//!
//! In: a finding and the state of the model file. Out: a [`Diagnosis`], or a
//! wish to look closer first ([`Step::CheckModel`]). Looks at one service; that
//! a dependency may be the root is the loop's concern, which holds back while a
//! dependency is under repair.

use homeostat_common::anomaly::{Diagnosis, Fault, Symptom};
use homeostat_common::ids::ServiceId;
use homeostat_common::units::Ratio;

use crate::detect::Finding;
use crate::service::ModelFile;

/// What diagnosis needs next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The model file must be compared with the verified one first.
    CheckModel,
    /// This is it.
    Known(Diagnosis),
}

/// Finds the fault behind a symptom. `model` is `None` for a service without;
/// `again`: it died shortly after it was started anew, so starting is no cure.
#[must_use]
pub fn diagnose(
    service: &ServiceId,
    finding: &Finding,
    model: Option<ModelFile>,
    again: bool,
) -> Step {
    let mut evidence = vec![finding.evidence.clone()];
    let differs = matches!(model, Some(ModelFile::Differs(_)));
    let known = |fault, evidence| {
        Step::Known(Diagnosis {
            service: service.clone(),
            fault,
            confidence: confidence(finding, fault, differs),
            evidence,
        })
    };
    let from_model = match finding.symptom {
        Symptom::WrongAnswers | Symptom::NotStarting => true,
        // The first death is answered at once; only a service that keeps dying
        // is worth the time to look at its model.
        Symptom::Dead => again,
        Symptom::Hung
        | Symptom::Leaking
        | Symptom::Slow
        | Symptom::Hogging
        | Symptom::DataFull
        | Symptom::Saturated
        | Symptom::Requested => false,
    };
    match model {
        Some(ModelFile::Unchecked | ModelFile::Checking(_)) if from_model => {
            return Step::CheckModel;
        }
        Some(ModelFile::Differs(found)) if from_model => {
            evidence.push(match found {
                Some(found) => format!("the model file is {found}, not the verified one"),
                None => "the model file cannot be read".into(),
            });
            return known(Fault::ModelCorrupt, evidence);
        }
        Some(ModelFile::Unanswered) if from_model => {
            evidence.push("the model file could not be compared in time".into());
            return known(Fault::ModelCorrupt, evidence);
        }
        Some(ModelFile::Intact) if from_model => {
            evidence.push("the model file is the verified one".into());
        }
        _ => {}
    }
    let fault = match finding.symptom {
        Symptom::Dead => Fault::Crash,
        Symptom::Hung => Fault::Hang,
        Symptom::WrongAnswers => Fault::WrongAnswers,
        Symptom::Leaking => Fault::MemoryLeak,
        Symptom::NotStarting => Fault::StartFailure,
        Symptom::Slow => Fault::SlowReplica,
        Symptom::Hogging => Fault::CpuHog,
        Symptom::DataFull => Fault::DataFull,
        Symptom::Saturated => Fault::Saturation,
        Symptom::Requested => Fault::Request,
    };
    known(fault, evidence)
}

fn confidence(finding: &Finding, fault: Fault, differs: bool) -> Ratio {
    match fault {
        // Two independent signs agree: wrong answers and another file.
        Fault::ModelCorrupt if differs => Ratio::saturating(0.99),
        _ => finding.score,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::units::Micros;

    fn fault(symptom: Symptom, model: Option<ModelFile>) -> Option<Fault> {
        fault_again(symptom, model, false)
    }

    fn fault_again(symptom: Symptom, model: Option<ModelFile>, again: bool) -> Option<Fault> {
        let finding = Finding {
            symptom,
            since: Micros(0),
            score: Ratio::saturating(0.9),
            evidence: "seen".into(),
        };
        match diagnose(&ServiceId::new("infer").unwrap(), &finding, model, again) {
            Step::CheckModel => None,
            Step::Known(diagnosis) => Some(diagnosis.fault),
        }
    }

    #[test]
    fn wrong_answers_are_blamed_on_the_model_only_after_a_look_at_it() {
        let symptom = Symptom::WrongAnswers;
        assert_eq!(fault(symptom, None), Some(Fault::WrongAnswers));
        assert_eq!(fault(symptom, Some(ModelFile::Unchecked)), None);
        assert_eq!(
            fault(symptom, Some(ModelFile::Intact)),
            Some(Fault::WrongAnswers)
        );
        assert_eq!(
            fault(symptom, Some(ModelFile::Differs(None))),
            Some(Fault::ModelCorrupt)
        );
    }

    #[test]
    fn a_service_that_keeps_dying_may_be_dying_of_its_model() {
        let again = |model| fault_again(Symptom::Dead, Some(model), true);
        assert_eq!(again(ModelFile::Unchecked), None);
        assert_eq!(again(ModelFile::Intact), Some(Fault::Crash));
        assert_eq!(again(ModelFile::Unanswered), Some(Fault::ModelCorrupt));
        assert_eq!(again(ModelFile::Differs(None)), Some(Fault::ModelCorrupt));
    }

    #[test]
    fn a_first_death_is_never_kept_waiting_for_the_model() {
        assert_eq!(
            fault(Symptom::Dead, Some(ModelFile::Unchecked)),
            Some(Fault::Crash)
        );
    }
}
