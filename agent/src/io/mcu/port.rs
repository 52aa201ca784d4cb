//! A serial line as a file: opened raw, read and written without waiting.
//!
//! A path to a Unix socket is taken as a line as well, which is how emulators offer theirs.
//! It knows nothing of what is said on the line.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, SpecialCodeIndex};

/// Bytes that are read at once; a second at 9,600 baud.
const READ_MAX: usize = 1024;

/// A line that takes no byte for so long is stuck: a frame takes 75 ms at 9,600 baud.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// Why a line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A call on it failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The other end is gone: unplugged, or ended.
    #[error("{} was closed", path.display())]
    Closed {
        /// What was.
        path: PathBuf,
    },
    /// It takes no more bytes.
    #[error("{} has taken no byte for {} s", path.display(), WRITE_WITHIN.as_secs())]
    Stuck {
        /// What is.
        path: PathBuf,
    },
}

/// An open line.
#[derive(Debug)]
pub struct Port {
    fd: OwnedFd,
    path: PathBuf,
}

impl Port {
    /// Opens a serial device raw, at this speed, for this process alone; or connects to a
    /// Unix socket.
    ///
    /// # Errors
    /// When it is not there, may not be opened, or is neither.
    pub fn open(path: &Path, baud: u32) -> Result<Self, PortError> {
        let failed = |what| {
            let path = path.to_owned();
            move |source: io::Error| PortError::Io { what, path, source }
        };
        let found = std::fs::metadata(path).map_err(failed("find"))?;
        let fd = if found.file_type().is_socket() {
            let stream = UnixStream::connect(path).map_err(failed("connect to"))?;
            stream.set_nonblocking(true).map_err(failed("set up"))?;
            OwnedFd::from(stream)
        } else {
            // Without waiting: a line whose other end is not there may wait for a carrier.
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| failed("open")(errno.into()))?;
            raw(&fd, baud).map_err(|errno| failed("set up the line")(errno.into()))?;
            fd
        };
        let path = path.to_owned();
        Ok(Self { fd, path })
    }

    /// What came, waiting up to this long for the first byte.
    ///
    /// # Errors
    /// When the line is closed or broken.
    pub fn read(&self, within: Duration) -> Result<Vec<u8>, PortError> {
        if !self.wait(PollFlags::IN, within)? {
            return Ok(Vec::new());
        }
        let mut buffer = [0; READ_MAX];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(0) => Err(self.closed()),
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Vec::new()),
            // What is left of a line that was unplugged.
            Err(Errno::IO | Errno::CONNRESET) => Err(self.closed()),
            Err(errno) => Err(self.failed("read", errno)),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the line is closed, broken or stuck.
    pub fn write(&self, mut bytes: &[u8]) -> Result<(), PortError> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.wait(PollFlags::OUT, WRITE_WITHIN)? {
                        let path = self.path.clone();
                        return Err(PortError::Stuck { path });
                    }
                }
                Err(Errno::IO | Errno::PIPE | Errno::CONNRESET) => return Err(self.closed()),
                Err(errno) => return Err(self.failed("write", errno)),
            }
        }
        Ok(())
    }

    fn wait(&self, what: PollFlags, within: Duration) -> Result<bool, PortError> {
        let within =
            Timespec::try_from(within).map_err(|_| self.failed("wait for", Errno::INVAL))?;
        let mut fds = [PollFd::new(&self.fd, what)];
        match poll(&mut fds, Some(&within)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(self.failed("wait for", errno)),
        }
    }

    fn failed(&self, what: &'static str, errno: Errno) -> PortError {
        PortError::Io {
            what,
            path: self.path.clone(),
            source: errno.into(),
        }
    }

    fn closed(&self) -> PortError {
        PortError::Closed {
            path: self.path.clone(),
        }
    }
}

/// Eight bits, no parity, one stop bit, no flow control, nothing translated.
fn raw(fd: impl AsFd, baud: u32) -> rustix::io::Result<()> {
    let fd = fd.as_fd();
    let mut settings = rustix::termios::tcgetattr(fd)?;
    settings.make_raw();
    let off = ControlModes::CSTOPB | ControlModes::CRTSCTS;
    settings.control_modes.remove(off);
    let on = ControlModes::CREAD | ControlModes::CLOCAL;
    settings.control_modes.insert(on);
    settings.special_codes[SpecialCodeIndex::VMIN] = 0;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    settings.set_speed(baud)?;
    rustix::termios::tcsetattr(fd, OptionalActions::Now, &settings)?;
    // Two programs on one line would each hear half of the answers.
    rustix::termios::ioctl_tiocexcl(fd)
}
