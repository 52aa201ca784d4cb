//! Bad input: an answer with finite numbers, less confidence where there is doubt, and the doubt
//! in words.

// Helpers of tests; places of a few nodes.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::time::Duration;

use homeostat_causes::{
    Alarm, Component, Diagnosis, Doubt, Evidence, Graph, Kind, SeriesId, Signals, diagnose,
};

const MINUTE: u64 = 60;
const START: u64 = 100 * 3600;
const ROWS: u64 = 103;
/// The first row of the fault.
const FAULT: u64 = 100;

const NAMES: [&str; 4] = ["front", "left", "right", "store"];
const LEFT: usize = 1;
const STORE: usize = 3;

/// A value with its series, time and volume.
type Sample = (usize, Duration, f32, f32);

fn row(row: u64) -> Duration {
    Duration::from_secs(START + row * MINUTE)
}

/// A front that calls two others, each of which calls the store.
fn graph() -> Graph {
    let mut graph = Graph::default();
    for name in NAMES {
        graph.add(name).unwrap();
    }
    for (caller, callee) in [(0, 1), (0, 2), (1, 3), (2, 3)] {
        graph
            .calls(Component(caller), Component(callee), None)
            .unwrap();
    }
    graph
}

/// Rows of latency in which one is slow by itself and its callers wait for it.
fn clean(slow: usize) -> Vec<Sample> {
    let rows = (0..ROWS).flat_map(|at| {
        let own = |of: usize| {
            let noise = (at * 7 + of as u64 * 3) % 11;
            let fault = if of == slow && at >= FAULT { 0.2 } else { 0.0 };
            0.02 + noise as f32 / 2000.0 + fault
        };
        let (left, right) = (own(1) + own(3), own(2) + own(3));
        let values = [own(0) + f32::midpoint(left, right), left, right, own(3)];
        let samples = values.into_iter().zip([100.0, 50.0, 50.0, 100.0]);
        let samples = samples.enumerate();
        samples.map(move |(of, (value, volume))| (of, row(at), value, volume))
    });
    rows.collect()
}

/// Diagnoses an alarm about the front, and asserts what holds for any input.
fn told(graph: &Graph, samples: &[Sample]) -> Diagnosis {
    let alarm = Alarm::of(Component(0), Kind::Latency, row(FAULT));
    sound(graph, &latency(samples), &alarm)
}

fn latency(samples: &[Sample]) -> Signals {
    let mut signals = Signals::keeping(128);
    for (of, at, value, volume) in samples {
        let of = Component(*of as u16);
        let series = signals.series(of, Kind::Latency, "mean").unwrap();
        signals.push(series, *at, *value, *volume);
    }
    signals
}

fn sound(graph: &Graph, signals: &Signals, alarm: &Alarm) -> Diagnosis {
    let diagnosis = diagnose(graph, signals, alarm);
    assert!(diagnosis.times.is_finite(), "{diagnosis:?}");
    let mut words = Vec::new();
    for suspect in &diagnosis.suspects {
        assert!(suspect.share > 0.0 && suspect.share <= 1.0, "{suspect:?}");
        assert!((0.0..=1.0).contains(&suspect.confidence), "{suspect:?}");
        for evidence in &suspect.evidence {
            let numbers = match evidence {
                Evidence::OwnExcess {
                    baseline,
                    now,
                    share,
                    times,
                    ..
                } => [*baseline, *now, *share, *times],
                Evidence::Resource {
                    baseline,
                    now,
                    times,
                    ..
                } => [*baseline, *now, *times, 0.0],
                Evidence::Mechanism { before, now, .. } => [*before, *now, 0.0, 0.0],
                Evidence::Explains { share, .. } => [*share, 0.0, 0.0, 0.0],
                Evidence::NewCallee { .. } | Evidence::First { .. } => [0.0; 4],
                Evidence::Weighed(one) => [one.odds, 0.0, 0.0, 0.0],
            };
            assert!(numbers.iter().all(|one| one.is_finite()), "{evidence:?}");
            words.push(evidence.words(graph).to_string());
        }
    }
    for one in &diagnosis.explained_away {
        assert!((0.0..=1.0).contains(&one.share), "{one:?}");
    }
    words.extend(
        diagnosis
            .doubts
            .iter()
            .map(|one| one.words(graph).to_string()),
    );
    assert!(words.iter().all(|one| !one.is_empty()), "{words:?}");
    diagnosis
}

fn first(diagnosis: &Diagnosis) -> (usize, f32) {
    let first = diagnosis.suspects.first().expect("a ranking");
    (usize::from(first.component.0), first.confidence)
}

