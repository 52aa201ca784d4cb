//! `[[service.probe]]`: what is asked, how often, and what the right answer is.

use std::cell::RefCell;
use std::path::Path;

use homeostat_common::ids::ServiceId;
use homeostat_common::units::{Millis, Ratio};
use toml::de::{DeTable, DeValue};

use super::fields::{Fields, Wanted, choice, list, number, parsed, ratio, span, text, whole};
use super::problems::Problems;
use super::sections::{TIMEOUT_PERIODS, either, narrow, port, small, url_path};
use super::{GAUGES_MAX, GOLDEN_WIDTH_MAX, GOLDENS_MAX, read_bounded};

/// Longest name of a model, version, tensor or metric.
const NAME_MAX: usize = 128;

/// A regular question to a service, over loopback.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// `kind` and its keys.
    pub kind: ProbeKind,
    /// `port`, default the service's only one.
    pub port: u16,
    /// `period`, default 1 s.
    pub period: Millis,
    /// `timeout`, default 500 ms.
    pub timeout: Millis,
    /// `misses`, default 2: failures in a row before the service counts as hung.
    pub misses: u8,
    /// `gate_max`, default 1500 ms: a verdict that waits for the host to come
    /// out of pressure waits no longer than this.
    pub gate_max: Millis,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeKind {
    /// Whether a connection is accepted.
    Tcp,
    /// Whether a GET is answered.
    Http {
        /// `path`, default `/`.
        path: String,
        /// `expect_status`, default 200.
        expect_status: u16,
    },
    /// Whether the model still computes what it should.
    Inference {
        /// `protocol` and its keys.
        protocol: Protocol,
        /// Known questions and answers.
        goldens: Goldens,
        /// `confidence_min`: a right answer that is less sure than this is a sign of a model
        /// that does not fit any more. The report carries the confidence; see
        /// [`Told`](crate::io::probe::Told).
        confidence_min: Option<Ratio>,
        /// `twin`: another service with an inference probe, whose model is asked the same
        /// inputs; those may then come without outputs.
        twin: Option<ServiceId>,
        /// `disagree_max`, default 0.2: of those inputs, the share on which the two may
        /// choose another class before people are told.
        disagree_max: Ratio,
    },
    /// What the service says about itself in the text format of Prometheus.
    Metrics {
        /// `path`, default `/metrics`.
        path: String,
        /// `[[service.probe.gauge]]`.
        gauges: Vec<Gauge>,
        /// `frozen`, default 0 (never): this many bodies in a row that are the same to the
        /// last byte mean that nobody counts any more.
        frozen: u8,
        /// `serving`: what the page says about a model that is served.
        serving: Option<Box<Serving>>,
    },
}

/// Which metrics say how a model does, by the names that its server gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// `inputs`: a histogram of the model's inputs, one series for each of them.
    pub inputs: Option<String>,
    /// `confidence`: a histogram of the largest output.
    pub confidence: Option<String>,
    /// `latency`: a histogram of seconds.
    pub latency: Option<String>,
    /// `requests`: a counter.
    pub requests: Option<String>,
    /// `errors`: a counter of those that failed.
    pub errors: Option<String>,
    /// `learn`, default 1000: so many answers make the reference.
    pub learn: u32,
    /// `window`, default 500: so many are compared with it.
    pub window: u32,
}

/// How an inference probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// `plain`, the default: `{"inputs": [[..]]}` is answered by `{"outputs": [[..]]}`.
    Plain {
        /// `path`, default `/infer`.
        path: String,
    },
    /// `v2`: the Open Inference Protocol of KServe, Triton and others, over REST.
    V2 {
        /// `model`, required.
        model: String,
        /// `version`, default the one that the server chooses.
        version: Option<String>,
        /// `input`, default `input`: the tensor that takes the golden inputs.
        input: String,
        /// `output`, default `output`: the tensor that is compared.
        output: String,
    },
}

/// A number in the metrics of a service that must not stay high.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// `name`, required: of several series of that name the largest counts.
    pub name: String,
    /// `max`, required: more is too much ...
    pub max: f64,
    /// `for`, default `0s`: ... when it stays so for this long.
    pub hold: Millis,
}

/// Where the golden vectors of an inference probe come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Goldens {
    /// `goldens = [..]`, or those of the file named by `golden`.
    Listed(Vec<Golden>),
    /// Neither is given: those in the manifest of the service's model.
    Manifest,
}

