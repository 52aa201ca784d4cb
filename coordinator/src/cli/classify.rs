//! `homeostat classify`: the class of a failure from event counts.
//!
//! `train` makes a model, `run` asks it, `show` says what it knows, `collect` writes the
//! incidents of a fleet as counts and labels to train on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use homeostat_classify::{Classifier, HEALTHY};

use super::client::{AskError, decode, get};
use super::table::{or_dash, plain, table};
use super::{Failure, failed};
use crate::control::ingest::chain;
use crate::diagnose;
use crate::fleet::view::{ClassEvidence, IncidentClass, IncidentDetail, Incidents};
use crate::io::counts::{self, CountsError};

/// Most incidents that are collected: each is one question to the coordinator, and this many
/// take a minute.
const COLLECT_MAX: usize = 5000;

/// Runs that a page of incidents holds.
const PAGE: usize = 500;

#[derive(Debug, Subcommand)]
pub(super) enum ClassifyCommand {
    /// Learn failure classes from the event counts of runs that have a label each.
    Train {
        /// CSV, or CSV packed as .gz: a column for each event, a row for each run.
        #[arg(long, value_name = "FILE")]
        counts: PathBuf,
        /// CSV with the column `label_name` for the same rows; `no_failure` are healthy.
        #[arg(long, value_name = "FILE")]
        labels: PathBuf,
        /// Where to write the model.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Where chance begins: the same seed and files give the same model.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Say of each run which class it is, or that it is unlike all that the model knows.
    Run {
        /// The model.
        #[arg(long, value_name = "FILE")]
        model: PathBuf,
        /// As for train; columns in any order.
        #[arg(long, value_name = "FILE")]
        counts: PathBuf,
        /// Counts of healthy runs of the place where the others come from, when that is not
        /// where the model was trained.
        #[arg(long, value_name = "FILE")]
        healthy: Option<PathBuf>,
        /// Print a JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Say what a model was trained on.
    Show {
        /// The model.
        model: PathBuf,
    },
    /// Write the counts of past incidents, and as labels what their nodes took them for
    /// (`no_failure` for those that went by themselves): correct the labels, then train.
    Collect(Collect),
}

#[derive(Debug, Args)]
pub(super) struct Collect {
    /// Where to write `fleet_seq.csv` and `fleet_labels.csv`.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The coordinator.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

pub(super) fn classify(command: &ClassifyCommand) -> Result<String, Failure> {
    match command {
        ClassifyCommand::Train {
            counts,
            labels,
            out,
            seed,
        } => train(counts, labels, out, *seed),
        ClassifyCommand::Run {
            model,
            counts,
            healthy,
            json,
        } => run(model, counts, healthy.as_deref(), *json),
        ClassifyCommand::Show { model } => Ok(known(&counts::model(model).map_err(unusable)?)),
        ClassifyCommand::Collect(args) => collect(&args.url, &args.out),
    }
}

fn train(counts: &Path, labels: &Path, out: &Path, seed: u64) -> Result<String, Failure> {
    let runs = counts::runs(counts).map_err(unusable)?;
    let labels = counts::labels(labels).map_err(unusable)?;
    let model = Classifier::train(&runs, &labels, seed)
        .map_err(|error| Failure::Failed(format!("cannot train: {error}")))?;
    counts::save(&model, out).map_err(unusable)?;
    Ok(known(&model))
}

fn known(model: &Classifier) -> String {
    let rows: Vec<Vec<String>> = model
        .classes()
        .map(|(class, runs)| vec![class.to_owned(), runs.to_string()])
        .collect();
    let services: std::collections::BTreeSet<&str> = model
        .events()
        .iter()
        .map(|event| homeostat_classify::usual::service(event))
        .collect();
    format!(
        "{} events of {} services, seed {}\n\n{}",
        model.events().len(),
        services.len(),
        model.seed(),
        table(&["CLASS", "RUNS"], &rows)
    )
}

fn run(model: &Path, runs: &Path, healthy: Option<&Path>, json: bool) -> Result<String, Failure> {
    let mut model = counts::model(model).map_err(unusable)?;
    if let Some(file) = healthy {
        let usual = counts::runs(file).map_err(unusable)?;
        model = model.beside(&usual).ok_or_else(|| {
            Failure::Failed(format!(
                "{} has too few runs to know what is usual",
                file.display()
            ))
        })?;
    }
    let runs = counts::runs(runs).map_err(unusable)?;
    let said: Vec<IncidentClass> = runs
        .iter()
        .map(|run| diagnose::class::shown(model.classify(run)))
        .collect();
    if json {
        let text = serde_json::to_string_pretty(&said);
        return text
            .map(|text| text + "\n")
            .map_err(|error| Failure::Failed(chain(&error)));
    }
    let rows: Vec<Vec<String>> = said
        .iter()
        .enumerate()
        .map(|(row, one)| {
            vec![
                row.to_string(),
                one.class.clone().unwrap_or_else(|| "novel".into()),
                format!("{} {:.2}", one.likeliest, one.probability),
                format!("{:.2}", one.unusual),
                format!("{:.2}", one.novelty),
                one.evidence
                    .iter()
                    .take(3)
                    .map(event)
                    .collect::<Vec<_>>()
                    .join("; "),
            ]
        })
        .collect();
    let header = [
        "ROW",
        "CLASS",
        "LIKELIEST",
        "UNUSUAL",
        "NOVELTY",
        "BECAUSE OF",
    ];
    let novel = said.iter().filter(|one| one.class.is_none()).count();
    let fine = said
        .iter()
        .filter(|one| one.class.as_deref() == Some(HEALTHY))
        .count();
    let mut text = table(&header, &rows);
    let _ = writeln!(
        text,
        "\n{} runs: {fine} healthy, {} known failures, {novel} unlike anything it was trained on",
        said.len(),
        said.len() - fine - novel
    );
    Ok(text)
}

/// An event with its counts: `ssh_open 0 (1)`.
pub(super) fn event(one: &ClassEvidence) -> String {
    match (one.count, one.usual) {
        (Some(count), Some(usual)) => format!("{} {count} (usually {usual})", one.event),
        _ => one.event.clone(),
    }
}

/// The lines of an incident about its class.
pub(super) fn lines(class: &IncidentClass) -> Vec<(&'static str, String)> {
    let said = match &class.class {
        Some(name) => format!("{name}, probability {:.2}", class.probability),
        None => format!(
            "unlike anything the model was trained on; nearest to {}",
            class.likeliest
        ),
    };
    let events: Vec<String> = class.evidence.iter().map(event).collect();
    let mut rows = vec![
        ("class", said),
        (
            "unusual",
            format!(
                "more than {:.0} % of healthy runs, novelty {:.2}",
                class.unusual * 100.0,
                class.novelty
            ),
        ),
    ];
    if !events.is_empty() {
        rows.push(("because of", events.join("; ")));
    }
    if !class.services.is_empty() {
        rows.push(("affected", class.services.join(", ")));
    }
    rows
}

fn collect(url: &str, out: &Path) -> Result<String, Failure> {
    let details = details(url).map_err(failed)?;
    let mut all = Vec::new();
    for detail in &details {
        let incident = &detail.incident;
        let Some(run) = diagnose::class::counts(incident.id, &detail.timeline) else {
            continue;
        };
        let label = if incident.outcome.as_deref() == Some("recovered") {
            HEALTHY.to_owned()
        } else {
            or_dash(incident.fault.as_ref())
        };
        all.push((run, label, format!("{} {}", incident.node, incident.id)));
    }
    let [counts, labels] = counts::write(out, &all).map_err(unusable)?;
    Ok(format!(
        "{} of {} incidents have an observation\n{}\n{}\n",
        all.len(),
        details.len(),
        counts.display(),
        plain(&labels.display().to_string())
    ))
}

/// Every incident with its timeline, newest first.
fn details(url: &str) -> Result<Vec<IncidentDetail>, AskError> {
    let mut all = Vec::new();
    let mut before = String::new();
    while all.len() < COLLECT_MAX {
        let text = get(url, &format!("/api/v1/incidents?limit={PAGE}{before}"))?;
        let page: Incidents = decode(url, &text)?;
        for incident in page.incidents.iter().take(COLLECT_MAX - all.len()) {
            let text = get(url, &format!("/api/v1/incidents/{}", incident.id))?;
            all.push(decode(url, &text)?);
        }
        match page.next {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    Ok(all)
}

#[allow(clippy::needless_pass_by_value)] // As map_err wants it.
fn unusable(error: CountsError) -> Failure {
    Failure::Failed(chain(&error))
}
