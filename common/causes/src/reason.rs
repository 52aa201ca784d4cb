//! What weighed most for a suspect, in types and words.
//!
//! Where it is known what components are to each other, the ranking is a sum of weighed
//! features ([`weigh`](crate::weigh)). A [`Reason`] says one group of them as a person would: what
//! moved, where, by how much, and at how many others of its role it did not. Every number is one
//! that was seen; what it counts is [`Weighed::odds`].

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::evidence::Short;
use crate::graph::{Component, Graph, Role};
use crate::signals::Kind;
use crate::topic::Topic;

/// A reason with its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighed {
    /// Log odds by which it speaks more for this suspect than for the others of its role on
    /// average, those that show nothing included; above 0.
    pub odds: f32,
    /// What the suspect is to the others.
    pub role: Role,
    /// What was seen.
    pub reason: Reason,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Something moved at it.
    Shows {
        /// What.
        sign: Sign,
        /// By how much.
        far: Far,
        /// The series that moved furthest, with its usual value and the present one; `None` for
        /// log lines.
        series: Option<Series>,
        /// At how many others it did too.
        others: Others,
    },
    /// Something moved around it.
    Around {
        /// At whom.
        whose: Whose,
        /// What.
        sign: Sign,
        /// At how many of them, and how many they are.
        at: (usize, usize),
        /// Where it moved furthest, and by how much.
        most: (Component, Far),
        /// Around how many others it did too.
        others: Others,
    },
    /// It moved less at it, or around it, than at others.
    Less {
        /// At whom; `None`: at the suspect itself.
        whose: Option<Whose>,
        /// What.
        sign: Sign,
        /// It did not move at all.
        still: bool,
        /// At how many others it moved more.
        others: Others,
    },
    /// What is seen of all that it stands on or calls.
    Below {
        /// That.
        seen: Below,
    },
    /// Something of it moved so long after the first of all.
    Began {
        /// So long; zero for the first.
        after: Duration,
    },
    /// Of those in trouble so many are it, or need it.
    Covers {
        /// As a share of them.
        share: f32,
    },
    /// What is alarmed needs it, which is not so for all of its role.
    Alarmed,
    /// Of what callees do not explain so much is its own.
    Unexplained {
        /// As a share.
        share: f32,
    },
}

impl Reason {
    /// The series that it names.
    pub(crate) fn series(&self) -> Option<&str> {
        match self {
            Self::Shows { series, .. } => series.as_ref().map(|series| series.0.as_str()),
            _ => None,
        }
    }

    /// It is about the same as another one, of whomever that is.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let sign = |reason: &Self| match reason {
            Self::Shows { sign, .. } | Self::Around { sign, .. } => Some(*sign),
            _ => None,
        };
        sign(self).is_some() && sign(self) == sign(other) && self.series() == other.series()
    }
}

/// Name, usual value and present one.
pub type Series = (String, f32, f32);

/// What moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A signal.
    Signal {
        /// Of which kind.
        kind: Kind,
        /// It is above its usual, or below.
        up: bool,
    },
    /// Log lines.
    Lines {
        /// What they are about.
        topic: Topic,
        /// What the same lines are about besides.
        also: [Option<Topic>; 2],
    },
}

/// How far something moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Far {
    /// In spreads of what is usual for it.
    Spreads(f32),
    /// So many more lines of a pattern than one of its kind usually writes.
    Lines(f32),
}

/// How what a suspect stands on or calls is, beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// Nothing moved there.
    Nothing,
    /// What moved there moved less than the suspect did.
    Less,
    /// Something moved there.
    Trouble,
}

/// Who is meant around a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// What it holds: the instances of a service or a host, hosts of a site.
    Held,
    /// What it stands on.
    Ground,
    /// Those it calls.
    Called,
    /// Those that call it or stand on it further up.
    Callers,
}

