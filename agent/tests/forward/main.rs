//! The forwarder as a process: connections, failures, orders, restarts.

#![allow(clippy::unwrap_used)]

mod rig;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use homeostat_agent::io::forward::client::{Client, Event};
use homeostat_agent::io::forward::protocol::{Admit, Health, Request, encode};
use homeostat_agent::io::forward::socket_path;
use homeostat_common::ids::{PlanId, Token};
use homeostat_common::units::Millis;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType};
use rustix::process::Signal;

use rig::{
    Backend, PATIENCE, Rig, answer_lines, block, free_port, id, next, raise_descriptors, reset,
    say_name, say_nothing, until,
};

#[test]
fn connections_follow_the_weights_also_those_that_outlive_the_forwarder() {
    let (a, b, s) = (
        Backend::new("a", say_name),
        Backend::new("b", say_name),
        Backend::new("s", say_name),
    );
    let backends = [("a", a.port, 300), ("b", b.port, 100), ("s", s.port, 0)];
    let mut rig = Rig::new("", &backends);
    assert_eq!(rig.count(40, "a"), 30);
    assert_eq!(s.accepted.load(Ordering::SeqCst), 0, "a standby");
    let set = |name: &str, weight| {
        let (run_dir, name) = (rig.run_dir(), id(name));
        block(async {
            let (mut client, routes) = Client::connect(&run_dir).await.unwrap();
            assert_eq!(routes[0].backends.len(), 3);
            client.set_weight(&id("r"), &name, weight).unwrap();
            next(&mut client).await
        })
    };
    assert!(matches!(set("a", 0), Event::WeightSet { weight: 0, .. }));
    assert!(matches!(set("s", 100), Event::WeightSet { .. }));
    assert!(matches!(set("x", 1), Event::Refused { why } if why == "route r has no backend x"));
    assert!(matches!(set("a", 1001), Event::Refused { .. }));
    assert_eq!(rig.count(20, "s"), 10);
    rig.kill();
    rig.start();
    assert_eq!((rig.count(20, "s"), rig.backend("a").weight), (10, 0));
    rig.kill();
    std::fs::write(
        rig.run_dir().join("forward/weights"),
        "homeostat-weights 1\nwei",
    )
    .unwrap();
    rig.start();
    assert_eq!(rig.count(40, "a"), 30, "the configured weights");
    assert!(rig.log_text().contains("damaged"), "{}", rig.log_text());
}

/// Some connections are not let in; what was asked for outlives the forwarder.
#[test]
fn a_rate_and_refused_addresses_hold_until_they_are_lifted() {
    let a = Backend::new("a", say_name);
    let mut rig = Rig::new("", &[("a", a.port, 100)]);
    let admit = |rig: &Rig, change| {
        let run_dir = rig.run_dir();
        let token = Token {
            plan: PlanId(1),
            step: 0,
            undo: false,
        };
        block(async {
            let (mut client, _) = Client::connect(&run_dir).await.unwrap();
            client.admit(token, &id("r"), change).unwrap();
            match next(&mut client).await {
                Event::Acted { token: of, failed } if of == token => failed,
                other => panic!("{other:?}"),
            }
        })
    };
    let let_in = |rig: &Rig, n: usize| (0..n).filter(|_| rig.ask().is_ok()).count();
    let net = "127.0.0.0/8".parse().unwrap();
    assert_eq!(admit(&rig, Admit::Block(net)), None);
    assert_eq!(let_in(&rig, 5), 0);
    rig.kill();
    rig.start();
    assert_eq!(let_in(&rig, 5), 0, "it outlives the forwarder");
    assert_eq!(admit(&rig, Admit::Unblock(net)), None);
    assert_eq!(let_in(&rig, 5), 5);
    assert_eq!(admit(&rig, Admit::Rate("2/s".parse().ok())), None);
    let begun = Instant::now();
    let some = let_in(&rig, 40);
    let most = 2 + begun.elapsed().as_millis() / 500;
    assert!(some >= 1 && some as u128 <= most, "{some} of {most}");
    let report = rig.report();
    assert_eq!((report.rate, report.blocked), ("2/s".parse().ok(), 0));
    assert_eq!(report.turned_away, 5 + 40 - some as u64, "{report:?}");
    assert_eq!(admit(&rig, Admit::Rate(None)), None);
    assert_eq!(let_in(&rig, 20), 20);
}

