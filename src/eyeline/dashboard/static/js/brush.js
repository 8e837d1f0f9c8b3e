// A stretch of a histogram chosen by pulling over it or by arrow keys.
// @ts-check
import { say } from "./page.js";
import { clock } from "./time.js";

/**
 * What is chosen: two places, in any order, within `count` of them. An arrow goes on, with Shift it stretches.
 * @param {{at: number, to: number} | null} chosen @param {string} key @param {boolean} stretch @param {number} count
 */
export function moved(chosen, key, stretch, count) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (step === undefined) return undefined;
  const to = Math.max(0, Math.min(count - 1, chosen ? chosen.to + step : step < 0 ? count - 1 : 0));
  return { at: stretch && chosen ? chosen.at : to, to };
}

/**
 * @param {HTMLElement} box around the picture @param {HTMLElement} said where it is told
 * @param {{first: number, width: number, places: number, counts: Record<string, number>}} bars `first` and `width` in seconds; counts by place
 * @param {(from: string, until: string) => void} narrow takes two times
 */
export function bindBrush(box, said, bars, narrow) {
  const svg = /** @type {SVGSVGElement} */ (box.querySelector("svg"));
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  mark.setAttribute("class", "audit__brush");
  svg.append(mark);
  /** @type {{at: number, to: number} | null} */
  let chosen = null;
  let pulled = false;
  const ends = () => (chosen ? [Math.min(chosen.at, chosen.to), Math.max(chosen.at, chosen.to) + 1] : [0, 0]);
  const time = (/** @type {number} */ place) => new Date((bars.first + place * bars.width) * 1000).toISOString();
  const place = (/** @type {MouseEvent} */ event) => {
    const frame = svg.getBoundingClientRect();
    return Math.max(0, Math.min(bars.places - 1, Math.floor(((event.clientX - frame.left) / frame.width) * bars.places)));
  };

  /** @param {{at: number, to: number} | null} next */
  function choose(next) {
    chosen = next;
    const [from = 0, until = 0] = ends();
    for (const [name, value] of Object.entries({ x: (600 * from) / bars.places, y: 0, width: (600 * (until - from)) / bars.places, height: 60 })) mark.setAttribute(name, String(value));
    let n = 0;
    for (let at = from; at < until; at += 1) n += bars.counts[at] ?? 0;
    const day = (/** @type {string} */ moment) => `${moment.slice(0, 10)} ${clock(moment, "UTC")}`;
    said.textContent = chosen ? say("audit.brushed", { n, from: day(time(from)), until: day(time(until)) }) : "";
  }
  const go = () => {
    const [from = 0, until = 0] = ends();
    if (chosen) narrow(time(from), time(until));
  };

  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", say("audit.brush"));
  box.addEventListener("keydown", (event) => {
    const next = event.key === "Escape" ? null : moved(chosen, event.key, event.shiftKey, bars.places);
    if (event.key === "Enter") go();
    if (next === undefined) return;
    event.preventDefault();
    choose(next);
  });
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pulled = false;
    choose({ at: place(event), to: place(event) });
  });
  svg.addEventListener("pointermove", (event) => {
    if (!chosen || !(event.buttons & 1) || place(event) === chosen.to) return;
    pulled = true;
    svg.setPointerCapture(event.pointerId);
    choose({ at: chosen.at, to: place(event) });
  });
  svg.addEventListener("pointerup", () => pulled && go());
  svg.addEventListener("dragstart", (event) => event.preventDefault());
  svg.addEventListener("click", (event) => pulled && event.preventDefault(), true); // a bar alone is a link
}
