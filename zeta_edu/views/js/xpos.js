// The xPos view: curves against distance, what is left of each pair, and where the factors overflow.
import { choice, drop, h } from "./runtime.js";
import { Frame, mount } from "./frame.js";
import { slider } from "./controls.js";
import { digits, grouped } from "./words.js";
import { Plot, ticks } from "./plot.js";
import { xposBands, xposCurves, xposFrequencies, xposModelCurves, xposOverflows, xposZetas } from "./xpos_math.js";
import { xposGroupName, xposHeading, xposSentence } from "./xpos_words.js";

const XPOS_SAMPLES = 1024; // distances of the curves, at most
const XPOS_GROUPS = 4; // of pairs, at most
const XPOS_STEPS = 400; // of the factors
const XPOS_WINDOW = 16; // scale bases that share an origin in the package

class XPosView extends Frame {
  build() {
    const { ranges, curves, model } = this.state;
    const pick = (name) => (value) => this.set({ [name]: value });
    // A slider stops at numbers that can be read: three digits.
    const slide = (name, label, show = digits) => {
      const [low, high] = ranges[name];
      const round = (value) => pick(name)(Number(value.toPrecision(3)));
      return slider(label, { low, high, log: true, show }, this.now[name], round);
    };
    const positions = (value) => `${grouped(value)} positions`;
    const options = Object.entries(curves).map(([name, { label }]) => [name, label]);
    const controls = {
      curve: choice("Curve", options, this.now.curve, pick("curve")),
      length: slide("length", "Length", positions),
      base: slide("base", "Base", grouped),
      gamma: slide("gamma", "γ"),
      scale_base: slide("scale_base", "Scale base", positions),
      ...(model && { head: drop("Head", model.heads, this.now.head, pick("head")) }),
    };
    const onpoint = (found) => (at) => this.point(at === null ? null : found(at));
    this.plot = new Plot(this, {
      title: "What is left of a product",
      onpoint: onpoint((at) => ({ at, distance: this.distances[at] })),
    });
    this.stack = new Plot(this, {
      title: "Most possible with xPos: what each group of pairs adds",
      height: 290,
      onpoint: onpoint((at) => ({ at, distance: this.distances[at], bands: true })),
    });
    this.factors = new Plot(this, {
      title: "The factor of a key's fastest pair",
      height: 290,
      onpoint: onpoint((at) => ({ position: Math.round(this.positions[at]) })),
    });
    this.note = h("p", { class: "note" });
    const below = h("div", { class: "below" }, this.stack.node, h("div", {}, this.factors.node, this.note));
    return { controls, body: [this.plot.node, this.readout, below] };
  }

  legal(wanted) {
    const { ranges, model } = this.state;
    const within = (name) => Math.max(ranges[name][0], Math.min(ranges[name][1], wanted[name]));
    return {
      ...wanted,
      base: within("base"),
      gamma: within("gamma"),
      scale_base: within("scale_base"),
      length: Math.round(within("length")),
      ...(model && { head: Math.max(0, Math.min(model.heads - 1, wanted.head)) }),
    };
  }

  draw() {
    const { dim, limits } = this.state;
    const { base, gamma, scale_base: scaleBase, length } = this.now;
    this.parts = { frequencies: xposFrequencies(dim, base), zetas: xposZetas(dim, gamma), scaleBase };
    this.overflows = xposOverflows(limits, this.parts.zetas[0], scaleBase);
    const step = Math.max(1, Math.ceil(length / XPOS_SAMPLES));
    this.distances = Array.from({ length: Math.floor(length / step) + 1 }, (_, i) => i * step);
    this.drawCurves();
    this.drawStack();
    this.drawFactors();
  }

  drawCurves() {
    const { now, parts, state, distances } = this;
    this.curves = xposCurves(now.curve, distances, parts);
    const { mask, output } = this.colours.roles;
    const line = (name, y, colour, width) => ({ name, x: distances, y, colour, width });
    const { rope, xpos } = this.curves;
    const series = [line("rotation alone (RoPE)", rope, mask, 1), line("xPos", xpos, output, 2.5)];
    if (state.model) series.push(...this.headSeries());
    const least = Math.min(0, ...series.flatMap(({ y }) => Array.from(y)));
    this.plot.draw({
      x: { label: "distance between query and key, positions", low: 0, high: now.length, format: grouped },
      y: { label: state.curves[now.curve].axis, low: Math.floor(least * 5) / 5, high: 1 },
      series,
    });
  }

