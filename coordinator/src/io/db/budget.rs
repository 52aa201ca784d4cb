//! How the budgets of each node's classes stand.
//!
//! In: what a node tells of them, by itself and with each plan that is paid for;
//! out: rows, of which the newest word of each class stands.

use homeostat_common::wire::body::ClassBudget;
use sqlx::{Row as _, SqliteConnection};

use super::project::At;
use super::read::{LIST_MAX, number};
use super::{Db, DbError, int};
use crate::fleet::view::Budget;

pub(super) async fn told(
    db: &mut SqliteConnection,
    at: At,
    body: &ClassBudget,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO budget(stream, class, seq, beta, balance, reserved, overruns, since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET seq = excluded.seq, beta = excluded.beta,
           balance = excluded.balance, reserved = excluded.reserved,
           overruns = excluded.overruns, since_ms = excluded.since_ms
         WHERE excluded.seq > seq",
    )
    .bind(at.stream)
    .bind(body.class.name())
    .bind(at.seq)
    .bind(body.beta)
    .bind(body.balance)
    .bind(body.reserved)
    .bind(int(body.overruns))
    .bind(at.ms)
    .execute(db)
    .await?;
    Ok(())
}

impl Db {
    /// The budgets of all nodes, by site and name.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn budgets(&self) -> Result<Vec<Budget>, DbError> {
        let doing = "read the budgets";
        let rows = sqlx::query(
            "SELECT node.name AS node, class, beta, balance, reserved, overruns, since_ms
             FROM node JOIN budget ON budget.stream = node.stream
             ORDER BY node.site, node.name, class LIMIT ?1",
        )
        .bind(LIST_MAX * 3)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        rows.iter()
            .map(|row| {
                Ok(Budget {
                    node: row.try_get("node")?,
                    class: row.try_get("class")?,
                    beta: row.try_get("beta")?,
                    balance: row.try_get("balance")?,
                    reserved: row.try_get("reserved")?,
                    overruns: number(row, "overruns")?,
                    since_ms: number(row, "since_ms")?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(DbError::on(doing))
    }
}
