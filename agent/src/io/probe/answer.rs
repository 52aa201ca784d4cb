//! Judges the bytes a service answered with.
//!
//! In goes what has arrived so far, out comes "not yet", "right", or what is wrong
//! with it. Outputs are compared while they are parsed: nothing is allocated.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config::Golden;

/// Largest body that is read. Some 1500 outputs in decimal fit; the buffer of each
/// slot stays this size.
pub(super) const BODY_MAX: usize = 16 * 1024;
/// Largest head that is read.
pub(super) const HEAD_MAX: usize = 4 * 1024;
/// More header lines than this are not HTTP as a local service speaks it.
const HEADERS_MAX: usize = 48;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wrong {
    /// Not the expected status.
    Status(u16),
    /// Not HTTP/1.
    NotHttp,
    /// A head above 4 KiB or a body above 16 KiB.
    TooLong,
    /// The connection ended before the answer did.
    Truncated,
    /// The service reset the connection.
    Reset,
    /// No `outputs` of numbers in the body.
    NoOutputs,
    /// The outputs differ from the golden ones by up to `worst`; infinite when
    /// their count does.
    Outputs {
        /// Largest absolute difference.
        worst: f32,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::NotHttp => f.write_str("not HTTP"),
            Self::TooLong => f.write_str("answer too long"),
            Self::Truncated => f.write_str("answer cut short"),
            Self::Reset => f.write_str("connection reset"),
            Self::NoOutputs => f.write_str("no outputs in the answer"),
            Self::Outputs { worst } => write!(f, "outputs off by {worst}"),
        }
    }
}

/// What the right answer is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect<'a> {
    Status(u16),
    Outputs(&'a Golden),
}

/// Judges `bytes`; `None` while more must come. `ended`: nothing more will.
pub(super) fn judge(bytes: &[u8], ended: bool, expect: Expect<'_>) -> Option<Result<(), Wrong>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() > HEAD_MAX => {
            return Some(Err(Wrong::TooLong));
        }
        Ok(httparse::Status::Partial) => return ended.then_some(Err(Wrong::Truncated)),
        Err(httparse::Error::TooManyHeaders) => return Some(Err(Wrong::TooLong)),
        Err(_) => return Some(Err(Wrong::NotHttp)),
    };
    let (status, wanted) = (
        response.code.unwrap_or(0),
        match expect {
            Expect::Status(status) => status,
            Expect::Outputs(_) => 200,
        },
    );
    if status != wanted {
        return Some(Err(Wrong::Status(status)));
    }
    let body = bytes.get(head..).unwrap_or(&[]);
    let length = match content_length(response.headers) {
        Ok(length) => length,
        Err(wrong) => return Some(Err(wrong)),
    };
    let bodiless = matches!(status, 204 | 304);
    let body = match if bodiless { Some(0) } else { length } {
        Some(length) if length > BODY_MAX => return Some(Err(Wrong::TooLong)),
        Some(length) => match body.get(..length) {
            Some(body) => body,
            None => return ended.then_some(Err(Wrong::Truncated)),
        },
        // Without a length the end of the connection is the end of the body.
        None if body.len() > BODY_MAX => return Some(Err(Wrong::TooLong)),
        None if ended => body,
        None => return None,
    };
    Some(match expect {
        Expect::Status(_) => Ok(()),
        Expect::Outputs(golden) => compare(body, golden),
    })
}

fn content_length(headers: &[httparse::Header<'_>]) -> Result<Option<usize>, Wrong> {
    let mut found = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let Some(header) = found.next() else {
        return Ok(None);
    };
    std::str::from_utf8(header.value)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map(Some)
        .ok_or(Wrong::NotHttp)
}

/// Compares `{"outputs": [[..]], ..}` with the golden outputs, read row by row.
fn compare(body: &[u8], golden: &Golden) -> Result<(), Wrong> {
    let mut seen = Seen {
        expected: &golden.outputs,
        at: 0,
        worst: 0.0,
        found: false,
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = json.deserialize_map(Answer(&mut seen));
    if parsed.is_err() || !seen.found {
        return Err(Wrong::NoOutputs);
    }
    if seen.at != golden.outputs.len() {
        return Err(Wrong::Outputs {
            worst: f32::INFINITY,
        });
    }
    if seen.worst <= golden.tolerance {
        Ok(())
    } else {
        Err(Wrong::Outputs { worst: seen.worst })
    }
}

struct Seen<'a> {
    expected: &'a [f32],
    at: usize,
    worst: f32,
    found: bool,
}

impl Seen<'_> {
    #[allow(clippy::cast_possible_truncation)] // to the precision of the golden outputs
    fn number(&mut self, value: f64) {
        let expected = self.expected.get(self.at).copied().unwrap_or(f32::INFINITY);
        self.worst = self.worst.max((value as f32 - expected).abs());
        self.at += 1;
    }
}

