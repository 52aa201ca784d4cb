//! Alarms of microcontrollers at this node's serial lines.
//!
//! In: what one says of a metric of this node, or what is said of it. Out: alarms of this node,
//! repeated and acknowledged like its own, and so entries of `A_t`. Nothing is decided by them:
//! the loop judges what it sees itself.

use homeostat_common::ids::McuId;
use homeostat_common::observation::Metric;
use homeostat_common::wire::body::Severity;

use super::Loop;
use super::message::Effect;

/// The name of an alarm about a metric, or about the microcontroller itself.
pub fn mcu_alarm(mcu: &McuId, metric: Option<Metric>) -> String {
    match metric {
        // Names of alarms are parts of topics, and hold no `_`.
        Some(metric) => format!("mcu-{mcu}-{}", metric.name().replace('_', "-")),
        None => format!("mcu-{mcu}"),
    }
}

impl Loop {
    pub(super) fn absorb_mcu(
        &mut self,
        mcu: &McuId,
        metric: Option<Metric>,
        text: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let name = mcu_alarm(mcu, metric);
        match text {
            Some(text) => self.raise(&name, None, Severity::Warning, text, effects),
            None => self.clear(&name, effects),
        }
    }
}
