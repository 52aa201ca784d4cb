use std::os::unix::fs::{PermissionsExt as _, symlink};

use homeostat_models::manifest::MANIFEST_FILE;

use super::files::crash::{self, Fail};
use super::*;
use crate::config::{Config, Format};

/// A service with both slots in a folder of its own.
struct Rig {
    dir: tempfile::TempDir,
    service: config::Service,
    data: PathBuf,
}

impl Rig {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), None)
    }

    /// For tests with thousands of syncs, which cost nothing in memory.
    fn in_memory() -> Self {
        let shm = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::at(shm.unwrap(), None)
    }

    fn at(dir: tempfile::TempDir, data: Option<&Path>) -> Self {
        let text = "[node]\nid = \"n\"\n[[service]]\nid = \"infer\"\ncommand = [\"/bin/true\"]\n\
             [service.model]\nslot = \"slot\"\n\
             [service.config]\nslot = \"etc\"\nfile = \"c.toml\"\nformat = \"toml\"\n";
        let config = Config::parse(text, &dir.path().join("a.toml")).unwrap();
        Self {
            data: data.map_or_else(|| dir.path().join("data"), Path::to_owned),
            service: config.services[0].clone(),
            dir,
        }
    }

    fn slot(&self, name: Name) -> Slot {
        Slot::of(&self.service, name, &self.data).unwrap()
    }

    fn model(&self) -> Slot {
        self.slot(Name::Model)
    }

    /// A model whose payload is `bytes`, with a manifest that agrees.
    fn candidate(&self, bytes: &[u8]) -> Candidate {
        let folder = self.dir.path().join("candidates");
        fs::create_dir_all(&folder).unwrap();
        let sha = homeostat_models::sha256_hex(bytes);
        let file = folder.join(format!("{sha}.onnx"));
        fs::write(&file, bytes).unwrap();
        let manifest = folder.join(format!("{sha}.toml"));
        fs::write(&manifest, manifest_text(&sha, 2)).unwrap();
        Candidate {
            file,
            manifest: Some(manifest),
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Candidate {
        let file = self.dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        Candidate {
            file,
            manifest: None,
        }
    }
}

fn manifest_text(sha: &str, inputs: usize) -> String {
    format!(
        "name = \"m\"\nversion = \"1\"\nfile = \"model.onnx\"\nsha256 = \"{sha}\"\n\
         inputs = [{{ name = \"x\", shape = [\"batch\", {inputs}] }}]\n\
         outputs = [{{ name = \"y\", shape = [\"batch\", 1] }}]\n\
         training = {{ data = \"d\", command = \"c\", seed = 1, samples = 1 }}\n\
         evaluation = {{ data = \"d\", seed = 2, samples = 1, accuracy = 1.0, recall = [1.0] }}\n\
         [golden]\ntolerance = 0.1\nvectors = [{{ input = {:?}, output = [0.5] }}]\n",
        vec![0.5; inputs]
    )
}

fn in_place(slot: &Slot) -> PathBuf {
    slot.path().join("current").join(slot.kind.payload())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn versions_come_go_and_come_back() {
    let rig = Rig::new();
    let slot = rig.model();
    let a = slot.install(&rig.candidate(b"model a")).unwrap();
    assert_eq!(slot.keep(None).unwrap(), a);
    let b = slot.stage(&rig.candidate(b"model b")).unwrap();
    let found = slot.check().unwrap();
    assert_eq!((found.present, found.staged), (Some(a), Some(b)));
    for _ in 0..2 {
        slot.switch(b).unwrap();
        assert_eq!(fs::read(in_place(&slot)).unwrap(), b"model b");
    }
    slot.restore().unwrap();
    slot.restore().unwrap();
    assert_eq!(slot.check().unwrap().present, Some(a));
    slot.switch(b).unwrap();
    slot.keep(None).unwrap();
    slot.settle().unwrap();
    let found = slot.check().unwrap();
    assert_eq!((found.present, found.good), (Some(b), vec![b, a]));
    // The oldest of four good ones goes, and one that proves itself again is the
    // newest, without another copy.
    let mut all = vec![b, a];
    for bytes in [&b"model c"[..], b"model d", b"model b"] {
        let version = slot.stage(&rig.candidate(bytes)).unwrap();
        slot.switch(version).unwrap();
        slot.keep(None).unwrap();
        slot.settle().unwrap();
        all.retain(|known| *known != version);
        all.insert(0, version);
        all.truncate(GOOD_MAX);
        assert_eq!(slot.check().unwrap().good, all);
    }
    assert_eq!(names(&slot.versions()).len(), GOOD_MAX);
}

#[test]
fn what_was_damaged_in_place_is_mended_and_that_can_be_taken_back() {
    let rig = Rig::new();
    let slot = rig.model();
    let a = slot.install(&rig.candidate(b"model a")).unwrap();
    slot.keep(None).unwrap();
    fs::write(in_place(&slot), b"garbage").unwrap();
    let found = slot.check().unwrap();
    assert_ne!(found.present, Some(a));
    assert_eq!((found.named, found.good), (Some(a), vec![a]));
    assert!(slot.keep(None).is_err(), "garbage is not good");
    for _ in 0..2 {
        slot.switch(a).unwrap();
        assert_eq!(fs::read(in_place(&slot)).unwrap(), b"model a");
    }
    slot.restore().unwrap();
    assert_eq!(fs::read(in_place(&slot)).unwrap(), b"garbage");
    slot.switch(a).unwrap();
    slot.settle().unwrap();
    assert_eq!(names(&slot.versions()), [a.to_string()]);
    // Whatever is gone or in the way.
    type Damage = fn(&Slot);
    let damages: [Damage; 6] = [
        |slot| fs::remove_file(in_place(slot)).unwrap(),
        |slot| fs::remove_file(slot.current()).unwrap(),
        |slot| fs::remove_dir_all(slot.versions()).unwrap(),
        |slot| {
            fs::remove_file(in_place(slot)).unwrap();
            fs::create_dir_all(in_place(slot).join("deep")).unwrap();
        },
        |slot| {
            fs::remove_file(in_place(slot)).unwrap();
            symlink("model.onnx", in_place(slot)).unwrap();
        },
        |slot| {
            fs::remove_file(slot.current()).unwrap();
            symlink("current", slot.current()).unwrap();
        },
    ];
    for damage in damages {
        damage(&slot);
        assert_eq!(slot.check().unwrap().present, None);
        slot.switch(a).unwrap();
        slot.settle().unwrap();
        assert_eq!(fs::read(in_place(&slot)).unwrap(), b"model a");
        assert_eq!(slot.check().unwrap().good, [a]);
    }
    // A manifest that was changed is mended with its model.
    fs::write(slot.current().join(MANIFEST_FILE), "x").unwrap();
    assert!(slot.manifest().is_ok(), "that of the pristine copy");
    slot.switch(a).unwrap();
    assert!(manifest_at(&slot.current()).is_ok());
}

#[test]
fn a_bad_candidate_is_refused_with_its_reason_and_leaves_nothing() {
    let rig = Rig::new();
    let slot = rig.model();
    let a = slot.install(&rig.candidate(b"model a")).unwrap();
    let refused = |candidate: &Candidate, reason: &str| {
        let error = slot.stage(candidate).unwrap_err();
        let text = crate::io::keeper::chain(&error);
        assert!(text.contains(reason), "{reason}: {text}");
        assert_eq!(names(&slot.versions()), [a.to_string()], "{reason}");
        assert_eq!(fs::read(in_place(&slot)).unwrap(), b"model a");
    };
    let good = rig.candidate(b"model b");
    let path = good.manifest.clone().unwrap();
    let text = fs::read_to_string(&path).unwrap();

    fs::write(&good.file, b"model").unwrap();
    refused(&good, "sha256 is");
    fs::remove_file(&good.file).unwrap();
    refused(&good, "cannot read");
    symlink(&good.file, &good.file).unwrap();
    refused(&good, "Too many levels of symbolic links");
    fs::remove_file(&good.file).unwrap();
    fs::create_dir(&good.file).unwrap();
    refused(&good, "not a regular file");
    fs::remove_dir(&good.file).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &good.file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    refused(&good, "not a regular file");
    fs::remove_file(&good.file).unwrap();
    fs::write(&good.file, b"model b").unwrap();

    fs::write(&path, &text[..text.len() / 2]).unwrap();
    refused(&good, "is not a manifest");
    fs::write(&path, text.replace("model.onnx", "other.onnx")).unwrap();
    refused(&good, "file must be \"model.onnx\"");
    let sha = homeostat_models::sha256_hex(b"model b");
    fs::write(&path, manifest_text(&sha, 3)).unwrap();
    refused(
        &good,
        "takes 3 numbers and gives 1, the model in place takes 2",
    );
    fs::write(&path, format!("{text}# {}", "x".repeat(2 << 20))).unwrap();
    refused(&good, "262144 are allowed");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    refused(&good, "cannot read");
    fs::write(&path, &text).unwrap();
    let huge = File::create(&good.file).unwrap();
    huge.set_len(MODEL_MAX + 1).unwrap();
    refused(&good, "4294967296 are allowed");

    // All files agree with each other, and the tensors are others.
    let layer = homeostat_models::onnx::Dense {
        inputs: 3,
        weights: vec![1.0; 3],
        bias: vec![0.0],
    };
    let wide = homeostat_models::onnx::classifier("m", "x", "y", &[layer]);
    refused(
        &rig.candidate(&wide),
        "file takes 3 numbers and gives 1, its manifest says 2 and 1",
    );

    fs::write(&good.file, b"model b").unwrap();
    slot.stage(&good).unwrap();
}

#[test]
fn a_configuration_must_parse_and_please_its_checker() {
    let mut rig = Rig::new();
    let slot = rig.slot(Name::Config);
    let a = slot.install(&rig.file("a", b"port = 1\n")).unwrap();
    let error = slot.stage(&rig.file("b", b"port = [\n")).unwrap_err();
    assert!(error.to_string().contains("is not TOML"), "{error}");
    let error = slot.stage(&rig.file("b", &[b'#'; 2 << 20])).unwrap_err();
    assert!(matches!(error, SlotError::Io { .. }), "{error}");
    let config = rig.service.config.as_mut().unwrap();
    config.check = ["/bin/grep", "port = [0-9]"].map(String::from).into();
    let slot = rig.slot(Name::Config);
    let error = slot.stage(&rig.file("b", b"port = 'x'\n")).unwrap_err();
    assert!(
        error.to_string().contains("refused by /bin/grep"),
        "{error}"
    );
    let b = slot.stage(&rig.file("b", b"port = 2\n")).unwrap();
    slot.switch(b).unwrap();
    // Edited by hand: it gets its own name, and the version it was made from is
    // still there to go back to.
    slot.keep(None).unwrap();
    slot.settle().unwrap();
    fs::write(in_place(&slot), "port = 3\n").unwrap();
    let c = slot.keep(None).unwrap();
    let found = slot.check().unwrap();
    assert_eq!((found.named, found.good), (Some(c), vec![c, b]));
    slot.switch(b).unwrap();
    assert_eq!(fs::read_to_string(in_place(&slot)).unwrap(), "port = 2\n");
    assert!(slot.switch(a).is_err(), "never kept, so gone");
    let config = rig.service.config.as_mut().unwrap();
    (config.check, config.format) = (Vec::new(), Format::Json);
    let slot = rig.slot(Name::Config);
    let error = slot.stage(&rig.file("b", b"{\"port\": }")).unwrap_err();
    assert!(error.to_string().contains("is not JSON"), "{error}");
}

#[test]
fn a_model_that_changes_while_it_is_copied_is_never_staged_torn() {
    let rig = Rig::new();
    let slot = rig.model();
    slot.install(&rig.candidate(b"model a")).unwrap();
    let big = vec![7; 4 << 20];
    let candidate = rig.candidate(&big);
    let version = version_of(&files::hash(&candidate.file, MODEL_MAX).unwrap());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut refused = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt as _;
            let file = fs::OpenOptions::new().write(true).open(&candidate.file);
            let file = file.unwrap();
            for turn in 0_u64.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let _ = file.write_at(&[8], turn % (4 << 20));
                let _ = file.write_at(&[7], turn % (4 << 20));
            }
        });
        for _ in 0..5 {
            match slot.stage(&candidate) {
                Ok(staged) => assert_eq!(staged, version),
                Err(SlotError::Changed(_) | SlotError::Manifest(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(refused > 0);
    for entry in names(&slot.versions()) {
        let folder = slot.versions().join(&entry);
        assert!(slot.kind.intact(&folder, entry.parse().unwrap()), "{entry}");
    }
}

/// Before each change of the disk that an operation makes, the process ends there,
/// or the disk is full. Then what is in place must be a whole version, the old one
/// or the new one, and doing it again must end it.
#[test]
fn failing_before_any_change_of_the_disk_a_whole_version_is_in_place() {
    type Work = fn(&Rig, &Slot, Version, Version) -> Result<(), SlotError>;
    let works: [(&str, bool, Work); 6] = [
        ("stage", false, |rig, slot, _, _| {
            slot.stage(&rig.candidate(b"model c")).map(|_| ())
        }),
        ("switch", false, |_, slot, _, b| slot.switch(b)),
        ("mend", true, |_, slot, a, _| slot.switch(a)),
        ("restore", false, |_, slot, _, b| {
            slot.switch(b)?;
            slot.restore()
        }),
        ("keep", false, |_, slot, _, b| {
            slot.switch(b)?;
            slot.keep(None).map(|_| ())
        }),
        ("settle", false, |_, slot, _, b| {
            slot.switch(b)?;
            slot.settle()
        }),
    ];
    for (name, damaged, work) in works {
        let mut changes = 0;
        for fail in (0..).flat_map(|after| [Fail::Full(after), Fail::Kill(after)]) {
            let rig = Rig::in_memory();
            let slot = rig.model();
            let a = slot.install(&rig.candidate(b"model a")).unwrap();
            slot.keep(None).unwrap();
            let b = slot.stage(&rig.candidate(b"model b")).unwrap();
            if damaged {
                fs::write(in_place(&slot), b"garbage").unwrap();
            }
            crash::set(fail);
            let done = work(&rig, &slot, a, b);
            crash::set(Fail::Never);
            let served = fs::read(in_place(&slot)).unwrap();
            let whole: &[&[u8]] = match damaged {
                true => &[b"garbage", b"model a"],
                false => &[b"model a", b"model b"],
            };
            assert!(whole.contains(&&served[..]), "{name} {fail:?}");
            let good = slot.check().unwrap().good;
            assert!(good.contains(&a), "{name} {fail:?}");
            assert!(good.len() <= GOOD_MAX);
            // A full disk may cost no more than cleaning up.
            if done.is_ok() && matches!(fail, Fail::Kill(_)) {
                break;
            }
            changes += 1;
            // The next life knows nothing but the disk.
            let slot = rig.model();
            work(&rig, &slot, a, b).unwrap();
            slot.switch(a).unwrap();
            slot.settle().unwrap();
            assert_eq!(fs::read(in_place(&slot)).unwrap(), b"model a");
            let left = names(&slot.versions());
            let hidden = left.iter().filter(|name| name.starts_with('.')).count();
            assert_eq!(hidden, 0, "{name} {fail:?}: {left:?}");
        }
        assert!(changes >= 6, "{name} changes the disk {changes} / 2 times");
    }
}

#[test]
fn a_slot_on_another_file_system_than_the_copies_works() {
    let shm = Path::new("/dev/shm");
    let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
    let elsewhere = match device(shm) {
        Some(found) if Some(found) != device(&std::env::temp_dir()) => {
            tempfile::tempdir_in(shm).unwrap()
        }
        _ => tempfile::tempdir().unwrap(),
    };
    let rig = Rig::at(tempfile::tempdir().unwrap(), Some(elsewhere.path()));
    let slot = rig.model();
    let a = slot.install(&rig.candidate(b"model a")).unwrap();
    slot.keep(None).unwrap();
    fs::write(in_place(&slot), b"garbage").unwrap();
    slot.switch(a).unwrap();
    assert_eq!(fs::read(in_place(&slot)).unwrap(), b"model a");
}

#[test]
fn a_read_only_slot_changes_nothing_and_says_so() {
    let rig = Rig::new();
    let slot = rig.model();
    slot.install(&rig.candidate(b"model a")).unwrap();
    slot.keep(None).unwrap();
    let b = slot.stage(&rig.candidate(b"model b")).unwrap();
    let set = |mode| {
        for folder in [slot.versions(), slot.path().to_owned()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    // Permissions do not stop root.
    if fs::write(slot.path().join("probe"), "").is_err() {
        let error = slot.switch(b).unwrap_err();
        assert!(error.to_string().starts_with("cannot switch"), "{error}");
        let error = slot.stage(&rig.candidate(b"model c")).unwrap_err();
        assert!(error.to_string().starts_with("cannot create"), "{error}");
    }
    set(0o755);
    assert_eq!(slot.check().unwrap().good.len(), 1);
    let mut rig = rig;
    rig.service.model.as_mut().unwrap().slot = "/proc/homeostat".into();
    let error = rig.model().install(&rig.candidate(b"model a")).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot create /proc"),
        "{error}"
    );
}

#[test]
fn an_empty_slot_says_what_to_do_and_a_plain_folder_is_taken_over() {
    let rig = Rig::new();
    let slot = rig.model();
    let error = slot.check().unwrap_err();
    let advice = "run homeostat-agent slot install infer model FILE";
    assert!(error.to_string().ends_with(advice), "{error}");
    let candidate = rig.candidate(b"model a");
    fs::create_dir_all(slot.path()).unwrap();
    let plain = slot.path().join("model.onnx");
    fs::copy(&candidate.file, &plain).unwrap();
    fs::copy(
        candidate.manifest.unwrap(),
        slot.path().join("manifest.toml"),
    )
    .unwrap();
    let error = slot.check().unwrap_err().to_string();
    assert!(error.ends_with("slot/model.onnx"), "{error}");
    let taken = slot.install(&Candidate {
        file: plain,
        manifest: None,
    });
    assert_eq!(slot.check().unwrap().present, taken.ok());
}

#[test]
fn two_users_of_a_slot_take_turns() {
    let rig = Rig::new();
    let slot = rig.model();
    slot.install(&rig.candidate(b"model a")).unwrap();
    std::thread::scope(|scope| {
        for bytes in [&b"model b"[..], b"model c"] {
            let (slot, candidate) = (&slot, rig.candidate(bytes));
            scope.spawn(move || {
                for _ in 0..10 {
                    slot.install(&candidate).unwrap();
                }
            });
        }
    });
    assert_eq!(names(&slot.versions()).len(), 1);
}
