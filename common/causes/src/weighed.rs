//! Which of what was weighed counts most for a suspect.
//!
//! In: what speaks for all components ([`Weighing`]) and the weights. Out: for one suspect the
//! few groups of features (the same kind of signal, at the same neighbours) by which its log odds
//! are furthest above those of the others of its role, as [`Weighed`] reasons. Sums of a group
//! are told, not single features: weights of features that go together mean nothing alone.

use alloc::{vec, vec::Vec};

use crate::diagnose::place;
use crate::events::more_lines;
use crate::frame::Frame;
use crate::graph::{Graph, Role};
use crate::reason::{Below, Far, Others, Reason, Series, Sign, Weighed, Whose};
use crate::signals::{Kind, Signals};
use crate::signs::{CODES, Moved, SAID};
use crate::topic::{TOPICS, Topic};
use crate::weigh::{
    FEATURES, Near, PLAIN, Plain, RELATIONS, Relation, WEIGHTS, Weighable, Weighing,
};

/// Reasons of one suspect: with one more of another kind they are as many as a record holds.
pub(crate) const TOLD_MAX: usize = 3;

/// What counts less than this part of what counts most did not decide, and is not told.
const COUNTS: f32 = 0.25;

/// Whose something is: the suspect itself, and each of [`Whose`].
const WHOSE: usize = 5;
/// Of which kind something is, and lines.
const KINDS: usize = Kind::COUNT + 1;
/// What is said once has groups of its own behind those.
const ONCE: usize = WHOSE * KINDS;
const GROUPS: usize = ONCE + PLAIN;

/// What one group of features counts.
#[derive(Clone, Copy, Default)]
struct Group {
    odds: f32,
    /// What counts most in it, and where that stands among the features of a role.
    most: f32,
    at: usize,
}

impl Group {
    fn add(&mut self, at: usize, odds: f32) {
        self.odds += odds;
        if odds > self.most {
            (self.most, self.at) = (odds, at);
        }
    }
}

/// What all components of a role are like.
struct Peers {
    /// Sum of each feature.
    sums: Vec<f32>,
    /// How many components there are, and how many of them were weighed.
    all: usize,
    weighed: usize,
}

/// Tells reasons of one suspect after the other.
pub(crate) struct Reasons<'a> {
    graph: &'a Graph,
    signals: &'a Signals,
    frame: &'a Frame,
    weighing: &'a Weighing,
    /// By role.
    peers: Vec<Peers>,
}

impl<'a> Reasons<'a> {
    pub(crate) fn of(
        graph: &'a Graph,
        signals: &'a Signals,
        frame: &'a Frame,
        weighing: &'a Weighing,
    ) -> Self {
        let none = || Peers {
            sums: vec![0.0; FEATURES],
            all: 0,
            weighed: 0,
        };
        let mut peers: Vec<Peers> = (0..Role::COUNT).map(|_| none()).collect();
        for of in 0..graph.len() {
            if let Some(role) = graph.role_of(of).filter(|_| !graph.is_proxy(of)) {
                peers[role as usize].all += 1;
            }
        }
        for one in &weighing.all {
            let role = graph.role_of(one.component.index());
            let Some(peers) = role.map(|role| &mut peers[role as usize]) else {
                continue;
            };
            peers.weighed += 1;
            for (place, value) in &one.features {
                peers.sums[usize::from(*place) % FEATURES] += value;
            }
        }
        Self {
            graph,
            signals,
            frame,
            weighing,
            peers,
        }
    }

    /// What counts most for one, at most [`TOLD_MAX`] reasons, the strongest first; none where
    /// nothing was weighed.
    pub(crate) fn told(&self, of: usize) -> Vec<Weighed> {
        let Some((role, own)) = self.graph.role_of(of).zip(self.values(of)) else {
            return Vec::new();
        };
        let mut groups = self.groups(of, role, &own);
        groups.retain(|group| group.most > 0.0 && group.odds > 0.0 && group.odds.is_finite());
        groups.sort_by(|a, b| b.odds.total_cmp(&a.odds).then(a.at.cmp(&b.at)));
        let least = groups.first().map_or(0.0, |most| most.odds * COUNTS);
        groups
            .into_iter()
            .filter(|group| group.odds >= least)
            .filter_map(|group| {
                Some(Weighed {
                    odds: group.odds,
                    role,
                    reason: self.reason(of, role, group.at, own[group.at])?,
                })
            })
            .take(TOLD_MAX)
            .collect()
    }

    fn weighable(&self, of: usize) -> Option<&Weighable> {
        let all = &self.weighing.all;
        let found = all.binary_search_by_key(&place(of), |one| one.component);
        all.get(found.ok()?)
    }

