//! The whole chain as real processes: what an answer says, which losses it survives, what it
//! costs, and what the load client sees of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{PROGRAM, Running, get, page, post, until};
use homeostat_models::vibration::{self, Built};
use homeostat_testbed::load::Cause;
use homeostat_testbed::{Answers, EXIT_CONFIG, Kind, Load, LoadSpec, Moment, inject, ports};
use serde_json::{Value, json};

const QUOTA: u64 = 1 << 20;

struct Chain {
    gateway: Running,
    preprocess: Running,
    cache: Running,
    infer: Running,
    postprocess: Running,
    publisher: Running,
    store: Running,
    dir: tempfile::TempDir,
    model: Built,
    version: String,
}

impl Chain {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let model = vibration::variant("1.1.0", 1, 0);
        let (_, version) = inject::install_model(&path("slot"), &model).unwrap();
        fs::write(path("config.toml"), "scale = 1.0\noffset = 0.0\n").unwrap();
        let at = |running: &Running| SocketAddr::from(running.address());
        let infer = Running::start(Kind::InferSlot { slot: path("slot") });
        let store = Running::start(Kind::Store {
            dir: path("data"),
            quota: QUOTA,
        });
        // Nobody listens there.
        let broker = ports(1).unwrap().remove(0).address().into();
        let publisher = Running::start(Kind::Publisher { broker });
        let postprocess = Running::start(Kind::Postprocess {
            store: at(&store),
            publisher: Some(at(&publisher)),
        });
        let cache = Running::start(Kind::Cache);
        let preprocess = Running::start(Kind::Preprocess {
            config: path("config.toml"),
            cache: Some(at(&cache)),
        });
        let gateway = Running::start(Kind::Gateway {
            preprocess: at(&preprocess),
            infer: at(&infer),
            postprocess: at(&postprocess),
        });
        Self {
            gateway,
            preprocess,
            cache,
            infer,
            postprocess,
            publisher,
            store,
            dir,
            model,
            version,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ask(&self, id: &str) -> (u16, Value) {
        let row = &self.model.manifest.golden.vectors[0].input;
        post(&self.gateway, "/", &json!({ "id": id, "inputs": row })).unwrap()
    }

    fn load(&self, rate: f64) -> Load {
        let golden = &self.model.manifest.golden;
        let answers = Answers::default();
        answers.insert(&self.version, golden.clone());
        let spec = LoadSpec {
            target: self.gateway.address().into(),
            rate,
            seed: 11,
            // Generous: the machine may be busy.
            late: Duration::from_millis(1500),
            deadline: Duration::from_secs(3),
            rows: golden.vectors.iter().map(|it| it.input.clone()).collect(),
        };
        Load::start(spec, answers).unwrap()
    }

    fn all(&self) -> [&Running; 7] {
        [
            &self.gateway,
            &self.preprocess,
            &self.cache,
            &self.infer,
            &self.postprocess,
            &self.publisher,
            &self.store,
        ]
    }
}

#[test]
fn an_answer_names_its_model_and_the_instances_that_made_it() {
    let chain = Chain::start();
    let (code, answer) = chain.ask("first");
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["id"], "first");
    assert_eq!(answer["model_version"], chain.version.as_str());
    let via = |answer: &Value| -> Vec<String> {
        let via = answer["via"].as_array().unwrap();
        let name = |it: &Value| it.as_str().unwrap().split(':').next().unwrap().to_owned();
        via.iter().map(name).collect()
    };
    let chained = [
        "gateway",
        "preprocess",
        "infer",
        "postprocess",
        "store",
        "publisher",
    ];
    assert_eq!(via(&answer), chained);
    // The second time the row comes from the cache.
    let (_, answer) = chain.ask("second");
    assert_eq!(via(&answer)[2], "cache");
    let log = fs::read_to_string(chain.path("data/answers.log")).unwrap();
    let ids: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["first", "second"]);
    let (_, health) = get(&chain.publisher, "/healthz").unwrap();
    assert_eq!(health["detail"]["queued"], 2);

    let (code, _) = post(&chain.gateway, "/", &json!({ "inputs": [1] })).unwrap();
    assert_eq!(code, 400);
    let narrow = json!({ "id": "3", "inputs": [1, 2, 3] });
    assert_eq!(post(&chain.gateway, "/", &narrow).unwrap().0, 400);

    for service in chain.all() {
        let text = page(service, "/metrics").unwrap();
        assert!(text.contains("requests_total{service="), "{text}");
        let kib = |key| status_kib(service.pid(), key);
        println!(
            "{}: {} KiB, of them {} its own",
            service.pid(),
            kib("VmRSS:"),
            kib("RssAnon:")
        );
        // Pages of an unoptimised program are most of it.
        assert!(kib("RssAnon:") < 10_000);
    }
}

