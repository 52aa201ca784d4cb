//! Reads each section of the file: keys, defaults, ranges, and what has to
//! agree within one section. What has to agree across services is in `check`.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use homeostat_common::ids::{InterfaceId, NodeId, RouteId, ServiceId, SiteId};
use homeostat_common::net::SourceNet;
use homeostat_common::observation::{PART_MAX, Part};
use homeostat_common::units::{Bytes, Millis};
use homeostat_notify::intake::{SOURCES_MAX, Source};
use homeostat_notify::{WEBHOOKS_MAX, Webhook};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::budget::budget;
use super::data::data;
use super::depend::{self, DEPENDENCIES_MAX, Dependency, dependency};
use super::detect::detect;
use super::fields::{
    Fields, Wanted, choice, flag, list, number, parsed, ratio, size, span, text, texts, whole,
};
use super::foresee::{CERTIFICATES_MAX, Certificate, certificate, foresee};
use super::forward::{BLOCKABLE_MAX, FORWARDS_MAX, Forward, Known, forward};
use super::hooks::hooks;
use super::intake::intake;
use super::logs::{LOGS_MAX, Log, log};
use super::mcu::{MCUS_MAX, Mcu, mcu};
use super::orders::orders;
use super::people::{MODES, RECURRING_MAX, Recurring, autonomy, people, recurring, webhook};
use super::probe::probe;
use super::problems::Problems;
use super::process::{only_commands, process};
use super::{
    Broker, Clock, Config, ConfigSlot, Contest, Criticality, FILE_SYSTEMS_MAX, Format, Forwarder,
    LIST_MAX, LOG_BYTES_MAX, Limits, Mode, ModelSlot, Mqtt, Node, PROBES_MAX, Probe, Process,
    Quarantine, Reload, Restart, SERVICES_MAX, Sample, Service, Store,
};

/// A probe that takes longer than this many periods says nothing about now.
pub(super) const TIMEOUT_PERIODS: u64 = 8;

/// Reads everything that can be read; `None` when a required name is missing.
pub(super) fn read<'t>(
    table: &Spanned<DeTable<'t>>,
    folder: &Path,
    problems: &RefCell<Problems<'t>>,
) -> Option<Config> {
    let mut root = Fields::root(table, problems);
    let node = node(root.table("node"));
    let mqtt = mqtt(root.table("mqtt"));
    let limits = limits(root.table("limits"));
    let store = store(root.table("store"));
    let sample = sample(root.table("sample"));
    let detect = detect(root.table("detect"));
    let clock = clock(root.table("clock"));
    let forwarder = forwarder(root.table("forwarder"));
    let orders = orders(root.table("orders"));
    let people = people(root.table("people"));
    let hooks = root.tables("webhook", WEBHOOKS_MAX);
    let hook_count = hooks.len();
    let webhooks: Vec<Webhook> = hooks.into_iter().filter_map(webhook).collect();
    let found = root.tables("intake", SOURCES_MAX);
    let intake_count = found.len();
    let intake: Vec<Source> = found.into_iter().filter_map(intake).collect();
    let found = root.tables("mcu", MCUS_MAX);
    let mcu_count = found.len();
    let mcus: Vec<Mcu> = found.into_iter().filter_map(mcu).collect();
    let found = root.tables("log", LOGS_MAX);
    let log_count = found.len();
    let logs: Vec<Log> = found.into_iter().filter_map(log).collect();
    let windows = root.tables("maintenance", RECURRING_MAX);
    let window_count = windows.len();
    let recurring: Vec<Recurring> = windows.into_iter().filter_map(recurring).collect();
    let foresee = foresee(root.table("foresee"));
    let found = root.tables("certificate", CERTIFICATES_MAX);
    let certificate_count = found.len();
    let certificates: Vec<Certificate> = found.into_iter().filter_map(certificate).collect();
    let found = root.tables("dependency", DEPENDENCIES_MAX);
    let dependency_count = found.len();
    let dependencies: Vec<Dependency> = found.into_iter().filter_map(dependency).collect();
    let found = root.tables("service", SERVICES_MAX);
    let count = found.len();
    let services: Vec<Service> = found
        .into_iter()
        .filter_map(|fields| service(fields, limits.mode, folder))
        .collect();
    let found = root.tables("forward", FORWARDS_MAX);
    let forward_count = found.len();
    let known = Known {
        services: services.iter().map(|it| (&it.id, &it.ports[..])).collect(),
        complete: services.len() == count,
    };
    let forwards: Vec<Forward> = found
        .into_iter()
        .filter_map(|fields| forward(fields, &known))
        .collect();
    root.finish();
    // Checks across services point at them by their place in the file.
    if services.len() < count
        || forwards.len() < forward_count
        || webhooks.len() < hook_count
        || intake.len() < intake_count
        || mcus.len() < mcu_count
        || logs.len() < log_count
        || recurring.len() < window_count
        || certificates.len() < certificate_count
        || dependencies.len() < dependency_count
    {
        return None;
    }
    Some(Config {
        node: node?,
        mqtt,
        limits,
        store,
        sample,
        detect,
        clock,
        services,
        forwards,
        forwarder,
        orders,
        people,
        webhooks,
        logs,
        intake,
        mcus,
        recurring,
        foresee,
        certificates,
        dependencies,
    })
}