    /// The features of one, by their places among those of its role.
    fn values(&self, of: usize) -> Option<Vec<f32>> {
        let mut values = vec![0.0; FEATURES];
        for (place, value) in &self.weighable(of)?.features {
            values[usize::from(*place) % FEATURES] = *value;
        }
        Some(values)
    }

    /// One of them.
    fn value(&self, of: usize, at: usize) -> f32 {
        let is = |feature: &&(u16, f32)| usize::from(feature.0) % FEATURES == at;
        let found = self
            .weighable(of)
            .and_then(|one| one.features.iter().find(is));
        found.map_or(0.0, |(_, value)| *value)
    }

    /// By how much each group of features counts more for it than for the others of its role.
    fn groups(&self, of: usize, role: Role, own: &[f32]) -> Vec<Group> {
        let peers = &self.peers[role as usize];
        let weights = &WEIGHTS[role as usize * FEATURES..][..FEATURES];
        let mut groups = [Group::default(); GROUPS];
        let loudest = loudest(&self.weighing.signs.moved[of]);
        for (at, ((value, weight), sum)) in own.iter().zip(weights).zip(&peers.sums).enumerate() {
            // At those that were not weighed nothing moved; of what is said once they know
            // nothing.
            let others = match at.checked_sub(RELATIONS * CODES) {
                None => peers.all,
                Some(_) => peers.weighed,
            };
            let mean = (sum - value) / others.saturating_sub(1).max(1) as f32;
            let odds = weight * (value - mean);
            if let Some(said) = at.checked_sub(RELATIONS * CODES) {
                match Plain::ALL[said] {
                    // It is the same for all.
                    Plain::Bias => {}
                    // Whatever is the strongest.
                    Plain::Strongest => {
                        if let Some(code) = loudest {
                            groups[kind_at(code)].add(code, odds);
                        }
                    }
                    Plain::Late | Plain::First => {
                        groups[ONCE + Plain::First as usize].add(at, odds);
                    }
                    Plain::Below | Plain::Explained => {
                        groups[ONCE + Plain::Below as usize].add(at, odds);
                    }
                    Plain::Covers | Plain::Reached | Plain::Share => {
                        groups[ONCE + said].add(at, odds);
                    }
                }
            } else {
                let whose = whose(Relation::ALL[at / CODES]).map_or(0, |whose| 1 + whose as usize);
                groups[whose * KINDS + kind_at(at % CODES)].add(at, odds);
            }
        }
        groups.to_vec()
    }

    /// What was seen where a feature stands; `None` where that says nothing to a person.
    fn reason(&self, of: usize, role: Role, at: usize, value: f32) -> Option<Reason> {
        let speaks = WEIGHTS[role as usize * FEATURES + at] > 0.0;
        let Some(said) = at.checked_sub(RELATIONS * CODES) else {
            return self.moved(of, role, at, speaks);
        };
        match Plain::ALL[said] {
            Plain::Bias | Plain::Strongest => None,
            Plain::First | Plain::Late => {
                let since = &self.weighing.signs.since;
                let first = since.iter().flatten().min()?;
                let begins = |row: usize| self.frame.begins(row);
                let after = begins(since[of]?)?.checked_sub(begins(*first)?)?;
                Some(Reason::Began { after })
            }
            Plain::Below | Plain::Explained => {
                let near = &self.weighing.near[of];
                let moved = &self.weighing.signs.moved;
                let far = |of: &usize| loudest(&moved[*of]).map_or(0.0, |code| moved[*of][code]);
                let below = near.ground.iter().chain(&near.called);
                let below = below.map(far).reduce(f32::max)?;
                let seen = match below {
                    below if speaks && below > 0.0 => Below::Trouble,
                    0.0 => Below::Nothing,
                    below if below < far(&of) => Below::Less,
                    _ => return None,
                };
                Some(Reason::Below { seen })
            }
            // That it is nobody's need, or explains itself, is no reason to a person.
            _ if !speaks => None,
            Plain::Covers => Some(Reason::Covers { share: value }),
            Plain::Reached => Some(Reason::Alarmed),
            Plain::Share => Some(Reason::Unexplained { share: value }),
        }
    }

