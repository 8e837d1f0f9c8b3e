// Small line charts: one measure each, a target, a cursor that all charts of the page share, and the data as a table.
// Its words stand in the figure: data-words-target, -data, -time and -open.
// @ts-check
import { number } from "./fmt.js";
import { clock } from "./time.js";

/**
 * @typedef {{name: string, points: readonly (readonly [number, number | null])[]}} Series points: Unix seconds and value, in order; null is a gap
 * @typedef {{title: string, series: Series[], unit?: string, target?: {value: number, of?: Series}, notes?: {at: number, words: string}[], from: number, to: number, zone?: string, fromZero?: boolean, open?: (at: number) => void}} Chart target.of: the line that is to stay below; open: what a point leads to
 */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 160;
const PAD = { top: 8, right: 96, bottom: 20, left: 48 };
const MOST = 600;
/** From one text to the next below it. */
const LINE = 13;
/** Charts whose cursors move together. @type {Set<(at: number | null) => void>} */
const cursors = new Set();

/** @param {string} name @param {Record<string, string | number>} attributes @param {string} [text] */
function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/**
 * Round steps that cover 0 or the least value to the greatest.
 * @param {number} low @param {number} high @returns {number[]}
 */
export function ticks(low, high) {
  const span = high - low || 1;
  const rough = span / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = /** @type {number} */ ([1, 2, 5, 10].find((factor) => factor * power >= rough)) * power;
  const found = [];
  for (let at = Math.floor(low / step); at * step < high + step; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

/**
 * A line as an SVG path: a gap is a gap.
 * @param {Series["points"]} points @param {(at: number) => number} x @param {(value: number) => number} y
 */
export function path(points, x, y) {
  let pen = "M";
  let drawn = "";
  const every = Math.max(1, Math.ceil(points.length / MOST));
  for (let index = 0; index < points.length; index += every) {
    const [at, value] = /** @type {readonly [number, number | null]} */ (points[index]);
    if (value === null) pen = "M";
    else {
      drawn += `${pen}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      if (pen === "M" && (points[index + every]?.[1] ?? null) === null) drawn += "h0"; // alone between gaps: a dot, not nothing
      pen = "L";
    }
  }
  return drawn;
}

/**
 * From when to when a line is above its target, as it is drawn: from crossing to crossing.
 * @param {Series["points"]} points @param {number} target @returns {[number, number][]}
 */
export function above(points, target) {
  /** @type {[number, number][]} */
  const spans = [];
  let open = false;
  points.forEach(([at, value], index) => {
    const [before, last] = points[index - 1] ?? [at, null];
    const over = value !== null && value > target;
    const crossed = value === null ? before : last === null ? at : before + ((target - last) / (value - last)) * (at - before);
    if (over && !open) spans.push([crossed, at]);
    const span = spans.at(-1);
    if (span && (over || open)) span[1] = over ? at : crossed;
    open = over;
  });
  return spans;
}

/**
 * Where texts stand so that none covers another: as near as may be to where they belong, and none below the last line.
 * @param {readonly number[]} wanted from the top down @param {number} least between two @param {number} last @returns {number[]}
 */
export function apart(wanted, least, last) {
  const places = [...wanted];
  let limit = last;
  for (let index = places.length - 1; index >= 0; index -= 1) {
    places[index] = Math.min(/** @type {number} */ (places[index]), limit);
    limit = /** @type {number} */ (places[index]) - least;
  }
  return places;
}

/**
 * Draw a chart into a figure, whatever was there. The title is a sentence with the numbers, and the accessible name.
 * @param {HTMLElement} figure @param {Chart} chart
 */
export function showChart(figure, chart) {
  const width = Math.max(320, figure.clientWidth);
  const values = chart.series.flatMap((each) => each.points.map(([, value]) => value)).filter((value) => value !== null);
  if (chart.target) values.push(chart.target.value);
  const low = chart.fromZero === false && values.length ? Math.min(...values) : 0;
  const marks = ticks(low, Math.max(low, ...values));
  const bottom = /** @type {number} */ (marks[0]);
  const top = /** @type {number} */ (marks.at(-1));
  /** @param {number} at */
  const x = (at) => PAD.left + ((at - chart.from) / Math.max(1, chart.to - chart.from)) * (width - PAD.left - PAD.right);
  /** @param {number} value */
  const y = (value) => HEIGHT - PAD.bottom - ((value - bottom) / Math.max(1e-12, top - bottom)) * (HEIGHT - PAD.top - PAD.bottom);
  const svg = /** @type {SVGSVGElement} */ (element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": chart.title, tabindex: 0 }));
  for (const [since, until] of chart.target?.of ? above(chart.target.of.points, chart.target.value) : []) {
    svg.append(element("rect", { class: "chart__band", x: x(since), y: PAD.top, width: Math.max(2, x(until) - x(since)), height: HEIGHT - PAD.top - PAD.bottom }));
  }
  for (const mark of marks) {
    svg.append(element("line", { class: "chart__axis", x1: PAD.left, x2: width - PAD.right, y1: y(mark), y2: y(mark) }));
    svg.append(element("text", { x: PAD.left - 6, y: y(mark) + 4, "text-anchor": "end" }, number(mark)));
  }
  for (const at of [chart.from, chart.to]) {
    const anchor = at === chart.from ? "start" : "end";
    svg.append(element("text", { x: x(at), y: HEIGHT - 4, "text-anchor": anchor }, clock(new Date(at * 1000).toISOString(), chart.zone)));
  }
  /** What is written at the ends of lines. @type {{y: number, words: string}[]} */
  const ends = [];
  if (chart.target) {
    const at = y(chart.target.value);
    svg.append(element("line", { class: "chart__target", x1: PAD.left, x2: width - PAD.right, y1: at, y2: at }));
    ends.push({ y: at, words: `${figure.dataset.wordsTarget} ${number(chart.target.value)}` });
  }
  for (const note of chart.notes ?? []) {
    const line = element("line", { class: "chart__note", x1: x(note.at), x2: x(note.at), y1: PAD.top, y2: HEIGHT - PAD.bottom });
    line.append(element("title", {}, note.words));
    svg.append(line);
  }
  chart.series.forEach((each, index) => {
    svg.append(element("path", { class: `chart__line series-${(index % 4) + 1}`, d: path(each.points, x, y) }));
    const last = each.points.findLast(([, value]) => value !== null);
    if (last) ends.push({ y: y(/** @type {number} */ (last[1])), words: `${each.name} ${number(last[1])}` });
  });
  ends.sort((one, other) => one.y - other.y);
  const places = apart(ends.map((end) => end.y), LINE, HEIGHT - PAD.bottom);
  ends.forEach((end, index) => svg.append(element("text", { x: width - PAD.right + 6, y: /** @type {number} */ (places[index]) + 4 }, end.words)));
  const title = document.createElement("h3");
  title.textContent = chart.title;
  const said = document.createElement("p");
  said.className = "small muted";
  said.textContent = chart.open ? figure.dataset.wordsOpen ?? "" : "";
  said.setAttribute("aria-live", "polite");
  figure.classList.add("chart");
  figure.replaceChildren(title, svg, said, tableOf(chart, figure.dataset));
  followCursor(svg, chart, x, said);
}

/** @param {SVGSVGElement} svg @param {Chart} chart @param {(at: number) => number} x @param {HTMLElement} said */
function followCursor(svg, chart, x, said) {
  const times = (chart.series[0]?.points ?? []).map(([at]) => at);
  const cursor = element("line", { class: "chart__cursor", y1: PAD.top, y2: HEIGHT - PAD.bottom, visibility: "hidden" });
  svg.append(cursor);
  /** @param {number | null} at */
  const move = (at) => {
    if (!svg.isConnected) cursors.delete(move);
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null || times.length === 0) return;
    cursor.setAttribute("x1", String(x(at)));
    cursor.setAttribute("x2", String(x(at)));
    if (document.activeElement !== svg && !svg.matches(":hover")) return;
    const index = nearest(times, at);
    const parts = chart.series.map((each) => `${each.name} ${number(each.points[index]?.[1])}${chart.unit ? ` ${chart.unit}` : ""}`);
    said.textContent = `${clock(new Date(/** @type {number} */ (times[index]) * 1000).toISOString(), chart.zone)}: ${parts.join(", ")}`;
  };
  cursors.add(move);
  let index = times.length - 1;
  /** The point at the cursor leads to what was there. */
  const open = () => {
    if (chart.open && times.length > 0) chart.open(/** @type {number} */ (times[index]));
  };
  svg.classList.toggle("chart__opens", chart.open !== undefined);
  svg.addEventListener("click", open);
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Enter") open();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || times.length === 0) return;
    event.preventDefault();
    index = Math.max(0, Math.min(times.length - 1, index + step));
    for (const each of cursors) each(/** @type {number} */ (times[index]));
  });
  svg.addEventListener("pointermove", (event) => {
    const place = svg.getBoundingClientRect();
    const share = ((event.clientX - place.left) / place.width) * svg.viewBox.baseVal.width;
    const at = chart.from + ((share - PAD.left) / Math.max(1, x(chart.to) - PAD.left)) * (chart.to - chart.from);
    index = nearest(times, at);
    for (const each of cursors) each(Math.max(chart.from, Math.min(chart.to, at)));
  });
  svg.addEventListener("pointerleave", () => {
    for (const each of cursors) each(null);
  });
}

/** @param {readonly number[]} times @param {number} at @returns {number} the index of the nearest */
export function nearest(times, at) {
  let best = 0;
  times.forEach((time, index) => {
    if (Math.abs(time - at) < Math.abs(/** @type {number} */ (times[best]) - at)) best = index;
  });
  return best;
}

/** @param {Chart} chart @param {DOMStringMap} words */
function tableOf(chart, words) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = words.wordsData ?? "";
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of [words.wordsTime ?? "", ...chart.series.map((each) => each.name)]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    }
    const body = table.createTBody();
    (chart.series[0]?.points ?? []).forEach(([at], index) => {
      const row = body.insertRow();
      row.insertCell().textContent = clock(new Date(at * 1000).toISOString(), chart.zone);
      for (const each of chart.series) row.insertCell().textContent = number(each.points[index]?.[1]);
    });
    details.append(table);
    for (const note of chart.notes ?? []) {
      const line = document.createElement("p");
      line.className = "small";
      line.textContent = `${clock(new Date(note.at * 1000).toISOString(), chart.zone)}: ${note.words}`;
      details.append(line);
    }
  });
  return details;
}

/**
 * A line without axes beside a number.
 * @param {readonly (number | null)[]} values
 */
export function sparkline(values) {
  const known = values.filter((value) => value !== null);
  const top = Math.max(1e-12, ...known);
  const svg = element("svg", { class: "spark", viewBox: "0 0 96 24", "aria-hidden": "true" });
  /** @param {number} index */
  const x = (index) => (index / Math.max(1, values.length - 1)) * 94 + 1;
  /** @param {number} value */
  const y = (value) => 22 - (value / top) * 20;
  svg.append(element("path", { class: "chart__line series-1", d: path(values.map((value, index) => /** @type {const} */ ([index, value])), x, y) }));
  return svg;
}
