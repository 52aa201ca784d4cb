//! A plan across three nodes: real agents, forwarders, services, broker and coordinator.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_coordinator::fleet::plans::StepIs;
use homeostat_eval::stage::trio::{BACK, PLAN, Stand, Trio};
use homeostat_eval::stage::{BrokerKind, interrupt};

use crate::rig::{agent, explain, rest, scene};

/// Every plan has ended by then, or a person is called.
const SPAN: Duration = Duration::from_secs(60);

#[test]
fn a_plan_across_three_nodes_is_done_or_taken_back() {
    scene(|dir| {
        let mut trio = Trio::start(dir, BrokerKind::Embedded)?;
        let plan = trio.run(PLAN, SPAN)?;
        ensure!(plan.phase == "done", "{plan:?}");
        ensure!(
            plan.steps.iter().all(|step| step.state == StepIs::Done),
            "{plan:?}"
        );
        ensure!(trio.stands()? == [Stand::After; 3], "{:?}", trio.stands()?);
        trio.reset()?;
        ensure!(trio.stands()? == [Stand::Before; 3], "{:?}", trio.stands()?);

        // What one node's gate refuses begins nowhere.
        let refused = "edge-1: isolate(web, web-1, drain=200ms) ; edge-2: wait(1s) ; \
                       edge-3: isolate(web, web-1, drain=1s) ; edge-3: isolate(web, web-2, drain=1s)";
        let plan = trio.run(refused, SPAN)?;
        ensure!(plan.phase == "undone", "{plan:?}");
        let why = plan.why.context("it says why")?;
        ensure!(
            why.contains("edge-3 refuses") && why.contains("last-backend"),
            "{why}"
        );
        ensure!(trio.stands()? == [Stand::Before; 3]);

        // A node that vanishes in the middle: the others take their parts back, and it does
        // when it is there again.
        let slow = "edge-1: isolate(web, web-1, drain=200ms) ; edge-2: wait(2s) ; \
                    edge-3: reroute(web, from=web-1, to=web-2, share=40%)";
        let id = trio.begin(slow)?;
        rest(Duration::from_millis(700));
        ensure!(trio.stand(0)? == Stand::After, "{:?}", trio.stands()?);
        trio.node_mut(2)?.kill_agent()?;
        until_long("the others to take it back", || {
            (trio.stand(0).ok()? == Stand::Before).then_some(())
        })?;
        trio.node_mut(2)?.start_agent()?;
        let plan = trio.ended(id, SPAN)?;
        ensure!(plan.phase == "undone", "{plan:?}");
        let why = plan.why.context("it says why")?;
        ensure!(why == "edge-3 does not answer", "{why}");
        ensure!(trio.stands()? == [Stand::Before; 3], "{:?}", trio.stands()?);
        // The coordinator killed in the middle: its next life goes on with the plan.
        let kept = trio.begin(slow)?;
        rest(Duration::from_millis(700));
        trio.cloud_mut().kill_coordinator()?;
        trio.cloud_mut().start_coordinator()?;
        let plan = trio.ended(kept, SPAN)?;
        ensure!(plan.phase == "done", "{plan:?}");
        let stands = trio.stands()?;
        ensure!(
            stands == [Stand::After, Stand::Before, Stand::After],
            "{stands:?}"
        );
        let told = explain(&trio.nodes()[0], None)?;
        for (plan, end) in [(kept, ": kept after"), (id, ": taken back after")] {
            let line = format!("coordinator-{plan} (");
            let line = told.lines().find(|told| told.contains(&line));
            ensure!(line.is_some_and(|line| line.contains(end)), "{told}");
        }
        let told = explain(&trio.nodes()[0], Some(kept))?;
        ensure!(
            told.contains("isolate(web, web-1, drain=200ms): done"),
            "{told}"
        );
        Ok(())
    });
}

#[test]
fn a_node_leads_a_plan_without_a_coordinator() {
    scene(|dir| {
        let mut trio = Trio::start(dir, BrokerKind::Embedded)?;
        trio.cloud_mut().kill_coordinator()?;
        let config = trio.nodes()[0].config().to_str().unwrap().to_owned();
        let ask = |plan: &str| -> Result<()> {
            let output = agent(&["do", plan, "--config", &config])?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{said}{error}");
            ensure!(said.ends_with("all done\n"), "{said}");
            Ok(())
        };
        ask(PLAN)?;
        ensure!(trio.stands()? == [Stand::After; 3], "{:?}", trio.stands()?);
        ask(BACK)?;
        ensure!(trio.stands()? == [Stand::Before; 3], "{:?}", trio.stands()?);

        // Killed while it leads: the next life goes on with it, and takes it back, as its
        // own part was not done.
        let slow = "edge-1: isolate(web, web-1, drain=200ms) ; edge-1: wait(2s) ; \
                    edge-3: reroute(web, from=web-1, to=web-2, share=40%)";
        let begun = agent(&["do", slow, "--quiet", "--config", &config])?;
        ensure!(begun.status.success(), "{begun:?}");
        rest(Duration::from_millis(700));
        ensure!(trio.stand(0)? == Stand::After, "{:?}", trio.stands()?);
        trio.node_mut(0)?.kill_agent()?;
        trio.node_mut(0)?.start_agent()?;
        until_long("its end", || {
            let told = explain(&trio.nodes()[0], None).ok()?;
            told.contains(": all taken back").then_some(())
        })?;
        ensure!(trio.stands()? == [Stand::Before; 3], "{:?}", trio.stands()?);
        Ok(())
    });
}

fn until_long<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Result<T> {
    interrupt::until(what, SPAN, ask)
}
