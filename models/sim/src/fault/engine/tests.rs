use super::*;
use crate::fault::Incident;
use crate::fault::burden::{LinkBurden, NodeBurden, ReplicaBurden, RouteBurden};
use crate::topology::Version;

/// An engine with a state that nothing else moves.
struct Bench {
    topology: Topology,
    state: State,
    engine: Engine,
}

/// Faults as rows: id, mechanism, locus, other keys.
fn bench(faults: &[(&str, &str, &str, &str)]) -> Bench {
    let mut text = "name = \"x\"\nabout = \"\"\ntopology = \"reference\"\n".to_owned();
    for (id, mechanism, locus, rest) in faults {
        text += &format!(
            "[[fault]]\nid = \"{id}\"\nmechanism = \"{mechanism}\"\nlocus = \"{locus}\"\n{rest}\n"
        );
    }
    let topology = Topology::reference();
    let incident = Incident::read("x.toml", &text).unwrap();
    let engine = Engine::new(&topology, &incident, 1).unwrap();
    let mut bench = Bench {
        state: State::new(&topology),
        topology,
        engine,
    };
    bench.after(0.0);
    bench
}

impl Bench {
    /// So many seconds after the onset.
    fn after(&mut self, seconds: f64) {
        let until = self.engine.onset() + seconds;
        while self.state.now < until {
            self.state.now = (self.state.now + 1.0).min(until);
            self.engine.tick(&self.topology, &mut self.state);
        }
    }

    fn no(&self, name: &str) -> ReplicaNo {
        self.topology.replica_no(&name.parse().unwrap()).unwrap()
    }

    fn tell(&mut self, what: Happened) {
        self.engine.happened(&self.topology, &mut self.state, what);
    }

    fn refused(&mut self, what: Happened) -> Option<&'static str> {
        let refusal = self.engine.refuses(&self.topology, &self.state, what);
        refusal.map(|refusal| refusal.why)
    }

    /// A restart, as the world tells it.
    fn restart(&mut self, name: &str) {
        let replica = self.no(name);
        self.tell(Happened::Stopped(replica));
        self.state.replicas[replica.at()].phase = Phase::Running;
        self.tell(Happened::Started(replica));
    }

    fn phase(&self, name: &str) -> Phase {
        self.state.replicas[self.no(name).at()].phase
    }

    fn burden(&self, name: &str) -> ReplicaBurden {
        self.state.replicas[self.no(name).at()].burden
    }

    /// No burden is left anywhere, to the last bit.
    fn unburdened(&self) -> bool {
        let state = &self.state;
        state
            .replicas
            .iter()
            .all(|r| r.burden == ReplicaBurden::NONE)
            && state.routes.iter().all(|r| r.burden == RouteBurden::NONE)
            && state.nodes.iter().all(|n| n.burden == NodeBurden::NONE)
            && state
                .links
                .iter()
                .all(|l| l.burden == LinkBurden::default())
    }
}

#[test]
fn nothing_goes_wrong_before_the_onset_and_the_seed_moves_it() {
    let topology = Topology::reference();
    let incident = Incident::named("crash-infer").unwrap();
    let onsets: Vec<f64> = (0..20)
        .map(|seed| Engine::new(&topology, &incident, seed).unwrap().onset())
        .collect();
    assert!(onsets.iter().all(|at| (60.0..90.0).contains(at)));
    assert!(onsets.iter().any(|at| *at < 70.0) && onsets.iter().any(|at| *at > 80.0));
}

#[test]
fn a_lock_is_not_cleared_while_its_holder_lives_and_is_caught_by_whoever_starts() {
    let coupling = "coupling = [\"re-infects\"]";
    let mut bench = bench(&[("lock", "lock", "replica infer-1", coupling)]);
    let (holder, sibling) = (bench.no("infer-1"), bench.no("infer-2"));
    assert_eq!(bench.phase("infer-1"), Phase::Hung);
    assert!(bench.burden("infer-1").spin > 0.0);
    assert!(bench.refused(Happened::LocksCleared(holder)).is_some());
    // Nobody else is ill before it starts.
    assert_eq!(bench.burden("infer-2"), ReplicaBurden::NONE);
    bench.restart("infer-2");
    bench.after(20.0);
    assert_eq!(bench.phase("infer-2"), Phase::Hung);
    bench.restart("infer-1");
    assert_eq!(bench.phase("infer-1"), Phase::Running);
    bench.after(40.0);
    assert_eq!(bench.phase("infer-1"), Phase::Hung, "it wanted the lock");
    bench.restart("infer-1");
    assert_eq!(bench.refused(Happened::LocksCleared(holder)), None);
    bench.tell(Happened::LocksCleared(holder));
    assert_eq!(bench.engine.roots_left(), 0);
    // The sibling still waits for what is gone.
    assert_eq!(bench.phase("infer-2"), Phase::Hung);
    bench.restart("infer-2");
    bench.after(80.0);
    assert_eq!(bench.phase("infer-1"), Phase::Running);
    assert_eq!(bench.state.replicas[sibling.at()].phase, Phase::Running);
    assert!(bench.unburdened());
}

