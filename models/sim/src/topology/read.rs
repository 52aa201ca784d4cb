//! A topology from its TOML text.
//!
//! In goes a text under a name; out comes a checked topology, or an error with file, line
//! and reason. The length of the text is judged before it is parsed, and how much there
//! is of everything before anything is built of it.

use core::fmt::Display;
use core::ops::Range;
use core::str::FromStr;

use homeostat_common::ids::InterfaceId;
use homeostat_common::net::SourceNet;
use toml::Spanned;

use super::raw::{RawNode, RawReplica, RawRoute, RawTopology};
use super::{
    BACKENDS_MAX, CALLS_MAX, Call, Errand, Habits, Link, LinkNo, LinkOf, NODES_MAX, Node, NodeNo,
    REPLICAS_MAX, RETRIES_MAX, ROUTES_MAX, Replica, ReplicaNo, Route, RouteNo, Site, SiteNo,
    Topology, Training, UPLINKS_MAX, Webhook,
};
use crate::text::{Source, TextError};

/// Longest text of a topology; [`NODES_MAX`] nodes with all that runs on them take half.
pub const TEXT_MAX: usize = 256 << 10;

impl Errand {
    /// How long it takes when the topology does not say, in seconds.
    fn usual_s(self) -> f64 {
        match self {
            Self::Reboot => 45.0,
            Self::Retrain => 60.0,
            Self::RollbackBinary => 14.0,
            Self::RestoreCheckpoint => 10.0,
            Self::FailoverBroker => 8.0,
            Self::RotateCredential => 5.0,
            Self::PauseRollout | Self::KillStranger => 2.0,
        }
    }
}

impl Topology {
    /// Reads and checks a topology.
    ///
    /// # Errors
    /// [`TextError`] with the place and the reason.
    pub fn read(file: &str, text: &str) -> Result<Self, TextError> {
        // Counted before the length, because it is the better reason.
        let mut heads = text.match_indices("[[node]]");
        if let Some((at, _)) = heads.nth(NODES_MAX) {
            let source = Source::new(file, text, usize::MAX)?;
            return Err(source.wrong(&(at..at), too_many("nodes", NODES_MAX)));
        }
        let source = Source::new(file, text, TEXT_MAX)?;
        let raw: RawTopology = source.read()?;
        let mut topology = Reader { source }.topology(raw)?;
        text.clone_into(&mut topology.text);
        Ok(topology)
    }
}

fn too_many(what: &str, max: usize) -> String {
    format!("there are more than {max} {what}")
}

/// Reads under the name of its text.
#[derive(Clone, Copy)]
struct Reader<'t> {
    source: Source<'t>,
}

