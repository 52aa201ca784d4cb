//! The grammar of faults: mechanism x locus x trigger x coupling x visibility.
//!
//! Each part is a few words that read back ([`std::str::FromStr`] and `Display`
//! agree), so an incident is a text that a person can judge, a generator can
//! write, and that has a distance from others. Here is only what can be said;
//! what it does to the world is in `mechanism` and `engine`, and whether what it
//! names exists is asked in `resolve`.

use std::fmt;
use std::str::FromStr;

use homeostat_common::units::Millis;

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

/// Why a few words are not part of the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}; there are {known}")]
pub struct Unknown {
    /// Which part.
    pub what: &'static str,
    /// As written.
    pub found: String,
    /// What would have been right.
    pub known: &'static str,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it is written.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = Unknown;
            fn from_str(text: &str) -> Result<Self, Unknown> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(Unknown {
                        what: $what,
                        found: text.chars().take(64).collect(),
                        known: concat!($($text, ", "),+, "and no other"),
                    }),
                }
            }
        }
    };
}
words! {
    /// What goes wrong.
    Mechanism, "mechanism",
    /// A process ends.
    Die = "die",
    /// A process holds its port and answers nothing.
    Hang = "hang",
    /// Processors are burnt.
    Spin = "spin",
    /// Memory is taken and not given back.
    LeakMemory = "leak memory",
    /// Files are opened and not closed.
    LeakDescriptors = "leak descriptors",
    /// Threads are begun and not ended.
    LeakThreads = "leak threads",
    /// A disk fills.
    LeakDisk = "leak disk",
    /// A file system runs out of inodes.
    LeakInodes = "leak inodes",
    /// Everything takes longer.
    Slow = "slow",
    /// What a service reads when it starts is wrong.
    CorruptConfig = "corrupt config",
    /// The model in a slot is damaged.
    CorruptModel = "corrupt model",
    /// A source delivers rubbish.
    CorruptInput = "corrupt input",
    /// What a cache remembers is wrong.
    CorruptCache = "corrupt cache",
    /// What a service has stored is damaged.
    CorruptStore = "corrupt store",
    /// A new binary is worse than the one before.
    RegressBinary = "regress binary",
    /// A new model is worse than the one before.
    RegressModel = "regress model",
    /// The world moves away from what a model has learned.
    Drift = "drift",
    /// Nothing gets through.
    Disconnect = "disconnect",
    /// Everything gets through late.
    Delay = "delay",
    /// Some of it gets lost.
    Lose = "lose",
    /// A clock is wrong.
    Skew = "skew",
    /// A credential is not accepted any more.
    DenyCredential = "deny credential",
    /// More is asked than is granted.
    DenyQuota = "deny quota",
    /// A file system cannot be written.
    DenyWrite = "deny write",
    /// Somebody holds a lock, or left it behind.
    Lock = "lock",
    /// A node gets too hot.
    Heat = "heat",
    /// A node gets too little power.
    BrownOut = "brown-out",
    /// What a node tells stands still.
    LieFrozen = "lie frozen",
    /// What a node tells comes late.
    LieLate = "lie late",
    /// What a node tells is wrong.
    LieWrong = "lie wrong",
    /// Requests are there more than once.
    Duplicate = "duplicate",
    /// Somebody else acts on the same things.
    Compete = "compete",
    /// A roll-out keeps putting what it carries.
    Push = "push",
    /// More comes from outside than usual.
    Surge = "surge",
}

words! {
    /// What kind of thing a fault is at.
    Place, "kind of locus",
    /// One replica, or what lies on it: slots, locks.
    Replica = "replica",
    /// All replicas of a service.
    Service = "service",
    /// A node.
    Node = "node",
    /// The uplink of a node.
    Link = "link",
    /// All nodes of a site.
    Site = "site",
    /// The models in the slots of a service.
    Model = "model",
    /// The files of a replica.
    File = "file",
    /// The agent of a node.
    Agent = "agent",
    /// The broker, a service that has a leader.
    Broker = "broker",
    /// A dependency that is not ours.
    Outside = "outside",
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

words! {
    /// What may be done about a fault, as the grammar names it: primitives and
    /// what the operator's webhooks do.
    Step, "step",
    /// A fresh process.
    Restart = "restart",
    /// Another model.
    PutModel = "rollback-model",
    /// Another configuration.
    PutConfig = "rollback-config",
    /// Another binary.
    PutBinary = "rollback-binary",
    /// Old data deleted.
    Prune = "prune-data",
    /// Stale locks deleted.
    ClearLocks = "clear-locks",
    /// A cache forgotten.
    Flush = "flush-cache",
    /// Connections opened anew.
    ResetPool = "reset-pool",
    /// A backend gets nothing.
    Isolate = "isolate",
    /// A backend gets its share again.
    Release = "release",
    /// A share moved.
    Reroute = "reroute",
    /// A standby in service.
    ScaleOut = "scale-out",
    /// A standby started.
    Prewarm = "prewarm",
    /// Fewer admitted.
    LimitRate = "limit-rate",
    /// A source kept out.
    BlockSource = "block-source",
    /// A process stands still.
    Freeze = "freeze",
    /// Less processor.
    LimitCpu = "limit-cpu",
    /// Less or worse work.
    Degrade = "degrade",
    /// A copy of the state.
    Snapshot = "snapshot",
    /// The copy put back.
    RestoreSnapshot = "restore-snapshot",
    /// The clock set.
    SyncClock = "sync-clock",
    /// Another uplink.
    SwitchUplink = "switch-uplink",
    /// A file system writable again.
    Remount = "remount-writable",
    /// A node started anew.
    Reboot = "reboot",
    /// A new credential.
    RotateCredential = "rotate-credential",
    /// A new leader.
    FailoverBroker = "failover-broker",
    /// A model learned anew.
    Retrain = "retrain",
    /// Roll-outs stopped.
    PauseRollout = "pause-rollout",
    /// A stranger's process ended.
    KillStranger = "kill-stranger",
    /// A training job set back to its checkpoint.
    RestoreCheckpoint = "restore-checkpoint",
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

use crate::observe::Template;

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
