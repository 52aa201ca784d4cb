//! What a disk may hold after a power cut: a small file system that forgets.
//!
//! In go the operations of a trace; out comes, at any point of it, a folder as it could be
//! found when the power is back. No more is taken for safe than what POSIX says:
//!
//! - bytes and length of a file since its last sync are there or not, sector by sector, and a
//!   sector that was on its way may hold garbage;
//! - names made, moved or removed since the last sync of their folder are there or not, each
//!   for itself, so that a later change may be there and an earlier one not. A sync of a file
//!   says nothing about its name;
//! - one rename is never seen half done. File systems without a journal of their names may do
//!   that; the agent is not made for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;

use super::trace::Op;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Folder, name in it, and what it stands for from then on.
type Change = (usize, String, Option<usize>);

/// A folder and everything below it.
#[derive(Clone, Debug)]
pub(super) struct Medium {
    /// Where it is: paths of operations begin with this, others are none of its business.
    root: String,
    nodes: Vec<Node>,
    /// Changes of names that may be lost, oldest first: each whole or not at all.
    pending: BTreeMap<u64, Vec<Change>>,
    changes: u64,
}

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Link(String),
    Folder {
        durable: BTreeMap<String, usize>,
        current: BTreeMap<String, usize>,
    },
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Sectors that differ or are on their way.
    touched: BTreeSet<usize>,
}

impl Medium {
    /// An empty folder.
    pub(super) fn new(root: &Path) -> Result<Self> {
        let root = root.to_str().context("a path that is not UTF-8")?;
        Ok(Self {
            root: root.to_owned(),
            nodes: vec![folder()],
            pending: BTreeMap::new(),
            changes: 0,
        })
    }

    /// What is below `path` now, all of it safe; operations will be those on `root`.
    pub(super) fn load(path: &Path, root: &Path) -> Result<Self> {
        let mut this = Self::new(root)?;
        this.load_into(0, path)?;
        Ok(this)
    }

