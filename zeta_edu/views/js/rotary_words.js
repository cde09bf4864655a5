// The sentences of the rotary view.
import { h } from "./runtime.js";
import { digits, grouped, plural } from "./words.js";

const atQuery = (text) => h("b", { class: "asks" }, text);
const atKey = (text) => h("b", { class: "answers" }, text);

export function distanceInWords(apart) {
  if (!apart) return "With query and key at one position";
  return `With the query ${plural(Math.abs(apart), "position")} ${apart > 0 ? "after" : "before"} the key`;
}

// The two as they stand, the two moved together, and one moved alone.
export function togetherSentence({ turns, now, shown, state }) {
  const { m, n } = now;
  const last = state.length - 1;
  const [down, up] = [Math.min(m, n), last - Math.max(m, n)];
  const step = up >= down ? up : -down; // the farthest that both can go
  const alone = m < last ? 1 : -1;
  const words = ["Query at ", atQuery(grouped(m)), ", key at ", atKey(grouped(n))];
  words.push(`: q·k = ${digits(shown.product, 5)}.`);
  if (step) {
    const product = digits(turns.product(m + step, n + step), 5);
    words.push(" Moved together to ", atQuery(grouped(m + step)), " and ", atKey(grouped(n + step)));
    words.push(`, still ${grouped(Math.abs(m - n))} apart, it is ${product}.`);
  }
  if (last) {
    const product = digits(turns.product(m + alone, n), 5);
    words.push(" With the query alone moved to ", atQuery(grouped(m + alone)), `, it would be ${product}.`);
  }
  return words;
}

export function clockSentence({ turns, now, shown }, pair) {
  const speed = turns.speeds[pair];
  const between = shown.between[pair];
  return [
    `Pair ${pair}, features ${turns.members(pair).join(" and ")}: it turns ${digits(speed)} rad with each position, `,
    `once round in ${digits((2 * Math.PI) / speed)} positions. The query's hand has turned `,
    atQuery(`${digits(now.m * speed, 4)} rad`),
    ", the key's ",
    atKey(`${digits(now.n * speed, 4)} rad`),
    `. Between them lies ${digits(Math.abs(between))} rad, with cosine ${digits(Math.cos(between))}; `,
    `the pair's share of q·k is ${digits(shown.parts[pair])}.`,
  ];
}

export function angleSentence({ turns }, { pair, column }) {
  const [first, count] = turns.span(column);
  const value = digits(turns.cosine(pair, column));
  if (count > 1) {
    const last = first + count - 1;
    return `Pair ${pair} at the positions ${grouped(first)} to ${grouped(last)}: on average the cosine is ${value}.`;
  }
  const angle = first * turns.speeds[pair];
  const rounds = digits(angle / (2 * Math.PI));
  const place = `Pair ${pair} at position ${grouped(first)} has turned by ${digits(angle, 4)} rad`;
  return `${place}, ${rounds} of a round: cosine ${value}. Click to put the query here.`;
}

export function distanceSentence({ turns, curve, now }, index) {
  const apart = curve.x[index];
  const other = turns.other();
  const here = apart === now.m - now.n ? " The two stand so now." : " Click to move the query there.";
  return (
    `${distanceInWords(apart)}, q·k = ${digits(curve.y[index], 5)} wherever they stand; with ${other} pairs ` +
    `it would be ${digits(turns.product(apart, 0, other), 5)}.${here}`
  );
}
