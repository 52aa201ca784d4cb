//! What the loop has yet to be told: the newest of each state, every command.
//!
//! A loop that lags (it may wait for the disk) must not hold up the connection,
//! and the connection must not pile up memory meanwhile.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::LinkEvent;
use super::incoming::CommandRequest;

/// Commands that wait for the loop; more are refused.
const COMMANDS_MAX: usize = 16;

/// Orders, answers and refusals that wait for the loop. What does not find room is
/// lost: whoever said it says it again within a second.
const ORDERS_MAX: usize = 32;

/// Events on their way to the loop: the newest of each state, every command.
#[derive(Debug)]
pub(super) struct News {
    events: mpsc::Sender<LinkEvent>,
    pub(super) connection: Option<LinkEvent>,
    pub(super) coordinator: Option<bool>,
    pub(super) acked: Option<u64>,
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
        let order = self.orders.pop_front();
        order.or_else(|| self.commands.pop_front().map(LinkEvent::Command))
    }

    fn is_empty(&self) -> bool {
        self.connection.is_none()
            && self.coordinator.is_none()
            && self.acked.is_none()
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
