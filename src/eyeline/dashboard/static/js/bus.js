// What pages know of the live stream: events in batches, the state of the line, pause and go on.
// @ts-check
import { Hub } from "./hub.js";
import { learn, now } from "./time.js";

/** @typedef {import("./stream.js").Told} Told */

/** Events are shown together, twice a second; a critical alert does not wait. */
const BATCH = 500;
/** While paused, so many events are held; with more, the page loads its lists anew when it goes on. */
const HELD = 2000;
/** Without the shared worker, a tab that nobody sees hangs up after so long. */
const HIDDEN = 60_000;
/** The line is stale when nothing was heard for so long. */
export const STALE = 25_000;

/** @type {Set<(batch: Told[]) => void>} */
const readers = new Set();
/** @type {Set<() => void>} */
const resyncs = new Set();
/** @type {Set<() => void>} */
const backs = new Set();
/** @type {Told[]} */
let waiting = [];
/** Whether events were let go while paused. */
let lost = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

export const line = {
  /** @type {"connecting" | "live" | "reconnecting"} */
  state: "connecting",
  attempt: 0,
  heard: 0,
  last: 0,
  /** How far the newest picture was behind when it was shown, in seconds. */
  behind: 0,
  /** Tabs that share the connection; 0 where each has its own. */
  shared: 0,
  /** Since when updates are held (ms), or 0. */
  paused: 0,
  /** Events that wait while paused. */
  get held() {
    return line.paused ? waiting.length : 0;
  },
};

/** @param {(batch: Told[]) => void} reader given every event of the log once, in order, some at a time */
export function onEvents(reader) {
  readers.add(reader);
}

/** @param {() => void} reader called when events were left out: the lists must be loaded anew */
export function onResync(reader) {
  resyncs.add(reader);
}

/** @param {() => void} reader called when the line is there again after a cut */
export function onBack(reader) {
  backs.add(reader);
}

/** @param {boolean} paused */
export function setPaused(paused) {
  line.paused = paused ? Date.now() : 0;
  if (paused) return;
  if (lost) resync();
  else flush();
}

/** @param {Told} told */
const urgent = (told) => told.kind === "alert" && told.body?.severity === "critical";

/** @param {Told} told */
function take(told) {
  if (told.kind === "resync") {
    line.last = told.id;
    if (line.paused) lost = true;
    else resync();
    return;
  }
  if (told.id <= line.last) return;
  line.last = told.id;
  waiting.push(told);
  if (line.paused && waiting.length > HELD) {
    waiting = [];
    lost = true;
  }
  if (urgent(told)) flush();
  else timer ??= setTimeout(flush, BATCH);
}

function flush() {
  clearTimeout(timer);
  timer = undefined;
  if (line.paused || waiting.length === 0) return;
  const batch = waiting;
  waiting = [];
  if (document.hidden) deliver(batch); // a page that nobody sees gets no frames; its title still counts
  else requestAnimationFrame(() => deliver(batch));
}

/** @param {Told[]} batch */
function deliver(batch) {
  const newest = batch.findLast((told) => told.kind === "result");
  if (newest) line.behind = Math.max(0, (now() - Date.parse(newest.body.completed_at)) / 1000);
  for (const reader of readers) reader(batch);
}

function resync() {
  waiting = [];
  lost = false;
  for (const reader of resyncs) reader();
}

/** @param {import("./hub.js").ToPage} message */
function hear(message) {
  if (message.type === "event") take(message.told);
  else {
    const back = line.state === "reconnecting" && message.health.state === "live";
    line.state = message.health.state;
    line.attempt = message.health.attempt;
    line.heard = message.health.heard;
    line.shared = message.readers;
    if (message.at) learn(message.at);
    if (back) for (const reader of backs) reader();
  }
}

/** @returns {URL | string} The worker's address as Trusted Types want it; only our own file can be named. */
function workerUrl() {
  const address = new URL("./bus-worker.js", import.meta.url).href;
  /** @type {any} */
  const types = /** @type {any} */ (globalThis).trustedTypes;
  return types ? types.createPolicy("eyeline", { createScriptURL: () => address }).createScriptURL("") : address;
}

/** @param {number} after the event up to which the page was made */
export function startBus(after) {
  line.last = after;
  if ("SharedWorker" in globalThis) shared();
  else own();
}

function shared() {
  const worker = new SharedWorker(workerUrl(), { type: "module", name: "eyeline" });
  const here = () => worker.port.postMessage({ type: "here", after: line.last });
  worker.port.onmessage = (message) => hear(message.data);
  here();
  setInterval(here, 10_000);
  addEventListener("pagehide", () => worker.port.postMessage({ type: "bye" }));
  addEventListener("pageshow", (event) => {
    if (event.persisted) here();
  });
}

function own() {
  const hub = new Hub((url) => new EventSource(url));
  const port = { postMessage: hear };
  const here = () => hub.hear(port, { type: "here", after: line.last });
  here();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let leaving;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(() => hub.hear(port, { type: "bye" }), HIDDEN);
    else here();
  });
  setInterval(() => document.hidden || here(), 10_000);
}
