//! Drops packets to the ports of a service: a table of our own in nftables.
//!
//! In go ports and addresses, out come rules. The table holds a set of pairs of
//! address and port for each version of the protocol; nothing outside of it is
//! read or changed. Runs the `nft` program with JSON on its standard input, which
//! is its interface for programs.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use homeostat_common::net::SourceNet;
use serde_json::{Value, json};

/// The program, by its absolute path: no PATH decides what root runs.
const NFT: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];

/// The table.
const TABLE: &str = "homeostat";

/// What is kept of the program's complaint.
const COMPLAINT_MAX: usize = 300;

/// Why packets are not dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    /// There is no such program.
    #[error("there is no nft program at {} or {}", NFT[0], NFT[1])]
    Absent,
    /// It could not be run.
    #[error("cannot run nft")]
    Run(#[from] io::Error),
    /// It would not.
    #[error("nft: {0}")]
    Refused(String),
}

/// Drops packets from these addresses to these ports, or lets them through again.
///
/// # Errors
/// [`FilterError`]; then nothing has changed, as nft takes all or nothing.
pub(super) fn block(ports: &[u16], from: SourceNet, blocked: bool) -> Result<(), FilterError> {
    let mut commands = vec![];
    for (set, kind, protocol) in [("from4", "ipv4_addr", "ip"), ("from6", "ipv6_addr", "ip6")] {
        commands.extend(skeleton(set, kind, protocol));
    }
    apply(&commands)?;
    let set = if from.is_ipv4() { "from4" } else { "from6" };
    let elements: Vec<Value> = ports.iter().map(|port| element(from, *port)).collect();
    let element = json!({ "family": "inet", "table": TABLE, "name": set, "elem": elements });
    // Adding first makes that deleting finds it; both are one step to the kernel.
    let mut commands = vec![json!({ "add": { "element": element } })];
    if !blocked {
        commands.push(json!({ "delete": { "element": element } }));
    }
    apply(&commands)
}

fn element(from: SourceNet, port: u16) -> Value {
    let net = json!({ "prefix": { "addr": from.address().to_string(), "len": from.prefix() } });
    json!({ "concat": [net, port] })
}

/// The table, its chain and one set with its rule; adding what is there changes
/// nothing, but a rule would be there twice, so the chain is emptied first by
/// whoever comes with the first set.
fn skeleton(set: &str, kind: &str, protocol: &str) -> Vec<Value> {
    let chain = json!({
        "family": "inet", "table": TABLE, "name": "input",
        "type": "filter", "hook": "input", "prio": -10, "policy": "accept",
    });
    let source = json!({ "payload": { "protocol": protocol, "field": "saddr" } });
    let port = json!({ "payload": { "protocol": "th", "field": "dport" } });
    let rule = json!({
        "family": "inet", "table": TABLE, "chain": "input",
        "expr": [
            { "match": {
                "op": "in",
                "left": { "concat": [source, port] },
                "right": format!("@{set}"),
            } },
            { "drop": null },
        ],
    });
    let mut commands = vec![
        json!({ "add": { "table": { "family": "inet", "name": TABLE } } }),
        json!({ "add": { "chain": chain } }),
        json!({ "add": { "set": {
            "family": "inet", "table": TABLE, "name": set,
            "type": [kind, "inet_service"], "flags": ["interval"],
        } } }),
    ];
    if set == "from4" {
        commands.push(json!({ "flush": { "chain": {
            "family": "inet", "table": TABLE, "name": "input",
        } } }));
    }
    commands.push(json!({ "add": { "rule": rule } }));
    commands
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

    #[test]
    fn packets_are_dropped_and_let_through_again() {
        in_own_network(|| {
            if !NFT.iter().any(|path| std::path::Path::new(path).exists()) {
                println!("skip: there is no nft program");
                return;
            }
            let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [a, b] = listeners
                .each_ref()
                .map(|it| it.local_addr().unwrap().port());
            let net: SourceNet = "127.0.0.0/8".parse().unwrap();
            if let Err(error) = block(&[a], net, true) {
                println!("skip: {error}");
                return;
            }
            // Asked twice, it is done once.
            block(&[a], net, true).unwrap();
            assert!(!reaches(a) && reaches(b));
            block(&[b], "fd00::/8".parse().unwrap(), true).unwrap();
            assert!(!reaches(a) && reaches(b));
            block(&[a], net, false).unwrap();
            block(&[a], net, false).unwrap();
            assert!(reaches(a) && reaches(b));
        });
    }
}
