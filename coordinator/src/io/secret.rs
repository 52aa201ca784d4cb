//! Secrets of this coordinator: 32 bytes in a file that only its user may read, made
//! at the first start.
//!
//! `orders.key` signs orders to nodes; who has `operator.token` may have plans run, and who
//! has `intake.token` may tell of alarms and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use homeostat_common::wire::seal;

/// Signs orders.
pub const ORDERS_KEY: &str = "orders.key";

/// Lets a person have plans run.
pub const OPERATOR_TOKEN: &str = "operator.token";

/// Lets another system tell of its alarms.
pub const INTAKE_TOKEN: &str = "intake.token";

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{0} does not hold 64 hex digits")]
    Content(PathBuf),
}

/// Reads the secret of that name in the folder.
///
/// # Errors
/// [`SecretError`]; also when there is none.
pub fn read(folder: &Path, name: &str) -> Result<[u8; 32], SecretError> {
    let path = folder.join(name);
    let at = |doing| {
        let path = path.clone();
        move |source| SecretError::File {
            doing,
            path,
            source,
        }
    };
    let mut text = String::new();
    File::open(&path)
        .map_err(at("open"))?
        .take(65)
        .read_to_string(&mut text)
        .map_err(at("read"))?;
    seal::from_hex(text.trim_end()).map_err(|_| SecretError::Content(path.clone()))
}

/// Reads the secret of that name in the folder, and makes it first if there is none.
///
/// # Errors
/// [`SecretError`].
pub fn open(folder: &Path, name: &str) -> Result<[u8; 32], SecretError> {
    match read(folder, name) {
        Err(SecretError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut secret = [0; 32];
    let path = folder.join(name);
    let failed = |doing, source| SecretError::File {
        doing,
        path: path.clone(),
        source,
    };
    rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| failed("mint", error.into()))?;
    // A whole one or none, also after a power cut: what others trust must not change.
    let new = folder.join(format!("{name}.new"));
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(seal::hex(&secret).as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| failed("write", error))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path(), ORDERS_KEY).is_err());
        let secret = open(dir.path(), ORDERS_KEY).unwrap();
        assert_eq!(open(dir.path(), ORDERS_KEY).unwrap(), secret);
        assert_eq!(read(dir.path(), ORDERS_KEY).unwrap(), secret);
        let path = dir.path().join(ORDERS_KEY);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, "half").unwrap();
        let error = open(dir.path(), ORDERS_KEY).unwrap_err();
        assert!(matches!(error, SecretError::Content(_)), "{error}");
    }
}
