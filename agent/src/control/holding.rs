//! What plans leave in force after their end: a process that stands still or has a share of
//! the processors, a backend without traffic, a limit, a service in a lesser mode.
//!
//! In go the plans that were carried out; out come lines for people, who would otherwise
//! have to remember what they asked for. It only remembers: what is in force is known to
//! whoever carries it out, and taking it back is a plan of its own.

use homeostat_common::ids::{IncidentId, Instance, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use serde::{Deserialize, Serialize};

use super::Loop;
use crate::service::{Slot, Watched};

/// Most that are remembered, the newest: they are part of a checkpoint that has to fit into
/// one record.
const LEFT_MAX: usize = 32;

/// A step whose effect lasts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Left {
    step: Primitive,
    /// The life with which it ends, if it is about one.
    life: Option<Instance>,
    incident: IncidentId,
}

impl Loop {
    /// A plan was carried out.
    pub(super) fn note_left(&mut self, plan: &Plan, incident: IncidentId) {
        for step in plan.steps() {
            self.left.retain(|left| !ends(step, &left.step));
            let Some(of_life) = lasts(step) else {
                continue;
            };
            let life = step
                .service()
                .filter(|_| of_life)
                .and_then(|id| self.services.get(id))
                .and_then(Watched::instance);
            if of_life && life.is_none() {
                continue;
            }
            if self.left.len() >= LEFT_MAX {
                self.left.remove(0);
            }
            self.left.push(Left {
                step: step.clone(),
                life,
                incident,
            });
        }
    }

    /// What is in force now, in words.
    pub(super) fn left_words(&self) -> impl Iterator<Item = String> {
        self.left
            .iter()
            .filter(|left| {
                let Some(life) = left.life else {
                    return true;
                };
                let watched = left.step.service().and_then(|id| self.services.get(id));
                watched.and_then(Watched::instance) == Some(life)
            })
            .map(|left| format!("{}, by the plan of incident {}", left.step, left.incident))
    }

    /// How a service does, in words.
    pub(super) fn state_words(&self, id: &ServiceId, watched: &Watched) -> String {
        let mut words = format!("{:?}", watched.state(self.now)).to_lowercase();
        if let (Slot::Down { .. } | Slot::Unknown, Some(why)) = (watched.slot, &watched.start_error)
        {
            words.push_str(&format!(": it cannot be started: {why}"));
        }
        if let Some(incident) = self.incidents.get(id) {
            words.push_str(&format!(
                ", incident {} ({})",
                incident.id, incident.symptom
            ));
        }
        words
    }
}

/// Whether a step's effect outlasts its plan, and if so whether it ends with the process.
fn lasts(step: &Primitive) -> Option<bool> {
    match step {
        Primitive::Freeze { .. } | Primitive::LimitCpu { .. } | Primitive::Degrade { .. } => {
            Some(true)
        }
        // No share is what there was before.
        Primitive::Reroute { share, .. } => (share.get() > 0).then_some(false),
        Primitive::Isolate { .. }
        | Primitive::LimitRate { .. }
        | Primitive::BlockSource { .. }
        | Primitive::SwitchUplink { .. }
        | Primitive::BlockPort { .. } => Some(false),
        _ => None,
    }
}

/// Whether a step ends, or takes the place of, what a former one has left.
fn ends(step: &Primitive, left: &Primitive) -> bool {
    use Primitive::{
        BlockPort, BlockSource, Degrade, Freeze, Isolate, LimitCpu, LimitRate, Release,
        ReleaseUplink, Reroute, Restart, SwitchUplink, Thaw, UnblockPort, UnblockSource, Undegrade,
        UnlimitCpu, UnlimitRate,
    };
    let same_service = step.service() == left.service();
    let same_route = step.route() == left.route();
    match (left, step) {
        (Freeze { .. }, Thaw { .. } | Freeze { .. } | Restart { .. })
        | (LimitCpu { .. }, UnlimitCpu { .. } | LimitCpu { .. } | Restart { .. })
        | (Degrade { .. }, Undegrade { .. } | Degrade { .. } | Restart { .. }) => same_service,
        (Isolate { .. }, Release { .. } | Isolate { .. })
        | (Reroute { .. }, Release { .. } | Reroute { .. }) => same_route && same_service,
        (LimitRate { .. }, UnlimitRate { .. } | LimitRate { .. }) => same_route,
        (
            BlockSource { from, .. },
            UnblockSource { from: given, .. } | BlockSource { from: given, .. },
        ) => same_route && from == given,
        (
            BlockPort { from, .. },
            UnblockPort { from: given, .. } | BlockPort { from: given, .. },
        ) => same_service && from == given,
        // The node has one.
        (SwitchUplink { .. }, ReleaseUplink { .. } | SwitchUplink { .. }) => true,
        _ => false,
    }
}
