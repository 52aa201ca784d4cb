//! What speaks for each part: numbers about the part itself, those like it, those it holds,
//! those it needs and those that need it.
//!
//! A feature is a few words ("replica alone latency_p95 up") hashed to a place, so that
//! neither names of things nor the size of a fleet matter. Log lines speak by their words:
//! what is known of "credential" in one template holds for the next.
#![allow(clippy::cast_possible_truncation)] // shares, and numbers of parts and templates

use super::parts::{Kind, Parts};
use super::signs::Signs;
use super::watch::{Gauge, Telemetry};

/// Places that features are hashed to (a power of two): a few thousand are in use, so that
/// one in thirty shares its place.
pub const PLACES: usize = 1 << 17;

/// Of one part.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub part: usize,
    /// Place and value, each place once.
    pub features: Vec<(u32, f32)>,
}

/// What parts are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// The part itself.
    Own,
    /// The part, as far as those like it beside it do not show the same.
    Alone,
    /// The part, as far as no other of its kind shows the same.
    Rare,
    /// On average over what it holds: the replicas of a service or a node, nodes of a site.
    Held,
    /// The strongest of these.
    OneHeld,
    /// What it stands on: the node of a replica, the uplink of a node.
    Ground,
    /// Those it calls.
    Called,
    /// Those that call it.
    Callers,
}

impl Relation {
    const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Alone => "alone",
            Self::Rare => "rare",
            Self::Held => "held",
            Self::OneHeld => "one-held",
            Self::Ground => "ground",
            Self::Called => "called",
            Self::Callers => "callers",
        }
    }
}

/// What moved at a part, as pairs of a code and a strength, sorted by code.
type Moved = Vec<(u32, f32)>;

/// Evidence for every part for which there is any.
#[must_use]
pub fn gather(told: &Telemetry, parts: &Parts, signs: &Signs) -> Vec<Evidence> {
    let words = words(told);
    let moved: Vec<Moved> = (0..parts.len())
        .map(|part| codes(part, signs, &words))
        .collect();
    // How many of each kind show the same.
    let mut by_kind = std::collections::BTreeMap::<(Kind, u32), f32>::new();
    let mut of_kind = std::collections::BTreeMap::<Kind, f32>::new();
    for (part, moved) in moved.iter().enumerate() {
        *of_kind.entry(parts.kind(part)).or_default() += 1.0;
        for (code, strength) in moved {
            *by_kind.entry((parts.kind(part), *code)).or_default() += strength;
        }
    }
    let far: Vec<f64> = (0..parts.len()).map(|part| signs.strongest(part)).collect();
    let loud: Vec<usize> = (0..parts.len()).filter(|part| far[*part] > LOUD).collect();
    let first = (0..parts.len()).filter_map(|part| signs.since(part)).min();
    let mut all = Vec::new();
    for part in 0..parts.len() {
        let kind = parts.kind(part);
        let around = Around::of(part, parts);
        let mut to = Features::new(kind);
        let own = &moved[part];
        to.add(Relation::Own, own);
        let mut rare = own.clone();
        for (code, strength) in &mut rare {
            let others = by_kind.get(&(kind, *code)).copied().unwrap_or(0.0) - *strength;
            *strength *= 1.0 / (1.0 + others);
        }
        to.add(Relation::Rare, &rare);
        let like = mean(&around.like, &moved);
        let mut alone = own.clone();
        for (code, strength) in &mut alone {
            *strength *= 1.0 - at(&like, *code);
        }
        to.add(Relation::Alone, &alone);
        to.add(Relation::Held, &mean(&around.holds, &moved));
        to.add(Relation::OneHeld, &most(&around.holds, &moved));
        to.add(Relation::Ground, &most(&around.ground, &moved));
        to.add(Relation::Called, &most(&around.called, &moved));
        to.add(Relation::Callers, &most(&around.callers, &moved));
        if to.is_empty() {
            continue;
        }
        let since = signs.since(part).zip(first).map(|(own, first)| own - first);
        if let Some(late) = since {
            to.plain("late", (late as f32 / 2.0).min(4.0));
            to.plain("first", f32::from(u8::from(late == 0)));
        }
        to.plain("strongest", far[part] as f32);
        let below = around.needs_loudest(&far);
        to.plain("below", below as f32);
        to.plain("explained", (below.min(far[part])) as f32);
        let covered = reach(part, parts);
        let covers = loud.iter().filter(|other| covered[**other]).count();
        to.plain("covers", covers as f32 / loud.len().max(1) as f32);
        to.plain("bias", 1.0);
        all.push(Evidence {
            part,
            features: to.done(),
        });
    }
    all
}

