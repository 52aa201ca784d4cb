//! The agent: heals one node, with or without the cloud.

pub mod config;
pub mod io;
