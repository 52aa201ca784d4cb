//! Detect: from what is known about a service to what is wrong with it.
//!
//! In: one [`Watched`] record. Out: at most one [`Finding`], the gravest. The
//! streaming detectors themselves live in `homeostat-detect`; here their
//! verdicts are put in order and into words. Decides nothing about what to do.

pub mod usual;

use std::fmt::Write as _;

use homeostat_common::anomaly::{Exit, Fault, Symptom};
use homeostat_common::units::{Bytes, Micros, Millis, Ratio};
use homeostat_detect::hang::{Hang, Verdict as HangVerdict};
use homeostat_detect::slope::Verdict as SlopeVerdict;

use crate::config::ProbeKind;
use crate::service::{HOG_SPAN, Shortage, Slot, Watched, instant};

/// Something wrong with one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What.
    pub symptom: Symptom,
    /// What is behind it, where that is known without a diagnosis.
    pub cause: Option<Fault>,
    /// When the first sign of it was seen.
    pub since: Micros,
    /// How sure.
    pub score: Ratio,
    /// What was seen, for people.
    pub evidence: String,
}

/// Longest wait for a measurement of data before wrong answers are judged.
const MEASURE_MAX: Millis = Millis::secs(2);

/// So long it is waited for what a service needs elsewhere: two questions that are not answered
/// in time, by default, and a sample.
const ELSEWHERE_MAX: Millis = Millis::secs(5);

/// The forwarder reports with every sample; without a word for so long it hangs.
const SILENCE_MAX: Millis = Millis::secs(3);

/// ... and for so long while tasks of this node wait for a core: then silence says
/// little about the process.
const SILENCE_PRESSED_MAX: Millis = Millis::secs(10);

/// The gravest thing wrong with a service now. `slow` is what the forwarder says
/// about it beside its peers: since when it is slow, and how much.
#[must_use]
pub fn examine(service: &Watched, slow: Option<(Micros, &str)>, now: Micros) -> Option<Finding> {
    match service.slot {
        // Nothing runs there, and nothing is meant to.
        Slot::Down { .. } if !service.wanted() => None,
        // Never started is not a fault; it is started on the first occasion.
        Slot::Unknown | Slot::Starting { .. } | Slot::Down { last: None, .. } => None,
        Slot::Down {
            since,
            last: Some((instance, exit)),
        } => Some(Finding {
            symptom: Symptom::Dead,
            cause: None,
            since,
            score: Ratio::ONE,
            evidence: match &service.start_error {
                Some(why) => format!("it cannot be started: {why}"),
                // How it ended is often known only a moment later.
                None if exit == Exit::Unknown => {
                    format!("the kernel says that process {instance} is gone")
                }
                None => format!("the kernel says that process {instance} is gone ({exit})"),
            },
        }),
        // It is silent because it was told to be.
        Slot::Up { .. } if service.is_paused() => None,
        // Restarting helps nobody who has no room.
        Slot::Up { .. } if !service.proven(now) && full(service).is_some() => full(service),
        Slot::Up { since, .. } if !service.proven(now) => {
            let due = since + service.policy.start_timeout;
            (now >= due).then(|| Finding {
                symptom: Symptom::NotStarting,
                cause: None,
                since,
                score: Ratio::saturating(0.9),
                evidence: format!(
                    "no right answer within {} of its start{}",
                    service.policy.start_timeout,
                    wrong_words(service)
                ),
            })
        }
        Slot::Up { since, .. } => hung(service, now)
            .or_else(|| silent(service, now))
            // A full disk makes answers wrong; it is the nearer reason.
            .or_else(|| full(service))
            .or_else(|| wrong(service, now))
            .or_else(|| leaking(service, since))
            .or_else(|| leaking_descriptors(service, since))
            .or_else(|| hogging(service, now))
            .or_else(|| saturated(service, now))
            .or_else(|| {
                slow.map(|(since, words)| Finding {
                    symptom: Symptom::Slow,
                    cause: None,
                    since,
                    score: Ratio::saturating(0.9),
                    evidence: words.to_owned(),
                })
            }),
    }
}

