//! `explain`: reads incidents back from the history, in words.

use std::time::Duration;

use homeostat_common::hlc;
use homeostat_common::ids::IncidentId;
use homeostat_common::wire::body::Body;

use super::chain;
use crate::io::store::kv::{Kv, Tree};
use crate::words::words;

/// Events that are read back at once: some thousand incidents.
const EXPLAINED_MAX: usize = 4096;

/// How an answer begins that tells of no incident, because none can be read.
pub const NO_HISTORY: &str = "there is no history";

/// One incident in words, or the last ones, newest last.
#[must_use]
pub fn explain(kv: Option<&Kv>, incident: Option<IncidentId>) -> String {
    let Some(kv) = kv else {
        return format!("{NO_HISTORY}: its store could not be opened\n");
    };
    let read = match incident {
        Some(incident) => kv.scan(Tree::History, &incident.0.to_be_bytes(), EXPLAINED_MAX),
        None => kv.newest(Tree::History, EXPLAINED_MAX),
    };
    let found = match read {
        Ok(found) => found,
        Err(error) => return format!("{NO_HISTORY}: {}\n", chain(&error)),
    };
    let events: Vec<(hlc::Hlc, Body)> = found
        .iter()
        .filter_map(|(_, value)| postcard::from_bytes(value).ok())
        .collect();
    let mut text = String::new();
    for (hlc, body) in &events {
        let shown = match incident {
            Some(_) => true,
            None => matches!(body, Body::IncidentOpened(_) | Body::IncidentClosed(_)),
        };
        if let Some(words) = words(body).filter(|_| shown) {
            text.push_str(&format!("{}  ", time_of_day(*hlc)));
            let words = match incident {
                Some(_) => words,
                None => words.lines().next().unwrap_or_default().to_owned(),
            };
            text.push_str(&words.replace('\n', "\n                          "));
            text.push('\n');
        }
    }
    if text.is_empty() {
        text = match incident {
            Some(incident) => format!("no incident {incident} is known here\n"),
            None => "no incident yet\n".into(),
        };
    }
    text
}

fn time_of_day(hlc: hlc::Hlc) -> String {
    let since = Duration::from_millis(hlc.unix_ms());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}
