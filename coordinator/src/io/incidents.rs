//! Incidents and topologies for the simulator, from files or as they are shipped.
//!
//! In go what the command line says (a set, a file, a folder, a name); out come incidents
//! that read well and topologies to run them in. Files that lie in a folder and are no TOML
//! files are left alone. It decides nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use homeostat_sim::fault::{self, Incident};
use homeostat_sim::text::TextError;
use homeostat_sim::topology::{self, Topology};

/// Files of one folder that are read; catalogues have hundreds.
pub const FILES_MAX: usize = 10_000;

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A file or folder that cannot be read.
    #[error("cannot read {path}: {why}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// A folder with too many files.
    #[error("{0} holds more than {FILES_MAX} files")]
    TooMany(PathBuf),
    /// A folder without one.
    #[error("{0} holds no TOML file")]
    None(PathBuf),
    /// A text with a mistake in it.
    #[error(transparent)]
    Text(#[from] TextError),
    /// No incident of that name.
    #[error("there is no incident {0:?} among {1}")]
    Unknown(String, usize),
}

/// The incidents of `train`, `development`, `shipped` (both), a file, or a folder.
///
/// # Errors
/// [`LibraryError`], for a mistake in a text with file and line.
pub fn incidents(from: &str) -> Result<Vec<Incident>, LibraryError> {
    let shipped = |sets: &[&[(&str, &str)]]| {
        let all = sets.iter().copied().flatten();
        let read = all.map(|(name, text)| Incident::read(&format!("{name}.toml"), text));
        read.collect::<Result<_, _>>().map_err(LibraryError::Text)
    };
    match from {
        "train" => shipped(&[Incident::train()]),
        "development" => shipped(&[Incident::development()]),
        "shipped" => shipped(&[Incident::train(), Incident::development()]),
        path => {
            let files = files(Path::new(path))?;
            let read = files.iter().map(|file| {
                let text = text(file, fault::FILE_MAX)?;
                Ok(Incident::read(&file.display().to_string(), &text)?)
            });
            read.collect()
        }
    }
}

/// Those of some names, or all.
///
/// # Errors
/// [`LibraryError::Unknown`] for a name that none has.
pub fn named(all: Vec<Incident>, names: &[String]) -> Result<Vec<Incident>, LibraryError> {
    if names.is_empty() {
        return Ok(all);
    }
    let count = all.len();
    let find = |name: &String| {
        let found = all.iter().find(|incident| incident.name == *name).cloned();
        found.ok_or_else(|| LibraryError::Unknown(name.clone(), count))
    };
    names.iter().map(find).collect()
}

/// Topologies by the names that incidents give them.
#[derive(Debug, Default)]
pub struct Topologies {
    folder: Option<PathBuf>,
    fixed: Option<Arc<Topology>>,
    known: BTreeMap<String, Arc<Topology>>,
}

impl Topologies {
    /// From a folder first, where there is one, and then as they are shipped; or the same
    /// for all incidents, by name or file.
    ///
    /// # Errors
    /// [`LibraryError`] when that one cannot be read.
    pub fn new(folder: Option<PathBuf>, fixed: Option<&str>) -> Result<Self, LibraryError> {
        let mut own = Self {
            folder,
            ..Self::default()
        };
        if let Some(one) = fixed {
            own.fixed = Some(if Path::new(one).extension().is_some() {
                Arc::new(read_topology(Path::new(one))?)
            } else {
                own.get(one)?
            });
        }
        Ok(own)
    }

    /// The one that an incident is for.
    ///
    /// # Errors
    /// [`LibraryError`] when it cannot be read, or the incident does not fit it.
    pub fn of(&mut self, incident: &Incident) -> Result<Arc<Topology>, LibraryError> {
        let topology = match &self.fixed {
            Some(fixed) => Arc::clone(fixed),
            None => self.get(&incident.topology)?,
        };
        incident.check(&topology)?;
        Ok(topology)
    }

