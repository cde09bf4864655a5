// Mask and softmax, computed here for whatever the controls say: zeta_edu.attention in small.

// Which positions hold padding.
export function isPadding({ padding, padding_side: side }, position, keys) {
  return side === "left" ? position < padding : position >= keys - padding;
}

// The scores of the queries after `past` positions, which of their keys they may see, and their
// weights. The last query stands at the last key, so the first of them stands at position `past`.
export function maskedRows(scores, keys, first, now) {
  const from = (now.past - first) * keys;
  const shown = scores.subarray(from);
  const rows = shown.length / keys;
  const visible = Array.from(shown, (_, i) => {
    const [position, key] = [now.past + Math.floor(i / keys), i % keys];
    return !isPadding(now, key, keys) && !(now.causal && key > position);
  });
  const weights = new Float64Array(shown.length);
  const counts = [];
  for (let row = 0; row < rows; row++) {
    const line = Array.from({ length: keys }, (_, key) => row * keys + key);
    counts.push(weighRow(shown, line.filter((i) => visible[i]), weights));
  }
  return { scores: shown, keys, rows, visible, weights, counts };
}

// Softmax over the cells that are seen; all others keep their weight of 0.
function weighRow(scores, seen, weights) {
  const most = seen.reduce((best, i) => Math.max(best, scores[i]), -Infinity);
  const powers = seen.map((i) => Math.exp(scores[i] - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  seen.forEach((i, at) => (weights[i] = powers[at] / sum));
  return seen.length;
}

export function rowSums({ weights, rows, keys }) {
  return Float64Array.from({ length: rows }, (_, row) =>
    weights.subarray(row * keys, (row + 1) * keys).reduce((total, weight) => total + weight, 0),
  );
}
