//! A disk that lies or is full: the store is mended or done without, and healing goes on.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use homeostat_eval::stage::Node;
use homeostat_testbed::inject;

use crate::rig::{closed, eager, life, log, next_life, scene, until};

/// One way to damage a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A bit in each of its first sixteen blocks.
    Flip,
    /// Cut in half; a journal's segment within its header, because one that is cut between
    /// two records looks as if those behind had never been written.
    Truncate,
    /// Noise from the beginning to the end.
    Garbage,
    /// A folder stands in its place.
    Folder,
}

const DAMAGES: [Damage; 4] = [
    Damage::Flip,
    Damage::Truncate,
    Damage::Garbage,
    Damage::Folder,
];

impl Damage {
    fn inflict(self, path: &Path) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        match self {
            Self::Flip => {
                for at in (100..length).step_by(509).take(16) {
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at)?;
                    file.write_all_at(&[byte[0] ^ 0x10], at)?;
                }
            }
            Self::Truncate if path.extension().is_some_and(|end| end == "seg") => {
                file.set_len(40)?
            }
            Self::Truncate => file.set_len(length / 2)?,
            Self::Garbage => {
                let mut rng = fastrand::Rng::with_seed(length);
                let mut noise = vec![0; usize::try_from(length)?];
                rng.fill(&mut noise);
                file.write_all_at(&noise, 0)?;
            }
            Self::Folder => {
                fs::remove_file(path)?;
                fs::create_dir(path)?;
            }
        }
        Ok(())
    }
}

/// Files in a folder and below that begin or end so.
fn files(folder: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if entry.file_name().to_str().is_some_and(wanted) {
            found.push(path);
        }
    }
    found
}

/// What the agent says about its store since `mark` in its log.
fn findings(node: &Node, mark: usize) -> Vec<String> {
    let log = log(node);
    let new = log.get(mark..).unwrap_or_default();
    new.lines()
        .filter(|line| {
            ["store: ", "journal: ", "history: "]
                .iter()
                .any(|part| line.contains(part))
        })
        .map(str::to_owned)
        .collect()
}

fn damaged(part: &str, wanted: impl Fn(&str) -> bool + Copy) {
    scene(|dir| {
        let mut node = Node::start(dir, &eager(&["web"], ""), None, None)?;
        let folder = node.dir().join("data").join(part);
        for damage in DAMAGES {
            // There is something to be damaged.
            let web = life(&node, "web")?;
            inject::kill9(web.pid)?;
            let web = next_life(&node, "web", &web)?;
            closed(&node, 1)?;
            node.kill_agent()?;
            let targets = files(&folder, wanted);
            ensure!(!targets.is_empty(), "nothing in {}", folder.display());
            for target in &targets {
                damage
                    .inflict(target)
                    .with_context(|| target.display().to_string())?;
            }
            let mark = log(&node).len();
            node.start_agent()?;
            until("being taken over", || {
                log(&node).get(mark..)?.contains("taken over").then_some(())
            })?;
            let said = findings(&node, mark);
            println!("{damage:?} of {} files: {said:#?}", targets.len());
            ensure!(!said.is_empty(), "{damage:?} is not reported");
            ensure!(life(&node, "web")? == web, "the service was disturbed");
            inject::kill9(web.pid)?;
            next_life(&node, "web", &web)?;
            // The newest incident has an end, and `explain` knows it.
            closed(&node, 1).with_context(|| format!("{damage:?}"))?;
            node.check()?;
        }
        Ok(())
    });
}

#[test]
fn a_damaged_journal_is_reported_and_healing_goes_on() {
    damaged("journal", |name| name.ends_with(".seg"));
}

#[test]
fn a_damaged_history_is_reported_and_healing_goes_on() {
    damaged("kv", |name| name == "db" || name == "conf");
}

/// A tmpfs, gone with this.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where it is not permitted.
    fn new(path: &Path, size: &str) -> Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", size, "none"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        Ok(status
            .is_ok_and(|status| status.success())
            .then(|| Self(path.to_owned())))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_healing_goes_on_and_says_that_it_is_not_recorded() {
    scene(|dir| {
        let Some(_disk) = Mounted::new(&dir.join("node/data"), "size=16m")? else {
            println!("skip: mounting a tmpfs is not permitted here");
            return Ok(());
        };
        let store = "[store]\nquota = \"8MiB\"\nballast = \"64KiB\"";
        let node = Node::start(dir, &eager(&["web"], store), None, None)?;
        let mut web = life(&node, "web")?;
        inject::kill9(web.pid)?;
        web = next_life(&node, "web", &web)?;
        closed(&node, 1)?;

        let filled = inject::fill_dir(&node.dir().join("data"), 1 << 30)?;
        ensure!(filled.full, "the disk is not full");
        // Until the store's own reserve is used up as well.
        let mut kills = 0;
        until("the alarm", || {
            let old = life(&node, "web").ok()?;
            inject::kill9(old.pid).ok()?;
            web = next_life(&node, "web", &old).ok()?;
            kills += 1;
            log(&node)
                .contains("alarm store raised: healing goes on, but its record is not kept")
                .then_some(())
        })
        .with_context(|| format!("{kills} healings"))?;
        let old = web;
        inject::kill9(old.pid)?;
        let web = next_life(&node, "web", &old)?;
        println!("the alarm came after {kills} healings on a full disk");

        let mark = log(&node).len();
        drop(filled);
        until("the disk to be used again", || {
            let log = log(&node);
            let new = log.get(mark..)?;
            (new.contains("the disk takes records again") && new.contains("alarm store cleared"))
                .then_some(())
        })?;
        let mark = log(&node).len();
        inject::kill9(web.pid)?;
        next_life(&node, "web", &web)?;
        // In the log: sled does not take anything more after a full disk until it is opened anew.
        until("the last healing", || {
            log(&node)
                .get(mark..)?
                .contains(": healed after")
                .then_some(())
        })?;
        Ok(())
    });
}
