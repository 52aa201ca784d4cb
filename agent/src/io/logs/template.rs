//! What a log line says, without what it says it about: the line with its variable
//! parts masked, and those parts as typed values.
//!
//! Numbers, times, addresses, hexadecimal words, identifiers, paths, URLs, mail
//! addresses and quoted text become `<*>`. It needs no state, so one line gives one
//! template on every node and for ever: what Drain (He et al. 2017) learns from many
//! lines is not learnt here, and a variable part that is a plain word (a user name,
//! say) stays in the text.

use std::net::{IpAddr, SocketAddr};

use homeostat_common::observation::Level;

/// Most values kept of a line. Those beyond are masked all the same.
pub const PARAMS_MAX: usize = 8;

const MASK: &str = "<*>";

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

/// A variable part of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Param {
    /// A decimal number; its unit stays in the text.
    Number(f64),
    /// A hexadecimal number.
    Hex(u64),
    /// An address, without its port.
    Ip(IpAddr),
    /// The hash of a path or URL.
    Path(u64),
    /// The hash of anything else: quoted text, a UUID, a mail address.
    Text(u64),
}

/// The values of a line, in order.
pub type Params = heapless::Vec<Param, PARAMS_MAX>;

/// FNV-1a, 64 bit: the id of a template. Written out, because it must stay the same
/// in every version of every node.
#[must_use]
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes the masked `line` to `text` and its values to `params`; returns its level.
pub(super) fn mask(line: &str, text: &mut String, params: &mut Params) -> Level {
    text.clear();
    params.clear();
    let mut masker = Masker {
        text,
        params,
        level: None,
        level_next: false,
    };
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        rest = masker.take(first, rest);
    }
    masker.level.unwrap_or_default()
}

struct Masker<'a> {
    text: &'a mut String,
    params: &'a mut Params,
    level: Option<Level>,
    /// The last key was one that introduces a level.
    level_next: bool,
}

impl Masker<'_> {
    /// Takes one part from the front of `rest`, which begins with `first`.
    fn take<'l>(&mut self, first: char, rest: &'l str) -> &'l str {
        if first == '"' || (first == '\'' && !self.text.ends_with(char::is_alphanumeric)) {
            return match quoted(rest) {
                Some((inner, after)) => {
                    self.quoted(first, inner, after);
                    after
                }
                None => self.copy(first, rest),
            };
        }
        if first.is_whitespace() {
            if !self.text.ends_with(' ') {
                self.text.push(' ');
            }
            return rest.trim_start();
        }
        if is_delimiter(first) {
            return self.copy(first, rest);
        }
        let is_end = |c: char| {
            let inside_url = matches!(c, '=' | ';' | ',');
            c.is_whitespace() || c == '"' || is_delimiter(c) && !(inside_url && is_url(rest))
        };
        let (word, after) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
        let core = word.trim_end_matches(['.', ':', '!', '?']);
        let tail = word.get(core.len()..).unwrap_or("");
        if after.starts_with('=') {
            self.key(core);
        } else if !core.is_empty() {
            self.word(core, tail);
            self.level_next = false;
        }
        self.text.push_str(tail);
        after
    }

    fn copy<'l>(&mut self, first: char, rest: &'l str) -> &'l str {
        // Control characters would reach terminals and pages.
        if !first.is_control() {
            self.text.push(first);
        }
        rest.get(first.len_utf8()..).unwrap_or("")
    }

    fn quoted(&mut self, quote: char, inner: &str, after: &str) {
        self.text.push(quote);
        let plain =
            inner.len() <= 32 && inner.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        if after.trim_start().starts_with(':') && plain {
            self.key(inner);
        } else if self.level_next && level(inner).is_some() {
            self.level = self.level.or(level(inner));
            self.text.push_str(inner);
            self.level_next = false;
        } else {
            self.masked(Param::Text(hash(inner)));
            self.level_next = false;
        }
        self.text.push(quote);
    }

    fn key(&mut self, key: &str) {
        self.level_next = ["level", "lvl", "severity"]
            .iter()
            .any(|name| key.eq_ignore_ascii_case(name));
        self.digits(key);
    }

    fn word(&mut self, word: &str, tail: &str) {
        if self.level.is_none()
            && let Some(level) = level(word)
        {
            // A lower-case word is a level only where it stands like one.
            let upper = word.bytes().all(|b| b.is_ascii_uppercase());
            let bracket = self.text.ends_with(['[', '(']);
            let panicked = word == "panicked";
            if upper || panicked || bracket || self.level_next || tail.starts_with(':') {
                self.level = Some(level);
            }
        }
        match whole(word) {
            Some(Whole::Param(param)) => self.masked(param),
            Some(Whole::Time) => self.text.push_str(MASK),
            Some(Whole::Unit(number, unit)) => {
                self.masked(Param::Number(number));
                self.text.push_str(unit);
            }
            None => self.digits(word),
        }
    }

    fn masked(&mut self, param: Param) {
        self.text.push_str(MASK);
        // Beyond the bound it is only masked.
        let _ = self.params.push(param);
    }

    /// Masks each run of digits and keeps the letters between them.
    fn digits(&mut self, word: &str) {
        let mut rest = word;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let (letters, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_ascii_digit());
            let (run, after) = from.split_at(end.unwrap_or(from.len()));
            self.plain(letters);
            self.masked(Param::Number(run.parse().unwrap_or(f64::INFINITY)));
            rest = after;
        }
        self.plain(rest);
    }

    fn plain(&mut self, letters: &str) {
        self.text
            .extend(letters.chars().filter(|c| !c.is_control()));
    }
}

