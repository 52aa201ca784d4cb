//! The topic table: who writes what where, in one place.
//!
//! `hs/v1/{site}/{node}/{class}/...`; a class has one direction. The agent, the
//! coordinator, the access control files and `homeostat mqtt explain` all come
//! from [`TABLE`].

use alloc::format;
use alloc::string::String;

use crate::ids::{NodeId, ServiceId, SiteId, StreamId};

/// The common beginning of every topic.
pub const ROOT: &str = "hs/v1";

/// Who publishes on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The node whose name the topic holds.
    Node,
    /// The coordinator.
    Coordinator,
    /// An operator or the coordinator.
    Operator,
    /// The initiator of plans across nodes whose name is the last level: the
    /// coordinator, or another node.
    Initiator,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    /// The levels behind `hs/v1/`; `+` stands for one level.
    pub pattern: &'static str,
    /// Who publishes.
    pub writer: Writer,
    /// MQTT quality of service.
    pub qos: u8,
    /// Whether the broker keeps the last one.
    pub retained: bool,
    /// Seconds after which the broker drops it; `None` keeps it.
    pub expiry_s: Option<u32>,
    /// What the payload is.
    pub payload: &'static str,
    /// What it is for, and how often it comes.
    pub why: &'static str,
}

/// Every topic there is.
pub const TABLE: [Topic; 14] = [
    Topic {
        pattern: "+/+/status",
        writer: Writer::Node,
        qos: 1,
        retained: true,
        expiry_s: None,
        payload: "JSON: online, boot, stream, birth, version, clock",
        why: "presence: at each connection, and as last will 15 s after one is lost",
    },
    Topic {
        pattern: "+/+/meta",
        writer: Writer::Node,
        qos: 1,
        retained: true,
        expiry_s: None,
        payload: "JSON: services, primitives, metric dictionary",
        why: "what the node is and can do; at each connection",
    },
    Topic {
        pattern: "+/+/svc/+/health",
        writer: Writer::Node,
        qos: 1,
        retained: true,
        expiry_s: Some(30),
        payload: "JSON: state, availability, latency, memory, hold",
        why: "health of a service, every 10 s and at each change; a stale one disappears",
    },
    Topic {
        pattern: "+/+/evt/+",
        writer: Writer::Node,
        qos: 1,
        retained: false,
        expiry_s: Some(30 * 86_400),
        payload: "JSON: one event as on up/, by kind",
        why: "what happens, for people and tools; as it happens",
    },
    Topic {
        pattern: "+/+/alarm/+",
        writer: Writer::Node,
        qos: 1,
        retained: true,
        expiry_s: None,
        payload: "JSON: severity, text; empty when cleared",
        why: "conditions that hold now; at each change",
    },
    Topic {
        pattern: "+/+/act/+",
        writer: Writer::Node,
        qos: 1,
        retained: true,
        expiry_s: Some(7 * 86_400),
        payload: "JSON: the step of a plan that runs now; empty when the plan has ended",
        why: "live healing; at each step",
    },
    Topic {
        pattern: "+/+/up/+",
        writer: Writer::Node,
        qos: 1,
        retained: false,
        expiry_s: None,
        payload: "postcard: envelope",
        why: "the only source that the coordinator ingests; each event once, again until acknowledged",
    },
    Topic {
        pattern: "+/+/dn/+",
        writer: Writer::Coordinator,
        qos: 1,
        retained: false,
        expiry_s: None,
        payload: "postcard: cumulative acknowledgement",
        why: "what the node may forget; after each stored batch",
    },
    Topic {
        pattern: "+/+/ext",
        writer: Writer::Coordinator,
        qos: 1,
        retained: true,
        expiry_s: None,
        payload: "JSON: alarms, left_out; empty when there are none",
        why: "alarms of other systems about the node, for its A_t; at each change and connection",
    },
    Topic {
        pattern: "+/+/cmd/+/+",
        writer: Writer::Operator,
        qos: 1,
        retained: false,
        expiry_s: Some(60),
        payload: "JSON: deadline_ms; kinds: ping, snapshot",
        why: "requests to a node, or to all of a site with the node level _all",
    },
    Topic {
        pattern: "+/+/res/+/+",
        writer: Writer::Node,
        qos: 1,
        retained: false,
        expiry_s: Some(3600),
        payload: "JSON: result ok or refused, and why",
        why: "the answer to the request of the same kind and id",
    },
    Topic {
        pattern: "+/+/ord/+",
        writer: Writer::Initiator,
        qos: 1,
        retained: false,
        expiry_s: Some(10),
        payload: "signed frame around postcard: order of a plan across nodes",
        why: "what the initiator (last level) wants of the node now; repeated each second",
    },
    Topic {
        pattern: "+/+/ans/+",
        writer: Writer::Node,
        qos: 1,
        retained: false,
        expiry_s: Some(10),
        payload: "postcard: how far the node's part of a plan across nodes is",
        why: "to the initiator (last level); after each order and each change",
    },
    Topic {
        pattern: "_coord/status",
        writer: Writer::Coordinator,
        qos: 1,
        retained: true,
        expiry_s: None,
        payload: "JSON: online, version",
        why: "whether a coordinator listens; at each connection and as last will",
    },
];

/// Whether a topic belongs to a pattern of the table.
#[must_use]
pub fn matches(pattern: &str, topic: &str) -> bool {
    let mut wanted = pattern.split('/');
    let mut found = topic.split('/');
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some("+"), Some(level)) if !level.is_empty() => {}
            (Some(level), Some(other)) if level == other => {}
            _ => return false,
        }
    }
}

