//! What a node saw in one window: `O_t = {L_t, M_t, A_t}` (PASE 3.1).
//!
//! Logs are counted templates, never raw text; metrics are readings that say
//! when they are stale or absent; alarms are conditions that hold now. A source
//! that is absent is [`Reading::Missing`], never 0.

mod metric;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Error as DeError, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::metric::Named;
pub use self::metric::{Metric, Nature};
use crate::ids::{NodeId, ServiceId};
use crate::units::{Micros, Millis};

/// A measured value, or an honest account of why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading<T> {
    /// Measured within the present window.
    Fresh(T),
    /// The source fell silent; this is what it said last.
    Stale {
        /// The last value.
        last: T,
        /// How long ago that was.
        age: Millis,
    },
    /// The source does not exist here, or never answered.
    #[default]
    Missing,
}

impl<T: Copy> Reading<T> {
    /// The value, only if it belongs to the present window.
    pub fn fresh(self) -> Option<T> {
        match self {
            Self::Fresh(value) => Some(value),
            Self::Stale { .. } | Self::Missing => None,
        }
    }

    /// The same reading of another type.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Fresh(value) => Reading::Fresh(f(value)),
            Self::Stale { last, age } => Reading::Stale { last: f(last), age },
            Self::Missing => Reading::Missing,
        }
    }
}

impl<T> From<Option<T>> for Reading<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Self::Fresh)
    }
}

/// Longest name of a [`Part`]; sizes every place where one is stored.
pub const PART_MAX: usize = 48;

/// The part of a node that a reading is about, where there are several of a kind: a disk,
/// an interface, a mount point, a route, a dependency. Printable ASCII without spaces,
/// quotes and backslashes, so that it needs no escaping anywhere.
///
/// ```
/// # use homeostat_common::observation::Part;
/// assert_eq!(Part::new("/var/lib").unwrap().as_str(), "/var/lib");
/// assert_eq!(Part::new("a b"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part(heapless::String<PART_MAX>);

impl Part {
    /// `None` for what is empty, too long, or needs escaping.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if text.is_empty() || !text.bytes().all(plain) {
            return None;
        }
        heapless::String::try_from(text).ok().map(Self)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Part;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a part of a node")
            }
            fn visit_str<E: DeError>(self, text: &str) -> Result<Part, E> {
                Part::new(text).ok_or_else(|| E::custom("not the name of a part"))
            }
        }
        from.deserialize_str(Text)
    }
}

/// How bad a log line says it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Level {
    Debug,
    #[default]
    Info,
    Warning,
    Error,
}

/// One entry of `L_t`: lines of one template in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCount {
    /// The service that wrote them; `None` for the node: its kernel, and what is no service.
    pub service: Option<ServiceId>,
    /// Stable id of the template.
    pub template: u64,
    /// The template: the line with its variable parts masked.
    pub text: String,
    /// The worst level among them.
    pub level: Level,
    /// Lines in the window.
    pub count: u32,
}

/// What a reading is one of: the same thing measured again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// What is measured.
    pub metric: Metric,
    /// The service it concerns; `None` for the node.
    pub service: Option<ServiceId>,
    /// The part of the node or service, where it has several of them.
    pub part: Option<Part>,
}

/// One entry of `M_t`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricReading {
    /// What was measured.
    pub metric: Metric,
    /// The service it concerns; `None` for the node.
    pub service: Option<ServiceId>,
    /// The part of the node or service, where it has several of them.
    pub part: Option<Part>,
    /// In [`Metric::unit`].
    pub reading: Reading<f64>,
}

impl MetricReading {
    /// What it is a reading of.
    #[must_use]
    pub fn series(&self) -> Series {
        Series {
            metric: self.metric,
            service: self.service.clone(),
            part: self.part.clone(),
        }
    }

    /// Of the node as a whole.
    #[must_use]
    pub fn node(metric: Metric, reading: Reading<f64>) -> Self {
        Self {
            metric,
            service: None,
            part: None,
            reading,
        }
    }

    /// Of a service.
    #[must_use]
    pub fn service(metric: Metric, service: ServiceId, reading: Reading<f64>) -> Self {
        Self {
            service: Some(service),
            ..Self::node(metric, reading)
        }
    }

