//! What ends each incident of the catalogue, from `repairs.toml`; for the tests alone, no policy
//! reads it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// What can be done about an incident.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Repair {
    /// Orders that end it.
    Ends(&'static [String]),
    /// It passes by itself; orders that make it shorter.
    Eases(&'static [String]),
    /// Nothing ends it; orders that contain it.
    Contain(&'static [String]),
}

impl Repair {
    pub(crate) fn orders(self) -> &'static [String] {
        match self {
            Self::Ends(orders) | Self::Eases(orders) | Self::Contain(orders) => orders,
        }
    }
}

/// The repair of an incident, each order a plan of one node.
pub(crate) fn repair(name: &str) -> Option<Repair> {
    let of = |table: &'static Table| table.get(name).map(Vec::as_slice);
    let ends = of(&REPAIRS.ends).map(Repair::Ends);
    ends.or_else(|| of(&REPAIRS.eases).map(Repair::Eases))
        .or_else(|| of(&REPAIRS.contain).map(Repair::Contain))
}

/// The incidents of which a repair is known here, a name twice if two are.
pub(crate) fn names() -> impl Iterator<Item = &'static String> {
    let tables = [&REPAIRS.ends, &REPAIRS.eases, &REPAIRS.contain];
    tables.into_iter().flat_map(BTreeMap::keys)
}

type Table = BTreeMap<String, Vec<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repairs {
    ends: Table,
    eases: Table,
    contain: Table,
}

static REPAIRS: LazyLock<Repairs> =
    LazyLock::new(|| toml::from_str(include_str!("repairs.toml")).unwrap());
