// Elements, numbers, times and words. Everything from the network becomes a
// text node or an attribute that cannot run; nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}
export const el = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
export const $ = (id) => document.getElementById(id);
export const list = (value) => (Array.isArray(value) ? value : []);
export const known = (value) => value !== null && value !== undefined;

// Server clock minus ours.
let skew = 0;
export function setSkew(ms) { skew = ms; }
export const now = () => Date.now() + skew;

export function duration(ms) {
  if (!known(ms)) return "–";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.floor(ms / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (d) return `${d} d ${h % 24} h`;
  if (h) return `${h} h ${m % 60} min`;
  return `${m} min ${s % 60} s`;
}
export function age(ms) {
  const past = now() - ms;
  if (past < -5000) return `${duration(-past)} ahead`;
  if (past < 1000) return "now";
  const s = Math.floor(past / 1000);
  return `${s < 60 ? `${s} s` : duration(past)} ago`;
}
export function since(ms) {
  return el("time", { class: "age", datetime: iso(ms), title: iso(ms), "data-age": ms }, age(ms));
}
export function iso(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString();
}
const pad = (n, w) => String(n).padStart(w || 2, "0");
export function clock(ms, millis) {
  const d = new Date(ms);
  if (Number.isNaN(d.getTime())) return String(ms);
  const time = `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}${millis ? `.${pad(d.getMilliseconds(), 3)}` : ""}`;
  if (d.toDateString() === new Date(now()).toDateString()) return time;
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${time}`;
}
export function plural(n, one, many) { return `${n} ${n === 1 ? one : many || `${one}s`}`; }
export function words(name) { return String(name || "").replace(/[-_]/g, " "); }
export function units(value) { return known(value) ? `${Number(value.toPrecision(3))} cap·s` : "–"; }
export function percent(value) { return known(value) ? `${Math.round(value * 100)} %` : "–"; }

const OUTCOME = { healed: "good", recovered: "good", undone: "warn", refused: "warn", escalated: "bad", open: "bad", abandoned: "" };
export function outcomeOf(i) { return i.state === "closed" ? i.outcome || "closed" : i.state; }
export function outcomeTone(outcome) { return OUTCOME[outcome] || ""; }
export function outcomeTag(i) { const o = outcomeOf(i); return el("span", { class: `tag ${outcomeTone(o)}` }, o); }
export function sourceTag(source) { return source ? el("span", { class: "tag" }, source) : null; }
export function link(id) { return `#/incident/${id}`; }
export function cloud(i) { return known(i.connected) ? (i.connected ? "connected" : "offline") : "–"; }
export function place(i) { return `${i.service || "unknown service"} on ${i.node}`; }
export function section(area, title, ...content) { return el("section", { class: area }, el("h2", {}, title), content); }
