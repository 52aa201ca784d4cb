//! Detectors at the other end of a serial line: what a microcontroller runs, what a host
//! does to be understood by it, and the frames between them.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | bytes to messages and back: COBS, CRC-32, what to do about garbage |
//! | [`message`] | what is asked and what is answered, versioned |
//! | [`device`] | the microcontroller's end: 16 channels, a detector bank each |
//! | [`host`] | the host's end: set-up, flow control, which alarms stand |
//!
//! Both ends are bytes in, bytes out: no IO, no clock, no allocation, no panic on whatever
//! the line delivers. Firmware adds a UART and a watchdog, a host adds a serial port. The same
//! `device` compiles for both, so that scores can be compared bit by bit.
//!
//! It does not encrypt and knows no passwords: who holds the wire is trusted.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod device;
pub mod frame;
pub mod host;
pub mod message;
