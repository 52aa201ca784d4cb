//! What is known of faults from the training incidents: which traps come with which words.
//!
//! The grammar alone does not say that a word which means nothing by itself goes with a
//! trap. Whoever has seen the training set has seen it there, so belief begins with what its
//! faults are like: their couplings and the words beside them, for a mechanism at a kind of
//! place, whatever the name. Nothing comes from any other set.

use std::sync::OnceLock;

use super::guess::HARM;
use crate::fault::{Coupling, Fault, Incident, Mechanism, Place, Visibility};
use crate::observe::{Template, of_break, of_hold};

/// A fault as it was once.
#[derive(Debug)]
pub(super) struct Known {
    fault: Fault,
    /// What the other fault was that a coupling names, by coupling.
    others: Vec<Option<Mechanism>>,
    /// Words that are written because of its couplings, and its cues.
    words: Vec<Template>,
}

/// Faults of the training set that are bound to something, each kind once.
fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut all: Vec<Known> = Vec::new();
        for (name, text) in Incident::train() {
            // They are read by tests.
            let Ok(incident) = Incident::read(name, text) else {
                continue;
            };
            for fault in &incident.faults {
                if let Some(one) = Known::of(&incident, fault)
                    && !all.iter().any(|known| known.same(&one))
                {
                    all.push(one);
                }
            }
        }
        all
    })
}

impl Known {
    fn of(incident: &Incident, fault: &Fault) -> Option<Self> {
        let bound = fault.couplings.iter().filter(|one| travels(one));
        let couplings: Vec<Coupling> = bound.cloned().collect();
        let misleads = matches!(fault.visibility, Visibility::Misleading(_));
        if (couplings.is_empty() && !misleads)
            || fault.trigger.cause == crate::fault::Cause::Coupled
        {
            return None;
        }
        let named = |id: &str| incident.faults.iter().find(|other| other.id == id);
        let others = couplings.iter().map(|one| match one {
            Coupling::Returns { unless: id, .. } | Coupling::Hides { behind: id } => {
                named(id).map(|other| other.mechanism)
            }
            _ => None,
        });
        let others = others.collect();
        let mut words: Vec<Template> = couplings.iter().filter_map(word).collect();
        words.extend(fault.cues.iter().map(|cue| cue.template));
        words.sort_unstable();
        words.dedup();
        let mut fault = Fault {
            couplings,
            ..fault.clone()
        };
        for coupling in &mut fault.couplings {
            if let Coupling::Breaks { then, .. } = coupling {
                HARM.clone_into(then);
            }
        }
        // Who else writes it is another name in another place.
        fault.cues.iter_mut().for_each(|cue| cue.by = None);
        Some(Self {
            fault,
            others,
            words,
        })
    }

    fn same(&self, other: &Self) -> bool {
        let (one, two) = (&self.fault, &other.fault);
        one.mechanism == two.mechanism
            && one.locus.place == two.locus.place
            && one.visibility == two.visibility
            && self.words == other.words
            && self.others == other.others
            && steps(&one.couplings) == steps(&two.couplings)
    }

    fn mechanism(&self) -> (Mechanism, Place) {
        (self.fault.mechanism, self.fault.locus.place)
    }
}

/// Couplings that name no place.
fn travels(coupling: &Coupling) -> bool {
    !matches!(coupling, Coupling::MovesLoad { .. })
}

/// What of couplings makes a difference to a plan.
fn steps(couplings: &[Coupling]) -> Vec<String> {
    let bare = couplings.iter().map(|one| match one {
        Coupling::Holds { step, .. } => format!("holds {step}"),
        Coupling::Breaks { on, unless, .. } => format!("breaks {on} {unless:?}"),
        Coupling::Heals { unless, .. } => format!("heals {unless}"),
        Coupling::ReInfects
        | Coupling::Returns { .. }
        | Coupling::Hides { .. }
        | Coupling::MovesLoad { .. } => one.kind().to_owned(),
    });
    bare.collect()
}

/// What gives a coupling away.
fn word(coupling: &Coupling) -> Option<Template> {
    match coupling {
        Coupling::Breaks { on, .. } => Some(of_break(*on)),
        Coupling::Holds { step, .. } => Some(of_hold(*step)),
        Coupling::Heals { .. } => Some(Template::FixPending),
        Coupling::MovesLoad { .. } => Some(Template::ReserveLow),
        Coupling::ReInfects | Coupling::Returns { .. } | Coupling::Hides { .. } => None,
    }
}

/// A fault of an incident as those like it were, where that goes with what is written.
pub(super) fn as_known(incident: &Incident, at: usize, written: &[Template]) -> Vec<Fault> {
    let Some(fault) = incident.faults.get(at) else {
        return Vec::new();
    };
    let like = |one: &&Known| {
        one.mechanism() == (fault.mechanism, fault.locus.place)
            && one.words.iter().all(|word| written.contains(word))
    };
    let mut all = Vec::new();
    for known in known().iter().filter(like) {
        let mut couplings = known.fault.couplings.clone();
        let named = couplings.iter_mut().zip(&known.others);
        let mut fits = true;
        for (coupling, mechanism) in named {
            let (Coupling::Returns { unless: id, .. } | Coupling::Hides { behind: id }) = coupling
            else {
                continue;
            };
            let mut others = incident.faults.iter().enumerate();
            let other =
                others.find(|(place, other)| *place != at && Some(other.mechanism) == *mechanism);
            match other {
                Some((_, other)) => other.id.clone_into(id),
                None => fits = false,
            }
        }
        let one = Fault {
            couplings,
            cues: known.fault.cues.clone(),
            visibility: match known.fault.visibility {
                Visibility::Misleading(_) => known.fault.visibility.clone(),
                _ => fault.visibility.clone(),
            },
            ..fault.clone()
        };
        if fits && one != *fault {
            all.push(one);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_the_words_is_proposed_with_the_names_at_hand() {
        // Trained on: the same clock, before or after, told apart by a notice alone.
        let text = r#"
name = "x"
about = ""
topology = "reference"
[[fault]]
id = "root-0"
mechanism = "skew"
locus = "node edge-2"
"#;
        let incident = Incident::read("x", text).unwrap();
        let both = [Template::AttemptsLeft, Template::CertificateNotice];
        let known = as_known(&incident, 0, &both);
        let holds = |fault: &Fault| fault.couplings.iter().any(|one| one.kind() == "holds");
        let breaks = |fault: &Fault| fault.couplings.iter().any(|one| one.kind() == "breaks");
        assert!(known.iter().any(|one| holds(one) && one.cues.is_empty()));
        assert!(known.iter().any(|one| breaks(one) && !one.cues.is_empty()));
        assert!(known.iter().all(|one| one.locus.name == "edge-2"));
        assert!(as_known(&incident, 0, &[]).is_empty());
    }
}
