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
use homeostat_common::ids::{CertificateId, Instance, ServiceId};
use homeostat_common::observation::Reading;
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Bytes, Micros, Millis, Percent, Ratio};
use homeostat_common::wire::body::Severity;
use homeostat_detect::forecast::{Forecast, Horizon, Policy};

use super::message::Effect;
use super::{Incident, Loop};
use crate::config::{Certificate, Config, Foresee};
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

/// Certificates are looked at this often.
const CERTIFICATE_PERIOD: Millis = Millis::secs(3600);

/// ... and this often when one cannot be read.
const UNREAD_PERIOD: Millis = Millis::secs(300);

/// Whoever renews a certificate is asked this often, at most.
const RENEW_PERIOD: Millis = Millis::secs(86_400);

/// Who uses less than this many cores heats nothing.
const WARM_CORES: f32 = 0.1;

/// Least share of the processors that is left to a service for the sake of heat.
const COOL_MIN: u8 = 10;

pub(super) const DISK: &str = "disk-foreseen";
pub(super) const INODES: &str = "inodes-foreseen";
pub(super) const HEAT: &str = "heat-foreseen";

/// The alarm about a certificate.
pub(super) fn certificate_alarm(id: &CertificateId) -> String {
    format!("certificate-{id}")
}

/// Something that is going to happen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ahead {
    fault: Fault,
    earliest: Duration,
    expected: Duration,
    words: String,
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
}

#[derive(Debug)]
struct Watched {
    certificate: Certificate,
    /// Its end, in milliseconds since 1970, or why that is not known.
    until: Option<Result<u64, String>>,
    /// Nobody is asked to renew it before this.
    ask_at: Micros,
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
    certificates: Vec<Watched>,
    /// When certificates are looked at next.
    look_at: Micros,
    /// Alarms that stand, and until when at least.
    told: BTreeMap<String, Micros>,
}

impl Foresight {
    pub(super) fn new(config: &Config) -> Self {
        let bucket = Policy::new(1.0, 1.0).bucket;
        let bucket = bucket.max(span(config.sample.period) * SAMPLES_MIN);
        let certificates = config.certificates.iter().map(|certificate| Watched {
            certificate: certificate.clone(),
            until: None,
            ask_at: Micros(0),
        });
        Self {
            policy: config.foresee.clone(),
            bucket,
            services: BTreeMap::new(),
            disk: None,
            inodes: None,
            // From a usual temperature to the limit it is some 100 degrees at most.
            heat: horizon(bucket, 0.0, 100.0),
            certificates: certificates.collect(),
            look_at: Micros(0),
            told: BTreeMap::new(),
        }
    }

