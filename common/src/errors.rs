//! Errors in words.

use alloc::string::{String, ToString as _};

/// An error with all its causes, for a log line, an alarm or an answer.
///
/// ```
/// # use homeostat_common::errors::chain;
/// #[derive(Debug, thiserror::Error)]
/// #[error("cannot read the port")]
/// struct Port(#[source] std::num::ParseIntError);
///
/// let error = Port("x".parse::<u16>().unwrap_err());
/// assert_eq!(chain(&error), "cannot read the port: invalid digit found in string");
/// ```
#[must_use]
pub fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
