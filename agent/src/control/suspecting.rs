//! Who is suspected of being behind an incident, and who is spared because of it.
//!
//! In go the readings of each sample and the incidents; out come [`Diagnosed`] records, the
//! answer to `why`, and whether a service waits that may be innocent. A service that is dead
//! or silent is started again at once whoever is behind it; one that is slow, saturated, wrong
//! or does not come up is left alone while somebody else is clearly likelier, and for no
//! longer than [`SPARED_MAX`].

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Metric, MetricReading, Series};
use homeostat_common::suspect::{Component, Edge, Grade, Layer, Suspect};
use homeostat_common::units::{Micros, Millis, narrow};
use homeostat_common::wire::body::{
    AFFECTED_MAX, Body, Considered, DIAGNOSED_EDGES_MAX, Decided, Diagnosed, Refusal, Severity,
    TOPOLOGY_EDGES_MAX, Topology,
};

use super::message::{Class, Effect};
use super::{Incident, Loop};
use crate::config::ProbeKind;
use crate::diagnose::causal::Causal;
use crate::diagnose::meaning::{kind_of, matters};
use crate::diagnose::topology::{self, between, chain};
use crate::route::Routed;
use crate::service::Watched;

/// Somebody else has to be at least so likely for a service to be spared.
const SPARED_FROM: f32 = 0.5;

/// ... and so many times as likely as the service itself.
const SPARED_TIMES: f32 = 2.0;

/// So long a service is spared at most: long enough for whoever is behind it to be found ill
/// and mended, or for a person; then it is treated all the same.
const SPARED_MAX: Millis = Millis::secs(300);

/// A spared service is looked at again after this: a sample of the usual pace.
const SPARED_LOOK: Millis = Millis::secs(1);

/// What an incident shows is not learnt as usual for so long; then it is how things are now.
const UNUSUAL_MAX: Millis = Millis::secs(3600);

/// Records of suspects that one incident gets at most.
const TOLD_MAX: u8 = 8;

/// Suspects that `why` names besides the likeliest: what a person reads.
const OTHERS_MAX: usize = 2;

/// The model, and what was told of it.
#[derive(Debug)]
pub(super) struct Suspecting {
    causal: Causal,
    configured: Vec<Edge>,
    told: bool,
}

/// What an incident keeps of its suspects.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// The last one, and when it was made.
    last: Option<(Micros, Diagnosed)>,
    /// Who was told to be the likeliest, whether that spares the service, and when.
    pub(super) told_last: Option<(Micros, Option<Component>, bool)>,
    records: u8,
    /// Since when the service is spared.
    spared: Option<Micros>,
    /// Because of whom that was told, each once: how likely they are changes with each look.
    told: Vec<Component>,
}

impl Suspecting {
    pub(super) fn new<'a>(
        services: impl Iterator<Item = &'a Watched> + Clone,
        routes: impl Iterator<Item = &'a Routed>,
    ) -> Self {
        let policies = services.clone().map(|watched| &watched.policy);
        let configured = topology::configured(policies, routes);
        let on_node = topology::on_node(services.map(|watched| &watched.policy.id));
        Self {
            causal: Causal::new(configured.iter().cloned().chain(on_node)),
            configured,
            told: false,
        }
    }
}

impl Loop {
    /// Takes a sample into the history that a diagnosis compares with, unless something is wrong
    /// meanwhile: an outage of minutes must not become what is usual.
    pub(super) fn remember_row(&mut self, now: Micros, readings: &[MetricReading]) {
        let wrong = |one: &Incident| !to_come(one.symptom) && now.since(one.since) < UNUSUAL_MAX;
        if self.suspecting.causal.knows() && self.incidents.values().any(wrong) {
            return;
        }
        let row = self.row(readings, now);
        let row = row.iter().map(|(series, value)| (series, *value));
        self.suspecting.causal.observe(now, row);
    }

