//! A whole node, with loop, spawner and store: a command, a unit of a real systemd and a
//! container of a real Podman, each killed, healed, and explained in the same words.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::node::{Node, alive, kill, until};
use crate::podman::Podman;
use crate::systemd::{show, with_systemd};

#[test]
fn a_command_a_unit_and_a_container_are_healed_and_explained_alike() {
    let test = "whole::a_command_a_unit_and_a_container_are_healed_and_explained_alike";
    with_systemd(test, async {
        let mut node = Node::new(&[("plain", "exec sleep 1000")]);
        let mut services = vec!["plain", "web"];
        node.append("[[service]]\nid = \"web\"\nunit = \"web.service\"\n");
        let mut podman = Podman::new(test).and_then(|podman| {
            podman.create("box", &[], &["sleep", "1000"])?;
            Ok(podman)
        });
        match &mut podman {
            Err(why) => println!("skip: the container of {test}: {why}"),
            Ok(podman) => {
                podman.serve().await;
                services.push("box");
                node.append(&format!(
                    "[[service]]\nid = \"box\"\ncontainer = \"box\"\nengine = \"unix://{}\"\n",
                    podman.socket()
                ));
            }
        }
        node.append("[limits]\nmode = \"act\"\n");
        node.spawner(&[]);
        let agent = Agent::of(&node);
        for (n, service) in services.iter().enumerate() {
            until("it runs", || pid(&node, service).is_some()).await;
            let former = pid(&node, service).unwrap();
            // What it does at its start is no healing.
            let begun = Instant::now();
            kill(former);
            until("it runs again", || {
                pid(&node, service).is_some_and(|pid| pid != former && alive(pid))
            })
            .await;
            println!(
                "{service}: kill -9 to the next life {:.1} ms, whole",
                begun.elapsed().as_secs_f64() * 1e3
            );
            let incident = (n + 1).to_string();
            until("its end", || {
                explain(&node, &[&incident]).contains("healed after")
            })
            .await;
            let told = explain(&node, &[&incident]);
            for words in [
                format!("{service} is dead; believed to be crash"),
                format!("restart({service}, grace=0ms) done"),
            ] {
                assert!(told.contains(&words), "{told}");
            }
        }
        assert_eq!(
            show("web", "MainPID"),
            pid(&node, "web").unwrap().to_string()
        );
        drop(agent);
    });
}

/// The loop, as a process.
struct Agent(Child);

impl Agent {
    fn of(node: &Node) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"));
        command
            .args(["run", "--config"])
            .arg(node.folder.path().join("agent.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process of `service` that the spawner has recorded.
fn pid(node: &Node, service: &str) -> Option<u32> {
    let slots = fs::read_to_string(node.run_dir().join("spawner/slots")).ok()?;
    let line = slots
        .lines()
        .find_map(|line| line.strip_prefix(&format!("slot {service} ")))?;
    line.split(' ').nth(1)?.parse().ok()
}

fn explain(node: &Node, more: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"))
        .arg("explain")
        .args(more)
        .arg("--config")
        .arg(node.folder.path().join("agent.toml"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
