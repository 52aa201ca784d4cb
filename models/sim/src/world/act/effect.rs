//! What each deed does to the world, and how it is taken back.
//!
//! In goes a deed whose time has come; out comes the changed state, announced to the
//! engine of faults, and what stood there before. Whether a thing is bad is not known
//! here: a fault that lies on it says so by its burden.

use super::{Deed, Failure, PROBE_ERR, PROBE_LATE_S};
use crate::chance::Chance;
use crate::fault::Engine;
use crate::topology::{Errand, LinkNo, NodeNo, ReplicaNo, RouteNo, Topology, Version};
use crate::world::Happened;
use crate::world::state::{INODES, Phase, State};

/// Spread of the times in which a service comes up, of their logarithm.
const START_SIGMA: f64 = 0.35;
/// Time between TERM and the end of a process that hears it, in seconds.
const ENDS_S: f64 = 0.5;
/// Longest time for which connections are still there to be drained, in seconds.
const DRAIN_S: f64 = 2.0;
/// How old a copy may be from which a new replica gets its state, in seconds.
const COPY_S: f64 = 600.0;
/// Least share of the processors, so that times stay finite.
const CPU_MIN: f64 = 0.01;
/// Quality that training on corrupt input costs, for all of it.
const POISONED: f64 = 0.1;

/// What stood there before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Before {
    Nothing,
    Weight(f64),
    Weights(f64, f64),
    Version(Version),
    Limit(f64),
    Uplink(LinkNo),
    Phase(Phase),
}

/// The world, to be changed.
pub(super) struct Hands<'w> {
    pub(super) topology: &'w Topology,
    pub(super) state: &'w mut State,
    pub(super) engine: &'w mut Engine,
    pub(super) starts: Chance,
}

/// How long it takes until a deed takes effect, usually, in seconds.
pub(super) fn seconds(deed: &Deed, state: &State) -> f64 {
    match *deed {
        Deed::Restart(replica, grace) => match state.replicas[replica.at()].phase {
            // Nobody hears the TERM.
            Phase::Hung | Phase::Frozen => grace.as_secs_f64().max(ENDS_S),
            Phase::Running | Phase::Starting { .. } => ENDS_S,
            Phase::Dead | Phase::Standby => 0.0,
        },
        Deed::Isolate(_, drain) => 0.5 + drain.as_secs_f64().min(DRAIN_S),
        Deed::ScaleIn(_, drain) => 1.0 + drain.as_secs_f64().min(DRAIN_S),
        Deed::Wait(span) => span.as_secs_f64(),
        Deed::Probe(..) => 0.0,
        // Copied, checked, swapped and read again by the service.
        Deed::PutModel(..) => 8.0,
        Deed::Prune(..) | Deed::RestoreSnapshot(_) => 8.0,
        Deed::Snapshot(_) => 6.0,
        Deed::PutConfig(..)
        | Deed::SyncClock(_)
        | Deed::SwitchUplink(..)
        | Deed::ReleaseUplink(_)
        | Deed::Remount(_) => 3.0,
        Deed::ClearLocks(_)
        | Deed::FlushCache(_)
        | Deed::ResetPool(_)
        | Deed::Degrade(_)
        | Deed::Undegrade(_) => 2.0,
        Deed::Release(_)
        | Deed::Reroute(..)
        | Deed::Freeze(_)
        | Deed::LimitCpu(..)
        | Deed::UnlimitCpu(_)
        | Deed::LimitRate(..)
        | Deed::UnlimitRate(_)
        | Deed::BlockSource(..)
        | Deed::UnblockSource(_)
        | Deed::BlockPort(..)
        | Deed::UnblockPort(_)
        | Deed::Call(..)
        | Deed::Escalate(_) => 1.0,
        Deed::ScaleOut(_) | Deed::Prewarm(_) | Deed::Thaw(_) => 0.5,
    }
}

