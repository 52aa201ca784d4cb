//! What is broken, when, and what must happen then: stated before the first fault.

use anyhow::{Context as _, Result};
use homeostat_common::ids::{ConfigVersion, ModelVersion, RouteId, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::{Millis, Percent};
use homeostat_eval::stage::{Fleet, MODEL_VERSION};

/// Time that a service gets between SIGTERM and SIGKILL where it is asked gently, and a replica's
/// connections to end.
pub(crate) const GRACE: Millis = Millis(500);
/// From a service's start to its first right answer.
pub(crate) const START_TIMEOUT: Millis = Millis(5000);

/// One way to break something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill,
    /// Its accept loop is deadlocked.
    Block,
    /// It leaks memory.
    Leak,
    /// It burns a core.
    Hog,
    /// Each answer takes longer.
    Slow,
    /// Bytes of its model change in place.
    CorruptModel,
    /// Another model is put in by hand; its files agree with each other.
    BadModel,
    /// Its configuration is overwritten with nonsense, and it dies.
    BadConfig,
    /// Old files use up its quota.
    FillData,
    /// A process that is none of ours burns a core.
    Stranger,
    /// Its metrics stand still at a bad value while it answers rightly.
    FreezeMetrics,
    /// SIGKILL for the loop, the owner of the processes, the forwarder.
    Agent,
    Spawner,
    Forwarder,
    /// The broker: from then on each node is alone, until it returns.
    BrokerDies,
    BrokerReturns,
}

/// What must become of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This plan, as the record prints it, from this source.
    Plan(String, &'static str),
    /// No service is touched.
    Untouched,
    /// Nothing is done, and a record that has these words says why.
    Told(&'static str),
    /// Nothing is done: whatever could be done is refused by this rule of the gate.
    Refused(&'static str),
    /// It is no fault of a node.
    Stage,
}

/// A fault at its place in the story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Part of the ids in the JSON form.
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) node: &'static str,
    /// Who suffers; empty where it is no service.
    pub(crate) service: &'static str,
    pub(crate) fault: Fault,
    /// How long after the scene before, in milliseconds; 0 is at once with it.
    pub(crate) after: u64,
}

/// The pauses hold what the scene before needs: its detection, its healing, the hold of 2 s that
/// follows. A leak is judged once a life is 4 s old, a slow replica by half of a window of 5 s, a
/// process that burns by 3 s of it.
#[rustfmt::skip]
pub(crate) const STORY: [Scene; 29] = [
    scene("kill", "kill -9", "edge-1", "preprocess-1", Fault::Kill, 500),
    scene("full", "old files fill its data folder", "edge-3", "store-1", Fault::FillData, 2000),
    scene("block", "accept loop blocked", "edge-2", "infer-2", Fault::Block, 3000),
    scene("corrupt", "bits of its model flip", "edge-2", "infer-1", Fault::CorruptModel, 3000),
    scene("config", "bad configuration, crash loop", "edge-1", "preprocess-2", Fault::BadConfig, 3000),
    scene("model", "a model with wrong answers by hand", "edge-2", "infer-2", Fault::BadModel, 4000),
    scene("leak", "leaks 30 MB/s", "edge-1", "preprocess-1", Fault::Leak, 3000),
    scene("slow", "answers 80 ms later", "edge-2", "infer-1", Fault::Slow, 6000),
    scene("agent", "kill -9 of the agent", "edge-1", "", Fault::Agent, 8000),
    scene("spawner", "kill -9 of the spawner", "edge-2", "", Fault::Spawner, 2000),
    scene("forwarder", "kill -9 of the forwarder", "edge-1", "forwarder", Fault::Forwarder, 3000),
    scene("hog", "burns a core", "edge-2", "infer-2", Fault::Hog, 2000),
    scene("stranger", "a stranger burns a core", "edge-2", "", Fault::Stranger, 7000),
    scene("frozen", "frozen metrics, queue at 900", "edge-2", "infer-1", Fault::FreezeMetrics, 7000),
    scene("twice-a", "two on one node: kill -9", "edge-3", "postprocess-1", Fault::Kill, 4500),
    scene("twice-b", "... and kill -9", "edge-3", "publisher-1", Fault::Kill, 0),
    scene("two-nodes-a", "two nodes at once: kill -9", "edge-1", "preprocess-2", Fault::Kill, 2000),
    scene("two-nodes-b", "... and accept loop blocked", "edge-2", "infer-1", Fault::Block, 0),
    scene("broker", "the broker is killed", "", "", Fault::BrokerDies, 3000),
    scene("offline-kill", "kill -9", "edge-1", "cache-1", Fault::Kill, 1000),
    scene("offline-corrupt", "bits of its model flip", "edge-2", "infer-2", Fault::CorruptModel, 2000),
    scene("offline-kill-store", "kill -9", "edge-3", "store-1", Fault::Kill, 3000),
    scene("offline-agent", "kill -9 of the agent, cold start", "edge-1", "", Fault::Agent, 2000),
    scene("offline-cold", "kill -9, after the cold start", "edge-1", "preprocess-1", Fault::Kill, 2000),
    scene("offline-entry", "kill -9", "edge-1", "gateway", Fault::Kill, 2000),
    scene("offline-block", "accept loop blocked", "edge-2", "infer-2", Fault::Block, 2000),
    scene("offline-forwarder", "kill -9 of the forwarder", "edge-2", "forwarder", Fault::Forwarder, 3000),
    scene("offline-agent-3", "kill -9 of the agent, cold start", "edge-3", "", Fault::Agent, 1500),
    scene("broker-back", "the broker is back", "", "", Fault::BrokerReturns, 2500),
];

