// A link from elsewhere (an e-mail) brings no cookie along, although somebody is signed in: ask once from here, and go on.
// @ts-check
import "../boot.js";
import { need } from "../page.js";

const following = /** @type {HTMLAnchorElement} */ (need("following")).getAttribute("href") ?? "/";
const failed = document.getElementById("login-error") !== null;

async function goOn() {
  const answer = await fetch(following, { redirect: "manual" }).catch(() => null);
  if (answer?.ok && answer.type === "basic") location.replace(following);
}

if (!failed) goOn();
