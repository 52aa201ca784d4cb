//! Whoever orders the steps of a saga across its nodes.
//!
//! In: answers, the disk's word, the time. Out: [`Move`]s in order. What the nodes say
//! is the truth, so an initiator that comes back asks them where they stand; its own
//! records hold what only it can know: that there is a saga, and how it was decided.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::message::{Answer, Fence, Order, Prepare, SagaId, Stand, StepState, WHY_MAX, Want};
use super::{BEAT, FleetPlan, GIVE_UP, SILENCE, SLOW_BEAT, SPAN, WORK};
use crate::ids::NodeId;
use crate::primitive::Reversal;
use crate::transaction::Ending;
use crate::units::{Micros, Millis, Ratio};
use crate::wire::bounded;

/// What the initiator's store holds about a saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Decision {
    /// It is about to begin.
    Begun {
        /// The plan.
        plan: FleetPlan,
        /// How sure the diagnosis behind it is; `None` when a person asked.
        confidence: Option<Ratio>,
    },
    /// It is taken back; why.
    Abort(String),
    /// It is kept.
    Commit,
    /// Nothing more will be done.
    Ended(Ending),
}

/// What the caller must do next, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Store it, then call [`Initiator::durable`]; nothing else comes before that.
    Store(Decision),
    /// Give this order to a node.
    Send(NodeId, Order),
    /// Call a person; why.
    Flag(String),
    /// It is over.
    End(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Preparing,
    Running,
    Voting,
    Committing,
    Undoing,
    Ended(Ending),
}

#[derive(Debug, Clone)]
struct Member {
    node: NodeId,
    /// When it answered last.
    heard: Micros,
    /// What it was sent last, and when.
    sent: Option<(Want, Micros)>,
    /// It has taken its part on.
    prepared: bool,
    voted: bool,
    /// It begins nothing more.
    undoing: bool,
    ended: Option<Ending>,
    refused: bool,
    /// Why it takes no orders, as far as can be believed.
    deaf: Option<String>,
}

impl Member {
    /// Nothing of the saga is left there, or ever was.
    fn is_out(&self) -> bool {
        self.refused || self.ended.is_some()
    }

    fn is_lost(&self, now: Micros) -> bool {
        now >= self.heard + SILENCE
    }

    /// What is wrong with one that is not heard.
    fn silent(&self) -> String {
        match &self.deaf {
            Some(why) => alloc::format!("{} takes no orders from here: {why}", self.node),
            None => alloc::format!("{} does not answer", self.node),
        }
    }
}

/// The saga, as its initiator sees it.
#[derive(Debug, Clone)]
pub struct Initiator {
    saga: SagaId,
    plan: FleetPlan,
    confidence: Option<Ratio>,
    mode: Mode,
    fence: Fence,
    since: Micros,
    members: Vec<Member>,
    /// For each step: whose it is, whether it is compensated, how far it is.
    steps: Vec<(usize, bool, StepState)>,
    /// This life has begun it.
    fresh: bool,
    /// Steps that were let go.
    go: Vec<u8>,
    /// Steps that are taken back.
    undo: Vec<u8>,
    /// All that was done is taken back; only the ends are waited for.
    aborting: bool,
    /// Why it is taken back.
    why: Option<String>,
    awaiting_disk: bool,
    flagged: bool,
    /// What was flagged is that it got stuck.
    flagged_stuck: bool,
    decisions: Vec<Decision>,
    told: bool,
}

impl Initiator {
    /// A saga that has not begun; `epoch` is the life of its initiator.
    #[must_use]
    pub fn new(
        saga: SagaId,
        plan: FleetPlan,
        confidence: Option<Ratio>,
        epoch: u64,
        now: Micros,
    ) -> Self {
        let begun = Decision::Begun {
            plan: plan.clone(),
            confidence,
        };
        let mut this = Self::empty(saga, plan, confidence, epoch, now, now);
        this.decisions.push(begun);
        this
    }

    fn empty(
        saga: SagaId,
        plan: FleetPlan,
        confidence: Option<Ratio>,
        epoch: u64,
        since: Micros,
        now: Micros,
    ) -> Self {
        let nodes: Vec<NodeId> = plan.nodes().into_iter().collect();
        let steps = plan.steps().map(|leaf| {
            let member = nodes.iter().position(|node| *node == leaf.node);
            let compensated = leaf.primitive.reversal() == Reversal::Compensated;
            (member.unwrap_or(0), compensated, StepState::Waiting)
        });
        Self {
            steps: steps.collect(),
            members: nodes
                .into_iter()
                .map(|node| Member {
                    node,
                    heard: now,
                    sent: None,
                    prepared: false,
                    voted: false,
                    undoing: false,
                    ended: None,
                    refused: false,
                    deaf: None,
                })
                .collect(),
            saga,
            plan,
            confidence,
            mode: Mode::Preparing,
            fence: Fence { epoch, counter: 0 },
            since,
            fresh: true,
            go: vec![],
            undo: vec![],
            aborting: false,
            why: None,
            awaiting_disk: false,
            flagged: false,
            flagged_stuck: false,
            decisions: vec![],
            told: false,
        }
    }

