// The mask view: scores, the mask that is added to them, and the weights that softmax makes of it.
import { choice, h } from "./runtime.js";
import { Frame, mount } from "./frame.js";
import { slider, toggle } from "./controls.js";
import { LEAST_LABELLED, Matrix } from "./matrix.js";
import { digits } from "./words.js";
import { isPadding, maskedRows, rowSums } from "./mask_data.js";
import { maskCellSentence, maskFinding, maskRowSentence, maskStory } from "./mask_words.js";

const LARGEST_CELL = 40;
const BESIDE = 26; // what Matrix leaves free at the right of its cells
const OVERLAP = 18; // of a table over that room, as in mask.css
const DECIMALS = 32; // the smallest cell that has room for −2.5
const LETTER = 7.3; // of the labels
const PADDED = "[pad]";

class MaskView extends Frame {
  prepare() {
    [this.queries, this.keys] = this.state.shape;
    this.first = this.keys - this.queries;
    this.reach = this.arrays.scores.reduce((most, score) => Math.max(most, Math.abs(score)), 0) || 1;
  }

  build() {
    const pick = (name) => (value) => this.set({ [name]: value });
    const { now, keys, first } = this;
    const controls = {
      causal: toggle("causal", now.causal, pick("causal")),
      padding: slider("padded tokens", { low: 0, high: keys - 1, step: 1 }, now.padding, pick("padding")),
      padding_side: choice(
        "padding on the", [["left", "left"], ["right", "right"]], now.padding_side, pick("padding_side"),
      ),
      past: slider("positions in the cache", { low: first, high: keys - 1, step: 1 }, now.past, pick("past")),
    };
    const table = (title) => new Matrix(this, { title, onpoint: (cursor) => this.point(cursor) });
    const onpoint = (cursor) => this.point(cursor && { row: cursor.row, column: null });
    this.tables = {
      scores: table("scores"),
      mask: table("+ mask"),
      weights: table("softmax → weights"),
      sums: new Matrix(this, { title: "sum", onpoint }),
    };
    this.panels = h("div", { class: "tables" }, ...Object.values(this.tables).map(({ node }) => node));
    this.legend = h("p", { class: "keys" });
    return { controls, body: [this.panels, this.legend] };
  }

  legal(wanted) {
    const within = (value, low, high) => Math.max(low, Math.min(high, value));
    return {
      ...wanted,
      padding: within(wanted.padding, 0, this.keys - 1),
      past: within(wanted.past, this.first, this.keys - 1),
    };
  }

  draw(changed) {
    if (changed.length || !this.table) this.compute();
    this.layout();
    const { scores, mask, weights, sums } = this.tables;
    const { table, keys } = this;
    const hatched = (i) => !table.visible[i];
    const frames = this.rowFrame(keys);
    const size = { rows: table.rows, columns: keys, columnLabels: this.names, columnTitle: "keys", frames };
    const sides = { rowLabels: this.names.slice(this.now.past), rowTitle: "queries" };
    const open = { low: -1, high: 1, signed: true, hatched, write: (value) => (value ? "−∞" : "0") };
    const amounts = { low: 0, high: 1, hatched, write: (value, i) => (table.visible[i] ? shortShare(value) : "0") };
    const places = scores.most >= DECIMALS ? 1 : 0;
    const signed = { low: -this.reach, high: this.reach, signed: true, write: (value) => shortScore(value, places) };
    scores.draw({ ...size, ...sides, ...signed, values: table.scores });
    mask.draw({ ...size, ...open, values: table.visible.map((seen) => (seen ? 0 : -Infinity)) });
    weights.draw({ ...size, ...(this.narrow ? sides : {}), ...amounts, values: table.weights });
    const blind = (row) => table.counts[row] === 0;
    const total = { rows: table.rows, columns: 1, low: 0, high: 1, hatched: blind, values: table.sums };
    sums.draw({ ...total, write: (value) => value.toFixed(0), frames: this.rowFrame(1) });
    this.explain();
  }