    /// Everything that is known now, as the model takes it.
    fn row(&self, readings: &[MetricReading], now: Micros) -> Vec<(Series, f64)> {
        let asked = |id: &ServiceId| {
            let watched = self.services.get(id);
            watched.is_some_and(|watched| wrong_answers(watched).is_some())
        };
        // What nobody asks for answers no more, and what it answered last says nothing.
        let idle = |id: &ServiceId| self.services.get(id).is_some_and(|one| !one.wanted());
        let idle = |one: &&MetricReading| one.service.as_ref().is_some_and(idle);
        let readings = readings
            .iter()
            .filter(|one| matters(one.metric) && !idle(one));
        let measured = readings.filter_map(|one| {
            // What is asked of a model says more than what its server counts.
            let counted = one.metric == Metric::ServedErrors;
            let counted = counted && one.service.as_ref().is_some_and(asked);
            let (series, value) = (one.series(), one.reading.fresh()?);
            let value = match one.metric {
                Metric::Availability if self.silent(&series, now) => 0.0,
                Metric::FailureShare => value + (1.0 - value) * self.passed_on(&series),
                _ => value,
            };
            Some((series, value)).filter(|_| !counted)
        });
        let models = self.services.iter().filter_map(|(id, watched)| {
            let series = MetricReading::service(
                Metric::ServedErrors,
                id.clone(),
                Some(wrong_answers(watched)?).into(),
            );
            Some((series.series(), wrong_answers(watched)?))
        });
        let fresh = self.routes_fresh(now);
        let routes = self.routes.values().filter(|_| fresh);
        let elsewhere = routes.flat_map(|route| route.elsewhere(now));
        measured.chain(models).chain(elsewhere).collect()
    }

    /// Whether what a series of answers counts has given none lately. What it answered before,
    /// which the share of the last questions still holds, is no comfort.
    fn silent(&self, series: &Series, now: Micros) -> bool {
        match (&series.service, &series.part) {
            (Some(id), _) => {
                let watched = self.services.get(id);
                watched.is_some_and(|one| !one.answering(now) && one.wanted())
            }
            (None, Some(part)) => {
                let mut elsewhere = self.host.elsewhere.iter();
                elsewhere.any(|one| one.silent && one.name == *part)
            }
            (None, None) => false,
        }
    }

    /// The share of a route's answers that are wrong as its backends give them. The forwarder
    /// reads none, and who calls through it would be left with what the backends did.
    fn passed_on(&self, series: &Series) -> f64 {
        let of = |route: &&Routed| {
            series
                .part
                .as_ref()
                .is_some_and(|part| part.as_str() == route.id.as_str())
        };
        let Some(route) = self.routes.values().find(of) else {
            return 0.0;
        };
        let (mut all, mut wrong) = (0.0, 0.0);
        let fit = route.backends.values().map(|one| (one, &one.sample));
        for (backend, sample) in fit.filter(|(_, sample)| sample.healthy) {
            let service = backend.service.as_ref();
            let level = service.and_then(|id| self.services.get(id)?.service_level());
            let weight = f64::from(sample.weight);
            all += weight;
            wrong += weight * level.map_or(0.0, |level| 1.0 - level.availability);
        }
        if all > 0.0 { wrong / all } else { 0.0 }
    }

    /// The present is added to what is known: it is what has to be explained.
    fn look_now(&mut self, now: Micros) {
        let readings = self.readings(now);
        let row = self.row(&readings, now);
        let row = row.iter().map(|(series, value)| (series, *value));
        self.suspecting.causal.look(now, row);
    }

    /// Who may be behind an incident; nobody is asked about a wish, or what has yet to come.
    fn suspects_of(
        &mut self,
        incident: &Incident,
        seen: &[String],
        now: Micros,
    ) -> Option<Diagnosed> {
        if to_come(incident.symptom) {
            return None;
        }
        self.look_now(now);
        let alarmed = Component::Service(incident.service.clone());
        let kind = kind_of(incident.symptom);
        let causal = &self.suspecting.causal;
        let watched = self.services.get(&incident.service);
        let mut verdict = causal.diagnose(&alarmed, kind, incident.since, now);
        if let Some(of) = its_own(incident, watched, causal) {
            verdict.befell(&of, incident.confidence, seen);
        }
        let named = verdict.suspects.iter().map(|one| &one.component);
        let mut affected = self.dependents_of(&incident.service);
        affected.truncate(AFFECTED_MAX);
        let mut diagnosed = Diagnosed {
            incident: incident.id,
            edges: between(causal.edges(), &alarmed, named, DIAGNOSED_EDGES_MAX),
            alarmed,
            suspects: verdict.suspects,
            tell_apart: verdict.tell_apart,
            grade: verdict.grade,
            affected,
            spared: None,
        };
        diagnosed.spared = spared(incident, &diagnosed);
        Some(diagnosed)
    }

