use super::*;
use crate::io::store::disk::tape::{Failure, Op};
use crate::io::store::error::{Damage, Lost};
use crate::io::store::scratch;
use proptest::prelude::*;
use rustix::io::Errno;

const SMALL: Limits = Limits {
    segment_bytes: 4096,
    total_bytes: 1 << 20,
    ballast_bytes: 0,
    damaged_kept: 4,
};

fn open(path: &Path) -> (Journal, Recovered) {
    Journal::open(path, SMALL).unwrap()
}

fn all(journal: &Journal) -> Vec<(u64, u8, Vec<u8>)> {
    let mut out = Vec::new();
    let range = JournalSeq(0)..JournalSeq(u64::MAX);
    journal
        .read(range, |r| {
            out.push((r.seq.0, r.kind, r.payload.to_vec()));
            Ok::<_, Error>(())
        })
        .unwrap();
    out
}

fn files(path: &Path, part: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    let mut out: Vec<_> = entries
        .filter(|p| p.file_name().unwrap().to_str().unwrap().contains(part))
        .collect();
    out.sort();
    out
}

/// A journal of `n` records in several segments, each synced, killed.
fn filled(path: &Path, n: u64) -> Vec<(u64, u8, Vec<u8>)> {
    let (mut journal, _) = open(path);
    for i in 0..n {
        journal.append(1, &[u8::try_from(i).unwrap(); 300]).unwrap();
        journal.sync().unwrap();
    }
    all(&journal)
}

#[test]
fn records_and_stream_outlive_the_process() {
    let dir = scratch();
    let (mut journal, recovered) = open(dir.path());
    assert_eq!((recovered.records, recovered.findings), (0, vec![]));
    let stream = journal.stream();
    for i in 0..100u8 {
        journal.append(i % 3, &vec![i; usize::from(i) * 7]).unwrap();
    }
    let written = all(&journal);
    assert_eq!(written.len(), 100);
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(all(&journal), written);
    assert_eq!((recovered.records, recovered.findings), (100, vec![]));
    assert_eq!(journal.stream(), stream);
}

#[test]
fn numbers_skip_after_a_crash_and_not_after_a_close() {
    let dir = scratch();
    let (mut journal, _) = open(dir.path());
    assert_eq!(journal.append(1, b"a").unwrap(), JournalSeq(1));
    journal.close().unwrap();
    let (mut journal, recovered) = open(dir.path());
    assert_eq!(recovered.unaccounted, 0);
    assert_eq!(
        journal.append(1, b"b").unwrap(),
        JournalSeq(3),
        "2 is the close record"
    );
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.unaccounted, UNSYNCED_MAX as u64 + 1);
    assert_eq!(journal.next_seq().0, 3 + UNSYNCED_MAX as u64 + 2);
}

#[test]
fn a_second_process_is_refused() {
    let dir = scratch();
    let (_journal, _) = open(dir.path());
    assert!(matches!(
        Journal::open(dir.path(), SMALL),
        Err(Error::Locked { .. })
    ));
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let dir = scratch();
    let written = filled(dir.path(), 3);
    let newest = files(dir.path(), ".seg").pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[512 + 3 * 512..512 + 3 * 512 + 100].fill(0x5A);
    std::fs::write(&newest, bytes).unwrap();
    let (journal, recovered) = open(dir.path());
    assert!(matches!(recovered.findings[..], [Finding::TornTail { .. }]));
    assert_eq!(all(&journal), written);
}

#[test]
fn damage_in_the_middle_keeps_the_beginning_and_the_other_segments() {
    let dir = scratch();
    let written = filled(dir.path(), 20);
    let segments = files(dir.path(), ".seg");
    assert!(segments.len() >= 3);
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    bytes[512 + 512 * 2 + 40] ^= 0x10;
    std::fs::write(&segments[1], bytes).unwrap();
    let (journal, recovered) = open(dir.path());
    let [Finding::SetAside { why, kept: 2, .. }, Finding::Lost(lost)] = &recovered.findings[..]
    else {
        panic!("{:?}", recovered.findings)
    };
    assert_eq!(
        *why,
        Damage::Frame {
            offset: 512 + 512 * 2 - 184
        }
    );
    let expected: Vec<_> = written
        .iter()
        .filter(|r| r.0 < lost.first || r.0 > lost.last)
        .cloned()
        .collect();
    assert_eq!(all(&journal), expected);
    assert_eq!(files(dir.path(), "damaged").len(), 1);
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.findings, [], "told once");
    assert_eq!(all(&journal), expected);
}