/// From this strength on a part is one that something has to explain.
const LOUD: f64 = 0.4;

/// The words of each template, without its variable parts.
fn words(told: &Telemetry) -> Vec<Vec<u32>> {
    let words = |text: &str| {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "<>-".contains(c)));
        let mut codes: Vec<u32> = words
            .filter(|word| word.len() > 1 && !word.starts_with('<'))
            .map(|word| fnv(&["word ", word]))
            .collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    };
    told.templates.iter().map(|(text, _)| words(text)).collect()
}

fn codes(part: usize, signs: &Signs, words: &[Vec<u32>]) -> Moved {
    let mut moved = Moved::new();
    for sign in &signs.signs[part] {
        let way = if sign.up { " up" } else { " down" };
        moved.push((fnv(&[&gauge(sign.gauge), way]), sign.strength as f32));
    }
    for said in &signs.said[part] {
        for word in &words[said.template] {
            moved.push((*word, said.strength as f32));
        }
    }
    strongest(moved)
}

fn gauge(gauge: Gauge) -> String {
    match gauge {
        Gauge::Metric(metric) => metric.name().to_owned(),
        other => format!("{other:?}"),
    }
}

/// Each code once, at its strongest.
fn strongest(mut moved: Moved) -> Moved {
    moved.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    moved.dedup_by_key(|(code, _)| *code);
    moved
}

fn most(of: &[usize], moved: &[Moved]) -> Moved {
    strongest(
        of.iter()
            .flat_map(|part| moved[*part].iter().copied())
            .collect(),
    )
}

fn mean(of: &[usize], moved: &[Moved]) -> Moved {
    let mut all: Moved = of
        .iter()
        .flat_map(|part| moved[*part].iter().copied())
        .collect();
    all.sort_unstable_by_key(|(code, _)| *code);
    let mut means = Moved::new();
    for (code, strength) in all {
        match means.last_mut() {
            Some((last, sum)) if *last == code => *sum += strength,
            _ => means.push((code, strength)),
        }
    }
    means
        .iter_mut()
        .for_each(|(_, sum)| *sum /= of.len() as f32);
    means
}

fn at(moved: &Moved, code: u32) -> f32 {
    let place = moved.binary_search_by_key(&code, |(code, _)| *code);
    place.map_or(0.0, |place| moved[place].1)
}

/// Who is what to a part.
#[derive(Debug, Default)]
struct Around {
    like: Vec<usize>,
    holds: Vec<usize>,
    ground: Vec<usize>,
    called: Vec<usize>,
    callers: Vec<usize>,
}

