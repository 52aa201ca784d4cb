//! Alarms of others: what the coordinator knows of other systems, and what devices say.
//!
//! In: the coordinator's list, which replaces the one before, and single words of devices. Out:
//! entries of `A_t`; and alarms of this node for devices, which are repeated and acknowledged
//! like its own, with their topic in the text; after a restart they are over only
//! once the link has been there for a minute without a word of them. Those of other systems are not raised again:
//! whoever raised them calls people. Nothing is decided by any of them: a healer that acts on
//! what anybody may publish is one that anybody may steer.

use std::collections::BTreeMap;

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::AlarmReading;
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::bounded;
use homeostat_common::wire::projection::{OUTSIDE_MAX, Outside};
use homeostat_notify::intake::{Heard, TEXT_MAX};

use super::Loop;
use super::message::Effect;
use crate::service::Watched;

/// The alarm of a device is this and its name.
pub(super) const OF_DEVICE: &str = "mqtt-";

/// The alarm of alarms for which there is no room.
pub(super) const FULL: &str = "intake-full";

/// Most alarms of devices that stand: each is a retained topic and is kept over restarts.
const DEVICES_MAX: usize = 32;

/// What others say.
#[derive(Debug, Default)]
pub(super) struct Others {
    told: Outside,
    /// The topic of each alarm of a device that stands.
    devices: BTreeMap<String, String>,
    left_out: u64,
}

impl Others {
    pub(super) fn take(&mut self, outside: Outside) {
        self.told = outside;
        self.told.alarms.truncate(OUTSIDE_MAX);
        for alarm in &mut self.told.alarms {
            alarm.alarm = bounded(&alarm.alarm, TEXT_MAX);
            alarm.text = bounded(&alarm.text, TEXT_MAX);
        }
    }

    /// What other systems say, for `A_t`.
    pub(super) fn readings(
        &self,
        services: &BTreeMap<ServiceId, Watched>,
    ) -> impl Iterator<Item = AlarmReading> {
        self.told.alarms.iter().map(|alarm| AlarmReading {
            alarm: alarm.alarm.clone(),
            service: alarm
                .service
                .clone()
                .filter(|service| services.contains_key(service)),
            text: alarm.text.clone(),
        })
    }
}

impl Loop {
    pub(super) fn absorb_heard(&mut self, topic: String, heard: Heard, effects: &mut Vec<Effect>) {
        let word = match heard {
            Heard::Word(word) => word,
            Heard::Gone => {
                let devices = self.outside.devices.iter();
                let gone = devices.filter(|(_, from)| **from == topic);
                let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
                for name in gone {
                    self.end_heard(&name, effects);
                }
                return;
            }
        };
        let other = |node: &String| *node != self.node.as_str();
        if word.node.as_ref().is_some_and(other) {
            return;
        }
        let name = format!("{OF_DEVICE}{}", word.alarm);
        if !word.raised {
            self.end_heard(&name, effects);
            return;
        }
        let devices = &mut self.outside.devices;
        if devices.len() >= DEVICES_MAX && !devices.contains_key(&name) {
            self.outside.left_out = self.outside.left_out.saturating_add(1);
            let text = format!(
                "{} alarms of devices were left out: {DEVICES_MAX} stand",
                self.outside.left_out
            );
            self.raise(FULL, None, Severity::Warning, text, effects);
            return;
        }
        devices.insert(name.clone(), topic);
        let service = word
            .service
            .and_then(|service| ServiceId::new(&service).ok());
        let service = service.filter(|service| self.services.contains_key(service));
        self.raise(&name, service.as_ref(), word.severity, word.text, effects);
    }

    fn end_heard(&mut self, name: &str, effects: &mut Vec<Effect>) {
        self.outside.devices.remove(name);
        // It may be one that a former run has raised.
        self.clear(name, effects);
        if self.outside.devices.len() < DEVICES_MAX {
            self.outside.left_out = 0;
            self.clear(FULL, effects);
        }
    }
}
