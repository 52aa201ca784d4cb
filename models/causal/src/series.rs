//! Measurements side by side: one row for each step of time, one column for each variable.

use crate::graph::VERTICES_MAX;

/// Most steps: a year of minutes and more.
pub const STEPS_MAX: usize = 1 << 20;

/// Why there is no series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// A name is missing or doubled.
    #[error("{names} names for {columns} columns, each of another name")]
    Names {
        /// Different names.
        names: usize,
        /// Columns.
        columns: usize,
    },
    /// More than fit.
    #[error("{columns} columns of {steps} steps; {VERTICES_MAX} of {STEPS_MAX} are possible")]
    TooLarge {
        /// Columns.
        columns: usize,
        /// Steps.
        steps: usize,
    },
    /// Not as long as the first.
    #[error("{name}: {found} steps and not {steps}")]
    Length {
        /// The column.
        name: String,
        /// It has so many.
        found: usize,
        /// The first has so many.
        steps: usize,
    },
    /// Infinite.
    #[error("{name}: step {step} is infinite; what is missing is NaN")]
    Infinite {
        /// The column.
        name: String,
        /// From 0.
        step: usize,
    },
}

/// Columns of equal length; NaN where a measurement is missing.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    names: Vec<String>,
    columns: Vec<Vec<f64>>,
}

impl Series {
    /// # Errors
    /// [`SeriesError`] if names or lengths do not fit, or a value is infinite.
    pub fn new<N: AsRef<str>>(names: &[N], columns: Vec<Vec<f64>>) -> Result<Self, SeriesError> {
        let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
        let mut different: Vec<&String> = names.iter().collect();
        different.sort();
        different.dedup();
        if different.len() != names.len() || names.len() != columns.len() {
            let (names, columns) = (different.len(), columns.len());
            return Err(SeriesError::Names { names, columns });
        }
        let steps = columns.first().map_or(0, Vec::len);
        if columns.len() > VERTICES_MAX || steps > STEPS_MAX {
            let columns = columns.len();
            return Err(SeriesError::TooLarge { columns, steps });
        }
        for (name, column) in names.iter().zip(&columns) {
            let name = || name.clone();
            if column.len() != steps {
                let (name, found) = (name(), column.len());
                return Err(SeriesError::Length { name, found, steps });
            }
            if let Some(step) = column.iter().position(|value| value.is_infinite()) {
                let name = name();
                return Err(SeriesError::Infinite { name, step });
            }
        }
        Ok(Self { names, columns })
    }

    /// Of each column.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// In the order of the names.
    #[must_use]
    pub fn columns(&self) -> &[Vec<f64>] {
        &self.columns
    }

    /// How many.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// The column of a name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&[f64]> {
        let place = self.names.iter().position(|known| known == name)?;
        self.columns.get(place).map(Vec::as_slice)
    }

    /// Without columns that never change, which say nothing of any cause.
    #[must_use]
    pub fn varying(&self) -> Self {
        let pairs = self.names.iter().zip(&self.columns);
        let (names, columns) = pairs
            .filter(|(_, column)| !constant(column))
            .map(|(name, column)| (name.clone(), column.clone()))
            .unzip();
        Self { names, columns }
    }
}

/// Whether all that was measured is the same.
pub(crate) fn constant(column: &[f64]) -> bool {
    let mut seen = column.iter().filter(|value| !value.is_nan());
    let first = seen.next();
    seen.all(|value| Some(value) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let said = |names: &[&str], columns| Series::new(names, columns).unwrap_err().to_string();
        assert_eq!(
            said(&["a", "a"], vec![vec![], vec![]]),
            "1 names for 2 columns, each of another name"
        );
        assert_eq!(
            said(&["a", "b"], vec![vec![1.0], vec![]]),
            "b: 0 steps and not 1"
        );
        assert_eq!(
            said(&["a"], vec![vec![1.0, f64::INFINITY]]),
            "a: step 1 is infinite; what is missing is NaN"
        );
        let columns = vec![vec![1.0, f64::NAN, 1.0], vec![1.0, 2.0, 2.0]];
        let series = Series::new(&["a", "b"], columns).unwrap();
        assert_eq!(series.varying().names(), ["b"]);
        assert_eq!(series.column("b"), Some(&[1.0, 2.0, 2.0][..]));
    }
}
