//! The proxy does to real connections what its link says, and nothing else.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use homeostat_testbed::proxy::{Link, Proxy};

const LONG: Duration = Duration::from_secs(20);

/// Sends back all that it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut from = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut from, &mut stream);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

fn proxy(link: Link) -> Proxy {
    Proxy::start(0, echo(), link, 7).unwrap()
}

/// Sends this and reads as much; how long that took.
fn round(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<(Vec<u8>, Duration)> {
    let begun = Instant::now();
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LONG))?;
    let mut to = stream.try_clone()?;
    let sent = bytes.to_vec();
    let sender = thread::spawn(move || to.write_all(&sent));
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    sender.join().unwrap()?;
    Ok((back, begun.elapsed()))
}

#[test]
fn what_goes_over_a_good_link_arrives_as_it_was_and_so_does_its_end() {
    let proxy = proxy(Link::default());
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let (back, _) = round(&mut stream, &bytes).unwrap();
    assert_eq!(back, bytes);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    let passed = proxy.passed();
    assert_eq!((passed.connections, passed.bytes), (1, 600_000));
    assert_eq!((passed.lost, passed.resets, passed.corrupted), (0, 0, 0));
}

#[test]
fn a_delay_is_met_once_each_way_and_can_be_taken_back() {
    let proxy = proxy(Link::after(Duration::from_millis(60)));
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let (_, took) = round(&mut stream, b"ping").unwrap();
    assert!(took >= Duration::from_millis(120), "{took:?}");
    proxy.set(Link::default());
    let least = (0..20)
        .map(|_| round(&mut stream, b"ping").unwrap().1)
        .min();
    assert!(least.unwrap() < Duration::from_millis(60), "{least:?}");
}

#[test]
fn a_loss_is_a_stall_of_at_least_a_timeout_and_nothing_is_missing() {
    let lossy = Link {
        loss: 0.4,
        ..Link::default()
    };
    let proxy = proxy(lossy);
    let mut stalled = 0;
    for number in 0..12_u8 {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        let (back, took) = round(&mut stream, &[number; 100]).unwrap();
        assert_eq!(back, [number; 100]);
        stalled += u32::from(took >= Duration::from_millis(200));
    }
    let passed = proxy.passed();
    // 24 segments at 0.4: 16 losses on average, none at all once in 200,000 seeds.
    assert!(
        stalled > 0 && passed.lost >= u64::from(stalled),
        "{passed:?}"
    );
}

#[test]
fn resets_are_resets_and_corruption_changes_one_byte_and_no_length() {
    let resets = proxy(Link {
        reset: 1.0,
        ..Link::default()
    });
    let mut stream = TcpStream::connect(resets.address()).unwrap();
    let error = round(&mut stream, b"ping").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(resets.passed().resets, 1);

    let garbles = proxy(Link {
        corrupt: 1.0,
        ..Link::default()
    });
    let mut stream = TcpStream::connect(garbles.address()).unwrap();
    let (back, _) = round(&mut stream, &[0; 64]).unwrap();
    let changed = back.iter().filter(|byte| **byte != 0).count();
    // One each way; both may meet the same byte, which then is as before.
    assert!(changed == 2 || changed == 0, "{back:?}");
    assert_eq!(garbles.passed().corrupted, 2);
}

#[test]
fn a_narrow_link_takes_its_time() {
    let proxy = proxy(Link {
        bandwidth: Some(100_000.0),
        ..Link::default()
    });
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let (_, took) = round(&mut stream, &[1; 30_000]).unwrap();
    // The ways overlap: 0.3 s for the last byte to arrive, and its way back.
    assert!(took >= Duration::from_millis(295), "{took:?}");
}

#[test]
fn a_link_that_is_down_refuses_and_is_silent_and_comes_back_with_what_it_held() {
    let proxy = proxy(Link::default());
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    round(&mut stream, b"ping").unwrap();
    proxy.set(Link {
        down: true,
        ..Link::default()
    });
    let begun = Instant::now();
    while TcpStream::connect(proxy.address()).is_ok() {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(5));
    }
    stream
        .set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    stream.write_all(b"lost?").unwrap();
    let silent = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::WouldBlock);
    proxy.set(Link::default());
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"lost?");
    while TcpStream::connect(proxy.address()).is_err() {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(5));
    }
}
