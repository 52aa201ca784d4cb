//! `alarm`: what needs a person, and that somebody deals with it.

use std::path::Path;

use homeostat_common::wire::seal;

use super::client::{AskError, decode, get, post};
use super::table::{ago, or_dash, plain, table};
use super::{Ask, Failure, failed};
use crate::control::ingest::chain;
use crate::control::now_ms;
use crate::fleet::view::{Acknowledged, Acknowledgement, Alarm};
use crate::io::secret;

/// `alarm ls`
pub(super) fn list(ask: &Ask) -> Result<String, AskError> {
    let text = get(&ask.url, "/api/v1/alarms?raised=true")?;
    if ask.json {
        return Ok(text + "\n");
    }
    let alarms: Vec<Alarm> = decode(&ask.url, &text)?;
    let now = now_ms();
    let rows: Vec<Vec<String>> = alarms
        .iter()
        .map(|alarm| {
            vec![
                alarm.node.clone(),
                or_dash(alarm.source.as_ref()),
                alarm.alarm.clone(),
                alarm.severity.clone(),
                ago(now, alarm.since_ms),
                or_dash(alarm.acked.as_ref()),
                alarm.text.clone(),
            ]
        })
        .collect();
    Ok(table(
        &[
            "NODE",
            "FROM",
            "ALARM",
            "SEVERITY",
            "SINCE",
            "DEALT WITH BY",
            "TEXT",
        ],
        &rows,
    ))
}

/// What shows that an operator asks.
pub(super) fn token(data: &Path) -> Result<String, Failure> {
    let token = secret::read(data, secret::OPERATOR_TOKEN).map_err(|error| {
        Failure::Failed(format!(
            "{}; --data names the coordinator's data folder",
            chain(&error)
        ))
    })?;
    Ok(seal::hex(&token))
}

/// Who asks: this name, or the one that the user has logged in with.
pub(super) fn signed(by: Option<&str>) -> Acknowledgement {
    let user = || {
        ["LOGNAME", "USER"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok())
    };
    Acknowledgement {
        by: by
            .map(ToOwned::to_owned)
            .or_else(user)
            .unwrap_or("operator".into()),
    }
}

/// `alarm ack`
pub(super) fn acknowledge(
    ask: &Ask,
    name: &str,
    by: Option<&str>,
    data: &Path,
) -> Result<String, Failure> {
    // It becomes part of a path.
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Failure::Usage(format!("{name:?} is no name of an alarm")));
    }
    let token = token(data)?;
    let wish = signed(by);
    let body = serde_json::to_string(&wish).unwrap_or_default();
    let path = format!("/api/v1/alarms/{name}/ack");
    let answer = post(&ask.url, &path, &token, &body).map_err(failed)?;
    if ask.json {
        return Ok(answer + "\n");
    }
    let Acknowledged { stands } = decode(&ask.url, &answer).map_err(failed)?;
    let end = if stands {
        "not repeated any more"
    } else {
        "over"
    };
    Ok(format!(
        "alarm {name} is acknowledged by {} and {end}\n",
        plain(&wish.by)
    ))
}
