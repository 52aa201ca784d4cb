//! Writes a line as a template, in bounded room: what varies masked, each run of spaces as
//! one, colours and other control sequences left out.

use crate::lex::{MASK, SPACE, Token, after_space, class};

/// Writes `line` to `text` as a template, with `open` words masked besides those that vary,
/// and returns how many words found room; where not all did, a last mask stands for the rest.
pub(crate) fn render(
    line: &[u8],
    tokens: &[Token],
    open: u128,
    text: &mut Text<'_>,
) -> (usize, bool) {
    text.len = 0;
    let (mut from, mut count) = (0, 0);
    for (at, token) in tokens.iter().enumerate() {
        let mark = text.len;
        let varies = token.varies() || open >> at & 1 == 1;
        let core = if varies {
            MASK.as_bytes()
        } else {
            token.bytes(line)
        };
        let fits = text.gap(line.get(from..token.start as usize).unwrap_or(&[]), at > 0)
            && text.push(core)
            && text.len + 1 + MASK.len() <= text.bytes.len();
        if !fits {
            text.len = mark;
            text.gap(b" ", at > 0);
            text.push(MASK.as_bytes());
            return (count, false);
        }
        from = token.end as usize;
        count += 1;
    }
    // What no longer fits behind the last word tells nothing.
    let mark = text.len;
    if !text.gap(line.get(from..).unwrap_or(&[]), false) {
        text.len = mark;
    }
    while text.len > 0 && text.bytes.get(text.len - 1) == Some(&b' ') {
        text.len -= 1;
    }
    (count, true)
}

/// Text of bounded length.
#[derive(Debug)]
pub(crate) struct Text<'b> {
    pub(crate) bytes: &'b mut [u8],
    pub(crate) len: usize,
}

impl Text<'_> {
    fn push(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }

    /// What stands between two words, each run of spaces as one and none at the ends.
    fn gap(&mut self, gap: &[u8], inner: bool) -> bool {
        let (mut at, mut spaced, begun) = (0, false, self.len);
        while let Some(&byte) = gap.get(at) {
            if class(byte) & SPACE != 0 {
                at = after_space(gap, at);
                spaced = true;
                continue;
            }
            if spaced && self.len > 0 && !self.push(b" ") {
                return false;
            }
            spaced = false;
            if !self.push(&[byte]) {
                return false;
            }
            at += 1;
        }
        let joined = inner && self.len == begun;
        !((spaced || joined) && self.len > 0) || self.push(b" ")
    }
}
