//! What is broken, and what must happen then: stated before the first fault.

use homeostat_common::ids::{ModelVersion, ServiceId};
use homeostat_common::plan::Plan;
use homeostat_common::primitive::Primitive;
use homeostat_common::units::Millis;
use homeostat_eval::stage::MODEL_VERSION;

use anyhow::{Context as _, Result};

/// Time that a service gets between SIGTERM and SIGKILL where it is asked gently.
pub(crate) const GRACE: Millis = Millis(500);

/// One way to break something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(&'static str),
    Block(&'static str),
    Leak(&'static str),
    Corrupt,
    /// The agent itself; the services must not notice.
    Agent,
}

/// A fault at its place in the story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Part of the ids in the JSON form.
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) fault: Fault,
    /// Whether the node reaches its coordinator.
    pub(crate) connected: bool,
}

/// With the broker there.
pub(crate) const CONNECTED: [Scene; 5] = [
    scene("kill-web", "kill -9 of web", Fault::Kill("web"), true),
    scene(
        "block-web",
        "accept loop of web blocked",
        Fault::Block("web"),
        true,
    ),
    scene(
        "leak-worker",
        "worker leaks 30 MB/s",
        Fault::Leak("worker"),
        true,
    ),
    scene(
        "corrupt-infer",
        "weights of infer's model flipped",
        Fault::Corrupt,
        true,
    ),
    scene(
        "kill-agent",
        "kill -9 of the agent itself",
        Fault::Agent,
        true,
    ),
];

/// With the broker dead.
pub(crate) const OFFLINE: [Scene; 5] = [
    scene(
        "offline-kill-worker",
        "kill -9 of worker",
        Fault::Kill("worker"),
        false,
    ),
    scene(
        "offline-block-web",
        "accept loop of web blocked",
        Fault::Block("web"),
        false,
    ),
    scene(
        "offline-corrupt-infer",
        "weights of infer's model flipped",
        Fault::Corrupt,
        false,
    ),
    scene(
        "offline-kill-agent",
        "kill -9 of the agent, cold start",
        Fault::Agent,
        false,
    ),
    scene(
        "offline-kill-web",
        "kill -9 of web, after the cold start",
        Fault::Kill("web"),
        false,
    ),
];

const fn scene(id: &'static str, what: &'static str, fault: Fault, connected: bool) -> Scene {
    Scene {
        id,
        what,
        fault,
        connected,
    }
}

impl Scene {
    /// The service that suffers; `None` for the agent.
    pub(crate) fn service(&self) -> Option<&'static str> {
        match self.fault {
            Fault::Kill(name) | Fault::Block(name) | Fault::Leak(name) => Some(name),
            Fault::Corrupt => Some("infer"),
            Fault::Agent => None,
        }
    }

    /// The plan that must be chosen, as the record prints it, and where it must come from.
    pub(crate) fn expected(&self) -> Result<Option<(String, &'static str)>> {
        let Some(name) = self.service() else {
            return Ok(None);
        };
        let service = ServiceId::new(name).context("a service's name")?;
        let restart = |grace| Primitive::Restart {
            service: service.clone(),
            grace,
        };
        Ok(match self.fault {
            Fault::Kill(_) | Fault::Block(_) => {
                Some((Plan::single(restart(Millis(0))).to_string(), "reflex"))
            }
            Fault::Leak(_) => Some((Plan::single(restart(GRACE)).to_string(), "playbook")),
            Fault::Corrupt => {
                let to: ModelVersion = MODEL_VERSION.parse().context("the model's version")?;
                let rollback = Primitive::RollbackModel {
                    service: service.clone(),
                    to,
                };
                let plan = Plan::series(vec![rollback, restart(GRACE)]);
                Some((plan.context("a plan of two steps")?.to_string(), "playbook"))
            }
            Fault::Agent => None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_scene_has_an_id_of_its_own_and_a_plan_unless_it_is_the_agents() {
        let scenes = || CONNECTED.iter().chain(&OFFLINE);
        let ids: std::collections::BTreeSet<&str> = scenes().map(|scene| scene.id).collect();
        assert_eq!(ids.len(), 10);
        for scene in scenes() {
            let plan = scene.expected().unwrap();
            assert_eq!(plan.is_none(), scene.fault == Fault::Agent, "{scene:?}");
        }
        assert_eq!(
            CONNECTED[3].expected().unwrap().unwrap().0,
            "rollback-model(infer, to=7fbcf863705ca4d4) ; restart(infer, grace=500ms)"
        );
    }
}
