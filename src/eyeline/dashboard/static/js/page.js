// What the server put into the page for its scripts, and the few words that scripts say.
// @ts-check

/**
 * @typedef {{name: string, path: string, letter: string, count: number}} Entry
 * @typedef {{version: string, live: boolean, cursor: number, user: string, zones: Record<string, string>, nav: Entry[], open: string[], words: Record<string, string>}} ShellData
 */

/** @param {string} id @returns {any} */
function embedded(id) {
  const text = document.getElementById(id)?.textContent;
  return text ? JSON.parse(text) : null;
}

/** @type {ShellData} */
export const shell = embedded("shell-data") ?? { version: "", live: false, cursor: 0, user: "", zones: {}, nav: [], open: [], words: {} };

/** @returns {any} What the page's own script starts with. */
export const pageData = () => embedded("page-data");

/**
 * A sentence of the catalogue with its values.
 * @param {string} name
 * @param {Record<string, string | number>} [values]
 */
export function say(name, values = {}) {
  const one = values.n === 1 ? shell.words[`${name}_one`] : undefined;
  const text = one ?? shell.words[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

/**
 * The element with this id, which the page is known to have.
 * @param {string} id @returns {HTMLElement}
 */
export function need(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * The slot of a part: `data-f="name"`.
 * @param {ParentNode} part @param {string} name @returns {HTMLElement | null}
 */
export const slot = (part, name) => part.querySelector(`[data-f="${name}"]`);

/**
 * Write a slot's text, where the part has one and it says something else.
 * @param {ParentNode} part @param {string} name @param {string} text
 */
export function fill(part, name, text) {
  const found = slot(part, name);
  if (found && found.textContent !== text) found.textContent = text;
}

/**
 * A copy of what a `<template>` holds.
 * @param {string} id @returns {HTMLElement}
 */
export function copyOf(id) {
  const template = /** @type {HTMLTemplateElement} */ (need(id));
  return /** @type {HTMLElement} */ (/** @type {DocumentFragment} */ (template.content.cloneNode(true)).firstElementChild);
}

/** The signs of states, as the server writes them. @type {Record<string, string>} */
export const GLYPHS = {
  ok: "●", review: "◆", alert: "▲", offline: "○", acknowledged: "✓", resolved: "✓", snoozed: "◷", critical: "▲",
  warning: "◆", info: "●", failed: "▲", completed: "●", confirmed: "✓",
  corrected: "✎", rejected: "✕", unsure: "?",
  missed: "▲", risk: "◆", unmeasured: "○", silent: "○", draining: "◆", drained: "○",
};

/**
 * Show a state in a part that has a status: sign, word, colour.
 * @param {ParentNode} part @param {string} state
 */
export function showStatus(part, state) {
  const status = slot(part, "status");
  if (!status || status.dataset.state === state) return;
  status.dataset.state = state;
  fill(status, "glyph", GLYPHS[state] ?? "●");
  fill(status, "word", say(`status.${state}`));
}
