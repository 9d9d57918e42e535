// The jobs, newest first, as they are now; what is not ready, and why.
import { byId, call, el, newest, pause, sure, toast, when } from "./api.js";
import { showGateways } from "./gateways.js";
import { whoIsIt } from "./page.js";

const EVERY_MS = 3000, HEALTH_MS = 9000;
const STATES = ["all", "queued", "running", "succeeded", "failed", "cancelled"];
const chosen = { state: "all", label: "", pages: 1 };
let caller = null, shown = "";

// ── what is ready ───────────────────────────────────────────────────────────────────────────────────────────────────────

const PARTS = { database: "Database", broker: "Queue", storage: "Storage", workers: "Workers", model: "Model" };

async function showHealth() {
  const answer = await fetch("/readyz"), found = await answer.json();
  const parts = Object.entries(PARTS).filter(([name]) => found[name]).map(([name, title]) => el(`div.part.${found[name].ready ? "ready" : "wrong"}`, { title: found[name].detail }, el("span.dot", { "aria-hidden": "true" }, found[name].ready ? "✓" : "✕"), el("span", {}, title, el("span.hidden", {}, found[name].ready ? " is ready" : " is not ready")), found[name].ready ? "" : el("span.why", {}, found[name].detail)));
  byId("health").replaceChildren(...parts, ...(caller.may("metrics:read") ? await numbers() : []));
}

/** Sums of metrics in the Prometheus text, by name and labels. */
function sums(text) {
  const found = new Map();
  for (const [, name, labels, value] of text.matchAll(/^(\w+)(?:\{([^}]*)\})? (\S+)$/gm)) found.set(labels ? `${name} ${labels}` : name, Number(value));
  return (name, label = "") => [...found].filter(([key]) => (key === name || key.startsWith(`${name} `)) && key.includes(label)).reduce((sum, [, value]) => sum + value, 0);
}

async function numbers() {
  const sum = sums(await (await fetch("/metrics")).text()), undelivered = sum("oarlock_callbacks", '"dead"') + sum("oarlock_deliveries", '"dead"');
  const tiles = [["queued", sum("oarlock_jobs", '"queued"')], ["running", sum("oarlock_jobs", '"running"')], ["failed", sum("oarlock_jobs", '"failed"')], ["workers", sum("oarlock_workers")], ["not delivered", undelivered], ["GB free", Math.round(sum("oarlock_storage_free_bytes") / 1e9)]];
  return tiles.map(([name, value]) => el("div.tile", {}, el("strong", {}, String(value)), el("span", {}, name)));
}

// ── jobs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function act(job, verb, method, path) {
  return el("button.quiet", { type: "button", "aria-label": `${verb} job ${job.label ?? job.id.slice(0, 8)}`, onclick: async () => {
    if (verb === "Purge" && !(await sure(`Purge ${job.label ?? job.id.slice(0, 8)}? Its series and all results are deleted for ever.`))) return;
    await call(path, { method }).then(() => toast(`${verb}: done`), (error) => toast(error.message));
    await refresh();
  } }, verb);
}

function actions(job) {
  if (!caller.may("jobs:write")) return [];
  const ended = ["succeeded", "failed", "cancelled"].includes(job.state), found = [];
  if (!ended) found.push(act(job, "Cancel", "POST", job.links.cancel));
  if (["failed", "cancelled"].includes(job.state)) found.push(act(job, "Retry", "POST", job.links.retry));
  if (job.deliveries?.some((one) => one.state === "dead" && one.gateway)) found.push(act(job, "Send again", "POST", `/v1/jobs/${job.id}/resend`));
  if (ended) found.push(act(job, "Purge", "DELETE", job.links.self));
  return found;
}

/** What is to be known of a job besides its state: why it failed, where it waits, what was said of it, where it went. */
function remarks(job) {
  if (job.error) return el("span.bad", { title: job.error.code }, job.error.detail);
  if (job.queue_position) return `place ${job.queue_position} in the queue`;
  const told = [];
  if (job.reviews?.length) { const edits = job.reviews.filter((one) => one.verdict !== "usable").length; told.push(`${job.reviews.length} organs reviewed${edits ? `, ${edits} not usable as they are` : ""}`); }
  for (const one of job.deliveries ?? []) told.push(`${one.place}: ${one.result} ${one.state}${one.note ? ` (${one.note})` : ""}`);
  if (job.warnings.length) told.push(`${job.warnings.length} warning${job.warnings.length > 1 ? "s" : ""}`);
  return told.join(" · ");
}

const stageOf = (job) => job.stage ?? "running";

