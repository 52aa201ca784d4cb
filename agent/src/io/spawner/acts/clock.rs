//! Sets the wall clock by time servers: SNTP (RFC 4330), one question to each.
//!
//! In go addresses, out comes a clock that is right to some milliseconds. Nothing
//! is set when servers contradict each other. Keeps no time by itself: a daemon
//! that slews the clock all day does that better, and this is for the node whose
//! daemon has failed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

/// How long a server may take; a far one answers within some 300 ms.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Length of a packet without extensions.
const PACKET: usize = 48;

/// Seconds from 1900, where SNTP begins to count, to 1970.
const ERA: i128 = 2_208_988_800;

/// Nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// Servers that are further apart say nothing together.
const APART_MAX: i128 = SECOND;

/// A clock that is less wrong is left alone.
const RIGHT: i128 = 5_000_000;

/// Why the clock was not set.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClockError {
    /// No server answered as a server does.
    #[error("no time server answered: {0}")]
    NoAnswer(String),
    /// Two answered differently.
    #[error("the time servers contradict each other by {} ms", .0 / 1_000_000)]
    Apart(i128),
    /// The kernel would not.
    #[error("cannot set the clock")]
    Set(#[source] io::Error),
}

/// Sets the clock.
///
/// # Errors
/// [`ClockError`]; then the clock is as it was.
pub(super) fn sync(servers: &[SocketAddr]) -> Result<(), ClockError> {
    let offset = agreed(servers)?;
    if offset.abs() < RIGHT {
        return Ok(());
    }
    let to = now() + offset;
    let time = Timespec {
        tv_sec: i64::try_from(to.div_euclid(SECOND)).unwrap_or(i64::MAX),
        // Less than a second in nanoseconds.
        #[allow(clippy::cast_possible_truncation)]
        tv_nsec: to.rem_euclid(SECOND) as _,
    };
    clock_settime(ClockId::Realtime, time).map_err(|error| ClockError::Set(error.into()))
}

/// The median of what the servers say, in nanoseconds.
fn agreed(servers: &[SocketAddr]) -> Result<i128, ClockError> {
    let mut offsets = Vec::new();
    let mut why = "there is none".to_owned();
    for server in servers {
        match ask(*server) {
            Ok(offset) => offsets.push(offset),
            Err(error) => why = format!("{server}: {error}"),
        }
    }
    offsets.sort_unstable();
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
        return Err(ClockError::NoAnswer(why));
    };
    if last - first > APART_MAX {
        return Err(ClockError::Apart(last - first));
    }
    Ok(offsets.get(offsets.len() / 2).copied().unwrap_or_default())
}

/// How much this clock is behind that of a server, in nanoseconds.
fn ask(server: SocketAddr) -> io::Result<i128> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    // Packets from elsewhere are not delivered then.
    socket.connect(server)?;
    let sent = now();
    // Not the time of day: whoever guesses it cannot forge an answer.
    let cookie: u64 = fastrand::u64(..);
    let mut question = [0; PACKET];
    // Version 4, client.
    question[0] = 0x23;
    question[40..48].copy_from_slice(&cookie.to_be_bytes());
    let begun = Instant::now();
    socket.send(&question)?;
    let mut answer = [0; PACKET];
    loop {
        let left = ANSWER_TIME.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut answer)?;
        let took = i128::try_from(begun.elapsed().as_nanos()).unwrap_or(0);
        if let Some(offset) = read(answer.get(..length).unwrap_or_default(), cookie, sent, took) {
            return offset.map_err(io::Error::other);
        }
    }
}

