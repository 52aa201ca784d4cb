//! The numbers of trial and error, as data.
//!
//! In goes a TOML text, out come [`Weights`] and where they are from; what comes with the
//! simulator is `policies/trial.toml`, written by the tuner of `homeostat-eval tune`, which
//! sees the training set alone. [`Weights::by_hand`] is where it began.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use super::Kind;
use crate::text::{Source, TextError};

/// Longest text of weights; they are about sixty lines.
const TEXT_MAX: usize = 16 << 10;

macro_rules! weights {
    ($($(#[$doc:meta])* $name:ident = $by_hand:literal;)+) => {
        /// The numbers of trial and error.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Weights {
            /// What speaks for a kind of step by itself, by the order of [`Kind::ALL`].
            pub bias: [f64; Kind::ALL.len()],
            $($(#[$doc])* pub $name: f64,)+
        }

        /// Names of those that are no bias.
        const NAMES: &[&str] = &[$(stringify!($name)),+];

        impl Weights {
            /// All of them in a row, for a tuner.
            #[must_use]
            pub fn to_array(&self) -> [f64; WEIGHTS] {
                let mut all = [0.0; WEIGHTS];
                let (bias, rest) = all.split_at_mut(self.bias.len());
                bias.copy_from_slice(&self.bias);
                rest.copy_from_slice(&[$(self.$name),+]);
                all
            }

            /// From a row.
            #[must_use]
            pub fn from_array(all: &[f64; WEIGHTS]) -> Self {
                let mut bias = [0.0; Kind::ALL.len()];
                let (first, rest) = all.split_at(bias.len());
                bias.copy_from_slice(first);
                let mut rest = rest.iter().copied();
                Self { bias, $($name: rest.next().unwrap_or(0.0)),+ }
            }

            /// Set by hand, not tuned.
            #[must_use]
            pub fn by_hand() -> Self {
                Self { bias: biases_by_hand(), $($name: $by_hand),+ }
            }
        }
    };
}

weights! {
    /// What an ill replica speaks for a step about it.
    ill_replica = 0.5;
    /// What the worst replica of a route or node speaks for a step about that.
    ill_around = 0.15;
    /// What a dead or mute replica speaks for its restart.
    dead = 1.5;
    /// What lines in the log speak for the steps that belong to them, each by its root.
    line = 0.35;
    /// Most that lines speak for.
    lines_most = 1.8;
    /// What lines that warn of a step speak against it, each by its root.
    warning = 0.1;
    /// What an overloaded node speaks for steps about it.
    busy = 0.8;
    /// What a bad link speaks for the other one.
    link = 2.0;
    /// What a wrong clock speaks for setting it.
    clock = 2.0;
    /// What a full disk speaks for deleting.
    full = 1.5;
    /// What a doubtful model speaks for steps about it.
    model = 6.0;
    /// What a step that did not help loses.
    tried = 1.1;
    /// What one that was refused or failed loses.
    failed = 0.6;
    /// What a step is worth that is forgiven so each minute.
    forgiven = 0.25;
    /// Below this nothing is done.
    least = 0.3;
    /// Seconds to wait after a step before the next.
    patience_s = 10.0;
}

/// How many numbers that are.
pub const WEIGHTS: usize = Kind::ALL.len() + NAMES.len();

fn biases_by_hand() -> [f64; Kind::ALL.len()] {
    let mut bias = [-0.6; Kind::ALL.len()];
    for (kind, own) in [
        (Kind::Restart, 0.2),
        (Kind::ScaleOut, -0.1),
        (Kind::RollbackConfig, -0.2),
        (Kind::RollbackModel, -0.1),
        (Kind::SwitchUplink, 0.0),
        (Kind::SyncClock, 0.0),
        (Kind::KillStranger, -0.2),
        (Kind::Retrain, -0.5),
        (Kind::Reboot, -0.8),
        (Kind::Isolate, -0.5),
        // Nothing is mended by these.
        (Kind::Freeze, -3.0),
        (Kind::Thaw, -3.0),
        (Kind::ScaleIn, -3.0),
        (Kind::UnblockSource, -3.0),
        (Kind::UnblockPort, -3.0),
        (Kind::UnlimitCpu, -3.0),
        (Kind::Undegrade, -3.0),
        (Kind::ReleaseUplink, -3.0),
        (Kind::Snapshot, -2.0),
        (Kind::Wait, -3.0),
        (Kind::LimitRate, -1.5),
    ] {
        bias[kind as usize] = own;
    }
    bias
}

/// Where weights are from.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// The seed of the tuner.
    pub seed: u64,
    /// How many generations it took.
    pub generations: u32,
    /// Candidates of each.
    pub candidates: u32,
    /// How many incidents of the training set it saw.
    pub incidents: u32,
    /// Seeds of each, in the score.
    pub seeds: u32,
    /// What episodes might spend, of what the oracle spends.
    pub budget: f64,
    /// Share of these that recovered.
    pub recovered: f64,
    /// The same with the weights that were set by hand.
    pub recovered_by_hand: f64,
}

/// Weights, and where they are from.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The numbers.
    pub weights: Weights,
    /// Where they are from.
    pub tuning: Tuning,
}

/// As they are written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    tuning: Tuning,
    bias: BTreeMap<String, f64>,
    weight: BTreeMap<String, f64>,
}

