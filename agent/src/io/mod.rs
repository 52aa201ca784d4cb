//! The shell: whatever touches the operating system. Feeds events into the loop and
//! carries its effects out; decides nothing.

pub mod certificate;
pub mod clock;
pub mod data;
pub mod depend;
pub mod forward;
mod hook;
pub mod keeper;
pub mod link;
pub mod local;
pub mod logs;
pub mod mcu;
pub mod probe;
pub mod procfs;
pub mod secret;
pub mod shell;
pub mod slots;
pub mod spawner;
pub mod stop_file;
pub mod store;
pub mod thermal;
