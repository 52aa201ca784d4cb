//! Plans across nodes: what their initiator must find again, and how they went.

use std::collections::BTreeMap;

use homeostat_common::ids::{NodeId, SiteId};
use homeostat_common::saga::{Decision, FleetPlan, FleetPlanError, StepState};
use homeostat_common::transaction::Ending;
use homeostat_common::units::Ratio;
use homeostat_common::wire::body::Severity;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Db, DbError, int, own, uint};
use crate::fleet::plans::{FleetPlanDecision, FleetPlanView};

/// Most plans that are listed.
const LIST_MAX: i64 = 100;

/// Where the nodes of a plan stand.
pub type Sites = BTreeMap<NodeId, SiteId>;

/// One that has not ended.
#[derive(Debug, Clone)]
pub struct OpenSaga {
    /// Its number.
    pub number: u64,
    /// When it began.
    pub begun_ms: u64,
    /// Where its nodes stand.
    pub sites: Sites,
    /// What a person was called for.
    pub flag: Option<String>,
    /// What was decided, in order.
    pub decisions: Vec<Decision>,
}

/// How one is seen.
#[derive(Debug, Clone)]
pub struct SagaState<'s> {
    /// Its number.
    pub number: u64,
    /// Where it stands.
    pub phase: &'s str,
    /// Why it is taken back.
    pub why: Option<&'s str>,
    /// What a person was called for.
    pub flag: Option<&'s str>,
    /// How far each step is.
    pub steps: &'s [StepState],
}

