// @ts-check
import { boxAt, dragged, fitted, handleAt, moved, resized, spanned, toPicture, toStage, typed, zoomed } from "../../../src/eyeline/dashboard/static/js/review/boxes.js";
import { changed, choosing, drawn, nudged, opened, removed, replaced, restored, stepped, stretched, verdictOf } from "../../../src/eyeline/dashboard/static/js/review/model.js";
import { Outbox } from "../../../src/eyeline/dashboard/static/js/review/outbox.js";
import { Keys, nameOf } from "../../../src/eyeline/dashboard/static/js/keys.js";

/** @typedef {{test(name: string, run: () => void | Promise<void>): void}} Runtime */
const runtime = /** @type {Runtime} */ (/** @type {any} */ (globalThis).Deno);
const SIZE = { width: 100, height: 50 };

/** @param {unknown} found @param {unknown} wanted */
function same(found, wanted) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`${left} is not ${right}`);
}

runtime.test("a box stays in the picture and stays a box", () => {
  same(moved([10, 10, 30, 20], -20, 100, SIZE), [0, 40, 20, 50]);
  same(resized([10, 10, 30, 20], -50, 100, SIZE), [10, 10, 12, 50]);
  same(dragged([10, 10, 30, 20], "nw", 40, -5, SIZE), [28, 0, 30, 20]);
  same(dragged([10, 10, 30, 20], "e", 500, 5, SIZE), [10, 10, 100, 20]);
  same(spanned(90, 40, 120, 10, SIZE), [90, 10, 100, 40]);
  same(spanned(10, 10, 11, 40, SIZE), null);
  same(typed([-5, 45, 9999, 20], [0, 0, 9, 9], SIZE), [0, 45, 100, 50]);
  same(typed([NaN, 5, NaN, -3], [1, 2, 9, 9], SIZE), [1, 5, 9, 7]);
});

runtime.test("a point of the screen is a point of the picture, however close", () => {
  const fit = fitted(SIZE, { width: 200, height: 200 });
  same(fit, { scale: 2, x: 0, y: 50 });
  const close = zoomed(fit, 2, 60, 70, fit);
  same(toPicture(close, 60, 70), toPicture(fit, 60, 70));
  same(toStage(close, ...toPicture(close, 13, 17)), [13, 17]);
  same(zoomed(close, 0.1, 0, 0, fit), fit);
});

runtime.test("the inner box is meant, and a handle before it", () => {
  same(boxAt([[0, 0, 100, 50], [10, 10, 20, 20]], 15, 15), 1);
  same(boxAt([[10, 10, 20, 20]], 50, 5), -1);
  const view = { scale: 1, x: 0, y: 0 };
  same([handleAt([10, 10, 60, 40], view, 11, 9), handleAt([10, 10, 60, 40], view, 35, 25)], ["nw", null]);
});

const FOUND = [
  { label: "carton", score: 0.4, box: /** @type {[number, number, number, number]} */ ([1, 2, 30, 40]), step: "find" },
  { label: "bag", score: 0.9, box: /** @type {[number, number, number, number]} */ ([50, 2, 60, 40]), step: "find" },
];

runtime.test("what a person changes is a person's word, and nothing else is", () => {
  const start = opened(FOUND, SIZE);
  same([start.chosen, changed(start), stepped(start, -1), stepped(start, 1)?.chosen], [0, false, null, 1]);
  const named = replaced(choosing(start, 1), 1, { label: "damaged" });
  same(named.boxes[1], { label: "damaged", score: 1, box: [50, 2, 60, 40], step: "human" });
  same([named.boxes[0] === FOUND[0], changed(named), changed(restored(named))], [true, true, false]);
  same(replaced(start, 0, { label: "carton" }), start);
  same(nudged(start, 1, -1).boxes[0]?.box, [2, 1, 31, 39]);
  same(stretched(start, 5, 1).boxes[0]?.box, [1, 2, 35, 41]);
  same(nudged(opened([], SIZE), 1, 1).boxes, []);
  const more = drawn(start, [1, 1, 9, 9], "bag");
  same([more.chosen, removed(more).boxes, removed(opened([], SIZE)).chosen], [2, FOUND, -1]);
  same(changed(removed(drawn(start, [1, 1, 9, 9], "bag"))), false);
});