#[test]
fn a_dead_backend_costs_no_request_and_is_back_at_once() {
    let (a, b) = (Backend::new("a", say_name), Backend::new("b", say_name));
    let port = a.port;
    let rig = Rig::new("", &[("a", port, 100), ("b", b.port, 100)]);
    assert_eq!(rig.count(20, "a"), 10);
    drop(a);
    assert_eq!(rig.count(100, "b"), 100);
    let dead = rig.backend("a");
    assert_eq!((dead.health, dead.active), (Health::Ejected, 0));
    assert!(dead.failures >= 1 && dead.failures < 50, "{dead:?}");
    let _a = Backend::at(port, "a", say_name);
    until("a answers again", || rig.ask().unwrap() == "a");
    assert_eq!(rig.backend("a").health, Health::Healthy);
    assert_eq!(rig.report().refused, 0);
}

#[test]
fn patience_turns_a_restart_into_latency_and_ends() {
    let port = free_port();
    let rig = Rig::new("patience = \"2s\"", &[("a", port, 100)]);
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let mut client = rig.connect();
            client.write_all(b"?").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            client
        })
        .collect();
    until("all wait", || rig.report().waiting == 50);
    let a = Backend::at(port, "a", say_name);
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "a");
    }
    assert_eq!(rig.report().waiting, 0);
    drop(a);
    let begun = Instant::now();
    assert!(rig.ask().is_err());
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_secs(2) && waited < PATIENCE,
        "{waited:?}"
    );
    assert_eq!((rig.report().refused, rig.report().waiting), (1, 0));
}

#[test]
fn a_drain_lets_go_what_ends_and_resets_what_does_not() {
    let (a, b) = (
        Backend::new("a", answer_lines),
        Backend::new("b", answer_lines),
    );
    let rig = Rig::new("", &[("a", a.port, 1000), ("b", b.port, 1)]);
    let talk = |stream: &mut TcpStream| {
        stream.write_all(b"?")?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).map(|()| answer[0])
    };
    let mut streams: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    for stream in &mut streams {
        assert_eq!(talk(stream).unwrap(), b'a');
    }
    block(async {
        let (mut client, _) = Client::connect(&rig.run_dir()).await.unwrap();
        let drain = async |client: &Client, within| {
            client.drain(&id("r"), &id("a"), Millis(within)).unwrap();
        };
        drain(&client, 60_000).await;
        client.set_weight(&id("r"), &id("a"), 1000).unwrap();
        let cancelled = next(&mut client).await;
        assert!(
            matches!(
                cancelled,
                Event::Drained {
                    cancelled: true,
                    ..
                }
            ),
            "{cancelled:?}"
        );
        assert!(matches!(next(&mut client).await, Event::WeightSet { .. }));
        drain(&client, 300).await;
        client.report().unwrap();
        assert!(matches!(next(&mut client).await, Event::Reports { .. }));
        for stream in &mut streams {
            assert_eq!(talk(stream).unwrap(), b'a', "a drain disturbs nobody");
        }
        assert_eq!(talk(&mut rig.connect()).unwrap(), b'b');
        streams.pop();
        let drained = next(&mut client).await;
        let Event::Drained {
            closed_by_force,
            cancelled,
            ..
        } = drained
        else {
            panic!("{drained:?}")
        };
        assert_eq!((closed_by_force, cancelled), (3, false));
        let error = talk(&mut streams[0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        drain(&client, 60_000).await;
        let Event::Drained {
            closed_by_force, ..
        } = next(&mut client).await
        else {
            panic!("an empty backend is drained at once")
        };
        assert_eq!(closed_by_force, 0);
    });
}

#[test]
fn a_backend_that_breaks_or_keeps_silent_is_ejected_and_told() {
    for (serve, why) in [
        (reset as rig::Serve, "connections end before an answer"),
        (say_nothing, "no first byte of an answer in time"),
    ] {
        let (bad, good) = (
            Backend::new("bad", serve),
            Backend::new("good", answer_lines),
        );
        let backends = [("bad", bad.port, 100), ("good", good.port, 100)];
        let rig = Rig::new("first_byte = \"30ms\"", &backends);
        let run_dir = rig.run_dir();
        block(async {
            let (mut client, _) = Client::connect(&run_dir).await.unwrap();
            let mut kept = Vec::new();
            for _ in 0..6 {
                let mut stream = rig.connect();
                stream.write_all(b"?").unwrap();
                kept.push(stream);
            }
            let told = next(&mut client).await;
            let Event::Health {
                backend,
                health,
                why: said,
                ..
            } = told
            else {
                panic!("{told:?}")
            };
            assert_eq!(
                (backend, health, said.as_str()),
                (id("bad"), Health::Ejected, why)
            );
        });
        for _ in 0..10 {
            let mut stream = rig.connect();
            stream.write_all(b"?").unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"good");
        }
        let report = rig.report();
        let [bad, good] = &report.backends[..] else {
            panic!("{report:?}")
        };
        assert_eq!((bad.failures, bad.answered), (3, 0));
        assert!(good.answered >= 10 && good.first_byte_us[0] > 0, "{good:?}");
        assert!(good.first_byte_us[0] <= good.first_byte_us[2]);
    }
}

