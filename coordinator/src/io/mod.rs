//! The shell: MQTT, HTTP, the database, and the embedded broker.

pub mod alertmanager;
pub mod broker;
pub mod config;
pub mod counts;
pub mod db;
pub mod devices;
pub mod http;
pub mod incidents;
pub mod mqtt;
pub mod secret;
