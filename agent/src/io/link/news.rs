//! What the loop has yet to be told: the newest of each state, every command.
//!
//! A loop that lags (it may wait for the disk) must not hold up the connection,
//! and the connection must not pile up memory meanwhile.

use std::collections::{BTreeMap, VecDeque};

use homeostat_common::wire::projection::Outside;
use homeostat_notify::intake::Heard;
use tokio::sync::mpsc;

use super::LinkEvent;
use super::incoming::CommandRequest;

/// Commands that wait for the loop; more are refused.
const COMMANDS_MAX: usize = 16;

/// Orders, answers and refusals that wait for the loop. What does not find room is
/// lost: whoever said it says it again within a second.
const ORDERS_MAX: usize = 32;

/// Alarms of devices of which the loop has yet to hear the newest word. They are said once,
/// so there is room for a whole hall of them.
const HEARD_MAX: usize = 256;

/// Events on their way to the loop: the newest of each state, every command.
#[derive(Debug)]
pub(super) struct News {
    events: mpsc::Sender<LinkEvent>,
    pub(super) connection: Option<LinkEvent>,
    pub(super) coordinator: Option<bool>,
    pub(super) acked: Option<u64>,
    pub(super) outside: Option<Outside>,
    /// By topic and name.
    heard: BTreeMap<(String, String), Heard>,
    commands: VecDeque<CommandRequest>,
    orders: VecDeque<LinkEvent>,
}

impl News {
    pub(super) fn new(events: mpsc::Sender<LinkEvent>) -> Self {
        Self {
            events,
            connection: None,
            coordinator: None,
            acked: None,
            outside: None,
            heard: BTreeMap::new(),
            commands: VecDeque::new(),
            orders: VecDeque::new(),
        }
    }

    /// Gives the command back when there are too many already.
    pub(super) fn command(&mut self, request: CommandRequest) -> Result<(), CommandRequest> {
        if self.commands.len() >= COMMANDS_MAX {
            return Err(request);
        }
        self.commands.push_back(request);
        Ok(())
    }

    /// Whether there was room.
    pub(super) fn order(&mut self, event: LinkEvent) -> bool {
        let room = self.orders.len() < ORDERS_MAX;
        if room {
            self.orders.push_back(event);
        }
        room
    }

    /// Whether there was room.
    pub(super) fn heard(&mut self, topic: String, heard: Heard) -> bool {
        let name = match &heard {
            Heard::Word(word) => word.alarm.clone(),
            Heard::Gone => {
                self.heard.retain(|(from, _), _| *from != topic);
                String::new()
            }
        };
        let key = (topic, name);
        let room = self.heard.len() < HEARD_MAX || self.heard.contains_key(&key);
        if room {
            self.heard.insert(key, heard);
        }
        room
    }

    fn pop(&mut self) -> Option<LinkEvent> {
        if let Some(event) = self.connection.take() {
            return Some(event);
        }
        if let Some(online) = self.coordinator.take() {
            return Some(LinkEvent::CoordinatorOnline(online));
        }
        if let Some(through) = self.acked.take() {
            return Some(LinkEvent::Acked { through });
        }
        if let Some(outside) = self.outside.take() {
            return Some(LinkEvent::Outside(outside));
        }
        let order = self.orders.pop_front();
        let command = || self.commands.pop_front().map(LinkEvent::Command);
        order.or_else(command).or_else(|| {
            let ((topic, _), heard) = self.heard.pop_first()?;
            Some(LinkEvent::Heard(topic, heard))
        })
    }

    fn is_empty(&self) -> bool {
        self.connection.is_none()
            && self.coordinator.is_none()
            && self.acked.is_none()
            && self.outside.is_none()
            && self.heard.is_empty()
            && self.commands.is_empty()
            && self.orders.is_empty()
    }

    /// Hands one event over; `false` when nobody listens any more.
    pub(super) async fn hand_over(&mut self) -> bool {
        if self.is_empty() {
            self.events.closed().await;
            return false;
        }
        let Ok(permit) = self.events.clone().reserve_owned().await else {
            return false;
        };
        if let Some(event) = self.pop() {
            permit.send(event);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::incoming::CommandKind;
    use super::*;

    #[test]
    fn a_loop_that_lags_gets_the_newest_states_and_a_bounded_number_of_commands() {
        let (events, mut receiver) = mpsc::channel(64);
        let mut news = News::new(events);
        for through in 1..=1000 {
            news.acked = Some(through);
            news.coordinator = Some(through % 2 == 1);
            let request = CommandRequest {
                kind: CommandKind::Ping,
                id: through.to_string(),
                response_topic: String::new(),
                correlation: None,
            };
            assert_eq!(news.command(request).is_ok(), through <= 16);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            for _ in 0..2 + COMMANDS_MAX {
                assert!(news.hand_over().await);
            }
        });
        assert!(news.is_empty());
        assert_eq!(receiver.try_recv(), Ok(LinkEvent::CoordinatorOnline(false)));
        assert_eq!(receiver.try_recv(), Ok(LinkEvent::Acked { through: 1000 }));
        drop(receiver);
        assert!(!runtime.block_on(news.hand_over()), "nobody listens");
    }
}
