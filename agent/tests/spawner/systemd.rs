//! A real systemd to test with: the first process of namespaces made for one test,
//! which it then runs again, as one of its units. See `boot.sh`.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::node::{Groups, run};

/// Set for the test inside.
const INSIDE: &str = "HOMEOSTAT_TEST_INSIDE";
/// Hierarchies of version 1 and 2 that systemd needs, beside each other.
const HIERARCHIES: [&str; 3] = ["systemd", "memory", "unified"];

pub(crate) fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl").args(words).output().unwrap();
    assert!(output.status.success(), "systemctl {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn show(unit: &str, property: &str) -> String {
    systemctl(&[
        "show",
        "--value",
        "-p",
        property,
        &format!("{unit}.service"),
    ])
}

/// Runs `inside` as a unit of a systemd of its own, by starting this very `test`
/// again there; says why where that cannot be.
pub(crate) fn with_systemd(test: &str, inside: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        return run(inside);
    }
    if let Err(why) = boot(test) {
        println!("skip: {test}: {why}");
    }
}

fn boot(test: &str) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".into());
    }
    for program in [
        "/lib/systemd/systemd",
        "/usr/bin/dbus-daemon",
        "/usr/bin/unshare",
    ] {
        if !Path::new(program).exists() {
            return Err(format!("{program} is not installed"));
        }
    }
    let share = tempfile::tempdir().unwrap();
    let groups = Groups::make(&HIERARCHIES, test)?;
    fs::create_dir(share.path().join("mem")).unwrap();
    let own = std::env::current_exe().unwrap();
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_homeostat-agent"));
    write_units(&share.path().join("units"), &own, test);
    let script = share.path().join("boot.sh");
    fs::write(&script, include_str!("boot.sh")).unwrap();
    let marker = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let words: Vec<_> = groups.paths().map(|it| it.display().to_string()).collect();
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            "for group in $GROUPS_; do echo $$ > $group/cgroup.procs; done; exec \"$@\"",
            "sh",
        ])
        .args([
            "unshare",
            "--kill-child=SIGKILL",
            "-m",
            "-p",
            "-u",
            "-i",
            "-C",
            "-f",
        ])
        .args(["/bin/sh"])
        .arg(&script)
        .arg(share.path())
        .args([&own, &agent])
        .env("GROUPS_", words.join(" "))
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = fs::read_to_string(share.path().join("out")).unwrap_or_default();
    let kept = marker.path().exists();
    if said.is_empty() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("no namespaces or no systemd here: {}", text.trim()));
    }
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    // What it measured.
    for line in said.lines().filter(|line| line.contains(" ms ")) {
        println!("{line}");
    }
    assert!(kept, "systemd has cleared the /tmp of the host");
    assert!(!Path::new("/run/systemd/system/inside.target").exists());
    Ok(())
}

fn write_units(folder: &Path, program: &Path, test: &str) {
    fs::create_dir(folder).unwrap();
    let unit = |name: &str, text: &str| {
        let text = format!("[Unit]\nDefaultDependencies=no\n{text}");
        fs::write(folder.join(name), text).unwrap();
    };
    unit(
        "inside.target",
        "Wants=dbus.socket inside.service\nAfter=dbus.socket\n",
    );
    unit(
        "dbus.socket",
        "[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    );
    unit(
        "dbus.service",
        "Requires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\nExecStart=\
         /usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile \
         --systemd-activation --syslog-only\n",
    );
    unit(
        "inside.service",
        &format!(
            "After=dbus.socket\nSuccessAction=exit-force\nFailureAction=exit-force\n\
             FailureActionExitStatus=1\n[Service]\nType=oneshot\nTimeoutStartSec=50\n\
             Environment={INSIDE}=1 LIVES={}\nStandardOutput=append:/run/share/out\n\
             StandardError=append:/run/share/out\nExecStart={} --exact {test} --nocapture\n",
            std::env::var("LIVES").unwrap_or_default(),
            program.display()
        ),
    );
    unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    unit(
        "small.service",
        "[Service]\nExecStart=/bin/sleep 1000\nCPUQuota=150%\n",
    );
    unit(
        "forked.service",
        "[Service]\nType=forking\nGuessMainPID=no\nExecStart=/bin/sh -c 'sleep 1000 &'\n",
    );
    unit(
        "once.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    );
    unit(
        "broken.service",
        "[Service]\nExecStart=/bin/sh -c 'exit 3'\n",
    );
    for name in ["always.service", "twice.service"] {
        unit(
            name,
            "[Service]\nRestart=always\nExecStart=/bin/sleep 1000\n",
        );
    }
    unit(
        "stubborn.service",
        "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\n",
    );
    std::os::unix::fs::symlink("/dev/null", folder.join("masked.service")).unwrap();
}
