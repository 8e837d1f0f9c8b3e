// Audit search: words offered while one types, a pill when there is more to see, and table or pictures by a key.
// @ts-check
import { keys } from "../boot.js";
import { bindBrush } from "../brush.js";
import { onEvents } from "../bus.js";
import { number } from "../fmt.js";
import { fill, need, pageData, say, slot } from "../page.js";
import { token, writing } from "../search.js";
import { ask, send } from "../send.js";
import { toast } from "../toast.js";

/** Wait so long (ms) after a letter before the server is asked. */
const PAUSE = 150;
/** @type {{names: string[], narrow: {href: string, q: string} | null, bars: any}} */
const data = pageData();
const query = /** @type {HTMLInputElement} */ (document.querySelector("[data-search]"));
let timer = 0;

async function offer() {
  const text = query.value;
  const { start, name, value } = writing(text);
  /** @type {string[]} */
  let offered = [];
  if (value === null) offered = data.names.filter((each) => name && each.startsWith(name)).map((each) => `${each}:`);
  else if (!["from", "until", "score"].includes(name)) {
    const found = await send("GET", `/v1/results/words?token=${encodeURIComponent(name)}&text=${encodeURIComponent(value)}`).catch(() => null);
    offered = (found?.words ?? []).map((/** @type {string} */ word) => token(name, word));
  }
  if (query.value !== text) return;
  need("words").replaceChildren(...offered.map((each) => {
    const option = document.createElement("option");
    option.value = text.slice(0, start) + each;
    return option;
  }));
}

query.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(offer, PAUSE);
});
keys.bind({ key: "t", words: say("audit.key.way"), run: () => location.assign(/** @type {HTMLAnchorElement} */ (need("way")).href) });

const { narrow, bars } = data;
if (narrow) {
  bindBrush(need("brush"), need("brushed"), bars, (from, until) => {
    const there = new URL(narrow.href, location.href);
    there.searchParams.set("q", `${narrow.q} from:${from} until:${until}`.trim());
    location.assign(there);
  });
  keys.bind({ key: "h", words: say("audit.key.brush"), run: () => need("brush").focus() });
}
const rule = document.getElementById("to-rule");
if (rule) keys.bind({ key: "n", words: say("audit.rule"), run: () => rule.click() });

/** How often (ms) an export that is being written is asked how far it is. */
const FOLLOW = 2000;

/** @param {HTMLElement} row */
async function follow(row) {
  const job = await ask(`/v1/exports/${row.dataset.export}`).catch(() => null);
  const state = job?.state ?? "running";
  if (job) fill(row, "words", say(`audit.export_${state === "running" && job.about === null ? "begun" : state}`, { n: number(job.results), about: number(job.about), error: job.error ?? "" }));
  /** @type {HTMLElement} */ (slot(row, "file")).hidden = state !== "done";
  if (state === "running" && row.isConnected) setTimeout(() => follow(row), FOLLOW);
}

for (const row of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-export]"))) {
  const button = /** @type {HTMLElement} */ (slot(row, "remove"));
  button.hidden = false;
  button.addEventListener("click", () => send("DELETE", `/v1/exports/${row.dataset.export}`).then(() => row.remove(), (error) => toast(error.message)));
  if (row.dataset.state === "running") follow(row);
}

let fresh = 0;
onEvents((batch) => {
  fresh += batch.filter((event) => event.kind === "result").length;
  const pill = need("fresh-results");
  pill.hidden = fresh === 0;
  pill.textContent = say("audit.new", { n: fresh });
});
need("fresh-results").addEventListener("click", () => location.reload());

// an address names what was asked, nothing else
for (const form of /** @type {NodeListOf<HTMLFormElement>} */ (document.querySelectorAll(".audit__fields"))) {
  form.addEventListener("submit", () => {
    for (const field of /** @type {NodeListOf<HTMLInputElement>} */ (form.querySelectorAll("input, select"))) field.disabled = !field.value;
  });
}
addEventListener("pageshow", () => {
  for (const field of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll(".audit__fields :disabled"))) field.disabled = false;
});
