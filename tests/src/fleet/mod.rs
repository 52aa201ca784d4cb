//! A simulated fleet under one saga: an initiator and three nodes with their disks,
//! what they own, and the network between them, in one thread and seeded.
//!
//! In: a seed, which also says which steps fail, and [`Trouble`]. Out: what it came to
//! ([`Verdict`]). The state machines are the real ones (`homeostat_common::saga`); what
//! they ask for is carried out with the delays and losses of life. Promises are
//! checked all the time, and a broken one fails the run and prints its story: no effect
//! happens twice under one name, none begins before its intent is on the disk, no order
//! acts that is not above the highest fence on the disk, there is never more than one
//! live instance in a slot, and 60 s after the beginning all is done, all is undone, or
//! a person was called, unless the initiator and a node are both dead by then: nobody is
//! left who knows. It knows nothing of how a node carries out a primitive.

mod initiator;
mod node;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use homeostat_common::ids::NodeId;
use homeostat_common::saga::{Answer, Order};
use homeostat_common::units::{Micros, Millis};

use crate::entry::Entry;

use initiator::Office;
use node::Node;

/// Takes a replica of one node out, starts one on another, moves traffic on a third.
pub const PLAN: &str = "edge-1: isolate(infer, infer-1, drain=1s) ; \
    (edge-2: scale-out(infer, infer-3) | edge-3: reroute(infer, from=near, to=far, share=50%))";

/// By then all is done, all is undone, or a person was called.
const DUE: Micros = Micros(60_000_000);

/// The run ends here: what was reached has to last.
const END: Micros = Micros(90_000_000);

/// More events than any run can have; a machine that spins is found out.
const EVENTS_MAX: u32 = 20_000;

/// Who can be killed: the initiator, or a node by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The initiator.
    Initiator,
    /// The agent of a node.
    Node(usize),
}

impl Actor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Initiator, Self::Node(0), Self::Node(1), Self::Node(2)];

    fn place(self) -> usize {
        match self {
            Self::Initiator => 0,
            Self::Node(place) => place + 1,
        }
    }
}

/// What becomes of the n-th message of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives, and again after this.
    Twice(Millis),
    /// It arrives so much later.
    Late(Millis),
    /// Its sender dies right after it.
    SenderDies,
    /// Its receiver dies before it has read it.
    ReceiverDies,
}

/// What goes wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody dies at the n-th write of its journal; `None`: for ever.
    Dies(Actor, u32, Option<Millis>),
    /// Something becomes of the n-th message; whoever dies by it comes back after this.
    Message(u32, Fate, Option<Millis>),
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every step took effect.
    Done,
    /// None is in effect.
    Undone,
    /// Something in between.
    Mixed,
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What was in effect at the end.
    pub end: End,
    /// Whether a person was called.
    pub flagged: bool,
    /// Journal writes of each actor, in the order of [`Actor::ALL`].
    pub writes: [u32; 4],
    /// Messages that were sent.
    pub messages: u32,
    /// How often somebody died.
    pub deaths: u32,
}

#[derive(Debug, Clone)]
enum Letter {
    Order(usize, Order),
    Answer(usize, Answer),
}

#[derive(Debug, Clone)]
enum Happening {
    Delivered(Box<Letter>),
    Dies(Actor, Option<Millis>),
    /// For this life of the actor: its disk has taken all up to here.
    Synced(Actor, u32, usize),
    /// An owner of resources carries out what a node's agent asked for.
    Effect(usize, u32, u8, bool),
    Back(Actor),
}

/// What the actors share: time, chance, the network, and the story.
#[derive(Debug, Clone)]
struct Air {
    now: Micros,
    rng: fastrand::Rng,
    queue: BinaryHeap<Reverse<Entry<Happening>>>,
    order: u64,
    troubles: Vec<Trouble>,
    /// Share of messages that are lost, that come twice, and that come late.
    noise: f64,
    messages: u32,
    writes: [u32; 4],
    /// Who has to die now, and for how long.
    dying: Vec<(Actor, Option<Millis>)>,
    deaths: u32,
    flags: Vec<String>,
    broken: Vec<String>,
    /// Only of a run that is known to break a promise: telling takes most of the time.
    story: Option<Vec<String>>,
}

