//! The serial line: 8 bits, no parity, one stop bit. Bytes come by interrupt, and go out as
//! there is room.

#[cfg_attr(uart = "cmsdk", path = "uart/cmsdk.rs")]
#[cfg_attr(uart = "pl011", path = "uart/pl011.rs")]
#[cfg_attr(uart = "stm32", path = "uart/stm32.rs")]
mod kind;

pub(crate) use kind::{interrupt, put, start};
