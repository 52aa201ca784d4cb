//! Opens the store, whatever state it is in.

use std::collections::VecDeque;
use std::path::Path;

use homeostat_common::hlc;
use homeostat_common::ids::{BootId, StreamId};

use super::{Checkpoint, KIND_HEAL, KIND_SAVED, Opened, Thread, chain, quality_of};
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
    let mut wall = Wall::open(&data.join("clock"), config.clock).unwrap_or_else(|error| {
        findings.push(chain(&error));
        Wall::fresh(&data.join("clock"), config.clock)
    });
    let (_, quality) = wall.unix_ms();
    let mut resumed = Resumed::default();
    let mut hlc = hlc::Clock::default();
    let limits = limits(&config.store);
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
            None
        }
    };
    let kv = match Kv::open(&data.join("kv"), KvLimits::default(), trial) {
        Ok((kv, found)) => {
            findings.extend(found.iter().map(ToString::to_string));
            if let Ok(Some(bytes)) = kv.get(Tree::Playbook, b"experience")
                && let Ok(experience) = postcard::from_bytes(&bytes)
            {
                resumed.experience = experience;
            }
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
        dropped: 0,
        trouble: None,
        told: None,
        ticket: None,
        written: false,
    };
    Ok((opened, thread))
}

/// Smallest quota with room for segments of the usual size; below, they shrink
/// with it, or what must be kept would not fit.
const WHOLE_SEGMENTS: u64 = 16 << 20;

fn limits(store: &config::Store) -> outbox::Config {
    let quota = store.quota.0;
    let usual = store::journal::Limits::default();
    let segment = match quota {
        WHOLE_SEGMENTS.. => usual.segment_bytes,
        // Of whole pages.
        small => u32::try_from(small / 256 / 4096 * 4096).unwrap_or(usual.segment_bytes),
    };
    let ballast = u32::try_from(store.ballast.0).unwrap_or(u32::MAX);
    outbox::Config {
        limits: store::journal::Limits {
            total_bytes: quota,
            ballast_bytes: ballast,
            segment_bytes: segment,
            ..usual
        },
        events_bytes: quota / 2,
        records_bytes: quota / 8,
    }
}

fn recall(outbox: &Outbox, resumed: &mut Resumed, hlc: &mut hlc::Clock) -> Result<(), Error> {
    outbox.records(KIND_SAVED, |_, _, bytes| {
        if let Ok(checkpoint) = postcard::from_bytes::<Checkpoint>(bytes) {
            resumed.saved = Some(checkpoint.saved);
            *hlc = hlc::Clock::resume(checkpoint.hlc);
        }
    })?;
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
    use homeostat_common::units::Bytes;

    use super::*;
    use crate::config::{BALLAST_SHARE, QUOTA_MAX, QUOTA_MIN};

    #[test]
    fn every_size_that_a_configuration_may_ask_for_gives_a_store() {
        for quota in [
            QUOTA_MIN,
            Bytes(QUOTA_MIN.0 + 1),
            Bytes(WHOLE_SEGMENTS - 1),
            Bytes(WHOLE_SEGMENTS),
            QUOTA_MAX,
        ] {
            for ballast in [Bytes(0), Bytes(quota.0 / BALLAST_SHARE)] {
                let dir = tempfile::tempdir().unwrap();
                let store = config::Store { quota, ballast };
                let opened = Outbox::open(&dir.path().join("journal"), limits(&store));
                let (mut outbox, _) = opened.unwrap_or_else(|error| panic!("{store:?}: {error}"));
                outbox.append(KIND_HEAL, &[7; 16 * 1024]).unwrap();
            }
        }
    }
}
