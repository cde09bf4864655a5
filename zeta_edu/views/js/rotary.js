// The rotary view: clocks, the map of their angles, and q·k against the distance.
import { choice, drop, h } from "./runtime.js";
import { digits, grouped } from "./words.js";
import { Frame, mount } from "./frame.js";
import { slider, toggle } from "./controls.js";
import { Plot } from "./plot.js";
import { bearing, PAIRINGS, Turns, wrapAngle } from "./rotary_turns.js";
import { Clocks } from "./rotary_clocks.js";
import { AngleMap } from "./rotary_map.js";
import { angleSentence, clockSentence, distanceSentence, distanceInWords, togetherSentence } from "./rotary_words.js";

const CURVE_CONTROLS = ["base", "pairing", "query", "key"];

class RotaryView extends Frame {
  prepare() {
    this.turns = new Turns(this.state, this.arrays);
  }

  build() {
    const pick = (name) => (value) => this.set({ [name]: value });
    const { now, state, turns } = this;
    const positions = { low: 0, high: state.length - 1, step: 1, show: grouped };
    const [low, high] = state.bases;
    const rows = (which) => this.arrays[which].length / turns.dim;
    const controls = {
      m: slider("query at m", positions, now.m, pick("m")),
      n: slider("key at n", positions, now.n, pick("n")),
      together: toggle("move both together", now.together, pick("together")),
      pairing: choice("Pairs", PAIRINGS.map((way) => [way, way]), now.pairing, pick("pairing")),
      base: slider("base", { low, high, log: true, show: (base) => digits(base) }, now.base, pick("base")),
    };
    for (const [name, label, count] of [["query", "Query", rows("queries")], ["key", "Key", rows("keys")]]) {
      if (count > 1) controls[name] = drop(`${label} vector`, count, now[name], pick(name));
    }
    turns.use(now);
    this.clocks = new Clocks(this);
    this.map = new AngleMap(this);
    this.plot = new Plot(this, {
      title: "q·k at each distance",
      height: 246,
      onpoint: (index) => this.point(index === null ? null : { on: "curve", index }),
      onpick: (index) => this.keepApart(this.curve.x[index]),
    });
    const below = h("div", { class: "columns" }, this.map.node, this.plot.node);
    return { controls, body: [this.clocks.node, this.clocks.legend, below] };
  }

  // Positions are whole and inside; moved together, one takes the other along.
  legal(wanted) {
    const last = this.state.length - 1;
    const inside = (value) => Math.max(0, Math.min(last, Math.round(value)));
    const next = { ...wanted, m: inside(wanted.m), n: inside(wanted.n) };
    const before = this.now;
    if (!before?.together || !wanted.together) return next;
    const [query, key] = [next.m - before.m, next.n - before.n];
    if (query && key) return next;
    const step = this.possible(query || key, before);
    return { ...next, m: before.m + step, n: before.n + step };
  }

  // As much of a step as leaves both positions inside.
  possible(step, { m, n } = this.now) {
    return Math.max(-Math.min(m, n), Math.min(this.state.length - 1 - Math.max(m, n), step));
  }

  move(name, step) {
    this.set({ [name]: this.now[name] + step });
  }

  shift(step) {
    const possible = this.possible(step);
    this.set({ m: this.now.m + possible, n: this.now.n + possible });
  }

  // The query goes to where it is so far from the key; where there is no such place, the key moves.
  keepApart(distance) {
    const last = this.state.length - 1;
    const n = Math.max(0, Math.min(last, this.now.n, last - distance));
    const key = Math.max(n, -distance);
    this.set({ m: key + distance, n: key, together: false });
  }

  draw(changed) {
    const { turns, now } = this;
    const anew = !this.curve || changed.some((name) => CURVE_CONTROLS.includes(name));
    if (anew) turns.use(now);
    this.show();
    this.clocks.draw();
    if (anew || changed.length === this.shared.length) this.map.draw();
    else this.map.paint();
    if (changed.length) this.drawCurve(anew);
    this.plot.mark(this.cursor?.on === "curve" ? this.cursor.index : null);
  }

  // The numbers for the two positions.
  show() {
    const { turns, now } = this;
    const [queries, keys] = turns.hands(now.m, now.n);
    const between = queries.map((hand, i) => wrapAngle(bearing(hand) - bearing(keys[i])));
    this.shown = { queries, keys, between, parts: turns.parts(now.m, now.n), product: turns.product(now.m, now.n) };
  }

  drawCurve(anew) {
    const { turns, now, colours } = this;
    const apart = now.m - now.n;
    const x = turns.distances(apart);
    if (anew || x[0] !== this.curve.x[0] || x.length !== this.curve.x.length) {
      const along = (pairing) => x.map((distance) => turns.product(distance, 0, pairing));
      this.curve = { x, y: along(turns.pairing), others: along(turns.other()) };
    }
    const { y, others } = this.curve;
    const extremes = [...y, ...others, 0];
    const [low, high] = [Math.min(...extremes), Math.max(...extremes)];
    const room = 0.08 * (high - low || 1);
    this.plot.draw({
      x: { label: "m − n, positions", low: x[0], high: x[x.length - 1], format: (at) => digits(at, 7) },
      y: { label: "q·k", low: low - room, high: high + room },
      series: [
        { name: turns.pairing, x, y, colour: colours.text },
        { name: `the same q and k, ${turns.other()}`, x, y: others, colour: colours.roles.mask, dash: [5, 4] },
        { x: [apart], y: [this.shown.product], kind: "dots", colour: colours.text, radius: 5 },
      ],
      marks: [{ x: apart, text: `m − n = ${digits(apart, 7)}`, colour: colours.quiet }],
    });
  }

  // The pair that the cursor is on, in a clock or in the map.
  pair() {
    return this.cursor?.pair ?? null;
  }

  heading() {
    const place = distanceInWords(this.now.m - this.now.n);
    return `${place}, q·k is ${digits(this.shown.product, 4)} wherever they stand`;
  }

  sentence() {
    const { cursor } = this;
    if (cursor?.on === "clock") return clockSentence(this, cursor.pair);
    if (cursor?.on === "map") return angleSentence(this, cursor);
    if (cursor?.on === "curve" && cursor.index < this.curve.x.length) return distanceSentence(this, cursor.index);
    return togetherSentence(this);
  }

  drawn() {
    const { turns, shown, curve, map, now } = this;
    const members = turns.speeds.map((_, pair) => turns.members(pair));
    return { ...shown, speeds: turns.speeds, members, curve, cosines: map.values, linked: now.together };
  }
}

const widget = { render: mount(RotaryView) };
export default widget;
