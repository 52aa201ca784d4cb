//! Does this process still answer, or is the machine merely busy?
//!
//! A probe is started each period `P` and given up after `T`, but its
//! connection stays open: an answer that comes late still is one. After `K`
//! probes in a row without an answer the process is called hung, unless the
//! gate is closed: under pressure, or when the agent itself was late, silence
//! says nothing about the process. What was measured before the `K`-th miss says
//! nothing about the silence either, so the verdict waits for a look after it. The
//! gate cannot wait for ever: with no sign of life at all for `cap` since the
//! first unanswered probe, it is overruled, after one more look; for a process that is
//! itself kept from running, as it looks, only after `starved_cap`. A process that is
//! deadlocked sleeps: one that waits for a core wants to do something. Time in which the
//! agent itself was held up does not count for `cap`, as it could not hear anybody.
//!
//! ```text
//!            TimedOut           K-th, looked at, gate open
//!   Alive ------------> Suspect ---------------------------> Hung
//!     ^                    | K-th, not looked at or closed     ^
//!     |                    v                                   |
//!     +---- any answer - Waiting -- gate open for `settle` ----+
//!     |                             or `cap` passed            |
//!     +---------------------- any answer ----------------------+
//!
//!   any state -- K answers in a row that are wrong --> Wrong -- right answer --> Alive
//! ```
//!
//! With the gate open a hang is called `(K-1)P + T + U(0, P)` after it began:
//! 100 ms in the middle at 50/25/2. With nothing ever answering it is called
//! within `cap + P` and the time for a look, whatever the gate does; `starved_cap + P` if
//! it is kept from running all the time.
//!
//! Source: the accuracy and completeness of Chandra and Toueg (1996): the gate
//! buys accuracy, the cap keeps completeness. State 0.6 KiB, 10 ns per event.
//! Blind to a process that answers probes and nothing else, and to a hang of
//! more than the probed thread pool; when the agent itself cannot run, nobody is
//! watching.

use core::time::Duration;

use heapless::Deque;

/// Probes whose timeout is awaited at once. Older ones are forgotten, so that a
/// fast prober needs no more memory than a slow one; bounds `T / P`.
pub const OUTSTANDING_MAX: usize = 16;

/// An answer that takes this part of its timeout, or longer, is slow.
const SLOW_PART: u32 = 4;

/// A look this long before a miss still counts as one after it: what is started at
/// about the same time is missed at about the same time, and one look serves all.
pub const LOOK_FRESH: Duration = Duration::from_millis(20);

/// From this share of time in which its most delayed thread waited for a core, a process is
/// kept from running: a deadlocked one waits for none.
const KEPT: f32 = 0.05;

/// An agent that was held up for this part of the cap, or longer, was deaf meanwhile; of
/// shorter stalls, which each busy node has, the gate knows.
const DEAF_PART: u32 = 4;

/// When silence is a hang.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// `P`: a probe is started this often.
    pub period: Duration,
    /// `T`: an answer after this is late.
    pub timeout: Duration,
    /// `K`: unanswered probes in a row.
    pub misses: u8,
    /// `K` for answers that are wrong.
    pub wrongs: u8,
    /// Silence since the first unanswered probe that overrules the gate.
    pub cap: Duration,
    /// The same for a process that wants to run and is kept from it.
    pub starved_cap: Duration,
    /// The gate must have been open this long, so that answers that pressure
    /// held up have time to arrive.
    pub settle: Duration,
    /// The gate is closed above any of these.
    pub pressure_max: Pressure,
}

impl Default for Policy {
    /// 50 ms / 25 ms / 2, with a cap of 1.5 s.
    fn default() -> Self {
        Self {
            period: Duration::from_millis(50),
            timeout: Duration::from_millis(25),
            misses: 2,
            wrongs: 2,
            cap: Duration::from_millis(1500),
            starved_cap: Duration::from_millis(6000),
            settle: Duration::from_millis(100),
            pressure_max: Pressure {
                cpu_psi: 0.3,
                io_psi: 0.3,
                own_lag: Duration::from_millis(15),
                run_delay: 0.2,
                starved: false,
            },
        }
    }
}

impl Policy {
    /// Whether the bounds of the module doc can be kept: at least one miss, a cap
    /// not shorter than the `K` probes need, room for all probes in time.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        #[allow(clippy::cast_possible_truncation)] // 16
        const ROOM: u32 = OUTSTANDING_MAX as u32;
        let last = u32::from(self.misses).saturating_sub(1);
        self.misses > 0
            && self.wrongs > 0
            && self.timeout < self.period.saturating_mul(ROOM)
            && self.starved_cap >= self.cap
            && self.cap
                >= self
                    .period
                    .saturating_mul(last)
                    .saturating_add(self.timeout)
    }
}

