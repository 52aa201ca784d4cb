//! What the API says about why: who may be behind an incident, what belongs together, whom
//! it reached, and what would have been otherwise.

use std::fmt;

use homeostat_common::suspect::Grade;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a component is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A node itself: its processors, its memory, its heat.
    Node,
    /// A disk, a link or a mount point of a node.
    Part,
    /// Something outside that nodes of a site need.
    Dependency,
    /// A route of a node.
    Route,
    /// A backend of a route that no node told of.
    Backend,
    /// A service of a node.
    Service,
    /// The model that a service answers with.
    Model,
}

/// A level of the hierarchy, the lowest first: a model is served by an application, which runs
/// on infrastructure.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Machines, their parts, and what they reach over a network.
    Infrastructure,
    /// Services and the routes between them.
    Application,
    /// What a model makes of its inputs.
    Model,
}

/// A component somewhere in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// What it is.
    pub kind: Kind,
    /// On which level.
    pub level: Level,
    /// Its node; of a dependency, its site.
    pub at: String,
    /// Its name; empty for a node.
    pub name: String,
}

impl Place {
    /// Somewhere.
    #[must_use]
    pub fn of(kind: Kind, at: &str, name: &str) -> Self {
        let level = match kind {
            Kind::Node | Kind::Part | Kind::Dependency => Level::Infrastructure,
            Kind::Route | Kind::Backend | Kind::Service => Level::Application,
            Kind::Model => Level::Model,
        };
        Self {
            kind,
            level,
            at: at.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, name, .. } = self;
        match self.kind {
            Kind::Node => write!(f, "node {at}"),
            Kind::Part => write!(f, "{name} of {at}"),
            Kind::Dependency => write!(f, "dependency {name} of {at}"),
            Kind::Route => write!(f, "route {name} on {at}"),
            Kind::Backend => write!(f, "backend {name} of {at}"),
            Kind::Service => write!(f, "{name} on {at}"),
            Kind::Model => write!(f, "the model of {name} on {at}"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Infrastructure => "infrastructure",
            Self::Application => "application",
            Self::Model => "model",
        })
    }
}

/// Who may be behind an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Causes {
    /// What the alarm is about.
    pub alarmed: Place,
    /// The likeliest cause; absent if nobody is suspected.
    pub root: Option<Place>,
    /// The likeliest first, those that are explained by others last. Their confidence makes up
    /// at most 1; the rest is for a cause that is none of them.
    pub suspects: Vec<Suspected>,
    /// The causal graph: who needs whom between the alarmed one and the suspects, and what
    /// moves together for another reason.
    pub links: Vec<Link>,
    /// The way from the alarmed one to the root, each with what is known of it.
    pub chain: Vec<ChainLink>,
    /// What would tell the two likeliest apart.
    pub tell_apart: Option<Probe>,
    /// How much usual behaviour it rests on; absent where only the incident itself was told.
    #[schema(value_type = Option<String>)]
    pub grade: Option<Grade>,
    /// Why the node waits for somebody else's cause instead of acting.
    pub spared: Option<String>,
    /// Who needs the alarmed one, directly or not.
    pub affected: Vec<Place>,
}

impl Causes {
    /// Why nobody is suspected, where that is so.
    #[must_use]
    pub fn nobody(&self) -> &'static str {
        nobody(self.grade)
    }
}

/// Why a node suspects nobody, by how much usual behaviour it knew of.
#[must_use]
pub fn nobody(grade: Option<Grade>) -> &'static str {
    match grade {
        None | Some(Grade::Blank) => "nothing was known of what is usual",
        Some(Grade::Short) => "little was known of what is usual",
        Some(Grade::Full) => "nothing of it, or of what it needs, is beyond what is usual",
    }
}

/// Somebody who may be the cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Suspected {
    /// Who.
    pub place: Place,
    /// How likely, in 0 to 1.
    pub confidence: f64,
    /// Its own part of what is too much at the alarmed one, in 0 to 1.
    pub share: f64,
    /// When its trouble began, by the coordinator's clock; absent if it shows none.
    pub began_ms: Option<u64>,
    /// In words, strongest first.
    pub evidence: Vec<String>,
    /// Its trouble is no trouble of its own: it comes from this one.
    pub explained_by: Option<Place>,
    /// The incident whose node says so; absent if it follows from what nodes measured.
    pub incident: Option<u64>,
}

/// A line of the causal graph.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// Who needs.
    pub from: Place,
    /// Who is needed: trouble travels from here to `from`.
    pub to: Place,
    /// Neither needs the other: both need this one, which shows no trouble itself, so that
    /// they may move together without one being the cause of the other.
    pub confounded_by: Option<Place>,
}

/// What a component is on the way from what is alarmed to what is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the alarm is about.
    Alarmed,
    /// On the way.
    Between,
    /// The likeliest cause.
    Root,
    /// What the cause stands on, which shows no trouble: told where the way would otherwise
    /// stay on one level.
    Below,
}

/// A component on the way from what is alarmed to what is behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChainLink {
    /// Who.
    pub place: Place,
    /// What it is there.
    pub role: Role,
    /// What is known of it, strongest first.
    pub evidence: Vec<String>,
}

/// What would tell two suspects apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    /// Between these two.
    pub between: Vec<Place>,
    /// Look here.
    pub look_at: Place,
    /// For what, in words.
    pub text: String,
}

/// Incidents that have one cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// The smallest number of a member: names the group as long as all are kept.
    pub id: u64,
    /// The member where it began.
    pub root: u64,
    /// The likeliest cause of them all.
    pub cause: Option<Place>,
    /// All members, by number.
    pub members: Vec<Member>,
}

