//! The real agent, spawner, broker and coordinator, each a process of its own, against real
//! faults. Needs no network and no fixed port; what needs root, strace or mosquitto says
//! `skip:` where that is missing.

#![allow(clippy::unwrap_used)]

mod chaos;
mod cloud;
mod damage;
mod garbage;
mod killed;
mod local;
mod mqtt;
mod others;
mod people;
mod rig;
mod rival;
mod sagas;
mod why;