/// How much the machine, rather than the process, may be to blame.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Share of time some task waited for a CPU, `0..=1`.
    pub cpu_psi: f32,
    /// Share of time some task waited for IO, `0..=1`.
    pub io_psi: f32,
    /// How late the agent's own timers fire.
    pub own_lag: Duration,
    /// Share of time the watched process was ready and did not run, `0..=1`.
    pub run_delay: f32,
    /// The watched process wants to run, or waits for a disk, and has hardly run:
    /// it is being kept from answering.
    pub starved: bool,
}

impl Pressure {
    /// Whether it is the process itself that is kept from running.
    fn keeps(&self) -> bool {
        self.starved || self.run_delay > KEPT
    }

    /// A reading that is missing (NaN) is not evidence of pressure.
    fn exceeds(&self, max: &Self) -> bool {
        self.cpu_psi > max.cpu_psi
            || self.io_psi > max.io_psi
            || self.own_lag > max.own_lag
            || self.run_delay > max.run_delay
            || (self.starved && !max.starved)
    }
}

/// Names a probe; larger for later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeNo(pub u64);

/// What happened to a probe, or to the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Input {
    /// A probe was started.
    Sent(ProbeNo),
    /// It was answered, in time or late.
    Answered {
        /// Which one.
        probe: ProbeNo,
        /// `false`: bad status, wrong output, or connection refused.
        right: bool,
    },
    /// It was not answered within the timeout.
    TimedOut(ProbeNo),
    /// The pressure was measured.
    Gate(Pressure),
    /// Time passed; due at [`Hang::deadline`].
    Tick,
}

/// What is known of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The last probe that was decided had a right answer (or none was sent yet).
    Alive,
    /// Some probes are unanswered, fewer than `K`.
    Suspect,
    /// `K` are unanswered, but the gate is closed, or nobody has looked since.
    Waiting,
    /// It does not answer.
    Hung {
        /// When the first of the unanswered probes was sent.
        since: Duration,
        /// The cap overruled a closed gate.
        by_cap: bool,
    },
    /// It answers, but wrongly.
    Wrong,
}

