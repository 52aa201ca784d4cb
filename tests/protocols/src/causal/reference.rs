//! tigramite on the same data, in a Python of the caller.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use homeostat_causal::series::Series;
use serde::{Deserialize, Serialize};

const SCRIPT: &str = include_str!("reference.py");

#[derive(Serialize)]
struct Asked<'a> {
    sets: Vec<Set<'a>>,
}

#[derive(Serialize)]
struct Set<'a> {
    lags: usize,
    alpha: f64,
    columns: &'a [Vec<f64>],
}

#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) version: String,
    pub(super) sets: Vec<Searched>,
}

#[derive(Deserialize)]
pub(super) struct Searched {
    pub(super) seconds: f64,
    /// From, to, lag and mark, as tigramite writes it.
    pub(super) links: Vec<(usize, usize, usize, String)>,
}

/// Searches each series with so many lags.
pub(super) fn search(python: &Path, sets: &[(&Series, usize)], alpha: f64) -> Result<Answer> {
    let set = |(series, lags): &(&'_ Series, usize)| (*lags, series.columns().to_vec());
    let owned: Vec<(usize, Vec<Vec<f64>>)> = sets.iter().map(set).collect();
    let asked = Asked {
        sets: owned
            .iter()
            .map(|(lags, columns)| Set {
                lags: *lags,
                alpha,
                columns,
            })
            .collect(),
    };
    let dir = tempfile::tempdir().context("no folder for what is searched")?;
    let file = dir.path().join("sets.json");
    fs::write(&file, serde_json::to_vec(&asked)?).context("cannot write what is searched")?;
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .arg(&file)
        // One thread, like ours.
        .envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().last().unwrap_or_default();
    ensure!(
        output.status.success(),
        "{}: {}, {last}",
        python.display(),
        output.status
    );
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} gave no answer", python.display()))?;
    ensure!(
        answer.sets.len() == sets.len(),
        "{} answers for {} sets",
        answer.sets.len(),
        sets.len()
    );
    Ok(answer)
}
