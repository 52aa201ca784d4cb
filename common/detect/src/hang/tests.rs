//! The hang verdict against a simulated prober, service and gate.

use super::*;
use proptest::prelude::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const BUSY: Pressure = Pressure {
    cpu_psi: 0.9,
    io_psi: 0.0,
    own_lag: Duration::ZERO,
    run_delay: 0.0,
    starved: false,
};
const IDLE: Pressure = Pressure {
    cpu_psi: 0.0,
    ..BUSY
};

/// A prober and its service: each millisecond what is due happens, in the
/// order answer, timeout, probe.
struct Sim {
    hang: Hang,
    now: u64,
    next: u64,
    phase: u64,
    /// Sent, and when it will be answered, and whether rightly.
    flying: std::vec::Vec<(ProbeNo, u64, Option<u64>, bool)>,
    /// What a look sees.
    pressure: Pressure,
    /// Whether anybody looks after a miss.
    looks: bool,
}

impl Sim {
    fn new(phase: u64) -> Self {
        let policy = Policy::default();
        assert!(policy.is_sound());
        Self {
            hang: Hang::new(policy),
            now: 0,
            next: 1,
            phase,
            flying: std::vec::Vec::new(),
            pressure: IDLE,
            looks: true,
        }
    }

    /// One millisecond; a probe sent in it is answered after `latency`.
    /// `Some(when)` when a right answer came.
    fn step(&mut self, latency: Option<u64>, right: bool) -> (Verdict, bool) {
        self.now += 1;
        let (now, mut lived) = (self.now, false);
        for (probe, _, due, right) in self.flying.clone() {
            if due == Some(now) {
                self.hang.absorb(ms(now), Input::Answered { probe, right });
                lived = true;
            }
        }
        self.flying
            .retain(|(_, _, due, _)| due.is_none_or(|due| due > now));
        for (probe, sent, _, _) in self.flying.clone() {
            if now == sent + 25 {
                self.hang.absorb(ms(now), Input::TimedOut(probe));
            }
        }
        if self.looks && self.hang.wants_look() {
            self.gate(self.pressure);
        }
        if now % 50 == self.phase {
            let probe = ProbeNo(self.next);
            self.next += 1;
            self.hang.absorb(ms(now), Input::Sent(probe));
            self.flying
                .push((probe, now, latency.map(|l| now + l.max(1)), right));
        }
        (self.hang.absorb(ms(now), Input::Tick), lived)
    }

    fn gate(&mut self, pressure: Pressure) {
        self.pressure = pressure;
        self.hang.absorb(ms(self.now), Input::Gate(pressure));
    }
}

fn hung(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Hung { .. })
}

#[test]
fn with_the_gate_open_the_delay_is_the_formula_and_nothing_more() {
    let mut sum = 0;
    for phase in 0..50 {
        let mut sim = Sim::new(phase);
        while sim.now < 1000 {
            let alive = sim.step(Some(2), true).0;
            assert!(!hung(alive), "{alive:?}");
        }
        while !hung(sim.step(None, true).0) {}
        let first_probe = (1..).find(|ahead| (1000 + ahead) % 50 == phase).unwrap();
        assert_eq!(sim.now - 1000, first_probe + 50 + 25, "phase {phase}");
        sum += sim.now - 1000;
    }
    assert_eq!(sum / 50, 100); // 75 + the mean of 1..=50
}

#[test]
fn behind_a_closed_gate_a_late_answer_is_life_and_the_verdict_waits_for_it() {
    let mut sim = Sim::new(0);
    sim.gate(BUSY);
    for _ in 0..20_000 {
        // Every answer 1.2 s late: never in time, but always within the cap.
        let verdict = sim.step(Some(1200), true).0;
        assert!(!hung(verdict), "{verdict:?} at {}", sim.now);
    }
    assert_eq!(sim.hang.misses, 0); // a late answer each 50 ms forgives them all
}

#[test]
fn the_cap_overrules_a_gate_that_stays_closed() {
    let mut sim = Sim::new(0);
    sim.gate(BUSY);
    while !hung(sim.step(None, true).0) {
        assert!(sim.now < 3000);
    }
    // And the time for one more look.
    assert_eq!(sim.now, 50 + 1500 + 1);
    let verdict = sim.hang.verdict(ms(sim.now));
    assert_eq!(
        verdict,
        Verdict::Hung {
            since: ms(50),
            by_cap: true
        }
    );
    assert_eq!(sim.hang.deadline(), Some(ms(1550)));
}