impl Air {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{} {}", self.now, what()));
        }
    }

    fn broke(&mut self, what: String) {
        self.tell(|| format!("BROKEN {what}"));
        self.broken.push(what);
    }

    fn push(&mut self, after_us: u64, what: Happening) {
        self.order += 1;
        let at = Micros(self.now.0 + after_us);
        let order = self.order;
        self.queue.push(Reverse(Entry { at, order, what }));
    }

    fn flag(&mut self, who: &str, why: &str) {
        self.tell(|| format!("{who} calls a person: {why}"));
        self.flags.push(why.to_owned());
    }

    /// Puts a letter on its way.
    fn send(&mut self, from: Actor, to: Actor, letter: Letter) {
        self.messages += 1;
        let number = self.messages;
        let fate = self.troubles.iter().find_map(|trouble| match trouble {
            Trouble::Message(at, fate, back) if *at == number => Some((*fate, *back)),
            _ => None,
        });
        self.tell(|| format!("#{number} {letter:?} {:?}", fate.map(|(fate, _)| fate)));
        let usual = self.rng.u64(1_000..20_000);
        let noisy = self.noise > 0.0 && fate.is_none();
        if noisy && self.rng.f64() < self.noise {
            return;
        }
        if noisy && self.rng.f64() < self.noise {
            let again = self.rng.u64(0..12_000_000);
            self.push(
                usual + again,
                Happening::Delivered(Box::new(letter.clone())),
            );
        }
        let late = noisy && self.rng.f64() < self.noise;
        let usual = usual + if late { self.rng.u64(0..12_000_000) } else { 0 };
        match fate.map(|(fate, _)| fate) {
            Some(Fate::Lost) => return,
            Some(Fate::Twice(after)) => {
                let again = usual + after.0 * 1000;
                self.push(again, Happening::Delivered(Box::new(letter.clone())));
            }
            Some(Fate::Late(by)) => {
                return self.push(usual + by.0 * 1000, Happening::Delivered(Box::new(letter)));
            }
            Some(Fate::SenderDies) => {
                let back = fate.and_then(|(_, back)| back);
                self.dying.push((from, back));
            }
            Some(Fate::ReceiverDies) => {
                let back = fate.and_then(|(_, back)| back);
                return self.push(usual, Happening::Dies(to, back));
            }
            None => {}
        }
        self.push(usual, Happening::Delivered(Box::new(letter)));
    }

    /// Counts a write; whoever is meant to die of it stops there.
    fn wrote(&mut self, actor: Actor) -> bool {
        let count = self.writes.get_mut(actor.place()).map_or(0, |count| {
            *count += 1;
            *count
        });
        let back = self.troubles.iter().find_map(|trouble| match trouble {
            Trouble::Dies(who, at, back) if *who == actor && *at == count => Some(*back),
            _ => None,
        });
        if let Some(back) = back {
            self.dying.push((actor, back));
        }
        back.is_some()
    }

    /// How long a sync takes.
    fn sync_us(&mut self) -> u64 {
        self.rng.u64(200..4_000)
    }
}

/// The fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    seed: u64,
    air: Air,
    office: Office,
    nodes: Vec<Node>,
}

