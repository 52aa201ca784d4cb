//! As much of MQTT 5 as it takes to disturb others: connect, publish anything, subscribe,
//! receive. No library, because a library would refuse what these tests want to send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// How long a broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A connection with a clean session; it sends no pings, for no test takes so long.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, id: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut client = Self { stream };
        let mut body = text("MQTT");
        // Version 5, clean start, keep-alive of 600 s (rumqttd takes none without), no
        // properties.
        body.extend([5, 2, 2, 88, 0]);
        body.extend(text(id));
        client.send(0x10, &[&body])?;
        let (kind, answer) = client.receive(ANSWER_MAX)?.context("no CONNACK")?;
        ensure!(
            kind == 0x20 && answer.get(1) == Some(&0),
            "refused: {kind:#x} {answer:?}"
        );
        Ok(client)
    }

    /// Publishes with quality of service 1 and waits until the broker has it.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let mut head = text(topic);
        // Packet number 1, no properties.
        head.extend([0, 1, 0]);
        self.send(0x32, &[&head, payload])?;
        loop {
            match self.receive(ANSWER_MAX)? {
                Some((0x40, _)) => return Ok(()),
                Some((0x30..=0x3f, _)) => {}
                other => bail!("no PUBACK but {other:?}"),
            }
        }
    }

    pub(crate) fn subscribe(&mut self, filter: &str) -> Result<()> {
        let mut body = vec![0, 2, 0];
        body.extend(text(filter));
        // Quality of service 0, so that nothing has to be acknowledged.
        body.push(0);
        self.send(0x82, &[&body])?;
        match self.receive(ANSWER_MAX)? {
            Some((0x90, _)) => Ok(()),
            other => bail!("no SUBACK but {other:?}"),
        }
    }

    /// Waits for a message whose topic begins so; returns its payload with properties.
    pub(crate) fn wait_for(&mut self, prefix: &str, limit: Duration) -> Result<Vec<u8>> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "nothing came on {prefix}");
            if let Some((0x30..=0x3f, body)) = self.receive(left)?
                && let Some(rest) = body.get(2..)
                && rest.starts_with(prefix.as_bytes())
            {
                return Ok(rest.to_vec());
            }
        }
    }

    fn send(&mut self, kind: u8, parts: &[&[u8]]) -> Result<()> {
        let mut length: usize = parts.iter().map(|part| part.len()).sum();
        let mut head = vec![kind];
        loop {
            let low = u8::try_from(length % 128)?;
            length /= 128;
            head.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        let mut packet = head;
        parts.iter().for_each(|part| packet.extend_from_slice(part));
        self.stream.write_all(&packet).context("cannot send")
    }

    /// The next packet; `None` when none came in time.
    fn receive(&mut self, limit: Duration) -> Result<Option<(u8, Vec<u8>)>> {
        self.stream
            .set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut byte = [0];
        match self.stream.read_exact(&mut byte) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            other => other.context("the connection ended")?,
        }
        let kind = byte[0];
        self.stream.set_read_timeout(Some(ANSWER_MAX))?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            self.stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
            ensure!(shift < 28, "a length that is none");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Some((kind, body)))
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