#[test]
fn a_gate_that_opens_leaves_time_for_answers_that_were_held_up() {
    let mut sim = Sim::new(0);
    sim.gate(BUSY);
    while sim.now < 500 {
        sim.step(None, true);
    }
    sim.gate(IDLE);
    assert_eq!(sim.hang.verdict(ms(500)), Verdict::Waiting);
    assert_eq!(sim.hang.deadline(), Some(ms(600)));
    assert_eq!(sim.hang.verdict(ms(599)), Verdict::Waiting);
    assert!(hung(sim.hang.verdict(ms(600))));
    let late = Input::Answered {
        probe: ProbeNo(3),
        right: true,
    };
    assert_eq!(sim.hang.absorb(ms(600), late), Verdict::Alive);
}

#[test]
fn an_agent_that_overslept_does_not_believe_its_own_timeouts() {
    let mut hang = Hang::new(Policy::default());
    hang.absorb(ms(0), Input::Sent(ProbeNo(1)));
    hang.absorb(ms(25), Input::TimedOut(ProbeNo(1)));
    hang.absorb(ms(50), Input::Sent(ProbeNo(2)));
    // Stopped for two seconds; no pressure was read in between.
    let verdict = hang.absorb(ms(2050), Input::TimedOut(ProbeNo(2)));
    assert!(!matches!(verdict, Verdict::Hung { by_cap: false, .. }));
    let answer = Input::Answered {
        probe: ProbeNo(2),
        right: true,
    };
    assert_eq!(hang.absorb(ms(2051), answer), Verdict::Alive);
}

#[test]
fn wrong_answers_are_wrong_and_silence_between_them_does_not_clear_them() {
    let mut sim = Sim::new(0);
    while sim.step(Some(2), false).0 != Verdict::Wrong {
        assert!(sim.now < 200);
    }
    assert_eq!(sim.now, 102); // probes at 50 and 100, answered after 2
    let mut hang = sim.hang;
    hang.absorb(ms(150), Input::Sent(ProbeNo(3)));
    assert_eq!(
        hang.absorb(ms(175), Input::TimedOut(ProbeNo(3))),
        Verdict::Wrong
    );
    hang.absorb(ms(200), Input::Sent(ProbeNo(4)));
    hang.absorb(ms(225), Input::TimedOut(ProbeNo(4)));
    assert!(hung(hang.absorb(ms(225), Input::Gate(IDLE))));
    let answer = Input::Answered {
        probe: ProbeNo(4),
        right: true,
    };
    assert_eq!(hang.absorb(ms(230), answer), Verdict::Alive);
}

#[test]
fn the_answers_of_a_former_life_are_not_ours() {
    let mut hang = Hang::new(Policy::default());
    hang.absorb(ms(0), Input::Sent(ProbeNo(1)));
    hang.reset();
    hang.absorb(ms(10), Input::Sent(ProbeNo(2)));
    hang.absorb(ms(35), Input::TimedOut(ProbeNo(2)));
    hang.absorb(ms(60), Input::Sent(ProbeNo(3)));
    hang.absorb(
        ms(61),
        Input::Answered {
            probe: ProbeNo(1),
            right: true,
        },
    );
    hang.absorb(ms(62), Input::TimedOut(ProbeNo(1)));
    assert_eq!(hang.verdict(ms(62)), Verdict::Suspect);
    hang.absorb(ms(85), Input::TimedOut(ProbeNo(3)));
    assert!(hung(hang.absorb(ms(85), Input::Gate(IDLE))));
}

#[test]
fn what_was_measured_before_the_silence_is_no_verdict_on_it() {
    let mut sim = Sim::new(0);
    sim.looks = false;
    while sim.now < 1000 {
        sim.step(Some(2), true);
    }
    // All was calm, 50 ms before the first probe that nobody answers.
    sim.gate(IDLE);
    while sim.now < 1150 {
        assert!(!hung(sim.step(None, true).0), "at {}", sim.now);
    }
    assert!(sim.hang.wants_look());
    // The look finds that everybody waits for a core.
    sim.gate(BUSY);
    assert_eq!(sim.hang.verdict(ms(sim.now)), Verdict::Waiting);
    // Without any look at all the cap still holds, a moment later.
    let mut sim = Sim::new(0);
    sim.looks = false;
    while !hung(sim.step(None, true).0) {
        assert!(sim.now < 3000);
    }
    assert_eq!(sim.now, 50 + 1500 + 100, "a look is not waited for longer");
}

