// What stands at the top of every page: who is signed in.
import { byId, call, el } from "./api.js";

/** The caller; their name and the way out are shown. */
export async function whoIsIt() {
  const caller = await call("/v1/caller");
  if (caller.open) byId("account").replaceChildren(el("span", { title: "Programs of this machine need no key until one is made" }, "open on this machine"));
  else byId("account").replaceChildren(el("span", {}, caller.name), el("form", { method: "post", action: "/sign-out" }, el("button.quiet", { type: "submit" }, "Sign out")));
  const may = (scope) => caller.scopes.includes(scope) || caller.scopes.includes("admin");
  return { ...caller, may };
}
