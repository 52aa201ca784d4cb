//! Probes against real sockets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use homeostat_common::units::{Millis, Ratio};

use super::*;
use crate::config::{Gauge, Goldens, ProbeKind, Protocol};

fn run<T>(test: impl AsyncFnOnce(Prober) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { test(Prober::new().unwrap()).await })
}

fn probe(kind: ProbeKind, port: u16) -> Probe {
    Probe {
        kind,
        port,
        period: Millis(50),
        // Generous: on a loaded machine an answer in time may take a while.
        timeout: Millis(5000),
        misses: 2,
        gate_max: Millis(5000),
    }
}

fn hasty(port: u16, gate_max: Millis) -> Probe {
    Probe {
        timeout: Millis(25),
        gate_max,
        ..http(port)
    }
}

fn http(port: u16) -> Probe {
    let path = "/healthz".to_owned();
    let kind = ProbeKind::Http {
        path,
        expect_status: 200,
    };
    probe(kind, port)
}

/// Answers `connections` of them, each by `serve`.
fn server(connections: usize, serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            serve(stream.unwrap());
        }
    });
    port
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn ok(mut stream: TcpStream) {
    let head = read_head(&mut stream);
    assert!(head.starts_with("GET /healthz HTTP/1.1\r\n"), "{head}");
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

#[test]
fn an_answer_in_time_is_alive_and_slots_are_reused() {
    run(async |mut prober| {
        let target = prober.add(&http(server(50, ok)), &[]);
        for expected in 0..50 {
            let number = prober.start(target).unwrap();
            let report = prober.next().await.unwrap();
            assert_eq!((report.probe, number), (expected, expected));
            assert!(
                matches!(report.outcome, Outcome::Alive { .. }),
                "{report:?}"
            );
            assert!(!report.late);
        }
        assert_eq!(prober.slots.len(), 1);
        assert_eq!(prober.targets[0].in_flight, 0);
    });
}

#[test]
fn an_answer_after_the_timeout_is_reported_twice_and_the_second_time_late() {
    run(async |mut prober| {
        let slow = server(1, |stream| {
            thread::sleep(Duration::from_millis(80));
            ok(stream);
        });
        let target = prober.add(&hasty(slow, Millis(5000)), &[]);
        let number = prober.start(target).unwrap();
        let first = prober.next().await.unwrap();
        assert_eq!((first.outcome, first.late), (Outcome::TimedOut, false));
        assert!(first.at - first.sent >= 25_000);
        let second = prober.next().await.unwrap();
        assert!(second.late && second.probe == number, "{second:?}");
        let Outcome::Alive { latency } = second.outcome else {
            panic!("{second:?}");
        };
        assert!(latency >= Duration::from_millis(80));
    });
}

#[test]
fn a_service_that_never_answers_is_timed_out_once_and_its_connections_are_bounded() {
    run(async |mut prober| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = prober.add(&hasty(port, Millis(300)), &[]);
        for _ in 0..IN_FLIGHT_MAX {
            prober.start(target).unwrap();
        }
        assert!(matches!(prober.start(target), Err(ProbeError::Full { .. })));
        for _ in 0..IN_FLIGHT_MAX {
            let report = prober.next().await.unwrap();
            assert_eq!(report.outcome, Outcome::TimedOut);
        }
        // After gate_max nothing is left, and nothing more is said.
        let silence = tokio::time::timeout(Duration::from_millis(350), prober.next()).await;
        assert!(silence.is_err());
        assert_eq!(prober.targets[0].in_flight, 0);
        assert!(prober.slots.iter().all(|slot| slot.flight.is_none()));
        prober.start(target).unwrap();
        prober.forget(target);
        let silence = tokio::time::timeout(Duration::from_millis(40), prober.next()).await;
        assert!(silence.is_err());
    });
}

#[test]
fn an_answer_that_waited_for_a_slow_agent_is_an_answer() {
    run(async |mut prober| {
        let target = prober.add(&hasty(server(1, ok), Millis(5000)), &[]);
        prober.start(target).unwrap();
        thread::sleep(Duration::from_millis(200)); // the whole agent stands still
        let report = prober.next().await.unwrap();
        assert!(
            matches!(report.outcome, Outcome::Alive { .. }),
            "{report:?}"
        );
        assert!(report.late);
    });
}