/// The offset in an answer; `None` when it answers another question.
fn read(answer: &[u8], cookie: u64, sent: i128, took: i128) -> Option<Result<i128, &'static str>> {
    let number = |from: usize| {
        let bytes = answer.get(from..from + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let (&[head, stratum, ..], true) = (answer, number(24) == Some(cookie)) else {
        return None;
    };
    if head & 7 != 4 || head >> 6 == 3 || !(1..=15).contains(&stratum) {
        return Some(Err("it does not know the time itself"));
    }
    let (received, answered) = (stamp(number(32)?), stamp(number(40)?));
    let (Some(received), Some(answered)) = (received, answered) else {
        return Some(Err("it gave no time"));
    };
    let back = sent + took;
    Some(Ok(((received - sent) + (answered - back)) / 2))
}

/// A stamp in nanoseconds since 1970; `None` for none. Those below 1968 are of
/// the era that begins in 2036.
fn stamp(stamp: u64) -> Option<i128> {
    let (seconds, fraction) = (stamp >> 32, stamp & u64::from(u32::MAX));
    let era = if seconds >> 31 == 1 { 0 } else { 1_i128 << 32 };
    let nanos = (i128::from(fraction) * SECOND) >> 32;
    (stamp != 0).then(|| (i128::from(seconds) + era - ERA) * SECOND + nanos)
}

/// Nanoseconds since 1970, or before it.
fn now() -> i128 {
    let nanos = |span: Duration| i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server whose clock is `ahead` nanoseconds before ours.
    fn server(ahead: i128, change: fn(&mut [u8; PACKET])) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut question = [0; PACKET];
            let (_, from) = socket.recv_from(&mut question).unwrap();
            let time = now() + ahead + ERA * SECOND;
            let stamp = ((time / SECOND) << 32) | (((time % SECOND) << 32) / SECOND);
            let stamp = u64::try_from(stamp & i128::from(u64::MAX)).unwrap();
            let mut answer = [0; PACKET];
            (answer[0], answer[1]) = (0x24, 2);
            answer[24..32].copy_from_slice(&question[40..48]);
            answer[32..40].copy_from_slice(&stamp.to_be_bytes());
            answer[40..48].copy_from_slice(&stamp.to_be_bytes());
            change(&mut answer);
            socket.send_to(&answer, from).unwrap();
        });
        address
    }

    #[test]
    fn the_offset_of_servers_that_agree_is_found() {
        for ahead in [
            0,
            3_600 * SECOND,
            -86_400 * SECOND,
            20 * 365 * 86_400 * SECOND,
        ] {
            let servers = [server(ahead, |_| {}), server(ahead + 7_000_000, |_| {})];
            let found = agreed(&servers).unwrap();
            assert!((found - ahead).abs() < SECOND / 10, "{ahead} {found}");
        }
        let apart = [server(0, |_| {}), server(5 * SECOND, |_| {})];
        let error = agreed(&apart).unwrap_err().to_string();
        assert!(
            error.starts_with("the time servers contradict each other by"),
            "{error}"
        );
    }

    #[test]
    fn an_answer_that_is_none_is_not_believed() {
        for change in [
            |it: &mut [u8; PACKET]| it[0] = 0xe4,
            |it: &mut [u8; PACKET]| it[1] = 0,
            |it: &mut [u8; PACKET]| it[32..48].fill(0),
        ] {
            let error = agreed(&[server(9 * SECOND, change)])
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("no time server answered: 127.0.0.1:"),
                "{error}"
            );
        }
        // The answer to another question is waited past.
        let forged = server(0, |it| it[24] ^= 1);
        assert!(agreed(&[forged]).is_err());
        assert!(agreed(&[]).is_err());
    }

    /// Wrong by 20 ms for some microseconds, if this may be done here at all.
    #[test]
    fn the_clock_is_set_and_set_back() {
        let time = Timespec::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        if clock_settime(ClockId::Realtime, time.unwrap()).is_err() {
            println!("skip: the clock may not be set here");
            return;
        }
        let (wall, mono) = (now(), Instant::now());
        sync(&[server(20_000_000, |_| {})]).unwrap();
        let gone = i128::try_from(mono.elapsed().as_nanos()).unwrap();
        let jumped = now() - wall - gone;
        sync(&[server(-jumped, |_| {})]).unwrap();
        assert!((10_000_000..30_000_000).contains(&jumped), "{jumped}");
    }
}
