//! Which connections a route admits: a rate, and addresses that are refused.
//!
//! In goes the source of a new connection, out comes whether it is let in. The
//! rate is a token bucket that holds a tenth of a second, so that a burst is
//! spread and not punished. Pure: no sockets, no clock.

use std::net::IpAddr;

use homeostat_common::net::SourceNet;
use homeostat_common::units::{Micros, PerSecond};

/// Most ranges refused at once by one route; each is compared with each new
/// connection.
pub(super) const BLOCKED_MAX: usize = 64;

/// What the bucket holds, in microseconds of the rate.
const BURST_US: u64 = 100_000;

#[derive(Debug, Default)]
pub(super) struct Admission {
    rate: Option<PerSecond>,
    blocked: Vec<SourceNet>,
    /// Tokens in millionths: one microsecond at a rate of 1/s gives one.
    tokens: u64,
    filled: Micros,
    /// Connections that were not let in.
    pub(super) turned_away: u64,
}

/// What one connection takes from the bucket.
const TOKEN: u64 = 1_000_000;

impl Admission {
    pub(super) fn rate(&self) -> Option<PerSecond> {
        self.rate
    }

    pub(super) fn blocked(&self) -> &[SourceNet] {
        &self.blocked
    }

    pub(super) fn limit(&mut self, rate: Option<PerSecond>) {
        self.rate = rate;
        self.tokens = TOKEN;
    }

    /// Refuses a range from now on, or admits it again.
    pub(super) fn block(&mut self, net: SourceNet, on: bool) -> Result<(), String> {
        let place = self.blocked.iter().position(|it| *it == net);
        match (on, place) {
            (true, None) if self.blocked.len() >= BLOCKED_MAX => {
                return Err(format!(
                    "{BLOCKED_MAX} ranges of addresses are refused already"
                ));
            }
            (true, None) => self.blocked.push(net),
            (false, Some(place)) => {
                self.blocked.remove(place);
            }
            (true, Some(_)) | (false, None) => {}
        }
        Ok(())
    }

    /// Whether a connection is let in.
    pub(super) fn admits(&mut self, source: Option<IpAddr>, now: Micros) -> bool {
        let refused = source.is_some_and(|it| self.blocked.iter().any(|net| net.holds(it)));
        let admitted = !refused && self.take(now);
        self.turned_away += u64::from(!admitted);
        admitted
    }

    fn take(&mut self, now: Micros) -> bool {
        let Some(rate) = self.rate.map(|rate| u64::from(rate.get())) else {
            return true;
        };
        let most = rate.saturating_mul(BURST_US).max(TOKEN);
        let earned = (now - self.filled).saturating_mul(rate);
        self.filled = now;
        self.tokens = self.tokens.saturating_add(earned).min(most);
        let enough = self.tokens >= TOKEN;
        if enough {
            self.tokens -= TOKEN;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_time_and_a_burst_is_cut() {
        let mut admission = Admission::default();
        assert!((0..9_999).all(|_| admission.admits(None, Micros(7))));
        admission.limit(PerSecond::new(50).ok());
        let mut let_in = 0;
        for ms in 0..10_000 {
            let_in += u32::from(admission.admits(None, Micros(ms * 1000)));
        }
        assert!((498..=502).contains(&let_in), "{let_in}");
        let burst = (0..100)
            .filter(|_| admission.admits(None, Micros(60_000_000)))
            .count();
        assert_eq!(burst, 5, "a tenth of a second");
        admission.limit(None);
        assert!(admission.admits(None, Micros(60_000_000)));
    }

    #[test]
    fn a_refused_range_stays_out_until_it_is_admitted() {
        let mut admission = Admission::default();
        let net: SourceNet = "10.1.0.0/16".parse().unwrap();
        let inside = Some("10.1.2.3".parse().unwrap());
        admission.block(net, true).unwrap();
        admission.block(net, true).unwrap();
        assert!(!admission.admits(inside, Micros(0)));
        assert!(admission.admits(Some("10.2.0.1".parse().unwrap()), Micros(0)));
        assert_eq!(admission.turned_away, 1);
        admission.block(net, false).unwrap();
        assert!(admission.admits(inside, Micros(0)));
        for n in 0..BLOCKED_MAX {
            let net = SourceNet::new(IpAddr::from([10, 9, 0, u8::try_from(n).unwrap()]), 32);
            admission.block(net.unwrap(), true).unwrap();
        }
        assert!(admission.block(net, true).is_err());
    }
}