fn forwarder(mut at: Fields<'_, '_>) -> Forwarder {
    let forwarder = Forwarder {
        command: at.optional("command", command),
    };
    at.finish();
    forwarder
}

fn node(mut at: Fields<'_, '_>) -> Option<Node> {
    let id = at.required("id", parsed(NodeId::new));
    let site = at.or("site", SiteId::new("local").ok(), |value| {
        parsed(SiteId::new)(value).map(Some)
    });
    let data_dir = at.or("data_dir", "/var/lib/homeostat".into(), absolute);
    let run_dir = at.or("run_dir", "/run/homeostat".into(), |value| {
        let path = absolute(value)?;
        // The address of a Unix socket holds 108 bytes, one of them a NUL.
        if path.as_os_str().len() > 80 {
            return Err("expected at most 80 bytes, as sockets are made in it".into());
        }
        Ok(path)
    });
    let agent_user = at.optional("agent_user", user_name);
    let uplinks = at.or(
        "uplinks",
        Vec::new(),
        list(LIST_MAX, |value| parsed(InterfaceId::new)(value)),
    );
    at.finish();
    Some(Node {
        id: id?,
        site: site?,
        data_dir,
        run_dir,
        agent_user,
        uplinks,
    })
}

fn mqtt(mut at: Fields<'_, '_>) -> Mqtt {
    let second = Millis(1000);
    let mqtt = Mqtt {
        broker: at.optional("broker", broker),
        reconnect_min: at.or(
            "reconnect_min",
            second,
            span(Millis(10)..=Millis::secs(3600)),
        ),
        reconnect_max: at.or(
            "reconnect_max",
            Millis::secs(600),
            span(Millis(10)..=Millis::secs(86_400)),
        ),
        keep_alive: at.or(
            "keep_alive",
            Millis::secs(30),
            span(second..=Millis::secs(3600)),
        ),
    };
    if mqtt.reconnect_max < mqtt.reconnect_min {
        at.wrong(
            either(&at, "reconnect_max", "reconnect_min"),
            format!(
                "reconnect_max ({}) must not be below reconnect_min ({})",
                mqtt.reconnect_max, mqtt.reconnect_min
            ),
        );
    }
    at.finish();
    mqtt
}

fn limits(mut at: Fields<'_, '_>) -> Limits {
    let limits = Limits {
        mode: at.or("mode", Mode::Observe, choice(&MODES)),
        hold: at.or(
            "hold",
            Millis::secs(60),
            span(Millis(0)..=Millis::secs(86_400)),
        ),
        quarantine: quarantine(at.table("quarantine")),
        restart: restart(at.table("restart")),
        contest: contest(at.table("contest")),
        budget: budget(at.table("budget")),
    };
    at.finish();
    limits
}

fn quarantine(mut at: Fields<'_, '_>) -> Quarantine {
    let spans = || span(Millis::secs(1)..=Millis::secs(7 * 86_400));
    let quarantine = Quarantine {
        count: at.or("count", 3, small(1, 100)),
        within: at.or("within", Millis::secs(1800), spans()),
        hold: at.or("hold", Millis::secs(300), spans()),
        hold_max: at.or("hold_max", Millis::secs(6 * 3600), spans()),
    };
    if quarantine.hold_max < quarantine.hold {
        at.wrong(
            either(&at, "hold_max", "hold"),
            format!(
                "hold_max ({}) must not be below hold ({})",
                quarantine.hold_max, quarantine.hold
            ),
        );
    }
    at.finish();
    quarantine
}

