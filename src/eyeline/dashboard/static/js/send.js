// Decisions to the API: with the token that the page was given, and with errors as sentences.
// @ts-check
import { say } from "./page.js";
import { leave } from "./unsaved.js";

/** What the server answered instead of taking it. */
export class Refused extends Error {
  /** @param {number} status @param {string} sentence */
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/**
 * What a page asks by itself, with nobody at it: it keeps nobody signed in.
 * @param {string} path @returns {Promise<any>} Throws Refused.
 */
export const ask = (path) => send("GET", path, undefined, { "X-Eyeline-Background": "1" });

/**
 * @param {string} method @param {string} path @param {unknown} [body] sent as JSON
 * @param {Record<string, string>} [more] headers
 * @returns {Promise<any>} the answer's JSON, or null where it has none. Throws Refused, also where nobody answers (status 0).
 */
export async function send(method, path, body, more = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json", ...more };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused(0, say("shell.away"));
  }
  const text = await answer.text();
  const told = text ? JSON.parse(text) : null;
  if (answer.status === 401) leave("signed_out", () => location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`));
  if (!answer.ok) throw new Refused(answer.status, told?.detail ?? `${answer.status}`);
  return told;
}
