//! Who may ask for more than to look: whoever may read the operator's token in the data
//! folder. A page of somebody else's cannot, as it neither has the token nor may send
//! such a header here.

use axum::http::{HeaderMap, StatusCode, header};

use super::problem;
use crate::control::Hub;
use crate::fleet::view::Problem;

/// Refuses a request without the operator's token.
pub(super) fn operator(hub: &Hub, headers: &HeaderMap) -> Result<(), Problem> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if token.is_some_and(|token| same(token.as_bytes(), hub.token.as_bytes())) {
        return Ok(());
    }
    Err(problem(
        StatusCode::UNAUTHORIZED,
        "the operator's token is needed: operator.token in the coordinator's data folder",
    ))
}

/// Longest name of a person: it is shown, and sent in notices.
const NAME_MAX: usize = 64;

/// The name of whoever says that it is them.
pub(super) fn name(by: &str) -> Result<&str, Problem> {
    let by = by.trim();
    if by.is_empty() || by.len() > NAME_MAX || by.chars().any(char::is_control) {
        let text = format!("by: expected a name of 1 to {NAME_MAX} bytes");
        return Err(problem(StatusCode::BAD_REQUEST, &text));
    }
    Ok(by)
}

/// Compares in a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