fn contest(mut at: Fields<'_, '_>) -> Contest {
    let spans = || span(Millis::secs(1)..=Millis::secs(7 * 86_400));
    let usual = Contest::default();
    let contest = Contest {
        count: at.or("count", usual.count, small(1, 100)),
        within: at.or("within", usual.within, spans()),
        hold: at.or("hold", usual.hold, spans()),
    };
    at.finish();
    contest
}

fn restart(mut at: Fields<'_, '_>) -> Restart {
    let spans = || span(Millis(1)..=Millis::secs(86_400));
    let restart = Restart {
        burst: at.or("burst", 5, small(1, 100)),
        within: at.or("within", Millis::secs(30), spans()),
        backoff_min: at.or("backoff_min", Millis::secs(1), spans()),
        backoff_max: at.or("backoff_max", Millis::secs(300), spans()),
        stable: at.or("stable", Millis::secs(60), spans()),
    };
    if restart.backoff_max < restart.backoff_min {
        at.wrong(
            either(&at, "backoff_max", "backoff_min"),
            format!(
                "backoff_max ({}) must not be below backoff_min ({})",
                restart.backoff_max, restart.backoff_min
            ),
        );
    }
    at.finish();
    restart
}

/// Smallest quota: below, what must be kept does not fit beside the room that
/// writing takes.
pub const QUOTA_MIN: Bytes = Bytes::mib(8);

/// Largest quota: opening a large sled store can take minutes.
pub const QUOTA_MAX: Bytes = Bytes::mib(64);

/// The ballast takes at most this part of the quota, for the same reason.
pub const BALLAST_SHARE: u64 = 10;

fn store(mut at: Fields<'_, '_>) -> Store {
    let quota = at.or("quota", Bytes::mib(16), size(QUOTA_MIN..=QUOTA_MAX));
    // A small quota alone is no mistake.
    let usual = Bytes(Bytes::mib(1).0.min(quota.0 / BALLAST_SHARE));
    let store = Store {
        quota,
        ballast: at.or("ballast", usual, size(Bytes(0)..=Bytes::mib(64))),
    };
    if store.ballast.0 > store.quota.0 / BALLAST_SHARE {
        at.wrong(
            either(&at, "ballast", "quota"),
            format!(
                "ballast ({}) must not be above a tenth of quota ({})",
                store.ballast, store.quota
            ),
        );
    }
    at.finish();
    store
}

fn sample(mut at: Fields<'_, '_>) -> Sample {
    let usual = Sample::default();
    let least = Millis(50);
    let period = at.or("period", usual.period, span(least..=Millis::secs(60)));
    let sample = Sample {
        period,
        fastest: at.or(
            "fastest",
            Millis(period.0 / 4).max(least),
            span(least..=Millis::secs(60)),
        ),
        slowest: at.or(
            "slowest",
            Millis(period.0 * 4),
            span(least..=Millis::secs(600)),
        ),
        battery: at.or("battery", usual.battery, ratio),
        pressure: at.or(
            "pressure",
            usual.pressure,
            span(Millis(20)..=Millis::secs(60)),
        ),
        sysfs: at.or("sysfs", usual.sysfs, absolute),
        file_systems: at.or(
            "file_systems",
            usual.file_systems,
            list(FILE_SYSTEMS_MAX, file_system),
        ),
        metrics: at.optional("metrics", |value| {
            text(value)?
                .parse()
                .map_err(|_| "expected an address and a port, such as \"127.0.0.1:9101\"".into())
        }),
        journal: at.optional("journal", flag),
    };
    for (key, wrong) in [
        ("fastest", sample.fastest > period),
        ("slowest", sample.slowest < period),
    ] {
        if wrong {
            let text = format!("{key} must not be on the wrong side of period ({period})");
            at.wrong(either(&at, key, "period"), text);
        }
    }
    at.finish();
    sample
}

/// A folder whose name is one of readings as it is.
fn file_system(value: &DeValue<'_>) -> Result<PathBuf, Wanted> {
    let path = absolute(value)?;
    let name = path.to_str().and_then(Part::new);
    name.map(|_| path).ok_or_else(|| {
        format!("expected at most {PART_MAX} bytes of ASCII, without spaces and quotes")
    })
}

