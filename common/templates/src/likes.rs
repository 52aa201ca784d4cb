//! Which templates are one, seen from a new one: see the head of the crate.

use alloc::boxed::Box;

use homeostat_common::observation::Level;

use crate::lex::{Lexed, Token, VARIES};
use crate::table::{NONE, TEXT_MAX};
use crate::text::{self, Text};
use crate::{Merge, Miner, Shape, vocabulary};

/// Templates that a new one is compared with: bounds the time that one line can take. Likes
/// that are more than this have become one before.
const LIKES_MAX: usize = 128;

/// Sets of places that are tried as variables.
const TRIES_MAX: usize = 16;

/// Distinct words counted of a place; no threshold is higher.
const DISTINCT_MAX: usize = 32;

/// A mask among the words of a place is as good as two of them: something varies there.
const MASK_WORTH: usize = 2;

/// Scratch.
#[derive(Debug)]
pub(crate) struct Likes {
    found: [(u16, u128); LIKES_MAX],
    count: usize,
    lexed: Box<Lexed>,
    text: [u8; TEXT_MAX],
}

impl Default for Likes {
    fn default() -> Self {
        Self {
            found: [(NONE, 0); LIKES_MAX],
            count: 0,
            lexed: Box::default(),
            text: [0; TEXT_MAX],
        }
    }
}

/// What may stand at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A key or a level: never a variable.
    Fixed,
    Name,
    Value,
    Prose,
}

impl Miner {
    /// Makes the new template `leaf` one with its likes where that is due, and returns which
    /// one it is part of now.
    pub(crate) fn widen(&mut self, line: &[u8], leaf: u16, shape: &Shape) -> Option<u16> {
        self.compare(leaf, shape);
        let mut tried = [0; TRIES_MAX];
        for round in 0..TRIES_MAX {
            let found = self.likes.found.get(..self.likes.count)?;
            let untried = found
                .iter()
                .map(|(_, places)| *places)
                .filter(|places| !tried.contains(places));
            // The fewest places first: what fewer explain needs no more.
            let places = untried.min_by_key(|places| (places.count_ones(), *places))?;
            *tried.get_mut(round)? = places;
            if self.is_due(line, leaf, places) {
                return self.unite(leaf, places);
            }
        }
        None
    }

    /// Notes the likes of `leaf`, and where they differ from it.
    fn compare(&mut self, leaf: u16, shape: &Shape) {
        let tokens = self.lexed.tokens();
        let words = tokens.iter().filter(|token| !token.varies()).count();
        let most = (words / 3).max(1);
        self.likes.count = 0;
        let mut at = self.table.chain(shape.chain);
        while let Some(slot) = self.table.slot(at) {
            let here = at;
            at = slot.next;
            if here == leaf
                || slot.chain != shape.chain
                || usize::from(slot.count) != tokens.len()
                || tokens
                    .iter()
                    .zip(&slot.befores)
                    .any(|(token, before)| token.before != *before)
            {
                continue;
            }
            let mut places: u128 = 0;
            for (place, (token, core)) in tokens.iter().zip(&slot.cores).enumerate() {
                let differs = token.core != *core && !slot.is_open(place);
                places |= u128::from(differs) << place;
            }
            if places.count_ones() as usize > most {
                continue;
            }
            let Some(room) = self.likes.found.get_mut(self.likes.count) else {
                return;
            };
            *room = (here, places);
            self.likes.count += 1;
        }
    }

    /// Whether enough different words stand at each of `places`, all else being equal.
    fn is_due(&self, line: &[u8], leaf: u16, places: u128) -> bool {
        let tokens = self.lexed.tokens();
        let leader = leader(line, tokens).map(|(at, _)| at);
        let members = self.members(places).filter_map(|at| self.table.slot(at));
        let lines: u64 = members.clone().map(|slot| slot.lines).sum();
        (0..tokens.len())
            .filter(|place| places >> place & 1 == 1)
            .all(|place| {
                let kind = kind(line, tokens, place);
                let needed = match kind {
                    Kind::Fixed => return false,
                    Kind::Name => self.thresholds.name,
                    Kind::Value => self.thresholds.value,
                    Kind::Prose => self.thresholds.prose,
                };
                if leader == Some(place) {
                    return false;
                }
                let mut distinct = [0; DISTINCT_MAX];
                let (mut count, mut worth) = (0, 0);
                let leaf = self.table.slot(leaf);
                for slot in members.clone().chain(leaf) {
                    let Some(core) = slot.cores.get(place).copied() else {
                        continue;
                    };
                    if !distinct.iter().take(count).any(|seen| *seen == core)
                        && let Some(room) = distinct.get_mut(count)
                    {
                        *room = core;
                        count += 1;
                        worth += if core == VARIES { MASK_WORTH } else { 1 };
                    }
                }
                let open_class = || (worth * worth) as u64 > lines;
                worth >= usize::from(needed) && (kind == Kind::Name || open_class())
            })
    }

