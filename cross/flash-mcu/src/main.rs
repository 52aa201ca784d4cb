//! Programs a microcontroller through a debug probe, reads it back, and starts it.
//!
//! In: an ELF file, the name of the chip, and which probe, if there are several. Out: an exit
//! status. It neither builds the firmware nor knows boards; `cargo xtask flash --mcu` does.
//!
//! | exit status | means |
//! |---|---|
//! | 0 | programmed, verified, started |
//! | 1 | anything else; the error says what |
//! | 2 | wrong arguments, unknown chip |
//! | 3 | no such probe, or several and none was named |

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use probe_rs::Permissions;
use probe_rs::config::Registry;
use probe_rs::flashing::{DownloadOptions, ElfLoader, ElfOptions, download_file_with_options};
use probe_rs::probe::list::Lister;
use probe_rs::probe::{DebugProbeInfo, DebugProbeSelector};

/// Time for the core to stop before it is started anew; it takes microseconds.
const HALT: Duration = Duration::from_millis(500);

/// Programs a microcontroller through a debug probe.
#[derive(Debug, Parser)]
#[command(name = "homeostat-flash-mcu")]
struct Args {
    /// The chip, by the name its maker gave it.
    #[arg(long)]
    chip: String,
    /// The firmware.
    #[arg(long, value_name = "FILE")]
    elf: PathBuf,
    /// Which probe: VID:PID or VID:PID:SERIAL. Needed only if several are connected.
    #[arg(long, value_name = "SEL")]
    probe: Option<DebugProbeSelector>,
}

/// What is told apart by the exit status.
enum Trouble {
    Usage(anyhow::Error),
    Probe(anyhow::Error),
    Other(anyhow::Error),
}

fn main() -> ExitCode {
    let (error, status) = match program(&Args::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Trouble::Other(error)) => (error, 1),
        Err(Trouble::Usage(error)) => (error, 2),
        Err(Trouble::Probe(error)) => (error, 3),
    };
    eprintln!("error: {error:#}");
    ExitCode::from(status)
}

fn program(args: &Args) -> Result<(), Trouble> {
    let registry = Registry::from_builtin_families();
    let target = registry
        .get_target_by_name(&args.chip)
        .with_context(|| format!("chip {}", args.chip))
        .map_err(Trouble::Usage)?;
    if !args.elf.is_file() {
        let error = anyhow!("there is no file {}", args.elf.display());
        return Err(Trouble::Usage(error));
    }
    let lister = Lister::new();
    let found =
        choose(lister.list(args.probe.as_ref()), args.probe.as_ref()).map_err(Trouble::Probe)?;
    let named = || format!("probe {found}");
    let probe = found.open().with_context(named).map_err(Trouble::Probe)?;
    write(probe, target, args).map_err(Trouble::Other)
}

/// The only probe there is.
fn choose(
    mut found: Vec<DebugProbeInfo>,
    wanted: Option<&DebugProbeSelector>,
) -> Result<DebugProbeInfo> {
    let names: Vec<String> = found.iter().map(ToString::to_string).collect();
    match (found.pop(), found.is_empty(), wanted) {
        (Some(only), true, _) => Ok(only),
        (None, _, None) => Err(anyhow!(
            "no probe found: connect one by USB, and see that this user may open it (udev rules)"
        )),
        (None, _, Some(wanted)) => Err(anyhow!("no probe {wanted} found")),
        (Some(_), false, _) => Err(anyhow!(
            "several probes; name one with --probe VID:PID:SERIAL: {}",
            names.join(", ")
        )),
    }
}

fn write(probe: probe_rs::probe::Probe, target: probe_rs::Target, args: &Args) -> Result<()> {
    let mut session = probe
        .attach(target, Permissions::default())
        .with_context(|| format!("attach to {}", args.chip))?;
    let mut options = DownloadOptions::default();
    options.verify = true;
    // What the flash holds beside the firmware stays.
    options.keep_unwritten_bytes = true;
    download_file_with_options(
        &mut session,
        &args.elf,
        ElfLoader(ElfOptions::default()),
        options,
    )
    .with_context(|| format!("program {}", args.elf.display()))?;
    let mut core = session.core(0).context("reach the core")?;
    core.reset_and_halt(HALT).context("reset the core")?;
    core.run().context("start the core")?;
    println!("programmed and verified: {}", args.elf.display());
    Ok(())
}
