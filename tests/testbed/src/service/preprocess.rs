//! Normalises a row: `(x + offset) * scale`, clipped.
//!
//! In: `POST /` with `{"inputs": [numbers]}`. Out: `{"inputs": [numbers], "via": [..]}`. The
//! cache is asked first and told afterwards; without one, or with one that does not answer at
//! once, the row is computed. The configuration is read at start and never again.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Serve;
use super::call::call;
use super::http::{Method, Request, Response};

/// A cache that takes longer than this is slower than the work it saves.
const CACHE_MAX: Duration = Duration::from_millis(20);
/// Widest row: bounds the time one client can take.
const WIDTH_MAX: usize = 4096;
/// Largest configuration read.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// How rows are normalised.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Factor, after the offset.
    scale: f32,
    /// Summand.
    offset: f32,
    /// Largest magnitude of a result.
    #[serde(default = "Config::clip")]
    clip: f32,
}

impl Config {
    fn clip() -> f32 {
        1e6
    }

    /// Reads and checks a file; what is wrong is said in words for a person.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let wrong = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
        let mut text = String::new();
        File::open(file)
            .and_then(|opened| opened.take(CONFIG_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| wrong(&error))?;
        let config: Self = toml::from_str(&text).map_err(|error| wrong(&error))?;
        let checks = [
            ("scale", config.scale, config.scale != 0.0),
            ("offset", config.offset, true),
            ("clip", config.clip, config.clip > 0.0),
        ];
        for (key, value, fits) in checks {
            if !value.is_finite() || !fits {
                return Err(wrong(&format!(
                    "{key} = {value}: expected a finite number; scale not 0, clip above 0"
                )));
            }
        }
        Ok(config)
    }

    fn apply(&self, row: &[f32]) -> Vec<f32> {
        let normal = |x: &f32| ((x + self.offset) * self.scale).clamp(-self.clip, self.clip);
        row.iter().map(normal).collect()
    }
}

pub(super) struct Preprocess {
    config: Config,
    cache: Option<SocketAddr>,
    id: String,
}

impl Preprocess {
    pub(super) fn new(config: Config, cache: Option<SocketAddr>, id: String) -> Self {
        Self { config, cache, id }
    }

    /// Rows and configurations that differ have different keys, but for one in 2^64.
    fn key(&self, row: &[f32]) -> String {
        let mut hasher = DefaultHasher::new();
        let Config {
            scale,
            offset,
            clip,
        } = &self.config;
        for number in row.iter().chain([scale, offset, clip]) {
            number.to_bits().hash(&mut hasher);
        }
        format!("/{:016x}", hasher.finish())
    }

    fn normalise(&self, row: &[f32]) -> Value {
        let Some(cache) = self.cache else {
            return json!({ "inputs": self.config.apply(row), "via": [self.id] });
        };
        let key = self.key(row);
        if let Ok(known) = call(cache, &key, None, CACHE_MAX)
            && known
                .as_array()
                .is_some_and(|known| known.len() == row.len())
        {
            return json!({ "inputs": known, "via": [self.id, "cache"] });
        }
        let inputs = json!(self.config.apply(row));
        // Best effort: the row is right without it.
        let _ = call(cache, &key, Some(&inputs), CACHE_MAX);
        json!({ "inputs": inputs, "via": [self.id] })
    }
}

impl Serve for Preprocess {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        if (request.method, request.path) != (Method::Post, "/") {
            return None;
        }
        Some(match row_of(request.body) {
            Some(row) => Response::json(200, &self.normalise(&row)),
            None => Response::error(400, "expected {\"inputs\": [numbers]}"),
        })
    }
}

// JSON numbers are f64; the nearest f32 is what the client meant.
#[allow(clippy::cast_possible_truncation)]
fn row_of(body: &[u8]) -> Option<Vec<f32>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let row = body.get("inputs")?.as_array()?;
    let number = |value: &Value| Some(value.as_f64()? as f32).filter(|x| x.is_finite());
    (1..=WIDTH_MAX)
        .contains(&row.len())
        .then(|| row.iter().map(number).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Config::read(&file)
        };
        let good = read("scale = 2.0\noffset = 1\nclip = 5.0").unwrap();
        assert_eq!(good.apply(&[0.0, -1.5, 9.0]), [2.0, -1.0, 5.0]);
        for (bad, reason) in [
            ("scale = 0.0\noffset = 0.0", "scale = 0"),
            ("scale = nan\noffset = 0.0", "scale = NaN"),
            ("scale = 1.0\noffset = inf", "offset = inf"),
            ("scale = 1.0\noffset = 0.0\nclip = -1.0", "clip = -1"),
            ("scale = 1.0", "missing field `offset`"),
            (
                "scale = 1.0\noffset = 0.0\nscall = 2",
                "unknown field `scall`",
            ),
            ("scale = \"1\"", "invalid type"),
            ("\u{0}", "TOML"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(reason), "{bad}: {error}");
            assert!(error.starts_with(&file.display().to_string()), "{error}");
        }
        assert!(Config::read(dir.path()).is_err());
    }

    #[test]
    fn only_rows_of_finite_numbers_are_taken() {
        assert_eq!(row_of(br#"{"inputs":[1,2.5]}"#), Some(vec![1.0, 2.5]));
        for bad in [
            "",
            "{}",
            r#"{"inputs":[]}"#,
            r#"{"inputs":[1e300]}"#,
            r#"{"inputs":["1"]}"#,
        ] {
            assert_eq!(row_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
