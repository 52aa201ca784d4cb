//! What a line of a log is about, by words that logs of all programs share.
//!
//! In: the text of a line or of its template. Out: a few topics. Nobody learned these words:
//! they are those of operating systems, runtimes and protocols.

/// What a line may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Topic {
    /// Somebody who is called does not answer, or not well.
    Call,
    /// The way to others.
    Link,
    /// Who may do what.
    Access,
    /// Configuration.
    Config,
    /// Disks and files.
    Storage,
    /// Memory.
    Memory,
    /// Processors.
    Compute,
    /// Supply and heat.
    Power,
    /// Processes that begin and end.
    Process,
    /// Data that is not what it was.
    Corrupt,
    /// What a model answers.
    Model,
    /// Who leads, who follows, who holds a lock.
    Order,
    /// Clocks.
    Time,
    /// A limit of a number.
    Limit,
    /// New versions.
    Change,
    /// Anything else.
    Other,
}

/// How many topics there are.
pub(crate) const TOPICS: usize = 16;

impl Topic {
    /// Each at its place.
    pub(crate) const ALL: [Self; TOPICS] = [
        Self::Call,
        Self::Link,
        Self::Access,
        Self::Config,
        Self::Storage,
        Self::Memory,
        Self::Compute,
        Self::Power,
        Self::Process,
        Self::Corrupt,
        Self::Model,
        Self::Order,
        Self::Time,
        Self::Limit,
        Self::Change,
        Self::Other,
    ];
}

/// The beginnings of words that tell a topic.
const STEMS: [(Topic, &[&str]); TOPICS - 1] = [
    (
        Topic::Call,
        &[
            "timeout",
            "timed",
            "refused",
            "unreachable",
            "unavailable",
            "upstream",
            "retr",
            "tries",
            "502",
            "503",
            "504",
            "backend",
        ],
    ),
    (
        Topic::Link,
        &[
            "carrier",
            "packet",
            "retransmi",
            "segments",
            "round",
            "interface",
            "link",
            "route",
            "network",
            "dns",
            "reset",
        ],
    ),
    (
        Topic::Access,
        &[
            "credential",
            "expired",
            "unauthor",
            "forbidden",
            "denied",
            "certificate",
            "token",
            "permission",
            "auth",
            "401",
            "403",
            "lock-out",
            "password",
            "login",
        ],
    ),
    (
        Topic::Config,
        &["config", "setting", "option", "parse", "schema", "unknown"],
    ),
    (
        Topic::Storage,
        &[
            "disk",
            "fsync",
            "space",
            "full",
            "read-only",
            "inode",
            "filesystem",
            "volume",
            "folder",
            "enospc",
            "i/o",
            "block",
            "mount",
        ],
    ),
    (
        Topic::Memory,
        &[
            "memory",
            "oom",
            "heap",
            "alloc",
            "collector",
            "gc",
            "swap",
            "page",
        ],
    ),
    (
        Topic::Compute,
        &[
            "processor",
            "cpu",
            "core",
            "throttl",
            "tasks",
            "scheduler",
            "load",
        ],
    ),
    (
        Topic::Power,
        &[
            "supply",
            "voltage",
            "thermal",
            "temperature",
            "zone",
            "battery",
            "power",
        ],
    ),
    (
        Topic::Process,
        &[
            "process", "killed", "signal", "exit", "ended", "panic", "abort", "crash", "started",
            "restart", "watchdog", "progress", "segfault",
        ],
    ),
    (
        Topic::Corrupt,
        &[
            "checksum", "corrupt", "mismatch", "match", "manifest", "digest", "hash", "torn",
        ],
    ),
    (
        Topic::Model,
        &[
            "model",
            "confidence",
            "input",
            "batch",
            "inference",
            "drift",
            "tensor",
            "score",
        ],
    ),
    (
        Topic::Order,
        &[
            "leader",
            "replica",
            "partition",
            "quorum",
            "election",
            "behind",
            "lease",
            "lock",
            "deadlock",
            "seen",
            "duplicate",
        ],
    ),
    (
        Topic::Time,
        &["clock", "future", "skew", "ntp", "timer", "late", "drifted"],
    ),
    (
        Topic::Limit,
        &[
            "quota",
            "limit",
            "too",
            "thread",
            "descriptor",
            "exhaust",
            "budget",
            "pool",
            "queue",
            "overflow",
            "429",
        ],
    ),
    (
        Topic::Change,
        &[
            "roll-out", "rollout", "artefact", "artifact", "version", "deploy", "upgrade",
            "applied", "migrat",
        ],
    ),
];

/// Bytes of a line that are read.
const READ_MAX: usize = 512;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topics(u16);

impl Topics {
    /// Reads a line, or its template; placeholders in `<>` tell nothing.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut found = 0;
        let read = text.as_bytes();
        let read = &read[..read.len().min(READ_MAX)];
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'<');
        for word in read.split(|byte| !inside(byte)) {
            for (topic, stems) in &STEMS {
                let tells = |stem: &&str| {
                    let start = word.get(..stem.len());
                    start.is_some_and(|start| start.eq_ignore_ascii_case(stem.as_bytes()))
                };
                if stems.iter().any(tells) {
                    found |= 1 << *topic as u16;
                }
            }
        }
        if found == 0 {
            found = 1 << Topic::Other as u16;
        }
        Self(found)
    }

    /// Whether a topic is among them.
    #[must_use]
    pub fn has(self, topic: Topic) -> bool {
        self.place(topic as usize)
    }

    pub(crate) fn place(self, topic: usize) -> bool {
        self.0 >> topic & 1 == 1
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self(1 << Topic::Other as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_is_at_its_place() {
        let places = Topic::ALL.map(|topic| topic as usize);
        assert_eq!(places, core::array::from_fn(|at| at));
    }

    #[test]
    fn lines_of_many_programs_are_read() {
        for (line, topic) in [
            ("dial tcp 10.0.0.7:5432: i/o timeout", Topic::Call),
            ("eth0: NO CARRIER", Topic::Link),
            (
                "x509: certificate has expired or is not yet valid",
                Topic::Access,
            ),
            (
                "EXT4-fs (sda1): Remounting filesystem read-only",
                Topic::Storage,
            ),
            ("Out of memory: Killed process 4411 (python)", Topic::Memory),
            (
                "Out of memory: Killed process 4411 (python)",
                Topic::Process,
            ),
            ("accept4: Too many open files", Topic::Limit),
            ("hello", Topic::Other),
            ("", Topic::Other),
        ] {
            assert!(Topics::of(line).has(topic), "{line}");
        }
        assert!(!Topics::of("served <timeout> things").has(Topic::Call));
        assert_eq!(Topics::of(&"x ".repeat(1 << 20)), Topics::default());
    }
}
