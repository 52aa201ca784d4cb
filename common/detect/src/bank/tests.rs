use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn normal(rng: &mut fastrand::Rng) -> f32 {
    (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0
}

/// A bank that saw `samples` calm values around 50, one each second.
fn taught(samples: u32, rng: &mut fastrand::Rng) -> Bank {
    let mut bank = Bank::new();
    for at in 0..samples {
        bank.observe(SECOND * at, Some(50.0 + normal(rng)));
    }
    bank
}

#[test]
fn the_state_fits_sixteen_times_into_a_small_device() {
    std::println!("{} B", size_of::<Bank>());
    assert!(size_of::<Bank>() <= 560, "{}", size_of::<Bank>());
}

/// Fault-free sources: what they are called, and their value at a second.
type Source = (&'static str, fn(&mut fastrand::Rng, u32, &mut f32) -> f32);

const SOURCES: [Source; 6] = [
    ("normal", |rng, _, _| 50.0 + normal(rng)),
    ("exponential", |rng, _, _| -libm::logf(1.0 - rng.f32())),
    ("log-normal", |rng, _, _| libm::expf(normal(rng))),
    ("wandering", |rng, _, state| {
        *state = 0.98 * *state + normal(rng);
        100.0 + *state
    }),
    ("counts", |rng, _, _| {
        f32::from(rng.u8(..6)) * f32::from(rng.u8(..3))
    }),
    ("daily", |rng, second, _| {
        let phase = core::f32::consts::TAU * (second % 86_400) as f32 / 86_400.0;
        20.0 + 10.0 * libm::sinf(phase) + normal(rng)
    }),
];

#[test]
fn a_fault_free_metric_rarely_alerts() {
    // Three days at one sample each 10 s: 26 thousand samples of each of 6 x 10 metrics.
    let (mut alerts, mut notices, mut series) = (0_u32, 0_u32, 0_u32);
    for (name, draw) in SOURCES {
        for seed in 0..10 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut bank, mut state): (Bank, f32) = (Bank::new(), 0.0);
            series += 1;
            let mut free = 0;
            for at in 0..25_920_u32 {
                let value = draw(&mut rng, at * 10, &mut state);
                let verdict = bank.observe(SECOND * (at * 10), Some(value));
                if verdict.news >= ALERT {
                    std::println!("{name} {seed}: {:?} at {at}", verdict.strongest);
                    alerts += 1;
                }
                if verdict.score >= NOTICE && at >= free {
                    notices += 1;
                    free = at + u32::from(SETTINGS.hold);
                }
            }
        }
    }
    std::println!("{alerts} alerts, {notices} notices of {series} series of 25,920 samples");
    assert!(alerts <= 2, "{alerts}");
    // Notices come with each doubling of what was seen.
    assert!(notices < 20 * series, "{notices}");
}

#[test]
fn each_kind_of_event_is_told_by_its_member() {
    type Event = fn(&mut fastrand::Rng) -> Option<f32>;
    let events: [(Member, Event); 6] = [
        (Member::High, |rng| Some(90.0 + normal(rng))),
        (Member::Low, |rng| Some(10.0 + normal(rng))),
        (Member::Shift, |rng| Some(51.8 + normal(rng))),
        (Member::Spread, |rng| Some(50.0 + 2.6 * normal(rng))),
        (Member::Frozen, |_| Some(50.0)),
        (Member::Missing, |_| None),
    ];
    for (member, event) in events {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut bank = Bank::<48>::new();
        // Values and gaps repeat now and then, so that runs and silences have a past.
        for at in 0..6000 {
            let value = (50.0 + 4.0 * normal(&mut rng)).round() / 4.0 + 37.5;
            if at % 97 > 1 {
                bank.observe(SECOND * at, Some(value));
            }
        }
        let mut best = (0.0, Member::High);
        let mut told = std::vec::Vec::new();
        for at in 6000..6900 {
            let value = event(&mut rng);
            let verdict = bank.observe(SECOND * at, value);
            if verdict.score > best.0 {
                best = (verdict.score, verdict.strongest);
            }
            if verdict.score >= NOTICE && !told.contains(&verdict.strongest) {
                told.push(verdict.strongest);
            }
        }
        std::println!("{member:?}: {best:?}, told {told:?}");
        assert!(told.contains(&member), "{member:?}: {told:?}");
    }
}

/// How far the season speaks on a ninth day without its work.
fn of_a_day_without_work(mut bank: Bank) -> f32 {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut seasonal = 0.0_f32;
    for minute in 0..9 * 1440 {
        let busy = (540..1080).contains(&(minute % 1440)) && minute / 1440 != 8;
        let value = if busy { 80.0 } else { 20.0 } + normal(&mut rng);
        let verdict = bank.observe(MINUTE * minute, Some(value));
        let noon = minute > 8 * 1440 + 540 && minute < 8 * 1440 + 1080;
        if noon && verdict.strongest == Member::Season {
            seasonal = seasonal.max(verdict.score);
        }
    }
    seasonal
}

#[test]
fn what_the_time_of_day_usually_brings_and_does_not_come_is_told() {
    let told = of_a_day_without_work(Bank::new());
    assert!(told >= NOTICE, "{told}");
    // The first samples had the time of a clock that was not set yet.
    let mut bank = Bank::new();
    for minute in 0..30 {
        bank.observe(MINUTE * (50_000_000 + minute), Some(20.0));
    }
    let told = of_a_day_without_work(bank);
    assert!(told >= NOTICE, "{told}");
}

