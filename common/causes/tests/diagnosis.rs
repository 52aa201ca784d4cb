//! The diagnosis from outside: who is told, who is not, and what bad input does to it.

// Helpers of tests; places of a few nodes.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::time::{Duration, Instant};

use homeostat_causes::{
    Alarm, Component, Diagnosis, Doubt, Event, Evidence, Grade, Graph, Kind, Probe, Signals,
    diagnose,
};
use proptest::prelude::*;

const MINUTE: u64 = 60;

/// A front that calls two others, each of which calls the store, and one beside them.
struct World {
    graph: Graph,
    signals: Signals,
    nodes: Vec<Component>,
}

const FRONT: usize = 0;
const LEFT: usize = 1;
const RIGHT: usize = 2;
const STORE: usize = 3;
const BESIDE: usize = 4;

impl World {
    fn new() -> Self {
        let mut graph = Graph::default();
        let names = ["front", "left", "right", "store", "beside"];
        let nodes: Vec<Component> = names.iter().map(|name| graph.add(name).unwrap()).collect();
        for (caller, callee) in [(FRONT, LEFT), (FRONT, RIGHT), (LEFT, STORE), (RIGHT, STORE)] {
            graph.calls(nodes[caller], nodes[callee], None).unwrap();
        }
        Self {
            graph,
            signals: Signals::keeping(128),
            nodes,
        }
    }

    /// Rows of latency in which `extra(row)` gives what each node waits for by itself; callers
    /// wait for their callees. `skip` rows of history are left out.
    fn run(&mut self, skip: u64, rows: u64, extra: impl Fn(u64) -> [f32; 5]) -> Diagnosis {
        for row in skip..rows {
            let noise = |of: u64| ((row * 7 + of * 3) % 11) as f32 / 2000.0;
            let own: Vec<f32> = (0..5)
                .map(|of| 0.02 + noise(of) + extra(row)[of as usize])
                .collect();
            let store = own[STORE];
            let (left, right) = (own[LEFT] + store, own[RIGHT] + store);
            let values = [
                own[FRONT] + (left + right) / 2.0,
                left,
                right,
                store,
                own[BESIDE],
            ];
            for (of, value) in values.into_iter().enumerate() {
                let series = self
                    .signals
                    .series(self.nodes[of], Kind::Latency, "mean")
                    .unwrap();
                let volume = if of == LEFT || of == RIGHT {
                    50.0
                } else {
                    100.0
                };
                self.signals
                    .push(series, Duration::from_secs(row * MINUTE), value, volume);
            }
        }
        self.diagnose(rows - 3)
    }

    fn diagnose(&self, row: u64) -> Diagnosis {
        let at = Duration::from_secs(row * MINUTE);
        diagnose(
            &self.graph,
            &self.signals,
            &Alarm::of(self.nodes[FRONT], Kind::Latency, at),
        )
    }
}

fn first(diagnosis: &Diagnosis) -> usize {
    usize::from(diagnosis.suspects[0].component.0)
}

fn since(row: u64, of: usize, extra: f32) -> impl Fn(u64) -> [f32; 5] {
    move |at| {
        let mut all = [0.0; 5];
        all[of] = if at >= row { extra } else { 0.0 };
        all
    }
}

