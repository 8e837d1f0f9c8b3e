// @ts-check
/**
 * The client of Eyeline's HTTP API for browsers, Deno and Node: one file, no dependencies.
 *
 *     import { Client } from "./eyeline.js";
 *     const eyeline = new Client("http://127.0.0.1:8080");
 *     const job = await eyeline.submit(file, { ref: "order 7" });
 *     const result = await eyeline.wait(job);
 *
 * The types below are checked by TypeScript as they stand; a test compares them with the gateway's /openapi.json.
 */

/**
 * What is known of an image: upright size (after EXIF), format by its bytes, size of the file.
 * @typedef {Object} ImageInfo
 * @property {string} sha256
 * @property {number} width
 * @property {number} height
 * @property {string} format
 * @property {number} bytes
 * @property {boolean} [frames_ignored]
 */

/**
 * One box; `box` is x1, y1, x2, y2 in pixels of the upright original.
 * @typedef {Object} Detection
 * @property {string} label
 * @property {number} score
 * @property {[number, number, number, number]} box
 * @property {string} step
 * @property {Record<string, any>} [attributes] `mask`, where there is one: `{polygons: number[][], area: number}`
 */

/**
 * One label for the whole image.
 * @typedef {Object} Classification
 * @property {string} label
 * @property {number} score
 * @property {string} step
 */

/**
 * A barcode that was read.
 * @typedef {Object} Code
 * @property {string} text
 * @property {string} format
 * @property {[number, number, number, number]} box
 */

/**
 * Exactly which model answered.
 * @typedef {Object} ModelRef
 * @property {string} name
 * @property {string} version
 * @property {string} runtime
 * @property {string} precision
 */

/**
 * How the answer of `duplicate_of` came to be reused for other bytes: the worst block's distance from its picture, in levels
 * of 255, and the limit under which that had to stay.
 * @typedef {Object} Reuse
 * @property {"near"} how
 * @property {number} distance
 * @property {number} limit
 */

/**
 * Where a record is sealed in the audit chain.
 * @typedef {Object} ChainRef
 * @property {number} block
 * @property {number} position
 */

/**
 * What a person says of a result. `detections` and `classifications` are what it was corrected to.
 * @typedef {Object} Verdict
 * @property {string} id
 * @property {"confirmed" | "corrected" | "rejected" | "unsure"} kind
 * @property {string} by
 * @property {string} at
 * @property {string | null} comment
 * @property {Detection[] | null} detections
 * @property {Classification[] | null} classifications
 */

/**
 * What came of a job. A failed one says why in `reason` (`code: sentence`). Times are RFC 3339.
 * @typedef {Object} Result
 * @property {string} id
 * @property {"completed" | "failed"} status
 * @property {string} site
 * @property {string} pipeline
 * @property {string} captured_at
 * @property {string} received_at
 * @property {string} completed_at
 * @property {string | null} reason
 * @property {string | null} ref
 * @property {Record<string, string>} meta
 * @property {string | null} camera
 * @property {ImageInfo | null} image
 * @property {Detection[]} detections
 * @property {Classification[]} classifications
 * @property {Code[]} codes
 * @property {Record<string, Record<string, any>>} steps
 * @property {ModelRef[]} models
 * @property {string | null} environment
 * @property {Record<string, number>} timings
 * @property {string | null} duplicate_of
 * @property {Reuse | null} reuse
 * @property {string | null} replay_of
 * @property {boolean} aside
 * @property {ChainRef | null} chain
 * @property {Verdict | null} verdict
 * @property {number} schema_version
 */

/**
 * A job that the gateway has kept; `result` is there once it is known.
 * @typedef {Object} Job
 * @property {string} id
 * @property {"queued" | "completed" | "failed"} status
 * @property {Result | null} [result]
 */

/**
 * One page of results, newest first; `next` is the cursor of the page after it.
 * @typedef {Object} Page
 * @property {Result[]} results
 * @property {string | null} next
 */

/**
 * One event. `resync`: events were left out; load the lists anew and go on.
 * @typedef {Object} Event
 * @property {number} seq
 * @property {"result" | "alert" | "system" | "resync"} kind
 * @property {any} body
 */

/**
 * What `submit` says of an image; docs/api.md explains each. `deadline` in seconds.
 * @typedef {Object} Picture
 * @property {string} [camera]
 * @property {string} [site]
 * @property {string} [pipeline]
 * @property {Date | string} [captured_at]
 * @property {string} [ref]
 * @property {Record<string, string>} [meta]
 * @property {"live" | "bulk"} [lane]
 * @property {number} [deadline]
 */

