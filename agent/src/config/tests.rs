use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

const FULL: &str = r#"
[node]
id = "edge-1"
site = "plant-7"
data_dir = "/data"
run_dir = "/run/h"
agent_user = "homeostat"

[mqtt]
broker = "mqtt://[::1]:2883"
reconnect_max = "5m"

[limits]
mode = "act"
hold = "30s"
quarantine = { count = 4, hold = "1m" }
restart = { burst = 2, backoff_min = "500ms" }
budget = { mission = 0.25, business = { alpha = 0.5 }, best_effort = { health = 0.2, ceiling = 0.4 } }

[store]
quota = "8MiB"
ballast = "512KiB"

[sample]
period = "250ms"

[clock]
offset = "-1h"

[[service]]
id = "db"
command = ["/usr/bin/db", "--quiet"]
env = { RUST_LOG = "info" }
ports = [5432]
criticality = "mission"
protected = true
memory_limit = "256MiB"
probe = [{ kind = "tcp" }]

[[service]]
id = "camera"
command = ["/usr/bin/camera"]
user = "camera"
ports = [8080, 8081]
depends_on = ["db"]
mode = "observe"
log = false

[service.model]
slot = "slots/camera"
reload = "watch"

[service.config]
slot = "/slots/camera-config"
file = "camera.toml"
format = "toml"
check = ["/usr/bin/camera", "--check"]

[[service.probe]]
kind = "http"
port = 8080
path = "/healthz"
expect_status = 204
period = "50ms"
timeout = "25ms"

[[service.probe]]
kind = "inference"
port = 8081
goldens = [{ inputs = [1, 0.5], outputs = [-2e-1] }]

[[service.probe]]
kind = "inference"
port = 8081
"#;

const SMALL: &str = "[node]\nid = \"edge-1\"\n";

#[test]
fn every_key_reaches_its_field() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.node.agent_user.as_deref(), Some("homeostat"));
    assert_eq!(
        config.mqtt.broker,
        Some(Broker {
            host: "::1".into(),
            port: 2883
        })
    );
    assert_eq!(config.limits.mode, Mode::Act);
    assert_eq!(config.limits.quarantine.hold, Millis::secs(60));
    assert_eq!(config.limits.restart.backoff_min, Millis(500));
    assert_eq!(config.store.ballast, Bytes(512 << 10));
    assert_eq!(config.clock.offset_ms, -3_600_000);
    let [db, camera] = &config.services[..] else {
        panic!("two services")
    };
    assert_eq!((db.mode, db.protected, db.log), (Mode::Act, true, true));
    assert_eq!(db.memory_limit, Some(Bytes::mib(256)));
    assert_eq!(db.probes[0].port, 5432);
    assert_eq!((camera.mode, camera.log), (Mode::Observe, false));
    assert!(camera.depends_on.iter().eq([&db.id]));
    let model = camera.model.as_ref().unwrap();
    assert_eq!(model.slot, Path::new("/etc/homeostat/slots/camera"));
    assert_eq!(model.reload, Reload::Watch);
    let config = camera.config.as_ref().unwrap();
    assert_eq!(config.slot, Path::new("/slots/camera-config"));
    assert_eq!(config.file, "camera.toml");
    assert_eq!(config.format, Format::Toml);
    assert_eq!(config.reload, Reload::Restart);
    assert_eq!(config.check, ["/usr/bin/camera", "--check"]);
    assert_eq!(
        camera.probes[0].kind,
        ProbeKind::Http {
            path: "/healthz".into(),
            expect_status: 204
        }
    );
    let goldens = |probe: &Probe| match &probe.kind {
        ProbeKind::Inference { goldens, .. } => goldens.clone(),
        ProbeKind::Tcp | ProbeKind::Http { .. } | ProbeKind::Metrics { .. } => {
            panic!("an inference probe")
        }
    };
    assert_eq!(
        goldens(&camera.probes[1]),
        Goldens::Listed(vec![Golden {
            inputs: vec![1.0, 0.5],
            outputs: vec![-0.2],
            tolerance: 1e-3
        }])
    );
    assert_eq!(goldens(&camera.probes[2]), Goldens::Manifest);
}

