//! The one place with raw memory: registers, the interrupt controller, the painted stack.
//!
//! Addresses come from board files and from the drivers here, never from the line.
#![allow(unsafe_code)]

use core::ops::Range;
use core::ptr;

pub(crate) fn read(address: usize) -> u32 {
    // SAFETY: an aligned register, or a word of the stack's region; see the module doc.
    unsafe { ptr::read_volatile(ptr::with_exposed_provenance(address)) }
}

pub(crate) fn write(address: usize, value: u32) {
    // SAFETY: an aligned register; nothing that Rust knows of lives there.
    unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut(address), value) }
}

/// Clears these bits, then sets those.
pub(crate) fn change(address: usize, clear: u32, set: u32) {
    write(address, (read(address) & !clear) | set);
}

/// Lets an interrupt through.
pub(crate) fn enable_irq(number: u16) {
    /// Set-enable registers of the NVIC (ARMv7-M B3.4), one bit each.
    const ENABLE: usize = 0xE000_E100;
    write(ENABLE + 4 * usize::from(number / 32), 1 << (number % 32));
}

/// The words of the stack's region, the last one to be used first.
pub(crate) fn stack() -> core::iter::StepBy<Range<usize>> {
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    let (end, start) = (&raw const _stack_end, &raw const _stack_start);
    (end.expose_provenance()..start.expose_provenance()).step_by(4)
}
