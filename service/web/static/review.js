// The review page: three cuts, the organs, the findings. Read only: contours are corrected in the planning system.
import { byId, call, el, figure, level, ml, toast, when } from "./api.js";
import { Geometry, lookUp, Plane, PLANES } from "./planes.js";
import { whoIsIt } from "./page.js";
import { Volume } from "./volume.js";

const WINDOWS = [["Soft tissue", 40, 400], ["Brain", 40, 80], ["Bone", 400, 1800], ["Lung", -600, 1500]];
const KEYS = [
  ["↑ ↓ ← →, wheel", "one slice on or back"], ["Page Up, Page Down", "five slices"], ["Home, End", "last and first slice"],
  ["A C S", "axial, coronal, sagittal"], ["F", "one cut fills the page"], ["+ −, Ctrl + wheel", "zoom"], ["0", "whole cut"],
  ["middle drag, Space + drag", "move the cut"], ["click, drag", "move the cross"], ["X", "cross on and off"],
  ["1 2 3 4", "soft tissue, brain, bone, lung"], ["right drag, Shift + drag", "window: ↔ width, ↕ level"],
  ["[ ]", "organ before, next organ"], ["H", "hide or show the organ"], ["O", "all contours on and off"],
  ["N P", "next finding, finding before"], ["U E D", "the organ is usable, needs edits, is unusable"], ["R", "next reference"], ["Escape", "no organ chosen"], ["?", "this list"],
];
const ORDER = { red: 0, amber: 1, green: 2 };

const job = byId("main").dataset.job;
const state = { volume: null, geometry: null, lut: null, at: [0, 0, 0], level: 40, width: 400, organs: [], hidden: new Set(), chosen: null, contours: true, cross: true, overlay: -1, findings: [], finding: -1, qa: null, version: 0, reviews: new Map(), may: false };
const planes = new Map();
const SAID = { usable: ["Usable", "u", "✓"], needs_edits: ["Needs edits", "e", "✎"], unusable: ["Unusable", "d", "✕"] };
let active = "axial", waiting = false;

// ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

const dirty = new Set();
/** Draw planes (all without a name) before the next frame; what they show of the state may be another than before. */
function redraw(...names) {
  state.version += 1;
  paint(...names);
}

/** The same where only the place, the zoom or the words may be others. */
function paint(...names) {
  (names.length ? names : PLANES).forEach((name) => dirty.add(name));
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!state.volume) return;
    for (const name of dirty) planes.get(name).draw();
    dirty.clear();
  });
}

function fit() {
  const ratio = window.devicePixelRatio || 1;
  for (const plane of planes.values()) {
    const { clientWidth, clientHeight } = plane.canvas.parentElement;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (plane.canvas.width !== width || plane.canvas.height !== height) Object.assign(plane.canvas, { width, height });
  }
  redraw();
}

// ── what the state is changed by ────────────────────────────────────────────────────────────────────────────────────────

function go(at) {
  state.at = at.map((value, axis) => Math.max(0, Math.min(state.volume.size[axis] - 1, Math.round(value))));
  paint();
}

function scroll(plane, steps) {
  const at = [...state.at];
  at[plane.axis] += steps * (plane.name === "axial" ? 1 : 2);
  go(at);
}

function zoom(plane, factor, x = plane.canvas.width / 2, y = plane.canvas.height / 2) {
  const held = plane.toMm(x, y);
  plane.zoom = Math.max(0.5, Math.min(24, plane.zoom * factor));
  const [nx, ny] = plane.toScreen(held);
  plane.pan = [plane.pan[0] + x - nx, plane.pan[1] + y - ny];
  paint(plane.name);
}

function setWindow(level, width) {
  Object.assign(state, { level: Math.round(level), width: Math.max(1, Math.round(width)) });
  state.lut = lookUp(state.volume.head.hu, state.level, state.width);
  const preset = WINDOWS.findIndex(([, l, w]) => l === state.level && w === state.width);
  byId("window").value = String(preset);
  redraw();
}

function choose(name, { move = true, at = null } = {}) {
  state.chosen = name;
  const organ = state.organs.find((one) => one.name === name);
  if (organ) state.hidden.delete(name);
  if (organ && move) go(at ?? middle(organ));
  for (const row of byId("organs").children) {
    row.classList.toggle("chosen", row.dataset.organ === name);
    row.querySelector(".pick-organ").setAttribute("aria-pressed", String(row.dataset.organ === name));
  }
  byId("organs").querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  markHidden();
  showChosen(organ);
  redraw();
}

