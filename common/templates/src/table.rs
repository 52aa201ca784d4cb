//! The templates that are known: found by signature, else by their words.
//!
//! Each has a slot of fixed size. Those with the same number of words and the same leading
//! word hang in one chain.

use alloc::boxed::Box;
use alloc::vec;

use homeostat_common::observation::Level;

use crate::lex::WORDS_MAX;

/// Words of a template, with the mask for the rest of a line.
pub(crate) const TOKENS: usize = WORDS_MAX + 1;

/// Longest text of a template. Words beyond it do not count.
pub const TEXT_MAX: usize = 384;

/// No slot.
pub(crate) const NONE: u16 = u16::MAX;

/// One template.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// 0: free.
    pub(crate) id: u64,
    /// Its place in the order of birth.
    pub(crate) born: u64,
    /// When it was last seen, in lines of the miner.
    pub(crate) seen: u64,
    pub(crate) lines: u64,
    /// Which words came to vary, by place.
    pub(crate) open: u128,
    pub(crate) chain: u64,
    pub(crate) next: u16,
    /// Grows with each template that was here.
    pub(crate) generation: u16,
    pub(crate) count: u8,
    pub(crate) length: u16,
    pub(crate) cores: [u32; TOKENS],
    pub(crate) befores: [u32; TOKENS],
    pub(crate) text: [u8; TEXT_MAX],
}

impl Slot {
    pub(crate) const EMPTY: Self = Self {
        id: 0,
        born: 0,
        seen: 0,
        lines: 0,
        open: 0,
        chain: 0,
        next: NONE,
        generation: 0,
        count: 0,
        length: 0,
        cores: [0; TOKENS],
        befores: [0; TOKENS],
        text: [0; TEXT_MAX],
    };

    pub(crate) fn text(&self) -> &str {
        let text = self.text.get(..usize::from(self.length)).unwrap_or(&[]);
        // Only whole words of valid text are written there.
        core::str::from_utf8(text).unwrap_or("")
    }

    pub(crate) fn is_open(&self, place: usize) -> bool {
        self.open >> place & 1 == 1
    }
}

/// What a signature led to last time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    signature: u64,
    pub(crate) slot: u16,
    generation: u16,
    pub(crate) level: Option<Level>,
}

/// Ways of the cache: as many signatures may share a set.
const WAYS: usize = 4;

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) slots: Box<[Slot]>,
    /// First slot of each chain.
    heads: Box<[u16]>,
    free: u16,
    pub(crate) used: usize,
    cache: Box<[Known]>,
    /// Scratch of [`Table::forget_least_used`].
    keys: Box<[(u64, u16)]>,
}

impl Table {
    pub(crate) fn new(slots: usize) -> Self {
        let slots = slots.clamp(16, usize::from(NONE));
        let mut table = Self {
            slots: vec![Slot::EMPTY; slots].into(),
            heads: vec![NONE; slots.next_power_of_two()].into(),
            free: NONE,
            used: 0,
            cache: vec![
                Known {
                    signature: 0,
                    slot: NONE,
                    generation: 0,
                    level: None
                };
                slots.next_power_of_two() * WAYS
            ]
            .into(),
            keys: vec![(0, NONE); slots].into(),
        };
        for at in (0..slots).rev() {
            table.release(narrow(at));
        }
        table
    }

    pub(crate) fn slot(&self, at: u16) -> Option<&Slot> {
        self.slots.get(usize::from(at))
    }

