//! The value of an effect, from counts or probabilities of discrete values.
//!
//! In: an [`Effect`] and a [`Table`] of how often each combination of values was seen. Out:
//! the distribution of what was asked. A conditional probability whose condition was never
//! seen has no value; where the answer needs one, the error names the condition. For effects
//! of continuous values see [`crate::linear`].

use crate::expression::Expression;
use crate::graph::{Admg, Set};
use crate::identify::Effect;

/// Most combinations of values, in a table and on the way to an answer: 32 MiB.
pub const CELLS_MAX: usize = 1 << 22;

/// How far the sum of given probabilities may be from 1.
const SUM_SLACK: f64 = 1e-6;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EstimateError {
    /// The table is not one of this graph.
    #[error("{vertices} vertices with {found} numbers of values; each has at least one")]
    Values {
        /// Of the graph.
        vertices: usize,
        /// Given.
        found: usize,
    },
    /// Too many combinations.
    #[error("more than {CELLS_MAX} combinations of values")]
    TooLarge,
    /// As many probabilities or counts as there are combinations, finite, none negative.
    #[error("{0}")]
    Cells(String),
    /// A row that does not fit.
    #[error("row {0}: not one possible value for each vertex")]
    Row(usize),
    /// A value of the action or observation that a vertex cannot have.
    #[error("{0}")]
    Setting(String),
    /// What the answer needs was never seen.
    #[error("never seen: {0}; the data cannot say what follows it")]
    NeverSeen(String),
}

/// How likely each combination of values is.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Number of values of each vertex.
    values: Vec<usize>,
    /// The last vertex varies fastest; sums to 1.
    cells: Vec<f64>,
}

impl Table {
    /// Of probabilities, the values of the last vertex varying fastest.
    ///
    /// # Errors
    /// [`EstimateError`] if they are no distribution over those values.
    pub fn new(values: &[usize], cells: Vec<f64>) -> Result<Self, EstimateError> {
        let count = combinations(values)?;
        if cells.len() != count {
            let found = cells.len();
            let text = format!("{found} probabilities for {count} combinations of values");
            return Err(EstimateError::Cells(text));
        }
        let sum: f64 = cells.iter().sum();
        let sound = cells.iter().all(|p| p.is_finite() && *p >= 0.0);
        if !sound || (sum - 1.0).abs() > SUM_SLACK {
            let text = format!("not probabilities, or their sum is {sum} and not 1");
            return Err(EstimateError::Cells(text));
        }
        let cells = cells.into_iter().map(|p| p / sum).collect();
        let values = values.to_vec();
        Ok(Self { values, cells })
    }

    /// Of rows with the value of each vertex. `smoothing` is added to the count of each
    /// combination (Laplace); with 0 what was not seen is impossible.
    ///
    /// # Errors
    /// [`EstimateError`] if there is no row, or one does not fit.
    pub fn count<R: AsRef<[usize]>>(
        values: &[usize],
        rows: &[R],
        smoothing: f64,
    ) -> Result<Self, EstimateError> {
        if !smoothing.is_finite() || smoothing < 0.0 {
            let text = format!("smoothing by {smoothing}; 0 or more is possible");
            return Err(EstimateError::Cells(text));
        }
        let mut cells = vec![smoothing; combinations(values)?];
        for (number, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            let fits = row.len() == values.len() && row.iter().zip(values).all(|(a, b)| a < b);
            if !fits {
                return Err(EstimateError::Row(number));
            }
            let place = row.iter().zip(values).fold(0, |at, (a, b)| at * b + a);
            cells[place] += 1.0;
        }
        let sum: f64 = cells.iter().sum();
        if sum <= 0.0 {
            return Err(EstimateError::Cells("no rows".to_owned()));
        }
        cells.iter_mut().for_each(|cell| *cell /= sum);
        Self::new(values, cells)
    }

    /// How likely values of some vertices are, whatever the others are.
    #[must_use]
    pub fn probability(&self, of: &[(usize, usize)]) -> f64 {
        let set = of.iter().map(|(vertex, _)| *vertex).collect();
        let mut setting = vec![0; self.values.len()];
        for (vertex, value) in of {
            match self.values.get(*vertex) {
                Some(count) if value < count => setting[*vertex] = *value,
                _ => return 0.0,
            }
        }
        self.marginal(set).at(&setting)
    }

    /// Number of values of each vertex.
    #[must_use]
    pub fn values(&self) -> &[usize] {
        &self.values
    }

