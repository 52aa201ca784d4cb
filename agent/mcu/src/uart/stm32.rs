//! The USART of STM32F1, F2, F4 and L1 (RM0008, RM0090): one byte deep.

use crate::board::{BAUD, CLOCK_HZ, UART_BASE};
use crate::mmio;
use crate::ring::Ring;

const STATE: usize = UART_BASE;
const DATA: usize = UART_BASE + 0x4;
const DIVIDER: usize = UART_BASE + 0x8;
const CONTROL: usize = UART_BASE + 0xC;

const RX_OVERRUN: u32 = 1 << 3;
const RX_FULL: u32 = 1 << 5;
const TX_EMPTY: u32 = 1 << 7;
/// On, both directions, interrupt for each byte that came.
const ON: u32 = 1 << 13 | 1 << 3 | 1 << 2 | 1 << 5;

pub(crate) fn start() {
    mmio::write(DIVIDER, CLOCK_HZ / BAUD);
    mmio::write(CONTROL, ON);
}

pub(crate) fn put(byte: u8) {
    while mmio::read(STATE) & TX_EMPTY == 0 {}
    mmio::write(DATA, byte.into());
}

/// Reading the state and then the byte clears an overrun.
pub(crate) fn interrupt(ring: &Ring) {
    let state = mmio::read(STATE);
    if state & (RX_FULL | RX_OVERRUN) == 0 {
        return;
    }
    let [byte, ..] = mmio::read(DATA).to_le_bytes();
    if state & RX_OVERRUN != 0 {
        ring.lose();
    }
    if state & RX_FULL != 0 {
        ring.put(byte);
    }
}
