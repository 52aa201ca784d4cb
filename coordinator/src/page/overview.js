// The overview: what needs a person, where traffic goes, what was healed, what
// was left alone, and the nodes.

import { clock, cloud, duration, el, iso, link, list, outcomeOf, outcomeTag, place, plural, section, since, sourceTag, words } from "./base.js";
import { clockOff, leftAloneItem } from "./events.js";
import { planTree, promise } from "./plan.js";
import { traffic } from "./traffic.js";

const LEFT_SHOWN = 8;
const ACROSS_SHOWN = 3;

function verdict(state) {
  const { fleet, open, alarms, recent } = state;
  const critical = alarms.filter((a) => a.severity === "critical").length;
  const away = fleet.nodes.filter((n) => n.presence === "offline").length;
  const parts = [];
  if (open.length) parts.push(`${plural(open.length, "incident")} open`);
  if (critical) parts.push(plural(critical, "critical alarm"));
  if (away) parts.push(`${plural(away, "node")} offline`);
  const last = recent.find((i) => i.state === "closed");
  let small = "";
  if (last) small = `Last incident: ${words(last.fault) || "unknown fault"} of ${place(last)}, ${outcomeOf(last)} in ${duration(last.lasted_ms)}.`;
  if (!fleet.nodes.length) return ["No node has reported yet.", "Nodes appear here with their first record."];
  return [parts.length ? `${parts.join(", ")}.` : alarms.length ? `Nothing open; ${plural(alarms.length, "alarm")} below critical.` : "All quiet.", small];
}

// With the steps of its plan, where those were fetched.
function openIncident(i, detail) {
  const doing = [];
  const decision = detail && list(detail.decisions).at(-1);
  if (i.why) doing.push(el("span", { class: "tag warn" }, "nothing done"), el("span", {}, i.why));
  else if (decision && decision.plan) doing.push(sourceTag(i.source), promise(decision));
  else if (i.step) doing.push(sourceTag(i.source), el("code", {}, i.step), el("span", { class: i.phase && i.phase.startsWith("failed") ? "tag bad" : "soft" }, i.phase));
  else if (i.plan) doing.push(sourceTag(i.source), el("code", {}, i.plan), el("span", { class: "soft" }, "not begun"));
  else doing.push(el("span", { class: "soft" }, "no decision yet"));
  return el("li", { class: "card" },
    el("div", { class: "head" },
      el("a", { href: link(i.id), "data-key": `open-${i.id}` }, `${words(i.fault) || "incident"} · ${place(i)}`),
      i.symptom && i.symptom !== i.fault ? el("span", { class: "soft" }, words(i.symptom)) : null,
      i.connected === false ? el("span", { class: "tag" }, "opened offline") : null,
      since(i.opened_ms)),
    el("div", { class: "doing" }, doing),
    decision ? planTree(decision, false) : null);
}

function recentRow(i) {
  return el("tr", {},
    el("td", { class: "when nowrap" },
      el("a", { href: link(i.id), "data-key": `recent-${i.id}`, title: iso(i.opened_ms) }, clock(i.opened_ms)),
      el("span", { class: "small-only soft" }, ` cloud ${cloud(i)}`)),
    el("td", {}, el("b", {}, i.service || "–"), " ", el("span", { class: "soft nowrap" }, i.node)),
    el("td", { class: "fault" }, words(i.fault) || "–"),
    el("td", { class: "wide" },
      i.plan ? [el("code", {}, i.plan), " ", sourceTag(i.source)] : el("span", { class: "soft" }, i.why || "no plan"),
      i.refusals && i.plan ? el("span", { class: "sub" }, ` after ${i.refusals} refused`) : null),
    el("td", { class: "num", "data-label": "detected" }, duration(i.detected_after_ms)),
    el("td", { class: "num", "data-label": i.outcome === "healed" ? "healed" : "lasted" }, duration(i.lasted_ms)),
    el("td", { class: "outcome" }, outcomeTag(i)),
    el("td", { class: "cloud soft" }, cloud(i)));
}

function alarmItem(a) {
  const kind = { critical: "bad", warning: "warn" }[a.severity] || "";
  return el("li", {},
    el("div", { class: "head" },
      el("span", { class: `tag ${kind}` }, a.severity), el("b", {}, a.alarm),
      el("span", { class: "soft" }, a.service ? `${a.service} on ${a.node}` : a.node),
      a.source ? el("span", { class: "tag" }, `from ${a.source}`) : null,
      a.acked ? el("span", { class: "tag" }, `dealt with by ${a.acked}`) : null, since(a.since_ms)),
    el("p", {}, a.text));
}

