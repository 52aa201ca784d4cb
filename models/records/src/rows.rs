//! The three tables of a recording.
//!
//! [`Seen`] is what a healer saw and did at a look: whoever learns a policy reads it alone,
//! and its file has no column that a healer could not have. [`Truth`] is what was hidden,
//! look by look, with what became of the twin in which nobody healed. [`Episode`] says
//! what was run, and what it came to; it holds the texts of incident and topology, so that
//! a recording can be replayed by itself. Rows of the three belong together by `episode`
//! and `look`.
//!
//! Lists of one thing run side by side: the first of `reading_of`, of `reading_metric` and
//! of `reading_value` make one reading. Times are seconds, unless a name says otherwise.

use crate::cell::rows;

rows! {
    /// What a healer saw at one look, and what it decided.
    pub struct Seen = "seen", 1 {
        /// Number of the episode in the recording.
        pub episode: u64,
        /// Number of the look in the episode, from 0.
        pub look: u64,
        /// Time by the healer's own clock.
        pub at: f64,
        /// The topology, whose file a healer has.
        pub topology: String,
        /// Who healed.
        pub policy: String,
        /// Nothing was under way, so it was asked what to do.
        pub idle: bool,
        /// What might still be spent; none without a budget.
        pub left: Option<f64>,
        /// What was spent so far.
        pub spent: f64,
        /// Who leads each order given now: a node, or nobody for one led from outside.
        pub order_node: Vec<Option<String>>,
        /// The plan of each, in the language of plans.
        pub order_plan: Vec<String>,
        /// How likely it was to decide so.
        pub propensity: f64,
        /// Why it did, as far as it can tell.
        pub why: String,
        /// Orders that have ended since the look before: who led them,
        pub ended_node: Vec<Option<String>>,
        /// their plans,
        pub ended_plan: Vec<String>,
        /// and how: `done`, or what went wrong.
        pub ended_how: Vec<String>,
        /// Nodes that tell something.
        pub node: Vec<String>,
        /// Begin of what each tells, by its own clock, in microseconds.
        pub node_from_us: Vec<u64>,
        /// End of it.
        pub node_to_us: Vec<u64>,
        /// Readings: of which node or service,
        pub reading_of: Vec<String>,
        /// of what,
        pub reading_metric: Vec<String>,
        /// how much (none where nothing ever came),
        pub reading_value: Vec<Option<f64>>,
        /// and how old in milliseconds, 0 for fresh.
        pub reading_age_ms: Vec<u64>,
        /// Log lines: whose,
        pub log_service: Vec<String>,
        /// where it was written down,
        pub log_node: Vec<String>,
        /// the template,
        pub log_template: Vec<u64>,
        /// its words,
        pub log_text: Vec<String>,
        /// its level,
        pub log_level: Vec<String>,
        /// and how many.
        pub log_count: Vec<u64>,
        /// Alarms: at which node,
        pub alarm_node: Vec<String>,
        /// which,
        pub alarm: Vec<String>,
        /// and of which service, if of one.
        pub alarm_service: Vec<Option<String>>,
        /// Routes: which,
        pub route: Vec<String>,
        /// requests per second that came,
        pub route_arrival: Vec<f64>,
        /// that were answered or passed on,
        pub route_passed: Vec<f64>,
        /// share refused by a limit,
        pub route_shed: Vec<f64>,
        /// share of errors,
        pub route_err: Vec<f64>,
        /// requests that wait,
        pub route_queue: Vec<f64>,
        /// 95th percentile in milliseconds,
        pub route_p95_ms: Vec<f64>,
        /// and share of hits, of a cache.
        pub route_hit: Vec<Option<f64>>,
        /// Models that run: where,
        pub model_service: Vec<String>,
        /// how sure they are,
        pub model_confidence: Vec<f64>,
        /// how far their inputs are from the usual,
        pub model_input_drift: Vec<f64>,
        /// and how often a redundant one disagrees.
        pub model_disagreement: Vec<f64>,
        /// Links: which,
        pub link: Vec<String>,
        /// round trip in milliseconds, none if nothing comes back,
        pub link_rtt_ms: Vec<Option<f64>>,
        /// and share of packets lost.
        pub link_loss: Vec<f64>,
    }
}

