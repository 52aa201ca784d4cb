//! A plan for several nodes: a series-parallel tree whose leaves name a node.
//!
//! ```
//! # use homeostat_common::saga::FleetPlan;
//! let plan: FleetPlan = "edge-1: isolate(infer, infer-1, drain=1s) ; \
//!     (edge-2: scale-out(infer, infer-3) | edge-3: wait(1s))"
//!     .parse()
//!     .unwrap();
//! assert_eq!(plan.nodes().len(), 3);
//! assert_eq!(plan.to_string().parse::<FleetPlan>().unwrap(), plan);
//! ```

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::WORK;
use crate::gate::CONFIDENCE_MIN;
use crate::ids::{NodeId, RouteId, ServiceId};
use crate::plan::text::{Parser, print, read};
use crate::plan::{Branch, PLAN_STEPS_MAX, Plan, PlanError};
use crate::primitive::{Primitive, Reversal};
use crate::units::{Millis, Ratio};

/// One primitive, on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Whose resource it touches.
    pub node: NodeId,
    /// What is done there.
    pub primitive: Primitive,
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.primitive)
    }
}

/// A well-formed plan for several nodes; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FleetPlan {
    root: Branch<Leaf>,
}

/// Why something is not a plan for several nodes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FleetPlanError {
    /// As for a plan of one node.
    #[error(transparent)]
    Form(#[from] PlanError),
    /// Two branches that would run side by side touch one thing of one node.
    #[error("two parallel branches touch {resource} of node {node}")]
    Conflict {
        /// Whose.
        node: NodeId,
        /// The service or route.
        resource: String,
    },
    /// It could not be taken back if another node failed.
    #[error("{0} cannot be taken back, so it has no place in a plan of several nodes")]
    Irreversible(String),
    /// A step may take longer than all of it has.
    #[error("{step} may take {takes}; a plan of several nodes has {WORK} for all its steps")]
    Slow {
        /// Which.
        step: String,
        /// How long, wherever it runs.
        takes: Millis,
    },
    /// What it waits for in turn takes longer than all of it has.
    #[error("its waits take {0}; a plan of several nodes has {WORK} for all its steps")]
    Waits(Millis),
    /// The diagnosis is too uncertain for it.
    #[error(
        "confidence {confidence} is below {CONFIDENCE_MIN}: only looking, or steps on one target \
         that can be taken back"
    )]
    LowConfidence {
        /// How sure the diagnosis is.
        confidence: Ratio,
    },
}

/// What a leaf touches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource<'p> {
    Service(&'p ServiceId),
    Route(&'p RouteId),
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => write!(f, "service {id}"),
            Self::Route(id) => write!(f, "route {id}"),
        }
    }
}

impl FleetPlan {
    /// Checks the form of a tree, as [`Plan::new`] does.
    ///
    /// # Errors
    /// [`FleetPlanError`] says which rule of form the tree breaks.
    pub fn new(root: Branch<Leaf>) -> Result<Self, FleetPlanError> {
        let plan = Self {
            root: root.normal()?,
        };
        let steps = plan.steps().count();
        if steps > PLAN_STEPS_MAX {
            return Err(PlanError::TooLong(steps).into());
        }
        let irreversible = |leaf: &&Leaf| leaf.primitive.reversal() == Reversal::Irreversible;
        if let Some(leaf) = plan.steps().find(irreversible) {
            return Err(FleetPlanError::Irreversible(leaf.to_string()));
        }
        conflict_free(&plan.root)?;
        Ok(plan)
    }

    /// The tree.
    #[must_use]
    pub fn root(&self) -> &Branch<Leaf> {
        &self.root
    }

    /// The steps, in the order in which they are printed; a step's number is its
    /// place here.
    pub fn steps(&self) -> impl Iterator<Item = &Leaf> {
        self.root.leaves()
    }

