//! The initiator of plans across nodes: `common::saga::Initiator`, durable.
//!
//! In: plans that people want, what nodes answer, the time. Out: signed orders, and
//! rows of the database. A decision is committed before anything follows from it, so
//! the next life of the coordinator takes up what it finds, under a higher epoch.
//! What a node says of its part is asked again rather than kept.
//!
//! It decides nothing about whether a plan is a good one: each node's gate judges the
//! part that it owns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use homeostat_common::ids::NodeId;
use homeostat_common::saga::{
    Answer, BEAT, Decision, FleetPlan, Initiator, Move, Order, SagaId, Stand, StepState,
};
use homeostat_common::units::{Micros, Ratio};
use homeostat_common::wire::seal::Signer;
use homeostat_common::wire::topic::{COORDINATOR, NodeTopics};
use tokio::sync::{mpsc, oneshot, watch};

use super::ingest::chain;
use super::{Hub, now_ms};
use crate::fleet::plans::FleetPlanView;
use crate::fleet::view::Change;
use crate::io::db::DbError;
use crate::io::db::saga::{OpenSaga, SagaState, Sites};
use crate::io::mqtt::{Sealed, Settled};

/// Plans on their way at once: each holds services on its nodes.
const OPEN_MAX: usize = 16;

/// Wishes and answers that wait; a node answers each order, once a second.
pub const ASKS_MAX: usize = 256;

/// What is asked of the initiator.
#[derive(Debug)]
pub enum Ask {
    /// To begin a plan; answered with its number once it is stored, or why not.
    Begin {
        /// The plan.
        plan: FleetPlan,
        /// How sure the diagnosis behind it is; `None` when a person asked.
        confidence: Option<Ratio>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<u64, String>>,
    },
    /// To stop one, as a person wants; answered with whether it was given up, or why it
    /// goes on.
    Stop {
        /// Which.
        number: u64,
        /// Who wants it.
        by: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<bool, String>>,
    },
    /// To hear what a node says.
    Answer(NodeId, Answer),
}

#[derive(Debug)]
struct Running {
    machine: Initiator,
    sites: Sites,
    begun_ms: u64,
    /// Decisions that are stored.
    stored: u64,
    /// Decisions that the database has yet to take.
    pending: Vec<Decision>,
    /// When it is tried again.
    retry: Option<Instant>,
    flag: Option<String>,
    /// The flag is not stored yet; whether it says that the plan got stuck.
    unflagged: Option<bool>,
    /// Who waits for it to be stored.
    reply: Option<oneshot::Sender<Result<u64, String>>>,
}

/// The task.
#[derive(Debug)]
pub struct Sagas {
    hub: Arc<Hub>,
    signer: Signer,
    name: NodeId,
    settle: mpsc::Sender<Settled>,
    open: BTreeMap<u64, Running>,
    epoch: u64,
    /// A moment, and the wall clock then: the initiator's time goes on across lives,
    /// and never back within one.
    origin: (Instant, u64),
}

