//! The families: how two things that are wrong are bound, and how in the twin.

use super::super::draw::Draw;
use super::super::grammar::{
    Coupling, Fault, Incident, Mechanism, Place as Kind, Step, Visibility,
};
use super::Composed;
use super::parts::{Base, Place, cue, fault, for_good};
use crate::observe::Template;
use crate::policy::{Kind as Do, Whom};
use crate::topology::{Offer, Route};

macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident),+ $(,)?) => {
        /// How what is wrong is bound to the repair.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Family { $($(#[$doc])* $variant),+ }

        impl Family {
            const ALL: &[Self] = &[$(Self::$variant),+];
        }
    };
}

families! {
    /// Nothing is bound to anything.
    Plain,
    /// A clock is off: it has to be right before anything new is taken, or must stay.
    Clock,
    /// An uplink is lossy or slow: before tries get lost on it, or only with the new.
    Link,
    /// Nobody leads: that first, or the base.
    Leader,
    /// A roll-out pushes it again, or brings the other half.
    Push,
    /// Another healer puts it back, or keeps it bearable.
    Healer,
    /// Program and configuration belong together.
    Halves,
    /// What is in memory is on no disk, or the disk has no room for a copy.
    Copy,
    /// Nothing can be written before there is room, or what goes is the last copy.
    Room,
    /// What a model would learn from is rubbish, or is all there is.
    Rubbish,
}

impl Family {
    /// All with couplings.
    pub(super) const COUPLED: &[Self] = Self::ALL.split_at(1).1;

    /// What keeps the service from working in it.
    pub(super) fn bases(self) -> &'static [Base] {
        match self {
            Self::Plain => Base::ALL,
            Self::Clock | Self::Link | Self::Leader => &[Base::Credential, Base::Binary],
            Self::Push => &[Base::Binary, Base::Config, Base::Model],
            Self::Healer => &[Base::Binary, Base::Config],
            Self::Halves => &[Base::Binary],
            Self::Copy => &[Base::Hang, Base::Threads, Base::Slow],
            Self::Room => &[Base::Config],
            Self::Rubbish => &[Base::Drift],
        }
    }

    /// Whether a service can be its place.
    pub(super) fn fits(self, route: &Route) -> bool {
        match self {
            Self::Leader => route.stateful,
            Self::Copy => route.offers.contains(&Offer::Snapshot),
            Self::Room => route.offers.contains(&Offer::Prune),
            _ => true,
        }
    }

    /// Whether it is too short alone.
    pub(super) fn needs_extra(self) -> bool {
        self == Self::Rubbish
    }
}

/// The incident of a family at a place, and its twin.
pub(super) fn of(family: Family, draw: &mut Draw, place: &mut Place<'_>) -> Option<Vec<Composed>> {
    let (base, about) = place.base(draw);
    let mut make = Make {
        place,
        draw,
        base,
        about,
    };
    match family {
        Family::Plain => Some(vec![
            make.with(make.incident("", "", Vec::new()), Vec::new()),
        ]),
        Family::Clock => make.clock(),
        Family::Link => make.link(),
        Family::Leader => make.leader(),
        Family::Push => make.push(),
        Family::Healer => make.healer(),
        Family::Halves => make.halves(),
        Family::Copy => make.copy(),
        Family::Room => make.room(),
        Family::Rubbish => make.rubbish(),
    }
}

struct Make<'m, 't> {
    place: &'m mut Place<'t>,
    draw: &'m mut Draw,
    base: Fault,
    about: String,
}

fn breaks(on: Step, unless: Option<Step>) -> Coupling {
    Coupling::Breaks {
        on,
        unless,
        then: "harm".to_owned(),
    }
}

impl Make<'_, '_> {
    /// The base with others before it.
    fn incident(&self, how: &str, about: &str, before: Vec<Fault>) -> Incident {
        let base = self.place.base.name();
        let parts = [base, how, self.place.name()];
        let parts = parts.iter().filter(|part| !part.is_empty());
        let mut faults = before;
        faults.push(self.base.clone());
        // What is brought comes last, as it does in time.
        faults.sort_by_key(|fault| fault.id == "harm");
        Incident {
            name: parts.copied().collect::<Vec<_>>().join("-"),
            about: format!("{} {about}", self.about).trim().to_owned(),
            faults,
            ..Incident::default()
        }
    }

    /// With what comes before the repair of the base.
    fn with(&self, incident: Incident, mut before: Vec<(Do, Whom)>) -> Composed {
        before.extend(self.place.repair());
        Composed {
            incident,
            repair: before,
        }
    }

    /// With what comes after the first step of the repair of the base.
    fn with_between(&self, incident: Incident, step: (Do, Whom)) -> Composed {
        let mut repair = self.place.repair();
        repair.insert(1.min(repair.len()), step);
        Composed { incident, repair }
    }

    fn on_base(mut incident: Incident, coupling: &Coupling) -> Incident {
        for fault in &mut incident.faults {
            if fault.id == "base" {
                fault.couplings.push(coupling.clone());
            }
        }
        incident
    }

