// The path of traffic: callers, routes and backends of each node, drawn from
// the left to the right, one node a row; where a route leads to another node, a
// line goes to the route there. On a narrow screen, and for who cannot see the
// picture, the same as a list.
//
// Nothing is told by colour alone: what gets no traffic is dashed and labelled.

import { el, list, plural, section, svg } from "./base.js";

const ROWS_MAX = 6; // More nodes than this are in the list only.
const PARTS_MAX = 12; // Routes of a node, callers and backends of a route that are drawn.
const NARROW = 860; // Below this width the picture's text would be too small.
const GLYPH = { healthy: "●", starting: "◐", unhealthy: "▲", down: "■", standby: "○", route: "⇄" };
const COLUMN_MIN = 190; // Long chains scroll rather than shrink.
const [PAD, HEAD, ITEM, SLOT, GAP] = [14, 32, 38, 50, 62];

// What a backend gets, in a class and in words.
function condition(route, b) {
  const standby = b.leads_to && b.leads_to.state === "standby";
  const weight = b.weight === b.configured ? `${b.weight}` : `${b.weight} (${b.configured})`;
  if (standby && b.weight === 0) return { tone: "off", label: "standby", words: "standby: started when it is needed" };
  if (b.weight === 0) return { tone: "off", label: "isolated", words: `isolated: weight 0, ${b.configured} by configuration${b.healthy ? "" : ", unhealthy"}` };
  if (!b.healthy) return { tone: "bad", label: `✕ ${weight}`, words: `unhealthy: gets nothing of its weight ${b.weight}` };
  return { tone: "ok", label: weight, words: `weight ${b.weight}${b.weight === b.configured ? "" : `, ${b.configured} by configuration`}` };
}
// Its part of what the route hands out.
function share(route, b) {
  const all = list(route.backends).reduce((sum, one) => sum + (one.healthy ? one.weight : 0), 0);
  return all && b.healthy ? b.weight / all : 0;
}
function targetWords(route, b) {
  const to = b.leads_to;
  if (!to) return b.address;
  return to.route ? `route ${to.route} on ${to.node}` : to.node === route.node ? "here" : to.node;
}

// What a backend is called in its node's row; null for one on another node.
function localKey(node, b) {
  const to = b.leads_to;
  if (!to || !to.route) return `s/${b.backend}`;
  return to.node === node.node ? `r/${to.route}` : null;
}

// Column of each service and route of a node: the longest way from a caller.
function ranks(node) {
  const rank = new Map();
  const at = (key) => rank.get(key) || 0;
  for (const route of node.routes) {
    rank.set(`r/${route.route}`, 1);
    for (const caller of route.callers) rank.set(`s/${caller}`, at(`s/${caller}`));
  }
  for (let round = 0; round < 4; round += 1) { // Bounds services that call each other in a circle.
    for (const route of node.routes) {
      const key = `r/${route.route}`;
      rank.set(key, Math.min(9, Math.max(at(key), ...route.callers.map((caller) => at(`s/${caller}`) + 1))));
      for (const b of route.backends) {
        const name = localKey(node, b);
        if (name) rank.set(name, Math.min(10, Math.max(at(name), at(key) + 1)));
      }
    }
  }
  return rank;
}

function layout(nodes, room) {
  const rows = nodes.map((node) => ({ node, rank: ranks(node) }));
  const columns = 1 + Math.max(1, ...rows.flatMap((row) => [...row.rank.values()]));
  const width = Math.max(room, 2 * PAD + columns * COLUMN_MIN);
  const step = (width - 2 * PAD) / columns;
  const wide = Math.min(178, step - 70);
  const places = new Map();
  let top = 0;
  for (const row of rows) {
    const byColumn = new Map();
    for (const [key, column] of row.rank) byColumn.set(column, [...(byColumn.get(column) || []), key]);
    const most = Math.max(1, ...[...byColumn.values()].map((keys) => keys.length));
    Object.assign(row, { top, height: HEAD + most * SLOT + 8 });
    for (const [column, keys] of byColumn) {
      keys.forEach((key, index) => {
        const x = PAD + column * step + (column === columns - 1 ? step - wide : column ? (step - wide) / 2 : 0);
        const y = top + HEAD + (row.height - HEAD - 8) * ((index + 0.5) / keys.length) - ITEM / 2;
        places.set(`${row.node.node}/${key}`, { x, y, row: rows.indexOf(row) });
      });
    }
    top += row.height + GAP;
  }
  return { rows, places, wide, width, height: top - GAP };
}

