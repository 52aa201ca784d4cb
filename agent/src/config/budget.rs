//! `[limits.budget]`: how much healing may cost, by the criticality of what is
//! healed.
//!
//! In: the table; out: a [`Policy`], the default one where a rule does not fit.
//! The rules themselves, and what they admit, are in `homeostat_common::budget`.

use homeostat_common::budget::{Adaptive, Dynamic, Policy, PolicyError};
use homeostat_common::units::Ratio;
use toml::de::DeValue;

use super::fields::{Fields, Wanted, number, ratio};

pub(super) fn budget(mut at: Fields<'_, '_>) -> Policy {
    let default = Policy::default();
    let policy = Policy {
        mission: at.or("mission", default.mission, ratio),
        business: dynamic(at.table("business")).unwrap_or(default.business),
        best_effort: adaptive(at.table("best_effort")).unwrap_or(default.best_effort),
    };
    at.finish();
    policy
}

fn dynamic(mut at: Fields<'_, '_>) -> Option<Dynamic> {
    let alpha = at.or("alpha", 0.4, decimal);
    let floor = at.or("floor", Ratio::saturating(0.15), ratio);
    let ceiling = at.or("ceiling", Ratio::saturating(0.30), ratio);
    let rule = Dynamic::new(alpha, floor, ceiling);
    let rule = told(&at, rule);
    at.finish();
    rule
}

fn adaptive(mut at: Fields<'_, '_>) -> Option<Adaptive> {
    let base = at.or("base", 0.10, decimal);
    let healed = at.or("healed", 0.10, decimal);
    let health = at.or("health", 0.10, decimal);
    let floor = at.or("floor", Ratio::saturating(0.15), ratio);
    let ceiling = at.or("ceiling", Ratio::saturating(0.30), ratio);
    let rule = Adaptive::new(base, healed, health, floor, ceiling);
    let rule = told(&at, rule);
    at.finish();
    rule
}

/// Reports a rule that cannot be, at the key that makes it so.
fn told<T>(at: &Fields<'_, '_>, rule: Result<T, PolicyError>) -> Option<T> {
    rule.map_err(|error| {
        let key = match error {
            PolicyError::Alpha(_) => "alpha",
            PolicyError::Bounds { .. } if at.has("floor") => "floor",
            PolicyError::Bounds { .. } => "ceiling",
            PolicyError::Coefficient(name) => name,
        };
        at.wrong(key, error.to_string());
    })
    .ok()
}

/// By way of six decimals, so that 0.3 means 0.3 and not the nearest `f32`.
fn decimal(value: &DeValue<'_>) -> Result<f64, Wanted> {
    number(value).map(|number| (f64::from(number) * 1e6).round() / 1e6)
}
