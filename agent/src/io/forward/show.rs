//! `homeostat-agent routes`: the live table of routes and backends.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Client, ClientError, Event};
use super::protocol::RouteReport;

/// How long a running forwarder may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why the table cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// No forwarder, or one that cannot be understood.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is there and says nothing.
    #[error("the forwarder does not answer within {} s", ANSWER_TIME.as_secs())]
    Silent,
    /// The runtime could not be made.
    #[error("cannot wait for the forwarder")]
    Runtime(#[source] std::io::Error),
}

/// Asks the forwarder that serves `run_dir`.
///
/// # Errors
/// [`ShowError`] when it does not answer.
pub fn routes(run_dir: &Path) -> Result<Vec<RouteReport>, ShowError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ShowError::Runtime)?;
    runtime.block_on(async {
        let asked = async {
            let (mut client, _) = Client::connect(run_dir).await?;
            client.report()?;
            loop {
                if let Event::Reports { routes, .. } = client.next().await? {
                    return Ok(routes);
                }
            }
        };
        let answer = tokio::time::timeout(ANSWER_TIME, asked).await;
        answer.map_err(|_| ShowError::Silent)?
    })
}

/// For people.
#[must_use]
pub fn table(routes: &[RouteReport]) -> String {
    let head = [
        "route",
        "backend",
        "weight",
        "health",
        "open",
        "total",
        "failed",
        "answers/5s",
        "p50",
        "p95",
        "p99",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for route in routes {
        for it in &route.backends {
            let weight = if it.weight == it.configured {
                it.weight.to_string()
            } else {
                format!("{} (of {})", it.weight, it.configured)
            };
            let [p50, p95, p99] = it.first_byte_us.map(|us| match it.answered {
                0 => "-".to_owned(),
                _ => format!("{:.2} ms", f64::from(us) / 1000.0),
            });
            rows.push([
                route.route.to_string(),
                it.backend.to_string(),
                weight,
                it.health.text().to_owned(),
                it.active.to_string(),
                it.total.to_string(),
                it.failures.to_string(),
                it.answered.to_string(),
                p50,
                p95,
                p99,
            ]);
        }
    }
    let widths: [usize; 11] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for route in routes {
        if route.waiting > 0 || route.refused > 0 {
            text += &format!(
                "{}: {} wait for a backend, {} found none\n",
                route.route, route.waiting, route.refused
            );
        }
        if route.rate.is_some() || route.blocked > 0 || route.turned_away > 0 {
            let rate = route.rate.map_or("all".to_owned(), |rate| rate.to_string());
            text += &format!(
                "{}: admits {rate}, refuses {} ranges of addresses, turned {} connections away\n",
                route.route, route.blocked, route.turned_away
            );
        }
    }
    text
}

/// For programs; spans in microseconds.
#[must_use]
pub fn json(routes: &[RouteReport]) -> Value {
    let backend = |it: &super::protocol::BackendReport| {
        let [p50, p95, p99] = it.first_byte_us;
        json!({
            "backend": it.backend.as_str(), "weight": it.weight, "configured": it.configured,
            "health": it.health.text(), "active": it.active, "total": it.total,
            "failures": it.failures, "answered": it.answered,
            "first_byte_us": { "p50": p50, "p95": p95, "p99": p99 },
            "unanswered": it.unanswered, "oldest_unanswered_us": it.oldest_us,
        })
    };
    let route = |it: &RouteReport| {
        json!({
            "route": it.route.as_str(), "listen": it.listen.to_string(),
            "waiting": it.waiting, "refused": it.refused,
            "rate": it.rate.map(|rate| rate.get()), "blocked": it.blocked,
            "turned_away": it.turned_away,
            "backends": it.backends.iter().map(backend).collect::<Vec<_>>(),
        })
    };
    routes.iter().map(route).collect()
}
