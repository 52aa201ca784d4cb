//! A month without the network, with a cold boot each day and no clock that knows the time.

use homeostat_common::units::Millis;
use homeostat_tests::sim::{Fault, NODE, Sim, secs};

const DAY: u64 = 86_400;

/// Days of the run in the tests; `HOMEOSTAT_DAYS=30` asks for the month.
const DAYS: u64 = 6;

/// What the store may take, with all quotas.
const DISK_MAX: u64 = 64 << 20;

/// From this clock to 1970: what a board without a battery begins with.
const NO_CLOCK: i64 = -60 * 366 * 86_400_000;

/// Probes and samples as seldom as they may be, so that a month is short.
fn node() -> String {
    NODE.replace("period = \"100ms\"", "period = \"20s\"")
        .replace("period = \"200ms\"", "period = \"20s\"")
        .replace("timeout = \"50ms\"", "timeout = \"2s\"")
        .replace("timeout = \"100ms\"", "timeout = \"2s\"")
        + "\n[sample]\nperiod = \"20s\"\n[store]\nquota = \"8MiB\"\nballast = \"512KiB\"\n"
}

/// Two or three faults a day, one of them a killed agent now and then, as on a bad node.
fn month(days: u64, seed: u64) -> Sim {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sim = Sim::with(seed, &node()).at(Millis(1), Fault::Link(false));
    for day in 0..days {
        for _ in 0..rng.u32(1..5) {
            // Not within the last hour, so that the boot does not come before the healing.
            let at = secs(day * DAY + rng.u64(600..DAY - 3600));
            let service = ["camera", "infer", "store"][rng.usize(0..3)];
            let fault = match rng.u32(0..12) {
                0..=3 => Fault::Crash(service),
                4..=6 => Fault::Block(service),
                7 => Fault::Stall(service, secs(rng.u64(1..120))),
                8..=9 => Fault::Corrupt("infer"),
                10 => Fault::SpawnerLost(secs(rng.u64(1..60))),
                _ => Fault::AgentKilled(secs(rng.u64(1..30))),
            };
            sim = sim.at(at, fault);
        }
        // In 1970, right, years ahead, or an hour back.
        let wrong = match rng.u32(0..4) {
            0 => NO_CLOCK,
            1 => 0,
            2 => 3 * 366 * 86_400_000,
            _ => -3_600_000,
        };
        let night = secs((day + 1) * DAY - rng.u64(1..1200));
        sim = sim.cold_boot(night, secs(rng.u64(20..200)), wrong);
    }
    sim
}

#[test]
fn days_offline_restore_everything_and_lose_no_event() {
    let days = std::env::var("HOMEOSTAT_DAYS")
        .ok()
        .and_then(|days| days.parse().ok())
        .unwrap_or(DAYS);
    let folder = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let found = month(days, 5)
        .on_disk(folder.path())
        .offline(secs(days * DAY));
    println!("{found:?}");
    assert!(u64::from(found.boots) >= days, "{found:?}");
    assert!(found.plans as u64 > days, "{found:?}");
    assert_eq!(found.findings, Vec::<String>::new());
    // The smallest quota holds a month of a bad node.
    assert_eq!(found.gaps, 0, "{found:?}");
    assert!(found.most_bytes <= DISK_MAX, "{found:?}");
    // Each event is there, but for the aggregates that had not been written yet when an
    // agent ended, which are no events so far.
    let unwritten = found.given.saturating_sub(found.kept);
    assert!(
        found.kept <= found.given && unwritten <= 5 * u64::from(found.boots),
        "{found:?}"
    );
    assert!(unwritten <= found.aggregates, "{found:?}");
    assert_eq!((found.disorder, found.unruly), (0, 0), "{found:?}");
}
