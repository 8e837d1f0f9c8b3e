// Review: one picture at a time. Keys and mouse do the same; what is decided is sent while the next picture is there.
// @ts-check
import { keys, showCount } from "../boot.js";
import { onBack } from "../bus.js";
import { number, tenths } from "../fmt.js";
import { need, pageData, say, shell, slot, fill } from "../page.js";
import { send } from "../send.js";
import { toast } from "../toast.js";
import { onUnsaved } from "../unsaved.js";
import { boxAt, dragged, fitted, handleAt, moved, spanned, toPicture, typed, zoomed } from "../review/boxes.js";
import { paint } from "../review/draw.js";
import { changed, choosing, drawn, nudged, opened, removed, replaced, restored, stepped, stretched, verdictOf } from "../review/model.js";
import { Outbox } from "../review/outbox.js";

/**
 * @typedef {{result: any, reason: string, held_by: string | null}} Entry
 * @typedef {import("../review/boxes.js").Sides} Sides
 */

/** Pictures got ready before they are shown; the queue is asked for more when so few are left. */
const AHEAD = 3;
const FEW = 5;
/** How often (ms) others are told that this picture is being looked at. */
const HOLD = 30_000;
const WIDE = 1600;

/** @type {{queue: Entry[], labels: string[], may: boolean, site: string | null, record: string, waiting: number, pace: {decided: number, seconds: number | null}}} */
const page = pageData();
const data = { ...page, queue: page.queue ?? [] };
/** @type {Set<string>} what was decided here, whatever the server's list says meanwhile */
const decided = new Set();
/** @type {Map<string, HTMLImageElement>} */
const images = new Map();
const stage = document.getElementById("stage");
const canvas = /** @type {HTMLCanvasElement | null} */ (document.getElementById("canvas"));

let at = 0;
/** @type {import("../review/model.js").Picture} */
let picture = opened([], { width: 1, height: 1 });
/** @type {import("../review/boxes.js").View} */
let fit = { scale: 1, x: 0, y: 0 };
let view = fit;
const how = { hidden: false, contrast: false, drawing: false };
/** @type {Sides | null} */
let draft = null;

const entry = () => /** @type {Entry | undefined} */ (data.queue[at]);
/** @param {string} id */
const source = (id) => `/v1/results/${id}/image?width=${WIDE}`;

// ---- what waits to be saved
const shelf = {
  get: () => localStorage.getItem("eyeline.review"),
  set: (/** @type {string} */ text) => localStorage.setItem("eyeline.review", text),
};
const outbox = new Outbox((one) => send("POST", `/v1/results/${one.id}/verdicts`, one.body, { "Idempotency-Key": one.key }), shelf, showSaving);

function showSaving() {
  const line = need("saving");
  const failed = outbox.failed;
  const [state, words] = failed.length
    ? ["failed", say("review.failed", { n: failed.length, why: failed[0]?.why ?? "" })]
    : outbox.waiting.length
      ? ["saving", say("review.saving", { n: outbox.waiting.length })]
      : outbox.saved ? ["saved", say("review.saved")] : ["none", ""];
  line.dataset.state = state;
  fill(line, "words", words);
  need("retry").hidden = !failed.length;
}

/** Random where the browser has no secure context either. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- showing
function show() {
  const now = entry();
  need("clear").hidden = now !== undefined;
  const room = document.getElementById("review");
  if (room) room.hidden = now === undefined;
  if (!now || !stage) return;
  picture = opened(now.result.detections, now.result.image);
  Object.assign(how, { drawing: false, hidden: false });
  draft = null;
  const facts = need("facts");
  fill(facts, "reason", say(`review.reason.${now.reason}`));
  fill(facts, "where", [now.result.camera ?? "–", now.result.site].join(" · "));
  fill(facts, "ref", now.result.ref ?? "–");
  fill(facts, "model", now.result.models.map((/** @type {any} */ model) => `${model.name} ${model.version}`).join(" ") || "–");
  /** @type {HTMLAnchorElement} */ (need("record")).href = data.record.replace("{id}", now.result.id);
  const id = document.querySelector("#decide [name=id]");
  if (id) /** @type {HTMLInputElement} */ (id).value = now.result.id;
  showHeld(now.held_by);
  const image = ready(now.result.id);
  if (!image.complete) image.addEventListener("load", draw, { once: true });
  layout();
  update();
  setTimeout(() => { // after the picture: nothing of this is waited for
    if (entry() !== now) return;
    for (const next of data.queue.slice(at + 1, at + 1 + AHEAD)) ready(next.result.id);
    showStrip();
    hold();
  });
}