    fn marginal(&self, of: Set) -> Factor<'_> {
        let all = Factor {
            over: (0..self.values.len()).collect(),
            cells: Vec::new(),
            values: &self.values,
        };
        let mut part = Factor::zero(of & all.over.iter().copied().collect(), &self.values);
        let mut setting = vec![0; self.values.len()];
        for cell in &self.cells {
            let place = part.place(&setting);
            part.cells[place] += cell;
            all.next(&mut setting);
        }
        part
    }

    fn factor(&self, expression: &Expression) -> Result<Factor<'_>, EstimateError> {
        let size = |over: Set| {
            let values: Vec<usize> = over.iter().map(|vertex| self.values[vertex]).collect();
            combinations(&values)
        };
        match expression {
            Expression::P { of, given } => {
                size(*of | *given)?;
                Ok(self.marginal(*of | *given).divided(&self.marginal(*given)))
            }
            Expression::Sum { over, of } => Ok(self.factor(of)?.summed(*over)),
            Expression::Product(factors) => {
                let mut all = Factor::zero(Set::EMPTY, &self.values);
                all.cells.fill(1.0);
                for factor in factors {
                    size(factor.free() | all.set())?;
                    all = all.joined(&self.factor(factor)?, times);
                }
                Ok(all)
            }
            Expression::Ratio(above, below) => {
                size(above.free() | below.free())?;
                Ok(self.factor(above)?.divided(&self.factor(below)?))
            }
        }
    }

    /// The condition that was never seen and makes an expression undefined.
    fn unseen(&self, graph: &Admg, of: &Expression, setting: &mut [usize]) -> Option<String> {
        match of {
            Expression::P { given, .. } => {
                if self.marginal(*given).at(setting) > 0.0 {
                    return None;
                }
                Some(worded(graph, *given, setting))
            }
            Expression::Sum { over, of } => {
                let kept = setting.to_vec();
                let each = Factor::zero(*over, &self.values);
                over.iter().for_each(|vertex| setting[vertex] = 0);
                let factor = self.factor(of).ok()?;
                let found = each.cells.iter().find_map(|_| {
                    let found = factor.at(setting).is_nan();
                    let found = found.then(|| self.unseen(graph, of, setting)).flatten();
                    each.next(setting);
                    found
                });
                setting.copy_from_slice(&kept);
                found
            }
            Expression::Product(factors) => factors
                .iter()
                .find_map(|factor| self.unseen(graph, factor, setting)),
            Expression::Ratio(above, below) => self
                .unseen(graph, above, setting)
                .or_else(|| self.unseen(graph, below, setting))
                .or_else(|| Some(worded(graph, of.free(), setting))),
        }
    }
}

/// How likely each combination of values of what was asked is.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Asked vertices, ascending.
    pub of: Vec<usize>,
    /// Number of values of each.
    pub values: Vec<usize>,
    /// The last varies fastest.
    pub cells: Vec<f64>,
}

impl Distribution {
    /// How likely these values are, in the order of `of`; 0 if they are not possible.
    #[must_use]
    pub fn probability(&self, of: &[usize]) -> f64 {
        let fits = of.len() == self.of.len() && of.iter().zip(&self.values).all(|(a, b)| a < b);
        let place = of.iter().zip(&self.values).fold(0, |at, (a, b)| at * b + a);
        let cell = fits.then(|| self.cells.get(place)).flatten();
        cell.copied().unwrap_or(0.0)
    }
}

/// The distribution of what an effect asks for, with `setting` for each vertex that is acted
/// on or observed.
///
/// # Errors
/// [`EstimateError::NeverSeen`] with the condition if the data cannot answer; the others if
/// table, setting and graph do not fit together.
pub fn estimate(
    graph: &Admg,
    effect: &Effect,
    table: &Table,
    setting: &[(usize, usize)],
) -> Result<Distribution, EstimateError> {
    evaluate(graph, effect, &effect.best(), table, setting)
}

