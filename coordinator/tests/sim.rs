//! The simulator's commands as a person runs them, with faults and topologies from a folder
//! that nobody has seen before: names and files are made here, out of the grammar.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use homeostat_sim::fault::{Incident, may_learn};
use homeostat_sim::topology::Topology;

struct Sealed {
    dir: tempfile::TempDir,
    names: Vec<String>,
}

impl Sealed {
    /// A topology and some incidents for it.
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("fleets")).unwrap();
        fs::create_dir(dir.path().join("faults")).unwrap();
        let name = format!("never-seen-{seed:x}");
        let text = Topology::generate_text(seed, 7).unwrap();
        let drawn = Topology::read("drawn", &text).unwrap();
        let text = text.replacen(drawn.name(), &name, 1);
        let topology = Topology::read("drawn", &text).unwrap();
        assert_eq!(topology.name(), name);
        fs::write(dir.path().join(format!("fleets/{name}.toml")), &text).unwrap();
        let mut names = Vec::new();
        for number in seed.. {
            let drawn = Incident::generate(number, &topology);
            let fit = drawn.into_iter().filter(|one| may_learn(one).is_ok());
            for mut incident in fit {
                incident.name = format!("sealed-{}", names.len());
                incident.twin = None;
                let file = dir.path().join(format!("faults/{}.toml", incident.name));
                fs::write(file, incident.to_string()).unwrap();
                names.push(incident.name);
            }
            if names.len() >= 2 {
                break;
            }
        }
        Self { dir, names }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs a command with both folders.
    fn sim(&self, args: &[&str]) -> Output {
        let faults = self.path("faults");
        let fleets = self.path("fleets");
        let folders = ["--faults", &faults, "--topologies", &fleets];
        homeostat(&[args, &folders].concat())
    }
}

fn sealed_run(faults: &str, fleets: &str) -> Output {
    let folders = ["--faults", faults, "--topologies", fleets];
    homeostat(&[&["run", "--policy", "no-op", "--json"], &folders[..]].concat())
}

fn homeostat(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_homeostat"))
        .arg("sim")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    println!("{args:?}\n{}", told(&output));
    output
}

