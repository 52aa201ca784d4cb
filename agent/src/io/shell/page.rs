//! Serves the last readings to Prometheus, if the configuration says where.
//!
//! One connection at a time, each within [`PATIENCE`] and of [`REQUEST_MAX`]: a scraper comes
//! every few seconds, and nobody else is meant to. Only reads.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::question::ask;
use super::{Asked, Form, Question};

/// Longest request that is read.
const REQUEST_MAX: usize = 4096;

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Before an address that is taken, or not there yet, is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Serves for ever.
pub(super) async fn serve(at: SocketAddr, questions: mpsc::Sender<Question>) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(error) if told => drop(error),
            Err(error) => {
                warn!("no readings at {at} yet: {error}");
                told = true;
            }
        }
        sleep(RETRY).await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = timeout(PATIENCE, answer(stream, &questions)).await;
            }
            // Out of descriptors, say: not in a hot loop.
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, questions: &mpsc::Sender<Question>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (reader, mut writer) = stream.split();
    let mut reader = reader.take(REQUEST_MAX as u64);
    while !request.ends_with(b"\r\n\r\n") {
        if reader.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let path = std::str::from_utf8(&request).ok();
    let mut words = path
        .and_then(|text| text.lines().next())
        .unwrap_or("")
        .split(' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => {
            match ask(questions, Asked::Readings(Form::Prometheus)).await {
                Ok(page) => ("200 OK", page),
                Err(why) => ("503 Service Unavailable", why + "\n"),
            }
        }
        (Some("GET"), _) => ("404 Not Found", "/metrics is all there is\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(body.as_bytes()).await?;
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_page_and_others_are_told_off() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = free.local_addr().unwrap();
            drop(free);
            let (sender, mut questions) = mpsc::channel::<Question>(1);
            tokio::spawn(serve(at, sender));
            tokio::spawn(async move {
                while let Some((_, reply)) = questions.recv().await {
                    let _ = reply.send(Ok("homeostat_load 1\n".into()));
                }
            });
            let get = async |request: &str| {
                let mut stream = loop {
                    match TcpStream::connect(at).await {
                        Ok(stream) => break stream,
                        Err(_) => sleep(Duration::from_millis(5)).await,
                    }
                };
                stream.write_all(request.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
                let mut text = String::new();
                let _ = stream.read_to_string(&mut text).await;
                text
            };
            let page = get("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(
                page.starts_with("HTTP/1.1 200") && page.ends_with("\r\n\r\nhomeostat_load 1\n")
            );
            assert!(
                get("GET / HTTP/1.1\r\n\r\n")
                    .await
                    .starts_with("HTTP/1.1 404")
            );
            assert!(
                get("POST /metrics HTTP/1.1\r\n\r\n")
                    .await
                    .starts_with("HTTP/1.1 405")
            );
            assert_eq!(get("GET /metrics").await, "");
            let long = "x".repeat(REQUEST_MAX + 10);
            assert_eq!(get(&long).await, "");
            assert!(
                get("GET /metrics HTTP/1.0\r\n\r\n")
                    .await
                    .contains("200 OK")
            );
        });
    }
}
