use super::*;
use crate::io::store::journal::Limits;
use crate::io::store::scratch;
use proptest::prelude::*;

const SMALL: Config = Config {
    limits: Limits {
        segment_bytes: 4096,
        total_bytes: 256 << 10,
        ballast_bytes: 4096,
        damaged_kept: 2,
    },
    events_bytes: 32 << 10,
    records_bytes: 16 << 10,
};

fn open(path: &Path) -> Outbox {
    let (outbox, recovered) = Outbox::open(path, SMALL).unwrap();
    assert_eq!(recovered.findings, []);
    outbox
}

/// Everything a receiver gets that takes batch after batch without acknowledging.
fn sent(outbox: &mut Outbox) -> Vec<Item> {
    let mut out = Vec::new();
    let mut after = EventSeq(0);
    loop {
        let batch = outbox.next_unacked(after, 1000).unwrap();
        let Some(last) = batch.last() else { return out };
        after = match last {
            Item::Event { seq, .. } => *seq,
            Item::Gap(gap) => gap.last,
        };
        out.extend(batch);
    }
}

fn dropped(outbox: &Outbox) -> u64 {
    Class::ALL.iter().map(|c| outbox.dropped(*c).events).sum()
}

fn used(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn events_wait_for_their_acknowledgement_across_restarts() {
    let dir = scratch();
    let mut outbox = open(dir.path());
    for i in 0..50u8 {
        assert_eq!(
            outbox.push(Class::Heal, &[i; 40]).unwrap(),
            EventSeq(u64::from(i) + 1)
        );
    }
    outbox.acked(EventSeq(20));
    outbox.acked(EventSeq(u64::MAX - 1));
    assert_eq!(outbox.pending(), 0, "cannot have more than there was");
    outbox.push(Class::Heal, b"one more").unwrap();
    outbox.close().unwrap();
    let mut outbox = open(dir.path());
    let one = Item::Event {
        seq: EventSeq(51),
        class: Class::Heal,
        record: b"one more".to_vec(),
    };
    assert_eq!(sent(&mut outbox), [one]);
    assert_eq!(outbox.acked_to(), EventSeq(50));
}

#[test]
fn over_quota_the_lowest_class_goes_first_and_the_gap_is_told() {
    let dir = scratch();
    let mut outbox = open(dir.path());
    for class in [Class::Heal, Class::Telemetry, Class::Audit] {
        for _ in 0..10 {
            outbox.push(class, &[class as u8; 1000]).unwrap();
        }
    }
    for _ in 0..20 {
        outbox.push(Class::Heal, &[7; 1000]).unwrap();
    }
    assert_eq!(outbox.dropped(Class::Telemetry).events, 10);
    assert!(outbox.dropped(Class::Audit).events > 0);
    assert_eq!(outbox.dropped(Class::Heal).events, 0);
    let low = outbox.push(Class::Telemetry, &[1; 1000]).unwrap();
    assert_eq!(
        outbox.dropped(Class::Telemetry).events,
        11,
        "nothing lower to drop"
    );
    let first = Gap {
        first: EventSeq(11),
        last: EventSeq(20 + outbox.dropped(Class::Audit).events),
    };
    assert_eq!(
        outbox.gaps(),
        [
            first,
            Gap {
                first: low,
                last: low
            }
        ]
    );
    let before = sent(&mut outbox);
    assert_eq!(
        before.iter().filter(|i| matches!(i, Item::Gap(_))).count(),
        2
    );
    outbox.close().unwrap();
    let mut outbox = open(dir.path());
    assert_eq!(sent(&mut outbox), before);
    assert_eq!(outbox.dropped(Class::Telemetry).events, 11);
}

#[test]
fn disk_use_stays_bounded_and_live_records_survive_it() {
    let dir = scratch();
    let mut outbox = open(dir.path());
    outbox.append(3, b"before any checkpoint").unwrap();
    outbox.append(5, b"old").unwrap();
    outbox.checkpoint(5, b"ledger").unwrap();
    outbox.append(5, b"spent 3").unwrap();
    let keep = outbox.push(Class::Heal, b"not acknowledged").unwrap();
    for i in 0..4000u32 {
        outbox
            .push(Class::Telemetry, &i.to_le_bytes().repeat(20))
            .unwrap();
        if i % 50 == 0 {
            outbox.sync().unwrap();
            assert!(used(dir.path()) <= SMALL.limits.total_bytes);
        }
        if i % 1000 == 999 {
            drop(outbox);
            outbox = open(dir.path());
        }
    }
    let mut read = Vec::new();
    outbox
        .records(3, |_, c, p| read.push((c, p.to_vec())))
        .unwrap();
    outbox
        .records(5, |_, c, p| read.push((c, p.to_vec())))
        .unwrap();
    let expected: [(bool, &[u8]); 3] = [
        (false, b"before any checkpoint"),
        (true, b"ledger"),
        (false, b"spent 3"),
    ];
    assert!(read.iter().map(|(c, p)| (*c, p.as_slice())).eq(expected));
    let first = outbox.next_unacked(EventSeq(0), 1).unwrap().remove(0);
    assert!(matches!(first, Item::Event { seq, .. } if seq == keep));
}

#[test]
fn a_kind_that_is_never_checkpointed_is_refused_in_the_end() {
    let dir = scratch();
    let mut outbox = open(dir.path());
    let refused = loop {
        if let Err(e) = outbox.append(1, &[0; 900]) {
            break e;
        }
    };
    assert!(matches!(refused, Error::Quota { .. }));
    outbox.checkpoint(1, b"sum").unwrap();
    outbox.append(1, &[0; 900]).unwrap();
    assert!(matches!(
        outbox.append(KINDS_MAX, b""),
        Err(Error::ReservedKind(_))
    ));
}

#[test]
fn a_number_that_was_seen_outside_is_never_given_to_another_event() {
    let dir = scratch();
    let mut seen = BTreeSet::new();
    for round in 0..5u8 {
        let mut outbox = open(dir.path());
        for _ in 0..3 {
            outbox.push(Class::Audit, &[round]).unwrap();
        }
        for item in outbox.next_unacked(EventSeq(0), 1 << 20).unwrap() {
            match item {
                Item::Event { seq, record, .. } => {
                    if record == [round] {
                        assert!(seen.insert(seq), "{seq:?}");
                    }
                }
                Item::Gap(gap) => panic!("{gap:?}"),
            }
        }
        // These nobody saw; the power fails, and they are gone.
        for _ in 0..4 {
            outbox.push(Class::Audit, &[round]).unwrap();
        }
        let kept = newest_segment(dir.path());
        let synced = std::fs::read(&kept).unwrap();
        let end = synced.iter().rposition(|&b| b != 0).unwrap();
        drop(outbox);
        let mut bytes = std::fs::read(&kept).unwrap();
        // The last frame begins in the last sector that holds anything.
        bytes[end / 512 * 512..].fill(0);
        std::fs::write(&kept, bytes).unwrap();
    }
    assert_eq!(seen.len(), 15);
}

fn newest_segment(dir: &Path) -> std::path::PathBuf {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .max()
        .unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize, usize),
    Ack(u64),
    Sync,
    Kill,
    Close,
    Checkpoint(u8),
    Append(u8, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..6usize, 0..1500usize).prop_map(|(c, l)| Step::Push(c, l)),
        2 => (0..40u64).prop_map(Step::Ack),
        2 => Just(Step::Sync),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        1 => (0..3u8).prop_map(Step::Checkpoint),
        1 => (0..3u8, 0..300usize).prop_map(|(k, l)| Step::Append(k, l)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
    #[test]
    fn nothing_is_lost_but_what_was_counted(steps in prop::collection::vec(step(), 1..150)) {
        let dir = scratch();
        let mut outbox = open(dir.path());
        let mut model: BTreeMap<u64, (Class, Vec<u8>)> = BTreeMap::new();
        let mut records: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
        let mut acked = 0;
        // Counts since the last sync go with a kill.
        let mut uncounted = 0;
        for (i, step) in (0u8..).zip(steps) {
            match step {
                Step::Push(class, len) => {
                    let (class, record) = (Class::ALL[class], vec![i; len]);
                    let seq = outbox.push(class, &record).unwrap().0;
                    prop_assert!(model.last_key_value().is_none_or(|(last, _)| *last < seq));
                    model.insert(seq, (class, record));
                }
                Step::Ack(more) => {
                    let highest = model.last_key_value().map_or(0, |(s, _)| *s);
                    acked = acked.max((acked + more).min(highest));
                    outbox.acked(EventSeq(acked));
                }
                Step::Sync => outbox.sync().unwrap(),
                Step::Kill | Step::Close => {
                    let before = dropped(&outbox);
                    if matches!(step, Step::Close) {
                        outbox.close().unwrap();
                    } else {
                        drop(outbox);
                    }
                    outbox = open(dir.path());
                    uncounted += before.saturating_sub(dropped(&outbox));
                    prop_assert!(outbox.acked_to().0 <= acked);
                    outbox.acked(EventSeq(acked));
                }
                Step::Checkpoint(kind) => {
                    outbox.checkpoint(kind, &[i]).unwrap();
                    records.insert(kind, vec![vec![i]]);
                }
                Step::Append(kind, len) => {
                    if outbox.append(kind, &vec![i; len]).is_ok() {
                        records.entry(kind).or_default().push(vec![i; len]);
                    }
                }
            }
            prop_assert!(used(dir.path()) <= SMALL.limits.total_bytes);
        }
        for (kind, expected) in &records {
            let mut read = Vec::new();
            outbox.records(*kind, |_, _, p| read.push(p.to_vec())).unwrap();
            prop_assert_eq!(&read, expected);
        }
        let mut expected = acked + 1;
        let mut live = 0;
        for item in sent(&mut outbox) {
            match item {
                Item::Event { seq, class, record } => {
                    prop_assert_eq!(seq.0, expected);
                    prop_assert_eq!(model.get(&seq.0), Some(&(class, record)));
                    expected = seq.0 + 1;
                    live += 1;
                }
                Item::Gap(gap) => {
                    prop_assert_eq!(gap.first.0, expected);
                    expected = gap.last.0 + 1;
                }
            }
        }
        let dropped = dropped(&outbox) + uncounted;
        let waiting = model.range(acked + 1..).count() as u64;
        prop_assert!(live <= waiting && waiting - live <= dropped, "{live} {waiting} {dropped}");
    }
}

const WRITER: &str = "HOMEOSTAT_TEST_OUTBOX_WRITER";

/// Rounds of a writer that is killed in the middle; it is this test in a child process.
#[test]
fn a_killed_writer_has_lost_nothing_that_was_taken() {
    if let Some(path) = std::env::var_os(WRITER) {
        let (mut outbox, _) = Outbox::open(Path::new(&path), SMALL).unwrap();
        loop {
            let seq = outbox.push(Class::Heal, &[1; 700]).unwrap().0;
            println!("took {seq}");
            // Far behind, so that files are rewritten all the time.
            outbox.acked(EventSeq(seq.saturating_sub(20)));
        }
    }
    let dir = scratch();
    let mut last = 0;
    for lines in [1usize, 40, 400, 1500, 3] {
        let name = "io::store::outbox::tests::a_killed_writer_has_lost_nothing_that_was_taken";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(WRITER, dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut taken = Vec::new();
        for line in std::io::BufRead::lines(out) {
            if let Some(seq) = line
                .unwrap()
                .rsplit_once("took ")
                .and_then(|(_, s)| s.parse().ok())
            {
                taken.push(seq);
            }
            if taken.len() == lines {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(
            taken.len() >= lines && taken[0] > last,
            "numbers go on after {last}"
        );
        last = taken[taken.len() - 1];
        let mut outbox = open(dir.path());
        let sent = sent(&mut outbox);
        for seq in taken.iter().rev().take(20) {
            let here = |i: &Item| matches!(i, Item::Event { seq: s, .. } if s.0 == *seq);
            assert!(sent.iter().any(here), "{seq} was taken");
        }
        assert!(used(dir.path()) <= SMALL.limits.total_bytes);
    }
}
