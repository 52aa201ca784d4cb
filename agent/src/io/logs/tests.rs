//! Logs of a node: real files, and a real journal where there can be one.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;

const BUDGET: u64 = 64 * 1024;

fn append(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn node(folder: &Path, more: &str) -> Config {
    let text = format!(
        "[node]\nid = \"n\"\ndata_dir = \"{}\"\n[[service]]\nid = \"web\"\ncommand = [\"/w\"]\n{more}",
        folder.display()
    );
    Config::parse(&text, Path::new("a.toml")).unwrap()
}

fn at(seconds: u64) -> Micros {
    Micros(seconds * 1_000_000)
}

/// A node that reads one file, which is nobody's.
fn one_file(folder: &Path) -> (PathBuf, Config) {
    let path = folder.join("a.log");
    let config = node(folder, &format!("[[log]]\npath = \"{}\"\n", path.display()));
    (path, config)
}

/// What was counted, and the readings.
fn look(logs: &mut Logs, second: u64) -> (Vec<LogCount>, Vec<Sourced>) {
    let lines = logs.look(at(second), BUDGET);
    (lines, logs.sourced())
}

fn reading(readings: &[Sourced], metric: Metric, service: Option<&str>) -> Reading<f64> {
    let found = readings.iter().find(|it| {
        it.reading.metric == metric
            && it
                .reading
                .service
                .as_ref()
                .map(ToString::to_string)
                .as_deref()
                == service
    });
    found.map_or(Reading::Missing, |it| it.reading.reading)
}

#[test]
fn lines_of_all_files_of_a_service_are_counted_together() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("logs/web.log");
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let [other, nobodys] = ["other.log", "nobodys.log"].map(|name| folder.path().join(name));
    let config = node(
        folder.path(),
        &format!(
            "[[log]]\npath = \"{}\"\nservice = \"web\"\n[[log]]\npath = \"{}\"\n",
            other.display(),
            nobodys.display()
        ),
    );
    let mut logs = Logs::new(&config, Vec::new());
    let (lines, readings) = look(&mut logs, 1);
    assert!(lines.is_empty());
    // No file is no rate, not the rate 0.
    assert_eq!(
        reading(&readings, Metric::LogLines, Some("web")),
        Reading::Missing
    );
    append(&own, "job 1 done\nERROR job 2 failed\n");
    append(&other, "job 3 done\n");
    append(&nobodys, "job 4 done\n");
    let (lines, readings) = look(&mut logs, 3);
    let seen: Vec<_> = lines
        .iter()
        .map(|it| {
            (
                it.service.as_ref().map(ToString::to_string),
                it.text.as_str(),
                it.level,
                it.count,
            )
        })
        .collect();
    let web = Some("web".to_owned());
    assert_eq!(
        seen,
        [
            (web.clone(), "job <*> done", Level::Info, 2),
            (web, "ERROR job <*> failed", Level::Error, 1),
            (None, "job <*> done", Level::Info, 1),
        ]
    );
    let of = |metric| reading(&readings, metric, Some("web"));
    assert_eq!(of(Metric::LogLines), Reading::Fresh(1.5));
    assert_eq!(of(Metric::LogErrors), Reading::Fresh(0.5));
    assert_eq!(of(Metric::LogNew), Reading::Fresh(2.0));
    let node = reading(&readings, Metric::LogNew, None);
    assert_eq!(node, Reading::Fresh(0.0));
    // A sample that comes before the next look repeats this one's readings.
    let again = logs.sourced();
    let same = again.iter().zip(&readings);
    assert!(
        same.clone()
            .all(|(one, other)| one.reading == other.reading)
            && same.count() == 6
    );
    assert!(readings.iter().all(|one| one.new) && again.iter().all(|one| !one.new));
    let (_, readings) = look(&mut logs, 4);
    assert_eq!(
        reading(&readings, Metric::LogLines, Some("web")),
        Reading::Fresh(0.0)
    );
}

#[test]
fn templates_that_become_one_within_a_window_are_one_count() {
    let folder = tempfile::tempdir().unwrap();
    let (path, config) = one_file(folder.path());
    let mut logs = Logs::new(&config, Vec::new());
    append(
        &path,
        "bye user ann\nbye user bob\nbye user eve\nbye user zoe\n",
    );
    let (lines, _) = look(&mut logs, 1);
    let seen: Vec<_> = lines
        .iter()
        .map(|it| (it.text.as_str(), it.count))
        .collect();
    assert_eq!(seen, [("bye user <*>", 4)]);
}

