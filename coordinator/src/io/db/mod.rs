//! The database: SQLite, one writer and a few readers.
//!
//! The only truth the coordinator has. The write-ahead log is synced at each
//! commit (`synchronous=FULL`), so what was committed survives a power cut, and
//! only what was committed is acknowledged.

mod alarm;
mod budget;
mod diagnosis;
mod forgotten;
mod history;
mod ingest;
pub mod outside;
pub mod own;
mod project;
mod read;
mod retain;
pub mod saga;

pub use forgotten::Forgotten;
pub use ingest::{Acknowledge, Stored};
pub use read::{EventQuery, IncidentQuery};

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// How long a statement waits for another process that holds the database, such
/// as a backup.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Readers at once. They run while the writer writes; more would only queue for
/// the same two or four cores.
const READERS: u32 = 4;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The folder is missing and cannot be made, or its lock cannot be opened.
    #[error("cannot {doing} {path}")]
    Folder {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Two coordinators on one database would acknowledge each other's records.
    #[error("{0} is in use by another coordinator")]
    InUse(PathBuf),
    /// SQLite refuses to open it.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// What is there was made by another program, or by no coordinator yet.
    #[error("{path} is no database of a coordinator")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// It was made by another version.
    #[error("{path} has schema {found}, this version reads {wanted}: serve brings it up to date")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        wanted: i64,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the database {path} up to date")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A statement failed.
    #[error("cannot {doing}")]
    Statement {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
}

impl DbError {
    pub(crate) fn on(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Statement { doing, source }
    }

    /// Whether the database objects to what it was given rather than to being
    /// used now: trying again would fail again.
    #[must_use]
    pub fn blames_the_record(&self) -> bool {
        match self {
            Self::Statement { source, .. } => match source {
                sqlx::Error::Database(error) => {
                    error.kind() != sqlx::error::ErrorKind::Other
                        // 18: too big. 20: datatype mismatch.
                        || matches!(error.code().as_deref(), Some("18" | "20"))
                }
                sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => true,
                _ => false,
            },
            Self::Folder { .. }
            | Self::InUse(_)
            | Self::Open { .. }
            | Self::Foreign { .. }
            | Self::Version { .. }
            | Self::Migrate { .. } => false,
        }
    }
}

/// The open database. Clones share it.
#[derive(Debug, Clone)]
pub struct Db {
    write: SqlitePool,
    read: SqlitePool,
    // Held, not used: the lock goes with the last clone, or with the process.
    _lock: std::sync::Arc<File>,
}

impl Db {
    /// Opens or creates the database in `folder` and brings its schema up to
    /// date.
    ///
    /// # Errors
    /// [`DbError`] names what could not be done, and on which file.
    pub async fn open(folder: &Path) -> Result<Self, DbError> {
        let at = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| DbError::Folder {
                doing,
                path,
                source,
            }
        };
        std::fs::create_dir_all(folder).map_err(at("create the folder", folder))?;
        let path = folder.join("coordinator.lock");
        let lock = File::create(&path).map_err(at("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DbError::InUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(at("lock", &path)(source)),
        }
        let path = folder.join("coordinator.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_MAX);
        let open = |source| DbError::Open {
            path: path.clone(),
            source,
        };
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        sqlx::migrate!()
            .run(&write)
            .await
            .map_err(|source| DbError::Migrate {
                path: path.clone(),
                source,
            })?;
        let read = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY_MAX)
            .connect_with(options.pragma("query_only", "1"))
            .await
            .map_err(open)?;
        Ok(Self {
            write,
            read,
            _lock: std::sync::Arc::new(lock),
        })
    }

    /// Opens the database in `folder` to look at it, also while a coordinator uses it. Nothing
    /// can be written then.
    ///
    /// # Errors
    /// [`DbError`]: there must be one, of this version.
    pub async fn look(folder: &Path) -> Result<Self, DbError> {
        let path = folder.join("coordinator.db");
        let lock = File::open(&path).map_err(|source| DbError::Folder {
            doing: "open",
            path: path.clone(),
            source,
        })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .busy_timeout(BUSY_MAX);
        let pool = SqlitePoolOptions::new().max_connections(1);
        let pool = pool.connect_with(options).await;
        let open = |source| DbError::Open {
            path: path.clone(),
            source,
        };
        let pool = pool.map_err(open)?;
        // An empty file opens, and so does what is no database at all.
        let found = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations WHERE success");
        let found: Option<i64> = found.fetch_one(&pool).await.map_err(|source| {
            let path = path.clone();
            DbError::Foreign { path, source }
        })?;
        let wanted = sqlx::migrate!().iter().map(|one| one.version).max();
        if found != wanted {
            let (found, wanted) = (found.unwrap_or(0), wanted.unwrap_or(0));
            return Err(DbError::Version {
                path,
                found,
                wanted,
            });
        }
        Ok(Self {
            write: pool.clone(),
            read: pool,
            _lock: std::sync::Arc::new(lock),
        })
    }

    /// A value that is minted once and kept, such as the name of the MQTT
    /// session.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn setting(&self, name: &str, mint: &str) -> Result<String, DbError> {
        sqlx::query_scalar(
            "INSERT INTO setting(name, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = value RETURNING value",
        )
        .bind(name)
        .bind(mint)
        .fetch_one(&self.write)
        .await
        .map_err(DbError::on("read a setting"))
    }

    /// Writes back the log and closes all connections.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// For the database: its integers have a sign. What a peer may choose freely was
/// checked on admission; the rest saturates.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Back again.
pub(crate) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests;
