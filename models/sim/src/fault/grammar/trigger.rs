//! When a fault begins, and whether it ends by itself.

use std::fmt;
use std::str::FromStr;

use super::words::Unknown;
use super::{seconds, span, unknown, within};

/// What sets a fault off.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// The beginning of the incident.
    AtOnce,
    /// So many seconds after it.
    After(f64),
    /// A replica is busier than this share, for 3 s.
    Load {
        /// Whose.
        replica: String,
        /// The share.
        above: f64,
    },
    /// A node is hotter than this.
    Heat {
        /// Whose.
        node: String,
        /// Degrees Celsius.
        above: f64,
    },
    /// A process of a service starts.
    Start(String),
    /// A process of a service ends.
    Death(String),
    /// Another fault of the incident is cleared.
    Cleared(String),
    /// Each time so many seconds have passed.
    Every(f64),
    /// A coupling of another fault only.
    Coupled,
}

/// When a fault begins, and whether it ends by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// What sets it off.
    pub cause: Cause,
    /// After how many seconds it ends by itself.
    pub lasts: Option<f64>,
}

impl Trigger {
    /// At the beginning of the incident, until it is cleared.
    pub const AT_ONCE: Self = Self {
        cause: Cause::AtOnce,
        lasts: None,
    };

    /// Which kind of cause, for comparisons.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.cause {
            Cause::AtOnce => "at once",
            Cause::After(_) => "after",
            Cause::Load { .. } => "load",
            Cause::Heat { .. } => "heat",
            Cause::Start(_) => "start",
            Cause::Death(_) => "death",
            Cause::Cleared(_) => "cleared",
            Cause::Every(_) => "every",
            Cause::Coupled => "coupled",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::AtOnce => f.write_str("at once"),
            Cause::After(secs) => write!(f, "after {}", span(*secs)),
            Cause::Load { replica, above } => write!(f, "load {replica} above {above}"),
            Cause::Heat { node, above } => write!(f, "heat {node} above {above}"),
            Cause::Start(service) => write!(f, "start {service}"),
            Cause::Death(service) => write!(f, "death {service}"),
            Cause::Cleared(fault) => write!(f, "cleared {fault}"),
            Cause::Every(secs) => write!(f, "every {}", span(*secs)),
            Cause::Coupled => f.write_str("coupled"),
        }?;
        match self.lasts {
            Some(secs) => write!(f, " for {}", span(secs)),
            None => Ok(()),
        }
    }
}

const TRIGGERS: &str = "'at once', 'after 90s', 'load REPLICA above 0.9', 'heat NODE above 75', \
    'start SERVICE', 'death SERVICE', 'cleared FAULT', 'every 60s', 'coupled', each with or \
    without 'for 30s'";

impl FromStr for Trigger {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let wrong = || unknown("trigger", text, TRIGGERS);
        let words: Vec<&str> = text.split(' ').collect();
        let (words, lasts) = match words.as_slice() {
            [head @ .., "for", time] => (head, Some(seconds(time).ok_or_else(wrong)?)),
            all => (all, None),
        };
        let cause = match *words {
            ["at", "once"] => Cause::AtOnce,
            ["after", time] => Cause::After(seconds(time).ok_or_else(wrong)?),
            ["load", replica, "above", share] => Cause::Load {
                replica: replica.to_owned(),
                above: within(share, 0.05, 2.0).ok_or_else(wrong)?,
            },
            ["heat", node, "above", degrees] => Cause::Heat {
                node: node.to_owned(),
                above: within(degrees, 20.0, 120.0).ok_or_else(wrong)?,
            },
            ["start", service] => Cause::Start(service.to_owned()),
            ["death", service] => Cause::Death(service.to_owned()),
            ["cleared", fault] => Cause::Cleared(fault.to_owned()),
            ["every", time] => Cause::Every(seconds(time).ok_or_else(wrong)?),
            ["coupled"] => Cause::Coupled,
            _ => return Err(wrong()),
        };
        Ok(Self { cause, lasts })
    }
}
