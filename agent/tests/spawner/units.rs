//! Units of a real systemd. It is the first process of namespaces made for this
//! test, and runs the test itself as one of its units; see `boot.sh`.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use homeostat_agent::io::spawner::client::{Client, Event};
use homeostat_agent::io::spawner::protocol::{Exit, ProcessAct, Refusal, StopSignal};
use homeostat_common::ids::{Instance, PlanId, Token};
use homeostat_common::units::Percent;

use crate::node::{Node, alive, died, exited, id, kill, next, run, start, started, until};

/// Set for the test inside.
const INSIDE: &str = "HOMEOSTAT_TEST_INSIDE";
/// Hierarchies of version 1 and 2 that systemd needs, beside each other.
const HIERARCHIES: [&str; 3] = ["systemd", "memory", "unified"];

#[test]
fn units_are_run_by_systemd_and_healed_like_any_service() {
    if std::env::var_os(INSIDE).is_some() {
        return run(inside());
    }
    if let Err(why) = boot() {
        println!("skip: units of systemd: {why}");
    }
}

async fn inside() {
    let mut node = Node::new(&[]);
    for unit in ["web", "stubborn", "always", "masked", "absent", "broken"] {
        node.append(&format!(
            "[[service]]\nid = \"{unit}\"\nunit = \"{unit}.service\"\nstop_grace = \"100ms\"\n"
        ));
    }
    node.append(
        "[[service]]\nid = \"small\"\nunit = \"small.service\"\nmemory_limit = \"16MiB\"\n",
    );
    node.append(
        "[[service]]\nid = \"twice\"\nunit = \"twice.service\"\nrestart_by_systemd = true\n",
    );
    node.spawner(&[]);
    let (mut client, slots) = node.connect().await;
    assert!(slots.iter().all(|slot| slot.live.is_none()), "{slots:?}");
    let web = id("web");
    let (mut last, mut pid) = start(&mut client, &web).await;
    assert_eq!(show("web", "MainPID"), pid.to_string());
    // More often than the start limit of systemd (5 in 10 s) lets pass.
    for _ in 0..8 {
        kill(pid);
        assert_eq!(next(&mut client).await, died(&web, last));
        client.start(&web).await.unwrap();
        assert_eq!(next(&mut client).await, exited(&web, last, Exit::Signal(9)));
        let (instance, now) = started(next(&mut client).await, &web);
        assert!(instance > last && now != pid && alive(now));
        (last, pid) = (instance, now);
    }
    // Who is asked to start what runs gives what runs.
    client.start(&web).await.unwrap();
    let why = Refusal::Occupied { instance: last };
    assert_eq!(next(&mut client).await, crate::node::refused(&web, why));

    client.signal(&web, last, StopSignal::Term).await.unwrap();
    assert_eq!(ended(&mut client, &web, last).await, Exit::Signal(15));
    let stubborn = id("stubborn");
    let (one, pid) = start(&mut client, &stubborn).await;
    until("the trap", || ignores_term(pid)).await;
    client
        .signal(&stubborn, one, StopSignal::Term)
        .await
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(alive(pid));
    client
        .signal(&stubborn, one, StopSignal::Kill)
        .await
        .unwrap();
    assert_eq!(ended(&mut client, &stubborn, one).await, Exit::Signal(9));

    for (name, words) in [
        (
            "always",
            "unit always.service has Restart=always, and two healers",
        ),
        ("masked", "never to start (masked) unit masked.service"),
        ("absent", "systemd has no unit absent.service"),
    ] {
        client.start(&id(name)).await.unwrap();
        let Event::Refused {
            why: Refusal::Spawn { text },
            ..
        } = next(&mut client).await
        else {
            panic!("{name} started");
        };
        assert!(text.contains(words), "{text}");
    }
    // Whether it is seen alive is a matter of microseconds.
    let broken = id("broken");
    client.start(&broken).await.unwrap();
    match next(&mut client).await {
        Event::Refused {
            why: Refusal::Spawn { text },
            ..
        } => {
            let words = "unit broken.service ended as it started: exit-code, status 3";
            assert!(text.contains(words), "{text}");
        }
        event => {
            let (life, _) = started(event, &broken);
            assert_eq!(ended(&mut client, &broken, life).await, Exit::Code(3));
        }
    }
    let small = id("small");
    let (life, pid) = start(&mut client, &small).await;
    let Event::MemoryLimit {
        service,
        not_enforced,
        ..
    } = next(&mut client).await
    else {
        panic!("what became of the limit");
    };
    assert_eq!((&service, not_enforced), (&small, None));
    assert_eq!(show("small", "MemoryMax"), (16 << 20).to_string());
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    let token = Token {
        plan: PlanId(1),
        step: 0,
        undo: false,
    };
    let half = Percent::new(50).unwrap();
    for (act, seen) in [
        (ProcessAct::Freeze, 'T'),
        (ProcessAct::Thaw, 'S'),
        (ProcessAct::LimitCpu(Some(half)), 'S'),
    ] {
        client.act(token, &small, life, act).await.unwrap();
        let acted = Event::Acted {
            token,
            failed: None,
        };
        assert_eq!(next(&mut client).await, acted);
        until("the state", || state() == seen).await;
    }
    assert_ne!(show("small", "CPUQuotaPerSecUSec"), "infinity");

    // Systemd restarts it by itself here, and is waited for.
    let twice = id("twice");
    let (one, pid) = start(&mut client, &twice).await;
    kill(pid);
    assert_eq!(next(&mut client).await, died(&twice, one));
    client.start(&twice).await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Exited { .. }));
    let (two, second) = started(next(&mut client).await, &twice);
    assert!(two > one && show("twice", "MainPID") == second.to_string());
    assert_eq!(show("twice", "NRestarts"), "1");

    adoption(&mut node, client).await;
    let checked = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"))
        .arg("check")
        .arg(node.folder.path().join("agent.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(2), "{text}");
    for wrong in [
        "always: unit always",
        "masked: systemd was",
        "absent: systemd has",
    ] {
        assert!(text.contains(wrong), "{text}");
    }
    assert!(!text.contains(": web: "), "{text}");
}

/// The same life has the same number for whoever comes after a spawner that was
/// killed; one that somebody else began has a new one.
async fn adoption(node: &mut Node, mut client: Client) {
    let web = id("web");
    let (one, pid) = start(&mut client, &web).await;
    let before = show("web", "InvocationID");
    node.kill_spawner();
    node.spawner(&[]);
    let (mut client, slots) = node.connect().await;
    let live = |slots: &[homeostat_agent::io::spawner::protocol::SlotView]| {
        slots
            .iter()
            .find(|slot| slot.service == web)
            .and_then(|slot| slot.live)
    };
    assert_eq!(live(&slots), Some((one, pid)));
    assert_eq!(show("web", "InvocationID"), before);
    kill(pid);
    assert_eq!(ended(&mut client, &web, one).await, Exit::Signal(9));
    node.kill_spawner();
    systemctl(&["start", "web.service"]);
    let outside: u32 = show("web", "MainPID").parse().unwrap();
    node.spawner(&[]);
    let (mut client, slots) = node.connect().await;
    let (two, found) = live(&slots).unwrap();
    assert!(two > one && found == outside);
    // Restarted by somebody else: one death, and then what runs by now.
    systemctl(&["restart", "web.service"]);
    assert_eq!(next(&mut client).await, died(&web, two));
    client.start(&web).await.unwrap();
    assert!(matches!(next(&mut client).await, Event::Exited { .. }));
    let (_, pid) = started(next(&mut client).await, &web);
    assert_eq!(show("web", "MainPID"), pid.to_string());
}

async fn ended(
    client: &mut Client,
    service: &homeostat_common::ids::ServiceId,
    life: Instance,
) -> Exit {
    loop {
        match next(client).await {
            Event::Exited {
                service: of,
                instance,
                status,
            } if of == *service => {
                assert_eq!(instance, life);
                return status;
            }
            Event::Died { .. } | Event::Signalled { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Whether SIGTERM, the fifteenth, is ignored by a process.
fn ignores_term(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap() & (1 << 14) != 0
}

fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl").args(words).output().unwrap();
    assert!(output.status.success(), "systemctl {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn show(unit: &str, property: &str) -> String {
    systemctl(&[
        "show",
        "--value",
        "-p",
        property,
        &format!("{unit}.service"),
    ])
}

/// Runs this very test as a unit of a systemd of its own; `Err` where that cannot be.
fn boot() -> Result<(), String> {
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
    let groups = Groups::make()?;
    fs::create_dir(share.path().join("mem")).unwrap();
    let own = std::env::current_exe().unwrap();
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_homeostat-agent"));
    write_units(&share.path().join("units"), &own);
    let script = share.path().join("boot.sh");
    fs::write(&script, include_str!("boot.sh")).unwrap();
    let marker = Path::new("/tmp").join(format!("homeostat-test-{}", std::process::id()));
    fs::write(&marker, "").unwrap();
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
        .env("GROUPS_", groups.words())
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = fs::read_to_string(share.path().join("out")).unwrap_or_default();
    let kept = marker.exists();
    let _ = fs::remove_file(&marker);
    if said.is_empty() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("no namespaces or no systemd here: {}", text.trim()));
    }
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert!(kept, "systemd has cleared the /tmp of the host");
    assert!(!Path::new("/run/systemd/system/inside.target").exists());
    Ok(())
}

fn write_units(folder: &Path, test: &Path) {
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
         /usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --syslog-only\n",
    );
    unit(
        "inside.service",
        &format!(
            "After=dbus.socket\nSuccessAction=exit-force\nFailureAction=exit-force\n\
             FailureActionExitStatus=1\n[Service]\nType=oneshot\nTimeoutStartSec=50\n\
             Environment={INSIDE}=1\nStandardOutput=append:/run/share/out\n\
             StandardError=append:/run/share/out\nExecStart={} --exact \
             units::units_are_run_by_systemd_and_healed_like_any_service --nocapture\n",
            test.display()
        ),
    );
    unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    unit("small.service", "[Service]\nExecStart=/bin/sleep 1000\n");
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

/// Control groups of this test alone, so that systemd finds no other's.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn make() -> Result<Self, String> {
        let name = format!("homeostat-test-{}", std::process::id());
        let mut groups = Self(Vec::new());
        for hierarchy in HIERARCHIES {
            let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(&name);
            fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
            groups.0.push(group);
        }
        Ok(groups)
    }

    fn words(&self) -> String {
        let words: Vec<_> = self
            .0
            .iter()
            .map(|group| group.display().to_string())
            .collect();
        words.join(" ")
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        fn remove(group: &Path) {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            // The last process of it may still be on its way out.
            for _ in 0..100 {
                if fs::remove_dir(group).is_ok() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        for group in &self.0 {
            remove(group);
        }
    }
}
