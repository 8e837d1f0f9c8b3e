// Decisions on their way to the server. What is not taken yet is kept, under the key that makes it count once, and is sent
// again by itself where it may be taken then: after longer and longer pauses, and as soon as the line is back.
// @ts-check

/** The first pause (ms) before what failed is sent again, and the longest. */
const FIRST = 1000;
const LONGEST = 30_000;
/** Decisions that can still be withdrawn: more than a page offers to. */
const LAST = 20;

/**
 * @typedef {{key: string, id: string, body: any, state: "saving" | "failed", why: string, final?: boolean}} Decision `final`: no other try will do
 * @typedef {{get: () => string | null, set: (text: string) => void}} Shelf keeps what is not taken yet beyond a reload
 * @typedef {(decision: Decision) => Promise<any>} Sender throws an Error whose message is a sentence, with a `status` where the
 * server answered
 */

export class Outbox {
  /** @param {Sender} send @param {Shelf} shelf @param {() => void} changed */
  constructor(send, shelf, changed) {
    this.send = send;
    this.shelf = shelf;
    this.changed = changed;
    /** @type {Decision[]} */
    this.waiting = [];
    /** Whether anything was taken since the page began. */
    this.saved = 0;
    this.pause = FIRST;
    this.timer = 0;
    /** @type {Map<string, Promise<any>>} the last try of each */
    this.tries = new Map();
    try {
      /** @type {Decision[]} */
      const kept = JSON.parse(shelf.get() ?? "[]");
      this.waiting = kept.map((decision) => ({ ...decision, state: "failed" }));
    } catch {
      this.waiting = []; // what cannot be read is not ours
    }
  }

  /** @returns {Decision[]} */
  get failed() {
    return this.waiting.filter((decision) => decision.state === "failed");
  }

  /**
   * Send it, and keep it until it is taken.
   * @param {string} id @param {any} body @param {string} key
   * @returns {Promise<any>} the answer, or null where it was not taken
   */
  add(id, body, key) {
    /** @type {Decision} */
    const decision = { key, id, body, state: "saving", why: "" };
    this.waiting.push(decision);
    return this.deliver(decision);
  }

  /** Once more, all that failed: somebody asks for it, or the line is back. */
  async retry() {
    this.pause = FIRST;
    await Promise.all(this.failed.map((decision) => this.deliver(decision)));
  }

  /**
   * Take one back: it is sent no more.
   * @param {string} key @returns {Promise<any>} the answer, where it was taken before
   */
  async withdraw(key) {
    const answer = await this.tries.get(key);
    this.waiting = this.waiting.filter((each) => each.key !== key);
    this.tell();
    return answer;
  }

  /** @param {Decision} decision */
  deliver(decision) {
    const sent = this.sent(decision);
    this.tries.set(decision.key, sent);
    for (const old of [...this.tries.keys()].slice(0, -LAST)) this.tries.delete(old);
    return sent;
  }

  /** @param {Decision} decision */
  async sent(decision) {
    decision.state = "saving";
    this.tell();
    try {
      const answer = await this.send(decision);
      this.waiting = this.waiting.filter((each) => each !== decision);
      this.saved += 1;
      this.pause = FIRST;
      return answer;
    } catch (error) {
      const status = /** @type {any} */ (error).status ?? 0;
      decision.final = status >= 400 && status < 500 && status !== 429;
      decision.state = "failed";
      decision.why = error instanceof Error ? error.message : String(error);
      return null;
    } finally {
      this.tell();
      this.plan();
    }
  }

  /** Another try of what may be taken later; what was refused waits for somebody to look at it. */
  plan() {
    clearTimeout(this.timer);
    if (!this.failed.some((decision) => !decision.final)) return;
    this.timer = setTimeout(() => {
      this.pause = Math.min(2 * this.pause, LONGEST);
      for (const decision of this.failed) if (!decision.final) this.deliver(decision);
    }, this.pause);
  }

  tell() {
    this.shelf.set(JSON.stringify(this.waiting));
    this.changed();
  }
}
