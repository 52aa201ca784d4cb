//! How agent and coordinator reach people: signed HTTP messages, sent until somebody
//! took them; and what others' alarms look like that come in ([`intake`]).
//!
//! In go the webhooks of a configuration ([`Webhook`]) and messages ([`Message`], an
//! alarm's from [`notice::Origin::alarm`]); out come deliveries, and reports of what became of
//! them. What is said, and when it is said again, is decided by whoever holds the
//! alarms: here is only the way to the receiver. Nothing is kept on a disk, and there is
//! no TLS.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod intake;
mod late;
pub mod notice;
mod post;
mod queue;
pub mod sign;
#[cfg(test)]
mod tests;
mod url;

pub use late::in_words;
pub use post::PostError;
pub use queue::{CallError, Message, Patience, QUEUE_MAX, Report, Reports, Webhooks};
pub use url::{Url, UrlError};

use std::path::PathBuf;

use homeostat_common::ids::WebhookId;

/// Most webhooks; each has a thread and a queue of its own.
pub const WEBHOOKS_MAX: usize = 4;

/// Where people are told, over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `name`, required.
    pub name: WebhookId,
    /// `url`, required: `http://HOST[:PORT][/PATH]`.
    pub url: Url,
    /// `secret_file`, required: its content signs each message.
    pub secret_file: PathBuf,
    /// `events`, default alarms.
    pub events: Vec<Told>,
}

/// What a webhook is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// Alarms: raised, repeated, acknowledged, cleared.
    Alarm,
    /// Incidents: opened, closed.
    Incident,
}
