//! What all of it costs in memory, as the kernel counts it.

use std::fs;

use homeostat_eval::stage::{Cloud, Fleet};

/// Memory of some processes, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Each shared page in parts: what they take from the machine.
    pub(crate) proportional: f64,
    /// Each shared page whole in each process. Here one program plays all parts, so its code
    /// counts a dozen times.
    pub(crate) resident: f64,
}

/// Memory of agents, spawners, forwarders, broker, coordinator and this program with its load;
/// `None` when one of them is not there.
pub(crate) fn of_all(cloud: &Cloud, fleet: &Fleet) -> Option<Memory> {
    let mut pids = vec![Some(std::process::id())];
    pids.extend(cloud.pids());
    for node in fleet.nodes() {
        pids.extend(node.pids());
        pids.push(node.forwarder());
    }
    let mut sum = Memory::default();
    for pid in pids {
        let one = of(pid?)?;
        sum.proportional += one.proportional;
        sum.resident += one.resident;
    }
    Some(sum)
}

fn of(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let mib = |key: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib / 1024.0)
    };
    Some(Memory {
        proportional: mib("Pss:")?,
        resident: mib("Rss:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_and_a_missing_one_has_none() {
        let own = of(std::process::id()).unwrap();
        assert!(own.proportional > 0.1 && own.proportional <= own.resident);
        assert_eq!(of(u32::MAX), None);
    }
}