/** @param {string} id */
function ready(id) {
  let image = images.get(id);
  if (!image) {
    image = new Image();
    image.src = source(id);
    image.decode().catch(() => {}); // one that cannot be had is black, and the boxes are there
    images.set(id, image);
    for (const old of [...images.keys()].slice(0, -10)) images.delete(old);
  }
  return image;
}

function layout() {
  if (!stage || !canvas) return;
  stage.hidden = false;
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = stage;
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  fit = fitted(picture.size, { width, height });
  view = fit;
  draw();
}

function draw() {
  const now = entry();
  const context = canvas?.getContext("2d");
  if (!now || !context) return;
  const image = images.get(now.result.id);
  const shown = image?.complete && image.naturalWidth ? image : null;
  paint(context, shown, picture, view, { labels: data.labels, hidden: how.hidden, contrast: how.contrast, ratio: devicePixelRatio || 1, draft });
}

/** After every step: the picture, the fields, the buttons, and a word for those who do not see it. @param {{fields?: boolean}} [options] */
function update({ fields = true } = {}) {
  draw();
  if (fields) showFields();
  const confirm = document.querySelector("[data-run=confirm]");
  if (confirm) fill(confirm, "confirm", say(changed(picture) ? "review.correct" : "review.confirm"));
  document.querySelector("[data-run=draw]")?.setAttribute("aria-pressed", String(how.drawing));
  document.querySelector("[data-run=contrast]")?.setAttribute("aria-pressed", String(how.contrast));
  const box = picture.boxes[picture.chosen];
  if (box) need("said").textContent = sentence(box, picture.chosen);
}

/** @param {import("../review/model.js").Box} box @param {number} index */
function sentence({ label, box: [x1, y1, x2, y2] }, index) {
  const [x, y, w, h] = [x1, y1, x2 - x1, y2 - y1].map(Math.round);
  return say("review.box_said", { number: index + 1, count: picture.boxes.length, label, x: x ?? 0, y: y ?? 0, w: w ?? 0, h: h ?? 0 });
}

function showFields() {
  const body = need("boxes");
  const template = /** @type {HTMLTemplateElement} */ (need("box-row"));
  body.replaceChildren(...picture.boxes.map((box, index) => {
    const row = /** @type {HTMLElement} */ (/** @type {HTMLElement} */ (template.content.querySelector("tr")).cloneNode(true));
    row.dataset.index = String(index);
    if (index === picture.chosen) row.setAttribute("aria-selected", "true");
    fill(row, "number", String(index + 1));
    fill(row, "source", box.step === "human" ? say("review.source_human") : `${box.step} ${Math.round(box.score * 100)}%`);
    const [x1, y1, x2, y2] = box.box;
    const values = { label: box.label, x: Math.round(x1), y: Math.round(y1), w: Math.round(x2 - x1), h: Math.round(y2 - y1) };
    for (const [name, value] of Object.entries(values)) {
      const input = /** @type {HTMLInputElement} */ (slot(row, name));
      input.value = String(value);
      input.disabled = !data.may;
      input.setAttribute("aria-label", say("review.field", { name: say(`review.${name}`), number: index + 1 }));
    }
    return row;
  }));
  need("no-boxes").hidden = picture.boxes.length > 0;
}

function showStrip() {
  const strip = need("strip");
  strip.replaceChildren(...data.queue.slice(Math.max(0, at - 1), at + 8).map((each) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "review__thumb";
    const index = data.queue.indexOf(each);
    if (index === at) button.setAttribute("aria-current", "true");
    button.setAttribute("aria-label", say("review.position", { at: index + 1, count: data.queue.length }));
    const image = new Image(96, 54);
    image.src = `/v1/results/${each.result.id}/image?width=160`;
    image.alt = "";
    image.loading = "lazy";
    button.append(image);
    button.addEventListener("click", () => go(index));
    item.append(button);
    return item;
  }));
}

