//! What is wrong with a configuration file: where, what stands there, and what
//! may stand there instead.
//!
//! Takes problems as they are found and keeps them all, so that a person fixes
//! a file in one go. Prints them; does not decide what happens next.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Longest piece of the file that is quoted in a message.
const QUOTE_MAX: usize = 48;

/// Most problems that are kept; a file in the wrong format would otherwise
/// fill the screen.
const PROBLEMS_MAX: usize = 64;

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1.
    pub line: usize,
    /// Path of the key, such as `service[1].probe[0].period`; empty for the
    /// file as a whole.
    pub key: String,
    /// What stands there, as written; empty when something is missing.
    pub value: String,
    /// What is allowed there.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
            if !self.value.is_empty() {
                write!(f, " = {}", self.value)?;
            }
            write!(f, ": ")?;
        }
        f.write_str(&self.wanted)
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file could not be read at all.
    #[error("cannot read the configuration {}", file.display())]
    Read {
        /// The file asked for.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file was read and is wrong; in the order of its lines.
    #[error("{}", Listed { file, problems, dropped: *dropped })]
    Wrong {
        /// The file asked for.
        file: PathBuf,
        /// What is wrong with it.
        problems: Vec<Problem>,
        /// Problems beyond those listed.
        dropped: usize,
    },
}

struct Listed<'a> {
    file: &'a PathBuf,
    problems: &'a [Problem],
    dropped: usize,
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{problem}", self.file.display())?;
        }
        if self.dropped > 0 {
            write!(
                f,
                "\n{}: {} more problems",
                self.file.display(),
                self.dropped
            )?;
        }
        Ok(())
    }
}

/// Collects problems while a text is read, and remembers where each key stood,
/// so that checks across keys can point at the right line later.
#[derive(Debug)]
pub(super) struct Problems<'t> {
    text: &'t str,
    seen: Vec<(String, Range<usize>)>,
    found: Vec<Problem>,
    dropped: usize,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            seen: Vec::new(),
            found: Vec::new(),
            dropped: 0,
        }
    }

    /// Notes that the value of `key` stands at `span`.
    pub(super) fn saw(&mut self, key: &str, span: Range<usize>) {
        self.seen.push((key.to_owned(), span));
    }

    /// Whether `key` was seen.
    pub(super) fn has(&self, key: &str) -> bool {
        self.seen.iter().any(|(seen, _)| seen == key)
    }

    /// The value of `key`, seen before, is not what is `wanted`.
    pub(super) fn at(&mut self, key: &str, wanted: impl Into<String>) {
        let span = self.seen.iter().find(|(seen, _)| seen == key);
        let (line, value) = match span {
            Some((_, span)) => (self.line(span.start), self.quote(span)),
            None => (1, String::new()),
        };
        self.push(line, key.to_owned(), value, wanted.into());
    }

    /// `key` is missing from the table that starts at `start`.
    pub(super) fn missing(&mut self, start: usize, key: &str, wanted: impl Into<String>) {
        let line = self.line(start);
        self.push(line, key.to_owned(), String::new(), wanted.into());
    }

    /// The text at `start` is not TOML, or a key that is not known.
    pub(super) fn text_at(&mut self, start: usize, key: String, wanted: impl Into<String>) {
        let line = self.line(start);
        self.push(line, key, String::new(), wanted.into());
    }

    pub(super) fn none(&self) -> bool {
        self.found.is_empty()
    }

    /// Ends the collection; problems come in the order of their lines.
    pub(super) fn into_error(mut self, file: PathBuf) -> ConfigErrors {
        self.found.sort_by_key(|problem| problem.line);
        ConfigErrors::Wrong {
            file,
            problems: self.found,
            dropped: self.dropped,
        }
    }

    fn push(&mut self, line: usize, key: String, value: String, wanted: String) {
        if self.found.len() >= PROBLEMS_MAX {
            self.dropped += 1;
            return;
        }
        self.found.push(Problem {
            line,
            key,
            value,
            wanted,
        });
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn quote(&self, span: &Range<usize>) -> String {
        let text = self.text.get(span.clone()).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let mut quoted: String = first.chars().take(QUOTE_MAX).collect();
        if quoted.len() < text.len() {
            quoted.push_str("...");
        }
        quoted
    }
}