#[test]
fn refused_reset_cut_and_wrong_answers_are_told_apart() {
    run(async |mut prober| {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        for kind in [http(port), probe(ProbeKind::Tcp, port)] {
            let target = prober.add(&kind, &[]);
            prober.start(target).unwrap();
            assert_eq!(prober.next().await.unwrap().outcome, Outcome::Refused);
        }
        type Serve = fn(TcpStream);
        let cases: [(Serve, Wrong); 4] = [
            (
                |mut stream| {
                    read_head(&mut stream);
                    let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
                },
                Wrong::Status(503),
            ),
            (
                |mut stream| {
                    read_head(&mut stream);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                },
                Wrong::Truncated,
            ),
            (
                |stream| {
                    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                },
                Wrong::Reset,
            ),
            (
                |mut stream| {
                    let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
                    read_head(&mut stream);
                },
                Wrong::NotHttp,
            ),
        ];
        for (serve, wrong) in cases {
            let target = prober.add(&http(server(1, serve)), &[]);
            prober.start(target).unwrap();
            let report = prober.next().await.unwrap();
            assert_eq!(report.outcome, Outcome::Wrong(wrong));
        }
    });
}

#[test]
fn a_tcp_probe_asks_only_for_a_handshake() {
    run(async |mut prober| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = prober.add(&probe(ProbeKind::Tcp, port), &[]);
        prober.start(target).unwrap();
        let report = prober.next().await.unwrap();
        assert!(
            matches!(report.outcome, Outcome::Alive { .. }),
            "{report:?}"
        );
    });
}

