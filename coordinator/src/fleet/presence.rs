//! Who is connected to the broker.
//!
//! Kept in memory only: the broker holds the truth as retained statuses and
//! sends them again after each subscription. So presence is never older than
//! the connection it came over.

use std::collections::BTreeMap;

use homeostat_common::ids::{NodeId, SiteId, StreamId};
use homeostat_common::wire::projection::Status;

use super::view;

/// Most nodes that are remembered, as for those that send records.
const NODES_MAX: usize = 100_000;

/// What a node's status said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where its topic says it stands.
    pub site: SiteId,
    /// Whether it is connected.
    pub online: bool,
    /// Since when we know.
    pub since_ms: u64,
    /// Program version.
    pub version: String,
    /// Its stream.
    pub stream: StreamId,
    /// Up to here the node has forgotten its events.
    pub acked: u64,
}

/// The presence of every node, and of the broker itself.
#[derive(Debug, Default)]
pub struct Presence {
    broker: bool,
    nodes: BTreeMap<NodeId, Seen>,
}

impl Presence {
    /// A new connection to the broker: what was known is void until it says it
    /// again.
    pub fn connected(&mut self) {
        self.broker = true;
        self.nodes.clear();
    }

    /// The connection to the broker is lost.
    pub fn disconnected(&mut self) {
        self.broker = false;
    }

    /// Whether the broker is reached.
    #[must_use]
    pub fn broker(&self) -> bool {
        self.broker
    }

    /// Takes a status; `true` when it changes something.
    pub fn heard(
        &mut self,
        site: SiteId,
        node: NodeId,
        status: Option<&Status>,
        now_ms: u64,
    ) -> bool {
        let Some(status) = status else {
            return self.nodes.remove(&node).is_some();
        };
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&node) {
            return false;
        }
        let since_ms = match self.nodes.get(&node) {
            Some(seen) if seen.online == status.online => seen.since_ms,
            _ => now_ms,
        };
        let seen = Seen {
            site,
            online: status.online,
            since_ms,
            version: status.version.clone(),
            stream: status.stream,
            acked: status.acked,
        };
        self.nodes.insert(node, seen.clone()) != Some(seen)
    }

    /// What is known about a node now.
    #[must_use]
    pub fn of(&self, node: &str) -> (view::Presence, Option<u64>) {
        let seen = NodeId::new(node)
            .ok()
            .and_then(|node| self.nodes.get(&node));
        match seen {
            Some(seen) if self.broker && seen.online => {
                (view::Presence::Online, Some(seen.since_ms))
            }
            Some(seen) if self.broker => (view::Presence::Offline, Some(seen.since_ms)),
            _ => (view::Presence::Unknown, None),
        }
    }

    /// What its status says of one node.
    #[must_use]
    pub fn seen(&self, node: &NodeId) -> Option<&Seen> {
        self.nodes.get(node)
    }

    /// Every node that has a status.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Seen)> {
        self.nodes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeostat_common::ids::BootId;

    #[test]
    fn presence_is_unknown_until_the_present_connection_says_it() {
        let site = || SiteId::new("s").unwrap();
        let node = || NodeId::new("n").unwrap();
        let mut status = Status {
            online: true,
            node: node(),
            boot: BootId([0; 16]),
            stream: StreamId([0; 16]),
            birth: 1,
            version: "1".into(),
            clock: Default::default(),
            acked: 0,
        };
        let mut presence = Presence::default();
        assert_eq!(presence.of("n").0, view::Presence::Unknown);
        presence.connected();
        assert!(presence.heard(site(), node(), Some(&status), 5));
        assert!(
            !presence.heard(site(), node(), Some(&status), 9),
            "nothing new"
        );
        assert_eq!(presence.of("n"), (view::Presence::Online, Some(5)));
        status.online = false;
        assert!(presence.heard(site(), node(), Some(&status), 11));
        assert_eq!(presence.of("n"), (view::Presence::Offline, Some(11)));
        presence.disconnected();
        assert_eq!(presence.of("n").0, view::Presence::Unknown);
        presence.connected();
        assert_eq!(presence.of("n").0, view::Presence::Unknown);
        assert_eq!(presence.nodes().count(), 0);
    }
}
