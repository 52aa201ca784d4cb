//! What of the loop outlives the agent: what it keeps, and how it goes on from that.
//!
//! Incidents, plans and parts of plans that were open come back from the journal's
//! records ([`super::resuming`], [`super::sagas`]), not from here.

use std::collections::VecDeque;

use homeostat_common::anomaly::Symptom;
use homeostat_common::budget::{self, Budget, Shares};
use homeostat_common::ids::{BootId, Instance, ServiceId};
use homeostat_common::saga::Fences;
use homeostat_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::{HealRecord, Loop, alarms, controls, flagging, holding, retelling};
use crate::learn::Experience;
use crate::service::{Slot, SlotName, Version};
use crate::verify::Pace;
use crate::verify::contest::Contest;

/// State that survives a restart of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The kernel's boot that the times belong to.
    pub boot: BootId,
    /// When this was written.
    pub at: Micros,
    next_incident: u64,
    next_plan: u64,
    budget: budget::Saved,
    paces: Vec<(ServiceId, Pace)>,
    /// Lives that have shown that they work: found again after a restart of the
    /// agent, their silence or wrong answers are judged at once.
    proven: Vec<(ServiceId, Instance)>,
    /// Standby replicas that are meant to run.
    scaled_out: Vec<ServiceId>,
    /// Standby replicas that are meant to run without traffic.
    warm: Vec<ServiceId>,
    /// Standby replicas that have yet to get their weight after a reboot.
    reweigh: Vec<ServiceId>,
    /// Lives that were frozen on purpose.
    paused: Vec<(ServiceId, Instance)>,
    /// What plans have left in force.
    left: Vec<holding::Left>,
    /// Services that wait for a restart with their new configuration.
    renewing: Vec<ServiceId>,
    controls: controls::SavedControls,
    alarms: alarms::SavedAlarms,
    /// What somebody else changes as well, and what plans have replaced.
    contests: Vec<(ServiceId, Contest)>,
    replaced: Vec<(ServiceId, SlotName, Version)>,
    /// What is remembered of those who give orders.
    fences: Fences,
    /// Plans across nodes that need a person.
    flagged: Vec<flagging::Flagged>,
    /// What became of this node's last parts of plans across nodes.
    stories: VecDeque<retelling::Story>,
    /// This run of the agent as an initiator, and its next number as one.
    life: u64,
    next_lead: u64,
}

/// What a former run left behind.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    /// The last [`Effect::Remember`].
    pub saved: Option<Saved>,
    /// The records since the last [`Effect::Quiet`], in order.
    pub records: Vec<HealRecord>,
    /// What it had learnt.
    pub experience: Experience,
}

/// What of a former run is taken up only after its incidents.
#[derive(Debug, Default)]
pub(super) struct Former {
    pub(super) rebooted: bool,
    pub(super) flagged: Vec<flagging::Flagged>,
    pub(super) alarms: alarms::SavedAlarms,
}

