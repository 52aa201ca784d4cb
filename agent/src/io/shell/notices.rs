//! How people are reached beyond the broker: notices become messages of webhooks.
//! And how they reach in without any socket: the file `STOP`.

use homeostat_common::ids::{IncidentId, Token, WebhookId};
use homeostat_common::wire::body::{Body, IncidentClosed, IncidentOpened};
use homeostat_common::wire::notice::Notice;
use homeostat_notify::notice::{Origin, about};
use homeostat_notify::{Message, Report, Told};
use serde::Serialize;
use tracing::warn;

use super::Shell;
use crate::control::Event;
use crate::io::stop_file;

impl Shell {
    /// An alarm that the loop wants people to know.
    pub(super) fn notify(&mut self, notice: &Notice) {
        if let Some(message) = self.said(|origin| origin.alarm(notice)) {
            let besides = about(&notice.alarm);
            self.webhooks.tell(Told::Alarm, &message, besides.as_ref());
        }
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
                let key = format!("opened-{fault}");
                self.tell_incident("incident-opened", *incident, &key, body);
            }
            Body::IncidentClosed(IncidentClosed { incident, .. }) => {
                self.tell_incident("incident-closed", *incident, "closed", body);
            }
            _ => {}
        }
    }

    fn tell_incident(&mut self, event: &'static str, of: IncidentId, key: &str, body: &Body) {
        let about = format!("incident-{of}");
        let key = format!("{about}-{key}");
        if let Some(mut message) = self.said(|origin| origin.message(event, &key, body)) {
            message.about = Some(about);
            self.webhooks.tell(Told::Incident, &message, None);
        }
    }

    /// What this node says now.
    fn said(&mut self, say: impl FnOnce(&Origin<'_>) -> Option<Message>) -> Option<Message> {
        let (at_ms, _) = self.wall.unix_ms();
        // Numbers begin anew with the store, and so does the stream.
        let stream = self.stream.to_string();
        say(&Origin {
            site: self.config.node.site.as_str(),
            node: self.config.node.id.as_str(),
            stream: &stream,
            at_ms,
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
        let key = format!("call-{token}");
        let mut message = self
            .said(|origin| origin.message("call", &key, Called { service }))
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
