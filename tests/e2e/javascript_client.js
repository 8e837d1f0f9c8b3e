// @ts-check
// What test_javascript.py runs against a gateway; it prints what came of it as JSON, and asks for a cut with a line "cut".
import process from "node:process";
import { Client, Refused, WaitTimeout } from "../../clients/javascript/eyeline.js";

const [scene, url, picture] = process.argv.slice(2);
const eyeline = new Client(url);
const image = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
/** @param {number} number a picture of its own: bytes after a JPEG's end are no matter */
const another = (number) => Uint8Array.from([...image, number]);

/** @type {Record<string, () => Promise<any>>} */
const SCENES = {
  async submit() {
    const job = await eyeline.submit(image, { ref: "order 7", meta: { line: "3" }, captured_at: new Date(0) });
    const result = await eyeline.wait(job, 20);
    const shown = await eyeline.picture(job.id, { overlay: true, width: 32 });
    const same = (await eyeline.result(job.id)).id === job.id && (await eyeline.job(job.id)).status === result.status;
    const hold = await eyeline.placeHold("case 12", { ref: "order 7", since: new Date(0) });
    const held = (await eyeline.holds()).map((each) => [each.id === hold.id, each.ref, each.since]);
    await eyeline.liftHold(hold.id, "case closed");
    const left = [(await eyeline.holds()).length, (await eyeline.holds({ lifted: true })).length];
    return { job, result, shown: shown.size, same, held, left };
  },
  async refused() {
    const error = await eyeline.submit(image, { pipeline: "parcel" }).catch((error) => error);
    const late = await eyeline.wait(await eyeline.submit(image), 0.2).catch((error) => error);
    return { refused: error instanceof Refused, status: error.status, code: error.code, late: late instanceof WaitTimeout };
  },
  async full() {
    return [await eyeline.submit(another(1)), await eyeline.submit(another(2))];
  },
  async events() {
    const sent = [(await eyeline.submit(another(0))).id];
    const told = [];
    for await (const event of eyeline.events({ after: 0, kinds: ["result"] })) {
      told.push(event.body.id);
      if (told.length === 4) break;
      console.log("cut");
      sent.push((await eyeline.submit(another(told.length))).id);
    }
    const listed = [];
    for await (const result of eyeline.results({ limit: 3 })) listed.push(result.id);
    return { sent, told, listed };
  },
};

console.log(JSON.stringify(await SCENES[scene]()));
