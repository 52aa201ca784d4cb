//! What can be rebuilt: playbook, history, baselines, templates, in sled.
//!
//! In and out: bytes by key, in four trees. Everything in here is a cache of something that
//! the agent can learn again or fetch, so a store that does not open is set aside and an
//! empty one takes its place.
//!
//! sled 0.34.7 needs some care:
//! - its `flush` issues `sync_file_range` only, which is no promise: [`Kv::flush`] adds an
//!   fsync of the file;
//! - some damaged files make it panic or loop while opening: it is opened on trial in a child
//!   process with a time-out first ([`trial_in_child`], [`trial_main`]);
//! - a crash while it creates its files leaves ones that it refuses: it is created under a
//!   temporary name, synced and renamed;
//! - large files open slowly and never shrink: past its size the store is copied into a
//!   new one, and old entries go first when a tree is full.
//!
//! Every call blocks. It deliberately offers no transactions and no iteration that outlives
//! a call.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::disk::Dir;
use super::error::{Damage, Error, Finding, Result};

/// Longest key: hashes, ids and a few joined names.
pub const KEY_MAX: usize = 256;
/// Longest value: larger ones leave sled's log for a file each.
pub const VALUE_MAX: usize = 8 * 1024;
/// Memory that the trial may write to: damage can make sled ask for any amount. A good store
/// needs less than 64 MiB in any build. Not address space: an allocator sets aside much more
/// of that than it uses, for each thread.
const TRIAL_BYTES_MAX: u64 = 256 << 20;
/// A trial is looked at this often; it usually takes a few milliseconds.
const TRIAL_POLL: Duration = Duration::from_millis(5);
/// sled's own cache; the store is small and the kernel caches it as well.
const CACHE_BYTES: u64 = 256 * 1024;
/// sled allocates buffers of this size; the default of 512 KiB costs megabytes.
const SEGMENT_BYTES: usize = 64 * 1024;
/// Puts between two looks at the size of the file.
const PUTS_PER_CHECK: u32 = 256;
/// A full tree loses this share of its entries at once, since finding them costs a scan.
const EVICT_SHARE: usize = 8;
/// sled lets go of its lock when its threads have ended: idle ones wait a second for work, and a
/// busy machine lets them end later.
const LOCK_TRIES: u32 = 400;
const LOCK_WAIT: Duration = Duration::from_millis(10);
const STAMP_BYTES: usize = 8;
const LIVE: &str = "live";
const FRESH: &str = "fresh.tmp";
const DAMAGED: &str = "live.damaged-1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    Playbook,
    History,
    Baselines,
    Templates,
}

impl Tree {
    pub const ALL: [Tree; 4] = [
        Tree::Playbook,
        Tree::History,
        Tree::Baselines,
        Tree::Templates,
    ];

