//! Alarms: raised, repeated ever more slowly until a person acknowledges them or
//! they are over, and kept across restarts of the agent.
//!
//! In go conditions from everywhere in the loop; out come events for the record
//! and notices for people. A silence holds back the notices and never the record;
//! what it held back and still stands is told when it ends. Delivery, and trying
//! again until somebody has received a notice, is the shell's affair.

use std::collections::BTreeMap;

use homeostat_common::anomaly::Symptom;
use homeostat_common::ids::{CertificateId, ServiceId, WebhookId};
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::{Alarm, Body, ControlKind, Severity};
use homeostat_common::wire::bounded;
use homeostat_common::wire::notice::{self, News, Notice};
use serde::{Deserialize, Serialize};

use super::Loop;
use super::certifying::certificate_alarm;
use super::command::Scope;
use super::foreseeing::{DISK, HEAT, INODES};
use super::message::{Class, Effect};
use super::noticing::{NODE_UNUSUAL, UNUSUAL};

/// Alarms wait so long for the spawner at the start: what is told before the
/// record of the start would be taken for what a former run had to tell.
const ANNOUNCED_BY: Millis = Millis::secs(6);

/// So long what a former run had raised may take to be seen again.
const FORMER_SPAN: Millis = Millis::secs(60);

/// Most alarms that are kept across restarts, the gravest first, and the longest
/// text of each: the checkpoint they are part of has to fit into one record.
const KEPT_MAX: usize = 32;
const KEPT_TEXT_MAX: usize = 240;

/// The alarm of a stop of all healing.
pub(super) const STOPPED: &str = "healing-stopped";

/// The alarm of a plan across nodes that needs a person.
pub(super) const SAGA: &str = "saga";

/// The alarm of orders that this node does not believe.
pub(super) const REFUSED: &str = "orders-refused";

/// Every alarm that the loop can raise, for these services and webhooks.
pub fn alarm_names<'a>(
    services: impl Iterator<Item = &'a ServiceId>,
    webhooks: impl Iterator<Item = &'a WebhookId>,
    certificates: impl Iterator<Item = &'a CertificateId>,
) -> Vec<String> {
    let of_node = [
        "store",
        "stranger-cpu",
        "forwarder-frozen",
        super::outside::FULL,
        SAGA,
        REFUSED,
        STOPPED,
        DISK,
        INODES,
        HEAT,
        NODE_UNUSUAL,
    ];
    let mut names: Vec<String> = of_node.map(String::from).into();
    names.extend(certificates.map(certificate_alarm));
    names.extend(webhooks.map(|name| format!("webhook-{name}")));
    for service in services {
        for what in OF_SERVICE {
            names.push(format!("{service}-{what}"));
        }
        names.extend(Symptom::ALL.map(|symptom| format!("{service}-{symptom}")));
    }
    names
}

/// Alarms of a service besides its symptoms.
pub(super) const OF_SERVICE: [&str; 9] = [
    "drift",
    "disagree",
    "quarantine",
    "frozen",
    "confidence",
    "stuck",
    "called",
    "contested",
    UNUSUAL,
];

/// An alarm that stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) alarm: Alarm,
    number: u64,
    repeats: u32,
    /// Who deals with it.
    pub(super) acked: Option<String>,
    /// People were told of it.
    told: bool,
    /// This run of the agent has recorded it.
    #[serde(skip)]
    shown: bool,
    /// A silence held a notice back.
    #[serde(skip)]
    owed: bool,
    /// When it is repeated.
    #[serde(skip)]
    next: Micros,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Alarms {
    standing: BTreeMap<String, Standing>,
    /// What a former run had raised and has to be seen again to stand.
    former: BTreeMap<String, Standing>,
    next: u64,
    since: Micros,
    /// When this run could hear devices for the first time.
    online: Option<Micros>,
    announced: bool,
}

impl Alarms {
    pub(super) fn new(now: Micros) -> Self {
        Self {
            standing: BTreeMap::new(),
            former: BTreeMap::new(),
            next: 1,
            since: now,
            online: None,
            announced: false,
        }
    }

    /// Takes over what a former run had raised. `holds` says whether the condition
    /// is known to stand; the others have to be seen again.
    pub(super) fn resume(&mut self, saved: SavedAlarms, holds: impl Fn(&Alarm) -> bool) {
        self.next = self.next.max(saved.next);
        for standing in saved.standing {
            let standing = Standing {
                shown: false,
                owed: false,
                next: Micros(0),
                ..standing
            };
            let name = standing.alarm.alarm.clone();
            if holds(&standing.alarm) {
                self.standing.insert(name, standing);
            } else {
                self.former.insert(name, standing);
            }
        }
    }