#[test]
fn damage_of_synced_bytes_in_the_newest_segment_is_no_torn_tail() {
    let dir = scratch();
    filled(dir.path(), 3);
    let newest = files(dir.path(), ".seg").pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[1024..1536].fill(0);
    std::fs::write(&newest, bytes).unwrap();
    let (mut journal, recovered) = open(dir.path());
    assert!(matches!(
        recovered.findings[..],
        [
            Finding::SetAside { kept: 1, .. },
            Finding::Lost(Lost { first: 2, last: 3 })
        ]
    ));
    assert!(journal.append(1, b"on").unwrap().0 > 3);
}

#[test]
fn unreadable_headers_are_set_aside_and_numbers_still_rise() {
    for (why, spoil) in [
        (Damage::Empty, (|_| vec![]) as fn(Vec<u8>) -> Vec<u8>),
        (Damage::Header, |mut b| {
            b[20] ^= 1;
            b
        }),
        (Damage::Version(2), |mut b| {
            b[8] = 2;
            let crc = crc32fast::hash(&b[..60]);
            b[60..64].copy_from_slice(&crc.to_le_bytes());
            b
        }),
    ] {
        for victim in [0, 1, 2] {
            let dir = scratch();
            let written = filled(dir.path(), 18);
            let segments = files(dir.path(), ".seg");
            assert_eq!(segments.len(), 3);
            let bytes = std::fs::read(&segments[victim]).unwrap();
            std::fs::write(&segments[victim], spoil(bytes)).unwrap();
            let (mut journal, recovered) = open(dir.path());
            let first = &recovered.findings[0];
            let told = matches!(first, Finding::SetAside { why: w, .. } if *w == why);
            assert!(told, "{victim} {why:?} {:?}", recovered.findings);
            assert!(all(&journal).len() >= 4);
            assert!(journal.append(1, b"x").unwrap().0 > written.last().unwrap().0);
            drop(journal);
            assert_eq!(open(dir.path()).1.findings, []);
        }
    }
}

#[test]
fn damaged_files_stay_few_and_a_store_without_headers_is_a_new_stream() {
    let dir = scratch();
    let mut streams = std::collections::BTreeSet::new();
    let mut last = 0;
    for _ in 0..8 {
        let (mut journal, _) = open(dir.path());
        streams.insert(journal.stream().0);
        let seq = journal.append(1, b"x").unwrap().0;
        assert!(seq > last);
        last = seq;
        drop(journal);
        for file in files(dir.path(), ".seg")
            .iter()
            .filter(|f| f.extension().unwrap() == "seg")
        {
            std::fs::write(file, b"garbage").unwrap();
        }
    }
    assert_eq!(streams.len(), 8);
    assert!(files(dir.path(), "damaged").len() <= SMALL.damaged_kept);
}

/// A merge syncs its folder before it removes what it stands for, and a removal may be lost.
#[test]
fn files_that_come_back_after_a_merge_take_nothing_from_it() {
    let dir = scratch();
    let written = filled(dir.path(), 60);
    let (mut journal, _) = open(dir.path());
    let merged: Vec<PathBuf> = files(dir.path(), ".seg").into_iter().take(4).collect();
    let before: Vec<Vec<u8>> = merged
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let last = journal.sealed().nth(3).unwrap().last;
    // What is kept comes from the last of them: behind all that the first ones held.
    let kept = |seq: u64| seq > last.0 || seq + 5 > last.0;
    journal.rewrite(0..4, |seq| kept(seq.0)).unwrap();
    drop(journal);
    for back in 1..8_usize {
        for (place, (path, bytes)) in merged.iter().zip(&before).enumerate().skip(1) {
            if back & (1 << (place - 1)) != 0 {
                std::fs::write(path, bytes).unwrap();
            }
        }
        let (journal, recovered) = open(dir.path());
        assert_eq!(recovered.findings, [], "{back}");
        let expected = written.iter().filter(|(seq, ..)| kept(*seq));
        assert_eq!(
            all(&journal),
            expected.cloned().collect::<Vec<_>>(),
            "{back}"
        );
    }
}

