// Short messages at the foot of the page, each with its way back where there is one.
// @ts-check
import { need, say } from "./page.js";

const LASTS = 8000;
const MOST = 3;
/** @type {(() => void) | null} */
let lastUndo = null;

/**
 * @param {string} text
 * @param {{undo?: () => void}} [options]
 */
export function toast(text, { undo } = {}) {
  const region = need("toasts");
  const item = document.createElement("div");
  item.className = "toast fades";
  const words = document.createElement("span");
  words.textContent = text;
  item.append(words);
  if (undo) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.textContent = say("shell.undo");
    lastUndo = () => {
      lastUndo = null;
      item.remove();
      undo();
    };
    button.addEventListener("click", lastUndo);
    item.append(button);
  }
  while (region.childElementCount >= MOST) region.firstElementChild?.remove();
  region.append(item);
  setTimeout(() => item.remove(), LASTS);
}

/** Undo the last decision, if its toast still offers it or did. */
export function undoLast() {
  lastUndo?.();
}

/**
 * Say something urgent to a screen reader, one at a time.
 * @param {string} text
 */
export function alarm(text) {
  need("alarm").textContent = text;
}
