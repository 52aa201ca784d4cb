//! `[[forward]]`: TCP in front of replicated services.
//!
//! In go the tables of the file and the services read before them, out come routes whose
//! backends are all addresses: a backend that names a service of this node has been given
//! its port. Host names are not taken, because the forwarder must not wait for a resolver.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use homeostat_common::ids::{RouteId, ServiceId};
use homeostat_common::net::SourceNet;
use homeostat_common::units::{Bytes, Millis, PerSecond};
use toml::de::DeValue;

use super::fields::{Fields, Wanted, choice, list, parsed, span, text, whole};
use super::problems::Problems;
use super::sections::{TIMEOUT_PERIODS, either, narrow, port, small, url_path};
use super::{Config, Criticality, Process, Service};

/// Most forwards of one node: all of them fit into one message of the control socket.
pub const FORWARDS_MAX: usize = 16;
/// Most backends of one forward, for the same reason.
pub const BACKENDS_MAX: usize = 16;
/// Largest weight; enough for shares of a tenth of a percent.
pub const WEIGHT_MAX: u16 = 1000;

/// Most ranges of addresses that one forward may refuse.
pub const BLOCKABLE_MAX: usize = 16;

/// TCP in front of replicas of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// `id`, required; unique among forwards and services.
    pub id: RouteId,
    /// `listen`, required: a port on 127.0.0.1, or address and port.
    pub listen: SocketAddr,
    /// `connect_timeout`, default 50 ms, then the next backend is tried.
    pub connect_timeout: Millis,
    /// `patience`, default 1 s: how long a connection waits for a backend that accepts
    /// before it is closed.
    pub patience: Millis,
    /// `first_byte`, default off: a backend that answers nothing for so long has failed.
    pub first_byte: Option<Millis>,
    /// `rate_min`, default none: new connections may be limited, to no less than
    /// this; without it they may not be limited.
    pub rate_min: Option<PerSecond>,
    /// `blockable`, default none: addresses that may be refused.
    pub blockable: Vec<SourceNet>,
    /// `[forward.check]`, default none.
    pub check: Option<Check>,
    /// `[[forward.backend]]`, at least one.
    pub backends: Vec<Backend>,
}

/// A regular question to each backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `kind`, default tcp.
    pub kind: CheckKind,
    /// `period`, default 1 s.
    pub period: Millis,
    /// `timeout`, default 500 ms.
    pub timeout: Millis,
    /// `misses`, default 2 failures in a row take a backend out ...
    pub misses: u8,
    /// `rises`, default 2: ... and as many successes bring it back.
    pub rises: u8,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Whether a connection is accepted.
    Tcp,
    /// Whether a GET is answered with a status from 200 to 399.
    Http {
        /// `path`, default `/`.
        path: String,
    },
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `id`, required with `address`, default the service's name.
    pub id: ServiceId,
    /// `service` of this node that is meant, if it is one.
    pub service: Option<ServiceId>,
    /// `address`, or the only port of `service` on 127.0.0.1.
    pub address: SocketAddr,
    /// `weight`, default 100; 0 is a standby, which gets nothing until a weight is set.
    pub weight: u16,
}

/// The services a backend can name: id and ports, in which order does not matter.
pub(super) struct Known<'s> {
    pub(super) services: Vec<(&'s ServiceId, &'s [u16])>,
    /// Whether all services could be read; if not, one that is missing here may exist.
    pub(super) complete: bool,
}

pub(super) fn forward(mut at: Fields<'_, '_>, known: &Known<'_>) -> Option<Forward> {
    let id = at.required("id", parsed(RouteId::new));
    let listen = at.required("listen", listen);
    let connect_timeout = at.or(
        "connect_timeout",
        Millis(50),
        span(Millis(1)..=Millis::secs(60)),
    );
    let patience = at.or(
        "patience",
        Millis::secs(1),
        span(Millis(0)..=Millis::secs(60)),
    );
    let first_byte = at.or("first_byte", Millis(0), span(Millis(0)..=Millis::secs(600)));
    let rate_min = at.optional("rate_min", parsed(str::parse::<PerSecond>));
    let blockable = at.or(
        "blockable",
        Vec::new(),
        list(BLOCKABLE_MAX, |value| {
            parsed(str::parse::<SourceNet>)(value)
        }),
    );
    let check = check(at.table("check"));
    let found = at.tables("backend", BACKENDS_MAX);
    let count = found.len();
    if count == 0 && !at.has("backend") {
        at.missing(
            "backend",
            "is required: at least one [[forward.backend]] with service or address",
        );
    }
    let backends: Vec<Backend> = found
        .into_iter()
        .filter_map(|fields| backend(fields, known))
        .collect();
    at.finish();
    (!backends.is_empty() && backends.len() == count).then_some(())?;
    Some(Forward {
        id: id?,
        listen: listen?,
        connect_timeout,
        patience,
        first_byte: (first_byte.0 > 0).then_some(first_byte),
        rate_min,
        blockable,
        check,
        backends,
    })
}