function chip(box, wide, kind, glyph, name, below, title) {
  // Some 7.4 and 6.3 units for a letter; the title has the whole.
  const cut = (text, letter) => {
    const room = Math.max(6, Math.floor((wide - 35) / letter));
    return text.length > room ? `${text.slice(0, room - 1)}…` : text;
  };
  return svg("g", { class: `chip ${kind}`, transform: `translate(${box.x} ${box.y})` },
    svg("title", {}, title),
    svg("rect", { width: wide, height: ITEM, rx: kind.startsWith("route") ? ITEM / 2 : 6 }),
    svg("text", { class: "glyph", x: 12, y: ITEM / 2 + 4.5 }, glyph),
    svg("text", { class: "name", x: 29, y: below ? 16 : ITEM / 2 + 4.5 }, cut(name, 7.4)),
    below ? svg("text", { class: "below", x: 29, y: 30 }, cut(below, 6.3)) : null);
}

function bezier(p, t) {
  const u = 1 - t;
  return [0, 1].map((i) => u * u * u * p[0][i] + 3 * u * u * t * p[1][i] + 3 * u * t * t * p[2][i] + t * t * t * p[3][i]);
}
function edge(points, tone, width, label, at, title) {
  // The head points along the end of the line, which stops inside it.
  const [a, b, c, tip] = points;
  const size = 7 + 0.9 * width;
  const way = Math.hypot(tip[0] - c[0], tip[1] - c[1]) || 1;
  const [ux, uy] = [(tip[0] - c[0]) / way, (tip[1] - c[1]) / way];
  const back = (along, across) => [tip[0] - ux * along - uy * across, tip[1] - uy * along + ux * across];
  const end = back(size * 0.8, 0);
  const [x, y] = bezier(points, at);
  const line = svg("g", { class: `edge ${tone}` },
    svg("title", {}, title),
    svg("path", { d: `M${a} C${b} ${c} ${end}`, "stroke-width": width.toFixed(1) }),
    svg("path", { class: "head", d: `M${tip} L${back(size, size * 0.5)} L${back(size, -size * 0.5)}z` }));
  return [line, label ? svg("text", { class: `weight ${tone}`, x, y: y + 4, "text-anchor": "middle" }, label) : null];
}

function drawable(node) {
  const routes = node.routes.slice(0, PARTS_MAX).map((route) =>
    ({ ...route, callers: route.callers.slice(0, PARTS_MAX), backends: route.backends.slice(0, PARTS_MAX) }));
  return { ...node, routes };
}

function picture(nodes, room) {
  const { rows, places, wide, width, height } = layout(nodes, room);
  const lines = [], labels = [], boxes = [], chips = [];
  const draw = (...what) => { const [line, label] = edge(...what); lines.push(line); labels.push(label); };
  for (const row of rows) {
    const { node } = row;
    const here = (key) => places.get(`${node.node}/${key}`);
    const away = node.presence === "offline" ? " · offline, as last known" : node.presence === "unknown" ? " · as last known" : "";
    const rest = node.services.filter((s) => !row.rank.has(`s/${s.service}`));
    boxes.push(svg("g", { class: `node${away ? " stale" : ""}` },
      svg("rect", { x: 0.5, y: row.top + 0.5, width: width - 1, height: row.height, rx: 8 }),
      svg("text", { x: PAD, y: row.top + 21 }, svg("tspan", { class: "name" }, node.node), svg("tspan", { class: "soft" }, `  ${node.site}${away}`)),
      rest.length ? svg("text", { class: "soft", x: width - PAD, y: row.top + 21, "text-anchor": "end" },
        `not behind a route: ${rest.map((s) => `${GLYPH[s.state] || ""} ${s.service}${s.state === "healthy" ? "" : ` ${s.state}`}`).join(", ")}`) : null));
    const old = away ? " stale" : "";
    for (const [key] of row.rank) {
      const name = key.slice(2);
      if (key.startsWith("r/")) {
        const route = node.routes.find((one) => one.route === name);
        chips.push(chip(here(key), wide, `route${route.reached ? "" : " unreached"}${old}`, GLYPH.route, name,
          route.reached ? route.listen : "no word from it", `route ${name} of ${node.node} at ${route.listen}`));
      } else {
        const service = node.services.find((s) => s.service === name);
        const stranger = node.routes.flatMap((r) => r.backends).find((b) => b.backend === name);
        const state = service ? service.state : "unknown";
        chips.push(chip(here(key), wide, `${state}${old}`, old ? "○" : GLYPH[state] || "◇", name,
          service ? (state === "healthy" ? null : state) : stranger ? stranger.address : "not told", `${name} on ${node.node}: ${state}`));
      }
    }
    for (const route of node.routes) {
      const from = here(`r/${route.route}`);
      for (const caller of route.callers) {
        const box = here(`s/${caller}`);
        const a = [box.x + wide, box.y + ITEM / 2], d = [from.x, from.y + ITEM / 2], mid = (a[0] + d[0]) / 2;
        draw([a, [mid, a[1]], [mid, d[1]], d], "call", 1.5, null, 0.5, `${caller} calls through ${route.route}`);
      }
      for (const b of route.backends) {
        const { tone, label, words } = condition(route, b);
        const near = localKey(node, b);
        const to = near ? here(near) : places.get(`${b.leads_to.node}/r/${b.leads_to.route}`);
        if (!to) continue;
        const size = 1.5 + 5 * share(route, b);
        const title = `${route.route} on ${node.node} to ${b.backend} (${targetWords(route, b)}): ${words}`;
        if (near) {
          const a = [from.x + wide, from.y + ITEM / 2], d = [to.x, to.y + ITEM / 2], mid = (a[0] + d[0]) / 2;
          draw([a, [mid, a[1]], [mid, d[1]], d], tone, size, label, 0.55, title);
          continue;
        }
        // Down on the left half, up on the right; the farther the more outside,
        // in a bow around the rows between.
        const down = to.row > from.row, span = Math.abs(to.row - from.row);
        const side = down ? -1 : 1;
        const port = side * Math.min(wide / 2 - ITEM / 2 - 4, 20 + 44 * (span - 1));
        const bow = span > 1 ? side * ((wide / 2 + 22 - Math.abs(port)) / 0.75) : 0;
        const a = [from.x + wide / 2 + port, from.y + (down ? ITEM : 0)];
        const d = [to.x + wide / 2 + port, to.y + (down ? 0 : ITEM)];
        const dy = (d[1] - a[1]) * (span > 1 ? 0.22 : 0.5);
        draw([a, [a[0] + bow, a[1] + dy], [d[0] + bow, d[1] - dy], d], tone, size, label, span > 1 ? 0.5 / (span + 1) : 0.38, title);
      }
    }
  }
  const told = nodes.flatMap((n) => n.routes).map((r) => `${r.route} on ${r.node}: ${r.backends.map((b) => `${b.backend} ${condition(r, b).words}`).join("; ")}`);
  return svg("svg", { class: "traffic", role: "img", "aria-labelledby": "traffic-title traffic-desc", viewBox: `0 0 ${width} ${height + 1}`, width, height: height + 1 },
    svg("title", { id: "traffic-title" }, "The path of traffic"), svg("desc", { id: "traffic-desc" }, told.join(". ")),
    boxes, lines, chips, labels);
}

