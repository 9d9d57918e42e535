// What past patients said of a model, before it draws a new one: all commissionings, or one, alone or beside an earlier model.
import { byId, call, el, figure, pause, sure, toast, when } from "./api.js";
import { whoIsIt } from "./page.js";

const AGAIN_MS = 5000;
const asked = new URLSearchParams(location.search);
let caller = null;

const nameOf = (model) => `${model.name} ${model.version}`;
const shown = (...content) => byId("commissioning").replaceChildren(...content.flat().filter(Boolean));
const table = (name, head, rows) => el("div.scroll", { tabindex: "0", role: "region", "aria-label": name }, el("table", {}, el("thead", {}, el("tr", {}, ...head.map((one) => el("th", { scope: "col" }, one)))), el("tbody", {}, ...rows)));
const cells = (...values) => values.map((value) => el("td", {}, value));

// ── all ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function address(one, more = {}) {
  return `/commissionings?${new URLSearchParams({ model: one.drawn_by.sha256, label: one.label, site: one.site, ...more })}`;
}

function listed(one) {
  const state = one.waiting ? el("span", {}, `${one.jobs - one.waiting} of ${one.jobs} jobs have ended`, el("progress", { max: String(one.jobs), value: String(one.jobs - one.waiting), "aria-label": "have ended" })) : `${one.jobs} jobs`;
  return el("tr", {}, ...cells(el("a", { href: address(one) }, one.label), one.site || "–", nameOf(one.drawn_by), state, when(one.last_at)));
}

function baseline(one) {
  const scanners = new Set(one.organs.flatMap((organ) => Object.keys(organ.surface_dsc_by_scanner)));
  return el("tr", {}, ...cells(nameOf(one.drawn_by), `${one.patients} patients`, `${one.organs.length} organs`, scanners.size ? [...scanners].map((name) => name || "unknown").join(", ") : "not told apart", one.site || "all that have none of their own", one.by, when(one.at)));
}

async function showAll() {
  const [{ commissionings }, kept] = await Promise.all([call("/v1/commissionings"), caller.may("qa:read") ? call("/v1/qa/baselines") : { baselines: [] }]);
  shown(
    el("p.quiet", {}, "Past patients whose contours were approved are posted as jobs, with one label for all, before a model draws a new patient. What they come to stands here."),
    commissionings.length ? table("Commissionings", ["Label", "Of site", "Model", "Past patients", "Newest"], commissionings.map(listed)) : empty(),
    el("h2.below", {}, "Baselines"),
    el("p.quiet", {}, "Control charts begin with them, until thirty contours have come back."),
    kept.baselines.length ? table("Baselines", ["Model", "Patients", "Organs", "Scanners", "Of site", "Kept by", "At"], kept.baselines.map(baseline)) : el("p.quiet", {}, "None is kept yet."));
}

function empty() {
  return el("div.empty-page", {}, el("p", {}, "No past patients yet. Post each with its RTSTRUCT and the same label:"), el("pre", { tabindex: "0" }, `for patient in archive/*.zip; do\n  curl ${location.origin}/v1/jobs -F files=@"$patient" -F label="commissioning 2026" -F priority=low\ndone`));
}

// ── one ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The scores of an organ on a line from `low` to 1, the mean's confidence interval, and the limit. */
function strip(organ, low) {
  const NS = "http://www.w3.org/2000/svg", W = 180, H = 22, x = (value) => 5 + ((value - low) / (1 - low)) * (W - 10);
  const made = (name, attributes) => { const one = document.createElementNS(NS, name); for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value); return one; };
  const spread = organ.surface_dsc, picture = made("svg", { viewBox: `0 0 ${W} ${H}`, class: "strip-plot", role: "img", "aria-label": `${organ.oar}: ${organ.n} scores from ${figure(spread?.lowest, 3)} to ${figure(spread?.highest, 3)}` });
  for (let mark = low; mark < 1.05; mark += 0.1) picture.append(made("line", { class: "grid", x1: x(mark), x2: x(mark), y1: 1, y2: H - 1 }));
  if (spread?.mean_low != null) picture.append(made("rect", { class: "interval", x: x(spread.mean_low), width: Math.max(1, x(spread.mean_high) - x(spread.mean_low)), y: 5, height: H - 10 }));
  for (const value of organ.surface_dsc_scores) picture.append(made("circle", { class: "point", cx: x(value), cy: H / 2, r: 2.2 }));
  if (spread?.limit != null) picture.append(made("line", { class: "limit", x1: x(spread.limit), x2: x(spread.limit), y1: 1, y2: H - 1 }));
  return picture;
}

const interval = (spread, digits) => (spread?.mean_low == null ? "–" : `${figure(spread.mean_low, digits)} to ${figure(spread.mean_high, digits)}`);

/** Where the line of all organs begins: a tenth, below every score and limit. */
const lowest = (organs) => Math.max(0, Math.floor(Math.min(0.9, ...organs.flatMap((organ) => [...organ.surface_dsc_scores, organ.surface_dsc?.limit ?? 1])) * 10) / 10);

function row(organ, paired, low) {
  const score = organ.surface_dsc, far = organ.hausdorff_95_mm;
  const levels = Object.entries(organ.action_levels).map(([name, value]) => (name === "surface_dsc" ? `DSC ${value.toFixed(2)}` : `HD95 ${value.toFixed(1)} mm`)).join(", ");
  return el("tr", {}, el("th", { scope: "row" }, organ.oar), ...cells(String(organ.n), organ.missed ? el("span.bad", {}, String(organ.missed)) : "0", organ.red ? el("span.bad", {}, String(organ.red)) : "0", ...(paired ? changed(organ.change) : []), strip(organ, low), score ? `${figure(score.mean, 3)} ± ${figure(score.sd, 3)}` : "–", interval(score, 3), figure(score?.limit, 3), far ? `${figure(far.mean, 1)} ± ${figure(far.sd, 1)} mm` : "–", figure(far?.limit, 1, "mm"), levels || "too few"));
}

