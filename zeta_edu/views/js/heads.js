// The heads view: query heads over the key/value heads they read, and what sharing those saves.
import { choice, h } from "./runtime.js";
import { Frame, mount } from "./frame.js";
import { slider } from "./controls.js";
import { bytes, grouped, plural } from "./words.js";
import { kvSentence, optionSentence, querySentence, sharingTitle, sharingSizes, wholeSentence } from "./heads_words.js";
import { HeadsDiagram } from "./heads_diagram.js";
import { SharingBars } from "./heads_bars.js";

class HeadsView extends Frame {
  build() {
    const { now, state } = this;
    const pick = (name) => (value) => this.set({ [name]: value });
    const divisors = state.sharings.map(({ kv_heads }) => [kv_heads, String(kv_heads)]);
    const lengths = Array.from({ length: 1 + Math.floor(Math.log2(state.most.context)) }, (_, i) => 2 ** i);
    const widths = state.bytes.map((width) => [width, String(width)]);
    const layers = { low: 1, high: state.most.layers, step: 1 };
    const controls = {
      kv_heads: choice("Key/value heads", divisors, now.kv_heads, pick("kv_heads")),
      context: headsAlong("Tokens in the cache", lengths, now.context, pick("context")),
      layers: slider("Layers", layers, now.layers, pick("layers")),
      bytes_per_number: choice("Bytes per number", widths, now.bytes_per_number, pick("bytes_per_number")),
    };
    this.diagram = new HeadsDiagram(this);
    this.parameters = new SharingBars(this, {
      parts: (size) => size.parameters,
      write: headsShortCount,
      aim: "Parameters of attention for every number of key/value heads",
    });
    this.cache = new SharingBars(this, {
      parts: (size) => size.cache,
      write: bytes,
      aim: "Bytes of the cache for every number of key/value heads",
    });
    const charts = h("div", { class: "columns" }, this.cache.node, this.parameters.node);
    return { controls, body: [this.diagram.node, this.readout, charts, this.legend()] };
  }

  legend() {
    const roles = { query: "queries", key: "keys", value: "values", output: "out, which joins the heads" };
    const entries = Object.entries(roles).map(([role, text]) => {
      const swatch = h("i", { class: "swatch" });
      swatch.style.background = `var(--${role})`;
      return h("span", {}, swatch, text);
    });
    return h("p", { class: "keys" }, ...entries);
  }

  // Key/value heads divide the query heads; a number has 1, 2 or 4 bytes.
  legal(wanted) {
    const { state } = this;
    const within = (name) => Math.max(1, Math.min(state.most[name], Math.round(wanted[name])));
    const under = (values, most) => Math.max(...values.filter((value) => value <= most));
    return {
      kv_heads: under(state.sharings.map(({ kv_heads }) => kv_heads), within("kv_heads")),
      context: within("context"),
      layers: within("layers"),
      bytes_per_number: under(state.bytes, within("bytes_per_number")),
    };
  }

  chosen() {
    return this.state.sharings.findIndex(({ kv_heads }) => kv_heads === this.now.kv_heads);
  }

  draw(changed) {
    if (!changed.length) return this.mark();
    const { now, state } = this;
    if (changed.includes("kv_heads") && this.cursor?.option === undefined) this.cursor = null;
    this.group = state.heads / now.kv_heads;
    this.sizes = state.sharings.map((way) => sharingSizes(way, now));
    const where = now.layers === 1 ? "one layer" : `${now.layers} layers`;
    this.diagram.draw();
    this.parameters.draw(`Parameters of attention, ${where}`);
    this.cache.draw(`Cache of ${plural(now.context, "token")}, ${where}`);
  }

  mark() {
    for (const part of [this.diagram, this.parameters, this.cache]) part.mark();
  }

  heading() {
    return sharingTitle(this.state.heads, this.now.kv_heads);
  }

  sentence() {
    const { cursor, group, state, now } = this;
    if (cursor?.query !== undefined) return querySentence(cursor.query, group);
    if (cursor?.kv !== undefined) return kvSentence(cursor.kv, group, state.dim_head, now.bytes_per_number);
    if (cursor) {
      const { kv_heads } = state.sharings[cursor.option];
      return optionSentence(kv_heads, this.sizes[cursor.option], this.sizes[0]);
    }
    return wholeSentence(this.sizes[this.chosen()], now);
  }

  drawn() {
    const { parameters, token } = this.sizes[this.chosen()];
    const reads = Array.from({ length: this.state.heads }, (_, query) => Math.floor(query / this.group));
    return { reads, parameters, token, bars: { parameters: this.parameters.drawn, cache: this.cache.drawn } };
  }
}

// A slider over a list of numbers; what lies between two of them is shown as it is.
function headsAlong(label, values, chosen, pick) {
  const nearest = (value) => values.findLastIndex((at) => at <= value);
  let now = chosen;
  const show = (index) => grouped(nearest(now) === index ? now : values[index]);
  const inner = slider(label, { low: 0, high: values.length - 1, step: 1, show }, nearest(chosen), (index) =>
    pick(values[index]),
  );
  const present = (value) => {
    now = value;
    inner.show(nearest(value));
  };
  return { node: inner.node, show: present };
}

function headsShortCount(count) {
  if (count < 1e4) return grouped(count);
  const [size, unit] = count < 1e6 ? [1e3, "thousand"] : count < 1e9 ? [1e6, "million"] : [1e9, "billion"];
  return `${Number((count / size).toPrecision(3))} ${unit}`;
}

const widget = { render: mount(HeadsView) };
export default widget;
