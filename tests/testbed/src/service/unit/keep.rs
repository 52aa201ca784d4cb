//! What a unit keeps: answers in memory, lines in a folder, a credential.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::super::store;

/// Answers remembered.
const ENTRIES_MAX: usize = 1000;
/// At this size the lines begin anew: they are written to be written.
const LINES_BYTES_MAX: u64 = 64 * 1024;

/// Answers by their key, the newest ones.
#[derive(Default)]
pub(super) struct Memory(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    values: HashMap<u64, Value>,
    /// The oldest first.
    order: VecDeque<u64>,
    /// How often they were poisoned.
    poisoned: u64,
}

impl Memory {
    /// What is known of the key; all of it is made wrong when it was poisoned once more.
    pub(super) fn exchange(&self, asked: &Value, poisoned: u64) -> Option<Value> {
        let key = asked.get("key").and_then(Value::as_u64)?;
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.poisoned != poisoned {
            entries.poisoned = poisoned;
            for value in entries.values.values_mut() {
                *value = serde_json::json!([-1.0]);
            }
        }
        entries.values.get(&key).cloned()
    }

    pub(super) fn keep(&self, told: &Value) {
        let (Some(key), Some(value)) = (told.get("key").and_then(Value::as_u64), told.get("value"))
        else {
            return;
        };
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.values.insert(key, value.clone()).is_none() {
            entries.order.push_back(key);
        }
        if entries.order.len() > ENTRIES_MAX
            && let Some(oldest) = entries.order.pop_front()
        {
            entries.values.remove(&oldest);
        }
    }

    pub(super) fn forget(&self) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values.clear();
        entries.order.clear();
    }
}

/// Lines in a folder that must not hold more than so many bytes.
pub(super) struct Data {
    dir: PathBuf,
    quota: u64,
    lines: Mutex<()>,
}

impl Data {
    pub(super) fn open((dir, quota): (PathBuf, u64)) -> Result<Self, String> {
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self {
            dir,
            quota,
            lines: Mutex::default(),
        })
    }

    /// Writes a line, or says why it cannot.
    pub(super) fn keep(&self, asked: &Value) -> Result<(), String> {
        let _one = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |error: std::io::Error| error.to_string();
        let line = format!("{asked}\n");
        let file = self.dir.join("lines.log");
        if fs::metadata(&file).is_ok_and(|meta| meta.len() > LINES_BYTES_MAX) {
            fs::remove_file(&file).map_err(told)?;
        }
        if store::used(&self.dir).map_err(told)? + line.len() as u64 > self.quota {
            return Err("the quota is used up".to_owned());
        }
        store::append(&file)
            .and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()))
            .map_err(told)
    }
}

/// A number that somebody else may cease to accept; read at start.
pub(super) struct Credential {
    dir: PathBuf,
    serial: AtomicU64,
}

impl Credential {
    pub(super) fn load(dir: PathBuf) -> Result<Self, String> {
        let serial = number(&dir.join("serial")).ok_or("the credential cannot be read")?;
        let serial = AtomicU64::new(serial);
        Ok(Self { dir, serial })
    }

    pub(super) fn read_again(&self) {
        if let Some(serial) = number(&self.dir.join("serial")) {
            self.serial.store(serial, Ordering::Relaxed);
        }
    }

    /// Whether whoever issued it accepts it still.
    pub(super) fn valid(&self) -> bool {
        let least = number(&self.dir.join("accepted")).unwrap_or(0);
        self.serial.load(Ordering::Relaxed) >= least
    }
}

fn number(file: &Path) -> Option<u64> {
    super::super::bounded(file, 64)
        .ok()
        .and_then(|text| text.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_remembered_can_be_poisoned_and_forgotten() {
        let memory = Memory::default();
        let asked = json!({ "key": 7 });
        assert_eq!(memory.exchange(&asked, 0), None);
        memory.keep(&json!({ "key": 7, "value": [0.5] }));
        assert_eq!(memory.exchange(&asked, 0), Some(json!([0.5])));
        assert_eq!(memory.exchange(&asked, 1), Some(json!([-1.0])));
        memory.forget();
        assert_eq!(memory.exchange(&asked, 1), None);
        memory.keep(&json!({ "key": 7, "value": [0.5] }));
        assert_eq!(memory.exchange(&asked, 1), Some(json!([0.5])));
        for key in 0..2 * ENTRIES_MAX as u64 {
            memory.keep(&json!({ "key": key, "value": 1 }));
        }
        assert_eq!(memory.0.lock().unwrap().values.len(), ENTRIES_MAX);
    }

    #[test]
    fn a_full_folder_takes_nothing_and_a_pruned_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::open((dir.path().to_owned(), 200_000)).unwrap();
        assert_eq!(data.keep(&json!({ "key": 1 })), Ok(()));
        fs::write(dir.path().join("junk.old"), vec![0; 200_000]).unwrap();
        assert!(data.keep(&json!({ "key": 2 })).is_err());
        fs::remove_file(dir.path().join("junk.old")).unwrap();
        assert_eq!(data.keep(&json!({ "key": 3 })), Ok(()));
    }

    #[test]
    fn a_credential_is_good_until_another_is_asked_for_and_again_once_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("serial"), "1").unwrap();
        let credential = Credential::load(dir.path().to_owned()).unwrap();
        assert!(credential.valid());
        fs::write(dir.path().join("accepted"), "2").unwrap();
        assert!(!credential.valid());
        fs::write(dir.path().join("serial"), "2\n").unwrap();
        assert!(!credential.valid());
        credential.read_again();
        assert!(credential.valid());
    }
}