/// What would happen, for the engine to refuse; `None` when nothing can hold it.
pub(super) fn attempt(deed: &Deed) -> Option<Happened> {
    Some(match *deed {
        Deed::Restart(replica, _) => Happened::Started(replica),
        Deed::PutModel(replica, version) => Happened::ModelPut(replica, version),
        Deed::PutConfig(replica, version) => Happened::ConfigPut(replica, version),
        Deed::Prune(replica, _) => Happened::Pruned(replica),
        Deed::Isolate(replica, _) => Happened::Isolated(replica),
        Deed::Release(replica) => Happened::Released(replica),
        Deed::Reroute(from, to, _) => Happened::LoadMoved(from, to),
        Deed::ScaleOut(replica) => Happened::ScaledOut(replica),
        Deed::ScaleIn(replica, _) => Happened::ScaledIn(replica),
        Deed::Freeze(replica) => Happened::Frozen(replica),
        Deed::Thaw(replica) => Happened::Thawed(replica),
        Deed::LimitCpu(replica, _) => Happened::CpuLimited(replica),
        Deed::UnlimitCpu(replica) => Happened::CpuFreed(replica),
        Deed::LimitRate(route, _) => Happened::RateLimited(route),
        Deed::UnlimitRate(route) => Happened::RateFreed(route),
        Deed::BlockSource(route, theirs) => Happened::SourceBlocked(route, theirs),
        Deed::UnblockSource(route) => Happened::SourceFreed(route),
        Deed::Prewarm(replica) => Happened::Prewarmed(replica),
        Deed::ClearLocks(replica) => Happened::LocksCleared(replica),
        Deed::Snapshot(replica) => Happened::SnapshotTaken(replica),
        Deed::RestoreSnapshot(replica) => Happened::SnapshotRestored(replica),
        Deed::FlushCache(replica) => Happened::Flushed(replica),
        Deed::ResetPool(replica) => Happened::PoolReset(replica),
        Deed::Degrade(replica) => Happened::Degraded(replica),
        Deed::Undegrade(replica) => Happened::Undegraded(replica),
        Deed::SyncClock(node) => Happened::ClockSet(node),
        Deed::SwitchUplink(node, link) => Happened::UplinkSwitched(node, link),
        Deed::ReleaseUplink(node) => Happened::UplinkReleased(node),
        Deed::BlockPort(replica, theirs) => Happened::PortBlocked(replica, theirs),
        Deed::UnblockPort(replica) => Happened::PortFreed(replica),
        Deed::Remount(replica) => Happened::Remounted(replica),
        Deed::Call(errand, _, replica) => Happened::Done(errand, replica),
        Deed::Probe(..) | Deed::Wait(_) | Deed::Escalate(_) => return None,
    })
}

/// The share of its route's requests that a deed takes away for a while.
pub(super) fn share(deed: &Deed, state: &State) -> f64 {
    match *deed {
        Deed::Restart(replica, _) | Deed::Freeze(replica) => {
            state.replicas[replica.at()].fixed.share
        }
        _ => 0.0,
    }
}

