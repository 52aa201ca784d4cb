//! Joins the parts: what is admitted, stored, acknowledged and shown.
//!
//! [`sagas`] carries out plans across nodes, [`alarms`] says when people are called for
//! them, [`notifying`] calls. [`outside`] takes in what other systems say. [`explaining`] joins records and diagnosis. [`admit`] judges a message, [`ingest`] drives batches into the database and
//! settles them, [`serve`] starts and ends it all. [`Hub`] is what they share
//! with the API.

pub mod admit;
pub mod alarms;
pub mod explaining;
pub mod ingest;
pub mod notifying;
pub mod outside;
pub mod sagas;
pub mod serve;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use homeostat_classify::Classifier;
use homeostat_common::wire::signed::Key;
use tokio::sync::{Notify, broadcast, mpsc};

use crate::diagnose::impact::Objective;
use crate::fleet::metrics::Metrics;
use crate::fleet::plans::FleetPlanView;
use crate::fleet::presence::Presence;
use crate::fleet::view::Change;
use crate::io::db::Db;

/// Changes that a slow live client may lag behind before it is told to fetch
/// everything again.
const CHANGES_KEPT: usize = 256;

/// What ingest and API share.
pub struct Hub {
    /// The truth.
    pub db: Db,
    /// What is counted.
    pub metrics: Metrics,
    /// Who is connected.
    pub presence: Mutex<Presence>,
    /// What changed, for live clients.
    pub changes: broadcast::Sender<Change>,
    /// Whether the database took the last batch.
    pub storing: AtomicBool,
    /// Plans across nodes that are on their way, as they stand now.
    pub plans: Mutex<BTreeMap<u64, FleetPlanView>>,
    /// Where more of them are asked for.
    pub asks: mpsc::Sender<sagas::Ask>,
    /// One of the coordinator's own alarms changed, and people may have to be told.
    pub alarms: Notify,
    /// What orders are signed with.
    pub key: Key,
    /// Who has it may ask for plans.
    pub token: String,
    /// Alarms of other systems.
    pub outside: outside::Outside,
    /// What knows failure classes.
    pub classifier: Option<Classifier>,
    /// What routes have promised their users.
    pub objectives: Vec<Objective>,
}

impl std::fmt::Debug for Hub {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(
        db: Db,
        asks: mpsc::Sender<sagas::Ask>,
        key: Key,
        token: String,
        outside: outside::Outside,
        classifier: Option<Classifier>,
        objectives: Vec<Objective>,
    ) -> Self {
        Self {
            db,
            metrics: Metrics::default(),
            presence: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            storing: AtomicBool::new(true),
            plans: Mutex::default(),
            alarms: Notify::new(),
            asks,
            key,
            token,
            outside,
            classifier,
            objectives,
        }
    }

    /// Reads or changes presence.
    pub fn with_presence<T>(&self, f: impl FnOnce(&mut Presence) -> T) -> T {
        // A panic while it was held leaves a map that is still whole.
        let mut guard = self
            .presence
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        f(&mut guard)
    }

    /// Reads or changes the plans on their way.
    pub fn with_plans<T>(&self, f: impl FnOnce(&mut BTreeMap<u64, FleetPlanView>) -> T) -> T {
        let mut guard = self
            .plans
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        f(&mut guard)
    }

    /// Has people told of what the database now says of the coordinator's own alarms.
    pub fn alarms_changed(&self) {
        self.alarms.notify_one();
        self.show_alarms();
    }

    /// Has whoever watches look at the alarms again.
    pub fn show_alarms(&self) {
        // Nobody may be watching.
        let _ = self.changes.send(Change::default());
    }

    /// Why the coordinator does not do its work now, if it does not.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        if !self.storing.load(Relaxed) {
            Some("the database does not take records")
        } else if !self.with_presence(|presence| presence.broker()) {
            Some("the broker is not reached")
        } else {
            None
        }
    }
}

/// The coordinator's wall clock, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