    pub(crate) fn slot_mut(&mut self, at: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(at))
    }

    fn set(&self, signature: u64) -> core::ops::Range<usize> {
        let sets = self.cache.len() / WAYS;
        #[allow(clippy::cast_possible_truncation)] // masked
        let set = (signature as usize) & (sets - 1);
        set * WAYS..set * WAYS + WAYS
    }

    /// The template that this very sequence of words was found to be.
    pub(crate) fn known(&self, signature: u64) -> Option<Known> {
        let set = self.cache.get(self.set(signature))?;
        let known = set.iter().find(|known| known.signature == signature)?;
        let slot = self.slot(known.slot)?;
        (slot.generation == known.generation).then_some(*known)
    }

    /// Remembers where a signature led.
    pub(crate) fn remember(&mut self, signature: u64, slot: u16, level: Option<Level>) {
        let Some(generation) = self.slot(slot).map(|slot| slot.generation) else {
            return;
        };
        let range = self.set(signature);
        let Some(set) = self.cache.get_mut(range) else {
            return;
        };
        // The newest comes first, the oldest falls out.
        let place = set.iter().position(|known| known.signature == signature);
        set.get_mut(..=place.unwrap_or(WAYS - 1))
            .unwrap_or_default()
            .rotate_right(1);
        if let Some(first) = set.first_mut() {
            *first = Known {
                signature,
                slot,
                generation,
                level,
            };
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Takes a free slot, which the caller fills and then [`link`](Self::link)s.
    pub(crate) fn take(&mut self) -> Option<u16> {
        let at = self.free;
        self.free = self.slot(at)?.next;
        self.used += 1;
        Some(at)
    }

    fn release(&mut self, at: u16) {
        let free = self.free;
        if let Some(slot) = self.slot_mut(at) {
            slot.id = 0;
            slot.generation = slot.generation.wrapping_add(1);
            slot.next = free;
            self.free = at;
        }
    }

    fn head(&mut self, chain: u64) -> Option<&mut u16> {
        #[allow(clippy::cast_possible_truncation)] // masked
        let at = (chain as usize) & (self.heads.len() - 1);
        self.heads.get_mut(at)
    }

    pub(crate) fn link(&mut self, at: u16) {
        let Some(chain) = self.slot(at).map(|slot| slot.chain) else {
            return;
        };
        let Some(head) = self.head(chain) else { return };
        let next = core::mem::replace(head, at);
        if let Some(slot) = self.slot_mut(at) {
            slot.next = next;
        }
    }

    /// Forgets a template.
    pub(crate) fn remove(&mut self, at: u16) {
        let Some((chain, next)) = self.slot(at).map(|slot| (slot.chain, slot.next)) else {
            return;
        };
        let Some(head) = self.head(chain) else { return };
        if *head == at {
            *head = next;
        } else {
            let mut before = *head;
            while let Some(slot) = self.slot_mut(before) {
                if slot.next == at {
                    slot.next = next;
                    break;
                }
                before = slot.next;
            }
        }
        self.used -= 1;
        self.release(at);
    }

    /// The slots of a chain, newest first.
    pub(crate) fn chain(&mut self, chain: u64) -> u16 {
        self.head(chain).map_or(NONE, |head| *head)
    }

    /// Forgets the least used quarter of a full table, and says how many that are: a line
    /// keeps a template for as long as `LINE_CREDIT` lines of others. Of templates that were
    /// used alike, as many are after a restart, no more go than that.
    pub(crate) fn forget_least_used(&mut self) -> usize {
        for (at, (key, slot)) in self.keys.iter_mut().zip(self.slots.iter()).enumerate() {
            *key = (slot.worth(), narrow(at));
        }
        let quarter = self.keys.len() / 4;
        self.keys.select_nth_unstable(quarter);
        for key in 0..quarter {
            let at = self.keys.get(key).map_or(NONE, |(_, at)| *at);
            self.remove(at);
        }
        quarter
    }
}

/// Lines of others for which one line keeps a template in a full table: a template that makes
/// up less than that share of the lines is forgotten before one that is seen right now.
const LINE_CREDIT: u64 = 256;

impl Slot {
    pub(crate) fn worth(&self) -> u64 {
        self.seen
            .saturating_add(self.lines.saturating_mul(LINE_CREDIT))
    }
}

#[allow(clippy::cast_possible_truncation)] // fewer slots than `NONE`
pub(crate) fn narrow(at: usize) -> u16 {
    at as u16
}
