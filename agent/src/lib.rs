//! The agent: heals one node, with or without the cloud.
//!
//! A folder per stage (`detect`, `diagnose`, `plan`, `verify`, `execute`,
//! `learn`), the loop that joins them in [`control`], the shell that touches
//! the operating system in [`io`]. What the stages share about a service is in
//! [`service`], about a route in [`route`], about faults on purpose in [`chaos`].

pub mod chaos;
pub mod cli;
pub mod config;
pub mod control;
pub mod detect;
pub mod diagnose;
pub mod execute;
pub mod io;
pub mod learn;
pub mod plan;
pub mod route;
pub mod selftest;
pub mod sense;
pub mod service;
pub mod verify;
pub mod words;
