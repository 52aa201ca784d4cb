//! A node alone, without any broker: it heals, says why, and refuses wrong configurations.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use homeostat_eval::stage::Node;
use homeostat_testbed::inject::{self, Corruption};

use crate::rig::{agent, closed, eager, explain, life, log, next_life, rest, scene, until};

const ALL: [&str; 3] = ["web", "worker", "infer"];

#[test]
fn kill_hang_and_bad_model_are_healed_without_any_broker_and_explained() {
    scene(|dir| {
        let mut node = Node::start(dir, &eager(&ALL, ""), None, None)?;
        let [web, worker, infer] = ["web", "worker", "infer"].map(|name| life(&node, name));
        let (web, worker, infer) = (web?, worker?, infer?);

        inject::kill9(web.pid)?;
        let new_web = next_life(&node, "web", &web)?;
        closed(&node, 1)?;
        inject::block(&node.control("worker")?)?;
        let new_worker = next_life(&node, "worker", &worker)?;
        closed(&node, 2)?;
        inject::corrupt_model(&node.model(), Corruption::Weights)?;
        next_life(&node, "infer", &infer)?;
        until("the good model", || node.model_intact().then_some(()))?;
        let all = closed(&node, 3)?;

        ensure!(all.len() == 3, "one incident a fault: {all:?}");
        for (told, fault) in all.iter().zip(["crash", "hang", "model"]) {
            let end = told.closed.as_deref().context("it is closed")?;
            ensure!(end.starts_with("healed after"), "{told:?}");
            ensure!(told.opened.contains(fault), "{fault}: {told:?}");
            let why = explain(&node, Some(told.number))?;
            for word in ["because", "chosen (", "capacity-seconds", "restart", "done"] {
                ensure!(why.contains(word), "no {word:?} in\n{why}");
            }
            println!("{why}");
        }
        // A healing touches what is ill, and nothing else.
        ensure!(life(&node, "web")? == new_web, "web was touched again");
        ensure!(
            life(&node, "worker")? == new_worker,
            "worker was touched again"
        );
        node.check()
    });
}

#[test]
fn services_outlive_a_killed_agent_and_open_incidents_get_their_end() {
    scene(|dir| {
        let mut node = Node::start(dir, &eager(&ALL, ""), None, None)?;
        let before: Vec<_> = ALL
            .map(|name| life(&node, name))
            .into_iter()
            .collect::<Result<_>>()?;
        node.kill_agent()?;
        node.start_agent()?;
        until("being taken over", || {
            log(&node)
                .contains("3 services run already and are taken over")
                .then_some(())
        })?;
        // Long enough for a needless restart to show.
        rest(Duration::from_secs(1));
        let after: Vec<_> = ALL
            .map(|name| life(&node, name))
            .into_iter()
            .collect::<Result<_>>()?;
        ensure!(before == after, "{before:?} became {after:?}");

        let (mut web, mut infer) = (life(&node, "web")?, life(&node, "infer")?);
        for round in 1..=4 {
            let mark = log(&node).len();
            if round % 2 == 0 {
                inject::kill9(web.pid)?;
            } else {
                inject::corrupt_model(&node.model(), Corruption::Weights)?;
            }
            until("a decision", || {
                log(&node).get(mark..)?.contains(": plan ").then_some(())
            })?;
            node.kill_agent()?;
            node.start_agent()?;
            if round % 2 == 0 {
                web = next_life(&node, "web", &web)?;
            } else {
                infer = next_life(&node, "infer", &infer)?;
                until("the good model", || node.model_intact().then_some(()))?;
            }
            let all = closed(&node, round)?;
            println!("round {round}: {:?}", all.last());
        }
        ensure!(life(&node, "worker")? == after[1], "worker was touched");
        node.check()
    });
}

#[test]
fn a_wrong_configuration_is_refused_with_file_line_key_and_value() {
    scene(|dir| {
        for (name, text, wanted) in [
            (
                "mode",
                "[node]\nid = \"a\"\n[limits]\nmode = \"heal\"\n",
                ":4: limits.mode = \"heal\"",
            ),
            (
                "key",
                "[node]\nid = \"a\"\n\n[limits]\nbugdet = 0.5\n",
                ":5: limits.bugdet: unknown key",
            ),
            (
                "port",
                "[node]\nid = \"a\"\n[[service]]\nid = \"x\"\ncommand = [\"/x\"]\nports = [99999]\n",
                ":6: service[0].ports = [99999]",
            ),
            ("syntax", "[node]\nid = \n", ":2: "),
        ] {
            let file = dir.join(format!("{name}.toml"));
            std::fs::write(&file, text)?;
            let path = file.to_str().context("UTF-8")?;
            for args in [
                &["check", path][..],
                &["run", "--config", path],
                &["spawn", "--config", path],
            ] {
                let output = agent(args)?;
                let said = String::from_utf8(output.stderr)?;
                ensure!(
                    output.status.code() == Some(2),
                    "{args:?}: {}",
                    output.status
                );
                ensure!(
                    said.contains(&format!("{path}{wanted}")),
                    "{args:?}: {said}"
                );
            }
        }
        Ok(())
    });
}
