//! The main job in one command: `demo` starts a broker, a coordinator, a node with three
//! services, breaks them one after the other, with the cloud and without it, and shows what
//! became of it.
//!
//! Exit code: 0 if everything was healed by the stated plans and nothing was lost or doubled,
//! 1 if not, 2 for wrong usage, 130 if interrupted.

mod faults;
mod show;
mod story;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use homeostat_eval::result::Report;
use homeostat_eval::stage::{BrokerKind, Cloud, Node, Settings, interrupt, role};

use faults::{CONNECTED, GRACE, OFFLINE};
use show::Show;
use story::{HOLD, Probers, Story, wait_healthy};

/// The broker stays dead at least this long.
const BROKER_DEAD: Duration = Duration::from_secs(15);
/// The agent's clock is wrong by this much.
const CLOCK_OFFSET: &str = "-1h";
const CLOCK_OFFSET_MS: i64 = -3_600_000;

/// Breaks three services and their agent in every way, and shows how they heal.
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
    /// Seed of the pauses before each fault.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    if let Some(code) = role::dispatch() {
        return code;
    }
    let cli = Cli::parse();
    match run(&cli) {
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

fn settings() -> Settings {
    Settings {
        sections: format!(
            r#"reconnect_min = "200ms"
reconnect_max = "2s"

[limits]
mode = "act"
hold = "{}s"

[sample]
period = "250ms"

[clock]
offset = "{CLOCK_OFFSET}""#,
            HOLD.as_secs()
        ),
        service: format!("memory_limit = \"256MiB\"\nstop_grace = \"{GRACE}\""),
        probe: "period = \"100ms\"\ntimeout = \"50ms\"\nmisses = 2".to_owned(),
        services: vec!["web", "worker", "infer"],
    }
}

fn run(cli: &Cli) -> Result<bool> {
    interrupt::listen()?;
    let mut show = Show::new();
    let settings = settings();
    let mut report = Report::new("demo", &format!("{}\n# seed {}", settings.text(), cli.seed));
    // Dropped last, after all that writes into it.
    let dir = tempfile::Builder::new().prefix("hs-demo").tempdir()?;

    show.wait("broker and coordinator");
    let mut cloud = Cloud::start(dir.path(), BrokerKind::Embedded)?;
    show.text(&format!("The fleet, live: {}\n", cloud.page()));
    show.wait("spawner, agent and services");
    let born = Instant::now();
    let mut node = Node::start(dir.path(), &settings, Some(&cloud.broker_url()), None)?;
    wait_healthy(&cloud, 3)?;
    show.line("web, worker and infer run; the agent watches them");
    show.text(&format!(
        "Settings: probes every 100 ms, given up after 50 ms, two misses; no second healing of a\n\
         service within {} s (60 s by default); the agent's clock is wrong by {CLOCK_OFFSET}. While the\n\
         machine is busy, silence alone is not believed to be a hang for up to 1.5 s.\n\
         \"Healed\" counts from the fault to a right answer, by a prober that knows nothing of the agent.\n",
        HOLD.as_secs()
    ));

    let probers = Probers::start(&node)?;
    let mut story = Story {
        node: &mut node,
        show: &mut show,
        rng: fastrand::Rng::with_seed(cli.seed),
        probers,
        seen: Vec::new(),
        born,
    };
    story.show.text("With the cloud:");
    for scene in CONNECTED {
        story.play(scene)?;
        story.show.wait("all healthy");
        wait_healthy(&cloud, 3)?;
    }

    story
        .show
        .text("\nThe broker is killed; the node is alone:");
    cloud.kill_broker()?;
    let dead = Instant::now();
    for scene in OFFLINE {
        story.play(scene)?;
    }
    story.show.wait("the broker stays dead");
    interrupt::pause(BROKER_DEAD.saturating_sub(dead.elapsed()))?;
    let was_dead = dead.elapsed();
    cloud.start_broker()?;
    let seen = std::mem::take(&mut story.seen);
    drop(story);
    show.line(&format!(
        "the broker is back after {:.0} s",
        was_dead.as_secs_f64()
    ));

    show.wait("everything to arrive at the coordinator");
    let back = Instant::now();
    let held = verdict::gather(cloud.api(), &seen)?;
    show.line(&format!(
        "the coordinator knows it all, {:.1} s later",
        back.elapsed().as_secs_f64()
    ));
    let (table, checks) = verdict::judge(&held, &seen, CLOCK_OFFSET_MS, &mut report)?;
    show.text(&format!("\n{table}"));
    show.text("* by the agent's own record, less the known error of its clock\n");
    for check in &checks {
        let mark = if check.holds { "ok  " } else { "FAIL" };
        show.text(&format!("{mark}  {}", check.what));
    }
    let good = checks.iter().all(|check| check.holds);
    let took = Duration::from_secs_f64(show.seconds());
    show.text(&format!(
        "\n{}, {:.0} s in all",
        if good {
            "All as stated"
        } else {
            "NOT as stated"
        },
        took.as_secs_f64()
    ));
    report.finish(took);
    if let Some(file) = &cli.json {
        report.write(file)?;
    }
    if cli.keep {
        show.text(&format!("\nStill running: {} until Ctrl-C", cloud.page()));
        loop {
            if interrupt::pause(Duration::from_secs(1)).is_err() {
                break;
            }
            node.check()?;
        }
    }
    Ok(good)
}