#[test]
fn a_failed_sync_or_write_loses_nothing() {
    let dir = scratch();
    let (mut journal, _) = open(dir.path());
    let tape = journal.dir_mut().tape();
    journal.append(1, b"synced").unwrap();
    journal.sync().unwrap();
    journal.append(1, b"pending").unwrap();
    let failing: [Failure; 4] = [
        (|op| matches!(op, Op::Sync(_)), Errno::IO),
        (|op| matches!(op, Op::Write(..)), Errno::IO),
        (|op| matches!(op, Op::Create(_)), Errno::ROFS),
        (|op| matches!(op, Op::Grow(..)), Errno::NOSPC),
    ];
    for fail in failing {
        tape.lock().unwrap().fail = Some(fail);
        let refused = journal.append(2, b"refused").and_then(|_| journal.sync());
        assert!(refused.is_err() || fail.1 == Errno::ROFS || fail.1 == Errno::NOSPC);
        tape.lock().unwrap().fail = None;
        journal.append(1, b"next").unwrap();
    }
    journal.sync().unwrap();
    let kept = |journal: &Journal| all(journal).iter().filter(|r| r.1 == 1).count();
    assert_eq!(kept(&journal), 6);
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(kept(&journal), 6);
    assert!(
        recovered
            .findings
            .iter()
            .all(|f| matches!(f, Finding::TornTail { .. }))
    );
}

#[test]
fn rewriting_keeps_numbers_and_order_and_the_quota_is_told() {
    let dir = scratch();
    let limits = Limits {
        total_bytes: 64 << 10,
        ..SMALL
    };
    let (mut journal, _) = Journal::open(dir.path(), limits).unwrap();
    let refused = loop {
        match journal.append(1, &[9; 500]) {
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, Error::Quota { .. }));
    let before = all(&journal);
    let sealed = journal.sealed().count();
    journal
        .rewrite(0..sealed / 2, |seq| seq.0 % 10 == 0)
        .unwrap();
    let border = journal.sealed().next().unwrap().last.0;
    let expected: Vec<_> = before
        .into_iter()
        .filter(|r| r.0 > border || r.0 % 10 == 0)
        .collect();
    assert_eq!(all(&journal), expected);
    journal.append(1, b"fits again").unwrap();
    drop(journal);
    let (journal, recovered) = Journal::open(dir.path(), limits).unwrap();
    assert_eq!(recovered.findings, []);
    assert_eq!(all(&journal).len(), expected.len() + 1);
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8, usize),
    Sync,
    Kill,
    Close,
    Rewrite(usize, usize, u64),
    Retire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..200u8, 0..1500usize).prop_map(|(k, l)| Step::Append(k, l)),
        3 => Just(Step::Sync),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        1 => (0..6usize, 0..4usize, 2..5u64).prop_map(|(a, n, m)| Step::Rewrite(a, n, m)),
        1 => (0..60u64).prop_map(Step::Retire),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
    #[test]
    fn behaves_like_a_list(steps in prop::collection::vec(step(), 1..80)) {
        let dir = scratch();
        let (mut journal, _) = open(dir.path());
        let mut model: Vec<(u64, u8, Vec<u8>)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(kind, len) => {
                    let payload = vec![kind; len];
                    let seq = journal.append(kind, &payload).unwrap().0;
                    prop_assert!(model.last().is_none_or(|l| l.0 < seq));
                    model.push((seq, kind, payload));
                }
                Step::Sync => journal.sync().unwrap(),
                Step::Kill | Step::Close => {
                    if matches!(step, Step::Close) { journal.close().unwrap() } else { drop(journal) }
                    let (again, recovered) = open(dir.path());
                    prop_assert_eq!(recovered.findings, vec![]);
                    journal = again;
                }
                Step::Rewrite(at, n, keep) => {
                    let sealed: Vec<_> = journal.sealed().collect();
                    let range = at.min(sealed.len())..(at + n).min(sealed.len());
                    let Some(group) = sealed.get(range.clone()).filter(|g| !g.is_empty()) else { continue };
                    let inside = group[0].first.0..=group[group.len() - 1].last.0;
                    if journal.rewrite(range, |seq| seq.0 % keep == 0).is_ok() {
                        model.retain(|r| !inside.contains(&r.0) || r.0 % keep == 0);
                    }
                }
                Step::Retire(before) => {
                    let held: Vec<_> = journal.sealed().collect();
                    journal.retire(JournalSeq(before)).unwrap();
                    let gone = &held[..held.len() - journal.sealed().count()];
                    prop_assert!(gone.iter().all(|s| s.last.0 < before));
                    model.retain(|r| gone.iter().all(|s| s.last.0 < r.0));
                }
            }
            prop_assert_eq!(&all(&journal), &model);
        }
    }
}
