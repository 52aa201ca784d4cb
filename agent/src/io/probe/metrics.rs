//! Reads what a service says about itself in the text format of Prometheus.
//!
//! In goes a body, out come the largest value of each watched name and a hash of the whole
//! body. Every line is checked as Prometheus would check it before it believes any of them:
//! half a page of metrics is none. Types, help, time stamps, and the labels of gauges are read
//! over; what a value means is the caller's.

use homeostat_common::wire::bounded;

use crate::config::{GAUGES_MAX, Gauge, Serving};
use crate::service::serving::{BINS_MAX, Histogram, Page, SERIES_MAX};

/// Longest name of a series.
const SERIES_BYTES_MAX: usize = 64;

/// What a scrape brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Of the whole body (FNV-1a): the same again and again means that nobody counts.
    pub hash: u64,
    /// In the order of the configuration; `None` when the name is missing or not a number.
    /// Of several series of one name the largest.
    pub gauges: [Option<f64>; GAUGES_MAX],
    /// About a model that is served.
    pub page: Option<Box<Page>>,
}

/// Reads `body`.
///
/// # Errors
/// The number of the first line that is not of this format; 0 when there is no sample.
pub(super) fn read(
    body: &[u8],
    watched: &[Gauge],
    serving: Option<&Serving>,
) -> Result<Metrics, usize> {
    let mut found = Metrics {
        hash: hash(body),
        gauges: [None; GAUGES_MAX],
        page: serving.map(|_| Box::default()),
    };
    let mut samples = 0_usize;
    for (n, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| n + 1)?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, labels, value) = sample(line).ok_or(n + 1)?;
        samples += 1;
        for (gauge, place) in watched.iter().zip(&mut found.gauges) {
            if gauge.name == name && !value.is_nan() {
                *place = Some(place.map_or(value, |known| known.max(value)));
            }
        }
        if let (Some(serving), Some(page)) = (serving, &mut found.page) {
            note(page, serving, name, labels, value);
        }
    }
    if samples == 0 {
        return Err(0);
    }
    if let Some(page) = &mut found.page {
        // Of one with too many bins some are not there, and the rest would tell what is not so.
        let fits = |one: &Histogram| one.bins.len() <= BINS_MAX;
        page.inputs.retain(fits);
        page.confidence = page.confidence.take().filter(fits);
        page.latency = page.latency.take().filter(fits);
        let others = page.confidence.iter_mut().chain(&mut page.latency);
        for histogram in page.inputs.iter_mut().chain(others) {
            histogram.bins.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
    }
    Ok(found)
}

/// Adds a sample to what the page says about the model, if it is about that.
fn note(page: &mut Page, serving: &Serving, name: &str, labels: &str, value: f64) {
    let is = |wanted: &Option<String>| wanted.as_deref() == Some(name);
    if value.is_nan() {
        return;
    }
    if is(&serving.requests) {
        page.requests = Some(page.requests.unwrap_or(0.0) + value);
    }
    if is(&serving.errors) {
        page.errors = Some(page.errors.unwrap_or(0.0) + value);
    }
    let Some(name) = name.strip_suffix("_bucket") else {
        return;
    };
    let is = |wanted: &Option<String>| wanted.as_deref() == Some(name);
    let Some((bound, series)) = bin(labels) else {
        return;
    };
    if is(&serving.inputs) {
        let known = page.inputs.iter().position(|one| one.series == series);
        let room = page.inputs.len() < SERIES_MAX;
        let place = known.or_else(|| {
            room.then(|| {
                page.inputs.push(Histogram {
                    series,
                    bins: Vec::new(),
                });
                page.inputs.len() - 1
            })
        });
        if let Some(histogram) = place.and_then(|place| page.inputs.get_mut(place)) {
            add(histogram, bound, value);
        }
    } else if is(&serving.confidence) {
        add(page.confidence.get_or_insert_default(), bound, value);
    } else if is(&serving.latency) {
        add(page.latency.get_or_insert_default(), bound, value);
    }
}

/// Series that are not told apart are summed up.
fn add(histogram: &mut Histogram, bound: f64, value: f64) {
    // By one more, by which it is told.
    let room = histogram.bins.len() <= BINS_MAX;
    let same = |bin: &&mut (f64, f64)| bin.0.total_cmp(&bound).is_eq();
    match histogram.bins.iter_mut().find(same) {
        Some(bin) => bin.1 += value,
        None if room => histogram.bins.push((bound, value)),
        None => {}
    }
}