#[test]
fn what_is_optional_may_be_missing_and_the_rest_is_named() {
    let mut chain = Chain::start();
    chain.cache.end();
    chain.publisher.end();
    assert_eq!(chain.ask("1").0, 200);
    chain.store.end();
    let (code, answer) = chain.ask("2");
    assert_eq!(
        (code, &answer["error"]),
        (502, &json!("postprocess: status 502"))
    );
    chain.store.restart();
    assert_eq!(chain.ask("3").0, 200);
    inject::slow(&chain.infer.control(), Duration::from_millis(700)).unwrap();
    let (code, answer) = chain.ask("4");
    assert_eq!(
        (code, &answer["error"]),
        (504, &json!("infer: no answer in time"))
    );
    inject::slow(&chain.infer.control(), Duration::ZERO).unwrap();
    assert_eq!(chain.ask("5").0, 200);
    chain.preprocess.end();
    assert_eq!(chain.ask("6").0, 502);
}

#[test]
fn answers_wait_for_a_broker_that_is_away_up_to_a_bound() {
    let broker = ports(1).unwrap().remove(0);
    let publisher = Running::start(Kind::Publisher {
        broker: broker.address().into(),
    });
    let detail = |key: &str| {
        let (code, health) = get(&publisher, "/healthz").unwrap();
        assert_eq!(code, 200);
        health["detail"][key].as_u64().unwrap()
    };
    let accepted = (0..300)
        .filter(|n| post(&publisher, "/", &json!({ "id": n })).unwrap().0 == 200)
        .count();
    // The queue of 256, and what the connection took from it before it was lost.
    assert!((256..300).contains(&accepted), "{accepted}");
    assert_eq!(detail("queued"), accepted as u64);
    assert_eq!(detail("dropped"), 300 - accepted as u64);

    let port = broker.number().to_string();
    let mosquitto = Command::new("mosquitto")
        .args(["-p", &port])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut mosquitto) = mosquitto else {
        println!("skip: no mosquitto to deliver to");
        return;
    };
    let begun = Instant::now();
    while detail("queued") > 0 && begun.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(5));
    }
    mosquitto.kill().unwrap();
    mosquitto.wait().unwrap();
    assert_eq!(detail("queued"), 0);
}

