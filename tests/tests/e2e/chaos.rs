//! A person puts faults into services of a node: the agent heals them, and says where they came
//! from.

use anyhow::{Result, ensure};
use homeostat_eval::stage::Node;

use crate::rig::{agent, closed, eager, explain, life, next_life, scene, until};

/// Runs `chaos`, and returns whether it was done, and all that was said.
fn chaos(node: &Node, words: &[&str]) -> Result<(bool, String)> {
    let config = node.config().to_str().unwrap();
    let args = [&["chaos"][..], words, &["--config", config]].concat();
    let output = agent(&args)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[test]
fn what_is_broken_on_purpose_is_healed_and_told_to_be_on_purpose() {
    scene(|dir| {
        let mut settings = eager(&["web", "infer"], "");
        settings.service += "\nchaos = true";
        let mut node = Node::start(dir, &settings, None, None)?;
        let (web, infer) = (life(&node, "web")?, life(&node, "infer")?);
        let (done, said) = chaos(&node, &["sigstop", "web", "--for", "20s"])?;
        ensure!(!done && said.contains("nothing was done"), "{said}");
        ensure!(life(&node, "web")? == web);
        for (words, why) in [
            (["earthquake", "web"], "data-full"),
            (["kill", "nobody"], "there is no service nobody"),
            (["data-full", "web"], "no data"),
            (["corrupt-model", "web"], "no slot"),
        ] {
            let (done, said) = chaos(&node, &[&words[..], &["--yes"]].concat())?;
            ensure!(!done && said.contains(why), "{words:?}: {said}");
        }
        // Everything has to have shown that it is well.
        let broken = |words: &[&str]| {
            until("the fault to be admitted", || {
                let (done, said) = chaos(&node, words).ok()?;
                println!("{said}");
                done.then_some(said)
            })
        };
        broken(&["sigstop", "web", "--for", "60s", "--yes"])?;
        let stopped = next_life(&node, "web", &web)?;
        let first = closed(&node, 1)?;
        broken(&["kill", "web", "--yes"])?;
        next_life(&node, "web", &stopped)?;
        closed(&node, 2)?;
        broken(&["corrupt-model", "infer", "--for", "60s", "--yes"])?;
        next_life(&node, "infer", &infer)?;
        until("the good model", || node.model_intact().then_some(()))?;
        let all = closed(&node, 3)?;
        ensure!(all.len() >= 3 && first.len() == 1, "{all:?}");
        for told in &all {
            let why = explain(&node, Some(told.number))?;
            ensure!(why.contains("on purpose"), "{why}");
        }
        node.check()
    });
}

#[test]
fn who_did_not_opt_in_is_left_alone() {
    scene(|dir| {
        let mut node = Node::start(dir, &eager(&["web"], ""), None, None)?;
        let web = life(&node, "web")?;
        let (done, said) = chaos(&node, &["kill", "web", "--yes"])?;
        ensure!(!done && said.contains("opted in"), "{said}");
        let (done, said) = chaos(&node, &["end", "--yes"])?;
        ensure!(done, "{said}");
        ensure!(life(&node, "web")? == web);
        node.check()
    });
}
