// What every page shares: calls of the API, elements, words.

/** The answer of a call as JSON; throws an Error with the problem's sentence. */
export async function call(path, options = {}) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  if (answer.status === 401) {
    location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
    return new Promise(() => {});
  }
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw Object.assign(new Error(body?.detail ?? `The server answered ${answer.status}.`), { problem: body, status: answer.status });
  return body;
}

/** The bytes [first, first + length) of a file, or all. */
export async function bytes(path, first = 0, length = null) {
  const headers = length === null ? {} : { Range: `bytes=${first}-${first + length - 1}` };
  const answer = await fetch(path, { credentials: "same-origin", headers });
  if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `The server answered ${answer.status}.`);
  return answer;
}

/** An element: el("a.quiet", {href: "/"}, "text", child …). Text is never read as HTML. */
export function el(kind, attributes = {}, ...children) {
  const [name, ...classes] = kind.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

let hiding = 0;
/** Say something at the bottom of the page for a while. */
export function toast(text) {
  const bar = byId("toast");
  bar.textContent = text;
  bar.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (bar.hidden = true), 6000);
}

/** A volume with as many digits as mean something. */
export function ml(volume) {
  if (!(volume > 0)) return "not drawn";
  return `${volume.toFixed(volume < 10 ? 2 : volume < 100 ? 1 : 0)} ml`;
}

/** A time as this browser's user writes it, to the minute. */
export function when(text) {
  if (!text) return "";
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** A number with a unit, or an en dash where it is not defined. */
export const figure = (value, digits = 2, unit = "") => (value === null || value === undefined ? "–" : value.toFixed(digits) + (unit && ` ${unit}`));

/** Of several readings at once only the newest may be shown: an older one may come later, and knows less of what is chosen. */
export function newest() {
  let begun = 0;
  return () => {
    const mine = ++begun;
    return () => mine === begun;
  };
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Ask in the page's dialog; whether it was answered with yes. */
export function sure(question) {
  const dialog = byId("sure");
  byId("sure-text").textContent = question;
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

const MARKS = { green: "✓", amber: "!", red: "✕" };
const WORDS = { green: "No finding", amber: "Look here", red: "Something is wrong" };
/** A verdict: told by its shape and its word, not by its colour alone. */
export function level(name, words = false) {
  return el(`span.level.${name}`, { title: WORDS[name] ?? name }, el("span.dot", { "aria-hidden": "true" }, MARKS[name] ?? "·"), words ? WORDS[name] : el("span.hidden", {}, WORDS[name] ?? name));
}
