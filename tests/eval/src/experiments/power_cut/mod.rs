//! Power cuts at any point of what the agent's store and slots really do to their files.
//!
//! A process that holds the store and the slots ([`writer`]) works under strace: events,
//! records of plans, state, acknowledgements, new versions and damaged ones, until files are
//! rotated, rewritten, and events go for want of room; it is killed or ends, and starts again.
//! The trace is played into a small file system that forgets what was not synced ([`medium`]).
//! What is left at a point of it is opened with the agent's own code, and compared with what
//! the process had been promised by then ([`check`]). The next round works on what one power
//! cut has left, so recovery is cut short as well.

mod check;
mod marks;
mod medium;
mod trace;
mod writer;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;

use self::check::Issued;
use self::marks::Mark;
use self::medium::Medium;
use self::trace::Op;
pub(crate) use self::writer::{WRITER_ARG, main as writer_main};
use super::progress;
use crate::result::{Report, Row};
use crate::stage::role::{Role, program};
use crate::stage::{Process, interrupt};
use crate::stats::{Estimate, share};

/// Lives of the recorded process in one round.
const LIVES: u64 = 2;
/// Recordings of one round: calls of several threads at once leave it open which was first,
/// and a trace that does not lead to what is on the disk is no recording.
const RECORDINGS_MAX: usize = 5;
/// A life under strace, on a busy machine.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// Broken promises that are shown.
const SHOWN_MAX: usize = 10;
/// Between the first numbers of two lives.
const NUMBERS: u64 = 1_000_000;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Power cuts after which journal and slots are opened.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub images: u32,
    /// Power cuts after which sled is opened.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sled: u32,
    /// Recordings, each on what a power cut in the one before has left.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Orders that the recorded process gives in each of its lives.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub orders: u32,
}

/// Something that stands in a trace.
enum Step {
    Op(Op),
    Mark(Mark),
}

/// Counts over all images.
#[derive(Default)]
struct Found {
    images: usize,
    unopened: usize,
    broken: usize,
    slots: usize,
    /// Images in which something is gone that had been written and not promised.
    shorter: usize,
    sled: usize,
    sled_refused: usize,
    set_aside: usize,
    unlearnt: usize,
    shown: usize,
}

impl Found {
    fn show(&mut self, what: &str, cut: &str, error: &anyhow::Error) {
        self.shown += 1;
        if self.shown <= SHOWN_MAX {
            progress(&format!("  {what}, {cut}: {error:#}"));
        }
    }
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    ensure!(
        std::process::Command::new("strace")
            .arg("-V")
            .output()
            .is_ok(),
        "strace is not installed"
    );
    let mut report = Report::new("power-cut", &format!("{args:?}"));
    let mut rng = Rng::with_seed(seed);
    let mut found = Found::default();
    let mut issued = Issued::default();
    let mut dir = scratch()?;
    for folder in ["data", "model", "config"] {
        fs::create_dir_all(dir.path().join("disk").join(folder))?;
    }
    let mut writes = 0;
    for round in 0..args.rounds {
        let mut tries = 1;
        let (start, steps) = loop {
            let disk = dir.path().join("disk");
            let start = Medium::load(&disk, &disk)?;
            match record(dir.path(), &start, args, seed, round)? {
                Ok(steps) => break (start, steps),
                Err(why) if tries == RECORDINGS_MAX => return Err(why),
                Err(why) => progress(&format!("  round {} again: {why:#}", round + 1)),
            }
            tries += 1;
            let again = scratch()?;
            let disk = again.path().join("disk");
            fs::create_dir(&disk)?;
            // All of it is synced, so that this is a copy.
            start.cut(&mut rng, &disk, "")?;
            dir = again;
        };
        writes += steps.len();
        let part = |whole: u32| whole * (round + 1) / args.rounds - whole * round / args.rounds;
        let cuts = Cuts::choose(&steps, part(args.images), part(args.sled), &mut rng);
        let next = scratch()?;
        let left = next.path().join("disk");
        fs::create_dir(&left)?;
        issued = play(start, &steps, &cuts, issued, &left, &mut found, &mut rng)?;
        progress(&format!(
            "  round {} of {}: {} steps, {} images, {} broken",
            round + 1,
            args.rounds,
            steps.len(),
            found.images + found.sled,
            found.shown
        ));
        dir = next;
    }
    report.rows = rows(&found, writes);
    report.finish(begun.elapsed());
    Ok(report)
}

