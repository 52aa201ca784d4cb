//! Who depends on whom.
//!
//! In: components by name and calls between them. Out: who calls whom with which share, what
//! an alarm's component depends on, and which calls lie on a cycle. It decides nothing.

use alloc::{borrow::ToOwned as _, collections::BTreeMap, string::String, vec, vec::Vec};
use core::fmt;

/// More components than a fleet of services has; bounds the time of a diagnosis.
pub const COMPONENTS_MAX: usize = 4096;

/// Calls that are kept: sixteen for each component.
pub const CALLS_MAX: usize = 16 * COMPONENTS_MAX;

/// A component, by its place in the [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component(pub u16);

impl Component {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Why something was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A component that this graph does not have.
    Unknown(Component),
    /// A share of calls outside `0..=1`.
    Share,
    /// [`COMPONENTS_MAX`], [`CALLS_MAX`] or [`SERIES_MAX`](crate::SERIES_MAX) is reached.
    Full,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(component) => write!(f, "the graph has no component {}", component.0),
            Self::Share => f.write_str("a share of calls must lie in 0..=1"),
            Self::Full => f.write_str("no more room for components, calls or series"),
        }
    }
}

impl core::error::Error for Refusal {}

/// What a component is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// One process of a service, somewhere.
    Instance,
    /// What callers call: a route, a service by its name. It needs its instances.
    Service,
    /// What instances run on: a node, a disk.
    Host,
    /// What hosts reach others by.
    Link,
    /// Where hosts stand together.
    Site,
    /// Somebody else's service.
    Outside,
}

impl Role {
    /// How many there are.
    pub(crate) const COUNT: usize = 6;
}

/// One component needs another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Call {
    pub(crate) callee: usize,
    /// How much of the callee's calls come from this caller; by volumes if not known.
    pub(crate) share: Option<f32>,
    /// Both ends lie on a cycle with each other.
    pub(crate) cyclic: bool,
}

/// Components and who calls whom; cycles are allowed.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    names: Vec<String>,
    by_name: BTreeMap<String, u16>,
    proxy: Vec<bool>,
    roles: Vec<Option<Role>>,
    calls: Vec<Vec<Call>>,
    count: usize,
}

