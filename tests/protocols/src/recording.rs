//! Reads the gzip'ed CSV files of the recordings.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flate2::read::MultiGzDecoder;

/// Longest file that is read, unpacked: more than ten times the largest recording, and small
/// enough that a damaged or hostile one cannot take the memory of the machine.
const FILE_MAX: u64 = 256 << 20;

/// The text of a file, unpacked if its name ends in `.gz`.
///
/// # Errors
/// When it cannot be read, is longer than 256 MiB, or is not UTF-8.
pub fn text(file: &Path) -> Result<String> {
    let name = || format!("cannot read {}", file.display());
    let raw = BufReader::new(File::open(file).with_context(name)?);
    let reader: Box<dyn Read> = if file.extension().is_some_and(|end| end == "gz") {
        Box::new(MultiGzDecoder::new(raw))
    } else {
        Box::new(raw)
    };
    let mut text = String::new();
    let read = reader.take(FILE_MAX + 1).read_to_string(&mut text);
    let length = read.with_context(name)? as u64;
    ensure!(
        length <= FILE_MAX,
        "{} is longer than {FILE_MAX} bytes unpacked",
        file.display()
    );
    Ok(text)
}

/// The `*.csv.gz` files in the folders of a folder, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for inner in entries(folder)? {
        if inner.is_dir() {
            let found = entries(&inner)?.into_iter();
            files.extend(found.filter(|file| file.to_string_lossy().ends_with(".csv.gz")));
        }
    }
    files.sort();
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let name = || format!("cannot read {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(name)?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths.collect::<Result<_>>().with_context(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    /// Packs a text into a file, whose folders are made.
    pub(crate) fn write(file: &Path, text: &str) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut packer = GzEncoder::new(File::create(file).unwrap(), Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap();
    }

    #[test]
    fn files_of_folders_are_found_sorted_and_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/2.csv.gz", "a/1.csv.gz", "a/notes.txt"] {
            write(&folder.path().join(name), name);
        }
        let found = files(folder.path()).unwrap();
        let texts: Vec<String> = found.iter().map(|file| text(file).unwrap()).collect();
        assert_eq!(texts, ["a/1.csv.gz", "b/2.csv.gz"]);
        assert!(text(&folder.path().join("none.csv.gz")).is_err());
    }
}
