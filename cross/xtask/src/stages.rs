//! The stages of `test` and `ci`: what runs, in which order, and how long it took.
//!
//! The first stage that fails ends the run; the times of those before it are
//! printed all the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::dist::{self, Target};
use crate::mcu;
use crate::run::{cargo, check, find, skip, succeeds};
use crate::tools;

/// Whatever has a lock file.
const MANIFESTS: [&str; 3] = ["Cargo.toml", mcu::FIRMWARE, mcu::FLASHER];

/// Settings of the test runner, and the report that it leaves.
const NEXTEST_CONFIG: &str = "cross/nextest.toml";
const NEXTEST_REPORT: &str = "target/nextest/xtask/junit.xml";

/// One part of `cargo xtask test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Install packages and Rust targets.
    Tools,
    /// Build the firmware for each board, check its size, run it emulated.
    Mcu,
    /// Compile the programs and the tests.
    Build,
    /// Run unit, scenario and end-to-end tests.
    Tests,
    /// Run the examples in the documentation.
    Doc,
    /// Build what microcontrollers share, without std.
    NoStd,
    /// Build the program that flashes boards, as far as "no probe found".
    Flash,
    /// Build the aarch64 agent, check its size, start it emulated.
    Dist,
}

type Step<'a> = (&'a str, &'a dyn Fn() -> Result<()>);

/// Runs all stages, or one.
pub(crate) fn test(only: Option<Stage>) -> Result<()> {
    let all = [
        Stage::Tools,
        // The agent's tests talk to what it builds.
        Stage::Mcu,
        Stage::Build,
        Stage::Tests,
        Stage::Doc,
        Stage::NoStd,
        Stage::Flash,
        Stage::Dist,
    ];
    let mut times = Times::default();
    for stage in all {
        if only.is_none_or(|wanted| wanted == stage) {
            times.run(stage.name(), || stage.run())?;
        }
    }
    Ok(())
}

/// Format, lints and dependency policy, then [`test`].
pub(crate) fn ci() -> Result<()> {
    let steps: [Step<'_>; 6] = [
        ("fmt", &|| check(cargo(["fmt", "--all", "--check"]))),
        ("clippy", &|| {
            check(cargo([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "-D",
                "warnings",
            ]))
        }),
        ("tools", &tools::prepare),
        ("mcu lint", &mcu::lint),
        ("deny", &deny),
        ("test", &|| test(None)),
    ];
    let mut times = Times::default();
    for (name, step) in steps {
        times.run(name, step)?;
    }
    Ok(())
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Tools => "tools",
            Stage::Build => "build",
            Stage::Tests => "tests",
            Stage::Doc => "doc",
            Stage::NoStd => "no-std",
            Stage::Mcu => "mcu",
            Stage::Flash => "flash",
            Stage::Dist => "dist",
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Stage::Tools => tools::prepare(),
            // The programs too: scenarios start them as processes.
            Stage::Build => check(cargo([
                "build",
                "--workspace",
                "--locked",
                "--lib",
                "--bins",
                "--tests",
            ])),
            Stage::Tests => tests(),
            Stage::Doc => check(cargo([
                "test",
                "--workspace",
                "--locked",
                "--doc",
                "--quiet",
            ])),
            Stage::NoStd => check(cargo([
                "build",
                "--locked",
                "--package=homeostat-common",
                "--package=homeostat-detect",
                "--package=homeostat-serial",
                "--target=thumbv7em-none-eabihf",
            ])),
            Stage::Mcu => mcu::test(),
            Stage::Flash => mcu::test_flash(),
            Stage::Dist => dist::dist(&[Target::Aarch64Musl]),
        }
    }
}

