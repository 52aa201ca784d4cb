//! Many things side by side, with results that do not depend on how many threads there are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use homeostat_sim::episode::Outcome;

use crate::stage::interrupt;

/// Whatever the oracle spends, a policy may restart one thing.
const BUDGET_MIN: f64 = 4.0;

/// What a policy may spend in an episode: so many times what the oracle did; no limit for
/// 0.
pub(super) fn budget(times: f64, oracle: &Outcome) -> Option<f64> {
    (times > 0.0).then(|| (times * oracle.spent).max(BUDGET_MIN))
}

/// So many as were asked for, or else as there are processors.
pub(super) fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        usize::from,
    )
}

/// Does `count` things side by side; results in their order.
pub(super) fn spread<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            interrupt::pause(Duration::ZERO)?;
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(done);
            }
            done.push((at, work(at)?));
        }
    };
    let done: Result<Vec<Vec<(usize, T)>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, count.max(1)))
            .map(|_| scope.spawn(worker))
            .collect();
        let joined = workers.into_iter().map(|worker| {
            worker
                .join()
                .map_err(|_| anyhow!("an episode ended before it was done"))?
        });
        joined.collect()
    });
    let mut done: Vec<(usize, T)> = done?.into_iter().flatten().collect();
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}