  compute() {
    const { now, state, keys } = this;
    this.table = maskedRows(this.arrays.scores, keys, this.first, now);
    this.table.sums = rowSums(this.table);
    this.names = state.labels.map((label, position) => (isPadding(now, position, keys) ? PADDED : label));
    if (this.cursor?.row >= this.table.rows) {
      this.cursor = null;
      for (const matrix of Object.values(this.tables)) matrix.cursor = null;
    }
  }

  // Cells of one size in all tables: three tables in a row, or, where it is narrow, two.
  layout() {
    const { panels, tables, keys } = this;
    const wide = panels.clientWidth;
    this.narrow = wide < 700;
    panels.classList.toggle("narrow", this.narrow);
    const letters = Math.max(...this.names.map((name) => Math.min(12, Array.from(name).length)));
    const cellBeside = (sides) =>
      this.narrow
        ? (wide - sides - 2 * BESIDE + OVERLAP - 8) / (2 * keys)
        : (wide - sides - 4 * BESIDE + 3 * OVERLAP - 16) / (3 * keys + 1);
    let sides = letters * LETTER + 28;
    if (cellBeside(sides) < LEAST_LABELLED) sides = 24;
    const cell = Math.min(LARGEST_CELL, cellBeside(sides));
    for (const [name, matrix] of Object.entries(tables)) {
      matrix.most = cell;
      const labelled = name === "scores" || (this.narrow && name === "weights");
      const columns = name === "sums" ? 1 : keys;
      matrix.node.style.width = `${Math.ceil((labelled ? sides : 4) + cell * columns + BESIDE)}px`;
    }
  }

  // The row under the cursor, framed in every table.
  rowFrame(columns) {
    if (!this.cursor) return [];
    return [{ row: this.cursor.row, column: 0, rows: 1, columns, colour: this.colours.query_text, width: 1.5 }];
  }

  explain() {
    const sample = (kind, text, background) => {
      const swatch = h("i", { class: `swatch ${kind}` });
      if (background) swatch.style.background = background;
      return h("span", {}, swatch, text);
    };
    const { signed, stops } = this.colours;
    const range = `score, −${digits(this.reach)} to ${digits(this.reach)}`;
    this.legend.replaceChildren(
      sample("amounts", range, `linear-gradient(90deg, ${signed})`),
      sample("hatched", "hidden: minus infinity is added"),
      sample("amounts", "weight, and sum of a row, 0 to 1", `linear-gradient(90deg, ${stops})`),
    );
  }

  pointed() {
    const { scores, mask, weights, sums } = this.tables;
    const cell = this.cursor?.column === null ? null : this.cursor;
    for (const matrix of [scores, mask, weights]) {
      matrix.frames = this.rowFrame(this.keys);
      matrix.cursor = cell;
      matrix.paint();
    }
    sums.frames = this.rowFrame(1);
    sums.cursor = this.cursor && { row: this.cursor.row, column: 0 };
    sums.paint();
  }

  heading() {
    return maskFinding(this.table, this.now);
  }

  sentence() {
    if (!this.cursor) return maskStory(this);
    if (this.cursor.column === null) return maskRowSentence(this, this.cursor.row);
    return maskCellSentence(this, this.cursor);
  }

  drawn() {
    const { table, tables } = this;
    return {
      rows: table.rows,
      columns: table.keys,
      scores: Array.from(table.scores),
      mask: table.visible.map(Number),
      values: Array.from(table.weights),
      sums: Array.from(table.sums),
      labels: this.names,
      places: Object.fromEntries(Object.entries(tables).map(([name, { at }]) => [name, at])),
      cursors: Object.fromEntries(Object.entries(tables).map(([name, { cursor }]) => [name, cursor])),
    };
  }
}

// As little as a small cell has room for: .35 for 0.35.
const shortShare = (weight) => (weight >= 0.995 ? "1" : weight.toFixed(2).slice(1));
const shortScore = (value, places) => value.toFixed(places).replace(/^-(?=0$)/, "").replace("-", "−");

const widget = { render: mount(MaskView) };
export default widget;
