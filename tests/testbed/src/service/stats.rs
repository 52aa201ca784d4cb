//! What a service counts about itself, and its page of metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::seen::Seen;

/// What a fault shows as the queue's length.
pub(super) const BAD_DEPTH: u64 = 900;

#[derive(Debug)]
pub(super) struct Stats {
    name: &'static str,
    started: Instant,
    requests: AtomicU64,
    errors: AtomicU64,
    /// Requests in work.
    busy: AtomicU64,
    /// What waits to be done later, such as messages for a broker that is away.
    pub(super) queued: AtomicU64,
    /// What was given up because the queue was full.
    pub(super) dropped: AtomicU64,
    /// What a model is asked and answers.
    pub(super) seen: Seen,
}

/// A request in work, to be given to [`Stats::end`].
pub(super) struct Busy(());

impl Default for Stats {
    fn default() -> Self {
        Self::new("unit")
    }
}

impl Stats {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            started: Instant::now(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            seen: Seen::default(),
        }
    }

    pub(super) fn begin(&self) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(())
    }

    pub(super) fn end(&self, Busy(()): Busy, code: u16) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        if code >= 500 {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// In the text format of Prometheus. The scrape itself is a request, so a page that is
    /// the same twice was not counted by anybody.
    pub(super) fn page(&self) -> String {
        let depth = self.busy.load(Ordering::Relaxed) + self.queued.load(Ordering::Relaxed);
        self.page_with(depth) + &self.seen.page()
    }

    fn page_with(&self, depth: u64) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (name, uptime) = (self.name, self.started.elapsed().as_secs_f64());
        let (requests, errors) = (load(&self.requests), load(&self.errors));
        let dropped = load(&self.dropped);
        format!(
            "# HELP requests_total Requests taken.\n# TYPE requests_total counter\n\
             requests_total{{service=\"{name}\"}} {requests}\n\
             # HELP errors_total Requests answered with 5xx.\n# TYPE errors_total counter\n\
             errors_total{{service=\"{name}\"}} {errors}\n\
             # HELP dropped_total Messages given up.\n# TYPE dropped_total counter\n\
             dropped_total{{service=\"{name}\"}} {dropped}\n\
             # HELP queue_depth Requests in work and messages that wait.\n\
             # TYPE queue_depth gauge\nqueue_depth{{service=\"{name}\"}} {depth}\n\
             # HELP uptime_seconds Since the start.\n# TYPE uptime_seconds gauge\n\
             uptime_seconds{{service=\"{name}\"}} {uptime:.3}\n"
        )
    }
}

/// `page` with the queue's length of a service in trouble.
pub(super) fn spoiled(page: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some((name, _)) if name.starts_with("queue_depth") => format!("{name} {BAD_DEPTH}\n"),
        _ => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_counts_and_a_spoiled_one_differs_in_one_line() {
        let stats = Stats::new("web");
        let first = stats.begin();
        stats.end(first, 503);
        let _second = stats.begin();
        let page = stats.page();
        for line in [
            "requests_total{service=\"web\"} 2",
            "errors_total{service=\"web\"} 1",
            "queue_depth{service=\"web\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{page}");
        }
        let spoiled = spoiled(&page);
        assert_eq!(spoiled.lines().count(), page.lines().count());
        let differs = page.lines().zip(spoiled.lines()).filter(|(a, b)| a != b);
        let differs: Vec<_> = differs.map(|(_, line)| line).collect();
        assert_eq!(differs, ["queue_depth{service=\"web\"} 900"]);
    }
}
