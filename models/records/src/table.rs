//! One table as a file: Parquet, or JSON lines of the same rows.
//!
//! Rows go in one by one and come out one by one; between them lies one row group, so
//! memory does not grow with a recording (but for some kilobytes of Parquet's footer for
//! each group). Each file says what it holds and in which version. Whether it is the file
//! that was written is asked by its length and checksum, which [`crate::dataset`] keeps,
//! before Parquet's reader, which trusts what it reads, is let near it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::reader::ColumnReader;
use parquet::data_type::{BoolType, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::cell::{Columns, Row, Shape, Values};
use crate::error::RecordError;

/// Rows of one row group: some megabytes of what is seen of the reference topology.
pub const GROUP: usize = 512;
/// Most bytes of one row group, unpacked: sixty nodes need a tenth.
const GROUP_BYTES_MAX: i64 = 1 << 28;
/// Longest line; a look at sixty nodes takes 200 kB.
const LINE_MAX: u64 = 1 << 24;
/// Under which key a Parquet file says what it holds.
const KEY: &str = "homeostat.table";

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Columns, compressed.
    Parquet,
    /// One JSON object per line, after one that says what they are.
    Jsonl,
}

impl Format {
    /// How names of its files end.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
        }
    }
}

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    table: String,
    version: u32,
    split: String,
}

/// What was written of a table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The file, in its folder.
    pub file: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Their CRC-32.
    pub crc32: u32,
}

/// Counts and sums up what is written.
struct Counted<W> {
    inner: W,
    bytes: u64,
    sum: crc32fast::Hasher,
}

impl<W> Counted<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            bytes: 0,
            sum: crc32fast::Hasher::new(),
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sum.update(bytes);
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.note(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.note(&bytes[..count]);
        Ok(count)
    }
}

type Out = Counted<BufWriter<File>>;

enum Sink {
    Parquet {
        file: Box<SerializedFileWriter<Out>>,
        columns: Columns,
        held: usize,
    },
    Lines(Out),
}

/// Writes one table.
pub struct TableWriter<R> {
    path: PathBuf,
    sink: Sink,
    rows: u64,
    of: std::marker::PhantomData<fn(R)>,
}

