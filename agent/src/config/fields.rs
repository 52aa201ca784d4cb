//! Takes values out of TOML tables and reports what does not fit.
//!
//! A hand-written reader and not a serde derive, because that stops at the
//! first problem and a person wants to see them all. Knows TOML and units;
//! does not know what any key means.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use homeostat_common::units::{Bytes, Millis, Ratio};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;

/// What a value must be, when it is not.
pub(super) type Wanted = String;

/// One table of the file, of which each known key is taken once.
pub(super) struct Fields<'a, 't> {
    path: String,
    start: usize,
    table: Option<&'a DeTable<'t>>,
    known: Vec<&'static str>,
    problems: &'a RefCell<Problems<'t>>,
}

impl<'a, 't> Fields<'a, 't> {
    pub(super) fn root(
        table: &'a Spanned<DeTable<'t>>,
        problems: &'a RefCell<Problems<'t>>,
    ) -> Self {
        Self {
            path: String::new(),
            start: 0,
            table: Some(table.get_ref()),
            known: Vec::new(),
            problems,
        }
    }

    /// The full path of `key` in this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Whether the table stands in the file at all.
    pub(super) fn present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Reports that the value of `key` is not what is `wanted`.
    pub(super) fn wrong(&self, key: &str, wanted: impl Into<String>) {
        self.problems.borrow_mut().at(&self.path(key), wanted);
    }

    /// Reports that `key` must be there.
    pub(super) fn missing(&self, key: &str, wanted: impl Into<String>) {
        let path = self.path(key);
        self.problems
            .borrow_mut()
            .missing(self.start, &path, wanted);
    }

