//! What else there is to know of a node as a whole: how long it is up, whether something
//! keeps its clock, how many files are open, and what the agent has had written.

use std::path::Path;

use homeostat_common::observation::Metric;
use homeostat_common::units::Micros;

use super::board::{Board, Slot, Tier};
use super::source::Source;
use super::{Texts, parse};

/// The node as a whole.
#[derive(Debug)]
pub(super) struct Node {
    files: Source,
    own: Source,
    slow: Tier,
    /// Uptime, clock, files, written.
    slots: [Slot; 4],
}

impl Node {
    pub(super) fn new(proc: &Path, board: &mut Board) -> Self {
        let metrics = [
            Metric::Uptime,
            Metric::ClockSynchronised,
            Metric::FilesOpen,
            Metric::OwnWritten,
        ];
        Self {
            files: Source::new(&proc.join("sys/fs/file-nr")),
            own: Source::new(&proc.join("self/io")),
            slow: Tier::SLOW,
            slots: metrics.map(|metric| board.node(metric)),
        }
    }

    pub(super) fn sample(&mut self, now: Micros, texts: &mut Texts, board: &mut Board) {
        let [uptime, clock, files, written] = self.slots;
        // The agent's clock is the kernel's, which starts with the node.
        board.put(now, uptime, Some(now.0 as f64 / 1e6));
        if !self.slow.due(now) {
            return;
        }
        let kept = synchronised().map(|kept| f64::from(u8::from(kept)));
        board.put(now, clock, kept);
        // Open, free, most.
        let open = texts.parse(&mut self.files, parse::numbers::<2>);
        board.put(
            now,
            files,
            open.map(|[open, free]| open.saturating_sub(free) as f64),
        );
        let bytes = texts.parse(&mut self.own, parse::disk_bytes);
        board.put(now, written, bytes.map(|[_, written]| written as f64));
    }
}

/// Whether something has set the clock and keeps it, as the kernel knows from whoever does.
#[allow(unsafe_code)]
fn synchronised() -> Option<bool> {
    use nix::libc;
    // SAFETY: all fields are integers, for which zeros are valid.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // No mode is set, so it only reads, which anybody may.
    // SAFETY: the kernel writes into a struct of its own form, that lives through the call.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    (answer >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}
