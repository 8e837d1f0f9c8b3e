// System: look at a camera, try failed jobs anew, let people and programs in and out.
// @ts-check
import "../boot.js";
import { copyOf, fill, need, say, slot } from "../page.js";
import { send } from "../send.js";
import { toast } from "../toast.js";

/**
 * A form in a dialog. It stays open with what went wrong.
 * @param {string} template
 * @param {{title: string, go: string, words?: string, act: (form: HTMLFormElement) => Promise<void>, prepare?: (form: HTMLFormElement) => void}} wanted
 */
function ask(template, { title, go, words, act, prepare }) {
  const dialog = /** @type {HTMLDialogElement} */ (copyOf(template));
  const form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
  fill(dialog, "title", title);
  fill(dialog, "go", go);
  if (words) fill(dialog, "words", words);
  prepare?.(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (slot(dialog, "go"));
    button.disabled = true;
    try {
      await act(form);
      dialog.close();
    } catch (error) {
      button.disabled = false;
      fill(dialog, "error", /** @type {Error} */ (error).message);
    }
  });
  dialog.querySelector('[data-act="cancel"]')?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** Say it, then show what is now. @param {string} words */
function done(words) {
  toast(words);
  setTimeout(() => location.reload(), 800);
}

/** @param {HTMLFormElement} form */
const sitesOf = (form) => [...form.querySelectorAll("input[name=site]:checked")].map((box) => /** @type {HTMLInputElement} */ (box).value);

/** @param {HTMLFormElement} form @param {string} name */
const valueOf = (form, name) => String(new FormData(form).get(name) ?? "");

/** @param {string} camera */
async function diagnose(camera) {
  const place = need("looks");
  place.textContent = say("system.looking", { camera });
  try {
    const told = await send("POST", `/v1/cameras/${encodeURIComponent(camera)}/diagnose`);
    const head = document.createElement("p");
    head.textContent = say("system.looked", { camera });
    const list = document.createElement("dl");
    list.className = "facts";
    for (const look of told.looks) {
      const term = document.createElement("dt");
      term.textContent = look.what;
      const words = document.createElement("dd");
      words.textContent = `${look.well ? "●" : "▲"} ${say(look.well ? "system.well" : "system.unwell")}: ${look.told}`;
      list.append(term, words);
    }
    place.replaceChildren(head, list);
  } catch (error) {
    place.textContent = say("shell.failed", { why: /** @type {Error} */ (error).message });
  }
}

async function replay() {
  const chosen = [...document.querySelectorAll("input[name=job]:checked")].map((box) => /** @type {HTMLInputElement} */ (box).value);
  if (chosen.length === 0) {
    toast(say("system.none_chosen"));
    return;
  }
  try {
    const told = await send("POST", "/v1/queue/dead/replay", { ids: chosen.slice(0, 100) });
    if (told.replayed.length) toast(say("system.replayed", { n: told.replayed.length }));
    if (told.refused.length) toast(say("system.refused", { n: told.refused.length, why: told.refused[0].detail }));
    for (const box of document.querySelectorAll("input[name=job]:checked")) /** @type {HTMLInputElement} */ (box).checked = false;
  } catch (error) {
    toast(say("shell.failed", { why: /** @type {Error} */ (error).message }));
  }
}

function addUser() {
  ask("user-form", {
    title: say("system.add_user_title"),
    go: say("system.add_user"),
    prepare: (form) => form.querySelector("[name=password]")?.setAttribute("required", ""),
    act: async (form) => {
      const name = valueOf(form, "name");
      await send("POST", "/v1/users", { name, password: valueOf(form, "password"), role: valueOf(form, "role"), sites: sitesOf(form) });
      done(say("system.added", { name }));
    },
  });
}

/** @param {HTMLTableRowElement} row */
function changeUser(row) {
  const name = row.dataset.user ?? "";
  ask("user-form", {
    title: say("system.change_user_title", { name }),
    go: say("system.save"),
    prepare: (form) => {
      form.querySelector("[data-for=name]")?.remove();
      fill(form, "password-words", say("system.new_password"));
      /** @type {HTMLSelectElement} */ (form.querySelector("[name=role]")).value = row.dataset.role ?? "viewer";
      const sites = row.cells?.[2]?.textContent?.split(", ") ?? [];
      for (const box of /** @type {NodeListOf<HTMLInputElement>} */ (form.querySelectorAll("[name=site]"))) box.checked = sites.includes(box.value);
    },
    act: async (form) => {
      const password = valueOf(form, "password");
      await send("PATCH", `/v1/users/${encodeURIComponent(name)}`, { role: valueOf(form, "role"), sites: sitesOf(form), ...(password ? { password } : {}) });
      done(say("system.changed", { name }));
    },
  });
}

/** @param {string} name */
function removeUser(name) {
  ask("sure-form", {
    title: say("system.remove_title", { name }),
    words: say("system.remove_words", { name }),
    go: say("system.remove"),
    act: async () => {
      await send("DELETE", `/v1/users/${encodeURIComponent(name)}`);
      done(say("system.removed", { name }));
    },
  });
}

function addKey() {
  ask("key-form", {
    title: say("system.add_key_title"),
    go: say("system.add_key"),
    act: async (form) => {
      const expires = valueOf(form, "expires");
      const until = expires ? { expires_at: new Date(expires).toISOString() } : {};
      const told = await send("POST", "/v1/keys", { name: valueOf(form, "name"), role: valueOf(form, "role"), sites: sitesOf(form), ...until });
      const dialog = /** @type {HTMLDialogElement} */ (copyOf("secret"));
      fill(dialog, "title", say("system.secret_title", { name: told.name }));
      fill(dialog, "secret", told.secret);
      dialog.addEventListener("close", () => location.reload());
      document.body.append(dialog);
      dialog.showModal();
    },
  });
}

/** @param {string} name */
function revoke(name) {
  ask("sure-form", {
    title: say("system.revoke_title", { name }),
    words: say("system.revoke_words"),
    go: say("system.revoke"),
    act: async () => {
      await send("DELETE", `/v1/keys/${encodeURIComponent(name)}`);
      done(say("system.revoked", { name }));
    },
  });
}

/** @param {HTMLElement} button */
function act(button) {
  const row = /** @type {HTMLTableRowElement | null} */ (button.closest("tr"));
  const { user = "", key = "", camera = "" } = row?.dataset ?? {};
  switch (button.dataset.act) {
    case "diagnose": return void diagnose(camera);
    case "replay": return void replay();
    case "all":
      for (const box of document.querySelectorAll("input[name=job]")) /** @type {HTMLInputElement} */ (box).checked = true;
      return undefined;
    case "add-user": return addUser();
    case "change-user": return row ? changeUser(row) : undefined;
    case "remove-user": return removeUser(user);
    case "add-key": return addKey();
    case "revoke": return revoke(key);
    default: return undefined;
  }
}

const bar = document.getElementById("replay");
if (bar) bar.hidden = false;
for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("main [data-act]"))) {
  button.hidden = false;
  button.addEventListener("click", () => act(button));
}