    /// Of a part of the node.
    #[must_use]
    pub fn part(metric: Metric, part: Part, reading: Reading<f64>) -> Self {
        Self {
            part: Some(part),
            ..Self::node(metric, reading)
        }
    }
}

/// Leaves out the metrics of later versions, so that the rest can be read.
fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<MetricReading>, D::Error> {
    #[derive(Deserialize)]
    struct Any {
        metric: Named,
        service: Option<ServiceId>,
        part: Option<Part>,
        reading: Reading<f64>,
    }
    let all = Vec::<Any>::deserialize(from)?;
    let known = all.into_iter().filter_map(|any| {
        Some(MetricReading {
            metric: any.metric.0?,
            service: any.service,
            part: any.part,
            reading: any.reading,
        })
    });
    Ok(known.collect())
}

/// One entry of `A_t`: a condition that holds now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmReading {
    /// Its name, unique on the node.
    pub alarm: String,
    /// The service it concerns; `None` for the node.
    pub service: Option<ServiceId>,
    /// What a person should know.
    pub text: String,
}

/// `O_t`: everything that was seen in one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Who saw it.
    pub node: NodeId,
    /// Start of the window on the node's monotonic clock.
    pub from: Micros,
    /// End of the window.
    pub to: Micros,
    /// `L_t`.
    pub logs: Vec<LogCount>,
    /// `M_t`.
    #[serde(deserialize_with = "known")]
    pub metrics: Vec<MetricReading>,
    /// `A_t`.
    pub alarms: Vec<AlarmReading>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_again_by_its_number_and_its_name() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_number(*metric as u8), Some(*metric));
            assert_eq!(Metric::from_name(metric.name()), Some(*metric));
        }
        assert_eq!(Metric::from_number(u8::MAX), None);
        assert!(Metric::ALL.is_sorted(), "lines stand in wire order");
        for metric in Metric::ALL {
            let (least, most) = metric.plausible();
            assert!(least < most && most.is_finite(), "{}", metric.name());
        }
    }

    #[test]
    fn metrics_of_a_later_version_are_left_out_and_the_rest_is_read() {
        type Any = (u8, Option<ServiceId>, Option<Part>, Reading<f64>);
        #[derive(Serialize)]
        struct Later {
            node: NodeId,
            from: Micros,
            to: Micros,
            logs: Vec<LogCount>,
            metrics: Vec<Any>,
            alarms: Vec<AlarmReading>,
        }
        let eth0 = Part::new("eth0").unwrap();
        let later = Later {
            node: NodeId::new("edge-1").unwrap(),
            from: Micros(1),
            to: Micros(2),
            logs: Vec::new(),
            metrics: alloc::vec![
                (44, None, Some(eth0.clone()), Reading::Fresh(1.5)),
                (u8::MAX, None, Some(eth0.clone()), Reading::Fresh(1.0)),
                (0, None, None, Reading::Missing),
            ],
            alarms: Vec::new(),
        };
        let bytes = postcard::to_allocvec(&later).unwrap();
        let read: Observation = postcard::from_bytes(&bytes).unwrap();
        let expected = [
            MetricReading::part(Metric::NetReceived, eth0, Reading::Fresh(1.5)),
            MetricReading::node(Metric::CpuBusy, Reading::Missing),
        ];
        assert_eq!(read.metrics, expected);
        assert_eq!(postcard::from_bytes::<Metric>(&[255]).ok(), None);
    }

    #[test]
    fn a_part_needs_no_escaping() {
        let long = "x".repeat(PART_MAX + 1);
        for wrong in ["", "a b", "a\"b", "a\\b", "a\nb", "\u{fc}", &long] {
            assert_eq!(Part::new(wrong), None, "{wrong}");
        }
        assert!(postcard::from_bytes::<Part>(&[3, b'a', b' ', b'b']).is_err());
    }

    #[test]
    fn only_a_fresh_reading_counts_as_a_value() {
        assert_eq!(Reading::Fresh(3).fresh(), Some(3));
        let stale = Reading::Stale {
            last: 3,
            age: Millis(5),
        };
        assert_eq!(stale.fresh(), None);
        assert_eq!(Reading::<i32>::from(None), Reading::Missing);
    }
}
