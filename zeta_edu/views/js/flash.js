// Flash attention, one tile after another: what has been seen, what is kept, what it moves.
import { h } from "./runtime.js";
import { Frame, mount } from "./frame.js";
import { player } from "./player.js";
import { bytes, digits, plural } from "./words.js";
import { Matrix, swatch } from "./matrix.js";

class FlashView extends Frame {
  prepare() {
    const { scores } = this.arrays;
    const finite = scores.filter(Number.isFinite);
    this.range = { low: Math.min(...finite), high: Math.max(...finite) };
    const outputs = this.arrays.exact;
    const most = Math.max(...Array.from(outputs, Math.abs));
    this.mixRange = { low: -most, high: most, signed: true };
    this.offset = this.state.keys - this.state.queries;
  }

  legal({ step }) {
    return { step: Math.max(0, Math.min(this.state.rows.length - 1, step)) };
  }

  build() {
    const count = this.state.rows.length;
    const show = (step) => `${step + 1} of ${count}`;
    const step = player("Tile", count, this.now.step, (at) => this.set({ step: at }), { show });
    this.table = new Matrix(this, {
      title: "Scores: each is computed in its tile, used, and forgotten",
      onpoint: (cell) => this.point(cell && { what: "score", ...cell }),
    });
    this.mixed = new Matrix(this, {
      title: "Output so far: mixed values over the sum so far",
      cell: 26,
      onpoint: (cell) => this.point(cell && { what: "output", ...cell }),
    });
    this.running = h("div", { class: "scroll" });
    this.notes = h("p", { class: "note" });
    const legend = h(
      "p",
      { class: "keys" },
      swatch("", "frame: the tile in work", "var(--output)"),
      swatch("empty", "not yet seen"),
      swatch("hatched", "hidden by causality: whole tiles of it are skipped"),
    );
    const kept = h("div", {}, h("h4", {}, "Kept for each query of the tile"), this.running);
    const right = h("div", { class: "flash-kept" }, this.mixed.node, kept);
    return {
      controls: { step },
      body: [h("div", { class: "columns" }, h("div", {}, this.table.node, legend), right), this.notes],
    };
  }

  // How many tiles have covered a cell by now, this one included: 1 or 0.
  seen(row, column) {
    const { rows, columns } = this.state;
    for (let step = 0; step <= this.now.step; step++) {
      const [[top, bottom], [left, right]] = [rows[step], columns[step]];
      if (row >= top && row < bottom && column >= left && column < right) return true;
    }
    return false;
  }

  runningAt(name, row) {
    return this.arrays[name][this.now.step * this.state.queries + row];
  }

  output() {
    const size = this.state.queries * this.state.width;
    return this.arrays.output.subarray(this.now.step * size, (this.now.step + 1) * size);
  }

  draw() {
    const { queries, keys, width, labels, skipped } = this.state;
    const { scores } = this.arrays;
    const [rows, columns] = [this.state.rows[this.now.step], this.state.columns[this.now.step]];
    const colour = this.colours.roles.output;
    const within = ([top, bottom, left, right], row, column) =>
      row >= top && row < bottom && column >= left && column < right;
    const rowLabels = labels.slice(this.offset);
    this.table.draw({
      rows: queries,
      columns: keys,
      values: scores,
      ...this.range,
      rowLabels,
      columnLabels: labels,
      rowTitle: "queries",
      columnTitle: "keys",
      hatched: (i) =>
        scores[i] === -Infinity &&
        (this.seen(Math.floor(i / keys), i % keys) ||
          skipped.some((tile) => within(tile, Math.floor(i / keys), i % keys))),
      blank: (i) => !this.seen(Math.floor(i / keys), i % keys),
      write: (value) => (Number.isFinite(value) ? value.toFixed(1).replace("-", "−") : ""),
      frames: [frameOf(rows, columns, colour)],
    });
    const mixed = this.output();
    this.mixed.draw({
      rows: queries,
      columns: width,
      values: mixed,
      ...this.mixRange,
      rowLabels,
      rowTitle: "queries",
      columnTitle: "features of the values",
      blank: (i) => Number.isNaN(mixed[i]),
      frames: [frameOf(rows, [0, width], colour)],
    });
    this.drawRunning(rows);
    this.drawNotes();
  }

