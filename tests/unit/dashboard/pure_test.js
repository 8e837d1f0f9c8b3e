// @ts-check
import { age, lapse, number, percent } from "../../../src/eyeline/dashboard/static/js/fmt.js";
import { Hub } from "../../../src/eyeline/dashboard/static/js/hub.js";
import { Keys, nameOf } from "../../../src/eyeline/dashboard/static/js/keys.js";
import { placeChips } from "../../../src/eyeline/dashboard/static/js/overlay.js";
import { token, writing } from "../../../src/eyeline/dashboard/static/js/search.js";
import { pause, Stream } from "../../../src/eyeline/dashboard/static/js/stream.js";
import { above, apart, path, ticks } from "../../../src/eyeline/dashboard/static/js/chart.js";

/** @typedef {{test(name: string, run: () => void | Promise<void>): void}} Runtime */
const runtime = /** @type {Runtime} */ (/** @type {any} */ (globalThis).Deno);

/** @param {unknown} found @param {unknown} wanted */
function same(found, wanted) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`${left} is not ${right}`);
}

runtime.test("numbers have thin spaces and few digits", () => {
  same([number(1204), number(0.0123), number(12.3456), number(null), number(1234567.8)], ["1\u202f204", "0.0123", "12.3", "–", "1\u202f234\u202f568"]);
  same([percent(0.876), percent(null)], ["88%", "–"]);
  same([age(6), age(200), age(7300), age(400_000), age(-3)], ["6\u202fs", "3\u202fmin", "2\u202fh", "4\u202fd", "0\u202fs"]);
  same(lapse(725), "12:05");
});

runtime.test("the word that is being written is found, blanks and colons in its value or not", () => {
  const found = (/** @type {string} */ text) => Object.values(writing(text));
  same(found("site:leeds la"), [11, "la", null]);
  same(found("site:leeds "), [11, "", null]);
  same(found('label:"torn la'), [0, "label", "torn la"]);
  same(found('site:leeds label:"torn la'), [11, "label", "torn la"]);
  same(found('label:"torn label" ref:a:b'), [19, "ref", "a:b"]);
  same(found('label:"torn label"'), [0, "label", "torn label"]);
  same(found(String.raw`label:"a \" b\\" by:an`), [17, "by", "an"]);
  for (const value of ["plain", "two words", 'a "quote" and \\']) {
    const written = token("label", value);
    same(found(`site:x ${written}`), [7, "label", value]);
    same(found(`${written} by:`), [written.length + 1, "by", ""]);
  }
});

runtime.test("texts at the ends of lines stand apart", () => {
  same(apart([20, 22, 60, 139], 13, 140), [9, 22, 60, 139]);
  same(apart([138, 139, 140], 13, 140), [114, 127, 140]);
});

runtime.test("the band of a breach reaches from where the line crosses its target to where it comes back, and over no gap", () => {
  same(above([[0, 0], [10, 20], [20, 20], [30, 0]], 10), [[5, 25]]);
  same(above([[0, 20], [10, null], [20, 30], [30, 5], [40, 10]], 10), [[0, 0], [20, 28]]);
  same(above([[0, 5], [10, 15]], 10), [[5, 10]]);
  same(above([], 10), []);
});

/** @param {string} key @param {object} [more] */
const press = (key, more = {}) => /** @type {KeyboardEvent} */ ({ key, timeStamp: 0, ...more });

runtime.test("a key is found by its name, not where letters are text, not with a control key, not while composing", () => {
  const keys = new Keys();
  /** @type {string[]} */
  const ran = [];
  for (const key of ["a", "Shift+a", "?", "g l", "l", "Escape"]) keys.bind({ key, words: key, run: () => ran.push(key) });
  same(keys.find(press("a"), false)?.key, "a");
  same(keys.find(press("A", { shiftKey: true }), false)?.key, "Shift+a");
  same(keys.find(press("?", { shiftKey: true }), false)?.key, "?");
  same([keys.find(press("a"), true), keys.find(press("a", { ctrlKey: true }), false), keys.find(press("a", { isComposing: true }), false)], [undefined, undefined, undefined]);
  same(keys.find(press("Escape"), true)?.key, "Escape");
  same(keys.find(press("g"), false), undefined);
  same(keys.find(press("l", { timeStamp: 900 }), false)?.key, "g l");
  same(keys.find(press("l", { timeStamp: 1000 }), false)?.key, "l");
  keys.find(press("g", { timeStamp: 2000 }), false);
  same(keys.find(press("l", { timeStamp: 9000 }), false)?.key, "l");
  keys.single = false;
  same([keys.find(press("a"), false), keys.find(press("Escape"), false)?.key], [undefined, "Escape"]);
  same(nameOf(press(" ")), "Space");
});

runtime.test("two keys of one name are a mistake", () => {
  const keys = new Keys();
  keys.bind({ key: "a", words: "", run: () => {} });
  let told = false;
  try {
    keys.bind({ key: "a", words: "", run: () => {} });
  } catch {
    told = true;
  }
  same(told, true);
});

