//! The shell: whatever touches the operating system.

pub mod store;