    fn name(self) -> &'static str {
        match self {
            Tree::Playbook => "playbook",
            Tree::History => "history",
            Tree::Baselines => "baselines",
            Tree::Templates => "templates",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLimits {
    /// Size of the file past which it is copied anew; beyond twice that it is not opened.
    pub file_bytes: u64,
    /// Keys and values of one tree; the four together should stay below half of the file.
    pub tree_bytes: u64,
    pub tree_entries: usize,
}

impl Default for KvLimits {
    fn default() -> KvLimits {
        KvLimits {
            file_bytes: 16 << 20,
            tree_bytes: 2 << 20,
            tree_entries: 8192,
        }
    }
}

#[derive(Debug)]
pub struct Kv {
    dir: Dir,
    path: PathBuf,
    limits: KvLimits,
    open: Open,
    /// Orders entries by age.
    stamp: u64,
    puts: u32,
}

#[derive(Debug)]
struct Open {
    db: sled::Db,
    trees: [sled::Tree; 4],
    used: [Used; 4],
}

#[derive(Debug, Clone, Copy, Default)]
struct Used {
    entries: usize,
    bytes: u64,
}

impl Kv {
    /// Opens the store in `path`, a directory of its own. `trial` tells whether the files
    /// open at all, without risk for this process: see [`trial_in_child`].
    ///
    /// # Errors
    /// If not even an empty store can be made; the agent then runs without one.
    pub fn open(
        path: &Path,
        limits: KvLimits,
        trial: impl FnOnce(&Path) -> io::Result<bool>,
    ) -> Result<(Kv, Vec<Finding>)> {
        let dir = Dir::open(path)?;
        let live = path.join(LIVE);
        let mut findings = Vec::new();
        let _ = std::fs::remove_dir_all(path.join(FRESH));
        let mut open = None;
        if live.exists() {
            open = tried(&live, &limits, trial);
            if open.is_none() {
                findings.push(set_aside(&dir, path, &limits)?);
            }
        }
        let open = match open {
            Some(open) => open,
            None => {
                create(path)?;
                dir.rename(FRESH, LIVE)?;
                dir.sync()?;
                Open::at(&live)?
            }
        };
        Ok((Kv::of(dir, path, limits, open), findings))
    }

    /// Opens what is there, to be read: nothing is made, and nothing set aside. `None` if
    /// it does not open.
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn open_intact(
        path: &Path,
        limits: KvLimits,
        trial: impl FnOnce(&Path) -> io::Result<bool>,
    ) -> Result<Option<Kv>> {
        let dir = Dir::open(path)?;
        let open = tried(&path.join(LIVE), &limits, trial);
        Ok(open.map(|open| Kv::of(dir, path, limits, open)))
    }

    fn of(dir: Dir, path: &Path, limits: KvLimits, open: Open) -> Kv {
        Kv {
            dir,
            path: path.to_path_buf(),
            limits,
            stamp: open.newest_stamp(),
            open,
            puts: 0,
        }
    }

    pub fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self
            .tree(tree)
            .get(key)
            .map_err(|e| self.error("read", e))?;
        Ok(found.and_then(|v| v.get(STAMP_BYTES..).map(<[u8]>::to_vec)))
    }

    /// Adds or replaces an entry. A full tree first loses its oldest ones.
    pub fn put(&mut self, tree: Tree, key: &[u8], value: &[u8]) -> Result<()> {
        for (len, max) in [(key.len(), KEY_MAX), (value.len(), VALUE_MAX)] {
            if len > max {
                return Err(Error::TooLarge { len, max });
            }
        }
        let bytes = (key.len() + STAMP_BYTES + value.len()) as u64;
        let used = self.open.used[tree as usize];
        if used.bytes + bytes > self.limits.tree_bytes || used.entries >= self.limits.tree_entries {
            self.evict(tree)?;
        }
        self.puts += 1;
        if self.puts >= PUTS_PER_CHECK {
            self.puts = 0;
            if file_bytes(&self.path.join(LIVE)) > self.limits.file_bytes {
                self.rebuild()?;
            }
        }
        self.stamp += 1;
        let mut stamped = Vec::with_capacity(STAMP_BYTES + value.len());
        stamped.extend_from_slice(&self.stamp.to_be_bytes());
        stamped.extend_from_slice(value);
        let old = self
            .tree(tree)
            .insert(key, stamped)
            .map_err(|e| self.error("write", e))?;
        let used = &mut self.open.used[tree as usize];
        used.bytes += bytes;
        used.entries += 1;
        used.forget(key, old.as_deref());
        Ok(())
    }

    pub fn remove(&mut self, tree: Tree, key: &[u8]) -> Result<()> {
        let old = self
            .tree(tree)
            .remove(key)
            .map_err(|e| self.error("write", e))?;
        self.open.used[tree as usize].forget(key, old.as_deref());
        Ok(())
    }

    /// Up to `max` entries whose key starts with `prefix`, in the order of their keys.
    pub fn scan(&self, tree: Tree, prefix: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let entries = self.tree(tree).scan_prefix(prefix).take(max);
        let entry = |e: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = e.map_err(|e| self.error("read", e))?;
            Ok((
                key.to_vec(),
                value.get(STAMP_BYTES..).unwrap_or_default().to_vec(),
            ))
        };
        entries.map(entry).collect()
    }

