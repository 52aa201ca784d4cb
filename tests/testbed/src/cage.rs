//! A limit of memory that the kernel keeps, for processes that somebody else runs.
//!
//! In go a number of bytes and the processes to hold; whoever takes more is killed by the
//! kernel. For measurements that compare with a service manager that sets such limits. Works in
//! either version of control groups where this process may make groups, so usually as root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// How long members that were killed may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(2);
/// Between two tries to remove the group.
const RETRY: Duration = Duration::from_millis(10);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A control group; dropping it removes it, once its members are gone.
#[derive(Debug)]
pub struct Cage {
    group: PathBuf,
}

impl Cage {
    /// Makes a group that may hold `bytes` in memory, and nothing in swap.
    ///
    /// # Errors
    /// Where there is no controller of memory, or this process may not use it.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let (base, file) = place(&read("/proc/self/cgroup"), &read("/proc/mounts"))
            .ok_or_else(|| io::Error::other("no controller of memory"))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = base.join(format!("hs-cage-{}-{number}", std::process::id()));
        fs::create_dir(&group)?;
        let cage = Self { group };
        fs::write(cage.group.join(file), bytes.to_string())?;
        // Where there is no swap there is no such file.
        let _ = fs::write(cage.group.join("memory.swap.max"), "0");
        Ok(cage)
    }

    /// Puts a process, and whatever it starts from now on, into it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn hold(&self, pid: u32) -> io::Result<()> {
        fs::write(self.group.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let mut waited = Duration::ZERO;
        while fs::remove_dir(&self.group).is_err() && waited < GONE_MAX {
            thread::sleep(RETRY);
            waited += RETRY;
        }
    }
}

/// Where groups can be made, and the file that holds the limit of one.
fn place(own: &str, mounts: &str) -> Option<(PathBuf, &'static str)> {
    let mount = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, found, options) = (fields.next()?, fields.next()?, fields.next()?);
            let fits =
                found == kind && (option.is_empty() || options.split(',').any(|o| o == option));
            fits.then(|| PathBuf::from(at))
        })
    };
    if let Some(mount) = mount("cgroup", "memory") {
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let memory = fields.next()?.split(',').any(|name| name == "memory");
            memory.then(|| fields.next())?
        });
        // In a container the path may be that of the host.
        let inner = mount.join(path.unwrap_or_default().trim_start_matches('/'));
        let base = if inner.is_dir() { inner } else { mount };
        return Some((base, "memory.limit_in_bytes"));
    }
    let root = mount("cgroup2", "")?;
    let handed_down = |folder: &Path| {
        let text = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
        text.split_whitespace().any(|name| name == "memory")
    };
    if !handed_down(&root) {
        fs::write(root.join("cgroup.subtree_control"), "+memory").ok()?;
    }
    Some((root, "memory.max"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    #[test]
    fn who_takes_too_much_is_killed_by_the_kernel() {
        let cage = match Cage::new(16 << 20) {
            Ok(cage) => cage,
            Err(error) => {
                println!("skip: no group of memory can be made here: {error}");
                return;
            }
        };
        // Reads for ever into its memory, a line without an end, once it may.
        let mut tail = Command::new("tail")
            .arg("-n1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        cage.hold(tail.id()).unwrap();
        let mut input = tail.stdin.take().unwrap();
        let block = vec![b'x'; 1 << 20];
        while io::Write::write_all(&mut input, &block).is_ok() {}
        assert_eq!(tail.wait().unwrap().signal(), Some(9));
        let group = cage.group.clone();
        drop(cage);
        assert!(!group.exists());
    }
}
