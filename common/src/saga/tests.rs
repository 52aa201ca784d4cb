//! One saga on two nodes, message by message. Kills, losses and delays at every point
//! are in `tests/` of the workspace.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::NodeId;
use crate::transaction::Ending;
use crate::units::{Micros, Millis, Ratio};

const PLAN: &str = "a: isolate(r, x, drain=1s) ; b: scale-out(r, y)";

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn saga(number: u64) -> SagaId {
    SagaId {
        by: node("coord"),
        number,
    }
}

fn at(ms: u64) -> Micros {
    Micros(ms * 1000)
}

/// A node: its memory, its open part, and what it did.
struct Place {
    name: NodeId,
    fences: Fences,
    part: Option<Participant>,
    /// Steps that fail here.
    fails: Vec<u8>,
    /// Steps that take for ever here.
    hangs: Vec<u8>,
    done: Vec<(u8, bool)>,
    flags: Vec<String>,
    journal: Vec<Record>,
}

impl Place {
    fn new(name: &str) -> Self {
        Self {
            name: node(name),
            fences: Fences::default(),
            part: None,
            fails: Vec::new(),
            hangs: Vec::new(),
            done: Vec::new(),
            flags: Vec::new(),
            journal: Vec::new(),
        }
    }

    fn order(&mut self, now: Micros, order: &Order) -> Vec<Answer> {
        let open = self.part.is_some();
        match self.fences.admit(order, open) {
            Admission::Stale => return Vec::new(),
            Admission::Answer(answer) => return vec![answer],
            Admission::Open => {
                if let Some(part) = &mut self.part {
                    part.order(now, order);
                }
            }
            Admission::New(prepare) => {
                let limit = |_: &crate::primitive::Primitive| Millis(2000);
                self.part = Participant::new(order, prepare.plan, &self.name, now, limit);
            }
        }
        self.turn(now)
    }

    fn turn(&mut self, now: Micros) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(part) = &mut self.part {
            let actions = part.advance(now);
            if actions.is_empty() {
                break;
            }
            for action in actions {
                match action {
                    Action::Journal { record, wait } => {
                        self.journal.push(record);
                        if wait {
                            part.durable();
                        }
                    }
                    Action::Run(step) => {
                        self.done.push((step, false));
                        if self.hangs.contains(&step) {
                            continue;
                        }
                        let result = match self.fails.contains(&step) {
                            true => Err("no".into()),
                            false => Ok(()),
                        };
                        self.journal.extend(part.report(step, result));
                    }
                    Action::Undo(step) => {
                        self.done.push((step, true));
                        self.journal.extend(part.report(step, Ok(())));
                    }
                    Action::Say(answer) => answers.push(answer),
                    Action::Flag(why) => self.flags.push(why),
                    Action::End(ending) => {
                        self.fences.ended(part.saga(), ending, part.states());
                        self.part = None;
                        break;
                    }
                }
            }
        }
        answers
    }
}

struct Fleet {
    initiator: Initiator,
    places: BTreeMap<NodeId, Place>,
    stored: Vec<Decision>,
    sent: Vec<(NodeId, Order)>,
    flags: Vec<String>,
    now: Micros,
}

impl Fleet {
    fn new(text: &str) -> Self {
        let plan: FleetPlan = text.parse().unwrap();
        let places = plan.nodes().into_iter();
        Self {
            places: places
                .map(|node| (node.clone(), Place::new(node.as_str())))
                .collect(),
            initiator: Initiator::new(saga(1), plan, None, 1, at(0)),
            stored: Vec::new(),
            sent: Vec::new(),
            flags: Vec::new(),
            now: at(0),
        }
    }

    fn place(&mut self, name: &str) -> &mut Place {
        self.places.get_mut(&node(name)).unwrap()
    }

    /// Runs until nothing more happens by itself, or `stop` says so.
    fn run(&mut self, mut stop: impl FnMut(&Self) -> bool) {
        loop {
            let moves = self.initiator.advance(self.now);
            if moves.is_empty() {
                return;
            }
            for one in moves {
                match one {
                    Move::Store(decision) => {
                        self.stored.push(decision);
                        self.initiator.durable();
                    }
                    Move::Send(node, order) => {
                        self.sent.push((node.clone(), order.clone()));
                        if stop(self) {
                            return;
                        }
                        let place = self.places.get_mut(&node).unwrap();
                        for answer in place.order(self.now, &order) {
                            self.initiator.absorb(self.now, &node, &answer);
                        }
                    }
                    Move::Flag(why) => self.flags.push(why),
                    Move::End(_) => return,
                }
            }
        }
    }