    /// The `max` entries that were put last, newest last. Looks at all of the tree, which
    /// is bounded.
    pub fn newest(&self, tree: Tree, max: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = Vec::new();
        for entry in self.tree(tree).iter() {
            found.push(entry.map_err(|e| self.error("read", e))?);
        }
        found.sort_unstable_by_key(|(_, value)| stamp_of(value));
        let older = found.len().saturating_sub(max);
        let newest = found.into_iter().skip(older).map(|(key, value)| {
            let value = value.get(STAMP_BYTES..).unwrap_or_default().to_vec();
            (key.to_vec(), value)
        });
        Ok(newest.collect())
    }

    pub fn len(&self, tree: Tree) -> usize {
        self.open.used[tree as usize].entries
    }

    pub fn is_empty(&self) -> bool {
        self.open.used.iter().all(|u| u.entries == 0)
    }

    /// Waits until everything written so far is on the medium.
    pub fn flush(&self) -> Result<()> {
        self.open.flush(&self.path.join(LIVE))
    }

    fn tree(&self, tree: Tree) -> &sled::Tree {
        &self.open.trees[tree as usize]
    }

    fn error(&self, op: &'static str, source: sled::Error) -> Error {
        sled_error(op, &self.path.join(LIVE), source)
    }

    fn evict(&mut self, tree: Tree) -> Result<()> {
        let mut stamps: Vec<u64> = Vec::new();
        for entry in self.tree(tree).iter() {
            stamps.push(stamp_of(&entry.map_err(|e| self.error("read", e))?.1));
        }
        let share = stamps.len() / EVICT_SHARE;
        if stamps.is_empty() {
            return Ok(());
        }
        let (_, &mut border, _) = stamps.select_nth_unstable(share);
        for entry in self.tree(tree).clone().iter() {
            let (key, value) = entry.map_err(|e| self.error("read", e))?;
            if stamp_of(&value) <= border {
                self.remove(tree, &key)?;
            }
        }
        Ok(())
    }

    /// Copies what is live into a new store, which takes the place of the old one at once.
    fn rebuild(&mut self) -> Result<()> {
        let fresh_path = self.path.join(FRESH);
        let _ = std::fs::remove_dir_all(&fresh_path);
        // A damaged store and a copy do not both fit beside the live one.
        let _ = std::fs::remove_dir_all(self.path.join(DAMAGED));
        let fresh = Open::at(&fresh_path)?;
        for (from, to) in self.open.trees.iter().zip(&fresh.trees) {
            for entry in from.iter() {
                let (key, value) = entry.map_err(|e| self.error("read", e))?;
                to.insert(key, value)
                    .map_err(|e| sled_error("write", &fresh_path, e))?;
            }
        }
        fresh.flush(&fresh_path)?;
        sync_dir(&fresh_path)?;
        self.dir.exchange(FRESH, LIVE)?;
        self.dir.sync()?;
        // Both are open; the new one keeps working under its new name, by its descriptors.
        drop(fresh);
        let live = Open::at(&self.path.join(LIVE))?;
        self.open = live;
        let _ = std::fs::remove_dir_all(fresh_path);
        Ok(())
    }
}

impl Used {
    fn forget(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(value) = value {
            self.entries = self.entries.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub((key.len() + value.len()) as u64);
        }
    }
}

impl Open {
    fn at(path: &Path) -> Result<Open> {
        let error = |source| sled_error("open", path, source);
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Err(sled::Error::Io(e))
                    if e.kind() == io::ErrorKind::Other && tries < LOCK_TRIES =>
                {
                    tries += 1;
                    std::thread::sleep(LOCK_WAIT);
                }
                other => break other.map_err(error)?,
            }
        };
        let [a, b, c, d] = Tree::ALL.map(|t| db.open_tree(t.name()));
        let trees = [
            a.map_err(error)?,
            b.map_err(error)?,
            c.map_err(error)?,
            d.map_err(error)?,
        ];
        let mut used = [Used::default(); 4];
        for (tree, used) in trees.iter().zip(&mut used) {
            for entry in tree.iter() {
                let (key, value) = entry.map_err(error)?;
                used.entries += 1;
                used.bytes += (key.len() + value.len()) as u64;
            }
        }
        Ok(Open { db, trees, used })
    }

    fn newest_stamp(&self) -> u64 {
        let values = self.trees.iter().flat_map(|t| t.iter().values().flatten());
        values.map(|v| stamp_of(&v)).max().unwrap_or(0)
    }

    fn flush(&self, path: &Path) -> Result<()> {
        self.db.flush().map_err(|e| sled_error("flush", path, e))?;
        let file = path.join("db");
        File::open(&file)
            .and_then(|f| f.sync_all())
            .map_err(|e| Error::new("sync", &file, e))
    }
}

