//! Chooses the interface through which what leaves the node goes by default.
//!
//! In goes an interface that has a default route, out come two rules and a table
//! of our own with that route. The node's routes stay as they are: the first rule
//! asks them for everything but a default, the second one sends the rest through
//! the table. To leave the choice to the node again, both rules and the table go.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;

use futures_util::TryStreamExt as _;
use homeostat_common::ids::InterfaceId;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder, new_connection};

/// The table, and the protocol that marks what is ours: no well-known one has
/// this number.
const OURS: u8 = 72;

/// The main table.
const MAIN: u8 = 254;

/// Our rules come before those of the node.
const PRIORITIES: [u32; 2] = [720, 721];

/// Why the uplink is not as asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum UplinkError {
    /// No runtime, socket or interface.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing leads out through that interface.
    #[error("{0} has no default route")]
    NoRoute(InterfaceId),
    /// The kernel would not.
    #[error("cannot {what}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: rtnetlink::Error,
    },
}

fn refused(what: &'static str) -> impl Fn(rtnetlink::Error) -> UplinkError {
    move |source| UplinkError::Netlink { what, source }
}

/// Sends what leaves the node through `to`, or by its own routes again.
///
/// # Errors
/// [`UplinkError`]; what was ours before may be gone then, so that the node's own
/// routes are in force.
pub(super) fn switch(to: Option<&InterfaceId>) -> Result<(), UplinkError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| UplinkError::Io { what, source }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed("wait for the kernel"))?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection().map_err(failed("open a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let result = switched(&handle, to).await;
        connection.abort();
        result
    })
}

async fn switched(handle: &Handle, to: Option<&InterfaceId>) -> Result<(), UplinkError> {
    let routes = match to {
        Some(to) => {
            let index = rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                None,
            )
            .and_then(|socket| rustix::net::netdevice::name_to_index(&socket, to.as_str()))
            .map_err(|error| UplinkError::Io {
                what: format!("find interface {to}"),
                source: error.into(),
            })?;
            let routes = defaults(handle, index).await?;
            if routes.is_empty() {
                return Err(UplinkError::NoRoute(to.clone()));
            }
            routes
        }
        None => Vec::new(),
    };
    clear(handle).await?;
    for route in routes {
        let v4 = route.header.address_family == rtnetlink::packet_route::AddressFamily::Inet;
        let add = handle.route().add(route);
        add.execute()
            .await
            .map_err(refused("add the default route"))?;
        for rule in rules(handle, v4) {
            rule.await.map_err(refused("add the rules"))?;
        }
    }
    Ok(())
}

/// The default routes through an interface, as they will stand in our table: the
/// best of each version of the protocol.
async fn defaults(handle: &Handle, index: u32) -> Result<Vec<RouteMessage>, UplinkError> {
    let mut found = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let routes = routes(handle, version).await?;
        let best = routes
            .into_iter()
            .filter(|route| {
                route.header.table == MAIN
                    && route.header.destination_prefix_length == 0
                    && route.attributes.contains(&RouteAttribute::Oif(index))
            })
            .min_by_key(metric);
        found.extend(best.map(ours));
    }
    Ok(found)
}

/// All routes of a version of the protocol.
async fn routes(handle: &Handle, version: IpVersion) -> Result<Vec<RouteMessage>, UplinkError> {
    let question = match version {
        IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let found = handle.route().get(question).execute().try_collect().await;
    found.map_err(refused("read the routes"))
}

fn metric(route: &RouteMessage) -> u32 {
    let mut attributes = route.attributes.iter();
    let metric = attributes.find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

fn ours(mut route: RouteMessage) -> RouteMessage {
    route.header.table = OURS;
    route.header.protocol = RouteProtocol::Other(OURS);
    route.attributes.retain(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Oif(_) | RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
        )
    });
    route
}

/// A request to the kernel; those of the two versions are different types.
type Request = Pin<Box<dyn Future<Output = Result<(), rtnetlink::Error>> + Send>>;

/// The two rules of a version of the protocol.
fn rules(handle: &Handle, v4: bool) -> [Request; 2] {
    [(PRIORITIES[0], MAIN), (PRIORITIES[1], OURS)].map(|(priority, table)| {
        let mut add = handle
            .rule()
            .add()
            .table_id(u32::from(table))
            .priority(priority)
            .action(RuleAction::ToTable);
        let attributes = &mut add.message_mut().attributes;
        attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(OURS)));
        if table == MAIN {
            // Everything but a default.
            attributes.push(RuleAttribute::SuppressPrefixLen(0));
        }
        if v4 {
            Box::pin(add.v4().execute()) as Request
        } else {
            Box::pin(add.v6().execute())
        }
    })
}

