//! Asks the coordinator as any client would: plain HTTP, JSON, page by page. Has plans
//! run, too, with the operator's token.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use homeostat_coordinator::fleet::diagnosis::Why;
use homeostat_coordinator::fleet::plans::{
    FleetPlanBegun, FleetPlanView, FleetPlanWish, OrdersKey,
};
use homeostat_coordinator::fleet::view::{
    Event, Events, Fleet, Incident, IncidentDetail, Incidents,
};
use serde::de::DeserializeOwned;

const PATIENCE: Duration = Duration::from_secs(10);
/// Rows of a page: the most that the API gives.
const PAGE: usize = 500;
/// Largest answer read: a page of events with observations has some 2 MB.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;

/// The coordinator at an address.
#[derive(Clone, Copy, Debug)]
pub struct Api(pub SocketAddrV4);

impl Api {
    /// Whether it reaches the broker and stores.
    #[must_use]
    pub fn healthy(&self) -> bool {
        get(self.0, "/healthz", PATIENCE).is_ok_and(|(status, _)| status == 200)
    }

    /// # Errors
    /// When there is no proper answer, here and below.
    pub fn fleet(&self) -> Result<Fleet> {
        self.json("/api/v1/fleet")
    }

    /// All incidents, in order of arrival.
    pub fn incidents(&self) -> Result<Vec<Incident>> {
        let mut all = Vec::new();
        let mut before = String::new();
        loop {
            let page: Incidents = self.json(&format!("/api/v1/incidents?limit={PAGE}{before}"))?;
            all.extend(page.incidents);
            match page.next {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        all.reverse();
        Ok(all)
    }

    /// One incident with its timeline.
    pub fn incident(&self, id: u64) -> Result<IncidentDetail> {
        self.json(&format!("/api/v1/incidents/{id}"))
    }

    /// Why services of that name are in trouble.
    pub fn why(&self, service: &str) -> Result<Vec<Why>> {
        self.json(&format!("/api/v1/why?service={service}"))
    }

    /// All events, in order of arrival.
    pub fn events(&self) -> Result<Vec<Event>> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let page: Events = self.json(&format!("/api/v1/events?limit={PAGE}&after={after}"))?;
            if page.events.is_empty() {
                return Ok(all);
            }
            after = page.cursor;
            all.extend(page.events);
        }
    }

    /// What nodes must trust to take the coordinator's orders.
    pub fn orders_key(&self) -> Result<OrdersKey> {
        self.json("/api/v1/orders-key")
    }

    /// The newest plans across nodes.
    pub fn plans(&self) -> Result<Vec<FleetPlanView>> {
        self.json("/api/v1/plans")
    }

    /// One plan across nodes.
    pub fn plan(&self, id: u64) -> Result<FleetPlanView> {
        self.json(&format!("/api/v1/plans/{id}"))
    }

    /// Has a plan across nodes run; its number.
    pub fn begin(&self, token: &str, plan: &str) -> Result<u64> {
        let wish = FleetPlanWish {
            plan: plan.to_owned(),
            confidence: None,
        };
        let body = serde_json::to_string(&wish)?;
        let head = format!(
            "POST /api/v1/plans HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.0,
            body.len()
        );
        let (status, body) = exchange(self.0, &head, PATIENCE)?;
        if status != 202 {
            bail!("the coordinator answered {status} to a plan: {body}");
        }
        Ok(serde_json::from_str::<FleetPlanBegun>(&body)?.id)
    }

    /// Tells of alarms as Alertmanager does.
    pub fn alert(&self, token: &str, body: &str) -> Result<()> {
        let head = format!(
            "POST /api/v1/alertmanager HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.0,
            body.len()
        );
        let (status, body) = exchange(self.0, &head, PATIENCE)?;
        if status != 200 {
            bail!("the coordinator answered {status} to an alert: {body}");
        }
        Ok(())
    }

    /// The answer to `GET path`, as text.
    pub fn text(&self, path: &str) -> Result<String> {
        let (status, body) = get(self.0, path, PATIENCE)?;
        if status != 200 {
            bail!("the coordinator answered {status} to {path}: {body}");
        }
        Ok(body)
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.text(path)?;
        serde_json::from_str(&body).with_context(|| format!("the answer to {path}"))
    }
}

/// `GET path` over HTTP/1.0: status and body.
pub(super) fn get(address: SocketAddrV4, path: &str, patience: Duration) -> Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    exchange(address, &request, patience).with_context(|| path.to_owned())
}

fn exchange(address: SocketAddrV4, request: &str, patience: Duration) -> Result<(u16, String)> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address.into(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let ask = || ask().map_err(|error| homeostat_notify::in_words(error, patience));
    let answer = ask().with_context(|| format!("cannot ask http://{address}"))?;
    let parsed = answer
        .split_once("\r\n\r\n")
        .and_then(|(head, body)| Some((head.get(9..12)?.parse().ok()?, body.to_owned())));
    parsed.with_context(|| format!("http://{address} answered no HTTP"))
}
