//! Power cuts, played back: every write and sync of a random run is written down, then the
//! journal is opened from what the medium could hold at each point of it.
//!
//! The medium may have lost any sectors written since the last sync of their file, hold the
//! old or the new bytes of each, or garbage; creations, renames and removals since the last
//! sync of the directory are lost or done, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fastrand::Rng;

use super::disk::Dir;
use super::disk::tape::Op;
use super::error::{Error, Finding};
use super::journal::{Journal, JournalSeq, Limits};
use super::scratch;

const LIMITS: Limits = Limits {
    segment_bytes: 8192,
    total_bytes: 1 << 20,
    ballast_bytes: 0,
    damaged_kept: 2,
};
const SECTOR: usize = 512;

/// A record and what must hold for it.
type Records = BTreeMap<u64, (u8, Vec<u8>)>;

/// A run as recorded: operations, and after how many of them which records were promised.
struct Run {
    ops: Vec<Op>,
    appended: Records,
    /// Operations so far, highest number synced, numbers given out.
    promises: Vec<(usize, u64, u64)>,
}

fn record(rng: &mut Rng, path: &Path) -> Run {
    let mut dir = Dir::open(path).unwrap();
    let tape = dir.tape();
    let (mut journal, _) = Journal::open_in(dir, path, LIMITS).unwrap();
    let mut appended = Records::new();
    let mut promises = vec![(0, 0, 0)];
    let (mut synced, mut given) = (0, 0);
    for _ in 0..60 {
        if rng.u8(..10) < 7 {
            let payload: Vec<u8> = (0..rng.usize(..1800)).map(|_| rng.u8(..)).collect();
            let kind = rng.u8(..200);
            given = journal.append(kind, &payload).unwrap().0;
            appended.insert(given, (kind, payload));
        } else if rng.u8(..3) > 0 {
            journal.sync().unwrap();
            synced = given;
        } else {
            let sealed = journal.sealed().count();
            if sealed > 2 {
                let at = rng.usize(..sealed - 1);
                // All kept: a rewrite must not lose what it keeps.
                let _ = journal.rewrite(at..at + 1, |_| true);
            }
        }
        promises.push((tape.lock().unwrap().ops.len(), synced, given));
    }
    let ops = tape.lock().unwrap().ops.clone();
    Run {
        ops,
        appended,
        promises,
    }
}

/// One file: what is on the medium for certain, and which sectors may differ.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    touched: BTreeSet<usize>,
}

impl Inode {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.current.resize(self.current.len().max(end), 0);
        self.current[at..end].copy_from_slice(bytes);
        self.touched.extend(at / SECTOR..end.div_ceil(SECTOR));
    }

    fn resize(&mut self, len: usize) {
        let sectors = self.current.len().min(len) / SECTOR;
        self.touched
            .extend(sectors..self.current.len().max(len).div_ceil(SECTOR));
        self.current.resize(len, 0);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.current);
        self.touched.clear();
    }

    fn after_power_cut(&self, rng: &mut Rng) -> Vec<u8> {
        let mut out = if rng.bool() {
            self.current.clone()
        } else {
            self.durable.clone()
        };
        let lengths = [self.durable.len(), self.current.len()];
        out.resize(lengths[rng.usize(..2)], 0);
        let fate = rng.u8(..4);
        for &sector in &self.touched {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(out.len());
            for i in range {
                let old = self.durable.get(i).copied().unwrap_or(0);
                let new = self.current.get(i).copied().unwrap_or(0);
                out[i] = match (fate, sector % 3) {
                    (0, _) => old,
                    (1, _) => new,
                    (2, 0) | (3, 1) => rng.u8(..),
                    (2, 1) | (3, 2) => old,
                    _ => new,
                };
            }
        }
        out
    }
}

/// What the medium holds after the first `count` operations.
fn image(ops: &[Op], rng: &mut Rng, path: &Path) {
    let mut inodes: Vec<Inode> = Vec::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut durable = names.clone();
    let mut history = Vec::new();
    for op in ops {
        let at = |names: &BTreeMap<String, usize>, name: &String| names.get(name).copied();
        match op {
            Op::Create(name) => {
                names.insert(name.clone(), inodes.len());
                inodes.push(Inode::default());
            }
            Op::Grow(name, len) => {
                let inode = &mut inodes[at(&names, name).unwrap()];
                let len = (*len as usize).max(inode.current.len());
                inode.resize(len);
            }
            Op::Write(name, offset, bytes) => {
                inodes[at(&names, name).unwrap()].write(*offset as usize, bytes);
            }
            Op::Truncate(name, len) => inodes[at(&names, name).unwrap()].resize(*len as usize),
            Op::Sync(name) => inodes[at(&names, name).unwrap()].sync(),
            Op::Rename(from, to) => {
                let inode = names.remove(from).unwrap();
                names.insert(to.clone(), inode);
            }
            Op::Link(from, to) => {
                let inode = at(&names, from).unwrap();
                names.insert(to.clone(), inode);
            }
            Op::Remove(name) => drop(names.remove(name)),
            Op::SyncDir => {
                durable.clone_from(&names);
                history.clear();
            }
        }
        if matches!(
            op,
            Op::Create(_) | Op::Rename(..) | Op::Link(..) | Op::Remove(_)
        ) {
            history.push(names.clone());
        }
    }
    let pick = rng.usize(..=history.len());
    let names = pick.checked_sub(1).map_or(&durable, |i| &history[i]);
    for (name, inode) in names {
        std::fs::write(path.join(name), inodes[*inode].after_power_cut(rng)).unwrap();
    }
}