impl Hands<'_> {
    /// Has a deed take effect.
    pub(super) fn apply(&mut self, deed: &Deed) -> Result<Before, Failure> {
        let mut before = Before::Nothing;
        match *deed {
            Deed::Wait(_) | Deed::Probe(..) => return Ok(before),
            Deed::Restart(replica, _) => {
                if self.state.replicas[replica.at()].lives() {
                    self.stop(replica, Phase::Dead);
                }
                self.start(replica);
                return Ok(before);
            }
            Deed::ScaleOut(replica) => {
                let route = self.topology.replicas[replica.at()].route;
                if self.topology.routes[route.at()].stateful && !self.copied(route) {
                    return Err(Failure::NoState);
                }
                before = self.spare_start(replica);
                return Ok(before);
            }
            Deed::Prewarm(replica) => return Ok(self.spare_start(replica)),
            Deed::ScaleIn(replica, _) => {
                let state = &mut self.state.replicas[replica.at()];
                before = Before::Weight(state.weight);
                state.weight = 0.0;
                self.stop(replica, Phase::Standby);
            }
            Deed::PutModel(replica, version) => {
                self.writable(replica)?;
                let slot = &mut self.state.replicas[replica.at()].model;
                before = Before::Version(core::mem::replace(slot, version));
            }
            Deed::PutConfig(replica, version) => {
                self.writable(replica)?;
                let slot = &mut self.state.replicas[replica.at()].config;
                before = Before::Version(core::mem::replace(slot, version));
            }
            Deed::Prune(replica, share) => self.prune(replica, share)?,
            Deed::Isolate(replica, _) => before = self.weigh(replica, 0.0),
            Deed::Release(replica) => before = self.weigh(replica, self.usual(replica)),
            Deed::Reroute(from, to, share) => {
                let (a, b) = (self.usual(from), self.usual(to));
                let weights = (
                    self.state.replicas[from.at()].weight,
                    self.state.replicas[to.at()].weight,
                );
                before = Before::Weights(weights.0, weights.1);
                self.weigh(from, a * (1.0 - share));
                self.weigh(to, b + a * share);
            }
            Deed::Freeze(replica) => {
                let state = &mut self.state.replicas[replica.at()];
                before = Before::Phase(state.phase);
                if matches!(state.phase, Phase::Running | Phase::Hung) {
                    state.phase = Phase::Frozen;
                }
            }
            Deed::Thaw(replica) => {
                let state = &mut self.state.replicas[replica.at()];
                if matches!(state.phase, Phase::Frozen) {
                    // What blocked before blocks again.
                    state.phase = if state.burden.stuck {
                        Phase::Hung
                    } else {
                        Phase::Running
                    };
                }
            }
            Deed::LimitCpu(replica, share) => {
                let limit = &mut self.state.replicas[replica.at()].cpu_limit;
                before = Before::Limit(core::mem::replace(limit, share.max(CPU_MIN)));
            }
            Deed::UnlimitCpu(replica) => self.state.replicas[replica.at()].cpu_limit = 1.0,
            Deed::LimitRate(route, rate) => {
                let limit = &mut self.state.routes[route.at()].limit;
                before = Before::Limit(core::mem::replace(limit, rate));
            }
            Deed::UnlimitRate(route) => self.state.routes[route.at()].limit = f64::INFINITY,
            Deed::BlockSource(route, theirs) => self.state.routes[route.at()].blocked |= theirs,
            Deed::UnblockSource(route) => self.state.routes[route.at()].blocked = false,
            Deed::ClearLocks(replica) => self.writable(replica)?,
            Deed::Snapshot(replica) => {
                self.writable(replica)?;
                self.state.replicas[replica.at()].copied = Some(self.state.now);
            }
            Deed::RestoreSnapshot(replica) => {
                self.writable(replica)?;
                if self.state.replicas[replica.at()].copied.is_none() {
                    return Err(Failure::NoCopy);
                }
            }
            Deed::FlushCache(replica) => {
                self.serving(replica)?;
                self.state.replicas[replica.at()].warm = 0.0;
            }
            Deed::ResetPool(replica) => self.serving(replica)?,
            Deed::Degrade(replica) | Deed::Undegrade(replica) => {
                self.serving(replica)?;
                let degraded = matches!(deed, Deed::Degrade(_));
                self.state.replicas[replica.at()].degraded = degraded;
            }
            Deed::SyncClock(node) => {
                if !super::reachable(self.topology, self.state, node) {
                    return Err(Failure::NoAnswer);
                }
                self.state.nodes[node.at()].clock_s = 0.0;
            }
            Deed::SwitchUplink(node, link) => {
                let uplink = &mut self.state.nodes[node.at()].uplink;
                before = Before::Uplink(core::mem::replace(uplink, link));
            }
            Deed::ReleaseUplink(node) => {
                self.state.nodes[node.at()].uplink = self.topology.nodes[node.at()].uplinks[0];
            }
            Deed::BlockPort(replica, theirs) => {
                self.state.replicas[replica.at()].port_blocked |= theirs;
            }
            Deed::UnblockPort(replica) => self.state.replicas[replica.at()].port_blocked = false,
            // What follows from these is the engine's.
            Deed::Remount(_) | Deed::Escalate(_) => {}
            Deed::Call(errand, _, replica) => self.errand(errand, replica),
        }
        self.state.stale = true;
        if let Some(what) = attempt(deed) {
            self.announce(what);
        }
        Ok(before)
    }

    /// What remains to be done once the service runs, or answers.
    pub(super) fn complete(&mut self, deed: &Deed) {
        match *deed {
            Deed::ScaleOut(replica) => {
                let route = self.topology.replicas[replica.at()].route;
                let own = self.usual(replica);
                let backends = &self.topology.routes[route.at()].replicas;
                let weights = backends
                    .iter()
                    .map(|no| self.state.replicas[no.at()].weight);
                let most = weights.fold(0.0, f64::max);
                self.weigh(replica, if most > 0.0 { most } else { own });
                self.announce(Happened::ScaledOut(replica));
            }
            Deed::Prewarm(replica) => self.announce(Happened::Prewarmed(replica)),
            Deed::Probe(replica, _) => self.announce(Happened::Probed(replica)),
            Deed::Escalate(replica) => self.announce(Happened::Escalated(replica)),
            _ => {}
        }
    }

    /// Takes a deed back.
    pub(super) fn take_back(&mut self, deed: &Deed, before: Before) {
        match (*deed, before) {
            (Deed::Isolate(replica, _), Before::Weight(weight)) => {
                self.weigh(replica, weight);
                self.announce(Happened::Released(replica));
            }
            (Deed::Reroute(from, to, _), Before::Weights(one, other)) => {
                self.weigh(from, one);
                self.weigh(to, other);
                self.announce(Happened::LoadMoved(to, from));
            }
            (Deed::ScaleOut(replica) | Deed::Prewarm(replica), Before::Phase(Phase::Standby)) => {
                self.weigh(replica, 0.0);
                self.stop(replica, Phase::Standby);
                self.announce(Happened::ScaledIn(replica));
            }
            (Deed::ScaleIn(replica, _), Before::Weight(weight)) => {
                self.weigh(replica, weight);
                self.start(replica);
            }
            (Deed::PutModel(replica, _), Before::Version(version)) => {
                self.state.replicas[replica.at()].model = version;
                self.announce(Happened::ModelPut(replica, version));
            }
            (Deed::PutConfig(replica, _), Before::Version(version)) => {
                self.state.replicas[replica.at()].config = version;
                self.announce(Happened::ConfigPut(replica, version));
            }
            (Deed::Freeze(replica), Before::Phase(phase)) => {
                let state = &mut self.state.replicas[replica.at()];
                if matches!(state.phase, Phase::Frozen) {
                    state.phase = phase;
                }
                self.announce(Happened::Thawed(replica));
            }
            (Deed::LimitCpu(replica, _), Before::Limit(limit)) => {
                self.state.replicas[replica.at()].cpu_limit = limit;
                self.announce(Happened::CpuFreed(replica));
            }
            (Deed::LimitRate(route, _), Before::Limit(limit)) => {
                self.state.routes[route.at()].limit = limit;
                self.announce(Happened::RateFreed(route));
            }
            (Deed::BlockSource(route, _), _) => {
                self.state.routes[route.at()].blocked = false;
                self.announce(Happened::SourceFreed(route));
            }
            (Deed::Degrade(replica), _) => {
                self.state.replicas[replica.at()].degraded = false;
                self.announce(Happened::Undegraded(replica));
            }
            (Deed::SwitchUplink(node, _), Before::Uplink(link)) => {
                self.state.nodes[node.at()].uplink = link;
                self.announce(Happened::UplinkReleased(node));
            }
            (Deed::BlockPort(replica, _), _) => {
                self.state.replicas[replica.at()].port_blocked = false;
                self.announce(Happened::PortFreed(replica));
            }
            // Nothing was changed, or what was there is there again by itself.
            _ => {}
        }
        self.state.stale = true;
    }

    /// Whether the operator can do it at all.
    pub(super) fn can(&self, errand: Errand, replica: ReplicaNo) -> Result<(), Failure> {
        let known = &self.topology.replicas[replica.at()];
        match errand {
            Errand::Reboot => {
                let nodes = (0..self.topology.nodes.len()).map(NodeNo::new);
                let others: Vec<NodeNo> = nodes.filter(|node| *node != known.node).collect();
                let up = others.iter().filter(|node| self.state.up(**node)).count();
                if 2 * up > others.len() {
                    Ok(())
                } else {
                    Err(Failure::NoQuorum)
                }
            }
            Errand::FailoverBroker => {
                let of = &self.topology.routes[known.route.at()];
                let runs = |no: &&ReplicaNo| {
                    matches!(self.state.replicas[no.at()].phase, Phase::Running)
                        && self.state.up(self.topology.replicas[no.at()].node)
                };
                if of.replicas.iter().filter(runs).any(|no| *no != replica) {
                    Ok(())
                } else {
                    Err(Failure::NoOther)
                }
            }
            Errand::RotateCredential
            | Errand::Retrain
            | Errand::RollbackBinary
            | Errand::PauseRollout
            | Errand::KillStranger
            | Errand::RestoreCheckpoint => Ok(()),
        }
    }

    /// What the operator was asked for comes about.
    pub(super) fn errand(&mut self, errand: Errand, replica: ReplicaNo) {
        match errand {
            Errand::PauseRollout => self.state.rollout_paused = true,
            Errand::RestoreCheckpoint => self.state.training.broken = false,
            Errand::Retrain => {
                let route = self.topology.replicas[replica.at()].route;
                let route = &mut self.state.routes[route.at()];
                // What it learns from is what there is.
                route.drifted = POISONED * route.fixed.corrupt;
            }
            Errand::Reboot
            | Errand::RotateCredential
            | Errand::FailoverBroker
            | Errand::RollbackBinary
            | Errand::KillStranger => {}
        }
        self.state.stale = true;
        self.announce(Happened::Done(errand, replica));
    }

    /// A node goes down to come up again; what that takes from the users' way.
    pub(super) fn reboot(&mut self, replica: ReplicaNo, seconds: f64) -> f64 {
        let node = self.topology.replicas[replica.at()].node;
        let replicas = &self.topology.nodes[node.at()].replicas;
        let shares = replicas
            .iter()
            .map(|no| self.state.replicas[no.at()].fixed.share);
        let disruption = shares.sum::<f64>() * seconds;
        self.state.reboot(self.topology, node, seconds);
        self.announce(Happened::Done(Errand::Reboot, replica));
        disruption
    }

    /// Whether a replica answers rightly and in time, by itself.
    pub(super) fn answers(&self, replica: ReplicaNo) -> bool {
        let state = &self.state.replicas[replica.at()];
        matches!(state.phase, Phase::Running)
            && self.state.up(self.topology.replicas[replica.at()].node)
            && state.fixed.err < PROBE_ERR
            && state.own.mean < PROBE_LATE_S
    }

    /// Starts a process.
    fn start(&mut self, replica: ReplicaNo) {
        start(self.topology, self.state, self.starts, replica);
    }

    /// Starts a standby, unless it runs.
    fn spare_start(&mut self, replica: ReplicaNo) -> Before {
        let state = &self.state.replicas[replica.at()];
        if state.lives() {
            return Before::Nothing;
        }
        self.start(replica);
        Before::Phase(Phase::Standby)
    }

    /// Ends a process on purpose.
    fn stop(&mut self, replica: ReplicaNo, then: Phase) {
        self.state.replicas[replica.at()].phase = then;
        self.state.drop_process(self.topology, replica);
        self.announce(Happened::Stopped(replica));
    }

    fn prune(&mut self, replica: ReplicaNo, share: f64) -> Result<(), Failure> {
        let known = &self.topology.replicas[replica.at()];
        let node = &mut self.state.nodes[known.node.at()];
        if node.burden.readonly {
            return Err(Failure::NoRoom);
        }
        node.litter_mb *= share;
        node.inodes = INODES + (node.inodes - INODES).max(0.0) * share;
        let data = &mut self.state.replicas[replica.at()].data_mb;
        *data = data.min(known.quota_mb * share);
        Ok(())
    }

    /// Gives a backend a weight; what it had before.
    fn weigh(&mut self, replica: ReplicaNo, weight: f64) -> Before {
        self.state.stale = true;
        let own = &mut self.state.replicas[replica.at()].weight;
        Before::Weight(core::mem::replace(own, weight))
    }

    fn usual(&self, replica: ReplicaNo) -> f64 {
        self.topology.replicas[replica.at()].weight
    }

    /// Whether somewhere there is a copy of a route's state that is young enough.
    fn copied(&self, route: RouteNo) -> bool {
        let replicas = &self.topology.routes[route.at()].replicas;
        let copies = replicas
            .iter()
            .filter_map(|no| self.state.replicas[no.at()].copied);
        copies.into_iter().any(|at| self.state.now - at <= COPY_S)
    }

    /// Whether files of a replica can be written.
    fn writable(&self, replica: ReplicaNo) -> Result<(), Failure> {
        let node = self.topology.replicas[replica.at()].node;
        if self.state.nodes[node.at()].stuck_disk {
            Err(Failure::NoRoom)
        } else {
            Ok(())
        }
    }

    /// Whether a replica can be asked for something.
    fn serving(&self, replica: ReplicaNo) -> Result<(), Failure> {
        if matches!(self.state.replicas[replica.at()].phase, Phase::Running) {
            Ok(())
        } else {
            Err(Failure::NotServing)
        }
    }

    fn announce(&mut self, what: Happened) {
        self.engine.happened(self.topology, self.state, what);
    }
}

/// Starts a process; it comes up after a time of its own.
pub(in crate::world) fn start(
    topology: &Topology,
    state: &mut State,
    chance: Chance,
    replica: ReplicaNo,
) {
    let route = topology.replicas[replica.at()].route;
    let median = topology.routes[route.at()].start_s;
    let left = chance.lognormal(median, START_SIGMA, state.tick, u64::from(replica.0));
    let own = &mut state.replicas[replica.at()];
    own.phase = Phase::Starting { left };
    own.starts += 1;
    state.stale = true;
}