impl Graph {
    /// The component of this name, which is added if it is new.
    ///
    /// # Errors
    /// [`Refusal::Full`] beyond [`COMPONENTS_MAX`].
    pub fn add(&mut self, name: &str) -> Result<Component, Refusal> {
        if let Some(known) = self.find(name) {
            return Ok(known);
        }
        let place = u16::try_from(self.names.len()).map_err(|_| Refusal::Full)?;
        if self.names.len() >= COMPONENTS_MAX {
            return Err(Refusal::Full);
        }
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), place);
        self.proxy.push(false);
        self.roles.push(None);
        self.calls.push(Vec::new());
        Ok(Component(place))
    }

    /// The component of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Component> {
        self.by_name.get(name).copied().map(Component)
    }

    /// The name of a component; `?` for one that this graph does not have.
    #[must_use]
    pub fn name(&self, component: Component) -> &str {
        self.names
            .get(component.index())
            .map_or("?", String::as_str)
    }

    /// How many components there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// No component yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Marks a component as a mere view of another one (a load balancer's name, a synthetic
    /// client): it is no candidate, and nothing is explained by it.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn proxy(&mut self, component: Component) -> Result<(), Refusal> {
        let mark = self.proxy.get_mut(component.index());
        *mark.ok_or(Refusal::Unknown(component))? = true;
        Ok(())
    }

    /// Says what a component is to the others. Where that is said, [`diagnose`] weighs what
    /// speaks for each component by what was learned of its role; without it by own excess alone.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    ///
    /// [`diagnose`]: crate::diagnose()
    pub fn role(&mut self, component: Component, role: Role) -> Result<(), Refusal> {
        let place = self.roles.get_mut(component.index());
        *place.ok_or(Refusal::Unknown(component))? = Some(role);
        Ok(())
    }

    /// `caller` needs `callee`: it calls it, or runs on it. `share`: how much of the callee's
    /// calls come from this caller, from traces; `None` takes it from the callers' volumes. A
    /// call that is known already gets the new share.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Share`], or [`Refusal::Full`] beyond [`CALLS_MAX`].
    pub fn calls(
        &mut self,
        caller: Component,
        callee: Component,
        share: Option<f32>,
    ) -> Result<(), Refusal> {
        for end in [caller, callee] {
            if end.index() >= self.len() {
                return Err(Refusal::Unknown(end));
            }
        }
        if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err(Refusal::Share);
        }
        // A component explains itself by definition.
        if caller == callee {
            return Ok(());
        }
        let known = &mut self.calls[caller.index()];
        if let Some(call) = known.iter_mut().find(|call| call.callee == callee.index()) {
            call.share = share;
            return Ok(());
        }
        if self.count >= CALLS_MAX {
            return Err(Refusal::Full);
        }
        known.push(Call {
            callee: callee.index(),
            share,
            cyclic: false,
        });
        self.count += 1;
        Ok(())
    }

    pub(crate) fn role_of(&self, component: usize) -> Option<Role> {
        self.roles.get(component).copied().flatten()
    }

    /// Who each component needs, and who needs it.
    pub(crate) fn both_ways(&self) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
        let callees = |calls: &Vec<Call>| calls.iter().map(|call| call.callee).collect();
        let needs: Vec<Vec<usize>> = self.calls.iter().map(callees).collect();
        let mut serves = vec![Vec::new(); self.len()];
        for (caller, callees) in needs.iter().enumerate() {
            for callee in callees {
                serves[*callee].push(caller);
            }
        }
        (needs, serves)
    }

    pub(crate) fn is_proxy(&self, component: usize) -> bool {
        self.proxy.get(component).copied().unwrap_or(false)
    }

    /// The calls of each component with cycles marked, by strongly connected parts
    /// (Tarjan 1972, without recursion).
    pub(crate) fn condensed(&self) -> Vec<Vec<Call>> {
        let part = self.parts();
        let mut calls = self.calls.clone();
        for (caller, calls) in calls.iter_mut().enumerate() {
            for call in calls {
                call.cyclic = part[caller] == part[call.callee];
            }
        }
        calls
    }

    /// Whether each component is `from` or something it depends on.
    pub(crate) fn reach(&self, from: usize) -> Vec<bool> {
        let mut seen = vec![false; self.len()];
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            if seen.get(at).is_none_or(|seen| *seen) {
                continue;
            }
            seen[at] = true;
            open.extend(self.calls[at].iter().map(|call| call.callee));
        }
        seen
    }

    /// The number of the strongly connected part of each component.
    fn parts(&self) -> Vec<usize> {
        const NONE: usize = usize::MAX;
        let n = self.len();
        let (mut index, mut low, mut part) = (vec![NONE; n], vec![0; n], vec![NONE; n]);
        let (mut stack, mut next, mut parts) = (Vec::new(), 0, 0);
        for root in 0..n {
            // Component and how many of its calls were followed.
            let mut path = vec![(root, 0)];
            while let Some((at, followed)) = path.pop() {
                if followed == 0 {
                    if index[at] != NONE {
                        continue;
                    }
                    (index[at], low[at]) = (next, next);
                    next += 1;
                    stack.push(at);
                } else {
                    // Back from the call that was followed last.
                    let callee = self.calls[at][followed - 1].callee;
                    if part[callee] == NONE {
                        low[at] = low[at].min(low[callee]);
                    }
                }
                if let Some(call) = self.calls[at].get(followed) {
                    path.push((at, followed + 1));
                    if index[call.callee] == NONE {
                        path.push((call.callee, 0));
                    }
                } else if low[at] == index[at] {
                    while let Some(member) = stack.pop() {
                        part[member] = parts;
                        if member == at {
                            break;
                        }
                    }
                    parts += 1;
                }
            }
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(n: u16, calls: &[(u16, u16)]) -> Graph {
        let mut graph = Graph::default();
        for at in 0..n {
            graph.add(&std::format!("{at}")).unwrap();
        }
        for (caller, callee) in calls {
            graph
                .calls(Component(*caller), Component(*callee), None)
                .unwrap();
        }
        graph
    }

    #[test]
    fn cycles_are_found_and_trees_are_not() {
        let graph = graph(6, &[(0, 1), (1, 2), (2, 3), (3, 1), (3, 4), (4, 5), (0, 4)]);
        let marked: Vec<(usize, usize)> = graph
            .condensed()
            .iter()
            .enumerate()
            .flat_map(|(caller, calls)| {
                let cyclic = calls.iter().filter(|call| call.cyclic);
                cyclic.map(|call| (caller, call.callee)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(marked, [(1, 2), (2, 3), (3, 1)]);
        assert_eq!(graph.reach(3), [false, true, true, true, true, true]);
        assert_eq!(graph.reach(9), [false; 6]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut graph = graph(2, &[(0, 0)]);
        let (a, b) = (Component(0), Component(1));
        assert_eq!(graph.calls(a, b, Some(f32::NAN)), Err(Refusal::Share));
        assert_eq!(
            graph.calls(a, Component(7), None),
            Err(Refusal::Unknown(Component(7)))
        );
        assert_eq!(
            graph.proxy(Component(2)),
            Err(Refusal::Unknown(Component(2)))
        );
        for at in 2..COMPONENTS_MAX {
            graph.add(&std::format!("{at}")).unwrap();
        }
        assert_eq!(graph.add("one more"), Err(Refusal::Full));
        assert_eq!(graph.add("1"), Ok(b));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let n = 4000;
        let calls: Vec<(u16, u16)> = (1..n).map(|at| (at - 1, at)).collect();
        let graph = graph(n, &calls);
        assert!(graph.condensed().iter().flatten().all(|call| !call.cyclic));
    }
}
