//! Each experiment at the smallest size: it runs, measures, and leaves nothing behind.
//!
//! Figures of such runs mean nothing, so none is compared with a goal but those that must be
//! zero at any size.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use homeostat_sim::fault::{Incident, may_learn};
use homeostat_sim::topology::Topology;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Runs a command and returns its rows by id.
fn run(args: &[&str]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("result.json");
    let output = Command::new(env!("CARGO_BIN_EXE_homeostat-eval"))
        .args(args)
        .args(["--json", json.to_str().unwrap()])
        // Where its processes keep their files, so that they can be told by it.
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    println!("{told}\n{shown}");
    assert!(
        output.status.success(),
        "{args:?}: {}\n{told}",
        output.status
    );
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for key in ["experiment", "commit", "date", "machine", "settings_sha256"] {
        assert!(
            report[key].as_str().is_some_and(|text| !text.is_empty()),
            "{key}"
        );
    }
    nothing_left(dir.path());
    let rows = report["rows"].as_array().unwrap().clone();
    for row in &rows {
        let what = row["what"].as_str().unwrap();
        assert!(shown.contains(what), "{what} is not in the table");
        let [low, ours, high] = ["low", "ours", "high"].map(|key| row[key].as_f64().unwrap());
        assert!(low <= ours && ours <= high, "{row}");
    }
    rows
}

fn row<'a>(rows: &'a [Value], id: &str) -> &'a Value {
    let row = rows.iter().find(|row| row["id"] == id);
    row.unwrap_or_else(|| panic!("no row {id}"))
}

fn value(rows: &[Value], id: &str) -> f64 {
    row(rows, id)["ours"].as_f64().unwrap()
}

/// No process has the folder in its command line, and the folder is empty but for the result.
fn nothing_left(dir: &Path) {
    let end = Instant::now() + Duration::from_secs(5);
    let mark = dir.to_str().unwrap().as_bytes();
    let left = || -> Vec<String> {
        let folders = std::fs::read_dir("/proc").unwrap().flatten();
        folders
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .filter(|line| line.windows(mark.len()).any(|part| part == mark))
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .collect()
    };
    while !left().is_empty() {
        assert!(Instant::now() < end, "still running: {:?}", left());
        std::thread::sleep(Duration::from_millis(20));
    }
    let names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["result.json"]);
}

#[test]
fn list_names_every_command_of_the_program() {
    let text = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_homeostat-eval"))
            .args(args)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (list, help) = (text(&["list"]), text(&["--help"]));
    let listed = list.lines().skip(2);
    let mut listed: Vec<&str> = listed.filter_map(|line| line.split(' ').next()).collect();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| line.starts_with("  "));
    let mut known: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !matches!(*name, "" | "list" | "help"))
        .collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert!(known.len() > 9, "{help}");
    assert_eq!(listed, known);
}

#[test]
fn switch_fails_no_request_and_serves_no_bad_model() {
    let rows = run(&["switch", "--n", "20", "--bad", "10"]);
    for zero in ["failed", "mixed", "misnamed", "bad.served"] {
        assert_eq!(value(&rows, &format!("switch.{zero}")), 0.0);
    }
    assert_eq!(value(&rows, "switch.bad.refused"), 10.0);
    assert!(value(&rows, "switch.requests") > 20.0);
}

#[test]
fn causes_are_told_from_coincidence() {
    let size = ["--graphs", "30", "--models", "1", "--recordings", "1"];
    let size = [&size[..], &["--plays", "1", "--incidents", "1"]].concat();
    let rows = run(&[&["causal"], &size[..]].concat());
    for zero in ["known.wrong", "random.unproven"] {
        assert_eq!(
            value(&rows, &format!("causal.effects.{zero}")),
            0.0,
            "{zero}"
        );
    }
    assert!(value(&rows, "causal.effects.random.error") < 1.0);
    assert!(row(&rows, "causal.links.tutorial.recall")["reference"].is_null());
}