/**
 * What lists of results can be narrowed by.
 * @typedef {Object} Filters
 * @property {string} [site]
 * @property {string} [camera]
 * @property {string} [pipeline]
 * @property {string} [label]
 * @property {number} [min_score]
 * @property {"completed" | "failed"} [status]
 * @property {string} [ref]
 * @property {string} [code]
 * @property {Date | string} [since]
 * @property {Date | string} [until]
 * @property {string} [q]
 * @property {"newest" | "oldest"} [order]
 */

/**
 * What a hold can name; what it does not name may be anything.
 * @typedef {Object} Scope
 * @property {string} [site]
 * @property {string} [camera]
 * @property {string} [ref]
 * @property {string} [result]
 * @property {string} [item]
 * @property {Date | string} [since]
 * @property {Date | string} [until]
 */

/**
 * A legal hold: whatever fits all that it names is kept until it is lifted. `since` and `until` are about `captured_at`.
 * @typedef {Object} Hold
 * @property {string} id
 * @property {string} reason
 * @property {string} by
 * @property {string} placed_at
 * @property {string | null} [lifted_at]
 * @property {string | null} [site]
 * @property {string | null} [camera]
 * @property {string | null} [ref]
 * @property {string | null} [result]
 * @property {string | null} [item]
 * @property {string | null} [since]
 * @property {string | null} [until]
 */

/**
 * @typedef {Object} Ask
 * @property {string} [method]
 * @property {Record<string, any>} [params]
 * @property {Record<string, string>} [headers]
 * @property {Blob | ArrayBuffer | Uint8Array<ArrayBuffer> | string} [body]
 * @property {number} [wait] seconds that the gateway may hold the request on purpose
 * @property {AbortSignal} [signal]
 */

/** Seconds that one request may wait for a result: under the gateway's 30. */
const LONGEST_WAIT = 25;
/** The gateway says something at least every ten seconds; a stream silent for longer (seconds) is dead. */
const SILENCE = 25;
/** Nothing was kept, or a proxy says that it does not know: worth another try. */
const TRY_AGAIN = new Set([429, 502, 503, 504]);

/** The gateway refused. `code` is stable (docs/api.md), `detail` is for people. */
export class Refused extends Error {
  /** @param {number} status @param {string} code @param {string} detail @param {number} retryAfter seconds, or 0 */
  constructor(status, code, detail, retryAfter = 0) {
    super(`${status} ${code}: ${detail}`);
    this.name = "Refused";
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }
}

/** No answer came. A submit may have been kept: its `idempotencyKey` makes another try safe. */
export class Unreachable extends Error {
  /** @param {string} message @param {string} [idempotencyKey] */
  constructor(message, idempotencyKey) {
    super(message);
    this.name = "Unreachable";
    this.idempotencyKey = idempotencyKey;
  }
}

/** The job has no result yet. It is not lost: wait for it again by its `id`. */
export class WaitTimeout extends Error {
  /** @param {string} id @param {number} seconds */
  constructor(id, seconds) {
    super(`the job ${id} has no result after ${seconds} s; it is kept: wait for it again`);
    this.name = "WaitTimeout";
    this.id = id;
  }
}

/** A client of one gateway. In a page that the gateway serves, the address may be left out. */
export class Client {
  /**
   * @param {string} [url] the gateway's address
   * @param {{ key?: string, timeout?: number, patience?: number }} [options] the API key; seconds to wait for one answer;
   *   seconds to go on trying
   */
  constructor(url = "", { key, timeout = 10, patience = 60 } = {}) {
    this._url = url.replace(/\/+$/, "");
    /** @type {Record<string, string>} */
    this._headers = key ? { Authorization: `Bearer ${key}` } : {};
    this._timeout = timeout;
    this._patience = patience;
  }

  /**
   * Sends one image: its bytes, or the URL that the gateway is to fetch. The job is kept when this answers.
   * @param {Blob | ArrayBuffer | Uint8Array<ArrayBuffer> | URL | string} image
   * @param {Picture & { wait?: number, idempotencyKey?: string }} [said]
   * @returns {Promise<Job>}
   */
  async submit(image, { wait = 0, idempotencyKey = newKey(), meta = {}, ...said } = {}) {
    const link = typeof image === "string" || image instanceof URL;
    const body = link ? JSON.stringify({ url: String(image) }) : /** @type {Blob | ArrayBuffer} */ (image);
    const kind = link ? "application/json" : "application/octet-stream";
    const headers = { "Content-Type": kind, "Idempotency-Key": idempotencyKey }; // one key over all tries: never a second job
    const held = Math.min(wait, LONGEST_WAIT);
    const fields = Object.fromEntries(Object.entries(meta).map(([name, value]) => [`meta.${name}`, value]));
    const params = { ...said, ...fields, wait: held || undefined };
    const answer = await this._ask("/v1/images", { method: "POST", params, headers, body, wait: held });
    const told = await answer.json();
    return answer.status === 200 ? { id: told.id, status: told.status, result: told } : told;
  }

