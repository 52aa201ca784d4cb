//! Tails of real files that grow, are cut, moved and flooded.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;

const BUDGET: u64 = 64 * 1024;

fn append(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn look(tail: &mut Tail) -> (Vec<String>, Tally) {
    let mut lines = Vec::new();
    let tally = tail.poll(BUDGET, |line| {
        lines.push(String::from_utf8_lossy(line).trim_end().to_owned())
    });
    (lines, tally)
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    (folder, path)
}

#[test]
fn lines_come_once_each_and_only_when_they_have_ended() {
    let (_folder, path) = file();
    let mut tail = Tail::from_start(&path);
    assert_eq!(look(&mut tail).1, Tally::default());
    append(&path, "one\r\n\ntwo");
    assert_eq!(look(&mut tail).0, ["one"]);
    append(&path, " and more\nthree\n");
    assert_eq!(look(&mut tail).0, ["two and more", "three"]);
    assert_eq!(look(&mut tail).1, Tally::default());
    let mut late = Tail::from_end(&path);
    assert_eq!(look(&mut late).0, [""; 0]);
    append(&path, "four\n");
    assert_eq!(look(&mut late).0, ["four"]);
}

#[test]
fn a_file_that_was_copied_and_cut_is_read_from_its_start() {
    let (_folder, path) = file();
    let mut tail = Tail::from_start(&path);
    append(&path, "before the cut, quite a long line\n");
    look(&mut tail);
    File::create(&path).unwrap();
    append(&path, "short\n");
    let (lines, tally) = look(&mut tail);
    assert_eq!((lines, tally.restarts), (vec!["short".to_owned()], 1));
    // Cut, and grown past the old position before anybody looked.
    File::create(&path).unwrap();
    append(&path, "longer than all that was there\n");
    let (lines, tally) = look(&mut tail);
    assert_eq!(lines, ["longer than all that was there"]);
    assert_eq!(tally.restarts, 1);
}

#[test]
fn a_file_that_was_moved_away_is_read_to_its_end_first() {
    let (folder, path) = file();
    let mut tail = Tail::from_start(&path);
    append(&path, "a\n");
    look(&mut tail);
    append(&path, "b\nlast words");
    fs::rename(&path, folder.path().join("web.log.1")).unwrap();
    assert_eq!(look(&mut tail).0, ["b"]);
    append(&path, "c\n");
    let (lines, tally) = look(&mut tail);
    assert_eq!(lines, ["last words", "c"]);
    assert_eq!(tally.restarts, 1);
}

#[test]
fn a_pipe_or_a_folder_is_no_log_and_nobody_waits_for_it() {
    let (folder, path) = file();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let (done, wait) = std::sync::mpsc::channel();
    let places = [path, folder.path().to_owned()];
    std::thread::spawn(move || {
        for place in places {
            let mut tail = Tail::from_start(&place);
            let tally = look(&mut tail).1;
            let _ = done.send((tally, tail.is_there()));
        }
    });
    for _ in 0..2 {
        let told = wait.recv_timeout(std::time::Duration::from_secs(10));
        assert_eq!(told, Ok((Tally::default(), false)));
    }
}

#[test]
fn what_one_look_may_cost_is_bounded_and_what_is_dropped_is_counted() {
    let (_folder, path) = file();
    let mut tail = Tail::from_start(&path);
    let (mut flood, mut total) = (String::new(), 0);
    for i in 0..40_000 {
        flood += &format!("line {i} of a flood\n");
    }
    append(&path, &flood);
    let mut lines = 0;
    loop {
        let tally = tail.poll(10_000, |line| {
            assert!(line.starts_with(b"line ") && line.ends_with(b" of a flood"));
            lines += 1;
        });
        assert!(tally.bytes <= 10_000);
        total += tally.bytes + tally.skipped;
        if tally.bytes == 0 {
            break;
        }
    }
    assert_eq!(total, flood.len() as u64);
    assert!(
        (300..600).contains(&lines),
        "the newest 10,000 bytes: {lines}"
    );
}

#[test]
fn an_endless_line_is_cut_and_binary_rubbish_is_survived() {
    let (_folder, path) = file();
    let mut tail = Tail::from_start(&path);
    append(&path, &"x".repeat(50_000));
    assert_eq!(look(&mut tail).0, [""; 0]);
    assert!(tail.splitter.line.len() <= LINE_MAX);
    append(&path, "\nnext\n");
    let (lines, tally) = look(&mut tail);
    assert_eq!((lines[0].len(), lines[1].as_str()), (LINE_MAX, "next"));
    assert_eq!((tally.lines, tally.cut), (2, 1));
    let mut rng = fastrand::Rng::with_seed(4);
    let noise: Vec<u8> = (0..30_000).map(|_| rng.u8(..)).collect();
    fs::write(&path, noise).unwrap();
    assert!(look(&mut tail).1.lines > 20);
}
