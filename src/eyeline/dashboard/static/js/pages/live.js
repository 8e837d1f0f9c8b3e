// The wall: events change tiles in place, nothing moves under the pointer, and what matches newly waits behind a pill.
// @ts-check
import { keys } from "../boot.js";
import { onEvents } from "../bus.js";
import { pictureOf } from "../overlay.js";
import { copyOf, fill, need, pageData, say, showStatus, slot } from "../page.js";
import { send } from "../send.js";
import { dress, show } from "../tile.js";
import { everySecond, setAge, since } from "../time.js";
import { toast } from "../toast.js";

/**
 * @typedef {{camera: string, site: string, zone: string, state: string, silent_after: number | null}} Other
 * @typedef {{labels: string[], record: string, filters: Record<string, string>, others: Other[], alerts: Record<string, [string | null, string | null, string]>}} LiveData
 */

const MOST_CARDS = 20;
/** @type {LiveData} */
const data = pageData();
const root = document.documentElement;
const wall = need("tiles");
/** Tiles by camera; pictures of clients are under "". @type {Map<string, HTMLElement>} */
const tiles = new Map();
/** Cameras that are on this wall's sites but were filtered out by what they showed. @type {Map<string, Other>} */
const others = new Map(data.others.map((other) => [other.camera, other]));
/** Cameras of `others` that match now. @type {Set<string>} */
const matching = new Set();
/** Open alerts: id → camera, label, site. @type {Map<string, [string | null, string | null, string]>} */
const open = new Map(Object.entries(data.alerts));
let shownWidth = 248;
let shownHeight = 140;

/** @param {string | null} camera */
function alertingAt(camera) {
  /** @type {Set<string>} */
  const labels = new Set();
  for (const [where, label] of open.values()) if (where === camera && label) labels.add(label);
  return labels;
}

const options = () => ({ width: shownWidth > 320 ? 640 : 320, shown: shownWidth, tall: shownHeight });

function measure() {
  const first = wall.querySelector(".frame");
  if (!first?.clientWidth) return;
  shownWidth = first.clientWidth;
  shownHeight = first.clientHeight;
}

function dressAll() {
  measure();
  for (const tile of tiles.values()) {
    const frame = slot(tile, "frame");
    if (frame) dress(frame, options());
  }
}

/** @param {HTMLElement} tile @param {string} state */
function setState(tile, state) {
  if (tile.dataset.state === state) return;
  tile.dataset.state = state;
  showStatus(tile, state);
}

/** @param {any} result @param {import("../overlay.js").Picture | null} picture */
function stateOf(result, picture) {
  if (alertingAt(result.camera).size || [...open.values()].some(([where]) => where === result.camera)) return "alert";
  return picture?.boxes.some((box) => box.doubtful) ? "review" : "ok";
}

/** @param {string} state @param {import("../overlay.js").Picture | null} picture */
function wanted(state, picture) {
  const { label, status } = data.filters;
  return (!status || status === state) && (!label || Boolean(picture?.boxes.some((box) => box.label === label)));
}

/** @param {any} result */
function takeResult(result) {
  const camera = result.camera ?? "";
  const tile = tiles.get(camera) ?? newcomer(result);
  const picture = pictureOf(result, data.labels, alertingAt(result.camera));
  const state = stateOf(result, picture);
  if (!tile) {
    if (!others.has(camera)) return;
    if (wanted(state, picture)) matching.add(camera);
    else matching.delete(camera);
    return;
  }
  const at = result.captured_at < result.received_at ? result.captured_at : result.received_at;
  if (picture) {
    const frame = slot(tile, "frame");
    if (frame) show(frame, picture, options());
    tile.dataset.at = at;
    for (const time of tile.querySelectorAll("time[data-age]")) setAge(time, at);
    /** @type {HTMLAnchorElement | null} */ (slot(tile, "open"))?.setAttribute("href", recordOf(result.id));
  }
  setState(tile, state);
  tile.toggleAttribute("data-out", !wanted(state, picture));
}

/** @param {string} id */
const recordOf = (id) => data.record.replace("{id}", id);

/** Pictures of clients get their tile when the first one comes. @param {any} result */
function newcomer(result) {
  if (result.camera || others.has("") || data.filters.camera || (data.filters.site && data.filters.site !== result.site)) return undefined;
  const tile = copyOf("tile");
  fill(tile, "camera", say("live.uploads"));
  fill(tile, "site", result.site);
  wall.append(tile);
  tiles.set("", tile);
  measure();
  return tile;
}

