//! Progress while it runs: a line that counts on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Show {
    begun: Instant,
    terminal: bool,
    waiting: bool,
}

impl Show {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            waiting: false,
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        self.clear();
        say(&format!("[{:5.1}s] {text}\n", self.seconds()));
    }

    /// What is waited for; gone with the next line. Nothing where nobody watches.
    pub(crate) fn wait(&mut self, text: &str) {
        if self.terminal {
            self.clear();
            say(&format!("[{:5.1}s] ... {text}", self.seconds()));
            self.waiting = true;
        }
    }

    /// A paragraph without a time.
    pub(crate) fn text(&mut self, text: &str) {
        self.clear();
        say(&format!("{text}\n"));
    }

    fn clear(&mut self) {
        if self.waiting {
            say("\r\x1b[K");
            self.waiting = false;
        }
    }
}

/// A reader that went away does not stop the demo.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
