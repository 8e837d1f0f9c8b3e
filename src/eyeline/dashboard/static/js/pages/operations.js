// Operations: charts with one range and one cursor, tiles that follow, a rate to try out.
// @ts-check
import { keys } from "../boot.js";
import { line } from "../bus.js";
import { showChart, sparkline } from "../chart.js";
import { number } from "../fmt.js";
import { fill, need, pageData, say, showStatus, slot } from "../page.js";
import { ask } from "../send.js";
import { now } from "../time.js";

/**
 * @typedef {{per_million: number | null, currency: string, inputs: {machines_per_hour: number, hours: number, images: number}}} Cost
 * @typedef {{range: string, site: string | null, seconds: number, targets: Record<string, {value: number, line: string}>, notes: {at: number, words: string}[], cost: Cost}} OperationsData
 */

const EVERY = 30_000;
const SOON = 2_000;
let watching = 0;
const RANGES = ["15m", "1h", "6h", "24h", "7d", "30d"];
/** @type {OperationsData} */
const data = pageData();
/** @type {Record<string, string>} */
const STATES = { ok: "ok", "at risk": "risk", missed: "missed", "not measured": "unmeasured" };

/** How a unit is drawn: seconds as milliseconds, shares as percent. @param {string} unit @returns {[number, string]} */
function scale(unit) {
  if (unit === "s") return [1000, "ms"];
  if (unit === "share") return [100, "%"];
  return [1, unit];
}

/** @param {string} path */
function address(path) {
  const query = new URLSearchParams({ range: data.range });
  if (data.site) query.set("site", data.site);
  return `${path}${path.includes("?") ? "&" : "?"}${query}`;
}

/**
 * Points of one line, with a gap wherever a step is missing.
 * @param {any[]} points @param {string} name @param {number} step @param {number} factor
 * @returns {(readonly [number, number | null])[]}
 */
export function lineOf(points, name, step, factor) {
  /** @type {(readonly [number, number | null])[]} */
  const drawn = [];
  let before = NaN;
  for (const point of points) {
    const at = Date.parse(point.at) / 1000;
    if (at - before > step * 1.5) drawn.push([before + step, null]);
    drawn.push([at, point[name] === null ? null : point[name] * factor]);
    before = at;
  }
  return drawn;
}

/** @param {HTMLElement} figure */
async function draw(figure) {
  const metric = figure.dataset.metric ?? "";
  const name = say(`operations.chart.${metric}`);
  try {
    const told = await ask(address(`/v1/series?metric=${metric}`));
    const [factor, unit] = scale(told.unit);
    const series = told.lines.map((/** @type {string} */ line) => ({
      name: line.includes(".") ? line.split(".")[1] : metric,
      points: lineOf(told.points, line, told.step, factor),
    }));
    const target = data.targets[metric];
    const limit = target && { value: target.value * factor, of: series[told.lines.indexOf(target.line)] };
    const to = now() / 1000;
    const from = to - data.seconds;
    showChart(figure, {
      title: titleOf(name, series, unit, limit?.value),
      series,
      unit,
      ...(limit ? { target: limit } : {}),
      ...(metric === "latency" ? { open: (/** @type {number} */ at) => openSlowest(at, told.step) } : {}),
      notes: data.notes.filter((note) => note.at > from),
      from,
      to,
    });
  } catch (error) {
    const heading = figure.querySelector("h3");
    if (heading) heading.textContent = say("operations.chart.away", { name, why: /** @type {Error} */ (error).message });
  }
}

/** Where the time went of the slowest image behind a point. @param {number} at @param {number} step */
function openSlowest(at, step) {
  location.assign(address(`/operations/slowest?from=${at}&until=${at + step}`));
}