/** @param {any} alert */
function takeAlert(alert) {
  const camera = alert.body?.camera ?? null;
  if (alert.state === "open") {
    open.set(alert.id, [camera, alert.body?.hit?.label ?? null, alert.site]);
    tick("alerts", `/alerts?alert=${encodeURIComponent(alert.id)}`);
  } else open.delete(alert.id);
  const tile = tiles.get(camera ?? "");
  if (tile && alert.state === "open" && tile.dataset.state !== "offline") setState(tile, "alert");
  showCard(alert, camera);
}

/** @param {string | null} camera @param {string} site */
const about = (camera, site) => (!data.filters.site || data.filters.site === site) && (!data.filters.camera || data.filters.camera === camera);

/**
 * The newest on top, but never above what is critical.
 * @param {HTMLElement} rail @param {HTMLElement} card @param {string} severity
 */
function place(rail, card, severity) {
  const below = severity === "critical" ? rail.firstElementChild : rail.querySelector('.card:not([data-severity="critical"])');
  rail.insertBefore(card, below);
}

/** @param {any} alert @param {string | null} camera */
function showCard(alert, camera) {
  const rail = need("rail");
  let card = /** @type {HTMLElement | null} */ (rail.querySelector(`[data-alert="${CSS.escape(alert.id)}"]`));
  if (alert.state !== "open") card?.remove();
  else if (about(camera, alert.site)) {
    if (!card) {
      card = copyOf("card");
      card.dataset.alert = alert.id;
      // a card that comes while one is pointed at or focused would push it away: it goes to the end, to be sorted at the next load
      if (rail.matches(":hover, :focus-within")) rail.append(card);
      else place(rail, card, alert.severity);
      while (rail.childElementCount > MOST_CARDS && !rail.matches(":hover, :focus-within")) rail.lastElementChild?.remove();
    }
    card.dataset.severity = alert.severity;
    showStatus(card, alert.severity);
    fill(card, "rule", alert.rule);
    const hit = alert.body?.hit ?? {};
    const score = hit.score ? ` ${Math.round(hit.score * 100)}%` : "";
    const what = hit.label ?? hit.health;
    fill(card, "where", [camera, alert.site, what && `${what}${score}`].filter(Boolean).join(" · "));
    setAge(slot(card, "age"), alert.last_at);
    slot(card, "open")?.setAttribute("href", `/alerts?alert=${encodeURIComponent(alert.id)}`);
  }
  const here = [...open.values()].filter(([where, , site]) => about(where, site)).length;
  need("rail-title").textContent = say("live.alerts", { n: here });
  need("no-alerts").hidden = here > 0;
}

/** @param {HTMLElement} card */
async function acknowledge(card) {
  const id = card.dataset.alert ?? "";
  const path = `/v1/alerts/${encodeURIComponent(id)}`;
  try {
    const told = await send("POST", `${path}/acknowledge`, {});
    takeAlert(told.alert);
    toast(say("live.acked", { rule: told.alert.rule }), { undo: () => send("POST", `${path}/undo`, {}).then((back) => takeAlert(back.alert), failed) });
  } catch (error) {
    failed(error);
  }
}

/** @param {unknown} error */
function failed(error) {
  toast(say("shell.failed", { why: error instanceof Error ? error.message : String(error) }));
}

function acknowledgeNewest() {
  const card = /** @type {HTMLElement | null} */ (document.activeElement?.closest(".card") ?? need("rail").querySelector(".card"));
  if (card) acknowledge(card);
}

function showPill() {
  const pill = need("more");
  pill.hidden = matching.size === 0;
  pill.textContent = say("live.more", { n: matching.size });
}

/** Cameras that are silent for too long are offline. */
function lookForSilence() {
  for (const tile of tiles.values()) {
    const after = Number(tile.dataset.silent ?? Infinity);
    if (tile.dataset.at && since(tile.dataset.at) > after) setState(tile, "offline");
  }
}

/** @param {string} id @param {string} key @param {() => boolean} flip says whether it is on now */
function toggle(id, key, flip) {
  const button = need(id);
  const run = () => button.setAttribute("aria-pressed", String(flip()));
  button.addEventListener("click", run);
  keys.bind({ key, words: button.firstChild?.textContent?.trim() ?? id, run });
}

/** @param {string} name @param {string} off */
function flag(name, off) {
  return () => {
    if (root.dataset[name] === off) delete root.dataset[name];
    else root.dataset[name] = off;
    return root.dataset[name] === off;
  };
}

/** @param {number} step */
function walk(step) {
  const links = /** @type {HTMLElement[]} */ ([...wall.querySelectorAll(".tile__open")]);
  const at = links.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  links[at < 0 ? 0 : Math.max(0, Math.min(links.length - 1, at + step))]?.focus();
}

