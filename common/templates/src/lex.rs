//! Cuts a line into words and says which of them vary, in one pass and without memory of
//! other lines.
//!
//! A word varies if it holds a digit, or is a path, a host name, a mail address, eight or
//! more hexadecimal letters, or not text at all. Neighbours that vary become one (a list of
//! block ids, a date with its month's name, `10.0.0.7:80`, `12 MB`), so that a list of three
//! and one of four are the same. Of all other words, nothing is decided here.
//!
//! What stands between two words (brackets, quotes, `=`, arrows) belongs to the second of
//! them; how many spaces there are does not matter.

use crate::vocabulary;

/// Words of a line that count; the rest of it is one more, which varies. Longer than any
/// message of the recordings, shorter than a dump.
pub const WORDS_MAX: usize = 64;

/// Bytes of a line that are looked at: beyond stands a dump, not a message.
pub const LINE_MAX: usize = 2048;

/// What stands in a template for a part that varies.
pub const MASK: &str = "<*>";

/// Longest group of a hardware or IPv6 address.
const GROUP_MAX: usize = 4;

/// Letters that are one hexadecimal number rather than a word.
const HEX_MIN: usize = 8;

/// Odd, with bits all over: the multiplier of `FxHash`, 64 bit.
const SPREAD: u64 = 0x517c_c1b7_2722_0a95;
const SEED: u64 = 0x243f_6a88_85a3_08d3;

/// The hash of a word that varies, in whatever it varies.
pub(crate) const VARIES: u32 = 0x2a2a_2a2a;

pub(crate) const SPACE: u8 = 1;
const BREAK: u8 = 2;
const DIGIT: u8 = 4;
const HEX: u8 = 8;
const LETTER: u8 = 16;
const DOT: u8 = 32;
const SLASH: u8 = 64;
const ODD: u8 = 128;

/// What a byte is.
const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        #[allow(clippy::cast_possible_truncation)] // below 256
        let byte = at as u8;
        table[at] = match byte {
            0..=b' ' | 0x7f => SPACE,
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b',' | b';' | b'=' | b'|'
            | b'"' | b'\'' | b'`' | b':' => BREAK,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' | b'A'..=b'F' => HEX,
            b'g'..=b'z' | b'G'..=b'Z' | b'_' => LETTER,
            b'.' => DOT,
            b'/' | b'\\' => SLASH,
            b'@' | 0x80.. => ODD,
            _ => 0,
        };
        at += 1;
    }
    table
}

pub(crate) fn class(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

fn blend(hash: u64, byte: u8) -> u64 {
    (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(SPREAD)
}

fn fold(hash: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation)] // the upper half, mixed best
    let half = (hash >> 32) as u32;
    half
}

/// The hash of a word that does not vary.
pub(crate) fn word(bytes: &[u8]) -> u32 {
    fold(bytes.iter().fold(SEED, |hash, byte| blend(hash, *byte)))
}

/// One word of a line, or one run of words that vary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Token {
    /// Where it stands in the line.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// The hash of what stands before it.
    pub(crate) before: u32,
    /// Its hash, [`VARIES`] if it varies.
    pub(crate) core: u32,
    /// Only spaces, commas and the like stand before it.
    loose: bool,
    /// Grows when what follows varies too. Not so for a mask that stood in the line.
    grows: bool,
}

impl Token {
    pub(crate) fn varies(&self) -> bool {
        self.core == VARIES
    }

    pub(crate) fn bytes<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        line.get(self.start as usize..self.end as usize)
            .unwrap_or(&[])
    }
}

/// A part of a line that varies, before it is read: from, to.
pub(crate) type Span = (u32, u32);

/// Parts that vary which are remembered; those beyond are masked all the same.
pub const PARAMS_MAX: usize = 8;

/// A line in words. One is kept and filled anew for each line.
#[derive(Debug)]
pub(crate) struct Lexed {
    tokens: [Token; WORDS_MAX + 1],
    count: usize,
    spans: [Span; PARAMS_MAX],
    spanned: usize,
    /// Hash of all words and what stands between them.
    pub(crate) signature: u64,
}