    /// The same of what moved, or did not; `speaks`: that more of it is worse.
    fn moved(&self, of: usize, role: Role, at: usize, speaks: bool) -> Option<Reason> {
        let (relation, code) = (Relation::ALL[at / CODES], at % CODES);
        let (moved, near) = (&self.weighing.signs.moved, &self.weighing.near);
        let shows = |of: &usize| moved[*of][code] > 0.0;
        let like = |of: &usize| {
            let role = self.graph.role_of(*of) == Some(role) && !self.graph.is_proxy(*of);
            role && moved.get(*of).is_some()
        };
        let peers: Vec<usize> = (0..self.graph.len())
            .filter(like)
            .filter(|other| *other != of)
            .collect();
        let among = |all: &[usize], hit: &dyn Fn(&usize) -> bool, beside| Others {
            show: all.iter().filter(|of| hit(of)).count(),
            of: all.len(),
            beside,
        };
        // These are small where others show the same.
        let alone = match relation {
            Relation::Rare | Relation::Alone | Relation::HeldAlone | Relation::CallersAlone => true,
            Relation::Own
            | Relation::Held
            | Relation::OneHeld
            | Relation::Ground
            | Relation::Called
            | Relation::Callers
            | Relation::CallersMean => false,
        };
        let around = whose(relation).map(|whose| (whose, of_near(&near[of], whose)));
        let seen = match around {
            None => shows(&of),
            Some((_, [])) => return None,
            Some((_, all)) => all.iter().any(shows),
        };
        if !seen || !(speaks || alone) {
            let own = self.value(of, at);
            let more = |other: &usize| self.value(*other, at) > own;
            return Some(Reason::Less {
                whose: around.map(|(whose, _)| whose),
                sign: sign_of(code, None),
                still: !seen,
                others: among(&peers, &more, false),
            });
        }
        let Some((whose, all)) = around else {
            let beside = matches!(relation, Relation::Alone) && !near[of].like.is_empty();
            let others = if beside { &near[of].like } else { &peers };
            let (far, series) = self.far(of, code)?;
            return Some(Reason::Shows {
                sign: sign_of(code, Some(&moved[of])),
                far,
                series,
                others: among(others, &shows, beside),
            });
        };
        let most = all
            .iter()
            .copied()
            .max_by(|a, b| moved[*a][code].total_cmp(&moved[*b][code]))?;
        let so = |other: &usize| of_near(&near[*other], whose).iter().any(shows);
        Some(Reason::Around {
            whose,
            sign: sign_of(code, Some(&moved[most])),
            at: (all.iter().filter(|of| shows(of)).count(), all.len()),
            most: (place(most), self.far(most, code)?.0),
            others: among(&peers, &so, false),
        })
    }

    /// How far something moved at one, and which series did with its usual value and the present
    /// one.
    fn far(&self, of: usize, code: usize) -> Option<(Far, Option<Series>)> {
        let signs = &self.weighing.signs;
        if code >= SAID {
            return Some((Far::Lines(more_lines(signs.moved[of][code])), None));
        }
        let moves = signs.moves.iter();
        let moves = moves.filter(|one| one.component == of && one.code == code);
        let most = moves.max_by(|a, b| a.far.total_cmp(&b.far))?;
        let name = self.signals.series.get(most.series)?.name.clone();
        Some((Far::Spreads(most.far), Some((name, most.usual, most.now))))
    }
}

/// What moved most.
fn loudest(moved: &Moved) -> Option<usize> {
    let some = (0..CODES).filter(|code| moved[*code] > 0.0);
    some.max_by(|a, b| moved[*a].total_cmp(&moved[*b]))
}

fn kind_at(code: usize) -> usize {
    code.min(SAID) / 2
}

/// What a code stands for, given all that moved where it does.
fn sign_of(code: usize, moved: Option<&Moved>) -> Sign {
    let Some(topic) = code.checked_sub(SAID) else {
        return Sign::Signal {
            kind: Kind::ALL[code / 2],
            up: code % 2 == 1,
        };
    };
    // Topics of one line have one strength.
    let same = |other: &usize| {
        let strength = |topic: usize| moved.map(|moved| moved[SAID + topic].to_bits());
        *other != topic && moved.is_some() && strength(*other) == strength(topic)
    };
    let mut also = (0..TOPICS).filter(same).map(|other| Topic::ALL[other]);
    Sign::Lines {
        topic: Topic::ALL[topic],
        also: [also.next(), also.next()],
    }
}

/// Who is meant by a relation; `None`: the component itself.
fn whose(relation: Relation) -> Option<Whose> {
    match relation {
        Relation::Own | Relation::Rare | Relation::Alone => None,
        Relation::Held | Relation::OneHeld | Relation::HeldAlone => Some(Whose::Held),
        Relation::Ground => Some(Whose::Ground),
        Relation::Called => Some(Whose::Called),
        Relation::Callers | Relation::CallersMean | Relation::CallersAlone => Some(Whose::Callers),
    }
}

fn of_near(near: &Near, whose: Whose) -> &[usize] {
    match whose {
        Whose::Held => &near.holds,
        Whose::Ground => &near.ground,
        Whose::Called => &near.called,
        Whose::Callers => &near.callers,
    }
}
