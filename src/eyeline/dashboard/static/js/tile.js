// A picture with its boxes in a page: first as the server made it, then as events bring new ones.
// @ts-check
import { draw, MOST } from "./overlay.js";
import { slot } from "./page.js";

/** @typedef {import("./overlay.js").Picture} Picture */

/** What each frame shows now. @type {WeakMap<Element, Picture>} */
const shown = new WeakMap();

/** @param {HTMLElement} frame @returns {Picture | null} what it shows, as the server or a script said */
export function pictureIn(frame) {
  const known = shown.get(frame);
  if (known) return known;
  const text = frame.dataset.picture;
  if (!text) return null;
  const picture = /** @type {Picture} */ (JSON.parse(text));
  shown.set(frame, picture);
  delete frame.dataset.picture;
  return picture;
}

/** Frames that are off the screen now. @type {WeakSet<Element>} */
const away = new WeakSet();
/** What they will show when they are seen. @type {WeakMap<Element, () => void>} */
const owed = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) away.add(target);
    else {
      away.delete(target);
      owed.get(target)?.();
      owed.delete(target);
    }
  }
});

/**
 * Show a picture: its pixels and its boxes come from the same result, and change in the same moment, once the pixels are
 * decoded. Off the screen only the last one is kept.
 * @param {HTMLElement} frame @param {Picture} picture @param {{width: number, shown: number, tall?: number, size?: number, most?: number}} options `shown` and `tall`: the frame on the screen
 */
export function show(frame, picture, options) {
  shown.set(frame, picture);
  watcher.observe(frame);
  const change = () => void swap(frame, picture, options);
  if (away.has(frame)) owed.set(frame, change);
  else change();
}

/** @param {HTMLElement} frame @param {Picture} picture @param {{width: number, shown: number, tall?: number, size?: number, most?: number}} options */
async function swap(frame, picture, options) {
  const image = document.createElement("img");
  image.dataset.f = "image";
  image.alt = picture.words;
  image.width = picture.width;
  image.height = picture.height;
  image.src = `${picture.src}?width=${options.width}`;
  await image.decode().catch(() => {}); // a picture that is not kept any more: its boxes still say what was there
  if (shown.get(frame) !== picture) return;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.dataset.f = "boxes";
  svg.setAttribute("aria-hidden", "true");
  redraw(frame, svg, picture, options);
  slot(frame, "boxes")?.remove();
  const before = slot(frame, "image");
  if (before) before.replaceWith(image, svg);
  else frame.prepend(image, svg);
}

/**
 * @param {HTMLElement} frame @param {SVGSVGElement} svg @param {Picture} picture
 * @param {{shown: number, tall?: number, size?: number, most?: number}} options
 */
function redraw(frame, svg, picture, options) {
  const most = options.most ?? MOST;
  // a picture fits into its frame whole: where the frame is wider, it is as wide as its height lets it be
  const fits = options.tall ? (options.tall * picture.width) / picture.height : Infinity;
  draw(svg, picture, { ...options, shown: Math.min(options.shown, fits), fewChips: options.shown < 280 });
  const note = slot(frame, "note");
  if (note) note.textContent = picture.boxes.length > most ? `+${picture.boxes.length - most}` : "";
}

/**
 * Draw what the server sent without chips, now that the width on the screen is known.
 * @param {HTMLElement} frame @param {{shown: number, tall?: number, size?: number, most?: number}} options
 */
export function dress(frame, options) {
  const picture = pictureIn(frame);
  const svg = /** @type {SVGSVGElement | null} */ (/** @type {unknown} */ (slot(frame, "boxes")));
  if (picture && svg) redraw(frame, svg, picture, options);
}
