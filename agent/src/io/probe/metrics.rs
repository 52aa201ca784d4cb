//! Reads what a service says about itself in the text format of Prometheus.
//!
//! In goes a body, out come the largest value of each watched name and a hash of the whole
//! body. Every line is checked as Prometheus would check it before it believes any of them:
//! half a page of metrics is none. Types, help, time stamps, and labels are read over; what a
//! value means is the caller's.

use crate::config::{GAUGES_MAX, Gauge};

/// What a scrape brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metrics {
    /// Of the whole body (FNV-1a): the same again and again means that nobody counts.
    pub hash: u64,
    /// In the order of the configuration; `None` when the name is missing or not a number.
    /// Of several series of one name the largest.
    pub gauges: [Option<f64>; GAUGES_MAX],
}

/// Reads `body`.
///
/// # Errors
/// The number of the first line that is not of this format; 0 when there is no sample.
pub(super) fn read(body: &[u8], watched: &[Gauge]) -> Result<Metrics, usize> {
    let mut found = Metrics {
        hash: hash(body),
        gauges: [None; GAUGES_MAX],
    };
    let mut samples = 0_usize;
    for (n, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| n + 1)?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = sample(line).ok_or(n + 1)?;
        samples += 1;
        for (gauge, place) in watched.iter().zip(&mut found.gauges) {
            if gauge.name == name && !value.is_nan() {
                *place = Some(place.map_or(value, |known| known.max(value)));
            }
        }
    }
    if samples == 0 {
        return Err(0);
    }
    Ok(found)
}

/// `name value`, `name{labels} value`, each with an optional time stamp.
fn sample(line: &str) -> Option<(&str, f64)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
    let (name, rest) = line.split_at(end?);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => rest,
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let stamp_fits = words.next().is_none_or(|word| word.parse::<i64>().is_ok());
    (stamp_fits && words.next().is_none()).then_some((name, value))
}

/// What follows the closing brace. Inside quotes a brace is text, and so is a quote behind a
/// backslash.
fn after_labels(labels: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return labels.get(at + 1..),
            _ => {}
        }
    }
    None
}

fn hash(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::units::Millis;

    const PAGE: &str = "# HELP queue_depth Waiting.\n# TYPE queue_depth gauge\n\
        queue_depth{queue=\"a}\\\"b\"} 3\nqueue_depth{queue=\"b\"} 17.5 1395066363000\n\
        http_requests_total{code=\"200\",method=\"post\"} 1027\n\n  idle   NaN\n\
        temperature_celsius -Inf\nbucket{le=\"+Inf\"} 1e3";

    #[test]
    fn the_largest_of_the_watched_values_is_found() {
        let watched = gauges(&[
            "queue_depth",
            "idle",
            "temperature_celsius",
            "bucket",
            "none",
        ]);
        let found = read(PAGE.as_bytes(), &watched).unwrap();
        let expected = [
            Some(17.5),
            None,
            Some(f64::NEG_INFINITY),
            Some(1000.0),
            None,
        ];
        assert_eq!(found.gauges[..5], expected);
        assert_eq!(found.gauges[5..], [None; 3]);
    }

    #[test]
    fn the_hash_tells_any_change() {
        let hash = |page: &str| read(page.as_bytes(), &[]).unwrap().hash;
        assert_eq!(hash(PAGE), hash(PAGE));
        assert_ne!(hash(PAGE), hash(&PAGE.replace("1027", "1028")));
        assert_ne!(hash("a 1"), hash("a 1\n"));
    }

    #[test]
    fn a_line_that_is_no_sample_spoils_the_page() {
        for (page, line) in [
            ("", 0),
            ("# only words\n", 0),
            ("<html>", 1),
            ("a 1\nb", 2),
            ("a 1\nb x", 2),
            ("a{b=\"c\" 1", 1),
            ("a 1 2 3", 1),
            ("a 1 soon", 1),
            ("1a 1", 1),
            ("{\"json\": true}", 1),
        ] {
            assert_eq!(read(page.as_bytes(), &[]), Err(line), "{page}");
        }
        assert_eq!(read(b"a 1\n\xff\xfe 2\n", &[]), Err(2));
    }

    fn gauges(names: &[&str]) -> Vec<Gauge> {
        let gauge = |name: &&str| Gauge {
            name: (*name).to_owned(),
            max: 1.0,
            hold: Millis(0),
        };
        names.iter().map(gauge).collect()
    }
}
