// The words of a search while one is being written. Pure; stores/results/search.py reads them whole.
// @ts-check

/** A word that is written to its end: a value that begins with a quote ends with one, any other ends with a blank. */
const WHOLE = /\s*(?:[a-z]+:"(?:[^"\\]|\\.)*"(?=\s)|(?![a-z]+:")\S+(?=\s))/y;

/** @param {string} name @param {string} value a value with blanks stands in quotes */
export const token = (name, value) => (/[\s"]/.test(value) ? `${name}:"${value.replace(/[\\"]/g, "\\$&")}"` : `${name}:${value}`);

/**
 * The last word: where it begins, and its value as far as it goes, without quotes; null before the colon.
 * @param {string} text @returns {{start: number, name: string, value: string | null}}
 */
export function writing(text) {
  let end = 0;
  for (WHOLE.lastIndex = 0; WHOLE.test(text); ) end = WHOLE.lastIndex;
  const word = text.slice(end).trimStart();
  const colon = word.indexOf(":");
  const start = text.length - word.length;
  if (colon < 0) return { start, name: word, value: null };
  const value = word.slice(colon + 1);
  const plain = value.startsWith('"') ? value.slice(1).replace(/\\(.)|"$/g, "$1") : value;
  return { start, name: word.slice(0, colon), value: plain };
}
