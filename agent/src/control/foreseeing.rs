//! What will be wrong: forecasts of memory, data, disk and heat, and the ends of
//! certificates.
//!
//! In go samples and measurements; out comes, for a service, a finding
//! [`Symptom::Foreseen`] with the fault that it will be, or an alarm for people.
//!
//! When something is done follows from how long it takes: there has to be time for the plan,
//! and when that fails for the hold and the plan again. Later is better, since a trend is
//! known best close to the limit and each repair that was not needed is one too many. A
//! finding is made only of what a plan could be admitted for; about the rest people are told,
//! `tell` before. Nothing is foreseen while something else is being mended: what is measured
//! then is not how the node usually is.
//!
//! What is foreseen is held in memory alone: after a restart of the agent it is learnt anew.

use std::collections::BTreeMap;
use std::time::Duration;

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::gate::{self, Rule};
use homeostat_common::ids::{IncidentId, Instance, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Bytes, Micros, Millis, Percent, Ratio};
use homeostat_common::wire::body::Severity;
use homeostat_detect::forecast::{Forecast, Horizon, Policy};

use super::certifying::{Certificates, certificate_alarm};
use super::message::Effect;
use super::{Incident, Loop};
use crate::config::{Config, Foresee};
use crate::detect::Finding;
use crate::plan::Candidate;
use crate::service::{Slot, instant, span};

/// Samples in the shortest bucket, at least.
const SAMPLES_MIN: u32 = 4;

/// How sure a forecast is that the value goes on growing; what it is sure of about the time
/// stands in its interval.
const SURE: f32 = 0.9;

/// An alarm that has no reason any more stands for so long: the next look may find it again.
const LINGER: Millis = Millis::secs(600);

/// Who uses less than this many cores heats nothing.
const WARM_CORES: f32 = 0.1;

/// Least share of the processors that is left to a service for the sake of heat.
const COOL_MIN: u8 = 10;

pub(super) const DISK: &str = "disk-foreseen";
pub(super) const INODES: &str = "inodes-foreseen";
pub(super) const HEAT: &str = "heat-foreseen";

/// Something that is going to happen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ahead {
    pub(super) fault: Fault,
    pub(super) earliest: Duration,
    pub(super) expected: Duration,
    pub(super) words: String,
}

/// Forecasts about one service.
#[derive(Debug, Default)]
struct OfService {
    life: Option<Instance>,
    memory: Option<Box<Horizon>>,
    quota: Option<Box<Horizon>>,
    room: Option<Box<Horizon>>,
    inodes: Option<Box<Horizon>>,
    /// When its data were measured.
    measured: Option<Micros>,
    ahead: Option<Ahead>,
    /// It is time to do something about it, and something can be done.
    due: bool,
}

/// All forecasts.
#[derive(Debug)]
pub(super) struct Foresight {
    policy: Foresee,
    bucket: Duration,
    services: BTreeMap<ServiceId, OfService>,
    disk: Option<Box<Horizon>>,
    inodes: Option<Box<Horizon>>,
    heat: Box<Horizon>,
    pub(super) certificates: Certificates,
    /// Alarms that stand, and until when at least.
    told: BTreeMap<String, Micros>,
}

impl Foresight {
    pub(super) fn new(config: &Config) -> Self {
        let bucket = Policy::new(1.0, 1.0).bucket;
        let bucket = bucket.max(span(config.sample.period) * SAMPLES_MIN);
        Self {
            policy: config.foresee.clone(),
            bucket,
            services: BTreeMap::new(),
            disk: None,
            inodes: None,
            // From a usual temperature to the limit it is some 100 degrees at most.
            heat: horizon(bucket, 0.0, 100.0),
            certificates: Certificates::new(config),
            told: BTreeMap::new(),
        }
    }

    /// Something was done about it: what comes now is another story.
    pub(super) fn acted(&mut self, service: &ServiceId, fault: Fault, now: Micros) {
        let of_service = self.services.entry(service.clone()).or_default();
        of_service.ahead = None;
        of_service.due = false;
        match fault {
            Fault::DataFull => {
                let data = [
                    &mut of_service.quota,
                    &mut of_service.room,
                    &mut of_service.inodes,
                ];
                data.into_iter().flatten().for_each(|one| one.reset());
            }
            Fault::Overheating => self.heat.reset(),
            Fault::CertificateExpiry => self.certificates.asked(service, now),
            // A new life begins anew by itself.
            _ => {}
        }
    }

    /// The first thing that is going to happen to a service.
    fn ahead(&self, id: &ServiceId) -> Option<&Ahead> {
        self.services.get(id)?.ahead.as_ref()
    }
}