#[test]
fn golden_vectors_take_turns_and_one_that_fails_is_asked_again() {
    run(async |mut prober| {
        let port = server(4, |mut stream| {
            let head = read_head(&mut stream);
            let length = head.split("Content-Length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let inputs = body["inputs"][0].as_array().unwrap();
            let sum: f64 = inputs.iter().map(|x| x.as_f64().unwrap()).sum();
            let answer = format!("{{\"outputs\":[[{sum}]]}}");
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            );
        });
        let golden = |inputs: Vec<f32>, sum| Golden {
            inputs,
            outputs: vec![sum],
            tolerance: 1e-3,
        };
        // A large one, a small one, and one that the service gets wrong.
        let goldens = [
            golden(vec![0.5; 4096], 2048.0),
            golden(vec![1.0, 1.0], 2.0),
            golden(vec![1.0, 2.0], 4.0),
        ];
        let path = "/infer".to_owned();
        let kind = inference(Protocol::Plain { path });
        let target = prober.add(&probe(kind, port), &goldens);
        for turn in 0..4 {
            prober.start(target).unwrap();
            let outcome = prober.next().await.unwrap().outcome;
            match outcome {
                Outcome::Alive { .. } => assert!(turn < 2, "{turn}"),
                Outcome::Wrong(Wrong::Outputs { worst }) => {
                    assert!(turn >= 2, "{turn}");
                    assert!((worst - 1.0).abs() < 1e-3);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

fn inference(protocol: Protocol) -> ProbeKind {
    ProbeKind::Inference {
        protocol,
        goldens: Goldens::Manifest,
        confidence_min: None,
        twin: None,
        disagree_max: Ratio::saturating(0.2),
    }
}

fn v2(version: Option<&str>) -> ProbeKind {
    inference(Protocol::V2 {
        model: "m".to_owned(),
        version: version.map(str::to_owned),
        input: "x".to_owned(),
        output: "y".to_owned(),
    })
}

fn doubled(input: f32) -> Golden {
    Golden {
        inputs: vec![input],
        outputs: vec![2.0 * input],
        tolerance: 1e-3,
    }
}

fn read_body(stream: &mut TcpStream, head: &str) -> String {
    let length = head.split("Content-Length: ").nth(1).unwrap();
    let mut body = vec![0; length.split("\r\n").next().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// A server of the Open Inference Protocol whose model doubles.
fn doubling(mut stream: TcpStream) {
    let head = read_head(&mut stream);
    let answer = if head.starts_with("GET /v2/models/m/ready ") {
        r#"{"name":"m","ready":true}"#.to_owned()
    } else {
        let path = "POST /v2/models/m/versions/0001ab03040506ff/infer HTTP/1.1\r\n";
        assert!(head.starts_with(path), "{head}");
        let body = read_body(&mut stream, &head);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let input = &body["inputs"][0];
        assert_eq!(input["name"], "x");
        assert_eq!(input["shape"], serde_json::json!([1, 1]));
        assert_eq!(input["datatype"], "FP32");
        let data = 2.0 * input["data"][0].as_f64().unwrap();
        format!(
            "{{\"model_name\":\"m\",\"model_version\":\"0001ab03040506ff\",\"outputs\":\
             [{{\"name\":\"y\",\"shape\":[1,1],\"datatype\":\"FP32\",\"data\":[{data}]}}]}}"
        )
    };
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    );
}

#[test]
fn a_v2_probe_asks_for_its_version_and_tells_who_answered() {
    run(async |mut prober| {
        let kind = v2(Some("0001ab03040506ff"));
        let target = prober.add(&probe(kind, server(1, doubling)), &[doubled(0.5)]);
        prober.start(target).unwrap();
        let report = prober.next().await.unwrap();
        assert!(
            matches!(report.outcome, Outcome::Alive { .. }),
            "{report:?}"
        );
        let told = Told::Inference {
            version: "0001ab03040506ff".parse().ok(),
            confidence: Some(1.0),
            choice: match report.told {
                Told::Inference { choice, .. } => choice,
                _ => None,
            },
        };
        assert_eq!(report.told, told);
    });
}

#[test]
fn a_v2_probe_without_vectors_asks_whether_the_model_is_ready() {
    run(async |mut prober| {
        let target = prober.add(&probe(v2(None), server(1, doubling)), &[]);
        prober.start(target).unwrap();
        let report = prober.next().await.unwrap();
        assert!(
            matches!(report.outcome, Outcome::Alive { .. }),
            "{report:?}"
        );
        assert_eq!(report.told, Told::Nothing);
    });
}

#[test]
fn new_golden_vectors_count_from_the_next_probe_and_spare_the_one_under_way() {
    run(async |mut prober| {
        let kind = || v2(Some("0001ab03040506ff"));
        let target = prober.add(&probe(kind(), server(3, doubling)), &[doubled(0.5)]);
        let halved = Golden {
            inputs: vec![1.0],
            outputs: vec![0.5],
            tolerance: 1e-3,
        };
        // Under way with the old question: alive, whatever it answers.
        prober.start(target).unwrap();
        assert!(prober.set_goldens(target, std::slice::from_ref(&halved)));
        let report = prober.next().await.unwrap();
        assert!(
            matches!(report.outcome, Outcome::Alive { .. }),
            "{report:?}"
        );
        assert_eq!(report.told, Told::Nothing);
        prober.start(target).unwrap();
        let report = prober.next().await.unwrap();
        assert_eq!(
            report.outcome,
            Outcome::Wrong(Wrong::Outputs { worst: 1.5 })
        );
        assert!(matches!(
            report.told,
            Told::Inference {
                version: Some(_),
                ..
            }
        ));
        assert!(prober.set_goldens(target, &[doubled(3.0)]));
        prober.start(target).unwrap();
        let report = prober.next().await.unwrap();
        assert!(
            matches!(report.outcome, Outcome::Alive { .. }),
            "{report:?}"
        );
        let tcp = prober.add(&probe(ProbeKind::Tcp, 1), &[]);
        assert!(!prober.set_goldens(tcp, &[halved]));
    });
}

#[test]
fn a_metrics_probe_tells_the_watched_gauges_and_whether_anything_changed() {
    run(async |mut prober| {
        let requests = std::sync::atomic::AtomicU64::new(0);
        let port = server(3, move |mut stream| {
            let head = read_head(&mut stream);
            assert!(head.starts_with("GET /metrics HTTP/1.0\r\n"), "{head}");
            let counted = requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / 2;
            // Longer than any other answer, and ended by closing.
            let _ = write!(
                stream,
                "HTTP/1.0 200 OK\r\n\r\n# {}\nrequests_total {counted}\nqueue_depth 900\n",
                "x".repeat(40_000),
            );
        });
        let gauges = vec![Gauge {
            name: "queue_depth".to_owned(),
            max: 64.0,
            hold: Millis(1000),
        }];
        let kind = ProbeKind::Metrics {
            path: "/metrics".to_owned(),
            gauges,
            frozen: 3,
            serving: None,
        };
        let target = prober.add(&probe(kind, port), &[]);
        let mut hashes = Vec::new();
        for _ in 0..3 {
            prober.start(target).unwrap();
            let report = prober.next().await.unwrap();
            let Told::Metrics(metrics) = &report.told else {
                panic!("{report:?}");
            };
            assert_eq!(metrics.gauges[0], Some(900.0));
            hashes.push(metrics.hash);
        }
        assert_eq!(hashes[0], hashes[1]);
        assert_ne!(hashes[1], hashes[2]);
        assert!(prober.slots[0].answer.capacity() <= HEAD_MAX + BODY_MAX);
    });
}
