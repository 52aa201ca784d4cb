//! How much processor a service has used over the last seconds.
//!
//! In go the samples of one process; out comes their mean, when it is above a
//! limit and was so for most of the time. Whether that is a fault, and what the
//! limit is, is for others to say.

use std::collections::VecDeque;

use homeostat_common::units::{Micros, Millis, narrow};

/// How long a process may use more than its share of the processors: a request
/// that takes longer, or a model that is being loaded, is none that spins.
pub const HOG_SPAN: Millis = Millis::secs(3);

/// Samples of which a mean is taken: those of [`HOG_SPAN`] at the shortest period.
const CPU_SAMPLES_MAX: usize = 64;

/// The mean use of processors over the last while: a single sample is as rough as
/// the kernel's tick, and shows what others took at that moment.
#[derive(Debug, Clone, Default)]
pub struct CpuWindow {
    /// When each sample was taken, and the cores used since the one before.
    samples: VecDeque<(Micros, f32)>,
}

impl CpuWindow {
    /// Takes a sample in.
    pub fn push(&mut self, now: Micros, cores: f32) {
        if self.samples.len() == CPU_SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, cores));
        // The oldest one only says where the window begins.
        let from = Micros(now.0.saturating_sub(HOG_SPAN.0 * 1000));
        while self.samples.get(1).is_some_and(|(at, _)| *at <= from) {
            self.samples.pop_front();
        }
    }

    /// The mean over [`HOG_SPAN`], when it is above `limit` and no short burst made
    /// it so: in nine tenths of the time at least half of the limit was used.
    #[must_use]
    pub fn above(&self, limit: f32) -> Option<f32> {
        let ((first, _), (last, _)) = (self.samples.front()?, self.samples.back()?);
        if last.since(*first) < HOG_SPAN {
            return None;
        }
        let (mut sum, mut busy) = (0.0, 0.0);
        for (before, (at, cores)) in self.samples.iter().zip(self.samples.iter().skip(1)) {
            let span = at.since(before.0).as_secs_f64();
            sum += f64::from(*cores) * span;
            if *cores >= limit / 2.0 {
                busy += span;
            }
        }
        let whole = last.since(*first).as_secs_f64();
        let mean = narrow(sum / whole);
        (mean > limit && busy >= 0.9 * whole).then_some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_no_hog_and_one_that_is_kept_waiting_is() {
        let above = |cores: &dyn Fn(u64) -> f32| {
            let mut window = CpuWindow::default();
            (0..40u64)
                .map(|quarter| {
                    window.push(Micros(quarter * 250_000), cores(quarter));
                    window.above(0.5)
                })
                .position(|above| above.is_some())
        };
        assert_eq!(above(&|_| 0.4), None);
        // A model that is loaded: a whole core for two seconds.
        assert_eq!(
            above(&|quarter| if (10..18).contains(&quarter) {
                1.0
            } else {
                0.1
            }),
            None
        );
        // It spins, and gets what others leave it.
        let kept_waiting = |quarter| if quarter % 5 == 0 { 0.3 } else { 0.65 };
        assert_eq!(above(&kept_waiting), Some(12));
        let from_ten = above(&|quarter| if quarter >= 10 { 0.9 } else { 0.0 });
        assert_eq!(from_ten, Some(20), "two and a half seconds later");
    }
}
