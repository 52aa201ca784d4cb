//! Who descends from whom, and who is in which process group: `/proc` in one look.
//!
//! Finds what a mark in the environment cannot: the main process of a start that was
//! not recorded, and members of a group whose environment was overwritten or cleared.
//!
//! The main process of a service leads a process group, in the session of the spawner
//! that started it, which it does not lead: the leader of a group cannot begin a
//! session. Whatever a service starts is below it, or was until its own parent died.
//!
//! Nobody is signalled by what was seen here alone: a pidfd is opened first, and what
//! the process is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rustix::process::{Pid, PidfdFlags};

use super::marks::Member;

/// What is asked about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// In clock ticks since boot.
    pub(super) start: u64,
}

impl Stat {
    pub(super) fn of(pid: Pid) -> Option<Self> {
        let file = format!("/proc/{}/stat", pid.as_raw_nonzero());
        Self::parse(&std::fs::read_to_string(file).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name, second, is in brackets and may hold anything; the state is next.
        let (_, rest) = text.rsplit_once(')')?;
        let mut rest = rest.split_ascii_whitespace().skip(1);
        Some(Self {
            parent: rest.next()?.parse().ok()?,
            group: rest.next()?.parse().ok()?,
            session: rest.next()?.parse().ok()?,
            start: rest.nth(15)?.parse().ok()?,
        })
    }
}

/// The real user of a process. That one stays whatever program it goes on with; who
/// runs a program with the rights of another is still who it was.
pub(super) fn user(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The session of this process. 0, as for each process of it, when it was made outside of this
/// namespace of processes: `getsid` has no number for it.
pub(super) fn own_session() -> i32 {
    Stat::of(rustix::process::getpid()).map_or(0, |stat| stat.session)
}

/// A process group that a service leads or led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) leader: i32,
    /// When the leader was started.
    pub(super) start: u64,
    pub(super) session: i32,
    /// Who it runs as, if that is known.
    pub(super) user: Option<u32>,
}

impl Group {
    /// Whether `pid` may be of this group rather than of a later one with its number: it
    /// is no older than the leader, in the same session, and somebody the leader could
    /// have become.
    fn admits(&self, stat: &Stat, user: Option<u32>) -> bool {
        let own = self.user.is_some_and(|own| own == 0 || user == Some(own));
        stat.group == self.leader && stat.session == self.session && stat.start >= self.start && own
    }

