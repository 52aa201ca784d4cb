//! The classifier as a whole.

use proptest::prelude::*;

use super::*;

/// Healthy runs in which two events go together, and failures: `a` leaves an event out, `b`
/// adds errors.
fn sample(seed: u64, each: usize) -> (Vec<Run>, Vec<String>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut runs = Vec::new();
    let mut labels = Vec::new();
    for label in [HEALTHY, HEALTHY, "a_failure", "b_failure"] {
        for _ in 0..each {
            let polls = rng.u32(5..15);
            let mut run = Run::from([
                ("api_poll".to_owned(), polls),
                ("api_answer".to_owned(), polls * 2),
                ("disk_write".to_owned(), 3),
                ("net_send".to_owned(), rng.u32(1..4)),
            ]);
            match label {
                "a_failure" => drop(run.remove("disk_write")),
                "b_failure" => drop(run.insert("net_send_ERROR".to_owned(), rng.u32(1..5))),
                _ => {}
            }
            runs.push(run);
            labels.push(label.to_owned());
        }
    }
    (runs, labels)
}

fn model() -> Classifier {
    let (runs, labels) = sample(1, 25);
    Classifier::train(&runs, &labels, 7).unwrap()
}

#[test]
fn known_failures_are_named_with_what_spoke_for_them() {
    let model = model();
    let (runs, labels) = sample(2, 25);
    let right = runs
        .iter()
        .zip(&labels)
        .filter(|(run, label)| model.classify(run).likeliest() == **label)
        .count();
    assert_eq!(right, 100);
    let flagged = runs
        .iter()
        .filter(|run| model.classify(run).class == Class::Novel)
        .count();
    assert!(
        flagged <= 8,
        "{flagged} of 100 known ones were called novel"
    );
    let verdict = model.classify(&runs[60]);
    assert_eq!(verdict.class, Class::Known("a_failure".into()));
    let first = &verdict.evidence[0];
    assert_eq!(
        (first.event.as_str(), first.count, first.usual),
        ("disk_write", Some(0), Some(3))
    );
    assert!(
        verdict.failure > 0.9 && verdict.unusual > 0.9,
        "{verdict:?}"
    );
    let sum: f32 = verdict.probabilities.iter().map(|(_, share)| share).sum();
    assert!((sum - 1.0).abs() < 1e-4);
}

#[test]
fn a_failure_that_nobody_has_seen_is_novel_and_not_forced_into_a_class() {
    let model = model();
    let usual = sample(1, 1).0.remove(0);
    // An unknown event; a known one far beyond; two that no longer go together.
    for (event, count) in [("gpu_reset_ERROR", 3), ("net_send", 400), ("api_answer", 0)] {
        let mut run = usual.clone();
        run.insert(event.to_owned(), count);
        let verdict = model.classify(&run);
        assert_eq!(verdict.class, Class::Novel, "{event}: {verdict:?}");
        assert_eq!(verdict.evidence[0].event, event);
        assert!(verdict.unusual > UNUSUAL);
        assert_eq!(
            verdict.unknown.len(),
            usize::from(event == "gpu_reset_ERROR")
        );
    }
}

#[test]
fn beside_the_healthy_runs_of_another_place_known_failures_are_found_there() {
    let model = model();
    let elsewhere = |seed| -> Vec<(Run, String)> {
        let (runs, labels) = sample(seed, 25);
        // Ten times the traffic, and twice the writes.
        let moved = runs.into_iter().map(|mut run| {
            for (event, by) in [("api_poll", 10), ("api_answer", 10), ("disk_write", 2)] {
                run.entry(event.into()).and_modify(|count| *count *= by);
            }
            run
        });
        moved.zip(labels).collect()
    };
    let healthy: Vec<Run> = elsewhere(3)
        .into_iter()
        .filter(|(_, label)| label == HEALTHY)
        .map(|(run, _)| run)
        .collect();
    let moved = model.beside(&healthy).unwrap();
    let wrong = |model: &Classifier| {
        let all = elsewhere(4);
        let wrong = all.iter().filter(|(run, label)| {
            (model.classify(run).class == Class::Healthy) != (label == HEALTHY)
        });
        wrong.count()
    };
    assert!(wrong(&model) >= 40, "{}", wrong(&model));
    assert!(wrong(&moved) <= 6, "{}", wrong(&moved));
    assert_eq!(model.beside(&healthy[..2]), None);
}