    /// Something was done about it: what comes now is another story.
    pub(super) fn acted(&mut self, service: &ServiceId, fault: Fault, now: Micros) {
        let of_service = self.services.entry(service.clone()).or_default();
        of_service.ahead = None;
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
            Fault::CertificateExpiry => {
                for one in &mut self.certificates {
                    let renew = one.certificate.renew.as_ref();
                    if renew.is_some_and(|(of, _)| of == service) && one.until.is_some() {
                        one.ask_at = now + RENEW_PERIOD;
                    }
                }
                self.look_at = now;
            }
            // A new life begins anew by itself.
            _ => {}
        }
    }

    /// The certificates that are watched.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &CertificateId> {
        self.certificates.iter().map(|one| &one.certificate.id)
    }

    /// A certificate was looked at.
    pub(super) fn certified(&mut self, id: &CertificateId, until: Result<u64, String>, now: Micros) {
        if until.is_err() {
            self.look_at = self.look_at.min(now + UNREAD_PERIOD);
        }
        let mut all = self.certificates.iter_mut();
        if let Some(one) = all.find(|one| one.certificate.id == *id) {
            one.until = Some(until);
        }
    }

    /// The first thing that is going to happen to a service.
    fn ahead(&self, id: &ServiceId) -> Option<&Ahead> {
        self.services.get(id)?.ahead.as_ref()
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
        self.tell_foreseen(now, effects);
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

    fn foresee_certificates(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if now >= self.foresight.look_at {
            self.foresight.look_at = now + CERTIFICATE_PERIOD;
            for one in &self.foresight.certificates {
                let certificate = &one.certificate;
                let read = (certificate.id.clone(), certificate.path.clone());
                effects.push(Effect::ReadCertificate(read.0, read.1));
            }
        }
        // With a clock that nobody believes nothing is known.
        let wall = match self.host.wall {
            Reading::Fresh(wall) => Some(wall),
            Reading::Stale { .. } | Reading::Missing => None,
        };
        let mut alarms = Vec::new();
        for one in &self.foresight.certificates {
            let Certificate { id, path, .. } = &one.certificate;
            let path = path.display();
            let left = match (&one.until, wall) {
                (Some(Ok(until)), Some(wall)) => Millis(until.saturating_sub(wall)),
                (Some(Err(why)), _) => {
                    let text = format!("the certificate {id} in {path} is not known: {why}");
                    alarms.push((id.clone(), Some((Severity::Warning, text))));
                    continue;
                }
                _ => continue,
            };
            if left > one.certificate.before {
                alarms.push((id.clone(), None));
                continue;
            }
            let days = left.0 / 86_400_000;
            let hours = left.0 % 86_400_000 / 3_600_000;
            let (severity, text) = if left == Millis(0) {
                let text = format!("the certificate {id} in {path} is not valid any more");
                (Severity::Critical, text)
            } else {
                let text = format!(
                    "the certificate {id} in {path} is valid for {days} days and {hours} hours more"
                );
                (Severity::Warning, text)
            };
            if let Some((service, _)) = &one.certificate.renew
                && now >= one.ask_at
                && let Some(of) = self.foresight.services.get_mut(service)
                && of.ahead.is_none()
            {
                of.ahead = Some(Ahead {
                    fault: Fault::CertificateExpiry,
                    // It is time when the operator says that it is.
                    earliest: Duration::ZERO,
                    expected: Duration::ZERO,
                    words: text.clone(),
                });
            }
            alarms.push((id.clone(), Some((severity, text))));
        }
        for (id, alarm) in alarms {
            let name = certificate_alarm(&id);
            match alarm {
                Some((severity, text)) => self.raise(&name, None, severity, text, effects),
                None => self.clear(&name, effects),
            }
        }
    }

    /// Whoever is asked to renew the certificate of a service.
    pub(super) fn renewer(&self, service: &ServiceId) -> Option<homeostat_common::ids::WebhookId> {
        let mut all = self.foresight.certificates.iter();
        all.find_map(|one| {
            let (of, webhook) = one.certificate.renew.as_ref()?;
            (of == service && self.now >= one.ask_at).then(|| webhook.clone())
        })
    }

    /// What is going to be wrong with a service so soon that it is time to do something.
    pub(super) fn foreseen(&self, id: &ServiceId, now: Micros) -> Option<Finding> {
        let ahead = self.foresight.ahead(id)?;
        let watched = self.services.get(id)?;
        let up = matches!(watched.slot, Slot::Up { .. }) && watched.proven(now);
        let elsewhere = self
            .incidents
            .values()
            .any(|other| other.service != *id && other.plan().is_some());
        if !self.foresight.policy.act || !up || elsewhere {
            return None;
        }
        let open = self.incidents.get(id);
        let options = self.prevent(id, ahead);
        let takes = options.first().map(|first| self.takes(&first.plan))?;
        let most = span(Millis(2 * takes.0 + self.limits.hold.0));
        // One that is dealt with is not given up for a second more or less.
        let most = if open.is_some() { 2 * most } else { most };
        if ahead.earliest > most || self.objection(id, ahead.fault, options).is_some() {
            return None;
        }
        Some(Finding {
            symptom: Symptom::Foreseen,
            cause: Some(ahead.fault),
            since: self.sampled.unwrap_or(now),
            score: Ratio::saturating(SURE),
            evidence: ahead.words.clone(),
        })
    }

    /// What could be done about it.
    fn prevent(&self, id: &ServiceId, ahead: &Ahead) -> Vec<Candidate> {
        let (number, service) = (homeostat_common::ids::IncidentId(0), id.clone());
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
            let mut thought = self.ledger.clone();
            let rejection = gate::verify(option.plan, option.purpose, &facts, &mut thought).err()?;
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

    /// Tells of what nothing can be done about here.
    fn tell_foreseen(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let ids: Vec<ServiceId> = self.services.keys().cloned().collect();
        for id in ids {
            // An incident tells by itself.
            if self.incidents.contains_key(&id) {
                continue;
            }
            let near = self.foresight.ahead(&id).filter(|one| {
                one.expected <= span(self.foresight.policy.tell)
                    // Has an alarm of its own.
                    && one.fault != Fault::CertificateExpiry
            });
            let near = near.and_then(|one| {
                let why = if self.foresight.policy.act {
                    self.objection(&id, one.fault, self.prevent(&id, one))?
                } else {
                    "act is off in [foresee]".to_owned()
                };
                let words = format!("{}; nothing is done about it: {why}", one.words);
                let ahead = one.clone();
                Some(Ahead { words, ..ahead })
            });
            let name = format!("{id}-{}", Symptom::Foreseen);
            self.tell_ahead(&name, Some(&id), near, now, effects);
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
        for one in former.certificates {
            self.clear(&certificate_alarm(&one.certificate.id), effects);
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
