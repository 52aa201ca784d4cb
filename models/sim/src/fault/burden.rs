//! What active faults lay on the things of the world.
//!
//! Each replica, service, node and link has one burden. The engine of faults
//! writes it whole, from the effects that are present, whenever one begins or
//! ends; the tick only reads it. So sums never drift, and a tick costs nothing
//! for faults. What grows with time (a leak, a full disk, a clock) is a rate
//! here; the tick integrates it into the state, which a fresh process, a prune
//! or a set clock puts back.

/// On one replica.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicaBurden {
    /// Factor on the time that one request takes, at least 1.
    pub slow: f64,
    /// Cores burnt besides the work.
    pub spin: f64,
    /// Memory held besides the usual, in MB.
    pub ballast_mb: f64,
    /// Memory taken and not given back, in MB/s.
    pub leak_mb: f64,
    /// Descriptors opened and not closed, per second.
    pub leak_fds: f64,
    /// Threads begun and not ended, per second.
    pub leak_threads: f64,
    /// Share of its answers that are errors.
    pub err: f64,
    /// Quality that its model has lost.
    pub bad: f64,
    /// Holds its port and answers nothing.
    pub stuck: bool,
    /// Ends as soon as it was started.
    pub doomed: bool,
}

impl ReplicaBurden {
    /// Nothing.
    pub const NONE: Self = Self {
        slow: 1.0,
        spin: 0.0,
        ballast_mb: 0.0,
        leak_mb: 0.0,
        leak_fds: 0.0,
        leak_threads: 0.0,
        err: 0.0,
        bad: 0.0,
        stuck: false,
        doomed: false,
    };
}

impl Default for ReplicaBurden {
    fn default() -> Self {
        Self::NONE
    }
}

/// On all of one service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouteBurden {
    /// Factor on what comes from outside.
    pub surge: f64,
    /// Requests that are there twice, as a share of the honest ones.
    pub extra: f64,
    /// Factor on the time that one request takes, at least 1.
    pub slow: f64,
    /// Share of the answers that are errors.
    pub err: f64,
    /// Quality lost per second, because the world has moved on.
    pub drift: f64,
    /// Share of the input that is corrupt.
    pub corrupt: f64,
    /// Share of what a cache should have that it has not.
    pub miss: f64,
}

impl RouteBurden {
    /// Nothing.
    pub const NONE: Self = Self {
        surge: 1.0,
        extra: 0.0,
        slow: 1.0,
        err: 0.0,
        drift: 0.0,
        corrupt: 0.0,
        miss: 0.0,
    };
}

impl Default for RouteBurden {
    fn default() -> Self {
        Self::NONE
    }
}

/// What becomes of what a node tells.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Telemetry {
    /// It is told as it was measured.
    #[default]
    Honest,
    /// It stays what it was when this began.
    Frozen,
    /// It comes this many seconds late.
    Late(f64),
    /// Each number is this many times too large.
    Wrong(f64),
}

/// On one node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeBurden {
    /// Cores that strangers burn.
    pub hog: f64,
    /// Memory that strangers hold, in MB.
    pub hog_mb: f64,
    /// Degrees above the usual ambient.
    pub warm: f64,
    /// The fan stands still.
    pub fan_dead: bool,
    /// Factor on the clock of the processors, at most 1.
    pub freq: f64,
    /// Disk space filled, in MB/s.
    pub fill_mb: f64,
    /// Inodes used, per second.
    pub fill_inodes: f64,
    /// Factor on the time that the disk takes, at least 1.
    pub io: f64,
    /// Its file systems cannot be written.
    pub readonly: bool,
    /// What the wall clock is ahead by, in seconds, at least.
    pub clock_ahead: f64,
    /// What it gains in a second, in seconds.
    pub clock_drift: f64,
    /// What it tells.
    pub telemetry: Telemetry,
    /// Nothing on it runs or starts.
    pub off: bool,
    /// Its agent takes no orders.
    pub deaf: bool,
}

impl NodeBurden {
    /// Nothing.
    pub const NONE: Self = Self {
        hog: 0.0,
        hog_mb: 0.0,
        warm: 0.0,
        fan_dead: false,
        freq: 1.0,
        fill_mb: 0.0,
        fill_inodes: 0.0,
        io: 1.0,
        readonly: false,
        clock_ahead: 0.0,
        clock_drift: 0.0,
        telemetry: Telemetry::Honest,
        off: false,
        deaf: false,
    };
}

impl Default for NodeBurden {
    fn default() -> Self {
        Self::NONE
    }
}

/// On one link.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinkBurden {
    /// Share of the packets that are lost.
    pub loss: f64,
    /// Milliseconds more in each direction.
    pub delay_ms: f64,
    /// Nothing goes through.
    pub down: bool,
}