#[test]
fn drift_is_told_and_nothing_is_told_without_one() {
    let args = ["drift", "--change", "gain", "--runs", "1", "--quiet", "400"];
    let rows = run(&args);
    assert_eq!(value(&rows, "drift.gain.found"), 1.0);
    assert_eq!(value(&rows, "drift.none.alarms"), 0.0);
    assert!(value(&rows, "drift.gain.answers") > 0.0);
}

#[test]
fn mttr_measures_both_sides() {
    let rows = run(&["mttr", "--n", "2", "--fault", "kill", "--fault", "leak"]);
    heals_on_its_own(&rows, &["kill", "leak"]);
    let noticed = value(&rows, "mttr.kill.noticed_median_ms");
    assert!(noticed > 0.0 && noticed < 1000.0, "{noticed}");
}

#[test]
fn mttr_heals_what_is_stopped_or_runs_out_of_descriptors() {
    let faults = ["--fault", "sigstop", "--fault", "descriptors"];
    let rows = run(&[&["mttr", "--n", "1"], &faults[..]].concat());
    heals_on_its_own(&rows, &["sigstop", "descriptors"]);
}

#[test]
fn mttr_counts_what_clients_lose() {
    let rows = run(&["mttr", "--n", "1", "--fault", "descriptors-load"]);
    assert_eq!(value(&rows, "mttr.descriptors_load.recovered"), 1.0);
    // Until it is killed nobody can be served.
    let lost = row(&rows, "mttr.descriptors_load.lost_supervisor");
    assert!(lost["reference"].as_f64().unwrap() > 0.0, "{lost}");
}

#[test]
fn mttr_heals_what_a_supervisor_leaves_broken() {
    let faults = [
        "corrupt-model",
        "bad-model",
        "bad-config",
        "data-full",
        "two-at-once",
        "slow-replica",
        "hog",
    ];
    let mut args = vec!["mttr", "--n", "1"];
    args.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
    let rows = run(&args);
    for fault in faults {
        let id = fault.replace('-', "_");
        // One trial, on a machine that may be busy: what counts is that both were measured.
        assert!(value(&rows, &format!("mttr.{id}.median_ms")) > 0.0);
        let recovered = row(&rows, &format!("mttr.{id}.recovered"));
        assert!(recovered["reference"].is_number(), "{recovered}");
    }
}

#[test]
fn mttr_heals_the_forwarder_and_leaves_frozen_metrics_alone() {
    let args = [
        "--fault",
        "block",
        "--fault",
        "forwarder-kill",
        "--fault",
        "frozen",
    ];
    let rows = run(&[&["mttr", "--n", "2"], &args[..]].concat());
    heals_on_its_own(&rows, &["block", "forwarder_kill"]);
    assert_eq!(value(&rows, "mttr.frozen.left_alone"), 1.0);
}

fn heals_on_its_own(rows: &[Value], faults: &[&str]) {
    for fault in faults {
        assert_eq!(value(rows, &format!("mttr.{fault}.recovered")), 1.0);
        let median = row(rows, &format!("mttr.{fault}.median_ms"));
        assert!(median["reference"].as_f64().unwrap() > 0.0, "{median}");
    }
}

#[test]
fn quiet_counts_restarts_and_heals_a_hang() {
    let rows = run(&["quiet", "--minutes", "0.05", "--hangs", "1"]);
    assert_eq!(value(&rows, "quiet.restarts"), 0.0);
    assert_eq!(value(&rows, "quiet.hang.recovered"), 1.0);
    assert!(value(&rows, "quiet.syncs") >= 1.0);
}

#[test]
fn forward_measures_both_ways_and_comes_back_from_kills() {
    let rows = run(&[
        "forward",
        "--seconds",
        "0.2",
        "--rounds",
        "2",
        "--kills",
        "2",
    ]);
    for case in ["pool.keep", "pool.fresh", "bare.keep", "bare.fresh"] {
        assert!(
            value(&rows, &format!("forward.{case}.ratio")) > 0.0,
            "{case}"
        );
    }
    assert_eq!(value(&rows, "forward.failures"), 0.0);
    assert!(value(&rows, "forward.return.median_ms") > 0.0);
}

