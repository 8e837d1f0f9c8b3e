// Boxes on a picture: which lines, which chips, and where a chip goes so that it hides no other. Geometry is pure.
// @ts-check

/**
 * @typedef {{x: number, y: number, w: number, h: number, label: string, score: number, colour: string, doubtful: boolean, alert: boolean}} Box in pixels of the picture
 * @typedef {{src: string, width: number, height: number, words: string, boxes: Box[]}} Picture
 * @typedef {{box: number, x: number, y: number, w: number, h: number, text: string, dot: boolean}} Chip
 */

export const PALETTE = ["#3d8bff", "#e8590c", "#2bd1a0", "#f0e442", "#d55fa8", "#c9f27b", "#a8e6ff", "#b9a3ff"];
/** A score below is doubtful. */
export const DOUBTFUL = 0.5;
/** The width of a bold letter, as a share of its height, in the widest of the usual system fonts. */
const LETTER = 0.68;
/** More boxes than these are counted, not drawn, on a tile. */
export const MOST = 12;

/**
 * The colour of a class: the same on every page, by its place among the known ones.
 * @param {string} label @param {readonly string[]} labels
 */
export function colourOf(label, labels) {
  return /** @type {string} */ (PALETTE[placeOf(label, labels) % PALETTE.length]);
}

/** @param {string} label @param {readonly string[]} labels */
function placeOf(label, labels) {
  const place = labels.indexOf(label);
  if (place >= 0) return place;
  let sum = 0;
  for (const letter of label) sum = (sum * 31 + /** @type {number} */ (letter.codePointAt(0))) % 997;
  return sum;
}

/**
 * What a result's picture shows.
 * @param {any} result as the API tells it
 * @param {readonly string[]} labels the known classes
 * @param {ReadonlySet<string>} alerting labels for which an alert is open there
 * @returns {Picture | null}
 */
export function pictureOf(result, labels, alerting = new Set()) {
  if (result.status !== "completed" || !result.image) return null;
  const boxes = result.detections.map((/** @type {any} */ found) => {
    const inner = found.attributes?.classifications?.[0];
    const { label, score } = inner ?? found;
    const [x1, y1, x2, y2] = found.box.map(Math.round);
    const alert = alerting.has(label) || alerting.has(found.label);
    return { x: x1, y: y1, w: x2 - x1, h: y2 - y1, label, score, colour: colourOf(label, labels), doubtful: score < DOUBTFUL, alert };
  });
  boxes.sort((/** @type {Box} */ a, /** @type {Box} */ b) => Number(b.alert) - Number(a.alert) || b.score - a.score);
  return {
    src: `/v1/results/${result.id}/image`,
    width: result.image.width,
    height: result.image.height,
    words: wordsOf(result, boxes),
    boxes,
  };
}

/** @param {any} result @param {Box[]} boxes */
function wordsOf(result, boxes) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const box of boxes) counts.set(box.label, (counts.get(box.label) ?? 0) + 1);
  const said = [...counts].map(([label, count]) => `${count} ${label}`);
  for (const whole of result.classifications) said.push(whole.label);
  return said.slice(0, 6).join(", ") || "nothing found";
}

/** @param {Box} box */
export const chipText = (box) => `${box.alert ? "▲ " : ""}${box.label} ${Math.round(box.score * 100)}%`;

/**
 * Where each chip goes: above its box, inside near the upper edge, else below, else a numbered dot; never off the picture.
 * @param {readonly Box[]} boxes @param {number} width @param {number} height of the picture
 * @param {number} scale pixels of the picture for one on the screen @param {number} size of the letters on the screen
 * @returns {Chip[]}
 */
export function placeChips(boxes, width, height, scale, size) {
  /** @type {Chip[]} */
  const placed = [];
  const h = (size + 5) * scale;
  boxes.forEach((box, index) => {
    const text = chipText(box);
    const w = Math.min(width, (text.length * size * LETTER + 8) * scale);
    const x = Math.max(0, Math.min(box.x, width - w));
    const above = box.y - h >= 0 && box.y >= 16 * scale ? box.y - h : box.y;
    const below = Math.min(box.y + box.h, height - h);
    const tries = [
      { x, y: above },
      { x: Math.max(0, Math.min(box.x + box.w - w, width - w)), y: above },
      { x, y: below },
    ];
    const free = tries.find((place) => placed.every((chip) => !overlap(place.x, place.y, w, h, chip)));
    if (free) placed.push({ box: index, x: free.x, y: free.y, w, h, text, dot: false });
    else placed.push({ box: index, x: Math.max(0, Math.min(box.x + box.w / 2 - h / 2, width - h)), y: Math.max(0, Math.min(box.y + box.h / 2 - h / 2, height - h)), w: h, h, text: String(index + 1), dot: true });
  });
  return placed;
}

/** @param {number} x @param {number} y @param {number} w @param {number} h @param {Chip} chip */
function overlap(x, y, w, h, chip) {
  return x < chip.x + chip.w && chip.x < x + w && y < chip.y + chip.h && chip.y < y + h;
}

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} name @param {Record<string, string | number>} attributes */
function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

/** @param {number} value */
const round = (value) => Math.round(value * 10) / 10;

/**
 * Draw a picture's boxes into its SVG. Chips stand above all boxes.
 * @param {SVGSVGElement} svg @param {Picture} picture
 * @param {{shown: number, size?: number, most?: number, fewChips?: boolean}} options `shown`: its own
 * width on the screen; `fewChips`: only boxes that raise an alert or are doubtful get one
 */
export function draw(svg, picture, { shown, size = 11, most = MOST, fewChips = false }) {
  const boxes = picture.boxes.slice(0, most);
  const scale = picture.width / Math.max(1, shown);
  /** @type {Element[]} */
  const parts = [];
  for (const box of boxes) {
    const at = { x: box.x, y: box.y, width: box.w, height: box.h };
    const sure = box.doubtful ? "" : " sure";
    parts.push(element("rect", { ...at, class: `box-case${sure}` }));
    const kind = `${box.doubtful ? " box--doubtful" : ""}${box.alert ? " box--alert" : ""}${sure}`;
    parts.push(element("rect", { ...at, class: `box${kind}`, stroke: box.colour }));
  }
  for (const chip of placeChips(boxes, picture.width, picture.height, scale, size)) {
    const box = /** @type {Box} */ (boxes[chip.box]);
    if (fewChips && !box.alert && !box.doubtful) continue;
    const group = element("g", { class: box.doubtful ? "chip" : "chip sure" });
    group.append(element("rect", { x: round(chip.x), y: round(chip.y), width: round(chip.w), height: round(chip.h), fill: box.colour }));
    const text = element("text", { x: round(chip.x + 4 * scale), y: round(chip.y + chip.h - 4 * scale), "font-size": round(size * scale), fill: "#000" });
    text.textContent = chip.text;
    group.append(text);
    parts.push(group);
  }
  svg.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
  svg.replaceChildren(...parts);
}
