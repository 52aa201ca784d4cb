//! Starts other programs, and says plainly what was skipped.
//!
//! Nothing here reads standard input: every child gets `/dev/null`, so a run
//! without a terminal behaves like one with.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a child with a deadline is looked at; far below the seconds that
/// such children take.
const POLL: Duration = Duration::from_millis(20);

/// The workspace root: two levels above this crate's manifest.
///
/// Taken when the program runs where cargo tells it, so that a copied or moved
/// checkout never builds the place it was compiled in.
pub(crate) fn workspace_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.join("../..")
}

/// A command without standard input.
pub(crate) fn command<'a>(
    program: impl AsRef<Path>,
    args: impl IntoIterator<Item = &'a str>,
) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(args).stdin(Stdio::null());
    command
}

/// `cargo ARGS`, with the cargo that started us.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    command(cargo, args)
}

/// Prints the command, runs it, and fails if it fails.
pub(crate) fn check(mut command: Command) -> Result<()> {
    let line = show(&command);
    eprintln!("+ {line}");
    let status = command
        .status()
        .with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}`: {status}");
    }
    Ok(())
}

/// As [`check`], but kills the command and fails once `limit` has passed.
pub(crate) fn check_within(mut command: Command, limit: Duration) -> Result<()> {
    let line = show(&command);
    eprintln!("+ {line}");
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
    loop {
        let ended = child
            .try_wait()
            .with_context(|| format!("wait for `{line}`"))?;
        match ended {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("`{line}`: {status}"),
            None if start.elapsed() >= limit => {
                child.kill().with_context(|| format!("kill `{line}`"))?;
                child.wait().with_context(|| format!("wait for `{line}`"))?;
                bail!("`{line}`: no end within {} s, killed", limit.as_secs());
            }
            None => thread::sleep(POLL),
        }
    }
}

/// Whether the command starts and succeeds; its output is dropped.
pub(crate) fn succeeds(mut command: Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What the command prints, if it succeeds.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let line = show(&command);
    let output = command
        .output()
        .with_context(|| format!("start `{line}`"))?;
    if !output.status.success() {
        bail!(
            "`{line}`: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of `{line}`"))
}

/// Finds a program on the search path, or confirms an absolute path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    // Debian keeps daemons such as mosquitto in sbin, which a plain user's
    // search path leaves out.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Prints one line about something that was not checked.
pub(crate) fn skip(what: &str, why: &str) {
    println!("skip: {what}: {why}");
}

fn show(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    if let Some(name) = Path::new(&line).file_name() {
        line = name.to_string_lossy().into_owned();
    }
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let error = check(command("sh", ["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3`: exit status: 3");
        let error = check(command("/nonexistent/tool", ["now"])).unwrap_err();
        assert_eq!(error.to_string(), "start `tool now`");
    }

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        let start = Instant::now();
        let error = check_within(command("sleep", ["60"]), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().ends_with("killed"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn children_see_the_end_of_standard_input() {
        assert_eq!(output(command("cat", [])).unwrap(), "");
    }

    #[test]
    fn programs_are_found_by_name_or_absolute_path() {
        assert!(find("sh").is_some());
        assert_eq!(find("/bin/sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("no-such-program"), None);
    }
}
