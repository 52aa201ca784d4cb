//! What lands on a node: one static or nearly static agent for each target,
//! small enough, and started once before anybody ships it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::run::{cargo, check, check_within, command, find, output, skip};

const AGENT: &str = "homeostat-agent";

/// Bytes in a megabyte of the size table, as flash is sold: powers of ten.
const MB: u64 = 1_000_000;

/// Longest self-test. Natively it takes under a second; emulated on a loaded
/// machine it is some twenty times slower.
const SELFTEST_MAX: Duration = Duration::from_secs(120);

/// A machine that the agent is shipped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    #[value(name = "x86_64-unknown-linux-musl")]
    X86Musl,
    #[value(name = "aarch64-unknown-linux-musl")]
    Aarch64Musl,
    #[value(name = "armv7-unknown-linux-gnueabihf")]
    Armv7Gnu,
}

/// How a target's programs are started on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Runner {
    /// Names of an emulator, the preferred one first; empty: it runs natively.
    emulators: &'static [&'static str],
    args: &'static [&'static str],
}

impl Target {
    pub(crate) const ALL: &[Target] = &[Target::X86Musl, Target::Aarch64Musl, Target::Armv7Gnu];

    fn triple(self) -> &'static str {
        match self {
            Target::X86Musl => "x86_64-unknown-linux-musl",
            Target::Aarch64Musl => "aarch64-unknown-linux-musl",
            Target::Armv7Gnu => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// Largest binary that may ship. The ARM boards boot from flash cards and
    /// keep two versions during an upgrade; x86-64 nodes have disks.
    fn limit(self) -> u64 {
        match self {
            Target::X86Musl => 12 * MB,
            Target::Aarch64Musl | Target::Armv7Gnu => 8 * MB,
        }
    }

    /// `arch`: this machine's, as in `std::env::consts::ARCH`.
    fn runner(self, arch: &str) -> Runner {
        match (self, arch) {
            (Target::X86Musl, "x86_64") | (Target::Aarch64Musl, "aarch64") => Runner {
                emulators: &[],
                args: &[],
            },
            (Target::X86Musl, _) => Runner {
                emulators: &["qemu-x86_64-static", "qemu-x86_64"],
                args: &[],
            },
            // Without -L: a binary that is not static fails right here.
            (Target::Aarch64Musl, _) => Runner {
                emulators: &["qemu-aarch64-static", "qemu-aarch64"],
                args: &[],
            },
            (Target::Armv7Gnu, _) => Runner {
                emulators: &["qemu-arm-static", "qemu-arm"],
                args: &["-L", "/usr/arm-linux-gnueabihf"],
            },
        }
    }

    fn shipped(self) -> PathBuf {
        Path::new("dist").join(self.triple()).join(AGENT)
    }
}

/// Builds for each target, prints the sizes, refuses what is too large, and
/// starts each binary once.
pub(crate) fn dist(targets: &[Target]) -> Result<()> {
    let built = target_directory()?;
    for &target in targets {
        check(cargo([
            "build",
            "--locked",
            "--profile=dist",
            "--package",
            AGENT,
            "--bin",
            AGENT,
            "--target",
            target.triple(),
        ]))?;
        let from = built.join(target.triple()).join("dist").join(AGENT);
        ship(&from, &target.shipped())?;
    }
    size(targets)?;
    for &target in targets {
        selftest(target)?;
    }
    Ok(())
}

/// Prints the size table of what was built; fails if any of it is too large.
pub(crate) fn size(targets: &[Target]) -> Result<()> {
    let mut rows = Vec::with_capacity(targets.len());
    for &target in targets {
        let file = target.shipped();
        match fs::metadata(&file) {
            Ok(found) => rows.push((target, found.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                skip(target.triple(), "not built; `cargo xtask dist` builds it");
            }
            Err(error) => return Err(error).with_context(|| format!("size of {}", file.display())),
        }
    }
    print!("{}", table(&rows));
    let over: Vec<&str> = rows
        .iter()
        .filter(|(target, bytes)| *bytes > target.limit())
        .map(|(target, _)| target.triple())
        .collect();
    if !over.is_empty() {
        bail!("over the size limit: {}", over.join(", "));
    }
    Ok(())
}

fn table(rows: &[(Target, u64)]) -> String {
    let mut text = format!(
        "{:<31} {:>10} {:>6} {:>6}\n",
        "target", "bytes", "MB", "limit"
    );
    for (target, bytes) in rows {
        let mark = if *bytes > target.limit() {
            "  OVER"
        } else {
            ""
        };
        // Rounded up, so that a size over its limit never prints as equal to it.
        let hundredths = bytes.div_ceil(MB / 100);
        let megabytes = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let limit = target.limit() / MB;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<31} {bytes:>10} {megabytes:>6} {limit:>6}{mark}",
            target.triple()
        );
    }
    text
}