/// The upper bound in `labels`, and all other labels.
fn bin(labels: &str) -> Option<(f64, String)> {
    let mut bound = None;
    let mut series = String::new();
    let mut rest = labels.trim();
    while let Some((name, behind)) = rest.split_once("=\"") {
        let mut escaped = false;
        let end = behind.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let (value, after) = behind.split_at_checked(end)?;
        let name = name.trim();
        if name == "le" {
            bound = value.parse().ok().filter(|bound: &f64| !bound.is_nan());
        } else {
            let comma = if series.is_empty() { "" } else { "," };
            series.push_str(&format!("{comma}{name}={value}"));
        }
        rest = after
            .get(1..)?
            .trim_start()
            .trim_start_matches(',')
            .trim_start();
    }
    Some((bound?, bounded(&series, SERIES_BYTES_MAX)))
}

/// `name value`, `name{labels} value`, each with an optional time stamp: name, what stands
/// between the braces, value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
    let (name, rest) = line.split_at(end?);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => ("", rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let stamp_fits = words.next().is_none_or(|word| word.parse::<i64>().is_ok());
    (stamp_fits && words.next().is_none()).then_some((name, labels, value))
}

/// What stands before the closing brace, and what follows it. Inside quotes a brace is text, and so is a quote behind a
/// backslash.
fn after_labels(labels: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some((labels.get(..at)?, labels.get(at + 1..)?)),
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
        let found = read(PAGE.as_bytes(), &watched, None).unwrap();
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
        let hash = |page: &str| read(page.as_bytes(), &[], None).unwrap().hash;
        assert_eq!(hash(PAGE), hash(PAGE));
        assert_ne!(hash(PAGE), hash(&PAGE.replace("1027", "1028")));
        assert_ne!(hash("a 1"), hash("a 1\n"));
    }

    #[test]
    fn histograms_are_read_by_series_and_counters_summed() {
        let serving = Serving {
            inputs: Some("in".into()),
            confidence: Some("sure".into()),
            latency: Some("took".into()),
            requests: Some("all".into()),
            errors: Some("bad".into()),
            learn: 1000,
            window: 500,
        };
        let page = "in_bucket{le=\"+Inf\",feature=\"a\\\"}b\"} 9\n\
            in_bucket{feature=\"a\\\"}b\", le=\"0.5\"} 4\nin_bucket{le=\"1\"} 1\n\
            in_bucket{le=\"x\"} 1\nin_sum 3\nin_count 9\nsure_bucket{le=\"0.9\",zone=\"1\"} 1\n\
            sure_bucket{le=\"0.9\",zone=\"2\"} 2\nall{code=\"200\"} 5\nall{code=\"500\"} 2\nbad NaN";
        let found = read(page.as_bytes(), &[], Some(&serving))
            .unwrap()
            .page
            .unwrap();
        let [first, second] = &found.inputs[..] else {
            panic!("{found:?}")
        };
        assert_eq!(first.series, "feature=a\\\"}b");
        assert_eq!(first.bins, [(0.5, 4.0), (f64::INFINITY, 9.0)]);
        assert_eq!((second.series.as_str(), second.bins.len()), ("", 1));
        assert_eq!(found.confidence.unwrap().bins, [(0.9, 3.0)]);
        assert_eq!(
            (found.requests, found.errors, found.latency),
            (Some(7.0), None, None)
        );
    }

    #[test]
    fn a_histogram_with_too_many_bins_is_none() {
        let serving = Serving {
            inputs: None,
            confidence: None,
            latency: Some("took".into()),
            requests: None,
            errors: None,
            learn: 1000,
            window: 500,
        };
        let page = |bins: usize| -> String {
            let bins = (0..bins).map(|bin| format!("took_bucket{{le=\"{bin}\"}} {bin}\n"));
            bins.collect()
        };
        let bins = |count: usize| {
            let found = read(page(count).as_bytes(), &[], Some(&serving)).unwrap();
            Some(found.page?.latency?.bins.len())
        };
        assert_eq!(bins(BINS_MAX), Some(BINS_MAX));
        assert_eq!((bins(BINS_MAX + 1), bins(1000)), (None, None));
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
            assert_eq!(read(page.as_bytes(), &[], None), Err(line), "{page}");
        }
        assert_eq!(read(b"a 1\n\xff\xfe 2\n", &[], None), Err(2));
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
