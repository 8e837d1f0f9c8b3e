// The geometry of the editor: boxes in pixels of the picture, [left, top, right, bottom]. Pure.
// @ts-check

/**
 * @typedef {[number, number, number, number]} Sides
 * @typedef {{width: number, height: number}} Size
 * @typedef {{scale: number, x: number, y: number}} View what a point of the picture is on the screen: `scale * point + (x, y)`
 * @typedef {"nw" | "n" | "ne" | "e" | "se" | "s" | "sw" | "w"} Handle
 */

/** No box is thinner. */
export const LEAST = 2;
/** Pixels of the screen around a handle that still hold it. */
export const REACH = 12;

/** @param {number} value @param {number} least @param {number} most */
const within = (value, least, most) => Math.min(most, Math.max(least, value));

/** The box moved, whole, as far as the picture reaches. @param {Sides} box @param {number} dx @param {number} dy @param {Size} size @returns {Sides} */
export function moved([x1, y1, x2, y2], dx, dy, { width, height }) {
  const [right, down] = [within(dx, -x1, width - x2), within(dy, -y1, height - y2)];
  return [x1 + right, y1 + down, x2 + right, y2 + down];
}

/** Its right and lower side moved. @param {Sides} box @param {number} dx @param {number} dy @param {Size} size @returns {Sides} */
export function resized([x1, y1, x2, y2], dx, dy, { width, height }) {
  return [x1, y1, within(x2 + dx, Math.min(x1 + LEAST, width), width), within(y2 + dy, Math.min(y1 + LEAST, height), height)];
}

/** A side or a corner dragged to a point. @param {Sides} box @param {Handle} handle @param {number} x @param {number} y @param {Size} size @returns {Sides} */
export function dragged([x1, y1, x2, y2], handle, x, y, { width, height }) {
  return [
    handle.includes("w") ? within(x, 0, x2 - LEAST) : x1,
    handle.includes("n") ? within(y, 0, y2 - LEAST) : y1,
    handle.includes("e") ? within(x, x1 + LEAST, width) : x2,
    handle.includes("s") ? within(y, y1 + LEAST, height) : y2,
  ];
}

/** The box between two points, or null where there is hardly one. @param {number} ax @param {number} ay @param {number} bx @param {number} by @param {Size} size @returns {Sides | null} */
export function spanned(ax, ay, bx, by, { width, height }) {
  const [x1, x2] = [within(Math.min(ax, bx), 0, width), within(Math.max(ax, bx), 0, width)];
  const [y1, y2] = [within(Math.min(ay, by), 0, height), within(Math.max(ay, by), 0, height)];
  return x2 - x1 >= LEAST && y2 - y1 >= LEAST ? [x1, y1, x2, y2] : null;
}

/** From the four fields: whatever is typed, the box is one and lies in the picture. @param {number[]} fields left, top, width, height @param {Sides} before @param {Size} size @returns {Sides} */
export function typed([x, y, w, h], before, { width, height }) {
  const [left, top] = [number(x, before[0]), number(y, before[1])];
  const [across, down] = [number(w, before[2] - before[0]), number(h, before[3] - before[1])];
  const x1 = within(left, 0, width - LEAST);
  const y1 = within(top, 0, height - LEAST);
  return [x1, y1, within(x1 + across, x1 + LEAST, width), within(y1 + down, y1 + LEAST, height)];
}

/** @param {number | undefined} value @param {number} otherwise */
const number = (value, otherwise) => (value === undefined || Number.isNaN(value) ? otherwise : value);

/** The whole picture in the middle of the stage; never larger than twice its size. @param {Size} size @param {Size} stage @returns {View} */
export function fitted(size, stage) {
  const scale = Math.min(stage.width / size.width, stage.height / size.height, 2);
  return { scale, x: (stage.width - size.width * scale) / 2, y: (stage.height - size.height * scale) / 2 };
}

/** Closer or farther around a point of the stage. @param {View} view @param {number} factor @param {number} x @param {number} y @param {View} fit @returns {View} */
export function zoomed(view, factor, x, y, fit) {
  const scale = within(view.scale * factor, fit.scale, 8);
  if (scale === fit.scale) return fit;
  const by = scale / view.scale;
  return { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by };
}

/** @param {View} view @param {number} x @param {number} y @returns {[number, number]} */
export const toPicture = (view, x, y) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

/** @param {View} view @param {number} x @param {number} y @returns {[number, number]} */
export const toStage = (view, x, y) => [x * view.scale + view.x, y * view.scale + view.y];

/** @type {Record<Handle, [number, number]>} where each handle is, as shares of the box */
export const HANDLES = { nw: [0, 0], n: [0.5, 0], ne: [1, 0], e: [1, 0.5], se: [1, 1], s: [0.5, 1], sw: [0, 1], w: [0, 0.5] };

/** The handle of a box at a point of the stage. @param {Sides} box @param {View} view @param {number} x @param {number} y @returns {Handle | null} */
export function handleAt([x1, y1, x2, y2], view, x, y) {
  for (const [name, [across, down]] of Object.entries(HANDLES)) {
    const [hx, hy] = toStage(view, x1 + (x2 - x1) * across, y1 + (y2 - y1) * down);
    if (Math.abs(hx - x) <= REACH && Math.abs(hy - y) <= REACH) return /** @type {Handle} */ (name);
  }
  return null;
}

/** The smallest box around a point of the picture: of boxes within boxes, the inner one is meant. @param {readonly Sides[]} boxes @param {number} x @param {number} y @returns {number} its index, or -1 */
export function boxAt(boxes, x, y) {
  let found = -1;
  let least = Infinity;
  boxes.forEach(([x1, y1, x2, y2], index) => {
    const area = (x2 - x1) * (y2 - y1);
    if (x >= x1 && x <= x2 && y >= y1 && y <= y2 && area < least) [found, least] = [index, area];
  });
  return found;
}
