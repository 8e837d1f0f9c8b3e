// Numbers and ages as people read them. Pure.
// @ts-check

/** Thin, and a line does not break there. */
const THIN = "\u202f";

/**
 * Narrow spaces between thousands; a small number with so many significant digits.
 * @param {number | null | undefined} value @param {number} [digits]
 */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value) || Math.abs(value) >= 10 ** (digits - 1)) {
    return String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
  }
  return String(Number(value.toPrecision(digits)));
}

/** @param {number | null | undefined} share 0 to 1 */
export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)}%`);

/** @param {number | null} share 0 to 1, to a tenth of a percent */
export const tenths = (share) => (share === null ? "–" : `${(share * 100).toFixed(1)}${THIN}%`);

/**
 * An age as a number and its unit: `6 s`, `3 min`, `2 h`, `4 d`.
 * @param {number} seconds
 */
export function age(seconds) {
  const past = Math.max(0, seconds);
  if (past < 100) return `${Math.floor(past)}${THIN}s`;
  if (past < 100 * 60) return `${Math.floor(past / 60)}${THIN}min`;
  if (past < 48 * 3600) return `${Math.floor(past / 3600)}${THIN}h`;
  return `${Math.floor(past / 86_400)}${THIN}d`;
}

/**
 * A length of time on a clock: `0:41`, `12:05`.
 * @param {number} seconds
 */
export function lapse(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** @param {number} count at most ten thousand are counted */
export const capped = (count) => (count >= 10_000 ? `10${THIN}000+` : number(count));