    /// Something that has to be mended before the base, and in the twin after it.
    fn before_and_after(
        &mut self,
        lead: Fault,
        on: (Step, Do),
        words: [&str; 3],
    ) -> Option<Vec<Composed>> {
        let step = self.place.base.step();
        let (harm, lost) = self.place.harm(self.draw, "harm")?;
        let mut first = lead.clone();
        first.couplings.push(for_good(step));
        let mut last = lead;
        last.couplings.push(breaks(on.0, Some(step)));
        last.cues.push(match self.place.base {
            Base::Credential => cue(Template::CertificateNotice, 0.3),
            _ => cue(Template::DeprecatedField, 0.4),
        });
        let [name, what, short] = words;
        let one = self.incident(
            &format!("after-{name}"),
            &format!("{what} Before that is mended nothing new is taken, and tries lock out."),
            vec![first],
        );
        let twin = self.incident(
            &format!("before-{name}"),
            &format!("{what} {short} first, {lost}."),
            vec![last, harm],
        );
        let lead = (on.1, Whom::Node(self.place.node));
        Some(vec![
            self.with(one, vec![lead]),
            self.with_between(twin, lead),
        ])
    }

    fn clock(&mut self) -> Option<Vec<Composed>> {
        let node = self.place.node_name();
        let strength = self.draw.round(0.3, 0.8, 0.05);
        let lead = fault("clock", Mechanism::Skew, Kind::Node, node, strength);
        let what = format!("The clock of {node} is ahead.");
        self.before_and_after(
            lead,
            (Step::SyncClock, Do::SyncClock),
            ["clock", &what, "If it is set"],
        )
    }

    fn link(&mut self) -> Option<Vec<Composed>> {
        let link = self.place.link_name()?;
        let lossy = self.draw.often(0.5);
        let mechanism = if lossy {
            Mechanism::Lose
        } else {
            Mechanism::Delay
        };
        let strength = self.draw.round(0.6, 0.85, 0.05);
        let lead = fault("link", mechanism, Kind::Link, link, strength);
        let what = format!(
            "{link} {}.",
            if lossy {
                "loses packets"
            } else {
                "answers late"
            }
        );
        self.before_and_after(
            lead,
            (Step::SwitchUplink, Do::SwitchUplink),
            ["link", &what, "If another is taken"],
        )
    }

    fn leader(&mut self) -> Option<Vec<Composed>> {
        let name = self.place.name();
        let strength = self.draw.round(0.5, 0.8, 0.05);
        let step = self.place.base.step();
        let mut first = fault("leader", Mechanism::Die, Kind::Broker, name, strength);
        let last = first.clone();
        first.couplings.push(for_good(step));
        first.cues.push(cue(Template::ReplicaLag, 0.25));
        let what = format!("{name} has no leader.");
        let one = self.incident(
            "after-leader",
            &format!("{what} Only one who leads takes what is new, and tries lock out."),
            vec![first],
        );
        let twin = self.incident(
            "before-leader",
            &format!("{what} With what is there now nobody can lead, and tries lock out."),
            vec![last],
        );
        let twin = Self::on_base(twin, &for_good(Step::FailoverBroker));
        let leads = (Do::FailoverBroker, Whom::Route(self.place.route));
        Some(vec![
            self.with(one, vec![leads]),
            self.with_between(twin, leads),
        ])
    }

    fn push(&mut self) -> Option<Vec<Composed>> {
        let name = self.place.name();
        let kind = if self.place.base == Base::Model {
            Kind::Model
        } else {
            Kind::Service
        };
        let mut push = fault("push", Mechanism::Push, kind, name, 0.5);
        push.visibility = Visibility::Grey;
        let after = self.draw.round(10.0, 20.0, 5.0);
        let one = self.incident(
            "pushed",
            "A roll-out puts it there again and again.",
            vec![push],
        );
        let one = Self::on_base(
            one,
            &Coupling::Returns {
                unless: "push".to_owned(),
                after,
            },
        );
        let (harm, lost) = self.place.harm(self.draw, "harm")?;
        let twin = self.incident(
            "by-hand",
            &format!(
                "It came by hand; a roll-out brings what else is needed. If that is paused, {lost}."
            ),
            vec![harm],
        );
        let twin = Self::on_base(twin, &breaks(Step::PauseRollout, None));
        let pause = (Do::PauseRollout, Whom::All);
        Some(vec![
            self.with(one, vec![pause]),
            self.with(twin, Vec::new()),
        ])
    }

    fn healer(&mut self) -> Option<Vec<Composed>> {
        let name = self.place.name();
        let mut healer = fault("healer", Mechanism::Compete, Kind::Service, name, 0.9);
        healer.visibility = Visibility::Grey;
        let after = self.draw.round(5.0, 15.0, 5.0);
        let one = self.incident(
            "after-healer",
            "Another automation puts it back, and stops what runs without it.",
            vec![healer.clone()],
        );
        let one = Self::on_base(
            one,
            &Coupling::Returns {
                unless: "healer".to_owned(),
                after,
            },
        );
        let (harm, lost) = self.place.harm(self.draw, "harm")?;
        let step = self.place.base.step();
        healer
            .couplings
            .push(breaks(Step::PauseRollout, Some(step)));
        let twin = self.incident(
            "before-healer",
            &format!("Another automation restarts it before it does more harm. If that is paused first, {lost}."),
            vec![healer, harm],
        );
        let pause = (Do::PauseRollout, Whom::All);
        Some(vec![
            self.with(one, vec![pause]),
            self.with_between(twin, pause),
        ])
    }

