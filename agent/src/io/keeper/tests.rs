use std::time::Instant;

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::units::Millis;
use homeostat_common::wire::body::{IncidentOpened, Note};

use super::*;
use crate::config::Config;
use crate::io::link;

const BOOT: BootId = BootId([7; 16]);
const PATIENCE: Duration = Duration::from_secs(5);

fn config(data: &Path) -> Config {
    let text = format!(
        "[node]\nid = \"n\"\ndata_dir = \"{0}\"\nrun_dir = \"{0}\"\n[store]\nquota = \"8MiB\"\nballast = \"0KiB\"\n",
        data.display()
    );
    Config::parse(&text, Path::new("a.toml")).unwrap()
}

/// A running store, and what it tells the loop.
struct Rig {
    keeper: Keeper,
    events: mpsc::Receiver<Event>,
    thread: std::thread::JoinHandle<()>,
}

impl Rig {
    fn start(data: &Path) -> (Rig, Vec<String>) {
        let (opened, thread) = open(&config(data), BOOT, |_| Ok(true)).unwrap();
        let (sender, events) = mpsc::channel(64);
        let (_backlog, fetches) = link::backlog();
        let (keeper, thread) = thread.start(sender, fetches, None).unwrap();
        let rig = Rig {
            keeper,
            events,
            thread,
        };
        (rig, opened.findings)
    }

    fn note(&self, bytes: usize) {
        let body = Body::Note(Note {
            service: None,
            text: "x".repeat(bytes),
        });
        let told = Order::Event {
            mark: 0,
            class: Class::Heal,
            causes: Vec::new(),
            body: Box::new(body),
        };
        assert!(self.keeper.order(told));
    }

    /// What is told of the store until `end`, and until the thread has settled.
    fn troubles(&mut self, end: impl Fn(&Option<String>) -> bool) -> Vec<Option<String>> {
        let until = Instant::now() + PATIENCE;
        let mut told = Vec::new();
        while !told.last().is_some_and(&end) {
            assert!(Instant::now() < until, "only {told:?}");
            match self.events.try_recv() {
                Ok(Event::StoreTrouble(trouble)) => told.push(trouble),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        told
    }

    fn end(self) {
        assert!(self.keeper.order(Order::Close));
        self.thread.join().unwrap();
    }
}

/// A tmpfs, gone at the end of the test.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Option<Mounted> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4M", "none"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|s| s.success()).then(|| Mounted(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_once_and_so_is_its_end() {
    let Some(disk) = Mounted::new() else {
        println!("skip: mounting a tmpfs is not permitted here");
        return;
    };
    let (mut rig, findings) = Rig::start(disk.0.path());
    assert_eq!(findings, Vec::<String>::new());
    let hog = disk.0.path().join("hog");
    let _ = std::fs::write(&hog, vec![1; 8 << 20]);
    // More than the segment that was reserved while there was room.
    for _ in 0..10 {
        rig.note(30 << 10);
    }
    let begun = rig.troubles(Option::is_some);
    assert_eq!(begun.len(), 1, "{begun:?}");
    // Longer than one retry, which must not tell the same again.
    rig.note(10);
    std::thread::sleep(RETRY + Duration::from_millis(300));
    std::fs::remove_file(&hog).unwrap();
    let ended = rig.troubles(Option::is_none);
    assert_eq!(ended, [None]);
    rig.end();
}

#[test]
fn what_no_record_holds_keeps_nothing_else_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut thread) = open(&config(dir.path()), BOOT, |_| Ok(true)).unwrap();
    let before = thread.outbox.as_ref().unwrap().next_event().0;
    for bytes in [10, 70 << 10, (64 << 10) - 100, 10] {
        let body = Body::Note(Note {
            service: None,
            text: "x".repeat(bytes),
        });
        thread.accept(0, Class::State, Vec::new(), body);
    }
    assert_eq!((thread.unwritten.len(), &thread.trouble), (0, &None));
    let after = thread.outbox.as_ref().unwrap().next_event().0;
    assert!((2..=3).contains(&(after - before)), "{before} to {after}");
}

#[test]
fn a_journal_that_cannot_be_opened_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    std::fs::write(&journal, b"in the way").unwrap();
    let (mut rig, findings) = Rig::start(dir.path());
    assert!(findings.iter().any(|f| f.starts_with("no journal")));
    let told = rig.troubles(Option::is_some);
    let [Some(why)] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(
        why.starts_with("the journal could not be opened: "),
        "{why}"
    );
    // What follows from it is no news, and a plan does not wait for a disk.
    rig.note(10);
    assert!(rig.keeper.order(Order::Sync(5)));
    std::thread::sleep(RETRY + Duration::from_millis(300));
    let mut synced = false;
    while let Ok(event) = rig.events.try_recv() {
        assert!(!matches!(event, Event::StoreTrouble(_)), "{event:?}");
        synced |= matches!(event, Event::Synced(5));
    }
    assert!(synced);
    std::fs::remove_file(&journal).unwrap();
    let told = rig.troubles(Option::is_some);
    assert_eq!(told, [Some(ANOTHER_STREAM.to_owned())]);
    rig.end();
}

#[test]
fn explain_lists_the_last_incidents_newest_last() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut thread) = open(&config(dir.path()), BOOT, |_| Ok(true)).unwrap();
    const INCIDENTS: u64 = 5000;
    for incident in 1..=INCIDENTS {
        let body = Body::IncidentOpened(IncidentOpened {
            incident: IncidentId(incident),
            service: "web".parse().unwrap(),
            symptom: Symptom::Dead,
            fault: Fault::Crash,
            confidence: 1.0,
            detected_after: Millis(1),
            evidence: Vec::new(),
            connected: false,
        });
        thread.accept(0, Class::Heal, Vec::new(), body);
        assert!(thread.unwritten.is_empty());
    }
    let kv = thread.kv.as_ref().unwrap();
    assert!(
        (kv.len(Tree::History) as u64) < INCIDENTS,
        "history is bounded"
    );
    let text = explain(Some(kv), None);
    let last = text.lines().last().unwrap();
    let newest = explain(Some(kv), Some(IncidentId(INCIDENTS)));
    assert_eq!(Some(last), newest.lines().next());
    let times: Vec<&str> = text.lines().filter_map(|l| l.split("  ").next()).collect();
    assert!(times.is_sorted() && times.len() > 100);
    assert!(explain(Some(kv), Some(IncidentId(1))).starts_with("no incident"));
}
