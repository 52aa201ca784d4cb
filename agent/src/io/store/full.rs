//! Full and read-only disks, for real: a small tmpfs, where the tests may mount one.

use std::path::Path;
use std::process::Command;

use super::error::Error;
use super::journal::{Journal, JournalSeq, Limits};
use super::outbox::{Class, Config, EventSeq, Item, Outbox};
use super::scratch;

const LIMITS: Limits = Limits {
    segment_bytes: 64 << 10,
    total_bytes: 16 << 20,
    ballast_bytes: 256 << 10,
    damaged_kept: 2,
};

/// A tmpfs of 1 MiB, gone at the end of the test.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Option<Mounted> {
        let dir = scratch();
        let mounted = mount(&["-t", "tmpfs", "-o", "size=1M", "none"], dir.path());
        if !mounted {
            println!("skipped: mounting a tmpfs is not permitted here");
        }
        mounted.then(|| Mounted(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(args: &[&str], path: &Path) -> bool {
    let mut command = Command::new("mount");
    command
        .args(args)
        .arg(path)
        .stderr(std::process::Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

fn records(journal: &Journal) -> Vec<u64> {
    let mut out = Vec::new();
    let each = |r: super::journal::Record<'_>| {
        out.push(r.seq.0);
        Ok::<_, Error>(())
    };
    journal
        .read(JournalSeq(0)..JournalSeq(u64::MAX), each)
        .unwrap();
    out
}

#[test]
fn a_full_disk_gives_up_its_ballast_first_and_loses_nothing() {
    let Some(disk) = Mounted::new() else { return };
    let store = disk.path().join("journal");
    let (mut journal, _) = Journal::open(&store, LIMITS).unwrap();
    assert!(store.join("ballast").exists());
    // Somebody else takes all that is left.
    let hog = disk.path().join("hog");
    let _ = std::fs::write(&hog, vec![1; 2 << 20]);
    let mut taken = Vec::new();
    let refused = loop {
        match journal.append(1, &[7; 1000]) {
            Ok(seq) => taken.push(seq.0),
            Err(e) => break e,
        }
    };
    assert!(refused.is_full(), "{refused}");
    assert!(!store.join("ballast").exists());
    assert!(
        taken.len() > 180,
        "the ballast held {} records",
        taken.len()
    );
    journal.sync().unwrap();
    assert!(journal.append(1, &[7; 60_000]).is_err(), "still full");
    assert_eq!(records(&journal), taken);
    drop(journal);
    let (mut journal, recovered) = Journal::open(&store, LIMITS).unwrap();
    assert_eq!(recovered.findings, [], "opens on a full disk");
    assert_eq!(records(&journal), taken);
    std::fs::remove_file(hog).unwrap();
    taken.push(journal.append(1, b"space again").unwrap().0);
    journal.sync().unwrap();
    assert!(store.join("ballast").exists());
    assert_eq!(records(&journal), taken);
}

#[test]
fn a_full_disk_keeps_every_event_that_was_taken() {
    let Some(disk) = Mounted::new() else { return };
    let config = Config {
        limits: LIMITS,
        ..Config::default()
    };
    let (mut outbox, _) = Outbox::open(&disk.path().join("outbox"), config).unwrap();
    let mut taken = 0;
    while outbox.push(Class::Heal, &[1; 900]).is_ok() {
        taken += 1;
    }
    outbox.sync().unwrap();
    outbox.acked(EventSeq(taken / 2));
    // Rewriting what was acknowledged makes room on a disk that stays full.
    for _ in 0..100 {
        outbox.push(Class::Heal, &[2; 900]).unwrap();
        taken += 1;
    }
    outbox.sync().unwrap();
    let mut after = EventSeq(taken / 2 - 50);
    while let Some(item) = outbox.next_unacked(after, 10_000).unwrap().last() {
        let Item::Event { seq, .. } = item else {
            panic!("{item:?}")
        };
        after = *seq;
    }
    assert_eq!(after, EventSeq(taken));
}

#[test]
fn a_card_that_went_read_only_is_still_read() {
    let Some(disk) = Mounted::new() else { return };
    let (mut journal, _) = Journal::open(disk.path(), LIMITS).unwrap();
    let mut taken = vec![journal.append(1, b"before").unwrap().0];
    journal.sync().unwrap();
    drop(journal);
    assert!(mount(&["-o", "remount,ro"], disk.path()));
    let (mut journal, _) = Journal::open(disk.path(), LIMITS).unwrap();
    assert_eq!(records(&journal), taken);
    assert!(matches!(
        journal.append(1, b"refused"),
        Err(Error::ReadOnly { .. })
    ));
    assert!(mount(&["-o", "remount,rw"], disk.path()));
    taken.push(journal.append(1, b"after").unwrap().0);
    assert_eq!(records(&journal), taken);
}