/// With `bad` there is still a ranking, less sure, and the doubt is told in these words.
#[track_caller]
fn doubted(good: &Diagnosis, bad: &Diagnosis, graph: &Graph, words: &str) {
    let doubts = bad.doubts.iter().map(|one| one.words(graph).to_string());
    let doubts: Vec<String> = doubts.collect();
    assert!(doubts.iter().any(|one| one == words), "{doubts:?}");
    let (good, bad) = (first(good).1, first(bad).1);
    assert!(bad < good, "{bad} with doubt, {good} without");
}

#[test]
fn a_signal_of_no_numbers_is_a_doubt() {
    for nonsense in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let (slow, lost) = (LEFT, STORE);
        let (graph, samples) = (graph(), clean(slow));
        let good = told(&graph, &samples);
        let mut samples = samples;
        for one in samples.iter_mut().filter(|one| one.0 == lost) {
            one.2 = nonsense;
        }
        let bad = told(&graph, &samples);
        assert_eq!(first(&bad).0, slow);
        let name = NAMES[lost];
        let words = format!("100 % of the values of {name} are missing or no numbers");
        doubted(&good, &bad, &graph, &words);
    }
}

#[test]
fn most_values_lost_is_a_doubt_about_the_suspect_itself() {
    let (graph, samples) = (graph(), clean(STORE));
    let good = told(&graph, &samples);
    let mut samples = samples;
    for (row, one) in samples.iter_mut().filter(|one| one.0 == STORE).enumerate() {
        // The first two rows of the fault stay.
        if row % 5 >= 2 {
            one.2 = f32::NAN;
        }
    }
    let bad = told(&graph, &samples);
    assert_eq!(first(&bad).0, STORE);
    let words = "59 % of the values of store are missing or no numbers";
    doubted(&good, &bad, &graph, words);
}

#[test]
fn a_few_lost_values_change_little() {
    let (graph, samples) = (graph(), clean(STORE));
    let good = told(&graph, &samples);
    let mut samples = samples;
    for (at, one) in samples.iter_mut().enumerate() {
        if at % 9 == 0 {
            one.2 = [f32::NAN, f32::INFINITY][at % 2];
        }
        if at % 13 == 0 {
            one.3 = [f32::NAN, -1.0, f32::INFINITY][at % 3];
        }
    }
    let bad = told(&graph, &samples);
    assert_eq!(first(&bad).0, STORE);
    assert_eq!(bad.doubts, good.doubts);
}

#[test]
fn a_missing_series_is_a_doubt_about_who_calls_its_component() {
    let (graph, samples) = (graph(), clean(LEFT));
    let good = told(&graph, &samples);
    let without = |of: usize| {
        let rest = samples.iter().copied().filter(|one| one.0 != of);
        told(&graph, &rest.collect::<Vec<_>>())
    };
    let bad = without(STORE);
    assert_eq!(first(&bad).0, LEFT);
    doubted(&good, &bad, &graph, "1 components have no usable signal");
    let bad = without(0);
    let words = "the alarmed signal itself was not recorded";
    doubted(&good, &bad, &graph, words);
}

#[test]
fn an_unknown_component_a_circle_and_a_clock_are_doubts() {
    let (mut graph, mut samples) = (graph(), clean(STORE));
    let good = told(&graph, &samples);
    let alarm = Alarm::of(Component(900), Kind::Latency, row(FAULT));
    let bad = sound(&graph, &latency(&samples), &alarm);
    let words = "the alarm is about a component that nobody knows";
    doubted(&good, &bad, &graph, words);

    for one in samples.iter_mut().filter(|one| one.0 == LEFT) {
        one.1 += Duration::from_secs(7 * 3600);
    }
    let bad = told(&graph, &samples);
    assert_eq!(first(&bad).0, STORE);
    doubted(&good, &bad, &graph, "the clock of left is 7.0 h ahead");

    graph.calls(Component(3), Component(1), None).unwrap();
    let bad = told(&graph, &clean(STORE));
    assert_eq!(first(&bad).0, STORE);
    let words = "left and others call each other in a circle";
    doubted(&good, &bad, &graph, words);
}

#[test]
fn order_and_repetition_of_samples_change_nothing() {
    let (graph, samples) = (graph(), clean(STORE));
    let good = told(&graph, &samples);
    let mut mixed = samples.clone();
    fastrand::Rng::with_seed(3).shuffle(&mut mixed);
    assert_eq!(told(&graph, &mixed), good);
    // Half of what is kept, twice.
    let recent = samples.iter().filter(|one| one.1 >= row(ROWS - 60));
    let once: Vec<Sample> = recent.copied().collect();
    let twice: Vec<Sample> = once.iter().flat_map(|one| [*one; 2]).collect();
    let (once, twice) = (told(&graph, &once), told(&graph, &twice));
    assert_eq!(first(&twice).0, first(&once).0);
    assert_eq!(twice.doubts, once.doubts);
    let same: Vec<Sample> = samples
        .iter()
        .map(|one| (one.0, row(0), one.2, 1.0))
        .collect();
    let bad = told(&graph, &same);
    assert!(bad.doubts.contains(&Doubt::Cold { rows: 0 }), "{bad:?}");
}

