//! What receivers read: the JSON that every message is, and how it is named.

use homeostat_common::ids::WebhookId;
use homeostat_common::wire::body::Severity;
use homeostat_common::wire::notice::{News, Notice};
use serde::Serialize;

use crate::Message;

/// Version of the messages; a field may be added without a new one.
const VERSION: u8 = 1;

/// The alarm of a webhook that does not take messages is this and its name.
const OF_WEBHOOK: &str = "webhook-";

/// Who tells, and when.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Its site.
    pub site: &'a str,
    /// Its name.
    pub node: &'a str,
    /// What its numbers are unique in: minted with the store that they are counted in.
    pub stream: &'a str,
    /// By its wall clock, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What every message says.
#[derive(Serialize)]
struct Said<'a, T> {
    version: u8,
    event: &'static str,
    site: &'a str,
    node: &'a str,
    at_ms: u64,
    #[serde(flatten)]
    what: T,
}

impl Origin<'_> {
    /// A message; `None` if `what` cannot be written as JSON.
    #[must_use]
    pub fn message<T: Serialize>(
        &self,
        event: &'static str,
        key: &str,
        what: T,
    ) -> Option<Message> {
        let said = Said {
            version: VERSION,
            event,
            site: self.site,
            node: self.node,
            at_ms: self.at_ms,
            what,
        };
        let body = serde_json::to_vec(&said).ok()?;
        Some(Message {
            event,
            key: format!("{}-{key}", self.stream),
            body,
            about: None,
            replaces: false,
            urgent: false,
            ticket: None,
        })
    }

    /// The message about an alarm. Its key is that of the occurrence, what became of it
    /// and the repetition, whoever sends it how often, also in another life.
    #[must_use]
    pub fn alarm(&self, notice: &Notice) -> Option<Message> {
        // Raised and repeated are the same word to whoever has missed the first.
        let (word, again) = match notice.news {
            News::Raised | News::Repeated => ("raised", true),
            News::Acknowledged => ("acknowledged", false),
            News::Cleared => ("cleared", false),
        };
        let key = format!("alarm-{}-{word}-{}", notice.number, notice.repeat);
        let mut message = self.message("alarm", &key, notice)?;
        message.about = Some(notice.alarm.clone());
        message.replaces = again;
        message.urgent = again && notice.severity == Severity::Critical;
        Some(message)
    }
}

/// The name of the alarm of a webhook that does not take messages.
#[must_use]
pub fn of_webhook(name: &WebhookId) -> String {
    format!("{OF_WEBHOOK}{name}")
}

/// The webhook that an alarm is about: that it cannot be reached need not reach it.
#[must_use]
pub fn about(alarm: &str) -> Option<WebhookId> {
    alarm.strip_prefix(OF_WEBHOOK)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_is_another_message_and_the_same_one_never_is() {
        let from = Origin {
            site: "plant-7",
            node: "edge-1",
            stream: "ab",
            at_ms: 7,
        };
        let tell = |news, repeat| {
            let notice = Notice {
                news,
                alarm: "web-hung".into(),
                number: 3,
                repeat,
                service: Some("web".parse().unwrap()),
                severity: Severity::Critical,
                text: "look".into(),
                by: None,
            };
            from.alarm(&notice).unwrap()
        };
        let first = tell(News::Raised, 0);
        assert_eq!(first.key, "ab-alarm-3-raised-0");
        assert_eq!(first.about.as_deref(), Some("web-hung"));
        assert!(first.replaces && first.urgent);
        assert_eq!(
            String::from_utf8(first.body).unwrap(),
            "{\"version\":1,\"event\":\"alarm\",\"site\":\"plant-7\",\"node\":\"edge-1\",\"at_ms\":7,\
             \"news\":\"raised\",\"alarm\":\"web-hung\",\"number\":3,\"repeat\":0,\
             \"service\":\"web\",\"severity\":\"critical\",\"text\":\"look\",\"by\":null}"
        );
        assert_eq!(tell(News::Repeated, 0).key, "ab-alarm-3-raised-0");
        assert_eq!(tell(News::Repeated, 1).key, "ab-alarm-3-raised-1");
        let over = tell(News::Cleared, 1);
        assert_eq!(over.key, "ab-alarm-3-cleared-1");
        assert_eq!(over.about.as_deref(), Some("web-hung"));
        assert!(!over.replaces && !over.urgent);
    }

    #[test]
    fn the_alarm_of_a_webhook_names_it() {
        let pager: WebhookId = "pager".parse().unwrap();
        assert_eq!(about(&of_webhook(&pager)), Some(pager));
        assert_eq!(about("web-hung"), None);
    }
}
