//! Alarms about a model that is served: its world or its confidence has shifted, or it
//! disagrees with the model that it is compared with.
//!
//! In: what probes have told. Out: the alarms `SERVICE-drift` and `SERVICE-disagree`, and the
//! readings that `M_t` has of both. Nothing is restarted or rolled back for them: a restart
//! changes no world, and which of two models is right nobody here knows. What acts are golden
//! inputs with wrong answers, by the rules of the slot.

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, MetricReading, Reading};
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::Severity;

use super::Loop;
use super::message::Effect;
use crate::config::ProbeKind;
use crate::service::Answers;

impl Loop {
    /// Raises and clears what follows from the last answers about `service`.
    pub(super) fn judge_serving(&mut self, service: &ServiceId, effects: &mut Vec<Effect>) {
        let Some(watched) = self.services.get(service) else {
            return;
        };
        let shifted: Vec<String> = watched
            .probes
            .iter()
            .flat_map(|probe| probe.serving.shifted())
            .collect();
        let mut twins = watched.policy.probes.iter().zip(&watched.probes);
        let apart = twins.find_map(|(policy, watch)| {
            let ProbeKind::Inference {
                twin: Some(twin),
                disagree_max,
                ..
            } = &policy.kind
            else {
                return None;
            };
            let (share, of) = watch.answers.disagreement(self.answers_of(twin)?)?;
            let text = format!(
                "{service} and {twin} choose another class for {:.0} % of {of} known inputs; \
                 up to {:.0} % is usual",
                share * 100.0,
                disagree_max.get() * 100.0
            );
            (share > disagree_max.get()).then_some(text)
        });
        let name = format!("{service}-drift");
        match shifted.first() {
            Some(first) => {
                let more = match shifted.len() - 1 {
                    0 => String::new(),
                    more => format!("; {more} more shifted"),
                };
                let text = format!("the model of {service} may not fit any more: {first}{more}");
                self.raise(&name, Some(service), Severity::Warning, text, effects);
            }
            None => self.clear(&name, effects),
        }
        let name = format!("{service}-disagree");
        match apart {
            Some(text) => self.raise(&name, Some(service), Severity::Warning, text, effects),
            None => self.clear(&name, effects),
        }
    }

    fn answers_of(&self, service: &ServiceId) -> Option<&Answers> {
        let watched = self.services.get(service)?;
        let mut probes = watched.policy.probes.iter().zip(&watched.probes);
        probes.find_map(|(policy, watch)| {
            matches!(policy.kind, ProbeKind::Inference { .. }).then_some(&watch.answers)
        })
    }

    /// What is read of the models that are served.
    pub(super) fn serving_readings(&self, now: Micros) -> Vec<MetricReading> {
        let mut readings = Vec::new();
        for (id, watched) in &self.services {
            let mut push = |metric, reading: Reading<f64>| {
                readings.push(MetricReading::service(metric, id.clone(), reading));
            };
            for (policy, watch) in watched.policy.probes.iter().zip(&watched.probes) {
                match &policy.kind {
                    ProbeKind::Metrics {
                        serving: Some(_), ..
                    } => {
                        // One page that comes late makes nothing old.
                        let stale = Millis(3 * policy.period.0.max(1000));
                        let served = watch.serving.served(now, stale);
                        let [p50, p95, p99] = served.latency_ms;
                        push(Metric::ServedLatencyP50, p50);
                        push(Metric::ServedLatencyP95, p95);
                        push(Metric::ServedLatencyP99, p99);
                        push(Metric::ServedErrors, served.errors);
                        push(Metric::ServedRate, served.rate);
                        push(Metric::Confidence, served.confidence);
                        push(Metric::ConfidenceLow, served.confidence_low);
                        push(Metric::ConfidenceShift, served.confidence_shift);
                        push(Metric::InputShift, served.input_shift);
                    }
                    ProbeKind::Inference { twin, .. } => {
                        let error = watch.answers.error().map(f64::from);
                        push(Metric::GoldenError, error.into());
                        if let Some(twin) = twin {
                            let other = self.answers_of(twin);
                            let share = other.and_then(|other| watch.answers.disagreement(other));
                            let share = share.map(|(share, _)| f64::from(share));
                            push(Metric::Disagreement, share.into());
                        }
                    }
                    ProbeKind::Tcp | ProbeKind::Http { .. } | ProbeKind::Metrics { .. } => {}
                }
            }
        }
        readings
    }
}