impl<R: Row> TableWriter<R> {
    /// A new file in a folder.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be written.
    pub fn create(dir: &Path, format: Format, split: &str) -> Result<Self, RecordError> {
        let path = dir.join(format!("{}.{}", R::TABLE, format.extension()));
        let file = File::create_new(&path).map_err(RecordError::io("create", &path))?;
        let mut out = Counted::new(BufWriter::new(file));
        let head = Head {
            table: R::TABLE.to_owned(),
            version: R::VERSION,
            split: split.to_owned(),
        };
        let head =
            serde_json::to_string(&head).map_err(|why| RecordError::wrong(&path, "head", why))?;
        let sink = match format {
            Format::Jsonl => {
                writeln!(out, "{head}").map_err(RecordError::io("write", &path))?;
                Sink::Lines(out)
            }
            Format::Parquet => {
                let columns = R::declared();
                let mut message = format!("message {} {{", R::TABLE);
                for column in &columns.0 {
                    message.push_str(&column.declared.message());
                }
                message.push('}');
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_statistics_enabled(EnabledStatistics::None)
                    .set_offset_index_disabled(true)
                    .set_key_value_metadata(Some(vec![KeyValue::new(KEY.to_owned(), head)]))
                    .build();
                let file = parse_message_type(&message).and_then(|schema| {
                    SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))
                });
                Sink::Parquet {
                    file: Box::new(file.map_err(|why| RecordError::wrong(&path, "schema", why))?),
                    columns,
                    held: 0,
                }
            }
        };
        Ok(Self {
            path,
            sink,
            rows: 0,
            of: std::marker::PhantomData,
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be written.
    pub fn add(&mut self, row: &R) -> Result<(), RecordError> {
        self.rows += 1;
        let path = &self.path;
        match &mut self.sink {
            Sink::Lines(out) => {
                let line = serde_json::to_string(row)
                    .map_err(|why| RecordError::wrong(path, format!("row {}", self.rows), why))?;
                writeln!(out, "{line}").map_err(RecordError::io("write", path))
            }
            Sink::Parquet {
                file,
                columns,
                held,
            } => {
                row.put(columns);
                *held += 1;
                if *held == GROUP {
                    *held = 0;
                    group(file, columns).map_err(|why| failed(path, "write", why))?;
                }
                Ok(())
            }
        }
    }

    /// Ends the file and has it stored.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be written.
    pub fn finish(self) -> Result<Written, RecordError> {
        let path = self.path;
        let mut out = match self.sink {
            Sink::Lines(out) => out,
            Sink::Parquet {
                mut file,
                mut columns,
                held,
            } => {
                if held > 0 {
                    group(&mut file, &mut columns).map_err(|why| failed(&path, "write", why))?;
                }
                file.into_inner()
                    .map_err(|why| failed(&path, "write", why))?
            }
        };
        out.flush().map_err(RecordError::io("write", &path))?;
        let stored = out.inner.get_ref().sync_all();
        stored.map_err(RecordError::io("write", &path))?;
        let name = path.file_name().unwrap_or_default();
        Ok(Written {
            file: name.to_string_lossy().into_owned(),
            rows: self.rows,
            bytes: out.bytes,
            crc32: out.sum.finalize(),
        })
    }
}

/// What Parquet's errors are about; a full disk is one of the disk.
fn failed(path: &Path, doing: &'static str, why: ParquetError) -> RecordError {
    match why {
        ParquetError::External(why) => match why.downcast::<std::io::Error>() {
            Ok(why) => RecordError::io(doing, path)(*why),
            Err(why) => RecordError::wrong(path, doing, why),
        },
        why => RecordError::wrong(path, doing, why),
    }
}

/// Writes what is held as a row group.
fn group(file: &mut SerializedFileWriter<Out>, columns: &mut Columns) -> Result<(), ParquetError> {
    let mut group = file.next_row_group()?;
    for column in &mut columns.0 {
        let Some(mut writer) = group.next_column()? else {
            break;
        };
        let shape = column.declared.shape;
        let defined = (shape != Shape::One).then_some(column.defined.as_slice());
        let repeated = shape.repeats().then_some(column.repeated.as_slice());
        match &column.values {
            Values::Whole(values) => writer
                .typed::<Int64Type>()
                .write_batch(values, defined, repeated)?,
            Values::Number(values) => writer
                .typed::<DoubleType>()
                .write_batch(values, defined, repeated)?,
            Values::Flag(values) => writer
                .typed::<BoolType>()
                .write_batch(values, defined, repeated)?,
            Values::Text(values) => writer
                .typed::<ByteArrayType>()
                .write_batch(values, defined, repeated)?,
        };
        writer.close()?;
        column.clear();
    }
    group.close()?;
    Ok(())
}

enum Source {
    Parquet {
        file: SerializedFileReader<File>,
        columns: Columns,
        group: usize,
        left: usize,
    },
    Lines {
        lines: BufReader<Counted<File>>,
        line: u64,
    },
}

/// Reads one table, row by row.
pub struct TableReader<R> {
    path: PathBuf,
    source: Source,
    expected: Written,
    split: String,
    rows: u64,
    of: std::marker::PhantomData<fn() -> R>,
}

impl<R: Row> TableReader<R> {
    /// A file of a folder, as it was written.
    ///
    /// # Errors
    /// [`RecordError`] when it is not, or holds something else.
    pub fn open(dir: &Path, format: Format, expected: &Written) -> Result<Self, RecordError> {
        let path = dir.join(format!("{}.{}", R::TABLE, format.extension()));
        let open = || File::open(&path).map_err(RecordError::io("open", &path));
        let (source, head, place) = match format {
            Format::Jsonl => {
                let mut lines = BufReader::new(Counted::new(open()?));
                let head = line(&mut lines, &path, 1)?.unwrap_or_default();
                (Source::Lines { lines, line: 1 }, Some(head), "line 1")
            }
            Format::Parquet => {
                let mut whole = Counted::new(open()?);
                std::io::copy(&mut whole, &mut std::io::sink())
                    .map_err(RecordError::io("read", &path))?;
                same(&path, &whole, expected)?;
                let file = SerializedFileReader::new(open()?)
                    .map_err(|why| RecordError::wrong(&path, "footer", why))?;
                let keys = file.metadata().file_metadata().key_value_metadata();
                let key = keys.and_then(|keys| keys.iter().find(|key| key.key == KEY));
                let head = key.and_then(|key| key.value.clone());
                let source = Source::Parquet {
                    file,
                    columns: R::declared(),
                    group: 0,
                    left: 0,
                };
                (source, head, "footer")
            }
        };
        let head: Head = serde_json::from_str(&head.unwrap_or_default())
            .map_err(|why| RecordError::wrong(&path, place, format!("no recording: {why}")))?;
        if (head.table.as_str(), head.version) != (R::TABLE, R::VERSION) {
            let why = format!(
                "it holds {} in version {}; {} in version {} was expected",
                head.table,
                head.version,
                R::TABLE,
                R::VERSION
            );
            return Err(RecordError::wrong(&path, place, why));
        }
        Ok(Self {
            path,
            source,
            expected: expected.clone(),
            split: head.split,
            rows: 0,
            of: std::marker::PhantomData,
        })
    }

    /// The set that it says it is of.
    #[must_use]
    pub fn split(&self) -> &str {
        &self.split
    }

    /// Rows read so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn row(&mut self) -> Result<Option<R>, RecordError> {
        let path = &self.path;
        match &mut self.source {
            Source::Lines { lines, line: at } => {
                *at += 1;
                let Some(text) = line(lines, path, *at)? else {
                    same(path, lines.get_ref(), &self.expected)?;
                    return Ok(None);
                };
                let row = serde_json::from_str(&text)
                    .map_err(|why| RecordError::wrong(path, format!("line {at}"), why))?;
                Ok(Some(row))
            }
            Source::Parquet {
                file,
                columns,
                group,
                left,
            } => {
                while *left == 0 {
                    if *group == file.num_row_groups() {
                        return Ok(None);
                    }
                    *left = read(file, self.expected.bytes, columns, *group, path)?;
                    *group += 1;
                }
                *left -= 1;
                let row = R::take(columns);
                row.map(Some).ok_or_else(|| {
                    let place = format!("row group {}, row {}", *group, self.rows + 1);
                    RecordError::wrong(path, place, "its columns are not of one length")
                })
            }
        }
    }
}