/** The largest slice of an organ, and there its middle. Of one that is not drawn: opposite its twin, or where the page stands. */
function middle(organ, slice = null) {
  const twin = state.organs.find((one) => one.name !== organ.name && one.name.slice(0, -2) === organ.name.slice(0, -2) && one.box);
  const drawn = organ.box ? organ : organ.reference ?? twin;
  if (!drawn?.box) return [slice ?? state.at[0], ...state.at.slice(1)];
  const [[z0, z1], [y0, y1], [x0, x1]] = drawn.box, [, oy, ox] = state.volume.first;
  const z = slice ?? z0 + drawn.areas.indexOf(Math.max(...drawn.areas));
  const centre = [(z0 + z1 - 1) / 2, (y0 + y1 - 1) / 2 - oy, (x0 + x1 - 1) / 2 - ox];
  if (drawn === twin) centre[2] = 2 * midline() - centre[2]; // it is looked for on its own side
  return [z, state.geometry.along(centre, z, 1), state.geometry.along(centre, z, 2)];
}

/** Where the body's middle is, in columns of what is shown: that of an organ without a side, else of the picture. */
function midline() {
  const middle = ["Brainstem", "Brain", "SpinalCord"].map((name) => state.organs.find((organ) => organ.name === name)?.box).find(Boolean);
  return middle ? (middle[2][0] + middle[2][1] - 1) / 2 - state.volume.first[2] : (state.volume.size[2] - 1) / 2;
}

/** Where a finding shows best; a report of an earlier version does not say it. */
function place(finding) {
  const organ = state.organs.find((one) => one.name === finding.oar), z = sliceOf(finding);
  return organ ? middle(organ, z < 0 ? null : z) : [z < 0 ? state.at[0] : z, ...state.at.slice(1)];
}

const sliceOf = (finding) => (finding.slices ? state.volume.head.slice_numbers.indexOf(finding.slices.best) : -1);

/** A finding as a button that stands the page on its slice. */
const findingButton = (finding, onclick) => el("button.finding", { type: "button", onclick }, level(finding.level), el("span", {}, finding.reason, finding.slices ? el("span.quiet", {}, ` Slice\u00a0${finding.slices.best}.`) : ""));

function toFinding(number) {
  if (!state.findings.length) return;
  state.finding = (number + state.findings.length) % state.findings.length;
  const finding = state.findings[state.finding];
  choose(finding.oar, { at: place(finding) });
  [...byId("findings").children].forEach((row, i) => row.classList.toggle("chosen", i === state.finding));
  byId("findings").children[state.finding]?.scrollIntoView({ block: "nearest" });
}

function setOverlay(number) {
  state.overlay = number;
  byId("overlay").value = String(number);
  const overlay = state.volume.head.overlays[number];
  for (const organ of state.organs) organ.reference = overlay?.organs.find((one) => one.name === organ.name) ?? null;
  showChosen(state.organs.find((one) => one.name === state.chosen));
  listOrgans();
  redraw();
}

function toggleOrgan(name) {
  if (state.hidden.has(name)) state.hidden.delete(name); else state.hidden.add(name);
  markHidden();
  redraw();
}

function activate(name) {
  active = name;
  for (const plane of planes.values()) plane.canvas.parentElement.classList.toggle("active", plane.name === name);
  byId("planes").dataset.active = name;
}

// ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

function markHidden() {
  for (const row of byId("organs").children) {
    const off = state.hidden.has(row.dataset.organ), eye = row.querySelector(".eye");
    row.classList.toggle("off", off);
    eye.setAttribute("aria-pressed", String(!off));
  }
  byId("all-organs").textContent = state.hidden.size < state.organs.length ? "Hide all" : "Show all";
}