#[test]
fn more_templates_than_a_window_keeps_are_said() {
    let mut miner = Miner::new(Limits::default());
    let mut counts = Counts::new(None);
    for number in 0..100 {
        let word = "abcdefghij"
            .chars()
            .cycle()
            .skip(number % 10)
            .take(3 + number / 10);
        let word: String = word.collect();
        counts.add(&miner.line(word.as_bytes()), Level::Info);
    }
    let (window, about) = counts.take();
    assert_eq!((window.len(), about.uncounted), (TEMPLATES_MAX, 36));
    assert_eq!(counts.take().0.len(), 0);
}

#[test]
fn what_is_new_to_the_node_stays_known_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (path, config) = one_file(folder.path());
    let mut logs = Logs::new(&config, Vec::new());
    append(
        &path,
        "bye user ann\nbye user bob\nbye user eve\nall is well\n",
    );
    let before = look(&mut logs, 1).0;
    let changes = logs.changes(at(1), false).unwrap();
    assert_eq!((changes.put.len(), changes.gone.len()), (2, 0));
    assert_eq!(logs.changes(at(2), true), None);
    let mut logs = Logs::new(&config, changes.put);
    // What was written while nobody looked is history.
    assert!(look(&mut logs, 2).0.is_empty());
    append(&path, "bye user zoe\nall is well\n");
    let (after, readings) = look(&mut logs, 3);
    let ids = |lines: &[LogCount]| lines.iter().map(|it| it.template).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
    assert_eq!(
        reading(&readings, Metric::LogNew, None),
        Reading::Fresh(0.0)
    );
}

/// A real `systemd-journald` in a mount namespace of its own, then `journalctl`, which sees it.
const JOURNALD: &str = r#"
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/log/journal || exit 9
test -s /etc/machine-id || {
    head -c16 /dev/urandom | od -An -tx1 | tr -d ' \n' > /run/id && echo >> /run/id
    mount --bind /run/id /etc/machine-id || exit 9
}
/lib/systemd/systemd-journald 2> /dev/null &
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    test -S /run/systemd/journal/stdout && test -S /run/systemd/journal/socket && break
    sleep .1
done
echo "nobody reads what was before" | systemd-cat -t early
"$@" &
sleep 1
echo "job 7 done" | systemd-cat -t worker -p warning
printf 'MESSAGE=camera 5 lost\nPRIORITY=3\nUNIT=camera.service\n' | logger --journald
# Two lines in one value: written with its length.
printf 'line 1\nline 2' > /run/two
python3 - << 'X' 2> /dev/null
import socket
two = open('/run/two', 'rb').read()
field = b'MESSAGE\n' + len(two).to_bytes(8, 'little') + two + b'\nPRIORITY=7\n'
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(field, '/run/systemd/journal/socket')
X
sleep 20
"#;

#[test]
fn the_journal_gives_message_level_and_unit() {
    for program in [
        "/lib/systemd/systemd-journald",
        "/usr/bin/journalctl",
        "/usr/bin/unshare",
    ] {
        if !Path::new(program).exists() {
            println!("skip: {program} is not installed");
            return;
        }
    }
    if !rustix::process::geteuid().is_root() {
        println!("skip: a namespace needs root");
        return;
    }
    let mut program = vec![
        "unshare",
        "-m",
        "-p",
        "-f",
        "--kill-child",
        "sh",
        "-c",
        JOURNALD,
        "sh",
    ];
    program.extend(journal::PROGRAM);
    let mut journal = Journal::new(&program);
    let mut entries = Vec::new();
    let begun = Instant::now();
    while entries.len() < 3 && begun.elapsed() < Duration::from_secs(15) {
        journal.poll(at(1), BUDGET, |entry| entries.push(entry.clone()));
        if !journal.is_there() && entries.is_empty() {
            println!("skip: no namespaces here");
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = |text: &str| {
        let found = entries
            .iter()
            .find(|entry| entry.message == text.as_bytes());
        found.unwrap_or_else(|| panic!("{text}: {entries:?}"))
    };
    assert_eq!(said("job 7 done").level, Some(Level::Warning));
    let camera = said("camera 5 lost");
    assert_eq!(
        (camera.level, camera.unit.as_deref()),
        (Some(Level::Error), Some("camera.service"))
    );
    if Path::new("/usr/bin/python3").exists() {
        assert_eq!(said("line 1\nline 2").level, Some(Level::Debug));
    }
    assert!(
        !entries
            .iter()
            .any(|entry| entry.message.starts_with(b"nobody"))
    );
}