/** @param {string} name @param {import("../chart.js").Series[]} series @param {string} unit @param {number | undefined} target */
function titleOf(name, series, unit, target) {
  const values = series.map((each) => {
    const last = each.points.findLast(([, value]) => value !== null);
    return last ? `${series.length > 1 ? `${each.name} ` : ""}${number(last[1])} ${unit}` : "";
  }).filter(Boolean);
  return say("operations.chart.title", {
    name,
    values: values.join(", ") || say("operations.chart.nothing"),
    target: target === undefined ? "" : say("operations.chart.target", { value: `${number(target)} ${unit}` }),
    range: data.range,
  });
}

/** @param {number | null} value @param {string} unit */
function shown(value, unit) {
  if (value === null) return "–";
  if (unit === "share") return `${number(value * 100)} %`;
  if (unit === "s") return value < 1 ? `${number(value * 1000)} ms` : `${number(value)} s`;
  return `${number(value)} ${unit}`;
}

/** @param {HTMLElement} tile @param {readonly (number | null)[]} values */
function drawSpark(tile, values) {
  slot(tile, "spark")?.replaceChildren(...(values.some((value) => value !== null) ? [sparkline(values)] : []));
}

async function follow() {
  const told = await ask(address("/v1/operations"));
  for (const tile of told.tiles) {
    const part = /** @type {HTMLElement | null} */ (document.querySelector(`[data-tile="${tile.name}"]`));
    if (!part) continue;
    fill(part, "value", shown(tile.value, tile.unit));
    showStatus(part, STATES[tile.verdict] ?? "unmeasured");
    const meter = /** @type {HTMLMeterElement | null} */ (slot(part, "budget"));
    const share = tile.budget ? tile.budget.left : tile.kept;
    if (meter && share !== null) meter.value = Math.max(0, Math.min(1, share));
    fill(part, "latest", say("operations.latest", { value: shown(tile.spark.findLast((/** @type {number | null} */ value) => value !== null) ?? null, tile.unit) }));
    drawSpark(part, tile.spark);
  }
  for (const one of [...told.replicas.processes, ...told.replicas.inference]) {
    const row = document.querySelector(`[data-replica="${CSS.escape(one.id)}"]`);
    if (row) showStatus(row, one.state);
    if (row && one.drainable) fill(row, "hand", String(one.in_hand));
  }
  watchDrains();
}

/** Whoever drains one waits for it. */
function watchDrains() {
  clearTimeout(watching);
  if (document.querySelector("[data-replica] [data-state=draining]")) watching = setTimeout(() => follow().catch(() => undefined), SOON);
}

/** Open what drains the one with the focus; without one, go to the first. */
function drain() {
  const row = document.activeElement?.closest("[data-replica]");
  const control = /** @type {HTMLElement} */ ((row ?? document).querySelector("[data-drain]"));
  const folded = row && control.closest("details");
  if (folded) folded.open = true;
  (folded?.querySelector("button") ?? control).focus();
}

function startCost() {
  const field = need("what-if");
  field.hidden = false;
  const input = /** @type {HTMLInputElement} */ (field.querySelector("input"));
  input.addEventListener("input", () => {
    const { hours, images } = data.cost.inputs;
    if (images) need("cost").textContent = `${number(((Number(input.value) * hours) / images) * 1e6)} ${data.cost.currency} ${say("operations.per_million")}`;
  });
}

const figures = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("figure[data-metric]")]);

function refresh() {
  if (document.hidden || line.paused) return;
  for (const figure of figures) if (!figure.matches(":hover, :focus-within")) draw(figure);
  follow().catch(() => undefined); // the charts say that nothing can be read
}

for (const tile of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-tile]"))) drawSpark(tile, JSON.parse(tile.dataset.spark ?? "[]"));
for (const figure of figures) draw(figure);
RANGES.forEach((range, index) => {
  const go = new URL(location.href);
  go.searchParams.set("range", range);
  keys.bind({ key: String(index + 1), words: say("operations.show_range", { range }), run: () => location.assign(go) });
});
keys.bind({ key: "d", words: say("operations.drain_key"), run: drain, when: () => document.querySelector("[data-drain]") !== null });
startCost();
watchDrains();
setInterval(refresh, EVERY);
