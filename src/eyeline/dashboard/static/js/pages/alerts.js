// The inbox: decisions by key and by button, many at once, and news that never push what is being read.
// @ts-check
import { keys } from "../boot.js";
import { onEvents } from "../bus.js";
import { age } from "../fmt.js";
import { fill, GLYPHS, need, pageData, say, shell, showStatus, slot } from "../page.js";
import { ask, Refused, send } from "../send.js";
import { dress } from "../tile.js";
import { clock, everySecond, setAge, since } from "../time.js";
import { toast } from "../toast.js";

/**
 * @typedef {{state: string, version: number, severity: string, site: string, camera: string | null, rule: string}} Known
 * @typedef {{filters: Record<string, string>, alerts: Record<string, Known>, chosen: string, first: boolean, away: number}} AlertsData
 */

/** @type {AlertsData} */
const data = pageData();
const known = new Map(Object.entries(data.alerts));
/** Alerts that came since and are not in the list. @type {Set<string>} */
const fresh = new Set();
/** @type {HTMLInputElement | null} */
let lastTick = null;
/** The alert that Enter in the note's field acknowledges; none: the note is only added. @type {string | null} */
let acknowledges = null;

/** @param {string} id @returns {HTMLElement | null} */
const rowOf = (id) => document.querySelector(`.alert[data-alert="${CSS.escape(id)}"]`);

/** @returns {HTMLElement[]} */
const rows = () => [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".alert"))].filter((row) => row.checkVisibility());

/** @returns {HTMLInputElement[]} */
const ticked = () => [.../** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll(".alert input:checked"))];

/** The alert that a key is about: the one with the focus, or else the one that is shown. */
function current() {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest(".alert"));
  return focused?.dataset.alert ?? data.chosen;
}

/** @param {any} alert as the API or an event tells it */
function showAlert(alert) {
  known.set(alert.id, { state: alert.state, version: alert.version, severity: alert.severity, site: alert.site, camera: alert.camera ?? null, rule: alert.rule });
  fresh.delete(alert.id);
  const row = rowOf(alert.id);
  if (row) {
    row.dataset.state = alert.state;
    showStatus(row, alert.state);
    fill(row, "owner", alert.assignee ?? "");
    fill(row, "count", say("alerts.hits", { n: alert.count }));
    setAge(slot(row, "age"), alert.last_at);
    showOver(row, alert);
    row.toggleAttribute("data-gone", !wanted(alert)); // it leaves with the next load; nothing moves now
  }
  const detail = document.getElementById("detail");
  if (detail?.dataset.alert === alert.id && detail) {
    detail.dataset.version = String(alert.version);
    showStatus(detail, alert.state);
    showOver(detail, alert);
    const version = /** @type {HTMLInputElement | null} */ (detail.querySelector("input[name=version]"));
    if (version) version.value = String(alert.version);
  }
}

/** Whether its cause has ended by itself. @param {ParentNode} part @param {any} alert */
function showOver(part, alert) {
  const at = alert.body.cleared_at;
  slot(part, "over")?.toggleAttribute("hidden", !at);
  if (at) fill(part, "cleared", say("alerts.cleared", { at: clock(at, shell.zones[alert.site]) }));
}

/** @param {any} alert */
function wanted(alert) {
  const { state, severity, site, rule } = data.filters;
  const states = state ? [state] : ["open", "acknowledged"];
  return states.includes(alert.state) && (!severity || severity === alert.severity) && (!site || site === alert.site) && (!rule || rule === alert.rule);
}

function showPill() {
  const pill = document.getElementById("new");
  if (!pill) return;
  pill.hidden = fresh.size === 0;
  pill.textContent = say("alerts.new", { n: fresh.size });
}

/**
 * What an action of the page is for the API.
 * @param {string} action @param {string} note @param {string} to
 */
function request(action, note, to) {
  const [what, choice] = action.split(".");
  /** @type {Record<string, unknown>} */
  const body = note ? { note } : {};
  if (what === "resolve") body.disposition = choice;
  if (what === "snooze" && choice === "shift") body.shift = true;
  else if (what === "snooze") body.seconds = Number(choice) * 60;
  if (what === "assign") body.to = to || null;
  return { what: what ?? "", body };
}