/** The difference from the earlier model, with what its interval says of it. */
function changed(change) {
  if (!change) return ["–", ""];
  const verdict = change.mean_low > 0 ? "better" : change.mean_high < 0 ? "worse" : "no difference seen";
  return [el("span", { title: `95 % interval: ${interval(change, 3)}` }, `${change.mean > 0 ? "+" : ""}${figure(change.mean, 3)} (${change.n})`), el(verdict === "worse" ? "span.bad" : "span.quiet", {}, verdict)];
}

const HEAD = ["Organ", "n", "Missed", "Red"], CHANGE = ["Change (pairs)", ""], SCORES = ["Mean ± SD", "Mean, 95 % interval", "Limit", "HD95", "HD95 limit", "Proposed"];

function keep(found) {
  const button = el("button.main", { type: "button", disabled: found.waiting > 0 || !found.organs.length, title: found.waiting ? "Some past patients have not been drawn yet" : "" }, "Keep as baseline");
  button.addEventListener("click", async () => {
    if (!(await sure(`Begin the control charts of ${nameOf(found.drawn_by)} with these ${found.patients} patients? ${asked.get("site") ? `They are all of ${asked.get("site")}. ` : ""}${caller.site ? "It holds for your site." : "It holds for every site without a baseline of its own."}`))) return;
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(found) };
    await call("/v1/qa/baselines", options).then(() => toast("The baseline is kept: control charts begin with it."), (error) => toast(error.message));
  });
  return button;
}

function choose(others) {
  const select = el("select", { id: "against" }, el("option", { value: "" }, "nothing"), ...others.map((one, i) => el("option", { value: String(i), selected: one.drawn_by.sha256 === asked.get("against") && one.label === (asked.get("against_label") ?? asked.get("label")) }, `${nameOf(one.drawn_by)}, ${one.label}`)));
  select.addEventListener("change", () => {
    const one = others[select.value];
    for (const name of ["against", "against_label"]) asked.delete(name);
    if (one) asked.set("against", one.drawn_by.sha256), asked.set("against_label", one.label);
    location.search = String(asked);
  });
  return el("label.pick", {}, "Compare with ", select);
}

function draft() {
  const box = el("input", { type: "checkbox", checked: asked.has("unapproved") });
  box.addEventListener("change", () => { if (box.checked) asked.set("unapproved", "true"); else asked.delete("unapproved"); location.search = String(asked); });
  return el("label.pick", {}, box, " count RTSTRUCTs that are not approved");
}

const here = (one) => one.site === (asked.get("site") ?? one.site);
const mine = (one) => one.drawn_by.sha256 === asked.get("model") && one.label === asked.get("label") && here(one);

/** Wait until a job of this commissioning came or ended. The list says so; what the jobs come to is costly, and each look at it is in the audit log. */
async function moved(since) {
  for (;;) {
    await pause(AGAIN_MS);
    const now = document.hidden ? null : await call("/v1/commissionings").catch((error) => toast(error.message));
    if (now && JSON.stringify(now.commissionings.find(mine)) !== JSON.stringify(since)) return;
  }
}

async function showOne() {
  const { commissionings } = await call("/v1/commissionings");
  const query = new URLSearchParams(asked);
  query.delete("model");
  const path = `/v1/commissionings/${encodeURIComponent(asked.get("model"))}?${query}`, found = await call(path), paired = asked.has("against"), low = lowest(found.organs);
  byId("title").textContent = `Commissioning of ${nameOf(found.drawn_by)}`;
  const facts = [`${found.patients} past patients`, `${found.approved} of their RTSTRUCTs approved`, found.waiting && `${found.waiting} not drawn yet`, found.left_out.length && `${found.left_out.length} left out`].filter(Boolean).join(" · ");
  shown(
    el("p", {}, el("a", { href: "/commissionings" }, "All commissionings"), el("span.quiet", {}, ` · ${asked.get("label")} · ${facts}`)),
    el("div.filters", {}, choose(commissionings.filter((one) => here(one) && !mine(one))), draft(), el("a", { href: `${path}&format=html`, target: "_blank", rel: "noopener" }, "Report with pictures"), caller.may("qa:write") ? keep(found) : ""),
    found.organs.length ? table("Organs", [...HEAD, ...(paired ? CHANGE : []), `Surface DSC, ${low.toFixed(1)} to 1`, ...SCORES], found.organs.map((organ) => row(organ, paired, low))) : el("p.quiet", {}, found.waiting ? "No past patient has been drawn yet." : "Nothing could be compared."),
    el("p.quiet.small", {}, "Limit (dashed): what 95 % of such patients keep, with 95 % confidence; none below five patients. Band: 95 % confidence interval of the mean. Each point is a patient. Scores alone do not show that contours are fit for use: look at the pictures, and decide organ by organ."),
    found.left_out.length ? el("h2.below", {}, "Left out") : "",
    found.left_out.length ? el("ul", {}, ...found.left_out.map((one) => el("li", {}, el("a", { href: `/jobs/${one.job_id}` }, one.job_id.slice(0, 8)), ` ${one.reason}`))) : "");
  if (found.waiting) moved(commissionings.find(mine)).then(showOne).catch((error) => toast(error.message));
}

whoIsIt().then((found) => { caller = found; return asked.has("model") ? showOne() : showAll(); }).then(() => (document.body.dataset.ready = "true")).catch((error) => toast(error.message));
