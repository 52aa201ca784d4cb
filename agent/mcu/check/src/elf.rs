//! What a firmware file takes of a chip, read from its program headers and symbols.
//!
//! Of ELF it knows what a linker writes for 32-bit ARM, least byte first.

use anyhow::{Context as _, Result, ensure};

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Of flash: code, constants, and what memory begins with.
    pub(crate) flash: u32,
    /// Of memory, without the stack.
    pub(crate) memory: u32,
}

/// Where memory begins on every Cortex-M.
const MEMORY: std::ops::Range<u32> = 0x2000_0000..0x4000_0000;

const LOAD: u32 = 1;
const SYMBOLS: u32 = 2;

/// What the file takes.
pub(crate) fn sizes(file: &[u8]) -> Result<Sizes> {
    ensure!(
        file.starts_with(b"\x7fELF\x01\x01"),
        "not a 32-bit ELF file"
    );
    let mut sizes = Sizes {
        flash: 0,
        memory: 0,
    };
    for header in table(file, 28, 42, 44)? {
        if word(header, 0)? != LOAD {
            continue;
        }
        sizes.flash += word(header, 16)?;
        if MEMORY.contains(&word(header, 8)?) {
            sizes.memory += word(header, 20)?;
        }
    }
    Ok(sizes)
}

/// Names of functions and data in the file.
pub(crate) fn symbols(file: &[u8]) -> Result<Vec<String>> {
    let sections: Vec<&[u8]> = table(file, 32, 46, 48)?.collect();
    let content = |section: &[u8]| -> Result<&[u8]> {
        let (start, length) = (word(section, 16)? as usize, word(section, 20)? as usize);
        let end = start.checked_add(length).context("a section wraps")?;
        file.get(start..end).context("a section beyond the end")
    };
    let mut names = Vec::new();
    for section in &sections {
        if word(section, 4)? != SYMBOLS {
            continue;
        }
        let strings = sections.get(word(section, 24)? as usize);
        let strings = content(strings.context("symbols without names")?)?;
        for symbol in content(section)?.chunks_exact(16) {
            let start = word(symbol, 0)? as usize;
            let name = strings.get(start..).context("a name beyond the end")?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}

/// Entries of the table whose place, entry size and count stand at these offsets.
fn table(
    file: &[u8],
    place: usize,
    size: usize,
    count: usize,
) -> Result<std::slice::ChunksExact<'_, u8>> {
    let start = word(file, place)? as usize;
    let (size, count) = (half(file, size)?, half(file, count)?);
    let entries = file.get(start..).and_then(|rest| rest.get(..size * count));
    ensure!(size > 0, "a table without entries");
    Ok(entries
        .context("a table beyond the end")?
        .chunks_exact(size))
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_le_bytes(*bytes.context("the file ends early")?))
}

fn half(bytes: &[u8], at: usize) -> Result<usize> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u16::from_le_bytes(*bytes.context("the file ends early")?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let mut file = vec![0; 52];
        file[..6].copy_from_slice(b"\x7fELF\x01\x01");
        file[28] = 52;
        (file[42], file[44]) = (32, 1);
        let mut load = [0_u32; 8];
        (load[0], load[2], load[4], load[5]) = (LOAD, 0x2000_0800, 100, 300);
        file.extend(load.iter().flat_map(|word| word.to_le_bytes()));
        let sizes_of = sizes(&file).unwrap();
        assert_eq!((sizes_of.flash, sizes_of.memory), (100, 300));
        for length in 0..file.len() {
            assert!(sizes(&file[..length]).is_err(), "{length}");
        }
    }
}
