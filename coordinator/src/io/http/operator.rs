//! Who may ask for more than to look: whoever may read the operator's token in the data
//! folder. A page of somebody else's cannot, as it neither has the token nor may send
//! such a header here.

use axum::http::{HeaderMap, StatusCode, header};

use super::problem;
use crate::control::Hub;
use crate::fleet::view::Problem;

/// Refuses a request without the operator's token.
pub(super) fn operator(hub: &Hub, headers: &HeaderMap) -> Result<(), Problem> {
    if bears(headers, &hub.token) {
        return Ok(());
    }
    Err(problem(
        StatusCode::UNAUTHORIZED,
        "the operator's token is needed: operator.token in the coordinator's data folder",
    ))
}

/// Refuses a request with neither the intake's token nor the operator's.
pub(super) fn teller(hub: &Hub, headers: &HeaderMap) -> Result<(), Problem> {
    if bears(headers, &hub.outside.token) || bears(headers, &hub.token) {
        return Ok(());
    }
    Err(problem(
        StatusCode::UNAUTHORIZED,
        "a bearer token is needed: intake.token in the coordinator's data folder",
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

fn bears(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    shown.is_some_and(|shown| same(shown.as_bytes(), token.as_bytes()))
}

/// Compares in a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