impl Reader<'_> {
    fn topology(self, raw: RawTopology) -> Result<Topology, TextError> {
        self.amounts(&raw)?;
        let strangers = match &raw.strangers {
            Some(net) => self.parse(net)?,
            None => SourceNet::new([203, 0, 113, 0].into(), 24)
                .map_err(|wrong| self.source.wrong(&(0..0), wrong.to_string()))?,
        };
        let mut topology = Topology {
            name: raw.name,
            text: String::new(),
            sites: Vec::with_capacity(raw.site.len()),
            nodes: Vec::with_capacity(raw.node.len()),
            links: Vec::new(),
            routes: Vec::with_capacity(raw.route.len()),
            replicas: Vec::new(),
            webhooks: Vec::new(),
            training: None,
            habits: Habits::default(),
            strangers,
            order: Vec::new(),
        };
        for site in &raw.site {
            let name = self.parse(&site.name)?;
            self.fresh(&site.name, topology.site_no(&name).is_ok())?;
            let lan = LinkNo::new(0);
            topology.sites.push(Site { name, lan });
        }
        for node in &raw.node {
            self.node(node, &mut topology)?;
        }
        for (at, site) in raw.site.iter().enumerate() {
            topology.sites[at].lan = LinkNo::new(topology.links.len());
            topology.links.push(Link {
                name: format!("{}/lan", site.name.get_ref()),
                of: LinkOf::Lan(SiteNo::new(at)),
                delay_ms: self.or(site.lan_ms.as_ref(), 0.3, 0.0..=1000.0)?,
                loss: 0.0,
            });
        }
        for route in &raw.route {
            self.route(route, &mut topology)?;
        }
        for (at, route) in raw.route.iter().enumerate() {
            self.calls(at, route, &mut topology)?;
        }
        for hook in &raw.webhook {
            let name = self.parse(&hook.name)?;
            self.fresh(&hook.name, topology.webhook_at(&name).is_ok())?;
            let seconds = self.or(hook.seconds.as_ref(), hook.does.usual_s(), 0.1..=3600.0)?;
            let does = hook.does;
            topology.webhooks.push(Webhook {
                name,
                does,
                seconds,
            });
        }
        if let Some(habits) = &raw.habits {
            let usual = Habits::default();
            topology.habits = Habits {
                retries: self.or(
                    habits.retries.as_ref(),
                    usual.retries,
                    0.0..=RETRIES_MAX as f64,
                )?,
                retry_s: self.or(habits.retry_s.as_ref(), usual.retry_s, 0.1..=3600.0)?,
                patience_ms: self.or(habits.patience_ms.as_ref(), usual.patience_ms, 1.0..=1e6)?,
                timeout_ms: self.or(habits.timeout_ms.as_ref(), usual.timeout_ms, 1.0..=1e6)?,
                deeds: self.or(habits.deeds.as_ref(), usual.deeds, 0.01..=100.0)?,
                warm_s: self.or(habits.warm_s.as_ref(), usual.warm_s, 0.1..=86_400.0)?,
                signed: self.or(habits.signed.as_ref(), usual.signed, 0.0..=1.0)?,
                thrash: self.or(habits.thrash.as_ref(), usual.thrash, 0.0..=1000.0)?,
                daily: self.or(habits.daily.as_ref(), usual.daily, 0.0..=1.0)?,
                in_turn: habits.in_turn,
            };
        }
        if let Some(training) = &raw.training {
            let worker = |name| self.known(name, |id| topology.node_no(id));
            topology.training = Some(Training {
                workers: training
                    .workers
                    .iter()
                    .map(worker)
                    .collect::<Result<_, _>>()?,
                cores: self.number(&training.cores, 0.01..=1024.0)?,
                memory_mb: self.number(&training.memory_mb, 1.0..=1e6)?,
                checkpoint_s: self.number(&training.checkpoint_s, 1.0..=86_400.0)?,
            });
        }
        self.fits(&raw.node, &topology)?;
        topology.order = self.order(&raw.route, &topology)?;
        Ok(topology)
    }

    /// How much there is of everything.
    fn amounts(self, raw: &RawTopology) -> Result<(), TextError> {
        let first = || {
            let nodes = raw.node.first().map(|node| node.name.span());
            nodes.unwrap_or(0..0)
        };
        let at_most = |count: usize, max: usize, what: &str, at: Range<usize>| {
            if count > max {
                Err(self.source.wrong(&at, too_many(what, max)))
            } else {
                Ok(())
            }
        };
        at_most(raw.node.len(), NODES_MAX, "nodes", first())?;
        at_most(raw.site.len(), NODES_MAX, "sites", first())?;
        at_most(raw.route.len(), ROUTES_MAX, "routes", first())?;
        at_most(raw.webhook.len(), ROUTES_MAX, "webhooks", first())?;
        for node in &raw.node {
            let uplinks = node.uplinks.get_ref().len();
            at_most(
                uplinks,
                UPLINKS_MAX,
                "uplinks of one node",
                node.uplinks.span(),
            )?;
            if uplinks == 0 {
                return Err(self
                    .source
                    .wrong(&node.uplinks.span(), "a node needs an uplink"));
            }
        }
        let mut replicas = 0;
        for route in &raw.route {
            let at = || route.name.span();
            at_most(
                route.replicas.len(),
                BACKENDS_MAX,
                "replicas of one route",
                at(),
            )?;
            at_most(route.calls.len(), CALLS_MAX, "calls of one route", at())?;
            replicas += route.replicas.len();
            at_most(replicas, REPLICAS_MAX, "replicas", at())?;
        }
        let none = [
            (raw.node.is_empty(), "there is no node"),
            (raw.route.is_empty(), "there is no route"),
        ];
        match none.iter().find(|(none, _)| *none) {
            Some((_, reason)) => Err(self.source.wrong(&(0..0), *reason)),
            None => Ok(()),
        }
    }

    fn node(self, raw: &RawNode, topology: &mut Topology) -> Result<(), TextError> {
        let name = self.parse(&raw.name)?;
        self.fresh(&raw.name, topology.node_no(&name).is_ok())?;
        let site = self.known(&raw.site, |id| topology.site_no(id))?;
        let no = NodeNo::new(topology.nodes.len());
        let mut uplinks = Vec::with_capacity(raw.uplinks.get_ref().len());
        for uplink in raw.uplinks.get_ref() {
            let interface: InterfaceId = self.parse(&uplink.name)?;
            let link = format!("{name}/{interface}");
            self.fresh(&uplink.name, topology.link_no(&link).is_ok())?;
            uplinks.push(LinkNo::new(topology.links.len()));
            topology.links.push(Link {
                name: link,
                of: LinkOf::Uplink(no, interface),
                delay_ms: self.number(&uplink.delay_ms, 0.0..=10_000.0)?,
                loss: self.or(uplink.loss.as_ref(), 0.0, 0.0..=0.5)?,
            });
        }
        topology.nodes.push(Node {
            name,
            site,
            cores: self.number(&raw.cores, 0.1..=1024.0)?,
            memory_mb: self.number(&raw.memory_mb, 1.0..=1e8)?,
            system_mb: self.or(raw.system_mb.as_ref(), 500.0, 0.0..=1e8)?,
            disk_mb: self.or(raw.disk_mb.as_ref(), 16_000.0, 1.0..=1e9)?,
            disk_used_mb: self.or(raw.disk_used_mb.as_ref(), 6000.0, 0.0..=1e9)?,
            inodes: self.or(raw.inodes.as_ref(), 1e6, 1.0..=1e12)?,
            ambient_c: self.or(raw.ambient_c.as_ref(), 28.0, -40.0..=70.0)?,
            rth: self.or(raw.rth.as_ref(), 5.0, 0.0..=100.0)?,
            rth_dead: self.or(raw.rth_dead.as_ref(), 9.5, 0.0..=100.0)?,
            battery_wh: match &raw.battery_wh {
                Some(wh) => Some(self.number(wh, 0.1..=1e6)?),
                None => None,
            },
            uplinks,
            replicas: Vec::new(),
        });
        Ok(())
    }

    fn route(self, raw: &RawRoute, topology: &mut Topology) -> Result<(), TextError> {
        let name = self.parse(&raw.name)?;
        self.fresh(&raw.name, topology.route_no(&name).is_ok())?;
        let no = RouteNo::new(topology.routes.len());
        let outside_ms = match &raw.outside_ms {
            Some(ms) => Some(self.number(ms, 0.0..=60_000.0)?),
            None => None,
        };
        let rate = match (&raw.rate, outside_ms) {
            (Some(rate), _) => self.number(rate, 0.001..=1e6)?,
            // Never saturated.
            (None, Some(_)) => 1e6,
            (None, None) => {
                return Err(self.source.wrong(&raw.name.span(), "a route needs a rate"));
            }
        };
        let mut replicas = Vec::with_capacity(raw.replicas.len());
        for replica in &raw.replicas {
            replicas.push(ReplicaNo::new(topology.replicas.len()));
            self.replica(no, replica, topology)?;
        }
        let ready = raw.replicas.iter().filter(|replica| !replica.standby);
        if (ready.count() == 0) != outside_ms.is_some() {
            let reason = "a route has replicas that are no standbys, or is somebody else's";
            return Err(self.source.wrong(&raw.name.span(), reason));
        }
        topology.routes.push(Route {
            name,
            at: self.known(&raw.at, |id| topology.node_no(id))?,
            demand: self.or(raw.demand.as_ref(), 0.0, 0.0..=1e6)?,
            rate,
            cores: self.or(raw.cores.as_ref(), 1.0, 0.0..=1024.0)?,
            memory_mb: self.or(raw.memory_mb.as_ref(), 200.0, 0.0..=1e8)?,
            start_s: self.or(raw.start_s.as_ref(), 4.0, 0.01..=3600.0)?,
            kb: self.or(raw.kb.as_ref(), 8.0, 0.001..=1e6)?,
            model: raw.model,
            stateful: raw.stateful,
            writes: raw.writes,
            hit: self.or(raw.hit.as_ref(), 0.0, 0.0..=1.0)?,
            outside_ms,
            offers: raw.offers.clone(),
            calls: Vec::with_capacity(raw.calls.len()),
            replicas,
        });
        Ok(())
    }

    fn replica(
        self,
        route: RouteNo,
        raw: &RawReplica,
        topology: &mut Topology,
    ) -> Result<(), TextError> {
        let name = self.parse(&raw.name)?;
        self.fresh(&raw.name, topology.replica_no(&name).is_ok())?;
        let node = self.known(&raw.node, |id| topology.node_no(id))?;
        let no = ReplicaNo::new(topology.replicas.len());
        topology.nodes[node.at()].replicas.push(no);
        topology.replicas.push(Replica {
            name,
            node,
            route,
            standby: raw.standby,
            weight: self.or(raw.weight.as_ref(), 1.0, 0.001..=1000.0)?,
            data_mb: self.or(raw.data_mb.as_ref(), 200.0, 0.0..=1e9)?,
            quota_mb: self.or(raw.quota_mb.as_ref(), 1000.0, 1.0..=1e9)?,
        });
        Ok(())
    }

    fn calls(self, at: usize, raw: &RawRoute, topology: &mut Topology) -> Result<(), TextError> {
        for call in &raw.calls {
            let to = self.known(&call.to, |id| topology.route_no(id))?;
            let own = &topology.routes[at].calls;
            self.fresh(&call.to, own.iter().any(|other| other.to == to))?;
            let behind = match &call.behind {
                None => None,
                Some(name) => {
                    let cache = self.known(name, |id| topology.route_no(id))?;
                    let called = own.iter().any(|other| other.to == cache);
                    if !called || topology.routes[cache.at()].hit == 0.0 {
                        let reason = "behind names a cache that is called before";
                        return Err(self.source.wrong(&name.span(), reason));
                    }
                    Some(cache)
                }
            };
            let call = Call {
                to,
                share: self.or(call.share.as_ref(), 1.0, 0.0001..=100.0)?,
                behind,
                needed: call.needed,
            };
            topology.routes[at].calls.push(call);
        }
        Ok(())
    }

    /// Whether each node has the memory for what it runs.
    fn fits(self, raw: &[RawNode], topology: &Topology) -> Result<(), TextError> {
        for (raw, node) in raw.iter().zip(&topology.nodes) {
            let of = |replica: &ReplicaNo| {
                let route = topology.replicas[replica.at()].route;
                topology.routes[route.at()].memory_mb
            };
            let needed = node.system_mb + node.replicas.iter().map(of).sum::<f64>();
            if needed > node.memory_mb {
                let reason = format!(
                    "what runs here needs {needed} MB of memory, there are {}",
                    node.memory_mb
                );
                return Err(self.source.wrong(&raw.name.span(), reason));
            }
        }
        Ok(())
    }

    /// Callers before those they call.
    fn order(self, raw: &[RawRoute], topology: &Topology) -> Result<Vec<RouteNo>, TextError> {
        let count = topology.routes.len();
        let mut callers = vec![0_u32; count];
        for call in topology.routes.iter().flat_map(|route| &route.calls) {
            callers[call.to.at()] += 1;
        }
        let mut order = Vec::with_capacity(count);
        let mut placed = vec![false; count];
        while let Some(next) = (0..count).find(|at| callers[*at] == 0 && !placed[*at]) {
            placed[next] = true;
            order.push(RouteNo::new(next));
            for call in &topology.routes[next].calls {
                callers[call.to.at()] -= 1;
            }
        }
        match (0..count).find(|at| !placed[*at]) {
            None => Ok(order),
            Some(at) => {
                let name = &raw[at].name;
                let reason = format!("route {} is on or behind a cycle of calls", name.get_ref());
                Err(self.source.wrong(&name.span(), reason))
            }
        }
    }

    /// A name that was not there before.
    fn fresh(self, name: &Spanned<String>, taken: bool) -> Result<(), TextError> {
        if taken {
            let reason = format!("{} is there twice", name.get_ref());
            return Err(self.source.wrong(&name.span(), reason));
        }
        Ok(())
    }

    /// A text that is something.
    fn parse<T: FromStr<Err: Display>>(self, text: &Spanned<String>) -> Result<T, TextError> {
        let wrong = |wrong: T::Err| {
            let reason = format!("{:?}: {wrong}", text.get_ref());
            self.source.wrong(&text.span(), reason)
        };
        text.get_ref().parse().map_err(wrong)
    }

    /// The number of what has this name.
    fn known<I: FromStr<Err: Display>, N, E: Display>(
        self,
        name: &Spanned<String>,
        find: impl Fn(&I) -> Result<N, E>,
    ) -> Result<N, TextError> {
        let id = self.parse(name)?;
        find(&id).map_err(|unknown| self.source.wrong(&name.span(), unknown.to_string()))
    }

    fn number(
        self,
        number: &Spanned<f64>,
        within: core::ops::RangeInclusive<f64>,
    ) -> Result<f64, TextError> {
        let value = *number.get_ref();
        // Not a number is in no range.
        if within.contains(&value) {
            return Ok(value);
        }
        let reason = format!("{value} is not from {} to {}", within.start(), within.end());
        Err(self.source.wrong(&number.span(), reason))
    }

    fn or(
        self,
        number: Option<&Spanned<f64>>,
        usual: f64,
        within: core::ops::RangeInclusive<f64>,
    ) -> Result<f64, TextError> {
        number.map_or(Ok(usual), |number| self.number(number, within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = \"small\"

[[site]]
name = \"yard\"

[[node]]
name = \"a\"
site = \"yard\"
cores = 2
memory_mb = 1000
uplinks = [{ name = \"eth0\", delay_ms = 5 }]

[[route]]
name = \"web\"
at = \"a\"
demand = 10
rate = 50
calls = [{ to = \"db\", share = 0.5 }]
replicas = [{ name = \"web-1\", node = \"a\" }]

[[route]]
name = \"db\"
at = \"a\"
rate = 50
replicas = [{ name = \"db-1\", node = \"a\" }]
";

    fn refused(text: &str) -> String {
        Topology::read("f.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_what_is_there() {
        let topology = Topology::read("f.toml", SMALL).unwrap();
        assert_eq!(topology.nodes.len(), 1);
        assert_eq!(topology.links.len(), 2);
        assert_eq!(topology.link_no("yard/lan"), Ok(topology.sites[0].lan));
        assert_eq!(topology.order, [RouteNo::new(0), RouteNo::new(1)]);
        assert_eq!(topology.routes[0].calls[0].share, 0.5);
        assert_eq!(topology.replicas[1].route, RouteNo::new(1));
    }

    #[test]
    fn what_is_wrong_is_refused_with_file_line_and_reason() {
        let cases = [
            (
                "rate = 50\ncalls",
                "rate = -3\ncalls",
                "f.toml:17: -3 is not from 0.001 to 1000000",
            ),
            (
                "rate = 50\ncalls",
                "rate = nan\ncalls",
                "f.toml:17: NaN is not from",
            ),
            ("demand = 10", "demand = inf", "f.toml:16: inf is not from"),
            (
                "site = \"yard\"",
                "site = \"sea\"",
                "f.toml:8: topology small has no site sea",
            ),
            (
                "to = \"db\"",
                "to = \"dc\"",
                "f.toml:18: topology small has no route dc",
            ),
            (
                "name = \"db-1\"",
                "name = \"web-1\"",
                "f.toml:25: web-1 is there twice",
            ),
            (
                "name = \"a\"\n",
                "name = \"A\"\n",
                "f.toml:7: \"A\": a name may hold",
            ),
            (
                "memory_mb = 1000",
                "memory_mb = 700",
                "f.toml:7: what runs here needs 900 MB",
            ),
            ("cores = 2", "cpus = 2", "f.toml:9: unknown field `cpus`"),
            ("cores = 2", "cores = \"2\"", "f.toml:9: invalid type"),
            ("name = \"eth0\", ", "", "f.toml:11: missing field `name`"),
            (
                "[{ name = \"eth0\", delay_ms = 5 }]",
                "[]",
                "f.toml:11: a node needs an uplink",
            ),
            (
                "share = 0.5 }",
                "share = 0.5, behind = \"db\" }",
                "f.toml:18: behind names a cache that is called before",
            ),
            (
                "node = \"a\" }]\n\n",
                "node = \"a\", standby = true }]\n\n",
                "f.toml:14: a route has replicas that are no standbys",
            ),
            (
                "rate = 50\nreplicas",
                "rate = 50\ncalls = [{ to = \"web\" }]\nreplicas",
                "f.toml:14: route web is on or behind a cycle of calls",
            ),
            ("name = \"small\"", "name = ", "f.toml:1: "),
        ];
        for (right, wrong, expected) in cases {
            let text = SMALL.replacen(right, wrong, 1);
            assert_ne!(text, SMALL, "{right}");
            let error = refused(&text);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn habits_are_the_usual_ones_but_for_those_that_are_given() {
        assert_eq!(Topology::reference().habits(), &Habits::default());
        let text = format!("{SMALL}\n[habits]\nretries = 1\nin_turn = true\n");
        let habits = Habits {
            retries: 1.0,
            in_turn: true,
            ..Habits::default()
        };
        assert_eq!(Topology::read("f.toml", &text).unwrap().habits(), &habits);
        let wrong = refused(&text.replace("retries = 1", "retry_s = -1"));
        let line = 2 + SMALL.lines().count() + 1;
        assert!(wrong.contains(&format!("f.toml:{line}")), "{wrong}");
        assert!(refused(&text.replace("retries", "tries")).contains("tries"));
    }

    #[test]
    fn a_million_nodes_are_refused_before_they_are_read() {
        let million = format!("name = \"many\"\n{}", "[[node]]\n".repeat(1_000_000));
        assert_eq!(
            refused(&million),
            "f.toml:258: there are more than 256 nodes"
        );
        let long = format!("name = \"long\"\nnode = [{}]", "{},".repeat(1_000_000));
        assert_eq!(
            refused(&long),
            "f.toml:2: 3000023 bytes are more than 262144"
        );
        let inline =
            SMALL.to_owned() + &"[[webhook]]\nname = \"w\"\ndoes = \"reboot\"\n".repeat(300);
        assert!(refused(&inline).ends_with("there are more than 256 webhooks"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(at in 0..SMALL.len(), with in "[\\PC]{0,8}", cut in 0usize..9) {
            let mut text = SMALL.to_owned();
            let end = (at + cut).min(text.len());
            text.replace_range(at..end, &with);
            let _ = Topology::read("f.toml", &text);
        }
    }
}
