//! One connection of a proxy, both ways.
//!
//! Each segment that is read gets a time at which it is due, never before the one ahead of it,
//! and is written then. Bounded: who sends faster than the link takes is not read from.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use homeostat_models::mlp::Rng;
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt::set_socket_linger;

use super::{Link, NAP, Shared, wait};

/// Payload of a segment on an Ethernet.
const SEGMENT: usize = 1460;
/// Segments under way in one direction; a link of 100 ms and 4 MB/s holds as many.
const SEGMENTS_MAX: usize = 256;
/// First timeout of a retransmission, as in Linux.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// Losses of one segment in a row that are played; at 1/2 one in 64 segments has as many.
const LOSSES_MAX: u32 = 6;

/// One direction.
struct Way {
    from: TcpStream,
    to: TcpStream,
    waits: VecDeque<(Instant, Vec<u8>)>,
    /// When the last of them is due.
    last: Instant,
    /// The sender has ended.
    ended: bool,
    /// And the receiver was told.
    closed: bool,
}

/// What becomes of a segment.
enum Fate {
    Passes(Duration),
    Resets,
}

/// Carries bytes until both sides have ended, the link resets, or the proxy ends.
pub(super) fn both(
    shared: &Shared,
    near: &TcpStream,
    far: &TcpStream,
    number: u64,
) -> io::Result<()> {
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let now = Instant::now();
    let way = |from: &TcpStream, to: &TcpStream| -> io::Result<Way> {
        Ok(Way {
            from: from.try_clone()?,
            to: to.try_clone()?,
            waits: VecDeque::new(),
            last: now,
            ended: false,
            closed: false,
        })
    };
    let mut ways = [way(near, far)?, way(far, near)?];
    let mut rng = Rng::seeded(shared.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    while !shared.ends() && !ways.iter().all(|way| way.closed) {
        let link = shared.link();
        if link.down {
            std::thread::sleep(NAP);
            continue;
        }
        let mut next = Instant::now() + NAP;
        for way in &mut ways {
            if !way.read(shared, &link, &mut rng)? {
                shared.resets.fetch_add(1, Ordering::Relaxed);
                for stream in [near, far] {
                    // Closed with a reset instead of an end.
                    let _ = set_socket_linger(stream, Some(Duration::ZERO));
                }
                return Ok(());
            }
            if let Some(due) = way.write(shared)? {
                next = next.min(due);
            }
        }
        let readable = ways
            .iter()
            .filter(|way| !way.ended && way.waits.len() < SEGMENTS_MAX);
        let mut on: Vec<PollFd<'_>> = readable
            .map(|way| PollFd::new(&way.from, PollFlags::IN))
            .collect();
        wait(&mut on, next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

impl Way {
    /// Takes what has come; false when the link resets the connection.
    fn read(&mut self, shared: &Shared, link: &Link, rng: &mut Rng) -> io::Result<bool> {
        let mut segment = [0; SEGMENT];
        while !self.ended && self.waits.len() < SEGMENTS_MAX {
            let read = match self.from.read(&mut segment) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut bytes = segment.get(..read).unwrap_or_default().to_vec();
            let later = match fate(shared, link, &mut bytes, rng) {
                Fate::Passes(later) => later,
                Fate::Resets => return Ok(false),
            };
            let takes = match link.bandwidth {
                Some(rate) if rate > 0.0 => Duration::from_secs_f64(read as f64 / rate),
                _ => Duration::ZERO,
            };
            // One after the other, and in their order.
            let sent = Instant::now() + link.delay + later;
            self.last = sent.max(self.last) + takes;
            self.waits.push_back((self.last, bytes));
        }
        Ok(true)
    }

    /// Hands on what is due; when the next is, if one is not.
    fn write(&mut self, shared: &Shared) -> io::Result<Option<Instant>> {
        while let Some((due, bytes)) = self.waits.front_mut() {
            if *due > Instant::now() {
                return Ok(Some(*due));
            }
            match self.to.write(bytes) {
                Ok(written) => {
                    shared.bytes.fetch_add(written as u64, Ordering::Relaxed);
                    bytes.drain(..written);
                    if bytes.is_empty() {
                        self.waits.pop_front();
                    }
                }
                // The receiver is slow: again soon.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Some(Instant::now() + Duration::from_millis(1)));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.closed {
            self.closed = true;
            let _ = self.to.shutdown(Shutdown::Write);
        }
        Ok(None)
    }
}

/// Draws what becomes of a segment, and garbles it if that is it.
fn fate(shared: &Shared, link: &Link, bytes: &mut [u8], rng: &mut Rng) -> Fate {
    let mut hits = |share: f64| share > 0.0 && f64::from(rng.unit()) < share;
    if hits(link.reset) {
        return Fate::Resets;
    }
    let (mut later, mut timeout, mut losses) = (Duration::ZERO, RETRANSMIT, 0);
    while losses < LOSSES_MAX && hits(link.loss) {
        losses += 1;
        later += timeout;
        timeout *= 2;
    }
    shared.lost.fetch_add(losses.into(), Ordering::Relaxed);
    if hits(link.corrupt) {
        shared.corrupted.fetch_add(1, Ordering::Relaxed);
        let place = rng.below(bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 0x20;
        }
    }
    Fate::Passes(later)
}
