//! What healing costs: how large the budgets are, and what a plan spends.
//!
//! In: what is known of the node; out: the signals that the rules of the budget
//! look at, and a [`Meter`] per plan. What is admitted is the gate's to say.

use homeostat_common::budget::{Cost, Reservation, Shares, Signals, Standing};
use homeostat_common::gate::{Criticality, Foreseen};
use homeostat_common::ids::ServiceId;
use homeostat_common::outcome::Outcome;
use homeostat_common::units::{Micros, Ratio, narrow};
use homeostat_common::wire::body::{Body, Budgets, Charge, ClassBudget, StepCost};

use super::incident::Execution;
use super::message::{Class, Effect};
use super::{Incident, Loop};
use crate::config::Service;

impl Loop {
    /// Sets the budgets by what is known now; once a second is soon enough.
    pub(super) fn feel_budget(&mut self, now: Micros) {
        self.budget.advance(now);
        if !self.budget.is_due(now) {
            return;
        }
        let recent = self
            .sampled
            .is_some_and(|at| now.since(at) <= self.pacing.stale());
        let busy = self.host.cpu_busy.fresh().filter(|_| recent);
        let best_effort = |service: &Service| service.criticality == Criticality::BestEffort;
        let (mut served, mut wanted) = (0.0, 0.0);
        for watched in self.services.values() {
            if best_effort(&watched.policy) && watched.wanted() {
                served += f64::from(watched.health(now).get());
                wanted += 1.0;
            }
        }
        // Incidents that ended by themselves, or were not to be healed, say
        // nothing about what healing is worth.
        let (mut healed, mut failed) = (0.0, 0.0);
        for past in self.experience.recent() {
            let watched = self.services.get(&past.service);
            if watched.is_some_and(|watched| best_effort(&watched.policy)) {
                match past.outcome {
                    Outcome::Healed => healed += 1.0,
                    Outcome::Undone | Outcome::Escalated => failed += 1.0,
                    Outcome::Recovered | Outcome::Refused => {}
                }
            }
        }
        let signals = Signals {
            available: busy.map(|busy| 1.0 - f64::from(busy.get())),
            health: (wanted > 0.0).then(|| served / wanted),
            // Laplace's rule: one incident proves little.
            healed: Some((healed + 1.0) / (healed + failed + 2.0)),
        };
        self.budget.feel(&signals, now);
    }

    /// Settles what was set aside for a plan at what it cost until now.
    pub(super) fn pay(
        &mut self,
        incident: &mut Incident,
        execution: &mut Execution,
        worked: bool,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        execution.meter.closed(worked, now);
        let Some(reservation) = execution.reservation.take() else {
            return;
        };
        let class = reservation.class();
        let spent = execution.meter.spent();
        self.budget.settle(reservation, spent, now);
        incident.cost += spent.total();
        let body = self.charge(incident, execution, class);
        incident.mark = self.emit(Class::Heal, &[incident.mark], body, effects);
    }

    /// How the budgets stand, for whoever looks at the fleet.
    pub(super) fn budgets(&self) -> Body {
        let there = self.budget.standings().filter(|one| one.beta > 0.0);
        Body::Budgets(Budgets {
            classes: there.map(shown).collect(),
        })
    }

    /// What a plan has cost, once it is paid for.
    fn charge(&self, incident: &Incident, execution: &Execution, class: Criticality) -> Body {
        let steps = execution.meter.steps().map(|(predicted, spent)| StepCost {
            predicted: predicted.into(),
            spent: spent.into(),
        });
        Body::Charge(Charge {
            incident: incident.id,
            plan: execution.id,
            steps: steps.collect(),
            budget: shown(self.budget.standing(class)),
        })
    }

    /// What is left where a plan's cost was set aside; 0 for one that costs
    /// nothing any more.
    pub(super) fn balance(&self, reservation: Option<&Reservation>) -> f64 {
        reservation.map_or(0.0, |held| self.budget.standing(held.class()).balance)
    }

    /// What is left for the healing of a service.
    pub(super) fn balance_of(&self, service: &ServiceId) -> f64 {
        let watched = self.services.get(service);
        watched.map_or(0.0, |watched| {
            self.budget.standing(watched.policy.criticality).balance
        })
    }

    /// What is left of all budgets together.
    pub(super) fn budget_left(&self) -> Ratio {
        let (mut balance, mut beta) = (0.0, 0.0);
        for standing in self.budget.standings() {
            balance += standing.balance;
            beta += standing.beta;
        }
        Ratio::saturating(narrow(balance / f64::max(beta, f64::MIN_POSITIVE)))
    }
}

fn shown(standing: Standing) -> ClassBudget {
    ClassBudget {
        class: standing.class,
        beta: narrow(standing.beta),
        balance: narrow(standing.balance),
        reserved: narrow(standing.reserved),
        overruns: standing.overruns,
    }
}

/// The shares of a node that the classes of its services make up.
pub(super) fn shares<'s>(services: impl IntoIterator<Item = &'s Service>) -> Shares {
    Shares::of(services.into_iter().map(|service| service.criticality))
}

/// What a plan has cost so far, step by step, beside what was foreseen.
#[derive(Debug, Default)]
pub(super) struct Meter {
    steps: Vec<Metered>,
}

#[derive(Debug)]
struct Metered {
    foreseen: Foreseen,
    spent: Cost,
    /// It is carried out since then, and takes its service away.
    away: Option<Micros>,
    begun: bool,
}

