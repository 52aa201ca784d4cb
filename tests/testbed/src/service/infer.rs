//! The model behind `POST /infer`: loaded with tract, replaced when its file changes.
//!
//! From a *file*, what stands there is served, and a file that cannot be loaded is a state that
//! is answered with 503. From a *slot* (`SLOT/current/model.onnx`, `current` a symbolic link
//! that is swapped), the new model is loaded completely before it takes over, and one that
//! cannot be loaded changes nothing. A request is answered by one model from begin to end.
//! Other versions of a slot are loaded when somebody asks for them.
//!
//! Only what cannot be loaded is noticed here. A model that loads and answers wrongly is
//! served as it is: to tell that takes the golden vectors, and that is the healer's work.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use homeostat_models::manifest::MODEL_BYTES_MAX;
use homeostat_models::onnx::{self, Tensor as Port};
use homeostat_models::sha256_hex;
use serde_json::{Value, json};
use tract_onnx::prelude::*;

use super::http::{Method, Request, Response};
use super::stats::Stats;
use super::{Serve, log, v2};

/// How often the file is looked at; a `stat` costs a microsecond. A switch is served after
/// this and the time it takes to load.
const WATCH_PERIOD: Duration = Duration::from_millis(20);
/// A file changed less than this ago may change again under the same time stamp, whose steps
/// are those of the kernel's tick (at most 10 ms), so it is read once more.
const SETTLING: Duration = Duration::from_millis(20);
/// Rows in a request; bounds the time one client can take.
pub(super) const ROWS_MAX: usize = 256;
/// Versions besides the current one that are kept loaded: a candidate, and the one before.
const VERSIONS_MAX: usize = 2;

type Run = Box<dyn Fn(usize, &[f32]) -> TractResult<Vec<f32>> + Send + Sync>;

/// A model that could be loaded.
pub(super) struct Loaded {
    run: Run,
    /// The first 16 hex digits of the file's SHA-256.
    pub(super) id: String,
    pub(super) input: Port,
    pub(super) output: Port,
}

impl Loaded {
    /// Runs `rows` rows; what the engine says otherwise, with a status.
    pub(super) fn infer(&self, rows: usize, flat: &[f32]) -> Result<Vec<f32>, (u16, String)> {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(rows, flat))) {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(error)) => Err((400, format!("the model refuses it: {error}"))),
            Err(_) => Err((503, "the engine panicked".to_owned())),
        }
    }
}

/// Where the model comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    Slot(PathBuf),
}

impl Source {
    fn file(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Slot(slot) => slot.join("current/model.onnx"),
        }
    }
}

/// What answers right now, and what came after it and could not be loaded.
#[derive(Clone)]
struct State {
    serving: Result<Arc<Loaded>, String>,
    refused: Option<String>,
}

pub(super) struct Served {
    source: Source,
    state: Arc<RwLock<State>>,
    /// The newest last.
    versions: Mutex<Vec<(String, Stamp, Arc<Loaded>)>>,
    pub(super) instance: String,
    stats: Arc<Stats>,
}

impl Served {
    /// Loads the model, then watches it on a thread. A bad file is a state, not an end.
    pub(super) fn start(source: Source, instance: String, stats: Arc<Stats>) -> Self {
        let stamp = Stamp::of(&source.file());
        let state = Arc::new(RwLock::new(State {
            serving: load(&source.file()),
            refused: None,
        }));
        let (own, shared) = (source.clone(), Arc::clone(&state));
        thread::spawn(move || watch(&own, stamp, &shared));
        Self {
            source,
            state,
            versions: Mutex::default(),
            instance,
            stats,
        }
    }

    /// Runs rows and counts them.
    pub(super) fn run(
        &self,
        loaded: &Loaded,
        rows: usize,
        flat: &[f32],
    ) -> Result<Vec<f32>, (u16, String)> {
        let begun = Instant::now();
        let outputs = loaded.infer(rows, flat)?;
        self.stats.seen.add(rows, flat, &outputs, begun.elapsed());
        Ok(outputs)
    }

    /// The model that answers, or why none does.
    pub(super) fn current(&self) -> Result<Arc<Loaded>, String> {
        self.state().serving
    }

