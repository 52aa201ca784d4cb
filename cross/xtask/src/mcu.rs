//! The firmware of microcontrollers: built for each board, measured emulated, programmed.
//!
//! A board is a file `firmware-configs/mcu/NAME.toml`. The firmware, the program that checks
//! it and the program that flashes it are workspaces of their own, with lock files of their
//! own: none of them is paid for by who builds something else.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::dist::{ship, target_directory};
use crate::run::{cargo, check, find, skip};

const BOARDS: &str = "firmware-configs/mcu";
pub(crate) const FIRMWARE: &str = "agent/mcu/Cargo.toml";
pub(crate) const FLASHER: &str = "cross/flash-mcu/Cargo.toml";
const EMULATOR: &str = "qemu-system-arm";

/// Exit status for a board that is not known, or cannot be programmed; as for wrong usage.
const NO_BOARD: u8 = 2;
/// What the flasher answers when there is no probe.
const NO_PROBE: i32 = 3;

/// What the tools need to know of a board; the firmware reads the rest of its file itself.
#[derive(Debug, PartialEq, Eq)]
struct Board {
    name: String,
    target: String,
    /// Arguments of the emulator, if it knows this board.
    emulated: Option<String>,
    /// The name that a probe knows it by.
    chip: Option<String>,
}

impl Board {
    fn parse(name: &str, text: &str) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            target: value(text, "target")
                .with_context(|| format!("board {name} names no target"))?,
            emulated: value(text, "qemu"),
            chip: value(text, "chip"),
        })
    }

    fn all() -> Result<Vec<Self>> {
        let entries = fs::read_dir(BOARDS).with_context(|| format!("read {BOARDS}"))?;
        let mut files = Vec::new();
        for entry in entries {
            let file = entry.with_context(|| format!("read {BOARDS}"))?.path();
            if file.extension() == Some(OsStr::new("toml")) {
                files.push(file);
            }
        }
        files.sort();
        let read = |file: &PathBuf| {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            Self::parse(&name, &text)
        };
        files.iter().map(read).collect()
    }

    /// Makes `command` build the firmware for this board.
    fn choose(&self, command: &mut Command) -> Result<()> {
        let file = Path::new(BOARDS).join(format!("{}.toml", self.name));
        command.args(["--target", &self.target]);
        command.env("HOMEOSTAT_BOARD", std::path::absolute(file)?);
        Ok(())
    }

    /// Builds the firmware for this board; where it is.
    fn build(&self) -> Result<PathBuf> {
        let folder = target_directory()?.join("mcu");
        let mut command = cargo([
            "build",
            "--locked",
            "--release",
            "--manifest-path",
            FIRMWARE,
        ]);
        command.arg("--target-dir").arg(&folder);
        self.choose(&mut command)?;
        check(command)?;
        let to = Path::new("dist/mcu").join(format!("{}.elf", self.name));
        let built = folder.join(&self.target).join("release/homeostat-mcu");
        ship(&built, &to)?;
        Ok(to)
    }
}

/// The string that a line `key = "..."` gives; the files have no such keys in tables. A TOML
/// parser would be this tool's largest dependency, and the firmware's build has one.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?.trim_start().strip_prefix('=')?;
        let (value, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(value.to_owned())
    })
}

fn named(boards: Vec<Board>, name: &str) -> Result<Board> {
    let names: Vec<String> = boards.iter().map(|board| board.name.clone()).collect();
    let found = boards.into_iter().find(|board| board.name == name);
    found.with_context(|| format!("there is no board {name}; there are: {}", names.join(", ")))
}

/// Builds, measures and checks the firmware for these boards, or all.
pub(crate) fn check_boards(wanted: &[String]) -> Result<()> {
    let mut boards = Board::all()?;
    if !wanted.is_empty() {
        boards = wanted
            .iter()
            .map(|name| named(Board::all()?, name))
            .collect::<Result<_>>()?;
    }
    let folder = target_directory()?.join("mcu");
    let mut failed = Vec::new();
    for board in &boards {
        let firmware = board.build()?;
        let mut command = cargo(["run", "--quiet", "--locked", "--manifest-path", FIRMWARE]);
        command.args(["--package", "homeostat-mcu-check"]);
        command.arg("--target-dir").arg(&folder);
        command
            .args(["--", "--board", &board.name, "--elf"])
            .arg(firmware);
        match &board.emulated {
            Some(_) if find(EMULATOR).is_none() => {
                skip(&board.name, &format!("{EMULATOR} is not installed"));
            }
            Some(machine) => {
                command.arg(format!("--qemu={machine}"));
            }
            None => {}
        }
        // Without a unit for floats there is no goal for instructions.
        if !board.target.ends_with("hf") {
            command.arg("--soft-float");
        }
        if let Err(error) = check(command) {
            eprintln!("{error:#}");
            failed.push(board.name.as_str());
        }
    }
    ensure!(
        failed.is_empty(),
        "a goal does not hold on: {}",
        failed.join(", ")
    );
    Ok(())
}

