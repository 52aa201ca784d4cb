//! The UART of ARM's CMSDK (DDI 0479): one byte deep.

use crate::board::{BAUD, CLOCK_HZ, UART_BASE};
use crate::mmio;
use crate::ring::Ring;

const DATA: usize = UART_BASE;
const STATE: usize = UART_BASE + 0x4;
const CONTROL: usize = UART_BASE + 0x8;
const CLEAR: usize = UART_BASE + 0xC;
const DIVIDER: usize = UART_BASE + 0x10;

const TX_FULL: u32 = 1;
const RX_FULL: u32 = 1 << 1;
const RX_OVERRUN: u32 = 1 << 3;
/// Both directions on, interrupt for each byte that came.
const ON: u32 = 1 | 1 << 1 | 1 << 3;
const RX_INTERRUPT: u32 = 1 << 1;

pub(crate) fn start() {
    mmio::write(DIVIDER, (CLOCK_HZ / BAUD).max(16));
    mmio::write(CONTROL, ON);
}

pub(crate) fn put(byte: u8) {
    while mmio::read(STATE) & TX_FULL != 0 {}
    mmio::write(DATA, byte.into());
}

pub(crate) fn interrupt(ring: &Ring) {
    mmio::write(CLEAR, RX_INTERRUPT);
    let state = mmio::read(STATE);
    if state & RX_OVERRUN != 0 {
        mmio::write(STATE, RX_OVERRUN);
        ring.lose();
    }
    if state & RX_FULL != 0 {
        let [byte, ..] = mmio::read(DATA).to_le_bytes();
        ring.put(byte);
    }
}
