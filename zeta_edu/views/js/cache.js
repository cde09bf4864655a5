// Decoding with a KV cache: each step computes its own rows and reads all earlier keys and values.
import { drop, h } from "./runtime.js";
import { Frame, mount } from "./frame.js";
import { player } from "./player.js";
import { bytes, digits, grouped, percent, plural } from "./words.js";
import { Plot } from "./plot.js";
import { Matrix, swatch } from "./matrix.js";

class CacheView extends Frame {
  legal({ step, head }) {
    const within = (value, count) => Math.max(0, Math.min(count - 1, value));
    return { step: within(step, this.state.ends.length), head: within(head, this.state.heads) };
  }

  build() {
    const { state, now } = this;
    const pick = (name) => (value) => this.set({ [name]: value });
    const show = (step) => (step ? `token ${state.ends[step] - 1}` : "prompt");
    const controls = {
      step: player("Step", state.ends.length, now.step, pick("step"), { show }),
      ...(state.heads > 1 && { head: drop("Head", state.heads, now.head, pick("head")) }),
    };
    this.weights = new Matrix(this, {
      title: "Attention weights: only the framed rows are computed in this step",
      onpoint: (cell) => this.point(cell && { what: "weight", ...cell }),
    });
    this.keys = new Matrix(this, {
      title: `Keys of key head 0, of ${state.kv_heads}: a column for each token; values are kept likewise`,
      cell: 30,
      room: 190,
      onpoint: (cell) => this.point(cell && { what: "key", ...cell }),
    });
    const onpoint = (index) => this.point(index === null ? null : { what: "cost", index });
    this.work = new Plot(this, { title: "Multiplications in each step", height: 190, onpoint });
    this.memory = new Plot(this, { title: "Bytes held in the cache", height: 190, onpoint });
    const legend = h(
      "p",
      { class: "keys" },
      swatch("", "computed in this step", "var(--query)"),
      swatch("", "read from the cache", "var(--key)"),
      swatch("hatched", "comes later: hidden"),
    );
    const left = h("div", {}, this.weights.node, legend);
    const right = h("div", { class: "cache-side" }, this.keys.node, this.work.node, this.memory.node);
    return { controls, body: [h("div", { class: "columns" }, left, right)] };
  }

  // The positions of this step: from what the cache held to what it holds now.
  span(step = this.now.step) {
    const { ends } = this.state;
    return { start: step ? ends[step - 1] : 0, end: ends[step] };
  }

  // Multiplications for tokens start to end with the cache, as Python's Costs.cached counts them.
  cached({ start, end }) {
    const { per_token, per_pair } = this.state.costs;
    const pairs = (end * (end + 1) - start * (start + 1)) / 2;
    return (end - start) * per_token + pairs * per_pair;
  }

  whole(end) {
    return this.cached({ start: 0, end });
  }

  headWeights() {
    const size = this.state.positions ** 2;
    return this.arrays.weights.subarray(this.now.head * size, (this.now.head + 1) * size);
  }

  draw() {
    const { positions, labels, features, key_range } = this.state;
    const { start, end } = this.span();
    const { query, key } = this.colours.roles;
    const values = this.headWeights();
    const row = (i) => Math.floor(i / positions);
    const frames = [{ row: start, column: 0, rows: end - start, columns: end, colour: query, width: 3 }];
    this.weights.draw({
      rows: positions,
      columns: positions,
      values,
      low: 0,
      high: Math.max(...values.subarray(positions * Math.min(2, positions - 1))) || 1,
      rowLabels: labels,
      columnLabels: labels,
      rowTitle: "queries",
      columnTitle: "keys",
      hatched: (i) => i % positions > row(i) && row(i) < end,
      blank: (i) => row(i) >= end,
      frames,
    });
    const old = { row: 0, column: 0, rows: features, columns: start, colour: key, width: start && 2 };
    // (positions, features), shown a column for each token
    const turned = Float32Array.from({ length: positions * features }, (_, i) => {
      return this.arrays.keys[(i % positions) * features + Math.floor(i / positions)];
    });
    this.keys.draw({
      rows: features,
      columns: positions,
      values: turned,
      low: key_range[0],
      high: key_range[1],
      signed: true,
      plain: true,
      stretch: true,
      columnTitle: "tokens",
      rowTitle: "features",
      blank: (i) => i % positions >= end,
      frames: [old, { ...old, column: start, columns: end - start, colour: query, width: 3 }],
    });
    this.drawCosts();
  }

