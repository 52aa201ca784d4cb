//! What a model makes of inputs that it is asked again and again.
//!
//! In go the answers of an inference probe. Out come the largest error among them, and how
//! often another model, asked the same, chooses another class. That needs no outputs that are
//! known to be right: two models that were trained apart and begin to disagree are a reason
//! to look. Two that go wrong alike are not found by this.

use std::collections::BTreeMap;

use crate::config::GOLDENS_MAX;

/// Inputs that both must have answered before anything is said of their disagreement.
const COMMON_MIN: usize = 4;

/// What a model made of a known input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Tells the input apart, here and at a twin that is asked the same.
    pub input: u64,
    /// The place of its largest output.
    pub class: u16,
    /// Largest difference from the golden outputs, if there are any.
    pub error: Option<f32>,
}

/// The last answer to each input that is still asked. They are asked in turn, so one that is
/// not among the last [`GOLDENS_MAX`] answers was of another model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answers {
    answers: u64,
    /// With the number of the answer.
    last: BTreeMap<u64, (u64, Choice)>,
}

impl Answers {
    /// Takes an answer in.
    pub fn push(&mut self, choice: Choice) {
        self.answers += 1;
        self.last.insert(choice.input, (self.answers, choice));
        let oldest = self.answers.saturating_sub(GOLDENS_MAX as u64);
        self.last.retain(|_, (number, _)| *number > oldest);
    }

    /// The largest error of the last answers.
    #[must_use]
    pub fn error(&self) -> Option<f32> {
        let errors = self.last.values().filter_map(|(_, choice)| choice.error);
        errors.reduce(f32::max)
    }

    /// The share of inputs on which the two choose another class, and of how many.
    #[must_use]
    pub fn disagreement(&self, other: &Self) -> Option<(f32, usize)> {
        let both = self.last.values().filter_map(|(_, own)| {
            let (_, theirs) = other.last.get(&own.input)?;
            Some(own.class != theirs.class)
        });
        let both: Vec<bool> = both.collect();
        let differ = both.iter().filter(|differs| **differs).count();
        (both.len() >= COMMON_MIN).then(|| (differ as f32 / both.len() as f32, both.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_are_compared_on_what_both_were_asked() {
        let choice = |input, class| Choice {
            input,
            class,
            error: (input == 3).then_some(0.5),
        };
        let (mut one, mut other) = (Answers::default(), Answers::default());
        for input in 0..5 {
            one.push(choice(input, 1));
            assert_eq!(one.disagreement(&other), None);
        }
        for input in 1..9 {
            other.push(choice(input, u16::from(input == 2)));
        }
        assert_eq!(one.disagreement(&other), Some((0.75, 4)));
        other.push(choice(1, 1));
        assert_eq!(one.disagreement(&other), Some((0.5, 4)));
        assert_eq!(one.error(), Some(0.5));
    }

    #[test]
    fn another_model_with_other_inputs_takes_the_place_of_the_former() {
        let choice = |input, error| Choice {
            input,
            class: 0,
            error: Some(error),
        };
        let all = GOLDENS_MAX as u64;
        let mut answers = Answers::default();
        for input in 0..1000 {
            answers.push(choice(input % all, 0.5));
            assert!(answers.last.len() <= GOLDENS_MAX);
        }
        assert_eq!(answers.last.len(), GOLDENS_MAX);
        // It has fewer of them.
        for turn in 0..all {
            assert_eq!(answers.error(), Some(0.5));
            answers.push(choice(1000 + turn % 4, 0.25));
        }
        assert_eq!((answers.error(), answers.last.len()), (Some(0.25), 4));
    }
}
