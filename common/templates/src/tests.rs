//! What the miner must hold for any lines.

use std::format;
use std::string::{String, ToString as _};
use std::vec::Vec;

use expect_test::expect;
use proptest::prelude::*;

use super::*;

fn miner() -> Miner {
    Miner::new(Limits::default())
}

fn text(line: &[u8]) -> String {
    miner().line(line).text.to_string()
}

#[test]
fn lines_of_real_programs_and_their_templates() {
    let lines = [
        "2026-11-21T22:05:01.123Z  INFO served request 4711 from 10.0.0.7:5555 in 12.5ms",
        "[2026-11-21 22:05:01,123] [error] model 3fa9bc12 not loaded: /opt/models/m3.onnx",
        "level=warn msg=\"slow answer\" took=1500ms id=550e8400-e29b-41d4-a716-446655440000",
        r#"{"level":"error","msg":"no such sensor","code":17}"#,
        "thread 'worker-3' panicked at src/main.rs:41:9:",
        "GET https://a.example/x?y=1&z=b => 503 (addr 0xdeadbeef, peer fe80::1)",
        "no error found in 3 of 8 shards; usage 93% bob@mail.example",
        "can't open device ttyS0: it isn't there",
        "\x1b[31mERROR\x1b[0m started on Fri Jun 17 07:07:00 2005, 12 KB free",
        "close() of () took 1 second, open of (www.example.com) 2 seconds",
        "delete blk_1, blk_-2 blk_3 from ab:cd:ef:ab:cd:ef",
    ];
    let mut all = String::new();
    for line in lines {
        let mut miner = miner();
        let line = miner.line(line.as_bytes());
        all += &format!("{:?} {} {}\n", line.level, line.text, line.params().count());
    }
    expect![[r#"
        Some(Info) <*> INFO served request <*> from <*> in <*> 7
        Some(Error) [<*>] [error] model <*> not loaded: <*> 5
        Some(Warning) level=warn msg="slow answer" took=<*> id=<*> 2
        Some(Error) {"level":"error","msg":"no such sensor","code":<*>} 1
        Some(Error) thread '<*>' panicked at <*>: 4
        None GET https:<*> => <*> (addr <*>, peer <*>) 4
        None no error found in <*> of <*> shards; usage <*> 4
        None can't open device <*>: it isn't there 1
        Some(Error) ERROR started on <*> free 4
        None close() of (<*>) took <*> second, open of (<*>) <*> seconds 3
        None delete <*> from <*> 4
    "#]]
    .assert_eq(&all);
}

#[test]
fn values_keep_their_type() {
    let mut miner = miner();
    let line = miner.line(b"took 12.5ms at 0xff from 10.0.0.7:80 see /etc/x or y1 -3");
    let expected = [
        Param::Number(12.5),
        Param::Hex(255),
        Param::Ip("10.0.0.7".parse().unwrap()),
        Param::Number(80.0),
        Param::Path(hash("/etc/x")),
        Param::Text(hash("y1")),
        Param::Number(-3.0),
    ];
    assert_eq!(line.params().collect::<Vec<_>>(), expected);
    // Beyond what a number holds it is text.
    let huge = ["1e999", "-1e999"].map(|word| (word, Param::Text(hash(word))));
    for (word, expected) in huge {
        let line = miner.line(word.as_bytes());
        assert_eq!(line.params().collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn the_id_is_the_same_for_ever() {
    assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8); // from the reference of FNV
    let mut miner = miner();
    let first = miner.line(b"job 7 done in 3s").template;
    assert_eq!(first, hash("job <*> done in <*>"));
    assert_eq!(miner.line(b"job   812 done in 44 s").template, first);
    assert_ne!(miner.line(b"job 7 failed in 3s").template, first);
}

#[test]
fn names_become_a_variable_and_states_do_not() {
    let mut miner = miner();
    let mut ids = Vec::new();
    for name in ["root", "cyrus", "news", "root", "mail"] {
        let line = format!("session opened for user {name} by (uid=0)");
        let line = miner.line(line.as_bytes());
        ids.push((line.template, line.new));
    }
    let first = ids[0].0;
    assert_eq!(first, hash("session opened for user root by (uid=<*>)"));
    assert!(ids[0].1 && ids[1].1 && ids[1].0 != first);
    // The third name makes them one; the first id stays.
    assert_eq!(ids[2..], [(first, false); 3]);
    let mut merges = Vec::new();
    miner.merges(|merge| merges.push((merge.from, merge.into)));
    assert_eq!(merges, [(ids[1].0, first)]);
    let line = miner.line(b"session opened for user nobody by (uid=7)");
    assert_eq!(line.text, "session opened for user <*> by (uid=<*>)");
    for state in ["Started", "Paused", "Resumed", "Stopped"] {
        let line = format!("[instance: 5] VM {state} (Lifecycle Event)");
        assert!(miner.line(line.as_bytes()).new);
    }
    let level = |miner: &mut Miner, line: &str| miner.line(line.as_bytes()).level;
    assert_eq!(level(&mut miner, "level=warn x"), Some(Level::Warning));
    assert_eq!(level(&mut miner, "level=error x"), Some(Level::Error));
    assert_eq!(level(&mut miner, "no error here"), None);
}

/// A word of letters only.
fn letters(mut number: usize) -> String {
    let mut word = String::new();
    loop {
        #[allow(clippy::cast_possible_truncation)] // below 20
        word.push(char::from(b'g' + (number % 20) as u8));
        number /= 20;
        if number == 0 {
            return word;
        }
    }
}

#[test]
fn prose_becomes_a_variable_only_while_new_words_keep_coming() {
    // Fifteen words, each seen a hundred times before the next: a closed class.
    let mut closed = miner();
    for word in 0..15 {
        for _ in 0..100 {
            let line = format!("the pump went into {} mode", letters(word));
            closed.line(line.as_bytes());
        }
    }
    assert_eq!(closed.len(), 15);
    let mut open = miner();
    for word in 0..1000 {
        open.line(format!("the pump went into {} mode", letters(word)).as_bytes());
    }
    assert_eq!(open.len(), 1);
    // Two places that vary together.
    let mut pairs = miner();
    for word in 0..1000 {
        let (a, b) = (letters(word), letters(word + 3000));
        pairs.line(format!("moved {a} from the old place to {b} and all is well").as_bytes());
    }
    assert_eq!(pairs.len(), 1);
}

#[test]
fn a_million_templates_take_no_more_room_and_the_used_ones_stay() {
    let mut miner = miner();
    let slots = Limits::default().templates;
    let daily = miner.line(b"all is well in 7 rooms").template;
    for number in 0..1_000_000 {
        // Differs in the first word, so that no two are ever likes.
        let line = format!("{} went wrong", letters(number));
        miner.line(line.as_bytes());
        if number % 1000 == 0 {
            assert_eq!(miner.line(b"all is well in 9 rooms").template, daily);
            assert!(miner.len() <= slots);
        }
    }
    let tally = miner.tally();
    assert!(tally.rare > 900_000, "{tally:?}");
    assert_eq!(miner.len(), slots);
    // What was never seen twice is said to be rare, and has an id of its own.
    let line = miner.line(b"zzzzz went wrong");
    assert_eq!((line.text, line.new), ("(rare: up to four words)", false));
    assert_eq!(line.template, hash(line.text));
    // But what goes on is let in.
    let mut new = 0;
    for _ in 0..3 {
        for number in 0..100 {
            let line = format!("{} is the new normal", letters(number));
            new += usize::from(miner.line(line.as_bytes()).new);
        }
    }
    assert_eq!(new, 100);
    assert!(miner.tally().forgotten > 0 && miner.len() <= slots);
}

#[test]
fn lines_without_end_and_rubbish_are_survived() {
    let mut miner = miner();
    let mut rng = fastrand::Rng::with_seed(4);
    let noise: Vec<u8> = (0..1_000_000).map(|_| rng.u8(..)).collect();
    let lines: [&[u8]; 7] = [
        b"",
        b"  \t ",
        b"-----",
        &[b'x'; 1_000_000],
        &[0; 1_000_000],
        &b"a b ".repeat(250_000),
        &noise,
    ];
    for line in lines {
        let line = miner.line(line);
        assert!(line.text.len() <= TEXT_MAX);
    }
    assert_eq!(
        text(&b"id 5 ".repeat(400)).matches("id").count(),
        WORDS_MAX / 2
    );
    // Cut at the same place, whatever follows.
    let long = |end: &str| text(format!("{} {end}", "ab cd ".repeat(1000)).as_bytes());
    assert_eq!(long("one"), long("two three"));
    assert_eq!(text(b"caf\xc3\xa9 is \xff\xfe open"), "café is <*> open");
}

#[test]
fn templates_outlive_a_restart() {
    let mut first = miner();
    let lines: Vec<String> = ["root", "cyrus", "news"]
        .into_iter()
        .map(|name| format!("session closed for user {name}"))
        .chain((0..40).map(|at| format!("{} {at} left, [ok] a=b", letters(at))))
        .collect();
    for line in &lines {
        first.line(line.as_bytes());
    }
    let records: Vec<Record> = first.records().collect();
    assert_eq!(records.len(), 41);
    let mut second = miner();
    assert!(records.iter().all(|record| second.restore(record)));
    assert!(!records.iter().any(|record| second.restore(record)));
    for line in &lines {
        let again = second.line(line.as_bytes());
        assert!(!again.new, "{line}");
        assert_eq!(again.template, first.line(line.as_bytes()).template);
    }
    assert!(!second.line(b"session closed for user nobody").new);
    let damaged = Record {
        text: "no 5 template".into(),
        ..records[0].clone()
    };
    assert!(!second.restore(&damaged));
}

#[test]
fn counts_of_a_damaged_store_do_not_overflow() {
    let mut miner = miner();
    for (id, name) in (1..).zip(["root", "cyrus"]) {
        let record = Record {
            id,
            text: format!("session closed for user {name}"),
            open: 0,
            lines: u64::MAX,
            born: id,
        };
        assert!(miner.restore(&record));
    }
    assert!(!miner.line(b"session closed for user root").new);
    // The third name makes them one, with the lines of both.
    assert_eq!(miner.line(b"session closed for user news").template, 1);
    assert_eq!(miner.len(), 1);
}

#[test]
fn of_templates_that_were_used_alike_only_a_quarter_makes_room() {
    let mut miner = miner();
    let slots = Limits::default().templates;
    for number in 0..slots {
        let record = Record {
            id: number as u64 + 1,
            text: format!("{} was seen once", letters(number)),
            open: 0,
            lines: 1,
            born: number as u64,
        };
        assert!(miner.restore(&record));
    }
    for _ in 0..2 {
        miner.line(b"something else goes on");
    }
    assert_eq!(miner.len(), slots - slots / 4 + 1);
    assert_eq!(miner.tally().forgotten, slots as u64 / 4);
}

/// Lines of pieces that mean something to the miner.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(
        &[
            "a", "Zz", "user", "é", "17", "-3", "blk_", "0xff", " ", "  ", "\t", "=", ":", "\"",
            "'", "(", ")", "[", "]", "{", "}", "<", ">", ",", ";", ".", "/", "\\", "//", "~/", "@",
            "<*>", "Jun", "Fri", "MB", "s", "words", "com", "co.uk", "?", "&", "error", "INFO",
            "deadbeef", "ab:cd", "::1", "\x1b[31m", "\x1b", "\0", "-", "|", "%", "_", "*",
        ][..],
    );
    prop_oneof![
        prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// So a template may be kept as text and read again.
    #[test]
    fn a_template_is_the_template_of_itself(line in lines(), times in 1_usize..20) {
        let line = line.repeat(times);
        let once = text(&line);
        prop_assert_eq!(text(once.as_bytes()), once.clone());
        prop_assert!(once.len() <= TEXT_MAX);
    }

    #[test]
    fn no_digit_and_no_control_ever_leaves(line in lines()) {
        let text = text(&line);
        prop_assert!(!text.contains(|c: char| c.is_ascii_digit() || c.is_control()), "{:?}", text);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever comes, in a table that is too small for it.
    #[test]
    fn the_table_holds_what_it_says(lines in prop::collection::vec(lines(), 1..100), again in any::<u64>()) {
        let mut miner = Miner::new(Limits { templates: 20, ..Limits::default() });
        let mut rng = fastrand::Rng::with_seed(again);
        for _ in 0..lines.len() * 3 {
            let line = &lines[rng.usize(..lines.len())];
            let (id, text) = {
                let line = miner.line(line);
                (line.template, line.text.to_string())
            };
            prop_assert!(miner.len() <= 20);
            // The same line right after is the same template.
            let next = miner.line(line);
            if !text.starts_with("(rare") {
                prop_assert_eq!((next.template, next.text, next.new), (id, text.as_str(), false));
            }
        }
        let ids: Vec<u64> = miner.records().map(|record| record.id).collect();
        prop_assert_eq!(ids.len(), miner.len());
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        prop_assert_eq!(ids.len(), unique.len());
    }
}
