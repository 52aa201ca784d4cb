//! Opens the store, whatever state it is in.

use std::collections::VecDeque;
use std::path::Path;

use homeostat_common::hlc;
use homeostat_common::ids::{BootId, StreamId};
use homeostat_common::wire::Envelope;
use homeostat_templates::{Limits, Record};

use super::{Checkpoint, KIND_HEAL, KIND_SAVED, Opened, Thread, chain, not_opened, quality_of};
use crate::config::{self, Config};
use crate::control::Resumed;
use crate::io::clock::Wall;
use crate::io::store::kv::{Kv, KvLimits, Tree};
use crate::io::store::outbox::{self, Outbox};
use crate::io::store::{self, Error};

/// Opens the store, then serves it on a thread of its own.
///
/// # Errors
/// When the system gives no thread. A store that cannot be opened is a finding.
pub fn open(
    config: &Config,
    boot: BootId,
    trial: impl FnOnce(&Path) -> std::io::Result<bool>,
) -> std::io::Result<(Opened, Thread)> {
    let data = &config.node.data_dir;
    let mut findings = Vec::new();
    let mut wall =
        Wall::open(&data.join("clock"), config.clock.offset_ms).unwrap_or_else(|error| {
            findings.push(chain(&error));
            Wall::fresh(&data.join("clock"), config.clock.offset_ms)
        });
    let (_, quality) = wall.unix_ms();
    let mut resumed = Resumed::default();
    let mut hlc = hlc::Clock::default();
    let limits = journal_limits(&config.store);
    let mut trouble = None;
    let outbox = match Outbox::open(&data.join("journal"), limits) {
        Ok((outbox, recovered)) => {
            findings.extend(recovered.findings.iter().map(ToString::to_string));
            if let Err(error) = recall(&outbox, &mut resumed, &mut hlc) {
                findings.push(chain(&error));
            }
            Some(outbox)
        }
        Err(error) => {
            findings.push(format!(
                "no journal, healing without a record: {}",
                chain(&error)
            ));
            trouble = Some(not_opened(&error));
            None
        }
    };
    let mut templates: Vec<Record> = Vec::new();
    let kv = match Kv::open(&data.join("kv"), kv_limits(&config.store), trial) {
        Ok((kv, found)) => {
            findings.extend(found.iter().map(ToString::to_string));
            if let Ok(Some(bytes)) = kv.get(Tree::Playbook, b"experience")
                && let Ok(experience) = postcard::from_bytes(&bytes)
            {
                resumed.experience = experience;
            }
            // One that cannot be read is found again in the logs.
            let kept = kv.scan(Tree::Templates, b"", Limits::default().templates);
            let kept = kept.unwrap_or_default();
            templates.extend(
                kept.iter()
                    .filter_map(|(_, bytes)| postcard::from_bytes(bytes).ok()),
            );
            Some(kv)
        }
        Err(error) => {
            findings.push(format!("no history: {}", chain(&error)));
            None
        }
    };
    let stream = outbox
        .as_ref()
        .map_or_else(random_stream, |outbox| StreamId(outbox.stream().0));
    let opened = Opened {
        stream,
        acked: outbox.as_ref().map_or(0, |outbox| outbox.acked_to().0),
        last: outbox
            .as_ref()
            .map_or(0, |outbox| outbox.next_event().0.saturating_sub(1)),
        resumed,
        templates,
        findings,
        clock: quality_of(quality),
    };
    let thread = Thread {
        site: config.node.site.clone(),
        node: config.node.id.clone(),
        boot,
        stream,
        path: data.join("journal"),
        limits,
        outbox,
        kv,
        wall,
        hlc,
        marks: VecDeque::new(),
        unwritten: VecDeque::new(),
        held: Vec::new(),
        dropped: 0,
        trouble,
        told: None,
        ticket: None,
        written: false,
    };
    Ok((opened, thread))
}

/// The journal's part of the quota, in quarters; sled has the rest.
const JOURNAL_QUARTERS: u64 = 3;

/// Smallest segment: the largest record fits twice.
const SEGMENT_MIN: u64 = 128 << 10;

/// Largest segment: one is read at once, and several are kept aside.
const SEGMENT_MAX: u64 = 512 << 10;

