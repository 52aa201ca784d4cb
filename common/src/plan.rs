//! A plan: a series-parallel tree of primitives (PASE eq. 2).
//!
//! Cycles cannot be written, an empty branch cannot be built, and branches that
//! run side by side touch different services. Plans have a printed form that
//! reads back: `;` runs in turn, `|` side by side, parentheses group.
//!
//! ```
//! # use homeostat_common::plan::Plan;
//! let plan: Plan = "rollback-model(infer, to=00112233445566ff) ; restart(infer, grace=2s)"
//!     .parse()
//!     .unwrap();
//! assert_eq!(plan.steps().count(), 2);
//! assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
//! ```

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{ModelVersion, ServiceId};
use crate::primitive::Primitive;
use crate::units::Millis;

/// Longest plan that a node accepts; bounds the journal of one plan.
pub const PLAN_STEPS_MAX: usize = 8;
/// Longest text that is parsed as a plan.
pub const PLAN_TEXT_MAX: usize = 1024;
/// Deepest nesting of groups; bounds the parser's stack.
const DEPTH_MAX: usize = 8;

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Branch {
    /// One primitive.
    Step(Primitive),
    /// One after the other; the first failure ends it.
    Series(Vec<Self>),
    /// All at once; done when all are done.
    Parallel(Vec<Self>),
}

/// A well-formed plan; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    root: Branch,
}

/// Why something is not a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A group without members.
    #[error("a plan, and each group in it, needs at least one step")]
    Empty,
    /// More than [`PLAN_STEPS_MAX`].
    #[error("a plan has at most {PLAN_STEPS_MAX} steps, this one has {0}")]
    TooLong(usize),
    /// Groups nested too deep.
    #[error("groups nest at most {DEPTH_MAX} deep")]
    TooDeep,
    /// Two branches that would run side by side touch one service.
    #[error("two parallel branches touch service {0}")]
    Conflict(ServiceId),
    /// The text does not follow the grammar.
    #[error("at character {at}: expected {expected}")]
    Syntax {
        /// Offset in bytes.
        at: usize,
        /// What would have been right.
        expected: &'static str,
    },
    /// An argument has a wrong value.
    #[error("at character {at}: {what}: {cause}")]
    Argument {
        /// Offset in bytes.
        at: usize,
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        cause: Box<str>,
    },
    /// No primitive of that name.
    #[error(
        "at character {at}: unknown primitive {name:?}; there are restart, rollback-model, probe and wait"
    )]
    UnknownPrimitive {
        /// Offset in bytes.
        at: usize,
        /// As written.
        name: String,
    },
}

impl Plan {
    /// Checks the form of a tree; groups of one and nested groups of the same
    /// kind are flattened, so equal plans print alike.
    ///
    /// # Errors
    /// [`PlanError`] says which rule of form the tree breaks.
    pub fn new(root: Branch) -> Result<Self, PlanError> {
        let root = normal(root, 0)?;
        let plan = Self { root };
        let steps = plan.steps().count();
        if steps > PLAN_STEPS_MAX {
            return Err(PlanError::TooLong(steps));
        }
        conflict_free(&plan.root)?;
        Ok(plan)
    }

    /// A plan of one primitive.
    #[must_use]
    pub fn single(primitive: Primitive) -> Self {
        Self {
            root: Branch::Step(primitive),
        }
    }

    /// A plan of primitives in turn.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn series(steps: Vec<Primitive>) -> Result<Self, PlanError> {
        Self::new(Branch::Series(
            steps.into_iter().map(Branch::Step).collect(),
        ))
    }

    /// The tree.
    #[must_use]
    pub fn root(&self) -> &Branch {
        &self.root
    }

    /// All primitives, in the order in which they are printed.
    pub fn steps(&self) -> impl Iterator<Item = &Primitive> {
        let mut stack = vec![&self.root];
        core::iter::from_fn(move || {
            loop {
                match stack.pop()? {
                    Branch::Step(primitive) => return Some(primitive),
                    Branch::Series(inner) | Branch::Parallel(inner) => {
                        stack.extend(inner.iter().rev());
                    }
                }
            }
        })
    }
}