    /// The value of `key` through `read`; `None` when absent or wrong, and
    /// wrong is reported.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Wanted>,
    ) -> Option<T> {
        let value = self.take(key)?;
        match read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(wanted) => {
                self.wrong(key, wanted);
                None
            }
        }
    }

    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Wanted>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// As [`Self::optional`], and reports the absence.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Wanted>,
    ) -> Option<T> {
        if !self.has(key) {
            self.known.push(key);
            self.missing(key, "is required");
            return None;
        }
        self.optional(key, read)
    }

    /// The table under `key`; without keys when it is absent or no table.
    pub(super) fn table(&mut self, key: &'static str) -> Fields<'a, 't> {
        let value = self.take(key);
        let start = value.map_or(self.start, |value| value.span().start);
        let table = match value.map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => Some(table),
            Some(_) => {
                self.wrong(key, "expected a table");
                None
            }
            None => None,
        };
        self.child(self.path(key), start, table)
    }

    /// The tables of the array under `key`, at most `max`.
    pub(super) fn tables(&mut self, key: &'static str, max: usize) -> Vec<Fields<'a, 't>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(
                key,
                format!("expected tables, such as [[{}]]", self.path(key)),
            );
            return Vec::new();
        };
        if array.len() > max {
            self.wrong(
                key,
                format!("expected at most {max}, found {}", array.len()),
            );
        }
        let mut children = Vec::new();
        for (n, item) in array.iter().take(max).enumerate() {
            let path = format!("{}[{n}]", self.path(key));
            let DeValue::Table(table) = item.get_ref() else {
                self.problems.borrow_mut().saw(&path, item.span());
                self.problems.borrow_mut().at(&path, "expected a table");
                continue;
            };
            children.push(self.child(path, item.span().start, Some(table)));
        }
        children
    }

    /// Reports every key that nobody took.
    pub(super) fn finish(self) {
        let mut known = self.known.clone();
        known.sort_unstable();
        let Some(table) = self.table else { return };
        for (key, _) in table {
            if !known.contains(&key.get_ref().as_ref()) {
                let text = format!("unknown key; known here: {}", known.join(", "));
                let path = self.path(key.get_ref());
                let mut problems = self.problems.borrow_mut();
                problems.text_at(key.span().start, path, text);
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        self.problems
            .borrow_mut()
            .saw(&self.path(key), value.span());
        Some(value)
    }

    fn child(&self, path: String, start: usize, table: Option<&'a DeTable<'t>>) -> Fields<'a, 't> {
        Fields {
            path,
            start,
            table,
            known: Vec::new(),
            problems: self.problems,
        }
    }
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wanted> {
    match value {
        // The operating system cannot take a NUL in a path, word or variable.
        DeValue::String(text) if text.contains('\0') => Err("expected text without NUL".into()),
        DeValue::String(text) if text.len() > super::TEXT_MAX => {
            Err(format!("expected at most {} bytes", super::TEXT_MAX))
        }
        DeValue::String(text) => Ok(text.as_ref().to_owned()),
        _ => Err("expected a text in quotes".into()),
    }
}

/// A text that `parse` takes; what it says otherwise is the message.
pub(super) fn parsed<T, E: std::fmt::Display>(
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> impl FnOnce(&DeValue<'_>) -> Result<T, Wanted> {
    move |value| parse(&text(value)?).map_err(|error| error.to_string())
}

/// One word out of `choices`.
pub(super) fn choice<T: Copy>(
    choices: &[(&str, T)],
) -> impl FnOnce(&DeValue<'_>) -> Result<T, Wanted> {
    move |value| {
        let found = text(value).ok();
        let found = choices
            .iter()
            .find(|(name, _)| Some(*name) == found.as_deref());
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices
                .iter()
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            format!("expected {}", names.join(" or "))
        })
    }
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Wanted> {
    match value {
        DeValue::Boolean(flag) => Ok(*flag),
        _ => Err("expected true or false".into()),
    }
}

pub(super) fn whole(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, Wanted> {
    move |value| {
        let number = match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!(
                    "expected a whole number from {} to {}",
                    range.start(),
                    range.end()
                )
            })
    }
}

pub(super) fn number(value: &DeValue<'_>) -> Result<f32, Wanted> {
    let number = match value {
        DeValue::Float(number) => number.as_str().parse::<f32>().ok(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        _ => None,
    };
    number
        .filter(|number| number.is_finite())
        .ok_or_else(|| "expected a finite number".into())
}

pub(super) fn ratio(value: &DeValue<'_>) -> Result<Ratio, Wanted> {
    number(value)
        .ok()
        .and_then(|number| Ratio::new(number).ok())
        .ok_or_else(|| "expected a number from 0.0 to 1.0".into())
}

pub(super) fn span(
    range: RangeInclusive<Millis>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Millis, Wanted> {
    move |value| {
        let span = text(value).ok().and_then(|text| Millis::parse(&text).ok());
        span.filter(|span| range.contains(span)).ok_or_else(|| {
            format!(
                "expected a span from \"{}\" to \"{}\", written such as \"250ms\", \"2s\", \"5m\" or \"1h\"",
                range.start(),
                range.end()
            )
        })
    }
}

pub(super) fn size(
    range: RangeInclusive<Bytes>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Bytes, Wanted> {
    move |value| {
        let size = text(value).ok().and_then(|text| parse_size(&text));
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            format!(
                "expected a size from {} to {}, written such as \"512KiB\" or \"64MiB\"",
                range.start(),
                range.end()
            )
        })
    }
}

/// Reads `64MiB`, `512KiB`, `1GiB` or `100B`; only powers of 1024, so that
/// nobody has to guess what `MB` means.
fn parse_size(text: &str) -> Option<Bytes> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(1 << shift)
        .map(Bytes)
}

/// An array of at most `max` items.
pub(super) fn list<'t, T>(
    max: usize,
    read: impl Fn(&DeValue<'t>) -> Result<T, Wanted>,
) -> impl FnOnce(&DeValue<'t>) -> Result<Vec<T>, Wanted> {
    move |value| {
        let DeValue::Array(array) = value else {
            return Err("expected an array".into());
        };
        if array.len() > max {
            return Err(format!(
                "expected at most {max} items, found {}",
                array.len()
            ));
        }
        let item = |(n, item): (usize, &Spanned<DeValue<'t>>)| {
            read(item.get_ref()).map_err(|wanted| format!("item {}: {wanted}", n + 1))
        };
        array.iter().enumerate().map(item).collect()
    }
}

/// A table of texts, at most `max`.
pub(super) fn texts(
    max: usize,
) -> impl FnOnce(&DeValue<'_>) -> Result<BTreeMap<String, String>, Wanted> {
    move |value| {
        let DeValue::Table(table) = value else {
            return Err("expected a table of texts, such as { KEY = \"value\" }".into());
        };
        if table.len() > max {
            return Err(format!("expected at most {max} entries"));
        }
        let mut texts = BTreeMap::new();
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            if key.is_empty() || key.contains(['=', '\0']) {
                return Err(format!("{key:?}: expected a name without '='"));
            }
            let value = text(value.get_ref()).map_err(|wanted| format!("{key}: {wanted}"))?;
            texts.insert(key.to_owned(), value);
        }
        Ok(texts)
    }
}