#[test]
fn who_is_slow_by_itself_is_told_and_callers_are_explained() {
    for of in [FRONT, LEFT, STORE] {
        let mut world = World::new();
        let diagnosis = world.run(0, 103, since(100, of, 0.2));
        assert_eq!(first(&diagnosis), of);
        assert_eq!((diagnosis.grade, diagnosis.roots), (Grade::Full, 1));
        assert!(diagnosis.suspects[0].confidence > 0.7);
        let onset = Duration::from_secs(100 * MINUTE);
        assert_eq!(diagnosis.suspects[0].onset, Some(onset));
        let waiting = diagnosis
            .explained_away
            .iter()
            .map(|one| usize::from(one.component.0));
        let expected: &[usize] = match of {
            FRONT => &[],
            LEFT => &[FRONT],
            _ => &[FRONT, LEFT, RIGHT],
        };
        assert_eq!(waiting.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn normal_rows_are_left_alone() {
    let mut world = World::new();
    let diagnosis = world.run(0, 103, |_| [0.0; 5]);
    assert_eq!(diagnosis.suspects, []);
    assert_eq!((diagnosis.roots, diagnosis.probe), (0, None));
}

#[test]
fn two_roots_are_both_told_with_a_probe_that_tells_them_apart() {
    let mut world = World::new();
    let diagnosis = world.run(0, 103, |row| {
        let extra = if row >= 100 { 0.2 } else { 0.0 };
        [0.0, extra, 0.0, extra / 2.0, 0.0]
    });
    let told: Vec<u16> = diagnosis
        .suspects
        .iter()
        .map(|one| one.component.0)
        .collect();
    assert_eq!(diagnosis.roots, 2);
    assert_eq!(told[..2].iter().max(), Some(&3));
    let (ask, other) = (world.nodes[STORE], world.nodes[LEFT]);
    assert_eq!(diagnosis.probe, Some(Probe::Ask { ask, other }));
    let words = diagnosis.probe.unwrap().words(&world.graph).to_string();
    assert_eq!(
        words,
        "ask store directly: if it shows the fault it is the root, if not left is"
    );
}

#[test]
fn what_changes_beside_the_alarm_is_coincidence() {
    let mut world = World::new();
    let diagnosis = world.run(0, 103, |row| {
        let on = if row >= 100 { 1.0 } else { 0.0 };
        [0.0, 0.0, 0.1 * on, 0.0, 0.9 * on]
    });
    assert_eq!(first(&diagnosis), RIGHT);
    assert_eq!(diagnosis.coincident, [world.nodes[BESIDE]]);
    let told = diagnosis.suspects.iter();
    assert!(told.clone().all(|one| one.component != world.nodes[BESIDE]));
}

#[test]
fn two_rows_of_history_do_and_are_said_to_be_few() {
    let mut world = World::new();
    let diagnosis = world.run(98, 103, since(100, LEFT, 0.2));
    assert_eq!((first(&diagnosis), diagnosis.grade), (LEFT, Grade::Cold));
    assert!(diagnosis.doubts.contains(&Doubt::Cold { rows: 2 }));
}

#[test]
fn an_alarm_that_comes_late_changes_nothing() {
    for skip in [0, 97] {
        let mut world = World::new();
        let diagnosis = world.run(skip, 103, since(99, STORE, 0.2));
        assert_eq!(first(&diagnosis), STORE);
        let onset = Duration::from_secs(99 * MINUTE);
        assert_eq!(diagnosis.suspects[0].onset, Some(onset));
    }
}

#[test]
fn a_busy_host_is_told_before_the_service_on_it() {
    let mut world = World::new();
    let host = world.graph.add("host").unwrap();
    world.graph.calls(world.nodes[LEFT], host, None).unwrap();
    let cpu = world.signals.series(host, Kind::Resource, "cpu").unwrap();
    for row in 0..103 {
        let value = if row >= 100 {
            0.97
        } else {
            0.3 + (row % 5) as f32 / 100.0
        };
        world
            .signals
            .push(cpu, Duration::from_secs(row * MINUTE), value, f32::NAN);
    }
    let diagnosis = world.run(0, 103, since(100, LEFT, 0.2));
    assert_eq!(diagnosis.suspects[0].component, host);
    assert!(matches!(
        diagnosis.suspects[0].evidence[0],
        Evidence::Resource { .. }
    ));
    let left = diagnosis
        .explained_away
        .iter()
        .find(|one| one.component == world.nodes[LEFT]);
    assert_eq!(left.map(|one| one.by), Some(host));
}

#[test]
fn another_continuation_of_an_event_is_told_without_any_metric() {
    let mut world = World::new();
    for of in [LEFT, RIGHT] {
        world
            .signals
            .events
            .count(world.nodes[of], Event(1), Event(2), 50);
    }
    world.signals.events.close(1.0);
    world
        .signals
        .events
        .count(world.nodes[LEFT], Event(1), Event(2), 50);
    world
        .signals
        .events
        .count(world.nodes[RIGHT], Event(1), Event(3), 50);
    let diagnosis = diagnose(&world.graph, &world.signals, &Alarm::at(Duration::ZERO));
    assert_eq!(first(&diagnosis), RIGHT);
    let words = diagnosis.suspects[0].evidence[0]
        .words(&world.graph)
        .to_string();
    assert!(words.contains("follows event 1 in"), "{words}");
}

#[test]
fn a_clock_that_is_hours_off_is_named_and_the_ranking_stands() {
    for hours in [5_i64, -5] {
        let mut world = World::new();
        let moved = (hours * 3600).unsigned_abs();
        let start = Duration::from_secs(10 * 3600);
        for row in 0..103_u64 {
            for (of, base) in [(FRONT, 0.2_f32), (LEFT, 0.1), (RIGHT, 0.1), (STORE, 0.05)] {
                let series = world
                    .signals
                    .series(world.nodes[of], Kind::Latency, "mean")
                    .unwrap();
                let at = start + Duration::from_secs(row * MINUTE);
                let at = match of {
                    STORE if hours > 0 => at + Duration::from_secs(moved),
                    STORE => at - Duration::from_secs(moved),
                    _ => at,
                };
                let fault = if row >= 100 && of != RIGHT { 0.3 } else { 0.0 };
                let volume = 50.0;
                let noise = (row % 7) as f32 / 1000.0;
                world.signals.push(series, at, base + noise + fault, volume);
            }
        }
        let at = start + Duration::from_secs(100 * MINUTE);
        let alarm = Alarm::of(world.nodes[FRONT], Kind::Latency, at);
        let diagnosis = diagnose(&world.graph, &world.signals, &alarm);
        assert_eq!(first(&diagnosis), STORE, "{hours}");
        let named = diagnosis.doubts.iter().find_map(|doubt| match doubt {
            Doubt::Clock { component, ahead_s } => Some((*component, *ahead_s / 3600)),
            _ => None,
        });
        assert_eq!(named, Some((world.nodes[STORE], hours)));
    }
}

#[test]
fn an_alarm_about_nobody_known_still_gets_a_ranking_with_less_confidence() {
    let mut world = World::new();
    let known = world.run(0, 103, since(100, STORE, 0.2));
    let at = Duration::from_secs(100 * MINUTE);
    let alarm = Alarm::of(Component(77), Kind::Latency, at);
    let unknown = diagnose(&world.graph, &world.signals, &alarm);
    assert_eq!(first(&unknown), STORE);
    assert!(unknown.suspects[0].confidence < known.suspects[0].confidence);
    assert!(unknown.doubts.contains(&Doubt::UnknownTarget));
    let words = unknown.doubts[0].words(&world.graph).to_string();
    assert_eq!(words, "the alarm is about a component that nobody knows");
}

#[test]
fn components_that_call_each_other_in_a_circle_do_not_explain_each_other_away() {
    let mut world = World::new();
    world
        .graph
        .calls(world.nodes[STORE], world.nodes[LEFT], None)
        .unwrap();
    let diagnosis = world.run(0, 103, since(100, STORE, 0.2));
    assert_eq!(first(&diagnosis), STORE);
    assert!(
        diagnosis
            .doubts
            .iter()
            .any(|doubt| matches!(doubt, Doubt::Cycle { .. }))
    );
}

#[test]
fn nothing_known_is_nothing_told() {
    let mut world = World::new();
    assert_eq!(world.diagnose(5).suspects, []);
    world.graph = Graph::default();
    let empty = diagnose(
        &world.graph,
        &Signals::keeping(0),
        &Alarm::at(Duration::MAX),
    );
    assert_eq!(empty.suspects, []);
}

/// 50 components in layers, each with three series of 120 rows: what a coordinator holds. The
/// bound is many times what it takes, as a loaded machine is slow.
#[test]
fn fifty_components_take_milliseconds() {
    let mut graph = Graph::default();
    let mut signals = Signals::keeping(120);
    for of in 0..50_u16 {
        let node = graph.add(&format!("{of}")).unwrap();
        for above in of.saturating_sub(5)..of {
            graph.calls(Component(above), node, None).unwrap();
        }
        for (kind, name) in [
            (Kind::Latency, "p90"),
            (Kind::Errors, "rate"),
            (Kind::Resource, "cpu"),
        ] {
            let series = signals.series(node, kind, name).unwrap();
            for row in 0..120_u64 {
                let value = 0.1 + ((row * u64::from(of + 3)) % 17) as f32 / 100.0;
                signals.push(series, Duration::from_secs(row * MINUTE), value, 40.0);
            }
        }
    }
    assert!(signals.bytes() < 1_000_000);
    let alarm = Alarm::of(
        Component(0),
        Kind::Latency,
        Duration::from_secs(117 * MINUTE),
    );
    let fastest = (0..5).map(|_| {
        let start = Instant::now();
        std::hint::black_box(diagnose(&graph, &signals, &alarm));
        start.elapsed()
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_input_gets_an_answer_in_bounds(
        calls in prop::collection::vec((0..9_u16, 0..9_u16, prop::option::of(-1.0..2.0_f32)), 0..40),
        samples in prop::collection::vec(
            (0..9_u16, 0..4_usize, any::<u64>(), any::<f32>(), any::<f32>()), 0..200),
        close in prop::collection::vec((0..9_u16, 0..50_u64, -1.0..9.0_f32), 0..200),
        target in prop::option::of(0..12_u16),
        at in any::<u64>(),
    ) {
        let mut graph = Graph::default();
        for of in 0..8 {
            graph.add(&format!("{of}")).unwrap();
        }
        for (caller, callee, share) in calls {
            let _ = graph.calls(Component(caller), Component(callee), share);
        }
        let mut signals = Signals::keeping(32);
        let kinds = [Kind::Latency, Kind::Errors, Kind::Quality, Kind::Resource];
        for (of, kind, at, value, volume) in samples {
            let series = signals.series(Component(of), kinds[kind], "a").unwrap();
            signals.push(series, Duration::from_millis(at), value, volume);
            signals.events.count(Component(of), Event(kind as u32), Event(of.into()), at as u32);
        }
        for (of, row, value) in close {
            let series = signals.series(Component(of), Kind::Latency, "a").unwrap();
            signals.push(series, Duration::from_secs(row * MINUTE), value, 10.0);
        }
        for kind in [None, Some(Kind::Latency), Some(Kind::Resource)] {
            let component = target.map(Component);
            let at = Duration::from_millis(if at % 2 == 0 { at } else { at % 3_000_000 });
            let well_until = None;
            let alarm = Alarm { at, component, kind, well_until };
            let diagnosis = diagnose(&graph, &signals, &alarm);
            let shares: f32 = diagnosis.suspects.iter().map(|one| one.share).sum();
            prop_assert!(diagnosis.suspects.is_empty() || (0.5..1.01).contains(&shares), "{shares}");
            prop_assert!(diagnosis.roots <= diagnosis.suspects.len());
            for suspect in &diagnosis.suspects {
                prop_assert!((0.0..=1.0).contains(&suspect.confidence));
                prop_assert!(usize::from(suspect.component.0) < graph.len());
                for evidence in &suspect.evidence {
                    prop_assert!(!evidence.words(&graph).to_string().contains("NaN"));
                }
            }
        }
    }
}
