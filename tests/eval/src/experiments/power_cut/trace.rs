//! What a process did to its files, read from the output of strace.
//!
//! In goes the text of `strace -f -y -xx -s MAX -e trace=CALLS`, whose strings are all in
//! hexadecimal; out comes one [`Op`] for each call that changed something, in the order in
//! which the calls returned. Calls that failed changed nothing. It knows nothing of what the
//! files mean.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

/// Calls that change files or say what is safe. `lseek` because plain writes go where it says.
pub(super) const CALLS: &str = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,\
ftruncate,truncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,symlink,\
symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,copy_file_range,sendfile,sync,syncfs";

/// Longest string that strace prints; the largest write is a segment of the journal.
pub(super) const STRING_MAX: u32 = 4 << 20;

/// One call, with absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Opened for writing; created if it was not there.
    Open {
        path: String,
        truncate: bool,
    },
    Write {
        path: String,
        at: u64,
        bytes: Vec<u8>,
    },
    /// At least so long from now on.
    Grow {
        path: String,
        len: u64,
    },
    Truncate {
        path: String,
        len: u64,
    },
    /// Of a file or of a folder.
    Sync(String),
    Rename {
        from: String,
        to: String,
        exchange: bool,
    },
    Link {
        from: String,
        to: String,
    },
    Symlink {
        target: String,
        at: String,
    },
    MakeDir(String),
    Remove(String),
}

impl Op {
    /// What it changes; of a rename, where to.
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Open { path, .. }
            | Self::Write { path, .. }
            | Self::Grow { path, .. }
            | Self::Truncate { path, .. }
            | Self::Sync(path)
            | Self::MakeDir(path)
            | Self::Remove(path)
            | Self::Symlink { at: path, .. }
            | Self::Rename { to: path, .. }
            | Self::Link { to: path, .. } => path,
        }
    }
}

/// Reads a whole trace.
///
/// # Errors
/// When a line is not what strace writes, or was cut.
pub(super) fn parse(text: &str) -> Result<Vec<Op>> {
    let mut unfinished: BTreeMap<&str, String> = BTreeMap::new();
    let mut positions = Positions::default();
    let mut ops = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((process, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process, begun.to_owned());
            continue;
        }
        let call = match rest.strip_prefix("<... ") {
            None => rest.to_owned(),
            Some(resumed) => {
                let (_, end) = resumed
                    .split_once(" resumed>")
                    .with_context(|| format!("line {}: no call is resumed", number + 1))?;
                let begun = unfinished
                    .remove(process)
                    .with_context(|| format!("line {}: nothing was begun", number + 1))?;
                begun + end
            }
        };
        let op = call_of(&call, &mut positions);
        ops.extend(op.with_context(|| format!("line {} of the trace", number + 1))?);
    }
    Ok(ops)
}

/// Where plain writes go, by path and descriptor.
#[derive(Default)]
struct Positions(BTreeMap<(String, String), u64>);

