//! How people are reached beyond the broker: notices become messages of webhooks.
//! And how they reach in without any socket: the file `STOP`.

use homeostat_common::ids::{Token, WebhookId};
use homeostat_common::wire::body::{Body, IncidentClosed, IncidentOpened};
use serde::Serialize;
use tracing::warn;

use super::Shell;
use crate::config::Told;
use crate::control::{Event, News, Notice};
use crate::io::stop_file;
use crate::io::webhook::{Message, Report};

/// Version of the messages; a field may be added without a new one.
const VERSION: u8 = 1;

/// What every message says.
#[derive(Serialize)]
struct Said<'a, T> {
    version: u8,
    event: &'static str,
    site: &'a str,
    node: &'a str,
    /// By the node's wall clock, in milliseconds since 1970.
    at_ms: u64,
    #[serde(flatten)]
    what: T,
}

impl Shell {
    /// An alarm that the loop wants people to know.
    pub(super) fn notify(&mut self, notice: &Notice) {
        // Raised and repeated are the same word to whoever has missed the first.
        let (word, again) = match notice.news {
            News::Raised | News::Repeated => ("raised", true),
            News::Acknowledged => ("acknowledged", false),
            News::Cleared => ("cleared", false),
        };
        let key = format!("alarm-{}-{word}-{}", notice.number, notice.repeat);
        let replaces = again.then(|| notice.alarm.clone());
        // That it cannot be reached need not reach it.
        let own = notice.alarm.strip_prefix("webhook-");
        let besides = own.and_then(|name| name.parse::<WebhookId>().ok());
        self.tell(
            Told::Alarm,
            "alarm",
            &key,
            notice,
            replaces,
            besides.as_ref(),
        );
    }

    /// Incidents, for whoever wants to know of each.
    pub(super) fn notify_of(&mut self, body: &Body) {
        if !self.webhooks.wanted(Told::Incident) {
            return;
        }
        match body {
            Body::IncidentOpened(IncidentOpened {
                incident, fault, ..
            }) => {
                let key = format!("incident-{incident}-opened-{fault}");
                self.tell(Told::Incident, "incident-opened", &key, body, None, None);
            }
            Body::IncidentClosed(IncidentClosed { incident, .. }) => {
                let key = format!("incident-{incident}-closed");
                self.tell(Told::Incident, "incident-closed", &key, body, None, None);
            }
            _ => {}
        }
    }

    fn tell<T: Serialize>(
        &mut self,
        told: Told,
        event: &'static str,
        key: &str,
        what: T,
        replaces: Option<String>,
        besides: Option<&WebhookId>,
    ) {
        if let Some(message) = self.message(event, key, what, replaces) {
            self.webhooks.tell(told, &message, besides);
        }
    }

    fn message<T: Serialize>(
        &mut self,
        event: &'static str,
        key: &str,
        what: T,
        replaces: Option<String>,
    ) -> Option<Message> {
        let (at_ms, _) = self.wall.unix_ms();
        let said = Said {
            version: VERSION,
            event,
            site: self.config.node.site.as_str(),
            node: self.config.node.id.as_str(),
            at_ms,
            what,
        };
        // Numbers begin anew with the store, and so does the stream.
        let body = serde_json::to_vec(&said).ok()?;
        Some(Message {
            event,
            key: format!("{}-{key}", self.stream),
            body,
            replaces,
            ticket: None,
        })
    }

    /// A plan calls a webhook; its answer comes as a report.
    pub(super) fn call_webhook(
        &mut self,
        service: &str,
        name: &WebhookId,
        token: Token,
    ) -> Result<(), String> {
        #[derive(Serialize)]
        struct Called<'a> {
            service: &'a str,
        }
        let event = "call";
        let key = format!("call-{token}");
        let mut message = self
            .message(event, &key, Called { service }, None)
            .ok_or_else(|| "the message cannot be written".to_owned())?;
        message.ticket = Some(token);
        self.webhooks
            .call(name, message)
            .map_err(|error| error.to_string())
    }

    /// Whether the file `STOP` has come or gone.
    pub(super) fn look_for_stop(&mut self) -> Option<Event> {
        match stop_file::read(&self.config.node.data_dir) {
            Ok(why) => {
                let there = why.is_some();
                let news = there != self.stop_seen;
                self.stop_seen = there;
                news.then_some(Event::StopFile(why))
            }
            // Not known: as it was.
            Err(error) => {
                warn!("{}: {error}", self.config.node.data_dir.display());
                None
            }
        }
    }
}

pub(super) fn hook_event(report: Report) -> Option<Event> {
    match report {
        Report::Trouble(name, trouble) => Some(Event::Webhook(name, trouble)),
        Report::Called { ticket, result } => Some(Event::Acted {
            token: ticket,
            result,
        }),
    }
}
