//! What became of the requests of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Histogram;
use crate::clock::Moment;

/// Seconds that are kept apart: a day. What comes later counts in the totals only.
const SECONDS_MAX: usize = 86_400;
/// Lost requests that are kept one by one: half an hour of an outage at 50 a second.
const LOST_MAX: usize = 100_000;
/// Versions that are counted apart.
const VERSIONS_MAX: usize = 64;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Nobody listened.
    Refused,
    /// The connection broke before the answer was whole.
    Reset,
    /// No answer by the deadline.
    Timeout,
    /// Another status than 200.
    Status(u16),
    /// Not an answer of the gateway.
    Malformed,
    /// The answer to somebody else's request.
    WrongId,
    /// Not what the named version of the model answers.
    WrongOutputs,
    /// A version that nobody vouched for.
    UnknownVersion,
    /// This client had no thread left.
    Overload,
    /// Trouble of the operating system.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(code) => write!(f, "status {code}"),
            Self::Malformed => f.write_str("malformed"),
            Self::WrongId => f.write_str("wrong id"),
            Self::WrongOutputs => f.write_str("wrong outputs"),
            Self::UnknownVersion => f.write_str("unknown version"),
            Self::Overload => f.write_str("client overload"),
            Self::Other => f.write_str("other"),
        }
    }
}

/// Counts of the requests planned within one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub ok: u32,
    pub late: u32,
    pub failed: u32,
}

/// A request that was late or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub planned: Moment,
    /// `None` when it was only late.
    pub cause: Option<Cause>,
}

/// What became of all requests; each is `ok`, `late` or failed.
#[derive(Clone, Debug)]
pub struct Report {
    pub begun: Moment,
    pub ok: u64,
    pub late: u64,
    pub failed: BTreeMap<Cause, u64>,
    /// From [`Report::begun`] on.
    pub seconds: Vec<Second>,
    /// Of what was answered rightly, late or not, from the planned moment.
    pub latency: Histogram,
    /// Right answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// In the order in which it became known; the first 100,000.
    pub losses: Vec<Lost>,
}

impl Report {
    pub(super) fn new(begun: Moment) -> Self {
        Self {
            begun,
            ok: 0,
            late: 0,
            failed: BTreeMap::new(),
            seconds: Vec::new(),
            latency: Histogram::default(),
            versions: BTreeMap::new(),
            losses: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        planned: Moment,
        outcome: Result<String, Cause>,
        took: Duration,
        late: bool,
    ) {
        let second = usize::try_from((planned - self.begun).as_secs()).unwrap_or(SECONDS_MAX);
        if second < SECONDS_MAX && second >= self.seconds.len() {
            self.seconds.resize(second + 1, Second::default());
        }
        let mut spare = Second::default();
        let second = self.seconds.get_mut(second).unwrap_or(&mut spare);
        let lost = match outcome {
            Ok(version) => {
                self.latency.add(took);
                if self.versions.len() < VERSIONS_MAX || self.versions.contains_key(&version) {
                    *self.versions.entry(version).or_default() += 1;
                }
                if late {
                    self.late += 1;
                    second.late += 1;
                } else {
                    self.ok += 1;
                    second.ok += 1;
                }
                late.then_some(None)
            }
            Err(cause) => {
                *self.failed.entry(cause).or_default() += 1;
                second.failed += 1;
                Some(Some(cause))
            }
        };
        if let Some(cause) = lost
            && self.losses.len() < LOST_MAX
        {
            self.losses.push(Lost { planned, cause });
        }
    }

    /// All requests whose fate is known.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.ok + self.lost()
    }

    /// Late and failed ones.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.late + self.failed.values().sum::<u64>()
    }

    /// Late and failed ones planned from `from` until before `to`.
    #[must_use]
    pub fn lost_within(&self, from: Moment, to: Moment) -> usize {
        let within = |lost: &&Lost| from <= lost.planned && lost.planned < to;
        self.losses.iter().filter(within).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} ok, {} late",
            self.sent(),
            self.ok,
            self.late
        )?;
        for (cause, count) in &self.failed {
            write!(f, ", {count} {cause}")?;
        }
        for percent in [50.0, 95.0, 99.0] {
            if let Some(span) = self.latency.percentile(percent) {
                write!(f, ", p{percent} {:.1} ms", span.as_secs_f64() * 1e3)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_counted_once_and_in_its_window() {
        let begun = Moment::from_micros(1_000_000);
        let at = |ms| begun + Duration::from_millis(ms);
        let mut report = Report::new(begun);
        let quick = Duration::from_millis(3);
        report.add(at(100), Ok("a".into()), quick, false);
        report.add(at(900), Ok("a".into()), quick * 100, true);
        report.add(at(2_500), Err(Cause::Status(503)), quick, false);
        assert_eq!(
            (report.sent(), report.ok, report.late, report.lost()),
            (3, 1, 1, 2)
        );
        let second = |ok, late, failed| Second { ok, late, failed };
        assert_eq!(
            report.seconds,
            [second(1, 1, 0), second(0, 0, 0), second(0, 0, 1)]
        );
        assert_eq!(report.lost_within(at(0), at(900)), 0);
        assert_eq!(report.lost_within(at(900), at(2_500)), 1);
        assert_eq!(report.lost_within(at(900), at(2_501)), 2);
        assert_eq!(report.versions["a"], 2);
        assert!(
            report
                .to_string()
                .starts_with("3 sent, 1 ok, 1 late, 1 status 503")
        );
    }
}
