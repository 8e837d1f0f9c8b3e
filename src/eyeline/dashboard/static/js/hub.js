// Several readers of one stream, each from its own place: what a shared worker is made of. No DOM.
// @ts-check
import { Stream } from "./stream.js";

/** Events kept for readers that come later; one that is further behind loads its lists anew. */
export const KEPT = 1000;
/** A page that says nothing for so long (ms) is gone; hidden ones speak once a minute. */
export const GONE = 150_000;

/**
 * @typedef {import("./stream.js").Told} Told
 * @typedef {{type: "here", after: number} | {type: "bye"}} FromPage
 * @typedef {{type: "event", told: Told} | {type: "health", health: import("./stream.js").Health, at?: string, readers: number}} ToPage
 * @typedef {{postMessage(message: ToPage): void}} Port
 */

export class Hub {
  /** @param {import("./stream.js").Opener} open */
  constructor(open) {
    /** @type {Map<Port, number>} */
    this.ports = new Map();
    /** @type {Told[]} */
    this.kept = [];
    /** The event after which `kept` is complete. */
    this.from = 0;
    /** @type {import("./stream.js").Health} */
    this.health = { state: "connecting", attempt: 0, heard: 0 };
    this.stream = new Stream(open, (told) => this.told(told), (health, at) => this.healthy(health, at));
  }

  /** @param {Port} port @param {FromPage} message */
  hear(port, message) {
    if (message.type === "bye") this.leave(port);
    else if (this.ports.has(port)) this.ports.set(port, Date.now());
    else this.join(port, message.after);
    for (const [each, heard] of this.ports) if (Date.now() - heard > GONE) this.leave(each);
  }

  /** @param {Port} port @param {number} after */
  join(port, after) {
    const first = this.ports.size === 0;
    this.ports.set(port, Date.now());
    if (first) {
      this.kept = [];
      this.from = after;
      this.stream.stop();
      this.stream.start(after);
    } else if (after < this.from) {
      port.postMessage({ type: "event", told: { id: this.stream.last, kind: "resync", body: {} } });
    } else {
      for (const told of this.kept) if (told.id > after) port.postMessage({ type: "event", told });
    }
    port.postMessage({ type: "health", health: this.health, readers: this.ports.size });
  }

  /** @param {Port} port */
  leave(port) {
    this.ports.delete(port);
    if (this.ports.size === 0) this.stream.stop();
  }

  /** @param {Told} told */
  told(told) {
    if (told.kind === "resync") {
      this.kept = [];
      this.from = told.id;
    } else {
      this.kept.push(told);
      if (this.kept.length > KEPT) this.from = /** @type {Told} */ (this.kept.shift()).id;
    }
    for (const port of this.ports.keys()) port.postMessage({ type: "event", told });
  }

  /** @param {import("./stream.js").Health} health @param {string} [at] */
  healthy(health, at) {
    this.health = health;
    for (const port of this.ports.keys()) port.postMessage({ type: "health", health, at, readers: this.ports.size });
  }
}
