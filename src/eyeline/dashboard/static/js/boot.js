// The frame around every page: theme, freshness, pause, keys, the numbers in the navigation.
// @ts-check
import { line, onEvents, onResync, setPaused, STALE, startBus } from "./bus.js";
import { age, lapse } from "./fmt.js";
import { isTyping, Keys } from "./keys.js";
import { fill, need, say, shell } from "./page.js";
import { everySecond, startClock } from "./time.js";
import { alarm, undoLast } from "./toast.js";
import { leave, stayed } from "./unsaved.js";

export const keys = new Keys();
const root = document.documentElement;

/** @param {string} name @returns {string | null} */
function kept(name) {
  try {
    return localStorage.getItem(`eyeline.${name}`);
  } catch {
    return null;
  }
}

/** @param {string} name @param {string | null} value */
function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(`eyeline.${name}`);
    else localStorage.setItem(`eyeline.${name}`, value);
  } catch {
    // a browser that keeps nothing forgets it with the page
  }
}

function startTheme() {
  const button = need("theme");
  const show = () => {
    button.textContent = say(`shell.theme.${root.dataset.theme ?? "auto"}`);
  };
  button.addEventListener("click", () => {
    /** @type {Record<string, string>} */
    const after = { auto: "light", light: "dark", dark: "auto" };
    const next = after[root.dataset.theme ?? "auto"] ?? "auto";
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    keep("theme", next === "auto" ? null : next);
    show();
  });
  button.hidden = false;
  show();
}

function showFreshness() {
  const chip = need("fresh");
  const silent = (Date.now() - line.heard) / 1000;
  let state = /** @type {string} */ (line.state);
  let words = say("fresh.connecting");
  if (line.paused) {
    state = "paused";
    words = say("fresh.paused", { since: lapse((Date.now() - line.paused) / 1000), held: line.held });
  } else if (state === "reconnecting") {
    words = say("fresh.reconnecting", { attempt: line.attempt });
    if (silent * 1000 > STALE) {
      state = "stale";
      words = say("fresh.stale", { age: age(silent) });
    }
  } else if (state === "live") {
    words = say("fresh.live", { behind: age(line.behind) });
    stayed.delete("signed_out"); // somebody signed in in another tab
  }
  for (const why of stayed) [state, words] = ["stale", say(`fresh.${why}`)];
  if (chip.dataset.state !== state) {
    chip.dataset.state = state;
    root.dataset.stream = state;
    chip.setAttribute("aria-live", state === "live" ? "off" : "polite");
  }
  fill(chip, "words", words);
}

/** @param {boolean} paused */
function pauseOrResume(paused) {
  setPaused(paused);
  const button = need("pause");
  button.setAttribute("aria-pressed", String(paused));
  const words = button.firstChild;
  if (words) words.textContent = `${say(paused ? "shell.resume" : "shell.pause")} `;
  const url = new URL(location.href);
  if (paused) url.searchParams.set("paused", "1");
  else url.searchParams.delete("paused");
  history.replaceState(history.state, "", url);
  showFreshness();
}

/** After some tries in vain: perhaps it is not the line, but that nobody is signed in here any more. */
async function askWhetherLetIn() {
  try {
    const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) leave("signed_out", () => location.reload());
  } catch {
    // the server is away
  }
}

function startLive() {
  startBus(shell.cursor);
  everySecond(showFreshness);
  let asked = 0;
  everySecond(() => {
    if (line.attempt < 3 || line.attempt === asked) return;
    asked = line.attempt;
    askWhetherLetIn();
  });
  everySecond(announceRest);
  onEvents(showFreshness);
  onEvents(countAlerts);
  showOpen();
  onResync(() => leave("new_data", () => location.reload()));
  const button = need("pause");
  button.hidden = false;
  button.addEventListener("click", () => pauseOrResume(!line.paused));
  keys.bind({ key: "p", words: say("keys.pause"), run: () => pauseOrResume(!line.paused), everywhere: true });
  if (new URLSearchParams(location.search).has("paused")) pauseOrResume(true);
  showFreshness();
}

/**
 * The number beside a room's name.
 * @param {string} room @param {number} count
 */
export function showCount(room, count) {
  for (const element of document.querySelectorAll(`[data-count="${room}"]`)) {
    element.textContent = count ? String(count) : "";
  }
}

/** The open alerts, wherever they are shown. @type {Set<string>} */
const open = new Set(shell.open);
const title = document.title;
/** When something was said last that is not critical (ms), and how many came since. */
let saidAt = 0;
let unsaid = 0;