    fn everywhere(&mut self, now: Micros) {
        self.now = now;
        for place in self.places.values_mut() {
            place.turn(now);
        }
    }
}

#[test]
fn all_steps_run_in_order_and_are_kept() {
    let mut fleet = Fleet::new(PLAN);
    fleet.run(|_| false);
    assert_eq!(fleet.initiator.ending(), Some(Ending::Done));
    assert_eq!(fleet.place("a").done, [(0, false)]);
    assert_eq!(fleet.place("b").done, [(1, false)]);
    let first = |wanted: &dyn Fn(&Want) -> bool| {
        fleet
            .sent
            .iter()
            .position(|(_, order)| wanted(&order.want))
            .unwrap()
    };
    let go_b = fleet
        .sent
        .iter()
        .position(|(_, order)| order.want == Want::Go(vec![1]))
        .unwrap();
    assert!(first(&|want| *want == Want::Go(vec![0])) < go_b);
    assert!(go_b < first(&|want| *want == Want::Vote));
    assert_eq!(
        fleet.stored[1..],
        [Decision::Commit, Decision::Ended(Ending::Done)]
    );
}

#[test]
fn a_step_that_fails_takes_the_others_back_in_reverse_order() {
    let mut fleet = Fleet::new(
        "a: isolate(r, x, drain=1s) ; b: scale-out(r, y) ; a: release(r, x) ; c: scale-out(r, z)",
    );
    fleet.place("c").fails = vec![3];
    fleet.run(|_| false);
    assert_eq!(fleet.initiator.ending(), Some(Ending::Undone));
    assert_eq!(fleet.initiator.why(), Some("c: no"));
    let undone: Vec<u8> = fleet
        .sent
        .iter()
        .filter_map(|(_, order)| match &order.want {
            Want::Undo(steps) => steps.last().copied(),
            _ => None,
        })
        .collect();
    // Releasing has nothing to take back; the failed one is made sure of.
    assert_eq!(undone, [3, 1, 0]);
    assert_eq!(fleet.place("c").done, [(3, false), (3, true)]);
    assert_eq!(fleet.place("a").done, [(0, false), (2, false), (0, true)]);
}

#[test]
fn a_wait_ends_at_once_when_the_plan_is_taken_back() {
    let mut fleet = Fleet::new("a: isolate(r, x, drain=1s) ; (a: wait(20s) | b: scale-out(r, y))");
    fleet.place("a").hangs = vec![1];
    fleet.place("b").fails = vec![2];
    // Nothing but messages moves: no time passes.
    fleet.run(|_| false);
    assert_eq!(fleet.initiator.ending(), Some(Ending::Undone));
    assert_eq!(fleet.now, at(0));
    assert_eq!(fleet.place("a").done, [(0, false), (1, false), (0, true)]);
    assert!(fleet.place("a").journal.contains(&Record::Undone(1)));
}

#[test]
fn a_person_ends_what_waits_for_a_node_that_is_gone() {
    let mut fleet = Fleet::new(PLAN);
    fleet.run(|fleet| fleet.sent.last().unwrap().1.want == Want::Go(vec![1]));
    // From here on b is never heard again.
    assert_eq!(fleet.initiator.stop("anna has enough"), Ok(()));
    let early = fleet.initiator.stop("again");
    assert_eq!(early, Err("it is taken back already"));
    let mut ended = None;
    for second in 1..120 {
        fleet.now = at(second * 1000);
        for one in fleet.initiator.advance(fleet.now) {
            match one {
                Move::Store(_) => fleet.initiator.durable(),
                Move::Send(to, order) if to == node("a") => {
                    let answers = fleet.place("a").order(at(second * 1000), &order);
                    for answer in answers {
                        fleet.initiator.absorb(at(second * 1000), &to, &answer);
                    }
                }
                Move::Send(..) => {}
                Move::Flag(_) => fleet.initiator.stop("b has burnt").unwrap(),
                Move::End(ending) => ended = Some((second, ending)),
            }
        }
    }
    let (second, ending) = ended.unwrap();
    assert!((SPAN.0 / 1000..60).contains(&second), "{second}");
    assert_eq!(
        (ending, fleet.initiator.why()),
        (Ending::Stuck, Some("b has burnt"))
    );
    assert_eq!(fleet.initiator.stop("more"), Err("it is over"));
    assert_eq!(fleet.place("a").done, [(0, false), (0, true)]);
}