impl Foresight {
    /// Something is known to happen to a service, unless something else comes first.
    pub(super) fn expect(&mut self, service: &ServiceId, ahead: Ahead) {
        if let Some(of) = self.services.get_mut(service)
            && of.ahead.is_none()
        {
            of.ahead = Some(ahead);
        }
    }
}

fn horizon(bucket: Duration, limit: f32, range: f32) -> Box<Horizon> {
    Box::new(Horizon::new(Policy {
        bucket,
        ..Policy::new(limit, range)
    }))
}

/// What is free runs out at 0; its range is what was free at first.
fn runs_out(
    watch: &mut Option<Box<Horizon>>,
    bucket: Duration,
    now: Micros,
    free: Option<f32>,
) -> Option<Forecast> {
    let free = free?;
    let watch = watch.get_or_insert_with(|| horizon(bucket, 0.0, free));
    watch.push(instant(now), -free);
    watch.forecast()
}

/// When, in words.
fn when(forecast: &Forecast) -> String {
    format!(
        "in {} ({} to {}), as it has for {}",
        spoken(forecast.expected),
        spoken(forecast.earliest),
        spoken(forecast.latest),
        spoken(forecast.over),
    )
}

/// A time in the two units that say enough.
fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds @ 7200..172_800 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        seconds => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn rate(forecast: &Forecast) -> Bytes {
    // A float that is cut to an integer saturates, and a rate is finite.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rate = forecast.rate.max(0.0) as u64;
    Bytes(rate)
}

fn ahead(
    fault: Fault,
    forecast: Option<Forecast>,
    words: impl Fn(&Forecast) -> String,
) -> Option<Ahead> {
    let forecast = forecast?;
    Some(Ahead {
        fault,
        earliest: forecast.earliest,
        expected: forecast.expected,
        words: format!("{} {}", words(&forecast), when(&forecast)),
    })
}

impl Loop {
    /// Takes a sample into the forecasts, and tells people what only they can prevent.
    pub(super) fn foresee(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        self.foresee_services(now);
        self.foresee_node(now, effects);
        self.foresee_certificates(now, effects);
        self.weigh_foreseen(now, effects);
    }

    fn foresee_services(&mut self, now: Micros) {
        let bucket = self.foresight.bucket;
        self.foresight
            .services
            .retain(|id, _| self.services.contains_key(id));
        for (id, watched) in &self.services {
            let of = self.foresight.services.entry(id.clone()).or_default();
            if of.life != watched.instance() {
                of.life = watched.instance();
                of.memory.iter_mut().for_each(|memory| memory.reset());
            }
            let mut found = Vec::new();
            if let (Some(limit), Slot::Up { .. }) = (watched.policy.memory_limit, watched.slot)
                && let Some(resident) = watched.sample.resident.fresh()
            {
                let most = limit.0 as f32;
                let memory = of.memory.get_or_insert_with(|| horizon(bucket, most, most));
                memory.push(instant(now), resident.0 as f32);
                found.push(ahead(Fault::MemoryLeak, memory.forecast(), |forecast| {
                    let rate = rate(forecast);
                    format!("memory grows by {rate}/s and reaches its limit of {limit}")
                }));
            }
            if let Some(data) = &watched.policy.data
                && watched.data_at > of.measured
            {
                of.measured = watched.data_at;
                let full = Bytes(data.full.of(data.quota.0));
                if let Some(used) = watched.data_used.fresh() {
                    let most = full.0 as f32;
                    let quota = of.quota.get_or_insert_with(|| horizon(bucket, most, most));
                    quota.push(instant(now), used.0 as f32);
                }
                let room = watched.data_room.fresh();
                runs_out(
                    &mut of.room,
                    bucket,
                    now,
                    room.map(|room| room.free.0 as f32),
                );
                let inodes = room.and_then(|room| room.inodes);
                runs_out(
                    &mut of.inodes,
                    bucket,
                    now,
                    inodes.map(|count| count as f32),
                );
            }
            if let Some(data) = &watched.policy.data {
                let path = data.path.display();
                let forecast = |one: &Option<Box<Horizon>>| one.as_ref()?.forecast();
                found.push(ahead(Fault::DataFull, forecast(&of.quota), |forecast| {
                    let (rate, full, quota) = (rate(forecast), data.full, data.quota);
                    format!("what is in {path} grows by {rate}/s and reaches {full} of {quota}")
                }));
                found.push(ahead(Fault::DataFull, forecast(&of.room), |forecast| {
                    let rate = rate(forecast);
                    format!("the disk of {path} fills by {rate}/s and is full")
                }));
                found.push(ahead(Fault::DataFull, forecast(&of.inodes), |forecast| {
                    let rate = forecast.rate;
                    format!(
                        "{rate:.1} files a second come onto the disk of {path}; no inode is left"
                    )
                }));
            }
            of.ahead = found.into_iter().flatten().min_by_key(|one| one.earliest);
        }
    }