function showOpen() {
  showCount("alerts", open.size);
  document.title = open.size ? `(${open.size}) ${title}` : title;
}

/** @param {any} alert */
function announce(alert) {
  if (alert.severity === "critical") alarm(say("shell.alarm", { rule: alert.rule, where: alert.camera ?? alert.site }));
  else unsaid += 1;
}

/** What is not critical is said at most once in ten seconds. */
function announceRest() {
  if (unsaid && Date.now() - saidAt > 10_000) {
    need("news").textContent = say("shell.news", { n: unsaid });
    saidAt = Date.now();
    unsaid = 0;
  }
}

/** @param {import("./bus.js").Told[]} batch */
function countAlerts(batch) {
  for (const told of batch) {
    if (told.kind !== "alert") continue;
    if (told.body.state !== "open") open.delete(told.body.id);
    else if (!open.has(told.body.id)) {
      open.add(told.body.id);
      announce(told.body);
    }
  }
  showOpen();
  announceRest();
}

/** @type {HTMLDialogElement | null} */
let help = null;

function showKeys() {
  help?.remove();
  help = document.createElement("dialog");
  help.setAttribute("aria-labelledby", "keys-title");
  const title = document.createElement("h2");
  title.id = "keys-title";
  title.textContent = say("keys.title");
  const list = document.createElement("dl");
  list.className = "keys";
  for (const binding of keys.list()) {
    const term = document.createElement("dt");
    for (const part of binding.key.split(" ")) {
      const key = document.createElement("kbd");
      key.textContent = part;
      term.append(key, " ");
    }
    const words = document.createElement("dd");
    words.textContent = binding.words;
    list.append(term, words);
  }
  const single = document.createElement("button");
  single.type = "button";
  single.className = "button";
  single.textContent = say(keys.single ? "keys.off" : "keys.on");
  single.addEventListener("click", () => {
    keys.single = !keys.single;
    keep("single", keys.single ? null : "off");
    single.textContent = say(keys.single ? "keys.off" : "keys.on");
  });
  const close = document.createElement("button");
  close.type = "button";
  close.className = "button button--primary";
  close.textContent = say("shell.close");
  close.addEventListener("click", () => help?.close());
  const row = document.createElement("div");
  row.className = "row row--end";
  row.append(single, close);
  const body = document.createElement("div");
  body.className = "stack";
  body.append(title, list, row);
  help.append(body);
  document.body.append(help);
  help.showModal();
}

function startKeys() {
  keys.single = kept("single") !== "off";
  for (const entry of shell.nav) {
    const words = say("keys.goto", { room: document.querySelector(`[data-nav="${entry.name}"]`)?.firstChild?.textContent?.trim() ?? entry.name });
    keys.bind({ key: `g ${entry.letter}`, words, run: () => location.assign(entry.path), everywhere: true });
  }
  keys.bind({ key: "?", words: say("keys.help"), run: showKeys, everywhere: true });
  keys.bind({ key: "z", words: say("keys.undo"), run: undoLast, everywhere: true });
  keys.bind({
    key: "/",
    words: say("keys.search"),
    run: () => /** @type {HTMLElement | null} */ (document.querySelector("[data-search]"))?.focus(),
    everywhere: true,
  });
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    const binding = keys.find(event, isTyping(event.target));
    if (binding) {
      event.preventDefault();
      binding.run(event);
    } else if (event.key === "Escape" && isTyping(event.target)) /** @type {HTMLElement} */ (event.target).blur();
  });
  const button = need("keys");
  button.hidden = false;
  button.addEventListener("click", showKeys);
}

/** Forms marked so are sent as soon as a choice is made. */
function startFilters() {
  for (const form of /** @type {NodeListOf<HTMLFormElement>} */ (document.querySelectorAll("form[data-at-once]"))) {
    form.addEventListener("change", () => form.requestSubmit());
    form.addEventListener("submit", () => {
      for (const field of form.querySelectorAll("input, select")) {
        const input = /** @type {HTMLInputElement} */ (field);
        if (!input.value) input.disabled = true; // an address names what was chosen, nothing else
      }
    });
  }
  addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("form[data-at-once] :disabled")) /** @type {HTMLInputElement} */ (field).disabled = false;
  });
}

root.dataset.script = "on";
startTheme();
startKeys();
startFilters();
startClock();
if (shell.live) startLive();
