//! Containers of a real Podman, which answers Docker's API at a socket of this test.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use homeostat_agent::io::spawner::client::Event;
use homeostat_agent::io::spawner::protocol::{Exit, Refusal, StopSignal};

use crate::node::{Node, alive, died, exited, id, kill, next, refused, run, start, started, until};

#[test]
fn containers_are_run_by_their_engine_and_healed_like_any_service() {
    let mut podman = match Podman::new() {
        Ok(podman) => podman,
        Err(why) => return println!("skip: containers: {why}"),
    };
    if let Err(why) = podman.create("web", &[], &["sleep", "1000"]) {
        return println!("skip: containers: {why}");
    }
    podman.create("ends", &[], &["sh", "-c", "exit 3"]).unwrap();
    podman
        .create("always", &["--restart=always"], &["sleep", "1000"])
        .unwrap();
    run(async {
        podman.serve().await;
        let mut node = Node::new(&[]);
        for name in ["web", "ends", "always", "absent"] {
            let socket = podman.socket();
            node.append(&format!(
                "[[service]]\nid = \"{name}\"\ncontainer = \"{name}\"\nengine = \"unix://{socket}\"\n"
            ));
        }
        node.append(
            "[[service]]\nid = \"lost\"\ncontainer = \"web\"\nengine = \"unix:///no/such\"\n",
        );
        node.spawner(&[]);
        let (mut client, slots) = node.connect().await;
        assert!(slots.iter().all(|slot| slot.live.is_none()), "{slots:?}");
        let web = id("web");
        let (mut last, mut pid) = start(&mut client, &web).await;
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(words, "/busybox\0sleep\01000\0");
        for _ in 0..3 {
            kill(pid);
            assert_eq!(next(&mut client).await, died(&web, last));
            client.start(&web).await.unwrap();
            assert_eq!(next(&mut client).await, exited(&web, last, Exit::Signal(9)));
            let (instance, now) = started(next(&mut client).await, &web);
            assert!(instance > last && now != pid && alive(now));
            (last, pid) = (instance, now);
        }
        // The engine may be gone, and the spawner: the life stays the same.
        node.kill_spawner();
        node.spawner(&[]);
        let (mut client, slots) = node.connect().await;
        let slot = slots.iter().find(|slot| slot.service == web).unwrap();
        assert_eq!(slot.live, Some((last, pid)));
        // As the first process of its namespace it gets no signal that it has no
        // handler for, so only SIGKILL ends it.
        client.signal(&web, last, StopSignal::Term).await.unwrap();
        assert!(matches!(next(&mut client).await, Event::Signalled { .. }));
        client.signal(&web, last, StopSignal::Kill).await.unwrap();
        assert!(matches!(next(&mut client).await, Event::Signalled { .. }));
        assert_eq!(next(&mut client).await, died(&web, last));
        assert_eq!(next(&mut client).await, exited(&web, last, Exit::Signal(9)));
        for (name, words) in [
            (
                "always",
                "container always has restart policy \"always\", and two healers",
            ),
            ("absent", "has no container absent"),
            ("lost", "cannot reach the engine at /no/such"),
        ] {
            client.start(&id(name)).await.unwrap();
            let Event::Refused {
                why: Refusal::Spawn { text },
                service,
            } = next(&mut client).await
            else {
                panic!("{name} started");
            };
            assert!(service == id(name) && text.contains(words), "{text}");
        }
        // Whether it is seen alive is a matter of microseconds.
        let ends = id("ends");
        client.start(&ends).await.unwrap();
        match next(&mut client).await {
            Event::Refused {
                why: Refusal::Spawn { text },
                ..
            } => {
                let words = "container ends ended as it started: exit status 3";
                assert!(text.contains(words), "{text}");
            }
            event => {
                let (life, _) = started(event, &ends);
                assert_eq!(next(&mut client).await, died(&ends, life));
                assert_eq!(next(&mut client).await, exited(&ends, life, Exit::Code(3)));
            }
        }
        // Started by somebody else before this spawner's time.
        node.kill_spawner();
        podman.command(&["start", "web"]).output().unwrap();
        node.spawner(&[]);
        let (mut client, slots) = node.connect().await;
        let slot = slots.iter().find(|slot| slot.service == web).unwrap();
        let (life, pid) = slot.live.unwrap();
        assert!(life > last && alive(pid));
        client.start(&web).await.unwrap();
        let why = Refusal::Occupied { instance: life };
        assert_eq!(next(&mut client).await, refused(&web, why));
    });
}

/// Podman with a store of its own.
struct Podman {
    folder: tempfile::TempDir,
    service: Option<Child>,
}

impl Podman {
    fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        for program in ["/usr/bin/podman", "/usr/bin/crun", "/usr/bin/busybox"] {
            if !Path::new(program).exists() {
                return Err(format!("{program} is not installed"));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("rootfs");
        for name in ["proc", "sys", "dev", "tmp", "etc", "run"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/usr/bin/busybox", root.join("busybox")).unwrap();
        fs::write(
            folder.path().join("containers.conf"),
            "[containers]\ndefault_ulimits = []\n",
        )
        .unwrap();
        let service = None;
        Ok(Self { folder, service })
    }

    fn socket(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    /// In a mount namespace, because crun takes the mixed hierarchies of some
    /// machines for one it does not know.
    fn command(&self, words: &[&str]) -> Command {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("unshare");
        command
            .args(["-m", "/bin/sh", "-c"])
            .arg("umount /sys/fs/cgroup/unified 2>/dev/null; exec podman \"$@\"")
            .arg("sh")
            .arg("--root")
            .arg(at("store"))
            .arg("--runroot")
            .arg(at("run"))
            .args(["--events-backend=none", "--cgroup-manager=cgroupfs"])
            .args(words)
            .env("CONTAINERS_CONF", at("containers.conf"))
            .stdin(Stdio::null());
        command
    }

    fn create(&self, name: &str, more: &[&str], program: &[&str]) -> Result<(), String> {
        let root = self.folder.path().join("rootfs").display().to_string();
        let mut words = vec![
            "create",
            "--name",
            name,
            "--cgroups=disabled",
            "--network=host",
        ];
        words.extend(["--ulimit=host", "--stop-timeout=0"]);
        words.extend(more);
        words.extend(["--rootfs", &root, "/busybox"]);
        words.extend(program);
        let output = self
            .command(&words)
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        output.status.success().then_some(()).ok_or(text)
    }

    async fn serve(&mut self) {
        let address = format!("unix://{}", self.socket());
        let mut command = self.command(&["system", "service", "-t", "0", &address]);
        self.service = Some(command.stderr(Stdio::null()).spawn().unwrap());
        until("the engine's socket", || Path::new(&self.socket()).exists()).await;
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all", "--force"]).output();
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}