/// A folder in memory where the machine allows: nothing here waits for a disk.
fn scratch() -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("hs-power");
    let made = builder
        .tempdir_in("/dev/shm")
        .or_else(|_| builder.tempdir());
    made.context("no folder for the images")
}

/// Lets the process work on `dir/disk`, twice, and returns what it did, or why the trace is not
/// what it did.
fn record(
    dir: &Path,
    start: &Medium,
    args: &Args,
    seed: u64,
    round: u32,
) -> Result<Result<Vec<Step>>> {
    let (disk, marks) = (dir.join("disk"), dir.join("marks"));
    let mut steps = Vec::new();
    for life in 0..LIVES {
        let life = u64::from(round) * LIVES + life;
        let output = dir.join(format!("trace-{life}"));
        let mut arguments: Vec<OsString> = ["strace", "-f", "-y", "-xx", "-qq", "-s"]
            .map(Into::into)
            .to_vec();
        arguments.push(trace::STRING_MAX.to_string().into());
        arguments.extend([format!("--trace={}", trace::CALLS).into(), "-o".into()]);
        arguments.extend([
            output.clone().into(),
            program()?.into(),
            WRITER_ARG.into(),
            dir.into(),
        ]);
        let numbers = [seed + life, u64::from(args.orders), (life + 1) * NUMBERS];
        arguments.extend(numbers.map(|number| number.to_string().into()));
        let mut process = Process::start(Role::Other, "strace", &arguments, dir)?;
        let end = Instant::now() + LIFE_MAX;
        while process.alive() {
            ensure!(Instant::now() < end, "the recorded process does not end");
            interrupt::pause(Duration::from_millis(20))?;
        }
        let log = crate::stage::log_tail(dir, "strace");
        ensure!(
            !log.contains(WRITER_ARG),
            "the recorded process failed:\n{log}"
        );
        let text = fs::read_to_string(&output).context("no trace was written")?;
        for op in trace::parse(&text)? {
            match op {
                Op::Write { path, bytes, .. } if Path::new(&path) == marks => {
                    let text = String::from_utf8(bytes).context("a mark")?;
                    for line in text.lines() {
                        steps.push(Step::Mark(line.parse()?));
                    }
                }
                op => steps.push(Step::Op(op)),
            }
        }
        fs::remove_file(output)?;
    }
    // What is played must be what was done.
    let mut medium = start.clone();
    steps.retain(|step| match step {
        Step::Mark(_) => true,
        Step::Op(op) => medium.concerns(op),
    });
    for step in &steps {
        if let Step::Op(op) = step {
            medium.apply(op)?;
        }
    }
    if let Err(why) = medium.agrees_with(&disk) {
        return Ok(Err(why.context("the trace is not all that happened")));
    }
    if !steps
        .iter()
        .any(|step| matches!(step, Step::Mark(Mark::Synced)))
    {
        bail!("the recorded process was promised nothing");
    }
    Ok(Ok(steps))
}

/// How many images of which kind after how many steps.
struct Cuts {
    at: BTreeMap<usize, (u32, u32)>,
    /// What the next round goes on with.
    last: usize,
}

impl Cuts {
    /// Half of the cuts anywhere, half right after a promise, where there is most to lose. Of
    /// sled, between its own writes.
    fn choose(steps: &[Step], images: u32, sled: u32, rng: &mut Rng) -> Self {
        let places = |wanted: &dyn Fn(&Step) -> bool| -> Vec<usize> {
            let steps = steps.iter().enumerate();
            steps
                .filter(|(_, step)| wanted(step))
                .map(|(place, _)| place + 1)
                .collect()
        };
        let promises = places(&|step| {
            matches!(
                step,
                Step::Mark(Mark::Synced | Mark::Left(..) | Mark::Good(..) | Mark::Opened(_))
            )
        });
        let of_sled = places(&|step| match step {
            Step::Op(op) => op.path().contains("/data/kv"),
            Step::Mark(mark) => matches!(mark, Mark::Learnt(_)),
        });
        let anywhere: Vec<usize> = (0..=steps.len()).collect();
        let mut at: BTreeMap<usize, (u32, u32)> = BTreeMap::new();
        for image in 0..images {
            let from = if image % 2 == 0 { &anywhere } else { &promises };
            if let Some(place) = rng.choice(from) {
                at.entry(*place).or_default().0 += 1;
            }
        }
        for _ in 0..sled {
            if let Some(place) = rng.choice(&of_sled) {
                at.entry(*place).or_default().1 += 1;
            }
        }
        let last = rng.usize(steps.len() / 2..=steps.len());
        Self { at, last }
    }
}

