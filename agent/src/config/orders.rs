//! `[orders]`: who may give this node its part of a plan across nodes.

use std::collections::BTreeMap;

use homeostat_common::ids::NodeId;
use homeostat_common::saga::INITIATORS_MAX;
use homeostat_common::wire::seal::{self, Trusted};
use toml::de::DeValue;

use super::fields::{Fields, Wanted, texts};

/// Whose orders are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orders {
    /// `trusted`, default nobody: public keys by the name of the initiator, such as
    /// `{ coordinator = "9f86.." }`; the coordinator prints its own with
    /// `homeostat plan key`, another node with `homeostat-agent key`.
    pub trusted: Trusted,
}

pub(super) fn orders(mut at: Fields<'_, '_>) -> Orders {
    let orders = Orders {
        trusted: at.or("trusted", Trusted::default(), |value| trusted(value)),
    };
    at.finish();
    orders
}

fn trusted(value: &DeValue<'_>) -> Result<Trusted, Wanted> {
    let keys: BTreeMap<String, String> = texts(INITIATORS_MAX)(value)?;
    let mut trusted = Trusted::default();
    for (by, key) in keys {
        let name = NodeId::new(&by).map_err(|error| format!("{by}: {error}"))?;
        seal::from_hex(&key)
            .and_then(|key| trusted.trust(name, &key))
            .map_err(|error| format!("{by}: {error}"))?;
    }
    Ok(trusted)
}
