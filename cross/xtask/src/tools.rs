//! Gets what the tests need onto a Debian machine.
//!
//! As root with apt-get, missing packages are installed; otherwise each one is
//! reported together with what will not be tested without it. What is there
//! already is neither touched nor upgraded.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run::{check, command, find, output, skip, succeeds};

/// One package of the distribution that some test needs.
#[derive(Debug, Clone, Copy)]
struct Package {
    name: &'static str,
    /// A program or an absolute path that is there once the package is.
    /// Looked for instead of the package, so that other distributions, and
    /// tools installed by hand, count as well.
    proof: &'static str,
    /// What goes untested without it.
    serves: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "mosquitto",
        proof: "mosquitto",
        serves: "tests against a real broker",
    },
    Package {
        name: "mosquitto-clients",
        proof: "mosquitto_pub",
        serves: "tests of what an operator types",
    },
    Package {
        name: "prometheus-alertmanager",
        proof: "prometheus-alertmanager",
        serves: "tests of alarms from a real Alertmanager",
    },
    Package {
        name: "chromium",
        proof: "chromium",
        serves: "tests of the page in a browser",
    },
    Package {
        name: "chromium-driver",
        proof: "chromedriver",
        serves: "tests of the page in a browser",
    },
    Package {
        name: "qemu-user-static",
        proof: "qemu-aarch64-static",
        serves: "the ARM builds' self-test",
    },
    Package {
        name: "qemu-system-arm",
        proof: "qemu-system-arm",
        serves: "the firmware of microcontrollers",
    },
    Package {
        name: "gcc-aarch64-linux-gnu",
        proof: "aarch64-linux-gnu-gcc",
        serves: "C inside the aarch64 build",
    },
    Package {
        name: "libc6-dev-arm64-cross",
        proof: "/usr/aarch64-linux-gnu/include/stdio.h",
        serves: "C inside the aarch64 build",
    },
    Package {
        name: "gcc-arm-linux-gnueabihf",
        proof: "arm-linux-gnueabihf-gcc",
        serves: "the armv7 build",
    },
    Package {
        name: "libc6-dev-armhf-cross",
        proof: "/usr/arm-linux-gnueabihf/include/stdio.h",
        serves: "the armv7 build",
    },
    Package {
        name: "musl-tools",
        proof: "musl-gcc",
        serves: "C inside the x86-64 build",
    },
    Package {
        name: "dbus",
        proof: "dbus-daemon",
        serves: "tests of systemd units",
    },
    Package {
        name: "systemd",
        proof: "/lib/systemd/systemd",
        serves: "tests of systemd units",
    },
    Package {
        name: "podman",
        proof: "podman",
        serves: "tests of containers",
    },
    Package {
        name: "crun",
        proof: "crun",
        serves: "tests of containers",
    },
    Package {
        name: "busybox-static",
        proof: "busybox",
        serves: "tests of containers",
    },
    Package {
        name: "stress-ng",
        proof: "stress-ng",
        serves: "tests under load",
    },
];

/// Rust targets that the tests build for.
const RUST_TARGETS: &[&str] = &[
    "aarch64-unknown-linux-musl",
    "x86_64-unknown-linux-musl",
    "armv7-unknown-linux-gnueabihf",
    "thumbv7em-none-eabihf",
    "thumbv7m-none-eabi",
];

/// Where a distribution's broker listens unless told otherwise.
const BROKER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

/// Installs what is missing, or says what that costs.
pub(crate) fn prepare() -> Result<()> {
    install_packages(&missing())?;
    rust_targets()
}

fn missing() -> Vec<Package> {
    PACKAGES
        .iter()
        .copied()
        .filter(|package| find(package.proof).is_none())
        .collect()
}

fn install_packages(wanted: &[Package]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    if let Some(why) = cannot_install()? {
        report(wanted, why);
        return Ok(());
    }
    if let Err(error) = check(apt(&["update"])) {
        eprintln!("{error:#}"); // stale package lists may still do
    }
    let names: Vec<&str> = wanted.iter().map(|package| package.name).collect();
    if let Err(error) = check(apt(&install(&names))) {
        // One unknown name fails the whole set; get the others all the same.
        eprintln!("{error:#}; trying one by one");
        for name in &names {
            if let Err(error) = check(apt(&install(&[name]))) {
                eprintln!("{error:#}");
            }
        }
    }
    for name in ["mosquitto", "prometheus-alertmanager"] {
        if names.contains(&name) {
            stop_service(name);
        }
    }
    report(&missing(), "apt-get could not install it");
    Ok(())
}

fn cannot_install() -> Result<Option<&'static str>> {
    if find("apt-get").is_none() {
        return Ok(Some("not installed, and there is no apt-get here"));
    }
    // The owner of our own process directory is our effective user.
    let user = std::fs::metadata("/proc/self").context("read the owner of /proc/self")?;
    let root = std::os::unix::fs::MetadataExt::uid(&user) == 0;
    Ok((!root).then_some("not installed; run as root once, or install it"))
}

fn install<'a>(names: &[&'a str]) -> Vec<&'a str> {
    ["install", "--yes", "--no-install-recommends"]
        .into_iter()
        .chain(names.iter().copied())
        .collect()
}

fn apt(args: &[&str]) -> std::process::Command {
    let mut command = command("apt-get", args.iter().copied());
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn report(packages: &[Package], why: &str) {
    for package in packages {
        skip(package.serves, &format!("{} {why}", package.name));
    }
}

/// Debian starts daemons when it installs them. The tests start their own, on
/// free ports; a stranger on a standard port would only hide a mistake.
///
/// Called only after this run installed the package: a daemon that was here
/// before is somebody's, and stays.
fn stop_service(name: &str) {
    if Path::new("/run/systemd/system").is_dir() {
        succeeds(command("systemctl", ["disable", "--now", name]));
    } else {
        succeeds(command("service", [name, "stop"]));
    }
    let broker = name == "mosquitto";
    if broker && TcpStream::connect_timeout(&BROKER, Duration::from_secs(1)).is_ok() {
        eprintln!("note: something still listens on {BROKER}; no test uses that port");
    }
}

fn rust_targets() -> Result<()> {
    if find("rustup").is_none() {
        skip("installing Rust targets", "rustup is not installed");
        return Ok(());
    }
    let installed = output(command("rustup", ["target", "list", "--installed"]))?;
    let wanted: Vec<&str> = RUST_TARGETS
        .iter()
        .copied()
        .filter(|target| !installed.lines().any(|line| line.trim() == *target))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    check(command(
        "rustup",
        ["target", "add"].into_iter().chain(wanted),
    ))
}
