//! What a step asks of the spawner, the forwarder, the slots and the host.

use homeostat_common::ids::{Instance, InterfaceId, RouteId, ServiceId, Token, WebhookId};
use homeostat_common::net::SourceNet;
use homeostat_common::units::{Millis, PerSecond, Percent};

use crate::config::Hook;
use crate::service::{SlotName, Version};

/// Something to be done outside the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Start a process in the service's slot.
    Start(ServiceId),
    /// Ask a life to end.
    Stop(ServiceId, Instance),
    /// End a life.
    Kill(ServiceId, Instance),
    /// A deed whose answer carries its token.
    Act(Token, Act),
    /// Give a backend this weight.
    SetWeight(RouteId, ServiceId, u16),
    /// Give it none, and end what it still has after this time.
    Drain(RouteId, ServiceId, Millis),
    /// Whether a standby is meant to run and to get traffic from now on.
    Want(ServiceId, bool),
    /// Whether it is meant to run from now on.
    Warm(ServiceId, bool),
    /// Answers from now on count, those before do not.
    Reprove(ServiceId),
    /// This life is frozen on purpose, or no life is.
    Pause(ServiceId, Option<Instance>),
    /// Call a person.
    Call(ServiceId),
}

/// A deed that takes a moment and then has worked or not. It is named by a
/// [`Token`]: whoever carries it out does it once, however often it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Put a version in place, remembering what stands there.
    SwitchSlot(ServiceId, SlotName, Version),
    /// Put back what stood there before.
    RestoreSlot(ServiceId, SlotName),
    /// Delete old data until so much of the quota is left in use.
    Prune(ServiceId, Percent),
    /// Delete lock files that nobody holds.
    ClearLocks(ServiceId),
    /// Copy the state of a service.
    Snapshot(ServiceId),
    /// Put the newest copy back, remembering what stands there.
    RestoreSnapshot(ServiceId),
    /// Put back what stood there before.
    TakeBackSnapshot(ServiceId),
    /// Stop this life without ending it, or let it go on.
    Freeze(ServiceId, Instance, bool),
    /// Leave this life a share of the processors, or all it can get.
    LimitCpu(ServiceId, Instance, Option<Percent>),
    /// Limit the new connections of a route, or admit all.
    LimitRate(RouteId, Option<PerSecond>),
    /// Refuse connections from these addresses, or admit them.
    Block(RouteId, SourceNet, bool),
    /// Ask a service for something that it offers.
    Hook(ServiceId, Hook),
    /// Set the clock by the time servers.
    SyncClock,
    /// Send what leaves the node through an interface, or by its own routes.
    Uplink(Option<InterfaceId>),
    /// Drop packets from these addresses to a service, or let them through.
    Ports(ServiceId, SourceNet, bool),
    /// Mount the file system of a service's data for writing.
    Remount(ServiceId),
    /// Ask what the operator has named.
    Webhook(ServiceId, WebhookId),
}
