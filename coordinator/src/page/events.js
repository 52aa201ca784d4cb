// Events in words, for the timelines of an incident and of the fleet.

import { clock, duration, el, iso, link, list, outcomeTone, percent, plural, since, units, words, known } from "./base.js";

const OFF_MS = 2000; // A node whose clock is off by more than this is told of.
const OFF_ROUND_MS = 5000; // What a record travelled is part of the difference.

// How far a clock is off in words, if it is worth one.
export function clockOff(ahead) {
  const off = Math.abs(ahead || 0);
  if (off < OFF_MS) return null;
  return `${duration(off < 60000 ? off : Math.round(off / OFF_ROUND_MS) * OFF_ROUND_MS)} ${ahead > 0 ? "ahead" : "behind"}`;
}

function phaseOf(phase) {
  if (typeof phase === "string") return [phase, { done: "good", undone: "warn" }[phase] || ""];
  const why = phase && Object.values(phase)[0];
  return [`failed: ${why || "unknown"}`, "bad"];
}

function backendWords(b) {
  const weight = b.weight === b.configured ? b.weight : `${b.weight} of ${b.configured}`;
  return `${b.backend} ${weight}${b.healthy || b.weight === 0 ? "" : " unhealthy"}`;
}

// As the node names a component: its kind and its name, or the node.
function componentWords(c) {
  if (typeof c === "string") return "the node";
  const [kind, name] = Object.entries(c || {})[0] || ["", ""];
  return kind === "service" ? name : kind === "model" ? `the model of ${name}` : kind === "part" ? `${name} of the node` : `${kind} ${name}`;
}

function budgetWords(b) { return `${b.class}: ${units(b.balance)} left of ${units(b.beta)}`; }

export function describe(e) {
  const b = e.body || {};
  switch (e.kind) {
    case "incident-opened":
      return { tone: "bad", what: [el("b", {}, `${words(b.fault)} of ${b.service}`), " opened as an incident"], sub: list(b.evidence) };
    case "decided": {
      const all = list(b.considered), refused = all.filter((c) => c.refusal);
      const sub = [`${plural(all.length, "option")} considered, ${refused.length} refused${refused.length ? ` by ${[...new Set(refused.map((c) => c.refusal.rule))].join(", ")}` : ""}`];
      return { tone: b.plan === null ? "warn" : "", what: [el("b", {}, b.plan === null ? "Decided to do nothing" : "Decided on a plan"), el("span", { class: "soft" }, ` cost ${units(b.cost)} of ${units(b.balance)}`)], sub };
    }
    case "step": {
      const [phase, tone] = phaseOf(b.phase);
      const health = known(b.health) ? ` health ${percent(b.health)}${known(b.predicted) ? `, predicted ${percent(b.predicted)}` : ""}` : "";
      return { tone, what: [el("code", {}, b.primitive), ` ${phase}`, el("span", { class: "soft" }, health)] };
    }
    case "incident-closed":
      return { tone: outcomeTone(b.outcome), what: [el("b", {}, words(b.outcome)), b.summary ? `: ${b.summary}` : "", el("span", { class: "soft" }, ` after ${duration(b.lasted)}`)] };
    case "service": {
      const exit = b.exit && (typeof b.exit === "string" ? b.exit : Object.entries(b.exit).map(([k, v]) => `${k} ${v}`).join(" "));
      return { tone: { healthy: "good", down: "bad", unhealthy: "warn" }[b.state] || "", what: [`${b.service} is ${b.state}`, exit ? el("span", { class: "soft" }, ` ended by ${exit}`) : null] };
    }
    case "alarm":
      return { tone: b.raised ? { critical: "bad", warning: "warn" }[b.severity] || "" : "good", what: [`alarm ${b.alarm} ${b.raised ? "raised" : "cleared"}`], sub: [b.text] };
    case "route":
      return { tone: list(b.backends).some((one) => one.weight > 0 && !one.healthy) ? "warn" : "", what: [`route ${b.route} changed`, b.reached === false ? el("span", { class: "soft" }, " no word from the forwarder") : null], sub: [list(b.backends).map(backendWords).join(", ")] };
    case "charge": {
      const total = (parts) => list(b.steps).reduce((sum, step) => sum + step[parts].resource + step[parts].disruption + step[parts].risk, 0);
      return { tone: "", what: ["the plan is paid for", el("span", { class: "soft" }, ` ${units(total("spent"))} of ${units(total("predicted"))}`)], sub: b.budget ? [budgetWords(b.budget)] : [] };
    }
    case "budget":
      return { tone: "", what: ["budgets"], sub: list(b.classes).map(budgetWords) };
    case "note":
      return { tone: "", what: [b.service ? `${b.service}: ` : "", b.text] };
    case "control":
      return { tone: { stopped: "bad", approval_asked: "warn", approval_stale: "warn", maintenance_began: "warn", resumed: "good", approved: "good" }[b.what] || "", what: [b.service ? el("b", {}, `${b.service}: `) : "", b.text, b.by ? el("span", { class: "soft" }, ` by ${b.by}`) : null] };
    case "boot":
      return { tone: "", what: [`agent ${b.version} started`], sub: list(b.findings) };
    case "diagnosed": {
      const first = list(b.suspects)[0];
      const sub = list(b.suspects).slice(0, 3).map((s) => `${componentWords(s.component)} ${percent(s.confidence)}${s.explained_by ? `, explained by ${componentWords(s.explained_by)}` : ""}`);
      return { tone: "", what: [first ? ["suspects ", el("b", {}, componentWords(first.component)), " most"] : "suspects nobody"], sub: b.spared ? [...sub, b.spared] : sub };
    }
    case "joined":
      return { tone: "", what: [el("b", {}, `${words(b.symptom)}: ${b.service}`), " belongs to it"], sub: [b.because] };
    case "topology":
      return { tone: "", what: [`told who needs whom: ${plural(list(b.edges).length, "need")}`] };
    case "observation": {
      const sub = list(b.alarms).map((a) => a.text).concat(list(b.logs).map((l) => `${l.count} × ${l.text}`));
      return { tone: "", what: [`observed: ${plural(list(b.metrics).length, "metric")}, ${plural(list(b.logs).length, "log template")}, ${plural(list(b.alarms).length, "alarm")}`], sub };
    }
    case "state": {
      const all = list(b.health && b.health.services);
      const well = all.filter((s) => s.state === "healthy").length;
      const left = Math.round(100 * ((b.history && b.history.budget_left) || 0));
      return { tone: "", what: [`state: ${well} of ${plural(all.length, "service")} healthy, ${left} % of the budget left`] };
    }
    case "gap":
      return { tone: "warn", what: [`events ${b.from} to ${b.through} were dropped on the node`] };
    default:
      return { tone: "", what: [words(e.kind)] };
  }
}

