//! How long a request stays with a service.
//!
//! In go the number of servers, their rate and how busy they are; out come mean and
//! variance of the time to the answer, by the formulas for M/M/c, exact; and a 95th
//! percentile from the two, by a gamma fit. Near saturation, where the formulas speak of
//! an equilibrium that takes minutes to come about, the backlog of a fluid takes over.

/// Up to here the equilibrium of M/M/c holds; above it the backlog is what is waited
/// for. At 0.98 one server reaches equilibrium after some 2,500 service times, a minute
/// and more.
pub(crate) const BUSY_MAX: f64 = 0.98;

/// Mean and variance of a time, in the unit of `1 / mu`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Time {
    /// Its mean.
    pub mean: f64,
    /// Its variance.
    pub variance: f64,
}

impl Time {
    /// A bound for those that take no longer than `limit`: the mean is at most that, and as it is
    /// where hardly any are later (not the mean under the condition, which lies lower).
    #[must_use]
    pub fn within(self, limit: f64) -> Self {
        Self {
            mean: self.mean.min(limit),
            // No more is possible within.
            variance: self.variance.min(0.25 * limit * limit),
        }
    }
}

/// The share of requests that have to wait for one of `servers`, each busy for a share
/// `r` of its time (Erlang C). Exact: the recursion runs over the inverse of Erlang B,
/// which needs one division; its cost is linear in the servers.
#[must_use]
#[inline]
pub fn waiting(servers: u32, r: f64) -> f64 {
    let inverse_load = 1.0 / (f64::from(servers) * r);
    let mut inverse_b = 1.0;
    let mut server = 0.0;
    for _ in 0..servers {
        server += 1.0;
        inverse_b = 1.0 + inverse_b * (server * inverse_load);
    }
    1.0 / (inverse_b * (1.0 - r) + r)
}

/// The time from arrival to answer at `servers` of rate `mu`, each busy for a share `r`
/// of its time, in equilibrium (M/M/c, first come first served); `backlog` requests
/// wait already for each server. The longer of the two waits counts, never both.
#[must_use]
#[inline]
pub fn sojourn(servers: u32, mu: f64, r: f64, backlog: f64) -> Time {
    let service = 1.0 / mu;
    let r = r.min(BUSY_MAX);
    let waiting = waiting(servers, r);
    // Whoever waits does so for an exponential time.
    let scale = service / (f64::from(servers) * (1.0 - r));
    let wait = waiting * scale;
    let fluid = backlog * service;
    if fluid > wait {
        Time {
            mean: service + fluid,
            variance: service * service * (1.0 + backlog),
        }
    } else {
        Time {
            mean: service + wait,
            variance: service * service + waiting * (2.0 - waiting) * scale * scale,
        }
    }
}

/// Share of times of this mean and variance that are longer than `limit`, were they gamma
/// distributed (Wilson and Hilferty 1931).
#[must_use]
pub fn later(time: Time, limit: f64) -> f64 {
    let above = limit - time.mean;
    // Ten deviations beyond an exponential time are 2e-5.
    if time.mean <= 0.0 || (above > 0.0 && 100.0 * time.variance < above * above) {
        return 0.0;
    }
    let ninth = ninth(time);
    if ninth <= 0.0 {
        return if above < 0.0 { 1.0 } else { 0.0 };
    }
    let z = (libm::cbrt(limit / time.mean) - 1.0 + ninth) / ninth.sqrt();
    0.5 * libm::erfc(z * core::f64::consts::FRAC_1_SQRT_2)
}

/// A ninth of the inverse of a gamma's shape. Above four times the mean as a deviation it
/// would have most of its weight at 0: as wide as that at most.
fn ninth(time: Time) -> f64 {
    (time.variance / (time.mean * time.mean)).min(16.0) / 9.0
}