    fn foresee_node(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let bucket = self.foresight.bucket;
        let free = self.host.disk_free.fresh().map(|free| free.0 as f32);
        let disk = runs_out(&mut self.foresight.disk, bucket, now, free);
        let count = self.host.inodes_free.fresh().map(|count| count as f32);
        let inodes = runs_out(&mut self.foresight.inodes, bucket, now, count);
        let disk = ahead(Fault::DataFull, disk, |forecast| {
            let rate = rate(forecast);
            format!("the disk with the agent's data fills by {rate}/s and is full")
        });
        self.tell_ahead(DISK, None, disk, now, effects);
        let inodes = ahead(Fault::DataFull, inodes, |forecast| {
            let rate = forecast.rate;
            format!(
                "{rate:.1} files a second come onto the disk with the agent's data; no inode is left"
            )
        });
        self.tell_ahead(INODES, None, inodes, now, effects);
        let heat = self.host.heat.fresh();
        if let Some(heat) = heat {
            self.foresight
                .heat
                .push(instant(now), heat.degrees - heat.limit);
        }
        let hot = heat.and_then(|heat| {
            ahead(
                Fault::Overheating,
                self.foresight.heat.forecast(),
                |forecast| {
                    let (limit, rate) = (heat.limit, forecast.rate * 60.0);
                    format!(
                        "the node gets warmer by {rate:.1} degrees a minute and reaches {limit:.0}"
                    )
                },
            )
        });
        // Whoever matters least and heats most is asked to do less.
        let coolest = hot.as_ref().and_then(|_| self.warmest());
        if let (Some(hot), Some(id)) = (&hot, &coolest)
            && let Some(of) = self.foresight.services.get_mut(id)
            && of
                .ahead
                .as_ref()
                .is_none_or(|one| hot.earliest < one.earliest)
        {
            of.ahead = Some(hot.clone());
        }
        // Told with the service, if one can do something about it.
        let alone = hot.filter(|_| coolest.is_none());
        self.tell_ahead(HEAT, None, alone, now, effects);
    }

    /// The service that matters least of those that use the processors, and of those the one
    /// that uses most.
    fn warmest(&self) -> Option<ServiceId> {
        let busy = self.services.values().filter_map(|watched| {
            let cores = watched
                .sample
                .cpu
                .fresh()
                .filter(|cores| *cores >= WARM_CORES)?;
            let up = matches!(watched.slot, Slot::Up { .. }) && watched.proven(self.now);
            (up && !watched.policy.protected).then_some((watched, cores))
        });
        let (watched, _) = busy.min_by(|(a, a_cores), (b, b_cores)| {
            let matters = a.policy.criticality.cmp(&b.policy.criticality);
            matters.then(b_cores.total_cmp(a_cores))
        })?;
        Some(watched.policy.id.clone())
    }

    /// What would leave a service half of what it uses now, of all processors.
    pub(super) fn cooled(&self, service: &ServiceId) -> Option<Percent> {
        let used = self.services.get(service)?.sample.cpu.fresh()?;
        let cores = f32::from(self.host.cores.fresh()?);
        // Between 0 and 100 whatever was measured.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let half = (50.0 * used / cores.max(1.0)).clamp(f32::from(COOL_MIN), 50.0) as u8;
        Percent::new(half).ok()
    }

    /// What is going to be wrong with a service so soon that it is time to do something.
    pub(super) fn foreseen(&self, id: &ServiceId, now: Micros) -> Option<Finding> {
        let of = self.foresight.services.get(id)?;
        let ahead = of.ahead.as_ref().filter(|_| of.due)?;
        let watched = self.services.get(id)?;
        let up = matches!(watched.slot, Slot::Up { .. }) && watched.proven(now);
        let elsewhere = self
            .incidents
            .values()
            .any(|other| other.service != *id && other.plan().is_some());
        (up && !elsewhere).then(|| Finding {
            symptom: Symptom::Foreseen,
            cause: Some(ahead.fault),
            since: self.sampled.unwrap_or(now),
            score: Ratio::saturating(SURE),
            evidence: ahead.words.clone(),
        })
    }