/// What the journal may take: whatever is not needed for writing, for damaged
/// files and as ballast is there to be filled, a fifth of it by plan records.
#[must_use]
pub fn journal_limits(store: &config::Store) -> outbox::Config {
    let total = store.quota.0 / 4 * JOURNAL_QUARTERS;
    let segment = (total / 64).clamp(SEGMENT_MIN, SEGMENT_MAX) / 4096 * 4096;
    let limits = store::journal::Limits {
        total_bytes: total,
        ballast_bytes: u32::try_from(store.ballast.0).unwrap_or(u32::MAX),
        segment_bytes: u32::try_from(segment).unwrap_or(u32::MAX),
        ..store::journal::Limits::default()
    };
    let live = outbox::Config::live_max(&limits);
    outbox::Config {
        limits,
        events_bytes: live / 5 * 4,
        records_bytes: live / 5,
    }
}

/// Half of sled's part of the quota is its file, half the copy that is made when
/// the file has grown too large.
fn kv_limits(store: &config::Store) -> KvLimits {
    let file = (store.quota.0 / 4 * (4 - JOURNAL_QUARTERS)) / 2;
    KvLimits {
        file_bytes: file,
        // Four of them, below half of the file.
        tree_bytes: file / 9,
        ..KvLimits::default()
    }
}

fn recall(outbox: &Outbox, resumed: &mut Resumed, hlc: &mut hlc::Clock) -> Result<(), Error> {
    outbox.records(KIND_SAVED, |_, _, bytes| {
        if let Ok(checkpoint) = postcard::from_bytes::<Checkpoint>(bytes) {
            resumed.saved = Some(checkpoint.saved);
            *hlc = hlc::Clock::resume(checkpoint.hlc);
        }
    })?;
    // What came after the checkpoint has later stamps.
    if let Some(bytes) = outbox.newest()?
        && let Ok(newest) = Envelope::decode(&bytes)
        && newest.hlc > hlc.high_water()
    {
        *hlc = hlc::Clock::resume(newest.hlc);
    }
    outbox.records(KIND_HEAL, |_, checkpoint, bytes| {
        if !checkpoint && let Ok(record) = postcard::from_bytes(bytes) {
            resumed.records.push(record);
        }
    })
}

fn random_stream() -> StreamId {
    StreamId(fastrand::u128(..).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::store::outbox::Class;

    const MIB: u64 = 1 << 20;

    /// Bytes on the disk under a folder.
    fn used(path: &Path) -> u64 {
        let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
        entries
            .map(|entry| match entry.metadata().unwrap() {
                meta if meta.is_dir() => used(&entry.path()),
                meta => meta.len(),
            })
            .sum()
    }

    #[test]
    fn every_size_that_a_configuration_may_ask_for_gives_a_store() {
        let mut opened = Vec::new();
        for quota in [1, 2, 3, 4, 6, 8, 13, 14, 16, 64].map(|mib| mib * MIB) {
            for ballast in [0, MIB / 2, MIB, quota / 10, quota / 2] {
                let text = format!(
                    "[node]\nid = \"n\"\n[store]\nquota = \"{}KiB\"\nballast = \"{}KiB\"\n",
                    quota / 1024,
                    ballast / 1024
                );
                let Ok(config) = Config::parse(&text, Path::new("a.toml")) else {
                    continue;
                };
                let dir = tempfile::tempdir().unwrap();
                let found = Outbox::open(dir.path(), journal_limits(&config.store));
                let (mut outbox, _) = found.unwrap_or_else(|error| panic!("{text}: {error}"));
                outbox.append(KIND_HEAL, &[7; 60 << 10]).unwrap();
                outbox.push(Class::Heal, &[7; 60 << 10]).unwrap();
                outbox.sync().unwrap();
                opened.push((quota / MIB, ballast / 1024));
            }
        }
        assert!(opened.contains(&(8, 0)) && opened.contains(&(64, 6553)));
        assert!(opened.iter().all(|(quota, _)| *quota >= 8), "{opened:?}");
    }

    #[test]
    fn journal_and_history_together_stay_within_the_quota() {
        let store = config::Store {
            quota: config::QUOTA_MIN,
            ballast: homeostat_common::units::Bytes(512 << 10),
        };
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let (mut outbox, _) =
            Outbox::open(&dir.path().join("journal"), journal_limits(&store)).unwrap();
        let (mut kv, _) =
            Kv::open(&dir.path().join("kv"), kv_limits(&store), |_| Ok(true)).unwrap();
        let mut most = 0;
        for i in 0..8000u64 {
            outbox.push(Class::Heal, &[7; 1500]).unwrap();
            kv.put(Tree::History, &i.to_be_bytes(), &[7; 600]).unwrap();
            if i % 50 == 0 {
                most = most.max(used(dir.path()));
            }
        }
        assert!(outbox.dropped(Class::Heal).events > 0 && kv.len(Tree::History) < 8000);
        assert!(most <= store.quota.0, "{most}");
    }
}
