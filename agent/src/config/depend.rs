//! `[[dependency]]`: what the node needs elsewhere, and how it is asked.

use std::net::SocketAddr;

use homeostat_common::observation::{PART_MAX, Part};
use homeostat_common::units::Millis;
use toml::de::DeValue;

use super::fields::{Fields, Wanted, choice, span, text, whole};

/// Most dependencies; each is a task and a connection every so often.
pub const DEPENDENCIES_MAX: usize = 16;

/// What the node needs elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// `name`, required: the part of its readings.
    pub name: Part,
    /// `address`, required: `10.0.0.7:1883`; no names.
    pub address: SocketAddr,
    /// `kind`, default `tcp`, and its keys.
    pub asked: Asked,
    /// `every`, default 10 s.
    pub every: Millis,
    /// `timeout`, default 2 s.
    pub timeout: Millis,
}

/// How it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Whether a connection is accepted.
    Tcp,
    /// Whether a GET is answered.
    Http {
        /// `path`, default `/`.
        path: String,
        /// `expect_status`, default 200.
        status: u16,
    },
    /// `status-page`: how bad a third party says it is.
    StatusPage {
        /// `path`, default `/api/v2/status.json`.
        path: String,
    },
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp,
    Http,
    Page,
}

pub(super) fn dependency(mut at: Fields<'_, '_>) -> Option<Dependency> {
    let name = at.required("name", part);
    let address = at.required("address", |value| {
        text(value)?
            .parse::<SocketAddr>()
            .map_err(|_| "expected an address and a port, such as \"10.0.0.7:1883\"".into())
    });
    let kinds = [
        ("tcp", Kind::Tcp),
        ("http", Kind::Http),
        ("status-page", Kind::Page),
    ];
    let asked = match at.or("kind", Kind::Tcp, choice(&kinds)) {
        Kind::Tcp => Asked::Tcp,
        Kind::Http => Asked::Http {
            path: at.or("path", "/".into(), path),
            status: at.or("expect_status", 200, |value| {
                let status = whole(100..=599)(value)?;
                u16::try_from(status).map_err(|error| error.to_string())
            }),
        },
        Kind::Page => Asked::StatusPage {
            path: at.or("path", "/api/v2/status.json".into(), path),
        },
    };
    let every = at.or(
        "every",
        Millis::secs(10),
        span(Millis::secs(1)..=Millis::secs(3600)),
    );
    let timeout = at.or(
        "timeout",
        Millis::secs(2),
        span(Millis(10)..=Millis::secs(60)),
    );
    if timeout > every {
        at.wrong("timeout", format!("expected at most every, {every}"));
    }
    at.finish();
    Some(Dependency {
        name: name?,
        address: address?,
        asked,
        every,
        timeout,
    })
}

pub(super) fn part(value: &DeValue<'_>) -> Result<Part, Wanted> {
    Part::new(&text(value)?).ok_or_else(|| {
        format!("expected 1 to {PART_MAX} bytes of ASCII, without spaces and quotes")
    })
}

/// Of a request line: nothing that could end it.
fn path(value: &DeValue<'_>) -> Result<String, Wanted> {
    let path = text(value)?;
    let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    plain
        .then_some(path)
        .ok_or_else(|| "expected a path that begins with '/', without spaces".into())
}