    fn get(&mut self, name: &str) -> Result<Arc<Topology>, LibraryError> {
        if let Some(known) = self.known.get(name) {
            return Ok(Arc::clone(known));
        }
        let file = self
            .folder
            .as_ref()
            .map(|folder| folder.join(format!("{name}.toml")));
        let topology = match file.filter(|file| file.is_file()) {
            Some(file) => read_topology(&file)?,
            None => Topology::named(name)?,
        };
        let topology = Arc::new(topology);
        self.known.insert(name.to_owned(), Arc::clone(&topology));
        Ok(topology)
    }
}

/// All topologies of a folder.
///
/// # Errors
/// [`LibraryError`], for a mistake in a text with file and line.
pub fn topologies(folder: &Path) -> Result<Vec<Arc<Topology>>, LibraryError> {
    let files = files(folder)?;
    let read = files.iter().map(|file| read_topology(file).map(Arc::new));
    read.collect()
}

fn read_topology(file: &Path) -> Result<Topology, LibraryError> {
    let text = text(file, topology::TEXT_MAX)?;
    Ok(Topology::read(&file.display().to_string(), &text)?)
}

/// A file, or the TOML files of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    let failed = |why| LibraryError::Read {
        path: path.to_owned(),
        why,
    };
    if !path.metadata().map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            if files.len() == FILES_MAX {
                return Err(LibraryError::TooMany(path.to_owned()));
            }
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(LibraryError::None(path.to_owned()));
    }
    Ok(files)
}

/// A text; one that is longer than `max` is cut off a little later, for its reader to
/// refuse.
fn text(file: &Path, max: usize) -> Result<String, LibraryError> {
    let failed = |why| LibraryError::Read {
        path: file.to_owned(),
        why,
    };
    let mut text = String::new();
    let open = File::open(file).map_err(failed)?;
    open.take(max as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shipped_sets_files_and_folders_are_read() {
        let train = incidents("train").unwrap();
        let both = incidents("shipped").unwrap();
        assert_eq!(
            both.len(),
            train.len() + incidents("development").unwrap().len()
        );
        let dir = tempfile::tempdir().unwrap();
        let (name, text) = Incident::train()[0];
        std::fs::write(dir.path().join("b.toml"), text).unwrap();
        std::fs::write(dir.path().join("readme.md"), "no").unwrap();
        let read = incidents(dir.path().to_str().unwrap()).unwrap();
        assert_eq!((read.len(), read[0].name.as_str()), (1, name));
        assert!(named(read.clone(), &[name.to_owned()]).is_ok());
        assert!(named(read, &["no-such".to_owned()]).is_err());
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        assert!(
            incidents(&path)
                .unwrap_err()
                .to_string()
                .ends_with("holds no TOML file")
        );
        let file = dir.path().join("x.toml");
        std::fs::write(&file, "name = \"x\"\nabout = 3\n").unwrap();
        let error = incidents(&path).unwrap_err().to_string();
        assert!(error.contains("x.toml:2: "), "{error}");
        std::fs::write(&file, "#".repeat(fault::FILE_MAX + 1)).unwrap();
        assert!(incidents(&path).is_err());
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(incidents(&path).is_err());
        assert!(incidents("/nowhere/at/all").is_err());
    }

    #[test]
    fn a_folder_of_topologies_comes_before_those_that_are_shipped() {
        let dir = tempfile::tempdir().unwrap();
        let mut shipped = Topologies::new(None, None).unwrap();
        let incident = &incidents("train").unwrap()[0];
        assert_eq!(shipped.of(incident).unwrap().nodes().len(), 5);
        std::fs::write(dir.path().join("reference.toml"), "nodes = 3\n").unwrap();
        let mut own = Topologies::new(Some(dir.path().to_owned()), None).unwrap();
        let error = own.of(incident).unwrap_err().to_string();
        assert!(error.contains("reference.toml:1: "), "{error}");
        assert!(Topologies::new(None, Some("moon")).is_err());
        assert!(
            Topologies::new(None, Some("kiosk"))
                .unwrap()
                .of(incident)
                .is_err()
        );
    }
}
