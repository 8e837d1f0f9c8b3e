// The form of a rule: the condition is made of its parts as they are chosen, until somebody writes it by hand.
// @ts-check
import { keys } from "../boot.js";
import { need, say } from "../page.js";
import { send } from "../send.js";
import { toast } from "../toast.js";

const form = /** @type {HTMLFormElement} */ (need("rule"));
const when = /** @type {HTMLTextAreaElement} */ (form.elements.namedItem("when"));
let byHand = when.value !== "";

/** The same that the server makes of the parts. */
function condition() {
  /** @type {string[]} */
  const said = [];
  for (const part of ["label", "score", "zone", "camera"]) {
    const value = /** @type {HTMLInputElement} */ (form.elements.namedItem(part)).value.trim();
    if (!value) continue;
    const quoted = value.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
    said.push(part === "score" ? `score >= ${value}` : `${part} == '${quoted}'`);
  }
  return said.join(" and ");
}

when.addEventListener("input", () => {
  byHand = when.value !== "";
});
function follow() {
  if (!byHand) when.value = condition();
}
need("parts").addEventListener("input", follow);
follow(); // somebody may have been faster than this script

/** Send a test to a channel, and say what came of it. @param {HTMLButtonElement} button @param {string} channel */
async function test(button, channel) {
  button.disabled = true;
  try {
    const told = await send("POST", `/v1/channels/${encodeURIComponent(channel)}/test`);
    const state = told.state === "delivered" || told.state === "failed" ? told.state : "pending";
    toast(say(`rules.tested.${state}`, { channel, why: told.last_error ?? "" }));
  } catch (error) {
    toast(say("rules.tested.failed", { channel, why: /** @type {Error} */ (error).message }));
  }
  button.disabled = false;
}

for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (form.querySelectorAll("button[data-test]"))) {
  button.hidden = false;
  button.addEventListener("click", () => test(button, button.dataset.test ?? ""));
}

const press = (/** @type {string} */ what) => () =>
  /** @type {HTMLButtonElement} */ (form.querySelector(`button[value="${what}"]`)).click();
keys.bind({ key: "t", words: say("rules.form.try"), run: press("try") });