#[test]
fn a_name_is_enough_and_the_rest_is_safe() {
    let config = parse(SMALL).unwrap();
    assert_eq!(config.forwards, []);
    assert_eq!(config.limits.mode, Mode::Observe);
    assert_eq!(config.mqtt.broker, None);
    assert_eq!(config.limits.budget, Policy::default());
    assert_eq!(config.node.run_dir, Path::new("/run/homeostat"));
    assert_eq!(config.services, []);
}

#[test]
fn each_mistake_is_named_with_its_line_its_value_and_what_is_allowed() {
    let table: &[(&str, Expect)] = &[
        ("", expect![[r#"a.toml:1: node.id: is required"#]]),
        (
            "[node]\nid = \"edge-1\"\nid = \"edge-2\"",
            expect![[r#"a.toml:3: duplicate key"#]],
        ),
        (
            "[node]\nid = \"Edge 1\"\nnmae = 3",
            expect![[r#"
                a.toml:2: node.id = "Edge 1": a name may hold a-z, 0-9 and '-', not 'E'
                a.toml:3: node.nmae: unknown key; known here: agent_user, data_dir, id, run_dir, site, uplinks"#]],
        ),
        (
            "[node]\nid = 7\ndata_dir = \"data\"\n[lmits]\nhold = \"1m\"",
            expect![[r#"
                a.toml:2: node.id = 7: expected a text in quotes
                a.toml:3: node.data_dir = "data": expected an absolute path
                a.toml:4: lmits: unknown key; known here: certificate, clock, dependency, detect, foresee, forward, forwarder, intake, limits, log, maintenance, mcu, mqtt, node, orders, people, sample, service, store, webhook"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[mqtt]\nbroker = \"10.0.0.1:1883\"\nkeep_alive = \"30\"\nreconnect_min = \"1h\"",
            expect![[r#"
                a.toml:4: mqtt.broker = "10.0.0.1:1883": expected mqtt://HOST or mqtt://HOST:PORT
                a.toml:5: mqtt.keep_alive = "30": expected a span from "1s" to "1h", written such as "250ms", "2s", "5m" or "1h"
                a.toml:6: mqtt.reconnect_min = "1h": reconnect_max (10m) must not be below reconnect_min (1h)"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[limits]\nmode = \"heal\"\nquarantine = 3\nbudget = { mission = 1.5, business = { alpha = 0.6 }, best_effort = { floor = 0.4, helth = 1 } }",
            expect![[r#"
                a.toml:4: limits.mode = "heal": expected "observe" or "recommend" or "ask" or "act"
                a.toml:5: limits.quarantine = 3: expected a table
                a.toml:6: limits.budget.mission = 1.5: expected a number from 0.0 to 1.0
                a.toml:6: limits.budget.business.alpha = 0.6: alpha must lie in 0.3..=0.5, 0.6 does not
                a.toml:6: limits.budget.best_effort.floor = 0.4: floor must be at least 0.01 and at most ceiling, 0.4 and 0.3 are not
                a.toml:6: limits.budget.best_effort.helth: unknown key; known here: base, ceiling, floor, healed, health"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[store]\nquota = \"16MB\"\nballast = \"20MiB\"\n[clock]\noffset = \"1 h\"",
            expect![[r#"
                a.toml:4: store.quota = "16MB": expected a size from 8.0 MiB to 64.0 MiB, written such as "512KiB" or "64MiB"
                a.toml:5: store.ballast = "20MiB": ballast (20.0 MiB) must not be above a tenth of quota (16.0 MiB)
                a.toml:7: clock.offset = "1 h": expected a span with an optional sign, at most ten years, such as "-1h""#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"llm\"\ncommand = [\"/x\"]\nstart_timeout = \"90s\"",
            expect![[r#"
                a.toml:6: service[0].start_timeout = "90s": restarting llm may cost 104 capacity-seconds, more than the 89 that the budget of best-effort services always admits: shorten start_timeout or stop_grace, or raise limits.budget"#]],
        ),
        (
            "service = 3\n[node]\nid = \"edge-1\"",
            expect![[r#"a.toml:1: service = 3: expected tables, such as [[service]]"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"db\"\n[[service]]\ncommand = []\n[[service]]\nid = \"x\"\ncommand = [\"x\"]",
            expect![[r#"
                a.toml:3: service[0].command: is required, or unit, or container
                a.toml:5: service[1].id: is required
                a.toml:6: service[1].command = []: expected at least the program
                a.toml:9: service[2].command = ["x"]: expected the program by its absolute path"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nunit = \"a.service\"\n[[service]]\nid = \"b\"\nunit = \"b.timer\"\nengine = \"/x\"\n[[service]]\nid = \"c\"\ncontainer = \"a b\"\nrestart_by_systemd = true\n[[service]]\nid = \"d\"\nunit = \"d.service\"\nuser = \"d\"\nlog = true",
            expect![[r#"
                a.toml:6: service[0].unit = "a.service": only one of command, unit and container fits
                a.toml:9: service[1].unit = "b.timer": expected the whole name of a service unit, such as "camera.service"
                a.toml:10: service[1].engine = "/x": expected "unix://" and the absolute path of a socket without spaces
                a.toml:10: service[1].engine = "/x": is for a service that is a container, not a unit
                a.toml:13: service[2].container = "a b": expected the name or id of a container: a-z, A-Z, 0-9, '_', '.', '-'
                a.toml:14: service[2].restart_by_systemd = true: is for a service that is a unit, not a container
                a.toml:18: service[3].user = "d": is for a command; a unit says so itself
                a.toml:19: service[3].log = true: is for a command; a unit says so itself"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\nunit = \"x.service\"\n[[service]]\nid = \"b\"\nunit = \"x.service\"",
            expect![[r#"a.toml:8: service[1].unit = "x.service": is already what a runs as"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"db\"\ncommand = [\"/x\"]\nports = [80]\n[[service]]\nid = \"db\"\ncommand = [\"/x\"]\nports = [80]\ndepends_on = [\"web\"]",
            expect![[r#"
                a.toml:8: service[1].id = "db": is already the id of service[0]
                a.toml:10: service[1].ports = [80]: port 80 is already taken by db
                a.toml:11: service[1].depends_on = ["web"]: there is no service web"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\"]\ndepends_on = [\"b\"]\n[[service]]\nid = \"b\"\ncommand = [\"/x\"]\ndepends_on = [\"c\"]\n[[service]]\nid = \"c\"\ncommand = [\"/x\"]\ndepends_on = [\"b\"]",
            expect![[
                r#"a.toml:10: service[1].depends_on = ["c"]: must not lead back to itself: b -> c -> b"#
            ]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nports = [80, 81]\nprobe = [{ kind = \"tcp\" }, { kind = \"http\", port = 82, path = \"x\" }, { kind = \"udp\", port = 80 }]",
            expect![[r#"
                a.toml:7: service[0].probe[0].port: is required unless the service has exactly one port
                a.toml:7: service[0].probe[1].port = 82: is not among the service's ports [80, 81]
                a.toml:7: service[0].probe[1].path = "x": expected a path that starts with '/', printable ASCII without spaces
                a.toml:7: service[0].probe[2].kind = "udp": expected "tcp" or "http" or "inference" or "metrics""#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nports = [0]\n[[service.probe]]\nkind = \"tcp\"\nport = 80\nperiod = \"10ms\"\ntimeout = \"1s\"\nmisses = 0\nexpect_status = 200",
            expect![[r#"
                a.toml:6: service[0].ports = [0]: item 1: expected a whole number from 1 to 65535
                a.toml:11: service[0].probe[0].timeout = "1s": timeout (1s) must not be above 8 periods (10ms)
                a.toml:12: service[0].probe[0].misses = 0: expected a whole number from 1 to 100
                a.toml:13: service[0].probe[0].expect_status: unknown key; known here: gate_max, kind, misses, period, port, timeout"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nports = [80]\n[[service.probe]]\nkind = \"inference\"\n[[service.probe]]\nkind = \"inference\"\ngoldens = [{ inputs = [], outputs = [nan] }]\n[[service.probe]]\nkind = \"inference\"\ngolden = \"none.toml\"",
            expect![[r#"
                a.toml:7: service[0].probe[0].goldens: golden vectors are required: goldens, golden, or a [service.model] whose manifest has them
                a.toml:11: service[0].probe[1].goldens[0].outputs = [nan]: item 1: expected a finite number
                a.toml:11: service[0].probe[1].goldens[0].inputs = []: expected at least one number
                a.toml:11: service[0].probe[1].goldens = [{ inputs = [], outputs = [nan] }]: expected at least one
                a.toml:14: service[0].probe[2].golden = "none.toml": in that file: /etc/homeostat/none.toml: No such file or directory (os error 2)"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\\u0000\"]\nenv = { \"A=B\" = \"1\" }\ncwd = \".\"\nuser = \"a b\"\ncriticality = \"high\"\n[service.model]\nreload = \"now\"\n[service.config]\nslot = \"c\"\nfile = \"../c.toml\"\ncheck = [\"app\"]",
            expect![[r#"
                a.toml:5: service[0].command = ["/x\u0000"]: item 1: expected text without NUL
                a.toml:6: service[0].env = { "A=B" = "1" }: "A=B": expected a name without '='
                a.toml:7: service[0].cwd = ".": expected an absolute path
                a.toml:8: service[0].user = "a b": expected the name of a user, 1 to 32 characters of a-z, A-Z, 0-9, '_', '-', '.'
                a.toml:9: service[0].criticality = "high": expected "mission" or "business" or "best-effort"
                a.toml:10: service[0].model.slot: is required
                a.toml:11: service[0].model.reload = "now": expected "restart" or "watch"
                a.toml:14: service[0].config.file = "../c.toml": expected a plain file name, such as "config.toml"
                a.toml:15: service[0].config.check = ["app"]: expected the program by its absolute path"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nports = [80, 81]\n[[forward]]\nid = \"a b\"\nlisten = \"localhost:80\"\npatience = \"2m\"\n[[forward.backend]]\nservice = \"a\"\nweight = 1001\n[[forward.backend]]\nservice = \"b\"\n[[forward.backend]]\naddress = \"edge-2:90\"\n[[forward]]\nid = \"f\"\nlisten = 90\ncheck = { path = \"/\" }",
            expect![[r#"
                a.toml:8: forward[0].id = "a b": a name may hold a-z, 0-9 and '-', not ' '
                a.toml:9: forward[0].listen = "localhost:80": expected a port from 1 to 65535 of 127.0.0.1, or "ADDRESS:PORT" such as "0.0.0.0:9000"
                a.toml:10: forward[0].patience = "2m": expected a span from "0ms" to "1m", written such as "250ms", "2s", "5m" or "1h"
                a.toml:12: forward[0].backend[0].service = "a": must have exactly one port, a has 2
                a.toml:13: forward[0].backend[0].weight = 1001: expected a whole number from 0 to 1000
                a.toml:15: forward[0].backend[1].service = "b": there is no service b
                a.toml:16: forward[0].backend[2].id: is required with address
                a.toml:17: forward[0].backend[2].address = "edge-2:90": expected an IP address and a port, such as "10.0.0.7:9000" or "[fd00::7]:9000"
                a.toml:18: forward[1].backend: is required: at least one [[forward.backend]] with service or address
                a.toml:21: forward[1].check.path: unknown key; known here: kind, misses, period, rises, timeout"#]],
        ),
        (
            "[node]\nid = \"edge-1\"\n[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nports = [80]\n[[forward]]\nid = \"a\"\nlisten = 80\n[[forward.backend]]\nservice = \"a\"\n[[forward.backend]]\nservice = \"a\"\n[[forward]]\nid = \"f\"\nlisten = \"0.0.0.0:90\"\n[[forward.backend]]\nid = \"x\"\naddress = \"127.0.0.1:90\"\n[[forward]]\nid = \"g\"\nlisten = 90\n[[forward.backend]]\nid = \"x\"\nservice = \"a\"\naddress = \"10.0.0.1:1\"",
            expect![[r#"
                a.toml:8: forward[0].id = "a": is already the id of another forward or of a service
                a.toml:9: forward[0].listen = 80: port 80 is already taken by a
                a.toml:13: forward[0].backend[1].service = "a": a is already the id of a backend
                a.toml:19: forward[1].backend[0].address = "127.0.0.1:90": leads back to the forward itself
                a.toml:22: forward[2].listen = 90: port 90 is already taken by f
                a.toml:26: forward[2].backend[0].address = "10.0.0.1:1": give either service or address"#]],
        ),
        (
            "[node\nid = \"edge-1\"\n[limits]\nhold = 5 m",
            expect![[r#"
                a.toml:1: unclosed table, expected `]`
                a.toml:4: string values must be quoted, expected literal string"#]],
        ),
    ];
    for (text, expected) in table {
        let shown = parse(text).unwrap_err().to_string();
        expected.assert_eq(&shown.replace("/etc/homeostat/a.toml", "a.toml"));
    }
}

#[test]
fn a_forward_knows_where_its_backends_are() {
    let config = parse(&format!(
        "{SMALL}{}",
        r#"
        [[service]]
        id = "infer-1"
        command = ["/x"]
        ports = [9001]
        [[forward]]
        id = "infer"
        listen = 9000
        first_byte = "200ms"
        [forward.check]
        kind = "http"
        path = "/healthz"
        rises = 3
        [[forward.backend]]
        service = "infer-1"
        [[forward.backend]]
        address = "10.0.0.7:9000"
        id = "edge-2"
        weight = 0
        "#
    ))
    .unwrap();
    let [forward] = &config.forwards[..] else {
        panic!("one forward")
    };
    assert_eq!(forward.listen, "127.0.0.1:9000".parse().unwrap());
    assert_eq!(
        (forward.connect_timeout, forward.patience),
        (Millis(50), Millis::secs(1))
    );
    assert_eq!(forward.first_byte, Some(Millis(200)));
    let check = forward.check.as_ref().unwrap();
    let path = "/healthz".to_owned();
    assert_eq!((&check.kind, check.rises), (&CheckKind::Http { path }, 3));
    let [own, other] = &forward.backends[..] else {
        panic!("two backends")
    };
    assert_eq!(own.address, "127.0.0.1:9001".parse().unwrap());
    assert_eq!((own.id.as_str(), own.weight), ("infer-1", 100));
    assert_eq!(own.service.as_ref(), Some(&own.id));
    assert_eq!((other.id.as_str(), other.weight), ("edge-2", 0));
    assert_eq!(other.service, None);
}

#[test]
fn v2_and_metrics_probes_have_their_own_keys() {
    let text = format!(
        "{SMALL}[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nports = [80]\n\
         [[service.probe]]\nkind = \"inference\"\nprotocol = \"v2\"\nmodel = \"vibration\"\n\
         version = \"7fbcf863705ca4d4\"\ninput = \"features\"\nconfidence_min = 0.4\n\
         goldens = [{{ inputs = [1], outputs = [1] }}]\n\
         [[service.probe]]\nkind = \"metrics\"\nfrozen = 3\n\
         [[service.probe.gauge]]\nname = \"queue_depth\"\nmax = 64.0\nfor = \"1s\"\n"
    );
    let config = parse(&text).unwrap();
    let [model, metrics] = &config.services[0].probes[..] else {
        panic!("two probes")
    };
    let ProbeKind::Inference {
        protocol,
        confidence_min,
        ..
    } = &model.kind
    else {
        panic!("{:?}", model.kind)
    };
    let expected = Protocol::V2 {
        model: "vibration".into(),
        version: Some("7fbcf863705ca4d4".into()),
        input: "features".into(),
        output: "output".into(),
    };
    assert_eq!(*protocol, expected);
    assert_eq!(*confidence_min, Some(Ratio::saturating(0.4)));
    let gauges = vec![Gauge {
        name: "queue_depth".into(),
        max: 64.0,
        hold: Millis::secs(1),
    }];
    let expected = ProbeKind::Metrics {
        path: "/metrics".into(),
        gauges,
        frozen: 3,
        serving: None,
    };
    assert_eq!(metrics.kind, expected);

    let wrong = text
        .replace("\"vibration\"", "\"../up\"")
        .replace("input = \"features\"", "path = \"/infer\"")
        .replace("queue_depth", "queue{a=\\\"b\\\"}")
        .replace("max = 64.0\n", "");
    let shown = parse(&wrong).unwrap_err().to_string();
    expect![[r#"
        a.toml:10: service[0].probe[0].model = "../up": expected 1 to 128 characters of a-z, A-Z, 0-9, '_', '-', '.', ':'
        a.toml:12: service[0].probe[0].path: unknown key; known here: confidence_min, disagree_max, gate_max, golden, goldens, input, kind, misses, model, output, period, port, protocol, timeout, twin, version
        a.toml:18: service[0].probe[1].gauge[0].max: is required
        a.toml:19: service[0].probe[1].gauge[0].name = "queue{a=\"b\"}": expected the name of a metric without labels, such as "queue_depth""#]]
    .assert_eq(&shown.replace("/etc/homeostat/a.toml", "a.toml"));
}

#[test]
fn two_services_do_not_share_a_slot() {
    let service = |id: &str, slot: &str| {
        format!(
            "[[service]]\nid = \"{id}\"\ncommand = [\"/x\"]\n[service.model]\nslot = \"{slot}\"\n"
        )
    };
    let two = |slot: &str| {
        parse(&format!(
            "{SMALL}{}{}",
            service("a", "s"),
            service("b", slot)
        ))
    };
    assert!(two("t").is_ok());
    let shown = two("s").unwrap_err().to_string();
    assert!(shown.contains("service[1].model.slot"), "{shown}");
    assert!(shown.ends_with("is already a slot of a"), "{shown}");
}

#[test]
fn a_golden_file_is_read_and_its_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = folder.path().join("g.toml");
    let text = format!(
        "{SMALL}[[service]]\nid = \"a\"\ncommand = [\"/x\"]\nports = [80]\n[[service.probe]]\nkind = \"inference\"\ngolden = \"g.toml\""
    );
    let file = folder.path().join("a.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(
        &goldens,
        "[[golden]]\ninputs = [1.0]\noutputs = [2.0]\ntolerance = 0.5\n",
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    let ProbeKind::Inference {
        goldens: Goldens::Listed(found),
        ..
    } = &config.services[0].probes[0].kind
    else {
        panic!("listed goldens")
    };
    assert_eq!(found[0].tolerance, 0.5);
    std::fs::write(&goldens, "[[golden]]\ninputs = [1.0]\n").unwrap();
    let error = Config::load(&file).unwrap_err().to_string();
    assert!(
        error.contains("g.toml:1: golden[0].outputs: is required"),
        "{error}"
    );
}

#[test]
fn a_missing_or_oversized_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    let error = Config::load(&file).unwrap_err();
    assert!(error.to_string().ends_with("a.toml"), "{error}");
    let comment = "#".repeat(usize::try_from(FILE_MAX).unwrap() + 1);
    std::fs::write(&file, comment).unwrap();
    let error = Config::load(&file).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "larger than 262144 bytes");
}

#[test]
fn too_much_of_anything_is_refused_in_bounded_space() {
    let services: String = (0..80)
        .map(|n| format!("[[service]]\nid = \"s{n}\"\ncommand = [\"/x\"]\n"))
        .collect();
    let error = parse(&format!("{SMALL}{services}"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected at most 64, found 80"), "{error}");
    let keys: String = (0..200).map(|n| format!("k{n} = 1\n")).collect();
    let error = parse(&format!("{SMALL}{keys}")).unwrap_err().to_string();
    assert!(error.ends_with("136 more problems"), "{error}");
}

#[test]
fn cut_and_mangled_files_never_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let mut bytes = FULL.as_bytes().to_vec();
        bytes.truncate(random.usize(..bytes.len()));
        for _ in 0..random.usize(..4) {
            if let Some(at) = random.choice(0..bytes.len()) {
                bytes[at] = random.u8(b' '..=b'~');
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        // Either way is fine; what is refused must say why.
        if let Err(error) = parse(&text) {
            assert!(!error.to_string().is_empty());
        }
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/homeostat/a.toml"))
}

#[test]
fn the_shipped_configuration_is_accepted() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-configs/agent.toml");
    let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.limits.mode, Mode::Observe);
}

#[test]
fn routes_that_lead_in_a_circle_are_refused() {
    let route = |id: &str, listen: u16, to: u16| {
        format!(
            "[[forward]]\nid = \"{id}\"\nlisten = {listen}\n[[forward.backend]]\nid = \"b\"\n\
             address = \"127.0.0.1:{to}\"\n"
        )
    };
    let parse = |routes: [String; 4]| {
        let text = format!("[node]\nid = \"n\"\n{}", routes.concat());
        Config::parse(&text, Path::new("a.toml")).map_err(|errors| errors.to_string())
    };
    let [a, b, c] = [route("a", 91, 92), route("b", 92, 93), route("c", 93, 94)];
    let round = parse([a.clone(), b.clone(), c.clone(), route("d", 94, 92)]);
    let told = round.unwrap_err();
    assert!(
        told.contains("forward[1].backend") && told.contains("b -> c -> d -> b"),
        "{told}"
    );
    parse([a, b, c, route("d", 94, 95)]).unwrap();
}

#[test]
fn the_smallest_quota_needs_nothing_beside_it() {
    let text = "[node]\nid = \"n\"\n[store]\nquota = \"8MiB\"\n";
    let config = Config::parse(text, Path::new("a.toml")).unwrap();
    assert_eq!(config.store.ballast.0, config.store.quota.0 / 10);
    let usual = Config::parse("[node]\nid = \"n\"\n", Path::new("a.toml")).unwrap();
    assert_eq!(usual.store.ballast, Bytes::mib(1));
}

#[test]
fn sources_and_dependencies_are_read_and_their_mistakes_named() {
    let text = r#"
        [node]
        id = "n"
        [sample]
        sysfs = "/tree/sys"
        file_systems = ["/", "/var/lib/models"]
        metrics = "127.0.0.1:9101"
        [[dependency]]
        name = "broker"
        address = "10.0.0.1:1883"
        [[dependency]]
        name = "registry"
        address = "[::1]:80"
        kind = "http"
        path = "/v2/"
        expect_status = 401
        every = "1m"
        [[dependency]]
        name = "vendor"
        address = "127.0.0.1:8443"
        kind = "status-page"
    "#;
    let config = parse(text).unwrap();
    assert_eq!(config.sample.file_systems.len(), 2);
    assert_eq!(config.sample.metrics.unwrap().port(), 9101);
    let asked: Vec<&Asked> = config.dependencies.iter().map(|one| &one.asked).collect();
    let registry = Asked::Http {
        path: "/v2/".into(),
        status: 401,
    };
    let vendor = Asked::StatusPage {
        path: "/api/v2/status.json".into(),
    };
    assert_eq!(asked, [&Asked::Tcp, &registry, &vendor]);
    let wrong = r#"
        [node]
        id = "n"
        [sample]
        file_systems = ["/a b"]
        metrics = "localhost:9101"
        [[dependency]]
        name = "a b"
        address = "broker:1883"
        kind = "http"
        path = "/x HTTP/1.1"
        every = "1s"
        timeout = "2s"
    "#;
    expect![[r#"
        /etc/homeostat/a.toml:5: sample.file_systems = ["/a b"]: item 1: expected at most 48 bytes of ASCII, without spaces and quotes
        /etc/homeostat/a.toml:6: sample.metrics = "localhost:9101": expected an address and a port, such as "127.0.0.1:9101"
        /etc/homeostat/a.toml:8: dependency[0].name = "a b": expected 1 to 48 bytes of ASCII, without spaces and quotes
        /etc/homeostat/a.toml:9: dependency[0].address = "broker:1883": expected an address and a port, such as "10.0.0.7:1883"
        /etc/homeostat/a.toml:11: dependency[0].path = "/x HTTP/1.1": expected a path that begins with '/', without spaces
        /etc/homeostat/a.toml:13: dependency[0].timeout = "2s": expected at most every, 1s"#]].assert_eq(&parse(wrong).unwrap_err().to_string());
}