/// The 95th percentile of a time of this mean and variance, were it gamma distributed
/// (Wilson and Hilferty 1931): off by less than 1 % of the gamma quantile where the
/// deviation is no larger than the mean, by 2.5 % at 1.4 times the mean.
#[must_use]
pub fn p95(time: Time) -> f64 {
    /// The same percentile of the normal distribution.
    const Z: f64 = 1.644_853_626_951_472_2;
    if time.mean <= 0.0 || time.variance <= 0.0 {
        return time.mean.max(0.0);
    }
    let ninth = ninth(time);
    let root = 1.0 - ninth + Z * ninth.sqrt();
    time.mean * (root * root * root).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Erlang C by its definition, from sums of powers over factorials.
    fn by_definition(servers: u32, r: f64) -> f64 {
        let load = f64::from(servers) * r;
        let mut term = 1.0;
        let mut sum = 0.0;
        for k in 0..servers {
            sum += term;
            term *= load / f64::from(k + 1);
        }
        let last = term / (1.0 - r);
        last / (sum + last)
    }

    #[test]
    fn the_sojourn_is_that_of_erlang_c() {
        for servers in 1..=16 {
            for busy in 1..=95 {
                let r = f64::from(busy) / 100.0;
                let expected = 1.0 + by_definition(servers, r) / (f64::from(servers) * (1.0 - r));
                let ours = sojourn(servers, 1.0, r, 0.0).mean;
                assert!((ours / expected - 1.0).abs() < 1e-12, "{servers} {r}");
            }
        }
    }

    /// A queue played request by request: the variance is right too, and the percentile
    /// is that of the requests, although their times are no gamma.
    #[test]
    fn a_queue_played_request_by_request_agrees() {
        for (servers, r) in [(1, 0.5), (1, 0.9), (3, 0.7), (8, 0.9)] {
            let mut chance = fastrand::Rng::with_seed(7);
            let mut draw = |mean: f64| -mean * libm::log(1.0 - chance.f64());
            let mut free = vec![0.0_f64; servers as usize];
            let mut now = 0.0;
            let mut times = Vec::new();
            for _ in 0..400_000 {
                now += draw(1.0 / (f64::from(servers) * r));
                let first = (0..free.len()).min_by(|a, b| free[*a].total_cmp(&free[*b]));
                let first = first.expect("there are servers");
                free[first] = free[first].max(now) + draw(1.0);
                times.push(free[first] - now);
            }
            let n = times.len() as f64;
            let mean = times.iter().sum::<f64>() / n;
            let variance = times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
            times.sort_by(f64::total_cmp);
            let ours = sojourn(servers, 1.0, r, 0.0);
            assert!((ours.mean / mean - 1.0).abs() < 0.03, "{servers} {r}");
            assert!(
                (ours.variance / variance - 1.0).abs() < 0.1,
                "{servers} {r}"
            );
            let measured = times[times.len() / 100 * 95];
            assert!((p95(ours) / measured - 1.0).abs() < 0.06, "{servers} {r}");
        }
    }

    #[test]
    fn idle_and_overloaded_servers_have_finite_times() {
        assert_eq!(sojourn(4, 2.0, 0.0, 0.0).mean, 0.5);
        let over = sojourn(4, 2.0, f64::INFINITY, 100.0);
        assert_eq!(over.mean, 0.5 + 50.0);
        assert!(over.variance.is_finite());
        assert_eq!(waiting(64, 1e-9), 0.0);
    }

    #[test]
    fn the_percentile_is_that_of_a_gamma() {
        for (variance, expected, within) in [(1.0, 2.995_732, 0.01), (0.25, 1.938_412, 0.002)] {
            let time = Time {
                mean: 1.0,
                variance,
            };
            assert!((p95(time) / expected - 1.0).abs() < within, "{variance}");
        }
        assert_eq!(p95(Time::default()), 0.0);
    }

    #[test]
    fn one_in_twenty_is_later_than_the_percentile() {
        for variance in [0.01, 0.25, 1.0, 4.0] {
            let time = Time {
                mean: 1.0,
                variance,
            };
            assert!((later(time, p95(time)) - 0.05).abs() < 1e-9, "{variance}");
        }
        let exponential = Time {
            mean: 1.0,
            variance: 1.0,
        };
        for limit in [0.1_f64, 0.5, 1.0, 3.0, 6.0] {
            let off = later(exponential, limit) - libm::exp(-limit);
            assert!(off.abs() < 0.012, "{limit} {off}");
        }
        assert_eq!(later(exponential, 11.5), 0.0);
        assert_eq!(later(Time::default(), 1.0), 0.0);
        let always = Time {
            mean: 2.0,
            variance: 0.0,
        };
        assert_eq!([later(always, 1.0), later(always, 3.0)], [1.0, 0.0]);
    }
}
