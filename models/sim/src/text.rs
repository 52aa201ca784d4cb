//! Where in a text something is wrong.
//!
//! In go a file's name, its text and a place; out comes an error that names file and
//! line. Topologies and incidents are read with it, so both refuse alike.

use core::ops::Range;

/// A text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct TextError {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

/// A text under its name, to tell where in it something is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Source<'t> {
    file: &'t str,
    text: &'t str,
}

impl<'t> Source<'t> {
    /// A text of at most `max` bytes.
    ///
    /// # Errors
    /// [`TextError`] when it is longer.
    pub fn new(file: &'t str, text: &'t str, max: usize) -> Result<Self, TextError> {
        let source = Self { file, text };
        if text.len() > max {
            let length = text.len();
            return Err(source.at_byte(max, format!("{length} bytes are more than {max}")));
        }
        Ok(source)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`TextError`] where it is no TOML, or not the one that `T` wants.
    pub fn read<T: serde::de::DeserializeOwned>(self) -> Result<T, TextError> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.at_byte(at, error.message().to_owned())
        })
    }

    /// Refuses what stands at a place.
    pub fn wrong(self, at: &Range<usize>, reason: impl Into<String>) -> TextError {
        self.at_byte(at.start, reason.into())
    }

    fn at_byte(self, at: usize, reason: String) -> TextError {
        let before = self.text.as_bytes().iter().take(at);
        TextError {
            file: self.file.to_owned(),
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct One {
        #[allow(dead_code)]
        number: u8,
    }

    #[test]
    fn an_error_names_file_line_and_reason() {
        let read = |text| Source::new("a.toml", text, 30).and_then(Source::read::<One>);
        assert!(read("number = 3").is_ok());
        let error = read("\n\nnumber = 300").unwrap_err();
        assert_eq!((error.file.as_str(), error.line), ("a.toml", 3));
        assert!(error.to_string().starts_with("a.toml:3: invalid value"));
        assert_eq!(read("number = 3\nb = 1").unwrap_err().line, 2);
        assert_eq!(
            read("number = 3 # too long for this\n").unwrap_err().reason,
            "31 bytes are more than 30"
        );
    }
}