#[test]
fn how_far_each_step_was_is_known_at_the_end_whoever_has_forgotten_it() {
    let mut fleet =
        Fleet::new("a: isolate(r, x, drain=1s) ; a: release(r, x) ; b: scale-out(r, y)");
    fleet.run(|fleet| fleet.sent.last().unwrap().1.want == Want::Go(vec![2]));
    // Alone, both take back what there is; only then the initiator is back.
    fleet.everywhere(at(SILENCE.0));
    let stored = fleet.stored.clone();
    fleet.initiator = Initiator::resume(saga(1), &stored, 2, at(0), fleet.now).unwrap();
    fleet.run(|_| false);
    assert_eq!(fleet.initiator.ending(), Some(Ending::Undone));
    let steps: Vec<StepState> = fleet.initiator.steps().collect();
    let expected = [StepState::Undone, StepState::Done, StepState::Waiting];
    assert_eq!(steps, expected);
}

#[test]
fn a_node_that_takes_no_orders_ends_it_before_anything_happened_and_its_hint_is_told() {
    let plan: FleetPlan = PLAN.parse().unwrap();
    let mut initiator = Initiator::new(saga(1), plan, None, 1, at(0));
    let mut a = Place::new("a");
    let hint = Answer {
        saga: saga(0),
        stand: Stand::Deaf("signed with a key that is not coord's".into()),
    };
    let mut ended = None;
    for second in 0..20 {
        let now = at(second * 1000);
        initiator.absorb(now, &node("b"), &hint);
        for _ in 0..8 {
            for one in initiator.advance(now) {
                match one {
                    Move::Store(_) => initiator.durable(),
                    Move::Send(to, order) if to == node("a") => {
                        for answer in a.order(now, &order) {
                            initiator.absorb(now, &to, &answer);
                        }
                    }
                    Move::Send(..) => {}
                    Move::Flag(why) => panic!("{why}"),
                    Move::End(ending) => ended = Some((second, ending)),
                }
            }
        }
    }
    // A hint is no vote: it is waited for as long as anybody else.
    assert_eq!(ended, Some((SILENCE.0 / 1000, Ending::Undone)));
    assert_eq!(
        initiator.why(),
        Some("b takes no orders from here: signed with a key that is not coord's")
    );
    assert!(a.done.is_empty() && a.part.is_none());
}

#[test]
fn a_node_whose_gate_refuses_ends_it_before_anything_happened() {
    let mut fleet = Fleet::new(PLAN);
    let order = Order {
        saga: saga(1),
        fence: Fence {
            epoch: 1,
            counter: 1,
        },
        want: Want::Prepare(Prepare {
            plan: PLAN.parse().unwrap(),
            confidence: None,
        }),
    };
    let b = fleet.place("b");
    assert!(matches!(b.fences.admit(&order, false), Admission::New(_)));
    let refusal = b.fences.refuse(&saga(1), "rule hold: web was healed");
    fleet.initiator.absorb(at(1), &node("b"), &refusal);
    fleet.run(|_| false);
    assert_eq!(fleet.initiator.ending(), Some(Ending::Undone));
    assert!(fleet.place("a").done.is_empty() && fleet.place("b").done.is_empty());
    // The same question again has the same answer.
    let again = fleet.place("b").fences.admit(&order, false);
    assert_eq!(again, Admission::Answer(refusal));
}

#[test]
fn alone_before_the_vote_a_node_takes_its_part_back_and_calls_nobody() {
    let mut fleet = Fleet::new(PLAN);
    fleet.run(|fleet| fleet.sent.last().unwrap().1.want == Want::Go(vec![1]));
    assert_eq!(fleet.place("a").done, [(0, false)]);
    fleet.everywhere(at(SILENCE.0 - 1));
    assert_eq!(fleet.place("a").done, [(0, false)]);
    fleet.everywhere(at(SILENCE.0));
    assert_eq!(fleet.place("a").done, [(0, false), (0, true)]);
    assert!(fleet.place("b").done.is_empty() && fleet.place("b").part.is_none());
    assert!(fleet.place("a").flags.is_empty());
    // The initiator comes back and finds that out.
    let stored = fleet.stored.clone();
    fleet.now = at(12_000);
    fleet.initiator = Initiator::resume(saga(1), &stored, 2, at(0), at(12_000)).unwrap();
    fleet.run(|_| false);
    assert_eq!(fleet.initiator.ending(), Some(Ending::Undone));
}