    /// What could be done about it.
    fn prevent(&self, id: &ServiceId, ahead: &Ahead) -> Vec<Candidate> {
        let (number, service) = (IncidentId(0), id.clone());
        let mut thought = Incident::new(number, service, Symptom::Foreseen, ahead.fault, self.now);
        thought.confidence = Ratio::saturating(SURE);
        self.options(&thought, false, false)
    }

    /// How long a plan takes to have its effect; what it waits for after that does not count.
    fn takes(&self, plan: &Plan) -> Millis {
        let limit = self.limit();
        let until = |step: &&Primitive| !matches!(step, Primitive::Wait { .. });
        let each = plan.steps().take_while(until).map(limit);
        Millis(each.map(|one| one.0).sum())
    }

    /// What speaks against all of these; `None` when the gate admits one, now or once
    /// something has passed.
    fn objection(&self, id: &ServiceId, fault: Fault, options: Vec<Candidate>) -> Option<String> {
        let mut first = None;
        for option in options {
            let facts = self.facts(self.now, id, fault, option.recipe);
            let mut thought = self.budget.clone();
            let rejection =
                gate::verify(option.plan, option.purpose, &facts, &mut thought).err()?;
            let passes = matches!(
                rejection.rule,
                Rule::UnderRepair
                    | Rule::Hold
                    | Rule::Quarantine
                    | Rule::StaleTelemetry
                    | Rule::BlastRadius
                    | Rule::Budget
                    // Told with the plan.
                    | Rule::RecommendOnly
                    | Rule::NeedsApproval
            );
            if passes {
                return None;
            }
            first = first.or(Some(rejection.reason));
        }
        Some(first.unwrap_or_else(|| "no plan is known for it".to_owned()))
    }

    /// Finds out whether it is time, and tells of what nothing can be done about.
    fn weigh_foreseen(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let ids: Vec<ServiceId> = self.services.keys().cloned().collect();
        for id in ids {
            let ahead = self.foresight.ahead(&id).cloned();
            let open = self.incidents.contains_key(&id);
            let mut due = false;
            let mut told = None;
            if let Some(ahead) = ahead {
                let options = self.prevent(&id, &ahead);
                let first = options.first().map(|first| self.takes(&first.plan));
                let takes = first.unwrap_or_default();
                let most = span(Millis(2 * takes.0 + self.limits.hold.0));
                // One that is dealt with is not given up for a second more or less.
                let most = if open { 2 * most } else { most };
                let why = if self.foresight.policy.act {
                    self.objection(&id, ahead.fault, options)
                } else {
                    Some("act is off in [foresee]".to_owned())
                };
                due = why.is_none() && ahead.earliest <= most;
                // A certificate has an alarm of its own.
                let why = why.filter(|_| ahead.fault != Fault::CertificateExpiry);
                told = why.map(|why| Ahead {
                    words: format!("{}; nothing is done about it: {why}", ahead.words),
                    ..ahead
                });
            }
            if let Some(of) = self.foresight.services.get_mut(&id) {
                of.due = due;
            }
            // An incident tells by itself.
            if !open {
                let name = format!("{id}-{}", Symptom::Foreseen);
                self.tell_ahead(&name, Some(&id), told, now, effects);
            }
        }
    }

    fn tell_ahead(
        &mut self,
        name: &str,
        service: Option<&ServiceId>,
        ahead: Option<Ahead>,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let near = ahead.filter(|one| one.expected <= span(self.foresight.policy.tell));
        if let Some(ahead) = near {
            self.foresight.told.insert(name.to_owned(), now + LINGER);
            let text = match service {
                Some(id) => format!("{id}: {}", ahead.words),
                None => ahead.words,
            };
            self.raise(name, service, Severity::Warning, text, effects);
            return;
        }
        if self
            .foresight
            .told
            .get(name)
            .is_some_and(|until| now >= *until)
        {
            self.foresight.told.remove(name);
            self.clear(name, effects);
        }
    }

    /// Takes a new configuration over.
    pub(super) fn renew_foresight(&mut self, config: &Config, effects: &mut Vec<Effect>) {
        let fresh = Foresight::new(config);
        let former = std::mem::replace(&mut self.foresight, fresh);
        for id in former.certificates.ids() {
            self.clear(&certificate_alarm(id), effects);
        }
        for name in former.told.keys() {
            self.clear(name, effects);
        }
        self.foresight.services = former.services;
        // Limits may be others now; what is known of them begins anew.
        for of in self.foresight.services.values_mut() {
            *of = OfService::default();
        }
        self.foresight.disk = former.disk;
        self.foresight.inodes = former.inodes;
    }
}
