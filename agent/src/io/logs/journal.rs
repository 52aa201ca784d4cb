//! Follows the journal of systemd, through a child: `journalctl --follow`.
//!
//! In: its export format, which carries any bytes. Out: the message of each entry, its level,
//! and the unit that wrote it or that it is about. Where there is no `journalctl`, there is
//! no journal; where it ends, it is started again after a while, from the newest entry on.
//!
//! A child rather than a library: `libsystemd` does not link statically, and the files of the
//! journal have more forms than their documents say.

use std::io::{self, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use homeostat_common::observation::Level;
use homeostat_common::units::{Micros, Millis};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tracing::{info, warn};

/// What is run in production.
pub const PROGRAM: [&str; 7] = [
    "journalctl",
    "--follow",
    "--lines=0",
    "--quiet",
    "--no-pager",
    "--output=export",
    "--output-fields=MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,_PID",
];

/// How long to wait before it is started again: it takes a tenth of a second of a small
/// node to open a large journal.
const RETRY: Millis = Millis(60_000);

/// Looks in a row that left something unread before the rest is skipped: the newest entries
/// tell what is wrong now.
const BEHIND_MAX: u32 = 10;

/// Longest value that is kept; beyond that its bytes are passed over.
const VALUE_MAX: usize = super::tail::LINE_MAX;

/// Longest name of a field (`systemd.journal-fields(7)`), and room for its `=`.
const NAME_MAX: usize = 65;

/// Bytes per system call.
const CHUNK: usize = 4096;

/// One entry.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub message: Vec<u8>,
    /// By its priority, `None` if it has none.
    pub level: Option<Level>,
    /// The unit it is about, or that wrote it.
    pub unit: Option<String>,
    pid: Option<u32>,
    about: bool,
}

/// The child and what it said so far.
#[derive(Debug)]
pub struct Journal {
    program: Vec<String>,
    child: Option<(Child, ChildStdout)>,
    next_try: Micros,
    told: bool,
    behind: u32,
    parser: Parser,
    /// Times entries were skipped because it wrote faster than was read.
    pub skips: u32,
}

impl Journal {
    /// Of `program`, which is started with the first look.
    #[must_use]
    pub fn new(program: &[&str]) -> Self {
        Self {
            program: program.iter().map(|&word| word.to_owned()).collect(),
            child: None,
            next_try: Micros(0),
            told: false,
            behind: 0,
            parser: Parser::default(),
            skips: 0,
        }
    }

