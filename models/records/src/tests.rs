use std::path::Path;
use std::sync::Arc;

use homeostat_sim::episode::Rules;
use homeostat_sim::fault::{Incident, Split};
use homeostat_sim::policy::Baseline;
use homeostat_sim::topology::Topology;

use crate::dataset::{MANIFEST, Manifest, Recorded, Recording};
use crate::record::{Forks, Setup, record};
use crate::replay::{Replayed, replay};
use crate::rows::{Episode, Seen, Truth};
use crate::table::{Format, TableReader};
use crate::{RecordError, Row};

fn setup(incident: &str, moments: u32) -> Setup {
    Setup {
        topology: Arc::new(Topology::reference()),
        incident: Incident::named(incident).unwrap(),
        split: Split::Train,
        seed: 7,
        rules: Rules {
            cap_s: 120.0,
            relapse_s: 30.0,
            ..Rules::default()
        },
        forks: Forks {
            moments,
            plans: 2,
            horizon_s: 60.0,
        },
    }
}

/// Three episodes and their forks.
fn recorded(dir: &Path, format: Format) -> Manifest {
    let mut out = Recording::create(dir, format, "train").unwrap();
    let mut next = 0;
    for (incident, policy) in [
        ("deadlock", Baseline::Expert),
        ("bad-model", Baseline::Random),
        ("node-down", Baseline::Oracle),
    ] {
        let setup = setup(incident, 2);
        next = record(&setup, policy.healer(setup.seed), next, &mut out).unwrap();
    }
    out.finish().unwrap()
}

fn all(dir: &Path) -> (Vec<Seen>, Vec<Truth>, Vec<Episode>) {
    let recorded = Recorded::open(dir).unwrap();
    let seen = recorded.seen().unwrap().map(Result::unwrap).collect();
    let truth = recorded.truth().unwrap().map(Result::unwrap).collect();
    let episodes = recorded.episodes().unwrap().map(Result::unwrap).collect();
    (seen, truth, episodes)
}

#[test]
fn both_forms_hold_the_same_rows_and_both_replay() {
    let dir = tempfile::tempdir().unwrap();
    let (columns, lines) = (dir.path().join("a"), dir.path().join("b"));
    let manifest = recorded(&columns, Format::Parquet);
    recorded(&lines, Format::Jsonl);
    let (seen, truth, episodes) = all(&columns);
    assert_eq!((seen.clone(), truth.clone(), episodes.clone()), all(&lines));
    let rows = |table: usize| manifest.tables[table].rows;
    let counts = [seen.len(), truth.len(), episodes.len()].map(|count| count as u64);
    assert_eq!(counts, [rows(0), rows(1), rows(2)]);
    // Each look has its hidden side, and one more follows the last.
    assert_eq!(counts[1], counts[0] + counts[2]);
    assert!(
        seen.iter()
            .any(|row| !row.order_plan.is_empty() && row.propensity < 1.0)
    );
    assert!(
        seen.iter()
            .any(|row| !row.ended_how.is_empty() && !row.why.is_empty())
    );
    assert!(truth.iter().any(|row| !row.roots.is_empty()));
    for dir in [&columns, &lines] {
        let recorded = Recorded::open(dir).unwrap();
        let done = replay(&recorded, |_| {}).unwrap();
        assert_eq!((done.episodes, done.looks), (counts[2], counts[0]));
        assert!(done.forks >= 6 && done.ticks > 800, "{done:?}");
        assert_eq!(done.episodes - done.forks, 3);
    }
}