    /// The nodes that it needs.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.steps().map(|leaf| leaf.node.clone()).collect()
    }

    /// What one node has to do, in the order in which it has to: for its gate.
    #[must_use]
    pub fn part(&self, node: &NodeId) -> Option<Plan> {
        // A part of a well-formed tree is well formed.
        Plan::new(of_node(&self.root, node)?).ok()
    }

    /// Numbers of the steps whose turn it is, given those that are done.
    pub(super) fn ready(&self, done: impl Fn(usize) -> bool) -> Vec<usize> {
        self.root.ready(done)
    }

    /// Whether it can be done within [`WORK`], as far as its text tells.
    ///
    /// # Errors
    /// [`FleetPlanError::Slow`] or [`FleetPlanError::Waits`].
    pub fn timely(&self) -> Result<(), FleetPlanError> {
        for leaf in self.steps() {
            let takes = leaf.primitive.deadline(Millis(0));
            if takes > WORK {
                let step = leaf.to_string();
                return Err(FleetPlanError::Slow { step, takes });
            }
        }
        match waits(&self.root) {
            long if long > WORK => Err(FleetPlanError::Waits(long)),
            _ => Ok(()),
        }
    }

    /// Whether a diagnosis of this confidence admits it: below [`CONFIDENCE_MIN`] only
    /// what changes nothing, or what changes one target of one node and can be taken
    /// back.
    ///
    /// # Errors
    /// [`FleetPlanError::LowConfidence`].
    pub fn admitted(&self, confidence: Ratio) -> Result<(), FleetPlanError> {
        let written = || self.steps().filter(|leaf| leaf.primitive.writes());
        let mut targets: Vec<(&NodeId, Option<&ServiceId>)> = written()
            .map(|leaf| (&leaf.node, leaf.primitive.service()))
            .collect();
        targets.dedup();
        let reversible = written().all(|leaf| leaf.primitive.reversal() == Reversal::Compensated);
        if confidence.get() >= CONFIDENCE_MIN || (targets.len() <= 1 && reversible) {
            Ok(())
        } else {
            Err(FleetPlanError::LowConfidence { confidence })
        }
    }
}

/// How long it waits at least.
fn waits(branch: &Branch<Leaf>) -> Millis {
    match branch {
        Branch::Step(leaf) => match leaf.primitive {
            Primitive::Wait { span } => span,
            _ => Millis(0),
        },
        Branch::Series(inner) => {
            let add = |sum: Millis, one| Millis(sum.0.saturating_add(waits(one).0));
            inner.iter().fold(Millis(0), add)
        }
        Branch::Parallel(inner) => inner.iter().map(waits).max().unwrap_or_default(),
    }
}

fn of_node(branch: &Branch<Leaf>, node: &NodeId) -> Option<Branch> {
    let members = |inner: &[Branch<Leaf>]| -> Vec<Branch> {
        let kept = inner.iter().filter_map(|member| of_node(member, node));
        kept.collect()
    };
    match branch {
        Branch::Step(leaf) => (leaf.node == *node).then(|| Branch::Step(leaf.primitive.clone())),
        Branch::Series(inner) => Some(Branch::Series(members(inner))).filter(has_members),
        Branch::Parallel(inner) => Some(Branch::Parallel(members(inner))).filter(has_members),
    }
}

fn has_members(branch: &Branch) -> bool {
    branch.leaves().next().is_some()
}

/// Checks that parallel branches touch different things; returns those of the whole
/// branch.
fn conflict_free(branch: &Branch<Leaf>) -> Result<Vec<(&NodeId, Resource<'_>)>, FleetPlanError> {
    let (inner, parallel) = match branch {
        Branch::Step(Leaf { node, primitive }) => {
            let services = primitive.service().into_iter().chain(primitive.backends());
            let services = services.map(Resource::Service);
            let routes = primitive.route().map(Resource::Route);
            return Ok(services.chain(routes).map(|one| (node, one)).collect());
        }
        Branch::Series(inner) => (inner, false),
        Branch::Parallel(inner) => (inner, true),
    };
    let mut all = Vec::new();
    for member in inner {
        let touched = conflict_free(member)?;
        if let Some((node, resource)) = touched.iter().find(|one| parallel && all.contains(*one)) {
            return Err(FleetPlanError::Conflict {
                node: (*node).clone(),
                resource: resource.to_string(),
            });
        }
        all.extend(touched);
    }
    Ok(all)
}

impl fmt::Display for FleetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.root, true, f)
    }
}

impl FromStr for FleetPlan {
    type Err = FleetPlanError;
    fn from_str(text: &str) -> Result<Self, FleetPlanError> {
        Self::new(read(text, leaf)?)
    }
}

fn leaf(parser: &mut Parser<'_>) -> Result<Leaf, PlanError> {
    Ok(Leaf {
        node: parser.label("node", "':' behind the node")?,
        primitive: parser.primitive()?,
    })
}

impl Serialize for FleetPlan {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FleetPlan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "edge-1: isolate(infer, infer-1, drain=1s) ; (edge-2: scale-out(infer, \
        infer-3) | edge-1: reroute(infer, from=infer-1, to=infer-2, share=50%))";

