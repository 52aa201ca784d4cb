//! The model behind `POST /infer`: loaded with tract, reloaded when its file changes.
//!
//! Only what cannot be loaded is noticed here. A model that loads and answers wrongly is
//! served as it is: to tell that takes the golden vectors, and that is the healer's work.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, SystemTime};

use homeostat_models::{manifest::MODEL_BYTES_MAX, sha256_hex};
use serde_json::{Value, json};
use tract_onnx::prelude::*;

use super::http::Response;
use super::{Kind, log};

/// How often the file is looked at; a `stat` costs a microsecond.
const WATCH_PERIOD: Duration = Duration::from_millis(50);
/// A file changed less than this ago may change again under the same time stamp, whose steps
/// are those of the kernel's tick (at most 10 ms), so it is read once more.
const SETTLING: Duration = Duration::from_millis(20);
/// Rows in a request; bounds the time one client can take.
const ROWS_MAX: usize = 256;

type Run = Box<dyn Fn(usize, &[f32]) -> TractResult<Vec<f32>> + Send + Sync>;

/// A model that could be loaded.
struct Loaded {
    run: Run,
    /// The first 16 hex digits of the file's SHA-256.
    id: String,
}

/// What answers right now.
type State = Result<Arc<Loaded>, String>;

pub(super) struct Served {
    state: Arc<RwLock<State>>,
    instance: String,
}

impl Served {
    /// Loads the file, then watches it on a thread. A bad file is a state, not an end.
    pub(super) fn start(path: PathBuf, instance: String) -> Self {
        let stamp = Stamp::of(&path);
        let state = Arc::new(RwLock::new(load(&path)));
        let shared = Arc::clone(&state);
        thread::spawn(move || watch(&path, stamp, &shared));
        Self { state, instance }
    }

    pub(super) fn health(&self) -> (u16, Value) {
        match self.state() {
            Ok(loaded) => (200, json!({ "model": loaded.id })),
            Err(reason) => (503, json!({ "error": reason })),
        }
    }

    pub(super) fn infer(&self, body: &[u8]) -> Response {
        let loaded = match self.state() {
            Ok(loaded) => loaded,
            Err(reason) => return Response::error(503, &reason),
        };
        let Some(rows) = rows_of(body) else {
            return Response::error(400, "expected {\"inputs\": [[numbers], ...]}");
        };
        let flat: Vec<f32> = rows.concat();
        let run = || (loaded.run)(rows.len(), &flat);
        let outputs = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(error)) => {
                return Response::error(400, &format!("the model refuses it: {error}"));
            }
            Err(_) => return Response::error(503, "the engine panicked"),
        };
        let width = (outputs.len() / rows.len()).max(1);
        let outputs: Vec<&[f32]> = outputs.chunks(width).collect();
        let body = json!({ "outputs": outputs, "model": loaded.id, "instance": self.instance });
        Response::json(200, &body)
    }

    fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The rows of a request: at least one, all of one width.
fn rows_of(body: &[u8]) -> Option<Vec<Vec<f32>>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let rows = body.get("inputs")?.as_array()?;
    if rows.is_empty() || rows.len() > ROWS_MAX {
        return None;
    }
    // JSON numbers are f64; the nearest f32 is what the client meant.
    #[allow(clippy::cast_possible_truncation)]
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    let row = |row: &Value| {
        row.as_array()?
            .iter()
            .map(number)
            .collect::<Option<Vec<f32>>>()
    };
    let rows = rows.iter().map(row).collect::<Option<Vec<_>>>()?;
    let width = rows.first()?.len();
    (width > 0 && rows.iter().all(|row| row.len() == width)).then_some(rows)
}

fn watch(path: &Path, mut seen: Option<Stamp>, state: &RwLock<State>) {
    loop {
        thread::sleep(WATCH_PERIOD);
        let stamp = Stamp::of(path);
        if stamp == seen && seen.is_some_and(|stamp| !stamp.settling) {
            continue;
        }
        if stamp.is_none() && seen.is_none() {
            continue;
        }
        seen = stamp;
        let new = load(path);
        let kind = Kind::Infer {
            model: PathBuf::new(),
        };
        let id = |state: &State| {
            state
                .as_ref()
                .map(|loaded| loaded.id.clone())
                .map_err(Clone::clone)
        };
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        let (old, new_id) = (id(&state), id(&new));
        *state = new;
        drop(state);
        if old != new_id {
            match new_id {
                Ok(id) => log(&kind, format_args!("INFO model {id} loaded")),
                Err(reason) => log(&kind, format_args!("ERROR model not usable: {reason}")),
            }
        }
    }
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
    settling: bool,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let age = meta
            .modified()
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        Some(Self {
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: meta.size(),
            inode: meta.ino(),
            settling: age.is_none_or(|age| age < SETTLING),
        })
    }
}

fn load(path: &Path) -> State {
    let bytes = read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let id = sha256_hex(&bytes).chars().take(16).collect();
    // Loaders of foreign formats do panic on odd files, and the service must live on.
    match catch_unwind(|| compile(&bytes)) {
        Ok(Ok(run)) => Ok(Arc::new(Loaded { run, id })),
        Ok(Err(error)) => Err(format!("cannot load {}: {error:#}", path.display())),
        Err(_) => Err(format!(
            "cannot load {}: the engine panicked",
            path.display()
        )),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > MODEL_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{size} bytes, {MODEL_BYTES_MAX} are allowed"
        )));
    }
    fs::read(path)
}

fn compile(mut bytes: &[u8]) -> TractResult<Run> {
    let plan = onnx()
        .model_for_read(&mut bytes)?
        .into_optimized()?
        .into_runnable()?;
    Ok(Box::new(move |rows, flat| {
        let input = Tensor::from_shape(&[rows, flat.len() / rows.max(1)], flat)?;
        let outputs = plan.run(tvec!(input.into()))?;
        match outputs.first() {
            Some(output) => Ok(output
                .to_plain_array_view::<f32>()?
                .iter()
                .copied()
                .collect()),
            None => Ok(Vec::new()),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_must_be_numbers_of_one_width() {
        let rows = |body: &str| rows_of(body.as_bytes());
        assert_eq!(
            rows(r#"{"inputs":[[1,2],[3,4.5]]}"#),
            Some(vec![vec![1.0, 2.0], vec![3.0, 4.5]])
        );
        for bad in [
            "",
            "{}",
            r#"{"inputs":[]}"#,
            r#"{"inputs":[[]]}"#,
            r#"{"inputs":[[1],[1,2]]}"#,
            r#"{"inputs":[["1"]]}"#,
            r#"{"inputs":[[null]]}"#,
            r#"{"inputs":7}"#,
        ] {
            assert_eq!(rows(bad), None, "{bad}");
        }
        let many = format!(r#"{{"inputs":[{}[1]]}}"#, "[1],".repeat(ROWS_MAX));
        assert_eq!(rows(&many), None);
    }
}