#[test]
fn a_fork_is_the_same_moment_with_a_plan_left_to_chance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    recorded(&path, Format::Parquet);
    let (seen, truth, episodes) = all(&path);
    let forks: Vec<&Episode> = episodes
        .iter()
        .filter(|row| row.fork_of.is_some())
        .collect();
    for fork in &forks {
        let of = fork.fork_of.unwrap();
        let look = fork.fork_look.unwrap();
        let at = |episode| {
            truth
                .iter()
                .find(|row| (row.episode, row.look) == (episode, look))
        };
        let (base, own) = (at(of).unwrap(), at(fork.episode).unwrap());
        assert_eq!(
            (base.at, base.err, &base.roots),
            (own.at, own.err, &own.roots)
        );
        let saw = |episode| {
            seen.iter()
                .find(|row| (row.episode, row.look) == (episode, look))
        };
        let (base, own) = (saw(of).unwrap(), saw(fork.episode).unwrap());
        assert_eq!(base.reading_value, own.reading_value);
        assert_eq!(own.policy, "randomised");
        assert!((1..=3).contains(&fork.plan.len()));
        assert_eq!(
            (&own.order_plan, own.propensity),
            (&fork.plan, fork.propensity)
        );
        assert!(fork.propensity > 0.0 && fork.propensity < 0.34);
        let later = seen
            .iter()
            .filter(|row| row.episode == fork.episode && row.look > look);
        assert!(later.clone().count() >= 5 && later.clone().all(|row| row.order_plan.is_empty()));
        assert!((fork.end - fork.begin - 60.0).abs() < 1e-9);
    }
    assert!(
        forks
            .iter()
            .any(|fork| fork.health_end != fork.twin_health_end)
    );
    assert!(forks.iter().any(|fork| fork.plan != forks[0].plan));
}

/// What a policy may learn from has no name of anything hidden.
#[test]
fn what_was_seen_tells_neither_incident_nor_seed_nor_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    recorded(&path, Format::Jsonl);
    let text = std::fs::read_to_string(path.join("seen.jsonl")).unwrap();
    let (_, truth, episodes) = all(&path);
    for episode in &episodes {
        assert!(
            !text.contains(&format!("{:?}", episode.incident)),
            "{}",
            episode.incident
        );
    }
    for key in [
        "\"seed\"",
        "\"incident\"",
        "roots",
        "digest",
        "phases",
        "twin",
        "health",
    ] {
        assert!(!text.contains(key), "{key}");
    }
    assert!(
        truth
            .iter()
            .all(|row| !text.contains(&row.twin_digest.to_string()))
    );
}

/// What is wrong with a table.
fn whole<R: Row + std::fmt::Debug>(table: Result<TableReader<R>, RecordError>) -> String {
    let rows = table.and_then(|rows| rows.collect::<Result<Vec<R>, _>>());
    rows.unwrap_err().to_string()
}

#[test]
fn a_recording_that_is_cut_off_changed_or_unfinished_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    for format in [Format::Parquet, Format::Jsonl] {
        let path = dir.path().join(format.extension());
        recorded(&path, format);
        for table in ["seen", "truth", "episodes"] {
            let name = format!("{table}.{}", format.extension());
            let file = path.join(&name);
            let good = std::fs::read(&file).unwrap();
            for round in 0..8 {
                let mut bad = good.clone();
                let at = rng.usize(..bad.len());
                if round % 2 == 0 {
                    bad.truncate(at);
                } else {
                    bad[at] ^= 1 << rng.u8(..8);
                }
                std::fs::write(&file, &bad).unwrap();
                let read = Recorded::open(&path).unwrap();
                let text = match table {
                    "seen" => whole(read.seen()),
                    "truth" => whole(read.truth()),
                    _ => whole(read.episodes()),
                };
                assert!(text.contains(&name), "{text}");
            }
            std::fs::write(&file, &good).unwrap();
        }
        assert!(replay(&Recorded::open(&path).unwrap(), |_| {}).is_ok());
        assert!(Recording::create(&path, format, "train").is_err());
        std::fs::remove_file(path.join(MANIFEST)).unwrap();
        let error = Recorded::open(&path).unwrap_err().to_string();
        assert!(error.contains("was not finished"), "{error}");
    }
    assert!(Recorded::open(Path::new("/nowhere/at/all")).is_err());
}