#[test]
fn nothing_that_breaks_a_rule_passes_and_nothing_passes_beta() {
    let rows = run(&["gate", "--n", "5000"]);
    assert_eq!(value(&rows, "gate.violations"), 0.0);
    assert!(value(&rows, "gate.passed") >= 0.1);
    let rows = run(&["ledger", "--n", "200"]);
    assert_eq!(value(&rows, "ledger.broken"), 0.0);
}

#[test]
fn policies_are_measured_beside_the_oracle() {
    let some = "crash-infer,clock-skew,corrupt-model,site-failure";
    let rows = run(&[
        "policies",
        "--only",
        some,
        "--seeds",
        "2",
        "--steps",
        "1",
        "--policies",
        "no-op,supervisor,expert,expert-left-out",
    ]);
    // An expert who has never met what is wrong does not see it better.
    let share = |who: &str| value(&rows, &format!("policies.{who}.recovered"));
    assert!(share("expert") >= share("expert_left_out"));
    assert!(share("expert_left_out") < 1.0);
    assert_eq!(value(&rows, "policies.oracle.of_oracle"), 1.0);
    assert!(value(&rows, "policies.supervisor.by_60s.recovered") <= share("supervisor"));
    // Nothing is lost, harmed or spent by doing nothing, whatever the seed.
    assert_eq!(value(&rows, "policies.no_op.harm"), 0.0);
    assert_eq!(value(&rows, "policies.no_op.spent"), 0.0);
    assert_eq!(value(&rows, "policies.no_op.lost"), 1.0);
    assert_eq!(value(&rows, "policies.oracle.recovered"), 1.0);
    assert!(value(&rows, "policies.stratum.steps_1") >= 2.0);
}

#[test]
fn weights_are_tuned_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("trial.toml");
    let out = out.to_str().unwrap();
    let few = [
        "tune",
        "--only",
        "crash-infer,clock-skew",
        "--generations",
        "1",
    ];
    let few = [&few[..], &["--candidates", "4", "--seeds", "1"]].concat();
    let rows = run(&[&few[..], &["--out", out]].concat());
    assert!((0.0..=1.0).contains(&value(&rows, "tune.trial.recovered")));
    let text = std::fs::read_to_string(out).unwrap();
    assert!(text.contains("generations = 1") && text.contains("patience_s = "));
    let again = run(&[&few[..], &["--from", out]].concat());
    assert_eq!(again.len(), rows.len());
}

#[test]
fn the_simulator_accounts_for_every_request_and_repeats_itself() {
    let rows = run(&["sim", "--runs", "10", "--ticks", "1000"]);
    assert!(value(&rows, "sim.account.worst") <= 1e-9);
    assert_eq!(value(&rows, "sim.trace.differ"), 0.0);
    assert_eq!(value(&rows, "sim.quiet.reference.broken"), 0.0);
    assert!(value(&rows, "sim.speed.city") > 0.0);
}