impl Loop {
    /// Takes over what a former run has kept.
    pub(super) fn recall(&mut self, saved: Saved, shares: Shares, now: Micros) -> Former {
        // Times of another boot mean nothing here; what was left of a hold
        // then is left of it now. Time in between is not credited.
        let same_boot = saved.boot == self.boot;
        self.fences = saved.fences;
        self.life = saved.life.saturating_add(1);
        self.next_lead = saved.next_lead;
        if same_boot {
            self.proven_before = saved.proven.into_iter().collect();
            // A reboot has ended all of it.
            self.left = saved.left;
            for (service, life) in saved.paused {
                if let Some(watched) = self.services.get_mut(&service) {
                    watched.paused = Some(life);
                }
            }
        }
        for service in &saved.warm {
            if let Some(watched) = self.services.get_mut(service) {
                watched.warm = true;
            }
        }
        // The forwarder has forgotten what it was told before the reboot.
        let lost = if same_boot {
            saved.reweigh
        } else {
            saved.scaled_out.clone()
        };
        self.reweigh = lost.into_iter().collect();
        for service in saved.scaled_out {
            if let Some(watched) = self.services.get_mut(&service) {
                watched.scaled_out = true;
            }
        }
        let known = |id: &ServiceId| self.services.contains_key(id);
        self.renewing = saved.renewing.into_iter().filter(known).collect();
        self.next_incident = saved.next_incident;
        self.next_plan = saved.next_plan;
        self.budget = Budget::resume(self.limits.budget, shares, &saved.budget, now);
        let (then, same) = (saved.at, same_boot);
        self.controls.resume(saved.controls, |at| match same {
            true => at,
            false => Micros(now.0.saturating_add(at - then)),
        });
        self.stories = saved.stories;
        for (service, mut pace) in saved.paces {
            if self.services.contains_key(&service) {
                if !same_boot {
                    pace.rebase(saved.at, now);
                }
                self.paces.insert(service, pace);
            }
        }
        for (service, mut contest) in saved.contests {
            if self.services.contains_key(&service) {
                if !same_boot {
                    contest.rebase(saved.at, now);
                }
                self.rivals.contests.insert(service, contest);
            }
        }
        let replaced = saved.replaced.into_iter();
        self.rivals.replaced = replaced.map(|(id, name, it)| ((id, name), it)).collect();
        Former {
            rebooted: !same_boot,
            flagged: saved.flagged,
            alarms: saved.alarms,
        }
    }

    /// Alarms of a former run whose condition is known to stand go on; the others
    /// have to be seen again.
    pub(super) fn resume_alarms(&mut self, saved: alarms::SavedAlarms, now: Micros) {
        let mut resumed = alarms::Alarms::new(now);
        resumed.resume(saved, |alarm| {
            if alarm.alarm == alarms::SAGA {
                return !self.flagged.is_empty();
            }
            let Some(id) = alarm
                .service
                .as_ref()
                .filter(|id| self.services.contains_key(id))
            else {
                return false;
            };
            let is = |what: &str| alarm.alarm == format!("{id}-{what}");
            let open = self.incidents.contains_key(id)
                && Symptom::ALL.iter().any(|symptom| is(&symptom.to_string()));
            let quarantined = self.paces.get(id).and_then(|pace| pace.quarantined_until);
            open || is("stuck")
                || is("called")
                || (is("quarantine") && quarantined.is_some_and(|at| at > now))
        });
        self.alarms = resumed;
    }

    /// What [`Effect::Remember`] persists.
    #[must_use]
    pub fn saved(&self, now: Micros) -> Saved {
        Saved {
            boot: self.boot,
            at: now,
            next_incident: self.next_incident,
            next_plan: self.next_plan,
            budget: self.budget.saved(),
            paces: self
                .paces
                .iter()
                .map(|(service, pace)| (service.clone(), pace.clone()))
                .collect(),
            proven: self
                .services
                .iter()
                .filter_map(|(id, watched)| {
                    let instance = match watched.slot {
                        Slot::Unknown => self.proven_before.get(id).copied(),
                        _ => watched.instance().filter(|_| watched.proven(now)),
                    };
                    Some((id.clone(), instance?))
                })
                .collect(),
            scaled_out: self
                .services
                .iter()
                .filter(|(_, watched)| watched.scaled_out)
                .map(|(id, _)| id.clone())
                .collect(),
            warm: self
                .services
                .iter()
                .filter(|(_, watched)| watched.warm)
                .map(|(id, _)| id.clone())
                .collect(),
            reweigh: self.reweigh.iter().cloned().collect(),
            paused: self
                .services
                .iter()
                .filter_map(|(id, watched)| Some((id.clone(), watched.paused?)))
                .collect(),
            left: self.left.clone(),
            renewing: self.renewing.iter().cloned().collect(),
            controls: self.controls.saved(),
            alarms: self.alarms.saved(),
            contests: self
                .rivals
                .contests
                .iter()
                .map(|(service, contest)| (service.clone(), contest.clone()))
                .collect(),
            replaced: self
                .rivals
                .replaced
                .iter()
                .map(|((service, name), version)| (service.clone(), *name, *version))
                .collect(),
            fences: self.fences.clone(),
            flagged: self.flagged.clone(),
            stories: self.stories.clone(),
            life: self.life,
            next_lead: self.next_lead,
        }
    }
}
