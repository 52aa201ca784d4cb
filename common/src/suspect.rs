//! Who may be behind a trouble: components of a node and what they need, and how much
//! speaks against each.
//!
//! Levels form one hierarchy: a model is served by an application, which runs on
//! infrastructure. An edge says who needs whom, so trouble travels against it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{RouteId, ServiceId};
use crate::observation::Part;
use crate::units::{Millis, Ratio};

/// Most suspects of one diagnosis: nobody reads on, and a planner is given three.
pub const SUSPECTS_MAX: usize = 8;

/// Most reasons for one suspect, and the longest of them in bytes.
pub const REASONS_MAX: usize = 4;

/// Longest text of a diagnosis, in bytes.
pub const REASON_MAX: usize = 240;

/// Something that can be the cause of a trouble.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The node itself: its processors, its memory, its heat.
    Node,
    /// A disk, a link or a mount point of the node.
    Part(Part),
    /// A `[[dependency]]` elsewhere.
    Dependency(Part),
    /// A route of the node's forwarder.
    Route(RouteId),
    /// A backend of a route that is no service of the node.
    Backend(ServiceId),
    /// A service of the node.
    Service(ServiceId),
    /// The model that a service of the node answers with.
    Model(ServiceId),
}

/// A level of the hierarchy, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The machine, its parts, and what it reaches over a network.
    Infrastructure,
    /// Services and the routes between them.
    Application,
    /// What a model makes of its inputs.
    Model,
}

impl Component {
    /// Its level.
    ///
    /// ```
    /// # use homeostat_common::suspect::{Component, Layer};
    /// assert_eq!(Component::Node.layer(), Layer::Infrastructure);
    /// ```
    #[must_use]
    pub fn layer(&self) -> Layer {
        match self {
            Self::Node | Self::Part(_) | Self::Dependency(_) => Layer::Infrastructure,
            Self::Route(_) | Self::Backend(_) | Self::Service(_) => Layer::Application,
            Self::Model(_) => Layer::Model,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::Part(part) => write!(f, "{part} of the node"),
            Self::Dependency(name) => write!(f, "dependency {name}"),
            Self::Route(route) => write!(f, "route {route}"),
            Self::Backend(name) => write!(f, "backend {name}"),
            Self::Service(service) => write!(f, "{service}"),
            Self::Model(service) => write!(f, "the model of {service}"),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Infrastructure => "infrastructure",
            Self::Application => "application",
            Self::Model => "model",
        })
    }
}

/// One needs the other: trouble of `needs` reaches `from`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// Who needs.
    pub from: Component,
    /// Who is needed.
    pub needs: Component,
}

/// How much usual behaviour a diagnosis rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Nothing was known of before: only who needs whom, and what is wrong now.
    Blank,
    /// A little: what is much is told from what is little.
    Short,
    /// Enough for how each follows those that it needs.
    Full,
}

/// Somebody who may be the cause, with the reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Who.
    pub component: Component,
    /// How likely it is the cause. Those of one diagnosis make up at most 1; what is
    /// missing is for a cause that is none of them.
    pub confidence: Ratio,
    /// Its own part of what is too much at the alarmed one.
    pub share: Ratio,
    /// How long before the diagnosis its trouble began; `None` if it shows none.
    pub began: Option<Millis>,
    /// In words, strongest first; at most [`REASONS_MAX`].
    pub evidence: Vec<String>,
    /// Its trouble is no trouble of its own: it comes from this one.
    pub explained_by: Option<Component>,
}

/// What would tell the two likeliest suspects apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TellApart {
    /// Between these two.
    pub between: (Component, Component),
    /// Look here.
    pub look_at: Component,
    /// For what, in words.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn components_have_a_level_and_a_name() {
        let web = ServiceId::new("web").unwrap();
        let part = Part::new("eth0").unwrap();
        let all = [
            (Component::Node, "the node", Layer::Infrastructure),
            (
                Component::Part(part.clone()),
                "eth0 of the node",
                Layer::Infrastructure,
            ),
            (
                Component::Dependency(part),
                "dependency eth0",
                Layer::Infrastructure,
            ),
            (
                Component::Route(RouteId::new("api").unwrap()),
                "route api",
                Layer::Application,
            ),
            (
                Component::Backend(web.clone()),
                "backend web",
                Layer::Application,
            ),
            (Component::Service(web.clone()), "web", Layer::Application),
            (Component::Model(web), "the model of web", Layer::Model),
        ];
        for (component, name, layer) in all {
            assert_eq!(
                (component.to_string().as_str(), component.layer()),
                (name, layer)
            );
        }
    }
}