/// A topology and incidents that nobody has seen before, and pictures of what became of them.
#[test]
fn sealed_folders_run_through_every_experiment_that_simulates() {
    let dir = tempfile::tempdir().unwrap();
    let [faults, fleets, plots] = ["faults", "fleets", "plots"].map(|name| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    });
    let text = Topology::generate_text(77, 5).unwrap();
    let drawn = Topology::read("drawn", &text).unwrap();
    let text = text.replacen(drawn.name(), "never-seen", 1);
    std::fs::write(fleets.join("never-seen.toml"), &text).unwrap();
    let topology = Topology::read("never-seen", &text).unwrap();
    // What is also in the development set must not be tuned on.
    let drawn = (77..).flat_map(|seed| Incident::generate(seed, &topology).into_iter().next());
    let drawn = drawn.filter(|incident| may_learn(incident).is_ok());
    for (number, mut incident) in drawn.take(2).enumerate() {
        incident.name = format!("sealed-{number}");
        incident.contain = false;
        incident.twin = None;
        let file = faults.join(format!("{}.toml", incident.name));
        std::fs::write(file, incident.to_string()).unwrap();
    }
    let [faults, fleets, plots] = [&faults, &fleets, &plots].map(|path| path.to_str().unwrap());
    let folders = ["--faults", faults, "--topologies", fleets];
    let small = ["sim", "--runs", "10", "--ticks", "1000"];
    let rows = run(&[&small[..], &folders].concat());
    assert_eq!(value(&rows, "sim.quiet.never-seen.broken"), 0.0);
    assert_eq!(row(&rows, "sim.trace.differ")["n"], 2);
    let small = [
        "policies",
        "--seeds",
        "1",
        "--steps",
        "1",
        "--policies",
        "no-op,supervisor",
        "--svg",
        plots,
    ];
    let rows = run(&[&small[..], &folders].concat());
    assert!(!rows.is_empty());
    let mut drawn = std::fs::read_dir(plots).unwrap();
    let svg = drawn.next().unwrap().unwrap().path();
    assert!(std::fs::read_to_string(svg).unwrap().contains("supervisor"));
    let small = ["tune", "--generations", "1", "--candidates", "4"];
    let rows = run(&[&small[..], &["--seeds", "1"], &folders].concat());
    assert_eq!(row(&rows, "tune.trial.recovered")["n"], 2);
}

#[test]
fn overhead_reads_all_processes() {
    let rows = run(&[
        "overhead",
        "--seconds",
        "2",
        "--incidents",
        "1",
        "--count",
        "0",
    ]);
    for process in ["agent", "spawner", "forwarder"] {
        assert!(value(&rows, &format!("overhead.{process}.rss_mib")) > 0.5);
    }
    assert!(value(&rows, "overhead.incident_net_kib") > 0.0);
    assert!(value(&rows, "overhead.total_percent") > 0.0);
}

#[test]
fn agent_cost_counts_metrics_and_measures_a_bare_client() {
    let rows = run(&["agent-cost", "--seconds", "1"]);
    let rest = row(&rows, "agent-cost.rest_percent")["what"]
        .as_str()
        .unwrap();
    let metrics = rest
        .split_whitespace()
        .find_map(|word| word.parse::<u32>().ok());
    assert!(metrics.is_some_and(|metrics| metrics >= 60), "{rest}");
    assert!(value(&rows, "agent-cost.probed_percent") > 0.0);
    if rows.iter().any(|row| row["id"] == "agent-cost.times") {
        assert!(value(&rows, "agent-cost.times") > 0.2);
    }
}

#[test]
fn quiet_days_are_counted_beside_a_plain_detector() {
    let days = ["--days", "1", "--hours", "0.2", "--topologies", "kiosk"];
    let rows = run(&[&["quiet-day", "--incidents", "0"], &days[..]].concat());
    assert_eq!(value(&rows, "quiet-day.false_alarms"), 0.0);
    assert!(value(&rows, "quiet-day.metrics") > 10.0);
}

#[test]
fn outbox_loses_and_doubles_nothing() {
    let rows = run(&["outbox", "--kills", "2"]);
    for key in ["lost", "doubled", "incidents_lost", "incidents_extra"] {
        assert_eq!(
            value(&rows, &format!("outbox.embedded.{key}")),
            0.0,
            "{key}"
        );
    }
}

#[test]
fn an_agent_killed_while_it_heals_finishes_later() {
    let rows = run(&["journal-kill", "--kills", "3"]);
    for (key, expected) in [("recovered", 1.0), ("lost", 0.0), ("doubled", 0.0)] {
        assert_eq!(
            value(&rows, &format!("journal_kill.{key}")),
            expected,
            "{key}"
        );
    }
}