/// Plays the steps, and at each cut looks at what is left. `left` gets what the next round
/// begins with; what holds for it is returned.
fn play(
    mut medium: Medium,
    steps: &[Step],
    cuts: &Cuts,
    mut issued: Issued,
    left: &Path,
    found: &mut Found,
    rng: &mut Rng,
) -> Result<Issued> {
    let mut after = None;
    for place in 0..=steps.len() {
        if let Some(step) = place.checked_sub(1).and_then(|before| steps.get(before)) {
            match step {
                Step::Op(op) => medium.apply(op)?,
                Step::Mark(mark) => issued.hear(*mark),
            }
        }
        let (images, sled) = cuts.at.get(&place).copied().unwrap_or_default();
        for image in 0..images {
            interrupt::check()?;
            let dir = scratch()?;
            medium.cut(rng, dir.path(), "data/kv")?;
            look(
                &issued,
                dir.path(),
                &format!("step {place}, image {image}"),
                found,
            )?;
        }
        for image in 0..sled {
            interrupt::check()?;
            let dir = scratch()?;
            medium.cut(rng, dir.path(), "")?;
            look_at_sled(
                &issued,
                dir.path(),
                &format!("step {place}, image {image}"),
                found,
            )?;
        }
        if place == cuts.last {
            let (mut twin, dir) = (rng.clone(), scratch()?);
            medium.cut(rng, left, "")?;
            medium.cut(&mut twin, dir.path(), "")?;
            let held = check::open_twice(&writer::config(dir.path())?)
                .context("what the next round begins with")?;
            after = Some(issued.clone().after(held));
        }
    }
    after.context("no round follows")
}

fn look(issued: &Issued, disk: &Path, cut: &str, found: &mut Found) -> Result<()> {
    let config = writer::config(disk)?;
    found.images += 1;
    match check::open_twice(&config) {
        Ok(held) => match issued.judge(&held) {
            Ok(true) => {}
            Ok(false) => found.shorter += 1,
            Err(error) => {
                found.broken += 1;
                found.show("a promise is broken", cut, &error);
            }
        },
        Err(error) => {
            found.unopened += 1;
            found.show("the journal", cut, &error);
        }
    }
    if let Err(error) = issued.judge_slots(&config) {
        found.slots += 1;
        found.show("a slot", cut, &error);
    }
    Ok(())
}

fn look_at_sled(issued: &Issued, disk: &Path, cut: &str, found: &mut Found) -> Result<()> {
    let config = writer::config(disk)?;
    found.sled += 1;
    match check::open_all(&config) {
        Ok(opened) => {
            found.set_aside += usize::from(opened.set_aside);
            found.unlearnt += usize::from(!opened.set_aside && opened.learnt < issued.learnt);
            // What was set aside has been replaced by a store that works.
            let again = check::open_all(&config)?;
            ensure!(!again.set_aside, "set aside again");
        }
        Err(error) => {
            found.sled_refused += 1;
            found.show("sled", cut, &error);
        }
    }
    Ok(())
}

fn rows(found: &Found, steps: usize) -> Vec<Row> {
    let row = |key: &str, what: &str, unit, estimate| {
        Row::new(&format!("power_cut.{key}"), what, unit, estimate)
    };
    let count = |value: usize, n: usize| Estimate::exact(value as f64, n);
    let written = Some(found.shorter as f64);
    vec![
        row(
            "opens",
            "journals that open, with no more than a torn end",
            "share",
            share(found.images - found.unopened, found.images),
        )
        .higher()
        .goal(1.0),
        row(
            "lost",
            "power cuts that took something that was said to be safe",
            "count",
            count(found.broken, found.images),
        )
        .against(written, "had a write been taken for safe")
        .goal(0.0),
        row(
            "slots",
            "power cuts that took or damaged a good version",
            "count",
            count(found.slots, found.images),
        )
        .goal(0.0),
        row(
            "sled.opens",
            "sled stores that open, or are set aside",
            "share",
            share(found.sled - found.sled_refused, found.sled),
        )
        .higher()
        .goal(1.0),
        row(
            "sled.set_aside",
            "sled stores that were set aside",
            "count",
            count(found.set_aside, found.sled),
        ),
        row(
            "sled.unlearnt",
            "sled stores that open and have lost what was flushed",
            "count",
            count(found.unlearnt, found.sled),
        ),
        row(
            "steps",
            "recorded calls and promises that were cut between",
            "count",
            count(steps, steps),
        )
        .higher(),
    ]
}
