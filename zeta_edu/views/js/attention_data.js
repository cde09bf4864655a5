// The numbers behind the picture: where a weight lies, its scale, and the largest of many.

const NICE = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1];
const LOG_FLOOR = 1e-4;

export class Matrices {
  constructor(state, arrays) {
    Object.assign(this, { state, arrays, scales: new Map() });
    [this.layers, this.heads, this.queries, this.keys] = state.shape;
  }

  start(layer, head) {
    return (layer * this.heads + head) * this.queries * this.keys;
  }

  at({ stage, layer, head }, query, key) {
    return this.arrays[stage][this.start(layer, head) + query * this.keys + key];
  }

  // What a query gives to every key or, the other way, what a key gets from every query.
  line(where, token, direction) {
    if (direction === "query") {
      return Float32Array.from({ length: this.keys }, (_, key) => this.at(where, token, key));
    }
    return Float32Array.from({ length: this.queries }, (_, query) => this.at(where, query, token));
  }

  // Nothing to draw: a weight of exactly zero, or a score that a mask has sent to minus infinity.
  blank(stage, value) {
    return value === -Infinity || (stage === "softmax" && value === 0);
  }

  // The range of the colours for one head. Weights start at 0 and end at a round number that at
  // most one in two hundred exceeds: the first token of a causal model can only look at itself, and
  // its weight of 1 would otherwise bleach all others.
  scale({ stage, layer, head, scale }) {
    const name = [stage, layer, head].join();
    if (!this.scales.has(name)) {
      const from = this.start(layer, head);
      const values = this.arrays[stage].subarray(from, from + this.queries * this.keys);
      this.scales.set(name, stage === "softmax" ? { low: 0, high: top(values) } : range(values));
    }
    const linear = this.scales.get(name);
    if (stage !== "softmax" || scale === "linear") return linear;
    return { low: LOG_FLOOR, high: linear.high, log: true };
  }

  // The largest value in each of rows × columns tiles of a window: nothing bright gets lost.
  pool({ stage, layer, head }, { q0, q1, k0, k1 }, rows, columns) {
    const values = this.arrays[stage];
    const from = this.start(layer, head);
    const pooled = new Float32Array(rows * columns);
    const edge = (i, count, low, high) => low + Math.floor((i * (high - low)) / count);
    for (let row = 0; row < rows; row++) {
      const [top, bottom] = [edge(row, rows, q0, q1), edge(row + 1, rows, q0, q1)];
      for (let column = 0; column < columns; column++) {
        const [left, right] = [edge(column, columns, k0, k1), edge(column + 1, columns, k0, k1)];
        let most = -Infinity;
        for (let query = top; query < bottom; query++) {
          const line = from + query * this.keys;
          for (let i = line + left; i < line + right; i++) {
            const value = values[i];
            if (value > most || value !== value) most = value;
            if (value !== value) break;
          }
        }
        pooled[row * columns + column] = most;
      }
    }
    return pooled;
  }
}

function top(values) {
  const counts = new Uint32Array(101);
  let seen = 0;
  for (let i = 0; i < values.length; i++) {
    if (values[i] > 0) {
      seen++;
      counts[Math.min(100, (values[i] * 100) | 0)]++;
    }
  }
  let above = 0;
  let percent = 100;
  while (percent > 0 && above + counts[percent] <= 0.005 * seen) above += counts[percent--];
  return NICE.find((nice) => nice >= (percent + 1) / 100) ?? 1;
}

function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (Number.isFinite(value)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low > high ? { low: 0, high: 1 } : { low, high };
}

// Which of the 256 shades a value takes.
export function shade(value, { low, high, log }) {
  const share = log
    ? Math.log(Math.max(value, low) / low) / Math.log(high / low)
    : (value - low) / (high - low || 1);
  return Math.round(255 * Math.min(1, Math.max(0, share)));
}

// Values as pixels: shades, nothing for blanks, a colour of its own for what is not a number.
export function pixels(matrices, where, values, columns, colours) {
  const image = new ImageData(columns, values.length / columns);
  const out = new Uint32Array(image.data.buffer);
  const pack = ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red;
  const table = colours.shades.map(pack);
  const bad = pack([1, 3, 5].map((at) => parseInt(colours.roles.not_a_number.slice(at, at + 2), 16)));
  const scale = matrices.scale(where);
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value !== value) out[i] = bad;
    else if (!matrices.blank(where.stage, value)) out[i] = table[shade(value, scale)];
  }
  return image;
}