    pub(super) fn saved(&self) -> SavedAlarms {
        let mut standing: Vec<Standing> = self
            .standing
            .values()
            .chain(self.former.values())
            .cloned()
            .collect();
        standing.sort_by_key(|one| (one.acked.is_some(), std::cmp::Reverse(one.alarm.severity)));
        standing.truncate(KEPT_MAX);
        for one in &mut standing {
            one.alarm.text = bounded(&one.alarm.text, KEPT_TEXT_MAX);
        }
        let next = self.next;
        SavedAlarms { next, standing }
    }

    /// Whether an alarm of that name is raised.
    pub(super) fn stands(&self, name: &str) -> bool {
        self.standing.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Standing> {
        self.standing.values()
    }

    /// The link is there: devices are heard from now on.
    pub(super) fn hear(&mut self, now: Micros) {
        self.online.get_or_insert(now);
    }

    /// Until when what a former run had raised has to be seen again; `None` while it cannot.
    fn seen_by(&self, name: &str) -> Option<Micros> {
        let from = match name.starts_with(super::outside::OF_DEVICE) {
            true => self.online?,
            false => self.since,
        };
        Some(from + FORMER_SPAN)
    }

    pub(super) fn next_wake(&self) -> Option<Micros> {
        let start =
            (!self.announced && !self.standing.is_empty()).then(|| self.since + ANNOUNCED_BY);
        let former = self.former.keys().filter_map(|name| self.seen_by(name));
        let repeats = self
            .standing
            .values()
            .filter(|one| one.shown && one.acked.is_none() && !one.owed)
            .map(|one| one.next);
        repeats.chain(start).chain(former).min()
    }
}

/// What survives a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct SavedAlarms {
    next: u64,
    standing: Vec<Standing>,
}

impl Loop {
    /// Raises an alarm, or changes the text of one that stands.
    pub(super) fn raise(
        &mut self,
        name: &str,
        service: Option<&ServiceId>,
        severity: Severity,
        text: String,
        effects: &mut Vec<Effect>,
    ) {
        let alarm = Alarm {
            alarm: name.to_owned(),
            service: service.cloned(),
            severity,
            raised: true,
            text,
        };
        let mut acked = None;
        let mut told = false;
        if let Some(standing) = self.alarms.standing.get_mut(name) {
            if standing.alarm.severity == severity {
                // The words may carry a remaining time; that alone is no news.
                standing.alarm = alarm;
                return;
            }
            told = standing.told;
            // Whoever deals with a warning does not know yet that it got worse.
            acked = standing
                .acked
                .take()
                .filter(|_| standing.alarm.severity > severity);
        }
        let former = self.alarms.former.remove(name);
        let standing = match former.filter(|former| former.alarm.severity == severity) {
            Some(former) => Standing { alarm, ..former },
            None => {
                let number = self.alarms.next;
                self.alarms.next += 1;
                Standing {
                    alarm,
                    number,
                    repeats: 0,
                    acked,
                    told,
                    shown: false,
                    owed: false,
                    next: Micros(0),
                }
            }
        };
        self.alarms.standing.insert(name.to_owned(), standing);
        effects.push(Effect::Remember);
        if self.alarms.announced {
            self.show_alarm(name, News::Raised, effects);
        }
    }

    /// Raises an alarm for something new, of which whoever deals with it does not know.
    pub(super) fn raise_anew(
        &mut self,
        name: &str,
        service: Option<&ServiceId>,
        severity: Severity,
        text: String,
        effects: &mut Vec<Effect>,
    ) {
        for standing in [&mut self.alarms.standing, &mut self.alarms.former] {
            if standing.get(name).is_some_and(|one| one.acked.is_some()) {
                standing.remove(name);
            }
        }
        self.raise(name, service, severity, text, effects);
    }

    pub(super) fn clear(&mut self, name: &str, effects: &mut Vec<Effect>) {
        let former = self.alarms.former.remove(name);
        let Some(mut standing) = self.alarms.standing.remove(name).or(former) else {
            return;
        };
        standing.alarm.raised = false;
        // A device's name is none of those that are cleared at each start.
        if standing.shown || name.starts_with(super::outside::OF_DEVICE) {
            effects.push(Effect::ShowAlarm(name.to_owned(), None));
            let body = Body::Alarm(standing.alarm.clone());
            self.emit(Class::Heal, &[], body, effects);
        }
        if standing.told {
            effects.push(Effect::Notify(told(&standing, News::Cleared)));
        }
        effects.push(Effect::Remember);
    }

