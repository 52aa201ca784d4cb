//! When a certificate ends.
//!
//! In goes a file, PEM or DER; out comes the end of its validity, in milliseconds since 1970.
//! Of a chain in PEM the first counts, which is the server's own. Checks no signature and
//! trusts nobody: that is for those who use it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, DecodePem as _};

/// Largest file that is read; a chain of five with long keys has some 10 KiB.
const FILE_MAX: u64 = 64 * 1024;

/// What ends a certificate in PEM.
const PEM_END: &str = "-----END CERTIFICATE-----";

/// Why the end is not known.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} holds no certificate: {why}", path.display())]
    Other {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The end of the validity of the certificate in a file, in milliseconds since 1970.
///
/// # Errors
/// [`CertificateError`].
pub fn end(path: &Path) -> Result<u64, CertificateError> {
    let other = |why: String| CertificateError::Other {
        path: path.to_owned(),
        why,
    };
    let bytes = read(path).map_err(|source| CertificateError::Read {
        path: path.to_owned(),
        source,
    })?;
    let certificate = match std::str::from_utf8(&bytes).ok().and_then(first_pem) {
        Some(pem) => Certificate::from_pem(pem),
        None => Certificate::from_der(&bytes),
    };
    let certificate = certificate.map_err(|error| other(error.to_string()))?;
    let end = certificate.tbs_certificate.validity.not_after;
    u64::try_from(end.to_unix_duration().as_millis()).map_err(|error| other(error.to_string()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Not kept waiting by a pipe in its place.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("larger than {FILE_MAX} bytes")));
    }
    Ok(bytes)
}

/// The first certificate of a text, without what stands around it.
fn first_pem(text: &str) -> Option<&str> {
    let from = text.find("-----BEGIN CERTIFICATE-----")?;
    let text = text.get(from..)?;
    let end = text.find(PEM_END)? + PEM_END.len();
    text.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    /// Made with `openssl req -x509 -newkey ed25519 -nodes -days 3650 -subj /CN=test`.
    const PEM: &str = include_str!("certificate/test.pem");

    fn end_of(bytes: &[u8]) -> Result<u64, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        end(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_end_is_read_from_pem_from_a_chain_and_from_der() {
        let expected = 2_110_694_945_000;
        assert_eq!(end_of(PEM.as_bytes()), Ok(expected));
        let chain = format!("a bag of attributes\n{PEM}{}", PEM.replace('A', "B"));
        assert_eq!(end_of(chain.as_bytes()), Ok(expected));
        let (_, der) = x509_cert::der::pem::decode_vec(PEM.as_bytes()).unwrap();
        assert_eq!(end_of(&der), Ok(expected));
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none_and_nothing_panics() {
        let path = Path::new("/nonexistent/c.pem");
        let error = end(path).unwrap_err().to_string();
        assert_eq!(error, "cannot read /nonexistent/c.pem");
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("c.pem");
        let (kind, mode) = (FileType::Fifo, Mode::RUSR);
        mknodat(CWD, &pipe, kind, mode, 0).unwrap();
        let error = end(&pipe).unwrap_err().to_string();
        assert!(error.starts_with("cannot read"), "{error}");
        assert!(end_of(b"").unwrap_err().contains("holds no certificate"));
        let error = end_of(&vec![b'x'; 65 * 1024]).unwrap_err();
        assert!(error.starts_with("cannot read"), "{error}");
        let (_, der) = x509_cert::der::pem::decode_vec(PEM.as_bytes()).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..5000 {
            let mut torn = der.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..torn.len());
                torn[at] = rng.u8(..);
            }
            torn.truncate(rng.usize(..=torn.len()));
            let _ = Certificate::from_der(&torn);
        }
    }
}