fn call_of(call: &str, positions: &mut Positions) -> Result<Option<Op>> {
    let Some((call, result)) = call.rsplit_once(" = ") else {
        // Its process was killed before the call returned.
        return Ok(None);
    };
    let Some((name, args)) = call.trim_end().split_once('(') else {
        bail!("no call");
    };
    let args = Arg::split(args.strip_suffix(')').unwrap_or(args))?;
    let Some(returned) = result
        .split([' ', '<'])
        .next()
        .and_then(|n| n.parse::<i64>().ok())
    else {
        return Ok(None);
    };
    let Ok(returned) = u64::try_from(returned) else {
        return Ok(None);
    };
    let arg = |place: usize| args.get(place).context("too few arguments");
    let at = |folder: usize, name: usize| -> Result<String> { arg(name)?.within(arg(folder)?) };
    let file = |place: usize| -> Result<String> { arg(place)?.path.clone().context("no path") };
    // Of no file, or of one that has no name any more.
    let of_file = args
        .first()
        .is_some_and(|one| one.path.is_some() && !one.deleted);
    Ok(match name {
        "open" | "openat" | "creat" => {
            let (path, flags) = match name {
                "openat" => (at(0, 1)?, arg(2)?.text.as_str()),
                "open" => (arg(0)?.string()?, arg(1)?.text.as_str()),
                _ => (arg(0)?.string()?, "O_WRONLY|O_CREAT|O_TRUNC"),
            };
            let opened = result.split_once('<').map_or(result, |(number, _)| number);
            positions
                .0
                .insert((path.clone(), opened.trim().to_owned()), 0);
            let has = |flag: &str| flags.split('|').any(|one| one == flag);
            let writes = has("O_WRONLY") || has("O_RDWR");
            (writes && has("O_CREAT") || has("O_TRUNC")).then(|| Op::Open {
                path,
                truncate: has("O_TRUNC"),
            })
        }
        "lseek" => {
            if let (Some(path), Some(number)) = (&args[0].path, &args[0].number) {
                positions.0.insert((path.clone(), number.clone()), returned);
            }
            None
        }
        "write" | "writev" if of_file => {
            let path = file(0)?;
            let number = arg(0)?.number.clone().unwrap_or_default();
            let place = positions.0.entry((path.clone(), number)).or_default();
            let from = *place;
            *place += returned;
            Some(Op::Write {
                path,
                at: from,
                bytes: arg(1)?.written(returned)?,
            })
        }
        "pwrite64" | "pwritev" | "pwritev2" if of_file => Some(Op::Write {
            path: file(0)?,
            at: arg(3)?.integer()?,
            bytes: arg(1)?.written(returned)?,
        }),
        "fallocate" if of_file => {
            ensure!(arg(1)?.text == "0", "fallocate {}", arg(1)?.text);
            Some(Op::Grow {
                path: file(0)?,
                len: arg(2)?.integer()? + arg(3)?.integer()?,
            })
        }
        "ftruncate" if of_file => Some(Op::Truncate {
            path: file(0)?,
            len: arg(1)?.integer()?,
        }),
        "fsync" | "fdatasync" if of_file => Some(Op::Sync(file(0)?)),
        "rename" => Some(Op::Rename {
            from: arg(0)?.string()?,
            to: arg(1)?.string()?,
            exchange: false,
        }),
        "renameat" | "renameat2" => Some(Op::Rename {
            from: at(0, 1)?,
            to: at(2, 3)?,
            exchange: args
                .get(4)
                .is_some_and(|flags| flags.text == "RENAME_EXCHANGE"),
        }),
        "link" => Some(Op::Link {
            from: arg(0)?.string()?,
            to: arg(1)?.string()?,
        }),
        "linkat" => Some(Op::Link {
            from: at(0, 1)?,
            to: at(2, 3)?,
        }),
        "symlink" => Some(Op::Symlink {
            target: arg(0)?.string()?,
            at: arg(1)?.string()?,
        }),
        "symlinkat" => Some(Op::Symlink {
            target: arg(0)?.string()?,
            at: at(1, 2)?,
        }),
        "mkdir" => Some(Op::MakeDir(arg(0)?.string()?)),
        "mkdirat" => Some(Op::MakeDir(at(0, 1)?)),
        "unlink" | "rmdir" => Some(Op::Remove(arg(0)?.string()?)),
        "unlinkat" => Some(Op::Remove(at(0, 1)?)),
        "copy_file_range" | "sendfile" | "truncate" | "sync" | "syncfs" => {
            bail!("{name} is not understood")
        }
        _ => None,
    })
}

/// One argument as strace prints it.
#[derive(Debug, Default)]
struct Arg {
    text: String,
    /// Of a descriptor: its number, and what it is open on.
    number: Option<String>,
    path: Option<String>,
    deleted: bool,
    /// All strings within, one after the other.
    bytes: Option<Vec<u8>>,
}