    fn read(text: &str) -> Result<FleetPlan, FleetPlanError> {
        text.parse()
    }

    #[test]
    fn a_plan_reads_back_and_splits_into_the_parts_of_its_nodes() {
        let plan = read(THREE).unwrap();
        assert_eq!(read(&plan.to_string()), Ok(plan.clone()));
        let part = |node: &str| {
            plan.part(&NodeId::new(node).unwrap())
                .map(|part| part.to_string())
        };
        assert_eq!(
            part("edge-1").as_deref(),
            Some(
                "isolate(infer, infer-1, drain=1s) ; reroute(infer, from=infer-1, to=infer-2, share=50%)"
            )
        );
        assert_eq!(part("edge-2").as_deref(), Some("scale-out(infer, infer-3)"));
        assert_eq!(part("edge-3"), None);
        let bytes = postcard::to_allocvec(&plan).unwrap();
        assert_eq!(postcard::from_bytes::<FleetPlan>(&bytes).unwrap(), plan);
    }

    #[test]
    fn side_by_side_the_same_name_is_free_on_two_nodes_and_not_on_one() {
        let sides = |one: &str, other: &str| {
            read(&alloc::format!(
                "{one}: restart(web, grace=1s) | {other}: restart(web, grace=1s)"
            ))
        };
        assert!(sides("a", "b").is_ok());
        let conflict = sides("a", "a").unwrap_err();
        assert_eq!(
            conflict.to_string(),
            "two parallel branches touch service web of node a"
        );
        assert!(matches!(
            read("a: release(r, x) | a: release(r, y)"),
            Err(FleetPlanError::Conflict { .. })
        ));
    }

    #[test]
    fn what_is_not_well_formed_is_refused_and_says_where() {
        for (text, expected) in [
            ("", "at character 0: node: a name must not be empty"),
            (
                "restart(web, grace=1s)",
                "at character 7: expected ':' behind the node",
            ),
            ("a: ", "at character 3: expected a primitive or '('"),
            (
                "a: prune-data(web, to=10%)",
                "a: prune-data(web, to=10%) cannot be taken back, so it has no place in a plan of several nodes",
            ),
            (
                "a: wait(1s) ; b: wait(1s) | c: wait(1s)",
                "at character 26: expected parentheses where ';' and '|' meet",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
        }
        let long = ["a: wait(1s)"; 9].join(" ; ");
        assert_eq!(
            read(&long),
            Err(FleetPlanError::Form(PlanError::TooLong(9)))
        );
    }

    #[test]
    fn what_cannot_be_done_in_the_time_of_a_saga_is_told_with_its_step() {
        let why = |text: &str| {
            let timely = read(text).unwrap().timely();
            timely.err().map(|error| error.to_string())
        };
        assert_eq!(why(THREE), None);
        assert_eq!(why("a: wait(29s) | b: wait(29s)"), None);
        assert_eq!(
            why("a: restart(web, grace=1s) ; b: wait(9999h)").as_deref(),
            Some(
                "b: wait(9999h) may take 35996401s; a plan of several nodes has 30s for all its steps"
            )
        );
        assert_eq!(
            why("a: wait(20s) ; (b: wait(11s) | c: wait(1s))").as_deref(),
            Some("its waits take 31s; a plan of several nodes has 30s for all its steps")
        );
        assert!(why("a: isolate(r, x, drain=40s)").is_some());
        assert!(why("a: probe(web, within=10m)").is_some());
    }

    #[test]
    fn low_confidence_admits_looking_and_one_target_that_can_be_taken_back() {
        let low = Ratio::new(0.4).unwrap();
        let admitted = |text: &str| read(text).unwrap().admitted(low).is_ok();
        assert!(admitted(
            "a: probe(web, within=1s) | b: probe(web, within=1s)"
        ));
        assert!(admitted(
            "a: isolate(r, x, drain=1s) ; b: probe(web, within=1s)"
        ));
        // In doubt one may take something out and put it back, but not two things, not
        // one that ends processes.
        assert!(!admitted(
            "a: isolate(r, x, drain=1s) ; b: isolate(r, x, drain=1s)"
        ));
        assert!(!admitted("a: restart(x, grace=1s)"));
        assert!(
            read(THREE)
                .unwrap()
                .admitted(Ratio::new(0.5).unwrap())
                .is_ok()
        );
        assert!(!admitted(THREE));
    }
}