function nodeItem(n) {
  const facts = [];
  if (n.missing) facts.push(`${plural(n.missing, "record")} on the way`);
  if (n.lost) facts.push(`${plural(n.lost, "record")} lost`);
  if (n.backlog) facts.push(`backlog ${n.backlog}`);
  if (n.clock && n.clock !== "plausible") facts.push(n.clock === "never_set" ? "clock never set" : "clock behind");
  const off = clockOff(n.clock_ahead_ms);
  if (off) facts.push(`clock ${off}`);
  for (const r of n.routes) {
    const serving = r.backends.filter((b) => b.healthy && b.weight > 0).length;
    facts.push(`route ${r.route} ${serving} of ${r.backends.length} serving${r.reached ? "" : ", no word from it"}`);
  }
  const presence = { online: "healthy", offline: "offline", unknown: "unknown" }[n.presence];
  return el("li", {},
    el("div", { class: "head" },
      el("b", {}, n.node), el("span", { class: "soft" }, n.site),
      el("span", { class: `state ${presence}` }, n.presence),
      n.presence === "online" || !n.seen_ms
        ? el("span", { class: "age" }, n.version ? `v${n.version}` : "no records yet")
        : el("span", { class: "age" }, "seen ", since(n.seen_ms))),
    n.services.length ? el("ul", { class: "services" }, n.services.map((s) =>
      el("li", { class: `state ${s.state}${n.presence === "online" ? "" : " stale"}`, title: `${s.state} since ${iso(s.since_ms)}` },
        s.service, s.state === "healthy" ? null : el("span", { class: "soft" }, ` ${s.state}`)))) : null,
    n.presence !== "online" && n.services.length ? el("p", { class: "facts" }, "Services as last reported.") : null,
    facts.length ? el("p", { class: "facts" }, facts.join(" · ")) : null);
}

// A plan across nodes: how far each step is, and why it is taken back.
function acrossItem(p) {
  const tag = p.flag || p.phase === "stuck" ? "tag bad" : p.phase === "done" ? "tag good" : p.phase === "undone" ? "tag warn" : "tag";
  return el("li", { class: "card" },
    el("div", { class: "head" },
      el("b", {}, `Plan ${p.id}`), el("span", { class: tag }, p.flag ? `${p.phase}, a person is called` : p.phase), since(p.begun_ms)),
    p.flag || p.why ? el("div", { class: "doing" }, el("span", {}, p.flag || p.why)) : null,
    el("ul", {}, p.steps.map((s) => el("li", {}, el("span", { class: "soft" }, `${s.node} `), el("code", {}, s.primitive), ` ${words(s.state)}`))));
}

// `width`: of the page; `older`: fetches more incidents; `toggled`: the list of
// routes was folded or unfolded.
export function overview(state, width, older, toggled) {
  const { fleet, open, alarms, recent, left } = state;
  if (!fleet) return [el("p", { class: "quiet" }, "Loading…")];
  const [headline, small] = verdict(state);
  const closed = recent.filter((i) => i.state !== "open");
  const incidents = section("a-open", "Open incidents", el("ul", { class: "open" }, open.map((i) => openIncident(i, state.plans.get(i.id)))));
  const raised = section("a-alarms", alarms.length ? `Alarms · ${alarms.length}` : "Alarms",
    alarms.length ? el("ul", { class: "alarms card" }, alarms.map(alarmItem)) : el("p", { class: "card quiet" }, "None raised."));
  const past = section("a-recent", "Recent incidents",
    closed.length ? el("div", { class: "card" },
      el("table", {},
        el("thead", {}, el("tr", {},
          ["Opened", "Service", "Fault", "Plan"].map((h) => el("th", { scope: "col" }, h)),
          el("th", { scope: "col", class: "num" }, "Detected"), el("th", { scope: "col", class: "num" }, "Lasted"),
          el("th", { scope: "col" }, "Outcome"), el("th", { scope: "col" }, "Cloud"))),
        el("tbody", {}, closed.map(recentRow))),
      state.next ? el("div", { class: "more" }, el("button", { type: "button", "data-key": "older", onclick: older }, "Show older")) : null)
      : el("p", { class: "card quiet" }, "None yet."));
  const alone = section("a-left", "Seen, and left alone",
    left.length ? [el("ul", { class: "alarms card" }, left.slice(0, LEFT_SHOWN).map(leftAloneItem)),
      left.length > LEFT_SHOWN ? el("p", { class: "legend" }, el("a", { href: "#/timeline" }, `${left.length - LEFT_SHOWN} more on the timeline`)) : null]
      : el("p", { class: "card quiet" }, "Nothing: all that was seen was dealt with."));
  const plans = state.across && state.across.length ? section("a-across", "Plans across nodes",
    el("ul", { class: "open" }, state.across.slice(0, ACROSS_SHOWN).map(acrossItem))) : null;
  const nodes = section("a-fleet", `Fleet · ${plural(fleet.nodes.length, "node")}`,
    fleet.nodes.length ? el("ul", { class: "nodes card" }, fleet.nodes.map(nodeItem)) : el("p", { class: "card quiet" }, "No nodes yet."));
  return [
    el("p", { class: "verdict", role: "status" }, headline, el("small", {}, small)),
    open.length ? el("div", { class: "columns" }, el("div", {}, incidents), el("div", {}, raised)) : null,
    traffic(fleet, width, state.unfolded, toggled),
    el("div", { class: "columns" },
      el("div", {}, plans, past, alone),
      el("div", {}, open.length ? null : raised, nodes)),
  ];
}