enum Whole<'w> {
    Param(Param),
    /// A date or time: masked, and not worth a value.
    Time,
    Unit(f64, &'w str),
}

/// What a word is, if it is one thing as a whole.
fn whole(word: &str) -> Option<Whole<'_>> {
    let bytes = word.as_bytes();
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let hex = bytes.iter().all(u8::is_ascii_hexdigit);
    if is_path(word, digits > 0) {
        return Some(Whole::Param(Param::Path(hash(word))));
    }
    if word.contains('@') && word.contains('.') || is_uuid(bytes) {
        return Some(Whole::Param(Param::Text(hash(word))));
    }
    if hex && digits < bytes.len() && bytes.len() >= 8 {
        return Some(Whole::Param(hexadecimal(word, word)));
    }
    if let Some(address) = address(word) {
        return Some(Whole::Param(Param::Ip(address)));
    }
    if digits == 0 {
        return None;
    }
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Some(Whole::Param(hexadecimal(digits, word)));
    }
    let numeric = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E');
    if bytes.iter().all(numeric)
        && let Ok(number) = word.parse()
    {
        return Some(Whole::Param(Param::Number(number)));
    }
    let temporal = |b: &u8| b.is_ascii_digit() || b":-/.,TZ+".contains(b);
    let separators = bytes.iter().filter(|b| matches!(b, b':' | b'-')).count();
    if bytes.first().is_some_and(u8::is_ascii_digit) && bytes.iter().all(temporal) && separators > 1
    {
        return Some(Whole::Time);
    }
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')?;
    let (number, unit) = word.split_at(end);
    let is_unit = unit.chars().count() <= 5
        && unit
            .chars()
            .all(|c| c.is_alphabetic() || matches!(c, '%' | '/'));
    number
        .parse()
        .ok()
        .filter(|_| is_unit)
        .map(|number| Whole::Unit(number, unit))
}

