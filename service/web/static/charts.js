// Surface DSC over time. Against approved contours: control charts with their limits and signals. Against supplied ones: what was measured.
import { byId, call, el, figure, newest, toast, when } from "./api.js";
import { whoIsIt } from "./page.js";

const W = 520, H = 190, LEFT = 40, RIGHT = 12, TOP = 14, BOTTOM = 24;
const SVG = "http://www.w3.org/2000/svg";
const ORIGINS = { approved: "Approved contours", supplied: "Supplied contours", shadow: "Shadow runs" };
const ABOUT = {
  approved: "Each point is a job whose contours came back approved. The first 30 of a model on a scanner make the centre line and the limits; a later point that breaks a rule is a signal. Until then the limit is that of the commissioning, if there was one, and only low points are signals.",
  supplied: "Each point is a job that came with an RTSTRUCT. Who drew that is not known here, so there are no limits; the line is the median.",
  shadow: "Each point is a job that a second model drew too, without delivering it. What it is compared with stands beside each chart: what was delivered, came with the series, or was approved. The line is the median.",
};
const SAID = { usable: "usable", needs_edits: "in need of edits", unusable: "unusable" };
const RINGS = " A ring is an organ of which somebody said that it needs edits (amber) or is unusable (red).";
const chosen = { origin: "approved", site: "", model: "", scanner: "", organ: "" };
let rules = new Map();