/** @param {unknown} error */
function failed(error) {
  toast(say("shell.failed", { why: error instanceof Error ? error.message : String(error) }));
}

/**
 * Do it with one alert; its toast undoes it. False where it was not taken.
 * @param {string} id @param {string} action
 */
async function act(id, action, note = "", to = "") {
  const { what, body } = request(action, note, to);
  const version = known.get(id)?.version;
  try {
    const told = await send("POST", `/v1/alerts/${encodeURIComponent(id)}/${what}`, what === "note" ? body : { ...body, version });
    showAlert(told.alert);
    const undo = what === "note" || what === "undo" ? undefined : () => act(id, "undo");
    toast(`${say(`alerts.done.${what}`)}: ${told.alert.rule}`, { undo });
    return true;
  } catch (error) {
    if (error instanceof Refused && error.status === 409) {
      const now = await send("GET", `/v1/alerts/${encodeURIComponent(id)}`).catch(() => null);
      if (now) showAlert(now);
      toast(say("alerts.conflict"));
    } else failed(error);
    return false;
  }
}

/** @param {string} action @param {string} [note] @param {string} [to] */
async function actOnTicked(action, note = "", to = "") {
  const ids = ticked().map((box) => box.name.slice(3));
  if (!ids.length) return false;
  const { what, body } = request(action, note, to);
  const versions = what === "note" ? {} : Object.fromEntries(ids.map((id) => [id, known.get(id)?.version ?? 0]));
  const show = (/** @type {any} */ told) => told.results.forEach((/** @type {any} */ one) => one.alert && showAlert(one.alert));
  try {
    const told = await send("POST", "/v1/alerts/actions", { ids, action: what, versions, ...body });
    show(told);
    const done = told.results.filter((/** @type {any} */ one) => one.changed).map((/** @type {any} */ one) => one.id);
    const wrong = told.results.filter((/** @type {any} */ one) => one.status >= 400);
    const undo = what === "note" ? undefined : () => send("POST", "/v1/alerts/actions", { ids: done, action: "undo" }).then(show, failed);
    toast(say("alerts.many", { what: say(`alerts.done.${what}`), n: done.length }), { undo });
    if (wrong.length) toast(say("alerts.many_failed", { n: wrong.length, why: wrong[0].detail ?? "" }));
    /** @type {HTMLFormElement} */ (need("many")).reset(); // the ticks are fields of it
    showScope();
    return true;
  } catch (error) {
    failed(error);
    return false;
  }
}

function showScope() {
  const bulk = document.getElementById("many");
  if (!bulk) return;
  const count = ticked().length;
  bulk.toggleAttribute("data-any", count > 0);
  need("scope").textContent = say("alerts.scope", { n: count });
}

/** @param {boolean} range */
function tick(range) {
  const row = rowOf(current());
  const box = /** @type {HTMLInputElement | null} */ (row?.querySelector("input[type=checkbox]") ?? null);
  if (!box) return;
  const boxes = rows().map((each) => /** @type {HTMLInputElement | null} */ (each.querySelector("input[type=checkbox]"))).filter((each) => each !== null);
  if (range && lastTick) {
    const [from, to] = [boxes.indexOf(lastTick), boxes.indexOf(box)].sort((a, b) => a - b);
    for (const each of boxes.slice(from, /** @type {number} */ (to) + 1)) each.checked = true;
  } else box.checked = !box.checked;
  lastTick = box;
  showScope();
}

