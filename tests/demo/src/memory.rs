//! What all of it costs in memory, as the kernel counts it.

use std::fs;

use homeostat_eval::stage::{Cloud, Fleet};

/// Resident memory of agents, spawners, forwarders, broker, coordinator and this program with its
/// load, in MiB; `None` when one of them is not there. Shared pages count each time.
pub(crate) fn resident_mib(cloud: &Cloud, fleet: &Fleet) -> Option<f64> {
    let mut pids = vec![Some(std::process::id())];
    pids.extend(cloud.pids());
    for node in fleet.nodes() {
        pids.extend(node.pids());
        pids.push(node.forwarder());
    }
    let mut kib = 0;
    for pid in pids {
        kib += resident_kib(pid?)?;
    }
    Some(kib as f64 / 1024.0)
}

fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_and_a_missing_one_has_none() {
        assert!(resident_kib(std::process::id()).is_some_and(|kib| kib > 100));
        assert_eq!(resident_kib(u32::MAX), None);
    }
}
