//! The main job in one command: `demo` starts a broker, a coordinator and three nodes that serve
//! requests together, breaks them one after the other, with the cloud and without it, under load,
//! and shows what became of it.
//!
//! Exit code: 0 if everything was healed by the stated plans and nothing was lost or doubled,
//! 1 if not, 2 for wrong usage, 130 if interrupted.

mod faults;
mod memory;
mod show;
mod story;
mod table;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use homeostat_eval::result::{Report, Row};
use homeostat_eval::stage::{
    BrokerKind, Cloud, Fleet, FleetSettings, MODEL_VERSION, Node, interrupt, role,
};
use homeostat_eval::stats::Estimate;
use homeostat_testbed::{Answers, Load, LoadSpec};

use faults::{GRACE, START_TIMEOUT};
use show::Show;
use story::{Story, wait_healthy};
use verdict::Outside;

/// The clock of this node is wrong by this much.
const CLOCK: (&str, &str) = ("edge-2", "-1h");
const CLOCK_MS: i64 = -3_600_000;
/// Requests a second.
const RATE: f64 = 50.0;
/// A request is late after this, and lost ...
const LATE: Duration = Duration::from_secs(1);
/// ... as it is when there is no answer by then.
const DEADLINE: Duration = Duration::from_secs(2);
/// Of load before the first fault, so that routes and leaks have something to compare with.
const WARM_UP: Duration = Duration::from_secs(2);

/// Breaks three nodes that serve requests together, in every way, and shows how they heal.
///
/// Needs no root, no network and no installed package. Ends everything it started.
#[derive(Debug, Parser)]
#[command(name = "demo", version, max_term_width = 100)]
struct Cli {
    /// Write the results here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Go on running after the table, to look at the page, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Keep logs and data of all processes in this folder, which must not be there yet.
    #[arg(long, value_name = "FOLDER", conflicts_with = "repeat")]
    dir: Option<PathBuf>,
    /// Seed of the pauses before each fault, and of the requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do the same to nodes whose agents have been stopped, and count the requests lost.
    #[arg(long)]
    without_healer: bool,
    /// Play it so often, each time with the next seed, and say how often all was as stated.
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with = "keep",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
}

fn main() -> ExitCode {
    if let Some(code) = role::dispatch() {
        return code;
    }
    let cli = Cli::parse();
    let played = interrupt::listen(false).and_then(|()| match cli.repeat {
        1 => Ok(run(&cli, cli.seed)?.is_empty()),
        n => repeat(&cli, n),
    });
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("\ninterrupted; everything that was started has ended");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn repeat(cli: &Cli, n: u32) -> Result<bool> {
    let mut other = Vec::new();
    for seed in (cli.seed..).take(n as usize) {
        println!("\n=== seed {seed}");
        match run(cli, seed) {
            Ok(wrong) if wrong.is_empty() => {}
            Ok(wrong) => other.push((seed, wrong.join("; "))),
            Err(error) if error.is::<interrupt::Interrupted>() => return Err(error),
            Err(error) => other.push((seed, format!("{error:#}"))),
        }
    }
    println!("\n{} of {n} runs as stated", n as usize - other.len());
    for (seed, wrong) in &other {
        println!("seed {seed}: {wrong}");
    }
    Ok(other.is_empty())
}

/// How the nodes are set. Holds are short so that a demo need not wait for them.
fn settings() -> FleetSettings {
    FleetSettings {
        sections: r#"reconnect_min = "200ms"
reconnect_max = "2s"

[limits]
mode = "act"
hold = "2s"

[sample]
period = "250ms""#
            .to_owned(),
        service: format!(
            "memory_limit = \"256MiB\"\nstop_grace = \"{GRACE}\"\nstart_timeout = \
             \"{START_TIMEOUT}\"\ncpu_limit = 0.3"
        ),
        // Longer than the slow replica takes: it is slow, it does not hang.
        probe: "period = \"100ms\"\ntimeout = \"200ms\"\nmisses = 2\ngate_max = \"500ms\""
            .to_owned(),
        // A wrong answer costs more than a late one.
        golden: "period = \"50ms\"\ntimeout = \"200ms\"\nmisses = 2\ngate_max = \"500ms\""
            .to_owned(),
        single: "patience = \"900ms\"".to_owned(),
        replicated: "patience = \"500ms\"\nfirst_byte = \"200ms\"".to_owned(),
        check: "kind = \"http\"\npath = \"/healthz\"\nperiod = \"100ms\"\ntimeout = \"150ms\"\n\
                rises = 1"
            .to_owned(),
        clock: CLOCK,
    }
}

fn load(fleet: &Fleet, seed: u64) -> Result<Load> {
    let golden = Node::goldens()?;
    let spec = LoadSpec {
        target: fleet.entry()?.into(),
        rate: RATE,
        seed,
        late: LATE,
        deadline: DEADLINE,
        rows: golden.vectors.iter().map(|it| it.input.clone()).collect(),
    };
    let answers = Answers::default();
    answers.insert(MODEL_VERSION, golden);
    Ok(Load::start(spec, answers)?)
}

/// Of the last minute: a run that went badly on a machine with better things to do says little.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.unwrap_or("unknown").to_owned()
}

