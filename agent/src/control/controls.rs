//! What people control: the stop of all healing, maintenance and silences.
//!
//! In go orders of a person, the file `STOP`, and the time; out come facts for the
//! gate, and what is told about it. Maintenance holds back healing and nothing
//! else, a silence holds back notices and nothing else, and the stop holds back
//! all healing for good. None of them restrains a person, and none keeps anything
//! from being recorded.
//!
//! A plan that runs when its service, or everything, is held back finishes the
//! step that runs, since a service that was taken away halfway must come back;
//! unless that was its last one, it is then taken back.

use std::collections::BTreeMap;

use homeostat_common::gate::{Facts, Purpose, Window};
use homeostat_common::ids::{IncidentId, ServiceId, WebhookId};
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::{Alarm, Body, Control, ControlKind, Severity};
use serde::{Deserialize, Serialize};

use super::Loop;
use super::alarms::STOPPED;
use super::command::{Command, Scope, Switch, Windows};
use super::message::{Class, Effect};
use crate::config::{Config, People, Recurring, WHY_MAX, WINDOW_MAX};

/// While a window stands, what is left of it is kept this often: a reboot, whose
/// clock begins anew, makes it longer by no more than that.
const KEEP_PERIOD: Millis = Millis::secs(60);

/// Most windows, and most silences, at once: all of them are part of a checkpoint
/// that has to fit into one record.
const WINDOWS_MAX: usize = 32;

/// Most answers that wait for the disk; further ones are given without it.
const ANSWERS_MAX: usize = 64;

/// The switches, and what they need to know.
#[derive(Debug)]
pub(super) struct Controls {
    people: People,
    recurring: Vec<Recurring>,
    webhooks: Vec<WebhookId>,
    stopped: Option<String>,
    maintenance: Windows,
    silences: Windows,
    /// The day for which a recurring window was opened last, by its place.
    opened: BTreeMap<usize, u64>,
    kept: Micros,
    /// Answers that wait for a sync, with the question they are for.
    answers: Vec<(u64, u64, String)>,
    /// Since when a service has been well.
    well: BTreeMap<ServiceId, Micros>,
}

/// What survives a restart. The stop does so as a file of its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct SavedControls {
    maintenance: Vec<(Scope, Window)>,
    silences: Vec<(Scope, Window)>,
    opened: Vec<(usize, u64)>,
}

