//! Remembers JSON values by key, the newest ones.
//!
//! `GET /KEY` answers 200 with the value, or 404; `POST /KEY` keeps one. Everything is lost with
//! the process, which costs those who ask nothing but time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::Serve;
use super::http::{Method, Request, Response};

/// Entries kept: 1000 rows of 16 numbers are some 500 KiB.
const ENTRIES_MAX: usize = 1000;
/// Largest value kept.
const VALUE_BYTES_MAX: usize = 4096;
/// Keys are 16 hex digits.
const KEY_BYTES: usize = 16;

#[derive(Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    values: HashMap<String, Value>,
    /// The oldest first.
    order: VecDeque<String>,
}

impl Serve for Cache {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        let key = request.path.strip_prefix('/')?;
        if key.len() != KEY_BYTES || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match request.method {
            Method::Get => match entries.values.get(key) {
                Some(value) => Response::json(200, value),
                None => Response::error(404, "not known"),
            },
            Method::Post if request.body.len() > VALUE_BYTES_MAX => {
                Response::error(413, "too large to be kept")
            }
            Method::Post => match serde_json::from_slice(request.body) {
                Ok(value) => {
                    entries.keep(key, value);
                    Response::json(200, &json!({ "kept": true }))
                }
                Err(_) => Response::error(400, "not JSON"),
            },
            Method::Other => return None,
        })
    }

    fn health(&self) -> (u16, Value) {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (200, json!({ "entries": entries.values.len() }))
    }
}

impl Entries {
    fn keep(&mut self, key: &str, value: Value) {
        if self.values.insert(key.to_owned(), value).is_none() {
            self.order.push_back(key.to_owned());
        }
        while self.order.len() > ENTRIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let mut entries = Entries::default();
        for n in 0..ENTRIES_MAX + 1 {
            entries.keep(&n.to_string(), json!(n));
            entries.keep(&n.to_string(), json!(n + 1));
        }
        assert_eq!(entries.values.len(), ENTRIES_MAX);
        assert_eq!(entries.values.get("0"), None);
        assert_eq!(entries.values.get("1"), Some(&json!(2)));
    }
}