/// Where all processes write: the folder asked for, or a temporary one.
fn folder(asked: Option<&Path>) -> Result<(Option<tempfile::TempDir>, PathBuf)> {
    if let Some(asked) = asked {
        // What an earlier run has learnt there would change this one.
        std::fs::create_dir(asked).with_context(|| format!("cannot make {}", asked.display()))?;
        return Ok((None, std::path::absolute(asked)?));
    }
    let dir = tempfile::Builder::new().prefix("hs-demo").tempdir()?;
    let path = dir.path().to_owned();
    Ok((Some(dir), path))
}

/// Plays all of it once; what did not hold.
fn run(cli: &Cli, seed: u64) -> Result<Vec<String>> {
    let begun_ms = story::wall_ms();
    let mut show = Show::new();
    let settings = settings();
    let mut report = Report::new("demo", &format!("{}\n# seed {seed}", settings.text()));
    // Dropped last, after all that writes into it.
    let (_temporary, dir) = folder(cli.dir.as_deref())?;

    show.wait("broker and coordinator");
    let mut cloud = Cloud::start(&dir, BrokerKind::Embedded)?;
    show.text(&format!("The fleet, live: {}\n", cloud.page()));
    show.wait("three nodes");
    let mut fleet = Fleet::start(&dir, &settings, cloud.broker_address())?;
    wait_healthy(&cloud, &fleet)?;
    for node in fleet.nodes() {
        show.line(&format!("{}: {}", node.id(), node.names().join(", ")));
    }
    if cli.without_healer {
        fleet.nodes_mut().for_each(Node::stop_agent);
        show.line("the agents have been stopped: nobody heals");
    }
    show.text(&format!(
        "\nEach request: entry > gateway > preprocess > cache; > infer; > postprocess > store, publisher\n\
         {RATE} requests a second; one is lost if it fails or takes longer than {} s.\n\
         Settings: probes every 100 ms (of models 50), two misses; no second healing of a service within 2 s (60 s\n\
         by default); the clock of {} is wrong by {}. \"Healed\" counts from the fault to a right\n\
         answer, by a prober that knows nothing of the agent.\n",
        LATE.as_secs(),
        CLOCK.0,
        CLOCK.1
    ));
    let load = load(&fleet, seed)?;
    interrupt::pause(WARM_UP)?;

    let mut story = Story::new(&mut fleet, &mut cloud, &mut show, seed, !cli.without_healer);
    let broker_dead = story.play()?;
    let seen = std::mem::take(&mut story.seen);
    drop(story);
    show.line(&format!(
        "the broker is back after {:.0} s",
        broker_dead.as_secs_f64()
    ));
    let memory = memory::of_all(&cloud, &fleet);
    let lost = if cli.keep { load.so_far() } else { load.stop() };
    show.text(&format!("\nRequests: {lost}"));
    report.rows.push(Row::new(
        "demo.requests_lost",
        "requests late or failed",
        "count",
        Estimate::exact(
            lost.lost() as f64,
            usize::try_from(lost.sent()).unwrap_or(0),
        ),
    ));
    let wrong = if cli.without_healer {
        show.text(&format!(
            "{} of {} requests lost without a healer",
            lost.lost(),
            lost.sent()
        ));
        Vec::new()
    } else {
        show.wait("everything to arrive at the coordinator");
        let outside = Outside {
            load: &lost,
            memory,
            broker_dead,
            clock: (CLOCK.0, CLOCK_MS),
            begun_ms,
        };
        let held = verdict::gather(cloud.api(), &seen, &outside)?;
        let lines = verdict::lines(&held, &seen, &outside)?;
        show.text(&format!("\n{}", table::table(&lines)));
        let checks = verdict::checks(&held, &lines, &outside)?;
        for check in &checks {
            let mark = if check.holds { "ok  " } else { "FAIL" };
            show.text(&format!("{mark}  {}", check.what));
        }
        report.rows.extend(lines.iter().flat_map(table::numbers));
        report.rows.extend(checks.iter().map(table::held));
        let mut wrong: Vec<String> = lines
            .iter()
            .filter_map(|line| Some(format!("{}: {}", line.seen.scene.id, line.wrong()?)))
            .collect();
        wrong.extend(
            checks
                .into_iter()
                .filter(|check| !check.holds)
                .map(|check| check.what),
        );
        wrong
    };
    let took = Duration::from_secs_f64(show.seconds());
    show.text(&format!(
        "\n{}, {:.0} s in all, at a load of {} on {} cores",
        match (cli.without_healer, wrong.is_empty()) {
            (true, _) => "Not healed, as stated",
            (false, true) => "All as stated",
            (false, false) => "NOT as stated",
        },
        took.as_secs_f64(),
        load_average(),
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    ));
    report.finish(took);
    if let Some(file) = &cli.json {
        report.write(file)?;
    }
    if cli.keep {
        show.text(&format!("\nStill running: {} until Ctrl-C", cloud.page()));
        while interrupt::pause(Duration::from_secs(1)).is_ok() {
            for node in fleet.nodes_mut() {
                node.check()?;
            }
        }
    }
    Ok(wrong)
}