/// At how many others the same was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Others {
    /// So many.
    pub show: usize,
    /// Of so many.
    pub of: usize,
    /// Those beside it are meant (of the same service, at the same site), not all of its role.
    pub beside: bool,
}

/// A reason and the names in it.
pub(crate) struct Words<'a>(pub(crate) &'a Weighed, pub(crate) &'a Graph);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Weighed { role, reason, .. }, graph) = self;
        let role = *role;
        match reason {
            Reason::Shows {
                sign,
                far,
                series,
                others,
            } => {
                write!(f, "{} here: ", Noun(*sign))?;
                if let Some((name, usual, now)) = series {
                    let (usual, now) = (usual.abs(), now.abs());
                    // A share of failures, also where its series is named after what is well.
                    if matches!(
                        sign,
                        Sign::Signal {
                            kind: Kind::Errors,
                            ..
                        }
                    ) {
                        let (usual, now) = (usual * 100.0, now * 100.0);
                        write!(f, "{usual:.1} -> {now:.1} % ({name}), ")?;
                    } else {
                        write!(f, "{} -> {} ({name}), ", Short(usual), Short(now))?;
                    }
                }
                write!(f, "{far}")?;
                match (others.show, others.of) {
                    (_, 0) => Ok(()),
                    (0, 1) => f.write_str("; not at the only other one"),
                    (_, 1) => f.write_str("; also at the only other one"),
                    (0, of) => write!(f, "; at none of the {of} {}", rest(*others, role)),
                    (show, of) => write!(f, "; also at {show} of the {of} {}", rest(*others, role)),
                }
            }
            Reason::Around {
                whose,
                sign,
                at: (show, all),
                most: (most, far),
                others,
            } => {
                let (whose, who) = around(*whose, role);
                let (what, most) = (Noun(*sign), graph.name(*most));
                write!(
                    f,
                    "{what} at {show} of {whose} {all} {who}, most at {most} ({far})"
                )?;
                match (others.show, others.of) {
                    (_, 0) => Ok(()),
                    (0, 1) => f.write_str("; not so for the only other one"),
                    (_, 1) => f.write_str("; so too for the only other one"),
                    (0, of) => write!(f, "; for none of the {of} {}", rest(*others, role)),
                    (show, of) => {
                        write!(f, "; also for {show} of the {of} {}", rest(*others, role))
                    }
                }
            }
            Reason::Less {
                whose,
                sign,
                still,
                others,
            } => {
                f.write_str(if *still {
                    "no sign of "
                } else {
                    "not much of "
                })?;
                write!(f, "{} ", Noun(*sign))?;
                match whose.map(|whose| around(whose, role)) {
                    None => f.write_str("here")?,
                    Some((whose, who)) => write!(f, "at {whose} {who}")?,
                }
                let Others { show, of, .. } = others;
                let rest = rest(*others, role);
                write!(f, "; more of it for {show} of {of} {rest}")
            }
            Reason::Below { seen } => f.write_str(match seen {
                Below::Nothing => "nothing that it stands on or calls shows anything unusual",
                Below::Less => "what it stands on or calls shows less than it does itself",
                Below::Trouble => "what it stands on or calls is in trouble",
            }),
            Reason::Began { after } if after.is_zero() => f.write_str("nothing moved before it"),
            Reason::Began { after } => {
                write!(f, "it moved {} s after the first", after.as_secs())
            }
            Reason::Covers { share } => write!(
                f,
                "of all that is in trouble {:.0} % is it or needs it",
                share * 100.0
            ),
            Reason::Alarmed => f.write_str("what is alarmed needs it"),
            Reason::Unexplained { share } => write!(
                f,
                "of what callees do not explain {:.0} % is its own",
                share * 100.0
            ),
        }
    }
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spreads(far) => write!(f, "{far:.0} times its usual spread"),
            Self::Lines(more) => write!(f, "{more:.0} more than usual"),
        }
    }
}

