//! Streaming detectors: a sample in, a verdict out, nothing allocated.
//!
//! | module | asks | state (64-bit host) |
//! | --- | --- | --- |
//! | [`bank`] | is anything about this metric unusual, by all of its own past? | 0.4 KiB |
//! | [`slope`] | does this value grow without end, and when does it hit its limit? | 1 KiB |
//! | [`forecast`] | when does a value that grows slowly reach its limit? | 1.5 KiB |
//! | [`hang`] | does this process still answer, or is the machine merely busy? | 0.6 KiB |
//! | [`joint`] | is this combination of values of several sensors usual, and which is not? | 0.4 KiB for 8 |
//! | [`change`] | when did several sensors change together? | 1.2 KiB for 8 |
//! | [`shape`] | does the course of this value look like any it took before? | 12 KiB for 3000 |
//! | [`drift`] | do values still come from the distribution they used to? | 0.2 KiB |
//!
//! In go samples and times, out come verdicts; what to do about a verdict is
//! the caller's. No IO, no clock, no randomness, no allocation, single
//! precision: the same code runs on a node and on a Cortex-M4.
//!
//! Times are [`core::time::Duration`]s since boot, on a clock that never steps
//! back. They are not the vocabulary's `Micros`, because that crate links
//! `alloc`, which would force an allocator on the firmware.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod bank;
pub mod change;
pub mod drift;
pub mod forecast;
pub mod hang;
pub mod joint;
pub mod shape;
pub mod slope;

/// The median, in place. `None` for no values; all of them must be finite.
///
/// Selection, not sorting: linear on average.
fn median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    let upper = *upper;
    if odd {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f32::total_cmp)?;
    Some(lower + (upper - lower) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_even_and_odd_counts() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [4.0, 1.0]), Some(2.5));
        assert_eq!(median(&mut [9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&mut [9.0, 1.0, 5.0, 7.0]), Some(6.0));
    }
}