/// The stage of `cargo xtask test`.
pub(crate) fn test() -> Result<()> {
    let mut unit = cargo(["test", "--quiet", "--locked", "--manifest-path", FIRMWARE]);
    unit.args(["--package", "homeostat-mcu-check"]);
    unit.arg("--target-dir")
        .arg(target_directory()?.join("mcu"));
    check(unit)?;
    check_boards(&[])
}

/// Format and lints of what the root workspace does not hold.
pub(crate) fn lint() -> Result<()> {
    let folder = target_directory()?;
    for manifest in [FIRMWARE, FLASHER] {
        check(cargo([
            "fmt",
            "--all",
            "--check",
            "--manifest-path",
            manifest,
        ]))?;
    }
    let clippy = |manifest, board: Option<&Board>, what: &[&str]| {
        let own = if manifest == FIRMWARE {
            "mcu"
        } else {
            "flash-mcu"
        };
        let mut command = cargo(["clippy", "--locked", "--manifest-path", manifest]);
        command.arg("--target-dir").arg(folder.join(own)).args(what);
        if let Some(board) = board {
            board.choose(&mut command)?;
        }
        command.args(["--", "-D", "warnings"]);
        check(command)
    };
    // Each, because its file chooses which drivers are compiled.
    for board in Board::all()? {
        clippy(FIRMWARE, Some(&board), &["--release"])?;
    }
    let checker = ["--package", "homeostat-mcu-check", "--all-targets"];
    clippy(FIRMWARE, None, &checker)?;
    clippy(FLASHER, None, &["--all-targets"])
}

/// Builds the firmware and programs a board with it. The status is the flasher's.
pub(crate) fn flash(name: &str, probe: Option<&str>) -> Result<ExitCode> {
    let board = match named(Board::all()?, name) {
        Ok(board) => board,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(NO_BOARD));
        }
    };
    let Some(chip) = &board.chip else {
        eprintln!("error: board {name} names no chip: it is for the emulator");
        return Ok(ExitCode::from(NO_BOARD));
    };
    let firmware = board.build()?;
    let mut command = Command::new(flasher()?);
    command.args(["--chip", chip, "--elf"]).arg(firmware);
    if let Some(probe) = probe {
        command.args(["--probe", probe]);
    }
    let status = command.status().context("start the flasher")?;
    let status = status.code().context("the flasher was killed")?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// Builds the flasher: minutes, once.
fn flasher() -> Result<PathBuf> {
    let folder = target_directory()?.join("flash-mcu");
    let mut command = cargo(["build", "--locked", "--manifest-path", FLASHER]);
    command.arg("--target-dir").arg(&folder);
    check(command)?;
    Ok(folder.join("debug/homeostat-flash-mcu"))
}

/// Starts the flasher as far as it gets without a probe. It asks for one that cannot be
/// there: a board that happens to be connected to this machine is nobody's to program.
pub(crate) fn test_flash() -> Result<()> {
    const NO_SUCH_PROBE: &str = "0000:0000:none";
    let flasher = flasher()?;
    for board in Board::all()? {
        let Some(chip) = &board.chip else {
            continue;
        };
        let mut command = Command::new(&flasher);
        command.args(["--chip", chip, "--elf", FIRMWARE, "--probe", NO_SUCH_PROBE]);
        let output = command.output().context("start the flasher")?;
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{}: {}", board.name, said.trim());
        if output.status.code() != Some(NO_PROBE) || !said.contains("no probe") {
            bail!(
                "no probe should be exit status {NO_PROBE}, was {}",
                output.status
            );
        }
    }
    let mut command = Command::new(&flasher);
    command.args(["--chip", "no-such-chip", "--elf", FIRMWARE]);
    let output = command.output().context("start the flasher")?;
    if output.status.code() != Some(NO_BOARD.into()) {
        return Err(anyhow!("an unknown chip was {}", output.status));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_lines_that_start_with_their_key() {
        let text =
            "# chip = \"no\"\ntarget=\"t\" # x\nqemu = \"-machine m -cpu c\"\nchips = \"no\"\n";
        let board = Board::parse("b", text).unwrap();
        assert_eq!(board.target, "t");
        assert_eq!(board.emulated.as_deref(), Some("-machine m -cpu c"));
        assert_eq!(board.chip, None);
        assert!(Board::parse("b", "chip = \"c\"").is_err());
    }

    #[test]
    fn an_unknown_board_is_an_error_that_names_the_known_ones() {
        let boards = ["one", "two"].map(|name| Board::parse(name, "target = \"t\"").unwrap());
        let error = named(boards.into(), "three").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no board three; there are: one, two"
        );
    }

    #[test]
    fn the_boards_of_the_repository_cover_both_processors() {
        std::env::set_current_dir(crate::run::workspace_root()).unwrap();
        let boards = Board::all().unwrap();
        for target in ["thumbv7em-none-eabihf", "thumbv7m-none-eabi"] {
            assert!(
                boards
                    .iter()
                    .any(|b| b.target == target && b.emulated.is_some())
            );
            assert!(
                boards
                    .iter()
                    .any(|b| b.target == target && b.chip.is_some())
            );
        }
    }
}
