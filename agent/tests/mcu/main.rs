//! The agent and a microcontroller: the same detectors behind a pseudo terminal, and the
//! firmware in an emulator.

#![allow(clippy::unwrap_used)]

mod device;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use device::PtyDevice;
use homeostat_agent::config::Mcu;
use homeostat_agent::control::{Event, HostSample};
use homeostat_agent::io::clock;
use homeostat_agent::io::mcu::feed::Feed;
use homeostat_common::ids::McuId;
use homeostat_common::observation::Metric;
use homeostat_common::units::Millis;

/// Two metrics that move, the second of which jumps at 500 s for 10 s.
fn recording(folder: &Path) -> PathBuf {
    let mut text = String::from("time,steady,jumps\n");
    let mut rng = fastrand::Rng::with_seed(3);
    for second in 0..600 {
        let jump = if (500..510).contains(&second) {
            900.0
        } else {
            0.0
        };
        let (one, two) = (rng.f32() + 5.0, rng.f32() + 20.0 + jump);
        writeln!(text, "{second},{one},{two}").unwrap();
    }
    let file = folder.join("recording.csv");
    std::fs::write(&file, text).unwrap();
    file
}

fn stream(device: &Path, file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_homeostat-agent"))
        .args(["mcu", "--period", "1000", "--device"])
        .arg(device)
        .arg(file)
        .output()
        .unwrap()
}

/// The lines about alarms, without scores, and how many samples were scored.
fn read(output: &Output) -> (Vec<String>, String) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let alarms = said
        .lines()
        .filter(|line| line.contains(": ") && !line.starts_with("device"));
    let alarms = alarms.map(|line| line.split(" (").next().unwrap().to_owned());
    let scored = said.lines().find(|line| line.contains("samples scored"));
    (alarms.collect(), scored.unwrap_or_default().to_owned())
}

fn is_the_jump(output: &Output) {
    let (alarms, scored) = read(output);
    assert!(scored.starts_with("1200 samples scored, "), "{scored}");
    assert!(alarms[0].starts_with("500.000 jumps: "), "{alarms:?}");
    assert!(
        alarms.iter().all(|line| line.contains(" jumps: ")),
        "{alarms:?}"
    );
    assert!(
        alarms.iter().any(|line| line.ends_with("jumps: over")),
        "{alarms:?}"
    );
}

#[test]
fn a_recording_goes_through_a_device_and_its_jump_comes_back_as_an_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let file = recording(folder.path());
    let device = PtyDevice::start();
    let first = stream(&device.path, &file);
    is_the_jump(&first);
    let (_, scored) = read(&first);
    assert!(scored.contains(" 0 unanswered"), "{scored}");
    // A second run is another recording: nothing that the first one taught is left.
    assert_eq!(stream(&device.path, &file).stdout.len(), first.stdout.len());
}

#[test]
fn a_line_that_is_none_and_a_silent_one_are_errors_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = recording(folder.path());
    for (device, why) in [
        (folder.path().join("nothing"), "cannot find "),
        (file.clone(), "cannot set up the line "),
    ] {
        let output = stream(&device, &file);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with(why), "{said}");
    }
}

#[test]
fn files_that_are_no_recordings_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let device = PtyDevice::start();
    for (text, why) in [
        (
            "",
            "expected a time and 1 to 16 metrics in the first line, found 0",
        ),
        ("t,a\nlater,1\n", ":2: expected seconds first"),
        ("t,a\n-1,1\n", ":2: expected seconds first"),
        ("t,a\n1e300,1\n", ":2: expected seconds first"),
    ] {
        let file = folder.path().join("bad.csv");
        std::fs::write(&file, text).unwrap();
        let output = stream(&device.path, &file);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let long = format!("t,a\n{}\n", "1".repeat(1 << 20));
    let file = folder.path().join("long.csv");
    std::fs::write(&file, long).unwrap();
    let output = stream(&device.path, &file);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(":2: longer than 16384 bytes"), "{said}");
}

#[test]
fn a_feed_says_when_its_device_is_there_and_when_it_is_gone() {
    let device = PtyDevice::start();
    let (events, mut told) = tokio::sync::mpsc::channel(16);
    let mcu = Mcu {
        name: McuId::new("m4").unwrap(),
        device: device.path.clone(),
        baud: 115_200,
        metrics: vec![Metric::CpuBusy],
    };
    let boot = clock::boot_id(Path::new("/proc")).unwrap();
    let mut feed = Feed::start(&mcu, Millis::secs(1), boot, events).unwrap();
    feed.offer(clock::now(), &HostSample::default());
    let mut next = || match told.blocking_recv() {
        Some(Event::Mcu {
            metric: None, text, ..
        }) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(next(), None);
    drop(device);
    let gone = next().unwrap();
    assert!(gone.starts_with("microcontroller m4: /dev/pts/"), "{gone}");
    drop(feed);
    assert!(
        told.blocking_recv().is_none(),
        "the thread ends with the feed"
    );
}

/// An emulator, ended with the test.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_firmware_in_an_emulator_answers_the_agent() {
    let firmware = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/mcu/mps2-an386.elf");
    if !firmware.is_file() {
        println!("skip: agent and firmware: `cargo xtask mcu` has not built it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("line");
    let started = Command::new("qemu-system-arm")
        .args([
            "-machine",
            "mps2-an386",
            "-cpu",
            "cortex-m4",
            "-display",
            "none",
        ])
        .args(["-monitor", "none", "-serial"])
        .arg(format!("unix:{},server=on,wait=on", socket.display()))
        .arg("-kernel")
        .arg(&firmware)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let Ok(emulator) = started else {
        println!("skip: agent and firmware: qemu-system-arm is not installed");
        return;
    };
    let _emulator = Emulator(emulator);
    let start = Instant::now();
    while !socket.exists() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // A first greeting may meet an emulator that is still starting; no sample may.
    is_the_jump(&stream(&socket, &recording(folder.path())));
}
