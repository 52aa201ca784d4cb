//! What is usual at this time of the day.
//!
//! The mean of each slot of the day, moved towards each new visit of the slot. A value is
//! compared with its own slot and both neighbours and the nearest counts, because daily
//! work rarely begins to the minute. The day is the only season that is asked for: people
//! and schedules follow it, and one season fits 100 B.
//!
//! Means are kept in the upper half of an `f32`, as distances from an anchor near the
//! level, so that 0.4 % is their error against the spread and not against the value.
//! Blind to the week, to other periods, and to everything during the first day; the bank waits
//! for the second, which shows how far a day may be from the other.

/// Seconds of a day.
const DAY: u32 = 86_400;

/// The level may go this many spreads from the anchor before the anchor follows.
const ANCHOR_MAX: f32 = 16.0;

/// Marks a slot that was never visited.
const UNKNOWN: u16 = 0x7fc0;

/// The profile of a day in `SLOTS` slots; at most 255.
#[derive(Debug, Clone)]
pub(super) struct Season<const SLOTS: usize> {
    means: [u16; SLOTS],
    anchor: f32,
    /// Sum and count of the present visit, from the anchor.
    sum: f32,
    count: u16,
    slot: u8,
}

impl<const SLOTS: usize> Season<SLOTS> {
    pub(super) const fn new() -> Self {
        Self {
            means: [UNKNOWN; SLOTS],
            anchor: 0.0,
            sum: 0.0,
            count: 0,
            slot: 0,
        }
    }

    /// The distance from the nearest of the usual values; `None` for a time of day that is
    /// not known yet.
    pub(super) fn residual(&self, second: u32, value: f32) -> Option<f32> {
        let slot = slot_of::<SLOTS>(second);
        // A slot that was not visited yet has no past, even if its neighbour has.
        self.means.get(slot).filter(|mean| **mean != UNKNOWN)?;
        let value = value - self.anchor;
        let mut nearest: Option<f32> = None;
        for near in [slot, (slot + 1) % SLOTS, (slot + SLOTS - 1) % SLOTS] {
            let distance = value - unpack(self.means.get(near).copied().unwrap_or(UNKNOWN));
            if !distance.is_nan() && nearest.is_none_or(|other| distance.abs() < other.abs()) {
                nearest = Some(distance);
            }
        }
        nearest
    }

    /// Takes a value into the profile. `level` and `spread` are those of the metric;
    /// `pace` is the weight of a visit.
    #[allow(clippy::cast_possible_truncation)] // there are at most 255 slots
    pub(super) fn learn(&mut self, second: u32, value: f32, level: f32, spread: f32, pace: f32) {
        let slot = slot_of::<SLOTS>(second);
        if slot != usize::from(self.slot) {
            self.close(pace);
            self.slot = slot as u8;
        }
        // Between two visits, and before the first.
        if self.count == 0 && (level - self.anchor).abs() > ANCHOR_MAX * spread {
            let step = self.anchor - level;
            self.anchor = level;
            for mean in &mut self.means {
                if *mean != UNKNOWN {
                    *mean = pack(unpack(*mean) + step);
                }
            }
        }
        if self.count < u16::MAX {
            self.sum += value - self.anchor;
            self.count += 1;
        }
    }

    /// Ends the present visit.
    fn close(&mut self, pace: f32) {
        if self.count > 0
            && let Some(mean) = self.means.get_mut(usize::from(self.slot))
        {
            let visit = self.sum / f32::from(self.count);
            let old = unpack(*mean);
            *mean = pack(if old.is_nan() {
                visit
            } else {
                old + pace * (visit - old)
            });
        }
        self.sum = 0.0;
        self.count = 0;
    }
}

#[allow(clippy::cast_possible_truncation)] // there are at most 255 slots
fn slot_of<const SLOTS: usize>(second: u32) -> usize {
    let length = (DAY / SLOTS as u32).max(1);
    ((second % DAY) / length) as usize % SLOTS.max(1)
}

#[allow(clippy::cast_possible_truncation)] // the upper half
fn pack(value: f32) -> u16 {
    if value.is_finite() {
        // Rounded to nearest; a finite value this small cannot overflow.
        ((value.to_bits() + 0x8000) >> 16) as u16
    } else {
        UNKNOWN
    }
}

fn unpack(packed: u16) -> f32 {
    f32::from_bits(u32::from(packed) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 48;

    #[test]
    fn a_day_is_learnt_and_a_missing_bump_stands_out() {
        let mut season: Season<SLOTS> = Season::new();
        let usual = |second: u32| match second % DAY / 3600 {
            9..12 => 80.0,
            _ => 20.0,
        };
        for second in (0..2 * DAY).step_by(60) {
            season.learn(second, usual(second), 22.0, 5.0, 0.5);
        }
        let ten = 2 * DAY + 10 * 3600 + 900;
        assert!(season.residual(ten, 80.0).unwrap().abs() < 0.5);
        assert!((season.residual(ten, 20.0).unwrap() + 60.0).abs() < 0.5);
        // Half an hour early or late is no surprise.
        let early = season.residual(2 * DAY + 9 * 3600 - 900, 80.0).unwrap();
        assert!(early.abs() < 0.5, "{early}");
    }

    #[test]
    fn an_unknown_time_of_day_says_nothing() {
        let mut season: Season<SLOTS> = Season::new();
        (0..3600).for_each(|second| season.learn(second, 1.0, 1.0, 0.1, 0.5));
        assert_eq!(season.residual(6 * 3600, 1.0), None);
        assert!(season.residual(60, 1.0).is_some());
    }

    #[test]
    fn a_level_that_wanders_off_keeps_the_profile() {
        let mut season: Season<SLOTS> = Season::new();
        for second in (0..2 * DAY).step_by(60) {
            let hour = (second % DAY / 3600) as f32;
            season.learn(second, 1e6 + hour, 1e6 + 12.0, 7.0, 0.5);
        }
        let noon = season
            .residual(2 * DAY + 12 * 3600 + 1800, 1e6 + 12.0)
            .unwrap();
        assert!(noon.abs() < 0.6, "{noon}");
    }

    #[test]
    fn the_first_visit_of_all_is_as_exact_as_later_ones() {
        let mut season: Season<SLOTS> = Season::new();
        (0..1800).for_each(|second| season.learn(second, 1e6 + 3.0, 1e6, 1.0, 0.5));
        season.learn(6 * 3600, 1e6, 1e6, 1.0, 0.5);
        let off = season.residual(60, 1e6 + 3.0).unwrap();
        assert!(off.abs() < 0.1, "{off}");
    }

    #[test]
    fn packing_loses_four_parts_in_a_thousand() {
        for value in [0.0, 1.0, -3.7e-9, 1.3e30, -65.43] {
            assert!(
                (unpack(pack(value)) - value).abs() <= 0.004 * value.abs(),
                "{value}"
            );
        }
        assert!(unpack(pack(f32::NAN)).is_nan());
        assert!(unpack(pack(f32::INFINITY)).is_nan());
    }
}
