//! The log lines of the simulated services: templates, who writes which, and
//! how often.
//!
//! A line alone decides nothing: most templates belong to several mechanisms,
//! some are written all day by services that are well, and some look worse than
//! they are. What tells one incident from another is which of them come
//! together, where, and how often.

use std::fmt;
use std::str::FromStr;

use homeostat_common::observation::Level;

use crate::fault::{Mechanism, Place, Step, Unknown};

macro_rules! templates {
    ($($variant:ident = $name:literal, $level:ident, $text:literal;)+) => {
        /// A log line with its variable parts masked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)]
        pub enum Template { $($variant),+ }

        impl Template {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As the grammar of faults names it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// As it stands in a log.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// How bad it says it is.
            #[must_use]
            pub fn level(self) -> Level {
                match self { $(Self::$variant => Level::$level),+ }
            }
        }

        impl FromStr for Template {
            type Err = Unknown;
            fn from_str(text: &str) -> Result<Self, Unknown> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(Unknown {
                        what: "log template",
                        found: text.chars().take(64).collect(),
                        known: concat!($($name, ", "),+, "and no other"),
                    }),
                }
            }
        }
    };
}

templates! {
    // Written all day by services that are well.
    Served = "served", Info, "served <n> requests in the last minute";
    Heartbeat = "heartbeat", Debug, "heartbeat <n> ok";
    CacheStats = "cache-stats", Info, "cache: <n> entries, hit ratio <n>";
    ConfigReread = "config-reread", Info, "configuration read again, nothing changed";
    ConnectionReset = "connection-reset", Warning, "connection reset by peer <addr>";
    DeprecatedField = "deprecated-field", Warning, "field <name> is deprecated and will be ignored";
    RetryOk = "retry-ok", Warning, "call to <service> failed, second try succeeded";
    GcMinor = "gc-minor", Debug, "collector: minor pause <n> ms";
    MetricsFlushed = "metrics-flushed", Debug, "metrics flushed in <n> ms";
    TlsResumed = "tls-resumed", Debug, "session resumed with <addr>";
    PeriodicCompaction = "compaction", Info, "compaction of <n> segments took <n> ms";
    NtpAdjusted = "ntp-adjusted", Info, "clock adjusted by <n> ms";
    CertificateNotice = "certificate-notice", Warning, "certificate is valid for another <n> days";
    ThermalNotice = "thermal-notice", Info, "zone <n>: <n> C";
    RolloutIdle = "rollout-idle", Info, "no artefact waiting for this node";
    // Processes.
    Started = "started", Info, "started, version <v>";
    ExitCode = "exit-code", Error, "process ended with status <n>";
    OomKilled = "oom-killed", Error, "out of memory: killed process <n>";
    Watchdog = "watchdog", Error, "no progress for <n> s";
    ShortLived = "short-lived", Error, "ended <n> ms after it was started";
    // Callers.
    Timeout = "timeout", Error, "call to <service> timed out after <n> ms";
    Refused = "refused", Error, "connection to <service> refused";
    QueueFull = "queue-full", Warning, "queue full, request dropped";
    RetryBudget = "retry-budget", Warning, "retries used up for <service>";
    Backoff = "no-backoff", Warning, "client <addr> repeats without waiting";
    // Memory, processors, descriptors, threads.
    GcPause = "gc-pause", Warning, "collector: full pause <n> ms";
    AllocSlow = "alloc-slow", Warning, "allocation of <n> MB took <n> ms";
    RunQueue = "run-queue", Warning, "<n> tasks wait for a processor";
    TooManyFiles = "too-many-files", Error, "accept: too many open files";
    ThreadSpawn = "thread-spawn", Error, "cannot create thread: resource unavailable";
    Throttled = "throttled", Warning, "processor <n> throttled";
    UnderVoltage = "under-voltage", Warning, "supply below <n> V";
    StrangerBusy = "stranger-busy", Warning, "process <name> of no service uses <n> cores";
    HeapGrowth = "heap-growth", Info, "heap grew to <n> MB, <n> objects of <type>";
    // Disks.
    NoSpace = "no-space", Error, "write: no space left on device";
    NearlyFull = "nearly-full", Warning, "data folder at <n> % of its quota";
    SlowSync = "slow-sync", Warning, "fsync took <n> ms";
    ReadOnly = "read-only", Error, "write: read-only file system";
    // Locks and state.
    LockWait = "lock-wait", Warning, "waiting for lock <path> held by <n>";
    LockStale = "lock-stale", Warning, "lock <path> belongs to no process";
    Unflushed = "unflushed", Warning, "<n> entries in memory are not on the disk yet";
    Checksum = "checksum", Error, "checksum of segment <n> does not match";
    Replaying = "replaying", Info, "replaying <n> entries";
    // Models and data.
    LowConfidence = "low-confidence", Warning, "confidence below <n> for <n> % of the batch";
    InputRange = "input-range", Warning, "input <name> outside of its range";
    ModelLoaded = "model-loaded", Info, "model <v> loaded";
    ModelHash = "model-hash", Error, "model <v> does not match its manifest";
    CacheMismatch = "cache-mismatch", Warning, "cached answer differs from recomputed one";
    // Roll-outs, other automation.
    ArtefactApplied = "artefact-applied", Info, "artefact <v> of roll-out <n> applied";
    FixPending = "fix-pending", Info, "roll-out <n>: fix <v> reaches this node in <n> s";
    OtherActor = "other-actor", Warning, "stopped by request of <name>";
    ConfigParse = "config-parse", Error, "configuration: unknown key <name>";
    // Networks, clocks, credentials.
    LinkRetransmit = "retransmit", Warning, "<n> segments sent again to <addr>";
    LinkSlow = "link-slow", Warning, "round trip to <addr> took <n> ms";
    LinkDown = "link-down", Error, "no carrier on <name>";
    ClockAhead = "clock-ahead", Warning, "message from the future: <n> s";
    AuthExpired = "auth-expired", Error, "credential expired at <time>";
    AuthRefused = "auth-refused", Error, "<service> refused the credential";
    AttemptsLeft = "attempts-left", Warning, "<n> tries left before lock-out";
    QuotaReached = "quota-reached", Warning, "quota of <n> per minute reached";
    LeaderUnknown = "leader-unknown", Error, "no leader known for partition <n>";
    ReplicaLag = "replica-lag", Warning, "replica <n> is <n> entries behind";
    DuplicateKey = "duplicate-key", Warning, "message <n> was seen before";
    UpstreamError = "upstream-error", Error, "<host> answered 503";
    // What makes a neighbour or a standby a trap.
    ReserveLow = "reserve-low", Warning, "memory reserve below <n> MB, further load would be refused";
    StandbyStale = "standby-stale", Warning, "standby: configuration <v> is older than the active one";
    LastCopy = "last-copy", Info, "the only copy of <v> is in <path>";
    AgentLate = "agent-late", Warning, "own timer <n> ms late";
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Template {
    /// Its id: FNV-1a of its text, so that it is the same for ever.
    #[must_use]
    pub fn id(self) -> u64 {
        IDS[self as usize]
    }

    /// The one of an id.
    #[must_use]
    pub fn of_id(id: u64) -> Option<Self> {
        let place = BY_ID.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        BY_ID.get(place).map(|(_, template)| *template)
    }
}

/// Ids by the order of [`Template::ALL`]: hashed once, for a look asks for hundreds.
const IDS: [u64; Template::ALL.len()] = ids();

const fn ids() -> [u64; Template::ALL.len()] {
    let mut ids = [0; Template::ALL.len()];
    let mut at = 0;
    while at < ids.len() {
        let text = Template::ALL[at].text().as_bytes();
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut byte = 0;
        while byte < text.len() {
            hash = (hash ^ text[byte] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            byte += 1;
        }
        ids[at] = hash;
        at += 1;
    }
    ids
}

/// The same, sorted.
const BY_ID: [(u64, Template); Template::ALL.len()] = by_id();

const fn by_id() -> [(u64, Template); Template::ALL.len()] {
    let mut all = [(0, Template::ALL[0]); Template::ALL.len()];
    let mut count = 0;
    while count < all.len() {
        // By insertion: there are some sixty.
        let mut at = count;
        while at > 0 && all[at - 1].0 > IDS[count] {
            all[at] = all[at - 1];
            at -= 1;
        }
        all[at] = (IDS[count], Template::ALL[count]);
        count += 1;
    }
    all
}

/// What each replica that runs writes all day, and how often per second. Some of
/// it looks like trouble and is none.
pub(crate) const DISTRACTORS: &[(Template, f64)] = &[
    (Template::Served, 1.0 / 60.0),
    (Template::Heartbeat, 0.2),
    (Template::CacheStats, 0.03),
    (Template::ConfigReread, 0.01),
    (Template::ConnectionReset, 0.02),
    (Template::DeprecatedField, 0.03),
    (Template::RetryOk, 0.02),
    (Template::GcMinor, 0.1),
    (Template::MetricsFlushed, 0.1),
    (Template::TlsResumed, 0.05),
    (Template::PeriodicCompaction, 0.01),
    (Template::NtpAdjusted, 0.01),
    (Template::CertificateNotice, 0.005),
    (Template::ThermalNotice, 0.02),
    (Template::RolloutIdle, 0.02),
    (Template::GcPause, 0.004),
    (Template::SlowSync, 0.004),
    (Template::LinkRetransmit, 0.01),
    (Template::InputRange, 0.004),
    (Template::Replaying, 0.002),
];

/// What the state of the world makes anybody write, whatever the cause.
#[cfg(test)]
pub(crate) const OF_STATE: [Template; 13] = [
    Template::Started,
    Template::ExitCode,
    Template::OomKilled,
    Template::Refused,
    Template::Timeout,
    Template::RetryBudget,
    Template::GcPause,
    Template::AllocSlow,
    Template::HeapGrowth,
    Template::RunQueue,
    Template::Throttled,
    Template::NoSpace,
    Template::QueueFull,
];

/// Usual rate of the lines that belong to a mechanism, per second.
pub(crate) const CLEAR_RATE: f64 = 0.6;
/// The rate of a fault that shows little.
pub(crate) const GREY_RATE: f64 = 0.12;
/// The rate of the lines that give a coupling away.
pub(crate) const COUPLING_RATE: f64 = 0.15;

/// What a mechanism makes its place write.
pub(crate) fn of_mechanism(mechanism: Mechanism, place: Place) -> &'static [Template] {
    use Mechanism as M;
    use Template as T;
    match mechanism {
        M::Die => match place {
            Place::Broker => &[T::LeaderUnknown, T::Timeout],
            Place::Outside => &[T::UpstreamError, T::Timeout],
            Place::Node | Place::Site | Place::Agent => &[T::Refused, T::Timeout],
            _ => &[T::ExitCode, T::Refused],
        },
        M::Hang => &[T::Watchdog],
        M::Spin => &[T::RunQueue, T::StrangerBusy],
        // A leak looks like a slow collector before it looks like a leak.
        M::LeakMemory => &[T::GcPause, T::AllocSlow, T::HeapGrowth],
        M::LeakDescriptors => &[T::TooManyFiles],
        M::LeakThreads => &[T::ThreadSpawn, T::RunQueue],
        M::LeakDisk => &[T::NearlyFull, T::NoSpace],
        M::LeakInodes => &[T::NoSpace],
        M::Slow => match place {
            Place::Node => &[T::SlowSync, T::Timeout],
            _ => &[T::Timeout],
        },
        M::CorruptConfig => &[T::ConfigParse, T::ShortLived],
        M::CorruptModel => &[T::ModelHash, T::LowConfidence],
        M::CorruptInput => &[T::InputRange, T::LowConfidence],
        M::CorruptCache => &[T::CacheMismatch],
        M::CorruptStore => &[T::Checksum],
        M::RegressBinary => &[T::Started, T::GcPause, T::Timeout],
        M::RegressModel => &[T::ModelLoaded, T::LowConfidence],
        M::Drift => &[T::LowConfidence],
        M::Disconnect => &[T::LinkDown, T::Refused],
        M::Delay => &[T::LinkSlow],
        M::Lose => &[T::LinkRetransmit, T::Timeout],
        M::Skew => &[T::ClockAhead, T::AuthRefused],
        M::DenyCredential => &[T::AuthExpired, T::AuthRefused],
        M::DenyQuota => &[T::QuotaReached],
        M::DenyWrite => &[T::ReadOnly],
        M::Lock => &[T::LockWait, T::RunQueue],
        M::Heat => &[T::Throttled],
        M::BrownOut => &[T::UnderVoltage, T::Throttled],
        M::LieFrozen | M::LieLate | M::LieWrong => &[T::AgentLate],
        M::Duplicate => &[T::DuplicateKey],
        M::Compete => &[T::OtherActor],
        M::Push => &[T::ArtefactApplied],
        M::Surge => &[T::QueueFull],
    }
}

/// What gives away that a step at the place of a fault would bring harm.
pub(crate) fn of_break(on: Step) -> Template {
    match on {
        Step::Restart | Step::Reboot | Step::Freeze => Template::Unflushed,
        Step::Prune => Template::LastCopy,
        Step::Snapshot | Step::Remount => Template::NearlyFull,
        Step::PauseRollout | Step::PutModel | Step::PutConfig | Step::PutBinary | Step::Degrade => {
            Template::FixPending
        }
        Step::LimitRate | Step::LimitCpu | Step::BlockSource | Step::ResetPool => Template::Backoff,
        Step::FailoverBroker | Step::RestoreSnapshot | Step::RestoreCheckpoint => {
            Template::ReplicaLag
        }
        Step::Retrain => Template::InputRange,
        Step::ScaleOut | Step::Prewarm => Template::StandbyStale,
        Step::RotateCredential | Step::SyncClock => Template::AttemptsLeft,
        Step::Flush => Template::UpstreamError,
        Step::ClearLocks => Template::Replaying,
        Step::Isolate | Step::Release | Step::Reroute => Template::ReserveLow,
        Step::SwitchUplink => Template::LinkSlow,
        Step::KillStranger => Template::StrangerBusy,
    }
}

/// What gives away that a step at the place of a fault would be refused.
pub(crate) fn of_hold(step: Step) -> Template {
    match step {
        Step::RotateCredential | Step::SyncClock | Step::FailoverBroker | Step::PutBinary => {
            Template::AttemptsLeft
        }
        Step::ClearLocks => Template::LockWait,
        Step::Remount | Step::Snapshot | Step::PutModel | Step::PutConfig => Template::NoSpace,
        _ => Template::ReserveLow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::places;
    use std::collections::BTreeSet;

    #[test]
    fn names_texts_and_ids_are_each_one_of_a_kind() {
        let all = Template::ALL;
        assert!((55..=80).contains(&all.len()), "{}", all.len());
        let names: BTreeSet<_> = all.iter().map(|t| t.name()).collect();
        let ids: BTreeSet<_> = all.iter().map(|t| t.id()).collect();
        assert_eq!((names.len(), ids.len()), (all.len(), all.len()));
        for template in all {
            assert_eq!(template.name().parse(), Ok(*template));
            assert_eq!(Template::of_id(template.id()), Some(*template));
        }
        // FNV-1a of "heartbeat <n> ok".
        assert_eq!(Template::Heartbeat.id(), HEARTBEAT);
        assert_eq!(Template::of_id(1), None);
    }

    const HEARTBEAT: u64 = 0xbd87_c441_35b4_fffb;

    #[test]
    fn most_lines_of_a_mechanism_are_written_for_other_reasons_too() {
        let lines: Vec<_> = Mechanism::ALL
            .iter()
            .flat_map(|mechanism| places(*mechanism).map(|place| (*mechanism, place)))
            .flat_map(|(mechanism, place)| {
                let own = of_mechanism(mechanism, place).iter();
                own.map(move |template| (mechanism, *template))
            })
            .collect();
        let ambiguous = |(mechanism, template): &&(Mechanism, Template)| {
            let others = lines.iter().any(|(m, t)| m != mechanism && t == template);
            let all_day = DISTRACTORS.iter().any(|(other, _)| other == template);
            others || all_day || OF_STATE.contains(template)
        };
        let shared = lines.iter().filter(ambiguous).count();
        assert!(2 * shared > lines.len(), "{shared} of {}", lines.len());
    }
}
