// What somebody wrote on this page and did not send yet: the page is not taken away from under it.
// @ts-check
import { say } from "./page.js";
import { toast } from "./toast.js";

/** @typedef {"new_data" | "signed_out"} Why */

/** What only a page's own script knows of, such as boxes that were moved. @type {Set<() => boolean>} */
const others = new Set();
/** Why this page ought to have been loaded anew and was not; the chip says so. @type {Set<Why>} */
export const stayed = new Set();

/** @param {() => boolean} unsaved */
export function onUnsaved(unsaved) {
  others.add(unsaved);
}

/** @param {Element} field */
function written(field) {
  if (field instanceof HTMLSelectElement) return field.selectedIndex !== Math.max(0, [...field.options].findIndex((one) => one.defaultSelected));
  if (field instanceof HTMLInputElement && field.checked !== field.defaultChecked) return true;
  return (field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement) && field.value !== field.defaultValue;
}

function unsaved() {
  const forms = [.../** @type {NodeListOf<HTMLFormElement>} */ (document.querySelectorAll("form[method=post]"))];
  return document.querySelector("dialog[open], [data-unsaved]") !== null
    || forms.some((form) => [...form.elements].some(written))
    || [...others].some((other) => other());
}

/**
 * Go, unless something would be lost by it: then say why, once, and go on here.
 * @param {Why} why @param {() => void} go
 */
export function leave(why, go) {
  if (!unsaved()) go();
  else if (!stayed.has(why)) {
    stayed.add(why);
    toast(say(`shell.${why}`));
  }
}
