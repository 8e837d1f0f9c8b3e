// A record: print it, copy its address.
// @ts-check
import { keys } from "../boot.js";
import { need, say } from "../page.js";
import { toast } from "../toast.js";

const print = need("print");
print.hidden = false;
print.addEventListener("click", () => globalThis.print());
keys.bind({ key: "Shift+p", words: say("audit.key.print"), run: () => globalThis.print() });

// the clipboard needs a secure context, which a plain line network is not
if (navigator.clipboard) {
  const copy = need("copy");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    toast(say("audit.copied"));
  });
}
