//! Appends answers to `answers.log` in its directory, a line each, and acknowledges them.
//!
//! Acknowledged means written to the file, not synced: the faults of the testbed take
//! processes and space, not power. The directory must not hold more than the quota: beyond it
//! writes are refused with 507 and the health is 503, until somebody makes room. The log
//! itself never gets there: at a quarter of the quota it moves to `answers.log.1`, over the one
//! before. What others leave in the directory counts and is not touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::Serve;
use super::http::{Method, Request, Response};

/// Junk comes in files of a quarter of the quota.
const JUNK_FILES: u64 = 4;
/// Most that a fault writes, whatever the quota says.
const JUNK_BYTES_MAX: u64 = 256 << 20;

pub(super) struct Store {
    dir: PathBuf,
    quota: u64,
    log: Mutex<File>,
    id: String,
}

impl Store {
    pub(super) fn open(dir: &Path, quota: u64, id: String) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(dir).map_err(failed)?;
        Ok(Self {
            dir: dir.to_owned(),
            quota,
            log: Mutex::new(append(&dir.join("answers.log")).map_err(failed)?),
            id,
        })
    }

    fn keep(&self, body: &[u8]) -> io::Result<()> {
        let mut line = serde_json::from_slice::<Value>(body)?.to_string();
        line.push('\n');
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.metadata()?.len() >= self.quota / 4 {
            let path = self.dir.join("answers.log");
            fs::rename(&path, self.dir.join("answers.log.1"))?;
            *log = append(&path)?;
        }
        log.write_all(line.as_bytes())
    }
}

impl Serve for Store {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        if (request.method, request.path) != (Method::Post, "/") {
            return None;
        }
        let used = used(&self.dir);
        Some(match used.as_ref().map(|used| *used >= self.quota) {
            Ok(true) => Response::error(507, "the quota is used up"),
            Ok(false) => match self.keep(request.body) {
                Ok(()) => Response::json(200, &json!({ "stored": true, "via": self.id })),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    Response::error(507, &error.to_string())
                }
                Err(error) => Response::error(503, &error.to_string()),
            },
            Err(error) => Response::error(503, &error.to_string()),
        })
    }

    fn health(&self) -> (u16, Value) {
        match used(&self.dir) {
            Ok(used) => {
                let code = if used < self.quota { 200 } else { 503 };
                (code, json!({ "used": used, "quota": self.quota }))
            }
            Err(error) => (503, json!({ "error": error.to_string() })),
        }
    }
}

/// Leaves junk until the quota is used up.
pub(super) fn fill(dir: &Path, quota: u64) -> io::Result<()> {
    let block = vec![0x5a; 64 * 1024];
    let mut left = quota.saturating_sub(used(dir)?).min(JUNK_BYTES_MAX);
    let each = left.div_ceil(JUNK_FILES);
    let mut number: u32 = 0;
    while left > 0 {
        // What somebody left of former junk is not to shrink.
        let opened = File::create_new(dir.join(format!("junk-{number}.old")));
        number += 1;
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        let mut rest = left.min(each);
        left -= rest;
        while rest > 0 {
            let step = block
                .len()
                .min(usize::try_from(rest).unwrap_or(block.len()));
            file.write_all(block.get(..step).unwrap_or(&block))?;
            rest -= step as u64;
        }
    }
    Ok(())
}

/// Bytes of all files in `dir`.
pub(super) fn used(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        match entry?.metadata() {
            Ok(meta) if meta.is_file() => sum += meta.len(),
            Ok(_) => {}
            // Deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

pub(super) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_below_half_of_the_quota() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 4000, "store:1".into()).unwrap();
        for n in 0..200 {
            let line = json!({ "id": n, "outputs": [0.25, 0.5, 0.25] });
            store.keep(line.to_string().as_bytes()).unwrap();
            assert!(used(dir.path()).unwrap() < 2200);
        }
        assert_eq!(store.health().0, 200);
        assert!(store.keep(b"{").is_err());
    }

    #[test]
    fn filling_uses_up_the_quota_and_deleting_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 300_000, "store:1".into()).unwrap();
        fill(dir.path(), 300_000).unwrap();
        assert_eq!(used(dir.path()).unwrap(), 300_000);
        assert_eq!(store.health().0, 503);
        fs::remove_file(dir.path().join("junk-1.old")).unwrap();
        assert_eq!(store.health().0, 200);
        fill(dir.path(), 300_000).unwrap();
        assert_eq!(used(dir.path()).unwrap(), 300_000);
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "old") {
                fs::remove_file(path).unwrap();
            }
        }
        assert_eq!(store.health().0, 200);
    }
}
