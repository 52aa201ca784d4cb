//! Who heals: policies behind one trait, and oracles behind another.
//!
//! In goes what a healer may see ([`View`]): observations, the topology, how its own orders
//! ended; out come orders. Nothing here names hidden state; a [`Privileged`] one is handed
//! the whole world, and is an upper bound and no teacher.
//!
//! Every policy is a closed loop: it is asked again when all that it ordered has ended, or
//! something of it failed. All are deterministic, given a seed.

pub(crate) mod ahead;
mod belief;
mod beside;
mod expert;
mod hints;
pub mod moves;
mod oracle;
mod plain;
mod randomised;
mod relevant;
mod signs;
mod strategy;
mod tolerance;
mod trial;
mod weights;

use std::str::FromStr;

pub use self::belief::Belief;
pub use self::expert::{Expert, PRODUCTIONS, Production};
pub use self::moves::{Kind, Move, Moves, Whom, Written};
pub(crate) use self::oracle::Effort;
pub use self::oracle::{Oracle, Searcher, Verified};
pub use self::plain::{Nothing, Random, Supervisor, Worst};
pub use self::randomised::{Randomised, STEPS_MAX};
pub use self::relevant::Relevant;
pub use self::strategy::Strategy;
pub use self::tolerance::Tolerance;
pub use self::trial::Trial;
pub use self::weights::{Tuned, Tuning, WEIGHTS, Weights};

use crate::observe::Seen;
use crate::topology::Topology;
use crate::world::{Failure, Order, World};

/// What a policy is given.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// What the fleet is made of.
    pub topology: &'v Topology,
    /// What can be done in it.
    pub moves: &'v Moves,
    /// What is seen now.
    pub seen: &'v Seen,
    /// How orders ended since the last look.
    pub ended: &'v [Ended],
    /// What may still be spent; infinite without a budget.
    pub left: f64,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// All its steps are done, as far as anybody knows.
    Done,
    /// A step failed.
    Failed(Failure),
    /// It was not taken.
    Refused(String),
    /// The budget is used up.
    TooDear,
}

/// An order that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// What was ordered.
    pub order: Order,
    /// How it ended.
    pub how: How,
}

/// A healer that sees what a healer may see.
pub trait Policy {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Takes in what is seen; called at every look, busy or not.
    fn see(&mut self, view: &View<'_>);

    /// What to do, one order after the other; called after [`Policy::see`] while nothing
    /// is under way. When one fails, those after it are dropped.
    fn decide(&mut self, view: &View<'_>) -> Vec<Order>;

    /// How likely it was to decide as it did last; 1 for who leaves nothing to chance.
    fn propensity(&self) -> f64 {
        1.0
    }

    /// Why it decided as it did last, for people; empty for who cannot tell.
    fn why(&self) -> String {
        String::new()
    }
}

/// A healer that sees everything, and what is to come.
pub trait Privileged {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Whether it wants to be shown what a healer may see as well.
    fn looks(&self) -> bool {
        false
    }

    /// Takes in what is seen; called at every look of one that wants to.
    fn see(&mut self, _: &View<'_>) {}

    /// What to do, one order after the other; called at looks while nothing is under way.
    fn decide(&mut self, world: &World, moves: &Moves, left: f64) -> Vec<Order>;
}

/// A healer of either kind.
#[derive(Debug)]
pub enum Healer {
    /// Sees what a healer may see.
    Sees(Box<dyn Policy>),
    /// Sees everything.
    Knows(Box<dyn Privileged>),
}

impl std::fmt::Debug for dyn Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Debug for dyn Privileged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Healer {
    /// Its name in tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sees(policy) => policy.name(),
            Self::Knows(oracle) => oracle.name(),
        }
    }

    /// How likely it was to decide as it did last.
    #[must_use]
    pub fn propensity(&self) -> f64 {
        match self {
            Self::Sees(policy) => policy.propensity(),
            Self::Knows(_) => 1.0,
        }
    }

    /// Why it decided as it did last, as far as it can tell.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Self::Sees(policy) => policy.why(),
            Self::Knows(_) => "it knows what is to come".to_owned(),
        }
    }
}

macro_rules! healers {
    ($($variant:ident = $name:literal, $about:literal;)+) => {
        /// The healers that come with the simulator.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)]
        pub enum Baseline { $($variant),+ }

        impl Baseline {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it does, in a line.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about),+ }
            }
        }

        impl FromStr for Baseline {
            type Err = UnknownPolicy;
            fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(UnknownPolicy(text.chars().take(64).collect())),
                }
            }
        }
    };
}

healers! {
    NoOp = "no-op", "does nothing";
    Random = "random", "valid steps, evenly, while users are not served";
    Supervisor = "supervisor", "restarts what is dead or does not answer";
    Worst = "worst", "restarts whatever looks worst while users are not served";
    Tolerance = "tolerance", "circuit breakers, bulkheads, standbys, a second uplink";
    Trial = "trial", "tries what its weights say, and what did not help less";
    Expert = "expert", "knows causes, repairs and traps by what gives them away";
    Belief = "belief", "plans over the hidden states that are consistent with what is seen";
    Verified = "verified", "the best of 32 random plans by a perfect simulator";
    Relevant = "relevant", "the best of 32 random plans about symptoms by a perfect simulator";
    Search = "search", "the best single step by a perfect simulator, again and again";
    Oracle = "oracle", "looks ahead over plans in forks of the world itself";
}

/// No policy of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no policy {0:?}; there are no-op, random, supervisor, worst, tolerance, trial, expert, belief, verified, relevant, search, oracle"
)]
pub struct UnknownPolicy(String);

impl Baseline {
    /// One that has seen nothing yet. The seed is that of its own choices.
    #[must_use]
    pub fn healer(self, seed: u64) -> Healer {
        match self {
            Self::NoOp => Healer::Sees(Box::new(Nothing)),
            Self::Random => Healer::Sees(Box::new(Random::new(seed))),
            Self::Supervisor => Healer::Sees(Box::new(Supervisor::default())),
            Self::Worst => Healer::Sees(Box::new(Worst::default())),
            Self::Tolerance => Healer::Sees(Box::new(Tolerance::default())),
            Self::Trial => Healer::Sees(Box::new(Trial::new(Tuned::shipped().weights.clone()))),
            Self::Expert => Healer::Sees(Box::new(Expert::default())),
            Self::Belief => Healer::Sees(Box::new(Belief::new(seed))),
            Self::Verified => Healer::Knows(Box::new(Verified::new(seed))),
            Self::Relevant => Healer::Knows(Box::new(Relevant::new(seed))),
            Self::Search => Healer::Knows(Box::new(Searcher::default())),
            Self::Oracle => Healer::Knows(Box::new(Oracle::default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_the_message_lists_them_all() {
        let unknown = "luck".parse::<Baseline>().unwrap_err().to_string();
        for policy in Baseline::ALL {
            assert_eq!(policy.name().parse(), Ok(*policy));
            assert_eq!(policy.healer(1).name(), policy.name());
            assert!(unknown.contains(policy.name()));
        }
    }
}
