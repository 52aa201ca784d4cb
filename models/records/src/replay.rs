//! Runs a recording once more, and says where it differs.
//!
//! Episodes are run with the orders that were recorded, from the texts that were recorded,
//! and every row that comes of it is compared with the row in the file: digests of the
//! state tick by tick, all that was seen, and what it came to. One episode with its forks
//! is held at a time.

use std::fmt;
use std::iter::Peekable;
use std::sync::Arc;

use homeostat_common::saga::FleetPlan;
use homeostat_sim::episode::{Episode, Rules};
use homeostat_sim::fault::{Incident, Split};
use homeostat_sim::policy::{Healer, Policy, View};
use homeostat_sim::text::TextError;
use homeostat_sim::topology::Topology;
use homeostat_sim::world::{Order, Settings, Target};

use crate::cell::Row;
use crate::dataset::{Recorded, Sink};
use crate::error::RecordError;
use crate::record::{About, FORKS_MAX, Fork, Forks, Setup, play};
use crate::rows;
use crate::table::TableReader;

/// Most ticks of an episode that is replayed; a day of seconds has a tenth.
const TICKS_MAX: u32 = 1_000_000;

/// What was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Episodes, forks among them.
    pub episodes: u64,
    /// Forks.
    pub forks: u64,
    /// Ticks.
    pub ticks: u64,
    /// Looks.
    pub looks: u64,
}

/// Where a replay differs from what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs {
    /// The episode.
    pub episode: u64,
    /// Its incident.
    pub incident: String,
    /// Its seed.
    pub seed: u64,
    /// The tick, if it is one.
    pub tick: Option<u64>,
    /// What differs.
    pub what: String,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            episode,
            incident,
            seed,
            what,
            ..
        } = self;
        write!(f, "episode {episode} ({incident}, seed {seed})")?;
        if let Some(tick) = self.tick {
            write!(f, " differs at tick {tick}")?;
        } else {
            write!(f, " differs")?;
        }
        write!(f, ": {what}")
    }
}

/// Why a recording is not what it says.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What it was run from cannot.
    #[error("{path}, episode {episode}: {why}")]
    Text {
        /// The table.
        path: std::path::PathBuf,
        /// The episode.
        episode: u64,
        /// Why.
        why: String,
    },
    /// It ran otherwise.
    #[error("{0}")]
    Differs(Differs),
}

type Table<R> = Peekable<TableReader<R>>;

/// Replays all of it; `told` hears of each episode that was the same.
///
/// # Errors
/// [`ReplayError`] for the first thing that is wrong or differs.
pub fn replay(
    recorded: &Recorded,
    mut told: impl FnMut(&Replayed),
) -> Result<Replayed, ReplayError> {
    let mut replay = Replay {
        seen: recorded.seen()?.peekable(),
        truth: recorded.truth()?.peekable(),
        done: Replayed::default(),
    };
    let mut episodes = recorded.episodes()?.peekable();
    let path = recorded.episodes()?.path().to_owned();
    while let Some(base) = episodes.next().transpose()? {
        let wrong = |episode: u64, why: String| ReplayError::Text {
            path: path.clone(),
            episode,
            why,
        };
        if base.fork_of.is_some() {
            return Err(wrong(base.episode, "a fork without its episode".to_owned()));
        }
        let mut forks = Vec::new();
        while let Some(Ok(fork)) = episodes.peek()
            && fork.fork_of == Some(base.episode)
        {
            if forks.len() >= FORKS_MAX as usize {
                return Err(wrong(fork.episode, format!("more than {FORKS_MAX} forks")));
            }
            forks.extend(episodes.next().transpose()?);
        }
        let setup = setup(&base, &forks).map_err(|why| wrong(base.episode, why))?;
        replay.group(&setup, &base, &forks, &wrong)?;
        told(&replay.done);
    }
    replay.rest()?;
    Ok(replay.done)
}

struct Replay {
    seen: Table<rows::Seen>,
    truth: Table<rows::Truth>,
    done: Replayed,
}

impl Replay {
    /// An episode with its forks.
    fn group(
        &mut self,
        setup: &Setup,
        base: &rows::Episode,
        forks: &[rows::Episode],
        wrong: &dyn Fn(u64, String) -> ReplayError,
    ) -> Result<(), ReplayError> {
        let mut episode = Episode::new(&setup.topology, &setup.incident, setup.seed, setup.rules)
            .map_err(|why| wrong(base.episode, why.to_string()))?;
        let mut kept: Vec<(u64, Episode)> = Vec::new();
        let horizon = setup.forks.horizon_s;
        self.one(setup, base, None, &mut episode, wrong, |episode| {
            let look = u64::from(episode.looks());
            let wanted = forks.iter().any(|fork| fork.fork_look == Some(look));
            if wanted && episode.decides_next() && kept.last().is_none_or(|(at, _)| *at != look) {
                kept.push((look, episode.fork(horizon)));
            }
        })?;
        for fork in forks {
            let look = fork.fork_look.unwrap_or(u64::MAX);
            let Some((_, moment)) = kept.iter().find(|(at, _)| *at == look) else {
                let why = format!("there is nothing to be decided at look {look}");
                return Err(wrong(fork.episode, why));
            };
            let about = Fork {
                of: base.episode,
                look,
                draw: fork.fork_draw.unwrap_or(0),
            };
            self.one(setup, fork, Some(about), &mut moment.clone(), wrong, |_| {})?;
            self.done.forks += 1;
        }
        Ok(())
    }

