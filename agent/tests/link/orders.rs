//! Orders of plans across nodes on real brokers: only what somebody trusted has signed,
//! for this node and this minute, reaches the loop.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homeostat_agent::io::link::{Class, LinkConfig, LinkEvent, Reason};
use homeostat_common::ids::NodeId;
use homeostat_common::saga::{Fence, Order, SagaId, Want};
use homeostat_common::wire::seal::{LIFE_MS, Signer, Trusted};

use crate::rig::{Node, Peer, config, site, topics, wait_for};

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn order(by: &NodeId, counter: u64) -> Order {
    Order {
        saga: SagaId {
            by: by.clone(),
            number: 7,
        },
        fence: Fence { epoch: 1, counter },
        want: Want::Vote,
    }
}

#[test]
fn only_what_somebody_trusted_has_signed_for_this_node_and_now_is_an_order() {
    let (brokers, _guard) = crate::both(1024 * 1024);
    for (_, port) in brokers {
        let boss = Signer::new(&[1; 32]);
        let other = Signer::new(&[2; 32]);
        let [boss_name, who, other_name, here, there] =
            ["boss", "who", "other", "edge-1", "edge-2"].map(|name| NodeId::new(name).unwrap());
        let mut trusted = Trusted::default();
        trusted.trust(boss_name.clone(), &boss.key()).unwrap();
        trusted.trust(other_name.clone(), &other.key()).unwrap();
        let node = Node::start(LinkConfig {
            trusted,
            ..config(port)
        });
        node.await_ready();
        let peer = Peer::watch("boss", port, &["hs/v1/plant/edge-1/ans/+"]);
        let seal = |signer: &Signer, to: &NodeId, order: &Order, at| {
            signer.seal(&site(), to, order, at).unwrap()
        };
        let topic = topics().orders(&boss_name);
        let good = seal(&boss, &here, &order(&boss_name, 1), now());
        peer.publish(&topic, &order(&boss_name, 2).encode().unwrap());
        peer.publish(&topic, &seal(&other, &here, &order(&boss_name, 3), now()));
        peer.publish(&topic, &seal(&boss, &there, &order(&boss_name, 4), now()));
        let late = now() - LIFE_MS - 5_000;
        peer.publish(&topic, &seal(&boss, &here, &order(&boss_name, 5), late));
        let early = now() + 10 * LIFE_MS;
        peer.publish(&topic, &seal(&boss, &here, &order(&boss_name, 6), early));
        // Under the name of another one who is trusted, about a saga of the first.
        let under = topics().orders(&other_name);
        peer.publish(&under, &seal(&other, &here, &order(&boss_name, 7), now()));
        peer.publish(&topics().orders(&who), &good);
        let mut altered = good.clone();
        *altered.last_mut().unwrap() ^= 1;
        peer.publish(&topic, &altered);
        peer.publish(&topic, &good);
        wait_for("the good one", Duration::from_secs(10), || {
            node.seen(|event| matches!(event, LinkEvent::Order(_))) > 0
        });
        let taken = node.seen(|event| match event {
            LinkEvent::Order(order) => order.fence.counter == 1,
            _ => false,
        });
        assert_eq!(taken, 1);
        assert_eq!(node.seen(|event| matches!(event, LinkEvent::Order(_))), 1);
        let refused = node.seen(|event| matches!(event, LinkEvent::OrderRefused(..)));
        assert_eq!(refused, 8);
        let ignored = node.handle.counters().ignored;
        for (reason, count) in [
            (Reason::Unsigned, 1),
            (Reason::Untrusted, 3),
            (Reason::Signature, 2),
            (Reason::Expired, 2),
        ] {
            assert_eq!(ignored.count(Class::Order, reason), count, "{reason:?}");
        }
    }
}
