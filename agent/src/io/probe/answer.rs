//! Judges the bytes a service answered with.
//!
//! In goes what has arrived so far, out comes "not yet", or whether it is right and what it
//! told besides. Outputs and gauges are read where they lie; only what a page says of a served model
//! is kept.

use std::fmt;

use homeostat_common::ids::ModelVersion;

use super::metrics::{self, Metrics};
use super::outputs::{self, Seen};
use crate::config::{Gauge, Golden, Serving};
use crate::service::Choice;

/// Largest body that is read. Some 1500 outputs in decimal fit; the buffer of each
/// slot stays this size.
pub(super) const BODY_MAX: usize = 16 * 1024;
/// Largest metrics that are read: some 1000 series. Their buffer is given back.
pub(super) const METRICS_MAX: usize = 128 * 1024;
/// Largest head that is read.
pub(super) const HEAD_MAX: usize = 4 * 1024;
/// More header lines than this are not HTTP as a local service speaks it.
const HEADERS_MAX: usize = 48;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wrong {
    /// Not the expected status.
    Status(u16),
    /// Not HTTP/1.
    NotHttp,
    /// A head above 4 KiB or a body above 16 KiB, metrics above 128 KiB.
    TooLong,
    /// The connection ended before the answer did.
    Truncated,
    /// The service reset the connection.
    Reset,
    /// No `outputs` of numbers in the body, or none of the tensor that was asked for.
    NoOutputs,
    /// The outputs differ from the golden ones by up to `worst`; infinite when
    /// their count does.
    Outputs {
        /// Largest absolute difference.
        worst: f32,
    },
    /// Not the text format of Prometheus.
    NotMetrics {
        /// The first line that is none; 0 when there is no sample at all.
        line: usize,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::NotHttp => f.write_str("not HTTP"),
            Self::TooLong => f.write_str("answer too long"),
            Self::Truncated => f.write_str("answer cut short"),
            Self::Reset => f.write_str("connection reset"),
            Self::NoOutputs => f.write_str("no outputs in the answer"),
            Self::Outputs { worst } => write!(f, "outputs off by {worst}"),
            Self::NotMetrics { line: 0 } => f.write_str("no metrics in the answer"),
            Self::NotMetrics { line } => write!(f, "line {line} is no metric"),
        }
    }
}

/// What an answer told besides being right or wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Told {
    /// Nothing.
    #[default]
    Nothing,
    /// The model answered, rightly or not.
    Inference {
        /// The version that the answer names: `model_version` (v2) or `model` (plain).
        /// `None` when it names none, or one that is not a hash as in our slots.
        version: Option<ModelVersion>,
        /// How sure the answer is: its largest output where the outputs are a distribution
        /// (none below 0, sum within 1 % of 1), else that of their softmax.
        confidence: Option<f32>,
        /// What it was asked and what it chose; none if a number of the answer is none.
        choice: Option<Choice>,
    },
    /// The watched gauges.
    Metrics(Metrics),
}

/// What the right answer is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect<'a> {
    Status(u16),
    /// `{"outputs": [[..]]}`.
    Plain(&'a Golden),
    /// `{"outputs": [{"name": TENSOR, "data": [..]}]}`.
    V2(&'a Golden, &'a str),
    Metrics(&'a [Gauge], Option<&'a Serving>),
}

impl Expect<'_> {
    /// Beyond this nothing more is read.
    pub(super) fn bytes_max(&self) -> usize {
        match self {
            Self::Status(_) | Self::Plain(_) | Self::V2(..) => HEAD_MAX + BODY_MAX,
            Self::Metrics(..) => HEAD_MAX + METRICS_MAX,
        }
    }
}

/// What is to be said about a complete answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) verdict: Result<(), Wrong>,
    pub(super) told: Told,
}

impl From<Result<(), Wrong>> for Judged {
    fn from(verdict: Result<(), Wrong>) -> Self {
        let told = Told::Nothing;
        Self { verdict, told }
    }
}

/// Judges `bytes`; `None` while more must come. `ended`: nothing more will.
pub(super) fn judge(bytes: &[u8], ended: bool, expect: Expect<'_>) -> Option<Judged> {
    let body = match body(bytes, ended, expect)? {
        Ok(body) => body,
        Err(wrong) => return Some(Err(wrong).into()),
    };
    Some(match expect {
        Expect::Status(_) => Ok(()).into(),
        Expect::Plain(golden) => compare(body, golden, None),
        Expect::V2(golden, tensor) => compare(body, golden, Some(tensor)),
        Expect::Metrics(gauges, serving) => match metrics::read(body, gauges, serving) {
            Ok(found) => Judged {
                verdict: Ok(()),
                told: Told::Metrics(found),
            },
            Err(line) => Err(Wrong::NotMetrics { line }).into(),
        },
    })
}