/** @param {number} step */
function walk(step) {
  const links = rows().map((row) => /** @type {HTMLElement} */ (slot(row, "open")));
  const at = links.findIndex((link) => link === document.activeElement);
  const from = at >= 0 ? at : links.findIndex((link) => link.hasAttribute("aria-current"));
  const next = links[Math.max(0, Math.min(links.length - 1, from + step))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

/** @param {string} action */
function byKey(action) {
  if (ticked().length) actOnTicked(action);
  else if (current()) act(current(), action);
}

/** Into a field of what a key is about: of the ticked ones, or of the alert that is shown. @param {string} name */
function write(name) {
  const field = /** @type {HTMLElement | null} */ (document.querySelector(`#${ticked().length ? "many" : "detail"} [name=${name}]`));
  const folded = field?.closest("details");
  if (folded) folded.open = true;
  field?.focus();
}

/** What Enter in a note's field does. @param {string | null} id */
function noteFor(id) {
  acknowledges = id;
  for (const form of document.querySelectorAll("#acts, #many")) fill(form, "note-words", say(id === null ? "alerts.note" : "alerts.note_acknowledges"));
}

/** @param {string | null} id */
function writeNote(id) {
  write("note");
  noteFor(id);
}

/** Their rules are silent at their cameras for a while; the toast ends that. @param {HTMLFormElement} form @param {string[]} ids */
async function mute(form, ids) {
  const fields = new FormData(form);
  const asked = { reason: String(fields.get("reason")).trim(), seconds: Number(fields.get("hours")) * 3600 };
  const places = new Map(ids.flatMap((id) => known.get(id) ?? []).map(({ rule, site, camera }) => [JSON.stringify([rule, site, camera]), { rule, site, camera }]));
  const rules = [...new Set([...places.values()].map(({ rule }) => rule))].sort().join(", ");
  try {
    const made = await Promise.all([...places.values()].map((place) => send("POST", "/v1/silences", { ...place, ...asked })));
    form.reset();
    for (const details of form.id === "many" ? form.querySelectorAll("details") : [need("mute")]) /** @type {HTMLDetailsElement} */ (details).open = false;
    showScope();
    const end = (/** @type {any} */ told) => send("DELETE", `/v1/silences/${encodeURIComponent(told.id)}`);
    const undo = () => Promise.all(made.map(end)).then(() => toast(`${say("alerts.done.unmute")}: ${rules}`), failed);
    toast(`${say("alerts.done.mute")}: ${rules}`, { undo });
  } catch (error) {
    failed(error);
  }
}

/** What was given up is sent again. @param {HTMLFormElement} form */
async function resend(form) {
  try {
    const told = await send("POST", `/v1/deliveries/${encodeURIComponent(String(new FormData(form).get("delivery")))}/retry`);
    fill(/** @type {HTMLElement} */ (form.closest("tr")), "state", told.state);
    form.remove();
    toast(`${say("alerts.done.resend")}: ${told.channel}`);
  } catch (error) {
    failed(error);
  }
}

/** Whether the engine looks is asked anew: an age that only counts up would call a living one dead. */
function followEngine() {
  const chip = need("engine");
  let at = chip.dataset.at ?? "";
  everySecond(() => {
    const state = since(at) < data.away ? "ok" : "alert";
    chip.dataset.state = state;
    fill(chip, "glyph", GLYPHS[state] ?? "");
    const away = at ? say("alerts.checked_away", { at: `${clock(at, "UTC")} UTC` }) : say("alerts.checked_never");
    fill(chip, "words", state === "ok" ? say("alerts.checked", { age: age(since(at)) }) : away);
  });
  setInterval(() => document.hidden || ask("/v1/alerts?limit=1").then((told) => void (at = told.checked_at ?? ""), () => {}), 10_000);
}

function bindKeys() {
  keys.bind({ key: "j", words: say("keys.next"), run: () => walk(1) });
  keys.bind({ key: "k", words: say("keys.previous"), run: () => walk(-1) });
  keys.bind({ key: "r", words: say("keys.refresh"), run: () => location.reload() });
  const review = document.getElementById("to-review");
  if (review) keys.bind({ key: "v", words: say("alerts.review"), run: () => review.click() });
  const rollback = document.getElementById("to-rollback");
  if (rollback) keys.bind({ key: "b", words: say("alerts.rollback_key"), run: () => rollback.click() });
  if (!document.getElementById("acts") && !document.getElementById("many")) return;
  keys.bind({ key: "a", words: say("alerts.acknowledge"), run: () => byKey("acknowledge") });
  for (const [key, action, words] of [["e r", "resolve.real", "real"], ["e f", "resolve.false", "false"], ["e t", "resolve.test", "test"]]) {
    keys.bind({ key: /** @type {string} */ (key), words: `${say("alerts.resolve")}: ${say(`alerts.${words}`)}`, run: () => byKey(/** @type {string} */ (action)) });
  }
  for (const [key, action, words] of [["s 1", "snooze.15", "snooze_15"], ["s 2", "snooze.60", "snooze_60"], ["s 3", "snooze.shift", "snooze_shift"]]) {
    keys.bind({ key: /** @type {string} */ (key), words: `${say("alerts.snooze")}: ${say(`alerts.${words}`)}`, run: () => byKey(/** @type {string} */ (action)) });
  }
  keys.bind({ key: "m", words: say("alerts.assign_key"), run: () => write("to") });
  keys.bind({ key: "n", words: say("alerts.note_key"), run: () => writeNote(null) });
  keys.bind({ key: "Shift+a", words: say("alerts.acknowledge_note"), run: () => writeNote(current()) });
  keys.bind({ key: "Shift+m", words: say("alerts.mute_key"), run: () => write("reason") });
  keys.bind({ key: "x", words: say("alerts.tick_key"), run: () => tick(false) });
  keys.bind({ key: "Shift+x", words: say("alerts.range_key"), run: () => tick(true) });
}

/** What the form of the shown or of the ticked alerts asks for. @param {SubmitEvent} event */
async function decide(event) {
  event.preventDefault();
  const form = /** @type {HTMLFormElement} */ (event.target);
  const { note, to } = /** @type {Record<string, HTMLInputElement>} */ (/** @type {unknown} */ (form.elements));
  // Enter in a field sends the form by its first button; the field says what is meant
  const at = document.activeElement;
  /** @type {Record<string, string>} */
  const fields = { note: acknowledges === null ? "note" : "acknowledge", to: "assign", reason: "mute" };
  const action = (at instanceof HTMLInputElement && fields[at.name]) || /** @type {HTMLButtonElement} */ (event.submitter).value;
  if (action === "mute") return mute(form, ticked().map((box) => box.name.slice(3)));
  const said = note?.value;
  const taken = form.id === "many"
    ? await actOnTicked(action, said, to?.value.trim())
    : await act(at === note && acknowledges !== null ? acknowledges : data.chosen, action, said, to?.value.trim());
  if (!taken) return; // what was written stands there for the next try
  if (note && note.value === said) note.value = "";
  noteFor(null);
}

function bindForms() {
  document.getElementById("acts")?.addEventListener("submit", decide);
  document.getElementById("many")?.addEventListener("submit", decide);
  document.querySelector("#mute form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    mute(/** @type {HTMLFormElement} */ (event.target), [data.chosen]);
  });
  for (const form of document.querySelectorAll("form.resend")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      resend(/** @type {HTMLFormElement} */ (form));
    });
  }
  document.addEventListener("change", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.name.startsWith("id.")) {
      lastTick = event.target;
      showScope();
    }
  });
  document.getElementById("new")?.addEventListener("click", () => location.assign(location.pathname + location.search.replace(/[?&](alert|cursor)=[^&]*/g, "")));
}

function start() {
  for (const frame of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".frame"))) {
    const large = frame.closest(".evidence") !== null;
    dress(frame, { shown: frame.clientWidth || 320, tall: frame.clientHeight, size: large ? 13 : 11, most: large ? 100 : 12 });
  }
  bindKeys();
  bindForms();
  followEngine();
  rowOf(data.chosen)?.scrollIntoView({ block: "nearest" });
  onEvents((batch) => {
    for (const told of batch) {
      if (told.kind !== "alert") continue;
      if (known.has(told.body.id)) showAlert(told.body);
      else if (data.first && wanted(told.body)) fresh.add(told.body.id);
    }
    showPill();
  });
}

start();
