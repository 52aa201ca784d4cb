//! What the tests of the whole program share: the program as a process, and a
//! node that speaks MQTT like a real one.

// Each test file uses its part; the helpers are tests in all but their attribute.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod fleet;
pub mod spread;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::hlc::Hlc;
use homeostat_common::ids::{
    BootId, IncidentId, Instance, NodeId, PlanId, ServiceId, SiteId, StreamId,
};
use homeostat_common::outcome::Outcome;
use homeostat_common::saga::{Answer, SagaId, Stand, StepState};
use homeostat_common::units::Millis;
use homeostat_common::wire::body::{
    Alarm, Boot, ClockQuality, Considered, Decided, IncidentClosed, IncidentOpened, Note, Phase,
    Refusal, ServiceChange, ServiceState, Severity, Source, Step,
};
use homeostat_common::wire::projection::Status;
use homeostat_common::wire::topic::{COORDINATOR, NodeTopics};
use homeostat_common::wire::{Body, Down, Envelope};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A `homeostat` process; killed when dropped.
pub struct Program {
    child: Child,
    pub mqtt: Option<u16>,
    pub http: Option<u16>,
}

impl Program {
    /// Starts it and reads the lines that say where it listens.
    pub fn start(args: &[&str], lines: usize) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_homeostat"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("SHOW_LOG").is_some() {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self {
            child,
            mqtt: None,
            http: None,
        };
        for _ in 0..lines {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            let port = line.trim().rsplit(':').next().and_then(|p| p.parse().ok());
            if line.starts_with("listening mqtt://127.0.0.1:") {
                program.mqtt = port;
            } else if line.starts_with("listening http://127.0.0.1:") {
                program.http = port;
            } else {
                panic!("{args:?} said {line:?}");
            }
        }
        program
    }

    pub fn broker() -> Self {
        Self::start(&["broker", "--listen", "127.0.0.1:0"], 1)
    }

    pub fn serve(broker: u16, data: &Path) -> Self {
        Self::serve_with(broker, data, &[])
    }

    pub fn serve_with(broker: u16, data: &Path, more: &[&str]) -> Self {
        let broker = format!("mqtt://127.0.0.1:{broker}");
        let data = data.to_str().unwrap();
        let args = [
            "serve",
            "--broker",
            &broker,
            "--http",
            "127.0.0.1:0",
            "--data",
            data,
        ];
        Self::start(&[&args, more].concat(), 1)
    }

    pub fn both(data: &Path) -> Self {
        let data = data.to_str().unwrap();
        let args = [
            "serve",
            "--embedded-broker",
            "--broker",
            "mqtt://127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--data",
            data,
        ];
        Self::start(&args, 2)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit status.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// GET; status, content type and body.
    pub fn get(&self, path: &str) -> (u16, String, String) {
        let port = self.http.unwrap();
        let head = format!("GET {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\n\r\n");
        self.exchange(&head)
    }

    pub fn exchange(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http.unwrap())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    pub fn json(&self, path: &str) -> serde_json::Value {
        let (status, _, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until `/healthz` is fine.
    pub fn healthy(&self) {
        until("healthy", || (self.get("/healthz").0 == 200).then_some(()));
    }
}

/// A mosquitto, as real fleets use; `None` where it is not installed. Its queue
/// for a client that is away holds 1000 messages unless told otherwise; real
/// nodes send again what it dropped, the one here does not.
pub fn mosquitto(folder: &Path) -> Option<(Guard, u16)> {
    let found = ["mosquitto", "/usr/sbin/mosquitto"]
        .into_iter()
        .find(|program| {
            let mut probe = Command::new(program);
            probe.arg("-h").stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok()
        })?;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = folder.join("mosquitto.conf");
    std::fs::write(
        &config,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"),
    )
    .unwrap();
    let child = Command::new(found)
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let guard = Guard(child);
    until("listening", || TcpStream::connect(("127.0.0.1", port)).ok());
    Some((guard, port))
}

/// A process that is killed when dropped.
pub struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not {what} in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A node on the broker. A thread drives its connection.
pub struct Node {
    pub client: Client,
    pub topics: NodeTopics,
    pub name: NodeId,
    pub stream: StreamId,
    /// How far its clock is ahead, in milliseconds.
    pub ahead: i64,
    acks: std::sync::mpsc::Receiver<u64>,
}

fn drive(mut connection: Connection, acks: &std::sync::mpsc::Sender<u64>) {
    for event in connection.iter() {
        match event {
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if let Ok(Down::Ack { through }) = Down::decode(&publish.payload)
                    && acks.send(through).is_err()
                {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

impl Node {
    pub fn connect(broker: u16, name: &str) -> Self {
        let node = NodeId::new(name).unwrap();
        let topics = NodeTopics::new(&SiteId::new("plant-7").unwrap(), &node);
        let mut stream = [0xa0; 16];
        stream[..name.len()].copy_from_slice(name.as_bytes());
        let stream = StreamId(stream);
        let mut options = MqttOptions::new(name, "127.0.0.1", broker);
        options.set_outgoing_inflight_upper_limit(64);
        let mut properties = ConnectProperties::new();
        properties.max_packet_size = Some(1 << 20);
        options.set_connect_properties(properties);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, connection) = Client::new(options, 64);
        let (sender, acks) = std::sync::mpsc::channel();
        std::thread::spawn(move || drive(connection, &sender));
        client
            .subscribe(topics.down(stream), QoS::AtLeastOnce)
            .unwrap();
        Self {
            client,
            topics,
            name: node,
            stream,
            ahead: 0,
            acks,
        }
    }

    pub fn envelope(&self, seq: u64, body: Body) -> Envelope {
        Envelope {
            site: SiteId::new("plant-7").unwrap(),
            node: self.name.clone(),
            stream: self.stream,
            seq,
            boot: BootId([1; 16]),
            hlc: Hlc::new(now_ms().saturating_add_signed(self.ahead), 0),
            causes: Vec::new(),
            body,
        }
    }

    pub fn note(&self, seq: u64) -> Envelope {
        let text = format!("event {seq}");
        self.envelope(
            seq,
            Body::Note(Note {
                service: None,
                text,
            }),
        )
    }

    pub fn send(&self, envelope: &Envelope) {
        self.send_raw(&self.topics.up(self.stream), envelope.encode().unwrap());
    }

    pub fn send_raw(&self, topic: &str, payload: Vec<u8>) {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .unwrap();
    }

    pub fn status(&self, online: bool) {
        self.status_acked(online, 0);
    }

    /// Says that everything up to `acked` was acknowledged and is gone.
    pub fn status_acked(&self, online: bool, acked: u64) {
        let status = Status {
            online,
            node: self.name.clone(),
            boot: BootId([1; 16]),
            stream: self.stream,
            birth: 1,
            version: "0.1.0".into(),
            clock: ClockQuality::Plausible,
            acked,
        };
        self.client
            .publish(
                self.topics.status(),
                QoS::AtLeastOnce,
                true,
                serde_json::to_vec(&status).unwrap(),
            )
            .unwrap();
    }

    /// Acknowledgements so far; the largest.
    pub fn acknowledged(&self) -> Option<u64> {
        self.acks.try_iter().max()
    }

    /// Waits until everything up to `seq` is acknowledged.
    pub fn wait_for(&self, seq: u64) {
        until("acknowledged", || {
            self.acknowledged().filter(|through| *through >= seq)
        });
    }
}

/// Has a plan run on a node that takes its part on and then knows nothing of it any more,
/// so that nobody knows how it ended; its number.
pub fn stuck_plan(serve: &Program, node: &Node, data: &Path) -> u64 {
    let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
    let body = format!("{{\"plan\":\"{}: wait(1s)\"}}", node.name);
    let request = format!(
        "POST /api/v1/plans HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    let number = until("begun", || {
        // Not before its status has come.
        let (status, _, answer) = serve.exchange(&request);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        (status == 202).then(|| answer["id"].as_u64().unwrap())
    });
    let by = NodeId::new(COORDINATOR).unwrap();
    let open = Stand::Open {
        steps: vec![(0, StepState::Waiting)],
        voted: false,
        undoing: false,
        why: None,
    };
    for stand in [open, Stand::Unknown] {
        let saga = SagaId {
            by: by.clone(),
            number,
        };
        let answer = Answer { saga, stand }.encode().unwrap();
        node.send_raw(&node.topics.answers(&by), answer);
    }
    until("stuck", || {
        let plan = serve.json(&format!("/api/v1/plans/{number}"));
        (plan["phase"] == "stuck" && !plan["ended_ms"].is_null()).then_some(())
    });
    number
}

pub fn now_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// How an incident went, for [`incident`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Open,
    Healed,
    Refused,
}

/// The records of one incident, from `seq` on. `text` stands wherever a node may
/// choose the words.
pub fn incident(
    node: &Node,
    seq: u64,
    service: &str,
    fault: Fault,
    end: End,
    text: &str,
) -> Vec<Envelope> {
    let service = ServiceId::new(service).unwrap();
    let number = IncidentId(seq + 1);
    let plan = PlanId(number.0);
    let change = |state, instance| {
        Body::ServiceChange(ServiceChange {
            service: service.clone(),
            state,
            instance: Some(Instance(instance)),
            exit: None,
        })
    };
    let restart = format!("restart({service}, grace=0ms)");
    let refusal = |rule: &str, reason: &str| Refusal {
        rule: rule.into(),
        reason: reason.into(),
    };
    let mut considered = vec![Considered {
        plan: format!("rollback_model({service}) then probe({service}, within=1s)"),
        source: Source::Playbook,
        refusal: Some(refusal(
            "similarity",
            "nearest case is 0.41 alike, below 0.80",
        )),
    }];
    considered.push(Considered {
        plan: restart.clone(),
        source: Source::Reflex,
        refusal: (end == End::Refused)
            .then(|| refusal("anti-flapping", "3 equal healings within 30m; held for 5m")),
    });
    let step = |phase| {
        Body::Step(Step {
            incident: number,
            plan,
            step: 0,
            primitive: restart.clone(),
            phase,
            predicted: 1.0,
            health: 0.75,
        })
    };
    let mut bodies = vec![
        change(ServiceState::Down, 1),
        Body::IncidentOpened(IncidentOpened {
            incident: number,
            service: service.clone(),
            symptom: if fault == Fault::Hang {
                Symptom::Hung
            } else {
                Symptom::Dead
            },
            fault,
            confidence: 0.97,
            detected_after: Millis(if fault == Fault::Hang { 212 } else { 1 }),
            evidence: vec![
                format!("process ended by signal 9{text}"),
                "pid 4711 is gone; exit seen through its pidfd".into(),
            ],
            connected: end != End::Healed,
        }),
        Body::Decided(Decided {
            incident: number,
            plan: (end != End::Refused).then_some(plan),
            considered,
            cost: 0.5,
            balance: 89.5,
            health: 0.75,
            predicted: 1.0,
        }),
    ];
    if end == End::Refused {
        bodies.push(Body::Alarm(Alarm {
            alarm: format!("{service}-quarantine"),
            service: Some(service.clone()),
            severity: Severity::Critical,
            raised: true,
            text: format!("healed 3 times within 30m; look at it{text}"),
        }));
    } else {
        bodies.push(step(Phase::Started));
    }
    if end == End::Healed {
        bodies.extend([
            step(Phase::Done),
            change(ServiceState::Healthy, 2),
            Body::IncidentClosed(IncidentClosed {
                incident: number,
                outcome: Outcome::Healed,
                lasted: Millis(if fault == Fault::Hang { 240 } else { 4 }),
                cost: 0.01,
                summary: format!("{service} answers again{text}"),
            }),
        ]);
    }
    let mut records: Vec<Envelope> = (seq..)
        .zip(bodies)
        .map(|(seq, body)| node.envelope(seq, body))
        .collect();
    for index in 1..records.len() {
        let cause = records[index - 1].reference();
        records[index].causes.push(cause);
        records[index].hlc = Hlc::new(records[0].hlc.unix_ms() + index as u64, 0);
    }
    records
}

/// The record of an agent's start.
pub fn boot(node: &Node, seq: u64) -> Envelope {
    node.envelope(
        seq,
        Body::Boot(Boot {
            version: "0.1.0".into(),
            kernel: BootId([1; 16]),
            clock: ClockQuality::Plausible,
            adopted: 0,
            findings: Vec::new(),
        }),
    )
}

/// A service that came up.
pub fn healthy(node: &Node, seq: u64, service: &str) -> Envelope {
    node.envelope(
        seq,
        Body::ServiceChange(ServiceChange {
            service: ServiceId::new(service).unwrap(),
            state: ServiceState::Healthy,
            instance: Some(Instance(1)),
            exit: None,
        }),
    )
}
