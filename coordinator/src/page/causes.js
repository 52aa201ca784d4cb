// Why: the causal graph of an incident, who is suspected, what has the same cause, whom it
// reached, and what would have been otherwise.
//
// Arrows point from cause to effect. Nothing is told by colour alone: the root has a double
// frame and a word, who is explained away a thin grey frame and a word; dashed is a confounded
// link alone, which has no head. The list beside the picture says all that it shows.

import { clock, duration, el, iso, known, link, list, percent, plural, section, svg } from "./base.js";

const PLACES_MAX = 18; // More components than this are in the list only.
const LAYER_MAX = 6; // Components of one layer in one line of a wide picture.
const [PAD, TALL, GAP, STEP] = [8, 62, 64, 16];
const [INSET, LETTER] = [11, 6.9]; // Left of the words in a frame; the mean width of a letter.
const [LINES, LINE] = [3, 16]; // Lines of words in a frame, and their height.
const [WIDE_MIN, WIDE_MAX] = [136, 236]; // A component's frame; below the least, the picture stands upright.

export function placeWords(p) {
  switch (p.kind) {
    case "node": return `node ${p.at}`;
    case "part": return `${p.name} of ${p.at}`;
    case "dependency": return `dependency ${p.name} of ${p.at}`;
    case "route": return `route ${p.name} on ${p.at}`;
    case "backend": return `backend ${p.name} of ${p.at}`;
    case "model": return `the model of ${p.name} on ${p.at}`;
    default: return `${p.name} on ${p.at}`;
  }
}
const keyOf = (p) => `${p.kind}/${p.at}/${p.name}`;
const same = (a, b) => Boolean(a) && Boolean(b) && keyOf(a) === keyOf(b);
const share = (value) => (value > 0 && value < 0.0095 ? `${(value * 100).toFixed(1)} %` : percent(value));

// What a component is here, in a class and a word.
function role(causes, p) {
  const suspect = list(causes.suspects).find((one) => same(one.place, p));
  if (same(causes.root, p)) return { tone: "root", word: `root, ${share(suspect ? suspect.confidence : 0)} sure` };
  if (suspect && suspect.explained_by) return { tone: "explained", word: "explained away" };
  if (suspect) return { tone: "suspect", word: `suspect, ${share(suspect.confidence)}` };
  return { tone: "", word: p.level };
}

// Components by how many needs they are away from what is alarmed.
function layers(causes) {
  const places = new Map([[keyOf(causes.alarmed), { place: causes.alarmed, depth: 0 }]]);
  const directed = list(causes.links).filter((l) => !l.confounded_by);
  let next = [causes.alarmed];
  for (let depth = 1; next.length; depth += 1) {
    const found = [];
    for (const p of next) {
      for (const l of directed.filter((one) => same(one.from, p))) {
        if (!places.has(keyOf(l.to))) { places.set(keyOf(l.to), { place: l.to, depth }); found.push(l.to); }
      }
    }
    next = found;
  }
  // What no line leads to from there stands beside what is alarmed.
  const loose = list(causes.links).flatMap((l) => [l.from, l.to]).concat(list(causes.suspects).map((one) => one.place));
  for (const p of loose) if (!places.has(keyOf(p))) places.set(keyOf(p), { place: p, depth: 0 });
  // The root, suspects, and what lies on the way to them come first, if not all fit.
  const weight = ({ place, depth }) => (same(place, causes.root) || same(place, causes.alarmed) ? -100 : 0)
    + (list(causes.chain).some((one) => same(one.place, place)) ? -50 : 0)
    + (list(causes.suspects).some((one) => same(one.place, place)) ? -20 : 0) + depth;
  const all = [...places.values()].sort((a, b) => weight(a) - weight(b));
  return { shown: all.slice(0, PLACES_MAX), left: all.length - Math.min(all.length, PLACES_MAX) };
}