fn tests() -> Result<()> {
    if find("cargo-nextest").is_none() {
        // --show-output: a passing test may have printed what it skipped.
        return check(cargo([
            "test",
            "--workspace",
            "--locked",
            "--lib",
            "--bins",
            "--tests",
            "--",
            "--show-output",
        ]));
    }
    // A report from an earlier run must not speak for this one.
    if Path::new(NEXTEST_REPORT).exists() {
        std::fs::remove_file(NEXTEST_REPORT).context("remove the last test report")?;
    }
    check(cargo([
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--config-file",
        NEXTEST_CONFIG,
        "--profile=xtask",
        "--no-fail-fast",
    ]))?;
    let report = std::fs::read_to_string(NEXTEST_REPORT)
        .with_context(|| format!("read the test report {NEXTEST_REPORT}"))?;
    for line in skipped(&report) {
        println!("{line}");
    }
    Ok(())
}

/// Lines `skip: WHAT: WHY` that passing tests printed, each once. The runner
/// shows no output of a passing test, but keeps it in its report.
fn skipped(report: &str) -> BTreeSet<String> {
    report
        .lines()
        .filter_map(|line| {
            // The first and last line of an output share theirs with a tag.
            let text = line.rsplit_once('>').map_or(line, |(_, after)| after);
            let text = if text.is_empty() { line } else { text };
            let start = text
                .find("skip: ")
                .filter(|at| text[..*at].trim().is_empty())?;
            let text = text[start..].split('<').next()?;
            Some(unescape(text.trim_end()))
        })
        .collect()
}

fn unescape(xml: &str) -> String {
    xml.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

fn deny() -> Result<()> {
    if find("cargo-deny").is_none() {
        skip(
            "licences, bans, sources, advisories",
            "cargo-deny is not installed",
        );
        return Ok(());
    }
    let quiet = "--hide-inclusion-graph";
    for manifest in MANIFESTS {
        check(deny_check(
            manifest,
            &[quiet, "licenses", "bans", "sources"],
        ))?;
    }
    // Advisories come from a repository that an isolated machine cannot reach;
    // that must not look like a vulnerable dependency.
    if !succeeds(cargo(["deny", "fetch", "db"])) {
        skip("advisories", "the advisory database cannot be fetched here");
        return Ok(());
    }
    for manifest in MANIFESTS {
        check(deny_check(
            manifest,
            &[quiet, "--disable-fetch", "advisories"],
        ))?;
    }
    Ok(())
}

/// One policy for every lock file; an exception that only another one needs is no mistake.
fn deny_check(manifest: &str, what: &[&str]) -> std::process::Command {
    let mut command = cargo(["deny", "--manifest-path", manifest, "--config", "deny.toml"]);
    command.args(["check", "--allow", "license-exception-not-encountered"]);
    command.args(what);
    command
}

/// Time of each step so far; printed when the run ends, however it ends.
#[derive(Debug, Default)]
struct Times(Vec<(String, Duration, bool)>);

impl Times {
    fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("== {name}");
        let start = Instant::now();
        let result = step();
        self.0
            .push((name.to_owned(), start.elapsed(), result.is_ok()));
        result.with_context(|| format!("stage {name} failed"))
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        for (name, time, ok) in &self.0 {
            let outcome = if *ok { "ok" } else { "FAILED" };
            println!("{name:<8} {:>8.1} s  {outcome}", time.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passing_tests_skipped_is_read_from_the_report() {
        let report = "<testcase><system-out>\nrunning 1 test\n\
            skip: cgroup v2: &quot;memory&quot; &lt;not delegated&gt;\n\
            test a ... ok\n</system-out><system-err>skip: browser: chromium is missing</system-err>\n\
            <system-out>  skip: browser: chromium is missing\n</system-out>\n\
            we do not skip: this line\n";
        assert_eq!(
            skipped(report).into_iter().collect::<Vec<_>>(),
            [
                "skip: browser: chromium is missing",
                "skip: cgroup v2: \"memory\" <not delegated>",
            ]
        );
    }

    #[test]
    fn a_failed_stage_keeps_its_name_and_time() {
        let mut times = Times::default();
        times.run("fine", || Ok(())).unwrap();
        let error = times
            .run("broken", || anyhow::bail!("no compiler"))
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "stage broken failed: no compiler");
        let outcomes: Vec<_> = times
            .0
            .iter()
            .map(|(name, _, ok)| (name.as_str(), *ok))
            .collect();
        assert_eq!(outcomes, [("fine", true), ("broken", false)]);
    }
}
