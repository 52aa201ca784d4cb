//! Drops packets to the ports of a service: tables of our own in nftables.
//!
//! In go a service, addresses and ports, out come rules. What is dropped for one service
//! from one range of addresses is one table, named by both: so taking the table away
//! undoes just what was done, without asking what the ports were, and leaves nothing
//! behind. Nothing outside of these tables is read or changed. Runs the `nft` program with JSON on its standard input, which
//! is its interface for programs.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use homeostat_common::ids::ServiceId;
use homeostat_common::net::SourceNet;
use serde_json::{Value, json};

/// The program, by its absolute path: no PATH decides what root runs.
const NFT: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];

/// Of the tables: both versions of the protocol.
const FAMILY: &str = "inet";

/// What is kept of the program's complaint.
const COMPLAINT_MAX: usize = 300;

/// Why packets are not dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    /// There is no such program.
    #[error("there is no nft program at {} or {}", NFT[0], NFT[1])]
    Absent,
    /// There is nothing to drop.
    #[error("the service has no ports in the configuration")]
    NoPorts,
    /// It could not be run.
    #[error("cannot run nft")]
    Run(#[from] io::Error),
    /// It would not.
    #[error("nft: {0}")]
    Refused(String),
}

/// Drops packets from these addresses to these ports of a service: these alone, if some
/// of it were dropped from there before.
///
/// # Errors
/// [`FilterError`]; then nothing has changed, as nft takes all or nothing.
pub(super) fn block(
    service: &ServiceId,
    from: SourceNet,
    ports: &[u16],
) -> Result<(), FilterError> {
    if ports.is_empty() {
        return Err(FilterError::NoPorts);
    }
    let table = table(service, from);
    let mut commands = remove(&table);
    commands.push(json!({ "add": { "table": { "family": FAMILY, "name": table } } }));
    commands.push(json!({ "add": { "chain": {
        "family": FAMILY, "table": table, "name": "input",
        "type": "filter", "hook": "input", "prio": -10, "policy": "accept",
    } } }));
    let protocol = if from.is_ipv4() { "ip" } else { "ip6" };
    let equals = |left: Value, right: Value| json!({ "match": { "op": "==", "left": left, "right": right } });
    commands.push(json!({ "add": { "rule": {
        "family": FAMILY, "table": table, "chain": "input",
        "expr": [
            equals(
                json!({ "payload": { "protocol": protocol, "field": "saddr" } }),
                json!({ "prefix": { "addr": from.address().to_string(), "len": from.prefix() } }),
            ),
            // What else there is has no ports.
            equals(json!({ "meta": { "key": "l4proto" } }), json!({ "set": ["tcp", "udp"] })),
            equals(
                json!({ "payload": { "protocol": "th", "field": "dport" } }),
                json!({ "set": ports }),
            ),
            { "drop": null },
        ],
    } } }));
    apply(&commands)
}

/// Lets through again what [`block`] drops, whatever the service's ports are by now.
///
/// # Errors
/// [`FilterError`]; then nothing has changed.
pub(super) fn unblock(service: &ServiceId, from: SourceNet) -> Result<(), FilterError> {
    apply(&remove(&table(service, from)))
}

/// The name of the table, of characters that need no quotes in nft's own language: a
/// colon would. What stands behind the last `-` is the addresses.
fn table(service: &ServiceId, from: SourceNet) -> String {
    format!("homeostat-{service}-{from}").replace(':', "_")
}

/// Removes a table and all that is in it, if it is there: adding it first makes that
/// deleting finds it, and both are one step to the kernel.
fn remove(table: &str) -> Vec<Value> {
    let table = json!({ "table": { "family": FAMILY, "name": table } });
    vec![json!({ "add": table }), json!({ "delete": table })]
}

fn apply(commands: &[Value]) -> Result<(), FilterError> {
    let program = NFT.iter().find(|path| std::path::Path::new(path).exists());
    let mut child = Command::new(program.ok_or(FilterError::Absent)?)
        .args(["-j", "-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(json!({ "nftables": commands }).to_string().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(FilterError::Refused(
        complaint.trim().chars().take(COMPLAINT_MAX).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::super::uplink::tests::in_own_network;
    use super::*;

    fn reaches(port: u16) -> bool {
        let address = ([127, 0, 0, 1], port).into();
        TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
    }

    /// The tables that there are, in nft's own language.
    fn tables() -> String {
        let program = NFT.iter().find(|path| std::path::Path::new(path).exists());
        let listed = Command::new(program.unwrap())
            .args(["list", "tables"])
            .output();
        String::from_utf8(listed.unwrap().stdout).unwrap()
    }

    #[test]
    fn packets_are_dropped_and_let_through_again() {
        in_own_network(|| {
            if !NFT.iter().any(|path| std::path::Path::new(path).exists()) {
                println!("skip: there is no nft program");
                return;
            }
            let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [a, b, c] = listeners
                .each_ref()
                .map(|it| it.local_addr().unwrap().port());
            let [web, store] = ["web", "store"].map(|name| ServiceId::new(name).unwrap());
            let net: SourceNet = "127.0.0.0/8".parse().unwrap();
            let far: SourceNet = "fd00::/8".parse().unwrap();
            if let Err(error) = block(&web, net, &[a]) {
                println!("skip: {error}");
                return;
            }
            // Asked twice, it is done once.
            block(&web, net, &[a]).unwrap();
            assert!(!reaches(a) && reaches(b));
            block(&store, far, &[b]).unwrap();
            block(&web, far, &[a, c]).unwrap();
            assert!(!reaches(a) && reaches(b) && reaches(c));
            // All of the older block, and nothing else.
            block(&web, net, &[b, c]).unwrap();
            assert!(reaches(a) && !reaches(b) && !reaches(c));
            unblock(&store, net).unwrap();
            assert!(reaches(a) && !reaches(b) && !reaches(c));
            unblock(&web, net).unwrap();
            unblock(&web, net).unwrap();
            assert!(reaches(a) && reaches(b) && reaches(c));
            assert_eq!(
                tables(),
                "table inet homeostat-store-fd00__/8\ntable inet homeostat-web-fd00__/8\n"
            );
            unblock(&store, far).unwrap();
            unblock(&web, far).unwrap();
            assert_eq!(tables(), "");
            assert!(matches!(block(&web, net, &[]), Err(FilterError::NoPorts)));
        });
    }

    #[test]
    fn every_address_range_can_be_dropped() {
        in_own_network(|| {
            let web = ServiceId::new("web").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let net = |text: &str| text.parse::<SourceNet>().unwrap();
            if let Err(error) = block(&web, net("127.0.0.1/32"), &[port]) {
                println!("skip: {error}");
                return;
            }
            assert!(!reaches(port));
            unblock(&web, net("127.0.0.1/32")).unwrap();
            assert!(reaches(port));
            // One within the other.
            block(&web, net("0.0.0.0/0"), &[port]).unwrap();
            block(&web, net("127.0.0.0/8"), &[port]).unwrap();
            unblock(&web, net("127.0.0.0/8")).unwrap();
            assert!(!reaches(port));
            block(&web, net("::/0"), &[port]).unwrap();
            block(&web, net("::1/128"), &[port]).unwrap();
        });
    }
}