/// Copies beside the old file and renames over it: a binary that is running
/// stays whole, and nobody picks up half of one.
pub(crate) fn ship(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a shipped file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let partial = to.with_extension("partial");
    fs::copy(from, &partial)
        .with_context(|| format!("copy {} to {}", from.display(), partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("rename to {}", to.display()))
}

fn selftest(target: Target) -> Result<()> {
    let runner = target.runner(std::env::consts::ARCH);
    let agent = std::path::absolute(target.shipped())?;
    let mut command = match runner.emulators {
        [] => Command::new(&agent),
        names => {
            let Some(emulator) = names.iter().find_map(|name| find(name)) else {
                skip(
                    &format!("selftest on {}", target.triple()),
                    &format!("{} is not installed", names.join(" or ")),
                );
                return Ok(());
            };
            let mut command = command(emulator, runner.args.iter().copied());
            command.arg(&agent);
            command
        }
    };
    command.arg("selftest").stdin(std::process::Stdio::null());
    check_within(command, SELFTEST_MAX)
}

/// Where cargo builds: `target`, unless the environment or a config moved it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = output(cargo([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
    ]))?;
    string_field(&metadata, "target_directory")
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// The one string value that is wanted; a JSON parser would be this tool's
/// largest dependency. `None` for a value with escapes, too.
fn string_field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let key = format!("\"{name}\":\"");
    let (_, rest) = json.split_once(&key)?;
    let (value, _) = rest.split_once('"')?;
    (!value.contains('\\')).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_marks_one_byte_over_the_limit() {
        let rows = [
            (Target::X86Musl, 11_999_999),
            (Target::Aarch64Musl, 8 * MB + 1),
        ];
        assert_eq!(
            table(&rows),
            "target                               bytes     MB  limit\n\
             x86_64-unknown-linux-musl         11999999  12.00     12\n\
             aarch64-unknown-linux-musl         8000001   8.01      8  OVER\n"
        );
    }

    #[test]
    fn only_foreign_binaries_are_emulated() {
        assert!(Target::X86Musl.runner("x86_64").emulators.is_empty());
        assert!(Target::Aarch64Musl.runner("aarch64").emulators.is_empty());
        assert_eq!(
            Target::Aarch64Musl.runner("x86_64").emulators[0],
            "qemu-aarch64-static"
        );
        assert_eq!(
            Target::Armv7Gnu.runner("x86_64").args,
            ["-L", "/usr/arm-linux-gnueabihf"]
        );
    }

    #[test]
    fn one_field_is_read_from_the_metadata() {
        let json = r#"{"packages":[],"target_directory":"/a/b","version":1}"#;
        assert_eq!(string_field(json, "target_directory"), Some("/a/b"));
        assert_eq!(string_field(json, "build_directory"), None);
        assert_eq!(
            string_field(r#"{"target_directory":"/a\"b"}"#, "target_directory"),
            None
        );
    }

    #[test]
    fn shipping_replaces_the_file_whole() {
        let folder = std::env::temp_dir().join(format!("xtask-ship-{}", std::process::id()));
        let (from, to) = (folder.join("built"), folder.join("out/agent"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(&from, "one").unwrap();
        ship(&from, &to).unwrap();
        fs::write(&from, "two").unwrap();
        ship(&from, &to).unwrap();
        let left: Vec<_> = fs::read_dir(folder.join("out")).unwrap().collect();
        let text = fs::read_to_string(&to).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((text.as_str(), left.len()), ("two", 1));
    }
}