#[test]
fn what_is_put_back_comes_again_until_the_upstream_is_gone() {
    let coupling = "coupling = [\"returns after 20s while push\"]";
    let mut bench = bench(&[
        ("push", "push", "model infer", ""),
        ("model", "regress model", "replica infer-1", coupling),
    ]);
    let replica = bench.no("infer-1");
    let good = Happened::ModelPut(replica, Version::Good);
    bench.tell(Happened::ModelPut(replica, Version::Staged));
    assert!(
        bench.burden("infer-1").bad > 0.0,
        "a candidate is no way back"
    );
    bench.tell(good);
    assert_eq!(bench.burden("infer-1"), ReplicaBurden::NONE);
    assert_eq!(bench.engine.roots_left(), 2, "it will be back");
    bench.after(25.0);
    assert!(bench.burden("infer-1").bad > 0.0);
    bench.tell(Happened::Done(Errand::PauseRollout, bench.no("store-1")));
    bench.tell(good);
    bench.after(80.0);
    assert!(bench.unburdened());
    assert_eq!(bench.engine.roots_left(), 0);
}

#[test]
fn a_held_step_is_refused_and_tries_lock_out() {
    let coupling = "coupling = [\"holds rotate-credential tries 1 lockout 60s\"]";
    let mut bench = bench(&[("skew", "skew", "node edge-4", coupling)]);
    let rotate = Happened::Done(Errand::RotateCredential, bench.no("store-1"));
    let elsewhere = Happened::Done(Errand::RotateCredential, bench.no("gateway-1"));
    assert_eq!(bench.refused(elsewhere), None);
    assert!(bench.refused(rotate).unwrap().contains("held"));
    assert!(bench.refused(rotate).unwrap().contains("held"));
    let node = bench.topology.replicas()[bench.no("store-1").at()].node;
    bench.tell(Happened::ClockSet(node));
    assert_eq!(bench.engine.roots_left(), 0);
    assert!(bench.refused(rotate).unwrap().contains("locked out"));
    bench.after(70.0);
    assert_eq!(bench.refused(rotate), None);
}

#[test]
fn a_wrong_first_step_brings_what_stays_unless_another_came_before() {
    let coupling = "coupling = [\"breaks on restart unless snapshot then lost\"]";
    let faults = [
        ("hang", "hang", "replica store-1", coupling),
        (
            "lost",
            "corrupt store",
            "replica store-1",
            "trigger = \"coupled\"",
        ),
    ];
    let mut wrong = bench(&faults);
    wrong.restart("store-1");
    assert!(wrong.burden("store-1").err > 0.0);
    assert_eq!(wrong.engine.roots_left(), 1);
    let mut right = bench(&faults);
    right.tell(Happened::SnapshotTaken(right.no("store-1")));
    right.restart("store-1");
    assert!(right.unburdened());
    // Of another replica it protects nothing.
    let mut other = bench(&faults);
    other.tell(Happened::SnapshotTaken(other.no("store-2")));
    other.restart("store-1");
    assert_eq!(other.engine.roots_left(), 1);
}

#[test]
fn what_would_end_by_itself_stays_when_that_is_stopped() {
    let coupling = "coupling = [\"heals after 30s unless pause-rollout\"]";
    let faults = [("model", "regress model", "replica infer-1", coupling)];
    let mut left = bench(&faults);
    left.after(31.0);
    assert!(left.unburdened());
    let mut stopped = bench(&faults);
    stopped.tell(Happened::Done(Errand::PauseRollout, stopped.no("infer-1")));
    stopped.after(90.0);
    assert_eq!(stopped.engine.roots_left(), 1);
}

#[test]
fn what_hides_shows_when_the_other_is_gone() {
    let coupling = "coupling = [\"hides behind hog\"]";
    let mut bench = bench(&[
        ("hog", "spin", "node edge-1", ""),
        ("slow", "slow", "replica infer-1", coupling),
    ]);
    assert_eq!(bench.burden("infer-1"), ReplicaBurden::NONE);
    bench.tell(Happened::Done(Errand::KillStranger, bench.no("gateway-1")));
    assert!(bench.burden("infer-1").slow > 1.0);
    assert_eq!(bench.engine.roots_left(), 1);
}