/// An incident of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its number in the fleet.
    pub incident: u64,
    /// What its alarm is about.
    pub alarmed: Place,
    /// Whether it follows from the root.
    pub consequence: bool,
    /// Why it belongs here, in words; absent for the root.
    pub because: Option<String>,
}

/// An incident that began in the same while as another one; neither needs the other, and no
/// cause of both is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Coincident {
    /// Its number in the fleet.
    pub incident: u64,
    /// What its alarm is about.
    pub alarmed: Place,
    /// How long before or after the other one it began, by the coordinator's clock.
    pub away_ms: u64,
}

/// What an incident has cost the users, as far as nodes told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Impact {
    /// Users affected over the worst five minutes: of the entry that has most of them, by the
    /// share of its requests that failed or were slow in the mean. Absent unless an objective
    /// of the configuration says how many users the route has.
    pub users: Option<u64>,
    /// The same by the largest share of one report (some seconds); where few ask, one
    /// connection is much of it.
    pub users_worst: Option<u64>,
    /// Requests that failed where users come in, beyond what is usual there; an estimate from
    /// means over five minutes. Failed: no backend took the connection, or it broke; a
    /// forwarder sees no status of an answer. Absent until such means have arrived.
    pub failed: Option<f64>,
    /// Of some route it is not known what fails there usually, and all that failed is counted.
    pub usual_unknown: bool,
    /// About how many requests took longer than promised, beyond what is usual: from the
    /// percentiles of the slowest backend, in means over five minutes. Absent without such a
    /// promise, and where it is not known what is usual.
    pub slow: Option<f64>,
    /// Requests that came while health checks had wrong answers: how many of them were answered
    /// wrongly is not known. Absent where the incident is about something else.
    pub asked_while_wrong: Option<f64>,
    /// The largest share of new connections that failed where users come in, seen as the
    /// incident was opened; only where nothing more has arrived.
    pub seen_failed: Option<f64>,
    /// Routes where users come in of which nothing was told for that time.
    pub unknown: u64,
    /// By route that the incident reaches.
    pub routes: Vec<RouteImpact>,
}

/// The same for one route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteImpact {
    /// Its node.
    pub node: String,
    /// Its name.
    pub route: String,
    /// Whether users come in here; what is called by another route that is reached counts
    /// there already.
    pub entry: bool,
    /// What it rests on.
    pub basis: Basis,
    /// From when it is counted, by the coordinator's clock.
    pub from_ms: u64,
    /// Until when.
    pub to_ms: u64,
    /// Requests in that time; absent after a look alone, as all counts are.
    pub asked: Option<f64>,
    /// Those that failed, beyond what is usual; all that failed if `usual_failed` is absent.
    pub failed: Option<f64>,
    /// About how many were slower than promised, beyond what is usual.
    pub slow: Option<f64>,
    /// Those that came while the incident lasted.
    pub meanwhile: Option<f64>,
    /// The share that failed in the hour before, in the median.
    pub usual_failed: Option<f64>,
    /// The largest share that failed in one report; after a look alone, what it saw.
    pub worst_failed: Option<f64>,
    /// Users affected over the worst five minutes.
    pub users: Option<u64>,
    /// Users affected by the largest share of one report.
    pub users_worst: Option<u64>,
    /// What became of its promises.
    pub burns: Vec<Burn>,
}

/// What an impact rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Means over five minutes that overlap the incident.
    Means,
    /// One look as it was opened, which says nothing of what came after.
    Look,
}

/// How much of what a promise leaves free was used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Burn {
    /// The promise.
    pub objective: String,
    /// Over which time it is kept.
    pub window_ms: u64,
    /// How many times faster than allowed, at the worst time.
    pub rate: f64,
    /// The part of all that is free in that time which the incident used.
    pub spent: f64,
    /// Whether it is an estimate from percentiles.
    pub estimate: bool,
}

/// What would have been, had something else been done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhatIf {
    /// The question in words.
    pub question: String,
    /// The plan that is asked about; absent for "by itself".
    pub action: Option<String>,
    /// Within which time: from the first sign, by an action from its first step.
    pub within_ms: u64,
    /// How likely; absent where too little is on record.
    pub estimate: Option<Estimate>,
    /// How many incidents it rests on.
    pub likes: u64,
    /// What it rests on, in words.
    pub rests_on: String,
    /// Whether it is an effect of doing, or only what went along with it: some hidden cause may
    /// decide both what is done and how it goes.
    pub identified: bool,
    /// By which criterion it is one, or why it is none; absent without an estimate.
    pub by: Option<String>,
    /// What might decide both what is done and how it goes, and was held equal.
    pub adjusted_for: Vec<String>,
    /// What was not, because too few would be left.
    pub not_adjusted_for: Vec<String>,
}

/// A probability with its interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// The likeliest value, in 0 to 1.
    pub share: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Why something is in trouble, in one chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// What was asked about.
    pub place: Place,
    /// The incident that says so, by its number; absent if none does.
    pub incident: Option<u64>,
    /// Whether that is still open.
    pub open: bool,
    /// How likely the root is the cause, in 0 to 1.
    pub confidence: Option<f64>,
    /// From what was asked about down to the root; where no incident is about that or what it
    /// needs, from what is alarmed down to it.
    pub chain: Vec<ChainLink>,
    /// The levels that the chain crosses, from where it begins.
    pub levels: Vec<Level>,
    /// All of it in a sentence.
    pub text: String,
    /// Faults that people put in on purpose on the nodes of the chain, in force now or around
    /// the incident.
    #[serde(default)]
    pub on_purpose: Vec<String>,
    /// Of the last answer: how many of that name are left out after it.
    #[serde(default)]
    pub left_out: u64,
}
