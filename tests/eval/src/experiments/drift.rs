//! A model that silently meets another world: how long until somebody is told, with no labels.
//!
//! A real model server, a real agent and coordinator. A client asks spectra whose true class it
//! alone knows, so it sees the accuracy that nobody else sees. After the reference is learnt the
//! world changes, or the model; the time from there to the alarm at the coordinator is the
//! delay. Beside it: what golden inputs alone would have said, which know nothing of inputs;
//! and false alarms while nothing changes. All seeds follow from one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use homeostat_models::mlp::{Rng, argmax};
use homeostat_models::vibration::{BANDS, CLASSES, spectrum, variant};
use serde_json::{Value, json};

use super::progress;
use crate::result::{Report, Row};
use crate::stage::{BrokerKind, Cloud, Node, Settings, interrupt};
use crate::stats::Estimate;

/// Rows of a request, and the pause between two: some 200 answers a second.
const ROWS: usize = 8;
const PAUSE: Duration = Duration::from_millis(40);
/// Answers of the reference and of the window, as the agent has them by default.
const LEARN: usize = 1000;
/// A change that was not told of after so many answers was missed.
const MISSED: usize = 6000;
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only this change, and no other.
    #[arg(long)]
    pub change: Option<Change>,
    /// Runs of each change.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Answers of the run in which nothing changes.
    #[arg(long, default_value_t = 30_000)]
    pub quiet: usize,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Change {
    /// A sensor was calibrated anew: all amplitudes are a third larger.
    Gain,
    /// Something beside the machine hums in all bands.
    Hum,
    /// One band reads nothing.
    Dead,
    /// Worn bearings become eight of ten machines. The model is as good as before.
    Mix,
    /// The model is another one, trained on a tenth, whose files all agree.
    Model,
}

impl Change {
    const ALL: [Self; 5] = [Self::Gain, Self::Hum, Self::Dead, Self::Mix, Self::Model];

    fn id(self) -> &'static str {
        match self {
            Self::Gain => "gain",
            Self::Hum => "hum",
            Self::Dead => "dead",
            Self::Mix => "mix",
            Self::Model => "model",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Gain => "all inputs a third larger",
            Self::Hum => "0.15 more in all inputs",
            Self::Dead => "one input reads 0",
            Self::Mix => "another mix of classes",
            Self::Model => "another model",
        }
    }

    fn world(self, class: usize, rng: &mut Rng) -> (usize, [f32; BANDS]) {
        let class = match self {
            Self::Mix if rng.between(0.0, 1.0) < 0.7 => CLASSES.len() - 1,
            _ => class,
        };
        let mut row = spectrum(class, rng);
        match self {
            Self::Gain => row.iter_mut().for_each(|band| *band *= 4.0 / 3.0),
            Self::Hum => row.iter_mut().for_each(|band| *band += 0.15),
            Self::Dead => row[2] = 0.0,
            Self::Mix | Self::Model => {}
        }
        (class, row)
    }
}

fn settings() -> Settings {
    Settings {
        sections:
            "reconnect_min = \"200ms\"\nreconnect_max = \"1s\"\n[limits]\nmode = \"observe\"\n"
                .to_owned(),
        service: String::new(),
        // The second probe is that of the page.
        probe: "period = \"1s\"\n[[service.probe]]\nkind = \"metrics\"\nperiod = \"500ms\"\n\
                serving = { inputs = \"model_input\", confidence = \"model_confidence\", \
                latency = \"model_latency_seconds\", requests = \"requests_total\", \
                errors = \"errors_total\" }"
            .to_owned(),
        services: vec!["infer"],
    }
}

/// The client: rows it has asked, and how many of them were answered rightly.
struct Client {
    at: SocketAddrV4,
    rng: Rng,
    asked: usize,
    right: usize,
}