function listOrgans() {
  const scores = comparison();
  byId("organs").replaceChildren(...state.organs.map((organ) => {
    const verdict = state.qa?.organs?.find((one) => one.oar === organ.name), score = scores.get(organ.name);
    const row = el("li.row", {},
      el("button.eye", { type: "button", "aria-pressed": "true", "aria-label": `Show ${organ.name}`, onclick: () => toggleOrgan(organ.name) }, swatch(organ.colour)),
      el("button.pick-organ", { type: "button", "aria-pressed": "false", onclick: () => choose(organ.name) },
        el("span.name", {}, organ.name, mark(organ.name)), el("span.number", {}, score ? figure(score.surface_dsc) : ""), el("span.number", {}, ml(organ.volume_ml)), verdict ? level(verdict.verdict) : el("span")));
    row.dataset.organ = organ.name;
    return row;
  }));
  for (const row of byId("organs").children) row.classList.toggle("chosen", row.dataset.organ === state.chosen);
  markHidden();
}

/** What was said of an organ, as a sign behind its name. */
function mark(name) {
  const said = state.reviews.get(name);
  return said ? el(`span.said.${said.verdict}`, { title: `${SAID[said.verdict][0]}, says ${said.by}` }, ` ${SAID[said.verdict][2]}`, el("span.hidden", {}, SAID[said.verdict][0])) : "";
}

/** Write down what somebody says of organs. */
async function say(names, verdict, comment = null) {
  if (!state.may || !names.length) return;
  const organs = names.map((oar) => ({ oar, verdict, comment }));
  const told = await call(`/v1/jobs/${job}/reviews`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ organs }) });
  for (const one of told) if (!(state.reviews.get(one.oar)?.at > one.at)) state.reviews.set(one.oar, one); // an answer that comes late lacks what was said since
  listOrgans();
  showChosen(state.organs.find((one) => one.name === state.chosen));
  toast(names.length > 1 ? `${names.length} organs: ${SAID[verdict][0].toLowerCase()}` : `${names[0]}: ${SAID[verdict][0].toLowerCase()}`);
}

const sayChosen = (verdict) => state.chosen && say([state.chosen], verdict, byId("comment")?.value.trim() || null).catch((error) => toast(error.message));

/** The buttons with which an organ is judged, and what was said of it last. */
function judging(organ) {
  const said = state.reviews.get(organ.name), drawn = state.organs.filter((one) => one.volume_ml > 0), open = drawn.filter((one) => !state.reviews.has(one.name));
  const told = said ? el("p.quiet", {}, `${SAID[said.verdict][0]}, says ${said.by}, ${when(said.at)}`, said.comment ? `: “${said.comment}”` : "") : "";
  if (!state.may) return told;
  return el("div.judging", {},
    el("div.buttons", { role: "group", "aria-label": `Your verdict on ${organ.name}` }, ...Object.entries(SAID).map(([verdict, [word, key]]) => el(`button.say.${verdict}`, { type: "button", "aria-pressed": String(said?.verdict === verdict), title: `Key ${key.toUpperCase()}`, onclick: () => sayChosen(verdict) }, word))),
    el("input", { id: "comment", maxlength: "500", placeholder: "Comment (optional)", "aria-label": `Comment on ${organ.name}` }),
    told,
    open.length ? el("button.quiet", { type: "button", onclick: () => say(open.map((one) => one.name), "usable").catch((error) => toast(error.message)) }, open.length < drawn.length ? `The other ${open.length} are usable` : `All ${drawn.length < state.organs.length ? "drawn " : ""}organs are usable`) : "");
}

/** A patch of colour; a style attribute would be against the page's policy. */
function swatch(colour) {
  const made = el("span.swatch", { "aria-hidden": "true" });
  made.style.setProperty("--colour", colour);
  return made;
}

/** The comparison that an overlay is of: supplied ones are in their order, returned ones know their position. */
function compared(number) {
  const overlay = state.volume.head.overlays[number], all = state.qa?.comparisons ?? [];
  if (!overlay) return undefined;
  const same = all.filter((one) => one.origin === overlay.origin);
  return overlay.origin === "supplied" ? same[number] : same.find((one) => one.position === overlay.position);
}

/** Scores of the overlay that is shown, by organ. */
const comparison = () => new Map((compared(state.overlay)?.oars ?? []).map((score) => [score.oar, score]));

/** What an overlay is called, in the list and beside its numbers. */
function overlayName(number) {
  const { origin, position, superseded } = state.volume.head.overlays[number], label = compared(number)?.reference.label;
  const name = origin === "supplied" ? `Supplied ${number + 1}` : `Returned ${position}`;
  return `${name}${label ? `: ${label}` : ""}${superseded ? " (superseded)" : ""}`;
}

