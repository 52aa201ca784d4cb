//! Reads the series and their labelled windows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::recording;

/// One recording.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// `category/name.csv`.
    pub(super) name: String,
    /// Seconds and value of each row; a value that is no number is none.
    pub(super) rows: Vec<(u64, Option<f32>)>,
    /// First and last row of each labelled window, in order.
    pub(super) windows: Vec<(usize, usize)>,
    /// The half it belongs to: the files of a category go to both in turn, by name.
    pub(super) half: usize,
}

impl Series {
    /// Rows at the start that are not scored.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
    pub(super) fn probation(&self) -> usize {
        ((self.rows.len() as f64 * 0.15).floor() as usize).min(750)
    }
}

/// Weights of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Profile {
    pub(super) tp: f64,
    pub(super) fp: f64,
    #[serde(rename = "fn")]
    pub(super) miss: f64,
}

/// Everything below `folder`: `windows.json`, `profiles.json`, `category/name.csv[.gz]`.
pub(super) fn read(folder: &Path) -> Result<(Vec<Series>, BTreeMap<String, Profile>)> {
    let json = |name: &str| recording::text(&folder.join(name));
    let windows: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&json("windows.json")?).context("cannot understand windows.json")?;
    let profiles: BTreeMap<String, Profile> =
        serde_json::from_str(&json("profiles.json")?).context("cannot understand profiles.json")?;
    let mut series: Vec<Series> = Vec::new();
    for (name, windows) in &windows {
        let category = |name: &str| name.split('/').next().map(str::to_owned);
        let half = match series.last() {
            Some(last) if category(&last.name) == category(name) => 1 - last.half,
            _ => 0,
        };
        let read = one(folder, name, windows, half);
        series.push(read.with_context(|| format!("cannot read the series {name}"))?);
    }
    ensure!(!series.is_empty(), "windows.json names no series");
    Ok((series, profiles))
}

fn one(folder: &Path, name: &str, windows: &[(String, String)], half: usize) -> Result<Series> {
    ensure!(
        !name.starts_with('/') && name.split('/').all(|part| part != ".."),
        "it lies outside of the folder"
    );
    let packed = folder.join(format!("{name}.gz"));
    let file = if fs::exists(&packed).unwrap_or(false) {
        packed
    } else {
        folder.join(name)
    };
    let text = recording::text(&file)?;
    let mut rows = Vec::new();
    for record in csv::Reader::from_reader(text.as_bytes()).records() {
        let record = record.context("cannot split a row")?;
        let (Some(time), Some(value)) = (record.get(0), record.get(1)) else {
            bail!("row {} has not two columns", rows.len() + 1);
        };
        let value = value.trim().parse::<f32>().ok().filter(|v| v.is_finite());
        rows.push((seconds(time)?, value));
    }
    let mut found = Vec::new();
    for (from, to) in windows {
        let (from, to) = (seconds(from)?, seconds(to)?);
        let inside = |row: &(u64, Option<f32>)| (from..=to).contains(&row.0);
        let first = rows.iter().position(inside);
        let last = rows.iter().rposition(inside);
        match (first, last) {
            (Some(first), Some(last)) => found.push((first, last)),
            _ => bail!("no row lies in a window"),
        }
    }
    found.sort_unstable();
    Ok(Series {
        name: name.to_owned(),
        rows,
        windows: found,
        half,
    })
}

/// Seconds since 1970 of `2015-02-26 21:42:53`; a fraction is cut off.
fn seconds(text: &str) -> Result<u64> {
    let numbers: Vec<u64> = text
        .split(['-', ' ', 'T', ':', '.'])
        .take(6)
        .filter_map(|part| part.parse().ok())
        .collect();
    let [year, month, day, hour, minute, second] = numbers[..] else {
        bail!("no time: {text:?}");
    };
    ensure!(
        (1970..3000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day),
        "no date: {text:?}"
    );
    ensure!(hour < 24 && minute < 60 && second < 61, "no time: {text:?}");
    // Days of the Gregorian calendar from 1 March of year 0, the leap day last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Ok((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_calendar() {
        let at = |text| seconds(text).unwrap();
        assert_eq!(at("1970-01-01 00:00:00"), 0);
        assert_eq!(at("2000-02-29T23:59:59"), 951_868_799);
        assert_eq!(at("2026-12-31 23:59:59.000000"), 1_798_761_599);
        for bad in ["", "2015-13-01 00:00:00", "2015-02-26", "yesterday"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
