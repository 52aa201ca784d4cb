//! Model switches under load: no request fails, no answer is a mixture, and no bad candidate
//! is ever served.
//!
//! The real inference service reads `SLOT/current/model.onnx` and notices a switch by itself.
//! Clients post the same batches all the time; what each version answers to them was recorded
//! while only that version was in place, so each answer can be told to the last digit. The
//! slot is switched as the agent does it, by the same code, without its loop.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use homeostat_agent::config::Config;
use homeostat_agent::io::slots::{Candidate, Name, Slot, Version};
use homeostat_models::{Manifest, sha256_hex, vibration};
use homeostat_testbed::inject::{self, Corruption};
use homeostat_testbed::{Kind, ServiceSpec, ports};
use serde_json::Value;

use super::{ms, progress};
use crate::result::{Report, Row};
use crate::stage::role::{Role, program};
use crate::stage::{Process, interrupt};
use crate::stats::Estimate;

/// Clients that ask at the same time, each with a batch of its own.
const CLIENTS: u64 = 2;
/// Rows of a batch: a mixture of two versions would show within one answer.
const ROWS: usize = 8;
/// Measured without switches first, for comparison.
const QUIET: Duration = Duration::from_secs(3);
/// Longest wait for the service to come up, or to answer with another version.
const SERVED_MAX: Duration = Duration::from_secs(10);
/// A request that takes longer has failed.
const REQUEST_MAX: Duration = Duration::from_secs(2);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How often the model is switched.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub n: u32,
    /// How many bad candidates are offered meanwhile.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub bad: u32,
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let text = format!("{args:?}, {CLIENTS} clients, {ROWS} rows");
    let mut report = Report::new("switch", &text);
    let dir = tempfile::Builder::new().prefix("hs-switch").tempdir()?;
    let rig = Rig::start(dir.path())?;
    let batches: Vec<String> = (0..CLIENTS).map(|client| batch(seed + client)).collect();
    let mut known = vec![Answers::new(); batches.len()];
    for version in [rig.b, rig.a] {
        rig.slot.switch(version)?;
        rig.wait_served(&batches, version)?;
        for (known, batch) in known.iter_mut().zip(&batches) {
            let (_, outputs) = ask(rig.address, batch)?;
            known.insert(version.to_string(), outputs);
        }
        rig.slot.keep(None)?;
        rig.slot.settle()?;
    }
    ensure!(
        known.iter().all(|each| each
            .values()
            .collect::<Vec<_>>()
            .windows(2)
            .all(|two| two[0] != two[1])),
        "both versions answer alike"
    );
    let alone = load(&rig, &batches, &known, |_| Ok(interrupt::pause(QUIET)?))?.1;
    let (measured, tally) = load(&rig, &batches, &known, |tally| {
        switches(&rig, args, seed, tally)
    })?;
    drop(rig);

    let count = |id: &str, what: &str, value: usize, of: usize| {
        Row::new(id, what, "", Estimate::exact(value as f64, of))
    };
    let requests = tally.latency.len();
    let all = requests + tally.failed;
    report.rows = vec![
        count(
            "switch.requests",
            "answers during the switches",
            requests,
            all,
        )
        .higher(),
        count(
            "switch.failed",
            "requests without an answer",
            tally.failed,
            all,
        )
        .goal(0.0),
        count(
            "switch.mixed",
            "answers that no single version gives",
            tally.mixed,
            all,
        )
        .goal(0.0),
        count(
            "switch.misnamed",
            "answers of another version than they name",
            tally.misnamed,
            all,
        )
        .goal(0.0),
    ];
    if args.bad > 0 {
        let bad = args.bad as usize;
        report.rows.push(
            count(
                "switch.bad.refused",
                "bad candidates refused",
                measured.refused,
                bad,
            )
            .higher()
            .goal(f64::from(args.bad)),
        );
        // An answer of neither version, or a folder among the versions, would be one.
        let served = tally.strange + measured.left;
        report.rows.push(
            count(
                "switch.bad.served",
                "bad candidates served or kept",
                served,
                bad,
            )
            .goal(0.0),
        );
    }
    let quantiles = [
        (
            "switch.call.p50_ms",
            "a switch, median",
            &measured.call,
            0.5,
            None,
        ),
        (
            "switch.call.p95_ms",
            "a switch, 95 %",
            &measured.call,
            0.95,
            None,
        ),
        (
            "switch.served.p50_ms",
            "until the new version answers, median",
            &measured.served,
            0.5,
            None,
        ),
        (
            "switch.served.p95_ms",
            "until the new version answers, 95 %",
            &measured.served,
            0.95,
            None,
        ),
        (
            "switch.request.p50_ms",
            "a request during the switches, median",
            &tally.latency,
            0.5,
            Some(&alone.latency),
        ),
        (
            "switch.request.p99_ms",
            "a request during the switches, 99 %",
            &tally.latency,
            0.99,
            Some(&alone.latency),
        ),
    ];
    for (id, what, samples, q, reference) in quantiles {
        let value = Estimate::quantile(samples, q, seed).context("nothing was measured")?;
        let mut row = Row::new(id, what, "ms", value);
        if let Some(reference) = reference {
            let reference = Estimate::quantile(reference, q, seed).map(|estimate| estimate.value);
            row = row.against(reference, "without switches");
        }
        report.rows.push(row);
    }
    report.finish(begun.elapsed());
    Ok(report)
}

