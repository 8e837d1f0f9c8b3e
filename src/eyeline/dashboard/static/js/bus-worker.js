// The shared worker: one connection for all tabs of this browser.
// @ts-check
import { Hub } from "./hub.js";

const hub = new Hub((url) => new EventSource(url));
/** @type {any} */ (self).onconnect = (/** @type {MessageEvent} */ event) => {
  const port = /** @type {MessagePort} */ (event.ports[0]);
  port.onmessage = (message) => hub.hear(port, message.data);
};