impl<R: Row> Iterator for TableReader<R> {
    type Item = Result<R, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.row().transpose()?;
        self.rows += 1;
        Some(row)
    }
}

/// The next line without its end; `None` behind the last.
fn line(
    lines: &mut BufReader<Counted<File>>,
    path: &Path,
    at: u64,
) -> Result<Option<String>, RecordError> {
    let mut text = String::new();
    let read = lines.take(LINE_MAX).read_line(&mut text);
    let count = read.map_err(|why| RecordError::wrong(path, format!("line {at}"), why))?;
    if count == 0 {
        return Ok(None);
    }
    if !text.ends_with('\n') {
        let why = "the line has no end: the file was cut off, or it is none of lines";
        return Err(RecordError::wrong(path, format!("line {at}"), why));
    }
    text.truncate(text.len() - 1);
    Ok(Some(text))
}

fn same<T>(path: &Path, read: &Counted<T>, expected: &Written) -> Result<(), RecordError> {
    let crc = read.sum.clone().finalize();
    if (read.bytes, crc) == (expected.bytes, expected.crc32) {
        return Ok(());
    }
    Err(RecordError::Changed {
        path: path.to_owned(),
        bytes: read.bytes,
        crc,
        expected: format!("{} with {:08x}", expected.bytes, expected.crc32),
    })
}