/// What moved, as a noun.
struct Noun(Sign);

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, up) = match self.0 {
            Sign::Signal { kind, up } => (kind, up),
            Sign::Lines { topic, also } => {
                return write!(f, "log lines about {}", About(topic, also));
            }
        };
        f.write_str(match (kind, up) {
            (Kind::Latency, true) => "slower answers",
            (Kind::Latency, false) => "quicker answers",
            (Kind::Errors, true) => "more failed answers",
            (Kind::Errors, false) => "fewer failed answers",
            (Kind::Quality, true) => "better answers",
            (Kind::Quality, false) => "worse answers",
            (Kind::Resource, true) => "a resource reading worse than usual",
            (Kind::Resource, false) => "a resource reading better than usual",
            (Kind::Absence, true) => "absence",
            (Kind::Absence, false) => "presence",
            (Kind::Complaints, true) => "more trouble logged",
            (Kind::Complaints, false) => "less trouble logged",
            (Kind::Volume, true) => "more load",
            (Kind::Volume, false) => "less load",
        })
    }
}

/// What lines are about.
pub(crate) struct About(pub(crate) Topic, pub(crate) [Option<Topic>; 2]);

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(about(self.0))?;
        let mut also = self.1.into_iter().flatten();
        also.try_for_each(|topic| write!(f, " + {}", about(topic)))
    }
}

fn about(topic: Topic) -> &'static str {
    match topic {
        Topic::Call => "calls that are not answered",
        Topic::Link => "the network",
        Topic::Access => "access",
        Topic::Config => "configuration",
        Topic::Storage => "disks and files",
        Topic::Memory => "memory",
        Topic::Compute => "processors",
        Topic::Power => "supply or heat",
        Topic::Process => "processes that begin or end",
        Topic::Corrupt => "damaged data",
        Topic::Model => "what the model answers",
        Topic::Order => "leaders, replicas and locks",
        Topic::Time => "clocks",
        Topic::Limit => "limits",
        Topic::Change => "new versions",
        Topic::Other => "no known topic",
    }
}

/// Whose they are, and who.
fn around(whose: Whose, role: Role) -> (&'static str, &'static str) {
    match (whose, role) {
        (Whose::Held, Role::Service | Role::Outside | Role::Instance) => ("its", "instances"),
        (Whose::Held, Role::Host) => ("the", "instances on it"),
        (Whose::Held, Role::Link) => ("the", "hosts behind it"),
        (Whose::Held, Role::Site) => ("its", "hosts"),
        (Whose::Ground, Role::Instance | Role::Service | Role::Outside) => {
            ("the", "hosts under it")
        }
        (Whose::Ground, Role::Host) => ("its", "links and sites"),
        (Whose::Ground, Role::Site | Role::Link) => ("its", "links"),
        (Whose::Called, Role::Instance | Role::Link | Role::Site) => {
            ("the", "services that it calls")
        }
        (Whose::Called, Role::Service | Role::Outside) => {
            ("the", "services that its instances call")
        }
        (Whose::Called, Role::Host) => ("the", "services that the instances on it call"),
        (Whose::Callers, Role::Instance) => ("the", "instances that call its service"),
        (Whose::Callers, Role::Service | Role::Outside) => ("its", "callers"),
        (Whose::Callers, Role::Host) => ("the", "services that run on it"),
        (Whose::Callers, Role::Link) => ("the", "instances behind it"),
        (Whose::Callers, Role::Site) => ("the", "instances there"),
    }
}

fn rest(others: Others, role: Role) -> &'static str {
    match (others.beside, role) {
        (true, Role::Instance) => "other instances of its service",
        (true, Role::Host) => "other hosts of its site",
        (true, Role::Link) => "other links beside it",
        (true, Role::Service | Role::Site | Role::Outside) => "others beside it",
        (false, Role::Instance) => "other instances",
        (false, Role::Service) => "other services",
        (false, Role::Host) => "other hosts",
        (false, Role::Link) => "other links",
        (false, Role::Site) => "other sites",
        (false, Role::Outside) => "others outside",
    }
}
