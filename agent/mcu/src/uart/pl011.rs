//! ARM's PL011 (DDI 0183), as in Luminary's chips: 16 bytes deep.

use crate::board::{BAUD, CLOCK_HZ, UART_BASE};
use crate::mmio;
use crate::ring::Ring;

const DATA: usize = UART_BASE;
const FLAGS: usize = UART_BASE + 0x18;
const DIVIDER: usize = UART_BASE + 0x24;
const FRACTION: usize = UART_BASE + 0x28;
const LINE: usize = UART_BASE + 0x2C;
const CONTROL: usize = UART_BASE + 0x30;
const MASK: usize = UART_BASE + 0x38;
const CLEAR: usize = UART_BASE + 0x44;

const RX_EMPTY: u32 = 1 << 4;
const TX_FULL: u32 = 1 << 5;
/// In the word that is read with a byte: others were lost before it.
const OVERRUN: u32 = 1 << 11;
/// Eight bits, both queues on.
const EIGHT: u32 = 3 << 5 | 1 << 4;
const ON: u32 = 1 | 1 << 8 | 1 << 9;
/// Some bytes came; or one did, and then nothing for a while.
const RX_INTERRUPTS: u32 = 1 << 4 | 1 << 6;

pub(crate) fn start() {
    // In 64ths, rounded: clock / (16 * baud).
    let divider = (CLOCK_HZ.saturating_mul(8) / BAUD).div_ceil(2);
    mmio::write(DIVIDER, divider / 64);
    mmio::write(FRACTION, divider % 64);
    mmio::write(LINE, EIGHT);
    mmio::write(MASK, RX_INTERRUPTS);
    mmio::write(CONTROL, ON);
}

pub(crate) fn put(byte: u8) {
    while mmio::read(FLAGS) & TX_FULL != 0 {}
    mmio::write(DATA, byte.into());
}

pub(crate) fn interrupt(ring: &Ring) {
    mmio::write(CLEAR, RX_INTERRUPTS);
    while mmio::read(FLAGS) & RX_EMPTY == 0 {
        let word = mmio::read(DATA);
        if word & OVERRUN != 0 {
            ring.lose();
        }
        let [byte, ..] = word.to_le_bytes();
        ring.put(byte);
    }
}