/// What Parquet's reader does with a footer or a page that lies although the checksum fits.
#[test]
fn a_file_made_to_lie_gives_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut out = Recording::create(&path, Format::Parquet, "train").unwrap();
    let short = setup("deadlock", 0);
    record(&short, Baseline::NoOp.healer(7), 0, &mut out).unwrap();
    let mut manifest = out.finish().unwrap();
    let file = path.join("seen.parquet");
    let good = std::fs::read(&file).unwrap();
    let mut rng = fastrand::Rng::with_seed(9);
    let mut refused = 0;
    for _ in 0..300 {
        let mut bad = good.clone();
        // Half of them in the footer, where lengths stand.
        let from = if rng.bool() { bad.len() * 9 / 10 } else { 0 };
        let at = rng.usize(from..bad.len());
        bad[at] = rng.u8(..);
        std::fs::write(&file, &bad).unwrap();
        manifest.tables[0].crc32 = crc32fast::hash(&bad);
        let text = serde_json::to_string(&manifest).unwrap();
        std::fs::write(path.join(MANIFEST), text).unwrap();
        let recorded = Recorded::open(&path).unwrap();
        let rows = recorded
            .seen()
            .and_then(|rows| rows.collect::<Result<Vec<_>, _>>());
        refused += u32::from(rows.is_err());
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_replay_names_the_tick_at_which_it_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (path, forged) = (dir.path().join("a"), dir.path().join("b"));
    recorded(&path, Format::Parquet);
    let (mut seen, mut truth, episodes) = all(&path);
    let again =
        |seen: &[Seen], truth: &[Truth], episodes: &[Episode]| -> Result<Replayed, String> {
            use crate::dataset::Sink as _;
            let _ = std::fs::remove_dir_all(&forged);
            let mut out = Recording::create(&forged, Format::Parquet, "train").unwrap();
            seen.iter().for_each(|row| out.seen(row).unwrap());
            truth.iter().for_each(|row| out.truth(row).unwrap());
            episodes.iter().for_each(|row| out.episode(row).unwrap());
            out.finish().unwrap();
            replay(&Recorded::open(&forged).unwrap(), |_| {}).map_err(|error| error.to_string())
        };
    assert!(again(&seen, &truth, &episodes).is_ok());
    let place = truth.iter().position(|row| row.look == 20).unwrap();
    truth[place].digests[2] ^= 1;
    let tick = truth[place].tick - truth[place].digests.len() as u64 + 3;
    let error = again(&seen, &truth, &episodes).unwrap_err();
    assert!(
        error.contains(&format!("differs at tick {tick}: another state")),
        "{error}"
    );
    truth[place].digests[2] ^= 1;
    // An order that was never given changes what comes after it.
    let place = seen
        .iter()
        .position(|row| !row.order_plan.is_empty())
        .unwrap();
    let (node, plan) = (
        seen[place].order_node.remove(0),
        seen[place].order_plan.remove(0),
    );
    let error = again(&seen, &truth, &episodes).unwrap_err();
    assert!(error.contains("differs"), "{error}");
    seen[place].order_node.insert(0, node);
    seen[place].order_plan.insert(0, plan);
    seen[place].route_err[0] += 1e-12;
    let error = again(&seen, &truth, &episodes).unwrap_err();
    assert!(error.contains("route_err: recorded"), "{error}");
    seen[place].route_err[0] -= 1e-12;
    let mut wrong = episodes.clone();
    wrong[0].incident_text = "name = 3\n".to_owned();
    let error = again(&seen, &truth, &wrong).unwrap_err();
    assert!(
        error.contains("episodes.parquet, episode 0: incident:1: "),
        "{error}"
    );
    wrong.clone_from(&episodes);
    wrong[0].dt = 1e-9;
    assert!(
        again(&seen, &truth, &wrong)
            .unwrap_err()
            .contains("more than")
    );
}
