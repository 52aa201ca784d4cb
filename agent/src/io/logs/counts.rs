//! Counts the templates of one window, in bounded memory.

use homeostat_common::ids::ServiceId;
use homeostat_common::observation::{Level, LogCount};
use homeostat_templates::Merge;

/// Templates kept of one service in one window. A service in trouble repeats a few;
/// one that has more writes prose, which no count explains.
pub const TEMPLATES_MAX: usize = 64;

/// What one service wrote since the last [`take`](Self::take).
#[derive(Debug)]
pub struct Counts {
    service: Option<ServiceId>,
    counts: Vec<LogCount>,
    window: Window,
}

/// How much was written in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Lines.
    pub lines: u32,
    /// Lines of level error.
    pub errors: u32,
    /// Templates that this node had never seen.
    pub new: u32,
    /// Lines that found no room among the counts.
    pub uncounted: u32,
}

impl Counts {
    /// Nothing counted yet; `None` for the node.
    #[must_use]
    pub fn new(service: Option<ServiceId>) -> Self {
        Self {
            service,
            counts: Vec::new(),
            window: Window::default(),
        }
    }

    /// Whose lines these are.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceId> {
        self.service.as_ref()
    }

    /// Counts a line of `level`.
    pub fn add(&mut self, line: &homeostat_templates::Line<'_>, level: Level) {
        let window = &mut self.window;
        window.lines = window.lines.saturating_add(1);
        window.errors = window
            .errors
            .saturating_add(u32::from(level >= Level::Error));
        window.new = window.new.saturating_add(u32::from(line.new));
        let known = self.counts.iter_mut().find(|c| c.template == line.template);
        if let Some(known) = known {
            known.count = known.count.saturating_add(1);
            known.level = known.level.max(level);
            // Words of it may have come to vary since.
            if known.text != line.text {
                line.text.clone_into(&mut known.text);
            }
        } else if self.counts.len() < TEMPLATES_MAX {
            self.counts.push(LogCount {
                service: self.service.clone(),
                template: line.template,
                text: line.text.to_owned(),
                level,
                count: 1,
            });
        } else {
            window.uncounted = window.uncounted.saturating_add(1);
        }
    }

    /// Two templates have become one: so do their counts.
    pub fn merge(&mut self, merge: Merge) {
        let Some(from) = self.counts.iter().position(|c| c.template == merge.from) else {
            return;
        };
        let mut from = self.counts.swap_remove(from);
        match self.counts.iter_mut().find(|c| c.template == merge.into) {
            Some(into) => {
                into.count = into.count.saturating_add(from.count);
                into.level = into.level.max(from.level);
            }
            None => {
                from.template = merge.into;
                self.counts.push(from);
            }
        }
    }

    /// Ends the window.
    pub fn take(&mut self) -> (Vec<LogCount>, Window) {
        (
            std::mem::take(&mut self.counts),
            std::mem::take(&mut self.window),
        )
    }
}