  drawCosts() {
    const { ends, costs, kv_heads } = this.state;
    const { query, key, mask } = this.colours.roles;
    const x = { label: "tokens read", low: Math.min(ends[0], ends.at(-1) - 1), high: ends.at(-1) };
    const work = {
      without: ends.map((end) => this.whole(end)),
      with: ends.map((_, step) => this.cached(this.span(step))),
    };
    const line = (name, y, colour, dash) => ({ name, x: ends, y, colour, dash });
    const at = this.span().end;
    this.work.draw({
      x,
      y: { label: "multiplications", low: 0, high: 1.05 * Math.max(...work.without) },
      series: [line("without a cache", work.without, mask, [6, 4]), line("with it", work.with, query)],
      marks: [{ x: at }],
    });
    const mine = `this block, ${plural(kv_heads, "key head")}`;
    const sizes = Object.entries({ ...costs.others, [mine]: costs.bytes_per_token });
    const looks = [...[[mask, [6, 4]], [mask, [2, 4]]].slice(0, sizes.length - 1), [key]];
    const most = ends.at(-1) * Math.max(...sizes.map(([, size]) => size));
    this.memory.draw({
      x,
      y: { label: "bytes", low: 0, high: 1.05 * most, format: bytes },
      series: sizes.map(([name, size], i) => line(name, ends.map((end) => size * end), ...looks[i])),
      marks: [{ x: at }],
    });
  }

  pointed() {
    const index = this.cursor?.what === "cost" ? this.cursor.index : null;
    this.work.mark(index);
    this.memory.mark(index);
  }

  heading() {
    const { start, end } = this.span();
    if (!start) return `The prompt: ${plural(end, "token")} at once, whose keys and values are kept`;
    const share = this.cached({ start, end }) / this.whole(end);
    return `Token ${end - 1}: one query, ${plural(start, "key")} from the cache, ${percent(share, 0)} of the work`;
  }

  sentence() {
    const { labels, ends, costs, error } = this.state;
    const { start, end } = this.span();
    const { cursor } = this;
    const asks = (row) => h("code", { class: "asks" }, labels[row]);
    const answers = (column) => h("code", { class: "answers" }, labels[column]);
    if (cursor?.what === "weight") {
      const { row, column } = cursor;
      if (row >= end) return [asks(row), " has not been read yet."];
      if (column > row) return [asks(row), " cannot see ", answers(column), ", which comes later."];
      const value = percent(this.headWeights()[row * this.state.positions + column]);
      const now = column < start ? "its key read from the cache" : "its key computed in this step";
      const source = row < start ? "computed in an earlier step" : now;
      return [asks(row), ` gives ${value} of its attention to `, answers(column), `, ${source}.`];
    }
    if (cursor?.what === "key") {
      const { row, column } = cursor;
      if (column >= end) return ["The key of ", answers(column), " is not there yet."];
      const value = digits(this.arrays.keys[column * this.state.features + row]);
      const when = column < start ? "kept since an earlier step" : "appended in this step";
      return ["Key of ", answers(column), `, feature ${row}: ${value}, ${when}.`];
    }
    if (cursor) {
      const read = ends[cursor.index];
      const span = this.span(cursor.index);
      return (
        `When ${plural(read, "token")} are read: ${grouped(this.cached(span))} multiplications with the cache, ` +
        `${grouped(this.whole(read))} without; the cache holds ${bytes(costs.bytes_per_token * read)}.`
      );
    }
    return (
      `${plural(end - start, "new query", "new queries")} over ${plural(end, "key")}. The cache grows by ` +
      `${bytes(costs.bytes_per_token)} a token. Its outputs over the whole text equal those computed ` +
      `at once, to ${digits(error, 1)} of the largest.`
    );
  }

  drawn() {
    const { start, end } = this.span();
    return {
      span: [start, end],
      weights: Array.from(this.headWeights()),
      appended: end - start,
      work: [this.cached({ start, end }), this.whole(end)],
      held: this.state.costs.bytes_per_token * end,
      rowsShown: this.state.labels.map((_, row) => !this.weights.blank(row * this.state.positions)),
      at: this.weights.at,
    };
  }
}

const widget = { render: mount(CacheView) };
export default widget;