impl Controls {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            people: config.people,
            recurring: config.recurring.clone(),
            webhooks: config
                .webhooks
                .iter()
                .map(|hook| hook.name.clone())
                .collect(),
            stopped: None,
            maintenance: BTreeMap::new(),
            silences: BTreeMap::new(),
            opened: BTreeMap::new(),
            kept: Micros(0),
            answers: Vec::new(),
            well: BTreeMap::new(),
        }
    }

    /// Another configuration; what is switched stays so.
    pub(super) fn renew(&mut self, config: &Config) {
        self.people = config.people;
        // By what it is, not by its place: a new one in front of it would pass for
        // opened already.
        let former = std::mem::replace(&mut self.recurring, config.recurring.clone());
        let opened = std::mem::take(&mut self.opened);
        let kept = self
            .recurring
            .iter()
            .enumerate()
            .filter_map(|(at, window)| {
                let was = former.iter().position(|one| one == window)?;
                Some((at, *opened.get(&was)?))
            });
        self.opened = kept.collect();
    }

    /// `moved` takes a time of the former run to the clock of this one.
    pub(super) fn resume(&mut self, saved: SavedControls, moved: impl Fn(Micros) -> Micros) {
        let moved = |(scope, mut window): (Scope, Window)| {
            window.until = moved(window.until);
            (scope, window)
        };
        self.maintenance = saved.maintenance.into_iter().map(moved).collect();
        self.silences = saved.silences.into_iter().map(moved).collect();
        self.opened = saved.opened.into_iter().collect();
    }

    pub(super) fn saved(&self) -> SavedControls {
        let list = |windows: &Windows| -> Vec<(Scope, Window)> {
            let windows = windows.iter();
            windows
                .map(|(scope, window)| (scope.clone(), window.clone()))
                .collect()
        };
        SavedControls {
            maintenance: list(&self.maintenance),
            silences: list(&self.silences),
            opened: self.opened.iter().map(|(at, day)| (*at, *day)).collect(),
        }
    }

    pub(super) fn people(&self) -> &People {
        &self.people
    }

    pub(super) fn webhooks(&self) -> impl Iterator<Item = &WebhookId> {
        self.webhooks.iter()
    }

    /// Whether people want to hear nothing of an alarm now.
    pub(super) fn silent(&self, alarm: &Alarm, now: Micros) -> bool {
        let scopes = [
            Some(Scope::Node),
            alarm.service.clone().map(Scope::Service),
            Some(Scope::Alarm(alarm.alarm.clone())),
        ];
        !self.silences.is_empty()
            && scopes.into_iter().flatten().any(|scope| {
                let window = self.silences.get(&scope);
                window.is_some_and(|window| window.until > now)
            })
    }

    /// Tells the gate.
    pub(super) fn state_facts(&self, facts: &mut Facts) {
        facts.stopped.clone_from(&self.stopped);
        for (scope, window) in &self.maintenance {
            match scope {
                Scope::Node => facts.maintenance = Some(window.clone()),
                Scope::Service(id) => {
                    if let Some(service) = facts.services.get_mut(id) {
                        service.maintenance = Some(window.clone());
                    }
                }
                Scope::Alarm(_) => {}
            }
        }
    }

    /// Whether people work on it, or on the whole node.
    pub(super) fn in_maintenance(&self, scope: &Scope) -> bool {
        self.maintenance.contains_key(scope) || self.maintenance.contains_key(&Scope::Node)
    }

    /// Since when a service has been well without a break; `well` says whether it
    /// is now.
    pub(super) fn well_since(&mut self, id: &ServiceId, well: bool, now: Micros) -> Micros {
        if well {
            return *self.well.entry(id.clone()).or_insert(now);
        }
        self.well.remove(id);
        now
    }

    /// The service is gone.
    pub(super) fn forget(&mut self, id: &ServiceId) {
        self.well.remove(id);
        self.maintenance.remove(&Scope::Service(id.clone()));
    }

    pub(super) fn next_wake(&self) -> Option<Micros> {
        let windows = self.maintenance.values().chain(self.silences.values());
        windows.map(|window| window.until).min()
    }

    fn windows(&mut self, switch: Switch) -> &mut Windows {
        match switch {
            Switch::Maintenance => &mut self.maintenance,
            Switch::Silence => &mut self.silences,
        }
    }
}

/// What an order is about, for its record.
pub(super) type About<'a> = (Option<IncidentId>, Option<&'a ServiceId>);

impl Loop {
    /// A person on the node orders something; answered once it is on the disk.
    pub(super) fn absorb_command(
        &mut self,
        now: Micros,
        ticket: u64,
        by: &str,
        command: Command,
        effects: &mut Vec<Effect>,
    ) {
        let answer = match command {
            Command::Status => {
                let status = Ok(self.status(now));
                effects.push(Effect::Answer(ticket, status));
                return;
            }
            Command::Why { service } => {
                effects.push(Effect::Answer(ticket, self.why(&service, now)));
                return;
            }
            Command::Approve { incident, plan } => {
                self.approve(now, incident, plan.as_ref(), by, effects)
            }
            Command::Refuse { incident, why } => self.refuse(incident, &why, by, effects),
            Command::Begin {
                switch,
                scope,
                span,
                why,
            } => self.begin_window(now, switch, scope, span, &why, by, effects),
            Command::End { switch, scope } => self.end_window(switch, scope, by, effects),
            Command::Ack { alarm } => self.acknowledge(&alarm, by, effects),
            // What keeps a stop is a file, and that is not written by the loop.
            Command::Stop { why } => {
                let stopped = reasonable(&why).map(|why| {
                    self.stop(format!("{why} ({by})"), by, effects);
                    "healing is stopped".to_owned()
                });
                effects.push(Effect::Answer(ticket, stopped));
                return;
            }
            Command::Resume => {
                self.resume_healing(by, effects);
                effects.push(Effect::Answer(ticket, Ok("healing goes on".to_owned())));
                return;
            }
        };
        match answer {
            Ok(text) => self.answer_when_kept(ticket, text, effects),
            Err(why) => effects.push(Effect::Answer(ticket, Err(why))),
        }
    }

