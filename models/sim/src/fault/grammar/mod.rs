//! The grammar of faults: mechanism x locus x trigger x coupling x visibility.
//!
//! Each part is a few words that read back ([`std::str::FromStr`] and `Display`
//! agree), so an incident is a text that a person can judge, a generator can
//! write, and that has a distance from others. Here is only what can be said;
//! what it does to the world is in `mechanism` and `engine`, and whether what it
//! names exists is asked in `resolve`.

mod coupling;
mod trigger;
mod words;

use std::fmt;
use std::str::FromStr;

use homeostat_common::units::Millis;

pub use self::coupling::Coupling;
pub use self::trigger::{Cause, Trigger};
pub use self::words::{Mechanism, Place, Step, Unknown};
use crate::observe::Template;

/// Most faults of one incident; sizes what the engine looks at when something
/// happens.
pub const FAULTS_MAX: usize = 8;
/// Most couplings of one fault.
pub const COUPLINGS_MAX: usize = 6;
/// Most cues that a fault names besides those of its mechanism.
pub const CUES_MAX: usize = 6;
/// A cue that is rarer than this, per second, could not be seen in time.
pub const CUE_RATE_MIN: f64 = 0.1;

/// An incident: one or more faults that belong together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Incident {
    /// Where it was read from; empty for a generated one.
    pub file: String,
    /// Its name, that of its file.
    pub name: String,
    /// What happens, for people.
    pub about: String,
    /// The topology whose things it names.
    pub topology: String,
    /// The incident that looks alike and wants something else.
    pub twin: Option<String>,
    /// Whether no plan is expected to end it: contain, and call a person.
    pub contain: bool,
    /// Its faults, by the order of the file.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What others of the incident call it.
    pub id: String,
    /// What goes wrong.
    pub mechanism: Mechanism,
    /// Where.
    pub locus: Locus,
    /// When.
    pub trigger: Trigger,
    /// How bad, in `0..=1`; what that means is the mechanism's.
    pub strength: f64,
    /// What it does to the repair and to others.
    pub couplings: Vec<Coupling>,
    /// How it shows.
    pub visibility: Visibility,
    /// Log lines besides those of mechanism and couplings.
    pub cues: Vec<Cue>,
    /// Where in the file; 0 for a generated one.
    pub lines: Lines,
}

/// The lines of a fault's parts, so that what names nothing can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines {
    /// The locus.
    pub locus: usize,
    /// The trigger.
    pub trigger: usize,
    /// The couplings.
    pub coupling: usize,
    /// The cues.
    pub cues: usize,
}

/// Where a fault is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locus {
    /// The kind of thing.
    pub place: Place,
    /// Its name in the topology.
    pub name: String,
}

impl fmt::Display for Locus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.name)
    }
}

impl FromStr for Locus {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let (place, name) = text.split_once(' ').unwrap_or((text, ""));
        let place = place.parse()?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(unknown("locus", text, "a kind and a name: replica infer-1"));
        }
        Ok(Self {
            place,
            name: name.to_owned(),
        })
    }
}

/// How a fault shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Its mechanism's own log lines, at their usual rate.
    Clear,
    /// A few of them.
    Grey,
    /// Those of another mechanism, and a few of its own.
    Misleading(Mechanism),
    /// None before its effect.
    Latent,
}

impl Visibility {
    /// Which kind, for comparisons.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Grey => "grey",
            Self::Misleading(_) => "misleading",
            Self::Latent => "latent",
        }
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misleading(like) => write!(f, "misleading as {like}"),
            other => f.write_str(other.kind()),
        }
    }
}

impl FromStr for Visibility {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        Ok(match text {
            "clear" => Self::Clear,
            "grey" => Self::Grey,
            "latent" => Self::Latent,
            _ => match text.strip_prefix("misleading as ") {
                Some(like) => Self::Misleading(like.parse()?),
                None => {
                    let known = "'clear', 'grey', 'latent', 'misleading as MECHANISM'";
                    return Err(unknown("visibility", text, known));
                }
            },
        })
    }
}

/// A log line that a fault writes while it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Cue {
    /// The template.
    pub template: Template,
    /// Who writes it: a replica, when it is not the fault's own locus.
    pub by: Option<String>,
    /// Lines per second.
    pub rate: f64,
}

impl fmt::Display for Cue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.template.name())?;
        if let Some(by) = &self.by {
            write!(f, " by {by}")?;
        }
        write!(f, " at {}", self.rate)
    }
}

