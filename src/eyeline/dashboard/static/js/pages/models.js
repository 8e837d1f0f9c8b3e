// Models: check a version, promote one, go back to the one before; each by typing its name, with a reason.
// @ts-check
import "../boot.js";
import { copyOf, fill, say, slot } from "../page.js";
import { send } from "../send.js";
import { toast } from "../toast.js";

/**
 * Ask for the name and the reason, then act. The dialog stays open with what went wrong.
 * @param {{title: string, words: string, go: string, name: string, act: (reason: string) => Promise<void>}} wanted
 */
function sure({ title, words, go, name, act }) {
  const dialog = /** @type {HTMLDialogElement} */ (copyOf("sure"));
  const form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
  fill(dialog, "title", title);
  fill(dialog, "words", words);
  fill(dialog, "ask", say("models.sure.type", { name }));
  fill(dialog, "go", go);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    if (given.get("typed") !== name) {
      fill(dialog, "error", say("models.sure.differs", { name }));
      return;
    }
    const button = /** @type {HTMLButtonElement} */ (slot(dialog, "go"));
    button.disabled = true;
    fill(dialog, "error", say("models.loading"));
    try {
      await act(String(given.get("reason")));
      dialog.close();
    } catch (error) {
      button.disabled = false;
      fill(dialog, "error", /** @type {Error} */ (error).message);
    }
  });
  dialog.querySelector('[data-act="cancel"]')?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** @param {string} name @param {string} act @param {object} body */
async function change(name, act, body) {
  const told = await send("POST", `/v1/models/${encodeURIComponent(name)}/${act}`, body);
  toast(say(told.waits ? "models.waits" : "models.done", { name, version: told.version }));
  setTimeout(() => location.assign("/models"), 800);
}

/** @param {HTMLElement} panel @param {string} name @param {string} version */
async function verify(panel, name, version) {
  fill(panel, "said", say("models.checking", { version }));
  try {
    const query = new URLSearchParams({ version });
    const told = await send("POST", `/v1/models/${encodeURIComponent(name)}/verify?${query}`);
    fill(panel, "said", say(told.passed ? "models.passed" : "models.failed", { version, why: told.detail ?? "" }));
  } catch (error) {
    fill(panel, "said", say("models.failed", { version, why: /** @type {Error} */ (error).message }));
  }
}

for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("button[data-act]"))) {
  const panel = /** @type {HTMLElement} */ (button.closest("[data-model]"));
  const name = panel.dataset.model ?? "";
  const version = /** @type {HTMLElement | null} */ (button.closest("[data-version]"))?.dataset.version ?? "";
  const act = button.dataset.act ?? "";
  button.hidden = false;
  button.addEventListener("click", () => {
    if (act === "verify") verify(panel, name, version);
    else {
      sure({
        title: say(`models.sure.${act}`, { name, version }),
        words: say(`models.sure.${act}_words`),
        go: say(`models.${act}`),
        name,
        act: (reason) => change(name, act, act === "promote" ? { version, reason } : { reason }),
      });
    }
  });
  if (button.dataset.asked !== undefined) button.click(); // an alert led here
}
