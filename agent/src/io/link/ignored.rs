//! Messages that had no effect, counted by what their topic is for and by the reason.

/// Topics by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `dn/{stream}`
    Down,
    /// `cmd/{kind}/{id}`, to this node or to all.
    Command,
    /// `_coord/status`
    CoordinatorStatus,
    /// `ord/{initiator}`
    Order,
    /// `ans/{initiator}` of another node, to this one.
    Answer,
    /// `ext`
    Outside,
    /// What a device says, on a configured topic.
    Device,
    /// Nothing that was subscribed to.
    Other,
}

/// Why a message had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Larger than its class allows.
    Oversize,
    /// Not what the schema says.
    Malformed,
    /// Answered before.
    Duplicate,
    /// A command that the broker kept: it would come again for ever.
    Retained,
    /// Its deadline had passed.
    Expired,
    /// A kind of command that does not exist.
    UnknownKind,
    /// It asked for an answer on a topic that is not this node's.
    ForeignTopic,
    /// An acknowledgement of events that were never sent.
    Beyond,
    /// More commands than the loop takes.
    Busy,
    /// No signed frame at all.
    Unsigned,
    /// Under a name that nobody is trusted with, or with another's key.
    Untrusted,
    /// Altered, or signed for another node.
    Signature,
}

const CLASSES: usize = 8;
const REASONS: usize = 12;

/// Messages without effect, by class and reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored([[u64; REASONS]; CLASSES]);

impl Ignored {
    /// How many of one sort.
    #[must_use]
    pub fn count(&self, class: Class, reason: Reason) -> u64 {
        let row = self.0.get(class as usize);
        row.and_then(|row| row.get(reason as usize))
            .copied()
            .unwrap_or(0)
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }

    pub(super) fn add(&mut self, class: Class, reason: Reason) {
        let row = self.0.get_mut(class as usize);
        if let Some(count) = row.and_then(|row| row.get_mut(reason as usize)) {
            *count += 1;
        }
    }
}
