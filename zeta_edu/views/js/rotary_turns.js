// The numbers of the rotary view, in the browser's float64: hands, angles between them, products.

export const PAIRINGS = ["half-split", "interleaved"];
const WHOLE_TURN = 2 * Math.PI;
const MOST_ANGLE_COLUMNS = 256; // of the map
const CURVE_REACH = 128; // distances to each side of the curve's middle

export class Turns {
  constructor({ dim, length }, { queries, keys }) {
    Object.assign(this, { dim, length, queries, keys, half: dim / 2 });
    this.columns = Math.min(length, MOST_ANGLE_COLUMNS);
  }

  // What holds whatever the two positions are.
  use({ base, pairing, query, key }) {
    const { dim, half } = this;
    this.speeds = Array.from({ length: half }, (_, i) => base ** ((-2 * i) / dim));
    this.pairing = pairing;
    const paired = (vectors, row, way) =>
      this.speeds.map((_, i) => this.members(i, way).map((feature) => vectors[row * dim + feature]));
    this.pairs = Object.fromEntries(
      PAIRINGS.map((way) => [way, [paired(this.queries, query, way), paired(this.keys, key, way)]]),
    );
    this.longest = Math.max(...this.pairs[pairing].flat().map((pair) => Math.hypot(...pair))) || 1;
  }

  other() {
    return PAIRINGS.find((way) => way !== this.pairing);
  }

  // The two features of a pair.
  members(i, pairing = this.pairing) {
    return pairing === "half-split" ? [i, i + this.half] : [2 * i, 2 * i + 1];
  }

  // Where all hands point, the query's at m and the key's at n: [first feature, second feature] each.
  hands(m, n, pairing = this.pairing) {
    const at = (position) => (pair, i) => turnPair(pair, position * this.speeds[i]);
    const [queries, keys] = this.pairs[pairing];
    return [queries.map(at(m)), keys.map(at(n))];
  }

  // Each pair's share of q·k with the query at m and the key at n.
  parts(m, n, pairing = this.pairing) {
    const [queries, keys] = this.hands(m, n, pairing);
    return queries.map(([first, second], i) => first * keys[i][0] + second * keys[i][1]);
  }

  product(m, n, pairing = this.pairing) {
    return this.parts(m, n, pairing).reduce((sum, part) => sum + part, 0);
  }

  // The distances that are drawn: all, or those around one; they move on in steps of half a reach.
  distances(around) {
    const last = this.length - 1;
    const middle = last <= CURVE_REACH ? 0 : Math.round(around / (CURVE_REACH / 2)) * (CURVE_REACH / 2);
    const reach = Math.min(last, CURVE_REACH);
    const [low, high] = [Math.max(-last, middle - reach), Math.min(last, middle + reach)];
    return Array.from({ length: high - low + 1 }, (_, i) => low + i);
  }

  // The positions that a column of the map stands for: the first, and how many.
  span(column) {
    const edge = (at) => Math.floor((at * this.length) / this.columns);
    return [edge(column), edge(column + 1) - edge(column)];
  }

  // The mean cosine of a pair's angle over the positions of a column: a sum of cosines with
  // equal steps between their angles is the middle one times sin(count·step/2) / sin(step/2).
  cosine(pair, column) {
    const [first, count] = this.span(column);
    const speed = this.speeds[pair];
    const spread = Math.sin((count * speed) / 2) / (count * Math.sin(speed / 2));
    return Math.cos((first + (count - 1) / 2) * speed) * spread;
  }

  cosines() {
    return this.speeds.flatMap((_, pair) => Array.from({ length: this.columns }, (_, c) => this.cosine(pair, c)));
  }
}

function turnPair([first, second], angle) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return [first * cos - second * sin, second * cos + first * sin];
}

// An angle brought between −π and π.
export function wrapAngle(angle) {
  return angle - WHOLE_TURN * Math.round(angle / WHOLE_TURN);
}

// Where the pointer is seen from the middle of an element, in the same way.
export function pointerBearing(event, element) {
  const { left, top, width, height } = element.getBoundingClientRect();
  return Math.atan2(event.clientX - left - width / 2, top + height / 2 - event.clientY);
}

// Where a hand points, in radians clockwise from the top: the first feature is up, the second right.
export function bearing([first, second]) {
  return Math.atan2(second, first);
}