function row(job) {
  const running = job.state === "running";
  return el("tr", { id: `job-${job.id}` },
    el("td", {}, el("a", { href: `/jobs/${job.id}` }, job.label ?? job.id.slice(0, 8)), job.label ? el("span.quiet.small", {}, ` ${job.id.slice(0, 8)}`) : ""),
    el("td", {}, el(`span.state.${job.state}`, {}, running ? stageOf(job) : job.state), running ? el("progress", { max: "1", value: String(job.progress), "aria-label": "progress" }) : ""),
    el("td", {}, when(job.created_at)),
    el("td", {}, `${job.series.slices} × ${job.series.spacing_mm[0].toFixed(1)} mm`),
    el("td", {}, `${job.model.name} ${job.model.version}`),
    el("td.remarks", {}, remarks(job)),
    el("td.actions", {}, ...actions(job)));
}

const reading = newest();

async function refresh() {
  const isNewest = reading();
  const query = new URLSearchParams({ limit: "50" });
  if (chosen.state !== "all") query.set("state", chosen.state);
  if (chosen.label) query.set("label", chosen.label);
  const jobs = [];
  let next = null;
  for (let page = 0; page < chosen.pages; page++) {
    const found = await call(`/v1/jobs?${query}`);
    jobs.push(...found.jobs);
    next = found.next;
    if (!next) break;
    query.set("cursor", next);
  }
  const now = JSON.stringify([jobs, next]);
  if (!isNewest() || now === shown) return;
  shown = now;
  const here = document.activeElement?.getAttribute("aria-label");
  byId("count").textContent = `${jobs.length}${next ? "+" : ""} job${jobs.length === 1 ? "" : "s"}`;
  const head = ["Job", "State", "Sent", "Series", "Model", "", ""].map((name) => el("th", { scope: "col" }, name || el("span.hidden", {}, "more")));
  byId("jobs").replaceChildren(jobs.length ? el("div.scroll", { tabindex: "0", role: "region", "aria-label": "Jobs" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...jobs.map(row)))) : empty(), next ? el("p", {}, el("button", { type: "button", onclick: () => { chosen.pages += 1; refresh(); } }, "Older jobs")) : "");
  if (here) byId("jobs").querySelector(`[aria-label="${CSS.escape(here)}"]`)?.focus();
  move(); // this answer may be older than what the stream has told since
}

function empty() {
  if (chosen.state !== "all" || chosen.label) return el("p.quiet", {}, "No job is like this.");
  return el("div.empty-page", {}, el("p", {}, "No series has been sent yet. Send one:"), el("pre", { tabindex: "0" }, `curl ${location.origin}/v1/jobs -F files=@series.zip`), el("p.quiet", {}, el("a", { href: "/docs" }, "The API"), " says what else there is."));
}

function prepare() {
  byId("states").append(...STATES.map((name) => el("button", { type: "button", "aria-pressed": String(name === chosen.state), onclick: (event) => {
    Object.assign(chosen, { state: name, pages: 1 });
    for (const button of byId("states").children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
    refresh();
  } }, name)));
  let typing = 0;
  byId("label").addEventListener("input", (event) => { clearTimeout(typing); typing = setTimeout(() => { Object.assign(chosen, { label: event.target.value.trim(), pages: 1 }); refresh(); }, 250); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
}

// ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

let stream = null, running = [], due = false, busy = false;

/** Read the list now, or as soon as the last reading is three seconds old: however much moves, it is read no more often than that. */
async function again() {
  due = true;
  if (busy) return;
  busy = true;
  for (; due; await pause(EVERY_MS)) {
    due = false;
    await refresh().catch((error) => toast(error.message));
  }
  busy = false;
}

/** How far the running jobs are, as the stream told last; what else changes is read anew. */
function move() {
  for (const job of running) {
    const line = byId(`job-${job.id}`), bar = line?.querySelector("progress");
    if (!bar) continue;
    bar.value = job.progress;
    line.querySelector(".state").textContent = stageOf(job);
  }
}

/** Listen to the list while somebody looks at it. Where that is refused, it is read every three seconds. */
function listen() {
  if (document.hidden) return stream = stream?.close() ?? null;
  if (stream && stream.readyState !== EventSource.CLOSED) return;
  let changes = null;
  stream = new EventSource("/v1/events");
  stream.addEventListener("open", () => (changes = null));
  stream.addEventListener("error", () => ([running, shown] = [[], ""])); // until it tells again, what is read is newer
  stream.addEventListener("jobs", (event) => {
    const now = JSON.parse(event.data);
    if (now.changes !== changes) again();
    changes = now.changes;
    running = now.running;
    move();
  });
}

async function live() {
  const reads = caller.may("jobs:read");
  await refresh().catch((error) => toast(error.message));
  if (reads) document.addEventListener("visibilitychange", listen);
  for (let round = 0; ; round++) {
    if (!document.hidden && round % (HEALTH_MS / EVERY_MS) === 0) {
      await Promise.all([showHealth(), reads && showGateways(caller.may("jobs:write"))]).catch((error) => toast(error.message));
      if (reads) listen();
    }
    if (reads && round > 0 && !document.hidden && stream?.readyState !== EventSource.OPEN) again();
    document.body.dataset.ready = "true";
    await pause(EVERY_MS);
  }
}

prepare();
whoIsIt().then((found) => { caller = found; return live(); }).catch((error) => toast(error.message));
