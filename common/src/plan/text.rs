//! The printed form of a plan, and the parser that reads it back.
//!
//! In goes a plan or its text, at most [`PLAN_TEXT_MAX`] of it; out comes the other
//! one, or where the text is wrong and what would have been right. Whether a tree
//! that was read is well formed is for [`Plan::new`] to say.

use alloc::string::ToString;
use alloc::vec;
use core::fmt;
use core::str::FromStr;

use super::{Branch, DEPTH_MAX, PLAN_TEXT_MAX, Plan, PlanError};
use crate::ids::ServiceId;
use crate::primitive::{self, Primitive};
use crate::units::Millis;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.root, true, f)
    }
}

pub(crate) fn print<L: fmt::Display>(
    branch: &Branch<L>,
    outermost: bool,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let (inner, between) = match branch {
        Branch::Step(leaf) => return write!(f, "{leaf}"),
        Branch::Series(inner) => (inner, " ; "),
        Branch::Parallel(inner) => (inner, " | "),
    };
    if !outermost {
        f.write_str("(")?;
    }
    for (place, member) in inner.iter().enumerate() {
        if place > 0 {
            f.write_str(between)?;
        }
        print(member, false, f)?;
    }
    if !outermost {
        f.write_str(")")?;
    }
    Ok(())
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        read(text, Parser::primitive).and_then(Self::new)
    }
}

/// Reads a tree whose leaves `leaf` reads; its form is not checked yet.
pub(crate) fn read<'t, L>(text: &'t str, leaf: Leaf<'t, L>) -> Result<Branch<L>, PlanError> {
    if text.len() > PLAN_TEXT_MAX {
        return Err(PlanError::Syntax {
            at: PLAN_TEXT_MAX,
            expected: "the end of the plan (1024 characters at most)",
        });
    }
    let mut parser = Parser { text, at: 0 };
    let root = parser.group(leaf, 0)?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.syntax("';', '|' or the end of the plan"));
    }
    Ok(root)
}

/// How the leaf of a tree is read.
type Leaf<'t, L> = fn(&mut Parser<'t>) -> Result<L, PlanError>;