impl FromStr for Cue {
    type Err = Unknown;
    fn from_str(text: &str) -> Result<Self, Unknown> {
        let wrong = || {
            let known = "'TEMPLATE at 0.2' or 'TEMPLATE by REPLICA at 0.2', lines per second from \
                0.1 to 50";
            unknown("cue", text, known)
        };
        let words: Vec<&str> = text.split(' ').collect();
        let (template, by, rate) = match *words.as_slice() {
            [template, "at", rate] => (template, None, rate),
            [template, "by", replica, "at", rate] => (template, Some(replica.to_owned()), rate),
            _ => return Err(wrong()),
        };
        Ok(Self {
            template: template.parse()?,
            by,
            rate: within(rate, CUE_RATE_MIN, 50.0).ok_or_else(wrong)?,
        })
    }
}

fn unknown(what: &'static str, found: &str, known: &'static str) -> Unknown {
    Unknown {
        what,
        // What is shown of a text that may be long.
        found: found.chars().take(96).collect(),
        known,
    }
}

/// Longest span that the grammar takes: a day.
const SPAN_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Option<f64> {
    let secs = Millis::parse(text).ok()?.as_secs_f64();
    (secs > 0.0 && secs <= SPAN_MAX).then_some(secs)
}

fn span(secs: f64) -> Millis {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ms = (secs * 1000.0 + 0.5) as u64;
    Millis(ms)
}

fn within(text: &str, low: f64, high: f64) -> Option<f64> {
    text.parse().ok().filter(|n| (low..=high).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_back<T>(texts: &[&str])
    where
        T: FromStr<Err = Unknown> + fmt::Display,
    {
        for text in texts {
            match text.parse::<T>() {
                Ok(value) => assert_eq!(value.to_string(), *text),
                Err(error) => panic!("{text}: {error}"),
            }
        }
    }

    #[test]
    fn every_part_reads_back() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.name().parse(), Ok(*mechanism));
        }
        for step in Step::ALL {
            assert_eq!(step.name().parse(), Ok(*step));
        }
        reads_back::<Locus>(&["replica infer-1", "outside weather-api"]);
        reads_back::<Trigger>(&[
            "at once",
            "at once for 30s",
            "after 90s",
            "load infer-2 above 0.9",
            "heat edge-1 above 75 for 1m",
            "start infer",
            "death store",
            "cleared push",
            "every 1m for 10s",
            "coupled",
        ]);
        reads_back::<Coupling>(&[
            "re-infects",
            "returns after 20s while push",
            "moves-load onto infer-2 above 0.8",
            "holds rotate-credential tries 2 lockout 90s",
            "breaks on restart then lost",
            "breaks on restart unless snapshot then lost",
            "hides behind surge",
            "heals after 1m unless pause-rollout",
        ]);
        reads_back::<Visibility>(&["clear", "grey", "latent", "misleading as leak memory"]);
        reads_back::<Cue>(&["gc-pause at 0.2", "gc-pause by infer-1 at 3"]);
    }

    #[test]
    fn what_is_no_part_of_the_grammar_is_refused() {
        for text in ["", "explode", "leak", "leak  memory", "Die"] {
            assert!(text.parse::<Mechanism>().is_err(), "{text}");
        }
        for text in ["replica", "replica ", "replica a b", "planet x"] {
            assert!(text.parse::<Locus>().is_err(), "{text}");
        }
        for text in [
            "after",
            "after 0s",
            "after -1s",
            "after 2d",
            "load x above NaN",
            "load x above -1",
            "heat x above inf",
            "at once for",
            "for 3s",
            "every 10",
        ] {
            assert!(text.parse::<Trigger>().is_err(), "{text}");
        }
        for text in [
            "re-infects all",
            "returns after 20s",
            "holds nothing tries 1 lockout 1s",
            "holds restart tries 256 lockout 1s",
            "breaks on restart",
            "heals after 1s unless luck",
        ] {
            assert!(text.parse::<Coupling>().is_err(), "{text}");
        }
        for text in [
            "gc-pause at 0.02",
            "gc-pause at NaN",
            "nothing at 1",
            "gc-pause",
        ] {
            assert!(text.parse::<Cue>().is_err(), "{text}");
        }
        assert!("misleading as luck".parse::<Visibility>().is_err());
        let long = "x".repeat(1 << 20);
        let error = long.parse::<Trigger>().unwrap_err();
        assert!(error.found.len() < 100);
    }
}
