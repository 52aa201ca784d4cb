//! A ring of bytes between an interrupt and the main loop. One writer, one reader.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Places; indices are bytes and wrap by themselves. One place stays free.
const PLACES: usize = 256;

pub(crate) struct Ring {
    bytes: [AtomicU8; PLACES],
    /// Where the writer writes next.
    head: AtomicU8,
    /// Where the reader reads next.
    tail: AtomicU8,
    lost: AtomicU32,
}

impl Ring {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [const { AtomicU8::new(0) }; PLACES],
            head: AtomicU8::new(0),
            tail: AtomicU8::new(0),
            lost: AtomicU32::new(0),
        }
    }

    /// Adds a byte, or counts it as lost.
    pub(crate) fn put(&self, byte: u8) {
        let head = self.head.load(Ordering::Relaxed);
        let next = head.wrapping_add(1);
        if next == self.tail.load(Ordering::Acquire) {
            self.lose();
            return;
        }
        self.bytes[usize::from(head)].store(byte, Ordering::Relaxed);
        self.head.store(next, Ordering::Release);
    }

    pub(crate) fn take(&self) -> Option<u8> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        let byte = self.bytes[usize::from(tail)].load(Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail.load(Ordering::Relaxed) == self.head.load(Ordering::Acquire)
    }

    /// Counts a byte that never came here. Only the interrupt writes this.
    pub(crate) fn lose(&self) {
        let lost = self.lost.load(Ordering::Relaxed);
        self.lost.store(lost.saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }
}
