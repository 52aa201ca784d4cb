//! Makes room in the journal of an outbox: neighbouring files are rewritten without what is
//! dead in them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::state::{STATE_BYTES, Stored};
use super::{GAIN_MIN, KIND_STATE, Outbox};
use crate::io::store::error::Error;
use crate::io::store::frame::HEADER_BYTES;
use crate::io::store::journal::Sealed;

/// Sealed files before small ones are merged: opening reads each of them.
const SEGMENTS_MAX: usize = 128;
/// Files rewritten before one append, so that it never waits for a whole clean-up.
const REWRITES_MAX: usize = 4;

impl Outbox {
    /// Best effort: an append that fits without it must not fail with it.
    pub(super) fn make_room(&mut self) {
        let limits = self.config.limits;
        let allowed = limits.total_bytes - limits.overhead_bytes();
        for _ in 0..REWRITES_MAX {
            let crowded = self.journal.sealed().count() > SEGMENTS_MAX;
            if !crowded && self.journal.sealed_bytes() <= allowed {
                break;
            }
            let gain_min = if crowded { 1 } else { GAIN_MIN };
            if !self.rewrite_best(gain_min) {
                break;
            }
        }
    }

    /// Rewrites the neighbouring files that free most. False if that frees too little.
    pub(super) fn rewrite_best(&mut self, gain_min: u64) -> bool {
        // So that drops stay counted when their events are gone for good.
        if self.dirty
            && let Ok(seq) = self.journal.append(KIND_STATE, &self.state.encode())
        {
            self.state_at = Some(Stored::new(seq, STATE_BYTES));
            self.dirty = false;
        }
        let sealed: Vec<Sealed> = self.journal.sealed().collect();
        let live = self.live();
        let live_bytes = |s: &Sealed| {
            if self.avoid.contains(&s.first.0) {
                return s.bytes;
            }
            let inside = live.range(s.first.0..=s.last.0.max(s.first.0));
            inside.map(|(_, bytes)| u64::from(*bytes)).sum()
        };
        let sizes: Vec<u64> = sealed.iter().map(live_bytes).collect();
        // What makes the dropped records superfluous must outlast them.
        if self.journal.sync().is_err() {
            return false;
        }
        let largest = sealed.iter().map(|s| s.bytes).max().unwrap_or(0);
        let room = largest.max(u64::from(self.config.limits.segment_bytes));
        let Some((range, gain)) = best_group(&sealed, &sizes, room) else {
            return false;
        };
        if gain < gain_min {
            return false;
        }
        match self
            .journal
            .rewrite(range.clone(), |seq| live.contains_key(&seq.0))
        {
            Ok(()) => true,
            // No room for a copy: files without anything live need none.
            Err(Error::Full { .. }) => {
                let files = (0..).zip(sealed.iter().zip(&sizes));
                let dead = files.filter(|(_, (file, live))| **live == 0 && file.bytes > gain_min);
                dead.filter(|(at, _)| self.journal.hollow(*at).is_ok())
                    .count()
                    > 0
            }
            Err(Error::Io { .. } | Error::Quota { .. }) => {
                let group = sealed.get(range).unwrap_or_default();
                self.avoid.extend(group.iter().map(|s| s.first.0));
                true
            }
            Err(_) => false,
        }
    }

    fn live(&self) -> BTreeMap<u64, u32> {
        let events = self.events.values().map(|e| e.at);
        let records = self.kinds.values().flatten().copied();
        events
            .chain(records)
            .chain(self.state_at)
            .map(|s| (s.seq, s.bytes))
            .collect()
    }
}

/// Neighbours whose live bytes fit `room`, and how much rewriting them frees.
fn best_group(sealed: &[Sealed], live: &[u64], room: u64) -> Option<(Range<usize>, u64)> {
    let header = u64::from(HEADER_BYTES);
    let mut best: Option<(Range<usize>, u64)> = None;
    for start in 0..sealed.len() {
        let (mut have, mut keep) = (0, header);
        for (end, (file, live)) in sealed.iter().zip(live).enumerate().skip(start) {
            have += file.bytes;
            keep += live;
            if keep > room {
                break;
            }
            let gain = have.saturating_sub(keep);
            if gain > best.as_ref().map_or(0, |b| b.1) {
                best = Some((start..end + 1, gain));
            }
        }
    }
    best
}