    /// Records an alarm that stands, and tells people unless they want silence or
    /// somebody deals with it.
    fn show_alarm(&mut self, name: &str, news: News, effects: &mut Vec<Effect>) {
        let people = *self.controls.people();
        let now = self.now;
        let Some(standing) = self.alarms.standing.get_mut(name) else {
            return;
        };
        standing.shown = true;
        standing.owed = self.controls.silent(&standing.alarm, now);
        standing.next = now + notice::pause(people.repeat_min, people.repeat_max, standing.repeats);
        let alarm = standing.alarm.clone();
        if !standing.owed {
            let body = Body::Alarm(alarm.clone());
            effects.push(Effect::ShowAlarm(name.to_owned(), Some(body)));
            if standing.acked.is_none() {
                standing.told = true;
                effects.push(Effect::Notify(told(standing, news)));
            }
        }
        self.emit(Class::Heal, &[], Body::Alarm(alarm), effects);
    }

    /// Announces what stands at the start, repeats what nobody has acknowledged,
    /// and tells what a silence held back.
    pub(super) fn repeat_alarms(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        self.forget_refused(now, effects);
        let started = self.spawner || now >= self.alarms.since + ANNOUNCED_BY;
        if !self.alarms.announced && started {
            self.alarms.announced = true;
        }
        let former = self.alarms.former.keys();
        let gone = former.filter(|name| self.alarms.seen_by(name).is_some_and(|by| now >= by));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.clear(&name, effects);
        }
        if !self.alarms.announced {
            return;
        }
        let mut due = Vec::new();
        for (name, standing) in &mut self.alarms.standing {
            let silent = self.controls.silent(&standing.alarm, now);
            let first = !standing.told;
            if !standing.shown {
                due.push((name.clone(), News::Raised));
            } else if standing.acked.is_some() {
                // Somebody deals with it; a silence that ended shows it again.
                if standing.owed && !silent {
                    due.push((name.clone(), News::Acknowledged));
                }
            } else if silent {
                standing.owed = true;
            } else if standing.owed || now >= standing.next {
                if !first {
                    standing.repeats = standing.repeats.saturating_add(1);
                }
                let news = if first { News::Raised } else { News::Repeated };
                due.push((name.clone(), news));
            }
        }
        if !due.is_empty() {
            effects.push(Effect::Remember);
        }
        for (name, news) in due {
            self.show_alarm(&name, news, effects);
        }
    }

    /// A person deals with an alarm.
    pub(super) fn acknowledge(
        &mut self,
        name: &str,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let Some(standing) = self.alarms.standing.get_mut(name) else {
            let names: Vec<&str> = self.alarms.standing.keys().map(String::as_str).collect();
            return Err(match names[..] {
                [] => format!("there is no alarm {name}: none stands"),
                _ => format!(
                    "there is no alarm {name}; these stand: {}",
                    names.join(", ")
                ),
            });
        };
        standing.acked = Some(by.to_owned());
        let service = standing.alarm.service.clone();
        if standing.told {
            effects.push(Effect::Notify(told(standing, News::Acknowledged)));
        }
        let text = format!("alarm {name} is acknowledged and not repeated any more");
        let about = (None, service.as_ref());
        self.tell_control(ControlKind::Acknowledged, about, by, text.clone(), effects);
        // A call has no condition that could end: it is over once it is answered.
        if name.ends_with("-called") {
            self.clear(name, effects);
        }
        if name == SAGA {
            self.flags_heard(effects);
        }
        Ok(text)
    }

    /// A scope of a silence, if there is anything of that name.
    pub(super) fn silence_scope(&self, scope: Scope) -> Result<Scope, String> {
        let Scope::Alarm(name) = scope else {
            return Ok(scope);
        };
        if let Some(id) = self.services.keys().find(|id| id.as_str() == name) {
            return Ok(Scope::Service(id.clone()));
        }
        let known = alarm_names(
            self.services.keys(),
            self.controls.webhooks(),
            self.foresight.certificates.ids(),
        );
        if known.contains(&name) || self.alarms.stands(&name) {
            Ok(Scope::Alarm(name))
        } else {
            Err(format!("{name} is neither a service here nor an alarm"))
        }
    }
}

fn told(standing: &Standing, news: News) -> Notice {
    Notice {
        news,
        alarm: standing.alarm.alarm.clone(),
        number: standing.number,
        repeat: standing.repeats,
        service: standing.alarm.service.clone(),
        severity: standing.alarm.severity,
        text: standing.alarm.text.clone(),
        by: standing.acked.clone(),
    }
}
