// What gateways have that is not a job: series that wait, are left alone or were refused.
import { byId, call, el, toast, when } from "./api.js";

const STATES = { coming_in: "coming in", left_alone: "left alone", refused: "refused" };

function complete(gateway, series) {
  const path = `/v1/gateways/${encodeURIComponent(gateway.name)}/series/${series.id}/complete`;
  return el("button.quiet", { type: "button", "aria-label": `Count as whole: ${series.images} images from ${series.calling}, series ${series.id.slice(0, 8)}`, onclick: () => call(path, { method: "POST" }).then(() => toast("The gateway is asked: it posts the series in a few seconds."), (error) => toast(error.message)) }, "Count as whole");
}

function row(gateway, series, may) {
  return el("tr", {}, el("td", {}, `${series.calling} → ${series.called}`), el("td", {}, STATES[series.state]), el("td", {}, when(series.last_at)), el("td", {}, `${series.images} images`), el("td", {}, gateway.name), el("td.remarks", {}, series.note), el("td.actions", {}, may && series.state === "coming_in" ? complete(gateway, series) : ""));
}

let shown = "";
/** List them; nothing is shown where there is nothing. */
export async function showGateways(may) {
  const { gateways } = await call("/v1/gateways"), now = JSON.stringify(gateways.map((one) => [one.name, one.series]));
  if (now === shown) return;
  shown = now;
  const rows = gateways.flatMap((gateway) => gateway.series.map((series) => row(gateway, series, may)));
  const head = ["Sent", "State", "Newest image", "Here", "Gateway", "", ""].map((name) => el("th", { scope: "col" }, name || el("span.hidden", {}, "more")));
  byId("gateways").replaceChildren(...(rows.length ? [el("h2", {}, "At the gateways, not jobs"), el("div.scroll", { tabindex: "0", role: "region", "aria-label": "At the gateways" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)))] : []));
}
