//! What the agent writes to its flash card while nothing is wrong: sectors of a block device
//! that holds its data folder and nothing else, file system and journal of names included.
//!
//! The device is a loop over a file in memory with ext4 on it, so it needs root. What other
//! processes do shows as alarms, which are written: on a busy machine run it in a PID
//! namespace of its own (`unshare --pid --fork --mount-proc`).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{life, progress};
use crate::result::{Report, Row};
use crate::stage::{BrokerKind, Cloud, Node, Settings, interrupt};
use crate::stats::Estimate;

/// Before the first reading: started, connected, told; and the card's own journal is written.
const SETTLE: Duration = Duration::from_secs(45);
/// What `/sys/block/*/stat` counts in, whatever the device's sectors are.
const SECTOR_BYTES: f64 = 512.0;
const IMAGE_BYTES: u64 = 256 << 20;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How long to watch. Some things are written each half hour and each hour, so less than
    /// an hour tells too little or too much.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// The agent's binary; if not given, the agent built into this program.
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args) -> Result<Report> {
    let begun = Instant::now();
    let settings = Settings {
        sections: "\n[limits]\nmode = \"act\"".to_owned(),
        // A service that says something each second would drown what the agent writes.
        service: "log = false".to_owned(),
        probe: String::new(),
        services: vec!["web", "worker", "infer"],
    };
    let text = format!("{}\n# {} s", settings.text(), args.seconds);
    let mut report = Report::new("flash", &text);
    let dir = tempfile::Builder::new()
        .prefix("hs-flash")
        .tempdir_in("/dev/shm")?;
    let data = dir.path().join("node/data");
    fs::create_dir_all(&data)?;
    let card = Card::mount(&dir.path().join("card"), &data)?;
    let cloud = Cloud::start(dir.path(), BrokerKind::Embedded)?;
    let agent = args.agent.as_deref().map(Path::canonicalize).transpose()?;
    let mut node = Node::start(dir.path(), &settings, Some(&cloud.broker_url()), agent)?;
    for name in node.names() {
        life(&node, name)?;
    }
    interrupt::pause(SETTLE)?;
    card.sync()?;
    let (before, start) = (card.written()?, Instant::now());
    progress(&format!("  watching for {} s", args.seconds));
    interrupt::pause(Duration::from_secs(args.seconds.into()))?;
    // What was written to the file system and not yet to the card counts as well.
    card.sync()?;
    let (after, took) = (card.written()?, start.elapsed().as_secs_f64());
    node.check()?;
    drop(node);
    drop(cloud);
    let per_day = |count: f64| count / took * 86_400.0;
    let row = |key: &str, what: &str, unit, value| {
        Row::new(
            &format!("flash.{key}"),
            what,
            unit,
            Estimate::exact(value, 1),
        )
    };
    report.rows = vec![
        row(
            "mb_day",
            "written to the card at rest",
            "MB/day",
            per_day((after.sectors - before.sectors) * SECTOR_BYTES / 1e6),
        )
        .against(Some(0.0), "monit 5.33")
        .goal(5.0),
        row(
            "writes_day",
            "writes of the card",
            "per day",
            per_day(after.writes - before.writes),
        ),
        row(
            "flushes_day",
            "flushes of the card",
            "per day",
            per_day(after.flushes - before.flushes),
        ),
    ];
    report.finish(begun.elapsed());
    Ok(report)
}

/// A file system on a device of its own, unmounted on drop.
struct Card {
    at: PathBuf,
    stat: PathBuf,
}

/// What a device has written since it is there.
#[derive(Clone, Copy, Debug)]
struct Written {
    writes: f64,
    sectors: f64,
    flushes: f64,
}

impl Card {
    fn mount(image: &Path, at: &Path) -> Result<Self> {
        fs::File::create(image)?.set_len(IMAGE_BYTES)?;
        run_quietly(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))?;
        let mut mount = Command::new("mount");
        run_quietly(mount.args(["-o", "loop,noatime"]).args([image, at]))?;
        let device = fs::metadata(at)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Ok(Self {
            at: at.to_owned(),
            stat: PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat")),
        })
    }

    fn sync(&self) -> Result<()> {
        let folder = fs::File::open(&self.at)?;
        rustix::fs::syncfs(&folder).context("cannot sync the card")
    }

    fn written(&self) -> Result<Written> {
        let text = fs::read_to_string(&self.stat)
            .with_context(|| format!("cannot read {}", self.stat.display()))?;
        let fields: Vec<f64> = text
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let field = |place: usize| fields.get(place).copied().context("a field of stat");
        Ok(Written {
            writes: field(4)?,
            sectors: field(6)?,
            flushes: field(15)?,
        })
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run_quietly(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let done = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    let told = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{shown}: {}", told.trim());
    Ok(())
}
