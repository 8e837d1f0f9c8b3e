// Decisions on their way to the server. What is not taken yet is kept, under the key that makes it count once.
// @ts-check

/**
 * @typedef {{key: string, id: string, body: any, state: "saving" | "failed", why: string}} Decision
 * @typedef {{get: () => string | null, set: (text: string) => void}} Shelf keeps what is not taken yet beyond a reload
 * @typedef {(decision: Decision) => Promise<any>} Sender
 */

export class Outbox {
  /** @param {Sender} send throws an Error whose message is a sentence @param {Shelf} shelf @param {() => void} changed */
  constructor(send, shelf, changed) {
    this.send = send;
    this.shelf = shelf;
    this.changed = changed;
    /** @type {Decision[]} */
    this.waiting = [];
    /** Whether anything was taken since the page began. */
    this.saved = 0;
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

  /** Once more, all that failed. */
  async retry() {
    await Promise.all(this.failed.map((decision) => this.deliver(decision)));
  }

  /** @param {Decision} decision */
  async deliver(decision) {
    decision.state = "saving";
    this.tell();
    try {
      const answer = await this.send(decision);
      this.waiting = this.waiting.filter((each) => each !== decision);
      this.saved += 1;
      return answer;
    } catch (error) {
      decision.state = "failed";
      decision.why = error instanceof Error ? error.message : String(error);
      return null;
    } finally {
      this.tell();
    }
  }

  tell() {
    this.shelf.set(JSON.stringify(this.waiting));
    this.changed();
  }
}