impl Around {
    fn of(part: usize, parts: &Parts) -> Self {
        let kind = parts.kind(part);
        let is =
            |kinds: &'static [Kind]| move |other: &&usize| kinds.contains(&parts.kind(**other));
        let pick = |from: &[usize], kinds: &'static [Kind]| -> Vec<usize> {
            from.iter().filter(is(kinds)).copied().collect()
        };
        const ROUTES: &[Kind] = &[Kind::Service, Kind::Outside];
        let (needs, serves) = (parts.needs(part), parts.serves(part));
        let mut around = Self::default();
        match kind {
            Kind::Replica => {
                let services = pick(serves, &[Kind::Service]);
                for service in services {
                    around
                        .like
                        .extend(pick(parts.needs(service), &[Kind::Replica]));
                    around
                        .callers
                        .extend(pick(parts.serves(service), &[Kind::Replica]));
                }
                around.ground = pick(needs, &[Kind::Node]);
                around.called = pick(needs, ROUTES);
            }
            Kind::Service | Kind::Outside => {
                around.holds = pick(needs, &[Kind::Replica]);
                around.callers = pick(serves, &[Kind::Replica]);
                let caller = |replica: &usize| pick(parts.serves(*replica), &[Kind::Service]);
                let callers: Vec<usize> = around.callers.iter().flat_map(caller).collect();
                around.callers.extend(callers);
                for replica in around.holds.clone() {
                    around
                        .ground
                        .extend(pick(parts.needs(replica), &[Kind::Node]));
                    around.called.extend(pick(parts.needs(replica), ROUTES));
                }
            }
            Kind::Node => {
                around.holds = pick(serves, &[Kind::Replica]);
                around.ground = pick(needs, &[Kind::Uplink, Kind::Site]);
                for site in pick(needs, &[Kind::Site]) {
                    around.like.extend(pick(parts.serves(site), &[Kind::Node]));
                }
                for replica in around.holds.clone() {
                    around.called.extend(pick(parts.needs(replica), ROUTES));
                    around
                        .callers
                        .extend(pick(parts.serves(replica), &[Kind::Service]));
                }
            }
            Kind::Uplink => {
                around.holds = pick(serves, &[Kind::Node]);
                for node in around.holds.clone() {
                    around
                        .callers
                        .extend(pick(parts.serves(node), &[Kind::Replica]));
                    around.like.extend(pick(parts.needs(node), &[Kind::Uplink]));
                    for site in pick(parts.needs(node), &[Kind::Site]) {
                        for mate in pick(parts.serves(site), &[Kind::Node]) {
                            around.like.extend(pick(parts.needs(mate), &[Kind::Uplink]));
                        }
                    }
                }
            }
            Kind::Site => {
                around.holds = pick(serves, &[Kind::Node]);
                for node in around.holds.clone() {
                    around
                        .ground
                        .extend(pick(parts.needs(node), &[Kind::Uplink]));
                    around
                        .callers
                        .extend(pick(parts.serves(node), &[Kind::Replica]));
                }
            }
        }
        around.like.retain(|other| *other != part);
        for list in [
            &mut around.like,
            &mut around.holds,
            &mut around.ground,
            &mut around.called,
            &mut around.callers,
        ] {
            list.sort_unstable();
            list.dedup();
        }
        around
    }

    fn needs_loudest(&self, far: &[f64]) -> f64 {
        let below = self.ground.iter().chain(&self.called);
        below.map(|part| far[*part]).fold(0.0, f64::max)
    }
}

/// Whether each part depends on one, however far up.
fn reach(part: usize, parts: &Parts) -> Vec<bool> {
    let mut seen = vec![false; parts.len()];
    let mut open = vec![part];
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut seen[at], true) {
            open.extend(parts.serves(at));
        }
    }
    seen
}

struct Features {
    kind: Kind,
    all: Vec<(u32, f32)>,
}

impl Features {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            all: Vec::new(),
        }
    }

    fn add(&mut self, relation: Relation, moved: &Moved) {
        let seed = fnv(&[self.kind.name(), " ", relation.name()]);
        for (code, strength) in moved {
            let place = mix(seed, *code);
            self.all.push((place, *strength));
        }
    }

    fn plain(&mut self, name: &str, value: f32) {
        self.all
            .push((mix(fnv(&[self.kind.name()]), fnv(&[name])), value));
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn done(mut self) -> Vec<(u32, f32)> {
        self.all.sort_unstable_by_key(|(place, _)| *place);
        let mut all: Vec<(u32, f32)> = Vec::with_capacity(self.all.len());
        for (place, value) in self.all {
            match all.last_mut() {
                Some((last, sum)) if *last == place => *sum += value,
                _ => all.push((place, value)),
            }
        }
        all
    }
}

/// FNV-1a.
fn fnv(text: &[&str]) -> u32 {
    let bytes = text.iter().flat_map(|text| text.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn mix(a: u32, b: u32) -> u32 {
    let mixed = (a ^ b.rotate_left(16)).wrapping_mul(0x9e37_79b1);
    (mixed ^ (mixed >> 15)) & (PLACES as u32 - 1)
}
