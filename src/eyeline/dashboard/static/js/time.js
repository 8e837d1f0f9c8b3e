// One clock for the whole page: it knows how far this machine's clock is from the server's, and updates every age at once.
// @ts-check
import { age } from "./fmt.js";

let offset = 0;

/** The server's time now, in milliseconds. */
export const now = () => Date.now() + offset;

/** @param {string} at what the server's clock said just now (RFC 3339) */
export function learn(at) {
  const theirs = Date.parse(at);
  if (!Number.isNaN(theirs)) offset = theirs - Date.now();
}

/** @param {string | null | undefined} at @returns {number} seconds since then, by the server's clock */
export const since = (at) => (at ? (now() - Date.parse(at)) / 1000 : Infinity);

/**
 * The time of day at a site.
 * @param {string} at @param {string | undefined} zone
 */
export function clock(at, zone) {
  return new Intl.DateTimeFormat("en-GB", { timeZone: zone ?? "UTC", hour: "2-digit", minute: "2-digit", second: "2-digit" })
    .format(new Date(at));
}

/**
 * Write an age, and from when it counts.
 * @param {Element | null} element a `<time data-age>` @param {string} at
 */
export function setAge(element, at) {
  if (!(element instanceof HTMLTimeElement)) return;
  element.dateTime = at;
  element.textContent = age(since(at));
}

/** @type {Set<() => void>} */
const listeners = new Set();

/** @param {() => void} listener called once a second while the page is seen */
export function everySecond(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tick() {
  if (document.hidden) return;
  for (const element of /** @type {NodeListOf<HTMLTimeElement>} */ (document.querySelectorAll("time[data-age]"))) {
    const text = element.dateTime ? age(since(element.dateTime)) : "–";
    if (element.textContent !== text) element.textContent = text;
  }
  for (const listener of listeners) listener();
}

export function startClock() {
  tick();
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
}
