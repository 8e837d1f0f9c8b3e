// The editor's picture on its canvas: the same lines and chips as everywhere, and handles on the chosen box.
// @ts-check
import { colourOf, placeChips } from "../overlay.js";
import { HANDLES, toStage } from "./boxes.js";
import { HUMAN } from "./model.js";

/** A score below is doubtful. */
const DOUBTFUL = 0.5;
const CHIP = 13;

/**
 * @param {CanvasRenderingContext2D} context @param {CanvasImageSource | null} image
 * @param {import("./model.js").Picture} picture @param {import("./boxes.js").View} view
 * @param {{labels: readonly string[], hidden: boolean, contrast: boolean, ratio: number, draft: import("./boxes.js").Sides | null}} how
 */
export function paint(context, image, picture, view, { labels, hidden, contrast, ratio, draft }) {
  const { width, height } = context.canvas;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const at = /** @param {import("./boxes.js").Sides} box */ ([x1, y1, x2, y2]) => {
    const [left, top] = toStage(view, x1, y1);
    return /** @type {const} */ ([left, top, (x2 - x1) * view.scale, (y2 - y1) * view.scale]);
  };
  if (image) {
    context.filter = contrast ? "contrast(1.7) brightness(1.1)" : "none";
    const [left, top, across, down] = at([0, 0, picture.size.width, picture.size.height]);
    context.drawImage(image, left, top, across, down);
    context.filter = "none";
  }
  if (hidden) return;
  picture.boxes.forEach((box, index) => outline(context, at(box.box), box, colourOf(box.label, labels), index === picture.chosen));
  chips(context, picture, view, labels);
  const chosen = picture.boxes[picture.chosen];
  if (chosen) handles(context, at(chosen.box));
  if (draft) line(context, at(draft), "#fff", 2, [4, 4]);
}

/**
 * @param {CanvasRenderingContext2D} context @param {readonly [number, number, number, number]} at
 * @param {string} colour @param {number} width @param {number[]} dash
 */
function line(context, at, colour, width, dash = []) {
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.strokeRect(...at);
  context.setLineDash([]);
}

/**
 * @param {CanvasRenderingContext2D} context @param {readonly [number, number, number, number]} at
 * @param {import("./model.js").Box} box @param {string} colour @param {boolean} chosen
 */
function outline(context, at, box, colour, chosen) {
  if (chosen) {
    context.globalAlpha = 0.08;
    context.fillStyle = colour;
    context.fillRect(...at);
    context.globalAlpha = 1;
  }
  line(context, at, "rgb(0 0 0 / 0.8)", 4);
  line(context, at, colour, 2, box.score < DOUBTFUL ? [6, 4] : []);
  const [x, y, w, h] = at;
  if (box.step === HUMAN && w > 12 && h > 12) line(context, [x + 5, y + 5, w - 10, h - 10], colour, 1);
  if (chosen) line(context, [x - 2, y - 2, w + 4, h + 4], "#fff", 1);
}

/** @param {CanvasRenderingContext2D} context @param {readonly [number, number, number, number]} at */
function handles(context, [x, y, w, h]) {
  for (const [across, down] of Object.values(HANDLES)) {
    context.fillStyle = "#fff";
    context.fillRect(x + w * across - 5, y + h * down - 5, 10, 10);
    context.strokeStyle = "#000";
    context.lineWidth = 1;
    context.strokeRect(x + w * across - 5, y + h * down - 5, 10, 10);
  }
}

/**
 * @param {CanvasRenderingContext2D} context @param {import("./model.js").Picture} picture
 * @param {import("./boxes.js").View} view @param {readonly string[]} labels
 */
function chips(context, picture, view, labels) {
  const { width, height } = picture.size;
  const boxes = picture.boxes.map(({ label, score, box: [x, y, right, bottom] }, index) => ({
    x, y, w: right - x, h: bottom - y, label: `${index + 1} ${label}`, score, colour: colourOf(label, labels), doubtful: false, alert: false,
  }));
  context.font = `600 ${CHIP}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const chip of placeChips(boxes, width, height, 1 / view.scale, CHIP)) {
    const [left, top] = toStage(view, chip.x, chip.y);
    const [across, down] = [chip.w * view.scale, chip.h * view.scale];
    context.fillStyle = /** @type {string} */ (boxes[chip.box]?.colour);
    context.fillRect(left, top, across, down);
    context.fillStyle = "#000";
    context.fillText(chip.text, left + 4, top + down / 2, Math.max(1, across - 6));
  }
}