    fn one(
        &mut self,
        setup: &Setup,
        row: &rows::Episode,
        fork: Option<Fork>,
        episode: &mut Episode,
        wrong: &dyn Fn(u64, String) -> ReplayError,
        before: impl FnMut(&Episode),
    ) -> Result<(), ReplayError> {
        let number = row.episode;
        let most = row.looks.min(u64::from(TICKS_MAX));
        let seen = rows_of(&mut self.seen, number, most)?;
        let truth = rows_of(&mut self.truth, number, most + 1)?;
        let mut script: Vec<Decided> = Vec::new();
        for look in &seen {
            let orders =
                orders(look).map_err(|why| wrong(number, format!("look {}: {why}", look.look)))?;
            script.push((look.look, orders, look.propensity, look.why.clone()));
        }
        let script = Script {
            name: name_of(&row.policy),
            looks: script.into_iter().peekable(),
            look: u64::from(episode.looks()),
            last: (1.0, String::new()),
        };
        let mut healer = Healer::Sees(Box::new(script));
        let mut compare = Compare {
            row,
            seen: seen.into_iter(),
            truth: truth.into_iter(),
            done: &mut self.done,
        };
        let about = About {
            setup,
            number,
            fork,
        };
        play(&about, episode, &mut healer, before, &mut compare).map_err(ReplayError::Differs)?;
        compare.over().map_err(ReplayError::Differs)
    }

    /// What is left over belongs to no episode.
    fn rest(&mut self) -> Result<(), ReplayError> {
        let left = match (
            self.seen.next().transpose()?,
            self.truth.next().transpose()?,
        ) {
            (Some(row), _) => row.episode,
            (None, Some(row)) => row.episode,
            (None, None) => return Ok(()),
        };
        Err(ReplayError::Differs(Differs {
            episode: left,
            incident: "unknown".to_owned(),
            seed: 0,
            tick: None,
            what: "rows of an episode that is in no table of episodes".to_owned(),
        }))
    }
}

/// The rows of an episode, at most so many.
fn rows_of<R: Row>(table: &mut Table<R>, number: u64, most: u64) -> Result<Vec<R>, RecordError> {
    let mut rows = Vec::new();
    while (rows.len() as u64) < most {
        match table.peek() {
            Some(Ok(row)) if row.episode() != number => break,
            None => break,
            Some(_) => rows.extend(table.next().transpose()?),
        }
    }
    Ok(rows)
}

/// What an episode and its forks were run from.
fn setup(base: &rows::Episode, forks: &[rows::Episode]) -> Result<Setup, String> {
    let text = |why: TextError| why.to_string();
    let topology = Topology::read("topology", &base.topology_text).map_err(text)?;
    let incident = Incident::read("incident", &base.incident_text).map_err(text)?;
    let split: Split = base.split.parse().map_err(|why| format!("{why}"))?;
    let horizon = forks
        .first()
        .map_or(Forks::NONE.horizon_s, |fork| fork.cap_s + fork.hold_s);
    let rules = Rules {
        target: Target {
            err: base.target_err,
            p95_ms: base.target_p95_ms,
            quality: base.target_quality,
            shed: base.target_shed,
        },
        hold_s: base.hold_s,
        relapse_s: base.relapse_s,
        cap_s: base.cap_s,
        blip_s: base.blip_s,
        look_s: base.look_s,
        budget: base.budget,
        world: Settings {
            dt: base.dt,
            silent: base.silent,
        },
    };
    let most = f64::from(TICKS_MAX) * rules.world.dt;
    let spans = [rules.hold_s, rules.relapse_s, rules.cap_s, horizon];
    // Not a number is in no range.
    if !(0.001..=10.0).contains(&rules.world.dt)
        || !spans.iter().all(|span| (0.0..=most / 4.0).contains(span))
        || rules.look_s.is_nan()
        || rules.look_s < rules.world.dt
    {
        return Err(format!(
            "its times make more than {TICKS_MAX} ticks, or none"
        ));
    }
    Ok(Setup {
        topology: Arc::new(topology),
        incident,
        split,
        seed: base.seed,
        rules,
        forks: Forks {
            horizon_s: horizon,
            ..Forks::NONE
        },
    })
}

