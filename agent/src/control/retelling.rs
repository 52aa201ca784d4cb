//! What this node tells people of its parts of plans across nodes: a line in the log for
//! each step, and the story of each part, which outlives it and the agent.
//!
//! In go results of steps and ends of parts; out come notes and words. The plan as a
//! whole is its initiator's to tell.

use std::time::{Duration, UNIX_EPOCH};

use homeostat_common::ids::PlanId;
use homeostat_common::saga::{Participant, Record, SagaId, StepState};
use homeostat_common::transaction::Ending;
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::bounded;
use serde::{Deserialize, Serialize};

use super::Loop;
use super::message::Effect;

/// Stories that are kept, and the longest text of a step or a reason in them: they are
/// part of a checkpoint that has to fit into one record.
pub(super) const STORIES_MAX: usize = 8;
const TEXT_MAX: usize = 120;

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Story {
    pub(super) saga: SagaId,
    id: PlanId,
    /// When it began, by the wall clock, where that was known.
    begun_ms: Option<u64>,
    lasted: Millis,
    ending: Ending,
    why: Option<String>,
    steps: Vec<(String, StepState)>,
}

impl Story {
    fn is(&self, name: &str) -> bool {
        named(name, &self.saga, self.id)
    }

    /// In lines, the first one without its steps.
    pub(super) fn lines(&self) -> Vec<String> {
        let word = match self.ending {
            Ending::Done => "kept",
            Ending::Undone => "taken back",
            Ending::Stuck => "could not be taken back",
        };
        let begun = match self.begun_ms {
            Some(ms) => {
                let at = UNIX_EPOCH + Duration::from_millis(ms);
                format!("{}  ", humantime::format_rfc3339_seconds(at))
            }
            None => String::new(),
        };
        let why = self.why.as_deref();
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        let (saga, id, lasted) = (&self.saga, self.id, self.lasted);
        let mut lines = vec![format!(
            "{begun}{saga} ({id} here), ordered by {}: {word} after {lasted}{why}",
            saga.by
        )];
        for (step, state) in &self.steps {
            // Nothing of it is open any more.
            let word = match state {
                StepState::Waiting => "not begun",
                other => word_of(*other),
            };
            lines.push(format!("  {step}: {word}"));
        }
        lines
    }
}

/// Whether a person means this plan: by its name in the fleet, the number in that, or its
/// number here.
fn named(name: &str, saga: &SagaId, id: PlanId) -> bool {
    name == saga.to_string() || name == id.to_string() || name == saga.number.to_string()
}

/// How far a step is, for people.
fn word_of(state: StepState) -> &'static str {
    match state {
        StepState::Waiting => "waits for its turn",
        StepState::Running => "runs",
        StepState::Done => "done",
        StepState::Failed => "failed",
        StepState::Undoing => "is taken back",
        StepState::Undone => "taken back",
        StepState::Stuck => "could not be taken back",
    }
}

/// A line for each step of a part that is open.
pub(super) fn open_steps(machine: &Participant) -> impl Iterator<Item = String> {
    let steps = machine.states().into_iter();
    steps.filter_map(|(number, state)| {
        let primitive = machine.primitive(number)?;
        Some(format!("  {primitive}: {}", word_of(state)))
    })
}

impl Loop {
    /// A step of a part has come to something.
    pub(super) fn tell_part_step(
        &mut self,
        (id, machine): (PlanId, &Participant),
        record: &Record,
        why: Option<&str>,
        effects: &mut Vec<Effect>,
    ) {
        let (step, word) = match record {
            Record::Done(step) => (step, "done"),
            Record::Failed(step) => (step, "failed"),
            Record::Undone(step) => (step, "taken back"),
            // Reported only of a compensation that failed.
            Record::UndoIntent(step) => (step, "could not be taken back"),
            Record::Prepared(_)
            | Record::Fenced(_)
            | Record::Intent(_)
            | Record::Voted
            | Record::Committed
            | Record::Undoing { .. }
            | Record::Ended(_) => return,
        };
        let Some(primitive) = machine.primitive(*step) else {
            return;
        };
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        let text = format!("saga {}: {id} {primitive} {word}{why}", machine.saga());
        self.note(None, text, effects);
    }

    /// Keeps what became of a part.
    pub(super) fn keep_story(
        &mut self,
        (id, machine): (PlanId, &Participant),
        ending: Ending,
        now: Micros,
    ) {
        let lasted = now.since(machine.since());
        let steps = machine.states().into_iter().filter_map(|(number, state)| {
            let step = machine.primitive(number)?.to_string();
            Some((bounded(&step, TEXT_MAX), state))
        });
        let story = Story {
            saga: machine.saga().clone(),
            id,
            begun_ms: self
                .host
                .wall
                .fresh()
                .map(|now_ms| now_ms.saturating_sub(lasted.0)),
            lasted,
            ending,
            why: machine.failure().map(|why| bounded(why, TEXT_MAX)),
            steps: steps.collect(),
        };
        self.stories.push_back(story);
        while self.stories.len() > STORIES_MAX {
            self.stories.pop_front();
        }
    }

    /// What is known here of one plan across nodes.
    pub(super) fn part_story(&self, name: &str) -> Result<String, String> {
        let mut lines: Vec<String> = Vec::new();
        for story in self.stories.iter().filter(|story| story.is(name)) {
            lines.extend(story.lines());
        }
        for (id, machine) in self.open_parts() {
            if named(name, machine.saga(), id) {
                lines.push(format!("{} ({id} here) is open", machine.saga()));
                lines.extend(open_steps(machine));
            }
        }
        if lines.is_empty() {
            return Err(format!(
                "no plan across nodes {name} is known here; a plan of this node alone is told \
                 with its incident"
            ));
        }
        Ok(lines.join("\n") + "\n")
    }
}
