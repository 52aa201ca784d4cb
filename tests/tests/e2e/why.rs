//! Why: a real incident of a real node is explained over levels, with a root.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use homeostat_coordinator::fleet::diagnosis::Level;
use homeostat_coordinator::fleet::view::{IncidentDetail, Relation};
use homeostat_eval::stage::{BrokerKind, Cloud, Node};
use homeostat_testbed::inject;

use crate::rig::{eager, life, log, next_life, scene, until};

/// What can be said against the explanation.
fn judged(detail: &IncidentDetail) -> Result<()> {
    let causes = detail.causes.as_ref().context("no causes")?;
    ensure!(
        causes.alarmed.to_string() == "web on edge-1",
        "{}",
        causes.alarmed
    );
    let root = causes.root.as_ref().context("no root")?;
    let sum: f64 = causes.suspects.iter().map(|one| one.confidence).sum();
    ensure!(sum > 0.0 && sum < 1.0 + 1e-6, "confidence {sum}");
    let end = causes.chain.iter().find(|one| one.place == *root);
    ensure!(end.is_some(), "the chain does not reach {root}");
    ensure!(detail.group.is_none(), "{:?}", detail.group);
    ensure!(
        detail.contradictions == 0,
        "{} contradictions",
        detail.contradictions
    );
    let relation = |kind: &str| {
        let found = detail.timeline.iter().find(|event| event.kind == kind);
        found.and_then(|event| event.relation)
    };
    ensure!(relation("incident-opened") == Some(Relation::Same));
    ensure!(relation("incident-closed") == Some(Relation::After));
    let question = detail.what_if.first().context("no what-if")?;
    ensure!(
        question.estimate.is_none(),
        "one incident says nothing: {question:?}"
    );
    Ok(())
}

fn explained(dir: &Path) -> Result<()> {
    let cloud = Cloud::start(dir, BrokerKind::Embedded)?;
    let mut node = Node::start(
        dir,
        &eager(&["web", "infer"], ""),
        Some(&cloud.broker_url()),
        None,
    )?;
    until("the broker", || {
        log(&node).contains("broker: connected").then_some(())
    })?;
    let web = life(&node, "web")?;
    inject::kill9(web.pid)?;
    next_life(&node, "web", &web)?;
    let api = cloud.api();
    let number = until("the incident", || {
        let over = api
            .incidents()
            .ok()?
            .into_iter()
            .find(|one| one.outcome.is_some())?;
        Some(over.id)
    })?;
    judged(&api.incident(number)?)?;

    let why = api.why("web")?;
    let [one] = &why[..] else {
        anyhow::bail!("{why:?}")
    };
    ensure!(one.incident == Some(number), "{one:?}");
    ensure!(one.levels.contains(&Level::Application), "{:?}", one.levels);
    ensure!(
        one.levels.contains(&Level::Infrastructure),
        "{:?}",
        one.levels
    );
    println!("{}", one.text);

    node.check()
}

#[test]
fn a_real_incident_is_explained() {
    scene(explained);
}