/// A question with a known answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// `inputs`, as sent.
    pub inputs: Vec<f32>,
    /// `outputs`, as expected.
    pub outputs: Vec<f32>,
    /// `tolerance`, default 1e-3: largest absolute difference of an output.
    pub tolerance: f32,
}

/// One probe of a service that listens on `ports`; `None` when something is missing.
pub(super) fn probe(
    mut at: Fields<'_, '_>,
    ports: &[u16],
    ports_known: bool,
    has_model: bool,
    folder: &Path,
) -> Option<Probe> {
    let kind = at.required(
        "kind",
        choice(&[
            ("tcp", "tcp"),
            ("http", "http"),
            ("inference", "inference"),
            ("metrics", "metrics"),
        ]),
    );
    let port = match (at.optional("port", port), ports) {
        (Some(port), ports) => {
            if ports_known && !ports.contains(&port) {
                at.wrong(
                    "port",
                    format!("is not among the service's ports {ports:?}"),
                );
            }
            Some(port)
        }
        (None, [only]) => Some(*only),
        (None, _) => {
            if !at.has("port") && ports_known {
                at.missing(
                    "port",
                    "is required unless the service has exactly one port",
                );
            }
            None
        }
    };
    let period = at.or(
        "period",
        Millis::secs(1),
        span(Millis(5)..=Millis::secs(3600)),
    );
    let timeout = at.or("timeout", Millis(500), span(Millis(1)..=Millis::secs(600)));
    let misses = at.or("misses", 2, small(1, 100));
    let gate_max = at.or("gate_max", Millis(1500), span(Millis(0)..=Millis::secs(60)));
    if timeout.0 > period.0.saturating_mul(TIMEOUT_PERIODS) {
        at.wrong(
            either(&at, "timeout", "period"),
            format!("timeout ({timeout}) must not be above {TIMEOUT_PERIODS} periods ({period})"),
        );
    }
    // Without its kind it is not known which other keys the probe may have.
    let kind = match kind? {
        "http" => Some(ProbeKind::Http {
            path: at.or("path", "/".into(), url_path),
            expect_status: at.or("expect_status", 200, |value| {
                whole(100..=599)(value).map(narrow)
            }),
        }),
        "inference" => inference(&mut at, has_model, folder),
        "metrics" => metrics(&mut at),
        _ => Some(ProbeKind::Tcp),
    };
    at.finish();
    Some(Probe {
        kind: kind?,
        port: port?,
        period,
        timeout,
        misses,
        gate_max,
    })
}

fn inference(at: &mut Fields<'_, '_>, has_model: bool, folder: &Path) -> Option<ProbeKind> {
    let v2 = at.or("protocol", false, choice(&[("plain", false), ("v2", true)]));
    let protocol = if v2 {
        let model = at.required("model", name);
        let version = at.optional("version", name);
        let input = at.or("input", "input".into(), name);
        let output = at.or("output", "output".into(), name);
        model.map(|model| Protocol::V2 {
            model,
            version,
            input,
            output,
        })
    } else {
        Some(Protocol::Plain {
            path: at.or("path", "/infer".into(), url_path),
        })
    };
    let confidence_min = at.optional("confidence_min", ratio);
    let twin = at.optional("twin", parsed(ServiceId::new));
    let disagree_max = at.or("disagree_max", Ratio::saturating(0.2), ratio);
    let goldens = goldens(at, has_model, twin.is_some(), folder);
    Some(ProbeKind::Inference {
        protocol: protocol?,
        goldens,
        confidence_min,
        twin,
        disagree_max,
    })
}

fn metrics(at: &mut Fields<'_, '_>) -> Option<ProbeKind> {
    let path = at.or("path", "/metrics".into(), url_path);
    let frozen = at.or("frozen", 0, small(0, 100));
    let found = at.tables("gauge", GAUGES_MAX);
    let count = found.len();
    let gauges: Vec<Gauge> = found.into_iter().filter_map(gauge).collect();
    let serving = at.table("serving");
    let serving = serving.present().then(|| Box::new(serving_of(serving)));
    (gauges.len() == count).then_some(ProbeKind::Metrics {
        path,
        gauges,
        frozen,
        serving,
    })
}