#[test]
fn one_that_is_kept_from_running_outlasts_the_cap_and_is_heard_once_let_go() {
    let starved = Pressure {
        starved: true,
        ..IDLE
    };
    let mut sim = Sim::new(0);
    sim.gate(starved);
    while sim.now < 4000 {
        assert!(!hung(sim.step(None, true).0), "at {}", sim.now);
    }
    // It gets its core, and its answers are on their way.
    sim.gate(IDLE);
    for _ in 0..99 {
        assert!(!hung(sim.step(None, true).0), "at {}", sim.now);
    }
    let late = Input::Answered {
        probe: ProbeNo(7),
        right: true,
    };
    assert_eq!(sim.hang.clone().absorb(ms(sim.now), late), Verdict::Alive);
    // They do not come after all.
    assert!(hung(sim.step(None, true).0), "at {}", sim.now);

    let mut sim = Sim::new(0);
    sim.gate(starved);
    while !hung(sim.step(None, true).0) {
        assert!(sim.now < 10_000);
    }
    assert_eq!(sim.now, 50 + 6000, "not for ever");
}

#[test]
fn one_that_gets_a_turn_now_and_then_is_waited_for_like_one_that_gets_none() {
    let crowded = Pressure {
        run_delay: 0.19,
        ..BUSY
    };
    let mut sim = Sim::new(0);
    sim.gate(crowded);
    while sim.now < 4000 {
        assert!(!hung(sim.step(None, true).0), "at {}", sim.now);
    }
    while !hung(sim.step(None, true).0) {
        assert!(sim.now < 10_000);
    }
    assert_eq!(sim.now, 50 + 6000, "not for ever");
}

#[test]
fn the_gate_is_overruled_by_what_is_seen_then_and_not_by_what_was_seen_before() {
    // One probe a second: looks are as far apart.
    let policy = Policy {
        period: ms(1000),
        timeout: ms(500),
        cap: ms(2000),
        starved_cap: ms(8000),
        ..Policy::default()
    };
    let asked = || {
        let mut hang = Hang::new(policy);
        hang.absorb(ms(0), Input::Sent(ProbeNo(1)));
        hang.absorb(ms(500), Input::TimedOut(ProbeNo(1)));
        hang.absorb(ms(1000), Input::Sent(ProbeNo(2)));
        hang.absorb(ms(1500), Input::TimedOut(ProbeNo(2)));
        hang.absorb(ms(1500), Input::Gate(BUSY));
        assert!(!hang.wants_look());
        assert_eq!(hang.deadline(), Some(ms(2000)));
        assert_eq!(hang.absorb(ms(2000), Input::Tick), Verdict::Waiting);
        assert!(hang.wants_look());
        hang
    };
    let crowded = Pressure {
        run_delay: 0.1,
        ..BUSY
    };
    let verdict = asked().absorb(ms(2001), Input::Gate(crowded));
    assert_eq!(verdict, Verdict::Waiting, "it waits for a core");
    assert!(hung(asked().absorb(ms(2001), Input::Gate(BUSY))));
    // Nobody looks.
    let mut hang = asked();
    assert_eq!(hang.deadline(), Some(ms(2100)));
    assert!(hung(hang.absorb(ms(2100), Input::Tick)));
}

#[test]
fn what_the_agent_could_not_hear_is_no_silence() {
    let late = Pressure {
        own_lag: ms(800),
        ..BUSY
    };
    let mut sim = Sim::new(0);
    while sim.now < 200 {
        sim.gate(BUSY);
        sim.step(None, true);
    }
    // Held up from 200 to 1000; each look tells of it for a while.
    sim.now = 1000;
    while sim.now < 1200 {
        sim.gate(late);
        sim.step(None, true);
    }
    sim.gate(BUSY);
    while !hung(sim.step(None, true).0) {
        assert!(sim.now < 10_000);
    }
    assert!(
        (2500..2700).contains(&sim.now),
        "1500 of hearing, at {}",
        sim.now
    );
}

