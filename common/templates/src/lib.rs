//! Finds what log lines have in common: the template miner.
//!
//! In go lines, one after the other, out comes for each the id and text of its template, its
//! level and its variable parts. One pass, one configuration for all logs, all memory taken
//! at construction, no clock and no IO.
//!
//! A line is cut into words of which those vary that look like it ([`lex`]); a sequence of
//! words that was seen before is found by its hash, without touching its text. A new one
//! becomes a template of its own, unless it fits one whose words vary already, as in Drain
//! (He et al. 2017). Then it is compared with its likes, lines of as many words that begin
//! with the same word: where several templates differ in the same few words only, those words
//! are a variable once there are enough of them ([`Thresholds`]): three names after a noun as
//! `user`, but more words of prose, and those only if new ones keep coming (Heaps' law: of n
//! words of an open class about the square root of n are distinct; "started" and "stopped"
//! stay two however often they are seen). A first word never varies by count.
//!
//! An id is the hash of the text that a template had when it was new, so that the same first
//! line gives the same id on every node and in every version. When templates become one, the
//! older id stays and the [`Merge`] is reported.
//!
//! Blind to: variables in the first word, and free text, of which each line is its own.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod lex;
mod likes;
mod param;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod vocabulary;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;

use homeostat_common::observation::Level;
use serde::{Deserialize, Serialize};

pub use self::lex::{LINE_MAX, MASK, PARAMS_MAX, WORDS_MAX};
pub use self::param::{Param, Params};
pub use self::table::TEXT_MAX;

use self::lex::{Lexed, VARIES};
use self::table::{NONE, TOKENS, Table};
use self::text::Text;

/// FNV-1a, 64 bit: the id of a template. Written out, because it must stay the same in every
/// version of every node.
#[must_use]
pub fn hash(text: &str) -> u64 {
    hash_bytes(text.as_bytes())
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How many different words make a variable of a place in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Where a name is expected: behind a noun as `user`, alone in quotes, or a word that is
    /// built like an identifier.
    pub name: u8,
    /// The value of a key.
    pub value: u8,
    /// Anywhere else.
    pub prose: u8,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            name: 3,
            value: 12,
            prose: 12,
        }
    }
}

/// What is fixed at construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Templates kept; about a kilobyte each.
    pub templates: usize,
    /// When words become variables.
    pub thresholds: Thresholds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            templates: 1024,
            thresholds: Thresholds::default(),
        }
    }
}

/// What a line is.
#[derive(Debug)]
pub struct Line<'m> {
    /// The id of its template.
    pub template: u64,
    /// The level it states, if it does.
    pub level: Option<Level>,
    /// The first line of its template.
    pub new: bool,
    /// The template.
    pub text: &'m str,
    line: &'m [u8],
    spans: &'m [lex::Span],
}

impl Line<'_> {
    /// Its parts that vary by their looks, in order, at most [`PARAMS_MAX`].
    pub fn params(&self) -> Params<'_> {
        Params::new(self.line, self.spans)
    }
}

/// Two templates that turned out to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// The id that is given no more.
    pub from: u64,
    /// The older one, which is.
    pub into: u64,
}

/// Merges that wait to be read. One line can cause as many as templates are compared.
pub const MERGES_MAX: usize = 256;

/// What a miner did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Lines seen.
    pub lines: u64,
    /// Templates that became part of another.
    pub merged: u64,
    /// Templates forgotten to make room.
    pub forgotten: u64,
    /// Lines given to the template of rare lines, because the table was full.
    pub rare: u64,
    /// Merges that nobody read in time.
    pub unread: u64,
}

/// A template as it is kept between two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: u64,
    /// Its text.
    pub text: String,
    /// Which of its words came to vary, by place.
    pub open: u128,
    /// Lines of it.
    pub lines: u64,
    /// Its place in the order in which templates were made: to be restored in that order.
    pub born: u64,
}

/// Lines that a kept template counts at most: a damaged store may say any number, and the sum
/// over all slots must be one.
const LINES_MAX: u64 = 1 << 40;

/// First occurrences that are remembered when the table is full: a line that comes again while
/// it is among them gets a template, at the cost of one that is used less.
const WAITING_MAX: usize = 4096;

