//! What this node signs orders with: 32 bytes in `data_dir/orders.key`, which only its
//! user may read, made when it is first wanted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use homeostat_common::wire::seal::{self, Signer};

const NAME: &str = "orders.key";

/// Reads the key in the folder, and makes it first if there is none.
///
/// # Errors
/// When it cannot be read, made or understood.
pub fn signer(data_dir: &Path) -> io::Result<Signer> {
    let path = data_dir.join(NAME);
    match File::open(&path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(65).read_to_string(&mut text)?;
            let seed = seal::from_hex(text.trim_end());
            let seed = seed.map_err(|_| io::Error::other("it does not hold 64 hex digits"))?;
            Ok(Signer::new(&seed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
            // A whole one or none, also after a power cut: what others trust must not
            // change.
            let new = data_dir.join("orders.key.new");
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            writeln!(file, "{}", seal::hex(&seed))?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(data_dir)?.sync_all()?;
            Ok(Signer::new(&seed))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let key = signer(dir.path()).unwrap().key();
        assert_eq!(signer(dir.path()).unwrap().key(), key);
        let path = dir.path().join(NAME);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "half").unwrap();
        assert!(signer(dir.path()).is_err());
    }
}
