//! `homeostat causes discover`: which links stored measurements propose. Offline and advisory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use homeostat_causal::discover::Settings;

use super::table::{plain, table};
use super::{Failure, runtime};
use crate::control::explaining;
use crate::control::ingest::chain;
use crate::control::now_ms;
use crate::diagnose::discover::{
    Advice, Census, Nothing, Proposals, STEP_MS, VARIABLES_MAX, discover,
};
use crate::diagnose::graph::Graph;
use crate::diagnose::readings::{Reading, readings};
use crate::diagnose::why::known;
use crate::io::db::{Db, DbError};

/// Pages of aggregates of one node that are read, a day each: ten weeks.
const PAGES_MAX: usize = 70;

#[derive(Debug, Subcommand)]
pub(super) enum CausesCommand {
    /// Propose links between components from what nodes measured, and say which of them the
    /// topology has. Advisory: nothing else reads it. Takes minutes for dozens of components.
    Discover(Discover),
}

#[derive(Debug, Args)]
pub(super) struct Discover {
    /// The coordinator's data folder; it may run meanwhile.
    #[arg(long, value_name = "DIR", default_value = "homeostat-data")]
    data: PathBuf,
    /// Only of these nodes.
    #[arg(long)]
    node: Vec<homeostat_common::ids::NodeId>,
    /// Of the last so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// How many aggregates of five minutes a cause may lie back.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=12))]
    lags: u8,
    /// A link that chance would make with this probability counts.
    #[arg(long, default_value_t = 0.001, value_parser = alpha)]
    alpha: f64,
}

fn alpha(text: &str) -> Result<f64, String> {
    let alpha: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if alpha > 0.0 && alpha < 0.5 {
        Ok(alpha)
    } else {
        Err("expected a probability above 0 and below 0.5".into())
    }
}

pub(super) fn causes(command: &CausesCommand) -> Result<String, Failure> {
    let CausesCommand::Discover(args) = command;
    let found = runtime()?.block_on(search(&args.data, args));
    let found = found.map_err(|error| Failure::Failed(chain(&error)))?;
    Ok(shown(&found))
}

