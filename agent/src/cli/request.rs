//! `homeostat-agent do PLAN`, `readings` and `reload`: what a person asks of a running agent.
//!
//! The plan passes the gate and runs as a transaction, like one of the agent's
//! own; what restrains the agent itself (holds, observing only) does not restrain
//! a person. Needs the rights to the control socket and nothing else.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use homeostat_common::plan::Plan;
use homeostat_common::saga::{FleetPlan, SPAN};
use homeostat_common::wire::seal;
use homeostat_notify::in_words;

use crate::config::Config;
use crate::io::keeper::NO_HISTORY;
use crate::io::secret;
use crate::io::shell::control_path;
use crate::io::shell::question::{PARTS, READINGS, READINGS_JSON, is_across};

/// How long the agent may take to say whether the gate admits a plan.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How often its story is read while it runs.
const LOOK: Duration = Duration::from_millis(100);

/// Longest time that a plan is followed: the sum of the longest deadlines.
const FOLLOW_MAX: Duration = Duration::from_secs(3600);

/// Prints what the agent has measured last.
pub(super) fn readings(config: &Config, json: bool) -> anyhow::Result<()> {
    let text = ask(config, if json { READINGS_JSON } else { READINGS })?;
    println!("{}", text.trim_end());
    Ok(())
}

/// Asks, prints the story as it unfolds, and fails unless the plan was carried
/// out.
pub(super) fn run(config: &Config, plan: &str, quiet: bool) -> anyhow::Result<()> {
    if is_across(plan) {
        return across(config, plan, quiet);
    }
    let plan: Plan = plan.parse().context("not a plan")?;
    let answer = ask(config, &format!("do {plan}"))?;
    let answer: Result<String, String> =
        serde_json::from_str(&answer).context("the agent's answer cannot be read")?;
    let begun = match answer {
        Ok(begun) => begun,
        Err(why) => bail!("not done: {why}"),
    };
    let incident = begun.split(' ').next().unwrap_or_default().to_owned();
    if quiet {
        println!("{begun}");
        return Ok(());
    }
    let end = Instant::now() + FOLLOW_MAX;
    let mut shown = 0;
    while Instant::now() < end {
        let story = ask(config, &incident)?;
        // It could be followed for ever.
        anyhow::ensure!(
            !story.starts_with(NO_HISTORY),
            "the plan runs as incident {incident} and cannot be followed, as {}; \
             homeostat-agent status tells how its services do",
            story.trim_end()
        );
        print!("{}", story.get(shown..).unwrap_or_default());
        std::io::stdout().flush()?;
        shown = story.len();
        let closed = story
            .lines()
            .find(|line| line.contains(" capacity-seconds: "));
        if let Some(closed) = closed {
            anyhow::ensure!(
                // In an incident that was open it is a healing.
                [": done after", ": healed after"]
                    .iter()
                    .any(|end| closed.contains(end)),
                "the plan was not carried out"
            );
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    bail!(
        "incident {incident} is still open; homeostat-agent explain {incident} tells how it goes on"
    )
}

/// The same for a plan across nodes, which this one leads.
fn across(config: &Config, plan: &str, quiet: bool) -> anyhow::Result<()> {
    let plan: FleetPlan = plan.parse().context("not a plan")?;
    let answer = ask(config, &format!("do {plan}"))?;
    let answer: Result<String, String> =
        serde_json::from_str(&answer).context("the agent's answer cannot be read")?;
    let begun = match answer {
        Ok(begun) => begun,
        Err(why) => bail!("not done: {why}"),
    };
    println!("{begun}");
    let saga = begun.split(' ').nth(1).unwrap_or_default();
    let end = Instant::now() + Duration::from_millis(SPAN.0);
    while !quiet && Instant::now() < end {
        let parts = ask(config, PARTS)?;
        let mark = format!("saga {saga}: ");
        let told = parts
            .lines()
            .find_map(|line| line.trim().strip_prefix(&mark));
        if let Some(told) = told.filter(|told| !told.contains("led here")) {
            println!("{told}");
            anyhow::ensure!(told == "all done", "the plan was not carried out");
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    anyhow::ensure!(
        quiet,
        "saga {saga} is still open, and a person is called for it"
    );
    Ok(())
}

/// Prints what other nodes have to trust to take orders from this one.
pub(super) fn key(config: &Config) -> anyhow::Result<()> {
    let folder = &config.node.data_dir;
    let signer = secret::signer(folder);
    let signer = signer.with_context(|| format!("orders.key in {}", folder.display()))?;
    println!("# In agent.toml of the nodes that it may lead:\n[orders.trusted]");
    println!("{} = \"{}\"", config.node.id, seal::hex(&signer.key()));
    Ok(())
}

/// Asks for a reload. The file was read without complaint by this command; the
/// agent and its spawner look at it once more.
pub(super) fn reload(config: &Config) -> anyhow::Result<()> {
    let answer: Result<String, String> = serde_json::from_str(&ask(config, "reload")?)
        .context("the agent's answer cannot be read")?;
    match answer {
        Ok(told) => println!("{told}"),
        Err(why) => bail!("nothing has changed: {why}"),
    }
    Ok(())
}

pub(super) fn ask(config: &Config, question: &str) -> anyhow::Result<String> {
    let path = control_path(&config.node.run_dir);
    let agent = UnixStream::connect(&path)
        .with_context(|| format!("no agent answers on {}", path.display()))?;
    answer(agent, question.as_bytes(), ANSWER_TIME)
        .with_context(|| format!("the agent on {}", path.display()))
}

/// Asks over the control socket, and reads all of the answer.
pub(super) fn answer(
    mut agent: UnixStream,
    question: &[u8],
    limit: Duration,
) -> std::io::Result<String> {
    let late = |error| in_words(error, limit);
    agent.set_read_timeout(Some(limit))?;
    agent.set_write_timeout(Some(limit))?;
    agent.write_all(question).map_err(late)?;
    agent.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    agent.read_to_string(&mut text).map_err(late)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_says_nothing_is_told_as_such() {
        let (own, _agent) = UnixStream::pair().unwrap();
        let error = answer(own, b"status", Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 20 ms");
    }
}