impl Client {
    fn ask(&mut self, change: Option<Change>) -> Result<()> {
        let rows: Vec<(usize, [f32; BANDS])> = (0..ROWS)
            .map(|_| {
                let class = self.rng.below(CLASSES.len());
                match change {
                    Some(change) => change.world(class, &mut self.rng),
                    None => (class, spectrum(class, &mut self.rng)),
                }
            })
            .collect();
        let inputs: Vec<&[f32; BANDS]> = rows.iter().map(|(_, row)| row).collect();
        let body = json!({ "inputs": inputs }).to_string();
        let mut stream = TcpStream::connect(self.at)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        write!(
            stream,
            "POST /infer HTTP/1.0\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.at,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let body: Value = serde_json::from_str(body).context("no JSON")?;
        let outputs: Vec<Vec<f32>> = serde_json::from_value(body["outputs"].clone())?;
        for ((class, _), output) in rows.iter().zip(outputs) {
            self.asked += 1;
            self.right += usize::from(argmax(&output) == *class);
        }
        Ok(())
    }

    /// The share of right answers since the last time.
    fn accuracy(&mut self) -> f64 {
        let share = self.right as f64 / self.asked.max(1) as f64;
        (self.asked, self.right) = (0, 0);
        share
    }
}

/// What became of one change.
struct Found {
    /// Answers and seconds until the alarm.
    after: Option<(usize, f64)>,
    /// Golden inputs have said something.
    golden: bool,
    accuracy: [f64; 2],
}

fn alarms(cloud: &Cloud) -> Result<String> {
    cloud.api().text("/api/v1/alarms?raised=true")
}

fn one(change: Change, seed: u64) -> Result<Found> {
    let dir = tempfile::Builder::new().prefix("hs-drift").tempdir()?;
    let cloud = Cloud::start(dir.path(), BrokerKind::Embedded)?;
    let mut node = Node::start(dir.path(), &settings(), Some(&cloud.broker_url()), None)?;
    let mut client = Client {
        at: node.address("infer")?,
        rng: Rng::seeded(seed),
        asked: 0,
        right: 0,
    };
    // The reference, a whole window behind it, and a rest for the page to be read.
    for _ in 0..(2 * LEARN) / ROWS {
        client.ask(None)?;
        interrupt::pause(PAUSE)?;
    }
    anyhow::ensure!(
        !alarms(&cloud)?.contains("infer-drift"),
        "an alarm before the change"
    );
    let before = client.accuracy();
    if change == Change::Model {
        let built = variant("2.0.0", seed, 0);
        let model = node.model();
        let new = model.with_extension("new");
        fs::write(&new, &built.onnx).and_then(|()| fs::rename(&new, &model))?;
    }
    let begun = Instant::now();
    let mut after = None;
    let mut golden = false;
    let mut total = 0;
    while total < MISSED {
        client.ask(Some(change))?;
        total += ROWS;
        let stand = alarms(&cloud)?;
        let others = ["infer-wrong-answers", "infer-confidence", "infer-called"];
        golden |= others.iter().any(|name| stand.contains(name));
        if stand.contains("infer-drift") {
            after = Some((total, begun.elapsed().as_secs_f64()));
            break;
        }
        interrupt::pause(PAUSE)?;
    }
    // Enough for the accuracy that nobody sees.
    while client.asked < LEARN {
        client.ask(Some(change))?;
    }
    node.check()?;
    Ok(Found {
        after,
        golden,
        accuracy: [before, client.accuracy()],
    })
}

/// Alarms that were raised while nothing changed.
fn quiet(answers: usize, seed: u64) -> Result<usize> {
    let dir = tempfile::Builder::new().prefix("hs-drift").tempdir()?;
    let cloud = Cloud::start(dir.path(), BrokerKind::Embedded)?;
    let mut node = Node::start(dir.path(), &settings(), Some(&cloud.broker_url()), None)?;
    let mut client = Client {
        at: node.address("infer")?,
        rng: Rng::seeded(seed),
        asked: 0,
        right: 0,
    };
    let mut raised = 0;
    let mut stood = false;
    while client.asked < answers {
        client.ask(None)?;
        let stands = alarms(&cloud)?.contains("infer-drift");
        raised += usize::from(stands && !stood);
        stood = stands;
        interrupt::pause(PAUSE)?;
    }
    node.check()?;
    Ok(raised)
}

/// # Errors
/// When it could not be measured.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // places in short lists
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let text = format!(
        "{}\n# {args:?}, {ROWS} rows every {PAUSE:?}",
        settings().text()
    );
    let mut report = Report::new("drift", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let runs = args.runs as usize;
    let wanted = |change: &Change| args.change.is_none_or(|only| only == *change);
    for change in Change::ALL.into_iter().filter(wanted) {
        let mut found = Vec::new();
        for run in 0..u64::from(args.runs) {
            let seed = seed.wrapping_mul(1000).wrapping_add(run);
            let one = one(change, seed)?;
            progress(&format!(
                "{} {run}: {:?}, accuracy {:.3} -> {:.3}",
                change.id(),
                one.after,
                one.accuracy[0],
                one.accuracy[1]
            ));
            found.push(one);
        }
        let name = |what: &str| format!("drift.{}.{what}", change.id());
        let told: Vec<(usize, f64)> = found.iter().filter_map(|one| one.after).collect();
        let golden = found.iter().filter(|one| one.golden).count();
        let share = |count: usize| Estimate::exact(count as f64 / runs as f64, runs);
        let row = Row::new(&name("found"), change.words(), "ratio", share(told.len()));
        let golden = Some(golden as f64 / runs as f64);
        report
            .rows
            .push(row.higher().against(golden, "golden inputs alone"));
        let spread = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            let at = |share: f64| all.get((share * (all.len() - 1) as f64).round() as usize);
            Some(Estimate {
                value: *at(0.5)?,
                low: *at(0.0)?,
                high: *at(1.0)?,
                n: all.len(),
            })
        };
        if !told.is_empty() {
            let answers = told.iter().map(|(answers, _)| *answers as f64).collect();
            let seconds = told.iter().map(|(_, seconds)| *seconds).collect();
            for (id, what, unit, all) in [
                (
                    "answers",
                    "answers until told, median, least, most",
                    "answers",
                    answers,
                ),
                (
                    "delay",
                    "time until told, median, least, most",
                    "s",
                    seconds,
                ),
            ] {
                if let Some(estimate) = spread(all) {
                    report.rows.push(Row::new(&name(id), what, unit, estimate));
                }
            }
        }
        let mean = |place: usize| {
            let all = found.iter().filter_map(|one| one.accuracy.get(place));
            all.sum::<f64>() / runs as f64
        };
        let row = Row::new(
            &name("accuracy"),
            "accuracy after it, which nobody sees",
            "ratio",
            Estimate::exact(mean(1), runs * LEARN),
        );
        report
            .rows
            .push(row.higher().against(Some(mean(0)), "before it"));
    }
    let raised = quiet(args.quiet, seed ^ 0x5eed)?;
    let row = Row::new(
        "drift.none.alarms",
        "false alarms while nothing changes",
        "count",
        Estimate::exact(raised as f64, args.quiet),
    );
    report.rows.push(row.goal(0.0));
    report.finish(begun.elapsed());
    Ok(report)
}
