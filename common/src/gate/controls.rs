//! What people allow: how far the agent goes by itself with each kind of step,
//! where somebody works on a service, and whether healing is stopped.
//!
//! In go a plan and the facts; out comes the objection of one of these rules.
//! Who may change a control, and for how long it stands, is the agent's affair.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::rules::{Objection, Rule};
use super::{Facts, Mode};
use crate::plan::Plan;
use crate::primitive::Primitive;
use crate::units::Micros;

impl Mode {
    /// Every mode, from the least to the most that the agent does by itself.
    pub const ALL: [Self; 4] = [Self::Observe, Self::Recommend, Self::Ask, Self::Act];

    /// Its word in configuration files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Recommend => "recommend",
            Self::Ask => "ask",
            Self::Act => "act",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A time in which a person works on something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Why, in that person's words.
    pub why: String,
    /// When it ends by itself.
    pub until: Micros,
}

/// How far the agent may go by itself with one step: what its service says of
/// this primitive, else of all. What belongs to no service of this node is the
/// node's.
#[must_use]
pub fn allowed(primitive: &Primitive, facts: &Facts) -> Mode {
    let named = primitive.service().into_iter().chain(primitive.backends());
    named
        .map(|id| match facts.services.get(id) {
            Some(service) => *service.modes.get(primitive.name()).unwrap_or(&service.mode),
            None => facts.mode,
        })
        .min()
        .unwrap_or(facts.mode)
}

/// The step that the agent may do least with by itself; the first of several.
/// A plan goes no further than that one.
fn least<'p>(plan: &'p Plan, facts: &Facts) -> Option<(&'p Primitive, Mode)> {
    plan.steps()
        .filter(|primitive| primitive.writes())
        .map(|primitive| (primitive, allowed(primitive, facts)))
        .min_by_key(|(_, mode)| *mode)
}

/// The objection of a rule that a person has set. Rules that are not about
/// people have none here.
pub(super) fn objection(rule: Rule, plan: &Plan, facts: &Facts) -> Option<Objection> {
    let (step, mode) = least(plan, facts)?;
    match rule {
        Rule::Stopped => {
            let why = facts.stopped.as_ref()?;
            let text = alloc::format!(
                "healing is stopped on this node: {why}; homeostat-agent resume-healing ends that"
            );
            Some((text, None))
        }
        Rule::Maintenance => {
            let own = plan
                .steps()
                .filter(|primitive| primitive.writes())
                .flat_map(Primitive::touched)
                .filter_map(|id| {
                    Some((id.as_str(), facts.services.get(id)?.maintenance.as_ref()?))
                });
            let whole = facts
                .maintenance
                .as_ref()
                .map(|window| ("the node", window));
            let (what, window) = own
                .chain(whole)
                .filter(|(_, window)| window.until > facts.now)
                .max_by_key(|(_, window)| window.until)?;
            // Not how long: an alarm that is repeated keeps these words.
            let text = alloc::format!("{what} is in maintenance: {}", window.why);
            Some((text, Some(window.until)))
        }
        Rule::ObserveOnly if mode == Mode::Observe => Some((observed(step, facts), None)),
        Rule::RecommendOnly if mode == Mode::Recommend => {
            let text = alloc::format!(
                "{step} is allowed by every other rule, and only recommended: homeostat-agent do \
                 '{plan}' runs it"
            );
            Some((text, None))
        }
        Rule::NeedsApproval if mode == Mode::Ask && facts.approved.as_ref() != Some(plan) => {
            let text = alloc::format!(
                "{step} is allowed by every other rule, and waits for a person to approve it"
            );
            Some((text, None))
        }
        _ => None,
    }
}

fn observed(step: &Primitive, facts: &Facts) -> String {
    let own = step
        .service()
        .and_then(|id| facts.services.get_key_value(id));
    match own {
        Some((id, service)) if service.modes.get(step.name()) == Some(&Mode::Observe) => {
            let name = step.name();
            alloc::format!(
                "{name} of {id} is only observed; set {name} = \"act\" in its autonomy to allow it"
            )
        }
        Some((id, service)) if service.mode == Mode::Observe => {
            alloc::format!("{id} is only observed; set mode = \"act\" to heal it")
        }
        _ => String::from("routes are only observed; set mode = \"act\" to change them"),
    }
}
