// One table of keys: what binds them also lists them under `?`, so the list cannot be wrong.
// @ts-check

/**
 * @typedef {{key: string, words: string, run: (event: KeyboardEvent) => void, everywhere?: boolean, when?: () => boolean}} Binding
 * `key`: `a`, `Shift+a`, `Enter`, `g l` (one after the other). `when`: whether it
 * means anything now; else the browser has it.
 */

/** How long (ms) the second key of a pair may take. */
const PAIR = 1500;

export class Keys {
  constructor() {
    /** @type {Map<string, Binding>} */
    this.table = new Map();
    this.first = "";
    this.at = 0;
    /** Keys of a single letter can be turned off (WCAG 2.1.4). */
    this.single = true;
  }

  /** @param {Binding} binding Two of one key are a mistake of the page. */
  bind(binding) {
    if (this.table.has(binding.key)) throw new Error(`the key ${binding.key} is bound already`);
    this.table.set(binding.key, binding);
  }

  /** @returns {Binding[]} in the order of binding */
  list() {
    return [...this.table.values()];
  }

  /**
   * What this key does here, or undefined.
   * @param {KeyboardEvent} event @param {boolean} typing whether the focus is where letters are text
   */
  find(event, typing) {
    if (event.isComposing || event.key === "Process" || event.ctrlKey || event.metaKey) return undefined;
    if (event.altKey && !event.key.startsWith("Arrow")) return undefined;
    const name = nameOf(event);
    if (typing && name !== "Escape") return undefined;
    const control = /** @type {any} */ (event.target)?.closest?.("a, button, summary");
    if (control && (name === "Space" || name === "Enter")) return undefined; // that is how it is pressed
    const pair = this.first && event.timeStamp - this.at < PAIR ? this.table.get(`${this.first} ${name}`) : undefined;
    const begins = !pair && this.list().some((binding) => binding.key.startsWith(`${name} `));
    this.first = begins ? name : "";
    this.at = event.timeStamp;
    const found = pair ?? (begins ? undefined : this.table.get(name));
    if (!found || (!this.single && isLetters(found.key))) return undefined;
    return found.when === undefined || found.when() ? found : undefined;
  }
}

/** @param {KeyboardEvent} event `Shift+` stands before letters and named keys; signs are what was typed */
export function nameOf(event) {
  if (event.key === " ") return "Space";
  if (event.key.length === 1 && event.key.toLowerCase() === event.key.toUpperCase()) return event.key;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return `${event.altKey ? "Alt+" : ""}${event.shiftKey ? "Shift+" : ""}${name}`;
}

/** @param {string} key */
const isLetters = (key) => key.split(" ").every((part) => part.replace("Shift+", "").length === 1);

/** @param {EventTarget | null} target @returns {boolean} whether letters are text there */
export function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  return target instanceof HTMLInputElement && !["checkbox", "radio", "button", "submit"].includes(target.type);
}