    fn load_into(&mut self, parent: usize, path: &Path) -> Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a name")?;
            let kind = entry.file_type()?;
            let node = if kind.is_dir() {
                folder()
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                Node::Link(target.to_str().context("a link")?.to_owned())
            } else {
                let bytes = fs::read(entry.path())?;
                Node::File(File {
                    durable: bytes.clone(),
                    current: bytes,
                    touched: BTreeSet::new(),
                })
            };
            self.nodes.push(node);
            let number = self.nodes.len() - 1;
            if let Node::Folder { durable, current } = &mut self.nodes[parent] {
                durable.insert(name.clone(), number);
                current.insert(name, number);
            }
            if kind.is_dir() {
                self.load_into(number, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Whether an operation is one on this folder.
    pub(super) fn concerns(&self, op: &Op) -> bool {
        self.is_below(op.path())
    }

    /// Does an operation on this folder.
    ///
    /// # Errors
    /// When it cannot have succeeded on what is here: the trace is not whole.
    pub(super) fn apply(&mut self, op: &Op) -> Result<()> {
        let done = self.try_apply(op);
        done.with_context(|| {
            let shown = format!("{op:?}");
            format!(
                "cannot follow {}",
                shown.chars().take(300).collect::<String>()
            )
        })
    }

    fn try_apply(&mut self, op: &Op) -> Result<()> {
        let path = op.path();
        match op {
            Op::Open { truncate, .. } => match self.find(path) {
                Some(_) if *truncate => self.file(path)?.resize(0),
                Some(_) => {}
                None => self.make(path, Node::File(File::default()))?,
            },
            Op::Write { at, bytes, .. } => {
                let at = usize::try_from(*at)?;
                self.file(path)?.write(at, bytes);
            }
            Op::Grow { len, .. } => {
                let len = usize::try_from(*len)?;
                let file = self.file(path)?;
                file.resize(len.max(file.current.len()));
            }
            Op::Truncate { len, .. } => {
                let len = usize::try_from(*len)?;
                self.file(path)?.resize(len);
            }
            Op::Sync(_) => self.sync(path)?,
            Op::MakeDir(_) => self.make(path, folder())?,
            Op::Symlink { target, .. } => self.make(path, Node::Link(target.clone()))?,
            Op::Remove(_) => {
                let (parent, name) = self.place(path)?;
                self.change(vec![(parent, name, None)]);
            }
            Op::Link { from, .. } => {
                let number = self.entry(from).context("nothing to link")?;
                let (parent, name) = self.place(path)?;
                self.change(vec![(parent, name, Some(number))]);
            }
            Op::Rename { from, exchange, .. } => {
                ensure!(self.is_below(from), "renamed into it");
                let number = self.entry(from).context("nothing to rename")?;
                let former = self.entry(path).filter(|_| *exchange);
                let ((a, old), (b, new)) = (self.place(from)?, self.place(path)?);
                self.change(vec![(a, old, former), (b, new, Some(number))]);
            }
        }
        Ok(())
    }

    fn is_below(&self, path: &str) -> bool {
        path.strip_prefix(&self.root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn find(&self, path: &str) -> Option<usize> {
        let rest = path.strip_prefix(&self.root)?;
        let mut number = 0;
        for name in rest.split('/').filter(|name| !name.is_empty()) {
            let Node::Folder { current, .. } = self.nodes.get(number)? else {
                return None;
            };
            number = *current.get(name)?;
            // A link to a folder beside it, as slots have.
            if let Some(Node::Link(target)) = self.nodes.get(number) {
                let mut at = current;
                let mut parts = target.split('/').peekable();
                number = loop {
                    let next = *at.get(parts.next()?)?;
                    match (&self.nodes.get(next)?, parts.peek()) {
                        (Node::Folder { current, .. }, Some(_)) => at = current,
                        _ => break next,
                    }
                };
            }
        }
        Some(number)
    }

    /// Folder and name of a path, whose last part is not followed.
    fn place(&self, path: &str) -> Result<(usize, String)> {
        let (parent, name) = path.rsplit_once('/').context("no folder")?;
        let parent = self.find(parent).context("its folder is not there")?;
        Ok((parent, name.to_owned()))
    }

    /// What the last part of a path stands for itself, a link included.
    fn entry(&self, path: &str) -> Option<usize> {
        let (parent, name) = self.place(path).ok()?;
        match self.nodes.get(parent)? {
            Node::Folder { current, .. } => current.get(&name).copied(),
            _ => None,
        }
    }

    fn file(&mut self, path: &str) -> Result<&mut File> {
        let number = self.find(path).context("it is not there")?;
        match self.nodes.get_mut(number) {
            Some(Node::File(file)) => Ok(file),
            _ => bail!("not a file"),
        }
    }

    fn make(&mut self, path: &str, node: Node) -> Result<()> {
        let (parent, name) = self.place(path)?;
        self.nodes.push(node);
        self.change(vec![(parent, name, Some(self.nodes.len() - 1))]);
        Ok(())
    }

    fn change(&mut self, change: Vec<Change>) {
        for (parent, name, number) in &change {
            if let Some(Node::Folder { current, .. }) = self.nodes.get_mut(*parent) {
                set(current, name, *number);
            }
        }
        self.changes += 1;
        self.pending.insert(self.changes, change);
    }

    fn sync(&mut self, path: &str) -> Result<()> {
        let number = self.find(path).context("it is not there")?;
        if let Some(Node::File(file)) = self.nodes.get_mut(number) {
            file.sync();
            return Ok(());
        }
        let concerns = |change: &[Change]| change.iter().any(|(parent, ..)| *parent == number);
        let synced: Vec<Vec<Change>> = self
            .pending
            .extract_if(.., |_, change| concerns(change))
            .map(|(_, change)| change)
            .collect();
        for (parent, name, number) in synced.iter().flatten() {
            if let Some(Node::Folder { durable, .. }) = self.nodes.get_mut(*parent) {
                set(durable, name, *number);
            }
        }
        Ok(())
    }

    /// Writes to `path`, an empty folder, what may be left after a power cut now, but for what
    /// is below `/without`.
    pub(super) fn cut(&self, rng: &mut Rng, path: &Path, without: &str) -> Result<()> {
        let last = rng.u64(..=self.changes);
        let fate = rng.u8(..5);
        let kept: BTreeSet<u64> = self
            .pending
            .keys()
            .copied()
            .filter(|number| match fate {
                0 => false,
                1 => true,
                // As a journal of names does it.
                2 => *number <= last,
                _ => rng.bool(),
            })
            .collect();
        let mut names: BTreeMap<usize, BTreeMap<String, usize>> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if let Node::Folder { durable, .. } = node {
                names.insert(number, durable.clone());
            }
        }
        let changes = self
            .pending
            .iter()
            .filter(|(number, _)| kept.contains(number));
        for (parent, name, number) in changes.flat_map(|(_, change)| change) {
            if let Some(folder) = names.get_mut(parent) {
                set(folder, name, *number);
            }
        }
        let mut open = vec![(0, path.to_owned())];
        while let Some((number, folder)) = open.pop() {
            for (name, number) in names.get(&number).into_iter().flatten() {
                let at = folder.join(name);
                match self.nodes.get(*number) {
                    _ if at
                        .strip_prefix(path)
                        .is_ok_and(|at| at == Path::new(without)) => {}
                    Some(Node::File(file)) => fs::write(&at, file.after_cut(rng))?,
                    Some(Node::Link(target)) => std::os::unix::fs::symlink(target, &at)?,
                    Some(Node::Folder { .. }) => {
                        fs::create_dir(&at)?;
                        open.push((*number, at));
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Checks that nothing was missed: without a power cut the folder would be this.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn agrees_with(&self, path: &Path) -> Result<()> {
        let real = Self::load(path, Path::new(&self.root))?;
        let (ours, theirs) = (self.listing(), real.listing());
        for (name, bytes) in &ours {
            let found = theirs
                .get(name)
                .with_context(|| format!("{name} is not there"))?;
            ensure!(bytes == found, "{name} has other bytes");
        }
        let more = theirs.keys().find(|name| !ours.contains_key(*name));
        ensure!(more.is_none(), "{more:?} was not seen");
        Ok(())
    }

    fn listing(&self) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        let mut open = vec![(0, String::new())];
        while let Some((number, path)) = open.pop() {
            match self.nodes.get(number) {
                Some(Node::File(file)) => drop(out.insert(path, file.current.clone())),
                Some(Node::Link(target)) => drop(out.insert(path, target.clone().into_bytes())),
                Some(Node::Folder { current, .. }) => {
                    let below =
                        |(name, number): (&String, &usize)| (*number, format!("{path}/{name}"));
                    open.extend(current.iter().map(below));
                }
                None => {}
            }
        }
        out
    }
}

fn folder() -> Node {
    Node::Folder {
        durable: BTreeMap::new(),
        current: BTreeMap::new(),
    }
}

fn set(folder: &mut BTreeMap<String, usize>, name: &str, number: Option<usize>) {
    match number {
        Some(number) => drop(folder.insert(name.to_owned(), number)),
        None => drop(folder.remove(name)),
    }
}

impl File {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.current.len() < end {
            self.resize(end);
        }
        self.current[at..end].copy_from_slice(bytes);
        self.touched.extend(at / SECTOR..end.div_ceil(SECTOR));
    }

    fn resize(&mut self, len: usize) {
        // Only what held something can come back: the rest is zeros, old and new.
        let (from, to) = (self.current.len().min(len), self.current.len());
        self.touched.extend(from / SECTOR..to.div_ceil(SECTOR));
        self.current.resize(len, 0);
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.touched) {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(self.current.len());
            if start < end {
                self.durable[start..end].copy_from_slice(&self.current[start..end]);
            }
        }
    }

    fn after_cut(&self, rng: &mut Rng) -> Vec<u8> {
        let fate = rng.u8(..5);
        let length = match fate {
            0 => self.durable.len(),
            1 => self.current.len(),
            _ => [self.durable.len(), self.current.len()][rng.usize(..2)],
        };
        let mut out = self.durable.clone();
        out.resize(length, 0);
        for &sector in &self.touched {
            let fate = match fate {
                0 | 1 => fate,
                // Most of what was on its way is old or new; garbage is rarer.
                _ => [0, 0, 1, 1, 2][rng.usize(..5)],
            };
            let end = ((sector + 1) * SECTOR).min(length);
            let Some(bytes) = out.get_mut(sector * SECTOR..end) else {
                continue;
            };
            for (at, byte) in (sector * SECTOR..).zip(bytes) {
                *byte = match fate {
                    0 => self.durable.get(at).copied().unwrap_or(0),
                    1 => self.current.get(at).copied().unwrap_or(0),
                    _ => rng.u8(..),
                };
            }
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn open(path: &str) -> Op {
        Op::Open {
            path: path.into(),
            truncate: false,
        }
    }

    fn write(path: &str, bytes: &[u8]) -> Op {
        Op::Write {
            path: path.into(),
            at: 0,
            bytes: bytes.to_vec(),
        }
    }

    /// Every state that many cuts leave: names, with `?` for bytes that are not these.
    fn states(ops: &[Op], good: &[u8]) -> BTreeSet<Vec<(String, bool)>> {
        let mut medium = Medium::new(Path::new("/d")).unwrap();
        for op in ops {
            medium.apply(op).unwrap();
        }
        let mut rng = Rng::with_seed(7);
        let seen = (0..300).map(|_| {
            let dir = tempfile::tempdir().unwrap();
            medium.cut(&mut rng, dir.path(), "").unwrap();
            let left = Medium::load(dir.path(), Path::new("/d")).unwrap().listing();
            left.into_iter()
                .map(|(name, bytes)| (name, bytes == good))
                .collect()
        });
        seen.collect()
    }

    fn named(name: &str, whole: bool) -> Vec<(String, bool)> {
        vec![(format!("/{name}"), whole)]
    }

    #[test]
    fn a_name_is_safe_only_once_its_folder_was_synced() {
        let file = [open("/d/a"), write("/d/a", b"x"), Op::Sync("/d/a".into())];
        let unsynced = states(&file, b"x");
        assert_eq!(unsynced, BTreeSet::from([vec![], named("a", true)]));
        let folder = [file.to_vec(), vec![Op::Sync("/d".into())]].concat();
        assert_eq!(states(&folder, b"x"), BTreeSet::from([named("a", true)]));
        // Named, but its bytes were never waited for.
        let torn = [open("/d/a"), write("/d/a", b"x"), Op::Sync("/d".into())];
        let expected = BTreeSet::from([named("a", false), named("a", true)]);
        assert_eq!(states(&torn, b"x"), expected);
    }

    #[test]
    fn a_rename_is_whole_and_changes_may_change_places() {
        let rename = Op::Rename {
            from: "/d/a".into(),
            to: "/d/b".into(),
            exchange: false,
        };
        let made = [
            open("/d/a"),
            write("/d/a", b"x"),
            Op::Sync("/d/a".into()),
            Op::Sync("/d".into()),
            rename,
        ];
        let expected = BTreeSet::from([named("a", true), named("b", true)]);
        assert_eq!(states(&made, b"x"), expected);
        let two = [made.to_vec(), vec![open("/d/c")]].concat();
        let c = |mut names: Vec<(String, bool)>| {
            names.push(("/c".into(), false));
            names
        };
        let reordered = c(named("a", true));
        assert!(
            states(&two, b"x").contains(&reordered),
            "the later one alone"
        );
    }

    #[test]
    fn what_was_synced_stays_when_later_writes_are_lost() {
        let long = [b"x".repeat(2 * SECTOR)].concat();
        let ops = [
            open("/d/a"),
            write("/d/a", &long),
            Op::Sync("/d/a".into()),
            Op::Sync("/d".into()),
            write("/d/a", b"y"),
        ];
        let mut medium = Medium::new(Path::new("/d")).unwrap();
        for op in &ops {
            medium.apply(op).unwrap();
        }
        let Node::File(file) = &medium.nodes[1] else {
            panic!("a file");
        };
        let mut rng = Rng::with_seed(1);
        let cuts: Vec<Vec<u8>> = (0..100).map(|_| file.after_cut(&mut rng)).collect();
        assert!(cuts.iter().all(|cut| cut[SECTOR..] == long[SECTOR..]));
        assert!(cuts.iter().any(|cut| cut[0] == b'x') && cuts.iter().any(|cut| cut[0] == b'y'));
    }
}