/// The whole body of an answer with the expected status.
fn body<'b>(bytes: &'b [u8], ended: bool, expect: Expect<'_>) -> Option<Result<&'b [u8], Wrong>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() > HEAD_MAX => {
            return Some(Err(Wrong::TooLong));
        }
        Ok(httparse::Status::Partial) => return ended.then_some(Err(Wrong::Truncated)),
        Err(httparse::Error::TooManyHeaders) => return Some(Err(Wrong::TooLong)),
        Err(_) => return Some(Err(Wrong::NotHttp)),
    };
    let (status, wanted) = (
        response.code.unwrap_or(0),
        match expect {
            Expect::Status(status) => status,
            Expect::Plain(_) | Expect::V2(..) | Expect::Metrics(..) => 200,
        },
    );
    if status != wanted {
        return Some(Err(Wrong::Status(status)));
    }
    let body = bytes.get(head..).unwrap_or(&[]);
    let length = match content_length(response.headers) {
        Ok(length) => length,
        Err(wrong) => return Some(Err(wrong)),
    };
    let bodiless = matches!(status, 204 | 304);
    let max = expect.bytes_max() - HEAD_MAX;
    match if bodiless { Some(0) } else { length } {
        Some(length) if length > max => Some(Err(Wrong::TooLong)),
        Some(length) => match body.get(..length) {
            Some(body) => Some(Ok(body)),
            None => ended.then_some(Err(Wrong::Truncated)),
        },
        // Without a length the end of the connection is the end of the body.
        None if body.len() > max => Some(Err(Wrong::TooLong)),
        None => ended.then_some(Ok(body)),
    }
}

