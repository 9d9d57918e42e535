// What a job can be given to: organs, training, what was measured, what it is not for.
import { byId, call, el, toast } from "./api.js";
import { whoIsIt } from "./page.js";

const lines = (values) => Object.entries(values ?? {}).filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]);

function card(model) {
  return el("article.model-card", {},
    el("h2", {}, `${model.name} ${model.version}`, model.default ? el("span.tag", {}, "default") : "", model.shadow ? el("span.tag", { title: "It draws every job too, for the scores alone; nothing of it is delivered." }, "shadow") : ""),
    el("p", {}, model.description),
    el("p.quiet.small", {}, `sha256 ${model.sha256} · ${model.licence}`),
    el("h3", {}, `${model.oars.length} organs`), el("p.organs-of", {}, model.oars.join(", ")),
    model.limits.length ? el("h3", {}, "Not for") : "", model.limits.length ? el("ul", {}, ...model.limits.map((limit) => el("li", {}, limit))) : "",
    el("details", {}, el("summary", {}, "Training and results"), el("dl.facts", {}, ...lines(model.training), ...lines(model.results))),
    model.parts.length > 1 ? el("details", {}, el("summary", {}, `${model.parts.length} parts`), el("ul", {}, ...model.parts.map((part) => el("li", {}, `${part.name}: ${part.oars.join(", ")}, at ${part.spacing_mm.join(" × ")} mm`)))) : "");
}

whoIsIt().then(async () => {
  const { models } = await call("/v1/models");
  byId("models").replaceChildren(...models.map(card));
  document.body.dataset.ready = "true";
}).catch((error) => toast(error.message));
