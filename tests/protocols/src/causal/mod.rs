//! What `homeostat-causal` says, beside what is true.
//!
//! [`effects`]: whether the effect of an action follows from observation, against acting on
//! exact models; refusals against [`twins`], two models that look the same and differ in what
//! the action does. [`links`]: which links time series propose, against the systems that made
//! them ([`systems`]) and against tigramite on the same data ([`reference`]).

mod effects;
pub mod incidents;
mod links;
mod reference;
mod systems;
mod twins;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::result::Report;

/// How much to measure, and what with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Random graphs.
    pub graphs: usize,
    /// Random models for each known graph.
    pub models: usize,
    /// Recordings of each of the three systems.
    pub recordings: usize,
    /// New plays of each incident.
    pub plays: u64,
    /// Most incidents.
    pub incidents: usize,
    /// A Python with tigramite, the reference of discovery.
    pub python: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            graphs: 1000,
            models: 50,
            recordings: 20,
            plays: 5,
            incidents: usize::MAX,
            python: None,
        }
    }
}

/// Measures all of it.
///
/// # Errors
/// When nothing is to be measured, or the Python that was given does not do.
pub fn run(options: &Options, seed: u64) -> Result<Report> {
    let Options {
        graphs,
        models,
        recordings,
        plays,
        incidents,
        python,
    } = options;
    ensure!(
        *graphs > 0 && *models > 0 && *recordings > 0,
        "nothing to measure"
    );
    let begun = Instant::now();
    let settings = format!(
        "{} {} {} {graphs} {models} {recordings} {plays}",
        effects::SETTINGS,
        links::SETTINGS,
        incidents::SETTINGS
    );
    let mut report = Report::new("causal", &settings);
    effects::known(*models, seed, &mut report)?;
    effects::random(*graphs, seed, &mut report)?;
    links::run(*recordings, python.as_deref(), seed, &mut report)?;
    incidents::run(*plays, *incidents, seed, &mut report)?;
    report.finish(begun.elapsed());
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_right_and_refusals_are_proven_at_any_size() {
        let few = Options {
            graphs: 60,
            models: 2,
            recordings: 1,
            plays: 1,
            incidents: 2,
            python: None,
        };
        let report = run(&few, 3).unwrap();
        let row = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap();
        for id in [
            "known.error",
            "known.wrong",
            "random.error",
            "random.unproven",
        ] {
            assert_eq!(
                row(&format!("causal.effects.{id}")).holds,
                Some(true),
                "{id}"
            );
        }
        assert!(row("causal.effects.random.unproven").n > 3);
        assert!(row("causal.links.varied.recall").ours > 0.5);
        assert_eq!(row("causal.links.varied.recall").reference, None);
        assert!(row("causal.incidents.itself.right").n > 0);
        assert!(run(&Options { graphs: 0, ..few }, 3).is_err());
    }

    #[test]
    fn a_python_that_does_not_do_is_an_error_and_not_a_silent_absence() {
        let python = Some(PathBuf::from("/nonexistent/python"));
        let few = Options {
            graphs: 1,
            models: 1,
            recordings: 1,
            plays: 1,
            incidents: 1,
            python,
        };
        let error = format!("{:#}", run(&few, 3).unwrap_err());
        assert!(error.contains("/nonexistent/python"), "{error}");
    }
}