function solo() {
  const tile = /** @type {HTMLElement | null} */ (document.activeElement?.closest(".tile") ?? wall.querySelector(".tile"));
  const link = tile && /** @type {HTMLAnchorElement | null} */ (slot(tile, "open"));
  const image = tile && /** @type {HTMLImageElement | null} */ (slot(tile, "image"));
  if (!link || !image) return;
  const large = document.createElement("dialog");
  large.className = "solo";
  large.setAttribute("aria-label", slot(/** @type {HTMLElement} */ (tile), "camera")?.textContent ?? "");
  const picture = document.createElement("img");
  const address = new URL(image.src);
  address.search = "?overlay=1&width=1280";
  picture.src = address.href;
  picture.alt = image.alt;
  large.append(picture);
  large.addEventListener("click", () => large.close());
  large.addEventListener("close", () => large.remove());
  document.body.append(large);
  large.showModal();
}

/** Tick a step of the checklist, where there is one. @param {string} name @param {string} [href] where what was done is shown */
function tick(name, href) {
  const step = document.querySelector(`[data-step="${name}"]`);
  if (!step) return;
  fill(step, "sign", "✓");
  fill(step, "done", `(${say("live.first.done")})`);
  slot(step, "how")?.remove();
  if (href) slot(step, "see")?.setAttribute("href", href);
}

/** The sample: this page sends bundled pictures as a camera would, twice a second, and their rule. */
function startSample() {
  const sample = document.getElementById("sample");
  if (!sample) return;
  const { clip = "", pipeline = "", files } = sample.dataset;
  const button = need("replay");
  let sent = 0;
  let busy = false;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;
  const stop = () => {
    clearInterval(timer);
    timer = undefined;
    button.textContent = say("live.sample.start");
  };
  const next = async () => {
    if (busy) return;
    busy = true;
    try {
      const picture = await (await fetch(`/samples/${clip}/${sent}`)).blob();
      const answer = await fetch(`/v1/images?${new URLSearchParams({ pipeline, "meta.sample": clip })}`, { method: "POST", body: picture });
      if (answer.ok) need("sent").textContent = say("live.sample.sent", { n: ++sent });
    } catch {
      stop();
      failed(new Error(say("shell.away")));
    }
    busy = false;
  };
  const file = async () => {
    try {
      const told = await send("POST", `/samples/${clip}/rule`);
      if (told.kept) tick("rules");
    } catch (error) {
      failed(error);
    }
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = say("live.sample.stop");
    timer = setInterval(next, 500);
    if (files !== undefined) file();
    next();
  });
}

function start() {
  startSample();
  for (const tile of /** @type {NodeListOf<HTMLElement>} */ (wall.querySelectorAll(".tile"))) tiles.set(tile.dataset.camera ?? "", tile);
  dressAll();
  new ResizeObserver(() => {
    const before = shownWidth;
    measure();
    if (Math.abs(before - shownWidth) > 8) dressAll();
  }).observe(wall);
  onEvents((batch) => {
    /** @type {Map<string, any>} */
    const newest = new Map();
    for (const told of batch) {
      if (told.kind === "alert") takeAlert(told.body);
      else if (told.kind === "result") newest.set(told.body.camera ?? "", told.body);
    }
    for (const result of newest.values()) takeResult(result);
    showPill();
  });
  everySecond(lookForSilence);
  need("rail").addEventListener("submit", (event) => {
    event.preventDefault();
    const card = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest(".card"));
    if (card) acknowledge(card);
  });
  keys.bind({ key: "a", words: say("live.ack_newest"), run: acknowledgeNewest });
  need("more").addEventListener("click", () => location.reload());
  keys.bind({ key: "j", words: say("keys.next"), run: () => walk(1) });
  keys.bind({ key: "k", words: say("keys.previous"), run: () => walk(-1) });
  keys.bind({ key: "r", words: say("keys.refresh"), run: () => location.reload() });
  keys.bind({ key: "f", words: say("live.solo"), run: solo });
  if (document.getElementById("view")) {
    need("view").hidden = false;
    const boxes = flag("boxes", "off");
    const labels = flag("labels", "off");
    toggle("boxes", "b", () => !boxes());
    toggle("labels", "l", () => !labels());
    toggle("doubtful", "d", flag("doubtful", "only"));
    startWall();
  }
}

function startWall() {
  const set = (/** @type {boolean} */ on) => {
    if (on) root.dataset.wall = "on";
    else delete root.dataset.wall;
    const url = new URL(location.href);
    if (on) url.searchParams.set("wall", "1");
    else url.searchParams.delete("wall");
    history.replaceState(history.state, "", url);
    dressAll();
    return on;
  };
  toggle("wall", "w", () => set(root.dataset.wall !== "on"));
  keys.bind({ key: "Escape", words: say("keys.close"), run: () => need("wall").setAttribute("aria-pressed", String(set(false))) });
  if (new URLSearchParams(location.search).has("wall")) need("wall").setAttribute("aria-pressed", String(set(true)));
}

start();
