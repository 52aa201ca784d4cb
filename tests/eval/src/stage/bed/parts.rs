//! What each node of a bed consists of: its configuration, and a file for each unit.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use homeostat_sim::topology::{Offer, Replica, Route};
use homeostat_testbed::{Kind, Port, SERVICE_ARG, ServiceSpec, UnitCall, UnitSpec};

use super::{Bed, PROCESSOR, Ports, QUOTA, errands, far, out};
use crate::stage::fleet::{PREPROCESS, PREPROCESS_FILE, quoted};
use crate::stage::node::{Layout, Served};
use crate::stage::role::{FORWARD_ARG, program};
use crate::stage::unbounded;

/// How long who calls a cache waits, in milliseconds: one that takes longer is slower than what it
/// saves.
const CACHE_PATIENCE_MS: u64 = 200;

/// Agents that only look, and orders that nothing holds back.
fn sections() -> String {
    format!("\n{}\n[sample]\nperiod = \"1s\"\n", unbounded("observe"))
}

const SERVICE: &str = "stop_grace = \"500ms\"\nstart_timeout = \"25s\"";
const PROBE: &str =
    "kind = \"http\"\npath = \"/healthz\"\nperiod = \"500ms\"\ntimeout = \"300ms\"\nmisses = 2";
const ROUTE: &str = "connect_timeout = \"50ms\"\npatience = \"0s\"\nrate_min = \"1/s\"";

/// Everything that is fixed, as text to be hashed.
pub(super) fn settings() -> String {
    let sections = sections();
    format!("{sections}\n{SERVICE}\n{PROBE}\n{ROUTE}\n{PROCESSOR} {QUOTA}")
}

/// A name as the stage keeps it: for as long as the program runs. There are no more of
/// them than in the topologies that were read.
fn name(text: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(one) = known.get(text) {
        return one;
    }
    let one: &'static str = Box::leak(text.to_owned().into_boxed_str());
    known.insert(one);
    one
}

pub(super) fn write_spec(folder: &Path, spec: &UnitSpec) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(format!("{}.json", spec.name));
    fs::write(&file, serde_json::to_string_pretty(spec)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// What one node consists of; the files of its units are written.
pub(super) fn layout(bed: &Bed, node: usize, kept: &mut Ports) -> Result<Layout> {
    let known = &bed.topology.nodes()[node];
    let id = name(known.name.as_str());
    let dir = bed.dir.join(id);
    let own = quoted(program().context("cannot find the own program")?)?;
    let mut text = format!(
        "[node]\nid = \"{id}\"\ndata_dir = {}\nrun_dir = {}\n\n[mqtt]\n{}\n",
        quoted(dir.join("data"))?,
        quoted(dir.join("run"))?,
        sections()
    );
    let routes = bed.topology.routes().iter();
    let routes: Vec<&Route> = routes
        .filter(|route| route.at.at() == node && route.outside_ms.is_none())
        .collect();
    if !routes.is_empty() {
        let config = quoted(dir.join("agent.toml"))?;
        let _ = writeln!(
            text,
            "[forwarder]\ncommand = [{own}, \"{FORWARD_ARG}\", \"--config\", {config}]"
        );
    }
    let hooks = bed.topology.webhooks().iter();
    for hook in hooks.filter(|hook| errands::KNOWN.contains(&hook.does)) {
        let (name, url) = (&hook.name, bed.errands.url(hook.does));
        let secret = quoted(bed.errands.secret_file())?;
        let _ = writeln!(
            text,
            "[[webhook]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret_file = {secret}\nevents = []\n"
        );
    }
    let mut served = Vec::new();
    for no in &known.replicas {
        let replica = bed.replica(*no);
        let port = kept.remove(replica.name.as_str());
        let port = port.context("each replica has a port")?;
        let each = service(bed, replica, port, &dir)?;
        text.push_str(&block(bed, replica, &each, &dir, &own)?);
        served.push(each);
    }
    for route in routes {
        let listen = bed.port(route.name.as_str())?.port();
        let _ = writeln!(
            text,
            "\n[[forward]]\nid = \"{}\"\nlisten = {listen}\n{ROUTE}",
            route.name
        );
        for no in &route.replicas {
            let backend = bed.replica(*no);
            let weight = if backend.standby { "\nweight = 0" } else { "" };
            if backend.node.at() == node {
                let name = &backend.name;
                let _ = writeln!(text, "[[forward.backend]]\nservice = \"{name}\"{weight}");
                continue;
            }
            let far = far(backend);
            let through = bed
                .links
                .iter()
                .any(|(_, it)| bed.port(&far).is_ok_and(|at| at == it.address()));
            let port = if through { &far } else { backend.name.as_str() };
            let at = bed.port(port)?;
            let name = &backend.name;
            let _ = writeln!(
                text,
                "[[forward.backend]]\nid = \"{name}\"\naddress = \"{at}\"{weight}"
            );
        }
    }
    Ok(Layout {
        id,
        dir,
        served,
        text,
        service_config: PREPROCESS,
    })
}

/// A unit's file and what starts it.
fn service(bed: &Bed, replica: &Replica, port: Port, dir: &Path) -> Result<Served> {
    let node = replica.node.at();
    let route = &bed.topology.routes()[replica.route.at()];
    // Milliseconds that were read within bounds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let timeout_ms = bed.topology.habits().timeout_ms.round() as u64;
    let called = |place: usize| &bed.topology.routes()[route.calls[place].to.at()];
    let mut calls = Vec::new();
    for (place, call) in route.calls.iter().enumerate() {
        let to = called(place);
        let port = match to.outside_ms {
            Some(_) => bed.port(&out(to.name.as_str(), node))?,
            None => bed.port(to.name.as_str())?,
        };
        calls.push(UnitCall {
            to: port.into(),
            share: call.share,
            needed: call.needed,
            cache: to.hit > 0.0,
            behind_cache: call.behind.is_some(),
            patience_ms: if to.hit > 0.0 {
                CACHE_PATIENCE_MS
            } else {
                timeout_ms
            },
        });
    }
    let of_route = |folder: &str| bed.dir.join(folder).join(route.name.as_str());
    let locks = of_route("locks");
    fs::create_dir_all(&locks).with_context(|| format!("cannot make {}", locks.display()))?;
    let credential = route.writes.then(|| bed.credential(route.name.as_str()));
    if let Some(folder) = &credential {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("serial"), "1")?;
    }
    let slot = dir.join("slots").join(replica.name.as_str());
    let spec = UnitSpec {
        rate: route.rate,
        duty: (route.cores / PROCESSOR).min(1.0),
        memory_mb: route.memory_mb,
        start_s: route.start_s,
        calls,
        cache: route.hit > 0.0,
        slot: route.model.then(|| slot.clone()),
        config: configured(route).then(|| slot.join("current").join(PREPROCESS_FILE)),
        data: route.writes.then(|| (dir.join("disk"), QUOTA)),
        lock: (!route.writes).then(|| locks.join("work.lock")),
        credential,
        groups: bed.cages.doors(node),
        ..UnitSpec::bare(replica.name.as_str(), route.rate)
    };
    let folder = dir.join("units");
    let name = name(replica.name.as_str());
    Ok(Served {
        name,
        spec: ServiceSpec {
            kind: Kind::Unit {
                spec: write_spec(&folder, &spec)?,
            },
            port: port.number(),
            control: Some(dir.join("run").join(format!("{name}.control"))),
            die_with_parent: true,
        },
        port,
        standby: replica.standby,
    })
}

