//! What each mechanism is: where it can sit, what it lays on what it is at, what
//! ends it.
//!
//! A table in the form of matches, so that a new mechanism makes the compiler list
//! all that must be said about it. The numbers are magnitudes at strengths 0 and 1;
//! in between they are linear.

use super::burden::{LinkBurden, NodeBurden, ReplicaBurden, RouteBurden, Telemetry};
use super::grammar::{Mechanism, Place, Step};

/// What a fault lays its burden on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Each replica of its locus.
    Replicas,
    /// The route.
    Route,
    /// Each node of its locus.
    Nodes,
    /// Each uplink of its locus.
    Links,
}

/// What a mechanism at a kind of place lays its burden on; `None` where it cannot
/// be.
pub(crate) fn ground(mechanism: Mechanism, place: Place) -> Option<Ground> {
    use Ground as G;
    use Mechanism as M;
    use Place as P;
    Some(match (mechanism, place) {
        (M::Die | M::Hang | M::Slow | M::LeakMemory, P::Replica | P::Service)
        | (M::LeakDescriptors | M::LeakThreads, P::Replica | P::Service)
        | (M::Spin | M::Lock, P::Replica)
        | (M::CorruptConfig | M::RegressBinary, P::Replica | P::Service)
        | (M::CorruptModel | M::RegressModel, P::Replica | P::Model)
        | (M::CorruptCache | M::DenyCredential | M::Compete, P::Replica | P::Service)
        | (M::Push, P::Replica | P::Service | P::Model)
        | (M::CorruptStore, P::Replica | P::File) => G::Replicas,
        (M::Die, P::Broker | P::Outside)
        | (M::Slow, P::Outside)
        | (M::CorruptInput | M::Duplicate | M::Surge, P::Service)
        | (M::DenyQuota, P::Service | P::Outside)
        | (M::Drift, P::Model) => G::Route,
        (M::Die, P::Node | P::Site | P::Agent)
        | (M::Hang, P::Agent)
        | (M::Spin | M::LeakMemory | M::Slow | M::Skew | M::Heat | M::BrownOut, P::Node)
        | (M::LeakDisk | M::LeakInodes | M::DenyWrite, P::Node | P::File)
        | (M::LieFrozen | M::LieLate | M::LieWrong, P::Node | P::Agent) => G::Nodes,
        (M::Disconnect | M::Delay | M::Lose, P::Link | P::Site) => G::Links,
        _ => return None,
    })
}

/// Whether a mechanism can be at a kind of place.
#[must_use]
pub fn sits_at(mechanism: Mechanism, place: Place) -> bool {
    ground(mechanism, place).is_some()
}

/// The kinds of place at which a mechanism can be.
pub fn places(mechanism: Mechanism) -> impl Iterator<Item = Place> {
    let all = Place::ALL.iter().copied();
    all.filter(move |place| sits_at(mechanism, *place))
}

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remedy {
    /// The step.
    pub(crate) step: Step,
    /// What becomes of the fault.
    pub(crate) effect: Cure,
}

/// What becomes of a fault by a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// It is gone.
    Ends,
    /// Its root is gone; a process goes on as before until it is a fresh one, or
    /// opens its connections anew.
    EndsForFresh,
    /// It is out of the way for as long as the step is not taken back.
    Shields,
}

