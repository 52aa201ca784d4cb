//! The watchdog: bites some seconds after the main loop stopped to feed it.
//!
//! Fed from the main loop and never from an interrupt, so that a main loop that hangs while
//! interrupts go on is caught as well.

#[cfg(watchdog = "cmsdk")]
mod kind {
    //! That of ARM's CMSDK, which Luminary's chips have too: the first time it runs out it
    //! raises an interrupt, the second time it resets.
    use crate::board::{CLOCK_HZ, WATCHDOG_BASE};
    use crate::mmio;

    const LOAD: usize = WATCHDOG_BASE;
    const CONTROL: usize = WATCHDOG_BASE + 0x8;
    const CLEAR: usize = WATCHDOG_BASE + 0xC;
    const LOCK: usize = WATCHDOG_BASE + 0xC00;
    const KEY: u32 = 0x1ACC_E551;
    const COUNT_AND_RESET: u32 = 3;

    /// Half of the 4 s after which it bites.
    const SECONDS: u32 = 2;

    pub(crate) fn start() {
        mmio::write(LOCK, KEY);
        mmio::write(LOAD, CLOCK_HZ.saturating_mul(SECONDS));
        mmio::write(CONTROL, COUNT_AND_RESET);
    }

    /// Loads it anew.
    pub(crate) fn feed() {
        mmio::write(CLEAR, 1);
    }
}

#[cfg(watchdog = "stm32")]
mod kind {
    //! The independent watchdog of STM32 chips, from a clock of its own: 32 kHz on F4, 40 kHz
    //! on F1, where it may be anything from 30 to 60 kHz (DS5319).
    use crate::board::WATCHDOG_BASE;
    use crate::mmio;

    const KEY: usize = WATCHDOG_BASE;
    const PRESCALER: usize = WATCHDOG_BASE + 0x4;
    const RELOAD: usize = WATCHDOG_BASE + 0x8;

    pub(crate) fn start() {
        mmio::write(KEY, 0xCCCC);
        mmio::write(KEY, 0x5555);
        // 64 clocks for each of 4,096 counts: 4.4 s at least. In silence it is fed at each wrap
        // of SysTick only, after 2.1 s at 8 MHz.
        mmio::write(PRESCALER, 4);
        mmio::write(RELOAD, 4095);
        feed();
    }

    pub(crate) fn feed() {
        mmio::write(KEY, 0xAAAA);
    }
}

#[cfg(watchdog = "none")]
mod kind {
    //! This board has none.
    pub(crate) fn start() {}
    pub(crate) fn feed() {}
}

pub(crate) use kind::{feed, start};