fn check(mut at: Fields<'_, '_>) -> Option<Check> {
    if !at.present() {
        return None;
    }
    let http = at.or("kind", false, choice(&[("tcp", false), ("http", true)]));
    let kind = if http {
        CheckKind::Http {
            path: at.or("path", "/".into(), url_path),
        }
    } else {
        CheckKind::Tcp
    };
    let check = Check {
        kind,
        period: at.or(
            "period",
            Millis::secs(1),
            span(Millis(10)..=Millis::secs(3600)),
        ),
        timeout: at.or("timeout", Millis(500), span(Millis(1)..=Millis::secs(60))),
        misses: at.or("misses", 2, small(1, 100)),
        rises: at.or("rises", 2, small(1, 100)),
    };
    if check.timeout.0 > check.period.0.saturating_mul(TIMEOUT_PERIODS) {
        at.wrong(
            either(&at, "timeout", "period"),
            format!(
                "timeout ({}) must not be above {TIMEOUT_PERIODS} periods ({})",
                check.timeout, check.period
            ),
        );
    }
    at.finish();
    Some(check)
}

fn backend(mut at: Fields<'_, '_>, known: &Known<'_>) -> Option<Backend> {
    let service = at.optional("service", parsed(ServiceId::new));
    let address = at.optional("address", address);
    let id = at.optional("id", parsed(ServiceId::new));
    let weight = at.or("weight", 100, |value| {
        whole(0..=u64::from(WEIGHT_MAX))(value).map(narrow)
    });
    match (at.has("service"), at.has("address")) {
        (true, true) => at.wrong("address", "give either service or address"),
        (false, false) => at.missing("service", "service or address is required"),
        (false, true) if !at.has("id") => at.missing("id", "is required with address"),
        _ => {}
    }
    let address = match &service {
        Some(service) if !at.has("address") => port_of(&at, service, known),
        _ => address,
    };
    at.finish();
    Some(Backend {
        id: id.or_else(|| service.clone())?,
        service,
        address: address?,
        weight,
    })
}

fn port_of(at: &Fields<'_, '_>, service: &ServiceId, known: &Known<'_>) -> Option<SocketAddr> {
    let found = known.services.iter().find(|(id, _)| *id == service);
    match found {
        Some((_, [port])) => return Some((Ipv4Addr::LOCALHOST, *port).into()),
        Some((_, ports)) => at.wrong(
            "service",
            format!("must have exactly one port, {service} has {}", ports.len()),
        ),
        None if known.complete => at.wrong("service", format!("there is no service {service}")),
        None => {}
    }
    None
}

/// What has to agree across forwards and services.
pub(super) fn across(config: &Config, problems: &mut Problems<'_>) {
    let mut ids: BTreeSet<&str> = config.services.iter().map(|it| it.id.as_str()).collect();
    let mut listens: Vec<(SocketAddr, &str)> = Vec::new();
    let reserved = super::forwarder_id();
    if let Some(n) = config.services.iter().position(|it| it.id == reserved)
        && !config.forwards.is_empty()
    {
        problems.at(
            &format!("service[{n}].id"),
            "is the name of the process that carries [[forward]] out",
        );
    }
    if let Some((n, round)) = circle(&config.forwards) {
        problems.at(
            &format!("forward[{n}].backend"),
            format!(
                "must not lead back to itself, as each connection would make others without end: \
                 {}",
                round.join(" -> ")
            ),
        );
    }
    for (n, forward) in config.forwards.iter().enumerate() {
        if !ids.insert(forward.id.as_str()) {
            problems.at(
                &format!("forward[{n}].id"),
                "is already the id of another forward or of a service",
            );
        }
        let port = forward.listen.port();
        let service = config.services.iter().find(|it| it.ports.contains(&port));
        // A service's address is not known, only its port.
        let local = forward.listen.ip().is_loopback() || forward.listen.ip().is_unspecified();
        let forwards = listens
            .iter()
            .find(|(other, _)| overlap(*other, forward.listen));
        let owner = forwards.map(|(_, owner)| *owner);
        if let Some(owner) = owner.or(service.filter(|_| local).map(|it| it.id.as_str())) {
            problems.at(
                &format!("forward[{n}].listen"),
                format!("port {port} is already taken by {owner}"),
            );
        }
        listens.push((forward.listen, forward.id.as_str()));
        let mut backends = BTreeSet::new();
        for (m, backend) in forward.backends.iter().enumerate() {
            let at = |key: &str| format!("forward[{n}].backend[{m}].{key}");
            if !backends.insert(&backend.id) {
                let key = if problems.has(&at("id")) {
                    "id"
                } else {
                    "service"
                };
                let wanted = format!("{} is already the id of a backend", backend.id);
                problems.at(&at(key), wanted);
            }
            let own = config.services.iter().any(|it| it.id == backend.id);
            if backend.service.as_ref() != Some(&backend.id) && own {
                problems.at(&at("id"), "is the name of a service of this node");
            }
            if backend.service.is_none() && reaches(forward.listen, backend.address) {
                problems.at(&at("address"), "leads back to the forward itself");
            }
        }
    }
}