    /// Whether it is being read.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.child.is_some()
    }

    /// Reads up to `budget` bytes and gives out the entries that ended in them. What this
    /// process wrote itself is left out: it would be read again without end.
    pub fn poll(&mut self, now: Micros, budget: u64, mut each: impl FnMut(&Entry)) {
        if self.child.is_none() && now >= self.next_try {
            self.next_try = Micros(now.0.saturating_add(RETRY.0.saturating_mul(1000)));
            match start(&self.program) {
                Ok(child) => self.child = Some(child),
                Err(error) if !self.told => {
                    self.told = true;
                    info!("no journal is read: {error}");
                }
                Err(_) => {}
            }
        }
        let Some((_, pipe)) = &mut self.child else {
            return;
        };
        let own = std::process::id();
        let mut chunk = [0; CHUNK];
        let mut left = usize::try_from(budget).unwrap_or(usize::MAX);
        while left > 0 {
            let want = left.min(CHUNK);
            match pipe.read(chunk.get_mut(..want).unwrap_or_default()) {
                Ok(0) => return self.end("it has ended"),
                Ok(read) => {
                    left -= read;
                    self.parser.feed(chunk.get(..read).unwrap_or(&[]), |entry| {
                        if entry.pid != Some(own) {
                            each(entry);
                        }
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.behind = 0;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.end(&error.to_string()),
            }
        }
        self.behind += 1;
        if self.behind > BEHIND_MAX {
            self.skips = self.skips.saturating_add(1);
            self.next_try = now;
            self.end("it writes faster than it is read: entries are skipped");
        }
    }

    fn end(&mut self, why: &str) {
        warn!("journal: {why}");
        self.behind = 0;
        self.parser = Parser::default();
        if let Some((child, _)) = self.child.take() {
            stop(child);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some((child, _)) = self.child.take() {
            stop(child);
        }
    }
}

fn start(program: &[String]) -> io::Result<(Child, ChildStdout)> {
    let Some((name, words)) = program.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut child = Command::new(name)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let Some(pipe) = child.stdout.take() else {
        stop(child);
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let set = fcntl_getfl(&pipe).and_then(|flags| fcntl_setfl(&pipe, flags | OFlags::NONBLOCK));
    if let Err(errno) = set {
        stop(child);
        return Err(errno.into());
    }
    Ok((child, pipe))
}

fn stop(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads the export format: `NAME=value` lines, or `NAME` with the length of the value in
/// eight bytes, the value and a line end; an empty line ends an entry.
#[derive(Debug, Default)]
struct Parser {
    entry: Entry,
    state: State,
    name: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Name,
    Value,
    /// Bytes of the length so far, and how many.
    Length(u64, u32),
    /// Bytes of the value that are to come, then a line end.
    Binary(u64),
    LineEnd,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&Entry)) {
        for &byte in bytes {
            match (self.state, byte) {
                (State::Name, b'\n') if self.name.is_empty() => {
                    if !self.entry.message.is_empty() {
                        each(&self.entry);
                    }
                    self.entry = Entry::default();
                }
                (State::Name, b'\n') => self.state = State::Length(0, 0),
                (State::Name, b'=') => self.state = State::Value,
                (State::Name, _) => keep(&mut self.name, byte, NAME_MAX),
                (State::Value | State::LineEnd, b'\n') => self.field(),
                (State::Value, _) => keep(&mut self.value, byte, VALUE_MAX),
                (State::Length(length, count), _) => {
                    let length = length | u64::from(byte) << (8 * count);
                    self.state = match (count, length) {
                        (7, 0) => State::LineEnd,
                        (7, length) => State::Binary(length),
                        _ => State::Length(length, count + 1),
                    };
                }
                (State::Binary(left), _) => {
                    keep(&mut self.value, byte, VALUE_MAX);
                    self.state = match left {
                        0 | 1 => State::LineEnd,
                        left => State::Binary(left - 1),
                    };
                }
                // Not the format: starts anew with the next line.
                (State::LineEnd, _) => {}
            }
        }
    }

    fn field(&mut self) {
        let text = || std::str::from_utf8(&self.value).ok();
        match self.name.as_slice() {
            b"MESSAGE" => self.entry.message = std::mem::take(&mut self.value),
            b"PRIORITY" => self.entry.level = text().and_then(level),
            b"_PID" => self.entry.pid = text().and_then(|pid| pid.parse().ok()),
            // What systemd says of a unit concerns that unit.
            b"UNIT" => {
                self.entry.unit = text().map(str::to_owned);
                self.entry.about = true;
            }
            b"_SYSTEMD_UNIT" if !self.entry.about => {
                self.entry.unit = text().map(str::to_owned);
            }
            _ => {}
        }
        self.name.clear();
        self.value.clear();
        self.state = State::Name;
    }
}

fn keep(bytes: &mut Vec<u8>, byte: u8, max: usize) {
    if bytes.len() < max {
        bytes.push(byte);
    }
}

/// The levels of syslog (RFC 5424, table 2).
fn level(priority: &str) -> Option<Level> {
    match priority {
        "0" | "1" | "2" | "3" => Some(Level::Error),
        "4" => Some(Level::Warning),
        "5" | "6" => Some(Level::Info),
        "7" => Some(Level::Debug),
        _ => None,
    }
}