// A place in the picture for each component. `upright`: causes above effects.
function layout(shown, room) {
  const deepest = Math.max(...shown.map((one) => one.depth));
  const columns = deepest + 1;
  const fit = (room - 2 * PAD - deepest * GAP) / columns;
  const upright = fit < WIDE_MIN;
  const byDepth = new Map();
  for (const one of shown) byDepth.set(one.depth, [...(byDepth.get(one.depth) || []), one]);
  const boxes = new Map();
  if (!upright) {
    const wide = Math.min(WIDE_MAX, fit);
    const most = Math.max(...[...byDepth.values()].map((all) => all.length));
    const height = 2 * PAD + most * TALL + (most - 1) * STEP;
    const gap = columns > 1 ? Math.min(130, (room - 2 * PAD - columns * wide) / deepest) : 0;
    for (const [depth, all] of byDepth) {
      const own = all.length * TALL + (all.length - 1) * STEP;
      all.forEach((one, at) => boxes.set(keyOf(one.place), { ...one, x: PAD + (deepest - depth) * (wide + gap), y: (height - own) / 2 + at * (TALL + STEP) }));
    }
    return { boxes, wide, width: 2 * PAD + columns * wide + deepest * gap, height, upright };
  }
  const abreast = Math.max(1, Math.min(LAYER_MAX, Math.floor((room - 2 * PAD + STEP) / (WIDE_MIN + STEP))));
  const wide = Math.min(WIDE_MAX, (room - 2 * PAD - (abreast - 1) * STEP) / abreast);
  let y = PAD;
  for (let depth = deepest; depth >= 0; depth -= 1) {
    const all = byDepth.get(depth) || [];
    all.forEach((one, at) => {
      const line = Math.floor(at / abreast), inLine = Math.min(abreast, all.length - line * abreast);
      const left = (room - inLine * wide - (inLine - 1) * STEP) / 2;
      boxes.set(keyOf(one.place), { ...one, x: left + (at % abreast) * (wide + STEP), y: y + line * (TALL + STEP) });
    });
    const lines = Math.ceil(all.length / abreast);
    y += lines * TALL + Math.max(0, lines - 1) * STEP + (depth ? GAP * 0.7 : 0);
  }
  return { boxes, wide, width: room, height: y + PAD, upright };
}

function arrow(cause, effect, wide, upright) {
  const a = upright ? [cause.x + wide / 2, cause.y + TALL] : [cause.x + wide, cause.y + TALL / 2];
  const d = upright ? [effect.x + wide / 2, effect.y] : [effect.x, effect.y + TALL / 2];
  const [b, c] = upright ? [[a[0], (a[1] + d[1]) / 2], [d[0], (a[1] + d[1]) / 2]] : [[(a[0] + d[0]) / 2, a[1]], [(a[0] + d[0]) / 2, d[1]]];
  const head = upright ? `M${d} l-4.5 -9 l9 0z` : `M${d} l-9 -4.5 l0 9z`;
  return [`M${a} C${b} ${c} ${upright ? [d[0], d[1] - 7] : [d[0] - 7, d[1]]}`, head];
}

// Bowed, from side to side, so that it is not taken for an arrow.
function bow(one, other, wide) {
  const [a, d] = [one, other].sort((p, q) => p.y - q.y || p.x - q.x);
  if (a.y === d.y) {
    const [from, to] = [[a.x + wide / 2, a.y + TALL], [d.x + wide / 2, d.y + TALL]];
    return `M${from} Q${[(from[0] + to[0]) / 2, from[1] + 26]} ${to}`;
  }
  const side = a.x <= d.x ? 18 : wide - 18;
  const [from, to] = [[a.x + side, a.y + TALL], [d.x + side, d.y]];
  return `M${from} Q${[Math.min(from[0], to[0]) - 22, (from[1] + to[1]) / 2]} ${to}`;
}

// In at most two lines of that many letters, broken between words where that is possible.
export function wrapped(text, fits) {
  if (text.length <= fits) return [text];
  const gap = text.lastIndexOf(" ", fits);
  const [first, rest] = gap > 0 ? [text.slice(0, gap), text.slice(gap + 1)] : [text.slice(0, fits), text.slice(fits)];
  return [first, rest.length > fits ? `${rest.slice(0, fits - 1)}…` : rest];
}

