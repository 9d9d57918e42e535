// The jobs, newest first, as they are now.
import { byId, call, el, toast, when } from "./api.js";
import { whoIsIt } from "./page.js";

const EVERY_MS = 3000;

function row(job) {
  const { model, series } = job;
  return el("tr", {},
    el("td", {}, el("a", { href: `/jobs/${job.id}` }, job.id.slice(0, 8))),
    el("td", {}, el(`span.state.${job.state}`, {}, job.state), job.state === "running" ? el("progress", { max: "1", value: String(job.progress), "aria-label": `${job.stage}` }) : ""),
    el("td", {}, when(job.created_at)), el("td", {}, `${series.slices} slices`), el("td", {}, `${model.name} ${model.version}`));
}

async function show() {
  const page = await call("/v1/jobs?limit=100");
  const head = ["Job", "State", "Sent", "Series", "Model"].map((name) => el("th", { scope: "col" }, name));
  byId("jobs").replaceChildren(page.jobs.length ? el("div.scroll", {}, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...page.jobs.map(row)))) : el("p.quiet", {}, "No series has been sent yet. docs/api.md says how: POST /v1/jobs."));
  document.body.dataset.ready = "true";
}

async function live() {
  for (;;) {
    if (!document.hidden) await show().catch((error) => toast(error.message));
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

whoIsIt().then(live);