struct Answer<'a, 'b>(&'a mut Seen<'b>);

impl<'de> Visitor<'de> for Answer<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with outputs")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_outputs) = map.next_key_seed(IsOutputs)? {
            if is_outputs && !self.0.found {
                self.0.found = true;
                map.next_value_seed(Numbers(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Whether a key is `outputs`, without keeping it.
struct IsOutputs;

impl<'de> DeserializeSeed<'de> for IsOutputs {
    type Value = bool;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for IsOutputs {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == "outputs")
    }
}

/// A number, or a list of what this is.
struct Numbers<'a, 'b>(&'a mut Seen<'b>);

impl<'de> DeserializeSeed<'de> for Numbers<'_, '_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Numbers<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, in rows")
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.number(value);
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.number(value as f64);
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.number(value as f64);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        // Depth is bounded by serde_json, length by the body.
        while seq.next_element_seed(Numbers(self.0))?.is_some() {
            if self.0.at > self.0.expected.len() {
                return Err(A::Error::custom("more outputs than expected"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Golden {
        Golden {
            inputs: vec![1.0],
            outputs: vec![0.25, -1.0],
            tolerance: 1e-3,
        }
    }

    fn infer(body: &str) -> Option<Result<(), Wrong>> {
        let bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        judge(bytes.as_bytes(), false, Expect::Outputs(&golden()))
    }

    #[test]
    fn outputs_are_compared_within_the_tolerance() {
        for right in [
            r#"{"outputs":[[0.25,-1.0]],"ms":3}"#,
            r#"{"a":{"outputs":[9]},"outputs":[0.2505,-1]}"#,
        ] {
            assert_eq!(infer(right), Some(Ok(())), "{right}");
        }
        let Some(Err(Wrong::Outputs { worst })) = infer(r#"{"outputs":[[0.25,-1.5]]}"#) else {
            panic!("not compared");
        };
        assert!((worst - 0.5).abs() < 1e-6);
        let short = infer(r#"{"outputs":[[0.25]]}"#);
        assert_eq!(
            short,
            Some(Err(Wrong::Outputs {
                worst: f32::INFINITY
            }))
        );
        for garbage in [
            "",
            "[]",
            "{}",
            r#"{"outputs":[[0.25,null]]}"#,
            r#"{"outputs":["0.25",1]}"#,
            r#"{"outputs":[0.25,-1.0,3.0]}"#,
            r#"{"outputs":[[0.25,-1.0]]"#,
            r#"{"outputs":"#,
            "\u{0}",
        ] {
            assert_eq!(infer(garbage), Some(Err(Wrong::NoOutputs)), "{garbage}");
        }
    }

    #[test]
    fn an_answer_is_judged_when_it_is_complete_and_not_before() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 0..whole.len() {
            let part = &whole[..cut];
            assert_eq!(judge(part, false, Expect::Status(200)), None, "{cut}");
            let ended = judge(part, true, Expect::Status(200));
            assert_eq!(ended, Some(Err(Wrong::Truncated)), "{cut}");
        }
        assert_eq!(judge(whole, false, Expect::Status(200)), Some(Ok(())));
        let open = b"HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(judge(open, false, Expect::Status(200)), None);
        assert_eq!(judge(open, true, Expect::Status(200)), Some(Ok(())));
    }

    #[test]
    fn the_rest_is_named() {
        let judge = |text: &str| judge(text.as_bytes(), false, Expect::Status(200));
        assert_eq!(
            judge("HTTP/1.1 503 No\r\n\r\n"),
            Some(Err(Wrong::Status(503)))
        );
        assert_eq!(judge("SSH-2.0-x\r\n"), Some(Err(Wrong::NotHttp)));
        assert_eq!(judge("GET / HTTP/1.1\r\n"), Some(Err(Wrong::NotHttp)));
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX));
        assert_eq!(judge(&long), Some(Err(Wrong::TooLong)));
        let large = "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
        assert_eq!(judge(large), Some(Err(Wrong::TooLong)));
        let mad = "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n";
        assert_eq!(judge(mad), Some(Err(Wrong::NotHttp)));
    }
}
