//! Plans across nodes for which a person was called here: one alarm for all of them,
//! which stands as long as any of them needs somebody.
//!
//! In go flags and ends of this node's parts and of what is led here, and that somebody
//! has heard the alarm; out comes the alarm. What ended neither done nor taken back has
//! no condition that could end: it is over when the alarm is acknowledged. It outlives
//! the agent. The alarm has one name, as its topic on the broker must be known without
//! any memory.

use homeostat_common::saga::SagaId;
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::bounded;
use serde::{Deserialize, Serialize};

use super::Loop;
use super::alarms::{REFUSED, SAGA};
use super::message::Effect;

/// Most that are kept, and the longest words of each: they are part of a checkpoint
/// that has to fit into one record. The oldest go; the alarm stands all the same.
const FLAGGED_MAX: usize = 8;
const TEXT_MAX: usize = 240;

/// Orders that are not believed are one alarm as long as they come again within this
/// time: a plan repeats its own each second, a person tries again after minutes.
const REFUSED_LINGER: Millis = Millis::secs(600);

/// One plan that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flagged {
    saga: SagaId,
    /// As its initiator, not as one of its nodes.
    led: bool,
    text: String,
    /// It has ended, and not well.
    over: bool,
}

impl Loop {
    /// A plan needs a person; whoever dealt with the alarm before does not know of this.
    pub(super) fn flag_saga(
        &mut self,
        saga: &SagaId,
        led: bool,
        why: &str,
        effects: &mut Vec<Effect>,
    ) {
        self.flagged
            .retain(|one| one.saga != *saga || one.led != led);
        if self.flagged.len() >= FLAGGED_MAX {
            let over = self.flagged.iter().position(|one| one.over);
            self.flagged.remove(over.unwrap_or(0));
        }
        self.flagged.push(Flagged {
            saga: saga.clone(),
            led,
            text: bounded(why, TEXT_MAX),
            over: false,
        });
        let text = self.flagged_text();
        self.raise_anew(SAGA, None, Severity::Critical, text, effects);
        effects.push(Effect::Remember);
    }

    /// A plan has ended; `well` leaves nothing for a person.
    pub(super) fn unflag_saga(
        &mut self,
        saga: &SagaId,
        led: bool,
        well: bool,
        effects: &mut Vec<Effect>,
    ) {
        let own = |one: &Flagged| one.saga == *saga && one.led == led;
        for one in self.flagged.iter_mut().filter(|one| own(one)) {
            one.over = true;
        }
        if well && self.flagged.iter().any(own) {
            self.flagged.retain(|one| !own(one));
            self.show_flagged(effects);
        }
    }

    /// Somebody deals with the alarm.
    pub(super) fn flags_heard(&mut self, effects: &mut Vec<Effect>) {
        self.flagged.retain(|one| !one.over);
        self.show_flagged(effects);
    }

    /// What a former run was called for and is not open any more ended without a word.
    pub(super) fn resume_flags(&mut self, saved: Vec<Flagged>) {
        self.flagged = saved;
        let open: Vec<SagaId> = self.open_sagas().collect();
        for one in &mut self.flagged {
            one.over |= !open.contains(&one.saga);
        }
    }

    /// Somebody gives orders whom this node does not believe: a wrong key here, or there.
    pub(super) fn absorb_refused(
        &mut self,
        now: Micros,
        by: &str,
        why: &str,
        effects: &mut Vec<Effect>,
    ) {
        self.refused = Some(now);
        let text = format!(
            "orders under the name {by} are not obeyed: {why}; see [orders] trusted, \
             `homeostat plan key` and `homeostat-agent key`"
        );
        self.raise(REFUSED, None, Severity::Warning, text, effects);
    }

    /// Nobody of that kind was heard for long.
    pub(super) fn forget_refused(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if self.refused.is_some_and(|at| at + REFUSED_LINGER <= now) {
            self.refused = None;
            self.clear(REFUSED, effects);
        }
    }

    fn show_flagged(&mut self, effects: &mut Vec<Effect>) {
        if self.flagged.is_empty() {
            self.clear(SAGA, effects);
        } else if self.alarms.stands(SAGA) {
            let text = self.flagged_text();
            self.raise(SAGA, None, Severity::Critical, text, effects);
        }
        effects.push(Effect::Remember);
    }

    fn flagged_text(&self) -> String {
        let Some((newest, older)) = self.flagged.split_last() else {
            return String::new();
        };
        match older.len() {
            0 => newest.text.clone(),
            more => format!("{}; and {more} more, of before", newest.text),
        }
    }
}
