//! `[service.hooks]`: what a service offers to do on demand.
//!
//! Each is a path that a POST on loopback goes to; the service answers with a
//! status from 200 to 299 once it is done, and takes the header `idempotency-key`
//! for what it is. Nothing else is ever called: no command, no other host.

use std::collections::BTreeMap;

use super::fields::Fields;
use super::sections::{port, url_path};

/// What a service may offer to do on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Forget its cache.
    FlushCache,
    /// Open its connections to others anew.
    ResetPool,
    /// Do less.
    Degrade,
    /// Do all it can again.
    Undegrade,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 4] = [
        Self::FlushCache,
        Self::ResetPool,
        Self::Degrade,
        Self::Undegrade,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FlushCache => "flush-cache",
            Self::ResetPool => "reset-pool",
            Self::Degrade => "degrade",
            Self::Undegrade => "undegrade",
        }
    }
}

/// What one service offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// `port`, required: on 127.0.0.1.
    pub port: u16,
    /// `flush-cache`, `reset-pool`, `degrade` with `undegrade`: the paths.
    pub paths: BTreeMap<Hook, String>,
}

pub(super) fn hooks(mut at: Fields<'_, '_>) -> Option<Hooks> {
    if !at.present() {
        return None;
    }
    let port = at.required("port", port);
    let paths: BTreeMap<Hook, String> = Hook::ALL
        .into_iter()
        .filter_map(|hook| Some((hook, at.optional(hook.name(), url_path)?)))
        .collect();
    // One without the other could not be taken back.
    for (one, other) in [
        (Hook::Degrade, Hook::Undegrade),
        (Hook::Undegrade, Hook::Degrade),
    ] {
        if at.has(one.name()) && !at.has(other.name()) {
            at.wrong(one.name(), format!("needs {} as well", other.name()));
        }
    }
    at.finish();
    Some(Hooks { port: port?, paths })
}