#[test]
fn the_only_backend_is_never_given_up() {
    let bad = Backend::new("a", reset);
    let port = bad.port;
    let rig = Rig::new("", &[("a", port, 100)]);
    for _ in 0..5 {
        assert!(rig.ask().is_err());
    }
    assert_eq!(rig.backend("a").health, Health::Ejected);
    drop(bad);
    let _good = Backend::at(port, "a", say_name);
    assert_eq!(rig.count(5, "a"), 5);
    assert_eq!(rig.backend("a").health, Health::Healthy);
}

#[test]
fn a_failing_check_takes_a_backend_out_and_a_good_one_brings_it_back() {
    fn unwell(mut stream: TcpStream, name: &str) {
        let mut bytes = [0; 512];
        let read = stream.read(&mut bytes).unwrap_or(0);
        let check = bytes[..read].starts_with(b"GET /healthz HTTP/1.1\r\n");
        let answer = if check {
            "HTTP/1.1 503 No\r\n\r\n"
        } else {
            name
        };
        let _ = stream.write_all(answer.as_bytes());
    }
    fn well(mut stream: TcpStream, _: &str) {
        let mut bytes = [0; 512];
        let _ = stream.read(&mut bytes);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    }
    let (a, b) = (Backend::new("a", unwell), Backend::new("b", well));
    let port = a.port;
    let check =
        "check = { kind = \"http\", path = \"/healthz\", period = \"20ms\", timeout = \"100ms\" }";
    let rig = Rig::new(check, &[("a", port, 100), ("b", b.port, 100)]);
    let is = |health| move |rig: &Rig| rig.backend("a").health == health;
    until("out", || is(Health::CheckFailed)(&rig));
    assert_eq!(rig.count(10, "HTTP/1.1 200 OK\r\n\r\n"), 10, "all by b");
    drop(a);
    let _a = Backend::at(port, "a", well);
    until("back", || is(Health::Healthy)(&rig));
    assert_eq!(rig.backend("b").health, Health::Healthy);
}

#[test]
fn checks_come_at_their_period_however_soon_they_are_answered() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    fn well(mut stream: TcpStream, _: &str) {
        ASKED.fetch_add(1, Ordering::SeqCst);
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    }
    let a = Backend::new("a", well);
    let check =
        "check = { kind = \"http\", path = \"/healthz\", period = \"20ms\", timeout = \"30ms\" }";
    let begun = Instant::now();
    let _rig = Rig::new(check, &[("a", a.port, 100)]);
    let asked = || ASKED.load(Ordering::SeqCst);
    until("fifty checks", || asked() >= 50);
    let least = Duration::from_millis(20) * 49;
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}

