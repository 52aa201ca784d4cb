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

use crate::ids::{RouteId, ServiceId};
use crate::primitive::{self, Primitive};
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
    /// Two branches that would run side by side change one route.
    #[error("two parallel branches change route {0}")]
    RouteConflict(RouteId),
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
    #[error("at character {at}: unknown primitive {name:?}; there are {}", primitive::NAMES.join(", "))]
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

/// What a branch touches.
#[derive(Default)]
struct Touched<'b> {
    services: Vec<&'b ServiceId>,
    routes: Vec<&'b RouteId>,
}

/// Checks that parallel branches touch different services and routes; returns
/// those of the whole branch.
fn conflict_free(branch: &Branch) -> Result<Touched<'_>, PlanError> {
    let mut all = Touched::default();
    match branch {
        Branch::Step(primitive) => {
            all.services.extend(primitive.service());
            all.services.extend(primitive.backends());
            all.routes.extend(primitive.route());
        }
        Branch::Series(inner) => {
            for member in inner {
                let touched = conflict_free(member)?;
                all.services.extend(touched.services);
                all.routes.extend(touched.routes);
            }
        }
        Branch::Parallel(inner) => {
            for member in inner {
                let touched = conflict_free(member)?;
                if let Some(twice) = touched
                    .services
                    .iter()
                    .find(|id| all.services.contains(*id))
                {
                    return Err(PlanError::Conflict((*twice).clone()));
                }
                if let Some(twice) = touched.routes.iter().find(|id| all.routes.contains(*id)) {
                    return Err(PlanError::RouteConflict((*twice).clone()));
                }
                all.services.extend(touched.services);
                all.routes.extend(touched.routes);
            }
        }
    }
    Ok(all)
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
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'%'))
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

    fn primitive(&mut self) -> Result<Primitive, PlanError> {
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
            // The names were checked; the last one left is this.
            _ => Primitive::Probe {
                service: self.value("service")?,
                within: self.span("within", "within=SPAN")?,
            },
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
    use crate::ids::{ConfigVersion, ModelVersion};
    use crate::primitive::NAMES;
    use crate::units::Percent;
    use proptest::prelude::*;

    fn any_step() -> impl Strategy<Value = Primitive> {
        let service = || "[a-z]{1,6}".prop_map(|name| ServiceId::new(&name).unwrap());
        let route = "[a-z]{1,6}".prop_map(|name| RouteId::new(&name).unwrap());
        let share = (0..=100u8).prop_map(|share| Percent::new(share).unwrap());
        let parts = (
            service(),
            service(),
            route,
            0u64..100_000,
            any::<[u8; 8]>(),
            share,
        );
        (parts, 0..NAMES.len()).prop_map(|((service, other, route, ms, version, share), kind)| {
            let span = Millis(ms);
            let (model, config) = (ModelVersion(version), ConfigVersion(version));
            match kind {
                0 => Primitive::Restart {
                    service,
                    grace: span,
                },
                1 => Primitive::RollbackModel { service, to: model },
                2 => Primitive::Probe {
                    service,
                    within: span,
                },
                3 => Primitive::Wait { span },
                4 => Primitive::SwitchModel { service, to: model },
                5 => Primitive::SwitchConfig {
                    service,
                    to: config,
                },
                6 => Primitive::RollbackConfig {
                    service,
                    to: config,
                },
                7 => Primitive::PruneData { service, to: share },
                8 => Primitive::Isolate {
                    route,
                    backend: service,
                    drain: span,
                },
                9 => Primitive::Release {
                    route,
                    backend: service,
                },
                10 => Primitive::Reroute {
                    route,
                    from: service,
                    to: other,
                    share,
                },
                11 => Primitive::ScaleOut { route, service },
                _ => Primitive::ScaleIn {
                    route,
                    service,
                    drain: span,
                },
            }
        })
    }

    fn any_branch() -> impl Strategy<Value = Branch> {
        let step = any_step().prop_map(Branch::Step);
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
        fn each_primitive_has_its_own_name(step in any_step()) {
            prop_assert!(NAMES.contains(&step.name()));
            prop_assert!(step.to_string().starts_with(&(step.name().to_string() + "(")));
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
                "at character 0: unknown primitive \"reboot\"; there are restart, rollback-model, probe, wait, switch-model, switch-config, rollback-config, prune-data, isolate, release, reroute, scale-out, scale-in",
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
            (
                "isolate(infer, infer-1, drain=1s) | isolate(infer, infer-2, drain=1s)",
                "two parallel branches change route infer",
            ),
            (
                "reroute(infer, from=infer-1, to=edge-2, share=130%)",
                "at character 46: share: expected a share from 0% to 100%",
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