/// The orders of a look.
fn orders(look: &rows::Seen) -> Result<Vec<Order>, String> {
    if look.order_node.len() != look.order_plan.len() {
        return Err("as many plans as leaders were expected".to_owned());
    }
    let all = look.order_node.iter().zip(&look.order_plan);
    let order = |(node, plan): (&Option<String>, &String)| match node {
        Some(node) => {
            let node = node
                .parse()
                .map_err(|why| format!("node {node:?}: {why}"))?;
            let plan = plan
                .parse()
                .map_err(|why| format!("plan {plan:?}: {why}"))?;
            Ok(Order::Node(node, plan))
        }
        None => {
            let read: Result<FleetPlan, _> = plan.parse();
            read.map(Order::Fleet)
                .map_err(|why| format!("plan {plan:?}: {why}"))
        }
    };
    all.map(order).collect()
}

/// The name of a policy that is known.
fn name_of(policy: &str) -> &'static str {
    let known = homeostat_sim::policy::Baseline::ALL;
    let known = known.iter().map(|one| one.name()).chain(["randomised"]);
    known
        .into_iter()
        .find(|name| *name == policy)
        .unwrap_or("recorded")
}

/// What was decided at a look: its number, the orders, how likely they were, and why.
type Decided = (u64, Vec<Order>, f64, String);

/// Does what was recorded.
struct Script {
    name: &'static str,
    looks: Peekable<std::vec::IntoIter<Decided>>,
    look: u64,
    last: (f64, String),
}

impl Policy for Script {
    fn name(&self) -> &'static str {
        self.name
    }

    fn see(&mut self, _: &View<'_>) {
        self.look += 1;
    }

    fn decide(&mut self, _: &View<'_>) -> Vec<Order> {
        // `see` comes first, so the present look is the one before.
        let now = self.look - 1;
        while self.looks.peek().is_some_and(|(look, ..)| *look < now) {
            self.looks.next();
        }
        match self.looks.next_if(|(look, ..)| *look == now) {
            Some((_, orders, propensity, why)) => {
                self.last = (propensity, why);
                orders
            }
            None => Vec::new(),
        }
    }

    fn propensity(&self) -> f64 {
        self.last.0
    }

    fn why(&self) -> String {
        self.last.1.clone()
    }
}

struct Compare<'r> {
    row: &'r rows::Episode,
    seen: std::vec::IntoIter<rows::Seen>,
    truth: std::vec::IntoIter<rows::Truth>,
    done: &'r mut Replayed,
}

impl Compare<'_> {
    fn differs(&self, tick: Option<u64>, what: impl Into<String>) -> Differs {
        Differs {
            episode: self.row.episode,
            incident: self.row.incident.clone(),
            seed: self.row.seed,
            tick,
            what: what.into(),
        }
    }

    fn over(mut self) -> Result<(), Differs> {
        if self.seen.next().is_some() || self.truth.next().is_some() {
            return Err(self.differs(None, "more looks were recorded"));
        }
        Ok(())
    }
}

impl Sink for Compare<'_> {
    type Error = Differs;

    fn seen(&mut self, row: &rows::Seen) -> Result<(), Differs> {
        self.done.looks += 1;
        match self.seen.next() {
            Some(recorded) if recorded == *row => Ok(()),
            Some(recorded) => {
                let what = format!("look {}, {}", row.look, field(&recorded, row));
                Err(self.differs(None, what))
            }
            None => Err(self.differs(None, format!("look {} was not recorded", row.look))),
        }
    }

    fn truth(&mut self, row: &rows::Truth) -> Result<(), Differs> {
        self.done.ticks += row.digests.len() as u64;
        let Some(recorded) = self.truth.next() else {
            let what = format!("the state at look {} was not recorded", row.look);
            return Err(self.differs(Some(row.tick), what));
        };
        if recorded == *row {
            return Ok(());
        }
        let pairs = recorded.digests.iter().zip(&row.digests);
        let same = pairs.take_while(|(one, other)| one == other).count();
        if same < recorded.digests.len().max(row.digests.len()) {
            let first = row.tick - row.digests.len() as u64 + 1;
            return Err(self.differs(Some(first + same as u64), "another state"));
        }
        let what = format!("at look {}, {}", row.look, field(&recorded, row));
        Err(self.differs(Some(row.tick), what))
    }

    fn episode(&mut self, row: &rows::Episode) -> Result<(), Differs> {
        self.done.episodes += 1;
        if row == self.row {
            return Ok(());
        }
        let what = format!("what it came to, {}", field(self.row, row));
        Err(self.differs(None, what))
    }
}

/// The first field in which two rows differ.
fn field<R: Row>(recorded: &R, now: &R) -> String {
    let as_map = |row: &R| match serde_json::to_value(row) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (recorded, now) = (as_map(recorded), as_map(now));
    let other = recorded
        .iter()
        .find(|(key, value)| now.get(*key) != Some(value));
    match other {
        Some((key, value)) => {
            let short = |value: &serde_json::Value| -> String {
                value.to_string().chars().take(200).collect()
            };
            let now = now.get(key).map_or_else(String::new, short);
            format!("{key}: recorded {}, now {now}", short(value))
        }
        None => "not a number".to_owned(),
    }
}
