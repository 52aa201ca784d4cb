// The page: fetches what it shows, shows it, and fetches again when the server
// says that something changed. Everything from the network becomes a text node;
// nothing is ever parsed as HTML.
"use strict";

const PAGE = 50;
const REFRESH_MS = 30000; // In case a proxy swallows the live events.
const SETTLE_MS = 120; // One fetch for a burst of changes.

const state = { fleet: null, open: [], alarms: [], recent: [], next: null, detail: null, error: null, asOf: null };
const $ = (id) => document.getElementById(id);

function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

// Numbers and times.

function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.floor(ms / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (d) return `${d} d ${h % 24} h`;
  if (h) return `${h} h ${m % 60} min`;
  return `${m} min ${s % 60} s`;
}
let skew = 0; // Server clock minus ours.
function age(ms) {
  const past = Date.now() + skew - ms;
  if (past < -5000) return `${duration(-past)} ahead`;
  if (past < 1000) return "now";
  const s = Math.floor(past / 1000);
  return `${s < 60 ? `${s} s` : duration(past)} ago`;
}
function since(ms) {
  return el("time", { class: "age", datetime: iso(ms), title: iso(ms), "data-age": ms }, age(ms));
}
function iso(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString();
}
const pad = (n, w) => String(n).padStart(w || 2, "0");
function clock(ms, millis) {
  const d = new Date(ms);
  if (Number.isNaN(d.getTime())) return String(ms);
  const time = `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}${millis ? `.${pad(d.getMilliseconds(), 3)}` : ""}`;
  if (d.toDateString() === new Date(Date.now() + skew).toDateString()) return time;
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${time}`;
}
function plural(n, one, many) { return `${n} ${n === 1 ? one : many || `${one}s`}`; }
function words(name) { return String(name || "").replace(/[-_]/g, " "); }
function units(value) { return value === null || value === undefined ? "–" : `${Number(value.toPrecision(3))} cap·s`; }

const OUTCOME = { healed: "good", recovered: "good", undone: "warn", refused: "warn", escalated: "bad", open: "bad", abandoned: "" };
function outcomeOf(i) { return i.state === "closed" ? i.outcome || "closed" : i.state; }
function outcomeTag(i) { const o = outcomeOf(i); return el("span", { class: `tag ${OUTCOME[o] || ""}` }, o); }
function sourceTag(source) { return source ? el("span", { class: "tag" }, source) : null; }
function link(i) { return `#/incident/${i.id}`; }
function cloud(i) { return i.connected === null || i.connected === undefined ? "–" : i.connected ? "connected" : "offline"; }
function place(i) { return `${i.service || "unknown service"} on ${i.node}`; }

// The overview.

function verdict(fleet, open, alarms) {
  const critical = alarms.filter((a) => a.severity === "critical").length;
  const away = fleet.nodes.filter((n) => n.presence === "offline").length;
  const parts = [];
  if (open.length) parts.push(`${plural(open.length, "incident")} open`);
  if (critical) parts.push(plural(critical, "critical alarm"));
  if (away) parts.push(`${plural(away, "node")} offline`);
  const last = state.recent.find((i) => i.state === "closed");
  let small = "";
  if (last) small = `Last incident: ${words(last.fault) || "unknown fault"} of ${place(last)}, ${outcomeOf(last)} in ${duration(last.lasted_ms)}.`;
  if (!fleet.nodes.length) return ["No node has reported yet.", "Nodes appear here with their first record."];
  return [parts.length ? `${parts.join(", ")}.` : alarms.length ? `Nothing open; ${plural(alarms.length, "alarm")} below critical.` : "All quiet.", small];
}

function openIncident(i) {
  const doing = [];
  if (i.why) doing.push(el("span", { class: "tag warn" }, "nothing done"), el("span", {}, i.why));
  else if (i.step) doing.push(sourceTag(i.source), el("code", {}, i.step), el("span", { class: i.phase && i.phase.startsWith("failed") ? "tag bad" : "soft" }, i.phase));
  else if (i.plan) doing.push(sourceTag(i.source), el("code", {}, i.plan), el("span", { class: "soft" }, "not begun"));
  else doing.push(el("span", { class: "soft" }, "no decision yet"));
  return el("li", { class: "card" },
    el("div", { class: "head" },
      el("a", { href: link(i), "data-key": `open-${i.id}` }, `${words(i.fault) || "incident"} · ${place(i)}`),
      i.symptom && i.symptom !== i.fault ? el("span", { class: "soft" }, words(i.symptom)) : null,
      i.connected === false ? el("span", { class: "tag" }, "opened offline") : null,
      since(i.opened_ms)),
    el("div", { class: "doing" }, doing));
}

function recentRow(i) {
  return el("tr", {},
    el("td", { class: "when nowrap" },
      el("a", { href: link(i), "data-key": `recent-${i.id}`, title: iso(i.opened_ms) }, clock(i.opened_ms)),
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
      el("span", { class: "soft" }, a.service ? `${a.service} on ${a.node}` : a.node), since(a.since_ms)),
    el("p", {}, a.text));
}

function nodeItem(n) {
  const facts = [];
  if (n.missing) facts.push(`${plural(n.missing, "record")} on the way`);
  if (n.lost) facts.push(`${plural(n.lost, "record")} lost`);
  if (n.backlog) facts.push(`backlog ${n.backlog}`);
  if (n.clock && n.clock !== "plausible") facts.push(n.clock === "never_set" ? "clock never set" : "clock behind");
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

function overview() {
  const { fleet, open, alarms, recent } = state;
  if (!fleet) return [el("p", { class: "quiet" }, "Loading…")];
  const [headline, small] = verdict(fleet, open, alarms);
  const closed = recent.filter((i) => i.state !== "open");
  const section = (area, title, ...content) => el("section", { class: area }, el("h2", {}, title), content);
  return [
    el("p", { class: "verdict", role: "status" }, headline, el("small", {}, small)),
    el("div", { class: "columns" },
      el("div", {},
        open.length ? section("a-open", "Open incidents", el("ul", { class: "open" }, open.map(openIncident))) : null,
        section("a-recent", "Recent incidents",
          closed.length ? el("div", { class: "card" },
            el("table", {},
              el("thead", {}, el("tr", {},
                ["Opened", "Service", "Fault", "Plan"].map((h) => el("th", { scope: "col" }, h)),
                el("th", { scope: "col", class: "num" }, "Detected"), el("th", { scope: "col", class: "num" }, "Lasted"),
                el("th", { scope: "col" }, "Outcome"), el("th", { scope: "col" }, "Cloud"))),
              el("tbody", {}, closed.map(recentRow))),
            state.next ? el("div", { class: "more" }, el("button", { type: "button", "data-key": "older", onclick: older }, "Show older")) : null)
            : el("p", { class: "card quiet" }, "None yet."))),
      el("div", {},
        section("a-alarms", alarms.length ? `Alarms · ${alarms.length}` : "Alarms",
          alarms.length ? el("ul", { class: "alarms card" }, alarms.map(alarmItem)) : el("p", { class: "card quiet" }, "None raised.")),
        section("a-fleet", `Fleet · ${plural(fleet.nodes.length, "node")}`,
          fleet.nodes.length ? el("ul", { class: "nodes card" }, fleet.nodes.map(nodeItem)) : el("p", { class: "card quiet" }, "No nodes yet.")))),
  ];
}

// One incident.

function phaseOf(phase) {
  if (typeof phase === "string") return [phase, { done: "good", undone: "warn" }[phase] || ""];
  const why = phase && Object.values(phase)[0];
  return [`failed: ${why || "unknown"}`, "bad"];
}
function list(value) { return Array.isArray(value) ? value : []; }

function describe(e) {
  const b = e.body || {};
  switch (e.kind) {
    case "incident-opened":
      return { tone: "bad", what: [el("b", {}, `${words(b.fault)} of ${b.service}`), ` opened as an incident`], sub: list(b.evidence) };
    case "decided": {
      const all = list(b.considered), refused = all.filter((c) => c.refusal);
      const sub = [`${plural(all.length, "option")} considered, ${refused.length} refused${refused.length ? ` by ${[...new Set(refused.map((c) => c.refusal.rule))].join(", ")}` : ""}`];
      return { tone: b.plan === null ? "warn" : "", what: [el("b", {}, b.plan === null ? "Decided to do nothing" : "Decided on a plan"), el("span", { class: "soft" }, ` cost ${units(b.cost)} of ${units(b.balance)}`)], sub };
    }
    case "step": {
      const [phase, tone] = phaseOf(b.phase);
      return { tone, what: [el("code", {}, b.primitive), ` ${phase}`] };
    }
    case "incident-closed":
      return { tone: OUTCOME[b.outcome] || "", what: [el("b", {}, words(b.outcome)), b.summary ? `: ${b.summary}` : "", el("span", { class: "soft" }, ` after ${duration(b.lasted)}`)] };
    case "service": {
      const exit = b.exit && (typeof b.exit === "string" ? b.exit : Object.entries(b.exit).map(([k, v]) => `${k} ${v}`).join(" "));
      return { tone: { healthy: "good", down: "bad", unhealthy: "warn" }[b.state] || "", what: [`${b.service} is ${b.state}`, exit ? el("span", { class: "soft" }, ` ended by ${exit}`) : null] };
    }
    case "alarm":
      return { tone: b.raised ? { critical: "bad", warning: "warn" }[b.severity] || "" : "good", what: [`alarm ${b.alarm} ${b.raised ? "raised" : "cleared"}`], sub: [b.text] };
    case "note":
      return { tone: "", what: [b.text] };
    case "boot":
      return { tone: "", what: [`agent ${b.version} started`], sub: list(b.findings) };
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

function timelineItem(e, first, home) {
  const { tone, what, sub } = describe(e);
  const shift = e.hlc_ms - first;
  const causes = list(e.causes).map((c) => c.stream === e.stream ? `#${c.seq}` : `#${c.seq} of another node`);
  const meta = [`#${e.seq}`];
  if (e.node !== home) meta.push(e.node);
  if (causes.length) meta.push(`because of ${causes.join(", ")}`);
  return el("li", { class: tone || null },
    el("time", { class: "when", datetime: iso(e.hlc_ms), title: iso(e.hlc_ms) }, `${shift < 0 ? "−" : "+"}${duration(Math.abs(shift))}`),
    el("div", { class: "what" }, el("div", {}, what),
      sub && sub.length ? el("ul", { class: "sub" }, sub.map((s) => el("li", {}, s))) : null,
      el("div", { class: "sub", title: e.kind }, meta.join(" · "))));
}

function lead(i) {
  if (i.state === "abandoned") return "The node's store was rebuilt before this ended; no end will be recorded.";
  if (i.state === "closed") return i.summary || `${words(i.outcome)}.`;
  if (i.why) return `Nothing is being done. ${i.why}`;
  if (i.step) return `${i.step}: ${i.phase}`;
  return "Open; no decision has arrived yet.";
}

function detail() {
  const back = el("a", { class: "back", href: "#/", "data-key": "back" }, "← All incidents");
  if (state.error) return [back, el("p", { class: "card quiet" }, state.error)];
  if (!state.detail) return [back, el("p", { class: "quiet" }, "Loading…")];
  const { incident: i, timeline, truncated } = state.detail;
  const facts = [
    ["Opened", el("time", { datetime: iso(i.opened_ms), title: iso(i.opened_ms) }, clock(i.opened_ms, true))],
    ["Detected after", duration(i.detected_after_ms)],
    i.state === "open" ? ["Open since", since(i.opened_ms)] : [i.outcome === "healed" ? "Healed after" : "Lasted", duration(i.lasted_ms)],
    ["Diagnosis", `${words(i.fault) || "–"}${i.symptom ? ` (${words(i.symptom)})` : ""}${i.confidence === null || i.confidence === undefined ? "" : `, ${Math.round(i.confidence * 100)} %`}`],
    ["Plan from", i.source || "–"],
    ["Cost", i.spent === null || i.spent === undefined ? `${units(i.cost)} predicted` : `${units(i.spent)} spent`],
    ["Cloud at opening", cloud(i)],
    ["Node", `${i.site}/${i.node} #${i.number}`],
  ];
  const decisions = timeline.filter((e) => e.kind === "decided" && e.body.incident === i.number && e.node === i.node);
  const first = timeline.length ? Math.min(...timeline.filter((e) => e.node === i.node).map((e) => e.hlc_ms)) : 0;
  const considered = decisions.map((d) => [
    d.body.plan === null && !list(d.body.considered).length ? el("li", {}, el("div", { class: "head" }, el("span", { class: "tag warn" }, "nothing done"), el("span", {}, i.why || "No plan was allowed."))) : null,
    list(d.body.considered).map((c) => el("li", {},
      el("div", { class: "head" },
        el("span", { class: `tag ${c.refusal ? "warn" : "good"}` }, c.refusal ? "refused" : "chosen"),
        el("code", {}, c.plan), el("span", { class: "soft" }, c.source)),
      c.refusal ? el("p", {}, el("b", {}, c.refusal.rule), `: ${c.refusal.reason}`) : null)),
  ]);
  const section = (title, ...content) => el("section", {}, el("h2", {}, title), content);
  return [
    back,
    el("h1", {}, `${words(i.fault) || "Incident"} of ${place(i)}`, outcomeTag(i)),
    el("p", { class: "lead" }, lead(i)),
    el("dl", { class: "facts-grid card" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el("div", { class: "detail-columns" },
      el("div", {},
        section("Timeline, causes before effects",
          el("ol", { class: "timeline card" }, timeline.map((e) => timelineItem(e, first, i.node))),
          truncated ? el("p", { class: "quiet" }, "Cut for length.") : null)),
      el("div", {},
        section("Options considered", decisions.length ? el("ul", { class: "considered card" }, considered.flat(2)) : el("p", { class: "card quiet" }, "No decision has arrived.")))),
  ];
}

// Showing.

function route() {
  const match = /^#\/incident\/(\d+)$/.exec(location.hash);
  return match ? Number(match[1]) : null;
}

function show() {
  const { fleet } = state;
  if (fleet) {
    const s = fleet.summary;
    $("counts").replaceChildren(
      el("span", {}, el("b", {}, `${s.online}/${s.nodes}`), " online"),
      el("span", {}, el("b", {}, s.open_incidents), " open"),
      el("span", {}, el("b", {}, s.alarms), s.alarms === 1 ? " alarm" : " alarms"));
    document.title = s.open_incidents ? `(${s.open_incidents}) Homeostat` : "Homeostat";
  }
  const banner = $("banner");
  const text = state.asOf && live.state !== "live" && live.lost ? `No connection to the coordinator. This is as of ${clock(state.asOf)}.`
    : fleet && !fleet.broker_connected ? "The coordinator does not reach the broker: presence is unknown and nothing new arrives." : "";
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
  const key = document.activeElement && document.activeElement.getAttribute("data-key");
  $("view").replaceChildren(...(route() === null ? overview() : detail()));
  if (key) {
    const again = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (again) again.focus({ preventScroll: true });
  }
}

async function get(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) { const error = new Error(body.detail || answer.statusText); error.refused = true; throw error; }
  return body;
}

let busy = false, again = false;
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const id = route();
    const wanted = Math.min(500, Math.max(PAGE, state.recent.length));
    const [fleet, open, alarms, recent] = await Promise.all([
      get("/api/v1/fleet"), get("/api/v1/incidents?state=open&limit=100"), get("/api/v1/alarms?raised=true"),
      get(`/api/v1/incidents?state=closed&limit=${wanted}`)]);
    // What needs a person first, then what waits longest.
    open.incidents.sort((a, b) => !a.why - !b.why || a.opened_ms - b.opened_ms);
    Object.assign(state, { fleet, open: open.incidents, alarms, asOf: fleet.now_ms, next: recent.next });
    state.recent = recent.incidents.sort((a, b) => b.opened_ms - a.opened_ms || b.id - a.id);
    skew = fleet.now_ms - Date.now();
    if (id !== null) {
      try {
        const found = await get(`/api/v1/incidents/${id}`);
        if (route() === id) Object.assign(state, { detail: found, error: null });
      } catch (error) {
        if (!error.refused) throw error;
        Object.assign(state, { detail: null, error: error.message });
      }
    }
    live.lost = false;
    if (live.source && live.source.readyState === EventSource.OPEN) mark("live");
  } catch (error) {
    live.lost = true;
    if (live.state === "live") mark("reconnecting");
    setTimeout(refresh, 3000);
  }
  busy = false;
  show();
  if (again) { again = false; refresh(); }
}

async function older() {
  try {
    const page = await get(`/api/v1/incidents?state=closed&limit=${PAGE}&before=${state.next}`);
    state.recent = state.recent.concat(page.incidents);
    state.next = page.next;
    show();
  } catch { mark("reconnecting"); }
}

// Live.

const live = { state: "connecting", lost: false, source: null };
function mark(what) {
  if (live.state === what) return;
  live.state = what;
  $("live").setAttribute("data-state", what);
  $("live").textContent = what;
}
let settle = 0;
function soon() {
  if (!settle) settle = setTimeout(() => { settle = 0; refresh(); }, SETTLE_MS);
}
function connect() {
  const source = new EventSource("/api/v1/live");
  live.source = source;
  source.addEventListener("hello", () => { mark("live"); refresh(); });
  source.addEventListener("change", soon);
  source.addEventListener("resync", soon);
  source.onerror = () => {
    mark("reconnecting");
    live.lost = true;
    show();
    // The browser tries again by itself, unless the answer was an error.
    if (source.readyState === EventSource.CLOSED) { source.close(); setTimeout(connect, 3000); }
  };
}

window.addEventListener("hashchange", () => {
  Object.assign(state, { detail: null, error: null });
  show();
  window.scrollTo(0, 0);
  $("main").focus({ preventScroll: true });
  refresh();
});
setInterval(() => {
  for (const node of document.querySelectorAll("[data-age]")) node.textContent = age(Number(node.getAttribute("data-age")));
}, 1000);
setInterval(refresh, REFRESH_MS);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // The hash is the route.
  $("main").focus();
});
refresh();
connect();