    /// Goes on with what a former life, of a lower epoch, has stored; `None` when the
    /// decisions do not begin with [`Decision::Begun`]. `since` is when it began.
    #[must_use]
    pub fn resume(
        saga: SagaId,
        decisions: &[Decision],
        epoch: u64,
        since: Micros,
        now: Micros,
    ) -> Option<Self> {
        let (first, rest) = decisions.split_first()?;
        let Decision::Begun { plan, confidence } = first else {
            return None;
        };
        let mut this = Self::empty(saga, plan.clone(), *confidence, epoch, since.min(now), now);
        this.fresh = false;
        for decision in rest {
            match decision {
                Decision::Begun { .. } => {}
                Decision::Abort(why) => {
                    this.why = Some(why.clone());
                    this.mode = Mode::Undoing;
                }
                Decision::Commit => this.mode = Mode::Committing,
                Decision::Ended(ending) => this.mode = Mode::Ended(*ending),
            }
        }
        Some(this)
    }

    /// The saga.
    #[must_use]
    pub fn saga(&self) -> &SagaId {
        &self.saga
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &FleetPlan {
        &self.plan
    }

    /// How sure the diagnosis behind it is; `None` when a person asked.
    #[must_use]
    pub fn confidence(&self) -> Option<Ratio> {
        self.confidence
    }

    /// How far each step is, in the order of the plan.
    pub fn steps(&self) -> impl Iterator<Item = StepState> {
        self.steps.iter().map(|(_, _, state)| *state)
    }

    /// Where it stands, in a word.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match self.mode {
            Mode::Preparing => "preparing",
            Mode::Running => "running",
            Mode::Voting => "voting",
            Mode::Committing => "committing",
            Mode::Undoing => "undoing",
            Mode::Ended(Ending::Done) => "done",
            Mode::Ended(Ending::Undone) => "undone",
            Mode::Ended(Ending::Stuck) => "stuck",
        }
    }

    /// Why it is taken back, if it is.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self.mode {
            Mode::Ended(ending) if self.told => Some(ending),
            _ => None,
        }
    }

    /// What was handed out last is stored.
    pub fn durable(&mut self) {
        self.awaiting_disk = false;
    }

    /// Takes it back, unless it is decided already.
    pub fn abandon(&mut self, why: &str) {
        if matches!(self.mode, Mode::Preparing | Mode::Running | Mode::Voting) {
            self.why = Some(why.into());
            self.mode = Mode::Undoing;
            self.decisions.push(Decision::Abort(why.into()));
        }
    }

    /// A person wants no more of it: it is taken back, or, when a person was called
    /// since that lasts, no node is waited for any more. Each of them takes back alone
    /// what it was not told to keep.
    ///
    /// # Errors
    /// Why it goes on.
    pub fn stop(&mut self, why: &str) -> Result<(), &'static str> {
        match self.mode {
            Mode::Preparing | Mode::Running | Mode::Voting => self.abandon(why),
            Mode::Undoing | Mode::Committing if self.flagged => {
                self.why = Some(why.into());
                self.flagged_stuck = true;
                self.end(Ending::Stuck);
            }
            Mode::Undoing => return Err("it is taken back already"),
            Mode::Committing => return Err("it is decided that it is kept"),
            Mode::Ended(_) => return Err("it is over"),
        }
        Ok(())
    }

    /// A node has answered.
    pub fn absorb(&mut self, now: Micros, node: &NodeId, answer: &Answer) {
        if let Stand::Deaf(why) = &answer.stand
            && answer.saga.by == self.saga.by
        {
            return self.hint(node, why);
        }
        if answer.saga != self.saga {
            return;
        }
        let Some(place) = self.members.iter().position(|one| one.node == *node) else {
            return;
        };
        let Some(member) = self.members.get_mut(place) else {
            return;
        };
        member.heard = member.heard.max(now);
        match &answer.stand {
            Stand::Deaf(_) => {}
            // It was away for long, or its store was made anew.
            Stand::Unknown => {
                if member.prepared || self.mode == Mode::Committing {
                    member.ended.get_or_insert(Ending::Stuck);
                } else {
                    member.refused = true;
                }
                let why = alloc::format!("{node} knows nothing of it any more");
                self.abandon(&why);
            }
            Stand::Refused(why) => {
                member.refused = true;
                let why = alloc::format!("{node} refuses: {why}");
                self.abandon(&why);
            }
            Stand::Open {
                steps,
                voted,
                undoing,
                why,
            } => {
                member.prepared = true;
                member.voted |= *voted;
                member.undoing |= *undoing;
                self.learn(place, steps);
                let failed = steps.iter().any(|(_, state)| *state == StepState::Failed);
                if failed || *undoing {
                    let why = why.as_deref().unwrap_or("it has taken its part back");
                    let why = alloc::format!("{node}: {why}");
                    self.abandon(&why);
                }
            }
            Stand::Ended(ending, steps) => {
                member.prepared = true;
                member.ended.get_or_insert(*ending);
                self.learn(place, steps);
                if *ending != Ending::Done {
                    let why = alloc::format!("{node} has taken its part back");
                    self.abandon(&why);
                }
            }
        }
    }

    /// A node takes no orders from here, or somebody says so in its name.
    fn hint(&mut self, node: &NodeId, why: &str) {
        let mut members = self.members.iter_mut();
        if let Some(member) = members.find(|member| member.node == *node) {
            member.deaf = Some(bounded(why, WHY_MAX));
        }
    }

    fn learn(&mut self, place: usize, steps: &[(u8, StepState)]) {
        for (number, state) in steps {
            let known = self.steps.get_mut(usize::from(*number));
            if let Some((_, _, known)) = known.filter(|(of, _, _)| *of == place) {
                *known = (*known).max(*state);
            }
        }
    }

    /// When [`Initiator::advance`] must be called again at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Micros> {
        if self.told {
            return None;
        }
        let pace = self.pace();
        let beats = self
            .members
            .iter()
            .filter(|member| !member.is_out())
            .map(|member| {
                member
                    .sent
                    .as_ref()
                    .map_or(self.since, |(_, at)| *at + pace)
            });
        let flag = (!self.flagged).then_some(self.since + SPAN);
        beats.chain(flag).min()
    }

    fn pace(&self) -> Millis {
        if self.flagged { SLOW_BEAT } else { BEAT }
    }

    /// What to do now. Call until it returns nothing, and again after each answer,
    /// after [`Initiator::durable`] and at [`Initiator::deadline`].
    pub fn advance(&mut self, now: Micros) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.awaiting_disk || self.told {
            return moves;
        }
        self.watch(now);
        match self.mode {
            Mode::Preparing if self.members.iter().all(|member| member.prepared) => {
                self.mode = Mode::Running;
                self.run();
            }
            Mode::Running => self.run(),
            Mode::Voting if self.members.iter().all(|member| member.voted) => {
                self.mode = Mode::Committing;
                self.decisions.push(Decision::Commit);
            }
            Mode::Committing => self.committing(),
            Mode::Undoing => self.undoing(now),
            Mode::Preparing | Mode::Voting | Mode::Ended(_) => {}
        }
        // Once that it lasts, once that it got stuck, which no time will mend.
        let stuck = matches!(self.mode, Mode::Ended(Ending::Stuck));
        if (!self.flagged || stuck && !self.flagged_stuck)
            && let Some(why) = self.trouble(now)
        {
            self.flagged = true;
            self.flagged_stuck = stuck;
            moves.push(Move::Flag(why));
        }
        if !self.decisions.is_empty() {
            self.awaiting_disk = true;
            moves.extend(self.decisions.drain(..).map(Move::Store));
            return moves;
        }
        if let Mode::Ended(ending) = self.mode {
            self.told = true;
            moves.push(Move::End(ending));
            return moves;
        }
        self.send(now, &mut moves);
        moves
    }

    /// Nobody waits for ever.
    fn watch(&mut self, now: Micros) {
        if matches!(self.mode, Mode::Preparing | Mode::Running | Mode::Voting) {
            let lost = self.members.iter().find(|member| member.is_lost(now));
            let why = match lost {
                Some(member) => Some(member.silent()),
                None if self.since + WORK <= now => Some(alloc::format!("not done within {WORK}")),
                None => None,
            };
            if let Some(why) = why {
                self.abandon(&why);
            }
        } else if self.since + GIVE_UP <= now && !matches!(self.mode, Mode::Ended(_)) {
            self.end(Ending::Stuck);
        }
    }

    /// What a person has to be called for.
    fn trouble(&self, now: Micros) -> Option<String> {
        let missing = || {
            let missing = self.members.iter().filter(|member| !member.is_out());
            let names: Vec<&str> = missing.map(|member| member.node.as_str()).collect();
            names.join(", ")
        };
        match self.mode {
            Mode::Ended(Ending::Stuck) => Some(alloc::format!(
                "saga {} is neither all done nor all taken back: {}",
                self.saga,
                self.plan
            )),
            Mode::Ended(Ending::Done | Ending::Undone) => None,
            _ if self.since + SPAN <= now => Some(alloc::format!(
                "saga {} is not over after {SPAN}, for want of {}: {}",
                self.saga,
                missing(),
                self.plan
            )),
            _ => None,
        }
    }

    fn run(&mut self) {
        let done = |step: usize| {
            let step = self.steps.get(step);
            step.is_some_and(|(_, _, state)| *state == StepState::Done)
        };
        let ready = self.plan.ready(done);
        if ready.is_empty() {
            self.mode = Mode::Voting;
            return;
        }
        for step in ready {
            // At most eight steps: their numbers fit.
            let number = u8::try_from(step).unwrap_or(u8::MAX);
            if !self.go.contains(&number) {
                self.go.push(number);
            }
        }
    }

    fn committing(&mut self) {
        let mut endings = self.members.iter().map(|member| member.ended);
        if endings.clone().all(|ending| ending == Some(Ending::Done)) {
            self.end(Ending::Done);
        } else if endings.all(|ending| ending.is_some()) {
            self.end(Ending::Stuck);
        }
    }

    /// Compensations in reverse order across nodes, one at a time.
    fn undoing(&mut self, now: Micros) {
        // A node that does not answer takes its part back alone; the others do not
        // wait for it.
        let waited_for = |member: &Member| !member.is_out() && !member.is_lost(now);
        let of_waited_for = |of: usize| self.members.get(of).is_some_and(waited_for);
        if !self.aborting {
            let mut members = self.members.iter();
            let heard_of_it = members.all(|member| member.undoing || !waited_for(member));
            let mut steps = self.steps.iter();
            let running =
                steps.any(|(of, _, state)| *state == StepState::Running && of_waited_for(*of));
            if !heard_of_it || running {
                return;
            }
            let last = (0u8..)
                .zip(&self.steps)
                .filter(|(_, (of, compensated, state))| {
                    let stands = matches!(
                        state,
                        StepState::Done | StepState::Failed | StepState::Undoing
                    );
                    stands && *compensated && of_waited_for(*of)
                })
                .last();
            if let Some((number, _)) = last {
                if !self.undo.contains(&number) {
                    self.undo.push(number);
                }
                return;
            }
            self.aborting = true;
        }
        // Where no step was ever let go, whoever is silent has nothing to take back.
        let untouched = self.fresh && self.go.is_empty();
        let over = |member: &Member| member.is_out() || untouched && member.is_lost(now);
        if self.members.iter().all(over) {
            let mut endings = self.members.iter().filter_map(|member| member.ended);
            let undone = endings.all(|ending| ending == Ending::Undone);
            self.end(if undone {
                Ending::Undone
            } else {
                Ending::Stuck
            });
        }
    }

    fn end(&mut self, ending: Ending) {
        self.mode = Mode::Ended(ending);
        self.decisions.push(Decision::Ended(ending));
    }

    fn want(&self, place: usize, member: &Member) -> Want {
        let own = |numbers: &[u8]| -> Vec<u8> {
            let own = numbers.iter().copied().filter(|number| {
                let step = self.steps.get(usize::from(*number));
                step.is_some_and(|(of, _, _)| *of == place)
            });
            own.collect()
        };
        match self.mode {
            // One that has not answered yet must hear first what it is about.
            Mode::Preparing | Mode::Running | Mode::Voting if !member.prepared => {
                Want::Prepare(Prepare {
                    plan: self.plan.clone(),
                    confidence: self.confidence,
                })
            }
            Mode::Preparing | Mode::Running => Want::Go(own(&self.go)),
            Mode::Voting => Want::Vote,
            Mode::Committing | Mode::Ended(_) => Want::Commit,
            Mode::Undoing if self.aborting => Want::Abort,
            Mode::Undoing => Want::Undo(own(&self.undo)),
        }
    }

    /// What is wanted and was not said yet, or not for a while.
    fn send(&mut self, now: Micros, moves: &mut Vec<Move>) {
        let pace = self.pace();
        for place in 0..self.members.len() {
            let Some(member) = self.members.get(place).filter(|member| !member.is_out()) else {
                continue;
            };
            let want = self.want(place, member);
            let said = member
                .sent
                .as_ref()
                .is_some_and(|(last, at)| *last == want && now < *at + pace);
            if said {
                continue;
            }
            self.fence.counter += 1;
            let order = Order {
                saga: self.saga.clone(),
                fence: self.fence,
                want: want.clone(),
            };
            if let Some(member) = self.members.get_mut(place) {
                member.sent = Some((want, now));
                moves.push(Move::Send(member.node.clone(), order));
            }
        }
    }
}