/** @param {string | null} by */
function showHeld(by) {
  const note = need("held");
  note.hidden = !by || by === shell.user;
  note.textContent = note.hidden ? "" : say("review.held", { by: by ?? "" });
}

// ---- the queue
/** @param {number} index */
function go(index) {
  at = Math.max(0, Math.min(index, data.queue.length));
  show();
  topUp();
}

function next() {
  go(at + 1);
}

function topUp() {
  if (data.queue.length - at <= FEW) refill();
}

/** Decisions and undos so far: what the server counted before one of them is old. */
let turns = 0;

/** How far this reviewer is today: what is sent already counts, and the server says it again. @param {number} [more] decided just now */
function showProgress(more = 0) {
  turns += Math.abs(more);
  data.pace.decided += more;
  data.waiting = Math.max(0, data.waiting - more);
  const { decided: mine, seconds } = data.pace;
  const all = number(mine + data.waiting) + (data.waiting > 10_000 ? "+" : "");
  const values = { mine: number(mine), all, s: seconds ?? "" };
  need("progress").textContent = say(seconds === null ? "review.progress" : "review.progress_pace", values);
  showCount("review", data.waiting);
}

async function refill() {
  const asked = turns;
  const more = await send("GET", `/v1/review?limit=20${data.site ? `&site=${encodeURIComponent(data.site)}` : ""}`).catch(() => null);
  if (!more) return;
  const known = new Set(data.queue.map((each) => each.result.id));
  const fresh = more.review.filter((/** @type {Entry} */ each) => !known.has(each.result.id) && !decided.has(each.result.id));
  const empty = entry() === undefined;
  data.queue.push(...fresh.map((/** @type {Entry} */ each) => ({ ...each, result: { ...each.result, detections: each.result.verdict?.detections ?? each.result.detections } })));
  if (asked === turns && !outbox.waiting.length) {
    Object.assign(data, { waiting: more.waiting, pace: more.pace });
    showProgress();
  }
  if (more.needed) {
    const { today, yesterday } = more.needed;
    need("needed").textContent = say(today === null ? "review.needed_none" : "review.needed", { today: tenths(today), yesterday: tenths(yesterday) });
  }
  if (empty && fresh.length) show();
  else if (fresh.length) showStrip();
}

async function hold() {
  const now = entry();
  if (!now || !data.may || document.hidden) return;
  const held = await send("POST", `/v1/review/${now.result.id}/hold`).catch(() => null);
  if (held && entry() === now) showHeld(held.held_by);
}

// ---- deciding
/** @param {"confirmed" | "rejected" | "unsure"} kind */
function decide(kind) {
  const now = entry();
  if (!now || !data.may) return;
  const comment = /** @type {HTMLInputElement} */ (need("comment"));
  const body = verdictOf(picture, kind, comment.value);
  comment.value = "";
  decided.add(now.result.id);
  const before = picture;
  const key = newKey();
  outbox.add(now.result.id, body, key).then(topUp);
  data.queue.splice(at, 1);
  showProgress(1);
  toast(say(`review.done.${body.kind}`), { undo: () => undo(now, before, key) });
  go(at);
  stage?.focus({ preventScroll: true });
}

/** @param {Entry} entry @param {import("../review/model.js").Picture} before @param {string} key */
async function undo(entry, before, key) {
  const answer = await outbox.withdraw(key);
  if (answer) await send("POST", `/v1/results/${entry.result.id}/verdicts/${answer.record.id}/undo`);
  decided.delete(entry.result.id);
  showProgress(-1);
  data.queue.splice(at, 0, entry);
  show();
  picture = before;
  update();
  toast(say("review.undone"));
}

// ---- steps of the editor
/** @param {import("../review/model.js").Picture | null} after */
function step(after) {
  if (!after || !data.may) return false;
  picture = after;
  update();
  return true;
}

const usual = () => picture.boxes[picture.chosen]?.label ?? data.labels[0] ?? "";

function toggleDrawing() {
  how.drawing = !how.drawing;
  if (how.drawing) {
    // by keys: a box in the middle, to be moved and sized; by mouse: it is drawn anew
    const { width, height } = picture.size;
    step(drawn(picture, [Math.round(width * 0.4), Math.round(height * 0.4), Math.round(width * 0.6), Math.round(height * 0.6)], usual()));
  }
  update();
}

