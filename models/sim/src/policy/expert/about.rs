//! Which productions are about an incident: what an expert would lack who had never met
//! its mechanisms and its traps.
//!
//! In goes an incident, out come names of productions. Symptoms that have a production of
//! their own (a process that is gone, one that is mute) are left, unless the incident is
//! just that: a base without the incident's productions still sees what everybody sees. For
//! whoever measures; no policy is told an incident.

use std::collections::BTreeSet;

use super::Expert;
use crate::fault::{Coupling, Fault, Incident, Mechanism, Place, Step};

impl Expert {
    /// One that has never met the productions of an incident.
    #[must_use]
    pub fn left_out(incident: &Incident) -> Self {
        let names: Vec<&str> = about(incident).into_iter().collect();
        Self::without(&names)
    }
}

/// Names of the productions that are about an incident.
pub(super) fn about(incident: &Incident) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for fault in &incident.faults {
        names.extend(causes(fault));
        for coupling in &fault.couplings {
            names.extend(guards(coupling));
        }
    }
    names
}

fn causes(fault: &Fault) -> &'static [&'static str] {
    use Mechanism as M;
    use Place as P;
    match (fault.mechanism, fault.locus.place) {
        (M::Die, P::Broker) => &["leaderless"],
        (M::Die, P::Node | P::Site | P::Agent) | (M::Hang, P::Agent) => &["node-off", "frozen"],
        (M::Die, P::Outside) | (M::Slow, P::Outside) => &["quota"],
        (M::Die, _) => &["crash"],
        (M::Hang, _) => &["hang"],
        (M::Spin, P::Node) => &["stranger-cpu"],
        (M::Spin, _) => &["spin"],
        (M::LeakMemory, P::Node) => &["stranger-memory"],
        (M::LeakMemory, _) => &["leak"],
        (M::LeakDescriptors, _) => &["descriptors"],
        (M::LeakThreads, _) => &["threads"],
        (M::LeakDisk, _) => &["disk-full"],
        (M::LeakInodes, _) => &["inodes"],
        (M::Slow, P::Node) => &["slow-disk"],
        (M::Slow, _) => &["slow-replica", "slow-service"],
        (M::CorruptConfig, _) => &["config-lethal", "config-wrong"],
        (M::CorruptModel | M::RegressModel, _) => &["model-slot", "model-all"],
        (M::CorruptInput, _) => &["rubbish"],
        (M::CorruptCache, _) => &["cache"],
        (M::CorruptStore, _) => &["store"],
        (M::RegressBinary, _) => &["binary", "program-first"],
        (M::Drift, _) => &["drift"],
        (M::Disconnect | M::Delay | M::Lose, _) => &["uplink"],
        (M::Skew, _) => &["clock"],
        (M::DenyCredential, _) => &["credential"],
        (M::DenyQuota, _) => &["quota"],
        (M::DenyWrite, _) => &["read-only"],
        (M::Lock, _) => &["lock"],
        (M::Heat | M::BrownOut, _) => &["hot"],
        (M::LieFrozen | M::LieLate | M::LieWrong, _) => &["frozen"],
        (M::Duplicate, _) => &["duplicate"],
        (M::Compete, _) => &["other-healer"],
        (M::Push, _) => &["push"],
        (M::Surge, _) => &["short", "storm"],
    }
}

fn guards(coupling: &Coupling) -> Vec<&'static str> {
    match coupling {
        Coupling::ReInfects => Vec::new(),
        Coupling::Returns { .. } => vec!["pause-first", "clock-before-pause"],
        Coupling::MovesLoad { .. } => vec!["reserve"],
        Coupling::Hides { .. } => Vec::new(),
        Coupling::Holds { step, .. } => held(*step).to_vec(),
        Coupling::Breaks { on, unless, .. } => {
            let first = unless.map_or(&[][..], protects);
            [harmed(*on), first].concat()
        }
        Coupling::Heals { unless, .. } => {
            let mut names = harmed(*unless).to_vec();
            names.extend(["fix-under-way", "let-it-replay", "let-it-catch-up"]);
            names
        }
    }
}