/// The row that a full topic (`hs/v1/...`) belongs to.
#[must_use]
pub fn find(topic: &str) -> Option<&'static Topic> {
    let rest = topic.strip_prefix(ROOT)?.strip_prefix('/')?;
    TABLE.iter().find(|row| matches(row.pattern, rest))
}

/// `_coord/status`.
pub const COORDINATOR_STATUS: &str = "hs/v1/_coord/status";

/// The coordinator's name as an initiator of plans across nodes.
pub const COORDINATOR: &str = "coordinator";

/// What a coordinator subscribes to, in full.
pub const COORDINATOR_FILTERS: [&str; 3] = [
    "hs/v1/+/+/up/+",
    "hs/v1/+/+/status",
    "hs/v1/+/+/ans/coordinator",
];

/// The topics of one node.
///
/// ```
/// # use homeostat_common::{ids::*, wire::topic::*};
/// let topics = NodeTopics::new(&SiteId::new("plant-7").unwrap(), &NodeId::new("edge-1").unwrap());
/// assert_eq!(topics.status(), "hs/v1/plant-7/edge-1/status");
/// assert_eq!(find(&topics.status()).unwrap().writer, Writer::Node);
/// ```
#[derive(Debug, Clone)]
pub struct NodeTopics {
    site: SiteId,
    node: NodeId,
}

impl NodeTopics {
    /// The topics of `node` at `site`.
    #[must_use]
    pub fn new(site: &SiteId, node: &NodeId) -> Self {
        Self {
            site: site.clone(),
            node: node.clone(),
        }
    }

    fn under(&self, rest: &str) -> String {
        format!("{ROOT}/{}/{}/{rest}", self.site, self.node)
    }

    /// `status`
    #[must_use]
    pub fn status(&self) -> String {
        self.under("status")
    }

    /// `meta`
    #[must_use]
    pub fn meta(&self) -> String {
        self.under("meta")
    }

    /// `svc/{service}/health`
    #[must_use]
    pub fn health(&self, service: &ServiceId) -> String {
        self.under(&format!("svc/{service}/health"))
    }

    /// `evt/{kind}`
    #[must_use]
    pub fn event(&self, kind: &str) -> String {
        self.under(&format!("evt/{kind}"))
    }

    /// `alarm/{id}`
    #[must_use]
    pub fn alarm(&self, id: &str) -> String {
        self.under(&format!("alarm/{id}"))
    }

    /// `act/{plan}`
    #[must_use]
    pub fn act(&self, plan: crate::ids::PlanId) -> String {
        self.under(&format!("act/{plan}"))
    }

    /// `up/{stream}`
    #[must_use]
    pub fn up(&self, stream: StreamId) -> String {
        self.under(&format!("up/{stream}"))
    }

    /// `dn/{stream}`
    #[must_use]
    pub fn down(&self, stream: StreamId) -> String {
        self.under(&format!("dn/{stream}"))
    }

    /// `res/{kind}/{id}`
    #[must_use]
    pub fn reply(&self, kind: &str, id: &str) -> String {
        self.under(&format!("res/{kind}/{id}"))
    }

    /// `ord/{by}`: what an initiator wants of this node.
    #[must_use]
    pub fn orders(&self, by: &NodeId) -> String {
        self.under(&format!("ord/{by}"))
    }

    /// `ans/{by}`: what this node answers to an initiator.
    #[must_use]
    pub fn answers(&self, by: &NodeId) -> String {
        self.under(&format!("ans/{by}"))
    }

    /// `ext`: what other systems say about this node.
    #[must_use]
    pub fn outside(&self) -> String {
        self.under("ext")
    }

    /// What the node subscribes to, besides [`Self::outside`].
    #[must_use]
    pub fn subscriptions(&self, stream: StreamId) -> [String; 6] {
        [
            self.down(stream),
            self.under("cmd/+/+"),
            self.under("ord/+"),
            // As an initiator, from the nodes of its site.
            format!("{ROOT}/{}/+/ans/{}", self.site, self.node),
            format!("{ROOT}/{}/_all/cmd/+/+", self.site),
            String::from(COORDINATOR_STATUS),
        ]
    }
}

/// The two names in `hs/v1/{site}/{node}/...`, if they are names.
#[must_use]
pub fn address(topic: &str) -> Option<(SiteId, NodeId)> {
    let mut levels = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
    let site = SiteId::new(levels.next()?).ok()?;
    let node = NodeId::new(levels.next()?).ok()?;
    Some((site, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PlanId;

    fn topics() -> NodeTopics {
        NodeTopics::new(&SiteId::new("s").unwrap(), &NodeId::new("n").unwrap())
    }

    #[test]
    fn every_topic_that_is_built_stands_in_the_table() {
        let stream = StreamId([1; 16]);
        let service = ServiceId::new("web").unwrap();
        let topics = topics();
        for topic in [
            topics.status(),
            topics.meta(),
            topics.health(&service),
            topics.event("boot"),
            topics.alarm("web-dead"),
            topics.act(PlanId(4)),
            topics.up(stream),
            topics.down(stream),
            topics.reply("ping", "1"),
            topics.orders(&NodeId::new("c").unwrap()),
            topics.answers(&NodeId::new(COORDINATOR).unwrap()),
            topics.outside(),
            String::from(COORDINATOR_STATUS),
        ] {
            assert!(find(&topic).is_some(), "{topic}");
            assert_eq!(
                address(&topic).is_some(),
                !topic.contains("_coord"),
                "{topic}"
            );
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_not_found() {
        for topic in [
            "",
            "hs/v1",
            "hs/v1/s/n",
            "hs/v1/s/n/up/",
            "hs/v1/s/n/up/a/b",
            "hs/v2/s/n/status",
        ] {
            assert!(find(topic).is_none(), "{topic}");
        }
    }
}
