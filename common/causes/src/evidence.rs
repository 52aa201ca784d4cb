//! Why a component is suspected, what is doubtful, and what would settle it, in types and words.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::events::Event;
use crate::graph::{Component, Graph};
use crate::reason::{self, About, Sign, Weighed};
use crate::signals::Kind;

/// What speaks for a suspect.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// More than its callees explain.
    OwnExcess {
        /// Of which kind.
        kind: Kind,
        /// Per request, before and since the alarm.
        baseline: f32,
        /// See `baseline`.
        now: f32,
        /// Its part of what all suspects have of their own.
        share: f32,
        /// How many times what is usual for it.
        times: f32,
    },
    /// Something of its own is used more than ever.
    Resource {
        /// The series.
        name: String,
        /// Before.
        baseline: f32,
        /// Since the alarm.
        now: f32,
        /// How many times what is usual for it.
        times: f32,
    },
    /// Something else follows an event than used to.
    Mechanism {
        /// The event.
        from: Event,
        /// What gained or lost most.
        to: Event,
        /// Share of `to` after `from`, before.
        before: f32,
        /// And now.
        now: f32,
    },
    /// It calls something that it never called before.
    NewCallee {
        /// What it calls.
        callee: Component,
    },
    /// It began before what depends on it, by as much as the rows of samples can tell.
    First {
        /// By at least.
        least: Duration,
        /// By at most.
        most: Duration,
    },
    /// What depends on it shows the same, and nothing else of its own.
    Explains {
        /// Who.
        caller: Component,
        /// Which part of what it shows.
        share: f32,
    },
    /// What weighed most for it where roles are known.
    Weighed(Weighed),
}

impl Evidence {
    /// Whether it tells of a series of that name already.
    pub(crate) fn is_about(&self, series: &str) -> bool {
        match self {
            Self::Weighed(one) => one.reason.series() == Some(series),
            _ => false,
        }
    }

    /// In words.
    #[must_use]
    pub fn words<'a>(&'a self, graph: &'a Graph) -> impl fmt::Display + 'a {
        Words(self, graph)
    }
}

struct Words<'a, T>(&'a T, &'a Graph);

impl fmt::Display for Words<'_, Evidence> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Evidence::OwnExcess {
                kind,
                baseline,
                now,
                share,
                times,
            } => {
                let what = match kind {
                    Kind::Latency => "answers take longer than its callees explain",
                    Kind::Errors => "more answers fail than its callees explain",
                    Kind::Quality => "answers are worse than its callees explain",
                    Kind::Resource | Kind::Volume => "it uses more",
                    Kind::Absence => "it is away",
                    Kind::Complaints => "it logs more trouble",
                };
                write!(
                    f,
                    "{what}: {} -> {}, {:.0} times what is usual, {:.0} % of all that is \
                     unexplained",
                    Short(*baseline),
                    Short(*now),
                    times,
                    share * 100.0
                )
            }
            Evidence::Resource {
                name,
                baseline,
                now,
                times,
            } => write!(
                f,
                "{name} {} -> {}, {times:.0} times what is usual at this load",
                Short(*baseline),
                Short(*now)
            ),
            Evidence::Mechanism {
                from,
                to,
                before,
                now,
            } => write!(
                f,
                "event {} follows event {} in {:.0} % of cases, before in {:.0} %",
                to.0,
                from.0,
                now * 100.0,
                before * 100.0
            ),
            Evidence::NewCallee { callee } => {
                write!(f, "it calls {}, as never before", self.1.name(*callee))
            }
            Evidence::First { least, most } => {
                let (least, most) = (least.as_secs(), most.as_secs());
                write!(f, "it began {least} to {most} s before what depends on it")
            }
            Evidence::Explains { caller, share } => write!(
                f,
                "it explains {:.0} % of what {} shows",
                share * 100.0,
                self.1.name(*caller)
            ),
            Evidence::Weighed(one) => reason::Words(one, self.1).fmt(f),
        }
    }
}

/// What makes a diagnosis less sure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The alarm names a component that the graph does not have; all are looked at.
    UnknownTarget,
    /// The alarmed component has no series of the alarmed kind.
    NoTargetSignal,
    /// The alarm is older than all samples; the newest ones were taken for the fault.
    AlarmOutside,
    /// Little history: noise is a guess.
    Cold {
        /// Samples before the alarm.
        rows: usize,
    },
    /// The clock of a component is ahead by so many seconds, or behind; its newest samples were
    /// taken as of now.
    Clock {
        /// Whose.
        component: Component,
        /// Seconds.
        ahead_s: i64,
    },
    /// Components that have no usable series; a fault of theirs looks like one of their callers.
    Unseen {
        /// How many.
        components: usize,
    },
    /// At least half the values of each series of a component were missing or nonsense: its
    /// medians say little, and its fault may look like one of its callers.
    Lost {
        /// Who lost most.
        component: Component,
        /// How much of its best series, in percent.
        percent: u8,
    },
    /// Components that call each other in a circle: which of them began is a guess.
    Cycle {
        /// One of them.
        component: Component,
    },
}