impl Sagas {
    /// Takes up what the life before has left open.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn open(
        hub: Arc<Hub>,
        signer: Signer,
        settle: mpsc::Sender<Settled>,
    ) -> Result<Self, DbError> {
        let epoch = hub.db.raise_epoch().await?;
        let found = hub.db.open_sagas().await?;
        let mut this = Self {
            hub,
            signer,
            #[allow(clippy::expect_used)]
            name: NodeId::new(COORDINATOR).expect("a constant that is a name"),
            settle,
            open: BTreeMap::new(),
            epoch,
            origin: (Instant::now(), now_ms().saturating_mul(1000)),
        };
        for saga in found {
            this.resume(saga);
        }
        Ok(this)
    }

    fn resume(&mut self, saga: OpenSaga) {
        let id = self.id(saga.number);
        let since = Micros(saga.begun_ms.saturating_mul(1000));
        let machine = Initiator::resume(id, &saga.decisions, self.epoch, since, self.now());
        let Some(machine) = machine else {
            // Its row and its beginning are one transaction.
            tracing::error!(
                plan = saga.number,
                "a plan without a beginning is left alone"
            );
            return;
        };
        tracing::info!(
            plan = saga.number,
            phase = machine.phase(),
            "goes on with a plan"
        );
        let running = Running {
            machine,
            sites: saga.sites,
            begun_ms: saga.begun_ms,
            stored: saga.decisions.len() as u64,
            pending: Vec::new(),
            retry: None,
            flag: saga.flag,
            unflagged: None,
            reply: None,
        };
        self.open.insert(saga.number, running);
    }

    fn id(&self, number: u64) -> SagaId {
        SagaId {
            by: self.name.clone(),
            number,
        }
    }

    fn now(&self) -> Micros {
        let (instant, unix_us) = self.origin;
        let since = u64::try_from(instant.elapsed().as_micros()).unwrap_or(u64::MAX);
        Micros(unix_us.saturating_add(since))
    }

    /// Runs until nobody asks any more or `stop` is set.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>, mut stop: watch::Receiver<bool>) {
        let numbers: Vec<u64> = self.open.keys().copied().collect();
        for number in numbers {
            self.advance(number).await;
        }
        loop {
            let wake = self.wake();
            let number = tokio::select! {
                ask = asks.recv() => match ask {
                    None => return,
                    Some(Ask::Begin { plan, confidence, reply }) => {
                        self.begin(plan, confidence, reply).await
                    }
                    Some(Ask::Stop { number, by, reply }) => {
                        let stopped = self.stop(number, &by);
                        self.advance(number).await;
                        // Its alarm was for whoever has stopped it.
                        let stopped = match stopped {
                            Ok(true) => self.hub.db.end_saga_alarm(number).await
                                .map(|()| true)
                                .map_err(|error| chain(&error)),
                            other => other,
                        };
                        self.hub.alarms_changed();
                        let _ = reply.send(stopped);
                        None
                    }
                    Some(Ask::Answer(node, answer)) => self.absorb(&node, &answer),
                },
                () = sleep(wake) => {
                    let numbers: Vec<u64> = self.open.keys().copied().collect();
                    for number in numbers {
                        self.advance(number).await;
                    }
                    None
                }
                _ = stop.changed() => return,
            };
            if let Some(number) = number {
                self.advance(number).await;
            }
        }
    }

    /// How long nothing is due.
    fn wake(&self) -> Option<Duration> {
        let now = self.now();
        let due = self.open.values().filter_map(|one| match one.retry {
            Some(retry) => Some(retry.saturating_duration_since(Instant::now())),
            None => {
                let due = one.machine.deadline()?;
                Some(Duration::from_micros(due.0.saturating_sub(now.0)))
            }
        });
        due.min()
    }

    async fn begin(
        &mut self,
        plan: FleetPlan,
        confidence: Option<Ratio>,
        reply: oneshot::Sender<Result<u64, String>>,
    ) -> Option<u64> {
        match self.admit(&plan, confidence).await {
            Ok((number, sites)) => {
                let id = self.id(number);
                let now = self.now();
                tracing::info!(plan = number, text = %plan, "begins a plan across nodes");
                let running = Running {
                    machine: Initiator::new(id, plan, confidence, self.epoch, now),
                    sites,
                    begun_ms: now_ms(),
                    stored: 0,
                    pending: Vec::new(),
                    retry: None,
                    flag: None,
                    unflagged: None,
                    reply: Some(reply),
                };
                self.open.insert(number, running);
                Some(number)
            }
            Err(why) => {
                let _ = reply.send(Err(why));
                None
            }
        }
    }

    async fn admit(
        &self,
        plan: &FleetPlan,
        confidence: Option<Ratio>,
    ) -> Result<(u64, Sites), String> {
        if self.open.len() >= OPEN_MAX {
            return Err(format!("{OPEN_MAX} plans are on their way already"));
        }
        plan.timely().map_err(|error| error.to_string())?;
        if let Some(confidence) = confidence {
            plan.admitted(confidence)
                .map_err(|error| error.to_string())?;
        }
        let mut sites = Sites::new();
        for node in plan.nodes() {
            let site = self.hub.with_presence(|presence| {
                let seen = presence.seen(&node).filter(|seen| seen.online);
                seen.map(|seen| seen.site.clone())
            });
            let site = site.ok_or_else(|| format!("node {node} is not connected"))?;
            sites.insert(node, site);
        }
        let last = self.open.keys().next_back().map_or(0, |last| last + 1);
        let number = self.hub.db.next_saga(now_ms()).await;
        let number = number.map_err(|error| chain(&error))?;
        Ok((number.max(last), sites))
    }

    /// Whether it is given up.
    fn stop(&mut self, number: u64, by: &str) -> Result<bool, String> {
        let running = self.open.get_mut(&number).ok_or("it is over")?;
        let why = format!("{by} has stopped it");
        running.machine.stop(&why)?;
        let phase = running.machine.phase();
        tracing::info!(plan = number, by, phase, "a person stops a plan");
        Ok(phase == "stuck")
    }

    fn absorb(&mut self, node: &NodeId, answer: &Answer) -> Option<u64> {
        let now = self.now();
        if let Stand::Deaf(why) = &answer.stand {
            tracing::warn!(%node, why, "a node takes no orders from here");
            for running in self.open.values_mut() {
                running.machine.absorb(now, node, answer);
            }
            return None;
        }
        let number = answer.saga.number;
        let running = self.open.get_mut(&number)?;
        running.machine.absorb(now, node, answer);
        Some(number)
    }

    /// Does all there is to do for one plan now.
    async fn advance(&mut self, number: u64) {
        let now = self.now();
        loop {
            let Some(running) = self.open.get_mut(&number) else {
                return;
            };
            if running.pending.is_empty() && running.unflagged.is_none() {
                let moves = running.machine.advance(now);
                if moves.is_empty() {
                    break;
                }
                let mut orders = Vec::new();
                for one in moves {
                    match one {
                        Move::Store(decision) => running.pending.push(decision),
                        Move::Send(node, order) => {
                            orders.extend(seal(&self.signer, &running.sites, &node, &order));
                        }
                        Move::Flag(why) => {
                            tracing::error!(plan = number, why, "a plan needs a person");
                            running.flag = Some(why);
                            running.unflagged = Some(running.machine.phase() == "stuck");
                        }
                        Move::End(ending) => {
                            tracing::info!(plan = number, ?ending, "a plan has ended");
                            self.hub.alarms_changed();
                        }
                    }
                }
                if !orders.is_empty() {
                    let done = Settled {
                        orders,
                        ..Settled::default()
                    };
                    // Ends with the connection's task only.
                    let _ = self.settle.send(done).await;
                }
            }
            if !self.store(number).await {
                break;
            }
        }
        self.show(number);
    }

    /// Stores what was decided; `false` while the database does not take it.
    async fn store(&mut self, number: u64) -> bool {
        let Some(running) = self.open.get_mut(&number) else {
            return false;
        };
        if let Some((stuck, why)) = running.unflagged.zip(running.flag.as_deref()) {
            // A person is called before it is told that it has ended.
            if let Err(error) = self.hub.db.flag_saga(number, why, stuck, now_ms()).await {
                tracing::error!(plan = number, error = chain(&error), "cannot flag a plan");
                running.retry = Some(Instant::now() + Duration::from_millis(BEAT.0));
                return false;
            }
            running.unflagged = None;
            running.retry = None;
            self.hub.alarms_changed();
        }
        if running.pending.is_empty() {
            return true;
        }
        let steps: Vec<StepState> = running.machine.steps().collect();
        while let Some(decision) = running.pending.first() {
            let state = SagaState {
                number,
                phase: running.machine.phase(),
                why: running.machine.why(),
                flag: running.flag.as_deref(),
                steps: &steps,
            };
            let db = &self.hub.db;
            let stored = db
                .decide_saga(&state, &running.sites, running.stored, decision, now_ms())
                .await;
            match stored {
                Ok(()) => {
                    running.pending.remove(0);
                    running.stored += 1;
                }
                Err(error) if running.stored == 0 => {
                    // Nothing has begun anywhere.
                    if let Some(reply) = running.reply.take() {
                        let _ = reply.send(Err(chain(&error)));
                    }
                    self.open.remove(&number);
                    return false;
                }
                Err(error) => {
                    tracing::error!(
                        plan = number,
                        error = chain(&error),
                        "cannot store a decision"
                    );
                    running.retry = Some(Instant::now() + Duration::from_millis(BEAT.0));
                    return false;
                }
            }
        }
        running.retry = None;
        running.machine.durable();
        if let Some(reply) = running.reply.take() {
            let _ = reply.send(Ok(number));
        }
        true
    }

    /// For people: how it stands now.
    fn show(&mut self, number: u64) {
        let Some(running) = self.open.get(&number) else {
            return;
        };
        let ended = running.machine.ending().is_some();
        let steps: Vec<StepState> = running.machine.steps().collect();
        let view = FleetPlanView {
            begun_ms: running.begun_ms,
            why: running.machine.why().map(ToOwned::to_owned),
            flag: running.flag.clone(),
            ..FleetPlanView::new(
                number,
                running.machine.plan(),
                running.machine.confidence(),
                &running.sites,
                running.machine.phase().to_owned(),
                &steps,
            )
        };
        let changed = self.hub.with_plans(|plans| {
            if ended {
                plans.remove(&number);
                return true;
            }
            plans.insert(number, view.clone()) != Some(view)
        });
        if ended {
            self.open.remove(&number);
        }
        if changed {
            // Nobody may be watching.
            let _ = self.hub.changes.send(Change {
                plans: vec![number],
                ..Change::default()
            });
        }
    }
}

fn seal(signer: &Signer, sites: &Sites, node: &NodeId, order: &Order) -> Option<Sealed> {
    let site = sites.get(node)?;
    match signer.seal(site, node, order, now_ms()) {
        Ok(frame) => Some(Sealed {
            topic: NodeTopics::new(site, node).orders(&order.saga.by),
            frame,
        }),
        Err(error) => {
            tracing::error!(saga = %order.saga, error = chain(&error), "cannot seal an order");
            None
        }
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