    fn halves(&mut self) -> Option<Vec<Composed>> {
        let (harm, lost) = self.place.harm(self.draw, "harm")?;
        let one = self.incident(
            "after-config",
            &format!("It came with a configuration that the one before cannot read: {lost}."),
            vec![harm.clone()],
        );
        let one = Self::on_base(one, &breaks(Step::PutBinary, Some(Step::PutConfig)));
        let twin = self.incident(
            "not-config",
            &format!(
                "The configuration before knows nothing of what it has stored. Put back, {lost}."
            ),
            vec![harm],
        );
        let mut twin = Self::on_base(twin, &breaks(Step::PutConfig, None));
        for base in twin.faults.iter_mut().filter(|fault| fault.id == "base") {
            base.cues.push(cue(Template::DeprecatedField, 0.4));
        }
        Some(vec![
            self.with(one, self.place.at_first(Do::RollbackConfig)),
            self.with(twin, Vec::new()),
        ])
    }

    fn copy(&mut self) -> Option<Vec<Composed>> {
        let (harm, lost) = self.place.harm(self.draw, "harm")?;
        let one = self.incident(
            "copy-first",
            &format!("What it has in memory is on no disk: without a copy, {lost}."),
            vec![harm.clone()],
        );
        let one = Self::on_base(one, &breaks(Step::Restart, Some(Step::Snapshot)));
        let twin = self.incident(
            "no-copy",
            &format!("A copy would fill the disk, and {lost}."),
            vec![harm],
        );
        let twin = Self::on_base(twin, &breaks(Step::Snapshot, None));
        Some(vec![
            self.with(one, self.place.at_first(Do::Snapshot)),
            self.with(twin, Vec::new()),
        ])
    }

    fn room(&mut self) -> Option<Vec<Composed>> {
        let disk = |(at, replica): (usize, &&str)| {
            fault(
                &format!("disk-{at}"),
                Mechanism::LeakDisk,
                Kind::File,
                replica,
                0.02,
            )
        };
        let disks: Vec<Fault> = self.place.replicas().iter().enumerate().map(disk).collect();
        let mut full = disks.clone();
        for disk in &mut full {
            disk.couplings.push(for_good(Step::PutConfig));
        }
        let one = self.incident(
            "after-room",
            "The disks are full: nothing can be put back before there is room, and tries lock out.",
            full,
        );
        let (harm, lost) = self.place.harm(self.draw, "harm")?;
        let mut last = disks;
        for disk in &mut last {
            disk.couplings
                .push(breaks(Step::Prune, Some(Step::PutConfig)));
            disk.cues.push(cue(Template::LastCopy, 0.3));
        }
        last.push(harm);
        let twin = self.incident(
            "before-room",
            &format!(
                "The disks fill, and what could be deleted is the last copy. Without it, {lost}."
            ),
            last,
        );
        let mut twin = self.with(twin, Vec::new());
        twin.repair.extend(self.place.at_each(Do::PruneData));
        Some(vec![
            self.with(one, self.place.at_each(Do::PruneData)),
            twin,
        ])
    }

    fn rubbish(&mut self) -> Option<Vec<Composed>> {
        let name = self.place.name();
        let strength = self.draw.round(0.6, 0.8, 0.05);
        let input = fault(
            "input",
            Mechanism::CorruptInput,
            Kind::Service,
            name,
            strength,
        );
        let (mut harm, _) = self.place.harm(self.draw, "harm")?;
        if self.draw.often(0.5) {
            harm = fault("harm", Mechanism::CorruptModel, Kind::Model, name, 0.8);
            harm.trigger.cause = super::super::grammar::Cause::Coupled;
            harm.couplings.push(for_good(Step::PutModel));
            harm.couplings.push(for_good(Step::Retrain));
        }
        let one = self.incident(
            "after-rubbish",
            "A stranger feeds rubbish, and a model that is trained on it has learned it for good.",
            vec![input, harm.clone()],
        );
        let one = Self::on_base(one, &breaks(Step::Retrain, Some(Step::BlockSource)));
        let twin = self.incident(
            "on-what-there-is",
            "What looks like rubbish are the new inputs; kept out, there is nothing to learn from.",
            vec![harm],
        );
        let mut twin = Self::on_base(twin, &breaks(Step::BlockSource, None));
        for base in twin.faults.iter_mut().filter(|fault| fault.id == "base") {
            base.visibility = Visibility::Misleading(Mechanism::CorruptInput);
        }
        let block = (Do::BlockSource, Whom::Route(self.place.route));
        Some(vec![
            self.with(one, vec![block]),
            self.with(twin, Vec::new()),
        ])
    }
}