/** @type {Record<string, () => void>} */
const runs = {
  confirm: () => decide("confirmed"),
  reject: () => decide("rejected"),
  unsure: () => decide("unsure"),
  draw: toggleDrawing,
  remove: () => step(removed(picture)),
  reset: () => step(restored(picture)),
  contrast: () => {
    how.contrast = !how.contrast;
    update({ fields: false });
  },
};

/** @param {string} key @param {string} words @param {() => void} run @param {boolean} [staged] only while the picture has the focus */
function bind(key, words, run, staged = false) {
  keys.bind({ key, words: say(`review.key.${words}`), run, when: () => entry() !== undefined && (!staged || document.activeElement === stage) });
}

function bindKeys() {
  bind("y", "confirm", () => decide("confirmed"));
  bind("n", "reject", () => decide("rejected"));
  bind("u", "unsure", () => decide("unsure"));
  bind("Space", "next", next);
  bind("Backspace", "previous", () => go(at - 1));
  data.labels.slice(0, 9).forEach((label, index) => {
    keys.bind({
      key: String(index + 1), words: say("review.key.class", { label }),
      run: () => step(replaced(picture, picture.chosen, { label })), when: () => picture.chosen >= 0,
    });
  });
  keys.bind({ key: "Tab", words: say("review.key.next_box"), run: () => step(stepped(picture, 1)), when: () => onStage() && stepped(picture, 1) !== null });
  keys.bind({ key: "Shift+Tab", words: say("review.key.previous_box"), run: () => step(stepped(picture, -1)), when: () => onStage() && stepped(picture, -1) !== null });
  bind("b", "draw", toggleDrawing);
  for (const [name, [dx, dy]] of Object.entries({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] })) {
    const [x, y] = [dx ?? 0, dy ?? 0];
    bind(name, "move", () => step(nudged(picture, x, y)), true);
    bind(`Shift+${name}`, "move_far", () => step(nudged(picture, 10 * x, 10 * y)), true);
    bind(`Alt+${name}`, "resize", () => step(stretched(picture, x, y)), true);
    bind(`Alt+Shift+${name}`, "resize", () => step(stretched(picture, 10 * x, 10 * y)), true);
  }
  bind("Delete", "remove", () => step(removed(picture)), true);
  bind("c", "comment", () => need("comment").focus());
  bind("i", "contrast", () => runs.contrast?.());
  bind("0", "fit", () => zoom(0));
  bind("+", "closer", () => zoom(1.25));
  bind("-", "farther", () => zoom(0.8));
  keys.bind({ key: "h", words: say("review.key.hide"), run: () => hide(true), when: () => entry() !== undefined });
  addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === "h") hide(false);
  });
}

const onStage = () => document.activeElement === stage;

/** @param {boolean} hidden */
function hide(hidden) {
  if (how.hidden === hidden) return;
  how.hidden = hidden;
  draw();
}

/** @param {number} factor 0: the whole picture */
function zoom(factor) {
  if (!stage) return;
  const box = picture.boxes[picture.chosen]?.box;
  const [x, y] = box
    ? [((box[0] + box[2]) / 2) * view.scale + view.x, ((box[1] + box[3]) / 2) * view.scale + view.y]
    : [stage.clientWidth / 2, stage.clientHeight / 2];
  view = factor ? zoomed(view, factor, x, y, fit) : fit;
  draw();
}

// ---- the mouse
/** @type {{kind: "move" | "size" | "draw" | "pan", x: number, y: number, handle?: any, box?: Sides} | null} */
let drag = null;

/** @param {PointerEvent} event @returns {[number, number]} */
function pointOf(event) {
  const frame = /** @type {HTMLElement} */ (stage).getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}

/** @param {PointerEvent} event */
function press(event) {
  if (event.button !== 0 || !data.may) return;
  const [sx, sy] = pointOf(event);
  const [x, y] = toPicture(view, sx, sy);
  const chosen = picture.boxes[picture.chosen];
  const handle = chosen && handleAt(chosen.box, view, sx, sy);
  const found = boxAt(picture.boxes.map((box) => box.box), x, y);
  if (handle) drag = { kind: "size", x, y, handle, box: chosen.box };
  else if (event.shiftKey || found < 0) drag = view.scale > fit.scale && !event.shiftKey ? { kind: "pan", x: sx, y: sy } : { kind: "draw", x, y };
  else {
    step(choosing(picture, found));
    drag = { kind: "move", x, y, box: picture.boxes[found]?.box };
  }
  stage?.setPointerCapture(event.pointerId);
}