#[test]
fn a_link_that_flaps_is_left_and_met_again() {
    let trigger = "trigger = \"every 60s for 20s\"";
    let mut bench = bench(&[("flap", "disconnect", "link edge-1/eth0", trigger)]);
    let node = bench.topology.node_no(&"edge-1".parse().unwrap()).unwrap();
    let (usual, other) = (
        bench.topology.nodes()[node.at()].uplinks[0],
        bench.topology.nodes()[node.at()].uplinks[1],
    );
    let down = |bench: &Bench| bench.state.links[usual.at()].burden.down;
    assert!(down(&bench));
    bench.after(30.0);
    assert!(!down(&bench));
    bench.after(65.0);
    assert!(down(&bench));
    // Onto the same link is no way out.
    bench.tell(Happened::UplinkSwitched(node, usual));
    assert_eq!(bench.engine.roots_left(), 1);
    bench.tell(Happened::UplinkSwitched(node, other));
    assert_eq!(bench.engine.roots_left(), 0);
    bench.after(125.0);
    assert!(down(&bench), "the link itself is as it was");
    bench.tell(Happened::UplinkReleased(node));
    assert_eq!(bench.engine.roots_left(), 1);
}

#[test]
fn what_nobody_has_read_yet_can_be_put_back_before_a_start() {
    let trigger = "trigger = \"start infer\"\nstrength = 0.8";
    let faults = [
        ("spin", "spin", "replica infer-2", ""),
        ("config", "corrupt config", "replica infer-2", trigger),
    ];
    let mut read = bench(&faults);
    read.restart("infer-2");
    assert_eq!(read.phase("infer-2"), Phase::Dead);
    let mut mended = bench(&faults);
    mended.tell(Happened::ConfigPut(mended.no("infer-2"), Version::Good));
    mended.restart("infer-2");
    assert!(mended.unburdened());
    assert_eq!(mended.phase("infer-2"), Phase::Running);
}

#[test]
fn a_fragile_peer_dies_of_a_load_that_lasts() {
    let coupling = "coupling = [\"moves-load onto infer-2 above 0.6\"]";
    let mut bench = bench(&[("slow", "slow", "replica infer-1", coupling)]);
    let peer = bench.no("infer-2");
    bench.state.replicas[peer.at()].util = 0.9;
    bench.after(2.0);
    bench.state.replicas[peer.at()].util = 0.5;
    bench.after(10.0);
    assert_eq!(bench.phase("infer-2"), Phase::Running, "that was short");
    bench.state.replicas[peer.at()].util = 0.9;
    bench.after(20.0);
    assert_eq!(bench.phase("infer-2"), Phase::Dead);
    // Once the slow one is well, the peer has reserve again.
    bench.restart("infer-1");
    bench.restart("infer-2");
    bench.after(40.0);
    assert_eq!(bench.phase("infer-2"), Phase::Running);
}

#[test]
fn a_node_that_is_deaf_takes_no_orders_but_can_be_started_anew() {
    let mut bench = bench(&[("agent", "hang", "agent edge-1", "")]);
    let replica = bench.no("infer-1");
    let node = bench.topology.replicas()[replica.at()].node;
    assert!(bench.refused(Happened::Started(replica)).is_some());
    assert_eq!(bench.refused(Happened::Done(Errand::Reboot, replica)), None);
    bench.tell(Happened::Done(Errand::Reboot, replica));
    assert_eq!(bench.engine.roots_left(), 1, "it is not up yet");
    bench.tell(Happened::Booted(node));
    assert!(bench.unburdened());
}

#[test]
fn a_fault_that_names_nothing_is_refused_with_its_line() {
    let good = "name = \"x\"\nabout = \"\"\ntopology = \"reference\"\n[[fault]]\nid = \"a\"\n\
        mechanism = \"slow\"\nlocus = \"replica infer-1\"\ntrigger = \"load infer-1 above 0.9\"\n\
        coupling = [\"moves-load onto infer-2 above 0.8\"]\ncues = [\"gc-pause by infer-1 at 1\"]\n";
    let topology = Topology::reference();
    let check = |text: &str| Incident::read("a.toml", text).unwrap().check(&topology);
    assert!(check(good).is_ok());
    for (from, to, line) in [
        ("replica infer-1", "replica infer-9", 7),
        ("replica infer-1", "service moon", 7),
        ("load infer-1", "load infer-9", 8),
        ("onto infer-2", "onto infer-9", 9),
        ("by infer-1", "by infer-9", 10),
        ("load infer-1 above 0.9", "heat edge-9 above 70", 8),
        ("load infer-1 above 0.9", "start moon", 8),
    ] {
        let error = check(&good.replace(from, to)).unwrap_err();
        assert_eq!(
            (error.file.as_str(), error.line),
            ("a.toml", line),
            "{error}"
        );
        assert!(
            error.reason.contains("names nothing in topology reference"),
            "{error}"
        );
    }
}