/// Whether a column lies in the file: Parquet's reader takes that for granted.
fn within(column: &ColumnChunkMetaData, length: u64) -> bool {
    let pages = column.data_page_offset();
    // The dictionary comes first, where there is one, and counts among the bytes.
    let begin = column.dictionary_page_offset().unwrap_or(pages);
    let (begin, pages) = (u64::try_from(begin), u64::try_from(pages));
    let (Ok(begin), Ok(pages), Ok(takes)) = (begin, pages, u64::try_from(column.compressed_size()))
    else {
        return false;
    };
    let end = begin.checked_add(takes);
    end.is_some_and(|end| end <= length && (begin..=end).contains(&pages))
}

/// Reads a row group; the number of its rows.
fn read(
    file: &SerializedFileReader<File>,
    length: u64,
    columns: &mut Columns,
    group: usize,
    path: &Path,
) -> Result<usize, RecordError> {
    let place = |column: Option<&str>| match column {
        Some(column) => format!("row group {}, column {column}", group + 1),
        None => format!("row group {}", group + 1),
    };
    let wrong = |column, why: ParquetError| RecordError::wrong(path, place(column), why);
    let reader = file.get_row_group(group).map_err(|why| wrong(None, why))?;
    let known = reader.metadata();
    let rows = usize::try_from(known.num_rows()).unwrap_or(usize::MAX);
    if rows > GROUP || known.total_byte_size() > GROUP_BYTES_MAX {
        let why = format!(
            "{rows} rows of {} bytes are more than {GROUP} of {GROUP_BYTES_MAX}",
            known.total_byte_size()
        );
        return Err(RecordError::wrong(path, place(None), why));
    }
    if known.num_columns() != columns.0.len() {
        let why = format!(
            "{} columns are not {}",
            known.num_columns(),
            columns.0.len()
        );
        return Err(RecordError::wrong(path, place(None), why));
    }
    for (at, column) in columns.0.iter_mut().enumerate() {
        column.clear();
        let name = column.declared.name;
        if !within(known.column(at), length) {
            let why = format!("it does not lie in the {length} bytes of the file");
            return Err(RecordError::wrong(path, place(Some(name)), why));
        }
        let stands = known.column(at).column_descr();
        if stands.path().parts().first().map(String::as_str) != Some(name)
            || stands.max_def_level() != column.declared.shape.defined()
            || (stands.max_rep_level() > 0) != column.declared.shape.repeats()
        {
            let why = format!("{} stands where it should", stands.path());
            return Err(RecordError::wrong(path, place(Some(name)), why));
        }
        let defined = Some(&mut column.defined);
        let repeated = Some(&mut column.repeated);
        let reader = reader
            .get_column_reader(at)
            .map_err(|why| wrong(Some(name), why))?;
        let read = match (reader, &mut column.values) {
            (ColumnReader::Int64ColumnReader(mut reader), Values::Whole(values)) => {
                reader.read_records(rows, defined, repeated, values)
            }
            (ColumnReader::DoubleColumnReader(mut reader), Values::Number(values)) => {
                reader.read_records(rows, defined, repeated, values)
            }
            (ColumnReader::BoolColumnReader(mut reader), Values::Flag(values)) => {
                reader.read_records(rows, defined, repeated, values)
            }
            (ColumnReader::ByteArrayColumnReader(mut reader), Values::Text(values)) => {
                reader.read_records(rows, defined, repeated, values)
            }
            _ => Err(ParquetError::General("values of another kind".to_owned())),
        };
        let (count, ..) = read.map_err(|why| wrong(Some(name), why))?;
        if count != rows {
            let why = format!("{count} rows of {rows}");
            return Err(RecordError::wrong(path, place(Some(name)), why));
        }
    }
    Ok(rows)
}

impl<R> std::fmt::Debug for TableWriter<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("path", &self.path)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<R> std::fmt::Debug for TableReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableReader")
            .field("path", &self.path)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