#[test]
fn healthy_runs_that_differ_in_little_are_not_novel_to_their_own_model() {
    let (mut runs, mut labels) = (Vec::new(), Vec::new());
    for at in 0..48_u32 {
        let mut run = Run::from([
            ("camera_frame".into(), 8 + at * 7 % 5),
            ("camera_start".into(), 1),
        ]);
        let label = match at % 4 {
            0 | 1 => HEALTHY,
            2 => {
                run.insert("camera_frame".into(), 0);
                "stall_failure"
            }
            _ => {
                run.insert("camera_lost_ERROR".into(), 1 + at % 3);
                "loss_failure"
            }
        };
        runs.push(run);
        labels.push(label.to_owned());
    }
    let model = Classifier::train(&runs, &labels, 1).unwrap();
    for (run, label) in runs.iter().zip(&labels) {
        let verdict = model.classify(run);
        assert_eq!(verdict.likeliest(), label);
        assert_ne!(verdict.class, Class::Novel, "{run:?}: {verdict:?}");
    }
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let (runs, labels) = sample(1, 5);
    let error = |runs: &[Run], labels: &[String]| {
        Classifier::train(runs, labels, 1).unwrap_err().to_string()
    };
    assert_eq!(error(&runs, &labels[1..]), "20 runs with 19 labels");
    assert_eq!(
        error(&runs[..3], &labels[..3]),
        "3 runs; 8 to 20000 are possible"
    );
    assert_eq!(
        error(&runs[10..], &labels[10..]),
        "0 runs that are no_failure; 4 to 20000 are possible"
    );
    assert_eq!(
        error(&vec![Run::new(); 20], &labels),
        "0 events; 1 to 2048 are possible"
    );
    let long = vec![Run::from([("x".repeat(NAME_MAX + 1), 1)]); 20];
    assert!(error(&long, &labels).starts_with("the name \"xxx"));
}

#[test]
fn healthy_runs_alone_make_a_model_that_finds_what_is_unusual() {
    let (runs, labels) = sample(1, 25);
    let model = Classifier::train(&runs[..50], &labels[..50], 1).unwrap();
    let (others, _) = sample(2, 25);
    let unusual = others[50..]
        .iter()
        .filter(|run| model.classify(run).class == Class::Novel);
    assert_eq!(unusual.count(), 50);
}

#[test]
fn a_saved_model_says_the_same_and_a_broken_file_says_why() {
    let model = model();
    let bytes = model.to_bytes().unwrap();
    let again = Classifier::from_bytes(&bytes).unwrap();
    assert_eq!(again, model);
    let (runs, _) = sample(5, 10);
    for run in &runs {
        assert_eq!(again.classify(run), model.classify(run));
    }
    let wrong = |bytes: &[u8]| Classifier::from_bytes(bytes).unwrap_err().to_string();
    assert!(wrong(b"").starts_with("this is no model"));
    assert!(wrong(b"hsclass2....").starts_with("this is no model"));
    assert!(wrong(&bytes[..bytes.len() - 1]).starts_with("its checksum"));
    assert!(wrong(&vec![0; file::FILE_MAX + 1]).starts_with("it is longer"));
}

#[test]
fn a_file_made_up_to_do_harm_is_refused() {
    let sound = model();
    let forged = |change: &dyn Fn(&mut Classifier)| {
        let mut model = sound.clone();
        change(&mut model);
        let bytes = model.to_bytes().unwrap();
        Classifier::from_bytes(&bytes).unwrap_err().to_string()
    };
    assert_eq!(
        forged(&|model| model.events.swap(0, 1)),
        "its events do not fit its events"
    );
    assert!(forged(&|model| model.events.truncate(2)).contains("forest"));
    assert!(forged(&|model| model.classes.clear()).contains("names or counts"));
    assert!(forged(&|model| model.failed[0].truncate(1)).contains("failed runs"));
    assert!(forged(&|model| model.counts.clear()).contains("classes"));
    assert!(forged(&|model| model.events[0] = String::new()).contains("names or counts"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_fail(change in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        use std::sync::OnceLock;
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let bytes = BYTES.get_or_init(|| model().to_bytes().unwrap());
        let mut changed = bytes[12..].to_vec();
        for (at, value) in change {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        // With a right checksum, as malice would have it.
        let mut file = bytes[..8].to_vec();
        file.extend(crc32fast::hash(&changed).to_le_bytes());
        file.extend(changed);
        if let Ok(model) = Classifier::from_bytes(&file) {
            let _ = model.classify(&sample(1, 1).0[0]);
        }
    }

    #[test]
    fn any_counts_have_a_verdict(counts in proptest::collection::btree_map("[a-z]{1,8}_[a-z]{1,8}", any::<u32>(), 0..20)) {
        use std::sync::OnceLock;
        static MODEL: OnceLock<Classifier> = OnceLock::new();
        let verdict = MODEL.get_or_init(model).classify(&counts);
        prop_assert!((0.0..=1.0).contains(&verdict.novelty) && (0.0..=1.0).contains(&verdict.unusual));
        prop_assert!(verdict.rarity.is_finite());
        prop_assert!(verdict.evidence.iter().all(|one| (0.0..=1.0).contains(&one.weight)));
    }
}