  /**
   * The result of a job, completed or failed. Throws WaitTimeout.
   * @param {Job | string} job
   * @param {number} [timeout] seconds
   * @returns {Promise<Result>}
   */
  async wait(job, timeout = 60) {
    if (typeof job !== "string" && job.result) return job.result;
    const id = typeof job === "string" ? job : job.id;
    const deadline = Date.now() + timeout * 1000;
    for (;;) {
      const left = Math.max(0, (deadline - Date.now()) / 1000);
      const told = await this.job(id, Math.min(left, LONGEST_WAIT));
      if (told.result) return told.result;
      if (Date.now() >= deadline) throw new WaitTimeout(id, timeout);
      await pause(0.25); // a gateway that stops answers at once
    }
  }

  /**
   * What became of a job; waits up to `wait` seconds for its result.
   * @param {string} id
   * @param {number} [wait]
   * @returns {Promise<Job>}
   */
  async job(id, wait = 0) {
    return (await this._ask(`/v1/jobs/${id}`, { params: { wait: wait || undefined }, wait })).json();
  }

  /**
   * One result.
   * @param {string} id
   * @returns {Promise<Result>}
   */
  async result(id) {
    return (await this._ask(`/v1/results/${id}`)).json();
  }

  /**
   * One page of results, newest first.
   * @param {Filters & { cursor?: string | null, limit?: number }} [filters]
   * @returns {Promise<Page>}
   */
  async page(filters = {}) {
    return (await this._ask("/v1/results", { params: filters })).json();
  }

  /**
   * All results that match, newest first.
   * @param {Filters & { limit?: number }} [filters]
   * @returns {AsyncGenerator<Result>}
   */
  async *results(filters = {}) {
    /** @type {string | null} */
    let cursor = null;
    do {
      const page = await this.page({ ...filters, cursor });
      yield* page.results;
      cursor = page.next;
    } while (cursor);
  }

  /**
   * The picture of a result as JPEG, with what was found drawn on it where `overlay` says so.
   * @param {string} id
   * @param {{ overlay?: boolean, width?: number }} [options]
   * @returns {Promise<Blob>}
   */
  async picture(id, { overlay = false, width } = {}) {
    return (await this._ask(`/v1/results/${id}/image`, { params: { overlay: overlay ? 1 : undefined, width } })).blob();
  }

  /**
   * Legal holds in force, in the order in which they were placed; with `lifted`, those that were lifted, too.
   * @param {{ lifted?: boolean }} [options]
   * @returns {Promise<Hold[]>}
   */
  async holds({ lifted = false } = {}) {
    return (await this.get("/v1/holds", { all: lifted ? 1 : undefined })).holds;
  }

  /**
   * Keeps whatever fits all of `scope` until the hold is lifted. Where an answer is lost it may be held twice.
   * @param {string} reason
   * @param {Scope} scope
   * @returns {Promise<Hold>}
   */
  async placeHold(reason, scope) {
    return this._post("/v1/holds", { reason, ...scope });
  }

  /**
   * Ends a hold: what it kept may go.
   * @param {string} id
   * @param {string} reason
   * @returns {Promise<Hold>}
   */
  async liftHold(id, reason) {
    return this._post(`/v1/holds/${id}/lift`, { reason });
  }

  /**
   * Any other GET of the API as plain data: `get("/v1/counts", { by: "label" })`.
   * @param {string} path
   * @param {Record<string, any>} [params]
   * @returns {Promise<any>}
   */
  async get(path, params = {}) {
    return (await this._ask(path, { params })).json();
  }