rows! {
    /// What was hidden at one look, before anything was decided; one more follows the last.
    pub struct Truth = "truth", 1 {
        /// Number of the episode in the recording.
        pub episode: u64,
        /// Number of the look in the episode.
        pub look: u64,
        /// Time.
        pub at: f64,
        /// Ticks since the start of the episode.
        pub tick: u64,
        /// Digest of the state after each tick since the look before.
        pub digests: Vec<u64>,
        /// Faults whose root is in the world.
        pub roots: Vec<String>,
        /// What each replica's process does, in the order of the topology.
        pub phases: Vec<String>,
        /// Users' share of errors,
        pub err: f64,
        /// their 95th percentile in milliseconds,
        pub p95_ms: f64,
        /// quality of the answers,
        pub quality: f64,
        /// share refused,
        pub shed: f64,
        /// requests per second,
        pub asked: f64,
        /// and all in one number.
        pub health: f64,
        /// The same number in the twin in which nobody healed,
        pub twin_health: f64,
        /// its share of errors,
        pub twin_err: f64,
        /// its 95th percentile in milliseconds,
        pub twin_p95_ms: f64,
        /// and the digest of its state.
        pub twin_digest: u64,
    }
}

rows! {
    /// What was run, and what it came to.
    pub struct Episode = "episodes", 1 {
        /// Its number in the recording, from 0.
        pub episode: u64,
        /// The episode that it was forked from: one plan left to chance, and nothing after.
        pub fork_of: Option<u64>,
        /// At which of its looks.
        pub fork_look: Option<u64>,
        /// The number of the draw.
        pub fork_draw: Option<u64>,
        /// Set of the incident.
        pub split: String,
        /// The incident,
        pub incident: String,
        /// as a text that reads back.
        pub incident_text: String,
        /// Nobody is expected to end it.
        pub contain: bool,
        /// The topology,
        pub topology: String,
        /// as a text that reads back.
        pub topology_text: String,
        /// Seed of world and healer.
        pub seed: u64,
        /// Who healed.
        pub policy: String,
        /// A fork's plan: who leads each order,
        pub plan_node: Vec<Option<String>>,
        /// what it is,
        pub plan: Vec<String>,
        /// and how likely it was to be drawn.
        pub propensity: f64,
        /// Rules: length of a tick,
        pub dt: f64,
        /// share of primitives that fail without a word,
        pub silent: f64,
        /// between two looks,
        pub look_s: f64,
        /// users must be served for so long,
        pub hold_s: f64,
        /// and then so long without a relapse,
        pub relapse_s: f64,
        /// not later than,
        pub cap_s: f64,
        /// a shorter miss does not count,
        pub blip_s: f64,
        /// what may be spent,
        pub budget: Option<f64>,
        /// and from when on users count as served: errors below,
        pub target_err: f64,
        /// 95th percentile below,
        pub target_p95_ms: f64,
        /// quality above,
        pub target_quality: f64,
        /// refused below.
        pub target_shed: f64,
        /// From when on it counts: the onset of the incident, or the fork.
        pub begin: f64,
        /// The end.
        pub end: f64,
        /// Ticks.
        pub ticks: u64,
        /// Looks.
        pub looks: u64,
        /// Without a healer users would have noticed.
        pub was_incident: bool,
        /// They did.
        pub breached: bool,
        /// They are served again, in time and to the end.
        pub recovered: bool,
        /// From when on, since the begin.
        pub seconds: f64,
        /// Roots left.
        pub roots_left: u64,
        /// Requests lost.
        pub lost: f64,
        /// Health above that of the twin, times seconds,
        pub benefit: f64,
        /// and below it.
        pub harm: f64,
        /// What counts against a budget,
        pub spent: f64,
        /// what of it was taken from users,
        pub disruption: f64,
        /// and the nodes' own work.
        pub work: f64,
        /// Orders taken,
        pub orders: u64,
        /// and refused.
        pub refused: u64,
        /// Health from the begin on: mean,
        pub health_mean: f64,
        /// least,
        pub health_least: f64,
        /// and over the last ten seconds.
        pub health_end: f64,
        /// The twin in which nobody heals: requests lost,
        pub twin_lost: f64,
        /// roots left,
        pub twin_roots_left: u64,
        /// health: mean,
        pub twin_health_mean: f64,
        /// least,
        pub twin_health_least: f64,
        /// and over the last ten seconds.
        pub twin_health_end: f64,
    }
}
