// The fleet's timeline: the newest events about healing, newest first, and all
// that was left alone.

import { el, section } from "./base.js";
import { fleetEntry, leftAloneItem } from "./events.js";

export function timelinePage(state, older) {
  const back = el("a", { class: "back", href: "#/", "data-key": "back" }, "← Overview");
  if (!state.timeline) return [back, el("p", { class: "quiet" }, "Loading…")];
  const events = [...state.timeline].reverse();
  return [
    back,
    el("h1", {}, "Timeline of the fleet"),
    el("p", { class: "lead soft" }, "Newest first, effects above their causes. Across nodes the order rests on causes and on when records arrived; nodes' clocks are corrected by that, and events closer together than the network's delay may stand either way."),
    el("div", { class: "columns" },
      el("div", {},
        section("", "Healing",
          events.length ? el("ol", { class: "timeline of-fleet card" }, events.map(fleetEntry)) : el("p", { class: "card quiet" }, "Nothing yet."),
          state.timelineNext ? el("p", { class: "legend" }, el("button", { type: "button", "data-key": "older", onclick: older }, "Show older")) : null)),
      el("div", {},
        section("", "Seen, and left alone",
          state.left.length ? el("ul", { class: "alarms card" }, state.left.map(leftAloneItem)) : el("p", { class: "card quiet" }, "Nothing.")))),
  ];
}