#[test]
fn half_closes_and_bytes_arrive_as_they_were_sent_both_ways() {
    /// Sends back everything, and a mark once the client has ended.
    fn echo(mut stream: TcpStream, _: &str) {
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut stream);
        let _ = stream.write_all(b"end");
    }
    let a = Backend::new("a", echo);
    let rig = Rig::new("", &[("a", a.port, 1)]);
    let mut stream = rig.connect();
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ 0x5a)
        .collect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got.ends_with(b"end") && got[..got.len() - 3] == sent[..]);
    until("closed", || rig.backend("a").active == 0);
}

#[test]
fn a_slow_reader_slows_its_sender_and_costs_no_memory() {
    const WHOLE: usize = 64 << 20;
    fn flood(mut stream: TcpStream, _: &str) {
        let chunk = vec![7; 1 << 16];
        for _ in 0..WHOLE / chunk.len() {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
    }
    let a = Backend::new("a", flood);
    let rig = Rig::new("", &[("a", a.port, 1)]);
    let memory = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kb = line.unwrap().trim().trim_end_matches(" kB");
        kb.parse::<usize>().unwrap() * 1024
    };
    let before = memory();
    let mut stream = rig.connect();
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let grown = memory() - before;
    assert!(grown < 2 << 20, "{grown} bytes more");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), WHOLE - 1);
    let grown = memory() - before;
    assert!(grown < 2 << 20, "{grown} bytes more");
}

#[test]
fn a_thousand_connections_at_once() {
    raise_descriptors();
    let a = Backend::new("a", |stream, _| {
        // A thread for each would measure threads.
        std::mem::forget(stream);
    });
    let b = Backend::new("b", answer_lines);
    let mut rig = Rig::new("", &[("a", a.port, 1000), ("b", b.port, 0)]);
    let all: Vec<_> = (0..1000).map(|_| rig.connect()).collect();
    until("all are through", || rig.backend("a").active == 1000);
    assert!(rig.alive());
    drop(all);
    // The backend keeps its halves; those are reset with the process.
    block(async {
        let (mut client, _) = Client::connect(&rig.run_dir()).await.unwrap();
        client.set_weight(&id("r"), &id("b"), 1).unwrap();
        next(&mut client).await;
        client.drain(&id("r"), &id("a"), Millis(1)).unwrap();
        assert!(matches!(next(&mut client).await, Event::Drained { .. }));
    });
    let mut stream = rig.connect();
    stream.write_all(b"?").unwrap();
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!((&answer, rig.backend("a").active), (b"b", 0));
}