fn hung(service: &Watched, now: Micros) -> Option<Finding> {
    service
        .probes
        .iter()
        .enumerate()
        .find_map(|(place, probe)| {
            let HangVerdict::Hung { since, by_cap } = probe.hang.verdict(instant(now)) else {
                return None;
            };
            let since = Micros(u64::try_from(since.as_micros()).unwrap_or(now.0));
            let policy = service.policy.probes.get(place)?;
            Some(Finding {
                symptom: Symptom::Hung,
                cause: None,
                since,
                // Under pressure silence says less, so the cap's word counts less.
                score: Ratio::saturating(if by_cap { 0.9 } else { 0.97 }),
                evidence: format!(
                    "port {} answered nothing for {}{}{}",
                    policy.port,
                    now.since(since),
                    if by_cap {
                        ", longer than pressure on the node can explain"
                    } else {
                        ""
                    },
                    looked(&probe.hang, now) + &cause_words(service)
                ),
            })
        })
        .or_else(|| stopped(service, now))
}

/// Whoever was stopped answers nobody, and no pressure on the node explains that.
fn stopped(service: &Watched, now: Micros) -> Option<Finding> {
    let since = service.frozen_process(now)?;
    Some(Finding {
        symptom: Symptom::Hung,
        cause: None,
        since,
        score: Ratio::saturating(0.99),
        evidence: format!(
            "its process has been stopped for {} (state T: somebody sent SIGSTOP)",
            now.since(since)
        ),
    })
}

/// What the kernel shows of a process that answers nothing, as far as that is a reason.
fn cause_words(service: &Watched) -> String {
    if service.stopped.is_some() {
        return "; its process is stopped (state T: somebody sent SIGSTOP)".to_owned();
    }
    match service.descriptors.of_limit() {
        // Threads that wait in `accept` have one each set aside, which does not count yet.
        Some((used, limit)) if used.saturating_mul(10) >= limit.saturating_mul(9) => {
            format!("; {used} of the {limit} descriptors that it may open are open")
        }
        _ => String::new(),
    }
}

/// What the verdict rests on, so that a wrong one can be explained afterwards.
fn looked(hang: &Hang, now: Micros) -> String {
    let (misses, look) = hang.evidence();
    let mut text = format!("; {misses} probes missed");
    let Some((at, pressure)) = look else {
        text.push_str(", nothing measured since");
        return text;
    };
    let ago = instant(now).saturating_sub(at).as_millis();
    let shares = [
        ("tasks waited for a core", pressure.cpu_psi),
        ("for the disk", pressure.io_psi),
        ("its threads for a core", pressure.run_delay),
    ];
    for (what, share) in shares.into_iter().filter(|(_, share)| share.is_finite()) {
        let _ = write!(text, ", {what} {:.0} %", share * 100.0);
    }
    let _ = write!(
        text,
        ", the agent was {} ms late{}; seen {ago} ms ago",
        pressure.own_lag.as_millis(),
        if pressure.starved {
            ", it wanted to run and could not"
        } else {
            ""
        }
    );
    text
}

fn wrong(service: &Watched, now: Micros) -> Option<Finding> {
    // A full disk makes answers wrong: first a look at it, which is on its way.
    let since = service
        .probes
        .iter()
        .filter_map(|probe| probe.wrong_since)
        .min();
    let looked = service.data_at >= since;
    let waited = since.is_none_or(|since| now.since(since) >= MEASURE_MAX);
    if service.policy.data.is_some() && !looked && !waited {
        return None;
    }
    // So does one elsewhere that refuses: first its answer, which is on its way too.
    let asked = service.policy.needs.is_empty() || service.elsewhere >= since;
    if !asked && since.is_some_and(|since| now.since(since) < ELSEWHERE_MAX) {
        return None;
    }
    let found = service
        .probes
        .iter()
        .any(|probe| probe.hang.verdict(instant(now)) == HangVerdict::Wrong);
    found.then(|| Finding {
        symptom: Symptom::WrongAnswers,
        cause: None,
        since: service.probed.unwrap_or(now),
        score: Ratio::saturating(0.95),
        evidence: format!("answers, but wrongly{}", wrong_words(service)),
    })
}