/// Whether a service reads a configuration when it starts.
#[must_use]
pub fn configured(route: &Route) -> bool {
    route.name.as_str() == "preprocess"
}

/// A service's block of the configuration file.
fn block(bed: &Bed, replica: &Replica, each: &Served, dir: &Path, own: &str) -> Result<String> {
    let route = &bed.topology.routes()[replica.route.at()];
    let slot = dir.join("slots").join(each.name);
    let mut command = vec![own.to_owned()];
    for arg in each.spec.args() {
        command.push(quoted(arg)?);
    }
    let (name, port) = (each.name, each.spec.port);
    let mut text = format!(
        "\n[[service]]\nid = \"{name}\"\ncommand = [{}]\nports = [{port}]\n{SERVICE}\n",
        command.join(", ")
    );
    if replica.standby {
        text.push_str("standby = true\n");
    }
    if configured(route) {
        let _ = writeln!(
            text,
            "[service.config]\nslot = {}\nfile = \"{PREPROCESS_FILE}\"\nformat = \"toml\"\n\
             check = [{own}, \"{SERVICE_ARG}\", \"preprocess\", \"--check\"]",
            quoted(&slot)?
        );
    }
    if route.model {
        let _ = writeln!(
            text,
            "[service.model]\nslot = {}\nreload = \"watch\"",
            quoted(&slot)?
        );
    }
    if route.writes {
        let _ = writeln!(
            text,
            "[service.data]\npath = {}\nquota = \"{}MiB\"\nprune = [\"*.old\"]",
            quoted(dir.join("disk"))?,
            QUOTA >> 20
        );
    } else {
        let locks = bed.dir.join("locks").join(route.name.as_str());
        let _ = writeln!(
            text,
            "[service.data]\npath = {}\nquota = \"1MiB\"\nlocks = [\"*.lock\"]",
            quoted(locks)?
        );
    }
    let mut hooks = String::new();
    for (offer, paths) in [
        (Offer::FlushCache, &["flush-cache"][..]),
        (Offer::ResetPool, &["reset-pool"]),
        (Offer::Degrade, &["degrade", "undegrade"]),
    ] {
        for path in paths.iter().filter(|_| route.offers.contains(&offer)) {
            let _ = writeln!(hooks, "{path} = \"/{path}\"");
        }
    }
    if !hooks.is_empty() {
        let _ = write!(text, "[service.hooks]\nport = {port}\n{hooks}");
    }
    let _ = writeln!(text, "[[service.probe]]\n{PROBE}");
    Ok(text)
}
