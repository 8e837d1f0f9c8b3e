// What the editor knows of one picture, and what each step makes of it. Pure: a step gives a new state.
// @ts-check
import { moved, resized } from "./boxes.js";

/**
 * @typedef {import("./boxes.js").Sides} Sides
 * @typedef {import("./boxes.js").Size} Size
 * @typedef {{label: string, score: number, box: Sides, step: string}} Box
 * @typedef {{size: Size, before: readonly Box[], boxes: readonly Box[], chosen: number}} Picture `chosen`: -1 for none
 */

/** Who said what a person drew or named. */
export const HUMAN = "human";

/** @param {readonly Box[]} detections @param {Size} size @returns {Picture} */
export const opened = (detections, size) => ({ size, before: detections, boxes: detections, chosen: detections.length ? 0 : -1 });

/** Whether anything is other than it was. @param {Picture} picture */
export const changed = (picture) => picture.boxes !== picture.before && JSON.stringify(picture.boxes) !== JSON.stringify(picture.before);

/** The box after the chosen one, or before it; null at the end. @param {Picture} picture @param {number} step @returns {Picture | null} */
export function stepped(picture, step) {
  const chosen = picture.chosen + step;
  return chosen >= 0 && chosen < picture.boxes.length ? { ...picture, chosen } : null;
}

/** @param {Picture} picture @param {number} chosen @returns {Picture} */
export const choosing = (picture, chosen) => ({ ...picture, chosen });

/** One box replaced; what a person changed is a person's word. @param {Picture} picture @param {number} index @param {Partial<Box>} change @returns {Picture} */
export function replaced(picture, index, change) {
  const old = picture.boxes[index];
  if (!old || Object.entries(change).every(([key, value]) => JSON.stringify(/** @type {any} */ (old)[key]) === JSON.stringify(value))) return picture;
  const boxes = picture.boxes.map((box, at) => (at === index ? { ...box, ...change, score: 1, step: HUMAN } : box));
  return { ...picture, boxes };
}

/** @param {Picture} picture @param {number} dx @param {number} dy @returns {Picture} */
export function nudged(picture, dx, dy) {
  const box = picture.boxes[picture.chosen];
  return box ? replaced(picture, picture.chosen, { box: moved(box.box, dx, dy, picture.size) }) : picture;
}

/** @param {Picture} picture @param {number} dx @param {number} dy @returns {Picture} */
export function stretched(picture, dx, dy) {
  const box = picture.boxes[picture.chosen];
  return box ? replaced(picture, picture.chosen, { box: resized(box.box, dx, dy, picture.size) }) : picture;
}

/** @param {Picture} picture @param {Sides} box @param {string} label @returns {Picture} */
export function drawn(picture, box, label) {
  const boxes = [...picture.boxes, { label, score: 1, box, step: HUMAN }];
  return { ...picture, boxes, chosen: boxes.length - 1 };
}

/** Without the chosen box; the next one is chosen then. @param {Picture} picture @returns {Picture} */
export function removed(picture) {
  if (picture.chosen < 0) return picture;
  const boxes = picture.boxes.filter((_, index) => index !== picture.chosen);
  return { ...picture, boxes, chosen: Math.min(picture.chosen, boxes.length - 1) };
}

/** As it was. @param {Picture} picture @returns {Picture} */
export const restored = (picture) => opened(picture.before, picture.size);

/** What is sent to the API. @param {Picture} picture @param {"confirmed" | "rejected" | "unsure"} kind @param {string} comment */
export function verdictOf(picture, kind, comment) {
  const words = comment.trim();
  /** @type {Record<string, unknown>} */
  const body = kind === "confirmed" && changed(picture)
    ? { kind: "corrected", detections: picture.boxes.map(({ label, box }) => ({ label, box })) }
    : { kind };
  return words ? { ...body, comment: words } : body;
}