/// The forwarder reports by itself, and did not.
fn silent(service: &Watched, now: Micros) -> Option<Finding> {
    let heard = service.heard?;
    let most = if service.pressed {
        SILENCE_PRESSED_MAX
    } else {
        SILENCE_MAX
    };
    (now.since(heard) >= most).then(|| Finding {
        symptom: Symptom::Hung,
        cause: None,
        since: heard,
        score: Ratio::saturating(0.95),
        evidence: format!("it has not reported for {}", now.since(heard)),
    })
}

fn full(service: &Watched) -> Option<Finding> {
    let data = service.policy.data.as_ref()?;
    let used = service.data_used.fresh()?;
    (used.0 >= data.full.of(data.quota.0)).then(|| Finding {
        symptom: Symptom::DataFull,
        cause: None,
        since: service.data_at.unwrap_or_default(),
        score: Ratio::ONE,
        evidence: format!(
            "{used} of {} in {} are used",
            data.quota,
            data.path.display()
        ),
    })
}

fn saturated(service: &Watched, now: Micros) -> Option<Finding> {
    let probes = service.probes.iter().zip(&service.policy.probes);
    probes.into_iter().find_map(|(watch, probe)| {
        let ProbeKind::Metrics { gauges, .. } = &probe.kind else {
            return None;
        };
        let (gauge, value, since) = watch.metrics.above(gauges, now)?;
        Some(Finding {
            symptom: Symptom::Saturated,
            cause: None,
            since,
            score: Ratio::saturating(0.8),
            evidence: format!(
                "its {} has been above {} for {}, now {value}",
                gauge.name,
                gauge.max,
                now.since(since)
            ),
        })
    })
}

fn hogging(service: &Watched, now: Micros) -> Option<Finding> {
    let limit = service.policy.cpu_limit?;
    let mean = service.cpu.above(limit)?;
    Some(Finding {
        symptom: Symptom::Hogging,
        cause: None,
        since: Micros(now.0.saturating_sub(HOG_SPAN.0 * 1000)),
        score: Ratio::saturating(0.9),
        evidence: format!("it has used {mean:.2} cores for {HOG_SPAN}, {limit} are expected"),
    })
}

fn leaking(service: &Watched, since: Micros) -> Option<Finding> {
    let SlopeVerdict::Leak { rate, eta } = service.growth else {
        return None;
    };
    // A float that is cut to an integer saturates, and a rate is finite.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let per_second = Bytes(rate.max(0.0) as u64);
    let limit = service.policy.memory_limit;
    Some(Finding {
        symptom: Symptom::Leaking,
        cause: None,
        since: service.sampled.unwrap_or(since),
        score: Ratio::saturating(0.9),
        evidence: match (eta, limit) {
            (Some(eta), Some(limit)) => format!(
                "memory grows by {per_second}/s and reaches its limit of {limit} in {}",
                Millis::secs(eta.as_secs())
            ),
            _ => format!("memory grows by {per_second}/s"),
        },
    })
}

fn leaking_descriptors(service: &Watched, since: Micros) -> Option<Finding> {
    let shortage = service.descriptors.shortage()?;
    let (used, limit) = service.descriptors.of_limit()?;
    let (since, score, words) = match shortage {
        Shortage::Growing { rate, eta } => (
            service.sampled.unwrap_or(since),
            0.9,
            format!(
                "they grow by {rate:.0}/s and are used up in {}",
                Millis::secs(eta.as_secs())
            ),
        ),
        Shortage::High { since } => (since, 0.8, "there are few left".to_owned()),
    };
    Some(Finding {
        symptom: Symptom::LeakingDescriptors,
        cause: None,
        since,
        score: Ratio::saturating(score),
        evidence: format!("{used} of {limit} descriptors are open: {words}"),
    })
}

fn wrong_words(service: &Watched) -> String {
    service
        .probes
        .iter()
        .find_map(|probe| probe.wrong.as_ref())
        .map(|wrong| format!(": {wrong}"))
        .unwrap_or_default()
}
