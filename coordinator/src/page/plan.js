// A plan as a tree: its steps in turn or side by side, each with how far it is
// and the node's health before, predicted and met.

import { el, known, list, percent, duration, units } from "./base.js";

const MARK = { waiting: "○", started: "◐", done: "●", failed: "✕", undone: "↶" };
const TONE = { started: "now", done: "good", failed: "bad", undone: "warn" };

// Where health stood, where it is, and the tick of where the step leads.
function meter(step) {
  const at = known(step.health) ? step.health : step.before;
  const words = [];
  if (known(step.before) && step.before !== step.health) words.push(`${percent(step.before)} → `);
  words.push(known(step.health) ? percent(step.health) : "not measured");
  return el("span", { class: "health" },
    known(at) ? el("meter", { min: 0, max: 1, value: at, title: "health of the node" }) : null,
    el("span", {}, "health ", el("b", {}, words)),
    known(step.predicted) ? el("span", { class: "soft" }, `predicted ${percent(step.predicted)}`) : null);
}

function total(cost) { return cost.resource + cost.disruption + cost.risk; }

function stepItem(step, over) {
  const waits = step.phase === "waiting";
  const took = known(step.started_ms) && known(step.ended_ms) ? duration(Math.max(0, step.ended_ms - step.started_ms)) : null;
  return el("div", { class: `step ${TONE[step.phase] || ""}` },
    el("div", {},
      el("span", { class: "mark", "aria-hidden": "true" }, MARK[step.phase] || "○"),
      el("code", {}, step.primitive), " ",
      el("span", { class: `phase ${TONE[step.phase] || "soft"}` }, waits ? (over ? "not begun" : "waiting") : step.phase),
      took ? el("span", { class: "soft" }, ` in ${took}`) : null,
      step.cost ? el("span", { class: "soft" }, ` for ${units(total(step.cost.spent))} of ${units(total(step.cost.predicted))}`) : null),
    waits ? null : meter(step),
    step.why ? el("div", { class: "why" }, step.why) : null);
}

function branch(shape, steps, over) {
  if (known(shape.step)) {
    const step = steps.find((s) => s.step === shape.step);
    return step ? stepItem(step, over) : null;
  }
  const [kind, parts, label] = shape.in_turn ? ["in-turn", shape.in_turn, ";"] : ["side-by-side", list(shape.side_by_side), "|"];
  const name = kind === "in-turn" ? "in turn" : "side by side";
  return el("div", { class: `group ${kind}` },
    kind === "side-by-side" ? el("div", { class: "label" }, `${name} `, el("code", {}, label)) : null,
    el("ol", { "aria-label": name }, parts.map((part) => el("li", {}, branch(part, steps, over)))));
}

// `over`: no step that waits will begin any more.
export function planTree(decision, over) {
  const steps = list(decision.steps);
  if (!decision.plan) return null;
  if (decision.shape) return el("div", { class: "plan" }, branch(decision.shape, steps, over));
  if (!steps.length) return el("div", { class: "plan" }, el("code", {}, decision.plan));
  return el("div", { class: "plan" }, el("ol", {}, steps.map((step) => el("li", {}, stepItem(step, over)))));
}

// What the whole plan is for.
export function promise(decision) {
  if (!known(decision.health)) return null;
  return el("p", { class: "promise" }, "Health of the node ", el("b", {}, percent(decision.health)), " when decided",
    decision.plan && known(decision.predicted) ? [", ", el("b", {}, percent(decision.predicted)), " predicted once it works"] : null, ".");
}