function listFindings() {
  const told = (state.qa?.checks ?? []).filter((check) => check.level !== "green" && check.oar);
  const organs = (state.qa?.organs ?? []).map((one) => one.oar);
  told.sort((a, b) => ORDER[a.level] - ORDER[b.level] || organs.indexOf(a.oar) - organs.indexOf(b.oar));
  const strongest = new Set((state.qa?.organs ?? []).filter((one) => one.verdict !== "green").map((one) => `${one.oar} ${one.code}`));
  state.findings = told.filter((check) => strongest.has(`${check.oar} ${check.code}`));
  byId("findings-count").textContent = state.findings.length ? `${state.findings.length} organs · N for the next` : "";
  byId("findings").replaceChildren(...(state.findings.length ? state.findings.map((finding, i) => el("li.row", {}, findingButton(finding, () => toFinding(i)))) : [el("li.empty", {}, state.qa?.verdict ? "The checks that need no reference found nothing." : "The version that drew these contours did not check them: look at every organ.")]));
}

/** A coefficient and its tolerance, with the digits of the report. */
const scoreAt = (value, mm) => (value === null || value === undefined ? "not defined" : `${figure(value, 3)} at ${figure(mm, 2, "mm")}`);

function showChosen(organ) {
  const panel = byId("chosen");
  if (!organ) {
    panel.replaceChildren(el("h2", {}, "No organ chosen"), el("p.quiet", {}, "Choose one in the list, click a finding, or press ]."));
    return;
  }
  const score = comparison().get(organ.name), others = (state.qa?.checks ?? []).filter((check) => check.oar === organ.name && check.level !== "green");
  const beyond = state.volume.overlays[state.overlay]?.beyond.get(organ.name);
  const facts = [["Volume", ml(organ.volume_ml)]];
  if (score) {
    facts.push([state.volume.head.overlays[state.overlay].origin === "approved" ? "Returned" : "Reference", ml(score.reference_volume_ml)]);
    if (score.presence === "both") facts.push(["Surface DSC", scoreAt(score.surface_dsc, score.tolerance_rounded_mm)], ["… not rounded", scoreAt(score.surface_dsc_unrounded, score.tolerance_mm)], ["Volumetric DSC", figure(score.volumetric_dsc)], ["HD 95", figure(score.hausdorff_95_mm, 1, "mm")], ["Mean distance", figure(score.mean_surface_distance_mm, 1, "mm")]);
  }
  panel.replaceChildren(
    el("h2", {}, swatch(organ.colour), organ.name),
    judging(organ),
    el("dl.facts", {}, ...facts.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])),
    score?.reason ? el("p.quiet", {}, score.reason) : null ?? "",
    beyond && beyond.predicted.count + beyond.reference.count > 0 ? el("p.quiet", {}, el("span.red-line"), " red: surface beyond the tolerance") : "",
    ...others.map((check) => el("p.check", {}, findingButton(check, () => go(place(check))))));
}

function fillHead(document) {
  const { model, created_at, series, warnings } = document;
  byId("model").textContent = `${model.name} ${model.version}`;
  byId("model").title = `drawn by ${model.name} ${model.version}, sha256 ${model.sha256}`;
  byId("facts").textContent = `${series.slices} slices of ${series.spacing_mm[0].toFixed(1)} mm · ${when(created_at)}`;
  if (warnings.length) byId("verdict").before(el("button.warn", { type: "button", title: warnings.map((one) => one.detail).join("\n"), onclick: () => toast(warnings.map((one) => one.detail).join("  ·  ")) }, `${warnings.length} warning${warnings.length > 1 ? "s" : ""}`));
}

// ── mouse and keys ──────────────────────────────────────────────────────────────────────────────────────────────────────

