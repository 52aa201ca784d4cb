//! A new configuration while everything runs: checked here, then by the spawner,
//! and only then taken over. Whatever is wrong with it, nothing has changed.

use std::sync::Arc;

use tracing::{info, warn};

use super::setup::Senses;
use super::{ReloadReply, Shell};
use crate::config::Config;
use crate::control::Event;
use crate::io::depend::Dependencies;
use crate::io::keeper::chain;
use crate::io::spawner::client::Client;
use crate::io::spawner::protocol::StopSignal;
use crate::io::thermal::Thermal;

impl Shell {
    /// Reads the file again and hands it to the spawner, who has to agree.
    pub(super) async fn reload(&mut self, reply: ReloadReply, spawner: &Option<Client>) {
        match self.ask_spawner(spawner).await {
            Ok(config) => self.reloading = Some((config, reply)),
            Err(why) => answer(reply, Err(why)),
        }
    }

    async fn ask_spawner(&self, spawner: &Option<Client>) -> Result<Box<Config>, String> {
        if self.reloading.is_some() {
            return Err("a reload is on its way already".into());
        }
        let config = Config::load(&self.file).map_err(|error| chain(&error))?;
        if let Some(key) = fixed(&self.config, &config) {
            return Err(format!(
                "{key} cannot change while the agent runs; restart it"
            ));
        }
        let at_work = self.core.incidents().find(|incident| {
            incident.plan().is_some() && config.service(&incident.service).is_none()
        });
        if let Some(incident) = at_work {
            let (id, service) = (incident.id, &incident.service);
            return Err(format!(
                "a plan of incident {id} works on {service}, which is to go; ask again when it is over"
            ));
        }
        let client = spawner.as_ref().ok_or("the spawner cannot be reached")?;
        let sent = client.reload().await;
        sent.map_err(|error| chain(&error))?;
        Ok(Box::new(config))
    }

    /// The spawner has the new configuration: so has the loop.
    pub(super) async fn reloaded(&mut self) -> Option<Event> {
        let (config, reply) = self.reloading.take()?;
        let senses = match Senses::of(&config) {
            Ok(senses) => senses,
            Err(error) => {
                answer(reply, Err(chain(&error)));
                return None;
            }
        };
        if config.forwards != self.config.forwards
            && let Some(client) = &self.forwarder
            && let Err(error) = client.reload()
        {
            // It reads the file when it starts again.
            warn!("forwarder: {}", chain(&error));
        }
        self.prober = senses.prober;
        self.targets = senses.targets;
        self.probed = senses.probed;
        self.goldens = senses.goldens;
        self.logs.configure(&config);
        self.thermal = Thermal::new(&config.foresee);
        if config.dependencies != self.config.dependencies {
            self.dependencies = Dependencies::start(&config.dependencies);
        }
        self.config = Arc::new((*config).clone());
        let told = changes(&self.config);
        info!("configuration: {told}");
        answer(reply, Ok(told));
        Some(Event::Configured(config))
    }

    /// The spawner will not have it.
    pub(super) fn not_reloaded(&mut self, why: String) {
        // Without one nobody asked, or the answer came too late.
        if let Some((_, reply)) = self.reloading.take() {
            answer(reply, Err(why));
        }
    }

    /// Ends those who were asked to end and did not.
    pub(super) async fn end_retired(&mut self, spawner: &Option<Client>) {
        let now = tokio::time::Instant::now();
        let (due, waiting) = std::mem::take(&mut self.retiring)
            .into_iter()
            .partition(|(by, ..)| *by <= now);
        self.retiring = waiting;
        for (_, service, instance) in due {
            if let Some(client) = spawner {
                // One that has ended by itself is not there to be ended.
                let _ = client.signal(&service, instance, StopSignal::Kill).await;
            }
        }
    }
}

fn changes(config: &Config) -> String {
    format!(
        "{} services and {} forwards are in force; what changed is restarted",
        config.services.len(),
        config.forwards.len()
    )
}

fn answer(reply: ReloadReply, result: Result<String, String>) {
    match (reply, result) {
        (Some(reply), result) => {
            let _ = reply.send(result);
        }
        (None, Err(why)) => warn!("configuration: nothing has changed: {why}"),
        (None, Ok(_)) => {}
    }
}

/// A key that differs and cannot change while the agent runs.
fn fixed(former: &Config, config: &Config) -> Option<&'static str> {
    let keys = [
        ("node", former.node != config.node),
        ("mqtt", former.mqtt != config.mqtt),
        ("store", former.store != config.store),
        ("sample", former.sample != config.sample),
        ("clock", former.clock != config.clock),
        ("orders", former.orders != config.orders),
        ("webhook", former.webhooks != config.webhooks),
        ("intake", former.intake != config.intake),
        ("mcu", former.mcus != config.mcus),
    ];
    keys.into_iter()
        .find(|(_, differs)| *differs)
        .map(|(key, _)| key)
}