/// Guards against a step that is refused while something else holds what it needs.
fn held(step: Step) -> &'static [&'static str] {
    match step {
        Step::RotateCredential => &["clock-first", "link-first", "leader-and-new"],
        Step::SyncClock => &["clock-last"],
        Step::FailoverBroker => &["leader-and-new", "let-it-catch-up"],
        Step::PutModel | Step::PutConfig | Step::Snapshot | Step::RestoreSnapshot => {
            &["room-first", "writable-first"]
        }
        Step::ClearLocks => &["room-first", "writable-first", "let-it-replay"],
        Step::Prune => &["writable-first"],
        Step::PutBinary => &[
            "config-before-binary",
            "clock-first",
            "link-first",
            "leader-and-new",
        ],
        Step::PauseRollout => &["clock-before-pause"],
        _ => &[],
    }
}

/// Guards against a step that brings harm.
fn harmed(step: Step) -> &'static [&'static str] {
    match step {
        Step::Restart | Step::Reboot | Step::Freeze => &["copy-first", "leader-before-start"],
        Step::Prune => &["last-copy"],
        Step::Snapshot => &["no-room-to-copy"],
        Step::Remount => &["apart-before-mount"],
        Step::PauseRollout => &[
            "fix-under-way",
            "binary-before-pause",
            "config-before-pause",
            "clock-before-pause",
        ],
        Step::PutModel | Step::PutConfig | Step::PutBinary => {
            &["fix-under-way", "config-before-binary"]
        }
        Step::LimitRate | Step::LimitCpu | Step::BlockSource | Step::ResetPool | Step::Flush => {
            &["no-flush"]
        }
        Step::FailoverBroker => &["let-it-catch-up", "leader-and-new"],
        Step::ScaleOut | Step::Prewarm => &["stale-standby"],
        Step::RotateCredential | Step::SyncClock => &["clock-first", "clock-last", "link-first"],
        Step::ClearLocks => &["let-it-replay"],
        Step::Isolate | Step::Release | Step::Reroute => &["reserve"],
        Step::SwitchUplink => &["link-last", "link-first", "leader-before-link"],
        Step::Retrain => &["pause-before-training"],
        Step::RestoreSnapshot | Step::RestoreCheckpoint | Step::KillStranger | Step::Degrade => {
            &["fix-under-way"]
        }
    }
}

/// Guards that put a protecting step first.
fn protects(step: Step) -> &'static [&'static str] {
    match step {
        Step::Snapshot => &["copy-first", "state-first"],
        Step::Isolate => &["apart-before-mount"],
        Step::PauseRollout => &["pause-first", "pause-before-training"],
        Step::ScaleOut | Step::Prewarm | Step::Degrade => &["reserve"],
        Step::SyncClock => &["clock-first", "clock-before-pause"],
        Step::RotateCredential => &["clock-last", "link-last", "leader-and-new"],
        Step::SwitchUplink => &["link-first"],
        Step::FailoverBroker => &[
            "leader-before-start",
            "leader-before-link",
            "leader-and-new",
        ],
        Step::PutConfig => &["config-before-binary", "config-before-pause", "last-copy"],
        Step::PutModel => &["last-copy"],
        Step::PutBinary => &["binary-before-pause", "clock-last", "link-last"],
        Step::Prune => &["room-first"],
        Step::Remount => &["writable-first"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PRODUCTIONS;

    #[test]
    fn every_name_is_one_of_a_production_and_every_incident_has_one() {
        let all: BTreeSet<_> = PRODUCTIONS.iter().map(|one| one.name).collect();
        for (name, text) in Incident::train().iter().chain(Incident::development()) {
            let incident = Incident::read(name, text).unwrap();
            let names = about(&incident);
            assert!(!names.is_empty(), "{name}");
            assert!(names.is_subset(&all), "{name}: {names:?}");
            assert_eq!(Expert::left_out(&incident).without.len(), names.len());
        }
        for step in Step::ALL {
            for list in [held(*step), harmed(*step), protects(*step)] {
                assert!(list.iter().all(|name| all.contains(name)), "{list:?}");
            }
        }
    }

    #[test]
    fn the_trap_is_left_out_with_its_mechanism() {
        let incident = Incident::named("deadlock").unwrap();
        assert_eq!(about(&incident), BTreeSet::from(["lock"]));
        let names = about(&Incident::named("hung-store-unflushed").unwrap());
        assert!(names.contains("hang") && names.contains("copy-first"));
    }
}
