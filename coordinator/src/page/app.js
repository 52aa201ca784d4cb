// The page: fetches what it shows, shows it, and fetches again when the server
// says that something changed.

import { $, age, clock, el, list, setSkew } from "./base.js";
import { incidentPage } from "./incident.js";
import { overview } from "./overview.js";
import { timelinePage } from "./timeline.js";

const PAGE = 50;
const EVENTS = 100;
const PLANS_MAX = 6; // Open incidents whose steps are shown on the overview.
const REFRESH_MS = 30000; // In case a proxy swallows the live events.
const SETTLE_MS = 120; // One fetch for a burst of changes.

const state = {
  fleet: null, open: [], alarms: [], recent: [], next: null, left: [], plans: new Map(), unfolded: false, aside: false,
  detail: null, error: null, timeline: null, timelineNext: null, events: EVENTS, asOf: null,
};

function route() {
  const match = /^#\/incident\/(\d+)$/.exec(location.hash);
  if (match) return { page: "incident", id: Number(match[1]) };
  return { page: location.hash === "#/timeline" ? "timeline" : "overview" };
}

function content() {
  switch (route().page) {
    case "incident": return incidentPage(state, $("view").clientWidth, () => { state.aside = !state.aside; show(); });
    case "timeline": return timelinePage(state, olderEvents);
    default: return overview(state, $("view").clientWidth, older, (open) => { state.unfolded = open; });
  }
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
  $("view").replaceChildren(...content().filter(Boolean));
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

// Incidents come with what their node's clock was off by then.
function moveIncidents(all) {
  for (const one of all) {
    const off = one.opened_ms - one.opened_at_ms;
    one.opened_ms -= off;
    if (one.closed_ms) one.closed_ms -= off;
  }
}

// An incident, or why there is none.
async function detail(id) {
  try {
    return { detail: await get(`/api/v1/incidents/${id}`), error: null };
  } catch (error) {
    if (!error.refused) throw error;
    return { detail: null, error: error.message };
  }
}

let busy = false, again = false;
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const { page, id } = route();
    const wanted = Math.min(500, Math.max(PAGE, state.recent.length));
    const [fleet, open, alarms, recent, left, across] = await Promise.all([
      get("/api/v1/fleet"), get("/api/v1/incidents?state=open&limit=100"), get("/api/v1/alarms?raised=true"),
      get(`/api/v1/incidents?state=closed&limit=${wanted}`), get("/api/v1/left-alone"), get("/api/v1/plans")]);
    // Nodes' own times, moved to the coordinator's clock.
    const ahead = new Map(fleet.nodes.map((n) => [n.node, n.clock_ahead_ms || 0]));
    const move = (all, ...fields) => {
      for (const one of all) for (const field of fields) if (one[field]) one[field] -= ahead.get(one.node) || 0;
    };
    move(alarms, "since_ms");
    moveIncidents(open.incidents);
    moveIncidents(recent.incidents);
    for (const n of fleet.nodes) move(n.services, "since_ms");
    // What needs a person first, then what waits longest.
    open.incidents.sort((a, b) => !a.why - !b.why || a.opened_ms - b.opened_ms);
    Object.assign(state, { fleet, open: open.incidents, alarms, left, across, asOf: fleet.now_ms, next: recent.next });
    state.recent = recent.incidents.sort((a, b) => b.opened_ms - a.opened_ms || b.id - a.id);
    setSkew(fleet.now_ms - Date.now());
    if (page === "incident") {
      const found = await detail(id);
      if (found.detail) moveIncidents([found.detail.incident]);
      if (route().id === id) Object.assign(state, found);
    } else if (page === "timeline") {
      const found = await get(`/api/v1/timeline?limit=${state.events}`);
      Object.assign(state, { timeline: found.events, timelineNext: found.next });
    } else {
      const planned = state.open.filter((i) => i.plan).slice(0, PLANS_MAX);
      const found = await Promise.all(planned.map((i) => detail(i.id)));
      state.plans = new Map(planned.map((i, at) => [i.id, found[at].detail]));
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
    const { next } = state;
    const page = await get(`/api/v1/incidents?state=closed&limit=${PAGE}&before=${next}`);
    state.recent = state.recent.concat(list(page.incidents));
    state.next = page.next;
    refresh(); // Which asks for as many as are shown now.
  } catch { mark("reconnecting"); }
}

// The server answers at most 500 at once; older ones are for its API.
function olderEvents() {
  state.events = Math.min(500, state.events + EVENTS);
  refresh();
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
  Object.assign(state, { detail: null, error: null, aside: false });
  show();
  window.scrollTo(0, 0);
  $("main").focus({ preventScroll: true });
  refresh();
});
let width = window.innerWidth;
window.addEventListener("resize", () => {
  // The picture is laid out for the width; a phone's toolbars change only the height.
  if (window.innerWidth !== width) { width = window.innerWidth; show(); }
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
