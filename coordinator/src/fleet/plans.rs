//! Plans across nodes as the API shows them, and how one is asked for.

use std::collections::BTreeMap;

use homeostat_common::ids::{NodeId, SiteId};
use homeostat_common::saga::{FleetPlan, StepState};
use homeostat_common::units::Ratio;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A plan across nodes that a person wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetPlanWish {
    /// Its text, such as `n1: isolate(infer, infer-1, drain=1s) ; n2: scale-out(infer, infer-3)`.
    pub plan: String,
    /// How sure the diagnosis behind it is; without one it is a person's wish, which
    /// the nodes' gates treat as such. A null is refused: whoever wrote a number
    /// that JSON does not know was not without one.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub confidence: Option<f32>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    f32::deserialize(from).map(Some)
}

/// A plan across nodes was taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetPlanBegun {
    /// Its number.
    pub id: u64,
}

/// A plan across nodes was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetPlanStopped {
    /// Nobody waits for it any more; otherwise it is being taken back.
    pub given_up: bool,
}

/// What this coordinator signs orders with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrdersKey {
    /// Its name as an initiator.
    pub name: String,
    /// The public key, in hex: for `[orders] trusted` on the nodes.
    pub key: String,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepIs {
    /// Not begun.
    Waiting,
    /// On its way.
    Running,
    /// It took effect.
    Done,
    /// It did not.
    Failed,
    /// Its compensation is on its way.
    Undoing,
    /// Taken back.
    Undone,
    /// It could not be taken back.
    Stuck,
}

impl From<StepState> for StepIs {
    fn from(state: StepState) -> Self {
        match state {
            StepState::Waiting => Self::Waiting,
            StepState::Running => Self::Running,
            StepState::Done => Self::Done,
            StepState::Failed => Self::Failed,
            StepState::Undoing => Self::Undoing,
            StepState::Undone => Self::Undone,
            StepState::Stuck => Self::Stuck,
        }
    }
}

/// A step of a plan across nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetPlanStep {
    /// Whose.
    pub node: String,
    /// Where that stands.
    pub site: Option<String>,
    /// What.
    pub primitive: String,
    /// How far it is, as far as its node has said.
    pub state: StepIs,
}

/// What was decided about a plan across nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetPlanDecision {
    /// When.
    pub at_ms: u64,
    /// What, in words.
    pub what: String,
}

/// A plan across nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetPlanView {
    /// Its number.
    pub id: u64,
    /// Its text.
    pub plan: String,
    /// How sure the diagnosis behind it is; absent when a person asked.
    pub confidence: Option<f32>,
    /// `preparing`, `running`, `voting`, `committing`, `undoing`, `done`, `undone`, `stuck`.
    pub phase: String,
    /// When it began.
    pub begun_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Why it is taken back.
    pub why: Option<String>,
    /// What a person was called for.
    pub flag: Option<String>,
    /// Its steps, in the order of its text.
    pub steps: Vec<FleetPlanStep>,
    /// What was decided; only for one plan.
    pub decisions: Vec<FleetPlanDecision>,
}

impl FleetPlanView {
    /// What can be told from the plan and how far its steps are; the rest is empty.
    #[must_use]
    pub fn new(
        id: u64,
        plan: &FleetPlan,
        confidence: Option<Ratio>,
        sites: &BTreeMap<NodeId, SiteId>,
        phase: String,
        states: &[StepState],
    ) -> Self {
        let steps = plan.steps().enumerate().map(|(place, leaf)| FleetPlanStep {
            node: leaf.node.to_string(),
            site: sites.get(&leaf.node).map(ToString::to_string),
            primitive: leaf.primitive.to_string(),
            state: states.get(place).copied().unwrap_or_default().into(),
        });
        Self {
            id,
            plan: plan.to_string(),
            confidence: confidence.map(Ratio::get),
            phase,
            begun_ms: 0,
            ended_ms: None,
            why: None,
            flag: None,
            steps: steps.collect(),
            decisions: Vec::new(),
        }
    }
}