impl Default for Lexed {
    fn default() -> Self {
        Self {
            tokens: [Token::default(); WORDS_MAX + 1],
            count: 0,
            spans: [(0, 0); PARAMS_MAX],
            spanned: 0,
            signature: 0,
        }
    }
}

impl Lexed {
    pub(crate) fn tokens(&self) -> &[Token] {
        self.tokens.get(..self.count).unwrap_or(&[])
    }

    pub(crate) fn spans(&self) -> &[Span] {
        self.spans.get(..self.spanned).unwrap_or(&[])
    }

    /// Keeps the first `count` words; unless they were the `whole` line, a mask stands for the
    /// rest.
    pub(crate) fn cut(&mut self, count: usize, whole: bool) {
        self.count = count.min(self.count);
        if !whole && let Some(rest) = self.tokens.get_mut(self.count) {
            *rest = Token {
                start: rest.start,
                end: rest.start,
                core: VARIES,
                before: fold(SEED),
                ..Token::default()
            };
            self.count += 1;
        }
    }

    /// Fills itself from `line`, of which no more than [`LINE_MAX`] bytes are looked at;
    /// returns those that are.
    pub(crate) fn fill<'l>(&mut self, line: &'l [u8]) -> &'l [u8] {
        let whole = line.len() <= LINE_MAX;
        let line = head(line);
        self.count = 0;
        self.spanned = 0;
        let mut at = 0;
        let mut gap = Gap::default();
        while let Some(&byte) = line.get(at) {
            let kind = class(byte);
            if kind & SPACE != 0 {
                at = after_space(line, at);
                gap.last = b' ';
            } else if kind & BREAK != 0 {
                at = self.take_break(line, at, &mut gap);
            } else {
                at = self.take_chunk(line, at, &mut gap);
                gap.last = WORD;
            }
            if self.count > WORDS_MAX {
                break;
            }
        }
        if !whole {
            self.varying(line, line.len(), line.len(), &mut gap, true);
        }
        if self.count > WORDS_MAX {
            // The last one stands for all the rest.
            if let Some(rest) = self.tokens.get_mut(WORDS_MAX) {
                *rest = Token {
                    end: index(line.len()),
                    core: VARIES,
                    before: fold(SEED),
                    ..*rest
                };
            }
            gap = Gap::default();
        }
        let mut signature = gap.hash;
        for token in self.tokens.iter().take(self.count) {
            let both = (u64::from(token.before) << 32) | u64::from(token.core);
            signature = (signature.rotate_left(23) ^ both).wrapping_mul(SPREAD);
        }
        // The upper bits are mixed best, a table takes the lower ones.
        self.signature = signature ^ (signature >> 29);
        line
    }

    /// A bracket, quote, comma and so on at `at`.
    fn take_break(&mut self, line: &[u8], at: usize, gap: &mut Gap) -> usize {
        let byte = line.get(at).copied().unwrap_or(0);
        if byte == b'<' && line.get(at..at + MASK.len()) == Some(MASK.as_bytes()) {
            self.literal(at, at + MASK.len(), gap);
            gap.last = WORD;
            return at + MASK.len();
        }
        gap.hash = blend(gap.hash, byte);
        gap.loose &= matches!(byte, b',' | b';' | b':' | b'|');
        let before = core::mem::replace(&mut gap.last, byte);
        let close = match byte {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'"' | b'\'' => byte,
            _ => return at + 1,
        };
        // Nothing in brackets is a value that is absent; but `close()` is a name.
        let opens = before != byte && before != WORD;
        if opens && line.get(at + 1) == Some(&close) {
            self.varying(line, at + 1, at + 1, gap, false);
            gap.last = byte;
        }
        at + 1
    }

    /// A run of other bytes from `start`.
    fn take_chunk(&mut self, line: &[u8], start: usize, gap: &mut Gap) -> usize {
        let (mut at, mut kinds, mut hash) = (start, 0, SEED);
        while let Some(&byte) = line.get(at) {
            let kind = class(byte);
            if kind & (SPACE | BREAK) != 0 && !is_apostrophe(line, at) {
                break;
            }
            kinds |= kind;
            hash = blend(hash, byte);
            at += 1;
        }
        let chunk = line.get(start..at).unwrap_or(&[]);
        if kinds & (DIGIT | HEX | LETTER | ODD) == 0 && !(kinds & SLASH != 0 && chunk.len() > 1) {
            // Dots, dashes, arrows: no word.
            for byte in chunk {
                gap.hash = blend(gap.hash, *byte);
            }
            return at;
        }
        if kinds & SLASH != 0 && is_path(chunk) {
            let end = path_end(line, start, at);
            self.varying(line, start, end, gap, true);
            return end;
        }
        if kinds & !(DIGIT | HEX) == 0
            && chunk.len() <= GROUP_MAX
            && let Some(end) = address_end(line, start, at)
        {
            self.varying(line, start, end, gap, true);
            return end;
        }
        let port = kinds & DOT != 0
            && line.get(at) == Some(&b':')
            && line.get(at + 1).is_some_and(u8::is_ascii_digit);
        if kinds & DIGIT != 0
            || port
            || kinds == HEX && chunk.len() >= HEX_MIN
            || kinds & DOT != 0 && (kinds & ODD != 0 && chunk.contains(&b'@') || is_host(chunk))
            || kinds & ODD != 0 && !is_text(chunk)
        {
            self.varying(line, start, at, gap, true);
        } else {
            self.plain(line, start, at, fold(hash), gap);
        }
        at
    }

    fn last(&mut self) -> Option<&mut Token> {
        self.count
            .checked_sub(1)
            .and_then(|last| self.tokens.get_mut(last))
    }

    fn push(&mut self, token: Token, gap: &mut Gap) {
        if let Some(room) = self.tokens.get_mut(self.count) {
            *room = token;
            self.count += 1;
        }
        *gap = Gap::default();
    }

    fn plain(&mut self, line: &[u8], start: usize, end: usize, mut core: u32, gap: &mut Gap) {
        let chunk = line.get(start..end).unwrap_or(&[]);
        let bare = gap.hash == SEED;
        if bare && let Some(last) = self.last().filter(|last| last.varies()) {
            if last.grows && vocabulary::is_unit(chunk) {
                last.end = index(end);
                return;
            }
            // One file, two files.
            if let [singular @ .., b's'] = chunk
                && singular.len() > 2
                && !singular.ends_with(b"s")
            {
                core = word(singular);
            }
        }
        let token = Token {
            start: index(start),
            end: index(end),
            before: fold(gap.hash),
            core,
            loose: gap.loose,
            grows: false,
        };
        self.push(token, gap);
    }

    /// A mask that stood in the line, as in a template that is read again.
    fn literal(&mut self, start: usize, end: usize, gap: &mut Gap) {
        let token = Token {
            start: index(start),
            end: index(end),
            before: fold(gap.hash),
            core: VARIES,
            loose: gap.loose,
            grows: false,
        };
        self.push(token, gap);
    }

    fn varying(&mut self, line: &[u8], start: usize, end: usize, gap: &mut Gap, grows: bool) {
        if start < end
            && let Some(room) = self.spans.get_mut(self.spanned)
        {
            *room = (index(start), index(end));
            self.spanned += 1;
        }
        let mut token = Token {
            start: index(start),
            end: index(end),
            before: fold(gap.hash),
            core: VARIES,
            loose: gap.loose,
            grows,
        };
        // The name of a day or month before a number is part of the date.
        while grows
            && token.loose
            && let Some(last) = self.last().copied()
            && !last.varies()
            && vocabulary::is_date(last.bytes(line))
        {
            self.count -= 1;
            token = Token {
                start: last.start,
                before: last.before,
                loose: last.loose,
                ..token
            };
        }
        if grows
            && token.loose
            && let Some(last) = self.last().filter(|last| last.grows)
        {
            last.end = token.end;
            *gap = Gap::default();
            return;
        }
        self.push(token, gap);
    }
}