/// An address, with a port or without.
fn time_server(value: &DeValue<'_>) -> Result<SocketAddr, Wanted> {
    let text = text(value)?;
    let whole = text.parse().ok();
    let alone = || Some(SocketAddr::new(text.parse().ok()?, 123));
    // Names are not taken: with a wrong clock a resolver may not be believed.
    whole
        .or_else(alone)
        .ok_or_else(|| "expected an address, such as \"10.0.0.1\" or \"10.0.0.1:123\"".into())
}

fn clock(mut at: Fields<'_, '_>) -> Clock {
    let offset_ms = at.or("offset", 0, |value| {
        let text = text(value)?;
        let (sign, magnitude) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(&text)),
        };
        let millis = Millis::parse(magnitude).ok();
        millis
            .and_then(|span| i64::try_from(span.0).ok())
            .filter(|millis| *millis <= 3650 * 86_400_000)
            .map(|millis| sign * millis)
            .ok_or_else(|| {
                "expected a span with an optional sign, at most ten years, such as \"-1h\"".into()
            })
    });
    let servers = at.or("servers", Vec::new(), list(LIST_MAX, time_server));
    at.finish();
    Clock { offset_ms, servers }
}

fn service(mut at: Fields<'_, '_>, mode: Mode, folder: &Path) -> Option<Service> {
    let spans = || span(Millis(1)..=Millis::secs(3600));
    let id = at.required("id", parsed(ServiceId::new));
    let process = process(&mut at);
    let env = at.or("env", Default::default(), texts(LIST_MAX));
    let cwd = at.or("cwd", "/".into(), absolute);
    let user = at.optional("user", user_name);
    let ports = at.or("ports", Vec::new(), list(LIST_MAX, port));
    let memory_limit = at.optional("memory_limit", size(Bytes::mib(1)..=Bytes(1 << 40)));
    let criticality = at.or(
        "criticality",
        Criticality::BestEffort,
        choice(&[
            ("mission", Criticality::Mission),
            ("business", Criticality::Business),
            ("best-effort", Criticality::BestEffort),
        ]),
    );
    let depends_on = at.or(
        "depends_on",
        Vec::new(),
        list(LIST_MAX, |value| parsed(ServiceId::new)(value)),
    );
    let mode = at.or("mode", mode, choice(&MODES));
    let modes = autonomy(at.table("autonomy"));
    let protected = at.or("protected", false, flag);
    let chaos = at.or("chaos", false, flag);
    let start_timeout = at.or("start_timeout", Millis::secs(10), spans());
    let stop_grace = at.or("stop_grace", Millis::secs(2), spans());
    let own = matches!(process, Some(Process::Command(_)));
    let log = at.or("log", true, flag) && own;
    let log_max = at.or("log_max", Bytes::mib(4), size(Bytes(4096)..=LOG_BYTES_MAX));
    only_commands(&at, process.as_ref());
    let calls = at.or(
        "calls",
        Vec::new(),
        list(LIST_MAX, |value| parsed(RouteId::new)(value)),
    );
    let needs = at.or("needs", Vec::new(), list(DEPENDENCIES_MAX, depend::part));
    let standby = at.or("standby", false, flag);
    let cpu_limit = at.optional("cpu_limit", cores);
    let data = data(at.table("data"));
    let model = model(at.table("model"), folder);
    let config = config(at.table("config"), folder);
    let hooks = hooks(at.table("hooks"));
    let blockable = at.or(
        "blockable",
        Vec::new(),
        list(BLOCKABLE_MAX, |value| {
            parsed(str::parse::<SourceNet>)(value)
        }),
    );
    let probes = at.tables("probe", PROBES_MAX);
    let count = probes.len();
    let ports_known = !at.has("ports") || !ports.is_empty();
    let probes: Vec<Probe> = probes
        .into_iter()
        .filter_map(|fields| probe(fields, &ports, ports_known, model.is_some(), folder))
        .collect();
    at.finish();
    (probes.len() == count).then_some(())?;
    Some(Service {
        id: id?,
        process: process?,
        env,
        cwd,
        user,
        ports,
        memory_limit,
        criticality,
        depends_on,
        calls,
        needs,
        standby,
        cpu_limit,
        data,
        mode,
        modes,
        protected,
        chaos,
        start_timeout,
        stop_grace,
        log,
        log_max,
        probes,
        model,
        config,
        blockable,
        hooks,
    })
}

