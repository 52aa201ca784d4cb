//! Reads the outputs of an inference answer, in one pass and without keeping them.
//!
//! Two forms: `{"outputs": [[..]], "model": ".."}`, and that of the Open Inference Protocol,
//! `{"model_version": "..", "outputs": [{"name": "..", "data": [..]}, ..]}`, where keys come in
//! any order and `data` may be nested. Deliberately not checked: `shape` and `datatype`, since
//! the numbers themselves are compared.

use std::fmt;

use homeostat_common::ids::ModelVersion;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What an answer held.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) version: Option<ModelVersion>,
    pub(super) numbers: Option<Numbers>,
}

/// Outputs, compared and summed up as they went by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) count: usize,
    /// Largest absolute difference.
    pub(super) worst: f32,
    /// The place of the largest.
    pub(super) class: u16,
    /// Every one of them is a number, and there is one.
    pub(super) finite: bool,
    least: f64,
    most: f64,
    sum: f64,
    /// Sum of `exp(x - most)`.
    odds: f64,
}

impl Numbers {
    const NONE: Self = Self {
        count: 0,
        worst: 0.0,
        class: 0,
        finite: false,
        least: f64::INFINITY,
        most: f64::NEG_INFINITY,
        sum: 0.0,
        odds: 0.0,
    };

    #[allow(clippy::cast_possible_truncation)] // to the precision of the golden outputs
    fn add(&mut self, value: f64, expected: &[f32]) {
        let expected = expected.get(self.count).copied().unwrap_or(f32::INFINITY);
        self.worst = self.worst.max((value as f32 - expected).abs());
        self.finite = value.is_finite() && (self.finite || self.count == 0);
        if value > self.most {
            self.class = u16::try_from(self.count).unwrap_or(u16::MAX);
            self.odds = self.odds * (self.most - value).exp() + 1.0;
            self.most = value;
        } else {
            self.odds += (value - self.most).exp();
        }
        self.count += 1;
        self.least = self.least.min(value);
        self.sum += value;
    }

    /// See [`Told::Inference`](super::Told::Inference).
    #[allow(clippy::cast_possible_truncation)] // a share needs no 53 bits
    pub(super) fn confidence(&self) -> Option<f32> {
        let distribution = self.least >= 0.0 && (self.sum - 1.0).abs() <= 0.01;
        let confidence = if distribution {
            self.most
        } else {
            1.0 / self.odds
        };
        (self.count > 0 && confidence.is_finite()).then_some(confidence as f32)
    }
}

/// Reads `body`; `tensor` names the one that counts, `None` for the plain form.
pub(super) fn read(
    body: &[u8],
    expected: &[f32],
    tensor: Option<&str>,
) -> Result<Seen, serde_json::Error> {
    let mut seen = Seen::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_map(Answer {
        seen: &mut seen,
        expected,
        tensor,
    })?;
    json.end()?;
    Ok(seen)
}

struct Answer<'a> {
    seen: &'a mut Seen,
    expected: &'a [f32],
    tensor: Option<&'a str>,
}

impl<'de> Visitor<'de> for Answer<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with outputs")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeyOf)? {
            match (key, self.tensor) {
                (Key::Outputs, None) if self.seen.numbers.is_none() => {
                    let mut numbers = Numbers::NONE;
                    map.next_value_seed(Values(&mut numbers, self.expected))?;
                    self.seen.numbers = Some(numbers);
                }
                (Key::Outputs, Some(tensor)) if self.seen.numbers.is_none() => {
                    self.seen.numbers = map.next_value_seed(Tensors(tensor, self.expected))?;
                }
                (Key::Model, None) | (Key::ModelVersion, Some(_)) => {
                    self.seen.version = map.next_value_seed(VersionOf)?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Key {
    Outputs,
    Model,
    ModelVersion,
    Name,
    Data,
    Other,
}

/// Which key this is, without keeping it.
struct KeyOf;

impl<'de> DeserializeSeed<'de> for KeyOf {
    type Value = Key;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Key, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "outputs" => Key::Outputs,
            "model" => Key::Model,
            "model_version" => Key::ModelVersion,
            "name" => Key::Name,
            "data" => Key::Data,
            _ => Key::Other,
        })
    }
}

/// A version of ours, or nothing.
struct VersionOf;

impl<'de> DeserializeSeed<'de> for VersionOf {
    type Value = Option<ModelVersion>;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

/// Another server may mean something else by the key, which makes its outputs no worse.
impl<'de> Visitor<'de> for VersionOf {
    type Value = Option<ModelVersion>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    fn visit_str<E>(self, version: &str) -> Result<Self::Value, E> {
        Ok(version.parse().ok())
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Whether a text is this one.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// A list of tensors; the numbers of the one that is named.
struct Tensors<'a>(&'a str, &'a [f32]);

impl<'de> DeserializeSeed<'de> for Tensors<'_> {
    type Value = Option<Numbers>;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Tensors<'_> {
    type Value = Option<Numbers>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tensors")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(numbers) = seq.next_element_seed(Tensor(self.0, self.1))? {
            found = found.or(numbers);
        }
        Ok(found)
    }
}

/// One tensor; `None` when it has another name.
struct Tensor<'a>(&'a str, &'a [f32]);

impl<'de> DeserializeSeed<'de> for Tensor<'_> {
    type Value = Option<Numbers>;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tensor<'_> {
    type Value = Option<Numbers>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut ours, mut numbers) = (false, None);
        while let Some(key) = map.next_key_seed(KeyOf)? {
            match key {
                Key::Name => ours = map.next_value_seed(Is(self.0))?,
                Key::Data => {
                    let mut data = Numbers::NONE;
                    map.next_value_seed(Values(&mut data, self.1))?;
                    numbers = Some(data);
                }
                Key::Outputs | Key::Model | Key::ModelVersion | Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(numbers.filter(|_| ours))
    }
}

/// A number, or a list of what this is.
struct Values<'a>(&'a mut Numbers, &'a [f32]);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, in rows")
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.add(value, self.1);
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.add(value as f64, self.1);
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.add(value as f64, self.1);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        // Depth is bounded by serde_json, length by the body.
        while seq.next_element_seed(Values(self.0, self.1))?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_the_share_of_the_likeliest_class() {
        let confidence = |values: &[f64]| {
            let mut numbers = Numbers::NONE;
            values.iter().for_each(|value| numbers.add(*value, &[]));
            numbers.confidence()
        };
        assert_eq!(confidence(&[]), None);
        assert_eq!(confidence(&[0.25, 0.5, 0.25]), Some(0.5));
        // Logits: softmax, in any order and of any size.
        for logits in [[1000.0, 1000.0], [-1e5, -1e5]] {
            assert_eq!(confidence(&logits), Some(0.5));
        }
        let (up, down) = (confidence(&[0.0, 2.0]), confidence(&[2.0, 0.0]));
        assert_eq!(up, down);
        assert!((up.unwrap() - 0.880_797).abs() < 1e-6);
    }
}
