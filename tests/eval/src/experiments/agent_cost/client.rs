//! A client in C that does what a probe needs, and nothing else: compiled with the machine's
//! `cc` when it is needed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// One connection after the other, each a request and its answer; then sleeps till the next
/// round.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static const char ask[] =
        "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    long period = atol(argv[1]) * 1000000L;
    struct linger reset = {1, 0};
    struct timespec next;
    char answer[4096];
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        for (int at = 2; at < argc; at++) {
            struct sockaddr_in to = {0};
            int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            to.sin_family = AF_INET;
            to.sin_port = htons((unsigned short)atoi(argv[at]));
            to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            if (connect(s, (struct sockaddr *)&to, sizeof to) ||
                send(s, ask, sizeof ask - 1, MSG_NOSIGNAL) < 0)
                return 1;
            ssize_t got = 0, more;
            while ((more = recv(s, answer + got, sizeof answer - 1 - got, 0)) > 0) {
                got += more;
                answer[got] = 0;
                char *end = strstr(answer, "\r\n\r\n");
                char *length = strcasestr(answer, "content-length:");
                if (end && length && answer + got >= end + 4 + atol(length + 15))
                    break;
            }
            if (got < 12 || memcmp(answer + 9, "200", 3))
                return 2;
            close(s);
        }
        next.tv_nsec += period;
        while (next.tv_nsec >= 1000000000L) {
            next.tv_nsec -= 1000000000L;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
    }
}
"#;

/// The client, while it runs.
pub(super) struct Client {
    child: Child,
}

impl Client {
    /// Compiles and starts it. `None` without a compiler.
    ///
    /// # Errors
    /// When it does not compile or start.
    pub(super) fn start(dir: &Path, period: Duration, ports: &[u16]) -> Result<Option<Self>> {
        let source = dir.join("client.c");
        let program = dir.join("client");
        fs::write(&source, SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
        let compiled = Command::new("cc")
            .arg("-O2")
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .stdin(Stdio::null())
            .output();
        let compiled = match compiled {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            compiled => compiled.context("cannot run cc")?,
        };
        ensure!(
            compiled.status.success(),
            "cc: {}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        let child = Command::new(&program)
            .arg(period.as_millis().to_string())
            .args(ports.iter().map(u16::to_string))
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the client")?;
        Ok(Some(Self { child }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it got all its answers.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn check(mut self) -> Result<()> {
        let ended = self.child.try_wait().context("cannot ask for the client")?;
        ensure!(ended.is_none(), "the client gave up: {ended:?}");
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
