//! From names to numbers, and the names of versions.
//!
//! In go names as they stand in plans and incidents; out come numbers, or an error that
//! says what is not known. Looked up rarely: lists are walked.

use homeostat_common::ids::{InterfaceId, NodeId, RouteId, ServiceId, SiteId, WebhookId};

use super::{LinkNo, LinkOf, NodeNo, ReplicaNo, RouteNo, SiteNo, Topology, Version};

/// A name that means nothing in a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topology {topology} has no {kind} {name}")]
pub struct Unknown {
    topology: String,
    kind: &'static str,
    name: String,
}

macro_rules! lookup {
    ($(#[$doc:meta])* $of:ident, $list:ident, $id:ident, $no:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Unknown`] when there is none of that name.
        pub fn $of(&self, name: &$id) -> Result<$no, Unknown> {
            let at = self.$list.iter().position(|one| one.name == *name);
            at.map($no::new).ok_or_else(|| self.unknown($kind, name.as_str()))
        }
    };
}

impl Topology {
    lookup! {
        /// The number of a site.
        site_no, sites, SiteId, SiteNo, "site"
    }
    lookup! {
        /// The number of a node.
        node_no, nodes, NodeId, NodeNo, "node"
    }
    lookup! {
        /// The number of a route.
        route_no, routes, RouteId, RouteNo, "route"
    }
    lookup! {
        /// The number of a replica.
        replica_no, replicas, ServiceId, ReplicaNo, "service"
    }

    /// The number of a link, by its name: `edge-1/eth0` or `plant/lan`.
    ///
    /// # Errors
    /// [`Unknown`] when there is none of that name.
    pub fn link_no(&self, name: &str) -> Result<LinkNo, Unknown> {
        let at = self.links.iter().position(|link| link.name == name);
        at.map(LinkNo::new)
            .ok_or_else(|| self.unknown("link", name))
    }

    /// The number of a node's uplink.
    ///
    /// # Errors
    /// [`Unknown`] when the node has none of that name.
    pub fn uplink_no(&self, node: NodeNo, name: &InterfaceId) -> Result<LinkNo, Unknown> {
        let is = |link: &&LinkNo| matches!(&self.links[link.at()].of, LinkOf::Uplink(_, own) if own == name);
        let found = self.nodes[node.at()].uplinks.iter().find(is);
        found
            .copied()
            .ok_or_else(|| self.unknown("uplink", name.as_str()))
    }

    /// The place of a webhook.
    ///
    /// # Errors
    /// [`Unknown`] when there is none of that name.
    pub fn webhook_at(&self, name: &WebhookId) -> Result<usize, Unknown> {
        let at = self.webhooks.iter().position(|hook| hook.name == *name);
        at.ok_or_else(|| self.unknown("webhook", name.as_str()))
    }

    fn unknown(&self, kind: &'static str, name: &str) -> Unknown {
        Unknown {
            topology: self.name.clone(),
            kind,
            name: name.to_owned(),
        }
    }

    /// Eight bytes that stand for a version: on a real node the beginning of the hash of
    /// its file, here that of its name.
    pub(super) fn version(&self, replica: ReplicaNo, slot: u8, version: Version) -> [u8; 8] {
        let route = self.replicas[replica.at()].route;
        let name = self.routes[route.at()].name.as_str().bytes();
        let which = [slot, version as u8];
        // FNV-1a (Fowler, Noll, Vo).
        let hash = name
            .chain(which)
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        hash.to_be_bytes()
    }
}
