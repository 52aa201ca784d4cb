//! The segment being written, and the records in it that are not yet known to be safe.

use std::ops::Range;

use super::super::disk::{Dir, DiskFile};
use super::super::error::Result;
use super::super::frame::{self, Frame, HEADER_BYTES, Header, SECTOR};
use super::super::recover::segment_name;
use super::{UNSYNCED_BYTES_MAX, UNSYNCED_MAX};

#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: DiskFile,
    pub(super) name: String,
    pub(super) header: Header,
    pub(super) seed: u32,
    pub(super) size: u32,
    pub(super) offset: u32,
    /// End of the last synced frame.
    pub(super) synced_end: u32,
    /// A write or sync failed: nothing more is written here.
    pub(super) broken: bool,
}

/// Records handed to the kernel but not yet known to be on the medium.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub(super) records: Vec<(u64, u8, Range<usize>)>,
    pub(super) bytes: Vec<u8>,
}

impl Active {
    /// The header is on the medium before the file gets its name, so a file with that name
    /// and no header is damaged, not new.
    pub(super) fn create(dir: &Dir, header: Header, size: u32) -> Result<Active> {
        let name = segment_name(header.first);
        let temporary = format!("{name}.tmp");
        let made = dir.create(&temporary).and_then(|file| {
            file.preallocate(size)?;
            file.write_at(0, &header.encode())?;
            file.sync()?;
            dir.rename(&temporary, &name)?;
            dir.sync()?;
            Ok(file)
        });
        match made {
            Ok(mut file) => {
                file.renamed(&name);
                Ok(Active {
                    file,
                    name,
                    seed: header.seed(),
                    header,
                    size,
                    offset: HEADER_BYTES,
                    synced_end: HEADER_BYTES,
                    broken: false,
                })
            }
            Err(e) => {
                let _ = dir.remove(&temporary);
                Err(e)
            }
        }
    }

    pub(super) fn unused(&self) -> u64 {
        u64::from(self.size.saturating_sub(self.offset))
    }

    pub(super) fn write(&mut self, scratch: &mut Vec<u8>, frame: &Frame<'_>) -> Result<()> {
        scratch.clear();
        frame::encode(scratch, self.seed, frame);
        if let Err(e) = self.file.write_at(self.offset, scratch) {
            self.broken = true;
            return Err(e);
        }
        self.offset += frame::frame_len(frame.payload.len());
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        if let Err(e) = self.file.sync() {
            self.broken = true;
            return Err(e);
        }
        self.synced_end = self.offset;
        self.offset = frame::pad(self.offset, SECTOR);
        Ok(())
    }
}

impl Unsynced {
    pub(super) fn is_full(&self, more: usize) -> bool {
        self.records.len() >= UNSYNCED_MAX || self.bytes.len() + more > UNSYNCED_BYTES_MAX
    }

    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame.payload);
        self.records
            .push((frame.seq, frame.kind, start..self.bytes.len()));
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
    }
}
