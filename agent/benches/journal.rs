//! What a record costs: `cargo bench -p homeostat-agent --bench journal`.
//!
//! Plain timing with medians and tails, since one sync in a hundred matters more here than
//! the mean. Set `JOURNAL_BENCH_DIR` to measure another disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use homeostat_agent::io::store::journal::{Journal, Limits};

const PAYLOAD: [u8; 300] = [7; 300];

fn main() {
    let place =
        std::env::var_os("JOURNAL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(place).expect("a writable directory");
    let limits = Limits {
        total_bytes: 1 << 30,
        ..Limits::default()
    };
    let (mut journal, _) = Journal::open(dir.path(), limits).expect("a new journal opens");
    let mut timed = |name: &str, count: usize, each: &mut dyn FnMut(&mut Journal)| {
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                let start = Instant::now();
                each(&mut journal);
                start.elapsed()
            })
            .collect();
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!(
            "{name:<22} median {:>9.1?}  p99 {:>9.1?}  max {:>9.1?}",
            at(50),
            at(99),
            at(100)
        );
    };
    let append = |journal: &mut Journal| {
        journal.append(1, &PAYLOAD).expect("the disk has room");
    };
    timed("append", 50_000, &mut |journal| append(journal));
    timed("append, sync", 1000, &mut |journal| {
        append(journal);
        journal.sync().expect("the disk works");
    });
    timed("16 appends, sync", 500, &mut |journal| {
        (0..16).for_each(|_| append(journal));
        journal.sync().expect("the disk works");
    });
    drop(journal);
    let start = Instant::now();
    let (_, recovered) = Journal::open(dir.path(), limits).expect("it opens again");
    println!(
        "open with {} records: {:.1?}",
        recovered.records,
        start.elapsed()
    );
}
