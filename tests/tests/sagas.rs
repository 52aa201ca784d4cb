//! A plan across three nodes, with somebody killed at each write and at each message,
//! and each message lost, doubled and late.

use homeostat_common::saga::SILENCE;
use homeostat_common::units::Millis;
use homeostat_tests::fleet::{Actor, End, Fate, Fleet, Trouble, Verdict};

/// Seeds in a usual run; `HOMEOSTAT_SAGAS=50` for all of them.
const SEEDS: u64 = 10;

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("HOMEOSTAT_SAGAS").ok();
    0..asked.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

/// How long somebody is away who dies; `None`: for ever.
const AWAY: [Option<Millis>; 4] = [
    Some(Millis(300)),
    Some(Millis(4_000)),
    Some(Millis(25_000)),
    None,
];

/// What the runs came to.
#[derive(Debug, Default)]
struct Tally {
    runs: u32,
    deaths: u32,
    done: u32,
    undone: u32,
    mixed: u32,
    flagged: u32,
}

impl Tally {
    fn run(&mut self, fleet: Fleet) -> Verdict {
        let verdict = fleet.run();
        self.runs += 1;
        self.deaths += verdict.deaths;
        match verdict.end {
            End::Done => self.done += 1,
            End::Undone => self.undone += 1,
            End::Mixed => self.mixed += 1,
        }
        self.flagged += u32::from(verdict.flagged);
        verdict
    }
}

#[test]
fn without_trouble_all_is_done_or_all_is_taken_back() {
    for seed in seeds() {
        let verdict = Fleet::seeded(seed).run();
        let stuck = Fleet::sticks(seed);
        let expected = match (Fleet::fails(seed), stuck) {
            (false, _) => End::Done,
            (true, false) => End::Undone,
            (true, true) => End::Mixed,
        };
        assert_eq!(
            (verdict.end, verdict.flagged),
            (expected, stuck),
            "seed {seed}"
        );
    }
}

#[test]
fn whoever_dies_at_whichever_write_nothing_stays_halfway() {
    let mut tally = Tally::default();
    for seed in seeds() {
        let writes = Fleet::seeded(seed).run().writes;
        for (actor, writes) in Actor::ALL.into_iter().zip(writes) {
            for write in 1..=writes {
                for away in AWAY {
                    let trouble = Trouble::Dies(actor, write, away);
                    let verdict = tally.run(Fleet::seeded(seed).with(trouble));
                    // Who comes back soon leaves nothing for a person.
                    let short = away.is_some_and(|away| away < SILENCE);
                    if short && !Fleet::sticks(seed) {
                        let good = !verdict.flagged && verdict.end != End::Mixed;
                        assert!(good, "seed {seed}, {trouble:?}: {verdict:?}");
                    }
                }
            }
        }
    }
    println!("{tally:?}");
    assert!(
        tally.deaths == tally.runs && tally.runs > 90 * u32::try_from(seeds().end).unwrap_or(0)
    );
    assert!(tally.done > 0 && tally.undone > 0 && tally.flagged > 0);
}

#[test]
fn whatever_becomes_of_whichever_message_nothing_stays_halfway() {
    let fates = [
        Fate::Lost,
        Fate::Twice(Millis(0)),
        Fate::Twice(Millis(700)),
        Fate::Twice(Millis(14_000)),
        Fate::Late(Millis(700)),
        Fate::Late(Millis(14_000)),
        Fate::SenderDies,
        Fate::ReceiverDies,
    ];
    let mut tally = Tally::default();
    for seed in seeds() {
        let messages = Fleet::seeded(seed).run().messages;
        for message in 1..=messages {
            for fate in fates {
                let deadly = matches!(fate, Fate::SenderDies | Fate::ReceiverDies);
                let away = if deadly { &AWAY[..] } else { &[None] };
                for away in away {
                    tally.run(Fleet::seeded(seed).with(Trouble::Message(message, fate, *away)));
                }
            }
        }
    }
    println!("{tally:?}");
    assert!(tally.done > 0 && tally.undone > 0 && tally.deaths > 0);
}

#[test]
fn in_any_noise_with_any_deaths_nothing_stays_halfway() {
    let mut tally = Tally::default();
    for seed in 0..seeds().end * 40 {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5a6a);
        let mut fleet = Fleet::seeded(seed).noisy(rng.f64() * 0.4);
        for _ in 0..rng.u32(0..4) {
            let actor = Actor::ALL[rng.usize(0..4)];
            let back = rng.bool().then(|| Millis(rng.u64(1..30_000)));
            fleet = fleet.with(Trouble::Dies(actor, rng.u32(1..14), back));
        }
        tally.run(fleet);
    }
    println!("{tally:?}");
    assert!(tally.done > 0 && tally.undone > 0 && tally.flagged > 0 && tally.deaths > 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let fleet = Fleet::seeded(7).noisy(0.2);
        let verdict = fleet
            .with(Trouble::Dies(Actor::Initiator, 2, Some(Millis(2000))))
            .run();
        format!("{verdict:?}")
    };
    assert_eq!(run(), run());
}