#[test]
fn alone_after_the_vote_it_waits_longer_and_calls_a_person() {
    let mut fleet = Fleet::new(PLAN);
    fleet.run(|fleet| fleet.sent.last().unwrap().1.want == Want::Commit);
    fleet.everywhere(at(SILENCE.0));
    assert_eq!(fleet.place("a").done, [(0, false)]);
    fleet.everywhere(at(DOUBT.0));
    assert_eq!(fleet.place("a").done, [(0, false), (0, true)]);
    assert_eq!(fleet.place("a").flags.len(), 1);
    // Had it come back in time, all would have been kept.
    let mut fleet = Fleet::new(PLAN);
    fleet.run(|fleet| fleet.sent.last().unwrap().1.want == Want::Commit);
    let stored = fleet.stored.clone();
    fleet.everywhere(at(DOUBT.0 - 1000));
    fleet.initiator = Initiator::resume(saga(1), &stored, 2, at(0), fleet.now).unwrap();
    fleet.run(|_| false);
    assert_eq!(fleet.initiator.ending(), Some(Ending::Done));
    assert_eq!(fleet.place("a").done, [(0, false)]);
}

#[test]
fn what_is_not_above_the_highest_fence_is_refused_also_after_a_restart() {
    let mut fleet = Fleet::new(PLAN);
    fleet.run(|fleet| fleet.sent.last().unwrap().1.want == Want::Go(vec![1]));
    let old = fleet.sent.last().unwrap().1.clone();
    let abort = |epoch, counter| Order {
        fence: Fence { epoch, counter },
        want: Want::Undo(vec![]),
        ..old.clone()
    };
    let b = fleet.place("b");
    b.order(at(5), &abort(2, 1));
    assert!(b.order(at(6), &old).is_empty(), "a former life of it");
    assert!(b.order(at(6), &abort(2, 1)).is_empty(), "the same again");
    let limit = |_: &crate::primitive::Primitive| Millis(2000);
    let mut resumed = Participant::resume(&b.journal, &node("b"), at(7), false, limit).unwrap();
    assert!(!resumed.order(at(8), &old));
    assert_eq!(resumed.fence(), abort(2, 1).fence);
    assert!(b.done.is_empty());
    // Called off before it was heard of: a late order to prepare begins nothing.
    let mut fresh = Fences::default();
    fresh.admit(&abort(1, 9), false);
    let late = fleet.sent[0].1.clone();
    let mut other = Fences::default();
    other.found(&saga(0), 2);
    assert_eq!(other.admit(&late, false), Admission::Stale);
    let ended = Admission::Answer(Answer {
        saga: saga(1),
        stand: Stand::Ended(Ending::Undone, vec![]),
    });
    assert_eq!(fresh.admit(&late, false), ended);
}

#[test]
fn a_step_of_which_only_the_intent_is_known_is_not_begun_again() {
    let mut fleet = Fleet::new(PLAN);
    fleet.run(|fleet| fleet.sent.last().unwrap().1.want == Want::Go(vec![1]));
    let a = fleet.place("a");
    let cut = a
        .journal
        .iter()
        .position(|record| *record == Record::Done(0))
        .unwrap();
    let limit = |_: &crate::primitive::Primitive| Millis(2000);
    let resumed = Participant::resume(&a.journal[..cut], &node("a"), at(9), false, limit).unwrap();
    let Stand::Open { steps, why, .. } = resumed.answer().stand else {
        panic!("it is open");
    };
    assert_eq!(steps, [(0, StepState::Failed)]);
    assert_eq!(why.as_deref(), Some("cut short by a restart"));
}

#[test]
fn names_and_messages_read_back() {
    let id = saga(17);
    assert_eq!(id.to_string().parse(), Ok(id.clone()));
    for wrong in ["", "coord", "coord-", "coord-+1", "-1", "Coord-1"] {
        assert_eq!(wrong.parse::<SagaId>(), Err(SagaIdError), "{wrong}");
    }
    let order = Order {
        saga: id.clone(),
        fence: Fence {
            epoch: 1_790_000_000,
            counter: 3,
        },
        want: Want::Prepare(Prepare {
            plan: PLAN.parse().unwrap(),
            confidence: Some(Ratio::ONE),
        }),
    };
    assert_eq!(Order::decode(&order.encode().unwrap()), Ok(order));
    let answer = Answer {
        saga: id,
        stand: Stand::Open {
            steps: vec![(1, StepState::Failed)],
            voted: false,
            undoing: true,
            why: Some("no".into()),
        },
    };
    assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
}

proptest! {
    #[test]
    fn decoding_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Order::decode(&bytes);
        let _ = Answer::decode(&bytes);
        let _ = bytes.first().map(|_| {
            let mut bytes = bytes.clone();
            bytes[0] = 1;
            let _ = Order::decode(&bytes);
            Answer::decode(&bytes)
        });
    }
}
