//! What the recorded process says of itself: a line for each order, before it is given, and
//! for each promise, after it was made.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use homeostat_agent::control::Class;
use homeostat_agent::io::slots::Name;
use homeostat_common::ids::ModelVersion;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The store is open, and this is its last event. Whatever it found is safe.
    Opened(u64),
    /// An event with this number in it is given to the store.
    Event(Class, u64),
    /// The store is told to write what waits, and to close.
    Closing,
    Heal(u64),
    Saved(u64),
    Quiet,
    Acked(u64),
    Sync,
    /// What was ordered before the last [`Mark::Sync`] is safe.
    Synced,
    /// The store has handed out the event of this place, with that number in it; a gap has
    /// none.
    Left(u64, Option<u64>),
    /// So much was learnt and is said to be kept.
    Learnt(u32),
    /// A version is said to be good and kept.
    Good(Slotted, ModelVersion),
}

/// A slot's name, by its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slotted(pub(super) Name);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened(last) => write!(f, "opened {last}"),
            Self::Event(class, number) => write!(f, "event {} {number}", *class as u8),
            Self::Closing => f.write_str("closing"),
            Self::Heal(number) => write!(f, "heal {number}"),
            Self::Saved(number) => write!(f, "saved {number}"),
            Self::Quiet => f.write_str("quiet"),
            Self::Acked(seq) => write!(f, "acked {seq}"),
            Self::Sync => f.write_str("sync"),
            Self::Synced => f.write_str("synced"),
            Self::Left(seq, Some(number)) => write!(f, "left {seq} {number}"),
            Self::Left(seq, None) => write!(f, "left {seq} gap"),
            Self::Learnt(count) => write!(f, "learnt {count}"),
            Self::Good(name, version) => write!(f, "good {} {version}", name.0),
        }
    }
}

impl FromStr for Mark {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.trim().split(' ').collect();
        let number = |text: &str| text.parse::<u64>().context("a number");
        Ok(match words[..] {
            ["opened", last] => Self::Opened(number(last)?),
            ["event", class, id] => {
                let classes = [Class::Telemetry, Class::State, Class::Heal];
                let class = classes
                    .into_iter()
                    .find(|one| (*one as u8).to_string() == class);
                Self::Event(class.context("a class")?, number(id)?)
            }
            ["closing"] => Self::Closing,
            ["heal", id] => Self::Heal(number(id)?),
            ["saved", id] => Self::Saved(number(id)?),
            ["quiet"] => Self::Quiet,
            ["acked", seq] => Self::Acked(number(seq)?),
            ["sync"] => Self::Sync,
            ["synced"] => Self::Synced,
            ["left", seq, "gap"] => Self::Left(number(seq)?, None),
            ["left", seq, id] => Self::Left(number(seq)?, Some(number(id)?)),
            ["learnt", count] => Self::Learnt(count.parse()?),
            ["good", name, version] => {
                let name = name.parse().map_err(anyhow::Error::msg)?;
                Self::Good(Slotted(name), version.parse()?)
            }
            _ => bail!("{line:?} is no mark"),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_reads_back() {
        for mark in [
            Mark::Opened(7),
            Mark::Event(Class::Heal, 8),
            Mark::Closing,
            Mark::Heal(9),
            Mark::Saved(10),
            Mark::Quiet,
            Mark::Acked(1),
            Mark::Sync,
            Mark::Synced,
            Mark::Left(3, None),
            Mark::Left(4, Some(8)),
            Mark::Learnt(2),
            Mark::Good(Slotted(Name::Model), ModelVersion([7; 8])),
        ] {
            assert_eq!(mark.to_string().parse::<Mark>().unwrap(), mark);
        }
        assert!("left".parse::<Mark>().is_err());
    }
}