#[test]
fn it_is_known_what_was_asked_and_answered_since_a_moment() {
    let mut hang = Hang::new(Policy::default());
    hang.absorb(ms(0), Input::Sent(ProbeNo(1)));
    assert!(hang.is_asked());
    let answer = |probe| Input::Answered { probe, right: true };
    hang.absorb(ms(5), answer(ProbeNo(1)));
    // It was sent before, so it says nothing of the time after.
    assert!(hang.answered_since(ms(0)) && !hang.answered_since(ms(1)));
    assert!(!hang.is_asked());
    assert_eq!((hang.silent_since(), hang.spoke_at()), (None, None));
    hang.absorb(ms(50), Input::Sent(ProbeNo(2)));
    hang.absorb(ms(75), Input::TimedOut(ProbeNo(2)));
    assert_eq!(hang.silent_since(), Some(ms(50)));
    hang.absorb(ms(90), answer(ProbeNo(2)));
    assert_eq!((hang.silent_since(), hang.spoke_at()), (None, Some(ms(90))));
    // Nothing is missed, but who answers so late may have stood still until then.
    hang.absorb(ms(100), Input::Sent(ProbeNo(3)));
    hang.absorb(ms(112), answer(ProbeNo(3)));
    assert_eq!(
        (hang.silent_since(), hang.spoke_at()),
        (None, Some(ms(112)))
    );
}

#[test]
fn a_policy_that_cannot_keep_its_bounds_is_not_sound() {
    let sound = Policy::default();
    for unsound in [
        Policy { misses: 0, ..sound },
        Policy {
            cap: ms(70),
            ..sound
        },
        Policy {
            timeout: ms(900),
            ..sound
        },
        Policy {
            starved_cap: ms(1000),
            ..sound
        },
    ] {
        assert!(!unsound.is_sound(), "{unsound:?}");
    }
}

#[test]
fn missing_pressure_readings_are_not_pressure() {
    let unknown = Pressure {
        cpu_psi: f32::NAN,
        io_psi: f32::NAN,
        run_delay: f32::NAN,
        ..IDLE
    };
    assert!(!unknown.exceeds(&Policy::default().pressure_max));
}

proptest! {
    /// Each entry: for how long, how late answers are (none: never), the gate.
    #[test]
    fn closed_gates_forgive_what_is_answered_and_silence_is_always_called(
        phase in 0_u64..50,
        life in proptest::collection::vec(
            (1_u64..700, proptest::option::of(0_u64..2000), any::<bool>()), 1..12),
        end in proptest::collection::vec(any::<bool>(), 1..8),
    ) {
        let mut sim = Sim::new(phase);
        let mut last_life = 0;
        for (span, latency, closed) in life {
            sim.gate(if closed { BUSY } else { IDLE });
            for _ in 0..span {
                let (verdict, lived) = sim.step(latency, true);
                if lived {
                    last_life = sim.now;
                    prop_assert!(!hung(verdict));
                }
                if closed && hung(verdict) {
                    prop_assert!(sim.now - last_life >= 1500, "{verdict:?} at {}", sim.now);
                }
                if hung(verdict) {
                    // Never on less than K probes of silence, whatever the gate.
                    prop_assert!(sim.now - last_life >= 75);
                }
            }
        }
        // From here nothing answers, and the gate does what it likes.
        sim.flying.iter_mut().for_each(|(_, _, due, _)| *due = None);
        let silent_from = sim.now;
        let mut flip = end.iter().cycle();
        let mut verdict = sim.hang.verdict(ms(sim.now));
        while !hung(verdict) {
            if sim.now.is_multiple_of(97) {
                sim.gate(if *flip.next().unwrap_or(&true) { BUSY } else { IDLE });
            }
            verdict = sim.step(None, true).0;
            // The last one is for a look.
            prop_assert!(sim.now - silent_from <= 1500 + 50 + 1, "{verdict:?}");
        }
    }

    #[test]
    fn any_sequence_of_inputs_is_survived(
        inputs in proptest::collection::vec((0_u64..5, 0_u64..40, 0_u64..100), 0..300)
    ) {
        let mut hang = Hang::new(Policy::default());
        let mut now = 0;
        for (kind, probe, pass) in inputs {
            now += pass;
            let probe = ProbeNo(probe);
            hang.absorb(ms(now), match kind {
                0 => Input::Sent(probe),
                1 => Input::Answered { probe, right: pass % 2 == 0 },
                2 => Input::TimedOut(probe),
                3 => Input::Gate(if pass > 50 { BUSY } else { IDLE }),
                _ => Input::Tick,
            });
            let waits = hang.deadline().is_some();
            prop_assert_eq!(waits, hang.misses >= hang.policy.misses && hang.silent_since.is_some());
        }
    }
}
