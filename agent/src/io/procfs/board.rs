//! What was measured, one row for each series, with its age.
//!
//! A source takes a [`Slot`] for each series once and puts a value there whenever it looks,
//! or says that there was none. Out come all rows as readings: fresh while the last look
//! found something, stale with its age when it did not, missing before the first value.
//! Judges nothing but this: a value that cannot be, by [`Metric::plausible`], was mismeasured
//! and counts as none.

use homeostat_common::observation::{Metric, MetricReading, Part, Reading};
use homeostat_common::units::{Micros, Millis};

use crate::control::Sourced;

/// Most rows: the fixed ones of a node, and those of eight disks, interfaces and file systems.
const ROWS_MAX: usize = 256;

/// One series of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(usize);

#[derive(Debug)]
struct Row {
    metric: Metric,
    part: Option<Part>,
    last: Option<(f64, Micros)>,
    /// The last look found a value.
    found: bool,
    /// It was looked at since the last time that all were told.
    new: bool,
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Board {
    rows: Vec<Option<Row>>,
    /// Values that cannot be, since this was set to 0.
    pub(super) garbage: u32,
}

impl Board {
    /// A row of the node as a whole.
    pub(super) fn node(&mut self, metric: Metric) -> Slot {
        self.add(metric, None)
    }

    /// A row of a part of it.
    pub(super) fn part(&mut self, metric: Metric, part: &Part) -> Slot {
        self.add(metric, Some(part.clone()))
    }

    /// A board that is full takes rows that nobody sees, so that a source need not care.
    fn add(&mut self, metric: Metric, part: Option<Part>) -> Slot {
        let row = Row {
            metric,
            part,
            last: None,
            found: false,
            new: false,
        };
        match self.rows.iter().position(Option::is_none) {
            Some(free) => {
                if let Some(place) = self.rows.get_mut(free) {
                    *place = Some(row);
                }
                Slot(free)
            }
            None if self.rows.len() < ROWS_MAX => {
                self.rows.push(Some(row));
                Slot(self.rows.len() - 1)
            }
            None => Slot(ROWS_MAX),
        }
    }

    /// The part is gone for good.
    pub(super) fn drop_row(&mut self, slot: Slot) {
        if let Some(row) = self.rows.get_mut(slot.0) {
            *row = None;
        }
    }

    /// What a look has found.
    pub(super) fn put(&mut self, now: Micros, slot: Slot, value: Option<f64>) {
        let Some(Some(row)) = self.rows.get_mut(slot.0) else {
            return;
        };
        let (least, most) = row.metric.plausible();
        let value = value.filter(|value| {
            let sane = (least..=most).contains(value);
            self.garbage += u32::from(!sane);
            sane
        });
        row.found = value.is_some();
        if let Some(value) = value {
            row.last = Some((value, now));
        }
        // That it found nothing is news of what had been there.
        row.new |= row.last.is_some();
    }

    /// All rows, and which of them were looked at since this was asked last.
    pub(super) fn sourced(&mut self, now: Micros) -> Vec<Sourced> {
        let rows = self.rows.iter_mut().flatten();
        rows.map(|row| {
            let reading = match row.last {
                Some((last, _)) if row.found => Reading::Fresh(last),
                Some((last, at)) => Reading::Stale {
                    last,
                    age: now.since(at),
                },
                None => Reading::Missing,
            };
            let reading = MetricReading {
                part: row.part.clone(),
                ..MetricReading::node(row.metric, reading)
            };
            let new = std::mem::take(&mut row.new);
            Sourced { reading, new }
        })
        .collect()
    }
}

/// When a source is looked at again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tier {
    period: Millis,
    last: Option<Micros>,
}

impl Tier {
    /// What changes slowly, or costs more.
    pub(super) const SLOW: Self = Self::every(Millis::secs(10));

    /// Which parts there are.
    pub(super) const PARTS: Self = Self::every(Millis::secs(60));

    const fn every(period: Millis) -> Self {
        Self { period, last: None }
    }

    /// Whether it is time; if so, the next time is a period from now. Half a second early
    /// will do, or a sample that comes a little early every time would skip one.
    pub(super) fn due(&mut self, now: Micros) -> bool {
        let early = Millis(500).0.min(self.period.0 / 4);
        let waited = |last: Micros| now.since(last).0 + early >= self.period.0 || now < last;
        let due = self.last.is_none_or(waited);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_missing_then_fresh_then_stale() {
        let mut board = Board::default();
        let slot = board.node(Metric::Load);
        let told = |board: &mut Board, at: u64| {
            let one = board.sourced(Micros(at)).remove(0);
            (one.reading.reading, one.new)
        };
        board.put(Micros(0), slot, None);
        assert_eq!(told(&mut board, 0), (Reading::Missing, false));
        board.put(Micros(0), slot, Some(2.0));
        assert_eq!(told(&mut board, 1), (Reading::Fresh(2.0), true));
        assert_eq!(told(&mut board, 2), (Reading::Fresh(2.0), false));
        board.put(Micros(3_000), slot, Some(f64::NAN));
        let age = Millis(3);
        let stale = Reading::Stale { last: 2.0, age };
        assert_eq!(told(&mut board, 3_000), (stale, true));
        assert_eq!(told(&mut board, 3_000), (stale, false));
    }

    #[test]
    fn a_full_board_takes_no_more_and_a_freed_row_is_used_again() {
        let mut board = Board::default();
        let slots: Vec<_> = (0..ROWS_MAX + 9)
            .map(|_| board.node(Metric::Load))
            .collect();
        board.put(Micros(0), slots[ROWS_MAX + 3], Some(1.0));
        assert_eq!(board.sourced(Micros(0)).len(), ROWS_MAX);
        board.drop_row(slots[7]);
        assert_eq!(board.sourced(Micros(0)).len(), ROWS_MAX - 1);
        assert_eq!(board.node(Metric::Uptime), slots[7]);
    }

    #[test]
    fn a_tier_comes_once_a_period_and_survives_a_clock_that_steps_back() {
        let mut tier = Tier::SLOW;
        let due: Vec<bool> = (0..21)
            .map(|second| tier.due(Micros(second * 1_000_000)))
            .collect();
        let expected: Vec<bool> = (0..21).map(|second| second % 10 == 0).collect();
        assert_eq!(due, expected);
        assert!(tier.due(Micros(0)));
    }
}
