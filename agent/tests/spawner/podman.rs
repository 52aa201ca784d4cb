//! A real Podman to test with, with a store of its own, which answers Docker's API at a
//! socket of its own.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::node::{Groups, until};

/// Podman with a store of its own.
pub(crate) struct Podman {
    folder: tempfile::TempDir,
    service: Option<Child>,
    groups: Groups,
}

impl Podman {
    pub(crate) fn new(test: &str) -> Result<Self, String> {
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
            format!(
                "[containers]\ndefault_ulimits = []\n[engine]\nlock_type = \"file\"\n\
                 tmp_dir = \"{}\"\n",
                // Else it shares locks and exit files with any other of this machine.
                folder.path().join("tmp").display()
            ),
        )
        .unwrap();
        let service = None;
        // Those of version 1, and the root of version 2.
        let places = ["blkio", "cpu", "cpuacct", "cpuset", "devices"];
        let more = ["freezer", "memory", "pids", "systemd", "unified", ""];
        let groups = Groups::within(&[&places[..], &more[..]].concat(), test);
        Ok(Self {
            folder,
            service,
            groups,
        })
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    /// In a mount namespace, because crun takes the mixed hierarchies of some
    /// machines for one it does not know.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
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
            // Its monitor leaves a file `oom` where it stands.
            .current_dir(at(""))
            .stdin(Stdio::null());
        command
    }

    /// A folder of the host that is the root of each container.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// A container in no control group, which needs the least of the machine.
    pub(crate) fn create(&self, name: &str, more: &[&str], program: &[&str]) -> Result<(), String> {
        self.make(name, &[&["--cgroups=disabled"], more].concat(), program)
    }

    /// A container in a control group of its own, which can be frozen and limited.
    pub(crate) fn create_grouped(&self, name: &str, program: &[&str]) -> Result<(), String> {
        let parent = format!("--cgroup-parent=/{}", self.groups.name);
        self.make(name, &[&parent], program)
    }

    fn make(&self, name: &str, more: &[&str], program: &[&str]) -> Result<(), String> {
        let root = self.root().display().to_string();
        let mut words = vec!["create", "--name", name, "--network=host"];
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

    pub(crate) async fn serve(&mut self) {
        let address = format!("unix://{}", self.socket());
        let mut command = self.command(&["system", "service", "-t", "0", &address]);
        let _ = fs::remove_file(self.socket());
        self.service = Some(command.stderr(Stdio::null()).spawn().unwrap());
        until("the engine's socket", || {
            UnixStream::connect(self.socket()).is_ok()
        })
        .await;
    }
}

impl Podman {
    /// Ends the engine, which is not a parent of its containers.
    pub(crate) fn kill(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all", "--force"]).output();
        self.kill();
    }
}
