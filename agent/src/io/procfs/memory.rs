//! Memory and swap of the node, by `meminfo` and `vmstat`. A node without swap has none of
//! its readings.

use std::path::Path;

use homeostat_common::observation::Metric;
use homeostat_common::units::Micros;
use rustix::param::page_size;

use super::board::{Board, Slot};
use super::deltas::Deltas;
use super::source::Source;
use super::{Texts, parse};

/// Memory of the node.
#[derive(Debug)]
pub(super) struct Memory {
    info: Source,
    events: Source,
    swapped: Deltas<2>,
    killed: Deltas<1>,
    slots: [Slot; 4],
}

impl Memory {
    pub(super) fn new(proc: &Path, board: &mut Board) -> Self {
        let metrics = [
            Metric::SwapUsed,
            Metric::SwapIn,
            Metric::SwapOut,
            Metric::OomKills,
        ];
        Self {
            info: Source::new(&proc.join("meminfo")),
            events: Source::new(&proc.join("vmstat")),
            swapped: Deltas::default(),
            killed: Deltas::default(),
            slots: metrics.map(|metric| board.node(metric)),
        }
    }

    /// Puts swap and kills on the board; returns what is available, and all there is.
    pub(super) fn sample(
        &mut self,
        now: Micros,
        texts: &mut Texts,
        board: &mut Board,
    ) -> Option<(u64, u64)> {
        let mut swap = None;
        let memory = texts.parse(&mut self.info, |text| {
            let total = parse::meminfo(text, "SwapTotal").filter(|total| *total > 0);
            swap = total.zip(parse::meminfo(text, "SwapFree"));
            let available = parse::meminfo(text, "MemAvailable")?;
            Some((available, parse::meminfo(text, "MemTotal")?))
        });
        let events = texts.parse(&mut self.events, parse::vmstat);
        let swapped = events.map(|(swapped, _)| swapped);
        let swapped = self.swapped.grown(now, swapped.filter(|_| swap.is_some()));
        // Kernels before 4.13 do not count them.
        let kills = events.and_then(|(_, kills)| kills);
        let kills = self.killed.grown(now, kills.map(|kills| [kills]));
        let [used, read, written, killed] = self.slots;
        let taken = swap.map(|(total, free)| total.saturating_sub(free) as f64);
        board.put(now, used, taken);
        let bytes = |place| swapped.map(|growth| growth.rate(place) * page_size() as f64);
        board.put(now, read, bytes(0));
        board.put(now, written, bytes(1));
        board.put(now, killed, kills.map(|growth| growth.rate(0)));
        memory
    }
}