/// The forwarder as a service like any other: started by the spawner, so that it
/// outlives the loop, and started again by the loop when it dies.
pub(super) fn service(config: &Config, file: &Path) -> Service {
    let default = || {
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let words = [program.as_os_str(), file.as_os_str()];
        let [program, file] = words.map(|word| word.to_string_lossy().into_owned());
        vec![program, "forward".into(), "--config".into(), file]
    };
    let command = config.forwarder.command.clone();
    Service {
        id: super::forwarder_id(),
        process: Process::Command(command.unwrap_or_else(default)),
        env: Default::default(),
        cwd: "/".into(),
        user: config.node.agent_user.clone(),
        ports: Vec::new(),
        memory_limit: None,
        criticality: Criticality::Mission,
        depends_on: Vec::new(),
        calls: Vec::new(),
        needs: Vec::new(),
        standby: false,
        cpu_limit: None,
        data: None,
        mode: config.limits.mode,
        modes: Default::default(),
        protected: false,
        chaos: false,
        start_timeout: Millis::secs(5),
        stop_grace: Millis::secs(2),
        log: true,
        log_max: Bytes::mib(4),
        probes: Vec::new(),
        model: None,
        config: None,
        blockable: Vec::new(),
        hooks: None,
    }
}

/// The first way round found over two forwards or more, and the place of one on it. There
/// are at most [`FORWARDS_MAX`], so each is simply walked from.
fn circle(forwards: &[Forward]) -> Option<(usize, Vec<&str>)> {
    let next = |at: usize| {
        let leads = move |to: &usize| {
            let target = &forwards[*to];
            let mut backends = forwards[at].backends.iter();
            *to != at && backends.any(|one| reaches(target.listen, one.address))
        };
        (0..forwards.len()).filter(leads)
    };
    (0..forwards.len()).find_map(|start| {
        // Each forward that is reached, and from where.
        let mut from: Vec<Option<usize>> = vec![None; forwards.len()];
        let mut waiting = vec![start];
        while let Some(at) = waiting.pop() {
            for to in next(at) {
                if from[to].is_none() {
                    from[to] = Some(at);
                    waiting.push(to);
                }
            }
        }
        let mut round = vec![forwards[start].id.as_str()];
        let mut at = from[start]?;
        while at != start {
            round.push(forwards[at].id.as_str());
            at = from[at]?;
        }
        round.push(forwards[start].id.as_str());
        round.reverse();
        Some((start, round))
    })
}

/// Whether both cannot be listened on at once.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (any || one.ip() == other.ip())
}

/// Whether a connection to `target` from this node certainly arrives at `listen`.
fn reaches(listen: SocketAddr, target: SocketAddr) -> bool {
    let here = listen.ip().is_unspecified() && target.ip().is_loopback();
    listen.port() == target.port() && (here || listen.ip() == target.ip())
}

fn listen(value: &DeValue<'_>) -> Result<SocketAddr, Wanted> {
    if let Ok(port) = port(value) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    address(value).map_err(|_| {
        "expected a port from 1 to 65535 of 127.0.0.1, or \"ADDRESS:PORT\" such as \"0.0.0.0:9000\""
            .into()
    })
}

fn address(value: &DeValue<'_>) -> Result<SocketAddr, Wanted> {
    let address = text(value).ok().and_then(|text| text.parse().ok());
    address
        .filter(|address: &SocketAddr| address.port() > 0)
        .ok_or_else(|| {
            "expected an IP address and a port, such as \"10.0.0.7:9000\" or \"[fd00::7]:9000\""
                .into()
        })
}