function linkWords(l) {
  return l.confounded_by
    ? `${placeWords(l.from)} and ${placeWords(l.to)} may move together because both need ${placeWords(l.confounded_by)}; neither is taken for the other's cause`
    : `trouble of ${placeWords(l.to)} reaches ${placeWords(l.from)}, which needs it`;
}

function picture(causes, room) {
  const { shown, left } = layers(causes);
  const { boxes, wide, width, height, upright } = layout(shown, room);
  const fits = Math.max(8, Math.floor((wide - 2 * INSET) / LETTER));
  const lines = [];
  for (const l of list(causes.links)) {
    const [effect, cause] = [boxes.get(keyOf(l.from)), boxes.get(keyOf(l.to))];
    if (!effect || !cause) continue;
    if (l.confounded_by) {
      lines.push(svg("g", { class: "cause-link confounded" }, svg("title", {}, linkWords(l)), svg("path", { d: bow(effect, cause, wide) })));
      continue;
    }
    const [line, head] = arrow(cause, effect, wide, upright);
    const main = list(causes.chain).some((one) => same(one.place, l.from)) && list(causes.chain).some((one) => same(one.place, l.to));
    lines.push(svg("g", { class: `cause-link${main ? " main" : ""}` }, svg("title", {}, linkWords(l)), svg("path", { d: line }), svg("path", { class: "head", d: head })));
  }
  const chips = [...boxes.values()].map((box) => {
    const { tone, word } = role(causes, box.place);
    const alarmed = same(causes.alarmed, box.place);
    const name = wrapped(placeWords(box.place), fits);
    let below = wrapped(alarmed ? `alarmed${tone ? `, ${word}` : ""}` : word, Math.floor(fits * 1.1));
    if (name.length + below.length > LINES) below = [`${below[0]}…`];
    const line = (at) => (TALL - LINE * (name.length + below.length)) / 2 + LINE * at + 12;
    return svg("g", { class: `cause ${tone}${alarmed ? " alarmed" : ""}`, transform: `translate(${box.x} ${box.y})` },
      svg("title", {}, `${placeWords(box.place)}: ${alarmed ? "alarmed; " : ""}${word}`),
      tone === "root" ? svg("rect", { class: "outer", x: -4, y: -4, width: wide + 8, height: TALL + 8, rx: 10 }) : null,
      svg("rect", { width: wide, height: TALL, rx: 7 }),
      name.map((part, at) => svg("text", { class: "name", x: INSET, y: line(at) }, part)),
      below.map((part, at) => svg("text", { class: "below", x: INSET, y: line(name.length + at) + 1 }, part)));
  });
  const told = list(causes.links).map(linkWords);
  return [svg("svg", { class: "cause-graph", role: "img", "aria-labelledby": "causes-title causes-desc", viewBox: `0 0 ${width} ${height}`, width, height },
    svg("title", { id: "causes-title" }, causes.root ? `Likeliest cause: ${placeWords(causes.root)}` : "Nobody is suspected"),
    svg("desc", { id: "causes-desc" }, told.join(". ")), lines, chips),
  left ? el("p", { class: "legend soft" }, `${plural(left, "component")} more in the list.`) : null];
}

function suspectItem(causes, one) {
  return el("li", { class: one.explained_by ? "explained" : null },
    el("div", { class: "head" },
      same(causes.root, one.place) ? el("span", { class: "tag bad" }, "root") : one.explained_by ? el("span", { class: "tag" }, "explained away") : null,
      el("b", {}, placeWords(one.place)), el("span", { class: "soft" }, one.place.level),
      el("span", { class: "sure" }, `${share(one.confidence)} sure`)),
    one.explained_by ? el("p", {}, `Its trouble comes from ${placeWords(one.explained_by)}.`) : null,
    list(one.evidence).map((line) => el("p", {}, line)),
    known(one.began_ms) ? el("p", { class: "soft" }, "since ", el("time", { datetime: iso(one.began_ms) }, clock(one.began_ms, false))) : null);
}

