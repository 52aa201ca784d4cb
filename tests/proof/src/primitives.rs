//! What each primitive does, as far as the rules care: the table of primitives in
//! ARCHITECTURE.md ("Plans"), written anew, and the steps of a printed plan with their
//! rows.

use crate::text::{Part, Step};

/// Seconds that spawner or forwarder may take to answer.
const ANSWER_S: f64 = 2.0;

/// What a primitive does, as far as the rules care.
pub(crate) struct Primitive {
    pub(crate) name: &'static str,
    pub(crate) about: About,
    /// What of its services or its route it changes.
    pub(crate) changes: &'static [&'static str],
    /// It is taken back when it was cut short.
    pub(crate) undone: bool,
    /// What the configuration must offer.
    pub(crate) needs: Option<&'static str>,
    /// The node's own work, in capacity-seconds.
    pub(crate) work: f64,
    /// How long it may take, given how long its service may take to come up.
    pub(crate) limit_s: fn(&Step, f64) -> f64,
    pub(crate) takes: Takes,
}

/// What the first arguments name.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum About {
    Nothing,
    Service,
    Route,
    /// A route and one of its backends.
    Backend,
    /// A route and two of its backends.
    Backends,
}

/// Whether its service answers nobody.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Takes {
    No,
    /// While it runs.
    Once,
    /// Until it is thawed or restarted.
    Until,
}

/// Seconds that a slot, a lock, a hook, a server or the kernel may take.
const FILE_S: f64 = 10.0;
/// Seconds for many files, or large ones.
const FILES_S: f64 = 30.0;
/// Seconds that the disk is waited for before a step.
pub(crate) const DISK_S: f64 = 5.0;

const USUAL: Primitive = Primitive {
    name: "",
    about: About::Service,
    changes: &["process"],
    undone: false,
    needs: None,
    work: 0.02,
    limit_s: |_, _| ANSWER_S,
    takes: Takes::No,
};

type Changes = &'static [&'static str];

const fn slot(name: &'static str, changes: Changes, work: f64) -> Primitive {
    Primitive {
        name,
        changes,
        undone: true,
        work,
        limit_s: |_, _| FILE_S,
        ..USUAL
    }
}

const fn offered(
    name: &'static str,
    changes: Changes,
    needs: &'static str,
    undone: bool,
    work: f64,
) -> Primitive {
    Primitive {
        name,
        changes,
        undone,
        needs: Some(needs),
        work,
        limit_s: |_, _| FILE_S,
        ..USUAL
    }
}

const fn of_node(name: &'static str, changes: Changes) -> Primitive {
    Primitive {
        undone: false,
        ..slot(name, changes, 0.02)
    }
}

const fn state(name: &'static str, needs: &'static str, undone: bool) -> Primitive {
    Primitive {
        limit_s: |_, _| FILES_S,
        ..offered(name, &["files"], needs, undone, 0.2)
    }
}

const fn on_route(name: &'static str, about: About, changes: Changes, undone: bool) -> Primitive {
    Primitive {
        name,
        about,
        changes,
        undone,
        ..USUAL
    }
}

const fn looks(name: &'static str, about: About, limit_s: fn(&Step, f64) -> f64) -> Primitive {
    Primitive {
        name,
        about,
        changes: &[],
        work: 0.0,
        limit_s,
        ..USUAL
    }
}