/// Watches one life of one process; [`reset`](Hang::reset) it with the process.
///
/// ```
/// # use homeostat_detect::hang::{Hang, Input, Policy, ProbeNo, Verdict};
/// # use core::time::Duration;
/// # use homeostat_detect::hang::Pressure;
/// let ms = Duration::from_millis;
/// let mut hang = Hang::new(Policy::default());
/// for (at, input) in [
///     (0, Input::Sent(ProbeNo(1))),
///     (2, Input::Answered { probe: ProbeNo(1), right: true }),
///     (50, Input::Sent(ProbeNo(2))), // hangs here
///     (75, Input::TimedOut(ProbeNo(2))),
///     (100, Input::Sent(ProbeNo(3))),
/// ] {
///     hang.absorb(ms(at), input);
/// }
/// assert_eq!(hang.absorb(ms(125), Input::TimedOut(ProbeNo(3))), Verdict::Waiting);
/// let verdict = hang.absorb(ms(125), Input::Gate(Pressure::default())); // all is calm
/// assert_eq!(verdict, Verdict::Hung { since: ms(50), by_cap: false });
/// ```
#[derive(Debug, Clone)]
pub struct Hang {
    policy: Policy,
    /// The first and last probe sent in this life.
    own: Option<(ProbeNo, ProbeNo)>,
    /// Sent and not answered, oldest first.
    outstanding: Deque<(ProbeNo, Duration), OUTSTANDING_MAX>,
    /// Timed out since the last sign of life.
    misses: u8,
    /// When the first of those was sent.
    silent_since: Option<Duration>,
    /// When the last of those timed out.
    missed_at: Option<Duration>,
    /// When the `K`-th of those timed out.
    due_at: Option<Duration>,
    /// When the last silence ended.
    spoke_at: Option<Duration>,
    /// When the newest of the answered probes was sent.
    answered_sent: Option<Duration>,
    /// Wrong answers since the last right one.
    wrongs: u8,
    /// Only probes after this one count: it, or a later one, was the last sign of life.
    alive_at: Option<Duration>,
    gate: Gate,
    /// The last look at the pressure: when, and what was seen.
    look: Option<(Duration, Pressure)>,
    /// When a look first found that it is kept from running no more.
    let_go_at: Option<Duration>,
    /// For how long of the present silence the agent itself was held up.
    deaf: Duration,
    /// When the cap was found to have passed.
    capped_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Gate {
    /// Closed by the last reading.
    Closed,
    /// Closed until `since`; open once that is `settle` ago.
    Settling { since: Duration },
    /// Never closed so far.
    Open,
}

impl Hang {
    /// A detector that has seen nothing yet; the gate counts as open, because a
    /// kernel without pressure readings must not hide hangs.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            own: None,
            outstanding: Deque::new(),
            misses: 0,
            silent_since: None,
            missed_at: None,
            due_at: None,
            spoke_at: None,
            answered_sent: None,
            wrongs: 0,
            alive_at: None,
            gate: Gate::Open,
            look: None,
            let_go_at: None,
            deaf: Duration::ZERO,
            capped_at: None,
        }
    }

    /// Forgets the probes: the process was started anew. The gate stays, it is the machine's.
    pub fn reset(&mut self) {
        *self = Self {
            gate: self.gate,
            ..Self::new(self.policy)
        };
    }

    /// Takes what happened at `now`, and judges.
    pub fn absorb(&mut self, now: Duration, input: Input) -> Verdict {
        match input {
            Input::Sent(probe) => self.sent(now, probe),
            Input::Answered { probe, right } => self.answered(now, probe, right),
            Input::TimedOut(probe) => self.timed_out(now, probe),
            Input::Gate(pressure) => self.measured(now, &pressure),
            Input::Tick => self.ticked(now),
        }
        self.verdict(now)
    }

    /// The verdict at `now`.
    #[must_use]
    pub fn verdict(&self, now: Duration) -> Verdict {
        let Some(since) = self.silent_since else {
            return if self.wrongs >= self.policy.wrongs {
                Verdict::Wrong
            } else {
                Verdict::Alive
            };
        };
        if self.misses < self.policy.misses {
            // Silence now and then does not clear a process that answers wrongly.
            return if self.wrongs >= self.policy.wrongs {
                Verdict::Wrong
            } else {
                Verdict::Suspect
            };
        }
        let open = self.looked()
            && match self.gate {
                Gate::Closed => false,
                Gate::Settling { since } => now.saturating_sub(since) >= self.policy.settle,
                Gate::Open => true,
            };
        let capped = now >= self.capped_at(since);
        if open || capped {
            Verdict::Hung {
                since,
                by_cap: !open,
            }
        } else {
            Verdict::Waiting
        }
    }

    /// When to send [`Input::Tick`], if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let since = self.silent_since?;
        if self.misses < self.policy.misses {
            return None;
        }
        let mut cap = self.cap_at(since);
        // One more look is asked for first.
        if self.capped_at.is_some_and(|at| at >= cap) {
            cap = self.capped_at(since);
        }
        if !self.looked() {
            return Some(cap);
        }
        Some(match self.gate {
            Gate::Closed => cap,
            Gate::Settling { since } => cap.min(since.saturating_add(self.policy.settle)),
            Gate::Open => since,
        })
    }

    /// Whether a look is wanted: a probe was missed since the last one, or the cap has
    /// passed.
    #[must_use]
    pub fn wants_look(&self) -> bool {
        let Some(missed) = self.missed_at else {
            return false;
        };
        let due = self.capped_at.map_or(missed, |capped| capped.max(missed));
        self.look.is_none_or(|(at, _)| at < due)
    }

    /// When the present silence began; `None` while there is none.
    #[must_use]
    pub fn silent_since(&self) -> Option<Duration> {
        self.silent_since
    }

    /// When the `K`-th probe of the present silence was missed.
    #[must_use]
    pub fn due_at(&self) -> Option<Duration> {
        self.due_at
    }

    /// When the last silence ended, or the last answer came that was slow, if there
    /// was one in this life.
    #[must_use]
    pub fn spoke_at(&self) -> Option<Duration> {
        self.spoke_at
    }

    /// Whether a probe that was sent at `since` or later was answered.
    #[must_use]
    pub fn answered_since(&self, since: Duration) -> bool {
        self.answered_sent.is_some_and(|sent| sent >= since)
    }

    /// Whether a probe is under way.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Probes missed since the last sign of life, and what was seen when the pressure
    /// was last looked at, and when.
    #[must_use]
    pub fn evidence(&self) -> (u8, Option<(Duration, Pressure)>) {
        (self.misses, self.look)
    }

    /// Whether somebody has looked since the `K`-th miss.
    fn looked(&self) -> bool {
        let Some(due) = self.due_at else {
            return false;
        };
        self.look
            .is_some_and(|(at, _)| at.saturating_add(LOOK_FRESH) >= due)
    }

    /// When silence since `since` has lasted long enough to overrule the gate. One that was
    /// kept from running is given `settle` once it is let go: what it was asked meanwhile it
    /// can answer now.
    fn cap_at(&self, since: Duration) -> Duration {
        let last = since.saturating_add(self.policy.starved_cap);
        if self.look.is_some_and(|(_, pressure)| pressure.keeps()) {
            return last;
        }
        let settled = self
            .let_go_at
            .map(|at| at.saturating_add(self.policy.settle));
        let cap = since
            .saturating_add(self.policy.cap)
            .saturating_add(self.deaf);
        settled.map_or(cap, |settled| cap.max(settled)).min(last)
    }

    /// When it does overrule it: once somebody has looked by then, who is waited for no
    /// longer than `settle`.
    fn capped_at(&self, since: Duration) -> Duration {
        let cap = self.cap_at(since);
        let looked = |at: Duration| at.saturating_add(LOOK_FRESH) >= cap;
        if self.look.is_some_and(|(at, _)| looked(at)) {
            return cap;
        }
        let last = since.saturating_add(self.policy.starved_cap);
        cap.saturating_add(self.policy.settle).min(last)
    }

    fn ticked(&mut self, now: Duration) {
        let Some(since) = self.silent_since else {
            return;
        };
        let cap = self.cap_at(since);
        let asked = self.capped_at.is_some_and(|at| at >= cap);
        if self.misses >= self.policy.misses && now >= cap && !asked {
            self.capped_at = Some(now);
        }
    }

    fn sent(&mut self, now: Duration, probe: ProbeNo) {
        let first = self.own.map_or(probe, |(first, _)| first);
        self.own = Some((first, probe));
        if self.outstanding.is_full() {
            self.outstanding.pop_front();
        }
        // Cannot fail: there is room now.
        let _ = self.outstanding.push_back((probe, now));
    }

    fn answered(&mut self, now: Duration, probe: ProbeNo, right: bool) {
        // An answer to a probe of a former life is not ours. One of this life that
        // was crowded out of `outstanding` is a sign of life all the same.
        if !self
            .own
            .is_some_and(|(first, last)| (first..=last).contains(&probe))
        {
            return;
        }
        // With this answer in hand, one to an earlier probe would prove nothing new.
        while let Some((no, sent)) = self.outstanding.front().copied()
            && no <= probe
        {
            self.outstanding.pop_front();
            if no == probe {
                self.answered_sent = self.answered_sent.max(Some(sent));
                // One that took so long may have stood still until now, although
                // nothing was missed.
                if now.saturating_sub(sent) >= self.policy.timeout / SLOW_PART {
                    self.spoke_at = Some(now);
                }
            }
        }
        self.alive_at = Some(now);
        if self.silent_since.take().is_some() {
            self.spoke_at = Some(now);
        }
        self.misses = 0;
        self.missed_at = None;
        self.due_at = None;
        self.deaf = Duration::ZERO;
        self.capped_at = None;
        self.wrongs = if right {
            0
        } else {
            self.wrongs.saturating_add(1)
        };
    }

    fn timed_out(&mut self, now: Duration, probe: ProbeNo) {
        // It stays outstanding: its answer may still come.
        let Some(sent) = self.sent_at(probe) else {
            return;
        };
        let due = sent.saturating_add(self.policy.timeout);
        let lag = now.saturating_sub(due);
        if lag > self.policy.pressure_max.own_lag {
            // The agent was late to look: the answer may wait unread.
            self.close_for_a_moment(now);
        }
        // A probe sent before the last sign of life says nothing of the time after.
        if self.alive_at.is_some_and(|alive| sent <= alive) {
            return;
        }
        self.misses = self.misses.saturating_add(1);
        self.missed_at = Some(now);
        if self.misses >= self.policy.misses {
            self.due_at.get_or_insert(now);
        }
        self.silent_since = Some(self.silent_since.map_or(sent, |since| since.min(sent)));
    }

    fn measured(&mut self, now: Duration, pressure: &Pressure) {
        let was_kept = self.look.is_some_and(|(_, former)| former.keeps());
        if was_kept && !pressure.keeps() {
            self.let_go_at = Some(now);
        }
        if let Some(since) = self.silent_since
            && pressure.own_lag >= self.policy.cap / DEAF_PART
        {
            // Only what no look before has told of.
            let before = self.look.map_or(since, |(at, _)| at.max(since));
            let unheard = pressure.own_lag.min(now.saturating_sub(before));
            self.deaf = self.deaf.saturating_add(unheard);
        }
        self.look = Some((now, *pressure));
        self.gate = match (pressure.exceeds(&self.policy.pressure_max), self.gate) {
            (true, _) => Gate::Closed,
            (false, Gate::Closed) => Gate::Settling { since: now },
            (false, gate @ (Gate::Settling { .. } | Gate::Open)) => gate,
        };
    }

    fn close_for_a_moment(&mut self, now: Duration) {
        match self.gate {
            Gate::Closed => {}
            Gate::Settling { .. } | Gate::Open => self.gate = Gate::Settling { since: now },
        }
    }

    fn sent_at(&self, probe: ProbeNo) -> Option<Duration> {
        let mut found = self.outstanding.iter().filter(|(no, _)| *no == probe);
        found.next().map(|(_, sent)| *sent)
    }
}

#[cfg(test)]
mod tests;
