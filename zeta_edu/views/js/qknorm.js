// The view of query-key normalisation: the logits, the entropies, and the weights of one head.
import { drop, h } from "./runtime.js";
import { slider, toggle } from "./controls.js";
import { Frame, mount } from "./frame.js";
import { Plot } from "./plot.js";
import { Matrix } from "./matrix.js";
import { digits } from "./words.js";
import { QKAttention, qkAverage, histogramOf } from "./qknorm_math.js";
import { qkFinding, qkSentence } from "./qknorm_words.js";

const ROUND_SHARES = [0.05, 0.1, 0.2, 0.3, 0.5, 1];
const PLOT_HEIGHT = 220; // pixels

class QKNormView extends Frame {
  prepare() {
    const { state, arrays } = this;
    this.attention = new QKAttention(state, arrays.queries, arrays.keys);
    const { bars, reach } = state;
    this.edges = Array.from({ length: bars + 3 }, (_, i) => -reach + ((i - 1) * 2 * reach) / bars);
    this.curve = state.curve.map((activations) => this.entropy({ activations, normalise: false }));
  }

  entropy(setting) {
    return qkAverage(this.attention.measure(setting).entropies);
  }

  build() {
    const { now, state, attention } = this;
    const pick = (name) => (value) => this.set({ [name]: value });
    const [low, high] = state.qk_scales;
    const [first, last] = [state.curve[0], state.curve.at(-1)];
    const times = (value) => `×${digits(value)}`;
    const controls = {
      activations: slider(
        "Activations", { low: first, high: last, log: true, show: times }, now.activations, pick("activations"),
      ),
      normalise: toggle("Normalise queries and keys", now.normalise, pick("normalise")),
      qk_scale: slider("qk_scale", { low, high, log: true, show: digits }, now.qk_scale, pick("qk_scale")),
      ...(attention.heads > 1 && { head: drop("Head", attention.heads, now.head, pick("head")) }),
    };
    const on = (part) => (place) => this.point(place === null ? null : { part, place });
    const plot = (title, part, onpick) =>
      new Plot(this, { title, height: PLOT_HEIGHT, onpoint: on(part), onpick });
    this.logits = plot("Attention logits", "logits");
    this.entropies = plot("Entropy of attention as activations grow", "curve", (index) =>
      this.set({ activations: state.curve[index] }));
    this.heads = plot("Entropy of each head", "heads", pick("head"));
    this.map = new Matrix(this, { title: "Weights of a head", room: PLOT_HEIGHT + 10, onpoint: on("weights") });
    const parts = [this.logits, this.entropies, this.heads, this.map];
    return { controls, body: [h("div", { class: "columns" }, ...parts.map(({ node }) => node))] };
  }

  legal(wanted) {
    const within = (value, low, high) => Math.max(low, Math.min(high, value));
    const { qk_scales, curve } = this.state;
    return {
      ...wanted,
      activations: within(wanted.activations, curve[0], curve.at(-1)),
      qk_scale: within(wanted.qk_scale, ...qk_scales),
      head: within(wanted.head, 0, this.attention.heads - 1),
    };
  }

  draw(changed) {
    if (!this.measured || changed.some((name) => name !== "head")) this.compute(changed);
    this.drawLogits();
    this.drawEntropies();
    this.drawHeads();
    this.drawWeights();
  }

  compute(changed) {
    const { state, now } = this;
    this.measured = this.attention.measure(now);
    this.shares = histogramOf(this.measured.logits, state.bars, state.reach);
    if (this.normalised === undefined || changed.includes("qk_scale")) {
      this.normalised = now.normalise
        ? qkAverage(this.measured.entropies)
        : this.entropy({ ...now, activations: 1, normalise: true });
    }
  }

  colour() {
    return this.now.normalise ? this.colours.roles.query : this.colours.roles.key;
  }