impl Db {
    /// Counts one more life of the initiator: greater than each before it.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn raise_epoch(&self) -> Result<u64, DbError> {
        let epoch: String = sqlx::query_scalar(
            "INSERT INTO setting(name, value) VALUES ('saga-epoch', '1')
             ON CONFLICT DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)
             RETURNING value",
        )
        .fetch_one(&self.write)
        .await
        .map_err(DbError::on("count a life of the initiator"))?;
        // It was written by this statement alone.
        Ok(epoch.parse().unwrap_or(u64::MAX))
    }

    /// The number of the next plan: grows also when the database was made anew.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn next_saga(&self, now_ms: u64) -> Result<u64, DbError> {
        let last: Option<i64> = sqlx::query_scalar("SELECT MAX(number) FROM saga")
            .fetch_one(&self.write)
            .await
            .map_err(DbError::on("number a plan"))?;
        Ok(last.map_or(0, uint).saturating_add(1).max(now_ms))
    }

    /// Stores a decision; the first one stores the saga.
    ///
    /// # Errors
    /// [`DbError::Statement`]; then nothing of it is stored.
    pub async fn decide_saga(
        &self,
        state: &SagaState<'_>,
        sites: &Sites,
        place: u64,
        decision: &Decision,
        now_ms: u64,
    ) -> Result<(), DbError> {
        let doing = "store a decision about a plan";
        let on = || DbError::on(doing);
        let mut change = self.write.begin().await.map_err(on())?;
        if let Decision::Begun { plan, confidence } = decision {
            sqlx::query(
                "INSERT INTO saga(number, plan, confidence, sites, begun_ms, phase, steps)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, '[]') ON CONFLICT DO NOTHING",
            )
            .bind(int(state.number))
            .bind(plan.to_string())
            .bind(confidence.map(|it| f64::from(it.get())))
            .bind(json(sites))
            .bind(int(now_ms))
            .bind(state.phase)
            .execute(&mut *change)
            .await
            .map_err(on())?;
        }
        sqlx::query(
            "INSERT INTO saga_decision(saga, place, at_ms, decision) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )
        .bind(int(state.number))
        .bind(int(place))
        .bind(int(now_ms))
        .bind(json(decision))
        .execute(&mut *change)
        .await
        .map_err(on())?;
        let ended = matches!(decision, Decision::Ended(_)).then(|| int(now_ms));
        if let Decision::Ended(Ending::Done | Ending::Undone) = decision {
            own::clear(&mut change, &own::of_saga(state.number))
                .await
                .map_err(on())?;
        }
        sqlx::query(
            "UPDATE saga SET phase = ?2, why = ?3, flag = COALESCE(?4, flag), steps = ?5,
             ended_ms = COALESCE(?6, ended_ms) WHERE number = ?1",
        )
        .bind(int(state.number))
        .bind(state.phase)
        .bind(state.why)
        .bind(state.flag)
        .bind(json(state.steps))
        .bind(ended)
        .execute(&mut *change)
        .await
        .map_err(on())?;
        change.commit().await.map_err(on())
    }

    /// Calls a person for it: its flag, and its alarm. `stuck` is worse than what
    /// somebody may deal with already.
    ///
    /// # Errors
    /// [`DbError::Statement`]; then neither is stored.
    pub async fn flag_saga(
        &self,
        number: u64,
        why: &str,
        stuck: bool,
        now_ms: u64,
    ) -> Result<(), DbError> {
        let on = || DbError::on("flag a plan");
        let mut change = self.write.begin().await.map_err(on())?;
        sqlx::query("UPDATE saga SET flag = ?2 WHERE number = ?1")
            .bind(int(number))
            .bind(why)
            .execute(&mut *change)
            .await
            .map_err(on())?;
        let alarm = (&*own::of_saga(number), Severity::Critical);
        let text = format!("{why} (homeostat plan show {number})");
        own::raise(&mut change, alarm, &text, stuck, now_ms)
            .await
            .map_err(on())?;
        change.commit().await.map_err(on())
    }

    /// A person has given it up: nobody else has to be called.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn end_saga_alarm(&self, number: u64) -> Result<(), DbError> {
        self.set_alarm(&own::of_saga(number), Severity::Critical, None, 0)
            .await
    }

    /// Those that have not ended.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn open_sagas(&self) -> Result<Vec<OpenSaga>, DbError> {
        let doing = "read the open plans";
        let rows = sqlx::query(
            "SELECT number, begun_ms, sites, flag FROM saga WHERE ended_ms IS NULL ORDER BY number",
        )
        .fetch_all(&self.write)
        .await
        .map_err(DbError::on(doing))?;
        let mut open = Vec::new();
        for row in rows {
            let read = || {
                Ok::<_, sqlx::Error>((
                    uint(row.try_get("number")?),
                    uint(row.try_get("begun_ms")?),
                    from_json(row.try_get("sites")?)?,
                    row.try_get("flag")?,
                ))
            };
            let (number, begun_ms, sites, flag) = read().map_err(DbError::on(doing))?;
            let decisions = self.decisions(number).await?;
            open.push(OpenSaga {
                number,
                begun_ms,
                sites,
                flag,
                decisions: decisions.into_iter().map(|(_, it)| it).collect(),
            });
        }
        Ok(open)
    }

    async fn decisions(&self, number: u64) -> Result<Vec<(u64, Decision)>, DbError> {
        let doing = "read what was decided about a plan";
        let rows =
            sqlx::query("SELECT at_ms, decision FROM saga_decision WHERE saga = ?1 ORDER BY place")
                .bind(int(number))
                .fetch_all(&self.read)
                .await
                .map_err(DbError::on(doing))?;
        rows.iter()
            .map(|row| {
                Ok((
                    uint(row.try_get("at_ms")?),
                    from_json(row.try_get("decision")?)?,
                ))
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(DbError::on(doing))
    }

    /// The newest plans, or one, without what was decided.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn sagas(&self, number: Option<u64>) -> Result<Vec<FleetPlanView>, DbError> {
        let doing = "read the plans";
        let rows = sqlx::query(
            "SELECT * FROM saga WHERE ?1 IS NULL OR number = ?1 ORDER BY number DESC LIMIT ?2",
        )
        .bind(number.map(int))
        .bind(LIST_MAX)
        .fetch_all(&self.read)
        .await
        .map_err(DbError::on(doing))?;
        rows.iter()
            .map(view)
            .collect::<Result<_, _>>()
            .map_err(DbError::on(doing))
    }

    /// What was decided about a plan, and when.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn saga_story(&self, number: u64) -> Result<Vec<FleetPlanDecision>, DbError> {
        let decisions = self.decisions(number).await?;
        let told = decisions.into_iter().map(|(at_ms, decision)| {
            let what = match decision {
                Decision::Begun { .. } => "begun".into(),
                Decision::Abort(why) => format!("taken back: {why}"),
                Decision::Commit => "to be kept".into(),
                Decision::Ended(ending) => format!("ended: {}", ending_word(ending)),
            };
            FleetPlanDecision { at_ms, what }
        });
        Ok(told.collect())
    }

    /// Forgets plans that ended before `cutoff_ms`.
    ///
    /// # Errors
    /// [`DbError::Statement`].
    pub async fn forget_sagas(&self, cutoff_ms: u64) -> Result<(), DbError> {
        sqlx::query("DELETE FROM saga WHERE ended_ms < ?1")
            .bind(int(cutoff_ms))
            .execute(&self.write)
            .await
            .map(|_| ())
            .map_err(DbError::on("forget old plans"))
    }
}

/// How a saga ended, in a word.
pub(crate) fn ending_word(ending: Ending) -> &'static str {
    match ending {
        Ending::Done => "done",
        Ending::Undone => "undone",
        Ending::Stuck => "stuck",
    }
}

fn view(row: &SqliteRow) -> Result<FleetPlanView, sqlx::Error> {
    let plan: String = row.try_get("plan")?;
    let parsed: FleetPlan = plan
        .parse()
        .map_err(|error: FleetPlanError| sqlx::Error::Decode(error.to_string().into()))?;
    let sites: Sites = from_json(row.try_get("sites")?)?;
    let steps: Vec<StepState> = from_json(row.try_get("steps")?)?;
    let confidence: Option<f64> = row.try_get("confidence")?;
    #[allow(clippy::cast_possible_truncation)] // It was one.
    let confidence = confidence.and_then(|it| Ratio::new(it as f32).ok());
    Ok(FleetPlanView {
        begun_ms: uint(row.try_get("begun_ms")?),
        ended_ms: row.try_get::<Option<i64>, _>("ended_ms")?.map(uint),
        why: row.try_get("why")?,
        flag: row.try_get("flag")?,
        ..FleetPlanView::new(
            uint(row.try_get("number")?),
            &parsed,
            confidence,
            &sites,
            row.try_get("phase")?,
            &steps,
        )
    })
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Maps with text keys, lists and enums, which cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
