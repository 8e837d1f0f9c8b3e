// @ts-check
// One picture in, its result by waiting and by the live stream:
//   deno run --allow-net --allow-read submit_and_follow.js http://127.0.0.1:8080 parcel.jpg
//   node submit_and_follow.js http://127.0.0.1:8080 parcel.jpg
import { readFile } from "node:fs/promises";
import process from "node:process";
import { Client } from "../clients/javascript/eyeline.js";

const [url, path] = process.argv.slice(2);
const eyeline = new Client(url);

const job = await eyeline.submit(new Uint8Array(await readFile(path)), { ref: "example", meta: { program: "js" } });
const result = await eyeline.wait(job, 30);
console.log(result.status, result.classifications.map((found) => found.label).join(" "));

for await (const event of eyeline.events({ after: 0, kinds: ["result"] })) {
  if (event.body.id !== job.id) continue;
  console.log("event", event.seq, event.body.status);
  break;
}