/// What each version answers to one batch.
type Answers = BTreeMap<String, Vec<Vec<f64>>>;

struct Rig {
    dir: PathBuf,
    slot: Slot,
    address: SocketAddrV4,
    a: Version,
    b: Version,
    _service: Process,
}

impl Rig {
    fn start(dir: &Path) -> Result<Self> {
        let port = ports(1)?.pop().context("no port")?;
        let config = format!(
            "[node]\nid = \"n\"\ndata_dir = {:?}\n[[service]]\nid = \"infer\"\n\
             command = [\"/bin/true\"]\n[service.model]\nslot = \"slot\"\nreload = \"watch\"\n",
            dir.join("data")
        );
        let config = Config::parse(&config, &dir.join("agent.toml"))?;
        let service = config.services.first().context("no service")?;
        let slot = Slot::of(service, Name::Model, &config.node.data_dir).context("no slot")?;
        // Version B is the same net with other weights.
        let other = dir.join("b");
        fs::create_dir_all(&other)?;
        for name in ["model.onnx", "manifest.toml"] {
            fs::write(other.join(name), shipped_file(name))?;
        }
        inject::corrupt_model(&other.join("model.onnx"), Corruption::Weights)?;
        let manifest = parsed(&other)?;
        let sha256 = sha256_hex(&fs::read(other.join("model.onnx"))?);
        fs::write(
            other.join("manifest.toml"),
            Manifest { sha256, ..manifest }.to_toml()?,
        )?;
        let first = dir.join("a");
        fs::create_dir_all(&first)?;
        for name in ["model.onnx", "manifest.toml"] {
            fs::write(first.join(name), shipped_file(name))?;
        }
        let a = slot.install(&candidate(&first))?;
        slot.keep(None)?;
        let b = slot.stage(&candidate(&other))?;
        let spec = ServiceSpec {
            kind: Kind::Infer {
                model: slot.path().join("current/model.onnx"),
            },
            port: port.number(),
            control: None,
            die_with_parent: true,
        };
        let mut args = vec![program()?.into_os_string()];
        args.extend(spec.args());
        let address = port.address();
        let service = Process::start(Role::Other, "infer", &args, dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            slot,
            address,
            a,
            b,
            _service: service,
        })
    }

    fn wait_served(&self, batches: &[String], version: Version) -> Result<()> {
        let batch = batches.first().context("no batch")?;
        let named = version.to_string();
        interrupt::until("the new version", SERVED_MAX, || {
            let (found, _) = ask(self.address, batch).ok()?;
            (found == named).then_some(())
        })
    }
}

fn shipped_file(name: &str) -> &'static [u8] {
    match name {
        "model.onnx" => include_bytes!("../../../../models/vibration/model.onnx"),
        _ => include_bytes!("../../../../models/vibration/manifest.toml"),
    }
}

fn candidate(folder: &Path) -> Candidate {
    Candidate {
        file: folder.join("model.onnx"),
        manifest: None,
    }
}

fn parsed(folder: &Path) -> Result<Manifest> {
    let path = folder.join("manifest.toml");
    Ok(Manifest::parse(&fs::read_to_string(&path)?, &path)?)
}

/// What was seen of the requests.
#[derive(Debug, Default)]
struct Tally {
    latency: Vec<f64>,
    failed: usize,
    mixed: usize,
    misnamed: usize,
    /// Named a version that is neither.
    strange: usize,
    /// The version that answered last.
    last: String,
}

/// Runs `work` while the clients ask.
fn load<T>(
    rig: &Rig,
    batches: &[String],
    known: &[Answers],
    work: impl FnOnce(&Mutex<Tally>) -> Result<T>,
) -> Result<(T, Tally)> {
    let tally = Mutex::new(Tally::default());
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        for (batch, known) in batches.iter().zip(known) {
            let (tally, stop) = (&tally, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = ask(rig.address, batch);
                    let took = ms(begun.elapsed());
                    note(&mut lock(tally), answer, took, known);
                }
            });
        }
        let done = work(&tally);
        stop.store(true, Ordering::Relaxed);
        done
    })?;
    Ok((
        done,
        tally.into_inner().unwrap_or_else(PoisonError::into_inner),
    ))
}