    /// Finds out who may be behind an incident that is about to be told with what was `seen`.
    pub(super) fn suspect(
        &mut self,
        incident: &mut Incident,
        seen: &[String],
        now: Micros,
    ) -> Option<String> {
        let diagnosed = self.suspects_of(incident, seen, now)?;
        let words = other(&diagnosed).map(|suspect| {
            let reason = suspect.evidence.first();
            let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
            format!(
                "likeliest behind it is {} (confidence {:.2}){reason}",
                suspect.component,
                suspect.confidence.get()
            )
        });
        incident.suspicion.last = Some((now, diagnosed));
        words
    }

    /// Tells who is suspected, if that is not what was told last. Of two that are about as
    /// likely each look may put another one first: the time between two records doubles, so
    /// that the last of few still says how it stands.
    pub(super) fn tell_suspects(&mut self, incident: &mut Incident, effects: &mut Vec<Effect>) {
        let suspicion = &mut incident.suspicion;
        let Some((now, diagnosed)) = &suspicion.last else {
            return;
        };
        let first = diagnosed.suspects.first().map(|one| one.component.clone());
        let is = (first, diagnosed.spared.is_some());
        if let Some((at, first, spared)) = &suspicion.told_last {
            let wait = Millis(SPARED_LOOK.0 << suspicion.records.min(TOLD_MAX));
            // That nothing waits any more is told at once, and each time.
            let acts = *spared && !is.1;
            let known = (first, *spared) == (&is.0, is.1);
            let enough = suspicion.records >= TOLD_MAX || now.since(*at) < wait;
            if known || (enough && !acts) {
                return;
            }
        }
        suspicion.records = suspicion.records.saturating_add(1);
        suspicion.told_last = Some((*now, is.0, is.1));
        let body = Body::Diagnosed(diagnosed.clone());
        self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    /// Whether a service is left alone now because somebody else is likelier behind its
    /// trouble.
    pub(super) fn spares(
        &mut self,
        incident: &mut Incident,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let over = incident.suspicion.spared;
        if !may_be_innocent(incident) || over.is_some_and(|since| now.since(since) >= SPARED_MAX) {
            let last = incident.suspicion.last.as_mut();
            if last.is_some_and(|(_, one)| one.spared.take().is_some()) {
                self.tell_suspects(incident, effects);
            }
            return false;
        }
        let known = incident.suspicion.last.as_ref();
        if known.is_none_or(|(at, _)| now.since(*at) >= SPARED_LOOK) {
            // Who may be innocent is not asked what befell it.
            let Some(diagnosed) = self.suspects_of(incident, &[], now) else {
                return false;
            };
            incident.suspicion.last = Some((now, diagnosed));
            self.tell_suspects(incident, effects);
        }
        let last = incident.suspicion.last.as_ref();
        let Some(why) = last.and_then(|(_, one)| one.spared.clone()) else {
            return false;
        };
        incident.suspicion.spared.get_or_insert(now);
        incident.retry_at = Some(now + SPARED_LOOK);
        self.tell_spared(incident, &why, now, effects);
        true
    }

    fn tell_spared(
        &mut self,
        incident: &mut Incident,
        why: &str,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let last = incident.suspicion.last.as_ref();
        let Some(likelier) = last.and_then(|(_, one)| other(one)) else {
            return;
        };
        if incident.suspicion.told.contains(&likelier.component) {
            return;
        }
        incident.suspicion.told.push(likelier.component.clone());
        let service = incident.service.clone();
        let text = format!(
            "{service} is {}, and nothing is done to it for up to {SPARED_MAX}: {why}",
            incident.symptom
        );
        let name = format!("{service}-{}", incident.symptom);
        self.raise(&name, Some(&service), Severity::Warning, text, effects);
        let options = self.options(incident, false, false).into_iter();
        let considered = options.map(|option| Considered {
            plan: option.plan.to_string(),
            source: option.source,
            refusal: Some(Refusal {
                rule: "likelier-cause".into(),
                reason: why.to_owned(),
            }),
        });
        let health = self.health(now);
        let body = Body::Decided(Decided {
            incident: incident.id,
            plan: None,
            considered: considered.collect(),
            cost: 0.0,
            balance: narrow(self.balance_of(&service)),
            health: health.get(),
            predicted: health.get(),
        });
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    /// Who needs whom is told once it is known who is there, and when it has changed.
    pub(super) fn tell_topology(&mut self, effects: &mut Vec<Effect>) {
        if self.suspecting.told || !self.spawner {
            return;
        }
        self.suspecting.told = true;
        let mut edges = self.suspecting.configured.clone();
        let left_out = edges.len().saturating_sub(TOPOLOGY_EDGES_MAX);
        edges.truncate(TOPOLOGY_EDGES_MAX);
        let body = Body::Topology(Topology {
            edges,
            left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        });
        self.emit(Class::State, &[], body, effects);
    }

    /// Takes a new configuration over. Who needs whom now has another model.
    pub(super) fn renew_suspecting(&mut self) {
        let fresh = Suspecting::new(self.services.values(), self.routes.values());
        let known = self.suspecting.causal.edges();
        let new = |edge: &Edge| !known.contains(edge);
        if fresh.configured != self.suspecting.configured || fresh.causal.edges().iter().any(new) {
            self.suspecting = fresh;
        }
    }

    /// Why a service is as it is, in words: from what is seen of it down to what is behind it.
    pub(super) fn why(&mut self, id: &ServiceId, now: Micros) -> Result<String, String> {
        let Some(watched) = self.services.get(id) else {
            return Err(format!("there is no service {id}"));
        };
        let mut text = format!("{id} is {}\n", self.state_words(id, watched));
        let incident = self.incidents.get(id);
        let symptom = incident.map_or(Symptom::Slow, |incident| incident.symptom);
        let since = incident.map(|incident| incident.since);
        let since = since.or_else(|| self.odd_since(id)).unwrap_or(now);
        let spared = incident.filter(|one| one.suspicion.spared.is_some());
        let last = spared.and_then(|one| one.suspicion.last.as_ref());
        let why = last.and_then(|(_, one)| one.spared.clone());
        self.look_now(now);
        let alarmed = Component::Service(id.clone());
        let causal = &self.suspecting.causal;
        let mut verdict = causal.diagnose(&alarmed, kind_of(symptom), since, now);
        let (incident, watched) = (self.incidents.get(id), self.services.get(id));
        let own = incident.and_then(|one| Some((one, its_own(one, watched, causal)?)));
        if let Some((incident, of)) = own {
            let told = incident.suspicion.last.as_ref();
            let told = told.and_then(|(_, one)| one.suspects.first());
            let seen = told.map_or(&[][..], |own| &own.evidence);
            verdict.befell(&of, incident.confidence, seen);
        }
        text.push_str(match verdict.grade {
            Grade::Full => "",
            Grade::Short => "little is known of what is usual\n",
            Grade::Blank => "nothing is known of what is usual\n",
        });
        let mut others = verdict
            .suspects
            .iter()
            .filter(|one| one.explained_by.is_none());
        let Some(first) = others.next() else {
            text.push_str("nothing of it, or of what it needs, is beyond what is usual\n");
            return Ok(text);
        };
        let mut chain = chain(causal.edges(), &alarmed, &first.component);
        if chain.is_empty() {
            chain.push(alarmed);
        }
        // Down to what everything runs on.
        if chain.iter().all(|one| one.layer() > Layer::Infrastructure) {
            chain.push(Component::Node);
        }
        for (place, component) in chain.iter().enumerate() {
            let needs = if place == 0 { "" } else { "needs " };
            let layer = component.layer().to_string();
            text.push_str(&format!("  {layer:<15} {needs}{component}"));
            let known = verdict
                .suspects
                .iter()
                .find(|one| one.component == *component);
            text.push_str(&match known {
                Some(Suspect {
                    explained_by: Some(by),
                    ..
                }) => format!(": its trouble comes from {by}\n"),
                Some(suspect) => suspect_words(suspect, suspect == first),
                None => ": nothing of its own\n".to_owned(),
            });
        }
        for other in others
            .filter(|one| !chain.contains(&one.component))
            .take(OTHERS_MAX)
        {
            let layer = other.component.layer().to_string();
            text.push_str(&format!("  or {layer:<12} {}", other.component));
            text.push_str(&suspect_words(other, false));
        }
        let beside = verdict.coincident.iter().take(OTHERS_MAX);
        let beside: Vec<String> = beside.map(ToString::to_string).collect();
        if !beside.is_empty() {
            let beside = beside.join(", ");
            text.push_str(&format!(
                "coincidence: {beside} not as usual either, and nothing that {id} needs\n"
            ));
        }
        if let Some(apart) = verdict.tell_apart {
            text.push_str(&format!("to be sure: {}\n", apart.text));
        }
        if let Some(why) = why {
            text.push_str(&format!("left alone: {why}\n"));
        }
        Ok(text)
    }
}

/// Share of wrong answers to known inputs; `None` where no model is asked.
fn wrong_answers(watched: &Watched) -> Option<f64> {
    let mut asked = watched
        .policy
        .probes
        .iter()
        .zip(&watched.probes)
        .filter(|(policy, _)| matches!(policy.kind, ProbeKind::Inference { .. }))
        .map(|(_, watch)| watch.wrong_since.is_some())
        .peekable();
    asked.peek()?;
    Some(if asked.any(|wrong| wrong) { 1.0 } else { 0.0 })
}

/// The likeliest suspect, if it is another one than the alarmed service and its model.
fn other(diagnosed: &Diagnosed) -> Option<&Suspect> {
    let first = diagnosed.suspects.first()?;
    let own = match (&first.component, &diagnosed.alarmed) {
        (Component::Model(model), Component::Service(service)) => model == service,
        (first, alarmed) => first == alarmed,
    };
    (!own && first.explained_by.is_none()).then_some(first)
}

/// Whether nothing is wrong yet.
fn to_come(symptom: Symptom) -> bool {
    matches!(symptom, Symptom::Requested | Symptom::Foreseen)
}

/// Whether its symptom may be that of another one, and treating it would do no good then. What
/// it reads is its own.
fn may_be_innocent(incident: &Incident) -> bool {
    matches!(
        incident.symptom,
        Symptom::Slow | Symptom::Saturated | Symptom::WrongAnswers | Symptom::NotStarting
    ) && matches!(
        incident.fault,
        Fault::SlowReplica | Fault::Saturation | Fault::WrongAnswers | Fault::StartFailure
    )
}

/// Who it was seen to happen to, if that is the service itself or its model, as with a death or
/// what it holds, and no slowness or silence that it may have from somebody else. The silence of
/// a stopped process is its own: it waits for nobody.
fn its_own(incident: &Incident, watched: Option<&Watched>, causal: &Causal) -> Option<Component> {
    let stopped = watched.is_some_and(|one| one.stopped.is_some());
    let seen = matches!(
        incident.symptom,
        Symptom::Dead
            | Symptom::Leaking
            | Symptom::LeakingDescriptors
            | Symptom::Hogging
            | Symptom::DataFull
    ) || (incident.symptom == Symptom::Hung && stopped);
    let service = Component::Service(incident.service.clone());
    match incident.fault {
        Fault::ModelCorrupt | Fault::BadModel => {
            let model = Component::Model(incident.service.clone());
            let known = causal.edges().iter().any(|edge| edge.needs == model);
            Some(if known { model } else { service })
        }
        Fault::BadConfig => Some(service),
        _ => seen.then_some(service),
    }
}

/// Why nothing is done to it, if so.
fn spared(incident: &Incident, diagnosed: &Diagnosed) -> Option<String> {
    if !may_be_innocent(incident) || diagnosed.grade == Grade::Blank {
        return None;
    }
    let suspect = other(diagnosed)?;
    let own = diagnosed
        .suspects
        .iter()
        .find(|one| one.component == diagnosed.alarmed && one.explained_by.is_none());
    let own = own.map_or(0.0, |own| own.confidence.get());
    let sure = suspect.confidence.get();
    let clear = sure >= SPARED_FROM && sure >= own * SPARED_TIMES;
    clear.then(|| {
        let reason = suspect.evidence.first();
        let reason = reason.map_or(String::new(), |reason| format!("; {reason}"));
        format!(
            "because {} is the likelier cause (confidence {sure:.2}{reason})",
            suspect.component
        )
    })
}

fn suspect_words(suspect: &Suspect, first: bool) -> String {
    let mut text = format!(
        ": {} (confidence {:.2}",
        if first {
            "likeliest behind it"
        } else {
            "possible"
        },
        suspect.confidence.get()
    );
    if let Some(began) = suspect.began {
        text.push_str(&format!(", for about {began}"));
    }
    text.push_str(")\n");
    for reason in &suspect.evidence {
        text.push_str(&format!("{:19}{reason}\n", ""));
    }
    text
}