#[test]
fn an_event_is_told_once_and_a_second_one_like_it_is_usual() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut bank = taught(2000, &mut rng);
    let mut told = |from: u32| {
        let mut news = 0;
        for at in from..from + 30 {
            let verdict = bank.observe(SECOND * at, Some(300.0 + normal(&mut rng)));
            news += u32::from(verdict.news >= ALERT);
        }
        for at in from + 30..from + 1000 {
            bank.observe(SECOND * at, Some(50.0 + normal(&mut rng)));
        }
        news
    };
    assert_eq!((told(2000), told(3000)), (1, 0));
}

#[test]
fn an_incident_that_is_not_learnt_stays_unusual() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut bank = taught(2000, &mut rng);
    bank.learning(false);
    for at in 2000..2500 {
        let verdict = bank.observe(SECOND * at, Some(300.0 + normal(&mut rng)));
        assert!(verdict.score >= ALERT, "{at}: {verdict:?}");
    }
}

#[test]
fn units_do_not_matter() {
    for scale in [1e-9_f32, 1e-3, 1e6, 1e15] {
        let mut rng = fastrand::Rng::with_seed(2);
        let (mut bank, mut scaled): (Bank, Bank) = (Bank::new(), Bank::new());
        for at in 0..3000 {
            let event = if at % 700 == 699 { 30.0 } else { 0.0 };
            let value = 50.0 + event + normal(&mut rng);
            let one = bank.observe(SECOND * at, Some(value));
            let other = scaled.observe(SECOND * at, Some(value * scale));
            assert!((one.score - other.score).abs() < 0.02, "{scale} {at}");
        }
    }
}

#[test]
fn garbage_silence_and_late_samples_leave_the_bank_less_sure() {
    let mut rng = fastrand::Rng::with_seed(9);
    assert!(Bank::<48>::new().observe(SECOND, Some(1.0)).uncertainty > 0.9);
    let bank = taught(3000, &mut rng);
    let sure = |verdict: Verdict| 1.0 - verdict.uncertainty;
    let calm = sure(bank.clone().observe(SECOND * 3000, Some(50.0)));
    assert!(calm > 0.9, "{calm}");
    type Bad = fn(u32) -> (u32, Option<f32>);
    let bad: [(&str, Bad); 5] = [
        ("nan", |at| (at, Some(f32::NAN))),
        ("infinite", |at| (at, Some(f32::NEG_INFINITY))),
        ("none", |at| (at, None)),
        ("late", |at| (at - 2000, Some(50.0))),
        ("doubled", |at| (at - at % 4, Some(50.0))),
    ];
    for (name, sample) in bad {
        let mut bank = bank.clone();
        let mut verdict = None;
        for at in 3000..3007 {
            let (at, value) = sample(at);
            verdict = Some(bank.observe(SECOND * at, value));
        }
        let left = sure(verdict.unwrap());
        assert!(left < calm - 0.15, "{name}: {left}");
        // And it recovers.
        for at in 3010..3200 {
            verdict = Some(bank.observe(SECOND * at, Some(50.0)));
        }
        assert!(sure(verdict.unwrap()) > 0.9, "{name}");
    }
    let after_a_gap = bank.clone().observe(SECOND * 3600, Some(50.0));
    assert!(sure(after_a_gap) < 0.3, "{after_a_gap:?}");
}

#[test]
fn a_clock_that_was_set_back_for_good_is_followed() {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut bank = taught(3000, &mut rng);
    for at in 1000..1020 {
        bank.observe(SECOND * at, Some(50.0 + normal(&mut rng)));
    }
    let verdict = bank.observe(SECOND * 1020, Some(500.0));
    assert!(verdict.score >= ALERT && verdict.strongest != Member::Missing);
}

proptest! {
    /// Whatever comes, at whatever time: no panic, and everything stays within its bounds.
    #[test]
    fn any_input_is_survived(
        samples in prop::collection::vec(
            (any::<u64>(), any::<u32>(), any::<Option<f32>>(), any::<bool>()), 0..400),
        calm in 0_u32..200,
    ) {
        let mut bank: Bank = Bank::new();
        for at in 0..calm {
            bank.observe(SECOND * at, Some((at % 7) as f32));
        }
        for (seconds, nanos, value, learning) in samples {
            bank.learning(learning);
            let at = Duration::new(seconds, nanos % 1_000_000_000);
            let verdict = bank.observe(at, value);
            prop_assert!((0.0..=1.0).contains(&verdict.score));
            prop_assert!(verdict.news == 0.0 || verdict.news == verdict.score);
            prop_assert!((0.0..=1.0).contains(&verdict.uncertainty));
        }
        prop_assert!(bank.level.is_finite() && bank.spread.is_finite());
    }

    /// The same with values and times of ordinary sizes, which reach deeper.
    #[test]
    fn ordinary_input_stays_within_bounds(
        steps in prop::collection::vec((0_u32..10_000, -1e4_f32..1e4), 100..400),
    ) {
        let mut bank: Bank = Bank::new();
        let mut at = Duration::ZERO;
        for (step, value) in steps {
            at += Duration::from_secs(step.into());
            let verdict = bank.observe(at, Some(value));
            prop_assert!((0.0..=1.0).contains(&verdict.score));
            prop_assert!((0.0..=1.0).contains(&verdict.uncertainty));
            prop_assert!(bank.spread >= 0.0 && bank.level.abs() <= 1e4);
        }
    }
}
