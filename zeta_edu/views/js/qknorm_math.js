// Logits, softmax and entropy of queries and keys whose activations have grown by a factor.

const TINIEST = 1e-12; // a vector shorter than this is divided by this, as torch's normalize does

export class QKAttention {
  // `queries` (heads × queries × dim) and `keys` (kv_heads × keys × dim) are flat; `scales` are the
  // learned factors of the normalised queries and keys.
  constructor({ queries: [heads, rows, dim], keys: [kvHeads, columns], causal, scales }, queries, keys) {
    Object.assign(this, { heads, rows, columns, dim, group: heads / kvHeads });
    this.seen = Array.from({ length: rows }, (_, row) => (causal ? columns - rows + row + 1 : columns));
    this.uniform = qkAverage(this.seen.map(Math.log2));
    this.gain = Math.max(...scales[0].map((scale, i) => Math.abs(scale * scales[1][i])));
    this.plain = this.dots(queries, keys, dim ** -0.5);
    this.cosines = this.dots(qkUnits(queries, scales[0]), qkUnits(keys, scales[1]), 1);
  }

  // query · key × factor for every query and key; minus infinity where a query may not look.
  dots(queries, keys, factor) {
    const { heads, rows, columns, dim, group } = this;
    const found = new Float64Array(heads * rows * columns).fill(-Infinity);
    for (let row = 0; row < heads * rows; row++) {
      const first = Math.floor(row / rows / group) * columns;
      for (let key = 0; key < this.seen[row % rows]; key++) {
        let sum = 0;
        for (let i = 0; i < dim; i++) sum += queries[row * dim + i] * keys[(first + key) * dim + i];
        found[row * columns + key] = factor * sum;
      }
    }
    return found;
  }

  // Logits and weights (heads × queries × keys), the entropies of the heads in bits, and the size
  // of the largest logit. Activations that grow turn no vector, so only the lengths matter.
  measure({ activations, normalise, qk_scale: scale }) {
    const { heads, rows, columns } = this;
    const logits = (normalise ? this.cosines : this.plain).map((dot) => dot * (normalise ? scale : activations ** 2));
    const weights = new Float64Array(logits.length);
    const entropies = new Float64Array(heads);
    for (let row = 0; row < heads * rows; row++) {
      entropies[Math.floor(row / rows)] += qkSoftmax(logits, weights, row * columns, (row + 1) * columns) / rows;
    }
    return { logits, weights, entropies, largest: qkLargest(logits) };
  }
}

// Vectors of length 1, times the learned factors.
function qkUnits(vectors, scales) {
  const dim = scales.length;
  const units = Float64Array.from(vectors);
  for (let from = 0; from < units.length; from += dim) {
    const length = Math.max(Math.hypot(...units.subarray(from, from + dim)), TINIEST);
    for (let i = 0; i < dim; i++) units[from + i] *= scales[i] / length;
  }
  return units;
}

// Writes the weights of logits[from] to logits[end - 1]; returns their entropy in bits.
function qkSoftmax(logits, weights, from, end) {
  let [top, sum, entropy] = [-Infinity, 0, 0];
  for (let at = from; at < end; at++) top = Math.max(top, logits[at]);
  for (let at = from; at < end; at++) sum += weights[at] = Math.exp(logits[at] - top);
  for (let at = from; at < end; at++) {
    weights[at] /= sum;
    if (weights[at] > 0) entropy -= weights[at] * (logits[at] - top - Math.log(sum));
  }
  return entropy / Math.LN2;
}

export const qkAverage = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export const qkLargest = (logits) =>
  logits.reduce((most, logit) => (logit === -Infinity ? most : Math.max(most, Math.abs(logit))), 0);

// The share of logits in each bar from −reach to reach; the first and the last take all beyond.
export function histogramOf(logits, bars, reach) {
  const shares = new Float64Array(bars + 2);
  const seen = logits.filter(Number.isFinite);
  for (const logit of seen) {
    const bar = Math.floor((logit + reach) / ((2 * reach) / bars));
    shares[1 + Math.max(-1, Math.min(bars, bar))] += 1 / seen.length;
  }
  return shares;
}
