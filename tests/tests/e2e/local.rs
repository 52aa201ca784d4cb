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

#[test]
fn a_reload_restarts_what_changed_and_a_bad_one_changes_nothing() {
    scene(|dir| {
        let mut node = Node::start(dir, &eager(&["web", "worker"], ""), None, None)?;
        let (web, worker) = (life(&node, "web")?, life(&node, "worker")?);
        let file = node.config().to_owned();
        let path = file.to_str().context("a path in UTF-8")?.to_owned();
        let first = std::fs::read_to_string(&file)?;
        let reload = || agent(&["reload", "--config", &path]);
        let socket = node.dir().join("run/agent.sock");
        until("the agent's socket", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        })?;

        // Wrong: said by line and key, and nothing has happened.
        std::fs::write(&file, first.replace("misses = 2", "misses = 0"))?;
        let refused = reload()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(2), "{refused:?}");
        ensure!(said.contains("misses = 0: expected"), "{said}");
        // Right, but not while it runs.
        std::fs::write(
            &file,
            first.replace("period = \"250ms\"", "period = \"300ms\""),
        )?;
        let refused = reload()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        ensure!(
            said.contains("nothing has changed: sample cannot change"),
            "{said}"
        );
        rest(Duration::from_millis(500));
        ensure!(life(&node, "web")? == web, "web was touched");

        // Probes alone: nobody is restarted.
        std::fs::write(&file, first.replace("misses = 2", "misses = 3"))?;
        let done = reload()?;
        ensure!(done.status.success(), "{done:?}");
        rest(Duration::from_millis(500));
        ensure!(life(&node, "web")? == web, "web was touched for its probes");

        // Another environment for one of them: that one is restarted.
        let place = first.find("id = \"web\"").context("web is configured")?;
        let (before, after) = first.split_at(place);
        let changed = format!(
            "{before}{}",
            after.replacen(
                "id = \"web\"",
                "id = \"web\"\nenv = { COLOUR = \"red\" }",
                1
            )
        );
        std::fs::write(&file, changed)?;
        let done = reload()?;
        ensure!(done.status.success(), "{done:?}");
        let new = next_life(&node, "web", &web)?;
        ensure!(life(&node, "worker")? == worker, "worker was touched");
        let environment = std::fs::read(format!("/proc/{}/environ", new.pid))?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        ensure!(environment.contains("COLOUR=red"), "{environment}");
        let told = closed(&node, 1)?;
        let why = explain(&node, told.first().map(|told| told.number))?;
        ensure!(
            why.contains("the configuration of web has changed"),
            "{why}"
        );

        // It still heals, by the new probes.
        inject::kill9(new.pid)?;
        next_life(&node, "web", &new)?;
        node.check()
    });
}

#[test]
fn a_person_asks_for_a_plan_and_the_gate_answers() {
    scene(|dir| {
        let mut node = Node::start(dir, &eager(&["web"], ""), None, None)?;
        let web = life(&node, "web")?;
        let path = node
            .config()
            .to_str()
            .context("a path in UTF-8")?
            .to_owned();
        let socket = node.dir().join("run/agent.sock");
        until("the agent's socket", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        })?;
        let ask = |plan: &str| agent(&["do", plan, "--config", &path]);
        let done = ask("restart(web, grace=500ms)")?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(done.status.success(), "{done:?}");
        ensure!(
            said.contains("chosen (operator): restart(web, grace=500ms)"),
            "{said}"
        );
        next_life(&node, "web", &web)?;
        for (plan, why) in [
            ("restart(nobody, grace=1s)", "not done: "),
            (
                "switch-model(web, to=0011223344556677)",
                "rule unverified-version",
            ),
            ("scale-out(web, web)", "rule unknown-route"),
            ("restart(web)", "not a plan"),
        ] {
            let refused = ask(plan)?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(refused.status.code() == Some(1), "{plan}: {refused:?}");
            ensure!(said.contains(why), "{plan}: {said}");
        }
        node.check()
    });
}
