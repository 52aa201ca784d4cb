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

#[cfg(test)]
mod tests;
pub(crate) mod text;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{RouteId, ServiceId};
use crate::primitive::{self, Primitive};

/// Longest plan that a node accepts; bounds the journal of one plan.
pub const PLAN_STEPS_MAX: usize = 8;
/// Longest text that is parsed as a plan.
pub const PLAN_TEXT_MAX: usize = 1024;
/// Deepest nesting of groups; bounds the parser's stack.
const DEPTH_MAX: usize = 8;

/// A node of the tree. Its leaves are primitives, or, in a plan for several
/// nodes ([`crate::saga::FleetPlan`]), primitives with the node they are for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Branch<L = Primitive> {
    /// One leaf.
    Step(L),
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
    /// A step that would do something else than what it says.
    #[error("{0}: {1}")]
    Pointless(Box<str>, &'static str),
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

/// A step has to do what its name says.
fn sensible(step: &Primitive) -> Result<(), PlanError> {
    let why = match step {
        Primitive::LimitCpu { to, .. } if to.get() == 0 => {
            "a process without any share of the processors stands still, and only freeze says so"
        }
        Primitive::Reroute { from, to, .. } if from == to => {
            "traffic is moved from one backend to another one"
        }
        _ => return Ok(()),
    };
    Err(PlanError::Pointless(alloc::format!("{step}").into(), why))
}

impl Plan {
    /// Checks the form of a tree; groups of one and nested groups of the same
    /// kind are flattened, so equal plans print alike.
    ///
    /// # Errors
    /// [`PlanError`] says which rule of form the tree breaks.
    pub fn new(root: Branch) -> Result<Self, PlanError> {
        let root = root.normal()?;
        let plan = Self { root };
        let steps = plan.steps().count();
        if steps > PLAN_STEPS_MAX {
            return Err(PlanError::TooLong(steps));
        }
        conflict_free(&plan.root)?;
        plan.steps().try_for_each(sensible)?;
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

    /// Whether some of its steps run side by side.
    #[must_use]
    pub fn is_parallel(&self) -> bool {
        let mut open = vec![&self.root];
        while let Some(branch) = open.pop() {
            match branch {
                Branch::Step(_) => {}
                Branch::Series(inner) => open.extend(inner),
                Branch::Parallel(_) => return true,
            }
        }
        false
    }

    /// The tree.
    #[must_use]
    pub fn root(&self) -> &Branch {
        &self.root
    }

    /// All primitives, in the order in which they are printed.
    pub fn steps(&self) -> impl Iterator<Item = &Primitive> {
        self.root.leaves()
    }
}

impl<L> Branch<L> {
    /// All leaves, in the order in which they are printed.
    pub fn leaves(&self) -> impl Iterator<Item = &L> {
        let mut stack = vec![self];
        core::iter::from_fn(move || {
            loop {
                match stack.pop()? {
                    Self::Step(leaf) => return Some(leaf),
                    Self::Series(inner) | Self::Parallel(inner) => {
                        stack.extend(inner.iter().rev());
                    }
                }
            }
        })
    }

    /// Places of the leaves whose turn it is, given which are done; none when
    /// all are.
    pub(crate) fn ready(&self, done: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut ready = Vec::new();
        self.collect_ready(&done, &mut 0, &mut ready);
        ready
    }

    /// Returns whether the branch is complete.
    fn collect_ready(
        &self,
        done: &impl Fn(usize) -> bool,
        next: &mut usize,
        ready: &mut Vec<usize>,
    ) -> bool {
        let (inner, series) = match self {
            Self::Step(_) => {
                let place = *next;
                *next += 1;
                let done = done(place);
                if !done {
                    ready.push(place);
                }
                return done;
            }
            Self::Series(inner) => (inner, true),
            Self::Parallel(inner) => (inner, false),
        };
        let mut complete = true;
        for member in inner {
            // Behind an incomplete member of a series nothing begins, but the
            // leaves are counted on.
            let mut here = Vec::new();
            let whole = member.collect_ready(done, next, &mut here);
            if complete || !series {
                ready.append(&mut here);
            }
            complete &= whole;
        }
        complete
    }

    /// Groups of one and nested groups of the same kind flattened.
    pub(crate) fn normal(self) -> Result<Self, PlanError> {
        self.normal_at(0)
    }

    fn normal_at(self, depth: usize) -> Result<Self, PlanError> {
        if depth > DEPTH_MAX {
            return Err(PlanError::TooDeep);
        }
        let (inner, series) = match self {
            Self::Step(_) => return Ok(self),
            Self::Series(inner) => (inner, true),
            Self::Parallel(inner) => (inner, false),
        };
        let mut flat = Vec::new();
        for member in inner {
            match member.normal_at(depth + 1)? {
                Self::Series(deeper) if series => flat.extend(deeper),
                Self::Parallel(deeper) if !series => flat.extend(deeper),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Err(PlanError::Empty),
            1 => Ok(flat.remove(0)),
            _ if series => Ok(Self::Series(flat)),
            _ => Ok(Self::Parallel(flat)),
        }
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
