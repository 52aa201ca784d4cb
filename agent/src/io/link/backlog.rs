//! How the link reads the outbox: by asking the thread that owns the store.
//!
//! The link never touches the disk. It asks for what follows a sequence number
//! and gets copies; one question is open at a time, so at most
//! [`super::uplink::WINDOW_BYTES`] and one record are in memory twice.

use tokio::sync::{mpsc, oneshot};

/// A sequence number and the encoded envelope of that event.
pub type Record = (u64, Vec<u8>);

/// One question of the link to the thread that owns the store.
#[derive(Debug)]
pub struct Fetch {
    /// Wanted are the events behind this one, in order.
    pub after: u64,
    /// Stop before the sum of the envelopes passes this; at least one record is
    /// answered when there is one, whatever its size.
    pub max_bytes: usize,
    /// Where the answer goes. An empty one means: nothing there yet, the link
    /// asks again after [`super::LinkHandle::notify_backlog`].
    pub reply: oneshot::Sender<Vec<Record>>,
}

/// The link's end.
#[derive(Debug, Clone)]
pub struct Backlog(mpsc::Sender<Fetch>);

/// Open questions: one, and one that a lost connection left behind.
const OPEN_MAX: usize = 2;

/// Makes a handle for the link and the end that the store's thread serves
/// (`blocking_recv` there).
#[must_use]
pub fn backlog() -> (Backlog, mpsc::Receiver<Fetch>) {
    let (questions, served) = mpsc::channel(OPEN_MAX);
    (Backlog(questions), served)
}

impl Backlog {
    /// The events after `after`; `None` when nobody serves the store any more.
    pub async fn next(&self, after: u64, max_bytes: usize) -> Option<Vec<Record>> {
        let (reply, answer) = oneshot::channel();
        let question = Fetch {
            after,
            max_bytes,
            reply,
        };
        self.0.send(question).await.ok()?;
        answer.await.ok()
    }
}