fn read(journal: &Journal) -> Records {
    let mut out = Records::new();
    let all = JournalSeq(0)..JournalSeq(u64::MAX);
    let each = |r: super::journal::Record<'_>| {
        assert!(
            out.insert(r.seq.0, (r.kind, r.payload.to_vec())).is_none(),
            "read twice"
        );
        Ok::<_, Error>(())
    };
    journal.read(all, each).unwrap();
    out
}

#[test]
fn after_a_power_cut_at_any_point_all_that_was_synced_is_there() {
    let mut torn = 0;
    for seed in 0..6 {
        let mut rng = Rng::with_seed(seed);
        let run = record(&mut rng, scratch().path());
        for count in 0..=run.ops.len() {
            let dir = scratch();
            image(&run.ops[..count], &mut rng, dir.path());
            let (mut journal, recovered) = Journal::open(dir.path(), LIMITS).unwrap();
            let what = format!("seed {seed}, {count} operations, {:?}", recovered.findings);
            for finding in &recovered.findings {
                assert!(matches!(finding, Finding::TornTail { .. }), "{what}");
                torn += 1;
            }
            let promise = run.promises.iter().rev().find(|p| p.0 <= count).unwrap();
            let given = promise.2;
            let read = read(&journal);
            for (seq, record) in &read {
                assert_eq!(run.appended.get(seq), Some(record), "invented; {what}");
            }
            for seq in run.appended.range(..=promise.1).map(|(s, _)| s) {
                assert!(read.contains_key(seq), "{seq} was synced; {what}");
            }
            // No hole before the end: what is lost is a tail.
            let last = read.last_key_value().map_or(0, |(s, _)| *s);
            assert_eq!(read.len(), run.appended.range(..=last).count(), "{what}");
            assert!(
                journal.append(1, b"next").unwrap().0 > given,
                "used twice; {what}"
            );
            drop(journal);
            let (_, again) = Journal::open(dir.path(), LIMITS).unwrap();
            assert_eq!(again.findings, [], "{what}");
        }
    }
    assert!(torn > 50, "the torn tails were there: {torn}");
}

#[test]
fn files_damaged_at_random_never_panic_and_always_work_on() {
    let mut rng = Rng::with_seed(1);
    let source = scratch();
    let run = record(&mut rng, source.path());
    let mut findings = 0;
    for round in 0..1000 {
        let dir = scratch();
        for entry in std::fs::read_dir(source.path()).unwrap() {
            let entry = entry.unwrap();
            let mut bytes = std::fs::read(entry.path()).unwrap();
            match rng.u8(..4) {
                0 => bytes.truncate(rng.usize(..=bytes.len())),
                1 => (0..rng.usize(1..20)).for_each(|_| {
                    if let Some(byte) = rng.choice(&mut bytes) {
                        *byte ^= 1 << (round % 8);
                    }
                }),
                2 => {
                    let at = rng.usize(..bytes.len().max(1));
                    let end = (at + rng.usize(..3000)).min(bytes.len());
                    bytes
                        .get_mut(at..end)
                        .unwrap_or_default()
                        .fill_with(|| rng.u8(..));
                }
                _ => {}
            }
            std::fs::write(dir.path().join(entry.file_name()), bytes).unwrap();
        }
        let (mut journal, recovered) = Journal::open(dir.path(), LIMITS).unwrap();
        findings += recovered.findings.len();
        for (seq, record) in &read(&journal) {
            assert_eq!(run.appended.get(seq), Some(record), "round {round}");
        }
        let highest = *run.appended.last_key_value().unwrap().0;
        let seq = journal.append(1, b"on").unwrap().0;
        assert!(
            seq > highest || recovered.findings.contains(&Finding::NewStream),
            "round {round}"
        );
        journal.sync().unwrap();
    }
    assert!(findings > 1000, "damage was found: {findings}");
}