    /// Its members besides the leader.
    pub(super) fn members(&self, kin: &Kin) -> Vec<Member> {
        let pids = kin.in_group(self);
        pids.filter_map(|pid| {
            let pid = Pid::from_raw(pid)?;
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
            let admitted = self.admits(&Stat::of(pid)?, user(pid));
            admitted.then_some(Member { pid, pidfd })
        })
        .collect()
    }
}

/// All processes.
#[derive(Debug, Default)]
pub(super) struct Kin(BTreeMap<i32, Stat>);

impl Kin {
    pub(super) fn look() -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            let pid = pid.and_then(Pid::from_raw);
            if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, Stat::of(pid)?))) {
                all.insert(pid.as_raw_nonzero().get(), stat);
            }
        }
        Ok(Self(all))
    }

    /// `pid` and all above it.
    pub(super) fn line_of(&self, pid: i32) -> BTreeSet<i32> {
        let mut line = BTreeSet::new();
        let mut at = pid;
        while at != 0 && line.insert(at) {
            at = self.0.get(&at).map_or(0, |stat| stat.parent);
        }
        line
    }

    /// The main process above `pid`, or itself, of a spawner that was in `session`: the
    /// highest one that can be it, below what is `above` the spawner of today. Orphans
    /// of a spawner go to somebody there.
    pub(super) fn main_of(
        &self,
        pid: i32,
        session: i32,
        above: &BTreeSet<i32>,
    ) -> Option<(i32, Stat)> {
        let mut main = None;
        let mut seen = BTreeSet::new();
        let mut at = pid;
        while !above.contains(&at)
            && seen.insert(at)
            && let Some(stat) = self.0.get(&at)
        {
            if stat.group == at && stat.session == session && session != at {
                main = Some((at, *stat));
            }
            at = stat.parent;
        }
        main
    }

    /// Who has the number of `group` without being its leader; nobody when the number is
    /// another's by now.
    fn in_group(&self, group: &Group) -> impl Iterator<Item = i32> {
        let leader = self.0.get(&group.leader);
        let reused = leader.is_some_and(|stat| stat.start != group.start);
        let number = group.leader;
        let all = self.0.iter().filter(move |_| !reused);
        all.filter(move |(pid, stat)| stat.group == number && **pid != number)
            .map(|(pid, _)| *pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(pid, parent, group, session, start)`.
    fn kin(all: &[(i32, i32, i32, i32, u64)]) -> Kin {
        let all = all.iter().map(|&(pid, parent, group, session, start)| {
            let stat = Stat {
                parent,
                group,
                session,
                start,
            };
            (pid, stat)
        });
        Kin(all.collect())
    }

    #[test]
    fn this_process_is_what_the_kernel_says() {
        let own = rustix::process::getpid();
        let stat = Stat::of(own).unwrap();
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        assert_eq!(stat.parent, parent);
        assert!(stat.start > 0);
        assert_eq!(user(own), Some(rustix::process::getuid().as_raw()));
        let line = Kin::look().unwrap().line_of(own.as_raw_nonzero().get());
        assert!(parent == 0 || line.contains(&parent), "{line:?}");
        let text = "7 (a) b) S 4 5 6 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 1234 0 0";
        let stat = Stat::parse(text).unwrap();
        let numbers = (stat.parent, stat.group, stat.session, stat.start);
        assert_eq!(numbers, (4, 5, 6, 1234));
        for wrong in ["", "1 (a) S 1 2", "1 (a) S 1 2 x"] {
            assert_eq!(Stat::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_main_process_is_the_highest_one_that_can_be_it() {
        let kin = kin(&[
            (1, 0, 1, 1, 0),
            // The spawner, and the session that the former one was in too.
            (50, 1, 50, 50, 1),
            (90, 50, 90, 50, 9),
            // A service with workers: in its group, in one of its own, in a session of its own.
            (60, 1, 60, 50, 2),
            (61, 60, 60, 50, 3),
            (62, 60, 62, 50, 3),
            (63, 62, 63, 63, 4),
            // One whose parent ended.
            (70, 1, 70, 70, 5),
            // A reaper of another session between.
            (80, 1, 80, 80, 1),
            (81, 80, 81, 50, 5),
            (82, 81, 82, 50, 6),
        ]);
        let above = kin.line_of(90);
        assert_eq!(above, [1, 50, 90].into());
        let main = |pid| kin.main_of(pid, 50, &above).map(|(pid, _)| pid);
        for pid in [60, 61, 62, 63] {
            assert_eq!(main(pid), Some(60), "{pid}");
        }
        assert_eq!(main(82), Some(81));
        for nobody in [70, 80, 50, 90, 1, 1000] {
            assert_eq!(main(nobody), None, "{nobody}");
        }
        assert_eq!(kin.main_of(62, 51, &above), None, "another session");
    }

    #[test]
    fn a_group_with_a_number_that_was_given_again_has_no_members() {
        let group = |start| Group {
            leader: 60,
            start,
            session: 50,
            user: Some(7),
        };
        let found = |kin: &Kin, start| kin.in_group(&group(start)).collect::<Vec<_>>();
        let led = kin(&[(60, 1, 60, 50, 5), (61, 60, 60, 50, 6), (62, 1, 62, 50, 6)]);
        assert_eq!(found(&led, 5), [61]);
        assert_eq!(found(&led, 4), [0; 0], "60 is another process");
        let orphaned = kin(&[(61, 1, 60, 50, 6)]);
        assert_eq!(found(&orphaned, 5), [61]);
        let member = &orphaned.0[&61];
        assert!(group(5).admits(member, Some(7)));
        assert!(!group(7).admits(member, Some(7)), "older than its leader");
        assert!(!group(5).admits(member, Some(8)), "another user");
        assert!(!group(5).admits(member, None));
        let other = Stat {
            session: 51,
            ..*member
        };
        assert!(!group(5).admits(&other, Some(7)), "another session");
        let root = Group {
            user: Some(0),
            ..group(5)
        };
        assert!(root.admits(member, Some(8)), "root may become anybody");
    }
}
