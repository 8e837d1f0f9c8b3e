// The live stream: one connection that comes back where it broke off, and says how it is. Runs in a worker or in a page.
// @ts-check

/**
 * @typedef {{id: number, kind: string, body: any}} Told One event of the log; `resync` asks to load the lists anew.
 * @typedef {{state: "connecting" | "live" | "reconnecting", attempt: number, heard: number}} Health `heard`: when something came last (ms).
 * @typedef {(url: string) => EventSource} Opener
 */

export const KINDS = ["result", "alert", "system", "resync"];
/** The server says something every ten seconds; after so many milliseconds of silence a connection is dead. */
export const SILENCE = 25_000;
const LONGEST_PAUSE = 10_000;

/** @param {number} attempt @returns {number} milliseconds before the next try */
export const pause = (attempt) => Math.min(LONGEST_PAUSE, 500 * 2 ** Math.min(attempt - 1, 6));

export class Stream {
  /**
   * @param {Opener} open
   * @param {(told: Told) => void} onEvent
   * @param {(health: Health, at?: string) => void} onHealth `at`: the server's clock, where it was told
   */
  constructor(open, onEvent, onHealth) {
    this.open = open;
    this.onEvent = onEvent;
    this.onHealth = onHealth;
    /** @type {EventSource | null} */
    this.source = null;
    this.last = -1;
    this.attempt = 0;
    this.heard = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.watch = undefined;
  }

  /** @param {number} after the event after which to begin */
  start(after) {
    if (this.watch !== undefined) return;
    this.last = after;
    this.watch = setInterval(() => this.look(), 1000);
    this.connect();
  }

  stop() {
    clearInterval(this.watch);
    clearTimeout(this.timer);
    this.watch = undefined;
    this.source?.close();
    this.source = null;
  }

  connect() {
    const source = this.open(`/v1/events?every=0.25&after=${this.last}`);
    this.source = source;
    this.heard = Date.now();
    source.onopen = () => this.well();
    source.onerror = () => this.broken(source);
    source.addEventListener("heartbeat", (message) => this.well(JSON.parse(message.data).at));
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => this.take(kind, message));
    }
    if (this.attempt === 0) this.say("connecting");
  }

  /** @param {string} kind @param {MessageEvent} message */
  take(kind, message) {
    const id = Number(message.lastEventId);
    this.well();
    if (kind !== "resync" && id <= this.last) return; // said twice
    this.last = id;
    this.onEvent({ id, kind, body: JSON.parse(message.data) });
  }

  /** @param {string} [at] */
  well(at) {
    this.heard = Date.now();
    this.attempt = 0;
    this.say("live", at);
  }

  /** @param {EventSource} source */
  broken(source) {
    if (source !== this.source) return;
    source.close();
    this.source = null;
    this.attempt += 1;
    this.say("reconnecting");
    this.timer = setTimeout(() => this.connect(), pause(this.attempt));
  }

  look() {
    if (this.source && Date.now() - this.heard > SILENCE) this.broken(this.source);
  }

  /** @param {Health["state"]} state @param {string} [at] */
  say(state, at) {
    this.onHealth({ state, attempt: this.attempt, heard: this.heard }, at);
  }
}