fn told(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_sealed_folder_runs_through_every_command() {
    let sealed = Sealed::new(41);
    let first = sealed.names[0].as_str();
    let run = sealed.sim(&["run", "--policy", "supervisor", "--json"]);
    assert!(run.status.success());
    let text = told(&run);
    assert_eq!(text.lines().count(), sealed.names.len());
    assert!(text.contains("never-seen-29") && text.contains(first));
    let explain = sealed.sim(&["explain", "3", first, "--policy", "expert"]);
    assert!(explain.status.success());
    assert!(told(&explain).contains("incident begins"));
    let certify = sealed.sim(&["certify", first, "--steps", "1", "--streams", "1"]);
    assert!(certify.status.success());
    assert!(told(&certify).contains(first));
    for (split, form) in [("sealed", "parquet"), ("train", "jsonl")] {
        let out = sealed.path(split);
        let record = sealed.sim(&[
            "record",
            "--out",
            &out,
            "--split",
            split,
            "--format",
            form,
            "--forks",
            "2",
            "--plans",
            "2",
            "--policy",
            "expert,random",
            "--horizon",
            "60",
        ]);
        assert!(record.status.success());
        // Of itself: without the folders that it was made from.
        let replay = homeostat(&["replay", &out]);
        assert!(replay.status.success());
        assert!(told(&replay).contains("bit for bit the same"));
        let file = format!("{out}/seen.{form}");
        assert!(homeostat(&["replay", &file]).status.success());
    }
    // More of the same kind, none like those that are there.
    let (out, known) = (sealed.path("more"), sealed.path("faults"));
    let fleets = sealed.path("fleets");
    let more = [
        "generate",
        "--out",
        &out,
        "--topologies",
        &fleets,
        "--known",
        &known,
        "--plain",
        "--count",
        "1",
        "--streams",
        "1",
    ];
    let generated = homeostat(&[&more[..], &["--topology", "never-seen-29"]].concat());
    assert!(generated.status.success());
    let certificates = fs::read_to_string(Path::new(&out).join("certificates.tsv")).unwrap();
    assert!(certificates.contains("\tnever-seen-29\t"), "{certificates}");
    let run = sealed_run(&out, &fleets);
    assert_eq!(told(&run).lines().count(), certificates.lines().count());
    let nowhere = homeostat(&[&more[..], &["--topology", "never-seen"]].concat());
    assert!(!nowhere.status.success() && told(&nowhere).contains("never-seen"));
    // Once more into the same folder is refused.
    let out = sealed.path("train");
    let again = sealed.sim(&["record", "--out", &out]);
    assert!(!again.status.success() && told(&again).contains("is not empty"));
}

#[test]
fn mistakes_in_a_folder_are_told_by_file_and_line_by_every_command() {
    let sealed = Sealed::new(43);
    let first = sealed.names[0].as_str();
    let out = sealed.path("out");
    let commands: [&[&str]; 4] = [
        &["run", first, "--policy", "no-op"],
        &["explain", "1", first],
        &["certify", first, "--steps", "1"],
        &["record", first, "--out", &out, "--split", "sealed"],
    ];
    let refused = |file: &str, bad: &str, place: &str| {
        let path = sealed.path(file);
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, bad).unwrap();
        for args in commands {
            let output = sealed.sim(args);
            let text = told(&output);
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.contains(place), "{place}: {text}");
            assert!(!Path::new(&out).exists());
        }
        fs::write(&path, good).unwrap();
    };
    let fault = format!("faults/{first}.toml");
    refused(
        &fault,
        "name = \"x\"\nabout = 3\n",
        &format!("{first}.toml:2: "),
    );
    // Well formed, but what it names is not in the topology.
    let nobody = format!(
        "name = \"{first}\"\nabout = \"\"\ntopology = \"never-seen-2b\"\n\n[[fault]]\nid = \"a\"\n\
         mechanism = \"heat\"\nlocus = \"node of-nobody\"\n"
    );
    refused(&fault, &nobody, &format!("{first}.toml:8: "));
    let fleet = "fleets/never-seen-2b.toml";
    refused(fleet, "nodes = 3\n", "never-seen-2b.toml:1: ");
}

#[test]
fn nothing_of_development_is_recorded_for_training() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("set");
    let out = out.to_str().unwrap();
    let refused = |args: &[&str], why: &str| {
        let output = homeostat(&[&["record", "--out", out], args].concat());
        let text = told(&output);
        assert!(!output.status.success() && text.contains(why), "{text}");
        assert!(!Path::new(out).exists());
    };
    refused(&["--faults", "development"], "of the development set");
    // Another name does not make it another incident.
    let (_, text) = Incident::development()[0];
    let own = Incident::read("own", text).unwrap();
    let renamed = text.replacen(&own.name, "mine", 1);
    fs::create_dir(dir.path().join("faults")).unwrap();
    fs::write(dir.path().join("faults/mine.toml"), renamed).unwrap();
    let faults = dir.path().join("faults");
    let faults = faults.to_str().unwrap();
    refused(&["--faults", faults], "is the same as");
    refused(&["--split", "sealed"], "wants --faults");
    refused(&["--forks", "200", "--plans", "200"], "are more than 256");
    // For development it may be, with seeds of its own.
    let args = [
        "record",
        "--out",
        out,
        "--split",
        "development",
        "--policy",
        "no-op",
    ];
    let name = own.name.as_str();
    let done = homeostat(&[&args[..], &["--format", "jsonl", name]].concat());
    assert!(done.status.success());
    let rows = fs::read_to_string(Path::new(out).join("episodes.jsonl")).unwrap();
    assert!(rows.contains("\"seed\":4294967297,"), "{rows}");
}
