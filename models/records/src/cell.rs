//! Rows as columns: what a field of a row may be, and how it lies in a column.
//!
//! A field is a number, a whole number, a flag or a text, or an optional one, a list, or a
//! list with gaps. Columns are those of Parquet (Dremel's levels: how deep a value is
//! defined, and whether it goes on with a list), so a file can be read by whatever reads
//! Parquet. Rows are declared once by [`rows!`], which makes the same row good for JSON.

use parquet::data_type::ByteArray;

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Whole,
    Number,
    Flag,
    Text,
}

/// How many of them a row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Maybe,
    Many,
    ManyMaybe,
}

impl Shape {
    /// The definition level of a value that is there.
    pub(crate) fn defined(self) -> i16 {
        match self {
            Self::One => 0,
            Self::Maybe | Self::Many => 1,
            Self::ManyMaybe => 2,
        }
    }

    pub(crate) fn repeats(self) -> bool {
        matches!(self, Self::Many | Self::ManyMaybe)
    }
}

/// A column as it is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
}

impl Declared {
    /// As a message of Parquet says it.
    pub(crate) fn message(&self) -> String {
        let (of, note) = match self.kind {
            Kind::Whole => ("INT64", " (INTEGER(64,false))"),
            Kind::Number => ("DOUBLE", ""),
            Kind::Flag => ("BOOLEAN", ""),
            Kind::Text => ("BYTE_ARRAY", " (UTF8)"),
        };
        let name = self.name;
        let list = |how: &str| {
            format!(
                "REQUIRED GROUP {name} (LIST) {{ REPEATED GROUP list {{ {how} {of} element{note}; }} }}"
            )
        };
        match self.shape {
            Shape::One => format!("REQUIRED {of} {name}{note};"),
            Shape::Maybe => format!("OPTIONAL {of} {name}{note};"),
            Shape::Many => list("REQUIRED"),
            Shape::ManyMaybe => list("OPTIONAL"),
        }
    }
}

/// Values in a row's order.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    Whole(Vec<i64>),
    Number(Vec<f64>),
    Flag(Vec<bool>),
    Text(Vec<ByteArray>),
}

/// The values of some rows in one column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) declared: Declared,
    pub(crate) values: Values,
    /// How deep each is defined; empty where all are.
    pub(crate) defined: Vec<i16>,
    /// 1 where one goes on with the list before it; empty without lists.
    pub(crate) repeated: Vec<i16>,
    /// Next level and value to be taken.
    level: usize,
    value: usize,
}