/** @param {number} x @param {number} y @param {number} w @param {number} h */
const box = (x, y, w, h) => ({ x, y, w, h, label: "scratch", score: 0.87, colour: "#fff", doubtful: false, alert: false });

runtime.test("chips stay on the picture, hide no other, and become dots where there is no room", () => {
  const boxes = [box(100, 100, 80, 60), box(100, 100, 80, 60), box(600, 2, 40, 30), box(100, 100, 80, 60), box(100, 100, 80, 60)];
  const chips = placeChips(boxes, 640, 360, 2, 11);
  for (const chip of chips) {
    if (chip.x < 0 || chip.y < 0 || chip.x + chip.w > 640 || chip.y + chip.h > 360) throw new Error(`off the picture: ${JSON.stringify(chip)}`);
  }
  const words = chips.filter((chip) => !chip.dot);
  words.forEach((a, index) => {
    for (const b of words.slice(index + 1)) {
      if (a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h) throw new Error("two chips overlap");
    }
  });
  same(chips.at(-1)?.dot, true);
  same(/** @type {any} */ (chips[0]).text, "scratch 87%");
  if (/** @type {any} */ (chips[2]).y < 2) throw new Error("a chip near the edge lies inside");
});

class Source {
  /** @param {string} url */
  constructor(url) {
    this.url = url;
    /** @type {Record<string, (message: any) => void>} */
    this.listeners = {};
    this.closed = false;
    this.onopen = () => {};
    this.onerror = () => {};
  }
  /** @param {string} kind @param {(message: any) => void} listener */
  addEventListener(kind, listener) {
    this.listeners[kind] = listener;
  }
  /** @param {string} kind @param {number} id @param {any} [body] */
  say(kind, id, body = {}) {
    this.listeners[kind]?.({ lastEventId: String(id), data: JSON.stringify(body) });
  }
  close() {
    this.closed = true;
  }
}

runtime.test("a stream that breaks off goes on behind the last event, and none comes twice", async () => {
  /** @type {Source[]} */
  const sources = [];
  /** @type {number[]} */
  const told = [];
  /** @type {string[]} */
  const states = [];
  const stream = new Stream((url) => /** @type {any} */ (sources[sources.push(new Source(url)) - 1]), (event) => told.push(event.id), (health) => states.push(health.state));
  stream.start(7);
  same(sources[0]?.url, "/v1/events?every=0.25&after=7");
  sources[0]?.say("result", 8);
  sources[0]?.say("result", 8);
  sources[0]?.onerror();
  same(sources[0]?.closed, true);
  await new Promise((go) => setTimeout(go, pause(1) + 100));
  same(sources[1]?.url, "/v1/events?every=0.25&after=8");
  sources[1]?.say("result", 8);
  sources[1]?.say("result", 9);
  same(told, [8, 9]);
  same([states[0], states.includes("reconnecting"), states.at(-1)], ["connecting", true, "live"]);
  stream.stop();
});

runtime.test("a stream that says nothing for too long is dead, though nobody hung up", () => {
  /** @type {Source[]} */
  const sources = [];
  /** @type {string[]} */
  const states = [];
  const stream = new Stream((url) => /** @type {any} */ (sources[sources.push(new Source(url)) - 1]), () => {}, (health) => states.push(health.state));
  stream.start(0);
  sources[0]?.say("heartbeat", 0, { at: "2026-01-01T00:00:00Z" });
  stream.heard = Date.now() - 20_000;
  stream.look();
  same(states.at(-1), "live");
  stream.heard = Date.now() - 26_000;
  stream.look();
  same([states.at(-1), sources[0]?.closed], ["reconnecting", true]);
  stream.stop();
});

runtime.test("all tabs share one connection, and each gets what came since its own page was made", () => {
  /** @type {Source[]} */
  const sources = [];
  const hub = new Hub((url) => /** @type {any} */ (sources[sources.push(new Source(url)) - 1]));
  const tab = () => ({ got: /** @type {any[]} */ ([]), postMessage(/** @type {any} */ message) { if (message.type === "event") this.got.push([message.told.kind, message.told.id]); } });
  const [first, second, old] = [tab(), tab(), tab()];
  hub.hear(first, { type: "here", after: 10 });
  sources[0]?.say("result", 11);
  sources[0]?.say("result", 12);
  hub.hear(second, { type: "here", after: 11 });
  hub.hear(old, { type: "here", after: 3 });
  sources[0]?.say("result", 13);
  same(sources.length, 1);
  same(first.got, [["result", 11], ["result", 12], ["result", 13]]);
  same(second.got, [["result", 12], ["result", 13]]);
  same(old.got, [["resync", 12], ["result", 13]]);
  for (const each of [first, second, old]) hub.hear(each, { type: "bye" });
  same(sources[0]?.closed, true);
});

runtime.test("a gap in a line is a gap, and ticks cover what there is", () => {
  same(path([[0, 1], [1, 2], [2, null], [3, 4]], (at) => at, (value) => value), "M0.0 1.0L1.0 2.0M3.0 4.0h0");
  const marks = ticks(0, 87);
  same([marks[0], (marks.at(-1) ?? 0) >= 87], [0, true]);
});