/// Cores, in tenths or whole, as a positive number.
fn cores(value: &DeValue<'_>) -> Result<f32, Wanted> {
    let cores = number(value)?;
    if (0.05..=1024.0).contains(&cores) {
        Ok(cores)
    } else {
        Err("expected a number of cores from 0.05 to 1024".into())
    }
}

const RELOADS: [(&str, Reload); 2] = [("restart", Reload::Restart), ("watch", Reload::Watch)];

fn model(mut at: Fields<'_, '_>, folder: &Path) -> Option<ModelSlot> {
    if !at.present() {
        return None;
    }
    let slot = at.required("slot", |value| text(value).map(|path| folder.join(path)));
    let reload = at.or("reload", Reload::Restart, choice(&RELOADS));
    at.finish();
    Some(ModelSlot {
        slot: slot?,
        reload,
    })
}

fn config(mut at: Fields<'_, '_>, folder: &Path) -> Option<ConfigSlot> {
    if !at.present() {
        return None;
    }
    let slot = at.required("slot", |value| text(value).map(|path| folder.join(path)));
    let file = at.required("file", plain_name);
    let format = at.or(
        "format",
        Format::Any,
        choice(&[
            ("toml", Format::Toml),
            ("json", Format::Json),
            ("any", Format::Any),
        ]),
    );
    let reload = at.or("reload", Reload::Restart, choice(&RELOADS));
    let check = at.or("check", Vec::new(), command);
    at.finish();
    Some(ConfigSlot {
        slot: slot?,
        file: file?,
        format,
        reload,
        check,
    })
}

/// The name of a file within a version; one that starts with a dot could be
/// taken for what is being written.
fn plain_name(value: &DeValue<'_>) -> Result<String, Wanted> {
    let name = text(value)?;
    if Path::new(&name).file_name() != Some(name.as_ref()) || name.starts_with('.') {
        return Err("expected a plain file name, such as \"config.toml\"".into());
    }
    Ok(name)
}

pub(super) fn command(value: &DeValue<'_>) -> Result<Vec<String>, Wanted> {
    let words = list(LIST_MAX, text)(value)?;
    match words.first() {
        // No PATH decides what a spawner with rights runs.
        Some(program) if program.starts_with('/') => Ok(words),
        Some(_) => Err("expected the program by its absolute path".into()),
        None => Err("expected at least the program".into()),
    }
}

pub(super) fn absolute(value: &DeValue<'_>) -> Result<PathBuf, Wanted> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("expected an absolute path".into())
    }
}

fn user_name(value: &DeValue<'_>) -> Result<String, Wanted> {
    let name = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    if (1..=32).contains(&name.len()) && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(
            "expected the name of a user, 1 to 32 characters of a-z, A-Z, 0-9, '_', '-', '.'"
                .into(),
        )
    }
}

pub(super) fn url_path(value: &DeValue<'_>) -> Result<String, Wanted> {
    let path = text(value)?;
    if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(path)
    } else {
        Err("expected a path that starts with '/', printable ASCII without spaces".into())
    }
}

pub(super) fn port(value: &DeValue<'_>) -> Result<u16, Wanted> {
    whole(1..=65_535)(value).map(narrow)
}

/// Only after a range check that fits.
pub(super) fn narrow(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

pub(super) fn small(min: u8, max: u8) -> impl FnOnce(&DeValue<'_>) -> Result<u8, Wanted> {
    move |value| {
        let number = whole(u64::from(min)..=u64::from(max))(value)?;
        Ok(u8::try_from(number).unwrap_or(max))
    }
}

fn broker(value: &DeValue<'_>) -> Result<Broker, Wanted> {
    let text = text(value)?;
    let wanted = || Wanted::from("expected mqtt://HOST or mqtt://HOST:PORT");
    let rest = text.strip_prefix("mqtt://").ok_or_else(wanted)?;
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or_else(wanted)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wanted())?;
            (host, port)
        }
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if host.is_empty() || !host.chars().all(fits) {
        return Err(wanted());
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0),
        None if port.is_empty() => Some(1883),
        None => None,
    };
    Ok(Broker {
        host: host.to_owned(),
        port: port.ok_or_else(wanted)?,
    })
}

/// The key to point at when two disagree: `first`, unless only the other one
/// stands in the file.
pub(super) fn either(
    at: &Fields<'_, '_>,
    first: &'static str,
    second: &'static str,
) -> &'static str {
    if at.has(first) { first } else { second }
}