  drawRunning([top, bottom]) {
    const head = ["query", "largest score", "sum of powers", "earlier sums ×"];
    const body = [];
    for (let row = top; row < bottom; row++) {
      const rescale = this.runningAt("rescale", row);
      const cells = [
        digits(this.runningAt("maximum", row)),
        digits(this.runningAt("total", row)),
        this.firstTile() ? "–" : digits(rescale),
      ];
      const name = h("td", { class: "asks" }, this.state.labels[row + this.offset]);
      body.push(h("tr", {}, name, ...cells.map((text) => h("td", {}, text))));
    }
    const titles = h("tr", {}, ...head.map((text) => h("th", { scope: "col" }, text)));
    this.running.replaceChildren(h("table", { class: "running" }, titles, ...body));
  }

  firstTile() {
    return this.state.columns[this.now.step][0] === 0;
  }

  drawNotes() {
    const { queries, keys, tile_numbers, moved, regular } = this.state;
    this.notes.textContent =
      `Moved so far: ${bytes(moved[this.now.step])}. Regular attention writes and reads all ` +
      `${queries} × ${keys} scores and moves ${bytes(regular)}; here at most ${tile_numbers} scores ` +
      "exist at a time. (Counted in float32.)";
  }

  // The largest difference from softmax over whole rows, for queries that are done.
  gap() {
    const { rows, width } = this.state;
    const last = rows.length - 1;
    const mixed = this.output();
    let most = 0;
    const stop = this.now.step === last || rows[this.now.step + 1][0] !== rows[this.now.step][0];
    const done = stop ? rows[this.now.step][1] : rows[this.now.step][0];
    for (let i = 0; i < done * width; i++) {
      most = Math.max(most, Math.abs(mixed[i] - this.arrays.exact[i]));
    }
    return { done, most };
  }

  heading() {
    const { rows, error, skipped } = this.state;
    const { done } = this.gap();
    if (this.now.step === rows.length - 1) {
      const saved = skipped.length ? `, ${skipped.length} skipped` : "";
      return `All ${plural(rows.length, "tile")} done${saved}: softmax over whole rows, equal to ${digits(error, 1)}`;
    }
    if (done) return `${plural(done, "query is", "queries are")} done and equal to softmax over the whole row`;
    return "The first queries have seen some of their keys; what they have mixed is not final yet";
  }

  sentence() {
    const { labels, keys, width } = this.state;
    const [rows, columns] = [this.state.rows[this.now.step], this.state.columns[this.now.step]];
    const asks = (row) => h("code", { class: "asks" }, labels[row + this.offset]);
    const { cursor } = this;
    if (cursor?.what === "output") {
      const value = this.output()[cursor.row * width + cursor.column];
      const state = Number.isNaN(value) ? "nothing mixed yet" : digits(value);
      return ["Output of ", asks(cursor.row), `, feature ${cursor.column}: ${state}.`];
    }
    if (cursor) {
      const score = this.arrays.scores[cursor.row * keys + cursor.column];
      const pair = ["Score of ", asks(cursor.row), " with ", h("code", { class: "answers" }, labels[cursor.column])];
      if (score === -Infinity) return [...pair, ": hidden, the key comes after the query."];
      if (!this.seen(cursor.row, cursor.column)) return [...pair, ": not computed yet."];
      return [...pair, `: ${digits(score)}.`];
    }
    const tile = `Queries ${rows[0]} to ${rows[1] - 1} meet keys ${columns[0]} to ${columns[1] - 1}. `;
    if (this.firstTile()) return `${tile}Their largest scores and sums start here.`;
    const grown = [];
    for (let row = rows[0]; row < rows[1]; row++) if (this.runningAt("rescale", row) < 1) grown.push(row);
    if (!grown.length) return `${tile}No larger score turns up, so the earlier sums stay as they are.`;
    const count = grown.length === 1 ? "One query finds" : `${grown.length} queries find`;
    return `${tile}${count} a larger score: the earlier sums are multiplied down before the new powers are added.`;
  }

  drawn() {
    const { step } = this.now;
    const { queries } = this.state;
    const slice = (name) => Array.from(this.arrays[name].subarray(step * queries, (step + 1) * queries));
    return {
      maximum: slice("maximum"),
      total: slice("total"),
      rescale: slice("rescale"),
      output: Array.from(this.output()),
      shown: Array.from(this.arrays.scores, (_, i) => !this.table.blank(i)),
      gap: this.gap().most,
      at: this.table.at,
      notes: this.notes.textContent,
    };
  }
}

function frameOf([top, bottom], [left, right], colour) {
  return { row: top, column: left, rows: bottom - top, columns: right - left, colour, width: 3 };
}

const widget = { render: mount(FlashView) };
export default widget;
