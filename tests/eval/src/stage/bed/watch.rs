//! Asks all units each second what they have done.
//!
//! What does not answer is missing from that look; what a unit counted in a former life is
//! kept, so that sums only grow.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Bed;
use crate::stage::api::get;

const PERIOD: Duration = Duration::from_millis(500);
/// Who takes longer does not answer.
const PATIENCE: Duration = Duration::from_millis(150);
/// Looks kept: half an hour.
const LOOKS_MAX: usize = 3600;

/// What a unit says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Counts {
    pub arrived: f64,
    pub passed: f64,
    pub failed: f64,
    pub refused: f64,
    pub lost: f64,
    pub hits: f64,
    pub waiting: f64,
}

/// All units at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Instant,
    /// Sums over the lives of each replica, in the topology's order.
    pub sums: Vec<Counts>,
    /// Whether it answered.
    pub answered: Vec<bool>,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    looks: Mutex<Vec<Look>>,
    stop: AtomicBool,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(bed: &Bed) -> Result<Self> {
        let units: Result<Vec<SocketAddrV4>> = bed
            .topology
            .replicas()
            .iter()
            .map(|replica| bed.port(replica.name.as_str()))
            .collect();
        let units = units?;
        let shared = Arc::new(Shared {
            looks: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("watch".into())
            .spawn(move || watch(&own, &units))
            .context("cannot watch")?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    #[must_use]
    pub fn looks(&self) -> Vec<Look> {
        let looks = self.shared.looks.lock();
        looks.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, units: &[SocketAddrV4]) {
    let mut former = vec![Counts::default(); units.len()];
    let mut last = former.clone();
    while !shared.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        // At once, so that one that is silent delays none of the others.
        let told: BTreeMap<usize, Counts> = thread::scope(|scope| {
            let asked: Vec<_> = units
                .iter()
                .enumerate()
                .map(|(place, unit)| (place, scope.spawn(move || ask(*unit))))
                .collect();
            let told = asked
                .into_iter()
                .map(|(place, one)| (place, one.join().ok().flatten()));
            told.filter_map(|(place, one)| Some((place, one?)))
                .collect()
        });
        for (place, now) in &told {
            if now.arrived < last[*place].arrived {
                former[*place] = sum(&former[*place], &last[*place]);
            }
            last[*place] = *now;
        }
        let sums = former.iter().zip(&last).map(|(one, other)| sum(one, other));
        let look = Look {
            at: begun,
            sums: sums.collect(),
            answered: (0..units.len())
                .map(|place| told.contains_key(&place))
                .collect(),
        };
        let mut looks = shared.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() < LOOKS_MAX {
            looks.push(look);
        }
        drop(looks);
        thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
    }
}

fn ask(unit: SocketAddrV4) -> Option<Counts> {
    let (status, body) = get(unit, "/counts", PATIENCE).ok()?;
    (status == 200)
        .then(|| serde_json::from_str(&body).ok())
        .flatten()
}

/// What waits is only ever that of this life.
fn sum(former: &Counts, now: &Counts) -> Counts {
    Counts {
        arrived: former.arrived + now.arrived,
        passed: former.passed + now.passed,
        failed: former.failed + now.failed,
        refused: former.refused + now.refused,
        lost: former.lost + now.lost,
        hits: former.hits + now.hits,
        waiting: now.waiting,
    }
}
