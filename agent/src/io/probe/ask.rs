//! What is sent to a target, composed once, and what is expected for it.

use std::sync::Arc;

use super::answer::Expect;
use crate::config::{Gauge, Golden, Goldens, ProbeKind, Protocol, Serving};

/// The question of one target.
#[derive(Debug)]
pub(super) enum Ask {
    Connect,
    Get {
        request: Arc<[u8]>,
        status: u16,
    },
    Scrape {
        request: Arc<[u8]>,
        gauges: Vec<Gauge>,
        serving: Option<Box<Serving>>,
    },
    Infer {
        protocol: Protocol,
        /// Asked in turn.
        vectors: Vec<Question>,
        /// Asked when there is no vector.
        ready: Arc<[u8]>,
    },
}

/// One request under way, which keeps it while its target gets other golden vectors.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) request: Arc<[u8]>,
    pub(super) golden: Option<Arc<Golden>>,
}

impl Ask {
    pub(super) fn new(kind: &ProbeKind, manifest: &[Golden]) -> Self {
        match kind {
            ProbeKind::Tcp => Self::Connect,
            ProbeKind::Http {
                path,
                expect_status,
            } => Self::Get {
                request: get(path, "1.1"),
                status: *expect_status,
            },
            // An answer to HTTP/1.0 never comes in chunks, as many exporters send them.
            ProbeKind::Metrics {
                path,
                gauges,
                serving,
                ..
            } => Self::Scrape {
                request: get(path, "1.0"),
                gauges: gauges.clone(),
                serving: serving.clone(),
            },
            ProbeKind::Inference {
                protocol, goldens, ..
            } => {
                let goldens = match goldens {
                    Goldens::Listed(listed) => listed,
                    Goldens::Manifest => manifest,
                };
                let ready = match protocol {
                    Protocol::Plain { .. } => Arc::default(),
                    Protocol::V2 { model, version, .. } => {
                        get(&v2_path(model, version.as_deref(), "ready"), "1.1")
                    }
                };
                Self::Infer {
                    vectors: compose(protocol, goldens),
                    protocol: protocol.clone(),
                    ready,
                }
            }
        }
    }

    /// Takes other golden vectors; false when this is no inference probe.
    pub(super) fn replace(&mut self, goldens: &[Golden]) -> bool {
        let Self::Infer {
            protocol, vectors, ..
        } = self
        else {
            return false;
        };
        *vectors = compose(protocol, goldens);
        true
    }

    /// The vectors take turns. An empty request asks for the handshake only.
    pub(super) fn question(&self, turn: u64) -> Question {
        let alone = |request: &Arc<[u8]>| Question {
            request: Arc::clone(request),
            golden: None,
        };
        match self {
            Self::Connect => alone(&Arc::default()),
            Self::Get { request, .. } | Self::Scrape { request, .. } => alone(request),
            Self::Infer { vectors, ready, .. } => turn
                .checked_rem(vectors.len() as u64)
                .and_then(|turn| vectors.get(usize::try_from(turn).ok()?))
                .cloned()
                .unwrap_or_else(|| alone(ready)),
        }
    }

    /// `current`: the question is of the vectors that are in force. An answer to an older one
    /// is only alive: which version gave it, and what that should have said, is not known.
    pub(super) fn expect<'a>(&'a self, question: &'a Question, current: bool) -> Expect<'a> {
        match (self, &question.golden) {
            (Self::Get { status, .. }, _) => Expect::Status(*status),
            (
                Self::Scrape {
                    gauges, serving, ..
                },
                _,
            ) => Expect::Metrics(gauges, serving.as_deref()),
            (Self::Infer { protocol, .. }, Some(golden)) if current => match protocol {
                Protocol::Plain { .. } => Expect::Plain(golden),
                Protocol::V2 { output, .. } => Expect::V2(golden, output),
            },
            (Self::Connect | Self::Infer { .. }, _) => Expect::Status(200),
        }
    }
}

fn compose(protocol: &Protocol, goldens: &[Golden]) -> Vec<Question> {
    let question = |golden: &Golden| {
        let inputs = &golden.inputs;
        let (path, body) = match protocol {
            Protocol::Plain { path } => (path.clone(), format!("{{\"inputs\":[{inputs:?}]}}")),
            Protocol::V2 {
                model,
                version,
                input,
                ..
            } => (
                v2_path(model, version.as_deref(), "infer"),
                format!(
                    "{{\"inputs\":[{{\"name\":\"{input}\",\"shape\":[1,{}],\
                     \"datatype\":\"FP32\",\"data\":{inputs:?}}}]}}",
                    inputs.len()
                ),
            ),
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Question {
            request: request.into_bytes().into(),
            golden: Some(Arc::new(golden.clone())),
        }
    };
    goldens.iter().map(question).collect()
}

fn get(path: &str, version: &str) -> Arc<[u8]> {
    format!("GET {path} HTTP/{version}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        .into_bytes()
        .into()
}

fn v2_path(model: &str, version: Option<&str>, verb: &str) -> String {
    match version {
        Some(version) => format!("/v2/models/{model}/versions/{version}/{verb}"),
        None => format!("/v2/models/{model}/{verb}"),
    }
}