  /**
   * Events as they are recorded, for ever, each once, over cuts and restarts; from `after` on, or from now.
   * @param {{ after?: number, kinds?: Event["kind"][], signal?: AbortSignal }} [options] `signal` ends it
   * @returns {AsyncGenerator<Event>}
   */
  async *events({ after, kinds = ["result", "alert", "system"], signal } = {}) {
    let failures = 0;
    while (!signal?.aborted) {
      const hangUp = new AbortController();
      const end = () => hangUp.abort();
      signal?.addEventListener("abort", end);
      try {
        /** @type {Record<string, string>} */
        const headers = after === undefined ? {} : { "Last-Event-ID": String(after) };
        const ask = { params: { kinds: kinds.join(",") }, headers, wait: SILENCE, signal: hangUp.signal };
        const answer = await this._ask("/v1/events", ask);
        for await (const block of blocks(answer, hangUp)) {
          failures = 0;
          const fields = fieldsOf(block);
          if (!/^\d+$/.test(fields.id ?? "")) continue;
          after = Number(fields.id);
          if (fields.data === undefined) continue;
          yield { seq: after, kind: /** @type {Event["kind"]} */ (fields.event), body: JSON.parse(fields.data) };
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (error instanceof Refused || error instanceof Unreachable) throw error; // _ask has tried long enough
      } finally {
        signal?.removeEventListener("abort", end);
        hangUp.abort(); // the reader went away, or goes on with another connection
      }
      if (!signal?.aborted) await pause(backoff(++failures));
    }
  }

  /** @param {string} path @param {Record<string, any>} said @returns {Promise<any>} */
  async _post(path, said) {
    const headers = { "Content-Type": "application/json" };
    return (await this._ask(path, { method: "POST", headers, body: JSON.stringify(said) })).json();
  }

  /**
   * The good answer to a request that may be repeated.
   * @param {string} path
   * @param {Ask} [ask]
   * @returns {Promise<Response>}
   */
  async _ask(path, ask = {}) {
    const began = Date.now();
    for (let attempt = 1; ; attempt++) {
      const answer = await this._once(path, ask);
      if (answer instanceof Response && answer.ok) return answer;
      const error = answer instanceof Response ? await refusal(answer) : answer;
      if (error instanceof Refused && !TRY_AGAIN.has(error.status)) throw error;
      if (ask.signal?.aborted) throw error;
      const seconds = backoff(attempt) + (error instanceof Refused ? error.retryAfter : 0);
      if ((Date.now() - began) / 1000 + seconds > this._patience) throw error;
      await pause(seconds);
    }
  }

  /**
   * One try: the answer, or that none came.
   * @param {string} path
   * @param {Ask} ask
   * @returns {Promise<Response | Unreachable>}
   */
  async _once(path, { method = "GET", params = {}, headers = {}, body, wait = 0, signal }) {
    const late = new AbortController();
    const give_up = () => late.abort();
    const timer = setTimeout(give_up, (this._timeout + wait) * 1000);
    signal?.addEventListener("abort", give_up);
    try {
      const init = { method, headers: { ...this._headers, ...headers }, body, signal: late.signal };
      const answer = await fetch(this._url + path + query(params), init);
      if (signal) return answer; // a stream: whoever reads it minds its silence
      return new Response(await answer.arrayBuffer(), answer); // read within the time, so that a cut is met here
    } catch (error) {
      const said = `${method} ${path}: ${error}; is Eyeline running there? Start it: eyeline up`;
      return new Unreachable(said, headers["Idempotency-Key"]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * The error of a refusal, from its problem JSON or, where a proxy answered, from its text.
 * @param {Response} answer
 * @returns {Promise<Refused>}
 */
async function refusal(answer) {
  const text = await answer.text();
  let told = { code: "no_code", detail: text.slice(0, 200) || "no explanation was given" };
  try {
    told = { ...told, ...JSON.parse(text) };
  } catch {
    // a proxy's page, told as it is
  }
  const wish = answer.headers.get("Retry-After") ?? "";
  return new Refused(answer.status, told.code, told.detail, /^\d+$/.test(wish) ? Number(wish) : 0);
}

/**
 * The blocks of an event stream. Hangs up on a stream that is silent for too long.
 * @param {Response} answer
 * @param {AbortController} hangUp
 * @returns {AsyncGenerator<string>}
 */
async function* blocks(answer, hangUp) {
  if (!answer.body) return;
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const timer = setTimeout(() => hangUp.abort(), SILENCE * 1000);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = parts.pop() ?? "";
    yield* parts;
  }
}

/**
 * The fields of a block of an event stream.
 * @param {string} block
 * @returns {Record<string, string | undefined>}
 */
function fieldsOf(block) {
  const pairs = block.split("\n").map((line) => {
    const at = line.indexOf(":");
    return [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
  });
  return Object.fromEntries(pairs);
}

/**
 * Parameters as text; what is not said is left out.
 * @param {Record<string, any>} params
 * @returns {string}
 */
function query(params) {
  const said = Object.entries(params).filter(([, value]) => value !== undefined && value !== null);
  const text = said.map(([name, value]) => [name, value instanceof Date ? value.toISOString() : String(value)]);
  return text.length ? `?${new URLSearchParams(text)}` : "";
}

/** Exponential with full jitter, never immediate. @param {number} attempt @returns {number} seconds */
function backoff(attempt) {
  const ceiling = Math.min(15, 0.25 * 2 ** (attempt - 1));
  return ceiling * (0.1 + 0.9 * Math.random());
}

/** @param {number} seconds @returns {Promise<void>} */
function pause(seconds) {
  return new Promise((done) => setTimeout(done, seconds * 1000));
}

/** A new idempotency key; `crypto.randomUUID` is missing in pages without https. @returns {string} */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