fn serving_of(mut at: Fields<'_, '_>) -> Serving {
    let counts = |value: &DeValue<'_>| {
        whole(50..=1_000_000)(value).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
    };
    let serving = Serving {
        inputs: at.optional("inputs", metric_name),
        confidence: at.optional("confidence", metric_name),
        latency: at.optional("latency", metric_name),
        requests: at.optional("requests", metric_name),
        errors: at.optional("errors", metric_name),
        learn: at.or("learn", 1000, counts),
        window: at.or("window", 500, counts),
    };
    at.finish();
    serving
}

fn gauge(mut at: Fields<'_, '_>) -> Option<Gauge> {
    let name = at.required("name", metric_name);
    let max = at.required("max", |value| number(value).map(f64::from));
    let hold = at.or("for", Millis(0), span(Millis(0)..=Millis::secs(3600)));
    at.finish();
    Some(Gauge {
        name: name?,
        max: max?,
        hold,
    })
}

/// What may stand in a path and in JSON as it is.
fn name(value: &DeValue<'_>) -> Result<String, Wanted> {
    let name = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    // `.` and `..` mean something else in a path.
    let dots = name.chars().all(|c| c == '.');
    if name.len() <= NAME_MAX && !dots && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(format!(
            "expected 1 to {NAME_MAX} characters of a-z, A-Z, 0-9, '_', '-', '.', ':'"
        ))
    }
}

/// A name as the format of Prometheus has it, labels apart.
fn metric_name(value: &DeValue<'_>) -> Result<String, Wanted> {
    let name = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    if (1..=NAME_MAX).contains(&name.len()) && !digit && name.chars().all(fits) {
        Ok(name)
    } else {
        Err("expected the name of a metric without labels, such as \"queue_depth\"".into())
    }
}

fn goldens(at: &mut Fields<'_, '_>, has_model: bool, twin: bool, folder: &Path) -> Goldens {
    let inline: Vec<Golden> = at
        .tables("goldens", GOLDENS_MAX)
        .into_iter()
        .filter_map(|one| golden(one, twin))
        .collect();
    let file = at.optional("golden", |value| {
        golden_file(&folder.join(text(value)?), twin)
            .map_err(|wanted| format!("in that file: {wanted}"))
    });
    match (at.has("goldens"), at.has("golden")) {
        (true, true) => at.wrong("golden", "give either golden or goldens"),
        (false, false) if !has_model => at.missing(
            "goldens",
            "golden vectors are required: goldens, golden, or a [service.model] whose manifest has them",
        ),
        (false, false) => return Goldens::Manifest,
        (true, false) if inline.is_empty() => at.wrong("goldens", "expected at least one"),
        _ => {}
    }
    Goldens::Listed(file.unwrap_or(inline))
}

/// Reads the `[[golden]]` tables of a file; the first problem is the message.
fn golden_file(file: &Path, twin: bool) -> Result<Vec<Golden>, Wanted> {
    let text = read_bounded(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let problems = RefCell::new(Problems::new(&text));
    let table = DeTable::parse(&text).map_err(|error| error.message().to_owned())?;
    let mut root = Fields::root(&table, &problems);
    let goldens: Vec<Golden> = root
        .tables("golden", GOLDENS_MAX)
        .into_iter()
        .filter_map(|one| golden(one, twin))
        .collect();
    root.finish();
    if !problems.borrow().none() {
        return Err(problems.into_inner().into_error(file.into()).to_string());
    }
    if goldens.is_empty() {
        return Err("expected at least one [[golden]]".into());
    }
    Ok(goldens)
}

/// Without outputs only if a twin is asked as well.
fn golden(mut at: Fields<'_, '_>, twin: bool) -> Option<Golden> {
    let vector = || list(GOLDEN_WIDTH_MAX, number);
    let inputs = at.required("inputs", vector());
    let bare = twin && !at.has("outputs");
    let outputs = match bare {
        true => Some(Vec::new()),
        false => at.required("outputs", vector()),
    };
    let tolerance = at.or("tolerance", 1e-3, |value| {
        number(value)
            .ok()
            .filter(|tolerance| *tolerance >= 0.0)
            .ok_or_else(|| "expected a number from 0.0".into())
    });
    for (key, found) in [("inputs", &inputs), ("outputs", &outputs)] {
        if found.as_ref().is_some_and(Vec::is_empty) && !(bare && key == "outputs") {
            at.wrong(key, "expected at least one number");
        }
    }
    at.finish();
    Some(Golden {
        inputs: inputs?,
        outputs: outputs?,
        tolerance,
    })
}