#[test]
fn a_resource_that_stood_at_nothing_is_told_and_hides_nobody() {
    let graph = graph();
    let queue = |of: usize, before: f32, after: f32| {
        let mut signals = Signals::keeping(128);
        for (other, (before, after)) in [(of, (before, after)), (2, (0.4, 0.9))] {
            let other = Component(other as u16);
            let series = signals.series(other, Kind::Resource, "queue").unwrap();
            for at in 0..ROWS {
                let value = if at < FAULT { before } else { after };
                signals.push(series, row(at), value, f32::NAN);
            }
        }
        sound(&graph, &signals, &Alarm::at(row(FAULT)))
    };
    let diagnosis = queue(STORE, 0.0, 30.0);
    assert_eq!(first(&diagnosis).0, STORE);
    assert!(diagnosis.suspects.len() == 2, "{diagnosis:?}");
    assert_eq!(first(&queue(STORE, 0.0, 0.0)).0, 2);
}

#[test]
fn nothing_to_go_by_is_no_suspect() {
    let samples = clean(STORE);
    assert_eq!(told(&Graph::default(), &samples).suspects, []);
    let nothing = told(&graph(), &[]);
    assert_eq!(nothing.suspects, []);
    assert!(nothing.doubts.contains(&Doubt::NoTargetSignal));
    let none: Vec<Sample> = samples
        .into_iter()
        .map(|one| (one.0, one.1, f32::NAN, 1.0))
        .collect();
    assert_eq!(told(&graph(), &none).suspects, []);
}

/// Values that sensors and exporters send when they are broken.
const NONSENSE: [f32; 10] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN_POSITIVE,
    1e-42,
    -1.0,
    0.0,
    1e12,
    -1e12,
];

#[test]
fn any_graph_with_any_nonsense_gets_finite_numbers() {
    for seed in 0..150 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let components = [1, 2, 7, 50][chance.usize(..4)];
        let mut graph = Graph::default();
        for of in 0..components {
            graph.add(&format!("{of}")).unwrap();
        }
        for _ in 0..chance.usize(..components * 3 + 1) {
            let ends = [0; 2].map(|_| Component(chance.u16(..components as u16)));
            let share = chance.bool().then(|| chance.f32());
            graph.calls(ends[0], ends[1], share).unwrap();
        }
        let mut signals = Signals::keeping(chance.usize(..150));
        let broken = [0.0, 0.02, 0.3, 0.9][chance.usize(..4)];
        let rows = [0, 1, 4, 120][chance.usize(..4)];
        for of in 0..components {
            let kinds = [Kind::Latency, Kind::Errors, Kind::Quality, Kind::Resource];
            for kind in kinds {
                if chance.u8(..3) == 0 {
                    continue;
                }
                let of = Component(of as u16);
                let series = signals.series(of, kind, "any").unwrap();
                garbage(&mut signals, &mut chance, series, broken, rows);
            }
        }
        let known = Component(chance.u16(..components as u16 + 2));
        for alarm in [
            Alarm::of(known, Kind::Latency, row(rows.saturating_sub(3))),
            Alarm::of(known, Kind::Resource, Duration::MAX),
            Alarm::at(row(rows.saturating_sub(3))),
            Alarm::at(Duration::ZERO),
        ] {
            let diagnosis = sound(&graph, &signals, &alarm);
            let shares: f32 = diagnosis.suspects.iter().map(|one| one.share).sum();
            assert!(shares < 1.01, "{seed}: {shares}");
        }
    }
}

/// A series with its own clock, in which `broken` of the values and volumes are nonsense and a
/// few samples come twice or at any time.
fn garbage(
    signals: &mut Signals,
    chance: &mut fastrand::Rng,
    series: SeriesId,
    broken: f32,
    rows: u64,
) {
    let ahead = [0, 0, 0, 5 * 3600][chance.usize(..4)];
    let base = [0.0, 0.1, 1e-9, 1e11][chance.usize(..4)];
    for at in 0..rows {
        let mut numbers = [base * (1.0 + chance.f32()), chance.f32() * 100.0];
        for number in &mut numbers {
            if chance.f32() < broken {
                *number = NONSENSE[chance.usize(..NONSENSE.len())];
            }
        }
        let at = match chance.u8(..30) {
            0 => Duration::from_millis(chance.u64(..)),
            1 => row(0),
            _ => row(at) + Duration::from_secs(ahead),
        };
        signals.push(series, at, numbers[0], numbers[1]);
    }
}
