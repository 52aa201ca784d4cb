//! What a fault does to its repair and to others: the traps.

use std::fmt;
use std::str::FromStr;

use super::words::{Step, Unknown};
use super::{seconds, span, unknown, within};

/// What a fault does to its repair and to others. Each is a production that
/// stands on its own and can be had together with any other.
#[derive(Debug, Clone, PartialEq)]
pub enum Coupling {
    /// Whoever of the service starts while it is there has it as well.
    ReInfects,
    /// Clearing it does not last while another fault is there: that one puts it
    /// back after so many seconds.
    Returns {
        /// The other one.
        unless: String,
        /// How soon.
        after: f64,
    },
    /// A replica that has become fragile dies of a load above this share: what
    /// the repair takes off others lands there.
    MovesLoad {
        /// The fragile one.
        onto: String,
        /// The share.
        above: f64,
    },
    /// While it is there, a step at its locus is refused; after `tries` refused
    /// ones it stays so for `lockout` seconds, whether it is there or not.
    Holds {
        /// The step.
        step: Step,
        /// How many tries are free.
        tries: u8,
        /// How long it is then refused.
        lockout: f64,
    },
    /// A step at its locus while it is there brings another fault, unless
    /// another step came first.
    Breaks {
        /// The step.
        on: Step,
        /// What would have protected.
        unless: Option<Step>,
        /// The fault that it brings.
        then: String,
    },
    /// It does nothing and shows little while another fault is there.
    Hides {
        /// The other one.
        behind: String,
    },
    /// It ends by itself after so many seconds, unless a step stops what would
    /// have ended it.
    Heals {
        /// How soon.
        after: f64,
        /// The step.
        unless: Step,
    },
}

impl Coupling {
    /// Which kind, for comparisons.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ReInfects => "re-infects",
            Self::Returns { .. } => "returns",
            Self::MovesLoad { .. } => "moves-load",
            Self::Holds { .. } => "holds",
            Self::Breaks { .. } => "breaks",
            Self::Hides { .. } => "hides",
            Self::Heals { .. } => "heals",
        }
    }

    /// The other fault that it names.
    #[must_use]
    pub fn other(&self) -> Option<&str> {
        match self {
            Self::Returns { unless, .. } => Some(unless),
            Self::Breaks { then, .. } => Some(then),
            Self::Hides { behind } => Some(behind),
            Self::ReInfects | Self::MovesLoad { .. } | Self::Holds { .. } | Self::Heals { .. } => {
                None
            }
        }
    }
}

impl fmt::Display for Coupling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReInfects => f.write_str("re-infects"),
            Self::Returns { unless, after } => {
                write!(f, "returns after {} while {unless}", span(*after))
            }
            Self::MovesLoad { onto, above } => write!(f, "moves-load onto {onto} above {above}"),
            Self::Holds {
                step,
                tries,
                lockout,
            } => write!(f, "holds {step} tries {tries} lockout {}", span(*lockout)),
            Self::Breaks { on, unless, then } => {
                write!(f, "breaks on {on}")?;
                if let Some(step) = unless {
                    write!(f, " unless {step}")?;
                }
                write!(f, " then {then}")
            }
            Self::Hides { behind } => write!(f, "hides behind {behind}"),
            Self::Heals { after, unless } => {
                write!(f, "heals after {} unless {unless}", span(*after))
            }
        }
    }
}

const COUPLINGS: &str = "'re-infects', 'returns after 20s while FAULT', 'moves-load onto REPLICA \
    above 0.8', 'holds STEP tries 2 lockout 90s', 'breaks on STEP [unless STEP] then FAULT', \
    'hides behind FAULT', 'heals after 60s unless STEP'";

impl FromStr for Coupling {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let wrong = || unknown("coupling", text, COUPLINGS);
        let words: Vec<&str> = text.split(' ').collect();
        Ok(match *words.as_slice() {
            ["re-infects"] => Self::ReInfects,
            ["returns", "after", time, "while", fault] => Self::Returns {
                unless: fault.to_owned(),
                after: seconds(time).ok_or_else(wrong)?,
            },
            ["moves-load", "onto", replica, "above", share] => Self::MovesLoad {
                onto: replica.to_owned(),
                above: within(share, 0.05, 2.0).ok_or_else(wrong)?,
            },
            ["holds", step, "tries", tries, "lockout", time] => Self::Holds {
                step: step.parse()?,
                tries: tries.parse().map_err(|_| wrong())?,
                lockout: seconds(time).ok_or_else(wrong)?,
            },
            ["breaks", "on", step, "then", fault] => Self::Breaks {
                on: step.parse()?,
                unless: None,
                then: fault.to_owned(),
            },
            ["breaks", "on", step, "unless", first, "then", fault] => Self::Breaks {
                on: step.parse()?,
                unless: Some(first.parse()?),
                then: fault.to_owned(),
            },
            ["hides", "behind", fault] => Self::Hides {
                behind: fault.to_owned(),
            },
            ["heals", "after", time, "unless", step] => Self::Heals {
                after: seconds(time).ok_or_else(wrong)?,
                unless: step.parse()?,
            },
            _ => return Err(wrong()),
        })
    }
}
