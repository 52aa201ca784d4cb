//! Faults on purpose: which there are, how long they may last, and how one is asked for.
//!
//! The words that command line, loop and spawner have in common. The loop says whether a
//! fault may be put into a service now (`control::chaos`), the spawner does it and ends it
//! (`io::spawner::chaos`). Nothing is done here.

use core::fmt;
use core::str::FromStr;

use homeostat_common::ids::ServiceId;
use homeostat_common::units::Millis;
use serde::{Deserialize, Serialize};

use crate::config::{self, Mode};

/// Longest time that a fault lasts: long enough for every detector, short enough that
/// whoever forgot about it is not called by somebody else.
pub const SPAN_MAX: Millis = Millis::secs(300);

/// Shortest: below that no detector has a chance.
pub const SPAN_MIN: Millis = Millis::secs(1);

/// Whether the configuration lets nobody break a service.
///
/// # Errors
/// Why not, in words.
pub fn forbidden(node: Mode, service: &config::Service) -> Result<(), String> {
    let id = &service.id;
    if !service.chaos {
        return Err(format!("{id} has not opted in with chaos = true"));
    }
    if service.protected {
        return Err(format!("{id} is protected"));
    }
    for (whose, mode) in [("this node", node), (id.as_str(), service.mode)] {
        if mode != Mode::Act {
            return Err(format!(
                "the mode of {whose} is {mode} and not {}: nobody would heal it unasked",
                Mode::Act
            ));
        }
    }
    Ok(())
}

/// What is put into a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Injection {
    /// SIGKILL.
    Kill,
    /// Each of its threads is held still: it lives, and answers nothing.
    Block,
    /// SIGSTOP: the same, and the kernel says so.
    Sigstop,
    /// Somebody beside it in its group takes more and more memory.
    Leak,
    /// Somebody beside it in its group takes the memory that it may have.
    Oom,
    /// Its data folder is filled up to the quota.
    DataFull,
    /// Bytes of its model are turned round where they stand.
    CorruptModel,
    /// Bytes of its configuration are turned round where they stand.
    BadConfig,
    /// It may have no more descriptors than it has.
    Descriptors,
    /// Somebody beside it in its group burns the node's processors.
    Hog,
}

impl Injection {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Kill,
        Self::Block,
        Self::Sigstop,
        Self::Leak,
        Self::Oom,
        Self::DataFull,
        Self::CorruptModel,
        Self::BadConfig,
        Self::Descriptors,
        Self::Hog,
    ];

    /// What is done, for people.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Kill => "its process is killed",
            Self::Block => "each of its threads is held still",
            Self::Sigstop => "its process is stopped (SIGSTOP)",
            Self::Leak => "more and more of the memory that its group may have is taken",
            Self::Oom => "the memory that its group may have is taken by others",
            Self::DataFull => "its data folder is filled up to the quota",
            Self::CorruptModel => "bytes of its model are turned round",
            Self::BadConfig => "bytes of its configuration are turned round",
            Self::Descriptors => "it may open no more files and sockets than are open",
            Self::Hog => "all processors of the node are kept busy",
        }
    }

    /// Whether there is something to end.
    #[must_use]
    pub fn lasts(self) -> bool {
        self != Self::Kill
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Block => "block",
            Self::Sigstop => "sigstop",
            Self::Leak => "leak",
            Self::Oom => "oom",
            Self::DataFull => "data-full",
            Self::CorruptModel => "corrupt-model",
            Self::BadConfig => "bad-config",
            Self::Descriptors => "descriptors",
            Self::Hog => "hog",
        })
    }
}

/// Not a fault that can be put into a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault; there are {list}", list = names())]
pub struct UnknownInjection(String);

fn names() -> String {
    Injection::ALL.map(|one| one.to_string()).join(", ")
}

impl FromStr for Injection {
    type Err = UnknownInjection;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.to_string() == text);
        found.ok_or_else(|| UnknownInjection(text.chars().take(32).collect()))
    }
}

/// A fault that somebody wishes for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where.
    pub service: ServiceId,
    /// What.
    pub injection: Injection,
    /// For how long at most.
    pub span: Millis,
    /// Who asks, in words.
    pub who: String,
}

impl Wish {
    /// How it is asked for on the agent's socket.
    #[must_use]
    pub fn question(service: &ServiceId, injection: Injection, span: Millis) -> String {
        format!("chaos {injection} {service} {}", span.0)
    }

    /// Reads what follows `chaos ` on the socket.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str, who: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [injection, service, span] = words.as_slice() else {
            return Err("expected a fault, a service and a number of milliseconds".into());
        };
        let injection = injection
            .parse()
            .map_err(|error: UnknownInjection| error.to_string())?;
        let service = ServiceId::new(service).map_err(|error| error.to_string())?;
        let span = span
            .parse()
            .map(Millis)
            .map_err(|error| format!("{span:?}: {error}"))?;
        if !(SPAN_MIN..=SPAN_MAX).contains(&span) {
            return Err(format!(
                "a fault lasts from {SPAN_MIN} to {SPAN_MAX}, not {span}"
            ));
        }
        Ok(Self {
            service,
            injection,
            span,
            who,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_back_and_nonsense_is_refused_in_words() {
        let web = ServiceId::new("web").unwrap();
        for injection in Injection::ALL {
            let text = Wish::question(&web, injection, Millis::secs(30));
            let rest = text.strip_prefix("chaos ").unwrap();
            let wish = Wish::parse(rest, "uid 0".into()).unwrap();
            assert_eq!(
                (wish.service, wish.injection, wish.span),
                (web.clone(), injection, Millis::secs(30))
            );
        }
        let refused = |text: &str| Wish::parse(text, String::new()).unwrap_err();
        assert!(refused("earthquake web 1000").contains("data-full"));
        assert!(refused("kill web 999").contains("not 999ms"));
        assert!(refused("kill web 300001").contains("from"));
        assert!(refused("kill ../web 1000").len() > 3);
        assert!(refused("kill web").contains("expected"));
    }
}
