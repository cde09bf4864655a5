// Numbers in words, the same way in all views.

const RAISED = Array.from("⁰¹²³⁴⁵⁶⁷⁸⁹");

const raised = (number) => Array.from(String(number), (sign) => RAISED[sign] ?? "⁻").join("");

// 1.2e-7 as 1.2·10⁻⁷, everything else with at most so many digits and a real minus sign.
export function digits(value, precision = 3) {
  if (Number.isNaN(value)) return "not a number";
  if (!Number.isFinite(value)) return value > 0 ? "infinity" : "minus infinity";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) {
    const [mantissa, exponent] = value.toExponential(precision - 1).split("e");
    const factor = String(Number(mantissa)).replace("-", "−");
    const power = `10${raised(Number(exponent))}`;
    return factor === "1" ? power : `${factor}·${power}`;
  }
  const rounded = Number(value.toPrecision(precision));
  return (size >= 1e4 ? grouped(rounded) : String(rounded)).replace("-", "−");
}

export const percent = (share, places = 1) => `${(100 * share).toFixed(places)}\u00a0%`;

// 1,234,567 and, with a unit, 1.2 MB.
export const grouped = (count) => (Math.round(count) || 0).toLocaleString("en-US");

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (count >= 1000 && at < units.length - 1) [count, at] = [count / 1000, at + 1];
  return `${at ? digits(count) : count}\u00a0${units[at]}`;
}

export const plural = (count, word, many = `${word}s`) => `${grouped(count)} ${count === 1 ? word : many}`;
