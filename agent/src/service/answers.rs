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

/// The last answer to each input.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answers(BTreeMap<u64, Choice>);

impl Answers {
    /// Takes an answer in.
    pub fn push(&mut self, choice: Choice) {
        if self.0.len() < GOLDENS_MAX || self.0.contains_key(&choice.input) {
            self.0.insert(choice.input, choice);
        }
    }

    /// The largest error of the last answers.
    #[must_use]
    pub fn error(&self) -> Option<f32> {
        let errors = self.0.values().filter_map(|choice| choice.error);
        errors.reduce(f32::max)
    }

    /// The share of inputs on which the two choose another class, and of how many.
    #[must_use]
    pub fn disagreement(&self, other: &Self) -> Option<(f32, usize)> {
        let both = self.0.values().filter_map(|own| {
            let theirs = other.0.get(&own.input)?;
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
        for input in 0..1000 {
            one.push(choice(input, 0));
        }
        assert_eq!(one.0.len(), GOLDENS_MAX);
    }
}