impl Arg {
    fn split(args: &str) -> Result<Vec<Self>> {
        let (mut out, mut depth, mut start) = (Vec::new(), 0_i32, 0);
        for (place, byte) in args.bytes().enumerate() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                b',' if depth == 0 => {
                    out.push(Self::parse(args[start..place].trim())?);
                    start = place + 1;
                }
                _ => {}
            }
        }
        out.push(Self::parse(args[start..].trim())?);
        Ok(out)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut arg = Self::default();
        if let Some((number, path)) = text.split_once('<')
            && !text.starts_with(['"', '['])
            && let Some((path, deleted)) = path.rsplit_once('>')
        {
            arg.number = Some(number.to_owned());
            let path = String::from_utf8(unhex(path)?).context("a path is not UTF-8")?;
            arg.path = path.starts_with('/').then_some(path);
            arg.deleted = deleted == "(deleted)";
        }
        for string in text.split('"').skip(1).step_by(2) {
            arg.bytes.get_or_insert_default().extend(unhex(string)?);
        }
        ensure!(!text.contains("\"..."), "strace has cut a string");
        // Not the text of large writes once more.
        arg.text = if arg.bytes.is_some() {
            String::new()
        } else {
            text.to_owned()
        };
        Ok(arg)
    }

    fn string(&self) -> Result<String> {
        let bytes = self.bytes.clone().context("no string")?;
        String::from_utf8(bytes).context("a path is not UTF-8")
    }

    /// This name, in that folder unless it is absolute.
    fn within(&self, folder: &Self) -> Result<String> {
        let name = self.string()?;
        if name.starts_with('/') {
            return Ok(name);
        }
        let folder = folder.path.as_deref().context("no folder")?;
        Ok(format!("{folder}/{name}"))
    }

    fn integer(&self) -> Result<u64> {
        self.text
            .parse()
            .with_context(|| format!("{} is no number", self.text))
    }

    fn written(&self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone().unwrap_or_default();
        ensure!(bytes.len() as u64 >= count, "strace has cut a write");
        bytes.truncate(usize::try_from(count)?);
        Ok(bytes)
    }
}

/// `\x2f\x61` is `/a`.
fn unhex(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len() / 4);
    while let Some(first) = bytes.next() {
        ensure!(
            first == b'\\' && bytes.next() == Some(b'x'),
            "not in hexadecimal"
        );
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            bail!("not in hexadecimal");
        };
        out.push(u8::try_from(high * 16 + low)?);
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn calls_are_read_in_the_order_in_which_they_returned() {
        let (d, a, b) = (hex("/d"), hex("/d/a"), hex("b"));
        let text = format!(
            "7 openat(4<{d}>, \"{}\", O_RDWR|O_CREAT|O_TRUNC|O_CLOEXEC, 0600) = 9<{a}>\n\
             7 write(9<{a}>, \"{}\", 3 <unfinished ...>\n\
             8 fdatasync(9<{a}>) = 0\n\
             8 --- SIGCHLD {{si_signo=SIGCHLD}} ---\n\
             7 <... write resumed>) = 3\n\
             7 write(9<{a}>, \"{}\", 2) = 1\n\
             7 pwrite64(9<{a}>, \"{}\", 1, 100)   = 1\n\
             7 pwrite64(9<{a}>(deleted), \"{}\", 1, 100) = 1\n\
             7 write(2<{}>, \"{}\", 1) = 1\n\
             7 rename(\"{a}\", \"{}\") = -1 ENOENT (No such file or directory)\n\
             7 renameat(4<{d}>, \"{}\", 4<{d}>, \"{b}\") = 0\n\
             7 fallocate(9<{}>, 0, 0, 4096) = 0\n\
             9 +++ exited with 0 +++\n",
            hex("a"),
            hex("one"),
            hex("xy"),
            hex("z"),
            hex("z"),
            hex("pipe:[7]"),
            hex("!"),
            hex("/d/c"),
            hex("a"),
            hex("/d/b"),
        );
        let write = |at, bytes: &[u8]| Op::Write {
            path: "/d/a".into(),
            at,
            bytes: bytes.to_vec(),
        };
        let expected = [
            Op::Open {
                path: "/d/a".into(),
                truncate: true,
            },
            Op::Sync("/d/a".into()),
            write(0, b"one"),
            write(3, b"x"),
            write(100, b"z"),
            Op::Rename {
                from: "/d/a".into(),
                to: "/d/b".into(),
                exchange: false,
            },
            Op::Grow {
                path: "/d/b".into(),
                len: 4096,
            },
        ];
        assert_eq!(parse(&text).unwrap(), expected);
        assert!(
            parse("7 write(9<\\x2f>, \"\\x61\"..., 9) = 9\n").is_err(),
            "cut"
        );
    }
}