    /// An order that a power cut could undo is not confirmed.
    fn answer_when_kept(&mut self, ticket: u64, text: String, effects: &mut Vec<Effect>) {
        effects.push(Effect::Remember);
        if self.store_trouble || self.controls.answers.len() >= ANSWERS_MAX {
            let text = format!("{text}; it is not on the disk and ends with the agent");
            effects.push(Effect::Answer(ticket, Ok(text)));
            return;
        }
        let sync = self.next_ticket;
        self.next_ticket += 1;
        self.controls.answers.push((sync, ticket, text));
        effects.push(Effect::Sync(sync));
    }

    /// The disk has everything up to this sync, or (`kept` is false) takes nothing.
    pub(super) fn answer_kept(&mut self, synced: u64, kept: bool, effects: &mut Vec<Effect>) {
        let (due, waiting) = std::mem::take(&mut self.controls.answers)
            .into_iter()
            .partition(|(sync, ..)| *sync <= synced);
        self.controls.answers = waiting;
        for (_, ticket, text) in due {
            let text = match kept {
                true => text,
                false => format!("{text}; it is not on the disk and ends with the agent"),
            };
            effects.push(Effect::Answer(ticket, Ok(text)));
        }
    }

    pub(super) fn tell_control(
        &mut self,
        what: ControlKind,
        about: About<'_>,
        by: &str,
        text: String,
        effects: &mut Vec<Effect>,
    ) {
        let (incident, service) = about;
        let open = incident.and_then(|id| self.open(id).map(|open| open.mark));
        let body = Body::Control(Control {
            what,
            incident,
            service: service.cloned(),
            by: by.to_owned(),
            text,
        });
        let mark = self.emit(Class::Heal, &[open.unwrap_or(0)], body, effects);
        if let Some(open) = incident.and_then(|id| self.open(id)) {
            open.mark = mark;
        }
    }

    /// Stops all healing: `None` from the file that is gone.
    pub(super) fn absorb_stop_file(&mut self, why: Option<String>, effects: &mut Vec<Effect>) {
        const BY: &str = "the file STOP";
        match why {
            Some(why) => self.stop(why, BY, effects),
            None => self.resume_healing(BY, effects),
        }
    }

    fn stop(&mut self, why: String, by: &str, effects: &mut Vec<Effect>) {
        if self.controls.stopped.is_some() {
            return;
        }
        let text = format!("all healing on this node is stopped: {why}");
        self.tell_control(ControlKind::Stopped, (None, None), by, text, effects);
        let text = format!(
            "nothing on this node is healed, not even what is dead: {why}; homeostat-agent \
             resume-healing ends that"
        );
        self.raise(STOPPED, None, Severity::Critical, text, effects);
        self.controls.stopped = Some(why);
        self.halt(|_| true);
    }

    fn resume_healing(&mut self, by: &str, effects: &mut Vec<Effect>) {
        if self.controls.stopped.take().is_some() {
            let text = "healing goes on".to_owned();
            self.tell_control(ControlKind::Resumed, (None, None), by, text, effects);
            self.look_again();
        }
        self.clear(STOPPED, effects);
    }

    /// Plans that change one of these begin no further step; a person's own go on.
    fn halt(&mut self, concerns: impl Fn(&Primitive) -> bool) {
        let running = self
            .incidents
            .values_mut()
            .filter_map(|incident| incident.execution.as_mut());
        for execution in running {
            let writes = |step: &Primitive| step.writes() && concerns(step);
            if execution.purpose != Purpose::Operate
                && execution.transaction.plan().steps().any(writes)
            {
                // It has not been shown to fail.
                execution.refused = true;
                execution.transaction.halt();
            }
        }
    }