impl Fleet {
    /// A fleet that begins [`PLAN`] at once; the seed says which steps fail.
    ///
    /// # Panics
    /// Never: the plan is well formed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan: homeostat_common::saga::FleetPlan =
            PLAN.parse().unwrap_or_else(|error| panic!("{error}"));
        let names: Vec<NodeId> = plan.nodes().into_iter().collect();
        let mut nodes: Vec<Node> = names
            .iter()
            .enumerate()
            .map(|(place, name)| Node::new(place, name.clone(), rng.u64(5_000..800_000)))
            .collect();
        // Of ten seeds five go well by themselves.
        match seed % 10 {
            1 => nodes[2].fails = true,
            2 => nodes[1].fails = true,
            3 => nodes[2].refuses = true,
            4 => nodes[0].fails = true,
            5 => {
                nodes[2].fails = true;
                nodes[0].undo_fails = true;
            }
            _ => {}
        }
        Self {
            seed,
            air: Air {
                now: Micros(1_000_000),
                rng,
                queue: BinaryHeap::new(),
                order: 0,
                troubles: Vec::new(),
                noise: 0.0,
                messages: 0,
                writes: [0; 4],
                dying: Vec::new(),
                deaths: 0,
                flags: Vec::new(),
                broken: Vec::new(),
                story: None,
            },
            office: Office::new(plan, names),
            nodes,
        }
    }

    /// Something goes wrong.
    #[must_use]
    pub fn with(mut self, trouble: Trouble) -> Self {
        self.air.troubles.push(trouble);
        self
    }

    /// This share of messages is lost, another comes twice, another late.
    #[must_use]
    pub fn noisy(mut self, share: f64) -> Self {
        self.air.noise = share;
        self
    }

    /// Whether the plan fails by itself with this seed.
    #[must_use]
    pub fn fails(seed: u64) -> bool {
        (1..=5).contains(&(seed % 10))
    }

    /// Whether it can be neither finished nor taken back with this seed.
    #[must_use]
    pub fn sticks(seed: u64) -> bool {
        seed % 10 == 5
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When a promise is broken; the seed and the story are in the message.
    #[must_use]
    pub fn run(self) -> Verdict {
        let mut again = self.clone();
        let (verdict, air) = self.live();
        if !air.broken.is_empty() {
            again.air.story = Some(Vec::new());
            let seed = again.seed;
            let (_, air) = again.live();
            let story = air.story.unwrap_or_default().join("\n");
            panic!("seed {seed}: {:#?}\n{story}", air.broken);
        }
        verdict
    }

    fn live(mut self) -> (Verdict, Air) {
        let began = self.air.now;
        let due = Micros(began.0 + DUE.0);
        let end = Micros(began.0 + END.0);
        self.office.begin(&mut self.air);
        let mut judged = None;
        for _ in 0..EVENTS_MAX {
            self.bury();
            let event = self.air.queue.peek().map(|Reverse(entry)| entry.at);
            let timer = self.wake_at();
            let next = event.into_iter().chain(timer).min().unwrap_or(end).min(end);
            if next > due && judged.is_none() {
                judged = Some(self.judge("60 s after the beginning"));
            }
            if next >= end {
                break;
            }
            self.air.now = self.air.now.max(next);
            if event.is_some_and(|at| at <= next) {
                if let Some(Reverse(entry)) = self.air.queue.pop() {
                    self.happen(entry.what);
                }
            } else {
                self.turn();
            }
        }
        let verdict = self.judge("in the end");
        // What nobody was called for must last.
        if judged.is_none_or(|judged| judged != verdict && !judged.1) {
            let what = format!("{judged:?} after 60 s did not last: {verdict:?}");
            self.air.broke(what);
        }
        let names = self
            .nodes
            .iter()
            .filter(|node| node.alive && node.is_open());
        let names: Vec<String> = names.map(|node| node.name.to_string()).collect();
        if !names.is_empty() {
            self.air
                .broke(format!("{names:?} hold their parts in the end"));
        }
        let verdict = Verdict {
            end: verdict.0,
            flagged: verdict.1,
            writes: self.air.writes,
            messages: self.air.messages,
            deaths: self.air.deaths,
        };
        (verdict, self.air)
    }

    /// All done, all undone, or a person was called.
    fn judge(&mut self, when: &str) -> (End, bool) {
        let effects = self.nodes.iter().map(|node| node.in_effect);
        let end = if effects.clone().all(|effect| effect) {
            End::Done
        } else if effects.clone().all(|effect| !effect) {
            End::Undone
        } else {
            End::Mixed
        };
        let flagged = !self.air.flags.is_empty();
        // With the initiator and a node dead at once nobody is left who knows.
        let nobody = !self.office.is_alive() && self.nodes.iter().any(|node| !node.alive);
        if end == End::Mixed && !flagged && !nobody {
            self.air.broke(format!(
                "{when} it is neither done nor undone, and nobody was called"
            ));
        }
        (end, flagged)
    }

    fn wake_at(&self) -> Option<Micros> {
        let nodes = self.nodes.iter().filter_map(Node::deadline);
        let wake = nodes.chain(self.office.deadline()).min()?;
        // A machine that asks for the past must not stop the clock.
        Some(wake.max(self.air.now))
    }

    /// The time that somebody waited for has come.
    fn turn(&mut self) {
        let before = self.air.now;
        self.office.turn(&mut self.air);
        for node in &mut self.nodes {
            node.turn(&mut self.air);
        }
        if self.wake_at().is_some_and(|wake| wake <= before) {
            // What is due now has been done; if not, the clock moves all the same.
            self.air.now = Micros(before.0 + 1);
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Delivered(letter) => match *letter {
                Letter::Order(place, order) => {
                    if let Some(node) = self.nodes.get_mut(place) {
                        node.order(&order, &mut self.air);
                    }
                }
                Letter::Answer(place, answer) => {
                    self.office.answer(place, &answer, &mut self.air);
                }
            },
            Happening::Dies(actor, back) => self.air.dying.push((actor, back)),
            Happening::Synced(Actor::Initiator, life, end) => {
                self.office.synced(life, end, &mut self.air);
            }
            Happening::Synced(Actor::Node(place), life, end) => {
                if let Some(node) = self.nodes.get_mut(place) {
                    node.synced(life, end, &mut self.air);
                }
            }
            Happening::Effect(place, life, step, undo) => {
                if let Some(node) = self.nodes.get_mut(place) {
                    node.effect(life, step, undo, &mut self.air);
                }
            }
            Happening::Back(Actor::Initiator) => self.office.back(&mut self.air),
            Happening::Back(Actor::Node(place)) => {
                if let Some(node) = self.nodes.get_mut(place) {
                    node.back(&mut self.air);
                }
            }
        }
    }

    fn bury(&mut self) {
        for (actor, back) in std::mem::take(&mut self.air.dying) {
            self.air
                .tell(|| format!("{actor:?} dies, back after {back:?}"));
            self.air.deaths += 1;
            match actor {
                Actor::Initiator => self.office.die(),
                Actor::Node(place) => {
                    if let Some(node) = self.nodes.get_mut(place) {
                        node.die(&mut self.air);
                    }
                }
            }
            if let Some(back) = back {
                self.air.push(back.0 * 1000, Happening::Back(actor));
            }
        }
    }
}
