//! Stands between a node and its broker and counts what passes.
//!
//! In go connections, out come bytes in both directions and in how many pieces they came, from
//! which what IP and TCP add can be told. Changes nothing on the way.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Largest piece that is moved at once.
const PIECE: usize = 16 * 1024;
/// What IPv4 and TCP with timestamps add to each piece.
pub(super) const HEADERS: f64 = 52.0;

/// A relay; it ends with its connections, and accepts none once it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddrV4,
    counts: Arc<Counts>,
    ending: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    pieces: AtomicU64,
}

impl Relay {
    pub(super) fn start(to: SocketAddrV4) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let relay = Self {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            counts: Arc::default(),
            ending: Arc::default(),
        };
        let (counts, ending) = (Arc::clone(&relay.counts), Arc::clone(&relay.ending));
        thread::spawn(move || {
            for client in listener.incoming() {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                // A client that is not served tries again.
                let _ = client.and_then(|client| join(client, to, &counts));
            }
        });
        Ok(relay)
    }

    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Bytes of both directions so far, with what the network adds.
    pub(super) fn bytes(&self) -> f64 {
        let [bytes, pieces] = [&self.counts.bytes, &self.counts.pieces]
            .map(|count| count.load(Ordering::Relaxed) as f64);
        // Each piece is acknowledged by an empty one, at worst.
        bytes + 2.0 * HEADERS * pieces
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn join(client: TcpStream, to: SocketAddrV4, counts: &Arc<Counts>) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let ways = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (mut from, mut to) in ways {
        from.set_nodelay(true)?;
        let counts = Arc::clone(counts);
        thread::spawn(move || {
            let mut piece = vec![0; PIECE];
            while let Ok(read @ 1..) = from.read(&mut piece) {
                counts.bytes.fetch_add(read as u64, Ordering::Relaxed);
                counts.pieces.fetch_add(1, Ordering::Relaxed);
                if to.write_all(piece.get(..read).unwrap_or_default()).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_counted_and_not_changed() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.local_addr().unwrap().port());
        let relay = Relay::start(to).unwrap();
        let mut client = TcpStream::connect(relay.address()).unwrap();
        let (mut inner, _) = server.accept().unwrap();
        client.write_all(b"ping").unwrap();
        let mut word = [0; 4];
        inner.read_exact(&mut word).unwrap();
        inner.write_all(&word).unwrap();
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ping");
        assert!(relay.bytes() >= 8.0 + 4.0 * HEADERS);
        drop(inner);
        assert_eq!(client.read(&mut word).unwrap(), 0);
    }
}
