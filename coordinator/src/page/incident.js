// One incident: what was seen, considered, refused and done, with predicted
// and measured health, and what happened elsewhere in the same while.

import { clock, cloud, duration, el, iso, known, list, outcomeTag, place, plural, section, since, units, words } from "./base.js";
import { burnWords, causesSection, coincidentSection, groupSection, impactSection, reachWords, whatIfSection } from "./causes.js";
import { incidentEntry } from "./events.js";
import { planTree, promise } from "./plan.js";

function lead(i) {
  if (i.state === "abandoned") return "The node's store was rebuilt before this ended; no end will be recorded.";
  if (i.state === "closed") return i.summary || `${words(i.outcome)}.`;
  if (i.why) return `Nothing is being done. ${i.why}`;
  if (i.step) return `${i.step}: ${i.phase}`;
  return "Open; no decision has arrived yet.";
}

function options(decision, why) {
  if (!decision.options.length) return el("li", {}, el("div", { class: "head" }, el("span", { class: "tag warn" }, "nothing done"), el("span", {}, why || "No plan was allowed.")));
  return decision.options.map((c) => el("li", {},
    el("div", { class: "head" },
      el("span", { class: `tag ${c.refusal ? "warn" : "good"}` }, c.refusal ? "refused" : "chosen"),
      el("code", {}, c.plan), el("span", { class: "soft" }, c.source)),
    c.refusal ? el("p", {}, el("b", {}, c.refusal.rule), `: ${c.refusal.reason}`) : null));
}

// What the model of failure classes says; null without one.
function classSection(c) {
  if (!c) return null;
  const counts = (e) => known(e.count) ? ` ${e.count} times, usually ${e.usual}` : "";
  return section("", "Class by event counts", el("div", { class: "card" },
    el("p", {}, el("span", { class: `tag ${c.class ? "good" : "warn"}` }, c.class ? words(c.class) : "novel"),
      c.class ? ` ${Math.round(c.probability * 100)} %` : ` Unlike anything it was trained on; nearest to ${words(c.likeliest)}.`,
      ` More unusual than ${Math.round(c.unusual * 100)} % of healthy runs.`),
    el("ol", { class: "evidence" }, list(c.evidence).map((e) => el("li", {}, el("code", {}, e.event), counts(e)))),
    list(c.services).length ? el("p", { class: "soft" }, `Services affected: ${c.services.join(", ")}`) : null));
}

// `width`: what the page has for it.
// `toggle`: shows or hides what nothing connects with it.
export function incidentPage(state, width, toggle) {
  const back = el("a", { class: "back", href: "#/", "data-key": "back" }, "← Overview");
  if (state.error) return [back, el("p", { class: "card quiet" }, state.error)];
  if (!state.detail) return [back, el("p", { class: "quiet" }, "Loading…")];
  const { incident: i, timeline, truncated, decisions, evidence, class: failure, causes, group, coincident, impact, what_if: otherwise, contradictions } = state.detail;
  const over = i.state !== "open";
  const facts = [
    ["Opened", el("time", { datetime: iso(i.opened_ms), title: iso(i.opened_ms) }, clock(i.opened_ms, true))],
    ["Detected after", duration(i.detected_after_ms)],
    over ? [i.outcome === "healed" ? "Healed after" : "Lasted", duration(i.lasted_ms)] : ["Open since", since(i.opened_ms)],
    ["Diagnosis", `${words(i.fault) || "–"}${i.symptom ? ` (${words(i.symptom)})` : ""}${known(i.confidence) ? `, ${Math.round(i.confidence * 100)} %` : ""}`],
    ["Reached", reachWords(impact)],
    ["Promise used", burnWords(impact)],
    ["Plan from", i.source || "–"],
    ["Cost predicted", units(i.cost)],
    ["Cost spent", units(i.spent)],
    ["Budget left", units(i.balance)],
    ["Cloud at opening", cloud(i)],
    ["Node", `${i.site}/${i.node} #${i.number}`],
  ];
  const own = timeline.filter((e) => e.node === i.node);
  const first = own.length ? Math.min(...own.map((e) => e.at_ms)) : 0;
  const shown = timeline.filter((e) => !e.aside || state.aside);
  const aside = timeline.filter((e) => e.aside).length;
  const elsewhere = shown.some((e) => e.meanwhile);
  const planned = list(decisions).filter((d) => d.plan);
  const none = (text) => el("p", { class: "card quiet" }, text);
  return [
    back,
    el("h1", {}, `${words(i.fault) || "Incident"} of ${place(i)}`, outcomeTag(i)),
    el("p", { class: "lead" }, lead(i)),
    el("dl", { class: "facts-grid card" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    causesSection(causes, width),
    el("div", { class: "detail-columns" },
      el("div", {},
        section("", planned.length > 1 ? "Plans, step by step" : "The plan, step by step",
          planned.length ? planned.map((d) => el("div", { class: "card decided" }, promise(d), planTree(d, over))) : none("There is no plan.")),
        section("", "Evidence", evidence.length ? el("ol", { class: "evidence card" }, evidence.map((line) => el("li", {}, line))) : none("None has arrived.")),
        classSection(failure),
        groupSection(group, i.id),
        coincidentSection(coincident),
        impactSection(impact),
        whatIfSection(otherwise),
        section("", "Options considered", decisions.length ? el("ul", { class: "considered card" }, decisions.map((d) => options(d, i.why))) : none("No decision has arrived."))),
      el("div", {},
        section("", "Timeline, causes before effects",
          el("ol", { class: "timeline card" }, shown.map((e) => incidentEntry(e, first, i.node))),
          aside ? el("p", { class: "legend" }, el("button", { type: "button", "data-key": "aside", "aria-expanded": state.aside ? "true" : "false", onclick: toggle }, `${state.aside ? "Hide" : "Show"} ${plural(aside, "event")} of other nodes in the same while that nothing connects with it`)) : null,
          elsewhere ? el("p", { class: "legend soft" }, "Indented: other nodes in the same while. Their place rests on when records arrived, not on the nodes' clocks; which of two close ones came first is not known.") : null,
          contradictions ? el("p", { class: "quiet" }, `${plural(contradictions, "cause")} named by nodes contradict the order and were left out.`) : null,
          truncated ? el("p", { class: "quiet" }, "Cut for length.") : null))),
  ];
}
