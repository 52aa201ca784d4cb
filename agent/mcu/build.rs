//! Turns a board file into constants, a UART driver and a memory layout.
//!
//! In: `HOMEOSTAT_BOARD`, the path of a file as in `firmware-configs/mcu`. Out: `board.rs`,
//! `memory.x` for the linker, and which drivers are compiled. Unknown keys are refused.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

const DEFAULT: &str = "../../firmware-configs/mcu/mps2-an386.toml";

/// A board, as its file describes it. What only the tools around the firmware need is
/// checked here too.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Board {
    target: String,
    memory: PathBuf,
    clock_hz: u32,
    #[serde(default)]
    setup: Vec<[u32; 3]>,
    uart: Uart,
    watchdog: Option<Watchdog>,
    #[serde(rename = "qemu")]
    _qemu: Option<String>,
    #[serde(rename = "chip")]
    _chip: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uart {
    kind: UartKind,
    base: u32,
    irq: u16,
    baud: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UartKind {
    Cmsdk,
    Pl011,
    Stm32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watchdog {
    kind: WatchdogKind,
    base: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WatchdogKind {
    Cmsdk,
    Stm32,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=HOMEOSTAT_BOARD");
    println!("cargo:rustc-check-cfg=cfg(uart, values(\"cmsdk\", \"pl011\", \"stm32\"))");
    println!("cargo:rustc-check-cfg=cfg(watchdog, values(\"cmsdk\", \"stm32\", \"none\"))");
    let file = std::env::var_os("HOMEOSTAT_BOARD").map_or_else(|| DEFAULT.into(), PathBuf::from);
    println!("cargo:rerun-if-changed={}", file.display());
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let board: Board =
        toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let target = std::env::var("TARGET")?;
    if target.starts_with("thumb") && target != board.target {
        return Err(format!(
            "{} is a board for {}, not {target}",
            file.display(),
            board.target
        )
        .into());
    }

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let memory = file.parent().unwrap_or(Path::new(".")).join(&board.memory);
    println!("cargo:rerun-if-changed={}", memory.display());
    fs::copy(&memory, out.join("memory.x"))
        .map_err(|error| format!("{}: {error}", memory.display()))?;
    fs::write(out.join("board.rs"), constants(&board)?)?;
    let uart = match board.uart.kind {
        UartKind::Cmsdk => "cmsdk",
        UartKind::Pl011 => "pl011",
        UartKind::Stm32 => "stm32",
    };
    let watchdog = match board.watchdog.map(|watchdog| watchdog.kind) {
        Some(WatchdogKind::Cmsdk) => "cmsdk",
        Some(WatchdogKind::Stm32) => "stm32",
        None => "none",
    };
    println!("cargo:rustc-cfg=uart=\"{uart}\"");
    println!("cargo:rustc-cfg=watchdog=\"{watchdog}\"");
    if target.starts_with("thumb") {
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
        // Sections of a page each would round up what is read from the ELF file.
        println!("cargo:rustc-link-arg-bins=--nmagic");
    }
    Ok(())
}

fn constants(board: &Board) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "pub(crate) const CLOCK_HZ: u32 = {};", board.clock_hz)?;
    writeln!(
        text,
        "pub(crate) const UART_BASE: usize = {:#x};",
        board.uart.base
    )?;
    writeln!(text, "pub(crate) const UART_IRQ: u16 = {};", board.uart.irq)?;
    writeln!(text, "pub(crate) const BAUD: u32 = {};", board.uart.baud)?;
    if let Some(watchdog) = &board.watchdog {
        writeln!(
            text,
            "pub(crate) const WATCHDOG_BASE: usize = {:#x};",
            watchdog.base
        )?;
    }
    writeln!(
        text,
        "pub(crate) const SETUP: &[(usize, u32, u32)] = &{:#x?};",
        {
            let row = |[address, clear, set]: &[u32; 3]| (*address, *clear, *set);
            board.setup.iter().map(row).collect::<Vec<_>>()
        }
    )?;
    Ok(text)
}