#[test]
fn flash_counts_what_reaches_the_card() {
    let loops = Command::new("losetup").arg("-f").output();
    if !loops.is_ok_and(|found| found.status.success()) || !Path::new("/sbin/mkfs.ext4").exists() {
        println!("skip: no loop device or no mkfs.ext4");
        return;
    }
    let rows = run(&["flash", "--seconds", "2"]);
    assert!(value(&rows, "flash.mb_day") >= 0.0);
}

#[test]
fn a_power_cut_takes_nothing_that_was_said_to_be_safe() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skip: strace is not installed");
        return;
    }
    let args = [
        "--images", "120", "--sled", "12", "--rounds", "2", "--orders", "150",
    ];
    let rows = run(&[&["power-cut"], &args[..]].concat());
    for (key, expected) in [
        ("opens", 1.0),
        ("lost", 0.0),
        ("slots", 0.0),
        ("sled.opens", 1.0),
    ] {
        assert_eq!(value(&rows, &format!("power_cut.{key}")), expected, "{key}");
    }
    let written = &row(&rows, "power_cut.lost")["reference"];
    assert!(
        written.as_f64().unwrap() > 10.0,
        "cuts took what was not safe: {written}"
    );
}

#[test]
fn foresight_asks_the_forecaster_and_real_processes() {
    let size = ["--days", "1", "--leaks", "2", "--seconds", "10"];
    let rows = run(&[&["foresee"], &size[..]].concat());
    for id in [
        "foresee.struck",
        "foresee.cleared",
        "foresee.real.lost_supervisor",
    ] {
        assert!(row(&rows, id)["n"].is_u64(), "{id}");
    }
    // In ten seconds nobody comes near the limit.
    assert_eq!(value(&rows, "foresee.real.lost"), 0.0);
}

#[test]
fn killed_itself_it_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_homeostat-eval"))
        .args([
            "overhead",
            "--seconds",
            "8",
            "--incidents",
            "600",
            "--count",
            "0",
        ])
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mark = dir.path().to_str().unwrap().as_bytes().to_vec();
    let running = || {
        let folders = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = folders.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines
            .filter(|line| line.windows(mark.len()).any(|part| part == mark))
            .count()
    };
    // Coordinator, agent, spawner, forwarder and three services name the folder; the broker
    // does not.
    let end = Instant::now() + Duration::from_secs(60);
    while running() < 7 {
        assert!(Instant::now() < end, "{} of 7 processes", running());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while running() > 0 {
        assert!(Instant::now() < end, "{} still run", running());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_plan_across_nodes_is_whole_whoever_dies() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skip: strace is not installed");
        return;
    }
    let rows = run(&["saga", "--points", "5"]);
    for id in ["saga.halfway", "saga.lives", "saga.doubled"] {
        assert_eq!(value(&rows, id), 0.0, "{id}");
    }
    assert!(value(&rows, "saga.killed") >= 3.0);
}

#[test]
fn a_root_cause_run_ends_at_the_first_signal_and_tries_its_files_before() {
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_homeostat-eval"));
        command.arg("rca").args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    for signal in [Signal::INT, Signal::TERM] {
        // Far longer than the test waits.
        let mut run = command(&["--set", "sim"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let asked = Instant::now();
        kill_process(Pid::from_child(&run), signal).unwrap();
        let ended = run.wait().unwrap();
        assert!(!ended.success(), "{ended}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{signal:?}");
    }
    for (args, wanted) in [
        (
            ["--set", "nezha", "--teach", "file"],
            "--teach is for --set sim",
        ),
        (
            ["--set", "petshop", "--json", "/none/file"],
            "cannot write /none/file",
        ),
    ] {
        let run = command(&args).args(["--data", "/none"]).output().unwrap();
        let told = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && told.contains(wanted), "{told}");
    }
}