    /// What was refused until a certain time may be allowed now.
    pub(super) fn look_again(&mut self) {
        for incident in self.incidents.values_mut() {
            if incident.cut_short.is_none() && !incident.checking {
                incident.retry_at = None;
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn begin_window(
        &mut self,
        now: Micros,
        switch: Switch,
        scope: Scope,
        span: Millis,
        why: &str,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let why = reasonable(why)?;
        let scope = self.window_scope(switch, scope)?;
        if span == Millis(0) || span > WINDOW_MAX {
            return Err(format!("expected a span above 0 and up to {WINDOW_MAX}"));
        }
        // What the configuration says, and what stands already, takes no room from people.
        let standing = self.controls.windows(switch);
        let more = !by.is_empty() && !standing.contains_key(&scope);
        if more && standing.len() >= WINDOWS_MAX {
            return Err(format!("{WINDOWS_MAX} stand already: end some"));
        }
        let window = Window {
            until: now + span,
            why: why.clone(),
        };
        self.controls.windows(switch).insert(scope.clone(), window);
        let (what, text) = match switch {
            Switch::Maintenance => (
                ControlKind::MaintenanceBegan,
                format!("{scope} is in maintenance for {span}, and not healed: {why}"),
            ),
            Switch::Silence => (
                ControlKind::SilenceBegan,
                format!("nobody is notified about {scope} for {span}: {why}"),
            ),
        };
        let about = (None, service_of(&scope));
        self.tell_control(what, about, by, text.clone(), effects);
        if switch == Switch::Maintenance {
            self.halt(|step| match &scope {
                Scope::Service(id) => step.service() == Some(id),
                Scope::Node | Scope::Alarm(_) => true,
            });
        }
        Ok(text)
    }

    fn window_scope(&self, switch: Switch, scope: Scope) -> Result<Scope, String> {
        let scope = self.silence_scope(scope)?;
        match (&scope, switch) {
            (Scope::Service(id), _) if !self.services.contains_key(id) => {
                Err(format!("there is no service {id} here"))
            }
            (Scope::Alarm(name), Switch::Maintenance) => {
                Err(format!("there is no service {name} here"))
            }
            _ => Ok(scope),
        }
    }

    fn end_window(
        &mut self,
        switch: Switch,
        scope: Scope,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<String, String> {
        let scope = self.silence_scope(scope)?;
        if self.controls.windows(switch).remove(&scope).is_none() {
            return Err(match switch {
                Switch::Maintenance => format!("{scope} is not in maintenance"),
                Switch::Silence => format!("{scope} is not silenced"),
            });
        }
        Ok(self.tell_end(switch, &scope, by, effects))
    }

    fn tell_end(
        &mut self,
        switch: Switch,
        scope: &Scope,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> String {
        let (what, text) = match switch {
            Switch::Maintenance => (
                ControlKind::MaintenanceEnded,
                format!("the maintenance of {scope} is over"),
            ),
            Switch::Silence => (
                ControlKind::SilenceEnded,
                format!("alarms of {scope} are notified again"),
            ),
        };
        let about = (None, service_of(scope));
        self.tell_control(what, about, by, text.clone(), effects);
        self.look_again();
        text
    }

    /// Ends what is over, and keeps what is left.
    pub(super) fn pass_time(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        for switch in [Switch::Maintenance, Switch::Silence] {
            let over: Vec<Scope> = self
                .controls
                .windows(switch)
                .iter()
                .filter(|(_, window)| window.until <= now)
                .map(|(scope, _)| scope.clone())
                .collect();
            for scope in over {
                self.controls.windows(switch).remove(&scope);
                self.tell_end(switch, &scope, "", effects);
                effects.push(Effect::Remember);
            }
        }
        let stands = !self.controls.maintenance.is_empty() || !self.controls.silences.is_empty();
        if stands && now.since(self.controls.kept) >= KEEP_PERIOD {
            self.controls.kept = now;
            effects.push(Effect::Remember);
        }
    }

    /// Opens the recurring windows whose time it is. Without a wall clock that can
    /// be believed none is opened: an hour of healing at the wrong time does less
    /// harm than a night without. One that is open ends by the clock that nobody
    /// can set.
    pub(super) fn recur(&mut self, now: Micros, unix_ms: u64, effects: &mut Vec<Effect>) {
        let due: Vec<(usize, u64, Millis, Recurring)> = self
            .controls
            .recurring
            .iter()
            .enumerate()
            .filter_map(|(at, window)| {
                let (day, left) = window.open(unix_ms)?;
                // Once a day: a person may have ended it.
                let news = self.controls.opened.get(&at) != Some(&day);
                news.then(|| (at, day, left, window.clone()))
            })
            .collect();
        for (at, day, left, window) in due {
            self.controls.opened.insert(at, day);
            let scope = window.service.map_or(Scope::Node, Scope::Service);
            let longer = self.controls.maintenance.get(&scope);
            if longer.is_some_and(|standing| standing.until >= now + left) {
                continue;
            }
            let switch = Switch::Maintenance;
            let begun = self.begin_window(now, switch, scope, left, &window.why, "", effects);
            if let Err(why) = begun {
                self.note(
                    None,
                    format!("a maintenance window does not open: {why}"),
                    effects,
                );
            }
            effects.push(Effect::Remember);
        }
    }

    /// What is switched, stands and waits now, in words.
    fn status(&self, now: Micros) -> String {
        let mut text = match &self.controls.stopped {
            Some(why) => format!("healing      stopped: {why}\n"),
            None => "healing      on\n".to_owned(),
        };
        for (id, watched) in &self.services {
            let state = self.state_words(id, watched);
            text.push_str(&format!("service      {id}: {state}\n"));
        }
        for words in self.left_words() {
            text.push_str(&format!("in force     {words}\n"));
        }
        for (id, watched) in &self.services {
            let policy = &watched.policy;
            let modes = policy.modes.iter();
            let modes: String = modes
                .map(|(name, mode)| format!(", {name} {mode}"))
                .collect();
            let protected = if policy.protected { ", protected" } else { "" };
            text.push_str(&format!(
                "mode         {id}: {}{modes}{protected}\n",
                policy.mode
            ));
        }
        for one in self.budget.standings().filter(|one| one.beta > 0.0) {
            text.push_str(&format!(
                "budget       {}: {:.1} of {:.1} capacity-seconds left, {:.1} set aside\n",
                one.class.name(),
                one.balance,
                one.beta,
                one.reserved
            ));
        }
        text.push_str(&self.sensing_words(now));
        for (word, windows) in [
            ("maintenance", &self.controls.maintenance),
            ("silence", &self.controls.silences),
        ] {
            for (scope, window) in windows {
                let left = whole(window.until.since(now));
                text.push_str(&format!(
                    "{word:<12} {scope}, {left} left: {}\n",
                    window.why
                ));
            }
        }
        for (incident, held) in self.approvals.iter() {
            let left = whole(held.until.since(now));
            text.push_str(&format!(
                "approval     incident {incident}, {left} left: {}\n",
                held.plan()
            ));
        }
        for standing in self.alarms.iter() {
            let alarm = &standing.alarm;
            let state = match &standing.acked {
                Some(by) => format!("acknowledged by {by}"),
                None if self.controls.silent(alarm, now) => "silenced".to_owned(),
                None => "not acknowledged".to_owned(),
            };
            text.push_str(&format!(
                "alarm        {} ({}, {state}): {}\n",
                alarm.alarm,
                severity(alarm.severity),
                alarm.text
            ));
        }
        text
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn service_of(scope: &Scope) -> Option<&ServiceId> {
    match scope {
        Scope::Service(id) => Some(id),
        Scope::Node | Scope::Alarm(_) => None,
    }
}

/// A span for people: nobody needs its milliseconds.
fn whole(span: Millis) -> Millis {
    Millis(span.0.div_ceil(1000) * 1000)
}

/// A reason that fits into an alarm.
pub(super) fn reasonable(why: &str) -> Result<String, String> {
    let why = why.trim();
    if why.is_empty() || why.len() > WHY_MAX || why.chars().any(char::is_control) {
        return Err(format!(
            "expected a reason of 1 to {WHY_MAX} bytes in one line"
        ));
    }
    Ok(why.to_owned())
}