  // On one scale whatever the controls say, so that one sees the logits grow out of the picture.
  drawLogits() {
    const { edges, shares, state: { reach }, now, attention } = this;
    const bound = now.qk_scale * attention.gain;
    const ends = `beyond ±${digits(reach)} in the last bars`;
    const where = bound > reach ? `; the bound, ±${digits(bound)}, too` : "";
    this.logits.draw({
      x: {
        label: `logit (${ends}${where})`,
        low: edges[0],
        high: edges.at(-1),
        ticks: [-1, -0.5, 0, 0.5, 1].map((share) => share * reach),
      },
      y: {
        label: "share of logits, %",
        low: 0,
        high: ROUND_SHARES.find((round) => round >= Math.max(...shares)) ?? 1,
        format: (share) => digits(100 * share),
      },
      series: [{
        kind: "bars",
        x: Array.from(shares, (_, i) => (edges[i] + edges[i + 1]) / 2),
        y: shares,
        colour: this.colour(),
      }],
      marks: [{ x: -bound, text: `bound ±${digits(bound)}` }, { x: bound }],
    });
  }

  drawEntropies() {
    const { state, curve, normalised, measured, now, attention } = this;
    const { key, query } = this.colours.roles;
    const x = state.curve;
    const own = Array.from(measured.entropies);
    this.entropies.draw({
      x: { label: "activations ×", low: x[0], high: x.at(-1), log: true },
      y: this.bits(),
      series: [
        { name: "without normalisation", x, y: curve, colour: key, dash: [6, 4] },
        { name: "with normalisation", x, y: x.map(() => normalised), colour: query },
        { kind: "dots", x: own.map(() => now.activations), y: own, colour: this.colour() },
      ],
      marks: [{ x: now.activations }, this.even()],
    });
  }

  bits() {
    return { label: "entropy, bits", low: 0, high: 1.15 * this.attention.uniform || 1 };
  }

  even() {
    const { uniform } = this.attention;
    return { y: uniform, text: `uniform: ${digits(uniform)} bits` };
  }

  drawHeads() {
    const { measured, now, attention } = this;
    const x = Array.from(measured.entropies, (_, head) => head);
    const every = Math.ceil(x.length / 16);
    const only = (keep) => measured.entropies.map((entropy, head) => (keep(head) ? entropy : 0));
    this.heads.draw({
      x: { label: "head", low: -0.6, high: attention.heads - 0.4, ticks: x.filter((head) => head % every === 0) },
      y: this.bits(),
      series: [
        { name: `head ${now.head}`, kind: "bars", x, y: only((head) => head === now.head), colour: this.colour() },
        { name: x.length > 1 ? "the others" : "", kind: "bars", x, colour: this.colours.roles.mask,
          y: only((head) => head !== now.head) },
      ],
      marks: [this.even()],
    });
  }

  drawWeights() {
    const { measured, now, attention } = this;
    const { rows, columns } = attention;
    const size = rows * columns;
    this.map.heading.textContent = `Weights of head ${now.head}, from 0 to 1`;
    this.map.draw({
      rows,
      columns,
      values: measured.weights.subarray(now.head * size, (now.head + 1) * size),
      low: 0,
      high: 1,
      rowTitle: "queries",
      columnTitle: "keys",
      hatched: (i) => i % columns >= attention.seen[Math.floor(i / columns)],
    });
  }

  pointed() {
    const { part, place } = this.cursor ?? {};
    for (const [name, plot] of [["logits", this.logits], ["curve", this.entropies], ["heads", this.heads]]) {
      plot.mark(name === part ? place : null);
    }
    if (part !== "weights") this.map.mark(null);
  }

  heading() {
    return qkFinding(this);
  }

  sentence() {
    return qkSentence(this);
  }

  drawn() {
    const { measured, shares, curve, normalised, attention, now } = this;
    return {
      logits: Array.from(measured.logits),
      weights: Array.from(measured.weights),
      shown: Array.from(this.map.values),
      entropies: Array.from(measured.entropies),
      largest: measured.largest,
      shares: Array.from(shares),
      curve: Array.from(curve),
      normalised,
      bound: now.qk_scale * attention.gain,
      uniform: attention.uniform,
      marker: this.entropies.across(now.activations),
    };
  }
}

const widget = { render: mount(QKNormView) };
export default widget;