fn content_length(headers: &[httparse::Header<'_>]) -> Result<Option<usize>, Wrong> {
    let mut found = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(header) = found.next() else {
        return Ok(None);
    };
    std::str::from_utf8(header.value)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map(Some)
        .ok_or(Wrong::NotHttp)
}

/// Compares an inference answer with the golden outputs. `tensor`: the one that counts, in
/// an answer of the Open Inference Protocol.
fn compare(body: &[u8], golden: &Golden, tensor: Option<&str>) -> Judged {
    let Ok(Seen {
        version,
        numbers: Some(numbers),
    }) = outputs::read(body, &golden.outputs, tensor)
    else {
        return Err(Wrong::NoOutputs).into();
    };
    // Without outputs nothing is known but that there must be numbers: a twin is asked too.
    let bare = golden.outputs.is_empty();
    let worst = if bare && numbers.finite {
        0.0
    } else if numbers.count == golden.outputs.len() {
        numbers.worst
    } else {
        f32::INFINITY
    };
    let choice = numbers.finite.then(|| Choice {
        input: mark(&golden.inputs),
        class: numbers.class,
        error: (!bare).then_some(worst),
    });
    Judged {
        verdict: if worst <= golden.tolerance {
            Ok(())
        } else {
            Err(Wrong::Outputs { worst })
        },
        told: Told::Inference {
            version,
            confidence: numbers.confidence(),
            choice,
        },
    }
}

/// The same for the same inputs (FNV-1a).
fn mark(inputs: &[f32]) -> u64 {
    let bytes = inputs
        .iter()
        .flat_map(|input| input.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Golden {
        Golden {
            inputs: vec![1.0],
            outputs: vec![0.25, -1.0],
            tolerance: 1e-3,
        }
    }

    fn infer(body: &str) -> Option<Result<(), Wrong>> {
        let bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        verdict(bytes.as_bytes(), false, Expect::Plain(&golden()))
    }

    fn verdict(bytes: &[u8], ended: bool, expect: Expect<'_>) -> Option<Result<(), Wrong>> {
        judge(bytes, ended, expect).map(|judged| judged.verdict)
    }

    #[test]
    fn outputs_are_compared_within_the_tolerance() {
        for right in [
            r#"{"outputs":[[0.25,-1.0]],"ms":3}"#,
            r#"{"a":{"outputs":[9]},"outputs":[0.2505,-1]}"#,
            r#"{"model":{"name":[1]},"outputs":[0.25,-1]}"#,
            r#"{"model":null,"outputs":[0.25,-1]}"#,
        ] {
            assert_eq!(infer(right), Some(Ok(())), "{right}");
        }
        let Some(Err(Wrong::Outputs { worst })) = infer(r#"{"outputs":[[0.25,-1.5]]}"#) else {
            panic!("not compared");
        };
        assert!((worst - 0.5).abs() < 1e-6);
        for count in [r#"{"outputs":[[0.25]]}"#, r#"{"outputs":[0.25,-1.0,3.0]}"#] {
            assert_eq!(
                infer(count),
                Some(Err(Wrong::Outputs {
                    worst: f32::INFINITY
                })),
                "{count}"
            );
        }
        for garbage in [
            "",
            "[]",
            "{}",
            r#"{"outputs":[[0.25,null]]}"#,
            r#"{"outputs":["0.25",1]}"#,
            r#"{"outputs":[[0.25,-1.0]]"#,
            r#"{"outputs":"#,
            "\u{0}",
        ] {
            assert_eq!(infer(garbage), Some(Err(Wrong::NoOutputs)), "{garbage}");
        }
    }

    #[test]
    fn an_answer_is_judged_when_it_is_complete_and_not_before() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 0..whole.len() {
            let part = &whole[..cut];
            assert_eq!(verdict(part, false, Expect::Status(200)), None, "{cut}");
            let ended = verdict(part, true, Expect::Status(200));
            assert_eq!(ended, Some(Err(Wrong::Truncated)), "{cut}");
        }
        assert_eq!(verdict(whole, false, Expect::Status(200)), Some(Ok(())));
        let open = b"HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(verdict(open, false, Expect::Status(200)), None);
        assert_eq!(verdict(open, true, Expect::Status(200)), Some(Ok(())));
    }

    #[test]
    fn the_rest_is_named() {
        let judge = |text: &str| verdict(text.as_bytes(), false, Expect::Status(200));
        assert_eq!(
            judge("HTTP/1.1 503 No\r\n\r\n"),
            Some(Err(Wrong::Status(503)))
        );
        assert_eq!(judge("SSH-2.0-x\r\n"), Some(Err(Wrong::NotHttp)));
        assert_eq!(judge("GET / HTTP/1.1\r\n"), Some(Err(Wrong::NotHttp)));
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX));
        assert_eq!(judge(&long), Some(Err(Wrong::TooLong)));
        let large = "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
        assert_eq!(judge(large), Some(Err(Wrong::TooLong)));
        let mad = "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n";
        assert_eq!(judge(mad), Some(Err(Wrong::NotHttp)));
    }

    #[test]
    fn an_answer_of_the_open_inference_protocol_tells_who_gave_it() {
        let answer = |body: &str| {
            let bytes = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
            judge(bytes.as_bytes(), true, Expect::V2(&golden(), "output")).unwrap()
        };
        let told = |version: &str, error: f32| Told::Inference {
            version: version.parse().ok(),
            confidence: Some(0.7772999),
            choice: Some(Choice {
                input: mark(&golden().inputs),
                class: 0,
                error: Some(error),
            }),
        };
        // Keys come in any order, and other tensors beside ours.
        let right = answer(
            r#"{"id":"7","model_name":"m","outputs":[
                {"name":"other","shape":[1],"datatype":"FP32","data":[9,9,9]},
                {"data":[0.25,-1.0],"shape":[1,2],"datatype":"FP32","name":"output"}],
                "model_version":"0001ab03040506ff"}"#,
        );
        assert_eq!(right.verdict, Ok(()));
        assert_eq!(right.told, told("0001ab03040506ff", 0.0));
        let wrong =
            answer(r#"{"model_version":"3","outputs":[{"name":"output","data":[[0.75],[-0.5]]}]}"#);
        assert_eq!(wrong.verdict, Err(Wrong::Outputs { worst: 0.5 }));
        assert_eq!(wrong.told, told("3", 0.5));
        for none in [
            r#"{"outputs":[{"name":"other","data":[0.25,-1.0]}]}"#,
            r#"{"outputs":[{"name":"output"}]}"#,
            r#"{"outputs":[[0.25,-1.0]]}"#,
            r#"{"outputs":[]}"#,
            r#"{"error":"no such model"}"#,
            r#"{"outputs":[{"name":"output","data":["0.25","-1.0"]}]}"#,
        ] {
            assert_eq!(answer(none).verdict, Err(Wrong::NoOutputs), "{none}");
        }
    }

    #[test]
    fn metrics_may_be_longer_than_other_answers_and_end_with_the_connection() {
        let bytes = format!(
            "HTTP/1.0 200 OK\r\n\r\n# {}\nqueue_depth 3\n",
            "x".repeat(2 * BODY_MAX)
        );
        let ask = |ended| judge(bytes.as_bytes(), ended, Expect::Metrics(&[], None));
        assert_eq!(ask(false), None);
        assert!(matches!(
            ask(true),
            Some(Judged {
                verdict: Ok(()),
                told: Told::Metrics(_)
            })
        ));
        let html = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n<html>\n";
        assert_eq!(
            verdict(html, false, Expect::Metrics(&[], None)),
            Some(Err(Wrong::NotMetrics { line: 1 }))
        );
    }
}
