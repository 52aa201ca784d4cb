//! The few English words that decide what varies.
//!
//! Chosen for what they mean, not from counts: names of days and months belong to a date,
//! sizes and times change their unit, and what follows "user" is the name of one.

use homeostat_common::observation::Level;

/// Words that state a level, upper case.
const LEVELS: [(&str, Level); 16] = [
    ("TRACE", Level::Debug),
    ("DEBUG", Level::Debug),
    ("INFO", Level::Info),
    ("NOTICE", Level::Info),
    ("WARN", Level::Warning),
    ("WARNING", Level::Warning),
    ("ERROR", Level::Error),
    ("ERR", Level::Error),
    ("SEVERE", Level::Error),
    ("CRIT", Level::Error),
    ("CRITICAL", Level::Error),
    ("ALERT", Level::Error),
    ("EMERG", Level::Error),
    ("FATAL", Level::Error),
    ("PANIC", Level::Error),
    ("PANICKED", Level::Error),
];

/// The level a word states.
pub(crate) fn level(word: &[u8]) -> Option<Level> {
    LEVELS
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, level)| *level)
}

/// Units that a program changes with the size of the number before them.
pub(crate) fn is_unit(word: &[u8]) -> bool {
    matches!(
        word,
        b"B" | b"KB"
            | b"kB"
            | b"MB"
            | b"GB"
            | b"TB"
            | b"KiB"
            | b"MiB"
            | b"GiB"
            | b"TiB"
            | b"ns"
            | b"us"
            | b"ms"
            | b"s"
            | b"AM"
            | b"PM"
    )
}

/// Names of days and months, in full or three letters.
pub(crate) fn is_date(word: &[u8]) -> bool {
    matches!(
        word,
        b"Mon"
            | b"Tue"
            | b"Wed"
            | b"Thu"
            | b"Fri"
            | b"Sat"
            | b"Sun"
            | b"Monday"
            | b"Tuesday"
            | b"Wednesday"
            | b"Thursday"
            | b"Friday"
            | b"Saturday"
            | b"Sunday"
            | b"Jan"
            | b"Feb"
            | b"Mar"
            | b"Apr"
            | b"May"
            | b"Jun"
            | b"Jul"
            | b"Aug"
            | b"Sep"
            | b"Oct"
            | b"Nov"
            | b"Dec"
            | b"January"
            | b"February"
            | b"March"
            | b"April"
            | b"June"
            | b"July"
            | b"August"
            | b"September"
            | b"October"
            | b"November"
            | b"December"
    )
}

/// The last label of a name in a network, beyond those of countries.
pub(crate) fn is_domain(label: &[u8]) -> bool {
    matches!(
        label,
        b"com"
            | b"net"
            | b"org"
            | b"edu"
            | b"gov"
            | b"mil"
            | b"int"
            | b"info"
            | b"arpa"
            | b"local"
            | b"localdomain"
            | b"internal"
            | b"lan"
    )
}

/// Nouns that are followed by the name of one such thing.
pub(crate) fn is_noun(word: &[u8]) -> bool {
    [
        "user",
        "account",
        "host",
        "hostname",
        "node",
        "server",
        "client",
        "peer",
        "device",
        "interface",
        "driver",
        "module",
        "service",
        "unit",
        "daemon",
        "process",
        "program",
        "command",
        "task",
        "job",
        "thread",
        "worker",
        "queue",
        "topic",
        "container",
        "pod",
        "instance",
        "image",
        "volume",
        "disk",
        "partition",
        "file",
        "directory",
        "folder",
        "database",
        "table",
        "column",
        "key",
        "model",
        "plugin",
        "package",
        "session",
        "group",
        "domain",
        "zone",
        "region",
        "cluster",
    ]
    .iter()
    .any(|noun| word.eq_ignore_ascii_case(noun.as_bytes()))
}

/// What a thing did or what was done to it is no name.
pub(crate) fn is_verb(word: &[u8]) -> bool {
    word.ends_with(b"ed") || word.ends_with(b"ing") || matches!(word, b"is" | b"was" | b"not")
}