#[test]
fn garbage_on_the_control_socket_harms_nobody() {
    let a = Backend::new("a", say_name);
    let mut rig = Rig::new("", &[("a", a.port, 1)]);
    let raw = || {
        let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let address = SocketAddrUnix::new(socket_path(&rig.run_dir())).unwrap();
        rustix::net::connect(&fd, &address).unwrap();
        fd
    };
    let send = |fd: &OwnedFd, bytes: &[u8]| {
        let _ = rustix::net::send(fd, bytes, SendFlags::NOSIGNAL);
    };
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20 {
        let fd = raw();
        send(&fd, &encode(&Request::Hello).unwrap());
        for _ in 0..random.usize(..20) {
            let mut bytes = vec![0; random.usize(1..2000)];
            random.fill(&mut bytes);
            // Half of them of the right version.
            if random.bool() {
                bytes[0] = 1;
            }
            send(&fd, &bytes);
        }
    }
    // Not one that reads; it is let go, and the others are served.
    let deaf = raw();
    send(&deaf, &encode(&Request::Hello).unwrap());
    for _ in 0..2000 {
        let asked = encode(&Request::Report).unwrap();
        if rustix::net::send(&deaf, &asked, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_err() {
            break;
        }
    }
    assert_eq!(rig.count(3, "a"), 3);
    assert_eq!(rig.backend("a").weight, 1);
    let crowd: Vec<_> = (0..20).map(|_| raw()).collect();
    assert_eq!(rig.count(3, "a"), 3);
    drop(crowd);
    until("room again", || {
        block(async { Client::connect(&rig.run_dir()).await.is_ok() })
    });
    assert!(rig.alive());
}

#[test]
fn reports_move_and_a_second_forwarder_is_refused() {
    let rig = Rig::new("", &[("a", free_port(), 1)]);
    block(async {
        let (mut client, _) = Client::connect(&rig.run_dir()).await.unwrap();
        let mut stamps = Vec::new();
        for _ in 0..2 {
            client.report().unwrap();
            let Event::Reports { stamp, routes } = next(&mut client).await else {
                panic!("a report")
            };
            assert_eq!(routes.len(), 1);
            stamps.push(stamp);
        }
        assert!(stamps[1].seq == stamps[0].seq + 1 && stamps[1].at > stamps[0].at);
    });
    let second = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"))
        .args(["forward", "--config"])
        .arg(rig.file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another forwarder already serves"), "{said}");
    assert_eq!(second.status.code(), Some(1));
}

#[test]
fn a_reload_changes_what_changed_and_a_bad_one_nothing() {
    let (a, b) = (Backend::new("a", answer_lines), Backend::new("b", say_name));
    let rig = Rig::new("", &[("a", a.port, 100)]);
    let mut kept = rig.connect();
    let mut talk = || {
        kept.write_all(b"?").unwrap();
        let mut answer = [0; 1];
        kept.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"a");
    };
    talk();
    let reload = || {
        block(async {
            let (mut client, _) = Client::connect(&rig.run_dir()).await.unwrap();
            client.reload().unwrap();
            next(&mut client).await
        })
    };
    rig.write("[[forward]]\nid = \"r\"\n");
    let Event::NotReloaded { why } = reload() else {
        panic!("a bad file was taken")
    };
    assert!(why.contains("forward[0].listen: is required"), "{why}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let first = rig.route("r", rig.port, "", &[("a", a.port, 100)]);
    rig.write(&(first.clone() + &rig.route("q", port, "", &[("b", b.port, 1)])));
    let Event::NotReloaded { why } = reload() else {
        panic!("a taken port was taken")
    };
    assert!(why.contains("cannot listen at 127.0.0.1:"), "{why}");
    talk();
    drop(taken);
    let port = free_port();
    rig.write(&(first + &rig.route("q", port, "", &[("b", b.port, 1)])));
    assert_eq!(reload(), Event::Reloaded);
    talk();
    let mut other = TcpStream::connect(("127.0.0.1", port)).unwrap();
    other.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "b");
    // A route that is gone takes no more, and its connections go on.
    rig.write(&rig.route("q", port, "", &[("b", b.port, 1)]));
    rig.signal(Signal::HUP);
    until("r is gone", || {
        TcpStream::connect(("127.0.0.1", rig.port)).is_err()
    });
    talk();
}

#[test]
fn a_killed_forwarder_has_its_ports_back_and_inherited_ones_refuse_nobody() {
    let a = Backend::new("a", answer_lines);
    let mut rig = Rig::new("", &[("a", a.port, 1)]);
    let mut open = rig.connect();
    open.write_all(b"?").unwrap();
    open.read_exact(&mut [0; 1]).unwrap();
    rig.kill();
    rig.start();
    let mut stream = rig.connect();
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    rig.kill();

    let listener = TcpListener::bind(("127.0.0.1", rig.port)).unwrap();
    rig.start_with(listener.try_clone().unwrap().into(), "r");
    rig.kill();
    let mut early = rig.connect();
    early.write_all(b"?").unwrap();
    rig.start_with(listener.into(), "other-name-but-the-address-fits");
    let mut answer = [0; 1];
    early.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"a");
}

#[test]
fn routes_are_shown_to_people_and_programs() {
    let a = Backend::new("a", say_name);
    let rig = Rig::new("", &[("a", a.port, 100), ("standby", 1, 0)]);
    rig.ask().unwrap();
    let show = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"))
            .args(["routes", "--config"])
            .arg(rig.file())
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = show(&[]);
    let line = table.lines().nth(1).unwrap();
    let words: Vec<_> = line.split_whitespace().take(7).collect();
    assert_eq!(
        words,
        ["r", "a", "100", "healthy", "0", "1", "0"],
        "{table}"
    );
    let json: serde_json::Value = serde_json::from_str(&show(&["--json"])).unwrap();
    assert_eq!(json[0]["backends"][1]["backend"], "standby");
    assert_eq!(json[0]["backends"][0]["answered"], 1);
}
