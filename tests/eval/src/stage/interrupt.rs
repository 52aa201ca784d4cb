//! Ctrl-C, SIGTERM and SIGHUP end the program in order: every wait here fails once one of
//! them came, so the caller unwinds and all it owns is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// How soon a wait notices.
const SLICE: Duration = Duration::from_millis(20);

/// What a shell expects of a program that SIGINT ended.
pub const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Why a wait ended early.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Starts listening for the signals. A second one ends the program at once, as does the first
/// with `at_once`; the kernel then ends what it started. Also where a shell that started it in
/// the background had SIGINT ignored.
///
/// # Errors
/// When signals cannot be received.
pub fn listen(at_once: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot wait for signals")?;
    // Registered before this returns, so that none is missed.
    let guard = runtime.enter();
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let mut signals = Vec::with_capacity(kinds.len());
    for kind in kinds {
        signals.push(signal(kind).context("cannot wait for signals")?);
    }
    drop(guard);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    let [first, second, third] = &mut signals[..] else {
                        return;
                    };
                    tokio::select! {
                        _ = first.recv() => {}
                        _ = second.recv() => {}
                        _ = third.recv() => {}
                    }
                    if ASKED.swap(true, Ordering::Relaxed) || at_once {
                        std::process::exit(EXIT_CODE.into());
                    }
                }
            });
        })
        .context("cannot wait for signals")?;
    Ok(())
}

/// Whether the program was asked to end.
///
/// # Errors
/// [`Interrupted`].
pub fn check() -> Result<(), Interrupted> {
    match ASKED.load(Ordering::Relaxed) {
        true => Err(Interrupted),
        false => Ok(()),
    }
}

/// Sleeps.
///
/// # Errors
/// [`Interrupted`].
pub fn pause(time: Duration) -> Result<(), Interrupted> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(SLICE));
    }
}

/// Asks again until there is an answer.
///
/// # Errors
/// [`Interrupted`], or that there was none within `limit`.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        pause(SLICE)?;
    }
}