/// Upper bounds of the classes of rare lines, in words.
const RARE: [(usize, &str); 4] = [
    (4, "(rare: up to four words)"),
    (8, "(rare: up to eight words)"),
    (16, "(rare: up to sixteen words)"),
    (usize::MAX, "(rare: more than sixteen words)"),
];

/// See the head of this crate.
#[derive(Debug)]
pub struct Miner {
    thresholds: Thresholds,
    table: Table,
    lexed: Box<Lexed>,
    /// The text of the present line, as a template.
    text: Box<[u8]>,
    likes: likes::Likes,
    waiting: Box<[u32]>,
    merges: Box<[Merge]>,
    merged: usize,
    /// Templates made so far.
    births: u64,
    tally: Tally,
}

impl Miner {
    /// Takes all the memory it will ever use.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            thresholds: limits.thresholds,
            table: Table::new(limits.templates),
            lexed: Box::default(),
            text: vec![0; TEXT_MAX].into(),
            likes: likes::Likes::default(),
            waiting: vec![0; WAITING_MAX].into(),
            merges: vec![Merge { from: 0, into: 0 }; MERGES_MAX].into(),
            merged: 0,
            births: 0,
            tally: Tally::default(),
        }
    }

    /// Takes a line, without its end, in whatever encoding.
    pub fn line<'m>(&'m mut self, line: &'m [u8]) -> Line<'m> {
        let line = self.lexed.fill(line);
        self.tally.lines += 1;
        let now = self.tally.lines;
        let signature = self.lexed.signature;
        let (mut new, mut rare) = (false, None);
        let (at, level) = match self.table.known(signature) {
            Some(known) => (known.slot, known.level),
            None => {
                let level = stated(line, &self.lexed);
                match self.place(line) {
                    Placed::Found(at) => {
                        self.table.remember(signature, at, level);
                        (at, level)
                    }
                    Placed::New(at) => {
                        new = true;
                        self.table.remember(signature, at, level);
                        (at, level)
                    }
                    Placed::Rare(text) => {
                        rare = Some(text);
                        (NONE, level)
                    }
                }
            }
        };
        if let Some(slot) = self.table.slot_mut(at) {
            slot.seen = now;
            slot.lines += 1;
        }
        let (template, text) = match (rare, self.table.slot(at)) {
            (None, Some(slot)) => (slot.id, slot.text()),
            (text, _) => {
                self.tally.rare += 1;
                let text = text.unwrap_or_default();
                (hash(text), text)
            }
        };
        Line {
            template,
            level,
            new,
            text,
            line,
            spans: self.lexed.spans(),
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Templates known now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.used
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.used == 0
    }

    /// Gives out what became one since the last call, in order.
    pub fn merges(&mut self, mut each: impl FnMut(Merge)) {
        for merge in self.merges.iter().take(self.merged) {
            each(*merge);
        }
        self.merged = 0;
    }

    /// The templates, to be kept.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let used = self.table.slots.iter().filter(|slot| slot.id != 0);
        used.map(|slot| Record {
            id: slot.id,
            text: slot.text().into(),
            open: slot.open,
            lines: slot.lines,
            born: slot.born,
        })
    }

    /// Takes back a template that was kept. One that cannot be, because the table is full or
    /// it is known already, is left out; says whether it was taken.
    pub fn restore(&mut self, record: &Record) -> bool {
        if record.id == 0 || self.table.is_full() || record.text.len() > TEXT_MAX {
            return false;
        }
        let line = self.lexed.fill(record.text.as_bytes());
        let whole = self.shape(line);
        // Text that is no template, from a damaged store say.
        if whole.count == 0 || self.text.get(..whole.length) != Some(line) {
            return false;
        }
        let known = self.table.slots.iter().any(|slot| slot.id == record.id);
        if known || self.find(&whole).is_some() {
            return false;
        }
        self.add(&whole, record.id, record.open, record.lines.min(LINES_MAX))
            .is_some()
    }
}

