use super::*;
use crate::io::store::scratch;

const STORE: &str = "HOMEOSTAT_TEST_TRIAL_STORE";
const SMALL: KvLimits = KvLimits {
    file_bytes: 512 << 10,
    tree_bytes: 32 << 10,
    tree_entries: 100,
};

/// The trial, in a child made from this very test binary.
fn trial(path: &Path) -> io::Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "--exact",
        "io::store::kv::tests::a_good_store_passes_its_trial",
    ]);
    command.env(STORE, path);
    trial_in_child(command, Duration::from_secs(5))
}

fn open(path: &Path) -> (Kv, Vec<Finding>) {
    Kv::open(path, KvLimits::default(), trial).unwrap()
}

#[test]
fn a_good_store_passes_its_trial() {
    if let Some(path) = std::env::var_os(STORE) {
        assert_eq!(trial_main(Path::new(&path)), ExitCode::SUCCESS);
        return;
    }
    let dir = scratch();
    drop(open(dir.path()));
    assert_eq!(trial_main(&dir.path().join(LIVE)), ExitCode::SUCCESS);
}

#[test]
fn entries_outlive_the_process_and_scan_by_prefix() {
    let dir = scratch();
    let (mut kv, findings) = open(dir.path());
    assert_eq!(findings, []);
    for i in 0..50u8 {
        kv.put(Tree::History, &[b'a' + i % 2, i], &[i; 100])
            .unwrap();
    }
    kv.put(Tree::Playbook, b"k", b"old").unwrap();
    kv.put(Tree::Playbook, b"k", b"new").unwrap();
    kv.remove(Tree::History, b"a\0").unwrap();
    kv.flush().unwrap();
    drop(kv);
    let (kv, findings) = open(dir.path());
    assert_eq!(findings, []);
    assert_eq!(
        kv.get(Tree::Playbook, b"k").unwrap().as_deref(),
        Some(b"new".as_slice())
    );
    assert_eq!((kv.len(Tree::Playbook), kv.len(Tree::History)), (1, 49));
    let found = kv.scan(Tree::History, b"a", 10).unwrap();
    assert_eq!(found.len(), 10);
    assert_eq!(found[0], (vec![b'a', 2], vec![2; 100]));
}

#[test]
fn what_was_flushed_is_in_a_copy_of_the_files() {
    let dir = scratch();
    let (mut kv, _) = open(dir.path());
    for round in 0..10u32 {
        for i in 0..40u32 {
            kv.put(Tree::Baselines, &(round * 40 + i).to_be_bytes(), &[7; 60])
                .unwrap();
        }
        kv.flush().unwrap();
        let copy = scratch();
        std::fs::create_dir(copy.path().join(LIVE)).unwrap();
        for file in ["db", "conf"] {
            let name = Path::new(LIVE).join(file);
            std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
        }
        let (copied, findings) = open(copy.path());
        assert_eq!(findings, []);
        assert_eq!(copied.len(Tree::Baselines), 40 * (round as usize + 1));
    }
}

#[test]
fn a_damaged_store_is_set_aside_and_an_empty_one_works() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut set_aside = 0;
    for round in 0..12 {
        let dir = scratch();
        let (mut kv, _) = open(dir.path());
        for i in 0..200u32 {
            kv.put(Tree::Templates, &i.to_be_bytes(), &[1; 200])
                .unwrap();
        }
        kv.flush().unwrap();
        drop(kv);
        let file = dir
            .path()
            .join(LIVE)
            .join(if round % 4 == 0 { "conf" } else { "db" });
        let mut bytes = std::fs::read(&file).unwrap();
        for _ in 0..200 {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        std::fs::write(&file, bytes).unwrap();
        let (mut kv, findings) = open(dir.path());
        if let [
            Finding::SetAside {
                why: Damage::Trial, ..
            },
        ] = findings[..]
        {
            assert!(kv.is_empty());
            set_aside += 1;
        }
        kv.put(Tree::Templates, b"on", b"it goes").unwrap();
        kv.flush().unwrap();
    }
    assert!(set_aside > 0);
}

#[test]
fn a_trial_that_hangs_is_ended() {
    let mut command = Command::new("sleep");
    command.arg("60");
    let started = Instant::now();
    assert!(!trial_in_child(command, Duration::from_millis(50)).unwrap());
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_full_tree_loses_its_oldest_and_the_file_stays_small() {
    let dir = scratch();
    let (mut kv, _) = Kv::open(dir.path(), SMALL, trial).unwrap();
    kv.put(Tree::Playbook, b"kept", b"in its own tree").unwrap();
    let mut largest = 0;
    for i in 0..6000u32 {
        kv.put(Tree::History, &i.to_be_bytes(), &[3; 300]).unwrap();
        largest = largest.max(file_bytes(&dir.path().join(LIVE)));
        if i % 200 == 0 {
            kv.flush().unwrap();
        }
    }
    assert!(kv.len(Tree::History) <= SMALL.tree_entries);
    assert!(
        kv.get(Tree::History, &5999u32.to_be_bytes())
            .unwrap()
            .is_some()
    );
    assert!(
        kv.get(Tree::History, &0u32.to_be_bytes())
            .unwrap()
            .is_none()
    );
    assert!(kv.get(Tree::Playbook, b"kept").unwrap().is_some());
    assert!(largest < 2 * SMALL.file_bytes, "{largest}");
}

#[test]
fn the_newest_are_found_whatever_their_keys() {
    let dir = scratch();
    let (mut kv, _) = open(dir.path());
    for i in [5u8, 9, 1, 7] {
        kv.put(Tree::History, &[i], &[i; 3]).unwrap();
    }
    kv.put(Tree::History, &[9], b"again").unwrap();
    let newest = kv.newest(Tree::History, 3).unwrap();
    let expected = [
        (vec![1], vec![1; 3]),
        (vec![7], vec![7; 3]),
        (vec![9], b"again".to_vec()),
    ];
    assert_eq!(newest, expected);
    assert_eq!(kv.newest(Tree::Playbook, 3).unwrap(), []);
}