/// What ends a mechanism at a kind of place; nothing for what only passes.
pub(crate) fn remedies(mechanism: Mechanism, place: Place) -> &'static [Remedy] {
    use Cure::{Ends, EndsForFresh, Shields};
    use Mechanism as M;
    use Place as P;
    const fn one(step: Step, effect: Cure) -> Remedy {
        Remedy { step, effect }
    }
    const RESTART: &[Remedy] = &[one(Step::Restart, Ends)];
    const REBOOT: &[Remedy] = &[one(Step::Reboot, Ends)];
    const STRANGER: &[Remedy] = &[one(Step::KillStranger, Ends), one(Step::Reboot, Ends)];
    const NONE: &[Remedy] = &[];
    match mechanism {
        M::Die => match place {
            P::Replica | P::Service => RESTART,
            P::Broker => const { &[one(Step::FailoverBroker, Ends)] },
            P::Node | P::Agent => REBOOT,
            // Nobody at hand ends these.
            P::Site | P::Outside | P::Link | P::Model | P::File => NONE,
        },
        M::Hang => match place {
            P::Agent => REBOOT,
            _ => RESTART,
        },
        M::Spin | M::LeakMemory => match place {
            P::Node => STRANGER,
            _ => RESTART,
        },
        M::LeakDescriptors | M::LeakThreads => RESTART,
        M::LeakDisk | M::LeakInodes => const { &[one(Step::Prune, Ends)] },
        M::Slow => match place {
            P::Node => REBOOT,
            P::Outside => NONE,
            _ => RESTART,
        },
        M::CorruptConfig => const { &[one(Step::PutConfig, EndsForFresh)] },
        M::CorruptModel | M::RegressModel => const { &[one(Step::PutModel, Ends)] },
        M::CorruptInput | M::Duplicate => const { &[one(Step::BlockSource, Shields)] },
        M::CorruptCache => const { &[one(Step::Flush, Ends), one(Step::Restart, Ends)] },
        M::CorruptStore => {
            const {
                &[
                    one(Step::RestoreSnapshot, Ends),
                    one(Step::RestoreCheckpoint, Ends),
                ]
            }
        }
        M::RegressBinary => const { &[one(Step::PutBinary, EndsForFresh)] },
        M::Drift => const { &[one(Step::Retrain, Ends)] },
        M::Disconnect | M::Delay | M::Lose => const { &[one(Step::SwitchUplink, Shields)] },
        M::Skew => const { &[one(Step::SyncClock, Ends)] },
        M::DenyCredential => const { &[one(Step::RotateCredential, EndsForFresh)] },
        M::DenyQuota => const { &[one(Step::LimitRate, Shields)] },
        M::DenyWrite => const { &[one(Step::Remount, Ends)] },
        M::Lock => const { &[one(Step::ClearLocks, EndsForFresh)] },
        // Power and air are out of reach; less work makes them bearable.
        M::Heat | M::BrownOut => NONE,
        M::LieFrozen | M::LieLate | M::LieWrong => REBOOT,
        M::Compete | M::Push => const { &[one(Step::PauseRollout, Ends)] },
        M::Surge => NONE,
    }
}

/// The strength from which a wrong configuration keeps a process from running.
const LETHAL: f64 = 0.5;

fn between(strength: f64, low: f64, high: f64) -> f64 {
    low + (high - low) * strength
}

/// What it lays on a replica.
pub(crate) fn on_replica(mechanism: Mechanism, s: f64, to: &mut ReplicaBurden) {
    use Mechanism as M;
    match mechanism {
        M::Hang => to.stuck = true,
        M::Lock => {
            // A hybrid of processor and memory: it spins for what it waits for and
            // holds what it had taken.
            to.stuck = true;
            to.spin += between(s, 0.5, 3.0);
            to.ballast_mb += between(s, 50.0, 900.0);
        }
        M::Spin => {
            to.spin += between(s, 1.0, 4.0);
            to.slow *= between(s, 1.2, 2.0);
        }
        M::LeakMemory => {
            to.leak_mb += between(s, 2.0, 24.0);
            to.slow *= between(s, 1.1, 1.6);
        }
        M::LeakDescriptors => to.leak_fds += between(s, 6.0, 40.0),
        M::LeakThreads => to.leak_threads += between(s, 3.0, 20.0),
        M::Slow => to.slow *= between(s, 2.0, 9.0),
        M::CorruptConfig if s >= LETHAL => to.doomed = true,
        M::CorruptConfig => {
            to.err = join(to.err, between(s, 0.1, 0.9));
            to.slow *= 1.3;
        }
        M::CorruptModel => {
            to.bad += between(s, 0.15, 0.6);
            to.err = join(to.err, between(s, 0.0, 0.1));
        }
        M::RegressModel => to.bad += between(s, 0.08, 0.35),
        M::CorruptCache => to.bad += between(s, 0.3, 0.8),
        M::CorruptStore => to.err = join(to.err, between(s, 0.1, 0.8)),
        M::RegressBinary => {
            to.slow *= between(s, 1.8, 5.0);
            to.leak_mb += between(s, 0.0, 6.0);
        }
        M::DenyCredential => to.err = join(to.err, between(s, 0.3, 1.0)),
        M::Die
        | M::LeakDisk
        | M::LeakInodes
        | M::CorruptInput
        | M::Drift
        | M::Disconnect
        | M::Delay
        | M::Lose
        | M::DenyQuota
        | M::DenyWrite
        | M::Heat
        | M::BrownOut
        | M::LieFrozen
        | M::LieLate
        | M::LieWrong
        | M::Duplicate
        | M::Compete
        | M::Push
        | M::Skew
        | M::Surge => {}
    }
}