pub(crate) struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn syntax(&self, expected: &'static str) -> PlanError {
        PlanError::Syntax {
            at: self.at,
            expected,
        }
    }

    fn take(&mut self, symbol: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    fn need(&mut self, symbol: char, expected: &'static str) -> Result<(), PlanError> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.syntax(expected))
        }
    }

    /// Members joined by one kind of separator; mixing needs parentheses.
    fn group<L>(&mut self, leaf: Leaf<'t, L>, depth: usize) -> Result<Branch<L>, PlanError> {
        if depth > DEPTH_MAX {
            return Err(PlanError::TooDeep);
        }
        let mut members = vec![self.member(leaf, depth)?];
        let separator = match () {
            () if self.take(';') => ';',
            () if self.take('|') => '|',
            () => return Ok(members.remove(0)),
        };
        loop {
            members.push(self.member(leaf, depth)?);
            if !self.take(separator) {
                break;
            }
        }
        self.blanks();
        if self.rest().starts_with([';', '|']) {
            return Err(self.syntax("parentheses where ';' and '|' meet"));
        }
        Ok(if separator == ';' {
            Branch::Series(members)
        } else {
            Branch::Parallel(members)
        })
    }

    fn member<L>(&mut self, leaf: Leaf<'t, L>, depth: usize) -> Result<Branch<L>, PlanError> {
        if self.take('(') {
            let inner = self.group(leaf, depth + 1)?;
            self.need(')', "')'")?;
            return Ok(inner);
        }
        leaf(self).map(Branch::Step)
    }

    fn word(&mut self) -> (usize, &'t str) {
        self.word_of(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'%' | b'/' | b'.' | b':'))
    }

    fn word_of(&mut self, holds: impl Fn(u8) -> bool) -> (usize, &'t str) {
        self.blanks();
        let start = self.at;
        let length = self.rest().bytes().take_while(|b| holds(*b)).count();
        self.at += length;
        (start, self.text.get(start..self.at).unwrap_or(""))
    }

    fn value<T: FromStr>(&mut self, what: &'static str) -> Result<T, PlanError>
    where
        T::Err: fmt::Display,
    {
        let word = self.word();
        parsed(word, what)
    }

    /// A name, and the ':' that sets it apart from what follows.
    pub(crate) fn label<T: FromStr>(
        &mut self,
        what: &'static str,
        expected: &'static str,
    ) -> Result<T, PlanError>
    where
        T::Err: fmt::Display,
    {
        let word = self.word_of(|b| b.is_ascii_alphanumeric() || b == b'-');
        let label = parsed(word, what)?;
        self.need(':', expected)?;
        Ok(label)
    }

    fn key(&mut self, key: &'static str, expected: &'static str) -> Result<(), PlanError> {
        self.need(',', "','")?;
        let (at, word) = self.word();
        if word != key {
            self.at = at;
            return Err(self.syntax(expected));
        }
        self.need('=', "'='")
    }

    /// An argument without a key, after the first.
    fn next<T: FromStr>(&mut self, what: &'static str) -> Result<T, PlanError>
    where
        T::Err: fmt::Display,
    {
        self.need(',', "','")?;
        self.value(what)
    }

    fn span(&mut self, key: &'static str, expected: &'static str) -> Result<Millis, PlanError> {
        self.key(key, expected)?;
        self.value::<Span>(key).map(|span| span.0)
    }

    fn named<T: FromStr>(
        &mut self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<T, PlanError>
    where
        T::Err: fmt::Display,
    {
        self.key(key, expected)?;
        self.value(key)
    }

    pub(crate) fn primitive(&mut self) -> Result<Primitive, PlanError> {
        const DRAIN: &str = "drain=SPAN";
        const MODEL: &str = "to=MODEL VERSION";
        const CONFIG: &str = "to=CONFIGURATION VERSION";
        let (at, name) = self.word();
        if name.is_empty() {
            return Err(self.syntax("a primitive or '('"));
        }
        if !primitive::NAMES.contains(&name) {
            return Err(PlanError::UnknownPrimitive {
                at,
                name: name.chars().take(32).collect(),
            });
        }
        self.need('(', "'('")?;
        let primitive = match name {
            "restart" => Primitive::Restart {
                service: self.value("service")?,
                grace: self.span("grace", "grace=SPAN")?,
            },
            "rollback-model" => Primitive::RollbackModel {
                service: self.value("service")?,
                to: self.named("to", MODEL)?,
            },
            "switch-model" => Primitive::SwitchModel {
                service: self.value("service")?,
                to: self.named("to", MODEL)?,
            },
            "rollback-config" => Primitive::RollbackConfig {
                service: self.value("service")?,
                to: self.named("to", CONFIG)?,
            },
            "switch-config" => Primitive::SwitchConfig {
                service: self.value("service")?,
                to: self.named("to", CONFIG)?,
            },
            "prune-data" => Primitive::PruneData {
                service: self.value("service")?,
                to: self.named("to", "to=PERCENT")?,
            },
            "isolate" => Primitive::Isolate {
                route: self.value("route")?,
                backend: self.next("backend")?,
                drain: self.span("drain", DRAIN)?,
            },
            "release" => Primitive::Release {
                route: self.value("route")?,
                backend: self.next("backend")?,
            },
            "reroute" => Primitive::Reroute {
                route: self.value("route")?,
                from: self.named("from", "from=BACKEND")?,
                to: self.named("to", "to=BACKEND")?,
                share: self.named("share", "share=PERCENT")?,
            },
            "scale-out" => Primitive::ScaleOut {
                route: self.value("route")?,
                service: self.next("service")?,
            },
            "scale-in" => Primitive::ScaleIn {
                route: self.value("route")?,
                service: self.next("service")?,
                drain: self.span("drain", DRAIN)?,
            },
            "wait" => Primitive::Wait {
                span: self.value::<Span>("span")?.0,
            },
            "limit-cpu" => Primitive::LimitCpu {
                service: self.value("service")?,
                to: self.named("to", "to=PERCENT")?,
            },
            "limit-rate" => Primitive::LimitRate {
                route: self.value("route")?,
                to: self.named("to", "to=RATE")?,
            },
            "unlimit-rate" => Primitive::UnlimitRate {
                route: self.value("route")?,
            },
            "block-source" => Primitive::BlockSource {
                route: self.value("route")?,
                from: self.named("from", "from=ADDRESSES")?,
            },
            "unblock-source" => Primitive::UnblockSource {
                route: self.value("route")?,
                from: self.named("from", "from=ADDRESSES")?,
            },
            "switch-uplink" => Primitive::SwitchUplink {
                service: self.value("service")?,
                to: self.named("to", "to=INTERFACE")?,
            },
            "block-port" => Primitive::BlockPort {
                service: self.value("service")?,
                from: self.named("from", "from=ADDRESSES")?,
            },
            "unblock-port" => Primitive::UnblockPort {
                service: self.value("service")?,
                from: self.named("from", "from=ADDRESSES")?,
            },
            "call-webhook" => Primitive::CallWebhook {
                service: self.value("service")?,
                to: self.named("to", "to=WEBHOOK")?,
            },
            "probe" => Primitive::Probe {
                service: self.value("service")?,
                within: self.span("within", "within=SPAN")?,
            },
            _ => alone(name, self.value("service")?),
        };
        self.need(')', "')'")?;
        Ok(primitive)
    }
}

/// The primitives whose only argument is a service. The names were checked; the
/// last one left is `escalate`.
fn alone(name: &str, service: ServiceId) -> Primitive {
    match name {
        "freeze" => Primitive::Freeze { service },
        "thaw" => Primitive::Thaw { service },
        "unlimit-cpu" => Primitive::UnlimitCpu { service },
        "prewarm" => Primitive::Prewarm { service },
        "clear-locks" => Primitive::ClearLocks { service },
        "snapshot" => Primitive::Snapshot { service },
        "restore-snapshot" => Primitive::RestoreSnapshot { service },
        "flush-cache" => Primitive::FlushCache { service },
        "reset-pool" => Primitive::ResetPool { service },
        "degrade" => Primitive::Degrade { service },
        "undegrade" => Primitive::Undegrade { service },
        "sync-clock" => Primitive::SyncClock { service },
        "release-uplink" => Primitive::ReleaseUplink { service },
        "remount-writable" => Primitive::RemountWritable { service },
        _ => Primitive::Escalate { service },
    }
}

fn parsed<T: FromStr>((at, word): (usize, &str), what: &'static str) -> Result<T, PlanError>
where
    T::Err: fmt::Display,
{
    word.parse().map_err(|error: T::Err| PlanError::Argument {
        at,
        what,
        cause: error.to_string().into_boxed_str(),
    })
}

struct Span(Millis);

impl FromStr for Span {
    type Err = crate::units::SpanError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Millis::parse(text).map(Self)
    }
}
