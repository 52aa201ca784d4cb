//! Counts the templates of one window, in bounded memory.

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::LogCount;

use super::LogLine;

/// Templates kept of one service in one window. A service in trouble repeats a few;
/// one that has more writes prose, which no count explains.
pub const TEMPLATES_MAX: usize = 64;

/// The templates one service wrote since the last [`take`](Self::take).
#[derive(Debug)]
pub struct Counts {
    service: ServiceId,
    counts: Vec<LogCount>,
    uncounted: u32,
}

impl Counts {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(service: ServiceId) -> Self {
        Self {
            service,
            counts: Vec::new(),
            uncounted: 0,
        }
    }

    /// Counts a line.
    pub fn add(&mut self, line: &LogLine<'_>) {
        let known = self.counts.iter_mut().find(|c| c.template == line.template);
        if let Some(known) = known {
            known.count = known.count.saturating_add(1);
            known.level = known.level.max(line.level);
        } else if self.counts.len() < TEMPLATES_MAX {
            self.counts.push(LogCount {
                service: self.service.clone(),
                template: line.template,
                text: line.text.to_owned(),
                level: line.level,
                count: 1,
            });
        } else {
            self.uncounted = self.uncounted.saturating_add(1);
        }
    }

    /// Ends the window: its counts, and how many lines found no room among them.
    pub fn take(&mut self) -> (Vec<LogCount>, u32) {
        (
            std::mem::take(&mut self.counts),
            std::mem::take(&mut self.uncounted),
        )
    }
}