fn note(tally: &mut Tally, answer: Result<(String, Vec<Vec<f64>>)>, took: f64, known: &Answers) {
    let Ok((named, outputs)) = answer else {
        tally.failed += 1;
        return;
    };
    tally.latency.push(took);
    let right = known.iter().find(|(_, expected)| **expected == outputs);
    match right {
        None => tally.mixed += 1,
        Some((version, _)) if *version != named => tally.misnamed += 1,
        Some(_) => {}
    }
    tally.strange += usize::from(!known.contains_key(&named));
    tally.last = named;
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Measured {
    call: Vec<f64>,
    served: Vec<f64>,
    refused: usize,
    /// Folders among the versions that belong to neither.
    left: usize,
}

fn switches(rig: &Rig, args: &Args, seed: u64, tally: &Mutex<Tally>) -> Result<Measured> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut measured = Measured::default();
    let mut offered = 0;
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    for turn in 1..=args.n {
        let to = if turn % 2 == 1 { rig.b } else { rig.a };
        let begun = Instant::now();
        rig.slot.switch(to)?;
        measured.call.push(ms(begun.elapsed()));
        let named = to.to_string();
        while lock(tally).last != named {
            interrupt::check()?;
            if begun.elapsed() > SERVED_MAX {
                bail!("{named} is in place and not served");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        measured.served.push(ms(begun.elapsed()));
        rig.slot.settle()?;
        // Spread evenly over the switches.
        while u64::from(offered) * u64::from(args.n) < u64::from(args.bad) * u64::from(turn) {
            let bad = bad(rig, &mut rng, offered)?;
            if let Err(error) = rig.slot.stage(&bad) {
                measured.refused += 1;
                let reason = error.to_string().replace(&*rig.dir.to_string_lossy(), "");
                *reasons
                    .entry(reason.chars().take(26).collect())
                    .or_default() += 1;
            }
            offered += 1;
        }
        if turn % 100 == 0 {
            progress(&format!("  {turn} of {} switches", args.n));
        }
    }
    for (reason, count) in &reasons {
        progress(&format!("  refused {count}: {reason}..."));
    }
    let names = fs::read_dir(rig.slot.path().join("versions"))?.flatten();
    let ours = [rig.a.to_string(), rig.b.to_string()];
    measured.left = names
        .filter(|entry| !ours.iter().any(|name| entry.file_name() == **name))
        .count();
    Ok(measured)
}

/// A candidate with something wrong: each kind in turn, at a place of chance.
fn bad(rig: &Rig, rng: &mut fastrand::Rng, number: u32) -> Result<Candidate> {
    let folder = rig.dir.join("bad");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut model = fs::read(rig.dir.join("b/model.onnx"))?;
    let mut manifest = fs::read(rig.dir.join("b/manifest.toml"))?;
    match number % 5 {
        0 => model.truncate(rng.usize(..model.len())),
        1 => {
            let at = rng.usize(..model.len());
            if let Some(byte) = model.get_mut(at) {
                *byte ^= 1 << rng.u32(..8);
            }
        }
        2 => manifest.truncate(rng.usize(..manifest.len() / 2)),
        3 => {
            // A net of another width, whole and rightly described.
            let mut text = parsed(&rig.dir.join("b"))?;
            let more = rng.usize(1..8);
            for port in &mut text.inputs {
                port.shape = vec![
                    homeostat_models::Dim::Symbol("batch".into()),
                    homeostat_models::Dim::Fixed(vibration::BANDS + more),
                ];
            }
            for vector in &mut text.golden.vectors {
                vector.input.resize(vibration::BANDS + more, 0.0);
            }
            model.push(rng.u8(..));
            text.sha256 = sha256_hex(&model);
            manifest = text.to_toml()?.into_bytes();
        }
        _ => model.rotate_left(rng.usize(1..64)),
    }
    fs::write(folder.join("model.onnx"), model)?;
    fs::write(folder.join("manifest.toml"), manifest)?;
    Ok(candidate(&folder))
}

/// A request of several rows.
fn batch(seed: u64) -> String {
    let rows: Vec<Vec<f32>> = vibration::samples(seed, ROWS)
        .iter()
        .map(|sample| sample.features.to_vec())
        .collect();
    serde_json::json!({ "inputs": rows }).to_string()
}

/// Posts a batch; the version that the answer names, and its outputs.
fn ask(address: SocketAddrV4, body: &str) -> Result<(String, Vec<Vec<f64>>)> {
    let mut stream = TcpStream::connect_timeout(&address.into(), REQUEST_MAX)?;
    stream.set_read_timeout(Some(REQUEST_MAX))?;
    stream.set_nodelay(true)?;
    let head = format!(
        "POST /infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body: Value = serde_json::from_str(body)?;
    let named = body["model"].as_str().context("no model")?.to_owned();
    let outputs = serde_json::from_value(body["outputs"].clone())?;
    Ok((named, outputs))
}