runtime.test("a picture that was changed is corrected, one that was not is confirmed", () => {
  const start = opened(FOUND, SIZE);
  same(verdictOf(start, "confirmed", " "), { kind: "confirmed" });
  same(verdictOf(start, "unsure", " glare "), { kind: "unsure", comment: "glare" });
  same(verdictOf(removed(start), "confirmed", ""), { kind: "corrected", detections: [{ label: "bag", box: [50, 2, 60, 40] }] });
  same(verdictOf(removed(start), "rejected", ""), { kind: "rejected" });
});

runtime.test("what was not taken is kept beyond a reload and is sent again under its key", async () => {
  let kept = /** @type {string | null} */ (null);
  const shelf = { get: () => kept, set: (/** @type {string} */ text) => void (kept = text) };
  /** @type {string[]} */
  const keys = [];
  let away = true;
  const send = async (/** @type {any} */ one) => {
    keys.push(one.key);
    if (away) throw Object.assign(new Error("sign in again"), { status: 401 });
    return { ok: one.id };
  };
  const first = new Outbox(send, shelf, () => {});
  same(await first.add("a", { kind: "confirmed" }, "k1"), null);
  same(first.failed.map((one) => one.why), ["sign in again"]);
  const second = new Outbox(send, shelf, () => {});
  same(second.failed.map((one) => [one.id, one.key, one.body.kind]), [["a", "k1", "confirmed"]]);
  away = false;
  await second.retry();
  same([second.waiting, second.saved, keys, kept], [[], 1, ["k1", "k1"], "[]"]);
  same(await second.add("b", {}, "k2"), { ok: "b" });
  kept = "no JSON";
  same(new Outbox(send, shelf, () => {}).waiting, []);
});

runtime.test("what may be taken later is sent again by itself, what was refused is not, and what is withdrawn is sent no more", async () => {
  /** @type {string[]} */
  const sent = [];
  /** @type {Record<string, number>} the statuses of what is not taken; 0: nobody answered */
  const faults = { a: 0, b: 503, c: 409, d: 0 };
  const outbox = new Outbox(async (one) => {
    sent.push(one.id);
    if (one.id in faults) throw Object.assign(new Error(one.id), { status: faults[one.id] });
    return { ok: one.id };
  }, { get: () => null, set: () => {} }, () => {});
  outbox.pause = 1;
  for (const id of ["a", "b", "c", "d"]) await outbox.add(id, {}, `key ${id}`);
  same(await outbox.withdraw("key d"), null);
  delete faults.a;
  delete faults.b;
  for (let waited = 0; outbox.saved < 2 && waited < 100; waited += 1) await new Promise((done) => setTimeout(done, 5));
  same(outbox.waiting.map((one) => one.id), ["c"]);
  const [again] = [sent.filter((id) => id === "c").length];
  same([again, await outbox.withdraw("key a")], [1, { ok: "a" }]);
  delete faults.c;
  await outbox.retry();
  same(outbox.waiting, []);
});

runtime.test("a key that means nothing here is the browser's, and Alt goes with arrows alone", () => {
  const keys = new Keys();
  let there = false;
  keys.bind({ key: "Tab", words: "", run: () => {}, when: () => there });
  keys.bind({ key: "Alt+ArrowLeft", words: "", run: () => {} });
  keys.bind({ key: "Space", words: "", run: () => {} });
  const press = (/** @type {string} */ key, more = {}) => /** @type {any} */ ({ key, timeStamp: 0, ...more });
  same(keys.find(press("Tab"), false), undefined);
  there = true;
  same(keys.find(press("Tab"), false)?.key, "Tab");
  same(nameOf(press("ArrowLeft", { altKey: true, shiftKey: true })), "Alt+Shift+ArrowLeft");
  same(keys.find(press("ArrowLeft", { altKey: true }), false)?.key, "Alt+ArrowLeft");
  same(keys.find(press("b", { altKey: true }), false), undefined);
  same(keys.find(press(" "), false)?.key, "Space");
  same(keys.find(press(" ", { target: { closest: () => ({}) } }), false), undefined);
});