    /// The likes that differ from the new template nowhere but at `places`.
    fn members(&self, places: u128) -> impl Iterator<Item = u16> + Clone + '_ {
        self.likes
            .found
            .iter()
            .take(self.likes.count)
            .filter(move |(_, differ)| differ & !places == 0)
            .map(|(at, _)| *at)
    }

    /// Makes `leaf` and its likes that differ at `places` one; the oldest stays.
    fn unite(&mut self, leaf: u16, places: u128) -> Option<u16> {
        let born = |at: &u16| self.table.slot(*at).map_or(u64::MAX, |slot| slot.born);
        let into = self.members(places).min_by_key(born)?;
        let into_id = self.table.slot(into)?.id;
        let (mut open, mut lines) = (places, 0);
        for at in 0..self.likes.count {
            let (member, differ) = *self.likes.found.get(at)?;
            if differ & !places != 0 {
                continue;
            }
            let slot = self.table.slot(member)?;
            open |= slot.open;
            lines += slot.lines;
            if member != into {
                let from = slot.id;
                self.table.remove(member);
                self.report(Merge {
                    from,
                    into: into_id,
                });
            }
        }
        // Its id was never given out.
        self.table.remove(leaf);
        let slot = self.table.slot_mut(into)?;
        slot.open = open;
        slot.lines = lines;
        for (place, core) in slot.cores.iter_mut().enumerate() {
            if open >> place & 1 == 1 {
                *core = VARIES;
            }
        }
        self.rewrite(into);
        Some(into)
    }

    /// Writes the text of a template anew, with the words masked that vary now.
    fn rewrite(&mut self, at: u16) {
        let Some(slot) = self.table.slot_mut(at) else {
            return;
        };
        let length = usize::from(slot.length);
        let old = slot.text.get(..length).unwrap_or(&[]);
        self.likes.lexed.fill(old);
        let mut written = Text {
            bytes: &mut self.likes.text,
            len: 0,
        };
        let (_, whole) = text::render(old, self.likes.lexed.tokens(), slot.open, &mut written);
        // A mask may be longer than the word was: then the word stays.
        if whole {
            slot.length = crate::table::narrow(written.len);
            slot.text.copy_from_slice(&self.likes.text);
        }
    }
}

/// What stands before the word at `place`, and behind it.
fn around<'l>(line: &'l [u8], tokens: &[Token], place: usize) -> (&'l [u8], &'l [u8]) {
    let end = |at: usize| tokens.get(at).map_or(0, |token| token.end as usize);
    let start = |at: usize| {
        tokens
            .get(at)
            .map_or(line.len(), |token| token.start as usize)
    };
    let from = place.checked_sub(1).map_or(0, end);
    (
        line.get(from..start(place)).unwrap_or(&[]),
        line.get(end(place)..start(place + 1)).unwrap_or(&[]),
    )
}

fn is_key(behind: &[u8]) -> bool {
    behind.starts_with(b"=") || behind.starts_with(b"\":")
}

fn kind(line: &[u8], tokens: &[Token], place: usize) -> Kind {
    let Some(token) = tokens.get(place) else {
        return Kind::Fixed;
    };
    let word = if token.varies() {
        &[]
    } else {
        token.bytes(line)
    };
    let (before, behind) = around(line, tokens, place);
    if is_key(behind) || vocabulary::level(word).is_some() {
        return Kind::Fixed;
    }
    let before = before.trim_ascii_end();
    let quote = before.last().filter(|byte| matches!(byte, b'"' | b'\''));
    if before.ends_with(b"=")
        || quote.is_some() && before.contains(&b':')
        || before.ends_with(b"=\"")
    {
        return Kind::Value;
    }
    let noun = place.checked_sub(1).and_then(|at| tokens.get(at));
    let named = noun.is_some_and(|noun| !noun.varies() && vocabulary::is_noun(noun.bytes(line)));
    let quoted = quote.is_some() && behind.first() == quote;
    if (named || quoted || is_identifier(word)) && !vocabulary::is_verb(word) {
        return Kind::Name;
    }
    Kind::Prose
}

/// Built as programs name things, not as prose: `a_b`, `a.b`, `aB`.
fn is_identifier(word: &[u8]) -> bool {
    word.windows(2).any(|pair| {
        matches!(pair, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase())
            || matches!(pair, [b'_' | b'.' | b'$', b] if b.is_ascii_alphabetic())
    })
}

/// The word that a line begins with, for what it is about: the first that is neither a level
/// nor the key of a value.
pub(crate) fn leader(line: &[u8], tokens: &[Token]) -> Option<(usize, u32)> {
    let plain = |at: &usize| tokens.get(*at).is_some_and(|token| !token.varies());
    let mut plain = (0..tokens.len()).filter(plain);
    let first = plain.clone().next()?;
    let at = plain
        .find(|at| matches!(kind(line, tokens, *at), Kind::Prose | Kind::Name))
        .unwrap_or(first);
    Some((at, tokens.get(at)?.core))
}

/// The level that the word at `place` states. A lower-case word is one only where it stands
/// like one.
pub(crate) fn stated_level(
    line: &[u8],
    tokens: &[Token],
    place: usize,
    token: &Token,
) -> Option<Level> {
    if token.varies() {
        return None;
    }
    let word = token.bytes(line);
    let level = vocabulary::level(word)?;
    let (before, behind) = around(line, tokens, place);
    let key = place.checked_sub(1).and_then(|at| tokens.get(at));
    let keyed = key.is_some_and(|key| {
        [&b"level"[..], b"lvl", b"severity"]
            .iter()
            .any(|name| key.bytes(line).eq_ignore_ascii_case(name))
    });
    let stands = word.iter().all(u8::is_ascii_uppercase)
        || word == b"panicked"
        || before.ends_with(b"[")
        || before.ends_with(b"(")
        || keyed
        || behind.starts_with(b":");
    stands.then_some(level)
}