fn normal(branch: Branch, depth: usize) -> Result<Branch, PlanError> {
    if depth > DEPTH_MAX {
        return Err(PlanError::TooDeep);
    }
    let (inner, series) = match branch {
        Branch::Step(_) => return Ok(branch),
        Branch::Series(inner) => (inner, true),
        Branch::Parallel(inner) => (inner, false),
    };
    let mut flat = Vec::new();
    for member in inner {
        match normal(member, depth + 1)? {
            Branch::Series(deeper) if series => flat.extend(deeper),
            Branch::Parallel(deeper) if !series => flat.extend(deeper),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Err(PlanError::Empty),
        1 => Ok(flat.remove(0)),
        _ if series => Ok(Branch::Series(flat)),
        _ => Ok(Branch::Parallel(flat)),
    }
}

/// Checks that parallel branches touch different services; returns those of
/// the whole branch.
fn conflict_free(branch: &Branch) -> Result<Vec<&ServiceId>, PlanError> {
    match branch {
        Branch::Step(primitive) => Ok(primitive.service().into_iter().collect()),
        Branch::Series(inner) => {
            let mut all = Vec::new();
            for member in inner {
                all.extend(conflict_free(member)?);
            }
            Ok(all)
        }
        Branch::Parallel(inner) => {
            let mut all = Vec::new();
            for member in inner {
                let touched = conflict_free(member)?;
                if let Some(twice) = touched.iter().find(|service| all.contains(*service)) {
                    return Err(PlanError::Conflict((*twice).clone()));
                }
                all.extend(touched);
            }
            Ok(all)
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.root, true, f)
    }
}

fn print(branch: &Branch, outermost: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (inner, between) = match branch {
        Branch::Step(primitive) => return write!(f, "{primitive}"),
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
        if text.len() > PLAN_TEXT_MAX {
            return Err(PlanError::Syntax {
                at: PLAN_TEXT_MAX,
                expected: "the end of the plan (1024 characters at most)",
            });
        }
        let mut parser = Parser { text, at: 0 };
        let root = parser.group(0)?;
        parser.blanks();
        if parser.at < text.len() {
            return Err(parser.syntax("';', '|' or the end of the plan"));
        }
        Self::new(root)
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

struct Parser<'t> {
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
    fn group(&mut self, depth: usize) -> Result<Branch, PlanError> {
        if depth > DEPTH_MAX {
            return Err(PlanError::TooDeep);
        }
        let mut members = vec![self.member(depth)?];
        let separator = match () {
            () if self.take(';') => ';',
            () if self.take('|') => '|',
            () => return Ok(members.remove(0)),
        };
        loop {
            members.push(self.member(depth)?);
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

    fn member(&mut self, depth: usize) -> Result<Branch, PlanError> {
        if self.take('(') {
            let inner = self.group(depth + 1)?;
            self.need(')', "')'")?;
            return Ok(inner);
        }
        self.primitive().map(Branch::Step)
    }

    fn word(&mut self) -> (usize, &'t str) {
        self.blanks();
        let start = self.at;
        let length = self
            .rest()
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'-')
            .count();
        self.at += length;
        (start, self.text.get(start..self.at).unwrap_or(""))
    }

    fn value<T: FromStr>(&mut self, what: &'static str) -> Result<T, PlanError>
    where
        T::Err: fmt::Display,
    {
        let (at, word) = self.word();
        word.parse().map_err(|error: T::Err| PlanError::Argument {
            at,
            what,
            cause: error.to_string().into_boxed_str(),
        })
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

    fn primitive(&mut self) -> Result<Primitive, PlanError> {
        let (at, name) = self.word();
        if name.is_empty() {
            return Err(self.syntax("a primitive or '('"));
        }
        if !["restart", "rollback-model", "probe", "wait"].contains(&name) {
            return Err(PlanError::UnknownPrimitive {
                at,
                name: name.chars().take(32).collect(),
            });
        }
        self.need('(', "'('")?;
        let primitive = match name {
            "wait" => Primitive::Wait {
                span: self.value::<Span>("span")?.0,
            },
            _ => {
                let service: ServiceId = self.value("service")?;
                match name {
                    "restart" => {
                        self.key("grace", "grace=SPAN")?;
                        let grace = self.value::<Span>("grace")?.0;
                        Primitive::Restart { service, grace }
                    }
                    "rollback-model" => {
                        self.key("to", "to=MODEL VERSION")?;
                        let to: ModelVersion = self.value("to")?;
                        Primitive::RollbackModel { service, to }
                    }
                    _ => {
                        self.key("within", "within=SPAN")?;
                        let within = self.value::<Span>("within")?.0;
                        Primitive::Probe { service, within }
                    }
                }
            }
        };
        self.need(')', "')'")?;
        Ok(primitive)
    }
}

struct Span(Millis);

impl FromStr for Span {
    type Err = crate::units::SpanError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Millis::parse(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_branch() -> impl Strategy<Value = Branch> {
        let service = "[a-z]{1,6}".prop_map(|name| ServiceId::new(&name).unwrap());
        let step = (service, 0u64..100_000, any::<[u8; 8]>(), 0..4).prop_map(
            |(service, ms, version, kind)| {
                Branch::Step(match kind {
                    0 => Primitive::Restart {
                        service,
                        grace: Millis(ms),
                    },
                    1 => Primitive::RollbackModel {
                        service,
                        to: ModelVersion(version),
                    },
                    2 => Primitive::Probe {
                        service,
                        within: Millis(ms),
                    },
                    _ => Primitive::Wait { span: Millis(ms) },
                })
            },
        );
        step.prop_recursive(4, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Branch::Series),
                prop::collection::vec(inner, 1..4).prop_map(Branch::Parallel),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(branch in any_branch()) {
            if let Ok(plan) = Plan::new(branch) {
                prop_assert_eq!(plan.to_string().parse::<Plan>(), Ok(plan.clone()));
                let bytes = postcard::to_allocvec(&plan).unwrap();
                prop_assert_eq!(postcard::from_bytes::<Plan>(&bytes).unwrap(), plan);
            }
        }

        #[test]
        fn parsing_anything_never_panics(text in "[a-z0-9(;|),= -]{0,80}|.{0,40}") {
            let _ = text.parse::<Plan>();
        }
    }

    #[test]
    fn a_wrong_plan_says_where_and_what() {
        for (text, says) in [
            ("", "at character 0: expected a primitive or '('"),
            (
                "reboot(web)",
                "at character 0: unknown primitive \"reboot\"; there are restart, rollback-model, probe and wait",
            ),
            ("restart(web)", "at character 11: expected ','"),
            (
                "restart(Web, grace=1s)",
                "at character 8: service: a name may hold a-z, 0-9 and '-', not 'W'",
            ),
            (
                "restart(, grace=1s)",
                "at character 8: service: a name must not be empty",
            ),
            (
                "restart(web, grace=1)",
                "at character 19: grace: expected a whole number with a unit, such as 250ms, 2s, 5m, 1h or 2d",
            ),
            (
                "wait(1s) ; wait(1s) | wait(1s)",
                "at character 20: expected parentheses where ';' and '|' meet",
            ),
            (
                "wait(1s) wait(1s)",
                "at character 9: expected ';', '|' or the end of the plan",
            ),
            (
                "probe(web, within=1s) | restart(web, grace=1s)",
                "two parallel branches touch service web",
            ),
            ("((((((((((wait(1s)))))))))))", "groups nest at most 8 deep"),
        ] {
            assert_eq!(
                text.parse::<Plan>().unwrap_err().to_string(),
                says,
                "{text}"
            );
        }
        let long = ["wait(1s)"; 9].join(" ; ");
        assert_eq!(long.parse::<Plan>(), Err(PlanError::TooLong(9)));
        assert_eq!(Plan::new(Branch::Series(vec![])), Err(PlanError::Empty));
    }
}
