//! Orders and answers of plans across nodes: from the link to the loop, and back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use homeostat_common::ids::NodeId;
use homeostat_common::saga::{Answer, INITIATORS_MAX, Order, SagaId, Stand};
use homeostat_common::wire::seal::Refusal;
use homeostat_common::wire::topic::{self, NodeTopics};
use tracing::warn;

use super::Shell;
use crate::control::Event;
use crate::io::link::{Delivery, Projection, unix_ms};
use crate::io::secret;

/// Refused orders of one name are recorded this often: they may come by the
/// thousand.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Whoever is not obeyed is told so this often, whoever it is: an answer must not cost
/// more than a question.
const HINT_EVERY: Duration = Duration::from_secs(1);

/// Refused orders, by the name that they came under; names beyond
/// [`INITIATORS_MAX`] are one.
pub(super) type Refusals = BTreeMap<String, (Instant, u64)>;

impl Shell {
    /// Tells the initiator. Without a connection it is lost: the next order asks again.
    pub(super) fn say(&self, answer: &Answer) {
        let Some(link) = &self.link else {
            return;
        };
        let topics = NodeTopics::new(&self.config.node.site, &self.config.node.id);
        // An answer has at most eight steps and a bounded reason.
        if let Ok(payload) = answer.encode()
            && let Some(message) = Projection::new(topics.answers(&answer.saga.by), payload)
        {
            link.publish(message);
        }
    }

    /// Gives another node an order, signed. Without a connection it is lost: it is
    /// repeated each second.
    pub(super) fn give(&mut self, node: &NodeId, order: &Order) {
        let Some(link) = &self.link else {
            return;
        };
        let own = &self.config.node;
        if self.signer.is_none() {
            match secret::signer(&own.data_dir) {
                Ok(signer) => self.signer = Some(signer),
                Err(error) => warn!("orders.key: {error}"),
            }
        }
        let Some(signer) = &self.signer else {
            return;
        };
        let topic = NodeTopics::new(&own.site, node).orders(&own.id);
        if let Ok(payload) = signer.seal(&own.site, node, order, unix_ms()) {
            link.publish(Projection {
                expiry_s: topic::find(&topic).and_then(|row| row.expiry_s),
                topic,
                payload,
                qos: Delivery::AtLeastOnce,
                retain: false,
            });
        }
    }

    /// Records that somebody was not obeyed, and why; they are told so, as a hint.
    pub(super) fn order_refused(&mut self, by: String, refusal: &Refusal) -> Option<Event> {
        let now = Instant::now();
        let rested = |at: Instant| now.duration_since(at) >= HINT_EVERY;
        if let Ok(name) = NodeId::new(&by)
            && self.hinted.is_none_or(rested)
        {
            self.hinted = Some(now);
            self.say(&Answer {
                saga: SagaId {
                    by: name,
                    number: 0,
                },
                stand: Stand::Deaf(refusal.to_string()),
            });
        }
        // What was late or is rubbish is no sign of a wrong key.
        let event = match refusal {
            Refusal::Untrusted(_) | Refusal::Key(_) | Refusal::Signature | Refusal::Clock(_) => {
                Some(Event::OrdersRefused(by.clone(), refusal.to_string()))
            }
            Refusal::Unsigned(_) | Refusal::Expired(_) | Refusal::Body(_) | Refusal::Name(_) => {
                None
            }
        };
        let known = self.refusals.len() < INITIATORS_MAX || self.refusals.contains_key(&by);
        let by = if known { by } else { "others".to_owned() };
        let (told, count) = self.refusals.entry(by.clone()).or_insert((now, 0));
        *count += 1;
        if *count > 1 && now.duration_since(*told) < TELL_EVERY {
            return event;
        }
        *told = now;
        let text = format!("an order under the name {by} is refused ({count} so far): {refusal}");
        warn!("{text}");
        self.note(None, text);
        event
    }
}