  // The products of the chosen head, averaged by distance.
  headSeries() {
    const { distances, count } = this.state.model;
    const { mask, output } = this.colours.roles;
    const parts = this.arrays.products.subarray(this.now.head * count, (this.now.head + 1) * count);
    this.own = { distances, curves: xposModelCurves(distances, parts, this.parts) };
    const dots = (name, y, colour) => ({ name, kind: "dots", x: distances, y, colour });
    const { rope, xpos } = this.own.curves;
    return [
      { ...dots("this head's q·k, rotation alone", rope, mask), radius: 4, hollow: true },
      { ...dots("this head's q·k, xPos", xpos, output), radius: 2 },
    ];
  }

  // Slow pairs lie at the bottom: they last.
  drawStack() {
    const { parts, distances } = this;
    const half = parts.zetas.length;
    const count = Math.min(XPOS_GROUPS, half);
    const edge = (i) => Math.floor((i * half) / count);
    this.groups = Array.from({ length: count }, (_, i) => [edge(i), edge(i + 1) - 1]);
    this.bands = xposBands(distances, this.groups, parts);
    let from = distances.map(() => 0);
    const series = this.groups.map((_, i) => i).reverse().map((i) => {
      const y = from.map((height, at) => height + this.bands[i][at]);
      const shade = this.colours.shades[Math.round(60 + (180 * (i + 1)) / count)];
      const band = { kind: "band", alpha: 1, x: distances, y, from, colour: `rgb(${shade})` };
      from = y;
      return { name: xposGroupName(this.groups[i], parts), ...band };
    });
    this.stack.draw({
      x: { label: "distance, positions", low: 0, high: this.now.length, format: grouped },
      y: { label: "largest share", low: 0, high: 1 },
      series: series.reverse(), // named from above, as they lie
    });
  }

  drawFactors() {
    const { zetas, scaleBase } = this.parts;
    const [half, brain, single] = this.overflows.map(({ position }) => position);
    const last = 1.12 * single;
    const x = (this.positions = Array.from({ length: XPOS_STEPS + 1 }, (_, i) => (i * last) / XPOS_STEPS));
    const factor = (position) => zetas[0] ** (-position / scaleBase);
    const moving = x.map((position) => factor(position % (XPOS_WINDOW * scaleBase)));
    const { quiet, text, roles } = this.colours;
    const across = { low: 0, high: last, format: grouped };
    const windows = `a new origin every ${XPOS_WINDOW} scale bases`;
    this.factors.draw({
      x: { ...across, label: "position of the key", ticks: ticks(across, 4).filter((at) => at < 0.95 * last) },
      y: { label: "factor", low: 1, high: 1e44, log: true },
      series: [
        { name: "one origin, at 0", x, y: x.map(factor), colour: roles.key },
        { name: windows, x, y: moving, colour: quiet, dash: [5, 3] },
      ],
      marks: [{ x: half, text: "float16", colour: text }, { x: brain, text: "bfloat16, float32", colour: text }],
    });
    this.note.textContent =
      "With one origin at 0 the factor is infinite from this position on: " +
      `${grouped(half)} in float16, ${grouped(brain)} in bfloat16, ${grouped(single)} in float32.`;
  }

  // Both plots over distance carry the cursor.
  pointed() {
    for (const plot of [this.plot, this.stack]) plot.mark(this.cursor?.at ?? null);
  }

  heading() {
    const all = this.parts.zetas.map((zeta) => zeta ** (this.now.length / this.parts.scaleBase));
    return xposHeading(all.reduce((sum, one) => sum + one) / all.length, this.now.length);
  }

  sentence() {
    return xposSentence(this);
  }

  drawn() {
    const list = ({ rope, xpos }) => ({ rope: Array.from(rope), xpos: Array.from(xpos) });
    return {
      distances: this.distances,
      ...list(this.curves),
      groups: this.groups,
      bands: this.bands.map((band) => Array.from(band)),
      overflows: Object.fromEntries(this.overflows.map(({ name, position }) => [name, position])),
      factors: this.factors.series[0].y,
      own: this.own ? { distances: this.own.distances, ...list(this.own.curves) } : null,
    };
  }
}

const widget = { render: mount(XPosView) };
export default widget;