/// The same by an expression of one's own, such as that of ID where a criterion holds.
///
/// # Errors
/// As [`estimate`].
pub fn evaluate(
    graph: &Admg,
    effect: &Effect,
    expression: &Expression,
    table: &Table,
    setting: &[(usize, usize)],
) -> Result<Distribution, EstimateError> {
    if table.values.len() != graph.len() {
        let (vertices, found) = (graph.len(), table.values.len());
        return Err(EstimateError::Values { vertices, found });
    }
    let fixed = effect.x | effect.z;
    let named: Set = setting.iter().map(|(vertex, _)| *vertex).collect();
    if named != fixed || setting.len() != fixed.len() {
        let text = format!("one value each is needed for {}", graph.list(fixed));
        return Err(EstimateError::Setting(text));
    }
    let mut at = vec![0; graph.len()];
    for (vertex, value) in setting {
        if *value >= table.values[*vertex] {
            let (name, count) = (graph.name(*vertex), table.values[*vertex]);
            let text = format!("{name} = {value}: it has {count} values, from 0");
            return Err(EstimateError::Setting(text));
        }
        at[*vertex] = *value;
    }
    let factor = table.factor(expression)?;
    // The value is the same whatever these are: the commonest are known best.
    let any = (expression.free() - fixed) - effect.y;
    let usual = table.marginal(any);
    let mut tried: Vec<(f64, Vec<usize>)> = Vec::with_capacity(usual.cells.len());
    let mut next = at.clone();
    for cell in &usual.cells {
        tried.push((*cell, next.clone()));
        usual.next(&mut next);
    }
    tried.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let asked = Factor::zero(effect.y, &table.values);
    let mut unseen = None;
    for (_, mut at) in tried {
        let mut cells = Vec::with_capacity(asked.cells.len());
        for _ in &asked.cells {
            let cell = factor.at(&at);
            if cell.is_nan() {
                unseen = unseen.or_else(|| table.unseen(graph, expression, &mut at));
                break;
            }
            cells.push(cell);
            asked.next(&mut at);
        }
        if cells.len() == asked.cells.len() {
            return Ok(Distribution {
                values: asked.over.iter().map(|one| table.values[*one]).collect(),
                of: asked.over,
                cells,
            });
        }
    }
    let fallback = || worded(graph, fixed, &at);
    Err(EstimateError::NeverSeen(unseen.unwrap_or_else(fallback)))
}

fn worded(graph: &Admg, of: Set, setting: &[usize]) -> String {
    let each = of.iter();
    let parts: Vec<String> = each
        .map(|vertex| format!("{} = {}", graph.name(vertex), setting[vertex]))
        .collect();
    parts.join(", ")
}

fn combinations(values: &[usize]) -> Result<usize, EstimateError> {
    if values.contains(&0) {
        let (vertices, found) = (values.len(), values.iter().filter(|one| **one > 0).count());
        return Err(EstimateError::Values { vertices, found });
    }
    let product = values
        .iter()
        .try_fold(1_usize, |all, one| all.checked_mul(*one));
    product
        .filter(|count| *count <= CELLS_MAX)
        .ok_or(EstimateError::TooLarge)
}

/// A product with nothing is nothing, even where the other has no value.
fn times(one: f64, other: f64) -> f64 {
    if one == 0.0 || other == 0.0 {
        0.0
    } else {
        one * other
    }
}

/// A function of the values of some vertices; NaN where it has none.
struct Factor<'a> {
    over: Vec<usize>,
    cells: Vec<f64>,
    values: &'a [usize],
}

impl<'a> Factor<'a> {
    fn zero(over: Set, values: &'a [usize]) -> Self {
        let over: Vec<usize> = over.iter().collect();
        let count = over.iter().map(|vertex| values[*vertex]).product();
        let cells = vec![0.0; count];
        Self {
            over,
            cells,
            values,
        }
    }

    fn set(&self) -> Set {
        self.over.iter().copied().collect()
    }

    fn place(&self, setting: &[usize]) -> usize {
        let each = self.over.iter();
        each.fold(0, |at, vertex| at * self.values[*vertex] + setting[*vertex])
    }

    fn at(&self, setting: &[usize]) -> f64 {
        self.cells[self.place(setting)]
    }

    /// Sets the next combination of its vertices; after the last comes the first.
    fn next(&self, setting: &mut [usize]) {
        for vertex in self.over.iter().rev() {
            setting[*vertex] += 1;
            if setting[*vertex] < self.values[*vertex] {
                return;
            }
            setting[*vertex] = 0;
        }
    }

    fn joined(&self, other: &Self, by: impl Fn(f64, f64) -> f64) -> Self {
        let mut both = Self::zero(self.set() | other.set(), self.values);
        let mut setting = vec![0; self.values.len()];
        for place in 0..both.cells.len() {
            both.cells[place] = by(self.at(&setting), other.at(&setting));
            both.next(&mut setting);
        }
        both
    }

    fn divided(&self, by: &Self) -> Self {
        let over = |above: f64, below: f64| {
            if below == 0.0 {
                f64::NAN
            } else {
                above / below
            }
        };
        self.joined(by, over)
    }

    fn summed(&self, out: Set) -> Self {
        let mut left = Self::zero(self.set() - out, self.values);
        let mut setting = vec![0; self.values.len()];
        for cell in &self.cells {
            let place = left.place(&setting);
            left.cells[place] += cell;
            self.next(&mut setting);
        }
        // What is summed but not in it counts as often as it has values.
        let more = (out - self.set()).iter().map(|vertex| self.values[vertex]);
        let times = more.product::<usize>() as f64;
        left.cells.iter_mut().for_each(|cell| *cell *= times);
        left
    }
}

#[cfg(test)]
mod tests;
