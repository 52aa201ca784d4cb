//! The shell: MQTT, HTTP, the database, and the embedded broker.

pub mod broker;
pub mod config;
pub mod db;
pub mod http;
pub mod incidents;
pub mod mqtt;
pub mod secret;