/// Why nothing was searched.
#[derive(Debug, thiserror::Error)]
enum NoSearch {
    #[error("{file}: there is no node {node}; {known}")]
    Nobody {
        file: String,
        node: String,
        known: String,
    },
    #[error("cannot look into {file}")]
    Read {
        file: String,
        #[source]
        source: DbError,
    },
    #[error(transparent)]
    Nothing(#[from] Nothing),
}

async fn search(data: &Path, args: &Discover) -> Result<Proposals, NoSearch> {
    let file = || data.join("coordinator.db").display().to_string();
    let nodes = args.node.iter().map(ToString::to_string).collect();
    let read = |source| NoSearch::Read {
        file: file(),
        source,
    };
    let (graph, census, all) = match measured(data, nodes, args.days).await.map_err(read)? {
        Ok(found) => found,
        Err((node, nodes)) => {
            return Err(NoSearch::Nobody {
                file: file(),
                node,
                known: known(&nodes),
            });
        }
    };
    let settings = Settings {
        lags: usize::from(args.lags),
        alpha: args.alpha,
        ..Settings::default()
    };
    Ok(discover(&all, &census, &graph, &settings)?)
}

/// A node that there is not, and all that there are.
type Unknown = (String, Vec<String>);

/// Who needs whom, and what these nodes have measured; of all, if none is named.
async fn measured(
    data: &Path,
    wanted: Vec<String>,
    days: u32,
) -> Result<Result<(Graph, Census, Vec<Reading>), Unknown>, DbError> {
    let db = Db::look(data).await?;
    let graph = explaining::graph(&db, &[]).await?;
    let nodes: Vec<String> = db
        .sites()
        .await?
        .into_iter()
        .map(|(node, _)| node)
        .collect();
    let unknown = wanted.iter().find(|one| !nodes.contains(one));
    if let Some(unknown) = unknown {
        return Ok(Err((unknown.clone(), nodes)));
    }
    let from_ms = now_ms().saturating_sub(u64::from(days) * 86_400_000);
    let nodes = if wanted.is_empty() { nodes } else { wanted };
    // Twice: all that a fleet measures would not fit.
    let mut census = Census::default();
    each(&db, &nodes, from_ms, &graph, |one| census.add(&one)).await?;
    let chosen = census.chosen();
    let mut all = Vec::new();
    let keep = |one: Reading| {
        if chosen.contains(&(one.place.clone(), one.metric)) {
            all.push(one);
        }
    };
    each(&db, &nodes, from_ms, &graph, keep).await?;
    Ok(Ok((graph, census, all)))
}

/// What these nodes have measured since, a page at a time.
async fn each(
    db: &Db,
    nodes: &[String],
    from_ms: u64,
    graph: &Graph,
    mut then: impl FnMut(Reading),
) -> Result<(), DbError> {
    for node in nodes {
        let mut before = u64::MAX >> 1;
        for _ in 0..PAGES_MAX {
            let told = db.aggregates(node, from_ms, before).await?;
            let Some(last) = told.last() else {
                break;
            };
            before = last.cursor;
            for event in &told {
                let all = readings(node, event.at_ms, &event.body, graph);
                all.into_iter().for_each(&mut then);
            }
        }
    }
    Ok(())
}

fn shown(found: &Proposals) -> String {
    let mut out = format!(
        "{} variables over {} steps of {} min, {} tests; {} variables left out (they never \
         change, are too seldom there, or more than {VARIABLES_MAX})\n",
        found.variables,
        found.steps,
        STEP_MS / 60_000,
        found.tests,
        found.left_out
    );
    if found.links.is_empty() {
        out.push_str("no link is proposed\n");
        return out;
    }
    let rows = found.links.iter().map(|link| {
        let end = |(place, metric): &(crate::fleet::diagnosis::Place, _)| {
            let metric: homeostat_common::observation::Metric = *metric;
            format!("{} of {place}", metric.name())
        };
        vec![
            end(&link.from),
            if link.directed { "->" } else { "--" }.into(),
            end(&link.to),
            format!("{} min", link.lag as u64 * STEP_MS / 60_000),
            format!("{:+.2}", link.value),
            format!("{:.0e}", link.p),
            match &link.advice {
                Advice::Within => "the same component".into(),
                Advice::Known => "known".into(),
                Advice::Reversed => "known the other way round".into(),
                Advice::Shared(place) => format!("both need {place}"),
                Advice::New => "NEW: nobody told of it".into(),
            },
        ]
    });
    let header = ["FROM", "", "TO", "AFTER", "CORRELATION", "P", "TOPOLOGY"];
    out.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    let _ = writeln!(
        out,
        "{}",
        plain(
            "Proposals only: they assume linear effects and no hidden cause. A new one is worth \
             a look or a trial; add it to the configuration (depends_on, calls) if it holds."
        )
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_database_and_who_is_no_node_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.db");
        let asked = |node: &[&str]| {
            let args = Discover {
                data: folder.path().to_owned(),
                node: node.iter().map(|one| one.parse().unwrap()).collect(),
                days: 14,
                lags: 2,
                alpha: 0.001,
            };
            match causes(&CausesCommand::Discover(args)) {
                Err(Failure::Failed(text)) => text,
                other => panic!("{other:?}"),
            }
        };
        // None, an empty one, one of somebody else, and text.
        let foreign: [&[u8]; 3] = [
            b"",
            b"SQLite format 3\0",
            b"not a database, but long enough",
        ];
        let mut told = vec![asked(&[])];
        for bytes in foreign {
            std::fs::write(&file, bytes).unwrap();
            told.push(asked(&[]));
        }
        for text in told {
            assert!(text.contains("coordinator.db"), "{text}");
        }
        std::fs::remove_file(&file).unwrap();
        let db = runtime().unwrap().block_on(async {
            let db = Db::open(folder.path()).await.unwrap();
            db.close().await;
            db
        });
        drop(db);
        let text = asked(&["nobody"]);
        assert!(
            text.contains("coordinator.db: there is no node nobody; no node has reported yet"),
            "{text}"
        );
    }

    #[test]
    fn only_a_probability_is_one() {
        assert!(alpha("0.01").is_ok());
        for wrong in ["0", "0.5", "NaN", "-1", "x"] {
            assert!(alpha(wrong).is_err(), "{wrong}");
        }
    }
}
