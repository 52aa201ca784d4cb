//! Starts the coordinator, and ends it cleanly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use homeostat_common::wire::seal::{self, Signer};

use super::ingest::{Ingest, chain};
use super::notifying::{Notifier, NotifierError};
use super::outside::{self, Listener, Outside};
use super::sagas::{self, Sagas};
use super::{Hub, now_ms};
use crate::io::broker::{self, BrokerError};
use crate::io::config::Config;
use crate::io::counts::{self, CountsError};
use crate::io::db::{Db, DbError};
use crate::io::secret::{self, SecretError};
use crate::io::{devices, http, mqtt};

/// How often old records are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// How long the tasks may take to end before the process ends without them.
const END_MAX: Duration = Duration::from_secs(5);

/// What to serve, checked by the command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// The broker's host and port.
    pub broker: (String, u16),
    /// Run a broker here, at this address, instead of reaching for one.
    pub embedded: Option<SocketAddr>,
    /// Where API and page listen.
    pub http: SocketAddr,
    /// Where the database is.
    pub data: PathBuf,
    /// For how many days records are kept.
    pub keep_days: u32,
    /// Whom to call.
    pub config: Config,
}

/// Why the coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The model of failure classes.
    #[error(transparent)]
    Model(#[from] CountsError),
    /// What orders are signed with.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Webhooks.
    #[error(transparent)]
    Notifier(#[from] NotifierError),
    /// API and page.
    #[error("cannot listen on http://{address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// SIGTERM or SIGINT cannot be waited for.
    #[error("cannot wait for signals")]
    Signal(#[source] std::io::Error),
}

/// Serves until SIGTERM or SIGINT. Prints a line for each address once it
/// answers.
///
/// # Errors
/// [`ServeError`], only while starting.
pub async fn run(options: Options) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    let db = Db::open(&options.data).await?;
    let client = db
        .setting(
            "mqtt-client",
            &format!("homeostat-{:016x}", fastrand::u64(..)),
        )
        .await?;
    let (mut host, mut port) = options.broker;
    if let Some(listen) = options.embedded {
        let address = tokio::task::spawn_blocking(move || broker::start(listen))
            .await
            .map_err(|error| BrokerError::Listen {
                listen,
                source: std::io::Error::other(error),
            })??;
        println!("listening mqtt://{address}");
        (host, port) = (address.ip().to_string(), address.port());
    }
    let address = options.http;
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    println!(
        "listening http://{}",
        listener.local_addr().map_err(listen)?
    );

    let (asks, wishes) = mpsc::channel(sagas::ASKS_MAX);
    let signer = Signer::new(&secret::open(&options.data, secret::ORDERS_KEY)?);
    let token = seal::hex(&secret::open(&options.data, secret::OPERATOR_TOKEN)?);
    let intake = seal::hex(&secret::open(&options.data, secret::INTAKE_TOKEN)?);
    let model = options.config.model.as_deref().map(counts::model);
    let classifier = model.transpose()?;
    let others = Outside::new(options.config.labels, intake);
    let hub = Arc::new(Hub::new(
        db,
        asks.clone(),
        signer.key(),
        token,
        others,
        classifier,
        options.config.slo,
    ));
    let (stop, stopped) = watch::channel(false);
    let (up, arrived) = mpsc::channel(mqtt::ARRIVED_MAX);
    let (settle, settled) = mpsc::channel(mqtt::SETTLED_MAX);
    let plans = Sagas::open(hub.clone(), signer, settle.clone()).await?;
    let notifier = Notifier::open(hub.clone(), &options.config.webhooks, options.config.people);
    let notifier = tokio::spawn(notifier.await?.run(stopped.clone()));
    let ingest = Ingest::new(hub.clone(), settle, asks, stopped.clone());
    let ingest = tokio::spawn(ingest.run(arrived));
    let plans = tokio::spawn(plans.run(wishes, stopped.clone()));
    let address = mqtt::Address { host, port, client };
    let devices = {
        let (heard, from_broker) = mpsc::channel(devices::HEARD_MAX);
        let (tell, told) = mpsc::channel(outside::TELL_MAX);
        let sources: Arc<[_]> = options.config.intake.into();
        let listener = Listener::new(hub.clone(), sources.clone(), tell);
        let listener = tokio::spawn(listener.run(from_broker, stopped.clone()));
        let (address, stopped) = (address.clone(), stopped.clone());
        let link = tokio::spawn(async move {
            devices::run(address, &sources, heard, told, stopped).await;
        });
        async move {
            let _ = link.await;
            let _ = listener.await;
        }
    };
    let link = {
        let (hub, stopped) = (hub.clone(), stopped.clone());
        tokio::spawn(async move { mqtt::run(address, up, settled, stopped, &hub.metrics).await })
    };
    let forget = tokio::spawn(forget(hub.clone(), options.keep_days));
    let http = tokio::spawn(http::serve(listener, hub.clone()));

    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "ending");
    let _ = stop.send(true);
    http.abort();
    forget.abort();
    let end = async {
        let _ = ingest.await;
        let _ = plans.await;
        let _ = notifier.await;
        let _ = link.await;
        devices.await;
        hub.db.close().await;
    };
    if tokio::time::timeout(END_MAX, end).await.is_err() {
        // Harmless: what was not committed was not acknowledged either.
        tracing::warn!("ended without waiting for everything");
    }
    Ok(())
}

async fn forget(hub: Arc<Hub>, keep_days: u32) {
    let keep = u64::from(keep_days) * 86_400_000;
    let mut every = tokio::time::interval(FORGET_EVERY);
    loop {
        every.tick().await;
        match hub.db.forget(now_ms().saturating_sub(keep)).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, keep_days, "forgot what is too old"),
            Err(error) => tracing::error!(error = chain(&error), "cannot forget what is too old"),
        }
    }
}