function listen(plane) {
  const { canvas } = plane, figureOf = canvas.parentElement;
  let held = null;
  const point = (event) => { const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width; return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio]; };
  figureOf.addEventListener("focus", () => activate(plane.name));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!state.volume) return;
    if (event.ctrlKey || event.metaKey) zoom(plane, Math.exp(-event.deltaY / 300), ...point(event));
    else scroll(plane, (event.deltaY > 0 ? -1 : 1) * (plane.name === "axial" ? 1 : -1));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (!state.volume) return;
    figureOf.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const kind = event.button === 1 || spaceHeld ? "pan" : event.button === 2 || event.shiftKey ? "window" : "cross";
    held = { kind, x: event.clientX, y: event.clientY, pan: [...plane.pan], level: state.level, width: state.width };
    if (kind === "cross") go(plane.voxelAt(...point(event)));
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!state.volume) return;
    if (!held) return hover(plane, point(event));
    const ratio = window.devicePixelRatio || 1, dx = event.clientX - held.x, dy = event.clientY - held.y;
    if (held.kind === "pan") { plane.pan = [held.pan[0] + dx * ratio, held.pan[1] + dy * ratio]; paint(plane.name); }
    else if (held.kind === "window") setWindow(held.level + dy * Math.max(1, held.width / 300), held.width + dx * Math.max(1, held.width / 200));
    else go(plane.voxelAt(...point(event)));
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (held = null));
  canvas.addEventListener("pointerleave", () => { plane.pointer = null; paint(plane.name); });
}

let spaceHeld = false;

function hover(plane, [x, y]) {
  const [z, row, column] = plane.voxelAt(x, y), { volume } = state, step = volume.head.window.step, image = volume.images[z];
  const grey = image?.[Math.floor(row / step) * volume.columns + Math.floor(column / step)], far = plane.farAt(x, y);
  plane.pointer = [grey === undefined ? null : `≈ ${volume.head.hu[grey]} HU`, far ? `${far.mm.toFixed(1)} mm from ${far.dashed ? "ours" : "the other contour"}` : null].filter(Boolean).join(" · ");
  paint(plane.name);
}

const next = (step) => {
  const names = state.organs.map((organ) => organ.name), here = names.indexOf(state.chosen);
  choose(names[(here + step + names.length + (here < 0 && step < 0 ? 1 : 0)) % names.length]);
};

const ACTIONS = {
  ArrowUp: () => scroll(planes.get(active), 1), ArrowDown: () => scroll(planes.get(active), -1), ArrowRight: () => scroll(planes.get(active), 1), ArrowLeft: () => scroll(planes.get(active), -1),
  PageUp: () => scroll(planes.get(active), 5), PageDown: () => scroll(planes.get(active), -5),
  Home: () => scroll(planes.get(active), 1e6), End: () => scroll(planes.get(active), -1e6),
  a: () => planes.get("axial").canvas.parentElement.focus(), c: () => planes.get("coronal").canvas.parentElement.focus(), s: () => planes.get("sagittal").canvas.parentElement.focus(),
  f: () => { byId("planes").classList.toggle("one"); fit(); },
  "+": () => zoom(planes.get(active), 1.25), "=": () => zoom(planes.get(active), 1.25), "-": () => zoom(planes.get(active), 0.8),
  0: () => { Object.assign(planes.get(active), { zoom: 1, pan: [0, 0] }); paint(active); },
  1: () => setWindow(...WINDOWS[0].slice(1)), 2: () => setWindow(...WINDOWS[1].slice(1)), 3: () => setWindow(...WINDOWS[2].slice(1)), 4: () => setWindow(...WINDOWS[3].slice(1)),
  "]": () => next(1), "[": () => next(-1), h: () => state.chosen && toggleOrgan(state.chosen), o: () => { state.contours = !state.contours; redraw(); }, x: () => { state.cross = !state.cross; paint(); },
  n: () => toFinding(state.finding + 1), p: () => toFinding(state.finding < 0 ? -1 : state.finding - 1),
  r: () => { const count = state.volume.overlays.length; if (count) setOverlay(((state.overlay + 2) % (count + 1)) - 1); },
  u: () => sayChosen("usable"), e: () => sayChosen("needs_edits"), d: () => sayChosen("unusable"),
  Escape: () => choose(null), "?": () => byId("help").showModal(),
};

function onKey(event) {
  if (!state.volume || event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.target.closest("input, textarea, select") && event.key !== "Escape") return;
  if (event.key === " " && !event.target.closest("button, a")) { spaceHeld = true; event.preventDefault(); return; }
  const action = ACTIONS[event.key] ?? ACTIONS[event.key.toLowerCase()];
  if (!action || (event.key.startsWith("Arrow") && event.target.closest("ul"))) return;
  event.preventDefault();
  action();
}

