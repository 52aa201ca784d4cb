//! The detector core as firmware: 16 metrics on a Cortex-M, over a serial line.
//!
//! In: frames on the UART, taken byte by byte by an interrupt into a ring. Out: answers and
//! alarms. What is asked and answered is `homeostat-serial`'s; here is only what hardware
//! needs: ring, clock ticks, watchdog, what is left of the stack, and the way back after a
//! panic. It keeps no time and nothing across a restart.
//!
//! ```text
//! UART --interrupt--> ring (256 B) --main loop--> Device --> UART (waits for room)
//!                                      |  feeds
//!                                   watchdog
//! ```
//!
//! The stack lies below everything else (`memory.x`): one that overflows runs out of memory
//! and faults, instead of changing what the detectors learnt.

#![no_std]
#![no_main]

mod mmio;
mod ring;
mod uart;
mod watchdog;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use cortex_m::peripheral::{SCB, SYST, syst::SystClkSource};
use cortex_m_rt::{ExceptionFrame, STACK_PAINT_VALUE, entry, exception};
use homeostat_serial::device::{Board, Device};
use homeostat_serial::message::{Cause, Fault};

use crate::ring::Ring;

/// What the board file says.
mod board {
    include!(concat!(env!("OUT_DIR"), "/board.rs"));
}

/// Bytes that came and were not looked at yet. A host has at most four requests of 27 bytes
/// on their way; noise on top of that is counted when it does not fit.
static RING: Ring = Ring::new();

/// Why the program ends, kept over a restart. Power leaves anything there.
#[allow(unsafe_code)] // a section that start-up does not clear
#[unsafe(link_section = ".uninit.END")]
static END: AtomicU32 = AtomicU32::new(0);

/// Values of [`END`]: unlikely to be there by chance.
const RUNNING: u32 = 0x486f_6d31;
const ASKED: u32 = 0x486f_6d32;
const CRASHED: u32 = 0x486f_6d33;

#[entry]
fn main() -> ! {
    // In place from the start: on its way there it would not fit on the stack.
    static mut DEVICE: Device = Device::new();

    let cause = match END.swap(RUNNING, Ordering::Relaxed) {
        RUNNING => Cause::Outside,
        ASKED => Cause::Asked,
        CRASHED => Cause::Crash,
        _ => Cause::Power,
    };
    watchdog::start();
    for (address, clear, set) in board::SETUP {
        mmio::change(*address, *clear, *set);
    }
    let mut hardware = Hardware::start();
    uart::start();
    mmio::enable_irq(board::UART_IRQ);
    DEVICE.start(cause, &mut hardware);
    loop {
        watchdog::feed();
        match RING.take() {
            Some(byte) => DEVICE.take(byte, &mut hardware),
            // SysTick ends the wait at each wrap, so that the watchdog is fed in silence. A
            // byte that comes right before the wait is pending, and ends it at once.
            None => cortex_m::interrupt::free(|_| {
                if RING.is_empty() {
                    cortex_m::asm::wfi();
                }
            }),
        }
    }
}

/// What the device sees of the processor.
struct Hardware {
    ticks_2000: u32,
}

impl Hardware {
    fn start() -> Self {
        // Taken once, here.
        if let Some(peripherals) = cortex_m::Peripherals::take() {
            let mut clock = peripherals.SYST;
            clock.set_clock_source(SystClkSource::Core);
            clock.set_reload(TICKS_MASK);
            clock.clear_current();
            clock.enable_counter();
            clock.enable_interrupt();
        }
        let mut hardware = Self { ticks_2000: 0 };
        hardware.ticks_2000 = cortex_m::interrupt::free(|_| {
            let start = hardware.ticks();
            // Two instructions for each turn of its loop.
            cortex_m::asm::delay(1000);
            let middle = hardware.ticks();
            cortex_m::asm::delay(2000);
            let end = hardware.ticks();
            // The difference is without what calls and readings take.
            let (short, long) = (middle.wrapping_sub(start), end.wrapping_sub(middle));
            (long & TICKS_MASK).wrapping_sub(short & TICKS_MASK)
        });
        hardware
    }
}

/// SysTick counts 24 bits.
const TICKS_MASK: u32 = 0x00FF_FFFF;

impl Board for Hardware {
    const TICK_BITS: u32 = 24;

    fn ticks(&mut self) -> u32 {
        compiler_fence(Ordering::SeqCst);
        let now = TICKS_MASK - SYST::get_current();
        compiler_fence(Ordering::SeqCst);
        now
    }

    fn ticks_2000(&self) -> u32 {
        self.ticks_2000
    }

    fn stack(&self) -> (u32, u32) {
        let mut painted = true;
        let (mut used, mut free) = (0, 0);
        for word in mmio::stack() {
            painted &= mmio::read(word) == STACK_PAINT_VALUE;
            if painted {
                free += 4;
            } else {
                used += 4;
            }
        }
        (used, free)
    }

    fn overruns(&self) -> u32 {
        RING.lost()
    }

    fn send(&mut self, frame: &[u8]) {
        for byte in frame {
            uart::put(*byte);
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Reset => restart(ASKED),
            Fault::Crash => cortex_m::asm::udf(),
            Fault::Stall => loop {
                cortex_m::asm::nop();
            },
        }
    }
}

fn restart(end: u32) -> ! {
    END.store(end, Ordering::Relaxed);
    SCB::sys_reset()
}

/// The reason is told by the next start; the text of a panic would cost half of the flash.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    restart(CRASHED)
}

#[allow(unsafe_code)] // the signature that the vector table wants
#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    restart(CRASHED)
}

#[exception]
fn SysTick() {}

/// Interrupts have no entries of their own: the table would be that of one chip.
#[allow(unsafe_code)] // the signature that the vector table wants
#[exception]
unsafe fn DefaultHandler(number: i16) {
    if u16::try_from(number) == Ok(board::UART_IRQ) {
        uart::interrupt(&RING);
    }
}
