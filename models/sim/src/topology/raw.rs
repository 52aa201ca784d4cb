//! A topology as it is written: shapes of the TOML text, with the place of what can be
//! wrong. Nothing is checked here but types and unknown keys.

use serde::Deserialize;
use toml::Spanned;

use super::{Errand, Offer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopology {
    pub(super) name: String,
    #[serde(default)]
    pub(super) strangers: Option<Spanned<String>>,
    pub(super) site: Vec<RawSite>,
    pub(super) node: Vec<RawNode>,
    pub(super) route: Vec<RawRoute>,
    #[serde(default)]
    pub(super) webhook: Vec<RawWebhook>,
    #[serde(default)]
    pub(super) training: Option<RawTraining>,
    #[serde(default)]
    pub(super) habits: Option<RawHabits>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHabits {
    pub(super) retries: Option<Spanned<f64>>,
    pub(super) retry_s: Option<Spanned<f64>>,
    pub(super) patience_ms: Option<Spanned<f64>>,
    pub(super) timeout_ms: Option<Spanned<f64>>,
    pub(super) deeds: Option<Spanned<f64>>,
    pub(super) warm_s: Option<Spanned<f64>>,
    pub(super) daily: Option<Spanned<f64>>,
    pub(super) signed: Option<Spanned<f64>>,
    pub(super) thrash: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) in_turn: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSite {
    pub(super) name: Spanned<String>,
    pub(super) lan_ms: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNode {
    pub(super) name: Spanned<String>,
    pub(super) site: Spanned<String>,
    pub(super) cores: Spanned<f64>,
    pub(super) memory_mb: Spanned<f64>,
    pub(super) system_mb: Option<Spanned<f64>>,
    pub(super) disk_mb: Option<Spanned<f64>>,
    pub(super) disk_used_mb: Option<Spanned<f64>>,
    pub(super) inodes: Option<Spanned<f64>>,
    pub(super) ambient_c: Option<Spanned<f64>>,
    pub(super) rth: Option<Spanned<f64>>,
    pub(super) rth_dead: Option<Spanned<f64>>,
    pub(super) battery_wh: Option<Spanned<f64>>,
    pub(super) uplinks: Spanned<Vec<RawUplink>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUplink {
    pub(super) name: Spanned<String>,
    pub(super) delay_ms: Spanned<f64>,
    pub(super) loss: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) name: Spanned<String>,
    pub(super) at: Spanned<String>,
    pub(super) demand: Option<Spanned<f64>>,
    pub(super) rate: Option<Spanned<f64>>,
    pub(super) cores: Option<Spanned<f64>>,
    pub(super) memory_mb: Option<Spanned<f64>>,
    pub(super) start_s: Option<Spanned<f64>>,
    pub(super) kb: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) model: bool,
    #[serde(default)]
    pub(super) stateful: bool,
    #[serde(default)]
    pub(super) writes: bool,
    pub(super) hit: Option<Spanned<f64>>,
    pub(super) outside_ms: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) offers: Vec<Offer>,
    #[serde(default)]
    pub(super) calls: Vec<RawCall>,
    #[serde(default)]
    pub(super) replicas: Vec<RawReplica>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCall {
    pub(super) to: Spanned<String>,
    pub(super) share: Option<Spanned<f64>>,
    pub(super) behind: Option<Spanned<String>>,
    #[serde(default = "yes")]
    pub(super) needed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReplica {
    pub(super) name: Spanned<String>,
    pub(super) node: Spanned<String>,
    #[serde(default)]
    pub(super) standby: bool,
    pub(super) weight: Option<Spanned<f64>>,
    pub(super) data_mb: Option<Spanned<f64>>,
    pub(super) quota_mb: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    pub(super) name: Spanned<String>,
    pub(super) does: Errand,
    pub(super) seconds: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTraining {
    pub(super) workers: Vec<Spanned<String>>,
    pub(super) cores: Spanned<f64>,
    pub(super) memory_mb: Spanned<f64>,
    pub(super) checkpoint_s: Spanned<f64>,
}

fn yes() -> bool {
    true
}