    /// A version of the slot by its name, loaded now unless it is known; its file may have
    /// changed since.
    pub(super) fn version(&self, name: &str) -> Result<Arc<Loaded>, String> {
        if let Ok(current) = self.current()
            && current.id == name
        {
            return Ok(current);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let Source::Slot(slot) = &self.source else {
            return Err(format!("no version {name}"));
        };
        if !name.chars().all(plain) || name.starts_with('.') || name.is_empty() {
            return Err("that is not the name of a version".to_owned());
        }
        let path = slot.join("versions").join(name).join("model.onnx");
        let stamp = Stamp::of(&path).ok_or_else(|| format!("no version {name}"))?;
        // Held while it loads: two that ask for it at once load it once.
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = versions
            .iter()
            .find(|(known, seen, _)| known == name && *seen == stamp && !stamp.settling);
        if let Some((_, _, loaded)) = known {
            return Ok(Arc::clone(loaded));
        }
        let loaded = load(&path)?;
        versions.retain(|(known, ..)| known != name);
        if versions.len() == VERSIONS_MAX {
            versions.remove(0);
        }
        versions.push((name.to_owned(), stamp, Arc::clone(&loaded)));
        Ok(loaded)
    }

    /// The names of all versions in the slot; the current one alone without a slot.
    pub(super) fn versions(&self) -> Vec<String> {
        let Source::Slot(slot) = &self.source else {
            return self.current().map(|it| it.id.clone()).into_iter().collect();
        };
        let entries = fs::read_dir(slot.join("versions"));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .filter(|entry| entry.path().join("model.onnx").is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn infer(&self, body: &[u8]) -> Response {
        let loaded = match self.current() {
            Ok(loaded) => loaded,
            Err(reason) => return Response::error(503, &reason),
        };
        let Some(rows) = rows_of(body) else {
            return Response::error(400, "expected {\"inputs\": [[numbers], ...]}");
        };
        let outputs = match self.run(&loaded, rows.len(), &rows.concat()) {
            Ok(outputs) => outputs,
            Err((code, reason)) => return Response::error(code, &reason),
        };
        let width = (outputs.len() / rows.len()).max(1);
        let outputs: Vec<&[f32]> = outputs.chunks(width).collect();
        let body = json!({ "outputs": outputs, "model": loaded.id, "instance": self.instance });
        Response::json(200, &body)
    }
}

impl Serve for Served {
    fn answer(&self, request: &Request<'_>) -> Option<Response> {
        match (request.method, request.path) {
            (Method::Post, "/infer") => Some(self.infer(request.body)),
            _ => v2::answer(self, request),
        }
    }

    fn health(&self) -> (u16, Value) {
        let state = self.state();
        match (state.serving, state.refused) {
            (Ok(loaded), None) => (200, json!({ "model": loaded.id })),
            (Ok(loaded), Some(reason)) => (200, json!({ "model": loaded.id, "error": reason })),
            (Err(reason), _) => (503, json!({ "error": reason })),
        }
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

fn watch(source: &Source, mut seen: Option<Stamp>, state: &RwLock<State>) {
    let path = source.file();
    let mut told = String::new();
    loop {
        thread::sleep(WATCH_PERIOD);
        let stamp = Stamp::of(&path);
        if stamp == seen && seen.is_some_and(|stamp| !stamp.settling) {
            continue;
        }
        if stamp.is_none() && seen.is_none() {
            continue;
        }
        seen = stamp;
        let new = load(&path);
        let news = match &new {
            Ok(loaded) => format!("INFO model {} loaded", loaded.id),
            Err(reason) => format!("ERROR model not usable: {reason}"),
        };
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        match (new, source) {
            (Err(reason), Source::Slot(_)) if state.serving.is_ok() => {
                state.refused = Some(reason);
            }
            (new, _) => {
                *state = State {
                    serving: new,
                    refused: None,
                };
            }
        }
        drop(state);
        // A file that settles is read twice.
        if news != told {
            log("infer", format_args!("{news}"));
            told = news;
        }
    }
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: (u64, u64),
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
            inode: (meta.dev(), meta.ino()),
            settling: age.is_none_or(|age| age < SETTLING),
        })
    }
}

fn load(path: &Path) -> Result<Arc<Loaded>, String> {
    let bytes = read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let cannot = |reason: &str| format!("cannot load {}: {reason}", path.display());
    let id = sha256_hex(&bytes).chars().take(16).collect();
    // Loaders of foreign formats do panic on odd files, and the service must live on.
    let run = match catch_unwind(|| compile(&bytes)) {
        Ok(Ok(run)) => run,
        Ok(Err(error)) => return Err(cannot(&format!("{error:#}"))),
        Err(_) => return Err(cannot("the engine panicked")),
    };
    let (input, output) = onnx::ports(&bytes).ok_or_else(|| cannot("no input or no output"))?;
    Ok(Arc::new(Loaded {
        run,
        id,
        input,
        output,
    }))
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
