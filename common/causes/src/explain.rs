//! What speaks for each suspect, who only suffers from it, and which look would settle it.
//!
//! In: what was computed before anybody is suspected, and the suspects. Out: reasons and
//! probes for people. Nothing here changes who is suspected, or how much.

use alloc::{vec, vec::Vec};

use crate::diagnose::{Alarm, Explained, Scene, Suspect, place};
use crate::evidence::{Evidence, Probe};
use crate::graph::{Component, Role};
use crate::own::{Account, Node};
use crate::reason::{Reason, Sign, Weighed, Whose};
use crate::signals::Kind;

/// The least part of what a component shows that counts as explaining it.
const EXPLAINS: f32 = 0.5;

/// Calls between a root and whom it explains, at most.
const CHAIN_MAX: usize = 32;

impl Scene<'_> {
    pub(crate) fn evidence(
        &self,
        of: usize,
        alarm: &Alarm,
        weighed: Vec<Weighed>,
    ) -> Vec<Evidence> {
        // Where it was weighed that is why it stands where it does.
        let mut evidence: Vec<Evidence> = weighed.into_iter().map(Evidence::Weighed).collect();
        for account in &self.accounts {
            let Some(node) = account.nodes[of].as_ref() else {
                continue;
            };
            if node.beyond() <= 0.0 {
                continue;
            }
            let candidates = account.nodes.iter().enumerate();
            let candidates = candidates.filter(|(of, _)| self.candidate(*of));
            let all: f32 = candidates
                .filter_map(|(_, node)| Some(node.as_ref()?.beyond()))
                .sum();
            evidence.push(Evidence::OwnExcess {
                kind: account.kind,
                baseline: node.baseline,
                now: node.now,
                // One that nothing leads to is none of them.
                share: (node.beyond() / all).min(1.0),
                times: node.times(),
            });
            let new = node.unseen.iter().map(|callee| Evidence::NewCallee {
                callee: place(*callee),
            });
            for new in new {
                // Latency and errors are both those of the same calls.
                if !evidence.contains(&new) {
                    evidence.push(new);
                }
            }
        }
        if let Some(resource) = self.resources[of].as_ref().filter(|one| one.times > 1.0)
            && let name = &self.signals.series[resource.series].name
            && !evidence.iter().any(|one| one.is_about(name))
        {
            evidence.push(Evidence::Resource {
                name: name.clone(),
                baseline: resource.baseline,
                now: resource.now,
                times: resource.times,
            });
        }
        if let Some(change) = self.changes[of]
            && change.times() > 1.0
        {
            evidence.push(Evidence::Mechanism {
                from: change.from,
                to: change.to,
                before: change.before,
                now: change.now,
            });
        }
        let callers = (0..self.graph.len())
            .filter(|caller| self.calls[*caller].iter().any(|call| call.callee == of));
        let mut first: Option<usize> = None;
        for caller in callers {
            let later = self.onset(caller);
            first = [first, later].into_iter().flatten().min();
            let mut most: Option<f32> = None;
            let kind = |one: &&Account| alarm.kind.is_none_or(|kind| kind == one.kind);
            for account in self.accounts.iter().filter(kind) {
                let Some(node) = account.nodes[caller].as_ref() else {
                    continue;
                };
                let part = node.explained.iter().find(|part| part.0 == of);
                let share = part.map_or(0.0, |part| (part.1 / node.excess).min(1.0));
                if node.excess > node.noise && share >= EXPLAINS {
                    most = Some(most.map_or(share, |most| most.max(share)));
                }
            }
            evidence.extend(most.map(|share| Evidence::Explains {
                caller: place(caller),
                share,
            }));
        }
        // Somewhere in its row.
        let begins = |row: usize| {
            let from = self.frame.begins(row)?;
            Some((from, self.frame.begins(row + 1).unwrap_or(from)))
        };
        let onsets = self.onset(of).and_then(begins).zip(first.and_then(begins));
        if let Some((own, later)) = onsets.filter(|(own, later)| own.0 < later.0) {
            evidence.push(Evidence::First {
                least: later.0.saturating_sub(own.1),
                most: later.1.saturating_sub(own.0),
            });
        }
        evidence
    }

    /// Who shows a fault that a root explains, along all calls between them.
    pub(crate) fn explained(&self, roots: &[(usize, f32)]) -> Vec<Explained> {
        let mut best: Vec<Option<Explained>> = vec![None; self.graph.len()];
        for account in &self.accounts {
            for (root, _) in roots {
                for (of, share) in self.carried(account, *root).into_iter().enumerate() {
                    let a_root = roots.iter().any(|(root, _)| *root == of);
                    let beyond = |node: &Node| node.excess > node.noise;
                    let ill = account.nodes[of].as_ref().is_some_and(beyond);
                    let known = best[of].map_or(0.0, |one| one.share);
                    if ill && !a_root && self.candidate(of) && share >= EXPLAINS && share > known {
                        best[of] = Some(Explained {
                            component: place(of),
                            by: place(*root),
                            share,
                        });
                    }
                }
            }
        }
        best.into_iter().flatten().collect()
    }

    /// Which part of each component's excess comes from one root.
    fn carried(&self, account: &Account, root: usize) -> Vec<f32> {
        let mut carried = vec![0.0; self.graph.len()];
        carried[root] = 1.0;
        // Calls that carry excess have no circle, so this ends after the longest chain.
        for _ in 0..CHAIN_MAX {
            let mut moved = false;
            for (of, node) in account.nodes.iter().enumerate() {
                let Some(node) = node.as_ref().filter(|node| node.excess > 0.0) else {
                    continue;
                };
                if of == root {
                    continue;
                }
                let parts = node
                    .explained
                    .iter()
                    .map(|(callee, part)| part * carried[*callee]);
                let host = self.host(of).filter(|(host, _)| *host == root);
                let hosted = host.map_or(0.0, |(_, share)| node.own * share);
                let share = ((parts.sum::<f32>() + hosted) / node.excess).min(1.0);
                moved |= (share - carried[of]).abs() > 1e-3;
                carried[of] = share;
            }
            if !moved {
                break;
            }
        }
        carried
    }

    pub(crate) fn probe(&self, suspects: &[Suspect]) -> Option<Probe> {
        let [first, second, ..] = suspects else {
            return None;
        };
        let other = second.component;
        // What weighs for both tells little.
        let apart = |one: &&Evidence| {
            let Evidence::Weighed(one) = one else {
                return false;
            };
            !second.evidence.iter().any(|other| match other {
                Evidence::Weighed(other) => one.reason.is_like(&other.reason),
                _ => false,
            })
        };
        let probes = |one: &Evidence| self.probe_by(one, first.component, other);
        let all = || first.evidence.iter();
        all()
            .filter(apart)
            .find_map(probes)
            .or_else(|| all().find_map(probes))
            .or_else(|| Some(self.ask(first.component, other)))
    }

    /// Asks one directly, or looks at it where it is nobody that answers.
    fn ask(&self, ask: Component, other: Component) -> Probe {
        match self.graph.role_of(ask.index()) {
            Some(Role::Host | Role::Link) => Probe::Resources { of: ask, other },
            Some(Role::Site) => Probe::Look {
                at: ask,
                sign: Sign::Signal {
                    kind: Kind::Absence,
                    up: true,
                },
                of: ask,
                other,
            },
            Some(Role::Instance | Role::Service | Role::Outside) | None => {
                Probe::Ask { ask, other }
            }
        }
    }

    /// The look that a piece of evidence calls for, if it is one about the suspect itself.
    fn probe_by(&self, evidence: &Evidence, of: Component, other: Component) -> Option<Probe> {
        // The one deeper down is asked, past the other.
        let ask = || {
            let deeper = self.graph.reach(of.index())[other.index()];
            let (ask, other) = if deeper { (other, of) } else { (of, other) };
            self.ask(ask, other)
        };
        match evidence {
            Evidence::OwnExcess { .. } => Some(ask()),
            Evidence::Resource { .. } => Some(Probe::Resources { of, other }),
            Evidence::Mechanism { from, .. } => {
                let after = *from;
                Some(Probe::Log { of, other, after })
            }
            Evidence::Weighed(weighed) => {
                let (at, sign) = match &weighed.reason {
                    Reason::Shows { sign, .. } => (of, *sign),
                    Reason::Around {
                        whose: Whose::Held,
                        sign,
                        most,
                        ..
                    } => (most.0, *sign),
                    Reason::Unexplained { .. } => return Some(ask()),
                    Reason::Around { .. }
                    | Reason::Less { .. }
                    | Reason::Below { .. }
                    | Reason::Began { .. }
                    | Reason::Covers { .. }
                    | Reason::Alarmed => return None,
                };
                let handed = |kind| Kind::HANDED_UP.contains(&kind);
                match sign {
                    Sign::Signal { kind, .. } if handed(kind) => Some(ask()),
                    _ if at == other => None,
                    Sign::Signal { .. } | Sign::Lines { .. } => Some(Probe::Look {
                        at,
                        sign,
                        of,
                        other,
                    }),
                }
            }
            Evidence::NewCallee { .. } | Evidence::First { .. } | Evidence::Explains { .. } => None,
        }
    }
}