const PRIMITIVES: &[Primitive] = &[
    Primitive {
        name: "restart",
        limit_s: |step, start| step.seconds("grace").unwrap_or(f64::INFINITY) + ANSWER_S + start,
        takes: Takes::Once,
        ..USUAL
    },
    Primitive {
        name: "freeze",
        undone: true,
        takes: Takes::Until,
        ..USUAL
    },
    Primitive {
        name: "thaw",
        limit_s: |_, start| start + ANSWER_S,
        ..USUAL
    },
    Primitive {
        name: "limit-cpu",
        changes: &["processors"],
        undone: true,
        ..USUAL
    },
    Primitive {
        name: "unlimit-cpu",
        changes: &["processors"],
        ..USUAL
    },
    Primitive {
        limit_s: |_, start| start + ANSWER_S,
        ..offered("prewarm", &["process"], "standby", true, 0.02)
    },
    slot("rollback-model", &["model"], 0.2),
    slot("switch-model", &["model"], 0.2),
    slot("rollback-config", &["config"], 0.02),
    slot("switch-config", &["config"], 0.02),
    state("prune-data", "prune", false),
    state("snapshot", "snapshot", false),
    state("restore-snapshot", "snapshot", true),
    offered("clear-locks", &["files"], "locks", false, 0.02),
    offered("flush-cache", &["memory"], "flush-cache", false, 1.0),
    offered("reset-pool", &["memory"], "reset-pool", false, 0.02),
    offered("degrade", &["memory"], "degrade", true, 0.02),
    offered("undegrade", &["memory"], "degrade", false, 0.02),
    offered("sync-clock", &["clock"], "clock", false, 0.02),
    offered("remount-writable", &["mount"], "remount", false, 0.02),
    slot("switch-uplink", &["uplink"], 0.02),
    slot("block-port", &["admission"], 0.02),
    of_node("release-uplink", &["uplink"]),
    of_node("unblock-port", &["admission"]),
    of_node("call-webhook", &["outside"]),
    looks("probe", About::Service, |step, _| {
        step.seconds("within").unwrap_or(f64::INFINITY)
    }),
    looks("wait", About::Nothing, |step, _| {
        step.seconds("").unwrap_or(f64::INFINITY) + 1.0
    }),
    looks("escalate", About::Service, |_, _| ANSWER_S),
    Primitive {
        limit_s: |step, _| step.seconds("drain").unwrap_or(f64::INFINITY) + ANSWER_S,
        ..on_route("isolate", About::Backend, &["weights"], true)
    },
    on_route("release", About::Backend, &["weights"], false),
    on_route("reroute", About::Backends, &["weights"], true),
    Primitive {
        needs: Some("standby"),
        limit_s: |_, start| start + ANSWER_S,
        ..on_route("scale-out", About::Backend, &["process", "weights"], true)
    },
    Primitive {
        needs: Some("standby"),
        limit_s: |step, start| step.seconds("drain").unwrap_or(f64::INFINITY) + ANSWER_S + start,
        ..on_route("scale-in", About::Backend, &["process", "weights"], true)
    },
    on_route("limit-rate", About::Route, &["admission"], true),
    on_route("unlimit-rate", About::Route, &["admission"], false),
    on_route("block-source", About::Route, &["admission"], true),
    on_route("unblock-source", About::Route, &["admission"], false),
];

/// A step with what it means.
pub(crate) struct Meant<'p> {
    pub(crate) step: &'p Step,
    pub(crate) does: &'static Primitive,
    /// The way to it from the root: at each group its number, whether that runs
    /// side by side, and the member.
    pub(crate) way: Vec<(usize, bool, usize)>,
}

impl<'p> Meant<'p> {
    pub(crate) fn writes(&self) -> bool {
        !self.does.changes.is_empty()
    }

    /// The services and backends that it names.
    pub(crate) fn named(&self) -> impl Iterator<Item = &'p str> {
        let (from, to) = match self.does.about {
            About::Nothing | About::Route => (0, 0),
            About::Service => (0, 1),
            About::Backend => (1, 2),
            About::Backends => (1, 3),
        };
        let step = self.step;
        (from..to).filter_map(move |place| step.at(place))
    }

    pub(crate) fn on_routes(&self) -> bool {
        !matches!(self.does.about, About::Nothing | About::Service)
    }

    pub(crate) fn route(&self) -> Option<&'p str> {
        self.step.at(0).filter(|_| self.on_routes())
    }

    /// The backend that gets nothing from the route once this is done.
    pub(crate) fn spares(&self) -> Option<&'p str> {
        match self.does.name {
            "isolate" | "scale-in" => self.step.at(1),
            "reroute" if self.step.named("share") == Some("100%") => self.step.at(1),
            _ => None,
        }
    }

    /// A frozen process runs again after it.
    pub(crate) fn unfreezes(&self) -> bool {
        matches!(self.does.name, "thaw" | "restart")
    }

    /// Whether two steps may be under way at the same time.
    pub(crate) fn beside(&self, other: &Self) -> bool {
        let parted = self.way.iter().zip(&other.way).find(|(a, b)| a != b);
        parted.is_some_and(|(a, b)| a.0 == b.0 && a.1)
    }
}

/// The steps of a plan, in the printed order.
pub(crate) fn meant(plan: &Part) -> Result<Vec<Meant<'_>>, String> {
    fn walk<'p>(
        part: &'p Part,
        way: &mut Vec<(usize, bool, usize)>,
        groups: &mut usize,
        all: &mut Vec<Meant<'p>>,
    ) -> Result<(), String> {
        let (inner, side_by_side) = match part {
            Part::Step(step) => {
                let does = PRIMITIVES.iter().find(|does| does.name == step.name);
                let does = does.ok_or_else(|| format!("{} is not known here", step.name))?;
                let way = way.clone();
                all.push(Meant { step, does, way });
                return Ok(());
            }
            Part::InTurn(inner) => (inner, false),
            Part::SideBySide(inner) => (inner, true),
        };
        let group = *groups;
        *groups += 1;
        for (member, part) in inner.iter().enumerate() {
            way.push((group, side_by_side, member));
            walk(part, way, groups, all)?;
            way.pop();
        }
        Ok(())
    }
    let mut all = Vec::new();
    walk(plan, &mut Vec::new(), &mut 0, &mut all)?;
    Ok(all)
}