function entry(e, when, showNode, meta) {
  const { tone, what, sub } = describe(e);
  const off = clockOff(e.hlc_ms - e.at_ms);
  if (off) meta.push(`its clock is ${off}`);
  return el("li", { class: `${tone} ${e.meanwhile ? "elsewhere" : ""}`.trim() || null, "data-node": e.node },
    when,
    el("div", { class: "what" },
      el("div", {}, showNode ? [el("span", { class: "node-tag" }, e.node), " "] : null, what),
      sub && sub.length ? el("ul", { class: "sub" }, sub.map((s) => el("li", {}, s))) : null,
      el("div", { class: "sub", title: e.kind }, meta.map((part, at) => [at ? " · " : "", part]))));
}

function causesOf(e) {
  const causes = list(e.causes).map((c) => c.stream === e.stream ? `#${c.seq}` : `#${c.seq} of another node`);
  return causes.length ? `because of ${causes.join(", ")}` : null;
}

// In an incident: time since its first event.
export function incidentEntry(e, first, home) {
  const shift = e.at_ms - first;
  const meta = [`#${e.seq}`];
  if (e.meanwhile) meta.push("on another node in the same while");
  const order = { before: "before it opened", concurrent: "before or after it opened: not known" }[e.relation];
  if (order) meta.push(order);
  const causes = causesOf(e);
  if (causes) meta.push(causes);
  if (e.meanwhile && e.incident) meta.push(el("a", { href: link(e.incident) }, `incident ${e.incident}`));
  const when = el("time", { class: "when", datetime: iso(e.at_ms), title: iso(e.at_ms) }, `${shift < 0 ? "−" : "+"}${duration(Math.abs(shift))}`);
  return entry(e, when, e.node !== home, meta);
}

// In the fleet: time of day.
export function fleetEntry(e) {
  const meta = [`#${e.seq}`];
  const causes = causesOf(e);
  if (causes) meta.push(causes);
  if (e.incident) meta.push(el("a", { href: link(e.incident), "data-key": `event-${e.cursor}` }, `incident ${e.incident}`));
  const when = el("time", { class: "when", datetime: iso(e.at_ms), title: iso(e.at_ms) }, clock(e.at_ms));
  return entry(e, when, true, meta);
}

// What was seen and left alone.
const WHY = { refused: ["refused", "warn"], alarm: ["no plan", "warn"], note: ["note", ""] };
export function leftAloneItem(one) {
  const [word, tone] = WHY[one.why] || [one.why, ""];
  return el("li", {},
    el("div", { class: "head" },
      el("span", { class: `tag ${one.stands ? tone : ""}` }, word),
      one.name ? el("b", {}, one.name) : null,
      el("span", { class: "soft" }, one.service ? `${one.service} on ${one.node}` : one.node),
      one.times > 1 ? el("span", { class: "soft" }, `${one.times} times`) : null,
      one.why !== "note" && !one.stands ? el("span", { class: "soft" }, "over") : null,
      since(one.at_ms)),
    el("p", {}, one.text, one.plan ? [" ", el("code", {}, one.plan)] : null,
      one.incident ? [" ", el("a", { href: link(one.incident), "data-key": `left-${one.cursor}` }, `incident ${one.incident}`)] : null));
}
