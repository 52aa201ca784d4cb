//! What happened in an episode, in turn, for people.
//!
//! For the one who explains, not for a policy: it tells of phases and roots that nobody
//! who heals is told of.

use std::fmt;

use crate::policy::Written;
use crate::world::{Failure, Order, OrderNo, Phase, World};

/// Lines of one trace; an episode has some dozens.
pub const TRACE_MAX: usize = 4000;

/// One line.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Entry {
    /// Seconds since the start.
    pub at: f64,
    /// What happened.
    pub what: String,
}

/// What happened, in turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    entries: Vec<Entry>,
    phases: Vec<&'static str>,
    roots: usize,
    begun: bool,
    missing: bool,
}

impl Trace {
    pub(super) fn new(world: &World) -> Self {
        Self {
            entries: Vec::new(),
            phases: phases(world).collect(),
            roots: 0,
            begun: false,
            missing: false,
        }
    }

    /// Its lines.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn say(&mut self, at: f64, what: fmt::Arguments<'_>) {
        let what = match self.entries.len() {
            TRACE_MAX.. => return,
            len if len + 1 == TRACE_MAX => "more is not told".to_owned(),
            _ => what.to_string(),
        };
        self.entries.push(Entry { at, what });
    }

    pub(super) fn ordered(&mut self, at: f64, no: OrderNo, order: &Order) {
        self.say(at, format_args!("order {}  {}", no.0, Written(order)));
    }

    pub(super) fn ended(&mut self, at: f64, no: OrderNo, how: fmt::Arguments<'_>) {
        self.say(at, format_args!("order {}  {how}", no.0));
    }

    /// Takes note of what has changed since the last tick.
    pub(super) fn note_world(&mut self, world: &World, onset: f64, missing: bool) {
        let now = world.now();
        if !self.begun && now >= onset {
            self.begun = true;
            self.say(now, format_args!("incident begins"));
        }
        for (at, phase) in phases(world).enumerate() {
            let before = std::mem::replace(&mut self.phases[at], phase);
            if before != phase {
                let name = &world.topology().replicas()[at].name;
                self.say(now, format_args!("{name} {before} -> {phase}"));
            }
        }
        let roots = world.roots_left();
        let before = std::mem::replace(&mut self.roots, roots);
        if before != roots {
            self.say(now, format_args!("roots    {before} -> {roots}"));
        }
        if missing != self.missing {
            self.missing = missing;
            let level = world.level();
            let served = if missing {
                "users are not served"
            } else {
                "users are served"
            };
            self.say(
                now,
                format_args!(
                    "{served}: errors {:.1} %, p95 {:.0} ms, quality {:.3}, shed {:.1} %",
                    100.0 * level.err,
                    level.p95_ms,
                    level.quality,
                    100.0 * level.shed,
                ),
            );
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { at, what } in &self.entries {
            writeln!(f, "{at:7.1} s  {what}")?;
        }
        Ok(())
    }
}

fn phases(world: &World) -> impl Iterator<Item = &'static str> {
    world.phases().map(Phase::name)
}

/// Why a step failed, in words.
pub(super) fn why(failure: Failure) -> &'static str {
    match failure {
        Failure::NoAnswer => "the node does not answer",
        Failure::Held(refusal) => refusal.why,
        Failure::Late => "not in time",
        Failure::Died => "the service died while it came up",
        Failure::NotServing => "the service does not answer",
        Failure::NoQuorum => "too few other nodes are up",
        Failure::NoOther => "no other replica is there",
        Failure::NoState => "a new replica would not have the state",
        Failure::NoCopy => "there is no copy to put back",
        Failure::NoRoom => "nothing can be written",
        Failure::TooManyErrands => "the operator has too much to do",
    }
}