/// Takes all that is ours away.
async fn clear(handle: &Handle) -> Result<(), UplinkError> {
    for version in [IpVersion::V4, IpVersion::V6] {
        let all: Vec<RuleMessage> = handle
            .rule()
            .get(version)
            .execute()
            .try_collect()
            .await
            .map_err(refused("read the rules"))?;
        for rule in all {
            let own = RuleAttribute::Protocol(RouteProtocol::Other(OURS));
            if rule.attributes.contains(&own) {
                let del = handle.rule().del(rule);
                del.execute().await.map_err(refused("delete a rule"))?;
            }
        }
    }
    for version in [IpVersion::V4, IpVersion::V6] {
        for route in routes(handle, version).await? {
            if route.header.table == OURS && route.header.protocol == RouteProtocol::Other(OURS) {
                let del = handle.route().del(route);
                del.execute().await.map_err(refused("delete a route"))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::UdpSocket;

    use rtnetlink::{LinkUnspec, LinkVeth};

    use super::*;

    /// Runs `test` on a thread with a network of its own, in which only the
    /// loopback interface is up.
    pub(in super::super) fn in_own_network(test: impl FnOnce() + Send + 'static) {
        let done = std::thread::spawn(move || {
            use rustix::thread::{UnshareFlags, unshare_unsafe};
            // SAFETY: a network is no memory; this thread ends after the test.
            #[allow(unsafe_code)]
            let alone = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            if alone.is_err() {
                println!("skip: no network of one's own here");
                return;
            }
            with_handle(|handle| async move {
                let up = LinkUnspec::new_with_index(1).up().build();
                handle.link().change(up).execute().await.unwrap();
            });
            test();
        });
        done.join().unwrap();
    }

    fn with_handle<F: Future<Output = ()>>(work: impl FnOnce(Handle) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = new_connection().unwrap();
            let connection = tokio::spawn(connection);
            work(handle).await;
            connection.abort();
        });
    }

    /// The address from which a packet to somewhere far would come.
    fn source() -> Option<String> {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("203.0.113.9:9").ok()?;
        Some(socket.local_addr().unwrap().ip().to_string())
    }

    #[test]
    fn the_uplink_is_switched_and_given_back() {
        in_own_network(|| {
            with_handle(|handle| async move {
                for (n, name) in ["eth0", "wwan0"].into_iter().enumerate() {
                    let peer = format!("peer{n}");
                    let veth = LinkVeth::new(name, &peer).build();
                    handle.link().add(veth).execute().await.unwrap();
                    let mut own = 0;
                    for name in [name, peer.as_str()] {
                        let mut links = handle.link().get().match_name(name).execute();
                        let index = links.try_next().await.unwrap().unwrap().header.index;
                        let up = LinkUnspec::new_with_index(index).up().build();
                        handle.link().change(up).execute().await.unwrap();
                        if own == 0 {
                            own = index;
                        }
                    }
                    let n = u8::try_from(n).unwrap();
                    let address = Ipv4Addr::new(10, 0, n, 2).into();
                    handle
                        .address()
                        .add(own, address, 24)
                        .execute()
                        .await
                        .unwrap();
                    // The first has no metric at all: none could be better.
                    let route = RouteMessageBuilder::<Ipv4Addr>::new()
                        .output_interface(own)
                        .gateway(Ipv4Addr::new(10, 0, n, 1));
                    let route = if n == 0 { route } else { route.priority(600) };
                    handle.route().add(route.build()).execute().await.unwrap();
                }
            });
            assert_eq!(source().as_deref(), Some("10.0.0.2"));
            let to = |name: &str| switch(Some(&InterfaceId::new(name).unwrap()));
            to("wwan0").unwrap();
            to("wwan0").unwrap();
            assert_eq!(source().as_deref(), Some("10.0.1.2"));
            to("eth0").unwrap();
            assert_eq!(source().as_deref(), Some("10.0.0.2"));
            to("wwan0").unwrap();
            let error = to("lo").unwrap_err().to_string();
            assert_eq!(error, "lo has no default route");
            assert_eq!(source().as_deref(), Some("10.0.1.2"), "as it was");
            let error = to("eth7").unwrap_err().to_string();
            assert_eq!(error, "cannot find interface eth7");
            switch(None).unwrap();
            switch(None).unwrap();
            assert_eq!(source().as_deref(), Some("10.0.0.2"));
        });
    }
}