// What the drawing means, of what is in it.
function legend(causes) {
  const sample = (kind, shape, words) => el("li", {}, svg("svg", { width: 30, height: 16, "aria-hidden": "true" }, svg("g", { class: kind }, shape)), words);
  const frame = (more) => [more ? svg("rect", { class: "outer", x: 1, y: 1, width: 28, height: 14, rx: 4 }) : null, svg("rect", { x: 4, y: 4, width: 22, height: 8, rx: 2 })];
  const some = (test) => list(causes.suspects).some(test);
  return el("ul", { class: "legend soft key" },
    list(causes.links).some((l) => !l.confounded_by) ? sample("cause-link", [svg("path", { d: "M1 8 L22 8" }), svg("path", { class: "head", d: "M29 8 l-9 -4.5 l0 9z" })], "from cause to effect") : null,
    causes.root ? sample("cause root", frame(true), "root: the likeliest cause") : null,
    some((one) => one.explained_by) ? sample("cause explained", frame(), "explained away: its trouble comes from another one") : null,
    list(causes.links).some((l) => l.confounded_by) ? sample("cause-link confounded", svg("path", { d: "M1 8 L29 8" }), "confounded: both need something that shows no trouble, so neither is taken for the other's cause") : null);
}

// Why a node suspects nobody, by how much usual behaviour it knew of.
function nobody(grade) {
  const why = { full: "nothing of it, or of what it needs, is beyond what is usual", short: "little was known of what is usual" };
  return `Nobody is suspected: ${why[grade] || "nothing was known of what is usual"}.`;
}

export function causesSection(causes, width) {
  if (!causes) return null;
  const rest = 1 - list(causes.suspects).reduce((sum, one) => sum + one.confidence, 0);
  const named = list(causes.suspects).length > 0;
  return section("a-why", "Why, as a causal graph",
    el("div", { class: "card why" },
      el("div", { class: "graph" }, picture(causes, Math.min(width - 30, width > 900 ? width * 0.58 : width - 30)),
        legend(causes)),
      el("div", {},
        causes.spared ? el("p", { class: "lead-why" }, causes.spared) : null,
        named ? null : el("p", {}, nobody(causes.grade)),
        el("ol", { class: "suspects" }, list(causes.suspects).map((one) => suspectItem(causes, one))),
        named && rest > 0.005 ? el("p", { class: "soft none-of" }, `${share(rest)} for a cause that is none of these.`) : null,
        causes.tell_apart ? el("p", { class: "tell-apart" }, el("b", {}, "What would tell "), causes.tell_apart.between.map(placeWords).join(" from "), ": look at ", el("b", {}, placeWords(causes.tell_apart.look_at)), `: ${causes.tell_apart.text}`) : null,
        el("details", {}, el("summary", {}, `The graph as a list: ${plural(list(causes.links).length, "link")}`),
          el("ul", { class: "links" }, list(causes.links).map((l) => el("li", {}, linkWords(l))))))));
}

export function groupSection(group, own) {
  if (!group) return null;
  return section("", `One cause, ${plural(group.members.length, "incident")}`, el("div", { class: "card group" },
    el("p", {}, "They come from ", el("b", {}, group.cause ? placeWords(group.cause) : "one cause"), "."),
    el("ul", {}, group.members.map((m) => el("li", {},
      same(group.cause, m.alarmed) ? el("span", { class: "tag bad" }, "root") : el("span", { class: "tag" }, m.consequence ? "consequence" : "nearest to it"), " ",
      m.incident === own ? el("b", {}, `incident ${m.incident}, this one`) : el("a", { href: link(m.incident), "data-key": `group-${m.incident}` }, `incident ${m.incident}`),
      ` ${placeWords(m.alarmed)}`, m.because ? el("span", { class: "soft" }, ` ${m.because}`) : null)))));
}

export function coincidentSection(all) {
  if (!list(all).length) return null;
  return section("", "In the same while, and no cause of both is known", el("ul", { class: "card group" }, all.map((one) => el("li", {},
    el("a", { href: link(one.incident), "data-key": `beside-${one.incident}` }, `incident ${one.incident}`), ` ${placeWords(one.alarmed)}`,
    el("span", { class: "soft" }, ` began within ${duration(Math.max(one.away_ms, 1000))}`)))));
}