#[test]
fn a_full_store_refuses_and_takes_again_when_the_junk_is_gone() {
    let chain = Chain::start();
    assert_eq!(chain.ask("1").0, 200);
    inject::fill_quota(&chain.store.control()).unwrap();
    assert_eq!(get(&chain.store, "/healthz").unwrap().0, 503);
    let line = json!({ "id": "x" });
    assert_eq!(post(&chain.store, "/", &line).unwrap().0, 507);
    assert_eq!(chain.ask("2").0, 502);
    for entry in fs::read_dir(chain.path("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "old") {
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(chain.ask("3").0, 200);
    assert!(matches!(
        inject::fill_quota(&chain.cache.control()),
        Err(inject::InjectError::Refused { .. })
    ));
}

#[test]
fn a_bad_configuration_is_refused_at_start_with_its_own_code() {
    let mut chain = Chain::start();
    let file = chain.path("config.toml");
    let check = || {
        let mut command = Command::new(PROGRAM);
        command
            .args(["__service", "preprocess", "--check"])
            .arg(&file);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(check(), (Some(0), String::new()));
    inject::bad_config(&file, chain.preprocess.pid()).unwrap();
    assert_eq!(chain.preprocess.exit_code(), None, "killed");
    let (code, reason) = check();
    assert_eq!(code, Some(i32::from(EXIT_CONFIG)));
    assert!(
        reason.contains("config.toml") && reason.contains("scale"),
        "{reason}"
    );
    chain.preprocess.respawn();
    assert_eq!(chain.preprocess.exit_code(), Some(i32::from(EXIT_CONFIG)));
    fs::write(&file, "scale = 1.0\noffset = 0.0\n").unwrap();
    chain.preprocess.restart();
    assert_eq!(chain.ask("1").0, 200);
}

#[test]
fn frozen_metrics_stand_still_while_answers_stay_right() {
    let chain = Chain::start();
    let metrics = || page(&chain.infer, "/metrics").unwrap();
    assert_ne!(metrics(), metrics());
    inject::freeze_metrics(&chain.infer.control()).unwrap();
    let frozen = metrics();
    assert!(
        frozen.contains("queue_depth{service=\"infer\"} 900\n"),
        "{frozen}"
    );
    assert_eq!(chain.ask("1").0, 200);
    assert_eq!(metrics(), frozen);
    inject::unfreeze_metrics(&chain.infer.control()).unwrap();
    assert_ne!(metrics(), frozen);
    assert!(!metrics().contains("} 900\n"));
}

#[test]
fn hogs_burn_cores_inside_of_a_service_and_outside_of_any() {
    let chain = Chain::start();
    let before = cpu_ticks(chain.cache.pid());
    inject::hog(&chain.cache.control(), 2).unwrap();
    until("the service to burn", || {
        cpu_ticks(chain.cache.pid()) > before + 5
    });
    inject::unspin(&chain.cache.control()).unwrap();
    let hog = inject::Hog::start(1).unwrap();
    let pid = hog.pids()[0];
    until("the stranger to burn", || cpu_ticks(pid) > 5);
    drop(hog);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}

#[test]
fn the_load_client_loses_nothing_while_all_is_well_and_counts_each_loss_when_it_is_not() {
    let mut chain = Chain::start();
    let load = chain.load(50.0);
    let before = own_ticks();
    thread::sleep(Duration::from_secs(2));
    let ticks = own_ticks() - before;
    let well = load.so_far();
    println!("{well}; {ticks} ticks of CPU in 2 s for 50 requests a second");
    assert_eq!(well.lost(), 0, "{well}");
    // 100 are expected; Poisson, so within five standard deviations.
    assert!((50..150).contains(&well.ok), "{well}");
    assert_eq!(well.versions.len(), 1);

    let down = Moment::now();
    chain.infer.end();
    until("some losses", || load.so_far().lost() >= 5);
    chain.infer.restart();
    let up = Moment::now();
    let lost = load.so_far().lost();
    until("more answers", || load.so_far().ok > well.ok + 10);
    let all = load.stop();
    println!("{all}");
    assert!(all.lost() >= lost);
    assert!(all.failed[&Cause::Status(502)] >= 5, "{all}");
    assert_eq!(all.lost_within(well.begun, down), 0);
    assert!(all.lost_within(down, up) >= 5);
    let sum = |pick: fn(&homeostat_testbed::load::Second) -> u32| -> u64 {
        all.seconds
            .iter()
            .map(|second| u64::from(pick(second)))
            .sum()
    };
    assert_eq!(sum(|second| second.ok), all.ok);
    assert_eq!(
        sum(|second| second.failed),
        all.failed.values().sum::<u64>()
    );
}

#[test]
fn a_model_that_nobody_vouched_for_is_a_loss_and_so_is_a_damaged_one() {
    let chain = Chain::start();
    let load = chain.load(100.0);
    until("right answers", || load.so_far().ok > 5);
    let (_, bad) = inject::bad_model(&chain.path("slot"), 3).unwrap();
    until("the bad model", || {
        load.so_far().failed.contains_key(&Cause::UnknownVersion)
    });
    let report = load.stop();
    assert!(!report.versions.contains_key(&bad));
    // Vouched for by the golden vectors of the good one.
    let answers = Answers::default();
    answers.insert(&bad, chain.model.manifest.golden.clone());
    let golden = &chain.model.manifest.golden;
    let spec = LoadSpec {
        target: chain.gateway.address().into(),
        rate: 100.0,
        seed: 12,
        late: Duration::from_secs(2),
        deadline: Duration::from_secs(3),
        rows: golden.vectors.iter().map(|it| it.input.clone()).collect(),
    };
    let load = Load::start(spec, answers).unwrap();
    until("wrong outputs", || {
        load.so_far().failed.contains_key(&Cause::WrongOutputs)
    });
}

#[test]
fn a_service_that_hangs_is_charged_for_every_request_that_was_planned() {
    let chain = Chain::start();
    let golden = &chain.model.manifest.golden;
    let answers = Answers::default();
    answers.insert(&chain.version, golden.clone());
    let spec = LoadSpec {
        target: chain.gateway.address().into(),
        rate: 100.0,
        seed: 13,
        late: Duration::from_millis(100),
        deadline: Duration::from_millis(200),
        rows: vec![golden.vectors[0].input.clone()],
    };
    let load = Load::start(spec, answers).unwrap();
    inject::stop(chain.gateway.pid()).unwrap();
    let stopped = Moment::now();
    thread::sleep(Duration::from_millis(600));
    inject::resume(chain.gateway.pid()).unwrap();
    let report = load.stop();
    let lost = report.lost_within(stopped, stopped + Duration::from_millis(350));
    println!("{report}; {lost} lost in 350 ms of standstill at 100 a second");
    assert!(lost >= 15, "{report}");
    assert!(report.failed.contains_key(&Cause::Timeout), "{report}");
    assert!(!report.failed.contains_key(&Cause::Overload), "{report}");
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu_ticks(pid: u32) -> u64 {
    ticks(&format!("/proc/{pid}/stat"))
}

fn own_ticks() -> u64 {
    ticks("/proc/self/stat")
}

fn ticks(stat: &str) -> u64 {
    let stat = fs::read_to_string(stat).unwrap();
    // After the command in parentheses, user and system time are the 12th and 13th fields.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let times = fields.skip(11).take(2);
    times.map(|field| field.parse::<u64>().unwrap()).sum()
}