fn is_path(word: &str, has_digits: bool) -> bool {
    word.len() > 1
        && (word.starts_with(['/', '~']) && word.contains('/')
            || word.starts_with("./")
            || word.starts_with("../")
            || word.contains("://")
            || has_digits
                && word.contains('/')
                && word.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Whether `rest` begins with a scheme.
fn is_url(rest: &str) -> bool {
    rest.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn address(word: &str) -> Option<IpAddr> {
    let with_port = || word.parse().map(|address: SocketAddr| address.ip()).ok();
    word.parse().ok().or_else(with_port)
}

fn hexadecimal(digits: &str, word: &str) -> Param {
    u64::from_str_radix(digits, 16).map_or_else(|_| Param::Text(hash(word)), Param::Hex)
}

fn level(word: &str) -> Option<Level> {
    LEVELS
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name))
        .map(|(_, level)| *level)
}

fn is_delimiter(c: char) -> bool {
    matches!(
        c,
        '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | ',' | ';' | '=' | '|'
    ) || c.is_control()
}

/// The inside of a quoted text at the front of `rest`, and what follows it.
fn quoted(rest: &str) -> Option<(&str, &str)> {
    let quote = rest.chars().next()?;
    let inside = rest.get(quote.len_utf8()..)?;
    let mut escaped = false;
    let end = inside.find(|c: char| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((inside.get(..end)?, inside.get(end + quote.len_utf8()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn masked(line: &str) -> (String, Params, Level) {
        let (mut text, mut params) = (String::new(), Params::new());
        let level = mask(line, &mut text, &mut params);
        (text, params, level)
    }

    #[test]
    fn lines_of_real_programs_and_their_templates() {
        let lines = [
            "2026-11-21T22:05:01.123Z  INFO served request 4711 from 10.0.0.7:5555 in 12.5ms",
            "[2026-11-21 22:05:01,123] [error] model 3fa9bc12 not loaded: /opt/models/m3.onnx",
            "level=warn msg=\"slow answer from alice\" took=1500ms id=550e8400-e29b-41d4-a716-446655440000",
            r#"{"level":"error","msg":"no such sensor","code":17}"#,
            "thread 'worker-3' panicked at src/main.rs:41:9:",
            "GET https://a.example/x?y=1 => 503 (addr 0xdeadbeef, peer fe80::1)",
            "no error found in 3 of 8 shards; usage 93% bob@mail.example",
            "can't open device ttyS0: it isn't there",
        ];
        let mut all = String::new();
        for line in lines {
            let (text, params, level) = masked(line);
            all += &format!("{level:?} {text} {}\n", params.len());
        }
        expect![[r#"
            Info <*> INFO served request <*> from <*> in <*>ms 3
            Error [<*> <*>,<*>] [error] model <*> not loaded: <*> 3
            Warning level=warn msg="<*>" took=<*>ms id=<*> 3
            Error {"level":"error","msg":"<*>","code":<*>} 2
            Error thread '<*>' panicked at <*>: 2
            Info GET <*> => <*> (addr <*>, peer <*>) 4
            Info no error found in <*> of <*> shards; usage <*>% <*> 4
            Info can't open device ttyS<*>: it isn't there 1
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn values_keep_their_type() {
        let (_, params, _) = masked("took 12.5ms at 0xff from 10.0.0.7:80 see /etc/x or 'y' -3");
        let expected = [
            Param::Number(12.5),
            Param::Hex(255),
            Param::Ip("10.0.0.7".parse().unwrap()),
            Param::Path(hash("/etc/x")),
            Param::Text(hash("y")),
            Param::Number(-3.0),
        ];
        assert_eq!(&params[..], &expected);
    }

    #[test]
    fn the_id_is_the_same_for_ever() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8); // from the reference of FNV
        let id = |line| hash(&masked(line).0);
        assert_eq!(id("job 7 done in 3s"), id("job   812 done in 44s"));
        assert_ne!(id("job 7 done"), id("job 7 failed"));
    }

    #[test]
    fn no_digit_and_no_quoted_text_ever_leaves() {
        let mut rng = fastrand::Rng::with_seed(9);
        let alphabet: Vec<char> = " 0123456789abcxyzABC\"'=:/.-@[](){},;%é\u{1b}\t\\"
            .chars()
            .collect();
        for _ in 0..20_000 {
            let line: String = (0..rng.usize(..60))
                .map(|_| *rng.choice(&alphabet).unwrap())
                .collect();
            let (text, params, _) = masked(&line);
            assert!(
                !text.contains(|c: char| c.is_ascii_digit()),
                "{line:?} -> {text:?}"
            );
            assert!(!text.contains(char::is_control), "{line:?} -> {text:?}");
            assert!(params.len() <= PARAMS_MAX && text.len() <= 4 * line.len() + 3);
        }
    }
}