const count = (value) => (known(value) ? Math.round(value).toLocaleString("en") : "–");

// For the facts of the incident: whom it reached, in a few words.
export function reachWords(impact) {
  if (!impact) return "–";
  if (known(impact.users)) return plural(impact.users, "user");
  if (known(impact.failed)) return `${count(impact.failed)} requests failed${impact.usual_unknown ? ", what always fails among them" : ""}`;
  if (known(impact.seen_failed)) return `not known yet; at opening ${share(impact.seen_failed)} of new connections failed`;
  return "not known";
}
export function burnWords(impact) {
  const burns = impact ? impact.routes.filter((r) => r.entry).flatMap((r) => r.burns) : [];
  if (!burns.length) return !impact || !impact.routes.length ? "–" : impact.routes.some((r) => r.basis === "look") ? "not known yet" : "no objective set";
  const worst = burns.reduce((a, b) => (b.spent > a.spent ? b : a));
  return `${worst.estimate ? "≈ " : ""}${share(worst.spent)} of ${duration(worst.window_ms)}, ${worst.rate.toFixed(1)}×`;
}

export function impactSection(impact) {
  if (!impact || !impact.routes.length) return null;
  const counted = (r) => (r.basis === "look"
    ? el("p", {}, "Not known yet; ", known(r.worst_failed) ? `seen at opening: ${share(r.worst_failed)} of new connections failed.` : "at opening nobody asked.")
    : el("p", {}, `${count(r.failed)} of some ${count(r.asked)} requests failed${known(r.usual_failed) ? " beyond the usual" : ", what always fails among them: what is usual is not known"}`,
      known(r.worst_failed) ? `, ${share(r.worst_failed)} at the worst time` : "", known(r.slow) ? `; about ${count(r.slow)} were too slow beyond the usual` : "",
      known(r.users) ? `; ${plural(r.users, "user")} affected over the worst five minutes${r.users_worst > r.users ? `, ${count(r.users_worst)} at the worst moment` : ""}` : "", el("span", { class: "soft" }, ` (means over ${duration(r.to_ms - r.from_ms)})`)));
  return section("", "Impact, by route", el("ul", { class: "card reach" }, impact.routes.map((r) => el("li", {},
    el("div", { class: "head" }, el("b", {}, `${r.route} on ${r.node}`), r.entry ? el("span", { class: "tag" }, "users come in here") : el("span", { class: "soft" }, "called by one that counts already")),
    counted(r),
    r.burns.length ? r.burns.map((b) => el("p", {}, `${b.objective}: burnt ${b.estimate ? "about " : ""}${b.rate.toFixed(1)} times as fast as allowed, ${share(b.spent)} of what ${duration(b.window_ms)} leave free`))
      : r.basis === "look" ? null : el("p", { class: "soft" }, "No objective is configured for it."))),
    el("li", {}, el("p", { class: "soft" }, "Failed: a connection that was refused or broke. A forwarder sees no answers: wrong ones are not among them.",
      known(impact.asked_while_wrong) ? ` About ${count(impact.asked_while_wrong)} requests came while health checks had wrong answers; how many of them were answered wrongly is not known.` : ""))));
}

export function whatIfSection(all) {
  if (!list(all).length) return null;
  return section("", "What if", el("ul", { class: "card what-if" }, all.map((one) => el("li", {},
    el("div", { class: "head" }, el("b", {}, one.question),
      el("span", {}, one.estimate ? `${share(one.estimate.share)} (${share(one.estimate.low)} to ${share(one.estimate.high)}) within ${duration(one.within_ms)}` : "not known")),
    el("p", { class: "soft" }, one.rests_on, one.estimate && !one.identified ? `; only what went along with it, not adjusted for ${one.not_adjusted_for.join(", ")}` : "", one.by ? `; ${one.by}` : "")))));
}
