//! Budgets of work that no busy machine can spoil: instructions of the loop, counted by
//! valgrind, and system calls of the processes, counted by strace. A change that makes the agent
//! dearer fails here, on whatever machine; one that has its reason raises the number with it.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use homeostat_agent::config::Config;
use homeostat_agent::control::{Effect, Event, Loop, ProbeOutcome, Resumed, SlotReport};
use homeostat_agent::service::ProcessSample;
use homeostat_common::ids::{BootId, Instance};
use homeostat_common::observation::Reading;
use homeostat_common::units::{Bytes, Micros};
use rustix::process::{Pid, Signal, kill_process};

/// Instructions that the loop may take for a second of a node at rest: three services, a probe
/// and a sample each. 1.76 million were counted, and half as many again are allowed. Of a build
/// without optimisation, in which tests run; optimised it is a fraction.
const LOOP_MAX: u64 = 2_640_000;

/// System calls a second of the loop's process at rest, with three probes and a sample of host
/// and processes and ten looks at pressure, less those of [`LOOKING`]: 146 were counted, and half
/// as many again are allowed as wake-ups on a busy machine come in pieces ...
const RUN_CALLS_MAX: f64 = 219.0;

/// ... and of the spawner, which looks at three logs: 4, and one more look of each a second.
const SPAWN_CALLS_MAX: f64 = 10.0;

/// What looking for strangers consists of, which is done while a machine is busy and takes the
/// more the more processes there are.
const LOOKING: [&str; 5] = ["openat", "read", "statx", "close", "getdents64"];

/// So many seconds are counted.
const COUNTED: Duration = Duration::from_secs(6);

/// The helper's number of simulated seconds.
const SECONDS: &str = "HOMEOSTAT_COST_SECONDS";

fn installed(program: &str) -> bool {
    let status = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let found = status.is_ok_and(|status| status.success());
    if !found {
        println!("skip: {program} is not installed");
    }
    found
}

#[test]
fn a_second_of_the_loop_costs_no_more_than_its_budget() {
    if !installed("valgrind") {
        return;
    }
    let [short, long] = [20, 120].map(|seconds: u64| {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let output = Command::new("valgrind")
            .args(["--tool=cachegrind", "--cache-sim=no"])
            .arg("--cachegrind-out-file=/dev/null")
            .arg(format!("--log-file={}", log.display()))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "simulated_seconds", "--test-threads=1"])
            .env(SECONDS, seconds.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read_to_string(log).unwrap();
        let line = text.lines().find(|line| line.contains("refs:")).unwrap();
        let digits = line.rsplit(':').next().unwrap().replace(',', "");
        digits.trim().parse::<u64>().unwrap()
    });
    let each = (long - short) / 100;
    println!("{each} instructions for a second of the loop");
    assert!(each > 1000, "nothing was counted");
    assert!(
        each <= LOOP_MAX,
        "{each} instructions, {LOOP_MAX} are allowed"
    );
}

/// Not a test of its own: what the one above counts.
#[test]
fn simulated_seconds() {
    let Some(seconds) = std::env::var(SECONDS).ok() else {
        return;
    };
    let seconds: u64 = seconds.parse().unwrap();
    let config = Config::parse(
        &config(Path::new("/tmp/x"), [1, 2, 3]),
        Path::new("/x.toml"),
    );
    let config = config.unwrap();
    let mut core = Loop::new(&config, BootId([1; 16]), Resumed::default(), Micros(0));
    let slots = config.services.iter().zip(1..);
    let slots = slots.map(|(service, life)| SlotReport {
        service: service.id.clone(),
        live: Some(Instance(life)),
        last: None,
    });
    let mut events = vec![Event::Slots(slots.collect())];
    let (mut now, mut number, mut sampled) = (Micros(1), 0, 0);
    while now.0 < seconds * 1_000_000 {
        while let Some(event) = events.pop() {
            for effect in core.step(now, event) {
                if let Effect::Probe(service, probe) = effect {
                    number += 1;
                    let outcome = ProbeOutcome::Right { latency_us: 300 };
                    events.push(Event::Probed {
                        service: service.clone(),
                        probe,
                        number,
                        outcome,
                        late: false,
                    });
                    // Taken from the end, so this comes first.
                    events.push(Event::ProbeSent {
                        service,
                        probe,
                        number,
                    });
                }
            }
        }
        let second = now.0 / 1_000_000;
        if second > sampled {
            sampled = second;
            let process = ProcessSample {
                resident: Reading::Fresh(Bytes(20 << 20)),
                descriptors: Reading::Fresh(20),
                descriptor_limit: Reading::Fresh(1024),
                cpu: Reading::Fresh(0.01),
                ..ProcessSample::default()
            };
            let processes = config.services.iter();
            let processes = processes.map(|service| (service.id.clone(), process));
            events.push(Event::Sample(Box::default(), processes.collect()));
            continue;
        }
        let due = Micros((sampled + 1) * 1_000_000);
        now = core
            .next_wake()
            .unwrap_or(due)
            .min(due)
            .max(Micros(now.0 + 1));
        events.push(Event::Wake);
    }
    assert!(number >= 3 * (seconds - 2), "{number} probes");
    assert_eq!(core.incidents().count(), 0);
}

fn config(at: &Path, ports: [u16; 3]) -> String {
    let at = at.display();
    let mut text = format!(
        "[node]\nid = \"edge-1\"\ndata_dir = \"{at}/data\"\nrun_dir = \"{at}/run\"\n[limits]\nmode = \"act\"\n"
    );
    for (name, port) in ["a", "b", "c"].iter().zip(ports) {
        text += &format!(
            "[[service]]\nid = \"{name}\"\ncommand = [\"/bin/sleep\", \"1000\"]\nports = [{port}]\n\
             stop_grace = \"100ms\"\n[[service.probe]]\nkind = \"http\"\npath = \"/\"\n"
        );
    }
    text
}

/// Answers each connection as a small web service does.
fn web() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    port
}

/// A process that is ended with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn at_rest_the_processes_make_no_more_system_calls_than_their_budget() {
    if !installed("strace") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, config(dir.path(), [web(), web(), web()])).unwrap();
    let role = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"));
        let command = command.args(words).arg("--config").arg(&file);
        Running(command.stderr(Stdio::null()).spawn().unwrap())
    };
    let spawner = role(&["spawn", "--stop-services-on-exit"]);
    let agent = role(&["run"]);
    // Started, adopted, asked and answered.
    thread::sleep(Duration::from_secs(3));
    for (name, process, most) in [
        ("run", &agent, RUN_CALLS_MAX),
        ("spawn", &spawner, SPAWN_CALLS_MAX),
    ] {
        let out = dir.path().join(format!("{name}.calls"));
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-qq", "-o"])
            .arg(&out)
            .args(["-p", &process.0.id().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(COUNTED);
        kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
        strace.wait().unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        // Columns: share, seconds, each, calls, errors if there were any, name.
        let rows = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let calls = rows.filter_map(|row| {
            let name = row.last()?;
            let counted = *name != "total" && !LOOKING.contains(name);
            row.get(3)?.parse::<f64>().ok().filter(|_| counted)
        });
        let calls: f64 = calls.sum();
        if calls == 0.0 {
            println!("skip: strace may not look at {name}");
            continue;
        }
        let each = calls / COUNTED.as_secs_f64();
        println!("{name}: {each:.0} system calls a second\n{text}");
        assert!(
            each <= most,
            "{name}: {each:.0} system calls a second, {most} are allowed"
        );
    }
}