/// What it lays on a route.
pub(crate) fn on_route(mechanism: Mechanism, s: f64, to: &mut RouteBurden) {
    use Mechanism as M;
    match mechanism {
        // Without a leader, or with nobody at the other end.
        M::Die => to.err = join(to.err, between(s, 0.5, 1.0)),
        M::Slow => to.slow *= between(s, 3.0, 20.0),
        M::CorruptInput => to.corrupt = join(to.corrupt, between(s, 0.2, 0.9)),
        M::Drift => to.drift += between(s, 0.0005, 0.005),
        M::DenyQuota => to.err = join(to.err, between(s, 0.1, 0.7)),
        M::Duplicate => to.extra += between(s, 0.3, 2.0),
        M::Surge => to.surge *= between(s, 1.3, 3.0),
        _ => {}
    }
}

/// What it lays on a node.
pub(crate) fn on_node(mechanism: Mechanism, place: Place, s: f64, to: &mut NodeBurden) {
    use Mechanism as M;
    match mechanism {
        M::Die if place == Place::Agent => to.deaf = true,
        M::Die => to.off = true,
        M::Hang => to.deaf = true,
        M::Spin => to.hog += between(s, 2.0, 16.0),
        M::LeakMemory => to.hog_mb += between(s, 600.0, 3600.0),
        M::Slow => to.io *= between(s, 2.0, 15.0),
        M::LeakDisk => to.fill_mb += between(s, 20.0, 400.0),
        M::LeakInodes => to.fill_inodes += between(s, 500.0, 20_000.0),
        M::Skew => to.clock_ahead += between(s, 90.0, 3600.0),
        M::DenyWrite => to.readonly = true,
        M::Heat => {
            to.warm += between(s, 5.0, 30.0);
            to.fan_dead |= s >= 0.3;
        }
        M::BrownOut => to.freq *= between(s, 0.9, 0.4),
        M::LieFrozen => to.telemetry = Telemetry::Frozen,
        M::LieLate => to.telemetry = Telemetry::Late(between(s, 20.0, 120.0)),
        M::LieWrong => to.telemetry = Telemetry::Wrong(between(s, 1.5, 6.0)),
        _ => {}
    }
}

/// What it lays on a link.
pub(crate) fn on_link(mechanism: Mechanism, s: f64, to: &mut LinkBurden) {
    use Mechanism as M;
    match mechanism {
        M::Disconnect => to.down = true,
        M::Delay => to.delay_ms += between(s, 60.0, 700.0),
        M::Lose => to.loss = join(to.loss, between(s, 0.05, 0.5)),
        _ => {}
    }
}

/// Of two independent shares, what at least one of them takes.
fn join(one: f64, other: f64) -> f64 {
    1.0 - (1.0 - one) * (1.0 - other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_is_somewhere_and_lays_something_on_what_it_is_at() {
        for mechanism in Mechanism::ALL {
            assert!(places(*mechanism).count() > 0, "{mechanism}");
            for place in places(*mechanism) {
                let mut replica = ReplicaBurden::NONE;
                let mut route = RouteBurden::NONE;
                let mut node = NodeBurden::NONE;
                let mut link = LinkBurden::default();
                let laid = match ground(*mechanism, place).unwrap() {
                    Ground::Replicas => {
                        on_replica(*mechanism, 0.7, &mut replica);
                        replica != ReplicaBurden::NONE
                    }
                    Ground::Route => {
                        on_route(*mechanism, 0.7, &mut route);
                        route != RouteBurden::NONE
                    }
                    Ground::Nodes => {
                        on_node(*mechanism, place, 0.7, &mut node);
                        node != NodeBurden::NONE
                    }
                    Ground::Links => {
                        on_link(*mechanism, 0.7, &mut link);
                        link != LinkBurden::default()
                    }
                };
                // These act at moments.
                let by_deed = matches!(
                    mechanism,
                    Mechanism::Die | Mechanism::Compete | Mechanism::Push
                ) && ground(*mechanism, place) == Some(Ground::Replicas);
                assert!(laid || by_deed, "{mechanism} at {place}");
            }
        }
    }

    #[test]
    fn burdens_stay_within_what_the_tick_can_take_however_many_there_are() {
        let mut replica = ReplicaBurden::NONE;
        let mut node = NodeBurden::NONE;
        let mut route = RouteBurden::NONE;
        let mut link = LinkBurden::default();
        for _ in 0..8 {
            for mechanism in Mechanism::ALL {
                on_replica(*mechanism, 1.0, &mut replica);
                on_route(*mechanism, 1.0, &mut route);
                on_node(*mechanism, Place::Node, 1.0, &mut node);
                on_link(*mechanism, 1.0, &mut link);
            }
        }
        for share in [replica.err, route.err, route.corrupt, link.loss] {
            assert!((0.0..=1.0).contains(&share));
        }
        assert!(replica.slow >= 1.0 && replica.slow.is_finite());
        assert!(route.surge.is_finite() && node.freq > 0.0 && node.freq <= 1.0);
    }
}
