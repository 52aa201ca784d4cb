use homeostat_common::ids::Instance;
use homeostat_common::wire::Envelope;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;
use crate::io::spawner::protocol::SlotView;
use crate::io::store::outbox::{self, EventSeq, Item, Outbox};

const SERVICE: &str = "[[service]]\nid = \"web\"\ncommand = [\"/bin/true\"]\n";

fn config(data: &Path) -> Config {
    let text = format!(
        "[node]\nid = \"n\"\ndata_dir = \"{0}\"\nrun_dir = \"{0}\"\n{SERVICE}",
        data.display()
    );
    Config::parse(&text, Path::new("a.toml")).unwrap()
}

/// Every record of a start in the journal: how many services it took over.
fn starts(data: &Path) -> Vec<u16> {
    let (mut outbox, _) = Outbox::open(&data.join("journal"), outbox::Config::default()).unwrap();
    let items = outbox.next_unacked(EventSeq(0), 1 << 20).unwrap();
    let bodies = items.into_iter().filter_map(|item| match item {
        Item::Event { record, .. } => Some(Envelope::decode(&record).unwrap().body),
        Item::Gap(_) => None,
    });
    bodies
        .filter_map(|body| match body {
            Body::Boot(boot) => Some(boot.adopted),
            _ => None,
        })
        .collect()
}

fn run(data: &Path, slots: Option<Vec<SlotView>>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let mut shell = Shell::open(&config(data), Path::new("/agent.toml")).unwrap();
            for slots in slots.into_iter().flat_map(|slots| [slots.clone(), slots]) {
                // The second time is a spawner that was lost and is back.
                shell.adopt(slots, &mut None).await;
            }
            shell.close().unwrap();
        });
}

#[test]
fn the_record_of_the_start_tells_once_what_was_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let live = SlotView {
        service: "web".parse().unwrap(),
        live: Some((Instance(3), std::process::id())),
        last_exit: None,
    };
    run(dir.path(), Some(vec![live]));
    assert_eq!(starts(dir.path()), [1]);
    // A start without a spawner is on record as well.
    run(dir.path(), None);
    assert_eq!(starts(dir.path()), [1, 0]);
}

#[test]
fn a_second_agent_touches_nothing_and_says_who_runs() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let first = Shell::open(&config(dir.path()), Path::new("/agent.toml")).unwrap();
    let socket = control_path(dir.path());
    let before = std::fs::metadata(&socket).unwrap().ino();
    let second = Shell::open(&config(dir.path()), Path::new("/agent.toml"));
    let Err(error @ RunError::Second { .. }) = second else {
        panic!("two at once");
    };
    let pid = std::process::id();
    let words = format!("another agent (process {pid}) already runs in");
    assert!(error.to_string().starts_with(&words), "{error}");
    assert_eq!(std::fs::metadata(&socket).unwrap().ino(), before);
    let mode = std::fs::metadata(dir.path().join("agent.lock"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    first.close().unwrap();
    let third = Shell::open(&config(dir.path()), Path::new("/agent.toml")).unwrap();
    third.close().unwrap();
}