impl Metered {
    fn new(foreseen: Foreseen) -> Self {
        Self {
            foreseen,
            spent: Cost::default(),
            away: None,
            begun: false,
        }
    }

    /// Its service is there again, or at least no longer away for this.
    fn back(&mut self, now: Micros) {
        if let Some(from) = self.away.take() {
            let most = self.foreseen.away.as_secs_f64().max(0.001);
            let part = now.since(from).as_secs_f64() / most;
            self.spent.disruption += self.foreseen.cost.disruption * part;
        }
    }
}

impl Meter {
    /// For steps that cost so much at most and come after so many that are paid
    /// for.
    pub(super) fn after(done: usize, steps: Vec<Foreseen>) -> Self {
        let paid = (0u8..).take(done).map(Foreseen::nothing);
        let own = steps.into_iter().map(|one| Foreseen {
            // A plan has at most 8 steps.
            back: one
                .back
                .saturating_add(u8::try_from(done).unwrap_or(u8::MAX)),
            ..one
        });
        Self {
            steps: paid.chain(own).map(Metered::new).collect(),
        }
    }

    /// A step begins. `takes`: its service will answer nobody meanwhile.
    pub(super) fn begun(&mut self, step: u8, takes: bool, now: Micros) {
        if let Some(one) = self.steps.get_mut(usize::from(step)) {
            one.begun = true;
            one.spent.resource = one.foreseen.cost.resource;
            one.away = takes.then_some(now);
        }
    }

    /// A step has ended, one way or the other.
    pub(super) fn ended(&mut self, step: u8, now: Micros) {
        for one in self
            .steps
            .iter_mut()
            .filter(|one| one.foreseen.back == step)
        {
            one.back(now);
        }
    }

    /// The plan is over: what went wrong has cost what was risked.
    pub(super) fn closed(&mut self, worked: bool, now: Micros) {
        for one in &mut self.steps {
            if one.begun && !worked {
                one.spent.risk = one.foreseen.cost.risk;
            }
            one.back(now);
        }
    }

    /// Each step in the printed order: foreseen and spent.
    pub(super) fn steps(&self) -> impl Iterator<Item = (Cost, Cost)> + '_ {
        self.steps.iter().map(|one| (one.foreseen.cost, one.spent))
    }

    /// What was foreseen for the whole plan.
    pub(super) fn foreseen(&self) -> Cost {
        self.steps()
            .map(|one| one.0)
            .fold(Cost::default(), Cost::plus)
    }

    /// What the whole plan has cost.
    pub(super) fn spent(&self) -> Cost {
        self.steps()
            .map(|one| one.1)
            .fold(Cost::default(), Cost::plus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::units::Millis;

    fn cost(resource: f64, disruption: f64, risk: f64) -> Cost {
        Cost {
            resource,
            disruption,
            risk,
        }
    }

    fn at(ms: u64) -> Micros {
        Micros(ms * 1000)
    }

    fn step(cost: Cost, away: u64, back: u8) -> Foreseen {
        let away = Millis::secs(away);
        Foreseen { cost, away, back }
    }

    #[test]
    fn each_step_costs_what_it_did_and_a_failure_what_was_risked() {
        let foreseen = vec![
            step(cost(0.02, 0.0, 0.0), 0, 0),
            step(cost(0.02, 7.0, 2.0), 14, 1),
            step(cost(0.02, 7.0, 1.0), 14, 2),
        ];
        let mut meter = Meter::after(1, foreseen);
        meter.begun(1, false, at(0));
        meter.ended(1, at(900));
        meter.begun(2, true, at(1000));
        meter.ended(2, at(3000));
        meter.ended(2, at(9000));
        // The last step was never begun: it costs and risks nothing.
        meter.closed(false, at(9000));
        let spent: Vec<Cost> = meter.steps().map(|one| one.1).collect();
        let begun = cost(0.02, 0.0, 0.0);
        let nothing = Cost::default();
        assert_eq!(spent, [nothing, begun, cost(0.02, 1.0, 2.0), nothing]);
        assert_eq!(meter.foreseen(), cost(0.06, 14.0, 3.0));
        assert_eq!(meter.spent(), cost(0.04, 1.0, 2.0));
    }

    #[test]
    fn what_is_frozen_is_away_until_it_is_thawed() {
        let foreseen = vec![
            step(cost(0.02, 20.0, 0.0), 40, 2),
            step(cost(0.0, 0.0, 0.0), 0, 1),
            step(cost(0.02, 0.0, 0.0), 0, 2),
        ];
        let mut meter = Meter::after(0, foreseen);
        meter.begun(0, true, at(0));
        meter.ended(0, at(10));
        meter.ended(1, at(5000));
        meter.ended(2, at(6000));
        meter.closed(true, at(9000));
        assert_eq!(meter.spent().disruption, 3.0);
    }

    #[test]
    fn what_worked_has_risked_nothing_and_what_is_cut_off_is_counted_until_then() {
        let restart = || vec![step(cost(0.02, 14.0, 2.0), 14, 0)];
        let mut meter = Meter::after(0, restart());
        meter.begun(0, true, at(0));
        meter.closed(true, at(500));
        assert_eq!(meter.spent(), cost(0.02, 0.5, 0.0));
        // One that no traffic came to.
        let mut meter = Meter::after(0, restart());
        meter.begun(0, false, at(0));
        meter.closed(true, at(500));
        meter.begun(9, true, at(0));
        assert_eq!(meter.spent(), cost(0.02, 0.0, 0.0));
    }
}
