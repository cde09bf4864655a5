// The block view: a transformer block as a diagram, and what is on each of its wires.
import { choice, h } from "./runtime.js";
import { slider } from "./controls.js";
import { Frame, mount } from "./frame.js";
import { digits, grouped, percent } from "./words.js";
import { BlockDiagram, blockRange } from "./block_diagram.js";
import { BlockPanel } from "./block_panel.js";

const BLOCK_STATISTICS = ["least", "largest", "mean", "rms", "bad"];

class BlockView extends Frame {
  prepare() {
    const { wires, parts, layout, arrays } = this.state;
    this.order = Object.fromEntries(wires.map(({ name }, at) => [name, at]));
    this.roles = Object.fromEntries(layout.wires.map(({ name, role }) => [name, role]));
    this.parts = Object.fromEntries(parts.map((part) => [part.name, part]));
    this.binCount = arrays.bins.shape[2];
  }

  build() {
    const { now, state } = this;
    const pick = (name) => (value) => this.set({ [name]: value });
    const batch = state.shape[0];
    const numbers = [["range", "least to largest"], ["rms", "rms"]];
    const controls = { numbers: choice("On the wires", numbers, now.numbers, pick("numbers")) };
    if (batch > 1) {
      const show = (at) => `${at + 1} of ${batch}`;
      const range = { low: 0, high: batch - 1, step: 1, show };
      controls.sequence = slider("Sequence", range, now.sequence, pick("sequence"));
    }
    this.diagram = new BlockDiagram(this);
    this.panel = new BlockPanel(this);
    const { telling, numbers: beside } = this.panel;
    return { controls, body: [h("div", { class: "inside" }, telling, this.diagram.node, beside)] };
  }

  legal(wanted) {
    const { findings, shape } = this.state;
    const place = wanted.place in findings[0] ? wanted.place : (this.now?.place ?? "part:sum");
    return { ...wanted, place, sequence: Math.max(0, Math.min(shape[0] - 1, wanted.sequence)) };
  }

  wire(name) {
    return this.state.wires[this.order[name]];
  }

  role(name) {
    return this.roles[name];
  }

  tokens() {
    return this.state.tokens[this.now.sequence];
  }

  // The row of an array (batch, wires, width) for a wire of the shown sequence.
  row(array, name, width) {
    const at = (this.now.sequence * this.state.wires.length + this.order[name]) * width;
    return Array.from(this.arrays[array].subarray(at, at + width));
  }

  statistics(name) {
    const row = this.row("table", name, BLOCK_STATISTICS.length);
    return Object.fromEntries(BLOCK_STATISTICS.map((statistic, at) => [statistic, row[at]]));
  }

  bins(name) {
    return this.row("bins", name, this.binCount);
  }

  // Where the histogram of a wire begins and ends; a wire of equal numbers has a bin around them.
  ends(name) {
    const { least, largest } = this.statistics(name);
    if (Number.isNaN(least)) return [0, 1];
    return least === largest ? [least - 0.5, largest + 0.5] : [least, largest];
  }

  byToken(name) {
    return this.row("by_token", name, this.state.shape[1]);
  }

  range(name) {
    return blockRange(this.statistics(name), this.now.numbers);
  }

  part(place = this.now.place) {
    return place.startsWith("part:") ? this.parts[place.slice(5)] : null;
  }

  // The wires that are picked: one, or those that leave the picked part.
  given(place = this.now.place) {
    return this.part(place)?.gives ?? [place];
  }

  // The part that is picked, or that makes the picked wire.
  maker() {
    const makers = this.state.parts.filter(({ gives }) => gives.includes(this.now.place));
    return this.part() ?? makers.at(-1);
  }

  draw(changed) {
    this.diagram.draw();
    if (changed.some((name) => name !== "numbers")) this.panel.draw();
  }

  pointed() {
    this.diagram.mark();
    this.panel.mark();
  }

  heading() {
    return this.state.findings[this.now.sequence][this.now.place];
  }

  sentence() {
    const { cursor } = this;
    const [only] = this.given();
    if (cursor?.bin !== undefined) return this.aboutBin(only, cursor.bin);
    if (cursor?.token !== undefined) return this.aboutToken(only, cursor.token);
    const place = cursor?.place ?? this.now.place;
    const shapes = this.given(place).map((name) => `${this.wire(name).title} (${this.wire(name).words})`);
    const part = this.part(place);
    if (part) return `${part.does} Out ${shapes.length > 1 ? "come" : "comes"}: ${shapes.join("; ")}.`;
    const { title, shape, words } = this.wire(place);
    const { least, largest, mean, rms } = this.statistics(place);
    const count = grouped(shape.slice(1).reduce((product, size) => product * size, 1));
    return (
      `On this wire: ${title}, ${words}; ${count} numbers for this sequence. From ${digits(least)} to ` +
      `${digits(largest)}, mean ${digits(mean)}, root of the mean square (rms) ${digits(rms)}.`
    );
  }

  aboutBin(name, bin) {
    const [low, high] = this.ends(name);
    const step = (high - low) / this.binCount;
    const edges = `between ${digits(low + bin * step)} and ${digits(low + (bin + 1) * step)}`;
    return `${percent(this.bins(name)[bin])} of the numbers of ${this.wire(name).title} lie ${edges}.`;
  }

  aboutToken(name, token) {
    const size = digits(this.byToken(name)[token]);
    return [h("code", {}, this.tokens()[token]), ` at position ${token}: rms ${size} on ${this.wire(name).title}.`];
  }

  drawn() {
    const wires = this.given();
    const one = wires.length === 1 ? wires[0] : null;
    return {
      labels: this.diagram.labels(),
      table: wires.map((name) => this.statistics(name)),
      histogram: one && { ends: this.ends(one), shares: this.panel.plot.series[0].y },
      byToken: one && this.byToken(one),
      origin: this.panel.origin.textContent,
    };
  }
}

const widget = { render: mount(BlockView) };
export default widget;