impl Doubt {
    /// Whether it makes all suspects less sure. Of the others those of what is unseen or lost
    /// count against those whom they are about, and a fit gave little history no weight.
    #[must_use]
    pub fn of_all(&self) -> bool {
        match self {
            Self::UnknownTarget
            | Self::NoTargetSignal
            | Self::AlarmOutside
            | Self::Clock { .. }
            | Self::Cycle { .. } => true,
            Self::Unseen { .. } | Self::Lost { .. } | Self::Cold { .. } => false,
        }
    }

    /// In words.
    #[must_use]
    pub fn words<'a>(&'a self, graph: &'a Graph) -> impl fmt::Display + 'a {
        Words(self, graph)
    }
}

impl fmt::Display for Words<'_, Doubt> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Doubt::UnknownTarget => f.write_str("the alarm is about a component that nobody knows"),
            Doubt::NoTargetSignal => f.write_str("the alarmed signal itself was not recorded"),
            Doubt::AlarmOutside => f.write_str(
                "the alarm is older than all samples: its clock, or those of the samples, are off",
            ),
            Doubt::Cold { rows } => write!(f, "only {rows} samples before the alarm"),
            Doubt::Clock { component, ahead_s } => {
                let name = self.1.name(*component);
                let hours = ahead_s.unsigned_abs() as f32 / 3600.0;
                if *ahead_s > 0 {
                    write!(f, "the clock of {name} is {hours:.1} h ahead")
                } else {
                    write!(
                        f,
                        "the clock of {name} is {hours:.1} h behind, or it is silent"
                    )
                }
            }
            Doubt::Unseen { components } => {
                write!(f, "{components} components have no usable signal")
            }
            Doubt::Lost { component, percent } => write!(
                f,
                "{percent} % of the values of {} are missing or no numbers",
                self.1.name(*component)
            ),
            Doubt::Cycle { component } => write!(
                f,
                "{} and others call each other in a circle",
                self.1.name(*component)
            ),
        }
    }
}

/// A look that tells the first two suspects apart. It changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Ask `ask` directly, past its callers: if it shows the fault it is the root, if not the
    /// other one is.
    Ask {
        /// Whom to ask.
        ask: Component,
        /// The other suspect.
        other: Component,
    },
    /// Look at the resources of `of`, and of the machine under it.
    Resources {
        /// Whose.
        of: Component,
        /// The other suspect.
        other: Component,
    },
    /// Read the log of `of` around the event whose continuation changed.
    Log {
        /// Whose.
        of: Component,
        /// The other suspect.
        other: Component,
        /// After which event.
        after: Event,
    },
    /// Look where what weighed most for `of` was seen.
    Look {
        /// There: `of` itself, or what it holds.
        at: Component,
        /// For what.
        sign: Sign,
        /// Who is suspected by it.
        of: Component,
        /// The other suspect.
        other: Component,
    },
}

impl Probe {
    /// In words.
    #[must_use]
    pub fn words<'a>(&'a self, graph: &'a Graph) -> impl fmt::Display + 'a {
        Words(self, graph)
    }
}

impl fmt::Display for Words<'_, Probe> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |of: &Component| self.1.name(*of);
        match self.0 {
            Probe::Ask { ask, other } => write!(
                f,
                "ask {} directly: if it shows the fault it is the root, if not {} is",
                name(ask),
                name(other)
            ),
            Probe::Resources { of, other } => write!(
                f,
                "look at the resources of {}: if they are free, suspect {}",
                name(of),
                name(other)
            ),
            Probe::Log { of, other, after } => write!(
                f,
                "read the log of {} after event {}: if that is as meant, suspect {}",
                name(of),
                after.0,
                name(other)
            ),
            Probe::Look {
                at, sign, other, ..
            } => {
                let (at, other) = (name(at), name(other));
                let kind = match sign {
                    Sign::Signal { kind, .. } => *kind,
                    Sign::Lines { topic, also } => {
                        return write!(
                            f,
                            "read the log of {at} for lines about {}: if there are none but \
                             the usual ones, suspect {other}",
                            About(*topic, *also)
                        );
                    }
                };
                match kind {
                    Kind::Resource => write!(
                        f,
                        "look at the resources of {at}: if they are as usual, suspect {other}"
                    ),
                    Kind::Absence => {
                        write!(f, "see whether {at} is there: if it is, suspect {other}")
                    }
                    Kind::Complaints => write!(
                        f,
                        "read the log of {at}: if it tells of no more trouble than usual, suspect \
                         {other}"
                    ),
                    Kind::Volume => write!(
                        f,
                        "see what is asked of {at}: if it is as much as usual, suspect {other}"
                    ),
                    Kind::Latency | Kind::Errors | Kind::Quality => write!(
                        f,
                        "ask {at} directly: if its answers are as usual, suspect {other}"
                    ),
                }
            }
        }
    }
}

/// Three digits that matter.
pub(crate) struct Short(pub(crate) f32);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() {
            0.0 => f.write_str("0"),
            size if size >= 1e9 => write!(f, "{:.2} G", self.0 / 1e9),
            size if size >= 1e6 => write!(f, "{:.1} M", self.0 / 1e6),
            size if size >= 100.0 => write!(f, "{:.0}", self.0),
            size if size >= 1.0 => write!(f, "{:.2}", self.0),
            _ => write!(f, "{:.4}", self.0),
        }
    }
}