function routeItem(route) {
  return el("li", {},
    el("div", { class: "head" }, el("b", {}, route.route), el("span", { class: "soft" }, `on ${route.node} · ${route.listen}`),
      route.reached ? null : el("span", { class: "tag warn" }, "no word from the forwarder")),
    el("p", { class: "soft" }, route.callers.length ? `called by ${route.callers.join(", ")}` : "called by nobody here"),
    el("ul", { class: "backends" }, route.backends.map((b) => {
      const { tone, label, words } = condition(route, b);
      const percent = Math.round(100 * share(route, b));
      return el("li", { class: tone },
        el("span", { class: "to" }, b.backend, " ", el("span", { class: "soft" }, targetWords(route, b) === "here" ? "" : `→ ${targetWords(route, b)}`)),
        el("meter", { min: 0, max: 100, value: percent, title: `${percent} % of new connections` }),
        el("span", { class: `tag ${tone === "bad" ? "bad" : tone === "off" ? "warn" : ""}`, title: words }, label));
    })));
}

// `width`: what the page has for it; `open`: whether the list below the picture
// is unfolded, and who wants to know when that changes.
export function traffic(fleet, width, open, toggled) {
  const nodes = fleet.nodes.filter((node) => node.routes.length);
  if (!nodes.length) return null;
  const routes = nodes.flatMap((node) => node.routes);
  const items = el("ul", { class: "routes" }, routes.map(routeItem));
  const legend = "Numbers are weights, in parentheses by configuration where that differs. Dashed gets no new connections.";
  const hint = (more) => el("p", { class: "legend soft" }, legend, more ? " Not all fit into the picture; the list has them." : null);
  if (width < NARROW) return section("a-traffic", "The path of traffic", el("div", { class: "card" }, items), hint(false));
  const shown = nodes.slice(0, ROWS_MAX).map(drawable);
  const cut = nodes.length > ROWS_MAX || nodes.some((node) => node.routes.length > PARTS_MAX) || routes.some((r) => r.backends.length > PARTS_MAX || r.callers.length > PARTS_MAX);
  return section("a-traffic", "The path of traffic",
    el("div", { class: "card picture" }, picture(shown, width - 30)), hint(cut),
    el("details", { open, ontoggle: (event) => toggled(event.target.open) },
      el("summary", {}, `As a list: ${plural(routes.length, "route")} of ${plural(nodes.length, "node")}`),
      el("div", { class: "card" }, items)));
}