impl Column {
    pub(crate) fn new(declared: Declared) -> Self {
        Self {
            values: match declared.kind {
                Kind::Whole => Values::Whole(Vec::new()),
                Kind::Number => Values::Number(Vec::new()),
                Kind::Flag => Values::Flag(Vec::new()),
                Kind::Text => Values::Text(Vec::new()),
            },
            declared,
            defined: Vec::new(),
            repeated: Vec::new(),
            level: 0,
            value: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        match &mut self.values {
            Values::Whole(values) => values.clear(),
            Values::Number(values) => values.clear(),
            Values::Flag(values) => values.clear(),
            Values::Text(values) => values.clear(),
        }
        self.defined.clear();
        self.repeated.clear();
        (self.level, self.value) = (0, 0);
    }

    fn levels(&mut self, defined: i16, repeated: bool) {
        if self.declared.shape != Shape::One {
            self.defined.push(defined);
        }
        if self.declared.shape.repeats() {
            self.repeated.push(i16::from(repeated));
        }
    }

    /// Levels of the next entry: whether it goes on with a list, and how deep it is defined.
    fn peek(&self) -> Option<(bool, i16)> {
        let defined = self.defined.get(self.level).copied()?;
        let repeated = self.repeated.get(self.level).copied().unwrap_or(0);
        Some((repeated != 0, defined))
    }
}

/// A row does not lie in its columns as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

/// One value of a column.
trait Scalar: Sized {
    const KIND: Kind;
    fn push(&self, values: &mut Values);
    fn get(values: &Values, at: usize) -> Result<Self, Short>;
}

impl Scalar for u64 {
    const KIND: Kind = Kind::Whole;
    fn push(&self, values: &mut Values) {
        if let Values::Whole(values) = values {
            values.push(self.cast_signed());
        }
    }
    fn get(values: &Values, at: usize) -> Result<Self, Short> {
        match values {
            Values::Whole(values) => Ok(values.get(at).ok_or(Short)?.cast_unsigned()),
            _ => Err(Short),
        }
    }
}

impl Scalar for f64 {
    const KIND: Kind = Kind::Number;
    fn push(&self, values: &mut Values) {
        if let Values::Number(values) = values {
            values.push(*self);
        }
    }
    fn get(values: &Values, at: usize) -> Result<Self, Short> {
        match values {
            Values::Number(values) => values.get(at).copied().ok_or(Short),
            _ => Err(Short),
        }
    }
}

impl Scalar for bool {
    const KIND: Kind = Kind::Flag;
    fn push(&self, values: &mut Values) {
        if let Values::Flag(values) = values {
            values.push(*self);
        }
    }
    fn get(values: &Values, at: usize) -> Result<Self, Short> {
        match values {
            Values::Flag(values) => values.get(at).copied().ok_or(Short),
            _ => Err(Short),
        }
    }
}

impl Scalar for String {
    const KIND: Kind = Kind::Text;
    fn push(&self, values: &mut Values) {
        if let Values::Text(values) = values {
            values.push(self.as_bytes().to_vec().into());
        }
    }
    fn get(values: &Values, at: usize) -> Result<Self, Short> {
        match values {
            Values::Text(values) => {
                let bytes = values.get(at).ok_or(Short)?.data().to_vec();
                Self::from_utf8(bytes).map_err(|_| Short)
            }
            _ => Err(Short),
        }
    }
}

/// A field of a row.
pub(crate) trait Cell: Sized {
    const KIND: Kind;
    const SHAPE: Shape;
    fn put(&self, column: &mut Column);
    fn take(column: &mut Column) -> Result<Self, Short>;
}

/// The next value of a column.
fn next<T: Scalar>(column: &mut Column) -> Result<T, Short> {
    let value = T::get(&column.values, column.value)?;
    column.value += 1;
    Ok(value)
}

/// The entries of the next list: `item` makes one of its level.
fn list<T>(
    column: &mut Column,
    mut item: impl FnMut(&mut Column, i16) -> Result<T, Short>,
) -> Result<Vec<T>, Short> {
    let mut items = Vec::new();
    let (repeated, defined) = column.peek().ok_or(Short)?;
    if repeated {
        return Err(Short);
    }
    column.level += 1;
    if defined == 0 {
        return Ok(items);
    }
    items.push(item(column, defined)?);
    while let Some((true, defined)) = column.peek() {
        column.level += 1;
        items.push(item(column, defined)?);
    }
    Ok(items)
}

macro_rules! cells {
    ($($of:ty),+) => {$(
        impl Cell for $of {
            const KIND: Kind = <$of as Scalar>::KIND;
            const SHAPE: Shape = Shape::One;
            fn put(&self, column: &mut Column) {
                self.push(&mut column.values);
            }
            fn take(column: &mut Column) -> Result<Self, Short> {
                next(column)
            }
        }

        impl Cell for Option<$of> {
            const KIND: Kind = <$of as Scalar>::KIND;
            const SHAPE: Shape = Shape::Maybe;
            fn put(&self, column: &mut Column) {
                column.levels(i16::from(self.is_some()), false);
                if let Some(value) = self {
                    value.push(&mut column.values);
                }
            }
            fn take(column: &mut Column) -> Result<Self, Short> {
                let (_, defined) = column.peek().ok_or(Short)?;
                column.level += 1;
                if defined == 0 {
                    return Ok(None);
                }
                next(column).map(Some)
            }
        }

        impl Cell for Vec<$of> {
            const KIND: Kind = <$of as Scalar>::KIND;
            const SHAPE: Shape = Shape::Many;
            fn put(&self, column: &mut Column) {
                if self.is_empty() {
                    column.levels(0, false);
                }
                for (at, value) in self.iter().enumerate() {
                    column.levels(1, at > 0);
                    value.push(&mut column.values);
                }
            }
            fn take(column: &mut Column) -> Result<Self, Short> {
                list(column, |column, _| next(column))
            }
        }

        impl Cell for Vec<Option<$of>> {
            const KIND: Kind = <$of as Scalar>::KIND;
            const SHAPE: Shape = Shape::ManyMaybe;
            fn put(&self, column: &mut Column) {
                if self.is_empty() {
                    column.levels(0, false);
                }
                for (at, value) in self.iter().enumerate() {
                    column.levels(1 + i16::from(value.is_some()), at > 0);
                    if let Some(value) = value {
                        value.push(&mut column.values);
                    }
                }
            }
            fn take(column: &mut Column) -> Result<Self, Short> {
                list(column, |column, defined| match defined {
                    1 => Ok(None),
                    _ => next(column).map(Some),
                })
            }
        }
    )+};
}

cells!(u64, f64, bool, String);

/// One row of a table. Only this crate declares some.
pub trait Row: Sized + serde::Serialize + serde::de::DeserializeOwned + Sealed {
    /// The name of its table, and of its file.
    const TABLE: &'static str;
    /// The version of its columns; another one is refused.
    const VERSION: u32;
    /// The episode that it belongs to.
    fn episode(&self) -> u64;
}

/// How a row lies in columns.
pub trait Sealed: Sized {
    #[doc(hidden)]
    fn declared() -> Columns;
    #[doc(hidden)]
    fn put(&self, columns: &mut Columns);
    #[doc(hidden)]
    fn take(columns: &mut Columns) -> Option<Self>;
}

/// The columns of some rows.
#[derive(Debug, Clone)]
pub struct Columns(pub(crate) Vec<Column>);

macro_rules! rows {
    (
        $(#[$about:meta])*
        pub struct $Name:ident = $table:literal, $version:literal {
            $( $(#[$doc:meta])* pub $field:ident: $of:ty, )+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $Name {
            $( $(#[$doc])* pub $field: $of, )+
        }

        impl crate::cell::Row for $Name {
            const TABLE: &'static str = $table;
            const VERSION: u32 = $version;
            fn episode(&self) -> u64 {
                self.episode
            }
        }

        impl crate::cell::Sealed for $Name {
            fn declared() -> crate::cell::Columns {
                use crate::cell::{Cell, Column, Declared};
                crate::cell::Columns(vec![$(
                    Column::new(Declared {
                        name: stringify!($field),
                        kind: <$of as Cell>::KIND,
                        shape: <$of as Cell>::SHAPE,
                    })
                ),+])
            }

            fn put(&self, columns: &mut crate::cell::Columns) {
                let mut columns = columns.0.iter_mut();
                $(if let Some(column) = columns.next() {
                    crate::cell::Cell::put(&self.$field, column);
                })+
            }

            fn take(columns: &mut crate::cell::Columns) -> Option<Self> {
                let mut columns = columns.0.iter_mut();
                Some(Self {
                    $($field: <$of as crate::cell::Cell>::take(columns.next()?).ok()?,)+
                })
            }
        }
    };
}
pub(crate) use rows;