const fn scene(
    id: &'static str,
    what: &'static str,
    node: &'static str,
    service: &'static str,
    fault: Fault,
    after: u64,
) -> Scene {
    Scene {
        id,
        what,
        node,
        service,
        fault,
        after,
    }
}

impl Expected {
    /// Whether an incident is to follow.
    pub(crate) fn recorded(&self) -> bool {
        matches!(self, Self::Plan(..) | Self::Refused(_))
    }
}

impl Scene {
    /// The route of its node behind which a replica stands.
    fn route(&self) -> &'static str {
        match self.node {
            "edge-1" => "preprocess",
            _ => "infer",
        }
    }

    /// Whose part it is, for people.
    pub(crate) fn place(&self) -> String {
        match (self.node, self.service) {
            ("", _) => String::new(),
            (node, "") => node.to_owned(),
            (node, service) => format!("{node} {service}"),
        }
    }

    /// What must become of it.
    pub(crate) fn expected(&self) -> Result<Expected> {
        let service = || ServiceId::new(self.service).context("a service's name");
        let restart = |grace| -> Result<Primitive> {
            Ok(Primitive::Restart {
                service: service()?,
                grace,
            })
        };
        let probe = || -> Result<Primitive> {
            Ok(Primitive::Probe {
                service: service()?,
                within: START_TIMEOUT,
            })
        };
        let playbook = |steps| -> Result<Expected> {
            let plan = Plan::series(steps).context("a plan of few steps")?;
            Ok(Expected::Plan(plan.to_string(), "playbook"))
        };
        match self.fault {
            Fault::Kill | Fault::Block | Fault::Forwarder => {
                let plan = Plan::single(restart(Millis(0))?).to_string();
                Ok(Expected::Plan(plan, "reflex"))
            }
            Fault::Leak | Fault::Hog | Fault::Slow => {
                let route = RouteId::new(self.route()).context("a route's name")?;
                playbook(vec![
                    Primitive::Isolate {
                        route: route.clone(),
                        backend: service()?,
                        drain: GRACE,
                    },
                    restart(GRACE)?,
                    Primitive::Release {
                        route,
                        backend: service()?,
                    },
                ])
            }
            Fault::CorruptModel | Fault::BadModel => {
                let to: ModelVersion = MODEL_VERSION.parse().context("the model's version")?;
                let service = service()?;
                playbook(vec![Primitive::RollbackModel { service, to }, probe()?])
            }
            Fault::BadConfig => {
                let to: ConfigVersion = Fleet::config_version()
                    .parse()
                    .context("a configuration's version")?;
                let service = service()?;
                playbook(vec![
                    Primitive::RollbackConfig { service, to },
                    restart(GRACE)?,
                ])
            }
            Fault::FillData => {
                let to = Percent::new(70).context("a share")?;
                let service = service()?;
                playbook(vec![Primitive::PruneData { service, to }, probe()?])
            }
            Fault::Stranger => Ok(Expected::Told("it is not touched")),
            // The queue that they tell of would otherwise start the standby.
            Fault::FreezeMetrics => Ok(Expected::Refused("stale-telemetry")),
            Fault::Agent | Fault::Spawner => Ok(Expected::Untouched),
            Fault::BrokerDies | Fault::BrokerReturns => Ok(Expected::Stage),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_story_has_the_faults_that_it_promises() {
        let ids: std::collections::BTreeSet<&str> = STORY.iter().map(|it| it.id).collect();
        assert_eq!(ids.len(), STORY.len());
        let broken = |scene: &&Scene| scene.expected().unwrap() != Expected::Stage;
        let place = |fault| STORY.iter().position(|scene| scene.fault == fault).unwrap();
        let offline = &STORY[place(Fault::BrokerDies) + 1..place(Fault::BrokerReturns)];
        let nodes: std::collections::BTreeSet<&str> = offline.iter().map(|it| it.node).collect();
        assert_eq!(nodes.len(), 3);
        let dead: u64 = offline.iter().map(|scene| scene.after).sum::<u64>()
            + STORY[place(Fault::BrokerReturns)].after;
        assert!(dead > 15_000);
        let mut kinds: Vec<Fault> = Vec::new();
        for scene in STORY.iter().filter(broken) {
            if !kinds.contains(&scene.fault) {
                kinds.push(scene.fault);
            }
        }
        assert_eq!(kinds.len(), 14);
    }

    #[test]
    fn plans_are_stated_as_the_record_prints_them() {
        let plan = |id: &str| {
            let scene = STORY.iter().find(|scene| scene.id == id).unwrap();
            match scene.expected().unwrap() {
                Expected::Plan(plan, source) => format!("{source}: {plan}"),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(
            plan("leak"),
            "playbook: isolate(preprocess, preprocess-1, drain=500ms) ; \
             restart(preprocess-1, grace=500ms) ; release(preprocess, preprocess-1)"
        );
        assert_eq!(
            plan("corrupt"),
            "playbook: rollback-model(infer-1, to=7fbcf863705ca4d4) ; probe(infer-1, within=5s)"
        );
        assert_eq!(plan("block"), "reflex: restart(infer-2, grace=0ms)");
        assert_eq!(plan("agent"), "Untouched");
    }
}
