// What the view of query-key normalisation says: its title, and a sentence about the cursor.
import { digits, percent } from "./words.js";
import { qkAverage, qkLargest } from "./qknorm_math.js";

// Over how many keys even attention has this entropy.
function keysLike(entropy) {
  const count = digits(2 ** entropy, 2);
  return `${count} key${count === "1" ? "" : "s"}`;
}

export function qkFinding({ now, measured, attention, state }) {
  const entropy = qkAverage(measured.entropies);
  let spread = `attention spreads as if over ${keysLike(entropy)}`;
  if (entropy < state.hard) spread = "attention falls onto one key";
  else if (now.normalise && entropy > state.even * attention.uniform) spread = "attention is all but uniform";
  if (now.normalise) {
    const bound = digits(now.qk_scale * attention.gain);
    return `With normalisation no logit leaves ±${bound}, however large the activations: ${spread}`;
  }
  const [grown, larger] = [digits(now.activations), digits(now.activations ** 2)];
  return now.activations === 1
    ? `Without normalisation logits grow with the square of the activations: ${spread}`
    : `Without normalisation activations ×${grown} make logits ×${larger}: ${spread}`;
}

function barSentence({ edges, shares, measured }, bar) {
  const [from, to] = [digits(edges[bar]), digits(edges[bar + 1])];
  let where = `lie between ${from} and ${to}`;
  if (bar === 0) where = `are below ${to}, beyond this picture`;
  if (bar === shares.length - 1) where = `are ${from} or more, beyond this picture`;
  return `${percent(shares[bar])} of the logits ${where}. The largest has the size ${digits(measured.largest)}.`;
}

function curveSentence({ state, curve, normalised }, index) {
  const spread = (entropy) => `${digits(entropy)} bits, as if over ${keysLike(entropy)}`;
  return (
    `Activations ×${digits(state.curve[index])}: without normalisation ${spread(curve[index])}; with it ` +
    `${spread(normalised)}. Click, or press Enter, to set these activations.`
  );
}

function headSentence({ measured, attention }, head) {
  const size = attention.rows * attention.columns;
  const largest = qkLargest(measured.logits.subarray(head * size, (head + 1) * size));
  const entropy = measured.entropies[head];
  return (
    `Head ${head}: ${digits(entropy)} bits, as if each query spread evenly over ${keysLike(entropy)}. ` +
    `Its largest logit has the size ${digits(largest)}. Click, or press Enter, to see its weights.`
  );
}

function cellWords({ measured, attention, now: { head } }, { row, column }) {
  const { rows, columns } = attention;
  const at = (head * rows + row) * columns + column;
  if (measured.logits[at] === -Infinity) return `Query ${row} cannot see key ${column}, which comes later.`;
  return (
    `Head ${head}, query ${row}: key ${column} has the logit ${digits(measured.logits[at])} ` +
    `and gets ${percent(measured.weights[at])} of the attention.`
  );
}

function qkGeneral({ now, measured, attention }) {
  const how = now.normalise
    ? `A logit is qk_scale = ${digits(now.qk_scale)} times the product of a query and a key of length 1, times ` +
      "their learned scales. Switch the normalisation off and let the activations grow."
    : `A logit is q·k / √${attention.dim}: when queries and keys grow by a factor, it grows by the factor squared.`;
  return (
    `${how} The largest has the size ${digits(measured.largest)}; attention has ` +
    `${digits(qkAverage(measured.entropies))} of at most ${digits(attention.uniform)} bits.`
  );
}

const ABOUT = { logits: barSentence, curve: curveSentence, heads: headSentence, weights: cellWords };

export const qkSentence = (view) =>
  view.cursor ? ABOUT[view.cursor.part](view, view.cursor.place) : qkGeneral(view);
