//! Lines a second, in processor time of this thread, beside a pass that only cuts the same
//! lines into words.

use std::hint::black_box;

use homeostat_templates::{Limits, Miner};

use super::Set;
use crate::result::Row;
use crate::stats::Estimate;

/// Lines of one measurement, at least. Few in a build that is not optimised: it only runs.
const LINES: usize = if cfg!(debug_assertions) {
    2_000
} else {
    400_000
};

/// Measurements, of which the median, the slowest and the quickest are told.
const ROUNDS: usize = 5;

/// Rates of all sets.
pub(super) fn rows(sets: &[Set]) -> Vec<Row> {
    let mut rows = vec![flood()];
    for set in sets.iter().filter(|set| !set.lines.is_empty()) {
        let passes = LINES.div_ceil(set.lines.len());
        let split = rate(set, passes, || {
            for line in &set.lines {
                black_box(line.split_ascii_whitespace().count());
            }
        });
        let mut miner = Miner::new(Limits::default());
        let ours = rate(set, passes, || {
            for line in &set.lines {
                black_box(miner.line(line.as_bytes()).template);
            }
        });
        let id = format!("loghub.{}.rate", set.name.to_lowercase());
        let what = format!("{}, lines/s of one core", set.name);
        rows.push(
            Row::new(&id, &what, "1/s", ours)
                .higher()
                .against(Some(split.value), "cut at spaces only")
                .goal(1e6),
        );
    }
    rows
}

/// The worst case: each line a template of its own, compared with as many likes as are kept.
fn flood() -> Row {
    let lines: Vec<String> = (0..LINES)
        .map(|at| {
            let word = |salt: usize| {
                let mut number = (at + 1).wrapping_mul(salt) >> 8;
                let mut word = String::new();
                for _ in 0..6 {
                    #[allow(clippy::cast_possible_truncation)] // below 20
                    word.push(char::from(b'g' + (number % 20) as u8));
                    number /= 20;
                }
                word
            };
            let [a, b, c] = [0x9e37_79b9_7f4a, 0xc2b2_ae3d_27d5, 0x1656_67b1_9e37].map(word);
            format!("went {a} and then {b} or rather {c} or not")
        })
        .collect();
    let set = Set {
        name: "flood".to_owned(),
        truth: Vec::new(),
        lines,
    };
    let ours = rate(&set, 1, || {
        let mut miner = Miner::new(Limits::default());
        for line in &set.lines {
            black_box(miner.line(line.as_bytes()).template);
        }
    });
    Row::new(
        "loghub.flood.rate",
        "each line new, lines/s of one core",
        "1/s",
        ours,
    )
    .higher()
}

fn rate(set: &Set, passes: usize, mut pass: impl FnMut()) -> Estimate {
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = cpu();
            for _ in 0..passes {
                pass();
            }
            (passes * set.lines.len()) as f64 / (cpu() - begun).max(1e-9)
        })
        .collect();
    rates.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| rates.get(place).copied().unwrap_or(f64::NAN);
    Estimate {
        value: at(ROUNDS / 2),
        low: at(0),
        high: at(ROUNDS - 1),
        n: passes * set.lines.len(),
    }
}

/// Processor time of this thread, seconds.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
