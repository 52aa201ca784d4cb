//! What sensing costs the node: processor time per probe, per sample, per log line.
//!
//! `cargo bench -p homeostat-agent --bench sense`. Counts the time of this thread
//! alone; the services answer on others.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use homeostat_agent::config::{Probe, ProbeKind};
use homeostat_agent::io::clock;
use homeostat_agent::io::logs::tail::Tail;
use homeostat_agent::io::probe::{Outcome, Prober};
use homeostat_agent::io::procfs::{Host, Places, Process};
use homeostat_common::units::Millis;
use homeostat_templates::{Limits, Miner};
use rustix::time::{ClockId, clock_gettime};

const SERVICES: u32 = 3;
const PROBES_PER_SECOND: u32 = 30;
const SECONDS: u32 = 5;

fn cpu_micros() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Answers each connection as a small web service does.
fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    port
}

/// `together`: all services are asked in one go, as the loop does it.
fn probes(together: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut prober = Prober::new().expect("a prober");
        let targets: Vec<_> = (0..SERVICES)
            .map(|_| {
                let kind = ProbeKind::Http {
                    path: "/".to_owned(),
                    expect_status: 200,
                };
                let probe = Probe {
                    kind,
                    port: service(),
                    period: Millis(33),
                    timeout: Millis(25),
                    misses: 2,
                    gate_max: Millis(1500),
                };
                prober.add(&probe, &[])
            })
            .collect();
        let (before, mut alive) = (cpu_micros(), 0);
        let gap = Duration::from_secs(1) * together / (PROBES_PER_SECOND * SERVICES);
        let count = PROBES_PER_SECOND * SECONDS * SERVICES;
        let mut turns = targets.iter().cycle();
        for _ in 0..count / together {
            for target in turns.by_ref().take(together as usize) {
                prober.start(*target).expect("a probe");
            }
            for _ in 0..together {
                let report = prober.next().await.expect("a report");
                alive += u32::from(matches!(report.outcome, Outcome::Alive { .. }));
            }
            tokio::time::sleep(gap).await;
        }
        let spent = cpu_micros() - before;
        println!(
            "probe, {together} at once: {:.1} us each, {alive} of {count} alive; {:.3} % of a core at \
             {PROBES_PER_SECOND}/s on each of {SERVICES} services",
            spent / f64::from(count),
            spent / f64::from(SECONDS) / 1e4,
        );
    });
}

fn samples() {
    const ROUNDS: u32 = 2000;
    let proc = Path::new("/proc");
    let mut host = Host::new(&Places {
        proc,
        sys: Path::new("/sys"),
        data_dir: Path::new("/tmp"),
        file_systems: &["/".into()],
    });
    let mut own: Vec<_> = (0..SERVICES)
        .map(|_| Process::new(proc, std::process::id()))
        .collect();
    let before = cpu_micros();
    // A clock of its own: a second between two samples, so that each tier is due when it is
    // on a node.
    let mut now = clock::now();
    for _ in 0..ROUNDS {
        now = now + Millis(1000);
        black_box(host.sample(now));
    }
    let host_cost = (cpu_micros() - before) / f64::from(ROUNDS);
    let before = cpu_micros();
    for _ in 0..ROUNDS {
        for process in &mut own {
            black_box(process.sample(clock::now()));
        }
    }
    let services_cost = (cpu_micros() - before) / f64::from(ROUNDS);
    println!("sample: host {host_cost:.1} us, {SERVICES} services {services_cost:.1} us");
    let before = cpu_micros();
    for _ in 0..ROUNDS {
        black_box(host.sample(now));
    }
    let second = (cpu_micros() - before) / f64::from(ROUNDS);
    let (mut slow, mut parts) = (0.0, 0.0);
    for round in 0..600_u32 {
        now = now + Millis(10_000);
        let before = cpu_micros();
        black_box(host.sample(now));
        // Which parts there are is asked every sixth time.
        let sum = if round % 6 == 0 {
            &mut parts
        } else {
            &mut slow
        };
        *sum += cpu_micros() - before;
    }
    let (slow, parts) = (slow / 500.0 - second, parts / 100.0 - slow / 500.0);
    let before = cpu_micros();
    for _ in 0..ROUNDS {
        now = now + Millis(100);
        host.glance(now);
    }
    let glance = (cpu_micros() - before) / f64::from(ROUNDS);
    let sources = host.sample(now).sources.len();
    println!(
        "host by tier: {glance:.1} us a glance, {second:.1} us each second, {slow:.1} us more each \
         10 s, {parts:.1} us more each 60 s, for {sources} series; {:.4} % of a core with 10 glances",
        (glance * 10.0 + second + slow / 10.0 + parts / 60.0) / 1e4
    );
}

fn logs() {
    const LINES: u32 = 50_000;
    let path = std::env::temp_dir().join(format!("sense-bench-{}.log", std::process::id()));
    let mut tail = Tail::from_start(&path);
    let text = (0..LINES).fold(String::new(), |mut text, i| {
        text += &format!(
            "2026-01-01T00:00:{:02}.123Z INFO served request {i} from 10.0.0.{} in {}ms path=/infer/{i}\n",
            i % 60, i % 256, i % 97
        );
        text
    });
    std::fs::write(&path, &text).expect("a log");
    let mut miner = Miner::new(Limits::default());
    let (before, mut lines) = (cpu_micros(), 0);
    loop {
        let tally = tail.poll(1 << 16, |line| {
            black_box(miner.line(line).template);
            lines += 1;
        });
        if tally.bytes == 0 {
            break;
        }
    }
    let cost = (cpu_micros() - before) / f64::from(lines);
    let before = cpu_micros();
    for _ in 0..10_000 {
        black_box(tail.poll(1 << 16, |_| ()));
    }
    let idle = (cpu_micros() - before) / 1e4;
    println!("log: {cost:.2} us a line over {lines} lines, {idle:.2} us a look at a quiet one");
    let _ = std::fs::remove_file(&path);
}

fn main() {
    probes(1);
    probes(SERVICES);
    samples();
    logs();
}