// ── beginning ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Say who the patient is, to somebody who asks for it: the page does not show it by itself. */
async function showPatient() {
  const { name, id, study_date } = await call(`/v1/jobs/${job}/patient`);
  byId("patient").textContent = [name, id, study_date].filter(Boolean).join(" · ") || "not named";
}

function prepare() {
  byId("patient").addEventListener("click", () => showPatient().catch((error) => toast(error.message)));
  byId("window").append(...WINDOWS.map(([name], i) => el("option", { value: String(i) }, `${name}  ${WINDOWS[i][2]} / ${WINDOWS[i][1]}`)), el("option", { value: "-1", hidden: true }, "as dragged"));
  byId("window").addEventListener("change", (event) => setWindow(...WINDOWS[Number(event.target.value)].slice(1)));
  byId("overlay").addEventListener("change", (event) => setOverlay(Number(event.target.value)));
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("help-grid").append(...KEYS.flatMap(([keys, what]) => [el("kbd", {}, keys), el("span", {}, what)]));
  byId("all-organs").addEventListener("click", () => {
    state.hidden = state.hidden.size < state.organs.length ? new Set(state.organs.map((organ) => organ.name)) : new Set();
    markHidden();
    redraw();
  });
  for (const holder of document.querySelectorAll(".plane")) {
    const plane = new Plane(holder.dataset.plane, holder.querySelector("canvas"), state);
    planes.set(plane.name, plane);
    listen(plane);
  }
  activate("axial");
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", (event) => { if (event.key === " ") spaceHeld = false; });
  new ResizeObserver(fit).observe(byId("planes"));
}

async function showQa() {
  state.qa = await call(`/v1/jobs/${job}/qa`);
  byId("verdict").replaceChildren(state.qa.verdict ? level(state.qa.verdict, true) : el("span.quiet", {}, "Not checked"));
  listFindings();
  listOrgans();
  showChosen(state.organs.find((one) => one.name === state.chosen));
  for (const option of byId("overlay").options) if (option.value >= 0) option.textContent = overlayName(Number(option.value));
}

async function begin() {
  prepare();
  whoIsIt().then((caller) => { state.may = caller.may("reviews:write"); }).catch((error) => toast(error.message));
  const opening = Volume.open(job); // at the same time: the first slice should not wait for words
  opening.catch(() => {});
  const described = await call(`/v1/jobs/${job}`);
  fillHead(described);
  state.reviews = new Map(described.reviews.map((one) => [one.oar, one]));
  if (described.state !== "succeeded") {
    byId("chosen").append(el("h2", {}, `The job is ${described.state}`), el("p.quiet", {}, described.error?.detail ?? "There is nothing to look at before it has succeeded."));
    return;
  }
  const volume = await opening;
  Object.assign(state, { volume, geometry: new Geometry(volume), organs: volume.head.organs });
  state.lut = lookUp(volume.head.hu, state.level, state.width);
  const start = volume.best();
  state.at = [start, volume.size[1] >> 1, volume.size[2] >> 1];
  if (volume.overlays.length) {
    byId("overlay-pick").hidden = false;
    byId("overlay").append(el("option", { value: "-1" }, "none"), ...volume.overlays.map((_, i) => el("option", { value: String(i) }, overlayName(i))));
    const returned = volume.head.overlays.findLastIndex((one) => one.origin === "approved" && !one.superseded);
    setOverlay(Math.max(0, returned)); // what somebody corrected says most
  }
  setWindow(40, 400);
  listOrgans();
  showChosen(null);
  fit();
  const told = showQa().catch((error) => toast(error.message));
  let shown = 0;
  await volume.load(start, (what, z) => {
    if (what === "slice" && volume.loaded === 1) {
      planes.get("axial").focus();
      document.body.dataset.first = String(Math.round(performance.now()));
    } else if (what === "slice" && z !== state.at[0] && performance.now() - shown < 400) return; // drawing each would delay them
    shown = performance.now();
    redraw();
  });
  await told;
  document.body.dataset.ready = "true";
}

begin().catch((error) => { byId("chosen").replaceChildren(el("h2", {}, "This job cannot be shown"), el("p.quiet", {}, error.message)); document.body.dataset.ready = "error"; });

/** For measurements: how long each plane took to draw, in ms. */
window.oarlock = { state, planes, redraw, scroll: (name, steps) => scroll(planes.get(name), steps) };