impl Tuned {
    /// Those that come with the simulator.
    #[must_use]
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Tuned> = LazyLock::new(|| {
            let read = Tuned::read("policies/trial.toml", SHIPPED_TEXT);
            // A test reads them, so what is shipped can be read.
            read.expect("weights that come with the simulator can be read")
        });
        &SHIPPED
    }

    /// Reads them; each must be there once.
    ///
    /// # Errors
    /// [`TextError`] with the place and the reason.
    pub fn read(file: &str, text: &str) -> Result<Self, TextError> {
        let source = Source::new(file, text, TEXT_MAX)?;
        let raw: Raw = source.read()?;
        let wrong = |reason: String| source.wrong(&(0..0), reason);
        let names = Kind::ALL.iter().map(|kind| (&raw.bias, kind_name(*kind)));
        let names = names.chain(NAMES.iter().map(|name| (&raw.weight, (*name).to_owned())));
        let mut all = [0.0; WEIGHTS];
        for (into, (of, name)) in all.iter_mut().zip(names) {
            let value = of.get(&name).copied();
            let value = value.ok_or_else(|| wrong(format!("there is no number for {name:?}")))?;
            if !value.is_finite() {
                return Err(wrong(format!("{name} = {value}: expected a number")));
            }
            *into = value;
        }
        if raw.bias.len() + raw.weight.len() != WEIGHTS {
            return Err(wrong(format!("there are more than {WEIGHTS} numbers")));
        }
        Ok(Self {
            weights: Weights::from_array(&all),
            tuning: raw.tuning,
        })
    }

    /// As they are read.
    #[must_use]
    pub fn text(&self) -> String {
        let tuning = &self.tuning;
        let mut text = format!(
            "# Weights of trial and error, by `homeostat-eval tune` on the training set.\n\
             [tuning]\nseed = {}\ngenerations = {}\ncandidates = {}\nincidents = {}\n\
             seeds = {}\nbudget = {:?}\nrecovered = {:.4}\nrecovered_by_hand = {:.4}\n\n[bias]\n",
            tuning.seed,
            tuning.generations,
            tuning.candidates,
            tuning.incidents,
            tuning.seeds,
            tuning.budget,
            tuning.recovered,
            tuning.recovered_by_hand,
        );
        let all = self.weights.to_array();
        let (bias, rest) = all.split_at(Kind::ALL.len());
        for (kind, value) in Kind::ALL.iter().zip(bias) {
            let _ = writeln!(text, "{} = {value:?}", kind_name(*kind));
        }
        text += "\n[weight]\n";
        for (name, value) in NAMES.iter().zip(rest) {
            let _ = writeln!(text, "{name} = {value:?}");
        }
        text
    }
}

const SHIPPED_TEXT: &str = include_str!("../../policies/trial.toml");

/// As serde writes it: `rollback-model`.
fn kind_name(kind: Kind) -> String {
    let mut name = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_go_to_a_row_and_back() {
        let weights = Weights::by_hand();
        assert_eq!(Weights::from_array(&weights.to_array()), weights);
        let row: Vec<f64> = (0..WEIGHTS).map(|at| at as f64).collect();
        let row: [f64; WEIGHTS] = row.try_into().unwrap();
        assert_eq!(Weights::from_array(&row).to_array(), row);
    }

    #[test]
    fn what_is_shipped_reads_back_and_was_tuned() {
        let shipped = Tuned::shipped();
        assert_eq!(Tuned::read("x", &shipped.text()).as_ref(), Ok(shipped));
        assert_ne!(shipped.weights, Weights::by_hand());
        assert!(shipped.tuning.generations > 0);
        assert!(shipped.tuning.recovered > shipped.tuning.recovered_by_hand);
    }

    #[test]
    fn what_lacks_a_number_or_has_another_one_is_refused() {
        let text = Tuned::shipped().text();
        for (from, to, reason) in [
            ("restart = ", "restarted = ", "no number for \"restart\""),
            ("patience_s = ", "more = 1.0\npatience_s = ", "more than"),
            ("\nleast = ", "\nleast = nan #", "expected a number"),
            ("seed = ", "sead = ", "unknown field"),
        ] {
            let wrong = text.replacen(from, to, 1);
            let error = Tuned::read("trial.toml", &wrong).unwrap_err().to_string();
            assert!(
                error.starts_with("trial.toml:") && error.contains(reason),
                "{error}"
            );
        }
        assert!(Tuned::read("x", &"#".repeat(TEXT_MAX + 1)).is_err());
    }
}