/** @param {PointerEvent} event */
function pull(event) {
  if (!drag) return;
  const [sx, sy] = pointOf(event);
  const [x, y] = toPicture(view, sx, sy);
  if (drag.kind === "pan") {
    view = { ...view, x: view.x + sx - drag.x, y: view.y + sy - drag.y };
    [drag.x, drag.y] = [sx, sy];
  } else if (drag.kind === "draw") draft = spanned(drag.x, drag.y, x, y, picture.size);
  else if (drag.box) {
    const box = drag.kind === "size" ? dragged(drag.box, drag.handle, x, y, picture.size) : moved(drag.box, x - drag.x, y - drag.y, picture.size);
    picture = replaced(picture, picture.chosen, { box });
  }
  draw();
}

function release() {
  const made = drag?.kind === "draw" ? draft : null;
  drag = null;
  draft = null;
  if (made) {
    if (how.drawing) step(removed(picture)); // the one that waited in the middle for keys
    how.drawing = false;
    step(drawn(picture, made, usual()));
  } else update();
}

// ---- the fields
/** @param {Event} event */
function edited(event) {
  const row = /** @type {HTMLElement} */ (event.target).closest("tr");
  const index = Number(row?.dataset.index);
  const box = picture.boxes[index];
  if (!row || !box) return;
  const value = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (slot(row, name)).value;
  const [x1, y1, x2, y2] = box.box;
  const before = [x1, y1, x2 - x1, y2 - y1];
  // a field that still says what it said keeps the fraction that it does not show
  const numbers = ["x", "y", "w", "h"].map((name, place) => {
    const text = value(name);
    return Number(text) === Math.round(before[place] ?? 0) ? before[place] ?? 0 : text === "" ? NaN : Number(text);
  });
  const label = value("label").trim() || box.label;
  picture = replaced(choosing(picture, index), index, { label, box: typed(numbers, box.box, picture.size) });
  update({ fields: false });
  for (const each of row.parentElement?.children ?? []) each.toggleAttribute("aria-selected", false);
  row.setAttribute("aria-selected", "true");
  fill(row, "source", picture.boxes[index]?.step === "human" ? say("review.source_human") : slot(row, "source")?.textContent ?? "");
}

function start() {
  showSaving();
  need("retry").addEventListener("click", () => outbox.retry());
  addEventListener("online", () => outbox.retry());
  onBack(() => outbox.retry());
  for (const one of outbox.waiting) decided.add(one.id); // before a reload, and not taken yet
  data.queue = data.queue.filter((each) => !decided.has(each.result.id));
  if (outbox.failed.length) outbox.retry();
  if (!stage) return;
  bindKeys();
  const tools = document.getElementById("tools");
  if (tools) {
    tools.hidden = false;
    need("comment-field").hidden = false;
    need("comment").addEventListener("keydown", (event) => {
      if (event.key === "Enter") stage.focus();
    });
    need("decide").addEventListener("submit", (event) => event.preventDefault());
    for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-run]"))) {
      button.addEventListener("click", () => runs[button.dataset.run ?? ""]?.());
    }
  }
  stage.addEventListener("pointerdown", press);
  stage.addEventListener("pointermove", pull);
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  need("boxes").addEventListener("change", edited);
  need("boxes").addEventListener("focusin", (event) => {
    const index = Number(/** @type {HTMLElement} */ (event.target).closest("tr")?.dataset.index);
    if (Number.isInteger(index) && index !== picture.chosen) {
      picture = choosing(picture, index);
      update({ fields: false });
    }
  });
  addEventListener("resize", layout);
  setInterval(hold, HOLD);
  onUnsaved(() => changed(picture) || Boolean(/** @type {HTMLInputElement | null} */ (document.getElementById("comment"))?.value));
  show();
  stage.focus({ preventScroll: true });
}

start();