/// As much of a line as is looked at, cut between two words where there is a space.
fn head(line: &[u8]) -> &[u8] {
    match line.get(..LINE_MAX) {
        Some(head) if line.len() > LINE_MAX => {
            let space = head.iter().rposition(|byte| class(*byte) & SPACE != 0);
            head.get(..space.unwrap_or(LINE_MAX)).unwrap_or(head)
        }
        _ => line,
    }
}

/// In [`Gap::last`].
const WORD: u8 = b'a';

/// What was seen since the last word.
struct Gap {
    hash: u64,
    loose: bool,
    /// The last byte, [`WORD`] for any of a word or symbol.
    last: u8,
}

impl Default for Gap {
    fn default() -> Self {
        Self {
            hash: SEED,
            loose: true,
            last: b' ',
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // at most `LINE_MAX`
fn index(at: usize) -> u32 {
    at as u32
}

/// Skips a space, or a colour (ECMA-48 control sequence).
pub(crate) fn after_space(line: &[u8], at: usize) -> usize {
    if line.get(at..at + 2) != Some(b"\x1b[") {
        return at + 1;
    }
    let from = at + 2;
    let rest = line.get(from..).unwrap_or(&[]);
    let last = rest
        .iter()
        .take_while(|byte| matches!(byte, 0x20..=0x3f))
        .count();
    (from + last + 1).min(line.len())
}

/// Whether the quote at `at` stands within a word.
fn is_apostrophe(line: &[u8], at: usize) -> bool {
    line.get(at) == Some(&b'\'')
        && at
            .checked_sub(1)
            .and_then(|before| line.get(before))
            .is_some_and(u8::is_ascii_alphabetic)
        && line.get(at + 1).is_some_and(u8::is_ascii_alphabetic)
}

fn is_path(chunk: &[u8]) -> bool {
    let slash = |byte: &u8| class(*byte) == SLASH;
    let slashes = chunk.iter().filter(|byte| slash(byte)).count();
    chunk.len() > 1
        && (chunk.first().is_some_and(slash)
            || [&b"./"[..], b"../", b"~/"]
                .iter()
                .any(|root| chunk.starts_with(root))
            || slashes > 1)
}

/// Where the path that is read up to `at` ends: a port and a query are part of it, a full
/// stop or colon behind it is not.
fn path_end(line: &[u8], start: usize, mut at: usize) -> usize {
    while let Some(&byte) = line.get(at) {
        let kind = class(byte);
        let query = || line.get(start..at).is_some_and(|path| path.contains(&b'?'));
        let goes_on = match byte {
            b':' => line.get(at + 1).is_some_and(u8::is_ascii_digit) || query(),
            b'=' | b',' | b';' => query(),
            _ => kind & (SPACE | BREAK) == 0,
        };
        if !goes_on {
            break;
        }
        at += 1;
    }
    while at > start + 1
        && let Some(b'.' | b':' | b',' | b';' | b'=') = line.get(at - 1)
    {
        at -= 1;
    }
    at
}

/// The end of a hardware or IPv6 address whose first group is read up to `at`.
fn address_end(line: &[u8], start: usize, mut at: usize) -> Option<usize> {
    if line.get(at) != Some(&b':') {
        return None;
    }
    while line
        .get(at)
        .is_some_and(|byte| *byte == b':' || class(*byte) & (DIGIT | HEX) != 0)
    {
        at += 1;
    }
    let ends = line
        .get(at)
        .is_none_or(|byte| class(*byte) & (SPACE | BREAK | DOT) != 0);
    let run = line.get(start..at)?;
    let colons = run.iter().filter(|byte| **byte == b':').count();
    let digits = run.iter().any(u8::is_ascii_digit);
    let last = run.last() != Some(&b':');
    (ends && last && colons >= 2 && (digits || colons >= 5)).then_some(at)
}

/// A name with dots that ends like one of a network.
fn is_host(chunk: &[u8]) -> bool {
    let mut chunk = chunk;
    while let [name @ .., b'.' | b'!' | b'?'] = chunk {
        chunk = name;
    }
    let mut labels = chunk.rsplit(|byte| *byte == b'.');
    let Some(top) = labels.next() else {
        return false;
    };
    let below = labels.clone().count();
    below > 0
        && labels.all(|label| !label.is_empty())
        && chunk
            .iter()
            .all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'.' | b'-'))
        && (vocabulary::is_domain(top)
            || below > 1 && top.len() == 2 && top.iter().all(u8::is_ascii_lowercase))
}

/// Text that may be shown.
fn is_text(chunk: &[u8]) -> bool {
    core::str::from_utf8(chunk).is_ok_and(|text| !text.chars().any(char::is_control))
}