/** An element of an SVG picture. */
function draw(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** One chart: {oar, model, scanner, centre, limits, reason, points: [{at, job_id, value, alarms}], baseline}. */
function chart(one) {
  const values = one.points.map((point) => point.value), bounds = [...values, one.centre, one.limits?.lower, one.limits?.upper].filter((value) => value !== null && value !== undefined);
  const low = Math.max(0, Math.floor((Math.min(...bounds) - 0.02) * 20) / 20), high = Math.min(1, Math.ceil((Math.max(...bounds) + 0.01) * 20) / 20);
  const x = (i) => LEFT + ((i + 0.5) / Math.max(1, values.length)) * (W - LEFT - RIGHT), y = (value) => TOP + ((high - value) / Math.max(0.05, high - low)) * (H - TOP - BOTTOM);
  const picture = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": `${one.oar}: surface DSC of ${values.length} jobs, last ${figure(values.at(-1))}` });
  for (const mark of [low, (low + high) / 2, high]) picture.append(draw("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(mark), y2: y(mark) }), draw("text", { class: "axis", x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end" }, mark.toFixed(3).replace(/0$/, "")));
  if (one.limits) {
    picture.append(draw("rect", { class: "within", x: LEFT, width: W - LEFT - RIGHT, y: y(one.limits.upper ?? high), height: Math.max(0, y(one.limits.lower) - y(one.limits.upper ?? high)) }));
    for (const [name, value] of Object.entries(one.limits)) if (value !== null) picture.append(draw("line", { class: "limit", x1: LEFT, x2: W - RIGHT, y1: y(value), y2: y(value) }), draw("text", { class: "limit-name", x: LEFT + 3, y: y(value) + (name === "upper" ? -4 : 12) }, `${name} limit ${figure(value, 3)}`));
  }
  if (one.centre !== null && one.centre !== undefined) picture.append(draw("line", { class: "centre", x1: LEFT, x2: W - RIGHT, y1: y(one.centre), y2: y(one.centre) }));
  if (values.length > 1) picture.append(draw("polyline", { class: "run", points: values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
  one.points.forEach((point, i) => {
    const alarmed = point.alarms.length > 0, at = alarmed ? draw("rect", { class: "point alarm", x: x(i) - 4, y: y(point.value) - 4, width: 8, height: 8, transform: `rotate(45 ${x(i)} ${y(point.value)})` }) : draw("circle", { class: point.base ? "point base" : "point", cx: x(i), cy: y(point.value), r: values.length > 80 ? 2 : 3 });
    const said = SAID[point.review];
    if (said && point.review !== "usable") picture.append(draw("circle", { class: `said-ring ${point.review}`, cx: x(i), cy: y(point.value), r: 7 }));
    at.append(draw("title", {}, `${when(point.at)}: ${figure(point.value, 3)}${said ? `, said to be ${said}` : ""}${point.alarms.map((rule) => `\n${rules.get(rule) ?? rule}`).join("")}`));
    const link = draw("a", { href: `/jobs/${point.job_id}`, "aria-label": `${when(point.at)}, ${figure(point.value, 3)}${alarmed ? ", signal" : ""}${said ? `, said to be ${said}` : ""}` }, at);
    if (!alarmed) link.setAttribute("tabindex", "-1");
    picture.append(link);
  });
  if (values.length) picture.append(draw("text", { class: "axis", x: LEFT, y: H - 6 }, new Date(one.points[0].at).toLocaleDateString()), draw("text", { class: "axis", x: W - RIGHT, y: H - 6, "text-anchor": "end" }, new Date(one.points.at(-1).at).toLocaleDateString()));
  const facts = [one.centre !== null && one.centre !== undefined ? `${one.limits ? "centre" : "median"} ${figure(one.centre, 3)}` : null, one.reason, one.commissioned && `limit of ${one.commissioned.n} past patients${one.commissioned.own_scanner ? " on this scanner" : ""} (commissioned ${new Date(one.commissioned.at).toLocaleDateString()}), until ${one.baseline.needed} contours have come back; ${one.baseline.n} have`].filter(Boolean).join(" · ");
  return el("figure.chart", {}, el("figcaption", {}, el("strong", {}, one.oar), el("span.quiet", {}, [one.model && `${one.model.name} ${one.model.version}`, one.scanner, one.site && `site ${one.site}`].filter(Boolean).join(" · "))), values.length ? picture : "", el("p.quiet.small", {}, facts));
}

const median = (values) => { const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1; return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2; };

/** Charts without limits, of the rows of scores. */
function ofScores(rows) {
  const groups = new Map();
  for (const row of [...rows].reverse()) {
    if (row.surface_dsc === null) continue;
    const key = `${row.oar} ${row.model} ${row.model_version} ${row.scanner} ${row.site} ${row.shadow ? row.origin : ""}`;
    if (!groups.has(key)) groups.set(key, { oar: row.oar, model: { name: row.model, version: row.model_version }, scanner: row.scanner, site: row.site, limits: null, reason: row.shadow ? `against ${row.origin} contours` : null, points: [] });
    groups.get(key).points.push({ at: row.at, job_id: row.job_id, value: row.surface_dsc, review: row.review, alarms: [] });
  }
  return [...groups.values()].map((one) => ({ ...one, centre: median(one.points.map((point) => point.value)) }));
}

async function read() {
  if (chosen.origin === "supplied") return ofScores((await call("/v1/qa/scores?origin=supplied&limit=5000")).scores);
  if (chosen.origin === "shadow") return ofScores((await call("/v1/qa/scores?shadow=true&limit=5000")).scores);
  const drift = await call("/v1/qa/drift?points=200");
  rules = new Map(drift.rules.map((one) => [one.rule, one.meaning]));
  return drift.charts.map((one) => ({ ...one, points: [...(one.commissioned ? [] : one.baseline.points).map((point) => ({ ...point, alarms: [], base: Boolean(one.limits) })), ...one.points] }));
}

function signals(charts) {
  const found = charts.flatMap((one) => one.points.filter((point) => point.alarms.length).map((point) => ({ one, point }))).sort((a, b) => (a.point.at < b.point.at ? 1 : -1)).slice(0, 12);
  if (chosen.origin !== "approved") return [];
  if (!found.length) return [el("p.level.green", {}, el("span.dot", { "aria-hidden": "true" }, "✓"), "No chart has a signal.")];
  return [el("h2", {}, "Signals"), el("ul.signal-list", {}, ...found.map(({ one, point }) => el("li", {}, el("a", { href: `/jobs/${point.job_id}` }, when(point.at)), el("strong", {}, ` ${one.oar} `), figure(point.value, 3), ...point.alarms.map((rule) => el("span.rule", { title: rules.get(rule) ?? rule }, rule.replaceAll("_", " ")))))),
    el("dl.rules", {}, ...[...new Set(found.flatMap(({ point }) => point.alarms))].flatMap((rule) => [el("dt", {}, rule.replaceAll("_", " ")), el("dd", {}, rules.get(rule) ?? "")]))];
}

/** Whether something of this name is asked for: all, or this very one, which may be empty. */
const isChosen = (name, value) => !chosen[name] || chosen[name] === `=${value}`;

function fillChoices(all) {
  for (const [name, values] of [["model", all.map((one) => `${one.model.name} ${one.model.version}`)], ["scanner", all.map((one) => one.scanner)], ["site", all.map((one) => one.site)], ["organ", all.map((one) => one.oar)]]) {
    const select = byId(name), list = [...new Set(values)].sort();
    select.replaceChildren(el("option", { value: "" }, "all"), ...list.map((value) => el("option", { value: `=${value}` }, value || (name === "site" ? "none (an operator's)" : "unknown"))));
    select.value = list.some((value) => isChosen(name, value)) ? chosen[name] : "";
    chosen[name] = select.value;
    if (name === "site") select.parentElement.hidden = list.length < 2; // an operator's choice: a site sees itself alone
  }
}

let all = [];
function show() {
  const wanted = all.filter((one) => isChosen("model", `${one.model.name} ${one.model.version}`) && isChosen("scanner", one.scanner) && isChosen("site", one.site) && isChosen("organ", one.oar));
  byId("about").textContent = ABOUT[chosen.origin] + (chosen.origin === "shadow" ? "" : RINGS);
  byId("signals").replaceChildren(...signals(wanted));
  const rank = (one) => (one.points.some((point) => point.alarms.length) ? 0 : one.limits ? 1 : 2); // what has something to say comes first
  byId("charts").replaceChildren(...(wanted.length ? [...wanted].sort((a, b) => rank(a) - rank(b)).map(chart) : [el("p.quiet", {}, { approved: "No contours have come back yet: POST /v1/jobs/ID/reference sends them.", supplied: "No job came with an RTSTRUCT yet.", shadow: "No shadow run has ended yet (OARLOCK_SHADOW)." }[chosen.origin])]));
}

const reading = newest();

async function refresh() {
  const isNewest = reading(), found = await read();
  if (!isNewest()) return;
  all = found;
  fillChoices(all);
  show();
  document.body.dataset.ready = "true";
}

byId("origins").append(...Object.entries(ORIGINS).map(([name, title]) => el("button", { type: "button", "aria-pressed": String(name === chosen.origin), onclick: (event) => {
  chosen.origin = name;
  for (const button of byId("origins").children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
  refresh().catch((error) => toast(error.message));
} }, title)));
for (const name of ["site", "model", "scanner", "organ"]) byId(name).addEventListener("change", (event) => { chosen[name] = event.target.value; show(); });
byId("filters").addEventListener("submit", (event) => event.preventDefault());
whoIsIt().then(refresh).catch((error) => toast(error.message));