/// Where a line with a new signature belongs.
enum Placed {
    Found(u16),
    New(u16),
    Rare(&'static str),
}

/// The present line, rendered: what a template of it would be.
#[derive(Debug, Clone, Copy)]
struct Shape {
    count: usize,
    length: usize,
    chain: u64,
}

impl Miner {
    fn place(&mut self, line: &[u8]) -> Placed {
        let shape = self.shape(line);
        if let Some(found) = self.find(&shape) {
            return Placed::Found(found);
        }
        if self.table.is_full() {
            if !self.waited() {
                let class = RARE.iter().find(|(words, _)| shape.count <= *words);
                return Placed::Rare(class.map_or(RARE[3].1, |(_, text)| *text));
            }
            self.tally.forgotten += self.table.forget_least_used() as u64;
        }
        let text = self.text.get(..shape.length).unwrap_or(&[]);
        let Some(at) = self.add(&shape, hash_bytes(text), 0, 0) else {
            return Placed::Rare(RARE[3].1);
        };
        match self.widen(line, at, &shape) {
            Some(wider) => Placed::Found(wider),
            None => Placed::New(at),
        }
    }

    /// Renders the present line and says where to look for its likes.
    fn shape(&mut self, line: &[u8]) -> Shape {
        let mut written = Text {
            bytes: &mut self.text,
            len: 0,
        };
        let (mut count, whole) = text::render(line, self.lexed.tokens(), 0, &mut written);
        let length = written.len;
        self.lexed.cut(count, whole);
        count += usize::from(!whole);
        let leader = likes::leader(line, self.lexed.tokens());
        let core = leader.map_or(0, |(_, core)| u64::from(core));
        Shape {
            count,
            length,
            chain: (core ^ (count as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20,
        }
    }

    /// The template that the present line fits.
    fn find(&mut self, shape: &Shape) -> Option<u16> {
        let mut at = self.table.chain(shape.chain);
        let tokens = self.lexed.tokens();
        while let Some(slot) = self.table.slot(at) {
            let fits = slot.chain == shape.chain
                && usize::from(slot.count) == shape.count
                && tokens
                    .iter()
                    .zip(slot.cores.iter().zip(&slot.befores))
                    .enumerate()
                    .all(|(place, (token, (core, before)))| {
                        token.before == *before && (token.core == *core || slot.is_open(place))
                    });
            if fits {
                return Some(at);
            }
            at = slot.next;
        }
        None
    }

    fn add(&mut self, shape: &Shape, id: u64, open: u128, lines: u64) -> Option<u16> {
        let at = self.table.take()?;
        let now = self.tally.lines;
        self.births += 1;
        let born = self.births;
        let tokens = self.lexed.tokens();
        let text = self.text.get(..shape.length)?;
        let slot = self.table.slot_mut(at)?;
        for (place, token) in tokens.iter().take(TOKENS).enumerate() {
            let varies = open >> place & 1 == 1;
            if let (Some(core), Some(before)) =
                (slot.cores.get_mut(place), slot.befores.get_mut(place))
            {
                *core = if varies { VARIES } else { token.core };
                *before = token.before;
            }
        }
        slot.text.get_mut(..text.len())?.copy_from_slice(text);
        slot.length = table::narrow(text.len());
        slot.count = u8::try_from(shape.count).unwrap_or(u8::MAX);
        // 0 marks a free slot.
        slot.id = id.max(1);
        slot.born = born;
        slot.seen = now;
        slot.lines = lines;
        slot.open = open;
        slot.chain = shape.chain;
        self.table.link(at);
        Some(at)
    }

    /// Whether the present line was turned away before, not long ago.
    fn waited(&mut self) -> bool {
        let signature = self.lexed.signature;
        #[allow(clippy::cast_possible_truncation)] // a place, and a mark of what stood there
        let (place, mark) = (
            signature as usize % WAITING_MAX,
            (signature >> 32) as u32 | 1,
        );
        let Some(there) = self.waiting.get_mut(place) else {
            return false;
        };
        core::mem::replace(there, mark) == mark
    }

    fn report(&mut self, merge: Merge) {
        self.tally.merged += 1;
        match self.merges.get_mut(self.merged) {
            Some(room) => {
                *room = merge;
                self.merged += 1;
            }
            None => self.tally.unread += 1,
        }
    }
}

/// The level a line states, by the first word that does.
fn stated(line: &[u8], lexed: &Lexed) -> Option<Level> {
    let tokens = lexed.tokens();
    tokens
        .iter()
        .enumerate()
        .find_map(|(at, token)| likes::stated_level(line, tokens, at, token))
}