/// Runs in the child: opens the store and reads all of it. The time-out is the parent's.
pub fn trial_main(path: &Path) -> ExitCode {
    let opened = catch_unwind(AssertUnwindSafe(|| Open::at(path).is_ok()));
    if opened.unwrap_or(false) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs `command`, which is to end in [`trial_main`], and tells whether it succeeded within
/// `time_out`. A child that hangs is killed.
///
/// # Errors
/// If there is no child to ask.
pub fn trial_in_child(mut command: Command, time_out: Duration) -> io::Result<bool> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn()?;
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let limit = Some(TRIAL_BYTES_MAX);
        let _ = prlimit(
            Some(pid),
            Resource::Data,
            Rlimit {
                current: limit,
                maximum: limit,
            },
        );
    }
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if started.elapsed() >= time_out {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(TRIAL_POLL);
    }
}

/// What is in `live`, if it opens on trial and then here.
fn tried(
    live: &Path,
    limits: &KvLimits,
    trial: impl FnOnce(&Path) -> io::Result<bool>,
) -> Option<Open> {
    let small = live.exists() && file_bytes(live) <= 2 * limits.file_bytes;
    if !small || !trial(live).unwrap_or(false) {
        return None;
    }
    // The file may still have changed, and the disk may fail now.
    let opened = catch_unwind(AssertUnwindSafe(|| Open::at(live)));
    opened.ok().and_then(Result::ok)
}

/// Makes an empty store under the temporary name, complete and on the medium.
fn create(path: &Path) -> Result<()> {
    let fresh = path.join(FRESH);
    let open = Open::at(&fresh)?;
    open.flush(&fresh)?;
    drop(open);
    sync_dir(&fresh)
}

/// Syncs a directory and the files in it: sled keeps its configuration in one of its own.
fn sync_dir(path: &Path) -> Result<()> {
    let error = |e| Error::new("sync", path, e);
    for entry in std::fs::read_dir(path).map_err(error)? {
        let entry = entry.map_err(error)?;
        File::open(entry.path())
            .and_then(|f| f.sync_all())
            .map_err(error)?;
    }
    File::open(path).and_then(|d| d.sync_all()).map_err(error)
}

/// One damaged store is kept, the newest.
fn set_aside(dir: &Dir, path: &Path, limits: &KvLimits) -> Result<Finding> {
    let _ = std::fs::remove_dir_all(path.join(DAMAGED));
    if file_bytes(&path.join(LIVE)) > 2 * limits.file_bytes {
        // Too large to keep on a small card.
        std::fs::remove_dir_all(path.join(LIVE)).map_err(|e| Error::new("remove", path, e))?;
    } else {
        dir.rename(LIVE, DAMAGED)?;
    }
    dir.sync()?;
    let to = path.join(DAMAGED).exists().then(|| DAMAGED.to_string());
    Ok(Finding::SetAside {
        file: LIVE.to_string(),
        to,
        why: Damage::Trial,
        kept: 0,
    })
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path.join("db")).map_or(0, |m| m.len())
}

fn stamp_of(value: &[u8]) -> u64 {
    value
        .first_chunk()
        .map_or(0, |stamp| u64::from_be_bytes(*stamp))
}

fn sled_error(op: &'static str, path: &Path, source: sled::Error) -> Error {
    match source {
        sled::Error::Io(source) => Error::new(op, path, source),
        source => Error::Sled {
            op,
            path: path.to_path_buf(),
            source,
        },
    }
}

#[cfg(test)]
mod tests;
